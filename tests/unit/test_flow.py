"""Groups on their way through a running engine: each completion on its own path, refills at once, nothing lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlvr import Completion, Sample, SamplingParams, Scorer, StreamingSampler, Task
from rlvr.ahead import Ahead
from rlvr.errors import RunStopped
from rlvr.flow import Closed, EngineFlow, Meter, RoundsFlow, open_flow
from rlvr.interrupt import Interrupt, Interrupted
from rlvr.loop import refill
from rlvr.mixture import Problem
from rlvr.rollout import Group, State, StepBatch
from rlvr.sampler.transformers import TransformersSampler

PLUGIN = Path(__file__).parents[1] / "plugins" / "talkative.py"
SAMPLES = [Sample(str(i), f"{i}+") for i in range(6)]


def problems(task: Task, samples: Sequence[Sample] = SAMPLES, first: int = 0) -> list[Problem]:
    """Samples in a stream, from the place `first` on."""
    return [Problem(number, task, sample) for number, sample in enumerate(samples, start=first)]


class OneByOne(TransformersSampler):
    """Writes completions one by one in threads of its own, each from its own seed, the later the sooner it ends."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pool = ThreadPoolExecutor(4)
        self.lock = threading.Lock()
        self.seeds: list[int] = []
        self.cancelled = 0

    def submit(self, prompt: Sequence[int], params: SamplingParams) -> Future[Completion]:
        def write() -> Completion:
            time.sleep(0.001 * (params.seed % 7))
            with self.lock:
                ((_, completion),) = self.sample([prompt], 1, params)
            return completion

        self.seeds.append(params.seed)
        future = self.pool.submit(write)
        future.add_done_callback(self._count)
        return future

    def _count(self, future: Future[Completion]) -> None:
        self.cancelled += future.cancelled()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


@pytest.fixture
def sampler(model: Any, tokenizer: Any) -> Iterator[OneByOne]:
    sampler = OneByOne(model, tokenizer, 64)
    yield sampler
    sampler.close()


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(workers=2, plugins=[PLUGIN]) as scorer:
        yield scorer


def a_task(verifier: str = "parrot", turns: int = 1) -> Task:
    return Task("talk", verifier, lambda split: SAMPLES, turns=turns)


@pytest.fixture
def flow(tokenizer: Any, sampler: OneByOne, scorer: Scorer) -> Callable[..., Any]:
    def make(group_size: int = 3, tokens: int = 8, wanted: int = 6, **others: Any) -> Any:
        params = SamplingParams(tokens, seed=5)
        return open_flow(tokenizer, sampler, scorer, group_size, params, wanted, **others)

    return make


def drain(flow: Any) -> list[Closed]:
    groups = []
    while flow.open:
        groups += flow.closed()
    return sorted(groups, key=lambda group: group.problem.number)


def test_the_flow_is_chosen_by_what_the_sampler_can(flow: Any, model: Any, tokenizer: Any, scorer: Scorer) -> None:
    assert isinstance(flow(), EngineFlow)
    batch = TransformersSampler(model, tokenizer)
    assert not isinstance(batch, StreamingSampler)
    made = open_flow(tokenizer, batch, scorer, 2, SamplingParams(4), 1)
    assert isinstance(made, RoundsFlow)


@pytest.mark.parametrize("turns", [1, 3])
def test_every_completion_comes_back_once_in_its_group(flow: Any, sampler: OneByOne, turns: int) -> None:
    under_way = flow(tokens=24)
    asked = problems(a_task(turns=turns), SAMPLES[:4], 10)
    under_way.ask(asked)
    assert under_way.open == 4
    groups = drain(under_way)
    assert [group.problem for group in groups] == asked
    assert all(len(group.completions) == len(group.verdicts) == 3 for group in groups)
    assert len(set(sampler.seeds)) == len(sampler.seeds)
    assert under_way.closed() == []


@pytest.mark.parametrize("turns", [1, 3])
def test_what_is_sampled_does_not_depend_on_what_ends_first(flow: Any, sampler: OneByOne, turns: int) -> None:
    def texts(samples: Sequence[Sample], first: int) -> list[list[Any]]:
        under_way = flow(tokens=24)
        for problem in problems(a_task(turns=turns), samples, first):
            under_way.ask([problem])
        return [[(c.text, c.turns, c.foreign) for c in group.completions] for group in drain(under_way)]

    together = texts(SAMPLES, 0)
    assert texts(SAMPLES[2:], 2) == together[2:]
    assert texts(SAMPLES, 100) != together


def test_several_turns_are_those_of_a_sampler_in_rounds(flow: Any, model: Any, tokenizer: Any, scorer: Scorer) -> None:
    """Greedy decoding leaves nothing to seeds, so both kinds of flow must write the same."""
    task, params = a_task(turns=3), SamplingParams(24, temperature=0)
    batch = TransformersSampler(model, tokenizer)
    rounds = open_flow(tokenizer, batch, scorer, 1, params, 6)
    engine = flow(group_size=1, tokens=24)
    engine.params = replace(engine.params, temperature=0)
    for under_way in (rounds, engine):
        under_way.ask(problems(task))
    one, other = drain(rounds), drain(engine)
    assert any(c.turns for group in one for c in group.completions)
    assert [[(c.token_ids, c.turns, c.foreign) for c in g.completions] for g in one] == [
        [(c.token_ids, c.turns, c.foreign) for c in g.completions] for g in other
    ]
    for a, b in zip(one, other, strict=True):
        assert a.completions[0].logprobs == pytest.approx(b.completions[0].logprobs, abs=1e-4)


def test_tasks_of_a_mixture_keep_their_turns_and_verifiers(
    flow: Any, model: Any, tokenizer: Any, scorer: Scorer
) -> None:
    """In both kinds of flow each completion is what it would be in a flow of its own task."""
    talks, silent = replace(a_task(turns=3), name="talks"), replace(a_task("math"), name="silent", system="Be brief.")
    mixed = [Problem(n, (silent, talks)[n % 2], replace(sample, answer="4")) for n, sample in enumerate(SAMPLES)]

    def written(made: Any, asked: Sequence[Problem]) -> dict[int, Any]:
        made.params = replace(made.params, temperature=0)
        made.ask(asked)
        closed = drain(made)
        return {
            group.problem.number: (
                group.prompt,
                [(c.token_ids, c.turns) for c in group.completions],
                [(v.status, v.detail) for v in group.verdicts],
            )
            for group in closed
        }

    def rounds() -> Any:
        batch = TransformersSampler(model, tokenizer)
        return open_flow(tokenizer, batch, scorer, 1, SamplingParams(24), 6)

    found = written(rounds(), mixed)
    assert found == written(flow(group_size=1, tokens=24), mixed)
    assert found == written(rounds(), mixed[::2]) | written(rounds(), mixed[1::2])
    assert any(turns for n in (1, 3, 5) for _, turns in found[n][1])
    assert not any(turns for n in (0, 2, 4) for _, turns in found[n][1])
    assert min(len(found[n][0]) for n in (0, 2, 4)) > max(len(found[n][0]) for n in (1, 3, 5))  # a system message


def test_a_refill_enters_while_others_are_under_way(flow: Any) -> None:
    under_way = flow(wanted=3, rounds=2)
    under_way.ask(problems(a_task(), SAMPLES[:3]))
    assert under_way.room() == 3
    first = under_way.closed()
    under_way.ask(problems(a_task(), SAMPLES[3:4], 3))
    assert under_way.open == 4 - len(first)
    assert under_way.room() == 2
    assert {group.problem.number for group in [*first, *drain(under_way)]} == {0, 1, 2, 3}


def test_closing_gives_up_what_has_not_begun(flow: Any, sampler: OneByOne) -> None:
    under_way = flow(group_size=16)
    under_way.ask(problems(a_task()))
    under_way.close()
    assert sampler.cancelled > 60  # of 96, four of which can have begun


def test_an_engine_that_dies_ends_the_flow_with_its_error(flow: Any, sampler: OneByOne) -> None:
    under_way = flow()

    def dies(*_: Any) -> Any:
        raise RunStopped("the engine died", "see its log")

    sampler.sample = dies  # type: ignore[method-assign]
    under_way.ask(problems(a_task(), SAMPLES[:1]))
    with pytest.raises(RunStopped, match="the engine died"):
        drain(under_way)


def test_ctrl_c_is_noticed_while_nothing_happens(flow: Any, sampler: OneByOne) -> None:
    interrupt = Interrupt()
    under_way = flow(interrupt=interrupt)
    sampler.lock.acquire()
    try:
        under_way.ask(problems(a_task(), SAMPLES[:1]))
        threading.Timer(0.1, lambda: setattr(interrupt, "noted", True)).start()
        with pytest.raises(Interrupted):
            drain(under_way)
    finally:
        sampler.lock.release()


def test_the_meter_adds_up_what_overlaps() -> None:
    meter = Meter()
    # Seconds, completions more being written, verifications more. Written 0 to 4, 6 to 7; verified 2 to 5, 6.5 to 9.
    meter._changes = [(0.0, 2, 0), (2.0, -1, 0), (2.0, 0, 1), (4.0, -1, 0), (5.0, 0, -1), (6.0, 1, 0), (7.0, -1, 0)]
    meter._changes += [(6.5, 0, 1), (6.8, 0, 1), (8.0, 0, -1), (9.0, 0, -1)]
    timing = meter.timing()
    assert timing["time/sample"] == pytest.approx(5.0)
    assert timing["time/verify"] == pytest.approx(5.5)
    assert timing["time/verify_wait"] == pytest.approx(3.0)
    assert timing["time/hidden"] == pytest.approx(2.5 / 5.5)
    assert Meter().timing() == {"time/sample": 0.0, "time/verify": 0.0, "time/verify_wait": 0.0}


def test_a_long_verification_is_hidden_behind_sampling(flow: Any, sampler: OneByOne) -> None:
    under_way = flow(group_size=8)
    under_way.ask(problems(a_task()))
    drain(under_way)
    timing = under_way.meter.timing()
    assert 0 < timing["time/hidden"] <= 1
    assert timing["time/verify_wait"] <= timing["time/verify"]


# How many prompts to ask for


def groups(*informative: bool) -> list[Any]:
    return [Group(SAMPLES[0], (1,), (), (), (0.0, float(varies)), (), ()) for varies in informative]


@pytest.mark.parametrize(
    ("missing", "sampled", "under_way", "room", "expected"),
    [
        (8, [], 0, 8, 8),  # the first round
        (4, [True, False] * 4, 0, 8, 8),  # a share of a half, at the end of a round
        (6, [True, False, False, False] * 2, 0, 8, 8),  # never more than a step's worth
        (1, [False] * 8, 0, 8, 4),  # a share below a quarter is taken for one
        (8, [], 8, 24, 0),  # all is still to come
        (8, [False], 7, 24, 2),  # one has taught nothing: one for it, one for others like it
        (7, [True], 7, 24, 0),
        (0, [True] * 8, 0, 24, 0),
        (-2, [True] * 8, 3, 24, 0),
        (3, [False] * 8, 0, 2, 2),  # no more than there is room for
    ],
)
def test_a_refill_makes_up_for_what_teaches_nothing(
    missing: int, sampled: list[bool], under_way: int, room: int, expected: int
) -> None:
    assert refill(missing, groups(*sampled), under_way, 8, room) == expected


# Running ahead of learning


def batch(state: State) -> StepBatch:
    return StepBatch((), (), State(state.step + 1, state.position + 1), 1, {})


class Collector:
    """Says when each step was begun and ended."""

    def __init__(self, slow: int = 99) -> None:
        self.events: list[tuple[str, int]] = []
        self.slow = slow  # the step that takes half a minute

    def __call__(self, state: State, interrupt: Interrupt) -> StepBatch:
        self.events.append(("begin", state.step))
        end = time.monotonic() + 30 * (state.step == self.slow)
        while time.monotonic() < end:
            interrupt.check()
            time.sleep(0.005)
        self.events.append(("end", state.step))
        return batch(state)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_steps_are_collected_in_order_and_no_further_ahead_than_allowed(staleness: int) -> None:
    collect, state, learned = Collector(), State(), 0
    with Ahead(collect, staleness, 6, Interrupt()) as ahead:
        while state.step < 6:
            taken = ahead.take(state)
            assert taken.next_state.step == state.step + 1
            time.sleep(0.02)
            begun = max(step for what, step in collect.events if what == "begin")
            assert begun == min(learned + staleness, 5)
            state, learned = taken.next_state, learned + 1
    assert Counter(collect.events) == {(what, step): 1 for what in ("begin", "end") for step in range(6)}
    assert state == State(6, 6)


def test_a_resumed_run_begins_with_its_own_step() -> None:
    collect = Collector()
    with Ahead(collect, 1, 9, Interrupt()) as ahead:
        assert ahead.take(State(7, 40)).next_state == State(8, 41)
    assert collect.events[0] == ("begin", 7)


def test_what_collecting_raises_comes_out_where_the_step_is_taken() -> None:
    def broken(state: State, interrupt: Interrupt) -> StepBatch:
        if state.step == 1:
            raise RunStopped("no verdicts", "")
        return batch(state)

    with Ahead(broken, 2, 9, Interrupt()) as ahead:
        state = ahead.take(State()).next_state
        with pytest.raises(RunStopped, match="no verdicts"):
            ahead.take(state)


def test_leaving_early_gives_up_what_is_being_collected() -> None:
    began = time.monotonic()
    with Ahead(Collector(slow=1), 1, 9, Interrupt()) as ahead:
        ahead.take(State())
    assert time.monotonic() - began < 10
