r"""Finds the final answer in a completion, by these rules. The first that applies decides.

0.  Only what follows the last `</think>` counts. A `<think>` that is never closed has no answer.

        <think>\boxed{7}</think> It is \boxed{8}.     8
        <think>maybe \boxed{7}                        none

1.  The last `\boxed{...}` or `\fbox{...}`, braces matched; of nested boxes the outermost. A last box that is
    never closed has no answer: the text was cut, and an earlier box was not meant to be final. Boxes with nothing
    but punctuation, "or" and "and" between them are one answer; prose between them makes the last one final.

        \boxed{1} and then \boxed{\frac{2}{3}}        \frac{2}{3}
        \boxed{\boxed{5} \text{ or } 6}               \boxed{5} \text{ or } 6
        \boxed{\boxed{5}}                            5
        \boxed{5} or \boxed{6}                        5 or 6
        \boxed{1}\boxed{2}                            1, 2

2.  The last `<answer>...</answer>`; a declaration inside it (rule 4) is unwrapped.

        <answer>12</answer>                           12

3.  The rest of the line after the last `####`.

        6 * 7 = 42\n#### 42                           42

4.  The sentence after the last "the answer is", "final answer:", "answer:" or the like. When it opens with
    formulas `$...$`, they are the answer, together with "or ..." and "and ..." that follow.

        The answer is 12. I hope it is correct.       12
        The final answer is $x=3$, as claimed.        x=3
        So the answer is $5$ or $6$.                  $5$ or $6$

5.  A reply that is itself an answer: one short line with no prose.

        x + 1                                         x + 1

6.  Unless told otherwise (`fallback=False`), the last expression: the last formula or number, whichever ends
    later, with what is joined to it by "or", "and" or a comma; of plain text what follows the last `=`.

        Hence $n = 3$ or $n = 4$.                     $n = 3$ or $n = 4$
        She pays 5 or 6 dollars.                      5 or 6
        Together that is 2 + 3 = 5 apples.            5

    With `choice=True` (the reference is one capital letter) it is the last letter standing alone, or the one
    that opens the reply as in `(D) Alina` or `D. because ...`.

What is found is the whole answer: nothing later fishes a number out of it. Every rule runs in linear time.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from .tree import MAX_DEPTH, words

TAIL = 2_000
"""The last expression is looked for in this many characters at the end."""


class Extraction(NamedTuple):
    """The answer as it was written (None when there is none), and the rule that found it."""

    answer: str | None
    rule: str


class _Box(NamedTuple):
    """Where a box begins, where its brace opens, and where that closes."""

    begin: int
    brace: int
    end: int


_BRACES = re.compile(r"\\(?:boxed|fbox)\s*|\\[{}\\]|[{}]")
_BOX_JOINT = re.compile(
    r"(?:[\s*.,;:&$]|\\[,;:! \\()\[\]]|\\q?quad\b|\\(?:text|mbox|mathrm) ?\{\s*(?:or|and)?\s*\}|\b(?:or|and)\b)*",
    re.IGNORECASE,
)
_BARE_BOX = re.compile(r"\\[a-zA-Z]+|-?[\w.]+")
_DECLARED = re.compile(
    r"(?:\banswers?(?: +(?:is|are|would be|must be)\b(?: +(?:for sure|therefore|thus|simply))?"
    r"|\**[ \t]*[:=])\**)[ \t:]*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|\*)|[\r\n<]")
_SPANS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:[^$\\]|\\.)+?)(?<!\\)\$", re.DOTALL)
_JOINT = re.compile(r"[\s*,;]*(?:or|and|,|;)[\s*,;]*(?:(?:or|and)\s*)?", re.IGNORECASE)
_HEDGE = re.compile(r"\s*[,;(]?\s*\b(?:or|and|but|not|maybe|perhaps)\b", re.IGNORECASE)
_TERM = r"[-+]?(?:[\w\\{}()|!°%$'^/]|\.(?=\d)|(?<=\d)[:,](?=\d))+"
_FIGURE = rf"(?=\S*\d){_TERM}(?:\s*[-+*/^]+\s*{_TERM})*"
_FIGURES = re.compile(rf"{_FIGURE}(?:\s*(?:,|\bor\b|\band\b)\s*{_FIGURE})*", re.IGNORECASE)
_INSIDE = re.compile(r"[\w)}]\s*[-+*/^<>]\s*$")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_NOT_PROSE = words("or and sqrt sin cos tan cot sec csc ln log exp pi infinity cm km mm kg")
_OPENING_CHOICE = re.compile(r"\(?([A-Z])(?:\)|[.:](?=\s|$)|,(?=\s[a-z]))")
_LONE_LETTER = re.compile(r"(?<![\w'’])\(?([A-HJ-Z])\)?(?![\w'’])")


def extract(text: str, *, choice: bool = False, fallback: bool = True) -> Extraction:
    """The final answer of a completion, by the rules above.

    Args:
        text: The completion.
        choice: The reference is one capital letter, so a lone letter in prose can be the answer.
        fallback: Whether the last expression will do when nothing declares an answer (rule 6).
    """
    _, _, rest = text.rpartition("</think>")
    if "<think>" in rest:
        return Extraction(None, "the reasoning was never closed with `</think>`")
    text = rest
    boxed = _last_box(text)
    if boxed is not None:
        return boxed
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start >= 0:
        inner = text[start + 8 : end].strip()
        return Extraction(_declared(inner) or inner, "answer tag")
    hashes = text.rfind("####")
    if hashes >= 0:
        line = text[hashes + 4 :].strip().partition("\n")[0].strip()
        return Extraction(line or None, "####")
    declared = _declared(text)
    if declared is not None:
        return Extraction(opening_choice(declared) or declared if choice else declared, "declared")
    stripped = text.strip()
    letter = opening_choice(stripped) if choice else None
    if letter:
        return Extraction(letter, "opening letter")
    if _is_bare(stripped):
        return Extraction(stripped, "whole reply")
    letters = _LONE_LETTER.findall(stripped[-TAIL:]) if choice and fallback else []
    if letters:
        return Extraction(letters[-1], "last letter")
    if not fallback:
        return Extraction(None, "no box, tag, `####` or declared answer")
    return Extraction(_last_expression(stripped[-TAIL:]), "last expression")


def _last_box(text: str) -> Extraction | None:
    r"""The last outermost box, or None when there is no `\boxed` at all."""
    last = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if last < 0:
        return None
    if text.count("\\boxed") + text.count("\\fbox") > 1:
        boxes = _closed_boxes(text)
        if boxes and last < boxes[-1].end:
            return Extraction(_joined_boxes(text, boxes), "boxed")
    start, end = _box_at(text, last)
    if not text.startswith("{", start):
        bare = _BARE_BOX.match(text, start)
        return Extraction(bare.group() if bare else None, "boxed")
    if end < 0:
        return Extraction(None, "the last box was never closed")
    return Extraction(_unwrapped(text[start + 1 : end]), "boxed")


def _unwrapped(content: str) -> str:
    """What stands in a box, without boxes around all of it."""
    content = content.strip()
    for _ in range(MAX_DEPTH):
        start, end = _box_at(content, 0)
        if not start or end != len(content) - 1:
            break
        content = content[start + 1 : end].strip()
    return content


def _joined_boxes(text: str, boxes: list[_Box]) -> str:
    """The last box, together with those before it that nothing but a joint divides from it."""
    contents, either = [_unwrapped(text[boxes[-1].brace + 1 : boxes[-1].end])], False
    for before, after in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        joint = text[before.end + 1 : after.begin]
        if not _BOX_JOINT.fullmatch(joint):
            break
        content = _unwrapped(text[before.brace + 1 : before.end])
        if content not in contents:
            contents.append(content)
            either = either or "or" in joint.lower()
    return (" or " if either else ", ").join(reversed(contents))


def _box_at(text: str, at: int) -> tuple[int, int]:
    r"""Where the brace after `\boxed` at `at` is (0 when no box is there), and where its partner is (-1: nowhere)."""
    opening = _BRACES.match(text, at)
    if opening is None or not opening.group().startswith(("\\b", "\\f")):
        return 0, -1
    depth = 0
    for brace in _BRACES.finditer(text, opening.end()):
        if brace.group() == "{":
            depth += 1
        elif brace.group() == "}":
            depth -= 1
            if depth == 0:
                return opening.end(), brace.start()
    return opening.end(), -1


def _closed_boxes(text: str) -> list[_Box]:
    """The closed boxes that are in no other closed box, in one pass, so that a flood of open boxes stays linear."""
    found: list[_Box] = []
    open_boxes: list[tuple[int, int]] = []  # for each open brace, where its box began (or -1), and where it is
    pending = -1
    for mark in _BRACES.finditer(text):
        token = mark.group()
        if token.startswith(("\\b", "\\f")):
            pending = mark.start() if text.startswith("{", mark.end()) else -1
        elif token == "{":
            open_boxes.append((pending, mark.start()))
            pending = -1
        elif token == "}" and open_boxes:
            begin, brace = open_boxes.pop()
            if begin >= 0:
                while found and found[-1].begin > begin:
                    found.pop()
                found.append(_Box(begin, brace, mark.start()))
    return found


def _declared(text: str) -> str | None:
    """The answer after the last declaration, or None when nothing is declared."""
    last = _last(_DECLARED, text)
    if last is None:
        return None
    rest = text[last.end() : last.end() + TAIL].lstrip(" \t\r\n:*")
    spans, end = _joined_spans(rest)
    if spans and not _HEDGE.match(rest, end):
        tail = _SENTENCE_END.split(rest[end:], maxsplit=1)[0]
        if not re.search(r"[\d$\\]", tail):
            return spans + tail if len(tail.split()) <= 3 and "," not in tail else spans
    sentence = _SENTENCE_END.split(rest, maxsplit=1)[0] if not spans else _sentence_after(rest, end)
    return sentence.strip().rstrip("*").strip() or None


def _sentence_after(rest: str, end: int) -> str:
    return rest[:end] + _SENTENCE_END.split(rest[end:], maxsplit=1)[0]


def _joined_spans(text: str) -> tuple[str, int]:
    """The formulas that open the text, joined by commas, "or" and "and", and where they end."""
    first = _SPANS.match(text)
    if first is None:
        return "", 0
    end, count = first.end(), 1
    while joint := _JOINT.match(text, end):
        following = _SPANS.match(text, joint.end())
        if following is None:
            break
        end, count = following.end(), count + 1
    only = next(group for group in first.groups() if group is not None)
    return (only.strip() if count == 1 else text[:end]), end


def _is_bare(text: str) -> bool:
    if not text or len(text) > 2_000 or "\n" in text:
        return False
    prose = [w for w in _WORD.findall(re.sub(r"\\[a-zA-Z]+\s*\{[^{}]*\}", "", text)) if w not in _NOT_PROSE]
    return len(prose) <= 1 and _SPANS.sub("", text).strip(" .") in ("", text.strip(" ."))


def opening_choice(text: str) -> str | None:
    """The letter of the choice that opens a text, as in `(D) Alina` or `D. because ...`, else None."""
    opening = _OPENING_CHOICE.match(text.lstrip("*$ "))
    if opening is None or re.search(r"\([A-Z]\)", text[opening.end() :]):
        return None
    return opening.group(1)


def _last_expression(text: str) -> str | None:
    begin, end = -1, 0
    for span in _SPANS.finditer(text):
        if begin < 0 or not _JOINT.fullmatch(text, end, span.start()):
            begin = span.start()
        end = span.end()
    last = _last(_FIGURES, text, end)
    if last is None:
        return text[begin:end] if begin >= 0 else None
    if _INSIDE.search(text[max(0, last.start() - 20) : last.start()]):
        return None  # part of a formula that has no clear beginning
    return _balanced(last.group())


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text, start), maxlen=1)), None)


def _balanced(figure: str) -> str:
    """The text without closing brackets at its end, or opening ones at its start, that have no partner."""
    for opening, closing in ("()", "{}"):
        extra = figure.count(closing) - figure.count(opening)
        while extra > 0 and figure.endswith(closing):
            figure, extra = figure[:-1], extra - 1
        while extra < 0 and figure.startswith(opening):
            figure, extra = figure[1:], extra + 1
    return figure
