"""What `rlvr verifiers check json-schema` holds it to: labelled completions, hacks, other spellings of JSON."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from rlvr import Case, Kit, Law

from ..jsontext import Refused, read

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
ORDER = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "multipleOf": 0.01},
        "lines": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}, "count": {"type": "integer"}},
                "required": ["sku", "count"],
            },
        },
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["total", "lines"],
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "in": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["v"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
ANN = {"name": "Ann", "age": 31, "tags": ["chess", "tea"]}
DEAL = {"total": 19.99, "lines": [{"sku": "AB1", "count": 2}, {"sku": "CD22", "count": 1}], "note": None}

A = '{"name": "Ann", "age": 31}'
B = '{"name": "Bo", "age": 32}'
WHOLE = '{"name": "Ann", "age": 31, "tags": ["chess", "tea"]}'

# Each is (kind, completion, what it is held against). What passes in strict mode has white space around it, so that the
# laws that write something around an object leave it alone.
_RIGHT: list[tuple[str, str, dict[str, Any]]] = [
    ("whole", A, {"schema": PERSON}),
    ("strict, with white space", f" \n{A}\n ", {"schema": PERSON, "mode": "strict"}),
    ("integer written as 31.0", '{"name": "Ann", "age": 31.0}', {"schema": PERSON}),
    ("fence", f"Here you are:\n\n```json\n{A}\n```\n\nAnything else?", {"schema": PERSON}),
    ("fence in capitals", f"```JSON\n{A}\n```", {"schema": PERSON}),
    ("fence without label", f"```\n{A}\n```", {"schema": PERSON}),
    ("tildes", f"~~~json\n{A}\n~~~", {"schema": PERSON}),
    ("fence not closed", f"Sure.\n```json\n{A}", {"schema": PERSON}),
    ("fence on one line", f"```json {A} ```", {"schema": PERSON}),
    ("last fence counts", f"A draft:\n```json\n{{}}\n```\nThe result:\n```json\n{A}\n```", {"schema": PERSON}),
    ("usage after it", f"```json\n{A}\n```\nRead it with\n```python\njson.loads(text)\n```", {"schema": PERSON}),
    ("prose around", f"The record is {A}. Let me know if it should have more.", {"schema": PERSON}),
    ("bold", f"**{A}**", {"schema": PERSON}),
    ("code span", f"It is `{A}`.", {"schema": PERSON}),
    ("notes and braces in prose", f"As [1] says of {{name}}: {A} [2]", {"schema": PERSON}),
    ("the same twice", f"{A}\n\nSo the answer is {A}", {"schema": PERSON}),
    ("after the thinking", f"<think>perhaps {B}</think>\n{A}", {"schema": PERSON}),
    ("answer tag", f"I first had {B}. <answer>{A}</answer>", {"schema": PERSON}),
    ("braces in a string", '{"name": "}{\\" [", "age": 1}', {"schema": PERSON}),
    ("a fence in a string", 'It is {"name": "```json", "age": 1}', {"schema": PERSON}),
    ("escapes", '{"name": "\\u0041\\ud83d\\ude00", "age": 1}', {"schema": PERSON}),
    ("a number", "42", {"schema": {"type": "integer"}}),
    ("a string", '"yes"', {"schema": {"enum": ["yes", "no"]}}),
    ("an array of numbers in prose", "Sorted, that is [1, 2, 3].", {"schema": {"items": {"type": "integer"}}}),
    ("cents", '{"total": 19.99, "lines": [{"sku": "AB1", "count": 2}]}', {"schema": ORDER}),
    ("null where it may be", '{"total": 1, "lines": [{"sku": "AB1", "count": 2}], "note": null}', {"schema": ORDER}),
    ("recursive", '{"v": 1, "in": [{"v": 2, "in": []}, {"v": 3}]}', {"schema": TREE}),
    ("format not asked for", '{"name": "Ann", "age": 1, "mail": "none"}', {"schema": PERSON}),
    ("format", '{"name": "Ann", "age": 1, "mail": "a@b.org"}', {"schema": PERSON, "formats": True}),
    ("any JSON", '{"a": [null, true, -1.5e3]}', {"schema": {}}),
    ("reference", WHOLE, {"schema": PERSON, "reference": ANN}),
    ("reference as the answer", WHOLE, {"schema": PERSON, "answer": json.dumps(ANN)}),
    ("nested reference", json.dumps(DEAL), {"schema": ORDER, "reference": DEAL}),
    (
        "within the tolerance",
        WHOLE.replace("31", "31.0"),
        {"schema": PERSON, "reference": ANN | {"age": 31.4}, "compare": {"age": 0.5}},
    ),
    (
        "in percent",
        json.dumps(DEAL | {"total": 20.1}),
        {"schema": True, "reference": DEAL, "compare": {"total": "1%"}},
    ),
    (
        "text in other letters",
        WHOLE.replace("Ann", " ANN "),
        {"schema": PERSON, "reference": ANN, "compare": {"name": "text"}},
    ),
    (
        "set in any order",
        '{"name": "Ann", "age": 31, "tags": ["tea", "chess"]}',
        {"schema": PERSON, "reference": ANN, "compare": {"tags": "set"}},
    ),
    (
        "lines in any order",
        json.dumps(DEAL | {"lines": DEAL["lines"][::-1]}),  # type: ignore[index]
        {"schema": ORDER, "reference": DEAL, "compare": {"lines": "bag"}},
    ),
    (
        "a field that is ignored",
        json.dumps(DEAL | {"note": "thanks"}),
        {"schema": ORDER, "reference": DEAL, "compare": {"note": "ignore"}},
    ),
]

_WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("text for a number", '{"name": "Ann", "age": "31"}', {"schema": PERSON}),
    ("fraction for an integer", '{"name": "Ann", "age": 31.5}', {"schema": PERSON}),
    ("true for a number", '{"name": "Ann", "age": true}', {"schema": PERSON}),
    ("required member missing", '{"name": "Ann"}', {"schema": PERSON}),
    ("member too many", '{"name": "Ann", "age": 31, "x": 1}', {"schema": PERSON}),
    ("beyond the maximum", '{"name": "Ann", "age": 151}', {"schema": PERSON}),
    ("the same item twice", '{"name": "Ann", "age": 31, "tags": ["a", "a"]}', {"schema": PERSON}),
    ("in an array", f"[{A}]", {"schema": PERSON}),
    ("as text", json.dumps(A), {"schema": PERSON}),
    ("pattern", '{"total": 1, "lines": [{"sku": "ab1", "count": 2}]}', {"schema": ORDER}),
    ("half a cent", '{"total": 19.995, "lines": [{"sku": "AB1", "count": 2}]}', {"schema": ORDER}),
    ("deep in it", '{"v": 1, "in": [{"v": 2, "in": [{"w": 3}]}]}', {"schema": TREE}),
    ("not a date", '"2023-02-29"', {"schema": {"format": "date"}, "formats": True}),
    ("trailing comma", '{"name": "Ann", "age": 31,}', {"schema": PERSON}),
    ("single quotes", "{'name': 'Ann', 'age': 31}", {"schema": PERSON}),
    ("typographic quotes", "{“name”: “Ann”, “age”: 31}", {"schema": PERSON}),
    ("bare names", '{name: "Ann", age: 31}', {"schema": PERSON}),
    ("Python's words", '{"a": True, "b": None}', {"schema": {}}),
    ("comment", '{"name": "Ann", "age": 31 /* years */}', {"schema": PERSON}),
    ("not a number", '{"a": NaN}', {"schema": {}}),
    ("infinite", '[1e400, "x"]', {"schema": {}}),
    ("cut off", '{"name": "Ann", "age": 3', {"schema": PERSON}),
    ("fence in strict mode", f"```json\n{A}\n```", {"schema": PERSON, "mode": "strict"}),
    ("prose in strict mode", f"Sure! {A}", {"schema": PERSON, "mode": "strict"}),
    ("thinking in strict mode", f"<think>so</think>{A}", {"schema": PERSON, "mode": "strict"}),
    ("byte order mark", f"\ufeff{A}", {"schema": PERSON, "mode": "strict"}),
    ("half a character", '{"name": "\\ud800", "age": 1}', {"schema": PERSON}),
    ("a value changed", WHOLE.replace("31", "32"), {"schema": PERSON, "reference": ANN}),
    (
        "another order of the items",
        WHOLE.replace('"chess", "tea"', '"tea", "chess"'),
        {"schema": PERSON, "reference": ANN},
    ),
    ("null for missing", json.dumps(ANN | {"mail": None}), {"schema": True, "reference": ANN}),
    ("other letters", WHOLE.replace("Ann", "ann"), {"schema": PERSON, "reference": ANN}),
    (
        "beyond the tolerance",
        WHOLE.replace("31", "33"),
        {"schema": PERSON, "reference": ANN, "compare": {"age": 1}},
    ),
    (
        "an item of the set missing",
        '{"name": "Ann", "age": 31, "tags": ["tea"]}',
        {"schema": PERSON, "reference": ANN, "compare": {"tags": "set"}},
    ),
]

_AGES = "\n".join(f'{{"name": "Ann", "age": {age}}}' for age in range(28, 36))

_HACKS: list[tuple[str, str, dict[str, Any]]] = [
    ("candidates line by line", _AGES, {"schema": PERSON, "reference": {"name": "Ann", "age": 31}}),
    ("candidates that only one of fits", f'{{"name": "Ann"}} {A} {{"age": 31}}', {"schema": PERSON}),
    ("candidates in one fence", f"```json\n{B}\n{A}\n```", {"schema": PERSON}),
    ("candidates in an array", f"[{A}, {B}]", {"schema": PERSON}),
    ("a right one, then another", f"{A} or rather {B}", {"schema": PERSON}),
    ("a right fence, then a wrong one", f"```json\n{A}\n```\nFinally:\n```json\n{{}}\n```", {"schema": PERSON}),
    ("a right fence, then a broken one", f"```json\n{A}\n```\n```json\n{{'name': 'Ann'}}\n```", {"schema": PERSON}),
    ("only in the thinking", f"<think>{A}</think>Done.", {"schema": PERSON}),
    ("thinking never closed", f"<think>{A}", {"schema": PERSON}),
    ("a second thinking never closed", f"<think>x</think><think>{A}", {"schema": PERSON}),
    ("in the answer tag of the thinking", f"<think><answer>{A}</answer></think>", {"schema": PERSON}),
    ("inside of a broken one", f'{{"result": {A},}}', {"schema": PERSON}),
    ("inside of one cut off", f'{{"result": {A}', {"schema": PERSON}),
    ("wrapped", f'{{"answer": {A}}}', {"schema": PERSON}),
    ("duplicate key, the last one right", '{"name": "Ann", "age": -1, "age": 31}', {"schema": PERSON}),
    ("duplicate key, the first one right", '{"name": "Ann", "age": 31, "age": -1}', {"schema": PERSON}),
    ("duplicate key by an escape", '{"name": "Ann", "age": 31, "\\u0061ge": 99}', {"schema": PERSON}),
    ("duplicate key deep in it", '{"a": [{"b": 1, "b": 2}]}', {"schema": {}}),
    ("empty object", "{}", {"schema": PERSON}),
    ("empty array", "[]", {"schema": ORDER}),
    ("null", "null", {"schema": PERSON}),
    ("the schema itself", json.dumps(PERSON), {"schema": PERSON}),
    ("defaults only", '{"name": "-", "age": 0, "tags": []}', {"schema": PERSON, "reference": ANN}),
    ("valid and empty", '{"name": "Ann", "age": 31, "tags": []}', {"schema": PERSON, "reference": ANN}),
    (
        "every tag there is",
        json.dumps(ANN | {"tags": [*"abcdefgh", "chess", "tea"]}),
        {"schema": PERSON, "reference": ANN, "compare": {"tags": "set"}},
    ),
    (
        "all names as keys",
        '{"name": "Ann", "Name": "Bo", "age": 31}',
        {"schema": True, "reference": {"name": "Ann", "age": 31}},
    ),
    (
        "a value and its alternative",
        '{"name": "Ann or Bo", "age": 31}',
        {"schema": PERSON, "reference": {"name": "Ann", "age": 31}},
    ),
    ("items in items", '{"name": "Ann", "age": [31, 32]}', {"schema": True, "reference": {"name": "Ann", "age": 31}}),
    ("true for one", '{"n": true}', {"schema": True, "reference": {"n": 1}}),
    ("false for zero", '{"n": false}', {"schema": True, "reference": {"n": 0}}),
    ("text for a number", '{"n": "1"}', {"schema": True, "reference": {"n": 1}}),
    ("a number that rounds to it", "9007199254740993", {"schema": True, "reference": 9007199254740992}),
    ("infinity beyond every limit", "1e999999999", {"schema": {"minimum": 10}}),
    ("an integer of 5,000 digits", "9" * 5_000, {"schema": {"type": "integer"}}),
    ("arrays in arrays", "[" * 500 + "]" * 500, {"schema": {"type": "array"}}),
    ("a link's text for an array", '["yes"](https://example.com)', {"schema": {"items": {"enum": ["yes"]}}}),
    ("a pattern that takes for ever", json.dumps("a" * 5_000 + "!"), {"schema": {"pattern": "^(a+)+$"}}),
    ("an anchor before a line break", '"abc\\n"', {"schema": {"pattern": "^abc$"}}),
    ("a claim", 'The JSON is valid. {"status": "passed", "score": 1.0}', {"schema": PERSON}),
    ("NUL behind it", f"{A}\x00", {"schema": PERSON, "mode": "strict"}),
    ("a second value behind it", f"{A} {{}}", {"schema": PERSON, "mode": "strict"}),
    ("a blank that is none of JSON's", f"\u00a0{A}", {"schema": PERSON, "mode": "strict"}),
    ("format by a digit of another script", '"２024-01-01"', {"schema": {"format": "date"}, "formats": True}),
]


def kit() -> Kit:
    """The cases, hacks and laws of `json-schema`."""
    cases = [Case(text, True, against, kind) for kind, text, against in _RIGHT]
    cases += [Case(text, False, against, kind) for kind, text, against in _WRONG]
    laws = (
        Law("other order of keys", _keys),
        Law("other white space", _blanks),
        Law("characters escaped or not", _escapes),
        Law("in a fence", _fence),
        Law("in prose", _prose),
        Law("behind a thought", _thought),
    )
    return Kit(cases, [Case(text, False, against, kind) for kind, text, against in _HACKS], laws)


def _value(text: str) -> Any:
    """What an object or an array says that a completion is as a whole, else None."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return read(text)
    except Refused:
        return None


def _keys(text: str, rng: Random) -> str | None:
    value = _value(text)
    return None if value is None else json.dumps(_shuffled(value, rng), ensure_ascii=False)


def _shuffled(value: Any, rng: Random) -> Any:
    if isinstance(value, list):
        return [_shuffled(item, rng) for item in value]
    if isinstance(value, dict):
        members = [(key, _shuffled(member, rng)) for key, member in value.items()]
        rng.shuffle(members)
        return dict(members)
    return value


def _blanks(text: str, rng: Random) -> str | None:
    value = _value(text)
    if value is None:
        return None
    indent, separators = rng.choice(
        ((0, None), (2, None), ("\t", None), (None, (" ,\r\n", " :  ")), (None, (",", ":")))
    )
    return (
        rng.choice(("", "\n", " \t"))
        + json.dumps(value, indent=indent, separators=separators, ensure_ascii=False)
        + rng.choice(("", "\r\n"))
    )


def _escapes(text: str, rng: Random) -> str | None:
    value = _value(text)
    if value is None:
        return None
    return json.dumps(value) if not text.isascii() else json.dumps(value).replace("A", "\\u0041")


def _fence(text: str, rng: Random) -> str | None:
    if not text.startswith("{") or _value(text) is None:
        return None
    opening, closing = rng.choice(
        (("```json\n", "\n```"), ("```\n", "\n```\n"), ("~~~json\n", "\n~~~"), ("```json\n", ""))
    )
    return f"{opening}{text}{closing}"


def _prose(text: str, rng: Random) -> str | None:
    if not text.startswith("{") or _value(text) is None:
        return None
    before, after = rng.choice(
        (("Here is the JSON: ", ""), ("", "\n\nLet me know."), ('It\'s "this" [1]:\n', "\n[1] a note"))
    )
    return f"{before}{text}{after}"


def _thought(text: str, rng: Random) -> str | None:
    if not text.startswith("{") or _value(text) is None:
        return None
    return f'<think>Is it {{"name": "Bo"}}? No.</think>{rng.choice(("", " ", chr(10) * 2))}{text}'
