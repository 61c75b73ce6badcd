"""Prints in one line what this machine lacks for vLLM's CPU build and its tests, or nothing.

    python3 .ci/vllm_lacks.py .venv-vllm [--install]

The argument is the environment's folder, which may be there already. With `--install`, the system library that is
missing is installed first, which takes Debian or Ubuntu and root.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

DISK, MEMORY = 6, 5  # GiB to install it; for two servers and a learner


def has_libnuma() -> bool:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return False
    return True


def available() -> float:
    """Memory that processes can still take, in GiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return 0.0


def lacks(environment: Path) -> str:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "aarch64"):
        return f"vLLM's CPU build is for Linux on x86-64 and aarch64, this is {sys.platform} on {machine}"
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        return f"vLLM's CPU build is for Python 3.11 to 3.14, this is {platform.python_version()}"
    if not has_libnuma():
        return "it needs `libnuma.so.1` (`apt-get install libnuma1`)"
    free = shutil.disk_usage(Path.cwd() if not environment.exists() else environment).free / 2**30
    if not (environment / ".ready").exists() and free < DISK:
        return f"it takes {DISK} GiB of disk to install, {free:.1f} are free"
    if available() < MEMORY:
        return f"its tests take {MEMORY} GiB of memory, {available():.1f} are available"
    return ""


def install_libnuma() -> None:
    if has_libnuma() or not shutil.which("apt-get"):
        return
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL, "check": False}
    subprocess.run(["apt-get", "-qq", "update"], **quiet)
    subprocess.run(["apt-get", "-qq", "install", "--yes", "libnuma1"], **quiet)


if __name__ == "__main__":
    if "--install" in sys.argv:
        install_libnuma()
    print(lacks(Path(sys.argv[1])))
