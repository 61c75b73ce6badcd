"""Containers that stay: started once by `rlvr sandbox up`, used by whoever needs one, ended by `rlvr sandbox down`.

Nothing needs them: without a pool every worker starts a container of its own in about half a second.
"""

from __future__ import annotations

import contextlib
import shutil
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from rlvr import RlvrError
from rlvr_sandboxes.docker import LABEL, OWNER, POOL, Docker
from rlvr_sandboxes.engine import client
from rlvr_sandboxes.forkserver import Lost, version
from rlvr_sandboxes.places import places


@dataclass(frozen=True)
class Row:
    """One container.

    Attributes:
        container: Its id, shortened.
        image: What it was started from.
        kind: `pool`, or `own` for one that belongs to a running process.
        state: `idle`, `busy`, or `stale` for one whose code or socket is not of today.
        status: The engine's words, such as `Up 5 minutes`.
    """

    container: str
    image: str
    kind: Literal["pool", "own"]
    state: Literal["idle", "busy", "stale"]
    status: str


def up(size: int, sandbox: Docker) -> list[Row]:
    """Starts containers until `size` of the pool are what `sandbox` wants, and describes all.

    Raises:
        RlvrError: One could not be started.
    """
    with closing(sandbox):
        fitting = sum(place.fits(sandbox.wants()) for place in places())
        for _ in range(size - fitting):
            try:
                sandbox.add_to_pool()
            except Lost as lost:
                sandbox.stop()
                raise RlvrError(f"a container cannot be started: {lost}", "`rlvr sandbox check` tries it out") from None
    return status()


def down() -> int:
    """Ends the containers of the pool; how many there were."""
    removed = 0
    with closing(client()) as engine:
        for row in engine.api.containers(all=True, filters={"label": f"{OWNER}={POOL}"}):
            with contextlib.suppress(Exception):  # it may be ending by itself
                engine.api.remove_container(row["Id"], force=True)
            removed += 1
    for place in places():
        shutil.rmtree(place.folder, ignore_errors=True)
    return removed


def status() -> list[Row]:
    """The containers of the pool, and those of running processes."""
    known = {str(place.facts.get("container", "")): place for place in places()}
    rows = []
    with closing(client()) as engine:
        for row in engine.api.containers(all=True, filters={"label": LABEL}):
            pooled = row["Labels"].get(OWNER) == POOL
            place = known.get(row["Id"])
            state: Literal["idle", "busy", "stale"] = "busy"
            if pooled and place is None:
                state = "stale"
            elif place is not None and place.lock():
                place.unlock()
                state = "idle" if place.facts.get("wants", {}).get("version") == version() else "stale"
            rows.append(Row(row["Id"][:12], row["Image"], "pool" if pooled else "own", state, row["Status"]))
    return rows
