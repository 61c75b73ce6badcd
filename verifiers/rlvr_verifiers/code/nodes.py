"""The nodes that stand for the program in the tree of a check, and what may come of evaluating it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from rlvr import Opaque


class NeedsJudge(Exception):
    """The host cannot tell; a judge process can."""


class FaultyTest(Exception):
    """The test itself raises, whatever the program does."""


class CallRaised(Exception):
    """The program raised an exception in the call of that number."""

    def __init__(self, call: int, text: str) -> None:
        super().__init__(text)
        self.call, self.text = call, text


class CallMissing(Exception):
    """The program ended before the call of that number had returned."""

    def __init__(self, call: int) -> None:
        super().__init__(call)
        self.call = call


class Unset(Exception):
    """A variable of the test's own has no value, as what came before it failed."""


class Pretender(Exception):
    """An object of the program's own answers to a method that only text has."""


class Root(ast.expr):
    """Stands for the value of a call."""

    _fields = ()

    def __init__(self, call: int) -> None:
        super().__init__()
        self.call = call


class Access(ast.expr):
    """Stands for the accessor of that depth behind a call.

    Attributes:
        node: The accessor as the host applies it to `inner`; None if the host cannot.
    """

    _fields = ("inner",)

    def __init__(self, call: int, depth: int, inner: ast.expr, node: ast.expr | None) -> None:
        super().__init__()
        self.call, self.depth, self.inner, self.node = call, depth, inner, node


class Faulty(ast.expr):
    """Stands for a part that raises whatever the program does."""

    _fields = ()

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


def opaque_in(value: Any) -> bool:
    """Whether there is an `Opaque` in the value."""
    todo = [value]
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind is Opaque:
            return True
        if kind in SIMPLE:
            continue
        if isinstance(value, Mapping):
            todo.extend(value.keys())
            todo.extend(value.values())
        elif kind not in _FLAT and hasattr(value, "__len__"):
            todo.extend(value)
    return False


SIMPLE = frozenset((type(None), bool, int, float, str))
"""Types of values that hold no others."""

_FLAT = frozenset((bytes, bytearray, range, complex))
