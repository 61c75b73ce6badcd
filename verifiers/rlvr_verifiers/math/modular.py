r"""Decides whether two rational expressions are the same by their values modulo primes; nothing is too large for it.

It covers whole numbers, fractions, symbols, `\pi` and `i` under + - * / and whole powers, and whatever is exactly
rational below. `\pi` is transcendental, so it is one more symbol; `i` is a root of -1. A value that differs modulo one
prime refutes. Agreement at random points modulo two primes of 61 bits is a proof but for one chance in 2^80. The
primes and points are drawn from a hash of both expressions, so that no answer can be made to fit them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Mapping

from .budget import Undecided, spend
from .numeric import exact
from .tree import Node, walk

MAX_FACTORIAL = 100_000
MAX_POWER = 10**12
MAX_BITS = 20_000
"""Largest exact exponent or argument of a factorial that is looked at."""
_POOL = 64
_TRIES = 6
_SMALL = 3 * 5 * 7 * 11 * 13 * 17 * 19 * 23 * 29 * 31 * 37 * 41 * 43 * 47 * 53 * 59 * 61 * 67 * 71 * 73 * 79 * 83 * 89
_RATIONAL = frozenset({"add", "mul", "neg", "div", "pct", "deg", "pow", "fact", "func"})


class NotRationalError(ValueError):
    """The expression is no rational function of its symbols."""


def same(left: Node, right: Node) -> bool | None:
    """Whether two expressions are the same rational function; None when they are not rational, or undefined."""
    prepared = _prepared(left, right)
    if prepared is None:
        return None
    draw, wide, names = prepared
    agreed = 0
    for attempt in range(_TRIES):
        prime = draw.prime(attempt, wide)
        point = draw.residues(names, attempt, prime)
        try:
            if value(left, prime, point) != value(right, prime, point):
                return False
        except ZeroDivisionError:
            continue
        except (ValueError, IndexError, Undecided):
            return None
        agreed += 1
        if agreed == 2:
            return True
    return None


def are_proportional(left: Node, right: Node) -> bool | None:
    """Whether one is a constant times the other, the constant not 0; None when they are not rational."""
    prepared = _prepared(left, right)
    if prepared is None:
        return None
    draw, wide, names = prepared
    for attempt in range(2):
        prime = draw.prime(attempt, wide)
        ratios = set()
        for shift in range(3):
            point = draw.residues(names, attempt + _TRIES * shift, prime)
            try:
                a, b = value(left, prime, point), value(right, prime, point)
                if bool(a) != bool(b):
                    return False
                ratios.add(a * pow(b, -1, prime) % prime if b else None)
            except (ZeroDivisionError, ValueError, IndexError, Undecided):
                return None
        if len(ratios) > 1 or None in ratios:
            return False
    return True


def _prepared(left: Node, right: Node) -> tuple[Draw, bool, list[str]] | None:
    names, bits = set(), 0
    for node in itertools.chain(walk(left), walk(right)):
        if node.op == "num":
            bits += node.number.numerator.bit_length() + node.number.denominator.bit_length() - 1
        elif node.op == "sym":
            names.add(node.value)
        elif not _may_be_rational(node):
            return None
    return Draw(left, right), bits > 100, sorted(names)


def _may_be_rational(node: Node) -> bool:
    if node.op == "const":
        return node.value in ("pi", "i")
    if node.op == "root" or (node.op == "func" and node.value != "binom"):
        return exact(node) is not None
    return node.op in _RATIONAL


# -- values


def value(node: Node, prime: int, point: Mapping[str, int]) -> int:
    """The residue of an expression with those residues for its symbols.

    Raises:
        NotRationalError: If it is no rational function.
        ZeroDivisionError: If a denominator is 0 modulo the prime.
    """
    op, args = node.op, node.args
    if op == "num":
        number = node.number
        if number.denominator == 1:
            return number.numerator % prime
        return number.numerator * _inverse(number.denominator, prime) % prime
    if op == "sym":
        return point[node.value]
    if op == "const":
        return point["\\pi"] if node.value == "pi" else _unit(prime)
    if op == "add":
        return sum([value(arg, prime, point) for arg in args]) % prime
    if op == "mul":
        product = 1
        for arg in args:
            product = product * value(arg, prime, point) % prime
        return product
    if op == "neg":
        return -value(args[0], prime, point) % prime
    if op == "div":
        top = value(args[0], prime, point)
        return top * _inverse(value(args[1], prime, point), prime) % prime
    if op == "pct":
        return value(args[0], prime, point) * _inverse(100, prime) % prime
    if op == "deg":
        return value(args[0], prime, point) * point["\\pi"] * _inverse(180, prime) % prime
    if op == "pow":
        return _power(node, prime, point)
    if op == "fact":
        return _factorial(_natural(args[0]), 1 if node.value == "!" else 2, prime)
    if op == "func" and node.value == "binom":
        n, k = map(_natural, args)
        below = _factorial(k, 1, prime) * _factorial(n - k, 1, prime) if k <= n else 0
        return _factorial(n, 1, prime) * _inverse(below, prime) % prime if k <= n else 0
    return _known(node, prime)


def _known(node: Node, prime: int) -> int:
    found = exact(node)
    if found is None:
        raise NotRationalError
    return found.numerator * _inverse(found.denominator, prime) % prime


def _power(node: Node, prime: int, point: Mapping[str, int]) -> int:
    exponent = exact(node.args[1])
    if exponent is None or abs(exponent) > MAX_POWER:
        raise NotRationalError
    if exponent.denominator != 1:
        return _known(node, prime)
    base = value(node.args[0], prime, point)
    if exponent < 0:
        base = _inverse(base, prime)
    return pow(base, abs(exponent.numerator), prime)


def _inverse(residue: int, prime: int) -> int:
    if residue % prime == 0:
        raise ZeroDivisionError
    return pow(residue, -1, prime)


def _natural(node: Node) -> int:
    found = exact(node)
    if found is None or found.denominator != 1 or not 0 <= found <= MAX_FACTORIAL:
        raise NotRationalError
    return found.numerator


@functools.lru_cache(maxsize=64)
def _factorial(n: int, step: int, prime: int) -> int:
    spend(n // 40)
    product = 1
    for factor in range(n, 1, -step):
        product = product * factor % prime
    return product


@functools.lru_cache(maxsize=256)
def _unit(prime: int) -> int:
    """A root of -1; the primes are 1 modulo 4."""
    for base in range(2, 200):
        root = pow(base, (prime - 1) // 4, prime)
        if root * root % prime == prime - 1:
            return root
    raise NotRationalError


# -- what is drawn


class Draw:
    """Numbers drawn from a hash of two expressions: the same for the same pair in either order."""

    def __init__(self, left: Node, right: Node) -> None:
        self.seed = b"\0".join(sorted((_written(left), _written(right))))
        self.digest = hashlib.blake2b(self.seed, digest_size=32).digest()
        spend(8 + len(self.seed) // 64)

    def bits(self, purpose: str, count: int = 64) -> int:
        return int.from_bytes(hashlib.shake_128(purpose.encode() + self.digest).digest(count // 8), "big")

    def prime(self, index: int, wide: bool) -> int:
        """A prime of 61 bits, 1 modulo 4; from a fixed pool unless it is to be `wide`.

        Numbers of a hundred bits and less cannot hold two given primes, so only longer ones need fresh primes.
        """
        drawn = self.bits(f"prime {index}")
        return _search(drawn) if wide else _pooled((drawn + index) % _POOL)

    def residues(self, names: list[str], index: int, prime: int) -> dict[str, int]:
        """Values for the symbols, others for each index, and one for pi."""
        many = self.bits(f"point {index}", 128 * len(names)) if names else 0
        found = {"\\pi": self.bits("pi", 128) % prime}
        for name in names:
            found[name] = (many & (2**128 - 1)) % prime
            many >>= 128
        return found


def _written(node: Node) -> bytes:
    """The tree in Polish notation."""
    parts = []
    for n in walk(node):
        if n.op == "num":
            bottom = n.number.denominator
            parts.append(f"{n.number.numerator:x}" if bottom == 1 else f"{n.number.numerator:x}/{bottom:x}")
        else:
            parts.append(f"{n.op}{len(n.args)}{n.value}")
    return " ".join(parts).encode()


@functools.lru_cache(maxsize=_POOL)
def _pooled(index: int) -> int:
    return _search(int.from_bytes(hashlib.blake2b(b"prime %d" % index).digest()[:8], "big"))


def _search(start: int) -> int:
    """The first number of 61 bits from about there on that is 1 modulo 4 and a prime, to two tests."""
    number = (1 << 60) | (start & ((1 << 60) - 4)) | 1
    while True:
        if math.gcd(number, _SMALL) == 1 and pow(2, number - 1, number) == pow(3, number - 1, number) == 1:
            return number
        number += 4
