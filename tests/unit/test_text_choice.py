"""The letter that a reply settles on: every example of the written rules, and the cost of hostile text."""

from __future__ import annotations

import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.text.choice import choose


def test_every_example_of_the_written_rules_holds() -> None:
    rules = sys.modules[choose.__module__].__doc__ or ""
    examples = 0
    for line in rules.splitlines():
        if example := re.fullmatch(r" {8}(\S.*?) {2,}(\S.*)", line):
            wanted = None if example[2] == "none" else example[2]
            assert choose(example[1].replace("\\n", "\n"), "ABCDE").letter == wanted, line
            examples += 1
    assert examples > 40


def test_only_letters_of_the_options_count() -> None:
    assert choose("The answer is E.", "ABCD").letter is None
    assert choose("The answer is E.", "ABCDE").letter == "E"


@pytest.mark.parametrize("said", ["Oslo", "The answer is Oslo.", r"\boxed{\text{Oslo}}", "<answer>oslo</answer>"])
def test_the_text_of_an_option_is_its_letter(said: str) -> None:
    assert choose(said, "AB", ["Rome", "Oslo"]).letter == "B"
    assert choose(said, "AB", ["Oslo", "Oslo"]).letter is None
    assert choose(said, "AB").letter is None


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from([" ", "\n", ". ", ", "]))
def test_two_letters_are_never_one(first: str, second: str, between: str) -> None:
    found = choose(f"The answer is {first}{between}The answer is {second}", "ABCD").letter
    assert found == (first if first == second else None)


@given(st.text(alphabet="ABCD() .:*\\boxed{}answeris\n", max_size=60))
def test_any_text_is_read(text: str) -> None:
    assert choose(text, "ABCD").letter in (None, "A", "B", "C", "D")


@pytest.mark.parametrize(
    "piece", ["answer: ", "the answer is A. ", r"\boxed{", r"\boxed{A}", "**A** ", "A) x\n", "(", "<answer>"]
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    choose(text, "ABCD")
    assert time.process_time() - start < 15  # 0.2 s on a quiet machine
