"""The calls that a task expects, and whether a given call is one of them.

    {"name": "f", "arguments": {"a": 1}}        exactly these arguments
    {"f": {"a": [1, 2], "b": ["x", ""]}}        BFCL: any of the values listed

Values are equal as JSON: 1 is 1.0, true is not 1, objects in any order, arrays in theirs, strings to the letter. To
leave an optional parameter out is the same as to give its default, on both sides and at any depth.

In BFCL's form, "" among the values says that a parameter may be left out (or be empty text, where it is text). One that
the schema requires must be there all the same.

In BFCL's form an object among the accepted values has accepted values of its own (`{"year": [2020]}`), and so have the
objects in a list. Where the schema says that a value is an array and the list holds no array, the list is the value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..jsontext import short, shown
from .calls import ToolCall
from .tools import BadTask, Tool, Toolset, equal


@dataclass(frozen=True, slots=True)
class Exact:
    """One value."""

    value: Any
    schema: Any

    def takes(self, given: Any) -> bool:
        if isinstance(given, str):
            return type(self.value) is str and given == self.value
        return equal(given, self.value, self.schema)

    def example(self) -> Any:
        return self.value


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of several values.

    Attributes:
        accepted: The values.
        optional: Whether it may be left out as well.
        empty: Whether empty text is the same as leaving it out.
    """

    accepted: tuple[Wanted, ...]
    optional: bool
    empty: bool = False

    def takes(self, given: Any) -> bool:
        for one in self.accepted:
            if one.takes(given):
                return True
        return self.empty and given == ""

    def example(self) -> Any:
        return self.accepted[0].example()

    @property
    def writable(self) -> bool:
        return bool(self.accepted)


@dataclass(frozen=True, slots=True)
class Fields:
    """An object whose fields have accepted values of their own."""

    fields: Mapping[str, Choice]
    schema: Any

    def takes(self, given: Any) -> bool:
        if not isinstance(given, dict):
            return False
        return next(misfits(given, self.fields, *_declared(self.schema)), None) is None

    def example(self) -> Any:
        return {key: field.example() for key, field in self.fields.items() if field.writable}


@dataclass(frozen=True, slots=True)
class Items:
    """A list with such objects in it."""

    items: tuple[Wanted, ...]

    def takes(self, given: Any) -> bool:
        if not isinstance(given, list) or len(given) != len(self.items):
            return False
        return all(item.takes(one) for item, one in zip(self.items, given, strict=True))

    def example(self) -> Any:
        return [item.example() for item in self.items]


Wanted = Exact | Choice | Fields | Items


@dataclass(frozen=True, slots=True)
class Expected:
    """An expected call."""

    tool: Tool
    fields: Mapping[str, Choice]

    @property
    def name(self) -> str:
        return self.tool.name

    def takes(self, call: ToolCall) -> bool:
        """Whether a call is this one."""
        tool = self.tool
        if call.name != tool.name:
            return False
        found = misfits(call.arguments, self.fields, tool.properties, tool.required, tool.defaults)
        return next(found, None) is None

    def wrong(self, call: ToolCall) -> list[str]:
        """What is wrong with the arguments of a call of the same tool, parameter by parameter."""
        return [_told(key, self.fields.get(key), call.arguments) for key in self._misfits(call)]

    def shares(self, call: ToolCall) -> tuple[float, float, float]:
        """How much of a call is right: its name, which parameters it gives, their values; each from 0 to 1."""
        if call.name != self.name:
            return 0.0, 0.0, 0.0
        keys = self.fields.keys() | call.arguments.keys()
        wrong = self._misfits(call)
        if not wrong:
            return 1.0, 1.0, 1.0
        misplaced = sum(not (key in self.fields and key in call.arguments) for key in wrong)
        return 1.0, 1 - misplaced / len(keys), 1 - len(wrong) / len(keys)

    def _misfits(self, call: ToolCall) -> list[str]:
        tool = self.tool
        return list(misfits(call.arguments, self.fields, tool.properties, tool.required, tool.defaults))

    def example(self) -> ToolCall:
        """A call that is right."""
        return ToolCall(self.name, {key: field.example() for key, field in self.fields.items() if field.writable})


def misfits(
    given: Mapping[str, Any],
    fields: Mapping[str, Choice],
    properties: Mapping[str, Any],
    required: frozenset[str],
    defaults: Mapping[str, Any],
) -> Iterator[str]:
    """The parameters, or the fields of an object, that are not what is expected."""
    for key, field in fields.items():
        if key in given:
            if field.takes(given[key]):
                continue
            if not (field.optional and key in defaults and equal(given[key], defaults[key], properties.get(key))):
                yield key
        elif key in required or not (field.optional or (key in defaults and field.takes(defaults[key]))):
            yield key
    for key, value in given.items():
        if key not in fields and not (key in defaults and equal(value, defaults[key], properties.get(key))):
            yield key


def _told(key: str, field: Choice | None, given: Mapping[str, Any]) -> str:
    """What is wrong with one parameter."""
    if field is None:
        return f"`{short(key)}` is given and not expected"
    if key not in given:
        return f"`{key}` is missing"
    return f"`{key}` is {shown(given[key])}, expected {_shown(field)}"


def _shown(field: Choice) -> str:
    if not field.writable:
        return "it to be left out"
    more = len(field.accepted) - 1
    return shown(field.example()) + (f" (or one of {more} more)" if more else "")


def _declared(schema: Any) -> tuple[Mapping[str, Any], frozenset[str], Mapping[str, Any]]:
    """Properties, required ones and defaults of an object's schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}, frozenset(), {}
    required = frozenset(schema.get("required") or ())
    defaults = {
        key: value["default"]
        for key, value in properties.items()
        if isinstance(value, dict) and "default" in value and key not in required
    }
    return properties, required, defaults


# ------------------------------------------------------------------------------------------------------------ reading


def expected_calls(given: Any, tools: Toolset) -> tuple[Expected, ...]:
    """What a task's `calls` say.

    Raises:
        BadTask: They are no list of calls, or of tools that do not exist.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise BadTask(f"`calls` is text, but no JSON: {error}") from None
    if not isinstance(given, list):
        raise BadTask("`calls` must be a list of calls")
    return tuple(_expected(one, tools) for one in given)


def _expected(given: Any, tools: Toolset) -> Expected:
    if isinstance(given, dict) and isinstance(given.get("function"), dict):
        given = given["function"]
    if not isinstance(given, dict):
        raise BadTask("each of the `calls` must be an object")
    name = given.get("name")
    if isinstance(name, str) and given.keys() <= {"name", "arguments"}:
        arguments = given.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError) as error:
                raise BadTask(f"the `arguments` of the expected call of `{name}` are no JSON: {error}") from None
        tool = _tool(name, tools)
        if not isinstance(arguments, dict):
            raise BadTask(f"the `arguments` of the expected call of `{name}` must be an object")
        exact = {key: Exact(value, tool.properties.get(key)) for key, value in arguments.items()}
        return Expected(tool, {key: Choice((value,), False) for key, value in exact.items()})
    if len(given) != 1:
        raise BadTask('an expected call is `{"name", "arguments"}`, or BFCL\'s `{name: {parameter: [values]}}`')
    [(name, parameters)] = given.items()
    tool = _tool(name, tools)
    if not isinstance(parameters, dict):
        raise BadTask(f"the expected call of `{name}` must list accepted values by parameter")
    return Expected(tool, _fields(parameters, tool.properties, tool.required))


def _tool(name: str, tools: Toolset) -> Tool:
    if name not in tools:
        raise BadTask(f"a call of `{name}` is expected, which is none of the `tools`")
    return tools[name]


def _fields(
    given: Mapping[str, Any], properties: Mapping[str, Any], required: frozenset[str] = frozenset()
) -> dict[str, Choice]:
    return {key: _choice(value, properties.get(key), key in required) for key, value in given.items()}


def _choice(accepted: Any, schema: Any, required: bool) -> Choice:
    if not isinstance(accepted, list):
        return Choice((_wanted(accepted, schema),), False)
    kind = schema.get("type") if isinstance(schema, dict) else None
    if not accepted or (kind == "array" and not any(isinstance(one, list) or one == "" for one in accepted)):
        return Choice((_wanted(accepted, schema),), False)
    values = [_wanted(one, schema) for one in accepted if one != ""]
    optional = len(values) < len(accepted)
    if not values and required:
        return Choice((Exact("", schema),), False)
    return Choice(tuple(values), optional, optional and kind == "string")


def _wanted(value: Any, schema: Any) -> Wanted:
    """An accepted value, with what its objects accept."""
    if isinstance(value, dict):
        properties = schema.get("properties") if isinstance(schema, dict) else None
        return Fields(_fields(value, properties if isinstance(properties, dict) else {}), schema)
    if isinstance(value, list) and any(isinstance(one, (dict, list)) for one in value):
        inner = schema.get("items") if isinstance(schema, dict) else None
        return Items(tuple(_wanted(one, inner) for one in value))
    return Exact(value, schema)
