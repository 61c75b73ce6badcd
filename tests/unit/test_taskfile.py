"""TOML tasks: the form is checked key by key, the data row by row, and nothing is dropped."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlvr import (
    ConfigError,
    DataError,
    MissingDependencyError,
    Sample,
    Task,
    UsageError,
    any_of,
    gate,
    load_toml,
    part,
    weighted,
)

TOML = """
name = "sums"
verifier = "math"
prompt = "{{question}} Think."
[data]
path = "%s"
answer = "answer"
"""

ROWS = [{"question": f"What is {n} + {n}?", "answer": 2 * n} for n in range(200)]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Task]:
    """A task over one data file with this content, from this TOML text."""

    def make(name: str = "rows.jsonl", content: str | bytes | None = None, toml: str = TOML) -> Task:
        if content is not None:
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        path = tmp_path / "sums.toml"
        path.write_text(toml.replace("%s", name), encoding="utf-8")
        return load_toml(path)

    return make


def jsonl(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def every(task: Task) -> dict[str, Sample]:
    """All samples of both splits by id; the splits are disjoint."""
    train, test = list(task.load("train")), list(task.load("test"))
    samples = {sample.id: sample for sample in [*train, *test]}
    assert len(samples) == len(train) + len(test)
    return samples


# The form


def test_the_form_of_the_design_note_loads(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(r"""
name = "gsm8k"
version = 3
description = "Word problems."
verifier = { name = "math", percent = "exact" }
prompt = "{{ question }}\n\nPut the final answer in \\boxed{}."
system = "You are terse."
[data]
path = "data"
splits = { train = "a.jsonl", test = "b.csv" }
answer = { column = "answer", after = "####" }
id = "key"
[defaults]
steps = 5
sampler.max_tokens = 64
[defaults.learner]
lr = 1e-5
""")
    (tmp_path / "data").mkdir()
    row = {"key": 7, "question": "2 + 2?", "answer": "2 #### 1\n#### 4 ", "level": [1, None]}
    (tmp_path / "data" / "a.jsonl").write_text(jsonl([row]))
    (tmp_path / "data" / "b.csv").write_text('key,question,answer\nx,"1,5 + 1?",#### 2.5\n')
    task = load_toml(tmp_path / "t.toml")
    assert (task.name, task.version, task.description, task.system) == ("gsm8k", 3, "Word problems.", "You are terse.")
    assert (task.verifier, task.verifier_options) == ("math", {"percent": "exact"})
    assert task.defaults == {"steps": 5, "sampler.max_tokens": 64, "learner.lr": 1e-5}
    assert task.source == str(tmp_path / "t.toml")
    prompt = "2 + 2?\n\nPut the final answer in \\boxed{}."
    assert list(task.load("train")) == [Sample("7", prompt, "4", row)]
    [test] = task.load("test")
    assert (test.id, test.answer, test.meta["question"]) == ("x", "2.5", "1,5 + 1?")


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("name =", "nam =", "`name` is missing", "is `nam` meant to be `name`?"),
        ('name = "sums"', "name = 7", "`name` is `7`", "text"),
        ('"sums"', '"Sums!"', "`name` is `Sums!`", "hyphens"),
        ('"math"', '""', "`verifier` is empty", "text"),
        ('"math"', '{ percent = "exact" }', "`verifier.name` is missing", "text"),
        ('"math"', '{ name = "math", bad = nan }', "`verifier.bad` has nan", "JSON"),
        ("prompt", "promt", "`prompt` is missing", "is `promt` meant"),
        ("[data]", 'descripton = "x"\n[data]', "`descripton` is not a key", "did you mean `description`?"),
        ("[data]", "version = true\n[data]", "`version` is `True`", "whole number"),
        ("[data]", 'system = "{{question}}"\n[data]', "`system` has `{{`", "`prompt`"),
        ("[data]", "data = 1\n[date]", "`data` is `1`", "table"),
        ("answer =", "anwser =", "`data.anwser` is not a key", "did you mean `answer`?"),
        ('"answer"', '{ column = "answer", afer = "#" }', "`data.answer.afer`", "did you mean `after`?"),
        ('"answer"', '{ after = "#" }', "`data.answer.column` is missing", "text"),
        ('"answer"', "3", "`data.answer` is `3`", "text"),
        ("path =", "# ", "`data.hub` and `data.path`: give exactly one", "hub data set"),
        ("[data]", '[data]\nhub = "a/b"', "`data.hub` and `data.path`: give exactly one", "hub data set"),
        ("[data]", '[data]\nsplits = { train = "a" }', "`data.splits.test` is missing", "text"),
        ("[data]", '[data]\nsplits.train = "a"\nsplits.test = "b"\nsplits.dev = "c"', "`data.splits.dev`", "known"),
        ("{{question}}", "none", "`prompt` must name a column", "{{column}}"),
        ("{{question}}", "{{ }}{{question}}", "`prompt` must name a column", "{{column}}"),
        ("{{question}}", "{{question}} {{", "`prompt` has `{{` that opens no column", "{{column}}"),
        ("{{question}}", "{{question}} {{#if x}} {{a", "opens no column", "{{column}}"),
        ("[data]", "[defaults]\nlearner.rl = 1\n[data]", "`defaults`: there is no setting `learner.rl`", "learner.lr"),
        ("[data]", '[defaults]\nlearner.lr = "x"\n[data]', "`learner.lr` is `x`, but must be a number", ""),
        ("[data]", "[data", "is not TOML", "(at line 5"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_form_names_file_and_key(
    make: Callable[..., Task], old: str, new: str, message: str, hint: str
) -> None:
    assert old in TOML
    with pytest.raises(ConfigError) as caught:
        make(toml=TOML.replace(old, new, 1))
    assert "sums.toml`" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint + caught.value.message
    assert "\n" not in caught.value.message


def test_there_must_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no task file"):
        load_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_toml(tmp_path)


# Several verifiers, turns, gold completions

PARTS = """
[verifier]
rule = "gate"
[verifier.parts.form]
name = "text"
rules = [{ tags = ["think", "answer"] }]
weight = 0
[verifier.parts.answer]
rule = "any-of"
required = false
[verifier.parts.answer.parts]
number = "math"
words = { name = "text", rules = [{ exact = true }], required = false }
[data]
"""
COMPOSED = TOML.replace('verifier = "math"\n', "").replace("[data]\n", PARTS)


def test_a_verifier_may_be_a_composition(make: Callable[..., Task]) -> None:
    task = make(toml=COMPOSED)
    assert task.verifier_options == {}
    assert task.verifier == gate(
        form=part("text", rules=[{"tags": ["think", "answer"]}], weight=0),
        answer=part(any_of(number="math", words=part("text", rules=[{"exact": True}], required=False)), required=False),
    )
    named = make(toml=TOML.replace('"math"', '{ rule = "weighted", threshold = 0.5, parts = { a = "math" } }'))
    assert named.verifier == weighted(a="math", threshold=0.5)


def test_an_option_may_be_called_rule(make: Callable[..., Task]) -> None:
    task = make(toml=TOML.replace('"math"', '{ name = "math", rule = "x" }'))
    assert (task.verifier, task.verifier_options) == ("math", {"rule": "x"})


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ('"gate"', '"gates"', "`verifier.rule` is `gates`", "did you mean `gate`?"),
        ('rule = "gate"', 'rul = "gate"', "`verifier.rule` is missing", "is `rul` meant to be `rule`?"),
        ('rule = "gate"', 'rule = "gate"\nrequired = true', "`verifier.required` is not a key", "known: `rule`"),
        ('rule = "gate"', 'rule = "gate"\nthreshold = 0.5', "`verifier.threshold` means nothing", "`weighted`"),
        ("weight = 0\n", 'weight = "much"\n', "`verifier.parts.form.weight` is `'much'`", "a number"),
        ("weight = 0\n", "weight = nan\n", "`verifier.parts.form.weight` is `nan`", "a number"),
        ("weight = 0\n", "min = nan\n", "`verifier.parts.form.min` has nan", "JSON"),
        ('name = "text"\n', "", "`verifier.parts.form.name` is missing", "or a `rule` (`all-of`, `any-of`"),
        ('rule = "any-of"\n', "", "`verifier.parts.answer.rule` is missing", "text"),
        ('rule = "any-of"\n', 'rule = "any-of"\nnam = 1\n', "`verifier.parts.answer.nam` is not a key", "known:"),
        ("required = false\n", "required = 0\n", "`verifier.parts.answer.required` is `0`", "`true` or `false`"),
        ('number = "math"', "number = 3", "`verifier.parts.answer.parts.number` is `3`", "text"),
        ('number = "math"', 'flags = "math"', "`verifier.parts.answer.parts.flags` cannot be", "rename"),
        ("words = {", "words = { weight = 2, ", "`verifier.parts.answer.parts.words.weight` means", "leave it"),
        ("[data]\n", "[verifier.parts.x]\nrule = 'all-of'\nparts = {}\n[data]\n", "`verifier.parts.x.parts`", "one"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_composition_names_file_and_key(
    make: Callable[..., Task], old: str, new: str, message: str, hint: str
) -> None:
    assert old in COMPOSED
    with pytest.raises(ConfigError) as caught:
        make(toml=COMPOSED.replace(old, new, 1))
    assert "sums.toml`" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_turns_and_tools(make: Callable[..., Task]) -> None:
    assert (make(toml=TOML).turns, make(toml=TOML).show_tools) == (1, False)
    task = make(toml="turns = 3\nshow_tools = true\n" + TOML)
    assert (task.turns, task.show_tools) == (3, True)


GOLD = 'gold = "<think>x</think><answer>{{answer}}</answer>"\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("turns = 0", "`turns` is `0`"),
        ("turns = 1.5", "`turns` is `1.5`"),
        ("turns = true", "`turns` is `True`"),
        ("show_tools = 1", "`show_tools` is `1`"),
        ('gold = "42"', "`gold` must name a column"),
        ('gold = "{{answer}} {{"', "`gold` has `{{` that opens no column"),
        ("gold = 3", "`gold` is `3`"),
    ],
)
def test_mistakes_in_turns_tools_and_gold_name_their_key(make: Callable[..., Task], line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(toml=f"{line}\n{TOML}")
    assert message in caught.value.message
    assert caught.value.hint


def test_gold_is_put_together_from_the_row_and_kept_out_of_the_sample(make: Callable[..., Task]) -> None:
    task = make(content=jsonl(ROWS), toml=GOLD + TOML)
    assert task.gold is not None
    for sample in every(task).values():
        assert task.gold(sample) == f"<think>x</think><answer>{sample.answer}</answer>"
        assert "<think>" not in json.dumps([sample.prompt, sample.meta])
    with pytest.raises(UsageError, match="`nobody` is not one of this task's"):
        task.gold(Sample("nobody"))
    assert make(toml=TOML).gold is None


def test_the_answer_in_gold_is_what_stands_behind_its_marker(make: Callable[..., Task]) -> None:
    rows = [{"q": f"{n}?", "solution": f"so #### {n}", "answer": "other", "why": f"as {n}"} for n in range(2)]
    toml = TOML.replace("{{question}}", "{{q}}").replace('"answer"', '{ column = "solution", after = "####" }')
    task = make(content=jsonl(rows), toml='gold = "{{why}}: {{answer}}"\n' + toml)
    samples = every(task).values()
    assert task.gold is not None
    assert sorted(map(task.gold, samples)) == ["as 0: 0", "as 1: 1"]
    assert all(sample.meta["answer"] == "other" for sample in samples)
    bare = make(
        toml='gold = "{{why}}: {{answer}}"\n' + TOML.replace("{{question}}", "{{q}}").replace("answer = ", "# ")
    )
    assert bare.gold is not None
    assert {bare.gold(sample).partition(": ")[2] for sample in every(bare).values()} == {"other"}


def test_gold_follows_the_data(make: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "copy.jsonl").write_text(jsonl([{"question": f"{n}?", "answer": -n} for n in range(1, 9)]))
    copy = with_data(make(content=jsonl(ROWS), toml=GOLD + TOML), tmp_path / "copy.jsonl")
    assert copy.gold is not None
    assert all("<answer>-" in copy.gold(sample) for sample in every(copy).values())


def test_gold_is_that_of_the_split_where_both_count_their_rows_from_one(
    make: Callable[..., Task], tmp_path: Path
) -> None:
    (tmp_path / "rows").mkdir()
    for name, sign in (("train", 1), ("test", -1)):
        rows = jsonl([{"n": n, "question": f"{sign * n}?", "answer": sign * n} for n in range(1, 5)])
        (tmp_path / "rows" / f"{name}.jsonl").write_text(rows)
    task = make("rows", toml=GOLD + TOML.replace("[data]", '[data]\nid = "n"'))
    loaded = [*task.load("train"), *task.load("test")]
    assert task.gold is not None
    assert [task.gold(sample) for sample in loaded] == [
        f"<think>x</think><answer>{sample.answer}</answer>" for sample in loaded
    ]


def test_a_row_that_makes_no_gold_is_named(make: Callable[..., Task]) -> None:
    with pytest.raises(DataError, match=r"line 1, column `answer\.x`"):
        make(content=jsonl(ROWS), toml='gold = "{{answer.x}}"\n' + TOML).load("train")


# Prompts


def test_what_a_row_says_is_not_substituted_again(make: Callable[..., Task]) -> None:
    row = {"question": "{{answer}} and \\1", "answer": "no"}
    prompts = {s.prompt for s in every(make(content=jsonl([row, ROWS[0]]))).values()}
    assert "{{answer}} and \\1 Think." in prompts


def test_single_braces_of_latex_stay(make: Callable[..., Task]) -> None:
    toml = TOML.replace('"{{question}} Think."', r"'\boxed{{{question}}} \frac{1}{x^{2}}'")
    prompts = {s.prompt for s in every(make(content=jsonl(ROWS[:2]), toml=toml)).values()}
    assert r"\boxed{What is 0 + 0?} \frac{1}{x^{2}}" in prompts


def test_a_column_can_be_a_whole_chat(make: Callable[..., Task]) -> None:
    toml = TOML.replace("{{question}} Think.", "{{ chat }}")
    chats = [[{"role": "system", "content": "Hi."}, {"role": "user", "content": str(n)}] for n in range(2)]
    rows = [{"chat": chat, "answer": 1} for chat in chats]
    samples = every(make(content=jsonl(rows), toml=toml))
    assert sorted((s.prompt for s in samples.values()), key=str) == chats
    for bad in ([], [{"role": "user"}], ["hello"], [{"role": "user", "content": None}]):
        with pytest.raises(DataError, match="line 2, column `chat`"):
            make(content=jsonl([rows[0], {"chat": bad, "answer": 1}]), toml=toml).load("train")


# Columns, answers and meta that are put together


NESTED = [
    {
        "q": f"{n}?",
        "code": "1",
        "tests": ["a", f"b{n}"],
        "info": {"cases": [{"in": n, "out": "x"}, {"in": 2, "out": "y"}]},
    }
    for n in range(2)
]


def nested(make: Callable[..., Task], rows: Sequence[Any] = NESTED, **lines: str) -> list[Sample]:
    """The samples of `rows` under a form with these lines of `[data]`."""
    toml = 'name = "nested"\nverifier = "code"\nprompt = "{{q}} {{tests.1}}"\n[data]\npath = "%s"\n'
    toml += "".join(f"{key} = {value}\n" for key, value in lines.items())
    return sorted(every(make(content=jsonl(rows), toml=toml)).values(), key=lambda sample: sample.prompt)


def test_dots_lead_into_a_column(make: Callable[..., Task]) -> None:
    samples = nested(make, answer='"info.cases.0.in"', id='"tests.1"')
    assert [(s.id, s.prompt, s.answer) for s in samples] == [("b0", "0? b0", 0), ("b1", "1? b1", 1)]
    assert [s.meta for s in samples] == NESTED


def test_a_column_that_is_there_is_not_led_into(make: Callable[..., Task]) -> None:
    rows = [row | {"tests.1": "whole"} for row in NESTED]
    assert [s.prompt for s in nested(make, rows)] == ["0? whole", "1? whole"]


def test_text_that_is_led_into_is_read_as_json(make: Callable[..., Task]) -> None:
    rows = [row | {"info": json.dumps(row["info"])} for row in NESTED]
    assert [s.answer for s in nested(make, rows, answer='"info.cases.0.in"')] == [0, 1]


def test_answer_and_meta_are_put_together_like_a_prompt(make: Callable[..., Task]) -> None:
    meta = '{ text = "{{code}}\\n{{tests}}", list = "{{tests}}", nested = "{{info.cases.1}}" }'
    first = nested(make, answer='"{{q}} is {{code}}"', meta=meta)[0]
    assert first.answer == "0? is 1"
    assert first.meta == {"text": "1\na\nb0", "list": ["a", "b0"], "nested": {"in": 2, "out": "y"}}


def test_any_column_can_be_written_as_json(make: Callable[..., Task]) -> None:
    meta = '{ all = "{{info.cases | json}}", one = "{{q|json}}.", none = "{{code}}" }'
    first = nested(make, meta=meta)[0]
    assert first.meta == {"all": json.dumps(NESTED[0]["info"]["cases"]), "one": '"0?".', "none": "1"}
    rows = [row | {"q|json": "as it is"} for row in NESTED]
    assert nested(make, rows, meta='{ one = "{{q|json}}" }')[0].meta == {"one": "as it is"}
    with pytest.raises(DataError, match="there is no such column"):
        nested(make, meta='{ one = "{{nothing|json}}" }')


def test_a_table_of_columns_becomes_a_list_of_objects(make: Callable[..., Task]) -> None:
    meta = '{ tests = { stdin = "{{info.cases.in}}", stdout = "{{info.cases.out}}" } }'
    first = nested(make, meta=meta)[0]
    assert first.meta == {"tests": [{"stdin": 0, "stdout": "x"}, {"stdin": 2, "stdout": "y"}]}


@pytest.mark.parametrize(
    ("lines", "column", "message"),
    [
        ({"answer": '"info.case.0"'}, "info.case.0", "there is no `case` in an object"),
        ({"answer": '"tests.2"'}, "tests.2", "there is no `2` in a list of 2, which is counted from 0"),
        ({"answer": '"tests.0.x"'}, "tests.0.x", "has no `x`, as its text is not JSON"),
        ({"answer": '"info.cases.0.in.x"'}, "info.cases.0.in.x", "is a number where `x` is looked for"),
        ({"answer": '"inf.cases"'}, "inf.cases", "there is no such column"),
        ({"answer": '"{{info}}"'}, "info", "is an object, but must be text"),
        ({"meta": '{ t = { a = "{{code}}" } }'}, "code", "is text, but must be a list"),
        ({"meta": '{ t = { a = "{{q.0}}" } }'}, "q.0", "its text is not JSON"),
    ],
)
def test_what_cannot_be_put_together_names_its_row(
    make: Callable[..., Task], lines: dict[str, str], column: str, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        nested(make, **lines)
    assert f"line 1, column `{column}`" in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint


def test_lists_that_belong_together_have_one_length(make: Callable[..., Task]) -> None:
    rows = [row | {"more": [1, 2, 3]} for row in NESTED]
    with pytest.raises(DataError, match="line 1: the lists differ in length: 2 for `a`, 3 for `b`"):
        nested(make, rows, meta='{ t = { a = "{{tests}}", b = "{{more}}" } }')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('answer = "{{q}} {{"', "`data.answer` has `{{` that opens no column"),
        ('meta = { tests = "tests" }', "`data.meta.tests` must name a column"),
        ("meta = { tests = 3 }", "`data.meta.tests` is `3`"),
        ("meta = 3", "`data.meta` is `3`"),
        ("meta = { t = {} }", "`data.meta.t` is empty"),
        ('meta = { t = { a = "{{q}}!" } }', "`data.meta.t.a` must be one column"),
    ],
)
def test_mistakes_in_answer_and_meta_name_their_key(make: Callable[..., Task], line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(toml=TOML.replace('answer = "answer"', "") + line + "\n")
    assert message in caught.value.message


def test_a_task_may_only_test(make: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "copy.jsonl").write_text(jsonl(ROWS[:5]))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "test.jsonl").write_text(jsonl(ROWS[:3]))
    task = make(toml=TOML.replace('path = "%s"', 'hub = "./folder"') + 'splits = { test = "test" }\n')
    for place, count in ((tmp_path / "copy.jsonl", 5), (tmp_path / "folder", 3)):
        copy = with_data(task, place)
        assert copy.load("train") == []
        assert len(list(copy.load("test"))) == count
    (tmp_path / "folder" / "test.jsonl").rename(tmp_path / "folder" / "train.jsonl")
    with pytest.raises(DataError, match=r"has no `test\.\*`"):
        with_data(task, tmp_path / "folder")


# Bad rows


GOOD = '{"question": "1 + 1?", "answer": 2}\n'
MARKED = TOML.replace('answer = "answer"', 'answer = { column = "answer", after = "####" }')
KEYED = TOML + 'id = "key"\n'


@pytest.mark.parametrize(
    ("name", "content", "where", "message", "toml"),
    [
        # what a prompt, an answer and an id may be
        ("a.jsonl", GOOD + '{"answer": 2}\n', "line 2, column `question`", "no such column", TOML),
        ("a.jsonl", GOOD + '{"question": 5, "answer": 2}', "line 2, column `question`", "is a number", TOML),
        ("a.jsonl", GOOD + '{"question": null, "answer": 2}', "line 2, column `question`", "is null", TOML),
        ("a.jsonl", GOOD + '{"question": ["a", 1], "answer": 2}', "line 2, column `question`", "is a list", TOML),
        ("a.jsonl", GOOD + '{"question": "a"}', "line 2, column `answer`", "no such column", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": null}', "line 2, column `answer`", "is null", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": true}', "line 2, column `answer`", "is a boolean", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": {}}', "line 2, column `answer`", "is an object", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": " "}', "line 2, column `answer`", "empty", TOML),
        ("a.jsonl", '{"question": "a", "answer": "4"}', "line 1, column `answer`", "`####` does not occur", MARKED),
        ("a.jsonl", '{"question": "a", "answer": "4 #### "}', "line 1, column `answer`", "empty", MARKED),
        ("a.jsonl", GOOD, "line 1, column `answer`", "is a number, but must be text", MARKED),
        ("a.jsonl", GOOD, "line 1, column `key`", "no such column", KEYED),
        ("a.jsonl", GOOD.replace("{", '{"key": 1.5, '), "line 1, column `key`", "is a number", KEYED),
        ("a.jsonl", GOOD.replace("{", '{"key": "", '), "line 1, column `key`", "is empty", KEYED),
        ("a.jsonl", '{"question": " ", "answer": 1}', "line 1, column `question`", "prompt is empty",
         TOML.replace(" Think.", "")),
        # one row twice
        ("a.jsonl", GOOD * 2, "line 2", "the same prompt and answer as `", TOML),
        ("a.jsonl", GOOD + '{"question": "1 + 1?", "answer": 2, "more": 1}', "line 2", "a.jsonl` line 1", TOML),
        ("a.jsonl", '{"key":1,"question":"a","answer":1}\n{"key":"1","question":"b","answer":1}',
         "line 2, column `key`", "the same id as", KEYED),
        # JSON lines
        ("a.jsonl", "", "a.jsonl", "has no rows", TOML),
        ("a.jsonl", " \n\n", "a.jsonl", "has no rows", TOML),
        ("a.jsonl", GOOD + "\n" + GOOD, "line 2", "is empty", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer"}', "line 2, column 27", "broken JSON", TOML),
        ("a.jsonl", GOOD + '{"question": "a', "line 2, column 14", "broken JSON", TOML),
        ("a.jsonl", GOOD + GOOD.strip() + " {}", "line 2, column 37", "more than one value", TOML),
        ("a.jsonl", GOOD + '["a", 1]', "line 2", "is a list, but a row must be an object", TOML),
        ("a.jsonl", GOOD + "3", "line 2", "is a number, but a row must be an object", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": NaN}', "line 2, column `answer`", "nan", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": 1, "x": [-Infinity]}', "line 2, column `x`", "-inf", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "answer": 1e999}', "line 2, column `answer`", "inf", TOML),
        ("a.jsonl", GOOD + '{"question": "a", "question": "b"}', "line 2", "`question` occurs twice", TOML),
        ("a.jsonl", GOOD + '{"question": "\\ud800", "answer": 1}', "line 2, column `question`", "surrogate", TOML),
        ("a.jsonl", GOOD + '{"a": ' + "1" * 5000 + "}", "line 2", "digits", TOML),
        ("a.jsonl", GOOD + '{"a": ' + "[" * 100_000, "line 2", "recursion", TOML),
        ("a.jsonl", GOOD.encode() + b'{"question": "\xff"}', "line 2, byte 15", "not UTF-8", TOML),
        # a JSON list
        ("a.json", "", "a.json", "has no rows", TOML),
        ("a.json", "[]", "a.json", "has no rows", TOML),
        ("a.json", GOOD, "line 1", "must be a list of objects", TOML),
        ("a.json", f"[\n{GOOD},\n{GOOD}]", "line 4", "the same prompt and answer", TOML),
        ("a.json", f"[\n{GOOD},\n  7]", "line 4", "is a number, but a row must be an object", TOML),
        ("a.json", f"[\n{GOOD},]", "line 3, column 2", "broken JSON", TOML),
        ("a.json", f"[\n{GOOD}\n{GOOD}]", "line 4, column 1", "expected `,` or `]`", TOML),
        ("a.json", f"[\n{GOOD}", "line 3, column 1", "expected `,` or `]`", TOML),
        ("a.json", f"[\n{GOOD}]\n x", "line 4, column 2", "text behind the list", TOML),
        ("a.json", '[\n{"question": "a",\n "answer": }]', "line 3, column 12", "broken JSON", TOML),
        # CSV
        ("a.csv", "", "a.csv", "has no rows", TOML),
        ("a.csv", "question,answer\n", "a.csv", "has no rows", TOML),
        ("a.csv", "question,answer\na,1\nb\n", "line 3", "1 fields, but the header has 2", TOML),
        ("a.csv", "question,answer\na,1\n\nb,2\n", "line 3", "0 fields", TOML),
        ("a.csv", "question,answer\na,1,2\n", "line 2", "3 fields", TOML),
        ("a.csv", "question,question\na,1\n", "line 1", "name of its own", TOML),
        ("a.csv", "question,\na,1\n", "line 1", "name of its own", TOML),
        ("a.csv", 'question,answer\n"two\nlines",1\nb,""\n', "line 4, column `answer`", "empty", TOML),
        ("a.csv", 'question,answer\na,1\n"b,2\n', "line 3", "broken CSV", TOML),
        # files
        ("a.parquet", "PAR1 or not", "a.parquet", "cannot be read as Parquet", TOML),
        ("a.xlsx", "x", "a.xlsx", "not a data file that can be read", TOML),
        ("none.jsonl", None, "none.jsonl", "there is no data file", TOML),
    ],
)  # fmt: skip
def test_a_bad_row_stops_with_file_line_and_column(
    make: Callable[..., Task], name: str, content: str | bytes | None, where: str, message: str, toml: str
) -> None:
    task = make(name, content, toml)
    for _ in range(2):  # a failure is not cached as an empty data set
        with pytest.raises(DataError) as caught:
            task.load("train")
        assert name in caught.value.message
        assert where in caught.value.message
        assert message in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_a_missing_column_lists_those_there_are(make: Callable[..., Task]) -> None:
    with pytest.raises(DataError) as caught:
        make(content='{"qestion": "a", "answer": 1}').load("train")
    assert caught.value.hint == "did you mean `qestion`? The columns are `qestion`, `answer`"


def test_a_bad_row_stops_before_the_first_sample(make: Callable[..., Task]) -> None:
    with pytest.raises(DataError, match="line 200"):
        make(content=jsonl([*ROWS[:199], {"question": "a"}])).load("test")


# Files that are good


def test_all_formats_give_the_same_samples(make: Callable[..., Task], tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": f"{n}, {n}", "note": "ü\u2028\n"} for n in range(30)]
    wanted = every(make("a.jsonl", jsonl(rows)))
    assert every(make("a.ndjson", "\ufeff" + jsonl(rows).replace("\n", "\r\n") + "\n \n")) == wanted
    assert every(make("a.json", json.dumps(rows, indent=1, ensure_ascii=False))) == wanted
    lines = ["question,answer,note", *(f'{r["question"]},"{r["answer"]}","{r["note"]}"' for r in rows)]
    assert every(make("a.csv", "\ufeff" + "\r\n".join(lines) + "\r\n")) == wanted
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert every(make("a.parquet")) == wanted
    assert len(wanted) == 30


def test_parquet_values_become_json_values(make: Callable[..., Task], tmp_path: Path) -> None:
    when = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    row = {
        "question": "a",
        "answer": decimal.Decimal("1.50"),
        "when": when,
        "day": datetime.date(2026, 1, 2),
        "nested": {"a": [1, None, 2.5]},
        "none": None,
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, {**row, "question": "b"}]), tmp_path / "a.parquet")
    sample = next(iter(every(make("a.parquet")).values()))
    assert sample.answer == "1.50"
    assert sample.meta["when"] == "2026-01-02T03:04:00+00:00"
    assert sample.meta["day"] == "2026-01-02"
    assert sample.meta["nested"] == {"a": [1, None, 2.5]}
    json.dumps(sample.meta, allow_nan=False)


@pytest.mark.parametrize(("value", "message"), [(b"\x89PNG", "`bytes`"), (float("nan"), "nan")])
def test_parquet_values_without_a_json_form_are_named(
    make: Callable[..., Task], tmp_path: Path, value: Any, message: str
) -> None:
    rows = [{"question": "a", "answer": 1, "x": None}, {"question": "b", "answer": 1, "x": value}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 2, column `x`") as caught:
        make("a.parquet").load("train")
    assert message in caught.value.message


def test_parquet_without_its_extra_names_the_install_command(
    make: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError) as caught:
        make("a.parquet", "x").load("train")
    assert caught.value.hint == "pip install 'rlvr[data]'"


def test_numbers_stay_numbers_and_text_stays_text(make: Callable[..., Task]) -> None:
    rows = [{"question": q, "answer": a} for q, a in (("a", 1), ("b", 1.5), ("c", "1"))]
    answers = {s.meta["question"]: s.answer for s in every(make(content=jsonl(rows))).values()}
    assert answers == {"a": 1, "b": 1.5, "c": "1"}
    assert type(answers["a"]) is int


def test_a_task_may_have_no_answers(make: Callable[..., Task]) -> None:
    samples = every(make(content=jsonl(ROWS), toml=TOML.replace('answer = "answer"', "")))
    assert {s.answer for s in samples.values()} == {None}


# Ids and splits


def test_ids_and_splits_do_not_depend_on_the_order_of_rows(make: Callable[..., Task]) -> None:
    first = make(content=jsonl(ROWS))
    train, test = ({s.id: s for s in first.load(split)} for split in ("train", "test"))  # type: ignore[arg-type]
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    again = make(content=jsonl(shuffled))
    assert {s.id: s for s in again.load("train")} == train
    assert {s.id: s for s in again.load("test")} == test
    assert 8 <= len(test) <= 40
    assert [s.meta for s in again.load("train")] == [r for r in shuffled if r in [s.meta for s in train.values()]]


def test_ids_are_the_same_on_every_machine(make: Callable[..., Task]) -> None:
    rows = [{"question": "1 + 1?", "answer": 2}, {"question": "ü", "answer": "x"}]
    assert sorted(every(make(content=jsonl(rows)))) == ["29237acaaee4b506", "b5a8c66eaba1d0e8"]


def test_a_few_rows_still_make_two_splits(make: Callable[..., Task]) -> None:
    for seed in range(20):
        rows = [{"question": f"{seed} {n}", "answer": n} for n in range(2)]
        task = make(content=jsonl(rows))
        assert (len(list(task.load("train"))), len(list(task.load("test")))) == (1, 1)
    with pytest.raises(DataError, match="one row, which cannot be divided"):
        make(content=GOOD).load("train")


def test_the_same_file_named_twice_is_divided(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl(ROWS))
    toml = tmp_path / "sums.toml"
    toml.write_text(TOML.replace("%s", ".") + 'splits = { train = "a.jsonl", test = "a.jsonl" }\n')
    assert len(every(load_toml(toml))) == len(ROWS)


def test_samples_are_read_once_and_a_caller_may_keep_the_list(make: Callable[..., Task], tmp_path: Path) -> None:
    task = make(content=jsonl(ROWS))
    first = task.load("train")
    assert isinstance(first, list)
    length = len(first)
    first.clear()
    (tmp_path / "rows.jsonl").unlink()
    assert len(list(task.load("train"))) == length
    assert len(every(task)) == len(ROWS)


def test_there_are_two_splits_only(make: Callable[..., Task]) -> None:
    with pytest.raises(UsageError, match="there is no split `dev`"):
        make(content=jsonl(ROWS)).load("dev")  # type: ignore[arg-type]


# Local copies


def with_data(task: Task, path: Path) -> Task:
    assert task.with_data is not None
    return task.with_data(path)


def test_a_folder_has_a_file_per_split(make: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(jsonl(ROWS[:5]))
    (tmp_path / "test.csv").write_text("question,answer\na,b\n")
    (tmp_path / "README.md").write_text("Not data.")
    copy = with_data(make(), tmp_path)
    assert len(list(copy.load("train"))) == 5
    assert len(list(copy.load("test"))) == 1
    assert (copy.name, copy.verifier) == ("sums", "math")
    assert len(every(with_data(copy, tmp_path / "train.jsonl"))) == 5


def test_a_folder_with_one_split_says_so_when_the_other_is_asked_for(make: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(jsonl(ROWS[:5]))
    copy = with_data(make(), tmp_path)
    assert len(list(copy.load("train"))) == 5
    with pytest.raises(DataError, match=r"has a `train\.\*` file but no `test\.\*`") as caught:
        copy.load("test")
    assert "divided" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has neither a `train.*` nor a `test.*`"),
        (["train.jsonl", "train.csv"], "more than one train split: `train.csv` and `train.jsonl`"),
    ],
)
def test_a_folder_must_be_clear(make: Callable[..., Task], tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(DataError) as caught:
        with_data(make(), tmp_path)
    assert message in caught.value.message


def test_a_copy_must_exist_when_it_is_given(make: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no data file or folder"):
        with_data(make(), tmp_path / "none.jsonl")


def test_named_splits_need_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    toml = tmp_path / "sums.toml"
    toml.write_text(TOML.replace("%s", "a.jsonl") + 'splits = { train = "a.jsonl", test = "b.jsonl" }\n')
    with pytest.raises(DataError, match="is no folder"):
        load_toml(toml).load("train")


# The hub


HUB_CODE = """
import json, sys
from rlvr import DataError, load_toml
task = load_toml(sys.argv[1])
found = []
for split in ("train", "test"):
    try:
        found.append([[s.id, s.prompt, s.answer] for s in task.load(split)])
    except DataError as error:
        found.append([error.message, error.hint])
print(json.dumps(found))
"""


def hub(toml: Path, **environ: str) -> list[Any]:
    """Both splits, or the errors, from a fresh interpreter without network and with a cache of its own."""
    done = subprocess.run(
        [sys.executable, "-c", HUB_CODE, str(toml)],
        env={**os.environ, "HF_HOME": str(toml.parent / "cache"), "HF_HUB_OFFLINE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_folder_is_read_as_the_hub_would_be(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "train.jsonl").write_text(jsonl(ROWS[:20]))
    (tmp_path / "repo" / "test.jsonl").write_text(jsonl([*ROWS[20:22], ROWS[20]]))
    toml = tmp_path / "sums.toml"
    toml.write_text(TOML.replace('path = "%s"', 'hub = "./repo"'))
    train, test = hub(toml)
    assert [prompt for _, prompt, _ in train] == [f"{row['question']} Think." for row in ROWS[:20]]
    assert "row 3: the same prompt and answer as" in test[0]
    assert "test row 1" in test[0]


def test_a_hub_that_cannot_be_reached_suggests_a_local_copy(tmp_path: Path) -> None:
    toml = tmp_path / "sums.toml"
    toml.write_text(TOML.replace('path = "%s"', 'hub = "nobody/nothing:main"'))
    for message, hint in hub(toml):
        assert "the hub data set `nobody/nothing:main` t" in message
        assert "\n" not in message
        assert "`--data PATH`" in hint


def test_the_hub_without_its_extra_names_the_install_command(
    make: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="needs the extra `data`"):
        make(toml=TOML.replace('path = "%s"', 'hub = "nobody/nothing"')).load("train")


# What is shipped


def test_gsm8k_reads_a_local_copy(tmp_path: Path) -> None:
    task = load_toml(str(files("rlvr_tasks") / "gsm8k.toml"))
    rows = [
        {"question": f"Ann has {n} apples and eats one.", "answer": f"{n} - 1 = <<{n}-1={n - 1}>>{n - 1}\n#### {n - 1}"}
        for n in range(2, 30)
    ]
    (tmp_path / "copy.jsonl").write_text(jsonl(rows))
    samples = every(with_data(task, tmp_path / "copy.jsonl"))
    assert sorted(int(s.answer) for s in samples.values()) == list(range(1, 29))
    assert all("\\boxed{}" in s.prompt for s in samples.values())


def shipped(name: str, tmp_path: Path, rows: Sequence[Any]) -> list[Sample]:
    """The samples of a task that comes with rlvr, over these rows."""
    (tmp_path / "copy.jsonl").write_text(jsonl(rows))
    copy = with_data(load_toml(str(files("rlvr_tasks") / f"{name}.toml")), tmp_path / "copy.jsonl")
    return list(every(copy).values())


def test_mbpp_shows_one_test_and_keeps_the_others(tmp_path: Path) -> None:
    row = {
        "task_id": 11,
        "text": "Write a function that adds.",
        "code": "def add(a, b):\r\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(4, 4) == 8"],
        "test_setup_code": "x = 1",
        "challenge_test_list": [],
    }
    samples = {s.id: s for s in shipped("mbpp", tmp_path, [row, row | {"task_id": 12}])}
    assert set(samples) == {"11", "12"}
    assert "assert add(1, 2) == 3" in samples["11"].prompt
    assert "8" not in samples["11"].prompt
    assert samples["11"].answer == row["code"]
    assert samples["11"].meta == {"tests": row["test_list"], "setup": "x = 1"}


def test_humaneval_gives_what_its_check_needs_and_only_tests(tmp_path: Path) -> None:
    row = {
        "task_id": "HumanEval/0",
        "prompt": 'def one():\n    """Returns 1."""\n',
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
        "entry_point": "one",
    }
    [sample] = shipped("humaneval", tmp_path, [row])
    assert sample.answer == 'def one():\n    """Returns 1."""\n    return 1\n'
    assert sample.meta == {"tests": row["test"], "entry_point": "one", "prompt": row["prompt"]}
    assert row["prompt"] in sample.prompt


def test_code_stdio_pairs_what_goes_in_with_what_comes_out(tmp_path: Path) -> None:
    row = {
        "problem_id": "a",
        "problem": "Double it.",
        "gold_standard_solution": "```python\nprint(2 * int(input()))\n```",
        "verification_info": {
            "language": "python",
            "test_cases": [
                {"fn_name": None, "input": "1\n", "output": "2\n", "type": "stdin_stdout"},
                {"fn_name": None, "input": "4\n", "output": "8\n", "type": "stdin_stdout"},
            ],
        },
    }
    as_text = row | {"problem_id": "b", "verification_info": json.dumps(row["verification_info"])}
    for sample in shipped("code-stdio", tmp_path, [row, as_text]):
        assert sample.meta == {"tests": [{"stdin": "1\n", "stdout": "2\n"}, {"stdin": "4\n", "stdout": "8\n"}]}
        assert sample.answer == row["gold_standard_solution"]
