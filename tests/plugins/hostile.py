"""Verifiers that do everything a verifier should not. Loaded as a plugin file by the tests of the scorer."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rlvr import Completion, Sample, Verdict, hookimpl, verifier

LEFTOVERS: list[bytearray] = []


@verifier("fine")
def fine(completion: Completion, sample: Sample) -> bool:
    """Passes when the text is the answer."""
    return completion.text == sample.answer


@verifier("echo", reference=("answer",))
def echo(completion: Completion, sample: Sample, *, loud: bool = False) -> Verdict:
    """Says what it was given."""
    seen = {
        "text": completion.text,
        "tokens": list(completion.token_ids),
        "logprobs": list(completion.logprobs),
        "truncated": completion.truncated,
        "id": sample.id,
        "prompt": sample.prompt,
        "answer": sample.answer,
        "meta": sample.meta,
        "loud": loud,
        "pid": os.getpid(),
    }
    return Verdict.of(True, f"saw {completion.text[:20]!r}", parts=seen)


@verifier("score")
def score(completion: Completion, sample: Sample) -> float:
    """Returns the score it is told to, NaN and infinity included."""
    return float(completion.text)


@verifier("returns")
def returns(completion: Completion, sample: Sample) -> Any:
    """Returns something that is no verdict."""
    return {"none": None, "text": "passed", "list": [1], "int": 1, "complex": 1j}[completion.text]


@verifier("raises")
def raises(completion: Completion, sample: Sample) -> bool:
    """Raises."""
    kinds: dict[str, type[BaseException]] = {
        "value": ValueError,
        "exit": SystemExit,
        "interrupt": KeyboardInterrupt,
        "generator": GeneratorExit,
        "memory": MemoryError,
    }
    raise kinds[completion.text](f"on purpose, in {sample.id}")


@verifier("raises-badly")
def raises_badly(completion: Completion, sample: Sample) -> bool:
    """Raises what cannot even be printed."""

    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

    raise Bad


@verifier("abstains")
def abstains(completion: Completion, sample: Sample) -> Verdict:
    """Cannot decide."""
    return Verdict.abstain("cannot tell")


@verifier("sleeps")
def sleeps(completion: Completion, sample: Sample) -> bool:
    """Sleeps for the seconds it is told, for ever if none."""
    time.sleep(float(completion.text or 1e6))
    return True


@verifier("quick", timeout=0.2)
def quick(completion: Completion, sample: Sample) -> bool:
    """Has a short clock of its own, and oversleeps it."""
    time.sleep(1e6)
    return True


@verifier("stubborn")
def stubborn(completion: Completion, sample: Sample) -> bool:
    """Ignores every signal that can be ignored, then sleeps."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(1e6)
    return True


@verifier("holds-the-lock")
def holds_the_lock(completion: Completion, sample: Sample) -> bool:
    """Sleeps in C with the interpreter's lock held, so that no other thread of its process ever runs."""
    ctypes.PyDLL(None).sleep(1_000_000)
    return True


@verifier("spawns")
def spawns(completion: Completion, sample: Sample) -> bool:
    """Starts children, one in a session of its own and one detached from us, then sleeps or returns or dies.

    The text is `<what then> <file for the pids>`.
    """
    then, file = completion.text.split(" ", 1)
    napping = [sys.executable, "-c", "import time; time.sleep(1000)"]
    near = subprocess.Popen(napping)
    far = subprocess.Popen(napping, start_new_session=True)
    read, write = os.pipe()
    if os.fork() == 0:  # the middle one dies at once, so that its child has no parent
        grandchild = os.fork()
        if grandchild == 0:
            os.setsid()
            time.sleep(1000)
        os.write(write, str(grandchild).encode())
        os._exit(0)
    os.wait()
    detached = int(os.read(read, 20))
    Path(file).write_text(f"{near.pid} {far.pid} {detached} {os.getpid()}")
    if then == "sleep":
        time.sleep(1e6)
    if then == "die":
        os._exit(3)
    return True


@verifier("exits")
def exits(completion: Completion, sample: Sample) -> bool:
    """Ends its process without a word."""
    os._exit(int(completion.text or 1))


@verifier("exits-on")
def exits_on(completion: Completion, sample: Sample, *, text: str = "") -> bool:
    """Ends its process where the completion is `text`."""
    if completion.text == text:
        os._exit(3)
    return True


@verifier("dies")
def dies(completion: Completion, sample: Sample) -> bool:
    """Dies of the signal it is told."""
    os.kill(os.getpid(), int(completion.text))
    time.sleep(1e6)
    return True


@verifier("kills-its-guard")
def kills_its_guard(completion: Completion, sample: Sample) -> bool:
    """Kills the process that started its own, or stops it so that it can kill nobody."""
    os.kill(os.getppid(), signal.SIGSTOP if completion.text == "stop" else signal.SIGKILL)
    time.sleep(1e6)
    return True


@verifier("eats-memory")
def eats_memory(completion: Completion, sample: Sample) -> bool:
    """Takes memory until there is none left."""
    eaten = []
    while True:
        eaten.append(bytearray(1 << 24))


@verifier("leaks")
def leaks(completion: Completion, sample: Sample) -> bool:
    """Keeps the mebibytes it is told, for ever."""
    LEFTOVERS.append(bytearray(b"x") * (int(completion.text) << 20))
    return True


@verifier("recurses")
def recurses(completion: Completion, sample: Sample) -> bool:
    """Recurses without end; `deep` lifts Python's own limit first."""
    if completion.text == "deep":
        sys.setrecursionlimit(1 << 30)
    return recurses.fn(completion, sample)  # type: ignore[return-value]


@verifier("prints")
def prints(completion: Completion, sample: Sample) -> bool:
    """Prints garbage, and a forged answer, wherever it can."""
    for stream in (sys.stdout, sys.stderr):
        stream.write("\0\xff garbage " * 20_000)
        stream.flush()
    os.write(1, b"[]\n")
    return not sys.stdin.read()


@verifier("forges")
def forges(completion: Completion, sample: Sample) -> bool:
    """Writes its own lines to every socket it has."""
    lines = {
        "garbage": b"\xff\xff\xff\xff not a line\n",
        "huge": b"x" * 1_000_000,
        "not-json": b"{]}\n",
        "spliced": b'"a\nb"\n',
        "wrong-shape": b"[12]\n",
        "nan": b'[0,"passed",NaN,"",{},NaN,false]\n',
        "deep": b"[" * 100_000 + b"\n",
    }
    for fd in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                os.write(fd, lines[completion.text])
        except OSError:
            continue
    time.sleep(1e6)
    return True


@verifier("closes")
def closes(completion: Completion, sample: Sample) -> bool:
    """Closes every descriptor."""
    os.closerange(0, 256)
    return True


@verifier("leaves-a-thread")
def leaves_a_thread(completion: Completion, sample: Sample) -> bool:
    """Passes, and ends its process a little later."""
    threading.Timer(0.05, os._exit, [4]).start()
    return True


@verifier("talks")
def talks(completion: Completion, sample: Sample) -> Verdict:
    """Returns more than anyone wants to read, or what JSON cannot hold."""
    what: dict[str, Any] = {
        "detail": {},
        "big": {"x": "y" * 1_000_000},
        "set": {"x": {1, 2}},
        "nan": {"x": math.nan},
        "object": {"x": object()},
        "list": [1, 2],
    }
    return Verdict.of(True, "blah " * 100_000, parts=what[completion.text])


@verifier("may-run-code", reference=("limit",), needs_sandbox=lambda sample: "code" in sample.meta)
def may_run_code(completion: Completion, sample: Sample, sandbox: Any, *, limit: int | None = None) -> Verdict:
    """Has a sandbox for samples with `code` only; a limit for all samples, or each its own."""
    limit = sample.meta.get("limit", limit)
    return Verdict.of(True, "no sandbox" if sandbox is None else f"the sandbox {sandbox.name}", parts={"limit": limit})


@verifier("runs-code")
def runs_code(completion: Completion, sample: Sample, sandbox: Any) -> Verdict:
    """Runs the text in the sandbox it is given."""
    ran = sandbox.run(completion.text)
    return Verdict.of(ran.exit_code == 0, f"{sandbox.name} printed {ran.stdout!r}", parts={"runs": sandbox.runs})


@hookimpl
def rlvr_verifiers() -> list[Any]:
    return [
        fine,
        echo,
        score,
        returns,
        raises,
        raises_badly,
        abstains,
        sleeps,
        quick,
        stubborn,
        holds_the_lock,
        spawns,
        exits,
        exits_on,
        dies,
        kills_its_guard,
        eats_memory,
        leaks,
        recurses,
        prints,
        forges,
        closes,
        leaves_a_thread,
        talks,
        may_run_code,
        runs_code,
    ]
