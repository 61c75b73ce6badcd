"""A curriculum by pass rate: prompts that are always or never solved are sampled less.

A group teaches when some of its completions pass and some fail: how far a prompt can improve the policy is bounded by
the variance of its outcomes (Bae et al. 2025, arXiv:2504.03380). As in MoPPS (Qu et al. 2025, arXiv:2507.04632) each
prompt has a Beta posterior over its pass rate, whose evidence fades as the policy moves on. Unlike there, nothing is
sampled from it, and no candidates are ranked: when the turn of a prompt comes in the stream, it is kept in proportion
to the chance that its group teaches.

Missing verdicts say nothing of a prompt and never count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rlvr.rollout import Evidence, Group
from rlvr.seeds import derive_seed

PRIOR = 0.5
"""Both parameters of the Beta distribution of a prompt that was never sampled (Jeffreys)."""

STREAM = -1
"""Sets these draws apart from the other seeds of a run, all of which come from numbers that are not negative."""


def observe(evidence: Mapping[str, Evidence], groups: Iterable[Group], memory: float) -> dict[str, Evidence]:
    """The evidence with that of groups added, what is known of their prompts having faded to `memory` of itself."""
    found = dict(evidence)
    for group in groups:
        valid = [verdict for verdict in group.verdicts if verdict.valid]
        if valid:
            passed, failed = found.get(group.key, (0.0, 0.0))
            solved = sum(verdict.passed for verdict in valid)
            found[group.key] = passed * memory + solved, failed * memory + len(valid) - solved
    return found


def teaches(evidence: Evidence, group_size: int) -> float:
    """The chance that a group has completions that pass and completions that fail.

    `1 - E[p^G] - E[(1 - p)^G]` over the posterior `Beta(1/2 + passed, 1/2 + failed)` of the pass rate p.
    """
    passed, failed = (PRIOR + count for count in evidence)
    places = range(max(group_size, 2))
    alike = (math.prod((mine + i) / (passed + failed + i) for i in places) for mine in (passed, failed))
    return 1.0 - sum(alike)


def keeps(evidence: Evidence, group_size: int, skip: float) -> float:
    """The chance that a prompt is sampled when its turn comes.

    1 for a new prompt and for one that is solved some of the time; towards the ends it falls with the chance that its
    group teaches, relative to that of a new one, down to `1 - skip` and never to 0: a prompt can come back.

    Args:
        evidence: Completions that passed and that failed, faded.
        group_size: Completions of a group.
        skip: In [0, 1).
    """
    return min(1.0, max(1.0 - skip, teaches(evidence, group_size) / teaches((0.0, 0.0), group_size)))


def passes_over(evidence: Evidence, group_size: int, skip: float, seed: int, place: int) -> bool:
    """Whether the prompt at this place of the stream is left out. The draw follows from seed and place alone."""
    return derive_seed(seed, STREAM, place) >= keeps(evidence, group_size, skip) * 2**63
