"""Runs verifiers in worker processes under clocks that kill, and turns every failure into a verdict.

    with Scorer() as scorer:
        future = scorer.submit("math", completion, sample)      # from any thread; never blocks
        verdict = future.result()                               # passed, failed, error, timeout, abstained
        verdicts = scorer.submit_batch("math", [(completion, sample), ...]).result()

One thread owns the workers. It hands each a few requests at a time, so that a worker never idles between two
fast verifications, and keeps one clock per worker, for the request at the head of its line: the clock starts
when the answer before it has come, so a slow verification spends no other's time. The rules:

    the clock runs out          the worker is killed with all its children; the head of its line is a timeout
    the worker dies             the head of its line is an error
    either                      the rest of the line goes back to the queue, and the worker is replaced
    the head is slow            the rest of the line goes back to the queue; whichever answer is first counts
    workers fail to start       after three in a row everything is an error; it says why

How a worker is made and killed is in `scoring_worker`. Nothing here depends on the main module (there is no
`multiprocessing`), so a script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import itertools
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from rlvr.composition import composed, gathered, refuse
from rlvr.errors import ConfigError, MissingDependencyError, UsageError, debugging, nearest
from rlvr.modelserver import SCHEME, ModelServer, check_folder
from rlvr.registry import Registry, VerifierSpec, registry
from rlvr.scoring_worker import ANSWER_LIMIT, SamplePacker, pack, pack_request, pack_sample, unpack
from rlvr.types import Completion, Composition, Sample, Status, Verdict

START_SECONDS = 60.0
"""How long a worker may take to import what it needs."""

START_FAILURES = 3
"""Workers in a row that may end without having answered, before the scorer gives up on new ones."""

RETRY_SECONDS = 1.0
"""How long to wait when the system will not give us another process."""

BURIAL_SECONDS = 5.0
"""How long a killed worker's guard may take to end all its processes, before it is killed itself."""

LINE_SECONDS = 0.02
"""How much work to hand to a worker at once, by the verifier's mean duration."""

LINE_LIMIT = 256
"""How many requests to hand to a worker at once at most."""

LINGER_SECONDS = 0.002
"""How long to let answers gather at most while every worker has enough to do, rather than to wake for each of them."""

SLOW_SECONDS = 0.1
"""How long a request may run before those behind it go back to the queue."""

BACKLOG_SECONDS = 0.5
"""How long requests may wait for a busy worker before a scorer that is not eager starts another one."""

MOST_WORKERS = 8
"""How many workers `workers=0` chooses at most."""

BOOT = (
    "import sys; link, *sys.path[:] = sys.argv[1:]; sys.argv[1:] = []; "
    "from rlvr.scoring_worker import main; main(int(link))"
)

NO_REPLY = (
    "a task of several turns needs a verifier that answers for the environment",
    "give `@verifier` a `reply`, or the task one turn",
)

_STATUSES = {status.value: status for status in Status}


class Scorer:
    """Verifies completions in worker processes. Every method may be called from any thread.

    Args:
        workers: Worker processes; 0 chooses by cores.
        timeout: Seconds of wall clock for one verification, where neither the verifier nor the caller says.
        memory_mb: Address space in MiB that a worker's verifications may take beyond the loaded worker.
        plugins: Plugin files, besides those that `load_plugin` has added.
        sandbox: Sandbox for verifiers that run code; empty chooses a safe one when the first such verifier comes.
        sandbox_options: Options of the sandbox, by name.
        device: Where reward models run; empty takes the best there is.
        eager: Start all workers now. Otherwise one starts now and others when requests have to wait.

    Raises:
        UsageError: An argument is out of its range.
        PluginError: A plugin file cannot be used.
        UnknownNameError: No sandbox of that name.
    """

    def __init__(
        self,
        *,
        workers: int = 0,
        timeout: float = 10.0,
        memory_mb: int = 2048,
        plugins: Sequence[str | os.PathLike[str]] = (),
        sandbox: str = "",
        sandbox_options: Mapping[str, Any] | None = None,
        device: str = "",
        eager: bool = True,
    ) -> None:
        if workers < 0 or memory_mb <= 0:
            raise UsageError(f"{workers} workers of {memory_mb} MiB make no scorer", "give positive numbers")
        self.workers = workers or min(MOST_WORKERS, _cores())
        self.timeout = _checked_timeout(timeout)
        self.memory_mb = memory_mb
        self.registry = _registry_with(plugins)
        self.sandbox = self.registry.sandbox(sandbox).name if sandbox else ""
        self.sandbox_options = dict(sandbox_options or {})
        self._sandbox_ready = False
        self.device = device
        self._models: dict[str, ModelServer] = {}
        self._models_lock = threading.Lock()
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        # Under the lock: what callers hand to the thread.
        self._incoming: list[_Request] = []
        self._open: set[_Request] = set()
        self._closing = False
        self._woken = False
        # The thread's own.
        self._queue: collections.deque[_Request] = collections.deque()
        self._staff: list[_Worker] = []
        self._wanted = self.workers if eager else 1
        self._means: dict[str, float] = {}
        self._failures = 0
        self._hire_after = 0.0
        self._backlog_since = math.inf
        self._broken = ""
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="rlvr-scorer", daemon=True)
        self._thread.start()
        _living.add(self)

    def submit(
        self,
        verifier: str | Composition,
        completion: Completion,
        sample: Sample,
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future[Verdict]:
        """Queues one verification. The future's result is a verdict whatever the verifier does.

        Callbacks of the future run in the scorer's thread, so they should be quick; they may submit and close.

        Args:
            verifier: Name of a registered verifier, or a composition, whose parts are verified each under its own
                clock.
            completion: What the policy wrote.
            sample: The problem; its fields hold JSON values only.
            options: Keyword options of the verifier.
            timeout: Seconds of wall clock for this verification.

        Raises:
            UnknownNameError: There is no such verifier.
            PluginError: It belongs to a broken plugin.
            ConfigError: The verifier has no such option, or runs code and there are several safe sandboxes, or asks a
                reward model that is not there.
            MissingDependencyError: It runs code, and there is no safe sandbox.
            UsageError: The sample cannot travel as JSON, the timeout is not above 0, or the scorer is closed.
        """
        if isinstance(verifier, Composition):
            # All parts, as those behind a gate are submitted when nobody listens.
            self.check(verifier, options or (), [sample])
            return composed(
                verifier, lambda part: self.submit(part.verifier, completion, sample, part.options, timeout)
            )
        return self._submit(self.registry.verifier(verifier), completion, sample, options or {}, timeout)

    def submit_reply(
        self,
        verifier: str | Composition,
        completion: Completion,
        sample: Sample,
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future[Verdict]:
        """Queues what the environment says to a completion. Arguments and errors are those of `submit`.

        The verifier's `reply` answers; of a composition, that of the first part that has one. A verdict that is passed
        has the text in `parts["reply"]`, or None when there is nothing more to say; any other is missing data.

        Raises:
            UsageError: No verifier here has a `reply`.
        """
        found = self._replier(verifier, options or {})
        if found is None:
            raise UsageError(*NO_REPLY)
        return self._submit(found[0], completion, sample, found[1], timeout, reply=True)

    def _replier(
        self, verifier: str | Composition, options: Mapping[str, Any]
    ) -> tuple[VerifierSpec, Mapping[str, Any]] | None:
        """The verifier that answers for the environment, with its options."""
        if isinstance(verifier, Composition):
            found = (self._replier(part.verifier, part.options) for part in verifier.parts.values())
            return next(filter(None, found), None)
        spec = self.registry.verifier(verifier)
        return (spec, options) if spec.reply else None

    def _submit(
        self,
        spec: VerifierSpec,
        completion: Completion,
        sample: Sample,
        options: Mapping[str, Any],
        timeout: float | None,
        reply: bool = False,
    ) -> Future[Verdict]:
        self._check(spec, options)
        request = self._request(spec, completion, sample, options, timeout, reply)
        request.future = Future()
        self._enqueue([request])
        return request.future

    def submit_batch(
        self,
        verifier: str | Composition,
        pairs: Sequence[tuple[Completion, Sample]],
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Future[list[Verdict]]:
        """Queues many verifications under one future, which costs less than a future each.

        Args:
            verifier: Name of a registered verifier, or a composition.
            pairs: What the policy wrote, and the problem; the verdicts come in their order.
            options: Keyword options of the verifier.
            timeout: Seconds of wall clock for each verification.

        Raises:
            The same as `submit`; what was queued before the pair at fault is verified for nothing.
        """
        if isinstance(verifier, Composition):
            return gathered([self.submit(verifier, *pair, options, timeout) for pair in pairs])
        spec = self.registry.verifier(verifier)
        self._check(spec, options or ())
        batch, pack = _Batch(len(pairs)), SamplePacker()
        for start in range(0, len(pairs), LINE_LIMIT):  # the first are at work while the rest is packed
            part = pairs[start : start + LINE_LIMIT]
            self._enqueue([batch.add(self._request(spec, *pair, options or {}, timeout, pack=pack)) for pair in part])
        return batch.future

    def check(
        self, verifier: str | Composition, options: Iterable[str] = (), samples: Iterable[Sample] = (), turns: int = 1
    ) -> None:
        """Raises what `submit` would raise for this verifier, these options and these samples, and `submit_reply` where
        there are several turns."""
        if turns > 1 and self._replier(verifier, {}) is None:
            raise UsageError(*NO_REPLY)
        if isinstance(verifier, Composition):
            if given := list(options):
                raise ConfigError(f"`{given[0]}` is given to a composition", "give options to its parts")
            refuse(verifier)
            samples = list(samples)
            for part in verifier.parts.values():
                self.check(part.verifier, part.options, samples)
            return
        spec = self.registry.verifier(verifier)
        self._check(spec, options)
        if any(map(spec.runs_code, samples)):
            self._ready_sandbox(spec)
        if spec.learned and isinstance(options, Mapping):
            self._serve(spec, options)

    @property
    def pending(self) -> int:
        """Verifications that have no verdict yet."""
        return len(self._open)

    @property
    def outdated(self) -> bool:
        """Whether it is closed, or no worker could be started."""
        return self._closing or bool(self._broken)

    def close(self) -> None:
        """Ends the workers; what has no verdict yet gets an error verdict. May be called again."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closing = True
            self._wake()
        if threading.current_thread() is not self._thread:  # a future's callback may close the scorer
            self._thread.join()
        with self._models_lock:
            while self._models:
                self._models.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------ in the caller's thread

    def _check(self, spec: VerifierSpec, options: Iterable[str]) -> None:
        for option in options:
            if option not in spec.options:
                near = nearest(option, spec.options)
                known = ", ".join(f"`{name}`" for name in spec.options) or "none"
                hint = f"did you mean `{near}`? Known: {known}" if near else f"known: {known}"
                raise ConfigError(f"the verifier `{spec.name}` has no option `{option}`", hint)

    def _ready_sandbox(self, spec: VerifierSpec) -> None:
        if not self._sandbox_ready:
            with self._lock:
                if not self._sandbox_ready:
                    self.sandbox = ready_sandbox(self.registry, self.sandbox, self.sandbox_options, spec.name)
                    self._sandbox_ready = True

    def _serve(self, spec: VerifierSpec, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with the address of the reward model in place of its folder; the first time it waits until the
        model is loaded, so that no clock runs meanwhile.

        Raises:
            ConfigError, MissingDependencyError: There is no such model, or it cannot be loaded.
        """
        folder = str(options.get("model") or spec.options["model"])
        if folder.startswith(SCHEME):
            return {**options, "model": folder}
        key = os.path.abspath(os.path.expanduser(folder)) if folder else ""
        with self._models_lock:
            if self._closing:
                raise UsageError("the scorer is closed", "make a new one")
            if key not in self._models:
                check_folder(folder)
                self._models[key] = ModelServer(key, self.device)
            return {**options, "model": self._models[key].address}

    def _request(
        self,
        spec: VerifierSpec,
        completion: Completion,
        sample: Sample,
        options: Mapping[str, Any],
        timeout: float | None,
        reply: bool = False,
        pack: Callable[[Sample], str] = pack_sample,
    ) -> _Request:
        if timeout is not None:
            seconds = _checked_timeout(timeout)
        else:
            seconds = self.timeout if spec.timeout is None else spec.timeout
        number = next(self._numbers)
        sandbox = ""
        if spec.wants_sandbox and spec.runs_code(sample):
            self._ready_sandbox(spec)
            sandbox = self.sandbox
        if spec.learned:
            options = self._serve(spec, options)
        try:
            line = pack_request(number, spec.name, seconds, completion, pack(sample), options, sandbox, reply)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UsageError(
                f"sample `{sample.id}` cannot go to the verifier `{spec.name}`: {error}",
                "prompt, answer, meta and options hold JSON values only",
            ) from None
        return _Request(number, spec, seconds, line)

    def _enqueue(self, requests: Sequence[_Request]) -> None:
        if self._pid != os.getpid():
            raise UsageError("the scorer belongs to the parent of this process", "make a new one")
        with self._lock:
            if self._closing:
                raise UsageError("the scorer is closed", "make a new one")
            self._incoming.extend(requests)
            self._open.update(requests)
            self._wake()

    def _wake(self) -> None:
        """Rings for the thread. The caller holds the lock."""
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):  # the thread has ended and closed it
                self._bell.send(b"!")

    # ----------------------------------------------------------------------------------- in our own thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._hand_out()
                self._hire()
                for key, events in self._selector.select(self._patience()):
                    if key.data is None:
                        self._take_in()
                    elif events & selectors.EVENT_READ:
                        self._hear(key.data)
                    else:
                        self._send(key.data)
                self._keep_clocks()
                self._linger()
        finally:
            self._shut()

    def _linger(self) -> None:
        """Sleeps for half of the work that the least busy worker has, by the mean durations of its verifiers."""
        work = min(
            (len(w.line) * self._means.get(w.line[0].spec.name, 0.0) if w.line else 0.0 for w in self._staff),
            default=0.0,
        )
        if work > LINGER_SECONDS / 20:
            time.sleep(min(work / 2, LINGER_SECONDS))

    def _take_in(self) -> None:
        """Moves what was submitted to the queue."""
        with contextlib.suppress(BlockingIOError):
            self._alarm.recv(4096)
        with self._lock:
            self._woken = False
            self._queue.extend(self._incoming)
            self._incoming.clear()

    def _hand_out(self) -> None:
        """Fills the workers' lines, the shortest first."""
        now = time.monotonic()
        ready = [worker for worker in self._staff if worker.ready and not worker.doomed]
        free = [w for w in ready if not w.line or (now < w.since + SLOW_SECONDS and not w.recalled)]
        for worker in sorted(free, key=lambda worker: len(worker.line)):
            while self._queue and self._queue[0].done():  # cancelled, or answered after a recall
                self._open.discard(self._queue.popleft())
            if not self._queue:
                break
            room = self._line_length(self._queue[0].spec.name)
            if len(worker.line) > room // 2:
                continue
            share = math.ceil(len(self._queue) / len(free))
            taken = [self._queue.popleft() for _ in range(min(room - len(worker.line), share))]
            if not worker.line:
                worker.start_clock(taken[0], now)
            worker.line.extend(taken)
            worker.outbox += b"".join(request.line for request in taken)
            self._send(worker)
        waiting = bool(self._queue) and len(ready) == self._wanted < self.workers
        self._backlog_since = min(self._backlog_since, now) if waiting else math.inf

    def _hire(self) -> None:
        """Starts the workers that are missing, unless the last ones all failed to start."""
        now = time.monotonic()
        if now >= self._backlog_since + BACKLOG_SECONDS:
            self._wanted += 1
            self._backlog_since = math.inf
        while self._missing() and now >= self._hire_after:
            try:
                worker = _Worker(self.registry.plugin_files, self.sandbox_options, self.memory_mb)
            except OSError as error:
                self._note_failure(f"no worker can be started: {error}")
                self._hire_after = now + RETRY_SECONDS
                break
            self._staff.append(worker)
            self._selector.register(worker.link, selectors.EVENT_READ, worker)
            self._send(worker)
        if self._broken and all(worker.doomed for worker in self._staff):
            while self._queue:
                self._finish(self._queue.popleft(), Verdict.error(self._broken))

    def _missing(self) -> bool:
        """Whether there should be another worker."""
        at_work = sum(not worker.doomed for worker in self._staff)
        return at_work < self._wanted and self._failures < START_FAILURES

    def _line_length(self, verifier: str) -> int:
        mean = self._means.get(verifier, 1.0)
        return max(1, min(LINE_LIMIT, int(LINE_SECONDS / max(mean, 1e-9))))

    def _patience(self) -> float | None:
        """Seconds until a clock runs out; None when none runs."""
        soonest = min((worker.due for worker in self._staff), default=math.inf)
        soonest = min(soonest, self._backlog_since + BACKLOG_SECONDS)
        if self._missing():
            soonest = min(soonest, self._hire_after)
        return None if soonest == math.inf else max(0.0, soonest - time.monotonic())

    def _send(self, worker: _Worker) -> None:
        """Writes what the socket takes now, and comes back for the rest when it takes more."""
        try:
            while worker.outbox:
                del worker.outbox[: worker.link.send(worker.outbox)]
        except BlockingIOError:
            pass
        except OSError:  # it is ending, which shows when reading
            worker.outbox.clear()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outbox else 0)
        if wanted != worker.events:
            worker.events = wanted
            self._selector.modify(worker.link, wanted, worker)

    def _hear(self, worker: _Worker) -> None:
        """Takes in what a worker has sent."""
        while True:
            try:
                data = worker.link.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._bury(worker)
                return
            if worker.doomed:
                continue
            worker.inbox += data
            try:
                for message in unpack(worker.inbox, ANSWER_LIMIT):
                    self._understand(worker, message)
            except (TypeError, ValueError, KeyError, IndexError, RecursionError) as error:
                self._dismiss(worker, f"{worker.blame}: the worker sent something that is no answer: {error}")

    def _understand(self, worker: _Worker, message: Any) -> None:
        """Acts on one message of a worker.

        Raises:
            TypeError, ValueError, KeyError, IndexError: It is not what a worker would send.
        """
        if worker.doomed:
            return
        if not worker.ready:
            if "ready" in message:
                worker.ready = True
                worker.stop_clock()
            else:
                self._dismiss(worker, f"no worker can be started: {message['failed']}")
            return
        number, status, score, detail, parts, duration, retire = message
        request = worker.line[0]
        if number != request.number or not isinstance(parts, dict) or not 0 <= duration < math.inf:
            raise ValueError("its fields do not fit")
        verdict = Verdict(_STATUSES[status], score, detail, parts, duration)
        worker.line.popleft()
        worker.tried = True
        self._failures, self._broken = 0, ""
        if worker.line:
            worker.start_clock(worker.line[0], time.monotonic())
        else:
            worker.stop_clock()
        self._finish(request, verdict)
        if retire:
            worker.recall(self._queue, 0)
            worker.doom()

    def _keep_clocks(self) -> None:
        """Ends the workers whose clock has run out, and frees those who wait behind a slow one."""
        now = time.monotonic()
        for worker in [worker for worker in self._staff if worker.due <= now]:
            self._hear(worker)  # the answer may have come while this thread was kept from the processor
            if worker.due > now:
                continue
            if worker.doomed:
                worker.process.kill()
                self._bury(worker)
            elif not worker.ready:
                self._dismiss(worker, f"no worker can be started: none was ready after {START_SECONDS:g} s")
            elif worker.deadline > now:
                worker.recall(self._queue, 1)
            else:
                head = worker.line[0]
                why = f"`{head.spec.name}` ran past its clock of {head.timeout:g} s and was killed"
                self._dismiss(worker, Verdict.timeout(why))

    def _dismiss(self, worker: _Worker, why: Verdict | str) -> None:
        """Settles a worker's affairs and has it killed."""
        self._settle(worker, why)
        worker.doom()

    def _settle(self, worker: _Worker, why: Verdict | str) -> None:
        """Gives the head of a worker's line its verdict, and the rest back to the queue."""
        if worker.line:
            worker.recall(self._queue, 1)
            verdict = why if isinstance(why, Verdict) else Verdict.error(why)
            self._finish(worker.line.popleft(), verdict.took(time.monotonic() - worker.since))
            worker.line.clear()
        elif not worker.tried:
            self._note_failure(why.detail if isinstance(why, Verdict) else why)

    def _bury(self, worker: _Worker) -> None:
        """Reaps a worker that has ended, by our hand or by itself."""
        try:
            code = worker.process.wait(BURIAL_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its socket and lives on
            worker.process.kill()
            code = worker.process.wait()
        self._selector.unregister(worker.link)
        worker.link.close()
        self._staff.remove(worker)
        worker.stop_clock()
        if not worker.doomed:
            end = f"ended with exit code {code}" if code >= 0 else f"was killed by {_signal_name(code)}"
            idle = "workers end before they have verified anything"
            self._settle(worker, f"{worker.blame if worker.line else idle}: the worker {end}")

    def _note_failure(self, cause: str) -> None:
        self._failures += 1
        if self._failures >= START_FAILURES:
            self._broken = cause

    def _finish(self, request: _Request, verdict: Verdict) -> None:
        """Gives a request its verdict, once; another worker may have been first."""
        self._open.discard(request)
        if not request.done():
            mean = self._means.get(request.spec.name, verdict.duration)
            self._means[request.spec.name] = 0.9 * mean + 0.1 * verdict.duration
            request.resolve(verdict)

    def _shut(self) -> None:
        """Ends the workers, resolves what is open, and gives back every descriptor."""
        with self._lock:
            self._closing = True
            self._bell.close()
            unfinished = list(self._open)
        for request in unfinished:
            self._finish(request, Verdict.error("the scorer was closed before this was verified"))
        for worker in self._staff:
            if worker.ready and not worker.line and not worker.doomed:
                with contextlib.suppress(OSError):  # it has just ended
                    worker.link.shutdown(socket.SHUT_WR)  # lets it close its sandbox
            else:
                worker.process.terminate()
        deadline = time.monotonic() + BURIAL_SECONDS
        for worker in self._staff:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.link.close()
        self._staff.clear()
        self._selector.close()
        self._alarm.close()

    def _forget(self) -> None:
        """Lets go of the descriptors in a forked child, which would keep the workers alive."""
        for link in [self._alarm, self._bell, *(worker.link for worker in self._staff)]:
            link.close()
        self._selector.close()
        for server in self._models.values():
            server.forget()


class _Request:
    """One verification on its way: for a future, or for a batch."""

    __slots__ = ("batch", "future", "line", "number", "spec", "timeout", "verdict")

    def __init__(self, number: int, spec: VerifierSpec, timeout: float, line: bytes) -> None:
        self.number = number
        self.spec = spec
        self.timeout = timeout
        self.line = line
        self.verdict: Verdict | None = None
        self.future: Future[Verdict] | None = None
        self.batch: _Batch | None = None

    def done(self) -> bool:
        """Whether it has its verdict, or nobody wants one any more."""
        if self.verdict is not None:
            return True
        wanted = self.batch or self
        return wanted.future is not None and wanted.future.cancelled()

    def resolve(self, verdict: Verdict) -> None:
        self.verdict = verdict
        if self.batch is not None:
            self.batch.count_down()
        elif self.future is not None and self.future.set_running_or_notify_cancel():
            self.future.set_result(verdict)


class _Batch:
    """Requests whose verdicts are wanted together."""

    def __init__(self, size: int) -> None:
        self.future: Future[list[Verdict]] = Future()
        self.requests: list[_Request] = []
        self.missing = size
        if not size:
            self.future.set_result([])

    def add(self, request: _Request) -> _Request:
        self.requests.append(request)
        request.batch = self
        return request

    def count_down(self) -> None:
        self.missing -= 1
        if not self.missing and self.future.set_running_or_notify_cancel():
            self.future.set_result([request.verdict for request in self.requests if request.verdict is not None])


class _Worker:
    """One worker process as the thread sees it.

    Attributes:
        line: What it was handed and has not answered; the head is what it works on.
        ready: It has started.
        tried: It has answered at least once.
        recalled: What waits behind the head is back in the queue too; it gets no more until it is idle.
        doomed: It was told to end.
        since, deadline: When the head's clock started, and when it runs out.
    """

    def __init__(self, plugins: Sequence[str], sandbox_options: Mapping[str, Any], memory_mb: int) -> None:
        self.line: collections.deque[_Request] = collections.deque()
        self.ready = self.tried = self.doomed = self.recalled = False
        self.events = selectors.EVENT_READ
        self.inbox = bytearray()
        setup = {"plugins": list(plugins), "sandbox_options": dict(sandbox_options), "memory_mb": memory_mb}
        self.outbox = bytearray(pack(setup))
        self.link, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = _start(theirs.fileno())
            except OSError:
                self.link.close()
                raise
        self.link.setblocking(False)
        self.since = time.monotonic()
        self.deadline = self.since + START_SECONDS

    @property
    def due(self) -> float:
        """When to look at it next: its head is out of time, or counts as slow while others wait behind it."""
        waiting = len(self.line) > 1 and not self.recalled
        return min(self.deadline, self.since + SLOW_SECONDS) if waiting else self.deadline

    @property
    def blame(self) -> str:
        """Who to name when it goes wrong: the verifier at work and its plugin."""
        return f"`{self.line[0].spec.name}` ({self.line[0].spec.origin})" if self.line else "nothing at work"

    def start_clock(self, head: _Request, now: float) -> None:
        self.since = now
        self.deadline = now + head.timeout

    def stop_clock(self) -> None:
        self.deadline = math.inf
        self.recalled = False

    def recall(self, queue: collections.deque[_Request], keep: int) -> None:
        """Puts its line less the first `keep` back into the queue, once. It may yet get to them first."""
        if not self.recalled:
            self.recalled = True
            queue.extendleft(reversed(list(self.line)[keep:]))

    def doom(self) -> None:
        """Has the guard end the worker and its children; its socket hangs up when they are gone."""
        self.doomed = True
        self.line.clear()
        self.process.terminate()
        self.deadline = time.monotonic() + BURIAL_SECONDS


def _start(link: int) -> subprocess.Popen[bytes]:
    """A new worker process with our import path. RLVR_DEBUG shows on stderr what verifiers print."""
    path = [os.path.abspath(entry) if entry in ("", ".") else entry for entry in sys.path]
    debug = debugging()
    output = 2 if debug else subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-uP" if debug else "-P", "-c", BOOT, str(link), *path],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(link,),
        start_new_session=True,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Ours, with one thread per process for numeric libraries: the workers are the parallelism."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **os.environ}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _signal_name(code: int) -> str:
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (perhaps the machine ran out of memory)" if name == "SIGKILL" else name


def _checked_timeout(seconds: float) -> float:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise UsageError(f"`{seconds}` is no clock for a verification", "give seconds, more than 0")
    return float(seconds)


def _registry_with(plugins: Iterable[str | os.PathLike[str]]) -> Registry:
    known = registry()
    return Registry.load([*known.plugin_files, *plugins]) if plugins else known


def ready_sandbox(known: Registry, name: str, settings: Mapping[str, Any], verifier: str = "") -> str:
    """The sandbox for a verifier that runs code: the one that was named, else the first of ours that this machine can
    run, else the only safe one of the plugins.

    Raises:
        ConfigError: There are several of plugins to choose from.
        MissingDependencyError: The one that was named cannot run here, or there is none.
    """
    who = f"the verifier `{verifier}` runs code, and there" if verifier else "there"
    if name:
        named = known.sandbox(name)
        if named.ready is not None:
            named.ready(settings)
        if not named.safe:
            print(f"warning: `{name}` does not hold untrusted code: {named.summary}", file=sys.stderr)
        return name
    obstacles: list[MissingDependencyError] = []
    ladder = [found for found in known.sandboxes.values() if found.safe and found.ready is not None]
    for found in ladder:
        assert found.ready is not None
        try:
            found.ready(settings)
        except MissingDependencyError as error:
            obstacles.append(error)
            continue
        if obstacles:
            print(f"note: code runs in the sandbox `{found.name}`: {found.summary}", file=sys.stderr)
            print("".join(f"note: {error.message}; {error.hint}\n" for error in obstacles), end="", file=sys.stderr)
        return found.name
    others = [found.name for found in known.sandboxes.values() if found.safe and found not in ladder]
    if len(others) == 1:
        return others[0]
    if others:
        listed = ", ".join(f"`{other}`" for other in others)
        raise ConfigError(
            f"{who} are several safe sandboxes: {listed}",
            "name one with the setting `scorer.sandbox`",
        )
    first = obstacles[0] if obstacles else None
    raise MissingDependencyError(
        f"{who} is no safe sandbox to run it in"
        + (": " + "; ".join(error.message for error in obstacles) if obstacles else ""),
        first.hint if first else "install a plugin that brings one, or name one with the setting `scorer.sandbox`",
    )


_living: weakref.WeakSet[Scorer] = weakref.WeakSet()


def _close_all() -> None:
    for scorer in list(_living):
        scorer.close()


def _forget_all() -> None:
    for scorer in list(_living):
        scorer._forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
