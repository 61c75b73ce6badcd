"""What a check of a verifier found: breaches by check, how labelled cases came out, and how long it all took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlvr.accuracy import wilson
from rlvr.types import Status, Verdict

SHOWN = 2_000
"""Characters of a completion that a report keeps."""

CHECKS: Mapping[str, str] = {
    "gold": "right completions pass",
    "wrong": "wrong completions fail",
    "empty": "empty and no-op completions fail",
    "hacks": "completions that try to be paid without being right fail",
    "hostile": "hostile text gives passed, failed or abstained",
    "repeat": "the same input gives the same verdict, also in a fresh worker",
    "order": "what was verified before makes no difference",
    "batch": "a batch gives what single calls give",
    "clock": "the clock is honoured, and what comes after it is verified",
    "growth": "time grows no faster than the text",
    "score": "scores are in bounds and agree with the status",
    "laws": "another spelling of a completion gets the same verdict",
    "cases": "labelled cases come out as labelled",
}
"""Every check by its name, in order, with what it holds a verifier to."""


@dataclass(frozen=True)
class Breach:
    """Something that a verifier must not do.

    Attributes:
        check: Name of the check.
        problem: What went wrong, in words.
        completion: What was verified, cut at `SHOWN` characters.
        reference: What it was held against.
        kind: What the completion is an example of.
    """

    check: str
    problem: str
    completion: str
    reference: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""


@dataclass
class Finding:
    """What one check found.

    Attributes:
        check: Its name, of `CHECKS`.
        verdicts: How many it looked at.
        breaches: What it found.
        skipped: Why it was not run; empty if it was.
        tolerated: How many breaches are put up with, as with `--cases` of which a share may go wrong.
    """

    check: str
    verdicts: int = 0
    breaches: list[Breach] = field(default_factory=list)
    skipped: str = ""
    tolerated: int = 0

    @property
    def ok(self) -> bool:
        return len(self.breaches) <= self.tolerated


@dataclass
class Confusion:
    """How labelled completions came out: `counts[right][outcome]`, the outcomes passed, failed and missing."""

    counts: dict[bool, dict[str, int]] = field(
        default_factory=lambda: {right: {"passed": 0, "failed": 0, "missing": 0} for right in (True, False)}
    )

    def add(self, right: bool, verdict: Verdict) -> None:
        self.counts[right][verdict.status.value if verdict.valid else "missing"] += 1

    @property
    def total(self) -> int:
        return sum(sum(row.values()) for row in self.counts.values())

    @property
    def agreed(self) -> int:
        """How many came out as labelled. A missing verdict did not."""
        return self.counts[True]["passed"] + self.counts[False]["failed"]

    def rates(self) -> dict[str, tuple[int, int, float, float, float]]:
        """By name, `(count, of, share, low, high)` with the 95% Wilson interval; what has no cases is left out."""
        right, wrong = (sum(self.counts[label].values()) for label in (True, False))
        wanted = {
            "right cases that pass": (self.counts[True]["passed"], right),
            "wrong cases that fail": (self.counts[False]["failed"], wrong),
            "cases as labelled": (self.agreed, right + wrong),
        }
        return {name: (count, of, count / of, *wilson(count, of)) for name, (count, of) in wanted.items() if of}


@dataclass(frozen=True)
class Speed:
    """Throughput through the scorer's batch path, and seconds per verification.

    Attributes:
        verdicts: How many were timed.
        workers: Worker processes.
        per_second: Verdicts a second, by the wall clock of all workers together.
        p50, p99, slowest: Seconds of one verification; the slowest over everything that was verified.
    """

    verdicts: int
    workers: int
    per_second: float
    p50: float
    p99: float
    slowest: float

    @classmethod
    def of(cls, durations: Sequence[float], wall: float, workers: int, slowest: float) -> Speed:
        ordered = sorted(durations)
        p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return cls(len(ordered), workers, len(ordered) / wall, p50, p99, slowest)


@dataclass
class Report:
    """Everything that was found about one verifier."""

    verifier: str
    findings: dict[str, Finding]
    kit: bool
    own: Confusion = field(default_factory=Confusion)
    labelled: Confusion = field(default_factory=Confusion)
    speed: Speed | None = None

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings.values())

    @property
    def red(self) -> list[str]:
        """Names of the checks that found a breach."""
        return [name for name, finding in self.findings.items() if not finding.ok]

    @property
    def breaches(self) -> list[Breach]:
        return [breach for finding in self.findings.values() for breach in finding.breaches]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "verifier": self.verifier,
            "ok": self.ok,
            "kit": self.kit,
            "checks": [encodable(asdict(finding)) | {"ok": finding.ok} for finding in self.findings.values()],
            "confusion": {name: _matrix(found) for name, found in (("kit", self.own), ("cases", self.labelled))},
            "speed": asdict(self.speed) if self.speed else None,
        }


def _matrix(found: Confusion) -> dict[str, Any] | None:
    if not found.total:
        return None
    keys = ("count", "of", "share", "low", "high")
    return {
        "right": found.counts[True],
        "wrong": found.counts[False],
        "rates": {name: dict(zip(keys, rate, strict=True)) for name, rate in found.rates().items()},
    }


def encodable(value: Any) -> Any:
    """A JSON value that can be written as UTF-8: halves of surrogate pairs become `\\udc00` and the like."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable(item) for item in value]
    return value


def said(verdict: Verdict) -> str:
    """A verdict in a few words."""
    score = f" {verdict.score:.2f}" if verdict.valid else ""
    return f"{verdict.status}{score}: {verdict.detail.splitlines()[0][:300]}"


def article(status: Status) -> str:
    """`a passed verdict`, `an error verdict`."""
    return f"{'an' if status.value[0] in 'aeiou' else 'a'} {status.value} verdict"
