"""Writes the reference of all commands and flags: `python -m rlvr.cli.reference docs/reference/cli.md`.

It replaces what stands below the marker in that file; what is above is written by hand.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from cyclopts import App, Group

from rlvr.cli import app, commands

MARKER = "<!-- Below this line: `python -m rlvr.cli.reference docs/reference/cli.md` -->\n"
WORDS = {bool: "", int: " INT", float: " FLOAT", str: " TEXT"}


def updated(page: str) -> str:
    """The page with everything below the marker made anew."""
    head, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"the page has no line `{MARKER.strip()}`")
    return head + MARKER + "".join(section(name, command) for name, command in commands(app))


def section(name: tuple[str, ...], command: App) -> str:
    """One command: what it does, its arguments and its flags."""
    title = f"\n{'#' * (len(name) + 1)} rlvr {' '.join(name)}\n\n{inspect.cleandoc(command.help)}\n"
    return title + "".join(
        table(heading, list(rows)) for heading, rows in groupby(rows_of(command), lambda row: row[0])
    )


def rows_of(command: App) -> Iterator[tuple[str, str, str]]:
    """`(group, flag, help)` of every argument and flag."""
    if command.default_command is None:
        return
    for argument in command.assemble_argument_collection():
        names = " ".join(f"`{name}{metavar(argument.hint)}`" for name in argument.names)
        groups = typing.cast("tuple[Group, ...]", argument.parameter.group)
        group = groups[0].name if groups else "Flags"
        if not argument.name.startswith("-"):
            group, names = "Arguments", f"`{argument.name.lstrip('*').upper()}`"
        yield group, names, argument.parameter.help or ""


def table(heading: str, rows: list[tuple[str, str, str]]) -> str:
    lines = [f"| {names} | {help} |" for _, names, help in rows]
    return "\n".join([f"\n| {heading} | |", "| --- | --- |", *lines]) + "\n"


def metavar(hint: Any) -> str:
    """What stands behind a flag: a kind of value, or the choices."""
    if typing.get_origin(hint) is Literal:
        return " " + "/".join(typing.get_args(hint))
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind in WORDS]
    return WORDS[kinds[0]]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(updated(file.read_text(encoding="utf-8")), encoding="utf-8")
