"""Reads demonstrations, pairs and labels in the formats that TRL's users have, and says what cannot be used.

    demonstration   `messages`, the last one the assistant's; or `prompt` and `completion`; `tools` beside them
    pair            `prompt`, `chosen`, `rejected`; or `chosen` and `rejected` alone, as chats that begin alike
    label           `prompt`, `completion`, `label`

A prompt, a completion and what is chosen are text or a list of messages. One format is read as another where that
makes sense: of pairs what is chosen, and of labels what is good, are demonstrations; a pair makes two labels; a good
and a bad label of one prompt make a pair.

A source is a file, a run's directory, or `hub:NAME[:CONFIG][@SPLIT]` (a name on the hub or a folder; the split is
`train` unless named). A row that cannot be used never stops the reading: it comes back in the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rlvr.errors import DataError, nearest
from rlvr.examples.rows import Bad, Demonstration, Label, Pair, Report, key_of, squeezed
from rlvr.examples.runs import demonstrations_of_run, labels_of_run, pairs_of_run
from rlvr.taskfile.readers import TEXTS, Item, RowError, check_suffix, parquet_items, read_bytes
from rlvr.taskfile.rows import NotText, kind_of, plain
from rlvr.taskfile.sources import Hub
from rlvr.types import Message

HUB = "hub:"
FORMS = {
    "demonstration": "`messages`, or `prompt` and `completion`",
    "pair": "`prompt`, `chosen` and `rejected`, or `chosen` and `rejected` with the whole chat in both",
    "label": "`prompt`, `completion` and `label`",
}
TRUTH = {"true": True, "1": True, "false": False, "0": False}
"""What a label may be in a CSV file."""

R = TypeVar("R")
Chat = tuple[Message, ...]


def read_demonstrations(source: str) -> tuple[list[Demonstration], Report]:
    """What to imitate: the rows that can be used, in order, and what became of the others.

    Of labels only the good ones are taken, of pairs what is chosen; the report's facts say so.

    Args:
        source: A file, a run's directory, or `hub:NAME[:CONFIG][@SPLIT]`.

    Raises:
        DataError: There is no such source, it is broken as a whole, or a column is missing in every row.
        MissingDependencyError: It needs the extra `data`.
    """
    if isinstance(found := open_source(source, ("rollouts.jsonl", "pairs.jsonl")), Path):
        return demonstrations_of_run(found)
    report = Report(name_of(source))

    def take(row: Given) -> list[Demonstration]:
        if (
            "messages" not in row.values
            and "completion" not in row.values
            and {"chosen", "rejected"} <= set(row.values)
        ):
            report.facts["of_pairs"] = report.facts.get("of_pairs", 0) + 1
            pair = pair_of(row)
            return [Demonstration(pair.prompt, pair.chosen, row.where)]
        if "label" in row.values and not row.label():
            report.facts["labelled_bad"] = report.facts.get("labelled_bad", 0) + 1
            return []
        return [demonstration_of(row)]

    return collect(found, report, take, "demonstration", lambda d: (key_of(d.prompt), d.completion)), report


def read_pairs(source: str) -> tuple[list[Pair], Report]:
    """Preference pairs. Of labels, each good completion is put beside a bad one of its prompt, as far as they go.

    Args, Raises: As `read_demonstrations`.
    """
    if isinstance(found := open_source(source, ("pairs.jsonl", "rollouts.jsonl")), Path):
        return pairs_of_run(found)
    report = Report(name_of(source))
    labels: list[Label] = []

    def take(row: Given) -> list[Pair]:
        if "label" in row.values and not {"chosen", "rejected"} & set(row.values):
            labels.append(label_of(row))
            return []
        return [pair_of(row)]

    pairs = collect(found, report, take, "pair", lambda p: (key_of(p.prompt), p.chosen, p.rejected))
    return pairs + pairs_of_labels(labels, report), report


def read_labels(source: str) -> tuple[list[Label], Report]:
    """Completions with a label, good or bad. A pair makes one of each.

    Args, Raises: As `read_demonstrations`.
    """
    if isinstance(found := open_source(source, ("rollouts.jsonl", "pairs.jsonl")), Path):
        return labels_of_run(found)
    report = Report(name_of(source))

    def take(row: Given) -> list[Label]:
        if "label" not in row.values and {"chosen", "rejected"} <= set(row.values):
            report.facts["of_pairs"] = report.facts.get("of_pairs", 0) + 1
            return labels_of_pair(pair_of(row))
        return [label_of(row)]

    return collect(found, report, take, "label", lambda x: (key_of(x.prompt), x.completion, x.good)), report


def labels_of_pair(pair: Pair) -> list[Label]:
    """What is chosen is good, what is rejected is bad."""
    return [Label(pair.prompt, pair.chosen, True, pair.where), Label(pair.prompt, pair.rejected, False, pair.where)]


def pairs_of_labels(labels: Sequence[Label], report: Report) -> list[Pair]:
    """The first good completion of a prompt with its first bad one, and so on; what is left over is counted."""
    by_prompt: dict[Any, tuple[list[Label], list[Label]]] = {}
    for label in labels:
        by_prompt.setdefault(key_of(label.prompt), ([], []))[not label.good].append(label)
    pairs = []
    for good, bad in by_prompt.values():
        for best, worst in zip(good, bad, strict=False):
            if squeezed(best.completion) == squeezed(worst.completion):
                report.bad.append(Bad("chosen-equals-rejected", worst.where, f"is bad here and good at {best.where}"))
            else:
                pairs.append(Pair(best.prompt, best.completion, worst.completion, best.where))
    if labels:
        report.facts["labels_without_partner"] = sum(abs(len(good) - len(bad)) for good, bad in by_prompt.values())
    return pairs


# Sources


def open_source(source: str, files: Sequence[str]) -> Iterable[Item] | Path:
    """The rows of a source as they are; or the run whose rollouts they are to be made of.

    Args:
        source: As `read_demonstrations` takes it.
        files: What a run's directory may have to read, the first choice first.

    Raises:
        DataError: There is no such source.
    """
    if source.startswith(HUB):
        return hub_of(source).items()
    path = Path(source).expanduser()
    if path.is_dir():
        found = next((path / file for file in files if (path / file).is_file()), None)
        if found is None:
            listed = " nor ".join(f"`{file}`" for file in files)
            raise DataError(
                f"`{source}` is a folder that has neither {listed}",
                "give a run of `rlvr train` or `rlvr pairs`, a file, or `hub:FOLDER` for a data set of several files",
            )
        if found.name == "rollouts.jsonl":
            return path
        path = found
    elif not path.exists():
        raise DataError(
            f"there is no data file or run `{source}`", f"check the path; a data set on the hub is `{HUB}NAME`"
        )
    if check_suffix(path) == ".parquet":
        return parquet_items(path)
    # Bytes that are not UTF-8 become halves of surrogate pairs, which are found row by row.
    text = read_bytes(path).decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return TEXTS[path.suffix.lower()](path, text)


def hub_of(source: str) -> Hub:
    """`hub:NAME[:CONFIG][@SPLIT]` read.

    Raises:
        DataError: No name.
    """
    rest, _, split = source.removeprefix(HUB).rpartition("@")
    if not rest or "/" in split:  # a folder may have an @ in its path
        rest, split = source.removeprefix(HUB), "train"
    name, _, config = rest.partition(":")
    if not name or not split:
        raise DataError(f"`{source}` names no data set", "write `hub:NAME`, `hub:NAME:CONFIG` or `hub:NAME@SPLIT`")
    return Hub(str(Path(name).expanduser()) if name.startswith("~") else name, config or None, split)


def name_of(source: str) -> str:
    """A source in words."""
    return str(hub_of(source)) if source.startswith(HUB) else f"`{source}`"


def collect(
    items: Iterable[Item],
    report: Report,
    take: Callable[[Given], list[R]],
    form: str,
    key: Callable[[R], Any],
) -> list[R]:
    """What `take` makes of the rows; those that cannot be used go to the report, and duplicates are counted.

    Raises:
        DataError: The same column is missing in every row.
    """
    found: list[R] = []
    seen: set[Any] = set()
    missing: list[Missing] = []
    for item in items:
        report.rows += 1
        try:
            made = take(Given.read(item))
        except Unusable as error:
            report.bad.append(error.bad)
            if isinstance(error, Missing):
                missing.append(error)
            continue
        found += made
        seen.update(map(key, made))
    if missing and len(missing) == report.rows:
        first = missing[0]
        columns = dict.fromkeys(column for error in missing for column in error.columns)
        has = ", ".join(f"`{column}`" for column in list(columns)[:20]) or "none"
        hint = f"did you mean `{first.near}`? " if first.near else ""
        raise DataError(
            f"no row of {report.source} has a column `{first.column}`; the columns are {has}",
            f"{hint}A {form} has {FORMS[form]}",
        )
    report.facts["duplicates"] = len(found) - len(seen)
    return found


# Rows


class Unusable(Exception):
    """Why a row cannot be used."""

    def __init__(self, kind: str, where: str, detail: str) -> None:
        super().__init__(detail)
        self.bad = Bad(kind, where, detail)


class Missing(Unusable):
    """A column that a row lacks."""

    def __init__(self, where: str, column: str, columns: Iterable[str]) -> None:
        self.column, self.columns = column, tuple(columns)
        self.near = nearest(column, self.columns)
        near = f"; did you mean `{self.near}`?" if self.near else ""
        super().__init__("missing-column", where, f"there is no column `{column}`{near}")


class Given:
    """A row as it was given: JSON values by column, where it stands, and which columns were asked for."""

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where, self.values = where, values
        self.used: set[str] = set()

    @classmethod
    def read(cls, item: Item) -> Given:
        """One of a source.

        Raises:
            Unusable: It is no row, or has what is not UTF-8 or nested too deep.
        """
        if isinstance(item, RowError):
            raise Unusable(item.kind, item.where, item.problem)
        where, values = item
        clean: dict[str, Any] = {}
        for column, value in values.items():
            try:
                clean[str(plain(column))] = plain(value)
            except NotText:
                shown = str(column).encode(errors="replace").decode()
                raise Unusable("not-utf8", where, f"column `{shown}` is not UTF-8 text") from None
            except RecursionError:
                raise Unusable("wrong-type", where, f"column `{column}` is nested too deep") from None
            except ValueError:  # bytes, for instance, which matter only where they are asked for
                clean[str(column)] = Ellipsis
        return cls(where, clean)

    def wrong(self, detail: str) -> Unusable:
        return Unusable("wrong-type", self.where, detail)

    def get(self, column: str) -> Any:
        if column not in self.values:
            raise Missing(self.where, column, self.values)
        self.used.add(column)
        return self.values[column]

    def extra(self) -> dict[str, Any]:
        """The columns that were not asked for."""
        return {name: v for name, v in self.values.items() if name not in self.used and v is not Ellipsis}

    def chat(self, column: str) -> Chat:
        """A column as a chat: text is what the user says."""
        value = self.get(column)
        if isinstance(value, str):
            return ({"role": "user", "content": value},)
        if not isinstance(value, list):
            raise self.wrong(f"`{column}` is {kind_of(value)}, but must be text or a list of messages")
        return tuple(self.message(column, message) for message in value)

    def message(self, column: str, value: Any) -> Message:
        if not isinstance(value, dict) or not isinstance(value.get("role"), str):
            raise self.wrong(f"`{column}` has what is no message: an object with text `role` and `content`")
        if value.get("tool_calls"):
            raise self.wrong(f"`{column}` has a message with `tool_calls`, which are not read; write them as text")
        if not isinstance(value.get("content"), str):
            raise self.wrong(f"the `content` of a message in `{column}` is {kind_of(value.get('content'))}, not text")
        return {"role": value["role"], "content": value["content"]}

    def prompt(self, chat: Sequence[Message], column: str) -> Chat:
        """A chat as what the assistant is to answer."""
        if not any(message["content"].strip() for message in chat):
            raise Unusable("empty-prompt", self.where, f"`{column}` says nothing before the assistant's turn")
        if chat[-1]["role"] == "assistant":
            raise self.wrong(f"`{column}` ends with the assistant's turn before the completion")
        return tuple(chat)

    def answer(self, message: Message, column: str) -> str:
        """The text of the assistant's turn."""
        if message["role"] != "assistant":
            raise self.wrong(f"`{column}` ends with a turn of `{message['role']}`, not of `assistant`")
        return self.text(message["content"], column)

    def text(self, text: str, column: str) -> str:
        if not text.strip():
            raise Unusable("empty-completion", self.where, f"`{column}` is empty")
        return text

    def completion(self, column: str, prompt: Chat = ()) -> str:
        """A column as the text of the assistant's turn; messages of the prompt before it are left out."""
        value = self.get(column)
        if isinstance(value, str):
            return self.text(value, column)
        chat = self.chat(column)
        if not chat:
            raise Unusable("empty-completion", self.where, f"`{column}` has no messages")
        if len(chat) > 1 and chat[:-1] != prompt:
            raise self.wrong(f"`{column}` has {len(chat)} messages, but must be one turn of the assistant")
        return self.answer(chat[-1], column)

    def label(self) -> bool:
        value = self.get("label")
        if isinstance(value, str):
            value = TRUTH.get(value.strip().lower(), value)
        if value in (0, 1) and isinstance(value, (bool, int)):
            return bool(value)
        raise self.wrong(f"`label` is {kind_of(value)}, but must be true or false")

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools that the prompt shows; a list of objects, or the JSON text of one."""
        value = self.values.get("tools")
        if isinstance(value, str) and value.strip():
            try:
                value = plain(json.loads(value))
            except (ValueError, RecursionError):
                raise self.wrong("`tools` is text that is not JSON") from None
        if not value:
            return ()
        if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
            raise self.wrong("`tools` is no list of objects")
        return tuple(value)


def demonstration_of(row: Given) -> Demonstration:
    """A row as a demonstration.

    Raises:
        Unusable: It is none.
    """
    if row.values.get("messages") is not None and row.values.get("completion") is None:
        chat = row.chat("messages")
        if isinstance(row.values["messages"], str) or not chat:
            raise row.wrong("`messages` must be a list of messages, at least one")
        completion = row.answer(chat[-1], "messages")
        return Demonstration(row.prompt(chat[:-1], "messages"), completion, row.where, row.tools())
    if "prompt" not in row.values and "completion" not in row.values:
        raise Missing(row.where, "messages", row.values)
    prompt = row.prompt(row.chat("prompt"), "prompt")
    return Demonstration(prompt, row.completion("completion", prompt), row.where, row.tools())


def pair_of(row: Given) -> Pair:
    """A row as a pair.

    Raises:
        Unusable: It is none.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    whole = isinstance(chosen, list) and isinstance(rejected, list) and min(len(chosen), len(rejected)) > 1
    if whole:  # with the prompt in both, whether there is a column `prompt` or not
        good, bad = row.chat("chosen"), row.chat("rejected")
        if good[:-1] != bad[:-1]:
            raise row.wrong("`chosen` and `rejected` differ before their last messages")
        shared = good[:-1]
        if "prompt" in row.values and row.values["prompt"] is not None:
            given = row.chat("prompt")
            common = min(len(given), len(shared))
            if not common or given[-common:] != shared[-common:]:
                raise row.wrong("`prompt` is not what `chosen` and `rejected` begin with")
            shared = max(given, shared, key=len)  # a system message may be in one of them only
        prompt = row.prompt(shared, "chosen")
        best, worst = row.answer(good[-1], "chosen"), row.answer(bad[-1], "rejected")
    else:
        prompt = row.prompt(row.chat("prompt"), "prompt")
        best, worst = row.completion("chosen", prompt), row.completion("rejected", prompt)
    if squeezed(best) == squeezed(worst):
        same = "are the same" if best == worst else "differ in white space only"
        raise Unusable("chosen-equals-rejected", row.where, f"`chosen` and `rejected` {same}")
    return Pair(prompt, best, worst, row.where, row.extra())


def label_of(row: Given) -> Label:
    """A row as a label.

    Raises:
        Unusable: It is none.
    """
    prompt = row.prompt(row.chat("prompt"), "prompt")
    return Label(prompt, row.completion("completion", prompt), row.label(), row.where)
