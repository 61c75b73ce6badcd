"""Settings: which layer wins, what is refused and how, and that a config written as TOML is read back the same."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import ConfigError
from rlvr.config import (
    ALGORITHMS,
    Leaf,
    Resolved,
    TrainConfig,
    flatten,
    from_environment,
    from_toml,
    leaves,
    resolve,
    to_toml,
    warnings,
)
from rlvr.settings import resolve_run

LEAVES = leaves()


def lr(resolved: Resolved) -> tuple[float, str]:
    """A value and its origin."""
    return resolved.config.learner.lr, resolved.origins["learner.lr"]


# ---------------------------------------------------------------------------------------------------- precedence


def test_our_defaults_are_those_of_the_dataclasses_and_the_recipe() -> None:
    resolved = resolve([])
    assert resolved.config.learner.lr == TrainConfig().learner.lr
    assert resolved.origins["learner.lr"] == "default"
    assert resolved.config.learner.clip_high == 0.28
    assert resolved.origins["learner.clip_high"] == "algorithm dapo"
    assert set(resolved.origins) == set(LEAVES)


@pytest.mark.parametrize("strength", range(5))
def test_the_strongest_layer_wins_and_is_named(strength: int) -> None:
    task: dict[str, Any] = {"learner.lr": 1e-5}
    layers: list[tuple[str, dict[str, Any]]] = [
        ("config a.toml", {"learner.lr": 2e-5}),
        ("config b.toml", {"learner.lr": 3e-5}),
        ("environment", {"learner.lr": "4e-5"}),
        ("flag", {"learner.lr": "5e-5"}),
    ]
    expected = [(1e-5, "task"), (2e-5, "config a.toml"), (3e-5, "config b.toml"), (4e-5, "environment"), (5e-5, "flag")]
    assert lr(resolve(layers[:strength], task)) == expected[strength]


def test_a_layer_changes_only_what_it_names() -> None:
    plain, changed = resolve([]), resolve([("flag", {"sampler.group_size": 4})])
    assert changed.config == dataclasses.replace(
        plain.config, sampler=dataclasses.replace(plain.config.sampler, group_size=4)
    )
    assert {name for name in LEAVES if changed.origins[name] != plain.origins[name]} == {"sampler.group_size"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_is_its_recipe(algorithm: str) -> None:
    resolved = resolve([("flag", {"algorithm": algorithm})])
    values = flatten(dataclasses.asdict(resolved.config))
    for name, value in ALGORITHMS[algorithm].settings.items():
        assert values[name] == value
        assert resolved.origins[name] == f"algorithm {algorithm}"


def test_a_recipe_is_weaker_than_every_layer_wherever_the_algorithm_is_named() -> None:
    resolved = resolve([("config a.toml", {"learner.clip_high": 0.5}), ("flag", {"algorithm": "dapo"})])
    assert resolved.config.learner.clip_high == 0.5
    by_task = resolve([("flag", {"algorithm": "grpo"})], {"reward.overlong": "filter"})
    assert (by_task.config.reward.overlong, by_task.config.learner.aggregate) == ("filter", "sequence")


def test_the_strongest_algorithm_gives_the_recipe() -> None:
    resolved = resolve([("config a.toml", {"algorithm": "dapo"}), ("flag", {"algorithm": "grpo"})])
    assert (resolved.config.algorithm, resolved.config.sampler.dynamic) == ("grpo", False)


def test_every_recipe_names_settings_that_exist() -> None:
    assert {name for recipe in ALGORITHMS.values() for name in recipe.settings} <= set(LEAVES)


# ------------------------------------------------------------------------------------------------------- values


def of(name: str, raw: Any) -> Any:
    """What `raw` becomes as a flag."""
    return flatten(dataclasses.asdict(resolve([("flag", {name: raw})]).config))[name]


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("steps", "12", 12),
        ("steps", 12, 12),
        ("steps", 12.0, 12),
        ("learner.lr", "1e-3", 1e-3),
        ("learner.lr", 1, 1.0),
        ("sampler.dynamic", "False", False),
        ("sampler.dynamic", "1", True),
        ("sampler.dynamic", True, True),
        ("task", Path("a/b.toml"), "a/b.toml"),
        ("plugin", "a.py", ("a.py",)),
        ("plugin", ["a.py", "b.py"], ("a.py", "b.py")),
        ("learner.schedule", "cosine", "cosine"),
        ("learner.kl_coef", 0, 0.0),
    ],
)
def test_values_become_the_type_of_their_setting(name: str, raw: Any, value: Any) -> None:
    assert of(name, raw) == value
    assert type(of(name, raw)) is type(value)


@pytest.mark.parametrize(
    ("name", "raw", "wanted"),
    [
        ("steps", "1.5", "a whole number"),
        ("steps", 1.5, "a whole number"),
        ("steps", "many", "a whole number"),
        ("steps", True, "a whole number"),
        ("steps", math.inf, "a whole number"),
        ("steps", math.nan, "a whole number"),
        ("steps", "inf", "a whole number"),
        ("steps", None, "a whole number"),
        ("steps", 0, "at least 1"),
        ("seed", 10**400, "a whole number"),
        ("learner.lr", "fast", "a number"),
        ("learner.lr", False, "a number"),
        ("learner.lr", [1e-3], "a number"),
        ("learner.lr", "nan", "a number"),
        ("learner.lr", math.nan, "a number"),
        ("learner.lr", "inf", "a number"),
        ("learner.lr", math.inf, "a number"),
        ("learner.lr", "1e999", "a number"),
        ("learner.lr", 10**400, "a number"),
        ("learner.lr", -1e-9, "at least 0"),
        ("learner.clip_low", 1.01, "at most 1"),
        ("learner.beta1", 1, "at most 0.99999"),
        ("sampler.group_size", 0, "at least 1"),
        ("sampler.temperature", 0, "at least 0.001"),
        ("sampler.top_p", 0, "at least 1e-06"),
        ("sampler.dynamic", "perhaps", "true or false"),
        ("sampler.dynamic", 1, "true or false"),
        ("model", 3, "text"),
        ("plugin", 3, "a list of strings"),
        ("plugin", ["a.py", 3], "a list of strings"),
        ("algorithm", "gropo", "one of `grpo`, `dapo`, `dr-grpo`, `gspo`, `cispo`, `rloo`, `reinforce++`, `ppo` ("),
        ("algorithm", ["grpo"], "one of `grpo`, `dapo`, `dr-grpo`, `gspo`, `cispo`, `rloo`, `reinforce++`, `ppo`"),
        ("learner.schedule", "", "one of `constant`, `linear`, `cosine`"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_origin(name: str, raw: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([("config a.toml", {name: raw})])
    assert caught.value.message.startswith(f"`{name}` is `{raw}`, but must be {wanted}")
    assert caught.value.message.endswith("(config a.toml)")
    told = f"give `{name}` {wanted}; it is: {LEAVES[name].help}"
    assert caught.value.hint == ("did you mean `grpo`?" if raw == "gropo" else told)


@pytest.mark.parametrize(
    ("name", "near"),
    [("learner.lrr", "`learner.lr`"), ("sampler.groupsize", "`sampler.group_size`"), ("Task", "`task`")],
)
def test_an_unknown_setting_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no setting `{name}`") as caught:
        resolve([("flag", {name: 1})])
    assert near in caught.value.hint


def test_an_unknown_setting_far_from_all_says_where_to_look() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([("flag", {"quux": 1})])
    assert caught.value.hint == "`rlvr train --help` lists them all"


@pytest.mark.parametrize(
    "values",
    [
        {"eval.samples": 4},
        {"reward.overlong_buffer": 256},
        {"learner.updates_per_step": 33},
    ],
    ids=lambda values: next(iter(values)),
)
def test_values_that_cannot_go_together_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(values))}`") as caught:
        resolve([("flag", values)])
    assert caught.value.hint


def test_small_groups_are_warned_about() -> None:
    assert "groups of 4 completions" in warnings(resolve([("flag", {"sampler.group_size": 4})]).config)[0]
    assert warnings(resolve([]).config) == []


def test_every_setting_has_a_help_line_a_default_in_range_and_a_variable_of_its_own() -> None:
    assert len({name.replace(".", "_") for name in LEAVES}) == len(LEAVES)
    for name, leaf in LEAVES.items():
        assert leaf.help.endswith("."), name
        assert of(name, leaf.default) == leaf.default


# ------------------------------------------------------------------------------------------- environment and files


def test_environment_variables_name_settings_in_capitals() -> None:
    environ = {
        "RLVR_LEARNER_LR": "1e-3",
        "RLVR_SAMPLER_GROUP_SIZE": "4",
        "RLVR_TASK": "gsm8k",
        "PATH": "/bin",
        "RLVR_DISABLE_PLUGINS": "1",
        "RLVR_DEBUG": "1",
    }
    layer = from_environment(environ)
    assert layer == {"learner.lr": "1e-3", "sampler.group_size": "4", "task": "gsm8k"}
    config = resolve([("environment", layer)]).config
    assert (config.learner.lr, config.sampler.group_size, config.task) == (1e-3, 4, "gsm8k")


def test_a_misspelt_variable_is_not_ignored() -> None:
    with pytest.raises(ConfigError, match="`RLVR_LEARNER_LRR` names no setting") as caught:
        from_environment({"RLVR_LEARNER_LRR": "1"})
    assert caught.value.hint == "did you mean `RLVR_LEARNER_LR`?"
    with pytest.raises(ConfigError) as caught:
        from_environment({"RLVR_DISABLE_PLUGIN": "1"})
    assert caught.value.hint == "did you mean `RLVR_DISABLE_PLUGINS`?"


def test_a_seed_fits_every_generator_and_switches_take_words() -> None:
    assert resolve([("flag", {"seed": 2**32 - 1})]).config.seed == 2**32 - 1
    with pytest.raises(ConfigError, match="must be at most 4294967295"):
        resolve([("flag", {"seed": 2**32})])
    for word, value in (("on", True), ("off", False)):
        assert resolve([("flag", {"sampler.dynamic": word})]).config.sampler.dynamic is value


def test_a_file_may_nest_its_tables_or_dot_its_names(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('steps = 3\nlearner.lr = 1e-3\n"eval.limit" = 7\n[sampler]\ngroup_size = 4\n')
    assert from_toml(file) == {"steps": 3, "learner.lr": 1e-3, "eval.limit": 7, "sampler.group_size": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no config file"),
        (b"steps = \n", r"is not TOML: Invalid value \(at line 1"),
        (b"\xff\xfe", "is not TOML"),
        ("folder", "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | str | None, message: str) -> None:
    file = tmp_path / "a.toml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    with pytest.raises(ConfigError, match=message) as caught:
        from_toml(file)
    assert f"`{file}`" in caught.value.message


# ----------------------------------------------------------------------------------------------- there and back

TEXT = st.text("aZ09 é😀\"'\\#=[]{}\n\r\t\b\f\x00\x1f\x7f\x85\u2028") | st.text(max_size=5)


def values_of(leaf: Leaf) -> st.SearchStrategy[Any]:
    """Any value that a setting may have."""
    low, high = leaf.low, leaf.high
    if typing.get_origin(leaf.type) is Literal:
        return st.sampled_from(typing.get_args(leaf.type))
    if typing.get_origin(leaf.type) is tuple:
        return st.lists(TEXT, max_size=3).map(tuple)
    if leaf.type is bool:
        return st.booleans()
    if leaf.type is str:
        return TEXT
    if leaf.type is int:
        return st.integers(int(low or 0), int(high or 2**53))
    return st.floats(low, high if high is not None else 1e300, allow_nan=False)


BOUND = ["eval.samples", "reward.overlong_buffer", "learner.updates_per_step", "sampler.backend"]  # to others
BOUND += ["sampler.group_size", "sampler.prompts_per_step", "learner.kl_coef", "learner.kl_target", "lora.quantize"]
BOUND += ["learner.dual_clip", "reward.difficulty"]
BOUND += ["sampler.url", "sampler.options"]  # to a form
LAYERS = st.fixed_dictionaries({}, optional={n: values_of(leaf) for n, leaf in LEAVES.items() if n not in BOUND})


@given(LAYERS)
def test_a_config_is_read_back_from_its_toml_as_it_was(layer: dict[str, Any]) -> None:
    resolved = resolve([("flag", layer)])
    for text in (resolved.toml(), resolved.toml(origins=False), to_toml(resolved.config)):
        assert text.encode()  # it can be written to a file
        again = resolve([("resumed run", flatten(tomllib.loads(text)))])
        assert again.config == resolved.config


@pytest.mark.parametrize(
    ("layer", "message", "hint"),
    [
        ({"sampler.group_size": 1}, "is 1, but `learner.advantage` `group` compares", "ppo"),
        ({"algorithm": "rloo", "sampler.group_size": 1}, "`learner.advantage` `rloo` compares", "2 or more"),
        (
            {"algorithm": "ppo", "sampler.group_size": 1, "sampler.dynamic": True},
            "rewards vary",
            "--no-sampler.dynamic",
        ),
        ({"learner.kl_coef": 0.1, "learner.reference": "none"}, "`learner.reference` is `none`", "name one"),
        ({"learner.kl_target": 6}, "`learner.kl_coef` 0 loads no reference", "above 0"),
        ({"learner.updates_per_step": 5}, "the 32 groups of a step do not divide", "try 4"),
        ({"learner.dual_clip": 0.5}, "`learner.dual_clip` is 0.5, but must be above 1", "3 is usual"),
        ({"algorithm": "gspo", "learner.dual_clip": 3}, "`learner.dual_clip` does not go with", "only `clip`"),
        ({"learner.kl_coef": 1, "learner.kl_in": "reward", "reward.difficulty": 1}, "`reward.difficulty`", "the loss"),
        ({"algorithm": "ppo", "reward.difficulty": 1}, "`reward.difficulty` does not go with", "`group` or `rloo`"),
        ({"lora.quantize": "4bit"}, "weights of so few bits cannot be trained", "--lora.rank"),
    ],
)
def test_ways_to_learn_that_do_not_go_together_are_named(layer: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve([("flag", layer)])
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_clip_range_below_0_is_refused() -> None:
    for name in ("learner.clip_low", "learner.clip_high"):
        with pytest.raises(ConfigError, match="must be at least 0"):
            resolve([("flag", {name: -0.1})])


def test_algorithms_without_groups_take_single_completions() -> None:
    for algorithm in ("ppo", "reinforce++"):
        assert resolve([("flag", {"algorithm": algorithm, "sampler.group_size": 1})]).config.sampler.group_size == 1


def test_how_to_sample_is_read_back_too() -> None:
    layer = {"sampler.url": ["http://a:1", "https://b/c"], "sampler.options": ["dtype=half", 'x={"a": "é"}']}
    resolved = resolve([("flag", layer | {"sampler.backend": "vllm-server"})])
    again = resolve([("resumed run", flatten(tomllib.loads(resolved.toml())))])
    assert again.config == resolved.config


def test_toml_says_where_each_value_comes_from() -> None:
    text = resolve([("config a.toml", {"learner.lr": 1e-3}), ("flag", {"task": "gsm8k"})], {"steps": 7}).toml()
    assert 'task = "gsm8k"  # flag\n' in text
    assert "lr = 0.001  # config a.toml\n" in text
    assert "steps = 7  # task\n" in text
    assert "clip_high = 0.28  # algorithm dapo\n" in text
    assert "seed = 0  # default\n" in text
    assert text.index("\n[learner]\n") < text.index("lr = 0.001")
    assert "#" not in resolve([]).toml(origins=False)


# ------------------------------------------------------------------------------------------ the layers of a run

TASK = """
name = "sums"
version = 1
verifier = "math"
prompt = "{{question}}"
[data]
path = "sums.jsonl"
answer = { column = "answer" }
[defaults]
steps = 9
sampler.max_tokens = 1024
eval.temperature = 0.7
"""


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task with defaults of its own, and no variable of ours in the environment."""
    import os

    for variable in [v for v in os.environ if v.startswith("RLVR_")]:
        monkeypatch.delenv(variable)
    (tmp_path / "sums.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (tmp_path / "sums.toml").write_text(TASK)
    return str(tmp_path / "sums.toml")


def test_a_run_takes_every_layer_in_its_place(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"a": "seed = 1\neval.limit = 1\n[learner]\nlr = 1e-5\n", "b": "seed = 2\n"}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.setenv("RLVR_EVAL_LIMIT", "3")
    monkeypatch.setenv("RLVR_SAVE_EVERY", "3")
    flags = {"task": task, "save_every": 4}
    resolved = resolve_run(flags, [tmp_path / "a.toml", tmp_path / "b.toml"])
    config, origins = resolved.config, resolved.origins
    assert (config.steps, origins["steps"]) == (9, "task")
    assert (config.learner.lr, origins["learner.lr"]) == (1e-5, f"config {tmp_path / 'a.toml'}")
    assert (config.seed, origins["seed"]) == (2, f"config {tmp_path / 'b.toml'}")
    assert (config.eval.limit, origins["eval.limit"]) == (3, "environment")
    assert (config.save_every, origins["save_every"]) == (4, "flag")


def test_values_are_held_against_the_tasks_defaults_not_against_ours(task: str) -> None:
    """Both are refused with our `sampler.max_tokens` 256 and `eval.temperature` 0."""
    config = resolve_run({"task": task, "reward.overlong_buffer": 300, "eval.samples": 4}).config
    assert (config.reward.overlong_buffer, config.eval.samples) == (300, 4)


def test_a_resumed_run_keeps_its_config_but_for_flags(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text(resolve_run({"task": task, "seed": 5, "learner.lr": 1e-5}).toml())
    monkeypatch.setenv("RLVR_SEED", "6")
    resolved = resolve_run({"steps": 20}, resume=tmp_path)
    assert (resolved.config.seed, resolved.config.steps, resolved.config.learner.lr) == (5, 20, 1e-5)
    assert (resolved.origins["seed"], resolved.origins["steps"]) == ("resumed run", "flag")


def test_a_plugin_may_bring_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlvr import Registry

    monkeypatch.setattr("rlvr.registry._current", Registry.load())
    plugin = tmp_path / "extra.py"
    plugin.write_text(
        "from rlvr import Sample, Task, hookimpl\n\n"
        "@hookimpl\ndef rlvr_tasks():\n"
        "    return [Task('config-extra', 'math', lambda split: [Sample('1')], defaults={'steps': 3})]\n"
    )
    resolved = resolve_run({"task": "config-extra", "plugin": [str(plugin)]})
    assert (resolved.config.steps, resolved.origins["steps"]) == (3, "task")
