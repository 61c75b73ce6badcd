"""Completions that are right, and ones that are nearly right, for `rlvr tasks check`."""

from __future__ import annotations

import json
from typing import Any

from rlvr import Sample

from .calls import ToolCall
from .expected import Expected
from .matching import match
from .task import read_task
from .tools import BadTask
from .writing import NO_CALL, written


def gold(sample: Sample) -> str:
    """The expected calls in Hermes' format, and the answer behind them where there is one."""
    expected = _expected(sample)
    if expected is None:
        raise BadTask("the sample says no `calls`, so the task has to say what is perfect (`gold` of `rlvr.Task`)")
    calls = written([one.example() for one in expected], "hermes") or NO_CALL
    return calls if sample.answer is None else f"{calls if expected else ''}\n{sample.answer}".strip()


def spoil(sample: Sample) -> str | None:
    """A near miss: another value, a required argument left out, or an argument too many."""
    expected = _expected(sample)
    if expected is None:
        return None
    if not expected:
        tools = read_task(sample, [], "calls").tools
        return written([ToolCall(name, {}) for name in list(tools)[:1]], "hermes") or None
    *calls, last = [one.example() for one in expected]
    required = [key for key in last.arguments if key in expected[-1].tool.required]
    misses = [{key: value for key, value in last.arguments.items() if key != required[-1]}] if required else []
    if "implementation" not in sample.meta:  # there, another value might come to the same
        misses = [{**last.arguments, key: _other(value)} for key, value in reversed(last.arguments.items())] + misses
    for arguments in [*misses, {**last.arguments, "surplus": 1}]:
        given = [*calls, ToolCall(last.name, arguments)]
        if not match(given, expected, ordered=False):
            return written(given, "hermes")
    return None


def _expected(sample: Sample) -> tuple[Expected, ...] | None:
    calls = sample.meta.get("calls")
    if calls is None:
        return None
    shared: list[dict[str, Any]] = []
    if "tools" not in sample.meta:  # they are an option of the task, which is not known here; the calls name them
        listed = json.loads(calls) if isinstance(calls, str) else calls
        anything = {"additionalProperties": True}
        shared = [{"name": name, "parameters": anything} for name in dict.fromkeys(map(_name, listed))]
    return read_task(sample, shared, "calls").expected


def _name(call: Any) -> str:
    """The tool that an expected call names, in either form."""
    call = call.get("function", call) if "name" not in call else call
    return call["name"] if isinstance(call.get("name"), str) else next(iter(call))


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}?"
        case list():
            return [*value, *(value[-1:] or ["?"])]
        case dict():
            return {**value, "surplus": 1}
    return "?"
