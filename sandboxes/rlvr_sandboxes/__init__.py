"""The sandboxes that come with rlvr, the safest first. Without a safe one, verifiers that run code are refused.

docker              a hardened container per worker, a process per execution
bubblewrap          the same in Linux namespaces, with weaker limits, where there is no container engine
unsafe-subprocess   no isolation at all; only when it is asked for by name
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlvr import Sandbox, hookimpl, sandbox


def _engine_answers(settings: Mapping[str, Any]) -> None:
    from rlvr_sandboxes.docker import check_ready
    from rlvr_sandboxes.image import IMAGE

    check_ready(settings.get("image") or IMAGE)


def _bubblewrap_works(settings: Mapping[str, Any]) -> None:
    from rlvr_sandboxes.bubblewrap import check_ready

    check_ready()


@sandbox("docker", ready=_engine_answers)
def docker_sandbox(
    *, image: str = "", runtime: str = "", memory_mb: int = 768, cpus: float = 1.0, allow: Sequence[str] = ()
) -> Sandbox:
    """A hardened container of Docker or Podman."""
    from rlvr_sandboxes.docker import Docker
    from rlvr_sandboxes.image import IMAGE

    return Docker(image or IMAGE, runtime, memory_mb, cpus, allow=allow)


@sandbox("bubblewrap", ready=_bubblewrap_works)
def bubblewrap_sandbox() -> Sandbox:
    """Linux namespaces without a container engine: limits hold per process, not for all of them together."""
    from rlvr_sandboxes.bubblewrap import Bubblewrap

    return Bubblewrap()


@sandbox("unsafe-subprocess", safe=False)
def unsafe_sandbox() -> Sandbox:
    """No isolation: the code runs as you, can change your files, use the network and disturb your processes."""
    from rlvr_sandboxes.unsafe_subprocess import UnsafeSubprocess

    return UnsafeSubprocess()


@hookimpl
def rlvr_sandboxes() -> list[Any]:
    return [docker_sandbox, bubblewrap_sandbox, unsafe_sandbox]
