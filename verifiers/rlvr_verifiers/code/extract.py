r"""Finds the program in a completion, by these rules.

0.  Only the model's own turn counts: what follows the last `</think>` that stands outside of the code.
1.  The last fenced block (three or more backticks or tildes) whose language is Python: `python`, `py`, `python3` and
    the like, in any case. A block that is never closed counts to the end.
2.  If no block names Python, the last block without a language.
3.  Without either, the whole text. Bare Python stays whole, also when there are fences inside its strings.

A fence in a string of the program does not end its block: among the places where a block may end, the first one that
makes valid Python is taken, and the first one at all if none does. Nothing is run to find out: the text is parsed.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import warnings

PARSED = 200_000
"""Characters beyond which a text is not parsed: bare Python and fences in strings are recognised up to here."""

_FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})(?P<info>[^\n`]*)$", re.MULTILINE)
_PYTHON = {"python", "py", "python3", "python2", "py3", "python3.10", "python3.11", "python3.12", "pycon", "cpython"}
_FENCES = 400  # the last ones of a text, that are looked at
_ENDS = 16  # closing fences that are tried for one block
_TURN_ENDS = re.compile(r"<\|(?:im_end|eot_id|endoftext|end_of_text)\|>|</s>\s*\Z")


def parses(text: str) -> bool:
    """Whether the text is Python. It is not run, and whatever parsing may raise means no."""
    return parsed(text) is not None


@functools.lru_cache(maxsize=8)
def parsed(text: str) -> ast.Module | None:
    """The tree of a text, or None if it is not Python or too long to look at. Nobody changes it."""
    if len(text) > PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def extract(text: str) -> str:
    """The program of a completion; empty if there is none."""
    text = text.removeprefix("\ufeff")
    if _substantial(text) and parses(text):
        return text
    _, closed, after = text.rpartition("</think>")
    if closed and (after.strip() or "```" not in text):
        text = after
    end = _TURN_ENDS.search(text)
    if end:
        text = text[: end.start()]
    blocks = _blocks(text)
    named = [code for info, code in blocks if _language(info) in _PYTHON]
    bare = [code for info, code in blocks if not _language(info)]
    if named or bare:
        code = (named or bare)[-1]
        return code if code.strip() else ""
    return text if text.strip() else ""


def _substantial(text: str) -> bool:
    """Whether a text that parses is a program: more than words that happen to be names."""
    return any(sign in text for sign in ("=", "(", "def ", "class ", "import ", "pass"))


def _language(info: str) -> str:
    """The language that a fence names: `python` for `Python title="a.py"` and `{.python}`."""
    words = re.split(r"[\s,:]+", info.strip().strip("{}").lstrip("."), maxsplit=1)
    return words[0].lower().lstrip(".")


def _blocks(text: str) -> list[tuple[str, str]]:
    """`(info, code)` of the fenced blocks in order."""
    fences = list(_FENCE.finditer(text))[-_FENCES:]
    blocks: list[tuple[str, str]] = []
    i = 0
    while i < len(fences):
        opening = fences[i]
        start = opening.end() + 1
        if _language(opening["info"]) in _PYTHON or not opening["info"].strip():
            end, i = _end(text, start, fences, i)
        else:
            end, i = _first_end(text, start, fences, i)
        blocks.append((opening["info"], _dedented(text[start:end], opening.group())))
    return blocks


def _first_end(text: str, start: int, fences: list[re.Match[str]], i: int) -> tuple[int, int]:
    for j in range(i + 1, len(fences)):
        if _closes(fences[j], fences[i]):
            return fences[j].start(), j + 1
    return len(text), len(fences)


def _end(text: str, start: int, fences: list[re.Match[str]], i: int) -> tuple[int, int]:
    """Where the block that fence `i` opens ends, and the next fence to look at."""
    closing = (j for j in range(i + 1, len(fences)) if _closes(fences[j], fences[i]))
    candidates = list(itertools.islice(closing, _ENDS))
    if candidates == [i + 1]:  # there is nothing to choose, whatever stands between
        return fences[i + 1].start(), i + 2
    for j in candidates:
        code = text[start : fences[j].start()]
        if not code.strip() or parses(_dedented(code, fences[i].group())):
            return fences[j].start(), j + 1
        if not _in_string(code):
            break  # broken for another reason than a fence inside of a string
    first = candidates[0] if candidates else len(fences)
    for j in range(i + 1, first):
        if _language(fences[j]["info"]) in _PYTHON:  # the next block, this one was not closed
            return fences[j].start(), j
    return (fences[first].start(), first + 1) if candidates else (len(text), first)


def _in_string(code: str) -> bool:
    """Whether the text may stop within a triple-quoted string."""
    return code.count('"""') % 2 == 1 or code.count("'''") % 2 == 1


def _closes(fence: re.Match[str], opening: re.Match[str]) -> bool:
    mark, opened = fence["mark"], opening["mark"]
    return mark[0] == opened[0] and len(mark) >= len(opened) and not fence["info"].strip()


def _dedented(code: str, opening: str) -> str:
    """A block in a list is indented as its fence is."""
    indent = opening[: len(opening) - len(opening.lstrip(" \t"))]
    if not indent:
        return code
    lines = code.split("\n")
    if all(line.startswith(indent) or not line.strip() for line in lines):
        return "\n".join(line[len(indent) :] for line in lines)
    return code
