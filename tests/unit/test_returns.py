"""Returns, GAE, whitening and the adaptive KL weight against what the formulas say token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlvr.learner.returns import KLController, deviation, gae, whiten

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, sum(lengths), generator=generator, dtype=torch.float64)
    return rewards, values


def naive(rewards: list[float], values: list[float], gamma: float, decay: float) -> list[float]:
    """`A_t = sum_k (γλ)^k δ_{t+k}` of one completion, as it is written."""
    behind = [*values, 0.0]
    deltas = [r + gamma * behind[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [sum((gamma * decay) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(rewards))]


# Advantages and returns


@given(LENGTHS, st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_gae_is_the_sum_over_what_follows_in_each_completion_by_itself(
    lengths: list[int], seed: int, gamma: float, decay: float
) -> None:
    rewards, values = drawn(lengths, seed)
    advantages, returns = gae(rewards, values, lengths, gamma, decay)
    pairs = zip(rewards.split(lengths), values.split(lengths), strict=True)
    expected = [a for r, v in pairs for a in naive(r.tolist(), v.tolist(), gamma, decay)]
    assert advantages.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(returns, advantages + values)


def test_gae_by_hand() -> None:
    """δ of the first completion are 0.4, 0.3 and 0.2; the second has one token."""
    advantages, returns = gae(numbers(0, 0, 1, 2), numbers(0.1, 0.5, 0.8, 3), [3, 1], 1.0, 0.5)
    assert advantages.tolist() == pytest.approx([0.4 + 0.15 + 0.05, 0.3 + 0.1, 0.2, -1])
    assert returns.tolist() == pytest.approx([0.7, 0.9, 1.0, 2.0])


@given(LENGTHS, st.integers(0, 99), st.floats(0, 1))
def test_without_values_and_decay_it_is_the_reward_to_go(lengths: list[int], seed: int, gamma: float) -> None:
    rewards, _ = drawn(lengths, seed)
    advantages, returns = gae(rewards, torch.zeros_like(rewards), lengths, gamma, 1.0)
    expected = []
    for part in rewards.split(lengths):
        expected += [sum(gamma**k * r for k, r in enumerate(part[t:].tolist())) for t in range(len(part))]
    assert advantages.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(advantages, returns)


@given(LENGTHS, st.integers(0, 99))
def test_all_return_does_not_depend_on_the_values(lengths: list[int], seed: int) -> None:
    rewards, values = drawn(lengths, seed)
    _, returns = gae(rewards, values, lengths, 1.0, 1.0)
    _, plain = gae(rewards, torch.zeros_like(values), lengths, 1.0, 1.0)
    torch.testing.assert_close(returns, plain)


def test_completions_without_a_token_are_passed_over() -> None:
    rewards, values = drawn([2, 3], 0)
    assert torch.equal(gae(rewards, values, [0, 2, 0, 3, 0])[0], gae(rewards, values, [2, 3])[0])


# Whitening


def test_whitening_by_hand() -> None:
    """Mean 2, variance (1 + 1 + 0) / 2."""
    assert whiten(numbers(1, 3, 2), torch.ones(3)).tolist() == pytest.approx([-1, 1, 0])
    assert deviation(numbers(1, 3, 2), torch.ones(3)) == pytest.approx(1)
    assert deviation(numbers(0, 1), torch.tensor([3, 1])) == pytest.approx(0.5)
    assert whiten(numbers(10, 30, 20), torch.ones(3), divide=False).tolist() == pytest.approx([-10, 10, 0])


@given(
    st.lists(st.tuples(st.floats(-9, 9).map(lambda x: round(x, 3)), st.integers(1, 4)), min_size=1, max_size=9),
    st.booleans(),
)
def test_a_count_is_as_many_tokens(tokens: list[tuple[float, int]], divide: bool) -> None:
    values, counts = (torch.tensor([token[i] for token in tokens], dtype=torch.float64) for i in range(2))
    repeated = values.repeat_interleave(counts.long())
    once = whiten(values, counts, divide)
    often = whiten(repeated, torch.ones_like(repeated), divide)
    torch.testing.assert_close(once.repeat_interleave(counts.long()), often, rtol=1e-9, atol=1e-9)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=9).filter(lambda values: len(set(values)) > 1))
def test_what_is_whitened_has_mean_zero_and_deviation_one(values: list[int]) -> None:
    found = whiten(numbers(*values), torch.ones(len(values)))
    assert found.mean().item() == pytest.approx(0, abs=1e-9)
    assert found.std().item() == pytest.approx(1)


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7], []])
def test_what_does_not_vary_is_not_divided(values: list[float]) -> None:
    ones = torch.ones(len(values))
    assert whiten(numbers(*values), ones).tolist() == pytest.approx([0.0] * len(values))
    assert deviation(numbers(*values), ones) == 1


# The weight of the KL


def test_the_weight_of_the_kl_follows_its_target() -> None:
    controller = KLController(0.1, target=2.0, horizon=100)
    controller.update(2.2, 50)  # 10% too much, for half a horizon
    assert controller.coef == pytest.approx(0.1 * 1.05)
    controller.update(100.0, 50)  # no more than 20% counts
    assert controller.coef == pytest.approx(0.1 * 1.05 * 1.1)
    controller.update(0.0, 50)
    assert controller.coef == pytest.approx(0.1 * 1.05 * 1.1 * 0.9)
    controller.update(2.0, 50)
    assert controller.coef == pytest.approx(0.1 * 1.05 * 1.1 * 0.9)


def test_more_completions_than_the_horizon_count_as_many_as_it() -> None:
    controller = KLController(1.0, target=1.0, horizon=10)
    controller.update(0.0, 10_000)
    assert controller.coef == pytest.approx(0.8)


def test_without_a_target_it_stays() -> None:
    controller = KLController(0.1)
    controller.update(5.0, 100)
    assert controller.coef == 0.1
