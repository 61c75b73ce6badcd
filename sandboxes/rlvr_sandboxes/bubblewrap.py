"""`bubblewrap`: the fork server in Linux namespaces, where there is no container engine.

No network, a read-only view of the system's programs, its own processes, its own empty folders. What it lacks next to
a container: memory and processor limits hold per process and not for all of them together; when it is not started by
root, executions share one user, and are kept apart by namespaces and the filter alone. Verdicts name it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from rlvr import MissingDependencyError
from rlvr_sandboxes.forkserver import START_SECONDS, Connection, ForkServerSandbox, Lost, PipeChannel, boot, setup

INSTALL = "install it (`apt-get install bubblewrap`), or use Docker: `rlvr sandbox setup`"
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
PYTHON = "/usr/bin/python3"
TMP_MB, SHM_MB = 64, 16
CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL")


def check_ready() -> None:
    """Whether bubblewrap can be started here.

    Raises:
        MissingDependencyError: It is not installed, or the kernel does not let it.
    """
    if shutil.which("bwrap") is None:
        raise MissingDependencyError("there is no bubblewrap", INSTALL)
    if not Path(PYTHON).exists():
        raise MissingDependencyError(f"bubblewrap needs the system's Python, `{PYTHON}`", "install `python3`")
    tried = subprocess.run([*command(), "/usr/bin/true"], capture_output=True, text=True, timeout=10, check=False)
    if tried.returncode:
        why = tried.stderr.strip().partition("\n")[0] or f"exit code {tried.returncode}"
        raise MissingDependencyError(f"bubblewrap does not start here: {why}", "use Docker: `rlvr sandbox setup`")


def command() -> list[str]:
    """How bubblewrap is called, up to the program."""
    binds = []
    for path in SYSTEM:
        if os.path.islink(path):
            binds += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            binds += ["--ro-bind", path, path]
    root = os.getuid() == 0
    capabilities = [word for name in CAPABILITIES for word in ("--cap-add", name)] if root else []
    return [
        "bwrap",
        *binds,
        *("--proc", "/proc", "--dev", "/dev"),
        *("--perms", "1777", "--size", str(TMP_MB << 20), "--tmpfs", "/tmp"),
        *("--perms", "1777", "--size", str(SHM_MB << 20), "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/"),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *([] if root else ["--unshare-user"]),
        *("--cap-drop", "ALL", *capabilities),
        *("--as-pid-1", "--die-with-parent", "--new-session", "--clearenv", "--chdir", "/"),
        *(
            "--setenv",
            "PATH",
            "/usr/bin:/bin",
            "--setenv",
            "HOME",
            "/tmp",
            "--setenv",
            "PYTHONHASHSEED",
            "0",
            "--setenv",
            "OMP_NUM_THREADS",
            "1",
        ),
        *("--setenv", "PYTHONDONTWRITEBYTECODE", "1", "--setenv", "LANG", "C.UTF-8"),
    ]


class Bubblewrap(ForkServerSandbox):
    """The fork server in namespaces of its own."""

    name = "bubblewrap"
    retry_seconds = 3.0

    def __init__(self) -> None:
        super().__init__()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Connection:
        root = os.getuid() == 0
        self.process = subprocess.Popen(
            [*command(), PYTHON, "-s", "-c", boot(), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        channel = PipeChannel(self.process)
        try:
            channel.send(setup(users=root, places=["/tmp", "/dev/shm"]))
            connection = Connection(channel, time.monotonic() + START_SECONDS)
        except OSError as error:
            raise Lost(str(error)) from None
        facts = connection.facts
        if not facts["alone"] or facts["interfaces"] != ["lo"]:
            raise Lost("bubblewrap gave it no namespaces of its own")
        self.isolation = {
            "backend": self.name,
            "python": facts["python"],
            "network": "none",
            "limits": "per process",
            "users": "one per execution" if root else "shared",
            "seccomp": "filter" if facts["seccomp"] else "none",
        }
        return connection

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
