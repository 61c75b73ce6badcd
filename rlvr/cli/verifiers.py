"""`rlvr verifiers`: what verifiers there are, and whether one is honest."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter

from rlvr.cli.flags import FLAGS, SCORER_FLAGS, Json, Plugin, open_scorer, takes_settings
from rlvr.cli.output import facts, note, say, say_json, table
from rlvr.config import Layer
from rlvr.errors import UsageError
from rlvr.kit.check import Plan, check_verifier
from rlvr.kit.report import CHECKS, Breach, Confusion, Report, encodable
from rlvr.registry import Registry, VerifierSpec, load_plugin, registry

app = App(name="verifiers", help="List verifiers, show one, or check one.", group_parameters=FLAGS)

CHECK_FLAGS = SCORER_FLAGS | {"scorer.workers": ("--workers", "--scorer.workers")}

BREACHES = 3
"""Breaches of one check that are printed."""

TEXT = 160
"""Characters of a completion that are printed."""

LISTED = 6

Name = Annotated[str, Parameter(help="The verifier.")]


@app.default
@app.command(name="list")
def list_verifiers(*, plugin: Plugin = (), json: Json = False) -> int:
    """List verifiers: name, references, options, origin.

    Plugins that are broken are named on stderr.
    """
    known = load(plugin)
    specs = [known.verifiers[name] for name in sorted(known.verifiers)]
    if json:
        say_json({"verifiers": [described(spec) for spec in specs], "broken": broken_json(known)})
    else:
        rows = [(s.name, ", ".join(s.reference), named(s.options), summary(s), s.origin) for s in specs]
        table(("name", "reference", "options", "summary", "origin"), rows)
    note_broken(known)
    return 0


@app.command(name="show")
def show_verifier(name: Name, /, *, plugin: Plugin = (), json: Json = False) -> int:
    """Show a verifier: documentation, references, options."""
    spec = load(plugin).verifier(name)
    if json:
        say_json(described(spec) | {"doc": spec.doc})
        return 0
    facts(
        [
            ("name", spec.name),
            ("origin", spec.origin),
            ("reference", ", ".join([*spec.reference, *(f"{name} (optional)" for name in spec.optional)]) or "none"),
            ("options", options(spec.options, "\n") or "none"),
            ("timeout", f"{spec.timeout:g} s" if spec.timeout else "the scorer's"),
            ("sandbox", sandbox(spec)),
            *([("learned", "yes: a model's opinion, no check")] if spec.learned else []),
        ]
    )
    say(f"\n{spec.doc or 'It has no documentation.'}")
    return 0


@app.command(name="check")
@takes_settings({name: flags for name, flags in CHECK_FLAGS.items() if name != "scorer.timeout"})
def check(
    settings: Layer,
    name: Annotated[str, Parameter(help="The verifier; left out with `--all`.")] = "",
    /,
    *,
    every: Annotated[
        bool, Parameter(name="--all", help="Check all verifiers but those that are learned.", negative=())
    ] = False,
    cases: Annotated[
        str, Parameter(help="A JSON-lines file of labelled cases: `completion`, `passes`, references, `kind`.")
    ] = "",
    at_least: Annotated[
        float, Parameter(help="Share of the labelled cases that must come out as labelled.", show_default=True)
    ] = 1.0,
    fuzz: Annotated[int, Parameter(help="Mutations to try beside the hostile corpus.", show_default=True)] = 200,
    seed: Annotated[int, Parameter(help="Seed of the mutations and orders.", show_default=True)] = 0,
    timeout: Annotated[float | None, Parameter(help="Seconds of wall clock for each verification.")] = None,
    plugin: Plugin = (),
    json: Json = False,
) -> int:
    """Prove that a verifier tells right from wrong, and cannot be broken by what a model writes.

    The right cases of its kit must pass; wrong ones, empty ones and hacks must fail; hostile text must not crash or
    hang it; the same input must get the same verdict whatever came before, alone and in a batch; its clock, its scores
    and the laws that it declares must hold. With `--cases`, completions of your own are held against their labels.
    Exits 0 when all that holds, else 1 with the first breaches.
    """
    if bool(name) == every:
        raise UsageError("give one verifier, or `--all`", "`rlvr verifiers` lists them")
    if every and cases:
        raise UsageError("`--cases` are for one verifier", "leave out `--all`")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"`--timeout` is `{timeout:g}`, but must be above 0", "give seconds")
    known = load(plugin)
    checkable = [name for name, spec in sorted(known.verifiers.items()) if not spec.learned]
    names = checkable if every else [known.verifier(name).name]
    plan = Plan(cases, seed, fuzz, timeout, at_least)
    reports = []
    for number, checked in enumerate(names):
        report = check_verifier(checked, lambda: open_scorer(settings), plan)
        reports.append(report)
        if not json:
            if number:
                say("")
            show_report(report)
    if json:
        say_json([report.to_json() for report in reports] if every else reports[0].to_json())
    return 0 if all(report.ok for report in reports) else 1


def show_report(report: Report) -> None:
    """A report as a table of checks, matrices, times and the first breaches."""
    rows = []
    for name, finding in report.findings.items():
        result = f"not run: {finding.skipped}" if finding.skipped else "ok" if finding.ok else "NOT OK"
        rows.append((name, CHECKS[name], finding.verdicts, len(finding.breaches), result))
    say(f"{report.verifier}\n")
    table(("check", "holds when", "verdicts", "breaches", "result"), rows, right=("verdicts", "breaches"))
    for title, found in (("kit", report.own), ("cases", report.labelled)):
        if found.total:
            show_confusion(title, found)
    if speed := report.speed:
        say(
            f"\n{speed.per_second:,.0f} verdicts/s in batches with {speed.workers} workers; one takes "
            f"{seconds(speed.p50)} (p50), {seconds(speed.p99)} (p99); the slowest of all took {seconds(speed.slowest)}"
        )
    say("")
    if not report.kit:
        say(f"note: `{report.verifier}` has no kit, so only what needs none was checked")
    say(f"not ok: {', '.join(report.red)}" if report.red else "ok")
    for finding in report.findings.values():
        for breach in finding.breaches[:BREACHES]:
            say(described_breach(breach))
        if len(finding.breaches) > BREACHES:
            say(f"  {finding.check}: ... and {len(finding.breaches) - BREACHES} more; `--json` lists them all")


def show_confusion(title: str, found: Confusion) -> None:
    say("")
    columns = ("passed", "failed", "missing")
    rows = [
        ("right" if right else "wrong", *(found.counts[right][column] for column in columns)) for right in (True, False)
    ]
    table((title, *columns), rows, right=columns)
    for name, (count, of, share, low, high) in found.rates().items():
        say(f"{name}: {count} of {of}, {share:.1%} [{low:.1%}, {high:.1%}]")


def described_breach(breach: Breach) -> str:
    text = json_format.dumps(breach.completion)
    shown = text if len(text) <= TEXT else f"{text[:TEXT]}... ({len(breach.completion):,} characters or more)"
    kind = f" ({breach.kind})" if breach.kind else ""
    reference = json_format.dumps(dict(breach.reference), default=str)[:TEXT]
    against = f"\n      against {reference}" if breach.reference else ""
    return f"  {breach.check}{kind}: {encodable(breach.problem)}\n      {shown}{against}"


def seconds(value: float) -> str:
    return f"{value * 1e6:.0f} µs" if value < 1e-3 else f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.1f} s"


def load(plugins: tuple[str, ...]) -> Registry:
    """The registry, with these plugin files added."""
    for path in plugins:
        load_plugin(path)
    return registry()


def sandbox(spec: VerifierSpec) -> str:
    """Whether a verifier needs a sandbox, in words."""
    if not spec.wants_sandbox:
        return "not needed"
    return "needed" if spec.needs_sandbox is None else "needed for some samples"


def summary(spec: VerifierSpec) -> str:
    """What it says in a line; one that is learned says so first."""
    return f"[learned] {spec.summary}" if spec.learned else spec.summary


def described(spec: VerifierSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "summary": spec.summary,
        "reference": list(spec.reference),
        "optional": list(spec.optional),
        "options": dict(spec.options),
        "timeout": spec.timeout,
        "sandbox": spec.wants_sandbox,
        "learned": spec.learned,
        "origin": spec.origin,
    }


def named(values: Mapping[str, Any]) -> str:
    """The first options by name, and how many there are besides; `show` has them all."""
    names = list(values)
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def options(values: Mapping[str, Any], separator: str) -> str:
    """Options with their defaults, as flags of `rlvr verify` take them."""
    return separator.join(f"{name}={json_format.dumps(value, default=str)}" for name, value in values.items())


def broken_json(known: Registry) -> list[dict[str, str]]:
    return [{"name": b.name, "distribution": b.distribution, "cause": b.cause} for b in known.broken]


def note_broken(known: Registry) -> None:
    """Names the plugins that could not be used, on stderr."""
    for plugin in known.broken:
        note(f"warning: {plugin}", "yellow")
