"""What the processes of a run agree on: each runs the same loop, and what one of them saw all of them must know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from rlvr.errors import RunStopped

T = TypeVar("T")


class Exchange(Protocol):
    """The processes of a run.

    Attributes:
        process: The number of this one.
        processes: How many there are.
        spread: Whether each samples and verifies its part of the completions; else the first does, all of them.
    """

    process: int
    processes: int
    spread: bool

    def share(self, text: str) -> list[str]:
        """What every process gave, by its number. All of them must call it."""


def together(exchange: Exchange, work: Callable[[], T]) -> T:
    """Does something that may fail in one process; if it does, no process goes on alone, to wait for it forever.

    Raises:
        RunStopped: It failed in another process. In the one where it failed, what it raised.
    """
    if exchange.processes == 1:
        return work()
    try:
        done = work()
    except Exception as error:
        exchange.share(f"{type(error).__name__}: {error}")
        raise
    for process, wrong in enumerate(exchange.share("")):
        if wrong:
            raise RunStopped(f"process {process} of the run failed: {wrong}", "what it printed says more")
    return done
