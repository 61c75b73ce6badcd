"""Thousands of executions in a row, 5% of them hostile, and what they leave behind.

    python benchmarks/sandbox_soak.py [--count N] [--workers N] [--hostile SHARE]

The hostile programs are those of `tests/corpora/sandbox/attacks.jsonl` that need no long clock; the honest ones are
the plain ones of `honest.jsonl`, among simple programs that are all different. After a fifth of the executions and at
the end it counts containers, processes, open files and resident memory, of this process, its workers, their containers
and the engine. Exits with 1 when something has grown, an honest program did not pass, or a hostile one did.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rlvr_sandboxes.docker import LABEL, OWNER
from rlvr_sandboxes.engine import client

from rlvr import Completion, Sample, Scorer, Verdict

CORPORA = Path(__file__).resolve().parent.parent / "tests" / "corpora" / "sandbox"
ENGINES = ("dockerd", "containerd", "podman")
SHORT = 4.0
"""Seconds: attacks whose own clock is longer are left out."""
HOSTILE_CLOCK = 1.0
SLOW = "honest-runtime"
WINDOW = 64
"""Verifications under way at any time."""
MIB = 1 << 20

OTHERS = "containers of others"
# What may be more at the end than after the warm-up. Memory breathes where there is a garbage collector.
ALLOWED = {
    "containers": 0,
    "processes": 0,
    "open files": 4,
    "memory, MiB": 32,
    "engine processes": 0,
    "engine open files": 8,
    "engine memory, MiB": 64,
    "container memory, MiB": 16,
    OTHERS: 0,
}
ENGINE = ("engine processes", "engine open files", "engine memory, MiB")


@dataclass(frozen=True)
class Job:
    """A program with its tests, and what must become of it."""

    name: str
    completion: Completion
    sample: Sample
    honest: bool
    may_pass: bool


@dataclass
class Soak:
    """What a run found.

    Attributes:
        statuses: How many honest and hostile programs got which status.
        wrong: Honest programs that did not pass, and hostile ones that did.
        missing: Hostile programs without a verdict, which is allowed, and worth a look.
        early, late: The census after the warm-up and at the end.
        left: Containers that were still there after the scorer was closed.
        seconds: How long it took.
    """

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    early: dict[str, float] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    left: int = 0
    seconds: float = 0.0

    @property
    def grown(self) -> list[str]:
        """What is more at the end than it may be. The engine is not judged when others used it meanwhile."""
        judged = [name for name in ALLOWED if name not in (*ENGINE, OTHERS) or not self.shared]
        return [name for name in judged if self.late[name] > self.early[name] + ALLOWED[name]]

    @property
    def shared(self) -> bool:
        return bool(self.early[OTHERS] or self.late[OTHERS])

    def held(self) -> bool:
        return not (self.wrong or self.grown or self.left)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPORA / name).read_text(encoding="utf-8").splitlines()]


def job(row: dict[str, Any]) -> Job:
    sample = Sample(row["id"], "", meta={"tests": row["tests"]})
    may_pass = row["expected"] == "any" or "pass" in row["expected"].split("|")
    return Job(row["id"], Completion(row["solution"]), sample, row["honest"], may_pass)


def simple(number: int) -> Job:
    """A right program unlike all others; one in eight needs the judge, one is run on inputs."""
    function = f"def grow(x):\n    return x + {number}\n"
    tests: Any = f"assert grow(1) == {number + 1}\nassert grow({number}) == {2 * number}\n"
    if number % 8 == 0:
        tests = (
            f"seen = []\nfor value in range(3):\n    seen.append(grow(value))\nassert sum(seen) == {3 * number + 3}\n"
        )
    elif number % 8 == 1:
        function = f"print(int(input()) + {number})\n"
        tests = [{"stdin": "1\n", "stdout": f"{number + 1}\n"}]
    sample = Sample(f"simple-{number}", "", meta={"tests": tests})
    return Job(sample.id, Completion(f"```python\n{function}```"), sample, True, True)


def jobs(count: int, hostile: float, seed: int = 0) -> Iterator[Job]:
    """The programs, always the same: at random, hostile ones and, in one of ten places, ones of the honest corpus."""
    chance = random.Random(seed)
    attacks = [job(row) for row in rows("attacks.jsonl") if row["timeout_s"] <= SHORT]
    honest = [job(row) for row in rows("honest.jsonl") if not row["hard"] and row["category"] != SLOW]
    chance.shuffle(attacks)
    chance.shuffle(honest)
    for number in range(count):
        drawn = chance.random()
        if drawn < hostile:
            attacks.append(attacks.pop(0))
            yield attacks[-1]
        elif drawn < hostile + 0.1:
            honest.append(honest.pop(0))
            yield honest[-1]
        else:
            yield simple(number)


def own_containers(engine: Any) -> list[str]:
    """The containers of this process's workers."""
    below = {str(child.pid) for child in psutil.Process().children(recursive=True)}
    return [row["Id"] for row in engine.api.containers(all=True, filters={"label": LABEL}) if owner(row) in below]


def owner(row: dict[str, Any]) -> str:
    """The number of the process that a container belongs to."""
    return row["Labels"].get(OWNER, "").partition(":")[2].partition(":")[0]


def engine_processes() -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["name"]) if process.info["name"] in ENGINES]


def census(engine: Any, engines: list[psutil.Process]) -> dict[str, float]:
    """What there is now, once what is on its way has arrived."""
    gc.collect()
    time.sleep(2.0)
    names = own_containers(engine)
    inside = [psutil.Process(engine.api.inspect_container(name)["State"]["Pid"]) for name in names]
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        "containers": len(names),
        "processes": len(ours) + sum(1 + len(first.children(recursive=True)) for first in inside),
        "open files": sum(files(one) for one in ours),
        "memory, MiB": sum(one.memory_info().rss for one in ours) / MIB,
        "engine processes": len([one for one in engines if one.is_running()]),
        "engine open files": sum(files(one) for one in engines),
        "engine memory, MiB": sum(one.memory_info().rss for one in engines) / MIB,
        "container memory, MiB": sum(one.memory_info().rss for one in inside) / MIB,
        OTHERS: len(engine.api.containers(all=True)) - len(names),
    }


def files(process: psutil.Process) -> int:
    """Open files of a process; 0 where another user's cannot be looked at."""
    with contextlib.suppress(psutil.AccessDenied):
        return int(process.num_fds())
    return 0


def soak(count: int, workers: int, hostile: float) -> Soak:
    """Runs the programs and counts."""
    found = Soak()
    start = time.monotonic()
    engines = engine_processes()
    with contextlib.closing(client()) as engine:
        with Scorer(workers=workers, sandbox="docker") as scorer:
            waiting: deque[tuple[Job, Future[Verdict]]] = deque()

            def settle(down_to: int) -> None:
                while len(waiting) > down_to:
                    one, future = waiting.popleft()
                    note(found, one, future.result())

            for number, one in enumerate(jobs(count, hostile)):
                if number == count // 5:
                    settle(0)
                    found.early = census(engine, engines)
                options = {} if one.honest else {"timeout": HOSTILE_CLOCK, "total_timeout": 2 * HOSTILE_CLOCK}
                waiting.append((one, scorer.submit("code", one.completion, one.sample, options)))
                settle(WINDOW)
            settle(0)
            found.late = census(engine, engines)
            before = own_containers(engine)
        end = time.monotonic() + 15
        found.left = still_there(engine, before)
        while found.left and time.monotonic() < end:
            time.sleep(0.2)
            found.left = still_there(engine, before)
    found.seconds = time.monotonic() - start
    return found


def still_there(engine: Any, names: list[str]) -> int:
    return len({row["Id"] for row in engine.api.containers(all=True)} & set(names))


def note(found: Soak, one: Job, verdict: Verdict) -> None:
    found.statuses["honest" if one.honest else "hostile", str(verdict.status)] += 1
    if one.honest and not verdict.passed:
        found.wrong.append(f"{one.name} is honest and got `{verdict.status}`: {verdict.detail[:200]}")
    if not one.honest and not verdict.valid:
        found.missing.append(f"{one.name} is hostile and got `{verdict.status}`: {verdict.detail[:200]}")
    if not one.may_pass and verdict.passed:
        found.wrong.append(f"{one.name} is hostile and passed")


def report(found: Soak) -> Iterator[str]:
    """The lines of the result."""
    total = sum(found.statuses.values())
    yield f"{total:,} executions in {found.seconds:.0f} s, {total / found.seconds:.0f} per second"
    for (kind, status), count in sorted(found.statuses.items()):
        yield f"  {kind:8} {status:10} {count:6,}"
    yield f"{'':24}{'after a fifth':>14}{'at the end':>12}{'may grow by':>13}"
    for name, more in ALLOWED.items():
        grown = "  GROWN" if name in found.grown else ""
        yield f"{name:24}{found.early[name]:14.0f}{found.late[name]:12.0f}{more:13}{grown}"
    if found.shared:
        yield "others use the engine, so that it is not judged"
    if found.left:
        yield f"{found.left} containers are left after the end"
    yield from found.missing[:10]
    yield from found.wrong[:20]
    yield "held" if found.held() else "NOT HELD"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--hostile", type=float, default=0.05, help="share of hostile programs")
    arguments = parser.parse_args()
    found = soak(arguments.count, arguments.workers, arguments.hostile)
    print("\n".join(report(found)))
    return 0 if found.held() else 1


if __name__ == "__main__":
    sys.exit(main())
