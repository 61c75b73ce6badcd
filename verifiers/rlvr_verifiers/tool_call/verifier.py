"""The verifier `tool-call`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from rlvr import Completion, Kit, Returned, Sample, Sandbox, Verdict, verifier

from ..jsontext import Refused, short
from ..ownturn import own_turn
from .calls import Malformed, Reading, ToolCall
from .examples import gold, spoil
from .formats import FORMATS, read_turn
from .judging import ALL, Finding, by_calls, by_result, refused, wrong_answer
from .running import Starved, run, shown_result
from .task import ToolTask, read_task
from .tools import BadTask

Form = Literal["auto", "hermes", "mistral", "deepseek", "openai", "llama", "bfcl", "python"]


def _needs_sandbox(sample: Sample) -> bool:
    return "implementation" in sample.meta


def _kit() -> Kit:
    from .kit import kit

    return kit()


def _reply(
    completion: Completion,
    sample: Sample,
    sandbox: Sandbox | None,
    *,
    tools: Any = None,
    ordered: bool = False,
    format: Form = "auto",
    judge: Literal["auto", "calls", "result"] = "auto",
    timeout: float = 10.0,
    memory_mb: int = 512,
    max_calls: int = 32,
) -> str | None:
    """What the tools return to the calls of the last turn, one line of JSON for each.

    All calls so far are made again in a fresh process, so that the tools have to be deterministic. None when the last
    turn has no call, or one that the verifier fails.
    """
    if "implementation" not in sample.meta:
        return None
    task = read_task(sample, tools, "result" if judge == "calls" else judge)
    assert task.made is not None
    try:
        turns = _turns(completion, task, format)
    except Malformed:
        return None
    calls = [call for turn in turns for call in turn.calls]
    if not turns[-1].calls or len(calls) > max_calls or refused(calls, task):
        return None
    outcome = run(task.made, calls, (), task.tools, sandbox, timeout, memory_mb)
    results = list(outcome.results)
    if outcome.ended:
        results.append(Returned(raised=f"it {outcome.ended}"))
    try:
        return "\n".join(map(shown_result, results[len(calls) - len(turns[-1].calls) :])) or None
    except Refused as problem:
        raise BadTask(f"a tool returned what cannot be shown: {problem}") from None


@verifier(
    "tool-call",
    reference=["tools"],
    optional=["calls", "implementation", "result", "end_state", "answer"],
    timeout=120.0,
    gold=gold,
    spoil=spoil,
    kit=_kit,
    reply=_reply,
    needs_sandbox=_needs_sandbox,
)
def tool_call(
    completion: Completion,
    sample: Sample,
    sandbox: Sandbox | None,
    *,
    tools: Any = None,
    ordered: bool = False,
    format: Form = "auto",
    judge: Literal["auto", "calls", "result"] = "auto",
    timeout: float = 10.0,
    memory_mb: int = 512,
    max_calls: int = 32,
) -> Verdict:
    """Passes when the completion calls the tools as it should.

    `tools` are schemas, plain, OpenAI's or BFCL's. `calls` are the expected calls, `{"name", "arguments"}` or BFCL's
    `{name: {parameter: [accepted values]}}`; an empty list says that no call is right. They compare as a multiset,
    values as JSON, strings to the letter, a default like its omission. A call too many fails.

    With `implementation`, Python source with a function for each tool, the calls are made in the sandbox, one after the
    other, and what counts is what comes of it: `result` of the last one, `end_state` (values by expression), else the
    same results and globals as after the expected calls. An `answer` is what the last turn has to say.

    Options:
        tools: The tools of a task whose samples have none of their own.
        ordered: Whether the order of calls counts.
        format: The only format that counts: hermes, openai, llama, python, bfcl, mistral or deepseek; `auto` for any.
        judge: `calls` to compare calls although there is an implementation, `result` to insist on one.
        timeout: Seconds for all calls of a completion.
        memory_mb: Memory of the tools' process.
        max_calls: How many calls a completion may make, in all its turns.
    """
    if format not in FORMATS:
        raise BadTask(f"the option `format` must be one of {', '.join(FORMATS)}, not `{format}`")
    for name, value in (("timeout", timeout), ("memory_mb", memory_mb), ("max_calls", max_calls)):
        if not 0 < value < math.inf:
            raise BadTask(f"the option `{name}` must be above 0, not {value}")
    task = read_task(sample, tools, judge)
    try:
        turns = _turns(completion, task, format)
    except Malformed as problem:
        return _verdict(Finding(False, str(problem)), sample)
    calls = [call for turn in turns for call in turn.calls]
    if task.expected == ():
        found = _without_calls(calls, turns, completion, task, format)
    elif not calls:
        found = Finding(False, "there is no call in the completion")
    elif len(calls) > max_calls:
        found = Finding(False, f"there are {len(calls)} calls; the limit is {max_calls}")
    elif task.made is None:
        found = by_calls(calls, task, ordered)
    else:
        try:
            found = by_result(calls, len(turns[-1].calls), task, ordered, sandbox, timeout, memory_mb)
        except Starved as problem:
            return Verdict.timeout(str(problem))
    return _verdict(found, sample, turns)


def _verdict(found: Finding, sample: Sample, turns: Sequence[Reading] = ()) -> Verdict:
    parts: dict[str, Any] = {
        "name": round(found.credit.name, 6),
        "arguments": round(found.credit.arguments, 6),
        "values": round(found.credit.values, 6),
    }
    score, passed, detail = found.credit.total, found.right, found.detail
    if found.result is not None:
        parts["result"] = float(found.result)
        score = 0.7 * score + 0.3 * found.result
    if sample.answer is not None:
        wrong = wrong_answer(turns, sample.answer)
        parts["answer"] = float(not wrong)
        score = 0.8 * score + 0.2 * (found.right and not wrong)
        if passed and wrong:
            passed, detail = False, wrong
    if turns:
        parts["calls"] = sum(len(turn.calls) for turn in turns)
    return Verdict.of(passed, detail, 1.0 if passed else min(score, 0.99), parts)


def _turns(completion: Completion, task: ToolTask, form: str) -> list[Reading]:
    """What each turn of the policy says.

    Raises:
        Malformed: One of them is not to be read.
    """
    texts = [turn.text for turn in completion.turns if turn.role == "policy"] or [completion.text]
    found = []
    for text in texts:
        own = own_turn(text)
        if own is None:
            raise Malformed("the reasoning has no end, so nothing of it counts")
        found.append(read_turn(own, form, task.tools))
    return found


def _without_calls(
    calls: Sequence[ToolCall], turns: Sequence[Reading], completion: Completion, task: ToolTask, form: str
) -> Finding:
    """Where no call is right: something has to be said, and no call be made in any format."""
    if not calls and form != "auto":
        try:
            calls = [call for turn in _turns(completion, task, "auto") for call in turn.calls]
        except Malformed as problem:
            return Finding(False, f"no call is right, and there is the beginning of one: {problem}")
    if calls:
        return Finding(False, f"no call is right, and `{short(calls[0].name)}` is called")
    if not any(character.isprintable() and not character.isspace() for character in turns[-1].said):
        return Finding(False, "the completion says nothing")
    return Finding(True, "no call is right, and none is made", ALL)
