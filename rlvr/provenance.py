"""What the rewards of a run come from: task, verifiers, plugin files; so that a resumed run says what has changed."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rlvr.composition import as_json, leaves
from rlvr.modelserver import FACTS
from rlvr.registry import Registry
from rlvr.types import Task


def provenance(tasks: Iterable[Task], registry: Registry) -> dict[str, str]:
    """By name, what can be told of the version of each thing that a reward depends on."""
    found = {}
    for task in tasks:
        judge = [as_json(task.verifier), dict(task.verifier_options)]
        found[f"task `{task.name}`"] = f"version {task.version}"
        found[f"the judge of `{task.name}`"] = json.dumps(
            judge, sort_keys=True, default=lambda value: type(value).__name__
        )
        for part in leaves(task.verifier, task.verifier_options):
            spec = registry.verifier(str(part.verifier))
            found[f"verifier `{spec.name}`"] = f"{spec.origin}, code {source_digest(spec.fn)}"
            if spec.learned:
                # It has the checksum of the weights.
                facts = Path(str(part.options.get("model", ""))).expanduser() / FACTS
                found[f"the reward model of `{task.name}`"] = digest([facts])
    for file in registry.plugin_files:
        found[f"plugin `{Path(file).name}`"] = f"code {digest([Path(file)])}"
    return found


def changes(then: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, one line each."""
    names = {**then, **now}
    return [f"{name} was {then.get(name)}, and is {now.get(name)}" for name in names if then.get(name) != now.get(name)]


def source_digest(fn: Callable[..., Any]) -> str:
    """Tells versions of a function apart by its file, or by all of the package that it is in."""
    try:
        file = Path(inspect.getsourcefile(inspect.unwrap(fn)) or "")
    except TypeError:  # no function, but something that can be called
        file = Path(inspect.getsourcefile(type(fn)) or "")
    packaged = (file.parent / "__init__.py").is_file()
    return digest(sorted(file.parent.glob("*.py")) if packaged else [file])


def digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes() if file.is_file() else b"")
    return found.hexdigest()[:12]
