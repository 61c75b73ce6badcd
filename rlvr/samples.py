"""Reads a split of a task and checks what came, whoever wrote the task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rlvr.errors import DataError, PluginError, RlvrError
from rlvr.types import Sample, Split, Task


def samples(task: Task, split: Split) -> list[Sample]:
    """All samples of a split: ids are unique, prompt, answer and meta are JSON values.

    Raises:
        PluginError: The task's `load` raised, or did not return samples.
        DataError: A sample cannot be used; the message says which.
    """
    found: list[Sample] = []
    seen: set[str] = set()
    for index, sample in enumerate(_loaded(task, split)):
        if not isinstance(sample, Sample):
            raise PluginError(
                f"the task `{task.name}` ({task.source}) has a `{type(sample).__name__}` as number {index} of its "
                f"{split} split",
                "`load(split)` returns `rlvr.Sample` objects",
            )
        if not isinstance(sample.id, str) or not sample.id.strip():
            raise _refuse(task, split, f"number {index}", f"has the id `{sample.id!r}`", "give it text as its id")
        if sample.id in seen:
            raise _refuse(task, split, f"`{sample.id}`", "is there twice", "give every sample an id of its own")
        seen.add(sample.id)
        _check(task, split, sample)
        found.append(sample)
    return found


def _loaded(task: Task, split: Split) -> list[Any]:
    try:
        found = task.load(split)
        if isinstance(found, Iterable) and not isinstance(found, (str, Mapping)):
            return list(found)
    except RlvrError:
        raise
    except Exception as error:
        raise PluginError(
            f"the task `{task.name}` ({task.source}) raised {type(error).__name__} when its {split} split was "
            f"loaded: {error}",
            "mend its `load`; `--debug` shows the traceback",
        ) from error
    raise PluginError(
        f"the task `{task.name}` ({task.source}) loaded a `{type(found).__name__}` as its {split} split",
        "`load(split)` returns a list of `rlvr.Sample` objects",
    )


def _check(task: Task, split: Split, sample: Sample) -> None:
    """Checks the fields of one sample."""
    if not _is_prompt(sample.prompt):
        hint = "a prompt is text, or a list of messages with text `role` and `content`"
        raise _refuse(task, split, f"`{sample.id}`", "has a `prompt` that is neither text nor a chat", hint)
    if not isinstance(sample.meta, Mapping):
        problem = f"has a `{type(sample.meta).__name__}` as its `meta`"
        raise _refuse(task, split, f"`{sample.id}`", problem, "give it a dict")
    for name, value in (("prompt", sample.prompt), ("answer", sample.answer), ("meta", dict(sample.meta))):
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            hint = "prompt, answer and meta hold JSON values only: text, finite numbers, booleans, lists, dicts"
            raise _refuse(task, split, f"`{sample.id}`", f"has a `{name}` that is not JSON: {error}", hint) from None


def _is_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return True
    return (
        isinstance(prompt, (list, tuple))
        and bool(prompt)
        and all(
            isinstance(message, Mapping) and all(isinstance(message.get(key), str) for key in ("role", "content"))
            for message in prompt
        )
    )


def _refuse(task: Task, split: Split, which: str, problem: str, hint: str) -> DataError:
    return DataError(f"the task `{task.name}`, {split} split: the sample {which} {problem}", hint)
