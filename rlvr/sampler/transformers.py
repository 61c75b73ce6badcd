"""Sampling with transformers: one decoding loop over the model in memory, for any causal LM and any device.

The prompts of a batch are prefilled once each and their cache is repeated for the group. A completion is yielded
at the token that ends it, and rows that have ended leave the batch. The model is the learner's own object, so its
weights are fresh by construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rlvr.errors import ConfigError
from rlvr.types import Completion, SamplingParams

# Ended rows are dropped from the batch when at least this share of it has ended: dropping copies the cache.
COMPACT_SHARE = 0.125


class TransformersSampler:
    """Samples from a model held in this process.

    Args:
        model: A causal language model, shared with the learner.
        tokenizer: Its tokenizer; decodes completions and names the end-of-sequence token.
        batch_size: Rows decoded together at most.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 512) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.ends = end_tokens(model, tokenizer)

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, params: SamplingParams
    ) -> Iterator[tuple[int, Completion]]:
        """See `rlvr.Sampler.sample`. The same prompts, seed and batch size give the same completions on CPU."""
        self._check_lengths(prompts, params.max_tokens)
        generator = torch.Generator(device=self.model.device)
        generator.manual_seed(params.seed)
        # A batch holds whole groups, so that a prompt is prefilled once; a group larger than a batch is cut.
        copies = min(group_size, self.batch_size)
        jobs = [
            (index, min(copies, group_size - start))
            for index in range(len(prompts))
            for start in range(0, group_size, copies)
        ]
        per_batch = max(1, self.batch_size // copies)
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(jobs), per_batch):
                batch = jobs[start : start + per_batch]
                yield from self._decode([i for i, _ in batch], [n for _, n in batch], prompts, params, generator)
        finally:  # also when the caller stops early
            self.model.train(was_training)

    def _check_lengths(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        context = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts), default=0)
        if context and longest + max_tokens > context:
            raise ConfigError(
                f"a prompt of {longest} tokens and `sampler.max_tokens` {max_tokens} do not fit the model's context "
                f"of {context} tokens",
                f"lower `--sampler.max-tokens` to {context - longest}" if longest < context else "shorten the prompts",
            )

    @torch.no_grad()
    def _decode(
        self,
        indices: list[int],
        repeats: list[int],
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        generator: torch.Generator,
    ) -> Iterator[tuple[int, Completion]]:
        """Decodes `repeats[k]` completions of `prompts[indices[k]]`, all in one batch of B rows."""
        device = self.model.device
        ids_PT, mask_PT = pad_left([prompts[i] for i in indices], device)
        cache = DynamicCache(config=self.model.config)
        logits_PV = self._forward(ids_PT, mask_PT, cache)
        row_of_B = torch.repeat_interleave(
            torch.arange(len(indices), device=device), torch.tensor(repeats, device=device)
        )
        logits_BV = logits_PV[row_of_B]
        mask_BT = mask_PT[row_of_B]
        cache.batch_select_indices(row_of_B)
        owner_B = torch.tensor(indices, device=device)[row_of_B]

        size = len(owner_B)
        tokens_BT = torch.zeros(size, params.max_tokens, dtype=torch.long, device=device)
        logprobs_BT = torch.zeros(size, params.max_tokens, device=device)
        ends = torch.tensor(sorted(self.ends), device=device)
        alive_B = torch.ones(size, dtype=torch.bool, device=device)
        for t in range(params.max_tokens):
            tokens_B, tokens_logprob_B = draw(logits_BV, params, generator)
            tokens_BT[:, t] = tokens_B
            logprobs_BT[:, t] = tokens_logprob_B
            stopped_B = torch.isin(tokens_B, ends)
            ended_B = alive_B & (stopped_B if t + 1 < params.max_tokens else torch.ones_like(alive_B))
            if ended_B.any():
                yield from self._completions(ended_B, stopped_B, owner_B, tokens_BT[:, : t + 1], logprobs_BT)
                alive_B = alive_B & ~ended_B
                remaining = int(alive_B.sum())
                if remaining == 0:
                    break
                if remaining <= (1 - COMPACT_SHARE) * len(alive_B):
                    keep = alive_B.nonzero().squeeze(1)
                    cache.batch_select_indices(keep)
                    tokens_B, mask_BT, owner_B = tokens_B[keep], mask_BT[keep], owner_B[keep]
                    tokens_BT, logprobs_BT, alive_B = tokens_BT[keep], logprobs_BT[keep], alive_B[keep]
            mask_BT = torch.cat([mask_BT, torch.ones_like(mask_BT[:, :1])], dim=1)
            logits_BV = self._forward(tokens_B.unsqueeze(1), mask_BT, cache)

    def _forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache) -> Tensor:
        """Next-token logits [B, V] after feeding `ids_BT`, the last columns of what `mask_BT` covers."""
        positions_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
        output = self.model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def _completions(
        self, ended_B: Tensor, stopped_B: Tensor, owner_B: Tensor, tokens_BT: Tensor, logprobs_BT: Tensor
    ) -> Iterator[tuple[int, Completion]]:
        rows = ended_B.nonzero().squeeze(1)
        tokens = tokens_BT[rows].tolist()
        logprobs = logprobs_BT[rows, : tokens_BT.shape[1]].tolist()
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        stops = stopped_B[rows].tolist()
        owners = owner_B[rows].tolist()
        for owner, text, ids, lps, stop in zip(owners, texts, tokens, logprobs, stops, strict=True):
            yield owner, Completion(text, tuple(ids), tuple(lps), "stop" if stop else "length")

    def close(self) -> None:
        """Nothing to release: the model belongs to the caller."""


def draw(logits_BV: Tensor, params: SamplingParams, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples one token per row; returns ids [B] and their log-probabilities [B].

    Log-probabilities are of the full softmax at the sampling temperature, which is what the learner's ratio is
    taken against; greedy decoding reports those at temperature 1.
    """
    if params.temperature == 0:
        ids_B = logits_BV.argmax(dim=-1)
        logprobs_BV = logits_BV.log_softmax(dim=-1)
        return ids_B, logprobs_BV.gather(1, ids_B.unsqueeze(1)).squeeze(1)
    logprobs_BV = (logits_BV / params.temperature).log_softmax(dim=-1)
    probabilities_BV = logprobs_BV.exp()
    if params.top_p < 1:
        sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True)
        outside_BV = sorted_BV.cumsum(dim=-1) - sorted_BV >= params.top_p
        sorted_BV = sorted_BV.masked_fill(outside_BV, 0.0)
        probabilities_BV = torch.zeros_like(probabilities_BV).scatter(1, order_BV, sorted_BV)
    ids_B = torch.multinomial(probabilities_BV, 1, generator=generator).squeeze(1)
    return ids_B, logprobs_BV.gather(1, ids_B.unsqueeze(1)).squeeze(1)


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
