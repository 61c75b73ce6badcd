"""The command line as processes: what it imports, pipes, signals, terminals, and a machine without torch."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

HEAVY = {"torch", "sympy", "transformers", "numpy", "accelerate", "datasets", "pyarrow", "mpmath"}

SLOW = """
import time
from pathlib import Path
from rlvr import hookimpl, verifier

@verifier("slow")
def slow(completion, sample):
    Path("started").touch()
    time.sleep(60)

@hookimpl
def rlvr_verifiers():
    return [slow]
"""


def rlvr(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlvr", *arguments],
        cwd=cwd,
        env=os.environ | {"RLVR_DISABLE_PLUGINS": "1"} | more,
        capture_output=True,
        text=True,
        timeout=120,
    )


def imported(lines: list[list[str]], cwd: Path) -> set[str]:
    """The heavy packages that are imported once these command lines have run in one process."""
    code = (
        "import sys, json\n"
        "from rlvr.cli import main\n"
        f"codes = [main(line) for line in {lines!r}]\n"
        "print(json.dumps([codes, sorted({name.partition('.')[0] for name in sys.modules})]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)
    codes, modules = json.loads(done.stderr.splitlines()[-1])
    assert codes == [0] * len(lines), done.stderr
    return HEAVY & set(modules)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    assert imported([["--help"]], tmp_path) == set()


def test_commands_without_a_model_never_import_torch(tmp_path: Path) -> None:
    lines = [
        ["train", "--help"],
        ["eval", "--help"],
        ["train", "--dry-run", "--learner.lr", "1e-3"],
        ["verify", "math", r"\boxed{1/2}", "--answer", "0.5"],
        ["tasks"],
        ["tasks", "show", "math"],
        ["tasks", "check", "math", "--limit", "3"],
        ["verifiers"],
        ["verifiers", "show", "math"],
    ]
    assert not imported(lines, tmp_path) & {"torch", "transformers", "accelerate", "numpy"}


@pytest.mark.parametrize(("answer", "code"), [("0.5", 0), ("0.6", 1), ("", 3)])
def test_the_exit_code_reaches_the_shell(tmp_path: Path, answer: str, code: int) -> None:
    done = rlvr("verify", "math", r"\boxed{1/2}", f"--answer={answer}", cwd=tmp_path)
    assert done.returncode == code
    assert not done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr", "tasks", "show", "math", "-n", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("id")
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr", "verify", "slow", "x", "--plugin", "slow.py", "--timeout", "50"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def on_terminal(*arguments: str, cwd: Path, **more: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr", *arguments],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        | {"TERM": "xterm-256color", "COLUMNS": "80"}
        | more,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while select.select([ours], [], [], 30)[0] and (chunk := os.read(ours, 65536)):
            seen += chunk
    except OSError:  # Linux says so when the other end has closed
        pass
    finally:
        os.close(ours)
        process.wait(30)
    return seen.decode().replace("\r\n", "\n")


def test_tables_are_drawn_on_a_terminal_in_colour_unless_refused(tmp_path: Path) -> None:
    drawn = on_terminal("tasks", cwd=tmp_path, RLVR_DISABLE_PLUGINS="1")
    assert "───" in drawn
    assert "\x1b[" in drawn
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", drawn).splitlines())) <= 80
    assert "\x1b[1;31merror:" in on_terminal("trian", cwd=tmp_path)
    assert "\x1b[31" not in on_terminal("trian", cwd=tmp_path, NO_COLOR="1")


@pytest.fixture(scope="module")
def core_only(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which only rlvr's core dependencies are installed."""
    site = tmp_path_factory.mktemp("site")
    waiting, done = ["cyclopts", "mpmath", "pluggy", "rich"], set()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        distribution = metadata.distribution(name)
        for entry in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = site / entry
            if not link.exists():
                link.symlink_to(str(distribution.locate_file(entry)))
        for requirement in distribution.requires or ():
            if ";" not in requirement:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    root = Path(__file__).parents[2]
    paths = [site, root, *(root / folder for folder in ("verifiers", "sandboxes", "tasks"))]
    return {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PATH": os.environ.get("PATH", "")}


def core(environment: dict[str, str], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "rlvr", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_torch_the_core_works(core_only: dict[str, str], tmp_path: Path) -> None:
    assert (
        core(core_only, "verify", "math", r"\boxed{\sqrt{8}}", "--answer", r"2\sqrt{2}", cwd=tmp_path).returncode == 0
    )
    assert core(core_only, "train", "--dry-run", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("command", ["train", "eval"])
def test_without_torch_training_says_what_to_install(core_only: dict[str, str], tmp_path: Path, command: str) -> None:
    done = core(core_only, command, cwd=tmp_path)
    assert done.returncode == 3
    assert not done.stdout
    assert done.stderr.splitlines() == [
        f"error: `rlvr {command}` needs the extra `train`",
        "hint: pip install 'rlvr[train]'",
    ]


def test_train_and_eval(tmp_path: Path) -> None:
    line = "train --model starter --device cpu --steps 1 --out run --eval.limit 8 --sampler.group-size 4"
    trained = rlvr(*line.split(), "--sampler.prompts-per-step", "4", "--sampler.max-rounds", "1", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout == "run\n"
    assert "held-out accuracy before" in trained.stderr
    assert "held-out accuracy after" in trained.stderr

    line = "eval --model run/final --device cpu --limit 6 --samples 2 --temperature 1 --json"
    measured = rlvr(*line.split(), cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert (found["task"], found["problems"], found["samples"]) == ("math", 6, 2)
    assert found["model"] == str(tmp_path / "run" / "final")
    assert set(found["pass_at"]) == {"1", "2"}
    assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1

    again = rlvr("train", "--model", "starter", "--out", "run", cwd=tmp_path)
    assert again.returncode == 2
    assert "error: `run` is there already and not empty" in again.stderr


def test_check_proves_gsm8k_on_a_local_copy(tmp_path: Path) -> None:
    """On the real rows where they lie beside the repository, else on a few of the same form."""
    data = Path(__file__).parents[2].parent / "shared" / "data" / "tasks" / "gsm8k_train_2000.jsonl"
    if not data.exists():
        data = tmp_path / "gsm8k.jsonl"
        rows = ({"question": f"What is {n} + {n}?", "answer": f"Twice {n}.\n#### {2 * n}"} for n in range(60))
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rlvr("tasks", "check", "gsm8k", "--data", str(data), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"]
    assert sum(t["problems"] for t in found["tallies"] if t["kind"] == "gold") == len(data.read_text().splitlines())
