"""Makes sense of relations in a tree before it is compared: chains of `=`, names left of `=`, conditions behind."""

from __future__ import annotations

import itertools

from .build import number_set
from .comparison import EXACT, Comparison
from .families import given
from .names import is_name, is_quantity, label
from .numeric import rational_near
from .shapes import difference, rounds_or_cuts, split_unit, written_number
from .tree import Node, ParseError, contains, symbols

MAX_LINKS = 10
_FIELDS = frozenset("NZQRC")


def settle(node: Node) -> Node:
    """The tree with every chain of `=` made an assignment, an equation, or the value that all its links share.

    Raises:
        ParseError: If a chain claims what is not so, as `5 = 6`.
    """
    if node.op == "rel":
        return _relation(node)
    if node.op == "list":
        node = node._replace(args=tuple(map(settle, node.args)))
        if all(arg == node.args[0] for arg in node.args) and node.value == "or":
            return node.args[0]
        if node.value == "or" and not any(map(symbols, node.args)) and _all_same(node.args):
            return node.args[0]  # one answer, spelled twice
        return given(node) if any(arg.op == "rel" for arg in node.args) else node
    if node.op in ("set", "tuple"):
        return node._replace(args=tuple(map(settle, node.args)))
    if node.op == "matrix" and node.value == "cases":
        return node._replace(args=tuple(row._replace(args=tuple(map(settle, row.args))) for row in node.args))
    if node.op == "mul" and node.args[-1].op == "tuple" and not any(map(symbols, node.args[:-1])):
        return Node("tuple", tuple(Node("mul", (*node.args[:-1], arg)) for arg in node.args[-1].args))
    if node.op == "pow" and node.args[0].op == "tuple" and node.args[1].value in ("T", "top"):
        return node.args[0]  # a column written in a row
    if contains(node, "rel") and node.op not in ("union", "inter", "minus", "add"):
        raise ParseError("a relation stands inside an expression")
    return node


def _all_same(nodes: tuple[Node, ...]) -> bool:
    return len(nodes) < 4 and all(Comparison(EXACT).same(nodes[0], node) for node in nodes[1:])


def _relation(node: Node) -> Node:
    relations = set(node.value.split())
    if relations <= {"=", "~"}:
        return _chain(list(node.args), node.value.split())
    if "~" in relations:
        raise ParseError("an approximation stands among inequalities")
    if node.value == "in" and node.args[1].op == "set" and node.args[0].op == "sym":
        name = node.args[0]
        values = tuple(Node("assign", (item, name), name.value) for item in node.args[1].args)
        return Node("list", values, ",") if len(values) > 1 else values[0] if values else node
    if node.value == "in" and node.args[1].op == "sym" and node.args[1].value in _FIELDS:
        return node._replace(args=(node.args[0], number_set(node.args[1].value)))
    return node


def _chain(parts: list[Node], links: list[str]) -> Node:
    names: list[Node] = []
    if len(links) > MAX_LINKS:
        raise ParseError(f"it is a chain of more than {MAX_LINKS} equations")
    if any(contains(part, "rel") for part in parts[:-1]):
        raise ParseError("a relation stands inside an expression")
    if parts[-1].op != "rel":  # of a set-builder
        parts[-1] = settle(parts[-1])
    closed = symbols(parts[-1]) <= {""}  # of a set-builder, the variable has no name
    while len(parts) > 1 and links[0] == "=" and (is_name(parts[0]) or (closed and is_quantity(parts[0]))):
        names.append(parts.pop(0))
        links = links[1:]
    if not names and len(parts) == 2 and links == ["="] and is_name(parts[1]) and not symbols(parts[0]):
        names.append(parts.pop())
    comparison = Comparison()
    constant = not any(symbols(part) for part in parts)
    if len(parts) > 1 and (names or constant):
        for before, after, link in zip(parts, parts[1:], links, strict=False):
            if not (comparison.same(before, after) or (link == "~" and _approximates(after, before))):
                raise ParseError("a link of its chain of equations is false")
        return parts[0] if constant and not names else _named(names, parts[0])
    if len(parts) == 1:
        return _named(names, parts[0])
    if set(links) == {"="} and all(comparison.same(a, b) for a, b in itertools.pairwise(parts)):
        return parts[-1]  # steps of a calculation
    if len(parts) == 2 and links == ["="]:
        return Node("equation", (difference(*parts),))
    raise ParseError("a chain of equations that is not understood")


def _named(names: list[Node], value: Node) -> Node:
    name = names[-1]
    if symbols(name) & symbols(value) and name.op in ("sym", "mul"):
        return Node("equation", (difference(name, value),))
    return Node("assign", (value, name), name.value if name.op == "app" else label(name))


def _approximates(rough: Node, fine: Node) -> bool:
    written, value = written_number(rough), rational_near(split_unit(fine)[0])
    return written is not None and value is not None and rounds_or_cuts(value, *written)
