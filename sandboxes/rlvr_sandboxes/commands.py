"""Runs the system's own commands: no questions asked, the last lines kept for the error, killed when we are."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from rlvr import MissingDependencyError
from rlvr_sandboxes.machine import PATH

Say = Callable[[str], None]
"""Takes one line of progress."""

QUIET = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "LC_ALL": "C.UTF-8"}
"""Makes package managers ask nothing and restart no services."""

APT = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "-o", "Dpkg::Use-Pty=0")


def run(command: Sequence[str], hint: str, watch: Say = lambda line: None) -> str:
    """Runs a command to its end.

    Args:
        command: The program and its arguments.
        hint: What to do if it fails.
        watch: Gets every line that it prints.

    Returns:
        The end of what it printed.

    Raises:
        MissingDependencyError: It is not there, or failed; says the last thing that it complained of.
    """
    last: deque[str] = deque(maxlen=60)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | QUIET | {"PATH": PATH},
            encoding="utf-8",
            errors="replace",
            cwd="/",
        )
    except OSError as error:
        raise MissingDependencyError(f"`{command[0]}` cannot be run: {error.strerror}", hint) from error
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                watch(last[-1])
        except BaseException:
            with suppress(ProcessLookupError):
                process.terminate()
            raise
    if process.returncode:
        raise MissingDependencyError(f"`{' '.join(command)}` failed: {complaint(last)}", hint)
    return "\n".join(last)


def complaint(lines: Sequence[str]) -> str:
    """The line that says what went wrong: the last one that calls itself an error, else the last one."""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith(("E:", "E ", "error", "Error", "ERROR"))]
    return (errors or said or ["it does not say why"])[-1]


def apt_install(packages: Sequence[str], say: Say) -> None:
    """Installs Debian packages, after a try to bring the lists of packages up to date.

    Raises:
        MissingDependencyError: They cannot be installed.
    """
    say("apt-get update")
    with suppress(MissingDependencyError):  # one broken source of many; whether it matters shows below
        run([*APT, "update"], "")
    say(f"apt-get install -y {' '.join(packages)}")
    run(
        [*APT, "install", "-y", *packages],
        f"run `apt-get update && apt-get install {' '.join(packages)}` and see what is in its way",
    )
