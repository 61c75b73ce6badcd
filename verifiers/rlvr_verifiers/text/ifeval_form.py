"""The checks of IFEval's instructions on marks, sections and the form of the whole; `ifeval` says what they are."""

from __future__ import annotations

import re

from . import counts
from .findings import Bounds, Check, Finding, counted
from .forms import is_json
from .ifeval_content import Kwargs, divided, number_of, something, text_of
from .seen import View, fold, shown

ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""The options of `constrained_response`, which the data does not give."""

_TWO = re.compile(r"(?<!\*)\*{6}(?!\*)")
_PLACEHOLDER = re.compile(r"\[[ \t]{0,9}[^\[\]\s][^\[\]\n]{0,200}\](?!\()")
_BULLET = re.compile(r"^[ \t]*+[*+-][ \t]++(?![*_ \t-]*+$)\S", re.MULTILINE)
_TITLE = re.compile(r"<<[ \t]{0,9}[^\s<>][^\n<>]{0,300}>>")
_HIGHLIGHT = re.compile(r"\*\*[^*\n]+\*\*|\*[^*\n]+\*")


def postscript(kwargs: Kwargs) -> Check:
    marker = fold(text_of(kwargs, "postscript_marker"))
    spaced = re.compile(r"(?<!\S)" + r"[ ]?".join(map(re.escape, marker.replace(" ", ""))) + r"[*_:]{0,3} ?[^\s*_]")

    def check(view: View, demanding: bool) -> Finding:
        found = spaced.search(view.folded_seen.replace("*", ""))
        if not found:
            return Finding(False, f"there is no postscript that begins with `{marker.upper()}`")
        return Finding(
            found.start() > 0, "there is a postscript" if found.start() else "there is nothing before the postscript"
        )

    return check


def placeholders(kwargs: Kwargs) -> Check:
    limits = Bounds(number_of(kwargs, "num_placeholders"), None)
    return lambda view, demanding: counted(lambda seen: len(_PLACEHOLDER.findall(view.seen)), limits, "placeholders")


def bullets(kwargs: Kwargs) -> Check:
    number = number_of(kwargs, "num_bullets")
    return lambda view, demanding: counted(
        lambda seen: len(_BULLET.findall(view.seen)), Bounds(number, number), "bullet points"
    )


def title(kwargs: Kwargs) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        found = _TITLE.search(view.seen)
        return Finding(
            bool(found), f"the title is `{shown(found[0], 40)}`" if found else "there is no title in `<<` and `>>`"
        )

    return check


def constrained(kwargs: Kwargs) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        given = [answer for answer in ANSWERS if fold(answer) in view.folded_seen]
        found = " and ".join(f"`{answer}`" for answer in given) or "none of the fixed answers"
        return Finding(len(given) == 1, f"it gives {found}")

    return check


def highlights(kwargs: Kwargs) -> Check:
    limits = Bounds(number_of(kwargs, "num_highlights"), None)
    return lambda view, demanding: counted(
        lambda seen: sum(1 for found in _HIGHLIGHT.findall(view.seen) if found.strip("* \t")),
        limits,
        "highlighted sections",
    )


def sections(kwargs: Kwargs) -> Check:
    splitter, number = text_of(kwargs, "section_spliter"), number_of(kwargs, "num_sections")
    mark = re.compile(
        rf"^[ \t]{{0,9}}[*_#]{{0,6}}[ \t]{{0,3}}{re.escape(splitter)}[ \t]{{0,3}}\d{{1,3}}\b",
        re.MULTILINE | re.IGNORECASE,
    )

    def check(view: View, demanding: bool) -> Finding:
        pieces = mark.split(view.seen)
        if len(pieces) - 1 != number:
            return Finding(False, f"{len(pieces) - 1} sections marked `{splitter}`, {Bounds(number, number)}")
        empty = not all(map(something, pieces[1:]))
        return Finding(
            not empty, f"a section marked `{splitter}` is empty" if empty else f"{number} sections marked `{splitter}`"
        )

    return check


def json_format(kwargs: Kwargs) -> Check:
    return lambda view, demanding: is_json(view)


def repeat(kwargs: Kwargs) -> Check:
    request = fold(text_of(kwargs, "prompt_to_repeat"))

    def check(view: View, demanding: bool) -> Finding:
        text = view.folded_seen
        if not text.startswith(request):
            return Finding(False, f"it begins with `{shown(text)}`, not with the request")
        answered = something(text[len(request) :])
        return Finding(answered, "the request is repeated" + ("" if answered else ", but no answer follows"))

    return check


def two_responses(kwargs: Kwargs) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        pieces = divided(view.seen, _TWO)
        if len(pieces) != 2 or not all(map(something, pieces)):
            return Finding(False, f"{len(pieces)} responses with `******` between them, {Bounds(2, 2)}")
        first, second = (" ".join(map(str.casefold, counts.words(piece))) for piece in pieces)
        return Finding(first != second, "two responses" if first != second else "the two responses are the same")

    return check


def end(kwargs: Kwargs) -> Check:
    phrase = fold(text_of(kwargs, "end_phrase"))

    def check(view: View, demanding: bool) -> Finding:
        text = view.folded_seen
        holds = text.endswith(phrase) or text.rstrip('"* ').endswith(phrase)
        return Finding(holds, f"it ends with `{shown(text[-len(phrase) :])}`")

    return check


def quotation(kwargs: Kwargs) -> Check:
    def check(view: View, demanding: bool) -> Finding:
        text = view.seen.strip()
        holds = len(text) > 2 and text[0] + text[-1] in ('""', "\u201c\u201d") and something(text[1:-1])
        return Finding(
            holds, "it is wrapped in double quotation marks" if holds else "no double quotation marks around it"
        )

    return check
