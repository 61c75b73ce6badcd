"""The `math` verifier: is the final answer mathematically the reference?

`extract` finds the answer by written rules, `parse` turns it into a small tree, `compare` decides in tiers. Model
text is never evaluated, and every computation is bounded before it starts.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from rlvr import Completion, Sample, Verdict, verifier

from .compare import Conventions, Outcome, equivalent
from .extract import Extraction, extract
from .kit import kit

__all__ = ["Conventions", "Extraction", "Outcome", "equivalent", "extract", "math"]

_SHOWN = 120
_WORDED = re.compile(
    r"\s*(?:\\(?:text|textbf|textit|mathrm|mbox)\s*\{\s*[A-Za-z][A-Za-z' -]+\}|[A-Za-z]{3,}(?:[ -][A-Za-z']+)*)\s*\.?"
)
_CHOICE = re.compile(r"\s*(?:\\text(?:bf)?\{)?\s*\(?[A-Z]\)?\s*\}?\s*")


def _boxed(sample: Sample) -> str:
    return f"\\boxed{{{sample.answer}}}"


@verifier("math", reference=["answer"], gold=_boxed, kit=kit)
def math(
    completion: Completion,
    sample: Sample,
    *,
    last_expression: bool = True,
    rounded: bool = True,
    tolerance: float = 0.0,
    bare_percent: bool = False,
    ordered: bool = False,
    decimal_comma: bool = False,
) -> Verdict:
    r"""Passes when the final answer equals `answer`, as mathematics.

    The final answer is the last `\boxed{}`, else an `<answer>` tag, else what follows `####`, else a declared one
    ("the answer is"), else the last expression. Naming more than one candidate for a single answer fails.
    Formatting is free: LaTeX or plain text, fractions, decimals, percentages, units left out, order of a bare list.
    A decimal equals an exact value when it terminates there or has 10 correct digits.

    Options:
        last_expression: Whether a completion that declares no answer is judged by its last expression.
        rounded: Whether an exact answer passes when the reference is its rounded value (three digits or more).
        tolerance: How far a number may be off, relative to the reference: 0.01 for one percent.
        bare_percent: Whether `64%` also equals `64`, for data whose references leave the sign out.
        ordered: Whether the elements of a bare list `a, b` have to come in the order of the reference.
        decimal_comma: Whether `1.234,5` is 1234.5, in reference and answer.
    """
    answer = sample.answer
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return Verdict.error(f"the reference `answer` must be text or a number, not {type(answer).__name__}")
    if not 0 <= tolerance < 1:
        return Verdict.error(f"the option `tolerance` must be at least 0 and below 1, not {tolerance}")
    reference, shown, choice, worded = _reference(answer if isinstance(answer, str) else repr(answer))
    if not reference:
        return Verdict.error("the reference `answer` is empty")
    found = extract(completion.text, choice=choice, worded=worded, fallback=last_expression)
    if not found.answer:
        reason = "the answer is empty" if found.answer == "" else "there is no answer"
        return Verdict.of(
            False,
            f"{reason} ({found.rule}); the reference is `{shown}`",
            parts={"extracted": found.answer, "tier": "extract"},
        )
    conventions = _conventions(rounded, tolerance, bare_percent, ordered, decimal_comma)
    outcome = equivalent(reference, found.answer, conventions)
    sign = "equals" if outcome.equal else "does not equal"
    return Verdict.of(
        outcome.equal,
        f"`{_shown(found.answer)}` ({found.rule}) {sign} the reference `{shown}` ({outcome.tier}: {outcome.reason})",
        parts={"extracted": found.answer[:1000], "tier": outcome.tier},
    )


class _Reference(NamedTuple):
    """A reference, what to show of it, and whether it is a choice or made of words."""

    text: str
    shown: str
    choice: bool
    worded: bool


@functools.lru_cache(maxsize=4096)
def _reference(answer: str) -> _Reference:
    text = answer.strip()
    choice = bool(_CHOICE.fullmatch(text))
    return _Reference(text, _shown(text), choice, not choice and bool(_WORDED.fullmatch(text)))


_conventions = functools.lru_cache(maxsize=64)(Conventions)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
