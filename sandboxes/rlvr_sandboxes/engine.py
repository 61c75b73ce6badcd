"""Finds the container engine: Docker, rootless Docker or Podman behind a socket that speaks Docker's protocol."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rlvr import MissingDependencyError
from rlvr_sandboxes.machine import Machine

if TYPE_CHECKING:
    from docker import DockerClient

PING_S = 2.0
"""Seconds within which an engine has to answer."""

INSTALL_SDK = "pip install 'docker>=7.1,<8'"
SETUP = "`rlvr sandbox setup` installs and starts one, or says how"


def client(timeout: float = 60.0) -> DockerClient:
    """A client of the engine that `locate` finds; the caller closes it.

    Args:
        timeout: Seconds that a later request may take.

    Raises:
        MissingDependencyError: No engine answers, and why; or the Docker SDK is missing.
    """
    try:
        from docker import DockerClient
        from docker.errors import DockerException
        from docker.utils import kwargs_from_env
    except ImportError as error:
        raise MissingDependencyError(f"the Docker SDK for Python cannot be imported: {error}", INSTALL_SDK) from error
    url = locate()
    try:
        made = DockerClient(
            **(kwargs_from_env() if os.environ.get("DOCKER_HOST") else {"base_url": url}), timeout=PING_S
        )
    except (DockerException, OSError) as error:
        raise does_not_answer(url, error) from error
    made.api.timeout = timeout
    return made


def locate() -> str:
    """The address of the first engine that answers, as `DOCKER_HOST` would have it.

    `DOCKER_HOST` is the only one that is tried when it is set. Otherwise: the current Docker context, the system's
    Docker, rootless Docker, rootless Podman, the system's Podman.

    Raises:
        MissingDependencyError: None is installed, none runs, its socket may not be opened, or it does not answer.
    """
    chosen = os.environ.get("DOCKER_HOST", "")
    if chosen and not socket_of(chosen):
        return chosen  # remote: only the SDK knows how to get there
    trouble: dict[str, Exception] = {}
    for path in [socket_of(chosen)] if chosen else sockets(os.environ):
        try:
            ping(path)
            return f"unix://{path}"
        except (OSError, http.client.HTTPException) as error:
            trouble[path] = error
    if chosen:
        raise does_not_answer(chosen, trouble[socket_of(chosen)])
    raise none_answers(trouble, Machine.here())


def sockets(environ: Mapping[str, str]) -> Iterator[str]:
    """Where an engine may listen, in the order to try."""
    context = context_socket(environ)
    if context:
        yield context
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    yield "/var/run/docker.sock"
    yield f"{runtime}/docker.sock"
    yield f"{runtime}/podman/podman.sock"
    yield "/run/podman/podman.sock"


def context_socket(environ: Mapping[str, str]) -> str:
    """The local socket of the Docker context in use (`docker context use`); empty if it is the usual one."""
    from docker import ContextAPI

    try:
        context = ContextAPI.get_context(environ.get("DOCKER_CONTEXT") or None)
        return socket_of(context.Host) if context and context.Name != "default" else ""
    except Exception:  # whatever is wrong with those files, there are other places to look
        return ""


def socket_of(url: str) -> str:
    """The path in `unix:///path`; empty for other kinds of address."""
    return url.removeprefix("unix://") if url.startswith("unix://") else ""


def ping(path: str, timeout: float = PING_S) -> None:
    """Asks the engine behind a socket whether it is there.

    Raises:
        OSError: It is not, or does not answer in time.
        http.client.HTTPException: What answers is no engine.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout)
        channel.connect(path)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = channel
        connection.request("GET", "/_ping")
        with connection.getresponse() as response:
            if response.status != http.HTTPStatus.OK:
                raise OSError(f"it answers with the status {response.status}")


def does_not_answer(url: str, error: Exception) -> MissingDependencyError:
    """The error for an engine that is where it is said to be, and does not answer."""
    if os.environ.get("DOCKER_HOST"):
        what, hint = f"`DOCKER_HOST={url}`", "start it, or unset `DOCKER_HOST` to use the one of this machine"
    else:
        what, hint = f"`{url}`", "look at its log (`journalctl -u docker`), and start it again"
    return MissingDependencyError(f"the container engine at {what} does not answer: {reason(error)}", hint)


def none_answers(trouble: Mapping[str, Exception], machine: Machine) -> MissingDependencyError:
    """The error when no socket of `trouble` led to an engine, and how to mend it.

    Args:
        trouble: What went wrong, by the path of the socket, in the order of preference.
    """
    for path, error in trouble.items():
        if isinstance(error, PermissionError):
            return MissingDependencyError(
                f"this user may not open the container engine's socket `{path}`",
                "run as root, use rootless Docker or Podman, or join the group `docker` (which is as good as root): "
                "`sudo usermod -aG docker $USER`, then log in again",
            )
    for path, error in trouble.items():
        if not isinstance(error, (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)):
            return does_not_answer(f"unix://{path}", error)
    if "dockerd" in machine.programs:
        how = "`systemctl start docker`" if machine.systemd else "`rlvr sandbox setup`"
        return MissingDependencyError("Docker is installed, but does not run", f"as root: {how}")
    if "podman" in machine.programs:
        how = "start its socket: `systemctl --user enable --now podman.socket`, as root without `--user`"
        return MissingDependencyError("Podman is installed, but its socket is not there", how)
    return MissingDependencyError("there is no container engine on this machine", SETUP)


def reason(error: Exception) -> str:
    """An error in words, without its number."""
    if isinstance(error, TimeoutError):
        return f"nothing within {PING_S:g} s"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def described(engine: DockerClient) -> str:
    """An engine in words, such as `docker 20.10.24`."""
    version = engine.version()
    parts = [str(part.get("Name", "")) for part in version.get("Components") or ()]
    name = "podman" if any("podman" in part.lower() for part in parts) else "docker"
    return f"{name} {version.get('Version', '')}".strip()
