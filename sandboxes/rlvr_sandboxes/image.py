"""The image that model-written code runs in: a small Linux with Python, pytest and the packages one asks for.

It is built on a pulled base by the packaged Dockerfile or, where nothing can be pulled, by `debootstrap`. Either way it
has no setuid programs, its user is not root, and labels say what is in it and where that came from.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlvr import MissingDependencyError, UsageError, __version__
from rlvr_sandboxes.bootstrap import bootstrap, obstacle, pack
from rlvr_sandboxes.commands import Say
from rlvr_sandboxes.machine import Machine
from rlvr_sandboxes.transfer import BUILD_S, drop, load, pull, told

if TYPE_CHECKING:
    from docker import DockerClient

IMAGE = "rlvr-sandbox:1"
"""The tag that sandboxes start from unless told otherwise. Its number grows when the recipe changes."""

BASE = "python:3.12-slim"
PROOF_S = 60.0
"""Seconds within which Python has to start in a new image."""

ALWAYS = ("pytest",)
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[\w,.-]+\])?([=<>!~]=?[\w.*+!]+(,[=<>!~]=?[\w.*+!]+)*)?")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

ENVIRONMENT = ("LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1")
USER = "sandbox:x:1000:1000::/tmp:/bin/sh\n"
GROUP = "sandbox:x:1000:\n"

Source = Literal["auto", "pull", "debootstrap"]


@dataclass(frozen=True)
class Image:
    """An image that is there.

    Attributes:
        tag: What it is called.
        id: Its digest, `sha256:...`.
        size: Bytes, all layers together.
        packages: What was asked to be in it, names as on PyPI.
        source: How it was made: the base with its digest, or `debootstrap`, the release and the mirror.
        version: The rlvr that built it; empty if it was somebody else.
    """

    tag: str
    id: str
    size: int
    packages: tuple[str, ...]
    source: str
    version: str


def find(engine: DockerClient, tag: str = IMAGE) -> Image | None:
    """The image of that name on this machine, or None."""
    from docker.errors import ImageNotFound

    try:
        found = engine.images.get(tag).attrs
    except ImageNotFound:
        return None
    labels = (found.get("Config") or {}).get("Labels") or {}
    return Image(
        tag=tag,
        id=found["Id"],
        size=found.get("Size", 0),
        packages=tuple(labels.get("rlvr.packages", "").split()),
        source=labels.get("rlvr.source", "unknown"),
        version=labels.get("rlvr.version", ""),
    )


def require(engine: DockerClient, tag: str = IMAGE) -> Image:
    """The image of that name.

    Raises:
        MissingDependencyError: It is not on this machine.
    """
    found = find(engine, tag)
    if found is None:
        hint = "`rlvr sandbox build`" if tag == IMAGE else f"`rlvr sandbox build --tag {tag}`, or `docker pull {tag}`"
        raise MissingDependencyError(f"there is no image `{tag}`", hint)
    return found


def build(
    engine: DockerClient,
    *,
    packages: Sequence[str] = (),
    base: str = "",
    source: Source = "auto",
    tag: str = IMAGE,
    force: bool = False,
    say: Say = lambda line: None,
) -> Image:
    """Builds the image, unless one with these packages is there.

    Args:
        engine: The container engine.
        packages: What to install beside pytest, names as on PyPI.
        base: A Python image to build on; empty is `BASE`.
        source: `pull` builds on the base, `debootstrap` on packages of this machine's release; `auto` tries them in
            this order, and keeps to the base if one is given.
        tag: What to call it.
        force: Build it even if it is there.
        say: Takes progress.

    Raises:
        UsageError: A name that is none, a package that does not exist, flags that exclude each other.
        MissingDependencyError: Neither way works here, and why.
    """
    from docker.utils import parse_repository_tag

    wanted = tuple(dict.fromkeys([*ALWAYS, *packages]))
    check(wanted, base, source)
    before = find(engine, tag)
    if before and not force and set(wanted) <= set(before.packages) and (not base or before.source.startswith(base)):
        say(f"`{tag}` is there already; `--force` builds it anew")
        return before
    name, version = parse_repository_tag(tag)
    draft = f"{name}:{version or 'latest'}-draft"  # so that what is there stays until its successor has started once
    try:
        make(engine, wanted, base, source, draft, say)
        made = require(engine, draft)
        prove(engine, made)
        engine.images.get(made.id).tag(name, version or "latest")
    finally:
        drop(engine, draft)
    if before and before.version and before.id != made.id:
        drop(engine, before.id)
    return replace(made, tag=tag)


def make(engine: DockerClient, packages: Sequence[str], base: str, source: Source, tag: str, say: Say) -> None:
    """Builds the image in the way that is asked for, or in the first that works."""
    machine = Machine.here()
    if source == "debootstrap":
        by_debootstrap(engine, packages, tag, machine, say)
        return
    try:
        by_pull(engine, packages, base or BASE, tag, say)
    except MissingDependencyError as error:
        if source == "pull" or base:
            raise
        if why := obstacle(machine, packages):
            hint = f"{error.hint}; `debootstrap` would do without, but {why}"
            raise MissingDependencyError(error.message, hint) from error
        say(f"{error.message}; going on without it, by debootstrap")
        by_debootstrap(engine, packages, tag, machine, say)


def check(packages: Sequence[str], base: str, source: Source) -> None:
    """Raises UsageError for what cannot be meant."""
    for package in packages:
        if not PACKAGE.fullmatch(package):
            raise UsageError(
                f"`{package}` is not the name of a package", "write `--with numpy`, or `--with numpy==2.1`"
            )
    if base and source == "debootstrap":
        raise UsageError("`--base` is for an image that is pulled", "leave out `--base` or `--from debootstrap`")


def labels(packages: Sequence[str], source: str) -> dict[str, str]:
    """What the image says of itself."""
    return {"rlvr.version": __version__, "rlvr.packages": " ".join(packages), "rlvr.source": source}


# ---------------------------------------------------------------------------------------------- on a pulled base


def by_pull(engine: DockerClient, packages: Sequence[str], base: str, tag: str, say: Say) -> None:
    """Builds by the packaged Dockerfile on a base that is here or can be pulled.

    Raises:
        MissingDependencyError: The base cannot be pulled, or a package cannot be installed on it.
    """
    from docker.errors import DockerException, ImageNotFound

    try:
        found = engine.images.get(base)
    except ImageNotFound:
        pull(engine, base, say)
        found = engine.images.get(base)
    digests = [digest.partition("@")[2] for digest in found.attrs.get("RepoDigests") or []]
    source = " ".join([base, *digests[:1]])
    say(f"building on {base}: pip install {' '.join(packages)}")
    recipe = resources.files("rlvr_sandboxes").joinpath("images", "python", "Dockerfile").read_bytes()
    said: list[str] = []
    try:
        for event in engine.api.build(
            fileobj=io.BytesIO(recipe),
            tag=tag,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=BUILD_S,
            buildargs=proxies() | {"BASE": base, "PACKAGES": " ".join(packages)},
            labels=labels(packages, source),
        ):
            said += [line for line in COLOUR.sub("", str(event.get("stream", ""))).splitlines() if line.strip()]
            if "error" in event:
                forget(engine, said)
                raise MissingDependencyError(
                    f"the image cannot be built on `{base}`: {why_not(said) or event['error']}",
                    "the base needs `python3` with pip, and the build needs the package index",
                )
    except (DockerException, OSError) as error:
        raise MissingDependencyError(
            f"the image cannot be built on `{base}`: {told(error)}", "look at the engine's log"
        ) from error


def why_not(said: Sequence[str]) -> str:
    """The line that says why a build failed: the last error, else the last that is not the engine's own."""
    own = (" --->", "Step ", "Removing intermediate", "Successfully")
    lines = [line for line in said if not line.startswith(own)]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1].strip()


def forget(engine: DockerClient, said: Sequence[str]) -> None:
    """Removes what a build that failed has left."""
    layers = [line.removeprefix(" ---> ") for line in said if re.fullmatch(" ---> [0-9a-f]+", line)]
    if len(layers) > 1:  # the first is the base
        drop(engine, layers[-1])


def proxies() -> dict[str, str]:
    """The environment's proxies as build arguments; the engine keeps those out of the image."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in (*names, *map(str.upper, names)) if name in os.environ}


# ------------------------------------------------------------------------------------------------- by debootstrap


def by_debootstrap(engine: DockerClient, packages: Sequence[str], tag: str, machine: Machine, say: Say) -> None:
    """Imports a root filesystem that `debootstrap` makes.

    Raises:
        MissingDependencyError: Not possible here, or its mirror is away.
        UsageError: There is no such package.
    """
    if why := obstacle(machine, packages):
        raise MissingDependencyError(
            f"`debootstrap` cannot make the image: {why}",
            "`--from pull` builds on an image from a registry, `--base IMAGE` on one that is here",
        )
    # /tmp is often mounted without device files, which debootstrap has to make
    with tempfile.TemporaryDirectory(prefix="rlvr-image-", dir=os.environ.get("TMPDIR") or "/var/tmp") as work:
        root, packed = Path(work, "root"), Path(work, "root.tar")
        root.mkdir(mode=0o755)
        source = bootstrap(root, packages, machine, say)
        for name, line in (("passwd", USER), ("group", GROUP)):
            with open(root / "etc" / name, "a", encoding="utf-8") as file:
                file.write(line)
        pack(root, packed)
        say(f"importing {packed.stat().st_size / 1e6:.0f} MB")
        with packed.open("rb") as data:
            load(engine, data, tag, changes(packages, source))


def changes(packages: Sequence[str], source: str) -> list[str]:
    """What an imported image needs beside its files, as lines of a Dockerfile."""
    return [
        *(f"ENV {pair}" for pair in ENVIRONMENT),
        "ENV PATH=/usr/local/bin:/usr/bin:/bin",
        *(f"LABEL {name}={json.dumps(value)}" for name, value in labels(packages, source).items()),
        "WORKDIR /tmp",
        "USER sandbox",
        'CMD ["python3"]',
    ]


def prove(engine: DockerClient, image: Image) -> None:
    """Starts Python in the image once.

    Raises:
        MissingDependencyError: It does not start, or has no pytest.
    """
    from docker.errors import DockerException

    try:
        container = engine.containers.create(image.id, ["python3", "-c", "import pytest"], network_mode="none")
        try:
            container.start()
            code = container.wait(timeout=PROOF_S)["StatusCode"]
            last = container.logs(stdout=False).decode(errors="replace").strip().rpartition("\n")[2]
        finally:
            container.remove(force=True)
    except (DockerException, OSError) as error:
        code, last = 1, told(error)
    if code:
        raise MissingDependencyError(
            f"pytest does not start in the image: {last}", "another `--base` may do; the engine's log says more"
        )
