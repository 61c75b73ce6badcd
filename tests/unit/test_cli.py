"""The command line in one process: what each command prints and exits with, and what it says of mistakes."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from rlvr.cli import app, commands, main, reference
from rlvr.cli.errors import report
from rlvr.cli.output import shown, table
from rlvr.config import Leaf, flatten, leaves

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"

PLUGIN = '''
import os, time
from rlvr import Sample, Task, Verdict, hookimpl, verifier

@verifier("echo", reference=["answer"])
def echo(completion, sample, *, word: str = "w", on: bool = True, share: float = 0.5, free: list = None):
    """Tells what it was given.

    It fails when the completion is `no`.
    """
    seen = {"text": completion.text, "prompt": sample.prompt, "answer": sample.answer, "meta": dict(sample.meta)}
    options = {"word": word, "on": on, "share": share, "free": free}
    return Verdict.of(completion.text != "no", "heard it", parts=seen | options)

@verifier("unsure")
def unsure(completion, sample):
    """Never knows."""
    return Verdict.abstain("cannot say \\x1b[31m")

@verifier("slow")
def slow(completion, sample):
    """Takes its time."""
    time.sleep(60)

@verifier("boom")
def boom(completion, sample):
    raise ValueError("it is broken")

@verifier("anything", timeout=5)
def anything(completion, sample):
    return bool(completion.text)

def load(split):
    return [Sample(f"{split}-{i}", [{"role": "user", "content": f"{split} {i}\\nnext"}], i) for i in range(7)]

@hookimpl
def rlvr_verifiers():
    return [echo, unsure, slow, boom, anything]

@hookimpl
def rlvr_tasks():
    return [
        Task("lax", "anything", load, "rewards whatever is said"),
        Task("strict", "echo", load, defaults={"steps": 7, "learner.lr": 0.25}),
    ]
'''

Rlvr = Callable[..., "Ran"]


class Ran(typing.NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings, plugins or runs of this machine."""
    monkeypatch.setenv("RLVR_DEBUG", "")  # so that what `--debug` sets is undone
    monkeypatch.setenv("RLVR_DISABLE_PLUGINS", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(importlib.import_module("rlvr.registry"), "_current", None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rlvr(capsys: pytest.CaptureFixture[str]) -> Rlvr:
    def run(*arguments: str) -> Ran:
        return Ran(main(arguments), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("plugins") / "helpers.py"
    file.write_text(PLUGIN)
    return str(file)


# Help, version, errors


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(rlvr: Rlvr, arguments: tuple[str, ...]) -> None:
    ran = rlvr(*arguments)
    assert ran.code == 0
    assert not ran.err
    for name in ("train", "eval", "verify", "tasks", "verifiers", "--debug"):
        assert name in ran.out


def test_version(rlvr: Rlvr) -> None:
    ran = rlvr("--version")
    assert (ran.code, ran.out, ran.err) == (0, importlib.import_module("rlvr").__version__ + "\n", "")


@pytest.mark.parametrize("name", [name for name, _ in commands()], ids=" ".join)
def test_every_command_has_help_with_all_its_flags(rlvr: Rlvr, name: tuple[str, ...]) -> None:
    ran = rlvr(*name, "--help")
    assert ran.code == 0
    for _, flags, _ in reference.rows_of(dict(commands())[name]):
        assert flags.split("`")[1].split()[0] in ran.out


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("trian", "`rlvr` has no command `trian`", "did you mean `train`?"),
        ("zzz", "`rlvr` has no command `zzz`", "known: `train`, `eval`, `verify`, `sft`, `pairs`"),
        ("--versoin", "`rlvr` has no flag `--versoin`", "did you mean `--version`?"),
        ("tasks shwo", "`rlvr tasks` has no command `shwo`", "did you mean `show`?"),
        ("tasks show", "`rlvr tasks show` needs `NAME`", "`rlvr tasks show --help` shows what it takes"),
        ("tasks show math -n x", "`-n` is `x`, but must be a whole number", "`rlvr tasks show --help`"),
        ("tasks show math -n -1", "`-n` is `-1`, but must be at least 0", "0 prints all"),
        ("tasks show math --split tst", "`--split` is `tst`, but must be one of `train`, `test`", "--help"),
        ("tasks show mth", "there is no task named `mth`", "did you mean `math`?"),
        ("tasks show no.toml", "there is no task file `no.toml`", "`rlvr tasks` lists"),
        ("tasks check math --data x.jsonl", "makes its own data, so `--data x.jsonl` means nothing", "leave it out"),
        ("tasks check math --limit=-2", "`--limit` is `-2`, but must be at least 0", "0 takes all"),
        ("verifiers show mth", "there is no verifier named `mth`", "did you mean `math`?"),
        ("verifiers --plugin no.py", "cannot load file no.py: No such file or directory", "path of a `.py` file"),
        ("verify", "`rlvr verify` needs `NAME`", "--help"),
        ("verify math", "`rlvr verify` needs `COMPLETION`", "--help"),
        ("verify math 3", "the verifier `math` needs `--answer`", "rlvr verify math COMPLETION --answer ..."),
        ("verify math 3 --answr 3", "`math` takes no `--answr`", "did you mean `--answer`?"),
        ("verify math 3 --answer", "`--answer` has no value", "`--answer=VALUE`"),
        ("verify math --answer 3", "there is no completion", "`-` to read stdin"),
        ("verify math 3 4 --answer 3", "more than one completion: `3` and `4`", "quote it"),
        ("verify math 3 --answer 3 --answer 4", "`--answer` is given twice", "give it once"),
        ("verify math 3 --answer 3 --a.b 4", "`--a.b` cannot name a reference", "letters, digits and hyphens"),
        (
            "verify math 3 --answer 3 --rounded False",
            "`--rounded` is `False`, but must be `true` or `false`",
            "show math",
        ),
        ("verify math 3 --answer 3 --roundd true", "`math` takes no `--roundd`", "did you mean `--rounded`?"),
        ("verify math 3 --answer 3 --timeout 0", "`--timeout` is `0`, but must be above 0", "seconds"),
        ("verify math 3 --answer 3 --timeout x", "`--timeout` is `x`, but must be a number", "--help"),
        ("verify math 3 --answer 3 --json --json", "`--json` is given twice", "give it once"),
        ("train --lr 3", "`rlvr train` has no flag `--lr`", "did you mean `--learner.lr`?"),
        ("train --temperature 3", "no flag `--temperature`", "`--sampler.temperature` or `--eval.temperature`?"),
        ("train --lerner.lr=3", "`rlvr train` has no flag `--lerner.lr`", "did you mean `--learner.lr`?"),
        ("train --group_size 3", "`rlvr train` has no flag `--group_size`", "did you mean `--sampler.group-size`?"),
        ("train --learner.lr", "`rlvr train` needs a value for `--learner.lr`", "--help"),
        ("train --task math --task gsm8k", "`--task` is given twice", "give it once"),
        ("train --sampler.dynamic false", "`rlvr train` has no place for `false`", "`--sampler.dynamic=false`"),
        ("train --sampler.dynamic=maybe", "`--sampler.dynamic` is `maybe`, but must be `true` or `false`", "--help"),
        (
            "train --learner.lr -1",
            "`--learner.lr` is `-1`, but must be at least 0",
            "give `--learner.lr` at least 0; it is: Peak learning rate",
        ),
        (
            "train --learner.lr nan",
            "`--learner.lr` is `nan`, but must be a number",
            "give `--learner.lr` a number; it is: Peak learning rate",
        ),
        (
            "train --seed x",
            "`--seed` is `x`, but must be a whole number",
            "give `--seed` a whole number; it is: Seed of",
        ),
        ("train --steps 1.5", "`--steps` is `1.5`, but must be a whole number", "Steps of"),
        (
            "train --learner.schedule linaer",
            "`--learner.schedule` is `linaer`, but must be one of",
            "did you mean `linear`?",
        ),
        ("train --sampler.max-tokens 4 --reward.overlong-buffer 4", "`--reward.overlong-buffer` 4", "the soft penalty"),
        ("train --task mth", "there is no task named `mth`", "did you mean `math`?"),
        ("train --config no.toml", "there is no config file `no.toml`", "`--config`"),
        ("train --resume r --config c", "`--config` does not go with `--resume`", "flags can change them"),
        ("train --resume r --out o", "`--out` does not go with `--resume`", "stays in its directory"),
        ("eval --samples 4", "`--samples` is 4, but `--temperature` 0 makes them all the same", "set `--temperature`"),
        ("eval --limit -3", "`--limit` is `-3`, but must be at least 0", "Test problems"),
        ("eval --steps 3", "`rlvr eval` has no flag `--steps`", ""),
    ],
)
def test_mistakes_are_two_lines_and_exit_2(rlvr: Rlvr, line: str, error: str, hint: str) -> None:
    ran = rlvr(*line.split())
    assert ran.code == 2
    assert not ran.out
    first, second = ran.err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint: ")
    assert hint in second


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("train --resume nothing", "`nothing` is not a run"),
        ("tasks show gsm8k --data nothing.jsonl", "there is no data file or folder `nothing.jsonl`"),
        ("tasks check gsm8k --data bad.jsonl", "`bad.jsonl` line 2, column `question`: is a number, but must be text"),
    ],
)
def test_missing_or_bad_data_exits_3(rlvr: Rlvr, line: str, error: str) -> None:
    row = {"question": "How many?", "answer": "#### 3"}
    Path("bad.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"question": 3}) + "\n")
    ran = rlvr(*line.split())
    assert ran.code == 3
    assert f"error: {error}" in ran.err
    assert not ran.out


@pytest.mark.parametrize("line", ["--debug train --steps 0", "train --steps 0 --debug", "train --debug --steps 0"])
def test_debug_adds_the_traceback_anywhere(rlvr: Rlvr, line: str) -> None:
    ran = rlvr(*line.split())
    assert ran.code == 2
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-2] == "error: `--steps` is `0`, but must be at least 1"


def test_debug_behind_a_double_dash_is_a_completion(rlvr: Rlvr) -> None:
    ran = rlvr("verify", "math", "--", "--debug")
    assert (ran.code, "Traceback" in ran.err) == (2, False)


def test_debug_from_the_environment(rlvr: Rlvr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_DEBUG", "1")
    assert "Traceback" in rlvr("train", "--steps", "0").err
    monkeypatch.setenv("RLVR_DEBUG", "0")
    assert "Traceback" not in rlvr("train", "--steps", "0").err


LOOSE = """
from rlvr import Task, hookimpl

@hookimpl
def rlvr_tasks():
    return [Task("loose", "math", lambda split: 1 / 0)]
"""


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_task_that_cannot_be_loaded_is_named(rlvr: Rlvr, command: str) -> None:
    Path("loose.py").write_text(LOOSE)
    ran = rlvr("tasks", command, "loose", "--plugin", "loose.py")
    assert ran.code == 2
    assert "error: the task `loose` (file loose.py) raised ZeroDivisionError" in ran.err


def test_an_operating_system_error_names_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(FileNotFoundError(2, "No such file or directory", "gone.txt"), app, debug=False) == 3
    assert capsys.readouterr().err.splitlines()[0] == "error: `gone.txt`: No such file or directory"


def test_a_fault_in_the_code_is_two_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(ZeroDivisionError("division by zero"), app, debug=False) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "error: internal: ZeroDivisionError: division by zero"
    assert "`--debug` shows the traceback" in hint


# verify


def test_a_right_answer_passes_and_a_wrong_one_fails(rlvr: Rlvr) -> None:
    right = rlvr("verify", "math", r"\boxed{1/2}", "--answer", "0.5")
    assert right.code == 0
    assert right.out.startswith("passed  1.00  ")
    wrong = rlvr("verify", "math", r"\boxed{1/2}", "--answer", "0.6")
    assert wrong.code == 1
    assert wrong.out.startswith("failed  0.00  ")
    assert not right.err + wrong.err


def test_a_completion_may_look_like_a_flag(rlvr: Rlvr) -> None:
    assert rlvr("verify", "math", r"-\frac{1}{2}", "--answer", "-0.5").code == 0
    assert rlvr("verify", "math", "--answer=-x", "-x").code == 0


def test_json_has_the_whole_verdict(rlvr: Rlvr, plugin: str) -> None:
    ran = rlvr("verify", "echo", "hi", "--answer", "0.50", "--plugin", plugin, "--json")
    assert ran.code == 0
    verdict = ran.json
    assert verdict.pop("duration") > 0
    assert verdict.pop("parts")["text"] == "hi"
    expected = {"verifier": "echo", "status": "passed", "score": 1.0, "passed": True, "detail": "heard it"}
    assert verdict == expected


def test_values_are_json_unless_they_are_to_be_text(rlvr: Rlvr, plugin: str) -> None:
    line = "--answer 0.50 --word 5 --on=false --share 1 --free [1,true] --max-words 5 --why NaN --who me --prompt 7"
    heard = rlvr("verify", "echo", *line.split(), "hi", "--plugin", plugin, "--json").json["parts"]
    assert heard == {
        "text": "hi",
        "prompt": "7",
        "answer": "0.50",
        "meta": {"max_words": 5, "why": "NaN", "who": "me"},
        "word": "5",
        "on": False,
        "share": 1,
        "free": [1, True],
    }


@pytest.mark.parametrize(
    ("flags", "wanted"), [("--on 1", "`true` or `false`"), ("--share true", "a number"), ("--share much", "a number")]
)
def test_an_option_keeps_its_type(rlvr: Rlvr, plugin: str, flags: str, wanted: str) -> None:
    ran = rlvr("verify", "echo", "hi", "--answer", "1", *flags.split(), "--plugin", plugin)
    assert ran.code == 2
    assert f"but must be {wanted}" in ran.err


def test_the_scorer_is_set_from_the_environment(rlvr: Rlvr, plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_SCORER_TIMEOUT", "0.2")
    ran = rlvr("verify", "slow", "x", "--plugin", plugin)
    assert (ran.code, "its clock of 0.2 s" in ran.out) == (3, True)
    monkeypatch.setenv("RLVR_SCORER_SANDBOX", "nowhere")
    for line in (("verify", "slow", "x"), ("tasks", "check", "lax")):
        ran = rlvr(*line, "--plugin", plugin)
        assert (ran.code, "there is no sandbox named `nowhere`" in ran.err) == (2, True)
    monkeypatch.delenv("RLVR_SCORER_SANDBOX")
    ran = rlvr("tasks", "check", "lax", "--sandbox", "nowhere", "--plugin", plugin)
    assert (ran.code, "there is no sandbox named `nowhere`" in ran.err) == (2, True)
    ran = rlvr("tasks", "check", "lax", "--timeout", "0", "--plugin", plugin)
    assert (ran.code, "`--timeout` is `0`, but must be at least 0.001" in ran.err) == (2, True)


@pytest.mark.parametrize("final", [True, False])
def test_a_run_is_no_model_and_says_where_its_model_is(rlvr: Rlvr, tmp_path: Path, final: bool) -> None:
    run = tmp_path / "run"
    (run / "final" if final else run).mkdir(parents=True)
    (run / "config.toml").touch()
    ran = rlvr("eval", "--model", "run")
    assert ran.code == 2
    assert f"error: `--model` is `{run}`, the directory of a run" in ran.err
    assert (f"`{run / 'final'}`" if final else f"`rlvr train --resume {run}`") in ran.err


def test_a_dash_reads_stdin(rlvr: Rlvr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("so it is\n\\boxed{½}\n".encode()), "ascii"))
    assert rlvr("verify", "math", "-", "--answer", "0.5").code == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    ran = rlvr("verify", "math", "-", "--answer", "0.5")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: stdin is not UTF-8: invalid start byte")


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("unsure x", "abstained  cannot say \\x1b[31m\n"),
        ("slow x --timeout 0.2", "timeout  `slow` ran past its clock of 0.2 s and was killed\n"),
        ("boom x", "error  "),
    ],
)
def test_no_verdict_exits_3(rlvr: Rlvr, plugin: str, line: str, out: str) -> None:
    ran = rlvr("verify", *line.split(), "--plugin", plugin)
    assert ran.code == 3
    assert ran.out.startswith(out)
    assert not ran.err


# tasks


TASKS = ["bfcl", "code", "code-stdio", "gsm8k", "humaneval", "ifeval", "json", "math", "mbpp", "tools"]


def test_tasks_are_listed_plain(rlvr: Rlvr, plugin: str) -> None:
    ran = rlvr("tasks", "--plugin", plugin)
    assert ran == rlvr("tasks", "list", "--plugin", plugin)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["name", "verifier", "description", "origin"]
    assert [line.split()[0] for line in lines[1:]] == sorted([*TASKS, "lax", "strict"])
    assert f"file {plugin}" in next(line for line in lines if line.startswith("lax"))
    assert max(map(len, lines)) > 100  # not cut to a screen


def test_tasks_as_json(rlvr: Rlvr) -> None:
    listed = rlvr("tasks", "--json").json
    assert listed["broken"] == []
    assert [task["name"] for task in listed["tasks"]] == TASKS
    assert next(task for task in listed["tasks"] if task["name"] == "math")["verifier"] == "math"


COMPOSED = """
name = "composed"
prompt = "{{q}}"
gold = "The answer is {{answer}}."
[verifier]
rule = "gate"
parts = { asked = "anything", answer = { name = "math", weight = 2 } }
[data]
path = "rows.jsonl"
answer = "a"
"""


def test_a_task_of_several_verifiers_is_listed_shown_and_checked(rlvr: Rlvr, plugin: str) -> None:
    Path("composed.toml").write_text(COMPOSED)
    Path("rows.jsonl").write_text("".join(json.dumps({"q": f"{i}+1?", "a": i + 1}) + "\n" for i in range(20)))
    Path("also.py").write_text(
        "from rlvr import hookimpl, load_toml\n\n@hookimpl\ndef rlvr_tasks():\n    return ['composed.toml']\n"
    )
    plugins = ("--plugin", plugin, "--plugin", "also.py")
    (line,) = [line for line in rlvr("tasks", *plugins).out.splitlines() if line.startswith("composed")]
    assert line.split()[1:3] == ["gate(anything,", "math)"]
    (found,) = [task for task in rlvr("tasks", "--json", *plugins).json["tasks"] if task["name"] == "composed"]
    assert found["verifier"] == {
        "rule": "gate",
        "threshold": 1.0,
        "parts": {
            "asked": {"name": "anything", "weight": 1.0, "required": True},
            "answer": {"name": "math", "weight": 2, "required": True},
        },
    }
    assert rlvr("tasks", "show", "composed.toml", "-n", "1", "--plugin", plugin).code == 0
    ran = rlvr("tasks", "check", "composed.toml", "--plugin", plugin)
    assert ran.code == 0, ran.out
    Path("composed.toml").write_text(COMPOSED.replace("gold = ", "# "))
    ran = rlvr("tasks", "check", "composed.toml", "--plugin", plugin)
    assert ran.code == 2
    assert "the task `composed` has several verifiers and does not say what a perfect completion is" in ran.err


def test_show_prints_samples(rlvr: Rlvr, plugin: str) -> None:
    ran = rlvr("tasks", "show", "lax", "--split", "test", "-n", "2", "--plugin", plugin)
    assert ran.code == 0
    assert ran.out == (
        "id      test-0\nprompt  [user] test 0\n        next\nanswer  0\n"
        "\n"
        "id      test-1\nprompt  [user] test 1\n        next\nanswer  1\n"
    )


def test_show_takes_a_toml_task_and_counts(rlvr: Rlvr) -> None:
    Path("task.toml").write_text(
        'name = "mine"\nverifier = "math"\nprompt = "{{q}}"\nsystem = "Be brief."\n'
        '[data]\npath = "."\nsplits = { train = "a.jsonl", test = "b.jsonl" }\nanswer = "a"\n'
    )
    Path("a.jsonl").write_text("".join(json.dumps({"q": f"{i}+1?", "a": i + 1, "why": "x"}) + "\n" for i in range(7)))
    Path("b.jsonl").write_text('{"q": "9+1?", "a": 10, "why": "y"}\n')
    assert len(rlvr("tasks", "show", "task.toml", "--json").json) == 5
    samples = rlvr("tasks", "show", "task.toml", "--count=0", "--json").json
    assert len(samples) == 7
    assert samples[1] == {
        "id": samples[1]["id"],
        "prompt": "1+1?",
        "answer": 2,
        "meta": {"q": "1+1?", "a": 2, "why": "x"},
    }
    assert "[system] Be brief.\n        [user] 9+1?" in rlvr("tasks", "show", "./task.toml", "--split", "test").out


def test_check_proves_math(rlvr: Rlvr) -> None:
    ran = rlvr("tasks", "check", "math", "--limit", "30")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["split", "completion", "problems", "passed", "failed", "missing", "equal"]
    assert lines[1].split() == ["train", "gold", "30", "30", "0", "0", "0", "ok"]
    assert lines[5].split() == ["test", "shuffled", "30", "0", "30", "0", "0", "ok"]
    assert lines[-1].startswith("ok: every gold answer passes")


def test_check_says_what_is_wrong(rlvr: Rlvr, plugin: str) -> None:
    ran = rlvr("tasks", "check", "lax", "--plugin", plugin)
    assert ran.code == 1
    assert "not ok: 7 shuffled completions of train do not fail" in ran.out
    assert "NOT OK" in ran.out
    assert "and 9 more" in ran.out
    found = rlvr("tasks", "check", "lax", "--plugin", plugin, "--json")
    assert found.code == 1
    assert found.json["ok"] is False
    assert len(found.json["offenders"]) == 14
    assert found.json["offenders"][0]["verdict"]["status"] == "passed"
    assert [t["ok"] for t in found.json["tallies"]] == [True, False, True] * 2


# verifiers


def test_verifiers_are_listed(rlvr: Rlvr, plugin: str) -> None:
    ran = rlvr("verifiers", "--plugin", plugin)
    assert ran.code == 0
    mine = ["anything", "boom", "echo", "slow", "unsure"]
    built_in = ["code", "json-schema", "math", "reward-model", "text", "tool-call"]
    assert [line.split()[0] for line in ran.out.splitlines()] == ["name", *sorted(mine + built_in)]
    listed = {line.split()[0]: line for line in ran.out.splitlines()}
    assert " word, on, share, free " in listed["echo"]
    assert " more " in listed["text"]
    assert len(listed["text"]) < 300
    listed = {spec["name"]: spec for spec in rlvr("verifiers", "list", "--json").json["verifiers"]}
    assert listed["echo"]["reference"] == ["answer"]
    assert listed["math"]["origin"] == "built-in"


def test_show_prints_the_whole_docstring(rlvr: Rlvr, plugin: str) -> None:
    ran = rlvr("verifiers", "show", "echo", "--plugin", plugin)
    assert ran.code == 0
    assert ran.out.endswith("\nTells what it was given.\n\nIt fails when the completion is `no`.\n")
    assert 'options    word="w"\n           on=true\n' in ran.out
    assert "timeout    5 s" in rlvr("verifiers", "show", "anything").out
    assert rlvr("verifiers", "show", "math", "--json").json["doc"].startswith("Passes when")


def test_a_broken_plugin_is_named_and_breaks_nothing(
    rlvr: Rlvr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "site" / "wonky-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wonky\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[rlvr]\nwonky = wonky_module\n")
    (info.parent / "wonky_module.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("RLVR_DISABLE_PLUGINS", "0")
    for command in ("verifiers", "tasks"):
        ran = rlvr(command)
        assert ran.code == 0
        assert "math" in ran.out
        assert "wonky" not in ran.out
        assert "warning: the plugin `wonky` of wonky 1.2 is broken: ModuleNotFoundError" in ran.err
        (broken,) = [b for b in rlvr(command, "--json").json["broken"] if b["name"] == "wonky"]
        assert broken["distribution"] == "wonky 1.2"
        assert "nowhere_to_be_found" in broken["cause"]
    used = rlvr("verify", "wonky", "x")
    assert used.code == 2
    assert "the plugin `wonky` of wonky 1.2 is broken" in used.err


# train --dry-run: settings and where they come from


def other_value(leaf: Leaf) -> Any:
    """A good value that is not the default."""
    if leaf.name == "task":
        return "gsm8k"
    if leaf.type is bool:
        return not leaf.default
    if typing.get_origin(leaf.type) is Literal:
        return typing.get_args(leaf.type)[1]
    if leaf.type is str:
        return "else/where"
    return 0.75 if leaf.high is not None and leaf.high <= 1 else leaf.type(max(leaf.low or 0, leaf.default) + 1)


@pytest.mark.parametrize("joint", ["-", "_"])
def test_every_setting_has_a_flag(rlvr: Rlvr, joint: str) -> None:
    values = {name: other_value(leaf) for name, leaf in leaves().items() if typing.get_origin(leaf.type) is not tuple}
    values["data"] = str(Path("else/where").absolute())
    del values["sampler.staleness"]  # does not go with the sampler that the line names
    values |= {"sampler.prompts_per_step": 8, "learner.updates_per_step": 2, "learner.kl_in": "loss"}  # nor do others
    values |= {"learner.loss": "clip", "learner.dual_clip": 3.0}
    del values["reward.model"]  # nor a model with the verifier that the line names
    values["reward.verifier"] = "text"
    line = [f"--{name.replace('_', joint)}={str(value).lower()}" for name, value in values.items()]
    ran = rlvr("train", "--dry-run", *line)
    assert (ran.code, ran.err) == (0, "")
    resolved = flatten(tomllib.loads(ran.out))
    assert {name: resolved[name] for name in values} == values
    assert sum(setting.endswith("  # flag") for setting in ran.out.splitlines()) == len(values)


def test_the_sampler_and_how_far_it_runs_ahead_have_short_flags(rlvr: Rlvr) -> None:
    ran = rlvr("train", "--dry-run", "--sampler", "vllm", "--staleness", "2", "--sampler.url", "http://a:1")
    assert ran.code == 2
    assert ran.err.splitlines()[0] == "error: `--sampler.url` does not go with `--sampler` `vllm`"
    ran = rlvr("train", "--dry-run", "--sampler", "vllm", "--staleness", "2")
    assert (ran.code, ran.err) == (0, "")
    sampler = tomllib.loads(ran.out)["sampler"]
    assert (sampler["backend"], sampler["staleness"]) == ("vllm", 2)


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("--sampler vllm-server", "there is no `--sampler.url`", "--sampler.url http://host:8000"),
        ("--sampler.url here:1", "`--sampler.url` is `here:1`, which is no address", "http://host:8000"),
        ("--sampler.url http://", "which is no address", "http://host:8000"),
        ("--sampler transformers --sampler.url http://a:1", "does not go with `--sampler`", "`vllm-server`"),
        ("--sampler transformers --staleness 1", "`--staleness` 1 does not go with", "`--sampler vllm`, or 0"),
        ("--sampler vllm --sampler.temperature 0.7 --sampler.top-p 0.9", "does not go with", "one of the two to 1"),
        ("--sampler.options eager", "has `eager`, which is not NAME=VALUE", "enforce_eager=true"),
        ("--sampler.options 9x=1", "has `9x=1`, which is not NAME=VALUE", "enforce_eager=true"),
        ("--staleness -1", "at least 0", "--staleness"),
        ("--sampler.memory 2", "at most 1", "--sampler.memory"),
        ("--sampler vlm", "`--sampler` is `vlm`", "did you mean `vllm`?"),
    ],
)
def test_ways_to_sample_that_cannot_work_are_refused_in_two_lines(rlvr: Rlvr, line: str, error: str, hint: str) -> None:
    ran = rlvr("train", "--dry-run", *line.split())
    assert ran.code == 2
    first, second = ran.err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint: ")
    assert hint in second


def test_the_strongest_layer_wins_and_says_so(rlvr: Rlvr, plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.toml").write_text("steps = 3\nseed = 3\nsave_every = 3\n[learner]\nlr = 3\n")
    Path("b.toml").write_text("seed = 4\nsave_every = 4\nkeep_checkpoints = 4\n")
    monkeypatch.setenv("RLVR_SAVE_EVERY", "5")
    monkeypatch.setenv("RLVR_KEEP_CHECKPOINTS", "5")
    line = f"train --dry-run --plugin {plugin} --task strict --config a.toml --config b.toml --keep-checkpoints 6"
    ran = rlvr(*line.split(), "--no-sampler.dynamic")
    assert ran.code == 0, ran.err
    for expected in (
        'task = "strict"  # flag',
        "steps = 3  # config a.toml",
        "seed = 4  # config b.toml",
        "save_every = 5  # environment",
        "keep_checkpoints = 6  # flag",
        "lr = 3.0  # config a.toml",
        "dynamic = false  # flag",
        "clip_high = 0.28  # algorithm dapo",
        "group_size = 8  # default",
    ):
        assert expected in ran.out.splitlines()
    weaker = rlvr("train", "--dry-run", "--task", "strict", "--plugin", plugin).out.splitlines()
    assert "steps = 7  # task" in weaker


def test_a_dry_run_is_a_config_file(rlvr: Rlvr) -> None:
    first = rlvr("train", "--dry-run", "--learner.lr", "1e-3", "--algorithm", "grpo").out
    Path("all.toml").write_text(first)
    second = rlvr("train", "--dry-run", "--config", "all.toml").out
    assert tomllib.loads(second) == tomllib.loads(first)


@pytest.mark.parametrize(
    ("toml", "environment", "error"),
    [
        ("[learner]\nlr = -1", {}, "`learner.lr` is `-1`, but must be at least 0 (config a.toml)"),
        ("steps = 0", {}, "`steps` is `0`, but must be at least 1 (config a.toml)"),
        ("lr = 1", {}, "there is no setting `lr` (config a.toml)"),
        ("", {"RLVR_LEARNER_LR": "x"}, "`learner.lr` is `x`, but must be a number (environment)"),
        ("", {"RLVR_LEARNR_LR": "1"}, "the environment variable `RLVR_LEARNR_LR` names no setting"),
    ],
)
def test_mistakes_elsewhere_are_named_as_written_there(
    rlvr: Rlvr, monkeypatch: pytest.MonkeyPatch, toml: str, environment: dict[str, str], error: str
) -> None:
    Path("a.toml").write_text(toml)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ran = rlvr("train", "--config", "a.toml")
    assert (ran.code, ran.err.splitlines()[0]) == (2, f"error: {error}")


# Printing


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert shown("a\x1b[2J\x07b\r\n\tc\x9b1m\x00") == "a\\x1b[2J\\x07b\n\tc\\x9b1m\\x00"


def test_a_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "n", "what"), [("a", 5, "x\ny"), ("longer", 10, "")], right=("n",))
    assert capsys.readouterr().out == "name     n  what\na        5  x y\nlonger  10\n"


# The reference


def test_the_reference_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert reference.updated(page) == page, "run `python -m rlvr.cli.reference docs/reference/cli.md`"


def test_the_reference_has_every_command_and_flag() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert {name for name, _ in commands(app)} >= {("train",), ("eval",), ("verify",), ("tasks", "check")}
    for name, command in commands(app):
        heading = f"{'#' * (len(name) + 1)} rlvr {' '.join(name)}\n"
        assert heading in page
        section = page.partition(heading)[2].partition("\n#")[0]
        if command.default_command is not None:
            found = [flag for argument in command.assemble_argument_collection() for flag in argument.names]
            for flag in found:
                assert (f"`{flag}" if flag.startswith("-") else f"`{flag.strip('*').upper()}`") in section
    for setting in leaves():
        assert f"`--{setting.replace('_', '-')}" in page


@pytest.fixture(scope="module", autouse=True)
def forget_plugin_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("rlvr_plugin_"):
            del sys.modules[name]
