"""The forms in which the `code` verifier takes tests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rlvr_verifiers.code import BadTests, read_tests
from rlvr_verifiers.code.tests import after_future, literal


def kinds(tests: Any, kind: str = "", **meta: Any) -> list[str]:
    return [test.kind for test in read_tests({"tests": tests, **meta}, kind).tests]


PYTEST = "from solution import f\n\ndef test_f():\n    assert f(1) == 2\n"


@pytest.mark.parametrize(
    ("tests", "kind"),
    [
        ("assert f(1) == 2", "assert"),
        ("def test_f():\n    assert f(1) == 2\ntest_f()", "assert"),
        (PYTEST, "pytest"),
        ("class TestF:\n    def test_f(self):\n        assert f(1) == 2", "pytest"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test_f(self): pass\nunittest.main()", "assert"),
        ({"pytest": PYTEST}, "pytest"),
        (["assert f(1) == 2"], "assert"),
        ([{"assert": "assert f(1) == 2"}], "assert"),
        ([{"stdin": "1", "stdout": "2"}], "stdio"),
        ([{"input": "1", "output": "2"}], "stdio"),
        ([{"input": ["1", "2"], "output": "2"}], "stdio"),
        ({"inputs": ["1"], "outputs": ["2"]}, "stdio"),
        ({"stdin": ["1"], "stdout": ["2"]}, "stdio"),
        ({"inputs": [[1]], "outputs": [[2]], "fn_name": "f"}, "call"),
        ({"stdin": "1", "stdout": "2"}, "stdio"),
        ([{"call": "f(1)", "expected": 2}], "call"),
        ([{"function": "f", "args": [1], "kwargs": {"k": [True, None]}, "expected": 2}], "call"),
        ([{"input": "[1]\n2", "output": "3", "testtype": "functional", "fn_name": "f"}], "call"),
    ],
)
def test_forms(tests: Any, kind: str) -> None:
    assert kinds(tests) == [kind]
    if not isinstance(tests, str):
        assert kinds(json.dumps(tests)) == [kind]


def test_an_object_of_lists_is_as_many_tests() -> None:
    read = read_tests({"tests": {"stdin": ["1\n", "2\n"], "stdout": ["a", "b"]}})
    assert [(test.stdin, test.expected) for test in read.tests] == [("1\n", "a"), ("2\n", "b")]


def test_humaneval_check_is_called() -> None:
    check = "def check(candidate):\n    assert candidate(1) == 2\n"
    assert read_tests({"tests": check, "entry_point": "f"}).tests[0].text.endswith("check(f)\n")
    assert read_tests({"tests": check + "check(f)"}).tests[0].text.count("check") == 2
    with pytest.raises(BadTests, match="entry_point"):
        read_tests({"tests": check})


def test_weights_names_and_clocks() -> None:
    read = read_tests({"tests": [{"call": "f(1)", "expected": 1, "weight": 3, "timeout": 2, "name": "big"}]})
    assert (read.tests[0].weight, read.tests[0].timeout, read.tests[0].name) == (3.0, 2, "big")


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("", "empty"),
        ([], "empty"),
        ("  ", "empty"),
        ("assert f(", "not Python"),
        (["assert f(1) == 2", "assert f("], "test 2 of 2|not Python"),
        ("[{]", "neither JSON nor Python"),
        (7, "must be text, a list or an object"),
        ([7], "test 1 of 1 must be text or an object"),
        ([{"stdin": "1"}], "no `stdout`"),
        ([{"stdin": 1, "stdout": "1"}], "`stdin` must be text"),
        ([{"stdout": 3, "stdin": ""}], "`stdout` must be text"),
        ([{"spam": 1}], "no `stdin` among `spam`"),
        ([{"call": "f(1)"}], "no `expected`"),
        ([{"call": "x = 1", "expected": 1}], "not a call"),
        ([{"call": "f(", "expected": 1}], "not a call"),
        ([{"function": "f", "args": 1, "expected": 1}], "`args` must be a list"),
        ([{"call": "f()", "expected": 1, "weight": 0}], "`weight`"),
        ([{"call": "f()", "expected": 1, "timeout": -1}], "`timeout`"),
        ([{"pytest": ""}], "`pytest` must be text"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
    ],
)
def test_malformed_tests_are_named(tests: Any, message: str) -> None:
    with pytest.raises(BadTests, match=message):
        read_tests({"tests": tests})


def test_other_malformed_samples() -> None:
    with pytest.raises(BadTests, match="no `tests`"):
        read_tests({})
    with pytest.raises(BadTests, match="`setup` must be text"):
        read_tests({"tests": "assert f()", "setup": 1})
    with pytest.raises(BadTests, match="`kind`"):
        read_tests({"tests": "assert f()"}, "junit")
    with pytest.raises(BadTests, match="not of the kind"):
        read_tests({"tests": [{"stdin": "", "stdout": "1"}]}, "calls")


def test_literals_and_future_imports() -> None:
    assert literal([True, None, {"a": 1.5}, float("inf")]) == "[True, None, {'a': 1.5}, float('inf')]"
    assert after_future("x = 1", "y = 2") == "y = 2\nx = 1"
    assert after_future("'''d'''\nfrom __future__ import annotations\nx = 1", "y = 2").split("\n")[2:] == [
        "y = 2",
        "x = 1",
    ]
