"""References of a JSON schema, and whether they ever arrive.

A schema may refer to itself below (an item of a list is a list again), but not to itself at the same place:
`{"$ref": "#"}` says nothing of any value. Libraries disagree on what to make of that (`jsonschema` ends in a
RecursionError, `jsonschema_rs` accepts everything), so that it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urldefrag

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
SAME_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies", "extends")
"""Keywords whose schemas look at the same value as the schema that holds them."""

NO_SCHEMA = {"const", "enum", "default", "examples", "required", "$vocabulary"}
ROOT = "json-schema:///"

Place = tuple[Any, Any]
"""A schema, and the resolver of the references in it; None at the root."""


class References:
    """Follows the references of one schema; nothing is ever fetched.

    Args:
        schema: The whole schema, which has compiled.
        draft: Its number, as `jsonschema_rs` has it.
        registry: Other schemas by their URI.
    """

    def __init__(self, schema: Any, draft: int, registry: Mapping[str, Any] | None) -> None:
        self.schema, self.draft = schema, draft
        self._registry = registry
        self._found: dict[tuple[str, str], Place] = {}
        text = json.dumps(schema)
        ids = text.count('"$id":') + text.count('"id":')
        self._one_base = ids <= (isinstance(schema, dict) and ("$id" in schema or "id" in schema))
        self._root: Any = None

    def follow(self, reference: str, resolver: Any) -> Place | None:
        """Where a reference leads; None if nowhere."""
        if resolver is None and self._one_base and (reference == "#" or reference.startswith("#/")):
            found = _at_pointer(self.schema, reference)
            return None if found is None else (found[0], None)
        import jsonschema_rs

        resolver = resolver or self._root_resolver()
        key = (resolver.base_uri, reference)
        if key not in self._found:
            try:
                found = resolver.lookup(reference)
            except (jsonschema_rs.ReferencingError, ValueError):
                return None
            self._found[key] = (found.contents, found.resolver)
        return self._found[key]

    def enter(self, schema: dict[str, Any], resolver: Any) -> Any:
        """The resolver inside of a schema that may have an identifier of its own."""
        if self._one_base and resolver is None:
            return None
        own = schema.get("$id", schema.get("id"))
        if not isinstance(own, str) or own.startswith("#") or schema is self.schema:
            return resolver
        place = self.follow(own, resolver)
        return place[1] if place else resolver

    def _root_resolver(self) -> Any:
        if self._root is None:
            import jsonschema_rs

            own = self.schema.get("$id", self.schema.get("id", "")) if isinstance(self.schema, dict) else ""
            uri = urldefrag(own)[0] if isinstance(own, str) and ":" in own else ROOT
            others = self._registry or {}
            try:
                resources = jsonschema_rs.Registry([(uri, self.schema)], draft=self.draft, retriever=others.__getitem__)
            except (ValueError, jsonschema_rs.ReferencingError):
                resources = jsonschema_rs.Registry([])
            self._root = resources.resolver(uri)
        return self._root

    def loop(self) -> str | None:
        """A reference that leads back to where it stands; None when there is none."""
        done: set[int] = set()
        waiting: list[Place] = [(self.schema, None)]
        while waiting:
            start = waiting.pop()
            if id(start[0]) not in done and (found := self._loop_from(start, done, waiting)):
                return found
        return None

    def _loop_from(self, start: Place, done: set[int], waiting: list[Place]) -> str | None:
        """Looks through all schemas for the same value, depth first; adds those for values in it to `waiting`."""
        path = [(start, "", self._same_place(*start))]
        on_path = {id(start[0])}
        while path:
            (schema, resolver), _, edges = path[-1]
            step = next(edges, None)
            if step is None:
                path.pop()
                on_path.discard(id(schema))
                done.add(id(schema))
                waiting.extend(self._below(schema, resolver))
                continue
            place, reference = step
            if id(place[0]) in on_path:
                return reference or next((name for _, name, _ in reversed(path) if name), "#")
            if isinstance(place[0], dict) and id(place[0]) not in done:
                path.append((place, reference, self._same_place(*place)))
                on_path.add(id(place[0]))
        return None

    def _same_place(self, schema: Any, resolver: Any) -> Iterator[tuple[Place, str]]:
        """The schemas that look at the same value, with the reference that leads there."""
        if not isinstance(schema, dict):
            return
        inside = self.enter(schema, resolver)
        for keyword in REFERENCES:
            reference = schema.get(keyword)
            if isinstance(reference, str) and (place := self.follow(reference, inside)):
                yield place, reference
        if "$ref" in schema and self.draft <= 7:  # what stands beside it does not count
            return
        for keyword in SAME_PLACE:
            for found in _schemas(schema.get(keyword), keyword in ("dependentSchemas", "dependencies")):
                yield (found, inside), ""

    def _below(self, schema: Any, resolver: Any) -> Iterator[Place]:
        """Every schema that stands in this one."""
        if isinstance(schema, dict):
            inside = self.enter(schema, resolver)
            for keyword, value in schema.items():
                if keyword not in NO_SCHEMA:
                    for found in _schemas(value, True):
                        yield found, inside


def _schemas(value: Any, in_objects: bool) -> list[Any]:
    """The schemas that a keyword's value is or holds."""
    if isinstance(value, list):
        return [item for item in value if isinstance(item, dict)]
    if isinstance(value, dict):
        return [value, *(item for item in value.values() if isinstance(item, dict))] if in_objects else [value]
    return []


def _at_pointer(document: Any, fragment: str) -> tuple[Any] | None:
    """What a fragment such as `#/$defs/a` points to, as a tuple of one."""
    for part in unquote(fragment).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return None
    return (document,)
