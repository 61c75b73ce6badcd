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

from rlvr.learner.batch import Tokens, lay_out
from rlvr.learner.loss import kl_estimate, mean_of_completion, policy_loss, token_weight, value_loss
from rlvr.rollout import Row

Aggregate = Literal["token", "sequence", "constant"]
Kind = Literal["clip", "gspo", "cispo"]
KINDS: tuple[Kind, ...] = ("clip", "gspo", "cispo")
AGGREGATES: tuple[Aggregate, ...] = ("token", "sequence", "constant")

CLIP: Any = {"clip_low": 0.2, "clip_high": 0.28}
LENGTHS = (4, 2, 5, 1)
LONGEST = 6


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def completions_of(lengths: Sequence[int]) -> Tensor:
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))


def weights_of(lengths: Sequence[int], aggregate: Aggregate, update: Sequence[int] = ()) -> Tensor:
    """Weights [N] of completions of these lengths; they are all of an update unless told otherwise."""
    whole = update or lengths
    denominator = {"token": sum(whole), "sequence": len(whole), "constant": len(whole) * LONGEST}[aggregate]
    return double(*(token_weight(n, aggregate, denominator) for n in lengths for _ in range(n)))


def loss_of(
    ratios: Sequence[float], advantage: float, kind: Kind, **options: Any
) -> tuple[float, list[float], list[int]]:
    """Loss of one completion whose tokens weigh 1, its derivatives by log π, and which tokens were clipped."""
    logprobs = (double(*ratios).log() - 1.5).requires_grad_()
    old, one = torch.full_like(logprobs, -1.5), torch.ones_like(logprobs)
    completion = torch.zeros(len(ratios), dtype=torch.long)
    result = policy_loss(logprobs, old, advantage * one, one, completion, kind, **(CLIP | options))
    result.loss.backward()
    assert logprobs.grad is not None
    assert not result.clipped_N.requires_grad
    return result.loss.item(), logprobs.grad.tolist(), [int(c) for c in result.clipped_N]


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
@pytest.mark.parametrize("kind", ["clip", "gspo"])  # of a single token they are the same
def test_the_clipped_loss(
    ratio: float, advantage: float, loss: float, derivative: float, clipped: int, kind: Kind
) -> None:
    found = loss_of([ratio], advantage, kind)
    assert found[0] == pytest.approx(loss)
    assert found[1] == pytest.approx([derivative])
    assert found[2] == [clipped]


@pytest.mark.parametrize("kind", ["clip", "gspo"])
def test_clip_higher_leaves_more_room_above_than_below(kind: Kind) -> None:
    assert loss_of([1.25], 1.0, kind, clip_high=0.2)[2] == [1]
    assert loss_of([1.25], 1.0, kind, clip_high=0.28)[2] == [0]
    assert loss_of([0.75], -1.0, kind, clip_low=0.2)[2] == [1]
    assert loss_of([0.75], -1.0, kind, clip_low=0.28)[2] == [0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "derivative", "clipped"),
    [
        (2.9, -2.0, 5.8, 5.8, 0),  # the loss of a bad token grows with its ratio
        (3.1, -2.0, 6.0, 0.0, 1),  # up to three times its advantage
        (50.0, -2.0, 6.0, 0.0, 1),
        (0.5, -2.0, 1.6, 0.0, 1),  # clipped from below as ever
        (50.0, 2.0, -2.56, 0.0, 1),  # a good one has its own bound
        (0.01, 2.0, -0.02, -0.02, 0),
    ],
)
def test_the_dual_clip(ratio: float, advantage: float, loss: float, derivative: float, clipped: int) -> None:
    found = loss_of([ratio], advantage, "clip", dual_clip=3.0)
    assert found[0] == pytest.approx(loss)
    assert found[1] == pytest.approx([derivative])
    assert found[2] == [clipped]


def test_gspo_has_one_ratio_for_a_completion() -> None:
    """The geometric mean of ratios 1.5 and 0.8 is sqrt(1.2), for both tokens; neither is clipped by its own ratio."""
    ratio = math.sqrt(1.2)
    loss, derivatives, clipped = loss_of([1.5, 0.8], 2.0, "gspo")
    assert loss == pytest.approx(-2 * 2 * ratio)
    assert derivatives == pytest.approx([-2 * ratio] * 2)  # of each term a half, of two terms
    assert clipped == [0, 0]
    loss, derivatives, clipped = loss_of([1.8, 1.1], 2.0, "gspo")  # sqrt(1.98) is above 1.28
    assert (loss, derivatives, clipped) == (pytest.approx(-2 * 2 * 1.28), [0.0, 0.0], [1, 1])


def test_gspo_tells_completions_apart() -> None:
    old = torch.zeros(4).double()
    logprobs = double(1.1, 0.9, 1.3, 1.1).log()
    found = policy_loss(logprobs, old, torch.ones(4), torch.ones(4), torch.tensor([0, 1, 0, 1]), "gspo", 1.0, 9.0)
    assert found.loss.item() == pytest.approx(-2 * math.sqrt(1.1 * 1.3) - 2 * math.sqrt(0.9 * 1.1))


@pytest.mark.parametrize(
    ("ratio", "advantage", "factor", "clipped"),
    [
        (1.0, 2.0, 1.0, 0),
        (0.1, 2.0, 0.1, 0),  # clip_low 1: no lower bound
        (4.9, 2.0, 4.9, 0),
        (7.0, 2.0, 5.0, 1),  # the weight is cut, the gradient stays
        (7.0, -2.0, 5.0, 1),
    ],
)
def test_cispo_cuts_weights_and_keeps_gradients(ratio: float, advantage: float, factor: float, clipped: int) -> None:
    loss, derivatives, found = loss_of([ratio], advantage, "cispo", clip_low=1.0, clip_high=4.0)
    assert loss == pytest.approx(-factor * advantage * (math.log(ratio) - 1.5))
    assert derivatives == pytest.approx([-factor * advantage])
    assert found == [clipped]


def test_cispo_has_a_lower_bound_too() -> None:
    assert loss_of([0.1], 2.0, "cispo", clip_low=0.3)[1:] == (pytest.approx([-1.4]), [1])


def test_every_token_weighs_the_same_or_every_sequence_does_or_none_is_counted() -> None:
    assert weights_of([3, 1], "token").tolist() == [0.25] * 4
    assert weights_of([3, 1], "sequence").tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert weights_of([3, 1], "constant").tolist() == pytest.approx([1 / 12] * 4)


@pytest.mark.parametrize(("aggregate", "loss"), [("token", -2 / 4), ("sequence", 0), ("constant", -2 / 12)])
def test_the_aggregates_of_two_sequences(aggregate: Aggregate, loss: float) -> None:
    """Completions of 3 tokens with advantage 1 and of 1 token with advantage -1, ratio 1 everywhere."""
    logprobs = torch.full((4,), -1.0).double()
    found = policy_loss(
        logprobs, logprobs, double(1, 1, 1, -1), weights_of([3, 1], aggregate), completions_of([3, 1]), **CLIP
    )
    assert found.loss.item() == pytest.approx(loss)


def test_a_mean_of_a_completion_is_over_what_counts() -> None:
    found = mean_of_completion(double(1, 5, 3, 9), torch.tensor([0, 2, 0, 0]), torch.tensor([1, 1, 1, 0]).bool())
    assert found.tolist() == [2, 5, 2, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_has_no_loss(kind: Kind) -> None:
    nothing = torch.zeros(0, requires_grad=True)
    found = policy_loss(nothing, nothing, nothing, nothing, torch.zeros(0, dtype=torch.long), kind)
    found.loss.backward()
    assert found.loss.item() == 0
    assert found.clipped_N.shape == (0,)


# ---------------------------------------------------------------------------------------------------- the KL


def test_the_estimates_of_the_kl() -> None:
    logprobs, reference = double(-1.0, -2.0, -0.5), double(-1.0, -1.0, -2.5)
    assert kl_estimate(logprobs, reference, "k1").tolist() == pytest.approx([0, -1, 2])
    assert kl_estimate(logprobs, reference, "k2").tolist() == pytest.approx([0, 0.5, 2])
    assert kl_estimate(logprobs, reference, "k3").tolist() == pytest.approx([0, math.e - 2, math.exp(-2) + 1])


def two_policies() -> tuple[Tensor, Tensor]:
    """Logits of a policy over a vocabulary, and log-probabilities of a reference."""
    policy, reference = torch.randn(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return policy.requires_grad_(), reference.log_softmax(dim=-1)


@pytest.mark.parametrize(("estimator", "unbiased"), [("k1", True), ("k2", False), ("k3", True)])
def test_which_estimate_has_the_kl_for_its_mean(estimator: Any, unbiased: bool) -> None:
    """The sum over a vocabulary, weighted by π, is KL(π || π_ref)."""
    logits, reference = two_policies()
    policy = logits.detach().log_softmax(dim=-1)
    mean = (policy.exp() * kl_estimate(policy, reference, estimator)).sum().item()
    kl = (policy.exp() * (policy - reference)).sum().item()
    assert (mean == pytest.approx(kl)) == unbiased


@pytest.mark.parametrize(("estimator", "factor"), [("k1", 0.0), ("k2", 1.0), ("k3", None)])
def test_which_estimate_has_the_gradient_of_the_kl_as_a_term_of_a_loss(estimator: Any, factor: float | None) -> None:
    """Averaged over what π draws, with the draw a constant: k1 has no gradient, k2 that of KL(π || π_ref), k3 another,
    that of KL(π_ref || π)."""
    logits, reference = two_policies()
    policy = logits.log_softmax(dim=-1)
    weights = policy.detach().exp()
    term = (weights * kl_estimate(policy, reference, estimator)).sum()
    (found,) = torch.autograd.grad(term, logits, retain_graph=True)
    kl = (policy.exp() * (policy - reference)).sum()
    other = (reference.exp() * (reference - policy)).sum()
    (expected,) = torch.autograd.grad(other if factor is None else factor * kl, logits)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_gradient_of_the_kl_by_finite_differences(estimator: Any) -> None:
    logprobs, _, reference, _ = problem(2)
    assert torch.autograd.gradcheck(lambda x: kl_estimate(x, reference, estimator), logprobs.requires_grad_())


# ------------------------------------------------------------------------------------------- the value model's


@pytest.mark.parametrize(
    ("value", "target", "clip", "loss", "derivative"),
    [
        (1.3, 1.0, 0.0, 0.045, 0.3),  # without clipping plain squares
        (1.9, 3.0, 0.0, 0.605, -1.1),
        (1.1, 2.0, 0.2, 0.405, -0.9),  # near the old value, 1, as without
        (1.9, 3.0, 0.2, 1.62, 0.0),  # far from it, on the way to the target: no more of it
        (0.1, 3.0, 0.2, 4.205, -2.9),  # far from it on the wrong side: it must come back
        (1.9, 1.0, 0.2, 0.405, 0.9),
    ],
)
def test_the_loss_of_a_value(value: float, target: float, clip: float, loss: float, derivative: float) -> None:
    v = double(value).requires_grad_()
    found = value_loss(v, double(1.0), double(target), double(1.0), clip)
    found.backward()
    assert v.grad is not None
    assert (found.item(), v.grad.item()) == (pytest.approx(loss), pytest.approx(derivative))


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_gradient_of_the_value_loss_by_finite_differences(clip: float) -> None:
    values, old, returns, _ = problem(3)
    weights = weights_of(LENGTHS, "sequence")
    clipped = (values - old).abs() > 0.2
    assert 0 < clipped.sum() < len(values)
    assert torch.autograd.gradcheck(lambda x: value_loss(x, old, returns, weights, clip), values.requires_grad_())


# ------------------------------------------------------------------------------------------------ by other means


def problem(seed: int, lengths: Sequence[int] = LENGTHS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities now, then and of a reference, and advantages by completion, [N]; many ratios are clipped."""
    generator = torch.Generator().manual_seed(seed)
    old, moved, reference = -3 * torch.rand(3, sum(lengths), generator=generator, dtype=torch.float64)
    advantages = torch.randn(len(lengths), generator=generator, dtype=torch.float64)[completions_of(lengths)]
    return old + 0.3 * (moved + 1.5), old, reference, advantages


OPTIONS: dict[str, dict[str, Any]] = {
    "clip": {"kind": "clip"},
    "dual clip": {"kind": "clip", "dual_clip": 1.2},
    "gspo": {"kind": "gspo", "clip_low": 0.05, "clip_high": 0.08},
    "corrected": {"kind": "clip", "correction_N": torch.linspace(0, 2, sum(LENGTHS), dtype=torch.float64)},
    "corrected gspo": {"kind": "gspo", "correction_N": torch.linspace(0, 2, sum(LENGTHS), dtype=torch.float64)},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("by_token", [False, True])
def test_the_gradient_is_that_of_the_loss(name: str, aggregate: Aggregate, by_token: bool) -> None:
    logprobs, old, reference, advantages = problem(seed=1)
    if by_token:  # as a value model gives them
        advantages = reference + 1.5
    weights, completions, options = weights_of(LENGTHS, aggregate), completions_of(LENGTHS), CLIP | OPTIONS[name]
    clipped = policy_loss(logprobs, old, advantages, weights, completions, **options).clipped_N
    assert 0 < clipped.sum() < len(clipped)

    def loss(x: Tensor) -> Tensor:
        return policy_loss(x, old, advantages, weights, completions, **options).loss

    assert torch.autograd.gradcheck(loss, logprobs.requires_grad_())


@given(st.integers(0, 50), st.floats(0, 1), st.floats(0, 3))
def test_cispo_has_the_gradient_of_a_loss_whose_weights_are_constants(seed: int, low: float, high: float) -> None:
    logprobs, old, _, advantages = problem(seed)
    weights, completions = weights_of(LENGTHS, "sequence"), completions_of(LENGTHS)
    logprobs.requires_grad_()
    found = policy_loss(logprobs, old, advantages, weights, completions, "cispo", low, high)
    (gradient,) = torch.autograd.grad(found.loss, logprobs)
    ratio = (logprobs - old).exp().detach()
    bounded = ratio.clamp(1 - low, 1 + high)
    torch.testing.assert_close(gradient, -weights * advantages * bounded, rtol=1e-12, atol=1e-15)
    assert torch.equal(found.clipped_N, bounded != ratio)


def plain_gradient(logprobs: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """Of `-sum w A log π`, the policy gradient."""
    return torch.autograd.grad(-(weights * advantages * logprobs).sum(), logprobs)[0]


@given(st.integers(0, 50), st.sampled_from(AGGREGATES), st.sampled_from(["clip", "dual", "cispo", "gspo"]))
def test_on_policy_every_loss_has_the_policy_gradient(seed: int, aggregate: Aggregate, kind: str) -> None:
    """GSPO too: each of the n terms of a completion gives each of its tokens an n-th."""
    logprobs, _, _, advantages = problem(seed)
    weights, logprobs = weights_of(LENGTHS, aggregate), logprobs.requires_grad_()
    options: Any = {"kind": "clip", "dual_clip": 3.0} if kind == "dual" else {"kind": kind}
    found = policy_loss(logprobs, logprobs.detach(), advantages, weights, completions_of(LENGTHS), **CLIP, **options)
    (gradient,) = torch.autograd.grad(found.loss, logprobs)
    torch.testing.assert_close(gradient, plain_gradient(logprobs, advantages, weights), rtol=1e-12, atol=1e-15)
    assert not found.clipped_N.any()


@given(st.integers(0, 50))
def test_on_policy_gspo_gives_all_tokens_of_a_completion_their_mean_advantage(seed: int) -> None:
    logprobs, _, advantages, _ = problem(seed)
    weights, completions, logprobs = weights_of(LENGTHS, "token"), completions_of(LENGTHS), logprobs.requires_grad_()
    found = policy_loss(logprobs, logprobs.detach(), advantages, weights, completions, "gspo")
    (gradient,) = torch.autograd.grad(found.loss, logprobs)
    mean = mean_of_completion(advantages, completions, weights > 0)
    torch.testing.assert_close(gradient, plain_gradient(logprobs, mean, weights), rtol=1e-12, atol=1e-15)


def loss_and_gradient(
    parts: list[list[int]], seed: int, aggregate: Aggregate, options: dict[str, Any], extra: int, garbage: float
) -> tuple[float, Tensor]:
    """Loss and gradient [N] of a problem, taken in `parts`, with `extra` tokens of weight 0 in each completion."""
    columns = [column.split(LENGTHS) for column in problem(seed)]
    total, gradients = 0.0, [torch.zeros(n, dtype=torch.float64) for n in LENGTHS]
    rubbish = torch.full((extra,), garbage, dtype=torch.float64)
    for part in parts:
        lengths = [LENGTHS[c] for c in part]
        weights = weights_of(lengths, aggregate, LENGTHS).split(lengths)
        now, then, reference, advantages = (
            torch.cat([x for c in part for x in (column[c], rubbish)]) for column in columns
        )
        padded = torch.cat([x for w in weights for x in (w, torch.zeros(extra))])
        now.requires_grad_()
        completions = completions_of([n + extra for n in lengths])
        loss = policy_loss(now, then, advantages, padded, completions, **options, correction_N=reference.exp()).loss
        loss = loss + value_loss(now, then, reference, padded, 0.2)
        loss.backward()
        total += loss.item()
        assert now.grad is not None
        assert (now.grad[padded == 0] == 0).all()
        for c, gradient in zip(part, now.grad.split([n + extra for n in lengths]), strict=True):
            gradients[c] = gradient[: LENGTHS[c]]
    return total, torch.cat(gradients)


@given(
    st.integers(0, 50),
    st.sampled_from(AGGREGATES),
    st.sampled_from(
        [
            {"kind": "clip"},
            {"kind": "clip", "dual_clip": 1.2},
            {"kind": "gspo"},
            {"kind": "cispo"},
        ]
    ),
    st.permutations(range(4)),
    st.sets(st.integers(1, 3)),
    st.integers(0, 3),
    st.sampled_from([0.0, 7.0, -math.inf, math.inf, math.nan]),
)
def test_neither_micro_batches_nor_tokens_that_weigh_nothing_change_loss_or_gradient(
    seed: int,
    aggregate: Aggregate,
    options: dict[str, Any],
    order: list[int],
    cuts: set[int],
    extra: int,
    garbage: float,
) -> None:
    edges = [0, *sorted(cuts), 4]
    parts = [order[a:b] for a, b in itertools.pairwise(edges)]
    whole, whole_gradient = loss_and_gradient([[0, 1, 2, 3]], seed, aggregate, CLIP | options, 0, 0.0)
    split, split_gradient = loss_and_gradient(parts, seed, aggregate, CLIP | options, extra, garbage)
    assert split == pytest.approx(whole, rel=1e-12)
    assert torch.allclose(split_gradient, whole_gradient, rtol=1e-12, atol=1e-15)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.sampled_from(AGGREGATES))
def test_the_weights_of_an_update_sum_to_one(lengths: list[int], aggregate: Aggregate) -> None:
    """With a constant only where all completions are as long as one may get."""
    whole = sum(weights_of([n], aggregate, lengths).sum().item() for n in lengths)
    assert whole == pytest.approx(sum(lengths) / (LONGEST * len(lengths)) if aggregate == "constant" else 1)


# ------------------------------------------------------------------------------------------- what a loss is over


@st.composite
def rows(draw: Any) -> list[list[Row]]:
    """Groups of completions, some of whose tokens the environment wrote; each token of a row has an id of its own."""
    found: list[list[Row]] = []
    for group in range(draw(st.integers(1, 3))):
        prompt = (1,) * draw(st.integers(1, 4))
        found.append([])
        for number in range(draw(st.integers(1, 3))):
            n = draw(st.integers(1, 8))
            start, stop = sorted((draw(st.integers(1, n)), draw(st.integers(1, n))))
            first = 100 * group + 10 * number + 10
            foreign = ((start, stop),) if start < stop else ()
            found[-1].append(Row(prompt, tuple(range(first, first + n)), (-0.5,) * n, 1.0, foreign))
    return found


@given(rows(), st.booleans(), st.booleans())
def test_targets_are_the_tokens_that_the_policy_wrote(groups: list[list[Row]], shared: bool, behind: bool) -> None:
    """Whatever shares a prompt, and whatever lies behind each other in a sequence."""
    tokens = Tokens(groups, torch.device("cpu"))
    packs = [tuple(g) for g in tokens.groups] if shared else [(n,) for g in tokens.groups for n in g]
    batch = lay_out(tokens, [packs] if behind else [[pack] for pack in packs], "sdpa", torch.device("cpu"))
    written = [
        (number, row.completion_ids[t])
        for number, row in enumerate(tokens.rows)
        for t in range(len(row.completion_ids))
        if not any(a <= t < b for a, b in row.foreign)
    ]
    assert list(zip(batch.completions_N.tolist(), batch.targets_N.tolist(), strict=True)) == written
    assert torch.equal(tokens.row_T[batch.tokens_N], batch.completions_N)
    assert (tokens.counts_T > 0).sum() == len(written) == sum(row.written for row in tokens.rows)
    ids = [i for row in tokens.rows for i in row.completion_ids]
    assert [ids[t] for t in batch.tokens_N.tolist()] == batch.targets_N.tolist()
    # A target is predicted from the column of the token before it.
    before = batch.ids_SL.flatten()[batch.where_N]
    positions = batch.positions_SL.flatten()[batch.where_N]
    for t, id_before, position in zip(batch.tokens_N.tolist(), before.tolist(), positions.tolist(), strict=True):
        row, place = tokens.rows[int(tokens.row_T[t])], t - tokens.starts[int(tokens.row_T[t])]
        assert id_before == (row.completion_ids[place - 1] if place else row.prompt_ids[-1])
        assert position == len(row.prompt_ids) - 1 + place


def test_no_pack_makes_a_micro_batch_without_a_target() -> None:
    batch = lay_out(Tokens([], torch.device("cpu")), [], "sdpa", torch.device("cpu"))
    assert batch.ids_SL.shape == (1, 1)
    assert len(batch.targets_N) == len(batch.where_N) == len(batch.tokens_N) == len(batch.completions_N) == 0
