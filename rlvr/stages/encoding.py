"""From a row to the token ids that a stage trains on: the same that sampling would make of the prompt."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from rlvr.examples.reading import Unusable
from rlvr.sampler.prompts import encode_chat
from rlvr.types import Message


def encode(
    tokenizer: Any,
    prompt: Sequence[Message],
    completion: str,
    where: str = "a row",
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, up to where the assistant's turn begins, and of the completion with its end token.

    An end token that the completion already has behind its text, spelled out, is not learned twice. Other tokens that
    mark turns have no place inside a turn; a sampler's text has none of them either.

    Args:
        tokenizer: With a chat template or without.
        prompt: A chat that the assistant is to answer.
        completion: The text of its turn.
        where: How an error calls the row.
        tools: What the template is to show of them.

    Raises:
        ConfigError: The chat template refuses the prompt.
        Unusable: The completion has a token inside that ends or begins a turn, or nothing but its end token.
    """
    prompt_ids = encode_chat(tokenizer, prompt, where, list(tools) or None)
    if completion.rstrip().endswith(tokenizer.eos_token):
        completion = completion.rstrip().removesuffix(tokenizer.eos_token)
        if not completion.strip():
            raise Unusable("empty-completion", where, "the completion is an end token alone")
    ids = tokenizer.encode(completion, add_special_tokens=False)
    markers = turn_markers(tokenizer)
    marker = next((token for token in ids if token in markers), None)
    if marker is not None:
        spelled = tokenizer.convert_ids_to_tokens(marker)
        raise Unusable("special-token", where, f"the completion has the token `{spelled}`, which marks turns, inside")
    return prompt_ids, [*ids, tokenizer.eos_token_id]


@lru_cache(maxsize=4)
def turn_markers(tokenizer: Any) -> frozenset[int]:
    """The special tokens that end or begin a turn: the tokenizer's own, and those that its chat template writes.

    Tokens that a turn may have inside, such as those around thoughts and calls of tools, are none.
    """
    found = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    if tokenizer.chat_template:
        chat = [{"role": role, "content": "?"} for role in ("user", "assistant", "user")]
        with contextlib.suppress(TemplateError):
            text = tokenizer.apply_chat_template(chat, tokenize=False)
            added = tokenizer.added_tokens_decoder
            ids = tokenizer.encode(text, add_special_tokens=False)
            found |= {token for token in ids if token in added and added[token].special}
    return frozenset(found - {None, tokenizer.unk_token_id})


def room(model: Any, max_length: int) -> int:
    """Tokens of prompt and completion that a sample may have: `max_length`, or what the model reads if that is less."""
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_length, own) if own else max_length
