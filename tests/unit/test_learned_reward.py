"""The settings of a run whose rewards are learned: what they default to, what is refused, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlvr import ConfigError, Task, gate, part
from rlvr.assembly import rewarded
from rlvr.cli import main
from rlvr.config import Resolved
from rlvr.modelserver import FACTS
from rlvr.provenance import changes, provenance
from rlvr.registry import registry
from rlvr.settings import all_learned, learned_warnings, resolve_run, rewarding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As much of a reward model as settings look at."""
    (tmp_path / FACTS).write_text(json.dumps({"mean": 0.0, "deviation": 1.0, "max_length": 100, "weights": "abc"}))
    return tmp_path


def resolve(folder: Path, **flags: Any) -> Resolved:
    return resolve_run({"reward.verifier": "reward-model", "reward.model": str(folder), **flags})


def test_a_learned_reward_is_anchored_by_an_adaptive_kl_in_the_reward_and_measured_on_the_way(folder: Path) -> None:
    resolved = resolve(folder, algorithm="ppo", steps=50)
    config = resolved.config
    assert config.reward.shaper == "learned"
    assert (config.learner.kl_coef, config.learner.kl_in, config.learner.kl_estimator) == (0.05, "reward", "k1")
    assert config.learner.kl_target == 6.0
    assert config.eval.every == 5
    assert resolved.origins["learner.kl_coef"] == "learned reward"
    assert config.learner.advantage == "gae"
    assert learned_warnings(config) == []


def test_flags_and_the_task_are_stronger(folder: Path) -> None:
    flags = {"learner.kl_coef": 0.2, "reward.shaper": "partial", "eval.every": 7, "learner.kl_target": 3}
    config = resolve(folder, **flags).config
    assert (config.learner.kl_coef, config.reward.shaper, config.eval.every) == (0.2, "partial", 7)
    assert config.learner.kl_target == 3
    assert resolve(folder).config.learner.lr == registry().task("math").defaults["learner.lr"]


@pytest.mark.parametrize("flags", [{"learner.kl_coef": 0}, {"learner.reference": "none"}])
def test_the_kl_can_be_turned_off_and_that_is_said_plainly(folder: Path, flags: dict[str, Any]) -> None:
    config = resolve(folder, **flags).config
    assert (config.learner.kl_coef, config.learner.kl_target) == (0, 0)
    assert config.reward.shaper == "learned"
    (line,) = learned_warnings(config)
    assert "nothing keeps the policy near" in line
    blind = resolve(folder, **{"eval.every": 0}).config
    assert any("being hacked" in line for line in learned_warnings(blind))


def test_without_a_learned_reward_nothing_changes() -> None:
    config = resolve_run({}).config
    assert (config.reward.verifier, config.reward.shaper, config.learner.kl_coef) == ("", "binary", 0)


TASK = """
name = "style"
prompt = "{{question}}"
verifier = %s
[data]
path = "rows.jsonl"
answer = "answer"
"""


def own_verifier(folder: Path, verifier: str) -> str:
    """A task file whose own verifier that is."""
    (folder / "rows.jsonl").write_text('{"question": "1+1=?", "answer": "2"}\n')
    (folder / "style.toml").write_text(TASK % verifier)
    return str(folder / "style.toml")


def test_a_task_whose_own_verifier_is_learned_is_anchored_as_well_and_said_to_prove_nothing(folder: Path) -> None:
    task = own_verifier(folder, f'{{ name = "reward-model", model = "{folder}" }}')
    resolved = resolve_run({"task": task, "model": "starter"})
    config = resolved.config
    assert (config.reward.shaper, config.learner.kl_coef, config.learner.kl_target) == ("learned", 0.05, 6.0)
    assert resolved.origins["learner.kl_coef"] == "learned reward"
    (line,) = learned_warnings(config)
    assert "held-out accuracy of `style` is learned too" in line
    bare, _ = learned_warnings(resolve_run({"task": task, "model": "starter", "learner.kl_coef": 0}).config)
    assert bare.startswith("the reward is learned and `learner.kl_coef` is 0")


def test_a_learned_part_of_a_tasks_verifier_changes_nothing_but_is_warned_of_without_an_anchor(folder: Path) -> None:
    parts = f'{{ answer = "math", style = {{ name = "reward-model", model = "{folder}" }} }}'
    task = own_verifier(folder, f'{{ rule = "gate", parts = {parts} }}')
    config = resolve_run({"task": task, "model": "starter"}).config
    assert (config.reward.shaper, config.learner.kl_coef) == ("binary", 0)
    (line,) = learned_warnings(config)
    assert line.startswith("a part of the reward is learned and `learner.kl_coef` is 0")
    assert learned_warnings(resolve_run({"task": task, "model": "starter", "learner.kl_coef": 0.05}).config) == []


def test_a_composition_of_nothing_but_learned_parts_is_learned(folder: Path) -> None:
    model = part("reward-model", model=str(folder))
    assert all_learned(gate(a=model, b=model))
    assert not all_learned(gate(a=model, b="math"))
    model_too = f'{{ name = "reward-model", model = "{folder}" }}'
    task = own_verifier(folder, f'{{ rule = "any-of", parts = {{ a = {model_too}, b = {model_too} }} }}')
    config = resolve_run({"task": task, "model": "starter"}).config
    assert (config.reward.shaper, config.learner.kl_coef) == ("binary", 0.05)  # a composition has no raw score
    assert len(rewarding(config)) == 1


def test_a_learned_verifier_is_no_task_to_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = own_verifier(folder, f'{{ name = "reward-model", model = "{folder}" }}')
    assert main(["tasks", "check", task]) == 2
    assert "has a learned verifier, by whose own word no completion is right or wrong" in capsys.readouterr().err


def test_a_reward_model_is_no_policy(folder: Path) -> None:
    """With tied embeddings its weights would load as those of a language model."""
    import torch

    from rlvr.learner.policy import load_policy

    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="is a reward model") as caught:
        load_policy(str(folder), torch.device("cpu"))
    assert "`--reward.model`" in caught.value.hint


@pytest.mark.parametrize("low", [0.41, 0.5, 0.51])
def test_a_reward_model_that_is_not_above_chance_is_not_handed_over_without_a_word(low: float) -> None:
    from rlvr.stages.calibration import Validation
    from rlvr.stages.reward import doubts

    def found(low: float, pairs: int) -> Validation:
        known: dict[str, Any] = {"accuracy": 0.6, "low": low, "high": 0.7, "pairs": pairs}
        return Validation(**{name: known.get(name, 0) for name in Validation.__dataclass_fields__})

    said = doubts(found(low, 50))
    assert ["not above chance" in line for line in said] == [True] * (low <= 0.5)
    (*_, line) = doubts(found(low, 49))
    assert "only 49 pairs are held out" in line


def test_what_a_reward_model_cannot_be_measured_on_is_refused(tmp_path: Path) -> None:
    from rlvr.stages.reward import train_reward_model

    with pytest.raises(ConfigError, match=r"`eval\.also` does not go with `rlvr reward`"):
        train_reward_model(data="pairs.jsonl", model="starter", out=str(tmp_path / "r"), eval={"also": ["json"]})
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"reward.model": ""}, "which is learned, but `reward.model` names no model"),
        ({"reward.verifier": ""}, "rewards come from the task's own verifier"),
        ({"reward.verifier": "text"}, "rewards come from `text`, which is not learned"),
        ({"reward.model": "/nowhere"}, "`/nowhere` is no reward model"),
        ({"task": "tools"}, "does not go with a task of several turns"),
        ({"reward.verifier": "math", "reward.model": "", "reward.shaper": "learned"}, "rewards come from another"),
        ({"reward.verifier": "", "reward.model": "", "reward.shaper": "learned"}, "rewards come from another"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(folder, **flags)


def test_a_verifier_that_is_not_learned_may_reward_in_place_of_the_tasks_own() -> None:
    task = registry().task("math")
    other = rewarded(task, resolve_run({"reward.verifier": "text"}).config.reward)
    assert (other.verifier, other.verifier_options) == ("text", {})
    assert rewarded(task, resolve_run({}).config.reward) is task


def test_the_task_that_is_trained_on_has_the_learned_verifier_and_the_registrys_keeps_its_own(folder: Path) -> None:
    task = registry().task("math")
    judged = rewarded(task, resolve(folder).config.reward)
    assert (judged.verifier, judged.verifier_options) == ("reward-model", {"model": str(folder)})
    assert registry().task("math").verifier == task.verifier == "math"


def test_a_resumed_run_says_that_its_reward_model_is_another_one(folder: Path) -> None:
    judged: list[Task] = [rewarded(registry().task("math"), resolve(folder).config.reward)]
    then = provenance(judged, registry())
    assert changes(then, provenance(judged, registry())) == []
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps({**facts, "weights": "abd"}))
    (change,) = changes(then, provenance(judged, registry()))
    assert "the reward model of `math` was" in change


def test_the_model_is_found_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert resolve(Path(folder.name)).config.reward.model == str(folder)
    assert resolve(Path("unix:/x/socket")).config.reward.model == "unix:/x/socket"  # one that is served already


def test_the_command_line_calls_it_reward_and_shows_where_its_defaults_came_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["train", "--reward", "reward-model", "--reward.model", str(folder), "--algorithm", "ppo", "--dry-run"]
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert 'verifier = "reward-model"  # flag' in out
    assert "kl_coef = 0.05  # learned reward" in out
    assert main(["train", "--reward", "reward-model", "--dry-run"]) == 2
    assert (
        "`--reward` is `reward-model`, which is learned, but `--reward.model` names no model" in capsys.readouterr().err
    )


def test_the_stage_has_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "--data", "pairs.jsonl", "--model", "starter", "--patience", "5", "--dry-run"]) == 0
    assert "patience = 5  # flag" in capsys.readouterr().out
    assert main(["reward", "--model", "starter"]) == 2
    assert "`rlvr reward` has nothing to learn from" in capsys.readouterr().err


def test_the_list_of_verifiers_marks_what_is_learned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verifiers", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["verifiers"]}
    assert [name for name, one in listed.items() if one["learned"]] == ["reward-model"]
    assert main(["verifiers", "show", "reward-model"]) == 0
    assert "learned    yes: a model's opinion, no check" in capsys.readouterr().out
