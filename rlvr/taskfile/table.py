"""TOML tables whose keys are taken one by one, so that what nobody asked for is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlvr.errors import ConfigError, nearest


class _Required:
    """Marks a key without a default."""


_REQUIRED = _Required()


class Table:
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

    def table(self, key: str, default: Any = _REQUIRED) -> Table:
        return Table(self.take(key, dict, "a table", default), self.file, f"{self.prefix}{key}.")

    def done(self) -> None:
        for key in self.values:
            near = nearest(key, self.known)
            hint = f"did you mean `{near}`?" if near else "known: " + ", ".join(f"`{k}`" for k in self.known)
            raise self.refuse(key, "is not a key of a task", hint)
