r"""The formats in which models write calls. `auto` takes that of the first mark (`<tool_call>`, `[TOOL_CALLS]`, ...),
where there is one outside of a call's strings, else whichever is there, in this order.

Only the model's own turn counts, which is what follows its reasoning (`</think>`). One thing that breaks a rule makes
the whole turn malformed: nothing is repaired, and nothing is fished out of it.

**hermes** (Hermes, Qwen): a JSON object with `name` and `arguments` (an object) and nothing else, in a tag. Text around
the tags is fine. A tag in a tag, one that is left open or closes nothing, is not.

    It is warm, I think. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>
    <tool_call>
    {"arguments": {"query": "a </tool_call> in a string is text"}, "name": "f"}
    </tool_call>

**mistral**: text, then `[TOOL_CALLS]` and a list, or a name and `[ARGS]` for each call.

    [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "9pQ7xK2vT"}]
    [TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[CALL_ID]9pQ7xK2vT[ARGS]{}

**deepseek**: a block of calls, each with its name and JSON, which may stand in a fence.

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>

Calls in one format and marks of another beside them (`<tool_call>…</tool_call>[TOOL_CALLS]…`) make the turn
malformed: which calls are made would depend on who reads it.

The others are the whole turn, or one code block that is the whole turn; `<|python_tag|>` may stand before it.

**openai**: a list of calls, the message that has them, or the whole answer of the interface. Arguments are JSON text
of an object, or an object.

    [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]
    {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    [{"name": "f", "arguments": {"a": 1}}]

**llama**: objects with `name` and `parameters`, with a semicolon or a line break between two; or a list of them.

    {"name": "f", "parameters": {"a": 1}}
    <|python_tag|>{"type": "function", "name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}

**bfcl**: a list of objects with one key each, the name; the value is the arguments, or JSON text of them.

    [{"f": {"a": 1}}, {"g": {}}]

**python**: calls with literal arguments; `pythonic` has the rules.

    [f(a=1), g(b="x")]
    f(a=[1, 2], b={"k": None}, c=True)

A turn without any of this holds no call, and so does `[]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..jsontext import Refused, find, read
from .calls import LIMITS, Malformed, Reading, ToolCall, arguments_of, bounded, call_of
from .pythonic import python_calls
from .tagged import deepseek, hermes, mistral
from .tools import Tool

Tools = Mapping[str, Tool]
Reader = Callable[[str, Tools], Reading | None]

_MARKED = {
    "<tool_call>": "hermes",
    "</tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<｜tool▁calls▁begin｜>": "deepseek",
    "<｜tool▁call▁begin｜>": "deepseek",
}
_FENCE = re.compile(r"```[^\n`]*\n([^`]*+(?:`{1,2}(?!`)[^`]*+)*+)```")
_WRAPS = (("<|python_tag|>", ""), ("<|python_start|>", "<|python_end|>"))
_MESSAGE = {"role", "content", "tool_calls", "refusal", "reasoning", "reasoning_content", "annotations", "audio"}
_ENTRY = ("id", "type", "index", "call_id", "status")
_SEVERAL = object()
_PYTHON = re.compile(r"\[\s*+[^\W\d][\w.]*+\s*+\(")


def read_turn(text: str, form: str, tools: Tools) -> Reading:
    """The calls of one turn of a model, reasoning removed, and what it says besides.

    Args:
        text: The turn.
        form: `auto`, or the only format that counts.
        tools: The tools that there are: what looks like a call of one of them is never prose.

    Raises:
        Malformed: A call breaks a rule of its format.
    """
    if len(text) > LIMITS.characters:
        raise Malformed(f"the turn is {len(text):,} characters long; the limit is {LIMITS.characters:,}")
    for reader in _automatic(text, tools) if form == "auto" else (READERS[form],):
        found = reader(text, tools)
        if found is not None:
            if found.calls and (mark := next((mark for mark in _MARKED if mark in found.said), None)):
                raise Malformed(f"there are calls in one format, and a `{mark}` beside them")
            return found
    return Reading((), text)


def _automatic(text: str, tools: Tools) -> list[Reader]:
    """The formats that a turn may be in, in order: that of the first mark, unless all marks are in strings of calls."""
    marked = sorted((at, name) for mark, name in _MARKED.items() if (at := text.find(mark)) >= 0)
    if not marked:
        return [_any_json, _python]
    # A comment of Python could hide what is a call to another reader.
    for reader in (_any_json, _python) if "#" not in text else (_any_json,):
        try:
            if (found := reader(text, tools)) and found.calls:
                return [reader]
        except Malformed:
            continue
    return [READERS[marked[0][1]]]


# --------------------------------------------------------------------------------------------- the whole turn is calls


def _bare(text: str) -> str:
    """A turn without the fence or the tags around all of it."""
    text = text.strip()
    for before, after in _WRAPS:
        if text.startswith(before) and text.endswith(after):
            text = text[len(before) : len(text) - len(after)].strip()
    if text.startswith("```") and (fence := _FENCE.fullmatch(text)):
        text = fence[1].strip()
    return text


def _json(text: str, tools: Tools) -> Any:
    """The JSON value that a turn is, `_SEVERAL` where another follows, or None.

    Raises:
        Malformed: It is none, and was meant to be calls.
    """
    if not text.startswith(("[", "{")) or _PYTHON.match(text):
        return None
    try:
        return read(text, limits=LIMITS)
    except Refused as problem:
        if problem.rule == "two-values":
            return _SEVERAL
        if any(f'"{name}"' in text for name in tools):
            raise Malformed(f"it is not JSON: {problem}") from None
        return None


def _no_form(text: str, tools: Tools) -> None:
    """Refuses JSON that is in no form and names a tool all the same.

    Raises:
        Malformed: It does.
    """
    for name in tools:
        if f'"{name}"' in text:
            raise Malformed(f"it names `{name}` in JSON that is in no form of a call")


def _openai(text: str, tools: Tools) -> Reading | None:
    text = _bare(text)
    return _openai_value(_json(text, tools), text, tools)


def _openai_value(value: Any, text: str, tools: Tools) -> Reading | None:
    said = ""
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        choices = value["choices"]
        if len(choices) != 1 or not isinstance(choices[0], dict) or not isinstance(choices[0].get("message"), dict):
            raise Malformed("`choices` must hold one choice with a `message`")
        value = choices[0]["message"]
    if isinstance(value, dict) and ("tool_calls" in value or "role" in value):
        if not value.keys() <= _MESSAGE or value.get("role", "assistant") != "assistant":
            _no_form(text, tools)
            return None
        content = value.get("content")
        if content is not None and not isinstance(content, str):
            raise Malformed("the `content` of the message is no text")
        said, value = content or "", value.get("tool_calls") or []
        if not isinstance(value, list):
            raise Malformed("`tool_calls` is no list")
    elif isinstance(value, dict):
        value = [value]
    elif value == []:
        return Reading((), text)
    if not isinstance(value, list):
        if value is not None:
            _no_form(text, tools)
        return None
    if value and not all(isinstance(one, dict) and ("function" in one or "arguments" in one) for one in value):
        _no_form(text, tools)
        return None
    return Reading(bounded([_entry(one) for one in value]), said)


def _entry(value: dict[str, Any]) -> ToolCall:
    if value.get("type", "function") not in ("function", "function_call"):
        raise Malformed("the `type` of a call is not `function`")
    if "function" not in value:
        return call_of(value, "a call", others=_ENTRY, as_text=True)
    for key in value:
        if key != "function" and key not in _ENTRY:
            raise Malformed(f"a call has a key that no call has: `{key[:60]}`")
    return call_of(value["function"], "the `function` of a call", as_text=True)


def _llama(text: str, tools: Tools) -> Reading | None:
    text = _bare(text)
    if not text.startswith(("{", "[")):
        return None
    try:
        spans = find(text, limits=LIMITS)
    except Refused as problem:
        raise Malformed(str(problem)) from None
    edges = zip([0, *(span.stop for span in spans)], [*(span.start for span in spans), len(text)], strict=True)
    between = [text[stop:start].strip() for stop, start in edges]
    values = [span.value for span in spans]
    if any(gap not in ("", ";") for gap in between) or any(span.problem for span in spans):
        _no_form(text, tools)
        return None
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    return _llama_values(values, text, tools)


def _llama_values(values: list[Any], text: str, tools: Tools) -> Reading | None:
    if not values or not all(isinstance(value, dict) and "parameters" in value for value in values):
        _no_form(text, tools)
        return None
    if any(value.get("type", "function") != "function" for value in values):
        raise Malformed("the `type` of a call is not `function`")
    return Reading(bounded([call_of(v, "a call", arguments_key="parameters", others=("type",)) for v in values]))


def _bfcl(text: str, tools: Tools) -> Reading | None:
    text = _bare(text)
    return _bfcl_value(_json(text, tools), text, tools)


def _bfcl_value(value: Any, text: str, tools: Tools) -> Reading | None:
    if value == []:
        return Reading((), text)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        if value is not None:
            _no_form(text, tools)
        return None
    if not any(name in tools for one in value for name in one):
        return None
    calls = []
    for one in value:
        if len(one) != 1:
            raise Malformed(f"an object of the list has {len(one)} keys; a call has one, its name")
        [(name, arguments)] = one.items()
        calls.append(ToolCall(name, arguments_of(arguments, f"what `{name[:60]}` is called with", as_text=True)))
    return Reading(bounded(calls))


def _any_json(text: str, tools: Tools) -> Reading | None:
    """Whichever of the JSON forms a turn is in."""
    text = _bare(text)
    value = _json(text, tools)
    if value is _SEVERAL:
        return _llama(text, tools)
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict):
        if value:
            _no_form(text, tools)
        return None
    if isinstance(value, list) and any(isinstance(one, dict) and one.keys() & tools.keys() for one in value):
        return _bfcl_value(value, text, tools)
    if "parameters" in first and "function" not in first:
        return _llama_values(value if isinstance(value, list) else [value], text, tools)
    return _openai_value(value, text, tools)


def _python(text: str, tools: Tools) -> Reading | None:
    text = _bare(text)
    calls = python_calls(text, tools)
    return None if calls is None else Reading(bounded(calls), "" if calls else text)


READERS: dict[str, Reader] = {
    "hermes": hermes,
    "mistral": mistral,
    "deepseek": deepseek,
    "openai": _openai,
    "llama": _llama,
    "bfcl": _bfcl,
    "python": _python,
}
"""How each format is read: the turn and the tools in, None out where the turn holds no call in that format."""

FORMATS = ("auto", *READERS)
