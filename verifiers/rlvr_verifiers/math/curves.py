r"""Equations of one curve in different forms: `xy=1` and `y=\frac{1}{x}`, `y=\ln x` and `x=e^y`."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

from .numeric import MAX_COST, Undecided, context, cost, evaluate_real
from .sampling import draw_seed
from .shapes import as_equation
from .tree import Node, rebuild, symbols

MAX_DEGREE = 6
_TINY = 1e-25


def same_curve(gold: Node, mine: Node) -> bool:
    """Whether two equations in two unknowns have the same solutions, though one is no multiple of the other."""
    left, right = as_equation(gold), as_equation(mine)
    if left is None or right is None or cost(left, right) > MAX_COST // 8:
        return False
    if len(symbols(left)) != 2 or symbols(left) != symbols(right):
        return False
    places = _places(left, right)
    return _are_inverse(gold, mine, places) or _differ_by_monomial(left, right, places)


def _places(left: Node, right: Node) -> list[Fraction]:
    """Values of both signs, between 1/4 and 5, drawn from the pair."""
    draw = random.Random(draw_seed(left, right)).randint
    return [Fraction((-1) ** k * draw(250_000, 5_000_000), 999_983) for k in range(6)]


def _are_inverse(gold: Node, mine: Node, places: list[Fraction]) -> bool:
    """`y = g(x)` and `x = h(y)`, where each undoes the other wherever it is real."""
    if gold.op != "assign" or mine.op != "assign" or gold.args[1].op != "sym" or mine.args[1].op != "sym":
        return False
    (right, y), (inner, x) = gold.args, mine.args
    if symbols(right) != {x.value} or symbols(inner) != {y.value}:
        return False
    there = rebuild(inner, lambda node: right if node == y else node)
    back = rebuild(right, lambda node: inner if node == x else node)
    return _is_identity(there, x.value, places) and _is_identity(back, y.value, places)


def _is_identity(node: Node, name: str, places: list[Fraction]) -> bool:
    seen = 0
    for place in places:
        try:
            value, real = evaluate_real(node, point={name: place})
        except Undecided:
            continue
        if real:
            seen += 1
            if abs(value - context().mpf(place.numerator) / place.denominator) > _TINY:
                return False
    return seen > 1


def _differ_by_monomial(left: Node, right: Node, places: list[Fraction]) -> bool:
    """Whether one is the other times a power product of the unknowns, whose zeros are on neither curve."""
    names = sorted(symbols(left))
    base = dict(zip(names, places[::2], strict=False))
    start = _ratio(left, right, base)
    if not start:
        return False
    powers = {}
    for name in names:
        moved = _ratio(left, right, {**base, name: 2 * base[name]})
        power = _log2(moved / start) if moved else None
        if power is None:
            return False
        powers[name] = power
    if not any(powers.values()):
        return False
    for shift in range(2):
        point = dict(zip(names, places[1 + shift :: 2], strict=False))
        found, expected = _ratio(left, right, point), start
        for name, power in powers.items():
            scale = point[name] / base[name]
            expected = expected * context().mpf((scale**power).numerator) / (scale**power).denominator
        if not found or abs(found - expected) > _TINY * abs(expected):
            return False
    return not any(_vanishes(side, name, base) for name, power in powers.items() if power for side in (left, right))


def _ratio(left: Node, right: Node, point: dict[str, Fraction]) -> Any:
    try:
        (a, a_real), (b, b_real) = (evaluate_real(side, point=point) for side in (left, right))
    except Undecided:
        return None
    return a / b if a_real and b_real and abs(b) > _TINY else None


def _log2(value: Any) -> int | None:
    for power in range(-MAX_DEGREE, MAX_DEGREE + 1):
        if abs(value - context().mpf(2) ** power) < _TINY:
            return power
    return None


def _vanishes(side: Node, name: str, base: dict[str, Fraction]) -> bool:
    try:
        return abs(evaluate_real(side, point={**base, name: Fraction(0)})[0]) < _TINY
    except Undecided:
        return False
