"""Reward models end to end, on a preference task whose true reward is known: `rlvr reward`, and PPO against its model.

`preference_task.py` says what the task is. Seeds are fixed; what is asserted has wide margins on every seed tried.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlvr import DataError
from rlvr.errors import UsageError
from rlvr.modelserver import read_facts
from rlvr.runlog import Run
from rlvr.stages.calibration import validation
from rlvr.stages.config import resolve_stage

sys.path.insert(0, str(Path(__file__).parent))
import preference_task as task

PLUGIN = task.__file__
RM: dict[str, Any] = {"lr": 3e-3, "epochs": 8, "eval_every": 20, "micro_batch_size": 32, "device": "cpu"}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return task.make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return task.write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", 3000)


def reward_model(out: Path, data: Path, policy: Path, **settings: Any) -> Run:
    from rlvr.stages.reward import train_reward_model

    return train_reward_model(**{**RM, "data": str(data), "model": str(policy), "out": str(out), **settings})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, policy: Path, pairs: Path) -> Run:
    """The healthy run."""
    return reward_model(tmp_path_factory.mktemp("reward") / "run", pairs, policy)


def series(run: Run, name: str) -> list[float]:
    return [row[name] for row in run.metrics() if name in row]


def alarms(run: Run) -> list[str]:
    file = run.path / "guards.jsonl"
    return [json.loads(line)["guard"] for line in file.read_text().splitlines()] if file.is_file() else []


# --------------------------------------------------------------------------------------------------- rlvr reward


def test_training_stops_on_the_plateau_of_accuracy_while_the_loss_still_falls(run: Run) -> None:
    result = json.loads((run.path / "result.json").read_text())
    accuracies, losses = series(run, "validation/accuracy"), series(run, "validation/loss")
    everything = 8 * 2693 // 32  # updates of all epochs
    assert result["updates"] < everything / 2
    assert max(accuracies[:-4]) < accuracies[-4] == 1.0 == max(accuracies)  # the best, and then three for `patience`
    assert losses[-1] < 0.8 * losses[-4], "by loss it would have gone on"
    assert series(run, "validation/pairs")[0] == 307
    assert series(run, "train/accuracy")[-1] > 0.9


def test_the_model_that_is_left_is_the_best_one_not_the_last(run: Run, pairs: Path) -> None:
    from rlvr.stages.serve import RewardModel

    result = json.loads((run.path / "result.json").read_text())["validation"]
    losses = series(run, "validation/loss")
    assert result["accuracy"] == 1.0
    assert result["loss"] == pytest.approx(losses[-4], rel=1e-4), "the first of the best"
    facts = read_facts(run.model)
    assert facts["accuracy"] == result["accuracy"]
    assert facts["ece"] == result["ece"]
    model = RewardModel(str(run.model), "cpu")
    rows = [json.loads(line) for line in pairs.read_text().splitlines()[:400]]
    raw = [
        [a["raw"] for a in model.answers([{"prompt": row["prompt"], "completion": row[which]} for row in rows])]
        for which in ("chosen", "rejected")
    ]
    found = validation(*raw)
    assert found.accuracy > 0.98
    assert found.mean == pytest.approx(facts["mean"], abs=0.5 * facts["deviation"])


def test_the_report_has_accuracy_with_its_interval_calibration_and_margins(run: Run) -> None:
    text = (run.path / "report.md").read_text()
    assert "| pairwise accuracy | 100.0% [98.8%, 100.0%] |" in text
    assert "| calibration error | 0.0" in text
    assert "| margin, tenth / median / ninetieth percentile |" in text
    assert "accuracy was on its plateau" in text
    assert (run.path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert not (run.path / "checkpoints").exists()


def test_a_flipped_loss_would_not_go_unnoticed(
    tmp_path: Path, policy: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run with the sign of the loss turned round orders held-out pairs the wrong way."""
    from rlvr.stages.reward import Trainer

    right = Trainer.compute_loss

    def flipped(self: Any, model: Any, inputs: Any, **options: Any) -> Any:
        half = len(inputs["input_ids"]) // 2
        swapped = {name: value.roll(half, 0) for name, value in inputs.items()}
        return right(self, model, swapped, **options)

    monkeypatch.setattr(Trainer, "compute_loss", flipped)
    worst = reward_model(tmp_path / "run", pairs, policy, steps=80, patience=50, eval_every=80)
    assert series(worst, "validation/accuracy")[-1] < 0.1


def test_the_guard_for_overfitting_fires_on_noise_and_is_silent_on_the_healthy_run(
    tmp_path: Path, policy: Path, run: Run
) -> None:
    noisy = task.write_pairs(tmp_path / "noise.jsonl", 300, noise=1.0)
    settings = {"steps": 140, "patience": 100, "hold_out": 0.3, "schedule": "constant"}
    assert "reward-model-overfitting" in alarms(reward_model(tmp_path / "run", noisy, policy, **settings))
    assert "Guards" in (tmp_path / "run" / "report.md").read_text()
    assert alarms(run) == []


def test_adapters_are_merged_into_what_is_left(tmp_path: Path, policy: Path, pairs: Path) -> None:
    from rlvr.stages.serve import RewardModel

    done = reward_model(tmp_path / "run", pairs, policy, steps=20, limit=400, lora={"rank": 4}, eval_every=10)
    model = RewardModel(str(done.model), "cpu")
    from rlvr.examples.checks import hold_out
    from rlvr.examples.reading import read_pairs

    _, held = hold_out(read_pairs(str(pairs))[0][:400], 0.1, 0)
    raw = [
        [a["raw"] for a in model.answers([{"prompt": pair.prompt, "completion": text} for pair, text in each])]
        for each in ([(p, p.chosen) for p in held], [(p, p.rejected) for p in held])
    ]
    result = json.loads((done.path / "result.json").read_text())["validation"]
    assert validation(*raw).loss == pytest.approx(result["loss"], rel=1e-4)
    assert (done.model / "adapter" / "adapter_config.json").is_file()


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path: Path, policy: Path, pairs: Path) -> None:
    from rlvr.stages.reward import Plateau, train_reward_model

    given = {"steps": 40, "limit": 400, "eval_every": 10}
    whole = reward_model(tmp_path / "whole", pairs, policy, **given)
    before = Plateau.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        before(self, args, state, control, **rest)
        if state.global_step == 25:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plateau, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            reward_model(tmp_path / "run", pairs, policy, **given)
    resumed = train_reward_model(resume=tmp_path / "run")
    assert series(resumed, "validation/loss") == pytest.approx(series(whole, "validation/loss"), rel=1e-3)


def test_a_finished_run_says_what_its_model_is_good_for(tmp_path: Path) -> None:
    """A reward model is no policy to start from."""
    from rlvr.stages.run import open_stage

    (tmp_path / "final").mkdir()
    resolved = resolve_stage("reward", {"task": "math", "model": "starter", "device": "cpu"})
    with pytest.raises(UsageError, match="is finished") as caught, open_stage(resolved, tmp_path):
        pass
    assert "`--reward.model` of `rlvr train`" in caught.value.hint


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        ("a", "a", "chosen-equals-rejected .*line 1"),
        ("a", "", "empty-completion .*line 1"),
        ("a" * 80, "b", "too-long .*line 1"),
        (None, "b", "line 1"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, policy: Path, chosen: str | None, rejected: str, said: str
) -> None:
    bad = {"prompt": "1?", "rejected": rejected} | ({} if chosen is None else {"chosen": chosen})
    good = [{"prompt": f"{n}?", "chosen": "a", "rejected": "b"} for n in range(2, 5)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [bad, *good]))
    with pytest.raises(DataError, match=said):
        reward_model(tmp_path / "run", data, policy)


def test_pairs_of_one_prompt_are_refused_as_none_could_be_held_out(tmp_path: Path, policy: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps({"prompt": "1?", "chosen": "a" * n, "rejected": "b"}) + "\n" for n in (1, 2)))
    with pytest.raises(DataError, match="pairs of one prompt only"):
        reward_model(tmp_path / "run", data, policy)


# --------------------------------------------------------------------------------- training against the reward model


def against(run: Run, policy: Path, out: Path, **settings: Any) -> Run:
    """A run of `rlvr train` whose rewards are the reward model's, and whose held-out accuracy is the true one."""
    from rlvr.loop import train

    known = {
        "task": "letters",
        "plugin": [PLUGIN],
        "model": str(policy),
        "out": str(out),
        "algorithm": "ppo",
        "steps": 24,
        "device": "cpu",
        "save_every": 0,
        "reward.verifier": "reward-model",
        "reward.model": str(run.model),
        "sampler.max_tokens": 24,
        "sampler.group_size": 4,
        "sampler.prompts_per_step": 16,
        "learner.lr": 1e-3,
        "learner.value_lr": 5e-3,
        "eval.limit": 64,
        "eval.temperature": 1.0,
        "eval.samples": 2,
        "eval.every": 8,
        "scorer.workers": 2,
    }
    return train(**{**known, **settings})


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory, run: Run, policy: Path) -> Run:
    out = tmp_path_factory.mktemp("ppo") / "anchored"
    return against(run, policy, out, **{"learner.kl_coef": 0.1, "learner.kl_target": 3, "learner.kl_horizon": 1000})


def test_ppo_anchored_by_its_kl_raises_the_learned_and_the_hidden_true_reward(anchored: Run) -> None:
    rewards = series(anchored, "reward")
    assert rewards[0] < 0.3
    assert sum(rewards[-4:]) / 4 > 1.0
    assert anchored.before is not None
    assert anchored.after is not None
    assert anchored.before.accuracy < 0.45
    assert anchored.after.accuracy > 0.75
    assert max(series(anchored, "kl_sequence")) < 8
    assert "reward-hacking" not in alarms(anchored)


def test_with_the_kl_off_the_reward_is_hacked_and_the_guard_says_so(
    tmp_path: Path, run: Run, policy: Path, anchored: Run
) -> None:
    hacked = against(run, policy, tmp_path / "run", steps=32, **{"learner.kl_coef": 0})
    assert "reward-hacking" in alarms(hacked)
    assert sum(series(hacked, "reward")[-4:]) > sum(series(anchored, "reward")[-4:]), "the learned reward is happier"
    assert hacked.after is not None
    assert anchored.after is not None
    assert hacked.after.accuracy < 0.35 < anchored.after.accuracy - 0.3, "people are not"


def test_rloo_learns_from_a_learned_reward_too_and_every_verdict_is_marked(
    tmp_path: Path, run: Run, policy: Path
) -> None:
    from rlvr.stages.calibration import sigmoid

    done = against(run, policy, tmp_path / "run", algorithm="rloo", steps=2, **{"eval.every": 0})
    rows = done.rollouts()
    assert all(row["verdict"]["parts"]["learned"] for row in rows)
    assert all(row["reward"] == row["verdict"]["parts"]["raw"] for row in rows)
    assert all(row["verdict"]["score"] == pytest.approx(sigmoid(row["reward"])) for row in rows)
    assert "kl" in done.metrics()[0]
    text = (done.path / "config.toml").read_text()
    assert 'shaper = "learned"  # learned reward' in text
    assert 'kl_in = "reward"  # learned reward' in text
