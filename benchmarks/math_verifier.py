"""The `math` verifier beside those of other projects, on labelled answers: `make bench-math`.

    python benchmarks/math_verifier.py [ROWS.jsonl ...] [--gsm8k FILE] [--out FILE.md]

A row is an object with `gold`, `prediction`, `expected` (a boolean) and `source`. The prediction is put in a box unless
it has one or the row says `"form": "response"`. With `"core": false` the label is a convention of one data set, and the
row is left out. Without files, it is the rows of this repository.

Accuracy: every verifier runs in a worker of rlvr's scorer, with a clock that kills it; what it does not decide in time
counts as refused. Speed: all of it on one core, in interleaved rounds, over the rows no verifier was slow on. rlvr runs
as it does in training, through the scorer's batch path with a worker of its own, everything it sends and receives
included. The others are called directly, which spares them that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import math_peers

from rlvr import Completion, Sample, Scorer, Status, Verdict
from rlvr.accuracy import wilson

HERE = Path(__file__).resolve().parent
OWN = sorted((HERE.parent / "tests" / "corpora" / "math").glob("*.jsonl"))
PLUGIN = str(HERE / "math_peers.py")
OURS = "math"
CLOCK = 20.0
ROUNDS = 5
TURN = 8_000  # rows that rlvr does in one round, over and over: about as long as the others take for theirs
SLOW = 0.5  # seconds; rows on which a verifier takes longer are not in the comparison of speed


class Row(NamedTuple):
    """A reference, a completion, whether it is right, and where the pair comes from."""

    gold: str
    text: str
    expected: bool
    source: str
    file: str

    @property
    def pair(self) -> tuple[Completion, Sample]:
        return Completion(self.text), Sample("row", answer=self.gold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="*", default=OWN, help="JSONL files")
    parser.add_argument("--gsm8k", type=Path, help="JSONL with `answer`, a reference solution, and `final`")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=("accuracy", "speed"))
    parser.add_argument("--out", type=Path, help="a file to write the tables to, besides printing them")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # Math-Verify prints every text it gives up on
    rows = list(read(arguments.rows))
    texts = list(solutions(arguments.gsm8k)) if arguments.gsm8k else []
    lines = [f"{date.today()}, {hardware()}", "", *versions(), ""]
    print(*lines, sep="\n")
    parts = [] if arguments.only == "speed" else [*accuracy(rows), ""]
    parts += [] if arguments.only == "accuracy" else speed(rows, texts, arguments.rounds)
    print(*parts, sep="\n")
    lines += parts
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(files: Iterable[Path]) -> Iterable[Row]:
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            row: dict[str, Any] = json.loads(line)
            if row.get("core", True):
                text = row["prediction"]
                whole = row.get("form") == "response" or "\\boxed" in text
                text = text if whole else f"\\boxed{{{text.strip().strip('$')}}}"
                yield Row(row["gold"], text, row["expected"], row.get("source", file.stem), file.stem)


def solutions(file: Path) -> Iterable[Row]:
    """Reference solutions as completions, each against its own answer."""
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Row(row["final"], row["answer"], True, file.stem, file.stem)


def hardware() -> str:
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), model)
    return f"{len(os.sched_getaffinity(0))} cores of {model}, Python {platform.python_version()}"


def versions() -> list[str]:
    names = ["rlvr", *math_peers.installed(), "sympy", "mpmath"]
    if "math-verify" in names:
        names += ["latex2sympy2-extended", "antlr4-python3-runtime"]
    return [", ".join(f"{name} {metadata.version(name)}" for name in names)]


# -- accuracy


def accuracy(rows: Sequence[Row]) -> list[str]:
    """A table of all verifiers by file, and one of ours by source."""
    lines = ["| rows | verifier | n | accuracy | wrong accepted | right refused | over 2 s | no verdict | worst s |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    verdicts = {name: judge(name, rows) for name in [OURS, *math_peers.installed()]}
    for file, indices in grouped(rows, "file").items():
        for name, found in verdicts.items():
            mine = [found[i] for i in indices]
            slow = sum(verdict.duration > 2 for verdict in mine)
            broken = sum(not verdict.valid for verdict in mine)
            worst = max(verdict.duration for verdict in mine)
            cells = counts([rows[i] for i in indices], mine)
            lines.append(f"| {file} | {called(name)} | {cells} | {slow} | {broken} | {worst:.2g} |")
    lines += ["", "| source | n | accuracy | wrong accepted | right refused |", "|---|---|---|---|---|"]
    for source, indices in sorted(grouped(rows, "source").items(), key=lambda item: -len(item[1])):
        lines.append(f"| {source} | {counts([rows[i] for i in indices], [verdicts[OURS][i] for i in indices])} |")
    return lines


def grouped(rows: Sequence[Row], field: str) -> dict[str, list[int]]:
    """Indices of the rows by a field."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[getattr(row, field)].append(index)
    return groups


def judge(name: str, rows: Sequence[Row]) -> list[Verdict]:
    with Scorer(plugins=[PLUGIN], timeout=CLOCK, memory_mb=4096) as scorer:
        for _ in range(2 * scorer.workers):  # imports and first calls are not a row's time
            scorer.submit(name, Completion(r"\boxed{1+x}"), Sample("warm", answer="x+1"), timeout=120).result()
        return scorer.submit_batch(name, [row.pair for row in rows]).result()


def counts(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    passed = [verdict.status is Status.PASSED for verdict in verdicts]
    right = sum(said == row.expected for said, row in zip(passed, rows, strict=True))
    accepted = sum(said and not row.expected for said, row in zip(passed, rows, strict=True))
    refused = sum(row.expected and not said for said, row in zip(passed, rows, strict=True))
    wrong = sum(not row.expected for row in rows)
    low, high = wilson(right, len(rows))
    share = f"{right / len(rows):.1%} [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{len(rows)} | {share} | {accepted} of {wrong} | {refused} of {len(rows) - wrong}"


def called(name: str) -> str:
    return "**rlvr `math`**" if name == OURS else math_peers.PEERS[name][0]


# -- speed


def speed(rows: Sequence[Row], texts: Sequence[Row], rounds: int) -> list[str]:
    """Checks per second on one core, ours through the scorer, and how long single checks take."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peers = {name: direct(name) for name in math_peers.installed() if name in ("math-verify", "mathruler")}
    mixed = [row for row in rows if all(quick(passes, row) for passes in peers.values())]
    lines = [
        f"| rows | n | verifier | checks/s, median of {rounds} | rlvr is faster by | p50 ms | p99 ms | slowest ms |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    with Scorer(workers=1) as scorer:
        for title, chosen in (("mixed", mixed), ("GSM8K solutions", texts[:500])):
            if chosen:
                lines += rates(title, scorer, peers, chosen, rounds)
        durations = sorted(verdict.duration for verdict in batch(scorer, [row.pair for row in rows]))
        lines += ["", f"Slowest of all {len(rows)} rows: {1e3 * durations[-1]:.0f} ms."]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return [*lines, f"Memory of the worker at its highest: {peak:.0f} MiB."]


def direct(name: str) -> Callable[[Row], object]:
    passes = math_peers.PEERS[name][1]()
    return lambda row: passes(row.gold, row.text)


def quick(check: Callable[[Row], object], row: Row) -> bool:
    return timed(check, row) < SLOW


def timed(check: Callable[[Row], object], row: Row) -> float:
    start = time.perf_counter()
    with contextlib.suppress(BaseException):  # Math-Verify's timeout is no Exception
        check(row)
    return time.perf_counter() - start


def batch(scorer: Scorer, pairs: Sequence[tuple[Completion, Sample]]) -> list[Verdict]:
    return scorer.submit_batch(OURS, pairs).result()


def rates(
    title: str, scorer: Scorer, peers: dict[str, Callable[[Row], object]], rows: Sequence[Row], rounds: int
) -> list[str]:
    pairs = [row.pair for row in rows]
    batch(scorer, pairs)
    passes = max(1, TURN // len(rows))
    times: dict[str, list[float]] = defaultdict(list)
    single: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(passes):
            verdicts = batch(scorer, pairs)
        times[OURS].append((time.perf_counter() - start) / passes)
        single[OURS] += [verdict.duration for verdict in verdicts]
        for name, check in peers.items():
            each = [timed(check, row) for row in rows]
            times[name].append(sum(each))
            single[name] += each
    lines = []
    for name, seconds in times.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(seconds, times[OURS], strict=True))
        one = sorted(single[name])
        quantiles = (one[len(one) // 2], one[int(0.99 * len(one))], one[-1])
        cells = [title, str(len(rows)), called(name), f"{len(rows) / statistics.median(seconds):,.0f}"]
        cells += ["" if name == OURS else f"{ratio:.0f}x", *(f"{1e3 * second:.3g}" for second in quantiles)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
