"""Hostile text: a corpus of what breaks readers of model output, and a fuzzer that mutates real completions.

Both are plain functions of a seed, without a library, so that a breach that was found can be found again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

LARGE = 1_000_000
"""Characters of the large texts of the corpus."""

DEPTHS = (200, 1_000, 5_000, 100_000)
"""How deep the corpus nests: around the limits of recursion, and far beyond them."""

LONGEST = 50_000
"""Characters of a mutated text at most."""

_OPENERS = ("[", "{", "(", "<", "[[]", '{"a":', "\\frac{", "\\boxed{", "```\n", "<think>", "<tool_call>", "<answer>")
_FILLERS = (
    "9",
    "a",
    " ",
    "\n",
    "\\",
    '"',
    "$",
    "`",
    "-",
    "1+",
    "a,",
    "\u202e",
    "\u0301",
    "\u200b",
    "</think>",
    "&#x41;",
)

_SHORT = (
    "\x00",
    "42\x00",
    "\x00\x01\x02\x08\x1b[2J\x7f\x9b",
    "\ud800",
    "\udfff\ud800 42 \udc80",
    "\ufeff42",
    "\ufffe\uffff\U0010ffff",
    "\u202e24\u202c \u2066x\u2069",
    "4\u200b2\u2060\u00ad",
    "e\u0301" * 200 + "\u0334" * 500,
    "\u0664\u0662 \uff14\uff12 \u2074\u00b2 \u2463",
    "\ufdfa\u0130\u00df\ufb03\u1e9e",
    "line\rline\x0bline\x0cline\x1cline\x85line\u2028line\u2029",
    "\\ud800 \\x00 \\u0000 %00 &#0;",
    "%s%n%d{0.__class__}{}{{",
    "__import__('os').system('true')",
    "'; DROP TABLE verdicts; --",
    "$(true) `true` | true && true",
    "../../../../etc/passwd",
    "NaN",
    "-Infinity",
    "1e999999999",
    "-1e-999999999",
    "0x" + "f" * 5_000,
    "9" * 5_000,
    "0." + "0" * 100_000 + "1",
    "9**9**9**9",
    "10^{10^{10^{10}}}",
    "((10!)!)!",
    "1/0",
    "\\frac{1}{0}",
    "\\sqrt{-1}^{\\infty}",
    "1" + "/1" * 5_000,
    "1,000,000" + ",000" * 5_000,
    '{"a": 1, "a": 2}',
    '{"a": NaN, "b": Infinity, "c": -0.0, "d": 1e400}',
    '{"a": "\\ud800"}',
    '{"a": 1,}',
    "{'a': True, None: ()}",
    '[1, 2, 3] {"b": 2} [4',
    '{"name": null, "arguments": "{"}',
    "<tool_call>\n{</tool_call><tool_call>",
    "<answer><answer>42</answer>",
    "</think></think><think>",
    "<think>42",
    "```python",
    "```json\n{",
    "~~~~\n```\n~~~\n````",
    "'''\n\"\"\"",
    "\\boxed{",
    "\\boxed{}}}}{{",
    "\\begin{pmatrix} 1 & 2 \\\\ ",
    "$$$ $ $$",
    "\\def\\x{\\x\\x}\\x",
    '<!DOCTYPE a [<!ENTITY b "&b;&b;">]><a>&b;</a>',
    "def f(:\n\treturn\n  return",
    "a" * 50_000 + "!",
    "x" + " " * 100_000 + "y",
    "x" + "\n" * 100_000 + "y",
    "a@" * 20_000,
    "1 " * 50_000,
    "-" * 100_000 + "1",
    "not " * 20_000 + "x",
    "1" + "+1" * 50_000,
    "f(" + "a=1," * 20_000 + ")",
    "x" + ".x" * 20_000,
    "x" + "[0]" * 20_000,
    "lambda:" * 5_000 + "0",
    "*" * 50_000,
    "_" * 50_000 + "a" + "_" * 50_000,
    "# " * 50_000,
    "| a " * 20_000,
)

_JUNK = (
    *"\x00\x1b\x85\u2028\u200b\u202e\u0301\ufeff\ud800\udc00\uffff\U0001f468",
    *"{}[]()<>\"'`\\$%&#,:;=+-*/^_|~!?@ \t\r\n0",
    "\\boxed{",
    "```",
    "</think>",
    "<think>",
    "<answer>",
    "</answer>",
    "<tool_call>",
    "null",
    "NaN",
    "1e999",
    "-0",
    "0x1g",
    "\\u0000",
    "\\frac",
    "\u00bd",
    "\u0661",
    "\uff11",
)

_WRAPPERS = (
    ("[", "]"),
    ("{", "}"),
    ("(", ")"),
    ('"', '"'),
    ("```\n", "\n```"),
    ("```python\n", "\n```"),
    ("```json\n", "\n```"),
    ("<think>", "</think>"),
    ("<answer>", "</answer>"),
    ("<tool_call>", "</tool_call>"),
    ("\\boxed{", "}"),
    ("$", "$"),
    ('{"a": ', "}"),
    ("<!--", "-->"),
    ("\u202e", "\u202c"),
)


def corpus() -> list[str]:
    """Text that has broken, hung or fooled readers of model output; always the same, with large ones at the end."""
    nested = [opener * depth + "1" + closer * depth for opener, closer in _BALANCED for depth in DEPTHS]
    large = [(unit * (LARGE // len(unit) + 1))[:LARGE] for unit in (*_OPENERS, *_FILLERS)]
    return [*_SHORT, *nested, *large]


_BALANCED = (("[", "]"), ('{"a":', "}"), ("(", ")"), ("\\frac{1}{", "}"), ("<a>", "</a>"))


def mutations(seed: int, n: int, seeds: Sequence[str] = ()) -> Iterator[str]:
    """`n` texts, each made from one or two of `seeds` by a few random changes.

    Args:
        seed: The same one gives the same texts.
        n: How many.
        seeds: What to start from, such as right completions; short texts of the corpus where there are none.
    """
    rng = random.Random(f"hostile {seed}")
    pool = [text[:LONGEST] for text in seeds if text] or list(_SHORT)
    for _ in range(n):
        text = rng.choice(pool)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            text = rng.choice(_MUTATIONS)(text, rng, pool)[:LONGEST]
        yield text


def hostile_texts(seed: int = 0, n: int = 200, seeds: Sequence[str] = ()) -> list[str]:
    """The whole corpus and `n` mutations of `seeds`; see `mutations`."""
    return [*corpus(), *mutations(seed, n, seeds)]


# Mutations: (text, rng, pool) -> text


def _span(text: str, rng: random.Random) -> tuple[int, int]:
    """A random slice, more often a short one."""
    start = rng.randrange(len(text) + 1)
    return start, min(len(text), start + rng.choice((1, 1, 2, 5, 20, 200)))


def _delete(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    start, stop = _span(text, rng)
    return text[:start] + text[stop:]


def _cut(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    at = rng.randrange(len(text) + 1)
    return rng.choice((text[:at], text[at:]))


def _insert(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(_JUNK) * rng.choice((1, 1, 1, 2, 50)) + text[at:]


def _replace(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    start, stop = _span(text, rng)
    return text[:start] + rng.choice(_JUNK) + text[stop:]


def _repeat(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    start, stop = _span(text, rng)
    return text[:start] + text[start:stop] * rng.choice((2, 3, 10, 1_000)) + text[stop:]


def _move(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    start, stop = _span(text, rng)
    rest = text[:start] + text[stop:]
    at = rng.randrange(len(rest) + 1)
    return rest[:at] + text[start:stop] + rest[at:]


def _wrap(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    before, after = rng.choice(_WRAPPERS)
    depth = rng.choice((1, 1, 2, 40))
    return before * depth + text + after * rng.choice((depth, depth, depth - 1))


def _splice(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    other = rng.choice(pool)
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]


def _append(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    return text + rng.choice(("\n", " ", "")) + rng.choice(pool)


def _recase(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    return rng.choice((text.upper(), text.lower(), text.swapcase(), text[::-1]))


def _renumber(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    places = [i for i, char in enumerate(text) if char.isdigit()]
    if not places:
        return text + str(rng.randrange(10**6))
    at = rng.choice(places)
    return text[:at] + rng.choice(("0", "9", "1e9", "9" * 400, ".5", "\u0663")) + text[at + 1 :]


def _blank(text: str, rng: random.Random, pool: Sequence[str]) -> str:
    return text.replace(" ", rng.choice(("", "\n", "\t", "\u00a0", "  ", "\u3000")))


_MUTATIONS = (
    _delete,
    _cut,
    _insert,
    _replace,
    _repeat,
    _move,
    _wrap,
    _splice,
    _append,
    _recase,
    _renumber,
    _blank,
)
