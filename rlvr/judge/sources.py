"""What is to be judged: prompts of a task, rows of a file, or the completions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.errors import ConfigError, DataError
from rlvr.examples.reading import Given, Unusable, name_of, open_source, pair_of
from rlvr.examples.rows import Report, key_of
from rlvr.examples.runs import rollouts
from rlvr.judge.config import PairsConfig
from rlvr.registry import registry
from rlvr.sampler.prompts import messages
from rlvr.samples import samples
from rlvr.types import Message, Sample, Task

FILES = ("pairs.jsonl", "rollouts.jsonl")
"""What a run's directory may have to judge, the first choice first."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and what is known of it.

    Attributes:
        where: Its place, such as "`a.jsonl` line 3" or "sample `math-7`".
        prompt: The chat that is answered.
        completions: Those to compare; none where the policy has yet to write them.
        better: Which of the two completions the data says is better; None where it does not say.
        sample: The task's own, for its verifier.
        statuses: What a verifier has said of each completion, where it is known already.
    """

    where: str
    prompt: tuple[Message, ...]
    completions: tuple[str, ...] = ()
    better: int | None = None
    sample: Sample | None = None
    statuses: tuple[str, ...] = ()


def read_items(config: PairsConfig) -> tuple[list[Item], Report, Task | None]:
    """What is to be judged, what became of the rows, and the task if it is one's.

    Raises:
        ConfigError: A task whose completions cannot be judged by themselves.
        DataError: Rows that cannot be used, unless they are to be skipped; or nothing at all.
    """
    task = None
    if config.task:
        task = registry().task(config.task)
        items, report = of_task(task)
    else:
        found = open_source(config.data, FILES)
        items, report = of_run(found) if isinstance(found, Path) else of_rows(config.data, found)
    report.refuse(items, config.bad_rows)
    return items[: config.limit] if config.limit else items, report, task


def of_task(task: Task) -> tuple[list[Item], Report]:
    """The prompts of a task's train split."""
    if task.turns > 1 or task.show_tools:
        what = "of several turns" if task.turns > 1 else "that shows tools"
        raise ConfigError(f"`{task.name}` is a task {what}", "a judge is shown one text; make pairs from a run instead")
    found = samples(task, "train")
    items = [Item(f"sample `{one.id}`", tuple(messages(one, task)), sample=one) for one in found]
    return items, Report(f"the task `{task.name}`", len(items))


def of_rows(source: str, found: Any) -> tuple[list[Item], Report]:
    """Rows with a prompt, and perhaps completions."""
    report = Report(name_of(source))
    items = []
    for row in found:
        report.rows += 1
        try:
            items.append(of_row(Given.read(row)))
        except Unusable as error:
            report.bad.append(error.bad)
    return items, report


def of_row(row: Given) -> Item:
    """Raises:
    Unusable: It has no prompt, or completions that are none.
    """
    if "chosen" in row.values or "rejected" in row.values:
        pair = pair_of(row)
        return Item(row.where, pair.prompt, (pair.chosen, pair.rejected), better=0)
    prompt = row.prompt(row.chat("prompt"), "prompt")
    given = row.values.get("completions")
    if given is None:
        return Item(row.where, prompt)
    if not isinstance(given, list) or len(given) < 2 or not all(isinstance(text, str) for text in given):
        raise row.wrong("`completions` must be a list of two texts or more")
    return Item(row.where, prompt, tuple(row.text(text, "completions") for text in given))


def of_run(path: Path) -> tuple[list[Item], Report]:
    """The completions that a run sampled, by prompt: each text once, with its verdict."""
    report = Report(f"the run `{path}`")
    groups: dict[Any, tuple[tuple[Message, ...], dict[str, str]]] = {}
    for one in rollouts(path, report):
        report.rows += 1
        texts = groups.setdefault(key_of(one.prompt), (one.prompt, {}))[1]
        texts.setdefault(one.completion, "passed" if one.passed else "failed")
    items = [
        Item(f"prompt {number}", prompt, tuple(texts), statuses=tuple(texts.values()))
        for number, (prompt, texts) in enumerate(groups.values(), 1)
        if len(texts) > 1
    ]
    report.facts |= {"prompts": len(groups), "prompts_with_one_text": len(groups) - len(items)}
    if not items:
        raise DataError(f"{report.source} has no prompt with two different completions", "take a run with groups")
    return items, report


def shown(prompt: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """A prompt as the messages of a request."""
    return [{"role": message["role"], "content": message["content"]} for message in prompt]
