"""The math verifier on structured answers: names, conditions, families, regions, curves and pieces."""

from __future__ import annotations

import time

import pytest
from rlvr_verifiers.math import equivalent

EQUAL = [
    # a name and its value
    ("4", "|AB|=4"),
    ("|z|=5", "5"),
    (r"\frac14", r"P(X=2)=\frac14"),
    (r"P(A|B)=\frac{1}{3}", "1/3"),
    (r"\{3,4\}", r"A\cap B=\{4,3\}"),
    (r"(-2,\infty)", r"A \cup B = \{x \mid x > -2\}"),
    (r"f^{-1}(x)=\frac{x+3}{2}", r"\frac{x+3}2"),
    ("5", "a+b=5"),
    ("19", "m+n=4+15=19"),
    (r"\frac{AB}{CD}=2", "2"),
    ("x:y=2:3", "2:3"),
    (r"\frac{dy}{dx}=2x", "2x"),
    ("12", r"\gcd(48,180)=12"),
    ("6", r"\text{lcm}(2,3)=6"),
    ("2", r"\lim_{n\to\infty} a_n=2"),
    ("6", r"\sum_{k=1}^{3}k=6"),
    (r"\angle A=30^\circ", r"A=30^\circ"),
    ("12", r"\text{Area of } \triangle ABC = 12"),
    (r"\overset{\frown}{AB} = \frac{2\pi}{3}", r"\widehat{AB}=\frac{2\pi}3"),
    ("AB=5", r"\overline{AB}=5"),
    (r"A^{-1}=\begin{pmatrix}1&0\\0&2\end{pmatrix}", r"\begin{pmatrix}1&0\\0&2\end{pmatrix}"),
    (r"P(A|B)=\frac12, P(B|A)=\frac13", r"P(B|A)=\frac13, P(A|B)=\frac12"),
    ("f(x)=x^2-1", "f(t)=t^2-1"),
    # tuples and lists by name
    ("(x,y)=(2,3)", "(y,x)=(3,2)"),
    ("(x,y,z)=(1,0,-4)", r"z=-4,\ y=0,\ x=1"),
    ("x_1 = 2, x_2 = -3", "-3, 2"),
    ("x_1 = 2, x_2 = -3", r"x=-3 \text{ or } x=2"),
    (r"x\in\{3,5\}", "3, 5"),
    (r"\text{(a) } 3, \text{(b) } 5", "3, 5"),
    (r"(1) \frac{\pi}{3}; (2) 2\sqrt{3}", r"\text{(1) } \frac{\pi}{3} \quad \text{(2) } \sqrt{12}"),
    (r"\text{max: } 5, \text{ min: } -3", r"\text{minimum } -3, \text{ maximum } 5"),
    (r"1, 2, \ldots, n", r"1,2,3,\ldots,n"),
    ("5/8", r"5/8 \text{ or } 0.625"),
    ("(1,-2,3)", r"\mathbf{i}-2\mathbf{j}+3\mathbf{k}"),
    ("x=7, y=-2", r"\left\{\begin{array}{l}x=7\\y=-2\end{array}\right."),
    ("x+y=5, x-y=1", "x-y=1, 2x+2y=10"),
    (r"\text{no solution}", r"\varnothing"),
    (r"\frac58", r"\frac{5}{8}\ (\text{or } 0.625)"),
    # conditions
    ("5", r"x=5\ (x>0)"),
    (r"\frac{x+1}{x-2}", r"\frac{1+x}{x-2}, x\ne 2"),
    (r"y=x^2, x\ge 0", r"y=x^2\ (x\geq 0)"),
    ("f(n) = n + 1", r"f(n)=n+1 \text{ for all } n\in\mathbb{N}"),
    (r"f(x)=cx \text{ for some constant } c", r"f(x) = kx \text{ where } k \text{ is a constant}"),
    (r"(a, b) = (n, n) \text{ for all positive integers } n", r"(a,b)=(k,k), k\in\mathbb{Z}^+"),
    ("a_n = 2n - 1", r"a_n = 2n-1 \text{ for } n\ge 1"),
    (r"n \text{ is odd}", r"\text{all odd } n"),
    # families and congruences
    (r"x=\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+n\pi\ (n\in\mathbb Z)"),
    (r"x=\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\left\{x\mid x=\frac{5\pi}4+n\pi,n\in\mathbb{Z}\right\}"),
    (r"x=\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"x=k\pi+\frac{\pi}{4} \text{ where } k \text{ is an integer}"),
    (
        r"x = \pm\frac{\pi}{3} + 2k\pi, k \in \mathbb{Z}",
        r"x=\frac{\pi}{3}+2n\pi \text{ or } x=\frac{5\pi}{3}+2n\pi, n\in\mathbb{Z}",
    ),
    (
        r"\left[k\pi-\frac{\pi}{3}, k\pi+\frac{\pi}{6}\right] (k\in\mathbb{Z})",
        r"[n\pi+\frac{2\pi}3,n\pi+\frac{7\pi}6],n\in\mathbb{Z}",
    ),
    (
        r"\left(\frac{k\pi}{2}, 0\right), k\in\mathbb{Z}",
        r"\left(k\pi,0\right),\left(k\pi+\frac\pi2,0\right), k\in\mathbb{Z}",
    ),
    (r"n \equiv 1 \pmod{3}", r"n\equiv-2\ (\text{mod }3)"),
    (r"n \equiv 1 \pmod{3}", r"n=3k+1, k\in\mathbb{Z}"),
    (r"x \equiv 3, 5 \pmod{8}", r"x\equiv5\pmod8 \text{ or } x\equiv3 \bmod 8"),
    # regions
    (r"k<3, k\neq 0", r"(-\infty,0)\cup(0,3)"),
    ("x>1, x<3", "(1,3)"),
    ("x<-1, x>2", r"(-\infty,-1)\cup(2,\infty)"),
    (r"-1\le x<1 \text{ or } x=3", r"[-1,1) \cup \{3\}"),
    (r"\{x \in \mathbb{Z} \mid -2 < x \le 2\}", r"\{-1,0,1,2\}"),
    (r"\{y: y\ge 3\}", r"[3,\infty)"),
    (r"n \geq 3", r"n\ge 3, n\in\mathbb{Z}"),
    (r"x\notin\{1\}", r"x\ne 1"),
    (r"\mathbb{R}^+", r"(0,\infty)"),
    (r"\mathbb R - \{-1,4\}", r"\mathbb{R} \setminus \{-1, 4\}"),
    (r"(-\infty,-1)\cup[3,\infty)", r"\left]-\infty;-1\right[\cup\left[3;+\infty\right["),
    (r"x>\frac{1}{a}", r"(\frac1a,\infty)"),
    ("x>0, y>0", "y>0, x>0"),
    (r"(-\infty,-1)\cup(3,\infty)", "|x-1|>2"),
    (r"|x|\le \frac32", r"-\frac32\le x\le\frac32"),
    ("|x-1|=3", "x=4, x=-2"),
    ("x^2>4", r"x>2 \text{ or } x<-2"),
    ("x(x-1)<0", "0<x<1"),
    # curves, steps, pieces
    ("xy=1", r"y=\frac1x"),
    (r"y=\ln x", "x=e^y"),
    (r"\frac{x}{y}=\frac23", r"\frac{y}{x}=\frac32"),
    (r"\left\lfloor\frac{n}{2}\right\rfloor", r"\frac{2n-1+(-1)^n}{4}"),
    (r"\lceil n/2 \rceil", r"\lfloor (n+1)/2 \rfloor"),
    (
        r"\begin{cases} x^2, & x \ge 0 \\ -x, & x < 0 \end{cases}",
        r"f(x)=\begin{cases}-x&\text{if }x<0\\x^2&\text{otherwise}\end{cases}",
    ),
]

UNEQUAL = [
    # both signs, many steps
    ("|x|=2", "x=2"),
    ("|x|<2", "x<2"),
    ("|y|=x", "y=x"),
    (r"\ln|x+1|", r"\ln(x+1)"),
    (r"\sqrt[4]{x^2}", r"\sqrt{x}"),
    (r"\left\lfloor\frac{n}{3}\right\rfloor", r"\left\lfloor\frac{n+1}{4}\right\rfloor"),
    (r"\left\lfloor\frac{n}{2023}\right\rfloor", r"\left\lfloor\frac{n}{2024}\right\rfloor"),
    (r"\lceil x \rceil", r"\lfloor x \rfloor + 1"),
    # names
    ("f'(x)=2x", "f(x)=2x"),
    ("f(3)=2", "f(2)=2"),
    (r"P(A)=\frac13", r"P(B)=\frac13"),
    ("f(x,y)=x-y", "f(y,x)=x-y"),
    ("f(x)=2x", "f(x)=2t"),
    ("(x,y)=(2,3)", "(y,x)=(2,3)"),
    ("x=1, y=2", "x=1, x=2"),
    ("19", "2x=19"),
    ("6", "x-5=6"),
    ("5", "-x=5"),
    ("5", "x+x=5"),
    ("2", "|x|=2"),
    ("3", r"\frac{x}{2}=3"),
    ("2", r"\log_3 x=2"),
    ("6", "f(6)=2"),
    ("5", "a=3, b=5"),
    ("5", r"\text{not } x=5"),
    ("a+b=5", "a-b=5"),
    ("x:y=2:3", "y:x=2:3"),
    # lists, sets, alternatives
    (r"\emptyset", r"\{\emptyset\}"),
    (r"\{1,2\}", r"\{\{1,2\}\}"),
    ("x=4, y=-1", r"x=4 \text{ or } y=-1"),
    ("(2,3)", r"2 \text{ or } 3"),
    (r"A \text{ and } C", r"A \text{ or } C"),
    (r"I \text{ and } III", r"I \text{ or } III"),
    ("5/8", r"5/8 \text{ or } 0.375"),
    (r"\text{(a) } 3, \text{(b) } 5", "5, 3"),
    (r"1,2,\ldots,n", r"1,2,4,\ldots,n"),
    (r"1,2,\ldots,n", r"1,2,\ldots,2n"),
    ("(1,2,3)", r"\mathbf{i}+2\mathbf{j}"),
    ("(3,4)", "3+4i"),
    (r"\vec{a}\times\vec{b}", r"\vec{b}\times\vec{a}"),
    (r"\vec{a}\times\vec{b}", r"\vec{a}\cdot\vec{b}"),
    (r"\frac{5\pi}{6}", r"\frac{5\pi}{6}^\circ"),
    ("x=1, y=2", "a=1, b=2"),
    ("x_1=2, x_2=3", "x_1=2, y_2=3"),
    ("7", r"7\ (\text{or } 8)"),
    # conditions
    ("5", "x=5, x<3"),
    ("y=x^2", r"y=x^2, x\ge 0"),
    (r"y=x^2, x\ge 0", "y=x^2, x>0"),
    (r"\frac{1}{x-1}", r"\frac{1}{x-1}, x\ne 2"),
    ("5", r"5 \text{ for } x>3"),
    (r"f(x)=x^2, x\in[0,1]", r"f(x)=x^2, x\in[0,2]"),
    (r"x^2-1 \text{ for all } x", r"y^2-1 \text{ for all } x"),
    (r"n \text{ is odd}", r"n \text{ is even}"),
    # families and congruences
    (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}"),
    (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{\pi}{4}+2k\pi, k\in\mathbb{Z}"),
    (r"\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"\frac{3\pi}{4}+k\pi, k\in\mathbb{Z}"),
    (r"x=\frac{\pi}{4}+k\pi, k\in\mathbb{Z}", r"y=\frac{5\pi}{4}+k\pi, k\in\mathbb{Z}"),
    (r"n=3k, k\in\mathbb{N}", r"n=3k, k\in\mathbb{Z}"),
    (r"n \equiv 1 \pmod{3}", r"n \equiv 2 \pmod{3}"),
    (r"n \equiv 1 \pmod{3}", r"n \equiv 1 \pmod{6}"),
    ("1", r"n \equiv 1 \pmod{3}"),
    # regions
    (r"k<3, k\neq 0", r"k\le 3, k\neq 0"),
    (r"x>1, x\ne 2", r"x>1, x\ne 5"),
    (r"x\in\mathbb{R}, x\ne 0", r"x\in\mathbb{R}"),
    ("x<3, x>1", r"x<3 \text{ or } x>1"),
    ("x>0, y>0", r"x>0 \text{ or } y>0"),
    (r"x\ge 3", r"x\ge 3, x\in\mathbb{Z}"),
    (r"\{2,3\}", r"2\le x\le 3"),
    (r"\{x\mid x>1\}", r"\{y\mid x>1\}"),
    (r"[-1,1) \cup \{3\}", r"-1\le x<1 \text{ or } x=4"),
    (r"(-\infty,5)", "2x<10"),
    ("x=2, x=3", "x^2-5x+6=0"),
    ("(-1,3)", "x^2-2x-3<0"),
    # curves, pieces
    ("y=x", "xy=x^2"),
    (r"y=\sqrt{x}", "x=y^2"),
    ("xy=1", "|x|y=1"),
    (r"y=\ln x", "y=e^x"),
    (
        r"\begin{cases} x^2, & x \ge 0 \\ -x, & x < 0 \end{cases}",
        r"\begin{cases} x^2, & x > 0 \\ -x, & x \le 0 \end{cases}",
    ),
    (
        r"\begin{cases} x^2, & x \ge 0 \\ -x, & x < 0 \end{cases}",
        r"\begin{cases} x^2, & x < 0 \\ -x, & x \ge 0 \end{cases}",
    ),
]


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal(reference: str, answer: str) -> None:
    assert equivalent(reference, answer).equal


@pytest.mark.parametrize(("reference", "answer"), UNEQUAL)
def test_unequal(reference: str, answer: str) -> None:
    assert not equivalent(reference, answer).equal
    assert not equivalent(reference, f"{answer}{answer}").equal


def test_an_unsolved_reference_accepts_its_solution_but_not_the_other_way_round() -> None:
    assert equivalent("2x<10", "x<5").equal
    assert equivalent("x^2>4", r"(-\infty,-2)\cup(2,\infty)").equal
    assert not equivalent(r"(-\infty,-2)\cup(2,\infty)", "x^2>4").equal


HOSTILE = [
    ",".join(rf"x\ne {k}" for k in range(390)),
    "".join(rf"(x-{k})" for k in range(60)) + "<0",
    "|" * 2 + "x" + "|" * 2 + "<3" + "," * 500 + "x",
    r"n\equiv " + "1 or  " * 95 + r"\pmod 3",
    "for where x is " * 38 + "x",
    r"x=\frac{\pi}{4}+k\pi, " * 20 + r"k\in\mathbb{Z}",
    ",".join(rf"x=\frac{{{k}\pi}}{{97}}+\frac{{{k}k\pi}}{{89}}" for k in range(1, 20)) + r", k\in\mathbb{Z}",
    " " * 590 + "(",
    r"\text{ " * 90 + "for all x",
    "(1) a " * 99,
]


@pytest.mark.parametrize("answer", HOSTILE)
def test_hostile_structures_are_refused_quickly(answer: str) -> None:
    start = time.process_time()
    for reference in ("7", "x<5", r"x=\frac{\pi}{3}+k\pi, k\in\mathbb{Z}", "(1,2)", r"n \equiv 1 \pmod 3"):
        assert not equivalent(reference, answer).equal
        assert not equivalent(answer, reference).equal
    assert time.process_time() - start < 15  # measured: 0.2 s at most
