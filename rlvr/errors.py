"""Every error that rlvr raises on purpose.

    RlvrError                 base; carries a `hint` and an exit code
    ├── UsageError            2  a flag, an argument, a config value
    │   ├── UnknownNameError  2  no verifier, task, shaper or sandbox of that name
    │   └── ConfigError       2  a config file, an environment variable, a combination of values
    ├── PluginError           2  a plugin that fails, misspells a hook, or takes a name that is taken
    ├── DataError             3  a sample, a row or a file; says which, and where it stands
    ├── MissingDependencyError 3  a missing extra, device, sandbox or model
    └── RunStopped            1  the run stopped itself: too many missing verdicts, nothing left to learn from
        └── Diverged          1  the gradient is not finite

The command line prints `error: <message>` and `hint: <hint>` and exits with `exit_code`; `--debug` adds the
traceback. Messages name the offending literal in back-ticks and suggest the nearest name.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class RlvrError(Exception):
    """Base of all deliberate errors.

    `message` says what is wrong, `hint` what to do about it (may be empty).
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RlvrError):
    """A flag, an argument or a value that cannot be used."""


class ConfigError(UsageError):
    """A config file, an environment variable, or a combination of settings that makes no sense."""


class UnknownNameError(UsageError):
    """No verifier, task, shaper or sandbox of that name; the hint suggests the nearest one and lists them all."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = nearest(name, names)
        listed = ", ".join(f"`{n}`" for n in names) or "none"
        hint = f"did you mean `{near}`? Known: {listed}" if near else f"known: {listed}"
        super().__init__(f"there is no {kind} named `{name}`", hint)


class PluginError(RlvrError):
    """A plugin that fails, misspells a hook, returns what it must not, or takes a name that is taken."""


class DataError(RlvrError):
    """A sample, row, file or run that cannot be used. The message says which; of a row, file, line and column."""

    exit_code = 3


class MissingDependencyError(RlvrError):
    """An optional part is not installed, or this machine lacks what the command needs."""

    exit_code = 3

    @classmethod
    def extra(cls, what: str, extra: str) -> MissingDependencyError:
        """The error for an optional dependency: `what` needs the extra `rlvr[extra]`."""
        return cls(f"{what} needs the extra `{extra}`", f"pip install 'rlvr[{extra}]'")


class RunStopped(RlvrError):
    """A run that stopped itself: too many missing verdicts, no group left to learn from, or a guard that fired."""

    exit_code = 1


class Diverged(RunStopped):
    """The gradient is not finite; the update in progress was given up."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None when none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def debugging() -> bool:
    """Whether `RLVR_DEBUG` asks for tracebacks and for what verifiers print."""
    return os.environ.get("RLVR_DEBUG", "").lower() not in ("", "0", "false", "no", "off")
