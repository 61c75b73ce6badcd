"""Where an expression in one variable is zero or changes sign, when it is made of factors of degree two and bars."""

from __future__ import annotations

import math
from fractions import Fraction

from .numeric import Undecided, context, evaluate_real, exact, rational_near
from .tree import Node, symbols, walk

MAX_BITS = 2_000
"""Largest numerator or denominator of a coefficient."""
MAX_BARS = 2
"""Most absolute values in a sum; each doubles the cases."""
MAX_POWER = 20
_SCALE = 10**60
_ZERO = Fraction(1, 10**25)


def zeros(node: Node) -> list[Fraction] | None:
    """Where its sign may change, to 40 digits, in order; None when it is too hard to say."""
    found = _zeros(node)
    if found is None:
        return None
    kept: list[Fraction] = []
    for zero in sorted(found):
        if not kept or zero - kept[-1] > _ZERO * max(Fraction(1), abs(zero)):
            kept.append(zero)
    return kept


def sign(node: Node, name: str, at: Fraction) -> int | None:
    """-1, 0 or 1 with that value of the variable; None where it is undefined."""
    try:
        value, real = evaluate_real(node, point={name: at})
    except Undecided:
        return None
    if not real:
        return None
    value = context().re(value)
    return 0 if abs(value) < float(_ZERO) else 1 if value > 0 else -1


def _zeros(node: Node) -> list[Fraction] | None:
    if not symbols(node):
        return []
    op, args = node.op, node.args
    if op == "neg" or (op == "func" and node.value == "abs"):
        return _zeros(args[0])
    if op == "pow":
        index = exact(args[1])
        if index is not None and index.denominator == 1 and abs(index) > 1 and _polynomial(node) is None:
            return _zeros(args[0]) if abs(index) <= MAX_POWER else None
    if op in ("mul", "div"):
        return _gathered([_zeros(arg) for arg in args])
    polynomial = _polynomial(node)
    if polynomial is not None:
        return _roots(*polynomial)
    bars = [n for n in walk(node) if n.op == "func" and n.value == "abs" and symbols(n)]
    if not bars or len(bars) > MAX_BARS:
        return None
    bar = bars[0]
    cases = (_replaced(node, bar, bar.args[0]), _replaced(node, bar, Node("neg", bar.args)))
    return _gathered([_zeros(bar.args[0]), *map(_zeros, cases)])


def _gathered(lists: list[list[Fraction] | None]) -> list[Fraction] | None:
    return None if None in lists else [zero for found in lists if found for zero in found]


def _replaced(node: Node, old: Node, new: Node) -> Node:
    if node is old or node == old:
        return new
    return node._replace(args=tuple(_replaced(arg, old, new) for arg in node.args)) if node.args else node


_Polynomial = tuple[Fraction, Fraction, Fraction]


def _polynomial(node: Node) -> _Polynomial | None:
    """The coefficients c, b, a of `a x^2 + b x + c`, or None."""
    if not symbols(node):
        value = rational_near(node)
        if value is None or max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            return None
        return value, Fraction(0), Fraction(0)
    if node.op == "sym":
        return Fraction(0), Fraction(1), Fraction(0)
    if node.op == "pow":
        square = exact(node.args[1]) == 2
        return _product(_polynomial(node.args[0]), _polynomial(node.args[0])) if square else None
    if node.op not in ("neg", "add", "mul", "div"):
        return None
    if node.op == "div" and symbols(node.args[1]):
        return None
    parts = [_polynomial(arg) for arg in node.args]
    if node.op == "neg":
        return _product(parts[0], (Fraction(-1), Fraction(0), Fraction(0)))
    if node.op == "div":
        below = parts[1]
        if below is None or not below[0]:
            return None
        return _product(parts[0], (1 / below[0], Fraction(0), Fraction(0)))
    total = parts[0]
    for part in parts[1:]:
        total = _total(total, part) if node.op == "add" else _product(total, part)
    return total


def _total(left: _Polynomial | None, right: _Polynomial | None) -> _Polynomial | None:
    if left is None or right is None:
        return None
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def _product(left: _Polynomial | None, right: _Polynomial | None) -> _Polynomial | None:
    if left is None or right is None or left[2] * right[1] or left[1] * right[2] or left[2] * right[2]:
        return None
    (c, b, a), (r, q, p) = left, right
    return c * r, c * q + b * r, c * p + b * q + a * r


def _roots(c: Fraction, b: Fraction, a: Fraction) -> list[Fraction]:
    if a:
        inside = b * b - 4 * a * c
        if inside < 0:
            return []
        below = inside.denominator * _SCALE
        root = Fraction(math.isqrt(inside.numerator * inside.denominator * _SCALE**2), below)
        return [(-b - root) / (2 * a), (-b + root) / (2 * a)]
    return [-c / b] if b else []
