"""The `json-schema` verifier: verdicts, scores, details, options, its gold and spoil, its kit, its speed."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.json_schema import json_schema
from rlvr_verifiers.json_schema.kit import ANN, DEAL, ORDER, PERSON, kit

import rlvr
from rlvr import Completion, Sample, Scorer, Status, Verdict, api

GOOD = json.dumps(ANN)


def verify(text: str, /, *, schema: Any = PERSON, answer: Any = None, **given: Any) -> Verdict:
    meta = {"schema": schema} | ({"reference": given.pop("reference")} if "reference" in given else {})
    verdict = json_schema.fn(Completion(text), Sample("s", answer=answer, meta=meta), **given)
    assert isinstance(verdict, Verdict)
    return verdict


def test_a_pass_says_where_the_json_was() -> None:
    verdict = verify(f"So:\n```json\n{GOOD}\n```")
    assert verdict == Verdict.of(
        True, "the JSON is valid (fence)", parts={"found": "fence", "valid": True, "schema": 1.0}
    )


@pytest.mark.parametrize(
    ("text", "given", "detail", "parts"),
    [
        (
            '{"name": "Ann", "age": "3", "x": 1}',
            {},
            '`$.age` is "3", not an integer (the first of 2 problems)',
            {"problems": ['$.age is "3", not an integer', "$.x is not allowed"], "valid": False, "found": "whole"},
        ),
        (
            "So be it.",
            {},
            "no JSON: there is no JSON object or array in the text",
            {"problem": "nothing", "schema": 0.0},
        ),
        (
            "{'a': 1}",
            {},
            "no JSON: a single quote at line 1, column 2; JSON has double ones",
            {"problem": "single-quotes"},
        ),
        ("```json\n{\n```", {}, "no JSON in the last block", {"found": "fence", "problem": "cut-off"}),
        (
            json.dumps(ANN | {"age": 32}),
            {"reference": ANN},
            "`$.age` is 32, not 31 (75% of the fields are right)",
            {"fields": 0.75, "valid": True, "schema": 1.0},
        ),
        (
            '{"name": "Ann", "age": "31", "tags": ["chess", "tea"]}',
            {"reference": ANN},
            '`$.age` is "31", not an integer; `$.age` is "31", not 31 (75% of the fields are right)',
            {"valid": False, "fields": 0.75},
        ),
    ],
)
def test_a_failure_says_why(text: str, given: dict[str, Any], detail: str, parts: dict[str, Any]) -> None:
    verdict = verify(text, **given)
    assert verdict.status is Status.FAILED
    assert verdict.score < 1
    assert verdict.detail.startswith(detail)
    assert parts.items() <= verdict.parts.items()


@pytest.mark.parametrize(
    ("meta", "options", "said"),
    [
        ({"schema": {"type": "strin"}}, {}, "the schema cannot be used at `$.type`"),
        ({"schema": "{'type': 1}"}, {}, "`schema` is text, but no JSON"),
        ({"schema": {"$ref": "#"}}, {}, "leads back to itself"),
        ({"schema": {"$ref": "http://127.0.0.1:9/x"}}, {}, "nothing is fetched"),
        ({}, {}, "object or true or false, not null"),
        ({"schema": {}}, {"mode": "lax"}, '`strict` or `extract`, not "lax"'),
        ({"schema": {}}, {"compare": {"a": "sets"}}, "`compare` has the rule"),
        ({"schema": {}}, {"tolerance": -1}, "`tolerance`"),
        ({"schema": {}}, {"registry": [1]}, "`registry`"),
        ({"schema": {}, "answer": "Paris"}, {}, "the reference `answer` is text, but no JSON"),
    ],
)
def test_what_the_task_has_wrong_is_no_verdict_on_the_completion(
    meta: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    for text in (GOOD, "nonsense", ""):
        verdict = json_schema.fn(Completion(text), Sample("s", answer=meta.get("answer"), meta=meta), **options)
        assert isinstance(verdict, Verdict)
        assert verdict.status is Status.ERROR
        assert said in verdict.detail


def test_where_schema_and_reference_come_from() -> None:
    text = json.dumps(PERSON)
    assert verify(GOOD, schema=text).passed
    assert json_schema.fn(Completion(GOOD), Sample("s"), schema=PERSON).passed  # type: ignore[union-attr]
    own = Sample("s", meta={"schema": False})
    assert not json_schema.fn(Completion(GOOD), own, schema=PERSON).passed  # type: ignore[union-attr]
    assert verify(GOOD, answer=GOOD).parts["fields"] == 1.0
    assert verify(GOOD, answer=ANN).passed
    assert not verify(GOOD, answer={"name": "Bo"}).passed
    assert verify("null", schema=True, reference=None).parts["fields"] == 1.0
    assert "fields" not in verify("null", schema=True).parts
    assert verify("3", schema=True, answer="3").passed
    assert not verify("3", schema=True, answer='"3"').passed
    registry = {"http://x/int": {"type": "integer"}}
    assert verify("3", schema={"$ref": "http://x/int"}, registry=registry).passed
    assert not verify('"3"', schema={"$ref": "http://x/int"}, registry=json.dumps(registry)).passed


def test_the_score_mixes_form_and_fields() -> None:
    scores = [
        verify(text, reference=ANN).score
        for text in (
            "nothing",
            "[]",
            "{}",
            '{"name": "-", "age": 0, "tags": []}',
            '{"name": "-", "age": 31, "tags": []}',
            '{"name": "Ann", "age": 31, "tags": ["chess"]}',
            GOOD,
        )
    ]
    assert scores == sorted(scores)
    assert scores[1] == 0
    assert 0 < scores[2] < 0.05
    assert scores[3] <= 0.1
    assert scores[-2] < scores[-1] == 1
    extra = verify(json.dumps(ANN | {"mail": "a@b.org"}), reference=ANN).score
    assert scores[4] < extra < 1


@pytest.mark.parametrize(
    "reference", [ANN, DEAL, [1, 2], "x", 3, True, None, {}, [], {"a": {"b": [None, {"c": 0.5}]}}, {"a": []}]
)
def test_gold_passes_and_spoiled_fails(reference: Any) -> None:
    assert json_schema.gold
    assert json_schema.spoil
    for number in range(10):
        for sample in (
            Sample(f"s{number}", answer=json.dumps(reference), meta={"schema": True}),
            Sample(f"s{number}", meta={"schema": True, "reference": reference}),
        ):
            assert json_schema.fn(Completion(json_schema.gold(sample)), sample).passed  # type: ignore[union-attr]
            spoiled = json_schema.spoil(sample)
            assert spoiled is not None
            verdict = json_schema.fn(Completion(spoiled), sample)
            assert isinstance(verdict, Verdict)
            assert verdict.status is Status.FAILED


def test_without_a_reference_there_is_no_gold() -> None:
    assert json_schema.gold
    assert json_schema.spoil
    assert json_schema.gold(Sample("s", meta={"schema": True})) == ""
    assert json_schema.spoil(Sample("s", meta={"schema": True})) is None


@given(st.text(st.sampled_from("{}[]\",:a1`~\n\\ <>/thinkanswer-.eE+“'\ufeff\ud800\0"), max_size=200), st.booleans())
def test_no_text_is_an_error(text: str, strict: bool) -> None:
    mode = "strict" if strict else "extract"
    for schema in (True, PERSON, ORDER):
        verdict = verify(text, schema=schema, mode=mode, reference=ANN, compare={"$": "exact"})
        assert verdict.status in (Status.PASSED, Status.FAILED)
        assert verdict.passed == (verdict.score == 1.0)
        json.dumps([verdict.detail, dict(verdict.parts)]).encode()


KIT = kit()


def test_the_kit_is_large_enough() -> None:
    assert len(KIT.cases) >= 60
    assert len(KIT.hacks) >= 40
    assert len({(case.completion, json.dumps(dict(case.reference))) for case in KIT.cases}) == len(KIT.cases)


@pytest.mark.parametrize("case", [*KIT.cases, *KIT.hacks], ids=lambda case: case.kind)
def test_cases_and_hacks(case: rlvr.Case) -> None:
    verdict = verify(case.completion, **case.reference)
    assert verdict.status is (Status.PASSED if case.passes else Status.FAILED), verdict.detail


@pytest.mark.parametrize("law", KIT.laws, ids=lambda law: law.name)
def test_laws(law: rlvr.Law) -> None:
    rewritten = 0
    for number, case in enumerate([*KIT.cases, *KIT.hacks]):
        for seed in range(3):
            text = law.rewrite(case.completion, random.Random(f"{number} {seed}"))
            if text is not None and text != case.completion:
                rewritten += 1
                assert verify(text, **case.reference).passed is case.passes, (case.kind, text)
    assert rewritten > 30


@pytest.fixture
def no_shared_scorer() -> Iterator[None]:
    """Ends the workers of `rlvr.verify` afterwards, which other tests would count."""
    yield
    if api._shared is not None:
        api._shared.close()


def test_the_public_call(no_shared_scorer: None) -> None:
    assert rlvr.verify("json-schema", GOOD, schema=PERSON).passed
    assert not rlvr.verify("json-schema", f"x {GOOD}", schema=PERSON, mode="strict").passed
    assert rlvr.verify("json-schema", f"x {GOOD}", schema=PERSON, mode="extract", reference=ANN).passed
    bad = '{"name": "Ann", "age": 1, "mail": "x"}'
    assert rlvr.verify("json-schema", bad, schema=PERSON).passed
    assert not rlvr.verify("json-schema", bad, schema=PERSON, formats=True).passed
    assert rlvr.verify("json-schema", GOOD, schema={"type": 3}).status is Status.ERROR
    with pytest.raises(rlvr.UsageError):
        rlvr.verify("json-schema", GOOD)


def test_the_batch_path_is_fast() -> None:
    """At least 5,000 a second on a quiet machine; less than half of that has to be there on any."""
    rng = random.Random(0)
    pairs = []
    for number in range(6_000):
        lines = [{"sku": f"AB{rng.randrange(99)}", "count": rng.randrange(9)} for _ in range(rng.randrange(1, 12))]
        order = {"total": rng.randrange(10_000) / 100, "lines": lines, "note": "thanks " * rng.randrange(20)}
        text = json.dumps(order)
        if number % 3 == 1:
            text = f"Here it is.\n```json\n{text}\n```"
        pairs.append((Completion(text), Sample(str(number), meta={"schema": ORDER})))
    best = 0.0
    with Scorer(workers=1) as scorer:
        scorer.submit_batch("json-schema", pairs[:200]).result(60)
        for _ in range(3):
            start = time.perf_counter()
            verdicts = scorer.submit_batch("json-schema", pairs).result(60)
            best = max(best, len(pairs) / (time.perf_counter() - start))
    assert all(verdict.passed for verdict in verdicts)
    assert best > 2_000


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ({"a": "x"}, r"does not allow the `reference`: `\$.a` is \"x\", not an integer"),
        ({}, r"does not allow the `reference`: `\$.a` is missing"),
        ({"a": 1, "b": float("nan")}, "the `reference` is no JSON"),
        ({"a": 1, "b": float("inf")}, "the `reference` is no JSON"),
    ],
)
def test_a_reference_that_nothing_can_equal_is_the_tasks_fault(reference: Any, why: str) -> None:
    schema = {"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for text in ('{"a": 1}', json.dumps(reference), "none"):
        verdict = verify(text, schema=schema, reference=reference)
        assert verdict.status is Status.ERROR
        assert re.search(why, verdict.detail)


def test_a_reference_need_not_be_valid_where_others_equal_it() -> None:
    schema = {"properties": {"a": {"type": "integer", "maximum": 2}, "id": {"type": "string"}}, "required": ["id"]}
    assert verify('{"a": 2, "id": "x"}', schema=schema, reference={"a": 2}, compare={"id": "ignore"}).passed
    assert verify('{"a": 2, "id": "x"}', schema=schema, reference={"a": 3, "id": "x"}, tolerance=1).passed
