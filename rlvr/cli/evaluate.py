"""`rlvr eval`."""

from __future__ import annotations

from dataclasses import asdict

from rlvr.cli.extras import needs_train
from rlvr.cli.flags import ConfigFiles, Json, flag, takes_settings
from rlvr.cli.output import facts, say_json
from rlvr.config import Layer, leaves
from rlvr.settings import resolve_run

FLAGS = {
    **{name: (flag(name),) for name in ("task", "model", "data", "seed", "device", "plugin")},
    "eval.limit": ("--limit", "--eval.limit"),
    "eval.samples": ("--samples", "--eval.samples"),
    "eval.temperature": ("--temperature", "--eval.temperature"),
    "sampler.max_tokens": ("--max-tokens", "--sampler.max-tokens"),
    "sampler.top_p": ("--top-p", "--sampler.top-p"),
    "sampler.batch_size": ("--batch-size", "--sampler.batch-size"),
    **{name: (flag(name),) for name in leaves() if name.startswith("scorer.") and name != "scorer.missing_limit"},
}


@takes_settings(FLAGS)
def evaluate(settings: Layer, *, config: ConfigFiles = (), json: Json = False) -> int:
    """Measure a model on a task's held-out split.

    pass@1 comes with its 95% interval over problems, `--samples` adds pass@k. Verdicts that are missing (error,
    timeout, abstained) count neither way and are reported.
    """
    resolved = resolve_run(settings, config)
    with needs_train("rlvr eval"):
        from rlvr.evaluation import evaluate as run_evaluation
    found = run_evaluation(resolved)
    task, model = resolved.config.task, resolved.config.model
    if json:
        say_json({"task": task, "model": model, **asdict(found)})
        return 0
    each = f", {found.samples} completions each" if found.samples > 1 else ""
    rows = [
        ("task", f"{task}, {found.problems} problems of the test split{each}"),
        ("model", model),
        ("pass@1", f"{found.accuracy:.1%}  95% interval {found.low:.1%} to {found.high:.1%}"),
        *((f"pass@{k}", f"{share:.1%}") for k, share in found.pass_at.items() if k > 1),
        ("missing", f"{found.missing} verdicts"),
    ]
    facts(rows)
    return 0
