"""`rlvr new`: packages to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from rlvr.cli.flags import FLAGS, Json
from rlvr.cli.output import note, say, say_json
from rlvr.registry import registry
from rlvr.scaffold import Kind, create

app = App(name="new", help="Make a package of your own: a verifier, or a task.", group_parameters=FLAGS)

Name = Annotated[str, Parameter(help="Its name: lower-case words joined by hyphens.")]
Out = Annotated[str, Parameter(help="The folder to put the package in.", show_default=True)]


@app.command(name="verifier")
def new_verifier(name: Name, /, *, out: Out = ".", json: Json = False) -> int:
    """Make a package with a verifier, a task that trains with it on the starter model, and tests that pass.

    It is a folder `rlvr-NAME`, whose path goes to stdout. What the verifier checks is an example, to be replaced.
    """
    return make("verifier", name, out, json)


@app.command(name="task")
def new_task(name: Name, /, *, out: Out = ".", json: Json = False) -> int:
    """Make a package with a TOML task, its data, and tests that pass.

    It is a folder `rlvr-NAME`, whose path goes to stdout. The task uses the verifier `math`; its data are an example,
    to be replaced.
    """
    return make("task", name, out, json)


def make(kind: Kind, name: str, out: str, json: bool) -> int:
    folder = create(kind, name, out, registry())
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    commands = after(kind, name, folder)
    if json:
        say_json({"package": str(folder), "files": files, "next": commands})
        return 0
    say(str(folder))
    for file in files:
        note(f"  {file}")
    note("next:")
    for command in commands:
        note(f"  {command}")
    return 0


def after(kind: Kind, name: str, folder: Path) -> list[str]:
    """What to run next."""
    path = str(folder) if folder.is_absolute() else f"./{folder}"
    check = "verifiers" if kind == "verifier" else "tasks"
    return [f"pip install -e {shlex.quote(path)}", f"rlvr {check} check {name}", f"rlvr train --task {name}"]
