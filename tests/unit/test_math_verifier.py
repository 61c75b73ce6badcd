"""The math verifier: what equals what, what does not, what a verdict says, and what it costs."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from rlvr_verifiers.math import Conventions, equivalent, math

from rlvr import Completion, Sample, Status, Verdict


def judge(text: str, answer: Any, **options: bool) -> Verdict:
    verdict = math(Completion(text), Sample("one", answer=answer), **options)
    assert isinstance(verdict, Verdict)
    return verdict


EQUAL = [
    # numbers
    ("12", "12.0"),
    ("12345", "12,345"),
    ("3/4", r"\frac{3}{4}"),
    ("3/4", "0.75"),
    ("3/4", r"75\%"),
    ("-3/4", r"\frac{3}{-4}"),
    (r"\frac{3}{4}", r"\frac{6}{8}"),
    ("2.5", r"2\frac{1}{2}"),
    ("1500", r"1.5 \times 10^3"),
    ("1/7", r"0.\overline{142857}"),
    ("1/3", "0.3333333333"),
    (r"\sqrt{2}", "1.41421356237"),
    (r"\frac{\pi}{4}", "0.78539816339744831"),
    ("3/8", "3:8"),
    ("1024", "2^{10}"),
    ("720", "6!"),
    ("3.67", r"\frac{11}{3}"),  # the reference is rounded
    (r"26.8\%", r"2-\sqrt{3}-3\cdot 10^{-9}"),
    # roots, constants, functions
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"6\pi", "6pi"),
    (r"\frac{\pi}{2}", "pi/2"),
    (r"\sin^2 x", r"1-\cos^2 x"),
    (r"\log_2 5", r"\frac{\ln 5}{\ln 2}"),
    (r"e^{i\pi}", "-1"),
    ("2+3i", r"3 i + 2"),
    (r"0", r"\sqrt{8}-2\sqrt{2}"),
    # symbols
    ("(x+1)^2", "x^2+2x+1"),
    ("2(a+b)", "2b+2a"),
    (r"\frac{a}{b}", "a/b"),
    ("6m", "6 m"),
    (r"\frac{n!}{2(n-2)!}", r"\binom{n}{2}"),
    (r"6x\sqrt{5x}", r"\sqrt{180x^3}"),
    (r"(-1)^n", r"\cos(n\pi)"),
    ("|x-1|", "|1-x|"),
    # equations
    ("7", "x=7"),
    ("x=7", "7"),
    ("x=7", "7 = x"),
    ("7", r"x = \frac{14}{2} = 7"),
    ("y=2x+1", "2x-y+1=0"),
    ("f(x)=2x", "y=2x"),
    ("x^2+y^2=4", "4 - y^2 = x^2"),
    ("AB=5", "5"),
    # collections
    ("1,2,3", "3, 1, 2"),
    ("1,2,3", r"\{3,2,1\}"),
    ("1,2", r"2 \text{ and } 1"),
    (r"1\pm\sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"),
    ("x=1, y=2", "(1,2)"),
    ("x=1, y=2", "y=2, x=1"),
    ("(x,y)=(1,2)", "(1, 2)"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
    (r"(\pm 1, 2)", "(-1,2),(1,2)"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac{4}{2} \end{bmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\langle 1, 2 \rangle"),
    ("2:4:6", "1:2:3"),
    # sets of reals
    ("(3,5]", "3<x\\le 5"),
    (r"[2,\infty)", r"x \geq 2"),
    (r"x \geq 2", r"2 \leq x"),
    (r"(-\infty,1)\cup(3,\infty)", r"x<1 \text{ or } x>3"),
    (r"\mathbb{R}\setminus\{2\}", r"x \neq 2"),
    (r"(1,4)", r"\{x \mid 1<x<4\}"),
    (r"[0,2]", r"x\in[0,1]\cup[1,2]"),
    ("(a,b)", "a<x<b"),
    ("x+y<5", "5>x+y"),
    # units, words, choices
    (r"5\text{ cm}", "5"),
    ("5", r"5\text{ cm}"),
    (r"5\text{ cm}", "5 centimeters"),
    (r"\$1.50", "1.5 dollars"),
    ("10 dollars per hour", "$10/hour"),
    ("60 mph", "60 miles per hour"),
    ("145^\\circ", "145°"),
    (r"\frac{2\pi}{3}", r"120^\circ"),
    (r"\text{Tuesday}", "tuesday"),
    ("even", r"\text{Even}."),
    (r"\text{(C)}", "C"),
    ("C", r"\textbf{(C) } 12"),
    ("A", r"\text{A}"),
    ("nobody wins", "Nobody wins"),
]

UNEQUAL = [
    ("12", "13"),
    ("12", "-12"),
    ("12", "12x"),
    ("12", "1,2"),
    ("1/3", "0.33"),
    ("1.000001", "1"),
    ("0", "10^{-300}"),
    ("0", "e^{-900}"),
    ("50", r"50\%"),
    ("7", r"7 \text{ or } 8"),
    ("7", r"7 \text{ and } 8"),
    ("7", "7, 8"),
    ("7", r"7 \pm 1"),
    ("7", "(7,8)"),
    ("7", r"7\text{ (or 8)}"),
    ("7", "x=7, x=8"),
    ("6", "5=6"),
    ("6", "1=2=6"),
    ("6", r"6 \approx 7"),
    ("6", r"\le 6"),
    ("6", "6'"),
    ("6", "6+"),
    ("6", "print(6)"),
    ("6", r"\text{not } 6"),
    ("6", r"\frac{6}{0}"),
    ("55", r"\sum_{k=1}^{10} k"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    (r"\sqrt{2}", "1.41"),
    ("x", "y"),
    ("x", "|x|"),
    ("x", r"\sqrt{x^2}"),
    ("a-b", "b-a"),
    ("f'(x)", "f(x)"),
    (r"\overline{AB}", r"\overline{BA}"),
    ("1/2004!", "1/2006!"),
    ("x=7", "y=7"),
    ("y=2x", "y=-2x"),
    ("x^2+y^2=4", "x^2+y^2=5"),
    ("x^2=4", "4"),
    ("1,2", "1,2,3"),
    ("1,2,2", "1,1,2"),
    ("(1,2)", "(2,1)"),
    (r"\{1,2\}", "(1,2)"),
    ("x=1, y=2", "x=2, y=1"),
    ("[1,2)", "[1,2]"),
    ("x<5", "x>5"),
    ("(0,1)", "(0,2)"),
    (r"\mathbb{R}\setminus\{2\}", r"\mathbb{R}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    (r"5\text{ hours}", r"5\text{ minutes}"),
    (r"5\text{ cm}^2", r"5\text{ cm}"),
    (r"30^\circ", r"30\text{ rad}"),
    ("52_8", "52_9"),
    (r"\text{yes}", r"\text{yes and no}"),
    (r"\text{east}", r"\text{southeast}"),
    ("C", "(C) or (D)"),
    ("C", "A, B, C"),
    (r"\infty", r"-\infty"),
    ("11/2", "1 1/2"),
]


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal(reference: str, answer: str) -> None:
    assert equivalent(reference, answer).equal
    assert judge(rf"so \boxed{{{answer}}}.", reference).passed


@pytest.mark.parametrize(("reference", "answer"), UNEQUAL)
def test_unequal(reference: str, answer: str) -> None:
    assert not equivalent(reference, answer).equal
    assert judge(rf"so \boxed{{{answer}}}.", reference).status is Status.FAILED


@pytest.mark.parametrize(
    ("reference", "answer", "tier"),
    [
        (r"\text{even}", "even", "text"),
        ("1/2", "0.5", "exact"),
        (r"\sqrt{8}", r"2\sqrt{2}", "numeric"),
        (r"(-1)^n", r"\cos(n\pi)", "whole"),
        ("5", "5+", "parse"),
    ],
)
def test_the_verdict_says_which_tier_decided(reference: str, answer: str, tier: str) -> None:
    verdict = judge(rf"\boxed{{{answer}}}", reference)
    assert verdict.parts == {"extracted": answer, "tier": tier}
    assert f"`{answer}`" in verdict.detail
    assert f"`{reference}`" in verdict.detail
    assert tier in verdict.detail


def test_no_answer_fails_and_says_why() -> None:
    verdict = judge("<think>perhaps 7", "7")
    assert verdict.status is Status.FAILED
    assert "</think>" in verdict.detail
    assert verdict.parts["tier"] == "extract"
    assert judge(r"\boxed{}", "7").detail.startswith("the answer is empty")


@pytest.mark.parametrize("answer", [5, 5.0, "5", " 5 ", "$5$"])
def test_the_reference_may_be_a_number(answer: object) -> None:
    assert judge(r"\boxed{5}", answer).passed


@pytest.mark.parametrize("answer", [None, "", "  ", True, [5], {"a": 5}])
def test_an_unusable_reference_is_an_error(answer: object) -> None:
    assert judge(r"\boxed{5}", answer).status is Status.ERROR


def test_a_reference_that_cannot_be_parsed_is_compared_as_text() -> None:
    reference = r"AB \parallel CD"
    assert judge(r"\boxed{AB\parallel CD}", reference).passed
    verdict = judge(r"\boxed{3}", reference)
    assert verdict.status is Status.FAILED
    assert "only be compared as text" in verdict.detail


def test_options() -> None:
    assert judge("That makes 7 apples in all.", "7").passed
    assert not judge("That makes 7 apples in all.", "7", last_expression=False).passed
    assert judge(r"\boxed{\frac{11}{3}}", "3.67").passed
    assert not judge(r"\boxed{\frac{11}{3}}", "3.67", rounded=False).passed
    assert not judge(r"\boxed{64\%}", "64").passed
    assert judge(r"\boxed{64\%}", "64", bare_percent=True).passed
    assert judge(r"\boxed{64\%}", "0.64", bare_percent=True).passed
    assert not judge(r"\boxed{0.64}", "64", bare_percent=True).passed
    assert judge(r"\boxed{9.79}", "9.81", tolerance=0.01).passed
    assert not judge(r"\boxed{9.5}", "9.81", tolerance=0.01).passed
    assert not judge(r"\boxed{-9.81}", "9.81", tolerance=0.01).passed
    assert judge(r"\boxed{9.81}", "9.81", tolerance=2).status is Status.ERROR
    assert judge(r"\boxed{2, 1}", "1, 2").passed
    assert not judge(r"\boxed{2, 1}", "1, 2", ordered=True).passed
    assert judge(r"\boxed{1, 2}", "1, 2", ordered=True).passed
    assert judge(r"\boxed{y=2, x=1}", "x=1, y=2", ordered=True).passed
    assert judge(r"\boxed{1.234,5}", "1234,50", decimal_comma=True).passed
    assert judge(r"\boxed{\frac{1}{2}}", "0,5", decimal_comma=True).passed
    assert not judge(r"\boxed{5}", "0,5", decimal_comma=True).passed
    assert judge(r"\boxed{2; 1}", "1; 2", decimal_comma=True).passed
    assert not judge(r"\boxed{0,5}", "0.5").passed


HOSTILE = {
    "tower": "9^{9^{9^{9}}}",
    "factorial": "1000000000!",
    "factorials": "+".join(["x!-x!"] * 2_000),
    "digits": "9" * 20_000,
    "terms": "7" + "+0" * 5_000 + "+1",
    "symbols": "+".join(f"x_{{{k}}}" for k in range(800)),
    "power": "(1+x)^{5000}",
    "exponential": "e^{e^{e^{e^{9}}}}",
    "angle": r"\sin(10^{400})",
    "binomial": r"\binom{10^{12}}{10^{11}}",
    "harmonic": "+".join(f"1/{k}" for k in range(2, 1_500)),
    "product": "".join(f"(x+{k})" for k in range(1_500)),
    "deep": r"\frac{1}{" * 3_000,
    "signs": "-" * 11_000 + "6",
    "marks": "5" + "!" * 11_000,
    "groups": "111," * 2_900 + "11",
    "chain": "x=" * 3_000 + "6",
    "sets": r"(0,1)\setminus" * 500 + "(2,3)",
    "roots": ",".join(rf"\sqrt{{{k}}}" for k in range(2, 62)),
    "quotes": '"' * 11_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_refused_quickly(name: str) -> None:
    many_roots = ",".join(rf"\sqrt{{{k}}}+0" for k in range(62, 2, -1))
    start = time.process_time()
    for reference in ("7", "x", r"2\sqrt{2}", "x<5", "2024^{4046}", many_roots):
        assert judge(rf"\boxed{{{HOSTILE[name]}}}", reference).status is Status.FAILED
    assert time.process_time() - start < 15  # measured: 0.5 s at most


def test_the_same_hostile_text_equals_itself() -> None:
    for text in ("9^{9^{9^{9}}}", "1000000000!", "2024^{4046}"):
        assert judge(rf"\boxed{{{text}}}", text).passed
    assert judge(r"\boxed{" + "+".join("1" * 5_000) + "}", "5000").passed


FRAGMENTS = (
    r"\frac{ } { ( ) [ ] \{ \} 1 2 345 1,234 0.5 x y n e i \pi \sqrt \sqrt[3] ^ _ + - * / = < \le \ne \approx "
    r"\in \cup \setminus | ! !! % ^\circ ' , ; : \text{ \text{cm} or and \pm \mp \sin \log_ \binom & \\ \ldots "
    r"\begin{pmatrix} \end{pmatrix} \infty \mathbb{R} \overline{ cm \$ $ 52_8 1e5 f( \left( \right) \lfloor "
    r"\boxed{ \max \{x\mid million 1/2 1\frac12 </think> #### answer: ² ½ π ≤ ∪"
)


def test_random_text_raises_nothing() -> None:
    pieces = FRAGMENTS.split()
    references = ["5", "x+1", "(1,2)", "1,2", "[1,2)", "x=3", r"2\pi", "even", "C", "x<5", "y=2x", "5 cm", "1:2:3"]
    draw = random.Random(7)
    for _ in range(3_000):
        text = draw.choice(["", " "]).join(draw.choices(pieces, k=draw.choice([2, 4, 8, 16, 40])))
        for completion in (text, rf"\boxed{{{text}}}"):
            assert judge(completion, draw.choice(references)).valid


def test_equality_is_symmetric_where_it_should_be() -> None:
    one_way = {"3.67", r"26.8\%", "C"}  # a rounded reference, a choice with its text
    for reference, answer in EQUAL:
        if reference not in one_way:
            assert equivalent(answer, reference).equal, (reference, answer)
    for reference, answer in UNEQUAL:
        assert not equivalent(answer, reference, Conventions(rounded=False)).equal, (reference, answer)


def test_spelling_does_not_matter() -> None:
    for reference, answer in EQUAL:
        spaced = (
            answer.replace("(", r"\left(").replace(")", r"\right)").replace("+", " + ").replace(r"\frac", r"\dfrac")
        )
        assert judge(rf"\boxed{{\boxed{{ {spaced} }}}}", reference).passed, (reference, spaced)


def test_threads_agree() -> None:
    found: list[list[bool]] = []

    def work() -> None:
        found.append([equivalent(a, b).equal for a, b in EQUAL + UNEQUAL])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[True] * len(EQUAL) + [False] * len(UNEQUAL)] * 4


def test_plain_answers_need_no_sympy_or_mpmath() -> None:
    code = (
        "import sys; from rlvr_verifiers.math import equivalent; "
        r"assert equivalent('1/2', '\\frac{2}{4}').equal and not equivalent('12', '13').equal; "
        "print([m for m in ('sympy', 'mpmath', 'numpy', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
