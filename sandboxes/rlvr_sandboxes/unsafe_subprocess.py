"""`unsafe-subprocess`: the protocol of the other sandboxes in a child process that nothing holds. Only by its name.

Tests are in another process and values are compared on the host, and every execution has its clock and its limits. It
does not keep a program from reading and changing the user's files, from using the network, or from harming other
processes of the user, the one that judges it among them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

from rlvr_sandboxes.forkserver import START_SECONDS, Connection, ForkServerSandbox, Lost, PipeChannel, boot, setup


class UnsafeSubprocess(ForkServerSandbox):
    """No isolation: a child process with clocks and resource limits, which can do to this machine what you can."""

    name = "unsafe-subprocess"
    uses = 1_000_000
    retry_seconds = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = ""

    def start(self) -> Connection:
        self.folder = tempfile.mkdtemp(prefix="rlvr-unsafe-")
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-c", boot(), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        channel = PipeChannel(self.process)
        try:
            channel.send(setup(users=False, places=[self.folder]))
            connection = Connection(channel, time.monotonic() + START_SECONDS)
        except OSError as error:
            raise Lost(str(error)) from None
        self.isolation = {"backend": self.name, "isolates": "nothing", "python": connection.facts["python"]}
        return connection

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = ""
