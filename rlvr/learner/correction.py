"""Correction for a sampler that is not quite the policy: truncated importance sampling, as pure functions over tensors.

Tokens are drawn from π_sampler, but the gradient is that of π. An engine with kernels of its own rounds differently,
and with staleness its weights are older too. Weighing what was drawn by `π_old / π_sampler`, where π_old is the
learner's policy at the start of the step, makes up for both; cutting the weights keeps a few unlikely tokens from
ruling a step:

    token       c_t = min(π_old(t) / π_sampler(t), cap)
    sequence    c_t = min(exp(sum_s log π_old(s) - log π_sampler(s)), cap), the same for all tokens of a completion
    masked      c_t = 0 where the ratio is above the cap, which drops those instead of cutting them

Truncated importance sampling is old (Ionides 2008, "Truncated Importance Sampling", Journal of Computational and
Graphical Statistics 17); IMPALA (Espeholt et al. 2018, arXiv:1802.01561) has it for actors that lag behind their
learner, and Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", for engines.
Masking instead of cutting is from IcePop (Ling Team 2025, arXiv:2510.18855), which masks below a lower bound as well.
That the clipped ratio is then taken to π_old and not to the sampler is Hilton et al. 2021, arXiv:2110.00641.

Shape suffixes: N tokens of a micro-batch, those that the policy wrote, C completions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlvr.config import LearnerConfig

Level = Literal["off", "token", "sequence"]


class Correction(NamedTuple):
    """Importance weights of a micro-batch.

    Attributes:
        weights_N: c_t in [0, cap] [N].
        cut_N: Whether the ratio was above the cap [N].
    """

    weights_N: Tensor
    cut_N: Tensor


def resolve_correction(config: LearnerConfig, engine: bool) -> Level:
    """The correction to make; `auto` is by token where an engine samples, and off where the policy itself does."""
    if config.correction != "auto":
        return config.correction
    return "token" if engine else "off"


def correction(
    old_logprobs_N: Tensor,
    sampler_logprobs_N: Tensor,
    completions_N: Tensor,
    level: Literal["token", "sequence"],
    cap: float,
    mask: bool = False,
) -> Correction:
    """Truncated importance weights, by the formula above. Without gradient.

    Args:
        old_logprobs_N: log π_old of each token, by the learner [N].
        sampler_logprobs_N: log π_sampler of each token, as the sampler reported it [N].
        completions_N: Which completion a token belongs to, from 0 [N].
        level: Whether a token has its own ratio or that of its whole completion.
        cap: Largest weight, at least 1.
        mask: Give what is above the cap no weight at all.
    """
    log_ratio_N = old_logprobs_N.detach() - sampler_logprobs_N
    if level == "sequence" and len(completions_N):
        sums_C = log_ratio_N.new_zeros(int(completions_N.max()) + 1)
        log_ratio_N = sums_C.index_add(0, completions_N, log_ratio_N)[completions_N]
    ratio_N = log_ratio_N.exp()
    cut_N = ratio_N > cap
    weights_N = ratio_N.clamp(max=cap)
    return Correction(torch.where(cut_N, 0.0, weights_N) if mask else weights_N, cut_N)


@dataclass
class Mismatch:
    """How far apart sampler and learner are about the tokens of a step, in sums over its micro-batches."""

    sums: list[float] = field(default_factory=lambda: [0.0] * 6)
    largest: float = 0.0

    def add(
        self,
        old_logprobs_N: Tensor,
        sampler_logprobs_N: Tensor,
        counts_N: Tensor,
        cut_N: Tensor | None,
        fresh_N: Tensor | None = None,
    ) -> None:
        """Counts a micro-batch in.

        Args:
            old_logprobs_N: log π_old of each token [N].
            sampler_logprobs_N: log π_sampler [N].
            counts_N: How many sampled tokens each one stands for [N].
            cut_N: Whether its weight is above the cap [N]; None without a correction.
            fresh_N: Whether the weights that sampled it are those of π_old [N]; None for all.
        """
        if not len(counts_N):
            return
        log_ratio_N = old_logprobs_N.detach() - sampler_logprobs_N
        fresh_counts_N = counts_N if fresh_N is None else counts_N * fresh_N
        fresh_ratio_N = torch.where(fresh_counts_N > 0, log_ratio_N, 0.0)
        sums = (
            counts_N.sum(),
            counts_N.new_zeros(()) if cut_N is None else (cut_N * counts_N).sum(),
            fresh_counts_N.sum(),
            (fresh_ratio_N.abs() * fresh_counts_N).sum(),
            ((fresh_ratio_N.expm1() - fresh_ratio_N) * fresh_counts_N).sum(),
            (log_ratio_N.abs() * (counts_N - fresh_counts_N)).sum(),
            fresh_ratio_N.abs().max(),
        )
        *found, largest = torch.stack(sums).tolist()
        self.sums = [a + b for a, b in zip(self.sums, found, strict=True)]
        self.largest = max(self.largest, largest)

    def metrics(self, corrects: bool) -> dict[str, float]:
        """Means over the tokens, each only where there are such.

        Of those that the present weights sampled: `mismatch`, |log π_old - log π_sampler| in nats; `mismatch_max`, the
        largest of these; `mismatch_kl`, the k3 estimate of KL(π_sampler || π_old) in nats (Schulman, "Approximating KL
        Divergence", 2020). Of those that older weights sampled: `off_policy`, else like `mismatch`. Of all, with a
        correction: `corrected`, the share above the cap.
        """
        tokens, cut, fresh, absolute, kl, moved = self.sums
        found = {}
        if fresh:
            found["mismatch"] = absolute / fresh
            found["mismatch_max"] = self.largest
            found["mismatch_kl"] = kl / fresh
        if tokens > fresh:
            found["off_policy"] = moved / (tokens - fresh)
        if tokens and corrects:
            found["corrected"] = cut / tokens
        return found
