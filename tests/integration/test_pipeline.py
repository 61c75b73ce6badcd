"""A real chain: SFT, DPO and DAPO on the starter, killed in the middle of each, gone on with, and reported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rlvr.accuracy import Evaluation

RECIPE = """
name = "tiny"
task = "math"
model = "starter"
device = "cpu"

[eval]
limit = 24

[[stage]]
run = "sft"
limit = 96
steps = 30
lr = 1e-4
batch_size = 16
eval_every = 15
save_every = 5

[[stage]]
name = "dpo"
run = "prefer"
samples = 4
limit = 40
steps = 8
lr = 1e-5
batch_size = 8
eval_every = 4
save_every = 2

[[stage]]
name = "dapo"
run = "train"
steps = 2
save_every = 1
sampler = {prompts_per_step = 4, group_size = 4, max_tokens = 16}
scorer.workers = 1
"""
# `max_tokens` is not what the other stages measure with, so that the chain has to measure this one.


def start(folder: Path, *line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlvr", "pipeline", *line],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "RLVR_DISABLE_PLUGINS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(log: Path, text: str, process: subprocess.Popen[str]) -> None:
    """Until a stage has printed something."""
    deadline = time.monotonic() + 120
    while not (log.exists() and re.search(text, log.read_text(encoding="utf-8"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Killed in the first stage, interrupted in the second, then run to its end; its folder, and what the last said."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "recipe.toml").write_text(RECIPE)
    out = folder / "out"

    with start(folder, "recipe.toml", "--out", "out") as killed:
        wait_for(out / "01-sft.log", "update 10 ", killed)
        family = psutil.Process(killed.pid).children(recursive=True)
        killed.kill()
        killed.communicate(timeout=60)
    assert family
    deadline = time.monotonic() + 60
    while not all(map(ended, family)):
        assert time.monotonic() < deadline, "a stage is left behind"
        time.sleep(0.05)

    with start(folder, "--resume", "out") as interrupted:
        wait_for(out / "02-dpo.log", "update [1-9]", interrupted)
        interrupted.send_signal(signal.SIGINT)
        _, err = interrupted.communicate(timeout=120)
    assert interrupted.returncode == 130, err
    assert "stage 1/3 sft: rlvr sft, going on" in err
    state = json.loads((out / "pipeline.json").read_text())
    assert [stage["status"] for stage in state["stages"]] == ["done", "interrupted", "pending"]
    assert list((out / "02-dpo" / "checkpoints").iterdir())

    with start(folder, "--resume", "out") as last:
        _, err = last.communicate(timeout=240)
    assert last.returncode == 0, err
    return out, err


def test_it_goes_on_in_the_middle_of_a_stage_and_skips_what_is_done(chain: tuple[Path, str]) -> None:
    out, err = chain
    assert "stage 1/3 sft: done before" in err
    assert "stage 2/3 dpo: rlvr prefer, going on" in err
    assert "stage 3/3 dapo: rlvr train\n" in err
    starts = {
        name: len(json.loads((out / name / "environment.json").read_text())) for name in ("01-sft", "02-dpo", "03-dapo")
    }
    assert starts == {"01-sft": 2, "02-dpo": 2, "03-dapo": 1}


def test_a_resumed_stage_does_not_begin_at_its_beginning(chain: tuple[Path, str]) -> None:
    """The log of the second start has no first update."""
    out, _ = chain
    log = (out / "01-sft.log").read_text()
    first, second = log.index("update 1 "), log.rindex("held-out accuracy")
    assert log.count("update 1 ") == 1
    assert first < second


def test_models_are_handed_over(chain: tuple[Path, str]) -> None:
    out, _ = chain
    stages = json.loads((out / "pipeline.json").read_text())["stages"]
    assert [stage["settings"]["model"] for stage in stages] == [
        "starter",
        str(out / "01-sft/final"),
        str(out / "02-dpo/final"),
    ]
    weights = {(out / name / "final/model.safetensors").read_bytes() for name in ("01-sft", "02-dpo", "03-dapo")}
    assert len(weights) == 3


def test_accuracy_after_every_stage_is_of_the_same_problems(chain: tuple[Path, str]) -> None:
    """Also after the stage that measures otherwise by itself: there it is what `rlvr eval` says."""
    out, err = chain
    found = [
        Evaluation.from_json(stage["accuracy"]) for stage in json.loads((out / "pipeline.json").read_text())["stages"]
    ]
    assert {evaluation.problems for evaluation in found} == {24}
    for name, evaluation in zip(("sft", "dpo", "dapo"), found, strict=True):
        assert re.search(rf"after {name} +{re.escape(str(evaluation))}", err)
    assert json.loads((out / "03-dapo.eval.json").read_text())["accuracy"] == found[2].accuracy


def test_the_report_is_of_the_whole_chain(chain: tuple[Path, str]) -> None:
    out, _ = chain
    report = (out / "report.md").read_text()
    assert "3 of 3 stages done" in report
    for row in ("| sft | `rlvr sft` | done | starter |", "| dpo | `rlvr prefer --method dpo` | done | 01-sft/final |"):
        assert row in report
    assert "| dapo | `rlvr train --algorithm dapo` | done | 02-dpo/final |" in report
    assert "| 30 updates |" in report
    assert "torch " in report
    assert (out / "accuracy.png").is_file()
