"""The written list that a judge goes by."""

from __future__ import annotations

import importlib.resources
import tomllib
from pathlib import Path

from rlvr.errors import DataError


def read_principles(path: str = "") -> list[str]:
    """The principles in a file: TOML with a list of texts `principles`; or text, where blank lines divide paragraphs if
    there are any between principles, and lines do if not. Lines that begin with `#` are remarks.

    Args:
        path: Of the file; empty takes the list that comes with rlvr.

    Raises:
        DataError: It cannot be read, has no principle, or has one twice.
    """
    source = Path(path) if path else importlib.resources.files("rlvr.judge") / "principles.txt"
    try:
        text = source.read_text(encoding="utf-8")
        found = from_toml(text, path) if path.endswith(".toml") else from_text(text)
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}", "give a file with one principle a line") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"`{path}` cannot be read: {error}", "save it as UTF-8; TOML where it ends so") from None
    if not found:
        raise DataError(f"`{path}` has no principle", "write one a line")
    if len(set(found)) < len(found):
        twice = next(text for text in found if found.count(text) > 1)
        raise DataError(f"`{path}` has a principle twice: `{twice[:80]}`", "it would be drawn twice as often; keep one")
    return found


def from_text(text: str) -> list[str]:
    """One principle a paragraph where there are several, else one a line."""
    lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    paragraphs = [" ".join(part.split()) for part in "\n".join(lines).split("\n\n")]
    paragraphs = [part for part in paragraphs if part]
    return paragraphs if len(paragraphs) > 1 else [line for line in lines if line]


def from_toml(text: str, path: str) -> list[str]:
    """The list `principles` of a TOML document."""
    found = tomllib.loads(text).get("principles")
    if not isinstance(found, list) or not all(isinstance(one, str) and one.strip() for one in found):
        raise DataError(f"`{path}` has no list of texts `principles`", 'principles = ["Prefer ...", "Prefer ..."]')
    return [" ".join(one.split()) for one in found]
