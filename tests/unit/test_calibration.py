"""Calibration, accuracy and the plateau, held against numbers worked out by hand."""

from __future__ import annotations

import math
import random

import pytest

from rlvr.stages.calibration import calibration_curve, calibration_error, on_plateau, sigmoid, validation

LOG3, LOG9 = math.log(3), math.log(9)  # sigmoid: 3/4, 9/10


def test_accuracy_counts_equal_scores_half() -> None:
    found = validation([1.0, 2.0, 5.0, 0.0], [0.0, 3.0, 5.0, -1.0])
    assert found.pairs == 4
    assert found.accuracy == (1 + 0 + 0.5 + 1) / 4
    assert found.low < found.accuracy < found.high


def test_loss_margins_and_moments_by_hand() -> None:
    found = validation([LOG3, 0.0], [0.0, LOG3])
    # -log(3/4) and -log(1/4)
    assert found.loss == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert found.margin == pytest.approx(0)
    assert found.mean == pytest.approx(LOG3 / 2)
    assert found.deviation == pytest.approx(LOG3 / 2)


def test_the_curve_counts_each_pair_in_both_orders() -> None:
    # Four pairs predicted at 3/4: three ordered rightly, one wrongly. So 3/4 is observed as predicted.
    curve = calibration_curve([LOG3, LOG3, LOG3, -LOG3])
    known = {own.low: own for own in curve if own.count}
    assert set(known) == {0.2, 0.7}
    assert known[0.7].count == known[0.2].count == 4
    assert known[0.7].predicted == pytest.approx(0.75)
    assert known[0.7].observed == 0.75
    assert known[0.2].observed == 0.25
    assert calibration_error(curve) == pytest.approx(0, abs=1e-12)


def test_the_error_of_a_model_that_is_too_sure() -> None:
    # All at 9/10, half of them wrong: 0.4 off in both bins. Two more at 1/2, which cannot be off.
    curve = calibration_curve([LOG9, LOG9, -LOG9, -LOG9, 0.0, 0.0])
    assert calibration_error(curve) == pytest.approx((8 * 0.4 + 4 * 0.0) / 12)


def test_that_pairs_have_the_better_one_first_makes_no_model_look_good() -> None:
    """A model whose scores are chance says 0.5 of chosen ones in one order only; both orders show it as it is."""
    rng = random.Random(0)
    margins = [rng.gauss(0, 3) for _ in range(4000)]  # as often wrong as right, and sure of it
    found = validation(margins, [0.0] * len(margins))
    assert found.ece > 0.25
    honest = [margin if rng.random() < sigmoid(margin) else -margin for margin in margins]
    assert validation(honest, [0.0] * len(honest)).ece < 0.03


def test_extreme_scores_are_finite() -> None:
    found = validation([1e6, -1e6], [-1e6, 1e6])
    assert found.loss == pytest.approx(1e6)
    assert found.bins[-1].count == found.bins[0].count == 2


@pytest.mark.parametrize(
    ("accuracies", "stops"),
    [
        ([0.5], False),
        ([0.9, 0.9], False),  # not yet `patience` validations after the best
        ([0.9, 0.9, 0.9], True),
        ([0.9, 0.8, 0.92], False),  # a gain
        ([0.9, 0.905, 0.909], True),  # a gain that is none
        ([0.6, 0.7, 0.8, 0.9], False),
        ([0.6, 0.9, 0.8, 0.89], True),
    ],
)
def test_the_plateau(accuracies: list[float], stops: bool) -> None:
    assert on_plateau(accuracies, patience=2, min_gain=0.01) is stops
