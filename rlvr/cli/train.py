"""`rlvr train`."""

from __future__ import annotations

import os
from dataclasses import asdict

from rlvr.cli.extras import needs_train
from rlvr.cli.flags import ConfigFiles, DryRun, Json, Resume, check_resume, flag, takes_settings
from rlvr.cli.output import say, say_json
from rlvr.config import Layer, leaves
from rlvr.settings import resolve_run

FLAGS: dict[str, tuple[str, ...]] = {name: (flag(name),) for name in leaves()} | {
    "scorer.sandbox": ("--sandbox", "--scorer.sandbox"),
    "sampler.backend": ("--sampler.backend", "--sampler"),
    "sampler.staleness": ("--staleness", "--sampler.staleness"),
    "reward.verifier": ("--reward.verifier", "--reward"),
}


@takes_settings(FLAGS)
def train(
    settings: Layer,
    *,
    config: ConfigFiles = (),
    resume: Resume = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Train a policy on a task, with rewards that a verifier checks.

    A flag wins over the environment (`RLVR_LEARNER_LR`), that over `--config`, that over the task's own
    defaults, those over the algorithm's and ours. Progress goes to stderr; at the end stdout gets the path of
    the run, a directory with its settings, metrics, every completion, checkpoints and the trained model.

    Ctrl-C writes a checkpoint and exits 130; `--resume` goes on from there.
    """
    check_resume(resume, config, settings)
    resolved = resolve_run(settings, config, resume)
    if dry_run:
        say(resolved.toml().rstrip("\n"))
        return 0
    with needs_train("rlvr train"):
        from rlvr.loop import train as run_training
    run = run_training(resolved, resume=resume)
    if int(os.environ.get("RANK", "0")):  # of several processes, the first one speaks
        return 0
    if json:
        before, after = run.before, run.after
        say_json(
            {
                "run": str(run.path),
                "model": str(run.model),
                "before": asdict(before) if before else None,
                "after": asdict(after) if after else None,
            }
        )
    else:
        say(str(run.path))
    return 0
