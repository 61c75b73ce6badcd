"""What crosses between a solution and those who judge it: round trips, hostile lines, shared containers, bounds."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import fractions
import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rlvr_sandboxes.inside import codec

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


def there_and_back(value: Any) -> Any:
    line = codec.dumps(value)
    assert line.isascii()
    assert "\n" not in line
    return codec.loads(line)


def same(a: Any, b: Any) -> bool:
    """Whether two values are of the same classes, and the same to the last bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b) if a == a else b != b
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple, collections.deque)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) and same(a[x], b[y]) for x, y in zip(list(a), list(b), strict=True))
    if isinstance(a, decimal.Decimal):
        return a.as_tuple() == b.as_tuple()
    return bool(a == b)


# ------------------------------------------------------------------------------------------------ round trips

PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1 << 53,
    -(1 << 53),
    (1 << 53) + 1,
    -(1 << 4000),
    10**5000,
    1.5,
    -0.0,
    1e308,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "a\n\u2028\x00\x1b\U0001f600",
    "\udc80\ud800",
    b"",
    bytes(range(256)),
    bytearray(b"\x00\xff"),
    1 + 2j,
    complex(float("nan"), -0.0),
    range(3, -10, -2),
    range(10**30),
    slice(None, 3, (1, 2)),
    [],
    [[], [[]], ()],
    (),
    (1,),
    ((), [()]),
    {},
    {"o": 1, "=": 2, "i": 3},
    {1: "a", "1": "b", (1, 2): None, None: [], 1.5: {}, b"x": (), frozenset({1}): 0},
    set(),
    {1, "a", None, (1, 2)},
    frozenset({frozenset(), 1}),
    collections.OrderedDict([("b", 1), ("a", [2])]),
    collections.Counter("abca"),
    collections.Counter({"a": -1, "b": 0}),
    collections.deque([1, [2]]),
    collections.deque([1, 2], maxlen=2),
    decimal.Decimal("1.50"),
    decimal.Decimal("-0"),
    decimal.Decimal("NaN"),
    decimal.Decimal("-Infinity"),
    decimal.Decimal("1E+9999"),
    fractions.Fraction(-3, 7),
    fractions.Fraction(10**40, 10**39 + 1),
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 12, 30, 1, 5),
    datetime.datetime(2024, 2, 29, tzinfo=UTC),
    datetime.datetime(1, 1, 1, tzinfo=EAST),
    datetime.time(1, 2, 3, 4),
    datetime.time(1, tzinfo=EAST),
    datetime.timedelta(days=-1, seconds=5, microseconds=7),
    UTC,
    EAST,
]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_data_arrives_as_it_was(value: Any) -> None:
    assert same(there_and_back(value), value)
    assert same(there_and_back([value, (value,)]), [value, (value,)])


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.decimals()
    | st.fractions()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(EAST))
    | st.timedeltas()
)
keys = st.none() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
values = st.recursive(
    atoms,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3).map(collections.OrderedDict)
        | st.lists(inner, max_size=4).map(collections.deque)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_whatever_is_plain_arrives_as_it_was(value: Any) -> None:
    assert same(there_and_back(value), value)


@given(values)
def test_two_processes_that_share_objects_see_the_same(value: Any) -> None:
    got = codec.loads(codec.dumps(value, codec.Own(refused)), codec.Own(refused))
    assert same(got, value)


def refused(value: Any) -> Any:
    raise AssertionError(f"not plain: {value!r}")


def test_views_and_default_dicts() -> None:
    held = {"b": 1, "a": [2]}
    assert list(there_and_back(held.keys())) == ["b", "a"]
    assert there_and_back(held.keys()) == {"a", "b"}
    assert list(there_and_back(held.values())) == [1, [2]]
    assert list(there_and_back(held.items())) == [("b", 1), ("a", [2])]
    assert same(there_and_back(collections.defaultdict(list, {1: [2]})), {1: [2]})


# -------------------------------------------------------------------------------- the sender's classes stay there


class Liar:
    """Equal to everything, and of every class."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    __class__: Any = property(lambda self: int)

    def __repr__(self) -> str:
        raise AssertionError("asked")


class Sly(list[int]):
    """A list that shows one thing and holds another."""

    def __iter__(self) -> Any:
        return iter([7])

    def __len__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


class SlyText(str):
    def __str__(self) -> str:
        return "shown"

    def __getitem__(self, key: Any) -> str:
        return "cut"


class SlyInt(int):
    def __index__(self) -> int:
        return 7

    def __int__(self) -> int:
        return 7

    def __le__(self, other: object) -> bool:
        return True


class SlyFloat(float):
    def __float__(self) -> float:
        return 7.0

    def __sub__(self, other: object) -> Any:
        return 0


class SlyDict(dict[str, int]):
    def items(self) -> Any:
        return [("shown", 7)]

    def __iter__(self) -> Any:
        return iter(["shown"])


class SlyTuple(tuple[int, ...]):
    def __iter__(self) -> Any:
        return iter([7])


class SlyBytes(bytes):
    def hex(self, *_: Any) -> str:
        return "07"


class SlySet(set[int]):
    def __iter__(self) -> Any:
        return iter([7])


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (Sly([1, 2]), [1, 2]),
        (SlyText("held"), "held"),
        (SlyInt(1), 1),
        (SlyInt(1 << 60), 1 << 60),
        (SlyFloat(1.5), 1.5),
        (SlyDict(a=1), {"a": 1}),
        (SlyTuple((1, 2)), (1, 2)),
        (SlyBytes(b"\x01"), b"\x01"),
        (SlySet({1}), {1}),
        (Pair(1, 2), (1, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_crosses_as_what_its_base_holds(value: Any, held: Any) -> None:
    assert same(there_and_back(value), held)
    assert same(there_and_back([value])[0], held)


def test_what_is_not_plain_goes_through_foreign() -> None:
    assert codec.dumps([Liar()]) == '[{"o":"Liar"}]'
    assert codec.dumps({1, "a"}.__iter__) == '{"o":"method-wrapper"}'
    assert codec.dumps(Liar, lambda value: ["class", value.__name__]) == '{"o":["class","Liar"]}'
    assert codec.loads('[{"o":["x"]}]', lambda packed: packed) == [["x"]]
    with pytest.raises(codec.Unfit, match="not plain data"):
        codec.loads('{"o":"Liar"}')
    zone: Any = type("Zone", (datetime.tzinfo,), {"utcoffset": lambda *_: None})()
    assert codec.dumps(datetime.datetime(2024, 1, 1, tzinfo=zone)) == '{"o":"datetime"}'


# ----------------------------------------------------------------------------------------- shared and cyclic


def own(value: Any) -> Any:
    """The value on the other side of two processes that share objects."""
    return codec.loads(codec.dumps(value, codec.Own(lambda value: type(value).__name__)), codec.Own(str))


def test_a_container_that_occurs_twice_arrives_as_one() -> None:
    x, d, s = [1], {"k": [2]}, {3}
    got = own([x, d, s, x, (d, {"s": s}), [x]])
    assert got == [[1], {"k": [2]}, {3}, [1], ({"k": [2]}, {"s": {3}}), [[1]]]
    assert got[0] is got[3] is got[5][0]
    assert got[1] is got[4][0]
    assert got[2] is got[4][1]["s"]
    apart = own([[1], [1]])
    assert apart[0] is not apart[1]


def test_cycles_cross_between_two_that_share() -> None:
    a: list[Any] = [1]
    a.append(a)
    got = own(a)
    assert got[0] == 1
    assert got[1] is got
    d: dict[str, Any] = {"inner": []}
    d["inner"].append(({"up": d},))
    got = own(d)
    assert got["inner"][0][0]["up"] is got


@pytest.mark.parametrize(
    "before",
    [
        (1, [2]),
        collections.OrderedDict(a=[1]),
        collections.Counter("aab"),
        collections.deque([[1]]),
        frozenset({1}),
        bytearray(b"x"),
        slice([1], {}, None),
        {"a": 1}.keys(),
        {"a": [1]}.values(),
        {"a": [1]}.items(),
        range(3),
        Sly([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stands_before_shared_containers_does_not_shift_them(before: Any) -> None:
    x: list[int] = []
    got = own([before, x, {"x": x}])
    assert got[1] == []
    assert got[2]["x"] is got[1]


def test_a_default_dict_does_not_shift_shared_containers() -> None:
    x: list[int] = []
    got = own([collections.defaultdict(int, {1: 2}), x, x])
    assert got == [{1: 2}, [], []]
    assert got[1] is got[2]


def test_instances_of_subclasses_stay_with_their_process() -> None:
    assert codec.dumps([Sly([1])], codec.Own(lambda value: type(value).__name__)) == '[{"o":"Sly"}]'
    assert own([Pair(1, 2), SlyInt(3)]) == ["Pair", "SlyInt"]


def test_references_are_for_two_that_share_only() -> None:
    with pytest.raises(codec.Unfit):
        codec.loads('[[],{"=":0}]')
    with pytest.raises(codec.Unfit):
        codec.loads('[[],{"=":9}]', codec.Own(str))


def test_a_cycle_does_not_cross_otherwise() -> None:
    a: list[Any] = []
    a.append(a)
    d: dict[str, Any] = {}
    d["d"] = (d,)
    wide: list[Any] = []
    wide += [wide, wide, wide]
    for value in (a, d, wide):
        with pytest.raises(codec.Unfit, match="too deeply"):
            codec.dumps(value)


# ----------------------------------------------------------------------------------------------------- bounds


def nested(depth: int, kind: type = list) -> Any:
    value: Any = kind()
    for _ in range(depth - 1):
        value = kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple])
def test_depth_is_bounded(kind: type) -> None:
    fits = nested(codec.DEPTH // 2, kind)
    assert there_and_back(fits) == fits
    with pytest.raises(codec.Unfit, match="too deeply"):
        codec.dumps(nested(codec.DEPTH + 2, kind))
    opening = "[" if kind is list else '{"t":['
    closing = "]" if kind is list else "]}"
    for depth in (codec.DEPTH + 2, 400, 700, 990, 2_000, 200_000):
        with pytest.raises(codec.Unfit):
            codec.loads(opening * depth + closing * depth)


def test_numbers_that_cost_more_to_compute_with_than_to_send_are_refused() -> None:
    for line in (
        '{"m":["Decimal","1E+999999999"]}',
        '{"m":["Decimal","1E-999999999"]}',
        '{"m":["Decimal","-1E+10001"]}',
        '{"m":["Fraction","0x%s","0x1"]}' % ("f" * 20_000),
        '{"m":["Fraction","0x1","0x%s"]}' % ("f" * 20_000),
    ):
        with pytest.raises(codec.Unfit, match="of that size"):
            codec.loads(line)
    assert codec.loads('{"i":"0x%s"}' % ("f" * 100_000)).bit_length() == 400_000


@pytest.mark.parametrize("tag", ["s", "z", "d"])
def test_integers_with_one_hash_cost_no_more_than_others(tag: str) -> None:
    prime = (1 << 61) - 1
    numbers = [{"i": hex(prime * i)} for i in range(1, 15_001)]
    packed = {tag: [part for number in numbers for part in (number, 0)] if tag == "d" else numbers}
    start = time.process_time()
    with contextlib.suppress(codec.Unfit):
        codec.unpack(packed)
    assert time.process_time() - start < 5


# ----------------------------------------------------------------------------------------------- hostile lines


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nul",
        "[1,",
        '"\\ud8',
        "{}",
        '{"i":"0x1","f":"nan"}',
        '{"unknown":1}',
        '{"__class__":"x"}',
        '{"i":7}',
        '{"i":"ten"}',
        '{"i":null}',
        '{"f":"1.0"}',
        '{"f":["nan"]}',
        '{"t":"text"}',
        '{"t":{"t":[]}}',
        '{"d":[1]}',
        '{"d":{"a":1}}',
        '{"d":[[],1]}',
        '{"d":[{"d":[]},1]}',
        '{"s":[[]]}',
        '{"s":7}',
        '{"z":[{"s":[]}]}',
        '{"b":"0"}',
        '{"b":"zz"}',
        '{"b":7}',
        '{"a":null}',
        '{"c":["1"]}',
        '{"c":["a","b"]}',
        '{"r":[]}',
        '{"r":["0x1","0x2","0x0"]}',
        '{"r":[1,2,3]}',
        '{"m":[]}',
        '{"m":"OrderedDict"}',
        '{"m":7}',
        '{"m":[["OrderedDict"],[]]}',
        '{"m":["os.system","true"]}',
        '{"m":["__import__",["os"]]}',
        '{"m":["OrderedDict",[1]]}',
        '{"m":["Counter",[[],1]]}',
        '{"m":["Counter"]}',
        '{"m":["deque",[1],-1]}',
        '{"m":["deque",[1]]}',
        '{"m":["deque","abc",1]}',
        '{"m":["slice",[]]}',
        '{"m":["slice",[1,2,3,4]]}',
        '{"m":["keys",[[]]]}',
        '{"m":["items",[1]]}',
        '{"m":["Decimal","one"]}',
        '{"m":["Decimal",{"a":1}]}',
        '{"m":["Fraction","0x1","0x0"]}',
        '{"m":["Fraction",1,2]}',
        '{"m":["timedelta",1e300]}',
        '{"m":["timedelta","a"]}',
        '{"m":["timezone",1e9]}',
        '{"m":["timezone","a"]}',
        '{"m":["datetime","2024-13-01"]}',
        '{"m":["date",20240101]}',
        '{"m":["time",null]}',
        "1" * 5_000,
        '{"=":0}',
    ],
)
def test_lines_that_are_not_of_the_format(line: str) -> None:
    for foreign in (None, str, codec.Own(str)):
        with pytest.raises(codec.Unfit):
            codec.loads(line, foreign)


KINDS = ["OrderedDict", "Counter", "deque", "slice", "keys", "values", "items", "Decimal", "Fraction"]
KINDS += ["datetime", "date", "time", "timezone", "timedelta"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["0x1f", "nan"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*"iftdszbacrmo=", "x"]), inner, max_size=2)
        | st.tuples(
            st.sampled_from(KINDS),
            inner,
            inner,
        ).map(lambda parts: {"m": list(parts)})
    ),
    max_leaves=12,
)


@given(json_values)
@example({"m": ["deque", [], {"o": 1}]})
@example({"=": -1})
@example({"m": ["timezone", float("nan")]})
@example({"m": ["timezone", float("inf")]})
def test_any_json_is_a_value_or_unfit(packed: Any) -> None:
    for foreign in (None, str, codec.Own(str)):
        try:
            value = codec.unpack(packed, foreign)
        except codec.Unfit:
            continue
        if not (isinstance(foreign, codec.Own) and '"="' in json.dumps(packed)):
            codec.dumps(value)


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_unfit(line: str) -> None:
    with contextlib.suppress(codec.Unfit):
        codec.loads(line, str)
