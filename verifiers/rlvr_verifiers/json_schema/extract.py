r"""Finds the JSON that a completion meant, by these rules. The first that applies decides.

With `mode="strict"` there is one: the whole text is one JSON value, with nothing but white space around it.

    {"a": 1}                                        {"a": 1}
    Sure! {"a": 1}                                  not-json
    ```json\n{"a": 1}\n```                          not-json
    <think>so</think>{"a": 1}                       not-json

With `mode="extract"`:

1.  The whole text, if it is JSON.

        42                                          42
        {"a": "</think>"}                           {"a": "</think>"}

2.  Only the model's own turn counts: what follows the last `</think>`, and nothing while a `<think>` is open. It is
    the value if it is JSON.

        <think>{"a": 1}</think>{"a": 2}             {"a": 2}
        <think>{"a": 1}                             thinking
        {"a": 1}</think>I do not know.              nothing

3.  The last `<answer>...</answer>` (to the end if it is never closed), if there is JSON in it by rule 1, 4 or 5.

        {"a": 1} <answer>{"a": 2}</answer>          {"a": 2}
        <answer>42</answer>                         42
        <answer>see below</answer> {"a": 1}         {"a": 1}

4.  The last fenced block that is labelled `json` or not at all, else the last of any label. What is in it has to be
    one value by rule 1 or 5: an earlier block never takes its place. A block begins at a line that begins with three
    backticks or tildes, and a label or JSON may follow on that line; also at the end of a line with the label `json`.
    It ends at a line that ends with three of the same and no label, or where another labelled block begins. The last
    block need not be closed if JSON begins in it. Blank blocks do not count.

        ```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```      {"a": 2}
        ```JSON\n{"a": 1}                                   {"a": 1}
        ~~~\n{"a": 1}\n~~~                                  {"a": 1}
        ```json {"a": 1} ```                                {"a": 1}
        not {"a": 2} but ```json\n{"a": 1}\n```             {"a": 1}
        {"a": 1}\n```                                       {"a": 1}
        ```json\n{"a": 1}\n```\n```python\nprint(1)\n```    {"a": 1}
        ```markdown\n```json\n{"a": 1}\n```\n```            {"a": 1}
        ```json\n{"a": 1}\n```\n```json\nnone\n```          not-json
        ```json\n{"a": 1}\n{"a": 2}\n```                    several
        ```json\n// the result\n{"a": 1}\n```               {"a": 1}

5.  The only object or array in the text that is in no other. What is written twice and is the same counts once;
    several that differ have no value, so that nothing is won by writing many. What begins as JSON does and cannot be
    read counts as one that differs, and nothing is taken from the inside of it. A byte order mark spoils what it
    stands before.

        The result is {"a": 1}. Anything else?      {"a": 1}
        **{"a": 1}**                                {"a": 1}
        {"a": 1} ... so it is {"a": 1.0}            {"a": 1.0}
        {"a": 1} or {"a": 2}                        several
        {"a": 1} or {"a": 2,}                       several
        {"a": [1, 2],}                              trailing-comma
        {"a": [1, 2                                 cut-off
        {'a': ["b"]}                                single-quotes
        \ufeff{"a": 1}                              bom

    Empty ones, arrays of numbers only and braces with bare names count only where there are no others. Brackets before
    `(` or `:` (links and notes) and behind a letter, a digit, `]` or `)` (an index) never do. A number, a text or a
    word in prose is no value.

        See [1] and {name}: {"a": 1} [2, 3]         {"a": 1}
        Sorted, that is [1, 2, 3].                  [1, 2, 3]
        from [3, 1] to [1, 3]                       several
        {a: ["b"]}                                  bare-name
        ["the guide"](https://example.com)          nothing
        x[0] = y[1][2]                              nothing
        The answer is 42.                           nothing

Every rule runs in linear time, and a text with more than a million characters has no value.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ..jsontext import BOM, LIMITS, Refused, Span, find, read, same
from ..ownturn import own_turn


class Found(NamedTuple):
    """The value that was found, or why there is none.

    Attributes:
        how: Where it was found: `whole`, `answer`, `fence` or `prose`.
        value: What it says; None where there is a problem.
        problem: Why there is none.
    """

    how: str
    value: Any = None
    problem: Refused | None = None


MOST_MARKS = 50_000
"""Fences in a text that is searched."""

NOTHING = "nothing"
_DATA_LABELS = frozenset(["", "json", "jsonc", "json5", "jsonl", "ndjson", "geojson", "jsonld", "json-ld"])
_FENCE_LINE = re.compile(r"^[^\n]*?(?:```|~~~)[^\n]*$", re.MULTILINE)
_OPENING = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([\w+.-]*+)[ \t]*+")
_BLANKS, _FIRST, _LAST = " \t\r\n", '{["-0123456789tfn', '}]"0123456789el'
_LATE_OPENING = re.compile(r"[^`]*+(`{3,}+)[ \t]*+(json[\w+.-]*+)", re.IGNORECASE)
_DATA_BEGINS = re.compile(r"\s*+[{\[]")


def extract(text: str, mode: str = "extract") -> Found:
    """The JSON value of a completion, by the rules above."""
    if mode == "strict" or len(text) > LIMITS.characters:
        try:
            return Found("whole", read(text))
        except Refused as problem:
            return Found("whole", problem=problem)
    if found := _whole(text):
        return found
    own = own_turn(text)
    if own is None:
        return Found("whole", problem=Refused("thinking", "the reasoning was never closed with `</think>`"))
    if own is not text and (found := _whole(own)):
        return found
    if "<answer>" in own and (found := _tagged(own)):
        return found
    return _within(own)


def _whole(text: str) -> Found | None:
    bare = text.strip(_BLANKS)
    if bare[:1] not in _FIRST or bare[-1:] not in _LAST:  # prose, mostly: to read it and to say why not takes longer
        return None
    try:
        return Found("whole", read(text))
    except Refused:
        return None


def _within(text: str) -> Found:
    """By a fenced block, else in prose."""
    marks = text.count("```") + text.count("~~~")
    if marks > MOST_MARKS:
        return Found("fence", problem=Refused("too-many", f"there are more than {MOST_MARKS:,} fences in the text"))
    block = last_block(text) if marks else None
    if block is None:
        return _only("prose", text)
    return (_whole(block) or _only("fence", block, in_block=True))._replace(how="fence")


def _tagged(text: str) -> Found | None:
    """What the last `<answer>` holds; None where there is nothing in it."""
    start = text.rfind("<answer>") + len("<answer>")
    stop = text.find("</answer>", start)
    content = text[start : stop if stop >= 0 else len(text)]
    found = _whole(content) or _within(content)
    return None if found.problem and found.problem.rule == NOTHING else found._replace(how="answer")


def last_block(text: str) -> str | None:
    """What is in the fenced block that counts; None where there is none."""
    blocks = [(label.lower(), content) for label, content in _blocks(text) if content.strip()]
    data = [content for label, content in blocks if label in _DATA_LABELS]
    return next(reversed(data or [content for _, content in blocks]), None)


def _blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks in order: label and content."""
    blocks: list[tuple[str, str]] = []
    mark, label, start = "", "", -1  # of the block that is open
    for match in _FENCE_LINE.finditer(text):
        line = match[0].rstrip()
        opening = _OPENING.match(line) or _LATE_OPENING.fullmatch(line)
        rest = line[opening.end() :] if opening else ""
        if opening and (opening[2] or rest):
            data = rest[:1] in ("{", "[", '"')
            if rest and not data and opening[1][0] in rest:
                continue  # code in a line of prose
            if start >= 0:
                blocks.append((label, text[start : match.start()]))
            mark, label = opening[1][0] * 3, opening[2]
            start = match.start() + (opening.end() if data else len(match[0]))
            if data and rest.endswith(mark):
                blocks.append((label, rest.rstrip(mark[0])))
                start = -1
        elif start >= 0 and line.endswith(mark):
            blocks.append((label, text[start : match.start() + len(line.rstrip(mark[0]))]))
            start = -1
        elif start < 0 and opening:
            mark, label, start = opening[1][0] * 3, "", match.end()
    if start >= 0 and (_DATA_BEGINS.match(text, start) or label.lower() in _DATA_LABELS - {""}):
        blocks.append((label, text[start:]))
    return blocks


def _only(how: str, text: str, in_block: bool = False) -> Found:
    """The only object or array in a text."""
    try:
        spans = [span for span in find(text) if text[span.start] == "{" or not _is_mark(span, text)]
    except Refused as problem:
        return Found(how, problem=problem)
    spans = [span for span in spans if _counts(span, text)] or spans
    if not spans:
        return Found(how, problem=_nothing(text, in_block))
    if any(text[span.start - 1 : span.start] == BOM for span in spans):
        return Found(how, problem=Refused("bom", "a byte order mark stands before it"))
    first, last = spans[0], spans[-1]
    if len(spans) > 1 and not all(_alike(first, span, text) for span in spans[1:]):
        message = f"there are {len(spans)} different JSON values in the text, and nothing says which one is meant"
        return Found(how, problem=Refused("several", message))
    return Found(how, last.value, last.problem)


def _is_mark(span: Span, text: str) -> bool:
    """Whether brackets are part of a link, a note or an index."""
    before = text[max(0, span.start - 1) : span.start]
    return (
        text[span.stop : span.stop + 1] in ("(", ":") or before in (")", "]") or (before.isascii() and before.isalnum())
    )


def _counts(span: Span, text: str) -> bool:
    """Whether it is more than what prose may hold by chance."""
    if span.problem:
        inside = text[span.start + 1 : span.stop].lstrip()[:1]
        return inside in ("{", "[") or not (inside.isalnum() or inside in ("-", "_", "$"))
    if isinstance(span.value, dict):
        return bool(span.value)
    return any(isinstance(item, bool) or not isinstance(item, int | float) for item in span.value)


def _alike(a: Span, b: Span, text: str) -> bool:
    if a.problem or b.problem:
        return text[a.start : a.stop] == text[b.start : b.stop]
    return same(a.value, b.value)


def _nothing(text: str, in_block: bool) -> Refused:
    """Why there is nothing: in a block, what is wrong with what stands there."""
    if in_block or not text.strip() or len(text) > LIMITS.characters:
        try:
            read(text)
        except Refused as problem:
            return problem
    return Refused(NOTHING, "there is no JSON object or array in the text")
