"""A verifier that fails in a chosen way on one completion in eight, and a task of sums that it checks."""

from __future__ import annotations

import os
import time
import zlib

from rlvr import Completion, Sample, Task, Verdict, hookimpl, shaper, verifier

TROUBLES = ("sleep", "raise", "exit", "memory", "nan", "always")


def in_trouble(text: str) -> bool:
    """Whether a completion is one of those that the verifier fails on."""
    return zlib.crc32(text.encode()) % 8 == 0


@verifier("troubled", reference=["answer"])
def troubled(completion: Completion, sample: Sample, *, trouble: str = "raise") -> bool | float:
    """Compares the box with the answer, except where it fails."""
    if trouble == "always":
        raise OSError("the judge is out")
    if in_trouble(completion.text):
        if trouble == "sleep":
            time.sleep(1e6)
        if trouble == "raise":
            raise RuntimeError("no reason")
        if trouble == "exit":
            os._exit(1)
        if trouble == "memory":
            hoard = []
            while True:
                hoard.append(bytearray(1 << 24))
        return float("nan")
    return completion.text.endswith(f"\\boxed{{{sample.answer}}}")


@shaper("moody")
def moody(verdict: Verdict, completion: Completion) -> float:
    """Pays nobody."""
    raise ValueError("not today")


@hookimpl
def rlvr_shapers() -> list[object]:
    return [moody]


def load(split: str) -> list[Sample]:
    first = range(10, 50) if split == "train" else range(50, 60)
    return [Sample(f"{a}+{b}", f"What is {a} + {b}?", str(a + b)) for a in first for b in (17, 28, 39)]


@hookimpl
def rlvr_verifiers() -> list[object]:
    return [troubled]


@hookimpl
def rlvr_tasks() -> list[Task]:
    return [
        Task(f"troubled-{trouble}", "troubled", load, verifier_options={"trouble": trouble}) for trouble in TROUBLES
    ]
