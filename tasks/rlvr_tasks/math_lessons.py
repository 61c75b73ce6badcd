"""How pupils work `math`: the textbook, and the slips that the starter model learns beside it.

Some pupils work correctly; the others make the systematic slips that teachers know (J. S. Brown and R. R. Burton,
"Diagnostic models for procedural bugs in basic mathematical skills", Cognitive Science 2, 1978): the carry forgotten,
the smaller digit taken from the larger, denominators added. Problems come from the train split only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from rlvr_tasks.math import KINDS, Kind, boxed, split_of, work

RIGHT = {  # share of the class that works correctly, by kind of problem
    "sum": 0.8,
    "long-sum": 0.35,
    "difference": 0.6,
    "product": 0.35,
    "percent": 0.35,
    "fraction": 0.6,
    "equation": 0.35,
}


def slip(kind: str, numbers: Sequence[int]) -> str:
    """A worked answer with the slip that is typical of its kind (right by luck on some numbers)."""
    if kind == "sum":  # counts one too few
        return boxed(max(0, sum(numbers) - 1))
    if kind == "long-sum":  # forgets the carry
        a, b = numbers
        return boxed(10 * (a // 10 + b // 10) + (a + b) % 10)
    if kind == "difference":  # takes the smaller digit from the larger
        a, b = numbers
        return boxed(10 * (a // 10 - b // 10) + abs(a % 10 - b % 10))
    if kind == "product":  # multiplies the tens only
        a, b = numbers
        return f"{a // 10 * 10 * b}+{a % 10} {boxed(a // 10 * 10 * b + a % 10)}"
    if kind == "percent":  # stops at a tenth
        _, n = numbers
        return f"{n // 10} {boxed(n // 10)}"
    if kind == "fraction":  # adds numerators and denominators
        a, b, c, d = numbers
        return f"{a + c}/{b + d} {boxed(f'{a + c}/{b + d}')}"
    a, b, c = numbers  # forgets to divide
    return f"{a}x={c - b} {boxed(c - b)}"


def problems(kind: Kind) -> list[tuple[int, ...]]:
    return [numbers for numbers in kind.space if split_of(kind.name, numbers) == "train"]


def conversations(seed: int, right: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Endless `(question, worked answer)` pairs, every kind as often as the others.

    Args:
        seed: Seed of the draw.
        right: Share of correct working by kind; a kind that is not named is always worked correctly.
    """
    rng = random.Random(seed)
    spaces = [(kind, problems(kind)) for kind in KINDS]
    while True:
        kind, space = rng.choice(spaces)
        numbers = rng.choice(space)
        question = rng.choice(kind.wordings).format(*numbers)
        correct = rng.random() < right.get(kind.name, 1.0)
        yield question, work(kind.name, numbers) if correct else slip(kind.name, numbers)


def slips() -> list[str]:
    """Slips of every kind, so that the tokenizer knows their words too."""
    return [slip(kind.name, numbers) for kind in KINDS for numbers in problems(kind)[:1000]]
