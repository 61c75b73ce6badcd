r"""The last `\boxed{...}` of a text, braces matched, in one pass however many there are."""

from __future__ import annotations

import re
from typing import NamedTuple

from .tree import MAX_DEPTH


class _Box(NamedTuple):
    """Where a box begins, where its brace opens, and where that closes."""

    begin: int
    brace: int
    end: int


_BRACES = re.compile(r"\\(?:boxed|fbox)\s*|\\[{}\\]|[{}]")
_JOINT = re.compile(
    r"(?:[\s*.,;:&$]|\\[,;:! \\()\[\]]|\\q?quad\b|\\(?:text|mbox|mathrm) ?\{\s*(?:or|and)?\s*\}|\b(?:or|and)\b)*",
    re.IGNORECASE,
)
_BARE = re.compile(r"\\[a-zA-Z]+|-?[\w.]+")

NEVER_CLOSED = "the last box was never closed"


def last_box(text: str) -> tuple[str | None, str] | None:
    r"""What stands in the last outermost box, and the rule; None when there is no `\boxed` at all."""
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if last < 0:
        return None
    if text.count("\\boxed") + text.count("\\fbox") > 1:
        boxes = _closed_boxes(text)
        if boxes and last < boxes[-1].end:
            return _joined(text, boxes), "boxed"
    if text.startswith("\\boxed{", last):  # the usual box has nothing in it that takes braces
        end = text.find("}", last)
        content = text[last + 7 : end]
        if end > 0 and "{" not in content and "\\" not in content:
            return content.strip(), "boxed"
    start, end = _box_at(text, last)
    if not text.startswith("{", start):
        bare = _BARE.match(text, start)
        return bare.group() if bare else None, "boxed"
    if end < 0:
        return None, NEVER_CLOSED
    return _unwrapped(text[start + 1 : end]), "boxed"


def _unwrapped(content: str) -> str:
    """What stands in a box, without boxes around all of it."""
    content = content.strip()
    for _ in range(MAX_DEPTH):
        start, end = _box_at(content, 0)
        if not start or end != len(content) - 1:
            break
        content = content[start + 1 : end].strip()
    return content


def _joined(text: str, boxes: list[_Box]) -> str:
    """The last box, together with those before it that nothing but a joint divides from it."""
    contents, either = {_unwrapped(text[boxes[-1].brace + 1 : boxes[-1].end]): None}, False
    for before, after in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        joint = text[before.end + 1 : after.begin]
        if not _JOINT.fullmatch(joint) or ("$" in joint and "or" not in joint.lower()):
            break
        content = _unwrapped(text[before.brace + 1 : before.end])
        if content and content not in contents:
            contents[content] = None
            either = either or "or" in joint.lower()
    return (" or " if either else ", ").join(reversed(contents))


def _box_at(text: str, at: int) -> tuple[int, int]:
    r"""Where the brace after `\boxed` at `at` is (0 when no box is there), and where its partner is (-1: nowhere)."""
    opening = _BRACES.match(text, at)
    if opening is None or not opening.group().startswith(("\\b", "\\f")):
        return 0, -1
    depth = 0
    for brace in _BRACES.finditer(text, opening.end()):
        if brace.group() == "{":
            depth += 1
        elif brace.group() == "}":
            depth -= 1
            if depth == 0:
                return opening.end(), brace.start()
    return opening.end(), -1


def _closed_boxes(text: str) -> list[_Box]:
    """The closed boxes that are in no other closed box, in one pass, so that a flood of open boxes stays linear."""
    found: list[_Box] = []
    open_boxes: list[tuple[int, int]] = []  # for each open brace, where its box began (or -1), and where it is
    pending = -1
    for mark in _BRACES.finditer(text):
        token = mark.group()
        if token.startswith(("\\b", "\\f")):
            pending = mark.start() if text.startswith("{", mark.end()) else -1
        elif token == "{":
            open_boxes.append((pending, mark.start()))
            pending = -1
        elif token == "}" and open_boxes:
            begin, brace = open_boxes.pop()
            if begin >= 0:
                while found and found[-1].begin > begin:
                    found.pop()
                found.append(_Box(begin, brace, mark.start()))
    return found
