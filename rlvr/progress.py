"""What a person sees of a run: a live table on a terminal, one plain line per step elsewhere. All on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rlvr.accuracy import Evaluation
from rlvr.guards import Alarm

ROWS = 12  # latest steps that the live table shows

COLUMNS = {  # heading: (metric, format)
    "reward": ("reward", "{:.3f}"),
    "pass": ("pass_rate", "{:.1%}"),
    "length": ("length", "{:.1f}"),
    "entropy": ("entropy", "{:.3f}"),
    "KL": ("kl", "{:.4f}"),
    "missing": ("missing", "{:.1%}"),
    "held out": ("accuracy", "{:.1%}"),
    "sample s": ("time/sample", "{:.2f}"),
    "verify s": ("time/verify_wait", "{:.2f}"),
    "update s": ("time/update", "{:.2f}"),
}


class Progress:
    """Shows the steps of a run as they end.

    Args:
        path: The run's directory, named at the end.
        steps: Steps in all.
        silent: Show nothing: of several processes, one speaks for all.
        learned: Rewards are a reward model's opinion, and so is what passes in training.
    """

    def __init__(self, path: Path, steps: int, silent: bool = False, learned: bool = False) -> None:
        self.path = path
        self.steps = steps
        self.learned = learned
        self.console = Console(stderr=True, quiet=silent)
        self._recent: list[Mapping[str, Any]] = []
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def warn(self, warnings: Iterable[str]) -> None:
        """Says what looks unwise."""
        for warning in warnings:
            self._say(f"warning: {warning}")

    def begin(self, step: int, before: Evaluation) -> None:
        """Says where the run starts from."""
        self._say(f"held-out accuracy before training {before}" + (f"; going on after step {step}" if step else ""))
        self._say_tasks(before)
        if self._live:
            self._live.start()

    def step(self, metrics: Mapping[str, Any]) -> None:
        """Shows one more step."""
        if self._live:
            self._recent = [*self._recent[-ROWS + 1 :], metrics]
            self._live.update(self._table(), refresh=True)
        else:
            done = f"step {metrics['step'] + 1}/{self.steps}"
            shown = columns(metrics, self.learned).items()
            cells = (f"{heading} {cell(metrics, column)}" for heading, column in shown if column[0] in metrics)
            self._say("  ".join([done, *cells]))

    def fired(self, alarm: Alarm) -> None:
        """Says what a guard found."""
        self._say(f"after step {alarm.step + 1}, {alarm}")

    def stopped(self, step: int, saved: bool = True) -> None:
        """Says that a run ended early, whether a checkpoint was written then, and how to go on."""
        self._end_live()
        checkpoint = "checkpoint written; " if saved else ""
        self._say(f"stopped after step {step}; {checkpoint}go on with: rlvr train --resume {self.path}")

    def finish(self, before: Evaluation, after: Evaluation, alarms: Sequence[Mapping[str, Any]] = ()) -> None:
        """Says what the run came to, and which guards fired on the way (rows of `guards.jsonl`)."""
        self._end_live()
        self._say(f"held-out accuracy before {before}")
        self._say_tasks(before)
        self._say(f"held-out accuracy after  {after}")
        self._say_tasks(after)
        if alarms:
            fired = ", ".join(f"{alarm['guard']} (step {alarm['step'] + 1})" for alarm in alarms)
            self._say(f"guards that fired: {fired}; see {self.path / 'guards.jsonl'}")
        self._say(f"run {self.path}  model {self.path / 'final'}")

    def _say_tasks(self, found: Evaluation) -> None:
        """That of each task, where there are several, and of those that are only measured."""
        named = {**found.tasks, **found.also}
        width = max(map(len, named), default=0)
        for name, own in named.items():
            self._say(f"  {name:{width}}  {own}")

    def _table(self) -> Table:
        table = Table(title=f"step {self._recent[-1]['step'] + 1} of {self.steps}", title_justify="left")
        table.add_column("step", justify="right")
        shown = columns(dict.fromkeys(name for metrics in self._recent for name in metrics), self.learned)
        for heading in shown:
            table.add_column(heading, justify="right")
        for metrics in self._recent:
            table.add_row(str(metrics["step"] + 1), *(cell(metrics, column) for column in shown.values()))
        return table

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _end_live(self) -> None:
        if self._live:
            self._live.stop()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end_live()


def columns(names: Iterable[str], learned: bool = False) -> dict[str, tuple[str, str]]:
    """What is shown of metrics of these names; of several tasks the pass rate of each as well, and marked where a
    reward model said what passes."""
    tasks = (name.removesuffix("/pass_rate") for name in names if name.endswith("/pass_rate"))
    shown = COLUMNS | {f"{task} pass": (f"{task}/pass_rate", "{:.1%}") for task in tasks}
    return {f"learned {h}" if learned and h.endswith("pass") else h: column for h, column in shown.items()}


def cell(metrics: Mapping[str, Any], column: tuple[str, str]) -> str:
    """A metric as text; a dash where the step has none."""
    name, pattern = column
    return pattern.format(metrics[name]) if name in metrics else "–"
