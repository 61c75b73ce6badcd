"""Finds the layers of a run's config and resolves them: flags, environment, config files, the task's defaults.

It needs the registry, as the task brings defaults and a plugin may bring the task, but never torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlvr.config import Layer, Resolved, from_environment, from_toml, resolve
from rlvr.errors import ConfigError
from rlvr.registry import load_plugin, registry
from rlvr.runlog import Run

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
    return with_absolute_paths(resolve(layers, registry().task(chosen.task).defaults))


def with_absolute_paths(resolved: Resolved) -> Resolved:
    """The same with its files named so that the run can go on from any folder."""
    config = resolved.config
    local_model = bool(config.model) and Path(config.model).expanduser().is_dir()
    config = replace(
        config,
        task=absolute(config.task) if config.task.endswith(".toml") else config.task,
        model=absolute(config.model) if local_model else config.model,
        data=absolute(config.data) if config.data else "",
        plugin=tuple(map(absolute, config.plugin)),
    )
    return Resolved(config, resolved.origins)


def absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
