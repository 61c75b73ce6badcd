"""Readers of data files: from a file to rows, each with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlvr.errors import DataError, MissingDependencyError
from rlvr.taskfile.rows import Row, kind_of, make_row


def reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"`{path}` is not a data file that can be read", f"{suffixes()} files are")
    return READERS[suffix]


def suffixes() -> str:
    return ", ".join(f"`{suffix}`" for suffix in READERS)


def _text(path: Path) -> str:
    """The file's text, newlines as they are, without a byte order mark."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}", "check the path") from None
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise DataError(
            f"`{path}` line {line}, byte {column}: not UTF-8 ({error.reason})", "save the file as UTF-8"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key `{next(key for key in keys if keys.count(key) > 1)}` occurs twice")
    return values


def _skip(text: str, position: int) -> int:
    """Where the next character is that JSON does not count as space."""
    while position < len(text) and text[position] in " \t\n\r":
        position += 1
    return position


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _decode(path: Path, text: str, start: int, line: int) -> tuple[dict[str, Any], int]:
    """The JSON object at `start`, and where it ends. `line` is the number of the first line of `text`."""

    def refuse(problem: str, hint: str) -> DataError:
        return DataError(f"`{path}` line {line + text.count(chr(10), 0, start)}: {problem}", hint)

    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _broken_json(path, error, line) from None
    except (ValueError, RecursionError) as error:
        raise refuse(str(error), "mend the row") from None
    if not isinstance(value, dict):
        raise refuse(f"is {kind_of(value)}, but a row must be an object", 'write `{"column": value}`')
    return value, end


def _broken_json(path: Path, error: json.JSONDecodeError, line: int = 1) -> DataError:
    return DataError(
        f"`{path}` line {error.lineno + line - 1}, column {error.colno}: broken JSON: {error.msg}",
        "mend the row",
    )


def _jsonl(path: Path) -> Iterator[Row]:
    lines = _text(path).rstrip(" \t\r\n").split("\n")
    if lines == [""]:
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(f"`{path}` line {number}: is empty", "take the line out; a row may be missing")
        values, end = _decode(path, line, _skip(line, 0), number)
        end = _skip(line, end)
        if end < len(line):
            raise _broken_json(path, json.JSONDecodeError("more than one value", line, end), number)
        yield make_row(f"`{path}` line {number}", values)


def _json(path: Path) -> Iterator[Row]:
    text = _text(path)
    position = _skip(text, 0)
    if position == len(text):
        return
    if text[position] != "[":
        raise DataError(f"`{path}` line 1: must be a list of objects", "one object a line is `.jsonl`")
    position = _skip(text, position + 1)
    line, counted = 1, 0
    more = text[position : position + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, position), position
        values, position = _decode(path, text, position, 1)
        yield make_row(f"`{path}` line {line}", values)
        position = _skip(text, position)
        more = text[position : position + 1] == ","
        if more:
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise _broken_json(path, json.JSONDecodeError("expected `,` or `]`", text, position))
    if _skip(text, position + 1) != len(text):
        raise _broken_json(path, json.JSONDecodeError("text behind the list", text, _skip(text, position + 1)))


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_text(path).rstrip("\r\n"), newline=""), strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for fields in reader:
            where, start = f"`{path}` line {start}", reader.line_num + 1
            if header is None:
                header = fields
                if not all(name.strip() for name in header) or len(set(header)) < len(header):
                    raise DataError(f"{where}: every column needs a name of its own", "mend the header")
            elif len(fields) != len(header):
                raise DataError(
                    f"{where}: {len(fields)} fields, but the header has {len(header)}",
                    "quote fields with commas",
                )
            else:
                yield make_row(where, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise DataError(f"`{path}` line {start}: broken CSV: {error}", "mend the row") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError.extra(f"reading `{path}`", "data") from None
    try:
        # The file is opened here, so that a folder or a URL is never what gets read.
        with path.open("rb") as file:
            table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise _broken_parquet(path, error) from None
    if len(set(table.column_names)) < len(table.column_names):
        raise DataError(f"`{path}`: every column needs a name of its own", "mend the schema")
    number = 0
    for batch in table.to_batches(max_chunksize=1000):
        try:
            rows = batch.to_pylist()
        except (ValueError, pyarrow.ArrowException) as error:
            raise _broken_parquet(path, error) from None
        for values in rows:
            number += 1
            yield make_row(f"`{path}` row {number}", values)


def _broken_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"`{path}` cannot be read as Parquet: {' '.join(str(error).split())}", "check the file")


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
