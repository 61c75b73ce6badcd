"""The extraction rules of the math verifier, in their order, and their cost on hostile text."""

from __future__ import annotations

import time

import pytest
from rlvr_verifiers.math import extract


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        # 0: reasoning
        (r"<think>\boxed{1}</think>so \boxed{2}", "2", "boxed"),
        (r"<think>a</think>\boxed{1}<think>b</think>\boxed{2}", "2", "boxed"),
        # 1: boxes
        (r"\boxed{3}", "3", "boxed"),
        (r"first \boxed{3}, then \boxed{4}", "4", "boxed"),
        (r"$$\boxed{\frac{1}{\sqrt{2}}}$$", r"\frac{1}{\sqrt{2}}", "boxed"),
        (r"\fbox{9}", "9", "boxed"),
        (r"\boxed {9}", "9", "boxed"),
        (r"\boxed 9", "9", "boxed"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}", "boxed"),
        (r"\boxed{\boxed{5}}", "5", "boxed"),
        (r"\boxed{1} gives \boxed{\boxed{5} \text{ or } 6}", r"\boxed{5} \text{ or } 6", "boxed"),
        (r"\boxed{5} or \boxed{6}", "5 or 6", "boxed"),
        (r"$$\boxed{5} \quad\text{or}\quad \boxed{6}$$", "5 or 6", "boxed"),
        (r"\boxed{1}\boxed{2}\boxed{6}", "1, 2, 6", "boxed"),
        (r"\boxed{4}, hence \boxed{5}, $\boxed{6}$", "5, 6", "boxed"),
        (r"\boxed{6}. \boxed{6}", "6", "boxed"),
        (r"The answer is 7. \boxed{8}", "8", "boxed"),
        (r"\boxed{}", "", "boxed"),
        # 2: tags
        ("<answer> 12 </answer>", "12", "answer tag"),
        ("<answer>1</answer> no: <answer>2</answer>", "2", "answer tag"),
        ("<answer>So the answer is 4.</answer>", "4", "answer tag"),
        # 3: ####
        ("6 * 7 = 42\n#### 42", "42", "####"),
        ("#### 1\n#### 1,234 \nDone.", "1,234", "####"),
        # 4: declared
        ("The answer is 12. I checked it.", "12", "declared"),
        ("the answer is 3.5", "3.5", "declared"),
        ("Final answer: 10", "10", "declared"),
        ("**Final Answer:** **10**", "10", "declared"),
        ("The final answer is $x=3$, as claimed.", "x=3", "declared"),
        ("The answer is:\n\\[\n 9 \n\\]", "9", "declared"),
        ("So the answer is $5$ or $6$.", "$5$ or $6$", "declared"),
        ("The answer is $4$ miles.", "4 miles", "declared"),
        ("The answer is 1. No, the answer is 2.", "2", "declared"),
        # 5: the reply is the answer
        ("x + 1", "x + 1", "whole reply"),
        (r"\frac{1}{2}", r"\frac{1}{2}", "whole reply"),
        # 6: the last expression
        ("Altogether she has 5 apples.", "5", "last expression"),
        ("Hence $n = 3$ or $n = 4$.", "$n = 3$ or $n = 4$", "last expression"),
        ("They need 5 or 6 eggs.", "5 or 6", "last expression"),
        ("Together they have 2 + 3 = 5 apples.", "5", "last expression"),
        ("So they pay $20 + $30 = $50 in all.", "$50", "last expression"),
        ("It is worth $1,250.50 now.", "$1,250.50", "last expression"),
        ("We find, after all that, $y$ (of 3)", "3", "last expression"),
    ],
)
def test_rules(text: str, answer: str, rule: str) -> None:
    assert extract(text) == (answer, rule)


@pytest.mark.parametrize(
    "text",
    [
        "",
        r"<think>it is \boxed{7}",
        r"\boxed{1} <think>hm",
        r"\boxed{5} and then \boxed{6",
        "There is nothing here to see",
        "so we have that x + 2",  # a part of a formula is not an answer
    ],
)
def test_no_answer(text: str) -> None:
    assert extract(text).answer is None


def test_without_fallback_only_a_declared_answer_counts() -> None:
    assert extract("Altogether she has 5 apples.", fallback=False).answer is None
    assert extract("The answer is 5.", fallback=False).answer == "5"


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(D) Paris", "D"),
        ("D. It cannot be A or B", "D"),
        ("It is not A, so I think it is C", "C"),
        ("The answer is B, because A is too small", "B"),
        ("The correct answer is (B) since it fits.", "B"),
    ],
)
def test_choices(text: str, letter: str) -> None:
    assert extract(text, choice=True).answer == letter


@pytest.mark.parametrize(
    "unit",
    [
        "\\boxed{",
        "\\boxed{1}",
        "\\boxed{1} or ",
        "\\(",
        "$",
        "{",
        "<think></think>",
        "answer is ",
        "1,",
        "a,",
        "\\",
        "\\frac{",
        "*",
        "#### ",
        " ",
    ],
)
def test_linear_in_hostile_text(unit: str) -> None:
    text = unit * (60_000 // len(unit))
    start = time.perf_counter()
    extract(text)
    extract(text, choice=True)
    assert time.perf_counter() - start < 2
