"""The learner's losses against TRL's `GRPOTrainer`: the same rows, the same loss, the same gradient.

`benchmarks/parity.py` has the two sides, and says how they are fed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import parity  # type: ignore[import-not-found]

CASES = {case.name: case for case in parity.CASES}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices are tiny; what accelerate keeps for the process is forgotten afterwards."""
    import torch
    from accelerate.state import AcceleratorState

    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def check(found: Any) -> None:
    """Equal to 1e-5, in itself and for its size."""
    assert found.ours.gradient.keys() == found.theirs.gradient.keys()
    assert found.scale > 0.1
    assert found.gradient <= parity.TOLERANCE * min(1.0, found.scale)
    assert found.loss <= parity.TOLERANCE * min(1.0, abs(found.theirs.loss))


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_trl(name: str) -> None:
    found = parity.compare(CASES[name])
    check(found)
    assert 0.05 < found.theirs.clipped < 0.8
    assert 0.05 < found.ours.clipped < 0.8


@pytest.mark.parametrize("name", ["grpo, KL", "dapo, tool calls", "dr_grpo", "cispo", "gspo"])
def test_so_they_are_in_many_micro_batches(name: str) -> None:
    check(parity.compare(CASES[name], micro_batch_tokens=40))


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo", "cispo", "gspo"])
def test_another_bound_is_noticed(name: str) -> None:
    found = parity.compare(CASES[name], clip_high=0.1)
    assert found.gradient > 1e-3


def test_as_many_tokens_are_clipped() -> None:
    """With a reference no row is left out, whatever its advantage."""
    found = parity.compare(CASES["dapo, KL"])
    assert found.ours.clipped == pytest.approx(found.theirs.clipped, abs=1e-6)


def test_trl_estimates_the_kl_otherwise_by_default() -> None:
    """It weighs it by the ratio, with a gradient through the ratio; `use_bias_correction_kl`."""
    case = CASES["dapo, KL"]
    settings = {name: value for name, value in case.trl.items() if name != "use_bias_correction_kl"}
    found = parity.compare(parity.Case("dapo, KL", settings, case.ours))
    assert found.gradient > 0.1
