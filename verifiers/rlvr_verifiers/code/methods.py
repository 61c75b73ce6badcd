"""Methods and attributes of plain values that the host may use in a test: those that change nothing, within bounds."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .pure import ITEMS, Excess, items


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def _padded(name: str) -> Callable[..., Any]:
    def bounded(value: Any, *args: Any) -> Any:
        if args and isinstance(args[0], int) and args[0] > ITEMS:
            raise Excess("a width that is too large")
        return getattr(value, name)(*args)

    return bounded


def _replace(value: Any, *args: Any, **keywords: Any) -> Any:
    if len(args) > 1 and all(isinstance(arg, type(value)) for arg in args[:2]):
        count = value.count(args[0]) if args[0] else len(value) + 1
        if len(value) + count * len(args[1]) > 2 * ITEMS:
            raise Excess("a replacement that is too long")
    return value.replace(*args, **keywords)


def _join(value: Any, *args: Any) -> Any:
    parts = [items(arg) if isinstance(arg, Iterable) else arg for arg in args]
    if parts and hasattr(parts[0], "__len__") and len(value) * len(parts[0]) > ITEMS:
        raise Excess("a text that is too long")
    return value.join(*parts)


def _expandtabs(value: Any, tabsize: int = 8) -> Any:
    if isinstance(tabsize, int) and tabsize * value.count("\t" if isinstance(value, str) else b"\t") > ITEMS:
        raise Excess("tabs that are too wide")
    return value.expandtabs(tabsize)


def _walked(name: str) -> Callable[..., Any]:
    """A method that may walk through itself and what it is given."""

    def bounded(value: Any, *args: Any, **keywords: Any) -> Any:
        args = tuple(items(arg) if isinstance(arg, Iterable) else arg for arg in args)
        return getattr(items(value), name)(*args, **keywords)

    return bounded


_TEXT = """capitalize count encode endswith find index isalnum isalpha isascii isdigit islower isspace istitle isupper
    lower lstrip partition removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith
    strip swapcase title upper"""
_SET = "copy difference intersection isdisjoint issubset issuperset symmetric_difference union"
_MOMENT = "date time year month day hour minute second microsecond isoformat weekday isoweekday toordinal"

METHODS: dict[Any, frozenset[str]] = {
    str: words(_TEXT + " casefold isdecimal isidentifier isnumeric isprintable format translate"),
    bytes: words(_TEXT + " decode hex") - {"encode"},
    bytearray: words(_TEXT + " decode hex copy") - {"encode"},
    list: words("copy count index"),
    tuple: words("count index"),
    range: words("count index start stop step"),
    dict: words("copy get items keys values"),
    collections.Counter: words("copy get items keys values elements most_common total"),
    collections.OrderedDict: words("copy get items keys values"),
    collections.deque: words("copy count index maxlen"),
    set: words(_SET),
    frozenset: words(_SET),
    bool: words("bit_length bit_count real imag numerator denominator conjugate"),
    int: words("bit_length bit_count real imag numerator denominator conjugate"),
    float: words("is_integer real imag conjugate as_integer_ratio hex"),
    complex: words("real imag conjugate"),
    fractions.Fraction: words("numerator denominator"),
    decimal.Decimal: words("is_nan is_infinite is_finite is_zero is_signed normalize as_tuple"),
    datetime.date: words("year month day isoformat weekday isoweekday toordinal"),
    datetime.datetime: words(_MOMENT),
    datetime.time: words("hour minute second microsecond isoformat"),
    datetime.timedelta: words("days seconds microseconds total_seconds"),
    type(sys.float_info): words("max min epsilon dig"),
    type: frozenset(["__name__"]),
}
"""Methods and attributes that change nothing, by type."""

BOUNDED: dict[str, Callable[..., Any]] = {
    **{name: _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
    **{name: _walked(name) for name in (*_SET.split(), "index", "count") if name != "copy"},
    "expandtabs": _expandtabs,
    "join": _join,
    "replace": _replace,
}
"""Methods of text and collections that need a bound."""
for _kind in (str, bytes, bytearray):
    METHODS[_kind] |= {"center", "ljust", "rjust", "zfill", "expandtabs", "join", "replace"}

ANY_METHOD: frozenset[str] = frozenset().union(*METHODS.values())
"""Names that are a method or attribute of some plain value."""

ONLY_TEXT = words(
    """capitalize casefold center endswith expandtabs isalnum isalpha isascii isdecimal isdigit isidentifier islower
    isnumeric isprintable isspace istitle isupper ljust lower lstrip partition removeprefix removesuffix rfind rindex
    rjust rpartition rsplit rstrip splitlines startswith strip swapcase upper zfill
    issubset issuperset isdisjoint union intersection difference symmetric_difference
    most_common is_integer bit_length bit_count total_seconds as_integer_ratio"""
)
"""Methods of text, sets and numbers that objects of programs hardly have: one that answers to them pretends."""
