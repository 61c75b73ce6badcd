"""The official JSON Schema test suite, from `../shared` where that stands beside the clone: all of it is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7, DRAFT202012
from rlvr_verifiers.json_schema import json_schema
from rlvr_verifiers.schemas import checker

from rlvr import Completion, Sample, Verdict

SUITE = Path(__file__).parents[2].parent / "shared" / "data" / "json_schema_suite"
DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
TESTS = {"draft7": 927, "draft2020-12": 1299}

pytestmark = pytest.mark.skipif(not SUITE.is_dir(), reason="there is no ../shared/data")


@cache
def remotes() -> dict[str, Any]:
    """The suite's other schemas, but for those of a draft that is not out."""
    known = json.loads((SUITE / "remotes.json").read_text(encoding="utf-8"))
    return {f"http://localhost:1234/{path}": schema for path, schema in known.items() if not path.startswith("v1/")}


def suite(draft: str) -> Iterator[tuple[str, Any, Any, bool]]:
    """`(name, schema, value, valid)`."""
    for line in (SUITE / f"{draft}_required.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        schema = row["schema"]
        if isinstance(schema, dict):
            schema = {"$schema": DRAFTS[draft], **schema}
        for test in row["tests"]:
            name = f"{row['file']}: {row['description']}: {test['description']}"
            yield name, schema, test["data"], test["valid"]


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_checker_has_all_of_it_right(draft: str) -> None:
    wrong, count = [], 0
    for name, schema, value, valid in suite(draft):
        compiled = checker(schema, registry=remotes())
        count += 1
        if compiled.valid(value) is not valid or bool(compiled.problems(value)) is valid:
            wrong.append(name)
    assert not wrong
    assert count == TESTS[draft]


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_verifier_has_all_of_it_right(draft: str) -> None:
    wrong = []
    for name, schema, value, valid in suite(draft):
        completion, sample = Completion(json.dumps(value, ensure_ascii=False)), Sample("s", meta={"schema": schema})
        verdict = json_schema.fn(completion, sample, mode="strict", registry=remotes())
        assert isinstance(verdict, Verdict)
        if not verdict.valid or verdict.passed is not valid or (verdict.score == 1.0) is not valid:
            wrong.append(f"{name}: {verdict.detail}")
    assert not wrong


@pytest.mark.parametrize(("draft", "known"), [("draft7", 0), ("draft2020-12", 6)])
def test_the_reference_implementation_agrees(draft: str, known: int) -> None:
    """But for tests that it has wrong itself."""
    specification = DRAFT7 if draft == "draft7" else DRAFT202012
    others = [(uri, Resource.from_contents(it, default_specification=specification)) for uri, it in remotes().items()]
    registry: Registry[Any] = Registry().with_resources(others)
    cls = jsonschema.Draft7Validator if draft == "draft7" else jsonschema.Draft202012Validator
    apart = []
    for name, schema, value, valid in suite(draft):
        said = checker(schema, registry=remotes()).valid(value)
        try:
            other = cls(schema, registry=registry).is_valid(value)
        except re.error:  # it has Python's regular expressions, which lack `\p{...}`
            other = None
        if other is not said:
            assert said is valid
            apart.append(name)
    assert len(apart) <= known, apart
