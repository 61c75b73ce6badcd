"""Sampling from one or more `vllm serve` processes, anywhere: balanced, watched, and replaced by one another.

A server is *ready* from when it has the current weights to when it fails. Requests go to the ready server that has the
fewest of them; those that a failing server had are sent again to another, or wait until one is back. A server that
comes back has the weights it was started with, so it is handed the current ones before it gets a request.

Servers have to be started with `START`: weights go over vLLM's own weight transfer, to `rlvr.sampler.vllm_worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlvr.errors import ConfigError, RlvrError, RunStopped
from rlvr.sampler.engine import Request, Weights, Written
from rlvr.sampler.vllm_http import Down, Impossible, Refused, Silent, addresses, call, client
from rlvr.sampler.weights import NO_COMMON_DISK, file_update, updates, write_weights

T = TypeVar("T")

START = 'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "rlvr"}\''

CONNECTIONS = 1024  # to all servers together at most; what is more waits here


@dataclass(eq=False)
class Server:
    """One server and what is known of it.

    Attributes:
        url: Without a slash at the end.
        requests: Connections for completions.
        control: Connections for everything else, so that it never waits for completions.
        ready: Whether it gets requests.
        lost: Set while it is not ready.
        why: Why it was last found not to be ready.
        refusal: What it answers instead of getting ready, and how many times in a row.
        identity: Differs between two starts of the server.
        logprobs_mode: Which log-probabilities it gives, in vLLM's words.
        context: Tokens of prompt and completion together at most.
        pushed: Number of the update whose weights it has; 0 are those it was started with.
        files: Whether it can read files of this machine; None until tried.
        paused: Whether it was paused here and not resumed yet.
        busy: Requests under way.
        seen: When it was last found to be well and the same, on the monotonic clock.
        lock: Held while weights are being pushed.
        question: Finding out whether it is well, after it failed a request.
    """

    url: str
    requests: httpx.AsyncClient
    control: httpx.AsyncClient
    ready: bool = False
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""
    refusal: RlvrError | None = None
    refusals: int = 0
    identity: str | None = None
    logprobs_mode: str = "raw_logprobs"
    context: int = 0
    pushed: int = 0
    files: bool | None = None
    paused: bool = False
    busy: int = 0
    seen: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    question: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return f"the vLLM server at {self.url}"


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class ServerEngine:
    """An engine made of `vllm serve` processes.

    Args:
        urls: Where they listen, such as `http://host:8000`.
        facts: What tells the learner's architecture from another, as `rlvr.sampler.weights.facts` gives it.
        sync: How weights get there: `files` on a common disk, `http`, or `auto`: files where a server can read them.
        seeded: Whether every request has a seed.
        patience: Seconds to wait for one to come back, or to start, when none answers.
        folder: Where weights are written; by default shared memory if it is large enough, else the temporary folder.
        dtype: Type that weights are sent in, such as `bfloat16`; None leaves them as they are.
        tolerance: Mean distance of log-probabilities (nats) between a server that came back and the others.
        size: Bytes of the weights, if known.
        say: Is told when servers come and go.

    Raises:
        ConfigError: No URL, one that is none, or the same twice.
    """

    POLL = 2.0
    """Seconds between two looks at a server."""
    SILENCE = 30.0
    """Seconds without an answer after which a server counts as dead, though connections to it stand."""
    STEP_SILENCE = 180.0
    """The same for what its engine has to answer between two steps of decoding."""
    RESTART = 5.0
    """Seconds in which no server can have been ended and started again unseen."""
    SAY = 10.0
    """Seconds between two messages while none is ready."""
    BACKOFF = (0.25, 10.0)
    """Seconds before trying again, at first and at most; doubled each time."""
    ATTEMPTS = 12
    """Failures of one request after which the run stops: the request may be what kills servers."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        facts: Mapping[str, Any],
        sync: str = "auto",
        seeded: bool = True,
        patience: float = 600.0,
        folder: Path | None = None,
        dtype: str | None = None,
        tolerance: float = 0.05,
        size: int = 0,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        self.urls = addresses(urls)
        if sync not in ("auto", "files", "http"):
            raise ConfigError(
                f"`sampler.sync` is `{sync}`, which reaches no vLLM server", "use `files`, `http` or `auto`"
            )
        self.facts = dict(facts)
        self.sync = sync
        self.seeded = seeded
        self.patience = patience
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.tolerance = tolerance
        self.size = size
        self.say = say
        self.name = f"the vLLM server at {self.urls[0]}" if len(self.urls) == 1 else "the vLLM servers"
        self.context = 0
        self.servers: list[Server] = []
        self._folder = folder
        self._temporary: Path | None = None
        self._weights: Path | None = None
        self._updates = 0
        self._probed: tuple[int, tuple[int, ...], tuple[float, ...]] | None = None
        self._started = False
        self._settled = asyncio.Event()  # one is ready, or none will be
        self._end: RlvrError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._mourning: asyncio.Task[None] | None = None
        self._random = random.Random()

    # What the sampler calls

    async def start(self) -> None:
        """Finds the servers. Waits for one while none listens.

        Raises:
            ConfigError: One of them is no vLLM server, serves another model, or lacks what a sync needs.
            RunStopped: None answered for as long as is waited.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        share = max(16, min(CONNECTIONS, soft // 2) // len(self.urls))
        self.servers = [Server(url, client(url, share, None), client(url, 8, self.SILENCE)) for url in self.urls]
        for server in self.servers:
            server.lost.set()
        await asyncio.gather(*map(self._try, self.servers))
        for server in self.servers:
            if server.refusal:
                raise server.refusal
        for server in self.servers:
            if not server.ready:
                self.say(f"{server.name} does not answer yet ({server.why})")
            self._spawn(self._watch(server))
            self._spawn(self._watch_engine(server))
        if not self._ready():
            self._mourn()
        await self._wait()
        self._started = True

    async def generate(self, request: Request) -> Written:
        """See `Engine.generate`. However often it has to be sent again, it gives one completion."""
        failures = 0
        put_off = 0.0  # when it was first told to come later
        wait = self._backoff()
        while True:
            await self._wait()
            server = min(self._ready(), key=lambda s: s.busy)
            check_mode(server, request)
            server.busy += 1
            try:
                answer = await self._unless_lost(server, self._complete(server, self._body(request)))
                return written(answer)
            except Refused as error:
                why, failed = f"it answers {error.status}: {error}", error.status not in (429, 503)
                await self._ask_after(server, why)
                if server.ready and error.status < 500 and error.status not in (408, 429):
                    raise self._refused(server, error) from None
            except Down as error:
                why, failed = str(error), True
                await self._ask_after(server, why)
            finally:
                server.busy -= 1
            failures += failed
            if not failed:
                put_off = put_off or time.monotonic()
            if failures >= self.ATTEMPTS or (put_off and time.monotonic() - put_off > self.patience):
                often = f"failed {failures} times" if failed else f"was put off for {self.patience:.0f} s"
                raise RunStopped(
                    f"a completion {often}, the last time at {server.name}: {why}",
                    "its own log says more; mend it, then go on with `--resume`",
                )
            await asyncio.sleep(next(wait))

    async def logprobs(self, ids: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """See `Engine.logprobs`: one list per server that is ready."""
        while True:
            await self._wait()
            servers = self._ready()
            found = await asyncio.gather(*(self._score_or_lose(server, ids) for server in servers))
            values = {server.name: list(v) for server, v in zip(servers, found, strict=True) if v is not None}
            if values:
                self._probed = (self._updates, tuple(ids), tuple(next(iter(values.values()))))
                return values

    async def update(self, weights: Weights, version: int) -> None:
        """See `Engine.update`: all servers that are ready have them afterwards, and each that comes back gets them.

        Raises:
            RunStopped: No server is left, or all of them refuse the weights.
        """
        path = await asyncio.to_thread(self._write, weights)
        former, self._weights = self._weights, path
        self._updates += 1
        try:
            while (behind := [s for s in self._ready() if s.pushed != self._updates]) or not self._ready():
                await asyncio.gather(*map(self._push_or_lose, behind))
                await self._wait()
        finally:
            if former:
                former.unlink(missing_ok=True)

    async def rest(self) -> None:
        """Does nothing: servers have their own memory."""

    async def wake(self) -> None:
        """Undoes `rest`."""

    async def close(self) -> None:
        """Lets the servers go; they run on."""
        tasks = {*self._tasks, *(s.question for s in self.servers if s.question)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end = RunStopped("the vLLM servers were let go in the middle of something")
        self._settled.set()
        for server in self.servers:
            server.ready = False
            server.lost.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.SILENCE):
                while any(server.busy for server in self.servers):  # they end now, and drop their connections
                    await asyncio.sleep(0.001)
        for server in self.servers:
            with contextlib.suppress(Down, Refused, TimeoutError):
                async with asyncio.timeout(self.SILENCE), server.lock:  # an update resumes what it has paused
                    if server.paused:
                        await self._resume(server)
            await server.requests.aclose()
            await server.control.aclose()
        if self._weights:
            self._weights.unlink(missing_ok=True)
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    # Which servers are ready

    def _ready(self) -> list[Server]:
        return [server for server in self.servers if server.ready]

    async def _wait(self) -> None:
        """Waits until a server is ready.

        Raises:
            RlvrError: None will be.
        """
        while True:
            await self._settled.wait()
            if self._end:
                raise type(self._end)(self._end.message, self._end.hint)
            if self._settled.is_set():  # and no server was lost again before this ran
                return

    def _gain(self, server: Server) -> None:
        """From now on `server` gets requests."""
        if self._started:
            self.say(f"{server.name} is back, with the weights of now")
        server.ready, server.refusal, server.refusals = True, None, 0
        server.seen = time.monotonic()
        server.lost.clear()
        self._end = None
        self._settled.set()
        if self._mourning:
            self._mourning.cancel()
            self._mourning = None

    def _lose(self, server: Server, why: str) -> None:
        """From now on `server` gets no requests, and those that it has are sent again."""
        server.why = why
        if not server.ready:
            return
        server.ready = False
        server.lost.set()
        left = len(self._ready())
        self.say(f"{server.name} is lost ({why}); " + (f"{left} left" if left else "none is left"))
        if not left:
            self._settled.clear()
            self._mourn()

    def _mourn(self) -> None:
        self._mourning = self._spawn(self._give_up())

    async def _give_up(self) -> None:
        """Ends the wait for servers when it has been too long."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < self.patience:
            await asyncio.sleep(min(self.SAY, self.patience - waited))
            if time.monotonic() - began < self.patience:
                self.say(f"no vLLM server answers; waiting for {self.patience - time.monotonic() + began:.0f} s more")
        reasons = "; ".join(f"{server.url}: {server.why}" for server in self.servers)
        refusal = next((server.refusal for server in self.servers if server.refusal), None)
        self._end = refusal or RunStopped(
            f"no vLLM server answered for {self.patience:.0f} s ({reasons})",
            f"start it with `{START}`" + (", then go on with `--resume`" if self._started else ""),
        )
        self._settled.set()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):  # nobody awaits it, so whoever waits is told
            self._end = RunStopped(f"watching the vLLM servers failed: {error!r}", "`--debug` shows where")
            self._end.__cause__ = error
            self._settled.set()

    async def _watch(self, server: Server) -> None:
        """Looks at a server from time to time; tries to get it back when it is lost."""
        wait = self._backoff()
        while True:
            if server.ready:
                await asyncio.sleep(self.POLL)
                if server.ready:
                    await self._look(server)
                wait = self._backoff()
            else:
                await asyncio.sleep(next(wait))
                await self._try(server)

    async def _look(self, server: Server) -> None:
        """Loses a server that has died, hangs or is another one now."""
        try:
            await self._call(server, "GET", "/health")
            unseen = time.monotonic() - server.seen  # long when this process was stopped, or had much else to do
            if unseen > self.RESTART and (await self._info(server)).get("instance_id") != server.identity:
                raise Down("it was started again")
            server.seen = time.monotonic()
        except (Down, Refused) as error:
            self._lose(server, str(error))

    async def _watch_engine(self, server: Server) -> None:
        """Asks the engine behind a server something from time to time, since that can hang while the server is well."""
        while True:
            await asyncio.sleep(self.POLL)
            if not server.ready or server.lock.locked():  # while it loads weights, it answers when it has
                continue
            try:
                paused = await self._call(server, "GET", "/is_paused", timeout=self.STEP_SILENCE)
                if paused.get("is_paused") and not server.lock.locked():
                    async with server.lock:
                        await self._resume(server)
            except (Down, Refused) as error:
                if not (isinstance(error, Silent) and server.lock.locked()):
                    self._lose(server, str(error))

    async def _ask_after(self, server: Server, why: str) -> None:
        """Finds out whether a server that failed a request is well, and the same; once for all who ask."""
        if server.ready and server.question is None:
            server.question = asyncio.get_running_loop().create_task(self._examine(server, why))
        if server.question:
            await asyncio.shield(server.question)

    async def _examine(self, server: Server, why: str) -> None:
        try:
            await self._call(server, "GET", "/health")
            identity = (await self._info(server)).get("instance_id")
            if identity is None or identity != server.identity:
                self._lose(server, "it was started again" if identity else why)
        except (Down, Refused):
            self._lose(server, why)
        finally:
            server.question = None

    async def _try(self, server: Server) -> None:
        """Makes a server ready, if it is there and takes the weights."""
        try:
            await self._meet(server)
            async with server.lock:
                server.pushed, server.files = 0, None
                while server.pushed != self._updates:
                    await self._hand_over(server)
                    await self._compare(server)
                self._check_context(server)
                self._gain(server)
        except Down as error:
            server.why, server.refusal, server.refusals = str(error), None, 0
        except RlvrError as error:
            server.why, server.refusal = error.message, error
            server.refusals += 1
            if self._started and server.refusals == 1:
                self.say(error.message)
            if not self._started or (not self._ready() and all(s.refusals > 1 for s in self.servers)):
                self._end = error
                self._settled.set()

    async def _meet(self, server: Server) -> None:
        """Finds out whether what listens there can serve.

        Raises:
            Down: Nothing does, or not yet.
            ConfigError: It can not.
        """
        try:
            try:
                card = (await self._call(server, "GET", "/v1/models"))["data"][0]
                if card["owned_by"] != "vllm":
                    raise KeyError(card["owned_by"])
                server.context = int(card["max_model_len"])
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise self._stranger(server, "it lists no model of vLLM's") from error
            await self._call(server, "GET", "/health")
        except Impossible as error:
            if self._started:  # it was possible before
                raise
            raise ConfigError(
                f"no vLLM server can be reached at `{server.url}`: {error}",
                "check scheme, host and port of `--sampler.url`",
            ) from error
        except Refused as error:
            if error.status >= 500:
                raise Down(f"it answers {error.status}: {error}") from None
            if error.status in (401, 403):
                raise self._refused(server, error) from None
            raise self._stranger(server, f"it answers {error.status}: {error}") from None
        try:
            paused = await self._call(server, "GET", "/is_paused", timeout=self.STEP_SILENCE)
        except Refused as error:
            if error.status != 404:
                raise Down(f"it answers {error.status}: {error}") from None
            raise ConfigError(f"{server.name} lets nobody change its weights", f"start it with `{START}`") from None
        info = await self._info(server)
        server.identity = info.get("instance_id")
        server.logprobs_mode = info.get("model_config", {}).get("logprobs_mode", "raw_logprobs")
        transfer = info.get("weight_transfer_config", {"backend": "rlvr"}) or {}
        if transfer.get("backend") != "rlvr":
            named = f"`{transfer['backend']}`" if transfer else "off"
            raise ConfigError(
                f"{server.name} does not take weights from rlvr: its weight transfer is {named}",
                f"start it with `{START}`",
            )
        in_parts = info.get("scheduler_config", {}).get("enable_chunked_prefill")
        if self.seeded and in_parts and info.get("device_config", {}).get("device_type") == "cpu":
            raise ConfigError(
                f"{server.name} would end at the first prompt that it reads in two parts, as vLLM on a CPU does with "
                "seeds",
                "start it with `--no-enable-chunked-prefill`, or give `--no-sampler.seeded`",
            )
        await self._introduce(server, {"facts": self.facts})
        if paused.get("is_paused"):  # by a run that ended in the middle of a sync
            with contextlib.suppress(Refused):
                await self._resume(server)

    async def _introduce(self, server: Server, info: dict[str, Any]) -> None:
        """Tells a server about the learner.

        Raises:
            ConfigError: It serves another model, or cannot read files of this machine though it has to.
        """
        try:
            await self._call(server, "POST", "/init_weight_transfer_engine", {"init_info": info}, self.STEP_SILENCE)
        except Refused as error:
            await self._check_health(server)
            hint = "serve the learner's model (`--model`), or give another `--sampler.url`"
            raise ConfigError(
                f"{server.name} does not fit: {error}",
                hint if "not the learner's" in str(error) else f"start it with `{START}`",
            ) from error

    def _check_context(self, server: Server) -> None:
        """Takes the shortest context of all servers, until the run has counted on one.

        Raises:
            ConfigError: This one's is too short by then.
        """
        if self._started and server.context < self.context:
            raise ConfigError(
                f"{server.name} has a context of {server.context} tokens, the others have {self.context}",
                f"start it with `--max-model-len {self.context}`",
            )
        self.context = min(server.context, self.context or server.context)

    def _stranger(self, server: Server, why: str) -> ConfigError:
        return ConfigError(
            f"what listens at `{server.url}` is not a vLLM server: {why}",
            f"`--sampler.url` takes the address of `{START}`",
        )

    def _refused(self, server: Server, error: Refused) -> RlvrError:
        if error.status in (401, 403):
            hint = "set the environment variable `VLLM_API_KEY` to the key that it was started with"
            return ConfigError(f"{server.name} wants an API key: {error}", hint)
        return RunStopped(
            f"{server.name} refuses a request ({error.status}): {error}",
            "prompt and completion have to fit its `--max-model-len`; its own log says more",
        )

    # Weights

    def _write(self, weights: Weights) -> Path:
        """Writes weights to a file of their own."""
        if self._folder is None:
            size = self.size or sum(tensor.nbytes for _, tensor in weights())
            self._folder = self._temporary = Path(tempfile.mkdtemp(prefix="rlvr-weights-", dir=roomy(2 * size)))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"weights-{self._updates + 1}.safetensors"
        try:
            write_weights(weights(), path, self.dtype)
        except (OSError, SafetensorError) as error:
            raise RunStopped(
                f"the weights cannot be written to `{self._folder}`: {error}",
                "free some space there, or set `TMPDIR` to a folder that has it, then go on with `--resume`",
            ) from error
        return path

    async def _push_or_lose(self, server: Server) -> None:
        """Hands the current weights to a server that is ready."""
        try:
            async with server.lock:
                await self._hand_over(server)
        except Down as error:
            self._lose(server, str(error))
        except RlvrError as error:
            server.refusal, server.refusals = error, 1

    async def _hand_over(self, server: Server) -> None:
        """Hands the current weights over. Whatever happens, the server goes on generating.

        Raises:
            Down: The server has died.
            RlvrError: It refuses them.
        """
        # What is under way there must not go on with weights of which some are old and some are new: lost first, then
        # resumed. One that does not answer is resumed when it is back, or at the end.
        try:
            await (self._unless_lost(server, self._push(server)) if server.ready else self._push(server))
        except Down as error:
            self._lose(server, str(error))
            raise
        except RlvrError as error:
            self._lose(server, error.message)
            if server.paused:
                with contextlib.suppress(Down, Refused):
                    await self._resume(server)
            raise
        try:
            await self._resume(server)
        except Refused as error:
            raise Down(f"it cannot go on: {error}") from error

    async def _push(self, server: Server) -> None:
        number, path = self._updates, self._weights
        assert path is not None
        try:
            await self._choose_way(server)
            server.paused = True
            await self._load(server, "POST", "/pause?mode=keep")
            await self._begin(server)
            parts = iter([file_update(path)]) if server.files else updates(read(path))
            while (body := await asyncio.to_thread(encoded, parts)) is not None:
                await self._load(server, "POST", "/update_weights", body)
            await self._load(server, "POST", "/finish_weight_update", {})
            await self._forget_prefixes(server)
        except Refused as error:
            await self._check_health(server)
            raise RunStopped(
                f"{server.name} does not take the weights: {error}", "its own log says more; does it serve the model?"
            ) from error
        except FileNotFoundError as error:
            raise Down("newer weights took the place of those that were being handed over") from error
        server.pushed = number

    async def _choose_way(self, server: Server) -> None:
        """Finds out whether a server can read files of this machine."""
        if server.files is not None:
            return
        server.files = False
        if self.sync == "http":
            return
        assert self._folder is not None
        nonce = secrets.token_hex(16)
        probe = self._folder / f"probe-{nonce}"
        probe.write_text(nonce, encoding="ascii")
        try:
            await self._introduce(server, {"facts": self.facts, "path": str(probe), "nonce": nonce})
            server.files = True
        except ConfigError as error:
            if NO_COMMON_DISK not in error.message:
                raise
            if self.sync == "files":
                raise ConfigError(
                    f"{server.name} cannot read files in `{self._folder}`", "use `--sampler.sync http`"
                ) from error
        finally:
            probe.unlink(missing_ok=True)

    async def _begin(self, server: Server) -> None:
        body = {"is_checkpoint_format": False}  # the worker's own engine does what layers need
        try:
            await self._load(server, "POST", "/start_weight_update", body)
        except Refused:  # a run that was killed in the middle of an update left it open
            with contextlib.suppress(Refused):
                await self._load(server, "POST", "/finish_weight_update", {})
            await self._load(server, "POST", "/start_weight_update", body)

    async def _forget_prefixes(self, server: Server) -> None:
        for wait in (0.1, 0.5, 2.0, None):
            answer = await self._load(server, "POST", "/reset_prefix_cache?reset_running_requests=true")
            if answer.get("success", True):  # older ones do not say
                return
            if wait:
                await asyncio.sleep(wait)
        raise Refused(200, "its prefix cache, which is of the former weights, cannot be reset")

    async def _resume(self, server: Server) -> None:
        await self._call(server, "POST", "/resume", timeout=self.STEP_SILENCE)
        server.paused = False

    async def _compare(self, server: Server) -> None:
        """Compares a server that came back with what another, or itself, made of the same weights before.

        Raises:
            RunStopped: It does not have those weights.
        """
        if not self._probed or self._probed[0] != self._updates:
            return
        _, ids, expected = self._probed
        try:
            found = await self._score(server, ids, self.STEP_SILENCE)
        except Refused as error:
            raise self._refused(server, error) from None
        apart = sum(abs(a - b) for a, b in zip(found, expected, strict=True)) / len(expected)
        if not apart <= self.tolerance:  # nor NaN
            raise RunStopped(
                f"{server.name} came back and took the weights, but its log-probabilities are {apart:.3g} nats off on "
                f"average (tolerance {self.tolerance:.3g})",
                "it serves another model, or its precision differs from that of the others",
            )

    # Requests

    def _body(self, request: Request) -> dict[str, Any]:
        """What asks for a completion. Whatever a model's own generation config could change is said."""
        body: dict[str, Any] = {
            "prompt": list(request.prompt),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": list(request.stop),
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        return body | {"seed": request.seed} if self.seeded else body

    async def _complete(self, server: Server, body: dict[str, Any]) -> Any:
        """Asks for a completion, however long it takes: `_watch` sees to it that somebody is working on it."""
        return await call(server.requests, "POST", "/v1/completions", body)

    async def _score(self, server: Server, ids: Sequence[int], timeout: float | None = None) -> list[float]:
        """log π(ids[i]) given what precedes it, for i from 1 on."""
        body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        answer = await call(server.requests, "POST", "/v1/completions", body, timeout)
        try:
            rows = answer["choices"][0]["prompt_logprobs"][1:]
            return [float(row[str(token)]["logprob"]) for token, row in zip(ids[1:], rows, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Down(f"it answers something else than log-probabilities: {error!r}") from error

    async def _score_or_lose(self, server: Server, ids: Sequence[int]) -> list[float] | None:
        try:
            return await self._unless_lost(server, self._score(server, ids))
        except Down as error:
            self._lose(server, str(error))
        except Refused as error:
            if error.status < 500:
                raise self._refused(server, error) from None
            self._lose(server, f"it answers {error.status}: {error}")
        return None

    async def _unless_lost(self, server: Server, work: Awaitable[T]) -> T:
        """What `work` gives, given up when the server is lost meanwhile.

        Raises:
            Down: It was.
        """
        task = asyncio.ensure_future(work)
        lost = asyncio.ensure_future(server.lost.wait())
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Down(server.why)
        finally:
            lost.cancel()
            task.cancel()
            await asyncio.gather(task, lost, return_exceptions=True)

    async def _call(
        self, server: Server, method: str, path: str, body: Any = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """An answer that should come soon."""
        answer = await call(server.control, method, path, body, timeout or self.SILENCE)
        return answer if isinstance(answer, dict) else {}

    async def _load(self, server: Server, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """An answer that takes as long as weights take to load."""
        return await self._call(server, method, path, body, max(self.patience, self.STEP_SILENCE))

    async def _check_health(self, server: Server) -> None:
        """Raises:
        Down: The server that answered with an error was dying.
        """
        try:
            await self._call(server, "GET", "/health")
        except Refused as error:
            raise Down(f"its health is {error.status}") from error

    async def _info(self, server: Server) -> dict[str, Any]:
        """vLLM's own settings there; none where it does not give them."""
        try:
            info = (await self._call(server, "GET", "/server_info?config_format=json")).get("vllm_config")
        except Refused as error:
            if error.status != 404:
                raise Down(f"it answers {error.status}: {error}") from error
            return {}
        return info if isinstance(info, dict) else {}

    def _backoff(self) -> Iterator[float]:
        """Seconds to wait before each next attempt."""
        seconds, most = self.BACKOFF
        while True:
            yield seconds * self._random.uniform(0.5, 1.5)
            seconds = min(2 * seconds, most)


def written(answer: Any) -> Written:
    """A server's answer as a completion.

    Raises:
        Down: It is none, or was broken off.
    """
    try:
        choice = answer["choices"][0]
        reason: Literal["stop", "length"] = choice["finish_reason"]
        ids = tuple(int(token) for token in choice["token_ids"])
        logprobs = tuple(float(value) for value in choice["logprobs"]["token_logprobs"])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Down(f"it answers something else than a completion: {error!r}") from error
    if reason not in ("stop", "length"):
        raise Down(f"it broke a completion off (`{reason}`)")
    if not ids or len(ids) != len(logprobs):
        raise Down(f"it answers {len(ids)} tokens with {len(logprobs)} log-probabilities")
    return Written(ids, logprobs, reason)


def check_mode(server: Server, request: Request) -> None:
    """Raises:
    ConfigError: The server's log-probabilities would not be those of the full softmax at the sampling temperature.
    """
    mode, plain = server.logprobs_mode, request.temperature in (0.0, 1.0)
    if not request.learned:
        return
    if mode == "raw_logprobs" and plain:
        return
    if mode == "processed_logprobs" and (request.top_p == 1 or not request.temperature):
        return
    wanted = "raw_logprobs" if plain else "processed_logprobs"
    raise ConfigError(
        f"{server.name} gives `{mode}`, which are not what the learner needs at temperature {request.temperature:.6g}"
        + (f" and top_p {request.top_p:.6g}" if request.top_p < 1 else ""),
        f"start it with `--logprobs-mode {wanted}`",
    )


def read(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, one after the other."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118, it is no dictionary
            yield name, file.get_tensor(name)


def encoded(parts: Iterator[dict[str, Any]]) -> bytes | None:
    """The next part of an update, as JSON; None after the last."""
    part = next(parts, None)
    return None if part is None else json.dumps({"update_info": part}).encode()


def roomy(size: int) -> Path:
    """Shared memory where `size` bytes fit twice over, else the temporary folder."""
    shared = Path("/dev/shm")
    if os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * size:
        return shared
    return Path(tempfile.gettempdir())
