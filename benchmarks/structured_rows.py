"""Rows for `structured.py`: schemas, objects that fit them, and calls of tools; made at random from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlvr import Completion, Sample

ROWS = 240
EXTRACT = {"mode": "extract"}

Schema = Mapping[str, Any]


class Row(NamedTuple):
    """A completion and its sample, whether it is right, and what the libraries get of it: JSON text, its schemas, and
    the arguments that are expected of tool calls."""

    completion: Completion
    sample: Sample
    expected: bool
    texts: tuple[str, ...]
    schemas: tuple[Schema, ...]
    golds: tuple[Any, ...] = ()


class Set(NamedTuple):
    """Rows that are measured together."""

    title: str
    verifier: str
    options: Mapping[str, Any]
    rows: Sequence[Row]


def sets(rng: random.Random) -> Iterator[Set]:
    kinds: list[tuple[str, Schema, Callable[[random.Random], dict[str, Any]], Callable[[dict[str, Any]], object]]] = [
        ("tool call", TOOL_CALL, tool_call, lambda value: value["arguments"].update(days="3")),
        ("invoice", INVOICE, invoice, lambda value: value["lines"][-1].pop("quantity")),
        ("résumé", RESUME, resume, lambda value: value["jobs"][0]["period"].update(start="May 2019")),
        ("GeoJSON", FEATURE, feature, lambda value: value["geometry"]["coordinates"].append("8.5")),
    ]
    for title, schema, make, spoil in kinds:
        values = [make(rng) for _ in range(ROWS)]
        texts = [json.dumps(value, ensure_ascii=False, indent=rng.choice((None, 2))) for value in values]
        fenced = [rng.choice(PROSE).replace("{}", text) for text in texts]
        yield Set(title, "json-schema", EXTRACT, objects(schema, texts, texts, True))
        yield Set(f"{title}, in a fence", "json-schema", EXTRACT, objects(schema, fenced, texts, True))
        for value in values:
            spoil(value)
        texts = [json.dumps(value, ensure_ascii=False, indent=rng.choice((None, 2))) for value in values]
        yield Set(f"{title}, one thing wrong", "json-schema", EXTRACT, objects(schema, texts, texts, False))
    styles: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
        "hermes": hermes,
        "openai": openai,
        "python": python,
    }
    for style, write in styles.items():
        for count in (1, 3):
            title = f"{count} call{'s' * (count > 1)}, {style}"
            yield Set(title, "tool-call", {"format": style}, [calls(rng, count, write) for _ in range(ROWS)])


def objects(schema: Schema, completions: Sequence[str], texts: Sequence[str], expected: bool) -> list[Row]:
    return [
        Row(Completion(completion), Sample("row", meta={"schema": schema}), expected, (text,), (schema,))
        for completion, text in zip(completions, texts, strict=True)
    ]


PROSE = (
    "Here is what I found:\n\n```json\n{}\n```\n",
    "<think>\nThe text names all of it; what it leaves out I leave out.\n</think>\n\n```json\n{}\n```",
    "```\n{}\n```\n\nLet me know if a field should be named otherwise.",
)

WORDS = (
    "amber",
    "basalt",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "granite",
    "harbor",
    "iris",
    "juniper",
    "kelp",
    "lichen",
)
PEOPLE = ("Ana Sousa", "Bo Li", "Chloé Martin", "Dmitri Petrov", "Eszter Nagy", "Fatima Zahra", "Götz Müller")
CITIES = ("Bergen", "Cádiz", "Graz", "Łódź", "Porto", "Tromsø", "Zürich")


def tool_call(rng: random.Random) -> dict[str, Any]:
    arguments = {"city": rng.choice(CITIES), "unit": rng.choice("CF"), "days": rng.randint(1, 14)}
    return {"name": "get_weather", "arguments": arguments}


def invoice(rng: random.Random) -> dict[str, Any]:
    lines = [
        {"text": " ".join(rng.sample(WORDS, 3)), "quantity": rng.randint(1, 40), "price": rng.randint(100, 9999) / 100}
        for _ in range(rng.randint(4, 10))
    ]
    return {
        "number": f"INV-{rng.randint(1000, 99999)}",
        "date": f"2025-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
        "currency": rng.choice(("EUR", "USD", "GBP")),
        "customer": {"name": rng.choice(PEOPLE), "city": rng.choice(CITIES), "vat": None},
        "lines": lines,
        "total": round(sum(item["quantity"] * item["price"] for item in lines), 2),
        "paid": rng.random() < 0.5,
    }


def resume(rng: random.Random) -> dict[str, Any]:
    def period() -> dict[str, Any]:
        start = rng.randint(1990, 2015)
        end = rng.choice((None, f"{start + rng.randint(1, 8)}-{rng.randint(1, 12):02}"))
        return {"start": f"{start}-{rng.randint(1, 12):02}", "end": end}

    return {
        "person": {"name": rng.choice(PEOPLE), "email": "someone@example.org", "phones": ["+41 44 123 45 67"]},
        "summary": " ".join(rng.choices(WORDS, k=30)),
        "jobs": [
            {
                "employer": rng.choice(WORDS).title(),
                "title": "engineer",
                "period": period(),
                "done": [" ".join(rng.choices(WORDS, k=8)) for _ in range(3)],
            }
            for _ in range(rng.randint(2, 4))
        ],
        "schools": [{"name": rng.choice(CITIES), "degree": rng.choice(("BSc", "MSc")), "period": period()}],
        "skills": {word: rng.randint(1, 5) for word in rng.sample(WORDS, 6)},
    }


def feature(rng: random.Random) -> dict[str, Any]:
    def point() -> list[float]:
        return [round(rng.uniform(-180, 180), 5), round(rng.uniform(-90, 90), 5)]

    kind = rng.choice(("Point", "LineString", "Polygon"))
    ring = [point() for _ in range(rng.randint(4, 12))]
    coordinates: Any = {"Point": point(), "LineString": ring, "Polygon": [[*ring, ring[0]]]}[kind]
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {"name": rng.choice(CITIES), "rank": 3}}


def obj(required: Sequence[str] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object that has these properties and no others; all of them required unless some are named."""
    names = list(required or properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


TEXT = {"type": "string", "minLength": 1}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 1}
YES = {"type": "boolean"}


def listed(items: Schema, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least}


DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
TOOL_CALL = DIALECT | obj(
    name={"enum": ["get_weather", "get_forecast"]},
    arguments=obj(
        ["city"], city=TEXT, unit={"enum": ["C", "F"]}, days={"type": "integer", "minimum": 1, "maximum": 14}
    ),
)
INVOICE = DIALECT | obj(
    number={"type": "string", "pattern": "^INV-[0-9]{4,}$"},
    date={"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
    currency={"enum": ["EUR", "USD", "GBP"]},
    customer=obj(name=TEXT, city=TEXT, vat={"type": ["string", "null"]}),
    lines=listed(obj(text=TEXT, quantity=WHOLE, price={"type": "number", "minimum": 0}), 1),
    total={"type": "number", "minimum": 0},
    paid=YES,
)
MONTH, PERIOD, GRADE = ({"$ref": f"#/$defs/{name}"} for name in ("month", "period", "grade"))
RESUME = (
    DIALECT
    | obj(
        person=obj(name=TEXT, email={"type": "string", "pattern": "^[^@ ]+@[^@ ]+$"}, phones=listed(TEXT)),
        summary={"type": "string", "maxLength": 600},
        jobs=listed({"$ref": "#/$defs/job"}, 1),
        schools=listed({"$ref": "#/$defs/school"}),
        skills={
            "type": "object",
            "propertyNames": {"maxLength": 30},
            "additionalProperties": {"$ref": "#/$defs/grade"},
        },
    )
    | {
        "$defs": {
            "month": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
            "grade": {"type": "integer", "minimum": 1, "maximum": 5},
            "period": obj(
                start={"$ref": "#/$defs/month"}, end={"anyOf": [{"$ref": "#/$defs/month"}, {"type": "null"}]}
            ),
            "job": obj(employer=TEXT, title=TEXT, period={"$ref": "#/$defs/period"}, done=listed(TEXT)),
            "school": obj(name=TEXT, degree={"enum": ["BSc", "MSc", "PhD"]}, period={"$ref": "#/$defs/period"}),
        }
    }
)
POSITION = {"$ref": "#/$defs/position"}
FEATURE = (
    DIALECT
    | obj(
        type={"const": "Feature"},
        geometry={
            "oneOf": [
                obj(type={"const": "Point"}, coordinates=POSITION),
                obj(type={"const": "LineString"}, coordinates=listed(POSITION, 2)),
                obj(type={"const": "Polygon"}, coordinates=listed(listed(POSITION, 4), 1)),
            ]
        },
        properties={"type": "object"},
    )
    | {
        "$defs": {
            "position": {
                "type": "array",
                "prefixItems": [
                    {"type": "number", "minimum": -180, "maximum": 180},
                    {"type": "number", "minimum": -90, "maximum": 90},
                ],
                "items": False,
                "minItems": 2,
            }
        }
    }
)

PARAMETERS = {
    "get_weather": obj(["city"], city=TEXT, unit={"enum": ["C", "F"], "default": "C"}, days=WHOLE),
    "send_mail": obj(["to", "subject"], to=listed(TEXT, 1), subject=TEXT, body={"type": "string"}, urgent=YES),
    "book_table": obj(["place", "when"], place=TEXT, when=TEXT, guests=WHOLE | {"default": 2}),
    "search": obj(["query"], query=TEXT, filters=obj(["year"], year={"type": "integer"}, tags=listed(TEXT))),
    "set_light": obj(room=TEXT, on=YES, level={"type": "number", "minimum": 0, "maximum": 1}),
}
TOOLS = {
    name: {"name": name, "description": f"Does what `{name}` says.", "parameters": parameters}
    for name, parameters in PARAMETERS.items()
}


def arguments_of(name: str, rng: random.Random) -> dict[str, Any]:
    city, word = rng.choice(CITIES), rng.choice(WORDS)
    made: dict[str, dict[str, Any]] = {
        "get_weather": {"city": city, "days": rng.randint(1, 9)},
        "send_mail": {
            "to": [f"{word}@example.org"],
            "subject": f"About {word}",
            "body": f"It is {city}.",
            "urgent": True,
        },
        "book_table": {"place": f"Café {word.title()}", "when": f"2025-05-{rng.randint(10, 28)}T19:30", "guests": 4},
        "search": {"query": f"{word} in {city}", "filters": {"year": rng.randint(1990, 2025), "tags": [word, "map"]}},
        "set_light": {"room": word, "on": True, "level": rng.randint(1, 99) / 100},
    }
    return made[name]


def calls(rng: random.Random, count: int, write: Callable[[Sequence[dict[str, Any]]], str]) -> Row:
    names = rng.sample(sorted(TOOLS), rng.randint(3, 5))
    gold = [{"name": name, "arguments": arguments_of(name, rng)} for name in rng.choices(names, k=count)]
    sample = Sample("row", meta={"tools": [TOOLS[name] for name in names], "calls": gold})
    texts = tuple(json.dumps(call["arguments"], ensure_ascii=False) for call in gold)
    schemas = tuple(PARAMETERS[call["name"]] for call in gold)
    return Row(Completion(write(gold)), sample, True, texts, schemas, tuple(call["arguments"] for call in gold))


def hermes(gold: Sequence[dict[str, Any]]) -> str:
    return "\n".join(f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in gold)


def openai(gold: Sequence[dict[str, Any]]) -> str:
    functions = [{"name": call["name"], "arguments": json.dumps(call["arguments"])} for call in gold]
    return json.dumps([{"id": f"call_{i}", "type": "function", "function": f} for i, f in enumerate(functions)])


def python(gold: Sequence[dict[str, Any]]) -> str:
    written = (f"{call['name']}({', '.join(f'{k}={v!r}' for k, v in call['arguments'].items())})" for call in gold)
    return f"[{', '.join(written)}]"
