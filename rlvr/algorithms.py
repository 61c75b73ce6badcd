"""The named algorithms: each a recipe of settings, whose parts can be overridden one by one.

An algorithm is an advantage estimator (`learner.advantage`), a loss (`learner.loss`), how the loss is averaged
(`learner.aggregate`) and what stands around them. The recipe is the weakest layer of a config above our defaults, so
that `--algorithm dapo --learner.clip-high 0.2` is DAPO without clip-higher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named algorithm.

    Attributes:
        summary: What sets it apart, in a line.
        source: Where it was published.
        settings: Config values by dotted name.
    """

    summary: str
    source: str
    settings: Mapping[str, Any]


GROUP: dict[str, Any] = {
    "learner.advantage": "group",
    "learner.scale": "std",
    "learner.loss": "clip",
    "learner.clip_low": 0.2,
    "learner.clip_high": 0.2,
    "learner.aggregate": "sequence",
    "sampler.dynamic": False,
    "reward.overlong": "keep",
}

ALGORITHMS: Mapping[str, Recipe] = {
    "grpo": Recipe(
        "rewards relative to their group; every completion weighs the same; KL off, as is usual with checked rewards",
        "Shao et al. 2024, DeepSeekMath, arXiv:2402.03300",
        GROUP,
    ),
    "dapo": Recipe(
        "GRPO with clip-higher, a token-level loss, dynamic sampling and a soft penalty for length",
        "Yu et al. 2025, arXiv:2503.14476",
        GROUP
        | {
            "learner.clip_high": 0.28,
            "learner.aggregate": "token",
            "sampler.dynamic": True,
            "reward.overlong": "soft",
        },
    ),
    "dr-grpo": Recipe(
        "GRPO without its two biases: no division by deviation, and a constant in place of the length",
        "Liu et al. 2025, arXiv:2503.20783",
        GROUP | {"learner.scale": "none", "learner.aggregate": "constant"},
    ),
    "gspo": Recipe(
        "one importance ratio for a whole completion, clipped tightly",
        "Zheng et al. 2025, arXiv:2507.18071",
        GROUP | {"learner.loss": "gspo", "learner.clip_low": 3e-4, "learner.clip_high": 4e-4},
    ),
    "cispo": Recipe(
        "cuts importance weights, not gradients: every token keeps one",
        "MiniMax 2025, MiniMax-M1, arXiv:2506.13585",
        GROUP
        | {
            "learner.loss": "cispo",
            "learner.clip_low": 1.0,
            "learner.clip_high": 4.0,
            "learner.aggregate": "token",
            "sampler.dynamic": True,
            "reward.overlong": "soft",
        },
    ),
    "rloo": Recipe(
        "each reward against the mean of the others of its group; a completion counts as the sum of its tokens",
        "Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019",
        GROUP | {"learner.advantage": "rloo", "learner.scale": "none", "learner.aggregate": "constant"},
    ),
    "reinforce++": Recipe(
        "no groups needed: returns are whitened over all tokens of a step",
        "Hu et al. 2025, arXiv:2501.03262",
        GROUP | {"learner.advantage": "reinforce++", "learner.aggregate": "token"},
    ),
    "ppo": Recipe(
        "a value model, GAE, clipped values, whitened rewards, several epochs over minibatches",
        "Schulman et al. 2017, arXiv:1707.06347; Huang et al. 2024, arXiv:2403.17031",
        GROUP
        | {
            "learner.advantage": "gae",
            "learner.aggregate": "token",
            "learner.epochs": 2,
            "learner.updates_per_step": 2,
            "learner.whiten_rewards": True,
        },
    ),
}
