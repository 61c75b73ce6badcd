"""The settings of the stages around verifier RL: frozen dataclasses, resolved as those of `rlvr train` are.

Precedence, highest first: flag, environment (`RLVR_STAGE_SFT_LR` for `rlvr sft`), `--config` files (the last one wins),
the model that the task names, the defaults below.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

from rlvr.config import (
    STAGE_PREFIX,
    GuardConfig,
    Layer,
    LoraConfig,
    fold,
    from_environment,
    from_toml,
    setting,
    to_toml,
)
from rlvr.errors import ConfigError
from rlvr.mixture import load_mix
from rlvr.registry import load_plugin, registry
from rlvr.runlog import Run
from rlvr.settings import absolute, in_place

S = TypeVar("S", bound="StageConfig")

REFERENCED = ("dpo", "ipo", "kto")
"""Methods that keep a frozen reference."""

FIXED = {
    *("task", "data", "model", "init", "seed", "eval.limit", "eval.also"),
    *("max_length", "hold_out", "limit", "samples", "temperature", "per_prompt", "packing"),  # the rows
    *("batch_size", "lr", "weight_decay", "lora.rank", "lora.alpha", "lora.targets", "lora.quantize"),  # the optimiser
    *("method", "beta", "margin", "sft", "reference"),
}
"""What a resumed run keeps."""


@dataclass(frozen=True)
class StageEvalConfig:
    """How a stage's model is measured on tasks, before and after."""

    limit: int = setting(500, "Test problems used of each task, the first ones; 0 takes all.", low=0)
    also: tuple[str, ...] = setting((), "Another task to measure, so that what is lost elsewhere shows.")


@dataclass(frozen=True)
class StageConfig:
    """What all stages have in common."""

    task: str = setting("", "A task's name, or the path of a TOML task: what is measured and, without data, learned.")
    data: str = setting(
        "", "What to learn from: a file (`.jsonl`, `.json`, `.csv`, `.parquet`), a run's directory, or `hub:NAME`."
    )
    model: str = setting("", "A causal language model: `starter`, a folder, or a hub name; empty is the task's own.")
    init: Literal["weights", "random"] = setting(
        "weights", "Start from the model's weights, or from random ones of its architecture and with its tokenizer."
    )
    out: str = setting("", "The run's directory; empty makes one under `runs/`.")
    seed: int = setting(0, "Seed of data order, sampling and everything else random.", low=0, high=2**32 - 1)
    device: str = setting("", "`cpu`, `cuda`, `mps`; empty takes the best there is.")
    bad_rows: Literal["refuse", "skip"] = setting(
        "refuse", "What to do with rows that cannot be used: stop and name them, or leave them out and count them."
    )
    max_length: int = setting(1024, "Tokens of prompt and completion; a longer sample is a bad row.", low=2)
    hold_out: float = setting(0.05, "Share of the rows that are held out, to validate on.", low=0, high=0.5)
    limit: int = setting(0, "Rows used at most, the first ones; 0 takes all.", low=0)
    lr: float = setting(1e-5, "Peak learning rate of AdamW.", low=0)
    epochs: float = setting(1.0, "Passes over the data.", low=1e-6)
    steps: int = setting(0, "Updates, whatever `epochs` says; 0 goes by `epochs`.", low=0)
    batch_size: int = setting(32, "Rows of one update, over all processes.", low=1)
    micro_batch_size: int = setting(8, "Rows in one forward pass at most.", low=1)
    schedule: Literal["constant", "linear", "cosine"] = setting("cosine", "Learning rate after the warm-up.")
    warmup: float = setting(0.05, "Share of the updates in which the learning rate rises.", low=0, high=1)
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay.", low=0)
    grad_clip: float = setting(1.0, "Largest global gradient norm; 0 does not clip.", low=0)
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Compute type; auto is bfloat16 where the GPU has it."
    )
    recompute: bool = setting(False, "Gradient checkpointing: activations of a layer are computed again, not kept.")
    eval_every: int = setting(50, "Updates between validations.", low=1)
    save_every: int = setting(200, "Updates between checkpoints; 0 writes none.", low=0)
    plugin: tuple[str, ...] = setting((), "Plugin files to load.")
    lora: LoraConfig = field(default_factory=LoraConfig)
    eval: StageEvalConfig = field(default_factory=StageEvalConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)


@dataclass(frozen=True)
class SftConfig(StageConfig):
    """`rlvr sft`."""

    lr: float = setting(2e-5, "Peak learning rate of AdamW.", low=0)
    samples: int = setting(
        0, "Sample so many completions of each prompt of the task, and learn from those that pass; 0 takes gold.", low=0
    )
    temperature: float = setting(1.0, "Softmax temperature of these.", low=1e-3)
    per_prompt: int = setting(
        0, "Completions of one prompt at most that are learned from, where a run sampled them; 0 takes all.", low=0
    )
    packing: bool = setting(
        False,
        "Put several samples into one row of `max_length` tokens; they do not see each other, and `batch_size` counts "
        "such rows.",
    )


@dataclass(frozen=True)
class PreferConfig(StageConfig):
    """`rlvr prefer`."""

    method: Literal["dpo", "ipo", "simpo", "kto", "orpo"] = setting("dpo", "The loss.")
    lr: float = setting(1e-6, "Peak learning rate of AdamW.", low=0)
    beta: float = setting(0.0, "How closely the reference is kept to; 0 takes what is usual with the method.", low=0)
    margin: float = setting(0.5, "SimPO's margin, over beta.", low=0)
    sft: float = setting(
        0.0, "Weight of an SFT loss on what is chosen, beside that of dpo or ipo, so that it stays likely.", low=0
    )
    reference: str = setting(
        "", "The frozen reference of dpo, ipo and kto; empty is the model that training starts from."
    )
    samples: int = setting(8, "Completions sampled of each prompt, where pairs are made from the task.", low=2)
    temperature: float = setting(1.0, "Softmax temperature of these.", low=1e-3)


@dataclass(frozen=True)
class RewardModelConfig(StageConfig):
    """`rlvr reward`."""

    hold_out: float = setting(0.1, "Share of the rows that are held out, to validate on.", low=0.001, high=0.5)
    epochs: float = setting(3.0, "Passes over the data at most; training stops before, on a plateau.", low=1e-6)
    patience: int = setting(3, "Validations without a better pairwise accuracy after which training stops.", low=1)
    min_gain: float = setting(0.002, "What counts as better, in pairwise accuracy.", low=0, high=1)
    samples: int = setting(8, "Completions sampled of each prompt, where pairs are made from the task.", low=2)
    temperature: float = setting(1.0, "Softmax temperature of these.", low=1e-3)


STAGES: dict[str, type[StageConfig]] = {"sft": SftConfig, "prefer": PreferConfig, "reward": RewardModelConfig}
"""The settings of each stage, by its command."""


@dataclass(frozen=True)
class ResolvedStage(Generic[S]):
    """A stage's config and, for each dotted name, where its value came from."""

    stage: str
    config: S
    origins: dict[str, str]

    def toml(self) -> str:
        """The whole config as TOML, with the origin of each value."""
        return to_toml(self.config, self.origins)


def resolve_stage(
    stage: str,
    flags: Layer,
    config_files: Sequence[str | os.PathLike[str]] = (),
    resume: str | os.PathLike[str] | None = None,
) -> ResolvedStage[StageConfig]:
    """The config of a stage from all its layers.

    Args:
        stage: A key of `STAGES`.
        flags: The strongest layer, from the command line or from keywords.
        config_files: `--config` files, the last one wins.
        resume: A stage's run to go on with; its config takes the place of all weaker layers.

    Raises:
        ConfigError: An unknown setting, a value that cannot be used, nothing to learn from, no model, or a change to
            what a resumed run keeps.
        UnknownNameError: There is no such task.
        DataError: `resume` is not a run of this stage.
    """
    cls, command = STAGES[stage], f"rlvr {stage}"
    if resume is not None:
        if changed := sorted(FIXED & set(flags)):
            raise ConfigError(
                f"a resumed run keeps its `{changed[0]}`",
                "what it has learned was of that; start a new run to change it",
            )
        layers: list[tuple[str, Layer]] = [("resumed run", from_toml(Run(resume, command).path / "config.toml"))]
    else:
        prefix = f"{STAGE_PREFIX}{stage.upper()}_"
        layers = [(f"config {path}", from_toml(path)) for path in config_files]
        layers.append(("environment", from_environment(os.environ, cls, prefix, command)))
    layers.append(("flag", flags))
    first, origins = fold(cls, layers, command)
    for plugin in first.plugin:
        load_plugin(plugin)
    tasks = [task for task, _ in load_mix(registry(), first.task)] if first.task else []
    if tasks and not first.model and (model := tasks[0].defaults.get("model")):
        first, origins = replace(first, model=str(model)), {**origins, "model": f"task {tasks[0].name}"}
    if not (first.data or tasks):
        raise ConfigError(
            f"`{command}` has nothing to learn from: neither `task` nor `data` is given",
            "`--task math` learns from a task, `--data FILE.jsonl` from a file, a run or `hub:NAME`",
        )
    if not first.model:
        raise ConfigError("no model is named", "give `--model`: `starter`, a folder, or a hub name")
    local_model = Path(first.model).expanduser().is_dir()
    config = replace(
        first,
        task=in_place(first.task) if first.task else "",
        model=absolute(first.model) if local_model else first.model,
        data=absolute(first.data) if first.data and not first.data.startswith("hub:") else first.data,
        plugin=tuple(map(absolute, first.plugin)),
    )
    if isinstance(config, SftConfig):
        check_sft(config)
    if isinstance(config, PreferConfig):
        check_prefer(config)
    return ResolvedStage(stage, config, origins)


def check_sft(config: SftConfig) -> None:
    """Refuses settings that say two things at once.

    Raises:
        ConfigError: Both `data` and `samples` say what to learn from.
    """
    if config.data and config.samples:
        raise ConfigError(
            f"`samples` is {config.samples}, but `data` says what to learn from",
            "leave one of them out: `samples` are of the task's own prompts",
        )


def check_prefer(config: PreferConfig) -> None:
    """Refuses settings that do not go together.

    Raises:
        ConfigError: Which.
    """
    if config.reference and config.method not in REFERENCED:
        raise ConfigError(
            f"`reference` does not go with the method `{config.method}`, which has none",
            f"leave it out, or take one of {', '.join(f'`{name}`' for name in REFERENCED)}",
        )
    if config.margin != PreferConfig.margin and config.method != "simpo":
        raise ConfigError(
            f"`margin` does not go with the method `{config.method}`", "only `simpo` has a margin; leave it out"
        )
    if config.sft and config.method not in ("dpo", "ipo"):
        raise ConfigError(
            f"`sft` does not go with the method `{config.method}`",
            "`dpo` and `ipo` take an SFT loss beside their own; `orpo` has one anyway",
        )
    if config.method == "kto" and min(config.micro_batch_size, config.batch_size) < 2:
        raise ConfigError(
            "`kto` needs two rows or more in a micro-batch: its KL term sets a prompt beside another's completion",
            "raise `--micro-batch-size` and `--batch-size` to 2 or more",
        )
