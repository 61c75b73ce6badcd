r"""The last tier: identities such as `\cos(n\pi) = (-1)^n`, which hold for whole numbers only.

They are decided like all others, by their values: at twenty whole numbers, small and large, even and odd. So it
takes no computer algebra, whose rewriting cannot be bounded.
"""

from __future__ import annotations

from .budget import Exhausted, OneBudget
from .numeric import cost, exact
from .sampling import INTEGERS, agree_at, draw_seed, whole_points
from .tree import Node, symbols, walk

MAX_COST = 250
"""Most steps of one evaluation; there are about twenty."""
_TRIG = frozenset({"sin", "cos", "tan", "cot"})


def may_hold_on_integers(left: Node, right: Node) -> bool:
    """Whether it is worth asking: small, in one or two whole-number symbols, with a sign, a phase or a factorial that
    depends on them."""
    names = symbols(left) | symbols(right)
    if not names or not names <= INTEGERS or len(names) > 2 or cost(left, right) > MAX_COST:
        return False
    return any(_turns(node) for side in (left, right) for node in walk(side))


def equal_on_integers(left: Node, right: Node) -> bool:
    """Whether both sides have the same values at positive whole numbers."""
    with OneBudget():
        seed = draw_seed(left, right)
        points = whole_points(sorted(symbols(left) | symbols(right)), seed)
        try:
            return bool(agree_at(left, right, points, seed, least=12))
        except Exhausted:
            return False


def _turns(node: Node) -> bool:
    if node.op == "pow":
        base = exact(node.args[0])
        return base is not None and base < 0 and bool(symbols(node.args[1]))
    if node.op == "fact":
        return bool(symbols(node))
    return node.op == "func" and node.value in _TRIG and bool(symbols(node))
