"""Holds a verifier to its kit, in the real scorer: what `rlvr verifiers check` runs.

The names of the checks and what each holds a verifier to are in `report.CHECKS`. They come in this order because a
later one compares with the verdicts of an earlier one: the first run over all labelled trials, one at a time, is what
a second run, fresh workers, another order and a batch are compared with.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.errors import PluginError, UsageError
from rlvr.kit.alarms import alarms
from rlvr.kit.bench import AT_ONCE, Bench
from rlvr.kit.hostile import corpus, mutations
from rlvr.kit.report import CHECKS, SHOWN, Breach, Finding, Report, Speed, article, said
from rlvr.kit.trials import (
    NO_OPS,
    Trial,
    kit_of,
    kit_trials,
    no_op_trials,
    no_reference,
    one_per_reference,
    read_cases,
    texts_in,
)
from rlvr.scoring import Scorer
from rlvr.taskcheck import gold_completion, spoiled_completion
from rlvr.types import Kit, Status, Verdict

COMPARED = 160
"""Trials at most that a second run, fresh workers, another order and a batch are compared on."""

MIXED = 48
"""Trials at most that are verified between others, forwards and backwards."""

MOST = 4_000
"""Verifications at most that throughput is measured on."""

REFERENCES = 40
"""References of `--cases` at most that no-op completions are held against."""

ENOUGH = 8
"""Breaches by hostile text after which no more is tried: each may have cost a worker."""

TINY = 1e-4
"""Seconds of the clock that is meant to run out."""

LATE = 0.5
"""Seconds past its clock at which a verification counts as having run past it: killing takes a moment."""

SIZES = (1 << 16, 1 << 18)
"""Characters of the texts whose times are compared."""

GROWTH = 10.0
"""How many times longer four times the text may take. Linear time is 4, quadratic time 16."""

NOTICEABLE = 0.2
"""Seconds below which it does not matter how time grows."""

_NO_SCORE = re.compile(r"not in \[0, 1\]|must be a number in \[0, 1\]|a verdict needs a detail")
_DIED = re.compile(r": the worker (?:ended|was killed|sent)")


@dataclass(frozen=True)
class Plan:
    """How to check.

    Attributes:
        cases: A file of labelled cases; empty for none.
        seed: Seed of the fuzzer, of the shuffled order and of the laws' rewritings.
        fuzz: Mutations that the fuzzer makes, beside its corpus.
        timeout: Seconds of wall clock for each verification; None leaves it to verifier and scorer.
        at_least: Share of the labelled cases that must come out as labelled.
    """

    cases: str | Path = ""
    seed: int = 0
    fuzz: int = 200
    timeout: float | None = None
    at_least: float = 1.0


def check_verifier(name: str, open_scorer: Callable[[], Scorer], plan: Plan | None = None) -> Report:
    """Runs every check that the verifier's kit and the labelled cases allow.

    Args:
        name: A verifier that the scorer knows.
        open_scorer: Makes a scorer; it is called again where fresh workers are wanted.
        plan: How to check.

    Raises:
        UsageError: A number of the plan is out of its range, or the verifier is learned.
        UnknownNameError: There is no such verifier.
        PluginError: Its kit, gold or spoil raises or cannot be used, or it belongs to a broken plugin.
        DataError: The labelled cases cannot be used; names file and line.
        MissingDependencyError: It runs code, and there is no safe sandbox.
    """
    plan = plan or Plan()
    if plan.fuzz < 0:
        raise UsageError(f"`fuzz` is `{plan.fuzz}`", "give a number of mutations, at least 0")
    if not 0 <= plan.at_least <= 1:
        raise UsageError(f"`at_least` is `{plan.at_least:g}`", "give a share of the cases, from 0 to 1")
    with Bench(name, open_scorer, plan.timeout) as bench:
        if bench.spec.learned:
            raise UsageError(
                f"the verifier `{name}` is learned, so that no completion is right or wrong by its own word",
                "the `report.md` of a run of `rlvr reward` has its accuracy and calibration",
            )
        return _Check(bench, plan).run()


class _Check:
    """One check under way."""

    def __init__(self, bench: Bench, plan: Plan) -> None:
        self.bench, self.plan = bench, plan
        self.spec = bench.spec
        self.kit = kit_of(self.spec)
        kit = self.kit or Kit(())
        self.report = Report(self.spec.name, {name: Finding(name) for name in CHECKS}, self.kit is not None)
        self.labelled = kit_trials(self.spec, kit.cases)
        self.hacks = kit_trials(self.spec, kit.hacks)
        self.cases = read_cases(plan.cases, self.spec) if plan.cases else []
        self.references = one_per_reference([*self.labelled, *self.hacks, *self.cases])
        self.base: list[tuple[Trial, Verdict]] = []

    def run(self) -> Report:
        bare = not self.references and bool(self.spec.reference)
        stages: dict[str, tuple[Callable[[], object], str]] = {
            "gold": (self.gold, "" if self.kit else "it has no kit"),
            "wrong": (self.wrong, "" if self.kit else "it has no kit"),
            "empty": (self.empty, "" if self.references else "it has no kit, and there are no labelled cases"),
            "hacks": (self.hack, "" if self.hacks else "its kit has none" if self.kit else "it has no kit"),
            "growth": (self.growth, ""),
            "hostile": (lambda: self.hostile(bare), ""),
            "laws": (
                self.laws,
                "" if self.kit and self.kit.laws else "its kit has none" if self.kit else "it has no kit",
            ),
            "repeat": (self.repeat, ""),
            "order": (self.order, ""),
            "batch": (self.batch, ""),
            "clock": (self.clock, ""),
            "cases": (self.hold_cases, "" if self.cases else "no `--cases` were given"),
        }
        for name, (stage, skipped) in stages.items():
            if not skipped and self.bench.gave_up:
                skipped = f"given up: {self.bench.hangs} verifications ran into their clock of {self.bench.clock:g} s"
            self.report.findings[name].skipped = skipped
            if not skipped:
                stage()
        self.speed()
        self.score()
        return self.report

    # ------------------------------------------------------------------------------------- what is right and wrong

    def gold(self) -> None:
        right = [one for one in self.labelled if one.right]
        self.count(self.expect("gold", right))
        self.expect("gold", list(self.written("gold", True)))

    def wrong(self) -> None:
        wrong = [one for one in self.labelled if not one.right]
        self.count(self.expect("wrong", wrong))
        self.expect("wrong", list(self.written("spoil", False)))

    def count(self, verdicts: Sequence[tuple[Trial, Verdict]]) -> None:
        for one, verdict in verdicts:
            self.report.own.add(bool(one.right), verdict)

    def written(self, what: str, right: bool) -> Iterator[Trial]:
        """What the verifier's own `gold` and `spoil` write for the kit's references that set no options."""
        write: Callable[[Any, Any], str | None] = gold_completion if what == "gold" else spoiled_completion
        if getattr(self.spec, what) is not None:
            for one in one_per_reference(self.labelled):
                text = None if one.options else write(self.spec, one.sample)
                if text and (right or gold_completion(self.spec, one.sample).strip()):
                    yield one.with_text(text, f"the verifier's `{what}`", right)

    def empty(self) -> None:
        rng = random.Random(f"references {self.plan.seed}")
        own = no_op_trials([*self.labelled, *self.hacks])
        others = no_op_trials(self.cases)
        self.expect("empty", [*own, *rng.sample(others, min(len(others), REFERENCES * len(NO_OPS)))])

    def hack(self) -> None:
        self.expect("hacks", self.hacks)

    def expect(self, check: str, trials: Sequence[Trial]) -> list[tuple[Trial, Verdict]]:
        """Verifies trials one by one, each of which has to come out as labelled."""
        pairs = list(zip(trials, self.bench.single(trials), strict=False))
        self.base += pairs
        for one, verdict in pairs:
            self.hold(check, one, verdict.status is one.wanted, f"{one.wanted} was wanted, not {said(verdict)}")
        return pairs

    # ----------------------------------------------------------------------------------------------- hostile text

    def hostile(self, bare: bool) -> None:
        """Without a reference to hold text against, an error verdict is its right; a dead worker is not."""
        trials = self.hostile_trials()
        allowed = {Status.PASSED, Status.FAILED, Status.ABSTAINED} | ({Status.ERROR} if bare else set())
        breaches = self.report.findings["hostile"].breaches
        short = []
        for start in range(0, len(trials), AT_ONCE):
            part = trials[start : start + AT_ONCE]
            for one, verdict in zip(part, self.bench.flood(part), strict=False):
                ok = verdict.status in allowed and not (bare and _DIED.search(verdict.detail))
                self.hold("hostile", one, ok, f"hostile text led to {said(verdict)}")
                if ok and len(one.text) <= 5_000 and verdict.duration < NOTICEABLE:
                    short.append(one)
            if len(breaches) >= ENOUGH:
                break
        some = random.Random(f"short {self.plan.seed}").sample(short, min(len(short), 60))
        self.base += zip(some, self.bench.single(some), strict=False)

    def hostile_trials(self) -> list[Trial]:
        references = self.references or [no_reference()]
        known = [one for one in (*self.labelled, *self.hacks, *self.cases)]
        right = [one for one in known if one.right]
        seeds = [one.text for one in known] + [text for one in references for text in texts_in(one.reference)]
        found = [references[i % len(references)].with_text(text, "hostile") for i, text in enumerate(corpus())]
        for i, text in enumerate(corpus() if right else ()):
            host = right[i % len(right)]
            middle = len(host.text) // 2
            found.append(host.with_text(host.text[:middle] + text + host.text[middle:], "hostile inside a right one"))
        for i, text in enumerate(mutations(self.plan.seed, self.plan.fuzz, seeds)):
            found.append(references[i % len(references)].with_text(text, f"mutation {i}"))
        return found

    # ------------------------------------------------------------------------------------- same input, same verdict

    def compared(self) -> list[tuple[Trial, Verdict]]:
        """Trials of the first run, with their verdicts."""
        rng = random.Random(f"compared {self.plan.seed}")
        places = sorted(rng.sample(range(len(self.base)), min(len(self.base), COMPARED)))
        return [self.base[place] for place in places]

    def repeat(self) -> None:
        first = self.compared()
        trials = [one for one, _ in first]
        self.agree("repeat", first, self.bench.single(trials), "the second time")
        self.bench.renew()
        self.agree("repeat", first, self.bench.single(trials), "in a fresh worker")

    def order(self) -> None:
        """Verifies a mixture forwards and backwards, in fresh workers: each trial stands between another completion of
        its reference and its own completion under another reference, so that one of these comes first either way."""
        rng = random.Random(f"order {self.plan.seed}")
        mixed: list[Trial] = []
        first = self.compared()
        for one, _ in rng.sample(first, min(len(first), MIXED)):
            stranger, other = rng.choice(first)[0], rng.choice(self.references or [no_reference()])
            mixed += [one.with_text(stranger.text, "a stranger"), one, other.with_text(one.text, "a stranger")]
        self.bench.renew()
        forwards = self.bench.single(mixed)
        self.bench.renew()
        backwards = self.bench.single(mixed[::-1])
        if len(backwards) == len(mixed):
            self.agree("order", list(zip(mixed, forwards, strict=True)), backwards[::-1], "in the reverse order")

    def batch(self) -> None:
        first = self.compared()
        self.agree("batch", first, self.bench.batch([one for one, _ in first]), "in a batch")

    def agree(self, check: str, first: Sequence[tuple[Trial, Verdict]], second: Sequence[Verdict], where: str) -> None:
        for (one, before), after in zip(first, second, strict=False):
            busy = self.bench.was_busy(before) or self.bench.was_busy(after)
            self.hold(check, one, busy or same(before, after), f"{said(before)} at first, {where} {said(after)}")

    # ---------------------------------------------------------------------------------------------- clock and time

    def clock(self) -> None:
        for one, verdict in self.bench.seen:
            late = verdict.duration > self.bench.clock + LATE
            self.hold("clock", one, not late, f"it took {verdict.duration:.1f} s; its clock is {self.bench.clock:g} s")
        for where in alarms(self.spec.fn.__module__):
            self.breach("clock", no_reference(), f"{where} sets an alarm: the worker's clock is not the verifier's")
        for one, before in [pair for pair in self.base if pair[1].valid][:3]:
            hurried = self.bench.once(one, min(TINY, self.bench.clock))
            fine = hurried.status is Status.TIMEOUT or same(before, hurried)
            self.hold("clock", one, fine, f"under a clock of {TINY:g} s: {said(hurried)}")
            (after,) = self.bench.single([one]) or (hurried,)
            self.hold("clock", one, same(before, after), f"after a clock that ran out: {said(after)}")

    def growth(self) -> None:
        """Times texts of two sizes; the shortest of three runs, as the machine may be busy."""
        start = (self.references or [no_reference()])[0]
        right = [one for one in self.labelled if one.right][:3]
        units = [(start, unit) for unit in ("[", "\\frac{", "a ", "1+", "\n")]
        units += [(one, one.text + "\n") for one in right if one.text]
        for one, unit in units:
            trials = [one.with_text((unit * (size // len(unit) + 1))[:size], "a long text") for size in SIZES]
            times = [math.inf, math.inf]
            for _ in range(3):
                verdicts = self.bench.single(trials)
                if len(verdicts) < 2:
                    return
                times = [min(best, verdict.duration) for best, verdict in zip(times, verdicts, strict=True)]
                stuck = verdicts[1].status is Status.TIMEOUT
                fine = not stuck and (times[1] < NOTICEABLE or times[1] < GROWTH * times[0])
                if fine or stuck:
                    break
            until = "more than the clock" if stuck else f"{times[1]:.2g} s"
            problem = f"{SIZES[0]:,} characters take {times[0]:.2g} s, {SIZES[1]:,} take {until}"
            self.hold("growth", trials[0], fine, problem)
            if stuck:
                return

    def speed(self) -> None:
        """Times the labelled trials in batches, for about a second."""
        trials = self.labelled or self.cases
        if not trials or self.bench.gave_up:
            return
        trials = trials[:MOST]
        self.bench.batch(trials)  # so that all workers have started, and have loaded what they need
        verdicts, wall = self.bench.timed(trials)
        if copies := min(int(1 / max(wall, 1e-6)), MOST // len(trials)):
            verdicts, wall = self.bench.timed(trials * copies)
        workers = self.bench.scorer.workers
        if verdicts:
            slowest = max(verdict.duration for _, verdict in self.bench.seen)
            self.report.speed = Speed.of([verdict.duration for verdict in verdicts], wall, workers, slowest)

    # ------------------------------------------------------------------------------------------ score, laws, cases

    def score(self) -> None:
        """Looks at every verdict there was."""
        for one, verdict in self.bench.seen:
            problem = ""
            if verdict.status is Status.ERROR and _NO_SCORE.search(verdict.detail):
                problem = said(verdict)
            elif verdict.passed != (verdict.score == 1.0):
                problem = f"{article(verdict.status)} has the score {verdict.score:g}"
            elif not verdict.valid and verdict.score:
                problem = f"{article(verdict.status)}, which is missing data, has the score {verdict.score:g}"
            self.hold("score", one, not problem, problem)

    def laws(self) -> None:
        first = [pair for pair in self.base if pair[0].right is not None and pair[0].kind != "no-op"]
        for law in self.kit.laws if self.kit else ():
            pairs = []
            for number, (one, before) in enumerate(first):
                try:
                    text = law.rewrite(one.text, random.Random(f"{self.plan.seed} {law.name} {number}"))
                except Exception as error:
                    raise PluginError(
                        f"the law `{law.name}` of `{self.spec.name}` raised {type(error).__name__}: {error}",
                        f"it was given {one.text[:60]!r}",
                    ) from error
                if text is not None and text != one.text:
                    pairs.append((one.with_text(text, f"law: {law.name}", one.right), before))
            if not pairs:
                self.breach("laws", no_reference(), f"the law `{law.name}` rewrites none of the kit's completions")
            for (one, before), after in zip(pairs, self.bench.single([one for one, _ in pairs]), strict=False):
                alike = same(before, after) if before.passed else before.status is after.status
                self.hold("laws", one, alike, f"{law.name}: {said(before)} before it was rewritten, now {said(after)}")

    def hold_cases(self) -> None:
        for one, verdict in zip(self.cases, self.bench.batch(self.cases), strict=False):
            self.report.labelled.add(bool(one.right), verdict)
            self.hold("cases", one, verdict.status is one.wanted, f"{one.wanted} was wanted, not {said(verdict)}")
        finding = self.report.findings["cases"]
        finding.tolerated = math.floor((1 - self.plan.at_least) * finding.verdicts + 1e-9)

    # ------------------------------------------------------------------------------------------------- bookkeeping

    def hold(self, check: str, one: Trial, ok: bool, problem: str) -> None:
        """Counts one verdict that a check looked at."""
        self.report.findings[check].verdicts += 1
        if not ok:
            self.breach(check, one, problem)

    def breach(self, check: str, one: Trial, problem: str) -> None:
        breach = Breach(check, problem, one.text[:SHOWN], one.reference, one.kind)
        self.report.findings[check].breaches.append(breach)


def same(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts say the same. What they say in words may hold times and addresses, and is left out."""
    return one.status is other.status and math.isclose(one.score, other.score, abs_tol=1e-9)
