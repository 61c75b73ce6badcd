"""From a sample to the token ids the policy sees."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from rlvr.errors import ConfigError, DataError
from rlvr.types import Message, Sample, Task


def messages(sample: Sample, task: Task) -> list[Message]:
    """The sample as a chat, the task's system message first."""
    chat: list[Message] = [{"role": "system", "content": task.system}] if task.system else []
    if isinstance(sample.prompt, str):
        return [*chat, {"role": "user", "content": sample.prompt}]
    return [*chat, *sample.prompt]


def encode_prompt(tokenizer: Any, sample: Sample, task: Task) -> list[int]:
    """Token ids of the prompt, through the tokenizer's chat template where it has one, else as plain text.

    Raises:
        DataError: The prompt has no tokens.
        ConfigError: The chat template refuses it.
    """
    chat = messages(sample, task)
    if tokenizer.chat_template:
        try:
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise ConfigError(
                f"the model's chat template refuses the prompt of sample `{sample.id}`: {error}",
                "many templates know no system role, or want user and assistant to take turns",
            ) from error
        ids = tokenizer.encode(text, add_special_tokens=False)
    else:
        ids = tokenizer.encode("\n\n".join(message["content"] for message in chat))
    if not ids:
        raise DataError(f"the prompt of sample `{sample.id}` is empty", f"`rlvr tasks show {task.name}` prints it")
    return list(ids)
