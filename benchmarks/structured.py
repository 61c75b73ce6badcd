"""The `json-schema` and `tool-call` verifiers beside the plain library calls: `make bench-structured`.

    python benchmarks/structured.py [--rounds N] [--out FILE.md]

Rows: objects for four schemas (a tool call, an invoice, a résumé with `$ref`, a GeoJSON feature with `oneOf`), each
once as the whole completion, once in a fence with prose around, and once with one thing wrong; and calls of tools, one
or three at a time, out of lists of three to five tools, in three formats.

All of it on one core, in interleaved rounds. rlvr runs as it does in training, through the scorer's batch path with a
worker of its own, eight completions of a sample in a row, everything that it sends and receives included: completion,
schema or tools, and verdict. The others are called directly, on bare JSON that they need not look for:

    validate()     `json.loads`, then `jsonschema.validate`, which checks the schema anew in each call
    kept           `json.loads`, then a `jsonschema` validator that is made once for each schema
    jsonschema_rs  `json.loads`, then a `jsonschema_rs` validator that is made once for each schema

For tool calls that is done for the arguments of each call, which are then compared with the expected ones by `==`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs

sys.path.insert(0, str(Path(__file__).parent))
from structured_rows import Row, Schema, Set, sets

from rlvr import Completion, Sample, Scorer, Verdict

ROUNDS = 7
TURN = 8_000  # rows that rlvr and the fast validators do in one round, over and over
GROUP = 8  # completions of a sample that are verified in a row, as in training
SEED = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="a file to write the table to, besides printing it")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = ("rlvr", "jsonschema", "jsonschema-rs", "google-re2")
    lines = [
        "# Structured verifiers beside the plain library calls",
        "",
        "Made by `make bench-structured`; `benchmarks/structured.py` says what is measured. One core; checks a second",
        f"are medians of {arguments.rounds} interleaved rounds, ratios medians of theirs (above 1: rlvr is faster).",
        "",
        f"{date.today()}, {hardware()}",
        "",
        ", ".join(f"{name} {metadata.version(name)}" for name in names),
        "",
    ]
    print(*lines, sep="\n")
    for line in table(list(sets(random.Random(SEED))), arguments.rounds):
        print(line, flush=True)
        lines.append(line)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def hardware() -> str:
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    return f"one of {os.cpu_count()} cores of {model}, Python {platform.python_version()}"


# -- measuring


def table(sets: Sequence[Set], rounds: int) -> Iterator[str]:
    yield (
        "| rows | bytes | **rlvr** checks/s | p50 µs | p99 µs "
        "| `validate()` checks/s | ratio | kept checks/s | ratio | `jsonschema_rs` checks/s | ratio |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    with Scorer(workers=1) as scorer:
        for one in sets:
            yield line(scorer, one, rounds)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    yield ""
    yield f"Memory of the worker at its highest: {peak:.0f} MiB."


def line(scorer: Scorer, one: Set, rounds: int) -> str:
    pairs = [(row.completion, row.sample) for row in one.rows for _ in range(GROUP)]
    peers: dict[str, Callable[[Row], bool]] = {
        "validate": validate_each,
        "kept": Kept(python_validator),
        "rs": Kept(rust_validator),
    }
    passes = {"validate": 1, "kept": 2, "rs": max(1, TURN // len(one.rows))}
    batches = max(1, TURN // len(pairs))
    verdicts = batch(scorer, one, pairs)
    agree(one, verdicts[::GROUP], peers["rs"])
    rates: dict[str, list[float]] = {name: [] for name in ("rlvr", *peers)}
    durations: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(batches):
            verdicts = batch(scorer, one, pairs)
        rates["rlvr"].append(batches * len(pairs) / (time.perf_counter() - start))
        durations += [verdict.duration for verdict in verdicts]
        for name, check in peers.items():
            start = time.perf_counter()
            for _ in range(passes[name]):
                for row in one.rows:
                    check(row)
            rates[name].append(passes[name] * len(one.rows) / (time.perf_counter() - start))
    durations.sort()
    size = statistics.mean(len(row.completion.text.encode()) for row in one.rows)
    cells = [one.title, f"{size:.0f}", f"{statistics.median(rates['rlvr']):,.0f}"]
    cells += [f"{1e6 * durations[int(share * len(durations))]:.0f}" for share in (0.5, 0.99)]
    for name in peers:
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["rlvr"], rates[name], strict=True))
        cells += [f"{statistics.median(rates[name]):,.0f}", f"{ratio:.2g}x"]
    return f"| {' | '.join(cells)} |"


def batch(scorer: Scorer, one: Set, pairs: Sequence[tuple[Completion, Sample]]) -> list[Verdict]:
    return scorer.submit_batch(one.verifier, pairs, one.options).result()


def agree(one: Set, verdicts: Sequence[Verdict], check: Callable[[Row], bool]) -> None:
    """Stops where somebody is wrong: a rate of wrong verdicts is worth nothing."""
    for row, verdict in zip(one.rows, verdicts, strict=True):
        if not verdict.valid or verdict.passed is not row.expected or check(row) is not row.expected:
            raise SystemExit(f"error: {one.title}: {row.completion.text!r} is {row.expected}, verdict: {verdict}")


def validate_each(row: Row) -> bool:
    try:
        for text, schema in zip(row.texts, row.schemas, strict=True):
            jsonschema.validate(json.loads(text), schema)
    except jsonschema.ValidationError:
        return False
    return not row.golds or [json.loads(text) for text in row.texts] == list(row.golds)


class Kept:
    """Validators that are made once for each schema, by the identity of the schema."""

    def __init__(self, make: Callable[[Schema], Callable[[Any], bool]]) -> None:
        self._make = make
        self._made: dict[int, Callable[[Any], bool]] = {}

    def __call__(self, row: Row) -> bool:
        values = [json.loads(text) for text in row.texts]
        for value, schema in zip(values, row.schemas, strict=True):
            if not (self._made.get(id(schema)) or self._add(schema))(value):
                return False
        return not row.golds or values == list(row.golds)

    def _add(self, schema: Schema) -> Callable[[Any], bool]:
        return self._made.setdefault(id(schema), self._make(schema))


def python_validator(schema: Schema) -> Callable[[Any], bool]:
    checked: Callable[[Any], bool] = jsonschema.Draft202012Validator(schema).is_valid
    return checked


def rust_validator(schema: Schema) -> Callable[[Any], bool]:
    return jsonschema_rs.validator_for(dict(schema)).is_valid


if __name__ == "__main__":
    main()
