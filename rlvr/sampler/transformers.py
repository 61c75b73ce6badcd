"""Sampling with transformers: one decoding loop over the model in memory, for any causal LM and any device.

A group is decoded as a tree: its prompt is prefilled once, and completions share a row of the batch for as long as they
have drawn the same tokens. A completion is yielded at the token that ends it, and rows that have ended leave the batch.
The model is the learner's own object, so its weights are fresh by construction.

Shape suffixes: R rows of the batch, T columns, V vocabulary, N completions asked for, L of them still being written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlvr.errors import ConfigError
from rlvr.seeds import derive_seed
from rlvr.types import Completion, SamplingParams

# Ended rows are dropped from the batch when at least this share of it has ended: dropping copies the cache.
COMPACT_SHARE = 0.125


class TransformersSampler:
    """Samples from a model held in this process.

    Args:
        model: A causal language model, shared with the learner.
        tokenizer: Its tokenizer; decodes completions and names the end-of-sequence token.
        batch_size: Rows decoded together at most.
        weights: Where the model is a copy: the learner's tensors by name, which a sync takes over.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        batch_size: int = 512,
        weights: Callable[[], Iterable[tuple[str, Tensor]]] | None = None,
    ) -> None:
        self.model = model
        self.weights = weights
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.ends = end_tokens(model, tokenizer)
        self.version = 0
        self.compiled = any(getattr(m, "_compiled_call_impl", None) is not None for m in model.modules())
        self.takes_masks = model.config._attn_implementation == "sdpa"

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, params: SamplingParams
    ) -> Iterator[tuple[int, Completion]]:
        """See `rlvr.Sampler.sample`. The same prompts and seed give the same completions on CPU; another batch size
        may round differently."""
        rooms = params.rooms or (params.max_tokens,) * len(prompts)
        self._check_lengths(prompts, rooms)
        seeds = params.seeds or tuple(derive_seed(params.seed, index) for index in range(len(prompts)))
        # A batch holds whole groups, so that a prompt is prefilled once; a group larger than a batch is cut.
        copies = min(group_size, self.batch_size)
        jobs = [
            (index, min(copies, group_size - start), start)
            for index in range(len(prompts))
            for start in range(0, group_size, copies)
        ]
        per_batch = max(1, self.batch_size // copies)
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(jobs), per_batch):
                batch = jobs[start : start + per_batch]
                indices, repeats = [i for i, _, _ in batch], [n for _, n, _ in batch]
                own = [derive_seed(seeds[i], first) if first else seeds[i] for i, _, first in batch]
                yield from self._decode(indices, repeats, prompts, rooms, params, own)
        finally:  # also when the caller stops early
            self.model.train(was_training)

    def _check_lengths(self, prompts: Sequence[Sequence[int]], rooms: Sequence[int]) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        sizes = ((len(prompt), room) for prompt, room in zip(prompts, rooms, strict=True))
        longest, room = max(sizes, key=sum, default=(0, 0))
        if context and longest + room > context:
            raise ConfigError(
                f"a prompt of {longest} tokens and `sampler.max_tokens` {room} do not fit the model's context "
                f"of {context} tokens",
                f"lower `--sampler.max-tokens` to {context - longest}" if longest < context else "shorten the prompts",
            )

    @torch.inference_mode()
    def _decode(
        self,
        indices: list[int],
        repeats: list[int],
        prompts: Sequence[Sequence[int]],
        rooms: Sequence[int],
        params: SamplingParams,
        seeds: Sequence[int],
    ) -> Iterator[tuple[int, Completion]]:
        """Decodes `repeats[k]` completions of `prompts[indices[k]]`, N in all, as a tree, with `seeds[k]`.

        A row of the model's batch is a *prefix*, not a completion: completions that have drawn the same tokens so
        far share one. So a group starts as one row and takes another only where its completions part.
        """
        device = self.model.device
        ids_RT, mask_RT = pad_left([prompts[i] for i in indices], device)
        cache = DynamicCache(config=self.model.config)
        cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
        logits_RV = self._forward(ids_RT, mask_RT, cache)
        row_L = torch.repeat_interleave(torch.tensor(repeats, device=device))  # of the L completions still written
        live_L = torch.arange(len(row_L), device=device)
        owner_N = [index for index, count in zip(indices, repeats, strict=True) for _ in range(count)]
        room_N = torch.tensor([rooms[index] for index in owner_N], device=device)
        longest = int(room_N.max())
        tokens_NT = torch.zeros(len(row_L), longest, dtype=torch.long, device=device)
        logprobs_NT = torch.zeros(len(row_L), longest, device=device)
        ends = torch.tensor(sorted(self.ends), device=device)
        chances_NT = chances(seeds, repeats, longest, device)
        for t in range(longest):
            tokens_L, logprobs_L = draw(logits_RV, row_L, params, chances_NT[live_L, t])
            tokens_NT[live_L, t] = tokens_L
            logprobs_NT[live_L, t] = logprobs_L
            stopped_L = torch.isin(tokens_L, ends)
            ended_L = stopped_L | (room_N[live_L] == t + 1)
            if ended_L.any():
                done = live_L[ended_L]
                yield from self._completions(
                    [owner_N[n] for n in done.tolist()],
                    tokens_NT[done, : t + 1].tolist(),
                    logprobs_NT[done, : t + 1].tolist(),
                    stopped_L[ended_L].tolist(),
                )
                live_L, row_L, tokens_L = live_L[~ended_L], row_L[~ended_L], tokens_L[~ended_L]
                if not len(live_L):
                    return
            row_L, parent_R, tokens_R = branch(row_L, tokens_L, *logits_RV.shape)
            if parent_R is not None:
                cache.batch_select_indices(parent_R)
                mask_RT = mask_RT[parent_R]
            mask_RT = torch.cat([mask_RT, torch.ones_like(mask_RT[:, :1])], dim=1)
            logits_RV = self._forward(tokens_R.unsqueeze(1), mask_RT, cache)

    def _forward(self, ids_RT: Tensor, mask_RT: Tensor, cache: DynamicCache) -> Tensor:
        """Next-token logits [B, V] after feeding `ids_RT`, the last columns of what `mask_RT` covers."""
        positions_RT = (mask_RT.cumsum(dim=1) - 1).clamp(min=0)[:, -ids_RT.shape[1] :]
        one_at_a_time = ids_RT.shape[1] == 1 and all(type(layer) is RoomyLayer for layer in cache.layers)
        # If it is compiled, then for learning: a cache changes its shape all the time.
        with torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext():
            output = self.model(
                input_ids=ids_RT,
                # With full attention everywhere, a single new token looks at all there is: no mask to be worked out.
                attention_mask=mask_RT.bool()[:, None, None, :] if one_at_a_time and self.takes_masks else mask_RT,
                position_ids=positions_RT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1].float()

    def _completions(
        self, owners: list[int], ids: list[list[int]], logprobs: list[list[float]], stopped: list[bool]
    ) -> Iterator[tuple[int, Completion]]:
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        for owner, text, tokens, values, stop in zip(owners, texts, ids, logprobs, stopped, strict=True):
            reason: Literal["stop", "length"] = "stop" if stop else "length"
            yield owner, Completion(text, tuple(tokens), tuple(values), reason, version=self.version)

    def sync(self, version: int) -> Mapping[str, float]:
        """Takes the learner's weights over into the copy, if it is one."""
        self.version = version
        if self.weights is not None:
            own = self.model.state_dict()
            with torch.no_grad():
                for name, tensor in self.weights():
                    own[name].copy_(tensor)
        return {}

    def rest(self) -> None:
        """Nothing to free but the cache of a batch, which has gone with it."""

    def close(self) -> None:
        """Nothing to release: the model belongs to the caller."""


class RoomyLayer(DynamicLayer):
    """A cache layer with room for tokens to come: appending writes in place instead of copying the whole layer."""

    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends; returns all keys and values, [B, heads, T, width] each, as views of the layer's buffers."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._buffers = self._make_room(key_states[:, :, :0], value_states[:, :, :0], key_states.shape[2])
        old, new = self.get_seq_length(), self.get_seq_length() + key_states.shape[2]
        if new > self._buffers[0].shape[2]:
            self._buffers = self._make_room(self.keys, self.values, new)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, old:new] = states
        self.keys, self.values = self._buffers[0][:, :, :new], self._buffers[1][:, :, :new]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the rows `indices`, in that order and as often as they are named."""
        if length := self.get_seq_length():
            self._buffers = self._buffers[0][indices], self._buffers[1][indices]
            self.keys, self.values = self._buffers[0][:, :, :length], self._buffers[1][:, :, :length]

    def _make_room(self, keys: Tensor, values: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Buffers for `length` tokens and some room, filled with what there is."""
        buffers = []
        for states in (keys, values):
            rows, heads, filled, width = states.shape
            buffer = states.new_empty(rows, heads, length + max(16, length // 4), width)
            buffer[:, :, :filled] = states
            buffers.append(buffer)
        return buffers[0], buffers[1]


def chances(seeds: Sequence[int], repeats: Sequence[int], longest: int, device: torch.device) -> Tensor:
    """The random numbers in [0, 1) that completions are drawn by, one for each token [N, T]: `repeats[k]` completions
    by `seeds[k]`, whatever the others are. In float64, which MPS has not."""
    wide = torch.float32 if device.type == "mps" else torch.float64
    generator = torch.Generator(device=device)
    rows = [
        torch.rand(count, longest, dtype=wide, device=device, generator=generator.manual_seed(seed))
        for seed, count in zip(seeds, repeats, strict=True)
    ]
    return torch.cat(rows)


def draw(logits_RV: Tensor, row_L: Tensor, params: SamplingParams, chances_L: Tensor) -> tuple[Tensor, Tensor]:
    """Samples one token for each of L completions, from the row it stands at; returns ids and log-probabilities [L].

    Each is the token at which the distribution function passes the completion's random number in [0, 1).

    Log-probabilities are of the full softmax at the sampling temperature, which is what the learner's ratio is
    taken against; greedy decoding reports those at temperature 1.
    """
    if params.temperature == 0:
        ids_L = logits_RV.argmax(dim=-1)[row_L]
        return ids_L, logits_RV.log_softmax(dim=-1)[row_L, ids_L]
    logprobs_RV = (logits_RV / params.temperature).log_softmax(dim=-1)
    probabilities_RV = logprobs_RV.exp()
    if params.top_p < 1:
        sorted_RV, order_RV = probabilities_RV.sort(dim=-1, descending=True)
        outside_RV = sorted_RV.cumsum(dim=-1) - sorted_RV >= params.top_p
        probabilities_RV = torch.zeros_like(sorted_RV).scatter(1, order_RV, sorted_RV.masked_fill(outside_RV, 0.0))
    # By the inverse of the distribution function: one random number a completion, where torch.multinomial draws V.
    # In their type, float64, as a float32 sum over a large vocabulary would lose its rarest tokens.
    cumulative_LV = probabilities_RV.cumsum(dim=-1, dtype=chances_L.dtype)[row_L]
    ids_L = torch.searchsorted(cumulative_LV, chances_L[:, None] * cumulative_LV[:, -1:], right=True).squeeze(1)
    ids_L = ids_L.clamp(max=logits_RV.shape[1] - 1)
    return ids_L, logprobs_RV[row_L, ids_L]


def branch(row_L: Tensor, tokens_L: Tensor, rows: int, vocabulary: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Grows the tree of prefixes by the tokens that L completions drew.

    Args:
        row_L: The row that each completion stands at, in [0, rows).
        tokens_L: The token it drew.
        rows: Rows R there are now; some may have no completion any more.
        vocabulary: Size of the vocabulary.

    Returns:
        The row each completion stands at from now on [L]; the present row that each new row continues [R'], or
        None where the rows stay as they are; and the next token of each row [R'].
    """
    keys_R, new_row_L = torch.unique(row_L * vocabulary + tokens_L, return_inverse=True)
    parent_R, tokens_R = keys_R // vocabulary, keys_R % vocabulary
    parted = bool((parent_R[1:] == parent_R[:-1]).any())
    if not parted and len(parent_R) > (1 - COMPACT_SHARE) * rows:  # too few rows have ended to be worth a copy
        kept_R = torch.zeros(rows, dtype=torch.long, device=row_L.device)
        kept_R[parent_R] = tokens_R
        return row_L, None, kept_R
    return new_row_L, parent_R, tokens_R


def pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [R, T] of ragged rows, padded on the left (with id 0, masked out)."""
    width = max(len(row) for row in rows)
    ids_RT = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
    mask_RT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids_RT, mask_RT


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The ids that end a completion: the tokenizer's, and those of the model's generation config.

    Raises:
        ConfigError: If there is none, as no completion would ever end.
    """
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    ids.discard(None)
    if not ids:
        raise ConfigError(
            f"the model `{model.config.name_or_path}` has no end-of-sequence token",
            "set `eos_token` in its tokenizer_config.json",
        )
    return ids
