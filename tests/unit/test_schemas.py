"""Compiled schemas: what is valid, what is wrong with the rest, bad schemas, references, formats, time."""

from __future__ import annotations

import copy
import json
import socket
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlvr_verifiers import schemas
from rlvr_verifiers.schemas import BadSchema, Checker, checker

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 2}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def told(schema: Any, value: Any, **options: Any) -> list[str]:
    return [f"{path} {message}" for path, message in checker(schema, **options).problems(value)]


@pytest.mark.parametrize(
    ("schema", "value", "problems"),
    [
        (PERSON, {"name": "Ann", "age": 3.0}, []),
        (PERSON, {"name": "Ann", "age": "3"}, ['$.age is "3", not an integer']),
        (PERSON, {"name": "A"}, ["$.age is missing", '$.name is "A", shorter than 2 characters']),
        (PERSON, {"name": "Ann", "age": -1, "x y": 0}, ["$.age is -1, less than 0", '$["x y"] is not allowed']),
        (PERSON, [], ["$ is [], not an object"]),
        ({"items": PERSON}, [{"name": "Ann", "age": 1}, {}], ["$[1].name is missing", "$[1].age is missing"]),
        ({"type": ["integer", "null"]}, "x", ['$ is "x", not an integer or null']),
        ({"enum": [1, "a", None]}, 2, ['$ is 2, none of 1, "a", null']),
        ({"const": {"a": 1}}, {"a": True}, ['$ is {"a": true}, not {"a": 1}']),
        ({"multipleOf": 0.01}, 19.995, ["$ is 19.995, no multiple of 0.01"]),
        ({"uniqueItems": True}, [1, 1.0], ["$ holds the same item twice"]),
        ({"maxItems": 1, "minProperties": 1}, [1, 2], ["$ has 2 items, more than 1"]),
        ({"not": {"type": "null"}}, None, ["$ is null, which `not` excludes"]),
        ({"anyOf": [PERSON, {"type": "null"}]}, {"name": "Ann", "age": "x"}, ['$.age is "x", not an integer']),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, 1, ["$ is 1, which no schema of `anyOf` allows"]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, 1, ["$ is 1, which 2 schemas of `oneOf` allow"]),
        ({"if": {"minimum": 1}, "then": {"multipleOf": 2}, "else": False}, 3, ["$ is 3, no multiple of 2"]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, ['$.b is missing, which "a" needs']),
        ({"propertyNames": {"pattern": "^a"}}, {"b": 1}, ["$.b has a name that is not allowed"]),
        ({"patternProperties": {"^n": {"type": "number"}}}, {"n1": "x"}, ['$.n1 is "x", not a number']),
        ({"contains": {"type": "null"}}, [1], ["$ holds 0 items of the kind that `contains` asks 1 of"]),
        ({"prefixItems": [{"type": "null"}], "items": False}, [1, 2], ["$[0] is 1, not null", "$[1] is not allowed"]),
        ({"unevaluatedProperties": False}, {"a": 1}, ["$ holds what no part of the schema speaks of"]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, 1, ["$ is 1, not null"]),
        (False, 1, ["$ is not allowed"]),
        (True, 1, []),
    ],
)
def test_what_is_wrong_is_told(schema: Any, value: Any, problems: list[str]) -> None:
    assert told(schema, value) == problems
    assert checker(schema).valid(value) is (not problems)


def test_limits_of_older_drafts() -> None:
    four = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    assert told(four, 3) == ["$ is 3, less than 3", "$ is 3, not more than true"] or not checker(four).valid(3)
    assert checker(four).valid(4)
    seven = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "items": [{"type": "null"}],
        "additionalItems": False,
    }
    assert told(seven, [1, 2]) == ["$[0] is 1, not null", "$[1] is not allowed"]
    assert checker(seven | {"prefixItems": [False]}).valid([None])


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "`$.type`"),
        ({"type": "object", "properties": {"a": {"minimum": "3"}}}, "`$.properties.a.minimum`"),
        ({"pattern": "("}, "regex"),
        ([1], "object or true or false"),
        ("integer", "object or true or false"),
        (None, "object or true or false"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "#"}, "`#`"),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
            "leads back to itself",
        ),
        ({"allOf": [{"anyOf": [{"type": "null"}, {"$ref": "#"}]}]}, "leads back to itself"),
        ({"properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, "leads back to itself"),
        ({"$schema": "http://example.com/own"}, "example.com/own"),
        ({"required": "a"}, "`$.required`"),
    ],
)
def test_a_bad_schema_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(BadSchema) as caught:
        checker(schema)
    assert words in str(caught.value)


def test_a_schema_that_refers_to_itself_below_is_fine() -> None:
    tree = {"properties": {"in": {"items": {"$ref": "#"}}, "v": {"type": "integer"}}, "additionalProperties": False}
    value: dict[str, Any] = {"v": "x"}
    for _ in range(60):
        value = {"in": [value]}
    assert told(tree, value) == ["$" + ".in[0]" * 60 + '.v is "x", not an integer']


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9/x.json", "https://example.com/x", "file:///etc/hostname", "x.json", "urn:a:b"]
)
def test_nothing_is_ever_fetched(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    start = time.monotonic()
    with pytest.raises(BadSchema, match=r"registry|base"):
        checker({"properties": {"a": {"$ref": uri}}})
    assert time.monotonic() - start < 5


def test_a_registry_is_used() -> None:
    registry = {
        "http://example.com/a": {"$ref": "b#/$defs/n"},
        "http://example.com/b": {"$defs": {"n": {"minimum": 3}}},
    }
    schema = {"properties": {"x": {"$ref": "http://example.com/a"}}}
    assert told(schema, {"x": 2}, registry=registry) == ["$.x is 2, less than 3"]
    assert checker(schema, registry=registry).valid({"x": 3})
    other = {**registry, "http://example.com/b": {"$defs": {"n": {"minimum": 4}}}}
    assert not checker(schema, registry=other).valid({"x": 3})
    with pytest.raises(BadSchema):
        checker(schema, registry={"http://example.com/a": {"$ref": "c"}})


def test_a_schema_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_cache", {})
    made = [checker(copy.deepcopy(PERSON)) for _ in range(3)]
    assert made[0] is made[1] is made[2]
    assert checker(PERSON, formats=True) is not made[0]
    assert checker({"const": 1}) is not checker({"const": True})
    assert checker({"const": 1}) is not checker({"const": 1.0})
    for i in range(schemas.KEPT + 10):
        checker({"const": i})
    assert len(schemas._cache) == schemas.KEPT


FORMATS = {
    "date": ("2024-02-29 1999-12-31", "2023-02-29 2024-13-01 2024-1-1 ２024-01-01 2024-02-29T00:00:00Z"),
    "time": ("12:00:00Z 23:59:60Z 12:00:00.123+05:30", "12:00:00 24:00:00Z 12:60:00Z 12:00Z 22:59:60Z"),
    "date-time": ("2024-01-01T00:00:00Z 1998-12-31T23:59:60Z", "2024-01-01 2024-02-30T00:00:00Z 2024-01-01T25:00:00Z"),
    "duration": ("P1D PT1H P2W P1Y2M3DT4H5M6S", "P 1D PT P1D2H P1W2D p1d"),
    "uuid": (
        "2eb8aa08-aa98-11ea-b4aa-73b441d16380",
        "2eb8aa08-aa98-11ea-b4aa-73b441d1638 2eb8aa08aa9811eab4aa73b441d16380",
    ),
    "email": ("a@b.org te~st@example.com a@localhost", "a @b a@ a@b@c .a@b.org a..b@c.org 2962"),
    "ipv4": ("127.0.0.1 0.0.0.0", "256.0.0.1 1.2.3 01.2.3.4 0x7f.0.0.1 1.2.3.4/24"),
    "ipv6": ("::1 2001:db8::ff00:42:8329 ::ffff:192.168.0.1", "12345:: 1::2::3 ::1/64 [::1] ::1%eth0"),
    "hostname": ("example.com localhost xn--nxasmq6b.com", "-a.com a-.com a..b a_b.com"),
    "uri": ("http://a.b/c?d#e urn:isbn:123 mailto:a@b.c", "/a/b http://a|b http://a.b/%zz :// http://[::1"),
    "uri-reference": ("/a/b #frag http://x", "\\\\x http://a.b/%zz"),
    "json-pointer": ("/a/b /a~0b /a~1 /", "a /~ /~2 #/a"),
    "relative-json-pointer": ("0 1/a 0#", "/a -1 01"),
    "regex": ("a+ ^[a-z]*$ (?=a)", "( [a *a"),
    "uri-template": ("http://x/{a} {?a,b}", "http://x/{a {a}}"),
}
DRAFTS = [f"http://json-schema.org/draft-0{n}/schema#" for n in (4, 6, 7)]
DRAFTS += [f"https://json-schema.org/draft/{year}/schema" for year in ("2019-09", "2020-12")]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_asserted_when_asked_for(name: str) -> None:
    right, wrong = FORMATS[name]
    for value in right.split():
        assert checker({"format": name}, formats=True).valid(value), value
    for value in wrong.split():
        assert not checker({"format": name}, formats=True).valid(value), value
        assert checker({"format": name}).valid(value)
    assert checker({"format": name}, formats=True).valid(3)


@pytest.mark.parametrize("draft", DRAFTS)
def test_formats_hold_in_every_draft(draft: str) -> None:
    for name in ("date-time", "email", "uuid", "duration", "ipv4"):
        assert not checker({"$schema": draft, "format": name}, formats=True).valid("nonsense"), name
        assert checker({"$schema": draft, "format": name}).valid("nonsense")
    assert checker({"$schema": draft, "format": "colour"}, formats=True).valid("nonsense")


def add(op: str) -> dict[str, Any]:
    inner = {"$ref": "#/$defs/e"}
    return {"type": "object", "properties": {"op": {"const": op}, "l": inner, "r": inner}, "required": ["op", "l", "r"]}


def deep(levels: int) -> Any:
    value: Any = "bad"
    for _ in range(levels):
        value = {"op": "+", "l": value, "r": 1}
    return value


SLOW: list[tuple[Any, Any]] = [
    ({"pattern": "^(a+)+$"}, "a" * 50_000 + "!"),
    ({"pattern": "(x+x+)+\\1y"}, "x" * 500),
    ({"items": {"pattern": "(?=x)(x+x+)+y"}}, ["x" * 300] * 50),
    (
        {"patternProperties": {"(x+x+)+\\1y": False}, "additionalProperties": False},
        {"x" * 300 + str(i): 1 for i in range(9)},
    ),
    ({"uniqueItems": True}, [i if i % 2 else str(i) for i in range(30_000)] + [1]),
    ({"uniqueItems": True}, [{"a": [i]} for i in range(30_000)] + [{"a": [7.0]}]),
    ({"items": {"type": "string"}}, list(range(100_000))),
    ({"additionalProperties": False}, {str(i): i for i in range(100_000)}),
    ({"$defs": {"e": {"anyOf": [{"type": "number"}, add("+"), add("*")]}}, "$ref": "#/$defs/e"}, deep(60)),
    ({"$defs": {"e": {"oneOf": [{"type": "number"}, add("+"), add("+")]}}, "$ref": "#/$defs/e"}, deep(60)),
    ({"items": {"anyOf": [{"const": i} for i in range(400)]}}, [-1] * 2_000),
    ({"multipleOf": 3e-300}, 10**308 + 1),
    ({"multipleOf": 3}, 10**308),
    ({"items": {"$ref": "#"}, "maxItems": 0}, [[[[]]]] * 50_000),
    ({"contains": {"type": "string"}, "minContains": 2}, list(range(100_000))),
]


@pytest.mark.parametrize(("schema", "value"), SLOW, ids=lambda one: json.dumps(one)[:24])
def test_hostile_values_take_bounded_time(schema: Any, value: Any) -> None:
    compiled = Checker(schema)
    compiled.report(None)
    start = time.process_time()
    report = compiled.report(value)
    assert time.process_time() - start < 5  # 0.15 s on a quiet machine
    assert report.failed
    assert 0 <= report.share < 1


# ------------------------------------------------------------------------------------------------ made by hypothesis

KEYS = st.sampled_from(["a", "b", "c", "d"])
LEAF = st.none() | st.booleans() | st.integers(-3, 6) | st.sampled_from([0.5, 2.0, "", "a", "ab", "abc"])
VALUES = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=10
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])


def part(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return part(
        type=TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        properties=st.dictionaries(KEYS, inner, max_size=3),
        required=st.lists(KEYS, max_size=3, unique=True),
        additionalProperties=st.booleans() | inner,
        patternProperties=st.dictionaries(st.sampled_from(["^a", "[bc]"]), inner, max_size=2),
        propertyNames=st.just({"maxLength": 1}) | st.just({"pattern": "[abc]"}),
        dependentRequired=st.dictionaries(KEYS, st.lists(KEYS, max_size=2, unique=True), max_size=2),
        items=inner,
        prefixItems=several,
        contains=inner,
        minItems=st.integers(0, 2),
        maxProperties=st.integers(0, 3),
        uniqueItems=st.booleans(),
    ) | st.one_of(
        part(allOf=several, type=TYPES),
        part(anyOf=several),
        part(oneOf=several),
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
    )


SCHEMAS = st.recursive(
    st.booleans()
    | part(type=TYPES)
    | part(minimum=st.integers(-2, 3), multipleOf=st.sampled_from([1, 2, 0.5]))
    | part(minLength=st.integers(0, 2), maxLength=st.integers(1, 3), pattern=st.sampled_from(["^a", "b$", "a|b"]))
    | part(enum=st.lists(LEAF, min_size=1, max_size=3), const=LEAF),
    holding,
    max_leaves=8,
)


@settings(max_examples=300)
@given(SCHEMAS, VALUES)
def test_all_agree_on_what_is_valid(schema: Any, value: Any) -> None:
    """`jsonschema_rs`, `jsonschema` and the walk that looks for problems."""
    compiled = Checker(schema)
    said = compiled.valid(value)
    assert jsonschema.Draft202012Validator(schema).is_valid(value) is said
    report = compiled._walker.report(value)
    assert (report.problems[0].message == "breaks the schema") is said
    assert bool(compiled.problems(value)) is not said


def repaired(value: Any) -> st.SearchStrategy[Any]:
    """Values that differ from a value in one place: another value there, or nothing."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(place for key, member in inner for place in places(member, (*path, key)))]

    def changed(value: Any, path: tuple[Any, ...], new: Any, how: str) -> Any:
        if not path:
            if how == "add" and isinstance(value, dict):
                return {**value, "a": new}
            return [*value, new] if how == "add" and isinstance(value, list) else new
        made = copy.copy(value)
        if len(path) == 1 and how == "drop":
            del made[path[0]]
        else:
            made[path[0]] = changed(made[path[0]], path[1:], new, how)
        return made

    how = st.sampled_from(["set", "add", "drop"])
    return st.builds(lambda path, new, how: changed(value, path, new, how), st.sampled_from(places(value)), VALUES, how)


def violations(schema: Any, value: Any) -> set[str]:
    """Everything that is wrong, branches of `anyOf` included: place in the value, place in the schema."""
    found: set[str] = set()

    def collect(errors: Any) -> None:
        for error in errors:
            keyword, where, rule = error.validator, list(error.absolute_path), list(error.absolute_schema_path)
            more = error.message if keyword in ("required", "dependentRequired", "additionalProperties") else ""
            found.add(f"{where} {rule} {more}")
            collect(error.context or ())

    collect(jsonschema.Draft202012Validator(schema).iter_errors(value))
    return found


@settings(max_examples=150)
@given(
    SCHEMAS, VALUES.flatmap(lambda value: st.tuples(st.just(value), st.lists(repaired(value), min_size=8, max_size=8)))
)
def test_repairing_one_thing_never_lowers_the_share(schema: Any, values: tuple[Any, list[Any]]) -> None:
    before, others = values
    compiled = Checker(schema)
    worse, wrong = compiled.report(before), violations(schema, before)
    for after in others:
        better = compiled.report(after)
        assert (better.share == 1.0) is compiled.valid(after)
        assert better.share == 1.0 or 0.0 <= better.share <= 0.95
        if violations(schema, after) < wrong:
            assert better.share >= worse.share - 1e-12


def test_the_share_is_by_required_members() -> None:
    share = checker(PERSON).report
    steps = [[], {}, {"name": 1}, {"name": "Ann"}, {"name": "Ann", "age": "x"}, {"name": "Ann", "age": -1}]
    shares = [share(step).share for step in [*steps, {"name": "Ann", "age": 1}]]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[1] < 0.25
    assert shares[3] < shares[5] < shares[6] == 1.0
    assert share({"name": "Ann", "age": 1, "x": 1}).share > share({"name": "Ann", "age": 1, "x": 1, "y": 2}).share
