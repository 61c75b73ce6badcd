"""Several tasks in one run: how they are written, in what order their problems come, and whose defaults hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import ConfigError, Registry, Sample, Task, UnknownNameError
from rlvr.config import Resolved
from rlvr.mixture import Problem, Stream, load_mix, number, read_copies, read_mix, write_copies, write_mix
from rlvr.seeds import derive_seed
from rlvr.settings import disagreements, resolve_run, title

# ------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("math", {"math": 1}),
        ("math:2", {"math": 2}),
        ("math:0.7,json:0.3", {"math": Fraction(7, 10), "json": Fraction(3, 10)}),
        (" math , json : 3 ", {"math": 1, "json": 3}),
        ("math:1e-2,json", {"math": Fraction(1, 100), "json": 1}),
        ("a/b.toml", {"a/b.toml": 1}),
        ("a:b/c.toml,math:2", {"a:b/c.toml": 1, "math": 2}),
        ("a/b.toml:3,math", {"a/b.toml": 3, "math": 1}),
    ],
)
def test_a_mixture_is_read(text: str, mix: dict[str, Fraction]) -> None:
    assert read_mix(text) == mix
    assert list(read_mix(text)) == list(mix)


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("math:0,json", "the weight of the task `math` is `0`, but must be a number above 0", "math:0.7,json:0.3"),
        ("math,json:-1", "the weight of the task `json` is `-1`", "weight above 0"),
        ("math:nan", "the weight of the task `math` is `nan`", "weight above 0"),
        ("math:1e999,json", "the weight of the task `math` is `1e999`", "weight above 0"),
        ("math:,json", "the weight of the task `math` is ``", "weight above 0"),
        ("math:much", "the weight of the task `math` is `much`", "weight above 0"),
        ("math,json,math:2", "`task` is `math,json,math:2`, which has `math` twice", "name it once"),
        ("math,,json", "`task` is `math,,json`, in which a part names no task", "such as `math:0.7,json:0.3`"),
        (",", "a part names no task", "such as"),
        (":1", "a part names no task", "such as"),
        ("", "a part names no task", "such as"),
    ],
)
def test_what_is_no_mixture_is_refused(text: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_mix(text)
    assert what in refused.value.message
    assert hint in refused.value.hint


def test_a_file_that_is_there_is_one_task_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "a,b:c.toml"
    file.touch()
    assert read_mix(str(file)) == {str(file): 1}


WEIGHTS = st.one_of(st.floats(1e-9, 1e9), st.integers(1, 100).map(float)).map(lambda value: Fraction(str(value)))


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,4}(\.toml)?", fullmatch=True), WEIGHTS, min_size=2, max_size=5))
def test_a_mixture_that_is_written_is_read_back(mix: dict[str, Fraction]) -> None:
    found = read_mix(write_mix(mix))
    assert list(found) == list(mix)
    scale = Fraction(next(iter(mix.values())), next(iter(found.values())))
    assert {name: weight * scale for name, weight in found.items()} == mix


def test_data_of_several_tasks_says_whose_it_is() -> None:
    several = read_mix("math,gsm8k")
    assert read_copies("", several) == {}
    assert read_copies("x=y,z", read_mix("gsm8k")) == {"": "x=y,z"}
    copies = read_copies(" math = a , gsm8k=b=c", several)
    assert copies == {"math": "a", "gsm8k": "b=c"}
    assert read_copies(write_copies(copies), several) == copies
    for wrong in ("a.jsonl", "math=a,", "=a", "math="):
        with pytest.raises(ConfigError, match="but there are several tasks"):
            read_copies(wrong, several)


# ------------------------------------------------------------------------------------------------------- loading


def test_tasks_are_found_and_get_their_data(tmp_path: Path) -> None:
    registry = Registry.load()
    (tmp_path / "gsm.jsonl").write_text("".join(f'{{"question": "{n}?", "answer": "#### {n}"}}\n' for n in "12"))
    mix = load_mix(registry, "math:3,gsm8k", f"gsm8k={tmp_path / 'gsm.jsonl'}")
    assert [(task.name, weight) for task, weight in mix] == [("math", 3), ("gsm8k", 1)]
    gsm8k = mix[1][0]
    assert {sample.answer for sample in [*gsm8k.load("train"), *gsm8k.load("test")]} == {"1", "2"}
    with pytest.raises(UnknownNameError, match="there is no task named `jsn`") as unknown:
        load_mix(registry, "math,jsn")
    assert "did you mean `json`?" in unknown.value.hint
    with pytest.raises(ConfigError, match="`data` is for `gsm`, which is none of the tasks") as stray:
        load_mix(registry, "math,gsm8k", "gsm=x")
    assert "gsm8k" in stray.value.hint
    with pytest.raises(ConfigError, match="makes its own data"):
        load_mix(registry, "math,gsm8k", "math=x")


def test_two_files_must_not_hold_tasks_of_one_name(tmp_path: Path) -> None:
    text = 'name = "same"\nprompt = "{{q}}"\nverifier = "math"\n[data]\npath = "rows.csv"\nanswer = "a"\n'
    (tmp_path / "rows.csv").write_text("q,a\n1,2\n")
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(ConfigError, match="two tasks are named `same`"):
        load_mix(Registry.load(), f"{tmp_path / 'a.toml'},{tmp_path / 'b.toml'}")


# -------------------------------------------------------------------------------------------------------- stream


def a_task(name: str, **fields: Any) -> Task:
    return Task(name, "math", lambda split: [], **fields)


def split(name: str, size: int) -> list[Sample]:
    return [Sample(f"{name}-{i}") for i in range(size)]


def a_stream(weights: Sequence[Fraction], sizes: Sequence[int] | None = None, seed: int = 0) -> Stream:
    names = [f"task-{i}" for i in range(len(weights))]
    sizes = sizes or [3] * len(weights)
    return Stream(
        [(a_task(name), weight, split(name, size)) for name, weight, size in zip(names, weights, sizes, strict=True)],
        seed,
    )


@given(st.lists(WEIGHTS, min_size=1, max_size=6), st.integers(0, 200))
def test_shares_are_exact_over_time(weights: list[Fraction], places: int) -> None:
    stream = a_stream(weights)
    counts = Counter(stream[place].task.name for place in range(places))
    for index, weight in enumerate(weights):
        off = abs(counts[f"task-{index}"] - places * weight / sum(weights))
        assert off <= Fraction(index + 1, 2)
        assert off <= Fraction(1, 2) or len(weights) > 2


def test_tasks_come_evenly_and_not_in_blocks() -> None:
    stream = a_stream([Fraction(7, 10), Fraction(3, 10)])
    assert "".join(stream[place].task.name[-1] for place in range(10)) == "0100010010"
    assert "".join(stream[place].task.name[-1] for place in range(10, 20)) == "0100010010"


@given(
    st.lists(st.tuples(WEIGHTS, st.integers(1, 7)), min_size=1, max_size=4),
    st.lists(st.integers(0, 5000), min_size=1, max_size=20),
    st.integers(0, 3),
)
def test_what_stands_at_a_place_depends_on_nothing_that_was_drawn(
    tasks: list[tuple[Fraction, int]], places: list[int], seed: int
) -> None:
    weights, sizes = zip(*tasks, strict=True)
    used = a_stream(weights, sizes, seed)
    for place in places:
        assert used[place].number == place
        assert used[place].key == a_stream(weights, sizes, seed)[place].key


@given(st.lists(st.tuples(WEIGHTS, st.integers(1, 7)), min_size=1, max_size=4), st.integers(0, 3))
def test_each_task_comes_as_it_would_alone(tasks: list[tuple[Fraction, int]], seed: int) -> None:
    weights, sizes = zip(*tasks, strict=True)
    stream = a_stream(weights, sizes, seed)
    mixed = [stream[place] for place in range(100)]
    for index, size in enumerate(sizes):
        own = [problem.sample for problem in mixed if problem.task.name == f"task-{index}"]
        alone = Stream([(a_task("t"), Fraction(1), split(f"task-{index}", size))], seed)
        assert own == [alone[place].sample for place in range(len(own))]


def test_a_single_task_is_shuffled_anew_each_epoch() -> None:
    """The very order that runs of one task always had."""
    samples = split("s", 5)
    stream = Stream([(a_task("t"), Fraction(3), samples)], 7)
    for epoch in range(4):
        order = list(range(5))
        random.Random(derive_seed(7, epoch)).shuffle(order)
        assert [stream[5 * epoch + i].sample for i in range(5)] == [samples[i] for i in order]


def test_problems_are_numbered_through_all_tasks() -> None:
    tasks = [a_task("a"), a_task("b")]
    found = number(tasks, [split("x", 2), split("y", 1)])
    assert [(p.number, p.task.name, p.sample.id) for p in found] == [(0, "a", "x-0"), (1, "a", "x-1"), (2, "b", "y-0")]
    assert Problem(3, tasks[0], Sample("y")).key != Problem(3, tasks[1], Sample("y")).key


# ------------------------------------------------------------------------------------------------------ defaults


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("rlvr.registry._current", Registry.load())
    file = tmp_path / "three.py"
    file.write_text(
        "from rlvr import Sample, Task, hookimpl\n\n"
        "def load(split):\n    return [Sample('a', '1+1', '2')]\n\n"
        "@hookimpl\ndef rlvr_tasks():\n"
        "    shared = {'learner.schedule': 'cosine'}\n"
        "    return [\n"
        "        Task('one', 'math', load, defaults={'steps': 5, 'model': 'm-1', 'seed': 4, **shared}),\n"
        "        Task('two', 'math', load, defaults={'steps': 6, 'model': 'm-2', 'save_every': 9, **shared}),\n"
        "        Task('three', 'math', load, defaults={'steps': 6, 'model': 'm-2'}),\n"
        "    ]\n"
    )
    return str(file)


def resolved(plugin: str, task: str, **flags: Any) -> Resolved:
    return resolve_run({"task": task, "plugin": [plugin], **flags})


def test_the_heaviest_task_decides_where_defaults_differ(plugin: str) -> None:
    found = resolved(plugin, "one:0.2,two:0.4,three:0.4")
    assert (found.config.steps, found.origins["steps"]) == (6, "task two")
    assert (found.config.model, found.origins["model"]) == ("m-2", "task two")
    assert (found.config.learner.schedule, found.origins["learner.schedule"]) == ("cosine", "tasks two, one")
    assert (found.config.seed, found.origins["seed"]) == (4, "task one")
    assert (found.config.save_every, found.origins["save_every"]) == (9, "task two")


def test_among_equals_the_first_decides(plugin: str) -> None:
    found = resolved(plugin, "one,two,three", save_every=3)
    assert (found.config.steps, found.origins["steps"]) == (5, "task one")
    assert (found.config.save_every, found.origins["save_every"]) == (3, "flag")
    assert resolved(plugin, "two,three").origins["model"] == "tasks two, three"


def test_a_run_says_which_defaults_it_has_from_one_task_only(plugin: str) -> None:
    assert disagreements(resolved(plugin, "one,two:0.5,three:0.5")) == [
        "`steps` is `5`, the default of one; it is `6` for two, `6` for three",
        "`model` is `m-1`, the default of one; it is `m-2` for two, `m-2` for three",
    ]
    assert disagreements(resolved(plugin, "one,two", steps=2, model="m")) == []
    assert disagreements(resolved(plugin, "two,three")) == []
    assert disagreements(resolved(plugin, "one")) == []


def test_a_single_task_is_as_it_was(plugin: str) -> None:
    found = resolved(plugin, "one")
    assert (found.config.task, found.config.steps, found.origins["steps"]) == ("one", 5, "task")
    assert replace(resolved(plugin, "one:3").config) == found.config


def test_files_are_named_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("q,a\n1,2\n")
    text = 'name = "t"\nprompt = "{{q}}"\nverifier = "math"\n[data]\npath = "rows.csv"\nanswer = "a"\n'
    (tmp_path / "t.toml").write_text(text)
    config = resolve_run({"task": "t.toml:2,math", "data": "t=other.csv"}).config
    assert config.task == f"{tmp_path / 't.toml'}:2.0,math:1.0"
    assert config.data == f"t={tmp_path / 'other.csv'}"
    assert resolve_run({"task": "t.toml", "data": "other.csv"}).config.data == str(tmp_path / "other.csv")
    assert resolve_run({"task": "t.toml"}).config.task == str(tmp_path / "t.toml")


def test_a_run_is_called_by_its_tasks() -> None:
    assert title("math") == "math"
    assert title("math:0.7,a/my-task.toml") == "math-my-task"


def test_there_is_room_for_the_answers_of_every_task() -> None:
    for mix in ("math:0.9,json:0.1", "math:0.1,json:0.9"):
        made = resolve_run({"task": mix})
        assert (made.config.sampler.max_tokens, made.origins["sampler.max_tokens"]) == (72, "task json")
