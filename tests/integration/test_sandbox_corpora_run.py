"""Every program of `tests/corpora/sandbox` in containers: no attack passes, every honest program does, nothing grows.

The attacks only ever run in a sandbox that isolates.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from rlvr_sandboxes.docker import LABEL, OWNER
from rlvr_sandboxes.engine import client

from rlvr import Completion, Sample, Scorer, Verdict

CORPORA = Path(__file__).parents[1] / "corpora" / "sandbox"
DEVELOPMENT = Path(__file__).parents[3] / "shared" / "data" / "sandbox_attacks_dev.jsonl"
"""Rows of the same form that may lie beside the repository."""

HARDEST = {"doctest-in-tests", "tests-monkeypatch-solution", "tests-identity-and-is"}
"""Honest programs that a judge in another process does not pass: its tests look at what only one process has."""

WORKERS = 2
CAP = 2.0
"""Seconds that an attack gets at most; more only makes the run longer."""

GRACE = 4.0
"""Seconds beyond a program's own clock within which its verdict has to be there."""

EVERY = 8
"""Attacks between two canaries on a worker that may have met them."""

CONTAINER_MB = 120
"""MiB that a fork server in rest may hold."""

CANARY = """
import heapq, json, os, random, string, sys, threading

def probe():
    bad = []
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", ".", "/"):
        try:
            names = os.listdir(os.fsencode(folder))
        except OSError:
            continue
        bad += [repr(name) for name in names if b"sbxatk" in name or name.endswith(b".py")]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) not in (1, os.getpid()) and os.stat("/proc/" + pid).st_uid != 0:
            bad.append("process " + pid)
    bad += [module.__name__ for module in (heapq, json, random, string) if hasattr(module, "SBXATK")]
    if heapq.nsmallest(2, [3, 1, 2]) != [1, 2] or sorted([2, 1]) != [1, 2] or json.loads("[1]") != [1]:
        bad.append("functions")
    if "SBXATK" in os.environ or sys.getrecursionlimit() < 900:
        bad.append("settings")
    return bad

def works(n):
    with open("canary.txt", "w") as f:
        f.write("x" * 1000)
    got = []
    thread = threading.Thread(target=got.append, args=(2 * n,))
    thread.start()
    thread.join()
    pid = os.fork()
    if pid == 0:
        os._exit(5)
    return got[0] + os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
CANARY_ROW = {
    "id": "canary",
    "honest": True,
    "solution": CANARY,
    "tests": "assert works(20) == 45\nassert probe() == []\n",
    "kind": "asserts",
    "timeout_s": 10.0,
    "must_not": "fail",
}


@dataclass
class Ran:
    """A row and its verdict."""

    row: dict[str, Any]
    clock: float
    verdict: Verdict

    def __str__(self) -> str:
        verdict = self.verdict
        return f"{self.row['id']}: {verdict.status} after {verdict.duration:.1f} s: {verdict.detail[:200]}"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def with_canaries(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, with an honest program after every few attacks, one for each worker."""
    for number, row in enumerate(rows, 1):
        yield row
        if number % EVERY == 0 and not row["honest"]:
            yield from [CANARY_ROW] * WORKERS


def clocks(row: dict[str, Any]) -> tuple[float, float]:
    """Seconds for one execution of the row, and for all of them."""
    each = row["timeout_s"] if row["honest"] else min(row["timeout_s"], CAP)
    return each, each * (len(row["tests"]) if row["kind"] == "stdio" else 1)


def run(scorer: Scorer, rows: list[dict[str, Any]]) -> list[Ran]:
    """The verdicts of all rows."""
    waiting: list[tuple[dict[str, Any], float, Future[Verdict]]] = []
    for row in with_canaries(rows):
        each, whole = clocks(row)
        sample = Sample(row["id"], meta={"tests": row["tests"]})
        future = scorer.submit("code", Completion(row["solution"]), sample, {"timeout": each})
        waiting.append((row, whole, future))
    return [Ran(row, whole, future.result(timeout=300)) for row, whole, future in waiting]


@cache
def verified() -> tuple[list[Ran], list[dict[str, Any]], list[str]]:
    """The verdicts of all rows, what the containers are like at the end, and which outlive the scorer.

    The attacks come first, so that the honest programs run in containers that have met them all.
    """
    rows = read(CORPORA / "attacks.jsonl") + read(CORPORA / "honest.jsonl")
    if DEVELOPMENT.exists():
        rows = read(DEVELOPMENT) + rows
    rows.sort(key=lambda row: row["honest"])
    with closing(client()) as engine:
        with Scorer(workers=WORKERS, sandbox="docker") as scorer:
            ran = run(scorer, rows)
            names = own_containers(engine)
            at_rest = [settled(engine, name) for name in names]
        return ran, at_rest, still_there(engine, names)


def own_containers(engine: Any) -> list[str]:
    """The containers of this process's workers."""
    below = {str(child.pid) for child in psutil.Process().children(recursive=True)}
    found = engine.api.containers(all=True, filters={"label": LABEL})
    return [row["Id"] for row in found if row["Labels"].get(OWNER, "").partition(":")[2].partition(":")[0] in below]


def settled(engine: Any, name: str) -> dict[str, Any]:
    """What a container holds once the processes of the last execution, which was just answered, have been reaped."""
    deadline = time.monotonic() + 5
    while (found := state(engine, name))["processes"] > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def state(engine: Any, name: str) -> dict[str, Any]:
    """What a container holds: its processes, and the memory of the first one in MiB."""
    first = psutil.Process(engine.api.inspect_container(name)["State"]["Pid"])
    return {
        "processes": 1 + len(first.children(recursive=True)),
        "memory": first.memory_info().rss / (1 << 20),
        "files": first.num_fds(),
    }


def still_there(engine: Any, names: list[str]) -> list[str]:
    """Those of the containers that do not end within some seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        left = [row["Id"] for row in engine.api.containers(all=True) if row["Id"] in names]
        if not left:
            break
        time.sleep(0.2)
    return left


pytestmark = pytest.mark.usefixtures("needs_docker")


def listed(rans: list[Ran]) -> str:
    return "\n".join(map(str, rans))


def test_no_attack_passes() -> None:
    ran, _, _ = verified()
    attacks = [one for one in ran if not one.row["honest"]]
    assert len(attacks) >= 353
    forged = [one for one in attacks if one.verdict.passed and "pass" in one.row["must_not"].split(",")]
    assert not forged, listed(forged)


def test_every_honest_program_passes() -> None:
    ran, _, _ = verified()
    failed = {one.row["id"]: one for one in ran if one.row["honest"] and not one.verdict.passed}
    others = [one for name, one in failed.items() if name not in HARDEST]
    assert not others, listed(others)
    assert set(failed) == HARDEST, "more of them pass than it says above"


def test_no_attack_disturbs_what_comes_after_it() -> None:
    ran, _, _ = verified()
    canaries = [one for one in ran if one.row["id"] == "canary"]
    assert len(canaries) >= 80
    failed = [one for one in canaries if not one.verdict.passed]
    assert not failed, listed(failed)


def test_every_verdict_comes_in_time() -> None:
    ran, _, _ = verified()
    late = [one for one in ran if one.verdict.duration > one.clock + GRACE]
    assert not late, listed(late)


def test_attacks_are_no_missing_data() -> None:
    """A program that could choose to get no verdict would keep a bad sample out of the step."""
    ran, _, _ = verified()
    missing = [one for one in ran if not one.row["honest"] and not one.verdict.valid]
    others = [one for one in missing if "machine was too busy" not in one.verdict.detail]  # it may be
    assert not others, listed(others)
    assert len(missing) <= 8, listed(missing)


def test_every_verdict_names_its_isolation() -> None:
    ran, _, _ = verified()
    assert {one.verdict.parts["isolation"]["backend"] for one in ran} == {"docker"}


def test_containers_are_as_at_the_beginning() -> None:
    _, at_rest, left = verified()
    assert len(at_rest) == WORKERS
    for one in at_rest:
        assert one["processes"] == 1
        assert one["memory"] < CONTAINER_MB
        assert one["files"] < 16
    assert not left
