"""A child process with a clock and a memory limit, and no isolation at all."""

import subprocess
import sys
import time

from rlvr import Execution


class PlainProcess:
    """Runs code as this user, with this user's files and network. For tests of what uses a sandbox."""

    name = "plain-process"

    def run(self, code: str, *, stdin: str = "", timeout: float = 10.0, memory_mb: int = 256) -> Execution:
        limited = ["sh", "-c", 'ulimit -v "$0" && exec "$@"', str(memory_mb * 1024)]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [*limited, sys.executable, "-I", "-c", code],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return Execution(None, "", "", time.perf_counter() - start, killed_by="timeout")
        return Execution(done.returncode, done.stdout, done.stderr, time.perf_counter() - start)

    def close(self) -> None:
        """Nothing is held between runs."""
