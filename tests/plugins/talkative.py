"""Verifiers that answer for an environment, for the tests of tasks of several turns."""

from __future__ import annotations

import time

from rlvr import Completion, Sample, Verdict, hookimpl, verifier


def answer(completion: Completion, sample: Sample, *, until: str = "0") -> str | None:
    """Repeats the last character, until one of `until` is written."""
    last = completion.text[-1:]
    return None if not last or last in until else f"={last}="


def refuse(completion: Completion, sample: Sample) -> str | None:
    """Fails on `3`, sleeps on `4`, has nothing to say to the rest."""
    if "3" in completion.text:
        raise OSError("the environment is gone")
    if "4" in completion.text:
        time.sleep(60)
    return None


@verifier("parrot", reply=answer)
def parrot(completion: Completion, sample: Sample, *, until: str = "0") -> Verdict:
    """Passes what was repeated at least once; tells what it saw."""
    turns = [[turn.role, turn.text] for turn in completion.turns]
    return Verdict.of(bool(turns), f"{len(turns)} turns", parts={"turns": turns, "foreign": list(completion.foreign)})


@verifier("moody", timeout=1.0, reply=refuse)
def moody(completion: Completion, sample: Sample) -> bool:
    """Passes everything."""
    return True


@hookimpl
def rlvr_verifiers() -> list[object]:
    return [moody, parrot]
