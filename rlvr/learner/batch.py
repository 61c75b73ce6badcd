"""What the model is fed: the completions of a step, packed into micro-batches without padding to speak of.

A *pack* is a prompt with n of its completions in one sequence,

    column    prompt[:-1]    prompt[-1] y1[:-1]    prompt[-1] y2[:-1]   ...
    target         -              y1                    y2

where each segment sees the prompt and itself, at the positions it would have alone. The prompt is computed once for n
completions; with n = 1 this is the usual layout. (The idea is known as prefix sharing; see for example Liu et al. 2025,
"Prefix Grouper", arXiv:2506.05433.) Completions that are the same token by token, common where a policy is sure of
itself, are computed once and counted as often as they were sampled.

Packs are put behind each other into *bins* (Krell et al. 2021, "Efficient Sequence Packing without
Cross-contamination", arXiv:2107.02027), and bins of one width make a micro-batch. What a token may see is said by the
position ids, which transformers reads in every attention backend, or by a mask of ours where prompts are shared.

Shape suffixes: S sequences of a micro-batch, L columns, N targets, T tokens of a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from rlvr.rollout import Row

PADDING = -1  # pack number of columns that hold nothing
MASK_HANDICAP = 2  # attention with a mask of ours does that much less work a second

Pack = tuple[int, ...]
"""Numbers of different completions of one prompt that are computed in one sequence."""


class Tokens:
    """The different completions of a step, and their tokens as columns over the whole step.

    Attributes:
        rows: The completions, each once.
        counts: How often each was sampled.
        groups: Numbers of the rows, by group.
        row_T: Which row a token belongs to [T].
        counts_T: For how many sampled tokens one stands; 0 for those that the policy did not write [T].
        fresh_T: 1 where the present weights sampled the token, else 0 [T].
        sampled_T: log π as the sampler reported it [T].
        advantages_T: As the rows have them [T].
    """

    def __init__(self, groups: Sequence[Sequence[Row]], device: torch.device) -> None:
        self.rows: list[Row] = []
        self.counts: list[int] = []
        self.groups: list[list[int]] = []
        for group in groups:
            merged = Counter(group)
            self.groups.append(list(range(len(self.rows), len(self.rows) + len(merged))))
            self.rows += merged
            self.counts += merged.values()
        lengths = torch.tensor([len(row.completion_ids) for row in self.rows], dtype=torch.long)
        self.starts = [0, *accumulate(lengths.tolist())]
        own_T = torch.ones(self.starts[-1])
        for row, start in zip(self.rows, self.starts, strict=False):
            for first, stop in row.foreign:
                own_T[start + first : start + stop] = 0
        self.device = device
        self.row_T = torch.repeat_interleave(lengths).to(device)
        self.counts_T = self.per_token([float(count) for count in self.counts]) * own_T.to(device)
        self.fresh_T = self.per_token([float(row.age == 0) for row in self.rows])
        self.sampled_T = torch.tensor([value for row in self.rows for value in row.old_logprobs]).to(device)
        self.advantages_T = self.per_token([row.advantage for row in self.rows])

    def __len__(self) -> int:
        return self.starts[-1]

    def per_token(self, values: Sequence[float]) -> Tensor:
        """A value of each row, for each of its tokens [T]."""
        return torch.tensor(values, dtype=torch.float32, device=self.device)[self.row_T]

    def row_sums(self, values_T: Tensor) -> Tensor:
        """Sums over the tokens of each row that the policy wrote."""
        sums = torch.zeros(len(self.rows), dtype=values_T.dtype, device=self.device)
        return sums.index_add(0, self.row_T, torch.where(self.counts_T > 0, values_T, 0.0))

    def length(self, pack: Pack) -> int:
        """Columns of a pack."""
        rows = [self.rows[number] for number in pack]
        return len(rows[0].prompt_ids) - 1 + sum(len(row.completion_ids) for row in rows)


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch on the device.

    Attributes:
        ids_SL: Token ids [S, L].
        positions_SL: Position of each in its sequence [S, L].
        attention: What a token may see: None where position ids say so, else bool [S, 1, L, L], or flex attention's.
        where_N: Columns that predict a target, into [S·L] [N].
        targets_N: Targets: tokens that the policy wrote [N].
        tokens_N: Their numbers among the tokens of the step [N].
        completions_N: Which completion of the micro-batch a target belongs to, from 0 [N].
    """

    ids_SL: Tensor
    positions_SL: Tensor
    attention: Any
    where_N: Tensor
    targets_N: Tensor
    tokens_N: Tensor
    completions_N: Tensor

    def to(self, device: torch.device) -> Batch:
        columns = (getattr(self, f.name) for f in fields(self))
        return Batch(*(column.to(device) if isinstance(column, Tensor) else column for column in columns))


@dataclass(slots=True)
class _Columns:
    """One sequence of a micro-batch while it is filled."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    packs: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)  # 0 for a prompt, else the completion's number in its pack

    def add(self, ids: Sequence[int], position: int, pack: int, segment: int) -> None:
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.packs += [pack] * len(ids)
        self.segments += [segment] * len(ids)


def lay_out(tokens: Tokens, bins: Sequence[Sequence[Pack]], backend: str, device: torch.device) -> Batch:
    """Lays out bins of packs, one sequence each.

    Args:
        tokens: The step that the packs number rows of.
        bins: Packs by sequence; none at all makes a micro-batch with one token and no target.
        backend: The model's attention backend.
        device: Where the tensors go.
    """
    sequences, found = [], []
    masked = any(len(pack) > 1 for packs in bins for pack in packs)
    width = max((sum(map(tokens.length, packs)) for packs in bins), default=1)
    completion = 0
    for s, packs in enumerate(bins or [[]]):
        columns = _Columns()
        for number, pack in enumerate(packs):
            prompt = tokens.rows[pack[0]].prompt_ids
            columns.add(prompt[:-1], 0, number, 0)
            for segment, n in enumerate(pack, start=1):
                row = tokens.rows[n]
                place, start = s * width + len(columns.ids), tokens.starts[n]
                columns.add([prompt[-1], *row.completion_ids[:-1]], len(prompt) - 1, number, segment)
                foreign = {t for first, stop in row.foreign for t in range(first, stop)}
                found += [
                    (place + t, target, start + t, completion)
                    for t, target in enumerate(row.completion_ids)
                    if t not in foreign
                ]
                completion += 1
        room = width - len(columns.ids)
        if len(packs) == 1 and not masked:  # padding goes on where the sequence ends: all is causal, and needs no mask
            columns.add([0] * room, len(columns.ids), PADDING, PADDING)
        else:  # else each column begins a sequence of its own
            for _ in range(room):
                columns.add([0], 0, PADDING, PADDING)
        sequences.append(columns)
    where, targets, numbers, completions = (
        (torch.tensor(column) for column in zip(*found, strict=True))
        if found
        else (torch.zeros(0, dtype=torch.long) for _ in range(4))
    )
    attention = None
    if masked:
        packs_SL, segments_SL = (torch.tensor([getattr(c, name) for c in sequences]) for name in ("packs", "segments"))
        attention = visible(packs_SL.to(device), segments_SL.to(device), backend)
    ids_SL, positions_SL = (torch.tensor([getattr(c, name) for c in sequences]) for name in ("ids", "positions"))
    return Batch(ids_SL, positions_SL, attention, where, targets, numbers, completions).to(device)


def visible(packs_SL: Tensor, segments_SL: Tensor, backend: str) -> Any:
    """What each column may look at: the prompt of its pack and its own segment, never ahead.

    Returns:
        For sdpa bool [S, 1, L, L]; flex attention's own mask for that.
    """
    if backend == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        def rule(s: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            same = (segments_SL[s, key] == 0) | (segments_SL[s, key] == segments_SL[s, query])
            return (packs_SL[s, key] == packs_SL[s, query]) & same & (query >= key)

        sequences, length = packs_SL.shape
        return create_block_mask(rule, sequences, None, length, length, device=str(packs_SL.device))
    length = packs_SL.shape[1]
    same_pack = packs_SL[:, :, None] == packs_SL[:, None, :]
    same_segment = segments_SL[:, :, None] == segments_SL[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=packs_SL.device).tril()
    return (same_pack & (same_segment | (segments_SL == 0)[:, None, :]) & causal)[:, None]


# ---------------------------------------------------------------------------------------------- what goes together


@dataclass(frozen=True, slots=True)
class Cost:
    """What a sequence costs to compute, in floating point operations or any other unit.

    Attributes:
        token: Of a token (the matrices).
        pair: Of a token and one that it could look at (attention).
    """

    token: float
    pair: float

    def of(self, length: int, masked: bool) -> float:
        """Of a sequence of so many columns."""
        return length * self.token + length * length * self.pair * (MASK_HANDICAP if masked else 1)


def make_packs(tokens: Tokens, rows: Sequence[int], max_tokens: int, cost: Cost) -> Iterator[Pack]:
    """Divides completions of one prompt into the packs that are cheapest to compute.

    Args:
        tokens: The step.
        rows: Numbers of different completions of one prompt.
        max_tokens: Columns of one pack at most, unless a single row has more.
        cost: Of a sequence.
    """
    prompt = len(tokens.rows[rows[0]].prompt_ids) - 1
    completion = sum(len(tokens.rows[n].completion_ids) for n in rows) / len(rows)

    def mean_cost(n: int) -> float:
        return cost.of(round(prompt + n * completion), masked=n > 1) / n

    sizes = [n for n in range(1, len(rows) + 1) if n == 1 or prompt + n * completion <= max_tokens]
    size = min(sizes, key=mean_cost)
    pack: Pack = ()
    for number in rows:
        if pack and (len(pack) == size or tokens.length((*pack, number)) > max_tokens):
            yield pack
            pack = ()
        pack += (number,)
    yield pack


def micro_batches(tokens: Tokens, packs: Sequence[Pack], max_tokens: int, multiple: int = 1) -> list[list[Pack]]:
    """Divides packs into micro-batches: packs of similar length together, all with about the same number of tokens.

    Args:
        tokens: The step.
        packs: What to divide.
        max_tokens: Columns of a micro-batch at most, unless a single pack has more.
        multiple: Their number is a multiple of this (there may be empty ones), such as the number of processes.
    """
    ordered = sorted(packs, key=tokens.length)
    fewest = len(fill(tokens, ordered, max_tokens))
    number = -(-fewest // multiple) * multiple
    low, high = 1, max_tokens  # the smallest limit with which that number is enough
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(fill(tokens, ordered, middle)) <= number else (middle + 1, high)
    found = fill(tokens, ordered, low)
    return found + [[] for _ in range(number - len(found))]


def fill(tokens: Tokens, packs: Sequence[Pack], max_tokens: int) -> list[list[Pack]]:
    """Runs of packs, each filled up to the limit before the next begins."""
    found: list[list[Pack]] = []
    held = 0
    for pack in packs:
        length = tokens.length(pack)
        if not found or held + length > max_tokens:
            found.append([])
            held = 0
        found[-1].append(pack)
        held += length
    return found


def into_bins(tokens: Tokens, packs: Sequence[Pack], cost: Cost, one_row: bool = False) -> list[list[Pack]]:
    """Puts the packs of a micro-batch behind each other, where that is cheaper than padding them.

    Args:
        tokens: The step.
        packs: Of the micro-batch.
        cost: Of a sequence.
        one_row: Put all of them into one sequence: the backend skips what a token may not see.
    """
    if one_row or not packs:
        return [list(packs)] if packs else []
    lengths = {pack: tokens.length(pack) for pack in packs}
    width = max(lengths.values())
    bins: list[list[Pack]] = []
    rooms: list[int] = []
    for pack in sorted(packs, key=lambda pack: -lengths[pack]):  # first fit, the longest first
        fitting = next((i for i, room in enumerate(rooms) if room >= lengths[pack]), None)
        if fitting is None:
            bins.append([])
            rooms.append(width)
            fitting = -1
        bins[fitting].append(pack)
        rooms[fitting] -= lengths[pack]
    masked_anyway = any(len(pack) > 1 for pack in packs)
    alone = len(packs) * cost.of(width, masked_anyway)
    return [[pack] for pack in packs] if alone <= len(bins) * cost.of(width, True) else bins
