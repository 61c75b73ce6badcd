"""`rlvr verifiers check`: every built-in verifier is green, every planted defect turns the right check red, and what
the command prints; and the pre-flight of a run, on the same defects."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr import Composition, Part, Sample, Scorer, Task
from rlvr.errors import RunStopped, UsageError
from rlvr.kit.check import Plan, check_verifier
from rlvr.preflight import preflight
from rlvr.registry import Registry
from rlvr.samples import samples

PLUGINS = Path(__file__).parents[1] / "plugins"
DEFECTIVE, ALARMED = str(PLUGINS / "defective.py"), str(PLUGINS / "alarmed.py")
DEFECTS = {fn.__name__.replace("_", "-"): red for fn, red in runpy.run_path(DEFECTIVE)["DEFECTS"].items()}
BUILT_INS = [
    name
    for name, spec in sorted(Registry.load().verifiers.items())
    if spec.origin == "built-in" and not spec.learned  # of which no completion is right or wrong
]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlvr", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


# --------------------------------------------------------------------------------------------- what must be green


@pytest.mark.parametrize("name", BUILT_INS)
def test_a_built_in_verifier_is_green(name: str, request: pytest.FixtureRequest) -> None:
    if Registry.load().verifiers[name].wants_sandbox:
        request.getfixturevalue("needs_docker")
    report = check_verifier(name, Scorer, Plan(fuzz=60))
    assert not report.breaches, report.breaches[:3]
    assert report.kit
    assert [check for check, finding in report.findings.items() if finding.skipped] in (["cases"], ["laws", "cases"])
    assert report.speed is not None
    assert report.own.agreed == report.own.total >= 40


def test_a_verifier_that_is_learned_has_nothing_to_be_checked_against() -> None:
    with pytest.raises(UsageError, match="`reward-model` is learned"):
        check_verifier("reward-model", lambda: Scorer(workers=1), Plan(fuzz=0))


# ----------------------------------------------------------------------------------------------- what must be red


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_turns_the_right_check_red(name: str) -> None:
    report = check_verifier(name, lambda: Scorer(workers=1, timeout=0.5, plugins=[DEFECTIVE]), Plan(fuzz=20))
    assert DEFECTS[name] <= set(report.red)
    assert bool(DEFECTS[name]) == bool(report.red), report.breaches[:3]


def test_there_are_enough_defects_and_every_check_but_one_is_among_them() -> None:
    assert sum(map(bool, DEFECTS.values())) >= 15
    named = set().union(*DEFECTS.values())
    assert named >= {"wrong", "empty", "hacks", "hostile", "repeat", "order", "batch", "growth", "score", "laws"}


def test_an_alarm_is_a_breach_of_the_clock() -> None:
    report = check_verifier("alarmed", lambda: Scorer(workers=1, plugins=[ALARMED]), Plan(fuzz=5))
    assert report.red == ["clock"]
    assert "signal.alarm" in report.breaches[0].problem


def test_a_verifier_without_a_kit_is_held_to_what_needs_none() -> None:
    report = check_verifier("no-kit", lambda: Scorer(workers=1, plugins=[DEFECTIVE]), Plan(fuzz=5))
    assert report.ok
    skipped = {name for name, finding in report.findings.items() if finding.skipped}
    assert skipped == {"gold", "wrong", "empty", "hacks", "laws", "cases"}
    assert report.findings["hostile"].verdicts > 100


def test_what_kills_its_worker_is_found_without_a_kit_too(tmp_path: Path) -> None:
    plugin = tmp_path / "bare.py"
    plugin.write_text(
        "import os\n"
        "from rlvr import hookimpl, verifier\n"
        "@verifier('bare', reference=['answer'])\n"
        "def bare(completion, sample):\n"
        "    if len(completion.text) > 900_000:\n"
        "        os._exit(1)\n"
        "    return completion.text == sample.meta['missing']\n"
        "@hookimpl\n"
        "def rlvr_verifiers():\n"
        "    return [bare]\n"
    )
    report = check_verifier("bare", lambda: Scorer(workers=1, plugins=[plugin]), Plan(fuzz=5))
    assert report.red == ["hostile"]
    assert all("exit code 1" in breach.problem for breach in report.findings["hostile"].breaches)


# ------------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [{"completion": f"It is {n}.", "passes": n % 4 != 0, "answer": n, "kind": "counted"} for n in range(1, 9)]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "cases.jsonl"


def test_a_green_check_prints_a_table_and_exits_0() -> None:
    done = run("verifiers", "check", "math", "--fuzz", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gold     right completions pass" in done.stdout
    assert "verdicts/s" in done.stdout
    assert "right cases that pass: 26 of 26, 100.0% [87.1%, 100.0%]" in done.stdout
    assert done.stdout.rstrip().endswith("\nok")


def test_a_red_check_exits_1_and_shows_what_it_found(labelled: Path) -> None:
    flags = ["--plugin", DEFECTIVE, "--fuzz", "5", "--workers", "1", "--cases", str(labelled)]
    done = run("verifiers", "check", "accepts-empty", *flags)
    assert done.returncode == 1
    assert "not ok: empty, cases" in done.stdout
    assert "empty (no-op): failed was wanted, not passed 1.00: nothing is wrong with it" in done.stdout
    assert "cases (counted): failed was wanted, not passed 1.00: 4 against 4" in done.stdout
    assert '      "It is 4."\n      against {"answer": 4}' in done.stdout
    assert "wrong cases that fail: 0 of 2, 0.0% [0.0%, 65.8%]" in done.stdout
    assert "cases as labelled: 6 of 8, 75.0%" in done.stdout


def test_labelled_cases_give_references_where_there_is_no_kit(labelled: Path) -> None:
    flags = ["--plugin", DEFECTIVE, "--fuzz", "5", "--workers", "1", "--cases", str(labelled), "--at-least", "0.75"]
    done = run("verifiers", "check", "no-kit", *flags, "--json")
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert found["kit"] is False
    checks = {check["check"]: check for check in found["checks"]}
    assert checks["empty"]["verdicts"] >= 5 * 8
    assert checks["gold"]["skipped"] == "it has no kit"
    assert len(checks["cases"]["breaches"]) == 2
    assert found["confusion"]["cases"]["right"] == {"passed": 6, "failed": 0, "missing": 0}
    assert found["confusion"]["cases"]["rates"]["cases as labelled"]["share"] == 0.75
    assert found["confusion"]["kit"] is None
    assert found["speed"]["workers"] == 1


def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"completion": "4", "passes": true, "answer": "4"}\n{"completion": "4"}\n')
    for arguments, code, message in (
        ([], 2, "give one verifier, or `--all`"),
        (["math", "--all"], 2, "give one verifier, or `--all`"),
        (["maths"], 2, "did you mean `math`"),
        (["math", "--cases", "bad.jsonl"], 3, "`bad.jsonl` line 2: there is no `passes`"),
        (["math", "--timeout", "0"], 2, "must be above 0"),
        (["code", "--sandbox", "none"], 2, "no sandbox named `none`"),
    ):
        done = run("verifiers", "check", *arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert message in done.stderr


# ---------------------------------------------------------------------------------------------------- pre-flight


def load(split: str) -> list[Sample]:
    return [Sample(f"{split}-{n}", f"Which number follows {n}?", n + 1) for n in range(10, 40)]


def fly(name: str | Composition, **changes: Any) -> None:
    task = Task("follow", name, load, **changes)
    with Scorer(workers=1, timeout=0.5, plugins=[DEFECTIVE]) as scorer:
        preflight(task, samples(task, "train"), scorer)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("accepts-empty", "empty: 8 of 8 empty completions pass"),
        ("accepts-an-excuse", "no-op: 8 of 8 completions"),
        ("ignores-the-reference", "shuffled: the gold completion of another sample passes for 8 of 8"),
        ("crashes-on-nul", "hostile: text"),
        ("blames-the-check", "hostile: text"),
        ("minds-the-case", ""),
        ("sound", ""),
        ("no-kit", ""),
    ],
)
def test_the_preflight_finds_what_is_not_fit_to_train_on(name: str, problem: str) -> None:
    if not problem:
        fly(name)
        return
    with pytest.raises(RunStopped) as stopped:
        fly(name)
    assert problem in stopped.value.message
    assert "--no-preflight" in stopped.value.hint
    assert stopped.value.exit_code == 1


def test_the_preflight_uses_the_gold_of_the_task() -> None:
    fly("no-kit", gold=lambda sample: f"It is {sample.answer}")
    with pytest.raises(RunStopped, match="gold: 8 of 8 gold completions do not pass"):
        fly("no-kit", gold=lambda sample: f"It is {sample.answer - 1}")


def test_the_preflight_flies_compositions() -> None:
    both = Composition("all-of", {"one": Part("sound"), "two": Part("no-kit")})
    fly(both)
    with pytest.raises(RunStopped, match="gold: 8 of 8"):
        fly(both, gold=lambda sample: "It is twelve")


def test_the_preflight_lets_off_problems_that_many_completions_solve() -> None:
    modest = Composition("all-of", {"words": Part("text", {"words": {"min": 1, "max": 50}})})
    options = {"words": {"min": 1, "max": 50}}
    fly("text", verifier_options=options, gold=lambda sample: f"It is {sample.answer}")
    with pytest.raises(RunStopped, match="no-op: 8 of 8"):
        fly(modest)
    with pytest.raises(RunStopped, match="gold: 8 of 8"):
        fly("text", verifier_options=options, gold=lambda sample: "la " * 60)


def test_the_preflight_puts_up_with_a_wrong_reference() -> None:
    task = Task("follow", "sound", load, gold=lambda s: "no idea" if s.answer % 15 == 0 else f"It is {s.answer}")
    with Scorer(workers=1, plugins=[DEFECTIVE]) as scorer:
        preflight(task, samples(task, "train"), scorer)
        preflight(task, [], scorer)


def test_a_run_does_not_start_on_a_verifier_that_is_not_fit(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n + 1}\n" for n in range(60))
    (tmp_path / "sums.csv").write_text(f"a,next\n{rows}")
    (tmp_path / "sums.toml").write_text(
        'name = "sums"\nversion = 1\nverifier = "accepts-empty"\nprompt = "What follows {{a}}?"\n'
        '[data]\npath = "sums.csv"\nanswer = "next"\n'
    )
    arguments = ["train", "--task", "./sums.toml", "--model", "starter", "--plugin", DEFECTIVE, "--steps", "1"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "does not pass its pre-flight" in done.stderr
    assert "--no-preflight" in done.stderr
    assert not (tmp_path / "runs").exists()
    dry = run(*arguments, "--no-preflight", "--dry-run", cwd=tmp_path)
    assert "preflight = false  # flag" in dry.stdout


def test_the_preflight_changes_nothing_of_the_training(tmp_path: Path) -> None:
    def trained(preflight: bool) -> list[Any]:
        sizes = {"group_size": 4, "prompts_per_step": 2, "max_tokens": 16, "dynamic": False}
        run = rlvr.train(
            task="math",
            model="starter",
            device="cpu",
            steps=1,
            sampler=sizes,
            eval={"limit": 4},
            preflight=preflight,
            out=str(tmp_path / str(preflight)),
        )
        metrics = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run.metrics()]
        return [metrics, [(row["completion"], row["reward"], row["advantage"]) for row in run.rollouts()]]

    assert trained(True) == trained(False)
