"""Compares what a program printed with what it should have, and makes the program that runs a custom checker.

Lines are compared with trailing blanks and trailing empty lines left out; there must be the same number of them. Words
of a line that differ as text are compared as numbers: integers exactly, others to a tolerance, relative or absolute.
"""

from __future__ import annotations

import decimal
import math
import re

from .shown import shown_text

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_INTEGER = re.compile(r"([+-]?)0*+(\d*+)", re.ASCII)
_LONGEST = 400  # characters of a number that is not an integer


def difference(expected: str, actual: str, tolerance: float = 1e-6, exact: bool = False) -> str:
    """What the first difference is, in words; empty if there is none."""
    if exact:
        if actual == expected:
            return ""
        return f"got {shown_text(actual)}, expected exactly {shown_text(expected)}"
    want, got = _lines(expected), _lines(actual)
    for number, (right, line) in enumerate(zip(want, got, strict=False), 1):
        if right != line and not _same(right.split(), line.split(), tolerance):
            where = f"line {number}: " if len(want) > 1 else ""
            return f"{where}got {shown_text(line)}, expected {shown_text(right)}"
    if len(want) != len(got):
        if not got:
            return f"printed nothing, expected {shown_text(expected)}"
        return f"printed {len(got)} lines, expected {len(want)}: got {shown_text(actual)}"
    return ""


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same(want: list[str], got: list[str], tolerance: float) -> bool:
    return len(want) == len(got) and all(w == g or _equal(w, g, tolerance) for w, g in zip(want, got, strict=True))


def _equal(want: str, got: str, tolerance: float) -> bool:
    """Whether two words are the same number."""
    whole, mine = _whole(want), _whole(got)
    if whole and mine:
        return whole == mine
    if max(len(want), len(got)) > _LONGEST or not (_NUMBER.fullmatch(want) and _NUMBER.fullmatch(got)):
        return False
    if whole:  # relative to a large integer, a neighbour is near
        return abs(decimal.Decimal(got) - decimal.Decimal(want)) <= min(tolerance, 1e-6)
    right, value = float(want), float(got)
    if not (math.isfinite(right) and math.isfinite(value)):
        return False
    return abs(right - value) <= tolerance * max(1.0, abs(right))


def _whole(word: str) -> str:
    """An integer in its shortest form; empty for another word."""
    found = _INTEGER.fullmatch(word)
    if not found or not word[-1:].isdigit():
        return ""
    digits = found[2] or "0"
    return digits if found[1] != "-" or digits == "0" else "-" + digits


def checker_program(source: str, nonce: str, stdin: str, expected: str, actual: str) -> str:
    """A program that runs a checker and prints the nonce and `yes`, `no` or `raised`.

    The checker is the data set's own; what it looks at is embedded as literals, so that nothing of it is run.
    """
    return f"""{source}

def _verdict_of_checker():
    try:
        return "yes" if check({stdin!a}, {expected!a}, {actual!a}) else "no"
    except Exception as error:
        return "raised " + type(error).__name__ + ": " + ascii(str(error)[:200])

print()
print({nonce!r}, _verdict_of_checker(), flush=True)
"""


def checker_verdict(stdout: str, nonce: str) -> str:
    """What the program of `checker_program` found; empty if it did not get there."""
    lines = [line for line in stdout.split("\n") if line.startswith(nonce + " ")]
    return lines[-1].removeprefix(nonce).strip() if lines else ""
