"""The procedural task: every gold is right, the splits are disjoint, and the data never change by themselves."""

from __future__ import annotations

import hashlib
from collections import Counter
from fractions import Fraction

from rlvr_tasks.math import KINDS, PER_KIND, load, split_of


def test_the_same_version_is_the_same_data() -> None:
    text = "\n".join(f"{s.id}|{s.prompt}|{s.answer}" for s in [*load("train"), *load("test")])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "116ef1354bcfb42d", (
        "raise the task's version with its data"
    )


def test_no_problem_is_in_both_splits_in_any_wording() -> None:
    train, test = load("train"), load("test")
    assert not {s.id for s in train} & {s.id for s in test}
    assert not {(s.meta["kind"], *s.meta["numbers"]) for s in train} & {
        (s.meta["kind"], *s.meta["numbers"]) for s in test
    }
    assert len({s.id for s in train}) == len(train)
    for kind in KINDS:
        assert {split_of(kind.name, numbers) for numbers in kind.space} == {"train", "test"}


def test_every_level_is_there() -> None:
    for split in ("train", "test"):
        counts = Counter(s.meta["level"] for s in load(split))  # type: ignore[arg-type]
        assert set(counts) == set(range(1, 8))
        assert max(counts.values()) <= PER_KIND[split]


def test_golds_are_right_by_another_route() -> None:
    for sample in load("test"):
        n = sample.meta["numbers"]
        right = {
            "sum": lambda n: sum(n),
            "long-sum": lambda n: sum(n),
            "difference": lambda n: n[0] - n[1],
            "product": lambda n: sum(n[0] for _ in range(n[1])),
            "percent": lambda n: Fraction(n[0], 100) * n[1],
            "fraction": lambda n: Fraction(n[0] * n[3] + n[2] * n[1], n[1] * n[3]),
            "equation": lambda n: next(x for x in range(100) if n[0] * x + n[1] == n[2]),
        }[sample.meta["kind"]](n)
        assert sample.answer == str(right)
        assert all(str(number) in str(sample.prompt) for number in n)
