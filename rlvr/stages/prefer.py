"""`rlvr prefer`: learning from preferences. The methods, with x a prompt, y its chosen and y' its rejected completion:

    dpo      -log σ(β (h(y) - h(y')))                    h = log π/π_ref of a completion     arXiv:2305.18290
    ipo      (g(y) - g(y') - 1/(2β))²                    g = h per token                     arXiv:2310.12036
    kto      1 - σ(β (h(y) - z)), 1 - σ(β (z - h(y')))   z = KL(π || π_ref), not below 0     arXiv:2402.01306
    simpo    -log σ(β (c - c' - margin))                 c = mean log π of a token           arXiv:2405.14734
    orpo     -c - β log σ(log odds(c) - log odds(c'))                                        arXiv:2403.07691

Pairs come from data, or from the task: the policy's own completions of its train prompts, best against worst (`--task`
without `--data`). kto learns from completions that are good or bad, and needs no pairs.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import TrainingArguments
from trl import DPOConfig, KTOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from rlvr.config import flatten
from rlvr.errors import ConfigError, DataError, RunStopped
from rlvr.examples.checks import drop_too_long, hold_out
from rlvr.examples.reading import Unusable, read_labels, read_pairs
from rlvr.examples.rows import Label, Pair, Report
from rlvr.examples.runs import labels_of_run, pairs_of_run
from rlvr.learner.policy import load_policy
from rlvr.runlog import Run
from rlvr.stages.config import REFERENCED, PreferConfig, ResolvedStage, StageConfig, resolve_stage
from rlvr.stages.encoding import encode
from rlvr.stages.losses import orpo_loss, simpo_loss
from rlvr.stages.preference import (
    LabelTrainer,
    LossTrainer,
    PairTrainer,
    Reference,
    judge,
    label_rows,
    measure_labels,
    measure_pairs,
    pair_rows,
)
from rlvr.stages.rollouts import sample_task
from rlvr.stages.run import Callback, Stage, open_stage

BETA = {"dpo": 0.1, "ipo": 0.1, "kto": 0.1, "simpo": 2.0, "orpo": 0.1}
"""What `beta` 0 stands for: the value of the paper, or the smallest of those it recommends."""

TRAINED = {  # metric of a trainer: its name in `metrics.jsonl`
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "entropy": "train/entropy",
    "kl": "train/kl",
    "rewards/accuracies": "train/accuracy",
    "rewards/margins": "train/margin",
    "logps/chosen": "train/logprob_chosen",
    "logps/rejected": "train/logprob_rejected",
}


def prefer(
    resolved: ResolvedStage[StageConfig] | None = None, *, resume: str | Path | None = None, **settings: Any
) -> Run:
    """Trains a policy on preferences and returns the stage's run.

    Args:
        resolved: Resolved settings, as `rlvr prefer` makes them; made from `settings` when not given.
        resume: The directory of an interrupted run to go on with.
        settings: Values by name: `data="pairs.jsonl", model="starter", method="ipo", lora={"rank": 8}`.

    Raises:
        RlvrError: Bad settings, data or model, or a run that stopped itself.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint has been written.
    """
    made = resolved or resolve_stage("prefer", flatten(settings), resume=resume)
    config = cast(PreferConfig, made.config)
    found = read(config) if config.data else None  # before anything is written or loaded
    with open_stage(made, resume) as stage:
        check_micro_batches(stage)
        model, tokenizer = stage.load()
        data = prepare(stage, config, model, tokenizer, *found) if found else None
        stage.measure("before", model, tokenizer)
        if data is None:
            sample_task(stage, model, tokenizer, config.samples, config.temperature)
            data = prepare(stage, config, model, tokenizer, *read_run(config, stage.path))
        return learn(stage, config, model, tokenizer, data)


def check_micro_batches(stage: Stage) -> None:
    """Refuses KTO where the rows of an update divide into micro-batches of one row only.

    Raises:
        ConfigError: They do.
    """
    config = cast(PreferConfig, stage.config)
    if config.method == "kto" and stage.arguments()["per_device_train_batch_size"] < 2:
        raise ConfigError(
            f"`kto` needs two rows or more in a micro-batch, and `batch_size` {config.batch_size} divides into "
            f"micro-batches of 1 row where `micro_batch_size` is {config.micro_batch_size}",
            "take a `--batch-size` that is a multiple of `--micro-batch-size`, for each process",
        )


def read(config: PreferConfig) -> tuple[list[Any], Report]:
    """What the method learns from, of `data`: labels or pairs."""
    return read_labels(config.data) if config.method == "kto" else read_pairs(config.data)


def read_run(config: PreferConfig, path: Path) -> tuple[list[Any], Report]:
    """The same from the completions that a run sampled."""
    return labels_of_run(path) if config.method == "kto" else pairs_of_run(path)


# Data


@dataclass(frozen=True)
class Row:
    """A row as token ids: the completion, and the rejected one of a pair, or whether the one is good."""

    prompt: list[int]
    completion: list[int]
    rejected: list[int]
    good: bool = True

    @property
    def longest(self) -> int:
        return len(self.prompt) + max(len(self.completion), len(self.rejected))


@dataclass(frozen=True)
class Data:
    """What is learned from, and what is held out to validate on."""

    train: list[Row]
    held: list[Row]


def prepare(stage: Stage, config: PreferConfig, model: Any, tokenizer: Any, rows: list[Any], report: Report) -> Data:
    """Encodes, checks and divides the rows, and keeps what became of them.

    Raises:
        DataError: Rows that cannot be used, unless they are to be skipped; or labels of one kind only.
    """
    chosen = rows[: config.limit] if config.limit and config.data else rows
    by_row: dict[int, Row] = {}
    for row in chosen:
        try:
            by_row[id(row)] = encoded(tokenizer, row)
        except Unusable as error:
            report.bad.append(error.bad)
    chosen = [row for row in chosen if id(row) in by_row]
    context = getattr(model.config, "max_position_embeddings", None) or config.max_length
    lengths = [by_row[id(row)].longest for row in chosen]
    kept = drop_too_long(chosen, lengths, min(config.max_length, context), report)
    report.facts |= facts([by_row[id(row)] for row in kept], config.method)
    stage.data(report, kept)
    report.refuse(kept, config.bad_rows)
    train, held = ([by_row[id(row)] for row in part] for part in hold_out(kept, config.hold_out, config.seed))
    if config.method == "kto":
        for part, name in ((train, "trained on"), (held, "held out")):
            if part and len({row.good for row in part}) < 2:
                raise DataError(
                    f"all {len(part)} rows of {report.source} that are {name} are {'good' if part[0].good else 'bad'}",
                    "`kto` needs good and bad ones: give more rows, or change `--hold-out` or `--seed`",
                )
            random.Random(config.seed).shuffle(part)  # its trainer takes them as they come
    return Data(train, held)


def encoded(tokenizer: Any, row: Pair | Label) -> Row:
    """A row as the token ids that sampling sees and makes.

    Raises:
        Unusable: A completion has tokens that mark turns.
    """
    if isinstance(row, Label):
        return Row(*encode(tokenizer, row.prompt, row.completion, row.where), [], row.good)
    prompt, completion = encode(tokenizer, row.prompt, row.chosen, row.where)
    return Row(prompt, completion, encode(tokenizer, row.prompt, row.rejected, row.where)[1])


def facts(rows: Sequence[Row], method: str) -> dict[str, Any]:
    """How many tokens better and worse completions have: learning a length is the easiest thing to learn."""
    if method == "kto":
        better = [len(row.completion) for row in rows if row.good]
        worse = [len(row.completion) for row in rows if not row.good]
        counts = {"good": len(better), "bad": len(worse)}
    else:
        better, worse = [len(row.completion) for row in rows], [len(row.rejected) for row in rows]
        counts = {"pairs": len(rows), "chosen_longer": sum(a > b for a, b in zip(better, worse, strict=True))}
    return counts | {"chosen_tokens": mean(better), "rejected_tokens": mean(worse)}


def mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


# Training


def learn(stage: Stage, config: PreferConfig, model: Any, tokenizer: Any, data: Data) -> Run:
    """Trains, validates, and proves that the reference stayed as it was."""
    beta = config.beta or BETA[config.method]
    reference = load_reference(stage, config, model)
    trainer = make_trainer(stage, config, beta, model, tokenizer, reference, data)
    course = Course(stage, config.method, beta, trainer, reference, data.held, tokenizer.pad_token_id)
    trainer.validate = course.validate
    if stage.last_checkpoint is None:
        course.validate()
    course.check_reference()
    stage.train(trainer)
    if course.step != trainer.state.global_step:
        trainer.evaluate() if data.held else course.validate()
    stage.measure("after", model, tokenizer)
    result: dict[str, Any] = {"method": config.method, "beta": beta, "updates": trainer.state.global_step}
    if data.held:
        result |= {"validation": {"rows": len(data.held), "first": course.first, "last": course.last}}
    if reference.exists:
        result |= {"reference": {"fingerprint": course.start, "checks": course.checks, "frozen": True}}
    stage.report({"Preferences": training_lines(stage, config, result), **validation_section(result)})
    return stage.finish(model, tokenizer, **result)


def load_reference(stage: Stage, config: PreferConfig, model: Any) -> Reference:
    """The frozen reference: the model named, the policy below its adapters, or a copy of what training starts from.

    Raises:
        ConfigError: It has another vocabulary than the policy.
    """
    if config.method not in REFERENCED:
        return Reference(model, exists=False)
    if config.reference:
        named = load_policy(config.reference, stage.device)[0]
        sizes = [one.config.get_text_config().vocab_size for one in (model, named)]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"the reference `{config.reference}` knows {sizes[1]} tokens, and `{config.model}` {sizes[0]}",
                "both must come from the same model; leave `--reference` out for the model that training starts from",
            )
        return Reference(model, named)
    return Reference(model) if config.lora.rank else Reference(model, copy.deepcopy(model))


def make_trainer(
    stage: Stage, config: PreferConfig, beta: float, model: Any, tokenizer: Any, reference: Reference, data: Data
) -> PairTrainer | LabelTrainer | LossTrainer:
    """The trainer of the method over the rows.

    Raises:
        ConfigError: The output layer has an adapter, which TRL's trainers pass over.
    """
    method, unseen = config.method, {} if data.held else {"eval_strategy": "no"}
    if method in REFERENCED and isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise ConfigError(
            f"`lora.targets` puts an adapter on the output layer, which `{method}` would not train",
            "leave it out: without `--lora.targets` every linear layer but the head has one",
        )
    options: dict[str, Any] = {"model": model, "processing_class": tokenizer, "callbacks": [Told(stage)]}
    common: dict[str, Any] = {"beta": beta, "max_length": None, **unseen}
    if method == "kto":
        size = stage.arguments()["per_device_train_batch_size"]
        options |= datasets(data, lambda rows: label_rows([(r.prompt, r.completion, r.good) for r in rows], size))
        good = sum(row.good for row in data.train)
        bad = len(data.train) - good
        balance = {"desirable_weight": max(1.0, bad / good), "undesirable_weight": max(1.0, good / bad)}
        args = stage.training(KTOConfig, train_sampling_strategy="sequential", **balance, **common)
        return LabelTrainer(ref_model=reference.model, args=args, **options)
    options |= datasets(data, lambda rows: pair_rows([(r.prompt, r.completion, r.rejected) for r in rows]))
    if method in REFERENCED:
        losses, weights = [{"dpo": "sigmoid", "ipo": "ipo"}[method]], [1.0]
        if config.sft:
            losses, weights = [*losses, "sft"], [1.0, config.sft]
        args = stage.training(DPOConfig, loss_type=losses, loss_weights=weights, **common)
        return PairTrainer(ref_model=reference.model, args=args, **options)
    ours: Callable[[Tensor, Tensor], Tensor] = (
        partial(simpo_loss, beta=beta, margin=config.margin) if method == "simpo" else partial(orpo_loss, weight=beta)
    )
    collator = DataCollatorForPreference(tokenizer.pad_token_id)
    return LossTrainer(ours, args=stage.training(TrainingArguments, **unseen), data_collator=collator, **options)


def datasets(data: Data, make: Callable[[Sequence[Row]], Dataset]) -> dict[str, Dataset | None]:
    """What a trainer learns from, and what it validates on."""
    return {"train_dataset": make(data.train), "eval_dataset": make(data.held) if data.held else None}


class Told(Callback):
    """Tells the stage what a trainer logs of its updates; validation is logged by `Course`."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            super().on_log(args, state, control, {TRAINED[name]: logs[name] for name in TRAINED if name in logs})


class Course:
    """The validations of a run: what the held-out rows say, and whether the reference is still what it was.

    Args:
        stage: Of the run.
        method: Which loss.
        beta: Its weight.
        trainer: Whose policy and autocast.
        reference: Of the method.
        held: The rows; without any only the reference is looked at.
        pad: Id that short rows are filled with.

    Attributes:
        first: Metrics of the first validation.
        last: Of the latest.
        step: Updates done then; -1 before the first.
        checks: How often the reference was found unchanged.
    """

    def __init__(
        self, stage: Stage, method: str, beta: float, trainer: Any, reference: Reference, held: list[Row], pad: int
    ) -> None:
        self.stage, self.method, self.beta = stage, method, beta
        self.trainer, self.reference, self.held, self.pad = trainer, reference, held, pad
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.step, self.checks = -1, 0
        self.start = reference.before
        for row in reversed(Run(stage.path).metrics()):  # of a run that is gone on with
            self.start = row.get("reference_fingerprint", self.start)
            if found := {name: value for name, value in row.items() if name.startswith("validation/")}:
                self.first, self.last = found, self.last or found

    def validate(self, loss: float | None = None) -> None:
        """Measures the policy on the held-out rows, logs it, and looks at the reference.

        Raises:
            RunStopped: The reference has moved.
        """
        if self.held:
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            training = model.training
            model.eval()
            found = {f"validation/{name}": value for name, value in self.measure(model).items()}
            model.train(training)
            self.last = found | ({} if loss is None else {"validation/loss": loss})
            self.first = self.first or self.last
        self.step = self.trainer.state.global_step
        row = self.last | self.check_reference()
        try:
            self.stage.metrics(self.step, row)
        except RunStopped as stop:  # by a guard: at the end of this update, with a checkpoint
            self.stage.stop = stop

    def measure(self, model: Any) -> dict[str, float]:
        """Metrics of the held-out rows; a KL only where there is a reference."""
        tools = self.reference, self.pad, self.trainer.compute_loss_context_manager
        better = [row for row in self.held if row.good]
        worse = [row for row in self.held if not row.good] if self.method == "kto" else better
        high = judge(model, tools[0], [(row.prompt, row.completion) for row in better], *tools[1:])
        low = judge(model, tools[0], [(row.prompt, row.rejected or row.completion) for row in worse], *tools[1:])
        measured = (measure_labels if self.method == "kto" else measure_pairs)(self.method, self.beta, high, low)
        return {name: value for name, value in measured.items() if name != "kl" or self.reference.exists}

    def check_reference(self) -> dict[str, int]:
        """The fingerprint of the reference as a metric; none where there is no reference.

        Raises:
            RunStopped: It is not what it was at the start.
        """
        now = self.reference.now()
        if now is None:
            return {}
        if now != self.start:
            step = self.trainer.state.global_step
            self.stage.fired(self.stage.watch.look({"step": step, "reference_fingerprint": now}), stop=False)
            raise RunStopped(
                f"the reference has moved: its weights have the fingerprint {now:012x}, at the start {self.start:012x}",
                "nothing may train or overwrite the reference; start a new run",
            )
        self.checks += 1
        return {"reference_fingerprint": now}


def training_lines(stage: Stage, config: PreferConfig, result: Mapping[str, Any]) -> list[str]:
    """What was trained on what, for the run's `report.md`."""
    data = stage.result["data"]
    lora = f", LoRA of rank {config.lora.rank}" if config.lora.rank else ""
    lines = [
        f"`{config.method}` with beta {result['beta']:g}: {result['updates']} updates of {config.batch_size} rows, "
        f"learning rate {config.lr:g}{lora}.",
        "",
        f"Better completions have {data['chosen_tokens']:.1f} tokens on average, worse ones "
        f"{data['rejected_tokens']:.1f}. Where these are far apart, length is what is learned first.",
    ]
    if "reference" in result:
        count = result["reference"]["checks"]
        lines += ["", f"The reference stayed as it was: its weights had the same fingerprint in all of {count} checks."]
    return lines


def validation_section(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """The first and the last validation, for the run's `report.md`; nothing where there was none."""
    if "validation" not in result:
        return {}
    first, last = result["validation"]["first"], result["validation"]["last"]
    lines = [f"On {result['validation']['rows']} held-out rows:", "", "| metric | first | last |", "|---|---|---|"]
    for name, value in last.items():
        lines.append(f"| {name.removeprefix('validation/')} | {form(first.get(name))} | {form(value)} |")
    if all(last[name] < first[name] for name in ("validation/logprob_chosen", "validation/logprob_rejected")):
        lines += [
            "",
            "Both log-probabilities fell: the policy moved away from the rejected completions, and from the chosen "
            "ones with them. A lower learning rate, a larger beta, or SFT on the chosen ones first keeps them up.",
        ]
    return {"Validation": lines}


def form(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
