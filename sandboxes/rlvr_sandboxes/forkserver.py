"""The host's side of the fork server: sends jobs over a channel, reads what came of them.

A backend says how to start the fork server (`docker`, `bubblewrap`, `unsafe_subprocess`); everything else is the same
for all of them and here. One sandbox runs one execution at a time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import select
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, Protocol

from rlvr import Call, Calls, Check, Execution, Judgement, Opaque, Returned, RlvrError
from rlvr_sandboxes.inside import codec

HEADER = struct.Struct("!BI")
JOB = struct.Struct("!BIIIII")
END = struct.Struct("!iiBBqqq")
RUN, CALL, JUDGE = 1, 2, 3
HELLO, RECORD, STDOUT, STDERR, VERDICT, NOISE, DONE = 9, 10, 11, 12, 13, 14, 15
NOTHING, TIMEOUT, OUTPUT, STARVED, MEMORY = 0, 1, 2, 3, 4

MODULES = (
    *("codec", "confine", "kernel", "remote", "serving", "standins", "proxies"),
    *("solution", "judge", "zygote"),
)
"""The modules of `inside`, in the order in which they import each other."""

OUTPUT_LIMIT = 4 << 20
"""Bytes that an execution may print and return, all streams together."""

GRACE = 5.0
"""Seconds beyond an execution's own clock after which the sandbox itself counts as lost."""

START_SECONDS = 30.0
"""How long a sandbox may take to start."""


UP = b'{"up":1}\n'
"""What a process says before it turns to its job; until then no hostile code has run in it."""

FLAGS = ("lying-object", "swallowed-assert")
"""Attempts to forge that are noticed inside."""

CHECK = "`rlvr sandbox check` tries it out"


class Lost(Exception):
    """The sandbox went away, or does not answer: says nothing about the program that ran in it."""


class Channel(Protocol):
    """A stream of bytes to a fork server."""

    def send(self, data: bytes) -> None:
        """Writes all of `data`. Raises OSError when the other end is gone."""

    def recv(self, size: int, timeout: float) -> bytes:
        """At most `size` bytes; empty at the end. Raises TimeoutError, or OSError when the other end is gone."""

    def close(self) -> None: ...


@dataclass
class Report:
    """What came of one job: the streams, and how it ended.

    Attributes:
        streams: Bytes by kind of stream.
        status, judge_status: Wait status of the solution and of the judge; -1 when killed before its end.
        reason: What ended it: NOTHING, TIMEOUT, OUTPUT or STARVED.
        dirty: Whether the sandbox is not fit for another job.
        wall, cpu, waited: Seconds: of wall clock, of processor time, and of waiting for a processor.
    """

    streams: dict[int, bytearray] = field(default_factory=lambda: {k: bytearray() for k in range(RECORD, DONE)})
    status: int = -1
    judge_status: int = -1
    reason: int = NOTHING
    dirty: bool = False
    wall: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0

    def text(self, kind: int) -> str:
        return self.streams[kind].decode("utf-8", "surrogateescape")


@functools.cache
def sources() -> list[tuple[str, str]]:
    """Names and text of the modules that run inside."""
    folder = resources.files("rlvr_sandboxes") / "inside"
    return [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES]


@functools.cache
def boot() -> str:
    """The first program inside, as `python3 -c` takes it."""
    return (resources.files("rlvr_sandboxes") / "inside" / "boot.py").read_text(encoding="utf-8")


@functools.cache
def version() -> str:
    """Changes whenever the source of what runs inside does."""
    return hashlib.sha256(json.dumps([boot(), sources()]).encode()).hexdigest()[:16]


def setup(users: bool, places: Sequence[str] = (), stay: bool = False) -> bytes:
    """The first message to a new sandbox: the source, and what it may assume.

    Args:
        users: It may give every execution a user of its own.
        places: Where executions may write; empty takes what is writable.
        stay: It serves further hosts after the first.
    """
    config = {
        "users": users,
        "avoid": [os.getuid(), os.getgid()],  # who may enter the folder with the socket
        "places": list(places),
        "stay": stay,
        "version": version(),
    }
    message = json.dumps({"modules": sources(), "config": config}).encode()
    return len(message).to_bytes(4, "big") + message


class Connection:
    """A fork server that has said hello.

    Raises:
        Lost: It did not, in time.
    """

    def __init__(self, channel: Channel, deadline: float) -> None:
        self.channel = channel
        self.buffer = bytearray()
        kind, data = self.frame(deadline)
        if kind != HELLO:
            raise Lost("the sandbox did not start as it should")
        self.facts: dict[str, Any] = json.loads(data)

    def run(self, mode: int, payload: bytes, judge: bytes, timeout: float, memory_mb: int) -> Report:
        """Runs one job.

        Raises:
            Lost: The sandbox went away or does not answer.
        """
        start = time.monotonic()
        deadline = start + 2 * timeout + GRACE
        header = JOB.pack(mode, int(timeout * 1000), memory_mb, OUTPUT_LIMIT, len(payload), len(judge))
        try:
            self.channel.send(header + payload + judge)
        except OSError as error:
            raise Lost(f"the sandbox hung up: {error}") from None
        report = Report()
        while True:
            kind, data = self.frame(deadline)
            if kind == DONE:
                status, judge_status, reason, dirty, wall, cpu, waited = END.unpack(data)
                report.status, report.judge_status, report.reason, report.dirty = (
                    status,
                    judge_status,
                    reason,
                    bool(dirty),
                )
                report.wall, report.cpu, report.waited = wall / 1e6, cpu / 1e6, waited / 1e6
                return report
            report.streams[kind] += data

    def frame(self, deadline: float) -> tuple[int, bytes]:
        head = self.take(HEADER.size, deadline)
        kind, size = HEADER.unpack(head)
        return kind, self.take(size, deadline)

    def take(self, size: int, deadline: float) -> bytes:
        while len(self.buffer) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Lost("the sandbox does not answer")
            try:
                data = self.channel.recv(1 << 18, left)
            except TimeoutError:
                raise Lost("the sandbox does not answer") from None
            except OSError as error:
                raise Lost(f"the sandbox hung up: {error}") from None
            if not data:
                raise Lost("the sandbox ended")
            self.buffer += data
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def close(self) -> None:
        self.channel.close()


class SocketChannel:
    """A connected socket, as a channel."""

    def __init__(self, link: Any) -> None:
        self.link = link

    def send(self, data: bytes) -> None:
        self.link.settimeout(GRACE)
        self.link.sendall(data)

    def recv(self, size: int, timeout: float) -> bytes:
        self.link.settimeout(timeout)
        data: bytes = self.link.recv(size)
        return data

    def close(self) -> None:
        self.link.close()


class PipeChannel:
    """The standard streams of a process, as a channel. Whoever started the process closes them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.writer, self.reader = process.stdin.fileno(), process.stdout.fileno()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.writer, view) :]

    def recv(self, size: int, timeout: float) -> bytes:
        if not select.select([self.reader], [], [], timeout)[0]:
            raise TimeoutError
        return os.read(self.reader, size)

    def close(self) -> None:
        pass


class ForkServerSandbox:
    """A sandbox whose executions are forks of one warm process.

    Subclasses start that process, and stop it. Every method may be called from one thread at a time.

    Attributes:
        name: The name of the backend.
        isolation: How it isolates; complete once it has started.
        uses: Executions after which the process is replaced all the same.
    """

    name = "fork-server"
    uses = 5_000
    retry_seconds = 30.0
    """How long to go on trying to start when the backend fails, before the failure is passed on."""

    def __init__(self) -> None:
        self.isolation: Mapping[str, Any] = {"backend": self.name}
        self.connection: Connection | None = None
        self.used = 0
        self.recycled = 0
        self._lock = threading.Lock()
        self._refused_until = 0.0
        self._refusal: RlvrError | None = None

    # What a backend provides

    def start(self) -> Connection:
        """A new process that has said hello.

        Raises:
            Lost: It did not start; another try may help.
            RlvrError: No try will help.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the process, if there is one. Never raises."""

    # What verifiers use

    def run(self, code: str, *, stdin: str = "", timeout: float = 10.0, memory_mb: int = 512) -> Execution:
        """Runs `code` as a program. See `rlvr.Sandbox`."""
        job = json.dumps({"code": code, "stdin": stdin}).encode()
        return execution(self.execute(RUN, job, b"", timeout, memory_mb))

    def call(self, code: str, calls: Sequence[Call], *, timeout: float = 10.0, memory_mb: int = 512) -> Calls:
        """Loads `code` and evaluates calls in it. See `rlvr.CodeSandbox`."""
        job = json.dumps({"code": code, "calls": [[call.source, call.trail] for call in calls]}).encode()
        report = self.execute(CALL, job, b"", timeout, memory_mb)
        return read_calls(report, calls)

    def judge(
        self,
        code: str,
        tests: str,
        *,
        names: Sequence[str] = (),
        kind: Literal["asserts", "pytest"] = "asserts",
        timeout: float = 10.0,
        memory_mb: int = 512,
    ) -> Judgement:
        """Runs tests in a process of their own. See `rlvr.CodeSandbox`."""
        nonce = secrets.token_hex(8)
        job = json.dumps({"code": code}).encode()
        tests_job = json.dumps({"tests": tests, "names": list(names), "kind": kind, "nonce": nonce}).encode()
        report = self.execute(JUDGE, job, tests_job, timeout, memory_mb)
        return read_judgement(report, nonce)

    def close(self) -> None:
        """Ends the process."""
        self._drop()

    # How jobs reach it

    def execute(self, mode: int, payload: bytes, judge: bytes, timeout: float, memory_mb: int) -> Report:
        """Runs one job, in a new process when the old one is lost.

        Raises:
            RlvrError: The backend cannot be started, or was lost twice with this job.
        """
        with self._lock:
            for attempt in (1, 2):
                connection = self._connected()
                try:
                    report = connection.run(mode, payload, judge, timeout, memory_mb)
                except Lost as lost:
                    self._drop()
                    if attempt == 2:
                        raise RlvrError(
                            f"the sandbox `{self.name}` was lost twice: {lost}",
                            CHECK,
                        ) from None
                    continue
                except BaseException:
                    self._drop()
                    raise
                if not report.streams[RECORD].startswith(UP) or (
                    mode == JUDGE and not report.streams[VERDICT].startswith(UP)
                ):
                    self._drop()
                    why = (report.text(STDERR) + report.text(NOISE)).strip()[:300]
                    raise RlvrError(f"the sandbox `{self.name}` cannot start a process: {why}", CHECK)
                self.used += 1
                if report.dirty or self.used >= self.uses:
                    self.recycled += 1
                    self._drop()
                return report
            raise AssertionError

    def _connected(self) -> Connection:
        """The connection, started if need be. A backend that fails is tried again for a while, then left alone."""
        if self.connection is not None:
            return self.connection
        now = time.monotonic()
        if self._refusal is not None and now < self._refused_until:
            raise self._refusal
        pause = 0.2
        while True:
            try:
                self.connection = self.start()
                self.used = 0
                self._refusal = None
                return self.connection
            except Lost as lost:
                self.stop()
                if time.monotonic() - now + pause > self.retry_seconds:
                    self._refusal = RlvrError(f"the sandbox `{self.name}` cannot be started: {lost}", CHECK)
                    self._refused_until = time.monotonic() + self.retry_seconds
                    raise self._refusal from None
                time.sleep(pause)
                pause = min(2 * pause, 3.0)

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
        self.stop()


# ------------------------------------------------------------------------------------------- reading reports


KILLED_BY = {TIMEOUT: "timeout", OUTPUT: "output", STARVED: "starved", MEMORY: "memory"}
SIGXCPU = 24


def execution(report: Report) -> Execution:
    """How the solution's process went."""
    killed_by: Any = KILLED_BY.get(report.reason)
    signal = report.status & 0x7F if report.status >= 0 else 0
    code = None
    if killed_by is None:
        if signal == SIGXCPU:
            killed_by = "timeout"
        elif report.status >= 0:
            code = -signal if signal else report.status >> 8
    return Execution(
        exit_code=code,
        stdout=report.text(STDOUT),
        stderr=report.text(STDERR),
        duration=report.wall,
        killed_by=killed_by,
        cut=report.reason == OUTPUT,
    )


def _lines(data: bytearray) -> list[dict[str, Any]]:
    """The complete lines of a record that are JSON objects; what comes behind one that is not is left out."""
    lines = []
    for line in bytes(data).split(b"\n")[:-1]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(value, dict):
            break
        lines.append(value)
    return lines


def _opaque(packed: Any) -> Opaque:
    return Opaque(str(packed)[:80])


def _flags(line: dict[str, Any]) -> set[str]:
    """The flags of a line that are known."""
    flags = line.get("flags")
    return {flag for flag in FLAGS if flag in flags} if isinstance(flags, list) else set()


def read_calls(report: Report, calls: Sequence[Call]) -> Calls:
    """What the program said of its calls. Any of it may be a lie, so it is read as data and nothing more."""
    run = execution(report)
    returned: list[Returned] = []
    loaded = ended = False
    error = ""
    flags: set[str] = set()
    for line in _lines(report.streams[RECORD]):
        if "up" in line:
            continue
        if "error" in line:
            error = str(line["error"])[:600]
        elif "loaded" in line:
            loaded = True
        elif "end" in line:
            ended = True
        elif len(returned) < len(calls):
            call = calls[len(returned)]
            used = line.get("used")
            used = used if isinstance(used, int) and 0 <= used <= len(call.trail) else 0
            flags |= _flags(line)
            if "raised" in line:
                returned.append(Returned(used=used, raised=str(line["raised"])[:600] or "an exception"))
                continue
            try:
                returned.append(Returned(codec.unpack(line.get("value"), _opaque), used))
            except codec.Unfit as unfit:
                returned.append(Returned(used=used, raised=f"the value cannot cross: {unfit}"))
    if run.killed_by is None and not error and not ended:
        flags.add("left-early")
    return Calls(run, tuple(returned), loaded, error, tuple(sorted(flags)))


def read_judgement(report: Report, nonce: str) -> Judgement:
    """What the judge recorded; lines without its nonce are not its."""
    run = execution(report)
    checks: list[Check] = []
    complete = ended = False
    error = ""
    flags: set[str] = set()
    for line in _lines(report.streams[VERDICT]):
        if line.get("nonce") != nonce:
            continue
        if "passed" in line:
            checks.append(Check(str(line.get("name", "")), line["passed"] is True, str(line.get("detail", ""))))
        elif "complete" in line:
            complete = True
        elif "stopped" in line:
            error = str(line["stopped"])
        elif "end" in line:
            ended = True
            flags |= _flags(line)
    for line in _lines(report.streams[RECORD]):
        flags |= _flags(line)
        if "error" in line:
            error = f"the solution raised {str(line['error'])[:500]}"
    if not ended and run.killed_by is None:
        error = error or "the judge ended before its time"
    if "process ended" in error:
        flags.add("left-early")
    return Judgement(run, tuple(checks), complete and ended, error, report.text(NOISE), tuple(sorted(flags)))


__all__ = ["Connection", "ForkServerSandbox", "Lost", "PipeChannel", "SocketChannel", "boot", "setup", "version"]
