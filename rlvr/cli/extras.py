"""Commands that need the extra `train`: torch is imported when one runs, and a missing package says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from rlvr.errors import MissingDependencyError

TRAIN = ("torch", "transformers", "accelerate")


@contextmanager
def needs_train(command: str) -> Iterator[None]:
    """Checks that the packages for training are installed; imports inside may still fail.

    Raises:
        MissingDependencyError: A package is not installed, or cannot be imported.
    """
    for package in TRAIN:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            raise MissingDependencyError.extra(f"`{command}`", "train") from None
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0].startswith("rlvr"):
            raise
        raise MissingDependencyError(
            f"what `{command}` needs cannot be imported: {error}", "pip install --force-reinstall 'rlvr[train]'"
        ) from error
