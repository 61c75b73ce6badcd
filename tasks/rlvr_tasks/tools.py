"""`tools`: calls of four small tools that count, fill, empty and pour boxes, from one call to one that needs another.

Every problem is a kind and what it tells, for example `("put", {"box": 472, "number": 12})`. A hash of exactly that
decides whether it belongs to the train or to the test split, whatever its wording and what is in the boxes, so the
splits are disjoint by construction. Which problems are drawn, their wording and the boxes' contents come from a seed:
the same version of this task is the same data everywhere.

The tools are Python source that a sandbox runs with the model's arguments. What the boxes hold in the end is computed
here, by arithmetic on the problem's numbers, and not by running that source.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr import Sample, Split, Task

SEED = 2026
PER_KIND = {"train": 240, "test": 30}
TEST_SHARE = 8  # one problem in eight
TURNS = 2
MOST = 49  # that are put or taken; every box holds more at first

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ian", "Kim")
DONE = "Done."
"""What is said when there is nothing to say."""

SOURCE = """BOXES = {boxes}


def count(box):
    return BOXES[box]


def put(box, number):
    BOXES[box] += number
    return BOXES[box]


def take(box, number):
    if number > BOXES[box]:
        raise ValueError("there are not so many")
    BOXES[box] -= number
    return BOXES[box]


def move(source, target):
    BOXES[target] += BOXES[source]
    BOXES[source] = 0
    return BOXES[target]
"""


def _tool(name: str, description: str, **parameters: Mapping[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": parameters,
        "required": [*parameters],
        "additionalProperties": False,
    }
    return {"name": name, "description": description, "parameters": schema}


BOX = {"type": "integer", "minimum": 100, "maximum": 999}
NUMBER = {"type": "integer", "minimum": 1}
TOOLS = (
    _tool("count", "Tells how many balls are in a box.", box=BOX),
    _tool("put", "Puts balls into a box and tells how many are in it then.", box=BOX, number=NUMBER),
    _tool("take", "Takes balls out of a box and tells how many are left in it.", box=BOX, number=NUMBER),
    _tool("move", "Moves all balls of a box into another and tells how many are in that then.", source=BOX, target=BOX),
)

Boxes = dict[int, int]
Call = tuple[str, dict[str, Any]]
Told = dict[str, Any]


@dataclass(frozen=True)
class Solution:
    """A right way to solve a problem.

    Attributes:
        rounds: The calls of each turn that has some, in order.
        results: What they return.
        says: What the last turn says, where a turn follows the last call.
        after: What the boxes hold in the end.
    """

    rounds: tuple[tuple[Call, ...], ...]
    results: tuple[tuple[int, ...], ...]
    says: str
    after: Boxes


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Attributes:
        name: What is to be done.
        level: 1 is easiest.
        judged: What success is told by: the last call's `result`, the `end_state`, the `answer`; without the first
            two, by the results and the state after the expected calls.
        draw: Draws what the problem tells.
        wordings: Format strings over that.
        solve: `solve(told, boxes)`: a right solution when the boxes hold this.
    """

    name: str
    level: int
    judged: tuple[str, ...]
    draw: Callable[[random.Random], Told]
    wordings: tuple[str, ...]
    solve: Callable[[Told, Boxes], Solution]


def _labels(rng: random.Random, count: int) -> list[int]:
    """Numbers of boxes, all different."""
    return rng.sample(range(100, 1000), count)


def _draw_one(rng: random.Random) -> Told:
    return {"box": _labels(rng, 1)[0], "number": rng.randint(2, MOST)}


def _draw_two(rng: random.Random) -> Told:
    return dict(zip(("box", "other"), _labels(rng, 2), strict=True))


def _draw_chain(rng: random.Random) -> Told:
    first, then = "put {number} into box {box}", "move all of box {box} to box {other}"
    steps = [first, then] if rng.random() < 0.5 else [then, first]
    told = _draw_two(rng) | {"number": rng.randint(2, MOST)}
    return told | {"first": steps[0].format(**told), "then": steps[1].format(**told)}


def _put(told: Told, boxes: Boxes) -> Solution:
    box, number = told["box"], told["number"]
    total = boxes[box] + number
    return Solution(((("put", {"box": box, "number": number}),),), ((total,),), DONE, {**boxes, box: total})


def _take(told: Told, boxes: Boxes) -> Solution:
    box, number = told["box"], told["number"]
    left = boxes[box] - number
    return Solution(((("take", {"box": box, "number": number}),),), ((left,),), DONE, {**boxes, box: left})


def _count(told: Told, boxes: Boxes) -> Solution:
    box = told["box"]
    return Solution(((("count", {"box": box}),),), ((boxes[box],),), str(boxes[box]), boxes)


def _plain(told: Told, boxes: Boxes) -> Solution:
    return Solution((), (), str(told["number"]), boxes)


def _pair(told: Told, boxes: Boxes) -> Solution:
    given = ((told["box"], told["number"]), (told["other"], told["more"]))
    calls = tuple(("put", {"box": box, "number": number}) for box, number in given)
    totals = {box: boxes[box] + number for box, number in given}
    return Solution((calls,), (tuple(totals.values()),), DONE, boxes | totals)


def _chain(told: Told, boxes: Boxes) -> Solution:
    box, other, number = told["box"], told["other"], told["number"]
    put: Call = ("put", {"box": box, "number": number})
    move: Call = ("move", {"source": box, "target": other})
    held, both = boxes[box], boxes[box] + boxes[other]
    if told["first"].startswith("put"):
        return Solution(
            ((put, move),), ((held + number, both + number),), DONE, {**boxes, box: 0, other: both + number}
        )
    return Solution(((move, put),), ((both, number),), DONE, {**boxes, box: number, other: both})


def _clear(told: Told, boxes: Boxes) -> Solution:
    box = told["box"]
    calls = (("count", {"box": box}),), (("take", {"box": box, "number": boxes[box]}),)
    return Solution(calls, ((boxes[box],), (0,)), "", {**boxes, box: 0})


def _match(told: Told, boxes: Boxes) -> Solution:
    box, other = told["box"], told["other"]
    total = boxes[box] + boxes[other]
    calls = (("count", {"box": box}),), (("put", {"box": other, "number": boxes[box]}),)
    return Solution(calls, ((boxes[box],), (total,)), "", {**boxes, other: total})


def _fuller(told: Told, boxes: Boxes) -> Solution:
    asked = told["box"], told["other"]
    calls = tuple(("count", {"box": box}) for box in asked)
    held = tuple(boxes[box] for box in asked)
    return Solution((calls,), (held,), "yes" if held[0] > held[1] else "no", boxes)


KINDS = (
    Kind(
        "put",
        1,
        ("result",),
        _draw_one,
        ("Put {number} into box {box}.", "{number} more into box {box}, please."),
        _put,
    ),
    Kind(
        "take",
        1,
        ("result",),
        _draw_one,
        ("Take {number} out of box {box}.", "{number} less in box {box}, please."),
        _take,
    ),
    Kind(
        "plain",
        1,
        ("answer",),
        lambda rng: {"name": rng.choice(NAMES), "number": rng.randint(2, 99)},
        ("{name} has {number} balls. How many has {name}?", "There were {number} when {name} came. How many?"),
        _plain,
    ),
    Kind(
        "count",
        2,
        ("result", "answer"),
        lambda rng: {"box": _labels(rng, 1)[0]},
        ("How many are in box {box}?", "Count box {box}."),
        _count,
    ),
    Kind(
        "pair",
        2,
        ("end_state",),
        lambda rng: _draw_one(rng) | _draw_two(rng) | {"more": rng.randint(2, MOST)},
        (
            "Put {number} into box {box} and {more} into box {other}.",
            "{number} more into box {box}, {more} into box {other}.",
        ),
        _pair,
    ),
    Kind("chain", 3, ("end_state",), _draw_chain, ("First {first}, then {then}.", "Now {first}; next {then}."), _chain),
    Kind(
        "clear",
        4,
        ("end_state",),
        lambda rng: {"box": _labels(rng, 1)[0]},
        ("Take all out of box {box}.", "Clear box {box}."),
        _clear,
    ),
    Kind(
        "match",
        4,
        ("end_state",),
        _draw_two,
        ("Put as many into box {other} as are in box {box}.", "As many as box {box} has, put into box {other}."),
        _match,
    ),
    Kind(
        "fuller",
        5,
        ("answer",),
        _draw_two,
        ("Has box {box} more than box {other}?", "Is box {box} fuller than box {other}?"),
        _fuller,
    ),
)


def split_of(kind: str, told: Told) -> Split:
    """The split that a problem belongs to, by a hash of its kind and what it tells."""
    key = f"{kind}:{json.dumps(told, sort_keys=True)}"
    return "test" if hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def problems(kind: Kind, split: Split, rng: random.Random) -> Iterator[Told]:
    """Problems of a kind that belong to a split, without end; some come again."""
    while True:
        told = kind.draw(rng)
        if split_of(kind.name, told) == split:
            yield told


def fill(told: Told, rng: random.Random) -> Boxes:
    """What the boxes hold at first: those that the problem tells of and others, in any order."""
    named = [told[key] for key in ("box", "other") if key in told]
    others = [label for label in _labels(rng, 4) if label not in named]
    held = rng.sample(range(MOST + 1, 100), len(named + others))
    boxes = list(zip(named + others, held, strict=True))
    return dict(rng.sample(boxes, len(boxes)))


def prompt(kind: Kind, told: Told, rng: random.Random) -> str:
    return rng.choice(kind.wordings).format(**told)


def calls_text(calls: Sequence[Call]) -> str:
    """Calls as the starter model writes them: JSON in tags, one after the other."""
    return "".join(
        f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, separators=(',', ':'))}</tool_call>"
        for name, arguments in calls
    )


def load(split: Split) -> list[Sample]:
    """The samples of a split, `PER_KIND[split]` of each kind, all kinds shuffled together."""
    rng = random.Random(f"{SEED}:{split}")
    samples = []
    for kind in KINDS:
        chosen: dict[str, Told] = {}
        for told in problems(kind, split, rng):
            chosen[json.dumps(told)] = told
            if len(chosen) == PER_KIND[split]:
                break
        samples += [sample_of(kind, told, fill(told, rng), rng) for told in chosen.values()]
    rng.shuffle(samples)
    return samples


def sample_of(kind: Kind, told: Told, boxes: Boxes, rng: random.Random) -> Sample:
    """The sample for a problem, when the boxes hold this."""
    solution = kind.solve(told, boxes)
    results = [result for turn in solution.results for result in turn]
    success: dict[str, Any] = {}
    if "result" in kind.judged:
        success["result"] = results[-1]
    if "end_state" in kind.judged:
        success["end_state"] = {"BOXES": {str(box): held for box, held in solution.after.items()}}
    return Sample(
        id="-".join([kind.name, *(str(value).replace(" ", "-") for value in told.values())]),
        prompt=prompt(kind, told, rng),
        answer=solution.says if "answer" in kind.judged else None,
        meta={
            "kind": kind.name,
            "level": kind.level,
            "told": told,
            "tools": list(TOOLS),
            "implementation": SOURCE.format(boxes=boxes),
            "calls": [{"name": name, "arguments": arguments} for turn in solution.rounds for name, arguments in turn],
            **success,
        },
    )


tools = Task(
    name="tools",
    verifier="tool-call",
    load=load,
    description="calls of four small tools in 5 levels, from one call to one that needs another's result",
    turns=TURNS,
    show_tools=True,
    defaults={  # for its starter model on two CPU cores
        "model": "starter-tools",
        "steps": 20,
        "sampler.group_size": 16,
        "sampler.prompts_per_step": 32,
        "sampler.batch_size": 1024,
        "sampler.max_tokens": 96,
        "learner.lr": 4e-4,
        "learner.warmup_steps": 2,
        "learner.schedule": "cosine",
        "learner.micro_batch_tokens": 2048,
        "eval.limit": 0,
    },
)
