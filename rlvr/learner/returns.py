"""Advantages and returns of tokens: what an estimator needs the whole step for, as pure functions over tensors.

Shape suffix: T tokens of a step, those that the policy wrote, completion after completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def gae(
    rewards_T: Tensor, values_T: Tensor, lengths: Sequence[int], gamma: float = 1.0, decay: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates, and the returns to fit a value model to.

    `δ_t = r_t + γ V_{t+1} - V_t`,  `A_t = δ_t + γ λ A_{t+1}`,  `R_t = A_t + V_t`; behind the last token of a completion
    both V and A are 0 (Schulman et al. 2016, arXiv:1506.02438, eq. 16). With V = 0 and λ = 1, A is the discounted
    reward to go.

    Args:
        rewards_T: Reward of each token [T].
        values_T: V of what precedes each token [T].
        lengths: Tokens of each completion; they sum to T.
        gamma: Discount γ.
        decay: λ.

    Returns:
        Advantages and returns, [T] each.
    """
    rewards_CL, values_CL = (pad_sequence(column_T.split(list(lengths)), True) for column_T in (rewards_T, values_T))
    advantages_CL = torch.zeros_like(rewards_CL)
    next_value_C = next_advantage_C = rewards_CL.new_zeros(len(rewards_CL))
    for t in reversed(range(rewards_CL.shape[1])):  # behind the end of a completion all is 0, and stays so
        delta_C = rewards_CL[:, t] + gamma * next_value_C - values_CL[:, t]
        next_value_C, next_advantage_C = values_CL[:, t], delta_C + gamma * decay * next_advantage_C
        advantages_CL[:, t] = next_advantage_C
    inside_CL = torch.arange(rewards_CL.shape[1]) < torch.tensor(lengths)[:, None]
    advantages_T = advantages_CL[inside_CL.to(advantages_CL.device)]
    return advantages_T, advantages_T + values_T


def deviation(values: Tensor, counts: Tensor) -> float:
    """Standard deviation of values, each counted as often as it was sampled; 1 where they do not vary."""
    counts = counts.to(values)
    total = counts.sum().clamp(min=1)
    mean = (values * counts).sum() / total
    variance = float(((values - mean).square() * counts).sum() / (total - 1).clamp(min=1))
    return variance**0.5 + 1e-8 if variance > 1e-12 else 1.0


def whiten(values_T: Tensor, counts_T: Tensor, divide: bool = True) -> Tensor:
    """`(x - mean) / (std + 1e-8)` over the tokens, each counted as often as it was sampled [T].

    Args:
        values_T: x [T].
        counts_T: How often each token was sampled [T].
        divide: Whether to divide; values that do not vary are not divided.
    """
    counts_T = counts_T.to(values_T)
    mean = (values_T * counts_T).sum() / counts_T.sum().clamp(min=1)
    return (values_T - mean) / (deviation(values_T, counts_T) if divide else 1.0)


@dataclass
class KLController:
    """The weight of the KL, which adapts to a target.

    `β ← β (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon)` after n completions (Ziegler et al. 2019,
    arXiv:1909.08593, section 2.2).

    Attributes:
        coef: β.
        target: KL of a completion in nats; 0 keeps β.
        horizon: Completions over which β adapts.
    """

    coef: float
    target: float = 0.0
    horizon: int = 10_000

    def update(self, kl: float, completions: int) -> None:
        """Adapts to the mean KL of so many completions."""
        if self.target:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + error * min(completions / self.horizon, 1.0)
