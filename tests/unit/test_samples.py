"""Samples that a task's own code makes: whatever is wrong with them is named before they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlvr import DataError, PluginError, Sample, Task
from rlvr.samples import samples

CHAT = [{"role": "user", "content": "1+1"}]


def loading(load: Callable[[Any], Any]) -> Task:
    return Task("made", "math", load, source="plugin.py")


def test_good_samples_come_as_a_list() -> None:
    made = [Sample("a", "1+1", 2, {"level": [1, None]}), Sample("b", CHAT, "2")]
    assert samples(loading(lambda split: iter(made)), "train") == made
    assert samples(loading(lambda split: []), "test") == []


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda split: 1 / 0, "raised ZeroDivisionError when its train split was loaded"),
        (lambda split: (1 / 0 for _ in "x"), "raised ZeroDivisionError"),
        (lambda split: None, "loaded a `NoneType` as its train split"),
        (lambda split: {"id": "a"}, "loaded a `dict`"),
        (lambda split: [{"id": "a"}], "has a `dict` as number 0"),
    ],
)
def test_a_load_that_goes_wrong_is_the_fault_of_its_plugin(load: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        samples(loading(load), "train")
    assert "`made` (plugin.py)" in caught.value.message


def test_an_error_in_our_words_passes() -> None:
    def load(split: str) -> list[Sample]:
        raise DataError("line 3")

    with pytest.raises(DataError, match="line 3"):
        samples(loading(load), "train")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample("b", "p", {1, 2}), "`b` has a `answer` that is not JSON"),  # type: ignore[arg-type]
        (Sample("b", "p", float("nan")), "`b` has a `answer` that is not JSON"),
        (Sample("b", "\ud800"), "`b` has a `prompt` that is not JSON"),
        (Sample("b", "p", 1, {"x": object()}), "`b` has a `meta` that is not JSON"),
        (Sample("b", "p", 1, [1]), "`b` has a `list` as its `meta`"),  # type: ignore[arg-type]
        (Sample("b", 3), "`b` has a `prompt` that is neither text nor a chat"),  # type: ignore[arg-type]
        (Sample("b", [{"role": "user"}]), "`b` has a `prompt` that is neither"),  # type: ignore[arg-type,list-item]
        (Sample("a", "p"), "`a` is there twice"),
        (Sample(3, "p"), "number 1 has the id `3`"),  # type: ignore[arg-type]
    ],
)
def test_a_sample_that_cannot_be_used_is_named(sample: Sample, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        samples(loading(lambda split: [Sample("a", "p"), sample]), "test")
    assert caught.value.message.startswith("the task `made`, test split: the sample")
