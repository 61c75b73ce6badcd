"""Words for what a JSON schema does not allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .jsontext import shown

Path = tuple[str | int, ...]
"""Keys and indexes that lead to a place in a value."""


def spelled(path: Path) -> str:
    """A path such as `$.items[0].name`."""
    parts = []
    for part in path:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        else:
            parts.append(f".{part}" if part.isidentifier() and len(part) <= 80 else f"[{shown(part)}]")
    return "$" + "".join(parts)


_TYPES = {
    "array": "an array",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "text",
}


def type_name(types: Any) -> str:
    """What values of a `type` are called."""
    return " or ".join(_TYPES.get(name, str(name)) for name in ([types] if isinstance(types, str) else types))


_WORDS: Mapping[str, str] = {
    "const": "is {value}, not {limit}",
    "multipleOf": "is {value}, no multiple of {limit}",
    "maximum": "is {value}, more than {limit}",
    "minimum": "is {value}, less than {limit}",
    "exclusiveMaximum": "is {value}, not less than {limit}",
    "exclusiveMinimum": "is {value}, not more than {limit}",
    "maxLength": "is {value}, longer than {limit} characters",
    "minLength": "is {value}, shorter than {limit} characters",
    "pattern": "is {value}, which does not match {limit}",
    "format": "is {value}, no valid {limit}",
    "maxItems": "has {count} items, more than {limit}",
    "minItems": "has {count} items, fewer than {limit}",
    "uniqueItems": "holds the same item twice",
    "maxProperties": "has {count} members, more than {limit}",
    "minProperties": "has {count} members, fewer than {limit}",
}


def message_for(keyword: str, limit: Any, value: Any) -> str:
    """What is wrong with a value that breaks a keyword, in words that follow its path."""
    if keyword == "enum":
        listed = ", ".join(shown(one, 30) for one in limit[:5]) + (", …" if len(limit) > 5 else "")
        return f"is {shown(value)}, none of {listed}"
    count = len(value) if isinstance(value, dict | list) else 0
    words = _WORDS.get(keyword, "is {value}, which `" + keyword + "` does not allow")
    return words.format(value=shown(value), limit=shown(limit), count=count)
