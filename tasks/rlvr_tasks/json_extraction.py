"""`json`: a short text to be read into a JSON object, from three flat fields to lists and nested objects.

Every problem is a kind and the object that is told, for example `("person", {"name": "Ana", "age": 34, "city":
"Oslo"})`. A hash of exactly that decides whether it belongs to the train or to the test split, whatever its wording, so
the splits are disjoint by construction. Which objects are drawn, and how they are told, comes from a seed: the same
version of this task is the same data everywhere. Words come from short lists, so that the test split holds objects
that are new and words that are not; numbers are drawn digit by digit from ranges.

The prompt names the fields as in `{name, age: int, phone?}`: without a type a field is text, `?` says that it is left
out when the text does not tell it, and `low|high` lists the only words that it may hold.
"""

from __future__ import annotations

import hashlib
import json as jsontext
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr import Sample, Split, Task

SEED = 2026
PER_KIND = {"train": 240, "test": 30}
TEST_SHARE = 8  # one problem in eight

NAMES = (
    *("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ian", "Kim", "Lea", "Max", "Nia", "Omar", "Pia"),
    *("Ravi", "Sam", "Tess", "Uma", "Zoe"),
)
CITIES = ("Oslo", "Rome", "Lima", "Cairo", "Paris", "Bern", "Delhi", "Quito", "Riga", "Seoul", "Turin", "Accra")
STREETS = ("Elm", "Oak", "Mill", "High", "Park", "Lake", "Hill", "Dock")
SHOPS = ("Nook", "Depot", "Bazaar", "Corner", "Cellar", "Kiosk")
GOODS = ("pens", "cups", "keys", "nuts", "bags", "hats", "pots", "jars", "lamps", "forks", "maps", "figs")
FIXTURES = ("lamp", "door", "fan", "tap", "lock", "desk", "heater", "window")
EVENTS = ("Chess", "Yoga", "Choir", "Lunch", "Judo", "Dance", "Opera", "Exam")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UNITS = {
    "weight": ("g", "kg"),
    "length": ("cm", "m", "km"),
    "time": ("s", "min"),
    "volume": ("ml", "l"),
    "power": ("W",),
}
URGENCY = {"high": ("at once", "right now", "today"), "low": ("some day", "next month", "when you can")}

Object = dict[str, Any]
Words = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of text.

    Attributes:
        name: What is told.
        level: 1 is easiest.
        fields: The object's fields, as the prompt shows them.
        schema: The JSON schema of the object.
        draw: Draws an object.
        words: What the wordings are filled with, for an object; a phrase may be drawn.
        wordings: Format strings over the words.
    """

    name: str
    level: int
    fields: str
    schema: Mapping[str, Any]
    draw: Callable[[random.Random], Object]
    words: Callable[[Object, random.Random], Words]
    wordings: tuple[str, ...]


def _object(properties: Mapping[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _several(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 1}
PRICE = {"type": "number", "exclusiveMinimum": 0}


def _as_it_is(value: Object, rng: random.Random) -> Words:
    return value


def _price(rng: random.Random) -> float:
    return rng.randint(101, 999) / 100


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _measurement(rng: random.Random) -> Object:
    quantity = rng.choice(tuple(UNITS))
    return {"quantity": quantity, "value": rng.randint(11, 999) / 10, "unit": rng.choice(UNITS[quantity])}


def _contact(rng: random.Random) -> Object:
    known = rng.choice((("phone",), ("city",), ("phone", "city")))
    drawn = {"name": rng.choice(NAMES), "phone": str(rng.randint(1000, 9999)), "city": rng.choice(CITIES)}
    return {key: value for key, value in drawn.items() if key == "name" or key in known}


def _contact_words(value: Object, rng: random.Random) -> Words:
    told = [f"has phone {value['phone']}"] if "phone" in value else []
    told += [f"lives in {value['city']}"] if "city" in value else []
    return {"name": value["name"], "rest": _listed(told) if len(told) > 1 else told[0]}


def _shopping(rng: random.Random) -> Object:
    goods = rng.sample(GOODS, rng.choice((2, 2, 3)))
    return {"shop": rng.choice(SHOPS), "items": [{"item": item, "count": rng.randint(2, 19)} for item in goods]}


def _receipt(rng: random.Random) -> Object:
    prices = [_price(rng) for _ in range(2)]
    lines = [{"item": item, "price": price} for item, price in zip(rng.sample(GOODS, 2), prices, strict=True)]
    return {"lines": lines, "total": round(sum(prices), 2)}


KINDS = (
    Kind(
        "person",
        1,
        "{name, age: int, city}",
        _object({"name": TEXT, "age": {"type": "integer", "minimum": 0, "maximum": 120}, "city": TEXT}),
        lambda rng: {"name": rng.choice(NAMES), "age": rng.randint(18, 90), "city": rng.choice(CITIES)},
        _as_it_is,
        ("{name} is {age} and lives in {city}.", "{name} from {city} is {age}.", "In {city}: {name}, aged {age}."),
    ),
    Kind(
        "measurement",
        1,
        "{quantity, value: num, unit}",
        _object(
            {
                "quantity": {"enum": [*UNITS]},
                "value": {"type": "number"},
                "unit": {"enum": [unit for units in UNITS.values() for unit in units]},
            }
        ),
        _measurement,
        _as_it_is,
        ("The {quantity} is {value} {unit}.", "We read {value} {unit} for the {quantity}."),
    ),
    Kind(
        "event",
        2,
        "{title, day, time}",
        _object(
            {"title": TEXT, "day": {"enum": [*DAYS]}, "time": {"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$"}}
        ),
        lambda rng: {
            "title": rng.choice(EVENTS),
            "day": rng.choice(DAYS),
            "time": f"{rng.randint(8, 21):02}:{rng.choice((0, 15, 30, 45)):02}",
        },
        _as_it_is,
        ("{title} is on {day} at {time}.", "On {day} at {time} there is {title}."),
    ),
    Kind(
        "ticket",
        2,
        "{item, room: int, urgency: low|high}",
        _object({"item": TEXT, "room": COUNT, "urgency": {"enum": [*URGENCY]}}),
        lambda rng: {"item": rng.choice(FIXTURES), "room": rng.randint(11, 99), "urgency": rng.choice(tuple(URGENCY))},
        lambda value, rng: {**value, "when": rng.choice(URGENCY[value["urgency"]])},
        ("Mend the {item} in room {room}, {when}.", "Room {room}: the {item} is broken, mend it {when}."),
    ),
    Kind(
        "order",
        3,
        "{item, count: int, price: num, paid: bool}",
        _object({"item": TEXT, "count": COUNT, "price": PRICE, "paid": {"type": "boolean"}}),
        lambda rng: {
            "item": rng.choice(GOODS),
            "count": rng.randint(2, 60),
            "price": _price(rng),
            "paid": rng.choice((True, False)),
        },
        lambda value, rng: {
            **value,
            "price": f"{value['price']:.2f}",
            "state": "paid" if value["paid"] else "not paid",
        },
        ("{count} {item} at {price} each, {state}.", "Order, {state}: {count} {item}, each {price}."),
    ),
    Kind(
        "contact",
        3,
        "{name, phone?, city?}",
        _object({"name": TEXT, "phone": {"type": "string", "pattern": "^[0-9]+$"}, "city": TEXT}, ("phone", "city")),
        _contact,
        _contact_words,
        ("{name} {rest}.", "Note: {name} {rest}."),
    ),
    Kind(
        "shopping",
        4,
        "{shop, items: [{item, count: int}]}",
        _object({"shop": TEXT, "items": _several(_object({"item": TEXT, "count": COUNT}))}),
        _shopping,
        lambda value, rng: {**value, "list": _listed([f"{line['count']} {line['item']}" for line in value["items"]])},
        ("At the {shop} buy {list}.", "Get {list} from the {shop}."),
    ),
    Kind(
        "delivery",
        5,
        "{name, address: {street, number: int, city}}",
        _object({"name": TEXT, "address": _object({"street": TEXT, "number": COUNT, "city": TEXT})}),
        lambda rng: {
            "name": rng.choice(NAMES),
            "address": {
                "street": rng.choice(STREETS),
                "number": rng.randint(11, 99),
                "city": rng.choice(CITIES),
            },
        },
        lambda value, rng: {**value, **value["address"]},
        ("Bring it to {name} at {number} {street} Street in {city}.", "To {name}, {number} {street} Street, {city}."),
    ),
    Kind(
        "receipt",
        5,
        "{lines: [{item, price: num}], total: num}",
        _object({"lines": _several(_object({"item": TEXT, "price": PRICE})), "total": PRICE}),
        _receipt,
        lambda value, rng: {
            "list": _listed([f"{line['item']} {line['price']:.2f}" for line in value["lines"]]),
            "total": f"{value['total']:.2f}",
        },
        ("We paid {total}: {list}.", "{list}, that makes {total}."),
    ),
)


def written(value: Any) -> str:
    """JSON without white space."""
    return jsontext.dumps(value, separators=(",", ":"))


def split_of(kind: str, value: Object) -> Split:
    """The split that a problem belongs to, by a hash of its kind and object."""
    key = f"{kind}:{jsontext.dumps(value, sort_keys=True)}"
    return "test" if hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def problems(kind: Kind, split: Split, rng: random.Random) -> Iterator[Object]:
    """Objects of a kind that belong to a split, without end; some come again."""
    while True:
        value = kind.draw(rng)
        if split_of(kind.name, value) == split:
            yield value


def prompt(kind: Kind, value: Object, rng: random.Random) -> str:
    return f"JSON {kind.fields}: " + rng.choice(kind.wordings).format(**kind.words(value, rng))


def load(split: Split) -> list[Sample]:
    """The samples of a split, `PER_KIND[split]` of each kind, all kinds shuffled together."""
    rng = random.Random(f"{SEED}:{split}")
    samples = []
    for kind in KINDS:
        chosen: dict[str, Object] = {}
        for value in problems(kind, split, rng):
            chosen[written(value)] = value
            if len(chosen) == PER_KIND[split]:
                break
        for text, value in chosen.items():
            samples.append(
                Sample(
                    id=f"{kind.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}",
                    prompt=prompt(kind, value, rng),
                    answer=text,
                    meta={"kind": kind.name, "level": kind.level, "schema": dict(kind.schema), "reference": value},
                )
            )
    rng.shuffle(samples)
    return samples


json = Task(
    name="json",
    verifier="json-schema",
    load=load,
    description="short texts read into JSON objects in 5 levels, from three fields to lists and nested objects",
    defaults={  # for its starter model on two CPU cores
        "model": "starter-json",
        "steps": 20,
        "sampler.group_size": 16,
        "sampler.prompts_per_step": 32,
        "sampler.batch_size": 1024,
        "sampler.max_tokens": 72,
        "learner.lr": 4e-4,
        "learner.warmup_steps": 2,
        "learner.schedule": "cosine",
        "learner.micro_batch_tokens": 2048,
        "eval.limit": 0,
    },
)
