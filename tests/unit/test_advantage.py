"""Advantages are relative to the valid rows of a group, and missing rows are not there."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.advantage import EPSILON, Estimator, credits, group_advantages, informative, leave_one_out

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


# Each against the others


def test_each_reward_is_held_against_the_mean_of_the_others() -> None:
    assert leave_one_out([1.0, 0.0, 0.5]) == pytest.approx([0.75, -0.75, 0.0])
    assert leave_one_out([1.0, None, 0.0, 0.5]) == [pytest.approx(0.75), None, pytest.approx(-0.75), pytest.approx(0)]


@pytest.mark.parametrize("rewards", [[], [None], [0.7], [0.7, None], [1.0, 1.0]], ids=str)
def test_without_another_or_a_difference_it_is_zero(rewards: list[float | None]) -> None:
    assert leave_one_out(rewards) == [None if r is None else 0.0 for r in rewards]


@given(st.lists(REWARDS, min_size=2, max_size=12))
def test_leaving_one_out_is_the_centred_reward_made_longer(rewards: list[float]) -> None:
    n, found = len(rewards), leave_one_out(rewards)
    others = [(sum(rewards) - reward) / (n - 1) for reward in rewards]
    assert found == pytest.approx([r - mean for r, mean in zip(rewards, others, strict=True)], abs=1e-9)
    centred = [a for a in group_advantages(rewards, "none") if a is not None]
    assert found == pytest.approx([n / (n - 1) * a for a in centred], abs=1e-9)


# What a completion is credited with

ESTIMATORS: tuple[Estimator, ...] = ("group", "rloo", "reinforce++", "reinforce++-baseline", "gae")


def test_credits_by_hand() -> None:
    rewards = [1.0, 0.0, None, 0.5]
    right = 0.5 / (0.5 + EPSILON)
    expected: dict[tuple[Estimator, Scale], list[float | None]] = {
        ("group", "std"): [right, -right, None, 0.0],
        ("group", "none"): [0.5, -0.5, None, 0.0],
        ("rloo", "none"): [0.75, -0.75, None, 0.0],
        ("reinforce++", "std"): rewards,
        ("reinforce++-baseline", "std"): [0.5, -0.5, None, 0.0],
        ("gae", "std"): rewards,
    }
    for (estimator, scale), values in expected.items():
        found = credits(rewards, estimator, scale)
        assert [a is None for a in found] == [a is None for a in values]
        assert [a for a in found if a is not None] == pytest.approx([a for a in values if a is not None])


@given(GROUPS, st.sampled_from(ESTIMATORS), st.sampled_from(["std", "none"]))
def test_credits_of_missing_rows_are_missing_and_change_nothing(
    rewards: list[float | None], estimator: Estimator, scale: Scale
) -> None:
    found = credits(rewards, estimator, scale)
    assert [a is None for a in found] == [r is None for r in rewards]
    valid = [reward for reward in rewards if reward is not None]
    assert [a for a in found if a is not None] == credits(valid, estimator, scale)


@given(
    GROUPS,
    st.sampled_from(["group", "rloo", "reinforce++-baseline"]),
    st.sampled_from(["std", "none"]),
    st.integers(-8, 8).map(lambda n: n / 4),
)
def test_credits_with_a_baseline_sum_to_nothing_and_do_not_depend_on_the_zero_of_the_reward(
    rewards: list[float | None], estimator: Estimator, scale: Scale, zero: float
) -> None:
    found = [a for a in credits(rewards, estimator, scale) if a is not None]
    assert sum(found) == pytest.approx(0, abs=1e-8)
    shifted = credits([None if r is None else r + zero for r in rewards], estimator, scale)
    assert [a for a in shifted if a is not None] == pytest.approx(found, abs=1e-6)
