r"""The last tier: identities such as `\cos(n\pi) = (-1)^n`, which hold for whole numbers only.

sympy objects are built node by node from our own tree, of bounded size; no text reaches sympy. sympy takes a third
of a second to import, so it is imported only when an answer gets here.
"""

from __future__ import annotations

from typing import Any

from .numeric import MAX_LOG, Undecided, evaluate, exact
from .sampling import INTEGERS
from .tree import Node, symbols, walk

MAX_NODES = 40
_TRIG = frozenset({"sin", "cos", "tan", "cot"})


def may_hold_on_integers(left: Node, right: Node) -> bool:
    """Whether it is worth asking: small, in one or two whole-number symbols, with a sign or phase that depends on
    them, and the same at the first few whole numbers."""
    names = symbols(left) | symbols(right)
    nodes = [*walk(left), *walk(right)]
    if not names <= INTEGERS or len(names) > 2 or len(nodes) > MAX_NODES:
        return False
    if not any(_turns(node) for node in nodes):
        return False
    from fractions import Fraction

    ordered = sorted(names)
    for start in range(1, 7):
        point = {name: Fraction(start + 2 * k) for k, name in enumerate(ordered)}
        try:
            a, b = evaluate(left, point=point), evaluate(right, point=point)
        except Undecided:
            return False
        if abs(a - b) > 1e-30 * max(1, abs(a), abs(b)):
            return False
    return True


def equal_on_integers(left: Node, right: Node) -> bool:
    """Whether the difference simplifies to zero for positive whole numbers."""
    import sympy

    try:
        difference = _build(left, sympy) - _build(right, sympy)
        return bool(sympy.simplify(difference) == 0)
    except (Undecided, ValueError, TypeError, NotImplementedError, RecursionError):
        return False


def _turns(node: Node) -> bool:
    if node.op == "pow":
        base = exact(node.args[0])
        return base is not None and base < 0 and bool(symbols(node.args[1]))
    return node.op == "func" and node.value in _TRIG and bool(symbols(node))


def _build(node: Node, sympy: Any) -> Any:
    op = node.op
    if op == "num":
        if abs(node.number) > MAX_LOG:
            raise Undecided
        return sympy.Rational(node.number.numerator, node.number.denominator)
    if op == "sym":
        return sympy.Symbol(node.value, integer=True, positive=True)
    if op == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}.get(node.value, sympy.nan)
    args = [_build(arg, sympy) for arg in node.args]
    if op == "add":
        return sympy.Add(*args)
    if op == "mul":
        return sympy.Mul(*args)
    if op == "neg":
        return -args[0]
    if op == "div":
        return args[0] / args[1]
    if op == "pow":
        if args[1].is_number and abs(args[1]) > 50:
            raise Undecided
        return sympy.Pow(args[0], args[1])
    if op == "root":
        return sympy.root(args[0], args[1])
    if op == "func" and node.value in _TRIG:
        return getattr(sympy, node.value)(args[0])
    raise Undecided
