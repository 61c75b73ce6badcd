r"""Regular expressions in linear time: RE2, whose matching time is bounded by pattern size times text length.

A pattern that comes from a task or a schema goes through here, never through `re`, which backtracks. RE2's syntax is
that of Perl and Python without what needs backtracking, and with these differences:

    \w \d \s \b       ASCII only; `\p{L}`, `\p{N}`, `\p{Cyrillic}` and the like know Unicode
    \z                the end of the text, where Python has `\Z`; `$` without `multi_line` is the same
    (?=a) (?!a)       look-around, back-references, possessive quantifiers and conditionals do not exist
    a{1000}           counts end at 1,000
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

SOURCE_LIMIT = 10_000
"""Characters of a pattern at most."""

MEMORY = 4 << 20
"""Bytes that RE2 may use for a pattern: bounds the size of its program, and so the time for a character of text."""

_UNKNOWN = (
    (re.compile(r"\(\?(?:=|!)"), "look-ahead `(?=`"),
    (re.compile(r"\(\?<(?:=|!)"), "look-behind `(?<=`"),
    (re.compile(r"\(\?>"), "an atomic group `(?>`"),
    (re.compile(r"\(\?\("), "a conditional `(?(`"),
    (re.compile(r"\\(?:[1-9]|k<|g<)|\(\?P="), r"a back-reference such as `\1`"),
    (re.compile(r"[*+?}]\+"), "a possessive quantifier such as `*+`"),
    (re.compile(r"\\Z"), r"`\Z` (write `\z`)"),
)
"""What RE2 does not know, by how it looks; asked only once RE2 has refused a pattern."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class Pattern:
    """A compiled pattern. Takes any `str`: half of a surrogate pair, which has no UTF-8, counts as U+FFFD."""

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str, compiled: Any) -> None:
        self.source = source
        self._compiled = compiled

    def search(self, text: str) -> Any:
        """The first match anywhere, with `re`'s `group`, `start` and `end`; None where there is none."""
        return self._compiled.search(_encodable(text))

    def match(self, text: str) -> Any:
        """The match at the start of the text."""
        return self._compiled.match(_encodable(text))

    def fullmatch(self, text: str) -> Any:
        """The match of the whole text."""
        return self._compiled.fullmatch(_encodable(text))

    def finditer(self, text: str) -> Iterator[Any]:
        """All matches from left to right that do not overlap."""
        found: Iterator[Any] = self._compiled.finditer(_encodable(text))
        return found

    def count(self, text: str, limit: int) -> int:
        """How many matches there are; no more than `limit` are looked for."""
        return sum(1 for _, _ in zip(range(limit), self.finditer(text), strict=False))


@functools.lru_cache(maxsize=1024)
def pattern(source: str, *, ignore_case: bool = False, dot_all: bool = False, multi_line: bool = False) -> Pattern:
    r"""The compiled pattern; the same one for the same arguments.

    Args:
        source: The pattern in RE2's syntax.
        ignore_case: Letters match without case.
        dot_all: `.` matches the end of a line too.
        multi_line: `^` and `$` match at every line.

    Raises:
        ValueError: RE2 cannot take it; the message completes a sentence that names where the pattern is from.
    """
    import re2

    if not isinstance(source, str):
        raise ValueError(f"a pattern must be text, not a `{type(source).__name__}`")
    shown = source if len(source) <= 100 else source[:99] + "…"
    if len(source) > SOURCE_LIMIT:
        raise ValueError(f"the pattern `{shown}` has {len(source)} characters, more than {SOURCE_LIMIT:,}")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY
    options.case_sensitive = not ignore_case
    options.dot_nl = dot_all
    try:
        compiled = re2.compile(f"(?m){source}" if multi_line else source, options)
    except UnicodeEncodeError:
        raise ValueError(f"the pattern `{shown!a}` has half of a surrogate pair") from None
    except re2.error as error:
        known = [name for look, name in _UNKNOWN if look.search(source)]
        cause = error.args[0] if error.args else "unknown"
        cause = cause.decode(errors="replace") if isinstance(cause, bytes) else str(cause)
        why = f"it has {' and '.join(known)}, which a linear-time engine (RE2) does not know" if known else cause
        raise ValueError(f"the pattern `{shown}` cannot be used: {why}") from None
    return Pattern(source, compiled)


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text
