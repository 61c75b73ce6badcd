"""What a sample asks for: its tools, the calls it expects, and how success is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlvr import Sample, Sandbox

from ..jsontext import Refused
from .calls import ToolCall
from .expected import Expected, expected_calls
from .implementing import Implementation, check_expression, implementation
from .running import Outcome, plain, run
from .tools import BadTask, Toolset, toolset

_UNSET: Any = object()
_CACHED = 1024


@dataclass(frozen=True, slots=True, eq=False)
class ToolTask:
    """One problem.

    Attributes:
        tools: The tools.
        expected: The expected calls; empty where no call is right, None where the task does not say.
        made: The implementation, where the verdict is on what the calls do.
        result: What the last call has to return, or `_UNSET`.
        end_state: Values of expressions when all calls are made.
        reference: What came of running the expected calls, once that is known.
    """

    tools: Toolset
    expected: tuple[Expected, ...] | None
    made: Implementation | None
    result: Any
    end_state: Mapping[str, Any]
    reference: list[Outcome] = field(default_factory=list)

    @property
    def has_result(self) -> bool:
        return self.result is not _UNSET

    @property
    def compares_runs(self) -> bool:
        """Whether the expected calls have to be run to know what is right."""
        return not self.has_result and not self.end_state


_tasks: dict[tuple[int, str], ToolTask] = {}
_encode = json.JSONEncoder().encode


def read_task(sample: Sample, tools: Any, judge: str) -> ToolTask:
    """What a sample asks for; kept for the next completion of the same.

    Args:
        sample: The problem; its own `tools` win.
        tools: Those of the whole task.
        judge: `auto`, `calls` or `result`.

    Raises:
        BadTask: It cannot be used.
    """
    meta = sample.meta
    given = meta.get("tools", tools)
    if given is None:
        raise BadTask("there are no `tools`")
    known = toolset(given)
    source = None if judge == "calls" else meta.get("implementation")
    wanted = [meta.get("calls"), source, "result" in meta, meta.get("result"), meta.get("end_state"), judge]
    key = id(known), _encode(wanted)
    found = _tasks.get(key)
    if found is None or found.tools is not known:  # the id may be that of a list that is gone
        if len(_tasks) >= _CACHED:
            _tasks.clear()
        found = _tasks[key] = _read(meta, known, source, judge)
    return found


def _read(meta: Mapping[str, Any], tools: Toolset, source: Any, judge: str) -> ToolTask:
    if judge not in ("auto", "calls", "result"):
        raise BadTask(f"the option `judge` must be `auto`, `calls` or `result`, not `{judge}`")
    calls = meta.get("calls")
    expected = None if calls is None else expected_calls(calls, tools)
    if source is None:
        if judge == "result":
            raise BadTask('`judge = "result"` needs an `implementation` of the tools')
        if expected is None:
            raise BadTask("the task gives neither `calls` nor, to run them, an `implementation`")
        return ToolTask(tools, expected, None, _UNSET, {})
    end_state = meta.get("end_state") or {}
    if isinstance(end_state, str):
        try:
            end_state = json.loads(end_state)
        except (ValueError, RecursionError) as error:
            raise BadTask(f"`end_state` is text, but no JSON: {error}") from None
    if not isinstance(end_state, Mapping):
        raise BadTask("`end_state` must be values by expression")
    result = _plain("result", meta["result"]) if "result" in meta else _UNSET
    if expected is None and result is _UNSET and not end_state:
        raise BadTask("an `implementation` needs a `result`, an `end_state` or `calls` to compare with")
    made = implementation(source, tools)
    for expression in end_state:
        check_expression(expression, made.source)
    return ToolTask(tools, expected, made, result, _plain("end_state", end_state))


def _plain(name: str, value: Any) -> Any:
    try:
        return plain(value)
    except Refused as problem:
        raise BadTask(f"`{name}` cannot be compared: {problem}") from None


def watched(task: ToolTask) -> list[str]:
    """Expressions whose values tell about success."""
    if task.made is not None and task.compares_runs:
        return [f"__state({name})" for name in task.made.state]
    return list(task.end_state)


def reference(task: ToolTask, sandbox: Sandbox | None, timeout: float, memory_mb: int) -> Outcome:
    """What comes of the expected calls; kept, as tools are deterministic.

    Raises:
        BadTask: One of them raises, or does not end.
    """
    assert task.made is not None
    assert task.expected is not None
    if not task.reference:
        calls = [one.example() for one in task.expected]
        found = run(task.made, calls, watched(task), task.tools, sandbox, timeout, memory_mb)
        _check_reference(calls, found)
        task.reference.append(found)
    return task.reference[0]


def _check_reference(calls: list[ToolCall], found: Outcome) -> None:
    if found.ended:
        raise BadTask(f"the expected call of `{calls[min(len(found.results), len(calls) - 1)].name}` {found.ended}")
    for call, returned in zip(calls, found.results, strict=True):
        if returned.raised is not None:
            raise BadTask(f"the expected call of `{call.name}` raises {returned.raised}")
