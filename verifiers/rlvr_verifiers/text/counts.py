"""What is counted as a word, a sentence, a paragraph, a line, a letter.

word        A run of letters, digits and marks; an apostrophe inside joins (`don't` is one), a hyphen does not
            (`well-known` is two). In Chinese and Japanese each ideograph and each kana is one. Thai, Lao, Khmer and
            Burmese do not mark words: there, a run between blanks is one.
sentence    Text with a letter in it, up to `.`, `!`, `?`, `…` or their like in other scripts (closing quotes and
            brackets included), or to the end of its block. A block is a heading, an item of a list or a paragraph. No
            end: a full stop inside a number or word, behind a title (`Dr.`), a single capital (`J. Smith`) or the
            number of a list's item; and any mark with a small letter behind it, unless the text has no capitals at
            all.
paragraph   Lines between blank ones, one of them with a letter or digit.
line        One with something to see in it.
character   What a reader sees as one, white space at both ends of the text left out: a letter with its marks.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

from .seen import marks, unstacked

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CJK_SIGN = re.compile(f"[{_CJK}]")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")

_END = re.compile(
    r"(?<=\S)[.!?\u2026\u203d\u06d4\u061f\u0964\u0965\u1362]+[\"'\u201d\u2019\u00bb)\]*_]*(?=\s|\Z)"
    r"|[\u3002\uff01\uff1f\uff0e\uff61]+[\u300d\u300f\u201d\u2019\uff09)\]\"]*"
)
_LETTER = re.compile(r"[^\W\d_]")
_BLOCK = re.compile(r"\s*(?:[-*+\u2022]\s|#{1,6}\s|\d{1,3}[.)]\s|>|\|)")
_HEADING = re.compile(r"\s*#{1,6}\s")
_ITEM = re.compile(r"\s*(?:[-*+\u2022>#|\s]*)(?:\d{1,3}[.)]\s+)?")
_TITLES = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "rev",
        "gen",
        "col",
        "capt",
        "lt",
        "sgt",
        "hon",
        "fr",
        "vs",
        "cf",
        "no",
        "nos",
        "fig",
        "figs",
        "eq",
        "vol",
        "pp",
        "approx",
        "e.g",
        "i.e",
        "viz",
        "ca",
    ]
)
_MAY_END = frozenset(
    [
        "etc",
        "inc",
        "ltd",
        "co",
        "corp",
        "jr",
        "sr",
        "bros",
        "dept",
        "est",
        "min",
        "max",
        "a.m",
        "p.m",
        "u.s",
        "u.k",
        "u.n",
        "ph.d",
    ]
)


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return _ASCII_WORD.findall(text) if text.isascii() else _word().findall(text)


@functools.cache
def _word() -> re.Pattern[str]:
    letter = f"[^\\W_{_CJK}]"
    return re.compile(f"[{_CJK}][{marks()}]*|{letter}(?:{letter}|[{marks()}])*(?:['\u2019](?:{letter}|[{marks()}])+)*")


def sentences(text: str, limit: int = 100_000) -> int:
    """How many sentences a text has; counting stops at about `limit`."""
    cased, count = any(map(str.isupper, text)), 0
    for block in _blocks(text):
        count += _sentences(block, cased, limit - count)
        if count >= limit:
            break
    return count


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, items of lists and headings."""
    lines: list[str] = []
    for line in text.split("\n"):
        blank = not line or line.isspace()
        if lines and (blank or _BLOCK.match(line) or _HEADING.match(lines[-1])):
            yield "\n".join(lines)
            lines = []
        if not blank:
            lines.append(line)
    if lines:
        yield "\n".join(lines)


def _sentences(block: str, cased: bool, limit: int) -> int:
    count, opening = 0, _ITEM.match(block)
    start = opening.end() if opening else 0
    for found in _END.finditer(block, start):
        if _ends(block, found, cased):
            count += _lettered(block, start, found.end())
            start = found.end()
            if count >= limit:
                return count
    return count + _lettered(block, start, len(block))


def _ends(block: str, found: re.Match[str], cased: bool) -> bool:
    """Whether a mark ends a sentence."""
    after = _next(block, found.end())
    if not after:
        return True
    if cased and after.islower() and found[0][0] < "\u3000":
        return False
    if found[0] != ".":
        return True
    at = found.start()
    if cased and block[at - 1].isupper() and (at == 1 or block[at - 2].isspace()):
        return block[at - 1] == "I"
    before = block[max(0, at - 12) : at].split()
    word = before[-1].lstrip("([*_\"'\u201c\u2018") if before else ""
    name = word.casefold()
    return name not in _TITLES and (name not in _MAY_END or (cased and after.isupper()))


def _next(block: str, start: int) -> str:
    """The first character behind a mark that is neither blank nor an opening quote or bracket; a few are looked at."""
    if block[start + 1 : start + 2].isalnum():
        return block[start + 1]
    for character in block[start : start + 12]:
        if not character.isspace() and character not in "\"'([*_\u201c\u2018\u00ab":
            return character
    return ""


def _lettered(text: str, start: int, end: int) -> bool:
    return _LETTER.search(text, start, end) is not None


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, in order."""
    found: list[str] = []
    lines: list[str] = []
    for line in [*text.split("\n"), ""]:
        if line and not line.isspace():
            lines.append(line)
        elif lines:
            paragraph = "\n".join(lines)
            if any(map(str.isalnum, paragraph)):
                found.append(paragraph)
            lines = []
    return found


def lines(text: str) -> int:
    """How many lines have something in them."""
    return sum(1 for line in text.split("\n") if line and not line.isspace())


def characters(text: str) -> int:
    """How many characters a reader sees, blanks between words included."""
    text = text.strip()
    if text.isascii():
        return len(text)
    text = unicodedata.normalize("NFC", unstacked(text))
    return len(text) - len(_mark().findall(text))


@functools.cache
def _mark() -> re.Pattern[str]:
    return re.compile(f"[{marks()}]")


def occurrences(needle: str, text: str, limit: int, whole: bool = False) -> int:
    """How often `needle` occurs in `text` without overlaps, at most `limit`.

    Args:
        needle, text: Both folded alike.
        limit: Where to stop counting.
        whole: Whether only whole words count: no letter, digit or mark right before or after. In Chinese and Japanese,
            which do not part words, everything counts.
    """
    if not needle:
        return 0
    if not whole or _CJK_SIGN.search(needle):
        return min(limit, text.count(needle))
    if needle.isalnum():
        return min(limit, _runs(text.isascii()).findall(text).count(needle))
    count, start = 0, 0
    while count < limit and (at := text.find(needle, start)) >= 0:
        end = at + len(needle)
        if not _joins(text[at - 1 : at], needle[0]) and not _joins(text[end : end + 1], needle[-1]):
            count, start = count + 1, end
        else:
            start = at + 1
    return count


@functools.cache
def _runs(ascii_only: bool) -> re.Pattern[str]:
    return re.compile("[A-Za-z0-9]+" if ascii_only else f"[^\\W_](?:[^\\W_]|[{marks()}])*")


def _joins(neighbour: str, edge: str) -> bool:
    """Whether a neighbouring character is of the same word as the edge of what was found."""
    return bool(neighbour) and _of_word(neighbour) and _of_word(edge)


def _of_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")
