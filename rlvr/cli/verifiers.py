"""`rlvr verifiers`: what verifiers there are."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import App, Parameter

from rlvr.cli.flags import FLAGS, Json, Plugin
from rlvr.cli.output import facts, note, say, say_json, table
from rlvr.registry import Registry, VerifierSpec, load_plugin, registry

app = App(name="verifiers", help="List verifiers, or show one.", group_parameters=FLAGS)

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
        rows = [(s.name, ", ".join(s.reference), options(s.options, ", "), s.summary, s.origin) for s in specs]
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
            ("reference", ", ".join(spec.reference) or "none"),
            ("options", options(spec.options, "\n") or "none"),
            ("timeout", f"{spec.timeout:g} s" if spec.timeout else "the scorer's"),
            ("sandbox", "needed" if spec.wants_sandbox else "not needed"),
        ]
    )
    say(f"\n{spec.doc or 'It has no documentation.'}")
    return 0


def load(plugins: tuple[str, ...]) -> Registry:
    """The registry, with these plugin files added."""
    for path in plugins:
        load_plugin(path)
    return registry()


def described(spec: VerifierSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "summary": spec.summary,
        "reference": list(spec.reference),
        "options": dict(spec.options),
        "timeout": spec.timeout,
        "sandbox": spec.wants_sandbox,
        "origin": spec.origin,
    }


def options(values: Mapping[str, Any], separator: str) -> str:
    """Options with their defaults, as flags of `rlvr verify` take them."""
    return separator.join(f"{name}={json_format.dumps(value, default=str)}" for name, value in values.items())


def broken_json(known: Registry) -> list[dict[str, str]]:
    return [{"name": b.name, "distribution": b.distribution, "cause": b.cause} for b in known.broken]


def note_broken(known: Registry) -> None:
    """Names the plugins that could not be used, on stderr."""
    for plugin in known.broken:
        note(f"warning: {plugin}", "yellow")
