"""Rows of data: JSON values by column, and where they stand."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlvr.errors import DataError, nearest


@dataclass(frozen=True)
class Row:
    """A row and where it stands, such as "`train.jsonl` line 3"."""

    where: str
    values: dict[str, Any]

    def refuse(self, problem: str, column: str | None = None, hint: str = "") -> DataError:
        at = f"{self.where}, column `{column}`" if column else self.where
        return DataError(f"{at}: {problem}", hint or "mend the row, or take it out; none is skipped silently")

    def get(self, column: str) -> Any:
        """The value of a column, or what a dotted path leads to in it."""
        if column in self.values:
            return self.values[column]
        first, *steps = column.split(".")
        if not steps or first not in self.values:
            near = nearest(column, self.values)
            has = ", ".join(f"`{name}`" for name in self.values) or "none"
            hint = f"did you mean `{near}`? " if near else ""
            raise self.refuse("there is no such column", column, f"{hint}The columns are {has}")
        value = self.values[first]
        for step in steps:
            value = self._step(value, step, column)
        return value

    def _step(self, value: Any, step: str, column: str) -> Any:
        """What `step` names in a value: an element of a list, or a field of an object or of all objects in a list."""
        if isinstance(value, str):
            try:
                value = plain(json.loads(value))
            except (ValueError, RecursionError) as error:
                raise self.refuse(f"has no `{step}`, as its text is not JSON: {error}", column) from None
        if isinstance(value, list):
            if not step.isdecimal():
                return [self._step(item, step, column) for item in value]
            if int(step) < len(value):
                return value[int(step)]
            raise self.refuse(f"there is no `{step}` in a list of {len(value)}, which is counted from 0", column)
        if not isinstance(value, dict):
            raise self.refuse(f"is {kind_of(value)} where `{step}` is looked for", column)
        if step not in value:
            has = ", ".join(f"`{name}`" for name in value) or "nothing"
            raise self.refuse(f"there is no `{step}` in an object", column, f"It has {has}")
        return value[step]

    def text(self, column: str) -> str:
        """The text of a column; a list of texts stands for its lines."""
        value = self.get(column)
        if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
            return "\n".join(value)
        if not isinstance(value, str):
            raise self.refuse(f"is {kind_of(value)}, but must be text", column)
        return value


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object")


class NotText(ValueError):
    """Text that cannot be encoded: half of a surrogate pair, which bytes that are no UTF-8 can be read as."""


def plain(value: Any) -> Any:
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
            raise NotText("has half of a surrogate pair, which is not Unicode text") from None
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
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    raise ValueError(f"has a `{type(value).__name__}`, which JSON has no form for")


def make_row(where: str, values: Mapping[Any, Any]) -> Row:
    row = Row(where, {})
    for column, value in values.items():
        try:
            row.values[str(plain(column))] = plain(value)
        except ValueError as error:
            raise row.refuse(str(error), str(column).encode(errors="replace").decode()) from None
    return row
