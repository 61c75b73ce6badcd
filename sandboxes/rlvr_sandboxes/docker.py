"""`docker`: a warm container per sandbox, and in it a process per execution.

The container has no network, a read-only root, three capabilities (to switch users and to kill), no way to gain more,
the engine's seccomp profile, and limits on memory, processes and processors. They are checked from inside at every
start, and one that is missing is an error. Works with Docker, and with Podman through its socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr import MissingDependencyError, RlvrError
from rlvr_sandboxes.engine import client, described
from rlvr_sandboxes.forkserver import (
    START_SECONDS,
    Channel,
    Connection,
    ForkServerSandbox,
    Lost,
    SocketChannel,
    boot,
    setup,
    version,
)
from rlvr_sandboxes.image import IMAGE, require
from rlvr_sandboxes.places import SOCKET, Place, places, runtime_folder

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "rlvr.sandbox"
OWNER = "rlvr.owner"
POOL = f"pool:{os.getuid()}"
OWNER_FILE = "owner"

CAPABILITIES = {"KILL": 5, "SETGID": 6, "SETUID": 7}
TMP_MB, SHM_MB = 64, 16
MOUNT = "/rlvr"
SOCKET_SECONDS = 10.0
"""How long the socket in the mounted folder may take to appear, before the streams of the engine are used instead."""


class Docker(ForkServerSandbox):
    """A hardened container, started once and used for one execution after the other.

    Args:
        image: The image to start from; it needs `python3`.
        runtime: An OCI runtime that the engine knows, such as `runsc` (gVisor); empty takes the engine's own.
        memory_mb: Memory of a container in MiB, for all of its processes; there is no swap.
        cpus: Processors that a container may use.
        pids: Processes and threads in a container.
        allow: Limits that may be missing, by name: memory, swap, pids, cpu, network, capabilities, seccomp, privileges,
            read-only.
    """

    name = "docker"

    def __init__(
        self,
        image: str = IMAGE,
        runtime: str = "",
        memory_mb: int = 768,
        cpus: float = 1.0,
        pids: int = 96,
        allow: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.image, self.runtime = image, runtime
        self.memory_mb, self.cpus, self.pids, self.allow = memory_mb, cpus, pids, frozenset(allow)
        self.engine: DockerClient | None = None
        self.inodes = True
        self.container = ""
        self.folder: Path | None = None
        self.place: Place | None = None
        self.by_streams = bool(runtime and runtime != "runc")

    # ------------------------------------------------------------------------------------------------ starting

    def start(self) -> Connection:
        connection = self.from_pool() or self.own()
        self.isolation = self.described(connection.facts)
        return connection

    def own(self) -> Connection:
        """A new container, which ends when this process does."""
        with self.talking() as engine:
            if self.by_streams:
                return self.over_streams(engine)
            try:
                return self.over_socket(engine)
            except NoSocketError:
                self.by_streams = True
                self.stop()
                return self.over_streams(engine)

    def over_socket(self, engine: DockerClient, stay: bool = False) -> Connection:
        """Starts a container and connects to the socket that it opens in a mounted folder."""
        self.folder = Path(tempfile.mkdtemp(prefix="c-", dir=runtime_folder()))
        self.folder.chmod(0o770)
        (self.folder / OWNER_FILE).write_text(POOL if stay else owner())
        self.container = self.create(engine, self.folder, f"{MOUNT}/{SOCKET}", stay)
        engine.api.start(self.container)
        path = self.folder / SOCKET
        deadline = time.monotonic() + SOCKET_SECONDS
        look = time.monotonic() + 0.5
        while not path.exists():
            if time.monotonic() > deadline:
                raise NoSocketError
            if time.monotonic() > look:
                look += 0.5
                self.check_running(engine)
            time.sleep(0.002)
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(START_SECONDS)
            link.connect(str(path))
        except OSError:
            link.close()
            raise NoSocketError from None
        return self.greet(SocketChannel(link), stay)

    def over_streams(self, engine: DockerClient) -> Connection:
        """Starts a container and talks to it over its standard streams, as a remote engine or gVisor needs."""
        self.container = self.create(engine, None, "-", stay=False)
        streams = {"stdin": 1, "stdout": 1, "stream": 1}
        attached = engine.api.attach_socket(self.container, params=streams)
        engine.api.start(self.container)
        return self.greet(AttachedChannel(attached), stay=False)

    def greet(self, channel: Channel, stay: bool) -> Connection:
        try:
            channel.send(setup(users=True, stay=stay))
            connection = Connection(channel, time.monotonic() + START_SECONDS)
        except BaseException:
            channel.close()
            raise
        missing = missing_limits(connection.facts, self.memory_mb << 20) - self.allow
        if missing:
            connection.close()
            listed = ", ".join(f"`{name}`" for name in sorted(missing))
            raise RlvrError(
                f"the container lacks limits that it should have: {listed}",
                f"mend the engine, or accept it with `--sandbox.allow {sorted(missing)[0]}`",
            )
        return connection

    def create(self, engine: DockerClient, folder: Path | None, where: str, stay: bool) -> str:
        """The id of a new container that has not been started."""
        api = engine.api
        files, shared = (",nr_inodes=4096", ",nr_inodes=1024") if self.inodes else ("", "")
        host = api.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=list(CAPABILITIES),
            security_opt=["no-new-privileges"],
            mem_limit=self.memory_mb << 20,
            memswap_limit=self.memory_mb << 20,
            pids_limit=self.pids,
            nano_cpus=int(self.cpus * 1e9),
            ipc_mode="private",
            tmpfs={
                "/tmp": f"rw,nosuid,nodev,size={TMP_MB}m{files},mode=1777",
                "/dev/shm": f"rw,nosuid,nodev,noexec,size={SHM_MB}m{shared},mode=1777",
            },
            binds={str(folder): {"bind": MOUNT, "mode": "rw"}} if folder else None,
            log_config={"type": "none"},
            auto_remove=True,
            **({"runtime": self.runtime} if self.runtime else {}),
        )
        made = api.create_container(
            self.image,
            command=["-s", "-c", boot(), where],
            entrypoint=["python3"],
            user=f"0:{os.getgid() if folder else 0}",
            working_dir="/",
            environment={"HOME": "/tmp", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
            labels={LABEL: version(), OWNER: POOL if stay else owner()},
            host_config=host,
            stdin_open=folder is None,
            stop_signal="SIGKILL",  # process 1 of a container heeds no other
            network_disabled=True,
        )
        identifier: str = made["Id"]
        return identifier

    def check_running(self, engine: DockerClient) -> None:
        state = engine.api.inspect_container(self.container)["State"]
        if state["Status"] not in ("created", "running"):
            raise Lost(
                f"its container ended with exit code {state['ExitCode']}: {state.get('Error') or 'no reason given'}"
            )

    @contextlib.contextmanager
    def talking(self) -> Iterator[DockerClient]:
        """The engine's client; what goes wrong with it is `Lost` when another try may help."""
        from docker.errors import APIError, DockerException, ImageNotFound
        from requests.exceptions import RequestException

        try:
            if self.engine is None:
                self.engine = client()
                self.inodes = not described(self.engine).startswith("podman")  # which refuses that option
                sweep(self.engine)
            yield self.engine
        except ImageNotFound:
            raise RlvrError(f"there is no image `{self.image}`", "`rlvr sandbox build` builds one") from None
        except APIError as error:
            self.forget()
            raise Lost(f"the engine refuses: {error.explanation or error}") from None
        except (DockerException, RequestException, OSError, MissingDependencyError) as error:
            self.forget()
            raise Lost(f"the engine does not answer: {getattr(error, 'message', error)}") from None

    def described(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "backend": self.name,
            "runtime": self.runtime or "default",
            "image": self.image,
            "python": facts["python"],
            "network": "none",
            "memory_mb": self.memory_mb,
            "pids": self.pids,
            "cpus": self.cpus,
            "seccomp": "engine and filter" if facts["seccomp"] else "engine",
            **({"missing": sorted(self.allow)} if self.allow else {}),
        }

    # ---------------------------------------------------------------------------------------------------- pool

    def from_pool(self) -> Connection | None:
        """A container of `rlvr sandbox up` that nobody uses, if there is one that fits."""
        if self.by_streams:
            return None
        for place in places():
            if not place.fits(self.wants()) or not place.lock():
                continue
            try:
                link = socket.socket(socket.AF_UNIX)
                link.settimeout(START_SECONDS)
                link.connect(str(place.folder / SOCKET))
                connection = Connection(SocketChannel(link), time.monotonic() + START_SECONDS)
            except (OSError, Lost):
                link.close()
                place.discard()
                continue
            self.place = place
            return connection
        return None

    def wants(self) -> dict[str, Any]:
        """What a container of the pool has to be like to serve in place of a new one."""
        return {
            "version": version(),
            "image": self.image,
            "runtime": self.runtime,
            "memory_mb": self.memory_mb,
            "cpus": self.cpus,
            "pids": self.pids,
            "allow": sorted(self.allow),
        }

    def add_to_pool(self) -> Place:
        """Starts a container that outlives this process and serves whoever connects, one at a time.

        Raises:
            Lost: It did not start.
            RlvrError: It lacks limits.
        """
        with self.talking() as engine:
            try:
                connection = self.over_socket(engine, stay=True)
            except NoSocketError:
                raise RlvrError(
                    "a pool needs an engine on this machine, which can mount a folder", "leave the pool out"
                ) from None
        connection.close()
        assert self.folder is not None
        facts = {"wants": self.wants(), "container": self.container}
        (self.folder / "facts.json").write_text(json.dumps(facts))
        place = Place(self.folder)
        self.folder, self.container = None, ""
        return place

    # ------------------------------------------------------------------------------------------------ stopping

    def stop(self) -> None:
        if self.place is not None:
            self.place.unlock()
            self.place = None
        container, self.container = self.container, ""
        if container and self.engine is not None:
            with contextlib.suppress(Exception):  # it ends when its channel closes; this is for one that does not
                self.engine.api.kill(container)
            self.forget()  # its connections to the engine would stay open
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def close(self) -> None:
        super().close()
        self.forget()

    def forget(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            with contextlib.suppress(Exception):
                engine.close()


def check_ready(image: str) -> None:
    """Whether containers of an image can be started here.

    Raises:
        MissingDependencyError: No engine answers, the SDK is missing, or the image is.
    """
    with contextlib.closing(client()) as engine:
        require(engine, image)


class NoSocketError(Exception):
    """A socket in a mounted folder does not reach the container, as with an engine in another machine."""


class AttachedChannel:
    """The standard streams of a container, as the engine multiplexes them: eight bytes of header before each piece."""

    def __init__(self, attached: Any) -> None:
        self.attached = attached
        self.link = getattr(attached, "_sock", attached)
        self.buffer = bytearray()
        self.left = 0

    def send(self, data: bytes) -> None:
        self.link.settimeout(START_SECONDS)
        self.link.sendall(data)

    def recv(self, size: int, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while True:
            if self.left and self.buffer:
                n = min(size, self.left, len(self.buffer))
                data = bytes(self.buffer[:n])
                del self.buffer[:n]
                self.left -= n
                return data
            if not self.left and len(self.buffer) >= 8:
                (self.left,) = struct.unpack("!I", self.buffer[4:8])
                del self.buffer[:8]
                continue
            self.link.settimeout(max(0.001, deadline - time.monotonic()))
            more = self.link.recv(1 << 18)
            if not more:
                return b""
            self.buffer += more

    def close(self) -> None:
        self.link.close()
        self.attached.close()


# ---------------------------------------------------------------------------------------------------- limits


def missing_limits(facts: dict[str, Any], memory: int) -> set[str]:
    """What a container lacks, by name, going by what its first process sees of itself.

    Args:
        facts: What the fork server said.
        memory: Bytes of memory that the container may use.
    """
    missing = set()

    def need(name: str, held: bool) -> None:
        if not held:
            missing.add(name)

    mask = sum(1 << bit for bit in CAPABILITIES.values())
    need("memory", facts["memory"] is not None and 0 < facts["memory"] <= memory)
    swap = facts["swap"]
    need("swap", facts["swap_total"] == 0 or (swap is not None and 0 <= swap <= memory))
    need("pids", facts["pids"] is not None and facts["pids"] > 0)
    need("cpu", facts["cpu"] is not None and facts["cpu"] > 0)
    need("capabilities", facts["capabilities"] | facts["bounding"] | mask == mask)
    need("seccomp", facts["engine_seccomp"])
    need("privileges", facts["no_new_privs"])
    need("read-only", facts["read_only"])
    tunnels = ("tunl", "sit", "ip6", "gre", "erspan", "ip_vti", "teql", "dummy")
    need("network", all(name == "lo" or name.startswith(tunnels) for name in facts["interfaces"]))
    if not facts["alone"]:
        raise RlvrError(
            "the fork server is not process 1 of its container", "the engine adds an init process; turn that off"
        )
    return missing


# -------------------------------------------------------------------------------------------- whose they are


def owner() -> str:
    """This process: its machine, its number, and when it started, as numbers are used again."""
    return f"{_machine()}:{os.getpid()}:{_start_time(os.getpid())}"


def _machine() -> str:
    """This machine since its last start, and the namespace in which process numbers mean what they mean here."""
    with contextlib.suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot_id}/{os.stat('/proc/self/ns/pid').st_ino}"
    return socket.gethostname()


def _start_time(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""


def sweep(engine: DockerClient) -> None:
    """Removes containers and folders whose owners have died on this machine without saying goodbye."""
    for row in engine.api.containers(all=True, filters={"label": LABEL}):
        if has_died(row["Labels"].get(OWNER, "")):
            with contextlib.suppress(Exception):  # somebody else may be at it
                engine.api.remove_container(row["Id"], force=True)
    for note in runtime_folder().glob(f"c-*/{OWNER_FILE}"):
        with contextlib.suppress(OSError):
            if has_died(note.read_text()):
                shutil.rmtree(note.parent, ignore_errors=True)


def has_died(who: str) -> bool:
    """Whether an owner was a process of this machine that is no more."""
    machine, _, rest = who.partition(":")
    pid, _, started = rest.partition(":")
    return machine == _machine() and pid.isdigit() and _start_time(int(pid)) != started
