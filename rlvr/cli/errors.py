"""Turns whatever went wrong into two lines, `error: what` and `hint: do this`, and an exit code."""

from __future__ import annotations

import os
import traceback
import typing
from collections.abc import Iterable
from typing import Any, Literal

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownOptionError,
)

from rlvr.cli.output import console, shown
from rlvr.errors import RlvrError, UsageError, nearest

USAGE = 2
ENVIRONMENT = 3
INTERRUPTED = 130
BROKEN_PIPE = 141  # as a shell reports a command that SIGPIPE ended

WANTED = {int: "a whole number", float: "a number", bool: "`true` or `false`"}


def report(error: BaseException, app: App, debug: bool) -> int:
    """Prints an error on stderr and returns the exit code. `debug` adds the traceback."""
    if debug:
        traceback.print_exception(error)
    code, message, hint = explain(error, app)
    for label, text, style in (("error", message, "bold red"), ("hint", hint, "bold")):
        if text:
            console(stderr=True).print(f"{label}:", style=style, end=" ")
            console(stderr=True).print(shown(text), soft_wrap=True)
    return code


def explain(error: BaseException, app: App) -> tuple[int, str, str]:
    """`(exit code, message, hint)` of an error."""
    if isinstance(error, CycloptsError):
        error = usage_error(error, app)
    if isinstance(error, RlvrError):
        return error.exit_code, error.message, error.hint
    kind, text = type(error).__name__, " ".join(str(error).split())
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":  # torch's own is a RuntimeError
        hint = "lower `--sampler.batch-size` or `--learner.micro-batch-tokens`, or take a smaller model"
        return ENVIRONMENT, f"out of memory: {text or 'there is none left'}", hint
    if isinstance(error, OSError) and error.strerror:
        where = f"`{error.filename}`: " if error.filename else ""
        return ENVIRONMENT, f"{where}{error.strerror}", "check the path, its permissions and the space on the disk"
    place = "".join(
        f" ({os.path.basename(f.filename)}:{f.lineno})" for f in traceback.extract_tb(error.__traceback__)[-1:]
    )
    return USAGE, f"internal: {kind}: {text}{place}", "this should not happen; `--debug` shows the traceback"


def usage_error(error: CycloptsError, root: App) -> UsageError:
    """A mistake on the command line in our words, with the nearest name suggested."""
    app = root
    for name in error.command_chain or ():
        app = app[name]
    command = " ".join(("rlvr", *(error.command_chain or ())))
    hint = f"`{command} --help` shows what it takes"
    if isinstance(error, UnknownOptionError):
        return unknown_flag(command, error.token.keyword or error.token.value, flags(app))
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        given = error.keyword or next((token.keyword for token in error.argument.tokens if token.keyword), None)
        flag = given or error.argument.name
        return UsageError(
            f"`{command}` needs " + (f"a value for `{flag}`" if flag.startswith("-") else f"`{flag}`"), hint
        )
    if isinstance(error, RepeatArgumentError):
        return UsageError(f"`{error.token.keyword}` is given twice", "give it once")
    if isinstance(error, CoercionError) and error.token is not None:
        flag = error.token.keyword or (error.argument.name if error.argument else "the argument")
        return UsageError(f"`{flag}` is `{error.token.value}`, but must be {wanted(error.target_type)}", hint)
    if not error.unused_tokens:
        return UsageError(" ".join(str(error).split()), hint)
    token = error.unused_tokens[0]
    if token.startswith("-"):
        return unknown_flag(command, token, flags(app))
    if commands := subcommands(app):
        near = nearest(token, commands)
        known = "known: " + ", ".join(f"`{name}`" for name in commands)
        return UsageError(f"`{command}` has no command `{token}`", f"did you mean `{near}`?" if near else known)
    if token.lower() in ("true", "false"):
        hint = "a switch is written `--sampler.dynamic`, `--no-sampler.dynamic` or `--sampler.dynamic=false`"
    return UsageError(f"`{command}` has no place for `{token}`", hint)


def wanted(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    return WANTED.get(kind, "something else")


def unknown_flag(command: str, token: str, known: Iterable[str]) -> UsageError:
    """The error for a flag that does not exist."""
    flag = token.partition("=")[0]
    near = " or ".join(f"`{name}`" for name in near_flags(flag, list(known)))
    hint = f"did you mean {near}?" if near else f"`{command} --help` lists its flags"
    return UsageError(f"`{command}` has no flag `{flag}`", hint)


def near_flags(flag: str, known: list[str]) -> list[str]:
    """What was probably meant: the flags whose last part it is (`--lr` is `--learner.lr`), else the nearest one."""
    plain = flag.lstrip("-").replace("_", "-")
    ends = [name for name in known if name.rpartition(".")[2] == plain]
    near = nearest(f"--{plain}", known)
    return ends or ([near] if near else [])


def flags(app: App) -> list[str]:
    """The flags of a command."""
    own = ["--help", "--version", "--debug"]
    if app.default_command is None:
        return own
    return [*own, *(name for argument in app.assemble_argument_collection() for name in argument.names)]


def subcommands(app: App) -> list[str]:
    """The names of the commands below `app`."""
    return [name for name in app if not name.startswith("-")]
