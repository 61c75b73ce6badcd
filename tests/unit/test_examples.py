"""Demonstrations, pairs and labels: the formats that are read, the rows that cannot be used, and what a run gives."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlvr.errors import DataError, MissingDependencyError
from rlvr.examples.checks import drop_too_long, hold_out
from rlvr.examples.reading import hub_of, read_demonstrations, read_labels, read_pairs
from rlvr.examples.rows import Bad, Demonstration, Label, Pair, Report
from rlvr.examples.runs import demonstrations_of_run, labels_of_run, pairs_of_run

PAIR = {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}


SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def jsonl(path: Path, rows: Iterable[Any]) -> str:
    """A JSONL file; a row that is bytes is written as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


# ------------------------------------------------------------------------------------------------ formats


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"prompt": "a", "completion": "b"}, [user("a")], "b"),
        ({"prompt": [user("a")], "completion": [assistant("b")]}, [user("a")], "b"),
        ({"prompt": [user("a")], "completion": "b"}, [user("a")], "b"),
        ({"messages": [user("a"), assistant("b")]}, [user("a")], "b"),
        (
            {"messages": [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c"), assistant("d")]},
            [{"role": "system", "content": "s"}, user("a"), assistant("b"), user("c")],
            "d",
        ),
        ({"messages": None, "prompt": "a", "completion": "b"}, [user("a")], "b"),  # as a mixed Parquet file has it
        (PAIR, [user(PAIR["prompt"])], "2"),
    ],
)
def test_demonstrations_are_read_in_each_format(tmp_path: Path, row: Any, prompt: Any, completion: str) -> None:
    file = jsonl(tmp_path / "d.jsonl", [row])
    rows, report = read_demonstrations(file)
    assert rows == [Demonstration(tuple(prompt), completion, f"`{file}` line 1")]
    assert report.counts == {}


def test_a_demonstration_brings_the_tools_that_its_prompt_shows(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    given = [{"prompt": "a", "completion": "b", "tools": shown} for shown in (tools, json.dumps(tools), None, "")]
    rows, report = read_demonstrations(jsonl(tmp_path / "d.jsonl", [*given, {**given[0], "tools": "look_up"}]))
    assert [row.tools for row in rows] == [tuple(tools), tuple(tools), (), ()]
    assert report.counts == {"wrong-type": 1}


def test_what_is_labelled_bad_is_no_demonstration(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "l.jsonl",
        [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}],
    )
    rows, report = read_demonstrations(file)
    assert [row.completion for row in rows] == ["b"]
    assert report.facts["labelled_bad"] == 1


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {**PAIR, "chosen": [assistant("2")], "rejected": [assistant("3")]},
        {**PAIR, "prompt": [user(PAIR["prompt"])]},
        {"chosen": [user(PAIR["prompt"]), assistant("2")], "rejected": [user(PAIR["prompt"]), assistant("3")]},
        {**PAIR, "chosen": [user(PAIR["prompt"]), assistant("2")], "rejected": [user(PAIR["prompt"]), assistant("3")]},
    ],
)
def test_pairs_are_read_in_each_format(tmp_path: Path, row: Any) -> None:
    file = jsonl(tmp_path / "p.jsonl", [{**row, "annotator": "ann"}])
    rows, report = read_pairs(file)
    assert rows == [Pair((user(PAIR["prompt"]),), "2", "3", f"`{file}` line 1", {"annotator": "ann"})]
    assert not report.bad


def test_pairs_read_what_pairs_write(tmp_path: Path) -> None:
    pair = Pair((user("a"),), "b", "c", extra={"annotator": "x"})
    [again] = read_pairs(jsonl(tmp_path / "pairs.jsonl", [pair.to_json()]))[0]
    assert (again.prompt, again.chosen, again.rejected, again.extra) == (pair.prompt, "b", "c", pair.extra)
    label = Label((user("a"),), "b", False)
    [back] = read_labels(jsonl(tmp_path / "labels.jsonl", [label.to_json()]))[0]
    assert (back.prompt, back.completion, back.good) == (label.prompt, "b", False)


def test_labels_and_pairs_are_read_as_each_other(tmp_path: Path) -> None:
    labels, _ = read_labels(jsonl(tmp_path / "p.jsonl", [PAIR]))
    assert [(label.completion, label.good) for label in labels] == [("2", True), ("3", False)]
    given = [("a", "1", True), ("a", "2", False), ("a", "3", False), ("b", "4", True), ("a", "5", True)]
    rows = [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in given]
    pairs, report = read_pairs(jsonl(tmp_path / "l.jsonl", rows))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("1", "2"), ("5", "3")]
    assert report.facts["labels_without_partner"] == 1


def test_labels_that_make_no_pair_are_not_said_to_be_no_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "completion": "a", "label": True} for n in range(3)]
    pairs, report = read_pairs(jsonl(tmp_path / "l.jsonl", rows))
    with pytest.raises(DataError, match=r"3 labels of .* make no pair: no prompt has a good and a bad one") as caught:
        report.refuse(pairs, "refuse")
    assert "--method kto" in caught.value.hint


def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [PAIR, {"prompt": "Grüße?", "chosen": "ja, bitte", "rejected": 'nein "danke"'}]
    jsonl(tmp_path / "p.jsonl", rows)
    (tmp_path / "p.json").write_text(json.dumps(rows), encoding="utf-8")
    with (tmp_path / "p.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(PAIR))
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    found = {}
    for suffix in ("jsonl", "json", "csv", "parquet"):
        pairs, report = read_pairs(str(tmp_path / f"p.{suffix}"))
        found[suffix] = [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
        assert not report.bad
        assert report.rows == 2
    assert len({repr(own) for own in found.values()}) == 1
    labels = tmp_path / "l.csv"
    labels.write_text("prompt,completion,label\na,b,true\na,c,0\na,d,maybe\n", encoding="utf-8")
    rows_of_labels, report = read_labels(str(labels))
    assert [label.good for label in rows_of_labels] == [True, False]
    assert report.counts == {"wrong-type": 1}


def test_a_hub_data_set_is_read_with_its_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder in place of a name on the hub; the code is the same."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    jsonl(folder / "train.jsonl", [PAIR, {**PAIR, "rejected": " 2 "}, {**PAIR, "chosen": ""}])
    jsonl(folder / "test.jsonl", [{**PAIR, "prompt": "held out"}])
    pairs, report = read_pairs(f"hub:{folder}")
    assert [pair.where for pair in pairs] == [f"`{folder}` train row 1"]
    assert {bad.where: bad.kind for bad in report.bad} == {
        f"`{folder}` train row 2": "chosen-equals-rejected",
        f"`{folder}` train row 3": "empty-completion",
    }
    assert read_pairs(f"hub:{folder}@test")[0][0].prompt == (user("held out"),)
    with pytest.raises(DataError, match="cannot be loaded"):
        read_pairs(f"hub:{folder}@validation")


def test_a_hub_source_is_taken_apart() -> None:
    parts = {text: (hub_of(text).repo, hub_of(text).config, hub_of(text).split) for text in (
        "hub:trl-lib/tldr", "hub:openai/gsm8k:main", "hub:openai/gsm8k:main@test", "hub:/data/me@home/set",
    )}  # fmt: skip
    assert parts == {
        "hub:trl-lib/tldr": ("trl-lib/tldr", None, "train"),
        "hub:openai/gsm8k:main": ("openai/gsm8k", "main", "train"),
        "hub:openai/gsm8k:main@test": ("openai/gsm8k", "main", "test"),
        "hub:/data/me@home/set": ("/data/me@home/set", None, "train"),
    }
    for text in ("hub:", "hub:name@"):
        with pytest.raises(DataError, match="names no data set"):
            hub_of(text)


def test_the_hub_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="`data`"):
        read_pairs("hub:trl-lib/tldr")


def test_a_path_is_taken_for_no_name_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_pairs(str(tmp_path / "nofile.jsonl"))
    assert caught.value.hint == "check the path; a data set on the hub is `hub:NAME`"


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no data file or run `nowhere`"):
        read_pairs("nowhere")
    with pytest.raises(DataError, match=r"neither `pairs\.jsonl` nor `rollouts\.jsonl`"):
        read_pairs(str(tmp_path))
    (tmp_path / "p.txt").write_text("x")
    with pytest.raises(DataError, match="not a data file"):
        read_pairs(str(tmp_path / "p.txt"))


# ------------------------------------------------------------------------------------------------ bad rows

BAD_PAIRS: dict[str, Any] = {
    "not-utf8": b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}',
    "not-json": b'{"prompt": "a", "chosen": ',
    "missing-column": {"prompt": "a", "choosen": "b", "rejected": "c"},
    "wrong-type": {**PAIR, "chosen": 4},
    "empty-prompt": {**PAIR, "prompt": " \n"},
    "empty-completion": {**PAIR, "rejected": "  "},
    "chosen-equals-rejected": {**PAIR, "chosen": "a  b\n", "rejected": " a b"},
}


@pytest.mark.parametrize("kind", BAD_PAIRS)
def test_a_bad_row_is_counted_and_named_and_the_others_are_read(tmp_path: Path, kind: str) -> None:
    file = jsonl(tmp_path / "p.jsonl", [PAIR, BAD_PAIRS[kind], {**PAIR, "prompt": "b"}])
    rows, report = read_pairs(file)
    assert [row.where for row in rows] == [f"`{file}` line 1", f"`{file}` line 3"]
    assert report.counts == {kind: 1}
    assert report.bad[0].where == f"`{file}` line 2"
    assert report.rows == 3


def test_bad_rows_are_refused_unless_they_are_to_be_skipped(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "p.jsonl", [PAIR, *BAD_PAIRS.values(), *[BAD_PAIRS["not-json"]] * 9])
    rows, report = read_pairs(file)
    with pytest.raises(DataError) as refusal:
        report.refuse(rows, "refuse")
    message = str(refusal.value)
    assert (
        f"16 of 17 rows of `{file}` cannot be used: 10 not-json (line 3, line 9, line 10, line 11, line 12, ...)"
        in message
    )
    assert "1 chosen-equals-rejected (line 8)" in message
    assert "--bad-rows skip" in refusal.value.hint
    report.refuse(rows, "skip")
    kept = report.to_json()
    assert (kept["rows"], kept["usable"], len(kept["bad_rows"])) == (17, 1, 16)
    with pytest.raises(DataError, match="cannot be used"):
        report.refuse([], "skip")


def test_a_misspelled_column_of_one_row_is_named_with_the_nearest(tmp_path: Path) -> None:
    _, report = read_pairs(jsonl(tmp_path / "p.jsonl", [PAIR, BAD_PAIRS["missing-column"]]))
    assert report.bad[0].detail == "there is no column `chosen`; did you mean `choosen`?"


def test_a_column_that_no_row_has_is_said_once(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "p.jsonl", [{"prompt": "a", "choosen": "b", "rejected": "c"}] * 10_000)
    with pytest.raises(DataError) as refusal:
        read_pairs(file)
    assert (
        str(refusal.value)
        == f"no row of `{file}` has a column `chosen`; the columns are `prompt`, `choosen`, `rejected`"
    )
    assert refusal.value.hint.startswith("did you mean `choosen`? A pair has")
    with pytest.raises(DataError, match=r"no row .* has a column `messages`; the columns are `question`, `answer`"):
        read_demonstrations(jsonl(tmp_path / "d.jsonl", [{"question": "a", "answer": "b"}]))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": [user("a")]}, "wrong-type"),  # ends with the user's turn
        ({"messages": [assistant("a")]}, "empty-prompt"),
        ({"messages": []}, "wrong-type"),
        ({"messages": "hello"}, "wrong-type"),
        ({"messages": [user("a"), {"role": "assistant", "content": None}]}, "wrong-type"),
        ({"messages": [user("a"), {**assistant("x"), "tool_calls": [{"name": "f"}]}]}, "wrong-type"),
        ({"messages": [user("a"), assistant("")]}, "empty-completion"),
        ({"messages": [user("a"), assistant("b"), assistant("c")]}, "wrong-type"),
        ({"prompt": "a", "completion": [assistant("b"), user("c"), assistant("d")]}, "wrong-type"),
        ({"prompt": "a", "completion": None}, "wrong-type"),
        ({"prompt": [], "completion": "b"}, "empty-prompt"),
        ({"prompt": [{"content": "a"}], "completion": "b"}, "wrong-type"),
        ({"prompt": "a", "completion": "b", "label": 2}, "wrong-type"),
        ({"prompt": "a", "completion": "\ud800"}, "not-utf8"),  # half a surrogate pair, as JSON can say it
        ([1], "wrong-type"),
    ],
)
def test_a_bad_demonstration_has_its_kind(tmp_path: Path, row: Any, kind: str) -> None:
    rows, report = read_demonstrations(jsonl(tmp_path / "d.jsonl", [row, {"prompt": "a", "completion": "b"}]))
    assert len(rows) == 1
    assert report.counts == {kind: 1}


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("c")]}, "differ before their last"),
        ({**PAIR, "chosen": [user("x"), assistant("b")], "rejected": [user("x"), assistant("c")]}, "begin with"),
        ({**PAIR, "chosen": [user("x")]}, "ends with a turn of `user`"),
    ],
)
def test_chats_that_do_not_fit_together_are_bad(tmp_path: Path, row: Any, detail: str) -> None:
    rows, report = read_pairs(jsonl(tmp_path / "p.jsonl", [row, PAIR]))
    assert len(rows) == 1
    assert detail in report.bad[0].detail


@pytest.mark.parametrize(
    ("prompt", "shared", "expected"),
    [
        ([SYSTEM, user("a")], [user("a")], [SYSTEM, user("a")]),  # the system message is in `prompt` only
        ([user("a")], [SYSTEM, user("a")], [SYSTEM, user("a")]),
        ("a", [SYSTEM, user("a")], [SYSTEM, user("a")]),
        ([SYSTEM, user("a")], [SYSTEM, user("a")], [SYSTEM, user("a")]),
        ([SYSTEM, user("a")], [{**SYSTEM, "content": "another"}, user("a")], None),
        ([user("x"), assistant("y"), user("a")], [user("z"), assistant("y"), user("a")], None),
        ([], [user("a")], None),
    ],
)
def test_a_prompt_beside_whole_chats_loses_no_message(
    tmp_path: Path, prompt: Any, shared: list[Any], expected: list[Any] | None
) -> None:
    row = {"prompt": prompt, "chosen": [*shared, assistant("2")], "rejected": [*shared, assistant("3")]}
    rows, report = read_pairs(jsonl(tmp_path / "p.jsonl", [row, PAIR]))
    assert [list(row.prompt) for row in rows[:-1]] == ([] if expected is None else [expected])
    assert report.counts == ({"wrong-type": 1} if expected is None else {})


def test_a_column_that_is_nested_too_deep_is_a_bad_row(tmp_path: Path) -> None:
    deep = json.dumps({**PAIR, "meta": 0}).replace("0", "[" * 700 + "]" * 700).encode()
    rows, report = read_pairs(jsonl(tmp_path / "p.jsonl", [deep, PAIR]))
    assert len(rows) == 1
    assert [(bad.kind, bad.detail) for bad in report.bad] == [("wrong-type", "column `meta` is nested too deep")]


def test_columns_that_are_not_asked_for_do_no_harm(tmp_path: Path) -> None:
    """Bytes or NaN in them are left out; text that is not UTF-8 makes the row bad, wherever it stands."""
    file = jsonl(tmp_path / "p.jsonl", [b'{"prompt": "a", "chosen": "b", "rejected": "c", "score": NaN, "by": "x"}'])
    assert read_pairs(file)[0][0].extra == {"by": "x"}
    file = jsonl(tmp_path / "q.jsonl", [PAIR, {**PAIR, "by": "?"}])
    Path(file).write_bytes(Path(file).read_bytes().replace(b'?"}', b'\xff"}'))
    assert read_pairs(file)[1].counts == {"not-utf8": 1}


def test_bad_rows_of_other_files_are_named_too(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_bytes(b"prompt,chosen,rejected\na,b,c\na,b\ncaf\xe9,b,c\nd,e,f\n")
    rows, report = read_pairs(str(file))
    assert len(rows) == 2
    assert [(bad.kind, bad.where) for bad in report.bad] == [
        ("not-csv", f"`{file}` line 3"),
        ("not-utf8", f"`{file}` line 4"),
    ]
    file = tmp_path / "p.json"
    file.write_bytes(json.dumps([PAIR, {**PAIR, "chosen": "X"}]).encode().replace(b"X", b"\xe9"))
    assert read_pairs(str(file))[1].counts == {"not-utf8": 1}
    file.write_bytes(b'[{"prompt": "a"')
    with pytest.raises(DataError, match="broken JSON"):
        read_pairs(str(file))


def test_a_field_of_a_csv_file_may_be_long(tmp_path: Path) -> None:
    usual = csv.field_size_limit(131072)
    long = "a" * 200_000
    try:
        (tmp_path / "p.csv").write_text(f"prompt,chosen,rejected\na,{long},c\n")
        assert read_pairs(str(tmp_path / "p.csv"))[0][0].chosen == long
    finally:
        csv.field_size_limit(usual)


def test_duplicates_are_a_fact_and_no_fault(tmp_path: Path) -> None:
    rows, report = read_pairs(jsonl(tmp_path / "p.jsonl", [PAIR, PAIR, {**PAIR, "chosen": "two"}]))
    assert (len(rows), report.facts["duplicates"], report.bad) == (3, 1, [])


# ------------------------------------------------------------------------------------------------ checks


def test_what_is_too_long_is_bad_and_named() -> None:
    rows = [Demonstration((user(str(n)),), "a", f"`d.jsonl` line {n}") for n in (1, 2, 3)]
    report = Report("`d.jsonl`", rows=3)
    assert drop_too_long(rows, [5, 9, 8], 8, report) == [rows[0], rows[2]]
    assert report.bad == [Bad("too-long", "`d.jsonl` line 2", "has 9 tokens, but `max_length` is 8")]
    assert report.facts["tokens"] == {"longest": 9, "mean": 7.3}
    assert "1 too-long (line 2)" in report.summary()


def test_held_out_rows_share_no_prompt_with_the_others() -> None:
    rows = [Demonstration((user(str(n // 4)),), str(n)) for n in range(400)]
    train, held = hold_out(rows, 0.1, seed=3)
    assert 40 <= len(held) < 44
    assert len(train) + len(held) == 400
    assert not {row.prompt[0]["content"] for row in train} & {row.prompt[0]["content"] for row in held}
    assert [int(row.completion) for row in train] == sorted(int(row.completion) for row in train)
    assert hold_out(rows, 0.1, seed=3)[1] == held
    assert hold_out(rows, 0.1, seed=4)[1] != held


@pytest.mark.parametrize("seed", range(4))
def test_a_prompt_of_most_rows_is_not_held_out_for_a_small_share(seed: int) -> None:
    common = [Demonstration((user("a"),), str(n)) for n in range(95)]
    rare = [Demonstration((user("b"),), str(n)) for n in range(5)]
    assert hold_out([*common, *rare], 0.05, seed) == (common, rare)
    assert hold_out([*common, *rare], 0.01, seed) == (common, rare), "the smallest, if all are too many"


def test_nothing_is_held_out_of_one_prompt_or_for_a_share_of_none() -> None:
    same = [Demonstration((user("a"),), str(n)) for n in range(9)]
    assert hold_out(same, 0.5, 0) == (same, [])
    rows = [Demonstration((user(str(n)),), "a") for n in range(9)]
    assert hold_out(rows, 0.0, 0) == (rows, [])
    assert len(hold_out(rows, 0.001, 0)[1]) == 1


# ------------------------------------------------------------------------------------------------ tokens


@pytest.fixture(scope="module")
def chatty() -> Any:
    """A tokenizer with a chat template, and with tokens of thoughts and tool calls that its turns have inside."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    own = Tokenizer(models.BPE(letters, []))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    own.add_special_tokens([AddedToken(name, special=True) for name in ("<|end|>", "<|user|>", "<|bot|>", "<think>")])
    own.add_tokens(["<tool_call>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|bot|>' if m.role == 'assistant' else '<|user|>' }}{{ m.content }}<|end|>"
        "{% endfor %}{% if add_generation_prompt %}<|bot|><think>{% endif %}"
    )
    return tokenizer


@pytest.mark.parametrize("completion", ["one", "one<|end|>", "one<|end|>\n", "one</s>", "<think>one", "<tool_call>one"])
def test_a_completion_is_learned_with_one_end_token(chatty: Any, completion: str) -> None:
    from rlvr.stages.encoding import encode

    prompt, ids = encode(chatty, (user("a"),), completion)
    assert chatty.decode(prompt) == "<|user|>a<|end|><|bot|><think>"
    text = completion.removesuffix("\n").removesuffix("<|end|>")
    assert ids == [*chatty.encode(text), chatty.eos_token_id]
    assert ids.count(chatty.eos_token_id) == 1


@pytest.mark.parametrize(
    ("completion", "kind"),
    [
        ("one<|end|>two", "special-token"),
        ("one<|end|><|end|>", "special-token"),
        ("one<|end|><|user|>two", "special-token"),
        ("<|bot|>one", "special-token"),
        ("<|end|>", "empty-completion"),
    ],
)
def test_a_completion_with_tokens_that_mark_turns_is_a_bad_row(chatty: Any, completion: str, kind: str) -> None:
    from rlvr.stages.prefer import prepare
    from rlvr.stages.sft import split

    values = {
        "bad_rows": "skip",
        "hold_out": 0.0,
        "seed": 0,
        "limit": 0,
        "data": "x",
        "max_length": 99,
        "method": "dpo",
    }
    stage: Any = SimpleNamespace(config=SimpleNamespace(**values), data=lambda *_: None)
    for whole in (True, False):
        report = Report("`d.jsonl`", rows=2)
        if whole:
            rows = [Demonstration((user("a"),), text, text) for text in ("fine", completion)]
            train = split(stage, chatty, 99, (rows, report))[0]
        else:
            pairs = [Pair((user("a"),), "good", text, text) for text in ("fine", completion)]
            train = prepare(stage, stage.config, SimpleNamespace(config=None), chatty, pairs, report).train
        assert len(train) == 1
        assert [(bad.kind, bad.where) for bad in report.bad] == [(kind, completion)]


# ------------------------------------------------------------------------------------------------ runs


def rollout(group: int, completion: str, status: str, score: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "step": 0,
        "group": group,
        "sample": f"s{group}",
        "prompt": f"question {group}",
        "completion": completion,
        "finish_reason": "stop",
        "verdict": {"status": status, "score": score, "detail": "x", "parts": {}, "duration": 0.0},
        "reward": score,
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two tasks in TOML, of which one has a system message."""
    for name, system in (("plain", ""), ("strict", 'system = "Be brief."\n')):
        (tmp_path / f"{name}.toml").write_text(
            f'name = "{name}"\nverifier = "math"\nprompt = "{{{{q}}}}"\n{system}'
            '[data]\npath = "d.jsonl"\nanswer = "a"\n'
        )
    path = tmp_path / "run"
    path.mkdir()
    mix = f"{tmp_path / 'plain.toml'}:0.5,{tmp_path / 'strict.toml'}:0.5"
    (path / "config.toml").write_text(f"task = {json.dumps(mix)}\n")
    jsonl(
        path / "rollouts.jsonl",
        [
            rollout(0, "right", "passed", 1.0, task="plain"),
            rollout(0, "right", "passed", 1.0, task="plain"),
            rollout(0, "right again", "passed", 1.0, task="plain", reward=1.5),
            rollout(0, "half", "failed", 0.5, task="plain"),
            rollout(0, "wrong", "failed", 0.0, task="plain", reward=None),
            rollout(0, "broken", "error", 0.0, task="plain", reward=None),
            rollout(1, "late", "timeout", 0.0, task="strict", reward=None),
            rollout(1, "who knows", "abstained", 0.0, task="strict", reward=None),
            rollout(1, "cut off", "passed", 1.0, task="strict", finish_reason="length"),
            rollout(1, "two turns", "passed", 1.0, task="strict", turns=[{"role": "policy", "text": "x"}]),
            rollout(1, "bad", "failed", 0.0, task="strict"),
            rollout(1, "good", "passed", 1.0, task="strict"),
            rollout(2, "long", "passed", 1.0, task="plain", reward=0.4),
            rollout(2, "short", "passed", 1.0, task="plain", reward=1.0),
            rollout(3, "odd", "failed", 0.0, task="plain"),
            rollout(3, "odd", "passed", 1.0, task="plain"),
            rollout(3, "\ud800", "failed", 0.0, task="plain"),
            rollout(3, " ", "failed", 0.0, task="plain"),
        ],
    )
    with (path / "rollouts.jsonl").open("ab") as file:
        file.write(b'{"step": 1, "gro')  # a run that was killed
    return path


SEEN = {
    "rollouts": 18, "missing": 3, "several_turns": 1, "cut": 1, "tools": 0, "empty": 1, "not_text": 1,
}  # fmt: skip


def test_demonstrations_of_a_run_are_what_passed(run: Path) -> None:
    rows, report = demonstrations_of_run(run)
    assert [row.completion for row in rows] == ["right", "right again", "good", "long", "short", "odd"]
    assert rows[2].prompt == ({"role": "system", "content": "Be brief."}, user("question 1"))  # as the policy saw it
    assert report.facts == {**SEEN, "failed": 4, "duplicates": 1, "beyond_per_prompt": 0, "prompts": 4}
    assert rows[0].where == f"`{run / 'rollouts.jsonl'}` line 1"
    rows, report = demonstrations_of_run(run, per_prompt=1)
    assert [row.completion for row in rows] == ["right", "good", "long", "odd"]
    assert report.facts["beyond_per_prompt"] == 2


def test_pairs_of_a_run_are_best_against_worst(run: Path) -> None:
    """The reward decides among the best; a group that differs in length alone makes no pair, nor one whose text is the
    same; nothing comes from a check that failed."""
    rows, report = pairs_of_run(run)
    assert [(row.chosen, row.rejected) for row in rows] == [("right again", "wrong"), ("good", "bad")]
    assert rows[1].prompt[0]["content"] == "Be brief."
    assert report.facts == {**SEEN, "groups": 4, "groups_of_one_score": 2, "duplicates": 0}


def test_labels_of_a_run_are_verdicts_and_contradictions_are_none(run: Path) -> None:
    rows, report = labels_of_run(run)
    found = {row.completion: row.good for row in rows}
    assert found == {
        "right": True, "right again": True, "half": False, "wrong": False, "bad": False, "good": True, "long": True,
        "short": True,
    }  # fmt: skip
    assert (report.facts["contradictory"], report.facts["duplicates"], report.facts["good"]) == (1, 1, 5)


def test_a_run_is_a_source_like_any_other(run: Path) -> None:
    assert read_demonstrations(str(run))[0][0].completion == "right"
    assert len(read_labels(str(run))[0]) == 8
    assert len(read_pairs(str(run))[0]) == 2
    jsonl(run / "pairs.jsonl", [PAIR])  # a run that has pairs of its own gives those
    assert [pair.chosen for pair in read_pairs(str(run))[0]] == ["2"]


def test_a_run_in_which_nothing_passed_says_what_became_of_its_rollouts(run: Path) -> None:
    jsonl(run / "rollouts.jsonl", [rollout(0, "wrong", "failed", task="plain"), rollout(0, "x", "error", task="plain")])
    with pytest.raises(DataError, match=r"gives no row to learn from: 2 rollouts, 1 missing, .*1 failed"):
        demonstrations_of_run(run)
    with pytest.raises(DataError, match="gives no row"):
        pairs_of_run(run)


def test_a_damaged_run_is_refused(run: Path, tmp_path: Path) -> None:
    jsonl(run / "rollouts.jsonl", [{"step": 0}])
    with pytest.raises(DataError, match="line 1 is no rollout"):
        demonstrations_of_run(run)
    jsonl(run / "rollouts.jsonl", [b"{"])
    with pytest.raises(DataError, match="line 1"):
        demonstrations_of_run(run)
    with pytest.raises(DataError, match=r"has no `rollouts.jsonl`"):
        demonstrations_of_run(tmp_path)
