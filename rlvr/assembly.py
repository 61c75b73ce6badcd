"""Puts the parts of a run together from its config: task, policy, sampler, scorer, shaper, learner."""

from __future__ import annotations

import hashlib
import importlib.util
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from rlvr.config import SamplerConfig, SandboxConfig, ScorerConfig, TrainConfig, engine_options
from rlvr.errors import ConfigError, DataError
from rlvr.learner import checkpoint
from rlvr.learner.batch import Batch
from rlvr.learner.correction import resolve_correction
from rlvr.learner.learner import Learner
from rlvr.learner.policy import choose_device, load_policy, model_path, save_policy
from rlvr.preflight import preflight
from rlvr.registry import ShaperSpec, registry
from rlvr.rollout import Row, State
from rlvr.runlog import Run
from rlvr.sampler.engine import PROBE_TOKENS, Engine, EngineSampler, Weights
from rlvr.sampler.prompts import encode_prompt, encode_reply
from rlvr.sampler.transformers import TransformersSampler, end_tokens
from rlvr.sampler.vllm_engine import ColocatedEngine
from rlvr.sampler.vllm_server import ServerEngine
from rlvr.sampler.weights import facts
from rlvr.samples import samples
from rlvr.scoring import Scorer
from rlvr.shaping import configured
from rlvr.types import Completion, Sample, Sampler, SamplingParams, Task


@dataclass(frozen=True)
class Parts:
    """What a run is made of. `prompts` is the endless, shuffled stream of training samples."""

    config: TrainConfig
    task: Task
    tokenizer: Any
    sampler: Sampler
    scorer: Scorer
    shaper: ShaperSpec
    learner: Learner
    train_samples: Sequence[Sample]
    test_samples: Sequence[Sample]

    def prompts(self, position: int, count: int) -> list[Sample]:
        """Samples `position` to `position + count` of the endless stream: the train split, shuffled anew each
        epoch by seed."""
        size = len(self.train_samples)
        return [self.train_samples[self._order(i // size)[i % size]] for i in range(position, position + count)]

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            order = list(range(len(self.train_samples)))
            random.Random(derive_seed(self.config.seed, epoch)).shuffle(order)
            self._orders.clear()
            self._orders[epoch] = order
        return self._orders[epoch]

    @cached_property
    def _orders(self) -> dict[int, list[int]]:
        return {}

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sampler.close()
        self.scorer.close()

    def checkpoint_writer(self, state: State) -> Callable[[Path], None]:
        """What fills a checkpoint's folder."""
        return lambda folder: checkpoint.write(folder, self.learner, self.tokenizer, state)

    def restore(self, path: Path) -> State:
        """Goes back to the newest checkpoint of the run at `path`; a run without one starts from the beginning."""
        found = Run(path).checkpoints()
        return checkpoint.read(found[-1], self.learner) if found else State()

    def save_model(self, folder: Path) -> None:
        save_policy(self.learner.policy, self.tokenizer, folder)


def assemble(config: TrainConfig, log: Path | None = None) -> Parts:
    """Loads and connects everything, cheapest first, so that a mistake shows before a model is loaded.

    Args:
        config: Of the run.
        log: The file for what vLLM prints.

    Raises:
        RunStopped: The task's verifier does not pass its pre-flight.
        RlvrError: An unknown name, bad data, a missing device or model.
    """
    task = registry().task(config.task, config.data)
    shaper = configured(registry().shaper(config.reward.shaper), config.reward, config.sampler.max_tokens)
    train_samples, test_samples = samples(task, "train"), held_out(task, config.eval.limit)
    if not train_samples:
        raise DataError(f"the train split of `{task.name}` is empty", f"`rlvr tasks show {task.name}` prints it")
    device = choose_device(config.device)
    scorer = make_scorer(config.scorer, config.sandbox)  # its workers start while the model loads
    try:
        scorer.check(task.verifier, task.verifier_options, [*train_samples, *test_samples], task.turns)
        if config.preflight:
            preflight(task, train_samples, scorer)
        set_seed(config.seed)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # which accelerate takes
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run here may have had another precision
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision(config.learner.dtype, device))
        if accelerator.num_processes > 1:
            raise ConfigError(
                f"the loop runs in one process, but {accelerator.num_processes} were launched",
                "run `rlvr train` alone",
            )
        model, tokenizer = load_policy(config.model, device)
        reference = load_policy(config.model, device)[0] if config.learner.kl_coef else None
        updates = config.steps * config.learner.updates_per_step
        backend = choose_backend(config.sampler, device)
        correction = resolve_correction(config.learner, engine=backend != "transformers")
        learner = Learner(model, config.learner, updates, accelerator, reference, correction)
        every = [*train_samples, *test_samples]
        longest = check_prompts(tokenizer, model, task, every, config.sampler.max_tokens)
        prompt = encode_prompt(tokenizer, train_samples[0], task)
        sampler: Sampler
        if backend == "transformers":
            sampler = TransformersSampler(learner.model, tokenizer, config.sampler.batch_size)
            check_sampler(sampler, prompt)
        else:
            sampler = engine_sampler(
                config, backend, learner.policy, tokenizer, learner.weights, learner.logprobs_of, prompt, longest, log
            )
    except BaseException:
        scorer.close()
        raise
    return Parts(config, task, tokenizer, sampler, scorer, shaper, learner, train_samples, test_samples)


def check_prompts(tokenizer: Any, model: Any, task: Task, samples: Sequence[Sample], max_tokens: int) -> int:
    """Encodes every prompt once, and a reply, so that one that cannot be used stops a run before its first step.

    Returns:
        The tokens of the longest prompt.

    Raises:
        DataError: A prompt is empty, or leaves no room for a completion; names the sample.
        ConfigError: The model's chat template cannot show what the task needs.
    """
    if task.turns > 1:
        encode_reply(tokenizer, "reply", Completion(""))
    context = getattr(model.config, "max_position_embeddings", None)
    longest = 0
    for sample in samples:
        length = len(encode_prompt(tokenizer, sample, task))
        longest = max(longest, length)
        if context and length + max_tokens > context:
            raise DataError(
                f"the prompt of sample `{sample.id}` has {length} tokens; with `sampler.max_tokens` {max_tokens} "
                f"that is more than the model's context of {context}",
                f"lower `--sampler.max-tokens` to {context - length}" if length < context else "shorten or drop it",
            )
    return longest


def check_sampler(sampler: TransformersSampler, prompt: Sequence[int]) -> None:
    """Compares the sampler's log-probabilities with those of a plain forward pass, on one prompt.

    Not every architecture's cache can do what decoding in groups needs, and one that cannot gives no error of its own.

    Raises:
        ConfigError: They differ.
    """
    model = sampler.model
    name = model.config.name_or_path
    try:
        drawn = [completion for _, completion in sampler.sample([prompt], 4, SamplingParams(8))]
        rows = [Row(tuple(prompt), c.token_ids, c.logprobs, 1.0) for c in drawn]
        with torch.no_grad():
            batch = Batch.of([[(row, 1)] for row in rows], lambda row: 1.0, model.device)
            expected, _ = Learner.logprobs(model, batch, 1.0)
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"the model `{name}` cannot be sampled in groups: {error}", "take a transformer") from error
    apart = float(((expected - batch.old_logprobs_SK).abs() * batch.counts_SK).max())
    if apart > 0.3:  # far above what bfloat16 rounds off, far below what a lost state costs
        raise ConfigError(
            f"the model `{name}` cannot be sampled in groups: log-probabilities are off by {apart:.2g}",
            "its cache cannot be divided; take another architecture",
        )


def choose_backend(sampler: SamplerConfig, device: torch.device) -> str:
    """What samples: as configured, or by what is there.

    Raises:
        ConfigError: To run ahead of learning takes vLLM, which is not what samples.
    """
    if sampler.backend != "auto":
        return sampler.backend
    if sampler.url:
        return "vllm-server"
    if device.type == "cuda" and importlib.util.find_spec("vllm"):
        return "vllm"
    if sampler.staleness:
        raise ConfigError(
            f"`sampler.staleness` {sampler.staleness} needs vLLM, but transformers samples here",
            "`--sampler vllm`, or servers with `--sampler.url`",
        )
    return "transformers"


def engine_sampler(
    config: TrainConfig,
    backend: str,
    model: Any,
    tokenizer: Any,
    weights: Weights,
    logprobs: Callable[[Sequence[int], float], Sequence[float]],
    prompt: Sequence[int],
    longest: int,
    log: Path | None,
) -> EngineSampler:
    """A sampler over vLLM, which its first sync starts.

    Args:
        config: Of the run.
        backend: `vllm` or `vllm-server`.
        model: The policy.
        tokenizer: Its tokenizer.
        weights: The policy's weights.
        logprobs: The learner's log-probabilities, for the probe.
        prompt: What the probe begins with.
        longest: Tokens of the longest prompt.
        log: The file for what vLLM prints.

    Raises:
        ConfigError: A setting that it does not take.
    """
    own, device = config.sampler, model.device
    dtype = "bfloat16" if precision(config.learner.dtype, device) == "bf16" else "float32"
    needed = max(longest + own.max_tokens, len(prompt) + PROBE_TOKENS + 1)
    text = model.config.get_text_config()
    tolerance = own.tolerance or (0.1 if dtype == "bfloat16" else 1e-3 if device.type == "cpu" else 1e-2)
    engine: Engine
    if backend == "vllm":
        engine = ColocatedEngine(
            model_path(config.model),
            device=str(device),
            dtype=dtype,
            context=own.context or min(needed, getattr(text, "max_position_embeddings", None) or needed),
            at_once=own.batch_size,
            seeded=own.seeded,
            memory=own.memory,
            sync=own.sync,
            options=engine_options(own.options),
            seed=config.seed % 2**31,
            raw_logprobs=own.temperature == 1,
            rests=own.staleness == 0,
            reserve=3 * sum(parameter.nbytes for parameter in model.parameters()),  # gradients and AdamW's moments
            log=log,
        )
    else:
        engine = ServerEngine(
            own.url,
            facts=facts(model.config),
            sync=own.sync,
            seeded=own.seeded,
            patience=own.patience,
            dtype=dtype,
            tolerance=tolerance,
        )
    params = SamplingParams(own.max_tokens, own.temperature, own.top_p)
    ends = end_tokens(model, tokenizer)
    tools = (engine, tokenizer, ends, weights, logprobs, prompt, params, tolerance)
    return EngineSampler(*tools, needed=longest + own.max_tokens, rests=own.staleness == 0)


def held_out(task: Task, limit: int) -> list[Sample]:
    """The first `limit` samples of the test split; 0 takes all.

    Raises:
        DataError: The split is empty.
    """
    found = samples(task, "test")
    if not found:
        raise DataError(f"the test split of `{task.name}` is empty", f"`rlvr tasks show {task.name} --split test`")
    return found[:limit] if limit else found


def make_scorer(config: ScorerConfig, sandbox: SandboxConfig) -> Scorer:
    """A scorer with these settings and the plugins that are loaded here."""
    return Scorer(
        workers=config.workers,
        timeout=config.timeout,
        memory_mb=config.memory_mb,
        plugins=registry().plugin_files,
        sandbox=config.sandbox,
        sandbox_options=asdict(sandbox),
    )


def precision(dtype: str, device: torch.device) -> str:
    """accelerate's name for the compute type; `auto` is bfloat16 on a GPU that has it, else float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16" if dtype == "bfloat16" or (dtype == "auto" and has_bfloat16) else "no"


def derive_seed(*parts: int) -> int:
    """A seed in [0, 2**63) that depends on all of `parts`, the same in every process and version."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
