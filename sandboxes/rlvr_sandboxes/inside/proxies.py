"""What stands for the solution's functions, classes and objects in the process of the judge."""

from __future__ import annotations

import functools
import importlib
import io
import json
import sys
import threading
import types
import weakref
from typing import Any, cast

from rlvr_sandboxes.inside import codec
from rlvr_sandboxes.inside.remote import TEXT_METHODS, Gone, Link, standard_name, taken_name, taken_type
from rlvr_sandboxes.inside.standins import (
    OPERATORS,
    Reference,
    RemoteClass,
    RemoteObject,
    error_text,
    method_operator,
    number_of,
    remote_attribute,
    remote_call,
    remote_getattr,
    synchronise,
)

_END = object()
PLAIN = {kind.__name__: kind for kind in (list, dict, set, bytearray)}
FILE_METHODS = frozenset("write writelines read readline readlines seek tell flush truncate close getvalue".split())
LOOKING = {
    "dataclasses": "asdict astuple fields replace is_dataclass",
    "copy": "copy deepcopy",
    "inspect": "signature getdoc isfunction isclass isgeneratorfunction iscoroutinefunction isgenerator iscoroutine",
}
"""Functions that look into an object, and so have to run where it is."""
HYBRIDS: dict[Any, Any] = {}


class Client(Link):
    """Asks the solution, for the tests in the judge's process."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.turn = threading.RLock()
        self.classes: dict[int, type] = {}
        self.objects: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.lent: dict[int, Any] = {}
        self.iterators: dict[int, Any] = {}
        self.flags: set[str] = set()
        self.raised: list[BaseException] = []
        self.module_name = "__main__"
        self.classes_of_tests: set[str] = set()
        self.adopting: type | None = None
        self.swallowed: dict[int, str] = {}
        self.named: set[int] = set()
        self.tainted: set[int] = set()
        self.stops = False

    def ready(self) -> None:
        """Waits until the solution is loaded.

        Raises:
            Gone: Its body did not run to its end.
        """
        message = self.receive()
        if "ready" not in message:
            self.dead = "the solution raised {}".format(str(message.get("gone"))[:500])
            raise self.lost()

    def ask(self, op: str, *rest: Any, shared: Any = ()) -> Any:
        """Asks for one thing; threads of the tests take turns. See `ask_now`."""
        with self.turn:
            return self.ask_now(op, *rest, shared=shared)

    def ask_now(self, op: str, *rest: Any, shared: Any = ()) -> Any:
        """Asks for one thing, and lends what the solution asks for meanwhile.

        Raises:
            Gone: There is no solution any more, or it does not keep to the format.
            BaseException: What the solution raised.
        """
        self.send('{{"q":[{}]}}'.format(",".join([json.dumps(op), *(self.pack(item) for item in rest)])))
        while True:
            message = self.receive()
            try:
                text = message.get("out")
                if type(text) is str:
                    sys.stdout.write(text)
                if "c" in message:
                    self.send(self.lend(message["c"]))
                    continue
                for index, new in message.get("args", ()):
                    synchronise(shared[index], codec.unpack(new, codec.Own(self.unpack_foreign)))
                if "same" in message:
                    return shared[message["same"]]
                if "e" not in message:
                    return codec.unpack(message["r"], codec.Own(self.unpack_foreign))
                error = self.error(message["e"])
            except Exception as fault:
                raise self.lost(f"the solution sent something that is no answer: {fault}") from None
            if isinstance(error, (StopIteration, StopAsyncIteration)) and not self.stops and op != "special":
                # It would end a loop of the tests around the call, and with it what they check.
                raise RuntimeError("the solution raised StopIteration") from None
            raise error

    def resolve(self, names: list[str]) -> list[tuple[str, Any]]:
        """What names of the tests stand for, of those that the solution defines.

        Raises:
            Gone: The solution does not keep to the format.
        """
        found = []
        for name, module, held, value in self.ask("names", names):
            if name not in names:
                raise self.lost("the solution sent something that is no answer")
            if module is not None:
                try:
                    value = taken_name(name, module, held)
                except (codec.Unfit, AttributeError, ImportError):
                    continue  # as if it were not there
            if isinstance(value, RemoteClass) and (name[:1].isupper() or name in self.classes_of_tests):
                self.named.add(value.__rlvr_number__)
            found.append((name, value))
        return found

    def is_named(self, kind: type) -> bool:
        """Whether the tests name a class, or one that it derives from, as a class."""
        return any(getattr(each, "__rlvr_number__", None) in self.named for each in type.mro(kind))

    def error(self, packed: Any) -> BaseException:
        """The exception to raise here for one that was raised there."""
        if "lent" in packed:
            self.swallowed.pop(packed["lent"], None)
            return self.note(self.lent[packed["lent"]])
        kind = codec.unpack(packed["class"], codec.Own(self.unpack_foreign))
        arguments = codec.unpack(packed["args"], codec.Own(self.unpack_foreign))
        if not (isinstance(kind, type) and issubclass(kind, BaseException)) or kind is Gone:
            raise codec.Unfit("not an exception")
        if isinstance(kind, RemoteClass):
            made: Any = BaseException.__new__(cast(Any, kind), *arguments)
            BaseException.__init__(made, *arguments)
        else:
            try:
                made = kind(*arguments)
            except Exception:
                made = Exception(str(packed["text"]))
        if "cause" in packed:
            made.__cause__ = self.error(packed["cause"])
        if isinstance(type(made), RemoteClass):
            made.__dict__["_rlvr_text"] = str(packed["text"])
            made.__dict__["_rlvr_number"] = packed["number"]
        return self.note(made)

    def note(self, error: BaseException) -> BaseException:
        self.raised.append(error)
        return error

    # What the solution may ask for, of what it was lent

    def lend(self, request: Any) -> str:
        try:
            return '{{"r":{}}}'.format(
                self.pack(self.lent_result(*[codec.unpack(item, codec.Own(self.unpack_foreign)) for item in request]))
            )
        except Gone:
            raise
        except BaseException as error:
            number = id(error)
            self.lent[number] = error
            try:
                text = str(error)[:2000]
            except Exception:
                text = ""
            if isinstance(error, AssertionError):  # until the solution passes it on
                self.swallowed[number] = text
            return json.dumps({"e": [number, type(error).__name__, text]})

    def lent_result(self, op: str, *rest: Any) -> Any:
        if op == "input":
            return input(str(rest[0]))
        if op == "readline":
            return sys.stdin.readline()
        target = self.lent[rest[0]]
        if op == "next":
            iterator = self.iterators.setdefault(rest[0], iter(target))
            return [item] if (item := next(iterator, _END)) is not _END else []
        if op == "call":
            if not callable(target):
                raise TypeError("not callable")
            return target(*rest[1], **rest[2])
        if op == "special" and rest[1] in ("__len__", "__getitem__"):
            return getattr(type(target), rest[1])(target, *rest[2])
        name = rest[1]
        if isinstance(target, (io.StringIO, io.BytesIO)) and op == "getattr" and name in FILE_METHODS:
            return getattr(target, name)
        if type(name) is not str or name.startswith("_") or type(target).__module__ != self.module_name:
            raise AttributeError(str(name))
        if op == "getattr":
            return getattr(target, name)
        if op == "setattr":
            return setattr(target, name, rest[2])
        raise TypeError("no such request")

    # Packing

    def pack(self, value: Any) -> str:
        return codec.dumps(value, codec.Own(self.foreign))

    def foreign(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(kind, RemoteClass):
            return ["mine", number_of(value)]
        if isinstance(value, RemoteClass):
            return ["mine", value.__rlvr_number__]
        if isinstance(value, Reference):
            return ["mine", value.number]
        if isinstance(value, types.TracebackType):
            return ["none"]
        standard = standard_name(value)
        if standard:
            return ["standard", *standard]
        number = id(value)
        self.lent[number] = value
        if isinstance(value, BaseException):
            return ["error", number, kind.__name__, str(value)[:2000]]
        if callable(value) and not isinstance(value, type) and kind.__module__ == "builtins":
            name, doc = getattr(value, "__name__", "function"), getattr(value, "__doc__", None)
            return ["function", number, str(name), doc if type(doc) is str else None]
        return ["yours", number]

    def unpack_foreign(self, packed: Any) -> Any:
        tag, *rest = packed
        if tag == "yours":
            return self.lent[rest[0]]
        if tag == "type":
            return taken_type(rest[0])
        if tag == "class":
            return self.stand_in(rest[0], rest[1])
        if tag != "object":
            raise codec.Unfit("unknown reference")
        number, class_number, description, held = rest
        kind = self.stand_in(class_number, description)
        known = self.objects.get(number)
        if known is not None and type(known) is kind:
            return known
        flavour = kind.__rlvr_facts__["flavour"]  # type: ignore[attr-defined]
        if flavour == "coroutine":
            return self.coroutine(number)
        if flavour == "generator":
            return self.generator(number)
        if held is not None:
            return self.hybrid(kind, number, codec.unpack(held, lambda _: None))
        if issubclass(kind, BaseException):
            made: Any = kind.__new__(kind)
            made.__dict__["_rlvr_number"] = number
            return made
        made = object.__new__(kind)
        object.__setattr__(made, "_rlvr_number", number)
        self.objects[number] = made
        return made

    async def coroutine(self, number: int) -> Any:
        return self.ask("await", Reference(number))

    async def generator(self, number: int) -> Any:
        while more := self.ask("anext", Reference(number)):
            yield more[0]

    def hybrid(self, kind: type, number: int, held: Any) -> Any:
        """An instance of a class that derives from an immutable plain type: its value is here, its methods there."""
        base: Any = type(held)
        made_kind = HYBRIDS.get((kind, base))
        if made_kind is None:
            made_kind = HYBRIDS[kind, base] = RemoteClass(
                kind.__name__,
                (base,),
                {
                    "__rlvr_number__": kind.__rlvr_number__,  # type: ignore[attr-defined]
                    "__rlvr_client__": self,
                    "__rlvr_facts__": kind.__rlvr_facts__,  # type: ignore[attr-defined]
                    "__rlvr_origin__": kind,
                    "__getattr__": remote_getattr,
                },
            )
        made = base.__new__(made_kind, held)
        made.__dict__["_rlvr_number"] = number
        return made

    def stand_in(self, number: int, description: Any) -> type:
        """The class of this process that stands for one of the solution's."""
        if number in self.classes:
            return self.classes[number]
        bases = [codec.unpack(base, codec.Own(self.unpack_foreign)) for base in description["bases"]]
        error = bool(description["error"])
        fitting = [
            base
            for base in bases
            if isinstance(base, type)
            and (issubclass(base, BaseException) if error else issubclass(base, RemoteObject))
            and base is not Gone
        ]
        space: dict[str, Any] = {
            "__rlvr_number__": number,
            "__rlvr_client__": self,
            "__rlvr_facts__": description,
            "__module__": "solution",
            "__doc__": property(remote_attribute("__doc__")),
            "__annotations__": property(remote_attribute("__annotations__")),
        }
        if error:
            space.update(__getattr__=remote_getattr, __str__=error_text)
            fitting = fitting or [Exception]
        else:
            fitting = fitting or [RemoteObject]
            space["__slots__"] = ()
            for name in description["methods"]:
                plain = type(name) is str and name.isidentifier() and (name[:1] != "_" or name == "__init__")
                if plain and name not in TEXT_METHODS:  # those are looked at first
                    space[name] = method_operator(name, number)
            if description["mutable"] in PLAIN:
                space["__class__"] = PLAIN[description["mutable"]]  # `isinstance` asks for it, and for nothing more
            for name in description["special"]:
                if name in OPERATORS:
                    space[name] = OPERATORS[name]
            if "__eq__" in description["special"] and "__hash__" not in description["special"]:
                space["__hash__"] = None
        if self.adopting is not None:
            made, self.adopting = self.adopting, None
            for name in ("__rlvr_number__", "__rlvr_client__", "__rlvr_facts__"):
                setattr(made, name, space[name])
        else:
            made = RemoteClass(str(description["name"]), tuple(fitting), space)
        self.classes[number] = made
        return made


def look_there(client: Client) -> None:
    """Has the functions of `LOOKING` run in the solution's process when it is its objects that they look into."""
    for module_name, names in LOOKING.items():
        module = importlib.import_module(module_name)
        for name in names.split():
            original = getattr(module, name)

            setattr(module, name, looking(client, original))


def looking(client: Client, original: Any) -> Any:
    @functools.wraps(original)
    def look(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, RemoteClass) or isinstance(type(value), RemoteClass):
            return remote_call(client, look, (value, *args), kwargs)  # there its name stands for the original
        return original(value, *args, **kwargs)

    return look
