"""Values and text of a program as they are shown in a verdict: short, on one line, whatever they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlvr import Opaque

LIMIT = 200
"""Characters of one value or text that are shown."""

_DEPTH, _ITEMS = 6, 40


def shown(value: Any, limit: int = LIMIT) -> str:
    """A plain value as Python would write it, cut."""
    parts: list[str] = []
    _write(value, parts, [limit], 0)
    return one_line("".join(parts), limit)


def shown_text(text: str, limit: int = LIMIT) -> str:
    """Text as it is, in back-ticks, cut, on one line."""
    text = text.strip("\n")
    return f"`{one_line(text, limit)}`" if text.strip() else "nothing"


def one_line(text: str, limit: int = LIMIT) -> str:
    """The text on one line, without what a terminal or a file could not take."""
    cut = text[: limit + 1] if len(text) > limit + 1 else text
    clean = "".join(_CONTROL.get(c) or (c if c.isprintable() else _escaped(c)) for c in cut)
    return clean if len(text) <= limit else f"{clean[: limit - 1]}…"


_CONTROL = {"\n": "⏎", "\t": " "}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def tail(text: str, limit: int = LIMIT) -> str:
    """The end of a text, which is where errors are."""
    text = text.strip()
    return one_line(text if len(text) <= limit else "…" + text[-limit:], limit + 1)


def _write(value: Any, parts: list[str], room: list[int], depth: int) -> None:
    if room[0] <= 0:
        return
    if isinstance(value, (list, tuple, set, frozenset)) and value:
        before, after = _BRACKETS[next(kind for kind in _BRACKETS if isinstance(value, kind))]
        _add(before, parts, room)
        _rows([(item,) for item in _some(value)], len(value), parts, room, depth)
        _add(",)" if isinstance(value, tuple) and len(value) == 1 else after, parts, room, force=True)
    elif isinstance(value, Mapping) and value:
        _add("{", parts, room)
        _rows(list(_some(value.items())), len(value), parts, room, depth)
        _add("}", parts, room, force=True)
    else:
        _add(_atom(value), parts, room)


_BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: ("frozenset({", "})")}


def _rows(rows: list[tuple[Any, ...]], total: int, parts: list[str], room: list[int], depth: int) -> None:
    if depth >= _DEPTH:
        _add("…", parts, room)
        return
    for i, row in enumerate(rows):
        if i:
            _add(", ", parts, room)
        for j, item in enumerate(row):
            if j:
                _add(": ", parts, room)
            _write(item, parts, room, depth + 1)
    if total > len(rows):
        _add(", …", parts, room)


def _some(values: Any) -> list[Any]:
    found = []
    for value in values:
        found.append(value)
        if len(found) == _ITEMS:
            break
    return found


def _add(text: str, parts: list[str], room: list[int], force: bool = False) -> None:
    if room[0] > 0 or force:
        parts.append(text)
        room[0] -= len(text)


def _atom(value: Any) -> str:
    if isinstance(value, Opaque):
        return f"<{str(value.type)[:60]} object>"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1000:
        digits = int(value.bit_length() * math.log10(2)) + 1
        return f"<an integer of about {digits:,} digits>"
    if isinstance(value, (str, bytes, bytearray)):
        return repr(value[: LIMIT + 2])
    if isinstance(value, (bool, int, float, complex, type(None))):
        return repr(value)
    try:
        return repr(value)[: 2 * LIMIT] if not hasattr(value, "__len__") or len(value) < 1000 else type(value).__name__
    except Exception:
        return f"<{type(value).__name__}>"
