"""The instructions of IFEval: 25 kinds that a program can check.

They are those of "Instruction-Following Evaluation for Large Language Models" (Zhou et al. 2023, arXiv:2311.07911),
under the ids and keyword names of its data. What the paper leaves open is decided so that nothing is gained by a
trick: what is demanded must be there for a reader to see, what is forbidden must not be there in any spelling, a
marker must stand where the instruction puts it. Where the published checker takes more than the instruction says,
this one does not: sections, paragraphs and bullets are counted exactly, only one of the fixed answers may be given, a
repeated request needs an answer behind it, JSON is an object or a list. Keyword matching is without case, and a
keyword may be part of a longer word.

Relations are `at least` and `less than` as in the data, and also `at most`, `more than`, `exactly` and `around` (10%).

Strict judging takes the reply as it is. Loose judging (the paper's second accuracy) passes an instruction that one of
eight versions of the reply follows: without its first line, its last line, or both, and each of these without
asterisks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import ifeval_content as content
from . import ifeval_form as form
from .findings import Check
from .ifeval_content import Kwargs
from .seen import shown


@dataclass(frozen=True)
class Instruction:
    """An instruction with what it was given.

    Attributes:
        id: Its id, such as `keywords:existence`.
        kwargs: What it takes, those that are null left out.
        check: Says whether a text follows it.
    """

    id: str
    kwargs: Kwargs
    check: Check = field(compare=False)


def instruction(id: Any, kwargs: Any) -> Instruction:
    """The instruction of that id.

    Args:
        id: One of `IDS`.
        kwargs: What it takes, by name; keys whose value is null are as if they were not there.

    Raises:
        ValueError: There is none, or `kwargs` are not what it takes.
    """
    if id not in _INSTRUCTIONS:
        raise ValueError(f"there is no instruction `{shown(str(id))}`; known: {', '.join(IDS)}")
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"the `kwargs` of `{id}` must be a table, not a `{type(kwargs).__name__}`")
    make, takes = _INSTRUCTIONS[id]
    given = {str(key): value for key, value in kwargs.items() if value is not None}
    for key in takes:
        if key not in given:
            raise ValueError(f"the instruction `{id}` needs `{key}`")
    if unknown := set(given) - set(takes):
        raise ValueError(f"the instruction `{id}` takes no `{min(unknown)}`; it takes {', '.join(takes) or 'nothing'}")
    try:
        return Instruction(id, given, make(given))
    except ValueError as error:
        raise ValueError(f"the instruction `{id}`: {error}") from None


def versions(text: str) -> Iterator[str]:
    """The eight texts of loose judging, the reply itself first; those with nothing in them are left out."""
    lines = text.split("\n")
    for kept in (lines, lines[1:], lines[:-1], lines[1:-1]):
        cut = "\n".join(kept).strip()
        for version in (cut if kept is not lines else text, cut.replace("*", "")):
            if version.strip():
                yield version


_INSTRUCTIONS: dict[str, tuple[Callable[[Kwargs], Check], tuple[str, ...]]] = {
    "keywords:existence": (content.existence, ("keywords",)),
    "keywords:frequency": (content.frequency, ("keyword", "frequency", "relation")),
    "keywords:forbidden_words": (content.forbidden, ("forbidden_words",)),
    "keywords:letter_frequency": (content.letters, ("letter", "let_frequency", "let_relation")),
    "language:response_language": (content.response_language, ("language",)),
    "length_constraints:number_sentences": (content.number_sentences, ("num_sentences", "relation")),
    "length_constraints:number_paragraphs": (content.number_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": (content.number_words, ("num_words", "relation")),
    "length_constraints:nth_paragraph_first_word": (
        content.nth_paragraph,
        ("num_paragraphs", "nth_paragraph", "first_word"),
    ),
    "detectable_content:number_placeholders": (form.placeholders, ("num_placeholders",)),
    "detectable_content:postscript": (form.postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": (form.bullets, ("num_bullets",)),
    "detectable_format:constrained_response": (form.constrained, ()),
    "detectable_format:number_highlighted_sections": (form.highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": (form.sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": (form.json_format, ()),
    "detectable_format:title": (form.title, ()),
    "combination:two_responses": (form.two_responses, ()),
    "combination:repeat_prompt": (form.repeat, ("prompt_to_repeat",)),
    "startend:end_checker": (form.end, ("end_phrase",)),
    "startend:quotation": (form.quotation, ()),
    "change_case:capital_word_frequency": (content.capital_words, ("capital_frequency", "capital_relation")),
    "change_case:english_capital": (content.english(True), ()),
    "change_case:english_lowercase": (content.english(False), ()),
    "punctuation:no_comma": (content.no_comma, ()),
}
IDS = tuple(_INSTRUCTIONS)
"""The ids of the 25 kinds."""
