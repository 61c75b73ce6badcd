"""What is counted and what is seen: written definitions, and laws on made-up text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.text import counts
from rlvr_verifiers.text.seen import View, fold, unstacked, visible

ANY = st.text(max_size=200)
LETTERS = st.text(alphabet="abcxyzäñ漢नд", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("don't", 1),
        ("well-known", 2),
        ("a_b", 2),
        ("नमस्ते दुनिया", 2),
        ("漢字かな", 4),
        ("e\u0301tude", 1),
        ("3.14", 2),
        ("- * …", 0),
        ("l’été", 1),
    ],
)
def test_words(text: str, number: int) -> None:
    assert len(counts.words(text)) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("One. Two! Three? Four…", 4),
        ("Dr. Lee and Mrs. Wu met at 3.30 in the U.S. capital.", 1),
        ("J. R. R. Tolkien wrote it.", 1),
        ("She lives in the U.S. He does not.", 2),
        ("no capitals here. none at all.", 2),
        ("# Heading\nText follows.", 2),
        ("1. first\n2. second", 2),
        ('"Stop!" he said.', 1),
        ("你好。再见！", 2),
        ("Yes . . .", 1),
        ("...", 0),
        ("1. 2. 3.", 0),
        ("Wait... what? I did.", 2),
    ],
)
def test_sentences(text: str, number: int) -> None:
    assert counts.sentences(text) == number


def test_counting_sentences_stops_at_the_limit() -> None:
    assert counts.sentences("Go on. " * 1000, 10) == 10


@given(st.lists(LETTERS, max_size=30), st.sampled_from([" ", "\n", ", ", " - "]))
def test_words_of_a_joined_list_are_those_of_its_items(items: list[str], joint: str) -> None:
    assert len(counts.words(joint.join(items))) == sum(len(counts.words(item)) for item in items)


@given(
    st.lists(st.sampled_from(["One.", "Two words", "a\nb"]), max_size=20), st.sampled_from(["\n\n", "\n \n", "\n\n\n"])
)
def test_paragraphs_of_a_joined_list(items: list[str], joint: str) -> None:
    assert len(counts.paragraphs(joint.join(items))) == len(items)


@given(ANY, ANY)
def test_nothing_is_gained_or_lost_by_a_blank_line_between(first: str, second: str) -> None:
    joined = f"{first}\n\n{second}"
    for count in (lambda text: len(counts.paragraphs(text)), counts.lines):
        assert count(visible(joined)) == count(visible(first)) + count(visible(second))


@given(ANY, st.sampled_from("\u200b\u200d\u2060\ufeff\u00ad\u202e\U000e0041"), st.integers(0, 200))
def test_an_invisible_character_changes_no_count(text: str, hidden: str, at: int) -> None:
    other = visible(text[:at] + hidden + text[at:])
    for count in (counts.words, counts.sentences, counts.paragraphs, counts.lines, counts.characters):
        assert count(other) == count(visible(text))


@given(ANY)
def test_folding_twice_is_folding_once(text: str) -> None:
    assert len(fold(text).split()) == len(fold(fold(text)).split())
    assert visible(visible(text)) == visible(text)


@given(st.text(alphabet="ab ", max_size=40), st.sampled_from(["a", "ab", "b a"]))
def test_whole_words_are_among_all_occurrences(text: str, needle: str) -> None:
    assert counts.occurrences(needle, text, 99, True) <= counts.occurrences(needle, text, 99) <= text.count(needle)
    if " " not in needle:
        assert counts.occurrences(needle, text, 99, True) == text.split().count(needle)


def test_what_a_reader_sees_and_what_may_be_seen() -> None:
    view = View("p\u0430ss\u200bword <!-- secret --> end")
    assert "secret" not in view.seen
    assert "secret" in view.every
    assert "password" in view.every
    assert "password" not in view.seen
    assert View("<!-- never closed").seen == "<!-- never closed"
    assert "kept" in View("```html\n<!-- kept -->\n```").seen


def test_russian_is_no_disguise() -> None:
    assert View("сор и пар").every == "сор и пар"
    assert View("a long English text with сор").every.endswith("cop")


def test_stacked_marks_are_cut() -> None:
    assert len(unstacked("a" + "\u0300\u0316" * 500)) == 9
    assert unstacked("e\u0301") == "e\u0301"
