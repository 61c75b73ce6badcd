"""Every algorithm on the starter task, by the command that a user would type: `make bench-algorithms`.

    python benchmarks/algorithms.py [--algorithms ppo gspo] [--seeds 0] [--steps N] [--runs DIR] [--draw-only]

For each algorithm and seed, one after another, this runs

    rlvr train --task math --algorithm NAME --seed SEED --out DIR/NAME-SEED --eval.every N

and times it from start to end: imports, loading, the worker processes, training, all evaluations. Nothing is set but
what is shown here and given as flags, so that it is the recipes and the task's own defaults which are measured. Each
run has to gain `GAIN` of held-out accuracy within `LIMIT` seconds; where one does not, the exit code is 1.

The table and the curves are made from the directories of the runs. With `--draw-only` nothing is trained, and with
`--runs` of an earlier call only what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from rlvr.accuracy import Evaluation
from rlvr.runlog import Run

ALGORITHMS = ("grpo", "dapo", "dr-grpo", "gspo", "cispo", "rloo", "reinforce++", "ppo")
GAIN, LIMIT = 0.20, 180.0
RESULTS = Path(__file__).parent / "results"
DARK, LIGHT, REST = "#1f4e8c", "#e07b39", "#cccccc"


@dataclass(frozen=True)
class Trained:
    """A finished run, and what it took from start to end."""

    run: Run
    facts: Mapping[str, Any]

    @property
    def algorithm(self) -> str:
        return str(self.facts["algorithm"])

    @property
    def seed(self) -> int:
        return int(self.facts["seed"])

    @property
    def seconds(self) -> float:
        return float(self.facts["seconds"])

    @property
    def before(self) -> Evaluation:
        assert self.run.before is not None
        return self.run.before

    @property
    def after(self) -> Evaluation:
        assert self.run.after is not None
        return self.run.after

    @property
    def held(self) -> bool:
        return self.after.accuracy - self.before.accuracy >= GAIN and self.seconds < LIMIT

    def curve(self) -> list[tuple[int, float]]:
        """Held-out accuracy after so many steps."""
        rows = self.run.metrics()
        measured = [(row["step"] + 1, row["accuracy"]) for row in rows if "accuracy" in row]
        return [(0, self.before.accuracy), *measured, (len(rows), self.after.accuracy)]

    def line(self) -> str:
        before, after = self.before, self.after
        return (
            f"| {self.algorithm} | {self.seed} | {before.accuracy:.1%} | {after.accuracy:.1%} "
            f"[{after.low:.1%}, {after.high:.1%}] | {100 * (after.accuracy - before.accuracy):+.1f} | "
            f"{len(self.run.metrics())} | {self.seconds:.0f} | {'held' if self.held else '**missed**'} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=list(ALGORITHMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, help="instead of the task's own number")
    parser.add_argument("--every", type=int, default=3, help="steps between evaluations")
    parser.add_argument("--runs", type=Path, help="folder of the runs, to keep them")
    parser.add_argument("--draw-only", action="store_true", help="table and curves of what is in --runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for `algorithms.md` and `algorithms.png`")
    arguments = parser.parse_args()
    if arguments.draw_only and not arguments.runs:
        parser.error("--draw-only needs --runs")
    with tempfile.TemporaryDirectory() as folder:
        runs = arguments.runs or Path(folder)
        runs.mkdir(parents=True, exist_ok=True)
        for seed in arguments.seeds if not arguments.draw_only else ():
            for algorithm in arguments.algorithms:
                if not (runs / f"{algorithm}-{seed}.json").exists():
                    train(algorithm, seed, runs, arguments.steps, arguments.every)
        found = [t for t in finished(runs) if t.algorithm in arguments.algorithms and t.seed in arguments.seeds]
        if not found:
            raise SystemExit(f"there is no finished run in `{runs}`")
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "algorithms.md").write_text(text := table(found), encoding="utf-8")
        draw(found, arguments.out / "algorithms.png")
        held = {(trained.algorithm, trained.seed) for trained in found if trained.held}
        known = {(trained.algorithm, trained.seed) for trained in found}
    asked = [(algorithm, seed) for algorithm in arguments.algorithms for seed in arguments.seeds]
    missed = [key for key in asked if key not in held and (key in known or not arguments.draw_only)]
    print(text, end="")
    sys.exit(f"missed: {', '.join(f'{algorithm} (seed {seed})' for algorithm, seed in missed)}" if missed else 0)


def train(algorithm: str, seed: int, runs: Path, steps: int | None, every: int) -> None:
    """Makes `runs/ALGORITHM-SEED` and, once it is finished, a file beside it that says how long it took."""
    name = f"{algorithm}-{seed}"
    flags = ["--eval.every", str(every), *(["--steps", str(steps)] if steps else [])]
    own = ["--algorithm", algorithm, "--seed", str(seed), "--out", str(runs / name)]
    print(name, file=sys.stderr, flush=True)
    load, began = os.getloadavg()[0], time.monotonic()
    command = [sys.executable, "-m", "rlvr", "train", "--task", "math", *own, *flags]
    shutil.rmtree(runs / name, ignore_errors=True)  # left by a call that was interrupted
    if subprocess.run(command, stdout=sys.stderr).returncode:
        return
    facts = {"algorithm": algorithm, "seed": seed, "seconds": time.monotonic() - began}
    facts |= {"flags": " ".join(flags), "date": str(date.today()), "load": load}
    (runs / f"{name}.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def finished(runs: Path) -> list[Trained]:
    """The runs that `train` has finished, in the order of `ALGORITHMS`."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("*.json")]
    found.sort(key=lambda facts: (ALGORITHMS.index(facts["algorithm"]), facts["seed"]))
    return [Trained(Run(runs / f"{facts['algorithm']}-{facts['seed']}"), facts) for facts in found]


def table(found: Sequence[Trained]) -> str:
    """What came of the runs, as Markdown."""
    facts = [trained.facts for trained in found]
    names = ("rlvr", "torch", "transformers", "accelerate")
    problems = found[0].after.problems
    lines = [
        "# Every algorithm on the starter task",
        "",
        "Made by `make bench-algorithms`; `benchmarks/algorithms.py` says what is measured. One after another:",
        "",
        *(
            f"    rlvr train --task math --algorithm NAME --seed SEED {flags}"
            for flags in sorted({f["flags"] for f in facts})
        ),
        "",
        "Seconds are those of the whole command, evaluations included. Accuracy is greedy, on the "
        f"{problems} problems of the",
        "held-out split, after the last step with its 95% interval.",
        "",
        f"{', '.join(sorted({f['date'] for f in facts}))}, {os.cpu_count()} cores of {processor()}, Python "
        f"{platform.python_version()}; load average before a run {min(f['load'] for f in facts):.1f} to "
        f"{max(f['load'] for f in facts):.1f}",
        "",
        ", ".join(f"{name} {metadata.version(name)}" for name in names),
        "",
        f"| algorithm | seed | before | after | points | steps | seconds | {100 * GAIN:.0f} points in {LIMIT:.0f} s |",
        "|---|---|---|---|---|---|---|---|",
        *(trained.line() for trained in found),
        "",
        "![Held-out accuracy by step, one panel for each algorithm](algorithms.png)",
    ]
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Trained], file: Path) -> None:
    """A panel for each algorithm: its seeds in colour, before all other runs in grey."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import PercentFormatter

    names = list(dict.fromkeys(trained.algorithm for trained in found))
    seeds = sorted({trained.seed for trained in found})
    styles = {seed: ((DARK, LIGHT, "#3a7d44", "#7b3f99")[i % 4], ("-", "--")[i % 2]) for i, seed in enumerate(seeds)}
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, grid = plt.subplots(
        *(rows, columns),
        figsize=(max(6.0, 3.1 * columns), 2.6 * rows + 0.8),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for name, axes in zip(names, grid.flat, strict=False):
        for trained in found:
            if trained.algorithm != name:
                axes.plot(*zip(*trained.curve(), strict=True), color=REST, linewidth=0.8, zorder=1)
        for trained in found:
            if trained.algorithm == name:
                color, style = styles[trained.seed]
                axes.plot(*zip(*trained.curve(), strict=True), color=color, linestyle=style, linewidth=2, zorder=2)
        axes.set_title(name, fontsize=11, loc="left", fontweight="bold")
        axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("steps")
    lines = [Line2D([], [], color=c, linestyle=s, linewidth=2, label=f"seed {n}") for n, (c, s) in styles.items()]
    if len(names) > 1:
        lines.append(Line2D([], [], color=REST, label="the other algorithms"))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False, fontsize=9)
    figure.suptitle("Held-out accuracy, `rlvr train --task math`", fontsize=12)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def processor() -> str:
    info = Path("/proc/cpuinfo")
    named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return named[0] if named else platform.machine()


if __name__ == "__main__":
    main()
