"""Advantages are relative to the valid rows of a group, and missing rows are not there."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.advantage import EPSILON, group_advantages, informative

Scale = Literal["std", "none"]

REWARDS = st.floats(-2, 2).map(lambda reward: round(reward, 3))
GROUPS = st.lists(REWARDS | st.none(), max_size=12)


def test_one_right_of_four() -> None:
    deviation = 0.5  # sqrt((0.75² + 3 · 0.25²) / 3)
    right, wrong = 0.75 / (deviation + EPSILON), -0.25 / (deviation + EPSILON)
    assert group_advantages([1.0, 0.0, 0.0, 0.0]) == pytest.approx([right, wrong, wrong, wrong])


def test_two_of_two() -> None:
    one = 0.5 / (math.sqrt(0.5) + EPSILON)
    assert group_advantages([1.0, 0.0]) == pytest.approx([one, -one])


def test_without_scaling_only_the_mean_is_taken_off() -> None:
    assert group_advantages([1.0, 0.5, 0.0, 0.5], scale="none") == [0.5, 0.0, -0.5, 0.0]


def test_a_missing_row_is_not_a_bad_answer() -> None:
    right, wrong = group_advantages([1.0, 0.0])
    assert group_advantages([1.0, None, 0.0]) == [right, None, wrong]


@pytest.mark.parametrize(
    "rewards", [[], [None], [1.0], [1.0, None], [0.0, 0.0, 0.0], [1.0, 1.0, None], [None, None]], ids=str
)
@pytest.mark.parametrize("scale", ["std", "none"])
def test_a_group_that_teaches_nothing_has_advantages_of_exactly_zero(rewards: list[float | None], scale: Scale) -> None:
    assert not informative(rewards)
    assert group_advantages(rewards, scale) == [None if r is None else 0.0 for r in rewards]


@given(GROUPS, st.sampled_from(["std", "none"]))
def test_missing_rows_change_nothing_for_the_others(rewards: list[float | None], scale: Scale) -> None:
    advantages = group_advantages(rewards, scale)
    assert [a is None for a in advantages] == [r is None for r in rewards]
    valid = [reward for reward in rewards if reward is not None]
    assert [a for a in advantages if a is not None] == group_advantages(valid, scale)
    assert informative(rewards) == informative(valid)


@given(st.lists(REWARDS, min_size=2, max_size=12).filter(informative), st.sampled_from(["std", "none"]))
def test_advantages_sum_to_nothing_and_keep_the_order_of_the_rewards(rewards: list[float], scale: Scale) -> None:
    advantages = [a for a in group_advantages(rewards, scale) if a is not None]
    assert len(advantages) == len(rewards)
    assert sum(advantages) == pytest.approx(0, abs=1e-9)
    by_reward = [advantage for _, advantage in sorted(zip(rewards, advantages, strict=True))]
    assert by_reward == sorted(by_reward)
    assert all(map(math.isfinite, advantages))


@given(st.lists(st.integers(0, 10), min_size=2, max_size=8).filter(informative), st.floats(0.5, 8), st.floats(-4, 4))
def test_scaled_advantages_do_not_depend_on_the_unit_or_the_zero_of_the_reward(
    rewards: list[int], unit: float, zero: float
) -> None:
    rescaled = group_advantages([unit * reward + zero for reward in rewards])
    assert rescaled == pytest.approx(group_advantages(rewards), rel=1e-3)  # but for EPSILON
