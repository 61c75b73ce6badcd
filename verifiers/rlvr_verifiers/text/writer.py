"""Writes replies that keep rules, so that a task can be checked whose data has no right replies.

The text makes no sense; it is there to show that the rules of a sample can hold together and that the verifier sees it.
Patterns and rules that contradict each other are beyond it: the reply then breaks some.
"""

from __future__ import annotations

import json
from itertools import cycle

from rlvr import Sample

from . import counts
from .plan import Plan, planned
from .seen import fold
from .sentences import BY_LANGUAGE, ENGLISH
from .verifier import read


def written(sample: Sample) -> str:
    """A reply to a sample that keeps all of its rules, as far as that can be had without understanding them.

    Raises:
        ValueError: The rules cannot be read, and there is no answer either.
    """
    try:
        rules = read(sample)
    except ValueError:
        if sample.answer is None:
            raise
        return str(sample.answer)  # the rules are the task's, which are not known here
    plan = planned(rules)
    if not plan.body and isinstance(sample.answer, (str, int, float)):
        plan.body = str(sample.answer)
    return composed(plan)


def composed(plan: Plan) -> str:
    """The reply that a plan describes."""
    text = _Draft(plan).text()
    if plan.case:
        text = text.upper() if plan.case == "upper" else text.lower()
    if plan.quoted:
        text = f'"{text}"'
    if plan.json:
        text = json.dumps({"reply": text}, ensure_ascii=False)
    if not plan.tags:
        return text
    *before, last = plan.tags
    return "".join(f"<{tag}>Let me see.</{tag}>" for tag in before) + f"<{last}>{text}</{last}>"


class _Draft:
    """A reply in the making: paragraphs of lines, and one line that grows until there is enough."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bank = _bank(plan)
        self.short = min(self.bank, key=len)
        sparing = plan.words.most is not None or plan.sentences.most is not None or plan.few
        self.main = plan.body or (self.short if sparing else self.bank[-1])
        for sentence in _demanded(plan):
            self.main += f" {sentence}"
        self.before = [self.short] * (plan.paragraphs - 1)
        self.after = self._after()

    def _after(self) -> list[str]:
        """The lines behind the one that grows."""
        plan = self.plan
        lines = ["<<A title>>"] if plan.title else []
        lines += [f"- {self.short}"] * plan.bullets
        splitter, sections = plan.sections
        for number in range(1, sections + 1):
            lines += [f"{splitter} {number}", self.short]
        lines += [self.short] * (plan.lines - 1 - len(lines))
        if plan.postscript:
            lines.append(f"{plan.postscript} {self.short}")
        return [*lines, plan.end] if plan.end else lines

    def assembled(self) -> str:
        plan = self.plan
        paragraphs = [*self.before, "\n".join([self.main, *self.after])]
        if plan.first_word is not None:
            nth, word = plan.first_word
            paragraphs[nth - 1] = f"{word} {paragraphs[nth - 1]}"
        text = plan.divider.join(paragraphs)
        if plan.two:
            text = f"{self.short} {self.short}\n\n******\n\n{text}"
        return f"{plan.start}\n{text}" if plan.start else text

    def text(self) -> str:
        """The reply, filled up to the lengths that are asked for."""
        plan = self.plan
        if plan.body and not self._lengths_lack():
            return self.assembled()
        joined = plan.sentences.most is not None and counts.sentences(self.assembled()) >= plan.sentences.most
        stock = cycle(self.bank)
        while self._lengths_lack():
            sentence = next(stock)
            if joined:
                self.main = f"{self.main.rstrip('.')} and {sentence[0].lower()}{sentence[1:]}"
            else:
                self.main += f" {sentence if self._words_lack() > 8 or not self._words_lack() else self.short}"
        return self.assembled()

    def _words_lack(self) -> int:
        return max(0, self.plan.words.least - len(counts.words(self.assembled())))

    def _lengths_lack(self) -> bool:
        text = self.assembled()
        return (
            len(counts.words(text)) < self.plan.words.least
            or counts.sentences(text) < self.plan.sentences.least
            or counts.characters(text) < self.plan.characters
        )


def _bank(plan: Plan) -> list[str]:
    """The sentences that will do, those with the fewest unwanted letters first."""
    if plan.language != "en" and plan.language in BY_LANGUAGE:
        return [BY_LANGUAGE[plan.language]]
    avoided = [fold(text) for text in plan.avoid]
    fit = [s for s in ENGLISH if not any(counts.occurrences(text, fold(s), 1) for text in avoided)] or list(ENGLISH[:1])
    return sorted(fit, key=lambda s: sum(map(s.lower().count, plan.few)) / len(s)) if plan.few else fit


def _demanded(plan: Plan) -> list[str]:
    """Sentences with what must be in the reply."""
    found = []
    included = " and ".join(text for text, times in plan.include for _ in range(times))
    if included:
        found.append(f"Here {'are' if len(plan.include) > 1 else 'is'} {included}.")
    if plan.letters:
        found.append(" ".join(letter * times for letter, times in plan.letters) + ".")
    if plan.capitals.least:
        found.append(" ".join(["VERY"] * plan.capitals.least) + " good.")
    if plan.highlights:
        found.append(" ".join(f"*part {number}*" for number in range(1, plan.highlights + 1)))
    if plan.placeholders:
        found.append(" ".join(f"[part {number}]" for number in range(1, plan.placeholders + 1)))
    return found
