"""The extraction task: golds fit their schemas, the splits are disjoint, slips fail, and the data never change."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections import Counter
from typing import Any

import jsonschema
import pytest
from rlvr_tasks.json_extraction import KINDS, PER_KIND, Kind, load, problems, prompt, split_of, written
from rlvr_tasks.json_lessons import ANYWHERE, RIGHT, conversations, slip

from rlvr import Completion, Sample, Status
from rlvr.registry import registry


def samples() -> list[Sample]:
    return [*load("train"), *load("test")]


def drawn(kind: Kind, count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(problems(kind, "train", random.Random(0)), count))


def verdict(text: str, kind: Kind, value: dict[str, Any]) -> Status:
    spec = registry().verifier("json-schema")
    found = spec(Completion(text), Sample("s", meta={"schema": dict(kind.schema), "reference": value}))
    return found.status  # type: ignore[union-attr]


def test_the_same_version_is_the_same_data() -> None:
    text = "\n".join(f"{s.id}|{s.prompt}|{s.answer}|{s.meta['schema']}" for s in samples())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "61f54883d5f148e8", (
        "raise the task's version with its data"
    )


def test_no_problem_is_in_both_splits_under_any_wording() -> None:
    train, test = load("train"), load("test")
    assert not {s.id for s in train} & {s.id for s in test}
    assert not {s.prompt for s in train} & {s.prompt for s in test}
    for samples in (train, test):
        assert len({s.id for s in samples}) == len(samples)
    for split in ("train", "test"):
        assert all(split_of(s.meta["kind"], s.meta["reference"]) == split for s in load(split))  # type: ignore[arg-type]


def test_every_level_is_there() -> None:
    for split in ("train", "test"):
        assert Counter(s.meta["kind"] for s in load(split)) == dict.fromkeys(  # type: ignore[arg-type]
            [kind.name for kind in KINDS], PER_KIND[split]
        )
    assert {kind.level for kind in KINDS} == {1, 2, 3, 4, 5}


def test_problems_are_short() -> None:
    for sample in samples():
        assert len(str(sample.prompt)) <= 120
        assert len(str(sample.answer)) <= 110


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_golds_fit_their_schemas_and_are_told_in_the_text() -> None:
    for sample in samples():
        value = json.loads(str(sample.answer))
        assert value == sample.meta["reference"]
        jsonschema.Draft202012Validator(sample.meta["schema"]).validate(value)
        text = str(sample.prompt).split("}: ", 1)[1]
        numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}
        for leaf in leaves(value):
            if isinstance(leaf, bool):
                assert leaf is ("not paid" not in text)
            elif isinstance(leaf, str):
                assert leaf in text or leaf in ("high", "low")
            else:
                assert leaf in numbers


def test_nothing_in_a_text_is_the_same_for_two_objects() -> None:
    for kind in KINDS:
        rng = random.Random(1)
        told: dict[str, Any] = {}
        for value in drawn(kind, 2000):
            assert told.setdefault(prompt(kind, value, rng), value) == value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_schemas_are_sharp(kind: Kind) -> None:
    check = jsonschema.Draft202012Validator(kind.schema)
    check.check_schema(kind.schema)
    for value in drawn(kind, 20):
        for key in kind.schema["required"]:
            assert not check.is_valid({k: v for k, v in value.items() if k != key})
        assert not check.is_valid({**value, "more": 1})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_golds_pass_and_every_slip_fails(kind: Kind) -> None:
    for value in drawn(kind, 40):
        assert verdict(written(value), kind, value) is Status.PASSED
        for which in ["", *ANYWHERE]:
            assert verdict(slip(kind, value, which), kind, value) is Status.FAILED, (value, which)


def test_lessons_are_from_the_train_split_and_mixed_as_said() -> None:
    assert set(RIGHT) == {kind.name for kind in KINDS}
    asked = {s.prompt for s in load("test")}
    textbook = list(itertools.islice(conversations(3, {}), 2000))
    assert not {question for question, _ in textbook} & asked
    for _, answer in textbook:
        json.loads(answer)
    lessons = list(itertools.islice(conversations(3, RIGHT), 4000))
    assert not {question for question, _ in lessons} & asked
    share = sum(answer.endswith(",}") for _, answer in lessons) / len(lessons)
    assert 0.5 * ANYWHERE["comma too many"] < share < 2 * ANYWHERE["comma too many"]
    people = [
        json.loads(answer)
        for question, answer in lessons
        if question.startswith("JSON {name, age") and answer[-2:] == '"}'
    ]
    right = sum(isinstance(person.get("age"), int) for person in people) / len(people)
    assert 0.5 < right < 0.8
