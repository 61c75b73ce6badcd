"""What one comparison may spend on arithmetic, and what it remembers, however many pairs of parts it looks at."""

from __future__ import annotations

import threading
from fractions import Fraction
from types import TracebackType
from typing import Any

MAX_STEPS = 16_000
"""Steps of about 3 microseconds that one comparison may take."""


class Undecided(ArithmeticError):
    """The value is over a limit, or no number at all."""


class Exhausted(Undecided):
    """The comparison has used up its steps: nothing more is decided."""


class Budget:
    """The steps left, and the values found so far of trees without symbols."""

    def __init__(self) -> None:
        self.left = MAX_STEPS
        self.values: dict[Any, Any] = {}
        self.exact: dict[Any, Fraction | None] = {}

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Exhausted


_local = threading.local()


class OneBudget:
    """Everything inside `with OneBudget()` shares one budget; one within another joins it."""

    def __enter__(self) -> Budget:
        budget: Budget | None = getattr(_local, "budget", None)
        self.is_outer = budget is None
        if budget is None:
            budget = _local.budget = Budget()
        return budget

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.is_outer:
            _local.budget = None


def spend(steps: int) -> None:
    """Takes steps from the budget of this comparison.

    Raises:
        Exhausted: If too few are left.
    """
    budget: Budget | None = getattr(_local, "budget", None)
    if budget is not None:
        budget.spend(steps)
