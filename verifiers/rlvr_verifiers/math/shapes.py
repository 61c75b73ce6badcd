"""What a tree is, seen from the comparison: a written number, a measure, an interval, the rows of a matrix."""

from __future__ import annotations

from fractions import Fraction

from .numeric import exact
from .tree import Node, contains, integer, walk

_REGIONS = frozenset({"interval", "union", "inter", "minus", "rel"})


def written_number(node: Node) -> tuple[Fraction, int] | None:
    """Value and decimal places of a number written out (a percentage included), else None."""
    sign = 1
    if node.op == "neg":
        sign, node = -1, node.args[0]
    percent = node.op == "pct"
    if percent:
        node = node.args[0]
    if node.op != "num" or (node.places < 0 and node.number.denominator != 1):
        return None
    value = sign * node.number
    return (value / 100, max(node.places, 0) + 2) if percent else (value, max(node.places, 0))


def terminates(value: Fraction) -> bool:
    """Whether its decimal expansion ends."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def split_unit(node: Node) -> tuple[Node, str]:
    """The measure without its unit, and the unit ("" when it states none)."""
    if node.op == "unit":
        inner, unit = split_unit(node.args[0])
        return inner, unit or node.value
    if node.op == "deg":
        return node.args[0], "degree"
    if node.op == "neg" and node.args[0].op in ("deg", "unit"):
        inner, unit = split_unit(node.args[0])
        return Node("neg", (inner,)), unit
    return node, ""


def undefined(node: Node) -> bool:
    """Whether it divides by zero."""
    return any(n.op == "div" and exact(n.args[1]) == 0 for n in walk(node))


def single(node: Node) -> Node:
    """The element of a set or list of one."""
    return node.args[0] if node.op in ("set", "list") and len(node.args) == 1 else node


def is_region(node: Node) -> bool:
    """Whether it can only be a set of numbers: an interval, an inequality, a union."""
    return node.op in _REGIONS or (node.op == "list" and any(arg.op == "rel" for arg in node.args))


def radians(node: Node, unit: str) -> Node:
    """The bare number, degrees turned into radians."""
    return Node("mul", (node, _DEGREE)) if unit == "degree" else node


_DEGREE = Node("div", (Node("const", value="pi"), integer(180)))


def assigned(node: Node) -> Node:
    """The right side of an assignment; anything else as it is."""
    return node.args[0] if node.op == "assign" else node


def distinct_names(node: Node) -> list[str]:
    """The names of a collection of assignments to different names, else none."""
    names = [arg.value for arg in node.args if arg.op == "assign"]
    return names if len(names) == len(node.args) == len(set(names)) else []


def as_equation(node: Node) -> Node | None:
    """Left side minus right side, of an equation or assignment."""
    if node.op == "equation":
        return node.args[0]
    return difference(node.args[1], node.args[0]) if node.op == "assign" else None


def as_interval(node: Node) -> Node:
    """`a < x <= b` and `(a, b)` as intervals, whatever their ends are."""
    if node.op == "tuple" and len(node.args) == 2:
        return Node("interval", node.args, "()")
    if node.op == "rel" and node.value == "in":
        return as_interval(node.args[1])
    if node.op == "rel" and len(node.args) == 3 and node.args[1].op == "sym":
        low, high = node.value.split()
        if low[0] == high[0] == "<":
            brackets = ("[" if low == "<=" else "(") + ("]" if high == "<=" else ")")
            return Node("interval", (node.args[0], node.args[2]), brackets)
        if low[0] == high[0] == ">":
            brackets = ("[" if high == ">=" else "(") + ("]" if low == ">=" else ")")
            return Node("interval", (node.args[2], node.args[0]), brackets)
    return node


def rows(node: Node) -> list[tuple[Node, ...]] | None:
    """The rows of a matrix, a column vector written as a tuple, or a sum or multiple of such; else None."""
    if node.op == "matrix":
        return [row.args for row in node.args]
    if node.op == "tuple":
        return [(arg,) for arg in node.args]
    if node.op == "neg":
        return scaled(rows(node.args[0]), integer(-1))
    if node.op == "mul" or node.op == "div":
        factors = [arg for arg in node.args if not contains(arg, "matrix")]
        if len(factors) != len(node.args) - 1 or (node.op == "div" and node.args[1] not in factors):
            return None
        inner = next(arg for arg in node.args if contains(arg, "matrix"))
        scale = Node("div", (integer(1), factors[0])) if node.op == "div" else Node("mul", tuple(factors))
        return scaled(rows(inner), scale)
    if node.op == "add":
        terms = [rows(arg) for arg in node.args]
        shapes = {None if t is None else (len(t), len(t[0])) for t in terms}
        if None in shapes or len(shapes) > 1:
            return None
        whole = [t for t in terms if t is not None]
        return [tuple(Node("add", entries) for entries in zip(*rows, strict=True)) for rows in zip(*whole, strict=True)]
    return None


def scaled(rows: list[tuple[Node, ...]] | None, factor: Node) -> list[tuple[Node, ...]] | None:
    return rows and [tuple(Node("mul", (factor, entry)) for entry in row) for row in rows]


def rounds_or_cuts(value: Fraction, written: Fraction, places: int) -> bool:
    """Whether `written`, of that many decimal places, is `value` rounded or cut."""
    off = abs(value) - abs(written)
    return value * written > 0 and -1 <= 2 * off * 10**places < 2


def difference(left: Node, right: Node) -> Node:
    return Node("add", (left, Node("neg", (right,))))
