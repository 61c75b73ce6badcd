r"""Finds the letter that a reply to a multiple-choice question settles on, by these rules.

1.  What settles is a mark or a statement: `\boxed{...}`, `<answer>...</answer>`, `"answer":` in JSON, "answer",
    "choice", "option" with "is" or a colon, "I choose" and the like, "option C is correct", and the same in Chinese.
    The last one decides.

        \boxed{C}                                             C
        $\boxed{\text{(C)}}$                                  C
        <answer>C</answer>                                    C
        {"reason": "it is C or D", "answer": "D"}             D
        The answer is (C).                                    C
        The correct answer is **C) Paris**.                   C
        Answer: c                                             C
        So the correct option is C, as shown.                 C
        I would choose (C), because (A) is too small.         C
        Therefore option C is correct.                        C
        C is the best answer.                                 C
        **Final Answer**\n\nC                                 C
        The best answer is A                                  A
        The answer is a matter of taste.                      none
        答案是C。                                              C

2.  A later statement takes an earlier one back only where a word says so (wait, no, actually, instead, however, but,
    rather, correction, sorry, on second thought, mistake, recheck) or a passage of 12 words or more lies between. Two
    different letters without that are two answers, which is none.

        The answer is B. Wait, no: the answer is C.           C
        The answer is B. The answer is C.                     none
        Answer: A\nAnswer: B\nAnswer: C\nAnswer: D            none
        \boxed{A} \boxed{B}                                   none
        The answer is B.\n\n\boxed{B}                         B

3.  A statement that names several letters, hedges (maybe, perhaps, possibly, either, might, could) or denies settles on
    none. Letters that it rules out behind the first do not count.

        The answer is B or C.                                 none
        The answer is (A), (B), (C) and (D).                  none
        <answer>A, B, C, D</answer>                           none
        The answer is either B or C.                          none
        The answer is maybe B.                                none
        The answer could be B.                                none
        The answer is not B.                                  none
        The answer is B, not C.                               B
        The answer is B rather than C.                        B
        The answer is not B but C.                            none

    A supposition, and what is said not to be so, state nothing.

        If the answer is B, then 2 = 3. The answer is C.      C
        I do not think the answer is B. The answer is C.      C
        I do not think the answer is C.                       none

4.  Without a mark or a statement, a reply that is an option: it opens with the letter, alone or set off by `)`, `.`,
    `:`, brackets or bold, and no other line opens with another letter that way.

        C                                                     C
        (c)                                                   C
        **C**                                                 C
        C) Paris                                              C
        C. Paris is the capital of France.                    C
        A) Rome\nB) Oslo\nC) Paris                            none
        A, B, C, D                                            none
        A cat has four legs.                                  none
        B or C                                                none

5.  Else the last line, if it is a letter alone or an option as in rule 4, or the only letter in bold in the last
    paragraph.

        Paris is in France.\nC                                C
        Rome is in Italy, so it is not A.\n\n(C) Paris         C
        Thus it must be **(C)**, the third.                   C
        Thus it is **B** or **C**.                            none
        I do not know.                                        none

A letter is one of the options; `a` and `I` in prose are not. With the options' texts given, an answer that is word for
word the text of exactly one of them is its letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .counts import words
from .seen import fold

TAIL = 20_000
"""Characters of a reply that are read, the last ones."""

PASSAGE = 12
"""Words between two statements from which on the later one stands."""

_STATEMENT = re.compile(
    r"\\f?box(?:ed)?[ ]?\{"
    r"(?P<box>[^{}\n]{0,80}(?:\{[^{}\n]{0,80}(?:\{[^{}\n]{0,40}\}[^{}\n]{0,40})?\}[^{}\n]{0,40})?)\}"
    r"|<answer>(?P<tag>[^<]{0,160})</answer>"
    r"|[\"']answer[\"']\s{0,9}:\s{0,9}[\"']?(?P<json>[^\"'\n}]{0,160})"
    r"|(?<![\w-])(?:answer|choice|option|letter)(?:\s(?:to|for)\s(?:the|this)\s(?:\w+\s)?(?:question|problem))?"
    r"(?:[*_]{0,3}\s{1,3}(?P<verb>is|would\sbe|must\sbe|should\sbe|will\sbe|could\sbe|might\sbe|may\sbe)\b[*_ :]{0,8}"
    r"|[*_]{0,3}[ \t]{0,3}[:=\uff1a][*_ \t]{0,8})(?=(?P<said>[^\n]{0,160}))"
    r"|\bI(?:['\u2019]d|\swould|\swill|['\u2019]ll)?\s(?:choose|pick|select|go\swith|answer)\s(?=(?P<chosen>[^\n]{0,160}))"
    r"|\b(?:option|choice|answer)\s(?P<named>[(\[*]{0,3}[A-Z][)\]*]{0,3}\s(?:is|seems)\s(?:the\s)?(?:correct|right|best|true)\b)"
    r"|(?<![\w'\u2019-])(?P<first>[A-Z][)\]*]{0,3}\sis\s(?:the\s)?(?:correct\s|right\s|best\s)?(?:answer|option|choice)\b)"
    r"|(?:final[ ]|correct[ ])?answer[ \t*_:]{0,8}\n\s{0,9}(?P<below>[^\n]{1,80})"
    r"|(?:\u7b54\u6848|\u7b54\u3048|\uc815\ub2f5)(?:\u662f|\u4e3a|\u70ba|\u306f|\uc740|\s?[:\uff1a])[:\uff1a\s]{0,8}(?=(?P<asian>[^\n]{0,80}))",
    re.IGNORECASE,
)
_MARKS = ("box", "tag", "json")
_REVISED = re.compile(
    r"\b(?:wait|no|actually|instead|however|but|rather|corrections?|corrected|sorry|second\sthoughts?|mistaken?|re-?check(?:ed|ing)?)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|either|might|could|unsure|unclear|not|neither|n't)\b|n't\b", re.IGNORECASE
)
_RULED_OUT = re.compile(
    r",?\s\(?(?:and\s)?(?:not|rather\sthan|instead\sof|because|since|as|while|whereas|but\snot)\b", re.IGNORECASE
)
_UNSAID = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|supposing|assume|assuming|false|untrue|wrong|doubt|doubtful)"
    r"|(?:\b(?:not|never|cannot)|n['\u2019]t)\s(?:\w{1,20}\s){0,2}(?:think|believe|say|claim|mean|agree|sure|certain))"
    r"\s(?:that\s)?(?:(?:the|my|its|correct|right|best|final|true)\s){0,4}\Z",
    re.IGNORECASE,
)
"""What stands before a statement that is no statement."""

_SENTENCE = re.compile(r"[.!?](?:\s|\Z)|[\u3002\uff0c]")
_MARKUP = re.compile(r"\\(?:textbf|textit|text|mathrm|mathbf|mbox)\s?|[$*_{}`\\\"]")
_LETTER = re.compile(r"(?<![\w'\u2019-])[(\[]?([A-Z])[)\]]?(?![\w'\u2019])")
_LEAD = re.compile(
    r"\s*(?:(?:the\s)?(?:option|choice|answer|letter)\s)?(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?=[).:,;\s\u3002\uff0c\u3001]|\Z)|([a-z])(?=[).:]|\s*\Z))"
)
_OPTION = re.compile(
    r"[ \t]*(?:[-*+][ \t])?[*_`$]{0,3}"
    r"(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])[*_]{0,3}(?=[).:](?:\s|[*_]|\Z)|[ \t]*(?:\n|\Z)))"
)
_BOLD = re.compile(r"\*\*\s?[(\[]?([A-Z])(?:[)\].:][^*\n]{0,80})?\s?\*\*")


class Choice(NamedTuple):
    """The letter that a reply settles on (None when it settles on none), and how that was seen."""

    letter: str | None
    how: str


def choose(text: str, letters: str, options: Sequence[str] = ()) -> Choice:
    """The letter that a reply settles on.

    Args:
        text: The reply, as a reader sees it.
        letters: The letters that stand for an option, capitals.
        options: The options' texts in the order of their letters, where they are known.
    """
    if len(text) > TAIL:
        text = text[-TAIL:].partition("\n")[2]
    settled: tuple[str | None, str] | None = None
    end = 0
    for found in _STATEMENT.finditer(text):
        stated = _stated(found, letters, options)
        if stated is None:
            continue
        kind, letter = stated
        if settled is not None and settled[0] != letter and not _revised(text[end : found.start()]):
            settled = (
                None,
                f"it says `{settled[0]}` and `{letter}`" if settled[0] and letter else "it settles on several or none",
            )
        else:
            settled = (letter, kind)
        end = found.end()
    if settled is not None:
        return Choice(*settled)
    return _unstated(text, letters, options)


def _stated(found: re.Match[str], letters: str, options: Sequence[str]) -> tuple[str, str | None] | None:
    """What kind of statement it is and the letter it names, None for none; no pair where it states nothing."""
    kind = str(found.lastgroup)
    content = found[kind]
    if kind not in _MARKS and _UNSAID.search(found.string[max(0, found.start() - 100) : found.start()]):
        return None
    if kind in _MARKS:
        if _STATEMENT.search(content):
            return kind, choose(content, letters, options).letter
        return kind, _named(content, letters, options, whole=True)
    if found["verb"] and found["verb"].split()[0].casefold() in ("could", "might", "may"):
        return "statement", None
    sentence = content
    stop = next((s for s in _SENTENCE.finditer(content) if s.start() > 3), None)
    if stop:
        sentence = content[: stop.start()]
    letter = _named(sentence, letters, options, whole=False)
    if letter is None and kind != "below" and not _LETTER.search(_MARKUP.sub("", sentence)):
        return None
    return ("statement", letter) if letter or kind != "below" else None


def _named(content: str, letters: str, options: Sequence[str], *, whole: bool) -> str | None:
    """The one letter that a statement's content names.

    Args:
        content: What stands in the mark, or what the sentence says.
        letters, options: As for `choose`.
        whole: Whether the content is the answer, so that a bare small letter can be one.
    """
    text = _MARKUP.sub("", content).strip()
    if letter := _by_text(text, letters, options):
        return letter
    kept = _RULED_OUT.split(text, maxsplit=1)[0]
    if _HEDGE.search(kept) or not (lead := _LEAD.match(kept)):
        return None
    letter = (lead[1] or lead[2] or lead[3]).upper()
    if letter not in letters or (lead[2] == "I" and not whole and kept[lead.end() :].strip(" .):")):
        return None
    if (
        lead[2] == "A"
        and re.match(r"\s[a-z]", kept[lead.end() :])
        and not re.match(r"\s(?:is|as|or|and)\b", kept[lead.end() :])
    ):
        return None
    others = {other for other in _LETTER.findall(kept[lead.end() :]) if other in letters and other not in "AI"}
    listed = re.match(r"[)\].:]?\s*(?:,|/|&|;|or\b|and\b)\s*\W?(?:[A-Z]\b|\()", kept[lead.end() :])
    return None if others - {letter} or listed else letter


def _by_text(text: str, letters: str, options: Sequence[str]) -> str | None:
    """The letter of the option whose text this is."""
    said = fold(text).strip(" .")
    found = [letter for letter, option in zip(letters, options, strict=False) if fold(option).strip(" .") == said]
    return found[0] if said and len(found) == 1 else None


def _revised(between: str) -> bool:
    return bool(_REVISED.search(between)) or len(words(between[:2_000])) >= PASSAGE


def _unstated(text: str, letters: str, options: Sequence[str]) -> Choice:
    """Rules 4 and 5."""
    reply = text.strip()
    if letter := _by_text(reply[:2_000], letters, options):
        return Choice(letter, "the option's text")
    rows = [line for line in reply.split("\n") if line and not line.isspace()]
    openings = [_opening(line, letters) for line in rows]
    listed = {letter for letter in openings if letter}
    if len(listed) > 1 and openings[-2:-1] != [None]:
        return Choice(None, "it lists several options")
    if openings and openings[0] and len(listed) == 1:
        return Choice(openings[0], "opening letter")
    if openings and openings[-1]:
        return Choice(openings[-1], "last line")
    bold = {letter for letter in _BOLD.findall(reply.rpartition("\n\n")[2][-2_000:]) if letter in letters}
    if len(bold) == 1:
        return Choice(bold.pop(), "bold letter")
    return Choice(None, "it names several letters" if bold else "it settles on no letter")


def _opening(line: str, letters: str) -> str | None:
    """The letter that a line opens with as an option does."""
    found = _OPTION.match(line)
    if not found:
        return None
    letter = (found[1] or found[2]).upper()
    rest = line[found.end() :].lstrip(" \t).:*_`$]")
    several = re.match(r"(?:or|and|,|/)\s*\W?[A-Z]\b", rest)
    return letter if letter in letters and not several else None
