"""A verifier that keeps a clock of its own, with an alarm. Loaded as a plugin file by the tests of the kit."""

from __future__ import annotations

import signal
from typing import Any

from rlvr import Case, Completion, Kit, Sample, hookimpl, verifier


def kit() -> Kit:
    return Kit([Case("4", True, {"answer": "4"}), Case("5", False, {"answer": "4"})])


@verifier("alarmed", reference=["answer"], kit=kit)
def alarmed(completion: Completion, sample: Sample) -> bool:
    """Passes when the text is the answer."""
    signal.alarm(5)
    try:
        return completion.text == sample.answer
    finally:
        signal.alarm(0)


@hookimpl
def rlvr_verifiers() -> list[Any]:
    return [alarmed]
