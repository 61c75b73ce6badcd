"""What commands print: data on stdout, everything else on stderr. Tables are drawn on a terminal, plain elsewhere."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Console(Console):
    """A console that leaves a closed pipe to `main`; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@functools.cache
def console(stderr: bool = False) -> Console:
    """The console of stdout or stderr. It honours NO_COLOR."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def shown(text: object) -> str:
    """Text that is safe to print: what a model or a data set wrote must not steer the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(text).replace("\r\n", "\n"))


def say(line: str) -> None:
    """One line of data."""
    sys.stdout.write(shown(line) + "\n")


def say_json(value: Any) -> None:
    """JSON data."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def note(line: str, style: str = "") -> None:
    """One line for the reader, on stderr."""
    console(stderr=True).print(Text(shown(line), style), soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """A table of text.

    Args:
        headings: One per column.
        rows: The cells.
        right: The headings of columns that hold numbers.
    """
    cells = [[shown(cell) for cell in row] for row in rows]
    if console().is_terminal:
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings:
            numeric = heading in right
            drawn.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in cells:
            drawn.add_row(*map(Text, row))
        console().print(drawn)
        return
    lines = [list(headings), *([cell.replace("\n", " ") for cell in row] for row in cells)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        parts = [
            cell.rjust(width) if heading in right else cell.ljust(width)
            for heading, cell, width in zip(headings, line, widths, strict=True)
        ]
        say("  ".join(parts).rstrip())


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one below the other; further lines of a value stand under its first."""
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        first, *more = shown(value).split("\n")
        say(f"{name:{width}}{first}".rstrip())
        for line in more:
            say(f"{'':{width}}{line}".rstrip())
