"""Whether two expressions, or two relations, are the same: their values at chosen points, in high precision."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from .numeric import DIGITS, MAX_COST, Undecided, context, cost, evaluate_real, exact
from .tree import Node, symbols, walk

INTEGERS = frozenset("klmnN")
"""Symbols that stand for whole numbers where there is a floor, a ceiling, or a sign to such a power."""
_TINY = 1e-30


class _Point(NamedTuple):
    """Values of the symbols. Where it is not `binding`, only values that are real count, as branches may differ."""

    values: dict[str, Fraction]
    binding: bool


def agree(left: Node, right: Node) -> bool | None:
    """Whether two expressions have the same values; None when nowhere both can be computed."""
    names = sorted(symbols(left) | symbols(right))
    steps = bool(names) and any(_is_step(node) for side in (left, right) for node in walk(side))
    if cost(left, right) > (MAX_COST // 8 if steps else MAX_COST):
        return None
    if not names:
        return _close(left, right, _Point({}, True))
    apart = any(_bends(node) for side in (left, right) for node in walk(side))
    seen = False
    for point in _lattice(names) if steps else _points(names, far=apart):
        close = _close(left, right, point, same_domain=apart)
        if close is False:
            return False
        seen = seen or close is True
    return True if seen else None


def proportional(left: Node, right: Node) -> int:
    """1 or -1 when `left = c * right` with a constant c of that sign (a complex one gives 1), else 0.

    Relations hold for numbers of either sign, so `|x| - 2` is not proportional to `x - 2`.
    """
    names = sorted(symbols(left) | symbols(right))
    apart = any(_bends(node) for side in (left, right) for node in walk(side))
    ratios = []
    for point in _points(names, far=apart):
        try:
            (a, a_real), (b, b_real) = (evaluate_real(side, point=point.values) for side in (left, right))
        except Undecided:
            if point.binding:
                return 0
            continue
        if not point.binding and not (a_real and b_real):
            if apart and a_real != b_real:
                return 0
            continue
        if abs(a) < _TINY or abs(b) < _TINY:
            if point.binding or abs(a - b) > _TINY:
                return 0
            continue
        ratios.append(a / b)
    if any(abs(ratio - ratios[0]) > _TINY * abs(ratios[0]) for ratio in ratios):
        return 0
    return -1 if context(DIGITS[0]).re(ratios[0]) < 0 else 1


# -- points


def _is_step(node: Node) -> bool:
    return node.op == "func" and node.value in ("floor", "ceil") and bool(symbols(node))


def _bends(node: Node) -> bool:
    """Whether it is real on both sides of zero where its plainer spelling (`\\ln x` for `\\ln|x|`) is not."""
    if node.op == "func" and node.value == "abs":
        return bool(symbols(node))
    if node.op != "root" or not _is_even(node.args[1]):
        return False
    return any(n.op == "pow" and symbols(n.args[0]) and _is_even(n.args[1]) for n in walk(node.args[0]))


def _is_even(node: Node) -> bool:
    value = exact(node)
    return value is not None and value.denominator == 1 and value.numerator % 2 == 0


def _points(names: list[str], *, far: bool = False) -> list[_Point]:
    """Three points in the positive quadrant, where symbols usually are (there `\\sqrt{x^2}` is x), then mixed signs.

    Args:
        names: The symbols.
        far: Whether to look at larger values too, of mixed signs.
    """
    draw = random.Random("rlvr " + " ".join(names)).randint
    points = [_Point({n: Fraction(draw(400, 2_600), 997) for n in names}, True) for _ in range(3)]
    for scale in (1, 9) if far else (1,):
        for sign in ([-1] * len(names), [-1 if k % 2 else 1 for k in range(len(names))]):
            values = {n: s * scale * Fraction(draw(400, 2_600), 991) for n, s in zip(names, sign, strict=True)}
            points.append(_Point(values, False))
    return points


def _lattice(names: list[str]) -> list[_Point]:
    """Many whole numbers, small and large, for steps; other numbers too where a symbol need not be whole."""
    draw = random.Random("rlvr " + " ".join(names)).randint
    points = [_Point({n: Fraction(k if n == names[0] else draw(1, 40)) for n in names}, True) for k in range(1, 26)]
    for size in (10**2, 10**3, 10**4, 10**6, 10**12):
        points += [_Point({n: Fraction(draw(size // 10, size)) for n in names}, True) for _ in range(3)]
    if not INTEGERS.issuperset(names):
        for size in (3, 50, 10**4):
            points += [
                _Point({n: Fraction(draw(-size * 997, size * 997), 997) for n in names}, False) for _ in range(5)
            ]
    return points


def _close(left: Node, right: Node, point: _Point, same_domain: bool = False) -> bool | None:
    """Whether the values agree at a point; None when there is no telling."""
    differences = []
    values: Mapping[str, Fraction] = point.values
    for digits in DIGITS:
        try:
            (a, a_real), (b, b_real) = (evaluate_real(side, digits, values) for side in (left, right))
        except Undecided:
            return None
        mp = context(digits)
        if not point.binding and not (a_real and b_real):
            return False if same_domain and a_real != b_real else None
        if mp.isinf(a) or mp.isinf(b):
            return bool(a == b)
        difference, size = abs(a - b), max(abs(a), abs(b))
        if difference == 0:
            return True
        if difference > 1e-20 * size and difference > 1e-30:
            return False
        differences.append(difference)
    noise = differences[1] <= differences[0] * mp.mpf(10) ** -20
    return bool(noise or differences[1] <= size * mp.mpf(10) ** -(DIGITS[1] - 15))
