"""Calls against expected ones: the best assignment, monotone credit, and schemas as they are meant."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.tool_call import BadTask, ToolCall, toolset
from rlvr_verifiers.tool_call.expected import expected_calls
from rlvr_verifiers.tool_call.matching import assignment, credit, match
from rlvr_verifiers.tool_call.tools import filled

WEIGHTS = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.integers(0, 4).map(lambda n: n / 4), min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)


@given(WEIGHTS)
def test_the_assignment_is_the_heaviest(weights: list[list[float]]) -> None:
    rows, columns = len(weights), len(weights[0])
    pairs = assignment(weights)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == min(rows, columns)
    if rows <= columns:
        best = max(sum(weights[i][j] for i, j in enumerate(p)) for p in itertools.permutations(range(columns), rows))
    else:
        best = max(sum(weights[i][j] for j, i in enumerate(p)) for p in itertools.permutations(range(rows), columns))
    assert sum(weights[i][j] for i, j in pairs) == pytest.approx(best)


TOOLS = toolset(
    [
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
                "required": ["a"],
            },
        },
        {"name": "g", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    ]
)
SMALL = st.integers(0, 2)
WANTED = st.lists(st.lists(SMALL, min_size=1, max_size=3, unique=True), min_size=1, max_size=4)


@given(WANTED, st.lists(SMALL, min_size=1, max_size=4))
def test_a_match_is_found_if_there_is_one(wanted: list[list[int]], given_values: list[int]) -> None:
    expected = expected_calls([{"f": {"a": values}} for values in wanted], TOOLS)
    calls = [ToolCall("f", {"a": value}) for value in given_values]
    possible = len(wanted) == len(calls) and any(
        all(value in wanted[place] for value, place in zip(given_values, places, strict=True))
        for places in itertools.permutations(range(len(wanted)))
    )
    assert match(calls, expected, ordered=False) is possible
    in_order = len(wanted) == len(calls) and all(v in w for v, w in zip(given_values, wanted, strict=True))
    assert match(calls, expected, ordered=True) is in_order
    assert (credit(calls, expected, ordered=False).total == pytest.approx(1.0)) is possible


CALLS = st.builds(
    ToolCall, st.sampled_from(["f", "g", "h"]), st.dictionaries(st.sampled_from(["a", "b", "c"]), SMALL, max_size=3)
)


@given(st.lists(CALLS, min_size=1, max_size=3), st.lists(CALLS, max_size=3), st.booleans(), st.data())
def test_mending_a_call_never_lowers_the_credit(
    wanted: list[ToolCall], calls: list[ToolCall], ordered: bool, data: st.DataObject
) -> None:
    wanted = [ToolCall(call.name if call.name != "h" else "f", {"a": 0, **call.arguments}) for call in wanted]
    wanted = [
        ToolCall(one.name, {k: v for k, v in one.arguments.items() if k in TOOLS[one.name].properties})
        for one in wanted
    ]
    expected = expected_calls([{"name": call.name, "arguments": call.arguments} for call in wanted], TOOLS)
    before = credit(calls, expected, ordered)
    assert 0.0 <= before.total <= 1.0
    if not ordered:
        assert credit(calls[::-1], expected, ordered).total == pytest.approx(before.total)
    for i, j in before.pairs:
        call, want = calls[i], wanted[j]
        steps = [ToolCall(want.name, call.arguments)] if call.name != want.name else []
        for key in {*call.arguments, *want.arguments} if call.name == want.name else ():
            mended = {k: v for k, v in call.arguments.items() if k != key}
            mended |= {key: want.arguments[key]} if key in want.arguments else {}
            steps.append(ToolCall(call.name, mended))
        for step in steps:
            after = credit([*calls[:i], step, *calls[i + 1 :]], expected, ordered)
            assert after.total >= before.total - 1e-9, (call, step, want)
    if len(calls) > len(wanted):
        fewer = [call for i, call in enumerate(calls) if i in {i for i, _ in before.pairs}]
        assert credit(fewer, expected, ordered).total >= before.total - 1e-9


def schema(properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or [], **more}


@pytest.mark.parametrize(
    ("parameters", "right", "wrong"),
    [
        (schema({"a": {"type": "integer"}}), [{"a": 1}, {"a": 1.0}, {}], [{"a": 1.5}, {"a": True}, {"a": "1"}]),
        (schema({"a": {"type": "number"}}), [{"a": 1}, {"a": 0.5}], [{"a": False}, {"a": None}]),
        (schema({"a": {}}), [{"a": [1]}], [{"b": 1}]),
        (schema({"a": {}}, additionalProperties=True), [{"b": 1}], []),
        (schema({}, allOf=[{"required": ["x"]}]), [{"x": 1}], [{}]),
        ({"type": "dict", "properties": {"a": {"type": "float"}}}, [{"a": 1}, {"a": 1.5}], [{"a": "1"}, {"b": 1}]),
        (
            {"type": "dict", "properties": {"a": {"type": "tuple", "items": {"type": "float"}}, "b": {"type": "any"}}},
            [{"a": [1, 2.5]}, {"b": {"x": 1}}, {"b": None}],
            [{"a": ["1"]}, {"a": 1}],
        ),
        (
            {"type": "dict", "properties": {"a": {"type": "HashMap"}, "b": {"type": "long", "required": True}}},
            [{"a": {}, "b": 3}, {}],
            [{"a": []}, {"b": 1.5}],
        ),
        (None, [{}], [{"a": 1}]),
        ({}, [{}], [{"a": 1}]),
    ],
)
def test_schemas_are_read_as_they_are_meant(parameters: Any, right: list[Any], wrong: list[Any]) -> None:
    tool = toolset([{"name": "f", "parameters": parameters}])["f"]
    for arguments in right:
        assert tool.checker.valid(arguments), arguments
    for arguments in wrong:
        assert not tool.checker.valid(arguments), arguments


def test_the_forms_of_a_tool_are_the_same() -> None:
    plain = {"name": "f", "parameters": schema({"a": {"type": "integer"}})}
    text = '[{"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": []}}]'
    for form in ([plain], [{"type": "function", "function": plain}], text):
        assert toolset(form)["f"].properties == {"a": {"type": "integer"}}


def test_a_list_of_tools_is_kept_by_content() -> None:
    def tools(default: Any) -> list[Any]:
        return [{"name": "f", "parameters": schema({"a": {"type": ["integer", "boolean"], "default": default}})}]

    assert toolset(tools(1)) is toolset(tools(1))
    assert toolset(tools(True))["f"].defaults["a"] is True
    assert toolset(tools(1))["f"].defaults["a"] == 1
    assert toolset(tools(1))["f"].defaults["a"] is not True
    mine = tools(7)
    first = toolset(mine)
    mine[0]["parameters"]["properties"]["a"]["default"] = 8
    assert first["f"].defaults["a"] == 7
    assert toolset(mine)["f"].defaults["a"] == 8


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("{", "no JSON"),
        ({"name": "f"}, "must be a list"),
        ('{"name": "f"}', "must be a list"),
        ([1], "object with a `name`"),
        ([{"name": ""}], "object with a `name`"),
        ([{"name": "f"}, {"name": "f"}], "same name"),
        ([{"name": "f", "parameters": [1]}], "must be an object"),
        ([{"name": "f", "parameters": {"type": "objekt"}}], "no JSON schema"),
        ([{"name": "f", "parameters": schema({"a": {"minimum": "1"}})}], "no JSON schema"),
    ],
)
def test_tools_that_cannot_be_used(tools: Any, message: str) -> None:
    with pytest.raises(BadTask, match=message):
        toolset(tools)


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ("{", "no JSON"),
        ({"f": {}}, "must be a list"),
        ([1], "must be an object"),
        ([{"h": {}}], "none of the `tools`"),
        ([{"name": "h", "arguments": {}}], "none of the `tools`"),
        ([{"f": {}, "g": {}}], "BFCL"),
        ([{"f": 1}], "accepted values by parameter"),
        ([{"name": "f", "arguments": "{"}], "are no JSON"),
        ([{"name": "f", "arguments": [1]}], "must be an object"),
    ],
)
def test_expected_calls_that_cannot_be_used(calls: Any, message: str) -> None:
    with pytest.raises(BadTask, match=message):
        expected_calls(calls, TOOLS)


def test_the_forms_of_an_expected_call_are_the_same() -> None:
    for form in (
        [{"name": "f", "arguments": {"a": 2}}],
        [{"name": "f", "arguments": '{"a": 2}'}],
        [{"type": "function", "function": {"name": "f", "arguments": '{"a": 2}'}}],
        [{"f": {"a": [2]}}],
        '[{"f": {"a": [2]}}]',
    ):
        [expected] = expected_calls(form, TOOLS)
        assert expected.takes(ToolCall("f", {"a": 2}))
        assert expected.takes(ToolCall("f", {"a": 2, "b": 1}))
        assert not expected.takes(ToolCall("f", {"a": 2, "b": 2}))
        assert not expected.takes(ToolCall("f", {"b": 1}))
        assert expected.example() == ToolCall("f", {"a": 2})


ITEM = schema({"x": {"type": "integer"}, "y": {"type": "string", "default": "n"}, "z": {"type": "array"}}, ["x"])
DEEP = toolset(
    [
        {
            "name": "f",
            "parameters": schema({"o": ITEM, "l": {"type": "array", "items": ITEM}, "t": {"type": "string"}, "n": {}}),
        }
    ]
)


@pytest.mark.parametrize(
    ("accepted", "right", "wrong"),
    [
        ({"o": [{"x": [1, 2]}]}, [{"o": {"x": 2}}, {"o": {"x": 1, "y": "n"}}], [{"o": {"x": [1, 2]}}, {"o": {}}, {}]),
        (
            {"o": [{"x": [1], "y": ["a", ""]}]},
            [{"o": {"x": 1}}, {"o": {"x": 1, "y": "a"}}],
            [{"o": {"x": 1, "y": "b"}}],
        ),
        ({"o": [{"x": [1], "z": [3, 4]}]}, [{"o": {"x": 1, "z": [3, 4]}}], [{"o": {"x": 1, "z": 3}}]),
        ({"o": [{"x": [1], "z": [[3], [4]]}]}, [{"o": {"x": 1, "z": [4]}}], [{"o": {"x": 1, "z": [[3], [4]]}}]),
        ({"l": [[{"x": [1]}, {"x": [2, 3]}]]}, [{"l": [{"x": 1}, {"x": 3}]}], [{"l": [{"x": 3}, {"x": 1}]}, {"l": []}]),
        ({"t": ["a", ""]}, [{}, {"t": "a"}, {"t": ""}], [{"t": " "}, {"t": "A"}]),
        ({"t": [""]}, [{}, {"t": ""}], [{"t": "x"}]),
        ({"n": [None, ""]}, [{}, {"n": None}], [{"n": 0}, {"n": False}, {"n": ""}]),
        ({"n": [1]}, [{"n": 1}, {"n": 1.0}], [{"n": True}, {"n": "1"}, {"n": [1]}]),
        ({"n": [True]}, [{"n": True}], [{"n": 1}]),
        ({"n": [10**30]}, [{"n": 10**30}], [{"n": 10**30 + 1}]),
    ],
)
def test_accepted_values_of_bfcl(accepted: Any, right: list[Any], wrong: list[Any]) -> None:
    [expected] = expected_calls([{"f": accepted}], DEEP)
    for arguments in [*right, expected.example().arguments]:
        assert expected.takes(ToolCall("f", arguments)), arguments
    for arguments in wrong:
        assert not expected.takes(ToolCall("f", arguments)), arguments
        assert expected.wrong(ToolCall("f", arguments))


def test_defaults_are_filled_at_any_depth() -> None:
    inner = schema({"y": {"default": {"k": 1}, "properties": {"k": {}, "m": {"default": 2}}}})
    assert filled([{}, {"y": {"k": 0}}], {"items": inner}) == [{"y": {"k": 1, "m": 2}}, {"y": {"k": 0, "m": 2}}]
    assert filled({"y": 1}, True) == {"y": 1}
