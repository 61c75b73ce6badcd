"""`rlvr reward`: a reward model from preference pairs, on TRL's RewardTrainer.

Bradley and Terry 1952, as Ouyang et al. 2022 (arXiv:2203.02155) train it: a language model with one output in place of
its vocabulary, read at the last token, and the loss of a pair

    -log sigmoid(r(prompt, chosen) - r(prompt, rejected))

TRL owns this loss and the training. Ours are the pairs and their checks, the validation (pairwise accuracy, calibration
and margins over whole held-out prompts), the stop on the plateau of *accuracy*, and the hand-over: `final/` has the
weights of the best validation and `reward_model.json`, with which the verifier `reward-model` serves it.

Loss is no reason to stop: the margins of pairs that are ordered rightly go on growing, and a few wrong ones with large
margins make it rise, while the order, which is all that a policy will see of the model, is as good as before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from matplotlib.figure import Figure
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer

from rlvr.config import flatten
from rlvr.errors import ConfigError, DataError, MissingDependencyError
from rlvr.examples.checks import drop_too_long, hold_out
from rlvr.examples.reading import read_pairs
from rlvr.examples.rows import Pair, Report
from rlvr.examples.runs import pairs_of_run
from rlvr.learner.adapters import add_adapters, check_adapters, quantization
from rlvr.learner.policy import model_path
from rlvr.modelserver import FACTS
from rlvr.runlog import Run, digest, write_atomically
from rlvr.stages.calibration import Validation, on_plateau, validation
from rlvr.stages.config import ResolvedStage, RewardModelConfig, StageConfig, resolve_stage
from rlvr.stages.encoding import room
from rlvr.stages.rollouts import sample_task
from rlvr.stages.run import Callback, Encoded, Stage, open_stage
from rlvr.stages.serve import Ids, raw_scores, scored_ids

HEAD = "score"  # the module that transformers puts in place of the vocabulary

LOGGED = {"accuracy": "train/accuracy", "margin": "train/margin"}
FEW = 50
"""Held-out pairs from which on their accuracy says something: a 95% interval of 50 is up to 27 points wide."""

UNLOGGED = ("min_reward", "mean_reward", "max_reward", "num_tokens")


def train_reward_model(
    resolved: ResolvedStage[Any] | None = None, *, resume: str | Path | None = None, **settings: Any
) -> Run:
    """Trains a reward model and returns its run.

    Args:
        resolved: Resolved settings, as `rlvr reward` makes them; made from `settings` when not given.
        resume: The directory of an interrupted run to go on with.
        settings: Values by name: `data="pairs.jsonl", model="starter", lr=1e-4`.

    Raises:
        RlvrError: Bad settings, data or model, or a guard that stops the run.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint has been written.
    """
    resolved = resolved or resolve_stage("reward", flatten(settings), resume=resume)
    check(resolved.config)
    given = read_pairs(resolved.config.data) if resolved.config.data else None  # before anything is written or loaded
    with open_stage(resolved, resume) as stage:
        if resolved.config.task and resolved.config.data:
            stage.say("warning: `task` gives no more than its default model: the pairs are those of `data`")
        pairs, known = given or make_pairs(stage)
        pairs = pairs[: resolved.config.limit or None]
        model, tokenizer = load_model(stage)
        longest = room(model, stage.config.max_length)
        train, held = split(stage, pairs, known, tokenizer, longest)
        trainer = fit(stage, model, tokenizer, train, held)
        found = trainer.validate()
        stage.say(f"held-out pairwise accuracy: {found}")
        for doubt in doubts(found):
            stage.say(f"warning: {doubt}")
        facts = facts_of(stage, found, [pair for pair, _, _ in [*train, *held]], longest)
        if stage.first:
            draw(found, stage.path / "calibration.png")
            write_atomically(stage.path / "report.md", report(stage, found, trainer, len(train)))

        def beside(folder: Path) -> None:
            facts["weights"] = {file.name: digest(file) for file in sorted(folder.glob("*.safetensors"))}
            write_atomically(folder / FACTS, json.dumps(facts, indent=2) + "\n")

        return stage.finish(model, tokenizer, beside, validation=found.to_json(), updates=trainer.state.global_step)


def check(config: StageConfig) -> None:
    """Refuses what would change nothing.

    Raises:
        ConfigError: Tasks are to be measured.
    """
    if config.eval.also:
        raise ConfigError(
            "`eval.also` does not go with `rlvr reward`: a reward model writes nothing that a task could verify",
            "leave it out; held-out pairs are what it is measured on",
        )


# Data

Scored = tuple[Pair, Ids, Ids]
"""A pair, and the tokens of what is chosen and what is rejected, each with the prompt."""


def make_pairs(stage: Stage) -> tuple[list[Pair], Report]:
    """Pairs of the best against the worst completion of the task's own prompts, and what became of the others.

    Raises:
        RlvrError: As `sample_task`.
    """
    config = cast(RewardModelConfig, stage.config)
    sampler, tokenizer = stage.load()
    sample_task(stage, sampler, tokenizer, config.samples, config.temperature)
    return pairs_of_run(stage.path)


def split(
    stage: Stage, pairs: Sequence[Pair], known: Report, tokenizer: Any, longest: int
) -> tuple[list[Scored], list[Scored]]:
    """Encoded pairs to train on and to validate on, which have no prompt in common.

    Raises:
        DataError: Rows that cannot be used, or too few prompts to hold one out.
    """
    config = stage.config
    encoded = {
        id(pair): (
            scored_ids(tokenizer, pair.prompt, pair.chosen, pair.where),
            scored_ids(tokenizer, pair.prompt, pair.rejected, pair.where),
        )
        for pair in pairs
    }
    lengths = [max(map(len, encoded[id(pair)])) for pair in pairs]
    fitting = drop_too_long(pairs, lengths, longest, known)
    stage.data(known, fitting)
    known.refuse(fitting, config.bad_rows)
    train, held = hold_out(fitting, config.hold_out, config.seed)
    if not held:
        raise DataError(
            f"{known.source} has pairs of one prompt only, so that none can be held out",
            "a reward model needs pairs of several prompts",
        )
    return [(pair, *encoded[id(pair)]) for pair in train], [(pair, *encoded[id(pair)]) for pair in held]


# Model


def load_model(stage: Stage) -> tuple[Any, Any]:
    """The language model of the settings with one output in place of its vocabulary, and its tokenizer.

    Raises:
        ConfigError: No model folder, or adapters that fit nowhere.
        MissingDependencyError: It cannot be loaded.
    """
    config = stage.config
    path = model_path(config.model)
    if config.lora.rank:
        check_adapters(config.model, config.lora)
    options: dict[str, Any] = {}
    if (quantized := quantization(config.lora)) is not None:
        options = {"quantization_config": quantized, "device_map": {"": str(stage.device)}}
    set_seed(config.seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        if config.init == "random":
            architecture = AutoConfig.from_pretrained(path, num_labels=1)
            model = AutoModelForSequenceClassification.from_config(architecture)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(
                path, num_labels=1, dtype=torch.float32, **options
            )
    except Exception as error:  # a damaged folder can make its readers raise anything
        cause = " ".join(str(error).split())[:300]
        raise MissingDependencyError(
            f"the model `{config.model}` cannot be loaded to score: {cause}",
            "check the name and the connection, or give the path of a local folder",
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # where the last token is found by
    if not options:
        model = model.to(stage.device)
    return (add_adapters(model, config.lora, HEAD) if config.lora.rank else model), tokenizer


# Training


class Trainer(Encoded, RewardTrainer):
    """TRL's trainer with our validation: over all held-out pairs, exactly, and with what the pairs' order says."""

    def __init__(self, held: Sequence[Scored], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.held = held
        self.control: Any

    def validate(self) -> Validation:
        """Scores all held-out pairs with the model as it is."""
        self.model.eval()
        limit = self.args.max_length * self.args.per_device_eval_batch_size
        scores = raw_scores(self.model, [ids for _, *both in self.held for ids in both], limit)
        return validation(scores[::2], scores[1::2])

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        found = self.validate()
        metrics = {
            "eval_accuracy": found.accuracy,
            "eval_loss": found.loss,
            "eval_pairs": found.pairs,
            "eval_ece": found.ece,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Told(Callback):
    """Hands what TRL logs to the stage, under names that say what of it is of the training pairs."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        row = {LOGGED.get(name, name): value for name, value in (logs or {}).items() if name not in UNLOGGED}
        super().on_log(args, state, control, row, **kwargs)


class Plateau(TrainerCallback):
    """Stops training when accuracy no longer grows, and has the last update validated."""

    def __init__(self, patience: int, min_gain: float) -> None:
        self.patience, self.min_gain = patience, min_gain

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        accuracies = [row["eval_accuracy"] for row in state.log_history if "eval_accuracy" in row]
        if on_plateau(accuracies, self.patience, self.min_gain):
            control.should_training_stop = True


def fit(stage: Stage, model: Any, tokenizer: Any, train: Sequence[Scored], held: Sequence[Scored]) -> Trainer:
    """Trains until the plateau or the last update; the model then has the weights of the best validation."""
    config = cast(RewardModelConfig, stage.config)
    more = {
        "max_length": room(model, config.max_length),
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "greater_is_better": True,
        "save_strategy": "steps",
        "save_steps": config.eval_every,  # a checkpoint for each validation, of which the best is kept
    }
    rows = {"chosen_ids": [list(ids) for _, ids, _ in train], "rejected_ids": [list(ids) for _, _, ids in train]}
    trainer = Trainer(
        held,
        model=model,
        args=stage.training(RewardConfig, **more),
        train_dataset=Dataset.from_dict(rows),
        eval_dataset=Dataset.from_dict({name: own[:1] for name, own in rows.items()}),  # `evaluate` has its own
        processing_class=tokenizer,
        callbacks=[Told(stage), Plateau(config.patience, config.min_gain)],
    )
    stage.train(trainer)
    return trainer


# What is left behind


def doubts(found: Validation) -> list[str]:
    """Why not to rely on a reward model yet."""
    said = []
    if found.low <= 0.5:
        said.append(
            f"held-out pairwise accuracy is {found.accuracy:.1%} [{found.low:.1%}, {found.high:.1%}], which is not "
            "above chance: do not train a policy against it; give it more pairs, a larger model or a higher `--lr`"
        )
    if found.pairs < FEW:
        said.append(
            f"only {found.pairs} pairs are held out, too few to say how good it is: give more, or raise `--hold-out`"
        )
    return said


def facts_of(stage: Stage, found: Validation, pairs: Sequence[Pair], longest: int) -> dict[str, Any]:
    """What `reward_model.json` says."""
    rows = json.dumps([pair.to_json() for pair in pairs], sort_keys=True, default=str)
    return {
        "format": 1,
        "base": stage.config.model,
        "mean": found.mean,
        "deviation": found.deviation,
        "max_length": longest,
        "accuracy": found.accuracy,
        "interval": [found.low, found.high],
        "pairs": found.pairs,
        "ece": found.ece,
        "data": hashlib.sha256(rows.encode("utf-8", "backslashreplace")).hexdigest(),
    }


def draw(found: Validation, path: Path) -> None:
    """Predicted probability against observed share, and how many predictions each point stands for."""
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    curve, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    known = [own for own in found.bins if own.count]
    curve.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="as it says")
    curve.plot([own.predicted for own in known], [own.observed for own in known], marker="o", label="as it is")
    curve.set_ylabel("share that is the better one")
    curve.set_title(
        f"accuracy {found.accuracy:.1%} of {found.pairs} pairs, calibration error {found.ece:.3f}", fontsize=10
    )
    curve.legend(loc="upper left")
    counts.bar([(own.low + own.high) / 2 for own in found.bins], [own.count for own in found.bins], width=0.09)
    counts.set_ylabel("predictions")
    counts.set_xlabel("predicted probability that the first of two is the better one")
    figure.savefig(path, dpi=120)


def report(stage: Stage, found: Validation, trainer: Trainer, trained_on: int) -> str:
    """`report.md`."""
    history = [row for row in trainer.state.log_history if "eval_accuracy" in row]
    best = trainer.state.best_global_step
    stopped = trainer.state.global_step < trainer.state.max_steps
    why = "accuracy was on its plateau" if stopped else "these were all"
    lines = [
        "# Reward model",
        "",
        f"Base model `{stage.config.model}`, {trained_on} pairs to train on, {found.pairs} of other prompts held out.",
        f"Training ended after {trainer.state.global_step} of {trainer.state.max_steps} updates: {why}. The weights "
        f"are those of the best validation, after {best or trainer.state.global_step}.",
        "",
        "| | held out |",
        "|---|---:|",
        f"| pairwise accuracy | {found.accuracy:.1%} [{found.low:.1%}, {found.high:.1%}] |",
        f"| loss | {found.loss:.4f} |",
        f"| calibration error | {found.ece:.4f} |",
        f"| margin, mean | {found.margin:.3f} |",
        *([f"| margin, tenth / median / ninetieth percentile | {deciles(found)} |"] if found.margins else []),
        f"| raw score, mean and deviation | {found.mean:.3f}, {found.deviation:.3f} |",
        "",
        *(f"**{doubt[0].upper()}{doubt[1:]}.**\n" for doubt in doubts(found)),
        "The best of several validations is a little lucky: measure on pairs that had no part in this before you rely "
        "on the last digits.",
        "",
        "## Calibration",
        "",
        "![calibration](calibration.png)",
        "",
        "Each pair counts in both orders, so that the curve is symmetric.",
        "",
        "| predicted | mean | observed | predictions |",
        "|---|---:|---:|---:|",
        *(
            f"| {own.low:.1f} to {own.high:.1f} | {own.predicted:.3f} | {own.observed:.3f} | {own.count} |"
            for own in found.bins
            if own.predicted is not None
        ),
        "",
        "## Validations",
        "",
        "| update | accuracy | loss |",
        "|---:|---:|---:|",
        *(f"| {row['step']} | {row['eval_accuracy']:.1%} | {row['eval_loss']:.4f} |" for row in history),
        "",
    ]
    if stage.alarms:
        lines += ["## Guards", "", *(f"* `{a.guard}` at update {a.step}: {a.message}" for a in stage.alarms), ""]
    return "\n".join(lines)


def deciles(found: Validation) -> str:
    return " / ".join(f"{found.margins[place]:.3f}" for place in (0, 4, 8))
