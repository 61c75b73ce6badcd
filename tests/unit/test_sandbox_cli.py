"""`rlvr sandbox`: how an engine is found, what is said when there is none, how one is put there; the commands."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rlvr_sandboxes import engine, installation
from rlvr_sandboxes.commands import complaint, run
from rlvr_sandboxes.docker import OWNER, POOL
from rlvr_sandboxes.machine import Machine

from rlvr import MissingDependencyError
from rlvr.cli import app, main

DEBIAN = Machine("Linux", frozenset({"debian"}), "bookworm", True, False, frozenset({"apt-get", "service"}))

DAEMON = """#!{python}
import os, socket, sys
print("starting up", flush=True)
{trouble}
server = socket.socket(socket.AF_UNIX)
server.bind({path!r})
server.listen()
open({path!r} + ".pid", "w").write(f"{{os.getpid()}} {{os.getsid(0)}}")
while True:
    channel, _ = server.accept()
    channel.recv(1 << 16)
    channel.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nOK")
    channel.close()
"""

Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "RLVR_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", os.devnull)
    monkeypatch.setattr(engine, "PING_S", 0.3)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(answer)` is the path of a socket that answers each connection with these bytes; with nothing for None."""
    servers: list[socket.socket] = []
    held: list[socket.socket] = []

    def start(answer: bytes | None, path: Path = tmp_path / "engine.sock") -> str:
        server = socket.socket(socket.AF_UNIX)
        servers.append(server)
        server.bind(str(path))
        server.listen()

        def loop() -> None:
            while True:
                try:
                    channel, _ = server.accept()
                except OSError:
                    return
                if answer is None:
                    held.append(channel)
                    continue
                with channel:
                    channel.recv(1 << 16)
                    channel.sendall(answer)

        threading.Thread(target=loop, daemon=True).start()
        return str(path)

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for channel in held:
        channel.close()


def reply(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body


# Finding an engine


def test_an_engine_that_answers_is_found(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    path = serve(reply(b'{"ApiVersion": "1.41", "Version": "4.9.3", "Components": [{"Name": "Podman Engine"}]}'))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert engine.locate() == f"unix://{path}"
    with closing(engine.client(timeout=7)) as found:
        assert engine.described(found) == "podman 4.9.3"
        assert found.api.timeout == 7


@pytest.mark.parametrize(
    ("answer", "why"),
    [(None, "nothing within 2 s"), (reply(b"", "500 Oops"), "the status 500"), (b"SSH-2.0\r\n", "SSH-2.0")],
)
def test_one_that_does_not_answer_properly_is_named_within_the_bound(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, why: str
) -> None:
    path = serve(answer)
    monkeypatch.setattr(engine, "sockets", lambda environ: iter([path]))
    monkeypatch.setattr(engine, "ping", lambda path, ping=engine.ping: ping(path, 0.2))
    monkeypatch.setattr(engine, "PING_S", 2.0)
    with pytest.raises(MissingDependencyError) as caught:
        engine.locate()
    assert f"`unix://{path}` does not answer" in caught.value.message
    assert why in caught.value.message
    assert "journalctl" in caught.value.hint


def test_docker_host_is_the_only_one_that_is_tried(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = serve(reply(b"OK"))
    monkeypatch.setattr(engine, "sockets", lambda environ: iter([there]))
    assert engine.locate() == f"unix://{there}"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(MissingDependencyError) as caught:
        engine.client()
    assert "none.sock` does not answer: No such file" in caught.value.message
    assert "unset `DOCKER_HOST`" in caught.value.hint


def test_sockets_of_the_system_and_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(engine.sockets({"XDG_RUNTIME_DIR": "/run/user/7"})) == [
        "/var/run/docker.sock",
        "/run/user/7/docker.sock",
        "/run/user/7/podman/podman.sock",
        "/run/podman/podman.sock",
    ]


@pytest.mark.parametrize(
    ("errors", "machine", "message", "hint"),
    [
        ([FileNotFoundError()], DEBIAN, "there is no container engine", "`rlvr sandbox setup`"),
        (
            [FileNotFoundError(), PermissionError()],
            DEBIAN,
            "may not open the container engine's socket `1`",
            "-aG docker",
        ),
        (
            [ConnectionRefusedError()],
            Machine(programs=frozenset({"dockerd"})),
            "Docker is installed, but does not run",
            "`rlvr sandbox setup`",
        ),
        (
            [FileNotFoundError()],
            Machine(programs=frozenset({"dockerd"}), systemd=True),
            "Docker is installed, but does not run",
            "`systemctl start docker`",
        ),
        ([FileNotFoundError()], Machine(programs=frozenset({"podman"})), "Podman is installed", "podman.socket"),
        ([TimeoutError()], DEBIAN, "at `unix://0` does not answer", "start it again"),
    ],
)
def test_what_is_said_when_no_engine_answers(
    errors: list[Exception], machine: Machine, message: str, hint: str
) -> None:
    error = engine.none_answers({str(i): error for i, error in enumerate(errors)}, machine)
    assert message in error.message
    assert hint in error.hint
    assert error.exit_code == 3


def test_a_missing_sdk_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(MissingDependencyError) as caught:
        engine.client()
    assert "Docker SDK" in caught.value.message
    assert caught.value.hint.startswith("pip install")


# What setup decides


@pytest.mark.parametrize(
    ("machine", "steps"),
    [
        (DEBIAN, ["apt-get install -y docker.io", "service docker start, or else dockerd"]),
        (
            Machine("Linux", frozenset({"ubuntu", "debian"}), "noble", True, True, DEBIAN.programs),
            ["apt-get", "systemctl"],
        ),
        (Machine("Linux", frozenset({"debian"}), "", True, True, DEBIAN.programs | {"dockerd"}), ["systemctl start"]),
        (Machine("Linux", frozenset({"debian"}), "", True, False, DEBIAN.programs | {"dockerd"}), ["service docker"]),
    ],
)
def test_setup_installs_what_is_missing_and_starts_it(machine: Machine, steps: list[str]) -> None:
    planned = installation.plan(machine)
    assert len(planned) == len(steps)
    for step, start in zip(planned, steps, strict=True):
        assert step.says.startswith(start)


@pytest.mark.parametrize(
    ("machine", "message", "hint"),
    [
        (Machine("Linux", frozenset({"debian"}), programs=DEBIAN.programs), "takes root", "`sudo "),
        (Machine("Darwin"), "on Debian and Ubuntu only", "colima"),
        (Machine("Linux", frozenset({"fedora"}), root=True), "on Debian and Ubuntu only", "dnf install -y podman"),
        (
            Machine("Linux", frozenset({"rocky", "rhel", "centos"})),
            "on Debian and Ubuntu only",
            "dnf install -y podman",
        ),
        (Machine("Linux", frozenset({"nixos"})), "on Debian and Ubuntu only", "docs.docker.com"),
    ],
)
def test_setup_says_how_elsewhere(machine: Machine, message: str, hint: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        installation.plan(machine)
    assert message in caught.value.message
    assert hint in caught.value.hint


# Starting a daemon


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`daemon(trouble="")` puts a program `dockerd` in the way that answers pings; returns the path of its socket."""
    path = tmp_path / "docker.sock"

    def place(trouble: str = "") -> Path:
        program = tmp_path / "dockerd"
        program.write_text(DAEMON.format(python=sys.executable, path=str(path), trouble=trouble))
        program.chmod(0o755)
        return path

    monkeypatch.setattr(installation, "PATH", str(tmp_path))
    monkeypatch.setattr(installation, "SOCKET", str(path))
    monkeypatch.setattr(installation, "LOG", str(tmp_path / "log"))
    monkeypatch.setattr(installation, "PATIENCE_S", 20.0)
    yield place
    if (note := Path(f"{path}.pid")).exists():
        pid = int(note.read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_daemon_is_started_in_a_session_of_its_own(daemon: Callable[..., Path]) -> None:
    path = daemon()
    said: list[str] = []
    installation.start_without_systemd(said.append)
    assert installation.answers()
    assert said[-1].startswith("dockerd >>")
    pid, session = Path(f"{path}.pid").read_text().split()
    assert pid == session
    installation.start_without_systemd(said.append)  # it runs: nothing to do
    assert Path(f"{path}.pid").read_text().split()[0] == pid


def test_a_daemon_that_ends_at_once_says_why(daemon: Callable[..., Path]) -> None:
    daemon('sys.exit("failed to start daemon: no cgroups")')
    with pytest.raises(MissingDependencyError, match="Docker did not start: failed to start daemon: no cgroups"):
        installation.start_daemon()


def test_a_daemon_that_never_answers_is_not_waited_for_for_ever(
    daemon: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon('open(sys.argv[0] + ".pid", "w").write(str(os.getpid())); import time; time.sleep(100)')
    monkeypatch.setattr(installation, "PATIENCE_S", 1.0)
    with pytest.raises(MissingDependencyError, match="does not answer within 1 s"):
        installation.start_daemon()
    pid = int((tmp_path / "dockerd.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# Commands of the system


def test_a_command_that_fails_says_its_error() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        run(["sh", "-c", "echo 'E: Unable to locate package x'; echo done; exit 100"], "look there")
    assert caught.value.message.endswith("failed: E: Unable to locate package x")
    assert caught.value.hint == "look there"
    assert run(["sh", "-c", "echo a; echo $DEBIAN_FRONTEND"], "") == "a\nnoninteractive"


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(MissingDependencyError, match="`no-such-program` cannot be run"):
        run(["no-such-program"], "")


def test_complaints() -> None:
    assert complaint([]) == "it does not say why"
    assert complaint(["a", "E: b", "c", ""]) == "E: b"
    assert complaint(["a", "c", ""]) == "c"


# The commands


def test_setup_where_an_engine_answers(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = serve(reply(b'{"ApiVersion": "1.41", "Version": "20.10.24"}'))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert main(["sandbox", "setup", "--yes"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"docker 20.10.24 at unix://{path}\n"
    assert "nothing to do" in printed.err


def test_setup_asks_before_it_does_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "sockets", lambda environ: iter(["/nowhere/docker.sock"]))
    monkeypatch.setattr(Machine, "here", lambda: DEBIAN)
    monkeypatch.setattr(installation, "apt_install", lambda packages, say: pytest.fail("it did not ask"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["sandbox", "setup"]) == 2
    printed = capsys.readouterr()
    assert "  apt-get install -y docker.io\n" in printed.err
    assert printed.err.endswith(
        "error: there is no terminal to ask on\nhint: `rlvr sandbox setup --yes` goes on without asking\n"
    )
    monkeypatch.setattr(importlib.import_module("rlvr.cli.sandbox"), "agreed", lambda: False)
    assert main(["sandbox", "setup"]) == 1


def test_setup_and_build_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(engine, "sockets", lambda environ: iter(["/nowhere/docker.sock"]))
    monkeypatch.setattr(Machine, "here", lambda: Machine("Darwin"))
    assert main(["sandbox", "setup", "--yes"]) == 3
    assert "brew install colima" in capsys.readouterr().err
    assert main(["sandbox", "build"]) == 3
    assert capsys.readouterr().err.startswith("error: there is no container engine on this machine\nhint: ")


# Containers


@pytest.fixture
def own_pool(needs_docker: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A pool beside that of this machine: settings that nobody has, sockets in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:  # short: the paths of sockets are
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("RLVR_SANDBOX_CPUS", "0.61")
        with closing(engine.client()) as docker:
            before = {row["Id"] for row in docker.api.containers(all=True)}
            yield folder
            for row in docker.api.containers(all=True, filters={"label": f"{OWNER}={POOL}"}):
                if row["Id"] not in before:
                    docker.api.remove_container(row["Id"], force=True)


def test_containers_that_stay(own_pool: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for _ in range(2):  # the second time it is there
        assert main(["sandbox", "up", "1", "--memory-mb", "256", "--json"]) == 0
        rows.append([row for row in json.loads(capsys.readouterr().out) if row["state"] == "idle"])
    assert rows[0][0]["kind"] == "pool"
    assert [row["container"] for row in rows[0]] == [row["container"] for row in rows[1]]
    assert main(["sandbox", "status"]) == 0
    assert rows[0][0]["container"] in capsys.readouterr().out


def test_check_says_what_holds(needs_docker: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sandbox", "check", "docker", "--seconds", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sandbox"] == "docker"
    assert told["isolation"]["image"]
    assert len(told["findings"]) > 20
    assert all(finding["held"] for finding in told["findings"])
    assert all(row["per_second"] > 0 for row in told["speed"])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("up -- -1", "`SIZE` is `-1`, but must be at least 0"),
        ("up 1 --cpus zero", "`--cpus` is `zero`, but must be a number"),
        ("check --seconds=-1", "`--seconds` is `-1`, but must be at least 0"),
        ("check dokcer", "there is no sandbox named `dokcer`"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], line: str, error: str) -> None:
    assert main(["sandbox", *line.split()]) == 2
    assert error in capsys.readouterr().err


# The guide


def test_the_guides_commands_are_commands() -> None:
    page = Path(__file__).parents[2] / "docs" / "guide" / "sandbox.md"
    shown = re.findall(r"^\$ rlvr (sandbox [^#\n]*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    shown += re.findall(r"`rlvr (sandbox [^`]*)`", page.read_text(encoding="utf-8"))
    assert len(shown) > 5
    for line in shown:
        app.parse_args(shlex.split(line), exit_on_error=False, print_error=False)
