"""Weights that are pushed are the ones that generate, in compiled code too, and whatever is under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from copy import deepcopy
from typing import Any, TypeVar

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr.errors import RunStopped
from rlvr.sampler.engine import Request, Written
from rlvr.sampler.vllm_engine import ColocatedEngine
from rlvr.sampler.weights import facts, updates

T = TypeVar("T")

PROBE = [5, 20, 31, 44, 17, 60, 71, 100, 120, 33, 21, 90, 200, 8, 7, 6, 5, 4, 9, 10, 11]


class Running:
    """An engine that compiles its model, in an event loop of its own thread."""

    def __init__(self, model: str, log: Any) -> None:
        self.engine = ColocatedEngine(
            model,
            device="cpu",
            dtype="float32",
            context=200,
            at_once=16,
            log=log,
            options={"enforce_eager": False},
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def soon(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.soon(work).result(300)

    def close(self) -> None:
        self.wait(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def push(self, weights: Any) -> None:
        self.wait(self.engine.update(lambda: weights, 0))

    async def call(self, method: str, *args: Any) -> Any:
        """Calls a method of vLLM's worker."""
        return await self.engine._engine.collective_rpc(method, args=args)


@pytest.fixture(scope="module")
def compiled(starter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(starter, tmp_path_factory.mktemp("compiled") / "vllm.log")
    try:
        running.wait(running.engine.start())
        yield running
    finally:
        running.close()


@pytest.fixture
def running(compiled: Running, model: Any) -> Running:
    """The engine, with the weights of the starter."""
    compiled.push(model.named_parameters())
    return compiled


@pytest.fixture(scope="module")
def model(starter: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32).eval()


@torch.no_grad()
def shaken(model: Any, seed: int) -> Any:
    """A copy of a model with other weights."""
    torch.manual_seed(seed)
    other = deepcopy(model)
    for weight in other.parameters():
        weight += 0.05 * torch.randn_like(weight)
    return other


@torch.no_grad()
def forward(model: Any, ids: Sequence[int]) -> list[float]:
    logprobs = model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)
    return [logprobs[place, token].item() for place, token in enumerate(ids[1:])]


def gap(running: Running, model: Any) -> float:
    """How far the engine's log-probabilities are from a model's, at most."""
    found = running.wait(running.engine.logprobs(PROBE))["vLLM"]
    return max(abs(a - b) for a, b in zip(found, forward(model, PROBE), strict=True))


def test_log_probabilities_follow_the_weights(running: Running, model: Any) -> None:
    assert gap(running, model) < 1e-3
    for seed in range(3):
        other = shaken(model, seed)
        assert gap(running, other) > 0.1
        running.push(other.named_parameters())
        assert gap(running, other) < 1e-3


def test_chunks_of_text_carry_them_too(running: Running, model: Any) -> None:
    other = shaken(model, 7)
    ways, running.engine.ways = running.engine.ways, ["http"]
    try:
        running.push(other.named_parameters())
    finally:
        running.engine.ways = ways
    assert gap(running, other) < 1e-3


def test_what_is_being_generated_goes_on_with_the_new_weights(running: Running, model: Any) -> None:
    """Tokens have the log-probabilities of the old weights up to some place, of the new from there on."""
    other = shaken(model, 11)

    async def generate() -> list[Written]:
        tasks = [
            asyncio.ensure_future(running.engine.generate(Request((5, 20 + seed), 190, 1.0, 1.0, seed, ())))
            for seed in range(32)  # twice as many as are generated at the same time
        ]
        await asyncio.sleep(0.15)
        await running.engine.update(other.named_parameters, 1)
        return await asyncio.gather(*tasks)

    written = running.wait(generate())
    assert len(written) == 32
    kinds = set()
    for seed, one in enumerate(written):
        assert len(one.token_ids) == 190
        ids = [5, 20 + seed, *one.token_ids]
        old, new = forward(model, ids)[1:], forward(other, ids)[1:]
        follows_old = [abs(a - b) < 1e-3 for a, b in zip(one.logprobs, old, strict=True)]
        place = follows_old.index(False) if False in follows_old else len(old)
        assert max((abs(a - b) for a, b in list(zip(one.logprobs, new, strict=True))[place:]), default=0) < 1e-3
        kinds.add("old" if place == len(old) else "new" if place == 0 else "both")
    assert "both" in kinds
    assert "new" in kinds
    assert gap(running, other) < 1e-3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda model: [("nope.weight", torch.zeros(3))], "takes no `nope.weight`"),
        (
            lambda model: [
                (n, w[:5] if n.endswith("1.mlp.down_proj.weight") else w) for n, w in model.named_parameters()
            ],
            r"takes no `model.layers.1.mlp.down_proj.weight` of shape \[5, 240\]",
        ),
        (
            lambda model: [(n, w) for n, w in model.named_parameters() if "2.self_attn.k_proj" not in n],
            "some of the weights in `model.layers.2.self_attn.qkv_proj` of the model served were not sent",
        ),
        (lambda model: [(n, w) for n, w in model.named_parameters() if "norm" not in n], "weights of the model served"),
        (lambda model: [], "weights of the model served"),
    ],
)
def test_weights_of_another_model_are_refused_and_the_next_ones_taken(
    running: Running, model: Any, weights: Any, message: str
) -> None:
    with pytest.raises(RunStopped, match=message) as stop:
        running.push(weights(model))
    assert "Traceback" not in stop.value.message
    assert gap(running, model) < 1e-3  # what was sent of it was the same
    other = shaken(model, 13)
    running.push(other.named_parameters())
    assert gap(running, other) < 1e-3


def test_a_sender_that_vanished_in_the_middle_leaves_nothing_behind(running: Running, model: Any) -> None:
    engine: Any = running.engine._engine
    other = shaken(model, 17)

    async def vanish() -> None:
        await running.call("start_weight_update")
        await running.call("update_weights", next(iter(updates(other.named_parameters(), 200_000))))
        with pytest.raises(Exception, match="already active"):
            await running.call("start_weight_update")
        await engine.finish_weight_update()

    running.wait(vanish())
    running.push(other.named_parameters())
    assert gap(running, other) < 1e-3


def test_another_architecture_and_another_disk_are_named(running: Running, model: Any) -> None:
    own = facts(model.config)

    def refused(info: dict[str, Any]) -> str:
        with pytest.raises(Exception, match="Worker failed") as error:
            running.wait(running.call("init_weight_transfer_engine", info))
        return str(error.value)

    running.wait(running.call("init_weight_transfer_engine", {"facts": own}))
    assert "it has vocab_size 315, not 316" in refused({"facts": own | {"vocab_size": 316}})
    assert "no common disk" in refused({"facts": own, "path": "/nowhere/probe", "nonce": "1"})
    assert "is another file here" in refused({"facts": own, "path": "/etc/hostname", "nonce": "1"})
