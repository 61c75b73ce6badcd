r"""Finds the final answer in a completion, by these rules. The first that applies decides.

0.  Only the model's own turn counts: what follows the last `</think>` (a `<think>` that is never closed has no
    answer), up to a token that ends the turn (`<|im_end|>`, `<|eot_id|>`, `<|endoftext|>`, `<|end_of_text|>`, `</s>`,
    `<|im_start|>user`), and up to the next problem, which base models invent once they have answered: a line that
    opens with `Question:`, `Problem:`, `Exercise:`, `Q:`, `Instruction:`, `Human:` or `User:` (or, in a text with any
    colon, `Problem 2.`) after an answer by rule 1 to 4.

        <think>\boxed{7}</think> It is \boxed{8}.                   8
        <think>maybe \boxed{7}                                      none
        The answer is 36.\n\nQuestion: 15 - 11?\nThe answer is 4    36
        It is \boxed{5}.<|im_end|>\boxed{6}                         5

1.  The last `\boxed{...}` or `\fbox{...}`, braces matched; of nested boxes the outermost. A last box that is
    never closed has no answer: the text was cut, and an earlier box was not meant to be final. Boxes with nothing
    but punctuation, "or" and "and" between them are one answer; prose between them makes the last one final, and so
    does the end of a `$...$` formula unless it is an "or" that joins them.

        \boxed{1} and then \boxed{\frac{2}{3}}                      \frac{2}{3}
        \boxed{\boxed{5} \text{ or } 6}                             \boxed{5} \text{ or } 6
        \boxed{\boxed{5}}                                           5
        \boxed{5} or \boxed{6}                                      5 or 6
        \boxed{1}\boxed{2}                                          1, 2
        \boxed{5} and then \boxed{6                                 none
        $\boxed{5}$ and $\boxed{6}$                                  6
        $\boxed{5}$ or $\boxed{6}$                                   5 or 6

2.  The last `<answer>...</answer>`, and 3. the rest of the line after the last `####`; what stands there is read as
    in rule 4. A `####` line that begins with words (`#### Step 2`) and has text below it is a heading, no answer. An
    answer that is declared after them (rule 4) goes first.

        <answer>12</answer>                                         12
        <answer>The answer is 12.</answer>                          12
        6 * 7 = 42\n#### 42                                         42
        #### Answer\n$42$                                           42
        #### 42\nWait, the answer is 41.                            41

4.  The sentence after the last declaration that states something: "the answer is", "answer:", "answer =" and the
    like, a heading "Final Answer" above a bare value, `"answer":` in JSON (its value), and 答案是, 答案为, 答: or the
    like in Chinese, Japanese and Korean, up to 。. "The answer is correct" and an empty "Answer:" state nothing.

        The answer is 12. I hope it is correct.                     12
        The answer is 12.\nAnswer:                                  12
        The answer is 12. This answer is correct.                   12
        **Final Answer**\n\n12                                      12
        {"steps": 3, "answer": "12"}                                12
        所以答案是12。                                                   12

    Of that sentence the value is taken out when it states one and no other:

    -   Formulas `$...$` that open it, with "or ..." and "and ..." that follow; Markdown's emphasis, full stops
        inside of the delimiters and brackets without a partner are dropped.

        The final answer is $x=3.$                                  x=3
        So the answer is $5$ or $6$.                                $5$ or $6$
        The answer is **12** apples.                                12 apples
        (Answer: 12)                                                12

    -   A reason or remark at its end: because, since, as required (desired, expected, ...), due to, given that,
        so that, and ", which ...", unless it says or, if, but or otherwise; "not 12" beside a value.

        The answer is 12 because 3 * 4 = 12.                        12
        The answer is 12, not 11.                                   12
        The answer is not 11 but 12.                                12
        The answer is 12 because x = 3, or 13.                      12 because x = 3, or 13

    -   A second name is kept as an equation, for the comparison to check.

        The answer is 56/4, that is, 14.                            56/4 = 14
        The answer is 5/8 (0.625).                                  5/8 = 0.625
        The answer is $\sqrt{10}$, or about 3.16.                   $\sqrt{10}$ \approx 3.16

    -   The only number or formula among plain words, with the words of its unit. There is no answer if a word says
        that it need not be the value (`statements.STOP`: not, less, about, or, if, half, times, ...) or makes it an
        operand (the cube of 3). A sentence with a symbol, a second number or a name (March 12) stays whole.

        The answer is that she has 18 apples in all.                18 apples
        The answer is 14 small apples in each basket.               14\text{ small apples}
        The answer is 40 km/h.                                      40 km/h
        The answer is less than 12.                                 none
        The answer is 5 or 6 hours.                                 5 or 6 hours
        The answer is 5. Or maybe 6.                                none
        The answer is March 12.                                     March 12

    With `choice=True` (the reference is one capital letter) "the option is", "I choose" and the like declare too,
    and the letter is taken that opens the sentence, or the only one in it.

        I would choose (C), because (A) is too small.               C
        The answer is option C, 720.                                C
        The answer is (B) or (C).                                   (B) or (C)

    With `worded=True` (the reference is made of words) the sentence is taken whole.

        The answer is Marco.                                        Marco

5.  A reply that is itself an answer: one short line with no prose, but for one word after it.

        x + 1                                                       x + 1
        45 degrees                                                  45 degrees

6.  Unless told otherwise (`fallback=False`), the last expression: the last formula or number, whichever ends
    later, with what is joined to it by "or", "and" or a comma; of plain text what follows the last `=`. A value in
    bold in the same sentence goes first, a reason ("since ...") after a value does not count, and of a table's row
    only the last cell does.

        Hence $n = 3$ or $n = 4$.                                   $n = 3$ or $n = 4$
        She pays 5 or 6 dollars.                                    5 or 6
        Together that is 2 + 3 = 5 apples.                          5
        There are **14** apples in each of the 4 baskets.           14
        Hence $n = 11$ is the least, since $n = 10$ fails.          n = 11

    There is none when its sentence says cannot, unable, whether, fails, impossible, maybe, either, is not, more
    than (less, greater, ...), at least, at most, up to, let me try, or asks a question; when it is numbered (step 3,
    problem 3); or when the reply ends inside of an open `$`, `\(` or `\[`.

        We cannot say whether $n = 10$ works.                       none
        The least such number is greater than 10.                   none
        Let me try $n = 10$: $n + 2 =                               none

    With `choice=True` it is the letter that opens the reply as in `(D) Alina`, or the last letter standing alone,
    but for letters in a reason or said to be wrong; none when "and", "or" or a comma joins it to another.

        (D) Alina                                                   D
        It is not A, so I think it is C                             C
        Both (B) and (C) are correct.                               none

    With `worded=True` it is the only phrase in bold in the last sentence, or else what that says something is.

        So it will be a **Thursday**.                               Thursday
        Therefore the winner is Marco.                              Marco

What is found is the whole answer: nothing later fishes a number out of it. Every rule runs in linear time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from .boxes import last_box
from .fallback import TAIL, last_expression, last_letter, last_phrase, lone_letters
from .statements import SENTENCE_END, SPANS, joined_spans, settled, unemphasised
from .tree import words


class Extraction(NamedTuple):
    """The answer as it was written (None when there is none), and the rule that found it."""

    answer: str | None
    rule: str


_UNCLEAR = "what is declared need not be the value"
_TURN_END = re.compile(r"<\|(?:endoftext|end_of_text|im_end|eot_id)\|>|</s>|<\|im_start\|>\s*user\b")
_NEXT_PROBLEM = re.compile(
    r"\n[ \t#*>]*(?:Question|Problem|Exercise|Instruction|Human|User|Q)\b[ \t]?\d*\**[ \t]*[:.)]"
)
_FIRST_ANSWER = re.compile(
    r"\\f?box(?:ed)? ?\{\s*[^\s}]|#### *[-$\\\d]|</answer>"
    r"|\banswers?(?: +(?:is|are)\b\W*\w|\**[ \t]*[:=]\**\s*[^\n]{0,80}?[\d$\\])",
    re.IGNORECASE,
)
_DECLARED = re.compile(
    r"(?<![A-Za-z])answers?(?: to (?:the|this|your) (?:\w+ )?(?:problem|question))?"
    r"(?: +(?:is|are|(?:w|sh)ould be|must be|will be)\b(?: +(?:for sure|therefore|thus|simply))?"
    r"|[*_]*(?:(?P<key>[\"'])[*_]*)?[ \t]*[:=])[*_]*[ \t:]*",
    re.IGNORECASE,
)
_CLOSING_NUMBER = re.compile(r"(-?\d+(?:,\d+)*(?:\.\d+)?)\.?\s*\Z")
_JSON_VALUE = re.compile(
    r"(?:\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|\[([^\[\]]*)\]|([^\s,}\"']+))(?=\s*(?:,\s*[\"'}\]]|[}\]`\n]|$))"
)
_HEADING = re.compile(r"^[ \t#*>]*(?:(?:the|my) )?(?:final )?answer[ \t*:]*\n\s*(\S.*)", re.IGNORECASE | re.MULTILINE)
_CHINESE = re.compile(
    r"(?:\u7b54\u6848|\u7b54\u3048|\uc815\ub2f5|\ub2f5)(?:\u5e94\u8be5|\u5e94)?"
    r"(?:\u662f|\u4e3a|\u70ba|\u7b49\u4e8e|\u306f|\uc740|\s*[:\uff1a])[:\uff1a\s]*"
    r"|(?<![\u56de\u89e3])\u7b54\s*[:\uff1a]\s*"
)
_CHOSEN = re.compile(
    r"\b(?:option|choice) is[ \t:*]+(?=\W*[A-Z]\b)"
    r"|\bI(?:'d| would| will|'ll)? (?:choose|pick|select|go with)[ \t:*]+(?=\W*(?:[A-Z]|option|choice)\b)"
)
_REMARK = re.compile(
    r"(?:indeed |also )?(?:correct|right|verified|confirmed|consistent|reasonable|found|as follows|below|above)"
    r"[ :]*(?:$|,|\(|\b(?:because|since|as|and)\b)",
    re.IGNORECASE,
)
_SECOND_THOUGHT = re.compile(r"[.!]\s+(?:Or|Alternatively,?|Or maybe|Or perhaps)\s[^.]*\d")
_HALF_BOLD = re.compile(r"\*\*(?=[\s.,]|$)")
_HASH_HEADING = re.compile(r"[*_ ]*(?:\d+[.)]\s+)?[*_ ]*[A-Za-z]{2,}(?![\w(^=\\])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z\u00c0-\u024f\u0400-\u04ff]{2,}")
_NOT_PROSE = words("or and sqrt sin cos tan cot sec csc ln log exp pi infinity cm km mm kg")
_CJK_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2}")
_OPENING_CHOICE = re.compile(r"(?:(?:option|choice|letter) )?\(?([A-Z])(?:\)|[.:](?=\s|$)|,(?=\s[a-z]))")


def extract(text: str, *, choice: bool = False, worded: bool = False, fallback: bool = True) -> Extraction:
    """The final answer of a completion, by the rules above.

    Args:
        text: The completion.
        choice: The reference is one capital letter, so a lone letter in prose can be the answer.
        worded: The reference is made of words, so words in bold or after "is" can be the answer, and numbers cannot.
        fallback: Whether the last expression will do when nothing declares an answer (rule 6).
    """
    marked = "<" in text  # one character is looked for many times faster than a word
    if marked:
        if "think>" in text:
            text = text[text.rfind("</think>") + 8 :] if "</think>" in text else text
            if "<think>" in text:
                return Extraction(None, "the reasoning was never closed with `</think>`")
        if "<|" in text or "</s>" in text:
            text = _own_turn(text)
    if ":" in text:
        text = _own_problem(text)
    if "\\" in text and (boxed := last_box(text)) is not None:
        return Extraction(*boxed)
    tagged = _tagged(text) if marked and "</answer>" in text else None
    if tagged is not None:
        content, end = tagged
        return _unless_revised(Extraction(_within(content, worded), "answer tag"), text[end:])
    if "#" in text and (hashed := _hash_line(text)) is not None:
        line, rest = hashed
        return _unless_revised(Extraction(_within(line, worded) or None, "####"), rest)
    declared = _declared(text, choice=choice, worded=worded)
    if declared is not None:
        return Extraction(declared, "declared") if declared else Extraction(None, _UNCLEAR)
    stripped = text.strip()
    letter = opening_choice(stripped) if choice else None
    if letter:
        return Extraction(letter, "opening letter")
    if _is_bare(stripped):
        return Extraction(stripped, "whole reply")
    if not fallback:
        return Extraction(None, "no box, tag, `####` or declared answer")
    if choice and (letter := last_letter(stripped)):
        return Extraction(letter, "last letter")
    if worded:
        return Extraction(last_phrase(stripped), "last phrase")
    return Extraction(last_expression(stripped), "last expression")


def _own_turn(text: str) -> str:
    """The text up to the end of the turn."""
    over = _TURN_END.search(text)
    return text[: over.start()] if over is not None and text[: over.start()].strip() else text


def _own_problem(text: str) -> str:
    """The text up to the next problem, which a base model invents once it has given its answer."""
    if _NEXT_PROBLEM.search(text) is None:
        return text
    answer = _FIRST_ANSWER.search(text)
    problem = _NEXT_PROBLEM.search(text, answer.end()) if answer else None
    return text[: problem.start()] if problem else text


def _tagged(text: str) -> tuple[str, int] | None:
    """What the last `<answer>` holds, and where it ends."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return (text[start + 8 : end].strip(), end + 9) if start >= 0 else None


def _unless_revised(found: Extraction, rest: str) -> Extraction:
    """What was found, unless the text after it declares another answer."""
    declared = _declared(rest) if rest else None
    return Extraction(declared, "declared") if declared and found.answer not in (None, declared) else found


def _within(text: str, worded: bool) -> str:
    """The answer in a text that a tag or `####` marks as the answer."""
    if text.isdigit():
        return text
    return _declared(text, worded=worded) or (text if worded else settled(text))


def _hash_line(text: str) -> tuple[str, str] | None:
    """The rest of the line after the last `####`, and what follows; None when there is none or it is a heading."""
    hashes = text.rfind("####")
    if hashes < 0:
        return None
    line, _, rest = text[hashes + 4 :].strip().partition("\n")
    return None if rest and _HASH_HEADING.match(line) else (line.strip(), rest)


def _declared(text: str, *, choice: bool = False, worded: bool = False) -> str | None:
    """The answer after the last declaration that states something, or None."""
    phrase, at = _last_stated(text)
    if at < len(text):
        phrase = _stated_otherwise(text, at, choice) or phrase
    if phrase is None or worded:
        return phrase
    phrase = settled(phrase)
    return (_letter(phrase) if choice else None) or phrase


def _stated_otherwise(text: str, at: int, choice: bool) -> str | None:
    """What is stated after `at` under a heading, in Chinese, Japanese or Korean, or by choosing an option."""
    phrase = None
    if text.find("nswer", at) >= 0 or text.find("NSWER", at) >= 0:
        heading = _last(_HEADING, text, at)
        stated = _phrase(heading[1]) if heading else ""
        if heading and _is_bare(stated):
            phrase, at = stated, heading.end()
    if not text.isascii() and (match := _last(_CHINESE, text, at)):
        phrase, at = _phrase(text[match.end() : match.end() + TAIL]) or phrase, match.end()
    if choice and (match := _last(_CHOSEN, text, at)):
        phrase = _phrase(text[match.end() : match.end() + TAIL]) or phrase
    return phrase


def _last_stated(text: str) -> tuple[str | None, int]:
    """The phrase after the last "answer is" that states something, and where that declaration ends."""
    end = len(text)
    for match in _declarations(text):
        if number := _CLOSING_NUMBER.match(text, match.end()):
            return number[1], end
        value = _JSON_VALUE.match(text, match.end(), match.end() + TAIL) if match["key"] else None
        if value:
            phrase = value[value.lastindex or 0]
        else:
            between = text[match.end() : min(end, match.end() + TAIL)]
            runs_on = end < len(text) and not SENTENCE_END.search(between.lstrip())
            phrase = None if runs_on else _phrase(between)
            if phrase and _SECOND_THOUGHT.search(between):
                phrase = f"{phrase} or another"
        if phrase and not _REMARK.match(phrase):
            return phrase, match.end()
        end = match.start()
    return None, 0


def _declarations(text: str) -> Iterator[re.Match[str]]:
    """The matches of `_DECLARED`, looked for from the end."""
    lowered = text.lower()
    if len(lowered) != len(text):
        yield from reversed(list(_DECLARED.finditer(text)))
        return
    at = lowered.rfind("answer")
    while at >= 0:
        match = _DECLARED.match(text, at)
        if match:
            yield match
        at = lowered.rfind("answer", 0, at)


def _phrase(rest: str) -> str:
    """The formulas that open the text, and the rest of their sentence."""
    rest = unemphasised(rest).lstrip(" \t\r\n:*")
    if rest.startswith("}"):  # the declaration is a `\\text{...}` in a formula
        rest = re.split(r"\\\)|\\\]|\$", rest.lstrip("} \t"), maxsplit=1)[0].rstrip(" .")
    _, start = joined_spans(rest)
    stop = SENTENCE_END.search(rest, start)
    phrase = rest[: stop.start()] if stop else rest
    return _HALF_BOLD.sub("", phrase).strip(" \t\r\n*") if "*" in phrase else phrase.strip()


def _letter(phrase: str) -> str | None:
    """The letter of a choice that a phrase names, when it names one only."""
    opening = opening_choice(phrase)
    if opening:
        return opening
    letters = set(lone_letters(phrase))
    return letters.pop() if len(letters) == 1 and not re.search(r"\b(?:not|or|and)\b|n't\b", phrase) else None


def _is_bare(text: str) -> bool:
    """Whether a text is an answer and nothing else: one short line without prose, but for a unit."""
    if not text or len(text) > 2_000 or "\n" in text or _CJK_WORD.search(text):
        return False
    prose = [w for w in _WORD.findall(re.sub(r"\\[a-zA-Z]+\s*\{[^{}]*\}", "", text)) if w not in _NOT_PROSE]
    if len(prose) > 1 or (prose and text[0].isalpha() and not text.strip(" .").isalpha()):
        return False
    return SPANS.sub("", text).strip(" .") in ("", text.strip(" ."))


def opening_choice(text: str) -> str | None:
    """The letter of the choice that opens a text, as in `(D) Alina` or `D. because ...`, else None."""
    opening = _OPENING_CHOICE.match(text.lstrip("*$ "))
    if opening is None or re.search(r"\([A-Z]\)", text[opening.end() :]):
        return None
    return opening.group(1)


def _last(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text, start), maxlen=1)), None)
