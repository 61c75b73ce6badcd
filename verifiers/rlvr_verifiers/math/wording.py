r"""Answers in words: numbers written out, times and dates, fixed phrases such as "no solution", plain text.

\text{three quarters}, six (6)              3/4, 6
4:20 p.m., 16:20                            the same time
\text{17th March}, \text{March 17}          the same date
\text{The limit does not exist}, DNE        the same phrase
\text{an even function}, \text{It is even}  the same words
(D) 3/10, D, 3/10                           a choice, with and without its text
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from .build import INFINITY, REALS
from .tree import Node, words

MAX_PHRASE = 120
"""Longest text that is looked at as a phrase."""

_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|texttt|textsf|textup|mbox|mathrm|mathbf|mathsf|mathtt|bf|rm)\s*\{([^{}]*)\}"
)
_SPACE = re.compile(r"(?:\\[,;:! ]|\\q?quad(?![a-zA-Z])|[\s~$*\"“”])+")


def said(text: str) -> str:
    """The text without LaTeX wrappers, quotes and needless blanks; empty when it is too long for a phrase."""
    if len(text) > MAX_PHRASE:
        return ""
    text = _WRAPPER.sub(r"\1", _WRAPPER.sub(r"\1", text)) if "\\" in text else text
    return _SPACE.sub(" ", text.replace("{:}", ":")).strip(" .!`'")


def phrase(text: str) -> tuple[Node, ...]:
    """The readings of an answer in words; none when it is no phrase."""
    spoken = said(text)
    if not spoken or "\\" in spoken:
        return ()
    low = spoken.lower()
    found = _clock(low) or _date(low)
    if found:
        return found
    number = in_words(low)
    return _fixed(low) if number is None else (Node("num", number=number),)


# -- fixed phrases

_PHRASES = {
    "dne": "dne",
    "d.n.e": "dne",
    "does not exist": "dne",
    "limit does not exist": "dne",
    "no limit": "dne",
    "no solution": "no solution",
    "no solutions": "no solution",
    "infinitely many": "infinitely many",
    "infinitely many solutions": "infinitely many",
    "infinite solutions": "infinitely many",
}
_REALS = words("all-real-numbers all-reals all-real any-real-number all-real-values real-numbers every-real-number")
_WORDS = words("yes no true false none even odd")
_ANSWER = re.compile(r"(yes|no|true|false)\s*[,.!:;-]\s*[a-z ,']*")
_LEADING = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+|(?:it|this|that)(?: is|'s|s)\s+|(?:there|they) (?:is|are)\s+|on\s+"
    r"|(?:an?|the)\s+|set of\s+|values? of x\s+)+"
)
_TRAILING = re.compile(r"\s+(?:functions?|numbers?)")


def _fixed(low: str) -> tuple[Node, ...]:
    if not re.sub(r"[ .',-]", "", low).isalpha():
        return ()
    answer = _ANSWER.fullmatch(low)
    if low in _WORDS:
        return (Node("text", value=low),)
    if answer:
        return (Node("text", value=answer[1]),)
    stripped = _LEADING.sub("", low, count=1) if _LEADING.match(low) else low
    if stripped in ("empty set", "null set"):
        return (Node("set"),)
    if stripped in ("infinity", "positive infinity"):
        return (INFINITY,)
    if stripped in ("negative infinity", "minus infinity"):
        return (Node("neg", (INFINITY,)),)
    if stripped.replace(" ", "-") in _REALS:
        return (REALS,)
    return (Node("text", value=_PHRASES[stripped]),) if stripped in _PHRASES else ()


def plain_words(spoken: str) -> str:
    """Words without what they can do without: an article or "it is" before, "function" or "number" behind."""
    low = spoken.strip(" .,!")
    if len(low) <= 2:
        return low  # CO is not Co
    low = low.lower()
    start = _LEADING.match(low)
    if start and start.end() < len(low):
        low = low[start.end() :]
    if low in _PHRASES:
        return _PHRASES[low]
    end = _TRAILING.search(low)
    return low[: end.start()] if end and end.end() == len(low) and low[: end.start()] not in ("no", "all") else low


# -- numbers

_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TEN_NAMES = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = {name: value for value, name in enumerate(_NAMES)}
_TENS = {name: 10 * value for value, name in enumerate(_TEN_NAMES, start=2)}
_POWERS = {"thousand": 1000, "million": 10**6, "billion": 10**9}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "fourth": 4, "quarter": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "fifteenth": 15, "sixteenth": 16, "twentieth": 20,
    "hundredth": 100, "thousandth": 1000,
}  # fmt: skip
_TWICE = re.compile(r"([^()]+) \(([^()]+)\)")


def in_words(low: str) -> Fraction | None:
    """The value of a number written out, as in "negative three quarters" or "six (6)"; else None."""
    twice = _TWICE.fullmatch(low)
    if twice:
        first, second = (_digits(part) if part.isdecimal() else _spelled(part) for part in twice.groups())
        return first if first is not None and first == second else None
    return _spelled(low)


def _spelled(low: str) -> Fraction | None:
    names = low.replace("-", " ").split()
    sign = -1 if names[:1] in (["negative"], ["minus"]) else 1
    names = names[1:] if sign < 0 else names
    if not names or len(names) > 12:
        return None
    part = _PARTS.get(names[-1]) or _PARTS.get(names[-1].removesuffix("s"))
    if part and len(names) > 1:
        top = Fraction(1) if names[:-1] in (["a"], ["one"]) else _cardinal(names[:-1])
        return None if top is None else sign * top / part
    whole = _cardinal(names)
    return None if whole is None else sign * whole


def _digits(text: str) -> Fraction | None:
    return Fraction(int(text)) if len(text) <= 30 else None


def _cardinal(names: list[str]) -> Fraction | None:
    total = group = 0
    last = ""
    for name in names:
        if name in _UNITS and (last in ("", "and", "hundred", "power") or (last == "ten" and 0 < _UNITS[name] < 10)):
            group, last = group + _UNITS[name], "unit"
        elif name in _TENS and last in ("", "and", "hundred", "power"):
            group, last = group + _TENS[name], "ten"
        elif name == "and" and last in ("hundred", "power"):
            last = "and"
        elif name == "hundred" and 0 < group < 100:
            group, last = group * 100, "hundred"
        elif name in _POWERS and group:
            total, group, last = total + group * _POWERS[name], 0, "power"
        else:
            return None
    return Fraction(total + group) if last != "and" else None


# -- times and dates

_CLOCK = re.compile(r"(\d{1,2})(?:\s*:\s*(\d\d))?(?:\s*([ap])\.?\s?m)?", re.ASCII)
_MONTH_NAMES = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTHS = {name: month for month, name in enumerate(_MONTH_NAMES, start=1)}
_MONTHS |= {name[:3]: month for name, month in _MONTHS.items()} | {"sept": 9}
_DAY = r"(\d{1,2})(?:\^?\{?(?:st|nd|rd|th)\}?)?"
_MONTH_FIRST = re.compile(rf"([a-z]{{3,9}})\.? {_DAY}(?:,? (\d{{4}}))?", re.ASCII)
_DAY_FIRST = re.compile(rf"(?:the )?{_DAY}(?: of)? ([a-z]{{3,9}})\.?(?:,? (\d{{4}}))?", re.ASCII)


def _clock(low: str) -> tuple[Node, ...]:
    """A time of day, with the half of the day or of 24 hours; what it may be besides, where neither is said."""
    low = {"noon": "12:00 pm", "midnight": "12:00 am"}.get(low, low.removesuffix("."))
    match = _CLOCK.fullmatch(low)
    if match is None or (match[2] is None and match[3] is None):
        return ()
    hour, minute, half = int(match[1]), match[2] or "00", match[3]
    if hour > 23 or int(minute) > 59 or (half and not 0 < hour <= 12):
        return ()
    if half:
        day = 60 * (hour % 12 + 12 * (half == "p")) + int(minute)
        return Node("text", value=f"time {day}"), Node("text", value=f"clock {hour}:{minute} {half}")
    ratio = Node("div", (Node("num", number=Fraction(hour)), Node("num", number=Fraction(int(minute)))))
    if hour > 12:
        return ratio, Node("text", value=f"time {60 * hour + int(minute)}")
    return ratio, *(Node("text", value=f"clock {hour}:{minute} {half}") for half in "ap")


def _date(low: str) -> tuple[Node, ...]:
    match = _MONTH_FIRST.fullmatch(low)
    month, day, year = match.groups() if match else (None, None, None)
    if match is None and (match := _DAY_FIRST.fullmatch(low)):
        day, month, year = match.groups()
    if month not in _MONTHS or not day or not 1 <= int(day) <= 31:
        return ()
    return (Node("text", value=f"date {year or ''}-{_MONTHS[month]}-{int(day)}"),)


# -- choices


class Choice(NamedTuple):
    """A letter, and the text of the choice ("" when only the letter is given)."""

    letter: str
    rest: str


_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s*)?[(\[]?([A-Z])(?:[)\].:]+(\s.*|[\\$a-z].*|)|)", re.IGNORECASE | re.DOTALL
)
_ANOTHER = re.compile(r"\([A-Z]\)|\b[A-Z][).:]|^[A-Z]$|^(?:or|and|but|not)\b|^[,/+*=^_<>&|]|^-\s")


def choice(text: str) -> Choice | None:
    r"""The choice that an answer names, as in `C`, `(C)`, `\textbf{(C)}\ 45` or `Option C`."""
    if len(text) > MAX_PHRASE or not any(map(str.isupper, text[:20])):
        return None
    opened = _WRAPPER.sub(r"\1", text, count=1) if text.startswith("\\") else text
    match = _CHOICE.fullmatch(opened.replace("\\left", "").replace("\\right", "").strip(" $"))
    if match is None or not match[1].isupper():
        return None
    rest = (match[2] or "").strip()
    return None if _ANOTHER.search(rest) else Choice(match[1], rest)
