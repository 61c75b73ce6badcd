"""Micro-batches: completions of one prompt share it.

A *pack* is a prompt with n of its completions in one sequence,

    column    prompt[:-1]    prompt[-1] y1[:-1]    prompt[-1] y2[:-1]   ...
    target         -              y1                    y2

where each segment sees the prompt and itself, at the positions it would have alone. The prompt is computed once for n
completions, and there is no padding between them; with n = 1 this is the usual layout. (The idea is known as prefix
sharing; see for example Liu et al. 2025, "Prefix Grouper", arXiv:2506.05433.) Completions that are the same token by
token, common where a policy is sure of itself, are computed once and counted as often as they were sampled.

Shape suffixes: S sequences of a micro-batch, L columns, K columns that have a target (the last K).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.rollout import Row

PADDING = -1  # segment number of columns that hold nothing
ATTENTION_HANDICAP = 4  # attention with a mask of ours does that much less work a second than the matrices do

Pack = Sequence[tuple[Row, int]]
"""Different completions of one prompt that are computed in one sequence, each with how often it was sampled."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch on the device. `counts_SK` says for how many completions a target stands; where it is 0 there is
    none, or one that the environment wrote, and the other values mean nothing. `completions_SK` numbers the completions
    of a sequence from 1; `fresh_SK` is 1 where the present weights sampled the target, else 0."""

    ids_SL: Tensor
    positions_SL: Tensor
    attention: Tensor  # [S, L], or [S, 1, L, L] where sequences hold several completions
    targets_SK: Tensor
    counts_SK: Tensor
    completions_SK: Tensor
    fresh_SK: Tensor
    old_logprobs_SK: Tensor
    advantages_SK: Tensor
    weights_SK: Tensor

    @classmethod
    def of(cls, packs: Sequence[Pack], weight: Callable[[Row], float], device: torch.device) -> Batch:
        """Lays out packs; `weight` is the weight in the loss of each token of one completion of a row."""
        head, tail = max(map(prompt_tokens, packs)) - 1, max(map(completion_tokens, packs))
        ids = torch.zeros(len(packs), head + tail, dtype=torch.long)
        positions, segments = torch.zeros_like(ids), torch.full_like(ids, PADDING)
        targets = torch.zeros(len(packs), tail, dtype=torch.long)
        completions = torch.zeros_like(targets)
        counts, fresh, old, advantages, weights = (torch.zeros(len(packs), tail) for _ in range(5))
        for s, pack in enumerate(packs):
            prompt = pack[0][0].prompt_ids
            last, start = len(prompt) - 1, 0
            ids[s, head - last : head] = torch.tensor(prompt[:-1], dtype=torch.long)
            positions[s, head - last : head] = torch.arange(last)
            segments[s, head - last : head] = 0
            for number, (row, count) in enumerate(pack, start=1):
                here = slice(start, start := start + len(row.completion_ids))
                with_head = slice(head + here.start, head + here.stop)
                targets[s, here] = torch.tensor(row.completion_ids)
                ids[s, with_head] = torch.tensor([prompt[-1], *row.completion_ids[:-1]])
                positions[s, with_head] = torch.arange(last, last + len(row.completion_ids))
                segments[s, with_head] = completions[s, here] = number
                old[s, here] = torch.tensor(row.old_logprobs)
                advantages[s, here] = row.advantage
                weights[s, here] = weight(row) * count
                counts[s, here] = count
                fresh[s, here] = row.age == 0
                for first, stop in row.foreign:
                    elsewhere = slice(here.start + first, here.start + stop)
                    weights[s, elsewhere] = counts[s, elsewhere] = 0
        several = any(len(pack) > 1 for pack in packs)
        attention = segment_attention(segments) if several else (segments != PADDING).long()
        columns = (ids, positions, attention, targets, counts, completions, fresh, old, advantages, weights)
        return cls(*(column.to(device) for column in columns))


def segment_attention(segments_SL: Tensor) -> Tensor:
    """What each column may look at, [S, 1, L, L] bool: the prompt (segment 0) and its own segment, never ahead.

    Padding sees itself only: a row that sees nothing would be NaN, and NaN spreads.
    """
    keys, queries = segments_SL[:, None, None, :], segments_SL[:, None, :, None]
    length = segments_SL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments_SL.device).tril()
    visible = ((keys == 0) | (keys == queries)) & (keys != PADDING) & causal
    return visible | torch.eye(length, dtype=torch.bool, device=segments_SL.device)


def micro_batches(packs: Sequence[Pack], max_tokens: int) -> Iterator[list[Pack]]:
    """Packs of similar length together, each micro-batch within `max_tokens` padded tokens (one pack may exceed
    it)."""
    batch: list[Pack] = []
    prompt = completion = 0
    for pack in sorted(packs, key=lambda pack: (completion_tokens(pack), prompt_tokens(pack))):
        wider = max(prompt, prompt_tokens(pack)), max(completion, completion_tokens(pack))
        if batch and sum(wider) * (len(batch) + 1) > max_tokens:
            yield batch
            batch, wider = [], (prompt_tokens(pack), completion_tokens(pack))
        batch.append(pack)
        prompt, completion = wider
    if batch:
        yield batch


def prompt_tokens(pack: Pack) -> int:
    return len(pack[0][0].prompt_ids)


def completion_tokens(pack: Pack) -> int:
    return sum(len(row.completion_ids) for row, _ in pack)


def merge(rows: Sequence[Row]) -> Pack:
    """The different rows of one prompt, in order of appearance, with how often each is there."""
    return list(Counter(rows).items())


def make_packs(rows: Pack, max_tokens: int, token_cost: float, pair_cost: float) -> Iterator[Pack]:
    """Divides the completions of one prompt into the packs that are cheapest to compute.

    Args:
        rows: Different completions of one prompt.
        max_tokens: Tokens of one pack at most, unless a single row has more.
        token_cost: Work per token (the matrices).
        pair_cost: Work per pair of a token and one it could look at (attention), in the same unit.
    """
    prompt, completion = prompt_tokens(rows), completion_tokens(rows) / len(rows)
    pair_cost *= ATTENTION_HANDICAP

    def cost(n: int) -> float:
        length = prompt + n * completion
        return (length * token_cost + length * length * pair_cost) / n

    sizes = [n for n in range(1, len(rows) + 1) if n == 1 or prompt + n * completion <= max_tokens]
    size = min(sizes, key=cost)
    pack: list[tuple[Row, int]] = []
    for row in rows:
        if pack and (len(pack) == size or prompt + completion_tokens([*pack, row]) > max_tokens):
            yield pack
            pack = []
        pack.append(row)
    yield pack
