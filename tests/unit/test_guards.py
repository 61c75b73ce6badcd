"""The guards on made-up histories: each fires on its failure, and is silent where that is not what happened."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlvr.accuracy import wilson
from rlvr.config import GuardConfig, leaves
from rlvr.guards import BEFORE, GUARDS, REARM, Alarm, History, Watch, beyond
from rlvr.learner.modules import fingerprint

Row = dict[str, Any]
DEFAULT = GuardConfig()
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "guards.md"


def rows(steps: int, **metrics: Callable[[float], float] | float) -> list[Row]:
    """Rows of so many steps; a metric is a number, or a function of how far the run is, from 0 to 1."""
    return [
        {"step": step}
        | {name: value(step / (steps - 1)) if callable(value) else value for name, value in metrics.items()}
        for step in range(steps)
    ]


def evaluation(accuracy: float, problems: int = 100, task: str = "") -> Row:
    """What an evaluation adds to a row."""
    low, high = wilson(round(accuracy * problems), problems)
    return {f"{task}accuracy": accuracy, f"{task}accuracy_low": low, f"{task}accuracy_high": high}


def evaluated(found: Sequence[Row], accuracies: Sequence[float], problems: int = 100, task: str = "") -> list[Row]:
    """Rows with evaluations: one before the first, the others evenly spread, one at the end."""
    every = len(found) / (len(accuracies) - 1)
    steps = {round(every * n) - 1: accuracy for n, accuracy in enumerate(accuracies)}
    before = {"step": BEFORE, **evaluation(steps.pop(BEFORE), problems, task)}
    return [
        before,
        *(row | (evaluation(steps[row["step"]], problems, task) if row["step"] in steps else {}) for row in found),
    ]


def alarms(found: Sequence[Mapping[str, Any]], config: GuardConfig = DEFAULT) -> list[Alarm]:
    """All that guards say in the course of a run."""
    watch = Watch(config)
    return [alarm for row in found for alarm in watch.look(row)]


def fired(found: Sequence[Mapping[str, Any]], config: GuardConfig = DEFAULT) -> list[str]:
    return [alarm.guard for alarm in alarms(found, config)]


def rise(start: float, end: float) -> Callable[[float], float]:
    return lambda share: start + (end - start) * share


# ------------------------------------------------------------------------------------------------- reward hacking


def paid(start: float, end: float, deviation: float = 0.5, steps: int = 20) -> list[Row]:
    return rows(steps, reward=rise(start, end), reward_std=deviation)


@pytest.mark.parametrize(
    ("reward", "accuracies", "problems"),
    [
        ((0.3, 0.9), (0.5, 0.5, 0.5), 100),  # flat
        ((0.3, 0.9), (0.5, 0.4, 0.2), 100),  # falls
        ((0.3, 0.9), (0.6, 0.5, 0.1), 20),  # falls far enough for so few problems
        ((0.2, 0.8), (0.0, 0.0, 0.0), 100),  # nothing was ever solved
        ((0.3, 0.9), (0.5, 0.55, 0.56), 500),  # far less than was paid for
    ],
)
def test_reward_hacking_is_reward_that_accuracy_does_not_follow(
    reward: tuple[float, float], accuracies: tuple[float, ...], problems: int
) -> None:
    assert fired(evaluated(paid(*reward), accuracies, problems)) == ["reward-hacking"]


@pytest.mark.parametrize(
    ("reward", "accuracies", "problems"),
    [
        ((0.3, 0.9), (0.4, 0.6, 0.8), 100),  # it follows
        ((0.93, 0.98), (0.93, 0.93, 0.93), 500),  # too little to follow
        ((0.3, 0.9), (0.5, 0.5, 0.5), 10),  # so few problems cannot say that it is flat
        ((0.5, 0.5), (0.6, 0.5, 0.3), 100),  # worse, but nobody paid for it
        ((0.9, 0.3), (0.5, 0.5, 0.5), 100),
        ((0.3, 0.9), (0.97, 0.98, 0.97), 100),  # there was nothing left to gain
    ],
)
def test_reward_hacking_is_silent_where_accuracy_followed_or_nothing_was_promised(
    reward: tuple[float, float], accuracies: tuple[float, ...], problems: int
) -> None:
    assert fired(evaluated(paid(*reward), accuracies, problems)) == []


def test_reward_hacking_after_a_healthy_start_is_seen() -> None:
    learned = rows(30, reward=lambda share: 0.2 + 0.6 * min(1, 3 * share), reward_std=0.5)
    assert fired(evaluated(learned, (0.2, 0.8, 0.8, 0.8), 200)) == []
    (alarm,) = alarms(evaluated(learned, (0.2, 0.8, 0.8, 0.3), 200))
    assert alarm.step == 29
    assert "to 30.0%" in alarm.message


def unlucky(seed: int, learns: bool) -> list[Row]:
    """200 steps of a healthy run with 100 new held-out problems every 10 steps, of which luck solves more or less."""
    draw = random.Random(seed)
    found: list[Row] = []
    for step in range(BEFORE, 200):
        right = 0.4 + 0.0015 * step if learns else 0.5
        found.append({"step": step, "reward": 0.4 + 0.0025 * step, "reward_std": 0.5})
        if (step + 1) % 10 == 0:
            task = "" if learns else "json/"
            found[-1] |= evaluation(sum(draw.random() < right for _ in range(100)) / 100, task=task)
    return found


@pytest.mark.parametrize("learns", [True, False])
def test_false_alarms_do_not_add_up_over_evaluations(learns: bool) -> None:
    """Of 40 healthy runs 1; with 1.96 standard errors however many evaluations there were, 12 and 11."""
    assert sum(bool(fired(unlucky(seed, learns))) for seed in range(40)) <= 4


def test_one_comparison_has_its_usual_limit_and_twenty_have_three_errors() -> None:
    assert beyond(0) == beyond(1) == pytest.approx(1.96)
    assert beyond(20) == pytest.approx(3.02, abs=0.01)
    fall = evaluated(rows(20, reward=0.5), (0.8, 0.64), task="json/")
    assert fired(fall) == ["alignment-tax"]
    assert fired(evaluated(rows(200, reward=0.5), (*[0.8] * 20, 0.64), task="json/")) == []
    assert fired(evaluated(rows(200, reward=0.5), (*[0.8] * 20, 0.5), task="json/")) == ["alignment-tax"]


def test_reward_hacking_goes_by_the_scale_of_the_reward() -> None:
    for scale in (0.01, 1.0, 100.0):
        assert fired(evaluated(paid(0, 1.2 * scale, scale), (0.5, 0.5, 0.5))) == ["reward-hacking"]
        assert fired(evaluated(paid(0, 0.3 * scale, scale), (0.5, 0.5, 0.5))) == []


def test_reward_hacking_needs_evaluations_with_intervals_and_rewards() -> None:
    bare = [{name: value for name, value in row.items() if "_" not in name} for row in paid(0.3, 0.9)]
    assert fired(evaluated(bare, (0.5, 0.5, 0.5))) == []
    assert fired([row | {"accuracy": 0.5} for row in paid(0.3, 0.9)]) == []


# ------------------------------------------------------------------------------------------------------------- KL


def test_kl_spike_is_measured_against_the_target() -> None:
    for kl, expected in ((2.9, []), (3.1, ["kl-spike"])):
        assert fired(rows(2, kl_sequence=kl, kl_target=1.0)) == expected
    assert fired(rows(2, kl_sequence=2.9, kl_target=1.0), GuardConfig(kl_factor=2.0)) == ["kl-spike"]


def test_kl_spike_without_a_target_is_a_jump() -> None:
    grows = rows(40, kl_sequence=lambda share: 20 * share**2)
    assert fired(grows) == []
    jumps = [*grows[:20], {"step": 20, "kl_sequence": 30.0}]
    assert fired(jumps) == ["kl-spike"]
    small = [*rows(20, kl_sequence=0.01), {"step": 20, "kl_sequence": 0.9}]
    assert fired(small) == []


def test_kl_spike_is_of_the_latest_step_only() -> None:
    assert fired([{"step": 0, "kl_sequence": 9.0, "kl_target": 1.0}, {"step": 1, "reward": 0.5}]) == ["kl-spike"]
    assert (
        GUARDS["kl-spike"].look(History([{"step": 0, "kl_sequence": 9.0, "kl_target": 1.0}, {"step": 1}]), DEFAULT)
        is None
    )


# -------------------------------------------------------------------------------------------------------- collapses


def test_entropy_collapse_is_certainty_that_is_wrong() -> None:
    falls = rise(1.0, 0.01)
    assert fired(rows(40, surprisal=falls, pass_rate=0.2)) == ["entropy-collapse"]
    assert fired(rows(40, surprisal=falls, pass_rate=rise(0.4, 0.97))) == []
    assert fired(rows(40, surprisal=rise(1.0, 0.2), pass_rate=0.2)) == []
    assert fired(rows(40, surprisal=0.0, pass_rate=0.2)) == []  # certain from the start


def test_entropy_collapse_does_not_believe_a_verifier_that_held_out_problems_refute() -> None:
    sure = rows(40, surprisal=rise(1.0, 0.01), pass_rate=0.97, reward=0.97, reward_std=0.1)
    assert fired(evaluated(sure, (0.3, 0.2, 0.1))) == ["entropy-collapse"]
    assert fired(evaluated(sure, (0.3, 0.6, 0.9))) == []


def test_mode_collapse_is_a_rise_of_openers_without_gain() -> None:
    assert fired(rows(20, opener=rise(0.1, 0.9), pass_rate=0.3, groups_sampled=32)) == ["mode-collapse"]
    assert fired(rows(20, opener=0.95, pass_rate=0.3, groups_sampled=32)) == []  # they all begin `\boxed{`
    learned = rows(20, opener=rise(0.1, 0.9), pass_rate=rise(0.1, 0.8), groups_sampled=32)
    assert fired(learned) == []
    assert fired(evaluated(learned, (0.3, 0.3, 0.3))) == ["mode-collapse"]  # what training pays for is not the task


@pytest.mark.parametrize(("end", "expected"), [(190.0, []), (260.0, ["length-drift"]), (30.0, ["length-drift"])])
def test_length_drift_is_a_factor_either_way_without_gain(end: float, expected: list[str]) -> None:
    assert fired(rows(20, length=rise(100.0, end), pass_rate=0.3, groups_sampled=32)) == expected
    assert fired(rows(20, length=rise(100.0, end), pass_rate=rise(0.3, 0.6), groups_sampled=32)) == []
    assert fired(rows(20, length=rise(100.0, end), pass_rate=0.3), GuardConfig(length_factor=9.0)) == []


def test_a_gain_is_no_gain_within_its_noise() -> None:
    drift = rows(20, length=rise(100.0, 300.0), pass_rate=rise(0.30, 0.34), groups_sampled=4)
    assert fired(drift) == ["length-drift"]
    assert fired([row | {"groups_sampled": 4000} for row in drift]) == []


# ----------------------------------------------------------------------------------------------- what is learned from


def test_small_group_is_measured() -> None:
    assert fired(rows(8, baseline_error=0.7)) == ["small-group"]
    assert fired(rows(8, baseline_error=0.35)) == []
    assert fired([*rows(8, baseline_error=0.3), {"step": 8, "baseline_error": 0.9}]) == []  # one step in five
    assert fired(rows(4, baseline_error=0.7)) == []  # too early to say


def test_reference_not_frozen_is_any_change() -> None:
    assert fired(rows(8, reference_fingerprint=123456789)) == []
    moved = [*rows(8, reference_fingerprint=123456789), {"step": 8, "reference_fingerprint": 123456790}]
    assert fired(moved) == ["reference-not-frozen"]


def test_a_fingerprint_is_of_values_and_sees_one_step_of_an_optimiser() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 40), nn.Linear(40, 3))
    known = fingerprint(model)
    assert known == fingerprint(model)
    assert 0 <= known < 2**48
    twin = nn.Sequential(nn.Linear(300, 40), nn.Linear(40, 3))
    assert fingerprint(twin) != known
    twin.load_state_dict(model.state_dict())
    assert fingerprint(twin) == known
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    assert fingerprint(model) != known
    assert fingerprint(nn.Module()) == fingerprint(nn.Module())


def test_a_fingerprint_leaves_adapters_out() -> None:
    model = nn.ParameterDict({"weight": torch.ones(3), "lora_A": torch.ones(3)})
    known = fingerprint(model)
    with torch.no_grad():
        model["lora_A"].mul_(2)
    assert fingerprint(model) == known
    with torch.no_grad():
        model["weight"].mul_(2)
    assert fingerprint(model) != known


# ------------------------------------------------------------------------------------------------------ reward models


def reward_rows(
    train: Sequence[float], accuracy: Sequence[float], loss: Sequence[float], pairs: int = 400
) -> list[Row]:
    """Validations every ten updates, each after a row of training."""
    found: list[Row] = []
    for n, (ours, theirs, lost) in enumerate(zip(train, accuracy, loss, strict=True)):
        found.append({"step": 10 * n + 9, "loss": lost, "train/accuracy": ours})
        validation = {"validation/accuracy": theirs, "validation/loss": lost, "validation/pairs": pairs}
        found.append({"step": 10 * n + 10, **validation})
    return found


def test_reward_model_overfitting_is_better_in_training_and_worse_in_validation() -> None:
    up, flat = (0.6, 0.8, 0.9, 0.95, 0.99), (0.5,) * 5
    assert fired(reward_rows(up, (0.6, 0.8, 0.82, 0.7, 0.6), flat)) == ["reward-model-overfitting"]
    assert fired(reward_rows(up, (0.6, 0.8, 0.82, 0.82, 0.81), (0.6, 0.4, 0.5, 0.6, 0.9))) == [
        "reward-model-overfitting"
    ]


@pytest.mark.parametrize(
    ("train", "accuracy", "loss", "pairs"),
    [
        ((0.6, 0.8, 0.9, 0.95, 0.99), (0.6, 0.8, 0.9, 0.95, 0.95), (0.6, 0.4, 0.2, 0.1, 0.1), 400),
        ((0.6, 0.8, 0.9, 0.95, 0.99), (0.6, 0.8, 0.9, 0.8, 0.8), (0.6, 0.4, 0.2, 0.2, 0.2), 20),  # within the noise
        ((0.6, 0.8, 0.9, 0.7, 0.5), (0.6, 0.8, 0.9, 0.7, 0.5), (0.5,) * 5, 400),  # training is worse too
        (
            (0.6, 0.8, 0.9, 0.95, 0.99),
            (0.6, 0.9, 0.98, 0.98, 0.98),
            (0.6, 0.1, 0.01, 0.02, 0.02),
            400,
        ),  # of nearly none
        ((0.6, 0.8, 0.9, 0.95, 0.99), (0.6, 0.8, 0.9, 0.9, 0.9), (0.6, 0.4, 0.2, 0.2, 0.4), 400),  # once
    ],
)
def test_reward_model_overfitting_is_silent_otherwise(
    train: Sequence[float], accuracy: Sequence[float], loss: Sequence[float], pairs: int
) -> None:
    assert fired(reward_rows(train, accuracy, loss, pairs)) == []


# ------------------------------------------------------------------------------------------------------ alignment tax


def test_alignment_tax_is_a_fall_beyond_its_noise_on_another_task() -> None:
    plain = rows(20, reward=0.5)
    assert fired(evaluated(plain, (0.8, 0.7, 0.5), task="json/")) == ["alignment-tax"]
    assert fired(evaluated(plain, (0.8, 0.7, 0.5), problems=8, task="json/")) == []
    assert fired(evaluated(plain, (0.8, 0.7, 0.9), task="json/")) == []
    assert fired(evaluated(plain, (0.8, 0.7, 0.5), task="json/"), GuardConfig(tax=0.4)) == []
    assert fired(evaluated(plain, (0.8, 0.7, 0.5), task="validation/")) == []


def test_alignment_tax_names_the_worst_task() -> None:
    both = [
        {"step": BEFORE, **evaluation(0.8, task="json/"), **evaluation(0.9, task="code/")},
        {"step": 9, **evaluation(0.5, task="json/"), **evaluation(0.2, task="code/")},
    ]
    (alarm,) = alarms(both)
    assert "`code` fell from 90.0% before training to 20.0%" in alarm.message
    assert alarm.value == pytest.approx(0.7)


# --------------------------------------------------------------------------------------------------------- the watch


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, "text", True])
def test_what_is_not_a_finite_number_was_not_measured(missing: Any) -> None:
    names = ("reward", "reward_std", "accuracy", "kl_sequence", "surprisal", "opener", "length", "baseline_error")
    odd = [{"step": step, **dict.fromkeys(names, missing)} for step in range(20)]
    assert fired(odd) == []
    assert History(odd).names == ["step"]
    mixed = [row | ({"baseline_error": missing} if row["step"] % 2 else {}) for row in rows(20, baseline_error=0.7)]
    assert fired(mixed) == ["small-group"]


@pytest.mark.parametrize("name", GUARDS)
def test_no_guard_minds_an_empty_history_or_a_first_row(name: str) -> None:
    assert GUARDS[name].look(History(), DEFAULT) is None
    everything = {"reward": 1.0, "reward_std": 0.0, "length": 0.0, "kl_sequence": 0.0, "surprisal": 0.0, "opener": 1.0}
    assert GUARDS[name].look(History([{"step": 0, **everything, **evaluation(0.5)}]), DEFAULT) is None


def test_an_alarm_comes_once_until_its_guard_was_quiet_for_a_while() -> None:
    def spike(step: int, kl: float) -> Row:
        return {"step": step, "kl_sequence": kl, "kl_target": 1.0}

    flickers = [spike(step, 9.0 if step % 2 else 0.5) for step in range(20)]
    assert fired(flickers) == ["kl-spike"]
    quiet = [spike(step, 0.5) for step in range(20, 20 + REARM)]
    assert fired([*flickers, *quiet, spike(40, 9.0)]) == ["kl-spike", "kl-spike"]
    assert fired([*flickers, *quiet[1:], spike(40, 9.0)]) == ["kl-spike"]


def test_a_resumed_run_says_nothing_twice_and_goes_on_counting() -> None:
    found = rows(12, length=rise(100.0, 400.0), pass_rate=0.3, baseline_error=0.7)
    whole = alarms(found)
    assert [alarm.guard for alarm in whole] == ["small-group", "length-drift"]
    for cut in range(len(found)):
        watch = Watch(DEFAULT)
        watch.recall(json.loads(json.dumps(found[:cut])))
        later = [alarm for row in found[cut:] for alarm in watch.look(row)]
        assert later == [alarm for alarm in whole if alarm.step >= cut]


def test_off_is_off() -> None:
    assert fired(rows(12, baseline_error=0.7), GuardConfig(action="off")) == []


def test_an_alarm_survives_json() -> None:
    (alarm,) = alarms(rows(8, baseline_error=0.7))
    assert Alarm(**json.loads(json.dumps(alarm.to_json()))) == alarm
    assert alarm.step == 4
    assert (alarm.value, alarm.limit) == (0.7, DEFAULT.baseline_error)
    assert str(alarm).splitlines()[0].startswith("guard small-group: ")


def test_every_guard_has_a_setting_that_there_is_and_a_row_in_the_guide() -> None:
    settings = {name.removeprefix("guards."): leaf for name, leaf in leaves().items() if name.startswith("guards.")}
    table = dict(re.findall(r"^\| `([\w-]+)` \| .* \| ([^|]*) \| [^|]* \|$", GUIDE.read_text(), re.M))
    assert table.keys() == GUARDS.keys()
    for guard in GUARDS.values():
        if guard.setting:
            assert f"`guards.{guard.setting}` {settings.pop(guard.setting).default:g}" in table[guard.name]
    assert set(settings) == {"action"}
