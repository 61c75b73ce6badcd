"""A recipe: stages in order, with the model handed over from each to the next.

    name = "math"                # of the chain
    task = "math"                # this and all other settings up here hold for every stage that has them
    model = "starter"            # of the first stage

    [[stage]]
    run = "sft"                  # the command: sft, reward, prefer, pairs, train or eval
    lr = 1e-3                    # any setting of it

    [[stage]]
    name = "dpo"                 # the command's name if not given
    run = "prefer"
    data = "@sft"                # what the stage `sft` left: its run as data, for any other setting its model

A stage starts from the model of the last stage before it that trained a policy, unless it names another. Everything is
checked before the first stage is started.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlvr.config import Layer, TrainConfig, flatten, leaves, to_toml
from rlvr.errors import ConfigError, RlvrError, UnknownNameError, nearest
from rlvr.judge.config import PairsConfig, resolve_pairs
from rlvr.settings import resolve_run
from rlvr.stages.config import STAGES, StageConfig, resolve_stage

COMMANDS = ("sft", "reward", "prefer", "pairs", "train", "eval")
POLICIES = ("sft", "prefer", "train")
"""Commands whose model the next stage starts from."""

NO_MODEL = ("pairs", "eval")
OWN = ("name", "run", "launch")
"""Keys of a stage's table that are not settings of its command."""

MODELS = ("model", "policy", "reference", "reward.model")
"""Settings that name a model."""

DEVICE = re.compile(r"(cpu|cuda|mps)(:\d+)?")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE)
MEASURE = ("task", "eval.limit", "eval.samples", "eval.temperature", "sampler.max_tokens", "sampler.top_p")
"""What two accuracies must have in common to be compared."""


@dataclass(frozen=True)
class Entry:
    """A stage as the recipe has it.

    Attributes:
        name: Its name, unique in the recipe.
        run: Its command, of `COMMANDS`.
        settings: The settings that the recipe gives it, by dotted name; references to other stages as written.
        launch: What starts `rlvr`, such as `("torchrun", "--nproc-per-node", "8", "-m", "rlvr")`; empty is this Python.
    """

    name: str
    run: str
    settings: Mapping[str, Any]
    launch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A recipe as it is written.

    Attributes:
        path: Its file, from the root.
        title: The same as it was given, for messages.
        text: What is in it.
        name: Of the chain.
        shared: Settings that hold for every stage that has them.
        entries: The stages, in order.
    """

    path: Path
    title: str
    text: str
    name: str
    shared: Mapping[str, Any]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Stage:
    """A stage that can be run: its settings are resolved, and whatever refers to another stage is a path.

    Attributes:
        number: Its place, from 1.
        entry: What the recipe says.
        settings: The settings given to its command, by dotted name.
        config: All settings of the command, resolved.
        origins: Where each came from, by dotted name.
        uses: Names of the stages whose results it uses.
        folder: The directory of its run.
        comparable: Whether it measures accuracy as the whole chain does.
    """

    number: int
    entry: Entry
    settings: Mapping[str, Any]
    config: Any
    origins: Mapping[str, str]
    uses: tuple[str, ...]
    folder: Path
    comparable: bool

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def run(self) -> str:
        return self.entry.run

    @property
    def values(self) -> dict[str, Any]:
        """All settings by dotted name, as JSON values."""
        flat = flatten(tomllib.loads(to_toml(self.config)))
        return {name: value for name, value in flat.items() if name != "out"}


@dataclass(frozen=True)
class Plan:
    """A recipe laid out in a directory.

    Attributes:
        recipe: What was read.
        path: The directory.
        stages: In order.
        yardstick: How accuracy is measured after every stage; None where no stage has a task.
    """

    recipe: Recipe
    path: Path
    stages: tuple[Stage, ...]
    yardstick: TrainConfig | None


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe and checks its form; `plan` checks the settings.

    Raises:
        ConfigError: No such file, not TOML, no stages, or a stage without a command or of an unknown one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no recipe `{path}`", "give the path of a TOML file; some are in `recipes/`"
        ) from None
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"`{path}` is not TOML: {error}", "mend that line, or compare with a file of `recipes/`"
        ) from None
    tables = document.pop("stage", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"`{path}` has no stages", 'write a table `[[stage]]` with `run = "sft"` for each')
    name = document.pop("name", slug(path.stem))
    launch = launcher(document.pop("launch", []), f"`{path}`")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"`name` is `{name}` ({path})", "a name has letters, digits, dots and dashes")
    shared = flatten(document)
    entries: list[Entry] = []
    for table in tables:
        entry = read_entry(table, launch, len(entries) + 1, path)
        if any(other.name == entry.name for other in entries):
            raise ConfigError(f"`{path}` has two stages named `{entry.name}`", "give one of them another `name`")
        entries.append(entry)
    known = {name for entry in entries for name in settings_of(entry.run)}
    for setting in shared:
        if setting in ("out", "data"):
            hint = "`rlvr pipeline --out DIR` says where the chain goes"
            raise ConfigError(
                f"`{path}` has `{setting}` for all stages",
                hint if setting == "out" else "give it to the stage that it is meant for",
            )
        if setting not in known:
            near = nearest(setting, [*known, "name", "launch", "stage"])
            hint = (
                f"did you mean `{near}`?" if near else "above the stages stand settings of theirs, `name` and `launch`"
            )
            raise ConfigError(f"no stage of `{path}` has a setting `{setting}`", hint)
    return Recipe(path.absolute(), str(path), text, name, shared, tuple(entries))


def slug(stem: str) -> str:
    """The name of a recipe that gives none: its file's, without what no name has."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem, flags=re.IGNORECASE).strip("._-") or "chain"


def read_entry(table: Mapping[str, Any], launch: tuple[str, ...], number: int, path: Path) -> Entry:
    """One `[[stage]]`.

    Raises:
        ConfigError: Its command or its name cannot be used.
    """
    run = table.get("run")
    place = f"stage {number} of `{path}`"
    if not isinstance(run, str):
        listed = ", ".join(f"`{command}`" for command in COMMANDS)
        raise ConfigError(f"{place} does not say what to run", f"`run` is one of {listed}")
    if run not in COMMANDS:
        error = UnknownNameError("stage", run, COMMANDS)
        raise ConfigError(f"{place}: {error.message}", error.hint)
    name = table.get("name", run)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{place}: `name` is `{name}`", "a name has letters, digits, dots and dashes")
    place = f"stage `{name}` of `{path}`"
    own = launcher(table["launch"], place) if "launch" in table else launch
    settings = flatten({key: value for key, value in table.items() if key not in OWN})
    if "out" in settings:
        raise ConfigError(f"{place} has an `out`", "its run goes into the chain's directory: `rlvr pipeline --out DIR`")
    return Entry(name, run, settings, own)


def launcher(value: Any, place: str) -> tuple[str, ...]:
    """`launch` as a tuple of words.

    Raises:
        ConfigError: It is not a list of texts.
    """
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigError(
            f"{place}: `launch` is `{value}`, but must be a list of texts",
            'such as `["torchrun", "--nproc-per-node", "8", "-m", "rlvr"]`',
        )
    return tuple(value)


def plan(recipe: Recipe, path: str | Path) -> Plan:
    """Lays a recipe out in a directory, with every setting of every stage resolved.

    Raises:
        ConfigError: An unknown setting, an impossible value, a reference to no stage or a later one, or no model.
        RlvrError: As `rlvr.settings.resolve_run` and `rlvr.stages.config.resolve_stage` have it.
    """
    path = Path(path).absolute()
    with located(f"`{recipe.title}`"):
        yardstick = measured(recipe)
    stages: list[Stage] = []
    for number, entry in enumerate(recipe.entries, 1):
        with located(f"stage `{entry.name}` of `{recipe.title}`"):
            stages.append(lay_out(recipe, entry, number, stages, path, yardstick))
    return Plan(recipe, path, tuple(stages), yardstick)


def lay_out(
    recipe: Recipe, entry: Entry, number: int, before: list[Stage], path: Path, yardstick: TrainConfig | None
) -> Stage:
    """One stage, given those before it."""
    known = settings_of(entry.run)
    settings = {name: value for name, value in recipe.shared.items() if name in known}
    policies = [stage for stage in before if stage.run in POLICIES]
    start = "policy" if entry.run == "pairs" else "model"
    if policies and "policy_url" not in entry.settings:
        settings[start] = f"@{policies[-1].name}"
    elif entry.run == "pairs" and "model" in recipe.shared and "policy_url" not in entry.settings:
        settings[start] = recipe.shared["model"]
    settings |= entry.settings
    if entry.run == "pairs" and "data" in entry.settings and "task" not in entry.settings:
        settings.pop("task", None)  # prompts come from one of them
    if yardstick is not None and "eval.limit" in known and settings.get("task") == task_of(recipe):
        settings.setdefault("eval.limit", yardstick.eval.limit)
    uses: list[str] = []
    resolved_settings = {name: refer(name, value, recipe, entry, before, uses) for name, value in settings.items()}
    config, origins = resolve_command(entry.run, resolved_settings)
    if entry.run != "pairs" and not config.model:
        raise ConfigError("no model is named", "give the recipe a `model`: `starter`, a folder, or a hub name")
    check_places(config, path)
    folder = path / f"{number:02d}-{entry.name}"
    same = yardstick is not None and entry.run in POLICIES and measures_as(config, yardstick)
    return Stage(number, entry, resolved_settings, config, origins, tuple(dict.fromkeys(uses)), folder, same)


def check_places(config: Any, path: Path) -> None:
    """Refuses what a stage would not find when its turn comes, however late that is.

    Args:
        config: The stage's settings.
        path: The chain's directory: what lies there may have to be made first.

    Raises:
        ConfigError: Data or a model that is not there, or a device that no machine has.
    """
    if config.device and not DEVICE.fullmatch(config.device):
        raise ConfigError(f"`device` is `{config.device}`", "it is `cpu`, `cuda`, `cuda:N` or `mps`")
    values = flatten(tomllib.loads(to_toml(config)))
    if values.get("policy_url"):
        values.pop("policy")  # a name over there
    own = () if isinstance(config, TrainConfig) else ("data",)  # its `data` is that of its task
    for name in (*own, *MODELS):
        value = str(values.get(name) or "")
        local = not value.startswith("hub:") if name == "data" else value.startswith(("/", ".", "~"))
        place = Path(value).expanduser().absolute()
        if not value or not local or place.is_relative_to(path):
            continue
        if not (place.exists() if name == "data" else place.is_dir()):
            raise ConfigError(
                f"`{name}` is `{value}`, which is not there",
                "a path that begins with `./` starts from the recipe's folder, another one from the folder you are in",
            )


def refer(name: str, value: Any, recipe: Recipe, entry: Entry, before: list[Stage], uses: list[str]) -> Any:
    """A setting's value with references to stages, and to files beside the recipe, made paths; adds stages to `uses`.

    Raises:
        ConfigError: There is no such stage, it does not come before, or it leaves nothing of that kind.
    """
    if isinstance(value, list):
        return [refer(name, item, recipe, entry, before, uses) for item in value]
    value = beside(recipe, value)
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    wanted = value[1:]
    found = next((stage for stage in before if stage.name == wanted), None)
    if found is None:
        if any(other.name == wanted for other in recipe.entries):
            raise ConfigError(
                f"`{name}` refers to `{wanted}`, which does not come before it", "put the stages into their order"
            )
        near = nearest(wanted, [stage.name for stage in before])
        listed = ", ".join(f"`@{stage.name}`" for stage in before)
        hint = (
            f"the stages before it are {listed}"
            if before
            else f"`{entry.name}` is the first stage, with none before it; a file of that name is `./{value}`"
        )
        raise ConfigError(
            f"`{name}` refers to `{wanted}`, but there is no such stage", f"did you mean `@{near}`?" if near else hint
        )
    uses.append(wanted)
    if name == "data":
        if found.run in ("eval", "reward"):
            raise ConfigError(f"`data` refers to `{wanted}`, but `{found.run}` leaves nothing to learn from", "")
        return str(found.folder)
    if found.run in NO_MODEL:
        raise ConfigError(
            f"`{name}` refers to `{wanted}`, but `{found.run}` leaves no model",
            f'its data is `data = "@{wanted}"`' if found.run == "pairs" else "name a stage that trains one",
        )
    return str(found.folder / "final")


def beside(recipe: Recipe, value: Any) -> Any:
    """A setting's value, where it begins with `./` or `../`, as a path that starts from the recipe's folder."""
    if isinstance(value, list):
        return [beside(recipe, item) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return os.path.normpath(recipe.path.parent / value)
    return value


def settings_of(run: str) -> set[str]:
    """The names of a command's settings."""
    return set(leaves(class_of(run)))


def class_of(run: str) -> type:
    """The class of a command's settings."""
    if run == "pairs":
        return PairsConfig
    return STAGES.get(run, TrainConfig)


def resolve_command(run: str, settings: Layer) -> tuple[Any, Mapping[str, str]]:
    """The config of a command and the origin of each value, as the command itself would have them.

    Raises:
        RlvrError: As the command's own resolver has it.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stage.toml"
        file.write_text(layer_toml(settings), encoding="utf-8")
        try:
            if run == "pairs":
                found: Any = resolve_pairs({}, [file])
            elif run in STAGES:
                found = resolve_stage(run, {}, [file])
            else:
                found = resolve_run({}, [file], planned=True)
        except RlvrError as error:
            error.message = error.message.replace(f" (config {file})", "")
            raise
        origins = {name: "recipe" if str(file) in origin else origin for name, origin in found.origins.items()}
    return found.config, origins


def layer_toml(settings: Layer) -> str:
    """Settings by dotted name as the text of a `--config` file."""
    return "".join(f"{name} = {toml_value(value)}\n" for name, value in settings.items())


def toml_value(value: Any) -> str:
    """A value as TOML.

    Raises:
        ConfigError: It is of a kind that no setting has, such as a date.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        escaped = (f"\\u{ord(c):04x}" if c in '"\\' or ord(c) < 32 or ord(c) == 127 else c for c in value)
        return '"' + "".join(escaped) + '"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    raise ConfigError(
        f"`{value}` is no value that a setting can have", "settings are texts, numbers, true or false, lists"
    )


# Accuracy that compares


def task_of(recipe: Recipe) -> str:
    """The task that the whole chain is measured on; empty if there is none."""
    own = [str(entry.settings.get("task", "")) for entry in recipe.entries if entry.run in POLICIES]
    return str(recipe.shared.get("task", "")) or next(filter(None, own), "")


def measured(recipe: Recipe) -> TrainConfig | None:
    """The settings of `rlvr eval` after every stage: the recipe's task and `eval`, the same problems each time."""
    task = task_of(recipe)
    if not task:
        return None
    names = ("device", "plugin", *(name for name in leaves() if name.startswith(("eval.", "scorer.", "sandbox."))))
    shared = {
        name: beside(recipe, value) for name, value in recipe.shared.items() if name in names and name in leaves()
    }
    config: TrainConfig = resolve_command("eval", {**shared, "task": beside(recipe, task)})[0]
    return config


def measures_as(config: Any, yardstick: TrainConfig) -> bool:
    """Whether the accuracy that a stage measures by itself is that of `yardstick`."""
    own = config
    if isinstance(config, StageConfig):
        if not config.task:
            return False
        settings = {"task": config.task, "eval.limit": config.eval.limit, "plugin": list(config.plugin)}
        own = resolve_command("eval", settings)[0]
    here, there = (flatten(tomllib.loads(to_toml(c))) for c in (own, yardstick))
    return all(here[name] == there[name] for name in MEASURE)


class located:
    """Says of an error where in the recipe it comes from."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RlvrError):
            error.message = f"{self.place}: {error.message}"
            error.args = (error.message,)


def at(recipe: Recipe, path: str | Path) -> Recipe:
    """The same recipe, said to be in another file."""
    return replace(recipe, path=Path(path), title=str(path))
