"""Runs the calls of a model with the task's implementation of the tools, in the sandbox, and compares what comes of it.

The implementation is loaded once for each execution and the calls are made one after the other in the same process, so
that its globals are the state. Arguments go in as literals that are written here from parsed values; no text of the
model is ever part of a program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from rlvr import Call, CodeSandbox, Opaque, Returned, Sandbox

from ..jsontext import LARGEST, Refused, same_number
from ..jsontext import shown as json_shown
from .calls import ToolCall
from .implementing import STATE, Implementation
from .tools import BadTask, Toolset, as_declared

CLOSE = 1e-9
"""How far two results may be apart, relative to the larger, where one of them is a float."""


class Starved(Exception):
    """The machine was too busy to give the tools their time; nothing is known of the completion."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running calls.

    Attributes:
        results: One for each call that ended.
        ended: Why the process did not get through the calls, in words; empty if it did.
        values: Values of the expressions, in their order; empty if it did not get there.
    """

    results: tuple[Returned, ...]
    ended: str
    values: tuple[Returned, ...]


def run(
    made: Implementation,
    calls: Sequence[ToolCall],
    expressions: Sequence[str],
    tools: Toolset,
    sandbox: Sandbox | None,
    timeout: float,
    memory_mb: int,
) -> Outcome:
    """Makes the calls in a fresh process, and evaluates expressions behind them, which may use `__state`.

    Raises:
        BadTask: The implementation does not load, or the sandbox cannot evaluate calls.
        Starved: The machine was too busy.
        RlvrError: The sandbox itself failed.
    """
    if not _evaluates(sandbox):
        name = getattr(sandbox, "name", None)
        raise BadTask(f"the sandbox `{name}` cannot evaluate calls (`call` of `rlvr.CodeSandbox`)")
    sources = [*(_source(made, call, tools) for call in calls), *expressions]
    code = made.source + STATE if any(one.startswith("__state(") for one in expressions) else made.source
    found = sandbox.call(code, [Call(source) for source in sources], timeout=timeout, memory_mb=memory_mb)
    execution = found.execution
    if execution.killed_by == "starved":
        raise Starved("the machine was too busy to give the tools their time")
    match execution.killed_by:
        case "timeout":
            ended = f"did not end within {timeout:.3g} s"
        case "memory":
            ended = f"used more than {memory_mb} MB of memory"
        case "output":
            ended = "printed too much"
        case _:
            ended = f"ended the process (exit code {execution.exit_code})"
    if not found.loaded:
        raise BadTask(f"the `implementation` does not load: {found.error or ended}")
    returned = tuple(map(_readable, found.returned))
    results, values = returned[: len(calls)], returned[len(calls) :]
    complete = len(returned) >= len(sources)
    return Outcome(results, "" if complete else ended, values if complete else ())


def _readable(returned: Returned) -> Returned:
    """With an exception's text as UTF-8 has it: it may quote half of a surrogate pair."""
    if returned.raised is None or returned.raised.isascii():
        return returned
    return replace(returned, raised=returned.raised.encode(errors="backslashreplace").decode())


def _evaluates(sandbox: Sandbox | None) -> TypeGuard[CodeSandbox]:
    return callable(getattr(sandbox, "call", None))


def _source(made: Implementation, call: ToolCall, tools: Toolset) -> str:
    arguments = as_declared(call.arguments, tools[call.name].schema)
    return f"{made.functions[call.name]}(**{literal(arguments)})"


def literal(value: Any) -> str:
    """A JSON value as Python source that evaluates to it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if value is None or isinstance(value, (bool, int, str)):
        return ascii(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    raise TypeError(f"a {type(value).__name__} is no JSON value")


# --------------------------------------------------------------------------------------------------------- comparing


class Beyond(str):
    """A number that JSON has no form for (inf, nan, complex, beyond a double), as text; it equals no JSON value."""


def plain(value: Any) -> Any:
    """What a tool returned as a JSON value: tuples as arrays, keys as text, sets as sorted arrays.

    A number that JSON lacks is `Beyond`, as the arguments of a model can lead to one with any tool that computes.

    Raises:
        Refused: JSON has no form for it.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= LARGEST else Beyond(hex(value))  # in decimal, it would take quadratic time
    if isinstance(value, (float, complex)):
        return value if isinstance(value, float) and math.isfinite(value) else Beyond(value)
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    kind = value.type if isinstance(value, Opaque) else type(value).__name__
    raise Refused("not-json", f"a `{kind}` has no form in JSON")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    return json.dumps(plain(key))


def alike(got: Any, wanted: Any) -> bool:
    """Whether two JSON values are the same; a float may differ in the tenth digit."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(alike(value, wanted[key]) for key, value in got.items())
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(alike, got, wanted))
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, (int, float)) and isinstance(wanted, (int, float)):
        if isinstance(got, int) and isinstance(wanted, int):
            return got == wanted
        return same_number(got, wanted) or math.isclose(got, wanted, rel_tol=CLOSE)
    return type(got) is type(wanted) and bool(got == wanted)


def alike_in_any_order(got: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether two lists hold the same results, each as often."""
    left = list(wanted)
    for value in got:
        place = next((i for i, other in enumerate(left) if alike(value, other)), None)
        if place is None:
            return False
        del left[place]
    return not left


def shown_result(returned: Returned) -> str:
    """A result as JSON on one line, an exception as `{"error": …}`."""
    if returned.raised is not None:
        return json.dumps({"error": returned.raised}, ensure_ascii=False)
    return json.dumps(plain(returned.value), ensure_ascii=False).encode(errors="backslashreplace").decode()


def shown(value: Any) -> str:
    try:
        return json_shown(plain(value), 120)
    except Refused as problem:
        return str(problem)
