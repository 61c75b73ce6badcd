"""The grammar of the math verifier: one tree for many spellings, and bounds on what it reads."""

from __future__ import annotations

import pytest
from rlvr_verifiers.math.numeric import exact
from rlvr_verifiers.math.parse import parse
from rlvr_verifiers.math.spelling import normalise
from rlvr_verifiers.math.tree import ParseError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", "12"),
        ("-12", "-12"),
        ("+12", "12"),
        ("--3", "3"),
        (".5", "1/2"),
        ("12,345", "12345"),
        (r"12{,}345", "12345"),
        (r"12,\!345,\!678", "12345678"),
        (r"12\,345", "12345"),
        ("12 345", "12345"),
        ("1.5e3", "1500"),
        (r"1.5 \times 10^{-3}", "3/2000"),
        (r"\frac{3}{4}", "3/4"),
        (r"\dfrac34", "3/4"),
        (r"\tfrac 3{4}", "3/4"),
        (r"-\cfrac{3}{4}", "-3/4"),
        ("3/4", "3/4"),
        (r"2\frac{1}{2}", "5/2"),
        ("2 1/2", "5/2"),
        (r"-2\frac12", "-5/2"),
        (r"2 \cdot \frac{1}{2}", "1"),
        ("2½", "5/2"),
        ("3:4", "3/4"),
        (r"35\%", "7/20"),
        ("35 percent", "7/20"),
        (r"0.\overline{3}", "1/3"),
        (r"0.1\overline{6}", "1/6"),
        ("2^10", "1024"),
        ("2**10", "1024"),
        ("2^{3^2}", "512"),
        ("-2^2", "-4"),
        ("2³", "8"),
        (r"\sqrt{16}", "4"),
        (r"\sqrt[3]{-27}", "-3"),
        ("8^{2/3}", "4"),
        ("5!", "120"),
        ("7!!", "105"),
        (r"\binom{6}{2}", "15"),
        ("|3-5|", "2"),
        (r"\lfloor 7/2 \rfloor", "3"),
        (r"\left(1+\frac{1}{2}\right)(4)", "6"),
        (r"\text{12}", "12"),
        (r"\mathbf{12}", "12"),
        ("**12**", "12"),
        ("12.", "12"),
        ("−12", "-12"),
        (r"1011_2", "11"),
        (r"1A_{16}", "26"),
        ("5 million", "5000000"),
    ],
)
def test_values(text: str, value: str) -> None:
    node = parse(text)[0]
    assert str(exact(node)) == value


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("8pi", r"8\pi"),
        ("2xy", "2 x y"),
        ("sqrt(2)", r"\sqrt{2}"),
        ("√2", r"\sqrt2"),
        (r"\sin 2x", r"\sin(2x)"),
        (r"\left(0,\,1\right]", "(0, 1]"),
        (r"\text{5 cm}", r"5\text{ centimeters}"),
        (r"5\text{ cm}^2", "5 square centimetres"),
        (r"\$5", "5 dollars"),
        ("30°", r"30^\circ"),
        (r"\{1,2\}", r"\left\{ 1, 2 \right\}"),
        (r"1 \text{ and } 2", r"1 \quad \text{and} \quad 2"),
        (r"\pm 2", r"2 \text{ or } -2"),
        ("x₁", "x_{1}"),
    ],
)
def test_one_tree_for_two_spellings(left: str, right: str) -> None:
    def shape(text: str) -> str:
        return repr(parse(text)[0]).replace("'and'", "','").replace("'or'", "','")

    assert shape(left) == shape(right)


def test_a_comma_may_group_or_separate() -> None:
    number, pair = parse("70,110")
    assert exact(number) == 70110
    assert (pair.op, len(pair.args)) == ("list", 2)
    assert len(parse("(70,110)")) == 1  # inside brackets it separates
    assert len(parse("70, 110")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5 6",
        "7+",
        r"2\sqrt",
        "(1",
        "[1,2",
        r"\frac{1}",
        r"\frac{1}{",
        "5'",
        "3!!!",
        r"\sum_{k=1}^{10} k",
        r"\int_0^1 x\,dx",
        r"17 \bmod 5",
        r"3 \star 5",
        "1 cm 2",
        r"5\text{ (or }6)",
        "<answer>",
        "().__class__",
        "open('file','w')",
        r"\input{file}",
        "102_2",
        r"\text{at least } 5",
        r"\begin{pmatrix} 1 & 2 \\ 3 \end{pmatrix}",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "9" * 2_000,
        "1e999999999",
        "(" * 100 + "1" + ")" * 100,
        "1+" * 10_000 + "1",
        r"\sqrt" * 500 + "2",
        "5" + "%" * 500,
        r"\pm" * 6 + "1",
        ",".join("1" * 500),
        r"A \setminus " * 100 + "A",
    ],
)
def test_over_a_limit(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


def test_normalise_keeps_what_matters() -> None:
    assert normalise(" “f'” ") == "f'"
    assert normalise(r"\\frac{1}{2}.") == r"\frac{1}{2}"
    assert normalise("5\u200b") == "5"
    assert normalise(r"5\,") == "5"
