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

Shape suffixes: R rows of a micro-batch, T columns that hold completion tokens or padding, C completions of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlvr.config import LearnerConfig

Level = Literal["off", "token", "sequence"]


class Correction(NamedTuple):
    """Importance weights of a micro-batch.

    Attributes:
        weights_RT: c_t in [0, cap] [R, T]; 0 where there is no token of the policy.
        cut_RT: Whether the ratio was above the cap [R, T].
    """

    weights_RT: Tensor
    cut_RT: Tensor


def resolve_correction(config: LearnerConfig, engine: bool) -> Level:
    """The correction to make; `auto` is by token where an engine samples, and off where the policy itself does."""
    if config.correction != "auto":
        return config.correction
    return "token" if engine else "off"


def correction(
    old_logprobs_RT: Tensor,
    sampler_logprobs_RT: Tensor,
    completions_RT: Tensor,
    own_RT: Tensor,
    level: Literal["token", "sequence"],
    cap: float,
    mask: bool = False,
) -> Correction:
    """Truncated importance weights, by the formula above. Without gradient.

    Args:
        old_logprobs_RT: log π_old of each token, by the learner [R, T].
        sampler_logprobs_RT: log π_sampler of each token, as the sampler reported it [R, T].
        completions_RT: Which completion of its row a token belongs to [R, T], from 0; several may share a row.
        own_RT: Whether the policy wrote the token [R, T]; the others, and padding, count nowhere and may hold anything.
        level: Whether a token has its own ratio or that of its whole completion.
        cap: Largest weight, at least 1.
        mask: Give what is above the cap no weight at all.
    """
    log_ratio_RT = torch.where(own_RT, old_logprobs_RT.detach() - sampler_logprobs_RT, 0.0)
    if level == "sequence":
        sums_RC = log_ratio_RT.new_zeros(len(log_ratio_RT), int(completions_RT.max()) + 1)
        log_ratio_RT = sums_RC.scatter_add_(1, completions_RT, log_ratio_RT).gather(1, completions_RT)
    ratio_RT = log_ratio_RT.exp()
    cut_RT = (ratio_RT > cap) & own_RT
    weights_RT = torch.where(own_RT, ratio_RT.clamp(max=cap), 0.0)
    return Correction(torch.where(cut_RT, 0.0, weights_RT) if mask else weights_RT, cut_RT)


@dataclass
class Mismatch:
    """How far apart sampler and learner are about the tokens of a step, in sums over its micro-batches."""

    tokens: int = 0
    cut: float = 0.0
    fresh: int = 0
    absolute: float = 0.0
    largest: float = 0.0
    kl: float = 0.0
    stale: int = 0
    moved: float = 0.0

    def add(
        self,
        old_logprobs_RT: Tensor,
        sampler_logprobs_RT: Tensor,
        counts_RT: Tensor,
        cut_RT: Tensor | None,
        fresh_RT: Tensor | None = None,
    ) -> None:
        """Counts a micro-batch in.

        Args:
            old_logprobs_RT: log π_old of each token [R, T].
            sampler_logprobs_RT: log π_sampler [R, T].
            counts_RT: How many sampled tokens each one stands for [R, T].
            cut_RT: Whether its weight is above the cap [R, T]; None without a correction.
            fresh_RT: Whether the weights that sampled it are those of π_old [R, T]; None for all.
        """
        log_ratio_RT = torch.where(counts_RT > 0, old_logprobs_RT.detach() - sampler_logprobs_RT, 0.0)
        fresh_counts_RT = counts_RT if fresh_RT is None else counts_RT * fresh_RT
        fresh_ratio_RT = torch.where(fresh_counts_RT > 0, log_ratio_RT, 0.0)
        sums = (
            counts_RT.sum(),
            counts_RT.new_zeros(()) if cut_RT is None else (cut_RT * counts_RT).sum(),
            fresh_counts_RT.sum(),
            (fresh_ratio_RT.abs() * fresh_counts_RT).sum(),
            fresh_ratio_RT.abs().max(),
            ((fresh_ratio_RT.expm1() - fresh_ratio_RT) * fresh_counts_RT).sum(),
            (log_ratio_RT.abs() * (counts_RT - fresh_counts_RT)).sum(),
        )
        tokens, cut, fresh, absolute, largest, kl, moved = torch.stack(sums).tolist()
        self.tokens += int(tokens)
        self.cut += cut
        self.fresh += int(fresh)
        self.absolute += absolute
        self.largest = max(self.largest, largest)
        self.kl += kl
        self.stale += int(tokens - fresh)
        self.moved += moved

    def metrics(self, corrects: bool) -> dict[str, float]:
        """Means over the tokens, each only where there are such.

        Of those that the present weights sampled: `mismatch`, |log π_old - log π_sampler| in nats; `mismatch_max`, the
        largest of these; `mismatch_kl`, the k3 estimate of KL(π_sampler || π_old) in nats (Schulman, "Approximating KL
        Divergence", 2020). Of those that older weights sampled: `off_policy`, else like `mismatch`. Of all, with a
        correction: `corrected`, the share above the cap.
        """
        found = {}
        if self.fresh:
            found["mismatch"] = self.absolute / self.fresh
            found["mismatch_max"] = self.largest
            found["mismatch_kl"] = self.kl / self.fresh
        if self.stale:
            found["off_policy"] = self.moved / self.stale
        if self.tokens and corrects:
            found["corrected"] = self.cut / self.tokens
        return found
