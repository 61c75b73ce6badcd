"""The format `<think>…</think><answer>…</answer>`: each tag exactly once, in order, and nothing hidden.

Holds when, of the names asked for, the completion has `<name>` and `</name>` once each, in that order, one pair
behind the other, with something to see inside of each pair and nothing but white space outside of all. Whatever looks
like one of these tags counts as one: another case, blanks or attributes inside, letters with invisible characters
between them or look-alikes. Since only the exact spelling is right, such a tag is a breach wherever it stands:
nested, repeated or inside of another pair's content.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from .seen import fold, shown, unmasked, unstacked, visible

_BRACKETS = str.maketrans("\uff1c\uff1e\uff0f\u2039\u203a\u2044\u2215\u27e8\u27e9", "<>/<>//<>")


def breach(text: str, names: Sequence[str], *, outside: bool = False, opened: bool = False) -> str:
    """What is wrong with the structure of a completion; nothing where it is right.

    Args:
        text: The completion as written.
        names: The tags in their order.
        outside: Whether text may stand before, between and behind the pairs.
        opened: Whether the prompt has already opened the first tag, so that the completion begins inside of it.
    """
    wanted = [tag for name in names for tag in (f"<{name}>", f"</{name}>")]
    if opened and text.lstrip().startswith(wanted[0]):
        return f"`{wanted[0]}` was opened before it, and is there again"
    where = [found.start() for found in _tags(tuple(names)).finditer(_as_seen(text))]
    given = wanted[1:] if opened else wanted
    found = [(match[0], match.start(), match.end()) for match in _exact(tuple(names)).finditer(text)]
    spelled = [tag for tag, _, _ in found]
    if spelled != given:
        return _misplaced(spelled, given)
    if len(where) != len(given):
        return "there is something that looks like one of its tags and is spelled differently"
    start = 0
    for index, (tag, opening, closing) in enumerate(found):
        between = text[start:opening]
        inside = tag.startswith("</")
        if inside and not _something(between):
            return f"there is nothing in `<{tag[2:]}`"
        if not inside and not outside and _something(between, strict=True):
            return f"`{shown(between, 40)}` stands outside of the tags, before number {index + 1}, `{tag}`"
        start = closing
    rest = text[start:]
    return f"`{shown(rest, 40)}` follows the last tag" if not outside and _something(rest, strict=True) else ""


def inside(text: str, name: str) -> str | None:
    """What stands in the only pair of tags `name`; None where there is no pair or more than one."""
    opening, closing = f"<{name}>", f"</{name}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    start, end = text.index(opening) + len(opening), text.index(closing)
    return text[start:end] if start <= end else None


def _as_seen(text: str) -> str:
    text = visible(text)
    if not text.isascii():
        text = unmasked(unstacked(text)).translate(_BRACKETS)
    return text


def _something(text: str, *, strict: bool = False) -> bool:
    """Whether there is something to see; with `strict`, whether there is anything but white space."""
    return bool(text.strip()) if strict else bool(visible(text).strip())


def _misplaced(spelled: Sequence[str], given: Sequence[str]) -> str:
    for tag in given:
        if tag not in spelled:
            return f"`{tag}` is missing"
    for tag in given:
        if (count := spelled.count(tag)) > 1:
            return f"`{tag}` is there {count} times"
    return f"the tags come as `{''.join(spelled[:8])}`, not `{''.join(given)}`"


@functools.lru_cache(maxsize=64)
def _exact(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("</?(?:" + "|".join(map(re.escape, names)) + ")>")


@functools.lru_cache(maxsize=64)
def _tags(names: tuple[str, ...]) -> re.Pattern[str]:
    """What looks like one of the tags."""
    either = "|".join(re.escape(fold(name)) for name in names)
    return re.compile(rf"<[ \t\n]{{0,4}}/?[ \t\n]{{0,4}}(?:{either})(?![\w-])[^<>]{{0,200}}>", re.IGNORECASE)
