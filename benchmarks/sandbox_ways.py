"""The ways to run code that `sandbox.py` measures, and the problems that they judge."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_sandboxes.bubblewrap import Bubblewrap
from rlvr_sandboxes.docker import Docker
from rlvr_sandboxes.engine import client
from rlvr_sandboxes.forkserver import ForkServerSandbox
from rlvr_sandboxes.image import IMAGE

from rlvr import Call

GROUP = 8
LABEL = "rlvr.bench"
MODULES = (
    *("bisect", "collections", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json", "math"),
    *("random", "re", "statistics", "string", "typing"),
)
"""Those that the fork server has imported; so the plain subprocess imports them each time, and rlvr does not."""
SHAPES = {"3 asserts": "", "15 modules": "\n".join(f"import {name}" for name in MODULES) + "\n"}
PLAIN, IMPORTS = SHAPES
CALLS, JUDGED, BWRAP = "`Docker().call`", "`Docker().judge`", "`Bubblewrap().call`"
RUN, SDK, EXEC = "`docker run --rm`", "SDK: create, start, wait, remove", "SDK: `exec_run`, warm container"
EXEC_CLI, SUBPROCESS, FORK = (
    "`docker exec`, warm container",
    "`subprocess python3 -I`, no isolation",
    "fork, no isolation",
)
USER = "65534:65534"
HARDENED = [
    *("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--pids-limit", "96", "--memory", "768m", "--memory-swap", "768m", "--cpus", "1", "--log-driver", "none"),
    *("--tmpfs", "/tmp:rw,nosuid,nodev,size=64m,nr_inodes=4096"),
]


@dataclass(frozen=True)
class Problem:
    """A solution, and calls of it with what they give."""

    solution: str
    calls: tuple[str, ...]
    expected: tuple[int, ...]

    @property
    def tests(self) -> str:
        return "".join(f"assert {c} == {e}\n" for c, e in zip(self.calls, self.expected, strict=True))


def problem(shape: str, number: int) -> Problem:
    """The problem of that number; eight in a row have the same tests, and no two the same solution."""
    add = number // GROUP
    solution = f"""{SHAPES[shape]}def spread(values):
    total = {add}  # {number}
    for value in values:
        total += value * value
    return total
"""
    rows = ([1, 2, 3], [], [add, 7])
    return Problem(solution, tuple(f"spread({row})" for row in rows), tuple(add + sum(v * v for v in r) for r in rows))


@dataclass
class Way:
    """Judges a problem; raises AssertionError if a right solution does not pass. `cpu` gives the seconds of processor
    time that its isolated side has taken so far."""

    once: Callable[[Problem], None]
    cpu: Callable[[], float] = lambda: 0.0


def check(passed: bool) -> None:
    if not passed:
        raise AssertionError("a right solution did not pass")


def text(one: Problem) -> str:
    return one.solution + "\n" + one.tests


@contextlib.contextmanager
def docker_run() -> Iterator[Way]:
    command = ["docker", "run", "--rm", "--label", LABEL, "--user", USER, *HARDENED, "--entrypoint", "python3", IMAGE]
    yield Way(lambda one: check(subprocess.run([*command, "-I", "-c", text(one)], capture_output=True).returncode == 0))


def hardened() -> dict[str, Any]:
    """The same flags for the SDK."""
    return {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": 96,
        "mem_limit": "768m",
        "memswap_limit": "768m",
        "nano_cpus": 10**9,
        "log_config": {"Type": "none"},
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=64m,nr_inodes=4096"},
        "labels": {LABEL: ""},
    }


@contextlib.contextmanager
def sdk() -> Iterator[Way]:
    with contextlib.closing(client()) as engine:

        def once(one: Problem) -> None:
            made = engine.containers.create(
                IMAGE, ["-I", "-c", text(one)], entrypoint="python3", user=USER, **hardened()
            )
            made.start()
            check(made.wait()["StatusCode"] == 0)
            made.remove()

        yield Way(once)


@contextlib.contextmanager
def warm_container() -> Iterator[tuple[Any, str]]:
    with contextlib.closing(client()) as engine:
        made = engine.containers.run(IMAGE, ["infinity"], entrypoint="sleep", detach=True, **hardened())
        try:
            yield made, made.id
        finally:
            made.remove(force=True)


@contextlib.contextmanager
def exec_sdk() -> Iterator[Way]:
    with warm_container() as (container, name):
        yield Way(
            lambda one: check(container.exec_run(["python3", "-I", "-c", text(one)], user=USER).exit_code == 0),
            lambda: group_cpu(name),
        )


@contextlib.contextmanager
def exec_cli() -> Iterator[Way]:
    with warm_container() as (_, name):
        command = ["docker", "exec", "--user", USER, name, "python3", "-I", "-c"]
        yield Way(
            lambda one: check(subprocess.run([*command, text(one)], capture_output=True).returncode == 0),
            lambda: group_cpu(name),
        )


@contextlib.contextmanager
def plain_subprocess() -> Iterator[Way]:
    command = [sys.executable, "-I", "-c"]
    yield Way(lambda one: check(subprocess.run([*command, text(one)], capture_output=True).returncode == 0))


@contextlib.contextmanager
def fork() -> Iterator[Way]:
    def once(one: Problem) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                exec(compile(text(one), "test", "exec"), {"__name__": "test"})  # noqa: S102
                code = 0
            finally:
                os._exit(code)
        check(os.waitpid(pid, 0)[1] == 0)

    yield Way(once)


@contextlib.contextmanager
def called(make: Callable[[], ForkServerSandbox]) -> Iterator[Way]:
    with contextlib.closing(make()) as sandbox:

        def once(one: Problem) -> None:
            calls = sandbox.call(one.solution, [Call(source) for source in one.calls])
            check([found.value for found in calls.returned] == list(one.expected))

        yield Way(once, lambda: group_cpu(container_of(sandbox)))


@contextlib.contextmanager
def judged(make: Callable[[], ForkServerSandbox]) -> Iterator[Way]:
    with contextlib.closing(make()) as sandbox:

        def once(one: Problem) -> None:
            found = sandbox.judge(one.solution, one.tests, names=["spread"])
            check(found.complete and len(found.checks) == len(one.calls) and all(c.passed for c in found.checks))

        yield Way(once, lambda: group_cpu(container_of(sandbox)))


WAYS: dict[str, Callable[[], contextlib.AbstractContextManager[Way]]] = {
    CALLS: lambda: called(Docker),
    JUDGED: lambda: judged(Docker),
    BWRAP: lambda: called(Bubblewrap),
    RUN: docker_run,
    SDK: sdk,
    EXEC: exec_sdk,
    EXEC_CLI: exec_cli,
    SUBPROCESS: plain_subprocess,
    FORK: fork,
}


def container_of(sandbox: ForkServerSandbox) -> str:
    """The id of a sandbox's container; empty if it has none."""
    if not isinstance(sandbox, Docker):
        return ""
    return str(sandbox.place.facts.get("container", "")) if sandbox.place else sandbox.container


def group_cpu(container: str) -> float:
    """Seconds of processor time that a container has taken, by its control group; 0 where that is not to be found."""
    root = Path("/sys/fs/cgroup")
    if not container:
        return 0.0
    for usage in (root / "cpuacct/docker" / container, root / "cpu,cpuacct/docker" / container):
        with contextlib.suppress(OSError):
            return int((usage / "cpuacct.usage").read_text()) / 1e9
    for group in (root / "docker" / container, root / "system.slice" / f"docker-{container}.scope"):
        with contextlib.suppress(OSError):
            words = (group / "cpu.stat").read_text().split()
            return int(words[words.index("usage_usec") + 1]) / 1e6
    return 0.0
