"""`rlvr prefer`."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from rlvr.cli.extras import needs_stages
from rlvr.cli.flags import ConfigFiles, Json, flag, takes_settings
from rlvr.cli.output import say, say_json
from rlvr.config import Layer, leaves
from rlvr.errors import UsageError
from rlvr.stages.config import PreferConfig, resolve_stage

FLAGS: dict[str, tuple[str, ...]] = {name: (flag(name),) for name in leaves(PreferConfig)}


@takes_settings(FLAGS, PreferConfig)
def prefer(
    settings: Layer,
    *,
    config: ConfigFiles = (),
    resume: Annotated[
        str | None, Parameter(help="Go on with the run in this directory; its settings hold, flags change them.")
    ] = None,
    dry_run: Annotated[
        bool,
        Parameter(help="Print the resolved settings as TOML, each with where it came from, and stop.", negative=()),
    ] = False,
    json: Json = False,
) -> int:
    """Train a policy on preferences: pairs of a better and a worse completion, or for kto completions that are good or
    bad.

    They come from `--data`, or are made of the policy's own completions of the task's train prompts, best against
    worst. dpo, ipo and kto keep a frozen reference, which is proven to stay as it was; simpo and orpo have none. Whole
    prompts are held out to validate on; with `--task` accuracy is measured before and after. `report.md` has it all.

    Ctrl-C writes a checkpoint and exits 130; `--resume` goes on from there.
    """
    if resume is not None and config:
        raise UsageError("`--config` does not go with `--resume`", "a run keeps its settings; flags can change them")
    if resume is not None and "out" in settings:
        raise UsageError("`--out` does not go with `--resume`", "a resumed run stays in its directory")
    resolved = resolve_stage("prefer", settings, config, resume)
    if dry_run:
        say(resolved.toml().rstrip("\n"))
        return 0
    with needs_stages("rlvr prefer"):
        from rlvr.stages.prefer import prefer as run_stage
    run = run_stage(resolved, resume=resume)
    if int(os.environ.get("RANK", "0")):  # of several processes, the first one speaks
        return 0
    if json:
        say_json({"run": str(run.path), "model": str(run.model), **run.facts()})
    else:
        say(str(run.path))
    return 0
