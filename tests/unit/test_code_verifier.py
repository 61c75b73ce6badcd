"""The verdicts of the `code` verifier: a scripted sandbox plays what programs can do, a real one runs honest ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rlvr_verifiers.code import code

from rlvr import (
    Call,
    Calls,
    Check,
    Completion,
    Execution,
    Judgement,
    Opaque,
    Returned,
    RlvrError,
    Sample,
    Status,
    Verdict,
)

FINE = Execution(0, "", "", 0.01)


class Scripted:
    """A sandbox that answers what it is told to, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers: Any, output: Mapping[str, Execution | str] | None = None) -> None:
        self.answers = list(answers)
        self.output = output or {}
        self.isolation: Mapping[str, Any] = {"backend": "scripted"}
        self.asked: list[tuple[str, Any]] = []
        self.clocks: list[float] = []

    def answer(self, what: str, detail: Any, timeout: float) -> Any:
        self.asked.append((what, detail))
        self.clocks.append(timeout)
        answer = self.answers.pop(0) if self.answers else AssertionError(f"asked once more: {what} {detail}")
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def run(self, code: str, *, stdin: str = "", timeout: float = 10.0, memory_mb: int = 512) -> Execution:
        if stdin in self.output:
            self.asked.append(("run", stdin))
            out = self.output[stdin]
            return replace(FINE, stdout=out) if isinstance(out, str) else out
        answer = self.answer("run", code, timeout)
        assert isinstance(answer, Execution)
        return answer

    def call(self, code: str, calls: Sequence[Call], *, timeout: float = 10.0, memory_mb: int = 512) -> Calls:
        answer = self.answer("call", [call.source for call in calls], timeout)
        return answer if isinstance(answer, Calls) else returned(*answer)

    def judge(
        self,
        code: str,
        tests: str,
        *,
        names: Sequence[str] = (),
        kind: Any = "asserts",
        timeout: float = 10.0,
        memory_mb: int = 512,
    ) -> Judgement:
        answer = self.answer("judge", tests, timeout)
        assert isinstance(answer, Judgement)
        return answer

    def close(self) -> None:
        pass


class Plain:
    """A sandbox of the simple kind."""

    name = "plain"

    def run(self, code: str, *, stdin: str = "", timeout: float = 10.0, memory_mb: int = 512) -> Execution:
        return replace(FINE, stdout=stdin)

    def close(self) -> None:
        pass


def returned(*values: Any, execution: Execution = FINE, flags: tuple[str, ...] = (), loaded: bool = True) -> Calls:
    ones = tuple(value if isinstance(value, Returned) else Returned(value) for value in values)
    return Calls(execution, ones, loaded, "" if loaded else "NameError: name 'x' is not defined", flags)


def verify(tests: Any, sandbox: Any, completion: str = "def f(): pass", **given: Any) -> Verdict:
    meta = given.pop("meta", {})
    verdict = code.fn(Completion(completion), Sample("x", meta={"tests": tests, **meta}), sandbox, **given)
    assert isinstance(verdict, Verdict)
    json.dumps(verdict.parts, allow_nan=False)
    assert len(verdict.detail) < 2_000
    return verdict


THREE = ["assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"]


def test_a_pass_says_how_it_came_about() -> None:
    verdict = verify(THREE, Scripted([1, 2, 3]))
    assert (verdict.status, verdict.score, verdict.detail) == (Status.PASSED, 1.0, "all 3 tests passed")
    assert verdict.parts == {"isolation": {"backend": "scripted"}, "tests": 3, "passed": 3, "compared": "host"}


def test_a_failure_names_the_first_test_that_fails() -> None:
    printed = replace(FINE, stdout="debug\n1")
    verdict = verify(THREE, Scripted(returned(1, 4, 5, execution=printed)))
    assert (verdict.status, verdict.score) == (Status.FAILED, 0.0)
    assert verdict.detail == "test 2 of 3 failed: `f(2)` gave 4, expected 2; stdout: `debug⏎1`"
    assert verdict.parts["passed"] == 1
    assert verdict.parts["first_failed"] == 2


def test_partial_credit() -> None:
    assert verify(THREE, Scripted([1, 4, 3]), score="share").score == pytest.approx(2 / 3)
    rows = [{"call": "f(1)", "expected": 1, "weight": 3}, {"call": "f(2)", "expected": 2, "name": "two"}]
    verdict = verify(rows, Scripted([1, 0]), score="share")
    assert verdict.score == 0.75
    assert verdict.detail == "test 2 of 2 (two) failed: `f(2)` gave 0, expected 2"
    assert verdict.parts["first_failed"] == "two"
    assert verify("\n".join(THREE), Scripted([1, 4, 3]), score="share").score == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Returned(raised="ValueError: no"), "`f(1)` raised ValueError: no"),
        (Returned(raised="SystemExit: 0"), "`f(1)` raised SystemExit: 0"),
        (Opaque("Liar"), "`f(1)` gave <Liar object>, expected 1"),
        (None, "`f(1)` gave None, expected 1"),
        (1 << 16_608, "<an integer of about 5,000 digits>"),
        ("x" * 10**6, "`f(1)` gave 'xxx"),
        ([[[[[[[[[[]]]]]]]]]], "expected 1"),
        ("\udc80\x1b", "\\udc80"),
    ],
    ids=range(8),
)
def test_what_a_call_may_give(answer: Any, words: str) -> None:
    verdict = verify("assert f(1) == 1", Scripted([answer]))
    assert verdict.status is Status.FAILED
    assert words in verdict.detail


@pytest.mark.parametrize(
    ("test", "given", "words"),
    [
        ("assert f(1) > 3", [1], "`f(1) > 3` does not hold: `f(1)` gave 1"),
        ("assert f(1)", [0], "`f(1)` gave 0, expected something true"),
        ("assert not f(1)", [1], "`f(1)` gave 1, expected something false"),
        ("assert f(1) != 1", [1], "`f(1)` gave 1, expected anything else than 1"),
        ("assert f(1) == f(2)", [1, 2], "does not hold: `f(1)` gave 1, `f(2)` gave 2"),
        ("assert len(f(1)) == 1", [3], "`f(1)` gave 3, and the check raised TypeError"),
        ("x = f(1)\nassert x[0] == 1\nassert x[1] == 3", [[1, 2]], "test 2 of 2 failed: `x[1] == 3`"),
    ],
)
def test_details_of_checks(test: str, given: list[Any], words: str) -> None:
    verdict = verify(test, Scripted(given))
    assert verdict.status is Status.FAILED
    assert words in verdict.detail


def test_a_program_that_does_not_load() -> None:
    verdict = verify(THREE, Scripted(returned(loaded=False)))
    assert verdict.status is Status.FAILED
    assert "the program does not load: NameError" in verdict.detail


def test_leaving_early_is_no_pass_and_is_flagged() -> None:
    for answer in (returned(1), returned(1, 2), returned()):
        verdict = verify(THREE, Scripted(answer))
        assert verdict.status is Status.FAILED
        assert "left-early" in verdict.parts["flags"]
    verdict = verify(THREE, Scripted(returned(1, execution=replace(FINE, exit_code=-11))))
    assert "SIGSEGV" in verdict.detail
    claims = replace(FINE, stdout="All tests passed\n")
    assert "printed-marker" in verify(THREE, Scripted(returned(2, 2, 3, execution=claims))).parts["flags"]
    assert "flags" not in verify(THREE, Scripted(returned(1, 2, 3, execution=claims))).parts


def test_flags_of_the_sandbox_are_passed_on() -> None:
    flagged = returned(1, 2, 3, flags=("lying-object",))
    assert verify(THREE, Scripted(flagged)).parts["flags"] == ["lying-object"]
    verdict = verify("assert f(1).startswith('a')", Scripted([Opaque("Str")]))
    assert verdict.status is Status.FAILED
    assert verdict.parts["flags"] == ["lying-object"]


@pytest.mark.parametrize("limit", ["timeout", "memory", "output"])
def test_limits_are_facts_about_the_program(limit: Any) -> None:
    stopped = replace(FINE, exit_code=None, killed_by=limit)
    verdict = verify("assert f(1) == 1\nassert f(2) == 2", Scripted(returned(1, execution=stopped)))
    assert verdict.status is Status.FAILED
    assert verdict.parts["limit"] == limit


def test_a_busy_machine_is_missing_data() -> None:
    starved = replace(FINE, exit_code=None, killed_by="starved")
    assert verify(THREE, Scripted(returned(execution=starved))).status is Status.TIMEOUT
    rows = [{"stdin": "1", "stdout": "1"}]
    assert verify(rows, Scripted(output={"1": starved})).status is Status.TIMEOUT
    judged = Judgement(starved, (), False)
    assert verify("s = S()\ns.f()\nassert s.x", Scripted(judged)).status is Status.TIMEOUT


def test_a_sandbox_that_fails_is_not_the_programs_fault() -> None:
    with pytest.raises(RlvrError, match="gone"):
        verify(THREE, Scripted(RlvrError("gone")))


def test_the_tests_after_one_that_hangs_run_in_a_new_process() -> None:
    hangs = replace(FINE, exit_code=None, killed_by="timeout")
    sandbox = Scripted(returned(1, execution=hangs), returned(execution=hangs), [3])
    verdict = verify(THREE, sandbox, score="share", timeout=3)
    assert verdict.score == pytest.approx(2 / 3)
    # The second test gets a clock of its own before it is given up.
    assert [asked for _, asked in sandbox.asked] == [["f(1)", "f(2)", "f(3)"], ["f(2)", "f(3)"], ["f(3)"]]
    slow = Scripted(returned(1, execution=hangs), [2, 3])
    assert verify(THREE, slow).status is Status.PASSED


def test_clocks() -> None:
    rows = [{"call": "f(1)", "expected": 1, "timeout": 2}, {"call": "f(2)", "expected": 2}]
    sandbox = Scripted([1], [2])
    assert verify(rows, sandbox, timeout=5).status is Status.PASSED
    assert sandbox.clocks == [pytest.approx(2), pytest.approx(5)]
    late = Scripted([1])
    verdict = verify(rows, late, total_timeout=1e-9)
    assert verdict.status is Status.FAILED
    assert verdict.parts["limit"] == "timeout"
    assert not late.asked


# ---------------------------------------------------------------------------------------------------- missing data


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        ([], "`tests` is empty"),
        ("assert 1 == 1", "no test uses a name of the program"),
        (["assert f(1) == 1", "x = 1"], "test 2 of 2 checks nothing"),
        ("assert (f(1) == 1, 'x')", "no assert depends on the program"),
        ("assert f(1) == 1 / 0", "itself raises ZeroDivisionError"),
        ([{"stdin": "1"}], "no `stdout`"),
    ],
)
def test_tests_at_fault_are_errors(tests: Any, words: str) -> None:
    verdict = verify(tests, Scripted([1]))
    assert verdict.status is Status.ERROR
    assert words in verdict.detail


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "`timeout`"),
        ({"total_timeout": float("inf")}, "`total_timeout`"),
        ({"score": "most"}, "`score`"),
        ({"tolerance": 1}, "`tolerance`"),
        ({"kind": "junit"}, "`kind`"),
        ({"checker": "def chk(): pass"}, "does not define `check"),
        ({"checker": "def check("}, "not Python"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    verdict = verify(THREE, Scripted([1, 2, 3]), **options)
    assert verdict.status is Status.ERROR
    assert words in verdict.detail


def test_no_code_is_a_failure() -> None:
    assert verify(THREE, Scripted(), "").status is Status.FAILED
    assert verify(THREE, Scripted(), "```python\n```").detail == "there is no code in the completion"
    assert verify("assert 1", Scripted(), "").status is Status.ERROR


def test_a_simple_sandbox_runs_programs_only() -> None:
    assert verify([{"stdin": "1", "stdout": "1"}], Plain()).passed
    verdict = verify(THREE, Plain())
    assert verdict.status is Status.ERROR
    assert "only runs programs with stdin and stdout" in verdict.detail


def test_a_builtin_under_test_has_to_be_the_programs() -> None:
    tests = "assert sum(1, 2) == 3"
    assert verify(tests, Scripted([3]), "def sum(a, b): return a + b").passed
    verdict = verify(tests, Scripted([3]), "x = 1")
    assert verdict.status is Status.FAILED
    assert "does not define `sum`" in verdict.detail


# ---------------------------------------------------------------------------------------------------------- judged


def judgement(*checks: bool, complete: bool = True, error: str = "", execution: Execution = FINE) -> Judgement:
    made = tuple(Check(f"assert {i}", passed, "it is not") for i, passed in enumerate(checks))
    return Judgement(execution, made, complete, error)


STATEFUL = "s = S()\ns.add(1)\nassert s.n == 1\nassert s.m == 2"


def test_judged_tests() -> None:
    sandbox = Scripted(judgement(True, True))
    verdict = verify(STATEFUL, sandbox)
    assert verdict.passed
    assert verdict.parts["compared"] == "judge"
    assert verdict.parts["tests"] == 2
    assert "s.add(1)" in sandbox.asked[0][1]
    assert verify(STATEFUL, Scripted(judgement(True, False)), score="share").score == 0.5


@pytest.mark.parametrize(
    "found",
    [
        judgement(),
        judgement(True, False),
        judgement(True, True, complete=False),
        judgement(True, True, error="the solution's process ended"),
        judgement(True, True, execution=replace(FINE, exit_code=None, killed_by="timeout")),
        judgement(True, True, execution=replace(FINE, exit_code=None, killed_by="memory")),
    ],
)
def test_only_a_complete_judgement_passes(found: Judgement) -> None:
    verdict = verify(STATEFUL, Scripted(found))
    assert verdict.status is Status.FAILED
    assert verdict.score < 1


def test_what_the_host_cannot_tell_is_judged() -> None:
    sandbox = Scripted([1, Opaque("generator"), 3], judgement(True, True, True))
    verdict = verify(["assert f(1) == 1", "assert list(f(2)) == [2]", "assert f(3) == 3"], sandbox)
    assert verdict.passed
    assert verdict.parts["compared"] == "judge"
    assert sandbox.asked[1][0] == "judge"
    calls = Scripted([Opaque("Odd")], judgement(True))
    assert verify([{"call": "len(f(1))", "expected": [1, None]}], calls).passed
    assert "assert __expects(len(f(1)), [1, None], 1e-06)" in calls.asked[1][1]


def test_pytest_files() -> None:
    text = "def test_f():\n    assert f(1) == 1\n"
    sandbox = Scripted(judgement(True))
    assert verify(text, sandbox).passed
    assert sandbox.asked[0][1].strip().startswith("from solution import f\n")
    assert verify(text, Scripted(judgement(False))).status is Status.FAILED
    lacking = judgement(complete=False, error="there is no pytest in this sandbox")
    assert verify(text, Scripted(lacking)).status is Status.ERROR


# ----------------------------------------------------------------------------------------------------------- stdio


ROWS = [{"stdin": "1", "stdout": "2\n"}, {"stdin": "2", "stdout": "4\n"}, {"stdin": "1", "stdout": "2"}]


def test_programs_with_input_and_output() -> None:
    sandbox = Scripted(output={"1": "2\n", "2": "4"})
    assert verify(ROWS, sandbox).passed
    assert sandbox.asked == [("run", "1"), ("run", "2")]  # the same input is run once
    verdict = verify(ROWS, Scripted(output={"1": "2\n", "2": "5"}), score="share")
    assert verdict.score == pytest.approx(2 / 3)
    assert verdict.detail == "test 2 of 3 failed: on `2`: got `5`, expected `4`"


def test_a_right_output_with_a_wrong_exit_fails() -> None:
    broken = Execution(1, "2\n", "Traceback\nValueError: x", 0.1)
    verdict = verify(ROWS, Scripted(output={"1": broken}))
    assert verdict.status is Status.FAILED
    assert "it ended with exit code 1: ValueError: x" in verdict.detail


class Checking(Scripted):
    """Plays a checker that says yes to some outputs."""

    def __init__(self, verdicts: Mapping[str, str], printed: str) -> None:
        super().__init__(output={"1": printed})
        self.verdicts = verdicts

    def answer(self, what: str, detail: Any, timeout: float) -> Any:
        nonce = detail.rpartition("print('")[2].partition("'")[0]
        actual = next(actual for actual in self.verdicts if f", {actual!r})" in detail)
        return replace(FINE, stdout=f"{nonce} {self.verdicts[actual]}\n")


CHECKER = "def check(stdin, expected, actual):\n    return True\n"


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ({"out": "yes"}, Status.PASSED),
        ({"out": "no"}, Status.FAILED),
        ({"out": "raised ValueError", "2": "yes"}, Status.FAILED),
        ({"out": "raised ValueError", "2": "raised ValueError"}, Status.ERROR),
        ({"out": "", "2": "no"}, Status.ERROR),
    ],
)
def test_custom_checkers(verdicts: dict[str, str], status: Status) -> None:
    rows = [{"stdin": "1", "stdout": "2"}]
    assert verify(rows, Checking(verdicts, "out"), checker=CHECKER).status is status
    assert verify(rows, Checking(verdicts, "out"), meta={"checker": CHECKER}).status is status


# ------------------------------------------------------------------------------------------------ over a real one


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Any]:
    """Runs what is written in this file, and nothing that a model wrote."""
    from rlvr_sandboxes.unsafe_subprocess import UnsafeSubprocess

    UnsafeSubprocess.warned = True
    made = UnsafeSubprocess()
    yield made
    made.close()


ADD = "def add(a, b):\n    return a + b\n"
STACK = "class Stack:\n    def __init__(self): self.a = []\n    def push(self, x): self.a.append(x)\n"
STACK += "    def pop(self): return self.a.pop()\n    def __len__(self): return len(self.a)\n"


@pytest.mark.parametrize(
    ("program", "tests", "compared"),
    [
        (ADD, "assert add(1, 2) == 3\nassert add('a', 'b') == 'ab'", "host"),
        (ADD, [{"call": "add(1, 2)", "expected": 3}, {"function": "add", "args": [0.1, 0.2], "expected": 0.3}], "host"),
        (ADD, {"inputs": [[1, 2]], "outputs": [[3]], "fn_name": "add"}, "host"),
        (
            "class Solution:\n    def add(self, a, b): return a + b",
            {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"},
            "host",
        ),
        (STACK, "s = Stack()\ns.push(1)\nassert len(s) == 1 and s.pop() == 1", "judge"),
        (ADD, "from solution import add\nx = [1]\nassert add(x, [2]) == [1, 2]\nassert x == [1]", "judge"),
        (ADD, "import solution\nassert solution.add(1, 2) == 3", "judge"),
        ("def g():\n    yield 1\n    yield 2", "assert list(g()) == [1, 2]", "judge"),
        ("def f(p):\n    p.append(1)", "p = []\nf(p)\nassert p == [1]", "judge"),
        ("import sys\nprint(sum(map(int, sys.stdin)))", [{"stdin": "1\n2\n", "stdout": "3"}], "host"),
        ("def f(x):\n    return {x}", "assert f(1) == {1}\nassert sorted(f(2)) == [2]", "host"),
    ],
)
def test_honest_programs_pass(sandbox: Any, program: str, tests: Any, compared: str) -> None:
    verdict = verify(tests, sandbox, program)
    assert verdict.passed, verdict.detail
    assert verdict.parts["compared"] == compared
    assert "flags" not in verdict.parts


@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b):\n    return a - b",
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "def add(a, b):\n    raise SystemExit(0)",
        "class L:\n    def __eq__(self, o): return True\ndef add(a, b):\n    return L()",
        "def add(a, b:\n",
        "print('All tests passed')",
        "add = 3",
    ],
)
@pytest.mark.parametrize("tests", ["assert add(1, 2) == 3", "x = [1]\nassert add(x, [2]) == [1, 2]\nassert x == [1]"])
def test_wrong_programs_fail(sandbox: Any, program: str, tests: str) -> None:
    assert verify(tests, sandbox, program).status is Status.FAILED


def test_humaneval_completions(sandbox: Any) -> None:
    prompt = 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """ Adds up. """\n'
    check = "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n"
    meta = {"prompt": prompt, "entry_point": "total"}
    body = "    return sum(xs)\n"
    whole = "def total(xs: List[int]) -> int:\n    return sum(xs)\n"
    for completion in (body, body.strip(), prompt + body, whole, f"```python\n{whole}```", f"```python\n{body}```"):
        assert verify(check, sandbox, completion, meta=meta).passed, completion
    for completion in ("    return 0\n", "def other(): pass", "pass", prompt):
        assert verify(check, sandbox, completion, meta=meta).status is Status.FAILED, completion


def test_a_custom_checker_in_the_sandbox(sandbox: Any) -> None:
    checker = "def check(stdin, expected, actual):\n    return sorted(actual.split()) == sorted(expected.split())\n"
    rows = [{"stdin": "", "stdout": "1 2"}]
    assert verify(rows, sandbox, "print(2, 1)", checker=checker).passed
    assert not verify(rows, sandbox, "print(2, 2)", checker=checker).passed


def test_gold_and_spoiled_completions(sandbox: Any) -> None:
    samples = [
        Sample("a", answer=ADD, meta={"tests": "assert add(1, 2) == 3"}),
        Sample("b", meta={"tests": [{"stdin": "", "stdout": "1"}], "code": "print(1)"}),
        Sample(
            "c",
            answer="s = '```'\ndef f(n):\n    return n and f(n - 1) + [n] or []",
            meta={"tests": "assert f(2) == [1, 2]"},
        ),
    ]
    assert code.gold is not None
    assert code.spoil is not None
    for sample in samples:
        spoiled = code.spoil(sample)
        assert spoiled is not None
        assert code.fn(Completion(code.gold(sample)), sample, sandbox).passed
        assert code.fn(Completion(spoiled), sample, sandbox).status is Status.FAILED
    assert code.spoil(Sample("d", answer="x = 1", meta={"tests": "assert x == 1"})) is None
