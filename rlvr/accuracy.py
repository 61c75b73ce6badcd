"""Accuracy from verdicts: pass@1, pass@k and their confidence intervals."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlvr.errors import RunStopped
from rlvr.types import Verdict


@dataclass(frozen=True)
class Evaluation:
    """What a policy scored on the samples of one split.

    Attributes:
        accuracy: pass@1: the mean over problems of the share of valid verdicts that passed.
        low: Lower bound of its 95% confidence interval.
        high: Upper bound.
        problems: Problems with at least one valid verdict.
        samples: Completions per problem.
        missing: Verdicts that were error, timeout or abstained; they count neither way.
        pass_at: pass@k for k = 1, 2, 4, ... up to `samples`.
        tasks: The same of each task by itself, where there are several.
        also: The same of each task that is only measured (`eval.also`); they are no part of the above.
    """

    accuracy: float
    low: float
    high: float
    problems: int
    samples: int
    missing: int
    pass_at: Mapping[int, float] = field(default_factory=dict)
    tasks: Mapping[str, Evaluation] = field(default_factory=dict)
    also: Mapping[str, Evaluation] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Evaluation:
        pass_at = {int(k): v for k, v in values["pass_at"].items()}
        tasks, also = (
            {name: cls.from_json(own) for name, own in values.get(key, {}).items()} for key in ("tasks", "also")
        )
        return cls(**{**values, "pass_at": pass_at, "tasks": tasks, "also": also})

    def metrics(self) -> dict[str, float]:
        """`accuracy` and its interval, `accuracy_low` and `accuracy_high`; and those of each task by its name:
        `math/accuracy`."""
        own = {"accuracy": self.accuracy, "accuracy_low": self.low, "accuracy_high": self.high}
        named = {**self.tasks, **self.also}
        return own | {
            f"{task}/{name}": value for task, found in named.items() for name, value in found.metrics().items()
        }

    def __str__(self) -> str:
        missing = f", {self.missing} verdicts missing" if self.missing else ""
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.problems} problems{missing}"


def summarize(verdicts: Sequence[Sequence[Verdict]], samples: int) -> Evaluation:
    """An evaluation of verdicts grouped by problem. Missing verdicts count neither way.

    Raises:
        RunStopped: There is no valid verdict at all.
    """
    counts = []  # (valid, passed) of each problem that has a valid verdict
    missing = 0
    for group in verdicts:
        valid = [verdict for verdict in group if verdict.valid]
        missing += len(group) - len(valid)
        if valid:
            counts.append((len(valid), sum(verdict.passed for verdict in valid)))
    if not counts:
        reason = next((verdict.detail for group in verdicts for verdict in group), "there were no completions")
        raise RunStopped(f"no verification gave a verdict: {reason}", "`rlvr verify` shows one by itself")
    shares = [passed / valid for valid, passed in counts]
    low, high = wilson(sum(p for _, p in counts), len(counts)) if samples == 1 else bootstrap(shares)
    ks = [1 << i for i in range(samples.bit_length()) if 1 << i <= samples]
    pass_at = {
        k: statistics.fmean(pass_at_k(valid, passed, k) for valid, passed in enough)
        for k in ks
        if (enough := [count for count in counts if count[0] >= k])
    }
    return Evaluation(statistics.fmean(shares), low, high, len(counts), samples, missing, pass_at)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k completions drawn from n, of which c passed, passes.

    The unbiased estimator `1 - C(n-c, k) / C(n, k)` of Chen et al. 2021 (arXiv:2107.03374, eq. 1).
    """
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def wilson(passed: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927); 95% by default."""
    share = passed / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bootstrap(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean over problems (Efron 1979)."""
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]
