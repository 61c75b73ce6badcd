"""`rlvr eval`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rlvr.accuracy import Evaluation
from rlvr.cli.extras import needs_train
from rlvr.cli.flags import SCORER_FLAGS, ConfigFiles, Json, flag, takes_settings
from rlvr.cli.output import facts, say, say_json
from rlvr.config import Layer
from rlvr.errors import UsageError
from rlvr.runlog import Run
from rlvr.settings import resolve_run

FLAGS = {
    **{name: (flag(name),) for name in ("task", "model", "data", "seed", "device", "plugin")},
    "eval.limit": ("--limit", "--eval.limit"),
    "eval.samples": ("--samples", "--eval.samples"),
    "eval.temperature": ("--temperature", "--eval.temperature"),
    "sampler.backend": ("--sampler.backend", "--sampler"),
    "sampler.url": ("--sampler.url",),
    "sampler.context": ("--sampler.context",),
    "sampler.memory": ("--sampler.memory",),
    "sampler.options": ("--sampler.options",),
    "sampler.max_tokens": ("--max-tokens", "--sampler.max-tokens"),
    "sampler.top_p": ("--top-p", "--sampler.top-p"),
    "sampler.batch_size": ("--batch-size", "--sampler.batch-size"),
    **SCORER_FLAGS,
}


@takes_settings(FLAGS)
def evaluate(settings: Layer, *, config: ConfigFiles = (), json: Json = False) -> int:
    """Measure a model on the held-out split of a task, or of several: all together, then each.

    pass@1 comes with its 95% interval over problems, `--samples` adds pass@k. Verdicts that are missing (error,
    timeout, abstained) count neither way and are reported.
    """
    resolved = resolve_run(settings, config)
    refuse_run(resolved.config.model)
    with needs_train("rlvr eval"):
        from rlvr.evaluation import evaluate as run_evaluation
    found = run_evaluation(resolved)
    task, model = resolved.config.task, resolved.config.model
    if json:
        say_json({"task": task, "model": model, **asdict(found)})
        return 0
    facts([("task", described(task, found)), ("model", model), *rows(found)])
    for name, own in {**found.tasks, **found.also}.items():
        say("")
        facts([("task", described(name, own)), *rows(own)])
    return 0


def described(task: str, found: Evaluation) -> str:
    each = f", {found.samples} completions each" if found.samples > 1 else ""
    return f"{task}, {found.problems} problems of the test split{each}"


def rows(found: Evaluation) -> list[tuple[str, str]]:
    """An evaluation as lines of a heading and a text."""
    return [
        ("pass@1", f"{found.accuracy:.1%}  95% interval {found.low:.1%} to {found.high:.1%}"),
        *((f"pass@{k}", f"{share:.1%}") for k, share in found.pass_at.items() if k > 1),
        ("missing", f"{found.missing} verdicts"),
    ]


def refuse_run(model: str) -> None:
    """A run's directory is no model, but holds one.

    Raises:
        UsageError: Says where the model is.
    """
    folder = Path(model)
    if not model or not (folder / "config.toml").is_file() or (folder / "config.json").exists():
        return
    final = folder / "final"
    own = Run(folder).command
    hint = f"its model is `{final}`" if final.is_dir() else f"it has no model yet: `{own} --resume {folder}`"
    raise UsageError(f"`--model` is `{model}`, the directory of a run", hint)
