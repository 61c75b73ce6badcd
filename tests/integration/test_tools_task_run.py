"""The lessons of `tools`, judged by the verifier with the tools run in Docker: right ones pass, every slip fails."""

from __future__ import annotations

import itertools
import random

import pytest
from rlvr_tasks.tools import KINDS, Kind, fill, problems, sample_of
from rlvr_tasks.tools_lessons import ANYWHERE, replied, slip, transcript

from rlvr import Completion, Sample, Scorer, Status, Turn

pytestmark = pytest.mark.usefixtures("needs_docker")


def completion(turns: tuple[str, ...]) -> Completion:
    if len(turns) == 1:
        return Completion(turns[0])
    roles = itertools.cycle(("policy", "environment"))
    return Completion(turns[-1], turns=tuple(Turn(role, text) for role, text in zip(roles, turns, strict=False)))  # type: ignore[arg-type]


def test_right_ones_pass_and_every_slip_fails() -> None:
    rng = random.Random(0)
    right: list[tuple[Completion, Sample]] = []
    wrong: list[tuple[Completion, Sample]] = []
    for kind in KINDS:
        for told in itertools.islice(problems(kind, "train", rng), 4):
            boxes = fill(told, rng)
            sample = sample_of(kind, told, boxes, rng)
            right.append((completion(transcript(kind.solve(told, boxes))), sample))
            wrong += [(completion(slip(kind, told, boxes, which)), sample) for which in ["", *ANYWHERE]]
    with Scorer(workers=2, sandbox="docker") as scorer:
        passed = scorer.submit_batch("tool-call", right).result()
        failed = scorer.submit_batch("tool-call", wrong).result()
    assert [verdict.detail for verdict in passed if verdict.status is not Status.PASSED] == []
    assert [
        (verdict, pair) for verdict, pair in zip(failed, wrong, strict=True) if verdict.status is not Status.FAILED
    ] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_environment_says_what_the_lessons_say(kind: Kind) -> None:
    rng = random.Random(1)
    told = next(problems(kind, "test", rng))
    boxes = fill(told, rng)
    sample, solution = sample_of(kind, told, boxes, rng), kind.solve(told, boxes)
    turns = transcript(solution)
    with Scorer(workers=1, sandbox="docker") as scorer:
        for place, results in enumerate(solution.results):
            verdict = scorer.submit_reply("tool-call", completion(turns[: 2 * place + 1]), sample).result()
            assert verdict.parts["reply"] == replied(results)
        if solution.says:
            assert scorer.submit_reply("tool-call", completion(turns), sample).result().parts["reply"] is None
