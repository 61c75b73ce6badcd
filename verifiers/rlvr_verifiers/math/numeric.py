"""Values of expressions: exact rationals, and numbers of many digits at chosen points. Every step is bounded first.

A number is first computed to `DIGITS`, and again to more when the sizes that it met on the way, of 10^60 or of
10^-60, could hide a difference that matters. What a guard refuses is `Undecided`: it is never computed, and never
equal to anything but itself. `budget.OneBudget` bounds all that one comparison computes.
"""

from __future__ import annotations

import functools
import math
import random
import threading
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from .balls import MAX_SIZE, Ball, mag, price
from .budget import Budget, OneBudget, Undecided, spend
from .tree import Node, walk

__all__ = ["DIGITS", "MAX_COST", "Look", "Undecided", "context", "cost", "evaluate", "evaluate_real", "exact", "looks"]

MAX_BITS = 16_000
"""Largest numerator or denominator of exact arithmetic."""
MAX_FACTORIAL = 1_500
"""Largest n whose factorial is multiplied out."""
MAX_COST = 4_000
"""Most steps of one numeric evaluation, weighed by `price`."""
DIGITS = 120
"""Digits of the first look."""
_LEVELS = (DIGITS, 200, 300, 450, 700, 1_000, 1_500)
_FREE_BITS = 512


# -- exact


def exact(node: Node) -> Fraction | None:
    """The value as an exact rational; None when it is irrational, not a number, or over a limit."""
    if node.op == "num":
        return node.number
    if node.op == "sym":
        return None
    with OneBudget() as budget:
        if budget.exact and node in budget.exact:
            return budget.exact[node]
        before = budget.left
        try:
            found = _exact(node)
        except (Undecided, ValueError, IndexError, ZeroDivisionError):
            found = None
        if budget.left < before:
            budget.exact[node] = found
        return found


def _bounded(value: Fraction) -> Fraction:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if bits > _FREE_BITS:
        spend((bits // _FREE_BITS) ** 2)
        if bits > MAX_BITS:
            raise Undecided
    return value


def _exact(node: Node) -> Fraction:
    op, args = node.op, node.args
    if op == "num":
        return node.number
    if op == "neg":
        return -_exact(args[0])
    if op == "add":
        total = Fraction(0)
        for arg in args:
            total = _bounded(total + _exact(arg))
        return total
    if op == "mul":
        product = Fraction(1)
        for arg in args:
            product = _bounded(product * _exact(arg))
        return product
    if op == "div":
        return _bounded(_exact(args[0]) / _exact(args[1]))
    if op == "pct":
        return _exact(args[0]) / 100
    if op == "pow":
        return _exact_power(_exact(args[0]), _exact(args[1]))
    if op == "root":
        return _exact_root(_exact(args[0]), _exact(args[1]))
    if op == "fact" and node.value == "!":
        return Fraction(_factorial(_natural(args[0])))
    if op == "fact":
        return Fraction(math.prod(range(_natural(args[0]), 0, -2)))
    if op == "func" and node.value == "binom":
        return Fraction(math.comb(_natural(args[0]), _natural(args[1])))
    if op == "func" and node.value in ("abs", "floor", "ceil"):
        inner = _exact(args[0])
        if node.value == "abs":
            return abs(inner)
        return Fraction(math.floor(inner) if node.value == "floor" else math.ceil(inner))
    if op == "func" and node.value in ("min", "max"):
        values = [_exact(arg) for arg in args]
        return min(values) if node.value == "min" else max(values)
    raise Undecided


@functools.lru_cache(maxsize=32)
def _factorial(n: int) -> int:
    return math.factorial(n)


def _natural(node: Node) -> int:
    value = _exact(node)
    if value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise Undecided
    return value.numerator


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        if exponent.denominator > 64 or base < 0:
            raise Undecided
        return _exact_power(_exact_root(base, Fraction(exponent.denominator)), Fraction(exponent.numerator))
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits > 1 and bits * abs(exponent.numerator) > MAX_BITS:
        raise Undecided
    if abs(base) <= 1 and base.denominator == 1:
        if base == 0 and exponent < 0:
            raise ZeroDivisionError
        return Fraction(1) if exponent == 0 or base == 1 else base if exponent % 2 or base == 0 else -base
    return base**exponent.numerator


def _exact_root(value: Fraction, index: Fraction) -> Fraction:
    """The rational root, if there is one; of a negative number only for an odd index."""
    n = index.numerator
    if index.denominator != 1 or not 1 <= n <= 64 or (value < 0 and n % 2 == 0):
        raise Undecided
    root = Fraction(_whole_root(abs(value.numerator), n), _whole_root(value.denominator, n))
    return -root if value < 0 else root


def _whole_root(value: int, n: int) -> int:
    if n == 2:
        root = math.isqrt(value)
    else:
        if value.bit_length() > 1_000:
            raise Undecided
        root = round(2 ** (math.log2(value) / n)) if value else 0
    if root**n != value:
        raise Undecided
    return root


# -- numeric

_local = threading.local()


def context(digits: int = DIGITS) -> Any:
    """An mpmath context of this thread: mpmath's shared one changes its precision as it computes."""
    context = getattr(_local, f"digits_{digits}", None)
    if context is None:
        from mpmath.ctx_mp import MPContext

        context = MPContext()
        context.dps = digits
        setattr(_local, f"digits_{digits}", context)
    return context


class Look(NamedTuple):
    """What some trees come to at one point.

    Attributes:
        values: mpmath numbers of `context(digits)`.
        errors: The bound of the error of each, as a power of two.
        real: Whether each is defined over the reals there: no root or logarithm left them.
        digits: The digits that were computed with.
        is_final: Whether they are enough for the sizes met; if not, only a difference beyond the errors means anything.
        guessed: Whether a number was taken for a whole one, or for 0, that may not be one when it is not final.
    """

    values: tuple[Any, ...]
    errors: tuple[int, ...]
    real: tuple[bool, ...]
    digits: int
    is_final: bool
    guessed: bool


def looks(
    trees: tuple[Node, ...], point: Mapping[str, Fraction], seed: str = "", margin: int = 110, start: int = DIGITS
) -> Iterator[Look]:
    """Values of the trees, with more and more digits until there are enough: `margin` and 2.5 times the sizes met.

    Args:
        trees: The expressions.
        point: A value for every free symbol.
        seed: What the values of unknown functions are drawn from.
        margin: Digits wanted when all numbers are near 1.
        start: Digits of the first look.

    Raises:
        Undecided: If one has no value there, or computing it would cost too much.
    """
    digits = start
    with OneBudget() as budget:
        while True:
            found = [_value(tree, digits, point, seed, budget) for tree in trees]
            need = margin + 0.7526 * max([value.size for value in found])
            if all(value.error is not None for value in found):
                yield Look(
                    tuple([value.number for value in found]),
                    tuple([value.error for value in found if value.error is not None]),
                    tuple([value.real for value in found]),
                    digits,
                    need <= digits,
                    any(value.guessed for value in found),
                )
                if need <= digits:
                    return
            elif need <= digits:
                raise Undecided
            digits = next((level for level in _LEVELS if level >= need and level > digits), 0)
            if not digits:
                raise Undecided


class _Value(NamedTuple):
    """What a `Ball` found; without an `error` there is no value, at least not to so few digits."""

    number: Any
    error: int | None
    real: bool
    size: int
    guessed: bool


def _value(tree: Node, digits: int, point: Mapping[str, Fraction], seed: str, budget: Budget) -> _Value:
    """The value to so many digits; a number is computed once in a comparison, however often it is compared."""
    key = None if point else (tree, digits, seed)
    if key in budget.values:
        return budget.values[key]
    mp = context(digits)
    ball = Ball(mp, point, budget, functools.partial(_constants, seed))
    try:
        number, error = ball.of(tree)
        mag(number)
        found = _Value(number, error, ball.real and not mp.im(number), ball.size, ball.guessed)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError, IndexError, mp.NoConvergence):
        found = _Value(None, None, False, ball.size, ball.guessed)
    if key:
        budget.values[key] = found
    return found


def _constants(seed: str, name: str) -> tuple[Fraction, ...]:
    draw = random.Random(f"{seed} {name}").randint
    return tuple(Fraction(draw(10**9, 3 * 10**9), 1_234_567_891) for _ in range(12))


def evaluate(node: Node, point: Mapping[str, Fraction] | None = None) -> Any:
    """The value as an mpmath number good to 50 digits and more, complex where it must be.

    Args:
        node: The expression.
        point: A value for every free symbol.

    Raises:
        Undecided: If it has no value there, or computing it would cost too much.
    """
    return evaluate_real(node, point)[0]


def evaluate_real(node: Node, point: Mapping[str, Fraction] | None = None) -> tuple[Any, bool]:
    """As `evaluate`, and whether the expression is defined there over the reals: no root or logarithm left them."""
    *_, last = looks((node,), point or {}, margin=60)
    return context().convert(last.values[0]), last.real[0]


def cost(*trees: Node) -> int:
    """About how many steps it takes to evaluate all the trees."""
    return sum(price(node) for tree in trees for node in walk(tree))


def rational_near(node: Node) -> Fraction | None:
    """The real value as a rational good to 40 digits, or None."""
    found = exact(node)
    if found is not None:
        return found
    try:
        value = evaluate(node)
    except Undecided:
        return None
    if context().im(value) or abs(mag(value)) > MAX_SIZE:
        return None if value else Fraction(0)
    sign, mantissa, exponent, _ = context().re(value)._mpf_
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent
