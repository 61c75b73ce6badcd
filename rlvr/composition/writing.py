"""Making compositions, and what can be said of one without verifying anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from rlvr.errors import UsageError, nearest
from rlvr.types import Composition, Part

Rule = Literal["all-of", "any-of", "weighted", "gate", "penalty"]
RULES: tuple[Rule, ...] = get_args(Rule)

BY_WEIGHT: tuple[Rule, ...] = ("weighted", "gate")
"""Rules whose score is a mean by weight."""


def part(verifier: str | Composition, /, *, weight: float = 1.0, required: bool = True, **options: Any) -> Part:
    """One part of a composition.

    Args:
        verifier: Name of a registered verifier, or a composition.
        weight: Its share of the score in `weighted` and `gate`; what it takes off in `penalty`.
        required: Whether the whole verdict is missing when this part's is.
        options: Keyword options of the verifier.
    """
    return Part(verifier, options, weight, required)


def all_of(**parts: str | Composition | Part) -> Composition:
    """Passes when every part passes; the score is the lowest.

    Raises:
        UsageError: No parts, or one that does not fit the rule. All constructors raise it.
    """
    return compose("all-of", parts)


def any_of(**parts: str | Composition | Part) -> Composition:
    """Passes when one part passes; the score is the highest."""
    return compose("any-of", parts)


def weighted(*, threshold: float = 1.0, **parts: str | Composition | Part) -> Composition:
    """The mean of the scores by weight, which passes from `threshold` on, a number in (0, 1]."""
    return compose("weighted", parts, threshold)


def gate(**parts: str | Composition | Part) -> Composition:
    """Parts in their order, each of which is verified only when those before it passed.

    Passes when all pass. The score is the mean by weight in which parts behind a closed one count 0: with
    `weight=0`, a format that is a mere condition earns nothing by itself.
    """
    return compose("gate", parts)


def penalty(**parts: str | Composition | Part) -> Composition:
    """The verdict of the first part, whose score every other part that fails lowers by weight x (1 - score), to 0 at
    least."""
    return compose("penalty", parts)


def compose(rule: Rule, parts: Mapping[str, str | Composition | Part], threshold: float = 1.0) -> Composition:
    """A composition by the name of its rule.

    Raises:
        UsageError: The parts do not fit it.
    """
    whole = {name: given if isinstance(given, Part) else Part(given) for name, given in parts.items()}
    composition = Composition(rule, whole, threshold)
    refuse(composition)
    return composition


def refuse(composition: Composition) -> None:
    """Raises `UsageError` for a composition that cannot be used."""
    if found := flaw(composition):
        key, problem, hint = found
        raise UsageError(f"the composition's `{key}` {problem}", hint)


def flaw(composition: Composition) -> tuple[str, str, str] | None:
    """What is wrong with a composition: a dotted key such as `parts.answer.weight`, the problem, and a hint."""
    rule = composition.rule
    if rule not in RULES:
        near = nearest(str(rule), RULES)
        known = ", ".join(f"`{known}`" for known in RULES)
        return "rule", f"is `{rule}`", f"did you mean `{near}`?" if near else f"known: {known}"
    if not composition.parts:
        return "parts", "is empty", "name at least one verifier"
    if rule != "weighted" and composition.threshold != 1.0:
        return "threshold", f"means nothing in `{rule}`", "leave it out, or take `weighted`"
    if not _number(composition.threshold) or not 0 < composition.threshold <= 1:
        return "threshold", f"is `{composition.threshold!r}`", "give a number above 0, at most 1"
    for index, (name, one) in enumerate(composition.parts.items()):
        if found := _part_flaw(rule, index, name, one):
            return f"parts.{name}{'.' * bool(found[0])}{found[0]}", found[1], found[2]
    if rule in BY_WEIGHT and not any(one.weight for one in composition.parts.values()):
        return "parts", "have no weight", "give one of them a `weight` above 0"
    return None


def _part_flaw(rule: Rule, index: int, name: str, one: Part) -> tuple[str, str, str] | None:
    if not isinstance(one, Part) or not isinstance(one.verifier, (str, Composition)) or not one.verifier:
        return "", f"is `{one!r}`", "give the name of a verifier, `part(...)`, or another composition"
    if name == "flags" or not isinstance(name, str) or not name:
        return "", "cannot be the name of a part", "rename it; `flags` is where attempts to forge are listed"
    if not _number(one.weight) or not 0 <= one.weight < math.inf:
        return "weight", f"is `{one.weight!r}`", "give a number, at least 0"
    base = rule == "penalty" and index == 0
    if one.weight != 1.0 and (base or rule in ("all-of", "any-of")):
        what = "the first part of `penalty`, from which the others are taken off" if base else f"`{rule}`"
        return "weight", f"means nothing for {what}", "leave it out" if base else "leave it out, or take `weighted`"
    if base and not one.required:
        return "required", "is false for the first part of `penalty`", "it has the verdict; leave `required` out"
    if isinstance(one.verifier, Composition):
        if one.options:
            return "options", "are given to a composition", "give them to its parts"
        return flaw(one.verifier)
    return None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def leaves(verifier: str | Composition, options: Mapping[str, Any] | None = None) -> Iterator[Part]:
    """The parts at the bottom of a composition, which name verifiers; a verifier is its own."""
    if not isinstance(verifier, Composition):
        yield Part(verifier, options or {})
        return
    for one in verifier.parts.values():
        yield from leaves(one.verifier) if isinstance(one.verifier, Composition) else [one]


def label(verifier: str | Composition) -> str:
    """A verifier in a word: its name, or for a composition such as `gate(text, math)`."""
    if not isinstance(verifier, Composition):
        return verifier
    return f"{verifier.rule}({', '.join(label(one.verifier) for one in verifier.parts.values())})"


def as_json(verifier: str | Composition) -> Any:
    """A verifier's name, or a composition with the keys that a task file has."""
    if not isinstance(verifier, Composition):
        return verifier
    parts = {}
    for name, one in verifier.parts.items():
        inner = as_json(one.verifier)
        own = inner if isinstance(inner, dict) else {"name": inner, **one.options}
        parts[name] = own | {"weight": one.weight, "required": one.required}
    return {"rule": verifier.rule, "threshold": verifier.threshold, "parts": parts}
