"""Comparison with a reference: the rules by path, the share of the fields, what is a wrong rule."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.json_schema import BadRules, Rules
from rlvr_verifiers.jsontext import same

ORDER = {
    "id": "A-1",
    "price": 100.0,
    "paid": False,
    "tags": ["red", "Blue"],
    "lines": [{"sku": "x", "n": 1, "note": "a"}, {"sku": "y", "n": 2, "note": "b"}],
}


def changed(value: Any, **members: Any) -> Any:
    return copy.deepcopy(value) | members


LINES: list[Any] = ORDER["lines"]  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("compare", "value", "equal"),
    [
        ({}, changed(ORDER, price=100), True),
        ({}, changed(ORDER, price=100.004), False),
        ({"price": 0.01}, changed(ORDER, price=100.01), True),
        ({"price": 0.01}, changed(ORDER, price=100.02), False),
        ({"price": "1%"}, changed(ORDER, price=99), True),
        ({"price": "1%"}, changed(ORDER, price=98.9), False),
        ({"price": 5}, changed(ORDER, price="100"), False),
        ({"paid": 5}, changed(ORDER, paid=0), False),
        ({}, changed(ORDER, id="a-1"), False),
        ({"id": "text"}, changed(ORDER, id=" ａ-1\n"), True),
        ({"id": "text"}, changed(ORDER, id="A1"), False),
        ({"$": "text"}, changed(ORDER, tags=["RED", "blue"]), True),
        ({"$": "text", "tags": "exact"}, changed(ORDER, tags=["RED", "blue"]), False),
        ({"tags": "set"}, changed(ORDER, tags=["Blue", "red", "red"]), True),
        ({"tags": "bag"}, changed(ORDER, tags=["Blue", "red", "red"]), False),
        ({"tags": "bag"}, changed(ORDER, tags=["Blue", "red"]), True),
        ({"tags": "set"}, changed(ORDER, tags=["blue", "red"]), False),
        ({"tags": "set", "tags[]": "text"}, changed(ORDER, tags=["blue", "RED"]), True),
        ({"tags": "set"}, changed(ORDER, tags=["Blue"]), False),
        ({"tags": "set"}, changed(ORDER, tags=["Blue", "red", "green"]), False),
        ({"lines": "bag"}, changed(ORDER, lines=LINES[::-1]), True),
        ({}, changed(ORDER, lines=LINES[::-1]), False),
        ({"lines[].note": "ignore"}, changed(ORDER, lines=[LINES[0] | {"note": "z"}, {"sku": "y", "n": 2}]), True),
        ({"lines[].note": "ignore"}, changed(ORDER, lines=[LINES[0], LINES[1] | {"n": 3}]), False),
        (
            {"lines": "set", "lines[].n": 0.5},
            changed(ORDER, lines=[LINES[1] | {"n": 2.4}, LINES[0] | {"n": 0.6}]),
            True,
        ),
        ({"lines": "bag", "lines[].note": "ignore"}, changed(ORDER, lines=[LINES[1] | {"note": 1}, LINES[0]]), True),
        ({"more": "ignore"}, changed(ORDER, more=1), True),
        ({}, changed(ORDER, more=1), False),
        ({"paid": "ignore"}, {key: member for key, member in ORDER.items() if key != "paid"}, True),
        ({"lines": "ignore"}, changed(ORDER, lines=None), True),
        ({"$": "ignore"}, None, True),
    ],
)
def test_rules(compare: dict[str, Any], value: Any, equal: bool) -> None:
    outcome = Rules(compare).compare(ORDER, value)
    assert outcome.equal is equal, outcome
    assert bool(outcome.difference) is not equal
    assert (outcome.share == 1.0) is equal
    assert 0 <= outcome.share <= 1


def test_items_are_matched_as_well_as_can_be() -> None:
    near = Rules({"$": "bag", "[]": 1})
    assert near.compare([1, 2, 3], [4, 3, 2]).equal
    assert near.compare([1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]).equal
    assert near.compare([0, 1, 5], [1, 1, 1]).share == pytest.approx(1.2 / 3.2)
    many = list(range(5_000))
    start = time.process_time()
    assert not near.compare(many, [*many[::-1][:-1], 9_999]).equal
    assert Rules({"$": "set"}).compare(many, many[::-1] * 2).equal
    assert time.process_time() - start < 5


def test_tolerance_holds_for_all_numbers() -> None:
    rules = Rules({"b": "exact", "c": 2}, tolerance=0.5)
    assert rules.compare({"a": 1, "b": 1, "c": 1}, {"a": 1.5, "b": 1, "c": 3}).equal
    assert not rules.compare({"a": 1, "b": 1, "c": 1}, {"a": 1.5, "b": 1.5, "c": 1}).equal
    assert not rules.compare({"a": 1}, {"a": 1.6}).equal


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ({}, 0, 0),
        ([], 0, 0),
        (None, 0, 0),
        ({"id": "", "price": 0, "paid": False, "tags": [], "lines": []}, 0, 0.05),
        ({"id": "A-1"}, 0.05, 0.2),
        (changed(ORDER, price=1), 0.85, 0.95),
        (changed(ORDER, **{f"more{i}": i for i in range(50)}), 0, 0.2),
        (changed(ORDER, tags=["red", "Blue"] + ["x"] * 50), 0, 0.2),
    ],
)
def test_little_is_earned_by_little(value: Any, low: float, high: float) -> None:
    assert low <= Rules().compare(ORDER, value).share <= high


@pytest.mark.parametrize(
    ("reference", "value", "said"),
    [
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "`$.a[0].b` is 2, not 1"),
        ({"a": 1, "b": 2}, {"a": 1}, "`$.b` is missing"),
        ({"a": 1}, {"a": 1, "c d": 2}, '`$["c d"]` is not in the reference'),
        ([1, 2], [1], "`$` has 1 items, not 2"),
        ("x", ["x"], '`$` is ["x"], not "x"'),
    ],
)
def test_the_first_difference_is_told(reference: Any, value: Any, said: str) -> None:
    assert Rules().compare(reference, value).difference == said


@pytest.mark.parametrize(
    "compare",
    [
        {"a": "sets"},
        {"a": -1},
        {"a": True},
        {"a": None},
        {"a": "x%"},
        {"a": [1]},
        {"a..b": "set"},
        {"a[0]": "set"},
        [1],
        "x",
    ],
)
def test_a_wrong_rule_is_the_tasks_fault(compare: Any) -> None:
    with pytest.raises(BadRules):
        Rules(compare)


@pytest.mark.parametrize("tolerance", [-1, float("inf"), float("nan"), True, "1"])
def test_a_wrong_tolerance_is_the_tasks_fault(tolerance: Any) -> None:
    with pytest.raises(BadRules):
        Rules({}, tolerance)


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([0.5, 2.0, "", "a", "A ", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
RULES = st.dictionaries(
    st.sampled_from(["$", "a", "b", "a.b", "[]", "a[]", "[].a"]),
    st.sampled_from(["exact", "text", "set", "bag", "ignore", 1, "50%"]),
    max_size=3,
)


@given(RULES, VALUES, VALUES)
def test_everything_equals_itself_and_equality_is_a_full_share(compare: dict[str, Any], a: Any, b: Any) -> None:
    rules = Rules(compare)
    assert rules.compare(a, a).equal
    outcome = rules.compare(a, b)
    assert outcome.equal is (outcome.share == 1.0)
    if not compare:
        assert outcome.equal is same(a, b)
    if set(map(str, compare.values())) <= {"exact", "text", "set", "bag", "1"}:
        assert rules.compare(b, a).equal is outcome.equal


@given(VALUES, VALUES, st.data())
def test_repairing_a_leaf_never_lowers_the_share(reference: Any, value: Any, data: st.DataObject) -> None:
    """One member or item at a time becomes what the reference has there, from the top down."""
    share = Rules().compare(reference, value).share
    for _ in range(40):
        value = repaired(reference, value, data)
        after = Rules().compare(reference, value).share
        assert after >= share - 1e-12
        share = after
        if share == 1.0:
            break
    assert same(reference, value) is (share == 1.0)


def repaired(reference: Any, value: Any, data: st.DataObject) -> Any:
    if isinstance(reference, dict) and isinstance(value, dict) and (reference or not value):
        value = dict(value)
        if extra := sorted(value.keys() - reference.keys()):
            del value[extra[0]]
        elif wrong := [key for key in reference if key not in value or not same(reference[key], value[key])]:
            key = data.draw(st.sampled_from(wrong))
            value[key] = repaired(reference[key], value[key], data) if key in value else reference[key]
        return value
    if isinstance(reference, list) and isinstance(value, list) and (reference or not value):
        if len(value) > len(reference):
            return value[:-1]
        wrong_at = [i for i, (a, b) in enumerate(zip(reference, value, strict=False)) if not same(a, b)]
        if wrong_at:
            i = data.draw(st.sampled_from(wrong_at))
            return [*value[:i], repaired(reference[i], value[i], data), *value[i + 1 :]]
        return [*value, reference[len(value)]] if len(value) < len(reference) else value
    return json.loads(json.dumps(reference))


@pytest.mark.parametrize("marks", ["\u0301", "\u0316\u0301", "\u0301\u0316", "\ufdfa", "\u337f"])
def test_text_with_heaps_of_marks_is_compared_in_linear_time(marks: str) -> None:
    rules = Rules({"$": "text"})
    hostile = "a" + marks * (300_000 // len(marks))
    start = time.process_time()
    assert not rules.compare("a", hostile).equal
    assert not rules.compare({"a": ["b"]}, {"a": [hostile]}).equal
    assert not Rules({"a": "set", "a[]": "text"}).compare({"a": ["b"]}, {"a": [hostile, "b"]}).equal
    assert time.process_time() - start < 15
    assert rules.compare("Ä" * 2000, " " + "a\u0308" * 2000 + "\n").equal
    assert rules.compare("x y", "X" + " \u3000" * 50_000 + "Y").equal


def test_matching_large_items_within_a_tolerance_ends() -> None:
    rules = Rules({"t": "bag", "t[][]": 0.1})
    start = time.process_time()
    assert not rules.compare({"t": [[2.0] * 100] * 100}, {"t": [[1.5] * 1900] * 99}).equal
    near = [[0.0] * 99 + [float(i)] for i in range(60)]
    rules.compare({"t": near}, {"t": [[*row[:-1], row[-1] + 0.05] for row in near[::-1]]})
    assert time.process_time() - start < 15


def test_many_objects_match_within_a_tolerance() -> None:
    rows: list[dict[str, Any]] = [{"id": i, "name": f"n{i}", "price": 1.5 * i, "tags": ["x", i]} for i in range(90)]
    other = [{**row, "price": row["price"] + 0.005, "tags": row["tags"][::-1]} for row in rows]
    rules = Rules({"$": "bag", "[].price": 0.01, "[].tags": "set"})
    assert rules.compare(rows, other[::-1]).equal
    other[4]["price"] += 1
    assert not rules.compare(rows, other[::-1]).equal
