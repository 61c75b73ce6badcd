"""Decides whether an answer is equal to the reference, cheapest test first.

    text        the same once spacing, fonts and case of words are set aside
    exact       rational numbers
    numeric     expressions: modulo primes where they are rational, else the same 110 digits or more at several points
                (mpmath, with an error bound on every value); refuted at the first point that differs
    whole       identities that hold for whole numbers only, at twenty of them

Before that, `clauses` brings conditions in words into the form of a list and takes labels off that cannot be parsed,
and `settle` turns relations into names with values, equations, and heads with conditions. `comparison` takes lists,
intervals, matrices, equations and the rest apart and compares their parts; the tier of the verdict is then the last
one that was needed. What the guards refuse to compute is not equal.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from .budget import OneBudget
from .clauses import is_cross_product, items, label_key, labelled, rewrite, split_label
from .comparison import STANDARD, Comparison, Conventions
from .extract import opening_choice
from .parse import parse
from .settle import settle
from .spelling import decimal_commas, undelimited
from .tree import Node, ParseError, integer, walk
from .wording import Choice, choice, phrase

Tier = Literal["text", "exact", "numeric", "whole", "parse"]
_TIERS: tuple[Tier, ...] = ("exact", "numeric", "whole")


class Outcome(NamedTuple):
    """Whether the answer equals the reference, the tier that decided, and the reason in words."""

    equal: bool
    tier: Tier
    reason: str


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as read: its text form, its parse trees (several where it is ambiguous), or why it has none."""

    text: str
    nodes: tuple[Node, ...]
    error: str = ""
    choice: Choice | None = None


def equivalent(reference: str, answer: str, conventions: Conventions = STANDARD) -> Outcome:
    """Compares an answer with the reference, LaTeX or plain text, under the conventions of a data set."""
    if conventions.decimal_comma:
        reference, answer = decimal_commas(reference), decimal_commas(answer)
    gold, mine = read(reference), read(answer)
    if gold.text and gold.text == mine.text:
        return Outcome(True, "text", "the same text")
    if (gold.choice or mine.choice) and _same_choice(gold, mine, conventions):
        return Outcome(True, "text", "the same choice")
    if not mine.nodes:
        return Outcome(False, "parse", mine.error)
    if not gold.nodes:
        return Outcome(False, "text", f"the reference can only be compared as text ({gold.error})")
    comparison = Comparison(conventions)
    with OneBudget():  # one budget for all of it
        for left in gold.nodes:
            for right in mine.nodes:
                if comparison.same(left, right):
                    return Outcome(True, _TIERS[comparison.tier], "equal")
    reason = "not equal, as far as could be decided within the limits" if comparison.undecided else "not equal"
    return Outcome(False, _TIERS[comparison.tier], reason)


def _same_choice(gold: Reading, mine: Reading, conventions: Conventions) -> bool:
    """Whether both name the same choice; where one gives only the text of its choice, that is compared."""
    left, right = gold.choice, mine.choice
    if left and right:
        same = left.letter == right.letter
        return same and (not left.rest or not right.rest or equivalent(left.rest, right.rest, conventions).equal)
    if left:
        given = bool(left.rest) and equivalent(left.rest, mine.text, conventions).equal
        opening = not left.rest and _WITH_PROSE.fullmatch(mine.text)
        return given or bool(opening and opening_choice(mine.text) == left.letter)
    return right is not None and bool(right.rest) and equivalent(gold.text, right.rest, conventions).equal


# -- reading

_INTEGER = re.compile(r"-?\d{1,100}")
_DECIMAL = re.compile(r"(-?)(\d{0,100})\.(\d{1,100})")
_FRACTION = re.compile(r"(-?)(?:\\[dt]?frac\{(-?\d{1,100})\}\{(\d{1,100})\}|(\d{1,100})/(\d{1,100}))")
_CACHED_CHARS = 256
_CACHED_NODES = 200
MAX_PLAIN = 20_000
"""Longest text that is looked at beyond its characters."""


class _LargeError(Exception):
    """Takes a reading that is too large to be remembered past the cache, which keeps no exceptions."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading


def read(text: str) -> Reading:
    """Parses an answer; short ones are remembered, as the reference of a group and common answers return."""
    if len(text) > _CACHED_CHARS:
        return _read(text)
    try:
        return _read_cached(text)
    except _LargeError as large:
        return large.reading


@functools.lru_cache(maxsize=2048)
def _read_cached(text: str) -> Reading:
    reading = _read(text)
    if sum(1 for node in reading.nodes for _ in walk(node)) > _CACHED_NODES:
        raise _LargeError(reading)
    return reading


def _read(text: str) -> Reading:
    if _INTEGER.fullmatch(text):
        return Reading(text, (integer(int(text)),))
    if match := _FRACTION.fullmatch(text):
        top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
        if bottom:
            return Reading(text, (Node("num", number=Fraction(-top if match[1] else top, bottom)),))
    elif match := _DECIMAL.fullmatch(text):
        value = Fraction(int(match[2] + match[3]), 10 ** len(match[3]))
        return Reading(text, (Node("num", number=-value if match[1] else value, places=len(match[3])),))
    text = undelimited(text)
    spoken = phrase(text)
    if spoken:
        return Reading(plain(text), spoken)
    chosen = choice(text)
    try:
        return Reading(plain(text), _nodes(text), choice=chosen)
    except ParseError as error:
        return Reading(plain(text), (), str(error), chosen)
    except RecursionError:
        return Reading(plain(text), (), "it is nested too deeply", chosen)


def _nodes(text: str) -> tuple[Node, ...]:
    if is_cross_product(text):
        raise ParseError("it is a cross product")
    text = rewrite(text)
    if parts := labelled(text):
        return (Node("list", tuple(_assigned(label, settle(parse(part)[-1])) for label, part in parts), ","),)
    try:
        return tuple(settle(node) for node in parse(text))
    except ParseError as error:
        if listed := items(text):
            return (settle(Node("list", tuple(_equation(item) for item in listed), ",")),)
        return (_labelled_value(text, error),)


def _equation(text: str) -> Node:
    try:
        return settle(parse(text)[0])
    except ParseError as error:
        return _labelled_value(text, error)


def _labelled_value(text: str, error: ParseError) -> Node:
    r"""The value that stands behind a label of no meaning to the parser, as in `P(A|B)=\frac13`."""
    split = split_label(text)
    if split is None or _is_settled(split[0]):
        raise error
    value = settle(parse(split[1])[0])
    if value.op in _NO_VALUE:
        raise error
    return _assigned(label_key(split[0]), value)


_NO_VALUE = frozenset({"list", "rel", "equation", "assign", "given", "text"})


def _assigned(label: str, value: Node) -> Node:
    return Node("assign", (value, Node("sym", value=label)), label)


def _is_settled(text: str) -> bool:
    try:
        return bool([settle(node) for node in parse(text)])
    except ParseError:
        return False


_WITH_PROSE = re.compile(r"\W*[A-Z]\W{1,3}(?!(?:or|and|but|not)\b)[A-Za-z]{2,} .*", re.DOTALL | re.IGNORECASE)
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname|boxed|fbox)\s*\{([^{}]*)\}")
_NOISE = re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|[$\"“”]")
_GAPS = re.compile(r"\\[,;: ]|\\!|~")
_BLANKS = re.compile(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])")


def plain(text: str) -> str:
    """The text without what cannot change its meaning; words (not single letters) in lower case."""
    if len(text) > MAX_PLAIN:
        return text.strip()
    text = _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", text))
    text = _NOISE.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _BLANKS.sub("", _GAPS.sub(" ", text).strip().removeprefix("**").removesuffix("**"))
    text = text if text.endswith("..") else text.rstrip(".")
    return text.lower() if len(text) > 2 and text.replace(" ", "").isalpha() else text
