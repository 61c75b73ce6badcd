"""How the `code` verifier compares output, and values with JSON."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.code.matching import SOURCE, matches
from rlvr_verifiers.code.shown import one_line, shown, shown_text
from rlvr_verifiers.code.stdio import checker_program, checker_verdict, difference

from rlvr import Opaque


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("3\n", "3"),
        ("3", "3\n\n\n"),
        ("1 2\n3\n", "1 2  \n3 \r\n"),
        ("1 2", "1   2"),
        ("0.5", "0.5000001"),
        ("12.566371", "12.566370614359172"),
        ("1e3", "1000"),
        ("1e3", "1000.0"),
        ("007", "7"),
        ("-0", "0"),
        ("YES 0.25", "YES .25"),
        ("", "\n"),
        ("100000000.1", "100000000.2"),
    ],
)
def test_same_output(expected: str, actual: str) -> None:
    assert difference(expected, actual) == ""


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("YES\nNO\nYES\n", "YES\n"),
        ("4\n", ""),
        ("4\n", "4\n4\n"),
        ("4", "5"),
        ("4", "-4"),
        ("100000000000000000001", "100000000000000000000"),
        ("0.5", "0.50001"),
        ("nan", "0"),
        ("inf", "1e999"),
        ("1", "1_0"),
        ("1 2", "1\n2"),
        ("1 2", "12"),
        ("yes", "Yes"),
        ("1", "1 1"),
        ("\n1", "1"),
        ("1", "１"),
    ],
)
def test_other_output(expected: str, actual: str) -> None:
    assert difference(expected, actual)


def test_options_of_the_comparison() -> None:
    assert difference("0.5", "0.51", tolerance=0.1) == ""
    assert difference("0.5", "0.5000001", tolerance=0.0)
    assert difference("1\n", "1", exact=True)
    assert difference("1\n", "1\n", exact=True) == ""
    assert difference("a\nb", "a\nc") == "line 2: got `c`, expected `b`"


@given(st.text(max_size=40))
def test_every_output_is_the_same_as_itself(text: str) -> None:
    assert difference(text, text) == ""
    assert difference(text + "\n", text + "  \n") == ""


def test_a_checker_runs_with_its_data_as_literals() -> None:
    source = (
        "def check(stdin, expected, actual):\n    print('chatter')\n    return sorted(actual) == sorted(expected)\n"
    )
    nasty = '"""\n\\\'; raise SystemExit #\udc80\0'
    for actual, verdict in [(nasty[::-1], "yes"), ("other", "no")]:
        program = checker_program(source, "n0nce", "in", nasty, actual)
        assert program.isascii()
        done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
        assert checker_verdict(done.stdout, "n0nce") == verdict
    assert checker_verdict("yes\nother yes", "n0nce") == ""


MATCHING: list[tuple[Any, Any, bool]] = [
    (1, 1, True),
    (1, 1.0, True),
    (1, True, False),
    (True, 1, False),
    (True, True, True),
    (None, None, True),
    (0, None, False),
    ([1, 2], (1, 2), True),
    ([[1], 2], ([1], 2), True),
    ([1, 2], {1, 2}, False),
    ({"1": 2}, {1: 2}, True),
    ({"a": [1]}, {"a": (1,)}, True),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    (0.3, 0.1 + 0.2, True),
    (0.3, 0.31, False),
    (10**20, 10**20 + 1, False),
    ("a", "a", True),
    ("1", 1, False),
    ([], "", False),
    (1, Opaque("Liar"), False),
    ([1], [Opaque("Liar")], False),
    (1.5, 10**400, False),
]


@pytest.mark.parametrize(("expected", "value", "same"), MATCHING)
def test_values_against_json(expected: Any, value: Any, same: bool) -> None:
    assert matches(expected, value) is same


def test_the_judge_compares_like_the_host() -> None:
    """The judge gets the comparison as source; here it is imported from a file of its own."""
    rows = [(e, v) for e, v, _ in MATCHING if not any("Opaque" in repr(x) for x in (e, v))]
    lines = [SOURCE, f"for e, v in {rows!r}:", "    try: print(bool(__expects(v, e, 1e-6)))"]
    lines += ["    except OverflowError: print(False)"]
    done = subprocess.run([sys.executable, "-I", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(same) for e, v, same in MATCHING if "Opaque" not in repr((e, v))]


def test_values_are_shown_short() -> None:
    assert shown([1, (2,), {"a": {3}}]) == "[1, (2,), {'a': {3}}]"
    assert shown(Opaque("Evil")) == "<Evil object>"
    assert "10,000 digits" in shown(10**9_999)
    assert len(shown("x" * 10**6)) <= 200
    assert len(shown([["y" * 100] * 100] * 1000)) < 300
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    assert len(shown(deep)) < 50
    assert one_line("a\nb\x1b[0m\udc80") == "a⏎b\\x1b[0m\\udc80"
    assert shown_text("\n\n") == "nothing"
    assert shown_text("a" * 500).endswith("…`")
