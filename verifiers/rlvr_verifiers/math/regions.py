r"""Sets of reals as sorted disjoint pieces, so that `x>3`, `(3,\infty)` and `\{x \mid 3<x\}` come out the same."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from .numeric import rational_near
from .tree import Node

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


def region(node: Node) -> tuple[str, Region] | None:
    """The name of the variable ("" when none is named) and the pieces; None when it is no set of known reals."""
    try:
        name, pieces = _region(node)
    except _NotARegionError:
        return None
    return name, _merged(pieces)


def same(left: Region, right: Region) -> bool:
    """Whether two regions agree, end points to 30 digits."""
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
    if op == "union" or (op == "list" and args and all(arg.op == "rel" for arg in args)):
        regions = [_region(arg) for arg in args]
        pieces = regions[0][1]
        for _, more in regions[1:]:
            pieces = _intersection(pieces, more) if op == "list" and node.value == "and" else pieces + more
        return _one_name([name for name, _ in regions]), pieces
    if op == "inter":
        left, right = _region(args[0]), _region(Node("inter", args[1:]) if len(args) > 2 else args[1])
        return _one_name([left[0], right[0]]), _intersection(left[1], right[1])
    if op == "minus":
        left, right = _region(args[0]), _region(args[1])
        return _one_name([left[0], right[0]]), _intersection(left[1], _complement(right[1]))
    if op == "rel":
        return _relation(node)
    raise _NotARegionError


def _one_name(names: list[str]) -> str:
    known = {name for name in names if name}
    if len(known) > 1:
        raise _NotARegionError
    return known.pop() if known else ""


def _relation(node: Node) -> tuple[str, Region]:
    args, relations = node.args, node.value.split()
    if relations == ["in"]:
        return args[0].value or "?", _region(args[1])[1]
    unknown = [k for k, arg in enumerate(args) if arg.op in ("sym", "app")]
    if len(unknown) != 1 or not set(relations) <= {"<", "<=", ">", ">=", "!="}:
        raise _NotARegionError
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


def _intersection(left: Region, right: Region) -> Region:
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
