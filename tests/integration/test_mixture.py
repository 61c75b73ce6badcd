"""Runs of several tasks and with a curriculum, on the starter: each task by its own verifier, all of it repeatable."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr.cli import main
from rlvr.config import flatten
from rlvr.registry import registry
from rlvr.rollout import State


def settings(out: Path, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "task": "math:0.75,json:0.25",
        "device": "cpu",
        "steps": 2,
        "out": str(out),
        "sampler": {"group_size": 8, "prompts_per_step": 8, "max_tokens": 24, "dynamic": False},
        "learner": {"schedule": "constant", "lr": 4e-4},
        "scorer": {"workers": 2},
        "eval": {"limit": 20},
    }
    for name, value in changes.items():
        base[name] = base.get(name, {}) | value if isinstance(value, dict) else value
    return base


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def test_each_task_is_verified_counted_and_measured_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rlvr.train(**settings(tmp_path / "run", eval={"every": 1}))
    rows, steps = run.rollouts(), run.metrics()
    ids = {name: {s.id for s in registry().task(name).load("train")} for name in ("math", "json")}
    for step in steps:
        mine = [row for row in rows if row["step"] == step["step"]]
        assert Counter(row["task"] for row in mine) == {"math": 48, "json": 16}
        for task in ids:
            own = [row for row in mine if row["task"] == task]
            assert {row["sample"] for row in own} <= ids[task]
            passed = sum(row["verdict"]["status"] == "passed" for row in own)
            assert step[f"{task}/pass_rate"] == pytest.approx(passed / len(own))
            assert step[f"{task}/reward"] == pytest.approx(sum(row["reward"] for row in own) / len(own))
            assert step[f"{task}/length"] == pytest.approx(sum(row["completion_tokens"] for row in own) / len(own))
            assert step[f"{task}/missing"] == 0
            assert step[f"{task}/groups"] == len(own) / 8
        assert step["pass_rate"] == pytest.approx(0.75 * step["math/pass_rate"] + 0.25 * step["json/pass_rate"])
        assert step["accuracy"] == pytest.approx((step["math/accuracy"] + step["json/accuracy"]) / 2)
    assert any("JSON" in row["verdict"]["detail"] for row in rows if row["task"] == "json")
    assert not any("JSON" in row["verdict"]["detail"] for row in rows if row["task"] == "math")
    for found in (run.before, run.after):
        assert found is not None
        assert found.problems == 40
        assert {task: own.problems for task, own in found.tasks.items()} == {"math": 20, "json": 20}
        assert found.accuracy == pytest.approx(sum(own.accuracy for own in found.tasks.values()) / 2)
    said = capsys.readouterr().err
    assert "warning: `model` is `starter`, the default of math; it is `starter-json` for json" in said
    assert said.count("\n  math  ") == said.count("\n  json  ") == 3


def test_the_tasks_of_a_mixture_do_what_they_do_alone(tmp_path: Path) -> None:
    """The first prompts of a task are the same in a mixture as in a run of its own."""
    mixed = rlvr.train(**settings(tmp_path / "mixed", steps=1))
    alone = rlvr.train(**settings(tmp_path / "alone", task="math", steps=1))
    ours = list(dict.fromkeys(row["sample"] for row in mixed.rollouts() if row["task"] == "math"))
    theirs = list(dict.fromkeys(row["sample"] for row in alone.rollouts()))
    assert ours == theirs[: len(ours)]
    assert not any("task" in row for row in alone.rollouts())
    assert not any("/" in name for row in untimed(alone.metrics()) for name in row)
    assert alone.before is not None
    assert alone.before.tasks == {}


def test_the_verifiers_of_all_tasks_are_tried_before_the_first_step(tmp_path: Path) -> None:
    lax = (
        "from rlvr import Sample, Task, hookimpl, verifier\n\n"
        "@verifier('lax')\ndef lax(completion, sample):\n    return True\n\n"
        "def load(split):\n    return [Sample(str(i), f'{i}?', str(i)) for i in range(9)]\n\n"
        "@hookimpl\ndef rlvr_verifiers():\n    return [lax]\n\n"
        "@hookimpl\ndef rlvr_tasks():\n    return [Task('lax', 'lax', load)]\n"
    )
    (tmp_path / "lax.py").write_text(lax)
    with pytest.raises(rlvr.RunStopped, match="the task `lax` does not pass its pre-flight"):
        rlvr.train(**settings(tmp_path / "run", task="math,lax", plugin=[str(tmp_path / "lax.py")]))


@pytest.fixture
def few(tmp_path: Path) -> dict[str, Any]:
    """A dozen sums, most of which are soon known to be solved always or never."""
    rows = "".join(f"What is {a} + {b}?,{a + b}\n" for a in (2, 31, 58) for b in (3, 14, 47, 86))
    (tmp_path / "few.csv").write_text("q,a\n" + rows)
    (tmp_path / "few.toml").write_text(
        'name = "few"\nprompt = "{{q}}"\nverifier = "math"\n[data]\npath = "few.csv"\nanswer = "a"\n'
    )
    return {
        "task": f"{tmp_path / 'few.toml'}:0.8,json:0.2",
        "model": "starter",
        "preflight": False,
        "curriculum": {"skip": 0.9, "memory": 0.8},
        "steps": 6,
    }


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_curriculum_passes_over_prompts_and_resumes_exactly(
    tmp_path: Path, few: dict[str, Any], dynamic: bool
) -> None:
    few["sampler"] = {"dynamic": dynamic}
    whole = rlvr.train(**settings(tmp_path / "whole", **few))
    half = tmp_path / "half"
    rlvr.train(**settings(half, **few | {"steps": 3}))
    resumed = rlvr.train(resume=half, steps=6)
    assert untimed(resumed.metrics()) == untimed(whole.metrics())
    assert [(row["step"], row["sample"], row["completion"]) for row in resumed.rollouts()] == [
        (row["step"], row["sample"], row["completion"]) for row in whole.rollouts()
    ]
    skipped = [row["skipped"] for row in whole.metrics()]
    assert skipped[0] == 0
    assert 0 < skipped[-1] < 0.9

    state = State.from_json(json.loads((whole.checkpoints()[-1] / "state.json").read_text()))
    rows = whole.rollouts()
    assert set(state.evidence) == {f"{row['task']}/{row['sample']}" for row in rows}
    assert state.position > len(rows) // 8
    assert state.evidence[next(key for key in state.evidence if key.startswith("json/"))][0] == 0


def test_an_evaluation_shows_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", "--task", "math,json", "--model", "starter", "--device", "cpu", "--limit", "10"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "math,json, 20 problems of the test split" in out
    assert "\ntask     math, 10 problems of the test split" in out
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "math,json"
    assert {task: own["problems"] for task, own in found["tasks"].items()} == {"math": 10, "json": 10}
    assert flatten(found["tasks"])["json.accuracy"] == 0
