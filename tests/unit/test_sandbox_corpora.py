"""The rows under `tests/corpora/sandbox`: their format only; nothing of them is executed here."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "corpora" / "sandbox"
FILES = ("attacks", "honest")
KEYS = {"id", "category", "honest", "hard", "kind", "solution", "tests", "expected", "must_not", "timeout_s", "note"}
STATUSES = {"pass", "fail", "error", "timeout", "memory", "output"}
HARM = {"pass", "contaminate", "leftover_process", "leftover_file", "hang", "runner_crash", "host_write"}
HARM |= {"host_memory", "big_result"}
MARKS_FIRST = re.compile(r"\.setsid\(\)|time\.sleep\((?:[2-9]\d)\)")
"""What a process does that means to stay; its row must write the mark by which the evaluation finds it."""

NOT_PARSED = {"byte-order-mark"}
"""Honest sources that Python reads from a file but not from a `str`."""


@cache
def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]


def parses(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


@pytest.mark.parametrize("file", FILES)
def test_every_row_has_the_format(file: str) -> None:
    for row in rows(file):
        where = row["id"]
        assert set(row) == KEYS, where
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", where)
        assert row["category"].startswith("honest-") is (file == "honest"), where
        assert row["honest"] is (file == "honest"), where
        assert (type(row["hard"]), type(row["note"]), type(row["timeout_s"])) == (bool, str, float), where
        assert 1 <= row["timeout_s"] <= 20, where
        assert row["kind"] in ("asserts", "stdio"), where
        if row["kind"] == "asserts":
            assert "assert" in row["tests"].lower(), where
        else:
            assert row["tests"], where
            assert all(set(case) == {"stdin", "stdout"} for case in row["tests"]), where


def test_ids_are_unique() -> None:
    seen = Counter(row["id"] for file in FILES for row in rows(file))
    assert not [name for name, times in seen.items() if times > 1]


def test_attacks_say_what_may_happen() -> None:
    for row in rows("attacks"):
        expected, must_not = set(row["expected"].split("|")), set(row["must_not"].split(","))
        assert expected == {"any"} or expected <= STATUSES - {"pass"}, row["id"]
        assert must_not <= HARM, row["id"]
        assert ("pass" in must_not) is (expected != {"any"}), row["id"]
        assert not row["hard"], row["id"]


def test_honest_rows_pass() -> None:
    assert {(row["expected"], row["must_not"]) for row in rows("honest")} == {("pass", "fail")}


@pytest.mark.parametrize("file", FILES)
def test_sources_parse_unless_they_are_about_broken_source(file: str) -> None:
    for row in rows(file):
        if row["category"] != "crash" and row["id"] not in NOT_PARSED:
            assert parses(row["solution"]), row["id"]
        if row["kind"] == "asserts":
            assert parses(row["tests"]), row["id"]


def test_probes_return_true_when_containment_failed() -> None:
    probes = [row for row in rows("attacks") if row["tests"] == "assert probe() is True\n"]
    assert len(probes) > 30
    assert all("def probe():" in row["solution"] for row in probes)
    assert sum("def probe():" in row["solution"] for row in rows("attacks")) == len(probes)


def test_programs_that_stay_carry_the_mark() -> None:
    for row in rows("attacks"):
        if "leftover_process" in row["must_not"] and MARKS_FIRST.search(row["solution"]):
            assert "sbxatk" in row["solution"], row["id"]


@pytest.mark.parametrize(("file", "least"), [("attacks", 200), ("honest", 150)])
def test_there_are_enough(file: str, least: int) -> None:
    assert len(rows(file)) >= least


def test_the_readme_knows_every_category_and_counts_right() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    told = {name: int(count) for name, count in re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", text, re.MULTILINE)}
    assert told == dict(Counter(row["category"] for file in FILES for row in rows(file)))


def test_the_corpora_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 614_400
