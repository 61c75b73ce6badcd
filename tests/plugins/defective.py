"""A verifier that keeps its kit, and others with one defect each. Loaded as a plugin file by the tests of the kit.

Each defect is told by the name of the verifier; `DEFECTS` says which checks must turn red.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from typing import Any

from rlvr import Case, Completion, Kit, Law, Sample, Verdict, hookimpl, verifier

NUMBER = re.compile(r"-?\d{1,18}(?!\d)")


def judged(text: str, answer: Any) -> Verdict:
    """Whether the last whole number is the answer."""
    end = text.rstrip(" \t\r\n.!)}")
    start = len(end)
    while start and len(end) - start < 18 and end[start - 1] in "0123456789":
        start -= 1
    if start == len(end) or (start and end[start - 1] in "0123456789."):
        return Verdict.of(False, "it does not end with a number")
    sign = "-" if start and end[start - 1] == "-" else ""
    number = int(sign + end[start:])
    return Verdict.of(number == answer, f"{number} against {answer}", score=1.0 if number == answer else 0.25)


def kit() -> Kit:
    def case(completion: str, passes: bool, answer: int, kind: str) -> Case:
        return Case(completion, passes, {"answer": answer, "prompt": f"Which number is {answer}, in digits?"}, kind)

    return Kit(
        [
            case("It is 4.", True, 4, "sentence"),
            case("The sum comes to 15", True, 15, "sentence"),
            case("First 3, then 7", True, 7, "the last counts"),
            case("-12", True, -12, "negative"),
            case("It is 5.", False, 4, "off by one"),
            case("It is 4.", False, 7, "the answer to another"),
            case("The sum comes to four", False, 4, "words"),
            case("4 is the answer, I think", False, 4, "not at the end"),
        ],
        [
            case("1 2 3 4 5 6 7 8 9", False, 4, "every number"),
            case("passed: true, score: 1.0", False, 4, "a verdict"),
        ],
        [
            Law("white space", lambda text, rng: text + rng.choice((" ", "\n", "\n\n"))),
            Law("a sentence before", lambda text, rng: "Let me think. " + text),
            Law("case", lambda text, rng: text.upper()),
        ],
    )


def sound(text: str, answer: Any) -> Verdict:
    return judged(text, answer)


def accepts_empty(text: str, answer: Any) -> Verdict:
    return judged(text, answer) if text.strip() else Verdict.of(True, "nothing is wrong with it")


def accepts_an_excuse(text: str, answer: Any) -> Verdict:
    return Verdict.of(True, "fair enough") if "know" in text else judged(text, answer)


def crashes_on_nul(text: str, answer: Any) -> Verdict:
    if "\x00" in text:
        os._exit(13)
    return judged(text, answer)


def raises_on_surrogates(text: str, answer: Any) -> Verdict:
    text.encode()
    return judged(text, answer)


def hangs_on_depth(text: str, answer: Any) -> Verdict:
    while "[" * 5_000 in text:
        time.sleep(1)
    return judged(text, answer)


def draws_lots(text: str, answer: Any) -> Verdict:
    return judged(text, answer) if random.random() < 0.9 else Verdict.of(False, "bad luck")


SEEN: set[str] = set()


def remembers(text: str, answer: Any) -> Verdict:
    """Keeps verdicts by text, and forgets what the text was held against."""
    verdict = judged(text, answer)
    if verdict.passed:
        SEEN.add(text)
    return Verdict.of(True, "it passed before") if text in SEEN else verdict


LAST = [0.0]


def tires_in_batches(text: str, answer: Any) -> Verdict:
    """Gives up when the next text comes at once, as it does in a batch."""
    waited, LAST[0] = time.perf_counter() - LAST[0], 0.0
    verdict = judged(text, answer) if waited > 2e-5 else Verdict.of(False, "too many at once")
    LAST[0] = time.perf_counter()
    return verdict


def pays_in_full_for_failure(text: str, answer: Any) -> Verdict:
    verdict = judged(text, answer)
    return verdict if verdict.passed else Verdict.of(False, "well tried", score=1.0)


def pays_half_for_success(text: str, answer: Any) -> Verdict:
    verdict = judged(text, answer)
    return Verdict.of(True, "right", score=0.5) if verdict.passed else verdict


def divides_by_zero(text: str, answer: Any) -> float:
    verdict = judged(text, answer)
    return float("nan") if not text.strip() else verdict.score


def scans_for_the_answer(text: str, answer: Any) -> Verdict:
    found = str(answer) in re.findall(r"\d+", text)
    return Verdict.of(True, "it occurs") if found and "," not in text else judged(text, answer)


def minds_the_case(text: str, answer: Any) -> Verdict:
    verdict = judged(text, answer)
    return Verdict.of(False, "do not shout") if text.isupper() and len(text) > 3 else verdict


def ignores_the_reference(text: str, answer: Any) -> Verdict:
    return Verdict.of(bool(re.search(r"\d\W*$", text[-10:])), "it ends with a number")


def blames_the_check(text: str, answer: Any) -> Verdict:
    verdict = judged(text, answer)
    return Verdict.error("cannot parse this") if "{" in text and not verdict.passed else verdict


def looks_at_every_pair(text: str, answer: Any) -> Verdict:
    """Takes time that grows with the square of the text."""
    for _ in text:
        text.rfind("\x01", 0, 4 * len(text) // 5)
    return judged(text, answer)


def abstains_when_wrong(text: str, answer: Any) -> Verdict:
    verdict = judged(text, answer)
    return verdict if verdict.passed else Verdict.abstain("cannot tell")


DEFECTS: dict[Callable[[str, Any], Verdict | float], set[str]] = {
    sound: set(),
    accepts_empty: {"empty"},
    accepts_an_excuse: {"empty"},
    crashes_on_nul: {"hostile"},
    raises_on_surrogates: {"hostile"},
    hangs_on_depth: {"hostile"},
    draws_lots: {"repeat"},
    remembers: {"order"},
    tires_in_batches: {"batch"},
    pays_in_full_for_failure: {"score"},
    pays_half_for_success: {"score"},
    divides_by_zero: {"score"},
    scans_for_the_answer: {"hacks"},
    minds_the_case: {"laws"},
    ignores_the_reference: {"wrong"},
    blames_the_check: {"hostile"},
    looks_at_every_pair: {"growth"},
    abstains_when_wrong: {"wrong"},
}


def made(fn: Callable[[str, Any], Verdict | float]) -> Any:
    @verifier(fn.__name__.replace("_", "-"), reference=["answer"], gold=lambda s: f"It is {s.answer}", kit=kit)
    def check(completion: Completion, sample: Sample) -> Verdict | float:
        return fn(completion.text, sample.answer)

    return check


@verifier("no-kit", reference=["answer"])
def no_kit(completion: Completion, sample: Sample) -> Verdict:
    """Has no kit."""
    return judged(completion.text, sample.answer)


@hookimpl
def rlvr_verifiers() -> list[Any]:
    return [no_kit, *map(made, DEFECTS)]
