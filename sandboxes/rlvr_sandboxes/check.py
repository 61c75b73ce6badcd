"""`rlvr sandbox check`: tries on a sandbox what model-written code might try, and says what holds.

Each probe is a program that reports what it was able to do; each forgery is a wrong solution that tries to pass its
tests all the same. They are a sample, for a look at one's own machine; what was measured is in `sandboxes/README.md`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rlvr import Call, CodeSandbox


@dataclass(frozen=True)
class Finding:
    """Whether one thing holds, and what was seen."""

    name: str
    held: bool
    detail: str


PROBES = {
    "no network interface": """
import socket
try:
    print([n for _, n in socket.if_nameindex() if n != 'lo'] or 'held')
except OSError:
    print('held')
""",
    "no route out": """
import socket
try:
    socket.create_connection(('192.0.2.1', 53), timeout=1)
    print('connected')
except OSError as error:
    print('held')
""",
    "not root": "import os\nprint('held' if 0 not in os.getresuid() + os.getresgid() else os.getresuid())",
    "no capabilities": """
caps = [l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm'))]
print('held' if not any(int(c, 16) for c in caps) else caps)
""",
    "no new privileges": "print('held' if 'NoNewPrivs:\\t1' in open('/proc/self/status').read() else 'missing')",
    "read-only root": """
import os
got = []
for folder in ('/', '/usr', '/etc', '/var', '/usr/lib', '/home', '/root', '/opt'):
    try:
        open(os.path.join(folder, 'rlvr-probe'), 'w').close()
        got.append(folder)
    except OSError:
        pass
print(got or 'held')
""",
    "no other user's process": """
import os
got = []
for pid in filter(str.isdigit, os.listdir('/proc')):
    if int(pid) != os.getpid():
        try:
            os.kill(int(pid), 0)
            got.append(pid)
        except OSError:
            pass
print(got or 'held')
""",
    "no tracing": """
import ctypes
print('held' if ctypes.CDLL(None).ptrace(16, 1, 0, 0) != 0 else 'attached')
""",
    "no new namespaces": """
import ctypes
print('held' if ctypes.CDLL(None).unshare(0x10000000) != 0 else 'unshared')
""",
    "no keyring": """
import ctypes, platform
number = {'x86_64': 248, 'aarch64': 217}.get(platform.machine(), -1)
print('held' if ctypes.CDLL(None).syscall(number, b'user', b'probe', b'x', 1, -3) < 0 else 'added')
""",
    "limits cannot be raised": """
import resource
got = []
for name in ('RLIMIT_AS', 'RLIMIT_NOFILE', 'RLIMIT_NPROC', 'RLIMIT_CPU'):
    hard = resource.getrlimit(getattr(resource, name))[1]
    try:
        resource.setrlimit(getattr(resource, name), (hard, hard + 1))
        got.append(name)
    except (ValueError, OSError):
        pass
print(got or 'held')
""",
    "memory is limited": """
import mmap
held = []
try:
    for _ in range(64):
        block = mmap.mmap(-1, 64 << 20)
        block[::4096] = bytes(len(block[::4096]))
        held.append(block)
    print('4 GiB')
except (MemoryError, OSError):
    print('held')
""",
    "processes are limited": """
import os, time
n = 0
try:
    while n < 500:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        n += 1
    print(n)
except OSError:
    print('held')
""",
    "disk is limited": """
import os
n = 0
try:
    for i in range(64):
        with open('big%d' % i, 'wb') as f:
            for _ in range(30):
                n += f.write(bytes(1 << 20))
    print(n)
except OSError:
    print('held')
""",
}

SILENT = {"memory is limited", "processes are limited"}
"""Probes that may also be killed, which is as good."""

FORGERIES = {
    "leaving early": "import os\nos._exit(0)",
    "equal to everything": "class Any:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any()",
    "printing a verdict": "print('PASSED', 'OK', '{\"passed\": true}', sep='\\n')\ndef f(x):\n    return 0",
    "patching what compares": "import builtins\nbuiltins.AssertionError = Warning\ndef f(x):\n    return 0",
    "looking for the tests": """
import gc, sys
def f(x):
    seen = [o for o in gc.get_objects() if isinstance(o, (list, dict, str)) and '918273' in repr(o)[:10000]]
    for number in range(3, 64):
        try:
            import os
            seen.append(os.pread(number, 1 << 16, 0))
        except OSError:
            pass
    return 918273 if any('918' + '273' in str(o) for o in seen if isinstance(o, bytes)) else 0
""",
}
EXPECTED = 918273


def check(sandbox: CodeSandbox) -> Iterator[Finding]:
    """Tries everything, one after the other."""
    run = sandbox.run("print(input())", stdin="hello\n")
    yield Finding("runs a program", run.stdout == "hello\n" and run.exit_code == 0, run.stderr[-200:] or "ok")
    for name, program in PROBES.items():
        run = sandbox.run(program, timeout=5.0)
        said = run.stdout.strip()
        killed = name in SILENT and run.exit_code != 0
        detail = "ok" if said == "held" or killed else (said or run.stderr or str(run.killed_by))[-200:]
        yield Finding(name, said == "held" or killed, detail)
    run = sandbox.run("import os\nprint(os.listdir('/tmp') + os.listdir('/dev/shm'))")
    left = run.stdout.count("'")
    yield Finding("nothing is left behind", left <= 2, "ok" if left <= 2 else run.stdout[-200:])
    start = time.monotonic()
    run = sandbox.run("while True: pass", timeout=1.0)
    took = time.monotonic() - start
    yield Finding("an endless loop ends", run.killed_by == "timeout" and took < 6, f"after {took:.1f} s of 1 s")
    for name, solution in FORGERIES.items():
        calls = sandbox.call(solution, [Call("f(1)")], timeout=5.0)
        same = any(type(r.value) is int and r.value == EXPECTED for r in calls.returned if r.raised is None)
        yield Finding(f"forging by {name}, compared here", not same, "held" if not same else "passed")
        judged = sandbox.judge(solution, f"assert f(1) == {EXPECTED}", names=["f"], timeout=5.0)
        passed = judged.complete and bool(judged.checks) and all(c.passed for c in judged.checks)
        yield Finding(f"forging by {name}, judged inside", not passed, "held" if not passed else "passed")


@dataclass(frozen=True)
class Speed:
    """Executions of one kind: how many per second by one caller, and milliseconds for half and for 99% of them."""

    name: str
    per_second: float
    p50_ms: float
    p99_ms: float


SOLUTION = "def f(x):\n    return x + 1"


def speed(sandbox: CodeSandbox, seconds: float = 2.0) -> Iterator[Speed]:
    """Times each kind of execution for some seconds."""
    ways = {
        "calls, compared here": lambda: sandbox.call(SOLUTION, [Call("f(1)"), Call("f(2)"), Call("f(3)")]),
        "tests, judged inside": lambda: sandbox.judge(SOLUTION, "assert f(1) == 2\nassert f(2) == 3", names=["f"]),
        "a program": lambda: sandbox.run("print(input())", stdin="hello\n"),
    }
    for name, once in ways.items():
        once()
        took = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            once()
            took.append(time.perf_counter() - start)
        points = statistics.quantiles(took, n=100)
        yield Speed(name, len(took) / sum(took), 1e3 * points[49], 1e3 * points[98])
