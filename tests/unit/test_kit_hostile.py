"""The hostile corpus and the fuzzer: always the same for a seed, bounded, and of the kinds that break readers."""

from __future__ import annotations

import pytest

from rlvr.kit.hostile import LARGE, LONGEST, corpus, mutations
from rlvr.preflight import HOSTILE
from rlvr.testing import hostile_texts

SEEDS = ["It is 4.", r"\boxed{\frac{1}{2}}", '{"a": [1, 2]}', "```python\nx = 1\n```"]


def test_the_corpus_is_always_the_same_and_has_no_text_twice() -> None:
    first = corpus()
    assert first == corpus()
    assert len(set(first)) == len(first) > 100


@pytest.mark.parametrize(
    "part",
    ["\x00", "\ud800", "\u202e", "\ufeff", "NaN", "1e999999999", "9" * 5_000, "<think>42", "```python", "\\boxed{"],
)
def test_the_corpus_has(part: str) -> None:
    assert any(part in text for text in corpus() if len(text) < 200_000)


def test_the_corpus_has_a_megabyte_of_brackets_and_nesting_around_the_recursion_limit() -> None:
    texts = set(corpus())
    assert "[" * LARGE in texts
    assert "{" * LARGE in texts
    assert "[" * 1_000 + "1" + "]" * 1_000 in texts
    assert '{"a":' * 100_000 + "1" + "}" * 100_000 in texts
    assert max(map(len, texts)) == LARGE + 200_001 or max(map(len, texts)) <= 2 * LARGE


def test_mutations_depend_on_the_seed_alone() -> None:
    assert list(mutations(1, 50, SEEDS)) == list(mutations(1, 50, SEEDS))
    assert list(mutations(1, 50, SEEDS)) != list(mutations(2, 50, SEEDS))
    assert list(mutations(1, 20, SEEDS)) == list(mutations(1, 50, SEEDS))[:20]


def test_mutations_are_bounded_and_mostly_differ_from_what_they_are_made_of() -> None:
    texts = list(mutations(0, 500, SEEDS))
    assert all(len(text) <= LONGEST for text in texts)
    assert len(set(texts)) > 400
    assert sum(text in SEEDS for text in texts) < 25
    assert sum(text.startswith("It is") for text in texts) > 20


def test_mutations_of_empty_and_very_long_texts() -> None:
    assert len(list(mutations(0, 300, ["", "x", "y" * 10**6]))) == 300
    assert len(list(mutations(0, 10))) == 10


def test_hostile_texts_are_the_corpus_and_the_mutations() -> None:
    texts = hostile_texts(3, 5, SEEDS)
    assert texts[: len(corpus())] == corpus()
    assert texts[len(corpus()) :] == list(mutations(3, 5, SEEDS))


def test_the_preflight_tries_what_a_model_can_write() -> None:
    assert all(text.encode() for text in HOSTILE)
    assert any("\x00" in text for text in HOSTILE)
    assert any("[" * 1_000 in text for text in HOSTILE)
