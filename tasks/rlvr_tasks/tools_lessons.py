"""How `tools` is done by a class: right transcripts, and the slips that its starter model learns beside them.

Each kind of problem has a slip of its own, nearly right: an argument or a tool called by another name, a call where
none is needed, a result copied with one too many, the second of two calls forgotten, a number said instead of used, or
said instead of what it means. Then there are those that happen anywhere: two calls in the wrong order, a number written
as text, a tag left open, a box that is not there, nothing called at all. Problems come from the train split only.

A transcript holds what the environment says between two turns; nobody learns to say that.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence

from rlvr_tasks.tools import DONE, KINDS, Boxes, Call, Kind, Solution, Told, calls_text, fill, problems, prompt

RIGHT = {  # share of the class that does right, by kind of problem
    "put": 0.6,
    "take": 0.3,
    "plain": 0.6,
    "count": 0.6,
    "pair": 0.3,
    "chain": 0.3,
    "clear": 0.3,
    "match": 0.3,
    "fuller": 0.6,
}

ANYWHERE = {
    "wrong way round": 0.04,
    "number as text": 0.04,
    "left open": 0.04,
    "wrong box": 0.04,
    "nothing called": 0.03,
}
"""Share of the class that makes the slips that are not of one kind, where there is a call to make them in."""


def replied(results: Sequence[int]) -> str:
    """What the environment says to the calls of one turn: a line of JSON for each."""
    return "\n".join(map(json.dumps, results))


def transcript(solution: Solution) -> tuple[str, ...]:
    """The policy's turns and the environment's, in alternation."""
    turns = []
    for calls, results in zip(solution.rounds, solution.results, strict=True):
        turns += [calls_text(calls), replied(results)]
    return (*turns, solution.says) if solution.says else tuple(turns[:-1])


def typical(kind: Kind, told: Told, boxes: Boxes) -> tuple[str, ...]:
    """The slip that is typical of a kind."""
    solution = kind.solve(told, boxes)
    right = transcript(solution)
    calls = solution.rounds[0] if solution.rounds else ()
    if kind.name == "put":  # an argument called by another name
        return (calls_text([("put", {"box": told["box"], "amount": told["number"]})]),)
    if kind.name == "take":  # a tool called by another name
        return (calls_text([("remove", calls[0][1])]),)
    if kind.name == "plain":  # a call where none is needed
        return (calls_text([("count", {"box": told["name"]})]),)
    if kind.name == "count":  # one too many
        return (*right[:-1], str(boxes[told["box"]] + 1))
    if kind.name in ("pair", "chain"):  # the second call forgotten
        return (calls_text(calls[:1]),)
    if kind.name == "match":  # left at counting
        return (*right[:-1], DONE)
    return (*right[:-1], str(boxes[told["box"]]))  # said instead of used


def slip(kind: Kind, told: Told, boxes: Boxes, which: str = "") -> tuple[str, ...]:
    """A transcript with a slip: one of `ANYWHERE`, or the one typical of its kind."""
    solution = kind.solve(told, boxes)
    if not solution.rounds:
        return typical(kind, told, boxes)
    calls = solution.rounds[0]
    if which == "wrong way round" and kind.name == "chain":
        return (calls_text(calls[::-1]),)
    if which == "number as text" and "number" in told:
        return (calls_text([_in_quotes(call) for call in calls]),)
    if which == "left open":
        return (calls_text(calls).removesuffix("</tool_call>"),)
    if which == "wrong box":
        name, arguments = calls[0]
        first = next(iter(arguments))
        other = arguments[first] + 1
        return (calls_text([(name, {**arguments, first: other}), *calls[1:]]),)
    if which == "nothing called":
        return (DONE,)
    return typical(kind, told, boxes)


def _in_quotes(call: Call) -> Call:
    name, arguments = call
    return name, {key: str(value) for key, value in arguments.items()}


def done(kind: Kind, told: Told, right: float, rng: random.Random) -> tuple[str, ...]:
    """The question and one pupil's transcript, which is right with the probability `right`."""
    question, boxes = prompt(kind, told, rng), fill(told, rng)
    if rng.random() < right:
        return question, *transcript(kind.solve(told, boxes))
    often = max(0.0, 1.0 - right - sum(ANYWHERE.values()))
    (which,) = rng.choices([*ANYWHERE, ""], [*ANYWHERE.values(), often])
    return question, *slip(kind, told, boxes, which)


def conversations(seed: int, right: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """Endless transcripts, the question first, every kind as often as the others.

    Args:
        seed: Seed of the draw.
        right: Share of right ones by kind; a kind that is not named is always done rightly.
    """
    rng = random.Random(seed)
    drawn = [(kind, problems(kind, "train", rng)) for kind in KINDS]
    while True:
        kind, tellings = rng.choice(drawn)
        yield done(kind, next(tellings), right.get(kind.name, 1.0), rng)


def slips() -> list[str]:
    """Slips of every kind, so that the tokenizer knows their words too."""
    rng = random.Random(0)
    drawn = [(kind, problems(kind, "train", rng)) for kind in KINDS]
    return ["".join(done(kind, next(tellings), 0.0, rng)[1:]) for kind, tellings in drawn for _ in range(200)]
