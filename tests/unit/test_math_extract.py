"""The extraction rules of the math verifier, in their order, and their cost on hostile text."""

from __future__ import annotations

import re
import sys
import time

import pytest
from rlvr_verifiers.math import extract


def test_every_example_of_the_written_rules_holds() -> None:
    rules = sys.modules[extract.__module__].__doc__ or ""
    option: dict[str, bool] = {}
    examples = 0
    for line in rules.splitlines():
        if re.match(r"\d\.  ", line):
            option = {}
        if named := re.search(r"With `(choice|worded)=True`", line):
            option = {named[1]: True}
        if example := re.fullmatch(r" {8}(\S.*?) {2,}(\S.*)", line):
            text, answer = example[1].replace("\\n", "\n"), None if example[2] == "none" else example[2]
            assert extract(text, **option).answer == answer, line
            examples += 1
    assert examples > 40


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
        (r"\boxed{4}, hence \boxed{5}, $\boxed{6}$", "6", "boxed"),
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
    ("text", "answer", "rule"),
    [
        # 0: what follows the turn, or a next problem, is not the model's answer
        ("The answer is 36.\n\nQuestion: A farmer has 15 sheep.\nAnswer:", "36", "declared"),
        ("The answer is 36.\n\n# Question: how many?\n# Answer: 5", "36", "declared"),
        ("#### 36\n\nQ: And 4 + 5?\n#### 9", "36", "####"),
        (r"\boxed{36}" "\n\n### Instruction:\nAdd.\n" r"\boxed{9}", "36", "boxed"),
        ("The answer is 36.<|im_end|>\nThe answer is 9.", "36", "declared"),
        ("Question: 4 + 5?\nAnswer: The answer is 9.", "9", "declared"),  # nothing was answered before it
        ("Problem: find x in \\boxed{}.\nProblem: \\boxed{9}", "9", "boxed"),
        # 2 and 3
        ("<answer>14 apples in each basket</answer>", "14 apples", "answer tag"),
        ("#### Step 1: add\n$x = 4$\n#### Step 2: halve\n$x = 2$", "x = 2", "last expression"),
        ("#### Answer\n$42$", "42", "declared"),
        ("#### The answer is 42", "42", "####"),
        # 4: which declaration
        ("The answer is 12.\nFinal Answer: The final answer is", "12", "declared"),
        ("The answer is 12. The answer is correct, since 12 / 4 = 3.", "12", "declared"),
        ("## Final Answer\n\n12", "12", "declared"),
        ('{"answer": 12, "confidence": 0.9}', "12", "declared"),
        ('{"steps": ["3"], "final_answer": "x = 2"}', "x = 2", "declared"),
        ('{"answer": [1, 2]}', "1, 2", "declared"),
        ('"answer": 12 or 13', "12 or 13", "declared"),
        ("__Answer__: 12", "12", "declared"),
        (r"$\text{The answer is } 12.$", "12", "declared"),
        ("共 12 个。\n答案为:$12$。", "12", "declared"),
        ("答:小明共有12个苹果。", "12", "declared"),
        ("答案是5或6。", "5或6", "declared"),
        ("答えは12です。", "12", "declared"),
        # 4: reasons and remarks
        ("The answer is 14 (since 56 / 4 = 14).", "14", "declared"),
        ("The answer is 14, as required.", "14", "declared"),
        ("The answer is $14$, which is even.", "14", "declared"),
        ("The answer is 7, not 12.", "7", "declared"),
        ("The answer is 12 divisors.", "12 divisors", "declared"),
        # 4: second names
        (r"The answer is $\frac58$, i.e. 0.625.", r"$\frac58$ = 0.625", "declared"),
        (r"The answer is $\frac{22}{7}$ (about 3.14).", r"$\frac{22}{7}$ \approx 3.14", "declared"),
        ("The answer is approximately 3.14.", "3.14", "declared"),
        # 4: the value among words
        ("The answer is that Janine gives 18 apples to her neighbour.", "18 apples", "declared"),
        ("The answer is: each basket holds 14 apples.", "14 apples", "declared"),
        ("Answer: the number is 84.", "84", "declared"),
        ("The answer is equal to 14.", "14", "declared"),
        ("The answer is 25 per cent.", "25 percent", "declared"),
        (r"Answer: Tim works $5\times 7=35$ hours per week.", r"5\times 7=35\text{ hours per week}", "declared"),
        ("[Answer: 14 apples]", "14 apples", "declared"),
        ("The answer is _14_.", "14", "declared"),
        ("The answer is (1, 2].", "(1, 2]", "declared"),
        ("The answer is $x<5$ or $x>7$.", "$x<5$ or $x>7$", "declared"),
        ("The answer is x < 5.", "x < 5", "declared"),
        # 5
        ("I think 3", "3", "last expression"),
        ("Thursday", "Thursday", "whole reply"),
        # 6
        ("Thus $$x = -12.$$", "x = -12", "last expression"),
        (r"Thus \[n = 10 \ .\]", "n = 10", "last expression"),
        ("Therefore, there are *14* apples in each basket.", "14", "last expression"),
        ("Since 2 + 3 = 5, she has 5 apples.", "5", "last expression"),
        ("So it is 12, or 13, or 14.", "12, or 13, or 14", "last expression"),
        ("| pens | 8 |\n| **Total** | **9** |", "9", "last expression"),
        ("The area is 12 cm$^2$.", "12", "last expression"),
        ("So it is \u22123.", "\u22123", "last expression"),
        ("So the length is 3\u221a2.", "3\u221a2", "last expression"),
        ("She saves $15.", "$15", "last expression"),
    ],
)
def test_real_styles(text: str, answer: str, rule: str) -> None:
    assert extract(text) == (answer, rule)


@pytest.mark.parametrize(
    "phrase",
    [
        "5 or 6",
        "either 5 or 6",
        "between 6 and 7",
        "14 to 15",
        "3 times as large as 4",
        "March 12",
        "12 (or 13)",
        "14 if the baskets are equal, and 13 otherwise",
        "2 hours and 30 minutes",
        "12 because x = 3, or 13 because x = 4",
        "the 12th prime",
        "log 12",
    ],
)
def test_a_sentence_that_is_no_plain_statement_stays_whole(phrase: str) -> None:
    assert extract(f"The answer is {phrase}.") == (phrase, "declared")


@pytest.mark.parametrize(
    "phrase",
    [
        "12 or so",
        "possibly 6",
        "not 14",
        "more than 14",
        "$14$ at most",
        "$14$, which is wrong",
        "about 13.9",
        "close to 12",
        "half of 24",
        "the square root of 16",
        "the cube of 12",
        "twice 12",
        "12 squared",
        "12 unless it rains",
        "12 percent of the total",
        "given by equation 12",
        "undefined at 12",
        "a 3 digit number",
        "any multiple of 12",
        "the one of Amy who has 12 coins",
    ],
)
def test_a_value_that_need_not_be_the_answer_is_none(phrase: str) -> None:
    assert extract(f"The answer is {phrase}.").answer is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "So we cannot say whether $n=10$ works.",
        "The question cannot be answered, as we are not told how many of the 7 eggs broke.",
        "I am not able to solve this for $n = 10$.",
        "Therefore the smallest integer is greater than 10.",
        "There must be at most 12 of them.",
        "Could it be 12?",
        "Maybe 12 of them.",
        "The number is not 12.",
        "Let me try $x=5$: $25+25-6=44$. Let me try $x=",
        r"Now we compute \(f(2) = 12 + ",
        "The ratio is 3 to 4.",
        "See problem 12.",
        "答案不是8。",
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
        ("I would choose (C), because (A) 360 and (B) 540 are too small.", "C"),
        ("The correct option is D. Option A is too small.", "D"),
        ("I'd go with option D. A and B are too large.", "D"),
        ("The answer is option C.", "C"),
        ("The answer is (C) 12.", "C"),
        ("Option C.", "C"),
        ("It is not A because it makes no sense, therefore it is B", "B"),
        ("A and B are wrong, hence C. A quick check confirms this.", "C"),
        ("Both (B) and (C) are correct.", None),
        ("It must be A or B.", None),
        ("It cannot be D.", None),
        ("Is it C?", None),
    ],
)
def test_choices(text: str, letter: str | None) -> None:
    assert extract(text, choice=True).answer == letter


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("100 days is 14 weeks and 2 days. It will be a **Thursday**.", "Thursday"),
        ("Amy has 3 coins. Therefore, the person with the most coins is Marco.", "Marco"),
        ("So the function is not even.", "not even"),
        ("The answer is Marco, because he has 9.", "Marco, because he has 9"),
        ("## Answer\n\nThursday", "Thursday"),
        ("The winner is **Ben** and not **Amy**.", None),
        ("It is not **Amy**.", None),
        ("Marco has 9 coins.", None),
    ],
)
def test_references_in_words(text: str, answer: str | None) -> None:
    assert extract(text, worded=True).answer == answer


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
        "\n",
        "answer:\n",
        "answer is 5. ",
        "The answer is correct. ",
        '"answer": "',
        "\nQuestion: ",
        "</answer>",
        "<|endoftext|>",
        "**a",
        "| 1 |\n",
        "since 5 ",
        "(A) ",
        "about 5 ",
        ", i.e. ",
        " (5)",
        "is a ",
        "答案是",
    ],
)
def test_linear_in_hostile_text(unit: str) -> None:
    flood = unit * (100_000 // len(unit))
    start = time.process_time()
    for text in (flood, f"The answer is {flood}", f"#### {flood}", f"<answer>{flood}</answer>"):
        extract(text)
        extract(text, choice=True)
        extract(text, worded=True)
    assert time.process_time() - start < 15
