"""Starts `vllm serve` for tests, as a user does, and kills it as a machine that fails does."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

SMALL = (  # an engine that starts soon and takes little
    *("--max-model-len", "128", "--max-num-seqs", "64", "--max-num-batched-tokens", "1024", "--dtype", "float32"),
    *("--kv-cache-memory-bytes", str(64 * 2**20), "--enforce-eager", "--host", "127.0.0.1"),
    "--no-enable-chunked-prefill",  # which on a CPU does not go with seeds
)
TAKES_WEIGHTS = ("--weight-transfer-config", '{"backend": "rlvr"}')


def serve(model: str) -> list[str]:
    """The command `vllm serve MODEL`. That of some CPU builds fails on the name of its own distribution."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm")
        return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]


class Served:
    """A server in a process group of its own. It has the same address each time that it is started.

    Args:
        model: Folder of what it serves.
        log: File that it writes to.
        arguments: Of `vllm serve`, after those of `SMALL`.
    """

    def __init__(self, model: str, log: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.command = [*serve(model), *SMALL, *(arguments or TAKES_WEIGHTS), "--port", str(self.port)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; `wait` sees it ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, seconds: float = 300) -> None:
        """Waits until it serves."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", trust_env=False, timeout=10).is_success:
                    return
            assert self.process.poll() is None, self.tail()
            time.sleep(0.2)
        raise AssertionError(f"it does not serve after {seconds:.0f} s:\n{self.tail()}")

    def kill(self) -> None:
        """Ends it and all its processes at once, without a chance to say goodbye."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def metric(self, name: str, *labels: str) -> float:
        """The sum of a number that it publishes, over rows that have all these labels."""
        rows = httpx.get(f"{self.url}/metrics", trust_env=False, timeout=30).text.splitlines()
        mine = [row for row in rows if row.startswith(name + "{") and all(label in row for label in labels)]
        assert mine, f"it publishes no `{name}`"
        return sum(float(row.rpartition(" ")[2]) for row in mine)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]
