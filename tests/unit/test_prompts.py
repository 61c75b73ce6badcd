"""What the chat template makes of tools, and of what an environment replies."""

from __future__ import annotations

import copy
import importlib.resources
import json
from typing import Any

import pytest

from rlvr import Completion, ConfigError, DataError, Sample, Task
from rlvr.sampler.prompts import encode_prompt, encode_reply

CHATML = (
    "{% if tools %}<|tools|>{% for t in tools %}{{ t['function']['name'] }} {% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = {"name": "add", "parameters": {"type": "object"}}
SHOWN = Task("t", "tool-call", lambda split: [], show_tools=True)


@pytest.fixture(scope="module")
def starter() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(importlib.resources.files("rlvr_tasks") / "starter"))


@pytest.fixture
def chatml(starter: Any) -> Any:
    clone = copy.deepcopy(starter)
    clone.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    clone.eos_token, clone.chat_template = "<|im_end|>", CHATML
    return clone


def ended(tokenizer: Any, text: str) -> Completion:
    return Completion(text, (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id))


def test_a_reply_comes_as_a_tool_message_behind_the_end_token(chatml: Any) -> None:
    ids = encode_reply(chatml, "42", ended(chatml, "f(1)"))
    assert chatml.decode(ids) == "\n<|im_start|>tool\n42<|im_end|>\n<|im_start|>assistant\n"


def test_prompt_turn_and_reply_make_up_what_the_template_makes_of_the_whole_chat(starter: Any) -> None:
    sample, task = Sample("1", "What is 1 + 2?"), Task("t", "math", lambda split: [])
    first = ended(starter, "f(1)")
    chat = [
        {"role": "user", "content": sample.prompt},
        {"role": "assistant", "content": "f(1)"},
        {"role": "tool", "content": "42"},
    ]
    whole = starter.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = [*encode_prompt(starter, sample, task), *first.token_ids, *encode_reply(starter, "42", first)]
    assert starter.decode(ids) == whole


def test_the_end_token_is_added_where_the_policy_has_not_written_it(chatml: Any) -> None:
    cut = Completion("f(1)", tuple(chatml.encode("f(1)", add_special_tokens=False)), finish_reason="length")
    assert chatml.decode(encode_reply(chatml, "42", cut)).startswith("<|im_end|>\n")


def test_a_template_that_knows_no_tool_role_gets_a_user_message(chatml: Any) -> None:
    chatml.chat_template = CHATML.replace(
        "<|im_start|>{{",
        "{% if m['role'] == 'tool' %}{{ raise_exception('no such role') }}{% endif %}<|im_start|>{{",
        1,
    )
    assert "<|im_start|>user\n42" in chatml.decode(encode_reply(chatml, "42", ended(chatml, "a")))


def test_a_template_that_swallows_tool_messages_gets_a_user_message(chatml: Any) -> None:
    chatml.chat_template = CHATML.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] != 'tool' }}")
    assert "<|im_start|>user\n42" in chatml.decode(encode_reply(chatml, "42", ended(chatml, "a")))


def test_a_template_that_takes_no_reply_at_all_is_an_error(chatml: Any) -> None:
    chatml.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(ConfigError, match="takes no reply"):
        encode_reply(chatml, "42", ended(chatml, "a"))


def test_tokenizers_without_a_template_get_the_reply_on_a_line_of_its_own(tokenizer: Any) -> None:
    assert tokenizer.decode(encode_reply(tokenizer, "42", Completion("a"))).replace("<unk>", "|") == "|42|"


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [{"type": "function", "function": TOOL}]])
def test_the_template_shows_the_tools_of_the_sample(chatml: Any, tools: Any) -> None:
    ids = encode_prompt(chatml, Sample("1", "hi", meta={"tools": tools}), SHOWN)
    assert "<|tools|>add " in chatml.decode(ids)


def test_tools_are_not_shown_unless_asked_for(chatml: Any) -> None:
    sample = Sample("1", "hi", meta={"tools": [TOOL]})
    assert "<|tools|>" not in chatml.decode(encode_prompt(chatml, sample, Task("t", "tool-call", lambda split: [])))


def test_a_template_without_tools_is_an_error_not_a_prompt_that_lacks_them(starter: Any) -> None:
    with pytest.raises(ConfigError, match="shows no tools"):
        encode_prompt(starter, Sample("1", "hi", meta={"tools": [TOOL]}), SHOWN)


@pytest.mark.parametrize("tools", [None, "no json", {"name": "add"}, [3]])
def test_a_sample_without_a_list_of_tools_is_an_error_that_names_it(chatml: Any, tools: Any) -> None:
    with pytest.raises(DataError, match="sample `s-7` has no list of `tools`"):
        encode_prompt(chatml, Sample("s-7", "hi", meta={"tools": tools}), SHOWN)
