"""Verifies trials in a real scorer, one at a time or many at once, and keeps every verdict."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rlvr.kit.trials import Trial, key_of
from rlvr.registry import VerifierSpec
from rlvr.scoring import Scorer
from rlvr.types import Status, Verdict

PATIENCE = 4
"""Verifications that may run into their clock before the rest is given up: each may have cost ten seconds."""

AT_ONCE = 16
"""Trials that are under way together at most."""

RETRIES = 3
"""How often to ask again for a verdict that the machine was too busy for."""


class Bench:
    """A verifier in a scorer. Once `PATIENCE` clocks ran out it stops, and gives the verdicts of the first trials only.

    Args:
        verifier: Its name.
        open_scorer: Makes a scorer with fresh workers.
        timeout: Seconds of wall clock for each verification; None leaves it to verifier and scorer.

    Attributes:
        seen: Every trial with its verdict, in order.
        hangs: Verifications whose clock ran out.
    """

    def __init__(self, verifier: str, open_scorer: Callable[[], Scorer], timeout: float | None = None) -> None:
        self.open_scorer = open_scorer
        self.scorer = open_scorer()
        self.spec: VerifierSpec = self.scorer.registry.verifier(verifier)
        self.timeout = timeout
        self.seen: list[tuple[Trial, Verdict]] = []
        self.hangs = 0

    @property
    def clock(self) -> float:
        """Seconds that one verification may take."""
        own = self.scorer.timeout if self.spec.timeout is None else self.spec.timeout
        return own if self.timeout is None else self.timeout

    @property
    def gave_up(self) -> bool:
        return self.hangs >= PATIENCE

    def single(self, trials: Sequence[Trial]) -> list[Verdict]:
        """Verdicts of trials that are verified one by one, the next when the one before has its verdict."""
        return self._verify(trials, 1)

    def flood(self, trials: Sequence[Trial]) -> list[Verdict]:
        """Verdicts of trials that are verified by all workers at once."""
        return self._verify(trials, AT_ONCE)

    def once(self, trial: Trial, timeout: float) -> Verdict:
        """One verdict under a clock of its own, which is no hang when it runs out."""
        return self.scorer.submit(self.spec.name, trial.completion, trial.sample, trial.options, timeout).result()

    def batch(self, trials: Sequence[Trial]) -> list[Verdict]:
        """Verdicts of trials that are submitted in batches, those with the same options together."""
        verdicts: dict[int, Verdict] = {}
        groups: dict[str, list[int]] = {}
        for place, trial in enumerate(trials):
            groups.setdefault(key_of(trial.options), []).append(place)
        for places in groups.values():
            for start in range(0, len(places), 1_000):
                part = places[start : start + 1_000]
                if self.gave_up:
                    return [verdicts[place] for place in itertools.takewhile(verdicts.__contains__, range(len(trials)))]
                pairs = [(trials[place].completion, trials[place].sample) for place in part]
                options = trials[part[0]].options
                batch = self.scorer.submit_batch(self.spec.name, pairs, options, self.timeout)
                for place, verdict in zip(part, batch.result(), strict=True):
                    verdicts[place] = self._note(trials[place], verdict)
        return [verdicts[place] for place in range(len(trials))]

    def timed(self, trials: Sequence[Trial]) -> tuple[list[Verdict], float]:
        """`batch`, and the seconds that it took."""
        start = time.perf_counter()
        verdicts = self.batch(trials)
        return verdicts, time.perf_counter() - start

    def renew(self) -> None:
        """Goes on in fresh workers."""
        self.scorer.close()
        self.scorer = self.open_scorer()

    def _verify(self, trials: Sequence[Trial], at_once: int) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for start in range(0, len(trials), at_once):
            if self.gave_up:
                break
            part = trials[start : start + at_once]
            futures = [
                self.scorer.submit(self.spec.name, one.completion, one.sample, one.options, self.timeout)
                for one in part
            ]
            for one, future in zip(part, futures, strict=True):
                if self.gave_up:
                    future.cancel()
                else:
                    verdicts.append(self._note(one, future.result()))
        return verdicts

    def was_busy(self, verdict: Verdict) -> bool:
        """Whether the verifier itself gave up before its clock ran out, as when its sandbox got no processor."""
        return verdict.status is Status.TIMEOUT and verdict.duration < 0.9 * self.clock

    def _note(self, trial: Trial, verdict: Verdict) -> Verdict:
        """Keeps a verdict. One that says that the machine was too busy is asked for again."""
        for _ in range(RETRIES):
            if not self.was_busy(verdict):
                break
            again = self.scorer.submit(self.spec.name, trial.completion, trial.sample, trial.options, self.timeout)
            verdict = again.result()
        self.hangs += verdict.status is Status.TIMEOUT and not self.was_busy(verdict)
        self.seen.append((trial, verdict))
        return verdict

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.scorer.close()
