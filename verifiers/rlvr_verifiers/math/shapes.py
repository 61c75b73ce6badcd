"""What a tree is, seen from the comparison: a written number, a measure, an interval, the rows of a matrix."""

from __future__ import annotations

import math
from fractions import Fraction

from .build import INFINITY
from .numeric import exact
from .tree import Node, contains, integer, rebuild, symbols, walk

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
    """The element of a set or list of one; a set in a set stays what it is."""
    if node.op not in ("set", "list") or len(node.args) != 1 or (node.op, node.args[0].op) == ("set", "set"):
        return node
    return node.args[0]


def is_region(node: Node) -> bool:
    """Whether it can only be a set of numbers: an interval, an inequality, a union."""
    if node.op == "add":
        return node.args[0].op == "interval"
    return node.op in _REGIONS or (node.op == "list" and any(arg.op == "rel" for arg in node.args))


def radians(node: Node, unit: str) -> Node:
    """The bare number, degrees turned into radians."""
    return Node("mul", (node, _DEGREE)) if unit == "degree" else node


_DEGREE = Node("div", (Node("const", value="pi"), integer(180)))


def assigned(node: Node) -> Node:
    """The right side of an assignment; anything else as it is."""
    return node.args[0] if node.op == "assign" else node


def as_equation(node: Node) -> Node | None:
    """Left side minus right side, of an equation or assignment."""
    if node.op == "equation":
        return node.args[0]
    return difference(node.args[1], node.args[0]) if node.op == "assign" else None


def as_interval(node: Node) -> Node:
    """`a < x <= b` and `(a, b)` as intervals, whatever their ends are."""
    if node.op == "tuple" and len(node.args) == 2:
        return Node("interval", node.args, "()")
    if node.op == "rel" and node.value == "in" and node.args[0].op in ("sym", "app", "func"):
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


def half_line(node: Node) -> Node:
    """`x > a` as an interval, whatever `a` is."""
    if node.op != "rel" or len(node.args) != 2 or node.value not in _HALF_LINES:
        return node
    (left, right), relation = node.args, node.value
    if left.op == "sym" and left.value not in symbols(right):
        end = right
    elif right.op == "sym" and right.value not in symbols(left):
        end, relation = left, _TURNED[relation]
    else:
        return node
    brackets = _HALF_LINES[relation]
    ends = (end, INFINITY) if relation[0] == ">" else (Node("neg", (INFINITY,)), end)
    return Node("interval", ends, brackets)


_HALF_LINES = {"<": "()", "<=": "(]", ">": "()", ">=": "[)"}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


def contains_dots(node: Node) -> bool:
    """Whether an ellipsis stands among its elements."""
    return any(arg.op == "dots" for arg in node.args)


def around_dots(node: Node) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The elements before and after its first ellipsis."""
    at = next(k for k, arg in enumerate(node.args) if arg.op == "dots")
    return node.args[:at], node.args[at + 1 :]


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


def in_components(node: Node, other: Node) -> Node:
    """A sum of unit vectors as a tuple, next to a tuple or a column; anything else as it is."""
    if node.op in ("tuple", "matrix") or other.op not in ("tuple", "matrix") or len(other.args) not in (2, 3):
        return node
    return components(node, len(other.args)) or node


def components(node: Node, size: int) -> Node | None:
    r"""`2\mathbf{i}-\mathbf{k}` as a tuple of that size; None when it is no sum of multiples of unit vectors."""
    used = {n for n in walk(node) if n.op in ("sym", "const") and n.value[-1] in "ijk"}
    plain = all(n.value in _UNIT_VECTORS for n in walk(node) if n.op == "sym")
    if not plain or all(n.op == "const" for n in used) or node.op not in ("add", "mul", "neg", "div"):
        return None
    if size < 3 and any(n.value[-1] == "k" for n in used):
        return None

    def at(letter: str) -> Node:
        return rebuild(node, lambda n: integer(int(n.value[-1] == letter)) if n in used else n)

    return Node("tuple", tuple(at(letter) for letter in "ijk"[:size])) if exact(at("")) == 0 else None


_UNIT_VECTORS = frozenset(accent + letter for accent in ("", "hat:", "vec:") for letter in "ijk")


def scaled(rows: list[tuple[Node, ...]] | None, factor: Node) -> list[tuple[Node, ...]] | None:
    return rows and [tuple(Node("mul", (factor, entry)) for entry in row) for row in rows]


def rounds_or_cuts(value: Fraction, written: Fraction, places: int) -> bool:
    """Whether `written`, of that many decimal places, is `value` rounded or cut."""
    off = abs(value) - abs(written)
    return value * written > 0 and -1 <= 2 * off * 10**places < 2


def difference(left: Node, right: Node) -> Node:
    return Node("add", (left, Node("neg", (right,))))


def is_float_noise(written: Fraction, precise: Fraction) -> bool:
    """Whether `written` is what doubles make of `precise`: 0.30000000000000004 of 0.3."""
    try:
        double = float(written)
    except OverflowError:
        return False
    printed = repr(double)
    if "e" in printed or len(printed.strip("-0.").replace(".", "")) < 16 or Fraction(printed) != written:
        return False
    return abs(written - precise) <= 4 * Fraction(math.ulp(double))


def has_transpose(node: Node) -> bool:
    """Whether it transposes a matrix that is only named."""
    return any(n.op == "pow" and n.args[1] == _TRANSPOSE and n.args[0].op in ("sym", "mul") for n in walk(node))


_TRANSPOSE = Node("sym", value="T")
