"""The classes that stand for those of the solution, in the process of the judge, and what their instances may do.

Every operation on such an object is a question to the solution. Which questions are asked at all is decided here, and
never by what the solution says of its classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rlvr_sandboxes.inside.remote import DUNDERS, NUMBER_OPS, ORDER_OPS, TEXT_METHODS, VALUE_OPS

if TYPE_CHECKING:
    from rlvr_sandboxes.inside.proxies import Client


class Reference:
    """An object of the solution's that has nothing standing for it here."""

    def __init__(self, number: int) -> None:
        self.number = number


class RemoteClass(type):
    """The class of the classes that stand for the solution's."""

    __rlvr_number__: int
    __rlvr_client__: Client
    __rlvr_facts__: dict[str, Any]

    def __new__(mcls, name: str, bases: Any, space: dict[str, Any], **options: Any) -> Any:
        """A stand-in; or, when tests derive a class from the solution's, that class there, with its methods here."""
        if "__rlvr_number__" in space:
            return super().__new__(mcls, name, bases, space)
        made: Any = super().__new__(mcls, name, bases, {**space, "__slots__": ()})
        client = next(base.__rlvr_client__ for base in bases if isinstance(base, RemoteClass))
        client.adopting = made
        own = {key: value for key, value in space.items() if key not in ("__module__", "__qualname__", "__classcell__")}
        client.ask("subclass", name, list(bases), own, options)
        return made

    def __init__(cls, name: str, bases: Any, space: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, space)

    @property
    def __doc__(cls) -> Any:  # type: ignore[override]
        return cls.__rlvr_facts__.get("doc")

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return remote_call(cls.__rlvr_client__, cls, args, kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name not in DUNDERS:
            raise AttributeError(name)
        return cls.__rlvr_client__.ask("getattr", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name.startswith("__"):
            type.__setattr__(cls, name, value)
        else:
            cls.__rlvr_client__.ask("setattr", cls, name, value)

    def __iter__(cls) -> Any:
        return iter(cls.__rlvr_client__.ask("call", list, [cls], {}))

    def __len__(cls) -> int:
        return int(cls.__rlvr_client__.ask("call", len, [cls], {}))

    def __getitem__(cls, key: Any) -> Any:
        return cls.__rlvr_client__.ask("item", cls, key)

    def __contains__(cls, item: Any) -> bool:
        return item in list(cls)

    def __bool__(cls) -> bool:
        return True

    def __instancecheck__(cls, instance: Any) -> bool:
        kind = type(instance)
        origin = kind.__dict__.get("__rlvr_origin__", kind)
        return issubclass(origin, cls)


def number_of(value: Any) -> int:
    number: int = object.__getattribute__(value, "_rlvr_number")
    return number


def remote_call(client: Client, target: Any, args: Any, kwargs: Any) -> Any:
    shared = [*args, *kwargs.values()]
    return client.ask("call", target, list(args), dict(kwargs), shared=shared)


def remote_getattr(self: Any, name: str) -> Any:
    if name.startswith("_rlvr_") or (name.startswith("__") and name not in DUNDERS):
        raise AttributeError(name)
    kind: Any = type(self)
    if name in TEXT_METHODS and not kind.__rlvr_client__.is_named(kind):
        kind.__rlvr_client__.flags.add("lying-object")
        raise AttributeError("a `{}` of the solution's passes for plain data".format(kind.__rlvr_facts__["name"]))
    return kind.__rlvr_client__.ask("getattr", self, name)


def remote_attribute(name: str) -> Any:
    """A getter for an attribute that our own classes have too."""

    def get(self: Any) -> Any:
        return client_of(self).ask("getattr", self, name)

    return get


def error_text(self: Any) -> str:
    text = self.__dict__.get("_rlvr_text")
    return text if text is not None else BaseException.__str__(self)


class RemoteObject(metaclass=RemoteClass):
    """An object of the solution's, as the tests see it."""

    __slots__ = ("__weakref__", "_rlvr_number")
    __rlvr_number__ = 0
    __rlvr_facts__: ClassVar[Any] = {"name": "object", "special": [], "mutable": False, "flavour": ""}

    __getattr__ = remote_getattr

    def __setattr__(self, name: str, value: Any) -> None:
        client_of(self).ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        client_of(self).ask("delattr", self, name)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        facts = facts_of(self)
        if isinstance(other, RemoteObject):
            for one, two in ((self, other), (other, self)):
                if named(one) and "__eq__" in facts_of(one)["special"]:
                    return client_of(self).ask("special", one, "__eq__", [two]) is True
            if not (facts["mutable"] and facts_of(other)["mutable"]):
                return False
            return bool(client_of(self).ask("held", self) == client_of(self).ask("held", other))
        return bool(client_of(self).ask("held", self) == other) if facts["mutable"] else False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        if "__hash__" in facts_of(self)["special"]:
            return int(special(self, "__hash__"))
        return number_of(self) >> 4

    def __repr__(self) -> str:
        return text_of(special(self, "__repr__"))

    def __str__(self) -> str:
        return text_of(special(self, "__str__"))

    def __format__(self, spec: str) -> str:
        return text_of(special(self, "__format__", spec))


def text_of(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not text")
    return value


def client_of(value: Any) -> Client:
    client: Client = type(value).__rlvr_client__
    return client


def named(value: Any) -> bool:
    """Whether the tests name its class."""
    return client_of(value).is_named(type(value))


def is_tainted(value: Any) -> bool:
    """Whether it came of arithmetic with plain data: a number then could be one that the tests expect."""
    return number_of(value) in client_of(value).tainted


TO_NUMBERS = frozenset(
    "__abs__ __round__ __int__ __float__ __bool__ __index__ __complex__ __trunc__ __floor__ __ceil__ __len__".split()
)


def facts_of(value: Any) -> Any:
    return type(value).__rlvr_facts__


def special(self: Any, name: str, *operands: Any) -> Any:
    return client_of(self).ask("special", self, name, list(operands), shared=list(operands))[0]


def value_operator(name: str) -> Any:
    """A method that asks the solution and hands it nothing that a test expects."""

    def method(self: Any, *operands: Any) -> Any:
        if name in TO_NUMBERS and is_tainted(self):
            client_of(self).flags.add("lying-object")
            raise TypeError("an object of the solution's passes for a number")
        answer = client_of(self).ask("special", self, name, list(operands), shared=list(operands))
        if name in ("__iter__", "__bool__"):
            return answer
        if name in ("__exit__", "__aexit__") and is_assertion(operands) and answer != ["NotImplemented"] and answer[0]:
            client_of(self).swallowed[id(operands[1])] = "a failed assert was swallowed"
        if answer == ["NotImplemented"]:
            return NotImplemented
        if is_tainted(self) and isinstance(answer[0], RemoteObject):
            client_of(self).tainted.add(number_of(answer[0]))
        return answer[0]

    return method


def method_operator(name: str, number: int) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        shared = [*args, *kwargs.values()]
        return client_of(self).ask("method", Reference(number), name, self, list(args), kwargs, shared=shared)

    return method


def is_assertion(operands: Any) -> bool:
    return bool(operands) and isinstance(operands[0], type) and issubclass(operands[0], AssertionError)


def call_operator(self: Any, *args: Any, **kwargs: Any) -> Any:
    return remote_call(client_of(self), self, args, kwargs)


def order_operator(name: str) -> Any:
    def method(self: Any, other: Any) -> Any:
        if not named(self) or not isinstance(other, RemoteObject):
            return NotImplemented
        answer = client_of(self).ask("special", self, name, [other])
        return NotImplemented if answer == ["NotImplemented"] else answer[0]

    return method


def number_operator(name: str) -> Any:
    def method(self: Any, other: Any, *more: Any) -> Any:
        if not named(self):
            return NotImplemented
        answer = client_of(self).ask("special", self, name, [other, *more])
        if answer == ["NotImplemented"]:
            return NotImplemented
        if isinstance(other, (int, float, complex)) and isinstance(answer[0], (int, float, complex)):
            client_of(self).flags.add("lying-object")
            raise TypeError("an object of the solution's passes for a number")
        if isinstance(answer[0], RemoteObject) and (not isinstance(other, RemoteObject) or is_tainted(self)):
            client_of(self).tainted.add(number_of(answer[0]))
        return answer[0]

    return method


def contains(self: Any, item: Any) -> bool:
    if named(self):
        return client_of(self).ask("special", self, "__contains__", [item]) is True
    return any(item is held or item == held for held in self)


OPERATORS: dict[str, Any] = {
    **{
        name: value_operator(name)
        for name in VALUE_OPS
        if name not in ("__hash__", "__repr__", "__str__", "__format__")
    },
    **{name: order_operator(name) for name in ORDER_OPS},
    **{name: number_operator(name) for name in NUMBER_OPS},
    "__call__": call_operator,
    "__contains__": contains,
}


def synchronise(ours: Any, theirs: Any) -> None:
    """Makes our container hold what the solution's copy of it holds now, the same inner containers where they fit."""
    if type(ours) is not type(theirs):
        return
    if isinstance(ours, list):
        kept = [_inner(old, new) for old, new in zip(ours, theirs)]
        ours[:] = kept + theirs[len(kept) :]
    elif isinstance(ours, dict):
        merged = {key: _inner(ours[key], new) if key in ours else new for key, new in theirs.items()}
        ours.clear()
        ours.update(merged)
    elif isinstance(ours, set):
        ours.clear()
        ours.update(theirs)
    elif isinstance(ours, bytearray):
        ours[:] = theirs


def _inner(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, (list, dict, set, bytearray)):
        synchronise(old, new)
        return old
    return old if old is new else new
