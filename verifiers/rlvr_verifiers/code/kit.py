"""What `rlvr verifiers check code` holds the verifier to: labelled programs, programs that cheat, and rewritings that
change no program's meaning. Programs are only parsed here; they run in the sandbox, as ever."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from random import Random
from typing import Any

from rlvr import Case, Kit, Law

from .extract import parsed
from .kit_programs import PROGRAMS

_EVENS = "assert evens([1, 2, 3, 4]) == [2, 4]\nassert evens([]) == []\nassert evens([7, 0, -2]) == [0, -2]"

_PROBLEMS: Mapping[str, Mapping[str, Any]] = {
    "add": {
        "tests": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add(0.5, 0.25) == 0.75"],
        "timeout": 1.0,
    },
    "evens": {"tests": _EVENS, "timeout": 1.0},
    "briefly": {"tests": _EVENS, "timeout": 0.2},
    "count": {
        "tests": [
            "assert count('abca') == {'a': 2, 'b': 1, 'c': 1}",
            "assert count('') == {}",
            "assert count('zz')['z'] == 2",
        ],
        "answer": "def count(text):\n    return {char: text.count(char) for char in text}",
    },
    "prime": {
        "tests": [
            {"call": "is_prime(7)", "expected": True},
            {"call": "is_prime(1)", "expected": False},
            {"call": "is_prime(91)", "expected": False},
            {"call": "is_prime(97)", "expected": True},
        ],
        "timeout": 1.0,
    },
    "sum": {
        "tests": [{"stdin": "3\n1 2 3\n", "stdout": "6\n"}, {"stdin": "1\n-5\n", "stdout": "-5\n"}],
        "timeout": 1.0,
    },
    "stack": {
        "tests": "s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2\nassert s.pop() == 1\nassert len(s) == 0",
        "timeout": 1.0,
    },
}
"""What programs are held against. Those that a mutation may send into a loop have a short clock."""

_PROGRAM = re.compile(r"^### (right|wrong|hack), (\w+): (.+)\n((?:(?!###).*\n)+)", re.MULTILINE)


def kit() -> Kit:
    """Labelled programs, hacks, and rewritings that no test can tell from the program."""
    programs = [
        (label, Case(_fenced(program.strip("\n")), label == "right", _PROBLEMS[problem], kind))
        for label, problem, kind, program in _PROGRAM.findall(PROGRAMS)
    ]
    right, wrong = _fenced("def add(a, b):\n    return a + b"), _fenced("def add(a, b):\n    return a * b")
    add = _PROBLEMS["add"]
    return Kit(
        [
            *(case for label, case in programs if label != "hack"),
            Case("def add(a, b):\n    return a + b", True, add, "bare"),
            Case("```python\ndef add(a, b):\n    return a + b", True, add, "never closed"),
            Case("Try `a + b`.\n\n" + wrong, False, add, "right in prose only"),
            Case(f"{wrong}\nThat multiplies. Rather:\n{right}", True, add, "the last block counts"),
            Case(f"{right}\nOr rather:\n{wrong}", False, add, "the last block counts"),
            Case("I would add the two numbers up.", False, add, "words"),
        ],
        [case for label, case in programs if label == "hack"],
        [
            Law("other names for local variables", _renamed),
            Law("comments", _commented),
            Law("another fence", _refenced),
            Law("prose around it", _introduced),
        ],
    )


def _fenced(program: str) -> str:
    return f"```python\n{program}\n```"


_BLOCK = re.compile(r"```python\n([^`]*)\n```\s*\Z")
"""A program that is all of the completion's end, without a backtick of its own."""


def _renamed(text: str, rng: Random) -> str | None:
    """The program with its functions' local variables under other names."""
    block = _BLOCK.search(text)
    tree = parsed(block[1]) if block else None
    if block is None or tree is None:
        return None
    tree = ast.parse(block[1])  # one of our own: `parsed` hands out a tree that others look at
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if names & {"locals", "vars", "eval", "exec", "dir"}:
        return None
    suffix = f"_{rng.randrange(100)}"
    changed = False
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and (own := _locals(function)):
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and node.id in own:
                    node.id = _fresh(node.id + suffix, names)
                    changed = True
    return text[: block.start()] + _fenced(ast.unparse(tree)) if changed else None


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _locals(function: ast.FunctionDef) -> set[str]:
    """Variables that a function binds by assignment only; none where a scope inside it makes that hard to tell."""
    inside = [node for node in ast.walk(function) if node is not function]
    if any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)) for node in inside):
        return set()
    bound = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    fixed: set[str | None] = {node.arg for node in inside if isinstance(node, ast.arg)}
    for node in inside:
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            fixed |= set(node.names)
        elif isinstance(node, ast.alias):
            fixed.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            fixed.add(node.name)
        elif isinstance(node, ast.MatchMapping):
            fixed.add(node.rest)
    return {name for name in bound if name not in fixed}


def _commented(text: str, rng: Random) -> str | None:
    block = _BLOCK.search(text)
    if block is None:
        return None
    note = rng.choice(("# a solution", "# TODO: tidy up", "# assert False", "# éàü"))
    return text[: block.start()] + _fenced(f"{note}\n{block[1]}\n{note}")


def _refenced(text: str, rng: Random) -> str | None:
    block = _BLOCK.search(text)
    if block is None:
        return None
    opening, closing = rng.choice(
        (("```py", "```"), ("```Python", "```"), ("~~~python", "~~~"), ("````python3", "````"))
    )
    return f"{text[: block.start()]}{opening}\n{block[1]}\n{closing}\n"


def _introduced(text: str, rng: Random) -> str | None:
    if not _BLOCK.search(text):
        return None
    before = rng.choice(("Here is the program:\n\n", "<think>A loop will do.</think>\n", "Sure!\n\n"))
    return before + text + rng.choice(("", "\n\nIt runs in linear time."))
