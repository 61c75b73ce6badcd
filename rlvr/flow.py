"""Groups on their way: asked for, sampled, verified completion by completion, and closed when the last verdict is in.

Two kinds of flow have one face. An engine that runs beside the loop takes a prompt at any time, so that a refill enters
what is under way (`EngineFlow`). A sampler that decodes a batch to its end takes refills in the next round
(`RoundsFlow`). In both a completion goes to its verifier the moment it ends, while others are still being written.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from rlvr.exchange import Exchange, together
from rlvr.interrupt import Interrupt, Interrupted
from rlvr.mixture import Problem
from rlvr.rollout import completion_from_json
from rlvr.sampler.prompts import encode_prompt, encode_reply
from rlvr.scoring import Scorer
from rlvr.seeds import derive_seed
from rlvr.transcripts import Draft, sample_and_submit
from rlvr.types import Completion, Sampler, SamplingParams, StreamingSampler, Verdict

PATIENCE = 0.2  # seconds between two looks for Ctrl-C while nothing happens


@dataclass(frozen=True, slots=True)
class Closed:
    """A group whose verdicts are all in; completions and verdicts run in parallel."""

    problem: Problem
    prompt: tuple[int, ...]
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, but for the problem, which is known by its number."""
        columns = {"completions": map(asdict, self.completions), "verdicts": map(asdict, self.verdicts)}
        return {"number": self.problem.number, "prompt": self.prompt} | {k: list(v) for k, v in columns.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], problems: Mapping[int, Problem]) -> Closed:
        return cls(
            problems[values["number"]],
            tuple(values["prompt"]),
            tuple(map(completion_from_json, values["completions"])),
            tuple(Verdict(**verdict) for verdict in values["verdicts"]),
        )


class Flow(Protocol):
    """Groups under way.

    Attributes:
        open: Groups that were asked for and are not closed.
        meter: How long was sampled and verified, and how much of it at the same time.
    """

    meter: Meter

    @property
    def open(self) -> int: ...

    def room(self) -> int:
        """Problems that may still be asked for."""

    def ask(self, problems: Sequence[Problem]) -> None:
        """Asks for a group of each problem; no two have the same number."""

    def closed(self) -> list[Closed]:
        """Waits until a group closes; returns all that have closed since the last call. Empty when none is open."""

    def close(self) -> None:
        """Gives up what is under way."""


def open_flow(
    tokenizer: Any,
    sampler: Sampler,
    scorer: Scorer,
    group_size: int,
    params: SamplingParams,
    wanted: int,
    rounds: int = 1,
    interrupt: Interrupt | None = None,
    exchange: Exchange | None = None,
) -> Flow:
    """The flow that suits the sampler.

    Args:
        tokenizer: Encodes prompts and replies.
        sampler: Writes completions, one by one if it can.
        scorer: Runs the verifiers.
        group_size: Completions of each problem.
        params: How to sample; its seed is that of the whole flow.
        wanted: Problems of one round at most.
        rounds: So many times as many may be asked for in all.
        interrupt: Looked at while waiting.
        exchange: The processes of the run; where there are several, each takes its share of every round.
    """
    shared = exchange is not None and exchange.processes > 1
    own = None if shared else interrupt
    flow: Flow
    if isinstance(sampler, StreamingSampler):
        flow = EngineFlow(tokenizer, sampler, scorer, group_size, params, rounds * wanted, own)
    else:
        flow = RoundsFlow(tokenizer, sampler, scorer, group_size, params, rounds, wanted, own)
    return SharedFlow(flow, exchange, rounds, wanted, interrupt) if shared and exchange else flow


class Meter:
    """Measures how long completions were being written, how long verified, and how much of that at once.

    Both may be noted from any thread.
    """

    def __init__(self) -> None:
        self._changes: list[tuple[float, int, int]] = []  # seconds, how many more are written, how many more verified

    def writes(self, more: int) -> None:
        """So many completions more (or fewer) are being written from now on."""
        self._changes.append((time.monotonic(), more, 0))

    def verifies(self, future: Future[Verdict]) -> None:
        """A verification is under way until its future is done."""
        self._changes.append((time.monotonic(), 0, 1))
        future.add_done_callback(lambda _: self._changes.append((time.monotonic(), 0, -1)))

    def timing(self) -> dict[str, float]:
        """Seconds in which a completion was being written (`time/sample`), verified (`time/verify`), verified and none
        written (`time/verify_wait`); and the share of the verification that sampling hid (`time/hidden`)."""
        written = verified = both = 0.0
        writing = verifying = 0
        last = 0.0
        for now, more_writing, more_verifying in sorted(self._changes):
            span = now - last
            written += span if writing else 0.0
            verified += span if verifying else 0.0
            both += span if writing and verifying else 0.0
            writing, verifying, last = writing + more_writing, verifying + more_verifying, now
        timing = {"time/sample": written, "time/verify": verified, "time/verify_wait": verified - both}
        return timing | ({"time/hidden": both / verified} if verified else {})


class _Rounds:
    """Collects what is asked for until a round takes it.

    Args:
        rounds: How many there may be.
        wanted: Problems of one round at most.
    """

    def __init__(self, rounds: int, wanted: int) -> None:
        self.rounds, self.wanted = rounds, wanted
        self._round = 0
        self._asked: list[Problem] = []

    @property
    def open(self) -> int:
        return len(self._asked)

    def room(self) -> int:
        return self.wanted if self._round < self.rounds else 0

    def ask(self, problems: Sequence[Problem]) -> None:
        self._asked += problems

    def _take(self) -> list[Problem]:
        """What was asked for since the last round; where there is some, a round has begun."""
        asked, self._asked = self._asked, []
        self._round += bool(asked)
        return asked


class RoundsFlow(_Rounds):
    """Decodes what was asked for as one batch, to its end, before what was asked for meanwhile.

    Args:
        tokenizer: Encodes prompts and replies.
        sampler: Writes a batch of groups.
        scorer: Runs the verifiers.
        group_size: Completions of each problem.
        params: How to sample; its seed is that of the whole flow.
        rounds: How many there may be.
        wanted: Problems of one round at most.
        interrupt: Looked at after each completion.
    """

    def __init__(
        self,
        tokenizer: Any,
        sampler: Sampler,
        scorer: Scorer,
        group_size: int,
        params: SamplingParams,
        rounds: int,
        wanted: int,
        interrupt: Interrupt | None = None,
    ) -> None:
        super().__init__(rounds, wanted)
        self.tokenizer, self.sampler, self.scorer = tokenizer, sampler, scorer
        self.group_size, self.params, self.interrupt = group_size, params, interrupt
        self.meter = Meter()

    def closed(self) -> list[Closed]:
        asked = self._take()
        if not asked:
            return []
        prompts = [encode_prompt(self.tokenizer, problem.sample, problem.task) for problem in asked]
        pending: list[list[tuple[Completion, Future[Verdict]]]] = [[] for _ in asked]
        params = replace(self.params, seeds=tuple(derive_seed(self.params.seed, p.number) for p in asked))
        tools = (params, self.tokenizer, self.sampler, self.scorer, self.meter.verifies)
        self.meter.writes(+1)
        for index, completion, verdict in sample_and_submit(asked, prompts, self.group_size, *tools):
            pending[index].append((completion, verdict))
            self._look()
        self.meter.writes(-1)
        groups = []
        for problem, prompt, group in zip(asked, prompts, pending, strict=True):
            if problem.task.turns > 1:  # which of them ended first was a matter of how fast they were answered
                group.sort(key=lambda pair: pair[0].token_ids)
            completions = tuple(completion for completion, _ in group)
            groups.append(Closed(problem, tuple(prompt), completions, tuple(v.result() for _, v in group)))
            self._look()
        return groups

    def close(self) -> None:
        self._asked = []

    def _look(self) -> None:
        if self.interrupt:
            self.interrupt.check()


@dataclass(slots=True)
class _Place:
    """A group under way: what has come in so far, by the number of the completion."""

    problem: Problem
    prompt: tuple[int, ...]
    rows: list[tuple[Completion, Verdict] | None] = field(default_factory=list)

    def closed(self) -> Closed | None:
        rows = [row for row in self.rows if row is not None]
        if len(rows) < len(self.rows):
            return None
        completions, verdicts = zip(*rows, strict=True)
        return Closed(self.problem, self.prompt, completions, verdicts)


class EngineFlow:
    """Every completion on its own path through a running engine: written, answered if the task has turns, verified.

    Seeds depend on the number of the problem, of the completion and of the turn, so that the order in which things end
    changes nothing of what is sampled.

    Args:
        tokenizer: Encodes prompts and replies.
        sampler: Writes completions one by one.
        scorer: Runs the verifiers.
        group_size: Completions of each problem.
        params: How to sample; its seed is that of the whole flow.
        limit: Problems that may be asked for in all.
        interrupt: Looked at after each event, and while nothing happens.
    """

    def __init__(
        self,
        tokenizer: Any,
        sampler: StreamingSampler,
        scorer: Scorer,
        group_size: int,
        params: SamplingParams,
        limit: int,
        interrupt: Interrupt | None = None,
    ) -> None:
        self.tokenizer, self.sampler, self.scorer = tokenizer, sampler, scorer
        self.group_size, self.params, self.limit, self.interrupt = group_size, params, limit, interrupt
        self.meter = Meter()
        self._open = 0
        self._asked = 0
        self._events: queue.SimpleQueue[Callable[[], Closed | None]] = queue.SimpleQueue()
        self._written: set[Future[Completion]] = set()

    @property
    def open(self) -> int:
        return self._open

    def room(self) -> int:
        return self.limit - self._asked

    def ask(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            prompt = tuple(encode_prompt(self.tokenizer, problem.sample, problem.task))
            place = _Place(problem, prompt, [None] * self.group_size)
            for copy in range(self.group_size):
                self._write(place, Draft(copy, Completion("")), 0)
        self._open += len(problems)
        self._asked += len(problems)

    def closed(self) -> list[Closed]:
        found: list[Closed] = []
        while self._open and (not found or not self._events.empty()):
            if self.interrupt:
                self.interrupt.check()
            try:
                event = self._events.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if self.interrupt:  # what has come in may be a consequence of it
                self.interrupt.check()
            if group := event():
                self._open -= 1
                found.append(group)
        return found

    def close(self) -> None:
        for future in list(self._written):
            future.cancel()

    # The path of one completion. The callbacks of futures only queue events; what follows runs in the caller's thread.

    def _write(self, place: _Place, draft: Draft, turn: int) -> None:
        """The policy's next turn."""
        so_far = draft.so_far.token_ids
        seed = derive_seed(self.params.seed, place.problem.number, draft.index, turn)
        params = replace(self.params, seed=seed, max_tokens=self.params.max_tokens - len(so_far))
        future = self.sampler.submit([*place.prompt, *so_far], params)
        self._written.add(future)
        self.meter.writes(+1)

        def ended(future: Future[Completion]) -> None:
            self.meter.writes(-1)
            self._events.put(lambda: self._read(place, draft, turn, future))

        future.add_done_callback(ended)

    def _read(self, place: _Place, draft: Draft, turn: int, future: Future[Completion]) -> Closed | None:
        """What the policy wrote: verified, or answered first."""
        self._written.discard(future)
        draft = draft.followed_by(future.result())
        task = place.problem.task
        if turn + 1 == task.turns or draft.so_far.truncated:
            self._verify(place, draft)
            return None
        reply = self.scorer.submit_reply(task.verifier, draft.so_far, place.problem.sample, task.verifier_options)
        self.meter.verifies(reply)
        reply.add_done_callback(lambda done: self._events.put(lambda: self._hear(place, draft, turn, done)))
        return None

    def _hear(self, place: _Place, draft: Draft, turn: int, future: Future[Verdict]) -> Closed | None:
        """What the environment said: the next turn, or the end."""
        verdict = future.result()
        if not verdict.valid:
            return self._settle(place, draft, verdict)
        if (reply := verdict.parts["reply"]) is None:
            self._verify(place, draft)
            return None
        told = draft.told(reply, encode_reply(self.tokenizer, reply, draft.so_far))
        if len(told.so_far.token_ids) < self.params.max_tokens:
            self._write(place, told, turn + 1)
        else:
            self._verify(place, draft.cut())
        return None

    def _verify(self, place: _Place, draft: Draft) -> None:
        task = place.problem.task
        verdict = self.scorer.submit(task.verifier, draft.so_far, place.problem.sample, task.verifier_options)
        self.meter.verifies(verdict)
        verdict.add_done_callback(lambda done: self._events.put(lambda: self._settle(place, draft, done.result())))

    def _settle(self, place: _Place, draft: Draft, verdict: Verdict) -> Closed | None:
        place.rows[draft.index] = (draft.so_far, verdict)
        return place.closed()


class SharedFlow(_Rounds):
    """A flow that several processes share: each samples and verifies its part of a round, then all get all of it.

    What is asked for must be the same in all processes, and so is what comes back, in the order of its numbers: what a
    process decides from it, every other one decides as well. What goes wrong in one of them stops all.

    Args:
        flow: Of this process.
        exchange: Hands texts from every process to every process.
        rounds: How many there may be.
        wanted: Problems of one round at most.
        interrupt: Of this process; Ctrl-C in one is Ctrl-C in all.
    """

    def __init__(
        self, flow: Flow, exchange: Exchange, rounds: int, wanted: int, interrupt: Interrupt | None = None
    ) -> None:
        super().__init__(rounds, wanted)
        self.flow, self.exchange, self.interrupt = flow, exchange, interrupt
        self.meter = flow.meter

    def closed(self) -> list[Closed]:
        asked = self._take()
        if not asked:
            return []
        parts = self.exchange.processes if self.exchange.spread else 1
        mine = asked[self.exchange.process :: parts] if self.exchange.process < parts else []
        groups = together(self.exchange, lambda: self._to_the_end(mine))
        message = {"groups": [group.to_json() for group in groups], "interrupted": self._interrupted()}
        said = [json.loads(text) for text in self.exchange.share(json.dumps(message))]
        if any(other["interrupted"] for other in said):
            raise Interrupted
        by_number = {problem.number: problem for problem in asked}
        found = [Closed.from_json(values, by_number) for other in said for values in other["groups"]]
        return sorted(found, key=lambda group: group.problem.number)

    def _interrupted(self) -> bool:
        try:
            if self.interrupt:
                self.interrupt.check()
        except Interrupted:
            return True
        return False

    def _to_the_end(self, problems: Sequence[Problem]) -> list[Closed]:
        self.flow.ask(problems)
        groups: list[Closed] = []
        while self.flow.open:
            groups += self.flow.closed()
        return groups

    def close(self) -> None:
        self._asked = []
        self.flow.close()
