"""Installs and starts a container engine on Debian and Ubuntu, and says how elsewhere."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlvr import MissingDependencyError
from rlvr_sandboxes.commands import Say, apt_install, complaint, run
from rlvr_sandboxes.engine import ping
from rlvr_sandboxes.machine import PATH, Machine

SOCKET = "/var/run/docker.sock"
LOG = "/var/log/dockerd.log"
PATIENCE_S = 60.0
"""Seconds that a daemon gets to answer once it was started."""

ELSEWHERE = {
    "Darwin": "install Docker Desktop, OrbStack or Colima (`brew install colima docker && colima start`)",
    "fedora": "`sudo dnf install -y podman && systemctl --user enable --now podman.socket`",
    "arch": "`sudo pacman -S docker && sudo systemctl enable --now docker && sudo usermod -aG docker $USER`",
    "suse": "`sudo zypper install -y docker && sudo systemctl enable --now docker && sudo usermod -aG docker $USER`",
}
ANYWHERE = "install Docker (docs.docker.com/engine/install) or Podman; one at another socket is found by `DOCKER_HOST`"


@dataclass(frozen=True)
class Step:
    """One thing to do: what it is, in the words of a shell, and how."""

    says: str
    do: Callable[[Say], None]


def plan(machine: Machine) -> list[Step]:
    """What it takes to have Docker run on this machine, where no engine answers.

    Raises:
        MissingDependencyError: Not a thing that we do here; the hint says how it is done.
    """
    if not machine.debian or not machine.root:
        raise by_hand(machine)
    steps = []
    if "dockerd" not in machine.programs:
        steps.append(Step("apt-get install -y docker.io", lambda say: apt_install(["docker.io"], say)))
    if machine.systemd:
        steps.append(Step("systemctl start docker", start_by_systemd))
    else:
        says = f"service docker start, or else dockerd in the background with its log in {LOG}"
        steps.append(Step(says, start_without_systemd))
    return steps


def by_hand(machine: Machine) -> MissingDependencyError:
    """The error that says how somebody else gets an engine."""
    if machine.debian:
        return MissingDependencyError(
            "installing and starting a container engine takes root",
            f"`sudo {sys.argv[0]} sandbox setup`; without root, see docs.docker.com/engine/security/rootless",
        )
    kinds = {machine.system, *machine.distributions, *("fedora" for d in machine.distributions if d == "rhel")}
    how = next((how for kind, how in ELSEWHERE.items() if kind in kinds), ANYWHERE)
    return MissingDependencyError("`rlvr sandbox setup` installs an engine on Debian and Ubuntu only", how)


def start_by_systemd(say: Say) -> None:
    """Starts Docker as a service of systemd."""
    if not answers():
        say("systemctl start docker")
        run(["systemctl", "start", "docker"], "`journalctl -u docker` says why")
        wait(PATIENCE_S, lambda: "", "`journalctl -u docker` says why")


def start_without_systemd(say: Say) -> None:
    """Starts Docker by its init script; where that is missing or does not work, as a process of its own.

    Raises:
        MissingDependencyError: It does not answer within a minute.
    """
    if answers():  # some packages start what they install
        return
    if Path("/etc/init.d/docker").exists() and shutil.which("service", path=PATH):
        say("service docker start")
        with suppress(MissingDependencyError):
            run(["service", "docker", "start"], "")
            wait(PATIENCE_S / 4, lambda: "", "")
            return
    say(f"dockerd >>{LOG} 2>&1 &")
    start_daemon()


def start_daemon() -> None:
    """Starts dockerd detached from this process, and waits until it answers.

    Raises:
        MissingDependencyError: It ended, or does not answer within a minute; says the last of its log.
    """
    program = shutil.which("dockerd", path=PATH)
    if program is None:
        raise MissingDependencyError("there is no `dockerd`", "`apt-get install docker.io`")
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    try:
        pid = os.posix_spawn(
            program,
            [program],
            os.environ | {"PATH": PATH},
            file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 0), *((os.POSIX_SPAWN_DUP2, log, fd) for fd in (1, 2))],
            setsid=True,
        )
    finally:
        os.close(log)
        os.close(nowhere)

    def ended() -> str:
        if not os.waitpid(pid, os.WNOHANG)[0]:
            return ""
        with open(LOG, encoding="utf-8", errors="replace") as text:
            return complaint(text.readlines()[-20:])

    wait(PATIENCE_S, ended, f"`{LOG}` says why")


def wait(seconds: float, ended: Callable[[], str], hint: str) -> None:
    """Waits until the engine answers.

    Args:
        seconds: How long at most.
        ended: Why there is nothing left to wait for, else an empty text.
        hint: What to do if it does not answer.

    Raises:
        MissingDependencyError: It does not.
    """
    deadline = time.monotonic() + seconds
    while not answers():
        if why := ended():
            raise MissingDependencyError(f"Docker did not start: {why}", hint)
        if time.monotonic() > deadline:
            raise MissingDependencyError(f"Docker was started, but does not answer within {seconds:g} s", hint)
        time.sleep(0.1)


def answers() -> bool:
    """Whether the system's Docker is there."""
    try:
        ping(SOCKET)
    except (OSError, http.client.HTTPException):
        return False
    return True
