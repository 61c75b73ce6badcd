"""Where the splits of a task come from: files, folders, the hub; and how one source serves two splits."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlvr.errors import DataError, MissingDependencyError, UsageError
from rlvr.taskfile.form import Form, Golds
from rlvr.taskfile.readers import READERS, Item, check_suffix, read_rows, rows_of, suffixes
from rlvr.taskfile.rows import Row
from rlvr.taskfile.table import Table
from rlvr.types import Sample, Split

TEST_ROWS_ONE_IN = 10

SPLITS: tuple[Split, Split] = ("train", "test")


@dataclass(frozen=True)
class _File:
    """One local file of rows."""

    path: Path

    def __str__(self) -> str:
        return f"`{self.path}`"

    def rows(self) -> Iterator[Row]:
        return read_rows(self.path)


@dataclass(frozen=True)
class Hub:
    """One split of a hub data set, or of a folder laid out like one."""

    repo: str
    config: str | None
    split: str

    def __str__(self) -> str:
        return f"`{self.repo}{':' + self.config if self.config else ''}` {self.split}"

    def rows(self) -> Iterator[Row]:
        return rows_of(self.items())

    def items(self) -> Iterator[Item]:
        """The rows as they are.

        Raises:
            DataError: It cannot be loaded.
            MissingDependencyError: The extra `data` is not installed.
        """
        try:
            import datasets
        except ImportError:
            raise MissingDependencyError.extra(f"reading the hub data set {self}", "data") from None
        try:
            data = datasets.load_dataset(self.repo, self.config, split=self.split)
            for number, values in enumerate(data, 1):
                yield f"{self} row {number}", values
        except Exception as error:  # the hub, the network and each kind of file have errors of their own
            cause = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"the hub data set {self} cannot be loaded: {cause}",
                "check the name and the network, or give a local copy with `--data PATH`",
            ) from error


@dataclass(frozen=True)
class _Missing:
    """A split that a folder does not have."""

    folder: Path
    split: Split

    def rows(self) -> Iterator[Row]:
        other = "test" if self.split == "train" else "train"
        raise DataError(
            f"the folder `{self.folder}` has a `{other}.*` file but no `{self.split}.*`",
            f"add one ({suffixes()}), or give a single file, which is divided",
        )


_Source = _File | Hub | _Missing
Sources = Mapping[Split, _Source]
"""A source for each split; a task that only tests has none for `train`."""


def sources_of(data: Table, base: Path) -> tuple[Callable[[], Sources], tuple[Split, ...]]:
    """Where the splits of `[data]` come from, and which there are. Files are looked for when samples are asked for."""
    hub, path = data.text("hub", None), data.text("path", None)
    if (hub is None) == (path is None):
        raise data.refuse("hub", "and `data.path`: give exactly one of them", "a hub data set, or a file or folder")
    splits = data.table("splits", {})
    wanted: tuple[Split, ...] = ("test",) if splits.values and "train" not in splits.values else SPLITS
    names = {split: splits.text(split) for split in wanted} if splits.values else None
    splits.done()
    if hub is not None:
        repo, _, configuration = hub.partition(":")
        if repo.startswith((".", "/", "~")):
            repo = str(base / Path(repo).expanduser())
        names = names or {split: split for split in SPLITS}
        found: Sources = {split: Hub(repo, configuration or None, name) for split, name in names.items()}
        return lambda: found, wanted
    place = base / Path(path).expanduser()
    if names is None:
        return lambda: local_sources(place, wanted), wanted
    return lambda: {split: _File(_existing(place, folder=True) / name) for split, name in names.items()}, wanted


def _existing(path: Path, folder: bool = False) -> Path:
    if not path.exists():
        raise DataError(f"there is no data file or folder `{path}`", "check the path")
    if folder and not path.is_dir():
        raise DataError(f"`{path}` is no folder, but `data.splits` names files in one", "leave `splits` out")
    return path


def local_sources(path: Path, wanted: Sequence[Split]) -> Sources:
    """One file for all splits, or a folder's `train.*` and `test.*`."""
    if not _existing(path).is_dir():
        check_suffix(path)
        return dict.fromkeys(wanted, _File(path))
    found: dict[Split, _Source] = {}
    for split in wanted:
        files = sorted(f for f in path.iterdir() if f.stem == split and f.suffix.lower() in READERS)
        if len(files) > 1:
            names = " and ".join(f"`{f.name}`" for f in files)
            raise DataError(f"the folder `{path}` has more than one {split} split: {names}", "keep one")
        found[split] = _File(files[0]) if files else _Missing(path, split)
    if all(isinstance(source, _Missing) for source in found.values()):
        none = "neither a `train.*` nor a `test.*`" if len(wanted) > 1 else "no `test.*`"
        raise DataError(f"the folder `{path}` has {none}", f"it can be {suffixes()}")
    return found


@dataclass
class Data:
    """The samples of a task. Every source is read once, whole, when it is first needed.

    Perfect completions are kept here rather than in the samples, which go to verifiers and prompts.
    """

    form: Form
    locate: Callable[[], Sources]
    sources: Sources | None = None
    cache: dict[_Source, list[Sample]] = field(default_factory=dict)
    golds: Golds = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def gold(self, sample: Sample) -> str:
        """How a perfect completion for a sample looks. `Task.gold` of a TOML task with `gold`.

        Raises:
            UsageError: The sample is not from this data.
        """
        for known, text in self.golds.get(sample.id, ()):
            if known == sample:
                return text
        raise UsageError(f"the sample `{sample.id}` is not one of this task's", "load the task's samples first")

    def load(self, split: Split) -> list[Sample]:
        """The samples of a split in the order of its rows. `Task.load` of a TOML task.

        Raises:
            DataError: A file or a row that cannot be used.
            MissingDependencyError: Parquet or the hub without the extra `data`.
        """
        if split not in SPLITS:
            raise UsageError(f"there is no split `{split}`", "the splits are `train` and `test`")
        with self.lock:
            sources = self.sources = self.sources or self.locate()
            if split not in sources:
                return []
            source = sources[split]
            if source not in self.cache:
                samples = self.form.samples(source.rows(), self.golds)
                if not samples:
                    raise DataError(f"{source} has no rows", "give a file with at least one")
                self.cache[source] = samples
            samples = self.cache[source]
        if sources.get("train") != sources["test"]:
            return list(samples)
        test = _test_ids([sample.id for sample in samples], source)
        return [sample for sample in samples if (sample.id in test) == (split == "test")]


def _test_ids(ids: Sequence[str], source: _Source) -> set[str]:
    """The ids of the test rows where one source serves both splits."""
    if len(ids) < 2:
        raise DataError(f"{source} has one row, which cannot be divided into train and test", "add rows")
    ranks = {id: int(hashlib.sha256(id.encode()).hexdigest(), 16) for id in ids}
    test = {id for id, rank in ranks.items() if rank % TEST_ROWS_ONE_IN == 0}
    return test if 0 < len(test) < len(ids) else {min(ids, key=ranks.__getitem__)}
