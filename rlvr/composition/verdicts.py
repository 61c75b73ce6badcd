"""From the verdicts of the parts to the verdict of the composition: pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlvr.composition.writing import Rule, flaw
from rlvr.rollout import flags_of
from rlvr.types import Composition, Part, Status, Verdict

WORST_FIRST = (Status.ERROR, Status.TIMEOUT, Status.ABSTAINED)

BELOW_ONE = math.nextafter(1.0, 0.0)
ROUNDING = 1e-9
"""What sums of weights may be off when a score is held against a threshold."""

UNVERIFIED = Verdict.error("it was not verified")


def combine(composition: Composition, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict of a composition from those of its parts, by name. A pure function that does not raise.

    Its `parts` have status, score, detail and parts of every part that was verified, under the part's name, and under
    `flags` what the parts flagged, in the order of the alphabet. Its duration is the sum of theirs.
    """
    if found := flaw(composition):
        return Verdict.error(f"the composition's `{found[0]}` {found[1]}")
    seen: dict[str, Verdict] = {}
    for name, one in composition.parts.items():
        seen[name] = verdicts.get(name, UNVERIFIED)
        if composition.rule == "gate" and not opens(one, seen[name]):
            break
    known = {name: verdict for name, verdict in seen.items() if verdict.valid}
    lost = {name: verdict for name, verdict in seen.items() if not verdict.valid}
    needed = {name: verdict for name, verdict in lost.items() if composition.parts[name].required}
    if composition.rule == "any-of" and any(verdict.passed for verdict in known.values()):
        needed = {}
    if needed or not known or (composition.rule == "weighted" and not _weight(composition, known)):
        status, passed, score, detail = _missing(needed or lost)
    else:
        passed, score, detail = _RULES[composition.rule](composition, known)
        status, score = (Status.PASSED, score) if passed else (Status.FAILED, min(score, BELOW_ONE))
    parts: dict[str, Any] = {name: _record(verdict) for name, verdict in seen.items()}
    if flags := sorted(set().union(*map(flags_of, seen.values()))):
        parts["flags"] = flags
    return Verdict(status, score, detail, parts, math.fsum(verdict.duration for verdict in seen.values()))


def opens(one: Part, verdict: Verdict) -> bool:
    """Whether a part of a gate lets the next one be verified."""
    return verdict.passed if verdict.valid else not one.required


def _missing(lost: Mapping[str, Verdict]) -> tuple[Status, bool, float, str]:
    found = {verdict.status for verdict in lost.values()}
    status = next(status for status in WORST_FIRST if status in found)
    reasons = "; ".join(f"`{name}` ({verdict.status}): {_said(verdict)}" for name, verdict in lost.items())
    return status, False, 0.0, f"no verdict of {reasons}"


def _all_of(composition: Composition, known: Mapping[str, Verdict]) -> tuple[bool, float, str]:
    failed = {name: verdict for name, verdict in known.items() if not verdict.passed}
    detail = f"failed {_reasons(failed)}" if failed else f"passed all of {_names(known)}"
    return not failed, min(verdict.score for verdict in known.values()), detail


def _any_of(composition: Composition, known: Mapping[str, Verdict]) -> tuple[bool, float, str]:
    passed = {name: verdict for name, verdict in known.items() if verdict.passed}
    detail = f"passed {_reasons(passed)}" if passed else f"failed all: {_reasons(known)}"
    return bool(passed), max(verdict.score for verdict in known.values()), detail


def _weighted(composition: Composition, known: Mapping[str, Verdict]) -> tuple[bool, float, str]:
    score = _mean(composition, known, _weight(composition, known))
    passed = score >= composition.threshold - ROUNDING
    scores = ", ".join(f"`{name}` {verdict.score:.2f}" for name, verdict in known.items())
    failed = {name: verdict for name, verdict in known.items() if not verdict.passed}
    detail = f"{score:.2f} of {scores}, {'at least' if passed else 'below'} {composition.threshold:g}"
    return passed, score, detail + (f"; failed {_reasons(failed)}" if failed else "")


def _gate(composition: Composition, known: Mapping[str, Verdict]) -> tuple[bool, float, str]:
    closed = {name: verdict for name, verdict in known.items() if not verdict.passed}  # one at most
    names = list(composition.parts)
    behind = [name for shut in closed for name in names[names.index(shut) + 1 :]]
    whole = _weight(composition, [*known, *behind])
    score = _mean(composition, known, whole) if whole else float(not closed)
    detail = f"failed {_reasons(closed)}" if closed else f"passed {_names(known)} in turn"
    return not closed, score, detail + (f"; not verified: {_names(behind)}" if behind else "")


def _penalty(composition: Composition, known: Mapping[str, Verdict]) -> tuple[bool, float, str]:
    (base, verdict), *others = known.items()
    failed = {name: other for name, other in others if not other.passed}
    taken = math.fsum(composition.parts[name].weight * (1 - other.score) for name, other in failed.items())
    detail = f"{'passed' if verdict.passed else 'failed'} {_reasons({base: verdict})}"
    if failed:
        detail += f"; less {taken:.2f} for {_reasons(failed)}"
    return verdict.passed, max(0.0, verdict.score - taken), detail


_RULES: Mapping[Rule, Callable[[Composition, Mapping[str, Verdict]], tuple[bool, float, str]]] = {
    "all-of": _all_of,
    "any-of": _any_of,
    "weighted": _weighted,
    "gate": _gate,
    "penalty": _penalty,
}


def _weight(composition: Composition, names: Iterable[str]) -> float:
    return math.fsum(composition.parts[name].weight for name in names)


def _mean(composition: Composition, known: Mapping[str, Verdict], whole: float) -> float:
    """The mean of the scores by weight, where the weights make `whole`."""
    return min(1.0, math.fsum(composition.parts[n].weight * verdict.score for n, verdict in known.items()) / whole)


def _record(verdict: Verdict) -> dict[str, Any]:
    own = {"status": verdict.status.value, "score": verdict.score, "detail": verdict.detail}
    return own | ({"parts": dict(verdict.parts)} if verdict.parts else {})


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _reasons(verdicts: Mapping[str, Verdict]) -> str:
    return "; ".join(f"`{name}`: {_said(verdict)}" for name, verdict in verdicts.items())


def _said(verdict: Verdict) -> str:
    return verdict.detail.strip().splitlines()[0][:200]
