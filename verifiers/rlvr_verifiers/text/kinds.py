"""What each kind of rule checks. `rules.py` says what they take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..patterns import pattern
from . import counts, tags
from .findings import Bounds, Check, Finding, bounds, counted
from .forms import is_json
from .language import known, spoken
from .seen import View, fold, shown

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TAG = re.compile(r"[A-Za-z][\w-]{0,30}")


def _shown(value: Any) -> str:
    return shown(str(value))


def texts(value: Any, what: str) -> list[str]:
    """A text or a list of texts as a list.

    Raises:
        ValueError: It is something else, or one is empty.
    """
    found = [value] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value
    plain = isinstance(found, Sequence) and all(
        isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in found
    )
    if not found or not plain:
        raise ValueError(f"`{what}` must be text or a list of texts, not `{_shown(value)}`")
    made = [str(text) for text in found]
    if not all(text.strip() for text in made):
        raise ValueError(f"`{what}` has an empty text")
    return made


def _contains(value: Any, case: bool = False, word: bool = False, times: Any = None) -> Check:
    wanted = texts(value, "contains")
    needles = [fold(text, case) for text in wanted]
    limits = Bounds(1, None) if times is None else bounds(times, "times")

    def check(view: View, demanding: bool) -> Finding:
        finding = Finding(True, "")
        for text, needle in zip(wanted, needles, strict=True):

            def count(seen: bool, needle: str = needle) -> int:
                seen = seen == demanding
                inside = fold(view.reading(seen), case) if case else view.folded(seen)
                return counts.occurrences(needle, inside, limits.stop, word)

            finding = counted(count, limits, f"times `{shown(text, 40)}`")
            if not finding.holds:
                break
        return finding if times is not None else Finding(finding.holds, f"`{shown(text, 40)}` {_occurs(finding.holds)}")

    return check


def _occurs(holds: bool | None) -> str:
    return "occurs" if holds else "does not occur"


def _regex(
    value: Any,
    ignore_case: bool = False,
    dot_all: bool = False,
    multi_line: bool = False,
    whole: bool = False,
    times: Any = None,
) -> Check:
    compiled = pattern(value, ignore_case=ignore_case, dot_all=dot_all, multi_line=multi_line)
    limits = Bounds(1, None) if times is None else bounds(times, "times")
    if whole and times is not None:
        raise ValueError("a `regex` cannot match the whole text a number of `times`")

    def check(view: View, demanding: bool) -> Finding:
        if whole or times is None:
            match = compiled.fullmatch if whole else compiled.search
            readings = [view.seen.strip() if whole else view.seen]
            if not demanding and view.every != view.seen:
                readings.append(view.every.strip() if whole else view.every)
            return Finding(
                any(map(match, readings)),
                f"`{shown(value, 40)}` {'matches' if any(map(match, readings)) else 'does not match'}",
            )
        return counted(
            lambda seen: compiled.count(view.reading(seen == demanding), limits.stop),
            limits,
            f"matches of `{shown(value, 40)}`",
        )

    return check


def _exact(value: Any) -> Check:
    wanted = {text.strip() for text in texts(value, "exact")}
    said = " or ".join(f"`{shown(text, 40)}`" for text in sorted(wanted)[:3])

    def check(view: View, demanding: bool) -> Finding:
        text = view.raw.strip()
        return Finding(text in wanted, f"it is `{shown(text)}`" + ("" if text in wanted else f", not {said}"))

    return check


def normal(text: str) -> str:
    """A text as `normalised` compares it."""
    text = fold(text)
    while True:
        shorter = text.strip(" ").rstrip(".!\u3002")
        for pair in ('""', "''", "**", "__", "``", "()"):
            if len(shorter) > 2 and shorter[0] == pair[0] and shorter[-1] == pair[1] and pair[0] not in shorter[1:-1]:
                shorter = shorter[1:-1]
        shorter = (
            shorter[2:-2]
            if len(shorter) > 4 and shorter[:2] == shorter[-2:] == "**" and "**" not in shorter[2:-2]
            else shorter
        )
        if shorter == text:
            return text
        text = shorter


def _normalised(value: Any) -> Check:
    said = texts(value, "normalised")
    wanted = {normal(text) for text in said}

    def check(view: View, demanding: bool) -> Finding:
        text = view.seen.strip()
        holds = len(text) < 100_000 and normal(text) in wanted
        return Finding(holds, f"it is `{shown(text)}`" + ("" if holds else f", not `{shown(said[0])}`"))

    return check


def _choice(value: Any, options: Any = None) -> Check:
    from .choice import choose  # its patterns take a while to compile

    named: list[str] = []
    letters = _LETTERS
    if isinstance(options, str):
        letters = options.upper().replace(",", "").replace(" ", "")
        if len(set(letters)) < len(letters) or not letters.isalpha():
            raise ValueError(f"`options` must be different letters such as `ABCD`, not `{_shown(options)}`")
    elif options is not None:
        named = texts(options, "options")
        letters = _LETTERS[: len(named)]
    letter = re.fullmatch(r"\s*[(\[]?([A-Za-z])(?:[)\].:]\s?.*)?\s*", str(value), re.DOTALL)
    if not letter or letter[1].upper() not in letters:
        raise ValueError(f"a `choice` is a letter of {letters}, not `{_shown(value)}`")
    wanted = letter[1].upper()

    def check(view: View, demanding: bool) -> Finding:
        found = choose(view.seen, letters, named)
        what = f"`{found.letter}` ({found.how})" if found.letter else f"no letter ({found.how})"
        return Finding(found.letter == wanted, what if found.letter == wanted else f"{what}, not `{wanted}`")

    return check


def _edge(which: str) -> Callable[..., Check]:
    def make(value: Any, case: bool = False) -> Check:
        listed = texts(value, which)
        if len(listed) > 1:
            raise ValueError(f"`{which}` must be one text, not `{_shown(value)}`; `any` takes several rules")
        wanted = listed[0]
        needle = fold(wanted, case)

        def check(view: View, demanding: bool) -> Finding:
            text = fold(view.reading(demanding), case)
            holds = text.startswith(needle) if which == "starts" else text.endswith(needle)
            at = shown(text[: len(needle)] if which == "starts" else text[-len(needle) :], 40)
            return Finding(holds, f"it {which} with `{at}`" + ("" if holds else f", not `{shown(wanted, 40)}`"))

        return check

    return make


_COUNTS: dict[str, Callable[[str, int], int]] = {
    "words": lambda text, stop: len(counts.words(text)),
    "sentences": counts.sentences,
    "paragraphs": lambda text, stop: len(counts.paragraphs(text)),
    "lines": lambda text, stop: counts.lines(text),
    "characters": lambda text, stop: counts.characters(text),
}


def _counted(unit: str) -> Callable[[Any], Check]:
    def make(value: Any) -> Check:
        limits = bounds(value, unit)
        return lambda view, demanding: counted(
            lambda seen: _COUNTS[unit](view.reading(seen == demanding), limits.stop), limits, unit
        )

    return make


def _language(value: Any) -> Check:
    wanted = [known(code) for code in ([value] if isinstance(value, str) else texts(value, "language"))]

    def check(view: View, demanding: bool) -> Finding:
        findings = [Finding(*spoken(view.seen, code)) for code in wanted]
        return first(findings, True) or first(findings, None) or findings[0]

    return check


def first(findings: Iterable[Finding], holds: bool | None) -> Finding | None:
    """The first finding of that kind."""
    return next((finding for finding in findings if finding.holds is holds), None)


def _tags(value: Any, outside: bool = False, opened: bool = False) -> Check:
    names = texts(value, "tags")
    if not all(_TAG.fullmatch(name) for name in names) or len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"`tags` must be different names such as `think`, not `{_shown(value)}`")

    def check(view: View, demanding: bool) -> Finding:
        problem = tags.breach(view.raw, names, outside=outside, opened=opened)
        return Finding(not problem, problem or "each tag once, in order")

    return check


def _json(value: Any) -> Check:
    if value is not True:
        raise ValueError("`json` takes `true`")
    return lambda view, demanding: is_json(view)


FLAGS = ("case", "word", "ignore_case", "dot_all", "multi_line", "whole", "outside", "opened")
"""What kinds take that is true or false."""

ANSWERED = ("contains", "exact", "normalised", "choice", "starts", "ends")
"""The kinds whose value can be the sample's answer."""

KINDS: dict[str, tuple[Callable[..., Check], str]] = {
    "contains": (_contains, "case word times"),
    "regex": (_regex, "ignore_case dot_all multi_line whole times"),
    "exact": (_exact, ""),
    "normalised": (_normalised, ""),
    "choice": (_choice, "options"),
    "starts": (_edge("starts"), "case"),
    "ends": (_edge("ends"), "case"),
    **{unit: (_counted(unit), "") for unit in _COUNTS},
    "language": (_language, ""),
    "tags": (_tags, "outside opened"),
    "json": (_json, ""),
}
"""What makes the check of each kind, and what the kind takes besides its value."""
