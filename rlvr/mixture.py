"""Several tasks in one run: how `math:0.7,json:0.3` is read, and the stream of problems that it makes.

The stream is endless and a pure function of its seed: what stands at a place does not depend on what was drawn before.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, isfinite
from pathlib import Path

from rlvr.errors import ConfigError, nearest
from rlvr.registry import Registry
from rlvr.seeds import derive_seed
from rlvr.types import Sample, Task

Mix = Mapping[str, Fraction]
"""Tasks by name or path, in the order they were written, and what they weigh."""

SYNTAX = "such as `math:0.7,json:0.3`: names or paths, each with a weight above 0 or none, which is 1"


@dataclass(frozen=True, slots=True)
class Problem:
    """A sample of a task, and the number that it goes by: while training, its place in the stream."""

    number: int
    task: Task
    sample: Sample

    @property
    def key(self) -> str:
        """What its prompt goes by in a run: samples of two tasks may have the same id."""
        return f"{self.task.name}/{self.sample.id}"


class Stream:
    """The endless stream of training problems.

    Of the first `n` places the first task has `floor(n w + 1/2)`, where `w` is its weight over that of all; the others
    divide the rest among themselves in the same way. So the first task is never off its share by more than half a
    problem, each later one by less than half a problem more than the one before it. A task's samples come in the order
    in which they would come alone: shuffled anew each epoch by seed.

    Args:
        tasks: Each with its weight and its samples, of which there is at least one.
        seed: Of the order.
    """

    def __init__(self, tasks: Sequence[tuple[Task, Fraction, Sequence[Sample]]], seed: int) -> None:
        self.tasks = tuple(task for task, _, _ in tasks)
        self._samples = [found for _, _, found in tasks]
        weights = [weight for _, weight, _ in tasks]
        self._shares = [weight / sum(weights[index:]) for index, weight in enumerate(weights)]
        self._seed = seed
        self._orders: dict[int, tuple[int, list[int]]] = {}  # the task's current epoch and its order

    def __getitem__(self, place: int) -> Problem:
        index, turn = self._turn(place)
        found = self._samples[index]
        epoch, offset = divmod(turn, len(found))
        return Problem(place, self.tasks[index], found[self._order(index, epoch)[offset]])

    def _turn(self, place: int) -> tuple[int, int]:
        """Whose place it is, and how many that task had before."""
        left = place
        for index, share in enumerate(self._shares):
            before, after = (floor(n * share + Fraction(1, 2)) for n in (left, left + 1))
            if after > before:
                return index, before
            left -= before
        raise AssertionError("the last task takes all that is left")

    def _order(self, index: int, epoch: int) -> list[int]:
        if index not in self._orders or self._orders[index][0] != epoch:
            order = list(range(len(self._samples[index])))
            random.Random(derive_seed(self._seed, epoch)).shuffle(order)
            self._orders[index] = epoch, order
        return self._orders[index][1]


def read_mix(text: str) -> Mix:
    """What `--task` names. A single task may be any name or path; a path has no weight unless one follows its `.toml`.

    Raises:
        ConfigError: A part is empty, is there twice, or has a weight that is no positive number.
    """
    if text.endswith(".toml") and Path(text).expanduser().is_file():  # whatever else its path says
        return {text: Fraction(1)}
    found: dict[str, Fraction] = {}
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":")
        if not colon or part.strip().endswith(".toml"):
            name, weight = part.strip(), "1"
        if not name.strip():
            raise ConfigError(f"`task` is `{text}`, in which a part names no task", SYNTAX)
        if name.strip() in found:
            raise ConfigError(f"`task` is `{text}`, which has `{name.strip()}` twice", "name it once, with one weight")
        found[name.strip()] = _weight(weight.strip(), name.strip())
    return found


def _weight(text: str, name: str) -> Fraction:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not isfinite(value) or value <= 0:
        raise ConfigError(f"the weight of the task `{name}` is `{text}`, but must be a number above 0", SYNTAX)
    return Fraction(str(value))


def write_mix(mix: Mix) -> str:
    """The text that `read_mix` takes; weights are left out where all are the same."""
    alike = len(set(mix.values())) == 1
    return ",".join(name if alike else f"{name}:{float(weight)!r}" for name, weight in mix.items())


def read_copies(data: str, mix: Mix) -> dict[str, str]:
    """The local copies of data that `--data` gives, by the names of tasks; that of a single task goes without a name.

    Raises:
        ConfigError: There are several tasks, and a part is not NAME=PATH.
    """
    if len(mix) == 1 or not data:
        return {"": data} if data else {}
    found = {}
    for part in data.split(","):
        name, _, path = (piece.strip() for piece in part.partition("="))
        if not name or not path:
            raise ConfigError(
                f"`data` is `{data}`, but there are several tasks",
                f"say whose data it is, such as `{Path(next(iter(mix))).stem}=PATH`, with a comma between two",
            )
        found[name] = path
    return found


def write_copies(copies: Mapping[str, str]) -> str:
    """The text that `read_copies` takes."""
    return ",".join(f"{name}={path}" if name else path for name, path in copies.items())


def load_mix(registry: Registry, text: str, data: str = "") -> list[tuple[Task, Fraction]]:
    """The tasks that `text` names, over their local copies of data, with their weights.

    Raises:
        ConfigError: As `read_mix` and `read_copies` do; two tasks have the same name; data for another task.
        RlvrError: As `Registry.task` does.
    """
    mix = read_mix(text)
    copies = read_copies(data, mix)
    if len(mix) == 1:
        return [(registry.task(name, copies.get("", "")), weight) for name, weight in mix.items()]
    found: dict[str, tuple[Task, Fraction]] = {}
    for given, weight in mix.items():
        task = registry.task(given)
        if task.name in found:
            raise ConfigError(f"two tasks are named `{task.name}`", "give one of them another `name`")
        found[task.name] = registry.task(given, copies.pop(task.name, "")), weight
    for name in copies:
        near = nearest(name, found)
        known = "the tasks are " + ", ".join(f"`{task}`" for task in found)
        raise ConfigError(
            f"`data` is for `{name}`, which is none of the tasks", f"did you mean `{near}`?" if near else known
        )
    return list(found.values())


def load_also(registry: Registry, names: Sequence[str], trained: Sequence[Task]) -> list[Task]:
    """The tasks that are only measured, by name or path.

    Raises:
        ConfigError: One is trained as well, or named twice.
        RlvrError: As `Registry.task` does.
    """
    found = [registry.task(name) for name in names]
    taken = {task.name for task in trained}
    for task in found:
        if task.name in taken:
            raise ConfigError(
                f"`eval.also` has `{task.name}`, which is measured already",
                "name tasks that are not trained, each once; those of a mixture are reported one by one anyway",
            )
        taken.add(task.name)
    return found


def number(tasks: Sequence[Task], splits: Sequence[Sequence[Sample]]) -> list[Problem]:
    """The samples of all tasks as problems, numbered through."""
    found = [(task, sample) for task, split in zip(tasks, splits, strict=True) for sample in split]
    return [Problem(index, task, sample) for index, (task, sample) in enumerate(found)]
