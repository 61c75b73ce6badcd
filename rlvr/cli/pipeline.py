"""`rlvr pipeline`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rlvr.cli.flags import Json
from rlvr.cli.output import facts, say, say_json
from rlvr.errors import UsageError


def pipeline(
    recipe: Annotated[
        str | None, Parameter(help="A TOML file with the stages, in order; some are in `recipes/`.")
    ] = None,
    *,
    out: Annotated[str | None, Parameter(help="The chain's directory; without it one is made under `runs/`.")] = None,
    resume: Annotated[
        str | None, Parameter(help="Go on with the chain in this directory, with its recipe or another one.")
    ] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="With --resume: do this stage and all that follow anew.")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(help="Check the recipe, print what would be done with each stage, and stop.", negative=())
    ] = False,
    json: Json = False,
) -> int:
    """Run a chain of stages: each is a command of its own, and starts from the model that the one before it made.

    The recipe is checked from end to end before the first stage starts. What stages print goes to stderr and into a log
    each; after each that trains a policy comes its held-out accuracy, on the same problems for all. At the end stdout
    gets the path of the chain, a directory with the run of every stage and `report.md` about all of them.

    Ctrl-C lets the stage under way write a checkpoint and exits 130. `--resume` skips what is done and goes on in the
    middle of what is not; a stage that is done and has been changed in the recipe is named, and done anew only with
    `--from`.
    """
    from rlvr.pipeline.chain import known_chain, new_chain, status_words
    from rlvr.pipeline.recipe import read_recipe
    from rlvr.runlog import new_path

    if resume is None and recipe is None:
        raise UsageError("`rlvr pipeline` needs a recipe", "give the path of a TOML file; some are in `recipes/`")
    if resume is not None and out is not None:
        raise UsageError("`--out` does not go with `--resume`", "a chain stays in its directory")
    if resume is None and from_ is not None:
        raise UsageError("`--from` needs `--resume`", "it says which stages of a known chain are done anew")
    if resume is not None:
        chain = known_chain(Path(resume), recipe)
    else:
        assert recipe is not None
        chain = new_chain(recipe, Path(out) if out else new_path(read_recipe(recipe).name.replace(".", "-")))
    if dry_run:
        todo = chain.todo(from_ or "")
        rows = [
            {
                "stage": stage.name,
                "run": stage.run,
                "to do": words,
                "model": str(stage.values.get("policy" if stage.run == "pairs" else "model", "")),
                "uses": list(stage.uses),
                "command": chain.command(stage, what),
            }
            for stage, what, words in zip(chain.plan.stages, todo, status_words(todo), strict=True)
        ]
        if json:
            say_json({"path": str(chain.path), "stages": rows})
            return 0
        say(f"chain {chain.path}")
        for number, (row, stage) in enumerate(zip(rows, chain.plan.stages, strict=True), 1):
            say("")
            given = {name: value for name, value in stage.settings.items() if name != "model"}
            facts(
                [
                    (f"stage {number}", f"{stage.name}: rlvr {stage.run} ({row['to do']})"),
                    ("model", row["model"] or "–"),
                    ("settings", "\n".join(f"{name} = {value}" for name, value in given.items()) or "the defaults"),
                    ("command", shlex.join(str(word) for word in chain.command(stage, todo[number - 1]))),
                ]
            )
        return 0
    chain.run(from_ or "")
    if json:
        say_json({"path": str(chain.path), "stages": [vars(record) for record in chain.records]})
    else:
        say(str(chain.path))
    return 0
