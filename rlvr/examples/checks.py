"""What is done with rows once they are read: too long ones are left out, and some are held out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from rlvr.examples.rows import Bad, Demonstration, Label, Pair, Report, key_of

E = TypeVar("E", Demonstration, Pair, Label)


def drop_too_long(rows: Sequence[E], lengths: Sequence[int], max_length: int, report: Report) -> list[E]:
    """The rows of at most `max_length` tokens; the others go to the report, and so do facts on lengths.

    Args:
        rows: The rows.
        lengths: Tokens of prompt and completion of each; of a pair, with the longer completion.
        max_length: Tokens that there is room for.
        report: Of these rows.
    """
    kept = []
    for row, length in zip(rows, lengths, strict=True):
        if length <= max_length:
            kept.append(row)
        else:
            report.bad.append(Bad("too-long", row.where, f"has {length} tokens, but `max_length` is {max_length}"))
    if lengths:
        report.facts["tokens"] = {"longest": max(lengths), "mean": round(sum(lengths) / len(lengths), 1)}
    return kept


def hold_out(rows: Sequence[E], share: float, seed: int) -> tuple[list[E], list[E]]:
    """Rows to train on and rows to validate on; all rows of a prompt are on one side.

    Args:
        rows: The rows.
        share: Of the rows to validate on. If it is above 0 there is at least one such row, given two prompts; a prompt
            of so many rows that the share is further missed with it than without is passed over.
        seed: Of the choice of prompts.

    Returns:
        Both in the order of `rows`; the second is empty where there is a single prompt, or `share` is 0.
    """
    sizes: dict[object, int] = {}
    for row in rows:
        sizes[key_of(row.prompt)] = sizes.get(key_of(row.prompt), 0) + 1
    prompts = list(sizes)
    random.Random(seed).shuffle(prompts)
    wanted = max(1, round(share * len(rows))) if share else 0
    held: set[object] = set()
    count = 0
    for prompt in prompts:
        if count >= wanted or len(held) == len(prompts) - 1:  # one at least is left to train on
            break
        if count + sizes[prompt] - wanted <= wanted - count:
            held.add(prompt)
            count += sizes[prompt]
    if wanted and not held and len(prompts) > 1:
        held.add(min(prompts, key=sizes.__getitem__))
    train = [row for row in rows if key_of(row.prompt) not in held]
    return train, [row for row in rows if key_of(row.prompt) in held]
