"""The verifier `code`: takes the program out of a completion, runs the tests, and says what was found."""

from __future__ import annotations

import ast
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from rlvr import Completion, Sample, Sandbox, Verdict, verifier

from . import matching
from .extract import extract, parsed
from .kit import kit as _kit
from .names import Names, binds
from .nodes import NeedsJudge
from .running import Job, Missing, Starved, keeps_apart, run_judged, run_stdio, run_table
from .shown import one_line, shown_text
from .table import Piece, Table, compiled, names_in
from .tests import BadTests, Test, Tests, after_future, literal, parse, read_tests

_MARKER = re.compile(
    r"(?:all )?(?:tests?|checks?|asserts?|assertions?) ?(?:have |result: ?)?pass(?:ed)?|(?:all )?pass(?:ed)?|ok|success"
    r"|\d+ passed.*|[\"'](?:passed|status|score|reward)[\"']:.*",
    re.IGNORECASE,
)
"""Lines that pretend to be a verdict, without the signs around them."""


_IMPORTS_SOLUTION = re.compile(r"^\s*(?:from|import)\s+solution\b", re.MULTILINE)


def _gold(sample: Sample) -> str:
    """The sample's reference program in a code block."""
    code = _reference(sample)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{fence}python\n{code}\n{fence}" if code.strip() else ""


def _reference(sample: Sample) -> str:
    for value in (sample.answer, *(sample.meta.get(key) for key in ("code", "solution", "canonical_solution"))):
        if isinstance(value, str) and value.strip():
            return extract(value)
    return ""


_SPOILER = """
def _spoiled(function):
    inside = []
    def changed(value):
        changes = ((bool, lambda v: not v), ((int, float, complex), lambda v: v + 1), (str, lambda v: v + "?"),
                   (list, lambda v: v + ["?"]), (tuple, lambda v: v + ("?",)), (set, lambda v: v | {"?"}),
                   (dict, lambda v: {**v, "?": 0}), (type(None), lambda v: 0))
        return next((change(value) for kind, change in changes if isinstance(value, kind)), None)
    def spoiled(*args, **keywords):
        inside.append(1)
        try:
            value = function(*args, **keywords)
        finally:
            inside.pop()
        return value if inside else changed(value)
    return spoiled
"""


def _spoil(sample: Sample) -> str | None:
    """The reference program with another value in place of what its functions return, or with one line more printed."""
    code = _reference(sample)
    tree = parsed(code)
    if tree is None:
        return None
    try:
        tests = read_tests(sample.meta)
        if any(test.kind == "stdio" for test in tests.tests):
            return f"```python\n{after_future(code, 'print(chr(63))')}\n```"
        names = names_in((Piece(tests.tests[0].text, 0),)) if tests.tests[0].kind == "pytest" else _names(tests)
    except BadTests:
        return None
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} & set(names.solution)
    if not functions:
        return None
    lines = [f"{name} = _spoiled({name})" for name in sorted(functions)]
    return "```python\n" + "\n".join([code, _SPOILER, *lines]) + "\n```"


@verifier("code", reference=["tests"], timeout=120.0, gold=_gold, spoil=_spoil, kit=_kit)
def code(
    completion: Completion,
    sample: Sample,
    sandbox: Sandbox,
    *,
    timeout: float = 10.0,
    total_timeout: float = 60.0,
    memory_mb: int = 512,
    score: Literal["all", "share"] = "all",
    tolerance: float = 1e-6,
    exact: bool = False,
    kind: str = "",
    checker: str = "",
) -> Verdict:
    """Passes when the program in the completion passes all `tests`.

    The program is the last Python block, else the whole text. `tests` is text with asserts, a pytest file, or a list of
    asserts, of calls with expected values, or of `{"stdin", "stdout"}`. Tests are kept out of the program's process:
    values and output are compared on the host, and what cannot be is run by a judge in a process of its own.

    Options:
        timeout: Seconds for one execution: a text of tests, a call table, a run on one input.
        total_timeout: Seconds for all executions of one completion.
        memory_mb: Memory of a process.
        score: `all` for 1.0 if all tests pass; `share` for the share of tests that pass, by weight.
        tolerance: How far numbers of an output, or an expected float, may be off, relative or absolute.
        exact: Whether an output has to be the same byte by byte.
        kind: `asserts`, `calls`, `stdio` or `pytest`, where the form of the tests does not say it.
        checker: Source of `check(stdin, expected, actual)` for output that has more than one right form.
    """
    parts: dict[str, Any] = {"isolation": _isolation(sandbox)}
    try:
        checker = _checked_options(timeout, total_timeout, memory_mb, score, tolerance, checker, sample)
        tests = read_tests(sample.meta, kind)
        program = extract(completion.text)
        if not program.strip():
            _plan(tests, sandbox)
            return Verdict.of(False, "there is no code in the completion", parts={**parts, "tests": len(tests.tests)})
        program = _with_prompt(program, sample, tests.entry_point)
        deadline = time.monotonic() + total_timeout
        job = Job(program, sandbox, timeout, memory_mb, deadline, score == "share", tolerance)
        units, compared = _run(job, tests, sandbox, exact, checker)
        parts["isolation"] = _isolation(sandbox)  # complete only now that it has started
    except BadTests as error:
        return Verdict.error(str(error), parts)
    except Starved as error:
        return Verdict.timeout(str(error), parts)
    except Missing as error:
        return Verdict.error(str(error), parts)
    verdict = _verdict(job, tests, units, compared, parts)
    if verdict.passed and all(test.kind == "stdio" and not test.expected.strip() for test in tests.tests):
        return Verdict.error("no test expects any output, so that nothing is checked", parts)
    return verdict


def coverage(tests_list: Iterable[Any]) -> list[str]:
    """How each list of tests is compared: `table`, `judge`, `stdio`, or `error` where it cannot be used.

    Args:
        tests_list: `tests` as a sample holds them, or whole `meta` mappings with a key `tests`.
    """
    found = []
    for tests in tests_list:
        meta = tests if isinstance(tests, Mapping) and "tests" in tests else {"tests": tests}
        try:
            read = read_tests(meta)
            if any(test.kind == "pytest" for test in read.tests):
                found.append("judge")
            elif _functions(read):
                found.append("table" if isinstance(_compiled(read), Table) else "judge")
            else:
                found.append("stdio")
        except BadTests:
            found.append("error")
    return found


def _isolation(sandbox: Sandbox) -> dict[str, Any]:
    return dict(sandbox.isolation) if keeps_apart(sandbox) else {"backend": sandbox.name}


def _checked_options(
    timeout: float, total_timeout: float, memory_mb: int, score: str, tolerance: float, checker: str, sample: Sample
) -> str:
    """The custom checker, if there is one.

    Raises:
        BadTests: An option makes no sense.
    """
    for name, value in (("timeout", timeout), ("total_timeout", total_timeout), ("memory_mb", memory_mb)):
        if not 0 < value < math.inf:
            raise BadTests(f"the option `{name}` must be above 0, not {value}")
    if score not in ("all", "share"):
        raise BadTests(f"the option `score` must be `all` or `share`, not `{score}`")
    if not 0 <= tolerance < 1:
        raise BadTests(f"the option `tolerance` must be at least 0 and below 1, not {tolerance}")
    source = checker or sample.meta.get("checker") or ""
    if not isinstance(source, str):
        raise BadTests("`checker` must be Python source")
    if source:
        try:
            defined = binds(parse(source), "check")
        except BadTests:
            raise BadTests("`checker` is not Python") from None
        if not defined:
            raise BadTests("`checker` does not define `check(stdin, expected, actual)`")
    return source


def _with_prompt(program: str, sample: Sample, entry_point: str) -> str:
    """The program behind the code that the problem gives: HumanEval's header, or the imports and helpers in it."""
    name = entry_point.split("(")[0].split(".")[0]
    if not name:
        return program
    for prompt in (sample.meta.get("prompt"), sample.prompt):
        if isinstance(prompt, str) and re.search(
            rf"^(?:def|class|async def)\s+{re.escape(name)}\b", prompt, re.MULTILINE
        ):
            own, given = parsed(program), parsed(prompt)
            if own is not None and binds(own, name):
                return after_future(program, prompt) if given is not None else program
            lines = program.strip("\n").split("\n")
            indent = "" if lines[0][:1].isspace() else "    "
            whole = "\n".join([prompt.rstrip("\n"), *(indent + line for line in lines)])
            return whole if parsed(whole) is not None else program
    return program


# -------------------------------------------------------------------------------------------------------- running


def _pieces(tests: Tests) -> tuple[Piece, ...]:
    """The tests of functions, as the compiler takes them."""
    found = [Piece(tests.setup, None)] if tests.setup.strip() else []
    for unit, test in enumerate(tests.tests):
        if test.kind == "call":
            found.append(Piece(test.text, unit, True, json.dumps(test.expected)))
        elif test.kind == "assert":
            found.append(Piece(test.text, unit))
    return tuple(found)


def _compiled(tests: Tests) -> Table | str:
    return compiled(_pieces(tests), tests.entry_point, tests.whole)


def _names(tests: Tests) -> Names:
    return names_in(_pieces(tests), tests.entry_point)


def _plan(tests: Tests, sandbox: Sandbox) -> Table | str:
    """The table of the tests of functions, or why there is none.

    Raises:
        BadTests: They cannot be used, or not in this sandbox.
    """
    if not _is_stdio(tests) and not keeps_apart(sandbox):
        raise BadTests(
            f"the sandbox `{sandbox.name}` only runs programs with stdin and stdout; these tests need one that can "
            "keep them away from the program (`call` and `judge` of `rlvr.CodeSandbox`)"
        )
    return _compiled(tests) if _functions(tests) else ""


def _functions(tests: Tests) -> list[int]:
    """The numbers of the tests that are asserts or calls."""
    return [i for i, test in enumerate(tests.tests) if test.kind in ("assert", "call")]


def _run(job: Job, tests: Tests, sandbox: Sandbox, exact: bool, checker: str) -> tuple[int, str]:
    """Runs all tests. Gives how many there are, and where values were compared."""
    tests = _of_class(tests, job.program)
    plan = _plan(tests, sandbox)
    units, compared = len(tests.tests), "host"
    if functions := _functions(tests):
        names = _names(tests)
        if absent := _absent(job.program, names):
            for unit in range(units):
                job.fail(unit, f"the program does not define `{absent}`")
            return units, compared
        try:
            if not isinstance(plan, Table):
                raise NeedsJudge(plan)
            run_table(job, plan, tests.tests, tests.whole)
            units = plan.units if tests.whole else units
        except NeedsJudge:
            compared = "judge"
            job.passed.clear()
            job.failures.clear()
            _judge(job, tests, functions, names)
    for i, test in enumerate(tests.tests):
        if test.kind == "pytest" and not job.over:
            compared = "judge"
            run_judged(job, _pytest_text(test.text), (), "pytest", [i] if units > 1 else [], test.timeout)
    if compared == "judge" and len(tests.tests) == 1:
        units = max(1, len(job.passed | job.failures.keys()))
    stdio = [(i, test) for i, test in enumerate(tests.tests) if test.kind == "stdio"]
    if not job.over:
        run_stdio(job, stdio, exact, checker)
    return units, compared


def _of_class(tests: Tests, program: str) -> Tests:
    """The tests with calls of a function turned into calls of the class `Solution`, where the program has that."""
    calls = {test.text.partition("(")[0] for test in tests.tests if test.boxed}
    tree = parsed(program) if calls else None
    if tree is None or not binds(tree, "Solution") or any(binds(tree, name) for name in calls):
        return tests
    changed = (replace(test, text=f"Solution().{test.text}") if test.boxed else test for test in tests.tests)
    return replace(tests, tests=tuple(changed), entry_point="")


def _absent(program: str, names: Names) -> str:
    """A builtin that the tests take from the program and that it does not define; else they would test Python."""
    if names.builtins:
        tree = parsed(program)
        for name in names.builtins:
            if tree is not None and not binds(tree, name):
                return name
    return ""


def _judge(job: Job, tests: Tests, functions: Sequence[int], names: Names) -> None:
    """Has a judge run the tests of functions, all at once or each by itself where a share is wanted."""
    for batch in [[i] for i in functions] if job.all else [list(functions)]:
        texts = [tests.setup, *(_judged_text(tests.tests[i], job.tolerance) for i in batch)]
        helper = [matching.SOURCE] if any(tests.tests[i].kind == "call" for i in batch) else []
        text = "\n".join(filter(str.strip, texts))
        if _IMPORTS_SOLUTION.search(text):
            given = ", ".join(f"{name}={name}" for name in names.solution)
            helper.append(f"import sys, types\nsys.modules['solution'] = types.SimpleNamespace({given})")
        text = after_future(text, "\n".join([names.prelude, *helper]))
        clock = max(tests.tests[i].timeout or job.timeout for i in batch)
        run_judged(job, text, names.solution, "asserts", batch if len(tests.tests) > 1 else [], clock)
        if job.over:
            break


def _judged_text(test: Test, tolerance: float) -> str:
    if test.kind == "call":
        return f"assert __expects({test.text}, {literal(test.expected)}, {tolerance!r})"
    return test.text


def _pytest_text(text: str) -> str:
    """A pytest file that imports what it takes from the program."""
    if _IMPORTS_SOLUTION.search(text):
        return text
    names = names_in((Piece(text, 0),))
    return after_future(text, f"{names.prelude}\nfrom solution import {', '.join(names.solution)}")


# -------------------------------------------------------------------------------------------------------- verdict


def _verdict(job: Job, tests: Tests, units: int, compared: str, parts: dict[str, Any]) -> Verdict:
    alike = tests.whole or len(tests.tests) != units
    weights = [1.0] * units if alike else [test.weight for test in tests.tests]
    passed = sorted(unit for unit in job.passed if unit < units and unit not in job.failures)
    unchecked = [unit for unit in range(units) if unit not in job.passed]
    if unchecked and not job.failures:
        return Verdict.error(f"test {unchecked[0] + 1} of {units} checks nothing", parts)
    parts |= {"tests": units, "passed": len(passed), "compared": compared}
    if not job.failures:
        if job.flags:
            parts["flags"] = sorted(job.flags)
        which = "the only test" if units == 1 else f"all {units} tests"
        return Verdict.of(True, f"{which} passed", parts=parts)
    first = min(job.failures)
    if not any(test.kind == "stdio" for test in tests.tests) and _has_marker(job.printed):
        job.flags.add("printed-marker")
    if job.flags:
        parts["flags"] = sorted(job.flags)
    if job.limit:
        parts["limit"] = job.limit
    name = tests.tests[first].name if first < len(tests.tests) and not tests.whole else ""
    parts["first_failed"] = name or first + 1
    named = f" ({one_line(name, 60)})" if name else ""
    where = f"test {first + 1} of {units}{named} failed: " if units > 1 else f"the test{named} failed: "
    printed = f"; stdout: {shown_text(job.printed)}" if job.printed.strip() and not _is_stdio(tests) else ""
    earned = sum(weights[unit] for unit in passed) / sum(weights) if job.all else 0.0
    detail = f"{where}{job.failures[first]}{printed}"
    return Verdict.of(False, detail, score=min(1.0, earned), parts=parts)


def _has_marker(printed: str) -> bool:
    """Whether a program printed what a careless judge would take for a verdict."""
    lines = printed[:20_000].split("\n")[:200]
    return any(_MARKER.fullmatch(line[:200].replace("_", " ").strip(" \t\r=-*#.!:[](){}")) for line in lines)


def _is_stdio(tests: Tests) -> bool:
    return all(test.kind == "stdio" for test in tests.tests)
