"""Whether two expressions, or two relations, are the same: modulo primes, or in high precision at chosen points.

The points are drawn from a hash of both expressions, so that the same pair always meets the same points, and no
answer can be written that fits the points it will meet.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from . import modular
from .balls import mag, price
from .budget import Exhausted, OneBudget
from .numeric import MAX_COST, Look, Undecided, context, cost, evaluate, exact, looks
from .tree import Node, rebuild, symbols, walk, words

INTEGERS = frozenset("klmnN")
"""Symbols that stand for whole numbers where there is a floor, a ceiling, or a sign to such a power."""
GOOD_BITS = 180
"""An equality must be good to this many bits of the numbers compared."""
_BRANCHING = words("abs floor ceil min max arcsin arccos arctan ln log lg")
_INFINITY = Node("const", value="inf")


class Point(NamedTuple):
    """Values of the symbols. Where it is not `binding`, only values that are real count, as branches may differ."""

    values: dict[str, Fraction]
    binding: bool


def agree(left: Node, right: Node) -> bool | None:
    """Whether two expressions have the same values; None when nowhere both can be computed."""
    if _has_infinity(left) or _has_infinity(right):
        ends = _end(left), _end(right)
        return None if None in ends else ends[0] == ends[1]
    with OneBudget():
        try:
            same = modular.same(left, right)
            if same is not None:
                return same
            return _agree(left, right)
        except Exhausted:
            return None


def _agree(left: Node, right: Node) -> bool | None:
    nodes = [*walk(left), *walk(right)]
    names = sorted({node.value for node in nodes if node.op == "sym"})
    steps = bool(names) and any(_is_step(node) for node in nodes)
    if sum(map(price, nodes)) > (MAX_COST // 8 if steps else MAX_COST):
        return None
    if not names:
        seed = draw_seed(left, right) if any(node.op == "app" for node in nodes) else ""
        return close(left, right, Point({}, True), seed)
    seed = draw_seed(left, right)
    apart = any(_bends(node) for node in nodes)
    points = _points(names, seed, far=any(_branches(node) for node in nodes), size=_largest(nodes))
    if steps:
        points = [*_lattice(names, seed), *([] if INTEGERS.issuperset(names) else points)]
    return agree_at(left, right, points, seed, same_domain=apart)


def agree_at(
    left: Node, right: Node, points: Iterable[Point], seed: str, same_domain: bool = False, least: int = 2
) -> bool | None:
    """Whether the values agree at all points where they can be computed, which must be `least` at least."""
    seen = 0
    for point in points:
        same = close(left, right, point, seed, same_domain)
        if same is False:
            return False
        seen += same is True
    return True if seen >= least else None


def proportional(left: Node, right: Node) -> int:
    """1 or -1 when `left = c * right` with a constant c of that sign (a complex one gives 1), else 0.

    Relations hold for numbers of either sign, so `|x| - 2` is not proportional to `x - 2`.
    """
    if _has_infinity(left) or _has_infinity(right):
        return 0
    with OneBudget():
        try:
            same = modular.are_proportional(left, right)
            if same is False:
                return 0
            if same and (sign := _exact_sign(left, right)):
                return sign
            return _proportional(left, right, is_known=bool(same))
        except Exhausted:
            return 0


def _exact_sign(left: Node, right: Node) -> int:
    """The sign of `left / right` at a point; 0 when it cannot be told with rational numbers."""
    names = sorted(symbols(left) | symbols(right))
    place = {name: Node("num", number=Fraction(7 * k + 5, 3)) for k, name in enumerate(names)}
    a, b = (exact(rebuild(side, lambda n: place[n.value] if n.op == "sym" else n)) for side in (left, right))
    return 0 if not a or not b else 1 if (a > 0) == (b > 0) else -1


def _proportional(left: Node, right: Node, is_known: bool) -> int:
    if cost(left, right) > MAX_COST:
        return 0
    names = sorted(symbols(left) | symbols(right))
    nodes = [*walk(left), *walk(right)]
    apart = any(_bends(node) for node in nodes)
    seed = draw_seed(left, right)
    first: Look | None = None
    seen = 0
    for point in _points(names, seed, far=any(_branches(node) for node in nodes), size=_largest(nodes)):
        try:
            *_, look = looks((left, right), point.values, seed)
        except Exhausted:
            return 0
        except Undecided:
            if point.binding and not is_known:
                return 0
            continue
        if not point.binding and not all(look.real):
            if apart and look.real[0] != look.real[1]:
                return 0
            continue
        if bool(look.values[0]) != bool(look.values[1]):
            return 0
        if not look.values[0]:
            continue
        seen += 1
        if first is None:
            first = look
        elif not _same_ratio(first, look):
            return 0
    if first is None or (names and seen < 2):
        return 0
    mp = context(first.digits)
    return -1 if mp.re(first.values[0] / first.values[1]) < 0 else 1


def _same_ratio(one: Look, other: Look) -> bool:
    mp = context(max(one.digits, other.digits))
    (a, b), (c, d) = ([mp.convert(value) for value in look.values] for look in (one, other))
    cross, size = abs(a * d - b * c), mag(a * d)
    loss = max(e - mag(v) for look in (one, other) for v, e in zip(look.values, look.errors, strict=True))
    return loss <= -GOOD_BITS and mag(cross) <= size + max(loss, -mp.prec) + 6


# -- points


def draw_seed(left: Node, right: Node) -> str:
    """What points for this pair are drawn from: the same in either order."""
    return modular.Draw(left, right).digest.hex()


def _has_infinity(node: Node) -> bool:
    return any(n.op == "const" and n.value == "inf" for n in walk(node))


def _end(node: Node) -> int | None:
    """1 and -1 for plus and minus infinity."""
    if node.op == "neg":
        inner = _end(node.args[0])
        return -inner if inner else None
    return 1 if node == _INFINITY else None


def _is_step(node: Node) -> bool:
    return node.op == "func" and node.value in ("floor", "ceil") and bool(symbols(node))


def _branches(node: Node) -> bool:
    """Whether it may follow one rule here and another there."""
    if node.op == "func":
        return node.value in _BRANCHING and bool(symbols(node))
    return node.op == "root" and _is_even(node.args[1]) and bool(symbols(node))


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


def _largest(nodes: Iterable[Node]) -> int:
    """A size beyond the numbers of an expression, where a bound such as 5000 has set in."""
    return min(10**12, max([3 * int(abs(node.number)) for node in nodes if node.op == "num"], default=0))


def _points(names: list[str], seed: str, *, far: bool = False, size: int = 0) -> list[Point]:
    """Three points in the positive quadrant, where symbols usually are (there `\\sqrt{x^2}` is x), then mixed signs.

    Args:
        names: The symbols.
        seed: What the points are drawn from.
        far: Whether to look at larger values too, and at whole and half numbers.
        size: A further size to look at then.
    """
    draw = random.Random(seed).randint
    points = [Point({n: Fraction(draw(400_000, 2_600_000), 999_983) for n in names}, True) for _ in range(3)]
    mixed = [-1 if k % 2 else 1 for k in range(len(names))]
    for signs in ([-1] * len(names), mixed):
        values = {n: s * Fraction(draw(400_000, 2_600_000), 999_979) for n, s in zip(names, signs, strict=True)}
        points.append(Point(values, False))
    if far:
        for scale in (10, 100, 1_000, *([size] if size > 1_000 else [])):
            for sign in (1, -1):
                values = {n: sign * Fraction(scale * draw(10**6, 3 * 10**6), 2 * 999_983) for n in names}
                points.append(Point(values, False))
        for scale in (3, 40):
            points.append(Point({n: Fraction(draw(-scale, scale)) for n in names}, False))
            points.append(Point({n: Fraction(2 * draw(-scale, scale) + 1, 2) for n in names}, False))
    return points


def _lattice(names: list[str], seed: str) -> list[Point]:
    """Many whole numbers, small and large, for steps; other numbers too where a symbol need not be whole."""
    draw = random.Random(seed).randint
    points = [Point({n: Fraction(k if n == names[0] else draw(1, 40)) for n in names}, True) for k in range(1, 26)]
    for size in (10**2, 10**3, 10**4, 10**6, 10**12):
        points += [Point({n: Fraction(draw(size // 10, size)) for n in names}, True) for _ in range(3)]
    if not INTEGERS.issuperset(names):
        for size in (3, 50, 10**4):
            points += [Point({n: Fraction(draw(-size * 997, size * 997), 997) for n in names}, False) for _ in range(5)]
        for size in (4, 60):
            points += [Point({n: Fraction(2 * draw(-size, size) + 1, 2) for n in names}, False) for _ in range(2)]
    return points


def whole_points(names: list[str], seed: str) -> list[Point]:
    """Whole numbers from 1 on: the first in a row, so that short periods show, and larger ones of each parity."""
    draw = random.Random(seed).randint
    points = [Point({n: Fraction(k if n == names[0] else draw(1, 30)) for n in names}, True) for k in range(1, 17)]
    for size in (10**2, 10**3, 10**5):
        for parity in (0, 1):
            points += [Point({n: Fraction(2 * draw(size // 20, size // 2) + parity) for n in names}, True)]
    return points


# -- values


def close(left: Node, right: Node, point: Point, seed: str = "", same_domain: bool = False) -> bool | None:
    """Whether the values agree at a point; None when there is no telling."""
    values: Mapping[str, Fraction] = point.values
    try:
        for look in looks((left, right), values, seed):
            settled = look.is_final or not look.guessed
            if not point.binding and settled and not all(look.real):
                return False if same_domain and look.real[0] != look.real[1] else None
            (a, b), error = look.values, max(look.errors) + 1
            apart = mag(a - b)
            if apart > error and settled:
                return False
            if look.is_final:
                size = max(mag(a), mag(b), 0)
                return True if error <= size - GOOD_BITS else None
    except Exhausted:
        raise
    except Undecided:
        return None
    return None


def far_apart(left: Node, right: Node) -> bool:
    """Whether two numbers certainly differ by more than rounding, by two parts in a hundred; each is computed once."""
    with OneBudget():
        try:
            a, b = evaluate(left), evaluate(right)
        except Undecided:
            return False
        return bool(50 * abs(a - b) > max(abs(a), abs(b)))
