"""The guides, run exactly as printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import rlvr

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    text = (GUIDE / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def rlvr_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlvr", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_the_verifier_of_the_guide(tmp_path: Path) -> None:
    plugin = blocks("write-a-verifier.md", "python")[0]
    assert len(plugin.strip().splitlines()) <= 15
    (tmp_path / "words.py").write_text(plugin)
    command, printed = blocks("write-a-verifier.md", "console")[0].strip().split("\n", 1)
    done = rlvr_command(tmp_path, "verify", *shlex.split(command)[3:])
    assert done.returncode == 1
    assert done.stdout.strip() == printed.strip()
    passed = rlvr_command(tmp_path, "verify", "word-limit", "to be", "--max-words", "5", "--plugin", "words.py")
    assert passed.returncode == 0
    script = blocks("write-a-verifier.md", "python")[1]
    done = subprocess.run(
        [sys.executable, "-c", script.replace("rlvr.verify(", "assert rlvr.verify(")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (task,), (rows,) = blocks("write-a-task.md", "toml"), blocks("write-a-task.md", "csv")
    assert len(task.strip().splitlines()) <= 12
    (tmp_path / "tables.toml").write_text(task)
    (tmp_path / "tables.csv").write_text(rows)
    return tmp_path


def test_the_task_of_the_guide(tables: Path) -> None:
    shown = rlvr_command(tables, "tasks", "show", "./tables.toml", "-n", "1")
    assert shown.returncode == 0, shown.stderr
    assert "What is" in shown.stdout
    checked = rlvr_command(tables, "tasks", "check", "./tables.toml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    trained = rlvr_command(tables, "train", "--task", "./tables.toml")
    assert trained.returncode == 0, trained.stderr
    steps = rlvr.Run(tables / trained.stdout.strip()).metrics()
    assert sum(step["pass_rate"] for step in steps[-3:]) > sum(step["pass_rate"] for step in steps[:3])


def test_the_python_task_of_the_guide(tmp_path: Path) -> None:
    (plugin,) = blocks("write-a-task.md", "python")
    (tmp_path / "squares.py").write_text(plugin)
    checked = rlvr_command(tmp_path, "tasks", "check", "squares", "--plugin", "squares.py")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def has_lines(printed: str, wanted: str) -> None:
    """Every line of the guide is printed, in its order; `...` stands for any."""
    rest = printed.split("\n")
    for line in wanted.strip("\n").split("\n"):
        if line != "...":
            assert line in rest, f"{line!r} is not in\n{printed}"
            rest = rest[rest.index(line) + 1 :]


def test_the_kit_of_the_guide(tmp_path: Path) -> None:
    plugin, counted, silent, test = blocks("check-a-verifier.md", "python")
    math, red, measured = (block.split("\n", 1) for block in blocks("check-a-verifier.md", "console"))
    (row,) = blocks("check-a-verifier.md", "json")
    (tmp_path / "brief.py").write_text(plugin)
    (tmp_path / "labelled.jsonl").write_text(row)
    (tmp_path / "test_brief.py").write_text(test)

    done = rlvr_command(tmp_path, *shlex.split(math[0])[2:])
    assert done.returncode == 0, done.stdout
    has_lines(done.stdout, math[1])
    done = rlvr_command(tmp_path, *shlex.split(red[0])[2:])
    assert done.returncode == 1, done.stdout
    has_lines(done.stdout, red[1])
    done = rlvr_command(tmp_path, *shlex.split(measured[0])[2:])
    assert done.returncode == 0, done.stdout
    assert "cases as labelled: 1 of 1" in done.stdout

    lines = plugin.split("\n")
    (old,) = (line for line in lines if "words, limit = " in line)
    (last,) = (line for line in lines if "two too many" in line)
    mended = "import re\n" + plugin.replace(old, counted.strip("\n")).replace(last, f"{last}\n{silent.strip(chr(10))}")
    (tmp_path / "brief.py").write_text(mended)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_brief.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
