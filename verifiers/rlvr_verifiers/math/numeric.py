"""Values of expressions: exact rationals, and numbers of 50 digits at chosen points. Every step is bounded first.

Arithmetic of one check costs microseconds to a few milliseconds. What a guard refuses is `Undecided`: it is never
computed, and never equal to anything but itself.
"""

from __future__ import annotations

import functools
import math
import random
import threading
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from .tree import Node, walk, words

MAX_BITS = 16_000
"""Largest numerator or denominator of exact arithmetic."""
MAX_FACTORIAL = 1_500
"""Largest n whose factorial is multiplied out; beyond, it is the gamma function's 50 digits."""
MAX_LOG = 1e6
"""A power or exponential beyond e^±MAX_LOG is not computed."""
MAX_ANGLE = 1e9
MAX_COST = 4_000
"""Most steps of one numeric evaluation, weighed by `_COSTS`; a step takes about 2 microseconds."""
_SNAP = 1e-30
"""A value this close to a whole number is that number to `floor` and `ceil`: rounding noise must not move a step."""
DIGITS = (50, 110)
"""Digits of the first look, and of the second, which tells a tiny value from rounding noise."""


class Undecided(ArithmeticError):
    """The value is over a limit, or no number at all."""


# -- exact


def exact(node: Node) -> Fraction | None:
    """The value as an exact rational; None when it is irrational, not a number, or over a limit."""
    try:
        return _exact(node)
    except (Undecided, ZeroDivisionError):
        return None


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
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
        return Fraction(math.factorial(_natural(args[0])))
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


def context(digits: int = DIGITS[0]) -> Any:
    """An mpmath context of this thread: mpmath's shared one changes its precision as it computes."""
    context = getattr(_local, f"digits_{digits}", None)
    if context is None:
        from mpmath.ctx_mp import MPContext

        context = MPContext()
        context.dps = digits
        setattr(_local, f"digits_{digits}", context)
    return context


def evaluate(node: Node, digits: int = DIGITS[0], point: Mapping[str, Fraction] | None = None) -> Any:
    """The value as an mpmath number of `digits` digits, complex where it must be.

    Args:
        node: The expression.
        digits: One of `DIGITS`.
        point: A value for every free symbol.

    Raises:
        Undecided: If it has no value there, or computing it would cost too much.
    """
    return evaluate_real(node, digits, point)[0]


def evaluate_real(node: Node, digits: int = DIGITS[0], point: Mapping[str, Fraction] | None = None) -> tuple[Any, bool]:
    """As `evaluate`, and whether the expression is defined there over the reals: no root or logarithm left them."""
    evaluation = _Evaluation(context(digits), point or {})
    try:
        value = evaluation.of(node)
    except (ZeroDivisionError, ValueError, OverflowError, TypeError, evaluation.mp.NoConvergence) as error:
        raise Undecided from error
    if evaluation.mp.isnan(value):
        raise Undecided
    return value, evaluation.real and not evaluation.mp.im(value)


class _Evaluation:
    def __init__(self, mp: Any, point: Mapping[str, Fraction]) -> None:
        self.mp = mp
        self.point = point
        self.real = True

    def rational(self, value: Fraction) -> Any:
        return self.mp.mpf(value.numerator) / value.denominator

    def of(self, node: Node) -> Any:
        op, mp = node.op, self.mp
        if op == "num":
            return self.rational(node.number)
        if op == "sym":
            if node.value not in self.point:
                raise Undecided
            return self.rational(self.point[node.value])
        if op == "const":
            constants = {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1), "inf": mp.inf}
            return constants[node.value]
        if op not in _NUMERIC:
            raise Undecided
        if op == "pow" and node.args[0] == Node("const", value="e"):
            return self.exp(self.of(node.args[1]))
        args = [self.of(arg) for arg in node.args]
        if op == "add":
            return functools.reduce(lambda a, b: a + b, args)
        if op == "mul":
            return functools.reduce(lambda a, b: a * b, args)
        if op == "neg":
            return -args[0]
        if op == "div":
            return args[0] / args[1]
        if op == "pct":
            return args[0] / 100
        if op == "deg":
            return args[0] * mp.pi / 180
        if op == "pow":
            return self.noted(self.power(args[0], args[1]))
        if op == "root":
            return self.noted(self.root(args[0], args[1]))
        if op == "fact":
            return self.factorial(args[0]) if node.value == "!" else self.double_factorial(args[0])
        if op == "app":
            return self.unknown(node.value, args)
        return self.noted(self.function(node.value, args))

    def noted(self, value: Any) -> Any:
        if self.mp.im(value):
            self.real = False
        return value

    def exp(self, x: Any) -> Any:
        if abs(x) > MAX_LOG:
            raise Undecided
        return self.mp.exp(x)

    def power(self, base: Any, exponent: Any) -> Any:
        if base == 0:
            if exponent == 0:
                return self.mp.mpf(1)
            if self.mp.re(exponent) < 0:
                raise ZeroDivisionError
            return self.mp.mpf(0)
        if abs(exponent) * max(abs(self.mp.log(abs(base))), 1e-3) > MAX_LOG:
            raise Undecided
        return self.mp.power(base, exponent)

    def root(self, value: Any, index: Any) -> Any:
        if index == 2:
            return self.mp.sqrt(value)
        if index == 0:
            raise ZeroDivisionError
        if self.mp.im(value) == 0 and self.mp.re(value) < 0 and self.mp.isint(index) and int(index) % 2:
            return -self.power(-value, 1 / index)
        return self.power(value, 1 / index)

    def factorial(self, x: Any) -> Any:
        if abs(x) > MAX_LOG:
            raise Undecided
        return self.mp.factorial(x)

    def double_factorial(self, x: Any) -> Any:
        if abs(x) > MAX_LOG:
            raise Undecided
        return self.mp.fac2(x)

    def unknown(self, name: str, args: list[Any]) -> Any:
        """A value for `f(...)` that depends on nothing but `f` and the arguments."""
        seen = ",".join(self.mp.nstr(arg, 25) for arg in args)
        return self.mp.mpf(random.Random(f"{name}({seen})").uniform(0.4, 2.4))

    def function(self, name: str, args: list[Any]) -> Any:
        mp, x = self.mp, args[0]
        if name == "binom":
            if max(abs(arg) for arg in args) > MAX_LOG:
                raise Undecided
            return mp.binomial(*args)
        if name in ("min", "max", "floor", "ceil"):
            if any(mp.im(arg) for arg in args):
                raise Undecided
            real = [mp.re(arg) for arg in args]
            if name in ("min", "max"):
                return min(real) if name == "min" else max(real)
            nearest = mp.nint(real[0])
            return nearest if abs(nearest - real[0]) < _SNAP else getattr(mp, name)(real[0])
        if abs(x) > (MAX_LOG if name in ("exp", "sinh", "cosh", "tanh") else MAX_ANGLE) and name not in _TAME:
            raise Undecided
        if name == "abs":
            return abs(x)
        if name == "exp":
            return self.exp(x)
        if name == "cbrt":
            return self.root(x, mp.mpf(3))
        if name in ("log", "lg", "ln"):
            if x == 0:
                raise ZeroDivisionError
            return mp.log(x) if name == "ln" else mp.log10(x)
        return getattr(mp, _MPMATH.get(name, name))(x)


_COSTS = {"fact": 100, "pow": 5, "root": 5, "func": 5, "app": 20}


def cost(*trees: Node) -> int:
    """About how many steps it takes to evaluate all the trees."""
    return sum(150 if node.value == "binom" else _COSTS.get(node.op, 1) for tree in trees for node in walk(tree))


_NUMERIC = words("add mul neg div pct deg pow root fact app func")
_TAME = frozenset({"abs", "ln", "log", "lg", "cbrt"})
_MPMATH = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}


def rational_near(node: Node) -> Fraction | None:
    """The real value as a rational good to 40 digits, or None."""
    found = exact(node)
    if found is not None:
        return found
    try:
        value = evaluate(node)
    except Undecided:
        return None
    mp = context(DIGITS[0])
    if mp.im(value) or mp.isinf(value):
        return None
    sign, mantissa, exponent, _ = mp.re(value)._mpf_
    if abs(exponent) > 10_000:
        return None
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent
