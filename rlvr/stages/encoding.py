"""From a row to the token ids that a stage trains on: the same that sampling would make of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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

    Args:
        tokenizer: With a chat template or without.
        prompt: A chat that the assistant is to answer.
        completion: The text of its turn.
        where: How an error calls the row.
        tools: What the template is to show of them.

    Raises:
        ConfigError: The chat template refuses the prompt.
    """
    prompt_ids = encode_chat(tokenizer, prompt, where, list(tools) or None)
    return prompt_ids, [*tokenizer.encode(completion, add_special_tokens=False), tokenizer.eos_token_id]


def room(model: Any, max_length: int) -> int:
    """Tokens of prompt and completion that a sample may have: `max_length`, or what the model reads if that is less."""
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_length, own) if own else max_length
