"""What is found of the calls of a completion: by comparing them, or by what comes of making them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rlvr import Returned, Sandbox

from ..jsontext import Refused, short
from .calls import Reading, ToolCall
from .matching import Credit, credit, match
from .running import Outcome, alike, alike_in_any_order, plain, run, shown
from .task import ToolTask, reference, watched
from .tools import BadTask

NOTHING = Credit(0.0, 0.0, 0.0, ())
ALL = Credit(1.0, 1.0, 1.0, ())


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of the calls.

    Attributes:
        right: Whether they are what they should be.
        detail: Why not, or what was seen.
        credit: How much of them is right.
        result: Whether what came of them is right; None where it was not looked at.
    """

    right: bool
    detail: str
    credit: Credit = NOTHING
    result: bool | None = None


# ------------------------------------------------------------------------------------------------------- by the calls


def by_calls(calls: Sequence[ToolCall], task: ToolTask, ordered: bool) -> Finding:
    expected = task.expected
    assert expected is not None
    if match(calls, expected, ordered):
        many = "the expected call is made" if len(calls) == 1 else f"the {len(calls)} expected calls are made"
        return Finding(True, many, ALL)
    earned = credit(calls, expected, ordered)
    return Finding(False, _difference(calls, task, ordered, earned), earned)


def _difference(calls: Sequence[ToolCall], task: ToolTask, ordered: bool, earned: Credit) -> str:
    """The first thing that is wrong with calls that do not match."""
    assert task.expected is not None
    for call in calls:
        if call.name not in task.tools:
            return f"there is no tool `{short(call.name)}`"
    if ordered and match(calls, task.expected, ordered=False):
        return "the calls are the expected ones in another order"
    told = []
    for i, j in earned.pairs:
        call, want = calls[i], task.expected[j]
        if call.name != want.name:
            told.append(f"`{call.name}` is called, expected is `{want.name}`")
        elif wrong := want.wrong(call):
            told.append(f"`{call.name}`: {'; '.join(wrong[:3])}")
    if len(calls) != len(task.expected):
        told.insert(0, f"there {'is 1 call' if len(calls) == 1 else f'are {len(calls)} calls'}, "
                       f"expected {len(task.expected)}")  # fmt: skip
    return "; ".join(told[:3]) or "the calls are not the expected ones"


# ------------------------------------------------------------------------------------------------- by what comes of it


def refused(calls: Sequence[ToolCall], task: ToolTask) -> str:
    """Why the first call that cannot be made cannot; empty if all can."""
    for call in calls:
        tool = task.tools.get(call.name)
        if tool is None:
            return f"there is no tool `{short(call.name)}`"
        if not tool.checker.valid(call.arguments):
            problems = tool.checker.problems(call.arguments, 1)
            why = f"{problems[0].path} {problems[0].message}" if problems else "the schema does not allow it"
            return f"the arguments of `{call.name}` are not valid: {short(why, 200)}"
    return ""


def by_result(
    calls: Sequence[ToolCall],
    last: int,
    task: ToolTask,
    ordered: bool,
    sandbox: Sandbox | None,
    timeout: float,
    memory_mb: int,
) -> Finding:
    """Runs the calls, of which the last turn made the last `last`.

    Raises:
        BadTask: The task's side does not work.
        Starved: The machine was too busy.
    """
    assert task.made is not None
    known = [call for call in calls if call.name in task.tools]
    valid = [call for call in known if task.tools[call.name].checker.valid(call.arguments)]
    earned = (
        Credit(len(known) / len(calls), len(valid) / len(calls), 0.0, ())
        if task.expected is None
        else credit(calls, task.expected, ordered)
    )
    if why := refused(calls, task):
        return Finding(False, why, earned, result=False)
    outcome = run(task.made, calls, watched(task), task.tools, sandbox, timeout, memory_mb)
    if task.expected is None:
        fine = sum(returned.raised is None for returned in outcome.results)
        earned = earned._replace(values=fine / len(calls))
    if outcome.ended:
        where = f"`{calls[len(outcome.results)].name}`" if len(outcome.results) < len(calls) else "a tool"
        return Finding(False, f"{where} {outcome.ended}", earned, result=False)
    # A call of an earlier turn may have raised: the policy was told, and could mend it.
    for call, returned in list(zip(calls, outcome.results, strict=True))[len(calls) - (last or len(calls)) :]:
        if returned.raised is not None:
            return Finding(False, f"`{call.name}` raised {short(returned.raised, 300)}", earned, result=False)
    try:
        wrong = _wrong_result(task, calls, outcome, ordered, sandbox, timeout, memory_mb)
    except Refused as problem:
        raise BadTask(f"a tool returned what cannot be compared: {problem}") from None
    if wrong:
        return Finding(False, wrong, earned, result=False)
    return Finding(True, f"{len(calls)} call(s) made, with the right outcome", earned, result=True)


def _wrong_result(
    task: ToolTask,
    calls: Sequence[ToolCall],
    outcome: Outcome,
    ordered: bool,
    sandbox: Sandbox | None,
    timeout: float,
    memory_mb: int,
) -> str:
    """What is wrong with what came of the calls; empty if nothing."""
    if task.has_result:
        got = outcome.results[-1]
        if got.raised is not None or not alike(plain(got.value), task.result):
            return f"`{calls[-1].name}` gave {_told(got)}, expected {shown(task.result)}"
    for expression, got in zip(task.end_state, outcome.values, strict=False):
        wanted = task.end_state[expression]
        if got.raised is not None or not alike(plain(got.value), wanted):
            return f"`{short(expression)}` is {_told(got)} in the end, expected {shown(wanted)}"
    if not task.compares_runs:
        return ""
    assert task.made is not None
    right = reference(task, sandbox, timeout, memory_mb)
    given = [_comparable(one) for one in outcome.results if one.raised is None]
    wanted = [_comparable(one) for one in right.results]
    if not (alike(given, wanted) if ordered else alike_in_any_order(given, wanted)):
        return f"the calls gave {_listed(outcome.results)}, the expected ones {_listed(right.results)}"
    for name, got, other in zip(task.made.state, outcome.values, right.values, strict=True):
        if not alike(_comparable(got), _comparable(other)):
            return f"`{name}` is {_told(got)} in the end, after the expected calls {_told(other)}"
    return ""


def _comparable(returned: Returned) -> Any:
    return {"raised": returned.raised} if returned.raised is not None else plain(returned.value)


def _told(returned: Returned) -> str:
    return f"an exception ({short(returned.raised, 120)})" if returned.raised is not None else shown(returned.value)


def _listed(results: Sequence[Returned]) -> str:
    return short(", ".join(map(_told, results)), 200)


# ------------------------------------------------------------------------------------------------------- the last turn

_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER = re.compile(r"[-+]?(?:\d{1,300}(?:\.\d{0,300})?|\.\d{1,300})(?:[eE][-+]?\d{1,3})?")


def wrong_answer(turns: Sequence[Reading], answer: Any) -> str:
    """Why the last turn does not say the answer; empty if it does."""
    if not turns:
        return "there is no answer"
    if len(turns) > 1 and turns[-1].calls:
        return "the last turn is a call, where the answer should be"
    said = turns[-1].said
    wanted = answer if isinstance(answer, str) else json.dumps(answer)
    if _normal(said) == _normal(wanted):
        return ""
    a, b = _as_number(said), _as_number(wanted)  # exactly: 2 ** 53 is not 2 ** 53 + 1
    if a is not None and a == b:
        return ""
    return f"the last turn says `{short(' '.join(said.split()))}`, the answer is `{short(wanted)}`"


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(" .,;:!?")


def _as_number(text: str) -> Decimal | None:
    text = text.strip().rstrip(" .,;:!?")[:700]
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return Decimal(text) if _NUMBER.fullmatch(text) else None
