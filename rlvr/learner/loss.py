"""The losses of the learner: pure functions over tensors.

Shape suffixes: R rows of a micro-batch, T columns that hold completion tokens or padding, V vocabulary. Whether a row
holds one completion or several makes no difference here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """A micro-batch's share of the loss, and what to report of it.

    Attributes:
        loss: Scalar; the shares of all micro-batches of an update add up to the loss of the update.
        clipped_RT: Whether the ratio of a token was clipped [R, T].
        kl_RT: Estimated KL(policy || reference) of a token in nats [R, T]; 0 without a reference.
    """

    loss: Tensor
    clipped_RT: Tensor
    kl_RT: Tensor


def token_weight(length: int, aggregate: Literal["token", "sequence"], denominator: float) -> float:
    """Weight in the loss of each token of a completion; over a whole update the weights of all tokens sum to 1.

    Args:
        length: Tokens of the completion.
        aggregate: `token`: every token weighs the same (DAPO, arXiv:2503.14476, eq. 8). `sequence`: every
            completion weighs the same, its tokens share that (GRPO, arXiv:2402.03300, eq. 3).
        denominator: Tokens, or completions, of the *whole update*, so that neither the split into micro-batches
            nor padding changes the loss.
    """
    return 1.0 / denominator if aggregate == "token" else 1.0 / (length * denominator)


def policy_loss(
    logprobs_RT: Tensor,
    old_logprobs_RT: Tensor,
    advantages_RT: Tensor,
    weights_RT: Tensor,
    clip_low: float,
    clip_high: float,
    reference_logprobs_RT: Tensor | None = None,
    kl_coef: float = 0.0,
    correction_RT: Tensor | None = None,
) -> PolicyLoss:
    """The clipped policy gradient loss of GRPO and DAPO.

    `sum_t w_t c_t (-min(ρ_t A, clip(ρ_t, 1 - clip_low, 1 + clip_high) A) + kl_coef kl_t)`, with
    `ρ_t = π(t) / π_old(t)` (Schulman et al. 2017, arXiv:1707.06347, eq. 7; unequal clip bounds from DAPO,
    arXiv:2503.14476, eq. 10). `kl_t = exp(d) - d - 1`, `d = log π_ref(t) - log π(t)`, is the k3 estimator of
    Schulman, "Approximating KL Divergence" (2020), used by GRPO (arXiv:2402.03300, eq. 4). `c_t` is 1 without a
    correction; both terms are means over what the sampler drew, so both are weighed.

    Args:
        logprobs_RT: log π of each sampled token under the policy being updated [R, T].
        old_logprobs_RT: The same under the policy that sampled; with a correction, under the learner's policy at the
            start of the step [R, T].
        advantages_RT: The advantage of each token's completion [R, T].
        weights_RT: From `token_weight` [R, T]; 0 on padding.
        clip_low: Lower clip distance, in [0, 1].
        clip_high: Upper clip distance, at least 0.
        reference_logprobs_RT: log π_ref of each token [R, T]; only with `kl_coef` above 0.
        kl_coef: Weight of the KL term.
        correction_RT: Importance weights c_t, constants [R, T]; see `rlvr.learner.correction`.
    """
    mask_RT = weights_RT > 0
    # Padding may hold anything, so it is zeroed before exp(), not after.
    ratio_RT = torch.where(mask_RT, logprobs_RT - old_logprobs_RT, 0.0).exp()
    plain_RT = ratio_RT * advantages_RT
    clipped_RT = ratio_RT.clamp(1 - clip_low, 1 + clip_high) * advantages_RT
    per_token_RT = -torch.minimum(plain_RT, clipped_RT)
    kl_RT = torch.zeros_like(logprobs_RT)
    if reference_logprobs_RT is not None:
        log_ratio_RT = torch.where(mask_RT, reference_logprobs_RT - logprobs_RT, 0.0)
        kl_RT = log_ratio_RT.exp() - log_ratio_RT - 1
        per_token_RT = per_token_RT + kl_coef * kl_RT
    if correction_RT is not None:
        per_token_RT = per_token_RT * correction_RT
    loss = torch.where(mask_RT, per_token_RT * weights_RT, 0.0).sum()
    return PolicyLoss(loss, (clipped_RT < plain_RT) & mask_RT, kl_RT.detach())


def logprobs_and_entropy(logits_RTV: Tensor, ids_RT: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log π(id) under the softmax at `temperature` [R, T], with gradient, and its entropy in nats [R, T], without.

    Computed in float32, whatever the type of the logits [R, T, V].
    """
    scaled_RTV = logits_RTV.float() / temperature
    log_z_RT = scaled_RTV.logsumexp(dim=-1)
    logprobs_RT = scaled_RTV.gather(-1, ids_RT.unsqueeze(-1)).squeeze(-1) - log_z_RT
    with torch.no_grad():
        p_RTV = (scaled_RTV - log_z_RT.unsqueeze(-1)).exp()
        entropy_RT = log_z_RT - (p_RTV * scaled_RTV).sum(dim=-1)
    return logprobs_RT, entropy_RT
