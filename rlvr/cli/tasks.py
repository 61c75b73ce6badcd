"""`rlvr tasks`: what tasks there are, their samples, and whether they can tell right from wrong."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import App, Parameter

from rlvr.cli.flags import FLAGS, SCORER_FLAGS, Data, Json, Plugin, open_scorer, takes_settings
from rlvr.cli.output import facts, say, say_json, table
from rlvr.cli.verifiers import broken_json, load, note_broken
from rlvr.composition import as_json, label
from rlvr.config import Layer
from rlvr.errors import UsageError
from rlvr.samples import samples
from rlvr.taskcheck import Offender, TaskCheck, check_task
from rlvr.types import Message, Sample, Split, Task

app = App(name="tasks", help="List tasks, print samples of one, or check one.", group_parameters=FLAGS)

Name = Annotated[str, Parameter(help="A task's name, or the path of a TOML task.")]

OFFENDERS = 5

CHECK_FLAGS = SCORER_FLAGS | {
    "scorer.timeout": ("--timeout", "--scorer.timeout"),
}


@app.default
@app.command(name="list")
def list_tasks(*, plugin: Plugin = (), json: Json = False) -> int:
    """List tasks: name, verifier, description, origin.

    Plugins that are broken are named on stderr.
    """
    known = load(plugin)
    tasks = [known.tasks[name] for name in sorted(known.tasks)]
    if json:
        say_json({"tasks": [described(task) for task in tasks], "broken": broken_json(known)})
    else:
        rows = [(task.name, label(task.verifier), task.description, task.source) for task in tasks]
        table(("name", "verifier", "description", "origin"), rows)
    note_broken(known)
    return 0


@app.command(name="show")
def show_task(
    name: Name,
    /,
    *,
    split: Annotated[Split, Parameter(help="Which split.")] = "train",
    n: Annotated[int, Parameter(name=("-n", "--count"), help="How many samples; 0 prints all.", show_default=True)] = 5,
    data: Data = "",
    plugin: Plugin = (),
    json: Json = False,
) -> int:
    """Print samples of a task: id, prompt and gold answer.

    `--json` adds what else the verifier gets.
    """
    if n < 0:
        raise UsageError(f"`-n` is `{n}`, but must be at least 0", "0 prints all")
    task = load(plugin).task(name, data)
    shown = samples(task, split)[: n or None]
    if json:
        say_json([asdict(sample) for sample in shown])
        return 0
    for index, sample in enumerate(shown):
        if index:
            say("")
        facts(
            [
                ("id", sample.id),
                ("prompt", chat(task, sample)),
                ("answer", "" if sample.answer is None else sample.answer),
            ]
        )
    return 0


@app.command(name="check")
@takes_settings(CHECK_FLAGS)
def check(
    settings: Layer,
    name: Name,
    /,
    *,
    limit: Annotated[int, Parameter(help="Problems of each split to verify, the first ones; 0 takes all.")] = 0,
    data: Data = "",
    plugin: Plugin = (),
    json: Json = False,
) -> int:
    """Prove that a task can tell right from wrong.

    On every problem of both splits, the gold answer must pass, and the gold answer of another problem and an empty
    completion must fail; so must a spoiled gold answer where the verifier can write one. No id and no prompt may be in
    both splits. Exits 0 when all that holds, else 1 with the first offenders.
    """
    if limit < 0:
        raise UsageError(f"`--limit` is `{limit}`, but must be at least 0", "0 takes all")
    task = load(plugin).task(name, data)
    with open_scorer(settings) as scorer:
        found = check_task(task, scorer, limit)
    if json:
        say_json(check_json(found))
        return 0 if found.ok else 1
    counts = ("problems", "passed", "failed", "missing", "equal")
    rows = [
        (t.split, t.kind, t.problems, t.passed, t.failed, t.missing, t.equal, "ok" if t.ok else "NOT OK")
        for t in found.tallies
    ]
    table(("split", "completion", *counts, ""), rows, right=counts)
    say("")
    if found.compared:
        whole = found.compared.total()
        shares = (f"{way} {count} ({count / whole:.1%})" for way, count in found.compared.most_common())
        say(f"gold answers compared by: {', '.join(shares)}")
    for line in findings(found):
        say(line)
    for offender in found.offenders[:OFFENDERS]:
        say(offence(offender))
    if len(found.offenders) > OFFENDERS:
        say(f"... and {len(found.offenders) - OFFENDERS} more; `--json` lists them all")
    return 0 if found.ok else 1


def described(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "verifier": as_json(task.verifier),
        "description": task.description,
        "version": task.version,
        "verifier_options": dict(task.verifier_options),
        "turns": task.turns,
        "show_tools": task.show_tools,
        "origin": task.source,
    }


def chat(task: Task, sample: Sample) -> str:
    """The prompt as text; a chat has one paragraph per message."""
    messages: list[Message] = [] if task.system is None else [{"role": "system", "content": task.system}]
    if isinstance(sample.prompt, str):
        if not messages:
            return sample.prompt
        messages.append({"role": "user", "content": sample.prompt})
    else:
        messages.extend(sample.prompt)
    return "\n".join(f"[{message['role']}] {message['content']}" for message in messages)


def findings(found: TaskCheck) -> list[str]:
    """What the check came to, in words."""
    if found.ok:
        spoiled = sum(tally.problems for tally in found.tallies if tally.kind == "spoiled")
        fails = [f"{found.answers} different ones fail elsewhere"] if found.answers else []
        fail = ", ".join([*fails, *([f"{spoiled} spoiled ones fail"] if spoiled else [])])
        return [f"ok: every gold answer passes, {fail}, the splits are disjoint"]
    lines = [] if found.tallies else ["not ok: there is no problem to check"]
    for tally in found.tallies:
        right = tally.passed if tally.kind == "gold" else tally.failed
        if not tally.ok and found.answers == 1 and tally.kind == "shuffled":
            lines.append("not ok: all gold answers are the same, so none could be shuffled")
        elif not tally.ok:
            should = "pass" if tally.kind == "gold" else "fail"
            lines.append(f"not ok: {tally.problems - right} {tally.kind} completions of {tally.split} do not {should}")
    if found.shared_ids:
        lines.append(f"not ok: {len(found.shared_ids)} ids are in both splits, such as `{found.shared_ids[0]}`")
    if found.shared_prompts:
        lines.append(f"not ok: {found.shared_prompts} prompts are in both splits")
    return list(dict.fromkeys(lines))


def offence(offender: Offender) -> str:
    text = json_format.dumps(offender.completion, ensure_ascii=False)
    verdict = f"{offender.verdict.status}: {offender.verdict.detail}"
    return f"  {offender.split} `{offender.sample}`, {offender.kind} {text}: {verdict}"


def check_json(found: TaskCheck) -> dict[str, Any]:
    return {
        "task": found.task,
        "ok": found.ok,
        "answers": found.answers,
        "compared": dict(found.compared),
        "tallies": [asdict(tally) | {"ok": tally.ok} for tally in found.tallies],
        "shared_ids": found.shared_ids,
        "shared_prompts": found.shared_prompts,
        "offenders": [asdict(offender) for offender in found.offenders],
    }
