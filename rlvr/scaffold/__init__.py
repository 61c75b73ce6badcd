"""Writes new packages: a verifier with a task that trains with it, or a task alone.

What they are made of lies in `templates`; `@name@`, `@module@`, `@verifier@` and `@summary@` are filled in.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal

from rlvr.errors import UsageError
from rlvr.registry import Registry
from rlvr.taskfile import NAME

Kind = Literal["verifier", "task"]

_BOTH = {
    "pyproject.toml": "pyproject.toml",
    "src/@module@/task.toml": "task.toml",
    "src/@module@/sums.csv": "sums.csv",
    "tests/conftest.py": "conftest.py",
}
LONGEST = 40
"""Characters in a name: so much fits into the lines of the templates."""

FILES: dict[Kind, dict[str, str]] = {
    "verifier": {
        "README.md": "verifier.md",
        "src/@module@/__init__.py": "verifier.py",
        "tests/test_verifier.py": "test_verifier.py",
        **_BOTH,
    },
    "task": {
        "README.md": "task.md",
        "src/@module@/__init__.py": "task.py",
        "tests/test_task.py": "test_task.py",
        **_BOTH,
    },
}
"""The files of a package, each with its template."""

_SUMMARY = {
    "verifier": "The verifier `@name@` for rlvr: the only whole number in a reply has to be the answer.",
    "task": "The task `@name@` for rlvr: sums of two numbers.",
}
_MARK = re.compile("@(name|module|verifier|summary)@")


def create(kind: Kind, name: str, out: str | os.PathLike[str], known: Registry) -> Path:
    """Makes a package whole, or not at all.

    Args:
        kind: What it is to hold.
        name: The verifier's and the task's name.
        out: The folder to put it in.
        known: Names that are taken.

    Returns:
        The package's folder, `out/rlvr-NAME`.

    Raises:
        UsageError: The name does not fit or is taken, `out` is no folder, or the package's folder is there already.
        OSError: The files cannot be written.
    """
    module = f"rlvr_{name.replace('-', '_')}"
    _check_name(kind, name, module, known)
    parent, folder = Path(out), f"rlvr-{name}"
    if not parent.is_dir():
        raise UsageError(f"`{parent}` is no folder", "give one that exists")
    if os.path.lexists(parent / folder):
        raise UsageError(f"`{parent / folder}` exists already", "remove it, or choose another name or `--out`")
    values = {
        "name": name,
        "module": module,
        "verifier": name if kind == "verifier" else "math",
        "summary": _SUMMARY[kind].replace("@name@", name),
    }
    with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=parent) as scratch:
        _write(kind, Path(scratch, folder), values)
        os.rename(Path(scratch, folder), parent / folder)
    return parent / folder


def _check_name(kind: Kind, name: str, module: str, known: Registry) -> None:
    """A name has to fit, and neither what is registered nor the modules of Python may have it."""
    if not NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789") or f"my-{kind}"
        raise UsageError(
            f"`{name}` cannot name a {kind}", f"use lower-case words joined by hyphens, such as `{better}`"
        )
    if len(name) > LONGEST:
        raise UsageError(f"`{name}` has {len(name)} characters", f"choose a name of at most {LONGEST}")
    if kind == "verifier" and name in known.verifiers:
        taken = f"verifier named `{name}` already ({known.verifiers[name].origin})"
    elif name in known.tasks:
        taken = f"task named `{name}` already ({known.tasks[name].source})"
    elif importlib.util.find_spec(module) is not None:
        taken = f"module named `{module}` already"
    else:
        return
    raise UsageError(f"there is a {taken}", f"choose another name, such as `my-{name}`")


def _write(kind: Kind, folder: Path, values: Mapping[str, str]) -> None:
    templates = resources.files(__name__) / "templates"
    for target, template in FILES[kind].items():
        file = folder / _filled(target, values)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{template}.in").read_text(encoding="utf-8")
        file.write_text(_filled(text, values), encoding="utf-8")


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _MARK.sub(lambda match: values[match[1]], text)
