"""The verifier `text`: holds a reply to rules, and says which it breaks."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr import Completion, Sample, Verdict, verifier

from ..ownturn import own_turn
from .findings import Finding
from .ifeval import versions
from .rules import Reader, Rule
from .seen import LIMIT, View
from .tags import inside

ANSWERING = ("exact", "normalised", "choice")
"""Kinds that leave one right reply; without any of them many different replies are right."""

_RESERVED = ("open", "flags")


def _kit() -> Any:
    from .kit import kit

    return kit()


def _gold(sample: Sample) -> str:
    from .writer import written

    return written(sample)


def _spoil(sample: Sample) -> str | None:
    from .spoil import spoiled

    return spoiled(sample)


@verifier("text", optional=["answer", "instruction_id_list", "kwargs"], gold=_gold, spoil=_spoil, kit=_kit)
def text(
    completion: Completion,
    sample: Sample,
    *,
    rules: Sequence[Mapping[str, Any]] | None = None,
    instructions: Sequence[Mapping[str, Any]] | None = None,
    loose: bool = False,
    on: str = "reply",
    contains: Any = None,
    regex: Any = None,
    exact: Any = None,
    normalised: Any = None,
    choice: Any = None,
    options: Any = None,
    words: Any = None,
    sentences: Any = None,
    paragraphs: Any = None,
    lines: Any = None,
    characters: Any = None,
    starts: Any = None,
    ends: Any = None,
    language: Any = None,
    tags: Any = None,
) -> Verdict:
    """Passes when the reply keeps all rules: words, patterns, the right choice, lengths, language, tags, IFEval's.

    The score is the share of the rules that hold, by weight. `rules` is a list of tables, the sample's own or the
    task's: `[{contains = "Paris"}, {not = {regex = "(?i)sorry"}}, {words = {max = 50}, on = "answer"}]`; a rule by
    itself is an option of its name (`contains="Paris"`). What follows the reasoning is judged. IFEval's columns
    `instruction_id_list` and `kwargs` of a sample are rules too.

    Options:
        rules: Rules for all samples; a sample's `rules` go first.
        instructions: The same for IFEval's instructions: `[{"id": "punctuation:no_comma", "kwargs": {}}]`.
        loose: Whether an instruction of IFEval also holds when it does for the reply without its first or last line, or
            without asterisks.
        on: What rules are about that do not say it: `reply`, `answer` (inside of `<answer>`), `think` or `all`.
        contains, regex, exact, normalised, choice, words, sentences, paragraphs, lines, characters, starts, ends,
            language, tags: A rule of that kind. `true` in place of a text is the sample's answer.
        options: Letters or texts of the options of `choice`.
    """
    shorthand = {
        "contains": contains, "regex": regex, "exact": exact, "normalised": normalised, "choice": choice,
        "words": words, "sentences": sentences, "paragraphs": paragraphs, "lines": lines, "characters": characters,
        "starts": starts, "ends": ends, "language": language, "tags": tags,
    }  # fmt: skip
    if not isinstance(loose, bool):
        raise ValueError(f"the option `loose` is true or false, not `{loose}`")
    held = read(sample, rules, instructions, {k: v for k, v in shorthand.items() if v is not None}, options, on)
    if len(completion.text) > LIMIT:
        return Verdict.of(False, f"the completion has {len(completion.text):,} characters; {LIMIT:,} are read")
    targets: dict[str, View | str] = {}
    findings = []
    for rule in held:
        if rule.on not in targets:
            targets[rule.on] = target(completion.text, rule.on)
        findings.append(_finding(rule, targets[rule.on], loose))
    return _verdict(held, findings)


def read(
    sample: Sample,
    rules: Any = None,
    instructions: Any = None,
    shorthand: Mapping[str, Any] | None = None,
    options: Any = None,
    on: str = "reply",
) -> tuple[Rule, ...]:
    """The rules that a sample's replies are held to.

    Raises:
        ValueError: There are none, or one cannot be used.
    """
    meta = sample.meta
    own = meta.get("rules")
    asked = meta.get("instructions")
    listed = meta.get("instruction_id_list")
    key = json.dumps(
        [
            rules if own is None else own,
            instructions if asked is None else asked,
            listed,
            meta.get("kwargs") if listed is not None else None,
            shorthand or {},
            options,
            sample.answer,
            on,
        ]
    )
    return _read(key)


@functools.lru_cache(maxsize=1024)
def _read(key: str) -> tuple[Rule, ...]:
    rules, instructions, listed, kwargs, shorthand, options, answer, on = json.loads(key)
    tables = list(_listed(rules, "rules"))
    for kind, value in shorthand.items():
        tables.append({kind: value, "options": options} if kind == "choice" and options is not None else {kind: value})
    if options is not None and "choice" not in shorthand:
        raise ValueError("`options` go with `choice`")
    for entry in _listed(instructions, "instructions"):
        if not isinstance(entry, Mapping) or "id" not in entry or set(entry) - {"id", "kwargs"}:
            raise ValueError("an instruction is a table with `id` and `kwargs`")
        tables.append({"instruction": entry["id"], "kwargs": entry.get("kwargs")})
    if listed is not None:
        given = [{}] * len(_listed(listed, "instruction_id_list")) if kwargs is None else _listed(kwargs, "kwargs")
        if len(given) != len(listed):
            raise ValueError(f"`instruction_id_list` has {len(listed)} entries and `kwargs` {len(given)}")
        tables += [{"instruction": id, "kwargs": own} for id, own in zip(listed, given, strict=True)]
    if not tables:
        raise ValueError("there are no rules to hold the reply to; give `rules`, or one such as `contains`")
    found = Reader(answer, on).rules(tables)
    for rule in found:
        if rule.name in _RESERVED:
            raise ValueError(f"a rule cannot be called `{rule.name}`")
    return tuple(found)


def _listed(value: Any, what: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"`{what}` must be a list, not a `{type(value).__name__}`")
    return value or []


def target(text: str, on: str) -> View | str:
    """What a rule is about, or why it is missing."""
    if on == "all":
        view = View(text)
    elif on == "think":
        rest = own_turn(text)
        if rest is None or "</think>" not in text:
            return "there is no closed reasoning"
        view = View(text[: text.rindex("</think>")].strip().removeprefix("<think>"))
    else:
        reply = own_turn(text)
        if reply is None:
            return "the reasoning was never closed with `</think>`"
        if on == "answer":
            reply = inside(reply, "answer")
            if reply is None:
                return "there is no single `<answer>…</answer>`"
        view = View(reply.strip())
    return "there is nothing to see" if view.blank else view


def _finding(rule: Rule, about: View | str, loose: bool) -> Finding:
    if isinstance(about, str):
        return Finding(False, about)
    strict = rule.check(about, True)
    if strict.holds or not loose or rule.kind != "instruction":
        return strict
    for version in list(versions(about.raw))[1:]:
        finding = rule.check(View(version), True)
        if finding.holds:
            return finding
    return strict


def _verdict(rules: Sequence[Rule], findings: Sequence[Finding]) -> Verdict:
    parts: dict[str, Any] = {
        rule.name: None if finding.holds is None else float(finding.holds)
        for rule, finding in zip(rules, findings, strict=True)
    }
    if not any(map(_answers, rules)):
        parts["open"] = True
    pairs = list(zip(rules, findings, strict=True))
    broken = [(rule, finding) for rule, finding in pairs if finding.holds is False]
    unclear = [(rule, finding) for rule, finding in pairs if finding.holds is None]
    if not broken and unclear:
        rule, finding = unclear[0]
        return Verdict.abstain(f"`{rule.name}` cannot be decided: {finding.found}", parts)
    if not broken:
        detail = f"`{rules[0].name}` holds: {findings[0].found}" if len(rules) == 1 else f"all {len(rules)} rules hold"
        return Verdict.of(True, detail, parts=parts)
    rule, finding = broken[0]
    held = sum(rule.weight for rule, finding in pairs if finding.holds)
    lost = sum(rule.weight for rule, _ in broken)
    more = f" ({len(rules) - len(broken) - len(unclear)} of {len(rules)} rules hold)" if len(rules) > 1 else ""
    score = min(held / (held + lost), 1.0 - 1e-9)
    return Verdict.of(False, f"`{rule.name}`: {finding.found}{more}", score=score, parts=parts)


def _answers(rule: Rule) -> bool:
    return rule.kind in ANSWERING or (rule.kind in ("any", "all") and any(map(_answers, rule.inner)))
