"""Each guard fires on a run that was made to fail in its way, and none does on healthy ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import rlvr
from rlvr import registry
from rlvr.config import GuardConfig
from rlvr.errors import ConfigError, RunStopped, UnknownNameError
from rlvr.guards import Watch
from rlvr.learner.learner import Learner
from rlvr.settings import resolve_run
from rlvr.stages.sft import sft

PLUGIN = Path(__file__).parents[1] / "plugins" / "gamed.py"
HEALTHY = Path(__file__).parents[1] / "corpora" / "runs" / "math-healthy.jsonl"


@pytest.fixture(autouse=True, scope="module")
def _plugin_ends_here() -> Iterator[None]:
    """The plugin of these tests is in no other module's registry."""
    before = registry.registry()
    yield
    registry._current = before


def settings(out: Path, **changes: Any) -> dict[str, Any]:
    """A small run on the starter of `math`."""
    base: dict[str, Any] = {
        "task": "math",
        "model": "starter",
        "device": "cpu",
        "steps": 15,
        "out": str(out),
        "plugin": [str(PLUGIN)],
        "preflight": False,
        "sampler": {"group_size": 8, "prompts_per_step": 16, "max_tokens": 32, "dynamic": False},
        "scorer": {"workers": 1},
        "eval": {"limit": 100},
    }
    for name, value in changes.items():
        base[name] = base.get(name, {}) | value if isinstance(value, dict) else value
    return base


@pytest.fixture
def nonsense(tmp_path: Path, tokenizer: Any, fresh_model: Callable[..., Any]) -> str:
    """The folder of a model of random weights."""
    fresh_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def fired(run: rlvr.Run) -> list[str]:
    return [alarm["guard"] for alarm in run.alarms()]


# -------------------------------------------------------------------------------------------------------- healthy runs


def test_a_healthy_run_is_silent_and_measures_another_task_apart(tmp_path: Path) -> None:
    run = rlvr.train(**settings(tmp_path / "run", eval={"every": 5, "also": ["differences"]}))
    assert fired(run) == []
    assert run.before is not None
    assert run.after is not None
    assert run.after.accuracy > run.before.accuracy + 0.2
    assert run.after.problems == 100
    assert run.after.tasks == {}
    assert run.after.also["differences"].problems == 70
    measured = [row for row in run.metrics() if "accuracy" in row]
    assert [row["step"] for row in measured] == [4, 9, 14]
    for row in measured:
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
        assert row["differences/accuracy_low"] < row["differences/accuracy"] < row["differences/accuracy_high"]
    with pytest.raises(ConfigError, match=r"a resumed run keeps its `eval\.also`"):
        rlvr.train(resume=run.path, steps=16, eval={"also": ["sums"]})
    alone = rlvr.evaluate(task="differences", model=str(run.model), device="cpu", plugin=[str(PLUGIN)])
    assert alone == run.after.also["differences"]


def test_a_healthy_run_of_ppo_with_a_kl_target_is_silent(tmp_path: Path) -> None:
    anchored = {"kl_coef": 0.01, "kl_target": 2.0}
    run = rlvr.train(**settings(tmp_path / "run", algorithm="ppo", learner=anchored, steps=10, eval={"every": 5}))
    assert fired(run) == []
    assert len({row["reference_fingerprint"] for row in run.metrics()}) == 1
    assert {row["kl_target"] for row in run.metrics()} == {2.0}
    assert not any("baseline_error" in row for row in run.metrics())


def test_a_whole_healthy_run_is_silent() -> None:
    """The metrics of `rlvr train --task math --steps 60 --eval.every 5 --eval.limit 300`, from 40% to 92%."""
    watch = Watch(GuardConfig())
    rows = [json.loads(line) for line in HEALTHY.read_text().splitlines()]
    assert len(rows) == 61
    assert [alarm for row in rows for alarm in watch.look(row)] == []


# ------------------------------------------------------------------------------------------------ runs made to fail


def test_a_gamed_verifier_is_hacked_and_the_run_stops_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training pays whatever ends in 7; the model knew most of the sums before, and of the differences."""
    out = tmp_path / "run"
    gamed = {"task": "gamed-sevens", "learner": {"lr": 1e-3}, "eval": {"every": 5, "also": ["differences"]}}
    with pytest.raises(RunStopped) as stopped:
        rlvr.train(**settings(out, **gamed, steps=20, guards={"action": "stop"}))
    assert "the guard `reward-hacking` fired: since" in stopped.value.message
    assert "rollouts.jsonl" in stopped.value.hint
    run = rlvr.Run(out)
    first = run.alarms()
    assert {alarm["guard"] for alarm in first} == {"reward-hacking", "alignment-tax"}
    done = first[0]["step"] + 1
    assert [folder.name for folder in run.checkpoints()][-1] == f"step-{done:06d}"
    assert f"after step {done}, guard reward-hacking: since" in capsys.readouterr().err

    rlvr.train(resume=out, guards={"action": "stop"}, steps=done + 2)  # what has been said does not stop it again
    assert run.alarms()[: len(first)] == first
    assert len(run.metrics()) == done + 2
    last = rlvr.train(resume=out, guards={"action": "warn"}, steps=20)
    assert sorted(fired(last)) == ["alignment-tax", "mode-collapse", "reward-hacking"]
    assert last.after is not None
    assert last.after.accuracy < 0.1
    assert "guards that fired: reward-hacking" in capsys.readouterr().err


def test_all_that_ends_at_once_is_a_collapse(tmp_path: Path, nonsense: str) -> None:
    """Training pays for writing nothing: certain, wrong, all alike and short."""
    ends = {"task": "gamed-short", "model": nonsense, "learner": {"lr": 1e-2}, "sampler": {"max_tokens": 48}}
    run = rlvr.train(**settings(tmp_path / "run", **ends, eval={"every": 5}))
    assert sorted(fired(run)) == ["entropy-collapse", "length-drift", "mode-collapse", "reward-hacking"]


def test_pay_for_length_is_a_drift(tmp_path: Path, nonsense: str) -> None:
    long = {"task": "gamed-long", "model": nonsense, "learner": {"lr": 3e-3}, "sampler": {"max_tokens": 48}}
    run = rlvr.train(**settings(tmp_path / "run", **long, reward={"overlong": "keep"}, steps=10, eval={"every": 5}))
    assert "length-drift" in fired(run)
    assert "mode-collapse" not in fired(run)
    assert "entropy-collapse" not in fired(run)


def test_a_learning_rate_that_is_too_high_is_a_spike_of_kl(tmp_path: Path) -> None:
    wild = {"lr": 2e-3, "kl_coef": 1e-3, "kl_target": 0.2}
    run = rlvr.train(**settings(tmp_path / "run", algorithm="ppo", learner=wild, steps=3, eval={"limit": 20}))
    assert fired(run) == ["kl-spike"]
    assert run.alarms()[0]["value"] > 3 * 0.2


def test_groups_of_two_are_too_small(tmp_path: Path) -> None:
    pair = settings(tmp_path / "run", sampler={"group_size": 2}, steps=7, eval={"limit": 20})
    run = rlvr.train(**pair)
    assert fired(run) == ["small-group"]
    assert rlvr.train(**pair | {"out": str(tmp_path / "off"), "guards": {"action": "off"}}).alarms() == []


def test_a_reference_that_moves_is_not_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = Learner.update

    def trains_the_reference_too(self: Learner, *args: Any) -> dict[str, float]:
        if self.steps == 2:
            with torch.no_grad():
                for parameter in self.reference.parameters():  # type: ignore[union-attr]
                    parameter.mul_(1 - 1e-4)
        return update(self, *args)

    monkeypatch.setattr(Learner, "update", trains_the_reference_too)
    run = rlvr.train(**settings(tmp_path / "run", learner={"kl_coef": 0.01}, steps=4, eval={"limit": 20}))
    assert [(alarm["guard"], alarm["step"]) for alarm in run.alarms()] == [("reference-not-frozen", 2)]


def test_adapters_train_above_a_reference_that_stays(tmp_path: Path) -> None:
    adapted = {"lora": {"rank": 4}, "learner": {"kl_coef": 0.01, "lr": 1e-2}}
    run = rlvr.train(**settings(tmp_path / "run", **adapted, steps=3, eval={"limit": 10}))
    assert run.metrics()[2]["kl_sequence"] > 0
    assert len({row["reference_fingerprint"] for row in run.metrics()}) == 1


def test_a_reference_that_is_overwritten_between_two_starts_is_not_frozen(tmp_path: Path, nonsense: str) -> None:
    anchor = tmp_path / "anchor"
    shutil.copytree(nonsense, anchor)
    run = settings(
        tmp_path / "run",
        task="gamed-long",
        model=nonsense,
        learner={"kl_coef": 0.01, "reference": str(anchor)},
        steps=1,
        eval={"limit": 4},
    )
    first = rlvr.train(**run)
    assert fired(first) == []
    shutil.copytree(first.model, anchor, dirs_exist_ok=True)
    assert fired(rlvr.train(resume=first.path, steps=2)) == ["reference-not-frozen"]


# ----------------------------------------------------------------------------------------------------------- eval.also


def test_a_task_that_is_only_measured_is_another_one_that_there_is(tmp_path: Path) -> None:
    for also, error in ((["math"], ConfigError), (["sums", "sums"], ConfigError), (["sumz"], UnknownNameError)):
        with pytest.raises(error):
            rlvr.train(**settings(tmp_path / "run", eval={"also": also}))
    assert not (tmp_path / "run").exists()
    assert resolve_run({"eval.also": ["sums", "own.toml"]}).config.eval.also == ("sums", os.path.abspath("own.toml"))


def test_a_task_that_is_only_measured_has_its_own_limit_of_tokens() -> None:
    found = rlvr.evaluate(
        task="math",
        model="starter",
        device="cpu",
        plugin=[str(PLUGIN)],
        sampler={"max_tokens": 1},
        eval={"limit": 20, "also": ["differences"]},
    )
    assert found.accuracy < 0.2  # a first digit may be the answer
    assert found.problems == 20
    assert found.also["differences"].accuracy > 0.8


def test_a_stage_that_costs_another_task_says_so(tmp_path: Path) -> None:
    """Fine-tuned to answer 7 whatever is asked, and, for a healthy one, to answer rightly."""
    pairs = [(a, b) for a in range(40, 100) for b in range(10, 40, 3)]
    for name, answer in (("wrong", lambda a, b: 7), ("right", lambda a, b: a - b)):
        rows = [{"prompt": f"What is {a} - {b}?", "completion": f"\\boxed{{{answer(a, b)}}}"} for a, b in pairs]
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = sft(
            data=str(data),
            model="starter",
            device="cpu",
            steps=15,
            lr=3e-4,
            out=str(tmp_path / name),
            plugin=[str(PLUGIN)],
            eval={"also": ["differences"]},
        )
        assert fired(run) == (["alignment-tax"] if name == "wrong" else [])
        assert run.before is not None
        assert run.after is not None
        assert run.before.accuracy > 0.8
        assert (run.after.accuracy < 0.2) is (name == "wrong")
