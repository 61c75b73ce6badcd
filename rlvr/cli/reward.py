"""`rlvr reward`."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from rlvr.cli.extras import needs_stages
from rlvr.cli.flags import ConfigFiles, Json, flag, takes_settings
from rlvr.cli.output import say, say_json
from rlvr.config import Layer, leaves
from rlvr.errors import UsageError
from rlvr.stages.config import RewardModelConfig, resolve_stage

FLAGS: dict[str, tuple[str, ...]] = {name: (flag(name),) for name in leaves(RewardModelConfig)}


@takes_settings(FLAGS, RewardModelConfig)
def reward(
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
    """Train a reward model from preference pairs, by Bradley and Terry's loss.

    Pairs come from `--data`, or are made of completions of the task's own prompts: best against worst. Whole prompts
    are held out. Training stops when pairwise accuracy on them no longer grows, whatever the loss does, and the run's
    `final/` has the weights of the best validation. `report.md` has accuracy, calibration and margins.

    The model is what `rlvr verify reward-model TEXT --model RUN/final` and `rlvr train --reward reward-model
    --reward.model RUN/final` ask. It has learned an opinion, and checks nothing.
    """
    if resume is not None and config:
        raise UsageError("`--config` does not go with `--resume`", "a run keeps its settings; flags can change them")
    if resume is not None and "out" in settings:
        raise UsageError("`--out` does not go with `--resume`", "a resumed run stays in its directory")
    resolved = resolve_stage("reward", settings, config, resume)
    if dry_run:
        say(resolved.toml().rstrip("\n"))
        return 0
    with needs_stages("rlvr reward"):
        from rlvr.stages.reward import train_reward_model
    run = train_reward_model(resolved, resume=resume)
    if int(os.environ.get("RANK", "0")):  # of several processes, the first one speaks
        return 0
    if json:
        say_json({"run": str(run.path), "model": str(run.model), **run.facts()})
    else:
        say(str(run.path))
    return 0
