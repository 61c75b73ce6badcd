"""What `rlvr verifiers check text` holds the verifier to."""

from __future__ import annotations

import importlib.util
from random import Random

from rlvr import Case, Kit, Law

from .cases import HACKS, IFEVAL, QUIET, RULES

_STATISTICAL = ("language", "another language", "capital", "lower case")
"""Kinds of cases that take telling languages of one script apart."""


def kit() -> Kit:
    """Labelled replies over all kinds of rules, hacks, and what may be changed without changing the verdict."""
    cases = [
        Case(completion, passes, reference, kind)
        for kind, reference, right, wrong in (*RULES, *IFEVAL)
        for passes, completions in ((True, right), (False, wrong))
        for completion in completions
    ]
    cases += [Case(completion, True, reference, "no-op") for reference, completion in QUIET]
    if importlib.util.find_spec("py3langid") is None:  # the extra `text` is not installed
        cases = [case for case in cases if case.kind not in _STATISTICAL and "language" not in str(case.reference)]
    hacks = [Case(completion, False, reference, kind) for kind, reference, tried in HACKS for completion in tried]
    return Kit(
        cases,
        hacks,
        [
            Law("white space behind it", lambda text, rng: text + rng.choice((" ", "\n", "\n\n", "\t"))),
            Law("white space in front", lambda text, rng: rng.choice((" ", "\n", "\n\n")) + text),
            Law("Windows line ends", lambda text, rng: text.replace("\n", "\r\n") if "\n" in text else None),
            Law("reasoning in front", _reasoned),
        ],
    )


def _reasoned(text: str, rng: Random) -> str | None:
    """The same reply behind reasoning; none for texts that have tags, where it is not the same."""
    if "think>" in text.casefold() or "<answer" in text:
        return None
    return f"<think>{rng.choice(('Let me see.', 'A, B or C?', 'first, second'))}</think>\n{text}"
