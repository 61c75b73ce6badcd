"""What a reply must have in it so that rules hold, gathered from all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .findings import Bounds, bounds, related, whole
from .language import known
from .rules import Rule

NONE, SOME = Bounds(0, None), Bounds(1, None)


@dataclass
class Plan:
    """What to put into a reply. Numbers are the least that will do, unless they are bounds."""

    body: str = ""
    """The reply itself, where it is given."""
    include: list[tuple[str, int]] = field(default_factory=list)
    avoid: list[str] = field(default_factory=list)
    letters: list[tuple[str, int]] = field(default_factory=list)
    few: list[str] = field(default_factory=list)
    """Letters to be sparing with."""
    language: str = "en"
    case: str = ""
    words: Bounds = SOME
    sentences: Bounds = SOME
    characters: int = 0
    capitals: Bounds = NONE
    paragraphs: int = 1
    divider: str = "\n\n"
    first_word: tuple[int, str] | None = None
    title: bool = False
    bullets: int = 0
    sections: tuple[str, int] = ("", 0)
    highlights: int = 0
    placeholders: int = 0
    postscript: str = ""
    start: str = ""
    end: str = ""
    lines: int = 1
    two: bool = False
    quoted: bool = False
    json: bool = False
    tags: list[str] = field(default_factory=list)


def planned(rules: Iterable[Rule]) -> Plan:
    """The plan that all of the rules together ask for."""
    plan = Plan()
    for rule in rules:
        _add(plan, rule)
    return plan


def _add(plan: Plan, rule: Rule) -> None:
    kind, value = rule.kind, rule.value
    if rule.on == "answer" and "answer" not in plan.tags:
        plan.tags.append("answer")
    if rule.instruction is not None:
        _INSTRUCTED[rule.instruction.id](plan, rule.instruction.kwargs)
    elif kind in ("any", "all"):
        for inner in rule.inner[: 1 if kind == "any" else None]:
            _add(plan, inner)
    elif kind == "not":
        if rule.inner[0].kind in ("contains", "starts", "ends", "regex"):
            plan.avoid += _texts(rule.inner[0].value)
    elif kind in ("exact", "normalised", "choice"):
        plan.body = _texts(value)[0]
    elif kind == "contains":
        plan.include += [(text, max(1, rule.times)) for text in _texts(value)]
    elif kind in ("words", "sentences"):
        setattr(plan, kind, bounds(value, kind))
    elif kind in ("paragraphs", "lines", "characters"):
        setattr(plan, kind, max(1, bounds(value, kind).least))
    elif kind == "language":
        plan.language = known(_texts(value)[0])
    elif kind == "tags":
        plan.tags = _texts(value)
    elif kind == "starts":
        plan.start = _texts(value)[0]
    elif kind == "ends":
        plan.end = _texts(value)[0]
    elif kind == "json":
        plan.json = True


def _texts(value: Any) -> list[str]:
    return [str(text) for text in value] if isinstance(value, list) else [str(value)]


def _many(plan: Plan, text: str, limits: Bounds) -> None:
    """Puts a text in as often as it must be there, or keeps it out."""
    if limits.least:
        plan.include.append((text, limits.least))
    else:
        plan.avoid.append(text)


def _letter(plan: Plan, kwargs: Any) -> None:
    limits = related(whole(kwargs["let_frequency"], ""), kwargs["let_relation"])
    if limits.least:
        plan.letters.append((kwargs["letter"], limits.least))
    else:
        plan.few.append(kwargs["letter"].lower())


def _dividers(plan: Plan, kwargs: Any) -> None:
    plan.paragraphs, plan.divider = whole(kwargs["num_paragraphs"], ""), "\n\n***\n\n"


def _nth(plan: Plan, kwargs: Any) -> None:
    plan.paragraphs = whole(kwargs["num_paragraphs"], "")
    plan.first_word = whole(kwargs["nth_paragraph"], ""), kwargs["first_word"]


def _to(name: str, make: Callable[[Any], Any]) -> Callable[[Plan, Any], None]:
    """Sets one field of a plan from the keywords of an instruction."""
    return lambda plan, kwargs: setattr(plan, name, make(kwargs))


def _within(name: str, number: str, relation: str) -> Callable[[Plan, Any], None]:
    """Narrows one of a plan's bounds."""

    def narrow(plan: Plan, kwargs: Any) -> None:
        new, old = related(whole(kwargs[number], number), kwargs[relation]), getattr(plan, name)
        most = min((bound for bound in (new.most, old.most) if bound is not None), default=None)
        setattr(plan, name, Bounds(max(new.least, old.least), most))

    return narrow


def _number(key: str) -> Callable[[Any], int]:
    return lambda kwargs: whole(kwargs[key], key)


_INSTRUCTED: dict[str, Callable[[Plan, Any], None]] = {
    "keywords:existence": lambda plan, k: plan.include.extend((word, 1) for word in k["keywords"]),
    "keywords:frequency": lambda plan, k: _many(plan, k["keyword"], related(whole(k["frequency"], ""), k["relation"])),
    "keywords:forbidden_words": lambda plan, k: plan.avoid.extend(k["forbidden_words"]),
    "keywords:letter_frequency": _letter,
    "language:response_language": _to("language", lambda k: known(k["language"])),
    "length_constraints:number_sentences": _within("sentences", "num_sentences", "relation"),
    "length_constraints:number_paragraphs": _dividers,
    "length_constraints:number_words": _within("words", "num_words", "relation"),
    "length_constraints:nth_paragraph_first_word": _nth,
    "detectable_content:number_placeholders": _to("placeholders", _number("num_placeholders")),
    "detectable_content:postscript": _to("postscript", lambda k: k["postscript_marker"]),
    "detectable_format:number_bullet_lists": _to("bullets", _number("num_bullets")),
    "detectable_format:constrained_response": _to("body", lambda k: "My answer is yes."),
    "detectable_format:number_highlighted_sections": _to("highlights", _number("num_highlights")),
    "detectable_format:multiple_sections": _to(
        "sections", lambda k: (k["section_spliter"], whole(k["num_sections"], ""))
    ),
    "detectable_format:json_format": _to("json", lambda k: True),
    "detectable_format:title": _to("title", lambda k: True),
    "combination:two_responses": _to("two", lambda k: True),
    "combination:repeat_prompt": _to("start", lambda k: k["prompt_to_repeat"]),
    "startend:end_checker": _to("end", lambda k: k["end_phrase"]),
    "startend:quotation": _to("quoted", lambda k: True),
    "change_case:capital_word_frequency": _within("capitals", "capital_frequency", "capital_relation"),
    "change_case:english_capital": _to("case", lambda k: "upper"),
    "change_case:english_lowercase": _to("case", lambda k: "lower"),
    "punctuation:no_comma": lambda plan, k: plan.avoid.append(","),
}
"""What each instruction puts into a plan."""
