"""Math verifiers of other projects as an rlvr plugin, so that one scorer runs them all under one clock.

Each is set as its own users set it; what is not installed is left out. The answer comes as a completion with a box.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from rlvr import Completion, Sample, hookimpl, verifier

Passes = Callable[[str, str], bool]


def math_verify() -> Passes:
    """Math-Verify with its defaults, the reference in a box as most trainers put it."""
    from math_verify import parse, verify

    return lambda gold, text: bool(verify(parse(_boxed(gold)), parse(text)))


def trl() -> Passes:
    """TRL's `accuracy_reward`, the reference in dollars as in its documentation."""
    from trl.rewards import accuracy_reward

    def passes(gold: str, text: str) -> bool:
        completions = [[{"role": "assistant", "content": text}]]
        return accuracy_reward(completions, [gold if "\\boxed" in gold else f"${gold}$"])[0] == 1.0

    return passes


def inspect_ai() -> Passes:
    """The `math` scorer of inspect_ai."""
    from inspect_ai.scorer import Target, math

    score = math()

    def passes(gold: str, text: str) -> bool:
        state: Any = SimpleNamespace(output=SimpleNamespace(completion=text))
        found = asyncio.run(score(state, Target(gold)))
        return found is not None and found.value == "C"

    return passes


def mathruler() -> Passes:
    """mathruler, the grader of PRM800K in a package."""
    from mathruler.grader import extract_boxed_content, grade_answer

    return lambda gold, text: bool(grade_answer(extract_boxed_content(text), gold))


PEERS: dict[str, tuple[str, Callable[[], Passes]]] = {
    "math-verify": ("Math-Verify", math_verify),
    "trl": ("TRL accuracy_reward", trl),
    "inspect-ai": ("inspect_ai math()", inspect_ai),
    "mathruler": ("mathruler", mathruler),
}
"""By distribution: what tables call it, and what makes it."""


def installed() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name.replace("-", "_")) is not None]


def _boxed(text: str) -> str:
    return text if "\\boxed" in text else f"\\boxed{{{text.strip().strip('$')}}}"


def _spec(name: str) -> Any:
    made: list[Passes] = []

    @verifier(name, reference=["answer"])
    def passes(completion: Completion, sample: Sample) -> bool:
        """A peer."""
        if not made:
            logging.disable(logging.CRITICAL)
            made.append(PEERS[name][1]())
        return made[0](sample.answer, completion.text)

    return passes


@hookimpl
def rlvr_verifiers() -> list[Any]:
    return [_spec(name) for name in installed()]
