"""Regular expressions in linear time: what is taken, what is refused and in which words, and what it costs."""

from __future__ import annotations

import time

import pytest
from rlvr_verifiers.patterns import SOURCE_LIMIT, pattern


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("(?=a)b", "look-ahead"),
        ("(?!a)b", "look-ahead"),
        ("(?<=a)b", "look-behind"),
        ("(?<!a)b", "look-behind"),
        ("(?>a)", "atomic"),
        (r"(a)\1", "back-reference"),
        (r"(?P<x>a)(?P=x)", "back-reference"),
        ("a*+", "possessive"),
        (r"a\Z", r"write `\\z`"),
        ("(a", r"missing \)"),
        ("[z-a]", "range"),
        ("a{2000}", "repetition"),
        ("x" * (SOURCE_LIMIT + 1), "characters, more than"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_cannot_be_used_is_a_value_error_in_words(source: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        pattern(source)


def test_a_pattern_must_be_text() -> None:
    with pytest.raises(ValueError, match="not a `int`"):
        pattern(5)  # type: ignore[arg-type]


def test_flags_and_matches() -> None:
    assert not pattern("B").search("b")
    assert pattern("B", ignore_case=True).search("ab").start() == 1
    assert not pattern("a.b").search("a\nb")
    assert pattern("a.b", dot_all=True).fullmatch("a\nb")
    assert not pattern("^b$").search("a\nb\nc")
    assert pattern("^b$", multi_line=True).search("a\nb\nc")
    assert pattern("b").match("ab") is None
    assert pattern("(ä)(b)").search("xäb").group(2) == "b"
    assert pattern("é").search("àé").span() == (1, 2)
    assert [found.group() for found in pattern(r"\d").finditer("1 2")] == ["1", "2"]
    assert pattern("a").count("aaaa", 3) == 3
    assert pattern("a").count("aa", 3) == 2
    assert pattern(r"\p{Greek}+").fullmatch("αβγ")


def test_the_same_pattern_is_compiled_once() -> None:
    assert pattern("abc") is pattern("abc")
    assert pattern("abc") is not pattern("abc", ignore_case=True)


def test_half_of_a_surrogate_pair_in_a_text_is_no_error() -> None:
    assert pattern("b").search("\ud800b").start() == 1


@pytest.mark.parametrize("source", ["(x+x+)+y", "(a|aa)+$", r"^(\w+\s?)*$", "(.*)*z", "(?:a?){500}a{500}"])
def test_no_pattern_hangs(source: str) -> None:
    text = "a" * 500_000 + "x" * 500_000 + "!"
    start = time.process_time()
    pattern(source).search(text)
    assert time.process_time() - start < 15  # 0.1 s on a quiet machine
