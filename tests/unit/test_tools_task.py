"""The tool-calling task: what is expected agrees with the tools' source, the splits are disjoint, slips differ."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest
from rlvr_tasks.tools import (
    DONE,
    KINDS,
    PER_KIND,
    SOURCE,
    TOOLS,
    Boxes,
    Call,
    Kind,
    calls_text,
    fill,
    load,
    problems,
    prompt,
    split_of,
)
from rlvr_tasks.tools_lessons import ANYWHERE, RIGHT, conversations, slip, transcript

from rlvr import Sample

BY_NAME = {kind.name: kind for kind in KINDS}
CALLED = """
import json, sys
for line in sys.stdin:
    source, calls = json.loads(line)
    scope = {}
    exec(source, scope)
    results = []
    for name, arguments in calls:
        try:
            results.append(scope[name](**arguments))
        except Exception as error:
            results.append(type(error).__name__)
    print(json.dumps([results, scope["BOXES"]]))
"""


def samples() -> list[Sample]:
    return [*load("train"), *load("test")]


def boxes_of(sample: Sample) -> Boxes:
    first = str(sample.meta["implementation"]).split("\n", 1)[0]
    return ast.literal_eval(first.removeprefix("BOXES = "))  # type: ignore[no-any-return]


def called(jobs: Sequence[tuple[str, Sequence[Call]]]) -> list[Any]:
    """Results and contents of the boxes for each `(source, calls)`, by running our own source in another process."""
    lines = "\n".join(json.dumps(job) for job in jobs)
    run = subprocess.run([sys.executable, "-I", "-c", CALLED], input=lines, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_the_same_version_is_the_same_data() -> None:
    text = "\n".join(f"{s.id}|{s.prompt}|{s.answer}|{json.dumps(s.meta)}" for s in samples())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "061c51ce4735b72b", (
        "raise the task's version with its data"
    )


def test_no_problem_is_in_both_splits_under_any_wording() -> None:
    train, test = load("train"), load("test")
    assert not {s.id for s in train} & {s.id for s in test}
    assert not {s.prompt for s in train} & {s.prompt for s in test}
    for split, samples in (("train", train), ("test", test)):
        assert len({s.id for s in samples}) == len(samples)
        assert all(split_of(s.meta["kind"], s.meta["told"]) == split for s in samples)


def test_every_level_is_there() -> None:
    for split in ("train", "test"):
        assert Counter(s.meta["kind"] for s in load(split)) == dict.fromkeys(BY_NAME, PER_KIND[split])  # type: ignore[arg-type]
    assert {kind.level for kind in KINDS} == {1, 2, 3, 4, 5}


def test_prompts_are_short_and_tell_everything() -> None:
    for sample in samples():
        assert len(str(sample.prompt)) <= 70
        assert all(str(value) in str(sample.prompt) for value in sample.meta["told"].values())


def test_what_is_expected_agrees_with_the_source() -> None:
    drawn = samples()
    solutions = [BY_NAME[s.meta["kind"]].solve(s.meta["told"], boxes_of(s)) for s in drawn]
    jobs = [
        (s.meta["implementation"], [call for calls in solution.rounds for call in calls])
        for s, solution in zip(drawn, solutions, strict=True)
    ]
    for sample, solution, (_, calls), (results, after) in zip(drawn, solutions, jobs, called(jobs), strict=True):
        assert results == [result for turn in solution.results for result in turn]
        assert after == {str(box): held for box, held in solution.after.items()}
        assert sample.meta.get("end_state", {"BOXES": after}) == {"BOXES": after}
        assert "result" not in sample.meta or sample.meta["result"] == results[-1]
        assert [(call["name"], call["arguments"]) for call in sample.meta["calls"]] == calls
        if sample.answer is not None:
            assert sample.answer == solution.says


def test_calls_fit_the_tools() -> None:
    tools = {tool["name"]: jsonschema.Draft202012Validator(tool["parameters"]) for tool in TOOLS}
    assert {name for name in tools if f"def {name}(" in SOURCE} == set(tools)
    for sample in samples():
        assert sample.meta["tools"] == list(TOOLS)
        for call in sample.meta["calls"]:
            tools[call["name"]].validate(call["arguments"])


def test_boxes_are_other_ones_each_time() -> None:
    rng = random.Random(0)
    told = {"box": 472, "other": 138}
    drawn = [fill(told, rng) for _ in range(50)]
    assert all({472, 138} < set(boxes) and len(set(boxes.values())) == len(boxes) for boxes in drawn)
    assert len({boxes[472] for boxes in drawn}) > 20
    assert len({boxes[472] > boxes[138] for boxes in drawn}) == 2


def read(turns: Sequence[str]) -> list[Call]:
    """The calls in the policy's turns, for those who write them as the lessons do."""
    found = []
    for turn in turns[::2]:
        for part in turn.split("<tool_call>")[1:]:
            call = json.loads(part.partition("</tool_call>")[0])
            found.append((call["name"], call["arguments"]))
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_right_transcripts_do_it_and_slips_do_not(kind: Kind) -> None:
    """Judged by what the source does; that the verifier judges so too is for an integration test."""
    rng = random.Random(0)
    cases, jobs = [], []
    for told in itertools.islice(problems(kind, "train", rng), 40):
        boxes = fill(told, rng)
        solution = kind.solve(told, boxes)
        for turns in [transcript(solution), *(slip(kind, told, boxes, which) for which in ["", *ANYWHERE])]:
            cases.append((solution, turns))
            jobs.append((SOURCE.format(boxes=boxes), read(turns)))
    wanted = [[call for calls in solution.rounds for call in calls] for solution, _ in cases]
    for number, (((solution, turns), calls), (_, after)) in enumerate(
        zip(zip(cases, wanted, strict=True), called(jobs), strict=True)
    ):
        made = jobs[number][1]
        closed = all(turn.count("<tool_call>") == turn.count("</tool_call>") for turn in turns)
        said = turns[-1] if solution.says not in ("", DONE) else solution.says
        right = (
            sorted(map(str, made)) == sorted(map(str, calls))
            and closed
            and said == solution.says
            and after == {str(box): held for box, held in solution.after.items()}
        )
        assert right is (number % (2 + len(ANYWHERE)) == 0), turns


def test_lessons_are_from_the_train_split_and_mixed_as_said() -> None:
    assert set(RIGHT) == set(BY_NAME)
    asked = {s.prompt for s in load("test")}
    lessons = list(itertools.islice(conversations(3, RIGHT), 4000))
    assert not {turns[0] for turns in lessons} & asked
    assert all(len(turns) % 2 == 0 for turns in lessons)
    share = sum("<tool_call>" in turns[-1] and "</tool_call>" not in turns[-1] for turns in lessons) / len(lessons)
    assert 0.4 * ANYWHERE["left open"] < share < 2 * ANYWHERE["left open"]
    share = sum('"remove"' in turns[1] for turns in lessons) / len(lessons)
    assert 0.3 / len(KINDS) < share < 0.8 / len(KINDS)
    textbook = list(itertools.islice(conversations(3, {}), 500))
    assert not any('"remove"' in turns[1] or '"amount"' in turns[1] for turns in textbook)


def test_calls_are_written_in_tags() -> None:
    text = calls_text([("count", {"box": 472}), ("put", {"box": 138, "number": 2})])
    assert text == (
        '<tool_call>{"name":"count","arguments":{"box":472}}</tool_call>'
        '<tool_call>{"name":"put","arguments":{"box":138,"number":2}}</tool_call>'
    )
    assert prompt(BY_NAME["count"], {"box": 472}, random.Random(0)).endswith(("472?", "472."))
