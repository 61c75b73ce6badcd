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

from rlvr.composition import leaves
from rlvr.config import Layer, Resolved, TrainConfig, fold, from_environment, from_toml, resolve
from rlvr.errors import ConfigError
from rlvr.mixture import load_mix, read_copies, read_mix, write_copies, write_mix
from rlvr.modelserver import SCHEME, check_folder
from rlvr.registry import load_plugin, registry
from rlvr.runlog import Run
from rlvr.types import Composition, Task

LONGEST = "sampler.max_tokens"
FIXED = {"task", "model", "data", "seed", "eval.limit", "eval.samples", "eval.temperature", "eval.also"}


def resolve_run(
    flags: Layer,
    config_files: Sequence[str | os.PathLike[str]] = (),
    resume: str | os.PathLike[str] | None = None,
    planned: bool = False,
) -> Resolved:
    """The config of a run from all its layers; see `rlvr.config` for their order.

    Args:
        flags: The strongest layer, from the command line or from keywords.
        config_files: `--config` files, the last one wins.
        resume: A run to go on with; its config takes the place of all weaker layers.
        planned: Whether the run is to come, so that a reward model may still have to be made.

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
        layers: list[tuple[str, Layer]] = [("resumed run", from_toml(Run(resume, "rlvr train").path / "config.toml"))]
    else:
        layers = [(f"config {path}", from_toml(path)) for path in config_files]
        layers.append(("environment", from_environment(os.environ)))
    layers.append(("flag", flags))
    # Which task it is must be known before its defaults are; only with these can the other values be judged.
    first = [(origin, {k: v for k, v in layer.items() if k in ("task", "plugin")}) for origin, layer in layers]
    chosen = resolve(first).config
    for plugin in chosen.plugin:
        load_plugin(plugin)
    layers = [*task_layers(load_mix(registry(), chosen.task)), *layers]
    resolved = resolve([*learned_layers(layers), *layers])
    check_reward(resolved.config, planned)
    return with_absolute_paths(resolved)


def learned_layers(layers: Sequence[tuple[str, Layer]]) -> list[tuple[str, Layer]]:
    """What suits a reward that is learned, where the run's is: the weakest of all layers.

    The policy is held to where it began by a KL that is taken off the reward and whose weight adapts (Ziegler et al.
    2019, arXiv:1909.08593; Ouyang et al. 2022, arXiv:2203.02155), and held-out accuracy is measured on the way. With
    the KL set to 0, the rest holds. It makes no difference whether `reward.verifier` is learned or the tasks' own are.
    """
    config, origins = fold(TrainConfig, layers, "rlvr train")
    paid_by = rewarding(config)
    if not all(map(all_learned, paid_by)):
        return []
    layer: dict[str, Any] = {"eval.every": max(1, config.steps // 10)}
    if not any(isinstance(verifier, Composition) for verifier in paid_by):
        layer["reward.shaper"] = "learned"
    if config.learner.reference != "none" and (config.learner.kl_coef or origins["learner.kl_coef"] == "default"):
        layer |= {"learner.kl_coef": 0.05, "learner.kl_in": "reward", "learner.kl_estimator": "k1"}
        layer["learner.kl_target"] = 6.0
    return [("learned reward", layer)]


def is_learned(verifier: str) -> bool:
    """Whether a verifier is there and asks a reward model."""
    return bool(verifier) and registry().verifier(verifier).learned


def rewarding(config: TrainConfig) -> list[str | Composition]:
    """The verifiers that rewards come from: the run's, or those of its tasks."""
    own = config.reward.verifier
    return [own] if own else [task.verifier for task, _ in load_mix(registry(), config.task)]


def all_learned(verifier: str | Composition) -> bool:
    """Whether nothing in a verifier, or in the parts of a composition, is checked."""
    return all(is_learned(str(leaf.verifier)) for leaf in leaves(verifier))


def some_learned(verifier: str | Composition) -> bool:
    """Whether a verifier, or a part of a composition, asks a reward model."""
    return any(is_learned(str(leaf.verifier)) for leaf in leaves(verifier))


def learned_warnings(config: TrainConfig) -> list[str]:
    """What is unwise about rewards that are learned, and about held-out accuracy that is."""
    found, paid_by = [], rewarding(config)
    if any(map(some_learned, paid_by)):
        whole = all(map(all_learned, paid_by))
        reward = "the reward is learned" if whole else "a part of the reward is learned"
        if not config.learner.kl_coef:
            found.append(
                f"{reward} and `learner.kl_coef` is 0: nothing keeps the policy near the text that the reward model "
                "knows, and it will find text that only the reward model likes"
            )
        if whole and not config.eval.every:
            found.append(
                f"{reward} and `eval.every` is 0: held-out accuracy, which would show that the reward is being hacked, "
                "is not measured on the way"
            )
    for task, _ in load_mix(registry(), config.task):
        if all_learned(task.verifier):
            found.append(
                f"held-out accuracy of `{task.name}` is learned too: its verifier asks a reward model, so that nothing "
                "shows that the reward is being hacked; have people read samples, or measure a task whose verifier "
                "checks (`--eval.also`)"
            )
    return found


def check_reward(config: TrainConfig, planned: bool = False) -> None:
    """Refuses ways to reward that do not go together; needs the registry, as plugins bring verifiers and tasks.

    Raises:
        ConfigError: A learned verifier without a model, a model without one, or a shaper that pays what there is not.
        UnknownNameError: There is no such verifier.
    """
    own, tasks = config.reward, [task for task, _ in load_mix(registry(), config.task)]
    learned = is_learned(own.verifier)
    if learned and not own.model:
        raise ConfigError(
            f"`reward.verifier` is `{own.verifier}`, which is learned, but `reward.model` names no model",
            "give the `final/` of a run of `rlvr reward`",
        )
    if learned and not planned:
        check_folder(own.model)
    if own.model and not learned:
        raise ConfigError(
            "`reward.model` is given, but rewards come from "
            + (f"`{own.verifier}`, which is not learned" if own.verifier else "the task's own verifier"),
            "leave it out, or take `--reward reward-model`",
        )
    if own.verifier and any(task.turns > 1 for task in tasks):
        raise ConfigError(
            f"`reward.verifier` `{own.verifier}` does not go with a task of several turns",
            "the task's own verifier answers for its environment",
        )
    bare = [task.verifier for task in tasks] if not own.verifier else [own.verifier]
    if own.shaper == "learned" and not all(isinstance(name, str) and is_learned(name) for name in bare):
        raise ConfigError(
            "`reward.shaper` `learned` pays the raw score of a reward model, but rewards come from another verifier",
            "take `--reward reward-model`, or `partial` where a reward model is a part of a composition",
        )


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
    model = config.reward.model
    config = replace(
        config,
        task=write_mix({in_place(name): weight for name, weight in mix.items()}),
        model=absolute(config.model) if local_model else config.model,
        data=write_copies({name: absolute(path) for name, path in read_copies(config.data, mix).items()}),
        plugin=tuple(map(absolute, config.plugin)),
        eval=replace(config.eval, also=tuple(map(in_place, config.eval.also))),
        reward=replace(config.reward, model=absolute(model) if model and not model.startswith(SCHEME) else model),
    )
    return Resolved(config, resolved.origins)


def in_place(task: str) -> str:
    """A task's name, or where its file is from any folder."""
    return absolute(task) if task.endswith(".toml") else task


def absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
