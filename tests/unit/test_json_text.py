"""Reading JSON strictly and finding it in prose: rules by name, limits, and never slow."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.jsontext import LARGEST, LIMITS, Limits, Refused, find, read, same, shown
from rlvr_verifiers.ownturn import own_turn

REFUSED = [
    ("empty", ["", " \n"]),
    ("trailing-comma", ["[1, 2,]", '{"a": 1,}', '{"a": 1,\n\n}', "[[1,],2]"]),
    ("single-quotes", ["{'a': 1}", "['a']"]),
    ("smart-quotes", ["{“a”: 1}", "[„a“]"]),
    ("bare-name", ["{a: 1}", "[True]", "None", "undefined"]),
    ("comment", ['{"a": 1} // one', '{"a": /* one */ 1}', "# x\n1"]),
    ("two-values", ['{"a": 1} {"a": 2}', "1 2", '{"a": 1}}', "01"]),
    ("cut-off", ['{"a": [1', '"abc', "[", '{"a":']),
    ("control-character", ['{"a": 1}\0', '"a\nb"', '"\t"', "\x0b1"]),
    ("bom", ['\ufeff{"a": 1}']),
    ("surrogate", ['"\\ud800"', '"\ud800"', '"\\udc00\\ud800"', '{"\\ud83d": 1}', '"\\uD83Dx"']),
    ("duplicate-key", ['{"a": 1, "a": 1}', '[{"a": {"b": 1, "\\u0062": 2}}]', '{"": 1, "": 2}']),
    ("number", ["NaN", "-Infinity", "[Infinity]", "1e400", "-1e309", "1e-400", "1" * 310, "0." + "0" * 400 + "1"]),
    ("number", [f"[{' ' * 300}1e400]", str(LARGEST * 10), "1" + "0" * 300 + "e99"]),
    ("too-deep", ["[" * 129 + "]" * 129, "[" * 100_000, '{"a":' * 200 + "1" + "}" * 200]),
    ("too-long", [" " * LIMITS.characters + "1"]),
    ("too-many", ["[" + "1," * LIMITS.values + "1]"]),
    ("not-json", ["[1 2]", "Sure! {}", ".5", "+1", "[,]", '"\\x"', "\u00a01", "```json\n1\n```", '{"a" 1}', "-"]),
]


@pytest.mark.parametrize(
    ("rule", "text"), [pytest.param(rule, text, id=rule) for rule, texts in REFUSED for text in texts]
)
def test_what_is_refused(rule: str, text: str) -> None:
    start = time.process_time()
    with pytest.raises(Refused) as caught:
        read(text)
    assert caught.value.rule == rule
    assert len(str(caught.value)) < 200
    str(caught.value).encode()
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' \r\n\t{"a" : [1, -0.5e1, true, false, null]} ', {"a": [1, -5.0, True, False, None]}),
        ("9007199254740993", 9007199254740993),
        (str(LARGEST), LARGEST),
        ("1" * 308, int("1" * 308)),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("5e-324", 5e-324),
        ("0e-400", 0.0),
        ("-0", 0),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\u2028"', "\u2028"),
        ('"\\u0000"', "\0"),
        ("[" * 128 + "]" * 128, json.loads("[" * 128 + "]" * 128)),
        ("[" + "1," * 100_000 + "1]", [1] * 100_001),
    ],
    ids=lambda one: ascii(one)[:12],
)
def test_what_is_read(text: str, value: Any) -> None:
    assert same(read(text), value)


def test_limits_are_the_callers() -> None:
    small = Limits(characters=10, depth=1, values=2)
    assert read("[1, 2]", limits=small) == [1, 2]
    for text, rule in (("[[1]]", "too-deep"), ("[1, 2, 3]", "too-many"), ('"0123456789"', "too-long")):
        with pytest.raises(Refused) as caught:
            read(text, limits=small)
        assert caught.value.rule == rule


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
PLAIN = st.characters(exclude_categories=["Cs"])


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 3]))
def test_what_python_writes_is_read_back(value: Any, ascii_only: bool, indent: int | None) -> None:
    assert same(read(json.dumps(value, ensure_ascii=ascii_only, indent=indent)), value)


@given(VALUES, VALUES)
def test_equality_is_that_of_the_canonical_form(a: Any, b: Any) -> None:
    def canonical(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: canonical(member) for key, member in value.items()}
        if isinstance(value, list):
            return [canonical(item) for item in value]
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        return value

    assert same(a, b) == (json.dumps(canonical(a), sort_keys=True) == json.dumps(canonical(b), sort_keys=True))
    assert same(a, a)


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        (-0.0, 0, True),
        (1e23, 10**23, True),
        (9007199254740993, 9007199254740992.0, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        ({}, [], False),
        ("1", 1, False),
        (None, False, False),
        ({"a": None}, {}, False),
    ],
)
def test_equality(a: Any, b: Any, alike: bool) -> None:
    assert same(a, b) is alike
    assert same(b, a) is alike
    assert same([{"x": a}], [{"x": b}]) is alike


@given(st.text(PLAIN.filter(lambda c: c not in "{}[]\"'“”"), max_size=20), VALUES, st.text(st.sampled_from("ab 1.'\n")))
def test_an_object_is_found_in_prose(before: str, value: Any, after: str) -> None:
    text = json.dumps({"value": value})
    (span,) = find(before + text + after)
    assert (before + text + after)[span.start : span.stop] == text
    assert same(span.value, {"value": value})


@given(st.text(st.sampled_from('{}[]",:a1\\\n '), max_size=200))
def test_what_is_found_is_in_order_and_apart(text: str) -> None:
    end = 0
    for span in find(text):
        assert end <= span.start < span.stop <= len(text)
        end = span.stop
        if span.problem is None:
            assert same(span.value, json.loads(text[span.start : span.stop]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Here [1] is {x} and {"a": [1, 2]} ok', ["[1]", '{"a": [1, 2]}']),
        ('{"a": "}"} ]] {"b": "\\"}"}', ['{"a": "}"}', '{"b": "\\"}"}']),
        ('{"a": {"b": 1},} x', ["trailing-comma"]),
        ('if (x) { return [1] } else {"a": 1}', ["[1]", '{"a": 1}']),
        ('a stray { and {"a": 1}', ['{"a": 1}']),
        ('an interval [0, 1) and {"a": 1}', ['{"a": 1}']),
        ('{"a": 1', ["cut-off"]),
        ('[{"a": 1}, ...]', ["not-json"]),
    ],
)
def test_what_counts_as_json_in_prose(text: str, found: list[str]) -> None:
    assert [span.problem.rule if span.problem else text[span.start : span.stop] for span in find(text)] == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            unit * (900_000 // len(unit))
            for unit in ("{", "[", '"', '{"', '{"a":', "[1,", '[{"a":1}', "}", "]}", "\\", '\\"')
        ),
        '{ "' + '\\"' * 400_000,
        '{"a": "' + "x" * 900_000,
        ("[" + " " * 10) * 80_000,
        "{" + " " * 900_000,
        '{"a":1}\n' * 100_000,
        "[[]" * 300_000,
        '{"' + "{" * 40_000,
    ],
    ids=lambda one: ascii(one)[:12],
)
def test_hostile_text_is_searched_in_bounded_time(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(Refused):
        find(text)
    assert time.process_time() - start < 5  # 0.05 s on a quiet machine


def test_what_is_shown_is_short_and_can_be_encoded() -> None:
    assert shown("\ud800" + "x" * 100).encode()
    assert len(shown({"a": list(range(1000))})) == 60


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("b", "b"),
        ("<think>b", None),
        ("<think>a</think>b<think>c", None),
        ("<think>a</think><think>b</think>c", "c"),
        ("", ""),
    ],
)
def test_own_turn(text: str, own: str | None) -> None:
    assert own_turn(text) == own
