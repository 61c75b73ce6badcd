"""Puts the parts of a run together from its config: task, policy, sampler, scorer, shaper, learner."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from rlvr.config import ScorerConfig, TrainConfig
from rlvr.errors import ConfigError, DataError
from rlvr.learner import checkpoint
from rlvr.learner.learner import Learner
from rlvr.learner.policy import choose_device, load_policy, save_policy
from rlvr.registry import ShaperSpec, registry
from rlvr.rollout import State
from rlvr.runlog import Run
from rlvr.sampler.transformers import TransformersSampler
from rlvr.scoring import Scorer
from rlvr.types import Sample, Sampler, Task


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


def assemble(config: TrainConfig) -> Parts:
    """Loads and connects everything, cheapest first, so that a mistake shows before a model is loaded.

    Raises:
        RlvrError: An unknown name, bad data, a missing device or model.
    """
    task = registry().task(config.task, config.data)
    shaper = registry().shaper(config.reward.shaper)
    train_samples, test_samples = list(task.load("train")), held_out(task, config.eval.limit)
    if not train_samples:
        raise DataError(f"the train split of `{task.name}` is empty", f"`rlvr tasks show {task.name}` prints it")
    device = choose_device(config.device)
    scorer = make_scorer(config.scorer)  # its workers start while the model loads
    try:
        scorer.check(task.verifier, task.verifier_options)
        set_seed(config.seed)
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
        learner = Learner(model, config.learner, updates, accelerator, reference)
    except BaseException:
        scorer.close()
        raise
    sampler = TransformersSampler(learner.model, tokenizer, config.sampler.batch_size)
    return Parts(config, task, tokenizer, sampler, scorer, shaper, learner, train_samples, test_samples)


def held_out(task: Task, limit: int) -> list[Sample]:
    """The first `limit` samples of the test split; 0 takes all.

    Raises:
        DataError: The split is empty.
    """
    samples = list(task.load("test"))
    if not samples:
        raise DataError(f"the test split of `{task.name}` is empty", f"`rlvr tasks show {task.name} --split test`")
    return samples[:limit] if limit else samples


def make_scorer(config: ScorerConfig) -> Scorer:
    """A scorer with the settings of `config` and the plugins that are loaded here."""
    return Scorer(
        workers=config.workers,
        timeout=config.timeout,
        memory_mb=config.memory_mb,
        plugins=registry().plugin_files,
        sandbox=config.sandbox,
    )


def precision(dtype: str, device: torch.device) -> str:
    """accelerate's name for the compute type; `auto` is bfloat16 on a GPU that has it, else float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bf16" if dtype == "bfloat16" or (dtype == "auto" and has_bfloat16) else "no"


def derive_seed(*parts: int) -> int:
    """A seed in [0, 2**63) that depends on all of `parts`, the same in every process and version."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
