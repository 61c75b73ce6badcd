"""How the JSON of a completion is found: the examples of the rules, shapes that models write, hostile text."""

from __future__ import annotations

import json
import re
import time

import pytest
from rlvr_verifiers.json_schema import extract as rules_of
from rlvr_verifiers.json_schema.extract import __doc__ as RULES
from rlvr_verifiers.json_schema.extract import extract


def examples() -> list[tuple[str, str, str]]:
    """`(mode, text, value or rule)` of every example in the docstring."""
    found, mode = [], "strict"
    for line in (RULES or "").splitlines():
        mode = "extract" if line.startswith('With `mode="extract"`') else mode
        example = re.fullmatch(r" {4}(?: {4})?(\S.*?) {2,}(\S.*)", line)
        if example:
            text = example[1].replace("\\n", "\n").replace("\\ufeff", "\ufeff")
            found.append((mode, text, example[2]))
    return found


def outcome(text: str, mode: str = "extract") -> str:
    found = extract(text, mode)
    return found.problem.rule if found.problem else json.dumps(found.value)


def test_the_rules_have_examples() -> None:
    assert len(examples()) >= 36
    assert rules_of is extract


@pytest.mark.parametrize(("mode", "text", "wanted"), examples())
def test_the_examples_of_the_rules(mode: str, text: str, wanted: str) -> None:
    assert outcome(text, mode) == wanted


A, B = '{"a": 1}', '{"b": 2}'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"```json\n{A}\n```\n\n**Explanation**: `a` is in [square brackets] and {{braces}}.", A),
        (f"1. first\n   ```json\n   {A}\n   ```\n2. second", A),
        (f"The schema is\n```json\n{B}\n```\nso the result is\n```json\n{A}\n```", A),
        (f"Input `{B}` gives\n```json\n{A}\n```", A),
        (f"````markdown\n```json\n{A}\n```\n````", A),
        (f"```\n{A}\n```\n```\n```", A),
        (f"~~~\n```json\n{A}\n```\n~~~", A),
        (f"json {A}", A),
        (f"json\n{A}", A),
        (f"Output:\n{A}\n\nNote: done.", A),
        (f"<answer>\n```json\n{A}\n```\n</answer>", A),
        (f"<answer>{A}", A),
        (f"<answer>{B}</answer> no, <answer>{A}</answer>", A),
        (f"<answer>{A}</answer> or {B}", A),
        (f"x</think>\n\n{A}", A),
        (f"```json5\n{A}\n```", A),
        (f"```javascript\n{A}\n```", A),
        (f"Use `json.loads` or ```x``` on {A}", A),
        (f"```json\n{A}```", A),
        (f"```json\n{A}\n``` and that is it", A),
        ("```json\n42\n```", "42"),
        ('```json\n"a"\n```', '"a"'),
        (f"[{A}, {B}]", f"[{A}, {B}]"),
        (f"\\boxed{{{A}}}", A),
        (f"result = {A};", A),
        (f"{A} {A.replace(' ', '')}", A),
        (f"```json\n{A}\n```\n```json\n\n```", A),
        (f"```json\n{A}\n{A}\n```", A),
        (f"```json\n{A}\n```\n```text\nall done\n```", A),
        (f"```json\n{A}\n```\n```\nall done\n```", "not-json"),
        (f"```python\nx = {A}\ny = {B}\n```", "several"),
        (f"{A}, {B}", "several"),
        (f"{A}\n{B[:-1]}", "several"),
        (f"{B} is wrong; ```json\n{{'a': 1}}\n```", "single-quotes"),
        ("{'a': 1}", "single-quotes"),
        ("So: {“a”: 1}", "smart-quotes"),
        ('{"a": 1,}', "trailing-comma"),
        ('It is {"a": 1, "a": 2}.', "duplicate-key"),
        ("No.", "nothing"),
        ("", "empty"),
        ("```json\n```", "nothing"),
        ("```json\nI cannot do that.\n```", "not-json"),
        ("```json\n\ufeff{}\n```", "bom"),
        (f"{'[' * 200}{']' * 200}", "too-deep"),
    ],
)
def test_what_models_write(text: str, wanted: str) -> None:
    assert outcome(text) == wanted


@pytest.mark.parametrize("text", [f" {A} ", "null", '"x"', "-1.5e3", "[]"])
def test_strict_is_json_and_nothing_else(text: str) -> None:
    assert outcome(text, "strict") == json.dumps(json.loads(text))
    for spoiled in (
        f"{text}.",
        f"`{text}`",
        f"```\n{text}\n```",
        f"<think></think>{text}",
        f"{text}\0",
        f"\ufeff{text}",
    ):
        assert extract(spoiled, "strict").problem is not None


@pytest.mark.parametrize(
    "text",
    [
        "```json\n" * 100_000,
        "```\n" * 200_000,
        "```json\n```\n" * 24_000,
        "```json {" * 40_000,
        "~~~ a\n" * 100_000,
        " " * 990_000 + "```",
        "`" * 990_000,
        "<answer>" * 100_000,
        "<think>" * 100_000,
        "</think>" * 100_000,
        "```json\n" + "{" * 900_000,
        '{"a": 1}' * 100_000,
        "[1](x) " * 100_000,
        "[" + "1," * 300_000,
        "[" + "1," * 300_000 + "1]",
        "x" * 2_000_000,
        '{"k' + '": {"k' * 100_000,
        "{'a': " * 100_000,
        "{a:" * 100_000,
    ],
    ids=lambda one: ascii(one)[:12],
)
@pytest.mark.parametrize("mode", ["strict", "extract"])
def test_hostile_text_takes_bounded_time(text: str, mode: str) -> None:
    start = time.process_time()
    found = extract(text, mode)
    assert time.process_time() - start < 5  # 0.12 s on a quiet machine
    assert found.problem is None or str(found.problem)


@pytest.mark.parametrize(
    "around", ["So {} it is", "```json\n{}\n```", "```json\n{}", "<answer>{}</answer>", "**{}**", "`{}`"]
)
def test_the_value_does_not_depend_on_what_stands_around(around: str) -> None:
    value = {"a": [1, {"b": '}`"]'}], "c": "```", "d": "<answer>"}
    assert extract(around.replace("{}", json.dumps(value))).value == value
