"""The losses of the learner: pure functions over tensors.

Shape suffix: N tokens of a micro-batch, those that the policy wrote, of all its completions one after another. Which
completion a token belongs to is said by `completions_N`, from 0. Losses are sums: the weights carry the means.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """A micro-batch's share of the loss, and what to report of it.

    Attributes:
        loss: Scalar; the shares of all micro-batches of an update add up to the loss of the update.
        clipped_N: Whether clipping took a token's gradient away, or (CISPO) cut its weight [N].
    """

    loss: Tensor
    clipped_N: Tensor


def token_weight(length: int, aggregate: Literal["token", "sequence", "constant"], denominator: float) -> float:
    """Weight in the loss of each token of a completion.

    Args:
        length: Tokens of the completion.
        aggregate: `token`: every token weighs the same (DAPO, arXiv:2503.14476, eq. 8). `sequence`: every
            completion weighs the same, its tokens share that (GRPO, arXiv:2402.03300, eq. 3). `constant`: as `token`,
            but over a number that does not depend on the lengths (Dr. GRPO, arXiv:2503.20783, section 3.1).
        denominator: Tokens (`token`), completions (`sequence`), or completions times the longest that one may get
            (`constant`) of the *whole update*, so that neither the split into micro-batches nor padding changes the
            loss.
    """
    return 1.0 / (length * denominator) if aggregate == "sequence" else 1.0 / denominator


def policy_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor,
    completions_N: Tensor,
    kind: Literal["clip", "gspo", "cispo"] = "clip",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 0.0,
    correction_N: Tensor | None = None,
) -> PolicyLoss:
    """The policy gradient loss `sum_t w_t c_t l_t`, where `c_t` is 1 without a correction.

    With `ρ_t = π(t) / π_old(t)`, advantage A and `clip(x) = min(max(x, 1 - clip_low), 1 + clip_high)`:

        clip    l_t = -min(ρ_t A, clip(ρ_t) A)
                PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7); unequal bounds from DAPO (Yu et al. 2025,
                arXiv:2503.14476, eq. 10). With a dual clip, and A < 0, l_t is at most -dual_clip A (Ye et al. 2020,
                arXiv:1912.09729, eq. 5).
        gspo    l_t = -min(s A, clip(s) A),  s = exp(mean of log ρ over the completion)
                Zheng et al. 2025, arXiv:2507.18071, eq. 5 and 7. With per-token advantages, each token has its own A.
        cispo   l_t = -sg(clip(ρ_t)) A log π(t),  sg: without gradient
                MiniMax-M1, arXiv:2506.13585, eq. 4 and 5; clip_low 1 leaves the lower bound out, as there.

    Args:
        logprobs_N: log π of each token under the policy being updated [N].
        old_logprobs_N: The same under the policy that sampled; with a correction, under the learner's policy at the
            start of the step [N].
        advantages_N: The advantage of each token [N].
        weights_N: From `token_weight` [N]; a token of weight 0 may hold anything.
        completions_N: Which completion a token belongs to, from 0 [N].
        kind: Which loss.
        clip_low: Lower clip distance, in [0, 1].
        clip_high: Upper clip distance, at least 0.
        dual_clip: Bound of the dual clip, above 1; 0 is off. Only with `clip`.
        correction_N: Importance weights c_t, constants [N]; see `rlvr.learner.correction`.
    """
    mask_N = weights_N > 0
    # What counts nowhere may hold anything, so it is zeroed first: in a gradient 0 times infinity is not 0.
    logprobs_N, old_logprobs_N, advantages_N = (
        torch.where(mask_N, column_N, 0.0) for column_N in (logprobs_N, old_logprobs_N, advantages_N)
    )
    log_ratio_N = logprobs_N - old_logprobs_N
    if kind == "gspo":
        log_ratio_N = mean_of_completion(log_ratio_N, completions_N, mask_N)
    ratio_N = log_ratio_N.exp()
    bounded_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    if kind == "cispo":
        clipped_N = bounded_N != ratio_N
        per_token_N = -bounded_N.detach() * advantages_N * logprobs_N
    else:
        gain_N = torch.minimum(ratio_N * advantages_N, bounded_N * advantages_N)
        clipped_N = gain_N < ratio_N * advantages_N
        if dual_clip:
            bound_N = dual_clip * advantages_N
            floored_N = (advantages_N < 0) & (gain_N < bound_N)
            clipped_N = clipped_N | floored_N
            gain_N = torch.where(floored_N, bound_N, gain_N)
        per_token_N = -gain_N
    if correction_N is not None:
        weights_N = torch.where(mask_N, weights_N * correction_N, 0.0)
    return PolicyLoss((per_token_N * weights_N).sum(), (clipped_N & mask_N).detach())


def mean_of_completion(values_N: Tensor, completions_N: Tensor, mask_N: Tensor) -> Tensor:
    """For each token, the mean over the tokens of its completion that count [N]; with gradient."""
    size = int(completions_N.max()) + 1 if len(completions_N) else 0
    sums_C = values_N.new_zeros(size).index_add(0, completions_N, torch.where(mask_N, values_N, 0.0))
    counts_C = values_N.new_zeros(size).index_add(0, completions_N, mask_N.to(values_N.dtype))
    return (sums_C / counts_C.clamp(min=1))[completions_N]


def kl_estimate(logprobs_N: Tensor, reference_logprobs_N: Tensor, estimator: Literal["k1", "k2", "k3"]) -> Tensor:
    """Estimates of KL(π || π_ref) from the sampled tokens, in nats [N].

    With `d = log π_ref(t) - log π(t)`: `k1 = -d`, unbiased, of either sign; `k2 = d²/2`, biased, whose gradient is
    that of the KL; `k3 = exp(d) - d - 1`, unbiased and never negative (Schulman, "Approximating KL Divergence", 2020;
    k3 is GRPO's, arXiv:2402.03300, eq. 4). As a term of a loss k1 has no gradient on average.
    """
    d_N = reference_logprobs_N - logprobs_N
    if estimator == "k1":
        return -d_N
    return d_N.square() / 2 if estimator == "k2" else d_N.exp() - d_N - 1


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, weights_N: Tensor, clip: float) -> Tensor:
    """The clipped loss of a value model: `sum_t w_t ½ max((V - R)², (V_old + clip(V - V_old) - R)²)`, a scalar.

    Clipping as in the code of Schulman et al. 2017; see Huang et al. 2022, "The 37 Implementation Details of Proximal
    Policy Optimization", detail 9.

    Args:
        values_N: V of each token: of what precedes it [N].
        old_values_N: The same before the step's updates [N].
        returns_N: What V should be [N].
        weights_N: Of each token [N]; a token of weight 0 may hold anything.
        clip: How far a value may move before its gradient goes; 0 is no clipping.
    """
    mask_N = weights_N > 0
    values_N, old_values_N, returns_N = (
        torch.where(mask_N, column_N, 0.0) for column_N in (values_N, old_values_N, returns_N)
    )
    errors_N = (values_N - returns_N).square()
    if clip:
        near_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        errors_N = torch.maximum(errors_N, (near_N - returns_N).square())
    return (0.5 * errors_N * weights_N).sum()
