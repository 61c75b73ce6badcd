"""The process of the solution. It runs hostile code, so whatever it reports is that code's word.

It is told one of three things: to run a program (`RUN`), to evaluate calls and report their values (`CALL`), or to
serve a judge that calls what the program defines (`JUDGE`). It never holds an expected value or the text of a test.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import io
import json
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

from rlvr_sandboxes.inside import codec
from rlvr_sandboxes.inside.remote import lies

RUN, CALL, JUDGE = 1, 2, 3
DETAIL = 500
"""Characters of an exception's text that are reported."""


def main(mode: int, control: int, peer: int) -> int:
    """Does the job that comes over `control`; returns the exit code of the process."""
    job = json.loads(take(control))
    if mode == RUN:
        os.close(control)
        return run(job)
    report = reporter(control)
    if mode == CALL:
        return call(job, report)
    from rlvr_sandboxes.inside.serving import Server

    return serve(job, report, Server(peer))


def take(fd: int) -> bytes:
    """Reads a payload: four bytes of length, and that many bytes."""

    def exactly(size: int) -> bytes:
        parts = []
        while size:
            part = os.read(fd, min(size, 1 << 20))
            if not part:
                os._exit(71)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    return exactly(int.from_bytes(exactly(4), "big"))


def streams() -> None:
    """Standard streams on descriptors 0 to 2, made once before the first fork; nothing is written to them there."""
    set_stdin()
    stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
    stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
    vars(sys).update(stdout=stdout, __stdout__=stdout, stderr=stderr, __stderr__=stderr)


def set_stdin() -> None:
    stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    vars(sys).update(stdin=stdin, __stdin__=stdin)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def reporter(control: int) -> Callable[[Any], None]:
    """A function that writes a line of JSON on the control socket."""
    write, dump = os.write, json.JSONEncoder(separators=(",", ":")).encode

    def report(line: Any) -> None:
        data = memoryview((line if isinstance(line, str) else dump(line)).encode("ascii") + b"\n")
        while data:
            data = data[write(control, data) :]

    return report


def load(code: str, name: str) -> types.ModuleType:
    """Runs the program's body in a new module.

    Raises:
        Whatever the body raises.
    """
    module = types.ModuleType(name)
    module.__file__ = "solution.py"
    sys.modules[name] = module
    sys.argv = ["solution.py"]
    sys.path.insert(0, os.getcwd())
    exec(compile(code.removeprefix("\ufeff"), "solution.py", "exec", dont_inherit=True), module.__dict__)
    return module


def describe(error: BaseException) -> str:
    """The exception's class and text, as text of our own making."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        text = str(error)[:DETAIL]
    except BaseException:
        text = ""
    return f"{name}: {text}"


# ------------------------------------------------------------------------------------------------- programs


def run(job: Any) -> int:
    """Runs a program as `python solution.py` would."""
    if job["stdin"]:
        fd = os.open("stdin", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink("stdin")
        data = memoryview(job["stdin"].encode("utf-8", "surrogateescape"))
        while data:
            data = data[os.write(fd, data) :]
        os.lseek(fd, 0, os.SEEK_SET)
        os.dup2(fd, 0)
        os.close(fd)
    code = job["code"]
    job.clear()
    status = 1
    try:
        load(code, "__main__")
        status = 0
    except SystemExit as error:
        status = exit_status(error)
    except BaseException as error:
        show(error)
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException as error:
        show(error)
        status = status or 1
    flush()
    return status


def exit_status(error: SystemExit) -> int:
    """What the interpreter makes of `sys.exit(...)`."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def show(error: BaseException) -> None:
    """Prints the traceback, from the program's first frame on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != "solution.py":
        trace = trace.tb_next
    try:
        sys.stdout.flush()
        traceback.print_exception(type(error), error, trace)
    except BaseException:
        pass


# ---------------------------------------------------------------------------------------------------- calls


def call(job: Any, report: Callable[[Any], None]) -> int:
    """Loads the program, evaluates one expression after the other, and reports what each gave."""
    try:
        module = load(job["code"], "solution")
    except BaseException as error:
        show(error)
        flush()
        report({"error": describe(error)})
        return 0
    report({"loaded": True})
    space = module.__dict__
    for source, trail in job["calls"]:
        report(outcome(source, trail, space))
    flush()
    report({"end": True})
    return 0


def outcome(source: str, trail: list[str], space: dict[str, Any]) -> str:
    """The line for one call: its packed value and how many accessors were applied, or what it raised."""
    flags: list[str] = []
    used = 0
    try:
        value = eval(compile(source, "<call>", "eval", dont_inherit=True), space)
        while used < len(trail) and not plain(value):
            scope = {**space, "__value": value}
            value = eval(compile("__value" + trail[used], "<call>", "eval", dont_inherit=True), scope)
            used += 1
        if type(value) not in _PLAIN and lies(value):
            flags.append("lying-object")
        return '{"value":%s,"used":%d,"flags":%s}' % (codec.dumps(value), used, json.dumps(flags))
    except codec.Unfit as error:
        return json.dumps({"raised": f"ValueError: {error}", "used": used, "flags": flags})
    except BaseException as error:
        return json.dumps({"raised": describe(error), "used": used, "flags": flags})


def plain(value: Any) -> bool:
    """Whether a value crosses as itself."""
    return type(value) in _PLAIN or not codec.dumps(value if not isinstance(value, _BOXES) else None).startswith('{"o"')


_BOXES = (list, tuple, dict, set, frozenset)
_PLAIN = frozenset((bool, int, float, str, type(None), list, tuple, dict, set, frozenset))


# ---------------------------------------------------------------------------------------------------- judge


def serve(job: Any, report: Callable[[Any], None], server: Any) -> int:
    """Loads the program, then answers the judge until it hangs up."""
    captured = Captured(sys.stdout)
    sys.stdout = captured
    builtins.input = server.input
    sys.stdin = server.stdin()
    try:
        module = load(job["code"], "solution")
    except BaseException as error:
        show(error)
        flush()
        report({"error": describe(error)})
        server.refuse(describe(error))
        return 0
    report({"loaded": True})
    captured.take()
    server.serve(module, captured.take)
    flush()
    report({"end": True, "flags": sorted(server.flags)})
    return 0


class Captured(io.TextIOBase):
    """Standard output that also remembers what was printed, so that the judge can print it where the tests look."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.parts: list[str] = []
        self.size = 0

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.size < 1 << 20:
            self.parts.append(text)
            self.size += len(text)
        return int(self.stream.write(text))

    def flush(self) -> None:
        self.stream.flush()

    def writable(self) -> bool:
        return True

    @property
    def buffer(self) -> Any:
        return self.stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def take(self) -> str:
        text = "".join(self.parts)
        self.parts.clear()
        self.size = 0
        return text
