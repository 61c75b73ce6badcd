"""A call as a model wrote it, and what reading a turn of a model gives."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..jsontext import Limits, Refused, read

MOST_CALLS = 128
"""Calls in one turn."""

LIMITS = Limits(characters=200_000, depth=32, values=20_000)
"""Of one turn, and of the JSON in it."""


class Malformed(Exception):
    """What the model wrote is meant to be a call and breaks a rule of the format. As text, it says which."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call: the tool's name, and JSON values by parameter."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a turn says.

    Attributes:
        calls: Its calls, in order.
        said: The text that is no part of a call.
    """

    calls: tuple[ToolCall, ...]
    said: str = ""


def json_in(text: str, where: str) -> Any:
    """The JSON value that a piece of a turn is.

    Raises:
        Malformed: It is none.
    """
    try:
        return read(text, limits=LIMITS)
    except Refused as problem:
        raise Malformed(f"{where} is not JSON: {problem}") from None


def call_of(
    value: Any,
    where: str,
    name_key: str = "name",
    arguments_key: str = "arguments",
    others: Collection[str] = (),
    as_text: bool = False,
) -> ToolCall:
    """The call in an object with a name and arguments, and no other keys than `others`.

    Args:
        value: The object.
        where: What to call it in a message.
        name_key, arguments_key: Its keys.
        others: Keys that may be there besides and say nothing.
        as_text: Whether the arguments may be JSON text of an object.

    Raises:
        Malformed: It is something else.
    """
    if not isinstance(value, dict):
        raise Malformed(f"{where} is no object")
    for key in (name_key, arguments_key):
        if key not in value:
            raise Malformed(f"{where} has no `{key}`")
    if len(value) > 2:
        for key in value:
            if key not in (name_key, arguments_key, *others):
                raise Malformed(f"{where} has a key that no call has: `{key[:60]}`")
    name, arguments = value[name_key], value[arguments_key]
    if not isinstance(name, str):
        raise Malformed(f"the `{name_key}` of {where} is no text")
    return ToolCall(name, arguments_of(arguments, f"the `{arguments_key}` of {where}", as_text))


def arguments_of(value: Any, where: str, as_text: bool = False) -> dict[str, Any]:
    """Arguments by parameter.

    Raises:
        Malformed: They are no object, nor JSON text of one where that is allowed.
    """
    if as_text and isinstance(value, str):
        value = json_in(value, where)
    if not isinstance(value, dict):
        raise Malformed(f"{where} must be an object, and nothing else")
    return value


def bounded(calls: list[ToolCall]) -> tuple[ToolCall, ...]:
    """The calls, when they are not too many.

    Raises:
        Malformed: They are.
    """
    if len(calls) > MOST_CALLS:
        raise Malformed(f"there are {len(calls)} calls in one turn; the limit is {MOST_CALLS}")
    return tuple(calls)
