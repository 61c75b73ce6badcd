"""Runs ahead of learning: step k + 1 is sampled and verified in a thread of its own while step k is learned from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from rlvr.interrupt import Interrupt, Interrupted
from rlvr.rollout import State, StepBatch


class Ahead:
    """Collects steps in order, at most `staleness` of them ahead of the one that is learned from.

    A step begins where the one before it ended, so one thread collects them all. What has been collected and not been
    taken when a run stops is not part of its state: it is sampled again after `--resume`.

    Args:
        collect: Collects the step that a state stands before.
        staleness: How far to run ahead; 0 collects a step when it is taken, in the caller's thread.
        steps: The number of the first step not to collect.
        interrupt: Of the run.
    """

    def __init__(
        self, collect: Callable[[State, Interrupt], StepBatch], staleness: int, steps: int, interrupt: Interrupt
    ) -> None:
        self.collect, self.staleness, self.steps, self.interrupt = collect, staleness, steps, interrupt
        self._pending: deque[Future[StepBatch]] = deque()
        self._next = 0
        self._given_up = _GivenUp(interrupt)
        self._thread = ThreadPoolExecutor(1, "rlvr-ahead") if staleness else None

    def take(self, state: State) -> StepBatch:
        """The step that `state` stands before. Steps after it go on being collected.

        Raises:
            RlvrError: What collecting raised.
            Interrupted: Ctrl-C.
        """
        if self._thread is None:
            return self.collect(state, self.interrupt)
        if not self._pending:
            self._next = state.step
        while len(self._pending) <= self.staleness and self._next < self.steps:
            before = self._pending[-1] if self._pending else None
            self._pending.append(self._thread.submit(self._collect, before, state))
            self._next += 1
        return self._pending.popleft().result()

    def _collect(self, before: Future[StepBatch] | None, state: State) -> StepBatch:
        return self.collect(before.result().next_state if before else state, self._given_up)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._given_up.stopped.set()
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)


class _GivenUp(Interrupt):
    """Also interrupts when the run has ended for another reason."""

    def __init__(self, interrupt: Interrupt) -> None:
        super().__init__()
        self.interrupt = interrupt
        self.stopped = threading.Event()

    def check(self) -> None:
        self.interrupt.check()
        if self.stopped.is_set():
            raise Interrupted
