r"""Sets of reals as sorted disjoint pieces, so that `x>3`, `(3,\infty)` and `\{x \mid 3<x\}` come out the same.

Inequalities in a row hold together when one is `\ne` or `\in`, or when they can (`x<3, x>1`); else they are
alternatives, as in `x<-1, x>2`. "or" always makes alternatives. A set of whole numbers is listed when it is finite.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from . import solve
from .numeric import MAX_COST, cost, rational_near
from .tree import Node, symbols, walk

MAX_PIECES = 10_000
"""Most pairs of pieces that an intersection looks at."""
_BIG = Fraction(10) ** 4_000
"""Stands for infinity among end points."""
_SAME = Fraction(1, 10**30)


class Piece(NamedTuple):
    """From `low` to `high`; each end belongs to it or not. A point is a piece with both ends its own."""

    low: Fraction
    has_low: bool
    high: Fraction
    has_high: bool


Region = tuple[Piece, ...]
_ALL: Region = (Piece(-_BIG, False, _BIG, False),)
_WHOLE = {"mathbb:Z": -_BIG, "mathbb:Z+": Fraction(1), "mathbb:N0": Fraction(0), "mathbb:N": Fraction(0)}
"""Sets of whole numbers, and where they start."""
_INTEGERS = frozenset("kmn")
MAX_LISTED = 400
"""Most whole numbers of an interval that are listed."""


class Known(NamedTuple):
    """A set of reals: the variable ("" when none is named), whether only whole numbers are meant, the pieces."""

    name: str
    whole: bool
    pieces: Region


def region(node: Node) -> Known | None:
    """The set that a tree describes; None when it is no set of known reals."""
    try:
        if node.op == "list" and any(map(_is_whole, node.args)):
            return _whole_numbers(node)
        name, pieces = _region(node)
    except _NotARegionError:
        return None
    return Known(name, False, _merged(pieces))


def is_solved(node: Node) -> bool:
    """Whether its relations are about a variable itself or its distance, as `|x-1| < 2`: no problem restated."""
    return all(
        any(arg.op in ("sym", "app") or _is_distance(arg) for arg in rel.args) for rel in walk(node) if rel.op == "rel"
    )


def _is_distance(node: Node) -> bool:
    if node.op != "func" or node.value != "abs":
        return False
    inside = node.args[0]
    return inside.op == "sym" or (inside.op == "add" and sum(n.op == "sym" for n in inside.args) == 1)


def listed(node: Node) -> Known | None:
    """The set that a roster is, as `1, 2` or `x=1, x=2`; None when its elements are no known reals."""
    args = node.args if node.op in ("set", "list") else (node,)
    names = {arg.value for arg in args if arg.op == "assign"}
    values = [arg.args[0] if arg.op == "assign" else arg for arg in args]
    if len(names) > 1 or any(value.op in _NO_NUMBER for value in values):
        return None
    try:
        ends = [_end(value) for value in values]
    except _NotARegionError:
        return None
    return Known(names.pop() if names else "", False, _merged(tuple(Piece(end, True, end, True) for end in ends)))


_NO_NUMBER = frozenset({"interval", "union", "inter", "minus", "rel", "given", "list", "set", "tuple", "text", "unit"})


def bar_roots(equation: Node) -> Known | None:
    """The solutions of an equation such as `|x-1| = 3`; None for one without bars, or too hard."""
    names = symbols(equation)
    if len(names) != 1 or not any(n.op == "func" and n.value == "abs" for n in walk(equation)):
        return None
    name = names.pop()
    try:
        return Known(name, False, solution(equation, "=", name))
    except _NotARegionError:
        return None


def alike(left: Known, right: Known) -> bool:
    """Whether two sets agree, and the variables that they name; end points to 30 digits.

    That `n` and the like are whole numbers need not be said.
    """
    if left.name != right.name and left.name and right.name:
        return False
    if left.whole == right.whole:
        return _same(left.pieces, right.pieces)
    whole, other = (left, right) if left.whole else (right, left)
    if {whole.name, other.name} <= _INTEGERS:
        return _same(whole.pieces, _whole(other.pieces))
    listed = all(piece.low == piece.high for piece in other.pieces)
    return listed and _same(whole.pieces, other.pieces)


def _same(left: Region, right: Region) -> bool:
    return len(left) == len(right) and all(
        a.has_low == b.has_low and a.has_high == b.has_high and _near(a.low, b.low) and _near(a.high, b.high)
        for a, b in zip(left, right, strict=True)
    )


class _NotARegionError(ValueError):
    pass


def _near(a: Fraction, b: Fraction) -> bool:
    return a == b or abs(a - b) <= _SAME * max(abs(a), abs(b))


def _end(node: Node) -> Fraction:
    if node == Node("const", value="inf"):
        return _BIG
    if node.op == "neg" and node.args[0].op == "const" and node.args[0].value == "inf":
        return -_BIG
    if node.op == "unit":
        node = node.args[0]
    value = rational_near(node)
    if value is None:
        raise _NotARegionError
    return value


def _region(node: Node) -> tuple[str, Region]:
    op, args = node.op, node.args
    if op in ("interval", "tuple") and len(args) == 2:
        brackets = node.value or "()"
        low, high = _end(args[0]), _end(args[1])
        has_low, has_high = brackets[0] == "[" and low > -_BIG, brackets[1] == "]" and high < _BIG
        if low > high or (low == high and not (has_low and has_high)):
            raise _NotARegionError
        return "", (Piece(low, has_low, high, has_high),)
    if op == "set":
        return "", tuple(Piece(end, True, end, True) for end in map(_end, args))
    if op == "list" and args and any(arg.op == "rel" for arg in args):
        return _listed(args, node.value)
    if op == "union":
        regions = [_region(arg) for arg in args]
        return _one_name([name for name, _ in regions]), tuple(piece for _, pieces in regions for piece in pieces)
    if op == "assign":
        end = _end(args[0])
        return node.value, (Piece(end, True, end, True),)
    if op == "add" and all(arg.op == "neg" for arg in args[1:]):  # R - {1}
        return _region(Node("minus", (args[0], Node("union", tuple(arg.args[0] for arg in args[1:])))))
    if op == "inter":
        left, right = _region(args[0]), _region(Node("inter", args[1:]) if len(args) > 2 else args[1])
        return _one_name([left[0], right[0]]), _intersection(left[1], right[1])
    if op == "minus":
        left, right = _region(args[0]), _region(args[1])
        return _one_name([left[0], right[0]]), _intersection(left[1], _complement(right[1]))
    if op == "rel":
        return _relation(node)
    raise _NotARegionError


def _listed(args: tuple[Node, ...], joint: str) -> tuple[str, Region]:
    """Inequalities in a row: alternatives, or conditions that hold together."""
    regions = [_region(arg) for arg in args]
    name = _one_name([name for name, _ in regions])
    alternatives = tuple(piece for _, pieces in regions for piece in pieces)
    if joint == "or":
        return name, alternatives
    if any(arg.op != "rel" for arg in args):
        raise _NotARegionError
    together = _complement(tuple(piece for _, pieces in regions for piece in _complement(pieces)))
    restricted = any(relation in ("!=", "in") for arg in args for relation in arg.value.split())
    return name, together if together or restricted else alternatives


def _is_whole(node: Node) -> bool:
    return node.op == "rel" and node.value == "in" and node.args[1].op == "sym" and node.args[1].value in _WHOLE


def _whole_numbers(node: Node) -> Known:
    """Conditions of which one is that the variable is a whole number."""
    if node.value == "or":
        raise _NotARegionError
    fields = [arg for arg in node.args if _is_whole(arg)]
    rest = tuple(arg for arg in node.args if arg not in fields)
    name, pieces = _region(rest[0] if len(rest) == 1 else Node("list", rest, "and")) if rest else ("", _ALL)
    name = _one_name([name, *(field.args[0].value for field in fields)])
    start = max(_WHOLE[field.args[1].value] for field in fields)
    pieces = _intersection(_merged(pieces), (Piece(start, start > -_BIG, _BIG, False),))
    if any(field.args[1].value == "mathbb:N" for field in fields) and any(p.low == 0 and p.has_low for p in pieces):
        raise _NotARegionError  # whether 0 is a natural number is a matter of taste
    return Known(name, True, _whole(pieces))


def _whole(pieces: Region) -> Region:
    """The whole numbers of a region: one by one, or from end to end where there are many."""
    whole: list[Piece] = []
    for low, has_low, high, has_high in pieces:
        first = low if low == -_BIG else Fraction(math.ceil(low) + (not has_low and low.denominator == 1))
        last = high if high == _BIG else Fraction(math.floor(high) - (not has_high and high.denominator == 1))
        if first > -_BIG and last < _BIG and last - first < MAX_LISTED:
            whole += [Piece(Fraction(k), True, Fraction(k), True) for k in range(int(first), int(last) + 1)]
        elif first <= last:
            whole.append(Piece(first, first > -_BIG, last, last < _BIG))
    return _merged(tuple(whole))


def _one_name(names: list[str]) -> str:
    known = {name for name in names if name}
    if len(known) > 1:
        raise _NotARegionError
    return known.pop() if known else ""


def _relation(node: Node) -> tuple[str, Region]:
    args, relations = node.args, node.value.split()
    if relations == ["in"] and args[0].op not in ("sym", "app", "func", "tuple"):
        raise _NotARegionError
    if relations == ["in"]:
        if args[0].op not in ("sym", "app"):
            raise _NotARegionError
        return args[0].value, _region(args[1])[1]
    unknown = [k for k, arg in enumerate(args) if arg.op in ("sym", "app")]
    if not set(relations) <= {"<", "<=", ">", ">=", "!="}:
        raise _NotARegionError
    if len(unknown) != 1 or any(symbols(arg) for k, arg in enumerate(args) if k != unknown[0]):
        return _solved(args, relations)
    k = unknown[0]
    pieces = _ALL
    for at, relation in enumerate(relations):
        if at not in (k - 1, k):
            raise _NotARegionError
        bound = _end(args[at] if at < k else args[at + 1])
        if relation == "!=":
            half = _complement((Piece(bound, True, bound, True),))
        elif (relation[0] == "<") == (at == k):
            half = (Piece(-_BIG, False, bound, relation[-1] == "="),)
        else:
            half = (Piece(bound, relation[-1] == "=", _BIG, False),)
        pieces = _intersection(pieces, half)
    return args[k].value, pieces


def _solved(args: tuple[Node, ...], relations: list[str]) -> tuple[str, Region]:
    """Relations such as `x^2 > 4` or `|x-1| <= 3`: the sign is looked up at and between the zeros."""
    names = symbols(Node("list", args))
    if len(names) != 1:
        raise _NotARegionError
    name = names.pop()
    pieces = _ALL
    for left, right, relation in zip(args, args[1:], relations, strict=False):
        pieces = _intersection(pieces, solution(Node("add", (left, Node("neg", (right,)))), relation, name))
    return name, pieces


def solution(node: Node, relation: str, name: str) -> Region:
    """Where an expression is positive, negative or zero, as the relation says."""
    zeros = solve.zeros(node) if symbols(node) and cost(node) < MAX_COST // 8 else None
    if zeros is None or cost(node) * len(zeros) > MAX_COST:
        raise _NotARegionError
    holds = _SIGNS[relation]
    found: list[Piece] = [Piece(z, True, z, True) for z in zeros if solve.sign(node, name, z) in holds]
    for low, high in zip([-_BIG, *zeros], [*zeros, _BIG], strict=True):
        inside = high - 1 if low == -_BIG else low + 1 if high == _BIG else (low + high) / 2
        if solve.sign(node, name, inside if abs(inside) < _BIG - 1 else Fraction(0)) in holds:
            found.append(Piece(low, False, high, False))
    return _merged(tuple(found))


_SIGNS = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1), "!=": (-1, 1), "=": (0,)}


def _intersection(left: Region, right: Region) -> Region:
    if len(left) * len(right) > MAX_PIECES:
        raise _NotARegionError
    found = []
    for a in left:
        for b in right:
            low, no_low = max((a.low, not a.has_low), (b.low, not b.has_low))
            high, has_high = min((a.high, a.has_high), (b.high, b.has_high))
            if low < high or (low == high and has_high and not no_low):
                found.append(Piece(low, not no_low, high, has_high))
    return tuple(found)


def _complement(pieces: Region) -> Region:
    out, low, has_low = [], -_BIG, False
    for piece in _merged(pieces):
        if low < piece.low or (has_low and not piece.has_low and low == piece.low):
            out.append(Piece(low, has_low, piece.low, not piece.has_low))
        low, has_low = piece.high, not piece.has_high
    if low < _BIG:
        out.append(Piece(low, has_low, _BIG, False))
    return tuple(out)


def _merged(pieces: Region) -> Region:
    out: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.low, not p.has_low)):
        last = out[-1] if out else None
        touches = last is not None and (
            piece.low < last.high or (piece.low == last.high and (piece.has_low or last.has_high))
        )
        if last is not None and touches:
            high = max((last.high, last.has_high), (piece.high, piece.has_high))
            out[-1] = Piece(last.low, last.has_low, *high)
        else:
            out.append(piece)
    return tuple(out)
