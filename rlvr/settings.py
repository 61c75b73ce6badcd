"""Finds the layers of a run's config and resolves them: flags, environment, config files, the defaults of its tasks.

It needs the registry, as a task brings defaults and a plugin may bring the task, but never torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from rlvr.config import Layer, Resolved, from_environment, from_toml, resolve
from rlvr.errors import ConfigError
from rlvr.mixture import load_mix, read_copies, read_mix, write_copies, write_mix
from rlvr.registry import load_plugin, registry
from rlvr.runlog import Run
from rlvr.types import Task

LONGEST = "sampler.max_tokens"
FIXED = {"task", "model", "data", "seed", "eval.limit", "eval.samples", "eval.temperature"}


def resolve_run(
    flags: Layer,
    config_files: Sequence[str | os.PathLike[str]] = (),
    resume: str | os.PathLike[str] | None = None,
) -> Resolved:
    """The config of a run from all its layers; see `rlvr.config` for their order.

    Args:
        flags: The strongest layer, from the command line or from keywords.
        config_files: `--config` files, the last one wins.
        resume: A run to go on with; its config takes the place of all weaker layers.

    Raises:
        ConfigError: An unknown setting, or a value that cannot be used.
        UnknownNameError: There is no such task.
        PluginError: A plugin file that fails.
        DataError: `resume` is not a run.
    """
    if resume is not None:
        if changed := sorted(FIXED & set(flags)):
            raise ConfigError(
                f"a resumed run keeps its `{changed[0]}`",
                "the accuracies before and after must be of the same thing; start a new run to change it",
            )
        layers: list[tuple[str, Layer]] = [("resumed run", from_toml(Run(resume).path / "config.toml"))]
    else:
        layers = [(f"config {path}", from_toml(path)) for path in config_files]
        layers.append(("environment", from_environment(os.environ)))
    layers.append(("flag", flags))
    # Which task it is must be known before its defaults are; only with these can the other values be judged.
    first = [(origin, {k: v for k, v in layer.items() if k in ("task", "plugin")}) for origin, layer in layers]
    chosen = resolve(first).config
    for plugin in chosen.plugin:
        load_plugin(plugin)
    return with_absolute_paths(resolve([*task_layers(load_mix(registry(), chosen.task)), *layers]))


def task_layers(tasks: Sequence[tuple[Task, Fraction]]) -> list[tuple[str, Layer]]:
    """The defaults of a run's tasks, with what they are the defaults of.

    Of several tasks those that say something of a setting may agree on it; else what the heaviest of them says holds,
    the first of those that weigh the same; but `sampler.max_tokens` is the largest.
    """
    if len(tasks) == 1:
        return [("task", tasks[0][0].defaults)]
    layers: dict[str, dict[str, Any]] = {}
    for name, ((first, value), *others) in opinions(tasks).items():
        agree = all(theirs == value for _, theirs in others)
        origin = "tasks " + ", ".join([first, *(task for task, _ in others)]) if agree and others else f"task {first}"
        layers.setdefault(origin, {})[name] = value
    return list(layers.items())


def disagreements(resolved: Resolved) -> list[str]:
    """The settings that hold because they are the default of one of several tasks, while another has its own."""
    found = []
    for name, ((first, value), *others) in opinions(load_mix(registry(), resolved.config.task)).items():
        unlike = [f"`{theirs}` for {task}" for task, theirs in others if theirs != value]
        if unlike and resolved.origins[name] == f"task {first}":
            found.append(f"`{name}` is `{value}`, the default of {first}; it is " + ", ".join(unlike))
    return found


def opinions(tasks: Sequence[tuple[Task, Fraction]]) -> dict[str, list[tuple[str, Any]]]:
    """For each setting that has a default in some tasks: these tasks and what they say, the one that decides first."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for task, _ in sorted(tasks, key=lambda pair: -pair[1]):
        for name, value in task.defaults.items():
            found.setdefault(name, []).append((task.name, value))
    found.get(LONGEST, []).sort(key=lambda opinion: -int(opinion[1]))  # there must be room for every task's answers
    return found


def title(task: str) -> str:
    """What a run is called by its tasks."""
    names = list(read_mix(task))
    return names[0] if len(names) == 1 else "-".join(Path(name).stem for name in names)


def with_absolute_paths(resolved: Resolved) -> Resolved:
    """The same with its files named so that the run can go on from any folder."""
    config = resolved.config
    mix = read_mix(config.task)
    local_model = bool(config.model) and Path(config.model).expanduser().is_dir()
    config = replace(
        config,
        task=write_mix({in_place(name): weight for name, weight in mix.items()}),
        model=absolute(config.model) if local_model else config.model,
        data=write_copies({name: absolute(path) for name, path in read_copies(config.data, mix).items()}),
        plugin=tuple(map(absolute, config.plugin)),
    )
    return Resolved(config, resolved.origins)


def in_place(task: str) -> str:
    """A task's name, or where its file is from any folder."""
    return absolute(task) if task.endswith(".toml") else task


def absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
