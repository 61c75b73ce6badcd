"""Where sandboxes keep their sockets, and which of them belong to the pool."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rlvr import RlvrError

SOCKET = "channel"
"""Name of the socket in a container's folder."""


def runtime_folder() -> Path:
    """Where the sockets are: a folder of this user's that nobody else may enter."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(base) / f"rlvr-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise RlvrError(f"`{folder}` can be entered by others", "remove it")
    return folder


class Place:
    """The folder of one container of the pool: its socket, its lock, and what it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: int | None = None
        try:
            self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        except (OSError, ValueError):
            self.facts = {}

    def fits(self, wants: dict[str, Any]) -> bool:
        """Whether it is what a sandbox wants."""
        return bool(self.facts.get("wants") == wants)

    def lock(self) -> bool:
        """Takes it, unless somebody else has; given back when this process ends."""
        try:
            fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self.held = fd
        return True

    def unlock(self) -> None:
        if self.held is not None:
            os.close(self.held)
            self.held = None

    def discard(self) -> None:
        """Forgets a container that does not answer."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.unlock()


def places() -> list[Place]:
    """The containers of the pool."""
    return [Place(path.parent) for path in sorted(runtime_folder().glob("c-*/facts.json"))]
