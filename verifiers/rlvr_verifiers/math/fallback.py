r"""The last resort: the last expression, letter or phrase of a completion that declares no answer (rule 6)."""

from __future__ import annotations

import re
from collections import deque

from .statements import CJK, SPANS, balanced, content, joint_between, tidy, unemphasised

TAIL = 2_000
"""The last expression is looked for in this many characters at the end."""

_LETTER = rf"[^\W{CJK}]"
_TERM = rf"[-+\u2212]?(?:{_LETTER}|[\\{{}}()!°%$'^/\u221a]|\.(?=\d)|(?<=\d)[:,](?=\d))+"
_FIGURE = rf"(?=\S*\d){_TERM}(?:\s*[-+*/^\u2212\u00d7]+\s*{_TERM})*(?:\s+pi\b)?"
_FIGURES = re.compile(rf"{_FIGURE}(?:\s*(?:,\s*(?:or\b|and\b)?|\bor\b|\band\b)\s*{_FIGURE})*", re.IGNORECASE)
_INSIDE = re.compile(r"[\w)}]\s*[-+*/^<>\u2212\u00d7]\s*$|\d\s+to\s+$")
_UNIT_POWER = re.compile(r"(?<=\d )(?:[ckm]?m|in|ft|yd|mi|units?|inches|feet)\s?\$?\^\{?[23]\}?\$?")

_END = re.compile(r"[.!?](?=\s|$)|\n\s*\n|[\u3002\uff1f\uff01]")
_REASON = re.compile(
    r"(?<!\band )(?<!\bbut )\b(?:because|since)\b(?:(?!\b(?:therefore|thus|hence|so)\b).)*", re.IGNORECASE | re.DOTALL
)
_CONDITION = re.compile(r"\b(?:since|because|if|when|for|as|with|where|at)\s*$", re.IGNORECASE)
_NO_ANSWER = re.compile(
    r"\b(?:cannot|can't|can not|could not|couldn't|not able|unable|whether|fails?|impossible|maybe|perhaps|possibly|"
    r"might|either|(?:greater|less|larger|smaller|fewer|more|higher|lower) than|at (?:least|most)|up to|"
    r"let(?:'s| me| us) try|would try)\b|\?|\b(?:is|are|was|be)(?: not|n't)\b"
    r"|不是|不能|无法|是否|吗|至少|至多|大于|小于|或|\uff1f",
    re.IGNORECASE,
)
_NOT_THIS = re.compile(
    r"\b(?:(?:not|never|nor|neither)(?:\s+[a-z]+){0,2}|step|problem|question|equation|case|part|section|figure|table|"
    r"theorem|example)\s*$",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*(?=[^\s*])([^*\n]{1,80})(?<=\S)\*\*|__(?=[^\s_])([^_\n]{1,80})(?<=\S)__")
_BOLD_VALUE = re.compile(
    r"(?:[A-Za-z]{1,2}\s*=\s*)?(?:\$[^$]+\$|\\\(.+\\\)|[-+]?\\?[$€£]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?\\?%?)"
    r"(?:\s+[A-Za-z]+){0,3}\.?"
)
_DENIED = re.compile(r"\b(?:not|never|cannot|or)\b|n't\b")
_CELLS = re.compile(r"^[ \t]*\|(.*)\|[ \t]*$", re.MULTILINE)
_COMPLEMENT = re.compile(r".*\b(?:is|are|was)\s+([^\W\d][\w'\u2019-]*(?:\s+[\w'\u2019-]+){0,3})[\s.!*]*", re.DOTALL)

_LONE_LETTER = re.compile(r"(?<![\w'\u2019\\])\(?([A-HJ-Z])\)?(?![\w'\u2019])")
_ARTICLE = re.compile(r"\s+(?!(?:is|and|or|because|since|as|in|by)\b)[a-z]")
_JOINED = re.compile(r"\(?\b[A-HJ-Z]\)?\s*(?:,|/|&|,?\s*(?:and|or))\s*$")
_NOT_LETTER = re.compile(
    r"\b(?:not|cannot|can't|isn't|eliminate|exclude|rule out|than)(?:\s+[a-z]+){0,2}\s*\(?$", re.IGNORECASE
)
_WRONG = re.compile(r"\W*(?:is|are|was|were)\s+(?:wrong|incorrect|not|false|too|impossible)\b", re.IGNORECASE)


def last_expression(text: str) -> str | None:
    """The last formula or number, unless its sentence says that it is no answer."""
    text = _tail(text)
    if "|" in text:
        text = _CELLS.sub(_last_cell, text)
    if "^" in text:
        text = _UNIT_POWER.sub("", text)
    plain = unemphasised(text)
    if ("$" in text or "\\" in text) and _ends_inside_formula(plain):
        return None
    found = _last_value(plain, 0)
    if found is None:
        return None
    start, stop = _sentence(plain, *found)
    reason = _REASON.search(plain, start, stop)
    if reason is not None and reason.start() < found[0] and (earlier := _last_value(plain[: reason.start()], start)):
        found, stop = earlier, reason.start()
    if _NO_ANSWER.search(plain, start, stop) or _NOT_THIS.search(plain, start, found[0]):
        return None
    if plain is not text:
        bold = [mark for mark in _BOLD.finditer(text, start, stop) if _BOLD_VALUE.fullmatch(mark[1] or mark[2])]
        if bold:
            return bold[-1][1] or bold[-1][2]
    return _read(plain, *found)


def last_letter(text: str) -> str | None:
    """The last capital letter that stands alone, unless it is one of several or said to be wrong."""
    text = unemphasised(_tail(text))
    letters = _lone_letters(text)
    for reason in reversed(list(_REASON.finditer(text))):
        before = [letter for letter in letters if letter.end() <= reason.start()]
        if before and not _END.search(text, before[-1].end(), reason.start()):
            letters = before + [letter for letter in letters if letter.start() >= reason.end()]
    for letter in reversed(letters):
        lead = text[max(0, letter.start() - 60) : letter.start()]
        if _NOT_LETTER.search(lead) or _WRONG.match(text, letter.end()):
            continue
        return None if _JOINED.search(lead) or "?" in text[letter.end() :][:60] else letter[1]
    return None


def lone_letters(text: str) -> list[str]:
    """The capital letters that stand alone, in order, but for the article "A" and the pronoun."""
    return [letter[1] for letter in _lone_letters(text)]


def _lone_letters(text: str) -> list[re.Match[str]]:
    return [
        letter
        for letter in _LONE_LETTER.finditer(text)
        if not (letter[0] == "A" and _ARTICLE.match(text, letter.end()))
    ]


def last_phrase(text: str) -> str | None:
    """For a reference in words: the last phrase in bold, or what the last sentence says something is."""
    line = text.rstrip().rpartition("\n")[2][-TAIL:]
    start = max((end.end() for end in _END.finditer(line) if line[end.end() :].strip()), default=0)
    bold = [mark[1] or mark[2] for mark in _BOLD.finditer(line, start)]
    phrases = [phrase.strip(" .") for phrase in bold if not phrase.endswith(":")]
    if phrases:
        only = len(phrases) == 1 and not _DENIED.search(line, start, line.find(phrases[0], start))
        return phrases[0] if only and len(phrases[0].split()) <= 4 else None
    complement = _COMPLEMENT.fullmatch(line, start)
    return complement[1] if complement else None


def _tail(text: str) -> str:
    if len(text) <= TAIL:
        return text
    tail = text[-TAIL:]
    return tail.partition("\n")[2] or tail  # a whole line, so that dollar signs pair up as they were meant to


def _last_cell(row: re.Match[str]) -> str:
    return row[1].rpartition("|")[2]


def _ends_inside_formula(text: str) -> bool:
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        if text.rfind(opening) > text.rfind(closing):
            return True
    rest = SPANS.sub("", text)
    at = rest.rfind("$")
    if at < 0 or rest[at - 1 : at] == "\\":
        return False
    last = rest[at + 1 :]
    currency = re.match(r"\s?\d", last) and not re.search(r"[\\^=_{}]", last)
    return not currency


def _last_value(text: str, start: int) -> tuple[int, int] | None:
    """Where the last formula (with those joined to it) or number after `start` begins and ends."""
    begin, end = -1, start
    for span in SPANS.finditer(text, start) if "$" in text or "\\" in text else ():
        joined = begin >= 0 and joint_between(text, end, span.start())
        if not joined or _CONDITION.search(text[max(0, begin - 10) : begin]):
            begin = span.start()
        end = span.end()
    last = next(iter(deque(_FIGURES.finditer(text, end), maxlen=1)), None)
    if last is not None:
        return last.span()
    return (begin, end) if begin >= 0 else None


def _read(text: str, begin: int, end: int) -> str | None:
    """The value that stands there, as an answer; None when it is a part of a formula with no clear beginning."""
    span = SPANS.fullmatch(text, begin, end)
    if span is not None:
        return content(span)
    if SPANS.match(text, begin, end):
        return tidy(text[begin:end])
    if _INSIDE.search(text[max(0, begin - 20) : begin]):
        return None
    return balanced(text[begin:end])


def _sentence(text: str, begin: int, end: int) -> tuple[int, int]:
    """Where the sentence around a value begins and ends."""
    start = 0
    for mark in _END.finditer(text, 0, begin):
        start = mark.end()
    stop = _END.search(text, end)
    return start, stop.end() if stop else len(text)
