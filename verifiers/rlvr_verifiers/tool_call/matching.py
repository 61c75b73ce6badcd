"""Given calls against expected ones: is it the same multiset (or list), and if not, how much of it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .calls import ToolCall
from .expected import Expected

MOST_WEIGHED = 24
"""Given calls, and expected ones, that partial credit looks at."""


def match(given: Sequence[ToolCall], expected: Sequence[Expected], ordered: bool) -> bool:
    """Whether each given call can be assigned to an expected one of its own, and none is left on either side.

    Without an order the assignment is found by augmenting paths, so that a call that two expected ones would take never
    gets in the way of another (Kuhn 1955).
    """
    if len(given) != len(expected):
        return False
    if all(want.takes(call) for call, want in zip(given, expected, strict=True)):
        return True
    if ordered:
        return False
    options: list[list[int]] = []
    owner: dict[int, int] = {}
    for number, call in enumerate(given):
        options.append([i for i, want in enumerate(expected) if want.takes(call)])
        if not _place(number, options, owner, set()):
            return False
    return True


def _place(number: int, options: Sequence[Sequence[int]], owner: dict[int, int], tried: set[int]) -> bool:
    """Finds an expected call for a given one; others may have to move."""
    for place in options[number]:
        if place not in tried:
            tried.add(place)
            if place not in owner or _place(owner[place], options, owner, tried):
                owner[place] = number
                return True
    return False


class Credit(NamedTuple):
    """How much of the calls is right, each from 0 to 1.

    Attributes:
        name: Names of tools.
        arguments: Parameters that are given and should be.
        values: Values of parameters.
        pairs: Which given call was held against which expected one.
    """

    name: float
    arguments: float
    values: float
    pairs: tuple[tuple[int, int], ...]

    @property
    def total(self) -> float:
        return 0.25 * self.name + 0.25 * self.arguments + 0.5 * self.values


def credit(given: Sequence[ToolCall], expected: Sequence[Expected], ordered: bool) -> Credit:
    """Partial credit under the assignment that gives the most; what is missing or too much counts as wrong.

    The total grows whenever a call gets better and nothing else changes: the old assignment is still there, and worth
    more. Without calls on either side it is full.
    """
    most = max(len(given), len(expected))
    if not most:
        return Credit(1.0, 1.0, 1.0, ())
    given, expected = given[:MOST_WEIGHED], expected[:MOST_WEIGHED]
    shares = [[want.shares(call) for want in expected] for call in given]
    if ordered or most == 1:
        pairs = [(i, i) for i in range(min(len(given), len(expected)))]
    else:
        pairs = assignment([[0.25 * n + 0.25 * a + 0.5 * v for n, a, v in row] for row in shares])
    name, arguments, values = (sum(shares[i][j][part] for i, j in pairs) / most for part in range(3))
    return Credit(name, arguments, values, tuple(pairs))


def assignment(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pairs of rows and columns with the largest sum of weights, each row and column in one pair at most.

    The Hungarian algorithm with potentials (Kuhn 1955, Munkres 1957), on a square matrix padded with zeros; cubic.
    """
    rows, columns = len(weights), len(weights[0]) if weights else 0
    size = max(rows, columns)
    cost = [[-weights[i][j] if i < rows and j < columns else 0.0 for j in range(size)] for i in range(size)]
    u, v = [0.0] * (size + 1), [0.0] * (size + 1)
    row_of, way = [0] * (size + 1), [0] * (size + 1)
    for row in range(1, size + 1):
        row_of[0], column = row, 0
        least, used = [float("inf")] * (size + 1), [False] * (size + 1)
        while True:
            used[column] = True
            current, delta, following = row_of[column], float("inf"), 0
            for j in range(1, size + 1):
                if not used[j]:
                    slack = cost[current - 1][j - 1] - u[current] - v[j]
                    if slack < least[j]:
                        least[j], way[j] = slack, column
                    if least[j] < delta:
                        delta, following = least[j], j
            for j in range(size + 1):
                if used[j]:
                    u[row_of[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            column = following
            if not row_of[column]:
                break
        while column:
            row_of[column], column = row_of[way[column]], way[column]
    return sorted((row_of[j] - 1, j - 1) for j in range(1, size + 1) if row_of[j] <= rows and j <= columns)
