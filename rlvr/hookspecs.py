"""The hooks a plugin may implement. Each returns a list; the registry checks names and clashes.

A plugin is a module (or package) named in the entry-point group `rlvr`, or a file given with `--plugin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlvr.types import Task

PROJECT = "rlvr"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def rlvr_verifiers() -> Sequence[Any]:  # type: ignore[empty-body]
    """Verifiers made with `@rlvr.verifier("name")`."""


@hookspec
def rlvr_tasks() -> Sequence[Task | str]:  # type: ignore[empty-body]
    """`rlvr.Task` objects, or paths of TOML task files."""


@hookspec
def rlvr_sandboxes() -> Sequence[Any]:  # type: ignore[empty-body]
    """Sandbox factories made with `@rlvr.sandbox("name")`."""


@hookspec
def rlvr_shapers() -> Sequence[Any]:  # type: ignore[empty-body]
    """Shapers made with `@rlvr.shaper("name")`."""
