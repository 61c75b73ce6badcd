"""Runs the tests of one completion in a sandbox, and keeps account of what was found."""

from __future__ import annotations

import ast
import functools
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from rlvr import Call, Calls, Check, CodeSandbox, Execution, Judgement, Returned, Sandbox

from .evaluate import Evaluator
from .matching import matches
from .nodes import Access, CallMissing, CallRaised, FaultyTest, NeedsJudge, Pretender, Root, Unset
from .shown import one_line, shown, shown_text, tail
from .stdio import checker_program, checker_verdict, difference
from .table import Step, Table
from .tests import Test


class Missing(Exception):
    """The verification cannot be finished; nothing is known of the completion."""


class Starved(Missing):
    """The machine was too busy to give the program its time."""


def keeps_apart(sandbox: Sandbox) -> TypeGuard[CodeSandbox]:
    """Whether a sandbox can keep tests away from the program."""
    return _has_both(type(sandbox))


@functools.cache
def _has_both(kind: type) -> bool:
    """Asked once for each class: a look at a protocol takes longer than comparing all values of a completion."""
    return callable(getattr(kind, "call", None)) and callable(getattr(kind, "judge", None))


@dataclass
class Job:
    """One program, its limits, and what is known of it so far.

    Attributes:
        program: Its source.
        sandbox: Where it runs.
        timeout: Seconds for one execution.
        memory_mb: Memory of each process.
        deadline: When all of it has to be over, on the monotonic clock.
        all: Whether all tests are wanted, and not just the first that fails.
        tolerance: How far numbers may be off.
        passed: Numbers of the tests that passed.
        failures: What the tests that did not pass have shown, by their number.
        flags: Attempts to forge.
        limit: The limit that ended the program, if one did.
        printed: What it printed.
        executions: How many processes were started for it.
    """

    program: str
    sandbox: Sandbox
    timeout: float
    memory_mb: int
    deadline: float
    all: bool
    tolerance: float
    passed: set[int] = field(default_factory=set)
    failures: dict[int, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    limit: str = ""
    printed: str = ""
    executions: int = 0

    def fail(self, unit: int, why: str) -> None:
        """Notes that a test has failed, and why if it is not known yet."""
        self.passed.discard(unit)
        self.failures.setdefault(unit, why)

    @property
    def over(self) -> bool:
        """Whether what is known decides."""
        return bool(self.failures) and not self.all

    def seconds(self, wanted: float | None) -> float:
        """The clock of the next execution."""
        self.executions += 1
        return max(0.1, min(wanted or self.timeout, self.deadline - time.monotonic()))

    @property
    def late(self) -> bool:
        """Whether the time for all tests is used up."""
        return time.monotonic() >= self.deadline

    def saw(self, execution: Execution) -> None:
        """Notes how an execution went.

        Raises:
            Starved: It says nothing about the program.
        """
        if execution.killed_by == "starved":
            raise Starved("the machine was too busy to give the program its time")
        self.printed = execution.stdout or self.printed

    def ended(self, execution: Execution, seconds: float) -> str:
        """Why a program did not get to its end, in words; empty if it did."""
        if execution.killed_by:
            self.limit = self.limit or execution.killed_by
            match execution.killed_by:
                case "timeout":
                    return f"it did not end within {seconds:.3g} s"
                case "memory":
                    return f"it used more than {self.memory_mb} MB of memory"
                case _:
                    return "it printed too much"
        if execution.exit_code is None or execution.exit_code < 0:
            return f"it was ended by {_signal(execution.exit_code)}"
        if execution.exit_code:
            why = tail(execution.stderr.strip().rpartition("\n")[2])
            return f"it ended with exit code {execution.exit_code}" + (f": {why}" if why else "")
        return ""


def _signal(code: int | None) -> str:
    try:
        return signal.Signals(-(code or 0)).name
    except ValueError:
        return "a signal"


# --------------------------------------------------------------------------------------------------- call tables


def run_table(job: Job, table: Table, tests: Sequence[Test], whole: bool) -> None:
    """Checks tests that are a call table.

    Raises:
        NeedsJudge: A judge process has to look at them.
        Missing: The tests are at fault, or the machine is.
    """
    variables: dict[str, Any] = {}
    position = 0
    while position < len(table.steps) and not job.over:
        if job.late:
            for step in table.steps[position:]:
                _fail(job, step, "there was no time left for it")
            job.limit = job.limit or "timeout"
            return
        end = _together(table.steps, position, tests, whole)
        first, last = table.steps[position].calls[0], table.steps[end - 1].calls[1]
        clock = None if whole else tests[table.steps[position].unit].timeout
        seconds = job.seconds(clock)
        result = _called(job, table.calls[first:last], seconds)
        if not result.loaded:
            why = result.error or job.ended(result.execution, seconds) or "it ended before it was loaded"
            for step in table.steps[position:]:
                _fail(job, step, f"the program does not load: {one_line(why, 300)}")
            return
        returned = {first + i: one for i, one in enumerate(result.returned[: last - first])}
        while position < end and not job.over:
            step = table.steps[position]
            boxed = step.expects and tests[step.unit].boxed
            missing = _check(job, table, step, returned, variables, boxed)
            if missing is not None:
                slow = result.execution.killed_by == "timeout"
                if slow and not whole and step.calls[0] > first:
                    break  # the tests before it used up its clock: once more, from here, in a process of its own
                _fail(job, step, _died(job, table, missing, result, seconds))
                position = _behind(table.steps, position, whole)
                break
            position += 1


def _together(steps: Sequence[Step], position: int, tests: Sequence[Test], whole: bool) -> int:
    """The steps that may share a process: those whose tests have the same clock."""
    if whole:
        return len(steps)
    clock = tests[steps[position].unit].timeout
    end = position
    while end < len(steps) and tests[steps[end].unit].timeout == clock:
        end += 1
    return end


def _behind(steps: Sequence[Step], position: int, whole: bool) -> int:
    """The first step of the next test."""
    unit = steps[position].unit
    position += 1
    while position < len(steps) and steps[position].unit == unit and not whole:
        position += 1
    return position


def _called(job: Job, calls: Sequence[Call], seconds: float) -> Calls:
    assert keeps_apart(job.sandbox)
    result = job.sandbox.call(job.program, calls, timeout=seconds, memory_mb=job.memory_mb)
    job.saw(result.execution)
    job.flags.update(result.flags)
    return result


def _died(job: Job, table: Table, call: int, result: Calls, seconds: float) -> str:
    """What to say of a program that ended before it had returned from a call."""
    why = job.ended(result.execution, seconds)
    if not result.execution.killed_by:
        job.flags.add("left-early")
    return f"the program ended in `{_source(table, call)}`: {why or 'it left with exit code 0'}"


def _source(table: Table, call: int) -> str:
    one = table.calls[call]
    return one_line(one.source + "".join(one.trail), 120)


def _words(error: Exception) -> str:
    """An exception's text; a value in it may be too large to be written."""
    try:
        return str(error)
    except Exception:
        return "no text"


def _check(
    job: Job, table: Table, step: Step, returned: dict[int, Returned], variables: dict[str, Any], boxed: bool
) -> int | None:
    """Evaluates one step; gives the call that is missing for it, if one is."""
    evaluator = Evaluator(returned, variables)
    expected = step.expected
    try:
        value = evaluator.evaluate(step.tree)
        if step.variable:
            variables[step.variable] = value
            return None
        held = matches(expected, value, job.tolerance) if step.expects else evaluator.truth(value)
        if boxed and not held and isinstance(expected, list) and len(expected) == 1:
            held = matches(expected[0], value, job.tolerance)
    except CallMissing as missing:
        return missing.call
    except CallRaised as raised:
        held, why = False, f"`{_source(table, raised.call)}` raised {one_line(raised.text, 300)}"
    except FaultyTest as fault:
        raise Missing(f"the test `{one_line(step.source, 120)}` itself raises {one_line(str(fault))}") from None
    except Pretender as pretender:
        job.flags.add("lying-object")
        held, why = False, f"an object that is no text answers to `.{pretender}`"
    except Unset:
        held, why = False, "what came before it failed"
    except NeedsJudge:
        raise
    except Exception as error:
        got = _got(table, step, returned)
        held, why = False, f"{got}, and the check raised {type(error).__name__}: {one_line(_words(error), 120)}"
    else:
        why = "" if held else _why(table, step, returned, evaluator, value)
    if held:
        if step.unit not in job.failures:
            job.passed.add(step.unit)
    else:
        _fail(job, step, why)
    return None


def _fail(job: Job, step: Step, why: str) -> None:
    source = "" if why.startswith("`") else f"`{one_line(step.source, 160)}`: "
    job.fail(step.unit, source + why)


def _got(table: Table, step: Step, returned: dict[int, Returned]) -> str:
    """What the calls of a check gave."""
    parts = []
    for call in range(*step.calls)[:3]:
        got = returned.get(call)
        if got is not None and got.raised is None:
            parts.append(f"`{_source(table, call)}` gave {shown(got.value)}")
    return ", ".join(parts) or "the calls came before"


def _why(table: Table, step: Step, returned: dict[int, Returned], evaluator: Evaluator, value: Any) -> str:
    """Expected and got of a check that does not hold."""
    if step.expects:
        return f"`{one_line(step.source, 120)}` gave {shown(value)}, expected {shown(step.expected)}"
    expected = _expected(step, evaluator)
    if expected is not None:
        call = step.calls[0]
        return f"`{_source(table, call)}` gave {shown(returned[call].value)}, expected {expected}"
    return f"`{one_line(step.source, 160)}` does not hold: {_got(table, step, returned)}"


def _expected(step: Step, evaluator: Evaluator) -> str | None:
    """What a check compares the value of its only call with, as text."""
    tree = step.tree
    match tree:
        case ast.Compare(left=Root() | Access(), ops=[ast.Eq() | ast.Is()], comparators=[ast.Constant(value=value)]):
            return shown(value)
        case ast.Compare(left=ast.Constant(value=value), ops=[ast.Eq()], comparators=[Root() | Access()]):
            return shown(value)
        case ast.Compare(left=Root() | Access(), ops=[ast.NotEq()], comparators=[ast.Constant(value=value)]):
            return f"anything else than {shown(value)}"
        case Root() | Access():
            return "something true"
        case ast.UnaryOp(op=ast.Not(), operand=Root() | Access()):
            return "something false"
    return None


# -------------------------------------------------------------------------------------------------------- judged


def run_judged(job: Job, text: str, names: Sequence[str], kind: str, units: Sequence[int], clock: float | None) -> None:
    """Has a judge process run test text; the tests of that text pass or fail together.

    Args:
        job: The program.
        text: Test source.
        names: What it takes from the program.
        kind: `asserts` or `pytest`.
        units: The tests that it holds; with none, each of its checks is a test.
        clock: Seconds, where they are not the job's.

    Raises:
        Missing: The machine was too busy, or the sandbox has no pytest.
    """
    assert keeps_apart(job.sandbox)
    seconds = job.seconds(clock)
    found = job.sandbox.judge(
        job.program,
        text,
        names=names,
        kind="pytest" if kind == "pytest" else "asserts",
        timeout=seconds,
        memory_mb=job.memory_mb,
    )
    job.saw(found.execution)
    job.flags.update(found.flags)
    if found.error == "there is no pytest in this sandbox" and not found.checks:
        raise Missing(found.error)
    stopped = _stopped(job, found, seconds)
    failed = {i: f"`{one_line(c.name, 160)}`: {_detail(c)}" for i, c in enumerate(found.checks) if not c.passed}
    if stopped:
        failed[len(found.checks)] = stopped
    if units:
        for unit in units:
            if failed:
                job.fail(unit, failed[min(failed)])
            else:
                job.passed.add(unit)
        return
    for i in range(len(found.checks) + bool(stopped)):
        if i in failed:
            job.fail(i, failed[i])
        else:
            job.passed.add(i)


def _detail(check: Check) -> str:
    return one_line(check.detail.strip(), 300) or "it does not hold"


def _stopped(job: Job, found: Judgement, seconds: float) -> str:
    """Why a judged text was not run to its end, or to no purpose; empty if it was."""
    if found.execution.killed_by:
        return f"the program was stopped: {job.ended(found.execution, seconds)}"
    if found.error or not found.complete:
        return f"the tests were not run to their end: {one_line(found.error, 300) or 'the judge was stopped'}"
    if not found.checks:
        return "the tests ran to their end without checking anything"
    return ""


# --------------------------------------------------------------------------------------------------------- stdio


def run_stdio(job: Job, tests: Sequence[tuple[int, Test]], exact: bool, checker: str) -> None:
    """Runs the program on each input and compares what it prints.

    Raises:
        Missing: The machine was too busy, or the checker does not work.
    """
    seen: dict[tuple[str, float | None], tuple[Execution, float]] = {}
    for unit, test in tests:
        if job.over:
            return
        if job.late:
            job.limit = job.limit or "timeout"
            job.fail(unit, "there was no time left for it")
            continue
        key = (test.stdin, test.timeout)
        if key not in seen:
            seconds = job.seconds(test.timeout)
            execution = job.sandbox.run(job.program, stdin=test.stdin, timeout=seconds, memory_mb=job.memory_mb)
            job.saw(execution)
            seen[key] = execution, seconds
        execution, seconds = seen[key]
        why = job.ended(execution, seconds)
        if why:
            why = f"the program was run on {shown_text(test.stdin, 80)}: {why}"
        elif checker:
            why = _custom(job, test, execution.stdout, checker)
        else:
            why = difference(test.expected, execution.stdout, job.tolerance, exact)
            why = f"on {shown_text(test.stdin, 80)}: {why}" if why else ""
        if why:
            job.fail(unit, why)
        else:
            job.passed.add(unit)


def _custom(job: Job, test: Test, stdout: str, checker: str) -> str:
    """What a custom checker says against an output; empty if nothing."""
    verdict = _checked(job, test, stdout, checker)
    if verdict == "yes":
        return ""
    if verdict != "no" and _checked(job, test, test.expected, checker) != "yes":
        # It does not even take what is expected, so it is not the program's fault.
        raise Missing(f"the checker does not work: {one_line(verdict or 'it did not get to its end', 300)}")
    raised = "" if verdict == "no" else f" ({one_line(verdict, 200)})"
    return f"on {shown_text(test.stdin, 80)}: the checker refuses {shown_text(stdout)}{raised}"


def _checked(job: Job, test: Test, actual: str, checker: str) -> str:
    nonce = secrets.token_hex(12)
    program = checker_program(checker, nonce, test.stdin, test.expected, actual)
    execution = job.sandbox.run(program, timeout=job.seconds(None), memory_mb=job.memory_mb)
    if execution.killed_by == "starved":
        raise Starved("the machine was too busy to give the checker its time")
    return checker_verdict(execution.stdout, nonce)
