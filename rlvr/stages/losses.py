"""Losses of the preference methods that TRL has no stable trainer for.

Both look at mean log-probabilities per token, so that neither needs a reference model:

    c = log π(chosen | prompt) / tokens of chosen        r = log π(rejected | prompt) / tokens of rejected

Shape suffix: B pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def simpo_loss(chosen_B: Tensor, rejected_B: Tensor, beta: float, margin: float) -> Tensor:
    """SimPO (Meng et al. 2024, arXiv:2405.14734, eq. 6), with its target margin γ given over β:

        -log σ(β (c - r) - γ) = -log σ(β (c - r - margin))

    Args:
        chosen_B: Mean log-probability of a token of the chosen completion, in nats.
        rejected_B: Of the rejected one.
        beta: How steep it is; the paper takes 2 to 10.
        margin: γ / β, in nats per token; the paper takes 0.3 to 1.6.

    Returns:
        The loss of each pair [B].
    """
    return -logsigmoid(beta * (chosen_B - rejected_B - margin))


def orpo_loss(chosen_B: Tensor, rejected_B: Tensor, weight: float) -> Tensor:
    """ORPO (Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7): imitate what was chosen, and keep its odds above those of
    what was rejected.

        -c - λ log σ(log odds(c) - log odds(r)),    odds = p / (1 - p),  p = exp(mean log-probability)

    Args:
        chosen_B: Mean log-probability of a token of the chosen completion, in nats.
        rejected_B: Of the rejected one.
        weight: λ.

    Returns:
        The loss of each pair [B].
    """
    return -chosen_B - weight * logsigmoid(log_odds(chosen_B) - log_odds(rejected_B))


def log_odds(logprob: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p, without loss of digits where p is near 0 or 1; 1 counts as the next number below."""
    logprob = logprob.clamp(max=-torch.finfo(logprob.dtype).eps)
    near_one = logprob > -0.6931
    log_rest = torch.where(  # log(1 - p); the branch that is not taken must not give a NaN gradient
        near_one,
        torch.log(-torch.expm1(torch.where(near_one, logprob, -1.0))),
        torch.log1p(-torch.exp(torch.where(near_one, -1.0, logprob))),
    )
    return logprob - log_rest
