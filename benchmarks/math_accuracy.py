"""Accuracy and speed of the `math` verifier on labelled answers, beside Math-Verify's when that is installed.

    python benchmarks/math_accuracy.py ROWS.jsonl

A row is an object with `gold`, `prediction` and `expected` (a boolean). The prediction is put in a box unless the row
says `"form": "response"`. With `"core": false` the label is a convention of one data set; such rows are counted apart.
Each verifier is called in this process, rows that it has not seen first. The speed is the best of three more passes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlvr import Completion, Sample, Status
from rlvr.accuracy import wilson
from rlvr.registry import registry

PASSES = 3

Passes = Callable[[str, str], bool]


class Row(NamedTuple):
    """A reference, a completion, and whether it is right."""

    gold: str
    completion: str
    expected: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="a JSONL file")
    groups = read(parser.parse_args().rows)
    print("| rows | verifier | n | accuracy | wrong accepted | right refused | rows per second |")
    print("|---|---|---|---|---|---|---|")
    for name, passes in verifiers().items():
        for group, rows in groups.items():
            print(f"| {group} | {name} | " + " | ".join(measured(passes, rows)) + " |")


def read(file: Path) -> dict[str, list[Row]]:
    """The rows of a file: the core, and those apart from it."""
    groups: dict[str, list[Row]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        prediction = row["prediction"]
        completion = prediction if row.get("form") == "response" else f"\\boxed{{{prediction}}}"
        group = "core" if row.get("core", True) else "conventions"
        groups.setdefault(group, []).append(Row(row["gold"], completion, row["expected"]))
    return groups


def verifiers() -> dict[str, Passes]:
    """What is measured, by name."""
    math = registry().verifier("math")

    def ours(gold: str, completion: str) -> bool:
        verdict = math(Completion(completion), Sample("row", answer=gold))
        return getattr(verdict, "status", None) is Status.PASSED

    found: dict[str, Passes] = {"rlvr `math`": ours}
    try:
        import math_verify
    except ImportError:
        return found

    def theirs(gold: str, completion: str) -> bool:
        return bool(math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(completion)))

    return found | {"Math-Verify": theirs}


def measured(passes: Passes, rows: Sequence[Row]) -> list[str]:
    """The cells of one line."""
    said = [passes(row.gold, row.completion) for row in rows]
    right = sum(passed == row.expected for passed, row in zip(said, rows, strict=True))
    accepted = sum(passed and not row.expected for passed, row in zip(said, rows, strict=True))
    refused = sum(row.expected and not passed for passed, row in zip(said, rows, strict=True))
    low, high = wilson(right, len(rows))
    wrong = sum(not row.expected for row in rows)
    best = min(seconds(passes, rows) for _ in range(PASSES))
    return [
        f"{len(rows)}",
        f"{right / len(rows):.1%} [{low:.1%}, {high:.1%}]",
        f"{accepted} of {wrong}",
        f"{refused} of {len(rows) - wrong}",
        f"{len(rows) / best:,.0f}",
    ]


def seconds(passes: Passes, rows: Sequence[Row]) -> float:
    """How long one pass over the rows takes."""
    start = time.perf_counter()
    for row in rows:
        passes(row.gold, row.completion)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
