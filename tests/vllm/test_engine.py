"""The colocated engine: what it generates is what transformers would, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr.errors import ConfigError, RlvrError, RunStopped, UnknownNameError
from rlvr.sampler.engine import Request, Written
from rlvr.sampler.vllm_engine import ColocatedEngine

T = TypeVar("T")

END = 3  # the starter's end-of-sequence token
CONTEXT = 128


class Running:
    """An engine in an event loop of its own thread, as `EngineSampler` has it."""

    def __init__(self, model: str, log: Path, **settings: Any) -> None:
        self.engine = ColocatedEngine(
            model, **{"device": "cpu", "dtype": "float32", "context": CONTEXT, "at_once": 64, "log": log, **settings}
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def soon(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, T], timeout: float = 300) -> T:
        return self.soon(work).result(timeout)

    def generate(self, requests: Sequence[Request]) -> list[Written]:
        return [future.result(60) for future in [self.soon(self.engine.generate(request)) for request in requests]]

    def close(self) -> None:
        self.wait(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def request(prompt: Sequence[int], **settings: Any) -> Request:
    return Request(
        tuple(prompt), **{"max_tokens": 24, "temperature": 1.0, "top_p": 1.0, "seed": 0, "stop": (END,), **settings}
    )


def family() -> set[psutil.Process]:
    """Processes that this one has started, and theirs; but for Python's own, which ends with it."""
    children = psutil.Process().children(recursive=True)
    return {child for child in children if "resource_tracker" not in " ".join(child.cmdline())}


def prompts(number: int) -> list[list[int]]:
    source = random.Random(0)
    return [[source.randrange(4, 300) for _ in range(source.randrange(1, 40))] for _ in range(number)]


@torch.no_grad()
def forward(model: Any, ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """log π of `ids[1:]` by transformers."""
    logprobs = (model(torch.tensor([list(ids)])).logits[0] / temperature).log_softmax(-1)
    return [logprobs[place, token].item() for place, token in enumerate(ids[1:])]


def apart(model: Any, prompt: Sequence[int], written: Written, temperature: float = 1.0) -> float:
    """How far the log-probabilities of a completion are from those of a forward pass, at most."""
    expected = forward(model, [*prompt, *written.token_ids], temperature)[len(prompt) - 1 :]
    return max(abs(a - b) for a, b in zip(written.logprobs, expected, strict=True))


@pytest.fixture(scope="module")
def model(starter: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def running(starter: str, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An engine that has the starter's weights and reports log-probabilities at the sampling temperature."""
    running = Running(starter, tmp_path_factory.mktemp("engine") / "vllm.log", raw_logprobs=False)
    environment = dict(os.environ)
    try:
        running.wait(running.engine.start())
        assert dict(os.environ) == environment
        shaken = [(name, weight + 0.1 * torch.randn_like(weight)) for name, weight in model.named_parameters()]
        running.wait(running.engine.update(lambda: shaken, 0))
        running.wait(running.engine.update(model.named_parameters, 1))
        yield running
    finally:
        running.close()


def test_greedy_completions_are_those_of_transformers(running: Running, model: Any) -> None:
    given = prompts(50)
    written = running.generate([request(prompt, temperature=0.0) for prompt in given])
    for prompt, found in zip(given, written, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=0,
        )
        assert list(found.token_ids) == expected[0, len(prompt) :].tolist()
        assert found.finish_reason == ("stop" if found.token_ids[-1] == END else "length")
        assert apart(model, prompt, found) < 1e-3
    assert {found.finish_reason for found in written} == {"stop", "length"}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_of_what_is_sampled_are_those_of_a_forward_pass(
    running: Running, model: Any, temperature: float
) -> None:
    given = prompts(30)
    written = running.generate([request(p, temperature=temperature, seed=i) for i, p in enumerate(given)])
    assert max(apart(model, p, w, temperature) for p, w in zip(given, written, strict=True)) < 1e-3


def test_a_given_text_is_scored_at_temperature_1(running: Running, model: Any) -> None:
    ids = prompts(3)[0] * 2
    found = running.wait(running.engine.logprobs(ids))
    assert list(found) == ["vLLM"]
    assert found["vLLM"] == pytest.approx(forward(model, ids), abs=1e-3)
    with pytest.raises(ConfigError, match="leave no room in a context of 128"):
        running.wait(running.engine.logprobs([5] * CONTEXT))


def test_a_completion_follows_from_its_seed_whatever_else_is_under_way(running: Running) -> None:
    prompt = prompts(1)[0]
    alone = running.generate([request(prompt, seed=5, stop=())])[0]
    crowd = running.generate([request(prompt, seed=seed, stop=()) for seed in range(40)])
    assert crowd[5].token_ids == alone.token_ids
    assert len({written.token_ids for written in crowd}) > 20


def test_the_whole_context_can_be_used_and_nothing_ends_it_that_is_no_end(running: Running) -> None:
    [written] = running.generate([request([5] * 28, max_tokens=100, stop=())])
    assert (len(written.token_ids), written.finish_reason) == (100, "length")


def test_a_cancelled_completion_leaves_room_for_others(running: Running) -> None:
    engine: Any = running.engine._engine
    futures = [running.soon(running.engine.generate(request([7], max_tokens=120, stop=()))) for _ in range(200)]
    time.sleep(0.2)
    for future in futures:
        future.cancel()
    assert len(running.generate([request([7], max_tokens=3, stop=())])[0].token_ids) == 3
    deadline = time.monotonic() + 5
    while engine.output_processor.has_unfinished_requests() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engine.output_processor.has_unfinished_requests()


def test_what_vllm_prints_is_in_the_log_and_nowhere_else(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    running.generate([request([7])])
    said = running.engine.log.read_text() if running.engine.log else ""
    assert "EngineCore" in said
    assert capfd.readouterr() == ("", "")


SCRIPT = """
import asyncio, os, sys, time
from rlvr.sampler.engine import Request
from rlvr.sampler.vllm_engine import ColocatedEngine

print("once", flush=True)
engine = ColocatedEngine(sys.argv[1], device="cpu", dtype="float32", context=64, at_once=4)

async def main():
    await engine.start()
    await engine.generate(Request((5, 6), 4, 1.0, 1.0, 0, ()))
    print("generates", flush=True)
    time.sleep(100)

asyncio.run(main())
"""


def test_a_script_without_a_guard_can_start_it_and_a_killed_script_leaves_nothing(starter: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, script, starter], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = [process.stdout.readline(), process.stdout.readline()]
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    rest = process.communicate(timeout=20)[0]
    assert (said, rest) == (["once\n", "generates\n"], "")
    gone, left = psutil.wait_procs(children, timeout=20)
    assert not left
    assert len(gone) >= 2


def test_an_engine_that_is_killed_ends_what_is_under_way_and_closes(starter: str, tmp_path: Path) -> None:
    before = family()
    running = Running(starter, tmp_path / "vllm.log")
    try:
        running.wait(running.engine.start())
        pending = [running.soon(running.engine.generate(request([7], max_tokens=120, stop=()))) for _ in range(100)]
        time.sleep(0.2)
        began = time.monotonic()
        running.engine._processes[0].kill()
        for future in pending:
            with pytest.raises(RunStopped, match="vLLM's engine was killed") as stop:
                future.result(10)
            assert str(tmp_path / "vllm.log") in stop.value.hint
        with pytest.raises(RunStopped, match="was killed"):
            running.wait(running.engine.update(list, 1), 10)
        assert time.monotonic() - began < 10
    finally:
        running.close()
    assert family() <= before


def refusal(model: str, log: Path, **settings: Any) -> RlvrError:
    """The error that starting an engine ends with."""
    before = family()
    running = Running(model, log, **settings)
    try:
        with pytest.raises(RlvrError) as stop:
            running.wait(running.engine.start())
    finally:
        running.close()
    assert family() <= before
    assert "\n" not in stop.value.message + stop.value.hint
    return stop.value


def test_too_little_memory_names_the_settings(starter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    error = refusal(starter, tmp_path / "vllm.log", options={"kv_cache_memory_bytes": 4096})
    assert isinstance(error, ConfigError)
    assert error.message.startswith("vLLM does not get the memory that it needs: ")
    assert "`--sampler.memory`" in error.hint
    assert str(tmp_path / "vllm.log") in error.hint


def test_an_unknown_option_and_an_unknown_architecture_are_named(starter: str, tmp_path: Path) -> None:
    error = refusal(starter, tmp_path / "vllm.log", options={"enforce_eagr": True})
    assert isinstance(error, UnknownNameError)
    assert "`enforce_eagr`" in error.message
    assert "`enforce_eager`" in error.hint

    config = json.loads((Path(starter) / "config.json").read_text())
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["OddForCausalLM"]}))
    error = refusal(str(folder), tmp_path / "odd.log")
    assert isinstance(error, ConfigError)
    assert "OddForCausalLM" in error.message

    error = refusal(starter, tmp_path / "long.log", context=100_000)
    assert "100000" in error.message


def test_closing_while_it_starts_ends_it(starter: str, tmp_path: Path) -> None:
    before = family()
    running = Running(starter, tmp_path / "vllm.log")
    starting = running.soon(running.engine.start())
    deadline = time.monotonic() + 60
    while not running.engine._processes and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 20
    assert isinstance(starting.exception(5), RlvrError)
    assert family() <= before
