"""Sampling from real `vllm serve` processes: what arrives, what is sent, and what happens when they are killed."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.errors import ConfigError, RlvrError
from rlvr.learner.policy import load_policy
from rlvr.sampler.engine import Request, Written
from rlvr.sampler.vllm_server import ServerEngine
from rlvr.sampler.weights import facts

spec = importlib.util.spec_from_file_location("servers", Path(__file__).with_name("servers.py"))
assert spec is not None
assert spec.loader is not None
servers_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(servers_module)
Served = servers_module.Served

PROMPTS = ["1+2=", "40-7=", "say nothing", "9"]
CLOSE = 1e-4


@pytest.fixture(scope="module")
def policy() -> tuple[Any, Any]:
    return load_policy("starter", torch.device("cpu"))


@pytest.fixture(scope="module")
def prompts(policy: tuple[Any, Any]) -> list[tuple[int, ...]]:
    return [tuple(policy[1].encode(text, add_special_tokens=False)) for text in PROMPTS]


@pytest.fixture(scope="module")
def pair(starter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """Two servers of the starter model."""
    folder = tmp_path_factory.mktemp("served")
    made = [Served(starter, folder / f"{name}.log") for name in "ab"]
    try:
        for served in made:
            served.start()
        for served in made:
            served.wait()
        yield made
    finally:
        for served in made:
            served.kill()


@asynccontextmanager
async def engine(policy: tuple[Any, Any], *urls: str, **settings: Any) -> AsyncIterator[ServerEngine]:
    made = ServerEngine(urls, **{"facts": facts(policy[0].config), "patience": 300.0} | settings)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def changed(model: Any, seed: int) -> Any:
    """A copy of a model with other weights."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn_like(parameter))
    return other


def weights(model: Any) -> Callable[[], Iterable[tuple[str, torch.Tensor]]]:
    return lambda: model.state_dict().items()


@torch.no_grad()
def expected(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """log π of `ids[1:]` by transformers."""
    logits = model(torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def apart(model: Any, prompt: Sequence[int], written: Written) -> float:
    """How far the log-probabilities of a completion are off those by transformers."""
    own = expected(model, [*prompt, *written.token_ids])[len(prompt) - 1 :]
    return float((own - torch.tensor(written.logprobs)).abs().max())


async def check(made: ServerEngine, model: Any, ids: Sequence[int], replicas: int) -> None:
    """Holds the log-probabilities of all servers against those by transformers."""
    found = await made.logprobs(ids)
    assert len(found) == replicas
    for values in found.values():
        assert float((torch.tensor(values) - expected(model, ids)).abs().max()) < CLOSE


def ask(prompt: tuple[int, ...], seed: int = 0, temperature: float = 1.0, length: int = 24, stop: int = -1) -> Request:
    return Request(prompt, length, temperature, 1.0, seed, () if stop < 0 else (stop,))


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.05)


def test_what_is_sampled_is_what_transformers_would(
    policy: tuple[Any, Any], prompts: list[tuple[int, ...]], pair: list[Any]
) -> None:
    model, tokenizer = policy
    end = tokenizer.eos_token_id

    async def work() -> None:
        async with engine(policy, *(served.url for served in pair)) as made:
            assert made.context == 128
            greedy = await asyncio.gather(*(made.generate(ask(p, temperature=0, stop=end)) for p in prompts))
            for prompt, written in zip(prompts, greedy, strict=True):
                own = model.generate(
                    torch.tensor([prompt]), do_sample=False, max_new_tokens=24, pad_token_id=end, eos_token_id=end
                )[0, len(prompt) :]
                assert list(written.token_ids) == own.tolist()
                assert written.finish_reason == ("stop" if written.token_ids[-1] == end else "length")
                assert apart(model, prompt, written) < CLOSE
            requests = [ask(prompt, seed, stop=end) for prompt in prompts for seed in range(8)]
            sampled = await asyncio.gather(*map(made.generate, requests))
            for request, written in zip(requests, sampled, strict=True):
                assert (written.finish_reason == "stop") == (written.token_ids[-1] == end)
                assert end not in written.token_ids[:-1]
                assert apart(model, request.prompt, written) < CLOSE
            assert len({written.token_ids for written in sampled}) > len(prompts)
            assert await asyncio.gather(*map(made.generate, requests)) == sampled  # seeds decide
            await check(made, model, [*prompts[0], *sampled[0].token_ids], 2)

    run(work)


@pytest.mark.parametrize("sync", ["files", "http"])
def test_weights_arrive_at_every_server_and_completions_go_on(
    policy: tuple[Any, Any], prompts: list[tuple[int, ...]], pair: list[Any], tmp_path: Path, sync: str
) -> None:
    model, _ = policy

    async def work() -> None:
        async with engine(policy, *(served.url for served in pair), sync=sync, folder=tmp_path) as made:
            for version, own in enumerate([changed(model, 1), changed(model, 2), model], 1):
                tasks = [asyncio.create_task(made.generate(ask(prompts[2], s, length=100))) for s in range(16)]
                await asyncio.sleep(0.2)
                await made.update(weights(own), version)
                await check(made, own, [*prompts[2], *prompts[0]], 2)
                assert {len(written.token_ids) for written in await asyncio.gather(*tasks)} == {100}
                fresh = await asyncio.gather(*(made.generate(ask(p, 7)) for p in prompts))
                assert max(apart(own, p, w) for p, w in zip(prompts, fresh, strict=True)) < CLOSE
            assert [server.files for server in made.servers] == [sync == "files"] * 2

    run(work)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_shape_are_refused_and_the_server_keeps_its_own(
    policy: tuple[Any, Any], prompts: list[tuple[int, ...]], pair: list[Any]
) -> None:
    model, _ = policy
    wrong = {name: tensor[:-1] if "q_proj" in name else tensor for name, tensor in model.state_dict().items()}

    async def work() -> None:
        async with engine(policy, pair[0].url) as made:
            with pytest.raises(RlvrError, match=r"does not take the weights: .*q_proj"):
                await made.update(wrong.items, 1)
        async with engine(policy, pair[0].url) as made:
            await made.update(weights(model), 1)
            await check(made, model, prompts[2], 1)

    run(work)


def test_a_cancelled_completion_ends_in_the_engine_too(
    policy: tuple[Any, Any], prompts: list[tuple[int, ...]], pair: list[Any]
) -> None:
    def made_tokens() -> float:
        return float(pair[0].metric("vllm:generation_tokens_total"))

    async def work() -> None:
        async with engine(policy, pair[0].url) as made:
            before = made_tokens()
            tasks = [asyncio.create_task(made.generate(ask(prompts[2], s, length=110))) for s in range(32)]
            await until(lambda: made_tokens() > before)
            for task in tasks:
                task.cancel()
            assert {type(e) for e in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}
            await until(lambda: pair[0].metric("vllm:num_requests_running") == 0)
            await asyncio.sleep(0.5)
            after = made_tokens()
            await asyncio.sleep(0.5)
            assert before < after == made_tokens() < before + 32 * 110

    run(work)


def test_a_model_that_is_not_the_learners_is_refused(policy: tuple[Any, Any], pair: list[Any]) -> None:
    async def work() -> None:
        other = facts(policy[0].config) | {"vocab_size": 50257}
        with pytest.raises(
            ConfigError, match=r"the model served is not the learner's: it has vocab_size \d+, not 50257$"
        ):
            async with engine(policy, pair[0].url, facts=other):
                pass

    run(work)


def test_what_is_no_vllm_is_refused(policy: tuple[Any, Any]) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

    async def work(url: str) -> None:
        with pytest.raises(ConfigError, match="is not a vLLM server"):
            async with engine(policy, url):
                pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        asyncio.run(work(f"http://127.0.0.1:{plain.server_port}"))
        plain.shutdown()


def test_servers_are_killed_and_nothing_is_lost_or_comes_twice(
    policy: tuple[Any, Any], prompts: list[tuple[int, ...]], pair: list[Any]
) -> None:
    """First one of two, then the other, which is started again and has to be given the weights."""
    own = changed(policy[0], 3)
    requests = [ask(prompts[2], seed, length=100) for seed in range(160)]
    told: list[str] = []

    async def killed(made: ServerEngine, served: Any) -> Awaitable[list[Written]]:
        """All requests under way, and a server killed in the middle of them."""
        tasks = [asyncio.create_task(made.generate(request)) for request in requests]
        while not await asyncio.to_thread(served.metric, "vllm:num_requests_running"):
            await asyncio.sleep(0.05)
        assert any(server.url == served.url and server.busy for server in made.servers)
        served.kill()
        return asyncio.gather(*tasks)

    async def work() -> None:
        async with engine(policy, *(served.url for served in pair), say=told.append) as made:
            await made.update(weights(own), 1)
            unbroken = await asyncio.gather(*map(made.generate, requests))

            left = await (await killed(made, pair[1]))
            assert [written.token_ids for written in left] == [written.token_ids for written in unbroken]
            assert [server.ready for server in made.servers] == [True, False]
            await check(made, own, [*prompts[2], *left[0].token_ids], 1)

            under_way = await killed(made, pair[0])
            await until(lambda: not made._ready())
            pair[0].start()
            resumed = await under_way
            assert [written.token_ids for written in resumed] == [written.token_ids for written in unbroken]
            assert max(apart(own, prompts[2], written) for written in resumed) < CLOSE
            await check(made, own, [*prompts[2], *left[0].token_ids], 1)

    run(work)
    assert any("is lost" in text and "1 left" in text for text in told)
    assert any("none is left" in text for text in told)
    assert told[-1] == f"the vLLM server at {pair[0].url} is back, with the weights of now"
