"""Several verifiers under one verdict.

    from rlvr import Task, gate, part

    Task("sums", gate(format=part("text", rules=[...]), answer="math"), load)

The rules, over the parts that have a verdict:

              passes when                         score
    all_of    all pass                            the lowest
    any_of    one passes                          the highest
    weighted  the score reaches the threshold     the mean by weight
    gate      all pass; each part is verified     the mean by weight, 0 for parts behind a closed one
              only when those before it passed
    penalty   the first passes                    that of the first, less weight x (1 - score) for every other part that
                                                  fails; 0 at least

What failed never has the score 1. A part without a verdict (error, timeout, abstained) is missing data. A required one
makes the whole verdict missing, except in an `any_of` that passes anyway; an optional one is left out, and of nothing
but missing parts the verdict is missing. Where several statuses could be given, error comes before timeout, and timeout
before abstained. `docs/concepts/composition.md` has the table.
"""

from __future__ import annotations

from rlvr.composition.futures import composed, gathered
from rlvr.composition.verdicts import combine
from rlvr.composition.writing import (
    RULES,
    all_of,
    any_of,
    as_json,
    compose,
    flaw,
    gate,
    label,
    leaves,
    part,
    penalty,
    refuse,
    weighted,
)

__all__ = [
    "RULES",
    "all_of",
    "any_of",
    "as_json",
    "combine",
    "compose",
    "composed",
    "flaw",
    "gate",
    "gathered",
    "label",
    "leaves",
    "part",
    "penalty",
    "refuse",
    "weighted",
]
