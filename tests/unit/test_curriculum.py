"""The curriculum: what is known of a prompt, how likely it is sampled, and that all of it can be repeated."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Completion, Sample, Task, Verdict
from rlvr.assembly import Parts
from rlvr.config import CurriculumConfig
from rlvr.curriculum import keeps, observe, passes_over, teaches
from rlvr.mixture import Stream
from rlvr.rollout import Evidence, Group, State

COUNTS = st.floats(0, 1e6)
EVIDENCE = st.tuples(COUNTS, COUNTS)
SIZES = st.integers(1, 64)
SKIP = st.floats(0, 0.99)


def group(verdicts: str, task: str = "math", sample: str = "s") -> Group:
    """One of a completion for each letter: passed, failed, error, timeout, abstained."""
    of = {
        "p": Verdict.of(True, "yes"),
        "f": Verdict.of(False, "no"),
        "e": Verdict.error("broken"),
        "t": Verdict.timeout("late"),
        "a": Verdict.abstain("unsure"),
    }
    none = (None,) * len(verdicts)
    return Group(
        Sample(sample), (1,), (Completion("x"),) * len(verdicts), tuple(of[v] for v in verdicts), none, none, none,
        task=task,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ evidence


def test_evidence_adds_up_and_fades() -> None:
    first = observe({}, [group("ppff"), group("pppp", sample="t")], 0.5)
    assert first == {"math/s": (2.0, 2.0), "math/t": (4.0, 0.0)}
    second = observe(first, [group("fff"), group("p", task="json")], 0.5)
    assert second == {"math/s": (1.0, 4.0), "math/t": (4.0, 0.0), "json/s": (1.0, 0.0)}
    assert first == {"math/s": (2.0, 2.0), "math/t": (4.0, 0.0)}


@given(EVIDENCE, st.text("pfeta", max_size=12))
def test_missing_verdicts_never_count(before: Evidence, verdicts: str) -> None:
    valid = "".join(v for v in verdicts if v in "pf")
    known = {"math/s": before}
    assert observe(known, [group(verdicts)], 0.9) == observe(known, [group(valid)], 0.9)
    assert observe(known, [group("eta")], 0.9) == known
    assert observe({}, [group("eta")], 0.9) == {}


# ------------------------------------------------------------------------------------------------------- keeping


@pytest.mark.parametrize(
    ("evidence", "size", "expected"),
    [
        # For two completions: twice E[p (1 - p)] = 2 a b / ((a + b) (a + b + 1)) of a Beta(a, b).
        ((0.0, 0.0), 2, 0.25),
        ((4.0, 4.0), 2, 0.45),
        ((8.0, 0.0), 2, 2 * 8.5 * 0.5 / 90),
        ((0.0, 8.0), 2, 2 * 8.5 * 0.5 / 90),
    ],
)
def test_the_chance_that_a_group_teaches(evidence: Evidence, size: int, expected: float) -> None:
    assert teaches(evidence, size) == pytest.approx(expected)


@given(EVIDENCE, SIZES, SKIP)
def test_a_prompt_can_always_come_back(evidence: Evidence, size: int, skip: float) -> None:
    assert 1 - skip <= keeps(evidence, size, skip) <= 1
    assert keeps(evidence, size, skip) == keeps(evidence[::-1], size, skip)
    assert keeps(evidence, size, 0.0) == 1


@given(SIZES, SKIP)
def test_new_prompts_and_those_in_the_middle_are_kept(size: int, skip: float) -> None:
    assert keeps((0.0, 0.0), size, skip) == 1
    for count in (1, 4, 100, 10_000):
        assert keeps((count, count), size, skip) == 1


@given(SIZES, SKIP)
def test_the_more_a_prompt_is_always_or_never_solved_the_less_it_is_kept(size: int, skip: float) -> None:
    falling = [keeps((count, 0.0), size, skip) for count in (0, 2, 8, 32, 128, 1e6)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(1 - skip, abs=1e-3)


def test_the_guide_says_how_often_prompts_are_passed_over() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "mix-tasks.md").read_text()
    solved, passed_over = re.findall(r"\| (?:solved so far|passed over, `skip` 0\.9) \|(.*)\|", guide)
    counts = [tuple(map(int, re.findall(r"\d+", cell))) for cell in solved.split("|")]
    chances = [1 - keeps((right, of - right), 8, 0.9) for right, of in counts]
    assert [f"{chance:.0%}".replace("0%", "never", chance == 0) for chance in chances] == [
        cell.strip() for cell in passed_over.split("|")
    ]


def test_one_failure_is_reason_to_look_again() -> None:
    assert keeps((40.0, 0.0), 8, 0.9) < 0.2
    assert keeps((36.0, 4.0), 8, 0.9) > 0.8


# -------------------------------------------------------------------------------------------------------- stream


def parts(skip: float = 0.9, size: int = 20, seed: int = 0) -> Any:
    """As much of a run as draws from its stream."""
    stream = Stream([(Task("t", "math", lambda split: []), Fraction(1), [Sample(str(i)) for i in range(size)])], seed)
    config = SimpleNamespace(
        seed=seed, sampler=SimpleNamespace(group_size=8), curriculum=CurriculumConfig(skip=skip, memory=0.9)
    )
    return SimpleNamespace(config=config, stream=stream)


def drawn(own: Any, position: int, count: int, evidence: dict[str, Evidence]) -> list[int]:
    return [problem.number for problem in Parts.problems(own, position, count, evidence)]


KNOWN = st.dictionaries(st.integers(0, 19).map(lambda i: f"t/{i}"), EVIDENCE)


def test_without_evidence_nothing_is_passed_over() -> None:
    assert drawn(parts(), 7, 50, {}) == list(range(7, 57))


def test_with_the_curriculum_off_nothing_is_passed_over() -> None:
    assert drawn(parts(skip=0.0), 7, 50, {f"t/{i}": (1e6, 0.0) for i in range(20)}) == list(range(7, 57))


@given(KNOWN, st.integers(0, 10_000), st.integers(1, 20), st.integers(0, 20))
def test_it_does_not_matter_in_how_many_pieces_is_drawn(
    evidence: dict[str, Evidence], position: int, first: int, more: int
) -> None:
    whole = drawn(parts(), position, first + more, evidence)
    assert whole == sorted(set(whole))
    begun = drawn(parts(), position, first, evidence)
    assert whole == begun + drawn(parts(), begun[-1] + 1, more, evidence)


@given(KNOWN, st.integers(0, 10_000))
def test_only_what_teaches_little_is_passed_over(evidence: dict[str, Evidence], position: int) -> None:
    own = parts()
    found = set(drawn(own, position, 30, evidence))
    for place in set(range(position, max(found))) - found:
        assert keeps(evidence[own.stream[place].key], 8, 0.9) < 1


def test_prompts_are_passed_over_as_often_as_they_should() -> None:
    for evidence, skip in (((1e6, 0.0), 0.9), ((0.0, 1e6), 0.5), ((16.0, 0.0), 0.9)):
        chance = 1 - keeps(evidence, 8, skip)
        share = sum(passes_over(evidence, 8, skip, 3, place) for place in range(4000)) / 4000
        assert share == pytest.approx(chance, abs=0.03)


def test_easy_prompts_make_way_for_those_that_teach() -> None:
    evidence = {f"t/{i}": (1e6, 0.0) if i < 10 else (50.0, 50.0) for i in range(20)}
    own = parts()
    found = [own.stream[number].sample.id for number in drawn(own, 0, 400, evidence)]
    easy = sum(int(name) < 10 for name in found) / len(found)
    assert easy == pytest.approx(0.1 / 1.1, abs=0.05)
    assert {name for name in found if int(name) < 10}


# --------------------------------------------------------------------------------------------------------- state


@given(KNOWN)
def test_the_evidence_comes_back_equal(evidence: dict[str, Evidence]) -> None:
    state = State(3, 40, (), evidence)
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_a_state_without_evidence_is_of_another_format() -> None:
    values = State().to_json()
    del values["evidence"]
    with pytest.raises(KeyError):
        State.from_json(values)


def test_a_surplus_group_keeps_its_task() -> None:
    state = State(1, 2, (replace(group("pf"), number=5),))
    back = State.from_json(json.loads(json.dumps(state.to_json())))
    assert back == state
    assert back.surplus[0].task == "math"
