"""A flag for every setting of `rlvr.config`, with its help, default and choices. Flags shared by commands."""

from __future__ import annotations

import inspect
import os
import re
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from rlvr.config import ALGORITHMS, Layer, Leaf, TrainConfig, from_environment, leaves, resolve
from rlvr.errors import ConfigError, UsageError
from rlvr.scoring import Scorer

Json = Annotated[bool, Parameter(name="--json", help="Print JSON.", negative=())]
Plugin = Annotated[
    tuple[str, ...], Parameter(name="--plugin", help="A plugin file to load; may be repeated.", negative=())
]
Data = Annotated[
    str, Parameter(name="--data", help="A local copy of the task's data: a file, or a folder with a file per split.")
]
ConfigFiles = Annotated[
    tuple[str, ...],
    Parameter(name="--config", help="A TOML file with settings; may be repeated, the last one wins.", negative=()),
]

Resume = Annotated[
    str | None, Parameter(help="Go on with the run in this directory; its settings hold, flags change them.")
]
DryRun = Annotated[
    bool, Parameter(help="Print the resolved settings as TOML, each with where it came from, and stop.", negative=())
]

FLAGS = Group("Flags", sort_key=1)


def flag(name: str) -> str:
    """The flag of a setting: `learner.grad_clip` is `--learner.grad-clip`."""
    return "--" + name.replace("_", "-")


SCORER_FLAGS: dict[str, tuple[str, ...]] = {
    name: ("--sandbox", flag(name)) if name == "scorer.sandbox" else (flag(name),)
    for name in leaves()
    if name.startswith(("scorer.", "sandbox.")) and name != "scorer.missing_limit"
}
"""Those of a scorer on its own; how many verdicts may be missing is a run's business."""


def check_resume(resume: str | None, config: Sequence[str], settings: Layer) -> None:
    """Refuses what does not go with `--resume`.

    Raises:
        UsageError: `--config` or `--out`.
    """
    if resume is not None and config:
        raise UsageError("`--config` does not go with `--resume`", "a run keeps its settings; flags can change them")
    if resume is not None and "out" in settings:
        raise UsageError("`--out` does not go with `--resume`", "a resumed run stays in its directory")


def open_scorer(flags: Layer, workers: int | None = None) -> Scorer:
    """A scorer outside a run, with the settings of flags and environment.

    Args:
        flags: Settings by dotted name.
        workers: How many workers, whatever the settings say.
    """
    environment = {name: text for name, text in from_environment(os.environ).items() if name in SCORER_FLAGS}
    config = resolve([("environment", environment), ("flag", flags)]).config
    return Scorer(
        workers=config.scorer.workers if workers is None else workers,
        timeout=config.scorer.timeout,
        memory_mb=config.scorer.memory_mb,
        sandbox=config.scorer.sandbox,
        sandbox_options=asdict(config.sandbox),
    )


def groups(cls: type) -> dict[str, Group]:
    """The headings of a command's settings, by section."""
    sections = dict.fromkeys(name.partition(".")[0] for name in leaves(cls) if "." in name)
    hints = typing.get_type_hints(cls)
    return {"": Group("Run", sort_key=10)} | {
        section: Group(section.capitalize(), help=hints[section].__doc__, sort_key=11 + i)
        for i, section in enumerate(sections)
    }


def takes_settings(
    flags: Mapping[str, Sequence[str]], cls: type = TrainConfig
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Gives a command flags for settings; their values come as a layer in its first argument.

    Values are handed on as text, so that `rlvr.config` alone says what is a good one.

    Args:
        flags: The flags of each setting by its dotted name; help begins with the first, errors name the shortest.
        cls: Whose settings.
    """
    settings = {name: leaf for name, leaf in leaves(cls).items() if name in flags}
    headings = groups(cls)
    by_parameter = {name.replace(".", "__"): name for name in settings}

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        def run(*arguments: Any, **given: Any) -> int:
            layer: Layer = {by_parameter[key]: given.pop(key) for key in list(given) if key in by_parameter}
            try:
                return command(layer, *arguments, **given)
            except ConfigError as error:
                spell_flags(error, flags)
                raise

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        made = [
            inspect.Parameter(
                parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation(leaf, names, headings)
            )
            for parameter, leaf, names in ((p, settings[n], flags[n]) for p, n in by_parameter.items())
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        return run

    return decorate


def annotation(leaf: Leaf, names: Sequence[str], headings: Mapping[str, Group]) -> Any:
    """What cyclopts is to know of a setting."""
    section = leaf.name.rpartition(".")[0]
    help = f"{leaf.help}{default(leaf)}"
    if leaf.type is bool:
        parameter = Parameter(name=names, help=help, group=headings[section], negative=f"--no-{names[0][2:]}")
    elif typing.get_origin(leaf.type) is tuple:
        parameter = Parameter(name=names, help=f"{help} May be repeated.", group=headings[section], negative=())
    else:
        parameter = Parameter(name=names, help=help, group=headings[section], converter=as_given)
    return Annotated[leaf.type, parameter]


def as_given(kind: Any, tokens: Sequence[Token]) -> str:
    """The text behind a flag."""
    return tokens[0].value


def default(leaf: Leaf) -> str:
    """The default as the help shows it: what most algorithms have, then those that have another."""
    values = {name: recipe.settings.get(leaf.name, leaf.default) for name, recipe in ALGORITHMS.items()}
    usual, _ = Counter(values.values()).most_common(1)[0]
    others = {value: [n for n, v in values.items() if v == value] for value in values.values() if value != usual}
    shown = [spell(usual)] if usual not in ("", ()) else []
    shown += [f"{spell(value)} for {' and '.join(names)}" for value, names in others.items()]
    return f" [default: {', '.join(shown)}]" if shown else ""


def spell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def spell_flags(error: ConfigError, flags: Mapping[str, Sequence[str]]) -> None:
    """Puts an error in the words of the command line: `learner.lr` becomes `--learner.lr`.

    One that says it is about a file or the environment stays as it is.
    """
    origin = re.search(r"\(([^()]*)\)$", error.message)
    if (origin and origin[1] != "flag") or "`defaults`" in error.message:
        return

    def spell(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return f"`{min(flags[name], key=len)}`" if name in flags else match[0]

    # A word without a dot is a setting only where the message or the hint starts with it.
    pattern = r"(?:^|(?<=^give ))`([a-z_]+)`|`([a-z_]+\.[a-z0-9_]+)`"
    error.message = re.sub(pattern, spell, error.message).removesuffix(" (flag)")
    error.hint = re.sub(pattern, spell, error.hint)
