"""Readers of data files: from a file to rows, each with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rlvr.errors import DataError, MissingDependencyError
from rlvr.taskfile.rows import Row, kind_of, make_row


def check_suffix(path: Path) -> str:
    """The suffix of a file that can be read.

    Raises:
        DataError: It has another.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"`{path}` is not a data file that can be read", f"{suffixes()} files are")
    return suffix


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file.

    Raises:
        DataError: The file, or one of its rows, cannot be used.
        MissingDependencyError: It is a Parquet file, and the extra `data` is not installed.
    """
    suffix = check_suffix(path)
    return rows_of(parquet_items(path) if suffix == ".parquet" else TEXTS[suffix](path, _text(path)))


def suffixes() -> str:
    return ", ".join(f"`{suffix}`" for suffix in READERS)


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror}", "check the path") from None


def _text(path: Path) -> str:
    """The file's text, newlines as they are, without a byte order mark."""
    raw = read_bytes(path)
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise DataError(
            f"`{path}` line {line}, byte {column}: not UTF-8 ({error.reason})", "save the file as UTF-8"
        ) from None


class RowError(DataError):
    """A row that cannot be used, while those behind it may be.

    Attributes:
        kind: `not-json`, `not-csv` or `wrong-type`.
        where: The row's place, such as "`train.jsonl` line 3".
        problem: What is wrong, without the place.
    """

    def __init__(self, kind: str, where: str, problem: str, hint: str, column: int = 0) -> None:
        at = f", column {column}" if column else ""
        super().__init__(f"{where}{at}: {problem}", hint)
        self.kind, self.where, self.problem = kind, where, problem


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

    def refuse(kind: str, problem: str, hint: str) -> DataError:
        return RowError(kind, f"`{path}` line {line + text.count(chr(10), 0, start)}", problem, hint)

    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise _broken_json(path, error, line) from None
    except (ValueError, RecursionError) as error:
        raise refuse("not-json", str(error), "mend the row") from None
    if not isinstance(value, dict):
        problem = f"is {kind_of(value)}, but a row must be an object"
        raise refuse("wrong-type", problem, 'write `{"column": value}`')
    return value, end


def _broken_json(path: Path, error: json.JSONDecodeError, line: int = 1) -> RowError:
    where = f"`{path}` line {error.lineno + line - 1}"
    return RowError("not-json", where, f"broken JSON: {error.msg}", "mend the row", error.colno)


Item = tuple[str, dict[str, Any]] | RowError
"""Where a row stands and its values by column, as they were read; or what is wrong with it."""


def jsonl_items(path: Path, text: str) -> Iterator[Item]:
    """The rows of a JSONL text, each one that cannot be used as the error that says why."""
    lines = text.rstrip(" \t\r\n").split("\n")
    if lines == [""]:
        return
    for number, line in enumerate(lines, 1):
        try:
            if not line.strip():
                raise RowError(
                    "not-json", f"`{path}` line {number}", "is empty", "take the line out; a row may be missing"
                )
            values, end = _decode(path, line, _skip(line, 0), number)
            end = _skip(line, end)
            if end < len(line):
                raise _broken_json(path, json.JSONDecodeError("more than one value", line, end), number)
            yield f"`{path}` line {number}", values
        except RowError as error:
            yield error


def json_items(path: Path, text: str) -> Iterator[Item]:
    """The rows of a JSON list.

    Raises:
        DataError: The text is not JSON, or not a list.
    """
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
        yield f"`{path}` line {line}", values
        position = _skip(text, position)
        more = text[position : position + 1] == ","
        if more:
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise _broken_json(path, json.JSONDecodeError("expected `,` or `]`", text, position))
    if _skip(text, position + 1) != len(text):
        raise _broken_json(path, json.JSONDecodeError("text behind the list", text, _skip(text, position + 1)))


def csv_items(path: Path, text: str) -> Iterator[Item]:
    """The rows of a CSV text; one that has not as many fields as the header, as the error that says why.

    Raises:
        DataError: The header is none, or quoting is broken, so that no row behind it can be found.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the text is in memory whatever its fields are
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), strict=True)
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
                problem = f"{len(fields)} fields, but the header has {len(header)}"
                yield RowError("not-csv", where, problem, "quote fields with commas")
            else:
                yield where, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"`{path}` line {start}: broken CSV: {error}", "mend the row") from None


def rows_of(items: Iterable[Item]) -> Iterator[Row]:
    """The rows as JSON values.

    Raises:
        DataError: At the first that cannot be used.
    """
    for item in items:
        if isinstance(item, RowError):
            raise item
        yield make_row(*item)


TEXTS: dict[str, Callable[[Path, str], Iterator[Item]]] = {
    ".jsonl": jsonl_items,
    ".ndjson": jsonl_items,
    ".json": json_items,
    ".csv": csv_items,
}
"""What reads the text of a file, by its suffix."""


def parquet_items(path: Path) -> Iterator[Item]:
    """The rows of a Parquet file.

    Raises:
        DataError: It is none.
        MissingDependencyError: The extra `data` is not installed.
    """
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
            yield f"`{path}` row {number}", values


def _broken_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"`{path}` cannot be read as Parquet: {' '.join(str(error).split())}", "check the file")


READERS = (*TEXTS, ".parquet")
"""The suffixes of files that can be read."""
