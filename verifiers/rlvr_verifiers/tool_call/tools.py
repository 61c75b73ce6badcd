"""Tool schemas: what a task says of the tools that there are.

    {"name": "f", "description": "…", "parameters": {…}}                  plain
    {"type": "function", "function": {"name": "f", …}}                    OpenAI's
    {"name": "f", "parameters": {"type": "dict", "properties": {…}}}      BFCL's, with the types of its own

or a list of them as JSON text. BFCL's types become those of JSON Schema (`dict` an object, `float` a number, `tuple` an
array, `any` everything); as its schemas were written by hand for people, what JSON Schema does not allow in them (such
as `"required": true` at a parameter) is left out there, and is an error anywhere else.

A parameter that is not declared is refused, as a function would refuse it, unless the schema says something of its own
about others (`additionalProperties`, `$ref`, `allOf` and the like).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..jsontext import same
from ..schemas import Checker, checker


class BadTask(ValueError):
    """What the task gives cannot be used; nothing is known of the completion."""


TYPES = {
    "dict": "object",
    "hashmap": "object",
    "hashtable": "object",
    "float": "number",
    "double": "number",
    "int": "integer",
    "long": "integer",
    "short": "integer",
    "byte": "integer",
    "bigint": "integer",
    "tuple": "array",
    "list": "array",
    "set": "array",
    "arraylist": "array",
    "queue": "array",
    "stack": "array",
    "str": "string",
    "char": "string",
    "bool": "boolean",
    "any": None,
}
"""Types of BFCL (of its Python, Java and JavaScript), in lower case, and what they are in JSON Schema."""

_JSON_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}

_OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "dependentSchemas"} | {
    *("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if")
}
"""Keywords with which a schema speaks for itself of parameters that it does not list."""


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """One tool.

    Attributes:
        name: Its exact name.
        schema: The JSON schema of its arguments.
        properties: The schemas of its parameters, in the order in which they are declared.
        required: Parameters that must be given.
        defaults: What an optional parameter is when it is left out.
        checker: The compiled schema.
    """

    name: str
    schema: Any
    properties: Mapping[str, Any]
    required: frozenset[str]
    defaults: Mapping[str, Any]
    checker: Checker


Toolset = dict[str, Tool]

Bit = tuple[tuple[Any, ...], type]
"""Where a value stands that equals true or false, and of which type it is."""

_by_text: dict[str, Toolset] = {}
_by_names: dict[tuple[Any, ...], list[tuple[Any, list[Bit], Toolset]]] = {}
_CACHED, _ALIKE = 1024, 8


def toolset(given: Any) -> Toolset:
    """The tools by name; the same object for the same tools.

    Raises:
        BadTask: They are no list of tools, two have the same name, or a schema is none.
    """
    if isinstance(given, str):
        found = _by_text.get(given)
        if found is None:
            try:
                listed = json.loads(given)
            except (ValueError, RecursionError) as error:
                raise BadTask(f"`tools` is text, but no JSON: {error}") from None
            found = _room(_by_text)[given] = _read(listed)
        return found
    if not isinstance(given, (list, tuple)):
        raise BadTask("`tools` must be a list of tool schemas")
    # Comparing takes a tenth of the time of writing a key. To it true is 1, so that these are looked at one by one.
    names = tuple([_body(one).get("name") for one in given])
    for listed, bits, found in _by_names.get(names, ()):
        if listed == given and all(type(_at(given, path)) is kind for path, kind in bits):
            return found
    found = _read(given)
    alike = _room(_by_names).setdefault(names, [])
    del alike[:-_ALIKE]
    alike.append((json.loads(json.dumps(given)), list(_bits(given, ())), found))
    return found


def _room(cache: dict[Any, Any]) -> dict[Any, Any]:
    """The cache with room for one more."""
    if len(cache) >= _CACHED:
        cache.clear()
    return cache


def _bits(value: Any, path: tuple[Any, ...]) -> Iterator[Bit]:
    """The booleans in a value, and the numbers that equal one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _bits(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _bits(item, (*path, place))
    elif isinstance(value, (bool, int, float)) and value in (0, 1):
        yield path, type(value)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _body(given: Any) -> dict[str, Any]:
    """The object that has a tool's name and parameters."""
    body = given.get("function", given) if isinstance(given, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not body["name"].strip():
        raise BadTask("each of the `tools` must be an object with a `name`")
    return body


def _read(listed: Any) -> Toolset:
    if not isinstance(listed, (list, tuple)):
        raise BadTask("`tools` must be a list of tool schemas")
    tools = [_tool(_body(one)) for one in listed]
    found = {tool.name: tool for tool in tools}
    if len(found) < len(tools):
        raise BadTask("two of the `tools` have the same name")
    return found


def _tool(body: dict[str, Any]) -> Tool:
    name, parameters = body["name"], body.get("parameters")
    if parameters is None or parameters == {}:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise BadTask(f"the `parameters` of the tool `{name}` must be an object")
    schema = _translated(parameters) if _is_dialect(parameters) else parameters
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = frozenset(required if isinstance(required, list) else ())
    defaults = {
        key: filled(value["default"], value)
        for key, value in properties.items()
        if isinstance(value, dict) and "default" in value and key not in required
    }
    # What is required and not declared, as some data sets have it, could not be given to a closed tool.
    is_open = schema.keys() & _OPEN or required - properties.keys()
    closed = schema if is_open else {**schema, "additionalProperties": False}
    try:
        compiled = checker(closed)
    except ValueError as error:
        raise BadTask(f"the `parameters` of the tool `{name}` are no JSON schema: {error}") from None
    return Tool(name, closed, properties, required, defaults, compiled)


def _is_dialect(schema: Any) -> bool:
    """Whether one of the types in a schema is BFCL's."""
    pending = [schema]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            kind = one.get("type")
            if isinstance(kind, str) and kind not in _JSON_TYPES and kind.lower() in {*TYPES, *_JSON_TYPES}:
                return True
            pending.extend(value for key, value in one.items() if key not in ("default", "enum"))
    return False


def _translated(schema: Any) -> Any:
    """A schema in BFCL's dialect as JSON Schema, with what can be understood in it."""
    if not isinstance(schema, dict):
        return True
    made: dict[str, Any] = {}
    kind = schema.get("type")
    if isinstance(kind, str):
        kind = kind if kind in _JSON_TYPES else TYPES.get(kind.lower(), kind.lower())
        if kind in _JSON_TYPES:
            made["type"] = kind
    if isinstance(schema.get("properties"), dict):
        made["properties"] = {key: _translated(value) for key, value in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        made["items"] = _translated(schema["items"])
    if isinstance(schema.get("additionalProperties"), (bool, dict)):
        other = schema["additionalProperties"]
        made["additionalProperties"] = other if isinstance(other, bool) else _translated(other)
    required = schema.get("required")
    if isinstance(required, list) and all(isinstance(key, str) for key in required):
        made["required"] = list(dict.fromkeys(required))
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        made["enum"] = schema["enum"]
    for bound in ("minimum", "maximum"):
        if isinstance(schema.get(bound), (int, float)) and not isinstance(schema[bound], bool):
            made[bound] = schema[bound]
    if "default" in schema:
        made["default"] = schema["default"]
    return made


def filled(value: Any, schema: Any) -> Any:
    """A value with the defaults of what it leaves out, at any depth below it."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        properties, required = schema["properties"], schema.get("required") or ()
        made = {key: filled(item, properties.get(key)) for key, item in value.items()}
        for key, inner in properties.items():
            if key not in made and isinstance(inner, dict) and "default" in inner and key not in required:
                made[key] = filled(inner["default"], inner)
        return made
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [filled(item, schema["items"]) for item in value]
    return value


def equal(given: Any, wanted: Any, schema: Any) -> bool:
    """Whether two values of a parameter are the same, a default and its omission included."""
    if same(given, wanted):
        return True
    if not isinstance(given, (dict, list)) or type(given) is not type(wanted):
        return False
    return same(filled(given, schema), filled(wanted, schema))


def as_declared(value: Any, schema: Any) -> Any:
    """A value with 2.0 as 2 wherever an integer is declared: the same to a schema, and not always to Python code."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, float) and value.is_integer() and schema.get("type") == "integer":
        return int(value)
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        return {key: as_declared(item, schema["properties"].get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [as_declared(item, schema["items"]) for item in value]
    return value
