"""Sampling from an engine that runs beside the loop: every completion is a future, and weights are proven fresh.

An `Engine` generates and takes weights; it runs in an event loop of its own thread. `EngineSampler` is what the loop
sees of it:

    submit(prompt, params) -> Future[Completion]      ends when that completion ends, whatever else is under way
    sync(version)                                     hands the learner's weights over and proves that they arrived

After every sync the engine says how likely it finds a fixed completion, token by token, and the learner says the same.
Where they are apart, the weights did not arrive, however well the engine said it went, and the run stops.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor

from rlvr.errors import ConfigError, RunStopped
from rlvr.types import Completion, SamplingParams

T = TypeVar("T")

PROBE_TOKENS = 32

Weights = Callable[[], Iterable[tuple[str, Tensor]]]
"""Gives the policy's tensors under their names in a Hugging Face checkpoint; each call starts anew."""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to generate."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[int, ...]
    """Ids that end the completion; the one that did is part of it."""
    learned: bool = True
    """Whether its log-probabilities matter; those of an evaluation do not."""


@dataclass(frozen=True, slots=True)
class Written:
    """A completion as the engine wrote it: ids and log-probabilities at the sampling temperature, side by side."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """What generates. Every method but the properties is called in the event loop of its sampler.

    Attributes:
        name: For error messages, such as `vLLM` or `the vLLM server at http://host:8000`.
        context: Tokens of prompt and completion together at most; known once started.
    """

    name: str
    context: int

    async def start(self) -> None:
        """Makes it ready to generate.

        Raises:
            RlvrError: It does not start, or cannot be reached; says what to do.
        """

    async def generate(self, request: Request) -> Written:
        """Generates one completion. A cancelled call ends the work in the engine too.

        Raises:
            RlvrError: The engine has died, and there is no other that could take over.
        """

    async def logprobs(self, ids: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """log π(ids[i]) given what precedes it, at temperature 1, for i from 1 on; one list per replica of the
        weights, under a name for messages."""

    async def update(self, weights: Weights, version: int) -> None:
        """Takes new weights: holds what is being generated, loads, forgets cached prefixes, goes on.

        Raises:
            RlvrError: They do not fit the engine's model, or it has died.
        """

    async def rest(self) -> None:
        """Frees the memory that generating needs and learning could use, where the engine can; nothing is under way."""

    async def wake(self) -> None:
        """Undoes `rest`."""

    async def close(self) -> None:
        """Ends it and all that it started."""


class EngineSampler:
    """A sampler over an engine.

    Args:
        engine: Generates.
        tokenizer: Decodes completions, special tokens removed.
        ends: Ids that end a completion.
        weights: The policy's weights, for `sync`.
        expected: `expected(ids, temperature)` is log π of `ids[1:]` by the learner, for the probe.
        prompt: What the probe begins with.
        params: How the run samples; its temperature is the probe's too.
        tolerance: Mean distance of log-probabilities (nats) over the probe above which the weights count as stale.
        needed: Tokens of the longest prompt and its completion together.
        rests: Whether the engine gives its memory back while the learner works.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        ends: Iterable[int],
        weights: Weights,
        expected: Callable[[Sequence[int], float], Sequence[float]],
        prompt: Sequence[int],
        params: SamplingParams,
        tolerance: float,
        needed: int = 0,
        rests: bool = False,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.ends = tuple(sorted(ends))
        self.weights = weights
        self.expected = expected
        self.prompt = tuple(prompt)
        self.params = params
        self.tolerance = tolerance
        self.needed = needed
        self.rests = rests
        self.version = 0
        self.probe: tuple[int, ...] = ()  # the prompt and what was sampled for it at the first sync
        self._started = self._resting = self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rlvr-sampler", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Tokens of prompt and completion together at most."""
        return self.engine.context

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> Future[Completion]:
        """Generates one completion beside all others that are under way. Cancelling the future ends the work.

        Args:
            prompt: Token ids.
            params: Its own `max_tokens` and `seed`; `rooms` means nothing here.

        Raises:
            ConfigError: It would not fit the engine's context.
        """
        self._check_length(len(prompt), params.max_tokens)
        learned = (params.temperature, params.top_p) == (self.params.temperature, self.params.top_p)
        request = Request(
            tuple(prompt), params.max_tokens, params.temperature, params.top_p, params.seed % 2**63, self.ends, learned
        )
        return asyncio.run_coroutine_threadsafe(self._complete(request, self.version), self._loop)

    async def _complete(self, request: Request, version: int) -> Completion:
        written = await self.engine.generate(request)
        text = self.tokenizer.decode(written.token_ids, skip_special_tokens=True)
        return Completion(text, written.token_ids, written.logprobs, written.finish_reason, version=version)

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, params: SamplingParams
    ) -> Iterator[tuple[int, Completion]]:
        """See `rlvr.Sampler.sample`. What is still under way when the caller stops early is cancelled."""
        rooms = params.rooms or (params.max_tokens,) * len(prompts)
        ended: queue.SimpleQueue[tuple[int, Future[Completion]]] = queue.SimpleQueue()
        futures: list[Future[Completion]] = []
        try:
            for index, (prompt, room) in enumerate(zip(prompts, rooms, strict=True)):
                for copy in range(group_size):
                    seed = params.seeds[index] + copy if params.seeds else params.seed + index * group_size + copy
                    own = replace(params, max_tokens=room, seed=seed, rooms=(), seeds=())
                    # The engine hashes seeds, so that neighbours have nothing in common.
                    future = self.submit(prompt, own)
                    futures.append(future)
                    future.add_done_callback(lambda done, index=index: ended.put((index, done)))  # type: ignore[misc]
            for _ in range(len(futures)):
                index, future = ended.get()
                yield index, future.result()
        finally:
            for future in futures:
                future.cancel()

    def sync(self, version: int) -> dict[str, float]:
        """Hands the learner's weights to the engine and proves that they arrived. The first time, starts it.

        Args:
            version: What completions sampled from now on are said to come from: updates that the learner has done.

        Returns:
            `time/sync` in seconds, and `probe`: the mean distance of the probe's log-probabilities, in nats.

        Raises:
            RunStopped: The engine's log-probabilities are not the learner's.
            ConfigError: A prompt and its completion do not fit the engine's context.
            RlvrError: The engine does not start, or does not take the weights.
        """
        if not self._started:
            self._wait(self.engine.start())
            self._started = True
            self._check_length(self.needed - self.params.max_tokens, self.params.max_tokens)
        began = time.monotonic()
        self.wake()
        self._wait(self.engine.update(self.weights, version))
        self.version = version
        when = f"after the sync of step {version}" if version else "before the first step"
        apart = self.check(when) if self.probe else self.begin(when)
        return {"time/sync": time.monotonic() - began, "probe": apart}

    def begin(self, when: str) -> float:
        """Samples what is the probe from now on, as the run samples; else like `check`.

        Raises:
            RunStopped: The engine's log-probabilities are not the learner's, of what it sampled or was shown.
        """
        params, room = self.params, min(PROBE_TOKENS, self.context - len(self.prompt) - 1)
        request = Request(self.prompt, room, params.temperature, params.top_p, 0, ())
        written = self._wait(self.engine.generate(request))
        self.probe = (*self.prompt, *written.token_ids)
        self.check(when)  # tells weights that are wrong from log-probabilities that are of something else
        expected = self.expected(self.probe, params.temperature)
        apart = distance(written.logprobs, expected)
        if not apart <= self.tolerance:
            raise RunStopped(
                f"{when}, the log-probabilities of {self.engine.name} for what it sampled at temperature "
                f"{params.temperature:g} are {apart:.3g} nats off the learner's on average "
                f"(tolerance {self.tolerance:.3g})",
                "a server needs `--logprobs-mode processed_logprobs` for a temperature other than 1",
            )
        return apart

    def check(self, when: str) -> float:
        """The mean distance between engine and learner over the probe, in nats; that of the worst replica.

        Raises:
            RunStopped: It is above the tolerance, or not a number.
        """
        expected = self.expected(self.probe, 1.0)[len(self.prompt) - 1 :]
        worst = 0.0
        for where, found in self._wait(self.engine.logprobs(self.probe)).items():
            apart = distance(found[len(self.prompt) - 1 :], expected)
            if not apart <= self.tolerance:  # nor NaN
                raise RunStopped(
                    f"{when}, the log-probabilities of {where} are {apart:.3g} nats off the learner's on average "
                    f"(tolerance {self.tolerance:.3g}): its weights are not the learner's",
                    "the sync is broken, or it serves another model, or in another `--dtype`; `--sampler.tolerance` "
                    "allows more, `--sampler transformers` needs no sync",
                )
            worst = max(worst, apart)
        return worst

    def rest(self) -> None:
        """Gives the engine's memory to the learner, where that is wanted and possible."""
        if self.rests and not self._resting:
            self._wait(self.engine.rest())
            self._resting = True

    def wake(self) -> None:
        """Undoes `rest`."""
        if self._resting:
            self._wait(self.engine.wake())
            self._resting = False

    def close(self) -> None:
        """Ends the engine. May be called again."""
        if self._closed:
            return
        self._closed = True
        try:
            self._wait(self.engine.close())
        finally:
            self._wait(self._cancel_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _check_length(self, prompt: int, room: int) -> None:
        if prompt + room > self.context:
            raise ConfigError(
                f"a prompt of {prompt} tokens and `sampler.max_tokens` {room} do not fit the context of "
                f"{self.engine.name}, {self.context} tokens",
                (f"lower `--sampler.max-tokens` to {self.context - prompt}" if prompt < self.context else "shorten it")
                + ", or give a longer context: `--sampler.context`, or `--max-model-len` of a server",
            )


class Bystander:
    """The sampler of a process that samples nothing, since the first one of the run does, from servers.

    Args:
        weights: The learner's weights.
        expected: Its log-probabilities.
        sharded: Whether both need all processes, so that this one takes part in what the first does with them.
        prompt: Anything to ask log-probabilities of.
    """

    def __init__(
        self,
        weights: Weights,
        expected: Callable[[Sequence[int], float], Sequence[float]],
        sharded: bool,
        prompt: Sequence[int],
    ) -> None:
        self.weights, self.expected, self.sharded = weights, expected, sharded
        self.prompt = [*prompt, prompt[-1]]  # a single token has no log-probability to be computed
        self._met = False

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, params: SamplingParams
    ) -> Iterator[tuple[int, Completion]]:
        """Nothing is asked of it."""
        raise AssertionError("the first process samples")

    def sync(self, version: int) -> dict[str, float]:
        """As `EngineSampler.sync`, without an engine: it asks for the weights once, and for the log-probabilities of
        the probe once, or twice in the beginning."""
        if self.sharded:
            for _ in self.weights():
                pass
            for _ in range(1 if self._met else 2):
                self.expected(self.prompt, 1.0)
        self._met = True
        return {}

    def rest(self) -> None:
        """Nothing to free."""

    def close(self) -> None:
        """Nothing to end."""


def distance(found: Sequence[float], expected: Sequence[float]) -> float:
    """The mean distance of log-probabilities in nats, over as many of the last as `found` has."""
    pairs = zip(found, expected[len(expected) - len(found) :], strict=True)
    return sum(abs(a - b) for a, b in pairs) / max(len(found), 1)
