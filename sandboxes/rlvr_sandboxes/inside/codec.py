"""Plain data as JSON, with tags for what JSON lacks: what crosses between a solution and those who judge it.

A value crosses by its base class: a `Counter` or a lying subclass of `list` arrives as what its base class holds, and
no method of the sender's is ever called by the receiver. Whatever is not plain data goes through `foreign`, which the
sender may give, and arrives through the receiver's.

    None, True, 7, "text", 1.5, [..]                    as in JSON
    {"i": "-0x1f"}                                      an integer beyond 53 bits
    {"f": "nan"}                                        a float that JSON has no word for
    {"t": [..]} {"d": [k, v, k, v]} {"s": [..]}         tuple, dict, set
    {"z": [..]} {"b": hex} {"a": hex} {"c": [re, im]}   frozenset, bytes, bytearray, complex
    {"r": [start, stop, step]} {"m": [kind, ..]}        range, and what some modules of the standard library hold
    {"o": ..} {"=": number}                             foreign, and a container that occurred before (see `Own`)
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
from collections.abc import Callable
from typing import Any

DEPTH = 200
"""How deeply values may be nested."""

EXPONENT = 10_000
"""The largest exponent of a decimal number; whoever makes an integer of one pays for every digit."""

KEY_BITS, ALIKE = 4096, 100
"""The largest integer that may be a key or a member of a set, and how many of those may have one hash."""

FRACTION_BITS = 50_000
"""The largest numerator and denominator; whoever makes a fraction of them looks for their common divisor."""

Foreign = Callable[[Any], Any]


class Own:
    """A `foreign` for two processes that work on the same objects: it keeps apart what a plain copy would confuse.

    Instances of subclasses of plain types are not plain data for it, and a list, dict or set that occurs twice in a
    value arrives as one.

    Args:
        function: What to do with values that are not plain data.
    """

    def __init__(self, function: Foreign) -> None:
        self.function = function
        self.packed: dict[int, int] = {}
        self.unpacked: list[Any] = []

    def __call__(self, value: Any) -> Any:
        return self.function(value)


class Unfit(Exception):
    """The value cannot cross: too deep, cyclic, or not as the format says."""


_dump = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_ATOMS = frozenset((bool, str, type(None)))
_SHARED = frozenset((list, dict, set, collections.defaultdict))
_EMPTY: dict[Any, Any] = {}
_KEYS, _VALUES, _ITEMS = type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items())


def dumps(value: Any, foreign: Foreign | None = None) -> str:
    """The value as a line of ASCII.

    Args:
        value: Anything.
        foreign: Gives JSON for a value that is not plain data; without it, the name of its class stands for it.

    Raises:
        Unfit: It is nested too deeply, or cyclic.
    """
    return _dump(_pack(value, foreign or _class_name, 0))


def _class_name(value: Any) -> Any:
    return str(type(value).__name__)


def _pack(value: Any, foreign: Foreign, depth: int) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is int:
        return value if -(1 << 53) <= value <= 1 << 53 else {"i": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"f": repr(value)}
    if depth > DEPTH:
        raise Unfit("the value is nested too deeply")
    depth += 1
    if type(foreign) is Own:
        if kind in _SHARED:
            if id(value) in foreign.packed:
                return {"=": foreign.packed[id(value)]}
            foreign.packed[id(value)] = len(foreign.packed)
        elif kind not in _EXACT:
            return {"o": foreign(value)}
    if kind is list:
        return [_pack(item, foreign, depth) for item in value]
    if kind is tuple:
        return {"t": [_pack(item, foreign, depth) for item in value]}
    if kind is dict:
        return {"d": _flat(value, foreign, depth)}
    for base, pack in _PACKERS:
        if isinstance(value, base) and issubclass(kind, base):  # `__class__` may lie
            return pack(value, foreign, depth)
    return {"o": foreign(value)}


def _flat(value: Any, foreign: Foreign, depth: int) -> Any:
    """Keys and values of a dict, one behind the other."""
    return [_pack(item, foreign, depth) for pair in dict.items(value) for item in pair]


def _many(tag: str, iterate: Any) -> Any:
    def pack(value: Any, foreign: Foreign, depth: int) -> Any:
        return {tag: [_pack(item, foreign, depth) for item in iterate(value)]}

    return pack


def _ordered_dict(value: Any, foreign: Foreign, depth: int) -> Any:
    return {"m": ["OrderedDict", _flat(value, foreign, depth)]}


def _counter(value: Any, foreign: Foreign, depth: int) -> Any:
    return {"m": ["Counter", _flat(value, foreign, depth)]}


def _deque(value: Any, foreign: Foreign, depth: int) -> Any:
    items = [_pack(item, foreign, depth) for item in collections.deque.__iter__(value)]
    return {"m": ["deque", items, collections.deque.maxlen.__get__(value)]}


def _slice(value: Any, foreign: Foreign, depth: int) -> Any:
    return {"m": ["slice", [_pack(part, foreign, depth) for part in (value.start, value.stop, value.step)]]}


def _moment(value: Any, foreign: Foreign, depth: int) -> Any:
    kind = datetime.datetime if isinstance(value, datetime.datetime) else datetime.time
    zone = kind.tzinfo.__get__(value)
    if zone is not None and type(zone) is not datetime.timezone:
        return {"o": foreign(value)}
    return {"m": [kind.__name__, kind.isoformat(value)]}


def _timezone(value: Any, foreign: Foreign, depth: int) -> Any:
    return {"m": ["timezone", datetime.timezone.utcoffset(value, None).total_seconds()]}


_PACKERS: Any = (
    (bool, lambda value, *_: bool(value)),
    (int, lambda value, foreign, depth: _pack(int.__int__(value), foreign, depth)),
    (float, lambda value, foreign, depth: _pack(float.__float__(value), foreign, depth)),
    (str, lambda value, *_: str.__str__(value)[:]),
    (list, lambda value, foreign, depth: [_pack(item, foreign, depth) for item in list.__iter__(value)]),
    (tuple, _many("t", tuple.__iter__)),
    (collections.OrderedDict, _ordered_dict),
    (collections.Counter, _counter),
    (dict, lambda value, foreign, depth: {"d": _flat(value, foreign, depth)}),
    (set, _many("s", set.__iter__)),
    (frozenset, _many("z", frozenset.__iter__)),
    (bytes, lambda value, *_: {"b": bytes.hex(value)}),
    (bytearray, lambda value, *_: {"a": bytearray.hex(value)}),
    (complex, lambda value, *_: {"c": [repr(complex.real.__get__(value)), repr(complex.imag.__get__(value))]}),
    (range, lambda value, *_: {"r": [hex(value.start), hex(value.stop), hex(value.step)]}),
    (slice, _slice),
    (collections.deque, _deque),
    (_KEYS, lambda value, foreign, depth: {"m": ["keys", [_pack(key, foreign, depth) for key in value]]}),
    (_VALUES, lambda value, foreign, depth: {"m": ["values", [_pack(item, foreign, depth) for item in value]]}),
    (
        _ITEMS,
        lambda value, foreign, depth: {"m": ["items", [_pack(x, foreign, depth) for pair in value for x in pair]]},
    ),
    (decimal.Decimal, lambda value, *_: {"m": ["Decimal", decimal.Decimal.__str__(value)]}),
    (
        fractions.Fraction,
        lambda value, *_: {"m": ["Fraction", hex(value._numerator), hex(value._denominator)]},
    ),
    (datetime.datetime, _moment),
    (datetime.date, lambda value, *_: {"m": ["date", datetime.date.isoformat(value)]}),
    (datetime.time, _moment),
    (datetime.timezone, _timezone),
    (
        datetime.timedelta,
        lambda value, *_: {"m": ["timedelta", value.days, value.seconds, value.microseconds]},
    ),
)
_EXACT = frozenset(base for base, _ in _PACKERS) | {collections.defaultdict}


def loads(line: str, foreign: Foreign | None = None) -> Any:
    """The value of a line that `dumps` made, or that somebody hostile did.

    Args:
        line: The JSON.
        foreign: Makes a value of what stands for one that is not plain data.

    Raises:
        Unfit: It is not of this format.
    """
    try:
        return unpack(json.loads(line), foreign)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"not of the format: {type(error).__name__}") from None


def unpack(packed: Any, foreign: Foreign | None = None) -> Any:
    """The same for JSON that has been read already."""
    try:
        return _unpack(packed, foreign or _refuse, 0)
    except Unfit:
        raise
    except Exception as error:
        raise Unfit(f"not of the format: {type(error).__name__}: {str(error)[:100]}") from None


def _refuse(packed: Any) -> Any:
    raise Unfit("a value that is not plain data")


def _unpack(packed: Any, foreign: Foreign, depth: int) -> Any:
    if type(packed) is list:
        if depth > DEPTH:
            raise Unfit("nested too deeply")
        made: list[Any] = _noted([], foreign)
        made += [_unpack(item, foreign, depth + 1) for item in packed]
        return made
    if type(packed) is not dict:
        return packed
    if depth > DEPTH or len(packed) != 1:
        raise Unfit("nested too deeply, or more than one tag")
    ((tag, held),) = packed.items()
    if tag == "o":
        return foreign(held)
    if tag == "=" and type(foreign) is Own:
        return foreign.unpacked[held]
    return _TAGS[tag](held, foreign, depth + 1)


def _noted(container: Any, foreign: Foreign) -> Any:
    """Remembers a container before it is filled, in the order in which the sender met them."""
    if type(foreign) is Own:
        foreign.unpacked.append(container)
    return container


def _items(held: Any, foreign: Foreign, depth: int) -> Any:
    if type(held) is not list:
        raise Unfit("not a list")
    return [_unpack(item, foreign, depth) for item in held]


def _pairs(held: Any, foreign: Foreign, depth: int) -> Any:
    flat = _items(held, foreign, depth)
    if len(flat) % 2:
        raise Unfit("a key without a value")
    return dict(zip(_keys(flat[::2]), flat[1::2]))


def _keys(keys: list[Any]) -> list[Any]:
    """Keys that do not take long to tell apart, whoever chose them."""
    for key in keys:
        _light(key)
    if len(keys) > ALIKE and max(collections.Counter(map(hash, keys)).values()) > ALIKE:
        raise Unfit("too many keys of one hash")
    return keys


def _light(key: Any) -> None:
    if isinstance(key, int):
        if key.bit_length() > KEY_BITS:
            raise Unfit("a key of that size")
    elif isinstance(key, (tuple, frozenset)):
        for part in key:
            _light(part)


def _dict(held: Any, foreign: Foreign, depth: int) -> Any:
    made = _noted({}, foreign)
    made.update(_pairs(held, foreign, depth))
    return made


def _set(held: Any, foreign: Foreign, depth: int) -> Any:
    made = _noted(set(), foreign)
    made.update(_keys(_items(held, foreign, depth)))
    return made


def _integer(text: Any) -> int:
    if type(text) is not str:
        raise Unfit("not an integer")
    return int(text, 16)


def _module(held: Any, foreign: Foreign, depth: int) -> Any:
    kind, *rest = held
    if kind == "OrderedDict":
        return collections.OrderedDict(_pairs(rest[0], foreign, depth))
    if kind == "Counter":
        counter: Any = collections.Counter()
        dict.update(counter, _pairs(rest[0], foreign, depth))
        return counter
    if kind == "deque":
        return collections.deque(_items(rest[0], foreign, depth), rest[1])
    if kind == "slice":
        return slice(*_items(rest[0], foreign, depth))
    if kind == "keys":
        return dict.fromkeys(_keys(_items(rest[0], foreign, depth))).keys()
    if kind == "values":
        return dict(enumerate(_items(rest[0], foreign, depth))).values()
    if kind == "items":
        return _pairs(rest[0], foreign, depth).items()
    if kind == "Decimal":
        number = decimal.Decimal(rest[0])
        if number.is_finite() and abs(number.adjusted()) > EXPONENT:
            raise Unfit("a decimal number of that size")
        return number
    if kind == "Fraction":
        over, under = _integer(rest[0]), _integer(rest[1])
        if max(over.bit_length(), under.bit_length()) > FRACTION_BITS:
            raise Unfit("a fraction of that size")
        return fractions.Fraction(over, under)
    if kind == "timedelta":
        return datetime.timedelta(*rest)
    if kind == "timezone":
        return datetime.timezone(datetime.timedelta(seconds=rest[0])) if rest[0] else datetime.timezone.utc
    makers: Any = {
        "datetime": datetime.datetime.fromisoformat,
        "date": datetime.date.fromisoformat,
        "time": datetime.time.fromisoformat,
    }
    return makers[kind](rest[0])


_TAGS: Any = {
    "i": lambda held, *_: _integer(held),
    "f": lambda held, *_: {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[held],
    "t": lambda held, foreign, depth: tuple(_items(held, foreign, depth)),
    "d": _dict,
    "s": _set,
    "z": lambda held, foreign, depth: frozenset(_keys(_items(held, foreign, depth))),
    "b": lambda held, *_: bytes.fromhex(held),
    "a": lambda held, *_: bytearray.fromhex(held),
    "c": lambda held, *_: complex(float(held[0]), float(held[1])),
    "r": lambda held, *_: range(*map(_integer, held)),
    "m": _module,
}
