r"""Answers with conditions: `y=x^2 (x \ge 0)`, and families such as `\frac{\pi}{4}+k\pi, k \in \mathbb{Z}`.

A `given` node has a head and its conditions. A membership, as `k \in \mathbb{Z}` or "for all n", may be left out; its
symbol may have any name. Other conditions must be met by both sides, unless they only leave out points at which the
head is undefined anyway. Families over the whole numbers are compared as sets, through their residues.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from .build import REALS
from .numeric import MAX_COST, Undecided, cost, evaluate_real, rational_near
from .shapes import as_interval
from .tree import Node, rebuild, symbols, walk

ANY = "mathbb:A"
"""The set that a symbol is in when all that is said is that it is a constant, or anything."""
_WHOLE = frozenset({"mathbb:Z", "mathbb:Z+", "mathbb:N", "mathbb:N0"})
_INTEGERS, _CONSTANTS = frozenset("klmnt"), frozenset("abckABCK")
MAX_RESIDUES = 240
_TINY = Fraction(1, 10**25)
_Same = Callable[[Node, Node], bool]


def given(node: Node) -> Node:
    """A list whose tail is conditions as a `given` node; any other as it is."""
    members = [arg for arg in node.args if _is_membership(arg) and _is_parameter(arg.args[0], node)]
    rest = [arg for arg in node.args if arg not in members]
    heads = [arg for arg in rest if arg.op != "rel"]
    limits = [arg for arg in rest if arg.op == "rel"]
    if node.value == "or" or not heads:
        heads, limits = rest, []
    if not heads or not (members or limits):
        return node
    head = heads[0] if len(heads) == 1 else Node("list", tuple(heads), node.value)
    return Node("given", (head, *members, *limits))


def _is_membership(node: Node) -> bool:
    if node.op != "rel" or node.value != "in" or node.args[0].op != "sym":
        return False
    return node.args[1].op == "sym" or node.args[1] == REALS


def _is_parameter(symbol: Node, listed: Node) -> bool:
    """Whether it occurs in the rest, but is not what the rest restricts (`n` in `1 < n < 5`)."""
    others = [arg for arg in listed.args if not (_is_membership(arg) and arg.args[0] == symbol)]
    if any(other.op == "rel" and symbol in other.args for other in others):
        return False
    return any(symbol.value in symbols(other) for other in others)


class _Parts(NamedTuple):
    head: Node
    sets: dict[str, str]
    limits: list[Node]


def _parts(node: Node) -> _Parts:
    if node.op != "given":
        return _Parts(node, {}, [])
    head, *conditions = node.args
    sets, limits = {}, []
    for condition in conditions:
        if _is_membership(condition):
            field = condition.args[1]
            sets[condition.args[0].value] = field.value if field.op == "sym" else "R"
        else:
            limits.append(condition)
    return _Parts(head, sets, limits)


def same_given(gold: Node, mine: Node, same: _Same) -> bool:
    """Whether two answers agree of which at least one states conditions."""
    left, right = _parts(gold), _parts(mine)
    ours, theirs = (_parameters(parts) for parts in (left, right))
    if len(ours) != len(theirs):  # one side leaves out what its symbol stands for
        ours, theirs = _completed(left, ours, right), _completed(right, theirs, left)
    if len(ours) != len(theirs) or not all(map(_compatible, ours.values(), theirs.values())):
        return False
    names = dict(zip(theirs, ours, strict=True))
    renamed = _renamed(right.head, names)
    if not _limits_agree(left, right._replace(limits=[_renamed(limit, names) for limit in right.limits]), same):
        return False
    if same(left.head, renamed):
        return True
    if len(ours) != 1 or {*ours.values(), *theirs.values()} - {ANY} != {"mathbb:Z"}:
        return False
    name = next(iter(ours))
    sets = _residues(left.head, renamed, name)
    return sets is not None and sets[0] == sets[1]


def _compatible(left: str, right: str) -> bool:
    return left == right or ANY in (left, right)


def _parameters(parts: _Parts) -> dict[str, str]:
    used = symbols(parts.head)
    called = {arg.value for n in walk(parts.head) if n.op == "app" for arg in n.args if arg.op == "sym"}
    return {name: field for name, field in parts.sets.items() if name in used - called}


def _completed(parts: _Parts, own: dict[str, str], other: _Parts) -> dict[str, str]:
    """Its parameters, with those that only the other side declares."""
    declared = {name: field for name, field in other.sets.items() if name in symbols(parts.head)}
    missing = symbols(parts.head) - symbols(other.head)
    if own or declared or len(missing) != 1:
        return own or declared
    whole = all(field in _WHOLE for field in other.sets.values())
    constant = all(field == ANY and name in _CONSTANTS for name, field in other.sets.items())
    may_rename = (whole and missing <= _INTEGERS) or (constant and missing <= _CONSTANTS)
    return dict.fromkeys(missing, ANY) if may_rename else {}


def _renamed(node: Node, names: dict[str, str]) -> Node:
    return rebuild(node, lambda n: n._replace(value=names.get(n.value, n.value)) if n.op == "sym" else n)


# -- conditions on the head


def _limits_agree(left: _Parts, right: _Parts, same: _Same) -> bool:
    if left.limits and right.limits:
        both = [Node("list", tuple(p.limits), "and") if len(p.limits) > 1 else p.limits[0] for p in (left, right)]
        return same(both[0], both[1])
    parts = left if left.limits else right
    return all(_goes_without_saying(limit, parts.head) for limit in parts.limits)


def _goes_without_saying(limit: Node, head: Node) -> bool:
    """`x != 2` next to a head that is undefined there; `n >= 1` next to `a_n = ...`; `x > 0` next to `x = 5`."""
    symbol, bound = limit.args[0], limit.args[-1]
    if symbol.op != "sym" or len(limit.args) > 2:
        return False
    value = rational_near(bound)
    if value is None:
        return False
    known = [item.args[0] for item in _members(head) if item.op == "assign" and item.args[1] == symbol]
    if known and not any(map(symbols, known)):
        numbers = [rational_near(item) for item in known]
        return all(number is not None and _HOLDS[limit.value](number, value) for number in numbers)
    if limit.value == "!=":
        body = head.args[0] if head.op in ("assign", "equation") else head
        try:
            evaluate_real(body, point={symbol.value: value})
        except Undecided:
            return symbols(body) == {symbol.value}
        return False
    return head.op == "assign" and head.value.endswith(f"_{symbol.value}") and (limit.value, value) in _STARTS


_HOLDS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "!=": operator.ne, "in": operator.eq
}  # fmt: skip
_STARTS = {(">=", Fraction(1)), (">=", Fraction(0)), (">", Fraction(0))}


# -- families over the whole numbers


class _Progression(NamedTuple):
    """All `offset + k * step` for whole k, number by number; `kind` tells intervals and points apart."""

    kind: str
    offset: tuple[Fraction, ...]
    step: tuple[Fraction, ...]


def _residues(gold: Node, mine: Node, name: str) -> list[set[tuple[str, tuple[int, ...]]]] | None:
    """The members of two families in one common period, rounded; None when there is no such period."""
    if cost(gold, mine) > MAX_COST // 4:
        return None
    left, right = ({item.value for item in _members(side) if item.op == "assign"} for side in (gold, mine))
    if left and right and left != right:
        return None
    sides = [[_progression(item, name) for item in _members(side)] for side in (gold, mine)]
    known = [p for side in sides for p in side if p is not None]
    if len(known) < sum(map(len, sides)) or any(not any(p.step) for p in known):
        return None
    first = known[0]
    lead = next(k for k, step in enumerate(first.step) if step)
    ratios = []
    for progression in known:
        if len(progression.step) != len(first.step) or not progression.step[lead]:
            return None
        ratio = (progression.step[lead] / first.step[lead]).limit_denominator(MAX_RESIDUES)
        if not ratio or any(
            abs(step - ratio * base) > _TINY for step, base in zip(progression.step, first.step, strict=True)
        ):
            return None
        ratios.append(ratio)
    times = math.lcm(*(abs(ratio.numerator) for ratio in ratios))
    counts = [abs(int(times / ratio)) for ratio in ratios]
    if sum(counts) > MAX_RESIDUES:
        return None
    period = tuple(times * step for step in first.step)
    found = [_residue(p, j, period, lead) for p, count in zip(known, counts, strict=True) for j in range(count)]
    split = sum(counts[: len(sides[0])])
    return [set(found[:split]), set(found[split:])]


def _residue(
    progression: _Progression, at: int, period: tuple[Fraction, ...], lead: int
) -> tuple[str, tuple[int, ...]]:
    place = [start + at * step for start, step in zip(progression.offset, progression.step, strict=True)]
    turns = math.floor(place[lead] / period[lead] + _TINY)
    return progression.kind, tuple(round((p - turns * q) * 10**20) for p, q in zip(place, period, strict=True))


def _members(head: Node) -> tuple[Node, ...]:
    return head.args if head.op in ("list", "set", "union") else (head,)


def _progression(item: Node, name: str) -> _Progression | None:
    """The item as a progression in that symbol; None when it is not linear in it, or has other symbols."""
    if item.op == "assign":
        item = item.args[0]
    if item.op == "rel":
        item = as_interval(item)
    kind = item.value if item.op == "interval" else item.op if item.op == "tuple" else ""
    numbers = item.args if kind else (item,)
    offset, step = [], []
    for number in numbers:
        if symbols(number) - {name}:
            return None
        values = [rational_near(_at(number, name, k)) for k in (0, 1, 2, -3)]
        start, one, two, back = values
        if start is None or one is None or two is None or back is None:
            return None
        slope = one - start
        if abs(two - start - 2 * slope) > _TINY or abs(back - start + 3 * slope) > _TINY:
            return None
        offset.append(start)
        step.append(slope if abs(slope) > _TINY else Fraction(0))
    return _Progression(kind, tuple(offset), tuple(step))


def _at(node: Node, name: str, value: int) -> Node:
    number = Node("num", number=Fraction(value))
    return rebuild(node, lambda n: number if n.op == "sym" and n.value == name else n)
