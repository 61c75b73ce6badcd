"""From a sample to the token ids the policy sees."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from rlvr.errors import ConfigError, DataError
from rlvr.types import Completion, Message, Sample, Task


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
        ConfigError: The chat template refuses it, or does not show the tools that it should.
    """
    tools = shown_tools(tokenizer, sample) if task.show_tools else None
    ids = encode_chat(tokenizer, messages(sample, task), f"the prompt of sample `{sample.id}`", tools)
    if not ids:
        raise DataError(f"the prompt of sample `{sample.id}` is empty", f"`rlvr tasks show {task.name}` prints it")
    return ids


def encode_chat(tokenizer: Any, chat: Sequence[Message], what: str, tools: Any = None) -> list[int]:
    """Token ids of a chat up to where the assistant's next turn begins.

    Args:
        tokenizer: With a chat template or without.
        chat: The messages.
        what: How an error calls it.
        tools: What the template is to show of them.

    Raises:
        ConfigError: The chat template refuses it.
    """
    if not tokenizer.chat_template:
        return list(tokenizer.encode("\n\n".join(message["content"] for message in chat)))
    try:
        text = tokenizer.apply_chat_template(list(chat), tools=tools, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise ConfigError(
            f"the model's chat template refuses {what}: {error}",
            "many templates know no system role, or want user and assistant to take turns",
        ) from error
    return list(tokenizer.encode(text, add_special_tokens=False))


def shown_tools(tokenizer: Any, sample: Sample) -> list[dict[str, Any]]:
    """The sample's `meta["tools"]` in the form that chat templates take.

    Raises:
        ConfigError: The template shows no tools.
        DataError: The sample has no list of tools.
    """
    template = tokenizer.chat_template
    if "tools" not in (json.dumps(template) if isinstance(template, dict) else template or ""):
        raise ConfigError(
            "the model's chat template shows no tools",
            "write them into the prompt and give the task `show_tools = false`, or take a model that knows tools",
        )
    tools = sample.meta.get("tools")
    if isinstance(tools, str):
        with contextlib.suppress(ValueError):
            tools = json.loads(tools)
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DataError(f"the sample `{sample.id}` has no list of `tools`", "give it one, or `show_tools = false`")
    return [dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]


def encode_reply(tokenizer: Any, reply: str, completion: Completion) -> list[int]:
    """Token ids that lead from the policy's last turn, over the environment's reply, to its next turn.

    They are what the chat template puts behind the content of an assistant message when a tool message and the opening
    of the next turn follow, less the end token where the policy has written it. So the policy's own tokens stay as they
    were sampled, whatever the template makes of earlier turns.

    Raises:
        ConfigError: The chat template has no place for a reply.
    """
    if not tokenizer.chat_template:
        return list(tokenizer.encode(f"\n{reply}\n", add_special_tokens=False))
    behind = next(filter(None, (_behind(tokenizer, role, reply) for role in ("tool", "user"))), None)
    if behind is None:
        raise ConfigError(
            "the model's chat template takes no reply of an environment", "take a model that knows several turns"
        )
    if completion.token_ids and not completion.truncated:
        behind = behind.removeprefix(tokenizer.decode(completion.token_ids[-1:]))
    return list(tokenizer.encode(behind, add_special_tokens=False))


def _behind(tokenizer: Any, role: str, reply: str) -> str | None:
    """What the template puts behind an assistant's content; None where it refuses the role or loses the reply."""
    content = "content of the assistant"
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]
    try:
        text = tokenizer.apply_chat_template(
            [*chat, {"role": role, "content": reply}], tokenize=False, add_generation_prompt=True
        )
    except TemplateError:
        return None
    found, behind = text.partition(content)[1:]
    return behind if found and reply.strip() in behind else None
