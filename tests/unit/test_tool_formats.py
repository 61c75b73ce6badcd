"""Reading calls: the examples of the written rules, the labelled corpus, and text that nobody meant."""

from __future__ import annotations

import ast
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.tool_call import FORMATS, Malformed, ToolCall, read_turn, tool_call, toolset, written
from rlvr_verifiers.tool_call import formats as formats_module
from rlvr_verifiers.tool_call import pythonic as pythonic_module
from rlvr_verifiers.tool_call.running import literal

from rlvr import Completion, Sample, Verdict

CORPUS = Path(__file__).parents[1] / "corpora" / "tools"
ROWS = [json.loads(line) for line in (CORPUS / "own.jsonl").read_text(encoding="utf-8").splitlines()]
TOOLS = [json.loads(line) for line in (CORPUS / "own_tools.jsonl").read_text(encoding="utf-8").splitlines()]
SHARED = Path(__file__).parents[2].parent / "shared" / "data"

F_AND_G = toolset([{"name": "f", "parameters": {"type": "object", "additionalProperties": True}}, {"name": "g"}])


def verdict(output: str, calls: Any, tools: Any, **options: Any) -> Verdict:
    found = tool_call.fn(Completion(output), Sample("one", meta={"tools": tools, "calls": calls}), None, **options)
    assert isinstance(found, Verdict)
    return found


# ----------------------------------------------------------------------------------------------- the written rules


def documented() -> list[tuple[str, str]]:
    """The format and text of each example in the rules."""
    found = []
    sections = re.split(r"^\*\*(\w+)\*\*", formats_module.__doc__ or "", flags=re.MULTILINE)
    for form, text in zip(sections[1::2], sections[2::2], strict=True):
        examples = re.findall(r"(?:^ {4}.*\n)+", text, flags=re.MULTILINE)
        lines = [line[4:] for block in examples for line in block.splitlines()]
        if form == "hermes":
            found += [(form, lines[0]), (form, "\n".join(lines[1:]))]
        else:
            found += [(form, line) for line in lines]
    return found


@pytest.mark.parametrize(("form", "text"), documented())
def test_examples_of_the_rules(form: str, text: str) -> None:
    for read_as in (form, "auto"):
        calls = read_turn(text, read_as, F_AND_G).calls
        assert calls
        assert calls[0].name == "f"
        assert [call.name for call in calls[1:]] in ([], ["g"])


def test_there_are_examples_of_every_format() -> None:
    assert {form for form, _ in documented()} == set(FORMATS) - {"auto"}


def test_examples_of_python() -> None:
    block = (pythonic_module.__doc__ or "").split("\n\n")[1]
    examples = [text for text in re.split(r"\s{4,}", block) if text]
    assert len(examples) == 8
    for text in examples:
        bare = text.partition("  (")[0]
        tools = toolset([{"name": name} for name in ("f", "g", "shop.cart.add")])
        assert bool(read_turn(bare, "python", tools).calls) is (bare != "[]"), text


# ---------------------------------------------------------------------------------------------------- labelled rows


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_own_rows(row: dict[str, Any]) -> None:
    for form in (row["format"], "auto"):
        start = time.process_time()
        found = verdict(row["output"], row["calls"], TOOLS, format=form, ordered=row["ordered"])
        assert found.passed is row["expected"], (row["kind"], form, found.detail)
        assert found.valid
        assert time.process_time() - start < 15


@pytest.mark.skipif(not SHARED.is_dir(), reason="there is no ../shared/data")
def test_shared_rows() -> None:
    tools = json.loads((SHARED / "tool_adversarial_tools.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (SHARED / "tool_adversarial_dev.jsonl").read_text("utf-8").splitlines()]
    for row in rows:
        given_tools = [tools[name] for name in row["tools"]]
        for form in (row["format"], "auto"):
            found = verdict(row["output"], row["gold"], given_tools, format=form, ordered=row["ordered"])
            assert found.passed is row["expected"], (row["id"], form, found.detail)


# ------------------------------------------------------------------------------------------------------- properties

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x == 0 or abs(x) > 1e-300)
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "from", "class"]), JSON, max_size=3), min_size=1, max_size=3)
)
def test_what_is_written_is_read_again(arguments: list[dict[str, Any]]) -> None:
    calls = tuple(ToolCall("f", one) for one in arguments)
    for form in FORMATS[1:]:
        assert read_turn(written(calls, form), form, F_AND_G).calls == calls, form


PIECES = [
    *"{}[]()\"'\\,:=.f1-# \n`<>",
    *("<tool_call>", "</tool_call>", "f(", "[TOOL_CALLS]", '{"name": "f", "arguments": ', "[ARGS]", "```", "lambda:"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    for form in FORMATS:
        try:
            reading = read_turn(text, form, F_AND_G)
        except Malformed:
            continue
        assert all(isinstance(call.name, str) and isinstance(call.arguments, dict) for call in reading.calls)


BOMBS = {
    "tags": "<tool_call>" * 18_000,
    "closed tags": "<tool_call></tool_call>" * 8_000,
    "brackets": "[" * 199_000,
    "braces": '{"a":' * 39_000,
    "python brackets": "f(a=" + "[" * 190_000,
    "signs": "f(a=" + "-" * 190_000 + "1)",
    "sum": "f(a=" + "1-" * 90_000 + "1)",
    "dots": "f(a=" + "x." * 90_000 + "x)",
    "calls of calls": "f" + "()" * 90_000,
    "lambdas": "f(a=" + "lambda:" * 27_000 + "1)",
    "commas": "f(a=[" + "1," * 90_000 + "])",
    "quotes": "f(a=" + '"' * 190_000,
    "escapes": 'f(a="' + "\\" * 190_000,
    "triple quotes": 'f(a="""' + '"' * 2 + "\\" * 100_000,
    "digits": "f(a=" + "9" * 190_000 + ")",
    "fences": "```\n" * 49_000,
    "backquotes": "```\n" + "`" * 190_000,
    "open strings": "<tool_call>" + '"' * 180_000,
    "many objects": '{"name": "f", "parameters": {}}' * 6_000,
    "many calls": "f()\n" * 49_000,
    "mistral": "[TOOL_CALLS]" * 16_000,
    "deepseek": "<｜tool▁calls▁begin｜>" + "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>" * 3_000,
    "behind a comment": "f(a=1) #\r" + "-" * 100_000 + "1",
    "dots behind a comment": "f(a=1) #\r" + "x." * 90_000 + "x",
    "blanks": "f" + " " * 190_000 + "(",
    "prose": "a" * 199_000 + "(",
    "too long": "x" * 1_000_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_in_time(text: str) -> None:
    for form in FORMATS:
        start = time.process_time()
        assert not verdict(text, [{"name": "f", "arguments": {}}], [{"name": "f"}, {"name": "g"}], format=form).passed
        assert time.process_time() - start < 15, form


@given(JSON)
def test_literals_are_python_for_the_same_value(value: Any) -> None:
    source = literal(value)
    assert source.isascii()
    back = ast.literal_eval(source)
    assert back == value
    assert json.dumps(back) == json.dumps(value)


def test_what_is_no_json_is_no_literal() -> None:
    for value in (math.inf, math.nan, {1}, b"x", 1j):
        with pytest.raises(TypeError, match="is no JSON value"):
            literal(value)
