"""A root filesystem with Python made by `debootstrap`, for where no image can be pulled."""

from __future__ import annotations

import copy
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from rlvr import MissingDependencyError, UsageError
from rlvr_sandboxes.commands import APT, Say, apt_install, run
from rlvr_sandboxes.machine import Machine

MIRRORS = {"debian": "http://deb.debian.org/debian", "ubuntu": "http://archive.ubuntu.com/ubuntu"}
COMPONENTS = {"debian": "main", "ubuntu": "main,universe"}

PACKAGES = {  # where Debian's name is not `python3-` and the name on PyPI
    "attrs": "python3-attr",
    "beautifulsoup4": "python3-bs4",
    "pillow": "python3-pil",
    "pyyaml": "python3-yaml",
    "python-dateutil": "python3-dateutil",
    "scikit-image": "python3-skimage",
    "scikit-learn": "python3-sklearn",
}

STAGES = {  # what debootstrap prints, and what we say of it
    "I: Retrieving": "fetching packages",
    "I: Extracting": "unpacking",
    "I: Installing core": "setting up the base system",
}

EMPTY = ("dev", "proc", "run", "sys", "tmp", "var/cache", "var/lib/apt", "var/log", "var/tmp", "usr/share/locale")
"""Directories that stay without what is in them."""
LEFT_OUT = ("usr/share/doc", "usr/share/info", "usr/share/man", "usr/share/bash-completion", "usr/share/lintian")


def obstacle(machine: Machine, packages: Sequence[str]) -> str:
    """Why `debootstrap` cannot make an image with these packages here; empty if it can."""
    if not machine.debian or not machine.release:
        return "this is not Debian or Ubuntu"
    if not machine.root:
        return "it takes root"
    pinned = [package for package in packages if not re.fullmatch(r"[\w.-]+", package)]
    return f"it takes names without versions, not `{pinned[0]}`" if pinned else ""


def debian_name(package: str) -> str:
    """Debian's name of a package on PyPI: `scikit-learn` is `python3-sklearn`."""
    plain = re.sub(r"[-_.]+", "-", package).lower()
    return PACKAGES.get(plain, f"python3-{plain}")


def bootstrap(folder: Path, packages: Sequence[str], machine: Machine, say: Say) -> str:
    """Installs a small Debian or Ubuntu with Python and `packages` in a folder; of the release that runs here.

    Mounts are made in a mount namespace of the command's own, so that none is left whatever happens.

    Args:
        folder: An empty directory on a filesystem that allows device files.
        packages: Names as on PyPI, without versions.
        machine: Where we are; root on Debian or its kind.
        say: Takes progress.

    Returns:
        How it was made.

    Raises:
        MissingDependencyError: The mirror, or something else that this takes, is not there.
        UsageError: The release has no such package.
    """
    if "debootstrap" not in machine.programs:
        apt_install(["debootstrap"], say)
    kind = "ubuntu" if "ubuntu" in machine.distributions else "debian"
    mirror = configured_mirror(machine.release) or MIRRORS[kind]
    said: set[str] = set()

    def watch(line: str) -> None:
        for start, stage in STAGES.items():
            if line.startswith(start) and start not in said:
                said.add(start)
                say(f"debootstrap: {stage}")

    say(f"debootstrap {machine.release} from {mirror}")
    apart = ["unshare", "--mount"]
    run(
        [
            *(*apart, "debootstrap", "--variant=minbase", f"--components={COMPONENTS[kind]}"),
            *(machine.release, str(folder), mirror),
        ],
        f"check that `{mirror}` can be reached and that this machine may mount and make device files",
        watch,
    )
    names = ["python3", *map(debian_name, packages)]
    inside = [*apart, "chroot", str(folder), *APT]
    for package, name in zip(packages, names[1:], strict=True):
        try:
            run([*inside, "--simulate", "install", name], "")
        except MissingDependencyError:
            raise UsageError(
                f"{kind} {machine.release} has no package `{name}` for `{package}`",
                "leave it out, or use `--from pull`, which installs from PyPI",
            ) from None
    say(f"apt-get install {' '.join(names)}")
    run([*inside, "install", "-y", "--no-install-recommends", *names], f"check that `{mirror}` can be reached")
    return f"debootstrap {machine.release} {mirror}"


def configured_mirror(release: str) -> str:
    """The mirror that apt uses for a release; empty if it does not say."""
    form = "$(CODENAME) $(RELEASE) $(COMPONENT) $(REPO_URI)"
    try:
        listed = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], "")
    except MissingDependencyError:
        return ""
    for line in listed.splitlines():
        code_name, suite, component, uri = [*line.split(" "), "", "", "", ""][:4]
        if release in (code_name, suite) and component == "main" and uri.startswith("http"):
            return uri.rstrip("/")
    return ""


def pack(folder: Path, target: Path) -> None:
    """Writes a root filesystem as a tar file, without what an image has no use for.

    Documentation, translations, caches, logs, device files and setuid bits stay behind. Names are sorted and
    fractions of seconds dropped, so that equal filesystems give equal files.
    """
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder, arcname=".", filter=kept)


def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The entry as it goes into the image, or None for one that does not."""
    path = entry.name.removeprefix("./")
    if path in LEFT_OUT or entry.isdev() or any(path.startswith(f"{folder}/") for folder in EMPTY):
        return None
    entry = copy.copy(entry)
    entry.mode &= 0o1777
    entry.mtime = int(entry.mtime)
    entry.uname = entry.gname = ""
    return entry
