r"""Compares two trees part by part, down to numbers and expressions.

x=7, |AB|=7, a+b=7                 7: a name may be left out, but not an unknown with numbers (2x=14)
f(x)=2x, f(t)=2t, y=2x             one function; f'(x)=2x and f(3)=2 say something else
x=1, y=2                           in any order; (1,2) without the names
1, 2 or 1 or 2                     a bare list is unordered; "or" is not for x=1 or y=2, nor for A or C
x>3, (3,\infty)                    sets of reals (`regions`); an inequality that is not solved is no answer
y=x^2 (x>0), k\pi (k \in Z)        heads with conditions, families (`families`)
xy=1, y=1/x                        one curve (`curves`)
5 cm, 5                            a unit may be left out; a bare number with \pi is in radians
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from . import regions
from .cases import same_cases
from .curves import same_curve
from .families import same_given
from .names import are_indexed, by_name, is_joint, label
from .numeric import exact, rational_near
from .sampling import agree, far_apart, proportional
from .shapes import (
    around_dots,
    as_equation,
    as_interval,
    assigned,
    contains_dots,
    difference,
    half_line,
    has_transpose,
    in_components,
    is_float_noise,
    is_region,
    radians,
    rounds_or_cuts,
    rows,
    single,
    split_unit,
    terminates,
    undefined,
    written_number,
)
from .tree import Node, contains, rebuild, symbols, walk
from .whole import equal_on_integers, may_hold_on_integers

GOOD_DIGITS = 10
"""A decimal with this many significant digits, correctly rounded or cut, equals its exact value."""
FLOAT_NOISE = Fraction(1, 10**14)
"""What the last digits of a double may be off, relatively."""
ROUNDED_DIGITS = 3
"""A reference with at least this many significant digits may be the rounded value of an exact answer."""

_COLLECTIONS = frozenset({"list", "set", "tuple"})
_VECTORS = frozenset({"tuple", "matrix"})
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
_EMPTY = {Node("set"), Node("text", value="no solution")}
_PI = Node("const", value="pi")
MAX_UNORDERED = 60


class Conventions(NamedTuple):
    """What a data set means by its references, where mathematics alone does not say.

    Attributes:
        rounded: A reference of three digits or more, such as `6.46`, accepts an exact answer that rounds to it, 84/13.
        tolerance: How far a number may be off, relative to the reference; 0 for not at all.
        bare_percent: `64` and `64%` are equal as well as `0.64` and `64%`.
        ordered: The elements of a bare list count in the order of the reference.
        decimal_comma: `1.234,5` is 1234.5, and a comma with blanks or `;` divides the elements of a list.
    """

    rounded: bool = True
    tolerance: float = 0.0
    bare_percent: bool = False
    ordered: bool = False
    decimal_comma: bool = False


STANDARD = Conventions()
EXACT = Conventions(rounded=False)


class Comparison:
    """Compares trees, and notes the highest tier it had to use and whether a guard got in the way."""

    def __init__(self, conventions: Conventions = STANDARD) -> None:
        self.conventions = conventions
        self.tier = 0
        self.undecided = False

    def same(self, gold: Node, mine: Node) -> bool:
        if gold == mine:
            return not undefined(gold)
        gold, mine = single(gold), single(mine)
        if "given" in (gold.op, mine.op):
            return same_given(gold, mine, self.same)
        if "assign" in (gold.op, mine.op) or "equation" in (gold.op, mine.op):
            return self.equations(gold, mine)
        if is_region(gold) or is_region(mine):
            return self.regions(gold, mine)
        if gold.op in _VECTORS or mine.op in _VECTORS:
            gold, mine = in_components(gold, mine), in_components(mine, gold)
        if gold.op in _COLLECTIONS or mine.op in _COLLECTIONS:
            return self.collections(gold, mine)
        (gold, gold_unit), (mine, my_unit) = split_unit(gold), split_unit(mine)
        if gold_unit or my_unit:
            return self.measures(gold, gold_unit, mine, my_unit)
        if "text" in (gold.op, mine.op):
            return gold == mine
        if contains(gold, "matrix") or contains(mine, "matrix"):
            return self.matrices(gold, mine)
        if "ratio" in (gold.op, mine.op):
            return self.ratios(gold, mine)
        if self.conventions.bare_percent and "pct" in (gold.op, mine.op) and gold.op != mine.op:
            left, right = (node.args[0] if node.op == "pct" else node for node in (gold, mine))
            return self.scalars(gold, mine) or self.scalars(left, right)
        return self.scalars(gold, mine)

    def scalars(self, gold: Node, mine: Node) -> bool:
        if gold.op == "sym" and mine.op == "sym":
            return gold.value == mine.value or (gold.value.startswith("angle:") and label(gold) == label(mine))
        if has_transpose(gold) or has_transpose(mine):
            return False  # products of matrices do not commute
        left, right = exact(gold), exact(mine)
        if left is not None and left == right:
            return True
        if self.decimals(gold, mine) or (self.conventions.tolerance and self.within_tolerance(gold, mine)):
            return True
        if left is not None and right is not None:
            return False
        self.tier = max(self.tier, 1)
        verdict = agree(gold, mine)
        if verdict is None:
            self.undecided = True
        elif not verdict and may_hold_on_integers(gold, mine):
            self.tier = 2
            verdict = equal_on_integers(gold, mine)
        return bool(verdict)

    def within_tolerance(self, gold: Node, mine: Node) -> bool:
        if symbols(gold) or symbols(mine):
            return False
        target, value = rational_near(gold), rational_near(mine)
        if target is None or value is None:
            return False
        return abs(value - target) <= Fraction(self.conventions.tolerance) * abs(target)

    def decimals(self, gold: Node, mine: Node) -> bool:
        """A decimal with enough digits against an exact value, or an exact answer to a rounded reference."""
        for written, other, is_gold in ((gold, mine, True), (mine, gold, False)):
            number = written_number(written)
            if number is None or number[1] < 1 or any(n.places >= 0 for n in walk(other)) or symbols(other):
                continue
            value, places = number
            digits = len(str(abs(value.numerator * 10**places // value.denominator)))
            may_round = self.conventions.rounded and is_gold and digits >= ROUNDED_DIGITS
            if digits < GOOD_DIGITS and not may_round:
                continue
            near = rational_near(other)
            if near is None:
                continue
            precise = exact(other)
            if precise is not None and terminates(precise):
                if is_float_noise(value, precise):
                    return True
                continue  # a decimal that ends is what it says
            off = abs(near - value)
            if digits >= GOOD_DIGITS and (rounds_or_cuts(near, value, places) or off <= FLOAT_NOISE * abs(near)):
                return True
            if may_round and 2 * off * 10**places <= 1:
                return True
        return False

    def measures(self, gold: Node, gold_unit: str, mine: Node, my_unit: str) -> bool:
        if gold_unit and my_unit and gold_unit != my_unit:
            if {gold_unit, my_unit} != {"degree", "radian"}:
                return False
            return self.same(radians(gold, gold_unit), radians(mine, my_unit))
        if gold_unit != my_unit and "degree" in (gold_unit, my_unit):
            bare = mine if gold_unit else gold
            if any(n == _PI for n in walk(bare)):  # in radians
                return self.same(radians(gold, gold_unit), radians(mine, my_unit))
        return self.same(gold, mine)

    def equations(self, gold: Node, mine: Node) -> bool:
        if gold.op != "assign" or mine.op != "assign":
            return self.equation(gold, mine) if "equation" in (gold.op, mine.op) else self.named(gold, mine)
        names, my_names = by_name(gold), by_name(mine)
        if names and my_names:
            return names.keys() == my_names.keys() and all(self.same(names[n], my_names[n]) for n in names)
        (value, name), (my_value, my_name) = gold.args, mine.args
        if name.op == my_name.op == "app":
            return self.functions(gold, mine)
        if "app" in (name.op, my_name.op):  # f(x) = ... may also be called y
            call, other = (name, my_name) if name.op == "app" else (my_name, name)
            explicit = other.op == "sym" and all(arg.op == "sym" for arg in call.args)
            return explicit and call.value.count("'") == other.value.count("'") and self.same(value, my_value)
        return self.same(value, my_value) if gold.value == mine.value else self.equation(gold, mine)

    def named(self, gold: Node, mine: Node) -> bool:
        """A name and its value against a value alone; a name for each of several values is left out too."""
        named, other = (gold, mine) if gold.op == "assign" else (mine, gold)
        names = by_name(named)
        if names and other.op == "list" and (listed := by_name(other)):
            return names.keys() == listed.keys() and all(self.same(names[n], listed[n]) for n in names)
        return self.same(assigned(gold), assigned(mine))

    def functions(self, gold: Node, mine: Node) -> bool:
        """`f(x) = ...` and `f(t) = ...`; of `f(3) = ...`, the 3 counts."""
        (value, call), (my_value, my_call) = gold.args, mine.args
        if call.value != my_call.value or len(call.args) != len(my_call.args):
            return False
        if all(arg.op == "sym" and not arg.value[0].isupper() for arg in (*call.args, *my_call.args)):
            new = {theirs.value: ours for ours, theirs in zip(call.args, my_call.args, strict=True)}
            if {arg.value for arg in call.args} & (symbols(my_value) - set(new)):
                return False
            renamed = rebuild(my_value, lambda node: new.get(node.value, node) if node.op == "sym" else node)
            return self.same(value, renamed)
        return self.ordered(call.args, my_call.args) and self.same(value, my_value)

    def equation(self, gold: Node, mine: Node) -> bool:
        left, right = as_equation(gold), as_equation(mine)
        self.tier = max(self.tier, 1)
        if left is None or right is None:
            equation, other = (left, mine) if left is not None else (right, gold)
            roots = regions.bar_roots(equation) if equation is not None else None
            found = regions.listed(other) if roots is not None else None
            return roots is not None and found is not None and regions.alike(roots, found)
        return proportional(left, right) != 0 or same_curve(gold, mine)

    def regions(self, gold: Node, mine: Node) -> bool:
        left = regions.region(gold)
        right = regions.region(mine) if regions.is_solved(mine) else None
        if left is not None and right is None:
            right = regions.listed(mine)
        elif right is not None and left is None:
            left = regions.listed(gold)
        if left is not None and right is not None:
            self.tier = max(self.tier, 1)
            return regions.alike(left, right)
        if gold.op == mine.op == "list" and (gold.value == "or") == (mine.value == "or"):
            return self.unordered(gold.args, mine.args)
        gold, mine = as_interval(gold), as_interval(mine)
        if gold.op != mine.op and "interval" in (gold.op, mine.op):
            gold, mine = half_line(gold), half_line(mine)
        if gold.op != mine.op:
            return False
        if gold.op == "interval":
            return gold.value == mine.value and self.ordered(gold.args, mine.args)
        if gold.op in ("union", "inter"):
            return self.unordered(gold.args, mine.args)
        if gold.op == "minus":
            return self.ordered(gold.args, mine.args)
        return gold.op == "rel" and self.inequalities(gold, mine)

    def inequalities(self, gold: Node, mine: Node) -> bool:
        """Chains of inequalities with symbols at both ends, read in either direction, scaled by any constant."""
        links, mine_links = gold.value.split(), mine.value.split()
        if len(links) != len(mine_links) or "in" in links:
            return links == mine_links and self.ordered(gold.args, mine.args)
        if len(links) > 1:
            turned = [_FLIPPED.get(link, link) for link in reversed(mine_links)]
            return (links == mine_links and self.ordered(gold.args, mine.args)) or (
                links == turned and self.ordered(gold.args, mine.args[::-1])
            )
        self.tier = max(self.tier, 1)
        sign = proportional(difference(*gold.args), difference(*mine.args))
        return bool(sign) and links[0] == (mine_links[0] if sign > 0 else _FLIPPED[mine_links[0]])

    def collections(self, gold: Node, mine: Node) -> bool:
        if "matrix" in (gold.op, mine.op):
            return self.matrices(gold, mine)
        if "text" in (gold.op, mine.op):
            return {gold, mine} == _EMPTY
        if gold.op not in _COLLECTIONS or mine.op not in _COLLECTIONS or {gold.op, mine.op} == {"set", "tuple"}:
            return False
        if contains_dots(gold) and contains_dots(mine):
            return self.sequences(gold, mine)
        if len(gold.args) != len(mine.args):
            return False
        if (gold.value == "or") != (mine.value == "or") and (is_joint(gold) or is_joint(mine)):
            return False
        if self.conventions.ordered and gold.op == mine.op == "list" and not by_name(gold):
            return self.ordered(gold.args, mine.args)
        return self.listed(gold, mine)

    def listed(self, gold: Node, mine: Node) -> bool:
        """Elements by name where both sides have the same names, else in order where that says which is which."""
        if sum(arg.op == "set" for arg in gold.args) != sum(arg.op == "set" for arg in mine.args):
            return False  # {1} is not 1 among the elements of a set
        named, my_named = by_name(gold), by_name(mine)
        if named and my_named:
            if named.keys() != my_named.keys():
                return self.unordered(gold.args, mine.args)  # they may be equations all the same
            return all(self.same(named[name], my_named[name]) for name in named)
        known, other = (named, mine) if named else (my_named, gold)
        if "tuple" not in (gold.op, mine.op):
            if not known or any(arg.op == "equation" for arg in other.args):
                return self.unordered(gold.args, mine.args)
            if not are_indexed(known) and all(arg.op == "assign" for arg in other.args):
                return self.unordered(gold.args, mine.args)  # one unknown twice
        values, my_values = [assigned(arg) for arg in gold.args], [assigned(arg) for arg in mine.args]
        if known and are_indexed(known) and "tuple" not in (gold.op, mine.op):
            return self.unordered(values, my_values)
        return self.ordered(values, my_values)

    def sequences(self, gold: Node, mine: Node) -> bool:
        """Lists with an ellipsis: the same pattern, however many elements show it."""
        (left, after), (right, my_after) = around_dots(gold), around_dots(mine)
        if gold.op != mine.op and "tuple" in (gold.op, mine.op):
            return False
        if len(left) > len(right):
            left, right = right, left
        if len(left) == len(right):
            return self.ordered(left, right) and self.ordered(after, my_after)
        steps = [exact(difference(b, a)) for a, b in itertools.pairwise(right)]
        regular = len(left) > 1 and None not in steps and len(set(steps)) == 1
        return regular and self.ordered(left, right[: len(left)]) and self.ordered(after, my_after)

    def ordered(self, gold: Sequence[Node], mine: Sequence[Node]) -> bool:
        return len(gold) == len(mine) and all(self.same(a, b) for a, b in zip(gold, mine, strict=True))

    def unordered(self, gold: Sequence[Node], mine: Sequence[Node]) -> bool:
        if len(gold) != len(mine):
            return False
        numbers, my_numbers = [exact(node) for node in gold], [exact(node) for node in mine]
        known, my_known = [n for n in numbers if n is not None], [n for n in my_numbers if n is not None]
        if len(known) == len(gold) and len(my_known) == len(mine) and sorted(known) == sorted(my_known):
            return True
        if len(gold) > MAX_UNORDERED:
            return self.ordered(gold, mine)
        left = list(mine)
        parts = (*gold, *mine)
        bare = not any(contains(node, "deg", "unit", "pct") for node in parts) and not self.conventions.tolerance
        for node in gold:
            candidates = [k for k, other in enumerate(left) if not (bare and far_apart(node, other))]
            match = next((k for k in candidates if self.same(node, left[k])), None)
            if match is None:
                return False
            del left[match]
        return True

    def matrices(self, gold: Node, mine: Node) -> bool:
        if "cases" in (gold.value, mine.value):
            return gold.value == mine.value and same_cases(gold, mine, self.same)
        left, right = rows(gold), rows(mine)
        if left is None or right is None or len(left) != len(right):
            return False
        return all(self.ordered(a, b) for a, b in zip(left, right, strict=True))

    def ratios(self, gold: Node, mine: Node) -> bool:
        if gold.op != mine.op or len(gold.args) != len(mine.args):
            return False
        if contains(gold, "dots") or contains(mine, "dots"):
            return self.ordered(gold.args, mine.args)
        pivots = zip(gold.args, mine.args, strict=True)
        first, my_first = next(((a, b) for a, b in pivots if 0 not in (exact(a), exact(b))), (None, None))
        if first is None or my_first is None:
            return False
        return all(
            self.same(Node("mul", (a, my_first)), Node("mul", (b, first)))
            for a, b in zip(gold.args, mine.args, strict=True)
        )
