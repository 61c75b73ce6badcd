"""What serves the judge, in the process of the solution: looks up, calls, and packs what the program defines.

It shares its process with hostile code. The judge believes nothing that comes from here beyond its being data.
"""

from __future__ import annotations

import builtins
import io
import json
import types
from collections.abc import Callable
from typing import Any

from rlvr_sandboxes.inside import codec
from rlvr_sandboxes.inside.remote import (
    OTHER_OPS,
    PURE,
    STANDARD,
    VALUE_OPS,
    Gone,
    Link,
    find_standard,
    lies,
    standard_name,
    type_name,
)


class Server(Link):
    """Answers the judge in the solution's process."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.objects: dict[int, Any] = {}
        self.known: set[int] = set()
        self.flags: set[str] = set()
        self.lent: dict[int, Any] = {}
        self.borrowed: dict[int, int] = {}
        self.module: Any = None
        self.events: Any = None
        self.output: Callable[[], str] = str

    def refuse(self, why: str) -> None:
        """Tells the judge that there is nothing to serve."""
        self.send(json.dumps({"gone": why}))

    def serve(self, module: types.ModuleType, output: Callable[[], str]) -> None:
        self.module, self.output = module, output
        self.send(json.dumps({"ready": True}))
        try:
            while True:
                self.answer(self.receive())
        except Gone:
            pass

    def answer(self, message: Any) -> None:
        op, *rest = message["q"]
        try:
            operands = [codec.unpack(item, codec.Own(self.unpack_foreign)) for item in rest]
            before = [self.snapshot(item) for item in self.shared(op, operands)]
            result = getattr(self, "do_" + op)(*operands)
            parts = [f'"r":{self.pack(result)}']
            after = [self.snapshot(item) for item in self.shared(op, operands)]
            changed = [[i, new] for i, (old, new) in enumerate(zip(before, after)) if old != new and new is not None]
            if changed:
                parts.append('"args":[{}]'.format(",".join("[%d,%s]" % (i, new) for i, new in changed)))
            for i, item in enumerate(self.shared(op, operands)):
                if item is result and isinstance(item, (list, dict, set, bytearray)):
                    parts.append('"same":%d' % i)
        except Gone:
            raise
        except BaseException as error:
            parts = [f'"e":{self.pack_error(error)}']
        text = self.output()
        if text:
            parts.append(f'"out":{json.dumps(text)}')
        self.send("{{{}}}".format(",".join(parts)))

    @staticmethod
    def shared(op: str, operands: list[Any]) -> list[Any]:
        """The arguments of a call, which it may change in place."""
        if op in ("call", "method"):
            return [*operands[-2], *operands[-1].values()]
        return operands[2] if op == "special" else []

    def snapshot(self, item: Any) -> Any:
        if not isinstance(item, (list, dict, set, bytearray)):
            return None
        try:
            return self.pack(item)
        except Exception:
            return None

    def ask(self, op: str, *rest: Any) -> Any:
        """Asks the judge for something that it lent us."""
        text = self.output()
        self.send(
            '{{"c":[{}],"out":{}}}'.format(
                ",".join([json.dumps(op), *(self.pack(item) for item in rest)]), json.dumps(text)
            )
        )
        while True:
            message = self.receive()
            if "q" in message:
                self.answer(message)
            elif "e" in message:
                raise self.borrowed_error(message["e"])
            else:
                return codec.unpack(message["r"], codec.Own(self.unpack_foreign))

    @staticmethod
    def borrowed_error(packed: Any) -> BaseException:
        number, name, text = packed
        kind = getattr(builtins, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            kind = type(str(name), (Exception,), {})
        error = kind(text)
        error.__rlvr_lent__ = number
        return error

    # Standard input of the solution is the judge's, so that tests can feed it.

    def input(self, prompt: object = "") -> Any:
        return self.ask("input", str(prompt))

    def stdin(self) -> Any:
        return Stdin(self.ask)

    # Packing

    def pack(self, value: Any) -> str:
        return codec.dumps(value, codec.Own(self.foreign))

    def foreign(self, value: Any) -> Any:
        if isinstance(value, Borrowed):
            return ["yours", object.__getattribute__(value, "_number")]
        if id(value) in self.borrowed:
            return ["yours", self.borrowed[id(value)]]
        plain = type_name(value)
        if plain:
            return ["type", plain]
        number = id(value)
        self.objects[number] = value
        if isinstance(value, type):
            return ["class", number, self.describe(value)]
        kind = type(value)
        if kind.__module__ in STANDARD and "__eq__" in vars(kind) and lies(value):
            self.flags.add("lying-object")
        base = next((b for b in (tuple, str, int, float, bytes, frozenset, complex) if isinstance(value, b)), None)
        held = None if base is None else json.loads(codec.dumps(value))
        self.objects[id(kind)] = kind
        return ["object", number, id(kind), self.describe(kind), held]

    def describe(self, kind: type) -> Any:
        """What the judge has to know of a class, the first time that it meets it."""
        if id(kind) in self.known:
            return None
        self.known.add(id(kind))
        line = [c for c in type.mro(kind) if c is not object]
        special = [name for name in VALUE_OPS + OTHER_OPS if any(name in vars(c) for c in line)]
        mutable = next((b.__name__ for b in (list, dict, set, bytearray) if issubclass(kind, b)), "")
        if getattr(kind, "__hash__", None) is None and "__hash__" in special:
            special.remove("__hash__")
        bases = [json.loads(self.pack(base)) for base in kind.__bases__ if base is not object and not mutable]
        flavours: dict[Any, str] = {types.CoroutineType: "coroutine", types.AsyncGeneratorType: "generator"}
        flavour = flavours.get(kind, "")
        if type(kind) is not type and hasattr(type(kind), "__iter__"):
            flavour = "enum"
        return {
            "name": kind.__name__,
            "doc": kind.__doc__ if isinstance(kind.__doc__, str) else None,
            "special": special,
            "methods": [
                name
                for name, held in vars(kind).items()
                if type(held) is types.FunctionType and (not name.startswith("__") or name == "__init__")
            ],
            "bases": bases,
            "mutable": mutable,
            "flavour": flavour,
            "error": issubclass(kind, BaseException),
        }

    def unpack_foreign(self, packed: Any) -> Any:
        tag, *rest = packed
        if tag == "mine":
            return self.objects[rest[0]]
        if tag == "standard":
            return find_standard(*rest)
        if tag == "none":
            return None
        if tag == "function":
            if rest[0] not in self.lent:
                self.lent[rest[0]] = made = lent_function(self, *rest)
                self.borrowed[id(made)] = rest[0]
            return self.lent[rest[0]]
        if tag == "error":
            return Server.borrowed_error(rest)
        if tag == "yours":
            if rest[0] not in self.lent:
                self.lent[rest[0]] = Borrowed(self, rest[0])
            return self.lent[rest[0]]
        raise codec.Unfit("unknown reference")

    def pack_error(self, error: BaseException) -> str:
        lent = getattr(error, "__rlvr_lent__", None)
        if isinstance(lent, int):
            return json.dumps({"lent": lent})
        kind = type(error)
        try:
            text = str(error)[:2000]
        except BaseException:
            text = ""
        try:
            arguments = json.loads(self.pack(tuple(error.args)))
        except BaseException:
            arguments = {"t": []}
        self.objects[id(error)] = error
        cause = error.__cause__
        parts = {"cause": json.loads(self.pack_error(cause))} if cause is not None and cause is not error else {}
        which = json.loads(self.pack(kind))
        return json.dumps({"class": which, "args": arguments, "text": text, "number": id(error), **parts})

    # What the judge may ask for

    def do_names(self, names: list[str]) -> Any:
        """Name, module and name in it for what is the standard library's, else None twice, and the value."""
        space = self.module.__dict__
        found = []
        for name in names:
            if name in space:
                module, held = standard_name(space[name]) or (None, None)
                known = module in PURE and (held == name or not held)
                found.append([name, module, held, None] if known else [name, None, None, space[name]])
        return found

    def do_public(self) -> list[str]:
        space = self.module.__dict__
        names = space.get("__all__")
        return [str(n) for n in names] if names is not None else [n for n in space if not n.startswith("_")]

    def do_call(self, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return target(*args, **kwargs)

    def do_method(self, kind: type, name: str, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return getattr(kind, name)(target, *args, **kwargs)

    def do_subclass(self, name: str, bases: list[type], own: dict[str, Any], options: dict[str, Any]) -> Any:
        return types.new_class(name, tuple(bases), options, lambda space: space.update(own))

    def do_getattr(self, target: Any, name: str) -> Any:
        return dict(vars(target)) if name == "__dict__" else getattr(target, name)

    def do_setattr(self, target: Any, name: str, value: Any) -> None:
        setattr(target, name, value)

    def do_delattr(self, target: Any, name: str) -> None:
        delattr(target, name)

    def do_setglobal(self, name: str, value: Any) -> None:
        setattr(self.module, name, value)

    def do_special(self, target: Any, name: str, operands: list[Any]) -> Any:
        if name == "__contains__":
            return operands[0] in target
        if name == "__eq__":
            equal = target == operands[0]
            if equal and lies(target):
                self.flags.add("lying-object")
                return False
            return equal if equal is NotImplemented else bool(equal)
        if name == "__iter__":
            return iter(target)
        if name == "__bool__":
            return bool(target)
        result = getattr(type(target), name)(target, *operands)
        return ["NotImplemented"] if result is NotImplemented else [result]

    def do_held(self, target: Any) -> Any:
        """The plain data of an instance whose class derives from a plain type."""
        return codec.loads(codec.dumps(target), str)

    def do_item(self, target: Any, key: Any) -> Any:
        return target[key]

    def do_await(self, target: Any) -> Any:
        return self.finish(target)

    def do_anext(self, target: Any) -> Any:
        try:
            return [self.finish(target.__anext__())]
        except StopAsyncIteration:
            return []

    def finish(self, awaitable: Any) -> Any:
        """Runs something to its end in an event loop that lasts as long as this process."""
        import asyncio  # here, as it would make every fork of the fork server dearer

        async def whole() -> Any:
            return await awaitable

        if self.events is None:
            self.events = asyncio.new_event_loop()
            asyncio.set_event_loop(self.events)
        return self.events.run_until_complete(whole())


class Stdin(io.TextIOBase):
    """Standard input that asks the judge for every line."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self.ask = ask

    def readable(self) -> bool:
        return True

    def readline(self, *_: Any) -> Any:
        return self.ask("readline")

    def read(self, *_: Any) -> Any:
        return "".join(self)

    def fileno(self) -> int:
        return 0


def lent_function(server: Server, number: int, name: str, doc: Any) -> Any:
    """A function that calls one of the judge's."""

    def lent(*args: Any, **kwargs: Any) -> Any:
        return server.ask("call", number, list(args), kwargs)

    lent.__name__ = lent.__qualname__ = name
    lent.__doc__ = doc
    return lent


class Borrowed:
    """In the solution's process: an object that lives with the judge."""

    __slots__ = ("_number", "_server")

    def __init__(self, server: Server, number: int) -> None:
        object.__setattr__(self, "_server", server)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        return self._server.ask("getattr", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._server.ask("setattr", self._number, name, value)

    def __iter__(self) -> Any:
        while True:
            more = self._server.ask("next", self._number)
            if not more:
                return
            yield more[0]

    def __next__(self) -> Any:
        more = self._server.ask("next", self._number)
        if not more:
            raise StopIteration
        return more[0]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._server.ask("call", self._number, list(args), kwargs)

    def __len__(self) -> Any:
        return self._server.ask("special", self._number, "__len__", [])

    def __getitem__(self, key: Any) -> Any:
        return self._server.ask("special", self._number, "__getitem__", [key])

    def __bool__(self) -> bool:
        return True
