"""The checks of `rlvr verifiers check` for the tests of a plugin, with pytest or without.

    from rlvr.testing import check_verifier

    def test_word_limit() -> None:
        check_verifier("word-limit", plugin="words.py")

or one test for each check:

    from rlvr.testing import VerifierTests

    class TestWordLimit(VerifierTests):
        verifier, plugin = "word-limit", "words.py"

What is checked comes from the verifier's `kit`; `rlvr.kit.report.CHECKS` has the names of the checks.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlvr.errors import UsageError, nearest
from rlvr.kit.check import Plan
from rlvr.kit.check import check_verifier as _check
from rlvr.kit.hostile import hostile_texts
from rlvr.kit.report import CHECKS, Breach, Finding, Report, encodable
from rlvr.scoring import Scorer

__all__ = ["CHECKS", "Breach", "Report", "VerifierTests", "check_verifier", "hostile_texts", "verifier_report"]

LISTED = 10
"""Breaches that an assertion lists."""

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def verifier_report(
    verifier: str,
    *,
    plugin: Files = (),
    cases: str | Path = "",
    seed: int = 0,
    fuzz: int = 200,
    timeout: float | None = None,
    at_least: float = 1.0,
    workers: int = 1,
    sandbox: str = "",
) -> Report:
    """What the checks find, as a report. It raises no AssertionError.

    Args:
        verifier: A built-in verifier, one of an installed plugin, or one of `plugin`.
        plugin: A plugin file, or several.
        cases: A JSON-lines file of labelled cases: `{"completion", "passes", ...references}`.
        seed: Seed of the fuzzer and of the shuffled order.
        fuzz: Mutations to try beside the hostile corpus.
        timeout: Seconds of wall clock for each verification; None leaves it to the verifier.
        at_least: Share of the labelled cases that must come out as labelled.
        workers: Worker processes.
        sandbox: Sandbox for a verifier that runs code; empty takes the safest that runs here.

    Raises:
        UnknownNameError: There is no such verifier.
        PluginError: A plugin file that fails, or a kit that cannot be used.
        DataError: The labelled cases cannot be used; names file and line.
        MissingDependencyError: The verifier runs code, and there is no safe sandbox.
    """
    files = [plugin] if isinstance(plugin, (str, os.PathLike)) else list(plugin)
    plan = Plan(cases, seed, fuzz, timeout, at_least)
    return _check(verifier, lambda: Scorer(workers=workers, plugins=files, sandbox=sandbox), plan)


def check_verifier(verifier: str, *, checks: Iterable[str] = (), **options: Any) -> Report:
    """Runs the checks, and returns their report if none of them found a breach.

    Args:
        verifier: Its name.
        checks: Names of the checks that have to hold, of `CHECKS`; all of them if none is named.
        options: As for `verifier_report`, such as `plugin`, `cases` and `seed`.

    Raises:
        AssertionError: Lists the breaches.
        UsageError: There is no such check.
        RlvrError: As `verifier_report` does.
    """
    wanted = list(checks) or list(CHECKS)
    for name in wanted:
        if name not in CHECKS:
            near = nearest(name, CHECKS)
            raise UsageError(f"there is no check `{name}`", f"did you mean `{near}`?" if near else ", ".join(CHECKS))
    report = verifier_report(verifier, **options)
    assert_ok(*(report.findings[name] for name in wanted))
    return report


def assert_ok(*findings: Finding) -> None:
    """Raises AssertionError with the first breaches of findings that are not ok."""
    breaches = [breach for finding in findings if not finding.ok for breach in finding.breaches]
    if breaches:
        lines = [_line(breach) for breach in breaches[:LISTED]]
        more = f"\n... and {len(breaches) - LISTED} more" if len(breaches) > LISTED else ""
        raise AssertionError(f"{len(breaches)} breaches\n" + "\n".join(lines) + more)


def _line(breach: Breach) -> str:
    text = breach.completion if len(breach.completion) <= 200 else breach.completion[:200] + "..."
    kind = f" ({breach.kind})" if breach.kind else ""
    return f"{breach.check}{kind}: {encodable(breach.problem)}\n    {text!r} against {dict(breach.reference)!r:.200}"


class VerifierTests:
    """A test for each check: derive a class whose name starts with `Test`, and say which verifier it is for.

    Attributes:
        verifier: Its name.
        plugin, cases, seed, fuzz, timeout, at_least, workers, sandbox: As for `verifier_report`.
    """

    verifier: str
    plugin: Files = ()
    cases: str | Path = ""
    seed: int = 0
    fuzz: int = 200
    timeout: float | None = None
    at_least: float = 1.0
    workers: int = 1
    sandbox: str = ""

    def test_gold(self) -> None:
        self.hold("gold")

    def test_wrong(self) -> None:
        self.hold("wrong")

    def test_empty(self) -> None:
        self.hold("empty")

    def test_hacks(self) -> None:
        self.hold("hacks")

    def test_hostile(self) -> None:
        self.hold("hostile")

    def test_repeat(self) -> None:
        self.hold("repeat")

    def test_order(self) -> None:
        self.hold("order")

    def test_batch(self) -> None:
        self.hold("batch")

    def test_clock(self) -> None:
        self.hold("clock")

    def test_growth(self) -> None:
        self.hold("growth")

    def test_score(self) -> None:
        self.hold("score")

    def test_laws(self) -> None:
        self.hold("laws")

    def test_cases(self) -> None:
        self.hold("cases")

    @classmethod
    @functools.cache
    def report(cls) -> Report:
        """The report that all tests of the class look at."""
        options = ("plugin", "cases", "seed", "fuzz", "timeout", "at_least", "workers", "sandbox")
        return verifier_report(cls.verifier, **{name: getattr(cls, name) for name in options})

    def hold(self, check: str) -> None:
        """Fails if a check found a breach; skips where it could not be run."""
        import pytest

        finding = self.report().findings[check]
        if finding.skipped:
            pytest.skip(finding.skipped)
        assert_ok(finding)
