"""The losses against values worked out by hand, against finite differences, and against each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlvr.learner.loss import logprobs_and_entropy, policy_loss, token_weight

Aggregate = Literal["token", "sequence"]

CLIP: Any = {"clip_low": 0.2, "clip_high": 0.28}


def weights_of(lengths: Sequence[int], aggregate: Aggregate, denominator: float = 0) -> Tensor:
    """Weights [R, T] of rows of these lengths, padded with 0; they are all of an update unless told otherwise."""
    whole = denominator or (sum(lengths) if aggregate == "token" else len(lengths))
    return torch.tensor(
        [[token_weight(n, aggregate, whole) if t < n else 0.0 for t in range(max(lengths))] for n in lengths],
        dtype=torch.float64,
    )


def loss_of_ratio(ratio: float, advantage: float, **options: Any) -> tuple[float, float, int]:
    """Loss of one token, its derivative by log π, and whether it was clipped."""
    logprob = torch.tensor([[math.log(ratio) - 1.5]], dtype=torch.float64, requires_grad=True)
    result = policy_loss(
        logprob,
        torch.tensor([[-1.5]], dtype=torch.float64),
        torch.tensor([[advantage]], dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.float64),
        **(CLIP | options),
    )
    result.loss.backward()
    assert logprob.grad is not None
    return result.loss.item(), logprob.grad.item(), int(result.clipped_RT)


# ----------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "derivative", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: the plain policy gradient
        (1.2, 2.0, -2.4, -2.4, 0),
        (1.5, 2.0, -2.56, 0.0, 1),  # good and already likelier by 28%: no more of it
        (0.5, 2.0, -1.0, -1.0, 0),  # good but less likely: not clipped, it must come back
        (0.9, -2.0, 1.8, 1.8, 0),
        (0.5, -2.0, 1.6, 0.0, 1),  # bad and already 20% less likely: no more of it
        (1.5, -2.0, 3.0, 3.0, 0),  # bad but likelier: not clipped
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_the_clipped_loss(ratio: float, advantage: float, loss: float, derivative: float, clipped: int) -> None:
    assert loss_of_ratio(ratio, advantage) == pytest.approx((loss, derivative, clipped))


def test_clip_higher_leaves_more_room_above_than_below() -> None:
    assert loss_of_ratio(1.25, 1.0, clip_high=0.2)[2] == 1
    assert loss_of_ratio(1.25, 1.0, clip_high=0.28)[2] == 0
    assert loss_of_ratio(0.75, -1.0, clip_low=0.2)[2] == 1
    assert loss_of_ratio(0.75, -1.0, clip_low=0.28)[2] == 0


def test_every_token_weighs_the_same_or_every_sequence_does() -> None:
    assert weights_of([3, 1], "token").tolist() == [[0.25, 0.25, 0.25], [0.25, 0, 0]]
    by_sequence = torch.tensor([[1 / 6, 1 / 6, 1 / 6], [0.5, 0, 0]], dtype=torch.float64)
    assert torch.allclose(weights_of([3, 1], "sequence"), by_sequence)


def test_the_two_aggregates_of_two_sequences() -> None:
    """Rows of 3 tokens with advantage 1 and of 1 token with advantage -1, ratio 1 everywhere."""
    logprobs = torch.full((2, 3), -1.0).double()
    advantages = torch.tensor([[1.0], [-1.0]]).double().expand(2, 3)

    def loss(aggregate: Aggregate) -> float:
        return policy_loss(logprobs, logprobs, advantages, weights_of([3, 1], aggregate), **CLIP).loss.item()

    assert loss("token") == pytest.approx((-3 + 1) / 4)
    assert loss("sequence") == pytest.approx(0)


def test_the_kl_term_is_the_k3_estimator() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -0.5]], dtype=torch.float64)
    reference = torch.tensor([[-1.0, -1.0, -2.5]], dtype=torch.float64)
    weights = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    result = policy_loss(
        logprobs, logprobs, torch.zeros(1, 1).double(), weights, **CLIP, reference_logprobs_RT=reference, kl_coef=0.1
    )
    kl = 0 + (math.e - 1 - 1) + (math.exp(-2) + 2 - 1)
    assert result.kl_RT.tolist()[0] == pytest.approx([0, math.e - 2, math.exp(-2) + 1])
    assert result.loss.item() == pytest.approx(0.1 * kl / 3)


def test_the_k3_estimator_has_the_kl_for_its_mean() -> None:
    """The sum over a vocabulary, weighted by π, is KL(π || π_ref)."""
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    result = policy_loss(
        policy[None],
        policy[None],
        torch.zeros(1, 1).double(),
        policy.exp()[None],
        **CLIP,
        reference_logprobs_RT=reference[None],
        kl_coef=1.0,
    )
    assert result.loss.item() == pytest.approx((policy.exp() * (policy - reference)).sum().item())


def test_without_a_reference_there_is_no_kl() -> None:
    logprobs = torch.tensor([[-1.0]])
    assert policy_loss(logprobs, logprobs, torch.ones(1, 1), torch.ones(1, 1), **CLIP, kl_coef=5.0).loss.item() == -1
    assert policy_loss(logprobs, logprobs, torch.ones(1, 1), torch.ones(1, 1), **CLIP).kl_RT.item() == 0


# ------------------------------------------------------------------------------------------------ by other means


LENGTHS = (4, 2, 5, 1)


def problem(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities now, then and of the reference, and advantages, all [R, T]; many ratios are clipped."""
    generator = torch.Generator().manual_seed(seed)
    old, moved, reference = -3 * torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, 1, generator=generator, dtype=torch.float64).expand(4, 5)
    return old + 0.3 * (moved + 1.5), old, reference, advantages


@pytest.mark.parametrize("aggregate", ["token", "sequence"])
@pytest.mark.parametrize("kl_coef", [0.0, 0.2])
def test_the_gradient_is_that_of_the_loss(aggregate: Aggregate, kl_coef: float) -> None:
    logprobs, old, reference, advantages = problem(seed=1)
    weights = weights_of(LENGTHS, aggregate)

    def loss(x: Tensor) -> Tensor:
        with_kl = {"reference_logprobs_RT": reference, "kl_coef": kl_coef} if kl_coef else {}
        return policy_loss(x, old, advantages, weights, **CLIP, **with_kl).loss  # type: ignore[arg-type]

    assert policy_loss(logprobs, old, advantages, weights, **CLIP).clipped_RT.sum() > 0
    assert torch.autograd.gradcheck(loss, logprobs.requires_grad_())


def loss_and_gradient(
    parts: list[list[int]], seed: int, aggregate: Aggregate, width: int, garbage: float
) -> tuple[float, Tensor]:
    """Loss and gradient [R, T] of a problem, taken in `parts`, padded to at least `width` with `garbage`."""
    denominator = sum(LENGTHS) if aggregate == "token" else len(LENGTHS)
    total, gradient = 0.0, torch.zeros(4, 5, dtype=torch.float64)
    for part in parts:
        lengths = [LENGTHS[row] for row in part]
        more = (0, max(0, width - max(lengths)))
        weights = torch.nn.functional.pad(weights_of(lengths, aggregate, denominator), more)
        *logprobs, advantages = (torch.nn.functional.pad(x[part][:, : max(lengths)], more) for x in problem(seed))
        now, then, other = (torch.where(weights > 0, x, torch.tensor(garbage).double()) for x in logprobs)
        now.requires_grad_()
        result = policy_loss(now, then, advantages, weights, **CLIP, reference_logprobs_RT=other, kl_coef=0.1)
        result.loss.backward()
        total += result.loss.item()
        assert now.grad is not None
        assert (now.grad[weights == 0] == 0).all()
        gradient[part, : max(lengths)] += now.grad[:, : max(lengths)]
    return total, gradient


@given(
    st.integers(0, 50),
    st.sampled_from(["token", "sequence"]),
    st.permutations(range(4)),
    st.sets(st.integers(1, 3)),
    st.integers(0, 9),
    st.sampled_from([0.0, 7.0, -math.inf, math.inf, math.nan]),
)
def test_neither_micro_batches_nor_padding_change_loss_or_gradient(
    seed: int, aggregate: Aggregate, order: list[int], cuts: set[int], width: int, garbage: float
) -> None:
    edges = [0, *sorted(cuts), 4]
    parts = [order[a:b] for a, b in itertools.pairwise(edges)]
    whole, whole_gradient = loss_and_gradient([[0, 1, 2, 3]], seed, aggregate, 0, 0.0)
    split, split_gradient = loss_and_gradient(parts, seed, aggregate, width, garbage)
    assert split == pytest.approx(whole, rel=1e-12)
    assert torch.allclose(split_gradient, whole_gradient, rtol=1e-12, atol=1e-15)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.sampled_from(["token", "sequence"]))
def test_the_weights_of_an_update_sum_to_one(lengths: list[int], aggregate: Aggregate) -> None:
    denominator = sum(lengths) if aggregate == "token" else len(lengths)
    parts = [weights_of([n], aggregate, denominator) for n in lengths]
    assert sum(part.sum().item() for part in parts) == pytest.approx(1)


# --------------------------------------------------------------------------------- log-probabilities and entropy


def test_log_probabilities_are_those_of_the_tempered_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 11, generator=generator, requires_grad=True)
    ids = torch.randint(11, (2, 3), generator=generator)
    ours, entropy = logprobs_and_entropy(logits, ids, 0.7)
    theirs = (logits / 0.7).log_softmax(dim=-1).gather(2, ids.unsqueeze(2)).squeeze(2)
    assert torch.allclose(ours, theirs, atol=1e-6)
    (ours_grad,) = torch.autograd.grad(ours.sum(), logits)
    (theirs_grad,) = torch.autograd.grad(theirs.sum(), logits)
    assert torch.allclose(ours_grad, theirs_grad, atol=1e-6)
    assert torch.allclose(entropy, torch.distributions.Categorical(logits=logits / 0.7).entropy(), atol=1e-5)
    assert not entropy.requires_grad


def test_the_entropy_of_a_uniform_and_of_a_certain_choice() -> None:
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]]])
    logprobs, entropy = logprobs_and_entropy(logits, torch.tensor([[2, 0]]), 1.0)
    assert entropy.tolist()[0] == pytest.approx([math.log(4), 0], abs=1e-6)
    assert logprobs.tolist()[0] == pytest.approx([-math.log(4), 0], abs=1e-6)


def test_half_precision_logits_are_summed_in_single() -> None:
    logits = torch.randn(1, 1, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = torch.tensor([[3]])
    logprobs, entropy = logprobs_and_entropy(logits, ids, 1.0)
    assert logprobs.dtype == entropy.dtype == torch.float32
    assert torch.allclose(logprobs, logits.double().log_softmax(dim=-1)[:, :, 3].float(), atol=1e-5)
