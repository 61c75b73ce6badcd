"""The stages on TRL: `rlvr sft`, `rlvr prefer`, `rlvr reward`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from rlvr.cli.extras import needs_stages
from rlvr.cli.flags import ConfigFiles, DryRun, Json, Resume, check_resume, flag, takes_settings
from rlvr.cli.output import say, say_json
from rlvr.config import Layer, leaves
from rlvr.stages.config import STAGES, resolve_stage

ENTRIES = {"sft": "sft", "prefer": "prefer", "reward": "train_reward_model"}
"""The function of each stage, in the module of its name below `rlvr.stages`."""

FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    stage: {name: (flag(name),) for name in leaves(cls)} for stage, cls in STAGES.items()
}


@takes_settings(FLAGS["sft"], STAGES["sft"])
def sft(
    settings: Layer, *, config: ConfigFiles = (), resume: Resume = None, dry_run: DryRun = False, json: Json = False
) -> int:
    """Fine-tune a model on demonstrations: prompts, and what to answer.

    They come from `--data`; or with `--samples` from the model itself, its completions of the task's prompts that the
    verifier passes; or else from the task's gold answers. Only the answer is learned, not the prompt. Some prompts are
    held out to validate on, and with `--task` accuracy is measured before and after. `report.md` has it all.

    Ctrl-C writes a checkpoint and exits 130; `--resume` goes on from there.
    """
    return run("sft", settings, config, resume, dry_run, json)


@takes_settings(FLAGS["prefer"], STAGES["prefer"])
def prefer(
    settings: Layer, *, config: ConfigFiles = (), resume: Resume = None, dry_run: DryRun = False, json: Json = False
) -> int:
    """Train a policy on preferences: pairs of a better and a worse completion, or for kto completions that are good or
    bad.

    They come from `--data`, or are made of the policy's own completions of the task's train prompts, best against
    worst. dpo, ipo and kto keep a frozen reference, which is proven to stay as it was; simpo and orpo have none. Whole
    prompts are held out to validate on; with `--task` accuracy is measured before and after. `report.md` has it all.

    Ctrl-C writes a checkpoint and exits 130; `--resume` goes on from there.
    """
    return run("prefer", settings, config, resume, dry_run, json)


@takes_settings(FLAGS["reward"], STAGES["reward"])
def reward(
    settings: Layer, *, config: ConfigFiles = (), resume: Resume = None, dry_run: DryRun = False, json: Json = False
) -> int:
    """Train a reward model from preference pairs, by Bradley and Terry's loss.

    Pairs come from `--data`, or are made of completions of the task's own prompts: best against worst. Whole prompts
    are held out. Training stops when pairwise accuracy on them no longer grows, whatever the loss does, and the run's
    `final/` has the weights of the best validation. `report.md` has accuracy, calibration and margins.

    The model is what `rlvr verify reward-model TEXT --model RUN/final` and `rlvr train --reward reward-model
    --reward.model RUN/final` ask. It has learned an opinion, and checks nothing.
    """
    return run("reward", settings, config, resume, dry_run, json)


def run(stage: str, settings: Layer, config: Sequence[str], resume: str | None, dry_run: bool, json: bool) -> int:
    """Runs a stage, or shows its settings."""
    check_resume(resume, config, settings)
    resolved = resolve_stage(stage, settings, config, resume)
    if dry_run:
        say(resolved.toml().rstrip("\n"))
        return 0
    with needs_stages(f"rlvr {stage}"):
        entry = getattr(importlib.import_module(f"rlvr.stages.{stage}"), ENTRIES[stage])
    made = entry(resolved, resume=resume)
    if int(os.environ.get("RANK", "0")):  # of several processes, the first one speaks
        return 0
    if json:
        say_json({"run": str(made.path), "model": str(made.model), **made.facts()})
    else:
        say(str(made.path))
    return 0
