"""What the host may compute of a test: pure functions and methods of the standard library, each with a bound.

Values come from a program that may be hostile, so nothing here may take long or much memory: `Excess` is raised
before it would. `Unsupported` says that a judge process has to look at it instead.
"""

from __future__ import annotations

import ast
import cmath
import collections
import datetime
import decimal
import fractions
import itertools
import math
import operator
import re
import string
import sys
from collections.abc import Callable, Iterable
from typing import Any

ITEMS = 2_000_000
"""The longest sequence that is made or walked through."""

BITS = 1 << 20
"""The longest integer that is multiplied, in bits; products and quotients of longer ones take too long."""


class Excess(Exception):
    """It would take too long or too much memory."""


class Unsupported(Exception):
    """Not something that the host computes."""


def bits(value: Any) -> int:
    """How long the integers in a number are."""
    if isinstance(value, int):
        return value.bit_length()
    if isinstance(value, fractions.Fraction):
        return value.numerator.bit_length() + value.denominator.bit_length()
    return 64


def items(value: Any) -> Any:
    """The value, if walking through it is bounded; an iterator becomes a list.

    Raises:
        Excess: It is too long.
    """
    if isinstance(value, range) and not -1 < value.stop - value.start <= ITEMS:
        try:
            length = len(value)
        except OverflowError:
            length = ITEMS + 1
        if length > ITEMS:
            raise Excess(f"more than {ITEMS:,} items")
    if type(value) in _ITERATORS:
        value = list(itertools.islice(value, ITEMS + 1))
    if hasattr(value, "__len__") and not isinstance(value, range) and len(value) > ITEMS:
        raise Excess(f"more than {ITEMS:,} items")
    return value


def _first(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its first argument bounded, as an iterable."""

    def bounded(*args: Any, **keywords: Any) -> Any:
        return function(items(args[0]), *args[1:], **keywords) if args else function(**keywords)

    return bounded


def _every(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with all arguments bounded, as iterables."""

    def bounded(*args: Any, **keywords: Any) -> Any:
        return function(*(items(arg) if isinstance(arg, Iterable) else arg for arg in args), **keywords)

    return bounded


def _small(function: Callable[..., Any], limit: int = BITS) -> Callable[..., Any]:
    """The function with all arguments bounded, as numbers."""

    def bounded(*args: Any, **keywords: Any) -> Any:
        for arg in (*args, *keywords.values()):
            if bits(arg) > limit:
                raise Excess("a number that is too long")
        return function(*args, **keywords)

    return bounded


def _magnitude(function: Callable[..., Any], limit: int) -> Callable[..., Any]:
    """The function with all arguments bounded by their size: factorials and the like."""

    def bounded(*args: Any) -> Any:
        for arg in args:
            if isinstance(arg, int) and abs(arg) > limit:
                raise Excess("a number that is too large")
        return function(*args)

    return bounded


def _sum(values: Any, /, start: Any = 0) -> Any:
    values = items(values)
    if len(values) > 2_000 and any(isinstance(v, (fractions.Fraction, decimal.Decimal)) for v in values):
        raise Excess("a sum of fractions that takes too long")
    if not isinstance(start, (int, float, complex)):
        values = list(values)
        if len(values) * sum(len(v) for v in values if hasattr(v, "__len__")) > ITEMS:
            raise Excess("a sum of sequences that takes too long")
    return sum(values, start)


def _round(number: Any, ndigits: Any = None) -> Any:
    if isinstance(ndigits, int) and abs(ndigits) > 5_000:
        raise Excess("digits of a rounded number")
    return round(number, ndigits) if ndigits is not None else round(number)


def _lazily(function: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    """`all` and `any`, which stop at the first item that decides."""

    def bounded(*args: Any) -> Any:
        if len(args) != 1:
            return function(*args)
        values = args[0] if type(args[0]) in _ITERATORS else items(args[0])
        return function(_counted(values))

    return bounded


def _counted(values: Iterable[Any]) -> Iterable[Any]:
    for count, value in enumerate(values):
        if count > ITEMS:
            raise Excess(f"more than {ITEMS:,} items")
        yield value


def power(base: Any, exponent: Any, modulus: Any = None) -> Any:
    """`pow`, within bounds."""
    if modulus is not None:
        if max(bits(base), bits(exponent), bits(modulus)) > 4096:
            raise Excess("a power that takes too long")
        return pow(base, exponent, modulus)
    if isinstance(base, (int, fractions.Fraction)) and isinstance(exponent, int):
        if bits(exponent) > 64 or (bits(base) > 1 and bits(base) * abs(exponent) > BITS):
            raise Excess("a power that is too long")
    elif isinstance(base, (decimal.Decimal, fractions.Fraction)) or isinstance(exponent, decimal.Decimal):
        raise Unsupported("a power of decimal numbers")
    return base**exponent


def times(left: Any, right: Any) -> Any:
    """`left * right`, within bounds."""
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, (str, bytes, bytearray, list, tuple, collections.deque)) and isinstance(count, int):
            if len(sequence) * count > ITEMS:
                raise Excess("a repetition that is too long")
            return left * right
    if bits(left) + bits(right) > 2 * BITS:
        raise Excess("a product that is too long")
    return left * right


def shift(left: Any, right: Any) -> Any:
    """`left << right`, within bounds."""
    if isinstance(left, int) and isinstance(right, int) and bits(left) + right > BITS:
        raise Excess("a shift that is too long")
    return left << right


def divide(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A division, within bounds; `%` of text is left to `format_ok`."""

    def bounded(left: Any, right: Any) -> Any:
        if isinstance(left, (str, bytes, bytearray)):
            raise Unsupported("formatting")
        if bits(left) * bits(right) > BITS << 14:
            raise Excess("a quotient that takes too long")
        return operation(left, right)

    return bounded


FORMAT = re.compile(r"(?:.?[<>=^])?[-+ ]?#?0?\d{0,3}[,_]?(?:\.\d{1,3})?[a-zA-Z%]?", re.DOTALL)
"""Format specifications that are safe to apply."""

_FIELD = re.compile(r"\{\{|\}\}|\{(?:\d{0,2}|[A-Za-z_]\w*)(?:![rsa])?(?::([^{}]*))?\}|[^{}]+", re.DOTALL)
_PERCENT = re.compile(r"%%|%[-+ 0#]*\d{0,3}(?:\.\d{1,3})?[a-zA-Z]|[^%]+", re.DOTALL)


def format_ok(template: str, braces: bool) -> bool:
    """Whether a template for `.format`, or for `%`, has nothing but plain fields of bounded widths."""
    pattern, end = (_FIELD if braces else _PERCENT), 0
    while end < len(template):
        match = pattern.match(template, end)
        if not match or (braces and match[1] is not None and not FORMAT.fullmatch(match[1])):
            return False
        end = match.end()
    return True


_EMPTY: Any = ((), "", [], {}, {}.values(), {}.items(), range(0))
_EMPTY = (b"", set(), range(1 << 70), *_EMPTY)
_ITERATORS: set[Any] = {map, filter, zip, enumerate, reversed, type(iter([])), type(_ for _ in ())}
_ITERATORS |= {type(reversed(x)) for x in _EMPTY[2:]}
_ITERATORS |= {type(iter(x)) for x in _EMPTY}
_ITERATORS |= {type(collections.Counter().elements()), type(iter(collections.deque()))}


def is_iterator(value: Any) -> bool:
    """Whether walking through it uses it up."""
    return type(value) in _ITERATORS


FUNCTIONS: dict[str, Any] = {
    "abs": abs,
    "all": _lazily(all),
    "any": _lazily(any),
    "ascii": ascii,
    "bin": _small(bin),
    "chr": chr,
    "divmod": divide(divmod),
    "enumerate": enumerate,
    "filter": filter,
    "hex": hex,
    "isinstance": isinstance,
    "len": len,
    "map": map,
    "max": _every(max),
    "min": _every(min),
    "oct": _small(oct),
    "ord": ord,
    "pow": power,
    "repr": repr,
    "reversed": reversed,
    "round": _round,
    "sorted": _first(sorted),
    "sum": _sum,
    "zip": zip,
}
"""Builtin functions by name. `format` is not one of them: its specification would have to be looked at."""


def _int(*args: Any, **keywords: Any) -> Any:
    if args and bits(args[0]) > BITS << 3:
        raise Excess("a number that is too long")
    if args and isinstance(args[0], (str, bytes, bytearray)) and len(args[0]) > 100_000:
        raise Excess("a number that is too long")
    return int(*args, **keywords)


def _bytes(kind: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(*args: Any, **keywords: Any) -> Any:
        if args and isinstance(args[0], int):
            if args[0] > ITEMS:
                raise Excess("too many bytes")
            return kind(*args)
        return kind(*map(items, args[:1]), *args[1:], **keywords)

    return bounded


def _dict(*args: Any, **keywords: Any) -> Any:
    return dict(*map(items, args), **keywords)


TYPES: dict[Any, Callable[..., Any]] = {
    bool: bool,
    int: _int,
    float: float,
    complex: complex,
    str: str,
    bytes: _bytes(bytes),
    bytearray: _bytes(bytearray),
    list: _first(list),
    tuple: _first(tuple),
    dict: _dict,
    set: _first(set),
    frozenset: _first(frozenset),
    range: range,
    type: type,
    object: object,
    slice: slice,
    type(None): type(None),
    collections.Counter: _first(collections.Counter),
    collections.OrderedDict: _first(collections.OrderedDict),
    collections.deque: _first(collections.deque),
    decimal.Decimal: decimal.Decimal,
    fractions.Fraction: _small(fractions.Fraction, 1 << 14),
    datetime.date: datetime.date,
    datetime.datetime: datetime.datetime,
    datetime.time: datetime.time,
    datetime.timedelta: datetime.timedelta,
}
"""Types that a test may name, and what calling them does."""

NAMED_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, object)
} | {"type": type, "slice": slice}

_MATH = {
    name: _small(value) if callable(value) else value
    for name, value in vars(math).items()
    if not name.startswith("_") and name not in ("fsum", "prod", "sumprod", "dist", "ldexp")
} | {
    "factorial": _magnitude(math.factorial, 5_000),
    "comb": _magnitude(math.comb, 20_000),
    "perm": _magnitude(math.perm, 5_000),
    "gcd": _small(math.gcd, 1 << 17),
    "lcm": _small(math.lcm, 1 << 14),
    "isqrt": _small(math.isqrt, 1 << 17),
    "fsum": _first(math.fsum),
    "dist": _every(math.dist),
}

MODULES: dict[str, dict[str, Any]] = {
    "math": _MATH,
    "cmath": {
        name: _small(value) if callable(value) else value
        for name, value in vars(cmath).items()
        if not name.startswith("_")
    },
    "collections": {kind.__name__: kind for kind in (collections.Counter, collections.OrderedDict, collections.deque)},
    "fractions": {"Fraction": fractions.Fraction},
    "decimal": {"Decimal": decimal.Decimal},
    "datetime": {kind.__name__: kind for kind in (datetime.date, datetime.datetime, datetime.time, datetime.timedelta)},
    "string": {name: value for name, value in vars(string).items() if type(value) is str and name[0] != "_"},
    "sys": {"maxsize": sys.maxsize, "float_info": sys.float_info},
}
"""Members of modules that the host may use."""

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: times,
    ast.Div: divide(operator.truediv),
    ast.FloorDiv: divide(operator.floordiv),
    ast.Mod: divide(operator.mod),
    ast.Pow: power,
    ast.LShift: shift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

_LAZY: tuple[Any, ...] = (map, filter, zip, enumerate, reversed)


def bounded(function: Any) -> Any:
    """A function as it may be called: types with their bounds."""
    if isinstance(function, type) and function not in _LAZY:
        try:
            return TYPES[function]
        except KeyError:
            raise Unsupported("a type") from None
    return function
