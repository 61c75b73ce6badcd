"""Evaluates a tree with mpmath, and bounds the error of every value on the way.

A value that is no larger than its own error is 0. It may not be divided by, nor have a logarithm: so `sin(pi)/sin(pi)`
has no value. `Ball.size` says how large or small the numbers were that were met, from which the digits follow that it
takes to see a difference (`needed`); until there are as many, a value that looks like 0 or like a whole number may not
be one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from .budget import Budget, Undecided
from .tree import Node, words

MAX_SIZE = 1_840
"""Numbers beyond 2^±MAX_SIZE are not computed: it would take more digits than there may be."""
MAX_ANGLE = 1e9
MAX_GAMMA = 1_000
"""Largest argument of a factorial or binomial that is not a whole number."""
MAX_GAMMA_BITS = 1_100
MAX_FACTORIAL = 2_000
NOTHING = -(10**9)
"""The error of an exact value, and the size of 0, as a power of two."""
_COSTS = {"fact": 60, "pow": 5, "root": 5, "func": 5, "app": 10}
_SLOW = {"arcsin": 16, "arccos": 16, "arctan": 8, "binom": 100}
_E = Node("const", value="e")
_NUMERIC = words("add mul neg div pct deg pow root fact app func")
_TRIG = {"tan": ("sin", "cos"), "cot": ("cos", "sin"), "sec": ("", "cos"), "csc": ("", "sin")}


class Ball:
    """One evaluation at one point. `of` gives a value and its error, as a power of two.

    Raises (all methods):
        Undecided: If there is no value, or it would cost too much.
        ZeroDivisionError: If there is no value, unless more digits show that a divisor is not 0.
    """

    def __init__(
        self, mp: Any, point: Mapping[str, Fraction], budget: Budget, constants: Callable[[str], tuple[Fraction, ...]]
    ) -> None:
        self.mp = mp
        self.bits: int = mp.prec
        self.point = point
        self.budget = budget
        self.constants = constants
        self.places: dict[str, tuple[Any, int]] = {}
        self.real = True
        self.size = 0
        self.guessed = False

    def of(self, node: Node) -> tuple[Any, int]:
        op = node.op
        self.budget.spend(price(node) * (1 if self.bits < 700 else self.bits // 350))
        if op == "num":
            return self.rational(node.number)
        if op == "sym":
            if node.value not in self.point:
                raise Undecided
            place = self.places.get(node.value)
            if place is None:
                place = self.places[node.value] = self.rational(self.point[node.value])
            return place
        if op == "const":
            return self.constant(node.value)
        if op not in _NUMERIC:
            raise Undecided
        if op == "pow" and node.args[0] == _E:
            return self.noted(*self.exp(*self.of(node.args[1])))
        args = [self.of(arg) for arg in node.args]
        if op == "add":
            total = args[0][0]
            for term, _ in args[1:]:
                total = total + term
            top = max([mag(term) for term, _ in args])
            return self.kept(total, max(max([e for _, e in args]), top - self.bits) + len(args).bit_length())
        if op == "mul":
            return self.product(args)
        if op == "neg":
            return -args[0][0], args[0][1]
        if op == "div":
            return self.quotient(args[0], args[1])
        if op == "pct":
            return self.quotient(args[0], self.rational(Fraction(100)))
        if op == "deg":
            return self.quotient(self.product([args[0], self.constant("pi")]), self.rational(Fraction(180)))
        if op == "pow":
            return self.noted(*self.power(args[0], args[1]))
        if op == "root":
            return self.noted(*self.root(args[0], args[1]))
        if op == "fact":
            return self.factorial(args[0], 1 if node.value == "!" else 2)
        if op == "app":
            if node.value == "Gamma" and len(args) == 1:
                return self.factorial(self.sum(args[0], self.rational(Fraction(-1))), 1)
            return self.unknown(node.value, args)
        if not args:
            raise Undecided
        return self.noted(*self.function(node.value, args))

    # -- keeping account

    def kept(self, value: Any, error: int) -> tuple[Any, int]:
        """The value without what is noise in it, and its error with that of rounding."""
        if type(value) is self.mp.mpc:
            real, imag = value.real, value.imag
            if mag(imag) <= max(error, mag(real) - self.bits):
                value = real
            elif mag(real) <= max(error, mag(imag) - self.bits):
                value = self.mp.mpc(0, imag)
        size = mag(value)
        if size <= error:
            if size > NOTHING:
                self.guessed = True
            return self.mp.zero, error
        if size > self.size or -size > self.size:
            self.size = abs(size)
            if self.size > MAX_SIZE:
                raise Undecided
        return value, max(error, size - self.bits)

    def noted(self, value: Any, error: int) -> tuple[Any, int]:
        """Takes note of a value that is not real, and of one near 1: `cos` and powers of powers get very near it."""
        if type(value) is self.mp.mpc:
            if value.imag:
                self.real = False
        elif 0 <= mag(value) <= 1:
            off = mag(abs(value) - 1)
            if off > error and -off > self.size:
                self.size = -off
                if self.size > MAX_SIZE:
                    raise Undecided
        return value, error

    def relative(self, ball: tuple[Any, int]) -> int:
        return max(ball[1] - mag(ball[0]) + 1, -self.bits)

    # -- arithmetic

    def rational(self, number: Fraction) -> tuple[Any, int]:
        if number.denominator == 1:
            value = self.mp.mpf(number.numerator)
        else:
            value = self.mp.mpf(number.numerator) / number.denominator
        return self.kept(value, NOTHING)

    def constant(self, name: str) -> tuple[Any, int]:
        if name == "i":
            return self.mp.mpc(0, 1), NOTHING
        if name == "inf":
            raise Undecided
        return (+self.mp.pi if name == "pi" else +self.mp.e), 2 - self.bits

    def product(self, args: list[tuple[Any, int]]) -> tuple[Any, int]:
        value = args[0][0]
        for factor, _ in args[1:]:
            value = value * factor
        extra = len(args).bit_length() + 1
        if value == 0:
            return self.mp.zero, sum([error if not factor else mag(factor) for factor, error in args]) + extra
        return self.kept(value, mag(value) + max([self.relative(arg) for arg in args]) + extra)

    def quotient(self, top: tuple[Any, int], bottom: tuple[Any, int]) -> tuple[Any, int]:
        if bottom[0] == 0:
            raise ZeroDivisionError
        if top[0] == 0:
            return self.mp.zero, top[1] - mag(bottom[0]) + 1
        value = top[0] / bottom[0]
        return self.kept(value, mag(value) + max(self.relative(top), self.relative(bottom)) + 2)

    def exp(self, x: Any, error: int) -> tuple[Any, int]:
        if abs(self.mp.re(x)) > MAX_SIZE or abs(x) > MAX_ANGLE:
            raise Undecided
        value = self.mp.exp(x)
        return self.kept(value, mag(value) + max(error, mag(x) - self.bits, -self.bits) + 1)

    def power(self, base: tuple[Any, int], exponent: tuple[Any, int]) -> tuple[Any, int]:
        mp, (x, x_error), (y, y_error) = self.mp, base, exponent
        if x == 0:
            if y == 0:
                return mp.mpf(1), NOTHING
            if mp.re(y) < 0:
                raise ZeroDivisionError
            if mp.re(y) == 0:
                raise Undecided
            return mp.zero, max(NOTHING, math.floor(x_error * float(min(mp.re(y), 1_000)))) + 1
        if y == 0:
            return mp.mpf(1), max(y_error + 8, -self.bits)
        if abs(y) > 1e12:
            raise Undecided
        size, times = abs(mag(x)) + 1, abs(y)
        if size * times > MAX_SIZE and times * max(abs(mp.log(abs(x))), 1e-6) > MAX_SIZE:
            raise Undecided
        value = mp.power(x, y)
        relative = max(self.relative(base) + mag(y), y_error + max(size.bit_length(), 2), -self.bits) + 2
        return self.kept(value, mag(value) + relative)

    def root(self, ball: tuple[Any, int], index: tuple[Any, int]) -> tuple[Any, int]:
        mp, (x, error), n = self.mp, ball, index[0]
        if n == 0:
            raise ZeroDivisionError
        if x == 0:
            if mp.re(n) <= 0:
                raise ZeroDivisionError
            return mp.zero, math.floor(error / float(max(mp.re(n), 1))) + 1 if error > NOTHING else NOTHING
        if n == 2:
            value = mp.sqrt(x)
            return self.kept(value, mag(value) + self.relative(ball))
        inverse = self.quotient((mp.mpf(1), NOTHING), index)
        if mp.im(x) == 0 and mp.re(x) < 0 and mp.isint(n) and int(n) % 2:
            value, error = self.power((-x, error), inverse)
            return -value, error
        return self.power(ball, inverse)

    def factorial(self, ball: tuple[Any, int], step: int) -> tuple[Any, int]:
        mp, (x, error) = self.mp, ball
        whole = self.whole(ball)
        if whole is not None and whole >= 0:
            if whole > MAX_FACTORIAL:
                raise Undecided
            exact = math.factorial(whole) if step == 1 else math.prod(range(whole, 0, -2))
            return self.kept(mp.mpf(exact), NOTHING)
        if type(x) is mp.mpc or abs(x) > MAX_GAMMA or self.bits > MAX_GAMMA_BITS:
            raise Undecided
        if whole is not None and (step == 1 or whole % 2 == 0):
            raise ZeroDivisionError
        value = mp.factorial(x) if step == 1 else mp.fac2(x)
        return self.kept(value, mag(value) + max(error, -self.bits) + 12 - min(0, mag(x - mp.nint(x))))

    def whole(self, ball: tuple[Any, int]) -> int | None:
        """The whole number that the value is, as far as can be seen."""
        x, error = ball
        if type(x) is self.mp.mpc:
            return None
        nearest = self.mp.nint(x)
        off = mag(nearest - x)
        if off > error:
            return None
        if error > NOTHING and error > mag(x) - self.bits:
            self.guessed = True
        return int(nearest)

    def unknown(self, name: str, args: list[tuple[Any, int]]) -> tuple[Any, int]:
        """A value for `f(...)`: a smooth function that only the two expressions compared know."""
        scales = self.constants(f"{name}/{len(args)}")
        scaled = [self.product([arg, self.rational(scale)]) for arg, scale in zip(args, scales[3:], strict=False)]
        if len(scaled) < len(args):
            raise Undecided
        inner, error = self.mp.zero, NOTHING
        for value, off in scaled:
            inner, error = inner + value, max(error, off, mag(value) - self.bits) + 1
        value, off = self.wave("cos", inner + self.rational(scales[0])[0], max(error, 2 - self.bits) + 1)
        slope, base = self.rational(scales[1])[0], self.rational(scales[2])[0]
        top = max(mag(inner), mag(value), 2)
        return self.kept(value * base + slope * inner, max(error, off, top - self.bits) + 4)

    # -- functions

    def function(self, name: str, args: list[tuple[Any, int]]) -> tuple[Any, int]:
        mp, (x, error) = self.mp, args[0]
        if name == "binom":
            return self.binomial(args)
        if name in ("min", "max", "floor", "ceil"):
            if any(type(arg) is mp.mpc for arg, _ in args):
                raise Undecided
            if name in ("min", "max"):
                picked = (min if name == "min" else max)([arg for arg, _ in args])
                return picked, max([e for _, e in args])
            whole = self.whole(args[0])
            return self.kept(mp.mpf(whole) if whole is not None else getattr(mp, name)(x), NOTHING)
        if name == "abs":
            return abs(x), error
        if name == "exp":
            return self.exp(x, error)
        if name == "cbrt":
            return self.root(args[0], (mp.mpf(3), NOTHING))
        if name in ("log", "lg", "ln"):
            if x == 0:
                raise ZeroDivisionError
            value = mp.log(x) if name == "ln" else mp.log10(x)
            return self.kept(value, max(self.relative(args[0]) + 1, mag(value) - self.bits))
        if name in ("arcsin", "arccos"):
            left = 1 - x * x
            loss = mag(left) if mag(left) > error + 2 else error
            value = mp.asin(x) if name == "arcsin" else mp.acos(x)
            off = error - loss // 2 if error > NOTHING else NOTHING
            return self.kept(value, max(off + 2, mag(value) - self.bits))
        if name == "arctan":
            left = 1 + x * x
            if left == 0:
                raise ZeroDivisionError
            value = mp.atan(x)
            return self.kept(value, max(error + 1 - min(0, mag(left)), mag(value) - self.bits))
        if abs(x) > MAX_ANGLE:
            raise Undecided
        if name in _TRIG:
            over, under = _TRIG[name]
            top = self.wave(over, x, error) if over else (mp.mpf(1), NOTHING)
            return self.quotient(top, self.wave(under, x, error))
        if name in ("sin", "cos"):
            return self.wave(name, x, error)
        return self.hyperbolic(name, x, error)

    def wave(self, name: str, x: Any, error: int) -> tuple[Any, int]:
        growth = 1
        if type(x) is self.mp.mpc:
            growth = self.grown(abs(x.imag))
        value = self.mp.sin(x) if name == "sin" else self.mp.cos(x)
        return self.kept(value, max(error + growth, mag(value) - self.bits))

    def grown(self, x: Any) -> int:
        """The bits of e^x, which are as many digits as it may take to tell `tanh(x)` from 1."""
        if x > MAX_SIZE:
            raise Undecided
        bits = math.ceil(float(x) * 1.4427) + 1
        self.size = max(self.size, 2 * bits)
        return bits

    def hyperbolic(self, name: str, x: Any, error: int) -> tuple[Any, int]:
        if name not in ("sinh", "cosh", "tanh"):
            raise Undecided
        growth = self.grown(abs(self.mp.re(x)))
        if name == "tanh":
            growth = 1
            if type(x) is self.mp.mpc:
                return self.quotient(self.hyperbolic("sinh", x, error), self.hyperbolic("cosh", x, error))
        value = getattr(self.mp, name)(x)
        return self.kept(value, max(error + growth, mag(value) - self.bits))

    def binomial(self, args: list[tuple[Any, int]]) -> tuple[Any, int]:
        mp = self.mp
        n, k = (self.whole(arg) for arg in args)
        if n is not None and k is not None and 0 <= n <= MAX_FACTORIAL:
            return self.kept(mp.mpf(math.comb(n, k) if k >= 0 else 0), NOTHING)
        large = any(type(arg) is mp.mpc or abs(arg) > MAX_GAMMA for arg, _ in args)
        if large or self.bits > MAX_GAMMA_BITS:
            raise Undecided
        if k is not None and k >= 0:  # any upper index: n (n-1) ... / k!
            if k > 64:
                raise Undecided
            one = (mp.mpf(1), NOTHING)
            factors = [one, *(self.sum(args[0], self.rational(Fraction(-j))) for j in range(k))]
            return self.quotient(self.product(factors), (mp.mpf(math.factorial(k)), NOTHING))
        value = mp.binomial(args[0][0], args[1][0])
        return self.kept(value, mag(value) + max(args[0][1], args[1][1], -self.bits) + 24)

    def sum(self, a: tuple[Any, int], b: tuple[Any, int]) -> tuple[Any, int]:
        return self.kept(a[0] + b[0], max(a[1], b[1], mag(a[0]) - self.bits, mag(b[0]) - self.bits) + 1)


def price(node: Node) -> int:
    """About how many steps it takes to evaluate the node itself."""
    return _SLOW.get(node.value, 5) if node.op == "func" else _COSTS.get(node.op, 1)


def mag(value: Any) -> int:
    """The least m with |value| < 2^m, for a complex one to a bit; `NOTHING` for 0.

    Raises:
        Undecided: If it is infinite or no number.
    """
    parts = getattr(value, "_mpf_", None)
    if parts is None:
        real, imag = value._mpc_
        return max(_mag(real), _mag(imag)) + 1
    return _mag(parts)


def _mag(parts: tuple[int, int, int, int]) -> int:
    _, mantissa, exponent, bits = parts
    if mantissa:
        return exponent + bits
    if exponent:
        raise Undecided
    return NOTHING
