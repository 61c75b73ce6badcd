"""Sampling from vLLM servers, against servers that fail in every way: nothing is lost, nothing comes twice.

They speak what `vllm serve` speaks, over real connections; `tests/vllm/test_server.py` has the real one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import re
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from rlvr.errors import ConfigError, RlvrError, RunStopped
from rlvr.sampler.engine import Request, Written
from rlvr.sampler.vllm_http import addresses, said
from rlvr.sampler.vllm_server import ServerEngine

# Of connections that are cancelled before they are made, as httpx leaves them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def sockets_end_with_their_tests() -> Iterator[None]:
    """Collects what is left while the filters above hold."""
    yield
    gc.collect()


FACTS = {"model_type": "qwen2", "vocab_size": 64}
WRAPPED = "Call to collective_rpc method failed: Worker failed with error '{}', please check the stack trace above"
GONE = object()  # an answer that is a closed connection


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.sockets.add(self.connection)

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        fake: Fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        with fake.lock:
            fake.calls.append(self.path)
            fake.headers.append(dict(self.headers))
            planned = fake.planned.get(path)
            plan = planned.pop(0) if planned else None
        if path in fake.silent or "*" in fake.silent:
            self.server.over.wait(30)
        status, content = plan or fake.respond(path, json.loads(body) if body else {}, self.connection)
        if content is GONE or self.server.over.is_set():
            self.close_connection = True
            return
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


class Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        """A client that went away."""


class Fake:
    """A server that can be killed and started again, and told what to answer instead.

    Its model is one number: a token's log-probability is its negative. The number of a fresh start is 1.
    """

    def __init__(self) -> None:
        self.port = 0
        self.starts = 0
        self.lock = threading.Lock()
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.planned: dict[str, list[tuple[int, Any]]] = {}  # answers to give first, by path
        self.silent: set[str] = set()  # paths that get no answer; `*` for all
        self.gate = threading.Event()  # completions end when it is set
        self.gate.set()
        self.dropped = 0  # completions whose client went away
        self.facts, self.context, self.mode = dict(FACTS), 128, "raw_logprobs"
        self.transfer: dict[str, str] | None = {"backend": "rlvr"}
        self.more: dict[str, Any] = {}  # of its config
        self.reads_files = True
        self.tells = True  # its settings
        self.shift = 0.0  # added to log-probabilities: a server whose weights did not arrive
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.starts += 1
        self.weight, self.sent, self.paused, self.open = 1.0, [], False, False
        self.http = Http(("127.0.0.1", self.port), Handler)
        self.http.fake, self.http.sockets, self.http.over = self, set(), threading.Event()  # type: ignore[attr-defined]
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """Ends it as `kill -9` does: connections drop, whatever was under way."""
        http: Any = self.http
        http.over.set()
        http.shutdown()
        http.server_close()
        self.thread.join()
        for connection in list(http.sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def plan(self, path: str, *answers: tuple[int, Any]) -> None:
        self.planned[path] = list(answers)

    def asked(self, path: str) -> int:
        with self.lock:
            return sum(call.partition("?")[0] == path for call in self.calls)

    def syncs(self) -> list[str]:
        """The calls that change weights, in order."""
        wanted = ("/pause", "/resume", "/start_w", "/update", "/finish", "/reset")
        return [call for call in self.calls if call.startswith(wanted)]

    def respond(self, path: str, body: dict[str, Any], connection: socket.socket) -> tuple[int, Any]:
        match path:
            case "/v1/models":
                return 200, {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": self.context}]}
            case "/health":
                return 200, ""
            case "/is_paused":
                return 200, {"is_paused": self.paused}
            case "/server_info" if not self.tells:
                return 404, {"detail": "Not Found"}
            case "/server_info":
                config = {"logprobs_mode": self.mode}
                identity = f"start {self.starts}"
                transfer = {"weight_transfer_config": self.transfer} | self.more
                return 200, {"vllm_config": {"model_config": config, "instance_id": identity} | transfer}
            case "/init_weight_transfer_engine":
                return self.introduce(body["init_info"])
            case "/pause" | "/resume":
                self.paused = path == "/pause"
                return 200, {}
            case "/start_weight_update":
                if self.open:
                    return 500, {"error": {"message": WRAPPED.format("a weight update is already active")}}
                self.open = True
                return 200, {}
            case "/update_weights":
                info = body["update_info"]
                data = load_file(info["path"]) if "path" in info else load(base64.b64decode(info["data"]))
                self.sent.append(info)
                self.weight = float(data["w"][0])
                self.dtype = data["w"].dtype
                return 200, {}
            case "/finish_weight_update":
                self.open = False
                return 200, {}
            case "/reset_prefix_cache":
                return 200, {"success": True}
            case "/v1/completions" if "prompt_logprobs" in body:
                rows = [{str(token): {"logprob": self.shift - self.weight}} for token in body["prompt"][1:]]
                return 200, {"choices": [{"prompt_logprobs": [None, *rows]}]}
            case "/v1/completions":
                return self.complete(body, connection)
        return 404, {"detail": "Not Found"}

    def introduce(self, info: dict[str, Any]) -> tuple[int, Any]:
        problem = ""
        if info["facts"] != self.facts:
            problem = "the model served is not the learner's: it has vocab_size 99, not 64"
        elif "path" in info and not (self.reads_files and Path(info["path"]).read_text() == info["nonce"]):
            problem = "no common disk: [Errno 2] No such file or directory"
        return (500, {"error": {"message": WRAPPED.format(problem)}}) if problem else (200, {})

    def complete(self, body: dict[str, Any], connection: socket.socket) -> tuple[int, Any]:
        with self.lock:
            self.bodies.append(body)
        over: threading.Event = self.http.over  # type: ignore[attr-defined]
        while not self.gate.wait(0.01) and not over.is_set():
            if select.select([connection], [], [], 0)[0]:
                with self.lock:
                    self.dropped += 1
                return 0, GONE
        ids = [body.get("seed", 7) % 50, 1]
        logprobs = {"token_logprobs": [-self.weight] * 2}
        return 200, {"choices": [{"token_ids": ids, "logprobs": logprobs, "finish_reason": "stop"}]}


@pytest.fixture
def fakes() -> Iterator[list[Fake]]:
    made = [Fake(), Fake()]
    yield made
    for fake in made:
        fake.gate.set()
        with contextlib.suppress(OSError):
            fake.kill()


@pytest.fixture
def fake(fakes: list[Fake]) -> Fake:
    return fakes[0]


class Quick(ServerEngine):
    POLL, SAY, BACKOFF = 0.05, 0.1, (0.01, 0.1)


@asynccontextmanager
async def engine(*fakes: Fake, **settings: Any) -> AsyncIterator[Quick]:
    """A started engine over servers."""
    made = Quick([fake.url for fake in fakes], **{"facts": FACTS, "patience": 20.0, "say": lambda _: None} | settings)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))  # type: ignore[arg-type]


def ask(seed: int = 3, **changes: Any) -> Request:
    values: dict[str, Any] = {"prompt": (5, 6), "max_tokens": 8, "temperature": 1.0, "top_p": 1.0, "stop": (1,)}
    return Request(seed=seed, **values | changes)


def weights(value: float) -> Callable[[], Iterator[tuple[str, torch.Tensor]]]:
    return lambda: iter([("w", torch.full((4,), value))])


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread or task does."""
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it never happened"
        await asyncio.sleep(0.01)


def failure(*urls: str, **settings: Any) -> RlvrError:
    """The error of an engine that does not start."""
    made = Quick(urls, **{"facts": FACTS, "patience": 20.0, "say": lambda _: None} | settings)

    async def work() -> None:
        try:
            await made.start()
        finally:
            await made.close()

    with pytest.raises(RlvrError) as caught:
        run(work)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


# Finding servers


def test_addresses_are_taken_as_people_write_them() -> None:
    assert addresses(["http://a:8000/", "https://b/v1", "http://c/some/path/v1/"]) == [
        "http://a:8000",
        "https://b",
        "http://c/some/path",
    ]


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "there is no vLLM server"),
        (["localhost:8000"], "`localhost:8000` is no address of a server"),
        (["http://"], "`http://` is no address"),
        (["http://a:port"], "`http://a:port` is no address"),
        (["http://a:1", "http://a:1/v1"], "the server `http://a:1` is given twice"),
    ],
)
def test_what_is_no_address_is_refused(urls: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        ServerEngine(urls, facts=FACTS)
    assert "--sampler.url" in caught.value.hint


def test_memory_cannot_be_shared_with_a_server() -> None:
    with pytest.raises(ConfigError, match=r"`sampler\.sync` is `ipc`"):
        ServerEngine(["http://a"], facts=FACTS, sync="ipc")


@pytest.mark.parametrize(
    ("path", "answer", "message", "hint"),
    [
        ("/v1/models", (200, "<html>hello</html>"), "is not a vLLM server", "vllm serve MODEL"),
        ("/v1/models", (404, "<html>no</html>"), "is not a vLLM server: it answers 404", "vllm serve MODEL"),
        ("/v1/models", (301, ""), "is not a vLLM server", "vllm serve MODEL"),
        ("/v1/models", (200, {"data": [{"owned_by": "somebody"}]}), "lists no model of vLLM's", "vllm serve MODEL"),
        ("/v1/models", (401, {"error": "Unauthorized"}), "wants an API key: Unauthorized", "`VLLM_API_KEY`"),
        ("/is_paused", (404, {"detail": "Not Found"}), "lets nobody change its weights", "VLLM_SERVER_DEV_MODE=1"),
    ],
)
def test_what_is_not_a_server_that_can_be_used_is_refused_at_once(
    fake: Fake, path: str, answer: tuple[int, Any], message: str, hint: str
) -> None:
    fake.plan(path, answer)
    error = failure(fake.url)
    assert isinstance(error, ConfigError)
    assert message in error.message
    assert fake.url in error.message
    assert hint in error.hint
    assert len(fake.calls) < 5


def test_a_server_that_seeds_would_end_is_refused(fake: Fake) -> None:
    fake.more = {"device_config": {"device_type": "cpu"}, "scheduler_config": {"enable_chunked_prefill": True}}
    error = failure(fake.url)
    assert "would end at the first prompt that it reads in two parts" in error.message
    assert "`--no-enable-chunked-prefill`" in error.hint


@pytest.mark.parametrize(("transfer", "named"), [(None, "off"), ({"backend": "nccl"}, "`nccl`")])
def test_a_server_that_takes_no_weights_is_refused(fake: Fake, transfer: Any, named: str) -> None:
    fake.transfer = transfer
    error = failure(fake.url)
    assert f"its weight transfer is {named}" in error.message
    assert '--weight-transfer-config \'{"backend": "rlvr"}\'' in error.hint


def test_a_server_of_another_model_is_refused_though_another_would_do(fakes: list[Fake]) -> None:
    fakes[1].facts["vocab_size"] = 99
    error = failure(fakes[0].url, fakes[1].url)
    assert error.message == (
        f"the vLLM server at {fakes[1].url} does not fit: the model served is not the learner's: it has vocab_size 99, "
        "not 64"
    )
    assert "`--model`" in error.hint


@contextlib.contextmanager
def speaking(port: int = 0) -> Iterator[str]:
    """The address of something that answers, but not in HTTP."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        over = threading.Event()

        def greet() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(b"220 mail.example ESMTP\r\n\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_server_that_says_only_when_asked_that_it_takes_no_weights(fake: Fake) -> None:
    fake.tells = False
    text = "Weight transfer not configured. Please set weight_transfer_config to enable weight transfer."
    fake.plan("/init_weight_transfer_engine", (500, {"error": {"message": WRAPPED.format(text)}}))
    error = failure(fake.url)
    assert error.message.endswith(f"does not fit: {text}")
    assert "--weight-transfer-config" in error.hint


def test_what_speaks_no_http_is_refused_at_once() -> None:
    with speaking() as url:
        assert f"no vLLM server can be reached at `{url}`" in failure(url).message


def test_tls_where_there_is_none_is_refused_at_once(fake: Fake) -> None:
    assert "no vLLM server can be reached" in failure(fake.url.replace("http:", "https:")).message


def test_a_host_that_does_not_exist_is_refused_at_once() -> None:
    assert "`http://nowhere.invalid:1`" in failure("http://nowhere.invalid:1").message


def test_nobody_there_is_waited_for_and_then_the_run_stops(fake: Fake) -> None:
    fake.kill()
    told: list[str] = []
    error = failure(fake.url, patience=1.0, say=told.append)
    assert isinstance(error, RunStopped)
    assert error.message.startswith("no vLLM server answered for 1 s (")
    assert "vllm serve MODEL" in error.hint
    assert "does not answer yet" in told[0]
    assert any("waiting" in text for text in told)


def test_a_server_that_is_still_starting_is_waited_for(fake: Fake) -> None:
    fake.kill()
    threading.Timer(0.5, fake.start).start()

    async def work() -> None:
        async with engine(fake) as made:
            assert made.context == 128
            assert (await made.generate(ask())).token_ids == (3, 1)

    run(work)


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 502), ("/v1/models", 503), ("/health", 503)])
def test_a_server_that_is_not_ready_yet_is_waited_for(fake: Fake, path: str, status: int) -> None:
    fake.plan(path, *[(status, "<html>not yet</html>")] * 3)

    async def work() -> None:
        async with engine(fake):
            assert fake.asked(path) >= 4

    run(work)


def test_one_server_is_enough_to_begin_and_the_other_joins(fakes: list[Fake]) -> None:
    fakes[1].kill()

    async def work() -> None:
        async with engine(*fakes) as made:
            await made.update(weights(2.0), 1)
            fakes[1].start()
            await until(lambda: fakes[1].weight == 2.0)
            await until(lambda: len(made._ready()) == 2)
            assert list(await made.logprobs((1, 2, 3))) == [f"the vLLM server at {fake.url}" for fake in fakes]

    run(work)


def test_the_shortest_context_counts_and_none_that_is_shorter_joins_later(fakes: list[Fake]) -> None:
    fakes[1].context = 100
    told: list[str] = []

    async def work() -> None:
        async with engine(*fakes, say=told.append) as made:
            assert made.context == 100
            fakes[1].kill()
            await until(lambda: len(made._ready()) == 1)
            fakes[1].context = 50
            fakes[1].start()
            await until(lambda: any("has a context of 50 tokens, the others have 100" in text for text in told))
            assert made.context == 100
            assert made._ready() == made.servers[:1]

    run(work)


def test_a_server_that_a_dead_run_left_paused_is_resumed(fake: Fake) -> None:
    fake.paused = fake.open = True

    async def work() -> None:
        async with engine(fake) as made:
            assert not fake.paused
            await made.update(weights(2.0), 1)
            assert fake.weight == 2.0

    run(work)


# Completions


def test_a_completion_is_asked_for_and_read(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")

    async def work() -> None:
        async with engine(fake) as made:
            assert await made.generate(ask(9, temperature=0.0)) == Written((9, 1), (-1.0, -1.0), "stop")

    run(work)
    body = fake.bodies[0]
    wanted = {"prompt": [5, 6], "seed": 9, "stop_token_ids": [1], "ignore_eos": True, "top_k": 0, "max_tokens": 8}
    assert body.items() >= wanted.items()
    assert fake.headers[-1]["Authorization"] == "Bearer secret"


def test_seeds_can_be_left_out(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake, seeded=False) as made:
            await made.generate(ask())

    run(work)
    assert "seed" not in fake.bodies[0]


def test_requests_are_spread_evenly(fakes: list[Fake]) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            for fake in fakes:
                fake.gate.clear()
            tasks = [asyncio.create_task(made.generate(ask(seed))) for seed in range(20)]
            await until(lambda: sum(len(fake.bodies) for fake in fakes) == 20)
            assert [len(fake.bodies) for fake in fakes] == [10, 10]
            for fake in fakes:
                fake.gate.set()
            assert [done.token_ids[0] for done in await asyncio.gather(*tasks)] == list(range(20))

    run(work)


@pytest.mark.parametrize(
    ("mode", "changes", "wanted"),
    [
        ("raw_logprobs", {}, ""),
        ("raw_logprobs", {"top_p": 0.5}, ""),
        ("raw_logprobs", {"temperature": 0.0}, ""),
        ("raw_logprobs", {"temperature": 0.5}, "processed_logprobs"),
        ("processed_logprobs", {"temperature": 0.5}, ""),
        ("processed_logprobs", {"top_p": 0.5}, "raw_logprobs"),
        ("processed_logprobs", {"top_p": 0.5, "temperature": 0.0}, ""),
        ("raw_logits", {}, "raw_logprobs"),
    ],
)
def test_log_probabilities_of_another_kind_are_refused(fake: Fake, mode: str, changes: Any, wanted: str) -> None:
    fake.mode = mode

    async def work() -> None:
        async with engine(fake) as made:
            if not wanted:
                await made.generate(ask(**changes))
                return
            with pytest.raises(ConfigError, match=f"gives `{mode}`") as caught:
                await made.generate(ask(**changes))
            assert caught.value.hint == f"start it with `--logprobs-mode {wanted}`"

    run(work)


def test_a_cancelled_call_drops_its_connection(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.gate.clear()
            task = asyncio.create_task(made.generate(ask()))
            await until(lambda: len(fake.bodies) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: fake.dropped == 1)
            assert made.servers[0].busy == 0

    run(work)


# Failures


def test_a_killed_server_loses_nothing_and_nothing_comes_twice(fakes: list[Fake]) -> None:
    told: list[str] = []

    async def work() -> None:
        async with engine(*fakes, say=told.append) as made:
            for fake in fakes:
                fake.gate.clear()
            tasks = [asyncio.create_task(made.generate(ask(seed))) for seed in range(16)]
            await until(lambda: len(fakes[0].bodies) == len(fakes[1].bodies) == 8)
            fakes[0].kill()
            await until(lambda: len(fakes[1].bodies) == 16)
            fakes[1].gate.set()
            assert [done.token_ids[0] for done in await asyncio.gather(*tasks)] == list(range(16))

    run(work)
    assert Counter(body["seed"] for body in fakes[1].bodies) == dict.fromkeys(range(16), 1)
    assert any("is lost" in text and "1 left" in text for text in told)


@pytest.mark.parametrize("absence", [0.0, 0.5])
def test_the_only_server_killed_and_started_again_gets_the_weights_before_a_request(fake: Fake, absence: float) -> None:
    told: list[str] = []

    async def work() -> None:
        async with engine(fake, say=told.append) as made:
            await made.update(weights(2.0), 1)
            fake.gate.clear()
            tasks = [asyncio.create_task(made.generate(ask(seed))) for seed in range(4)]
            await until(lambda: len(fake.bodies) == 4)
            fake.kill()
            await asyncio.sleep(absence)
            fake.gate.set()
            fake.calls.clear()
            fake.start()
            assert fake.weight == 1.0
            done = await asyncio.gather(*tasks)
            assert [one.token_ids[0] for one in done] == list(range(4))
            assert {one.logprobs[0] for one in done} == {-2.0}
            assert fake.calls.index("/resume") < fake.calls.index("/v1/completions")

    run(work)
    assert "none is left" in told[0]
    assert told[-1].endswith("is back, with the weights of now")


def test_what_is_there_while_a_server_is_away_does_not_end_a_run(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.kill()
            with speaking(fake.port):
                task = asyncio.create_task(made.generate(ask()))
                await until(lambda: "illegal" in made.servers[0].why)
            fake.start()
            assert (await task).token_ids == (3, 1)

    run(work)


def test_an_idle_server_that_is_started_again_is_noticed(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            await made.update(weights(2.0), 1)
            fake.kill()
            fake.start()
            made.servers[0].seen = -1000.0  # as if this process had been stopped meanwhile
            await until(lambda: fake.weight == 2.0)

    run(work)


def test_a_connection_that_drops_is_no_restart(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            await made.update(weights(2.0), 1)
            fake.plan("/v1/completions", (0, GONE), (0, GONE))
            assert (await made.generate(ask())).logprobs == (-2.0, -2.0)
            assert fake.asked("/update_weights") == 1
            assert fake.asked("/v1/completions") == 3

    run(work)


def test_a_server_that_cannot_be_told_from_another_gets_the_weights_again(fake: Fake) -> None:
    fake.tells = False

    async def work() -> None:
        async with engine(fake) as made:
            await made.update(weights(2.0), 1)
            fake.plan("/v1/completions", (0, GONE))
            assert (await made.generate(ask())).logprobs == (-2.0, -2.0)
            assert fake.asked("/update_weights") == 2

    run(work)


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error": {"message": "out of order"}}),
        (502, "<html>Bad Gateway</html>"),
        (503, {"error": {"message": "the engine is busy"}}),
        (429, "slow down"),
        (200, "<html>hello</html>"),
        (200, {"choices": []}),
        (200, {"choices": [{"token_ids": None, "logprobs": None, "finish_reason": "stop"}]}),
        (200, {"choices": [{"token_ids": [3], "logprobs": {"token_logprobs": []}, "finish_reason": "stop"}]}),
        (200, {"choices": [{"token_ids": [3], "logprobs": {"token_logprobs": [-1]}, "finish_reason": "abort"}]}),
    ],
)
def test_a_bad_answer_is_asked_for_again(fake: Fake, answer: tuple[int, Any]) -> None:
    fake.plan("/v1/completions", answer, answer)

    async def work() -> None:
        async with engine(fake) as made:
            assert (await made.generate(ask())).token_ids == (3, 1)

    run(work)
    assert fake.asked("/v1/completions") == 3


def test_a_request_that_always_fails_stops_the_run(fake: Fake) -> None:
    fake.plan("/v1/completions", *[(500, {"error": {"message": "out of order"}})] * 100)

    async def work() -> None:
        async with engine(fake) as made:
            with pytest.raises(RunStopped, match=r"failed 12 times, .* it answers 500: out of order"):
                await made.generate(ask())

    run(work)


def test_a_busy_server_is_waited_for(fake: Fake) -> None:
    fake.plan("/v1/completions", *[(503, {"error": {"message": "busy"}})] * 20)

    async def work() -> None:
        async with engine(fake) as made:
            assert await made.generate(ask())

    run(work)


def test_a_server_that_is_busy_for_ever_is_not_waited_for(fake: Fake) -> None:
    fake.plan("/v1/completions", *[(503, {"error": {"message": "busy"}})] * 500)

    async def work() -> None:
        async with engine(fake, patience=0.5) as made:
            with pytest.raises(RunStopped, match=r"was put off for 0 s, .* it answers 503: busy"):
                await made.generate(ask())

    run(work)


def test_a_request_that_is_wrong_is_not_sent_again(fake: Fake) -> None:
    message = "max_tokens=200 cannot be greater than max_model_len=128."
    fake.plan("/v1/completions", (400, {"error": {"message": message}}))

    async def work() -> None:
        async with engine(fake) as made:
            with pytest.raises(RunStopped, match=re.escape(f"refuses a request (400): {message}")) as caught:
                await made.generate(ask())
            assert "--max-model-len" in caught.value.hint

    run(work)
    assert fake.asked("/v1/completions") == 1


@pytest.mark.parametrize("silent", ["*", "/health", "/is_paused"])
def test_a_server_that_hangs_is_left(fakes: list[Fake], silent: str) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            fakes[0].gate.clear()
            tasks = [asyncio.create_task(made.generate(ask(seed))) for seed in range(4)]
            await until(lambda: len(fakes[0].bodies) == 2)
            made.SILENCE, made.STEP_SILENCE = (20, 0.5) if silent == "/is_paused" else (0.5, 20)
            fakes[0].silent.add(silent)
            assert [done.token_ids[0] for done in await asyncio.gather(*tasks)] == list(range(4))
            await until(lambda: fakes[0].dropped == 2)

    run(work)


def test_a_dead_engine_behind_a_server_that_answers_is_left(fakes: list[Fake]) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            fakes[0].plan("/v1/completions", *[(500, {"error": {"message": "EngineCore died"}})] * 9)
            fakes[0].plan("/health", *[(503, "")] * 900)
            done = await asyncio.gather(*(made.generate(ask(seed)) for seed in range(8)))
            assert [one.token_ids[0] for one in done] == list(range(8))
            assert made._ready() == made.servers[1:]

    run(work)


def test_when_all_stay_away_the_run_stops_and_can_be_resumed(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake, patience=1.0) as made:
            fake.kill()
            with pytest.raises(RunStopped, match="no vLLM server answered for 1 s") as caught:
                await asyncio.gather(*(made.generate(ask(seed)) for seed in range(8)))
            assert "`--resume`" in caught.value.hint

    run(work)


def test_a_server_that_someone_paused_is_resumed(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake):
            fake.paused = True
            await until(lambda: not fake.paused)

    run(work)


# Weights


@pytest.mark.parametrize(
    ("sync", "reads", "form"), [("auto", True, "path"), ("auto", False, "data"), ("http", True, "data")]
)
def test_weights_go_the_way_that_there_is(fakes: list[Fake], tmp_path: Path, sync: str, reads: bool, form: str) -> None:
    fakes[0].reads_files = fakes[1].reads_files = reads

    async def work() -> None:
        async with engine(*fakes, sync=sync, folder=tmp_path, dtype="bfloat16") as made:
            for version in (1, 2):
                await made.update(weights(version + 1.0), version)
                assert await made.logprobs((1, 2, 3)) == {server.name: [-1.0 - version] * 2 for server in made.servers}
            assert [path.name for path in tmp_path.iterdir()] == ["weights-2.safetensors"]

    run(work)
    for fake in fakes:
        assert [form in part for part in fake.sent] == [True, True]
        assert fake.dtype == torch.bfloat16
        assert [call.partition("?")[0] for call in fake.syncs()] == 2 * [
            "/pause",
            "/start_weight_update",
            "/update_weights",
            "/finish_weight_update",
            "/reset_prefix_cache",
            "/resume",
        ]
        assert "/pause?mode=keep" in fake.calls
        assert "/reset_prefix_cache?reset_running_requests=true" in fake.calls
    assert not list(tmp_path.iterdir())


def test_files_that_a_server_cannot_read_are_refused_where_they_have_to_be(fake: Fake) -> None:
    fake.reads_files = False

    async def work() -> None:
        async with engine(fake, sync="files") as made:
            with pytest.raises(RlvrError, match="cannot read files in") as caught:
                await made.update(weights(2.0), 1)
            assert caught.value.hint == "use `--sampler.sync http`"

    run(work)


@pytest.mark.parametrize(
    "path", ["/pause", "/start_weight_update", "/update_weights", "/finish_weight_update", "/resume"]
)
def test_a_server_that_fails_in_an_update_gets_it_when_it_is_back(fakes: list[Fake], path: str) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            await made.update(weights(2.0), 1)
            fakes[0].plan(path, (0, GONE))
            await made.update(weights(3.0), 2)
            assert fakes[1].weight == 3.0
            await until(lambda: len(made._ready()) == 2)
            assert set(map(tuple, (await made.logprobs((1, 2))).values())) == {(-3.0,)}
            assert not fakes[0].paused

    run(work)


def test_a_server_that_hangs_in_an_update_does_not_hold_the_others_up(fakes: list[Fake]) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            made.SILENCE = 0.5
            began = time.monotonic()
            fakes[0].plan("/pause", (200, {}))
            fakes[0].silent |= {"/start_weight_update", "/resume", "/health"}
            await made.update(weights(2.0), 1)
            assert time.monotonic() - began < 10
            assert made._ready() == made.servers[1:]

    run(work)


def test_an_update_waits_for_a_server_that_is_away(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.kill()
            await until(lambda: not made._ready())
            threading.Timer(0.3, fake.start).start()
            await made.update(weights(2.0), 1)
            assert fake.weight == 2.0

    run(work)


def test_requests_under_way_go_elsewhere_when_weights_arrive_in_part(fakes: list[Fake]) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            for fake in fakes:
                fake.gate.clear()
            tasks = [asyncio.create_task(made.generate(ask(seed))) for seed in range(8)]
            await until(lambda: len(fakes[0].bodies) == len(fakes[1].bodies) == 4)
            fakes[0].plan("/update_weights", (500, {"error": {"message": WRAPPED.format("no tensor `w`")}}))
            await made.update(weights(2.0), 1)
            await until(lambda: fakes[0].dropped == 4)
            assert not fakes[0].paused
            for fake in fakes:
                fake.gate.set()
            assert [done.token_ids[0] for done in await asyncio.gather(*tasks)] == list(range(8))
            await until(lambda: len(made._ready()) == 2)  # it was refused once only
            assert fakes[0].weight == 2.0

    run(work)


def test_weights_that_no_server_takes_stop_the_run_at_once(fakes: list[Fake]) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            for fake in fakes:
                fake.plan("/update_weights", *[(500, {"error": {"message": WRAPPED.format("no tensor `w`")}})] * 90)
            with pytest.raises(RunStopped, match=r"does not take the weights: no tensor `w`$"):
                await made.update(weights(2.0), 1)
            assert not any(fake.paused for fake in fakes)

    run(work)


def test_a_prefix_cache_that_cannot_be_reset_is_tried_again(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.plan("/reset_prefix_cache", (200, {"success": False}), (200, ""))
            await made.update(weights(2.0), 1)
            assert fake.asked("/reset_prefix_cache") == 2

    run(work)


def test_a_server_that_came_back_with_other_weights_gets_no_request(fakes: list[Fake]) -> None:
    told: list[str] = []

    async def work() -> None:
        async with engine(*fakes, say=told.append) as made:
            await made.update(weights(2.0), 1)
            await made.logprobs((1, 2, 3))
            fakes[0].kill()
            await until(lambda: len(made._ready()) == 1)
            fakes[0].shift = 0.5
            fakes[0].start()
            await until(lambda: any("its log-probabilities are 0.5 nats off" in text for text in told))
            assert made._ready() == made.servers[1:]
            fakes[0].shift = 0.0
            await until(lambda: len(made._ready()) == 2)

    run(work)


def test_log_probabilities_come_from_the_servers_that_are_left(fakes: list[Fake]) -> None:
    async def work() -> None:
        async with engine(*fakes) as made:
            fakes[0].plan("/v1/completions", (200, "garbage"))
            assert list(await made.logprobs((1, 2))) == [f"the vLLM server at {fakes[1].url}"]

    run(work)


@pytest.mark.parametrize("cancelled", [True, False])
def test_closing_in_the_middle_of_an_update_leaves_the_server_running(fake: Fake, cancelled: bool) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.silent.add("/update_weights")
            task = asyncio.create_task(made.update(weights(2.0), 1))
            await until(lambda: fake.asked("/update_weights") == 1)
            if cancelled:
                task.cancel()
        with pytest.raises((asyncio.CancelledError, RunStopped)):
            await task
        assert fake.calls[-1] == "/resume"
        assert not fake.paused

    run(work)


def test_closing_ends_what_is_under_way(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.gate.clear()
            task = asyncio.create_task(made.generate(ask()))
            await until(lambda: len(fake.bodies) == 1)
        with pytest.raises(RunStopped, match="were let go"):
            await task

    run(work)


def test_closing_leaves_no_connection_open(fake: Fake) -> None:
    async def work() -> None:
        async with engine(fake) as made:
            fake.gate.clear()
            tasks = [asyncio.create_task(made.generate(ask(seed))) for seed in range(20)]
            await until(lambda: len(fake.bodies) == len(tasks))

    run(work)  # the loop ends with the engine
    gc.collect()  # warns of what was left open
    asyncio.run(until(lambda: fake.dropped == 20))


# Texts


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"error": {"message": WRAPPED.format("it's `w`") + " for the root cause"}}, "it's `w`"),
        ({"error": "Call to collective_rpc method failed: no `w`\n at all"}, "no `w` at all"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ("plain", "plain"),
        ("", "without a word"),
    ],
)
def test_what_a_server_said_is_one_line(answer: Any, text: str) -> None:
    assert said(answer) == text
