"""Functions defined piece by piece: each value with its condition, in any order."""

from __future__ import annotations

from collections.abc import Callable

from .tree import Node

_ELSE = Node("text", value="otherwise")
MAX_CASES = 12


def same_cases(gold: Node, mine: Node, same: Callable[[Node, Node], bool]) -> bool:
    """Whether every piece of one is a piece of the other; "otherwise" is the condition that is left."""
    pieces, left = _pieces(gold), _pieces(mine)
    if pieces is None or left is None or len(pieces) != len(left) or len(pieces) > MAX_CASES:
        return False
    unmatched = []
    for value, condition in pieces:
        match = next((other for other in left if same(condition, other[1]) and same(value, other[0])), None)
        if match is None:
            unmatched.append((value, condition))
        else:
            left.remove(match)
    if len(unmatched) > 1:
        return False
    return not unmatched or (_ELSE in (unmatched[0][1], left[0][1]) and same(unmatched[0][0], left[0][0]))


def _pieces(node: Node) -> list[tuple[Node, Node]] | None:
    found = []
    for row in node.args:
        value, *conditions = row.args
        if not conditions:
            return None
        condition = conditions[0] if len(conditions) == 1 else Node("list", tuple(conditions), "and")
        found.append((value, _ELSE if condition.op == "text" and condition.value == "else" else condition))
    return found
