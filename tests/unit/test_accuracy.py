"""Accuracy, pass@k and intervals against brute force and published values."""

from __future__ import annotations

import itertools
import json
import random
import statistics
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Evaluation, RunStopped, Verdict
from rlvr.accuracy import bootstrap, pass_at_k, summarize, wilson

PASSED, FAILED = Verdict.of(True, "right"), Verdict.of(False, "wrong")
MISSING = [Verdict.error("crashed"), Verdict.timeout("10 s"), Verdict.abstain("unsure")]


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_pass(n: int, data: st.DataObject) -> None:
    passed, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([True] * passed + [False] * (n - passed), k))
    assert pass_at_k(n, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(passed: int, n: int, low: float, high: float) -> None:
    assert wilson(passed, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000), st.data())
def test_wilson_holds_the_share_and_is_symmetric(n: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, n))
    low, high = wilson(passed, n)
    assert 0 <= low <= passed / n + 1e-12
    assert passed / n - 1e-12 <= high <= 1
    assert wilson(n - passed, n) == pytest.approx((1 - high, 1 - low))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_bootstrap_interval_lies_within_the_values_and_is_the_same_every_time(values: list[float]) -> None:
    low, high = bootstrap(values, resamples=40)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    assert bootstrap(values, resamples=40) == (low, high)


def test_the_bootstrap_interval_is_about_two_standard_errors_wide() -> None:
    rng = random.Random(0)
    values = [rng.gauss(0.5, 0.1) for _ in range(400)]
    low, high = bootstrap(values)
    error = statistics.stdev(values) / 400**0.5
    assert (low + high) / 2 == pytest.approx(statistics.fmean(values), abs=0.3 * error)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_one_completion_a_problem() -> None:
    found = summarize([[PASSED], [FAILED], [PASSED], [PASSED]], samples=1)
    assert (found.accuracy, found.problems, found.missing) == (0.75, 4, 0)
    assert (found.low, found.high) == wilson(3, 4)
    assert found.pass_at == {1: 0.75}


def test_missing_verdicts_count_neither_way() -> None:
    found = summarize([[PASSED], *([v] for v in MISSING), [FAILED]], samples=1)
    assert (found.accuracy, found.problems, found.missing) == (0.5, 2, 3)
    assert (found.low, found.high) == wilson(1, 2)


def test_several_completions_a_problem() -> None:
    found = summarize(
        [[PASSED] * 4, [FAILED, PASSED, FAILED, FAILED], [FAILED, MISSING[0], PASSED, MISSING[1]]], samples=4
    )
    assert found.accuracy == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)
    assert found.missing == 2
    assert found.low <= found.accuracy <= found.high
    assert found.pass_at[1] == pytest.approx(found.accuracy)
    assert found.pass_at[2] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found.pass_at[4] == 1  # of the two problems that have four verdicts


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (3, [1, 2]), (4, [1, 2, 4]), (7, [1, 2, 4]), (8, [1, 2, 4, 8])])
def test_pass_at_the_powers_of_two_up_to_the_samples(samples: int, ks: list[int]) -> None:
    assert list(summarize([[PASSED] * samples, [FAILED] * samples], samples).pass_at) == ks


@pytest.mark.parametrize("verdicts", [[], [[]], [[], []]], ids=str)
def test_nothing_sampled_stops(verdicts: list[list[Verdict]]) -> None:
    with pytest.raises(RunStopped, match="there were no completions"):
        summarize(verdicts, 1)


@pytest.mark.parametrize("first", [[], [Verdict.timeout("10 s")]], ids=["no completions", "timeout"])
def test_no_verdict_at_all_stops_with_a_reason(first: list[Verdict]) -> None:
    with pytest.raises(RunStopped, match="no verification gave a verdict: 10 s"):
        summarize([first, [Verdict.timeout("10 s")]], 1)


def test_that_of_each_task_survives_json_and_is_a_metric() -> None:
    own = summarize([[Verdict.of(True, "yes")], [Verdict.of(False, "no")]], 1)
    whole = replace(own, tasks={"math": own, "json": replace(own, accuracy=0.25)}, also={"code": own})
    assert Evaluation.from_json(json.loads(json.dumps(asdict(whole)))) == whole
    interval = {"accuracy_low": own.low, "accuracy_high": own.high}
    assert own.metrics() == {"accuracy": 0.5, **interval}
    assert whole.metrics() == {
        **own.metrics(),
        "json/accuracy": 0.25,
        **{f"json/{name}": bound for name, bound in interval.items()},
        **{f"{task}/{name}": value for task in ("math", "code") for name, value in own.metrics().items()},
    }


def test_an_evaluation_survives_json_and_reads_well() -> None:
    found = summarize([[PASSED, FAILED], [PASSED, MISSING[0]]], samples=2)
    assert Evaluation.from_json(json.loads(json.dumps(asdict(found)))) == found
    whole = Evaluation(0.8512, 0.8, 0.9, 500, 1, 0, {1: 0.8512})
    assert str(whole) == "85.1% [80.0%, 90.0%] of 500 problems"
    assert str(found).endswith("of 2 problems, 1 verdicts missing")
