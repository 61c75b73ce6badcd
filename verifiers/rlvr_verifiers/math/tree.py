"""The expression tree that the parser builds and the comparison walks, and the limits on its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

MAX_CHARS = 12_000
"""Longest answer that is parsed."""
MAX_TOKENS = 12_000
MAX_DEPTH = 40
"""Deepest nesting that is parsed; every level costs about eight Python frames."""
MAX_DIGITS = 1_000
"""Longest digit string read as a number."""
MAX_EXPONENT = 2_000
"""Largest decimal exponent read in scientific notation."""
MAX_MARKS = 3
"""Most marks in a row after a value, such as `%` and `!`."""
MAX_ITEMS = 400
"""Most elements of a list, set, tuple or matrix."""


class ParseError(ValueError):
    """The text is not an answer of our grammar, or it is over a limit."""


class Node(NamedTuple):
    """One node. `op` says what `args`, `value` and `number` hold.

    num             number, and `places` decimal places (-1 when it was not written as a decimal)
    sym const       value: `x_1`, `f'`, "" for the variable of a set-builder; `pi`, `e`, `i`, `inf`
    add mul         args, flat, however many
    div pow neg     args
    root            args (radicand, index)
    fact            arg, value `!` or `!!`
    pct deg pm mp   arg: percent, degrees, plus-minus, minus-plus
    func app        args, value: a function we can evaluate; one we know only by name
    unit            arg, value: the unit in canonical spelling
    text            value: words, in lower case
    list set tuple  args; a bare list is unordered
    interval        two args, value: its brackets, as in `[)`
    matrix          args are the rows, each a `list`; value `cases`: the pieces of a function, each with its condition
    ratio           args (three or more; `a:b` is a division)
    union inter minus   args: operations on sets
    rel             args, value: the relations between them, joined by blanks, as in `< <=`
    assign          args (value, left side), value: the name on the left side
    equation        args (left - right)
    given           args (head, conditions), each condition a `rel`
    dots            an ellipsis
    """

    op: str
    args: tuple[Node, ...] = ()
    value: str = ""
    number: Fraction = Fraction(0)
    places: int = -1


def words(text: str) -> frozenset[str]:
    """The words of a text, as a vocabulary."""
    return frozenset(text.split())


def integer(value: int) -> Node:
    return Node("num", number=Fraction(value))


def symbols(node: Node) -> set[str]:
    """Names of the free symbols."""
    return {n.value for n in walk(node) if n.op == "sym"}


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, in no particular order."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(top.args)


def contains(node: Node, *ops: str) -> bool:
    return any(n.op in ops for n in walk(node))


def rebuild(node: Node, change: Callable[[Node], Node]) -> Node:
    """The tree with `change` applied to every node, children first."""
    if node.args:
        node = node._replace(args=tuple(rebuild(arg, change) for arg in node.args))
    return change(node)
