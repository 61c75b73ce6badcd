"""The guide to plugins, run as printed: packages that `rlvr new` makes are installed with pip, proven and trained."""

from __future__ import annotations

import json
import os
import re
import shlex
import site
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import rlvr

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "make-a-plugin.md"
PIP = "--quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation"

Command = Callable[[str], subprocess.CompletedProcess[str]]


def blocks(language: str) -> list[str]:
    """The fenced code blocks of the guide in one language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment to install into, which sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = [path for path in {*site.getsitepackages(), site.getusersitepackages()} if os.path.isdir(path)]
    (packages / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    return folder / "bin" / "python"


@pytest.fixture
def command(python: Path, tmp_path: Path) -> Command:
    """Runs a line of the guide in that environment."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(line)
        if program == "pip":
            arguments[1:1] = PIP.split()
        elif program == "pytest":
            arguments += ["-q", "-W", "error"]
        environment = os.environ | {"RLVR_DISABLE_PLUGINS": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [str(python), "-m", program, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done

    return run


@pytest.mark.parametrize(("kind", "name", "block"), [("verifier", "one-number", 0), ("task", "my-sums", 1)])
def test_a_new_package_is_proven_and_trains(kind: str, name: str, block: int, command: Command, tmp_path: Path) -> None:
    lines = [line.removeprefix("$ ") for line in blocks("console")[block].strip().splitlines()]
    said = {}
    for line in lines:
        said[line] = command(line)
        if line.startswith("rlvr new"):
            suite = command(f"pytest rlvr-{name}")  # the tests pass before the package is installed, too
            assert "passed" in suite.stdout
    readme = re.findall(r"^\$ (rlvr .*)$", (tmp_path / f"rlvr-{name}" / "README.md").read_text(), re.MULTILINE)
    assert len(readme) >= 3
    assert set(readme) < set(lines)
    made, trained = said[lines[0]], said[lines[-1]]
    assert made.stdout == f"rlvr-{name}\n"
    for later in ("pip install -e", f"rlvr {kind}s check {name}", f"rlvr train --task {name}"):
        assert later in made.stderr
        assert any(line.startswith(later) for line in lines)
    origin = f"plugin rlvr-{name} 0.1.0 (entry point {name})"
    listed = json.loads(command(f"rlvr {kind}s --json").stdout)
    assert not listed["broken"]
    assert origin in [entry["origin"] for entry in listed[f"{kind}s"] if entry["name"] == name]
    run = rlvr.Run(tmp_path / trained.stdout.strip())
    assert run.before is not None
    assert run.after is not None
    assert run.after.accuracy > run.before.accuracy + 0.5
    first = run.metrics()[0]
    assert first["groups"] > 8  # their rewards vary, or they would have been left out
    assert first["missing"] == 0


def test_the_verifier_of_the_guide_is_the_one_that_is_made(command: Command, tmp_path: Path) -> None:
    (shown,) = blocks("python")
    made = json.loads(command("rlvr new verifier only-one --json").stdout)  # the name of the guide is installed by now
    module = (tmp_path / made["package"] / "src" / "rlvr_only_one" / "__init__.py").read_text()
    assert shown.replace("one-number", "only-one") in module
    assert len(shown.strip().splitlines()) <= 15
    assert len(made["next"]) == 3
    assert {"README.md", "src/rlvr_only_one/task.toml"} < set(made["files"])
