"""Makes demonstrations, pairs and labels of what a run sampled and verified: the rows of its `rollouts.jsonl`.

Only verdicts that say something of a completion count, passed or failed; error, timeout and abstained are missing data,
never a wrong answer. Left out and counted are also: completions of several turns, whose text is not all that the policy
wrote; those cut at the token limit, which would be taught to end there; those of prompts that show tools; and text that
is not Unicode.

    demonstration   a completion that passed (rejection sampling, as in Yuan et al. 2023, arXiv:2308.01825)
    pair            of one prompt's group, the completion of the best score against the one of the worst
    label           a completion, good if it passed
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.config import from_toml
from rlvr.errors import DataError
from rlvr.examples.rows import Demonstration, Label, Pair, Report, key_of, squeezed
from rlvr.mixture import load_mix
from rlvr.registry import load_plugin, registry
from rlvr.types import Message, Task

ROLLOUTS = "rollouts.jsonl"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A completion with a verdict that counts."""

    group: tuple[int, int]
    task: str
    prompt: tuple[Message, ...]
    completion: str
    passed: bool
    score: float
    reward: float | None
    where: str

    @property
    def key(self) -> tuple[Any, str]:
        return key_of(self.prompt), self.completion


def demonstrations_of_run(path: str | Path, per_prompt: int = 0) -> tuple[list[Demonstration], Report]:
    """The completions of a run that passed, each text once for a prompt, in the order they were sampled.

    Args:
        path: The run's directory.
        per_prompt: Demonstrations of one prompt at most, the first ones; 0 takes all.

    Raises:
        DataError: It is no run with rollouts.
        RlvrError: Its task is not there any more.
    """
    report = Report(f"the run `{path}`")
    found: list[Demonstration] = []
    seen: set[tuple[Any, str]] = set()
    taken: dict[Any, int] = {}
    facts = {"failed": 0, "duplicates": 0, "beyond_per_prompt": 0}
    for rollout in rollouts(Path(path), report):
        prompt = key_of(rollout.prompt)
        if not rollout.passed:
            facts["failed"] += 1
        elif rollout.key in seen:
            facts["duplicates"] += 1
        elif per_prompt and taken.get(prompt, 0) >= per_prompt:
            facts["beyond_per_prompt"] += 1
        else:
            seen.add(rollout.key)
            taken[prompt] = taken.get(prompt, 0) + 1
            found.append(Demonstration(rollout.prompt, rollout.completion, rollout.where))
    report.facts |= facts | {"prompts": len(taken)}
    return counted(found, report)


def pairs_of_run(path: str | Path) -> tuple[list[Pair], Report]:
    """Of each group, the completion of the best score against the one of the worst, where these differ.

    Where several have the best or the worst score, the reward decides, and then which was sampled first. Groups whose
    scores are all the same make no pair, however their rewards differ: what is left then is length, not the task.

    Args, Raises: As `demonstrations_of_run`.
    """
    report = Report(f"the run `{path}`")
    groups: dict[tuple[int, int], list[Rollout]] = {}
    for rollout in rollouts(Path(path), report):
        groups.setdefault(rollout.group, []).append(rollout)
    found: list[Pair] = []
    seen: set[Any] = set()
    facts = {"groups": len(groups), "groups_of_one_score": 0, "duplicates": 0}
    for group in groups.values():
        best = max(group, key=rank)
        worst = min(group, key=rank)
        if best.score == worst.score or squeezed(best.completion) == squeezed(worst.completion):
            facts["groups_of_one_score"] += 1
        elif (key := (key_of(best.prompt), best.completion, worst.completion)) in seen:
            facts["duplicates"] += 1
        else:
            seen.add(key)
            extra = {"task": best.task} if best.task else {}
            found.append(Pair(best.prompt, best.completion, worst.completion, best.where, extra))
    report.facts |= facts
    return counted(found, report)


def labels_of_run(path: str | Path) -> tuple[list[Label], Report]:
    """The completions of a run, good if they passed, each text once for a prompt.

    One that passed here and failed there says nothing, and is left out.

    Args, Raises: As `demonstrations_of_run`.
    """
    report = Report(f"the run `{path}`")
    by_key: dict[tuple[Any, str], list[Rollout]] = {}
    for rollout in rollouts(Path(path), report):
        by_key.setdefault(rollout.key, []).append(rollout)
    agreed = [same for same in by_key.values() if len({rollout.passed for rollout in same}) == 1]
    found = [Label(same[0].prompt, same[0].completion, same[0].passed, same[0].where) for same in agreed]
    report.facts |= {
        "duplicates": sum(len(same) - 1 for same in agreed),
        "contradictory": len(by_key) - len(agreed),
        "good": sum(label.good for label in found),
    }
    return counted(found, report)


def counted(found: list[Any], report: Report) -> tuple[list[Any], Report]:
    """What was made, with its number as the report's rows.

    Raises:
        DataError: It is nothing; says what became of the rollouts.
    """
    report.rows = len(found)
    if not found:
        known = [f"{count} {name.replace('_', ' ')}" for name, count in report.facts.items() if isinstance(count, int)]
        raise DataError(
            f"{report.source} gives no row to learn from: " + ", ".join(known),
            "take a run in which completions of one prompt passed and others failed",
        )
    return found, report


def rank(rollout: Rollout) -> tuple[float, float]:
    """What makes one completion better than another of its group."""
    return rollout.score, rollout.score if rollout.reward is None else rollout.reward


def rollouts(path: Path, report: Report) -> Iterator[Rollout]:
    """The rollouts that can be learned from, read one by one; why others cannot is counted in the report's facts.

    Raises:
        DataError: It is no run with rollouts, or a line is damaged.
    """
    file = path / ROLLOUTS
    if not file.is_file():
        raise DataError(f"`{path}` has no `{ROLLOUTS}`", "give a run of `rlvr train`, or a stage that sampled")
    tasks = tasks_of(path)
    first = next(iter(tasks.values()))
    left = {"rollouts": 0, "missing": 0, "several_turns": 0, "cut": 0, "tools": 0, "empty": 0, "not_text": 0}
    report.facts.update(left)
    for number, row in records(file):
        where = f"`{file}` line {number}"
        try:
            task = tasks[row["task"]] if "task" in row else first
            reason = unusable(row, task)
            prompt = chat_of(row["prompt"], task)
            verdict, group = row["verdict"], (row["step"], row["group"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{where} is no rollout: {error!r}", "the file must be as the run wrote it") from None
        report.facts["rollouts"] += 1
        if reason:
            report.facts[reason] += 1
            continue
        passed, score = verdict["status"] == "passed", verdict["score"]
        name = row.get("task", "")
        yield Rollout(group, name, prompt, row["completion"], passed, score, row["reward"], where)


def unusable(row: Mapping[str, Any], task: Task) -> str | None:
    """Why a rollout cannot be learned from, as the report counts it."""
    if row["verdict"]["status"] not in ("passed", "failed"):
        return "missing"
    if row.get("turns"):
        return "several_turns"
    if task.show_tools:
        return "tools"
    if row["finish_reason"] == "length":
        return "cut"
    if not row["completion"].strip():
        return "empty"
    try:
        row["completion"].encode()
    except UnicodeEncodeError:
        return "not_text"
    return None


def records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a log with their numbers, but for a last one that a crash left unfinished.

    Raises:
        DataError: A line is not JSON.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DataError(f"`{file}` line {number}: {error}", "the file must be as the run wrote it") from None


def tasks_of(path: Path) -> dict[str, Task]:
    """The tasks of a run, by name.

    Raises:
        DataError: It is no run, or had no task.
        RlvrError: A task or a plugin is not there any more.
    """
    if not (path / "config.toml").is_file():
        raise DataError(f"`{path}` is not a run: it has no `config.toml`", "runs are made by `rlvr train`")
    settings = from_toml(path / "config.toml")
    for plugin in settings.get("plugin") or ():
        load_plugin(plugin)
    if not settings.get("task"):
        raise DataError(f"the run `{path}` has no task", "give a run of `rlvr train`, or a stage that sampled")
    return {task.name: task for task, _ in load_mix(registry(), settings["task"])}


def chat_of(prompt: str | Sequence[Mapping[str, str]], task: Task) -> tuple[Message, ...]:
    """A sample's prompt as the policy saw it: a chat, the task's system message first."""
    system: tuple[Message, ...] = ({"role": "system", "content": task.system},) if task.system else ()
    if isinstance(prompt, str):
        return (*system, {"role": "user", "content": prompt})
    return (*system, *({"role": m["role"], "content": m["content"]} for m in prompt))
