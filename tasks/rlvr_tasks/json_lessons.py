"""How `json` is answered by a class: right objects, and the slips that its starter model learns beside them.

Each kind of text has a slip of its own, nearly right: a number written as text, a key of another name, a field left
out, `null` for what is not told, a word that is not one of those to choose from, the last item of a list forgotten, a
nested object flattened. Then there are those that happen anywhere: a comma too many, single quotes, values in each
other's place, a field that nobody asked for, a brace left open, a sentence instead of JSON. Problems come from the
train split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from rlvr_tasks.json_extraction import KINDS, Kind, Object, problems, prompt, written

RIGHT = {  # share of the class that answers rightly, by kind of text
    "person": 0.6,
    "measurement": 0.3,
    "event": 0.6,
    "ticket": 0.3,
    "order": 0.3,
    "contact": 0.3,
    "shopping": 0.6,
    "delivery": 0.3,
    "receipt": 0.6,
}

ANYWHERE = {
    "comma too many": 0.03,
    "single quotes": 0.03,
    "in each other's place": 0.03,
    "nobody asked": 0.03,
    "left open": 0.02,
    "sentence": 0.02,
}
"""Share of the class that makes the slips that are not of one kind."""


def typical(kind: str, value: Object) -> str:
    """The slip that is typical of a kind."""
    if kind == "person":  # a number as text
        return written({**value, "age": str(value["age"])})
    if kind == "measurement":  # the unit not taken apart
        return written({"quantity": value["quantity"], "value": f"{value['value']} {value['unit']}"})
    if kind == "event":  # a key of another name
        return written({("date" if key == "day" else key): told for key, told in value.items()})
    if kind == "ticket":  # another word than those of the list
        return written({**value, "urgency": {"high": "urgent", "low": "later"}[value["urgency"]]})
    if kind == "order":  # a field left out
        return written({key: told for key, told in value.items() if key != "paid"})
    if kind == "contact":  # what is not told, or a number that is text
        if "phone" in value and "city" in value:
            return written({**value, "phone": int(value["phone"])})
        return written({"name": value["name"], "phone": value.get("phone"), "city": value.get("city")})
    if kind == "shopping":  # the last item forgotten
        return written({**value, "items": value["items"][:-1]})
    if kind == "delivery":  # flattened
        return written({"name": value["name"], **value["address"]})
    return written({**value, "total": value["lines"][-1]["price"]})


def slip(kind: Kind, value: Object, which: str = "") -> str:
    """An answer with a slip: one of `ANYWHERE`, or the one typical of its kind."""
    right = written(value)
    if which == "comma too many":
        return right[:-1] + ",}"
    if which == "single quotes":
        return right.replace('"', "'")
    if which == "nobody asked":
        return right[:-1] + ',"ok":true}'
    if which == "left open":
        return right[:-1]
    if which == "sentence":
        return "It is all in the text."
    texts = [key for key, told in value.items() if isinstance(told, str)]
    if which == "in each other's place" and len(texts) > 1:
        first, last = texts[0], texts[-1]
        return written({**value, first: value[last], last: value[first]})
    return typical(kind.name, value)


def answered(kind: Kind, value: Object, right: float, rng: random.Random) -> tuple[str, str]:
    """The question and one pupil's answer, which is right with the probability `right`."""
    question = prompt(kind, value, rng)
    if rng.random() < right:
        return question, written(value)
    often = max(0.0, 1.0 - right - sum(ANYWHERE.values()))
    (which,) = rng.choices([*ANYWHERE, ""], [*ANYWHERE.values(), often])
    return question, slip(kind, value, which)


def conversations(seed: int, right: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Endless `(question, answer)` pairs, every kind as often as the others.

    Args:
        seed: Seed of the draw.
        right: Share of right answers by kind; a kind that is not named is always answered rightly.
    """
    rng = random.Random(seed)
    drawn = [(kind, problems(kind, "train", rng)) for kind in KINDS]
    while True:
        kind, values = rng.choice(drawn)
        yield answered(kind, next(values), right.get(kind.name, 1.0), rng)


def slips() -> list[str]:
    """Slips of every kind, so that the tokenizer knows their words too."""
    rng = random.Random(0)
    drawn = [(kind, problems(kind, "train", rng)) for kind in KINDS]
    return [answered(kind, next(values), 0.0, rng)[1] for kind, values in drawn for _ in range(200)]
