"""Success of tool calls with the tools really run in Docker: state, wrong outcomes, exceptions, hangs, hostile text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from rlvr_sandboxes.docker import Docker
from rlvr_verifiers.tool_call import tool_call, written
from rlvr_verifiers.tool_call.calls import ToolCall

import rlvr
from rlvr import Completion, Sample, Scorer, Status, Turn, Verdict

SHELF = """
import time

SHELF = {"tea": 2, "rice": 0}
NOTES = []


def add(item, number):
    SHELF[item] = SHELF.get(item, 0) + number
    return SHELF[item]


def take(item, number):
    if SHELF[item] < number:
        raise ValueError(f"only {SHELF[item]} left")
    SHELF[item] -= number
    return {"item": item, "left": SHELF[item]}


def note(text):
    NOTES.append(text)
    return len(text)


def wait(seconds):
    time.sleep(seconds)
    return "awake"


def leave(code):
    raise SystemExit(code)
"""


def tool(name: str, **properties: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {k: {"type": v} for k, v in properties.items()},
        "required": [*properties],
    }
    return {"name": name, "parameters": schema}


TOOLS = [
    tool("add", item="string", number="integer"),
    tool("take", item="string", number="integer"),
    tool("note", text="string"),
    tool("wait", seconds="number"),
    tool("leave", code="integer"),
]

pytestmark = pytest.mark.usefixtures("needs_docker")


@pytest.fixture(scope="module")
def sandbox(needs_docker: None) -> Iterator[Any]:
    with closing(Docker()) as made:
        yield made


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments)


def sample(answer: Any = None, **meta: Any) -> Sample:
    return Sample("one", answer=answer, meta={"tools": TOOLS, "implementation": SHELF, **meta})


def verdict(sandbox: Any, given: Sample, *calls: ToolCall, **options: Any) -> Verdict:
    found = tool_call.fn(Completion(written(calls, "hermes")), given, sandbox, **options)
    assert isinstance(found, Verdict)
    return found


def test_state_lives_across_calls_and_not_across_completions(sandbox: Any) -> None:
    given = sample(end_state={"SHELF": {"tea": 1, "rice": 5}})
    for _ in range(3):
        calls = (
            call("add", item="rice", number=7),
            call("take", item="rice", number=2),
            call("take", item="tea", number=1),
        )
        assert verdict(sandbox, given, *calls).passed
    assert verdict(sandbox, given, call("add", item="rice", number=5), call("take", item="tea", number=1)).passed


def test_a_wrong_end_state_fails(sandbox: Any) -> None:
    found = verdict(sandbox, sample(end_state={"SHELF['tea']": 3}), call("add", item="tea", number=2))
    assert found.status is Status.FAILED
    assert "`SHELF['tea']` is 4 in the end, expected 3" in found.detail


def test_the_result_of_the_last_call_counts(sandbox: Any) -> None:
    given = sample(
        result={"item": "tea", "left": 0}, calls=[{"name": "take", "arguments": {"item": "tea", "number": 2}}]
    )
    assert verdict(sandbox, given, call("take", item="tea", number=2)).passed
    assert verdict(sandbox, given, call("take", item="tea", number=1), call("take", item="tea", number=1)).passed
    assert not verdict(sandbox, given, call("take", item="tea", number=1)).passed


def test_a_tool_that_raises_fails_with_the_exception(sandbox: Any) -> None:
    found = verdict(sandbox, sample(end_state={"SHELF['tea']": 2}), call("take", item="tea", number=3))
    assert found.status is Status.FAILED
    assert "`take` raised ValueError: only 2 left" in found.detail
    assert verdict(sandbox, sample(result=1), call("leave", code=0)).status is Status.FAILED


def test_a_tool_that_sleeps_for_ever_is_stopped_in_time(sandbox: Any) -> None:
    start = time.monotonic()
    found = verdict(sandbox, sample(result="awake"), call("wait", seconds=1e6), timeout=1.0)
    assert found.status is Status.FAILED
    assert "did not end within 1 s" in found.detail
    assert time.monotonic() - start < 15.0
    assert verdict(sandbox, sample(result="awake"), call("wait", seconds=0.01), timeout=5.0).passed


HOSTILE = [
    "'); NOTES.clear(); SHELF.update(tea=99) #",
    '"); __import__("os")._exit(0) #',
    "{SHELF!r} %s {0} \\",
    "\\'\"\n\r\t\0 \u2028 \U0001f600 \x1b[0m",
    "__import__('os').system('touch /tmp/rlvrpwned')",
    "</tool_call><tool_call>",
    "x" * 50_000,
]


def test_hostile_arguments_stay_data(sandbox: Any) -> None:
    for text in HOSTILE:
        given = sample(end_state={"NOTES": [text], "SHELF": {"tea": 2, "rice": 0}})
        found = verdict(sandbox, given, call("note", text=text))
        assert found.passed, (text[:60], found.detail)


def test_a_conversation_end_to_end(sandbox: Any) -> None:
    given = sample(5, end_state={"SHELF": {"tea": 5, "rice": 0}})
    first = written([call("add", item="tea", number=3)], "hermes")
    assert tool_call.reply is not None
    told = tool_call.reply(Completion(first), given, sandbox)
    assert told == "5"
    turns = Turn("policy", first), Turn("environment", told), Turn("policy", f"{told}")
    found = tool_call.fn(Completion("5", turns=turns), given, sandbox)
    assert isinstance(found, Verdict)
    assert found.passed


def test_over_the_scorer_in_order_and_at_once() -> None:
    """The verdicts come from workers with sandboxes of their own; samples without an implementation need none."""
    good = Completion(written([call("add", item="rice", number=4)], "hermes"))
    bad = Completion(written([call("add", item="rice", number=5)], "hermes"))
    given = sample(end_state={"SHELF['rice']": 4})
    with Scorer(workers=1, timeout=60) as scorer:
        found = scorer.submit_batch("tool-call", [(good, given), (bad, given)] * 10).result()
        told = scorer.submit_reply("tool-call", good, given).result()
    assert [one.passed for one in found] == [True, False] * 10
    assert json.loads(told.parts["reply"]) == 4


def test_from_python() -> None:
    text = written([call("add", item="rice", number=4)], "python")
    right = rlvr.verify("tool-call", text, tools=TOOLS, implementation=SHELF, end_state={"SHELF['rice']": 4})
    assert right.passed, right.detail
    broken = rlvr.verify("tool-call", text, tools=TOOLS, implementation=f"1 / 0\n{SHELF}", result=4)
    assert broken.status is Status.ERROR
    assert "does not load: ZeroDivisionError" in broken.detail
