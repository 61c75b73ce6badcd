"""Formats whose calls stand between marks in text: Hermes', Mistral's and DeepSeek's. `formats` has the rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .calls import Malformed, Reading, ToolCall, arguments_of, bounded, call_of, json_in
from .tools import Tool

Tools = Mapping[str, Tool]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_STRING = r'"(?:[^"\\]++|\\.)*+"?+'
_IN_HERMES = re.compile(_STRING + r"|(?P<mark></?tool_call>)", re.DOTALL)
_IN_MISTRAL = re.compile(_STRING + r"|(?P<mark>\[TOOL_CALLS\])", re.DOTALL)
_IN_DEEPSEEK = re.compile(_STRING + r"|(?P<mark><｜tool▁call▁end｜>)", re.DOTALL)

_CALLS, _ARGS, _CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL_BEGIN, _CALL_END, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"


def _mark(text: str, at: int, marks: re.Pattern[str]) -> re.Match[str] | None:
    """The first mark from `at` on that is in no JSON string."""
    for match in marks.finditer(text, at):
        if match.lastgroup:
            return match
    return None


def hermes(text: str, tools: Tools) -> Reading | None:
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them."""
    if _OPEN not in text and _CLOSE not in text:
        return None
    calls: list[ToolCall] = []
    said: list[str] = []
    at = 0
    while True:
        start = text.find(_OPEN, at)
        outside = text[at : start if start >= 0 else len(text)]
        if _CLOSE in outside:
            raise Malformed(f"a `{_CLOSE}` closes nothing")
        said.append(outside)
        if start < 0:
            return Reading(bounded(calls), " ".join(said))
        body = start + len(_OPEN)
        end = _mark(text, body, _IN_HERMES)
        if end is None:
            raise Malformed(f"a `{_OPEN}` is left open")
        if end[0] == _OPEN:
            raise Malformed(f"a `{_OPEN}` is inside of another")
        at = end.end()
        calls.append(call_of(json_in(text[body : end.start()], "what is in the tag"), "what is in the tag"))


def mistral(text: str, tools: Tools) -> Reading | None:
    """`[TOOL_CALLS]` and a list of calls, or before each call with its name and `[ARGS]`."""
    said, mark, rest = text.partition(_CALLS)
    if not mark:
        return None
    if rest.lstrip().startswith("["):
        value = json_in(rest, f"what follows `{_CALLS}`")
        return Reading(bounded([call_of(one, "a call", others=("id",), as_text=True) for one in value]), said)
    calls = []
    at = 0
    while True:
        end = _mark(rest, at, _IN_MISTRAL)
        piece = rest[at : end.start() if end else len(rest)]
        head, found, arguments = piece.partition(_ARGS)
        if not found:
            raise Malformed(f"a call has no `{_ARGS}`")
        name = head.partition(_CALL_ID)[0]
        calls.append(ToolCall(name, _arguments(arguments, name)))
        if end is None:
            return Reading(bounded(calls), said)
        at = end.end()


def deepseek(text: str, tools: Tools) -> Reading | None:
    """A block of calls with a name, `<｜tool▁sep｜>` and JSON each."""
    said, mark, rest = text.partition(_BEGIN)
    if not mark:
        if _CALL_BEGIN in text:
            raise Malformed(f"there is no `{_BEGIN}`")
        return None
    calls = []
    rest = rest.lstrip()
    while rest.startswith(_CALL_BEGIN):
        end = _mark(rest, len(_CALL_BEGIN), _IN_DEEPSEEK)
        if end is None:
            raise Malformed("a call is left open")
        head, found, body = rest[len(_CALL_BEGIN) : end.start()].partition(_SEP)
        if not found:
            raise Malformed(f"a call has no `{_SEP}`")
        if head.strip() == "function" and "```json\n" in body:  # the older form: function, name, fence
            head, _, body = body.partition("```json\n")
            body = body.strip()
            if not body.endswith("```"):
                raise Malformed("the fence of a call is left open")
            body = body[:-3]
        calls.append(ToolCall(head.removesuffix("\n"), _arguments(body, head)))
        bounded(calls)
        rest = rest[end.end() :].lstrip()
    if not calls or not rest.startswith(_END):
        raise Malformed(f"there is no `{_END}` behind the calls")
    return Reading(bounded(calls), said + rest[len(_END) :])


def _arguments(text: str, name: str) -> dict[str, Any]:
    where = f"what `{name[:60]}` is called with"
    return arguments_of(json_in(text, where), where)
