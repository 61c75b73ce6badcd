"""Advantages that a group gives by itself: pure functions from the rewards of one group.

What takes the whole step, as whitening and GAE do, is in `rlvr.learner.returns`.

A reward of None stands for a missing verdict (error, timeout, abstained) or a filtered row. Such a row is left out
of the mean and the deviation, and gets no advantage: it is missing data, not a bad answer.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

EPSILON = 1e-4

Estimator = Literal["group", "rloo", "reinforce++", "reinforce++-baseline", "gae"]


def informative(rewards: Sequence[float | None]) -> bool:
    """Whether a group teaches anything: at least two valid rewards, not all equal."""
    return len({reward for reward in rewards if reward is not None}) > 1


def group_advantages(rewards: Sequence[float | None], scale: Literal["std", "none"] = "std") -> list[float | None]:
    """Advantages of one group.

    `A_i = (r_i - mean(r)) / (std(r) + 1e-4)` over the valid rewards of the group (Shao et al. 2024, DeepSeekMath,
    arXiv:2402.03300, section 4.1.2), with the sample deviation; `scale="none"` leaves the division out (Liu et
    al. 2025, Dr. GRPO, arXiv:2503.20783).

    Args:
        rewards: One per completion of the group [G]; None for a missing one.
        scale: Whether to divide by the deviation.

    Returns:
        One per completion [G]: None where the reward is None; 0.0 for every valid row of a group that is not
        informative.
    """
    valid = [reward for reward in rewards if reward is not None]
    if not informative(rewards):
        return [None if reward is None else 0.0 for reward in rewards]
    mean = statistics.fmean(valid)
    divisor = statistics.stdev(valid) + EPSILON if scale == "std" else 1.0
    return [None if reward is None else (reward - mean) / divisor for reward in rewards]


def leave_one_out(rewards: Sequence[float | None]) -> list[float | None]:
    """Advantages of one group, each reward against the others.

    `A_i = r_i - mean of r_j over j != i` over the n valid rewards (Ahmadian et al. 2024, "Back to Basics: Revisiting
    REINFORCE-Style Optimization for Learning from Human Feedback in LLMs", arXiv:2402.14740, eq. 8, after Kool et al.
    2019), which is `n / (n - 1)` times what `group_advantages` gives with `scale="none"`.

    Args:
        rewards: One per completion of the group [G]; None for a missing one.

    Returns:
        One per completion [G]: None where the reward is None; 0.0 where there is no other.
    """
    n = sum(reward is not None for reward in rewards)
    centred = group_advantages(rewards, "none")
    return [None if value is None else value * n / max(n - 1, 1) for value in centred]


def credits(rewards: Sequence[float | None], estimator: Estimator, scale: Literal["std", "none"]) -> list[float | None]:
    """What each completion of a group is credited with: its advantage, or what the learner makes advantages of.

    `group` and `rloo` give advantages. `reinforce++-baseline` gives `r_i - mean(r)`, and `reinforce++` and `gae` the
    reward itself; the learner whitens these over the step, or holds them against a value model.
    """
    if estimator == "group":
        return group_advantages(rewards, scale)
    if estimator == "rloo":
        return leave_one_out(rewards)
    if estimator == "reinforce++-baseline":
        return group_advantages(rewards, "none")
    return list(rewards)
