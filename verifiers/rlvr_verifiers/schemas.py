"""Compiled JSON schemas, one for each content, whatever object it comes in.

`jsonschema_rs` says whether a value is valid: it has the whole official suite right, and its regular expressions run in
linear time (those with look-around or back-references under a limit of `BACKTRACKING` steps, beyond which they do not
match). `schemawalk` says what is wrong with a value and how much of the schema it keeps to.

*   Drafts 4, 6, 7, 2019-09 and 2020-12, by `$schema`; 2020-12 where there is none.
*   Nothing is fetched: a `$ref` to elsewhere has to be in the registry that is given.
*   `format` says nothing unless asked for; then the formats of 2020-12 hold in every draft. Unknown ones are ignored.
*   A schema that leads back to itself without end is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .jsontext import short
from .schemarefs import References
from .schemawalk import FINE, Problem, Report, Walker
from .schemawords import spelled

__all__ = ["BadSchema", "Checker", "Problem", "Report", "checker"]

KEPT = 512
"""Compiled schemas that are kept."""

BACKTRACKING = 100_000

_CLASSES = {
    4: "Draft4Validator",
    6: "Draft6Validator",
    7: "Draft7Validator",
    19: "Draft201909Validator",
    20: "Draft202012Validator",
}

_NEW_FORMATS = ("duration", "uuid")
"""Formats of 2020-12 that `jsonschema_rs` does not check in older drafts."""


class BadSchema(ValueError):
    """A schema that cannot be used; the message says why. It is the task's fault."""


class Checker:
    """One compiled schema.

    Attributes:
        valid: `valid(value)` says whether the schema allows a JSON value.
        schema: The schema; nobody may change it.
    """

    def __init__(self, schema: Any, formats: bool = False, registry: Mapping[str, Any] | None = None) -> None:
        """Compiles.

        Raises:
            BadSchema: It is no schema, one that leads back to itself, or one that refers to what is not there.
        """
        import jsonschema_rs

        if not isinstance(schema, bool | dict):
            raise BadSchema(f"a schema is an object or true or false, not {short(json.dumps(schema), 40)}")
        self.schema = schema
        self._draft = _draft(schema)
        self._options: dict[str, Any] = {
            "validate_formats": formats,
            "pattern_options": jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKING),
        }
        if formats and self._draft < 19:
            self._options["formats"] = {name: _format(name) for name in _NEW_FORMATS}
        others = dict(registry or {})
        try:
            meta = _metaschemas(schema, others)
            validator = jsonschema_rs.validator_for(
                schema, **self._options, **meta, retriever=lambda uri: _given(others, uri)
            )
        except jsonschema_rs.ValidationError as error:
            where = f" at `{spelled(tuple(error.instance_path))}`" if error.instance_path else ""
            raise BadSchema(f"the schema cannot be used{where}: {short(error.message, 300)}") from None
        except (ValueError, jsonschema_rs.ReferencingError, RecursionError) as error:
            raise BadSchema(f"the schema cannot be used: {short(str(error), 300)}") from None
        references = References(schema, self._draft, registry)
        if loop := references.loop():
            raise BadSchema(f"the schema leads back to itself without end, at the `$ref` `{short(loop)}`")
        self.valid: Callable[[Any], bool] = validator.is_valid
        self._walker = Walker(schema, self._draft, references, self.valid, self._part)

    def report(self, value: Any) -> Report:
        """The share of the constraints that hold for a value, and the first that do not."""
        return FINE if self.valid(value) else self._walker.report(value)

    def problems(self, value: Any, limit: int = 5) -> list[Problem]:
        """The first things that are wrong with a value, at most `limit`; empty when it is valid."""
        return list(self.report(value).problems[:limit])

    def _part(self, schema: Any) -> Callable[[Any], bool] | None:
        """The check of a part of the schema that stands by itself; None where it needs the rest."""
        import jsonschema_rs

        try:
            return getattr(jsonschema_rs, _CLASSES[self._draft])(schema, **self._options, offline=True).is_valid
        except (ValueError, jsonschema_rs.ReferencingError):
            return None


def _draft(schema: Any) -> int:
    """The number of a schema's draft, as `jsonschema_rs` has it."""
    uri = schema.get("$schema") if isinstance(schema, dict) else None
    if isinstance(uri, str):
        for part, number in (("draft-04/", 4), ("draft-06/", 6), ("draft-07/", 7), ("2019-09/", 19)):
            if part in uri:
                return number
    return 20


def _given(others: Mapping[str, Any], uri: str) -> Any:
    if uri not in others:
        raise ValueError("it is not in the registry, and nothing is fetched")
    return others[uri]


def _metaschemas(schema: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """The option with the schemas of the schema, where it is written in a dialect of its own."""
    import jsonschema_rs

    found: list[tuple[str, Any]] = []
    uri = schema.get("$schema") if isinstance(schema, dict) else None
    while isinstance(uri, str) and uri in others and len(found) < 8:
        found.append((uri, others[uri]))
        above = others[uri].get("$schema") if isinstance(others[uri], dict) else None
        uri = above if above != uri else None
    return {"registry": jsonschema_rs.Registry(found)} if found else {}


def _format(name: str) -> Callable[[Any], bool]:
    import jsonschema_rs

    check: Callable[[Any], bool] = jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True).is_valid
    return check


_cache: dict[str, Checker] = {}


def checker(schema: Any, *, formats: bool = False, registry: Mapping[str, Any] | None = None) -> Checker:
    """The compiled form of a schema; a schema of the same content is compiled once.

    Args:
        schema: An object, true or false.
        formats: Whether `format` counts.
        registry: Other schemas by their URI, for `$ref`.

    Raises:
        BadSchema: It cannot be used.
    """
    try:
        key = repr((schema, formats, registry))  # quicker than JSON, and tells 1 from 1.0 and true
    except (ValueError, RecursionError):
        raise BadSchema("the schema is too deep, or holds a number that is too long") from None
    found = _cache.get(key)
    if found is None:
        found = Checker(schema, formats, registry)
        while len(_cache) >= KEPT:
            _cache.pop(next(iter(_cache)), None)
        _cache[key] = found
    return found
