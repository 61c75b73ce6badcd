"""What of a text a reader sees, and how two spellings of it are compared.

A rule that demands something looks at what a reader sees; a rule that forbids or limits something looks at all that may
be seen. So nothing is gained by hiding text from one of them:

    seen     without invisible characters (zero-width, soft hyphens, direction marks, controls, tags) and without HTML
             comments and `[//]: # (comments)` outside of code blocks
    every    without invisible characters, comments kept, HTML's `&#44;` as the comma that it shows; where most letters
             are Latin, Cyrillic and Greek letters that look like Latin ones are read as these

`fold` makes spellings comparable: NFKC, case, white space, typographic quotes and dashes.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

LIMIT = 1_000_000
"""Characters of a completion that are judged; a longer one holds no rule."""

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]+"
)
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_BLANK = re.compile("[\u2800\x1f]")
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)
_NOTE = re.compile(r"^ {0,3}\[//\]: #[^\n]*", re.MULTILINE)
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0410\u0412\u0415\u041a\u041c"
    "\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d"
    "\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03bd\u03b9\u03c1\u03c5\u03b1\u0261\u0131\u0251",
    "aeopcyxijshdqwABEKMHOPCTYXIJSABEZHIKMNOPTYXovipuagia",
)
_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f\u0251\u0261\u0131]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_TYPOGRAPHY = tuple(
    zip(
        "\u2018\u2019\u201a\u201b\u02bc\u201c\u201d\u201e\u201f\u2010\u2011\u2012\u2013\u2014\u2212",
        "'''''\"\"\"\"------",
        strict=True,
    )
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_PHRASES = re.compile("[\ufdfa\ufdfb]")
"""Single signs that NFKC would write out as whole phrases; they stay one sign."""

_STACK = 8
"""Marks on one letter that are kept: more are no spelling, and normalising long runs takes quadratic time."""


class View:
    """A text and its readings, each made when it is first asked for."""

    def __init__(self, raw: str) -> None:
        self.raw = raw

    @functools.cached_property
    def plain(self) -> str:
        """The text without invisible characters; lines end with a line feed."""
        return visible(self.raw)

    @functools.cached_property
    def seen(self) -> str:
        """What a reader sees."""
        return uncommented(self.plain)

    @functools.cached_property
    def every(self) -> str:
        """All that may be seen, letters as they look."""
        if "&" in self.raw:
            return unmasked(visible(_ENTITY.sub(lambda found: html.unescape(found[0]), self.raw)))
        return unmasked(self.plain)

    @functools.cached_property
    def folded_seen(self) -> str:
        return fold(self.seen)

    @functools.cached_property
    def folded_every(self) -> str:
        return fold(self.every)

    @property
    def blank(self) -> bool:
        """Whether there is nothing to see."""
        return not self.seen or self.seen.isspace()

    def reading(self, demanding: bool) -> str:
        """`seen` for a rule that demands something, `every` for one that forbids or limits it."""
        return self.seen if demanding else self.every

    def folded(self, demanding: bool) -> str:
        """The same, folded."""
        return self.folded_seen if demanding else self.folded_every


def visible(text: str) -> str:
    """`text` without invisible characters, with line feeds for all that ends a line."""
    if not text.isascii() or not text.isprintable():
        text = _LINE_END.sub("\n", text)
        text = _INVISIBLE.sub("", text)
        text = _BLANK.sub(" ", text)
    return text


def uncommented(text: str) -> str:
    """`text` without comments outside of code blocks. A comment that is never closed is text."""
    if "<!--" not in text and "[//]:" not in text:
        return text
    return outside_code(text, lambda prose: _NOTE.sub("", _without_html_comments(prose)))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with what is not in a fenced code block changed."""
    pieces: list[str] = []
    start, fence = 0, ""
    for found in _FENCE.finditer(text):
        if not fence:
            pieces.append(change(text[start : found.start()]))
            start, fence = found.start(), found[1]
        elif found[1] == fence:
            pieces.append(text[start : found.end()])
            start, fence = found.end(), ""
    pieces.append(text[start:] if fence else change(text[start:]))
    return "".join(pieces)


def _without_html_comments(text: str) -> str:
    pieces: list[str] = []
    start = 0
    while (opening := text.find("<!--", start)) >= 0 and (closing := text.find("-->", opening + 4)) >= 0:
        pieces.append(text[start:opening])
        start = closing + 3
    return "".join([*pieces, text[start:]])


def unmasked(text: str) -> str:
    """`text` with letters that look like Latin ones read as these, where most letters are Latin."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", unstacked(text))
    letters = Counter(text)
    foreign = sum(count for letter, count in letters.items() if _FOREIGN.match(letter))
    if foreign and sum(count for letter, count in letters.items() if _LATIN.match(letter)) > foreign:
        text = text.translate(_LOOKALIKES)
    return text


def fold(text: str, case: bool = False) -> str:
    """A spelling to compare: NFKC, white space as single blanks, plain quotes and dashes, and no case unless `case`."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unstacked(text))
        for typographic, plain in _TYPOGRAPHY:
            text = text.replace(typographic, plain)
    return " ".join((text if case else text.casefold()).split())


def unstacked(text: str) -> str:
    """`text` with at most `_STACK` marks on one letter, and no sign that is a phrase: quick to normalise."""
    return text if text.isascii() else _PHRASES.sub("\ue000", _stacks().sub(r"\1", text))


@functools.cache
def _stacks() -> re.Pattern[str]:
    marks = _class(chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code)))
    return re.compile(f"([{marks}]{{{_STACK}}})[{marks}]+")


@functools.cache
def marks() -> str:
    """The marks of the Basic Multilingual Plane, which belong to the letter before them, as the inside of a class."""
    return _class(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M"))


def _class(characters: Iterable[str]) -> str:
    """Characters in rising order as ranges of a regular expression's class."""
    ranges: list[list[str]] = []
    for character in characters:
        if ranges and ord(character) == ord(ranges[-1][1]) + 1:
            ranges[-1][1] = character
        else:
            ranges.append([character, character])
    return "".join(f"{first}-{last}" for first, last in ranges)


def shown(text: str, limit: int = 60) -> str:
    """A piece of a completion on one line, for a verdict's detail."""
    line = " ".join(text[: 4 * limit].split())
    line = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"
