"""The pre-flight of a run: can the task's verifier, with its options, tell right from wrong on a few training samples?

    gold       the sample's perfect completion passes (where task or verifier can write one)
    shuffled   another sample's perfect completion fails, unless each passes for the other: they mean the same
    empty      an empty completion fails
    no-op      "I don't know." fails
    hostile    broken text leads to no error verdict
    repeat     the same completion gets the same verdict again

Where many unlike completions solve a problem, such as "write no comma", others' gold completions and "I don't know."
may be right as well: the verdict on its gold completion says so (`parts["open"]`), and neither counts.

A learned verifier (`reward-model`) has no right and wrong: of it, only what the last two say is asked.

Real data has noise: a reference may be wrong, or right to leave empty. So the first four stop a run only when they go
wrong on a good part of the samples (`TOLERATED`), as with the wrong option, the wrong column, a verifier that pays for
anything. `rlvr tasks check` looks at every sample and tolerates nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from rlvr.composition import leaves
from rlvr.errors import RlvrError, RunStopped
from rlvr.kit.check import same
from rlvr.kit.report import said
from rlvr.scoring import Scorer
from rlvr.taskcheck import task_gold
from rlvr.types import Completion, Composition, Sample, Status, Task, Verdict

PROBES = 8
"""Samples that are tried at most."""

PARTNERS = 3
"""Other samples at most whose gold completion is tried on one, while they turn out to mean the same."""

TOLERATED = {"gold": 0.25, "shuffled": 0.5, "empty": 0.5, "no-op": 0.5}
"""Share of the samples that may go wrong."""

HOSTILE = (
    "\x00\x1b[2J \ufffd \u202e\ufeff",
    "[" * 20_000,
    '{"a":' * 2_000 + "1" + "}" * 2_000,
    "```python\n(" + "9" * 5_000,
    "<think><answer>\\boxed{\\frac{",
)
"""Text that a model can write; halves of surrogate pairs, which no tokenizer decodes to, are left to the kit."""

Job = tuple[str, Sample]


def preflight(task: Task, samples: Sequence[Sample], scorer: Scorer) -> None:
    """Tries the task's verifier on a few samples, always the same ones.

    Raises:
        RunStopped: It is not fit to train on; says what was found.
        RlvrError: As `Scorer.submit` does.
    """
    if not samples:
        return
    learned = all(scorer.registry.verifier(str(leaf.verifier)).learned for leaf in leaves(task.verifier))
    probes = random.Random(0).sample(samples, min(PROBES, len(samples)))
    written = [] if learned else list(enumerate(probes))
    golds = {place: text for place, sample in written if (text := _gold(task, sample, scorer))}
    jobs: dict[str, list[Job]] = {
        "gold": [(text, probes[place]) for place, text in golds.items()],
        "empty": [("", sample) for _, sample in written],
        "no-op": [("I don't know.", sample) for _, sample in written],
        "hostile": [(text, probes[i % len(probes)]) for i, text in enumerate(HOSTILE)],
    }
    both = _verify_all(task, [*jobs.values(), *jobs.values()], scorer)
    verdicts, again = dict(zip(jobs, both, strict=False)), both[len(jobs) :]
    opened = {place for place, verdict in zip(golds, verdicts["gold"], strict=True) if verdict.parts.get("open")}
    closed = [place for place, _ in written if place not in opened]
    no_ops, on_no_ops = [jobs["no-op"][place] for place in closed], [verdicts["no-op"][place] for place in closed]
    problems = [
        _too_many("gold", "gold completions do not pass", jobs["gold"], verdicts["gold"], Status.PASSED),
        _too_many("empty", "empty completions pass", jobs["empty"], verdicts["empty"]),
        _too_many("no-op", 'completions "I don\'t know." pass', no_ops, on_no_ops),
        _shuffled(task, probes, golds, closed, scorer),
        *(
            f"hostile: text {text[:20]!r}... led to {said(verdict)}"
            for (text, _), verdict in zip(jobs["hostile"], verdicts["hostile"], strict=True)
            if verdict.status is Status.ERROR
        ),
        *(
            f"repeat: the completion {text[:40]!r} for `{sample.id}` got {said(before)}, then {said(after)}"
            for (kind, pairs), second in zip(jobs.items(), again, strict=True)
            for (text, sample), before, after in zip(pairs, verdicts[kind], second, strict=True)
            if Status.TIMEOUT not in (before.status, after.status) and not same(before, after)
        ),
    ]
    if found := [problem for problem in problems if problem]:
        raise RunStopped(
            f"the task `{task.name}` does not pass its pre-flight\n"
            + "\n".join(f"  {problem}" for problem in found[:5]),
            f"`rlvr tasks check {task.name}` looks at every sample; `--no-preflight` trains all the same",
        )


def _gold(task: Task, sample: Sample, scorer: Scorer) -> str:
    """A sample's perfect completion; empty where neither task nor verifier writes one."""
    spec = None if isinstance(task.verifier, Composition) else scorer.registry.verifier(task.verifier)
    if task.gold is None and (spec is None or spec.gold is None):
        return ""
    try:
        return task_gold(task, spec, sample)
    except RlvrError:  # `rlvr tasks check` says why
        return ""


def _verify_all(task: Task, groups: Iterable[Sequence[Job]], scorer: Scorer) -> list[list[Verdict]]:
    """Verdicts of groups of jobs, all of which are under way at once."""
    options = task.verifier_options
    futures = [
        [scorer.submit(task.verifier, Completion(text), sample, options) for text, sample in jobs] for jobs in groups
    ]
    return [[future.result() for future in group] for group in futures]


def _too_many(
    kind: str, what: str, jobs: Sequence[Job], verdicts: Sequence[Verdict], wanted: Status | None = None
) -> str:
    """What is wrong with these verdicts, if too many of them are: not as wanted, or passed where nothing may pass."""
    bad = [
        (sample, verdict)
        for (_, sample), verdict in zip(jobs, verdicts, strict=True)
        if (verdict.status is not wanted if wanted else verdict.passed)
    ]
    if len(bad) <= TOLERATED[kind] * len(jobs):
        return ""
    sample, verdict = bad[0]
    return f"{kind}: {len(bad)} of {len(jobs)} {what}, as that for `{sample.id}`: {said(verdict)}"


def _shuffled(
    task: Task, probes: Sequence[Sample], golds: dict[int, str], closed: Sequence[int], scorer: Scorer
) -> str:
    """What is wrong when the `closed` samples get others' gold completions."""
    partners = {
        place: [other for other in (*range(place + 1, len(probes)), *range(place)) if golds.get(other, text) != text]
        for place, text in golds.items()
    }
    places = [place for place in closed if partners.get(place)]
    passed: dict[int, tuple[Job, Verdict]] = {}
    left = places
    for attempt in range(PARTNERS):
        left = [place for place in left if attempt < len(partners[place])]
        theirs = [(golds[partners[place][attempt]], probes[place]) for place in left]
        ours = [(golds[place], probes[partners[place][attempt]]) for place in left]
        forth, back = _verify_all(task, [theirs, ours], scorer)
        equal = []
        for place, job, verdict, reverse in zip(left, theirs, forth, back, strict=True):
            passed.pop(place, None)
            if verdict.passed:
                passed[place] = job, verdict
                if reverse.passed:
                    equal.append(place)
        left = equal
    if not passed or len(passed) <= TOLERATED["shuffled"] * len(places):
        return ""
    (text, sample), verdict = next(iter(passed.values()))
    return (
        f"shuffled: the gold completion of another sample passes for {len(passed)} of {len(places)}, as {text[:40]!r} "
        f"for `{sample.id}`: {said(verdict)}"
    )
