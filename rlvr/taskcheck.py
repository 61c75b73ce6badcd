"""Checks that a task can tell right from wrong, as `rlvr tasks check` does.

For every problem of both splits,

    gold       a perfect completion passes (the task's `gold` writes it, or the verifier's, else it is the answer as
               text)
    shuffled   the perfect completion of another problem fails
    spoiled    one that is nearly perfect and wrong fails (where the verifier's `spoil` writes one; no composition's)
    empty      an empty completion fails

and no problem is in both splits. Two problems may have answers that are written differently and mean the same:
when each passes with the other's, the pair is counted as equal and another partner is tried, `TRIES` times at
most, so that a verifier that passes everything does not get by. A problem that many unlike completions solve, such as
"write no comma", is not shuffled: the verdict on its gold completion says so (`parts["open"]`), and a spoiled one must
fail.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr.composition import leaves
from rlvr.errors import PluginError, RlvrError, UsageError
from rlvr.registry import VerifierSpec
from rlvr.samples import samples
from rlvr.scoring import Scorer
from rlvr.types import Completion, Composition, Sample, Split, Status, Task, Verdict

SPLITS: tuple[Split, ...] = ("train", "test")
TRIES = 8
SEED = 0

Kind = Literal["gold", "shuffled", "spoiled", "empty"]


@dataclass(frozen=True)
class Offender:
    """A verdict that should have been another.

    Attributes:
        split: Where the problem is from.
        kind: Which completion it was given.
        sample: The problem's id.
        completion: What was verified.
        verdict: What the verifier said of it.
    """

    split: Split
    kind: Kind
    sample: str
    completion: str
    verdict: Verdict


@dataclass
class Tally:
    """Verdicts on one kind of completion over the problems of one split.

    Attributes:
        passed, failed: Verdicts.
        missing: Error, timeout and abstained verdicts.
        equal: Pairs that were set aside because each passes with the other's gold answer.
    """

    split: Split
    kind: Kind
    problems: int
    passed: int = 0
    failed: int = 0
    missing: int = 0
    equal: int = 0

    @property
    def ok(self) -> bool:
        """Whether all verdicts are what they should be."""
        return (self.passed if self.kind == "gold" else self.failed) == self.problems

    def add(self, verdict: Verdict) -> bool:
        """Counts a verdict and says whether it is the right one."""
        self.passed += verdict.status is Status.PASSED
        self.failed += verdict.status is Status.FAILED
        self.missing += not verdict.valid
        return verdict.status is (Status.PASSED if self.kind == "gold" else Status.FAILED)


@dataclass
class TaskCheck:
    """What was found.

    Attributes:
        task: The task's name.
        tallies: Counts by split and kind; an empty split has none.
        offenders: Every verdict that should have been another.
        shared_ids: Ids that are in both splits.
        shared_prompts: How many prompts are in both splits.
        answers: How many different gold answers there are; of a single one, nothing can be shuffled.
        compared: How many gold answers were verified in which way, where the verifier says it: `parts["compared"]`.
    """

    task: str
    tallies: list[Tally] = field(default_factory=list)
    offenders: list[Offender] = field(default_factory=list)
    shared_ids: list[str] = field(default_factory=list)
    shared_prompts: int = 0
    answers: int = 0
    compared: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether the task is proven."""
        apart = not (self.shared_ids or self.shared_prompts)
        return apart and bool(self.tallies) and all(tally.ok for tally in self.tallies)


@dataclass(frozen=True)
class _Problem:
    split: Split
    sample: Sample
    gold: str
    spoiled: str | None


def check_task(task: Task, scorer: Scorer, limit: int = 0) -> TaskCheck:
    """Verifies the gold, a shuffled, a spoiled and an empty completion of every problem.

    Args:
        task: The task.
        scorer: Where its verifier runs.
        limit: Problems of each split to verify, the first ones; 0 takes all. Ids and prompts are compared
            for all of them anyway.

    Raises:
        DataError: The data cannot be used, for instance as an id is there twice.
        UsageError: The verifier is learned; or the samples have no answer and neither the task nor the verifier says
            what a perfect completion is, or the verifier is a composition and the task does not say it; or the task has
            several turns and no verifier that answers.
        PluginError: The task's `load` or `gold` or the verifier's `gold` or `spoil` raised, or a verifier belongs to a
            broken plugin.
        RlvrError: As `Scorer.submit` does.
    """
    if all(scorer.registry.verifier(str(leaf.verifier)).learned for leaf in leaves(task.verifier)):
        raise UsageError(
            f"the task `{task.name}` has a learned verifier, by whose own word no completion is right or wrong",
            "what it says of pairs that people judged is in the report of its `rlvr reward` run",
        )
    scorer.check(task.verifier, task.verifier_options, turns=task.turns)
    spec = None if isinstance(task.verifier, Composition) else scorer.registry.verifier(task.verifier)
    found = TaskCheck(task.name)
    loaded = {split: samples(task, split) for split in SPLITS}
    _compare_splits(found, loaded["train"], loaded["test"])
    problems = {
        split: [
            _Problem(split, sample, task_gold(task, spec, sample), spoiled_completion(spec, sample) if spec else None)
            for sample in loaded[split][: limit or None]
        ]
        for split in SPLITS
    }
    pool = [problem for split in SPLITS for problem in problems[split]]
    for split in SPLITS:
        ours = problems[split]
        if not ours:
            continue
        golds = _check_each(found, split, "gold", [(problem, problem.gold) for problem in ours], task, scorer)
        closed = [p for p, gold in zip(ours, golds, strict=True) if p.spoiled is None or not gold.parts.get("open")]
        if closed:
            _check_shuffled(found, Tally(split, "shuffled", len(closed)), closed, pool, task, scorer)
        if spec is not None and spec.spoil is not None:
            spoiled = [(problem, problem.spoiled) for problem in ours if problem.spoiled is not None]
            _check_each(found, split, "spoiled", spoiled, task, scorer)
        _check_each(found, split, "empty", [(problem, "") for problem in ours], task, scorer)
    return found


def task_gold(task: Task, spec: VerifierSpec | None, sample: Sample) -> str:
    """What a perfect completion for `sample` looks like: to the task, else to its verifier.

    Raises:
        UsageError: As `gold_completion` does, or the task has a composition and no `gold`.
        PluginError: A `gold` raised or returned something else than text.
    """
    if task.gold is not None:
        return _text(f"the `gold` of the task `{task.name}`", task.gold, sample)
    if spec is None:
        raise UsageError(
            f"the task `{task.name}` has several verifiers and does not say what a perfect completion is",
            "give it `gold`: a function of the sample, or in TOML a text such as `<answer>{{answer}}</answer>`",
        )
    return gold_completion(spec, sample)


def gold_completion(spec: VerifierSpec, sample: Sample) -> str:
    """What a perfect completion for `sample` looks like to the verifier.

    Raises:
        UsageError: The sample has no answer and the verifier has no `gold`.
        PluginError: The verifier's `gold` raised or returned something else than text.
    """
    if spec.gold is None:
        if sample.answer is None:
            raise UsageError(
                f"the sample `{sample.id}` has no answer to check with",
                f"give the task an answer, or `@verifier({spec.name!r}, gold=...)` a function that writes one",
            )
        return str(sample.answer)
    return _text(_whose(spec, "gold"), spec.gold, sample)


def spoiled_completion(spec: VerifierSpec, sample: Sample) -> str | None:
    """What a nearly perfect completion that is wrong looks like; None where the verifier knows none.

    Raises:
        PluginError: The verifier's `spoil` raised or returned something else than text or None.
    """
    return None if spec.spoil is None else _text(_whose(spec, "spoil"), spec.spoil, sample, or_none=True)


def _whose(spec: VerifierSpec, what: str) -> str:
    return f"the `{what}` of the verifier `{spec.name}` ({spec.origin})"


def _text(whose: str, write: Callable[[Sample], Any], sample: Sample, or_none: bool = False) -> Any:
    """What a function of a task or verifier writes for a sample."""
    try:
        text = write(sample)
    except RlvrError:
        raise
    except Exception as error:
        raise PluginError(
            f"{whose} raised {type(error).__name__}: {error}", f"it was given the sample `{sample.id}`"
        ) from error
    if not isinstance(text, str) and not (or_none and text is None):
        raise PluginError(f"{whose} returned a `{type(text).__name__}`", "return the text of a completion")
    return text


def _compare_splits(found: TaskCheck, train: Sequence[Sample], test: Sequence[Sample]) -> None:
    """No id or prompt may be in both splits."""
    found.shared_ids = sorted({sample.id for sample in train} & {sample.id for sample in test})
    prompts = [{json.dumps(sample.prompt, sort_keys=True) for sample in split} for split in (train, test)]
    found.shared_prompts = len(prompts[0] & prompts[1])


def _check_each(
    found: TaskCheck, split: Split, kind: Kind, jobs: Sequence[tuple[_Problem, str]], task: Task, scorer: Scorer
) -> list[Verdict]:
    """Verifies one completion of each problem."""
    tally = Tally(split, kind, len(jobs))
    verdicts = _verify(task, scorer, jobs)
    for (problem, text), verdict in zip(jobs, verdicts, strict=True):
        if not tally.add(verdict):
            found.offenders.append(Offender(tally.split, tally.kind, problem.sample.id, text, verdict))
        if kind == "gold" and "compared" in verdict.parts:
            found.compared[str(verdict.parts["compared"])] += 1
    found.tallies.append(tally)
    return verdicts


def _check_shuffled(
    found: TaskCheck,
    tally: Tally,
    problems: Sequence[_Problem],
    pool: Sequence[_Problem],
    task: Task,
    scorer: Scorer,
) -> None:
    """Verifies each problem with the gold completion of another one out of `pool`."""
    rng = random.Random(SEED)
    owners = {problem.gold: problem for problem in pool}
    others = rng.sample(list(owners.values()), len(owners))
    place = {problem.gold: index for index, problem in enumerate(others)}
    found.answers = len(others)
    starts = [rng.randrange(len(others)) for _ in problems]

    def partner(index: int, attempt: int) -> _Problem:
        """Another one on each attempt, never one with the same gold completion."""
        step = 1 + (starts[index] + attempt) % (len(others) - 1)
        return others[(place[problems[index].gold] + step) % len(others)]

    left = list(range(len(problems))) if len(others) > 1 else []
    attempts = min(TRIES, len(others) - 1)
    for attempt in range(attempts):
        pairs = [(problems[index], partner(index, attempt)) for index in left]
        verdicts = _verify(task, scorer, ((mine, other.gold) for mine, other in pairs))
        doubtful = [i for i, verdict in enumerate(verdicts) if verdict.passed]
        back = _verify(task, scorer, ((pairs[i][1], pairs[i][0].gold) for i in doubtful))
        equal = {i for i, verdict in zip(doubtful, back, strict=True) if verdict.passed}
        tally.equal += len(equal)
        again = []
        for i, ((mine, other), verdict) in enumerate(zip(pairs, verdicts, strict=True)):
            if i in equal and attempt + 1 < attempts:
                again.append(left[i])
            elif not tally.add(verdict):
                found.offenders.append(Offender(tally.split, tally.kind, mine.sample.id, other.gold, verdict))
        left = again
    found.tallies.append(tally)


def _verify(task: Task, scorer: Scorer, jobs: Iterable[tuple[_Problem, str]]) -> list[Verdict]:
    """The verdict on each completion text for its problem."""
    futures = [
        scorer.submit(task.verifier, Completion(text), problem.sample, task.verifier_options) for problem, text in jobs
    ]
    return [future.result() for future in futures]
