"""Reads JSON as RFC 8259 has it, in bounded time, and finds it in prose.

What `read` refuses, by rule:

    empty               nothing but white space
    not-json            whatever is no JSON and has no name below
    trailing-comma      [1, 2,]
    single-quotes       {'a': 1}
    smart-quotes        {“a”: 1}
    bare-name           {a: 1}, True, None, undefined
    comment             {"a": 1} // one
    two-values          {"a": 1} {"a": 2}
    cut-off             {"a": [1
    control-character   a NUL anywhere, a line break in a string
    bom                 a byte order mark in front
    surrogate           half of a surrogate pair, raw or escaped: no UTF-8 has it
    duplicate-key       {"a": 1, "a": 2}: readers differ on which one counts
    number              NaN, Infinity, and what a double cannot hold: 1e400, 1e-400, an integer of 310 digits
    too-deep            objects and arrays in one another beyond `Limits.depth`
    too-long            text beyond `Limits.characters`
    too-many            values beyond `Limits.values`

Integers are exact. A number with a fraction or an exponent is the nearest double.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

MOST_TOKENS = 50_000
"""Brackets, and quotes between brackets, in a text that is searched."""

MOST_DIGITS = 309
"""Digits of the largest double, 1.8e308."""

BOM = "\ufeff"

LARGEST = int(1.7976931348623157e308)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much JSON is read.

    Attributes:
        characters: Length of the text.
        depth: Objects and arrays in one another.
        values: Members of objects and items of arrays, all together.
    """

    characters: int = 1_000_000
    depth: int = 128
    values: int = 200_000


LIMITS = Limits()


class Refused(ValueError):
    """A text that is no JSON by these rules. As text it says why.

    Attributes:
        rule: Which rule, by its name above.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def read(text: str, *, limits: Limits = LIMITS) -> Any:
    """The one JSON value that the text is, but for white space around it.

    Raises:
        Refused: It is none, or more than the limits allow.
    """
    if len(text) > limits.characters:
        raise Refused("too-long", f"it is {len(text):,} characters long; the limit is {limits.characters:,}")
    try:
        value = (_decode if len(text) >= MOST_DIGITS else _decode_short)(text)
    except json.JSONDecodeError as error:
        raise _explained(text, error) from None
    except RecursionError:
        raise _too_deep(limits) from None
    _check_size(text, value, limits)
    if not text.isascii() or "\\u" in text:
        _check_unicode(text, value)
    return value


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, objects in any order, arrays in theirs, true is not 1."""
    if type(a) is type(b) and isinstance(a, str | int | None):
        return bool(a == b)
    pending = [(a, b)]
    while pending:
        a, b = pending.pop()
        if isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            pending.extend((value, b[key]) for key, value in a.items())
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pending.extend(zip(a, b, strict=True))
        elif isinstance(a, bool) or isinstance(b, bool):
            if a is not b:
                return False
        elif isinstance(a, int | float) and isinstance(b, int | float):
            if not same_number(a, b):
                return False
        elif type(a) is not type(b) or a != b:
            return False
    return True


def same_number(a: float, b: float) -> bool:
    """Whether two numbers are equal as they are written: the double 1e23 is the integer 10 ** 23."""
    if type(a) is type(b) or abs(a) < 2**53:
        return a == b
    return Decimal(repr(a)) == Decimal(repr(b))


# ---------------------------------------------------------------------------------------------------------- reading

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TRAILING_COMMA = re.compile(r",\s*\Z")
_NAME = re.compile(r"(?:True|False|None|nil|undefined)\b")
_KEY = re.compile(r"[A-Za-z_$]")
_CONSTANT = re.compile(r"-?(?:NaN|Infinity)\b")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in set(keys[:i])) if len(keys) < 100 else "a key"
        raise Refused("duplicate-key", f"the key {shown(twice)} occurs twice in one object")
    return members


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS - 1 and (len(digits) > MOST_DIGITS + 1 or abs(int(digits)) > LARGEST):
        raise Refused("number", f"an integer of {len(digits):,} digits is beyond double precision")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number) or (number == 0.0 and digits.lower().partition("e")[0].strip("-0.")):
        raise Refused("number", f"the number `{short(digits)}` is beyond double precision")
    return number


def _constant(name: str) -> Any:
    raise Refused("number", f"`{name}` is no JSON number")


def _decoder(integer: Callable[[str], int] | None) -> Callable[[str], Any]:
    return json.JSONDecoder(
        object_pairs_hook=_object, parse_int=integer, parse_float=_float, parse_constant=_constant
    ).decode


_decode, _decode_short = _decoder(_integer), _decoder(None)


def _check_size(text: str, value: Any, limits: Limits) -> None:
    """Raises if there are more values than allowed, or deeper ones."""
    brackets = text.count("[") + text.count("{")
    if brackets <= limits.depth and brackets + text.count(",") <= limits.values:
        return  # it cannot be: each object and array has a bracket, and each further value a comma
    level, seen, depth = [value], 0, 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        seen, depth = seen + len(below), depth + any(isinstance(item, dict | list) for item in level)
        if depth > limits.depth:
            raise _too_deep(limits)
        if seen > limits.values:
            raise Refused("too-many", f"it holds more than {limits.values:,} values")
        level = below


def _too_deep(limits: Limits) -> Refused:
    return Refused("too-deep", f"objects and arrays are more than {limits.depth} deep")


def _check_unicode(text: str, value: Any) -> None:
    try:
        text.encode()
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused("surrogate", "half of a surrogate pair stands alone in it, which no UTF-8 has") from None


def _explained(text: str, error: json.JSONDecodeError) -> Refused:
    """Which rule the text breaks, where the decoder gave up."""
    at, here = error.pos, text[error.pos : error.pos + 1]
    where = f"line {error.lineno}, column {error.colno}"
    before = text[max(0, at - 40) : at]
    said = (error.msg[:1].lower() + error.msg[1:]).removesuffix(" at")
    if not text.strip():
        return Refused("empty", "it is empty")
    if text.startswith(BOM):
        return Refused("bom", "it begins with a byte order mark")
    if here and ((ord(here) < 32 and here not in " \t\r\n") or "Invalid control" in error.msg):
        return Refused("control-character", f"a control character at {where}")
    if here and here in "}]" and _TRAILING_COMMA.search(before):
        return Refused("trailing-comma", f"a comma before the `{here}` at {where}")
    if here == "'":
        return Refused("single-quotes", f"a single quote at {where}; JSON has double ones")
    if here and here in "“”‘’„«»":
        return Refused("smart-quotes", f"a typographic quote at {where}")
    if text.startswith(("//", "/*", "#"), at):
        return Refused("comment", f"a comment at {where}")
    if error.msg == "Extra data":
        return Refused("two-values", f"text after the JSON value, at {where}")
    if not here or "Unterminated" in error.msg:
        return Refused("cut-off", f"it ends in the middle ({said} at {where})")
    if _CONSTANT.match(text, at):
        return Refused("number", f"NaN and Infinity are no JSON numbers ({where})")
    if _NAME.match(text, at) or ("double quotes" in error.msg and _KEY.match(text, at)):
        return Refused("bare-name", f"a name without quotes at {where}")
    return Refused("not-json", f"{said} at {where}")


def short(text: str, limit: int = 60) -> str:
    """At most `limit` characters of a text."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def shown(value: Any, limit: int = 60) -> str:
    """A JSON value as text for a message, cut where it is long."""
    return short(json.dumps(value, ensure_ascii=False), limit).encode(errors="backslashreplace").decode()


# ---------------------------------------------------------------------------------------------------------- finding


class Span(NamedTuple):
    """A stretch of prose that is an object or an array, or was meant to be one.

    Attributes:
        start, stop: Where it stands in the text.
        value: What it says.
        problem: Why it cannot be read; None when it can.
    """

    start: int
    stop: int
    value: Any = None
    problem: Refused | None = None


_OPEN = re.compile(r"[{\[]")
_TOKEN = re.compile(r'[{}\[\]"]')
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*+"')
_MEANT = re.compile(
    r"""\{\s*+(?:["'“”‘’}]|[A-Za-z_$][\w$]*+\s*+:)"""  # a key in any quotes, or as in JavaScript
    r"""|\[\s*+(?:[\[{"'“\]]|-?(?:\d|Infinity\b)|(?:true|false|null|True|False|None|NaN)\s*+[,\]])"""
)
_PARTNER = {"}": "{", "]": "["}


def find(text: str, *, limits: Limits = LIMITS) -> list[Span]:
    """The objects and arrays in a text that are in no other, in order; linear in the length of the text.

    What begins as JSON does and cannot be read counts too, with its problem: nothing inside of it is looked at. Braces
    and brackets of prose (`{name}`, `[see below]`) do not count; what stands in them does.

    Raises:
        Refused: The text is too long, or has more than `MOST_TOKENS` brackets and quotes between brackets.
    """
    if len(text) > limits.characters:
        raise Refused("too-long", f"the text is {len(text):,} characters long; the limit is {limits.characters:,}")
    ends = _partners(text)
    spans: list[Span] = []
    at = _next_open(text, 0)
    while at >= 0:
        stop = ends.get(at)
        if _MEANT.match(text, at) and (stop or text[at] == "{"):
            spans.append(_span(text, at, stop or len(text), limits))
            at = _next_open(text, spans[-1].stop)
        else:
            at = _next_open(text, at + 1)
    return spans


def _span(text: str, start: int, stop: int, limits: Limits) -> Span:
    try:
        return Span(start, stop, read(text[start:stop], limits=limits))
    except Refused as problem:
        return Span(start, stop, problem=problem)


def _next_open(text: str, at: int) -> int:
    match = _OPEN.search(text, at)
    return match.start() if match else -1


def _partners(text: str) -> dict[int, int]:
    """Where what opens at a position ends, for every bracket that has a partner. Strings count inside of brackets only.

    A bracket that closes what was not opened last ends that as well, and leaves those in between without a partner.
    """
    ends: dict[int, int] = {}
    opened: list[int] = []
    counts = {"{": 0, "[": 0}
    at, no_string_before, tokens = 0, 0, 0
    while match := (_TOKEN if opened else _OPEN).search(text, at):
        at, tokens = match.end(), tokens + 1
        if tokens > MOST_TOKENS:
            raise Refused("too-many", f"there are more than {MOST_TOKENS:,} brackets and quotes in the text")
        token = match[0]
        if token == '"':
            if match.start() >= no_string_before:
                string = _STRING.match(text, match.start())
                if string:
                    at = string.end()
                else:  # it is never closed on this line: no other quote of it is looked at
                    line_end = text.find("\n", at)
                    no_string_before = len(text) if line_end < 0 else line_end
        elif token in counts:
            opened.append(match.start())
            counts[token] += 1
        elif counts[_PARTNER[token]]:
            while True:
                start = opened.pop()
                counts[text[start]] -= 1
                if text[start] == _PARTNER[token]:
                    break
            ends[start] = at
    return ends
