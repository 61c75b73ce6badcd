"""Supervised fine-tuning on TRL's SFTTrainer: next-token training on the assistant's turn alone.

    L = - mean over all completion tokens of an update of  log π(y_t | x, y_<t)

What is learned from, in this order: `data`; with `samples` the policy's own completions that its task's verifier passed
(rejection sampling fine-tuning, Yuan et al. 2023, arXiv:2308.01825); else the task's gold answers. Rows are tokenized
once, here, as a sampler would tokenize the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from trl import SFTConfig as TrainerConfig
from trl import SFTTrainer
from trl.data_utils import pack_dataset

from rlvr.assembly import to_train_on
from rlvr.config import flatten
from rlvr.errors import ConfigError
from rlvr.examples.checks import drop_too_long, hold_out
from rlvr.examples.reading import Unusable, read_demonstrations
from rlvr.examples.rows import Bad, Demonstration, Report
from rlvr.examples.runs import demonstrations_of_run
from rlvr.mixture import Stream, load_mix
from rlvr.registry import registry
from rlvr.runlog import Run
from rlvr.sampler.prompts import messages, shown_tools
from rlvr.stages.config import ResolvedStage, SftConfig, resolve_stage
from rlvr.stages.encoding import encode, room
from rlvr.stages.rollouts import sample_task
from rlvr.stages.run import Encoded, Stage, open_stage
from rlvr.taskcheck import task_gold
from rlvr.types import Composition, Task

Ids = tuple[list[int], list[int]]
"""Token ids of a prompt and of a completion."""


class Trainer(Encoded, SFTTrainer):
    """TRL's, over rows that have `input_ids` and `labels`."""


def sft(resolved: ResolvedStage[Any] | None = None, *, resume: str | Path | None = None, **settings: Any) -> Run:
    """Fine-tunes a model on demonstrations and returns its run.

    Args:
        resolved: Resolved settings, as `rlvr sft` makes them; made from `settings` when not given.
        resume: The directory of an interrupted run to go on with.
        settings: Values by name: `task="math", model="starter", lr=1e-4, lora={"rank": 16}`.

    Raises:
        RlvrError: Bad settings, data or model, or a guard that stops the run.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint has been written.
    """
    resolved = resolved or resolve_stage("sft", flatten(settings), resume=resume)
    config = cast(SftConfig, resolved.config)
    given = read(config) if config.data else None  # before anything is written or loaded
    with open_stage(resolved, resume) as stage:
        model, tokenizer = stage.load()
        if config.packing:
            check_packing(model)
        found = given or make(stage, model, tokenizer)
        train, held = split(stage, tokenizer, room(model, config.max_length), found)
        stage.measure("before", model, tokenizer)
        trainer = make_trainer(stage, model, tokenizer, train, held)
        stage.train(trainer)
        stage.measure("after", model, tokenizer)
        facts = {"updates": trainer.state.global_step, "train_rows": len(train), "validation_rows": len(held)}
        stage.report({"Training": report(trainer, facts)})
        return stage.finish(model, tokenizer, **facts)


def check_packing(model: Any) -> None:
    """Refuses to pack where samples of one row would see each other.

    Attention keeps them apart by their positions. A layer that carries a state along the row does not.

    Raises:
        ConfigError: The model has such layers.
    """
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or any("attention" not in kind or "linear" in kind for kind in kinds):
        raise ConfigError(
            f"`packing` does not go with a `{type(model).__name__}`: what its layers carry along a row runs from one "
            "sample into the next",
            "leave `packing` out",
        )


# Rows


def make(stage: Stage, model: Any, tokenizer: Any) -> tuple[list[Demonstration], Report]:
    """Demonstrations of the stage's task: the model's own completions that passed, or gold answers.

    Raises:
        RlvrError: As `sample_task` and `gold_answers`.
    """
    config = cast(SftConfig, stage.config)
    if config.samples:
        sample_task(stage, model, tokenizer, config.samples, config.temperature)
        return demonstrations_of_run(stage.path, config.per_prompt)
    return gold_answers(config.task, tokenizer, config.limit, config.seed)


def read(config: SftConfig) -> tuple[list[Demonstration], Report]:
    """The demonstrations of `data`, the first `limit` of them, and what became of the others.

    Raises:
        RlvrError: As `read_demonstrations`.
    """
    if (Path(config.data) / "rollouts.jsonl").is_file():
        rows, known = demonstrations_of_run(config.data, config.per_prompt)
    else:
        rows, known = read_demonstrations(config.data)
    return rows[: config.limit or None], known


def gold_answers(name: str, tokenizer: Any, limit: int, seed: int) -> tuple[list[Demonstration], Report]:
    """Perfect completions of a task's train prompts, of several tasks by their weights, in the order in which
    `rlvr train` draws prompts: `limit` of them, or as many as there are.

    Raises:
        ConfigError: A task has several turns, of which a gold answer is only one.
        RlvrError: As `task_gold` does, or bad data.
    """
    mix = load_mix(registry(), name)
    for task, _ in mix:
        if task.turns > 1:
            raise ConfigError(
                f"the task `{task.name}` has several turns, and its gold answers are a single one",
                "`rlvr train` learns from such a task",
            )
    own = [(task, weight, to_train_on(task)) for task, weight in mix]
    stream = Stream(own, seed)
    total = sum(len(samples) for _, _, samples in own)
    report = Report("the gold answers of " + " and ".join(f"`{task.name}`" for task, _ in mix))
    rows = []
    for place in range(min(limit or total, total)):
        task, sample = stream[place].task, stream[place].sample
        where = f"`{task.name}` sample `{sample.id}`"
        report.rows += 1
        completion = gold_of(task, sample)
        if not completion.strip():
            report.bad.append(Bad("empty-completion", where, "its gold answer is empty"))
            continue
        tools = tuple(shown_tools(tokenizer, sample)) if task.show_tools else ()
        rows.append(Demonstration(tuple(messages(sample, task)), completion, where, tools))
    return rows, report


def gold_of(task: Task, sample: Any) -> str:
    """How a perfect completion looks, to the task or to its verifier."""
    spec = None if isinstance(task.verifier, Composition) else registry().verifier(task.verifier)
    return task_gold(task, spec, sample)


def split(
    stage: Stage, tokenizer: Any, longest: int, found: tuple[list[Demonstration], Report]
) -> tuple[list[Ids], list[Ids]]:
    """Token ids to train on and to validate on, which have no prompt in common.

    Args:
        stage: Whose settings; it is told what became of the rows.
        tokenizer: Of the model.
        longest: Tokens that a sample may have.
        found: Demonstrations and what became of the others.

    Raises:
        DataError: Rows that cannot be used, unless they are to be skipped; or none that can.
        ConfigError: The model's chat template refuses all of them.
    """
    config = stage.config
    rows, known = found
    encoded: dict[int, Ids] = {}
    refused: ConfigError | None = None
    for row in rows:
        try:
            encoded[id(row)] = encode(tokenizer, row.prompt, row.completion, row.where, row.tools)
        except Unusable as error:
            known.bad.append(error.bad)
        except ConfigError as error:
            refused = refused or error
            known.bad.append(Bad("refused-by-template", row.where, error.message))
    if refused and not encoded:
        raise refused
    fitting = [row for row in rows if id(row) in encoded]
    lengths = [sum(map(len, encoded[id(row)])) for row in fitting]
    fitting = drop_too_long(fitting, lengths, longest, known)
    stage.data(known, fitting)
    known.refuse(fitting, config.bad_rows)
    train, held = hold_out(fitting, config.hold_out, config.seed)
    return [encoded[id(row)] for row in train], [encoded[id(row)] for row in held]


def dataset(rows: Sequence[Ids]) -> Dataset:
    """As TRL's trainer takes it: labels are those of the completion, and -100 of the prompt, which is not learned."""
    return Dataset.from_dict(
        {
            "input_ids": [prompt + completion for prompt, completion in rows],
            "labels": [[-100] * len(prompt) + completion for prompt, completion in rows],
        }
    )


def make_trainer(stage: Stage, model: Any, tokenizer: Any, train: Sequence[Ids], held: Sequence[Ids]) -> Trainer:
    """TRL's trainer over these rows.

    Packed rows go through it one at a time, without padding and without an attention mask: then transformers reads from
    the positions, which begin anew with each sample, that samples do not see each other.
    """
    config = cast(SftConfig, stage.config)
    rows = dataset(train)
    more: dict[str, Any] = {"max_length": None, "eval_strategy": "steps" if held else "no"}
    if config.packing:
        length = room(model, config.max_length)
        rows = pack_dataset(rows.shuffle(seed=config.seed), length, "bfd")
        per_update = stage.arguments()
        accumulated = per_update["gradient_accumulation_steps"] * per_update["per_device_train_batch_size"]
        more |= {"packing": True, "eval_packing": False, "max_length": length}
        more |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulated}
    return Trainer(
        model=model,
        args=stage.training(TrainerConfig, **more),
        train_dataset=rows,
        eval_dataset=dataset(held) if held else None,
        processing_class=tokenizer,
        callbacks=[stage.callback()],
    )


def report(trainer: Trainer, facts: Mapping[str, int]) -> list[str]:
    """What `report.md` says of the training."""
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    held = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
    lines = [f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    for name, values in (("training loss", losses), ("validation loss", held)):
        if values:
            lines.append(f"* {name}: {values[0]:.4f} at first, {values[-1]:.4f} at last, {min(values):.4f} at best")
    return lines
