"""How a judge uses what a solution defines, without sharing a process with it.

Two processes talk over a socket pair: the judge asks, the solution answers, and while it works on an answer it may ask
the judge to call what the judge has lent it (a callback in a test). Plain data crosses as plain data; everything else
stays where it is and crosses as a reference.

What keeps the judge's word its own:

- A reference to the solution's object never equals plain data. Operators that would hand the other operand to the
  solution, and take its word for the outcome, work only on classes that the tests themselves name.
- Between such an object and a number they may not give a number, since that is how an object passes for the number
  that a test expects.
- The solution can call the functions it was lent, and read and write fields of instances of the tests' own classes. It
  cannot look into them.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import importlib
import json
import os
import sys
import types
from typing import Any

from rlvr_sandboxes.inside import codec

FRAME_LIMIT = 64 << 20

VALUE_OPS = (
    "__iter__ __next__ __len__ __getitem__ __setitem__ __delitem__ __call__ __repr__ __str__ __bool__ __format__ "
    "__int__ __float__ __index__ __complex__ __bytes__ __enter__ __exit__ __reversed__ __round__ __trunc__ __floor__ "
    "__ceil__ __abs__ __neg__ __pos__ __invert__ __hash__ __aenter__ __aexit__ __aiter__ __anext__ __missing__"
).split()
ORDER_OPS = "__lt__ __le__ __gt__ __ge__".split()
NUMBER_OPS = [
    f"__{prefix}{name}__"
    for name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod".split()
    for prefix in ("", "r", "i")
    if (prefix, name) != ("i", "divmod")
]
OTHER_OPS = [*ORDER_OPS, *NUMBER_OPS, "__eq__", "__contains__"]

STANDARD = frozenset(
    "abc array bisect builtins calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal "
    "enum fractions functools heapq inspect io itertools json math numbers numpy operator pandas random re statistics "
    "string sympy textwrap time types typing unicodedata".split()
)
"""Modules whose functions and classes cross by name from the judge to the solution."""

PURE = frozenset(
    "bisect calendar cmath collections datetime decimal fractions functools heapq itertools json math numbers numpy "
    "operator pandas random re statistics string sympy textwrap time typing unicodedata".split()
)
"""Modules that the judge may take its own copy of, for a name that the tests use and only the solution imports."""

ALIASES = {"numpy": "np", "pandas": "pd", "collections": "col", "itertools": "it", "functools": "ft", "datetime": "dt"}

TYPES = {
    kind.__name__: kind
    for kind in (
        *(
            bool,
            bytearray,
            bytes,
            complex,
            dict,
            float,
            frozenset,
            int,
            list,
            object,
            range,
            set,
            str,
            tuple,
            type(None),
        ),
        *(collections.Counter, collections.OrderedDict, collections.defaultdict, collections.deque),
        *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal, fractions.Fraction),
    )
}
"""Classes that cross as themselves from the solution to the judge: making an instance of one runs nobody's code."""

TEXT_METHODS = (
    (frozenset(dir(str)) | frozenset(dir(frozenset)) | {"most_common", "is_integer", "bit_length", "total_seconds"})
    - frozenset(dir(list))
    - frozenset(dir(object))
    - {"index", "count", "format"}
)
"""Methods of plain values that a test calls to look at one, and that an object of the solution's own may not answer."""

DUNDERS = frozenset(
    "__dict__ __name__ __doc__ __qualname__ __module__ __annotations__ __wrapped__ __defaults__ __kwdefaults__".split()
)


class Gone(BaseException):
    """The other process has ended. Not an `Exception`, so that no test swallows it."""


class Link:
    """One end of the socket pair: asks, and answers what is asked meanwhile."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.dead = ""
        self.gone = ""

    def send(self, message: str) -> None:
        data = message.encode("ascii")
        view = memoryview(len(data).to_bytes(4, "big") + data)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except OSError:
            raise self.lost() from None

    def lost(self, why: str = "the solution's process ended") -> Gone:
        """What to raise from now on, whatever a test makes of it."""
        self.gone = self.dead or why
        return Gone(self.gone)

    def receive(self) -> Any:
        size = int.from_bytes(self.exactly(4), "big")
        if size > FRAME_LIMIT:
            raise self.lost("the solution sent too much")
        try:
            return json.loads(self.exactly(size))
        except (ValueError, RecursionError):
            raise self.lost("the solution sent something that is no answer") from None

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = os.read(self.fd, min(size, 1 << 20))
            except OSError:
                part = b""
            if not part:
                raise self.lost()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def find_standard(module: Any, name: Any) -> Any:
    """A module, class or function of the standard library, by the names that the judge gave.

    Raises:
        codec.Unfit: It is not one that may be taken.
    """
    if module not in STANDARD or type(name) is not str:
        raise codec.Unfit("not from the standard library")
    found = importlib.import_module(module)
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    if not isinstance(found, (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)):
        raise codec.Unfit("not a module, class or function")
    return found


def standard_name(value: Any) -> list[str] | None:
    """Module and name of what is really the standard library's, else None."""
    if isinstance(value, types.ModuleType):
        path = value.__name__
        return [path, ""] if path in STANDARD and sys.modules.get(path) is value else None
    if not isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    found: Any
    for candidate in (module, module.lstrip("_")):
        if candidate in STANDARD:
            found = sys.modules.get(candidate)
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is value:
                return [candidate, name]
    return None


def taken_type(name: Any) -> type:
    """A plain class, or an exception of the language, by its name.

    Raises:
        codec.Unfit: It is neither.
    """
    found: Any = TYPES.get(name) or getattr(builtins, str(name), None)
    if isinstance(found, type) and (found in TYPES.values() or issubclass(found, BaseException)):
        return found
    raise codec.Unfit("not a class that may be taken")


def type_name(value: Any) -> str | None:
    """The name by which `taken_type` finds it, else None."""
    if isinstance(value, type):
        name = value.__name__
        if TYPES.get(name) is value or (issubclass(value, BaseException) and getattr(builtins, name, None) is value):
            return name
    return None


def taken_name(name: str, module: Any, held: Any) -> Any:
    """What a name of the tests stands for that the solution has imported from the standard library.

    The judge takes its own copy, and only under the name that it has there: a solution cannot pass `exec` off as `f`.

    Raises:
        codec.Unfit: It may not be taken.
    """
    if module not in PURE or (name not in (module, ALIASES.get(module)) if not held else held != name):
        raise codec.Unfit("not from the standard library, or under another name")
    found = importlib.import_module(module)
    return getattr(found, held) if held else found


def lies(value: Any) -> bool:
    """Whether an object claims to be equal to something that it has never seen."""
    try:
        return bool(value == object()) or bool(value == "\x00never seen\x00")
    except BaseException:
        return False
