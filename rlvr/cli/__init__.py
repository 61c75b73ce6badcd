"""The command line. stdout is data, stderr is for people; every error is two lines and an exit code:

0    yes
1    it ran and the answer is no: a failed verdict, a task that is not proven, a run that stopped itself
2    a mistake on the command line or in a config
3    something is missing: data, a package, a device, or a verdict
130  interrupted; a training run has written a checkpoint
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App, Parameter

import rlvr
from rlvr.cli import algorithms, new, pairs, sandbox, tasks, verifiers
from rlvr.cli.advise import advise
from rlvr.cli.errors import BROKEN_PIPE, INTERRUPTED, report
from rlvr.cli.evaluate import evaluate
from rlvr.cli.flags import FLAGS
from rlvr.cli.output import console, note
from rlvr.cli.pipeline import pipeline
from rlvr.cli.stages import prefer, reward, sft
from rlvr.cli.train import train
from rlvr.cli.verify import verify
from rlvr.errors import debugging

DEBUG = "--debug"

app = App(
    name="rlvr",
    help="Reinforcement learning from verifiable rewards.",
    help_epilogue=f"`{DEBUG}` works everywhere: errors come with their traceback, and what verifiers print is shown.",
    version=rlvr.__version__,
    help_format="plaintext",
    version_format="plaintext",
    default_parameter=Parameter(show_default=False),
    group_parameters=FLAGS,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(train)
app.command(evaluate, name="eval")
app.command(verify, usage="Usage: rlvr verify NAME COMPLETION [--KEY VALUE]... [FLAGS]")
app.command(sft)
app.command(pairs.app)
app.command(reward)
app.command(prefer)
app.command(pipeline)
app.command(advise)
app.command(algorithms.app)
app.command(tasks.app)
app.command(verifiers.app)
app.command(sandbox.app)
app.command(new.app)


def commands(group: App = app, *above: str) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command with its name in words, such as `("tasks", "show")`, and the groups they are in."""
    for name in group:
        if not name.startswith("-"):
            yield (*above, name), group[name]
            yield from commands(group[name], *above, name)


for _, command in commands():
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help))  # the terminal wraps it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    own = tokens[: tokens.index("--")] if "--" in tokens else tokens
    if DEBUG in own:
        tokens.remove(DEBUG)
        os.environ["RLVR_DEBUG"] = "1"
    app.console = console()
    try:
        code: int | None = app(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at exit
        return BROKEN_PIPE
    except Exception as error:
        return report(error, app, debugging())
