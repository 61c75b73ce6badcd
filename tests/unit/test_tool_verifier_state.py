"""`tool-call` where calls are made: what numbers and objects lead to, what of the state counts, whose fault it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from rlvr_sandboxes.unsafe_subprocess import UnsafeSubprocess
from rlvr_verifiers.tool_call import BadTask, ToolCall, tool_call, written

from rlvr import Completion, Sample, Status, Verdict


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Any]:
    """Runs the tools below, which are honest."""
    with closing(UnsafeSubprocess()) as made:
        yield made


def sample(source: str, answer: Any = None, **meta: Any) -> Sample:
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}]
    return Sample("one", answer=answer, meta={"tools": tools, "implementation": source, **meta})


def expect(value: Any) -> list[dict[str, Any]]:
    return [{"name": "f", "arguments": {"x": value}}]


def verdict(value: Any, given: Sample, sandbox: Any) -> Verdict:
    found = tool_call.fn(Completion(written([ToolCall("f", {"x": value})], "hermes")), given, sandbox)
    assert isinstance(found, Verdict)
    return found


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("def f(x): return x * 10", 1e308),
        ("def f(x): return [x * 10 - x * 10]", 1e308),
        ("def f(x): return x ** 0.5", -8),
        ("def f(x): return 10 ** x", 20_000),
        ("def f(x): return {'a': 10 ** x}", 2_000),
        ("def f(x): return chr(0xD800 + x)", 7),
        ("def f(x): raise ValueError(chr(0xD800 + x))", 7),
    ],
)
def test_what_json_has_no_form_for_is_no_error(sandbox: Any, source: str, value: Any) -> None:
    for meta in ({"result": 5}, {"result": 5.5}, {"result": "inf"}, {"end_state": {"f(1) if 0 else 1": 2}}):
        found = verdict(value, sample(source, **meta), sandbox)
        assert found.status is Status.FAILED
        assert found.score < 1.0
        found.detail.encode()
    kept = f"kept = None\n{source}\ng = f\ndef f(x):\n    global kept\n    kept = g(x)\n"
    if "raise" not in source:
        assert verdict(value, sample(source, calls=expect(1)), sandbox).status is Status.FAILED
        assert verdict(value, sample(kept, calls=expect(1)), sandbox).status is Status.FAILED
        assert verdict(value, sample(kept, calls=expect(value)), sandbox).passed


def test_a_result_beyond_a_double_can_be_right(sandbox: Any) -> None:
    given = sample("def f(x): return 10 ** x", result=10**400)
    assert verdict(400, given, sandbox).passed
    assert verdict(401, given, sandbox).status is Status.FAILED


def test_the_environments_answer_can_be_written(sandbox: Any) -> None:
    assert tool_call.reply is not None
    text = written([ToolCall("f", {"x": 1e308})], "hermes")
    for source, reply in (("def f(x): return x * 10", '"inf"'), ("def f(x): return '\\udc80'", '"\\udc80"')):
        told = tool_call.reply(Completion(text), sample(source, result=1), sandbox)
        assert told == reply
        json.loads(told)


STATEFUL = {
    "an object": "class C:\n    def __init__(self): self.items = []\nc = C()\ndef f(x): c.items.append(x)",
    "slots": "class C:\n    __slots__ = ('item',)\nc = C()\ndef f(x): c.item = x",
    "a class": "class C:\n    items = []\ndef f(x): C.items.append(x)",
    "a default": "def f(x, seen=[]): seen.append(x)",
    "an attribute": "def f(x): f.last = x",
    "objects in a dict": "class C:\n    def __init__(self, x): self.x = x\nd = {}\ndef f(x): d[1] = [C(x)]",
    "keys": "class C: pass\nd = {}\ndef f(x): d[x] = C()",
    "a data class": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: str\nlast = None\n"
        "def f(x):\n    global last\n    last = A(x)"
    ),
    "a date": "import datetime\nd = []\ndef f(x): d.append(datetime.date(2020, 1, len(x)))",
    "a closure": "def make():\n    kept = []\n    def f(x): kept.append(x)\n    return f\nf = make()",
    "infinity beside": "d = {}\ndef f(x):\n    d['inf'] = float('inf')\n    d['x'] = x",
    "a cycle": "class C: pass\nc = C()\nc.me = c\ndef f(x): c.x = x",
}


@pytest.mark.parametrize("kind", STATEFUL)
def test_all_state_counts(sandbox: Any, kind: str) -> None:
    given = sample(STATEFUL[kind], calls=expect("apple"))
    assert verdict("apple", given, sandbox).passed
    wrong = verdict("pear", given, sandbox)
    assert wrong.status is Status.FAILED
    assert "in the end, after the expected calls" in wrong.detail


def test_what_has_only_an_address_says_nothing(sandbox: Any) -> None:
    source = "import threading, itertools\nlock = threading.Lock()\nids = itertools.count()\nthing = object()\n"
    given = sample(source + "def f(x):\n    next(ids)\n    return len(x)", calls=expect("apple"))
    assert verdict("grape", given, sandbox).passed


@pytest.mark.parametrize(
    ("source", "meta", "why"),
    [
        ("def f(town): return 1", {"result": 1}, "takes no `x`"),
        ("def f(x, /): return 1", {"result": 1}, "takes no `x`"),
        ("def f(x, y): return 1", {"result": 1}, "needs `y`"),
        ("def f(*, x, y): return 1", {"result": 1}, "needs `y`"),
        ("a = []\ndef f(x): pass", {"end_state": {"a[": 1}}, "no Python expression"),
        ("a = []\ndef f(x): pass", {"end_state": {"b": 1}}, "names `b`"),
        ("def f(x): pass", {"result": {1: object}}, "JSON"),
    ],
)
def test_a_task_that_nothing_can_solve_is_an_error(sandbox: Any, source: str, meta: dict[str, Any], why: str) -> None:
    with pytest.raises((BadTask, TypeError), match=why):
        verdict("apple", sample(source, **meta), sandbox)


@pytest.mark.parametrize(
    ("source", "expression"),
    [
        ("a = [1]\ndef f(x): pass", "[one for one in a] == [1]"),
        ("a = [1]\ndef f(x): pass", "sorted(a, key=lambda one: -one) == [1]"),
        ("def f(x, **more): globals()['late'] = x", "late == 'apple'"),
        ("@print\ndef g(y): pass\ndef f(x, y=1, *, z=2): pass", "f(1) is None"),
    ],
)
def test_a_task_that_can_be_solved_is_none(sandbox: Any, source: str, expression: str) -> None:
    assert verdict("apple", sample(source, end_state={expression: True}), sandbox).passed


def test_expected_calls_decide_also_where_the_schema_of_the_tool_would_not_have_them() -> None:
    """Public data sets have such rows: BFCL's ground truths allow values that its schemas refuse."""
    tools = [{"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}, "required": ["x", "z"]}}]

    def passed(arguments: Any, calls: Any) -> bool:
        text = written([ToolCall("f", arguments)], "hermes")
        return tool_call.fn(Completion(text), Sample("one", meta={"tools": tools, "calls": calls}), None).passed

    for arguments in ({"x": 1, "z": 2}, {"x": "1"}, {"x": 1, "y": 2}, {}):
        assert passed(arguments, [{"name": "f", "arguments": arguments}])
        assert not passed({"x": 7}, [{"name": "f", "arguments": arguments}])
    assert passed({"x": "1", "y": 2}, [{"f": {"x": ["1", "one"], "y": [2]}}])


def test_numbers_in_an_answer_are_exact() -> None:
    given = Sample("one", answer="9007199254740993", meta={"tools": [], "calls": []})
    for text, passes in (
        ("9007199254740993", True),
        ("9,007,199,254,740,993.0", True),
        ("9007199254740992", False),
        ("9.007199254740993e15", True),
        ("9.007199254740992e15", False),
    ):
        found = tool_call.fn(Completion(text), given, None)
        assert isinstance(found, Verdict)
        assert found.passed is passes, text


def test_marks_of_two_formats_make_no_call() -> None:
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}]
    given = Sample("one", meta={"tools": tools, "calls": expect(1)})
    hermes, mistral, deepseek = (written([ToolCall("f", {"x": 1})], form) for form in ("hermes", "mistral", "deepseek"))
    for text in (hermes + mistral, hermes + deepseek, deepseek + mistral, "[TOOL_CALLS]" + hermes):
        found = tool_call.fn(Completion(text), given, None)
        assert isinstance(found, Verdict)
        assert found.status is Status.FAILED
    hidden = tool_call.fn(Completion("f(x=1) # " + hermes), given, None)
    assert isinstance(hidden, Verdict)
    assert hidden.parts["calls"] == 1  # that of the tag
    for form in ("hermes", "mistral", "deepseek", "openai", "llama", "python", "bfcl"):
        quoted = ToolCall("f", {"x": hermes + mistral + deepseek + ("" if form == "python" else "#")})
        quoting = Sample("one", meta={"tools": tools, "calls": expect(quoted.arguments["x"])})
        assert tool_call.fn(Completion(written([quoted], form)), quoting, None).passed  # type: ignore[union-attr]


def test_nothing_to_see_is_no_reply() -> None:
    given = Sample("one", meta={"tools": [], "calls": []})
    for text in ("", " \n", "\u200b", "\u2060 \ufeff"):
        assert not tool_call.fn(Completion(text), given, None).passed  # type: ignore[union-attr]
