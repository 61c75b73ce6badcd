"""Decides whether an answer is equal to the reference, cheapest test first.

    text        the same once spacing, fonts and case of words are set aside
    exact       rational numbers
    numeric     the same 110 digits at several points (mpmath; refuted at the first point that differs)
    symbolic    identities that hold for whole numbers only, confirmed by sympy

Lists, tuples, sets, intervals, matrices and equations are taken apart and their parts compared; the tier of the
verdict is then the last one that was needed. What the guards refuse to compute is not equal.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from . import regions
from .extract import opening_choice
from .numeric import agree, exact, proportional, rational_near
from .parse import parse
from .shapes import (
    as_equation,
    as_interval,
    assigned,
    difference,
    distinct_names,
    is_region,
    radians,
    rounds_or_cuts,
    rows,
    single,
    split_unit,
    terminates,
    undefined,
    written_number,
)
from .tree import Node, ParseError, contains, integer, symbols, walk

Tier = Literal["text", "exact", "numeric", "symbolic", "parse"]
_TIERS: tuple[Tier, ...] = ("exact", "numeric", "symbolic")

GOOD_DIGITS = 10
"""A decimal with this many significant digits, correctly rounded or cut, equals its exact value."""
FLOAT_NOISE = Fraction(1, 10**14)
"""What the last digits of a double may be off, relatively."""
ROUNDED_DIGITS = 3
"""A reference with at least this many significant digits may be the rounded value of an exact answer."""


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


def equivalent(reference: str, answer: str, *, rounded: bool = True, bare_percent: bool = False) -> Outcome:
    """Compares an answer with the reference.

    Args:
        reference: The gold answer, LaTeX or plain text.
        answer: The answer as extracted.
        rounded: Whether a reference such as `6.46` accepts the exact answer 84/13 that rounds to it.
        bare_percent: Whether `64` and `64%` are equal as well as `0.64` and `64%`.
    """
    gold, mine = read(reference), read(answer)
    if gold.text and gold.text == mine.text:
        return Outcome(True, "text", "the same text")
    letter = re.fullmatch(r"\(?([A-Z])\)?", gold.text)
    if letter and opening_choice(mine.text) == letter[1]:
        return Outcome(True, "text", "the same choice")
    if not mine.nodes:
        return Outcome(False, "parse", mine.error)
    if not gold.nodes:
        return Outcome(False, "text", f"the reference can only be compared as text ({gold.error})")
    comparison = _Comparison(rounded, bare_percent)
    for left in gold.nodes:
        for right in mine.nodes:
            if comparison.same(left, right):
                return Outcome(True, _TIERS[comparison.tier], "equal")
    reason = "not equal, as far as could be decided within the limits" if comparison.undecided else "not equal"
    return Outcome(False, _TIERS[comparison.tier], reason)


# -- reading

_INTEGER = re.compile(r"-?\d{1,100}")
_DECIMAL = re.compile(r"(-?)(\d{0,100})\.(\d{1,100})")
_FRACTION = re.compile(r"(-?)(?:\\[dt]?frac\{(-?\d{1,100})\}\{(\d{1,100})\}|(\d{1,100})/(\d{1,100}))")
_CACHED_CHARS = 256


def read(text: str) -> Reading:
    """Parses an answer; short ones are remembered, as the reference of a group and common answers return."""
    return _read_cached(text) if len(text) <= _CACHED_CHARS else _read(text)


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
    try:
        return Reading(plain(text), tuple(_settle(node) for node in parse(text)))
    except ParseError as error:
        return Reading(plain(text), (), str(error))
    except RecursionError:
        return Reading(plain(text), (), "it is nested too deeply")


_read_cached = functools.lru_cache(maxsize=2048)(_read)

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|boxed|fbox)\s*\{([^{}]*)\}")
_NOISE = re.compile(r"\\(?:left|right|displaystyle|[,!;:])(?![a-zA-Z])|[$*\"“”]")
_BLANKS = re.compile(r"(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])")


def plain(text: str) -> str:
    """The text without what cannot change its meaning; words (not single letters) in lower case."""
    text = _WRAPPED.sub(r"\1", _WRAPPED.sub(r"\1", text[:20_000]))
    text = _NOISE.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _BLANKS.sub("", text).rstrip(".").strip()
    return text.lower() if len(text) > 1 and text.replace(" ", "").isalpha() else text


# -- equations become assignments, or are refused


def _settle(node: Node) -> Node:
    """The tree with every chain of `=` made an assignment, an equation, or the value that all its links share.

    Raises:
        ParseError: If a chain claims what is not so, as `5 = 6`.
    """
    if node.op == "rel":
        relations = set(node.value.split())
        if relations <= {"=", "~"}:
            return _chain(list(node.args), node.value.split())
        if "~" in relations:
            raise ParseError("an approximation stands among inequalities")
        return node
    if node.op in ("list", "set", "tuple"):
        return node._replace(args=tuple(map(_settle, node.args)))
    if contains(node, "rel") and node.op not in ("union", "inter", "minus"):
        raise ParseError("a relation stands inside an expression")
    return node


def _chain(parts: list[Node], links: list[str]) -> Node:
    names: list[Node] = []
    if len(links) > MAX_LINKS:
        raise ParseError(f"it is a chain of more than {MAX_LINKS} equations")
    while len(parts) > 1 and links[0] == "=" and _is_name(parts[0]):
        names.append(parts.pop(0))
        links = links[1:]
    if not names and len(parts) == 2 and links == ["="] and _is_name(parts[1]) and not symbols(parts[0]):
        names.append(parts.pop())
    comparison = _Comparison()
    constant = not any(symbols(part) for part in parts)
    if len(parts) > 1 and (names or constant):
        for before, after, link in zip(parts, parts[1:], links, strict=False):
            if not (comparison.same(before, after) or (link == "~" and _approximates(after, before))):
                raise ParseError("a link of its chain of equations is false")
        return parts[0] if constant and not names else _named(names, parts[0])
    if len(parts) == 1:
        return _named(names, parts[0])
    if len(parts) == 2 and links == ["="]:
        return Node("equation", (difference(*parts),))
    raise ParseError("a chain of equations that is not understood")


def _named(names: list[Node], value: Node) -> Node:
    name = names[-1]
    if symbols(name) & symbols(value) and name.op in ("sym", "mul"):
        return Node("equation", (difference(name, value),))
    label = name.value if name.op == "sym" else f"{name.op}({','.join(sorted(symbols(name)))})"
    return Node("assign", (value, name), label)


def _is_name(node: Node) -> bool:
    if node.op == "tuple" or (node.op == "func" and node.value in ("sin", "cos", "tan")):
        return all(arg.op == "sym" for arg in node.args)
    if node.op == "mul":  # a segment such as AB
        return all(arg.op == "sym" and arg.value.isupper() for arg in node.args)
    return node.op in ("sym", "app")


def _approximates(rough: Node, fine: Node) -> bool:
    written, value = written_number(rough), rational_near(split_unit(fine)[0])
    return written is not None and value is not None and rounds_or_cuts(value, *written)


# -- comparison

_COLLECTIONS = frozenset({"list", "set", "tuple"})
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
MAX_UNORDERED = 60
MAX_LINKS = 10


class _Comparison:
    """Compares trees, and notes the highest tier it had to use and whether a guard got in the way."""

    def __init__(self, rounded: bool = True, bare_percent: bool = False) -> None:
        self.rounded = rounded
        self.bare_percent = bare_percent
        self.tier = 0
        self.undecided = False

    def same(self, gold: Node, mine: Node) -> bool:
        if gold == mine:
            return not undefined(gold)
        gold, mine = single(gold), single(mine)
        if "assign" in (gold.op, mine.op) or "equation" in (gold.op, mine.op):
            return self.equations(gold, mine)
        if is_region(gold) or is_region(mine):
            return self.regions(gold, mine)
        if gold.op in _COLLECTIONS or mine.op in _COLLECTIONS:
            return self.collections(gold, mine)
        (gold, gold_unit), (mine, my_unit) = split_unit(gold), split_unit(mine)
        if gold_unit or my_unit:
            return self.measures(gold, gold_unit, mine, my_unit)
        if "text" in (gold.op, mine.op):
            return gold == mine
        if contains(gold, "matrix") or contains(mine, "matrix"):
            return self.matrices(gold, mine)
        if "ratio" in (gold.op, mine.op):
            return self.ratios(gold, mine)
        if self.bare_percent and "pct" in (gold.op, mine.op) and gold.op != mine.op:
            left, right = (node.args[0] if node.op == "pct" else node for node in (gold, mine))
            return self.scalars(gold, mine) or self.scalars(left, right)
        return self.scalars(gold, mine)

    def scalars(self, gold: Node, mine: Node) -> bool:
        if gold.op == "sym" and mine.op == "sym":
            return gold.value == mine.value
        left, right = exact(gold), exact(mine)
        if left is not None and left == right:
            return True
        if self.decimals(gold, mine):
            return True
        if left is not None and right is not None:
            return False
        self.tier = max(self.tier, 1)
        verdict = agree(gold, mine)
        if verdict is None:
            self.undecided = True
        elif not verdict and symbols(gold) and symbols(gold) == symbols(mine):
            from . import symbolic

            if symbolic.may_hold_on_integers(gold, mine):
                self.tier = 2
                verdict = symbolic.equal_on_integers(gold, mine)
        return bool(verdict)

    def decimals(self, gold: Node, mine: Node) -> bool:
        """A decimal with enough digits against an exact value, or an exact answer to a rounded reference."""
        for written, other, is_gold in ((gold, mine, True), (mine, gold, False)):
            number = written_number(written)
            if number is None or number[1] < 1 or any(n.places >= 0 for n in walk(other)) or symbols(other):
                continue
            value, places = number
            digits = len(str(abs(value.numerator * 10**places // value.denominator)))
            may_round = self.rounded and is_gold and digits >= ROUNDED_DIGITS
            if digits < GOOD_DIGITS and not may_round:
                continue
            near = rational_near(other)
            if near is None:
                continue
            off = abs(near - value)
            good = rounds_or_cuts(near, value, places) or off <= FLOAT_NOISE * abs(near)
            if digits >= GOOD_DIGITS and good:
                return True
            if may_round and 2 * off * 10**places <= 1:
                precise = exact(other)
                if precise is None or not terminates(precise):
                    return True
        return False

    def measures(self, gold: Node, gold_unit: str, mine: Node, my_unit: str) -> bool:
        if gold_unit and my_unit and gold_unit != my_unit:
            if {gold_unit, my_unit} != {"degree", "radian"}:
                return False
            return self.same(radians(gold, gold_unit), radians(mine, my_unit))
        if self.same(gold, mine):
            return True
        if gold_unit == my_unit or "degree" not in (gold_unit, my_unit):
            return False
        bare = mine if gold_unit else gold
        pi = Node("const", value="pi")
        return any(n == pi for n in walk(bare)) and self.same(radians(gold, gold_unit), radians(mine, my_unit))

    def equations(self, gold: Node, mine: Node) -> bool:
        renamed = gold.op == mine.op == "assign" and gold.value != mine.value
        if renamed:  # f(x) = ... may also be called y
            renamed = "app" not in (gold.args[1].op, mine.args[1].op)
        if renamed or "equation" in (gold.op, mine.op):
            left, right = (as_equation(side) for side in (gold, mine))
            self.tier = max(self.tier, 1)
            return left is not None and right is not None and proportional(left, right) != 0
        return self.same(assigned(gold), assigned(mine))

    def regions(self, gold: Node, mine: Node) -> bool:
        left, right = regions.region(gold), regions.region(mine)
        if left is not None and right is not None:
            self.tier = max(self.tier, 1)
            names_agree = left[0] == right[0] or not (left[0] and right[0])
            return names_agree and regions.same(left[1], right[1])
        gold, mine = as_interval(gold), as_interval(mine)
        if gold.op != mine.op:
            return False
        if gold.op == "interval":
            return gold.value == mine.value and self.ordered(gold.args, mine.args)
        if gold.op in ("union", "inter"):
            return self.unordered(gold.args, mine.args)
        if gold.op == "minus":
            return self.ordered(gold.args, mine.args)
        return gold.op == "rel" and self.inequalities(gold, mine)

    def inequalities(self, gold: Node, mine: Node) -> bool:
        """Chains of inequalities with symbols at both ends, read in either direction, scaled by any constant."""
        links, mine_links = gold.value.split(), mine.value.split()
        if len(links) != len(mine_links) or "in" in links:
            return links == mine_links and self.ordered(gold.args, mine.args)
        if len(links) > 1:
            turned = [_FLIPPED.get(link, link) for link in reversed(mine_links)]
            return (links == mine_links and self.ordered(gold.args, mine.args)) or (
                links == turned and self.ordered(gold.args, mine.args[::-1])
            )
        self.tier = max(self.tier, 1)
        sign = proportional(difference(*gold.args), difference(*mine.args))
        return bool(sign) and links[0] == (mine_links[0] if sign > 0 else _FLIPPED[mine_links[0]])

    def collections(self, gold: Node, mine: Node) -> bool:
        if "matrix" in (gold.op, mine.op):
            return self.matrices(gold, mine)
        if gold.op not in _COLLECTIONS or mine.op not in _COLLECTIONS:
            return False
        if len(gold.args) != len(mine.args) or {gold.op, mine.op} == {"set", "tuple"}:
            return False
        named, mine_named = distinct_names(gold), distinct_names(mine)
        if named and mine_named:
            if set(named) != set(mine_named):
                return False
            order = {name: value for name, value in zip(mine_named, mine.args, strict=True)}
            return self.ordered(gold.args, [order[name] for name in named])
        if "tuple" in (gold.op, mine.op) or named or mine_named:
            return self.ordered(
                [assigned(arg) for arg in gold.args], [assigned(arg) for arg in mine.args]
            )  # x=1, y=2 says which is which
        return self.unordered(gold.args, mine.args)

    def ordered(self, gold: Sequence[Node], mine: Sequence[Node]) -> bool:
        return len(gold) == len(mine) and all(self.same(a, b) for a, b in zip(gold, mine, strict=True))

    def unordered(self, gold: Sequence[Node], mine: Sequence[Node]) -> bool:
        if len(gold) != len(mine):
            return False
        numbers, my_numbers = [exact(node) for node in gold], [exact(node) for node in mine]
        known, my_known = [n for n in numbers if n is not None], [n for n in my_numbers if n is not None]
        if len(known) == len(gold) and len(my_known) == len(mine) and sorted(known) == sorted(my_known):
            return True
        if len(gold) > MAX_UNORDERED:
            return self.ordered(gold, mine)
        left = list(mine)
        for node in gold:
            match = next((k for k, other in enumerate(left) if self.same(node, other)), None)
            if match is None:
                return False
            del left[match]
        return True

    def matrices(self, gold: Node, mine: Node) -> bool:
        left, right = rows(gold), rows(mine)
        if left is None or right is None or len(left) != len(right):
            return False
        return all(self.ordered(a, b) for a, b in zip(left, right, strict=True))

    def ratios(self, gold: Node, mine: Node) -> bool:
        if gold.op != mine.op or len(gold.args) != len(mine.args):
            return False
        if contains(gold, "dots") or contains(mine, "dots"):
            return self.ordered(gold.args, mine.args)
        first, my_first = gold.args[0], mine.args[0]
        return all(
            self.same(Node("mul", (a, my_first)), Node("mul", (b, first)))
            for a, b in zip(gold.args, mine.args, strict=True)
        )
