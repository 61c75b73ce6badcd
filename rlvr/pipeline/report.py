"""`report.md` of a chain: its stages in a table, accuracy from stage to stage, guards, settings, how to do it again."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr.accuracy import Evaluation
from rlvr.pipeline.recipe import POLICIES
from rlvr.runlog import read_jsonl, write_atomically

NOT_SHOWN = ("out", "model", "task", "plugin")
"""Settings that the table of stages shows already."""

PACKAGES = ("rlvr", "torch", "transformers", "accelerate", "trl", "vllm")


def write_report(path: Path) -> Path:
    """Writes the report of the chain at `path`, and its picture where matplotlib is installed; returns its file."""
    state = json.loads((path / "pipeline.json").read_text(encoding="utf-8"))
    stages = [Told(path, record) for record in state["stages"]]
    picture = path / "accuracy.png"
    drawn = draw(state, stages, picture)
    parts = [
        f"# {state['name']}\n",
        outcome(state, stages),
        stage_table(stages),
        f"![Held-out accuracy from stage to stage]({picture.name})\n" if drawn else "",
        guards(stages),
        learned(stages),
        settings(stages),
        again(path, state, stages),
    ]
    file = path / "report.md"
    write_atomically(file, "\n".join(part for part in parts if part))
    return file


class Told:
    """What is known of a stage: its record in `pipeline.json`, and its run.

    Args:
        path: The chain's directory.
        record: The stage's part of `pipeline.json`.
    """

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.chain, self.record = path, record
        self.name, self.run, self.status = str(record["name"]), str(record["run"]), str(record["status"])
        self.folder = path / record["folder"]
        self.settings: Mapping[str, Any] = record.get("settings") or {}

    def json(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return found if isinstance(found, dict) else {}

    def rows(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        return read_jsonl(file) if file.is_file() else []

    @property
    def after(self) -> Evaluation | None:
        """Held-out accuracy after it, as the chain measures it."""
        found = self.record.get("accuracy") if self.run in POLICIES else None
        return Evaluation.from_json(found) if found else None

    @property
    def measured(self) -> Evaluation | None:
        """What `rlvr eval` found."""
        found = self.record.get("accuracy") if self.run == "eval" else None
        return Evaluation.from_json(found) if found else None

    @property
    def start(self) -> str:
        """The model that it started from."""
        name = self.shown(str(self.settings.get("policy" if self.run == "pairs" else "model", "")))
        return f"random weights of {name}" if self.settings.get("init") == "random" else name

    @property
    def end(self) -> str:
        """The model that it made."""
        return self.shown(str(self.folder / "final")) if (self.folder / "final").is_dir() else "–"

    def shown(self, value: str) -> str:
        """A path below the chain's directory without that directory."""
        return value.removeprefix(f"{self.chain.absolute()}/").removeprefix(f"{self.chain}/")

    @property
    def data(self) -> str:
        """How many rows it learned from, and how many it could not use."""
        found = self.json("data.json")
        used = found.get("used", found.get("usable"))
        if used is not None:
            kinds = ", ".join(f"{count} {kind}" for kind, count in found.get("bad", {}).items())
            return f"{used} of {found['rows']}" + (f" ({kinds})" if kinds else "")
        return "–"

    @property
    def updates(self) -> str:
        """How far it has come."""
        rows = self.rows("metrics.jsonl")
        if not rows:
            return "–"
        last = max(int(row.get("step", 0)) for row in rows)
        return f"{last + 1} steps" if self.run == "train" else f"{last} updates"


def outcome(state: Mapping[str, Any], stages: Sequence[Told]) -> str:
    """What came of it, in a sentence."""
    done = sum(stage.status == "done" for stage in stages)
    seconds = sum(float(stage.record["seconds"]) for stage in stages)
    said = f"{done} of {len(stages)} stages done in {duration(seconds)}."
    measured = [stage for stage in stages if stage.after]
    first = base(stages)
    if measured:
        last = measured[-1]
        start = f" from {first.accuracy:.1%}" if first else ""
        said += f" Held-out accuracy on `{state['task']}` went{start} to {last.after}, after `{last.name}`."
    falls = [name for name, before, after in steps(stages) if before and after.accuracy <= before.accuracy]
    if measured and falls:
        said += f" It did not rise in {', '.join(f'`{name}`' for name in falls)}."
    return said + "\n"


def base(stages: Sequence[Told]) -> Evaluation | None:
    """Accuracy before the first stage, as that measured it."""
    found = next((stage.json("result.json").get("before") for stage in stages if stage.after), None)
    return Evaluation.from_json(found) if found else None


def steps(stages: Sequence[Told]) -> list[tuple[str, Evaluation | None, Evaluation]]:
    """Name, accuracy before and accuracy after of each stage that was measured."""
    found, last = [], base(stages)
    made: dict[str, Evaluation] = {}
    for stage in stages:
        if stage.after is not None:
            before = made.get(str(stage.settings.get("model", "")), last if not made else None)
            found.append((stage.name, before, stage.after))
            made[str(stage.folder / "final")] = made[str((stage.folder / "final").absolute())] = stage.after
    return found


def stage_table(stages: Sequence[Told]) -> str:
    """One line for each stage."""
    measured = {name: (before, after) for name, before, after in steps(stages)}
    lines = [
        "| stage | command | status | from | rows used | updates | time | accuracy before | after | guards |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages:
        before, after = measured.get(stage.name, (None, None))
        fired = sorted({str(row["guard"]) for row in stage.rows("guards.jsonl")})
        method = f" --method {stage.settings['method']}" if stage.run == "prefer" and "method" in stage.settings else ""
        algorithm = f" --algorithm {stage.settings['algorithm']}" if stage.run == "train" and stage.settings else ""
        cells = [
            stage.name,
            f"`rlvr {stage.run}{method}{algorithm}`",
            stage.status,
            stage.start or "–",
            stage.data,
            stage.updates,
            duration(float(stage.record["seconds"])),
            interval(before),
            interval(after or stage.measured),
            ", ".join(fired) or "none",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def interval(found: Evaluation | None) -> str:
    return f"{found.accuracy:.1%} [{found.low:.1%}, {found.high:.1%}]" if found else "–"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def guards(stages: Sequence[Told]) -> str:
    """What guards found."""
    found = [(stage.name, row) for stage in stages for row in stage.rows("guards.jsonl")]
    if not found:
        return "## Guards\n\nNone fired.\n"
    lines = [
        f"- `{name}`, step {row['step']}: **{row['guard']}**: {row['message']}. {row['hint']}" for name, row in found
    ]
    return "## Guards\n\n" + "\n".join(lines) + "\n"


def learned(stages: Sequence[Told]) -> str:
    """What stages say of their own results that is no accuracy of a policy."""
    lines = []
    for stage in stages:
        facts = {
            name: value
            for name, value in stage.json("result.json").items()
            if name not in ("before", "after", "data") and isinstance(value, (int, float, str, bool))
        }
        if facts:
            said = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in facts.items()
            )
            own = f"; [its own report]({stage.folder.name}/report.md)" if (stage.folder / "report.md").is_file() else ""
            lines.append(f"- `{stage.name}`: {said}{own}")
    return "## Results of stages\n\n" + "\n".join(lines) + "\n" if lines else ""


def settings(stages: Sequence[Told]) -> str:
    """The settings of each stage that are not the defaults of its command, and where they came from."""
    parts = []
    for stage in stages:
        origins = stage.record.get("origins") or {}
        lines = []
        for name, origin in origins.items():
            value = stage.settings.get(name)
            if name in NOT_SHOWN or (stage.run == "eval" and not name.startswith(("eval.", "sampler."))):
                continue
            text = json.dumps(stage.shown(value) if isinstance(value, str) else value, ensure_ascii=False)
            lines.append(f"{name} = {text}" + ("" if origin == "recipe" else f"  # {origin}"))
        if lines:
            parts.append(f"`{stage.name}`:\n\n```toml\n" + "\n".join(lines) + "\n```\n")
    return "## Settings other than the defaults\n\n" + "\n".join(parts) if parts else ""


def again(path: Path, state: Mapping[str, Any], stages: Sequence[Told]) -> str:
    """What it takes to get the same: recipe, versions, seeds, digests."""
    starts = [environment for stage in stages for environment in stage_environments(stage)]
    packages = {name: version for start in starts for name, version in start.get("packages", {}).items()}
    versions = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    machine = next((f"Python {s['python']}, {s['platform']}, {s['cpus']} cores" for s in reversed(starts)), "")
    devices = sorted({f"{s['device']} × {s.get('processes', 1)}" for s in starts if "device" in s})
    lines = [
        "## Do it again\n",
        "```console",
        "$ rlvr pipeline recipe.toml      # the one in this directory",
        "```\n",
        *([f"Versions: {versions}.  "] if versions else []),
        *([f"Machine: {machine}; device: {', '.join(devices)}.\n"] if machine else []),
        "| stage | seed | inputs | model made | command |",
        "| --- | --- | --- | --- | --- |",
    ]
    for stage in stages:
        used = ", ".join(f"{name} `{digest}`" for name, digest in (stage.record.get("inputs") or {}).items())
        words = [stage.shown(str(word)) for word in stage.record.get("command") or []]
        command = " ".join(words).replace(sys.executable, "python")
        made = f"`{stage.record['model']}`" if stage.record.get("model") else "–"
        seed = stage.settings.get("seed", "–")
        lines.append(f"| {stage.name} | {seed} | {used or '–'} | {made} | `{command or '–'}` |")
    return "\n".join(lines) + "\n"


def stage_environments(stage: Told) -> list[dict[str, Any]]:
    """Versions and machine of each start of a stage."""
    file = stage.folder / "environment.json"
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []


def draw(state: Mapping[str, Any], stages: Sequence[Told], file: Path) -> bool:
    """Draws accuracy from stage to stage, with its intervals and, within a stage, what was measured on the way.

    Returns:
        Whether there is a picture: there is none without matplotlib, or before anything has been measured.
    """
    measured = [stage for stage in stages if stage.after]
    if not measured or not importlib.util.find_spec("matplotlib"):
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 1.5 * (len(measured) + 1), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [("start", base(stages)), *((stage.name, stage.after) for stage in measured)]
    shown = [(place, found) for place, (_, found) in enumerate(points) if found]
    line_x, line_y = [], []
    for place, found in shown:
        if place and measured[place - 1].run == "train":
            way = [
                (int(r["step"]), float(r["accuracy"]))
                for r in measured[place - 1].rows("metrics.jsonl")
                if "accuracy" in r
            ]
            total = 1 + max((int(r["step"]) for r in measured[place - 1].rows("metrics.jsonl")), default=0)
            for step, value in way:
                if step + 1 < total:
                    line_x.append(place - 1 + (step + 1) / total)
                    line_y.append(100 * value)
        line_x.append(place)
        line_y.append(100 * found.accuracy)
    axes.plot(line_x, line_y, color="#4477aa", linewidth=1.5, marker=".", markersize=4)
    low = [100 * (found.accuracy - found.low) for _, found in shown]
    high = [100 * (found.high - found.accuracy) for _, found in shown]
    places, values = [place for place, _ in shown], [100 * found.accuracy for _, found in shown]
    axes.errorbar(places, values, yerr=[low, high], fmt="o", color="#223355", capsize=4)
    for place, value in zip(places, values, strict=True):
        axes.annotate(f"{value:.1f}%", (place, value), textcoords="offset points", xytext=(6, 8), fontsize=9)
    axes.set_xticks(range(len(points)), [name for name, _ in points])
    axes.set_xlim(-0.3, len(points) - 0.4)
    axes.set_ylim(0, 105)
    axes.set_ylabel("held-out accuracy, %")
    axes.set_title(f"{state['name']}: {state['task']}, 95% intervals", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
    return True
