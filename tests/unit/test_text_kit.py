"""The `text` verifier on its own labelled cases and hacks, its laws, and a copy of IFEval's rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rlvr_verifiers.text import IDS, text
from rlvr_verifiers.text.kinds import KINDS
from rlvr_verifiers.text.kit import kit

from rlvr import Case, Completion, Sample, Scorer, Verdict
from rlvr.registry import registry
from rlvr.taskcheck import check_task

CORPORA = Path(__file__).parents[1] / "corpora" / "text"
KIT = kit()


def judge(completion: str, reference: dict[str, Any]) -> Verdict:
    options = {key: value for key, value in reference.items() if key in text.options}
    meta = {key: value for key, value in reference.items() if key not in options and key != "answer"}
    verdict = text(Completion(completion), Sample("s", "", reference.get("answer"), meta), **options)
    assert isinstance(verdict, Verdict)
    return verdict


def of(case: Case) -> Verdict:
    return judge(case.completion, dict(case.reference))


@pytest.mark.parametrize("case", KIT.cases, ids=lambda case: case.kind)
def test_labelled_cases(case: Case) -> None:
    verdict = of(case)
    assert verdict.valid
    assert verdict.passed == case.passes, verdict.detail
    assert (verdict.score == 1.0) == case.passes


@pytest.mark.parametrize("case", KIT.hacks, ids=lambda case: case.kind)
def test_hacks_fail(case: Case) -> None:
    verdict = of(case)
    assert verdict.status == "failed"
    assert verdict.score < 1.0


@pytest.mark.parametrize("law", KIT.laws, ids=lambda law: law.name)
def test_laws_hold(law: Any) -> None:
    rng, rewritten = random.Random(1), 0
    for case in (*KIT.cases, *KIT.hacks):
        other = law.rewrite(case.completion, rng)
        if other is not None:
            rewritten += 1
            changed = judge(other, dict(case.reference))
            assert changed.passed == of(case).passed, (case, other, changed.detail)
    assert rewritten > 15


def test_every_kind_of_rule_and_instruction_has_cases_of_both_kinds() -> None:
    seen: dict[str, set[bool]] = {}
    for case in KIT.cases:
        written = json.dumps(dict(case.reference))
        for name in (*IDS, *KINDS):
            if f'"{name}"' in written:
                seen.setdefault(name, set()).add(case.passes)
    assert {name for name in (*IDS, *KINDS) if seen.get(name) != {True, False}} <= {"instruction"}
    assert len(KIT.cases) >= 60
    assert len(KIT.hacks) >= 30


def test_the_same_verdict_from_any_order_and_through_the_scorer() -> None:
    cases = [*KIT.cases, *KIT.hacks]
    here = {id(case): of(case).status for case in cases}
    random.Random(2).shuffle(cases)
    assert all(of(case).status == here[id(case)] for case in cases)


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(workers=1) as made:
        yield made


def test_a_perfect_reply_to_every_row_passes_and_a_spoiled_one_fails(scorer: Scorer) -> None:
    """Replies are written for combinations of all 25 instructions; each broken in one place must fail."""
    task = registry().task("ifeval", CORPORA / "own_ifeval.jsonl")
    found = check_task(task, scorer)
    assert found.ok, found.offenders[:3]
    problems = {kind: sum(t.problems for t in found.tallies if t.kind == kind) for kind in ("gold", "spoiled", "empty")}
    assert problems["gold"] == problems["spoiled"] == problems["empty"] >= 100
    assert not [tally for tally in found.tallies if tally.kind == "shuffled"]


@pytest.mark.parametrize("file", ["own_choice.jsonl", "own_replies.jsonl"])
def test_our_own_corpora(file: str) -> None:
    rows = [json.loads(line) for line in (CORPORA / file).read_text(encoding="utf-8").splitlines()]
    wrong = [row for row in rows if judge(row["completion"], row["reference"]).passed != row["expected"]]
    assert not wrong
    assert len(rows) >= 30
    assert {row["expected"] for row in rows} == {True, False}
