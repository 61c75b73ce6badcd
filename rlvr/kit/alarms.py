"""Finds verifiers that set an alarm to keep a clock of their own. Their source is read; nothing of it is run."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator

_ALARM = re.compile(r"(?:.*\.)?(?:alarm|setitimer)")


def alarms(module: str) -> Iterator[str]:
    """Where a verifier's module, or another of its package that was imported, calls for an alarm.

    An alarm cannot stop what runs in C, and one that is left armed ends the worker during another verification.
    """
    package = module.rpartition(".")[0] or module
    for name, loaded in list(sys.modules.items()):
        if name in (module, package) or name.startswith(package + "."):
            try:
                source = inspect.getsource(loaded)
            except (OSError, TypeError):  # no Python source: an empty file, or something compiled
                continue
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and _ALARM.fullmatch(ast.unparse(node.func)):
                    yield f"`{name}` line {node.lineno} (`{ast.unparse(node.func)}`)"
