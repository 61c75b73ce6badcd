"""BFCL's development sample through `tool-call`: gold calls pass in every format, mutations of them fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rlvr_verifiers.tool_call import ToolCall, toolset, written
from rlvr_verifiers.tool_call.expected import Expected, expected_calls
from rlvr_verifiers.tool_call.verifier import tool_call
from rlvr_verifiers.tool_call.writing import NO_CALL

import rlvr
from rlvr import Completion, Sample, Verdict

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "bfcl_dev.jsonl"
pytestmark = pytest.mark.skipif(not DATA.is_file(), reason="there is no ../shared/data")

ROWS = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()] if DATA.is_file() else []
FORMATS = ["hermes", "openai", "python", "bfcl", "llama", "mistral", "deepseek"]


def verdict(row: dict[str, Any], completion: str, **options: Any) -> Verdict:
    sample = Sample(row["id"], meta={"tools": row["function"], "calls": row["ground_truth"]})
    found = tool_call.fn(Completion(completion), sample, None, **options)
    assert isinstance(found, Verdict)
    return found


def expected(row: dict[str, Any]) -> tuple[Expected, ...]:
    return expected_calls(row["ground_truth"], toolset(row["function"]))


def gold(row: dict[str, Any]) -> list[ToolCall]:
    return [one.example() for one in expected(row)]


@pytest.mark.parametrize("form", FORMATS)
def test_gold_calls_pass_in_every_format(form: str) -> None:
    for row in ROWS:
        text = written(gold(row), form) if row["ground_truth"] else NO_CALL
        for read_as in (form, "auto"):
            found = verdict(row, text, format=read_as)
            assert found.passed, (row["id"], read_as, found.detail)


def test_every_accepted_value_passes() -> None:
    for row in ROWS:
        for number, (call, want) in enumerate(zip(gold(row), expected(row), strict=True)):
            for key, field in want.fields.items():
                for other in field.accepted:
                    calls = gold(row)
                    calls[number] = ToolCall(call.name, {**call.arguments, key: other.example()})
                    assert verdict(row, written(calls, "hermes")).passed, (row["id"], key)
                if field.optional and key not in want.tool.required:
                    calls[number] = ToolCall(call.name, {k: v for k, v in call.arguments.items() if k != key})
                    assert verdict(row, written(calls, "hermes")).passed, (row["id"], key)


def other_value(value: Any) -> Any:
    """A value of the same type that is not the same."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 7
        case str():
            return value + "x"
        case list():
            return [*value, *(value[:1] or [1])]
        case dict():
            return {**value, "zz": 1}
    return "zz"


def other_type(value: Any) -> Any:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return [value]
        case list():
            return json.dumps(value)
        case dict():
            return [value]
    return 0


def mutations(row: dict[str, Any]) -> Iterator[tuple[str, list[ToolCall], bool]]:
    """What is wrong, the calls, and whether it is wrong only where order counts."""
    calls, wants = gold(row), expected(row)
    tools = toolset(row["function"])
    if not calls:
        for tool in tools.values():
            yield "a call where none is right", [ToolCall(tool.name, {})], False
        return
    for number, (call, want) in enumerate(zip(calls, wants, strict=True)):

        def changed(name: str, arguments: dict[str, Any], number: int = number) -> list[ToolCall]:
            return [*calls[:number], ToolCall(name, arguments), *calls[number + 1 :]]

        arguments = call.arguments
        yield "dropped call", [*calls[:number], *calls[number + 1 :]], False
        yield "doubled call", [*calls[: number + 1], *calls[number:]], False
        for name in [f"{call.name}2", call.name.swapcase(), f"{call.name} ", *(n for n in tools if n != call.name)]:
            yield "wrong name", changed(name, arguments), False
        yield "extra argument", changed(call.name, {**arguments, "surplus": 1}), False
        for key in arguments:
            rest = {k: v for k, v in arguments.items() if k != key}
            if not want.fields[key].optional and key not in want.tool.defaults:
                yield "missing argument", changed(call.name, rest), False
            yield "wrong key", changed(call.name, {**rest, f"{key}_": arguments[key]}), False
            for value in (other_value(arguments[key]), other_type(arguments[key])):
                if not want.fields[key].takes(value):
                    yield "wrong value", changed(call.name, {**arguments, key: value}), False
    if len(calls) > 1 and not wants[0].takes(calls[-1]):
        yield "wrong order", [calls[-1], *calls[1:-1], calls[0]], True


@pytest.mark.parametrize("form", ["hermes", "openai", "bfcl", "python"])
def test_mutations_fail(form: str) -> None:
    seen: dict[str, int] = {}
    for row in ROWS:
        for kind, calls, only_ordered in mutations(row):
            if form == "python" and any(not c.name.replace(".", "").isidentifier() for c in calls):
                continue
            text = written(calls, form) if calls else "Nothing to do."
            found = verdict(row, text, format=form, ordered=only_ordered)
            assert not found.passed, (row["id"], kind, text)
            assert found.valid
            assert found.score < 1.0
            seen[kind] = seen.get(kind, 0) + 1
            if only_ordered:
                assert verdict(row, text, format=form).passed, (row["id"], kind)
    assert set(seen) == {
        "a call where none is right",
        "dropped call",
        "doubled call",
        "wrong name",
        "extra argument",
        "missing argument",
        "wrong key",
        "wrong value",
        "wrong order",
    }
    assert sum(seen.values()) > 2000


def test_a_call_is_never_smuggled_in_beside_the_expected_one() -> None:
    row = next(row for row in ROWS if row["category"] == "multiple")
    call, other = gold(row)[0], next(n for n in toolset(row["function"]) if n != gold(row)[0].name)
    both = json.dumps([{call.name: call.arguments, other: {}}])
    assert verdict(row, json.dumps([{call.name: call.arguments}]), format="bfcl").passed
    assert not verdict(row, both, format="bfcl").passed
    assert not verdict(row, both).passed


def test_the_task_over_the_sample() -> None:
    task = rlvr.Registry.load().task("bfcl", DATA)
    samples = [*task.load("train"), *task.load("test")]
    assert len(samples) == len(ROWS)
    by_id = {row["id"]: row for row in ROWS}
    for sample in samples:
        row = by_id[sample.id]
        assert isinstance(sample.prompt, str)
        assert row["question"][0][-1]["content"] in sample.prompt
        assert json.dumps(row["function"], ensure_ascii=False) in sample.prompt
        assert sample.meta == {"tools": row["function"], "calls": row["ground_truth"]}
        assert tool_call.gold is not None
        assert tool_call.spoil is not None
        spoiled = tool_call.spoil(sample)
        assert spoiled is not None
        for text, right in ((tool_call.gold(sample), True), (spoiled, False), ("", False)):
            found = tool_call.fn(Completion(text), sample, None, **task.verifier_options)
            assert isinstance(found, Verdict)
            assert found.passed is right, (sample.id, text)
