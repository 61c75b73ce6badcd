"""How a row becomes a sample."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from rlvr.taskfile.rows import Row, kind_of
from rlvr.taskfile.table import Table
from rlvr.types import Sample

_AS_JSON = re.compile(r"\s*\|\s*json\Z")
_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class Template:
    """Text with `{{column}}` or `{{column|json}}` in it, cut into literal text and columns, which alternate.

    Args:
        text: The text.
        table: The table it is from.
        key: Its key there.

    Raises:
        ConfigError: It names no column, or a `{{` opens none.
    """

    def __init__(self, text: str, table: Table, key: str) -> None:
        self.pieces: list[str] = _PLACEHOLDER.split(text)
        self.columns = self.pieces[1::2]
        for literal in self.pieces[::2]:
            if "{{" in literal:
                hint = "write `{{column}}`; a literal `{{` is not possible"
                raise table.refuse(key, "has `{{` that opens no column", hint)
        if not self.columns or not all(self.columns):
            raise table.refuse(key, "must name a column in every `{{}}`, and have one", "write `{{column}}`")

    @property
    def column(self) -> str | None:
        """The column, where the template is nothing but one."""
        alone = self.pieces[::2] == ["", ""] and not _AS_JSON.search(self.columns[0])
        return self.columns[0] if alone else None

    def text(self, row: Row) -> str:
        return "".join(_column_text(row, piece) if i % 2 else piece for i, piece in enumerate(self.pieces))

    def value(self, row: Row) -> Any:
        """The text, or the column's value as it is where the template is nothing but one."""
        return self.text(row) if self.column is None else row.get(self.column)

    def prompt(self, row: Row) -> str | list[dict[str, str]]:
        """The text, or a chat."""
        if self.column is not None and isinstance(row.get(self.column), list):
            return _chat(row, self.column)
        text = self.text(row)
        if not text.strip():
            raise row.refuse("the prompt is empty", self.columns[0])
        return text


def _column_text(row: Row, column: str) -> str:
    """A column's text, or its value as JSON where that is asked for and no column is called so."""
    if column not in row.values and (form := _AS_JSON.search(column)):
        return json.dumps(row.get(column[: form.start()]), ensure_ascii=False)
    return row.text(column)


@dataclass(frozen=True)
class Zipped:
    """A list of objects, made of a list for each of their fields."""

    fields: Mapping[str, Template]

    def value(self, row: Row) -> list[dict[str, Any]]:
        lists = {name: template.value(row) for name, template in self.fields.items()}
        for name, values in lists.items():
            if not isinstance(values, list):
                raise row.refuse(f"is {kind_of(values)}, but must be a list", self.fields[name].column)
        if len({len(values) for values in lists.values()}) > 1:
            lengths = ", ".join(f"{len(values)} for `{name}`" for name, values in lists.items())
            raise row.refuse(f"the lists differ in length: {lengths}")
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _chat(row: Row, column: str) -> list[dict[str, str]]:
    messages = row.get(column)
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


Golds = dict[str, list[tuple[Sample, str]]]
"""Samples and their perfect completions, by id. Two splits may have the same one."""


@dataclass(frozen=True)
class Form:
    """How a row becomes a sample."""

    prompt: Template
    answer: str | Template | None
    after: str | None
    id: str | None
    meta: Mapping[str, Template | Zipped] | None
    gold: Template | None = None

    def sample(self, row: Row) -> Sample:
        prompt = self.prompt.prompt(row)
        answer = self._answer(row)
        meta = row.values if self.meta is None else {name: made.value(row) for name, made in self.meta.items()}
        return Sample(self._id(row, prompt, answer), prompt, answer, meta)

    def gold_of(self, row: Row, sample: Sample) -> str | None:
        """How a perfect completion looks. `{{answer}}` is the sample's answer where it has one."""
        if self.gold is None:
            return None
        known = {} if sample.answer is None else {"answer": str(sample.answer)}
        return self.gold.text(Row(row.where, row.values | known))

    def _answer(self, row: Row) -> str | int | float | None:
        if self.answer is None:
            return None
        if isinstance(self.answer, Template):
            return self.answer.text(row)
        value = row.get(self.answer)
        if self.after is not None:
            _, marker, value = row.text(self.answer).rpartition(self.after)
            if not marker:
                raise row.refuse(f"`{self.after}` does not occur in it", self.answer)
            value = value.strip()
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise row.refuse(f"is {kind_of(value)}, but an answer must be text or a number", self.answer)
        if isinstance(value, str) and not value.strip():
            raise row.refuse("the answer is empty", self.answer)
        return value

    def _id(self, row: Row, prompt: Any, answer: Any) -> str:
        if self.id is None:
            content = json.dumps([prompt, answer], ensure_ascii=False, sort_keys=True)
            return hashlib.sha256(content.encode()).hexdigest()[:16]
        value = row.get(self.id)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            kind = kind_of(value) if value != "" else "empty"
            raise row.refuse(f"is {kind}, but an id must be text or a whole number", self.id)
        return str(value)

    def samples(self, rows: Iterator[Row], golds: Golds | None = None) -> list[Sample]:
        """All rows, checked; ids are unique among them. Perfect completions go to `golds`."""
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
            text = self.gold_of(row, sample)
            if golds is not None and text is not None:
                golds.setdefault(sample.id, []).append((sample, text))
            samples.append(sample)
        return samples
