"""The verifier of a TOML task: one by its name, with options, or a composition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlvr.composition import RULES, flaw
from rlvr.taskfile.rows import plain
from rlvr.taskfile.table import Table
from rlvr.types import Composition, Part


def verifier_of(top: Table) -> tuple[str | Composition, dict[str, Any]]:
    """What the key `verifier` says: a name and its options, or a composition, whose parts have theirs.

    Raises:
        ConfigError: A key is missing, unknown, of the wrong type, or does not fit the rule.
    """
    if not isinstance(top.values.get("verifier"), dict):
        return top.text("verifier"), {}
    table = top.table("verifier")
    if not _is_composition(table):
        return _named(table)
    composition = _composition(table)
    table.done()
    return composition, {}


def _is_composition(table: Table) -> bool:
    """A verifier may have an option that is called `rule`; it has no `parts`."""
    return "parts" in table.values or ("rule" in table.values and "name" not in table.values)


def _named(table: Table) -> tuple[str, dict[str, Any]]:
    """A verifier's name, and its options: every other key."""
    name = table.text("name")
    for option, given in table.values.items():
        try:
            table.values[option] = plain(given)
        except ValueError as error:
            raise table.refuse(option, str(error), "give it a JSON value") from None
    return name, table.values


def _composition(table: Table) -> Composition:
    """A rule over parts. The caller takes what stands next to them."""
    rule = table.text("rule")
    threshold = table.take("threshold", object, "a number", 1.0)
    given = table.table("parts")
    parts = {name: _part(given, name) for name in list(given.values)}
    composition = Composition(rule, parts, threshold)
    if found := flaw(composition):
        raise table.refuse(*found)
    return composition


def _part(parts: Table, name: str) -> Part:
    """One part: a verifier's name, or a table with a name or a rule."""
    if not isinstance(parts.values[name], Mapping):
        return Part(parts.text(name))
    table = parts.table(name)
    weight = table.take("weight", object, "a number", 1.0)
    required = table.take("required", bool, "`true` or `false`", True)
    if _is_composition(table):
        composition = _composition(table)
        table.done()
        return Part(composition, {}, weight, required)
    if "name" not in table.values:
        rules = ", ".join(f"`{rule}`" for rule in RULES)
        raise table.refuse("name", "is missing", f"give it the name of a verifier, or a `rule` ({rules}) and `parts`")
    verifier, options = _named(table)
    return Part(verifier, options, weight, required)
