"""A run's directory: what is written whole or not at all, and what is left after a crash."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr import ConfigError, DataError, Evaluation, Run
from rlvr.runlog import RunLog, environment, finite, flaw, new_path

BEFORE = Evaluation(0.25, 0.2, 0.3, 100, 1, 0, {1: 0.25})
AFTER = Evaluation(0.9, 0.85, 0.95, 100, 2, 3, {1: 0.9, 2: 0.95})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path / "run") as log:
        log.begin("steps = 3\n", 0, device="cpu")
        yield log


def fill(text: str) -> Callable[[Path], dict[str, Any]]:
    """Writes a folder of two files."""

    def write(folder: Path) -> dict[str, Any]:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "state.json").write_text(text)
        return {"processes": 1}

    return write


def crash(folder: Path) -> dict[str, Any]:
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
    assert names(tmp_path) == ["config.toml", "environment.json", "guards.jsonl", "metrics.jsonl", "rollouts.jsonl"]


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


# -------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def three(log: RunLog) -> Run:
    """A run with the checkpoints 10, 20 and 30, the middle one of which was evaluated."""
    for step in (10, 20, 30):
        log.metrics({"step": step - 1} | ({"accuracy": 0.5} if step == 20 else {}))
        log.checkpoint(step, fill(f"weights of {step}"), keep=3)
    return Run(log.path)


def names_of(folders: Iterable[Path]) -> list[int]:
    return [int(folder.name[5:]) for folder in folders]


def test_a_manifest_says_what_is_in_a_checkpoint(three: Run) -> None:
    for folder, accuracy in zip(three.checkpoints(), (None, 0.5, None), strict=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        files = manifest.pop("files")
        assert manifest == {"format": 1, "step": int(folder.name[5:]), "accuracy": accuracy, "processes": 1}
        assert list(files) == ["model/weights", "state.json"]
        text = (folder / "state.json").read_bytes()
        assert files["state.json"] == {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        assert flaw(folder) is None


def test_the_newest_whole_checkpoint_is_taken(three: Run) -> None:
    assert three.newest_whole() == (three.checkpoints()[-1], {})


def damage(folder: Path, how: str) -> None:
    """Spoils a checkpoint."""
    file, _, kind = how.partition(" ")
    found = (folder / file).read_bytes()
    if kind == "missing":
        (folder / file).unlink()
    elif kind == "other":
        (folder / file).write_bytes(b"[1]")
    elif kind == "newer":
        (folder / file).write_bytes(found.replace(b'"format": 1', b'"format": 2'))
    elif kind == "cut":
        (folder / file).write_bytes(found[:-1])
    else:
        (folder / file).write_bytes(bytes([found[0] ^ 1]) + found[1:])


DAMAGES = {
    "model/weights flipped": "`model/weights` has another checksum",
    "model/weights cut": "`model/weights` has 12 bytes, not 13",
    "model/weights missing": "`model/weights` is missing",
    "state.json flipped": "`state.json` has another checksum",
    "manifest.json missing": "it has no `manifest.json`",
    "manifest.json cut": "`manifest.json` is damaged",
    "manifest.json other": "`manifest.json` is damaged",
    "manifest.json newer": "it has format 2, and this version of rlvr reads 1",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(three: Run, how: str) -> None:
    _, good, bad = three.checkpoints()
    damage(bad, how)
    if how == "manifest.json cut":  # the end of the line is not missed
        damage(bad, how)
    assert three.newest_whole() == (good, {bad.name: DAMAGES[how]})


def test_that_no_checkpoint_can_be_used_is_said_of_each(three: Run) -> None:
    for folder, how in zip(three.checkpoints(), DAMAGES, strict=False):
        damage(folder, how)
    with pytest.raises(DataError, match="can be used") as caught:
        three.newest_whole()
    for folder, what in zip(three.checkpoints(), DAMAGES.values(), strict=False):
        assert f"`{folder.name}`: {what}" in caught.value.message
    assert "\n" not in caught.value.message
    assert "delete" in caught.value.hint


def test_a_run_without_checkpoints_has_none_to_take(log: RunLog) -> None:
    assert Run(log.path).newest_whole() == (None, {})


def test_what_could_not_be_used_is_put_aside(three: Run) -> None:
    _, good, bad = three.checkpoints()
    damage(bad, "state.json flipped")
    with RunLog(three.path, resuming=True) as log:
        log.begin("steps = 9\n", 20)
        assert names(three.path / "checkpoints") == ["damaged-step-000030", "step-000010", "step-000020"]
        assert [row["step"] for row in three.metrics()] == [9, 19]
        assert log.checkpoint(20, crash, keep=2) == good  # it is there: nothing is written
        log.checkpoint(30, fill("again"), keep=2)
    assert names_of(three.checkpoints()) == [20, 30]
    assert three.newest_whole() == (bad, {})


def test_what_a_kill_left_behind_is_no_checkpoint_and_goes(three: Run) -> None:
    folder = three.path / "checkpoints"
    (folder / ".step-000040.writing" / "model").mkdir(parents=True)
    (folder / ".step-000040.writing" / "manifest.json").write_text("{}")
    (folder / ".step-000000.deleting").mkdir()
    assert three.newest_whole()[0] == folder / "step-000030"
    with RunLog(three.path, resuming=True) as log:
        log.begin("steps = 9\n", 30)
    assert names(folder) == ["step-000010", "step-000020", "step-000030"]


def test_what_is_half_deleted_is_no_checkpoint(three: Run, log: RunLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: Path, **_: Any) -> None:
        if folder.exists():
            (folder / "state.json").unlink()
            raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(OSError, match="killed"):
            log.checkpoint(40, fill("40"), keep=1)
    assert all(flaw(folder) is None for folder in three.checkpoints())
    assert names_of(three.checkpoints()) == [20, 30, 40]
    with RunLog(three.path, resuming=True) as again:
        again.begin("steps = 9\n", 40)
    assert names(three.path / "checkpoints") == ["step-000020", "step-000030", "step-000040"]


def test_the_best_are_kept_besides_the_newest(log: RunLog) -> None:
    run = Run(log.path)
    accuracies = {1: 0.2, 2: 0.9, 3: None, 4: 0.7, 5: 0.9, 6: None, 7: 0.1, 8: 0.3}
    for step, accuracy in accuracies.items():
        log.metrics({"step": step - 1} | ({} if accuracy is None else {"accuracy": accuracy}))
        log.checkpoint(step, fill(str(step)), keep=2, best=2)
    assert names_of(run.checkpoints()) == [2, 5, 7, 8]
    assert names_of(run.best()) == [5, 2, 8, 7]  # of equals the newest first
    log.metrics({"step": 8})
    log.checkpoint(9, fill("9"), keep=1, best=1)
    assert names_of(run.checkpoints()) == [5, 9]


def test_an_accuracy_belongs_to_its_own_step(log: RunLog) -> None:
    log.metrics({"step": 0, "accuracy": 0.5})
    log.checkpoint(2, fill("2"), keep=1)
    assert Run(log.path).best() == []


def test_what_is_not_whole_is_not_counted_among_those_kept(three: Run, log: RunLog) -> None:
    damage(three.checkpoints()[-1], "manifest.json missing")
    log.checkpoint(40, fill("40"), keep=2)
    assert names_of(three.checkpoints()) == [20, 40]


def test_a_process_that_does_not_write_only_helps_to_fill(log: RunLog) -> None:
    before = names(log.path)
    helped = []
    with RunLog(log.path, writes=False) as other:
        other.begin("steps = 4\n", 0)
        other.metrics({"step": 0})
        other.rollouts([{"step": 0}])
        other.result(before=BEFORE)

        def help(folder: Path) -> dict[str, Any]:
            helped.append(folder.relative_to(log.path).as_posix())
            return {}

        other.checkpoint(3, help, keep=1)
        other.folder("final", help)
    assert helped == ["checkpoints/.step-000003.writing", ".final.writing"]
    assert names(log.path) == before
    assert (log.path / "config.toml").read_text() == "steps = 3\n"
    assert Run(log.path).metrics() == []


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
