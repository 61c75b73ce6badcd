"""`code`: small procedural programming problems with hidden tests, from `3 * x + 7` to a loop.

Every problem is a kind and its two numbers, for example `("slice", 3, 8)`. A hash of exactly that decides whether it
belongs to the train or to the test split, whatever its wording and the names in it, so the splits are disjoint by
construction. Which problems of a split are drawn, their wording, names and test values come from a seed: the same
version of this task is the same data everywhere. What a right function returns is computed here, by another route than
the reference solution's text, which nothing here runs.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlvr import Sample, Split, Task

SEED = 2026
PER_KIND = {"train": 240, "test": 30}
TEST_SHARE = 8  # one problem in eight
TESTS = 5
TIMEOUT = 2.0  # seconds for all tests of a program

FUNCTIONS = ("f", "g", "h", "solve", "answer", "compute")
PARAMETERS = {"number": ("x", "n", "k"), "list": ("xs", "ys", "data"), "word": ("s", "t", "word")}


@dataclass(frozen=True)
class Kind:
    """One kind of problem, with two numbers `a` and `b` in it.

    Attributes:
        name: What the problem is about.
        level: 1 is easiest.
        takes: What the function is called with.
        space: All its problems.
        wordings: What it shall return, as format strings over `v` (the parameter's name), `a` and `b`.
        body: A right function's body, as a format string over those and `before` (`a - 1`). Lines are indented by
            four spaces more than here.
        value: What a right function returns: `value(argument, a, b)`.
        probes: Arguments that tell right from nearly right: `probes(a, b)`.
    """

    name: str
    level: int
    takes: Literal["number", "list", "word"]
    space: tuple[tuple[int, int], ...]
    wordings: tuple[str, ...]
    body: str
    value: Callable[[Any, int, int], Any]
    probes: Callable[[int, int], list[Any]]


def _grow(limit: int, factor: int, start: int) -> int:
    """The first of start, start * factor, start * factor ** 2, ... that is above the limit."""
    return next(start * factor**n for n in range(limit + 2) if start * factor**n > limit)


def _pairs(first: Sequence[int], second: Sequence[int], fit: Callable[[int, int], bool]) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a in first for b in second if fit(a, b))


KINDS = (
    Kind(
        "line",
        1,
        "number",
        _pairs(range(2, 13), range(1, 41), lambda a, b: True),
        ("{a} times {v} plus {b}", "{v} times {a}, plus {b}"),
        "return {a} * {v} + {b}",
        lambda x, a, b: a * x + b,
        lambda a, b: [0, b],
    ),
    Kind(
        "over",
        2,
        "number",
        _pairs(range(1, 31), range(1, 31), lambda a, b: a != b),
        ("{v} minus {a} if {v} is over {b}, else 0", "0, or {v} minus {a} if {v} is over {b}"),
        "return {v} - {a} if {v} > {b} else 0",
        lambda x, a, b: 0 if x <= b else x - a,
        lambda a, b: [b, b + 1, a - 1],
    ),
    Kind(
        "clamp",
        2,
        "number",
        _pairs(range(21), range(2, 41), lambda a, b: b > a + 1),
        ("{v}, but at least {a} and at most {b}", "{v} kept within {a} and {b}"),
        "return max({a}, min({v}, {b}))",
        lambda x, a, b: sorted([a, x, b])[1],
        lambda a, b: [a - 3, a + 1, b + 2],
    ),
    Kind(
        "divides",
        2,
        "number",
        _pairs(range(2, 13), range(3, 31), lambda a, b: a < b and b % a != 0),
        ("whether {a} or {b} divides {v}", "whether {v} is a multiple of {a} or {b}"),
        "return {v} % {a} == 0 or {v} % {b} == 0",
        lambda x, a, b: x in range(0, x + 1, a) or x in range(0, x + 1, b),
        lambda a, b: [a, b, a * b, a * b + 1],
    ),
    Kind(
        "slice",
        3,
        "list",
        _pairs(range(1, 13), range(2, 25), lambda a, b: a < b),
        ("items {a} to {b} of {v}, from 1", "the part of {v} from item {a} to {b}"),
        "return {v}[{before}:{b}]",
        lambda items, a, b: [item for place, item in enumerate(items, 1) if a <= place <= b],
        lambda a, b: [list(range(30)), list(range(50, 50 + b)), [7] * (a + 1)],
    ),
    Kind(
        "repeat",
        3,
        "word",
        _pairs(range(2, 13), range(2, 21), lambda a, b: True),
        ("the first {a} letters of {v}, {b} times", "{b} times the first {a} letters of {v}"),
        "return {v}[:{a}] * {b}",
        lambda word, a, b: "".join(letter for _ in range(b) for _, letter in zip(range(a), word, strict=False)),
        lambda a, b: ["abcdefghijklmnop", "no"],
    ),
    Kind(
        "between",
        3,
        "list",
        _pairs(range(21), range(3, 41), lambda a, b: b > a + 2),
        ("how many of {v} are above {a} and below {b}", "how many of {v} lie between {a} and {b}"),
        "return sum({a} < x < {b} for x in {v})",
        lambda items, a, b: len([item for item in items if item in range(a + 1, b)]),
        lambda a, b: [[a, a + 1, b - 1, b], [a - 1, a, b, b + 1, a + 2], []],
    ),
    Kind(
        "keep",
        4,
        "list",
        _pairs(range(2, 13), range(1, 41), lambda a, b: True),
        ("the items of {v} that {a} divides, plus {b}", "multiples of {a} in {v}, plus {b} each"),
        "return [x + {b} for x in {v} if x % {a} == 0]",
        lambda items, a, b: [item + b for item in items if item // a * a == item],
        lambda a, b: [[a, a + 1, 2 * a, 5 * a - 1], [0, 1, 6 * a]],
    ),
    Kind(
        "total",
        4,
        "number",
        _pairs(range(1, 21), range(2, 21), lambda a, b: True),
        ("{b} times the sum of {a} to {v}", "the sum of {a} to {v}, times {b}"),
        "return {b} * sum(range({a}, {v} + 1))",
        lambda x, a, b: b * (x + a) * (x - a + 1) // 2 if x >= a else 0,
        lambda a, b: [a, a + 1, a + 7],
    ),
    Kind(
        "grow",
        5,
        "number",
        _pairs(range(2, 10), range(1, 31), lambda a, b: True),
        ("{b} times {a} until it is above {v}", "start at {b}, times {a} until above {v}"),
        "p = {b}\nwhile p <= {v}:\n    p *= {a}\nreturn p",
        lambda x, a, b: _grow(x, a, b),
        lambda a, b: [b - 1, b * a, b * a * a + 1],
    ),
)


def split_of(kind: str, numbers: tuple[int, int]) -> Split:
    """The split that a problem belongs to, by a hash of its kind and numbers."""
    key = f"{kind}:{','.join(map(str, numbers))}"
    return "test" if hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def problems(kind: Kind, split: Split) -> list[tuple[int, int]]:
    """All problems of a kind that belong to a split."""
    return [numbers for numbers in kind.space if split_of(kind.name, numbers) == split]


def names(kind: Kind, rng: random.Random) -> tuple[str, str]:
    """What the function and its parameter are called this time."""
    return rng.choice(FUNCTIONS), rng.choice(PARAMETERS[kind.takes])


def prompt(kind: Kind, numbers: tuple[int, int], function: str, parameter: str, rng: random.Random) -> str:
    a, b = numbers
    return f"Write {function}({parameter}): {rng.choice(kind.wordings).format(v=parameter, a=a, b=b)}."


def program(function: str, parameter: str, body: str, numbers: tuple[int, int]) -> str:
    """A function with a body as in `Kind.body`."""
    a, b = numbers
    filled = body.format(v=parameter, a=a, b=b, before=a - 1)
    return f"def {function}({parameter}):\n    " + filled.replace("\n", "\n    ")


def make_tests(kind: Kind, numbers: tuple[int, int], function: str, rng: random.Random) -> list[str]:
    """Asserts over the kind's probes and as many drawn arguments as make `TESTS`, in any order."""
    arguments = kind.probes(*numbers)
    arguments += [_argument(kind.takes, rng) for _ in range(TESTS - len(arguments))]
    rng.shuffle(arguments)
    return [f"assert {function}({argument!r}) == {kind.value(argument, *numbers)!r}" for argument in arguments]


def _argument(takes: str, rng: random.Random) -> Any:
    if takes == "number":
        return rng.randint(1, 60)
    if takes == "list":
        return [rng.randint(0, 45) for _ in range(rng.randint(5, 15))]
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(5, 15)))


def load(split: Split) -> list[Sample]:
    """The samples of a split, all kinds shuffled together.

    Each kind gives at most `PER_KIND[split]` problems; a kind with fewer gives all it has.
    """
    rng = random.Random(f"{SEED}:{split}")
    samples = []
    for kind in KINDS:
        space = problems(kind, split)
        for numbers in rng.sample(space, min(PER_KIND[split], len(space))):
            function, parameter = names(kind, rng)
            samples.append(
                Sample(
                    id=f"{kind.name}-{'-'.join(map(str, numbers))}",
                    prompt=prompt(kind, numbers, function, parameter, rng),
                    answer=program(function, parameter, kind.body, numbers),
                    meta={
                        "kind": kind.name,
                        "level": kind.level,
                        "numbers": list(numbers),
                        "tests": make_tests(kind, numbers, function, rng),
                    },
                )
            )
    rng.shuffle(samples)
    return samples


code = Task(
    name="code",
    verifier="code",
    load=load,
    description="small Python functions in 5 levels, from 3 * x + 7 to a loop, with hidden tests",
    verifier_options={"timeout": TIMEOUT},
    defaults={  # for its starter model on two CPU cores
        "model": "starter-code",
        "steps": 20,
        "sampler.group_size": 16,
        "sampler.prompts_per_step": 32,
        "sampler.batch_size": 1024,
        "sampler.max_tokens": 40,
        "learner.lr": 4e-4,
        "learner.warmup_steps": 2,
        "learner.schedule": "cosine",
        "learner.micro_batch_tokens": 2048,
        "eval.limit": 0,
    },
)
