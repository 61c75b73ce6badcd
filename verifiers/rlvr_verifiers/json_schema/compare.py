"""Compares a value with a reference, field by field, by the rules of a task.

`compare` gives a rule for a path; paths are those of the reference, `[]` for the items of an array, `$` for all of it:

    {"price": 0.01}              a number may be off by 0.01
    {"price": "1%"}              ... or by one percent of the reference
    {"name": "text"}             case, white space and the forms of Unicode characters (NFKC) do not matter
    {"tags": "set"}              neither order nor how often an item occurs matters
    {"tags": "bag"}              order does not matter
    {"items[].note": "ignore"}   not compared; it may also be missing, or be there where the reference has none
    {"age": "exact"}             as where no rule is given

A rule holds for what is below its path too, unless that has one of its own: `{"$": "text", "id": "exact"}`; but `set`
and `bag` are for the array at the path alone, whose items compare by the rules of `tags[]`.

All else is exact: JSON's equality (`1` is `1.0`, `true` is not `1`), arrays in order, no member too few or too many;
null is not the same as missing.

The share of the fields that are right is by leaves: what is no object and no array, and empty ones. A leaf that is
empty, zero, false or null in the reference counts a fifth of another, so that a completion of defaults has little. What
the value has besides counts as wrong. Repairing one leaf never lowers the share.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ..jsontext import same, same_number, shown
from ..schemawords import Path, spelled

STEPS = 60_000
"""Values that are compared at most to match the items of a set or bag that are equal within a tolerance; beyond that,
items match that are the same."""

MARKS = 30
"""Combining marks on one letter that are read, as in UAX 15: to put more of them in order takes quadratic time."""

BLANK_WEIGHT = 0.2
WORDS = ("exact", "text", "set", "bag", "ignore")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_KEY = re.compile(r"[^.\[\]]+|\[\]")


class BadRules(ValueError):
    """Rules of comparison that cannot be used: the task's fault."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How the fields at a path compare.

    Attributes:
        kind: `exact`, `text`, `set`, `bag` or `ignore`.
        absolute, relative: How far a number may be off.
    """

    kind: str = "exact"
    absolute: float = 0.0
    relative: float = 0.0


class Outcome(NamedTuple):
    """What a comparison found.

    Attributes:
        equal: Whether all fields are equal.
        share: The share of the fields that are, in [0, 1].
        difference: The first that is not, in words; empty when all are.
    """

    equal: bool
    share: float
    difference: str


class Rules:
    """The rules of one task, read.

    Args:
        compare: A rule by path.
        tolerance: How far a number may be off where no rule says so, absolute.

    Raises:
        BadRules: One of them cannot be used.
    """

    def __init__(self, compare: Mapping[str, Any] | None = None, tolerance: float = 0.0) -> None:
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < float("inf"):
            raise BadRules(f"`tolerance` must be a number of at least 0, not {shown(tolerance)}")
        if compare is not None and not isinstance(compare, Mapping):
            raise BadRules(f"`compare` must give a rule for each path, not {shown(compare)}")
        self.default = Rule(absolute=float(tolerance))
        self.given = {_parts(path): _rule(path, rule, self.default) for path, rule in (compare or {}).items()}
        self._known: dict[tuple[str, ...], Rule] = {}

    def at(self, path: tuple[str, ...]) -> Rule:
        """The rule for a path: its own, or that of what it is in."""
        if not self.given:
            return self.default
        if path not in self._known:
            rule = self.given.get(path)
            if rule is None:
                above = self.at(path[:-1]) if path else self.default
                rule = self.default if above.kind in ("set", "bag") else above
            self._known[path] = rule
        return self._known[path]

    def compare(self, reference: Any, value: Any) -> Outcome:
        """Compares a value with a reference."""
        if not self.given and not self.default.absolute and same(reference, value):
            return Outcome(True, 1.0, "")
        tally = _Tally(self)
        tally.node(reference, value, (), ())
        share = tally.right / (tally.right + tally.wrong) if tally.right + tally.wrong else 1.0
        return Outcome(not tally.differences, share, next(iter(tally.differences), ""))


def _parts(path: str) -> tuple[str, ...]:
    body = path.removeprefix("$").removeprefix(".")
    parts = tuple(_KEY.findall(body))
    if "".join(parts).replace("[]", "") != body.replace(".", "").replace("[]", "") or ".." in body:
        raise BadRules(f"`compare` has the path `{path}`; write it as in `items[].price`")
    return parts


def _rule(path: str, rule: Any, default: Rule) -> Rule:
    if isinstance(rule, str):
        if rule in WORDS:
            return Rule(rule, 0.0 if rule == "exact" else default.absolute)
        if percent := _PERCENT.fullmatch(rule):
            return Rule(relative=float(percent[1]) / 100)
    elif isinstance(rule, int | float) and not isinstance(rule, bool) and 0 <= rule < float("inf"):
        return Rule(absolute=float(rule))
    known = ", ".join(f'"{word}"' for word in WORDS)
    raise BadRules(f'`compare` has the rule {shown(rule)} for `{path}`; known: {known}, a number, a text such as "1%"')


class _Differs(Exception):
    """Two values are not equal, which is all that was asked."""


class _Spent(Exception):
    """More steps are needed than there are."""


class _Tally:
    """The fields that are right and wrong, by weight.

    Args:
        rules: How they compare.
        asking: The tally that only asks whether two values are equal, and shares its steps.
    """

    def __init__(self, rules: Rules, asking: _Tally | None = None) -> None:
        self.rules = rules
        self.right = self.wrong = 0.0
        self.differences: list[str] = []
        self.hasty = asking is not None
        self.steps: list[int] = asking.steps if asking else [STEPS]

    def step(self) -> None:
        if self.hasty:
            self.steps[0] -= 1
            if self.steps[0] < 0:
                raise _Spent

    def node(self, a: Any, b: Any, key: tuple[str, ...], path: Path) -> None:
        """Compares reference `a` with `b`; `key` is the path as rules write it."""
        self.step()
        rule = self.rules.at(key)
        if rule.kind == "ignore":
            return
        if isinstance(a, dict) and isinstance(b, dict) and (a or not b):
            self.members(a, b, key, path)
        elif isinstance(a, list) and isinstance(b, list) and (a or not b):
            if rule.kind in ("set", "bag"):
                self.loose_items(a, b, key, path, rule)
            else:
                self.items(a, b, key, path)
        elif not isinstance(a, dict | list) and _equal(a, b, rule):
            self.right += _weight(a)
        else:
            self.lose(a, key, lambda: f"`{spelled(path)}` is {shown(b)}, not {shown(a)}")

    def members(self, a: dict[str, Any], b: dict[str, Any], key: tuple[str, ...], path: Path) -> None:
        if not a:
            self.right += BLANK_WEIGHT
        for name, member in a.items():
            if name in b:
                self.node(member, b[name], (*key, name), (*path, name))
            else:
                self.lose(member, (*key, name), partial("`{}` is missing".format, spelled((*path, name))))
        for name in b.keys() - a.keys():
            self.add((*key, name), partial("`{}` is not in the reference".format, spelled((*path, name))))

    def items(self, a: list[Any], b: list[Any], key: tuple[str, ...], path: Path) -> None:
        if not a:
            self.right += BLANK_WEIGHT
        inner = (*key, "[]")
        for index, (one, other) in enumerate(zip(a, b, strict=False)):
            self.node(one, other, inner, (*path, index))

        def said() -> str:
            return f"`{spelled(path)}` has {len(b)} items, not {len(a)}"

        for item in a[len(b) :]:
            self.lose(item, inner, said)
        for _ in b[len(a) :]:
            self.add(inner, said)

    def loose_items(self, a: list[Any], b: list[Any], key: tuple[str, ...], path: Path, rule: Rule) -> None:
        """The items of a set or bag, each matched with one that is equal, as many as can be."""
        inner = (*key, "[]")
        if rule.kind == "set":
            a, b = self.distinct(a, inner), self.distinct(b, inner)
        if not a:
            self.right += BLANK_WEIGHT
        partner = self.matched(a, b, inner)
        for index, item in enumerate(a):
            if index in partner:
                self.right += self.total(item, inner)
            else:
                self.lose(item, inner, partial(self.said, path, "lacks {}", item))
        taken = set(partner.values())
        for index, item in enumerate(b):
            if index not in taken:
                self.add(inner, partial(self.said, path, "has {}, which is not in the reference", item))

    def said(self, path: Path, words: str, item: Any) -> str:
        return f"`{spelled(path)}` {words.format(shown(item))}"

    def distinct(self, items: list[Any], key: tuple[str, ...]) -> list[Any]:
        return list({self.name(item, key): item for item in items}.values())

    def matched(self, a: list[Any], b: list[Any], key: tuple[str, ...]) -> dict[int, int]:
        """The number of the item of `b` for as many of `a` as can be; those that are the same by name come first."""
        by_name: dict[str, list[int]] = {}
        for index, item in enumerate(b):
            by_name.setdefault(self.name(item, key), []).append(index)
        partner: dict[int, int] = {}
        for index, item in enumerate(a):
            if there := by_name.get(self.name(item, key)):
                partner[index] = there.pop()
        if not self.tolerant(key):
            return partner
        try:
            near = {i: [j for j in range(len(b)) if self.equal(a[i], b[j], key)] for i in range(len(a))}
        except _Spent:
            if self.hasty:
                raise
            return partner
        owner = {j: i for i, j in partner.items()}
        for i in near:
            if i not in partner:
                _augment(i, near, owner)
        return {i: j for j, i in owner.items()}

    def tolerant(self, key: tuple[str, ...]) -> bool:
        """Whether equality at or below a path is more than equality of names."""
        rules = [self.rules.at(key), *(rule for path, rule in self.rules.given.items() if path[: len(key)] == key)]
        return any(rule.absolute or rule.relative or rule.kind in ("set", "bag", "ignore") for rule in rules)

    def equal(self, a: Any, b: Any, key: tuple[str, ...]) -> bool:
        try:
            _Tally(self.rules, self).node(a, b, key, ())
        except _Differs:
            return False
        return True

    def name(self, value: Any, key: tuple[str, ...]) -> str:
        """A text that is the same for values that are."""
        return json.dumps(self.normal(value, key), sort_keys=True)

    def normal(self, value: Any, key: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {name: self.normal(member, (*key, name)) for name, member in value.items()}
        if isinstance(value, list):
            return [self.normal(item, (*key, "[]")) for item in value]
        if isinstance(value, str) and self.rules.at(key).kind == "text":
            return plain_text(value)
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value

    def total(self, reference: Any, key: tuple[str, ...]) -> float:
        """The weight of all leaves of a part of the reference."""
        self.step()
        if self.rules.at(key).kind == "ignore":
            return 0.0
        if isinstance(reference, dict) and reference:
            return sum(self.total(member, (*key, name)) for name, member in reference.items())
        if isinstance(reference, list) and reference:
            return sum(self.total(item, (*key, "[]")) for item in reference)
        return _weight(reference)

    def lose(self, reference: Any, key: tuple[str, ...], difference: Callable[[], str]) -> None:
        """Counts a part of the reference as wrong."""
        if weight := self.total(reference, key):
            self.differ(weight, difference)

    def add(self, key: tuple[str, ...], difference: Callable[[], str]) -> None:
        """Counts something that the reference does not have."""
        if self.rules.at(key).kind != "ignore":
            self.differ(1.0, difference)

    def differ(self, weight: float, difference: Callable[[], str]) -> None:
        if self.hasty:
            raise _Differs
        self.wrong += weight
        if not self.differences:
            self.differences.append(difference())


def _augment(start: int, near: Mapping[int, list[int]], owner: dict[int, int]) -> None:
    """Finds a partner for `start`, moving others to other partners where that helps (a path found breadth first)."""
    came: dict[int, int] = {}
    queue = [start]
    for i in queue:
        for j in near[i]:
            if j in came:
                continue
            came[j] = i
            if j in owner:
                queue.append(owner[j])
                continue
            while True:  # back along the path
                i = came[j]
                before = next((k for k, holder in owner.items() if holder == i), None)
                owner[j] = i
                if before is None:
                    return
                del owner[before]
                j = before
    return


def _weight(leaf: Any) -> float:
    return 1.0 if leaf else BLANK_WEIGHT


def _equal(a: Any, b: Any, rule: Rule) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        if same_number(a, b):
            return True
        if not rule.absolute and not rule.relative:
            return False
        off = abs(float(a) - float(b))
        return off <= max(rule.absolute, rule.relative * abs(float(a))) * (1 + 1e-9)
    if isinstance(a, str) and isinstance(b, str):
        return a == b or (rule.kind == "text" and plain_text(a) == plain_text(b, a))
    return type(a) is type(b) and bool(a == b)


def plain_text(text: str, near: str | None = None) -> str:
    """A text in the form in which `text` compares: NFKC, case folded, runs of white space as one blank.

    Args:
        text: The text.
        near: What it is compared with; a text that is far too long for that stays as it is.
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    if len(text) > 1000:
        text = _unstacked(" ".join(text.split()))
        if near is not None and len(text) > 200 * (len(near) + 1):  # a letter of it becomes 18 at most, of four one
            return text
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _unstacked(text: str) -> str:
    """A text with at most `MARKS` marks on one letter."""
    kept, run = [], 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= MARKS:
            kept.append(character)
    return "".join(kept)
