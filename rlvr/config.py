"""The settings of a run: frozen dataclasses, resolved from layers, each value with its origin.

Precedence, highest first: flag, environment (`RLVR_LEARNER_LR`), `--config` files (the last one wins), the
task's defaults, the algorithm's recipe, the defaults below. A layer is a flat mapping of dotted names
(`{"learner.lr": 1e-3}`).
"""

from __future__ import annotations

import json
import math
import os
import tomllib
import typing
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from rlvr.algorithms import ALGORITHMS
from rlvr.errors import ConfigError, nearest

Layer = Mapping[str, Any]

C = TypeVar("C")

ENV_PREFIX = "RLVR_"
STAGE_PREFIX = "RLVR_STAGE_"  # of the settings of `rlvr sft`, `reward` and so on, followed by the command's name
GROUP_RELATIVE = ("group", "rloo", "reinforce++-baseline")  # estimators that need several completions of a prompt
NOT_SETTINGS = {"RLVR_DISABLE_PLUGINS", "RLVR_DEBUG"}


def setting(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A config value: its default, one line of help, and the closed range it must lie in."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class SamplerConfig:
    """How groups of completions are sampled."""

    backend: Literal["auto", "transformers", "vllm", "vllm-server"] = setting(
        "auto",
        "What samples: vLLM beside the learner, `vllm serve` at `sampler.url`, or transformers. auto is vLLM on a GPU "
        "where it is installed, servers where a URL is given, else transformers.",
    )
    url: tuple[str, ...] = setting((), "Address of a `vllm serve`, such as `http://host:8000`.")
    group_size: int = setting(8, "Completions per prompt.", low=1)
    prompts_per_step: int = setting(32, "Groups that one step learns from.", low=1)
    max_tokens: int = setting(256, "Tokens after which a completion is cut.", low=1)
    temperature: float = setting(1.0, "Softmax temperature while training.", low=1e-3)
    top_p: float = setting(1.0, "Nucleus mass kept; 1 keeps all.", low=1e-6, high=1)
    batch_size: int = setting(512, "Rows that are decoded together at most.", low=1)
    dynamic: bool = setting(True, "Refill groups whose valid rewards do not vary with fresh prompts (DAPO).")
    max_rounds: int = setting(4, "Rounds of sampling in one step at most, the first included.", low=1)
    staleness: int = setting(
        0, "Steps that sampling may run ahead of learning (vLLM only); older groups are dropped.", low=0
    )
    context: int = setting(
        0, "Tokens of prompt and completion that vLLM makes room for; 0 is what the task's prompts need.", low=0
    )
    memory: float = setting(0.0, "Share of the device's memory for vLLM beside the learner; 0 chooses.", low=0, high=1)
    sync: Literal["auto", "ipc", "files", "http"] = setting(
        "auto", "How weights reach vLLM: GPU memory that is shared, files on a common disk, or through the connection."
    )
    tolerance: float = setting(
        0.0, "Mean distance of log-probabilities after a sync above which a run stops; 0 is by the compute type.", low=0
    )
    patience: float = setting(600.0, "Seconds to wait for a vLLM server to come back when none answers.", low=0)
    seeded: bool = setting(True, "Give vLLM a seed for every completion, so that runs repeat; slower on a GPU.")
    options: tuple[str, ...] = setting((), "An engine argument of vLLM as NAME=VALUE, such as `enforce_eager=true`.")


@dataclass(frozen=True)
class ScorerConfig:
    """How completions are verified."""

    workers: int = setting(0, "Worker processes; 0 chooses by cores.", low=0)
    timeout: float = setting(10.0, "Seconds of wall clock for one verification.", low=0.001)
    memory_mb: int = setting(
        2048, "Address space that verifications may take beyond the loaded worker, in MiB.", low=64
    )
    missing_limit: float = setting(
        0.2,
        "Share of error, timeout and abstained verdicts in a step above which the run stops.",
        low=0,
        high=1,
    )
    sandbox: str = setting("", "Sandbox for verifiers that run code; empty takes the safest that runs here.")


@dataclass(frozen=True)
class SandboxConfig:
    """What holds the code that a model wrote."""

    image: str = setting("", "Image to run code in; empty takes the one that `rlvr sandbox build` makes.")
    runtime: str = setting("", "OCI runtime of the engine, such as `runsc`; empty takes the engine's own.")
    memory_mb: int = setting(768, "Memory of a container, for all of its processes, in MiB.", low=64)
    cpus: float = setting(1.0, "Processors that a container may use.", low=0.1)
    allow: tuple[str, ...] = setting((), "A limit that a container may lack, such as `swap`.")


@dataclass(frozen=True)
class RewardConfig:
    """What a verdict is worth."""

    verifier: str = setting(
        "",
        "Verifier whose verdicts are rewarded, such as `reward-model`; empty takes the task's own, which always judges "
        "the held-out problems.",
    )
    model: str = setting("", "Folder of the reward model: the `final/` of a run of `rlvr reward`.")
    shaper: str = setting("binary", "Name of the shaper that turns a verdict into a reward.")
    overlong: Literal["keep", "filter", "soft"] = setting(
        "keep",
        "Completions cut at max_tokens: keep them, filter them out of group and loss, or penalise softly.",
    )
    overlong_buffer: int = setting(0, "Last tokens over which the soft penalty grows to 1; 0 is a fifth.", low=0)
    options: tuple[str, ...] = setting((), "An option of the shaper as NAME=VALUE, such as `correct_long=0.8`.")
    repetition: float = setting(0.0, "What a completion of nothing but repetition loses; 0 is off.", low=0)
    difficulty: float = setting(
        0.0, "How far advantages are weighed by how hard a prompt is; 0 is off, 1 is all the way.", low=0, high=1
    )


@dataclass(frozen=True)
class LearnerConfig:
    """How the policy is updated."""

    lr: float = setting(1e-6, "Peak learning rate of AdamW.", low=0)
    warmup_steps: int = setting(0, "Optimiser updates of linear warm-up.", low=0)
    schedule: Literal["constant", "linear", "cosine"] = setting("constant", "Learning rate after the warm-up.")
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay.", low=0)
    beta1: float = setting(0.9, "AdamW's first moment decay.", low=0, high=0.99999)
    beta2: float = setting(0.99, "AdamW's second moment decay.", low=0, high=0.99999)
    grad_clip: float = setting(1.0, "Largest global gradient norm; 0 does not clip.", low=0)
    epochs: int = setting(1, "Passes over the rows of a step.", low=1)
    updates_per_step: int = setting(1, "Optimiser updates that one pass is split into (minibatches).", low=1)
    micro_batch_tokens: int = setting(4096, "Tokens in one forward pass at most.", low=1)
    advantage: Literal["group", "rloo", "reinforce++", "reinforce++-baseline", "gae"] = setting(
        "group",
        "What a reward is held against: its group's mean, the mean of the others of its group, the mean of the step, "
        "both group and step, or a value model (PPO).",
    )
    scale: Literal["std", "none"] = setting(
        "std", "Divide advantages by their deviation, in the group or in the step as the estimator has it, or not."
    )
    loss: Literal["clip", "gspo", "cispo"] = setting(
        "clip", "PPO's clipped ratio of each token, GSPO's of a completion, or CISPO's cut weights."
    )
    clip_low: float = setting(0.2, "The probability ratio is clipped below at 1 - clip_low.", low=0, high=1)
    clip_high: float = setting(0.2, "The probability ratio is clipped above at 1 + clip_high.", low=0)
    dual_clip: float = setting(
        0.0, "Bounds the loss of a negative advantage at so many times its size (above 1); 0 is off.", low=0
    )
    aggregate: Literal["token", "sequence", "constant"] = setting(
        "token",
        "Mean over all tokens of an update, over the means of its completions, or over completions times max_tokens.",
    )
    entropy_coef: float = setting(0.0, "Weight of the entropy bonus.", low=0)
    reference: str = setting(
        "", "What KL is measured to: a folder or hub name; empty is the model that training starts from; `none`."
    )
    kl_coef: float = setting(0.0, "Weight of the KL to the frozen reference; 0 loads no reference.", low=0)
    kl_estimator: Literal["k1", "k2", "k3"] = setting("k3", "How the KL of a token is estimated from one sample.")
    kl_in: Literal["loss", "reward"] = setting("loss", "Whether the KL is a term of the loss, or taken off the reward.")
    kl_target: float = setting(0.0, "KL of a completion, in nats, that the weight adapts to; 0 keeps it.", low=0)
    kl_horizon: int = setting(10_000, "Completions over which the weight adapts.", low=1)
    gamma: float = setting(1.0, "Discount of a reward by each token that it is away.", low=0, high=1)
    gae_lambda: float = setting(0.95, "Decay of GAE: 1 is all return, 0 is all value model.", low=0, high=1)
    value_lr: float = setting(0.0, "Peak learning rate of the value model; 0 takes `learner.lr`.", low=0)
    value_clip: float = setting(0.2, "How far a value may move from the old one before it is clipped; 0 is off.", low=0)
    value_warmup: int = setting(0, "Steps in which only the value model learns.", low=0)
    whiten_rewards: bool = setting(False, "Divide rewards by their deviation over the completions of the step (PPO).")
    correction: Literal["auto", "off", "token", "sequence"] = setting(
        "auto",
        "Weigh by how likely the learner finds what was sampled, over how likely the sampler did: each token by "
        "itself, or whole completions. auto is token with vLLM, else off.",
    )
    correction_cap: float = setting(2.0, "Weight above which the correction is cut.", low=1)
    correction_mask: bool = setting(False, "Leave out what lies above the cap instead of cutting its weight.")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Compute type; auto is bfloat16 where the GPU has it."
    )
    attention: str = setting(
        "", "Attention backend of transformers, such as `flash_attention_2` or `flex_attention`; empty is its default."
    )
    shard: Literal["auto", "ddp", "fsdp"] = setting(
        "auto",
        "With several processes: a copy of the weights in each, or a part (FSDP2). auto is fsdp where accelerate's "
        "launcher was told so, else ddp.",
    )
    recompute: bool = setting(False, "Gradient checkpointing: activations of a layer are computed again, not kept.")
    compile: bool = setting(False, "Compile the layers with torch.compile.")
    liger: bool = setting(False, "Liger's kernels for norms, rotary embeddings and MLPs (needs `liger-kernel`).")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in place of the whole policy."""

    rank: int = setting(0, "Rank of the adapters; 0 trains all weights.", low=0)
    alpha: int = setting(0, "Scale of an adapter, over its rank; 0 is twice the rank.", low=0)
    targets: tuple[str, ...] = setting(
        (), "Name of modules to adapt, or the end of it, such as `q_proj`; none takes every linear layer but the head."
    )
    quantize: Literal["none", "8bit", "4bit"] = setting(
        "none", "Keep the weights below the adapters in so few bits (QLoRA; needs `bitsandbytes`)."
    )


@dataclass(frozen=True)
class CurriculumConfig:
    """Which training prompts are passed over."""

    skip: float = setting(
        0.0, "Chance at most to pass over a prompt that is always or never solved; 0 is off.", low=0, high=0.99
    )
    memory: float = setting(
        0.9, "What earlier verdicts on a prompt still count, each time that it is sampled again.", low=0, high=1
    )


@dataclass(frozen=True)
class EvalConfig:
    """How accuracy on the held-out split is measured."""

    limit: int = setting(500, "Test problems used of each task, the first ones; 0 takes all.", low=0)
    samples: int = setting(1, "Completions per problem.", low=1)
    temperature: float = setting(0.0, "Softmax temperature; 0 is greedy.", low=0)
    every: int = setting(0, "Steps between evaluations; 0 evaluates before the first and after the last.", low=0)
    also: tuple[str, ...] = setting(
        (), "Another task to measure whenever the trained one is, so that what is lost elsewhere shows."
    )


@dataclass(frozen=True)
class GuardConfig:
    """What watches a run for the failures that practitioners know (`rlvr.guards`)."""

    action: Literal["warn", "stop", "off"] = setting(
        "warn", "What a guard does that fires: say so, stop the run after a checkpoint, or nothing."
    )
    reward_rise: float = setting(
        0.5, "Rise of the training reward, in its deviations, that held-out accuracy has to follow.", low=0
    )
    kl_factor: float = setting(
        3.0, "KL of a completion above so many times `learner.kl_target`, or its recent median, is a spike.", low=1
    )
    entropy_share: float = setting(
        0.1, "Share of the entropy at the start below which a policy that is mostly wrong has collapsed.", low=0, high=1
    )
    opener_rise: float = setting(
        0.5, "Rise of the share of completions that begin alike, above which modes have collapsed.", low=0, high=1
    )
    length_factor: float = setting(
        2.0, "Factor by which completions may grow or shrink against the start without a gain in accuracy.", low=1
    )
    baseline_error: float = setting(
        0.45, "Standard error of a group's mean, in deviations of the reward, above which groups are too small.", low=0
    )
    loss_rise: float = setting(
        0.2, "Rise of a reward model's validation loss, as a share of its lowest, that is overfitting.", low=0
    )
    tax: float = setting(
        0.0, "Fall of accuracy on another task that is let pass; one within the noise always is.", low=0, high=1
    )


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    task: str = setting(
        "math", "A task's name, or the path of a TOML task; several with weights, as in `math:0.7,json:0.3`."
    )
    model: str = setting("", "A causal language model: `starter`, a folder, or a hub name.")
    data: str = setting(
        "",
        "A local copy of the task's data: a file, or a folder with one file per split; for several tasks "
        "`NAME=PATH,NAME=PATH`.",
    )
    algorithm: Literal["grpo", "dapo", "dr-grpo", "gspo", "cispo", "rloo", "reinforce++", "ppo"] = setting(
        "dapo", "The recipe that sets the learner's defaults; `rlvr algorithms` lists them."
    )
    steps: int = setting(200, "Steps of sample, verify, update.", low=1)
    seed: int = setting(0, "Seed of data order, sampling and everything else random.", low=0, high=2**32 - 1)
    out: str = setting("", "The run's directory; empty makes one under `runs/`.")
    device: str = setting("", "`cpu`, `cuda`, `mps`; empty takes the best there is.")
    preflight: bool = setting(True, "Try the task's verifier on a few samples before the first step.")
    save_every: int = setting(50, "Steps between checkpoints; 0 keeps only the last.", low=0)
    keep_checkpoints: int = setting(2, "Checkpoints kept, the newest.", low=1)
    keep_best: int = setting(
        1, "Checkpoints kept besides: of the best held-out accuracy, where `eval.every` measured it then.", low=0
    )
    plugin: tuple[str, ...] = setting((), "Plugin files to load.")
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    scorer: ScorerConfig = field(default_factory=ScorerConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)


@dataclass(frozen=True)
class Leaf:
    """One config value as the command line and the documentation show it."""

    name: str
    type: Any
    default: Any
    help: str
    low: float | None = None
    high: float | None = None


def leaves(cls: type = TrainConfig, prefix: str = "") -> dict[str, Leaf]:
    """Every setting by its dotted name, in declaration order."""
    found: dict[str, Leaf] = {}
    hints = typing.get_type_hints(cls)
    for f in fields(cls):
        name = prefix + f.name
        if is_dataclass(hints[f.name]):
            found |= leaves(hints[f.name], name + ".")
        else:
            found[name] = Leaf(
                name, hints[f.name], f.default, f.metadata["help"], f.metadata["low"], f.metadata["high"]
            )
    return found


@dataclass(frozen=True)
class Resolved:
    """A config and, for each dotted name, where its value came from."""

    config: TrainConfig
    origins: Mapping[str, str]

    def toml(self, origins: bool = True) -> str:
        """The whole config as TOML; with `origins`, each line says in a comment where its value came from."""
        return to_toml(self.config, self.origins if origins else {})


def resolve(layers: Iterable[tuple[str, Layer]], task_defaults: Layer | None = None) -> Resolved:
    """Folds layers, lowest precedence first, over the algorithm's recipe and our defaults.

    Args:
        layers: `(origin, values)` pairs, for instance `("flag", {"learner.lr": "1e-3"})`. Text is parsed as
            the setting's type, so that flags, environment and files share one path.
        task_defaults: The task's own values, weaker than every layer.

    Raises:
        ConfigError: Unknown name, wrong type, or a value out of its range; says which and from where.
    """
    known = leaves()
    own = [("task", task_defaults or {}), *layers]
    algorithm = known["algorithm"].default
    for origin, layer in own:
        if "algorithm" in layer:
            algorithm = coerce(known["algorithm"], layer["algorithm"], origin)
    recipe = (f"algorithm {algorithm}", ALGORITHMS[algorithm].settings)
    config, origins = fold(TrainConfig, [recipe, *own], "rlvr train")
    check(config)
    return Resolved(config, origins)


def fold(cls: type[C], layers: Iterable[tuple[str, Layer]], command: str) -> tuple[C, dict[str, str]]:
    """A config from layers, lowest precedence first, over the defaults of its class; and the origin of each value.

    Args:
        cls: The class.
        layers: As for `resolve`.
        command: Whose `--help` lists the settings.

    Raises:
        ConfigError: Unknown name, wrong type, or a value out of its range; says which and from where.
    """
    known = leaves(cls)
    values: dict[str, Any] = {name: leaf.default for name, leaf in known.items()}
    origins = dict.fromkeys(known, "default")
    for origin, layer in layers:
        for name, raw in layer.items():
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean `{near}`?" if near else f"`{command} --help` lists them all"
                raise ConfigError(f"there is no setting `{name}` ({origin})", hint)
            values[name] = coerce(known[name], raw, origin)
            origins[name] = origin
    return build(cls, values), origins


def check(config: TrainConfig) -> None:
    """Refuses combinations of values that cannot work."""
    if config.eval.samples > 1 and config.eval.temperature == 0:
        raise ConfigError(
            f"`eval.samples` is {config.eval.samples}, but `eval.temperature` 0 makes them all the same",
            "set `eval.temperature` above 0, or `eval.samples` to 1",
        )
    if config.reward.overlong_buffer >= config.sampler.max_tokens:
        raise ConfigError(
            f"`reward.overlong_buffer` {config.reward.overlong_buffer} is not below `sampler.max_tokens` "
            f"{config.sampler.max_tokens}",
            "the soft penalty grows over the last tokens of the limit",
        )
    check_sampling(config.sampler)
    check_learning(config)


def check_sampling(sampler: SamplerConfig) -> None:
    """Refuses ways to sample that do not go together."""
    engine = sampler.backend in ("vllm", "vllm-server") or bool(sampler.url)
    if sampler.backend == "vllm-server" and not sampler.url:
        raise ConfigError(
            "`sampler.backend` is `vllm-server`, but there is no `sampler.url`",
            "give the address of a `vllm serve`: `--sampler.url http://host:8000`",
        )
    if sampler.url and sampler.backend not in ("auto", "vllm-server"):
        raise ConfigError(
            f"`sampler.url` does not go with `sampler.backend` `{sampler.backend}`", "servers need `vllm-server`"
        )
    for url in sampler.url:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"`sampler.url` is `{url}`, which is no address", "give one such as `http://host:8000`")
    if sampler.staleness and sampler.backend == "transformers":
        raise ConfigError(
            f"`sampler.staleness` {sampler.staleness} does not go with `sampler.backend` `transformers`",
            "it samples from the very weights that are being learned; take `--sampler vllm`, or 0",
        )
    if engine and sampler.temperature != 1 and sampler.top_p < 1:
        raise ConfigError(
            f"with vLLM, `sampler.temperature` {sampler.temperature:g} does not go with `sampler.top_p` "
            f"{sampler.top_p:g}",
            "it cannot report log-probabilities of the whole distribution then; set one of the two to 1",
        )
    engine_options(sampler.options)


def check_learning(config: TrainConfig) -> None:
    """Refuses ways to learn that do not go together."""
    learner, sampler = config.learner, config.sampler
    if learner.advantage in GROUP_RELATIVE and sampler.group_size < 2:
        raise ConfigError(
            f"`sampler.group_size` is {sampler.group_size}, but `learner.advantage` `{learner.advantage}` compares the "
            "completions of a group",
            "take 2 or more (8 is usual), or an algorithm that needs no groups: `ppo`, `reinforce++`",
        )
    if sampler.group_size < 2 and sampler.dynamic:
        raise ConfigError(
            "`sampler.dynamic` wants groups whose rewards vary, but `sampler.group_size` is 1",
            "`--no-sampler.dynamic`, or larger groups",
        )
    if sampler.prompts_per_step % learner.updates_per_step:
        raise ConfigError(
            f"the {sampler.prompts_per_step} groups of a step do not divide into `learner.updates_per_step` "
            f"{learner.updates_per_step}",
            "updates of one step take the same number of groups; "
            f"try {nearest_divisor(sampler.prompts_per_step, learner.updates_per_step)}",
        )
    if learner.reference == "none" and (learner.kl_coef or learner.kl_target):
        raise ConfigError(
            f"`learner.kl_coef` is {learner.kl_coef:g}, but `learner.reference` is `none`",
            "KL is measured to a reference: name one or leave it empty for the model that training starts from",
        )
    if learner.kl_target and not learner.kl_coef:
        raise ConfigError(
            f"`learner.kl_target` is {learner.kl_target:g}, but `learner.kl_coef` 0 loads no reference",
            "the weight adapts from where it begins: set `learner.kl_coef` above 0, such as 0.05",
        )
    if 0 < learner.dual_clip <= 1:
        raise ConfigError(
            f"`learner.dual_clip` is {learner.dual_clip:g}, but must be above 1, or 0 for off", "3 is usual"
        )
    if learner.dual_clip and learner.loss != "clip":
        raise ConfigError(
            f"`learner.dual_clip` does not go with `learner.loss` `{learner.loss}`", "only `clip` has a dual clip"
        )
    if config.reward.difficulty and learner.advantage not in ("group", "rloo"):
        raise ConfigError(
            f"`reward.difficulty` does not go with `learner.advantage` `{learner.advantage}`",
            "it weighs advantages that a group gives by itself: take `group` or `rloo`, or set it to 0",
        )
    if learner.kl_in == "reward" and learner.kl_coef and config.reward.difficulty:
        raise ConfigError(
            "`learner.kl_in` `reward` does not go with `reward.difficulty`",
            "take the KL into the loss, or set one of the two to 0",
        )
    if config.lora.quantize != "none" and not config.lora.rank:
        raise ConfigError(
            f"`lora.quantize` is `{config.lora.quantize}`, but weights of so few bits cannot be trained",
            "train adapters above them: `--lora.rank 16`",
        )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`; the smaller of two."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))


def engine_options(options: Iterable[str]) -> dict[str, Any]:
    """`sampler.options` as keyword arguments; values are JSON where they can be, else text.

    Raises:
        ConfigError: One is not NAME=VALUE.
    """
    found = {}
    for option in options:
        name, sign, text = option.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not sign or not name.isidentifier():
            raise ConfigError(
                f"`sampler.options` has `{option}`, which is not NAME=VALUE", "such as `enforce_eager=true`"
            )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def warnings(config: TrainConfig) -> list[str]:
    """What is allowed but rarely wanted."""
    found = []
    if config.learner.kl_coef and config.learner.kl_estimator == "k1" and config.learner.kl_in == "loss":
        found.append("the k1 estimator has no gradient on average; in a loss take k2 or k3 (`--learner.kl-estimator`)")
    if config.sampler.group_size < 8 and config.learner.advantage in GROUP_RELATIVE:
        found.append(
            f"groups of {config.sampler.group_size} completions give a noisy baseline; 8 or more are usual "
            "(`--sampler.group-size`)"
        )
    return found


def build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """An instance of the config class from flat dotted values."""
    hints = typing.get_type_hints(cls)
    arguments = {}
    for f in fields(cls):
        name = prefix + f.name
        arguments[f.name] = build(hints[f.name], values, name + ".") if is_dataclass(hints[f.name]) else values[name]
    return cls(**arguments)


def coerce(leaf: Leaf, raw: Any, origin: str) -> Any:
    """`raw` as the type of `leaf`, checked against its range. Text from flags and environment is parsed."""

    def refuse(wanted: str, hint: str = "") -> ConfigError:
        what = f"give `{leaf.name}` {wanted}; it is: {leaf.help}"
        return ConfigError(f"`{leaf.name}` is `{raw}`, but must be {wanted} ({origin})", hint or what)

    kind: Any = leaf.type
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if raw not in choices:
            near = nearest(raw, choices) if isinstance(raw, str) else None
            raise refuse("one of " + ", ".join(f"`{c}`" for c in choices), f"did you mean `{near}`?" if near else "")
        return raw
    if typing.get_origin(kind) is tuple:
        parts = [raw] if isinstance(raw, str) else raw
        if not isinstance(parts, (list, tuple)) or not all(isinstance(p, str) for p in parts):
            raise refuse("a list of strings")
        return tuple(parts)
    if kind is bool:
        words = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)
        value = words.get(raw.lower()) if isinstance(raw, str) else raw
        if not isinstance(value, bool):
            raise refuse("true or false")
        return value
    if kind is str:
        if not isinstance(raw, (str, os.PathLike)):
            raise refuse("text")
        return os.fspath(raw)
    try:
        if isinstance(raw, bool):
            raise ValueError
        number = kind(raw)
        if kind is int and not isinstance(raw, str) and number != raw:
            raise ValueError
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise refuse("a whole number" if kind is int else "a number") from None
    if leaf.low is not None and number < leaf.low:
        raise refuse(f"at least {leaf.low:.12g}")
    if leaf.high is not None and number > leaf.high:
        raise refuse(f"at most {leaf.high:.12g}")
    return number


def from_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A `--config` file as a layer.

    Raises:
        ConfigError: No such file, or not TOML (the message has the line).
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no config file `{path}`", "give `--config` the path of a TOML file") from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` is not TOML: {error}", "`rlvr train --dry-run` prints a valid one") from None
    return flatten(document)


def from_environment(
    environ: Mapping[str, str], cls: type | None = None, prefix: str = ENV_PREFIX, command: str = "rlvr train"
) -> dict[str, str]:
    """The `RLVR_*` variables as a layer: `RLVR_LEARNER_LR` sets `learner.lr`, `RLVR_STAGE_SFT_LR` sets `lr` of
    `rlvr sft`.

    Args:
        environ: Of this process.
        cls: Whose settings; those of `rlvr train` by default.
        prefix: What their variables begin with.
        command: Whose `--help` lists them.

    Raises:
        ConfigError: A variable with the prefix that names no setting.
    """
    by_variable = {prefix + name.replace(".", "_").upper(): name for name in leaves(cls or TrainConfig)}
    layer = {}
    for variable, value in environ.items():
        if not variable.startswith(prefix) or variable in NOT_SETTINGS:
            continue
        if prefix == ENV_PREFIX and variable.startswith(STAGE_PREFIX):
            continue
        if variable not in by_variable:
            near = nearest(variable, [*by_variable, *sorted(NOT_SETTINGS)])
            raise ConfigError(
                f"the environment variable `{variable}` names no setting",
                f"did you mean `{near}`?" if near else f"unset it; `{command} --help` lists the settings",
            )
        layer[by_variable[variable]] = value
    return layer


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def to_toml(config: Any, origins: Mapping[str, str] | None = None, prefix: str = "") -> str:
    """A config dataclass as TOML text."""
    origins = origins or {}
    lines, tables = [], []
    for f in fields(config):
        name, value = prefix + f.name, getattr(config, f.name)
        if is_dataclass(value):
            tables.append(f"\n[{name}]\n" + to_toml(value, origins, name + "."))
            continue
        comment = f"  # {origins[name]}" if name in origins else ""
        text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
        text = text.replace("\x7f", "\\u007f")  # TOML escapes what JSON does, and this one too
        lines.append(f"{f.name} = {text}{comment}\n")
    return "".join(lines + tables)
