"""Reads `tests` as it comes from a data set, in any of these forms:

    "assert f(1) == 2\\nassert f(2) == 3"               text with asserts; each assert is a test
    "def check(candidate): ..."                        HumanEval's, with `entry_point` beside it
    "def test_f(): ..."                                a pytest file, where nothing else calls the functions
    ["assert f(1) == 2", "assert f(2) == 3"]           MBPP's `test_list`
    [{"stdin": "1\\n", "stdout": "2\\n"}]                also "input" and "output"
    {"inputs": [..], "outputs": [..], "fn_name": ..}   APPS, TACO; also {"stdin": [..], "stdout": [..]}
    [{"call": "f(1)", "expected": 2}]                  also {"function": "f", "args": [1], "kwargs": {}, "expected": 2}
    [{"assert": "assert f(1) == 2"}, {"pytest": ".."}]

or the same as JSON text. Tests of a list may have a `name`, a `weight` and a `timeout` in seconds.
"""

from __future__ import annotations

import ast
import functools
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["assert", "call", "stdio", "pytest"]
KINDS = ("", "asserts", "calls", "stdio", "pytest")


class BadTests(Exception):
    """The tests cannot be used, whatever the program is: missing data."""


@dataclass(frozen=True, slots=True)
class Test:
    """One test.

    Attributes:
        kind: What it is.
        text: Statements with asserts, the expression of a call, or a pytest file.
        stdin: Input of a program.
        expected: Output of a program, or what a call should return, as a JSON value.
        boxed: Whether `expected` may be in a list of its own, as in APPS.
        name: What the data set calls it.
        weight: Its part in the share of tests that pass.
        timeout: Seconds, where it has a clock of its own.
    """

    kind: Kind
    text: str = ""
    stdin: str = ""
    expected: Any = None
    boxed: bool = False
    name: str = ""
    weight: float = 1.0
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Tests:
    """All tests of a sample.

    Attributes:
        tests: At least one.
        setup: Statements that come before tests with asserts.
        entry_point: The name under test, where that is known.
        whole: Whether the tests are one text, of which every assert counts as a test.
    """

    tests: tuple[Test, ...]
    setup: str = ""
    entry_point: str = ""
    whole: bool = False


def parse(text: str) -> ast.Module:
    """The tree of test text.

    Raises:
        BadTests: It is not Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise BadTests(f"the tests are not Python: {error.msg}{line}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadTests(f"the tests cannot be read: {error}") from None


def read_tests(meta: Mapping[str, Any], kind: str = "") -> Tests:
    """The tests of a sample; the same text is read once for all completions of a group.

    See `read_anew`.
    """
    looked_at = {key: meta[key] for key in LOOKED_AT if meta.get(key) is not None}
    if all(isinstance(value, str) for value in looked_at.values()):
        return _read_text(tuple(looked_at.items()), kind)
    return read_anew(looked_at, kind)


LOOKED_AT = ("tests", "setup", "test_setup_code", "entry_point", "fn_name", "func_name")


@functools.lru_cache(maxsize=64)
def _read_text(meta: tuple[tuple[str, Any], ...], kind: str) -> Tests:
    return read_anew(dict(meta), kind)


def read_anew(meta: Mapping[str, Any], kind: str = "") -> Tests:
    """The tests of a sample.

    Args:
        meta: What the sample holds; looked at are `tests`, `setup`, `test_setup_code`, `entry_point` and `fn_name`.
        kind: `asserts`, `calls`, `stdio` or `pytest`, where the form alone does not say it.

    Raises:
        BadTests: There are none, or one of them is malformed; the message says which and how.
    """
    if kind not in KINDS:
        raise BadTests(f"the option `kind` must be one of {', '.join(f'`{k}`' for k in KINDS[1:])}, not `{kind}`")
    if "tests" not in meta:
        raise BadTests("the sample has no `tests`")
    setup = _text(meta, "setup") or _text(meta, "test_setup_code")
    entry_point = _text(meta, "entry_point") or _text(meta, "fn_name") or _text(meta, "func_name")
    parse(setup)
    value = meta["tests"]
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, str):
        test = _whole(value, kind, entry_point)
        return Tests((test,), setup, entry_point, whole=test.kind == "assert")
    rows = _rows(value, entry_point)
    if not rows:
        raise BadTests("`tests` is empty")
    tests = tuple(_test(row, f"test {i + 1} of {len(rows)}", kind, entry_point) for i, row in enumerate(rows))
    return Tests(tests, setup, entry_point)


def _text(meta: Mapping[str, Any], key: str) -> str:
    value = meta.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadTests(f"`{key}` must be text, not a `{type(value).__name__}`")
    return value


def _json(text: str) -> Any:
    """The value of a text that is JSON of a list or object, else the text."""
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            try:
                parse(text)
            except BadTests:
                raise BadTests(f"`tests` is neither JSON nor Python: {error}") from None
    return text


def _whole(text: str, kind: str, entry_point: str) -> Test:
    """Tests that are one text."""
    if not text.strip():
        raise BadTests("`tests` is empty")
    if kind in ("stdio", "calls"):
        raise BadTests(f"tests of the kind `{kind}` are a list, not text")
    tree = parse(text)
    if kind == "pytest" or (not kind and _is_pytest(tree)):
        return Test("pytest", text)
    return Test("assert", _with_check(text, tree, entry_point))


def _with_check(text: str, tree: ast.Module, entry_point: str) -> str:
    """Appends the call of HumanEval's `check`."""
    defined = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check" and len(n.args.args) == 1]
    if not defined or any(isinstance(n, ast.Name) and n.id == "check" for n in ast.walk(tree)):
        return text
    if not entry_point:
        raise BadTests("the tests define `check(candidate)`, and the sample has no `entry_point` to check")
    called = f"{text}\ncheck({entry_point})\n"
    parse(called)
    return called


def _is_pytest(tree: ast.Module) -> bool:
    """Whether the asserts are in functions that nothing calls."""
    tests = {
        node.name
        for node in tree.body
        if (isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"))
        or (isinstance(node, ast.ClassDef) and any(_is_test(method) for method in node.body))
    }
    if not tests:
        return False
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    runs = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & {"main", "run"}
    return not used & tests and not runs and not any(isinstance(node, ast.Assert) for node in tree.body)


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test")


def _rows(value: Any, entry_point: str) -> list[Any]:
    """The tests of a list, or of an object that holds lists."""
    if isinstance(value, list):
        return value
    if not isinstance(value, Mapping):
        raise BadTests(f"`tests` must be text, a list or an object, not a `{type(value).__name__}`")
    if isinstance(value.get("tests"), list):
        return value["tests"]
    inputs, outputs = (next((value[key] for key in keys if key in value), None) for keys in _COLUMNS)
    if isinstance(inputs, list) and isinstance(outputs, list):
        if len(inputs) != len(outputs):
            raise BadTests(f"`tests` has {len(inputs)} inputs and {len(outputs)} outputs")
        function = value.get("fn_name") or value.get("func_name")
        if function:
            return [
                {"function": function, "args": a, "expected": b, "boxed": True}
                for a, b in zip(inputs, outputs, strict=True)
            ]
        return [{"stdin": a, "stdout": b} for a, b in zip(inputs, outputs, strict=True)]
    return [value]


_COLUMNS = (("inputs", "input", "stdin"), ("outputs", "output", "stdout"))
_STDIN, _STDOUT = ("stdin", "input"), ("stdout", "output", "expected_output", "expected_stdout")


def _test(row: Any, which: str, kind: str, entry_point: str) -> Test:
    """One test of a list."""
    if isinstance(row, str):
        if kind in ("stdio", "calls"):
            raise BadTests(f"{which} is text, and not of the kind `{kind}`")
        test = _whole(row, kind or "asserts", entry_point)
        return test
    if not isinstance(row, Mapping):
        raise BadTests(f"{which} must be text or an object, not a `{type(row).__name__}`")
    try:
        test = _of(row, entry_point)
    except BadTests as error:
        raise BadTests(f"{which}: {error}") from None
    if kind and test.kind != {"asserts": "assert", "calls": "call"}.get(kind, kind):
        raise BadTests(f"{which} is not of the kind `{kind}`")
    weight, timeout = row.get("weight", 1.0), row.get("timeout")
    if not _positive(weight):
        raise BadTests(f"{which}: `weight` must be a number above 0, not `{weight!r}`")
    if timeout is not None and not _positive(timeout):
        raise BadTests(f"{which}: `timeout` must be seconds above 0, not `{timeout!r}`")
    name = row.get("name")
    return replace(test, name=name if isinstance(name, str) else "", weight=float(weight), timeout=timeout)


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _of(row: Mapping[str, Any], entry_point: str) -> Test:
    """The test that an object describes."""
    for key in ("assert", "asserts", "pytest"):
        if key in row:
            if not isinstance(row[key], str) or not row[key].strip():
                raise BadTests(f"`{key}` must be text that is not empty")
            return _whole(row[key], "pytest" if key == "pytest" else "asserts", entry_point)
    if "call" in row or "function" in row:
        return _call(row)
    stdin, stdout = (next((key for key in keys if key in row), None) for keys in (_STDIN, _STDOUT))
    if stdout is None and stdin is not None and "expected" in row:
        stdout = "expected"
    if stdin is None and stdout in ("stdout", "expected_stdout"):
        return Test("stdio", stdin="", expected=_lines(row, stdout))
    if stdin is None or stdout is None:
        raise BadTests(f"there is no `{'stdout' if stdin else 'stdin'}` among {_keys(row)}")
    if row.get("testtype") == "functional":
        return _functional(row[stdin], row[stdout], row.get("fn_name") or entry_point)
    return Test("stdio", stdin=_lines(row, stdin), expected=_lines(row, stdout))


def _keys(row: Mapping[str, Any]) -> str:
    return ", ".join(f"`{str(key)[:30]}`" for key in list(row)[:8]) or "no keys at all"


def _lines(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise BadTests(f"`{key}` must be text, not a `{type(value).__name__}`")
    return value


def _functional(stdin: Any, stdout: Any, function: Any) -> Test:
    """LiveCodeBench's: one JSON value a line for each argument."""
    try:
        args = [json.loads(line) for line in str(stdin).strip().split("\n") if line.strip()]
        expected = json.loads(stdout)
    except (TypeError, ValueError, RecursionError):
        raise BadTests("a functional test whose input or output is not JSON") from None
    return _call({"function": function, "args": args, "expected": expected})


def _call(row: Mapping[str, Any]) -> Test:
    if "expected" not in row:
        raise BadTests(f"there is no `expected` among {_keys(row)}")
    text = row.get("call")
    if text is None:
        function, args, keywords = row["function"], row.get("args", []), row.get("kwargs", {})
        if not isinstance(function, str) or not function.strip():
            raise BadTests("`function` must be a name")
        if not isinstance(args, list) or not isinstance(keywords, Mapping):
            raise BadTests("`args` must be a list and `kwargs` an object")
        given = [literal(arg) for arg in args]
        given += [f"{name}={literal(value)}" for name, value in keywords.items()]
        text = f"{function}({', '.join(given)})"
    if not isinstance(text, str):
        raise BadTests(f"`call` must be text, not a `{type(text).__name__}`")
    try:
        tree = parse(text.strip())
    except BadTests:
        raise BadTests(f"`{text[:80]}` is not a call") from None
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        raise BadTests(f"`{text[:80]}` is not a call")
    return Test("call", text.strip(), expected=row["expected"], boxed=row.get("boxed") is True)


def literal(value: Any) -> str:
    """A JSON value as Python."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    return repr(value)


def after_future(text: str, prefix: str) -> str:
    """The text with something put before it, but after its `from __future__` imports."""
    if not prefix.strip():
        return text
    if "__future__" in text:
        try:
            tree = parse(text)
        except BadTests:
            return f"{prefix}\n{text}"
        ends = [n.end_lineno or 0 for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
        if ends:
            lines = text.split("\n")
            return "\n".join([*lines[: max(ends)], prefix, *lines[max(ends) :]])
    return f"{prefix}\n{text}"
