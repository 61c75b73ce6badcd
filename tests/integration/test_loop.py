"""The loop on the starter model: what a run leaves behind, what it survives, and that it can be repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rlvr
from rlvr.errors import ConfigError, DataError, RunStopped

PLUGIN = Path(__file__).parents[1] / "plugins" / "troubled.py"
GROUP, PROMPTS = 8, 8


def settings(out: Path, **changes: Any) -> dict[str, Any]:
    """A run of two small steps on the starter."""
    base: dict[str, Any] = {
        "task": "math",
        "model": "starter",
        "device": "cpu",
        "steps": 2,
        "out": str(out),
        "sampler": {"group_size": GROUP, "prompts_per_step": PROMPTS, "max_tokens": 24, "dynamic": False},
        "scorer": {"workers": 2},
        "eval": {"limit": 40},
    }
    for name, value in changes.items():
        base[name] = base.get(name, {}) | value if isinstance(value, dict) else value
    return base


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what a clock measured."""
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def weights(run: rlvr.Run) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


def in_trouble(text: str) -> bool:
    """Whether the verifier of the plugin fails on this completion."""
    return zlib.crc32(text.encode()) % 8 == 0


def same_weights(a: rlvr.Run, b: rlvr.Run) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("trouble", "status", "reason"),
    [
        ("sleep", "timeout", "clock"),
        ("raise", "error", "no reason"),
        ("exit", "error", "exit"),
        ("memory", "error", "memory"),
        ("nan", "error", "nan"),
    ],
)
def test_a_verifier_in_trouble_costs_rows_not_the_step(tmp_path: Path, trouble: str, status: str, reason: str) -> None:
    run = rlvr.train(
        **settings(
            tmp_path / "run",
            task=f"troubled-{trouble}",
            plugin=[str(PLUGIN)],
            preflight=False,
            steps=1,
            scorer={"timeout": 0.3 if trouble == "sleep" else 10.0, "memory_mb": 512, "missing_limit": 1.0},
        )
    )
    rows = run.rollouts()
    assert len(rows) == GROUP * PROMPTS
    bad = [row for row in rows if in_trouble(row["completion"])]
    good = [row for row in rows if not in_trouble(row["completion"])]
    assert bad
    assert good
    assert {row["verdict"]["status"] for row in bad} == {status}
    assert all(reason in row["verdict"]["detail"].lower() for row in bad), bad[0]["verdict"]
    assert all(row["reward"] is None and row["advantage"] is None for row in bad)
    assert {row["verdict"]["status"] for row in good} <= {"passed", "failed"}
    assert all(row["advantage"] is not None for row in good)
    (step,) = run.metrics()
    assert step["missing"] == pytest.approx(len(bad) / len(rows))
    assert step[f"missing/{status}"] == step["missing"]


def test_too_many_missing_verdicts_stop_the_run_with_the_reason(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunStopped) as stopped:
        rlvr.train(
            **settings(
                out,
                task="troubled-raise",
                plugin=[str(PLUGIN)],
                preflight=False,
                steps=1,
                scorer={"missing_limit": 0.01},
            )
        )
    assert "are missing, the limit is 1%" in stopped.value.message
    assert "no reason" in stopped.value.message
    assert [folder.name for folder in rlvr.Run(out).checkpoints()] == ["step-000000"]
    assert not rlvr.Run(out).model.exists()


def test_a_verifier_that_never_gives_a_verdict_stops_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="the judge is out"):
        rlvr.train(**settings(tmp_path / "run", task="troubled-always", plugin=[str(PLUGIN)], preflight=False))


@pytest.mark.parametrize("dynamic", [False, True])
def test_rollouts_account_for_every_completion(tmp_path: Path, dynamic: bool) -> None:
    run = rlvr.train(**settings(tmp_path / "run", steps=3, sampler={"dynamic": dynamic}))
    rows, steps = run.rollouts(), run.metrics()
    assert [step["step"] for step in steps] == [0, 1, 2]
    for step in steps:
        mine = [row for row in rows if row["step"] == step["step"]]
        assert len(mine) == step["completions"] == step["groups_sampled"] * GROUP
        groups: dict[int, list[dict[str, Any]]] = {}
        for row in mine:
            groups.setdefault(row["group"], []).append(row)
        for group in groups.values():
            assert len(group) == GROUP
            assert len({row["sample"] for row in group}) == 1
            rewards = [row["reward"] for row in group]
            if len(set(rewards)) > 1:
                assert sum(row["advantage"] for row in group) == pytest.approx(0, abs=1e-9)
            else:
                assert {row["advantage"] for row in group} == {0.0}
        assert step["pass_rate"] == pytest.approx(sum(row["verdict"]["status"] == "passed" for row in mine) / len(mine))
        if dynamic:
            carried = step["groups_carried"]
            assert step["groups"] <= PROMPTS
            assert step["groups"] == PROMPTS or (step["rounds"] == 4 and carried == 0)
        else:
            assert (step["groups"], step["groups_sampled"], step["rounds"]) == (PROMPTS, PROMPTS, 1)
    for row in rows:
        assert row["verdict"]["detail"]
        assert 1 <= row["completion_tokens"] <= 24
        assert row["finish_reason"] in ("stop", "length")


def test_one_seed_gives_one_run_and_another_seed_another(tmp_path: Path) -> None:
    first = rlvr.train(**settings(tmp_path / "a", sampler={"dynamic": True}))
    again = rlvr.train(**settings(tmp_path / "b", sampler={"dynamic": True}, scorer={"workers": 1}))
    other = rlvr.train(**settings(tmp_path / "c", sampler={"dynamic": True}, seed=1))
    assert untimed(first.metrics()) == untimed(again.metrics())
    assert same_weights(first, again)
    assert first.after == again.after
    assert untimed(first.metrics()) != untimed(other.metrics())
    assert not same_weights(first, other)


def test_resuming_equals_never_having_stopped(tmp_path: Path) -> None:
    same: dict[str, Any] = {"sampler": {"dynamic": True}, "learner": {"schedule": "constant"}}
    whole = rlvr.train(**settings(tmp_path / "whole", steps=4, **same))
    half = tmp_path / "half"
    rlvr.train(**settings(half, steps=2, **same))
    with (half / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 2, "reward": 9')  # a later step that was cut off
    resumed = rlvr.train(resume=half, steps=4)
    assert untimed(resumed.metrics()) == untimed(whole.metrics())
    assert [(r["step"], r["completion"]) for r in resumed.rollouts()] == [
        (r["step"], r["completion"]) for r in whole.rollouts()
    ]
    assert same_weights(resumed, whole)


def test_a_run_directory_is_complete(tmp_path: Path) -> None:
    run = rlvr.train(**settings(tmp_path / "run", save_every=1, keep_checkpoints=2, steps=3))
    assert {path.name for path in run.path.iterdir()} == {
        "checkpoints",
        "config.toml",
        "environment.json",
        "final",
        "guards.jsonl",
        "metrics.jsonl",
        "result.json",
        "rollouts.jsonl",
    }
    assert [folder.name for folder in run.checkpoints()] == ["step-000002", "step-000003"]
    (environment,) = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["device"] == "cpu"
    assert "learner.lr" not in (run.path / "config.toml").read_text().split("[learner]")[0]
    assert run.before is not None
    assert run.after is not None
    assert run.accuracy == run.after.accuracy
    assert run.before.low <= run.before.accuracy <= run.before.high
    again = rlvr.train(**settings(tmp_path / "next", model=str(run.model), steps=1))
    assert again.before == run.after


def test_the_starter_learns(tmp_path: Path) -> None:
    run = rlvr.train(task="math", steps=10, device="cpu", out=str(tmp_path / "run"), sampler={"prompts_per_step": 32})
    assert run.before is not None
    assert run.accuracy is not None
    assert run.accuracy >= run.before.accuracy + 0.2


def test_resuming_takes_new_rates_but_keeps_what_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "run"
    rlvr.train(**settings(out, learner={"lr": 1e-3, "schedule": "constant", "warmup_steps": 0}))
    resumed = rlvr.train(resume=out, steps=4, learner={"lr": 1e-5})
    assert [row["lr"] for row in resumed.metrics()] == [1e-3, 1e-3, 1e-5, 1e-5]
    assert len(json.loads((out / "environment.json").read_text())) == 2
    for fixed in ({"task": "gsm8k"}, {"eval": {"limit": 3}}, {"seed": 4}):
        with pytest.raises(ConfigError, match="a resumed run keeps its"):
            rlvr.train(resume=out, steps=5, **fixed)


def test_a_prompt_that_cannot_fit_is_named_before_the_first_step(tmp_path: Path) -> None:
    rows = [
        {"q": "What is 1 + 1?", "a": "2"},
        {"q": "What is 1 + 2? " * 40, "a": "3"},
        {"q": "What is 2 + 2?", "a": "4"},
    ]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(rows))
    )
    task = 'name = "long"\nverifier = "math"\nprompt = "{{q}}"\n[data]\npath = "rows.jsonl"\nanswer = "a"\nid = "id"\n'
    (tmp_path / "long.toml").write_text(task)
    with pytest.raises(DataError, match="sample `1` has"):
        rlvr.train(**settings(tmp_path / "run", task=str(tmp_path / "long.toml")))
    assert not (tmp_path / "run").exists()


def test_whatever_goes_wrong_between_updates_leaves_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    troubled = {"task": "troubled-raise", "plugin": [str(PLUGIN)], "preflight": False}
    with pytest.raises(ValueError, match="not today"):
        rlvr.train(**settings(out, **troubled, reward={"shaper": "moody"}))
    assert [folder.name for folder in rlvr.Run(out).checkpoints()] == ["step-000000"]


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        rlvr.train(**settings(tmp_path / "run"))


def test_grpo_learns_with_a_reference_and_overlong_rules(tmp_path: Path) -> None:
    run = rlvr.train(
        **settings(
            tmp_path / "run",
            algorithm="grpo",
            learner={"kl_coef": 0.1, "lr": 1e-3, "warmup_steps": 0},
            reward={"overlong": "filter"},
            sampler={"max_tokens": 8},
        )
    )
    truncated = [row for row in run.rollouts() if row["finish_reason"] == "length"]
    assert truncated
    assert all(row["reward"] is None and row["advantage"] is None for row in truncated)
    assert run.metrics()[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert run.metrics()[1]["kl"] > 0


def test_ctrl_c_writes_a_checkpoint_and_exits_130(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rlvr", "train", "--model", "starter", "--out", str(out), "--steps", "500"]
    process = subprocess.Popen(
        [*command, "--eval.limit", "20"], stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    try:
        deadline = time.monotonic() + 60
        while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= 2):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume" in errors
    done = len(rlvr.Run(out).metrics())
    assert [int(folder.name[-6:]) for folder in rlvr.Run(out).checkpoints()][-1] == done
    resumed = rlvr.train(resume=out, steps=done + 1)
    assert [row["step"] for row in resumed.metrics()] == list(range(done + 1))
    assert resumed.accuracy is not None
