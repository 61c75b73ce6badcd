"""Runs a chain of stages, each in a process of its own, and goes on with one that was stopped.

pipeline.json      what was done: of each stage its settings, its inputs with their digests, its times and its exit code
recipe.toml        the recipe
01-sft/ ...        the run of each stage
01-sft.toml        the settings that it was given
01-sft.log         what it printed
report.md          what came of all of them

A stage's process is told to stop when this one is, and ends when this one dies, however that comes about. It holds the
lock of the directory as well, so that nothing else writes there while it writes its last checkpoint.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from rich.console import Console

from rlvr.accuracy import Evaluation
from rlvr.config import to_toml
from rlvr.errors import ConfigError, DataError, MissingDependencyError, RlvrError
from rlvr.pipeline.recipe import POLICIES, Plan, Stage, at, layer_toml, plan, read_recipe
from rlvr.pipeline.report import write_report
from rlvr.runlog import Run, read_jsonl, write_atomically
from rlvr.scoring_worker import PR_SET_PDEATHSIG, prctl

FORMAT = 1
POLL = 0.1  # seconds between looks at a stage's process
LOCK_WAIT = 120.0  # seconds that the last checkpoint of a killed chain may take
ENDING = 120.0  # seconds for a stage to end in when this process has to
WHOLE, SPOT, SPOTS = 2**26, 2**20, 64  # bytes of a file that is digested whole, and of each spot of a larger one

NEW, GO_ON, DONE, AGAIN = "new", "go on", "done", "again"


class StageFailed(RlvrError):
    """A stage ended with an exit code other than 0; this error has the same one."""


@dataclass
class Record:
    """What is known of a stage, as it stands in `pipeline.json`.

    Attributes:
        name, run: Its name and its command.
        folder: The name of its run's directory.
        status: `pending`, `running`, `done`, `failed` or `interrupted`.
        command: What was started.
        settings: All settings of the command, by dotted name.
        inputs: Digests of what they name, by setting.
        started, ended: When it last was.
        seconds: How long it took, over all starts.
        exit_code: Of the last start.
        accuracy: After it, as the chain measures it; of `rlvr eval` what it found.
        origins: Where settings came from that are no defaults.
        model: The digest of what it trained.
    """

    name: str
    run: str
    folder: str
    status: str = "pending"
    command: Sequence[str] = ()
    settings: Mapping[str, Any] | None = None
    inputs: Mapping[str, str] | None = None
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
    accuracy: Mapping[str, Any] | None = None
    origins: Mapping[str, str] | None = None
    model: str = ""

    @classmethod
    def of(cls, stage: Stage) -> Record:
        return cls(stage.name, stage.run, stage.folder.name)


class Chain:
    """A chain in its directory.

    Args:
        plan: The recipe, laid out there.
        cwd: The folder that relative paths of the recipe start from.
        records: What is known of stages from earlier starts, in order.
    """

    def __init__(self, plan: Plan, cwd: str = "", records: Sequence[Record] = ()) -> None:
        self.plan = plan
        self.path = plan.path
        self.cwd = cwd or os.getcwd()
        self.records = list(records)
        self.console = Console(stderr=True)
        self.interrupts = 0

    # ------------------------------------------------------------------------------------------- what to do

    def todo(self, again: str = "") -> list[str]:
        """What is to be done with each stage: `new`, `go on`, `done` (so nothing), or `again`.

        Args:
            again: The stage from which on everything is done anew.

        Raises:
            ConfigError: A stage that has begun is no longer what the recipe says; or there is no stage `again`.
        """
        names = [stage.name for stage in self.plan.stages]
        if again and again not in names:
            raise ConfigError(
                f"the recipe has no stage `{again}`", "its stages are " + ", ".join(f"`{n}`" for n in names)
            )
        first = names.index(again) if again else len(names)
        with contextlib.chdir(self.cwd):
            return [self.what(place, stage, place >= first) for place, stage in enumerate(self.plan.stages)]

    def what(self, place: int, stage: Stage, again: bool) -> str:
        """What is to be done with one stage."""
        record = self.records[place] if place < len(self.records) else None
        if record is None or not (record.status == "done" or began(self.path / record.folder)):
            return NEW
        if again:
            return AGAIN
        if changes := self.changes(stage, record):
            raise ConfigError(
                f"stage `{stage.name}` is {'done' if record.status == 'done' else 'under way'}, but "
                + "; ".join(changes),
                f"`--from {stage.name}` does it and what follows anew, or take the change back",
            )
        return DONE if record.status == "done" or complete(stage) else GO_ON

    def changes(self, stage: Stage, record: Record) -> list[str]:
        """How a stage differs from what was run, in words."""
        if (stage.name, stage.run) != (record.name, record.run):
            return [f"it was `{record.name}` (`rlvr {record.run}`) then"]
        now, then = stage.values, dict(record.settings or {})
        names = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
        found = [f"`{name}` was `{then.get(name)}` and is `{now.get(name)}`" for name in names]
        digests = inputs(stage)
        for name, digest in (record.inputs or {}).items():
            if name not in names and digests.get(name) != digest:
                found.append(f"what its `{name}` refers to has changed")
        if record.status == "done" and stage.run in (*POLICIES, "reward") and not (stage.folder / "final").is_dir():
            found.append("its model is gone")
        return found

    def command(self, stage: Stage, what: str) -> list[str]:
        """The command line of a stage."""
        start = list(stage.entry.launch) or [sys.executable, "-m", "rlvr"]
        if stage.run == "eval":
            return [*start, "eval", "--config", str(self.file(stage, ".toml")), "--json"]
        if what == GO_ON:
            return [*start, stage.run, "--resume", str(stage.folder)]
        return [*start, stage.run, "--config", str(self.file(stage, ".toml")), "--out", str(stage.folder)]

    def file(self, stage: Stage, suffix: str) -> Path:
        return stage.folder.with_name(stage.folder.name + suffix)

    # ------------------------------------------------------------------------------------------- doing it

    def run(self, again: str = "") -> None:
        """Does what is left to do, stage by stage, and writes the report.

        Raises:
            ConfigError: As `todo`.
            StageFailed: A stage ended with an exit code other than 0.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the stage under way has been told to write its checkpoint.
        """
        for stage in self.plan.stages:
            if stage.entry.launch and not shutil.which(stage.entry.launch[0]):
                raise MissingDependencyError(
                    f"stage `{stage.name}` is launched by `{stage.entry.launch[0]}`, which is not on this machine",
                    "install it, or change `launch`",
                )
        self.path.mkdir(parents=True, exist_ok=True)
        with lock(self.path) as held, self.signals(), contextlib.chdir(self.cwd):
            if self.records:  # as whoever held the lock has left them
                self.records = read_state(self.path)[1]
            todo = self.todo(again)
            write_atomically(self.path / "recipe.toml", self.plan.recipe.text)
            self.records = [
                self.records[place] if place < len(self.records) and what in (GO_ON, DONE) else Record.of(stage)
                for place, (stage, what) in enumerate(zip(self.plan.stages, todo, strict=True))
            ]
            for place, (stage, what) in enumerate(zip(self.plan.stages, todo, strict=True)):
                record, title = self.records[place], f"stage {place + 1}/{len(todo)} {stage.name}"
                if what == DONE:
                    record.status = "done"
                    self.say(f"{title}: done before")
                else:
                    if what == AGAIN or (what == NEW and stage.folder.exists()):
                        self.clear(stage)
                    self.say(f"{title}: rlvr {stage.run}" + (", going on" if what == GO_ON else ""))
                    self.do(stage, record, what, held)
                self.conclude(place, stage, record, held)
                self.save()
            write_report(self.path)
            self.say(f"report {self.path / 'report.md'}")

    def do(self, stage: Stage, record: Record, what: str, held: int) -> None:
        """Runs one stage to its end."""
        write_atomically(self.file(stage, ".toml"), layer_toml(stage.settings))
        record.command = self.command(stage, what)
        record.settings, record.inputs = stage.values, inputs(stage)
        record.origins = {name: origin for name, origin in stage.origins.items() if origin != "default"}
        record.status, record.started, record.exit_code = "running", now(), None
        self.save()
        began = time.monotonic()
        try:
            code = self.execute(record.command, self.file(stage, ".log"), held, self.output(stage))
        finally:
            record.seconds += time.monotonic() - began
            record.ended = now()
        record.exit_code = code
        stopped = self.interrupts > 0 or code == 130
        record.status = "done" if code == 0 else "interrupted" if stopped else "failed"
        self.save()
        if stopped or code:
            write_report(self.path)
        if stopped:
            self.say(f"stopped in stage {stage.name}; go on with: rlvr pipeline --resume {self.path}")
            raise KeyboardInterrupt
        if code:
            error = StageFailed(
                f"stage `{stage.name}` ended with exit code {code}",
                f"what it said is in `{self.file(stage, '.log')}`; go on with: rlvr pipeline --resume {self.path}",
            )
            error.exit_code = code
            raise error

    def output(self, stage: Stage) -> Path:
        """Where a stage's stdout goes: its log, but of `rlvr eval` it is the result."""
        return self.file(stage, ".json") if stage.run == "eval" else self.file(stage, ".log")

    def execute(self, command: Sequence[str], log: Path, held: int, output: Path) -> int:
        """Runs a command until it ends, shows what it writes to `log`, and hands on Ctrl-C; returns its exit code."""
        parent = os.getpid()

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job has it ignored
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with log.open("ab") as err, output.open("wb") if output != log else log.open("ab") as out:
            start = err.tell()
            process = subprocess.Popen(
                command,
                cwd=self.cwd,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # so that Ctrl-C reaches it once, from here
                preexec_fn=prepare,
                pass_fds=[held],
            )
        with log.open("rb") as printed:
            printed.seek(start)
            try:
                return self.follow(process, printed)
            finally:
                end(process)

    def follow(self, process: subprocess.Popen[bytes], printed: IO[bytes]) -> int:
        """Waits for a process to end."""
        handed, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            code = process.poll()
            sys.stderr.write(decoder.decode(printed.read()))
            sys.stderr.flush()
            if code is not None:
                return 128 - code if code < 0 else code
            while handed < self.interrupts:
                handed += 1
                process.send_signal(signal.SIGKILL if handed > 2 else signal.SIGINT)
            time.sleep(POLL)

    def conclude(self, place: int, stage: Stage, record: Record, held: int) -> None:
        """Says what a finished stage came to: held-out accuracy, whether it rose, and the guards that fired."""
        if stage.run in POLICIES and self.plan.yardstick is not None:
            if record.accuracy is None:
                record.accuracy = self.measure(stage, held)
            after, before = record.accuracy, self.accuracy_before(place, stage)
            if after:
                self.say(f"after {stage.name:8}  {Evaluation.from_json(after)}{rise(before, after)}")
        if stage.run == "eval":
            found = without_names(json.loads(self.file(stage, ".json").read_text(encoding="utf-8")))
            record.accuracy = found
            self.say(f"{stage.name:14}  {Evaluation.from_json(found)}")
        if (stage.folder / "final").is_dir():
            record.model = record.model or digest(stage.folder / "final")[:16]
        for alarm in alarms(stage.folder):
            self.say(f"  guard {alarm['guard']} at {alarm['step']}: {alarm['message']}")

    def measure(self, stage: Stage, held: int) -> Mapping[str, Any] | None:
        """Held-out accuracy after a stage, by itself where it measures as the chain does."""
        after = Run(stage.folder).after
        if stage.comparable and after is not None:
            return json.loads((stage.folder / "result.json").read_text(encoding="utf-8"))["after"]
        settings, output = self.file(stage, ".eval.toml"), self.file(stage, ".eval.json")
        assert self.plan.yardstick is not None
        write_atomically(settings, to_toml(self.plan.yardstick))
        start = [sys.executable, "-m", "rlvr", "eval", "--config", str(settings)]
        code = self.execute(
            [*start, "--model", str(stage.folder / "final"), "--json"], self.file(stage, ".log"), held, output
        )
        if self.interrupts:
            raise KeyboardInterrupt
        if code:
            error = StageFailed(f"the model of stage `{stage.name}` could not be measured", "see its log for why")
            error.exit_code = code
            raise error
        return without_names(json.loads(output.read_text(encoding="utf-8")))

    def accuracy_before(self, place: int, stage: Stage) -> Mapping[str, Any] | None:
        """Held-out accuracy of the model that a stage started from: of the stage that made it, or as it measured it."""
        start = Path(str(stage.settings.get("model", "")))
        for earlier, record in zip(self.plan.stages[:place], self.records, strict=False):
            if earlier.folder / "final" == start and record.accuracy:
                return record.accuracy
        file = stage.folder / "result.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return found.get("before") if stage.comparable else None

    def clear(self, stage: Stage) -> None:
        """Puts the results of an earlier attempt aside."""
        for suffix in ("", ".log", ".toml", ".json", ".eval.json", ".eval.toml"):
            old = self.file(stage, suffix)
            if not old.exists():
                continue
            if old.is_dir() and not any(old.iterdir()):
                old.rmdir()
                continue
            number = 1
            while (aside := old.with_name(f"replaced-{number}-{old.name}")).exists():
                number += 1
            old.rename(aside)

    def save(self) -> None:
        """Writes `pipeline.json`."""
        state = {
            "format": FORMAT,
            "name": self.plan.recipe.name,
            "recipe": str(self.plan.recipe.path),
            "cwd": self.cwd,
            "task": self.plan.yardstick.task if self.plan.yardstick else "",
            "stages": [vars(record) for record in self.records],
        }
        write_atomically(self.path / "pipeline.json", json.dumps(state, indent=2) + "\n")

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Counts Ctrl-C and SIGTERM; each is handed on to the stage under way."""

        def note(number: int, frame: FrameType | None) -> None:
            self.interrupts += 1

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def new_chain(recipe: str | Path, path: Path) -> Chain:
    """A chain that has not begun.

    Raises:
        ConfigError: A mistake in the recipe, or the directory is there already and not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            f"`{path}` is there already and not empty",
            f"`rlvr pipeline --resume {path}` goes on with that chain; another `--out` starts afresh",
        )
    return Chain(plan(read_recipe(recipe), path))


def known_chain(path: Path, recipe: str | Path | None = None) -> Chain:
    """A chain that has begun.

    Args:
        path: Its directory.
        recipe: What to go on with in place of the recipe that it has.

    Raises:
        DataError: The directory is no chain.
        ConfigError: A mistake in the recipe.
    """
    state, records = read_state(path)
    cwd, source = str(state["cwd"]), str(state["recipe"])
    read = read_recipe(recipe) if recipe else at(read_recipe(path / "recipe.toml"), source)
    path = path.absolute()
    with contextlib.chdir(cwd if Path(cwd).is_dir() else "."):
        return Chain(plan(read, path), cwd, records)


def read_state(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """What `pipeline.json` says, and of each stage.

    Raises:
        DataError: There is none, or it is damaged.
    """
    try:
        state = json.loads((path / "pipeline.json").read_text(encoding="utf-8"))
        records = [Record(**record) for record in state["stages"]]
        if not isinstance(state["cwd"], str) or state["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
    except FileNotFoundError:
        raise DataError(
            f"`{path}` is no chain: it has no `pipeline.json`", "chains are made by `rlvr pipeline recipe.toml`"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"`{path / 'pipeline.json'}` is damaged: {error}", "start afresh with another `--out`"
        ) from None
    return state, records


# What a stage is made from


def inputs(stage: Stage) -> dict[str, str]:
    """The digest of every file and folder that a setting of a stage names."""
    found = {}
    for name, value in stage.values.items():
        items = value if isinstance(value, list) else [value]
        paths = [Path(item).expanduser() for item in items if isinstance(item, str) and item and len(item) < 4096]
        there = [path for path in paths if path.exists()]
        if there:
            found[name] = hashlib.sha256("".join(map(digest, there)).encode()).hexdigest()[:16]
    return found


def digest(path: Path) -> str:
    """Tells versions of a file apart, or of a folder with a model or a run: by its weights, vocabulary and rows."""
    total = hashlib.sha256()
    if path.is_dir():
        kept = (".safetensors", ".jsonl", "config.json", "tokenizer.json", "tokenizer_config.json")
        files = sorted(f for f in path.iterdir() if f.is_file() and f.name.endswith(kept))
        files = [f for f in files if f.name not in ("metrics.jsonl", "guards.jsonl")]
    else:
        files = [path]
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.name} {size} ".encode())
        with file.open("rb") as opened:
            starts = [0] if size <= WHOLE else [size * spot // SPOTS for spot in range(SPOTS)]
            for start in starts:
                opened.seek(start)
                total.update(opened.read(WHOLE if size <= WHOLE else SPOT))
    return total.hexdigest()


def began(folder: Path) -> bool:
    """Whether a run has begun there."""
    return (folder / "config.toml").is_file()


def complete(stage: Stage) -> bool:
    """Whether a stage's run had ended when the chain was killed: a run of this kind writes its result last."""
    result = stage.folder / "result.json"
    if not (stage.folder / "final").is_dir() or not result.is_file():
        return False
    return stage.run != "train" or "after" in json.loads(result.read_text(encoding="utf-8"))


def alarms(folder: Path) -> list[dict[str, Any]]:
    """What guards found in a run."""
    file = folder / "guards.jsonl"
    return read_jsonl(file) if file.is_file() else []


def rise(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """How accuracy has moved, in words."""
    if not before:
        return ""
    gain = 100 * (after["accuracy"] - before["accuracy"])
    start = f"{before['accuracy']:.1%}"
    if abs(gain) < 0.05:
        return f", as before ({start})"
    return f", {'up' if gain > 0 else 'DOWN'} {abs(gain):.1f} points from {start}"


def without_names(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `rlvr eval --json` printed, as an evaluation's JSON."""
    return {name: value for name, value in found.items() if name not in ("task", "model")}


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that is still there."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[int]:
    """Keeps others from running the chain in this directory; the descriptor is for stages to hold as well.

    Raises:
        ConfigError: Another one still runs it.
    """
    with (path / ".lock").open("w") as file:
        deadline = time.monotonic() + LOCK_WAIT
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"`{path}` is in use: a stage of this chain still runs", "wait for it, or end its process"
                    ) from None
                if not waiting:
                    print(f"waiting for a stage that still runs in {path}", file=sys.stderr)
                waiting = True
                time.sleep(POLL)
        yield file.fileno()


def status_words(todo: Iterable[str]) -> list[str]:
    """What is to be done, as a plan shows it."""
    words = {NEW: "to do", GO_ON: "goes on", DONE: "done, skipped", AGAIN: "done again"}
    return [words[what] for what in todo]
