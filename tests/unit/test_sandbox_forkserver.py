"""The host's side of the fork server: what it makes of reports, when it tries again, and a whole one without isolation.

Programs here are harmless: `unsafe-subprocess` holds nothing.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_sandboxes.docker import missing_limits
from rlvr_sandboxes.forkserver import (
    DONE,
    END,
    HEADER,
    HELLO,
    MEMORY,
    NOISE,
    NOTHING,
    OUTPUT,
    OUTPUT_LIMIT,
    RECORD,
    STARVED,
    STDERR,
    STDOUT,
    TIMEOUT,
    UP,
    VERDICT,
    Connection,
    ForkServerSandbox,
    Lost,
    Report,
    execution,
    read_calls,
    read_judgement,
)
from rlvr_sandboxes.unsafe_subprocess import UnsafeSubprocess

import rlvr
from rlvr import Call, CodeSandbox, Opaque, RlvrError, Status

NONCE = "0123456789abcdef"
CALLS = [Call("f(1)"), Call("f(2)", (".pop()", "[0]")), Call("f(3)")]


def report(*records: Any, reason: int = NOTHING, status: int = 0, **streams: bytes) -> Report:
    """A report with these lines in the solution's record."""
    made = Report(status=status, reason=reason, wall=0.5)
    made.streams[RECORD] += UP + lines(*records)
    for kind, data in streams.items():
        made.streams[{"out": STDOUT, "err": STDERR, "verdict": VERDICT, "noise": NOISE}[kind]] += data
    return made


def lines(*records: Any) -> bytes:
    return b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in records)


# ------------------------------------------------------------------------------------------- how a process went


@pytest.mark.parametrize(
    ("reason", "status", "code", "killed_by", "cut"),
    [
        (NOTHING, 0, 0, None, False),
        (NOTHING, 3 << 8, 3, None, False),
        (NOTHING, 255 << 8, 255, None, False),
        (NOTHING, 9, -9, None, False),
        (NOTHING, 11 | 0x80, -11, None, False),
        (NOTHING, 24, None, "timeout", False),
        (NOTHING, -1, None, None, False),
        (TIMEOUT, -1, None, "timeout", False),
        (OUTPUT, -1, None, "output", True),
        (STARVED, -1, None, "starved", False),
        (MEMORY, 9, None, "memory", False),
        (TIMEOUT, 0, None, "timeout", False),
    ],
)
def test_how_a_process_ended(reason: int, status: int, code: int | None, killed_by: str | None, cut: bool) -> None:
    run = execution(report(reason=reason, status=status, out=b"\xff\x00ok", err=b"no"))
    assert (run.exit_code, run.killed_by, run.cut) == (code, killed_by, cut)
    assert (run.stdout, run.stderr, run.duration) == ("\udcff\x00ok", "no", 0.5)


# ------------------------------------------------------------------------------------------------ reading calls


def test_calls_that_ended_well() -> None:
    read = read_calls(
        report(
            {"loaded": True},
            {"value": {"t": [1, 2]}, "used": 0, "flags": []},
            {"value": 7, "used": 2, "flags": []},
            {"raised": "ValueError: no", "used": 0, "flags": ["lying-object"]},
            {"end": True},
        ),
        CALLS,
    )
    assert read.loaded
    assert [(one.value, one.used, one.raised) for one in read.returned] == [
        ((1, 2), 0, None),
        (7, 2, None),
        (None, 0, "ValueError: no"),
    ]
    assert read.flags == ("lying-object",)
    assert read.error == ""


def test_a_program_that_does_not_load() -> None:
    read = read_calls(report({"error": "NameError: " + "x" * 5_000}), CALLS)
    assert (read.loaded, read.returned, read.flags) == (False, (), ())
    assert read.error.startswith("NameError: x")
    assert len(read.error) == 600


@pytest.mark.parametrize("records", [(), ({"loaded": True},), ({"loaded": True}, {"value": 1}, {"value": 1})])
def test_a_program_that_leaves_is_flagged(records: tuple[Any, ...]) -> None:
    read = read_calls(report(*records), CALLS)
    assert read.flags == ("left-early",)
    assert len(read.returned) == max(0, len(records) - 1)
    for reason in (TIMEOUT, OUTPUT, MEMORY):
        assert read_calls(report(*records, reason=reason), CALLS).flags == ()


@pytest.mark.parametrize(
    "forged",
    [
        b'{"value":1}',  # cut before its end
        b'{"value":1\n{"value":1}\n',
        b"\n{}\n",
        b"[]\n" + b'{"value":1}\n',
        b"7\nnull\n",
        b"\xff\xfe\n",
        b'"' + b"x" * 100_000,
        b"[" * 100_000 + b"\n",
        b'{"value":' + b"[" * 5_000 + b"]" * 5_000 + b"}\n",
        b'{"value":' + b"9" * 5_000 + b"}\n",
        b"\0" * 1_000 + b"\n",
    ],
)
def test_what_stands_behind_a_broken_line_does_not_count(forged: bytes) -> None:
    read = read_calls(report({"loaded": True}, forged, {"value": 1}, {"end": True}), CALLS[:1])
    assert read.flags == ("left-early",)
    assert read.returned == ()


@pytest.mark.parametrize("value", [{"o": 1}, {"o": [[[]]]}, {"o": "Liar"}, {"o": "x" * 1_000}])
def test_what_is_not_plain_equals_nothing(value: Any) -> None:
    (one,) = read_calls(report({"loaded": True}, {"value": value}, {"end": True}), CALLS[:1]).returned
    assert isinstance(one.value, Opaque)
    assert len(one.value.type) <= 80
    assert one.value != Opaque(one.value.type)


@pytest.mark.parametrize(
    "record",
    [
        {"value": {"i": 1}},
        {"value": {"=": 0}},
        {"value": {"m": ["Decimal", "1E+999999"]}},
        {"value": {"x": 1}},
        {"value": {"s": [[]]}},
        {"raised": ""},
        {"raised": ["a"]},
        {"raised": "x" * 10_000},
    ],
)
def test_values_that_cannot_cross_count_as_raised(record: Any) -> None:
    (one,) = read_calls(report({"loaded": True}, record, {"end": True}), CALLS[:1]).returned
    assert one.raised
    assert len(one.raised) <= 600
    assert one.value is None


@pytest.mark.parametrize("used", [-1, 3, 10**30, "2", 1.0, None, [2], {"a": 1}])
def test_accessors_that_cannot_have_been_applied(used: Any) -> None:
    read = read_calls(report({"loaded": True}, {"value": 1}, {"value": 1, "used": used}), CALLS)
    assert read.returned[1].used == 0


def test_more_answers_than_calls_are_left_out() -> None:
    read = read_calls(report({"loaded": True}, *({"value": i} for i in range(100)), {"end": True}), CALLS)
    assert [one.value for one in read.returned] == [0, 1, 2]


def test_only_known_flags_are_taken() -> None:
    record = {"value": 1, "flags": [[["x" * 1_000]], "x" * 1_000, {}, 7, "lying-object", *range(1_000)]}
    assert read_calls(report(record, {"end": True}), CALLS[:1]).flags == ("lying-object",)
    assert read_calls(report({"value": 1, "flags": "lying-object"}, {"end": True}), CALLS[:1]).flags == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
WORDS = ["up", "error", "loaded", "end", "value", "used", "flags", "raised"]
WORDS += ["nonce", "passed", "name", "detail", "complete", "stopped"]
records = st.dictionaries(
    st.sampled_from(WORDS),
    json_values,
    max_size=4,
)


@given(st.lists(records | json_values | st.binary(max_size=20), max_size=6))
def test_any_record_is_read(records: list[Any]) -> None:
    read = read_calls(report(*records), CALLS)
    assert len(read.returned) <= len(CALLS)
    found = read_judgement(report(*records, verdict=lines(*records)), NONCE)
    assert not found.complete
    assert not found.checks
    assert found.error


@pytest.mark.parametrize("depth", range(800, 1_000, 10))
@pytest.mark.parametrize("key", ["error", "raised", "flags", "value"])
def test_records_near_the_limit_of_recursion_are_read(key: str, depth: int) -> None:
    deep = b'{"%s":%s%s}\n' % (key.encode(), b"[" * depth, b"]" * depth)
    read_calls(report(deep), CALLS)
    read_judgement(report(deep, verdict=deep), NONCE)


# -------------------------------------------------------------------------------------------- reading judgements


def said(*records: Any, nonce: str = NONCE) -> bytes:
    """What the judge wrote."""
    return lines(*({"nonce": nonce, **r} if isinstance(r, dict) else r for r in records))


PASSED: dict[str, Any] = {"name": "assert f(1) == 1", "passed": True, "detail": ""}
COMPLETE, ENDED = {"complete": True}, {"flags": [], "end": True}


def test_a_judgement_that_is_whole() -> None:
    verdict = UP + said(
        PASSED, {**PASSED, "passed": False, "detail": "no"}, COMPLETE, {"flags": ["swallowed-assert"], "end": True}
    )
    found = read_judgement(report({"loaded": True}, {"end": True}, verdict=verdict, noise=b"printed"), NONCE)
    assert [(c.name, c.passed, c.detail) for c in found.checks] == [
        ("assert f(1) == 1", True, ""),
        ("assert f(1) == 1", False, "no"),
    ]
    assert (found.complete, found.error, found.output, found.flags) == (True, "", "printed", ("swallowed-assert",))


def test_lines_without_the_nonce_are_not_the_judges() -> None:
    forged = [PASSED, COMPLETE, ENDED]
    for nonce in ("", "0" * 16, NONCE[:-1], NONCE.upper()):
        found = read_judgement(report(verdict=UP + said(*forged, nonce=nonce)), NONCE)
        assert (found.complete, found.checks) == (False, ())
        assert found.error == "the judge ended before its time"
    found = read_judgement(report(verdict=UP + lines(*forged)), NONCE)
    assert (found.complete, found.checks) == (False, ())
    found = read_judgement(report(verdict=UP + lines(*({"nonce": [NONCE], **r} for r in forged))), NONCE)
    assert (found.complete, found.checks) == (False, ())


def test_the_solutions_record_is_not_the_judges() -> None:
    whole = said(PASSED, COMPLETE, ENDED)
    found = read_judgement(report(whole, verdict=UP, out=whole, noise=whole), NONCE)
    assert (found.complete, found.checks) == (False, ())


@pytest.mark.parametrize("size", range(0, 190, 7))
def test_a_record_that_is_cut_is_not_complete(size: int) -> None:
    whole = said(PASSED, COMPLETE, ENDED)
    found = read_judgement(report(verdict=UP + whole[:size]), NONCE)
    assert size < len(whole)
    assert not found.complete
    assert found.error == "the judge ended before its time"


def test_both_the_list_and_the_judge_have_to_end() -> None:
    assert not read_judgement(report(verdict=UP + said(PASSED, ENDED)), NONCE).complete
    assert not read_judgement(report(verdict=UP + said(PASSED, COMPLETE)), NONCE).complete
    late = read_judgement(report(verdict=UP + said(PASSED), reason=TIMEOUT, status=-1), NONCE)
    assert (late.complete, late.error, late.execution.killed_by) == (False, "", "timeout")


@pytest.mark.parametrize("passed", [1, "true", None, [True], 1.0])
def test_only_true_is_a_pass(passed: Any) -> None:
    found = read_judgement(report(verdict=UP + said({**PASSED, "passed": passed}, COMPLETE, ENDED)), NONCE)
    assert [check.passed for check in found.checks] == [False]


def test_what_stopped_the_judge() -> None:
    found = read_judgement(report(verdict=UP + said({"stopped": "the tests raised KeyError: 1"}, ENDED)), NONCE)
    assert (found.complete, found.error) == (False, "the tests raised KeyError: 1")
    gone = {"stopped": "the solution's process ended"}
    assert read_judgement(report(verdict=UP + said(gone, ENDED)), NONCE).flags == ("left-early",)
    found = read_judgement(report({"error": "NameError: x"}, verdict=UP + said(gone, ENDED)), NONCE)
    assert (found.error, found.flags) == ("the solution raised NameError: x", ())


# ------------------------------------------------------------------------------------------------------ limits

HELD: dict[str, Any] = {
    "memory": 64 << 20,
    "swap": 0,
    "swap_total": 1_000,
    "pids": 96,
    "cpu": 100_000,
    "capabilities": 0xE0,
    "bounding": 0xE0,
    "no_new_privs": True,
    "engine_seccomp": True,
    "interfaces": ["lo"],
    "read_only": True,
    "alone": True,
}


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({}, set()),
        ({"memory": None}, {"memory"}),
        ({"memory": -1}, {"memory"}),
        ({"memory": 0}, {"memory"}),
        ({"memory": (64 << 20) + 1}, {"memory"}),
        ({"memory": 1}, set()),
        ({"swap": None}, {"swap"}),
        ({"swap": -1}, {"swap"}),
        ({"swap": 65 << 20}, {"swap"}),
        ({"swap": None, "swap_total": 0}, set()),
        ({"pids": -1}, {"pids"}),
        ({"pids": None}, {"pids"}),
        ({"cpu": -1}, {"cpu"}),
        ({"cpu": None}, {"cpu"}),
        ({"capabilities": 0xE1}, {"capabilities"}),
        ({"bounding": 1 << 21 | 0xE0}, {"capabilities"}),
        ({"capabilities": 0}, set()),
        ({"no_new_privs": False}, {"privileges"}),
        ({"engine_seccomp": False}, {"seccomp"}),
        ({"interfaces": ["eth0", "lo"]}, {"network"}),
        ({"interfaces": ["lo", "wlan0"]}, {"network"}),
        ({"interfaces": ["ip6tnl0", "lo", "sit0", "tunl0"]}, set()),
        ({"interfaces": []}, set()),
        ({"read_only": False}, {"read-only"}),
        ({"memory": None, "pids": None, "read_only": False}, {"memory", "pids", "read-only"}),
    ],
)
def test_limits_that_are_missing(changed: dict[str, Any], missing: set[str]) -> None:
    assert missing_limits({**HELD, **changed}, 64 << 20) == missing


def test_the_fork_server_has_to_be_process_one() -> None:
    with pytest.raises(RlvrError, match="not process 1"):
        missing_limits({**HELD, "alone": False}, 64 << 20)


# ------------------------------------------------------------------------------------------------- connections


class Played:
    """A channel that plays what it was given, in pieces of a size, and then ends or stays silent."""

    def __init__(self, *frames: tuple[int, bytes], piece: int = 1 << 20, ends: bool = True) -> None:
        self.data = b"".join(HEADER.pack(kind, len(data)) + data for kind, data in frames)
        self.piece, self.ends = piece, ends
        self.sent = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int, timeout: float) -> bytes:
        if not self.data and not self.ends:
            raise TimeoutError
        n = min(size, self.piece)
        data, self.data = self.data[:n], self.data[n:]
        return data

    def close(self) -> None:
        self.closed = True


GREETING = (HELLO, b'{"python":"3"}')
FINISH = (DONE, END.pack(3 << 8, -1, NOTHING, 1, 2_000_000, 1_000_000, 500_000))


@pytest.mark.parametrize("piece", [1, 3, 1_000])
def test_frames_may_come_in_any_pieces(piece: int) -> None:
    output = [(STDOUT, b"a" * 100), (STDERR, b""), (STDOUT, b"b"), (RECORD, UP)]
    connection = Connection(Played(GREETING, *output, FINISH, piece=piece), time.monotonic() + 5)
    assert connection.facts == {"python": "3"}
    got = connection.run(1, b"payload", b"judge", 1.5, 64)
    assert got.text(STDOUT) == "a" * 100 + "b"
    assert (got.status, got.judge_status, got.reason, got.dirty) == (3 << 8, -1, NOTHING, True)
    assert (got.wall, got.cpu, got.waited) == (2.0, 1.0, 0.5)
    assert isinstance(connection.channel, Played)
    mode, wall, memory, cap, size, judge_size = struct.unpack("!BIIIII", connection.channel.sent[:21])
    assert (mode, wall, memory, cap, size, judge_size) == (1, 1_500, 64, OUTPUT_LIMIT, 7, 5)
    assert connection.channel.sent[21:] == b"payloadjudge"


def test_a_sandbox_that_says_something_else_first() -> None:
    with pytest.raises(Lost, match="did not start"):
        Connection(Played((DONE, b"{}")), time.monotonic() + 5)


@pytest.mark.parametrize(
    ("ends", "words"), [(True, "the sandbox ended"), (False, "the sandbox does not answer")], ids=["ends", "silent"]
)
def test_a_sandbox_that_goes_away(ends: bool, words: str) -> None:
    with pytest.raises(Lost, match=words):
        Connection(Played(ends=ends), time.monotonic() + 5)
    connection = Connection(Played(GREETING, (STDOUT, b"half"), ends=ends), time.monotonic() + 5)
    with pytest.raises(Lost, match=words):
        connection.run(1, b"", b"", 0.1, 64)
    connection = Connection(Played(GREETING), time.monotonic() + 5)

    def hang_up(data: bytes) -> None:
        raise BrokenPipeError("gone")

    connection.channel.send = hang_up  # type: ignore[method-assign]
    with pytest.raises(Lost, match="hung up"):
        connection.run(1, b"", b"", 0.1, 64)


# --------------------------------------------------------------------------------------- retries and refusals

FINE = report({"loaded": True}, {"end": True}, verdict=UP)


class ScriptedConnection(Connection):
    """A connection whose jobs end as they are told to."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.closed = False

    def run(self, mode: int, payload: bytes, judge: bytes, timeout: float, memory_mb: int) -> Report:
        answer = self.script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, Report)
        return answer

    def close(self) -> None:
        self.closed = True


class ScriptedBackend(ForkServerSandbox):
    """A backend that starts, or not, as it is told to."""

    name = "scripted"
    retry_seconds = 0.5

    def __init__(self, *answers: Any, starts: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.answers, self.starts = list(answers), list(starts)
        self.made: list[ScriptedConnection] = []
        self.tried = self.stopped = 0

    def start(self) -> Connection:
        self.tried += 1
        problem = self.starts.pop(0) if self.starts else None
        if problem is not None:
            raise problem
        self.made.append(ScriptedConnection(self.answers))
        return self.made[-1]

    def stop(self) -> None:
        self.stopped += 1


def test_one_connection_serves_many_executions() -> None:
    sandbox = ScriptedBackend(*[FINE] * 5)
    for _ in range(5):
        sandbox.run("")
    assert (sandbox.tried, sandbox.stopped, sandbox.recycled) == (1, 0, 0)
    sandbox.close()
    assert sandbox.made[0].closed
    assert sandbox.stopped == 1


def test_lost_once_is_tried_again() -> None:
    sandbox = ScriptedBackend(Lost("killed"), FINE)
    assert sandbox.run("").exit_code == 0
    assert sandbox.tried == 2
    assert sandbox.made[0].closed
    assert not sandbox.made[1].closed


def test_lost_twice_is_an_error_and_the_next_job_starts_anew() -> None:
    sandbox = ScriptedBackend(Lost("one"), Lost("two"), FINE)
    with pytest.raises(RlvrError, match="`scripted` was lost twice: two") as caught:
        sandbox.call("", [])
    assert "rlvr sandbox check" in caught.value.hint
    assert sandbox.run("").exit_code == 0
    assert sandbox.tried == 3


def test_one_that_starts_late_is_waited_for() -> None:
    sandbox = ScriptedBackend(FINE, starts=(Lost("not yet"), None))
    assert sandbox.run("").exit_code == 0
    assert (sandbox.tried, sandbox.stopped) == (2, 1)


def test_one_that_does_not_start_is_refused_after_a_while_and_then_at_once() -> None:
    sandbox = ScriptedBackend(FINE, starts=(Lost("no engine"),) * 50)
    start = time.monotonic()
    with pytest.raises(RlvrError, match="cannot be started: no engine"):
        sandbox.run("")
    assert time.monotonic() - start < 3
    tried = sandbox.tried
    assert tried >= 2
    start = time.monotonic()
    for _ in range(20):
        with pytest.raises(RlvrError, match="cannot be started: no engine"):
            sandbox.run("")
    assert time.monotonic() - start < 0.3
    assert sandbox.tried == tried
    sandbox.starts.clear()
    time.sleep(0.6)
    assert sandbox.run("").exit_code == 0, "refused for a while only"


def test_an_error_that_no_try_mends_is_passed_on_at_once() -> None:
    sandbox = ScriptedBackend(FINE, starts=(RlvrError("lacks limits", "mend it"),))
    with pytest.raises(RlvrError, match="lacks limits"):
        sandbox.run("")
    assert sandbox.tried == 1
    assert sandbox.run("").exit_code == 0


def test_a_dirty_one_is_replaced_and_its_report_counts() -> None:
    dirty = report({"loaded": True}, {"value": 1}, {"end": True})
    dirty.dirty = True
    sandbox = ScriptedBackend(dirty, FINE)
    assert sandbox.call("", [Call("f()")]).returned[0].value == 1
    assert sandbox.made[0].closed
    assert sandbox.recycled == 1
    sandbox.run("")
    assert sandbox.tried == 2


def test_one_that_is_used_up_is_replaced() -> None:
    sandbox = ScriptedBackend(*[FINE] * 7)
    sandbox.uses = 3
    for _ in range(7):
        sandbox.run("")
    assert (sandbox.tried, sandbox.recycled) == (3, 2)
    assert [one.closed for one in sandbox.made] == [True, True, False]


def test_an_interrupted_job_leaves_no_connection_in_the_middle() -> None:
    sandbox = ScriptedBackend(KeyboardInterrupt(), FINE)
    with pytest.raises(KeyboardInterrupt):
        sandbox.run("")
    assert sandbox.made[0].closed
    sandbox.run("")
    assert sandbox.tried == 2


def test_a_process_that_did_not_start_is_not_the_programs_fault() -> None:
    broken = Report()
    broken.streams[STDERR] += b"rlvr: the sandbox could not start the program: OSError(11)"
    sandbox = ScriptedBackend(broken, FINE)
    with pytest.raises(RlvrError, match="cannot start a process: rlvr: the sandbox could not"):
        sandbox.run("")
    assert sandbox.made[0].closed
    halfway = report({"loaded": True})  # the solution is up, the judge is not
    sandbox = ScriptedBackend(halfway)
    with pytest.raises(RlvrError, match="cannot start a process"):
        sandbox.judge("", "")


# --------------------------------------------------------------------------------- a whole one, without isolation


@pytest.fixture(scope="module")
def unsafe() -> Iterator[UnsafeSubprocess]:
    with closing(UnsafeSubprocess()) as sandbox:
        yield sandbox


def test_it_is_a_code_sandbox_and_says_what_it_is() -> None:
    with closing(UnsafeSubprocess()) as sandbox:
        assert isinstance(sandbox, CodeSandbox)
        assert sandbox.isolation == {"backend": "unsafe-subprocess"}
        assert sandbox.run("print(1)").stdout == "1\n"
        assert {"backend": "unsafe-subprocess", "isolates": "nothing"}.items() <= sandbox.isolation.items()
        folder = Path(sandbox.folder)
        assert folder.exists()
    assert not folder.exists()
    sandbox.close()


def test_programs(unsafe: UnsafeSubprocess) -> None:
    run = unsafe.run("import sys\nprint(input())\nprint(sys.stdin.read(), file=sys.stderr)\n", stdin="a\nb\nc")
    assert (run.stdout, run.stderr, run.exit_code, run.killed_by, run.cut) == ("a\n", "b\nc\n", 0, None, False)
    assert 0 < run.duration < 10
    assert unsafe.run("print(__name__, __file__)").stdout == "__main__ solution.py\n"
    assert "EOFError" in unsafe.run("input()").stderr


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("", 0),
        ("raise SystemExit", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('words')", 1),
        ("import os; os._exit(7)", 7),
        ("raise ValueError('x')", 1),
        ("not python", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6),
        ("import atexit; atexit.register(print, 'late')", 0),
        ("import threading; threading.Thread(target=print, args=('late',)).start()", 0),
    ],
)
def test_exit_codes(unsafe: UnsafeSubprocess, code: str, exit_code: int) -> None:
    run = unsafe.run(code)
    assert (run.exit_code, run.killed_by) == (exit_code, None)
    assert ("late" in run.stdout) is ("late" in code)
    if exit_code == 1:
        assert run.stderr
        assert "rlvr" not in run.stderr


def test_bytes_that_are_no_text_survive(unsafe: UnsafeSubprocess) -> None:
    run = unsafe.run("import sys\nsys.stdout.buffer.write(b'\\xff\\x00\\xc3')\nsys.stderr.buffer.write(b'\\x80')")
    assert run.stdout.encode("utf-8", "surrogateescape") == b"\xff\x00\xc3"
    assert run.stderr == "\udc80"
    echo = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
    assert unsafe.run(echo, stdin="\udcff\u00e9\r\n\0").stdout == "\udcff\u00e9\r\n\0"
    assert unsafe.run("print(input())", stdin="\udcff\n").stdout == "\udcff\n"


def test_much_input(unsafe: UnsafeSubprocess) -> None:
    text = "0123456789\n" * 300_000
    run = unsafe.run("import sys\nprint(len(sys.stdin.read()))", stdin=text)
    assert run.stdout == f"{len(text)}\n"


def test_output_is_cut_and_marked(unsafe: UnsafeSubprocess) -> None:
    run = unsafe.run("while True: print('x' * 10_000)", timeout=10)
    assert (run.killed_by, run.cut, run.exit_code) == ("output", True, None)
    assert OUTPUT_LIMIT - 300_000 < len(run.stdout) <= OUTPUT_LIMIT + 300_000
    run = unsafe.run("import sys\nwhile True: sys.stderr.write('x' * 10_000)", timeout=10)
    assert (run.killed_by, run.cut) == ("output", True)
    whole = unsafe.run("print('x' * 1_000_000)")
    assert (len(whole.stdout), whole.cut) == (1_000_001, False)


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time\ntime.sleep(60)", "import os\nos.fork()\nwhile 1: 1"]
)
def test_the_clock(unsafe: UnsafeSubprocess, code: str) -> None:
    start = time.monotonic()
    run = unsafe.run(f"print('early', flush=True)\n{code}", timeout=0.5)
    assert time.monotonic() - start < 6
    assert run.exit_code is None
    assert run.killed_by in ("timeout", "starved")
    assert "early" in run.stdout
    assert unsafe.run("print(1)").stdout == "1\n"


def test_a_call_and_a_judge_have_a_clock_too(unsafe: UnsafeSubprocess) -> None:
    slow = "def f():\n    while True: pass"
    calls = unsafe.call(slow, [Call("f()")], timeout=0.5)
    assert (calls.loaded, calls.returned, calls.flags) == (True, (), ())
    assert calls.execution.killed_by in ("timeout", "starved")
    judged = unsafe.judge(slow, "assert f()", names=["f"], timeout=0.5)
    assert (judged.complete, judged.checks) == (False, ())
    assert judged.execution.killed_by in ("timeout", "starved")


def test_memory(unsafe: UnsafeSubprocess) -> None:
    run = unsafe.run("x = b'x' * (200 << 20)", memory_mb=100)
    assert run.exit_code == 1
    assert "MemoryError" in run.stderr
    assert unsafe.run("x = b'x' * (200 << 20)", memory_mb=400).exit_code == 0


def test_calls(unsafe: UnsafeSubprocess) -> None:
    code = (
        "import collections\nprint('hello')\nBox = collections.namedtuple('Box', 'x')\n"
        "def f(x):\n    if x < 0: raise ValueError('below')\n    return [Box(x)]\n"
        "class C:\n    def __init__(self): self.held = [3]\n"
        "def g(): return C()\n"
    )
    calls = unsafe.call(
        code, [Call("f(1)"), Call("f(-1)"), Call("g()"), Call("g()", (".held", "[0]")), Call("nope(1)"), Call("1 +")]
    )
    assert calls.loaded
    assert calls.execution.stdout == "hello\n"
    assert (calls.error, calls.flags) == ("", ())
    one, two, three, four, five, six = calls.returned
    assert one.value == [(1,)]
    assert two.raised == "ValueError: below"
    assert isinstance(three.value, Opaque)
    assert three.value.type == "C"
    assert (four.value, four.used) == ([3], 1)
    assert five.raised == "NameError: name 'nope' is not defined"
    assert (six.raised or "").startswith("SyntaxError")
    broken = unsafe.call("1/0", [Call("f(1)")])
    assert (broken.loaded, broken.error, broken.flags) == (False, "ZeroDivisionError: division by zero", ())
    assert "solution.py" in broken.execution.stderr


@pytest.mark.parametrize(
    ("code", "flag"),
    [
        ("import os\nos._exit(0)", "left-early"),
        ("def f(x):\n    import os\n    os._exit(0)", "left-early"),
        ("class L:\n    def __eq__(self, other): return True\ndef f(x): return L()", "lying-object"),
    ],
)
def test_attempts_to_forge_are_flagged(unsafe: UnsafeSubprocess, code: str, flag: str) -> None:
    assert flag in unsafe.call(code, [Call("f(1)")]).flags
    judged = unsafe.judge(code, "assert f(1) == 2", names=["f"])
    assert not (judged.complete and judged.checks and all(check.passed for check in judged.checks))
    assert flag in judged.flags or flag == "lying-object"  # which the judge does not even ask whether it is equal


def test_a_judge(unsafe: UnsafeSubprocess) -> None:
    code = "def f(x):\n    print('working')\n    return x + 1\n"
    tests = "for i in range(3):\n    assert f(i) == i + 1\nassert f(1) == 3, 'three'\nprint('said')\nassert f('a')\n"
    judged = unsafe.judge(code, tests, names=["f"])
    assert judged.complete
    assert judged.error == ""
    assert [check.passed for check in judged.checks] == [True, False, False]
    assert judged.checks[1].detail == "three"
    assert "TypeError" in judged.checks[2].detail
    assert "said" in judged.output
    nothing = unsafe.judge(code, "x = f(1)", names=["f"])
    assert (nothing.complete, nothing.checks) == (True, ())
    faulty = unsafe.judge(code, "import sys\nsys.exit(0)\nassert f(1) == 3", names=["f"])
    assert (faulty.complete, faulty.error) == (False, "the tests ended themselves")
    unloaded = unsafe.judge("1/0", "assert f(1) == 2", names=["f"])
    assert (unloaded.complete, unloaded.error) == (
        False,
        "the solution raised ZeroDivisionError: division by zero",
    )


IN_THREADS = """
import threading
got = []
threads = [threading.Thread(target=lambda: got.append(f(1) == 2)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert all(got)
"""
KEPT = """
got = []
try:
    got.append(f(1) == 2)
except BaseException:
    pass
assert all(got)
"""


@pytest.mark.parametrize("tests", [IN_THREADS, KEPT], ids=["threads", "kept"])
def test_a_solution_that_leaves_does_not_pass_where_the_tests_do_not_notice(
    unsafe: UnsafeSubprocess, tests: str
) -> None:
    judged = unsafe.judge("import os\ndef f(x): os._exit(0)", tests, names=["f"])
    assert not (judged.complete and all(check.passed for check in judged.checks))


PYTEST = """
import pytest
from solution import f

@pytest.mark.parametrize("x", [1, 2])
def test_f(x):
    assert f(x) == x + 1

def test_error():
    with pytest.raises(TypeError):
        f("a")
"""


def test_a_pytest_file(unsafe: UnsafeSubprocess) -> None:
    judged = unsafe.judge("def f(x): return x + 1", PYTEST, kind="pytest", timeout=60)
    assert judged.complete, judged
    assert [(check.name.rpartition("::")[2], check.passed) for check in judged.checks] == [
        ("test_f[1]", True),
        ("test_f[2]", True),
        ("test_error", True),
    ]
    judged = unsafe.judge("def f(x): return 2", PYTEST, kind="pytest", timeout=60)
    assert [check.passed for check in judged.checks] == [True, False, False]


def test_executions_do_not_see_each_other(unsafe: UnsafeSubprocess) -> None:
    unsafe.run(
        "import builtins, json, os\nbuiltins.left = 1\njson.left = 1\nos.environ['LEFT'] = '1'\nopen('left', 'w')"
    )
    seen = unsafe.run(
        "import json, os\nprint('left' in dir(__builtins__) + dir(json) + os.listdir(), 'LEFT' in os.environ)"
    )
    assert seen.stdout == "False False\n"


def test_the_fork_server_that_is_killed_is_replaced(unsafe: UnsafeSubprocess) -> None:
    unsafe.run("")
    assert unsafe.process is not None
    first = unsafe.process.pid
    unsafe.process.kill()
    assert unsafe.run("print(1)").stdout == "1\n"
    assert unsafe.process.pid != first


def test_verify_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with rlvr.Scorer(workers=1, sandbox="unsafe-subprocess") as scorer:
        sample = rlvr.Sample("x", meta={"tests": "assert f(1) == 2"})
        right = scorer.submit("code", rlvr.Completion("def f(x): return x + 1"), sample).result()
        wrong = scorer.submit("code", rlvr.Completion("def f(x): return x"), sample).result()
    assert (right.status, wrong.status) == (Status.PASSED, Status.FAILED)
    assert right.parts["isolation"]["isolates"] == "nothing"
