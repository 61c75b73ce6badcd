"""Nodes that take more than putting arguments together: number spellings, set-builders, plus-minus signs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

from .tree import MAX_DIGITS, MAX_EXPONENT, Node, ParseError, rebuild, walk

MAX_SIGNS = 5
"""Most ± signs in one element; each doubles it."""

INFINITY = Node("const", value="inf")
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


def builder(variable: Node, condition: Node) -> Node:
    r"""`\{x \mid condition\}`: the condition, once it is about the variable."""
    if variable.op == "rel" and variable.value == "in" and variable.args[1] == REALS:
        variable = variable.args[0]
    if variable.op != "sym":
        raise ParseError("a set is described by something that is not a symbol")
    return condition if condition.op in ("rel", "list") else Node("set", (variable, condition))


def proper(node: Node) -> Fraction | None:
    """The value of a fraction of two whole numbers below 1, which can end a mixed number."""
    if node.op != "div" or any(arg.op != "num" or arg.places >= 0 for arg in node.args):
        return None
    top, bottom = (arg.number for arg in node.args)
    return top / bottom if 0 < top < bottom else None


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
