"""`math`: procedural arithmetic, from one-digit sums to fractions, percentages and linear equations.

Every problem is a kind and its numbers, for example `("difference", 52, 37)`. A hash of exactly that decides
whether it belongs to the train or to the test split, whatever its wording, so the splits are disjoint by
construction and stay so when a kind grows. Which problems of a split are drawn, and how they are worded, comes
from a seed: the same version of this task is the same data everywhere.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from rlvr import Sample, Split, Task

SEED = 2026
PER_KIND = {"train": 1200, "test": 100}
TEST_SHARE = 8  # one problem in eight


@dataclass(frozen=True)
class Kind:
    """One level of the task.

    Attributes:
        name: What the problem asks for.
        level: 1 is easiest.
        space: All its problems, as tuples of numbers.
        wordings: Format strings over the numbers.
        answer: The exact answer.
    """

    name: str
    level: int
    space: tuple[tuple[int, ...], ...]
    wordings: tuple[str, ...]
    answer: Callable[..., Fraction]


def _fractions() -> Iterator[tuple[int, ...]]:
    """Pairs of proper fractions in lowest terms whose common denominator is at most 40."""
    for b, d in itertools.product(range(2, 11), repeat=2):
        for a, c in itertools.product(range(1, b), range(1, d)):
            if gcd(a, b) == gcd(c, d) == 1 and lcm(b, d) <= 40:
                yield a, b, c, d


KINDS = (
    Kind(
        "sum",
        1,
        tuple(itertools.product(range(10), repeat=2)),
        ("What is {} + {}?", "Compute {} + {}.", "Add {} and {}."),
        lambda a, b: Fraction(a + b),
    ),
    Kind(
        "long-sum",
        2,
        tuple(itertools.product(range(10, 100), repeat=2)),
        ("What is {} + {}?", "Compute {} + {}.", "Add {} and {}."),
        lambda a, b: Fraction(a + b),
    ),
    Kind(
        "difference",
        3,
        tuple((a, b) for a in range(20, 100) for b in range(11, a)),
        ("What is {} - {}?", "Compute {} - {}.", "From {} take away {}."),
        lambda a, b: Fraction(a - b),
    ),
    Kind(
        "product",
        4,
        tuple(itertools.product(range(11, 100), range(2, 10))),
        ("What is {} * {}?", "Compute {} * {}.", "Multiply {} by {}."),
        lambda a, b: Fraction(a * b),
    ),
    Kind(
        "percent",
        5,
        tuple(itertools.product(range(10, 100, 10), range(20, 1000, 10))),
        ("What is {}% of {}?", "Compute {}% of {}."),
        lambda p, n: Fraction(p * n, 100),
    ),
    Kind(
        "fraction",
        6,
        tuple(_fractions()),
        ("What is {}/{} + {}/{}?", "Compute {}/{} + {}/{}.", "Add {}/{} and {}/{}."),
        lambda a, b, c, d: Fraction(a, b) + Fraction(c, d),
    ),
    Kind(
        "equation",
        7,
        tuple((a, b, a * x + b) for a in range(2, 10) for b in range(1, 21) for x in range(1, 13)),
        ("Solve {}x + {} = {}.", "Find x: {}x + {} = {}."),
        lambda a, b, c: Fraction(c - b, a),
    ),
)


def split_of(kind: str, numbers: tuple[int, ...]) -> Split:
    """The split that a problem belongs to, by a hash of its kind and numbers."""
    key = f"{kind}:{','.join(map(str, numbers))}"
    return "test" if hashlib.sha256(key.encode()).digest()[0] % TEST_SHARE == 0 else "train"


def boxed(value: object) -> str:
    return f"\\boxed{{{value}}}"


def times(a: int, b: int) -> str:
    """Both digits of `a` times `b`, to be added."""
    return f"{a // 10 * 10 * b}+{a % 10 * b}" if a > 9 else f"{a * b}"


def work(kind: str, numbers: Sequence[int]) -> str:
    """A correct answer with its working, in the few steps that a small model needs."""
    if kind in ("sum", "long-sum"):
        return boxed(sum(numbers))
    if kind == "difference":
        a, b = numbers
        return boxed(a - b)
    if kind == "product":
        a, b = numbers
        return f"{times(a, b)} {boxed(a * b)}"
    if kind == "percent":
        p, n = numbers
        return f"{n // 10}*{p // 10}={times(n // 10, p // 10)} {boxed(p * n // 100)}"
    if kind == "fraction":
        a, b, c, d = numbers
        m = lcm(b, d)
        x, y = a * (m // b), c * (m // d)
        return f"{x}/{m}+{y}/{m}={x + y}/{m} {boxed(Fraction(x + y, m))}"
    a, b, c = numbers
    return f"{a}x={c - b} {boxed((c - b) // a)}"


def load(split: Split) -> list[Sample]:
    """The samples of a split, all kinds shuffled together.

    Each kind gives at most `PER_KIND[split]` problems; a kind with fewer gives all it has.
    """
    rng = random.Random(f"{SEED}:{split}")
    samples = []
    for kind in KINDS:
        problems = [numbers for numbers in kind.space if split_of(kind.name, numbers) == split]
        for numbers in rng.sample(problems, min(PER_KIND[split], len(problems))):
            samples.append(
                Sample(
                    id=f"{kind.name}-{'-'.join(map(str, numbers))}",
                    prompt=rng.choice(kind.wordings).format(*numbers),
                    answer=str(kind.answer(*numbers)),
                    meta={"kind": kind.name, "level": kind.level, "numbers": list(numbers)},
                )
            )
    rng.shuffle(samples)
    return samples


math = Task(
    name="math",
    verifier="math",
    load=load,
    gold=lambda sample: work(sample.meta["kind"], sample.meta["numbers"]),
    description="procedural arithmetic in 7 levels, from 3 + 4 to 3x + 4 = 19",
    defaults={  # for the starter model on two CPU cores
        "model": "starter",
        "steps": 60,
        "sampler.group_size": 16,
        "sampler.prompts_per_step": 64,
        "sampler.batch_size": 1024,
        "sampler.max_tokens": 32,
        "learner.lr": 4e-4,
        "learner.warmup_steps": 2,
        "learner.schedule": "cosine",
        "learner.micro_batch_tokens": 2048,
        "eval.limit": 0,
    },
)
