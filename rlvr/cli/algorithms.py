"""`rlvr algorithms`: what each named algorithm sets."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from rlvr.algorithms import ALGORITHMS, GROUP
from rlvr.cli.flags import Json, flag, spell
from rlvr.cli.output import note, say, say_json, table
from rlvr.config import leaves
from rlvr.errors import UnknownNameError

PARTS = ("advantage", "scale", "loss", "clip_low", "clip_high", "aggregate")

app = App(name="algorithms", help="List the algorithms, or the settings of one.")


@app.default
def algorithms(
    name: Annotated[str, Parameter(help="An algorithm; none lists all.")] = "", /, *, json: Json = False
) -> int:
    """List the algorithms with what sets them apart, or all settings of one.

    `rlvr train --algorithm NAME` takes one; a flag changes any part of it.
    """
    if name and name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    chosen = {name: ALGORITHMS[name]} if name else ALGORITHMS
    if json:
        say_json(
            {
                key: {"summary": recipe.summary, "source": recipe.source, "settings": dict(recipe.settings)}
                for key, recipe in chosen.items()
            }
        )
    elif name:
        recipe = chosen[name]
        say(f"{name}: {recipe.summary}\n{recipe.source}\n")
        known = leaves()
        rows: list[tuple[str, ...]] = [
            (flag(key), spell(value), known[key].help) for key, value in recipe.settings.items()
        ]
        table(("flag", "value", "what it is"), rows)
    else:
        rows = []
        for key, recipe in chosen.items():
            columns = [spell(recipe.settings[f"learner.{part}"]) for part in PARTS]
            own = {k: v for k, v in recipe.settings.items() if k.removeprefix("learner.") not in PARTS}
            beyond = [f"{flag(k)} {spell(v)}" for k, v in own.items() if GROUP.get(k) != v]
            rows.append((key, *columns, "\n".join(beyond), recipe.summary))
        headings = [part.replace("_", "-") for part in PARTS]
        table(("name", *headings, "and", "what sets it apart"), rows)
        note("these are settings of the learner, such as `--learner.loss`; `rlvr algorithms NAME` says more")
    return 0
