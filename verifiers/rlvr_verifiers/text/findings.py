"""What a rule says of a text, and the numbers that rules are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .seen import View

TOP = 10_000
"""The largest number that a rule may name; counting ends soon above it."""

AROUND = 0.1
"""How far "around" reaches, as a share of the number."""

RELATIONS = ("at least", "at most", "less than", "more than", "exactly", "around")


class Finding(NamedTuple):
    """Whether a rule holds (None where that cannot be told), and what was found, to be read behind the rule's name."""

    holds: bool | None
    found: str


Check = Callable[[View, bool], Finding]
"""`check(view, demanding)`; not demanding below a `not`, where what it finds is forbidden."""


class Bounds(NamedTuple):
    """How many there may be, both ends included."""

    least: int
    most: int | None

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {self.least}"
        if self.least == self.most:
            return f"exactly {self.least}"
        return f"limit {self.most}" if not self.least else f"from {self.least} to {self.most}"

    @property
    def stop(self) -> int:
        """Where counting may stop: nothing above changes what is found."""
        return (self.least if self.most is None else self.most) + 1


def bounds(value: Any, what: str) -> Bounds:
    """Bounds from a number (exactly that many) or a table with `min` and `max`.

    Raises:
        ValueError: They are something else.
    """
    if isinstance(value, Mapping):
        if unknown := set(value) - {"min", "max"}:
            raise ValueError(f"`{what}` has `{min(unknown)}`; it takes `min` and `max`")
        least, most = whole(value.get("min", 0), f"{what}.min"), value.get("max")
        most = None if most is None else whole(most, f"{what}.max")
        if not value or (most is not None and most < least):
            raise ValueError(f"`{what}` is `{dict(value)}`, which bounds nothing")
        return Bounds(least, most)
    number = whole(value, what)
    return Bounds(number, number)


def related(number: int, relation: Any) -> Bounds:
    """Bounds in words: a number and one of `RELATIONS`.

    Raises:
        ValueError: There is no such relation.
    """
    slack = max(1, round(AROUND * number))
    table = {
        "at least": Bounds(number, None),
        "at most": Bounds(0, number),
        "less than": Bounds(0, number - 1),
        "more than": Bounds(number + 1, None),
        "exactly": Bounds(number, number),
        "around": Bounds(max(0, number - slack), number + slack),
    }
    found = table.get(str(relation).strip().casefold())
    if found is None or (found.most is not None and found.most < 0):
        raise ValueError(f"the relation is `{relation}` {number}; known: {', '.join(RELATIONS)}")
    return found


def whole(value: Any, what: str) -> int:
    """A whole number from 0 to `TOP`; 3.0 is one, as some readers make floats of numbers.

    Raises:
        ValueError: It is something else.
    """
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= TOP:
        raise ValueError(f"`{what}` must be a whole number from 0 to {TOP:,}, not `{value}`")
    return number


def counted(count: Callable[[bool], int], limits: Bounds, unit: str) -> Finding:
    """Whether a count keeps to its bounds.

    Args:
        count: `count(demanding)`: of what a reader sees (True), or of all that may be seen.
        limits: The first is held against the least, the second against the most.
        unit: What was counted, in the plural.
    """
    if limits.least or limits.most is None:
        number = count(True)
        if number < limits.least:
            return Finding(False, f"{number} {unit}, {limits}")
    if limits.most is not None:
        number = count(False)
        if number > limits.most:
            more = "more than " if number >= limits.stop > TOP else ""
            return Finding(False, f"{more}{number} {unit}, {limits}")
    return Finding(True, f"{number} {unit}, {limits}")
