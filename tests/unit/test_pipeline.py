"""`rlvr pipeline`: what a recipe may say, what is handed over, and what is done, skipped, gone on with or refused.

Stages are played by a small script in place of `rlvr`, which `launch` names; `tests/integration/test_pipeline.py` runs
real ones.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from rlvr_tasks.math import math
from rlvr_tasks.math_lessons import conversations

from rlvr.cli import main
from rlvr.pipeline.chain import lock
from rlvr.pipeline.recipe import plan, read_recipe
from rlvr.registry import registry

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"

PLAYER = '''
"""Plays a stage: writes what one writes, and does as `orders.json` says."""
import json, os, signal, sys, time
from pathlib import Path

run, how, where = sys.argv[1], sys.argv[2], Path(sys.argv[-1])
here = Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(f"{run} {how} {where.name}\\n")
orders = json.loads((here / "orders.json").read_text()).get(where.name, {})
where.mkdir(parents=True, exist_ok=True)
if orders.get("begins", True):
    (where / "config.toml").write_text("")
print("playing", where.name, file=sys.stderr)
if "sleep" in orders:
    def stop(number, frame):
        with (here / "signals").open("a") as signals:
            signals.write(f"{number}\\n")
        if number == signal.SIGTERM:
            time.sleep(orders.get("linger", 0))
        sys.exit(130)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    (here / "pid").write_text(str(os.getpid()))
    time.sleep(orders["sleep"])
if orders.get("exit"):
    sys.exit(orders["exit"])
(where / "final").mkdir(exist_ok=True)
(where / "final" / "model.safetensors").write_text(where.name)
share = {"low": 0.0, "high": 1.0, "problems": 10, "samples": 1, "missing": 0, "pass_at": {}, "tasks": {}}
if run != "reward":
    before, after = orders.get("accuracy", (0.25, 0.5))
    found = {"before": {"accuracy": before, **share}, "after": {"accuracy": after, **share}}
    (where / "result.json").write_text(json.dumps(found))
(where / "metrics.jsonl").write_text(json.dumps({"step": 6, "loss": 1.0}) + "\\n")
(where / "data.json").write_text(json.dumps({"rows": 12, "used": 10, "bad": {"too-long": 2}}))
if orders.get("guard"):
    alarm = {"guard": "kl-spike", "step": 3, "message": "KL is 9", "hint": "lower it", "value": 9.0, "limit": 1.0}
    (where / "guards.jsonl").write_text(json.dumps(alarm) + "\\n")
'''

RECIPE = """
name = "chain"
task = "math"
model = "starter"
launch = ["{python}", "player.py"]

[[stage]]
run = "sft"
lr = 1e-3

[[stage]]
name = "dpo"
run = "prefer"
data = "pairs.jsonl"

[[stage]]
run = "train"
steps = 4
learner.lr = 1e-4
"""


@pytest.fixture
def stage_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the player, its orders, a recipe and a file of pairs; the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "player.py").write_text(PLAYER)
    (tmp_path / "orders.json").write_text("{}")
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    (tmp_path / "recipe.toml").write_text(RECIPE.format(python=sys.executable))
    return tmp_path


def calls(folder: Path) -> list[str]:
    """What was played so far, and forgets it."""
    file = folder / "calls"
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "pipeline.json").read_text())
    return found


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# ------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not toml", "is not TOML"),
        ('task = "math"', "has no stages"),
        ('[stage]\nrun = "sft"', "has no stages"),
        ('[[stage]]\nname = "a"', "stage 1 of"),
        ('[[stage]]\nrun = "stf"', "did you mean `sft`?"),
        ('[[stage]]\nrun = "sft"\n[[stage]]\nrun = "sft"', "two stages named `sft`"),
        ('[[stage]]\nrun = "sft"\nname = "../up"', "letters, digits"),
        ('[[stage]]\nrun = "sft"\nlaunch = "torchrun"', "must be a list of texts"),
        ('[[stage]]\nrun = "sft"\nout = "x"', "has an `out`"),
        ('data = "x"\n[[stage]]\nrun = "sft"', "has `data` for all stages"),
        ('taks = "math"\n[[stage]]\nrun = "sft"', "did you mean `task`?"),
        ('task = "math"\n[[stage]]\nrun = "sft"\nlrr = 1', "stage `sft` of `recipe.toml`: there is no setting `lrr`"),
        (
            'task = "math"\n[[stage]]\nrun = "train"\nlearner = {lr = "x"}',
            "stage `train` of `recipe.toml`: `learner.lr`",
        ),
        ('task = "math"\n[[stage]]\nrun = "sft"\nlr = 2000-01-01', "is no value that a setting can have"),
        ('task = "meth"\n[[stage]]\nrun = "sft"', "did you mean `math`?"),
        ('task = "gsm8k"\n[[stage]]\nrun = "sft"', "no model is named"),
        ('task = "math"\n[[stage]]\nrun = "sft"\nmodel = "@dpo"', "there is no such stage"),
        ('task = "math"\n[[stage]]\nrun = "sft"\ndata = "@foo"', "`sft` is the first stage, with none before it"),
        (
            'task = "math"\n[[stage]]\nrun = "sft"\n[[stage]]\nrun = "train"\nmodel = "@zebra"',
            "the stages before it are `@sft`",
        ),
        (
            'task = "math"\n[[stage]]\nrun = "sft"\nmodel = "@t"\n[[stage]]\nrun = "train"\nname = "t"',
            "not come before",
        ),
        ('task = "math"\n[[stage]]\nrun = "sft"\n[[stage]]\nrun = "train"\nmodel = "@stf"', "did you mean `@sft`?"),
        (
            'task = "math"\n[[stage]]\nrun = "pairs"\njudge = "starter"\n[[stage]]\nrun = "prefer"\nmodel = "@pairs"',
            '`data = "@pairs"`',
        ),
    ],
)
def test_a_mistake_is_two_lines_before_anything_runs(
    stage_set: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (stage_set / "recipe.toml").write_text(text)
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 2, err
    assert not (stage_set / "out").exists()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ('run = "prefer"\nmethod = "kto"\nmicro_batch_size = 1', "`kto` needs two rows or more"),
        ('run = "prefer"\nmethod = "simpo"\nreference = "@sft"', "`reference` does not go with the method `simpo`"),
        ('run = "sft"\nname = "more"\nsamples = 2\ndata = "pairs.jsonl"', "`samples` is 2, but `data`"),
        ('run = "prefer"\ndata = "./no-such.jsonl"', "no-such.jsonl`, which is not there"),
        ('run = "pairs"\njudge = "starter"\ndata = "no-such.jsonl"', "no-such.jsonl`, which is not there"),
        ('run = "prefer"\nmodel = "/nonexist"', "`model` is `/nonexist`, which is not there"),
        ('run = "prefer"\nreference = "./nonexist"', "nonexist`, which is not there"),
        (
            'run = "train"\nalgorithm = "ppo"\nreward = {verifier = "reward-model", model = "/nonexist"}',
            "`reward.model` is `/nonexist`, which is not there",
        ),
        ('run = "train"\ndevice = "cudda"', "`device` is `cudda`"),
    ],
)
def test_what_a_later_stage_would_refuse_is_said_before_the_first_one_runs(
    stage_set: Path, stage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'task = "math"\nmodel = "starter"\n[[stage]]\nrun = "sft"\n[[stage]]\n{stage}\n'
    (stage_set / "recipe.toml").write_text(text)
    assert main(["pipeline", "recipe.toml", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 2, err


def test_what_is_elsewhere_or_still_to_be_made_is_taken_as_it_is(stage_set: Path) -> None:
    """A name on the hub, a name at an endpoint, the folder of a stage before it, a device of another machine."""
    (stage_set / "recipe.toml").write_text(
        f"""
        task = "math"
        model = "somebody/model"
        [[stage]]
        run = "sft"
        data = "hub:somebody/rows"
        device = "cuda:0"
        [[stage]]
        run = "pairs"
        policy = "/models/on-the-server"
        policy_url = "http://host:8000/v1"
        judge = "starter"
        [[stage]]
        run = "prefer"
        model = "{stage_set}/out/01-sft/final"
        data = "@pairs"
        """
    )
    assert len(plan(read_recipe("recipe.toml"), "out").stages) == 3


def test_a_recipe_without_a_name_has_that_of_its_file(stage_set: Path) -> None:
    """Without what no name has."""
    for file, name in (("a b.toml", "a-b"), ("(1).toml", "1"), ("ü.toml", "chain"), ("math-cpu.toml", "math-cpu")):
        (stage_set / file).write_text('task = "math"\n[[stage]]\nrun = "sft"')
        assert read_recipe(file).name == name


def test_the_last_stage_is_checked_before_the_first_one_runs(stage_set: Path) -> None:
    edit(stage_set / "recipe.toml", "steps = 4", "steps = 0")
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 2
    assert calls(stage_set) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["pipeline"], "needs a recipe"),
        (["pipeline", "none.toml"], "there is no recipe `none.toml`"),
        (["pipeline", "recipe.toml", "--out", "."], "already and not empty"),
        (["pipeline", "--resume", "."], "is no chain"),
        (["pipeline", "recipe.toml", "--from", "sft"], "`--from` needs `--resume`"),
        (["pipeline", "--resume", "x", "--out", "y"], "does not go with"),
    ],
)
def test_mistakes_on_the_command_line(
    stage_set: Path, line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) in (2, 3)
    assert said in capsys.readouterr().err


def test_each_stage_starts_from_the_last_policy_and_shares_settings(stage_set: Path) -> None:
    """A reward model is no policy; what a command does not have is not given to it."""
    (stage_set / "recipe.toml").write_text(
        """
        task = "math"
        model = "starter"
        seed = 7
        [eval]
        limit = 50
        [sampler]
        group_size = 4
        [[stage]]
        run = "sft"
        [[stage]]
        name = "rm"
        run = "reward"
        data = "@sft"
        [[stage]]
        name = "asked"
        run = "pairs"
        judge = "starter"
        [[stage]]
        run = "prefer"
        data = "@asked"
        reference = "@sft"
        [[stage]]
        name = "ppo"
        run = "train"
        algorithm = "ppo"
        reward = {verifier = "reward-model", model = "@rm"}
        [[stage]]
        run = "eval"
        """
    )
    made = {stage.name: stage for stage in plan(read_recipe("recipe.toml"), "out").stages}
    out = stage_set / "out"
    assert made["sft"].config.model == "starter"
    assert made["rm"].config.model == str(out / "01-sft/final")
    assert made["rm"].config.data == str(out / "01-sft")
    assert made["asked"].config.policy == str(out / "01-sft/final")
    assert made["prefer"].config.model == str(out / "01-sft/final")
    assert made["prefer"].config.data == str(out / "03-asked")
    assert made["prefer"].config.reference == str(out / "01-sft/final")
    assert made["ppo"].config.model == str(out / "04-prefer/final")
    assert made["ppo"].config.reward.model == str(out / "02-rm/final")
    assert made["eval"].config.model == str(out / "05-ppo/final")
    assert made["ppo"].uses == ("prefer", "rm")
    assert made["ppo"].config.sampler.group_size == 4
    assert {stage.config.seed for stage in made.values()} == {7}
    assert all(made[name].config.eval.limit == 50 for name in ("sft", "prefer", "ppo"))
    assert all(made[name].comparable for name in ("sft", "prefer", "ppo"))


def test_paths_that_begin_with_a_dot_start_from_the_recipe(stage_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlvr.registry._current", registry())  # so that the plugin ends with the test
    folder = stage_set / "recipes"
    folder.mkdir()
    (folder / "add.py").write_text("")
    text = (stage_set / "recipe.toml").read_text().replace('"pairs.jsonl"', '"../pairs.jsonl"')
    (folder / "recipe.toml").write_text('plugin = ["./add.py"]\n' + text)
    made = plan(read_recipe("recipes/recipe.toml"), "out").stages
    assert made[1].config.data == str(stage_set / "pairs.jsonl")
    assert made[2].config.plugin == (str(folder / "add.py"),)


def test_all_stages_are_measured_on_the_same_problems(stage_set: Path) -> None:
    """The task's own `eval.limit` holds for every stage; one that measures otherwise does not compare."""
    edit(stage_set / "recipe.toml", "steps = 4", "steps = 4\nsampler.max_tokens = 8")
    stages = plan(read_recipe("recipe.toml"), "out").stages
    assert [stage.config.eval.limit for stage in stages] == [0, 0, 0]  # `math` takes all
    assert [stage.comparable for stage in stages] == [True, True, False]


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_are_shipped_are_valid(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pipeline", str(recipe), "--dry-run"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "stage 1" in out
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- running


def test_a_chain_runs_in_order_and_says_how_accuracy_moves(stage_set: Path, capfd: pytest.CaptureFixture[str]) -> None:
    orders = {"02-dpo": {"accuracy": [0.5, 0.4], "guard": True}, "03-train": {"accuracy": [0.4, 0.9]}}
    (stage_set / "orders.json").write_text(json.dumps(orders))
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 0
    assert calls(stage_set) == ["sft --config 01-sft", "prefer --config 02-dpo", "train --config 03-train"]
    printed = capfd.readouterr()
    assert printed.out.strip() == str(stage_set / "out")
    assert "after sft       50.0% [0.0%, 100.0%] of 10 problems, up 25.0 points from 25.0%" in printed.err
    assert "after dpo       40.0% [0.0%, 100.0%] of 10 problems, DOWN 10.0 points from 50.0%" in printed.err
    assert "guard kl-spike at 3: KL is 9" in printed.err
    assert "playing 03-train" in printed.err
    assert "playing 03-train" in (stage_set / "out/03-train.log").read_text()
    assert [stage["status"] for stage in state(stage_set)["stages"]] == ["done"] * 3


def test_the_report_has_every_stage(stage_set: Path) -> None:
    (stage_set / "orders.json").write_text(json.dumps({"02-dpo": {"accuracy": [0.5, 0.4], "guard": True}}))
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 0
    report = (stage_set / "out/report.md").read_text()
    rows = [line.split(" | ") for line in report.splitlines() if line.startswith(("| sft", "| dpo", "| train"))]
    assert rows[0][1:6] == ["`rlvr sft`", "done", "starter", "10 of 12 (2 too-long)", "6 updates"]
    assert rows[1][1:4] == ["`rlvr prefer --method dpo`", "done", "01-sft/final"]
    assert rows[1][-1].startswith("kl-spike")
    assert rows[2][5] == "7 steps"
    assert "25.0% to 50.0% [0.0%, 100.0%] of 10 problems, after `train`" in report
    assert "It did not rise in `dpo`." in report
    assert "lr = 0.001" in report
    assert "learner.lr = 0.0001" in report
    assert "sampler.max_tokens = 32  # task" in report
    assert f"data `{state(stage_set)['stages'][1]['inputs']['data']}`" in report
    assert (stage_set / "out/accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_a_stage_that_fails_ends_the_chain_with_its_exit_code(
    stage_set: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (stage_set / "orders.json").write_text('{"02-dpo": {"exit": 3}}')
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 3
    assert "stage `dpo` ended with exit code 3" in capfd.readouterr().err
    assert [stage["status"] for stage in state(stage_set)["stages"]] == ["done", "failed", "pending"]
    assert "1 of 3 stages done" in (stage_set / "out/report.md").read_text()
    calls(stage_set)
    (stage_set / "orders.json").write_text("{}")
    assert main(["pipeline", "--resume", "out"]) == 0
    assert calls(stage_set) == ["prefer --resume 02-dpo", "train --config 03-train"]  # in the middle of what had begun


def test_a_stage_that_failed_before_it_began_is_started_with_the_settings_of_now(stage_set: Path) -> None:
    (stage_set / "orders.json").write_text('{"02-dpo": {"exit": 2, "begins": false}}')
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 2
    calls(stage_set)
    edit(stage_set / "recipe.toml", 'data = "pairs.jsonl"', 'data = "pairs.jsonl"\nlr = 2e-6')
    (stage_set / "orders.json").write_text("{}")
    assert main(["pipeline", "recipe.toml", "--resume", "out"]) == 0
    assert calls(stage_set) == ["prefer --config 02-dpo", "train --config 03-train"]
    assert state(stage_set)["stages"][1]["settings"]["lr"] == 2e-6


def test_a_finished_chain_has_nothing_left_to_do(stage_set: Path) -> None:
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 0
    calls(stage_set)
    assert main(["pipeline", "--resume", "out"]) == 0
    assert calls(stage_set) == []


def test_it_goes_on_from_another_folder(
    stage_set: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    """Relative paths of the recipe, such as `pairs.jsonl`, are still found."""
    (stage_set / "orders.json").write_text('{"03-train": {"exit": 1}}')
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 1
    calls(stage_set)
    (stage_set / "orders.json").write_text("{}")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert main(["pipeline", "--resume", str(stage_set / "out")]) == 0
    assert calls(stage_set) == ["train --resume 03-train"]


def test_a_recipe_that_is_given_anew_from_another_folder_has_its_files_beside_it(
    stage_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the chain remembers where, so that it goes on from a third folder as well."""
    edit(stage_set / "recipe.toml", '"pairs.jsonl"', '"./pairs.jsonl"')
    (stage_set / "orders.json").write_text('{"03-train": {"exit": 1}}')
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 1
    (stage_set / "recipe").mkdir()
    for name in ("recipe.toml", "pairs.jsonl"):
        (stage_set / name).rename(stage_set / "recipe" / name)
    calls(stage_set)
    monkeypatch.chdir(stage_set / "recipe")
    assert main(["pipeline", "recipe.toml", "--resume", "../out", "--from", "dpo"]) == 1
    assert calls(stage_set) == ["prefer --config 02-dpo", "train --config 03-train"]
    assert state(stage_set)["recipe"] == str(stage_set / "recipe" / "recipe.toml")
    assert state(stage_set)["stages"][1]["settings"]["data"] == str(stage_set / "recipe" / "pairs.jsonl")
    (stage_set / "orders.json").write_text("{}")
    monkeypatch.chdir(stage_set / "out")
    assert main(["pipeline", "--resume", "."]) == 0
    assert calls(stage_set) == ["train --resume 03-train"]


CHANGES = {
    "a setting": "stage `sft` is done, but `lr` was `0.001` and is `0.01`",
    "its data": "stage `dpo` is done, but what its `data` refers to has changed",
    "its name": "stage `ipo` is done, but it was `dpo` (`rlvr prefer`) then",
    "its model": "stage `sft` is done, but its model is gone",
}


def change(what: str, folder: Path) -> None:
    if what == "a setting":
        edit(folder / "recipe.toml", "lr = 1e-3", "lr = 1e-2")
    elif what == "its data":
        (folder / "pairs.jsonl").write_text("[]\n")
    elif what == "its name":
        edit(folder / "recipe.toml", '"dpo"', '"ipo"')
    else:
        (folder / "out/01-sft/final").rename(folder / "gone")


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_after_it_was_done_is_named_and_refused(
    stage_set: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 0
    calls(stage_set)
    change(what, stage_set)
    assert main(["pipeline", "recipe.toml", "--resume", "out"]) == 2
    assert CHANGES[what] in capfd.readouterr().err
    assert calls(stage_set) == []


def test_by_explicit_choice_a_stage_and_what_follows_are_done_anew(
    stage_set: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 0
    calls(stage_set)
    edit(stage_set / "recipe.toml", 'data = "pairs.jsonl"', 'data = "pairs.jsonl"\nmethod = "ipo"')
    line = ["pipeline", "recipe.toml", "--resume", "out", "--from", "dpo"]
    assert main([*line, "--dry-run"]) == 0
    planned = capfd.readouterr().out
    assert "sft: rlvr sft (done, skipped)" in planned
    assert "dpo: rlvr prefer (done again)" in planned
    assert calls(stage_set) == []
    assert main(line) == 0
    assert calls(stage_set) == ["prefer --config 02-dpo", "train --config 03-train"]
    assert (stage_set / "out/replaced-1-02-dpo/final").is_dir()  # nothing is deleted
    assert main(["pipeline", "--resume", "out", "--from", "dqo"]) == 2
    assert "has no stage `dqo`" in capfd.readouterr().err


def test_a_launcher_that_is_not_there_is_said_at_once(stage_set: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(stage_set / "recipe.toml", 'run = "train"', 'run = "train"\nlaunch = ["no-such-launcher"]')
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 3
    assert "`no-such-launcher`, which is not on this machine" in capfd.readouterr().err
    assert calls(stage_set) == []


# ------------------------------------------------------------------------------------------------ signals and death


def start(folder: Path, *line: str) -> subprocess.Popen[str]:
    """A chain in a process of its own, once the stage under way sleeps."""
    (folder / "pid").unlink(missing_ok=True)
    command = [sys.executable, "-m", "rlvr", "pipeline", *line]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((folder / "pid").exists() and (folder / "pid").read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_to_the_stage_once(stage_set: Path, number: signal.Signals) -> None:
    (stage_set / "orders.json").write_text('{"02-dpo": {"sleep": 60}}')
    with start(stage_set, "recipe.toml", "--out", "out") as process:
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: rlvr pipeline --resume" in err
    assert (stage_set / "signals").read_text() == f"{signal.SIGINT.value}\n"
    assert state(stage_set)["stages"][1]["status"] == "interrupted"
    calls(stage_set)
    (stage_set / "orders.json").write_text("{}")
    assert main(["pipeline", "--resume", "out"]) == 0
    assert calls(stage_set) == ["prefer --resume 02-dpo", "train --config 03-train"]


def test_a_killed_chain_leaves_no_stage_behind_and_goes_on_when_that_has_ended(stage_set: Path) -> None:
    """The stage takes two seconds to write its checkpoint after the kill; the next start waits for it."""
    (stage_set / "orders.json").write_text('{"02-dpo": {"sleep": 600, "linger": 2}}')
    with start(stage_set, "recipe.toml", "--out", "out") as process:
        child = psutil.Process(int((stage_set / "pid").read_text()))
        process.kill()
        process.wait(timeout=30)
    (stage_set / "orders.json").write_text("{}")
    calls(stage_set)
    assert child.is_running()
    assert main(["pipeline", "--resume", "out"]) == 0
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert (stage_set / "signals").read_text() == f"{signal.SIGTERM.value}\n"
    assert calls(stage_set) == ["prefer --resume 02-dpo", "train --config 03-train"]


def test_two_cannot_run_one_chain(
    stage_set: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", "recipe.toml", "--out", "out"]) == 0
    monkeypatch.setattr("rlvr.pipeline.chain.LOCK_WAIT", 0.2)
    with lock(stage_set / "out"):
        assert main(["pipeline", "--resume", "out"]) == 2
    assert "is in use: a stage of this chain still runs" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["{", '{"stages": [{}]}', '{"stages": [], "cwd": ".", "format": 7}'])
def test_a_damaged_state_is_said(stage_set: Path, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    (stage_set / "out").mkdir()
    (stage_set / "out/pipeline.json").write_text(text)
    assert main(["pipeline", "--resume", "out"]) == 3
    assert "is damaged" in capfd.readouterr().err


def test_the_class_of_the_cpu_recipe_can_be_made_again() -> None:
    """Its answers are what `math_lessons` makes of these shares of correct working, without test problems."""
    right = {"long-sum": 0.45, "product": 0.4, "percent": 0.4, "equation": 0.4}
    rows = [json.loads(line) for line in (RECIPES / "math-class.jsonl").read_text().splitlines()]
    made = itertools.islice(conversations(0, right), len(rows))
    assert rows == [{"prompt": question, "completion": answer} for question, answer in made]
    asked = {str(sample.prompt) for sample in math.load("test")}
    assert asked.isdisjoint(row["prompt"] for row in rows)
