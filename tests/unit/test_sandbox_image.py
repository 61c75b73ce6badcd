"""The sandbox image: what goes into it, how it is imported and built, what is said when it cannot be."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from rlvr_sandboxes import bootstrap, image, transfer
from rlvr_sandboxes.engine import client
from rlvr_sandboxes.machine import Machine

from rlvr import MissingDependencyError, UsageError, __version__

DEBIAN = Machine("Linux", frozenset({"debian"}), "bookworm", True, False, frozenset({"apt-get"}))


@pytest.fixture
def engine(needs_docker: None) -> Iterator[Any]:
    with closing(client()) as made:
        yield made


@pytest.fixture
def tag(engine: Any) -> Iterator[str]:
    """A name for an image that is gone afterwards."""
    name = f"rlvr-test-{uuid.uuid4().hex[:8]}:1"
    yield name
    transfer.drop(engine, name)


# What is asked for


@pytest.mark.parametrize(
    "name", ["numpy", "scikit-learn", "numpy==2.1.0", "pandas>=2,<3", "uvicorn[standard]", "a.b_c"]
)
def test_names_of_packages(name: str) -> None:
    image.check((name,), "", "auto")


@pytest.mark.parametrize("name", ["", "--index-url", "a b", "a;b", "$(id)", "git+https://x", "../x", "-r", "a`b`"])
def test_what_is_no_name_of_a_package(name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a package"):
        image.check((name,), "", "auto")


def test_a_base_is_for_pulling() -> None:
    with pytest.raises(UsageError, match="`--base` is for an image that is pulled"):
        image.check((), "python:3.13", "debootstrap")


@pytest.mark.parametrize(
    ("name", "debian"),
    [
        ("numpy", "python3-numpy"),
        ("scikit_learn", "python3-sklearn"),
        ("PyYAML", "python3-yaml"),
        ("Jinja2", "python3-jinja2"),
    ],
)
def test_names_of_debian(name: str, debian: str) -> None:
    assert bootstrap.debian_name(name) == debian


@pytest.mark.parametrize(
    ("machine", "packages", "why"),
    [
        (DEBIAN, ["numpy", "scikit-learn"], ""),
        (DEBIAN, ["numpy==2.1"], "without versions, not `numpy==2.1`"),
        (Machine("Linux", frozenset({"debian"}), "bookworm", programs=DEBIAN.programs), [], "it takes root"),
        (Machine("Darwin", root=True), [], "not Debian or Ubuntu"),
    ],
)
def test_where_debootstrap_works(machine: Machine, packages: list[str], why: str) -> None:
    obstacle = bootstrap.obstacle(machine, packages)
    assert why in obstacle
    assert bool(why) == bool(obstacle)


# The root filesystem


def test_what_is_packed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("dev", "proc", "tmp", "usr/bin", "usr/share/doc/x", "usr/share/locale/de", "var/log/apt", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/su").write_text("")
    (root / "usr/bin/su").chmod(0o4755)
    (root / "tmp").chmod(0o1777)
    (root / "tmp/left").write_text("x")
    (root / "etc/passwd").write_text("")
    (root / "etc/mtab").symlink_to("/proc/mounts")
    os.mkfifo(root / "etc/fifo")
    for n in (1, 2):
        bootstrap.pack(root, tmp_path / f"{n}.tar")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        entries = {entry.name.removeprefix("./"): entry for entry in tar.getmembers()}
    assert entries["usr/bin/su"].mode == 0o755
    assert entries["tmp"].mode == 0o1777
    assert entries["etc/mtab"].linkname == "/proc/mounts"
    assert {"dev", "proc", "var/log", "usr/share/locale"} <= set(entries)
    assert not {"tmp/left", "etc/fifo", "usr/share/doc", "usr/share/locale/de", "var/log/apt"} & set(entries)


def test_the_dockerfile_is_shipped_and_runs_as_no_root() -> None:
    recipe = resources.files("rlvr_sandboxes").joinpath("images", "python", "Dockerfile").read_text()
    assert f"ARG BASE={image.BASE}\n" in recipe
    assert [line for line in recipe.splitlines() if line.startswith("USER")][-1] == "USER sandbox"
    for pair in image.ENVIRONMENT:
        assert pair in recipe
    assert image.USER.strip() in recipe
    assert image.GROUP.strip() in recipe


# A registry that is silent


def test_a_silent_registry_is_given_up(tmp_path: Path) -> None:
    from docker import DockerClient

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with closing(DockerClient(base_url=f"unix://{tmp_path}/s", version="1.41")) as silent:
            with pytest.raises(OSError, match="timed out") as caught:
                list(transfer.create(silent, {"fromImage": "x"}, {}, silence=0.2))
            assert transfer.told(caught.value) == "no word in time"


# With an engine


def test_an_import_and_its_labels(engine: Any, tag: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"), None)
    data.seek(0)
    assert image.find(engine, tag) is None
    with pytest.raises(MissingDependencyError, match=f"there is no image `{tag}`"):
        image.require(engine, tag)
    transfer.load(engine, data, tag, image.changes(("pytest", "numpy"), 'a "quoted" source'))
    found = image.require(engine, tag)
    assert found.packages == ("pytest", "numpy")
    assert found.source == 'a "quoted" source'
    assert found.version == __version__
    assert engine.images.get(tag).attrs["Config"]["User"] == "sandbox"
    with pytest.raises(MissingDependencyError, match="does not start in the image"):
        image.prove(engine, found)


def test_what_is_no_tar_file_is_refused(engine: Any, tag: str) -> None:
    with pytest.raises(MissingDependencyError, match="cannot be imported"):
        transfer.load(engine, io.BytesIO(b"no tar file" * 100), tag, [])


def test_an_image_that_is_there_is_not_built_again(engine: Any) -> None:
    said: list[str] = []
    assert image.build(engine, say=said.append) == image.find(engine)
    assert said == [f"`{image.IMAGE}` is there already; `--force` builds it anew"]


def test_the_image_has_no_setuid_programs_and_its_user_is_not_root(engine: Any) -> None:
    script = "id -u; find / -xdev -perm /6000 2>/dev/null; command -v python3; python3 -c 'import pytest'"
    out = engine.containers.run(image.IMAGE, ["sh", "-c", script], network_mode="none", remove=True).decode().split()
    assert out[0] == "1000"
    assert out[1:] in (["/usr/bin/python3"], ["/usr/local/bin/python3"])


def test_a_base_without_pip_is_refused_and_leaves_nothing(engine: Any, tag: str) -> None:
    source = image.find(engine)
    assert source
    if not source.source.startswith("debootstrap"):
        pytest.skip("only the image made by debootstrap has no pip")
    untagged = {left.id for left in engine.images.list(filters={"dangling": True})}
    with pytest.raises(MissingDependencyError, match=f"cannot be built on `{image.IMAGE}`: .*pip") as caught:
        image.build(engine, base=image.IMAGE, tag=tag)
    assert "pip" in caught.value.hint
    assert image.find(engine, tag) is None
    assert image.find(engine, f"{tag}-draft") is None
    assert {left.id for left in engine.images.list(filters={"dangling": True})} <= untagged


def test_a_base_that_does_not_exist(engine: Any, tag: str) -> None:
    with pytest.raises(MissingDependencyError, match="`localhost:9/none:1` cannot be pulled"):
        image.build(engine, base="localhost:9/none:1", tag=tag)
