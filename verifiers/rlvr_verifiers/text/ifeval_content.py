"""The checks of IFEval's instructions on words, letters, language, case and lengths; `ifeval` says what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from . import counts
from .findings import Bounds, Check, Finding, counted, related, whole
from .language import known, spoken
from .seen import View, fold, shown

Kwargs = Mapping[str, Any]

_DIVIDER = re.compile(r"(?<!\*)\*{3}(?!\*)")
_COMMAS = re.compile("[,\uff0c\ufe50\u060c\u3001\uff64\u201a\u055d\u1363]")
_EMPHASIS = "*_#>`\"'\u201c\u201d\u2018\u2019([ \t"


def text_of(kwargs: Kwargs, key: str) -> str:
    value = kwargs[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"`{key}` must be text, not `{shown(str(value))}`")
    return value.strip()


def list_of(kwargs: Kwargs, key: str) -> list[str]:
    value = kwargs[key]
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError(f"`{key}` must be a list of words, not `{shown(str(value))}`")
    return [text.strip() for text in value]


def number_of(kwargs: Kwargs, key: str) -> int:
    return whole(kwargs[key], key)


def existence(kwargs: Kwargs) -> Check:
    wanted = list_of(kwargs, "keywords")

    def check(view: View, demanding: bool) -> Finding:
        missing = [word for word in wanted if fold(word) not in view.folded(demanding)]
        return Finding(not missing, f"`{missing[0]}` does not occur" if missing else "all keywords occur")

    return check


def frequency(kwargs: Kwargs) -> Check:
    keyword, limits = text_of(kwargs, "keyword"), related(number_of(kwargs, "frequency"), kwargs["relation"])
    needle = fold(keyword)
    return lambda view, demanding: counted(
        lambda seen: counts.occurrences(needle, view.folded(seen == demanding), limits.stop),
        limits,
        f"times `{keyword}`",
    )


def forbidden(kwargs: Kwargs) -> Check:
    forbidden = list_of(kwargs, "forbidden_words")

    def check(view: View, demanding: bool) -> Finding:
        there = [word for word in forbidden if counts.occurrences(fold(word), view.folded(not demanding), 1, True)]
        return Finding(not there, f"`{there[0]}` occurs" if there else "no forbidden word occurs")

    return check


def letters(kwargs: Kwargs) -> Check:
    letter = fold(text_of(kwargs, "letter"))
    if len(letter) != 1:
        raise ValueError(f"`letter` must be one character, not `{shown(letter)}`")
    limits = related(number_of(kwargs, "let_frequency"), kwargs["let_relation"])
    return lambda view, demanding: counted(
        lambda seen: view.folded(seen == demanding).count(letter), limits, f"times `{letter}`"
    )


def response_language(kwargs: Kwargs) -> Check:
    wanted = known(kwargs["language"])
    return lambda view, demanding: Finding(*spoken(view.seen, wanted))


def english(upper: bool) -> Callable[[Kwargs], Check]:
    wrong = str.islower if upper else str.isupper

    def check(view: View, demanding: bool) -> Finding:
        text = view.every if demanding else view.seen
        other = next((character for character in text if wrong(character)), "")
        if other:
            return Finding(False, f"`{other}` is a {'small' if upper else 'capital'} letter")
        english, found = spoken(view.seen.lower(), "en")
        return Finding(english is not False, found)  # a text too short to tell is not held against it

    return lambda kwargs: check


def capital_words(kwargs: Kwargs) -> Check:
    limits = related(number_of(kwargs, "capital_frequency"), kwargs["capital_relation"])
    return lambda view, demanding: counted(
        lambda seen: sum(map(str.isupper, counts.words(view.reading(seen == demanding)))), limits, "words in capitals"
    )


def no_comma(kwargs: Kwargs) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        comma = _COMMAS.search(view.every if demanding else view.seen)
        return Finding(
            not comma,
            f"`{shown(view.every[max(0, comma.start() - 20) : comma.end()])}` has a comma" if comma else "no comma",
        )

    return check


def number_words(kwargs: Kwargs) -> Check:
    limits = related(number_of(kwargs, "num_words"), kwargs["relation"])
    return lambda view, demanding: counted(
        lambda seen: len(counts.words(view.reading(seen == demanding))), limits, "words"
    )


def number_sentences(kwargs: Kwargs) -> Check:
    limits = related(number_of(kwargs, "num_sentences"), kwargs["relation"])
    return lambda view, demanding: counted(
        lambda seen: counts.sentences(view.reading(seen == demanding), limits.stop), limits, "sentences"
    )


def number_paragraphs(kwargs: Kwargs) -> Check:
    number = number_of(kwargs, "num_paragraphs")

    def check(view: View, demanding: bool) -> Finding:
        pieces = divided(view.seen, _DIVIDER)
        if not all(map(something, pieces)):
            return Finding(False, "there is nothing between two dividers `***`")
        return Finding(
            len(pieces) == number, f"{len(pieces)} paragraphs with `***` between them, {Bounds(number, number)}"
        )

    return check


def divided(text: str, divider: re.Pattern[str]) -> list[str]:
    """What stands between dividers; a divider at either end divides nothing."""
    pieces = divider.split(text)
    return pieces[not something(pieces[0]) : len(pieces) - (not something(pieces[-1]))]


def something(text: str) -> bool:
    return any(map(str.isalnum, text))


def nth_paragraph(kwargs: Kwargs) -> Check:
    number, nth, word = (
        number_of(kwargs, "num_paragraphs"),
        number_of(kwargs, "nth_paragraph"),
        fold(text_of(kwargs, "first_word")),
    )
    if not 1 <= nth <= number:
        raise ValueError(f"`nth_paragraph` is {nth} of {number}")

    def check(view: View, demanding: bool) -> Finding:
        found = counts.paragraphs(view.seen)
        if len(found) != number:
            return Finding(False, f"{len(found)} paragraphs, {Bounds(number, number)}")
        opening = fold(found[nth - 1][: 400 + len(word)]).lstrip(_EMPHASIS)
        holds = opening.startswith(word) and not opening[len(word) : len(word) + 1].isalnum()
        return Finding(
            holds, f"paragraph {nth} begins with `{shown(opening, 30)}`" + ("" if holds else f", not `{word}`")
        )

    return check
