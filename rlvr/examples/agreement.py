"""How far those who judge agree: shares with intervals, Cohen's kappa, Krippendorff's alpha, an exact sign test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from rlvr.accuracy import wilson


def share(count: int, n: int) -> dict[str, Any]:
    """A share with its 95% Wilson interval, as JSON values; None where there is nothing to take it of."""
    if not n:
        return {"n": 0, "share": None, "low": None, "high": None}
    low, high = wilson(count, n)
    return {"n": n, "share": count / n, "low": low, "high": high}


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Agreement of two raters beyond chance, (p_o - p_e) / (1 - p_e) (Cohen 1960).

    Args:
        pairs: The label of each rater for each thing that both have rated.

    Returns:
        1 for full agreement, 0 for what chance gives; None where nothing was rated, or both only ever said one thing.
    """
    if not pairs:
        return None
    n = len(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    observed = sum(a == b for a, b in pairs) / n
    expected = sum(first[label] * second[label] for label in first) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Agreement of any number of raters beyond chance, with labels of no order and ratings that may be missing:
    1 - D_o / D_e over the coincidences of labels (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

    Args:
        units: The labels that each thing was given, by whomever; one with a single label says nothing.

    Returns:
        1 for full agreement, 0 for what chance gives; None without two labels of one thing, or with one label only.
    """
    coincidences: Counter[tuple[Hashable, Hashable]] = Counter()
    for labels in units:
        counts = Counter(labels)
        size = counts.total()
        if size < 2:
            continue
        for a, b in ((a, b) for a in counts for b in counts):
            coincidences[a, b] += counts[a] * (counts[b] - (a == b)) / (size - 1)  # type: ignore[assignment]
    totals: Counter[Hashable] = Counter()
    for (a, _), count in coincidences.items():
        totals[a] += count
    n = totals.total()
    observed = sum(count for (a, b), count in coincidences.items() if a != b)
    expected = n * n - sum(count * count for count in totals.values())
    return 1 - (n - 1) * observed / expected if expected > 1e-9 else None


def pairwise(ratings: Mapping[str, Mapping[Hashable, Hashable]]) -> list[dict[str, Any]]:
    """For each two raters: how many things both rated, the share on which they agree, Cohen's kappa.

    Args:
        ratings: By rater, the label of each thing.
    """
    rows = []
    for first, second in combinations(sorted(ratings), 2):
        common = [thing for thing in ratings[first] if thing in ratings[second]]
        labels = [(ratings[first][thing], ratings[second][thing]) for thing in common]
        if labels:
            agree = share(sum(a == b for a, b in labels), len(labels))
            rows.append({"raters": [first, second], **agree, "kappa": cohen_kappa(labels)})
    return rows


def sign_test(wins: int, losses: int) -> float:
    """The chance that a fair coin is at least as far off (two-sided, exact up to 1000 throws, then normal)."""
    n = wins + losses
    if not n:
        return 1.0
    if n > 1000:
        z = (abs(wins - losses) - 1) / math.sqrt(n)
        return min(1.0, math.erfc(max(0.0, z) / math.sqrt(2)))
    tail = sum(math.comb(n, k) for k in range(max(wins, losses), n + 1))
    return min(1.0, 2 * tail / 2**n)
