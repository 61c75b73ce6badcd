"""What a person sees of a run, on a terminal and elsewhere, and how Ctrl-C waits for a safe moment."""

from __future__ import annotations

import io
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlvr import Evaluation
from rlvr.guards import Alarm
from rlvr.interrupt import Interrupt, Interrupted
from rlvr.progress import COLUMNS, ROWS, Progress, cell

BEFORE = Evaluation(0.25, 0.2, 0.3, 100, 1, 0)
AFTER = Evaluation(0.9, 0.85, 0.95, 100, 1, 2)
METRICS = {
    "step": 4,
    "reward": 0.5,
    "pass_rate": 0.625,
    "length": 12.25,
    "entropy": 0.75,
    "kl": 0.0,
    "missing": 0.125,
    "time/sample": 1.5,
    "time/verify_wait": 0.25,
    "time/update": 2.0,
}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's wishes about colour."""
    for variable in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)


def test_off_a_terminal_every_step_is_one_plain_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(Path("runs/a"), 10) as progress:
        progress.begin(0, BEFORE)
        progress.step(METRICS)
        progress.step(METRICS | {"step": 5, "accuracy": 0.5})
        progress.finish(BEFORE, AFTER)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[1] == (
        "step 5/10  reward 0.500  pass 62.5%  length 12.2  entropy 0.750  KL 0.0000  missing 12.5%  "
        "sample s 1.50  verify s 0.25  update s 2.00"
    )
    assert lines[2].startswith("step 6/10 ")
    assert "held out 50.0%" in lines[2]
    assert lines[3] == "held-out accuracy before 25.0% [20.0%, 30.0%] of 100 problems"
    assert lines[4] == "held-out accuracy after  90.0% [85.0%, 95.0%] of 100 problems, 2 verdicts missing"
    assert lines[5] == "run runs/a  model runs/a/final"
    assert len(lines) == 6


def test_what_guards_find_is_said_when_they_do_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    alarm = Alarm("kl-spike", 4, "the KL is 9 nats", "lower it", 9.0, 3.0)
    with Progress(Path("runs/a"), 10) as progress:
        progress.fired(alarm)
        progress.finish(BEFORE, replace(AFTER, also={"json": BEFORE}), [alarm.to_json()])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["after step 5, guard kl-spike: the KL is 9 nats", "hint: lower it"]
    assert lines[4:6] == [
        "  json  25.0% [20.0%, 30.0%] of 100 problems",
        "guards that fired: kl-spike (step 5); see runs/a/guards.jsonl",
    ]


def test_what_passes_by_a_learned_reward_is_marked_in_line_and_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {"step": 0, "reward": 0.0, "pass_rate": 0.5, "math/pass_rate": 0.5}
    Progress(Path("runs/a"), 10, learned=True).step(metrics)
    line = capsys.readouterr().err
    assert "learned pass 50.0%" in line
    assert "learned math pass 50.0%" in line
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    progress = Progress(Path("runs/a"), 10, learned=True)
    progress._recent = [metrics]
    headings = [column.header for column in progress._table().columns]
    assert headings[:3] == ["step", "reward", "learned pass"]
    assert "pass" not in headings


def test_a_step_without_an_update_has_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(Path("runs/a"), 10).step({"step": 0, "reward": 0.0, "pass_rate": 0.0})
    assert capsys.readouterr().err == "step 1/10  reward 0.000  pass 0.0%\n"


def test_paths_are_not_taken_for_markup_and_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("runs") / ("[red]" + "x" * 200)
    Progress(path, 10).stopped(3)
    assert capsys.readouterr().err == (
        f"stopped after step 3; checkpoint written; go on with: rlvr train --resume {path}\n"
    )


def test_warnings_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(Path("runs/a"), 10).warn(["small groups", "large steps"])
    assert capsys.readouterr().err == "warning: small groups\nwarning: large steps\n"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the progress writes to a terminal of 140 columns."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140, color_system=None)
    monkeypatch.setattr("rlvr.progress.Console", lambda **_: console)
    return screen


def test_on_a_terminal_there_is_a_table_of_the_latest_steps(terminal: io.StringIO) -> None:
    with Progress(Path("runs/a"), 40) as progress:
        progress.begin(0, BEFORE)
        for step in range(ROWS + 3):
            progress.step(METRICS | {"step": step})
        shown = terminal.getvalue()
        progress.finish(BEFORE, AFTER)
    table = shown[shown.rindex("step 15 of 40") :]
    assert all(heading in table for heading in COLUMNS)
    rows = [line.split() for line in table.splitlines() if "62.5%" in line]
    assert [row[1] for row in rows] == [str(step + 1) for step in range(3, ROWS + 3)]
    assert "–" in table  # held-out accuracy, which these steps have not
    assert terminal.getvalue().rstrip().endswith("run runs/a  model runs/a/final")


def test_the_table_has_a_column_for_each_of_several_tasks(terminal: io.StringIO) -> None:
    with Progress(Path("runs/a"), 40) as progress:
        progress.begin(0, BEFORE)
        progress.step(METRICS | {"math/pass_rate": 0.125})
        progress.step(METRICS | {"json/pass_rate": 0.375})
    table = terminal.getvalue()
    assert "math pass" in " ".join(table.split()) or "math" in table
    assert "12.5%" in table
    assert "37.5%" in table


def test_an_error_gives_the_terminal_back(terminal: io.StringIO) -> None:
    def fail() -> None:
        with Progress(Path("runs/a"), 40) as progress:
            progress.begin(0, BEFORE)
            progress.step(METRICS)
            raise RuntimeError("oops")

    with pytest.raises(RuntimeError, match="oops"):
        fail()
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is shown again


def test_every_column_shows_its_metric_or_a_dash() -> None:
    for column in COLUMNS.values():
        assert cell({column[0]: 0.25}, column) != "–"
        assert cell({}, column) == "–"


def test_of_several_tasks_each_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    before = replace(BEFORE, tasks={"math": AFTER, "my-json": BEFORE})
    with Progress(Path("runs/a"), 10) as progress:
        progress.begin(0, before)
        progress.step(
            {"step": 0, "pass_rate": 0.5, "math/pass_rate": 0.75, "math/reward": 0.7, "my-json/pass_rate": 0.25}
        )
        progress.finish(before, before)
    each = [
        "  math     90.0% [85.0%, 95.0%] of 100 problems, 2 verdicts missing",
        "  my-json  25.0% [20.0%, 30.0%] of 100 problems",
    ]
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:3] == lines[5:7] == lines[8:10] == each
    assert lines[3] == "step 1/10  pass 50.0%  math pass 75.0%  my-json pass 25.0%"


# --------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_a_safe_moment_and_the_second_does_not(number: int) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(number)
        assert interrupt.noted
        with pytest.raises(Interrupted):
            interrupt.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="oops"), Interrupt():
        raise RuntimeError("oops")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_that_is_not_the_main_one_can_train_too() -> None:
    found: list[Any] = []

    def work() -> None:
        with Interrupt() as interrupt:
            interrupt.check()
            found.append(interrupt.noted)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
