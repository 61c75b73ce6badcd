"""A training step in which one completion in ten attacks the `math` verifier."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr.sampler.transformers import TransformersSampler

ROWS = Path(__file__).parents[1] / "corpora" / "math" / "adversarial.jsonl"
CLOCK = 5.0
EVERY = 10


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Has the sampler put an attack in the place of every tenth completion; which ones it did."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    hangs = [row["prediction"] for row in rows if "hang" in row.get("tags", ()) and not row["expected"]]
    others = [row["prediction"] for row in rows if not row["expected"]]
    attacks = [text if "\\boxed" in text else f"\\boxed{{{text}}}" for text in hangs[:60] + others[:40]]
    used: set[str] = set()
    genuine = TransformersSampler.sample

    def sample(self: TransformersSampler, *arguments: Any) -> Iterator[tuple[int, rlvr.Completion]]:
        for number, (index, completion) in enumerate(genuine(self, *arguments)):
            if number % EVERY == 0:
                text = attacks[len(used) % len(attacks)]
                used.add(text)
                completion = replace(completion, text=text)
            yield index, completion

    monkeypatch.setattr(TransformersSampler, "sample", sample)
    return used


def test_a_step_under_attack_keeps_to_the_clock_and_says_why(tmp_path: Path, attacked: set[str]) -> None:
    start = time.monotonic()
    run = rlvr.train(
        task="math",
        model="starter",
        device="cpu",
        steps=2,
        out=str(tmp_path / "run"),
        sampler={"group_size": 16, "prompts_per_step": 16, "max_tokens": 24, "dynamic": False},
        scorer={"workers": 2, "timeout": CLOCK},
        eval={"limit": 20},
    )
    taken = time.monotonic() - start
    rows, steps = run.rollouts(), run.metrics()
    hostile = [row for row in rows if row["completion"] in attacked]
    assert len(hostile) == pytest.approx(len(rows) / EVERY, abs=2)
    for row in hostile:
        verdict = row["verdict"]
        assert verdict["status"] == "failed", verdict
        assert row["advantage"] is not None
        assert verdict["duration"] < CLOCK / 5, verdict
        assert "answer" in verdict["detail"] or "does not equal" in verdict["detail"], verdict["detail"]
    assert all(step["missing"] == 0 for step in steps)
    assert sum(step["time/step"] for step in steps) < CLOCK
    assert taken < 60
