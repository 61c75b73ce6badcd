"""How fast code runs in the sandbox, beside the ways that others run it: `make bench-sandbox`.

    python benchmarks/sandbox.py [--rounds N] [--seconds N] [--json FILE] [--out FILE.md]

Each way judges the same solutions with the same tests: three asserts; and three asserts of a solution that imports 15
modules of the standard library. No two solutions are the same, and eight in a row share their tests, as a group of
completions does. Every caller is a process of its own. The ways take turns of some seconds in interleaved rounds, and a
ratio is the median of the ratios within each round, so that a machine that is busy at times favours nobody.

rlvr's `code` verifier is measured whole, through the scorer with as many workers as there are callers: taking the
program out of the completion, compiling the tests, comparing on the host, sending and receiving. The others only run
the text.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from rlvr_sandboxes.engine import client, described
from sandbox_ways import (
    BWRAP,
    CALLS,
    EXEC,
    EXEC_CLI,
    IMPORTS,
    JUDGED,
    LABEL,
    PLAIN,
    RUN,
    SHAPES,
    SUBPROCESS,
    WAYS,
    Way,
    check,
    problem,
)

from rlvr import Completion, Sample, Scorer

CALLERS = (1, 2)
BATCH = 64
PAUSE = 0.3
"""Seconds between two turns: an engine still tidies up after its last command."""
OURS = "rlvr `code`, compared on the host"
NEEDED = (
    (RUN, PLAIN, 60),
    (EXEC, PLAIN, 12),
    (SUBPROCESS, PLAIN, 3),
    (SUBPROCESS, IMPORTS, 7),
)
"""By what the verifier has to be faster, as the project promises."""


@dataclass
class Turn:
    """What one caller did in one turn: seconds of each execution, of wall clock, and of processor time, on the host's
    side (this process and its children) and in the container."""

    times: list[float]
    wall: float
    host_cpu: float
    inside_cpu: float


def caller(link: Connection) -> None:
    """A caller's process: opens ways when they are first asked for, and takes turns until it hears nothing more."""
    opened: dict[str, Way] = {}
    number = os.getpid() * 1000
    with ExitStack() as stack, contextlib.suppress(EOFError):
        while True:
            name, shape, seconds = link.recv()
            if name not in opened:
                opened[name] = stack.enter_context(WAYS[name]())
            way = opened[name]
            way.once(problem(shape, number))
            link.send("ready")
            link.recv()
            times: list[float] = []
            cpu, inside = own_cpu(), way.cpu()
            start = now = time.perf_counter()
            while now < start + seconds or len(times) < 3:
                number += 1
                way.once(problem(shape, number))
                times.append(time.perf_counter() - now)
                now += times[-1]
            link.send(Turn(times, now - start, own_cpu() - cpu, way.cpu() - inside))


def own_cpu() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class Verifier:
    """The `code` verifier behind a scorer, with two batches under way at any time."""

    def __init__(self, workers: int) -> None:
        self.scorer = Scorer(workers=workers, sandbox="docker")
        self.number = 0
        self.batch(PLAIN).result()

    def batch(self, shape: str) -> Any:
        pairs = []
        for _ in range(BATCH):
            self.number += 1
            one = problem(shape, self.number)
            completion = Completion(f"Here it is:\n```python\n{one.solution}```\n")
            pairs.append((completion, Sample(f"p{self.number}", "", meta={"tests": one.tests})))
        return self.scorer.submit_batch("code", pairs)

    def turn(self, shape: str, seconds: float) -> Turn:
        times: list[float] = []
        start = time.perf_counter()
        waiting = [self.batch(shape), self.batch(shape)]
        while waiting:
            verdicts = waiting.pop(0).result()
            check(all(verdict.passed for verdict in verdicts))
            times += [verdict.duration for verdict in verdicts]
            if time.perf_counter() < start + seconds:
                waiting.append(self.batch(shape))
        return Turn(times, time.perf_counter() - start, 0.0, 0.0)


class Bench:
    """All callers and scorers of a run.

    Args:
        names: The ways to measure, besides the verifier.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = [OURS, *names]
        processes = get_context("spawn")
        self.links, self.processes = [], []
        for _ in range(max(CALLERS)):
            link, theirs = processes.Pipe()
            process = processes.Process(target=caller, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.links.append(link)
            self.processes.append(process)
        self.verifiers = {n: Verifier(n) for n in CALLERS}
        self.turns: dict[tuple[str, str, int], list[list[Turn]]] = defaultdict(list)

    def close(self) -> None:
        for verifier in self.verifiers.values():
            verifier.scorer.close()
        for link, process in zip(self.links, self.processes, strict=True):
            link.close()
            process.join(60)

    def round(self, seconds: float) -> None:
        """One turn of every way, for each shape of problem and number of callers."""
        for shape in SHAPES:
            for callers in CALLERS:
                for name in self.names:
                    time.sleep(PAUSE)
                    if name == OURS:
                        found = [self.verifiers[callers].turn(shape, seconds)]
                    else:
                        found = self.together(name, shape, callers, seconds)
                    self.turns[name, shape, callers].append(found)

    def together(self, name: str, shape: str, callers: int, seconds: float) -> list[Turn]:
        links = self.links[:callers]
        for message in ((name, shape, seconds), "go"):
            for link in links:
                link.send(message)
            answers = [link.recv() for link in links]
        return answers

    def rates(self, name: str, shape: str, callers: int) -> list[float]:
        """Executions per second, of all callers, by round."""
        return [sum(len(t.times) / t.wall for t in turns) for turns in self.turns[name, shape, callers]]

    def rate(self, name: str, shape: str, callers: int) -> float:
        return statistics.median(self.rates(name, shape, callers))

    def ratio(self, name: str, shape: str, callers: int) -> float:
        """By how much the verifier is faster."""
        both = zip(self.rates(OURS, shape, callers), self.rates(name, shape, callers), strict=True)
        return statistics.median(ours / theirs for ours, theirs in both)

    def percentiles(self, name: str, shape: str, callers: int) -> tuple[float, float]:
        """Milliseconds per execution within which 50% and 99% of all executions end."""
        times = sorted(t for turns in self.turns[name, shape, callers] for turn in turns for t in turn.times)
        return 1e3 * times[len(times) // 2], 1e3 * times[min(len(times) - 1, int(0.99 * len(times)))]

    def cpu(self, name: str, shape: str, callers: int) -> tuple[float, float]:
        """Milliseconds of processor time per execution: on the host's side, and in the container."""
        turns = [turn for turns in self.turns[name, shape, callers] for turn in turns]
        count = sum(len(turn.times) for turn in turns)
        return 1e3 * sum(t.host_cpu for t in turns) / count, 1e3 * sum(t.inside_cpu for t in turns) / count


# -------------------------------------------------------------------------------------------------------- reporting


def report(bench: Bench, title: str) -> Iterator[str]:
    """The lines of the result."""
    yield "# The sandbox beside other ways to run code"
    yield ""
    yield "Made by `make bench-sandbox` (`benchmarks/sandbox.py`, which says how). Executions per second, medians over"
    yield "interleaved rounds; p50 and p99 are milliseconds of one execution."
    yield ""
    yield title
    yield ""
    head = [f"{shape}, {n} caller{'s' * (n > 1)} /s" for shape in SHAPES for n in CALLERS]
    yield f"| way | {' | '.join(head)} | p50 / p99, 1 caller | p50 / p99, 2 callers | ours is faster by (2 callers) |"
    yield "|---|" + "---|" * (len(head) + 3)
    for name in bench.names:
        cells = [f"**{name}**" if name == OURS else name]
        cells += [f"{bench.rate(name, shape, n):,.1f}" for shape in SHAPES for n in CALLERS]
        cells += ["{:.1f} / {:.1f}".format(*bench.percentiles(name, PLAIN, n)) for n in CALLERS]
        gains = " and ".join(f"{bench.ratio(name, shape, 2):.1f}x" for shape in SHAPES)
        yield f"| {' | '.join([*cells, '' if name == OURS else gains])} |"
    yield ""
    yield "| promised | tests | at least | 1 caller | 2 callers | |"
    yield "|---|---|---|---|---|---|"
    for name, shape, least in NEEDED:
        if name in bench.names:
            got = [bench.ratio(name, shape, n) for n in CALLERS]
            verdict = "held" if got[-1] >= least else "**missed**"
            yield f"| faster than {name} | {shape} | {least}x | {got[0]:.1f}x | {got[1]:.1f}x | {verdict} |"
    tails = []
    for n in CALLERS:
        p50, p99 = bench.percentiles(OURS, PLAIN, n)
        tails.append(p99 / p50)
    verdict = "held" if max(tails) <= 3 else "**missed**"
    yield f"| p99 by p50 | {PLAIN} | at most 3x | {tails[0]:.1f}x | {tails[1]:.1f}x | {verdict} |"
    yield ""
    yield "## Scaling with cores"
    yield ""
    yield from scaling(bench)


def scaling(bench: Bench) -> Iterator[str]:
    yield "A worker and its container take turns: one sends a program and waits, the other runs it. So a pair"
    yield "keeps about one core busy. No lock or queue is shared between pairs, and the engine takes no part once"
    yield "its containers are up: executions per second grow with cores until workers are as many as cores. Costs:"
    yield ""
    yield "| way | tests | host ms | container ms | most per core and second | 2 callers / 1 caller |"
    yield "|---|---|---|---|---|---|"
    for name in (CALLS, JUDGED, EXEC, SUBPROCESS):
        for shape in SHAPES if name in bench.names else ():
            host, inside = bench.cpu(name, shape, 1)
            growth = bench.rate(name, shape, 2) / bench.rate(name, shape, 1)
            most = "not known" if name == EXEC or not host else f"{1e3 / (host + inside):,.0f}"
            yield f"| {name} | {shape} | {host:.2f} | {inside:.2f} | {most} | {growth:.2f}x |"
    yield ""
    growth = bench.rate(OURS, PLAIN, 2) / bench.rate(OURS, PLAIN, 1)
    yield f"Through the scorer two workers do {growth:.2f} times what one does. With {cores()} cores, its thread"
    yield "and the caller share the cores with the workers; with more cores than workers they do not. Most of the"
    yield "processor time in the container is the kernel's: a fork copies page tables, and each page that the child"
    yield "touches is a fault."


def cores() -> int:
    return len(os.sched_getaffinity(0))


def title(rounds: int, seconds: float, loads: list[float]) -> str:
    with contextlib.closing(client()) as engine:
        version = described(engine)
    models = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    model = models[0].strip() if models else platform.machine()
    return (
        f"{date.today()}, {cores()} cores of {model}, Python {platform.python_version()}, {version}; "
        f"{rounds} rounds of {seconds:g} s; load average before {loads[0]:.1f}, after {loads[-1]:.1f}, itself included"
    )


def remove_leftovers() -> None:
    """Removes containers of this benchmark that an interrupted turn has left."""
    with contextlib.closing(client()) as engine:
        for container in engine.containers.list(all=True, filters={"label": LABEL}):
            with contextlib.suppress(Exception):  # it may be ending by itself
                container.remove(force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--only", default="", help="measure ways whose names hold this text, and the verifier")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--out", type=Path, help="write the tables here")
    arguments = parser.parse_args()
    names = [name for name in WAYS if arguments.only in name]
    if shutil.which("docker") is None:
        names = [name for name in names if name not in (RUN, EXEC_CLI)]
    if shutil.which("bwrap") is None:
        names = [name for name in names if name != BWRAP]
    loads = [os.getloadavg()[0]]
    bench = Bench(names)
    try:
        for number in range(arguments.rounds):
            bench.round(arguments.seconds)
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    finally:
        bench.close()
        remove_leftovers()
    loads.append(os.getloadavg()[0])
    lines = "\n".join(report(bench, title(arguments.rounds, arguments.seconds, loads))) + "\n"
    print(lines)
    if arguments.out:
        arguments.out.write_text(lines, encoding="utf-8")
    if arguments.json:
        figures = [
            {
                "way": name,
                "tests": shape,
                "callers": n,
                "rates": bench.rates(name, shape, n),
                "p50_p99_ms": bench.percentiles(name, shape, n),
                "cpu_ms": bench.cpu(name, shape, n),
            }
            for name, shape, n in bench.turns
        ]
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
