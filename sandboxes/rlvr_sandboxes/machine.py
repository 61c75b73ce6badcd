"""What this machine is: its system, its rights, and which programs it has."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Where programs are: an ordinary user's PATH often leaves out where daemons are."""


@dataclass(frozen=True)
class Machine:
    """Facts that decide how a container engine is found, installed and started.

    Attributes:
        system: `Linux`, `Darwin` and so on.
        distributions: What the distribution calls itself and what it is like, `{"ubuntu", "debian"}`.
        release: Its code name, such as `bookworm`; empty if it has none.
        root: Whether we are root.
        systemd: Whether systemd runs as the first process.
        programs: Which of the programs asked about are there.
    """

    system: str = "Linux"
    distributions: frozenset[str] = frozenset()
    release: str = ""
    root: bool = False
    systemd: bool = False
    programs: frozenset[str] = frozenset()

    @classmethod
    def here(cls) -> Machine:
        """The facts of this machine, as they are now."""
        try:
            told = platform.freedesktop_os_release()
        except OSError:
            told = {}
        names = ("apt-get", "debootstrap", "dockerd", "podman", "service", "systemctl")
        return cls(
            system=platform.system(),
            distributions=frozenset([told.get("ID", ""), *told.get("ID_LIKE", "").split()]) - {""},
            release=told.get("VERSION_CODENAME", ""),
            root=os.geteuid() == 0,
            systemd=Path("/run/systemd/system").is_dir(),
            programs=frozenset(name for name in names if shutil.which(name, path=PATH)),
        )

    @property
    def debian(self) -> bool:
        """Whether this is Debian, Ubuntu or one of their kind."""
        return bool(self.distributions & {"debian", "ubuntu"}) and "apt-get" in self.programs
