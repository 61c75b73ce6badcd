"""The process that runs verifiers, and the guard that outlives it.

The scorer starts one of these per worker. It splits in two before it imports anything large:

    scorer ──socket─┬─ worker   runs verifiers, in a session of its own
                    └─ guard    waits for the end of worker or scorer, then ends all that the worker started

The guard is what makes a kill thorough: on Linux it adopts every process that the worker leaves behind, so a
verifier's children go too, even those that moved to a session of their own, and even when it was the scorer's
process that was killed. It ends as its worker ended, so the scorer reads the cause from its exit status.

On the socket travel lines of JSON, never pickles: a worker that a verifier has taken over can lie about verdicts,
but cannot make the scorer run anything. The scorer sends one line of set-up, then requests; the worker answers each
as it finishes it, in the order in which they came.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import numbers
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from rlvr.errors import RlvrError
from rlvr.types import Completion, Sample, Sandbox, Turn, Verdict

if TYPE_CHECKING:
    from rlvr.registry import Registry, VerifierSpec

DETAIL_LIMIT = 2_000
"""Characters of a verdict's detail that are kept."""

ANSWER_LIMIT = 1 << 18
"""Bytes of one answer at most; parts that do not fit make an error verdict."""

BLOAT_SECONDS, BLOAT_EVERY = 0.001, 64
"""When to look for memory that was left behind: after a verification this long, and after every so many."""

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(link: int) -> NoReturn:
    """Splits into guard and worker; `link` is the descriptor of the socket to the scorer."""
    os.set_inheritable(link, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    worker = os.fork()
    if worker:
        stand_guard(worker, link)
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if os.getppid() == guard:
            serve(socket.socket(fileno=link))
        os._exit(0)  # not `sys.exit`, which would wait for threads that a verifier has left
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2); nothing elsewhere."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# ----------------------------------------------------------------------------------------------- lines


_quote = json.encoder.encode_basestring_ascii
_strict = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_lenient = json.JSONEncoder(separators=(",", ":")).encode


def pack(message: Any) -> bytes:
    """A JSON value as a line. Text is escaped to ASCII, so that lone surrogates survive.

    Raises:
        TypeError, ValueError, RecursionError: It is not JSON, or NaN or infinite.
    """
    return (_strict(message) + "\n").encode()


def pack_request(
    number: int,
    verifier: str,
    timeout: float,
    completion: Completion,
    sample: str,
    options: Mapping[str, Any],
    sandbox: str = "",
    reply: bool = False,
) -> bytes:
    """The line that asks for one verification, or for the environment's reply; `sample` is what `pack_sample` made.

    It is put together in half the time that encoding a list takes.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: Something in it cannot travel as JSON.
    """
    ids = pack_numbers("q", completion.token_ids)
    logprobs = pack_numbers("d", completion.logprobs)
    turns = (
        _json([[[turn.role, turn.text] for turn in completion.turns], completion.foreign]) if completion.turns else "[]"
    )
    return (
        f"[{number},{_quote(verifier)},{timeout!r},"
        f'[{_json(completion.text)},"{ids}","{logprobs}",{_quote(completion.finish_reason)},{turns}],'
        f"{sample},{_json(dict(options))},{_quote(sandbox)},{'true' if reply else 'false'}]\n"
    ).encode()


def pack_sample(sample: Sample) -> str:
    """A sample as JSON. NaN and infinity may be in it: what data holds is the verifier's business.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: Something in it cannot travel as JSON.
    """
    return f"[{_json(sample.id)},{_json(sample.prompt)},{_json(sample.answer)},{_json(dict(sample.meta))}]"


class SamplePacker:
    """Packs samples, one that comes several times in a row only once: the completions of a group have the same."""

    def __init__(self) -> None:
        self._last: Sample | None = None
        self._packed = ""

    def __call__(self, sample: Sample) -> str:
        if sample is not self._last:
            self._packed, self._last = pack_sample(sample), sample
        return self._packed


def _json(value: Any) -> str:
    if type(value) is str:
        return _quote(value)
    return "{}" if value == {} else _lenient(value)


def _facts(parts: dict[str, Any]) -> str:
    """The parts of a verdict as strict JSON; mostly they are a few words."""
    if all(type(name) is str and type(value) is str for name, value in parts.items()):
        return "{" + ",".join([f"{_quote(name)}:{_quote(value)}" for name, value in parts.items()]) + "}"
    return _strict(parts)


def unpack(buffer: bytearray, limit: int = 1 << 32) -> Iterator[Any]:
    """Takes the complete lines off the front of `buffer`, and reads them.

    Raises:
        ValueError: The line that is left over is longer than `limit` bytes already, or a line is not JSON.
    """
    end = buffer.rfind(b"\n") + 1
    lines = bytes(buffer[: end - 1] if end else b"")
    del buffer[:end]
    if lines:
        try:  # all at once, in half the time
            messages = json.loads(b"[%b]" % lines.replace(b"\n", b","))
        except (ValueError, RecursionError):
            messages = ()
        yield from messages if len(messages) == lines.count(b"\n") + 1 else map(json.loads, lines.split(b"\n"))
    if len(buffer) > limit:
        raise ValueError("a line is too long")


def pack_numbers(kind: str, values: Sequence[float]) -> str:
    """Numbers as base64, which for many is ten times as fast as JSON; nothing for none.

    Raises:
        TypeError, OverflowError: They are no numbers of that kind.
    """
    return base64.b64encode(array(kind, values)).decode() if values else ""


def unpack_completion(packed: list[Any]) -> Completion:
    text, token_ids, logprobs, finish_reason, several = packed
    if not token_ids and not logprobs and not several:
        return Completion(text, finish_reason=finish_reason)
    ids, floats = array("q", base64.b64decode(token_ids)), array("d", base64.b64decode(logprobs))
    turns, foreign = several or ((), ())
    return Completion(
        text,
        tuple(ids),
        tuple(floats),
        finish_reason,
        tuple(Turn(role, text) for role, text in turns),
        tuple((start, stop) for start, stop in foreign),
    )


# ----------------------------------------------------------------------------------------------- guard


def stand_guard(worker: int, link: int) -> NoReturn:
    """Waits for the worker's end, a SIGTERM, or the scorer's end; then leaves no process behind."""
    alarm, bell = os.pipe()
    for end in (alarm, bell):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    waiter = select.poll()
    waiter.register(link, 0)  # only its hang-up: what arrives on it is the worker's to read
    waiter.register(alarm, select.POLLIN)
    ended: dict[int, int] = {}
    while reap(ended) and worker not in ended:
        events = dict(waiter.poll())
        if link in events or (alarm in events and signal.SIGTERM in os.read(alarm, 4096)):
            break
    if worker not in ended:
        with contextlib.suppress(OSError):
            os.killpg(worker, signal.SIGKILL)
    while reap(ended):
        for pid in children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[worker])
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def reap(ended: dict[int, int]) -> bool:
    """Notes the wait status of every child that has ended; false when none is left."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return True
            ended[pid] = status
    except ChildProcessError:
        return False


def children() -> list[int]:
    """The living children of this process. Empty where there is no /proc."""
    me, found = str(os.getpid()).encode(), []
    for entry in os.listdir("/proc") if LINUX else ():
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as f:
                # pid (name) state ppid ...; the name may hold spaces and parentheses
                state, parent = f.read().rpartition(b")")[2].split()[:2]
                if parent == me and state != b"Z":
                    found.append(int(entry))
    return found


# ---------------------------------------------------------------------------------------------- worker


def serve(link: socket.socket) -> None:
    """Answers requests until the scorer closes the socket."""
    buffer = bytearray()
    requests = receive(link, buffer)
    setup = next(requests, None)
    if setup is None:
        return
    try:
        bench = Bench(**setup)
    except BaseException as error:
        link.sendall(pack({"failed": cut(describe(error))}))
        return
    link.sendall(pack({"ready": os.getpid()}))
    for request in requests:
        link.sendall(bench.answer(request))
        if bench.retired:
            break
    bench.close()


def receive(link: socket.socket, buffer: bytearray) -> Iterator[Any]:
    """The scorer's messages until it hangs up."""
    while data := link.recv(1 << 18):
        buffer += data
        yield from unpack(buffer)


class Bench:
    """What a worker holds between requests: the registry, its sandboxes, the limits."""

    def __init__(self, plugins: list[str], sandbox_options: dict[str, Any], memory_mb: int) -> None:
        from rlvr.registry import Registry

        self.registry: Registry = Registry.load(plugins)
        self.sandbox_options = sandbox_options
        self.sandboxes: dict[str, Sandbox] = {}
        self.memory_mb = memory_mb
        self.start = address_space()
        self.start_peak = peak_memory()
        self.retired = False
        limit_memory(self.start + (memory_mb << 20))

    def answer(self, request: list[Any]) -> bytes:
        """The line that answers one request: `[id, status, score, detail, parts, duration, retire]`."""
        number, name, timeout, completion, sample, options, sandbox, reply = request
        spec = self.registry.verifiers.get(name)
        if spec is None:  # an installed plugin that only fails in here
            return self.line(number, Verdict.error(f"the worker has no verifier `{name}`"), 0.0)
        start = time.perf_counter()
        verdict = self.run(spec, completion, sample, options, sandbox, reply)
        duration = time.perf_counter() - start
        if duration > timeout:  # the scorer may have been too busy to look at its clock
            verdict = Verdict.timeout(f"`{name}` took {duration:.3g} s, past its clock of {timeout:g} s")
        if duration > BLOAT_SECONDS or number % BLOAT_EVERY == 0:
            self.retired = self.bloated()
        try:
            line = self.line(number, verdict, duration)
        except Exception as error:
            why = f"returned parts that are not JSON: {describe(error)}"
        else:
            if len(line) <= ANSWER_LIMIT:
                return line
            why = f"returned parts of {len(line):,} bytes; the limit is {ANSWER_LIMIT:,}"
        return self.line(number, Verdict.error(f"{who(spec)} {why}"), duration)

    def line(self, number: int, verdict: Verdict, duration: float) -> bytes:
        detail, parts = cut(verdict.detail), dict(verdict.parts)
        retired = "true" if self.retired else "false"
        return (
            f'[{number},"{verdict.status}",{verdict.score!r},{_quote(detail)},{_facts(parts)},{duration!r},{retired}]\n'
        ).encode()

    def run(
        self, spec: VerifierSpec, completion: list[Any], sample: list[Any], options: Any, sandbox: str, reply: bool
    ) -> Verdict:
        """Calls the verifier, or its `reply`; whatever it does short of ending the process becomes a verdict."""
        try:
            arguments: list[Any] = [unpack_completion(completion), Sample(*sample)]
            if spec.wants_sandbox:
                arguments.append(self.open_sandbox(sandbox) if sandbox else None)
            if reply and spec.reply:
                return as_reply(spec.reply(*arguments, **options))
            return as_verdict(spec.fn(*arguments, **options))
        except MemoryError:
            return Verdict.error(f"{who(spec)} ran out of its memory limit of {self.memory_mb} MiB")
        except Unusable as error:
            return Verdict.error(f"{who(spec)} {error}")
        except BaseException as error:  # SystemExit and KeyboardInterrupt are no different here
            return Verdict.error(f"{who(spec)} raised {describe(error)}", {"traceback": own_traceback(error)})

    def open_sandbox(self, name: str) -> Sandbox:
        if name not in self.sandboxes:
            self.sandboxes[name] = self.registry.sandbox(name)(self.sandbox_options)
        return self.sandboxes[name]

    def bloated(self) -> bool:
        """Whether an ended verification left behind half of the limit, which the next ones would lack."""
        half = self.memory_mb << 19
        return peak_memory() > self.start_peak + half and address_space() > self.start + half

    def close(self) -> None:
        for sandbox in self.sandboxes.values():
            sandbox.close()


class Unusable(Exception):
    """A verifier returned something that is no verdict."""


def as_verdict(result: object) -> Verdict:
    """What a verifier returned, as a verdict: a bool says passed or failed, a number is a score.

    A scalar of numpy or torch counts as the Python value it holds.

    Raises:
        Unusable: It is neither a verdict, nor a bool, nor a number in [0, 1].
    """
    if isinstance(result, Verdict):
        return result
    if getattr(result, "shape", None) == () and callable(item := getattr(result, "item", None)):
        result = item()
    if isinstance(result, bool):
        return Verdict.of(result, f"the verifier returned {result}")
    if isinstance(result, numbers.Real):
        score = float(result)
        if not 0.0 <= score <= 1.0:  # also true of NaN
            raise Unusable(f"returned the score {score}, which is not in [0, 1]")
        return Verdict.of(score == 1.0, f"the verifier returned the score {score:.4g}", score)
    kind = f"{type(result).__module__}.{type(result).__qualname__}".removeprefix("builtins.")
    raise Unusable(f"returned a `{kind}`, which is not a Verdict, a bool or a number in [0, 1]")


def as_reply(result: object) -> Verdict:
    """What the environment said, as a verdict that carries it. No tokenizer takes halves of surrogate pairs: each
    becomes a question mark.

    Raises:
        Unusable: It is neither text nor None.
    """
    if isinstance(result, str):
        result = result.encode("utf-8", "replace").decode()
    elif result is not None:
        raise Unusable(f"replied with a `{type(result).__qualname__}`, which is neither text nor None")
    return Verdict.of(True, "the environment replied", parts={"reply": result})


def who(spec: VerifierSpec) -> str:
    return f"`{spec.name}` ({spec.origin})"


def describe(error: BaseException) -> str:
    """The last line of a traceback, and the hint where there is one."""
    text = "".join(traceback.format_exception_only(error)).strip()
    return f"{text} ({error.hint})" if isinstance(error, RlvrError) and error.hint else text


def own_traceback(error: BaseException) -> str:
    """The last frames of the traceback, our own left out."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    return cut("".join(traceback.format_exception(type(error), error, frames, limit=-8, chain=False)))


def cut(text: str) -> str:
    if len(text) <= DETAIL_LIMIT:
        return text
    return f"{text[:DETAIL_LIMIT]}… ({len(text) - DETAIL_LIMIT:,} more characters)"


def address_space() -> int:
    """Bytes of address space of this process; 0 where /proc does not say."""
    try:
        with open("/proc/self/statm", "rb") as f:
            return int(f.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def peak_memory() -> int:
    """Bytes of resident memory at its highest. Cheaper to ask than `address_space`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if LINUX else 1)


def limit_memory(size: int) -> None:
    """Refuses this process and its children more than `size` bytes of address space each."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    with contextlib.suppress(OSError, ValueError):  # not every system can
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
