"""Whole runs of several processes, launched as a user would: sampling, verifying, learning, checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SETTINGS = [
    *("--task", "math", "--sampler.prompts-per-step", "12", "--sampler.group-size", "4"),
    *("--eval.limit", "24", "--learner.lr", "1e-4", "--learner.schedule", "constant"),
    *("--keep-checkpoints", "5", "--scorer.workers", "1"),
]
SHORT = [*SETTINGS, "--steps", "5", "--save-every", "3"]


def launch(processes: int, *arguments: str) -> subprocess.Popen[str]:
    """`rlvr` in so many processes."""
    several = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    return subprocess.Popen(
        [sys.executable, *several, "-m", "rlvr", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def run(processes: int, *arguments: str) -> str:
    ran = launch(processes, *arguments)
    out, err = ran.communicate(timeout=300)
    assert ran.returncode == 0, err[-4000:]
    return out


def metrics(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def rollouts(path: Path) -> list[tuple[Any, ...]]:
    rows = [json.loads(line) for line in (path / "rollouts.jsonl").read_text().splitlines()]
    return [(r["step"], r["sample"], r["completion"], r["verdict"]["status"], r["learned_in"]) for r in rows]


def apart(a: Path, b: Path) -> float:
    """The largest difference of two runs' final weights."""
    ours, theirs = (load_file(path / "final" / "model.safetensors") for path in (a, b))
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    run(1, "train", *SHORT, "--out", str(path))
    return path


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_processes_make_the_run_of_one(alone: Path, tmp_path: Path, shard: str) -> None:
    path = tmp_path / "run"
    out = run(2, "train", *SHORT, "--learner.shard", shard, "--out", str(path))
    assert out.split() == [str(path)]  # once, though there are two
    assert apart(alone, path) <= 1e-5
    assert rollouts(path) == rollouts(alone)
    for ours, theirs in zip(metrics(path), metrics(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    results = [json.loads((p / "result.json").read_text()) for p in (path, alone)]
    assert results[0] == results[1]

    # And one process goes on where two were killed.
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000005")
    shutil.rmtree(copy / "final")
    run(1, "train", "--resume", str(copy))
    assert apart(alone, copy) <= 1e-5


def test_ctrl_c_stops_all_processes_together_with_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run"
    ran = launch(2, "train", *SETTINGS, "--steps", "500", "--save-every", "0", "--out", str(path))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path / "metrics.jsonl").is_file():
        time.sleep(0.1)
    while time.monotonic() < deadline and len((path / "metrics.jsonl").read_text().splitlines()) < 2:
        time.sleep(0.1)
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=60)
    assert ran.returncode != 0
    (checkpoint,) = (path / "checkpoints").glob("step-*")
    assert (checkpoint / "manifest.json").is_file(), err[-4000:]
