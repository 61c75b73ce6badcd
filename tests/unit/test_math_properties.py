"""Laws of the `math` verifier, on answers and strings that hypothesis makes up."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from rlvr_verifiers.math import equivalent, math
from rlvr_verifiers.math.comparison import EXACT

from rlvr import Completion, Sample, Verdict

EXAMPLES = 200
FUZZED = 20_000
DEADLINE_MS = 2_000  # of one check; the slowest take a twentieth of that on a quiet machine

laws = settings(max_examples=EXAMPLES, deadline=DEADLINE_MS, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Imports what the later tiers need, which is not the time of a check."""
    equivalent(r"\cos(n\pi)", "(-1)^n")


def judge(completion: str, reference: str) -> Verdict:
    verdict = math(Completion(completion), Sample("s", answer=reference))
    assert isinstance(verdict, Verdict)
    return verdict


def same(reference: str, answer: str) -> bool:
    return equivalent(reference, answer, EXACT).equal


# Answers: every one is well formed, and defined wherever the verifier looks

whole = st.integers(0, 10**7).map(str)
small = st.integers(1, 12).map(str)
decimal = st.tuples(st.integers(0, 9_999), st.integers(1, 999)).map(lambda n: f"{n[0]}.{n[1]}")
symbol = st.sampled_from(["x", "y", "n", "a", r"\pi", r"\theta", "x_1"])
atoms = st.one_of(whole, small, decimal, symbol)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}+20}}"),
        pair.map(lambda p: rf"{p[0]} + {p[1]}"),
        pair.map(lambda p: rf"{p[0]} - \left({p[1]}\right)"),
        pair.map(lambda p: rf"\left({p[0]}\right)\left({p[1]}\right)"),
        inner.map(lambda e: rf"\sqrt{{{e}+1}}"),
        st.tuples(inner, st.integers(2, 4)).map(lambda p: rf"\left({p[0]}\right)^{{{p[1]}}}"),
        inner.map(lambda e: rf"\left|{e}\right|"),
        inner.map(lambda e: rf"-\left({e}\right)"),
    )


expressions = st.recursive(atoms, _grown, max_leaves=6)
numbers = st.one_of(whole, decimal, st.tuples(whole, small).map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"))
few = st.lists(expressions, min_size=2, max_size=4)
bounds = st.tuples(st.integers(-50, 50), st.integers(51, 99))
answers = st.one_of(
    expressions,
    few.map(lambda items: rf"\left({', '.join(items)}\right)"),
    few.map(lambda items: rf"\left\{{{', '.join(items)}\right\}}"),
    few.map(", ".join),
    few.map(lambda items: r"\begin{pmatrix} " + r" \\ ".join(items) + r" \end{pmatrix}"),
    bounds.map(lambda b: rf"\left[{b[0]}, {b[1]}\right)"),
    bounds.map(lambda b: rf"\left(-\infty, {b[0]}\right] \cup \left({b[1]}, \infty\right)"),
    bounds.map(lambda b: rf"{b[0]} < x \le {b[1]}"),
    expressions.map(lambda e: f"z = {e}"),
    numbers.map(lambda n: rf"{n} \text{{ cm}}"),
    numbers.map(lambda n: rf"{n}\%"),
    numbers.map(lambda n: rf"{n}^\circ"),
    st.sampled_from([r"\text{even}", r"\text{no solution}", "C", r"\emptyset", "3+4i", r"\text{Monday}"]),
)


def _spaced(text: str) -> str:
    r"""Blanks wherever they mean nothing: around signs and brackets, not inside `1.5`, `\pi` or `\left(`."""
    return re.sub(r"(?<![\\{a-z])([-+=(),<|]|\\cup|\\le\b)(?![\\.])", r"  \1 ", text)


RESPELLED = {
    "whitespace": _spaced,
    "thin spaces": lambda text: text.replace(" + ", r" \, + \; ").replace(", ", r",\ "),
    "no left and right": lambda text: text.replace(r"\left", "").replace(r"\right", ""),
    "dfrac": lambda text: text.replace(r"\frac", r"\dfrac"),
    "tfrac": lambda text: text.replace(r"\frac", r"\tfrac"),
    "dollars": lambda text: f"${text}$",
    "full stop": lambda text: text + ".",
    "display style": lambda text: r"\displaystyle " + text,
}


@given(answers)
@laws
def test_an_answer_equals_itself(answer: str) -> None:
    assert same(answer, answer)
    assert judge(rf"So the answer is \boxed{{{answer}}}.", answer).passed


@pytest.mark.parametrize("spelling", RESPELLED)
@given(answers)
@laws
def test_spelling_does_not_matter(spelling: str, answer: str) -> None:
    other = RESPELLED[spelling](answer)
    assert same(answer, other)
    assert same(other, answer)


@given(answers, answers)
@laws
def test_equality_is_symmetric(left: str, right: str) -> None:
    assert same(left, right) == same(right, left)


@given(expressions, expressions, st.integers(2, 9))
@laws
def test_equality_is_symmetric_among_equals(left: str, right: str, n: int) -> None:
    one = rf"\left({left}\right) + {n}\left({right}\right)"
    other = rf"\frac{{{n * n}\left({right}\right) + {n}\left({left}\right)}}{{{n}}}"
    assert same(one, other)
    assert same(other, one)
    assert not same(one, rf"{other} + 1")
    assert not same(rf"{other} + 1", one)


@given(st.integers(1_000, 10**15), st.sampled_from([",", r"{,}", r",\!", r"\,", r"\ ", r"\;", " ", "~"]))
@laws
def test_thousands_separators(value: int, separator: str) -> None:
    grouped = f"{value:,}".replace(",", separator)
    assert same(str(value), grouped)
    assert same(grouped, str(value))
    assert not same(str(value + 1), grouped)


@given(answers, st.integers(1, 4), st.sampled_from(["boxed", "fbox"]))
@laws
def test_boxes_in_boxes(answer: str, depth: int, command: str) -> None:
    nested = answer
    for _ in range(depth):
        nested = rf"\{command}{{{nested}}}"
    assert judge(f"Hence {nested}.", answer).passed


@given(st.fractions(max_denominator=10**6))
@laws
def test_fractions_are_exact(value: Fraction) -> None:
    top, bottom = value.numerator, value.denominator
    assert same(f"{top}/{bottom}", rf"\frac{{{3 * top}}}{{{3 * bottom}}}")
    assert not same(f"{top}/{bottom}", rf"\frac{{{3 * top + 1}}}{{{3 * bottom}}}")


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.randoms(use_true_random=False))
@laws
def test_order_matters_in_tuples_only(values: list[int], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assume(shuffled != values)
    left, right = (", ".join(map(str, items)) for items in (values, shuffled))
    assert same(left, right)
    assert same(rf"\{{{left}\}}", rf"\{{{right}\}}")
    assert not same(f"({left})", f"({right})")


# Fuzzing

FRAGMENTS = (
    r"\frac{ } { ( ) [ ] \{ \} 1 2 345 1,234 0.5 x y n e i \pi \sqrt \sqrt[3] ^ _ + - * / = < \le \ne \approx \equiv "
    r"\in \cup \setminus | ! !! % ^\circ ' , ; : . \text{ \text{cm} or and to not \pm \mp \sin \log_ \binom & \\ "
    r"\begin{pmatrix} \end{pmatrix} \begin{cases} \end{cases} \infty \mathbb{R} \mathbb{Z} \overline{ \dot \bar cm \$ "
    r"52_8 _{\text{five}} 1e5 f( \left( \right) \left. \right| \lfloor \boxed{ \max \gcd \{x\mid million 1/2 1\frac12 "
    r"</think> <answer> #### answer: Answer is ² ½ π ≤ ∪ … ⁻ ° \color{red} \over \choose {}_5C_2 p.m. 4:20 March seven "
    r"\forall \pmod \, ** ` (C) Option 答案是 。 , km/h \ 12 999999 x^{2} \lim \sum_{k=1}^{n} \int \ldots $"
)
pieces = st.sampled_from(FRAGMENTS.split())
fuzz = st.one_of(
    st.lists(pieces, max_size=40).map("".join),
    st.lists(pieces, max_size=25).map(" ".join),
    st.text(max_size=60),
    st.text(alphabet=r"0123456789.,+-*/^_(){}[]\$%|!<>=:;'xyabe ", max_size=80),
    st.tuples(pieces, st.integers(1, 4_000)).map(lambda p: p[0] * p[1]),
)
references = st.one_of(
    st.sampled_from(["5", "x+1", "(1,2)", "1,2", "[1,2)", "x=3", r"2\pi", r"\text{even}", "C", "x<5", "y=2x", "5 cm"]),
    answers,
)


@given(fuzz, references, st.booleans())
@settings(laws, max_examples=FUZZED)
def test_no_text_raises_or_overruns(text: str, reference: str, boxed: bool) -> None:
    verdict = judge(rf"\boxed{{{text}}}" if boxed else text, reference)
    assert verdict.valid
    assert verdict.detail
