"""`rlvr sandbox`: the container engine, the image and the pool that model-written code runs in."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from rlvr.cli.flags import FLAGS, Json, Plugin, flag, takes_settings
from rlvr.cli.output import console, facts, note, say, say_json, shown, table
from rlvr.cli.verifiers import load
from rlvr.config import Layer, from_environment, leaves, resolve
from rlvr.errors import MissingDependencyError, UsageError
from rlvr.registry import registry
from rlvr.scoring import ready_sandbox
from rlvr.types import CodeSandbox

if TYPE_CHECKING:
    from rlvr_sandboxes.image import Image
    from rlvr_sandboxes.pool import Row

app = App(
    name="sandbox", help="Set up, build, check and manage what model-written code runs in.", group_parameters=FLAGS
)

SANDBOX_FLAGS = {
    name: (flag(name.removeprefix("sandbox.")), flag(name)) for name in leaves() if name.startswith("sandbox.")
}


@app.command
def setup(
    *, yes: Annotated[bool, Parameter(name=("--yes", "-y"), help="Do it without asking.", negative=())] = False
) -> int:
    """Install and start a container engine.

    On Debian and Ubuntu, as root: says what it will do, asks, installs the package `docker.io` where there is no
    Docker, and starts it, by systemd, by its init script or as a process of its own. Does nothing where an engine
    answers already. Elsewhere it prints how to get one and exits 3.
    """
    from rlvr_sandboxes.engine import client, described, locate
    from rlvr_sandboxes.installation import plan
    from rlvr_sandboxes.machine import Machine

    try:
        locate()
    except MissingDependencyError as error:
        steps = plan(Machine.here())
        note(f"{error.message}; to do, as root:")
        for step in steps:
            note(f"  {step.says}")
        if not yes and not agreed():
            return 1
        for step in steps:
            step.do(note)
    else:
        note("a container engine answers; nothing to do")
    with closing(client()) as engine:
        say(f"{described(engine)} at {locate()}")
    return 0


def agreed() -> bool:
    """Asks on the terminal.

    Raises:
        UsageError: There is none.
    """
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on", "`rlvr sandbox setup --yes` goes on without asking")
    console(stderr=True).print("Go on? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@app.command
def build(
    *,
    packages: Annotated[
        tuple[str, ...],
        Parameter(name="--with", help="A Python package to add, such as `numpy`; may be repeated.", negative=()),
    ] = (),
    base: Annotated[str, Parameter(help="A Python image to build on, instead of `python:3.12-slim`.")] = "",
    source: Annotated[
        Literal["auto", "pull", "debootstrap"],
        Parameter(name="--from", help="Build on an image from a registry, or on this system's packages."),
    ] = "auto",
    tag: Annotated[str, Parameter(help="What to call it, instead of the name that sandboxes look for.")] = "",
    force: Annotated[bool, Parameter(help="Build it even if it is there.", negative=())] = False,
    json: Json = False,
) -> int:
    """Build the image: a small Linux with Python and pytest.

    By itself it pulls the base and installs packages from PyPI; where nothing can be pulled, and this is Debian or
    Ubuntu and we are root, it uses `debootstrap` and the system's packages of the same names (`numpy` is
    `python3-numpy`). The image has no setuid programs. It is built anew when it lacks a package that is named.
    """
    from rlvr_sandboxes import image
    from rlvr_sandboxes.engine import client

    with closing(client()) as engine:
        built = image.build(
            engine, packages=packages, base=base, source=source, tag=tag or image.IMAGE, force=force, say=note
        )
    show(built, json)
    return 0


def show(image: Image, json: bool) -> None:
    if json:
        say_json(asdict(image))
        return
    facts(
        [
            ("image", image.tag),
            ("id", image.id),
            ("size", f"{image.size / 1e6:.0f} MB"),
            ("packages", ", ".join(image.packages) or "unknown"),
            ("from", image.source),
        ]
    )


@app.command
@takes_settings(SANDBOX_FLAGS)
def up(
    settings: Layer,
    size: Annotated[int, Parameter(help="How many containers; 0 takes one per processor.")] = 0,
    /,
    *,
    json: Json = False,
) -> int:
    """Start containers that stay, for whoever needs one.

    Nothing needs this: without it every worker starts its own container, in about half a second, and ends it. Those of
    the pool are found by runs with the same settings.
    """
    if size < 0:
        raise UsageError(f"`SIZE` is `{size}`, but must be at least 0", "0 takes one per processor")
    made = registry().sandbox("docker")(sandbox_settings(settings))

    from rlvr_sandboxes import pool
    from rlvr_sandboxes.docker import Docker
    from rlvr_sandboxes.engine import client
    from rlvr_sandboxes.image import require

    assert isinstance(made, Docker)
    with closing(client()) as engine:
        require(engine, made.image)
    show_pool(pool.up(size or len(os.sched_getaffinity(0)), made), json)
    return 0


@app.command
def down(*, json: Json = False) -> int:
    """End the containers of the pool. Those of running processes stay."""
    from rlvr_sandboxes import pool

    ended = pool.down()
    if json:
        say_json({"ended": ended})
    else:
        say(f"{ended} ended")
    return 0


@app.command
def status(*, json: Json = False) -> int:
    """List containers: those of the pool, and those of running processes."""
    from rlvr_sandboxes import pool

    show_pool(pool.status(), json)
    return 0


def show_pool(rows: list[Row], json: bool) -> None:
    if json:
        say_json([asdict(row) for row in rows])
    else:
        table(
            ("container", "image", "kind", "state", "status"),
            [(row.container, row.image, row.kind, row.state, row.status) for row in rows],
        )


@app.command(name="check")
@takes_settings(SANDBOX_FLAGS)
def check_sandbox(
    settings: Layer,
    name: Annotated[str, Parameter(help="A sandbox; without one, the safest that runs here.")] = "",
    /,
    *,
    seconds: Annotated[float, Parameter(help="How long to time each kind of execution; 0 leaves it out.")] = 2.0,
    plugin: Plugin = (),
    json: Json = False,
) -> int:
    """Try what model-written code might try, and say what holds.

    Runs the built-in list of attacks in the sandbox: on the machine around it, on its limits, and on the verdict. Then
    it measures how many executions one caller gets done. Exits 0 when everything holds, else 1.
    """
    from rlvr_sandboxes.check import check, speed

    if seconds < 0:
        raise UsageError(f"`--seconds` is `{seconds:g}`, but must be at least 0", "0 leaves the timing out")
    known, options = load(plugin), sandbox_settings(settings)
    with closing(known.sandbox(ready_sandbox(known, name, options))(options)) as made:
        if not isinstance(made, CodeSandbox):
            raise UsageError(
                f"the sandbox `{made.name}` runs programs only", "name one that keeps tests apart from code"
            )
        found = []
        for finding in check(made):
            found.append(finding)
            if not finding.held:
                note(f"does not hold: {finding.name}: {finding.detail}", "red")
        timed = list(speed(made, seconds)) if seconds else []
        isolation = dict(made.isolation)
    failed = [finding for finding in found if not finding.held]
    if json:
        say_json(
            {
                "sandbox": made.name,
                "isolation": isolation,
                "findings": [asdict(finding) for finding in found],
                "speed": [asdict(row) for row in timed],
            }
        )
        return 1 if failed else 0
    facts([("sandbox", made.name), *((name, plain(value)) for name, value in isolation.items())])
    say("")
    table(("check", "holds", "seen"), [(f.name, "yes" if f.held else "NO", f.detail) for f in found])
    if timed:
        say("")
        rows = [(row.name, f"{row.per_second:.0f}", f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}") for row in timed]
        numbers = ("a second", "p50 ms", "p99 ms")
        table(("one caller", *numbers), rows, right=numbers)
    say("")
    say(f"{len(found) - len(failed)} of {len(found)} hold")
    return 1 if failed else 0


def plain(value: Any) -> str:
    """A value of a sandbox's isolation as text."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else shown(value)


def sandbox_settings(flags: Layer) -> dict[str, Any]:
    """The settings of sandboxes, from flags and the environment."""
    environment = {name: text for name, text in from_environment(os.environ).items() if name.startswith("sandbox.")}
    return asdict(resolve([("environment", environment), ("flag", flags)]).config.sandbox)
