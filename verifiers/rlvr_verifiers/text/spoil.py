"""Replies that keep all rules but one, made of a reply that keeps them all by one change that must break a rule.

What is changed follows from the rule's own words, not from how it is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rlvr import Sample

from .findings import TOP, Bounds, bounds, related, whole
from .rules import Rule
from .sentences import BY_LANGUAGE
from .verifier import read
from .writer import written


def spoiled(sample: Sample) -> str | None:
    """A reply that breaks one rule of a sample; None where no change is sure to."""
    try:
        rules = read(sample)
    except ValueError:
        return None
    gold = written(sample)
    for rule in rules:
        text = _change(gold, rule)
        if text is not None and text != gold:
            return text
    return None


def _change(gold: str, rule: Rule) -> str | None:
    if rule.instruction is not None:
        return _CHANGES[rule.instruction.id](gold, rule.instruction.kwargs)
    kind, value = rule.kind, rule.value
    if kind in ("exact", "normalised"):
        return _more(gold, "and more")
    if kind == "choice":
        return _more(gold, "or B" if str(value).strip("( ")[:1].upper() != "B" else "or C")
    if kind == "contains" and not isinstance(value, list):
        return _without(gold, str(value))
    if kind == "not" and rule.inner[0].kind == "contains":
        return _more(gold, " and ".join(_texts(rule.inner[0].value) * max(1, rule.inner[0].times)))
    if kind == "ends":
        return _more(gold, "Quite different.")
    if kind in ("words", "sentences", "paragraphs", "lines"):
        return _resized(gold, bounds(value, kind), {"words": "more", "sentences": "One more."}.get(kind, "\n\nMore."))
    if kind == "language":
        return _other(value)
    return _more(gold.replace(f"</{value[-1]}>", ""), "") if kind == "tags" else None


def _texts(value: Any) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else [str(value)]


def _more(gold: str, extra: str, times: int = 1) -> str:
    """The reply with something behind it, inside of `<answer>` where it is."""
    added = f" {extra}" * times
    return f"{gold.removesuffix('</answer>')}{added}</answer>" if gold.endswith("</answer>") else gold + added


def _without(gold: str, text: str) -> str:
    return re.sub(re.escape(text), "", gold, flags=re.IGNORECASE)


def _resized(gold: str, limits: Bounds, unit: str) -> str | None:
    """The reply with too many of something, or nearly nothing left of it."""
    if limits.most is not None:
        return _more(gold, unit, limits.most + 1) if limits.most < TOP / 10 else None
    return "Short" if limits.least > 1 else None


def _other(wanted: Any) -> str:
    return BY_LANGUAGE["fi" if "th" in str(wanted) else "th"]


def _frequency(gold: str, text: str, limits: Bounds) -> str | None:
    return _without(gold, text) if limits.least else _more(gold, text, (limits.most or 0) + 1)


def _related(kwargs: Any, number: str, relation: str) -> Bounds:
    return related(whole(kwargs[number], number), kwargs[relation])


_CHANGES: dict[str, Callable[[str, Any], str | None]] = {
    "keywords:existence": lambda gold, k: _without(gold, k["keywords"][0]),
    "keywords:frequency": lambda gold, k: _frequency(gold, k["keyword"], _related(k, "frequency", "relation")),
    "keywords:forbidden_words": lambda gold, k: _more(gold, k["forbidden_words"][-1]),
    "keywords:letter_frequency": lambda gold, k: _frequency(
        gold, k["letter"], _related(k, "let_frequency", "let_relation")
    ),
    "language:response_language": lambda gold, k: _other(k["language"]),
    "length_constraints:number_sentences": lambda gold, k: _resized(
        gold, _related(k, "num_sentences", "relation"), "One more sentence."
    ),
    "length_constraints:number_paragraphs": lambda gold, k: _more(gold, "\n\n***\n\nOne more."),
    "length_constraints:number_words": lambda gold, k: _resized(gold, _related(k, "num_words", "relation"), "more"),
    "length_constraints:nth_paragraph_first_word": lambda gold, k: _more(gold, "\n\nOne more."),
    "detectable_content:number_placeholders": lambda gold, k: gold.replace("[", "("),
    "detectable_content:postscript": lambda gold, k: _without(gold, k["postscript_marker"]),
    "detectable_format:number_bullet_lists": lambda gold, k: _more(gold, "\n- one more"),
    "detectable_format:constrained_response": lambda gold, k: _more(gold, "My answer is no. My answer is maybe."),
    "detectable_format:number_highlighted_sections": lambda gold, k: gold.replace("*", ""),
    "detectable_format:multiple_sections": lambda gold, k: _without(gold, k["section_spliter"]),
    "detectable_format:json_format": lambda gold, k: f"Here it is: {gold}",
    "detectable_format:title": lambda gold, k: gold.replace("<<", "<"),
    "combination:two_responses": lambda gold, k: gold.replace("******", ""),
    "combination:repeat_prompt": lambda gold, k: f"Well. {gold}",
    "startend:end_checker": lambda gold, k: _more(gold, "That was it."),
    "startend:quotation": lambda gold, k: gold[1:],
    "change_case:capital_word_frequency": lambda gold, k: (
        gold.lower()
        if _related(k, "capital_frequency", "capital_relation").least
        else _more(gold, "WORD", whole(k["capital_frequency"], "") + 1)
    ),
    "change_case:english_capital": lambda gold, k: _more(gold, "or not"),
    "change_case:english_lowercase": lambda gold, k: _more(gold, "Or Not"),
    "punctuation:no_comma": lambda gold, k: _more(gold, "now, then"),
}
"""What breaks each instruction."""
