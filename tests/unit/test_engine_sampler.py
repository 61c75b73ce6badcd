"""What the loop sees of an engine: futures, a sync that proves itself, and errors that say what to do.

The engine here holds a copy of the model and samples with transformers, so that weights arrive or do not for real.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch

from rlvr import SamplingParams
from rlvr.errors import ConfigError, RunStopped
from rlvr.learner.learner import logprobs_of
from rlvr.learner.policy import named_weights
from rlvr.sampler.engine import PROBE_TOKENS, EngineSampler, Request, Weights, Written, distance
from rlvr.sampler.transformers import TransformersSampler, end_tokens

PROMPT = "12+30="


class TwinEngine:
    """Samples from a copy of the learner's model."""

    name = "the twin"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = copy.deepcopy(model)
        self.sampler = TransformersSampler(self.model, tokenizer)
        self.context = 100
        self.deaf: Callable[[str], bool] = lambda name: False  # tensors that do not arrive
        self.hot = False  # whether it reports log-probabilities at temperature 1, whatever it samples at
        self.log: list[str] = []
        self.under_way = 0

    async def start(self) -> None:
        self.log.append("start")

    async def generate(self, request: Request) -> Written:
        self.under_way += 1
        try:
            await asyncio.sleep(0.01 * (request.seed % 5))
            params = SamplingParams(request.max_tokens, request.temperature, request.top_p, request.seed)
            self.sampler.ends = set(request.stop)
            ((_, written),) = self.sampler.sample([request.prompt], 1, params)
        finally:
            self.under_way -= 1
        logprobs = written.logprobs
        if self.hot:
            logprobs = tuple(logprobs_of(self.model, [*request.prompt, *written.token_ids])[-len(logprobs) :])
        return Written(written.token_ids, logprobs, written.finish_reason)

    async def logprobs(self, ids: Sequence[int]) -> Mapping[str, Sequence[float]]:
        return {"the twin": logprobs_of(self.model, ids)}

    async def update(self, weights: Weights, version: int) -> None:
        self.log.append(f"update {version}")
        own = self.model.state_dict()
        for name, tensor in weights():
            if not self.deaf(name):
                own[name].copy_(tensor)

    async def rest(self) -> None:
        self.log.append("rest")

    async def wake(self) -> None:
        self.log.append("wake")

    async def close(self) -> None:
        self.log.append("close")


@pytest.fixture
def learner(model: Any) -> Any:
    """A model of our own, as the tests train it."""
    return copy.deepcopy(model)


@pytest.fixture
def engine(model: Any, tokenizer: Any) -> TwinEngine:
    return TwinEngine(model, tokenizer)


@pytest.fixture
def connect(engine: TwinEngine, learner: Any, tokenizer: Any) -> Iterator[Callable[..., EngineSampler]]:
    made: list[EngineSampler] = []

    def make(temperature: float = 1.0, **others: Any) -> EngineSampler:
        sampler = EngineSampler(
            engine,
            tokenizer,
            end_tokens(learner, tokenizer),
            lambda: named_weights(learner),
            lambda ids, at: logprobs_of(learner, ids, at),
            tokenizer.encode(PROMPT),
            SamplingParams(24, temperature),
            1e-3,
            **others,
        )
        made.append(sampler)
        return sampler

    yield make
    for sampler in made:
        sampler.close()


def train_a_little(learner: Any) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.02 * parameter.std().nan_to_num() * torch.randn_like(parameter)


def test_the_first_sync_starts_the_engine_and_makes_the_probe(
    connect: Callable[..., EngineSampler], engine: TwinEngine
) -> None:
    sampler = connect()
    assert engine.log == []
    metrics = sampler.sync(0)
    assert engine.log == ["start", "update 0"]
    assert len(sampler.probe) == len(sampler.prompt) + PROBE_TOKENS
    assert metrics["probe"] < 1e-4
    assert metrics["time/sync"] > 0


def test_new_weights_arrive_and_completions_say_which_they_are_of(
    connect: Callable[..., EngineSampler], learner: Any, tokenizer: Any
) -> None:
    sampler = connect()
    sampler.sync(0)
    train_a_little(learner)
    assert sampler.sync(7)["probe"] < 1e-4
    completion = sampler.submit(tokenizer.encode(PROMPT), SamplingParams(8, seed=3)).result(60)
    assert completion.version == 7
    assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
    known = logprobs_of(learner, [*tokenizer.encode(PROMPT), *completion.token_ids])[-len(completion.token_ids) :]
    assert completion.logprobs == pytest.approx(known, abs=1e-4)


@pytest.mark.parametrize("lost", ["", "mlp", "embed"])
def test_weights_that_do_not_arrive_stop_the_run(
    connect: Callable[..., EngineSampler], engine: TwinEngine, learner: Any, lost: str
) -> None:
    sampler = connect()
    sampler.sync(0)
    train_a_little(learner)
    engine.deaf = lambda name: lost in name
    with pytest.raises(
        RunStopped, match=r"after the sync of step 1, the log-probabilities of the twin are .* off"
    ) as e:
        sampler.sync(1)
    assert "its weights are not the learner's" in e.value.message
    assert e.value.hint


def test_weights_that_change_behind_the_loop_are_noticed(
    connect: Callable[..., EngineSampler], engine: TwinEngine
) -> None:
    sampler = connect()
    sampler.sync(0)
    train_a_little(engine.model)
    engine.deaf = lambda name: True
    with pytest.raises(RunStopped, match="its weights are not the learner's"):
        sampler.sync(1)


def test_a_log_probability_that_is_no_number_is_no_proof(
    connect: Callable[..., EngineSampler], engine: TwinEngine
) -> None:
    sampler = connect()
    sampler.sync(0)
    with torch.no_grad():
        next(engine.model.parameters()).fill_(float("nan"))
    engine.deaf = lambda name: True
    with pytest.raises(RunStopped, match="nan"):
        sampler.sync(1)


def test_log_probabilities_of_another_temperature_are_told_from_wrong_weights(
    connect: Callable[..., EngineSampler], engine: TwinEngine
) -> None:
    connect(temperature=0.5).sync(0)
    engine.hot = True
    with pytest.raises(RunStopped, match=r"for what it sampled at temperature 0\.5 are") as error:
        connect(temperature=0.5).sync(0)
    assert "--logprobs-mode processed_logprobs" in error.value.hint


def test_groups_come_one_by_one_and_each_index_as_often_as_asked(
    connect: Callable[..., EngineSampler], tokenizer: Any
) -> None:
    sampler = connect()
    sampler.sync(0)
    prompts = [tokenizer.encode(text) for text in ("1+1=", "2+2=", "3+3=")]
    found = list(sampler.sample(prompts, 4, SamplingParams(8, seed=5, rooms=(8, 4, 2))))
    assert sorted(index for index, _ in found) == [0] * 4 + [1] * 4 + [2] * 4
    assert all(len(completion.token_ids) <= (8, 4, 2)[index] for index, completion in found)
    again = list(sampler.sample(prompts, 4, SamplingParams(8, seed=5, rooms=(8, 4, 2))))
    assert sorted((i, c.token_ids) for i, c in again) == sorted((i, c.token_ids) for i, c in found)


def test_leaving_early_cancels_what_is_under_way(
    connect: Callable[..., EngineSampler], engine: TwinEngine, tokenizer: Any
) -> None:
    sampler = connect()
    sampler.sync(0)
    written = sampler.sample([tokenizer.encode(PROMPT)] * 8, 8, SamplingParams(8))
    next(written)
    written.close()
    sampler._wait(asyncio.sleep(0.2))
    assert engine.under_way == 0


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_sampled(
    connect: Callable[..., EngineSampler], engine: TwinEngine
) -> None:
    with pytest.raises(ConfigError, match=r"a prompt of 90 tokens and `sampler.max_tokens` 24 do not fit") as error:
        connect(needed=114).sync(0)
    assert "lower `--sampler.max-tokens` to 10" in error.value.hint
    assert engine.log == ["start"]
    sampler = connect()
    with pytest.raises(ConfigError, match="do not fit the context of the twin, 100 tokens") as error:
        sampler.submit([5] * 120, SamplingParams(8))
    assert "shorten it" in error.value.hint


def test_memory_goes_to_the_learner_and_comes_back_with_the_next_sync(
    connect: Callable[..., EngineSampler], engine: TwinEngine
) -> None:
    sampler = connect(rests=True)
    sampler.sync(0)
    sampler.rest()
    sampler.rest()
    sampler.sync(1)
    assert engine.log == ["start", "update 0", "rest", "wake", "update 1"]
    never = connect()
    never.sync(0)
    never.rest()
    assert engine.log.count("rest") == 1


def test_closing_twice_ends_the_engine_once(connect: Callable[..., EngineSampler], engine: TwinEngine) -> None:
    sampler = connect()
    sampler.sync(0)
    sampler.close()
    sampler.close()
    assert engine.log.count("close") == 1


def test_the_distance_is_over_what_was_found() -> None:
    assert distance([-1.0, -2.0], [-9.0, -1.5, -2.0]) == pytest.approx(0.25)
    assert distance([], [-9.0]) == 0.0
