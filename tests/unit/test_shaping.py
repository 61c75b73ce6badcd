"""Shapers pay for verdicts; missing data has no price. What else goes into rewards and advantages."""

from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Completion, ConfigError, PluginError, Verdict, shaper
from rlvr.advantage import group_advantages, informative
from rlvr.config import RewardConfig
from rlvr.shaping import (
    NGRAM,
    binary,
    by_difficulty,
    configured,
    cosine,
    outcome,
    partial,
    pass_rate,
    repetition,
    reward,
    soft_overlong,
)

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "rewards.md"

REPLY = Completion("42")
RIGHT, WRONG = Verdict.of(True, "right"), Verdict.of(False, "wrong")
MISSING = [Verdict.error("crashed"), Verdict.timeout("10 s"), Verdict.abstain("not a number")]


def test_binary_pays_for_passing_only() -> None:
    assert binary(Verdict.of(True, "right", score=0.9), REPLY) == 1.0
    assert binary(Verdict.of(False, "half right", score=0.5), REPLY) == 0.0


def test_partial_pays_the_score() -> None:
    assert partial(Verdict.of(False, "half right", score=0.5), REPLY) == 0.5
    assert partial(Verdict.of(True, "right"), REPLY) == 1.0


@pytest.mark.parametrize("verdict", MISSING, ids=lambda verdict: verdict.status)
@pytest.mark.parametrize("spec", [binary, partial, cosine], ids=lambda spec: spec.name)
def test_missing_data_has_no_reward(spec: object, verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="missing data has no reward"):
        spec(verdict, REPLY)  # type: ignore[operator]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_is_finite_whoever_wrote_the_shaper(value: float) -> None:
    spec = shaper("wild")(lambda verdict, completion: value)
    with pytest.raises(ValueError, match="`wild` returned"):
        spec(Verdict.of(True, "right"), REPLY)


def test_soft_overlong_has_the_three_pieces_of_the_paper() -> None:
    # DAPO, arXiv:2503.14476: L_max 20480, L_cache 4096.
    assert soft_overlong(16384, 20480, 4096) == 0.0
    assert soft_overlong(18432, 20480, 4096) == -0.5
    assert soft_overlong(20480, 20480, 4096) == -1.0
    assert soft_overlong(99999, 20480, 4096) == -1.0


def test_without_a_buffer_only_what_is_beyond_the_limit_is_punished() -> None:
    assert [soft_overlong(n, 10, 0) for n in (9, 10, 11)] == [0.0, 0.0, -1.0]


@given(st.integers(0, 300), st.integers(0, 200), st.data())
def test_soft_overlong_never_rises_and_stays_in_range(length: int, limit: int, data: st.DataObject) -> None:
    buffer = data.draw(st.integers(0, limit))
    now, longer = soft_overlong(length, limit, buffer), soft_overlong(length + 1, limit, buffer)
    assert -1.0 <= longer <= now <= 0.0


@pytest.mark.parametrize(("length", "limit", "buffer"), [(-1, 10, 2), (5, 10, 11), (5, 10, -1)])
def test_soft_overlong_refuses_nonsense(length: int, limit: int, buffer: int) -> None:
    with pytest.raises(ValueError, match="0 <= buffer <= limit"):
        soft_overlong(length, limit, buffer)


def of_length(tokens: int, cut: bool = False) -> Completion:
    return Completion("", tuple(range(tokens)), finish_reason="length" if cut else "stop")


def with_foreign(own: int, foreign: int) -> Completion:
    """`own` tokens of the policy, half of them before what the environment wrote."""
    before = own // 2
    return Completion("", tuple(range(own + foreign)), foreign=((before, before + foreign),))


# Cosine


def test_cosine_starts_and_ends_where_it_is_told() -> None:
    assert cosine(RIGHT, of_length(0), limit=100) == 1.0
    assert cosine(RIGHT, of_length(50), limit=100) == pytest.approx(0.75)
    assert cosine(RIGHT, of_length(100), limit=100) == 0.5
    assert cosine(WRONG, of_length(0), limit=100) == -0.5
    assert cosine(WRONG, of_length(100), limit=100) == 0.0
    for verdict in (RIGHT, WRONG):
        assert cosine(verdict, of_length(100, cut=True), limit=100) == -0.5
        assert cosine(verdict, of_length(101), limit=100) == -0.5


def test_cosine_with_the_values_of_the_paper() -> None:
    # Yeo et al., arXiv:2502.03373: 2 and 1 for right, -10 and 0 for wrong ones, -10 for one that is too long.
    ends = {"correct_short": 2.0, "correct_long": 1.0, "wrong_short": -10.0, "wrong_long": 0.0, "cut": -10.0}
    paid = [cosine(v, of_length(n), limit=100, **ends) for v in (RIGHT, WRONG) for n in (0, 50, 100)]
    assert paid == pytest.approx([2.0, 1.5, 1.0, -10.0, -5.0, 0.0])


ENDS = st.fixed_dictionaries(
    {name: st.floats(-10, 10) for name in ("correct_short", "correct_long", "wrong_short", "wrong_long", "cut")}
)


@given(st.booleans(), st.integers(0, 60), st.integers(1, 60), ENDS)
def test_cosine_runs_from_one_end_to_the_other(passed: bool, length: int, limit: int, ends: dict[str, float]) -> None:
    verdict = Verdict.of(passed, "said")
    now, longer = (cosine(verdict, of_length(n), limit=limit, **ends) for n in (length, length + 1))
    which = "correct" if passed else "wrong"
    short, long = ends[f"{which}_short"], ends[f"{which}_long"]
    assert math.isfinite(now)
    if length > limit:
        assert now == ends["cut"]
    else:
        assert min(short, long) - 1e-9 <= now <= max(short, long) + 1e-9
    if length < limit:
        assert (longer - now) * (long - short) >= -1e-9  # it goes one way only


@given(st.integers(0, 50), st.integers(0, 50))
def test_cosine_as_it_comes_pays_every_right_completion_more_than_any_wrong_one(one: int, other: int) -> None:
    assert cosine(RIGHT, of_length(one), limit=50) > cosine(WRONG, of_length(other), limit=50)


def test_cosine_needs_a_limit() -> None:
    with pytest.raises(ValueError, match="`limit` above 0"):
        cosine(RIGHT, REPLY)


# Repetition

TOKENS = st.lists(st.integers(0, 3), max_size=40).map(tuple)


@given(TOKENS, st.integers(1, 5))
def test_repetition_is_the_share_of_tokens_in_an_earlier_ngram(tokens: tuple[int, ...], n: int) -> None:
    grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)]
    marked = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(n)}
    found = repetition(Completion("", tokens), n)
    assert found == pytest.approx(len(marked) / max(len(tokens), 1))
    assert 0.0 <= found < 1.0


@given(TOKENS, st.integers(1, 5), st.lists(st.integers(0, 3), min_size=1, max_size=9), st.data())
def test_what_the_environment_wrote_neither_counts_nor_joins(
    tokens: tuple[int, ...], n: int, foreign: list[int], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(tokens)))
    told = Completion("", (*tokens[:at], *foreign, *tokens[at:]), foreign=((at, at + len(foreign)),))
    apart = Completion("", (*tokens[:at], -1, *tokens[at:]), foreign=((at, at + 1),))
    assert told.written == len(tokens)
    assert repetition(told, n) == repetition(apart, n) <= repetition(Completion("", tokens), n)


def test_a_loop_counts_and_a_repeated_word_does_not() -> None:
    assert repetition(Completion("", (7,) * (NGRAM - 1))) == 0.0
    assert repetition(Completion("", (7,) * 1000)) == 0.999
    assert repetition(Completion("")) == 0.0
    with pytest.raises(ValueError, match="at least one token"):
        repetition(REPLY, 0)


# Difficulty

RATES = st.floats(0, 1)
ADVANTAGES = st.lists(st.floats(-5, 5) | st.none(), max_size=8)


@given(ADVANTAGES, RATES, RATES)
def test_difficulty_keeps_signs_and_missing_rows(advantages: list[float | None], rate: float, strength: float) -> None:
    weighed = by_difficulty(advantages, rate, strength)
    assert [a is None for a in weighed] == [a is None for a in advantages]
    for before, after in zip(advantages, weighed, strict=True):
        if before is not None and after is not None:
            assert math.copysign(1, before) == math.copysign(1, after)
            assert 0.4 * abs(before) <= abs(after) <= 1.5 * abs(before)
    assert by_difficulty(advantages, rate, 0.0) == advantages


@given(RATES, RATES, st.floats(0.1, 1))
def test_the_harder_the_prompt_the_more_a_right_completion_counts(one: float, other: float, strength: float) -> None:
    hard, easy = sorted((one, other))
    (right, wrong), (right_easy, wrong_easy) = (by_difficulty([1.0, -1.0], rate, strength) for rate in (hard, easy))
    assert right is not None
    assert right_easy is not None
    assert wrong is not None
    assert wrong_easy is not None
    assert right >= right_easy
    assert wrong >= wrong_easy  # a wrong one counts less where most are wrong


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=8).filter(informative),
    st.floats(0.2, 5),
)
def test_a_factor_on_rewards_would_be_lost(rewards: list[int], weight: float) -> None:
    weighed = group_advantages([weight * paid for paid in rewards])
    assert weighed == pytest.approx(group_advantages(rewards), rel=2e-3)


def test_the_pass_rate_is_of_the_rows_that_count() -> None:
    assert pass_rate([RIGHT, WRONG, WRONG, MISSING[0]], [1.0, 0.0, None, None]) == 0.5
    assert pass_rate(MISSING, [None, None, None]) == 0.0


# From a run's settings

ALL = RewardConfig(overlong="soft", repetition=0.5)


def test_without_settings_a_reward_is_what_the_shaper_pays() -> None:
    assert reward(RIGHT, of_length(100), binary, RewardConfig(), 100) == 1.0


def test_terms_are_added_for_the_tokens_that_the_policy_wrote() -> None:
    assert reward(RIGHT, of_length(100), binary, ALL, 100) == 0.0
    assert reward(WRONG, of_length(90), binary, ALL, 100) == -0.5
    assert reward(RIGHT, with_foreign(60, 40), binary, ALL, 100) == 1.0
    assert cosine(RIGHT, with_foreign(50, 50), limit=100) == cosine(RIGHT, of_length(50), limit=100)
    loop = Completion("", (7,) * 50)
    assert reward(RIGHT, loop, binary, ALL, 100) == pytest.approx(1 - 0.5 * 0.98)


@pytest.mark.parametrize("spec", [binary, partial, cosine], ids=lambda spec: spec.name)
def test_outcomes_of_equal_verdicts_are_equal_however_long_the_completions_are(spec: Any) -> None:
    set_up = configured(spec, ALL, 100)
    for verdict in (RIGHT, WRONG):
        rows = [of_length(10), of_length(95), Completion("", (7,) * 60)]
        outcomes = [outcome(verdict, completion, set_up, ALL) for completion in rows]
        assert not informative(outcomes)
        assert informative([reward(verdict, completion, set_up, ALL, 100) for completion in rows])
    assert informative([outcome(RIGHT, REPLY, set_up, ALL), outcome(WRONG, REPLY, set_up, ALL)])


@pytest.mark.parametrize("verdict", MISSING, ids=lambda verdict: verdict.status)
def test_missing_and_filtered_rows_have_no_outcome(verdict: Verdict) -> None:
    assert outcome(verdict, REPLY, cosine, ALL) is None
    assert outcome(RIGHT, of_length(3, cut=True), binary, RewardConfig(overlong="filter")) is None
    assert outcome(RIGHT, of_length(3, cut=True), binary, RewardConfig(overlong="keep")) == 1.0


def test_options_come_from_the_settings_and_the_limit_from_the_sampler() -> None:
    set_up = configured(cosine, RewardConfig(options=("correct_long=0.8", "wrong_short = -1")), 100)
    assert set_up(RIGHT, of_length(100)) == 0.8
    assert set_up(WRONG, of_length(0)) == -1.0
    assert set_up.outcome is cosine.outcome
    assert configured(cosine, RewardConfig(options=("limit=50",)), 100)(RIGHT, of_length(50)) == 0.5
    assert configured(binary, RewardConfig(), 100)(RIGHT, REPLY) == 1.0
    assert cosine.options["limit"] == 0  # as it was


@pytest.mark.parametrize(
    ("option", "message", "hint"),
    [
        ("correct_long", "`reward.options` has `correct_long`", "NAME=VALUE"),
        ("corect_long=1", "`cosine` has no option `corect_long`", "did you mean `correct_long`?"),
        ("zzz=1", "`cosine` has no option `zzz`", "known: `correct_short`"),
        ("cut=low", "`cut` of the shaper `cosine` is `low`, but must be a number", "its default is `-0.5`"),
        ("cut=true", "is `True`, but must be a number", "-0.5"),
        ("cut=NaN", "is `nan`, but must be a number", "-0.5"),
        ("cut=1e999", "is `inf`, but must be a number", "-0.5"),
        ("limit=1.5", "is `1.5`, but must be a whole number", "`0`"),
        ("cut=", "is ``, but must be a number", "-0.5"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(option: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(cosine, RewardConfig(options=(option,)), 100)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_shaper_has_options_like_a_verifier() -> None:
    @shaper("worded", outcome=lambda verdict: 0.5)
    def worded(verdict: Verdict, completion: Completion, *, word: str = "1", twice: bool = False) -> float:
        """Pays for a word."""
        return float(word in completion.text) * (2 if twice else 1)

    assert worded(RIGHT, Completion("1")) == 1.0
    set_up = configured(worded, RewardConfig(options=("word=42", "twice=true")), 100)
    assert set_up(RIGHT, REPLY) == 2.0
    assert outcome(RIGHT, REPLY, set_up, ALL) == 0.5
    tokens = shaper("limited")(lambda verdict, completion, *, limit=None: float(limit))
    assert configured(tokens, RewardConfig(), 100)(RIGHT, REPLY) == 100.0
    with pytest.raises(PluginError, match="`outcome`"):
        shaper("x", outcome=1)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="has no default"):
        shaper("x")(lambda verdict, completion, *, n: 1.0)


def test_the_examples_of_the_page_hold() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 20
    assert not found.failed
