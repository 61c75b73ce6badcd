"""Nodes that take more than putting arguments together: number spellings, set-builders, plus-minus signs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

from .tree import MAX_DIGITS, MAX_EXPONENT, Node, ParseError, integer, rebuild, symbols, walk

MAX_SIGNS = 5
"""Most ± signs in one element; each doubles it."""

INFINITY = Node("const", value="inf")
MINUS_ONE = Node("neg", (integer(1),))
REALS = Node("interval", (Node("neg", (INFINITY,)), INFINITY), "()")


def number(text: str) -> Node:
    """The node of a digit string, in decimal or scientific notation.

    Raises:
        ParseError: If it has more than `MAX_DIGITS` digits or an exponent beyond `MAX_EXPONENT`.
    """
    if len(text) > MAX_DIGITS:
        raise ParseError(f"a number has more than {MAX_DIGITS} digits")
    if text.isdigit():
        return Node("num", number=Fraction(int(text)))
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise ParseError(f"an exponent is larger than {MAX_EXPONENT}")
    whole, _, decimals = mantissa.partition(".")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals))
    if exponent:
        return Node("num", number=value * Fraction(10) ** int(exponent))
    return Node("num", number=value, places=len(decimals))


_WHOLE = {"": "Z", "+": "Z+", ">0": "Z+", ">=1": "Z+", ">=0": "N0"}


def number_set(field: str, mark: str = "") -> Node:
    r"""`\mathbb{R}` as an interval, `\mathbb{Z}^+` and the like as symbols of their own."""
    if field == "R":
        return _reals(mark)
    if field == "N":
        return Node("sym", value="mathbb:" + {**_WHOLE, "": "N", "*": "Z+", "0": "N0"}.get(mark, "N" + mark))
    return Node("sym", value="mathbb:" + (_WHOLE.get(mark, "Z" + mark) if field == "Z" else field + mark))


def _reals(mark: str) -> Node:
    zero = Node("num")
    if mark in ("+", ">0", ">=0"):
        return Node("interval", (zero, INFINITY), "[)" if mark == ">=0" else "()")
    if mark in ("-", "<0", "<=0"):
        return Node("interval", (Node("neg", (INFINITY,)), zero), "(]" if mark == "<=0" else "()")
    return Node("minus", (REALS, Node("set", (zero,)))) if mark in ("*", "!=0") else REALS


SET_MARKS = frozenset({"+", "-", "*", "0", ">0", ">=0", ">=1", "<0", "<=0", "!=0"})
"""What may stand at a set of numbers, as in `\\mathbb{R}_{>0}`."""


def builder(variable: Node, condition: Node) -> Node:
    r"""`\{x \mid condition\}`: the conditions on a variable without a name, or what it is said to be equal to."""
    inside: tuple[Node, ...] = ()
    if variable.op == "rel" and variable.value == "in" and variable.args[0].op == "sym":
        inside, variable = (variable,), variable.args[0]
    if variable.op != "sym":
        raise ParseError("a set is described by something that is not a symbol")
    conditions = (*inside, *(condition.args if condition.op == "list" else (condition,)))
    joint = condition.value if condition.op == "list" and condition.value == "or" else "and"
    if not all(variable.value in symbols(c) or c.value == "in" for c in conditions):
        raise ParseError("a set is described by conditions on something else")
    described = [c for c in conditions if c.op == "rel" and c.value == "=" and c.args[0] == variable]
    if described:  # x = 2k, k in Z
        rest = [c.args[1] if c in described else c for c in conditions if c not in inside]
        return rest[0] if len(rest) == 1 else Node("list", tuple(rest), joint)
    if any(c.op != "rel" for c in conditions) or (joint == "or" and inside):
        return Node("set", (variable, condition))
    unnamed = tuple(rebuild(c, lambda n: n._replace(value="") if n == variable else n) for c in conditions)
    return unnamed[0] if len(unnamed) == 1 else Node("list", unnamed, joint)


def proper(node: Node) -> Fraction | None:
    """The value of a fraction of two whole numbers below 1, which can end a mixed number."""
    if node.op != "div" or any(arg.op != "num" or arg.places >= 0 for arg in node.args):
        return None
    top, bottom = (arg.number for arg in node.args)
    return top / bottom if 0 < top < bottom else None


def called(name: str, x: Node) -> Node:
    """A function of one argument, in terms of those that can be evaluated."""
    one, square = integer(1), Node("pow", (x, integer(2)))
    if name in ("arsinh", "arcosh"):
        under = Node("add", (square, one if name == "arsinh" else Node("neg", (one,))))
        return Node("func", (Node("add", (x, Node("root", (under, integer(2))))),), "ln")
    if name == "artanh":
        ratio = Node("div", (Node("add", (one, x)), Node("add", (one, Node("neg", (x,))))))
        return Node("div", (Node("func", (ratio,), "ln"), integer(2)))
    if name == "arccot":
        right = Node("div", (Node("const", value="pi"), integer(2)))
        return Node("add", (right, Node("neg", (Node("func", (x,), "arctan"),))))
    if name == "coth":
        return Node("div", (one, Node("func", (x,), "tanh")))
    if name == "cis":
        imaginary = Node("mul", (Node("const", value="i"), Node("func", (x,), "sin")))
        return Node("add", (Node("func", (x,), "cos"), imaginary))
    return Node("func", (x,), name)


def named_point(product: Node) -> Node:
    """`A(1,2)` as an assignment to the name, anything else as it is."""
    name, *point = product.args
    if len(point) == 1 and point[0].op == "tuple" and name.op == "sym" and name.value[0].isupper():
        return Node("rel", (name, point[0]), "=")
    return product


def in_base(digits: str, base: str) -> Node:
    """The node of a number such as `52_8`, of known base."""
    radix = int(base)
    if not 2 <= radix <= 16 or len(digits) > MAX_DIGITS or any(int(d, 16) >= radix for d in digits):
        raise ParseError(f"`{digits[:20]}` is not a number in base {base}")
    return Node("num", number=Fraction(int(digits, radix)))


def both_signs(item: Node) -> list[Node]:
    """The item for every choice of its ± signs (with a ∓ they are linked); itself where there are none."""
    signs = [node.op for node in walk(item) if node.op in ("pm", "mp")]
    if not signs:
        return [item]
    if len(signs) > MAX_SIGNS:
        raise ParseError(f"it has more than {MAX_SIGNS} plus-minus signs")
    linked = "mp" in signs
    found: list[Node] = []
    for choice in itertools.product((False, True), repeat=1 if linked else len(signs)):
        negative = itertools.cycle(choice)

        def choose(node: Node, negative: Iterator[bool] = negative) -> Node:
            if node.op not in ("pm", "mp"):
                return node
            return Node("neg", node.args) if next(negative) ^ (node.op == "mp") else node.args[0]

        found.append(rebuild(item, choose))
    return found
