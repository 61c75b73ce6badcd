"""A real plugin package, built and installed with pip, is found, used, left out and isolated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).parents[1] / "plugin_package"
IMPORTS = "import json\nfrom rlvr import Completion, PluginError, Registry, RlvrError, Sample\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package (hatchling is one of the test requirements)."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(target), str(PACKAGE)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture
def changed_site(site: Path, tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of the installed package with one text in its module replaced by another."""

    def change(old: str, new: str) -> Path:
        copy = shutil.copytree(site, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__"))
        module = copy / "rlvr_example" / "__init__.py"
        text = module.read_text()
        assert old in text
        module.write_text(text.replace(old, new))
        return copy

    return change


def python(site: Path, code: str, **environ: str) -> Any:
    """What `code` prints as JSON in a fresh interpreter that sees the folder."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS + code],
        env={**os.environ, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NAMES = """
r = Registry.load()
print(json.dumps([sorted(r.verifiers), sorted(r.shapers), sorted(r.sandboxes), sorted(r.tasks)]))
"""
ERROR = """
try:
    Registry.load()
except PluginError as error:
    print(json.dumps([error.message, error.hint]))
"""


def test_everything_in_the_package_is_registered_under_its_distribution(site: Path) -> None:
    verifiers, shapers, sandboxes, tasks = python(site, NAMES)
    assert {"math", "prints", "word-limit"} <= set(verifiers)
    assert {"binary", "partial", "per-word"} <= set(shapers)
    assert "plain-process" in sandboxes
    assert {"math", "gsm8k", "short-replies"} <= set(tasks)
    origins = python(
        site,
        """
r = Registry.load()
print(json.dumps([r.verifier("word-limit").origin, r.shaper("per-word").origin,
                  r.sandbox("plain-process").origin, r.task("short-replies").source]))
""",
    )
    assert set(origins) == {"plugin rlvr-example 0.1 (entry point example)"}


def test_its_task_verifier_and_shaper_work_together(site: Path) -> None:
    found = python(
        site,
        """
r = Registry.load()
task = r.task("short-replies")
sample = list(task.load("train"))[2]
reply = Completion("11 it is")
verifier = r.verifier(task.verifier)
verdict = verifier(reply, sample, **task.verifier_options)
print(json.dumps([sample.prompt, len(list(task.load("test"))), verdict.passed, verdict.detail,
                  r.shaper("per-word")(verifier(Completion("11"), sample), Completion("11"))]))
""",
    )
    prompt = "Name a prime above 10.\nUse no more words than you must."
    assert found == [prompt, 1, False, "2 words, limit 1", 1.0]


def test_its_sandbox_runs_programs_for_the_verifier_that_asks(site: Path) -> None:
    found = python(
        site,
        """
r = Registry.load()
spec, verifier = r.sandbox("plain-process"), r.verifier("prints")
box = spec()
good = verifier(Completion("print(6 * 7)"), Sample("a", answer=42), box)
slow = box.run("import time; time.sleep(60)", timeout=0.2)
box.close()
print(json.dumps([spec.safe, verifier.wants_sandbox, verifier.timeout, good.passed, slow.killed_by]))
""",
    )
    assert found == [False, True, 20, True, "timeout"]


@pytest.mark.parametrize("value", ["1", "all", "example", "other, rlvr_example"])
def test_it_can_be_left_out(site: Path, value: str) -> None:
    verifiers, _, _, tasks = python(site, NAMES, RLVR_DISABLE_PLUGINS=value)
    assert "math" in verifiers
    assert "word-limit" not in verifiers
    assert "short-replies" not in tasks


def test_an_import_that_fails_is_isolated(changed_site: Callable[[str, str], Path]) -> None:
    site = changed_site("from rlvr_example.process", "import not_installed_anywhere\nfrom rlvr_example.process")
    found = python(
        site,
        """
r = Registry.load()
[broken] = r.broken
errors = []
for name in ("example", "rlvr-example", "word-limit"):
    try:
        r.verifier(name)
    except RlvrError as error:
        errors.append([type(error).__name__, error.message, error.hint])
facts = [sorted(r.verifiers), broken.name, broken.distribution, broken.cause, broken.traceback]
print(json.dumps([*facts, errors]))
""",
    )
    verifiers, name, distribution, cause, trace, errors = found
    assert "math" in verifiers
    assert (name, distribution) == ("example", "rlvr-example 0.1")
    assert cause.startswith("ModuleNotFoundError: No module named 'not_installed_anywhere' (")
    assert cause.endswith(f"{site}/rlvr_example/__init__.py:4)")
    assert "import not_installed_anywhere" in trace
    by_name, by_distribution, unknown = errors
    assert by_name[0] == by_distribution[0] == "PluginError"
    assert "rlvr-example 0.1" in by_name[1]
    assert "not_installed_anywhere" in by_name[1]
    assert unknown[0] == "UnknownNameError"
    assert "rlvr-example 0.1 is broken" in unknown[2]


def test_a_misspelt_hook_is_an_error_that_says_who(changed_site: Callable[[str, str], Path]) -> None:
    message, hint = python(changed_site("def rlvr_shapers", "def rlvr_shaper"), ERROR)
    assert "plugin rlvr-example 0.1 (entry point example)" in message
    assert "`rlvr_shaper`" in message
    assert "`rlvr_shapers`" in hint
    assert "RLVR_DISABLE_PLUGINS=example" in hint


def test_a_name_that_is_taken_is_an_error_that_says_by_whom(changed_site: Callable[[str, str], Path]) -> None:
    message, hint = python(changed_site('@verifier("prints"', '@verifier("math"'), ERROR)
    assert message == (
        "the verifier `math` is registered twice: built-in, plugin rlvr-example 0.1 (entry point example)"
    )
    assert "RLVR_DISABLE_PLUGINS=example" in hint
