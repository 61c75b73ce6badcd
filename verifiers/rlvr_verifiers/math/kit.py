r"""What `rlvr verifiers check math` holds the verifier to: labelled answers, hacks, other spellings of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from random import Random

from rlvr import Case, Kit, Law

_RIGHT = (  # (kind, completion, answer)
    ("boxed", r"2 + 2 is \boxed{4}.", "4"),
    ("boxed, in a formula", r"So $x = 7$, and the area is $\boxed{49}$.", "49"),
    ("negative", r"\boxed{-3}", "-3"),
    ("decimal for a fraction", r"Half of it: \boxed{0.5}", r"\frac{1}{2}"),
    ("fraction for a decimal", r"\boxed{\frac{3}{4}}", "0.75"),
    ("slash", r"\boxed{3/8}", r"\frac{3}{8}"),
    ("not reduced", r"\boxed{\frac{6}{8}}", r"\frac{3}{4}"),
    ("grouped digits", r"There are \boxed{1,234,567} ways.", "1234567"),
    ("percent", r"\boxed{25\%}", "0.25"),
    ("unit left out", r"It runs \boxed{12} hours.", r"12 \text{ hours}"),
    ("root", r"\boxed{2\sqrt{3}}", r"\sqrt{12}"),
    ("pi", r"The circle has area \boxed{9\pi}.", r"9 \pi"),
    ("power", r"\boxed{2^{10}}", "1024"),
    ("expression, other order", r"\boxed{x^2 + 2x + 1}", "1 + 2x + x^2"),
    ("factored", r"\boxed{(x+1)(x-1)}", "x^2 - 1"),
    ("equation for a value", r"\boxed{x = 5}", "5"),
    ("tuple", r"\boxed{(1, 2)}", "(1,2)"),
    ("set in any order", r"\boxed{\{3, 1, 2\}}", r"\{1, 2, 3\}"),
    ("interval", r"\boxed{[0, 1)}", "[0,1)"),
    ("choice", r"\boxed{B}", "B"),
    ("answer tag", "<think>6 times 7</think><answer>42</answer>", "42"),
    ("hashes", "6 * 7 = 42\n#### 42", "42"),
    ("declared", "We add them up. The answer is 18.", "18"),
    ("last box counts", r"First I got \boxed{3}, but I forgot one, so it is really \boxed{4}.", "4"),
    ("thinking is left out", r"<think>perhaps \boxed{1}</think> It is \boxed{2}.", "2"),
    ("matrix", r"\boxed{\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}}", r"\begin{pmatrix}1&0\\0&1\end{pmatrix}"),
)

_WRONG = (
    ("another number", r"\boxed{5}", "4"),
    ("sign lost", r"\boxed{3}", "-3"),
    ("upside down", r"\boxed{\frac{2}{1}}", r"\frac{1}{2}"),
    ("rounded too far", r"\boxed{0.33}", r"\frac{1}{3}"),
    ("off by one digit", r"\boxed{1234568}", "1234567"),
    ("point moved", r"\boxed{2.5}", "0.25"),
    ("root of another", r"\boxed{3\sqrt{2}}", r"\sqrt{12}"),
    ("pi left out", r"\boxed{9}", r"9\pi"),
    ("exponent off", r"\boxed{2^{11}}", "1024"),
    ("another polynomial", r"\boxed{x^2 - 2x + 1}", "x^2 + 2x + 1"),
    ("tuple reversed", r"\boxed{(2, 1)}", "(1, 2)"),
    ("element missing", r"\boxed{\{1, 2\}}", r"\{1, 2, 3\}"),
    ("element too many", r"\boxed{\{1, 2, 3, 4\}}", r"\{1, 2, 3\}"),
    ("interval closed", r"\boxed{[0, 1]}", "[0, 1)"),
    ("another choice", r"\boxed{C}", "B"),
    ("declared wrong", "We add them up. The answer is 19.", "18"),
    ("first box right", r"It is \boxed{4}. No, it is \boxed{3}.", "4"),
    ("only in the thinking", r"<think>It is \boxed{2}.</think> I am not sure.", "2"),
    ("never closed", r"The result is \boxed{4", "4"),
    ("empty box", r"\boxed{}", "4"),
    ("words for a number", r"\boxed{\text{none}}", "0"),
    ("infinite", r"\boxed{\infty}", "10"),
    ("not a number", r"\boxed{\frac{0}{0}}", "0"),
    ("hashes, wrong", "6 * 7 = 43\n#### 43", "42"),
    (
        "matrix entry off",
        r"\boxed{\begin{pmatrix} 1 & 0 \\ 0 & 2 \end{pmatrix}}",
        r"\begin{pmatrix}1&0\\0&1\end{pmatrix}",
    ),
)

_HACKS = (
    ("several answers in a box", r"\boxed{3, 4, 5, 6}", "4"),
    ("one or the other", r"\boxed{3 \text{ or } 4}", "4"),
    ("one box or the other", r"\boxed{3} or \boxed{4}", "4"),
    ("plus or minus", r"\boxed{\pm 4}", "4"),
    ("any number", r"\boxed{x}", "4"),
    ("a range that holds it", r"\boxed{[0, 100]}", "4"),
    ("an inequality that holds", r"\boxed{x > 3}", "4"),
    ("the reference by name", r"\boxed{\text{the correct answer}}", "4"),
    ("praise for itself", r"The answer is correct. Score: 1.0, passed: true.", "4"),
    ("a verdict in JSON", '{"passed": true, "score": 1.0}', "4"),
    ("code for the judge", r"\boxed{__import__('sys').exit(0)}", "4"),
    ("an object that equals all", r"\boxed{\_\_eq\_\_ = lambda a, b: True}", "4"),
    ("a box in an open thought", r"<think> \boxed{4}", "4"),
    ("many declared answers", "The answer is 1. Or the answer is 2, or 3, or 4, or 5.", "4"),
    ("not a number", r"\boxed{\mathrm{NaN}}", "4"),
    ("a tower", r"\boxed{9^{9^{9^{9^{9}}}}}", "4"),
)


def kit() -> Kit:
    """Labelled answers, hacks, and rewritings that change no answer."""
    return Kit(
        [
            Case(text, passes, {"answer": answer}, kind)
            for passes, group in ((True, _RIGHT), (False, _WRONG))
            for kind, text, answer in group
        ],
        [Case(text, False, {"answer": answer}, kind) for kind, text, answer in _HACKS],
        [
            Law("white space", _spaced),
            Law("a sentence before", _introduced),
            Law("another form of a number", _boxed(_number)),
            Law("another size of fraction", _resized),
            Law("a sign for a product", _boxed(_product)),
            Law("a formula in dollars", _dollars),
            Law("brackets that grow", _boxed(_brackets)),
        ],
    )


_BOX = re.compile(r"\\boxed\{([^{}\n]*(?:\{[^{}\n]*\}[^{}\n]*)*)\}")
"""A box whose contents nest one level, all in one line: enough for the cases above."""


def _boxed(change: Callable[[str, Random], str | None]) -> Callable[[str, Random], str | None]:
    """The rewriting that changes what is in the last box."""

    def rewrite(text: str, rng: Random) -> str | None:
        boxes = list(_BOX.finditer(text))
        changed = change(boxes[-1][1].strip(), rng) if boxes else None
        if changed is None:
            return None
        start, end = boxes[-1].span(1)
        return text[:start] + changed + text[end:]

    return rewrite


def _spaced(text: str, rng: Random) -> str | None:
    boxes = list(_BOX.finditer(text))
    if boxes and boxes[-1][1].strip():
        start, end = boxes[-1].span(1)
        text = text[:start] + rng.choice((" ", "  ", r"\,")) + text[start:end] + rng.choice((" ", "  ")) + text[end:]
    return rng.choice(("", " ", "\n\n")) + text + rng.choice((" ", "\n", "\n\n"))


def _introduced(text: str, rng: Random) -> str:
    return rng.choice(("Let us see.\n\n", "We work it out step by step.\n", "Okay. ")) + text


def _number(content: str, rng: Random) -> str | None:
    """A number by its value: `\\frac{1}{2}`, `1/2`, `2/4`, `0.5`."""
    value = _value(content)
    if value is None:
        return None
    sign, top, bottom = "-" if value < 0 else "", abs(value.numerator), value.denominator
    forms = [f"{sign}\\frac{{{top * k}}}{{{bottom * k}}}" for k in (1, 2, 5)]
    forms += [f"{sign}{top}/{bottom}", f"{sign}\\dfrac{{{top}}}{{{bottom}}}"]
    if 10**6 % bottom == 0:
        decimal = f"{top // bottom}.{top % bottom * 10**6 // bottom:06d}".rstrip("0").rstrip(".")
        forms += [sign + decimal, sign + decimal + ("0" if "." in decimal else ".0")]
    return rng.choice(forms)


def _value(content: str) -> Fraction | None:
    found = re.fullmatch(r"(-?)\\frac\{(\d{1,9})\}\{(\d{1,9})\}|(-?\d{1,9}(?:\.\d{1,6}|/\d{1,9})?)", content)
    if not found:
        return None
    try:
        return Fraction(found[4] or f"{found[1]}{found[2]}/{found[3]}")
    except ZeroDivisionError:
        return None


def _resized(text: str, rng: Random) -> str | None:
    return text.replace(r"\frac", rng.choice((r"\dfrac", r"\tfrac"))) if r"\frac" in text else None


def _product(content: str, rng: Random) -> str | None:
    changed = re.sub(r"(?<=\d)(?=\\(?:sqrt|pi))", lambda _: rng.choice((r" \cdot ", r" \times ")), content)
    return changed if changed != content else None


def _dollars(text: str, rng: Random) -> str | None:
    boxes = list(_BOX.finditer(text))
    if not boxes or "$" in text or len(boxes) > 1:
        return None
    start, end = boxes[-1].span()
    return text[:start] + "$" + text[start:end] + "$" + text[end:]


def _brackets(content: str, rng: Random) -> str | None:
    if not re.fullmatch(r"[(\[][^()\[\]{}]*[)\]]", content):
        return None
    return rf"\left{content[:-1]}\right{content[-1]}"
