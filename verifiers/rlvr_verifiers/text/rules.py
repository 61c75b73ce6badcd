"""The rules that a text can be held to: what they are called, what they take, and when they hold.

A rule is a table with one kind, and what refines it:

    contains     text, or a list of which all must occur; `case`, `word` (whole words only), `times`: a number or bounds
    regex        a pattern in RE2's syntax that must match somewhere; `ignore_case`, `dot_all`, `multi_line`, `whole`
                 (match the whole text), `times`
    exact        the text, letter by letter (white space around it aside), or a list of texts of which it must be one
    normalised   the same, but for case, width, white space, typography, emphasis, quotes around it, a final stop
    choice       the letter of a multiple-choice question that the reply settles on (`choice.py`); `options`: their
                 letters (`"ABCD"`) or texts
    starts, ends the text it begins or ends with; `case`
    words, sentences, paragraphs, lines, characters
                 how many: a number, or `{ min = 3, max = 5 }` (`counts.py`)
    language     a code, or a list of which it may be any (`language.py`)
    tags         the names of tags that the whole text consists of (`tags.py`); `outside`, `opened`
    json         `true`: the text is one JSON object or array, a code fence around it aside
    instruction  an instruction of IFEval by its id (`ifeval.py`); `kwargs`
    any, all     a list of rules of which one, or all, must hold
    not          a rule that must not hold

and for each of them


    on           of `any`, `all` and `not`: what their rules are about that do not say it; else
                 what is judged: `reply` (what follows the reasoning; so unless said otherwise), `answer` (what stands
                 in the reply's only pair of `<answer>` tags), `think` (the reasoning) or `all` (the text as it is; so
                 for `tags` unless said otherwise)
    name         what the verdict calls it
    weight       its share of the score

`true` in place of the value of contains, exact, normalised, choice, starts or ends is the sample's answer. No rule
holds for a text with nothing to see in it, nor where what it is about is missing: not even a `not`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .findings import Check, Finding, bounds
from .ifeval import Instruction, instruction
from .kinds import ANSWERED, FLAGS, KINDS, first
from .seen import View, shown

TARGETS = ("reply", "answer", "think", "all")
DEPTH, RULES = 8, 200
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,40}")


@dataclass(frozen=True)
class Rule:
    """A rule, read and checked.

    Attributes:
        name: What the verdict calls it.
        kind: What it is, as in a table.
        check: Says whether it holds for a text.
        on: What it is about.
        weight: Its share of the score.
        value: What the table gives for the kind.
        inner: The rules of an `any`, `all` or `not`.
        instruction: What an `instruction` is.
        times: How often it must hold at least, where it counts.
    """

    name: str
    kind: str
    check: Check
    on: str = "reply"
    weight: float = 1.0
    value: Any = None
    inner: tuple[Rule, ...] = ()
    instruction: Instruction | None = field(default=None, compare=False)
    times: int = 1


class Reader:
    """Reads tables into rules.

    Args:
        answer: The sample's answer, for `true`.
        on: What rules are about that do not say it.
    """

    def __init__(self, answer: Any = None, on: str = "reply") -> None:
        if on not in TARGETS:
            raise ValueError(f"`on` is `{on}`; known: {', '.join(TARGETS)}")
        self.answer, self.on = answer, on
        self.count = 0

    def rules(self, tables: Any, depth: int = 0) -> list[Rule]:
        """The rules of a list of tables, each with a name of its own.

        Raises:
            ValueError: A table is no rule; the message says which and why.
        """
        if not isinstance(tables, Sequence) or isinstance(tables, str):
            raise ValueError(f"`rules` must be a list of tables, not `{_shown(tables)}`")
        found: list[Rule] = []
        names: dict[str, int] = {}
        for table in tables:
            rule = self.rule(table, depth)
            names[rule.name] = names.get(rule.name, 0) + 1
            if names[rule.name] > 1:
                rule = replace(rule, name=f"{rule.name}-{names[rule.name]}")
            found.append(rule)
        return found

    def rule(self, table: Any, depth: int = 0) -> Rule:
        """One rule."""
        self.count += 1
        if depth > DEPTH or self.count > RULES:
            raise ValueError(f"there are more than {RULES} rules, or more than {DEPTH} inside of each other")
        if not isinstance(table, Mapping):
            raise ValueError(f'a rule must be a table such as `{{contains = "Paris"}}`, not `{_shown(table)}`')
        kinds = [key for key in table if key in _TAKES]
        if len(kinds) != 1:
            having = f"has {' and '.join(f'`{kind}`' for kind in kinds)}" if kinds else f"`{_shown(table)}` has none"
            raise ValueError(f"a rule has one kind; this one {having}; known: {', '.join(_TAKES)}")
        kind = kinds[0]
        takes = _TAKES[kind]
        given = {key: value for key, value in table.items() if value is not None and key != kind}
        for key in given:
            if key not in (*takes.split(), "on", "name", "weight"):
                raise ValueError(
                    f"the rule `{kind}` takes no `{key}`; it takes {takes + ' ' if takes else ''}on name weight"
                )
            if key in FLAGS and not isinstance(given[key], bool):
                raise ValueError(f"`{key}` of the rule `{kind}` is true or false, not `{_shown(given[key])}`")
        name, weight = given.pop("name", kind), given.pop("weight", 1.0)
        on = given.pop("on", "all" if kind == "tags" else self.on)
        if on not in TARGETS:
            raise ValueError(f"`on` of the rule `{kind}` is `{on}`; known: {', '.join(TARGETS)}")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"the name of a rule must be a word, not `{_shown(name)}`")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1e6:
            raise ValueError(f"the weight of a rule must be a number above 0, not `{_shown(weight)}`")
        value = table[kind]
        if kind in ("any", "all", "not"):
            outer, self.on = self.on, on
            inner = self.rules([value] if kind == "not" else value, depth + 1)
            self.on = outer
            if not inner or any(rule.on != inner[0].on for rule in inner):
                raise ValueError(f"the rules in `{kind}` must be about the same, and there must be one")
            on = inner[0].on
            return Rule(name, kind, _COMBINED[kind](inner), on, weight, value, tuple(inner))
        if kind == "instruction":
            made = instruction(value, given.get("kwargs") or {})
            return Rule(made.id if name == kind else name, kind, made.check, on, weight, value, (), made)
        if value is True and kind in ANSWERED:
            if self.answer is None:
                raise ValueError(f"the rule `{kind}` asks for the sample's answer, and there is none")
            value = str(self.answer)
        times = bounds(given["times"], "times").least if "times" in given else 1
        return Rule(name, kind, KINDS[kind][0](value, **given), on, weight, value, times=times)


def _shown(value: Any) -> str:
    return shown(str(value))


def _any(rules: Sequence[Rule]) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        findings = [rule.check(view, demanding) for rule in rules]
        found = first(findings, True) or first(findings, None)
        return found or Finding(False, "none of: " + "; ".join(finding.found for finding in findings[:4]))

    return check


def _all(rules: Sequence[Rule]) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        findings = [rule.check(view, demanding) for rule in rules]
        return first(findings, False) or first(findings, None) or findings[-1]

    return check


def _not(rules: Sequence[Rule]) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        found = rules[0].check(view, not demanding)
        return Finding(None if found.holds is None else not found.holds, found.found)

    return check


_COMBINED: dict[str, Callable[[Sequence[Rule]], Check]] = {"any": _any, "all": _all, "not": _not}
_TAKES = {
    **{kind: takes for kind, (_, takes) in KINDS.items()},
    "instruction": "kwargs",
    "any": "",
    "all": "",
    "not": "",
}
