"""How beginners write `code`: right programs, and the slips that its starter model learns beside them.

Each kind of problem has a slip of its own, nearly right: a bound that is off by one, `min` for `max`, a `return` that
stands inside the loop. Then there are those that happen anywhere: printing instead of returning, no `return`, a colon
left out, a constant; and in a loop, now and then, a line that changes nothing, so that it never ends. Problems come
from the train split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from rlvr_tasks.code import KINDS, Kind, names, problems, program, prompt

RIGHT = {  # share of the class that programs correctly, by kind of problem
    "line": 0.6,
    "over": 0.6,
    "clamp": 0.3,
    "divides": 0.6,
    "slice": 0.3,
    "repeat": 0.3,
    "between": 0.3,
    "keep": 0.6,
    "total": 0.3,
    "grow": 0.3,
}

SLIPS = {  # as in `Kind.body`
    "line": "return {a} * ({v} + {b})",
    "over": "return {v} - {a} if {v} >= {b} else 0",
    "clamp": "return min({a}, max({v}, {b}))",
    "divides": "return {v} % {a} == 0 and {v} % {b} == 0",
    "slice": "return {v}[{a}:{b}]",
    "repeat": "return {v}[{a}] * {b}",
    "between": "return sum({a} <= x <= {b} for x in {v})",
    "keep": "return [x + {b} for x in {v} if x % {a}]",
    "total": "return {b} * sum(range({a}, {v}))",
    "grow": "p = {b}\nwhile p <= {v}:\n    p *= {a}\n    return p",
}

ANYWHERE = {"prints": 0.06, "returns nothing": 0.05, "leaves the colon out": 0.03, "returns a constant": 0.02}
"""Share of the class that makes the slips that are not of one kind."""

ENDLESS = 0.02
"""Share of the class whose loop never ends, where there is one. Each costs a whole time limit to find out."""


def slip(kind: Kind, numbers: tuple[int, int], function: str, parameter: str, which: str = "") -> str:
    """A program with a slip: one of `ANYWHERE`, `endless` (where there is a loop), or the one typical of its kind."""
    if which == "leaves the colon out":
        return program(function, parameter, kind.body, numbers).replace(":", "", 1)
    bodies = {
        "prints": kind.body.replace("return ", "print(") + ")",
        "returns nothing": kind.body.replace("return ", ""),
        "returns a constant": "return {a}",
        "endless": kind.body.replace("*= ", "* "),
    }
    return program(function, parameter, bodies.get(which, SLIPS[kind.name]), numbers)


def written(kind: Kind, numbers: tuple[int, int], right: float, rng: random.Random) -> tuple[str, str]:
    """The question and one pupil's program, which is correct with the probability `right`."""
    function, parameter = names(kind, rng)
    question = prompt(kind, numbers, function, parameter, rng)
    if rng.random() < right:
        return question, program(function, parameter, kind.body, numbers)
    shares = ANYWHERE | {"endless": ENDLESS if "while" in kind.body else 0.0}
    typical = max(0.0, 1.0 - right - sum(shares.values()))
    (which,) = rng.choices([*shares, ""], [*shares.values(), typical])
    return question, slip(kind, numbers, function, parameter, which)


def conversations(seed: int, right: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Endless `(question, program)` pairs, every kind as often as the others.

    Args:
        seed: Seed of the draw.
        right: Share of correct programs by kind; a kind that is not named is always programmed correctly.
    """
    rng = random.Random(seed)
    spaces = [(kind, problems(kind, "train")) for kind in KINDS]
    while True:
        kind, space = rng.choice(spaces)
        yield written(kind, rng.choice(space), right.get(kind.name, 1.0), rng)


def slips() -> list[str]:
    """Slips of every kind, so that the tokenizer knows their words too."""
    rng = random.Random(0)
    return [written(kind, numbers, 0.0, rng)[1] for kind in KINDS for numbers in problems(kind, "train")]
