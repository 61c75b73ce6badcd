"""What the fork server asks the kernel: its limits, the time that processes have taken, who is there; and how to empty
a folder that somebody hostile has filled."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Any


def facts() -> dict[str, Any]:
    """What this process sees of its limits and of its surroundings, for the host to hold against what it asked for."""

    def number(*paths: str) -> int | None:
        for path in paths:
            try:
                with open("/sys/fs/cgroup/" + path) as f:
                    word = f.read().split()[0]
            except (OSError, IndexError):
                continue
            return int(word) if word.lstrip("-").isdigit() else -1
        return None

    status = {}
    with open("/proc/self/status") as f:
        for line in f:
            name, _, value = line.partition(":")
            status[name] = value.strip()
    with open("/proc/self/mountinfo") as f:
        root = [line.split()[5] for line in f if line.split()[4] == "/"]
    return {
        "python": sys.version.split()[0],
        "memory": number("memory.max", "memory/memory.limit_in_bytes"),
        "swap": number("memory.swap.max", "memory/memory.memsw.limit_in_bytes"),
        "swap_total": swap_total(),
        "pids": number("pids.max", "pids/pids.max"),
        "cpu": number("cpu.max", "cpu/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_quota_us"),
        "capabilities": int(status.get("CapEff", "0"), 16),
        "bounding": int(status.get("CapBnd", "0"), 16),
        "no_new_privs": status.get("NoNewPrivs") == "1",
        "engine_seccomp": status.get("Seccomp") == "2",
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "read_only": all("ro" in options.split(",") for options in root),
        "alone": os.getpid() == 1,
        "user": os.getuid(),
    }


def swap_total() -> int:
    try:
        with open("/proc/meminfo") as f:
            return next((int(line.split()[1]) for line in f if line.startswith("SwapTotal")), 0)
    except OSError:
        return 0


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kernel_kills() -> int:
    """How many processes the kernel has killed in this container for its memory; 0 where it does not say."""
    for path in ("memory.events", "memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError), open(f"/sys/fs/cgroup/{path}") as f:
            return sum(int(line.split()[1]) for line in f if line.startswith("oom_kill "))
    return 0


def cgroup_time() -> float:
    """Seconds of processor time that this container has taken, the dead included; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/sys/fs/cgroup/cpu.stat") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("usage_usec")) / 1e6
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpuacct/cpuacct.usage") as f:
        return int(f.read()) / 1e9
    return 0.0


def processor_time() -> float:
    """Seconds of processor time that the living processes below this one have taken."""
    ticks = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", errors="replace") as f:
            ticks += sum(map(int, f.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def waiting(pid: int) -> float:
    """Seconds that the main thread of a process was ready to run and had to wait; 0 where the kernel does not say."""
    try:
        with open("/proc/%d/schedstat" % pid) as f:
            return int(f.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def descendants(root: int) -> dict[int, str]:
    """State of every process below `root`, by its number."""
    parents, states = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", errors="replace") as f:
                    state, parent = f.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            parents[int(name)], states[int(name)] = int(parent), state
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return {pid: states[pid] for pid in found - {root}}
        found |= more


def empty(place: bytes) -> None:
    """Removes all that is in a folder, whatever its modes, names and depth: what folders hold is first moved up."""
    os.chdir(place)
    moved = 0
    for _ in range(10_000):
        names = os.listdir(b".")
        if not names:
            return
        for name in names:
            try:
                os.unlink(name)
                continue
            except OSError:
                pass
            try:
                mine(name)
                for inner in os.listdir(name):
                    held = name + b"/" + inner
                    if not os.path.islink(held) and os.path.isdir(held):
                        mine(held)
                        moved += 1
                        os.rename(held, b"moved-%d" % moved)
                    else:
                        os.unlink(held)
                os.rmdir(name)
            except OSError:
                pass


def mine(folder: bytes) -> None:
    """Opens a folder to its owner, if that is who we are; another's may be open to us anyway."""
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
