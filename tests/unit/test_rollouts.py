"""A stage's own rollouts: what is sampled follows from the seed, goes on where it was cut, and is never in doubt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlvr import Task
from rlvr.config import flatten
from rlvr.errors import ConfigError, RunStopped
from rlvr.stages import rollouts as module
from rlvr.stages.config import resolve_stage
from rlvr.stages.rollouts import check_turns, sample_task, whole_groups
from rlvr.stages.run import open_stage
from rlvr.types import Verdict

SAMPLES = 4
BATCH = 3  # groups that are decoded together


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_SAMPLER_BATCH_SIZE", str(BATCH * SAMPLES))


def sample(out: Path, resume: bool = False, samples: int = SAMPLES, **settings: Any) -> list[dict[str, Any]]:
    """The rollouts of eight prompts of `math`, by the starter, but for how long their verification took."""
    known = {} if resume else {"task": "math", "limit": 8, "out": str(out), **settings}
    resolved = resolve_stage("prefer", flatten(known), resume=out if resume else None)
    with open_stage(resolved, out if resume else None) as stage:
        file = sample_task(stage, *stage.load(), samples, 1.0)
    return rows_of(file)


def rows_of(file: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["verdict"]["duration"]
    return rows


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has sampled all that it should."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLVR_SAMPLER_BATCH_SIZE", str(BATCH * SAMPLES))
        sample(out)
    return out


@pytest.fixture(scope="module")
def whole(sampled: Path) -> list[dict[str, Any]]:
    return rows_of(sampled / "rollouts.jsonl")


@pytest.fixture
def out(sampled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(sampled, tmp_path / "run"))


def test_every_prompt_has_its_group_with_verdicts(whole: list[dict[str, Any]]) -> None:
    """In the format of `rlvr train`, before its first step; a group has one prompt and one number."""
    assert [row["group"] for row in whole] == [group for group in range(8) for _ in range(SAMPLES)]
    assert {row["step"] for row in whole} == {-1}
    assert len({row["sample"] for row in whole}) == 8
    assert all(len({row["prompt"] for row in whole[i : i + SAMPLES]}) == 1 for i in range(0, len(whole), SAMPLES))
    assert {row["verdict"]["status"] for row in whole} == {"passed", "failed"}
    assert all(row["reward"] == row["verdict"]["score"] for row in whole)


def test_the_prompts_are_those_that_training_begins_with(whole: list[dict[str, Any]]) -> None:
    from rlvr.mixture import Stream, load_mix
    from rlvr.registry import registry
    from rlvr.samples import samples

    ((task, weight),) = load_mix(registry(), "math")
    stream = Stream([(task, weight, samples(task, "train"))], seed=0)
    assert [row["sample"] for row in whole[::SAMPLES]] == [stream[place].sample.id for place in range(8)]


def test_what_verifies_gets_the_stages_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward model would run on the best one there is otherwise."""
    real, asked = module.make_scorer, []

    def noted(scorer: Any, sandbox: Any, device: str = "") -> Any:
        asked.append(device)
        return real(scorer, sandbox, device)

    monkeypatch.setattr(module, "make_scorer", noted)
    sample(tmp_path / "run", device="cpu", limit=1)
    assert asked == ["cpu"]


def test_another_seed_samples_something_else(whole: list[dict[str, Any]], tmp_path: Path) -> None:
    assert sample(tmp_path / "run", seed=1) != whole


@pytest.mark.parametrize("kept", [0, 5 * SAMPLES, BATCH * 2 * SAMPLES + 2])
def test_a_cut_run_goes_on_to_the_same_rollouts(kept: int, whole: list[dict[str, Any]], out: Path) -> None:
    """Cut in the middle of a line, wherever that is; what is behind the last whole batch is sampled again."""
    file = out / "rollouts.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
    assert sample(out, resume=True) == whole


def test_what_is_complete_is_not_sampled_again(
    whole: list[dict[str, Any]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TransformersSampler", None)  # whoever uses it fails
    assert sample(out, resume=True) == whole


def test_groups_of_another_size_are_refused(out: Path) -> None:
    with pytest.raises(ConfigError, match=f"groups of {SAMPLES} completions, and `samples` is 2"):
        sample(out, resume=True, samples=2)


def test_no_file_is_no_group(tmp_path: Path) -> None:
    assert whole_groups(tmp_path / "rollouts.jsonl", SAMPLES, BATCH, 8) == 0


def test_too_many_missing_verdicts_stop_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are missing data, never wrong answers, so nothing must be learned from what is left."""
    real = module.reward_group

    def fail(config: Any, shaper: Any, closed: Any) -> Any:
        broken = tuple(Verdict.error("the checker is gone") for _ in closed.verdicts)
        return real(config, shaper, type(closed)(closed.problem, closed.prompt, closed.completions, broken))

    monkeypatch.setattr(module, "reward_group", fail)
    with pytest.raises(RunStopped, match="100% of the step's verdicts are missing"):
        sample(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert {row["reward"] for row in rows} == {None}


@pytest.mark.parametrize(("kind", "said"), [({"turns": 2}, "several turns"), ({"show_tools": True}, "shows tools")])
def test_tasks_of_more_than_one_answer_are_refused(kind: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_turns(Task("chat", "exact", lambda split: iter(()), "Chat.", **kind))
