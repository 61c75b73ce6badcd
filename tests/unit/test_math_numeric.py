"""How numbers and expressions are compared: sizes, points, values that do not exist, and what a comparison may cost."""

from __future__ import annotations

import subprocess
import sys
import time
from fractions import Fraction

import pytest
from rlvr_verifiers.math import equivalent, modular
from rlvr_verifiers.math.budget import Exhausted, OneBudget, Undecided
from rlvr_verifiers.math.compare import read
from rlvr_verifiers.math.numeric import context, evaluate, evaluate_real, exact, looks, rational_near
from rlvr_verifiers.math.sampling import agree, draw_seed, far_apart, proportional
from rlvr_verifiers.math.tree import Node

LUCAS_50 = 39571031999226139563162735374
"""(2+sqrt 3)^50 + (2-sqrt 3)^50, which is 1e-29 more than the first power."""


def node(text: str) -> Node:
    return read(text).nodes[0]


def same(left: str, right: str) -> bool:
    forward, backward = equivalent(left, right), equivalent(right, left)
    assert forward.equal == backward.equal
    return forward.equal


def lucas(a: int, b: int, n: int) -> int:
    """x^n + y^n for the roots of `t^2 = a t + b`."""
    first, second = 2, a
    for _ in range(n):
        first, second = second, a * second + b * first
    return first


def fibonacci(n: int) -> int:
    first, second = 0, 1
    for _ in range(n):
        first, second = second, first + second
    return first


BINET = r"\frac{1}{\sqrt5}\left(\frac{1+\sqrt5}{2}\right)^{600}"
DUAL = r"\frac{1}{\sqrt5}\left(\frac{1-\sqrt5}{2}\right)^{600}"
NESTED = "2^{10^{-9}}"
for _ in range(25):
    NESTED = f"({NESTED})^{{10^{{-9}}}}"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2023^{2023}-1", "2023^{2023}"),
        ("2024!+1", "2024!"),
        ("1-\\frac1{2024!}", "1"),
        ("2^{10000}-1", "2^{10000}"),
        ("10^{5000}-1", "10^{5000}"),
        ("\\frac{2023^{2023}-1}{2022}", "\\frac{2023^{2023}}{2022}"),
        ("(2+\\sqrt3)^{50}", str(LUCAS_50)),
        ("(2+\\sqrt3)^{100}", str(lucas(4, -1, 100))),
        ("(1+\\sqrt2)^{200}", str(lucas(2, 1, 200))),
        ("\\lfloor(2+\\sqrt3)^{50}\\rfloor", str(LUCAS_50)),
        (BINET, str(fibonacci(600))),
        ("2^{200}+2x", "2^{200}+x"),
        ("2^{200}+\\sqrt2", "2^{200}+\\sqrt3"),
        ("x+10^{-60}", "x"),
        ("\\sin x+10^{-60}", "\\sin x"),
        ("\\cos(10^{-30})", "1"),
        ("\\tanh 1000", "1"),
        ("1-\\tanh(200)", "0"),
        ("10^{60}+\\pi-10^{60}", "0"),
        ("y^{2023}-1", "y^{2023}"),
        ("\\pi+10^{-200}", "\\pi"),
        ("\\sqrt{10^{200}+1}", "10^{100}"),
        ("\\lfloor 7-10^{-60}\\pi\\rfloor", "7"),
        ("x^2+y^2=2^{200}", "x+y=2^{200}"),
        ("x+y=1", "x+y=1+10^{-40}"),
        (NESTED, "1"),
        ("\\sin(\\frac\\pi2\\sin(\\frac\\pi2\\sin(\\frac\\pi2\\cos(10^{-20}))))", "1"),
    ],
)
def test_large_terms_do_not_hide_small_ones(left: str, right: str) -> None:
    assert not same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("2023^{2023}-1", "-1+2023^{2023}"),
        ("2004!+2005!", "2006\\cdot 2004!"),
        ("1-\\frac{1}{2024!}", "\\frac{2024!-1}{2024!}"),
        ("\\frac{2^{20000}-1}{3}", "\\frac{4^{10000}-1}{3}"),
        ("\\binom{3000}{1500}", "\\frac{3000!}{1500!1500!}"),
        ("(2+\\sqrt3)^{50}+(2-\\sqrt3)^{50}", str(LUCAS_50)),
        ("\\lfloor(2+\\sqrt3)^{50}\\rfloor", str(LUCAS_50 - 1)),
        ("\\lfloor(2+\\sqrt3)^{100}\\rfloor", str(lucas(4, -1, 100) - 1)),
        (f"{BINET}-{DUAL}", str(fibonacci(600))),
        ("10^{60}+\\pi-10^{60}", "\\pi"),
        ("(x+10^{60})-10^{60}", "x"),
        ("10^{300}\\sqrt2", "\\sqrt2\\cdot10^{300}"),
        ("x^{1000}\\sqrt2", "\\sqrt{2x^{2000}}"),
        ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"),
        ("\\frac{\\sqrt6+\\sqrt2}{4}", "\\cos15^\\circ"),
        ("(3+4i)^2", "-7+24i"),
        ("e^{i\\pi}", "-1"),
    ],
)
def test_equal_numbers_of_any_size_are_equal(left: str, right: str) -> None:
    assert same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(x+1)^{300}", "(1+x)^{300}"),
        ("\\frac{x^2-1}{x-1}", "x+1"),
        ("\\frac{3\\pi}{2}+x i", "1.5\\pi+i x"),
        ("(x+y+z)^2", "x^2+y^2+z^2+2xy+2yz+2zx"),
        ("+".join(f"{k}x^{{{k}}}" for k in range(1, 301)), "+".join(f"{k}x^{{{k}}}" for k in range(300, 0, -1))),
    ],
)
def test_rational_expressions_are_compared_modulo_primes(left: str, right: str) -> None:
    assert modular.same(node(left), node(right)) is True
    assert modular.same(node(left), Node("add", (node(right), Node("num", number=Fraction(1, 7))))) is False


def test_modular_comparison_leaves_the_rest_alone() -> None:
    for text in ("\\sin x", "\\sqrt{x}", "2^x", "e", "f(x)", "|x|", "x!"):
        assert modular.same(node(text), node(text)) is None
    assert modular.same(node("\\frac{1}{x-x}"), node("\\frac{1}{x-x}")) is None
    assert modular.same(node("\\sqrt{16}x+\\lfloor 2.5\\rfloor"), node("4x+2")) is True
    assert modular.same(node("200000!"), node("200000!+1")) is None


def test_a_multiple_of_every_prime_in_reach_does_not_pass() -> None:
    multiple = 1
    for index in range(modular._POOL):
        multiple *= modular._pooled(index)
    factors = "\\cdot".join(str(modular._pooled(index)) for index in range(modular._POOL))
    assert not same(f"2^{{20000}}+{factors}", "2^{20000}")
    assert multiple % modular._pooled(3) == 0


def test_plain_algebra_needs_no_mpmath() -> None:
    code = (
        "import sys; from rlvr_verifiers.math import equivalent; "
        "assert equivalent('x^2+1', '1+x^2').equal; assert equivalent('y=2x+1', '2x-y+1=0').equal; "
        "assert equivalent('\\\\frac{\\\\pi}{2}', '0.5\\\\pi').equal; assert 'mpmath' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- points


def test_points_come_from_both_expressions_in_either_order() -> None:
    a, b, c = node("\\sin x"), node("\\cos x"), node("\\cos x+1")
    assert draw_seed(a, b) == draw_seed(b, a)
    assert len({draw_seed(a, b), draw_seed(a, c), draw_seed(b, c)}) == 3


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\min(x,100)", "x"),
        ("\\min(x,5000)", "x"),
        ("x", "\\max(x,-5)"),
        ("x", "x+\\max(0,x-10)"),
        ("\\lfloor x+\\frac12\\rfloor", "\\lceil x-\\frac12\\rceil"),
        ("\\lfloor\\frac{|x|}{3}\\rfloor", "0"),
        ("\\arctan(\\tan\\frac x2)", "\\frac x2"),
        ("|2x-7|", "7-2x"),
        ("\\sqrt{(x-30)^2}", "30-x"),
        ("x^2", "x^2+(997x-1321)(997x-926)(997x-1372)(991x+2166)(991x-907)"),
        ("f(x)", "f(x+10^{-40})"),
        ("f(2)", "f(2+10^{-30})"),
        ("f(x)+f(y)", "f(x+y)"),
        ("f(x)", "g(x)"),
        ("\\ln|x|", "\\ln x"),
    ],
)
def test_functions_that_part_somewhere_are_different(left: str, right: str) -> None:
    assert not same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\sqrt{x^2}", "|x|"),
        ("\\min(x,100)", "\\min(100,x)"),
        ("\\max(x,y)", "\\frac{x+y+|x-y|}{2}"),
        ("\\lfloor x+3\\rfloor", "\\lfloor x\\rfloor+3"),
        ("-\\lfloor -x\\rfloor", "\\lceil x\\rceil"),
        ("\\arcsin x+\\arccos x", "\\frac\\pi2"),
        ("\\ln(xy)", "\\ln x+\\ln y"),
        ("\\log_2 8x", "3+\\log_2 x"),
        ("f(x+1-1)", "f(x)"),
        ("f(\\sqrt2\\sqrt3)", "f(\\sqrt6)"),
        ("x^{a+b}", "x^ax^b"),
        ("\\sin 2x", "2\\sin x\\cos x"),
        ("\\tanh x", "\\frac{e^x-e^{-x}}{e^x+e^{-x}}"),
    ],
)
def test_equal_functions_are_equal_at_every_point(left: str, right: str) -> None:
    assert same(left, right)


# -- what has no value


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\frac{\\sin\\pi}{\\sin\\pi}", "1"),
        ("\\frac{\\sin 2\\pi}{\\sin\\pi}", "-2"),
        ("5+0\\cdot\\tan\\frac\\pi2", "5"),
        ("\\frac{1}{\\tan 90^\\circ}", "0"),
        ("\\frac{(\\sqrt2)^2-2}{(\\sqrt2)^2-2}", "1"),
        ("0\\cdot\\ln(\\sqrt6-\\sqrt2\\sqrt3)", "0"),
        ("((\\sqrt2)^2-2)^{-1}\\cdot 0", "0"),
        ("x+0\\cdot\\frac{1}{\\cos\\frac\\pi2}", "x"),
        ("\\max(\\emptyset)", "7"),
        ("\\min\\{\\}", "7"),
        ("x+\\min(\\emptyset)", "x"),
        ("x+y=\\infty", "x^2+y^2=4"),
        ("x+y<\\infty", "x+y<4"),
        ("x^2+y^2=1-\\infty", "x^2+y^2=1"),
        ("\\infty+5", "\\infty"),
        ("e^{-\\infty}", "0"),
        ("-\\infty", "\\infty"),
    ],
)
def test_what_has_no_value_is_equal_to_nothing(left: str, right: str) -> None:
    assert not same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\frac{1}{10^{60}+\\pi-10^{60}}", "\\frac1\\pi"),
        ("\\frac{\\sin x}{\\sin x}", "1"),
        ("\\lfloor(\\sqrt2)^2\\rfloor", "2"),
        ("\\lceil(\\sqrt5)^2\\rceil", "5"),
        ("\\sqrt{(\\sqrt2)^2-2}", "0"),
        ("5+0\\cdot\\tan\\frac\\pi4", "5"),
        ("\\tan\\pi", "0"),
        ("\\cot\\frac\\pi2", "0"),
    ],
)
def test_what_has_a_value_after_all(left: str, right: str) -> None:
    assert same(left, right)


def test_infinity_is_itself() -> None:
    infinity, minus = Node("const", value="inf"), Node("neg", (Node("const", value="inf"),))
    assert agree(infinity, infinity) is True
    assert agree(infinity, minus) is False
    assert agree(infinity, Node("mul", (Node("num", number=Fraction(2)), infinity))) is None
    assert proportional(node("x+y"), Node("add", (node("x"), infinity))) == 0


@pytest.mark.parametrize("function", ["min", "max", "abs", "floor", "ln", "binom"])
def test_functions_of_nothing_are_undecided(function: str) -> None:
    empty = Node("func", value=function)
    assert exact(empty) is None
    assert rational_near(empty) is None
    assert agree(empty, node("1")) is None
    with pytest.raises(Undecided):
        evaluate(empty)


# -- values


def test_values_are_good_to_more_than_fifty_digits() -> None:
    value = evaluate(node("10^{80}+\\pi-10^{80}"))
    assert str(value).startswith("3.14159265358979323846264338327950288419716939937510")
    assert evaluate_real(node("\\sqrt{-4}"))[1] is False
    assert evaluate_real(node("(\\sqrt{-4})^2"))[1] is False
    assert evaluate_real(node("e^{x}"), {"x": Fraction(1, 3)})[1] is True


def test_errors_are_no_larger_than_they_say() -> None:
    """A first look at 120 digits differs from a look at 300 by no more than its error."""
    for text in (
        "\\sqrt2^{\\sqrt3}",
        "\\tan 1.57",
        "\\arcsin(1-10^{-20})",
        "\\ln(1+10^{-20})",
        "\\sinh 20",
        "\\sqrt{\\sqrt{10^{30}+1}-10^{15}}",
        "(\\frac13)!",
        "e^{50}\\sin(10^6)",
        "f(\\sqrt2)",
        "\\frac{1}{\\sqrt2-1.41421356237}",
    ):
        rough = next(looks((node(text),), {}))
        fine = next(looks((node(text),), {}, start=300))
        off = abs(fine.values[0] - rough.values[0])
        assert off < context(300).mpf(2) ** rough.errors[0], text
        assert rough.errors[0] < -200, text


def test_gamma_is_the_factorial() -> None:
    assert same("\\Gamma(n+1)", "n!")
    assert same("\\Gamma(5)", "24")
    assert not same("\\Gamma(n)", "n!")


# -- whole numbers


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\cos(n\\pi)", "(-1)^n"),
        ("(2n)!!", "2^n n!"),
        ("(2n-1)!!", "\\frac{(2n)!}{2^n n!}"),
        ("\\lfloor\\frac n2\\rfloor", "\\frac{2n-1+(-1)^n}4"),
        ("\\cos(n\\pi)(\\tan n+\\cot 2n)^{20}(\\sin 2n)^{20}", "(-1)^n"),
    ],
)
def test_identities_of_whole_numbers(left: str, right: str) -> None:
    assert same(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\cos(n\\pi)", "1"),
        ("\\cos(x\\pi)", "(-1)^x"),
        ("\\sin(\\frac{n\\pi}{2})", "0"),
        ("\\cos(n\\pi)+\\lfloor\\frac{n}{50}\\rfloor", "(-1)^n"),
        ("(2n)!!", "2^n n!+1"),
        ("(2n)!!", "2^n (n+1)!"),
        ("\\sin(\\frac{n\\pi}{30})", "0"),
    ],
)
def test_what_holds_at_some_whole_numbers_only(left: str, right: str) -> None:
    assert not same(left, right)


# -- cost


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("7", "(10000i)!!"),
        ("7", "(999999i)!!"),
        ("7", "(-1000000.5)!"),
        ("7", "(999999.5)!!"),
        ("x", "(\\sqrt{-10^{10}}+x)!!"),
        ("x+y=1", "x+y=(9999ix)!!"),
        ("7", "+".join(f"\\binom{{i}}{{{k}/7}}" for k in range(1, 200))),
        ("7", "+".join(f"1/{k}!" for k in range(1500, 1000, -1))),
        ("7", "+".join(f"{k}.5!" for k in range(300))),
        ("x", "+".join(f"\\arcsin({k}x)" for k in range(400))),
        ("x+y<1", "x+y<" + "+".join(f"x^{{{k}i}}" for k in range(1, 300))),
        ("100000!+1", "100000!+2"),
        ("\\tan(e^{1000})", "\\sin(e^{1000})"),
        ("\\lfloor x\\rfloor", "+".join(f"\\lfloor\\sin({k}x)\\rfloor" for k in range(60))),
    ],
)
def test_what_costs_too_much_is_given_up_soon(reference: str, answer: str) -> None:
    same(reference, answer)
    started = time.process_time()
    assert not equivalent(reference, answer).equal
    assert time.process_time() - started < 1.0  # 0.1 s on a quiet machine


def test_one_budget_is_for_everything_in_it() -> None:
    slow = node("+".join(f"\\arcsin({k}x)" for k in range(8)))
    with OneBudget() as outer:
        with OneBudget() as inner:
            assert inner is outer
        left = outer.left
        assert agree(slow, Node("add", (slow, node("0")))) is True
        assert outer.left < left
        outer.left = 10
        assert agree(slow, Node("add", (slow, node("0")))) is None
        with pytest.raises(Exhausted):
            outer.spend(11)
    assert agree(slow, Node("add", (slow, node("0")))) is True


def test_numbers_far_apart_are_told_without_a_comparison() -> None:
    with OneBudget() as budget:
        assert far_apart(node("\\sqrt2"), node("\\sqrt3"))
        left = budget.left
        assert far_apart(node("\\sqrt3"), node("\\sqrt2"))
        assert budget.left == left
        assert not far_apart(node("\\sqrt2"), node("1.41"))
        assert not far_apart(node("x"), node("2"))
        assert not far_apart(node("5\\text{ cm}"), node("7"))
        assert not far_apart(node("(1,2)"), node("7"))


def test_proportional_tells_the_sign() -> None:
    assert proportional(node("2x-4"), node("x-2")) == 1
    assert proportional(node("2-x"), node("x-2")) == -1
    assert proportional(node("\\pi x-\\pi"), node("1-x")) == -1
    assert proportional(node("\\sin x-\\sin y"), node("2\\sin y-2\\sin x")) == -1
    assert proportional(node("|x|-2"), node("x-2")) == 0
    assert proportional(node("\\sin x+2^{200}"), node("\\sin x+2^{200}+1")) == 0
    assert proportional(node("x-x"), node("x-2")) == 0
