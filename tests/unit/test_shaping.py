"""Shapers pay for verdicts; missing data has no price."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Completion, Verdict, shaper
from rlvr.shaping import binary, partial, soft_overlong

REPLY = Completion("42")
MISSING = [Verdict.error("crashed"), Verdict.timeout("10 s"), Verdict.abstain("not a number")]


def test_binary_pays_for_passing_only() -> None:
    assert binary(Verdict.of(True, "right", score=0.9), REPLY) == 1.0
    assert binary(Verdict.of(False, "half right", score=0.5), REPLY) == 0.0


def test_partial_pays_the_score() -> None:
    assert partial(Verdict.of(False, "half right", score=0.5), REPLY) == 0.5
    assert partial(Verdict.of(True, "right"), REPLY) == 1.0


@pytest.mark.parametrize("verdict", MISSING, ids=lambda verdict: verdict.status)
@pytest.mark.parametrize("spec", [binary, partial], ids=lambda spec: spec.name)
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
