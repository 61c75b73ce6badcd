"""New packages: what is in them, which names they take, and that a failure leaves nothing behind."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from rlvr import scaffold
from rlvr.cli import main
from rlvr.errors import UsageError
from rlvr.registry import Registry
from rlvr.scaffold import FILES, LONGEST, Kind, create

ROOT = Path(__file__).parents[2]
NAMES = ["word-limit", "class", "top-5-e2e", "x", "a" * 19 + "-" + "b" * (LONGEST - 20)]


@pytest.fixture(scope="module")
def known() -> Registry:
    return Registry.load()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_verifier_and_its_task_in_one_package(tmp_path: Path, known: Registry) -> None:
    made = create("verifier", "word-limit", tmp_path, known)
    assert made == tmp_path / "rlvr-word-limit"
    assert files(tmp_path) == {
        f"rlvr-word-limit/{file}"
        for file in (
            "README.md",
            "pyproject.toml",
            "src/rlvr_word_limit/__init__.py",
            "src/rlvr_word_limit/task.toml",
            "src/rlvr_word_limit/sums.csv",
            "tests/conftest.py",
            "tests/test_verifier.py",
        )
    }
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["name"] == "rlvr-word-limit"
    assert project["dependencies"] == ["rlvr"]
    assert project["entry-points"] == {"rlvr": {"word-limit": "rlvr_word_limit"}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", FILES)
def test_any_name_makes_a_plugin_that_loads(kind: Kind, name: str, tmp_path: Path, known: Registry) -> None:
    made = create(kind, name, tmp_path, known)
    (module,) = made.glob("src/*/__init__.py")
    assert module.parent.name.isidentifier()
    registry = Registry.load([module])
    assert (name in registry.verifiers) == (kind == "verifier")
    task = registry.task(name)
    assert task.verifier == (name if kind == "verifier" else "math")
    train, test = list(task.load("train")), list(task.load("test"))
    assert len(train) > 5 * len(test) > 50
    assert all(sample.answer == str(int(sample.meta["a"]) + int(sample.meta["b"])) for sample in [*train, *test])


@pytest.mark.parametrize("kind", FILES)
def test_what_is_written_passes_the_linters_of_this_project(kind: Kind, tmp_path: Path, known: Registry) -> None:
    for name in NAMES:
        create(kind, name, tmp_path, known)
    for command in ("check", "format --check"):
        ruff = [sys.executable, "-m", "ruff", *command.split(), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_template_is_used_and_every_mark_is_filled(tmp_path: Path, known: Registry) -> None:
    used = {f"{template}.in" for table in FILES.values() for template in table.values()}
    assert used == {file.name for file in (resources.files("rlvr.scaffold") / "templates").iterdir()}
    for kind in FILES:
        made = create(kind, f"some-{kind}", tmp_path, known)
        for file in files(made):
            assert "@name@" not in file
            assert "@module@" not in file
            assert not scaffold._MARK.search((made / file).read_text())


@pytest.mark.parametrize(
    ("name", "better"),
    [("Word Limit", "word-limit"), ("word_limit", "word-limit"), ("5-top", "top"), ("", "my-verifier"), ("../x", "x")],
)
def test_a_name_that_does_not_fit(name: str, better: str, tmp_path: Path, known: Registry) -> None:
    with pytest.raises(UsageError) as caught:
        create("verifier", name, tmp_path, known)
    assert caught.value.message == f"`{name}` cannot name a verifier"
    assert f"`{better}`" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long(tmp_path: Path, known: Registry) -> None:
    with pytest.raises(UsageError, match="has 41 characters"):
        create("task", "a" * 41, tmp_path, known)


@pytest.mark.parametrize(
    ("kind", "name", "taken"),
    [
        ("verifier", "code", "verifier named `code`"),
        ("verifier", "gsm8k", "task named `gsm8k`"),
        ("task", "math", "task named `math`"),
        ("task", "tasks", "module named `rlvr_tasks`"),
        ("verifier", "verifiers", "module named `rlvr_verifiers`"),
    ],
)
def test_a_name_that_is_taken(kind: Kind, name: str, taken: str, tmp_path: Path, known: Registry) -> None:
    with pytest.raises(UsageError) as caught:
        create(kind, name, tmp_path, known)
    assert caught.value.message.startswith(f"there is a {taken} already")
    assert f"`my-{name}`" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_stays_as_it_is(tmp_path: Path, known: Registry) -> None:
    (tmp_path / "rlvr-mine").mkdir()
    (tmp_path / "rlvr-ours").symlink_to("nowhere")
    for name in ("mine", "ours"):
        with pytest.raises(UsageError, match=f"`.*/rlvr-{name}` exists already"):
            create("task", name, tmp_path, known)
    assert {path.name for path in tmp_path.iterdir()} == {"rlvr-mine", "rlvr-ours"}
    assert not list((tmp_path / "rlvr-mine").iterdir())


def test_where_there_is_no_folder(tmp_path: Path, known: Registry) -> None:
    (tmp_path / "file").touch()
    for out in ("file", "missing"):
        with pytest.raises(UsageError, match="is no folder"):
            create("task", "mine", tmp_path / out, known)


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES["verifier"], "tests/last.py", "missing")
    with pytest.raises(FileNotFoundError):
        create("verifier", "mine", tmp_path, known)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_made_and_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "verifier", "mine"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "rlvr-mine\n"
    assert "  src/rlvr_mine/__init__.py\n" in printed.err
    assert printed.err.endswith(
        "next:\n  pip install -e ./rlvr-mine\n  rlvr verifiers check mine\n  rlvr train --task mine\n"
    )
    out = tmp_path / "with space"
    out.mkdir()
    assert main(["new", "task", "mine", "--out", str(out), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["package"] == str(out / "rlvr-mine")
    assert set(made["files"]) == files(out / "rlvr-mine")
    assert shlex.split(made["next"][0]) == ["pip", "install", "-e", str(out / "rlvr-mine")]
    assert made["next"][1:] == ["rlvr tasks check mine", "rlvr train --task mine"]
    assert main(["new", "task", "mine", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
