"""Tasks written as TOML: a data set, a prompt with `{{column}}` in it, and the name of a verifier.

    name = "gsm8k"
    version = 1                                     # optional, default 1
    description = "..."                             # optional, one line for `rlvr tasks`
    verifier = "math"                               # or { name = "math", option = "value" }
    prompt = "{{question}}\\n\\nPut the final answer in \\\\boxed{}."
    system = "..."                                  # optional system message, taken as it is
    [data]
    hub = "openai/gsm8k:main"                       # repo[:config], or a folder, through `datasets`; or
    path = "train.jsonl"                            # a file or a folder, from where the TOML file lies
    splits = { train = "train", test = "test" }     # names on the hub, files in the folder
    answer = { column = "answer", after = "####" }  # or "column"; without it, samples have no answer
    id = "column"                                   # default: a hash of prompt and answer
    [defaults]                                      # config values that suit this task
    learner.lr = 1e-5

**Prompt.** `{{column}}` is replaced by that column's text, once: what a row says is never looked into again.
A prompt that is nothing but `{{column}}` may hold a whole chat, a list of `{"role", "content"}`. There is no
way to write a literal `{{`; where logic is needed, write the Python form (`rlvr.Task`).

**Answer.** Text or a number. With `after`, the text behind the last such marker, without surrounding space.

**Splits.** Two names are two splits. A single file serves both (so does a hub split, or a file, that is named
twice): a row is a test row when the hash of its id says so, about one in ten. Neither the order of the rows
nor the other rows matter, except that at least one goes to each side. A folder without `splits` holds one
`train.*` and one `test.*`.

**Files.** `.jsonl` and `.ndjson` (one object a line, empty lines at the end only), `.json` (a list of
objects), `.csv` (with a header; every value is text), `.parquet`. Text is UTF-8.

A split is read and checked as a whole before its first sample is used, and nothing is dropped: a row that
cannot be used is a DataError with file, line and column. Rows of Parquet files and of the hub are counted
from 1, like lines.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import hashlib
import io
import json
import math
import os
import re
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rlvr import config
from rlvr.errors import ConfigError, DataError, MissingDependencyError, UsageError, nearest
from rlvr.types import Sample, Split, Task

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""What tasks and everything else in the registry may be called: lower-case words joined by hyphens."""

TEST_ROWS_ONE_IN = 10

_SPLITS: tuple[Split, Split] = ("train", "test")
_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


# The TOML form


def load_toml(path: str | os.PathLike[str], source: str | None = None) -> Task:
    """The task in a TOML file. Its data is read when samples are first asked for.

    Args:
        path: The file.
        source: What `Task.source` shall say; the path unless given.

    Raises:
        ConfigError: There is no such file, it is not TOML, or a key is missing, unknown or of the wrong type.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"there is no task file `{path}`", "`rlvr tasks` lists the tasks that have a name") from None
    except OSError as error:
        raise ConfigError(f"the task file `{path}` cannot be read: {error.strerror}", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` is not TOML: {error}", "`docs/guide/` shows a whole task file") from None

    top = _Table(document, str(path))
    name = top.text("name")
    if not NAME.fullmatch(name):
        raise top.refuse("name", f"is `{name}`", "use lower-case words joined by hyphens")
    verifier, options = _verifier(top)
    prompt = _Template(top.text("prompt"), top)
    system = top.text("system", None)
    if system is not None and "{{" in system:
        raise top.refuse("system", "has `{{`, but takes no columns", "put columns in `prompt`")
    version = top.take("version", int, "a whole number", 1)
    description = top.text("description", "")
    defaults = _defaults(top)
    data = top.table("data")
    top.done()
    answer, after = _answer(data)
    form = _Form(prompt, answer, after, data.text("id", None))
    locate = _sources(data, file.parent)
    data.done()

    def over(locate: Callable[[], _Sources]) -> Task:
        return Task(
            name=name,
            verifier=verifier,
            load=_Data(form, locate).load,
            description=description,
            version=version,
            verifier_options=options,
            system=system,
            defaults=defaults,
            with_data=with_data,
            source=str(path) if source is None else source,
        )

    def with_data(copy: str | os.PathLike[str]) -> Task:
        sources = _local(Path(copy).expanduser())
        return over(lambda: sources)

    return over(locate)


class _Required:
    """Marks a key without a default."""


_REQUIRED = _Required()


class _Table:
    """A TOML table whose keys are taken one by one; what is left over is an error."""

    def __init__(self, values: Mapping[str, Any], file: str, prefix: str = "") -> None:
        self.values, self.file, self.prefix = dict(values), file, prefix
        self.known: list[str] = []

    def refuse(self, key: str, problem: str, hint: str) -> ConfigError:
        return ConfigError(f"`{self.file}`: `{self.prefix}{key}` {problem}", hint)

    def take(self, key: str, kind: type, wanted: str, default: Any = _REQUIRED) -> Any:
        self.known.append(key)
        if key not in self.values:
            if isinstance(default, _Required):
                near = nearest(key, self.values)
                hint = f"is `{near}` meant to be `{key}`?" if near else f"give it {wanted}"
                raise self.refuse(key, "is missing", hint)
            return default
        value = self.values.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise self.refuse(key, f"is `{value!r}`", f"give it {wanted}")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        value = self.take(key, str, "text", default)
        if value is not default and not value.strip():
            raise self.refuse(key, "is empty", "give it text")
        return value

    def table(self, key: str, default: Any = _REQUIRED) -> _Table:
        return _Table(self.take(key, dict, "a table", default), self.file, f"{self.prefix}{key}.")

    def done(self) -> None:
        for key in self.values:
            near = nearest(key, self.known)
            hint = f"did you mean `{near}`?" if near else "known: " + ", ".join(f"`{k}`" for k in self.known)
            raise self.refuse(key, "is not a key of a task", hint)


def _verifier(top: _Table) -> tuple[str, dict[str, Any]]:
    """The verifier's name and its options."""
    if not isinstance(top.values.get("verifier"), dict):
        return top.text("verifier"), {}
    table = top.table("verifier")
    name = table.text("name")
    for option, given in table.values.items():
        try:
            table.values[option] = _plain(given)
        except ValueError as error:
            raise table.refuse(option, str(error), "give it a JSON value") from None
    return name, table.values


def _defaults(top: _Table) -> dict[str, Any]:
    values = config.flatten(top.take("defaults", dict, "a table of config values", {}))
    try:
        config.resolve([], values)
    except ConfigError as error:
        raise ConfigError(f"`{top.file}`: `defaults`: {error.message}", error.hint) from None
    return values


def _answer(data: _Table) -> tuple[str | None, str | None]:
    """The answer's column, and the marker that stands before it."""
    if not isinstance(data.values.get("answer"), dict):
        return data.text("answer", None), None
    table = data.table("answer")
    column, after = table.text("column"), table.text("after", None)
    table.done()
    return column, after


class _Template:
    """A prompt with `{{column}}` in it, cut into literal text and columns, which alternate."""

    def __init__(self, text: str, top: _Table) -> None:
        self.pieces: list[str] = _PLACEHOLDER.split(text)
        self.columns = self.pieces[1::2]
        for literal in self.pieces[::2]:
            if "{{" in literal:
                hint = "write `{{column}}`; a literal `{{` is not possible"
                raise top.refuse("prompt", "has `{{` that opens no column", hint)
        if not self.columns or not all(self.columns):
            raise top.refuse("prompt", "must name a column in every `{{}}`, and have one", "write `{{column}}`")

    def render(self, row: _Row) -> str | list[dict[str, str]]:
        if self.pieces[::2] == ["", ""] and isinstance(row.values.get(self.columns[0]), list):
            return _chat(row, self.columns[0])
        text = "".join(row.text(piece) if i % 2 else piece for i, piece in enumerate(self.pieces))
        if not text.strip():
            raise row.refuse("the prompt is empty", self.columns[0])
        return text


def _chat(row: _Row, column: str) -> list[dict[str, str]]:
    messages = row.values[column]
    for message in messages:
        if (
            not isinstance(message, dict)
            or not {"role", "content"} <= set(message)
            or not all(isinstance(value, str) for value in message.values())
        ):
            raise row.refuse("a chat is a list of objects with text `role` and `content`", column)
    if not messages:
        raise row.refuse("the chat is empty", column)
    return cast("list[dict[str, str]]", messages)


# From rows to samples


@dataclass(frozen=True)
class _Row:
    """A row and where it stands, such as "`train.jsonl` line 3"."""

    where: str
    values: dict[str, Any]

    def refuse(self, problem: str, column: str | None = None, hint: str = "") -> DataError:
        at = f"{self.where}, column `{column}`" if column else self.where
        return DataError(f"{at}: {problem}", hint or "mend the row, or take it out; none is skipped silently")

    def get(self, column: str) -> Any:
        if column not in self.values:
            near = nearest(column, self.values)
            has = ", ".join(f"`{name}`" for name in self.values) or "none"
            hint = f"did you mean `{near}`? " if near else ""
            raise self.refuse("there is no such column", column, f"{hint}The columns are {has}")
        return self.values[column]

    def text(self, column: str) -> str:
        value = self.get(column)
        if not isinstance(value, str):
            raise self.refuse(f"is {_kind(value)}, but must be text", column)
        return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object")


@dataclass(frozen=True)
class _Form:
    """How a row becomes a sample."""

    prompt: _Template
    answer: str | None
    after: str | None
    id: str | None

    def sample(self, row: _Row) -> Sample:
        prompt = self.prompt.render(row)
        answer = self._answer(row)
        return Sample(self._id(row, prompt, answer), prompt, answer, row.values)

    def _answer(self, row: _Row) -> str | int | float | None:
        if self.answer is None:
            return None
        value = row.get(self.answer)
        if self.after is not None:
            _, marker, value = row.text(self.answer).rpartition(self.after)
            if not marker:
                raise row.refuse(f"`{self.after}` does not occur in it", self.answer)
            value = value.strip()
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise row.refuse(f"is {_kind(value)}, but an answer must be text or a number", self.answer)
        if isinstance(value, str) and not value.strip():
            raise row.refuse("the answer is empty", self.answer)
        return value

    def _id(self, row: _Row, prompt: Any, answer: Any) -> str:
        if self.id is None:
            content = json.dumps([prompt, answer], ensure_ascii=False, sort_keys=True)
            return hashlib.sha256(content.encode()).hexdigest()[:16]
        value = row.get(self.id)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            kind = _kind(value) if value != "" else "empty"
            raise row.refuse(f"is {kind}, but an id must be text or a whole number", self.id)
        return str(value)

    def samples(self, rows: Iterator[_Row]) -> list[Sample]:
        """All rows, checked; ids are unique among them."""
        samples: list[Sample] = []
        seen: dict[str, str] = {}
        for row in rows:
            sample = self.sample(row)
            if sample.id in seen:
                same = "id" if self.id else "prompt and answer"
                raise row.refuse(
                    f"the same {same} as {seen[sample.id]} (`{sample.id}`)",
                    self.id,
                    "take one of them out" + ("" if self.id else ", or name a column of ids as `id` under `[data]`"),
                )
            seen[sample.id] = row.where
            samples.append(sample)
        return samples


def _plain(value: Any) -> Any:
    """`value` as a JSON value; dates become ISO text, decimals exact text.

    Raises:
        ValueError: What JSON cannot say; the message completes "column x: ...".
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("has half of a surrogate pair, which is not Unicode text") from None
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"has {value}, which is not a JSON number")
        return value
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    raise ValueError(f"has a `{type(value).__name__}`, which JSON has no form for")


def _row(where: str, values: Mapping[Any, Any]) -> _Row:
    row = _Row(where, {})
    for column, value in values.items():
        try:
            row.values[str(_plain(column))] = _plain(value)
        except ValueError as error:
            raise row.refuse(str(error), str(column).encode(errors="replace").decode()) from None
    return row


# Splits


@dataclass(frozen=True)
class _File:
    """One local file of rows."""

    path: Path

    def __str__(self) -> str:
        return f"`{self.path}`"

    def rows(self) -> Iterator[_Row]:
        return _reader(self.path)(self.path)


@dataclass(frozen=True)
class _Hub:
    """One split of a hub data set, or of a folder laid out like one."""

    repo: str
    config: str | None
    split: str

    def __str__(self) -> str:
        return f"`{self.repo}{':' + self.config if self.config else ''}` {self.split}"

    def rows(self) -> Iterator[_Row]:
        try:
            import datasets
        except ImportError:
            raise MissingDependencyError.extra(f"reading the hub data set {self}", "data") from None
        try:
            data = datasets.load_dataset(self.repo, self.config, split=self.split)
            for number, values in enumerate(data, 1):
                yield _row(f"{self} row {number}", values)
        except DataError:
            raise
        except Exception as error:  # the hub, the network and each kind of file have errors of their own
            cause = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"the hub data set {self} cannot be loaded: {cause}",
                "check the name and the network, or give a local copy with `--data PATH`",
            ) from error


@dataclass(frozen=True)
class _Missing:
    """A split that a folder does not have."""

    folder: Path
    split: Split

    def rows(self) -> Iterator[_Row]:
        other = "test" if self.split == "train" else "train"
        raise DataError(
            f"the folder `{self.folder}` has a `{other}.*` file but no `{self.split}.*`",
            f"add one ({_suffixes()}), or give a single file, which is divided",
        )


_Source = _File | _Hub | _Missing
_Sources = Mapping[Split, _Source]


def _sources(data: _Table, base: Path) -> Callable[[], _Sources]:
    """Where the splits of `[data]` come from. Files are looked for when samples are asked for."""
    hub, path = data.text("hub", None), data.text("path", None)
    if (hub is None) == (path is None):
        raise data.refuse("hub", "and `data.path`: give exactly one of them", "a hub data set, or a file or folder")
    splits = data.table("splits", {})
    names = {split: splits.text(split) for split in _SPLITS} if splits.values else None
    splits.done()
    if hub is not None:
        repo, _, configuration = hub.partition(":")
        if repo.startswith((".", "/", "~")):
            repo = str(base / Path(repo).expanduser())
        names = names or {split: split for split in _SPLITS}
        found: _Sources = {split: _Hub(repo, configuration or None, name) for split, name in names.items()}
        return lambda: found
    place = base / Path(path).expanduser()
    if names is None:
        return lambda: _local(place)
    return lambda: {split: _File(_existing(place, folder=True) / name) for split, name in names.items()}


def _existing(path: Path, folder: bool = False) -> Path:
    if not path.exists():
        raise DataError(f"there is no data file or folder `{path}`", "check the path")
    if folder and not path.is_dir():
        raise DataError(f"`{path}` is no folder, but `data.splits` names files in one", "leave `splits` out")
    return path


def _local(path: Path) -> _Sources:
    """One file for both splits, or a folder's `train.*` and `test.*`."""
    if not _existing(path).is_dir():
        _reader(path)
        return dict.fromkeys(_SPLITS, _File(path))
    found: dict[Split, _Source] = {}
    for split in _SPLITS:
        files = sorted(f for f in path.iterdir() if f.stem == split and f.suffix.lower() in _READERS)
        if len(files) > 1:
            names = " and ".join(f"`{f.name}`" for f in files)
            raise DataError(f"the folder `{path}` has more than one {split} split: {names}", "keep one")
        found[split] = _File(files[0]) if files else _Missing(path, split)
    if all(isinstance(source, _Missing) for source in found.values()):
        raise DataError(f"the folder `{path}` has neither a `train.*` nor a `test.*`", f"it can be {_suffixes()}")
    return found


@dataclass
class _Data:
    """The samples of a task. Every source is read once, whole, when it is first needed."""

    form: _Form
    locate: Callable[[], _Sources]
    sources: _Sources | None = None
    cache: dict[_Source, list[Sample]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, split: Split) -> list[Sample]:
        """The samples of a split in the order of its rows. `Task.load` of a TOML task.

        Raises:
            DataError: A file or a row that cannot be used.
            MissingDependencyError: Parquet or the hub without the extra `data`.
        """
        if split not in _SPLITS:
            raise UsageError(f"there is no split `{split}`", "the splits are `train` and `test`")
        with self.lock:
            sources = self.sources = self.sources or self.locate()
            source = sources[split]
            if source not in self.cache:
                samples = self.form.samples(source.rows())
                if not samples:
                    raise DataError(f"{source} has no rows", "give a file with at least one")
                self.cache[source] = samples
            samples = self.cache[source]
        if sources["train"] != sources["test"]:
            return list(samples)
        test = _test_ids([sample.id for sample in samples], source)
        return [sample for sample in samples if (sample.id in test) == (split == "test")]


def _test_ids(ids: Sequence[str], source: _Source) -> set[str]:
    """The ids of the test rows where one source serves both splits."""
    if len(ids) < 2:
        raise DataError(f"{source} has one row, which cannot be divided into train and test", "add rows")
    ranks = {id: int(hashlib.sha256(id.encode()).hexdigest(), 16) for id in ids}
    test = {id for id, rank in ranks.items() if rank % TEST_ROWS_ONE_IN == 0}
    return test if 0 < len(test) < len(ids) else {min(ids, key=ranks.__getitem__)}


# Readers: from a file to rows


def _reader(path: Path) -> Callable[[Path], Iterator[_Row]]:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise DataError(f"`{path}` is not a data file that can be read", f"{_suffixes()} files are")
    return _READERS[suffix]


def _suffixes() -> str:
    return ", ".join(f"`{suffix}`" for suffix in _READERS)


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
        raise refuse(f"is {_kind(value)}, but a row must be an object", 'write `{"column": value}`')
    return value, end


def _broken_json(path: Path, error: json.JSONDecodeError, line: int = 1) -> DataError:
    return DataError(
        f"`{path}` line {error.lineno + line - 1}, column {error.colno}: broken JSON: {error.msg}",
        "mend the row",
    )


def _jsonl(path: Path) -> Iterator[_Row]:
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
        yield _row(f"`{path}` line {number}", values)


def _json(path: Path) -> Iterator[_Row]:
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
        yield _row(f"`{path}` line {line}", values)
        position = _skip(text, position)
        more = text[position : position + 1] == ","
        if more:
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise _broken_json(path, json.JSONDecodeError("expected `,` or `]`", text, position))
    if _skip(text, position + 1) != len(text):
        raise _broken_json(path, json.JSONDecodeError("text behind the list", text, _skip(text, position + 1)))


def _csv(path: Path) -> Iterator[_Row]:
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
                yield _row(where, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise DataError(f"`{path}` line {start}: broken CSV: {error}", "mend the row") from None


def _parquet(path: Path) -> Iterator[_Row]:
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
            yield _row(f"`{path}` row {number}", values)


def _broken_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"`{path}` cannot be read as Parquet: {' '.join(str(error).split())}", "check the file")


_READERS: dict[str, Callable[[Path], Iterator[_Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
