"""`json-schema` and `tool-call` on labelled completions of our own: every verdict is there, quick, and as labelled."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlvr import Completion, Sample, Scorer, Verdict

CORPORA = Path(__file__).parents[1] / "corpora"
OWN_TOOLS = CORPORA / "tools" / "own_tools.jsonl"
FILES = [
    file for folder in ("json", "tools") for file in sorted((CORPORA / folder).glob("*.jsonl")) if file != OWN_TOOLS
]
FORMATS = {"auto", "openai", "hermes", "llama", "python", "bfcl", "mistral", "deepseek"}
TAGS = {"policy", "format", "hang"}

KNOWN_WRONG: dict[str, dict[str, str]] = {  # all of them are `policy`
    "json/heldout_late": {
        "jl019": "a semicolon behind the object in a fence: what is left is still one value",
        "jl021": "`{}` in a sentence before the object: no second candidate for a reader",
    },
    "tools/heldout": {  # the verifier is stricter than some servers, which would run these calls
        "th028": "`</tool_call>` is missing at the end: nothing says that the call was meant to end there",
        "th037": "a list of two calls in one tag, where a tag holds one object",
        "th041": "a call without `arguments`, of a tool that has no parameters",
        "th242": "an empty text as `arguments`, of a tool that has no parameters",
    },
    "tools/heldout_late": {
        "tl019": "1.00000000000000000001 for 1: numbers are read in double precision",
    },
}
"""Rows by file that a verifier gets wrong, and why; a row that it gets right must leave."""


def named(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@cache
def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


@cache
def tools() -> dict[str, Any]:
    known: dict[str, Any] = json.loads((CORPORA / "tools" / "tools.json").read_text(encoding="utf-8"))
    return known


def completion(row: dict[str, Any]) -> str:
    """The completion, put together where the row has only its pieces."""
    if "output" in row:
        return str(row["output"])
    parts = []
    for text, times in row["pieces"]:
        parts += [text.replace("§", str(i)) for i in range(times)] if "§" in text else [text * times]
    return "".join(parts)


def request(row: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Verifier, references and options of a row."""
    if "schema" in row:
        options = {"mode": row["mode"]} | ({"formats": True} if "format" in row.get("tags", ()) else {})
        return "json-schema", {"schema": row["schema"]}, options
    options = {"format": row["format"], "ordered": row["ordered"]}
    if "calls" in row:  # the rows that were written together with the verifier, all with the same tools
        return "tool-call", {"tools": rows(OWN_TOOLS), "calls": row["calls"]}, options
    return "tool-call", {"tools": [tools()[name] for name in row["tools"]], "calls": row["gold"]}, options


def judge(file: Path) -> list[Verdict]:
    futures = []
    with Scorer(timeout=10) as scorer:
        for row in rows(file):
            verifier, references, options = request(row)
            sample = Sample(str(row["id"]), meta=references)
            futures.append(scorer.submit(verifier, Completion(completion(row)), sample, options))
        return [future.result(300) for future in futures]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_every_row_has_the_format(file: Path) -> None:
    for row in rows(file):
        where = row["id"]
        assert isinstance(row["kind"], str), where
        assert type(row["expected"]) is bool, where
        assert ("output" in row) is not ("pieces" in row), where
        assert set(row.get("tags", ())) <= TAGS, where
        if file.parent.name == "json":
            assert row["mode"] in ("strict", "extract"), where
            assert isinstance(row["schema"], dict | bool), where
        else:
            assert row["format"] in FORMATS, where
            assert type(row["ordered"]) is bool, where
            request(row)


def test_ids_are_unique() -> None:
    seen = Counter(row["id"] for file in FILES for row in rows(file))
    assert not [name for name, times in seen.items() if times > 1]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_verdicts_are_as_labelled(file: Path) -> None:
    verdicts = dict(zip([row["id"] for row in rows(file)], judge(file), strict=True))
    assert not {name: verdict.detail for name, verdict in verdicts.items() if not verdict.valid}
    assert not {name: verdict.score for name, verdict in verdicts.items() if verdict.passed is not (verdict.score == 1)}
    wrong = {row["id"] for row in rows(file) if verdicts[row["id"]].passed is not row["expected"]}
    assert wrong == set(KNOWN_WRONG.get(named(file), {}))
    assert not {name: verdict.duration for name, verdict in verdicts.items() if verdict.duration > 1}
