"""Commands that need an extra, `train` or `stages`: torch is imported when one runs, and a missing package says what to
install."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata

from rlvr.errors import MissingDependencyError

TRAIN = ("torch", "transformers", "accelerate")
STAGES = (*TRAIN, "datasets", "trl", "matplotlib")


def needs_train(command: str) -> AbstractContextManager[None]:
    """As `needs`, for what trains and measures policies."""
    return needs(command, "train", TRAIN)


def needs_stages(command: str) -> AbstractContextManager[None]:
    """As `needs`, for the stages on TRL."""
    return needs(command, "stages", STAGES)


@contextmanager
def needs(command: str, extra: str, packages: Sequence[str]) -> Iterator[None]:
    """Checks that the packages of an extra are installed; imports inside may still fail.

    Raises:
        MissingDependencyError: A package is not installed, or cannot be imported.
    """
    for package in packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            raise MissingDependencyError.extra(f"`{command}`", extra) from None
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("rlvr"):
            raise
        raise MissingDependencyError(
            f"what `{command}` needs cannot be imported: {error}", f"pip install --force-reinstall 'rlvr[{extra}]'"
        ) from error
