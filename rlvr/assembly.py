"""Puts the parts of a run together from its config: task, policy, sampler, scorer, shaper, learner."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed

from rlvr.config import RewardConfig, SamplerConfig, SandboxConfig, ScorerConfig, TrainConfig, engine_options
from rlvr.curriculum import passes_over
from rlvr.errors import ConfigError, DataError
from rlvr.exchange import together
from rlvr.learner import checkpoint
from rlvr.learner.adapters import save_adapters
from rlvr.learner.correction import resolve_correction
from rlvr.learner.learner import Learner
from rlvr.learner.modules import logprobs_of
from rlvr.learner.parallel import Exchange
from rlvr.learner.policy import choose_device, load_policy, local, model_path, save_policy
from rlvr.learner.setup import check_learner, load_learner
from rlvr.mixture import Problem, Stream, load_also, load_mix, number
from rlvr.preflight import preflight
from rlvr.progress import Progress
from rlvr.provenance import changes, provenance
from rlvr.registry import ShaperSpec, registry
from rlvr.rollout import Evidence, State
from rlvr.runlog import Run, environment, read_manifest
from rlvr.sampler.engine import PROBE_TOKENS, Bystander, Engine, EngineSampler, Weights
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
    """What a run is made of: `stream` is the endless stream of training problems, `test` are the held-out ones, `also`
    those of tasks that are only measured."""

    config: TrainConfig
    tokenizer: Any
    sampler: Sampler
    scorer: Scorer
    shaper: ShaperSpec
    learner: Learner
    stream: Stream
    test: Sequence[Problem]
    also: Sequence[Problem]
    exchange: Exchange
    rounds: Exchange  # for sampling, which may go on in another thread

    def problems(self, position: int, count: int, evidence: Mapping[str, Evidence]) -> list[Problem]:
        """The next `count` training problems from `position` of the stream on; the curriculum passes over some."""
        own, group_size, seed = self.config.curriculum, self.config.sampler.group_size, self.config.seed
        found: list[Problem] = []
        while len(found) < count:
            problem = self.stream[position]
            known = evidence.get(problem.key)
            if known is None or not passes_over(known, group_size, own.skip, seed, position):
                found.append(problem)
            position += 1
        return found

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sampler.close()
        self.scorer.close()

    def checkpoint_writer(self, state: State) -> Callable[[Path], dict[str, Any]]:
        """What fills a checkpoint's folder, and says what its manifest should."""
        judged = provenance(self.stream.tasks, self.scorer.registry)
        return lambda folder: {
            **checkpoint.write(folder, self.learner, self.tokenizer, state),
            "packages": environment()["packages"],
            "provenance": judged,
        }

    def restore(self, path: Path) -> State:
        """Goes back to the newest checkpoint of the run at `path` that is whole; a run without one starts from the
        beginning. Says which it could not use, and what rewards come from that has changed since.

        Raises:
            DataError: There are checkpoints, and none can be used.
        """

        def newest() -> str:
            folder, flaws = Run(path).newest_whole()
            return json.dumps([folder and str(folder), flaws])

        first = self.exchange.process == 0
        name, flaws = json.loads(self.exchange.share(together(self.exchange, newest if first else str))[0])
        if name is None:
            return State()
        folder = Path(name)
        state = together(self.exchange, lambda: checkpoint.read(folder, self.learner))
        judged = provenance(self.stream.tasks, self.scorer.registry)
        then = read_manifest(folder).get("provenance", {})
        said = [f"`{name}` cannot be used: {flaw}\nhint: going on from `{folder.name}`" for name, flaw in flaws.items()]
        said += [f"{change}\nhint: rewards from here on may not compare" for change in changes(then, judged)]
        Progress(path, self.config.steps, silent=not first).warn(said)
        return state

    def save_model(self, folder: Path) -> None:
        save_policy(self.learner.policy, self.tokenizer, folder)
        if self.learner.adapted:
            save_adapters(self.learner.policy, folder / "adapter")


def processes(config: TrainConfig) -> Exchange:
    """Starts this process's part of a run: finds the device, and the other processes if torchrun or accelerate launched
    several.

    Raises:
        MissingDependencyError: There is no such device.
    """
    device = choose_device(config.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # which accelerate takes
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run here may have had another precision
    plain = DistributedDataParallelKwargs(broadcast_buffers=False)  # they are the same everywhere
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=2))  # while one of them writes a checkpoint
    dtype = precision(config.learner.dtype, device)
    return Exchange(Accelerator(cpu=device.type == "cpu", mixed_precision=dtype, kwargs_handlers=[plain, patient]))


def assemble(config: TrainConfig, log: Path | None = None, exchange: Exchange | None = None) -> Parts:
    """Loads and connects everything, cheapest first, so that a mistake shows before a model is loaded.

    Args:
        config: Of the run.
        log: The file for what vLLM prints.
        exchange: The processes of the run; just this one by default.

    Raises:
        RunStopped: The task's verifier does not pass its pre-flight.
        RlvrError: An unknown name, bad data, a missing device or model.
    """
    mix = load_mix(registry(), config.task, config.data)
    tasks = [task for task, _ in mix]
    judged = [rewarded(task, config.reward) for task in tasks]
    shaper = configured(registry().shaper(config.reward.shaper), config.reward, config.sampler.max_tokens)
    train, test = [to_train_on(task) for task in tasks], [held_out(task, config.eval.limit) for task in tasks]
    weights = [weight for _, weight in mix]
    stream = Stream(list(zip(judged, weights, train, strict=True)), config.seed)
    also = measured_also(config, tasks)
    check_learner(config)
    scorer = make_scorer(config.scorer, config.sandbox, config.device)  # its workers start while the model loads
    try:
        for task, mine, others in zip(tasks, train, test, strict=True):
            scorer.check(task.verifier, task.verifier_options, [*mine, *others], task.turns)
            if config.preflight:
                preflight(task, mine, scorer)
        check_verifiers(scorer, also)
        if config.reward.verifier:
            for task, mine in zip(judged, train, strict=True):
                scorer.check(task.verifier, task.verifier_options, mine)
                if config.preflight:
                    preflight(task, mine, scorer)
        set_seed(config.seed)
        exchange = exchange or processes(config)
        accelerator, device = exchange.accelerator, exchange.accelerator.device
        backend = choose_backend(config.sampler, device)
        rounds = Exchange(accelerator)
        if config.lora.quantize != "none" and backend != "transformers":
            raise ConfigError(
                f"`lora.quantize` `{config.lora.quantize}` does not go with vLLM, which takes whole weights",
                "`--sampler transformers`, or LoRA without `--lora.quantize`",
            )
        exchange.spread = rounds.spread = backend != "vllm-server"
        correct = resolve_correction(config.learner, engine=backend != "transformers")
        loaded = load_learner(config, device, accelerator, correct)
        learner, tokenizer = loaded.learner, loaded.tokenizer
        every = [*number(tasks, train), *number(tasks, test)]
        longest = check_lengths(tokenizer, learner.policy, config.sampler.max_tokens, every, also)
        prompt = encode_prompt(tokenizer, train[0][0], tasks[0])
        sampler: Sampler
        if backend == "transformers":
            sampler = batches = transformers_sampler(config, learner, tokenizer)
            check_sampler(batches, prompt)
        elif backend == "vllm-server" and exchange.process > 0:
            sampler = Bystander(learner.weights, learner.logprobs_of, learner.sharded, prompt)
        else:
            sampler = engine_sampler(
                config, backend, learner.policy, tokenizer, learner.weights, learner.logprobs_of, prompt, longest, log
            )
    except BaseException:
        scorer.close()
        raise
    tests = number(tasks, test)
    return Parts(config, tokenizer, sampler, scorer, shaper, learner, stream, tests, also, exchange, rounds)


def measured_also(config: TrainConfig, trained: Sequence[Task]) -> list[Problem]:
    """The held-out problems of the tasks that are only measured.

    Raises:
        RlvrError: An unknown name, one that is trained as well, or an empty split.
    """
    tasks = load_also(registry(), config.eval.also, trained)
    return number(tasks, [held_out(task, config.eval.limit) for task in tasks])


def check_verifiers(scorer: Scorer, problems: Sequence[Problem]) -> None:
    """Whether the verifiers of problems find all they need in them.

    Raises:
        RlvrError: As `Scorer.check`.
    """
    for task in {problem.task.name: problem.task for problem in problems}.values():
        mine = [problem.sample for problem in problems if problem.task.name == task.name]
        scorer.check(task.verifier, task.verifier_options, mine, task.turns)


def answer_limit(task: Task, usual: int) -> int:
    """Tokens that a completion of a task that is only measured may have: as many as when it is measured alone."""
    return int(task.defaults.get("sampler.max_tokens", usual))


def check_lengths(
    tokenizer: Any, model: Any, max_tokens: int, problems: Sequence[Problem], also: Sequence[Problem]
) -> int:
    """`check_prompts` of all problems of a run.

    Returns:
        The tokens of a prompt beside which `max_tokens` leave room for everything.
    """
    longest = check_prompts(tokenizer, model, problems, max_tokens)
    for problem in also:
        limit = answer_limit(problem.task, max_tokens)
        longest = max(longest, check_prompts(tokenizer, model, [problem], limit) + limit - max_tokens)
    return longest


def check_prompts(tokenizer: Any, model: Any, problems: Sequence[Problem], max_tokens: int) -> int:
    """Encodes every prompt once, and a reply, so that one that cannot be used stops a run before its first step.

    Returns:
        The tokens of the longest prompt.

    Raises:
        DataError: A prompt is empty, or leaves no room for a completion; names the sample.
        ConfigError: The model's chat template cannot show what a task needs.
    """
    if any(problem.task.turns > 1 for problem in problems):
        encode_reply(tokenizer, "reply", Completion(""))
    context = getattr(model.config, "max_position_embeddings", None)
    longest = 0
    for problem in problems:
        length = len(encode_prompt(tokenizer, problem.sample, problem.task))
        longest = max(longest, length)
        if context and length + max_tokens > context:
            raise DataError(
                f"the prompt of sample `{problem.sample.id}` has {length} tokens; with `sampler.max_tokens` "
                f"{max_tokens} that is more than the model's context of {context}",
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
        expected = [logprobs_of(model, [*prompt, *c.token_ids])[len(prompt) - 1 :] for c in drawn]
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"the model `{name}` cannot be sampled in groups: {error}", "take a transformer") from error
    pairs = [pair for known, c in zip(expected, drawn, strict=True) for pair in zip(known, c.logprobs, strict=True)]
    apart = max(abs(known - given) for known, given in pairs)
    if apart > 0.3:  # far above what bfloat16 rounds off, far below what a lost state costs
        raise ConfigError(
            f"the model `{name}` cannot be sampled in groups: log-probabilities are off by {apart:.2g}",
            "its cache cannot be divided; take another architecture",
        )


def transformers_sampler(config: TrainConfig, learner: Learner, tokenizer: Any) -> TransformersSampler:
    """Samples from the learner's own model, or from a copy where that is sharded over processes."""
    if not learner.sharded:
        return TransformersSampler(learner.model, tokenizer, config.sampler.batch_size)
    copy = load_policy(config.model, learner.accelerator.device, config.learner.attention)[0]
    copy = learner.accelerator.prepare_model(copy, evaluation_mode=True)  # which has it compute in the same type
    return TransformersSampler(copy, tokenizer, config.sampler.batch_size, learner.weights)


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
            # Gradients and AdamW's moments.
            reserve=3 * sum(local(parameter).nbytes for parameter in model.parameters() if parameter.requires_grad),
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
            size=sum(parameter.nbytes for parameter in model.parameters()),
        )
    params = SamplingParams(own.max_tokens, own.temperature, own.top_p)
    ends = end_tokens(model, tokenizer)
    tools = (engine, tokenizer, ends, weights, logprobs, prompt, params, tolerance)
    return EngineSampler(*tools, needed=longest + own.max_tokens, rests=own.staleness == 0)


def to_train_on(task: Task) -> list[Sample]:
    """The samples of the train split.

    Raises:
        DataError: The split is empty.
    """
    found = samples(task, "train")
    if not found:
        raise DataError(f"the train split of `{task.name}` is empty", f"`rlvr tasks show {task.name}` prints it")
    return found


def held_out(task: Task, limit: int) -> list[Sample]:
    """The first `limit` samples of the test split; 0 takes all.

    Raises:
        DataError: The split is empty.
    """
    found = samples(task, "test")
    if not found:
        raise DataError(f"the test split of `{task.name}` is empty", f"`rlvr tasks show {task.name} --split test`")
    return found[:limit] if limit else found


def rewarded(task: Task, config: RewardConfig) -> Task:
    """The task as it is trained on: with the verifier that the rewards come from, where that is not its own."""
    if not config.verifier:
        return task
    options = {"model": config.model} if config.model else {}
    return replace(task, verifier=config.verifier, verifier_options=options)


def make_scorer(config: ScorerConfig, sandbox: SandboxConfig, device: str = "") -> Scorer:
    """A scorer with these settings and the plugins that are loaded here; reward models run on `device`."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of the run on this machine
    return Scorer(
        workers=config.workers or (max(1, (os.cpu_count() or 1) // neighbours) if neighbours > 1 else 0),
        timeout=config.timeout,
        memory_mb=config.memory_mb,
        plugins=registry().plugin_files,
        sandbox=config.sandbox,
        sandbox_options=asdict(sandbox),
        device=device,
    )


def precision(dtype: str, device: torch.device) -> str:
    """accelerate's name for the compute type; `auto` is bfloat16 on a GPU that has it, else float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16" if dtype == "bfloat16" or (dtype == "auto" and has_bfloat16) else "no"
