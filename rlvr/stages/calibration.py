"""Whether a reward model is as often right as it says: pairwise accuracy, calibration, margins.

A Bradley-Terry model gives the chance that a completion is the better one of a pair,

    p = sigmoid(r_first - r_second)

Of pairs that all have the better one first, any model that likes the first looks well calibrated. So each pair counts
in both orders: once as (p, better), once as (1 - p, worse).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlvr.accuracy import wilson


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about the same probability.

    Attributes:
        low: Where the bin begins; it holds [low, high), the last one 1 as well.
        high: Where it ends.
        count: Predictions in it.
        predicted: Their mean; None without any.
        observed: The share of them that came true; None without any.
    """

    low: float
    high: float
    count: int
    predicted: float | None
    observed: float | None


@dataclass(frozen=True, slots=True)
class Validation:
    """How a reward model does on held-out pairs.

    Attributes:
        pairs: How many there are.
        accuracy: Share in which the chosen completion scores higher; equal scores count half.
        low: Lower bound of its 95% interval (Wilson).
        high: Upper bound.
        loss: Mean of -log sigmoid(chosen - rejected).
        ece: Expected calibration error (Naeini et al. 2015) over the bins, each pair in both orders.
        margin: Mean of chosen - rejected, raw.
        margins: Deciles of it.
        mean: Of all raw scores.
        deviation: Of all raw scores, at least 1e-6.
        bins: The calibration curve.
    """

    pairs: int
    accuracy: float
    low: float
    high: float
    loss: float
    ece: float
    margin: float
    margins: tuple[float, ...]
    mean: float
    deviation: float
    bins: tuple[Bin, ...]

    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.pairs} pairs, ECE {self.ece:.3f}"


def validation(chosen: Sequence[float], rejected: Sequence[float], bins: int = 10) -> Validation:
    """Measures raw scores of pairs.

    Args:
        chosen: Of the better completions [N], at least one.
        rejected: Of the worse ones [N].
        bins: Of the calibration curve, of equal width over [0, 1].
    """
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    wins = sum(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins)
    low, high = wilson(wins, len(margins))  # type: ignore[arg-type]
    scores = [*chosen, *rejected]
    curve = calibration_curve(margins, bins)
    return Validation(
        len(margins),
        wins / len(margins),
        low,
        high,
        statistics.fmean(softplus(-margin) for margin in margins),
        calibration_error(curve),
        statistics.fmean(margins),
        tuple(statistics.quantiles(margins, n=10)) if len(margins) > 1 else (),
        statistics.fmean(scores),
        max(statistics.pstdev(scores), 1e-6),
        curve,
    )


def calibration_curve(margins: Sequence[float], bins: int = 10) -> tuple[Bin, ...]:
    """Predicted against observed, each pair in both orders.

    Args:
        margins: Raw score of the better completion less that of the worse one [N].
        bins: Of equal width over [0, 1].
    """
    found: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for margin in margins:
        for p, better in ((sigmoid(margin), True), (sigmoid(-margin), False)):
            found[min(int(p * bins), bins - 1)].append((p, better))
    return tuple(
        Bin(
            i / bins,
            (i + 1) / bins,
            len(own),
            statistics.fmean(p for p, _ in own) if own else None,
            sum(better for _, better in own) / len(own) if own else None,
        )
        for i, own in enumerate(found)
    )


def calibration_error(curve: Sequence[Bin]) -> float:
    """Mean distance between predicted and observed, by the predictions in each bin."""
    total = sum(own.count for own in curve)
    return sum(
        own.count * abs(own.predicted - own.observed)
        for own in curve
        if own.predicted is not None and own.observed is not None
    ) / max(total, 1)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), for any finite x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    """log(1 + exp(x)), for any finite x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def on_plateau(accuracies: Sequence[float], patience: int, min_gain: float) -> bool:
    """Whether the last `patience` validations brought no gain of more than `min_gain` over the best before them."""
    if len(accuracies) <= patience:
        return False
    before, since = accuracies[:-patience], accuracies[-patience:]
    return max(since) <= max(before) + min_gain
