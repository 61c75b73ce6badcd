"""A run's directory: what is written whole or not at all, and what is left after a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr import ConfigError, DataError, Evaluation, Run
from rlvr.runlog import RunLog, environment, finite, new_path

BEFORE = Evaluation(0.25, 0.2, 0.3, 100, 1, 0, {1: 0.25})
AFTER = Evaluation(0.9, 0.85, 0.95, 100, 2, 3, {1: 0.9, 2: 0.95})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path / "run") as log:
        log.begin("steps = 3\n", 0, device="cpu")
        yield log


def fill(text: str) -> Callable[[Path], None]:
    """Writes a folder of two files."""

    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "state.json").write_text(text)

    return write


def crash(folder: Path) -> None:
    (folder / "state.json").write_text("half of it")
    raise OSError("disk full")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------- beginning a run


@pytest.mark.parametrize("kind", ["folder with a file", "file"])
def test_a_new_run_never_writes_over_what_is_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
        (path / "precious").touch()
    with pytest.raises(ConfigError, match="is there already and not empty") as caught:
        RunLog(path)
    assert f"`--resume {path}`" in caught.value.hint


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run"):
        pass
    assert names(tmp_path) == []


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.begin("steps = 3\n", 0)
    assert names(tmp_path) == ["config.toml", "environment.json", "metrics.jsonl", "rollouts.jsonl"]


def test_config_and_environment_are_kept(log: RunLog) -> None:
    assert (log.path / "config.toml").read_text() == "steps = 3\n"
    (facts,) = json.loads((log.path / "environment.json").read_text())
    assert facts["device"] == "cpu"
    assert facts["packages"]["rlvr"]
    assert facts.keys() > environment().keys()


def test_new_paths_are_named_by_task_and_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda format: "20260102-030405")
    found = []
    for _ in range(3):
        found.append(str(new_path("tasks/my-task.toml")))
        Path(found[-1]).mkdir(parents=True)
    stem = "runs/my-task-20260102-030405"
    assert found == [stem, f"{stem}-2", f"{stem}-3"]


def test_what_is_not_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a run: it has no `config\.toml`"):
        Run(tmp_path)


# --------------------------------------------------------------------------------------------------------- lines


def test_metrics_and_rollouts_are_there_at_once(log: RunLog) -> None:
    log.metrics({"step": 0, "reward": 0.5})
    log.rollouts([{"step": 0, "completion": "a"}, {"step": 0, "completion": "b"}])
    run = Run(log.path)
    assert run.metrics() == [{"step": 0, "reward": 0.5}]
    assert [row["completion"] for row in run.rollouts()] == ["a", "b"]


@pytest.mark.parametrize("text", ["日本 ½\n", "a\u2028b\u0085c\r\n", "half a pair: \ud83d", "\x00\x7f"], ids=ascii)
def test_any_text_a_model_may_write_can_be_logged(log: RunLog, text: str) -> None:
    log.rollouts([{"step": 0, "completion": text}, {"step": 0, "completion": "next"}])
    assert [row["completion"] for row in Run(log.path).rollouts()] == [text, "next"]


def test_a_metric_that_is_not_finite_is_null_and_ends_no_run(log: RunLog) -> None:
    row = {"step": 0, "loss": math.nan, "parts": {"a": [math.inf, (-math.inf, 1.0)]}, "n": 1, "b": True, "t": "NaN"}
    log.metrics(row)
    assert Run(log.path).metrics() == [
        {"step": 0, "loss": None, "parts": {"a": [None, [None, 1.0]]}, "n": 1, "b": True, "t": "NaN"}
    ]
    assert finite(0.5) == 0.5


def test_what_a_crash_cut_off_is_left_out(log: RunLog) -> None:
    log.metrics({"step": 0})
    with (log.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "rew')
    assert Run(log.path).metrics() == [{"step": 0}]


@pytest.mark.parametrize("torn", ["", '{"step": 1, "completion": "ha', '{"step": 1}', "nonsense\n"], ids=repr)
def test_resuming_goes_back_to_the_checkpoint(tmp_path: Path, torn: str) -> None:
    with RunLog(tmp_path) as log:
        log.begin("steps = 9\n", 0)
        for step in range(3):
            log.rollouts({"step": step, "completion": text} for text in "ab")
            log.metrics({"step": step})
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write(torn)
    with RunLog(tmp_path, resuming=True) as log:
        log.begin("steps = 9\n", 2)
        log.rollouts([{"step": 2, "completion": "c"}])
        log.metrics({"step": 2, "again": True})
    run = Run(tmp_path)
    assert [(row["step"], row["completion"]) for row in run.rollouts()] == [
        (0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "c"),
    ]  # fmt: skip
    assert run.metrics() == [{"step": 0}, {"step": 1}, {"step": 2, "again": True}]


@pytest.mark.parametrize("torn", ['{"step": 1, "reward": 0.12', '{"step": 1}'], ids=repr)
def test_resuming_past_a_torn_line_drops_it(tmp_path: Path, torn: str) -> None:
    with RunLog(tmp_path) as log:
        log.begin("steps = 9\n", 0)
        log.metrics({"step": 0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    with RunLog(tmp_path, resuming=True) as log:
        log.begin("steps = 9\n", 5)
        log.metrics({"step": 5})
    assert Run(tmp_path).metrics() == [{"step": 0}, {"step": 5}]


# ------------------------------------------------------------------------------------------------------- folders


def test_a_folder_is_whole_or_not_there(log: RunLog) -> None:
    with pytest.raises(OSError, match="disk full"):
        log.folder("final", crash)
    assert not (log.path / "final").exists()
    assert log.folder("final", fill("new")) == log.path / "final"
    assert (log.path / "final" / "model" / "weights").read_text() == "new"
    assert "final" in names(log.path)
    assert not [name for name in names(log.path) if name.startswith(".")]


def test_a_crash_leaves_the_old_folder_as_it_was(log: RunLog) -> None:
    log.folder("final", fill("old"))
    with pytest.raises(OSError, match="disk full"):
        log.folder("final", crash)
    assert (log.path / "final" / "state.json").read_text() == "old"
    log.folder("final", fill("new"))
    assert (log.path / "final" / "state.json").read_text() == "new"
    assert names(log.path / "final") == ["model", "state.json"]
    assert not [name for name in names(log.path) if name.startswith(".")]


def test_only_the_newest_checkpoints_are_kept(log: RunLog) -> None:
    assert Run(log.path).checkpoints() == []
    for step in (5, 10, 15, 100):
        assert log.checkpoint(step, fill(str(step)), keep=2).name == f"step-{step:06d}"
    found = Run(log.path).checkpoints()
    assert [path.name for path in found] == ["step-000015", "step-000100"]
    assert names(log.path / "checkpoints") == ["step-000015", "step-000100"]


def test_a_checkpoint_that_could_not_be_written_counts_for_nothing(log: RunLog) -> None:
    for step in (5, 10):
        log.checkpoint(step, fill(str(step)), keep=2)
    with pytest.raises(OSError, match="disk full"):
        log.checkpoint(15, crash, keep=2)
    assert [path.name for path in Run(log.path).checkpoints()] == ["step-000005", "step-000010"]


# -------------------------------------------------------------------------------------------------------- result


def test_a_result_comes_back_as_it_was(log: RunLog) -> None:
    run = Run(log.path)
    assert (run.before, run.after, run.accuracy) == (None, None, None)
    log.result(before=BEFORE)
    assert (run.before, run.after, run.accuracy) == (BEFORE, None, None)
    log.result(after=AFTER)
    assert (run.before, run.after, run.accuracy) == (BEFORE, AFTER, 0.9)
    assert run.model == log.path / "final"


def test_an_accuracy_of_nothing_is_not_an_unfinished_run(log: RunLog) -> None:
    log.result(after=Evaluation(0.0, 0.0, 0.1, 10, 1, 0, {1: 0.0}))
    assert Run(log.path).accuracy == 0.0


def test_a_whole_file_takes_the_place_of_the_old(log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.result(before=BEFORE)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        log.result(after=AFTER)
    assert Run(log.path).before == BEFORE
