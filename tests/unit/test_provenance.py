"""What rewards come from, and what of it has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlvr import Task, gate, part
from rlvr.provenance import changes, provenance, source_digest
from rlvr.registry import Registry

PLUGIN = """
from rlvr import hookimpl, verifier

@verifier("short")
def short(completion, sample, *, limit=3):
    return len(completion.text) <= limit

@hookimpl
def rlvr_verifiers():
    return [short]
"""


def task(**changes: Any) -> Task:
    return Task("sums", **{"verifier": "short", "load": lambda split: []} | changes)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "short.py"
    path.write_text(PLUGIN)
    return path


def facts(plugin: Path, **changes: Any) -> dict[str, str]:
    return provenance([task(**changes)], Registry.load([plugin]))


def test_the_same_things_are_the_same(plugin: Path) -> None:
    found = facts(plugin)
    assert set(found) == {"task `sums`", "the judge of `sums`", "verifier `short`", "plugin `short.py`"}
    assert changes(found, facts(plugin)) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, ["task `sums` was version 1, and is version 2"]),
        ({"verifier_options": {"limit": 4}}, ['the judge of `sums` was ["short", {}], and is ["short", {"limit": 4}]']),
        ({"verifier": "math"}, ["the judge of", "verifier `short` was", "verifier `math` was None, and is built-in"]),
        ({"verifier": gate(a=part("short", limit=2), b="math")}, ["the judge of", "verifier `math`"]),
    ],
)
def test_what_has_changed_is_named(plugin: Path, change: dict[str, Any], named: list[str]) -> None:
    found = changes(facts(plugin), facts(plugin, **change))
    assert len(found) == len(named)
    for line, start in zip(found, named, strict=True):
        assert line.startswith(start)


def test_a_plugin_that_was_edited_is_named(plugin: Path) -> None:
    before = facts(plugin)
    plugin.write_text(PLUGIN.replace("limit=3", "limit=5"))
    assert [line.split(" was ")[0] for line in changes(before, facts(plugin))] == [
        "verifier `short`",
        "plugin `short.py`",
    ]


def test_a_package_counts_as_a_whole() -> None:
    math = Registry.load().verifier("math")
    text = Registry.load().verifier("text")
    assert source_digest(math.fn) != source_digest(text.fn)
    assert source_digest(math.fn) == source_digest(math.fn)


def test_options_that_are_no_json_are_named_by_their_type(plugin: Path) -> None:
    assert (
        changes(
            facts(plugin, verifier_options={"limit": object()}), facts(plugin, verifier_options={"limit": object()})
        )
        == []
    )
