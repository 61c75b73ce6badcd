"""Groups, rows, the state between two steps, and what is recorded of a step."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Completion, Sample, Status, Verdict
from rlvr.rollout import Group, Row, State, StepBatch

VERDICTS = (
    Verdict.of(True, "right", parts={"answer": "2"}).took(0.5),
    Verdict.of(False, "wrong", score=0.25).took(0.25),
    Verdict.timeout("killed after 1 s").took(1.0),
    Verdict.of(False, "wrong").took(0.25),
)
COMPLETIONS = (
    Completion("2", (5, 1), (-0.5, -0.25)),
    Completion("3", (6, 7, 1), (-1.5, -1.0, -0.5)),
    Completion("22", (5, 5, 1), (-0.5, -0.5, -2.0)),
    Completion("3333", (6, 6, 6, 6), (-1.0, -1.0, -1.0, -1.0), "length"),
)
GROUP = Group(
    Sample("s-1", "1+1", "2"),
    (3, 4),
    COMPLETIONS,
    VERDICTS,
    (1.0, 0.0, None, 0.0),
    (1.0, 0.0, None, 0.0),
    (1.15, -0.58, None, -0.58),
)
SAME = (0.0, 0.0, None, 0.0)
ALIKE = replace(GROUP, sample=Sample("s-2"), outcomes=SAME, rewards=SAME, advantages=SAME)


def batch(*sampled: Group, surplus: tuple[Group, ...] = ()) -> StepBatch:
    return StepBatch((GROUP,), sampled, State(8, 40, surplus), 2, {"time/sample": 1.5})


def test_the_learner_sees_the_valid_rows_with_the_samplers_ids() -> None:
    assert GROUP.rows() == [
        Row((3, 4), (5, 1), (-0.5, -0.25), 1.15, reward=1.0),
        Row((3, 4), (6, 7, 1), (-1.5, -1.0, -0.5), -0.58),
        Row((3, 4), (6, 6, 6, 6), (-1.0, -1.0, -1.0, -1.0), -0.58),
    ]


def test_a_group_teaches_when_its_valid_rewards_vary() -> None:
    assert GROUP.informative
    assert not ALIKE.informative


def test_every_completion_that_was_sampled_is_recorded_once() -> None:
    records = list(batch(ALIKE, GROUP).records())
    assert [(r["group"], r["sample"], r["completion"]) for r in records] == [
        (number, sample, completion.text) for number, sample in enumerate(["s-2", "s-1"]) for completion in COMPLETIONS
    ]
    assert {record["step"] for record in records} == {7}


def test_a_record_says_what_became_of_a_completion() -> None:
    assert list(batch(GROUP).records())[2] == {
        "step": 7,
        "learned_in": None,
        "group": 0,
        "sample": "s-1",
        "prompt": "1+1",
        "completion": "22",
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "finish_reason": "stop",
        "version": 0,
        "verdict": {"status": "timeout", "score": 0.0, "detail": "killed after 1 s", "parts": {}, "duration": 1.0},
        "reward": None,
        "advantage": None,
    }
    json.dumps(list(batch(GROUP).records()), allow_nan=False)


def test_a_record_says_in_which_step_a_row_is_learned_from() -> None:
    carried, dropped = replace(GROUP, sample=Sample("s-3")), ALIKE
    records = list(batch(GROUP, carried, dropped, surplus=(carried,)).records())
    missing = [None, None, None, None]
    assert [r["learned_in"] for r in records] == [7, 7, None, 7, 8, 8, None, 8, *missing]


def test_metrics_are_means_over_what_was_sampled() -> None:
    metrics = batch(GROUP, ALIKE, surplus=(GROUP, GROUP)).metrics()
    assert metrics == {
        "step": 7,
        "reward": pytest.approx(1 / 6),
        "pass_rate": pytest.approx(2 / 6),
        "length": 3.0,
        "truncated": 0.25,
        "missing": 0.25,
        "missing/timeout": 0.25,
        "reward_std": pytest.approx((5 / 36) ** 0.5),
        "surprisal": pytest.approx(10.75 / 12),
        "opener": 0.25,
        "baseline_error": pytest.approx(0.5**0.5),
        "flagged": 0.0,
        "completions": 8,
        "groups": 1,
        "groups_sampled": 2,
        "groups_carried": 2,
        "groups_dropped": 0,
        "age": 7.0,
        "rounds": 2,
        "time/sample": 1.5,
        "time/verify_busy": 4.0,
    }


def test_each_task_of_several_has_its_means() -> None:
    math, json_, idle = replace(GROUP, task="math"), replace(ALIKE, task="json"), "idle"
    both = StepBatch((math,), (math, json_), State(8, 40), 2, {}, tasks=("math", "json", idle))
    assert {
        name: value for name, value in both.metrics().items() if "/" in name and name[:4] in ("math", "json", idle)
    } == {
        "math/reward": pytest.approx(1 / 3),
        "math/pass_rate": pytest.approx(1 / 3),
        "math/length": 3.0,
        "math/truncated": 0.25,
        "math/missing": 0.25,
        "math/missing/timeout": 0.25,
        "math/groups": 1,
        "math/groups_sampled": 1,
        "json/reward": 0.0,
        "json/pass_rate": pytest.approx(1 / 3),
        "json/length": 3.0,
        "json/truncated": 0.25,
        "json/missing": 0.25,
        "json/missing/timeout": 0.25,
        "json/groups": 0,
        "json/groups_sampled": 1,
        "idle/groups": 0,
        "idle/groups_sampled": 0,
    }
    assert [record["task"] for record in both.records()] == ["math"] * 4 + ["json"] * 4
    alone = StepBatch((math,), (math,), State(8, 40), 2, {}, tasks=("math",))
    assert not any(name.startswith("math/") for name in alone.metrics())
    assert not any("task" in record for record in alone.records())


def test_the_share_that_a_curriculum_passed_over_is_a_metric() -> None:
    assert "skipped" not in batch(GROUP).metrics()
    assert replace(batch(GROUP), skipped=0.25).metrics()["skipped"] == 0.25


def test_attempts_to_forge_are_counted() -> None:
    flagged = replace(GROUP.verdicts[0], parts={"flags": ["left-early", "lying-object"]})
    odd = replace(GROUP.verdicts[1], parts={"flags": "left-early"})  # some other verifier's own use of the word
    metrics = batch(replace(GROUP, verdicts=(flagged, odd, *GROUP.verdicts[2:]))).metrics()
    assert metrics["flagged"] == 0.25
    assert metrics["flagged/left-early"] == metrics["flagged/lying-object"] == 0.25


def test_a_step_that_lives_on_carried_groups_has_no_missing_verdicts() -> None:
    metrics = batch().metrics()
    assert metrics["missing"] == 0
    assert metrics["completions"] == 0


# ------------------------------------------------------------------------------------------------ there and back

TEXT = st.text('aé\n"\\\x00\ud800😀', max_size=4)  # \ud800 is half a surrogate pair
FLOATS = st.floats(-9, 9)
ANY_VERDICT = st.builds(
    Verdict, st.sampled_from(Status), st.floats(0, 1), TEXT.map("because {}".format), st.dictionaries(TEXT, FLOATS)
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=2)
SAMPLES = st.builds(Sample, TEXT, TEXT | MESSAGES, TEXT | st.none(), st.dictionaries(TEXT, FLOATS | TEXT))
TOKENS = st.lists(st.tuples(st.integers(0, 9), FLOATS), max_size=3)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    ids, logprobs = zip(*draw(TOKENS.filter(bool)), strict=True)
    completion = Completion(draw(TEXT), ids, logprobs, draw(st.sampled_from(["stop", "length"])))
    reward = draw(FLOATS | st.none())
    return Group(draw(SAMPLES), ids, (completion,), (draw(ANY_VERDICT),), (reward,), (reward,), (reward,))


@given(st.integers(0, 99), st.integers(0, 99), st.lists(groups(), max_size=2))
def test_a_state_comes_back_from_json_as_it_was(step: int, position: int, surplus: list[Group]) -> None:
    state = State(step, position, tuple(surplus))
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
