r"""Reads a phrase that states an answer: takes away emphasis, reasons and remarks, and the words around its one value.

Rule 4 in `extract` says what becomes of a phrase, with examples. What is not clear comes back whole, so that two
candidates are never cut down to one.
"""

from __future__ import annotations

import re

from .tree import words

SPANS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:[^$\\]|\\.)+?)(?<!\\)\$", re.DOTALL)
SENTENCE_END = re.compile(r"(?<![ie]\.[eg])(?<!approx)[.!?](?=\s|$|\*)|[\r\n\u3002\uff1b]|<(?=[|/])")
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"

_EMPHASIS = re.compile(
    r"(?<![\w*\\${}()^])([*_]{1,3})(?=[^\s*_])([^*_\n]{1,200}?)(?<=[^\s*_])\1(?![\w*])|</?(?:b|i|u|em|strong)>"
)
_JOINT = re.compile(r"[\s*,;]*(?:or|and|,|;)[\s*,;]*(?:(?:or|and)\s*)?", re.IGNORECASE)
_HEDGE = re.compile(r"\s*[,;(]?\s*\b(?:or|and|but|not|maybe|perhaps)\b", re.IGNORECASE)
_OPENING, _CLOSING = "([{", ")]}"

_NUMERAL = (
    r"(?:[-+\u2212\u2013]\s?)?(?:\\?[$€£¥]\s?)?"
    r"(?:\d+(?:,\d+)*(?:\.\d+)?|\.\d+)(?:/\d+|:\d\d|\s\d+/\d+)?(?:\s?\\?%|°)?"
)
_SPAN = r"\$[^$]+\$|\\\([^()]{1,200}(?:\([^()]*\)[^()]*)*\\\)"
_VALUE = re.compile(rf"(?<![A-Za-z0-9_.])(?:{_SPAN}|{_NUMERAL}(?!\.?[A-Za-z0-9_]))")
_LONE = rf"(?:{_SPAN}|{_NUMERAL})"
_NUMBER = re.compile(r"-?\\?\$?\d[\d,]*(?:\.\d+)?%?")
_PLAIN = re.compile(rf"[A-Za-z{CJK}'\u2019\s,()/-]*")
_WORD = re.compile(r"[A-Za-z]+(?:['\u2019][a-z]+)?")
_COUNTED = words("digits factors divisors multiples times")
"""Words of `STOP` that may be what is counted: `12 divisors`."""
_PERCENT_OF = re.compile(r"(?:%|.\s*per[ -]?cent)\s+of\b")
_SCALED = words("hundred thousand million billion trillion dozen")

STOP = words(
    "not no nor never neither cannot can't isn't doesn't don't won't less more fewer least most greater larger "
    "smaller bigger higher lower above below over under exceeds exceeding about around approximately roughly nearly "
    "almost close near between within up or either if unless except but than maybe perhaps possibly might may could "
    "half third quarter twice thrice double triple times root squared cubed factorial power plus minus negative sum "
    "difference product quotient ratio reciprocal inverse multiple multiples divisible factor factors divisor "
    "divisors mod modulo base digit digits equation step case part option choice figure table problem question "
    "method theorem line with who whose and one two three four five six seven eight nine ten both none zero first "
    "last wrong incorrect false impossible until before after divided undefined unknown infinite short "
)
"""With one of these words around it, a number need not be what is stated."""
_STOP_CJK = re.compile(r"[不或约無无非]|可能|至少|至多|大于|小于|超过|多于|少于|一半|倍")
_MATHS = words("sqrt sin cos tan cot sec csc ln log exp pi infinity infty")
_NO_UNIT = words(
    "in of for to as at on by from out per each is are was were that which when where while left remaining total "
    "altogether only so then every a an the there because since this it he she they we"
)
_LEADS = words("equal equals just only exactly simply thus therefore also precisely indeed then is")
_NAME = re.compile(r"[,()/]|\b(?:[A-Z][a-z'\u2019]*|number|room|bus|team|box|day|page|row)\s*$")
"""What makes a number a part of a name, or sets it apart: `March 3`, `Amy, 3`."""
_OPERAND = re.compile(
    r"(?:\b(?:by|from|on|at|square|cube)|"
    r"(?<!equal)(?<!equals)(?<!comes)(?<!amounts)\s+to|"
    r"(?<!total)(?<!value)(?<!area)(?<!volume)(?<!length)(?<!perimeter)(?<!cost)(?<!price)(?<!speed)(?<!distance)"
    r"(?<!amount)(?<!profit)(?<!probability)\s+of)\s*$"
)
"""What stands before a number that is an operand or a bound, as in `rises by 3` and `the cube of 3`."""

_REASON = re.compile(
    r"\b(?:because|since|as (?:required|desired|claimed|expected|needed|wanted|stated|shown|given|above|well)|"
    r"due to|given that|so that)\b|,\s*which\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|wrong|incorrect|impossible|contradict\w*|false)\b|n't\b", re.IGNORECASE)
_OTHERWISE = re.compile(r"\b(?:or|otherwise|if|but|alternatively|maybe|while|whereas)\b", re.IGNORECASE)
_NOT_BUT = re.compile(rf"not\s+{_LONE}\s*,?\s+but\s+(?:rather\s+)?({_LONE})", re.IGNORECASE)
_BUT_NOT = re.compile(rf"({_LONE})\s*[,(]?\s*(?:and not|not|rather than|instead of)\s+{_LONE}\s*\)?", re.IGNORECASE)
_THAT_IS = re.compile(r"\s*[,;(]\s*(?:that is(?: to say)?|i\.\s?e\.|or equivalently|equivalently),?\s+", re.IGNORECASE)
_ABOUT = re.compile(
    rf"[,(\s]*(?:\bor|\bwhich is|\bis)?\s*(?:\b(?:about|approximately|approx\.?|roughly|around|nearly)\b|≈|\\approx)"
    rf"\s*({_LONE})(?:\s*[A-Za-z]+)?\s*\)?",
    re.IGNORECASE,
)
_RESTATED = re.compile(rf"(.*\S)\s+\(({_LONE})\)", re.DOTALL)


MAX_PHRASE = 500
"""Longer phrases are no plain statement, and are left whole."""


def settled(phrase: str) -> str:
    """The answer that a phrase states; the whole phrase where it is not words around one value.

    Empty when the words say that the value need not be the answer, as in `less than 12` and `12 unless it rains`.
    """
    spans, end = joined_spans(phrase)
    if (spans and end == len(phrase)) or _NUMBER.fullmatch(phrase):
        return spans or phrase  # nothing stands around it
    if len(phrase) > MAX_PHRASE:
        return phrase
    phrase = balanced(phrase.strip(" \t\r\n:*,;"))
    phrase = _restated(_without_reason(_corrected(phrase)))
    spans, end = joined_spans(phrase)
    if not spans:
        return _lone_value(phrase)
    rest = phrase[end:]
    if not rest.strip(" ,;*"):
        return spans
    if _HEDGE.match(rest) or not _PLAIN.fullmatch(rest):
        return phrase
    return "" if _stopped("", rest) else _with_unit(spans, rest)


def unemphasised(text: str) -> str:
    """The text with spaces for Markdown's emphasis and HTML's, so that places in it stay what they were."""
    if "*" in text or "_" in text or "</" in text:
        for _ in range(2):  # bold may stand around italics
            text = _EMPHASIS.sub(_blanked, text)
    return text


def _blanked(match: re.Match[str]) -> str:
    mark = match[1]
    if mark is None:
        return " " * len(match[0])
    return " " * len(mark) + match[2] + " " * len(mark)


def balanced(text: str) -> str:
    """The text without closing brackets at its end, or opening ones at its start, that have no partner."""
    extra = sum(map(text.count, _CLOSING)) - sum(map(text.count, _OPENING))
    while extra > 0 and text[-1:] in _CLOSING and not text.endswith(("\\)", "\\]", "\\}")):
        text, extra = text[:-1].rstrip(), extra - 1
    while extra < 0 and text[:1] in _OPENING:
        text, extra = text[1:].lstrip(), extra + 1
    return text


def joined_spans(text: str) -> tuple[str, int]:
    """The formulas that open the text, joined by commas, "or" and "and", and where they end."""
    first = SPANS.match(text)
    if first is None:
        return "", 0
    end, count = first.end(), 1
    while joint := _JOINT.match(text, end):
        following = SPANS.match(text, joint.end())
        if following is None:
            break
        end, count = following.end(), count + 1
    return (content(first) if count == 1 else tidy(text[:end])), end


def tidy(spans: str) -> str:
    """Several formulas in dollar signs, each without the full stop or comma that its delimiters enclose."""
    return SPANS.sub(lambda span: f"${content(span)}$", spans)


def joint_between(text: str, start: int, end: int) -> bool:
    """Whether nothing but "or", "and" or a comma stands there."""
    return _JOINT.fullmatch(text, start, end) is not None


def content(span: re.Match[str]) -> str:
    """What stands between the delimiters, without the full stop or comma of the sentence around it."""
    inner = next(group for group in span.groups() if group is not None).strip()
    return inner if inner.endswith("...") else inner.rstrip(" \t\r\n.,;:\\")


def _corrected(phrase: str) -> str:
    """`not A but B` is B, and `A, not B` is A."""
    match = _NOT_BUT.fullmatch(phrase) or _BUT_NOT.fullmatch(phrase)
    return match[1] if match else phrase


def _without_reason(phrase: str) -> str:
    reason = _REASON.search(phrase, 1)
    if reason is None or _OTHERWISE.search(phrase, reason.end()):
        return phrase
    if reason[0].startswith(",") and _DENIED.search(phrase, reason.end()):
        return phrase
    return phrase[: reason.start()].rstrip(" ,;:(\u2013\u2014-")


def _restated(phrase: str) -> str:
    """A second name of the same value as an equation, which the comparison checks: `A (B)` is `A = B`."""
    if "about" in phrase or "appro" in phrase or "≈" in phrase or "roughly" in phrase or "around" in phrase:
        for match in _ABOUT.finditer(phrase):
            if match.end() == len(phrase) and match.start() > 0:
                return f"{phrase[: match.start()]} \\approx {match[1]}"
        if phrase.lower().startswith("approximately "):
            return phrase[14:].strip()
    phrase = _THAT_IS.sub(" = ", phrase)
    restated = _RESTATED.fullmatch(phrase)
    return f"{restated[1]} = {restated[2]}" if restated else phrase


def _lone_value(phrase: str) -> str:
    """The only number or formula of a phrase in plain words, with its unit."""
    found = _VALUE.search(phrase)
    if found is None or found.end() - found.start() == len(phrase):
        return phrase
    before, after = phrase[: found.start()], phrase[found.end() :]
    around = _WORD.findall(before) + _WORD.findall(after)
    if not (_PLAIN.fullmatch(before) and _PLAIN.fullmatch(after)) or _NAME.search(before):
        return phrase
    if any((len(word) == 1 and word not in "aAI") or word in _MATHS for word in around):
        return phrase  # a symbol, or the sign of a unit
    if not _may_lead(before) or _stopped(before, after) or _PERCENT_OF.match(found[0].strip()[-1] + after):
        return ""
    span = SPANS.fullmatch(found[0])
    return _with_unit(content(span) if span else found[0].strip(), after)


def _stopped(before: str, after: str) -> bool:
    """Whether a word around a value says that it need not be the answer."""
    if after.strip().lower() in _COUNTED:
        after = ""
    around = f"{before} {after}".lower()
    return not STOP.isdisjoint(_WORD.findall(around)) or _STOP_CJK.search(around) is not None


def _may_lead(before: str) -> bool:
    """Whether words before a value can lead up to it, as a clause can."""
    if re.search(rf"[{CJK}]", before) or not before.strip():
        return True
    if _OPERAND.search(before):
        return False
    return len(before.split()) > 1 or before.strip().lower() in _LEADS


def _with_unit(value: str, after: str) -> str:
    """The value with the words directly after it, up to the first that belongs to no unit."""
    unit: list[str] = []
    after = re.split(r"[,()]", after, maxsplit=1)[0]
    for word in re.sub(r"\bper[ -]cent\b", "percent", after).split():
        bare = word.lower()
        if (bare in _NO_UNIT and not (bare == "per" and unit)) or not bare.isascii():
            break
        unit.append(word)
    if unit and unit[-1].lower() == "per":
        unit.pop()
    if not unit or (len(unit) > 3 and unit[0] not in _SCALED):
        return value
    return f"{value} {unit[0]}" if len(unit) == 1 else f"{value}\\text{{ {' '.join(unit)}}}"
