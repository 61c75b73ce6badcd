"""A run that is killed goes on as if it had not been: kill -9 at any moment, and checkpoints that are damaged."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

import rlvr

STEPS, KILLS = 40, 10
COMMAND = [
    "train", "--task", "math", "--model", "starter", "--device", "cpu", "--steps", str(STEPS), "--save-every", "3",
    "--sampler.prompts-per-step", "2", "--sampler.group-size", "4", "--sampler.max-tokens", "12",
    "--scorer.workers", "1", "--eval.limit", "8", "--eval.every", "9", "--learner.lr", "1e-3",
]  # fmt: skip

NURSERY = """
import json, os, signal, sys
import torch, transformers.models.qwen2.modeling_qwen2, rlvr.loop
from rlvr.cli import main

def die_at(number, folder):
    # SIGKILL from within, just before a file operation by which a checkpoint is written or an old one goes.
    left = number
    def hook(event, args):
        nonlocal left
        if event in ("open", "os.mkdir", "os.rename", "shutil.rmtree") and folder in str(args[0]):
            left -= event != "open" or ".writing" in args[0]
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if not pid:
        os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        if order["die_at"] is not None:
            die_at(order["die_at"], order["folder"])
        code = 1
        try:
            sys.exit(main(order["args"]))
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """Starts `rlvr` in forks of a process that has imported it, which saves the seconds that this takes."""

    def __init__(self, base: Path) -> None:
        self.log = base / "stderr"
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def start(self, args: list[str], folder: Path, die_at: int | None = None) -> psutil.Process:
        """Begins `rlvr ARGS`; with `die_at`, it kills itself before that many file operations in `folder`."""
        order = {"args": args, "log": str(self.log), "folder": str(folder), "die_at": die_at}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return psutil.Process(int(self._line()))

    def wait(self) -> int:
        """The exit code of what was started last."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        clock = threading.Timer(120, self._kill)
        clock.start()
        line = self._process.stdout.readline()
        clock.cancel()
        assert line, self.log.read_text()
        return line

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._kill()
        self._process.communicate()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path)
    try:
        yield nursery
    finally:
        nursery.close()


def follow(process: psutil.Process, path: Path, start: int, lines: int, delay: float) -> list[psutil.Process]:
    """Kills a run `delay` seconds after its start number `start` has logged so many steps, unless it dies before;
    returns the processes that it had started."""
    started: dict[int, psutil.Process] = {}
    due = None
    with contextlib.suppress(psutil.NoSuchProcess):
        while True:
            started |= {child.pid: child for child in process.children(recursive=True)}
            now = time.monotonic()
            if due is None and starts(path) == start and len(rlvr.Run(path).metrics()) >= lines:
                due = now + delay
            if due is not None and now >= due:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
    return list(started.values())


def starts(path: Path) -> int:
    """How often a run has been started or gone on."""
    file = path / "environment.json"
    return len(json.loads(file.read_text())) if (path / "metrics.jsonl").is_file() else 0


def story(path: Path) -> dict[str, Any]:
    """All that a run left behind, but for what a clock measured."""
    run = rlvr.Run(path)
    last = run.checkpoints()[-1]
    rollouts, state = run.rollouts(), json.loads((last / "state.json").read_text())
    for verdict in [row["verdict"] for row in rollouts] + [v for g in state["surplus"] for v in g["verdicts"]]:
        del verdict["duration"]
    return {
        "metrics": [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()],
        "rollouts": rollouts,
        "accuracy": (run.before, run.after),
        "checkpoints": [folder.name for folder in run.checkpoints()],
        "state": state,
        "learner": (last / "learner" / "state.json").read_text(),
        "moments": {k: v.tolist() for k, v in load_file(last / "learner" / "rank-0.safetensors").items()},
        "weights": {k: v.tolist() for k, v in load_file(run.model / "model.safetensors").items()},
        "files": sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()),
    }


def test_a_run_killed_ten_times_ends_as_one_that_was_not(tmp_path: Path, nursery: Nursery) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    nursery.start([*COMMAND, "--out", str(whole)], whole)
    assert nursery.wait() == 0, nursery.log.read_text()
    took = sorted(row["time/step"] for row in rlvr.Run(whole).metrics())[STEPS // 2]

    rng = random.Random(7)
    moments = sorted(rng.sample(range(STEPS - 6), KILLS))
    args = [*COMMAND, "--out", str(killed)]
    unfinished = 0
    for number, lines in enumerate(moments):
        # Every other time it dies while it writes a checkpoint or deletes one, else at any time.
        die_at = rng.randrange(60) if number % 2 else None
        process = nursery.start(args, killed / "checkpoints", die_at)
        lines, delay = (STEPS, 60.0) if number % 2 else (lines, rng.uniform(0, 2 * took))
        started = follow(process, killed, number + 1, lines, delay)
        assert nursery.wait() == -signal.SIGKILL, nursery.log.read_text()
        assert started  # the scorer's worker at least
        assert not psutil.wait_procs(started, timeout=10)[1]  # none outlives the run
        unfinished += any((killed / "checkpoints").glob(".*"))
        args = ["train", "--resume", str(killed)]
    assert unfinished >= 3
    nursery.start(args, killed)
    assert nursery.wait() == 0, nursery.log.read_text()
    assert starts(killed) == KILLS + 1

    expected, found = story(whole), story(killed)
    for part in expected:
        assert found[part] == expected[part], part
    assert not list(killed.rglob(".*"))
    assert "warning" not in nursery.log.read_text().replace("warning: groups of 4", "")


# ------------------------------------------------------------------------------------------------ damage and change

PLUGIN = """
from rlvr import Task, hookimpl, verifier
from rlvr.registry import registry

@verifier("strict-math")
def strict_math(completion, sample):
    return registry().verifier("math").fn(completion, sample)

@hookimpl
def rlvr_verifiers():
    return [strict_math]
"""


def small(out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "task": "math",
        "model": "starter",
        "device": "cpu",
        "steps": 4,
        "save_every": 1,
        "out": str(out),
        "sampler": {"group_size": 8, "prompts_per_step": 2, "max_tokens": 12},
        "scorer": {"workers": 1},
        "eval": {"limit": 8},
    } | changes


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    rlvr.train(**small(out, keep_checkpoints=3))
    expected = story(out)
    shutil.rmtree(out / "final")
    last = out / "checkpoints" / "step-000004"
    flipped = bytearray((last / "learner" / "rank-0.safetensors").read_bytes())
    flipped[-5] ^= 1
    (last / "learner" / "rank-0.safetensors").write_bytes(flipped)
    (out / "checkpoints" / "step-000003" / "manifest.json").unlink()
    capsys.readouterr()
    rlvr.train(resume=out)
    said = capsys.readouterr().err
    assert (
        "warning: `step-000004` cannot be used: `learner/rank-0.safetensors` has another checksum\n"
        "hint: going on from `step-000002`\n"
        "warning: `step-000003` cannot be used: it has no `manifest.json`\n"
    ) in said
    assert "going on after step 2" in said
    put_aside = {str(path.relative_to(out)) for path in out.glob("checkpoints/damaged-*/**/*") if path.is_file()}
    assert put_aside
    found = story(out) | {"files": [file for file in story(out)["files"] if file not in put_aside]}
    assert found == expected


def test_a_run_whose_checkpoints_are_all_damaged_says_so_and_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    rlvr.train(**small(out, steps=1))
    (out / "checkpoints" / "step-000001" / "state.json").write_text("{}")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(rlvr.DataError, match=r"`step-000001`: `state\.json` has 2 bytes, not"):
        rlvr.train(resume=out, steps=2)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_verifier_that_has_changed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "strict.py"
    plugin.write_text(PLUGIN)
    out = tmp_path / "run"
    rlvr.train(**small(out, steps=1, plugin=[str(plugin)]))
    rlvr.train(resume=out, steps=2)
    assert "warning: " not in capsys.readouterr().err
    manifest = out / "checkpoints" / "step-000002" / "manifest.json"
    facts = json.loads(manifest.read_text())
    assert set(facts["provenance"]) == {"task `math`", "the judge of `math`", "verifier `math`", "plugin `strict.py`"}
    facts["provenance"]["task `math`"] = "version 0"
    manifest.write_text(json.dumps(facts))
    rlvr.train(resume=out, steps=3)
    said = capsys.readouterr().err
    assert (
        "warning: task `math` was version 0, and is version 1\nhint: rewards from here on may not compare\n"
    ) in said
