"""`rlvr pairs`: preference pairs that a judge makes, and an audit of pairs from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from rlvr.cli.flags import FLAGS as FLAG_GROUP
from rlvr.cli.flags import ConfigFiles, DryRun, Json, check_resume, flag, takes_settings
from rlvr.cli.output import facts, note, say, say_json
from rlvr.config import Layer, leaves
from rlvr.errors import MissingDependencyError, UsageError
from rlvr.judge.config import PairsConfig, resolve_pairs

app = App(name="pairs", group_parameters=FLAG_GROUP)

FLAGS: dict[str, tuple[str, ...]] = {name: (flag(name),) for name in leaves(PairsConfig)}


@app.default
@takes_settings(FLAGS, PairsConfig)
def pairs(
    settings: Layer,
    *,
    config: ConfigFiles = (),
    resume: Annotated[
        str | None,
        Parameter(help="Go on with the run in this directory; no question that has an answer is asked again."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Make preference pairs with a judge (RLAIF), from completions of a policy, a file or a run.

    The judge is any OpenAI-compatible endpoint, or a model on this machine. It is asked in both orders; where it
    disagrees with itself the comparison is dropped. Every answer is kept before it is used: Ctrl-C, or a kill, and
    `--resume` goes on without asking anything twice. stdout gets the path of the run, a directory with `pairs.jsonl`,
    `dropped.jsonl`, `report.md`.
    """
    check_resume(resume, config, settings)
    resolved = resolve_pairs(settings, config, resume)
    if dry_run:
        say(resolved.toml().rstrip("\n"))
        return 0
    with needs_http():
        from rlvr.judge.pairs import make_pairs
    run = make_pairs(resolved, resume=resume)
    if json:
        say_json({"run": str(run.path), "pairs": str(run.path / "pairs.jsonl"), **result_of(run.path)})
    else:
        say(str(run.path))
    return 0


@contextmanager
def needs_http() -> Iterator[None]:
    """Raises:
    MissingDependencyError: What talks to endpoints is not installed.
    """
    try:
        import httpx  # noqa: F401

        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("rlvr"):
            raise
        raise MissingDependencyError.extra("`rlvr pairs`", "train") from error


def result_of(path: Path) -> dict[str, Any]:
    """What a run says of itself, but for the rows of its data."""
    import json as json_format

    found: dict[str, Any] = json_format.loads((path / "result.json").read_text(encoding="utf-8"))
    found.get("data", {}).pop("bad_rows", None)
    return found


@app.command(name="audit")
def audit(
    source: Annotated[str, Parameter(help="A file of pairs, the directory of a run, or `hub:NAME`.")],
    /,
    *,
    out: Annotated[
        str, Parameter(help="Where form, key and report go; empty is `audit` in the run, or beside the file.")
    ] = "",
    sample: Annotated[int, Parameter(help="Pairs that a person is shown.", show_default=True)] = 50,
    answers: Annotated[str, Parameter(help="The form's `answers.csv`, filled in by a person.")] = "",
    limit: Annotated[
        float, Parameter(help="Share of suspect rows above which the exit code is 1.", show_default=True)
    ] = (0.1),
    seed: Annotated[int, Parameter(help="Of the sample, and of what is shown as A.", show_default=True)] = 0,
    json: Json = False,
) -> int:
    """Audit preference pairs: a blind form for a person, length bias, duplicates, contradictions, annotators.

    `audit.md` shows a sample of pairs without saying which was chosen; `answers.csv` is filled in and given back with
    `--answers`. Exit code 1 says that more than `--limit` of the rows are suspect.
    """
    from rlvr.examples.audit import Audit, audit_pairs, folder_of, graded, read_key, write_audit

    if not 0 <= limit <= 1:
        raise UsageError(f"`--limit` is `{limit:g}`, but must be a share", "0.1 is a tenth of the rows")
    if sample < 1:
        raise UsageError(f"`--sample` is `{sample}`, but must be at least 1", "50 is usual")
    folder = Path(out) if out else folder_of(source)
    found: Audit = audit_pairs(source, limit)
    if answers:
        key = read_key(Path(answers).with_name("key.json") if not out else folder / "key.json")
        found = replace(found, person=graded(Path(answers), key))
    fresh = write_audit(found, folder, sample, seed)
    if json:
        say_json({"audit": str(folder), **found.to_json()})
    else:
        facts(found.lines())
        note(f"report: {folder / 'report.md'}")
        if not answers:
            about = "fill in" if fresh else "a form is there already, and stays as it is: fill in"
            note(
                f"{about} `{folder / 'answers.csv'}` by `{folder / 'audit.md'}`, then: "
                f"rlvr pairs audit {source} --answers {folder / 'answers.csv'}"
            )
    return 1 if found.flagged else 0
