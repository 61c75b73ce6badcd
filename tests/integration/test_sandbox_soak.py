"""Hundreds of executions in a row, some of them hostile, leave nothing behind. See `benchmarks/sandbox_soak.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import sandbox_soak  # type: ignore[import-not-found]


@pytest.mark.usefixtures("needs_docker")
def test_hundreds_of_executions_leave_nothing_behind() -> None:
    found = sandbox_soak.soak(count=400, workers=2, hostile=0.05)
    assert found.held(), "\n".join(sandbox_soak.report(found))
    statuses = found.statuses
    assert sum(statuses.values()) == 400
    assert sum(count for (kind, _), count in statuses.items() if kind == "hostile") >= 10
