"""Training on real vLLM engines, as a user starts it: `rlvr train --sampler vllm`, and with servers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import Served

import rlvr

GROUP, PROMPTS, STEPS = 8, 8, 3
SMALL = {
    "--task": "math",
    "--model": "starter",
    "--device": "cpu",
    "--scorer.workers": "1",
    "--eval.limit": "200",
    "--steps": str(STEPS),
    "--sampler.group-size": str(GROUP),
    "--sampler.prompts-per-step": str(PROMPTS),
    "--sampler.max-tokens": "24",
}
FILES = {"checkpoints", "config.toml", "environment.json", "final", "result.json"}
FILES |= {"guards.jsonl", "metrics.jsonl", "rollouts.jsonl"}
COLOCATED = ("--sampler", "vllm")


def small(*arguments: str) -> list[str]:
    """The arguments of a small run, of which those given take the place of others."""
    return [word for name, value in SMALL.items() if name not in arguments for word in (name, value)] + [
        "--no-sampler.dynamic",
        *arguments,
    ]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rlvr", "train", *arguments]


def train(*arguments: str, timeout: float = 400, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200"} | environment
    return subprocess.run(command(*arguments), env=env, capture_output=True, text=True, timeout=timeout)


def trained(out: Path, *arguments: str) -> rlvr.Run:
    """A small run that has to succeed, and to say on the terminal what rlvr says and nothing of vLLM's."""
    done = train(*small(*arguments, "--out", str(out)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    for line in done.stderr.splitlines():
        assert re.match(r"step |held-out accuracy |run |warning: |the vLLM server at ", line), done.stderr
    return rlvr.Run(out)


def refused(done: subprocess.CompletedProcess[str], code: int, out: Path | None = None) -> tuple[str, str]:
    """Message and hint of a command that failed: two lines and no more, except that a run with the directory `out` says
    its steps before, and how to go on."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr
    if out is None:
        assert len(lines) == 2, done.stderr
    else:
        assert lines[-3].startswith("stopped after step "), done.stderr
        assert lines[-3].endswith(f"go on with: rlvr train --resume {out}"), done.stderr
        assert (out / "config.toml").is_file()
        assert not (out / "final").exists()
    error, hint = lines[-2:]
    assert error.startswith("error: "), done.stderr
    assert hint.startswith("hint: "), done.stderr
    return error, hint


def resume(out: Path, *arguments: str, steps: int = STEPS) -> rlvr.Run:
    """The run to its end; every completion is there."""
    done = train("--resume", str(out), "--steps", str(steps), *arguments)
    assert done.returncode == 0, done.stderr
    run = rlvr.Run(out)
    check_rollouts(run, steps)
    assert run.metrics()[-1]["probe"] < 1e-3
    assert run.accuracy is not None
    return run


def check_metrics(run: rlvr.Run, steps: int = STEPS) -> None:
    """Every step says how sampler and learner compare, and where the time went."""
    metrics = run.metrics()
    assert [row["step"] for row in metrics] == list(range(steps))
    for row in metrics:
        assert 0 < row["mismatch"] < 1e-3, row
        assert row["mismatch"] <= row["mismatch_max"] < 0.1, row
        assert 0 <= row["probe"] < 1e-3, row
        assert row["corrected"] == 0, row
        assert min(row["time/sample"], row["time/verify"], row["time/sync"], row["time/update"]) > 0, row
        assert 0 <= row["time/hidden"] <= 1, row
        assert row["time/sample"] + row["time/sync"] + row["time/update"] < row["time/step"] * 1.05, row


def check_rollouts(run: rlvr.Run, steps: int = STEPS) -> None:
    """Each step has each of its completions once."""
    rows = run.rollouts()
    places = Counter((row["step"], row["group"]) for row in rows)
    assert places == {(step, group): GROUP for step in range(steps) for group in range(PROMPTS)}
    for step in range(steps):
        samples = [row["sample"] for row in rows if row["step"] == step]
        assert set(Counter(samples).values()) == {GROUP}
    texts = Counter((row["step"], row["sample"], row["completion"]) for row in rows)
    assert max(texts.values()) < GROUP or len(texts) > steps * PROMPTS  # not the same one over and over
    for row in rows:
        assert 1 <= row["completion_tokens"] <= 24
        assert row["verdict"]["status"] in ("passed", "failed"), row["verdict"]


def begins_alike(run: rlvr.Run, other: rlvr.Run) -> None:
    """What the same model decodes greedily is as good, whatever decodes it."""
    mine, theirs = run.before, other.before
    assert mine is not None
    assert theirs is not None
    assert mine.accuracy == pytest.approx(theirs.accuracy, abs=0.02)  # near ties may be rounded apart


def wait_for_steps(out: Path, steps: int, process: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= steps):
        assert time.monotonic() < deadline, "the run does not get on"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> rlvr.Run:
    """The small run with transformers as its sampler."""
    return trained(tmp_path_factory.mktemp("peer") / "run", "--sampler", "transformers")


# A colocated engine


def test_a_run_with_an_engine_beside_the_learner(tmp_path: Path, peer: rlvr.Run) -> None:
    run = trained(tmp_path / "run", *COLOCATED)
    assert {path.name for path in run.path.iterdir()} == FILES | {"vllm.log"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert "vllm" in (run.path / "vllm.log").read_text().lower()
    check_metrics(run)
    check_rollouts(run)
    assert [row["version"] for row in run.rollouts()] == [row["step"] for row in run.rollouts()]
    assert {row["age"] for row in run.metrics()} == {0}
    begins_alike(run, peer)
    (environment,) = json.loads((run.path / "environment.json").read_text())
    assert any(name.startswith("vllm") for name in environment["packages"]), environment["packages"]


def test_training_with_vllm_reaches_what_training_with_transformers_does(tmp_path: Path) -> None:
    runs = {}
    for sampler in ("vllm", "transformers"):
        done = train(
            *("--task", "math", "--device", "cpu", "--steps", "12", "--sampler.prompts-per-step", "32"),
            *("--sampler", sampler, "--out", str(tmp_path / sampler)),
        )
        assert done.returncode == 0, done.stderr
        runs[sampler] = rlvr.Run(tmp_path / sampler)
    ours, theirs = runs["vllm"], runs["transformers"]
    assert ours.before is not None
    assert ours.accuracy is not None
    assert ours.accuracy > ours.before.accuracy + 0.2
    begins_alike(ours, theirs)
    assert theirs.after is not None
    assert ours.after is not None
    assert ours.after.low <= theirs.after.high
    assert theirs.after.low <= ours.after.high
    assert max(row["mismatch"] for row in ours.metrics()) < 1e-3


def test_ctrl_c_ends_the_engine_too_and_the_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*small(*COLOCATED, "--steps", "500", "--out", str(out))),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_steps(out, 2, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"rlvr train --resume {out}" in errors
    steps = len(rlvr.Run(out).metrics())
    check_metrics(resume(out, steps=steps + 1), steps + 1)


def test_one_step_ahead(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *COLOCATED, "--staleness", "1", "--steps", "4")
    check_rollouts(run, 4)
    ages = {row["step"] - row["version"] for row in run.rollouts()}
    assert ages == {0, 1}  # the first step has nothing to run ahead of
    assert [row["step"] for row in run.metrics()] == [0, 1, 2, 3]
    for row in run.metrics():
        assert 0 <= row["age"] <= 1
        assert row["probe"] < 1e-3
        assert "corrected" in row
    first, *later = run.metrics()
    assert first["mismatch"] < 1e-3
    assert all(row["age"] == 1 and row["off_policy"] > first["mismatch"] for row in later)


# Weights that did not arrive


POISONED = """
import sys

from rlvr.cli import main
from rlvr.learner.learner import Learner
from rlvr.sampler.engine import EngineSampler

AFTER = int(sys.argv.pop(1))
version = 0
sync, weights = EngineSampler.sync, Learner.weights


def note(self, number):
    global version
    version = number
    return sync(self, number)


def wrong(self):
    for name, tensor in weights(self):
        hit = version >= AFTER and name.endswith("layers.0.self_attn.q_proj.weight")
        yield name, tensor * 1.5 if hit else tensor


if __name__ == "__main__":
    EngineSampler.sync, Learner.weights = note, wrong
    sys.exit(main(sys.argv[1:]))
"""
"""`rlvr`, except that from a version of the weights on one tensor is another when it reaches the engine."""


@pytest.mark.parametrize("after", [0, 2])
def test_weights_that_did_not_arrive_stop_the_run_within_the_step(tmp_path: Path, after: int) -> None:
    script, out = tmp_path / "poisoned.py", tmp_path / "run"
    script.write_text(POISONED)
    done = subprocess.run(
        [sys.executable, str(script), str(after), "train", *small(*COLOCATED, "--out", str(out))],
        capture_output=True,
        text=True,
        timeout=400,
    )
    error, hint = refused(done, 1, out)
    assert re.search(r"the log-probabilities of .* are [\d.]+ nats off the learner's", error), error
    assert "its weights are not the learner's" in error
    assert hint
    run = rlvr.Run(out)
    assert [row["step"] for row in run.metrics()] == list(range(after))
    assert [folder.name for folder in run.checkpoints()] == ([f"step-{after:06d}"] if after else [])
    assert (run.before is not None) == (after > 0)
    resume(out)


# Bad input: two lines that name the fix


class Stranger(BaseHTTPRequestHandler):
    """A web server that is no vLLM."""

    def do_GET(self) -> None:
        body = b"<h1>It works!</h1>"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def stranger() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_url_that_is_not_a_vllm_server(tmp_path: Path, stranger: str) -> None:
    out = tmp_path / "run"
    done = train(*small("--sampler.url", stranger, "--out", str(out)))
    error, hint = refused(done, 2, out)
    assert f"`{stranger}` is not a vLLM server" in error
    assert "vllm serve" in hint


def test_a_url_where_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    out = tmp_path / "run"
    error, hint = refused(train(*small("--sampler.url", url, "--sampler.patience", "2", "--out", str(out))), 1, out)
    assert url in error
    assert "vllm serve" in hint


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--sampler", "vllm-server"), 2, "sampler.url"),
        (("--sampler", "vllm", "--sampler.url", "http://127.0.0.1:8000"), 2, "sampler.url"),
        (("--sampler.url", "127.0.0.1:8000"), 2, "127.0.0.1:8000"),
        (("--sampler", "transformers", "--staleness", "1"), 2, "--staleness"),
        (("--sampler", "vlm"), 2, "vlm"),
        ((*COLOCATED, "--sampler.options", "nonsense"), 2, "nonsense"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    error, hint = refused(train(*small(*arguments, "--out", str(tmp_path / "run"))), code)
    assert says in error + hint
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "says", "fix"),
    [
        (("--sampler.context", "28"), 2, "context of vllm, 28 tokens", "--sampler.context"),
        (("--sampler.options", f"kv_cache_memory_bytes={2**50}"), 2, "memory", "--sampler.context"),
        (("--sampler.options", "no_such_argument=1"), 2, "no_such_argument", "vllm serve --help"),
    ],
)
def test_an_engine_that_cannot_start_says_why_and_the_run_goes_on(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str, fix: str
) -> None:
    out = tmp_path / "run"
    error, hint = refused(train(*small(*COLOCATED, *arguments, "--out", str(out))), code, out)
    assert says in error.lower()
    assert fix in hint
    if "context" in says:
        resume(out, "--sampler.context", "64")


def test_a_prompt_longer_than_the_context_of_the_model_names_the_sample(tmp_path: Path) -> None:
    done = train(*small(*COLOCATED, "--sampler.max-tokens", "5000", "--out", str(tmp_path / "run")))
    error, hint = refused(done, 3)
    assert "the prompt of sample" in error
    assert "--sampler.max-tokens" in hint
    assert not any(tmp_path.iterdir())


# Servers


@pytest.fixture(scope="module")
def pair(starter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
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


BIG = ("--sampler.prompts-per-step", "64", "--sampler.max-tokens", "32")  # steps in which something can happen


class Running:
    """A run in the background, and what it has said so far."""

    def __init__(self, out: Path, *arguments: str) -> None:
        self.out = out
        self.said = out.with_suffix(".stderr")
        with self.said.open("w") as stderr:
            self.process = subprocess.Popen(
                command(*small(*BIG, *arguments, "--out", str(out))), stdout=subprocess.DEVNULL, stderr=stderr
            )

    def wait_until(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said.read_text()
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.02)

    def says(self, text: str) -> bool:
        return text in self.said.read_text()

    def steps(self) -> int:
        metrics = self.out / "metrics.jsonl"
        return metrics.read_text().count("\n") if metrics.exists() else 0

    def end(self, seconds: float = 400) -> int:
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def mid_step(run: Running, served: Served) -> None:
    """Waits until a step after the first is being sampled at a server."""
    run.wait_until(lambda: run.steps() >= 1)
    run.wait_until(lambda: served.metric("vllm:num_requests_running") > 0)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts runs that end with the test."""
    made: list[Running] = []

    def begin(*arguments: str) -> Running:
        made.append(Running(tmp_path / f"run{len(made)}", *arguments))
        return made[-1]

    yield begin
    for run in made:
        run.kill()


def check_served(run: rlvr.Run) -> None:
    """Every completion of every step is there once, and was sampled with the weights of its step."""
    rows = run.rollouts()
    places = Counter((row["step"], row["group"]) for row in rows)
    assert places == {(step, group): GROUP for step in range(STEPS) for group in range(64)}
    assert all(row["version"] == row["step"] for row in rows)
    assert all(row["completions"] == 64 * GROUP for row in run.metrics())
    assert all(row["mismatch"] < 1e-3 and row["probe"] < 1e-3 for row in run.metrics())
    assert run.accuracy is not None


def test_a_run_with_a_server(tmp_path: Path, pair: list[Served], peer: rlvr.Run) -> None:
    run = trained(tmp_path / "run", "--sampler.url", pair[0].url)
    assert {path.name for path in run.path.iterdir()} == FILES
    check_metrics(run)
    check_rollouts(run)
    begins_alike(run, peer)


def test_a_run_with_two_servers_over_the_connection_one_step_ahead(tmp_path: Path, pair: list[Served]) -> None:
    before = [served.metric("vllm:generation_tokens_total") for served in pair]
    urls = [word for served in pair for word in ("--sampler.url", served.url)]
    run = trained(tmp_path / "run", *urls, "--sampler.sync", "http", "--staleness", "1")
    check_rollouts(run)
    assert {row["step"] - row["version"] for row in run.rollouts()} <= {0, 1}
    assert max(row["probe"] for row in run.metrics()) < 1e-3
    after = [served.metric("vllm:generation_tokens_total") for served in pair]
    assert all(now > then for now, then in zip(after, before, strict=True))


def test_a_served_model_that_is_not_the_learners(tmp_path: Path, pair: list[Served], starter: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(starter, num_hidden_layers=2, layer_types=["full_attention"] * 2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(starter).save_pretrained(tmp_path / "other")
    out = tmp_path / "run"
    done = train(*small("--model", str(tmp_path / "other"), "--sampler.url", pair[0].url, "--out", str(out)))
    error, hint = refused(done, 2, out)
    assert f"{pair[0].url} does not fit" in error
    assert "num_hidden_layers" in error
    assert "--model" in hint


def test_a_context_of_the_server_that_is_too_short(tmp_path: Path, pair: list[Served]) -> None:
    out = tmp_path / "run"
    done = train(*small("--sampler.url", pair[0].url, "--sampler.max-tokens", "127", "--out", str(out)))
    error, hint = refused(done, 2, out)
    assert "128" in error
    assert "--max-model-len" in hint
    resume(out, "--sampler.max-tokens", "24")


def test_a_server_that_is_killed_mid_step_is_replaced_by_the_other(
    pair: list[Served], start: Callable[..., Running]
) -> None:
    run = start("--sampler.url", pair[0].url, "--sampler.url", pair[1].url)
    try:
        mid_step(run, pair[1])
        pair[1].kill()
        step = run.steps()
        assert run.end() == 0, run.said.read_text()
    finally:
        pair[1].kill()
    assert step < STEPS
    assert f"{pair[1].url} is lost" in run.said.read_text()
    assert "1 left" in run.said.read_text()
    check_served(rlvr.Run(run.out))


def test_a_run_waits_for_its_only_server_and_goes_on(pair: list[Served], start: Callable[..., Running]) -> None:
    served = pair[0]
    run = start("--sampler.url", served.url)
    mid_step(run, served)
    served.kill()
    run.wait_until(lambda: run.says("none is left"))
    served.start()
    assert run.end() == 0, run.said.read_text()
    assert run.says("is back, with the weights of now")
    check_served(rlvr.Run(run.out))


def test_a_server_that_does_not_come_back_leaves_a_run_that_can_be_resumed(
    pair: list[Served], start: Callable[..., Running]
) -> None:
    served = pair[0]
    run = start("--sampler.url", served.url, "--sampler.patience", "3")
    mid_step(run, served)
    served.kill()
    try:
        code = run.end(60)
    finally:
        served.start()
    done = subprocess.CompletedProcess([], code, "", run.said.read_text())
    error, hint = refused(done, 1, run.out)
    assert served.url in error
    assert "--resume" in hint
    (checkpoint,) = rlvr.Run(run.out).checkpoints()
    steps = int(checkpoint.name.removeprefix("step-"))
    assert steps == len(rlvr.Run(run.out).metrics())
    resumed = train("--resume", str(run.out), "--sampler.patience", "600")
    assert resumed.returncode == 0, resumed.stderr
    check_served(rlvr.Run(run.out))
