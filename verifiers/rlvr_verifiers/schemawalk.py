"""How much of a JSON schema a value keeps to, and what is wrong with it: the error tree of a value that is not valid.

The share is that of the constraints that hold, in [0, 1), by these rules:

*   A value of another type than its schema's has 0.
*   What a schema asks of every value counts 1 each (`type`, `minimum`, `pattern`, ...), each required member 2. Of a
    required member that is there, and of the schemas of `allOf`, `$ref`, `anyOf` and `oneOf` (the best of these),
    the share within counts, so that an object with three members that are nearly right has more than an empty one.
*   What is asked only of what is there (optional members, items, further members) takes off: the share is divided by
    1 + what each of them lacks of 1.

So nothing counts in a share's denominator that depends on the value, and repairing or removing what is wrong never
lowers it. It takes a number of steps that is bounded by `STEPS`, also where `anyOf` calls itself again for what is
in a value, where an error tree with all branches grows exponentially. What needs more than that has a share of 0.

`jsonschema_rs` decides on single keywords here as it does on whole values, so that both agree.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from .jsontext import shown
from .schemarefs import References
from .schemawords import Path, message_for, spelled, type_name

STEPS = 10_000
"""Pairs of a schema and a value, and members of objects, that are looked at."""

BRANCHES = 16
"""Schemas of an `anyOf` or `oneOf` that are looked into where none is right; of more than that, none is."""

KEPT = 5
"""Problems that are told of one value."""

INVALID = 0.95
"""What a value that is not valid can have at most."""

_LIMITS = ["maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum"]
_SIZES = ["maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"]
_OTHERS = ["enum", "const", "multipleOf", "pattern", "uniqueItems", "format", "contentEncoding", "contentMediaType"]
LEAVES = frozenset(_LIMITS + _SIZES + _OTHERS)
"""Keywords that can be decided by themselves."""

WHOLE = "whole"
_REFERENCE = re.compile(r'"\$(?:ref|dynamicRef|recursiveRef|id|schema)":|"id": "')
_ELSEWHERE = re.compile(r'"\$(?:dynamicRef|recursiveRef|id|schema)":|"id": "|"\$ref": (?!"#/(?:\$defs|definitions)/)')


class Problem(NamedTuple):
    """Something that a schema does not allow.

    Attributes:
        path: Where in the value, such as `$.items[0].name`.
        message: What is wrong there, in words that follow the path: `is "3", not an integer`.
    """

    path: str
    message: str


class Report(NamedTuple):
    """What is known of a value that is not valid.

    Attributes:
        share: The share of the constraints that hold.
        failed: How many constraints do not hold.
        problems: The first that do not hold, `KEPT` at most.
    """

    share: float
    failed: int
    problems: tuple[Problem, ...]


class TooMuch(Exception):
    """It takes too many steps to look at everything."""


@dataclass(slots=True)
class _Tally:
    """What is known of one value under one schema, so far."""

    got: float = 0.0
    of: float = 0.0
    off: float = 0.0
    failed: int = 0
    problems: list[Problem] = field(default_factory=list)

    def ask(self, holds: bool, path: Path, message: Callable[[], str], weight: float = 1.0) -> None:
        """Counts a constraint on every value."""
        self.of += weight
        if holds:
            self.got += weight
        else:
            self.note(path, message)

    def note(self, path: Path, message: Callable[[], str]) -> None:
        self.failed += 1
        if len(self.problems) < KEPT:
            self.problems.append(Problem(spelled(path), message()))

    def deny(self, path: Path, message: Callable[[], str]) -> None:
        """Counts something that is there and must not be."""
        self.off += 1.0
        self.note(path, message)

    def join(self, within: Report, weight: float = 0.0) -> None:
        """Counts what is known of a part: with a weight if it is asked of every value, else as what takes off."""
        if weight:
            self.of += weight
            self.got += weight * within.share
        else:
            self.off += 1.0 - within.share
        if within.failed:
            self.failed += within.failed
            self.problems.extend(within.problems[: KEPT - len(self.problems)])

    def report(self) -> Report:
        if not self.failed:
            return FINE
        share = (self.got / self.of if self.of else 1.0) / (1.0 + self.off)
        return Report(share, self.failed, tuple(self.problems))


FINE = Report(1.0, 0, ())
NOTHING = Report(0.0, 1, ())


class Walker:
    """Looks at values under one schema.

    Args:
        schema: The whole schema.
        draft: Its number, as `jsonschema_rs` has it: 4, 6, 7, 19 or 20.
        references: Those of the schema.
        valid: The validity check of the whole schema.
        compiled: Makes the validity check of a schema that stands by itself; None where it cannot.
    """

    def __init__(
        self,
        schema: Any,
        draft: int,
        references: References,
        valid: Callable[[Any], bool],
        compiled: Callable[[Any], Callable[[Any], bool] | None],
    ) -> None:
        self.schema, self.draft = schema, draft
        self._references = references
        self._compile = compiled
        self._checks: dict[tuple[int, str], Callable[[Any], bool] | None] = {(id(schema), WHOLE): valid}
        self._held: list[Any] = []

    def report(self, value: Any) -> Report:
        """What is known of a value that is not valid."""
        try:
            found = _Walk(self).node(self.schema, value, (), None)
        except (TooMuch, RecursionError):
            return Report(0.0, 1, (Problem("$", "breaks the schema, and is too large to say where"),))
        if not found.failed:  # what fails is beyond this module
            return Report(INVALID, 1, (Problem("$", "breaks the schema"),))
        return found._replace(share=INVALID * found.share)

    def check(self, schema: dict[str, Any], keyword: str) -> Callable[[Any], bool] | None:
        """The validity check of one keyword, or of the `WHOLE` schema; None where it needs what stands elsewhere."""
        key = (id(schema), keyword)
        if key not in self._checks:
            self._held.append(schema)  # so that no other takes its id
            alone = self._whole(schema) if keyword == WHOLE else self._alone(schema, keyword)
            self._checks[key] = None if alone is None else self._compile(alone)
        return self._checks[key]

    def pattern(self, holder: dict[str, Any], pattern: str) -> Callable[[Any], bool] | None:
        """The check of names against one key of `patternProperties`."""
        key = (id(holder), pattern)
        if key not in self._checks:
            self._held.append(holder)
            self._checks[key] = self._compile({"pattern": pattern})
        return self._checks[key]

    def _alone(self, schema: dict[str, Any], keyword: str) -> Any:
        if self.draft == 4 and keyword in _LIMITS:  # an exclusive limit is a flag beside the limit
            return {name: schema[name] for name in _LIMITS if name in schema and name[-6:] == keyword[-6:]}
        return {keyword: schema[keyword]}

    def _whole(self, schema: dict[str, Any]) -> Any:
        """A schema with the definitions that it refers to; None where it refers to something else."""
        if not _REFERENCE.search(json.dumps(schema)):
            return schema
        whole = {name: self.schema[name] for name in ("$defs", "definitions") if name in self.schema} | schema
        return None if _ELSEWHERE.search(json.dumps(whole)) else whole


class _Walk:
    """One look at one value."""

    def __init__(self, walker: Walker) -> None:
        self.walker = walker
        self.draft = walker.draft
        self.left = STEPS
        self.known: dict[tuple[int, int], Report] = {}

    def step(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise TooMuch

    def node(self, schema: Any, value: Any, path: Path, resolver: Any) -> Report:
        """What is known of a value under a schema."""
        self.step()
        if not isinstance(schema, dict):
            if schema is False:
                return Report(0.0, 1, (Problem(spelled(path), "is not allowed"),))
            return FINE
        check = self.walker.check(schema, WHOLE)
        if check is not None and check(value):
            return FINE
        key = (id(schema), id(value)) if isinstance(value, dict | list) else None
        if key in self.known:
            return self.known[key]
        tally = _Tally()
        if "$ref" in schema and self.draft <= 7:
            self.reference(tally, schema["$ref"], value, path, resolver)
        elif self.right_type(tally, schema, value, path):
            inside = self.walker._references.enter(schema, resolver)
            self.keywords(tally, schema, value, path, inside)
        found = tally.report()
        if key is not None:
            self.known[key] = found
        return found

    def right_type(self, tally: _Tally, schema: dict[str, Any], value: Any, path: Path) -> bool:
        if "type" not in schema:
            return True
        check = self.walker.check(schema, "type")
        holds = check is None or check(value)
        tally.ask(holds, path, lambda: f"is {shown(value)}, not {type_name(schema['type'])}")
        return holds

    def keywords(self, tally: _Tally, schema: dict[str, Any], value: Any, path: Path, resolver: Any) -> None:
        """All that a schema says but for the type."""
        for keyword in schema:
            if keyword in LEAVES:
                check = self.walker.check(schema, keyword)
                holds = check is None or check(value)
                tally.ask(holds, path, partial(message_for, keyword, schema[keyword], value))
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(schema.get(keyword), str):
                self.reference(tally, schema[keyword], value, path, resolver)
        self.logic(tally, schema, value, path, resolver)
        if isinstance(value, dict):
            self.members(tally, schema, value, path, resolver)
        elif isinstance(value, list):
            self.items(tally, schema, value, path, resolver)
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            self.unevaluated(tally, schema, value, path)

    def reference(self, tally: _Tally, reference: str, value: Any, path: Path, resolver: Any) -> None:
        place = self.walker._references.follow(reference, resolver)
        if place is not None:
            tally.join(self.node(place[0], value, path, place[1]), weight=1.0)

    def logic(self, tally: _Tally, schema: dict[str, Any], value: Any, path: Path, resolver: Any) -> None:
        for branch in schema.get("allOf", ()):
            tally.join(self.node(branch, value, path, resolver), weight=1.0)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                self.choice(tally, keyword, schema[keyword], value, path, resolver)
        if "not" in schema and (self.draft > 4 or isinstance(schema["not"], dict)):
            holds = not self.holds(schema["not"], value, path, resolver)
            tally.ask(holds, path, lambda: f"is {shown(value)}, which `not` excludes")
        if "if" in schema and self.draft >= 7:
            branch = "then" if self.holds(schema["if"], value, path, resolver) else "else"
            if branch in schema:
                tally.join(self.node(schema[branch], value, path, resolver))

    def choice(self, tally: _Tally, keyword: str, branches: list[Any], value: Any, path: Path, resolver: Any) -> None:
        """`anyOf` and `oneOf`: what is wrong with the branch that is nearest."""
        right = sum(self.holds(branch, value, path, resolver) for branch in branches)
        if right == 1 or (right and keyword == "anyOf"):
            tally.ask(True, path, str)
            return
        found = [self.node(branch, value, path, resolver) for branch in branches if len(branches) <= BRANCHES]
        nearest = max(found, key=lambda report: report.share, default=NOTHING)
        if right:
            tally.ask(False, path, lambda: f"is {shown(value)}, which {right} schemas of `oneOf` allow")
            tally.got += 0.5
        elif nearest.share > 0 or len(found) == 1:
            tally.join(nearest, weight=1.0)
        else:
            tally.ask(False, path, lambda: f"is {shown(value)}, which no schema of `{keyword}` allows")

    def holds(self, schema: Any, value: Any, path: Path, resolver: Any) -> bool:
        """Whether a schema allows a value, looked into only where that cannot be told otherwise."""
        check = self.walker.check(schema, WHOLE) if isinstance(schema, dict) else None
        if check is None:
            return not self.node(schema, value, path, resolver).failed
        self.step()
        return check(value)

    def members(self, tally: _Tally, schema: dict[str, Any], value: dict[str, Any], path: Path, resolver: Any) -> None:
        self.step(len(value))
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        required = dict.fromkeys(required) if isinstance(required, list) else {}
        for name in required:
            if name not in value:
                tally.ask(False, (*path, name), lambda: "is missing", weight=2.0)
            elif name not in properties:
                tally.ask(True, path, str, weight=2.0)
        for name, within in properties.items():
            if name in value:
                report = self.node(within, value[name], (*path, name), resolver)
                tally.join(report, weight=2.0 if name in required else 0.0)
        self.other_members(tally, schema, value, path, resolver)
        self.dependencies(tally, schema, value, path, resolver)
        if "propertyNames" in schema and self.draft >= 6:
            for name in value:
                if not self.holds(schema["propertyNames"], name, path, resolver):
                    tally.deny((*path, name), lambda: "has a name that is not allowed")

    def other_members(
        self, tally: _Tally, schema: dict[str, Any], value: dict[str, Any], path: Path, resolver: Any
    ) -> None:
        patterns = schema.get("patternProperties", {})
        checks = [(self.walker.pattern(patterns, pattern), within) for pattern, within in patterns.items()]
        others = schema.get("additionalProperties", True)
        if not checks and others is True:
            return
        properties = schema.get("properties", {})
        for name, member in value.items():
            matched = [within for check, within in checks if check is not None and check(name)]
            for within in matched:
                tally.join(self.node(within, member, (*path, name), resolver))
            if matched or name in properties:
                continue
            if others is False:
                tally.deny((*path, name), lambda: "is not allowed")
            else:
                tally.join(self.node(others, member, (*path, name), resolver))

    def dependencies(self, tally: _Tally, schema: dict[str, Any], value: Any, path: Path, resolver: Any) -> None:
        keywords = ("dependencies",) if self.draft <= 7 else ("dependentRequired", "dependentSchemas")
        for keyword in keywords:
            for name, asked in schema.get(keyword, {}).items():
                if name not in value:
                    continue
                if isinstance(asked, list):
                    for other in asked:
                        if other not in value:
                            tally.deny((*path, other), partial("is missing, which {} needs".format, shown(name)))
                else:
                    tally.join(self.node(asked, value, path, resolver))

    def items(self, tally: _Tally, schema: dict[str, Any], value: list[Any], path: Path, resolver: Any) -> None:
        self.step(len(value))
        first, rest = schema.get("prefixItems", []) if self.draft >= 20 else [], schema.get("items", True)
        if isinstance(rest, list):
            first, rest = rest, schema.get("additionalItems", True)
        for index, (within, item) in enumerate(zip(first, value, strict=False)):
            tally.join(self.node(within, item, (*path, index), resolver))
        if rest is not True:
            for index, item in enumerate(value[len(first) :], len(first)):
                tally.join(self.node(rest, item, (*path, index), resolver))
        if "contains" in schema and self.draft >= 6:
            self.contains(tally, schema, value, path, resolver)

    def contains(self, tally: _Tally, schema: dict[str, Any], value: list[Any], path: Path, resolver: Any) -> None:
        found = sum(self.holds(schema["contains"], item, path, resolver) for item in value)
        least = schema.get("minContains", 1) if self.draft >= 19 else 1
        most = schema.get("maxContains", math.inf) if self.draft >= 19 else math.inf
        tally.ask(found >= least, path, lambda: f"holds {found} items of the kind that `contains` asks {least} of")
        if most != math.inf:
            tally.ask(found <= most, path, lambda: f"holds {found} items of the kind of which {most} are allowed")

    def unevaluated(self, tally: _Tally, schema: dict[str, Any], value: Any, path: Path) -> None:
        """Members or items that no keyword has looked at, of which only the library knows.

        It is asked about the schema as a whole, so that all the rest has to hold first.
        """
        holds = not tally.failed and self.walker.check(schema, WHOLE) is None  # with a check, it is not valid here
        tally.ask(holds, path, lambda: "holds what no part of the schema speaks of")
