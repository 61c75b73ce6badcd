"""The scorer against verifiers that misbehave in every way we could think of (`tests/plugins/hostile.py`)."""

from __future__ import annotations

import concurrent.futures
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rlvr import (
    Completion,
    ConfigError,
    MissingDependencyError,
    PluginError,
    Registry,
    Sample,
    Scorer,
    Status,
    UnknownNameError,
    UsageError,
    Verdict,
    api,
    scoring,
    scoring_worker,
)
from rlvr.errors import debugging
from rlvr.registry import SandboxSpec
from rlvr.scoring_worker import as_verdict

HOSTILE = str(Path(__file__).parents[1] / "plugins" / "hostile.py")
SAMPLE = Sample("s-1", answer="yes")


def ask(scorer: Scorer, verifier: str, text: str = "", **more: Any) -> concurrent.futures.Future[Verdict]:
    return scorer.submit(verifier, Completion(text), SAMPLE, **more)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def gone(pid: int) -> bool:
    """Whether there is no such process, but perhaps its zombie, which is its parent's business."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def family() -> set[int]:
    """Every process below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def workers() -> int:
    """How many workers there are besides those of the shared scorer."""
    return len(psutil.Process().children()) - 2


def settled(scorer: Scorer) -> bool:
    """Whether all its workers are there and ready, and no others are on their way out."""
    return len(scorer._staff) == scorer.workers and all(w.ready and not w.doomed for w in scorer._staff)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def script(source: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    if api._shared is not None:  # left by the tests of other modules; a new one takes its place when needed
        api._shared.close()
    with Scorer(workers=2, timeout=20, memory_mb=256, plugins=[HOSTILE]) as shared:
        yield shared


@pytest.fixture
def no_leaks(scorer: Scorer) -> Iterator[None]:
    """Neither processes nor descriptors stay behind. The shared scorer has to be at rest to tell."""
    assert until(lambda: settled(scorer))
    before, others = descriptors(), family()
    yield
    assert family() == others
    assert descriptors() == before


# What a verifier may return, and what it may not


@pytest.mark.parametrize(
    ("verifier", "text", "status", "score", "words"),
    [
        ("fine", "yes", "passed", 1.0, "returned True"),
        ("fine", "no", "failed", 0.0, "returned False"),
        ("score", "1", "passed", 1.0, "score 1"),
        ("score", "0.25", "failed", 0.25, "score 0.25"),
        ("score", "nan", "error", 0.0, "score nan, which is not in [0, 1]"),
        ("score", "inf", "error", 0.0, "score inf"),
        ("score", "1.5", "error", 0.0, "score 1.5"),
        ("score", "-0.1", "error", 0.0, "score -0.1"),
        ("score", "words", "error", 0.0, "ValueError: could not convert string to float: 'words'"),
        ("returns", "int", "passed", 1.0, "score 1"),
        ("returns", "none", "error", 0.0, "`NoneType`"),
        ("returns", "text", "error", 0.0, "`str`"),
        ("returns", "list", "error", 0.0, "`list`"),
        ("returns", "complex", "error", 0.0, "`complex`"),
        ("abstains", "", "abstained", 0.0, "cannot tell"),
        ("raises", "value", "error", 0.0, "ValueError: on purpose, in s-1"),
        ("raises", "exit", "error", 0.0, "SystemExit"),
        ("raises", "interrupt", "error", 0.0, "KeyboardInterrupt"),
        ("raises", "generator", "error", 0.0, "GeneratorExit"),
        ("raises", "memory", "error", 0.0, "ran out of its memory limit of 256 MiB"),
        ("raises-badly", "", "error", 0.0, "Bad"),
        ("recurses", "", "error", 0.0, "RecursionError"),
        ("prints", "", "passed", 1.0, "returned True"),
        ("talks", "set", "error", 0.0, "parts that are not JSON"),
        ("talks", "nan", "error", 0.0, "parts that are not JSON"),
        ("talks", "object", "error", 0.0, "parts that are not JSON"),
        ("talks", "list", "error", 0.0, "parts"),
        ("talks", "big", "error", 0.0, "the limit is 262,144"),
    ],
)
def test_every_outcome_is_a_verdict(
    scorer: Scorer, verifier: str, text: str, status: str, score: float, words: str
) -> None:
    verdict = ask(scorer, verifier, text).result(30)
    assert verdict.status == status
    assert verdict.score == score
    assert words in verdict.detail
    if status == "error":
        assert f"`{verifier}` (file " in verdict.detail, "an error names the verifier and its plugin"
        assert "hostile.py" in verdict.detail


def test_an_exception_brings_its_traceback(scorer: Scorer) -> None:
    traceback = ask(scorer, "raises", "value").result(30).parts["traceback"]
    assert "hostile.py" in traceback
    assert "in raises" in traceback
    assert "scoring_worker" not in traceback, "our own frames are noise"


def test_a_long_detail_is_cut(scorer: Scorer) -> None:
    verdict = ask(scorer, "talks", "detail").result(30)
    assert verdict.passed
    assert len(verdict.detail) < 2_100
    assert verdict.detail.endswith("(498,000 more characters)")


def test_a_completion_and_its_sample_arrive_as_they_were(scorer: Scorer) -> None:
    text = "lone \ud800 surrogate, \0, \u2028, 🙂, \r\n, \\ud83d"
    completion = Completion(text, (0, 151_643, 2**40), (-0.1, -1e-300, -math.pi), "length")
    sample = Sample("id-🙂", [{"role": "user", "content": text}], {"n": [1, 2.5, None]}, {"k": {"deep": [text]}})
    parts = scorer.submit("echo", completion, sample, {"loud": True}).result(30).parts
    assert parts["text"] == text
    assert parts["tokens"] == list(completion.token_ids)
    assert parts["logprobs"] == list(completion.logprobs)
    assert parts["truncated"] is True
    assert (parts["id"], parts["answer"], parts["meta"]) == (sample.id, sample.answer, sample.meta)
    assert parts["prompt"] == sample.prompt
    assert parts["loud"] is True


def test_a_large_completion_travels(scorer: Scorer) -> None:
    text = "long " * 2_000_000
    assert scorer.submit("fine", Completion(text), Sample("s", answer=text)).result(30).passed


def test_nothing_that_verifiers_print_is_seen(scorer: Scorer, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(scorer, "prints").result(30).passed
    assert capfd.readouterr() == ("", "")


def test_debugging_shows_what_verifiers_print_on_stderr() -> None:
    source = f"""
from rlvr import Completion, Sample, Scorer
with Scorer(workers=1, plugins=[{HOSTILE!r}]) as scorer:
    print(scorer.submit("prints", Completion(""), Sample("s")).result().status)
"""
    ran = script(source, env={**os.environ, "RLVR_DEBUG": "1", "PYTHONUTF8": "1"}, errors="replace")
    assert ran.stdout == "passed\n"
    assert ran.stderr.count("garbage") == 40_000


def test_the_duration_is_measured(scorer: Scorer) -> None:
    assert 0.2 <= ask(scorer, "sleeps", "0.2").result(30).duration < 2


# Clocks that kill


@pytest.mark.parametrize("verifier", ["sleeps", "stubborn", "holds-the-lock"])
def test_an_overrun_is_killed(scorer: Scorer, verifier: str) -> None:
    start = time.monotonic()
    verdict = ask(scorer, verifier, timeout=0.3).result(30)
    assert verdict.status is Status.TIMEOUT
    assert verdict.detail == f"`{verifier}` ran past its clock of 0.3 s and was killed"
    assert 0.3 <= verdict.duration <= time.monotonic() - start < 5
    assert ask(scorer, "fine", "yes").result(30).passed


def test_whose_clock_counts(no_leaks: None) -> None:
    with Scorer(workers=1, timeout=0.4, plugins=[HOSTILE]) as scorer:
        assert "clock of 0.4 s" in ask(scorer, "sleeps").result(30).detail
        assert "clock of 0.2 s" in ask(scorer, "quick").result(30).detail
        assert "clock of 0.1 s" in ask(scorer, "quick", timeout=0.1).result(30).detail


def test_a_clock_starts_with_its_verification(scorer: Scorer) -> None:
    waiting = [ask(scorer, "sleeps", "0.25", timeout=0.6) for _ in range(8)]
    assert all(future.result(30).passed for future in waiting)


def test_others_are_not_disturbed(scorer: Scorer) -> None:
    ended: list[str] = []
    bad = [ask(scorer, "sleeps", timeout=1), ask(scorer, "exits"), ask(scorer, "raises", "value")]
    good = [ask(scorer, "fine", "yes") for _ in range(300)]
    for name, futures in (("bad", bad[:1]), ("good", good)):
        for future in futures:
            future.add_done_callback(lambda _, name=name: ended.append(name))
    assert all(future.result(30).passed for future in good)
    assert [future.result(30).status for future in bad] == ["timeout", "error", "error"]
    assert ended.index("bad") == 300, "the sleeper held up nobody"


def test_a_line_behind_a_slow_one_moves_on(scorer: Scorer) -> None:
    for future in [ask(scorer, "fine", "yes") for _ in range(300)]:
        assert future.result(30).passed  # from now on the scorer takes `fine` for fast, and hands out long lines
    futures: list[concurrent.futures.Future[Verdict]] = []

    def submit(_: object) -> None:  # in the scorer's thread, so that one worker gets both sleepers
        for verifier in ("fine", "sleeps", "sleeps", "fine", "fine", "fine"):
            futures.append(ask(scorer, verifier, "yes" if verifier == "fine" else "", timeout=1.5))

    start = time.monotonic()
    ask(scorer, "sleeps", "0.05").add_done_callback(submit)
    assert until(lambda: len(futures) == 6)
    statuses = [future.result(30).status for future in futures]
    assert statuses == ["passed", "timeout", "timeout", "passed", "passed", "passed"]
    assert time.monotonic() - start < 2.9, "the second sleeper did not wait for the first"


def test_a_late_answer_is_a_timeout_however_busy_the_scorer_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_worker, "limit_memory", lambda size: None)  # this is the test's own process
    bench = scoring_worker.Bench([HOSTILE], "", 256)
    packed = scoring_worker.pack_sample(Sample("s"))
    asked = bytearray(scoring_worker.pack_request(7, "sleeps", 0.01, Completion("0.05"), packed, {}))
    line = bytearray(bench.answer(next(scoring_worker.unpack(asked))))
    number, status, score, detail, *_ = next(scoring_worker.unpack(line))
    assert (number, status, score) == (7, "timeout", 0.0)
    assert "past its clock of 0.01 s" in detail


# Batches


def pairs(*texts: str) -> list[tuple[Completion, Sample]]:
    return [(Completion(text), SAMPLE) for text in texts]


def test_a_batch_has_its_verdicts_in_order(scorer: Scorer) -> None:
    texts = ["yes" if number % 3 else "no" for number in range(3 * scoring.LINE_LIMIT + 5)]
    verdicts = scorer.submit_batch("fine", pairs(*texts)).result(60)
    assert [verdict.passed for verdict in verdicts] == [text == "yes" for text in texts]
    assert scorer.submit_batch("fine", []).result(0) == []


def test_one_of_a_batch_that_hangs_or_dies_spoils_no_other(scorer: Scorer) -> None:
    slow = scorer.submit_batch("sleeps", pairs("0", "0", "60", "0", "0"), timeout=0.5).result(60)
    assert [verdict.status for verdict in slow] == ["passed", "passed", "timeout", "passed", "passed"]
    dead = scorer.submit_batch("exits-on", pairs(*"aaaa1aaaa"), {"text": "1"}).result(60)
    assert [verdict.status for verdict in dead] == ["passed"] * 4 + ["error"] + ["passed"] * 4


def test_a_batch_is_checked_before_it_is_queued(scorer: Scorer) -> None:
    with pytest.raises(UnknownNameError):
        scorer.submit_batch("no-such", [])
    with pytest.raises(ConfigError, match="no option `nope`"):
        scorer.submit_batch("fine", pairs("yes"), {"nope": 1})
    with pytest.raises(UsageError, match="s-2"):
        scorer.submit_batch("fine", [*pairs("yes"), (Completion(""), Sample("s-2", answer=object()))])


def test_a_cancelled_batch_is_left_out(no_leaks: None) -> None:
    with Scorer(workers=1, plugins=[HOSTILE]) as own:
        busy = ask(own, "sleeps", "0.3")
        batch = own.submit_batch("sleeps", pairs(*["1"] * 50))
        assert batch.cancel()
        assert busy.result(30).passed
        assert until(lambda: not own.pending, 2)


def test_a_closed_scorer_settles_a_batch(no_leaks: None) -> None:
    with Scorer(workers=1, plugins=[HOSTILE]) as own:
        batch = own.submit_batch("sleeps", pairs("60", "60"))
    assert [verdict.status for verdict in batch.result(0)] == ["error", "error"]


# Workers that die


@pytest.mark.parametrize(
    ("verifier", "text", "words"),
    [
        ("exits", "1", "exit code 1"),
        ("exits", "0", "exit code 0"),
        ("dies", "9", "killed by SIGKILL"),
        ("dies", "11", "killed by SIGSEGV"),
        ("dies", "15", "killed by SIGTERM"),
        ("kills-its-guard", "", "killed by SIGKILL"),
        ("closes", "", "exit code 1"),
        ("forges", "garbage", "no answer"),
        ("forges", "huge", "no answer: a line is too long"),
        ("forges", "not-json", "no answer"),
        ("forges", "spliced", "no answer"),
        ("forges", "wrong-shape", "no answer"),
        ("forges", "nan", "no answer"),
        ("forges", "deep", "no answer"),
    ],
)
def test_a_crash_is_an_error(scorer: Scorer, verifier: str, text: str, words: str) -> None:
    verdict = ask(scorer, verifier, text).result(30)
    assert verdict.status is Status.ERROR
    assert words in verdict.detail
    assert f"`{verifier}` (file " in verdict.detail
    assert ask(scorer, "fine", "yes").result(30).passed


def test_a_stopped_guard_is_killed_itself(monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> None:
    monkeypatch.setattr(scoring, "BURIAL_SECONDS", 0.3)
    with Scorer(workers=1, plugins=[HOSTILE]) as scorer:
        assert ask(scorer, "kills-its-guard", "stop", timeout=0.3).result(30).status is Status.TIMEOUT
        assert ask(scorer, "fine", "yes").result(30).passed


def test_memory_is_limited(scorer: Scorer) -> None:
    verdict = ask(scorer, "eats-memory").result(30)
    assert verdict.status is Status.ERROR
    assert "memory limit of 256 MiB" in verdict.detail
    assert not ask(scorer, "recurses", "deep", timeout=1).result(30).valid
    assert ask(scorer, "fine", "yes").result(30).passed


def test_a_worker_that_has_grown_is_replaced(no_leaks: None) -> None:
    with Scorer(workers=1, memory_mb=128, plugins=[HOSTILE]) as scorer:
        first = ask(scorer, "echo").result(30).parts["pid"]
        verdicts = [future.result(30) for future in [ask(scorer, "leaks", "40") for _ in range(6)]]
        assert all(verdict.passed for verdict in verdicts), "nobody pays for what others left behind"
        assert ask(scorer, "echo").result(30).parts["pid"] != first


def test_a_crash_after_the_answer_spoils_nothing(no_leaks: None) -> None:
    with Scorer(workers=1, plugins=[HOSTILE]) as scorer:
        for _ in range(5):
            assert ask(scorer, "leaves-a-thread").result(30).passed
            time.sleep(0.15)
        assert ask(scorer, "fine", "yes").result(30).passed


@pytest.mark.parametrize(("then", "status"), [("sleep", "timeout"), ("die", "error"), ("return", "passed")])
def test_a_verifiers_children_go_with_its_worker(tmp_path: Path, no_leaks: None, then: str, status: str) -> None:
    with Scorer(workers=1, plugins=[HOSTILE]) as scorer:
        verdict = ask(scorer, "spawns", f"{then} {tmp_path / 'pids'}", timeout=1.5).result(30)
        assert verdict.status == status
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 4
        if then != "return":
            assert until(lambda: all(map(gone, pids)))
    assert all(map(gone, pids)), "close leaves none"


# Workers that do not start


def broken_plugin(folder: Path, in_worker: str) -> str:
    """A plugin file that loads here, and does `in_worker` where verifiers run."""
    path = folder / "half.py"
    path.write_text(
        "import os, sys, time\n"
        "import rlvr\n"
        "if 'rlvr.scoring' not in sys.modules:\n"
        f"    {in_worker}\n"
        "@rlvr.verifier('half')\n"
        "def half(completion, sample):\n"
        "    return True\n"
        "@rlvr.hookimpl\n"
        "def rlvr_verifiers():\n"
        "    return [half]\n"
    )
    return str(path)


@pytest.mark.parametrize(
    ("in_worker", "seconds", "words"),
    [
        ("raise RuntimeError('no GPU')", 20.0, "no worker can be started: rlvr.errors.PluginError"),
        ("os._exit(5)", 20.0, "the worker ended with exit code 5"),
        ("time.sleep(1e6)", 0.5, "no worker can be started: none was ready after 0.5 s"),
    ],
)
def test_workers_that_do_not_start_give_errors_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None, in_worker: str, seconds: float, words: str
) -> None:
    monkeypatch.setattr(scoring, "START_SECONDS", seconds)
    with Scorer(workers=2, plugins=[broken_plugin(tmp_path, in_worker)]) as scorer:
        verdict = ask(scorer, "half").result(30)
        assert verdict.status is Status.ERROR
        assert words in verdict.detail
        assert scorer.outdated
        assert ask(scorer, "half").result(1).status is Status.ERROR


def test_a_system_without_processes_gives_errors(monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> None:
    def refuse(link: int) -> None:
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(scoring, "_start", refuse)
    monkeypatch.setattr(scoring, "RETRY_SECONDS", 0.05)
    with Scorer(workers=2, plugins=[HOSTILE]) as scorer:
        verdict = ask(scorer, "fine", "yes").result(10)
        assert verdict.detail == "no worker can be started: Resource temporarily unavailable"


# What `submit` refuses


def test_unknown_names_are_refused_at_once(scorer: Scorer) -> None:
    with pytest.raises(UnknownNameError, match="no verifier named `fien`") as caught:
        ask(scorer, "fien")
    assert "did you mean `fine`" in caught.value.hint
    with pytest.raises(ConfigError, match="`echo` has no option `load`") as option:
        ask(scorer, "echo", options={"load": True})
    assert "did you mean `loud`" in option.value.hint


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, True])
def test_a_clock_is_above_zero(scorer: Scorer, timeout: float) -> None:
    with pytest.raises(UsageError, match="no clock"):
        ask(scorer, "fine", timeout=timeout)


@pytest.mark.parametrize(
    ("sample", "options"),
    [
        (Sample("s", meta={"x": {1}}), {}),
        (Sample("s", answer=1j), {}),
        (Sample("s"), {"loud": object()}),
    ],
)
def test_what_is_not_json_is_refused(scorer: Scorer, sample: Sample, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"`s` cannot go to the verifier `echo`: .* not JSON serializable"):
        scorer.submit("echo", Completion(""), sample, options)


def test_token_ids_are_numbers(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match="cannot go"):
        scorer.submit("echo", Completion("", ("a",)), SAMPLE)  # type: ignore[arg-type]


def test_arguments_are_checked(tmp_path: Path) -> None:
    for wrong in ({"workers": -1}, {"memory_mb": 0}, {"timeout": 0}):
        with pytest.raises(UsageError):
            Scorer(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        Scorer(sandbox="paper-bag")
    with pytest.raises(PluginError):
        Scorer(plugins=[str(tmp_path / "missing.py")])


# Sandboxes

SANDBOX = """
from pathlib import Path
import rlvr

class Box:
    name = {name!r}
    runs = 0

    def run(self, code, *, stdin="", timeout=10.0, memory_mb=256):
        self.runs += 1
        return rlvr.Execution(0, code.upper(), "", 0.1)

    def close(self):
        Path({log!r}).write_text(f"closed after {{self.runs}}")

@rlvr.sandbox({name!r}, safe={safe})
def make():
    return Box()

@rlvr.hookimpl
def rlvr_sandboxes():
    return [make]
"""


def test_a_sandbox_is_opened_once_and_closed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    plugin = tmp_path / "box.py"
    plugin.write_text(SANDBOX.format(name="test-box", log=str(log), safe=False))
    with Scorer(workers=1, plugins=[HOSTILE, plugin], sandbox="test-box") as scorer:
        assert ask(scorer, "runs-code", "hi").result(30).detail == "test-box printed 'HI'"
        assert ask(scorer, "runs-code", "hi").result(30).parts == {"runs": 2}
    assert log.read_text() == "closed after 2"


def test_a_sandbox_is_only_needed_by_the_samples_that_need_one(tmp_path: Path) -> None:
    plugin = tmp_path / "box.py"
    plugin.write_text(SANDBOX.format(name="test-box", log=str(tmp_path / "log"), safe=False))
    plain, coded = Sample("1", meta={"limit": 3}), Sample("2", meta={"code": "x"})
    with Scorer(workers=1, plugins=[HOSTILE]) as scorer:
        scorer.registry.sandboxes.clear()  # a machine that has none
        scorer.check("may-run-code", samples=[plain])
        verdict = scorer.submit("may-run-code", Completion("x"), plain, {"limit": 5}).result(30)
        assert (verdict.detail, verdict.parts["limit"]) == ("no sandbox", 3)
        for attempt in (
            lambda: scorer.check("may-run-code", samples=[plain, coded]),
            lambda: scorer.submit("may-run-code", Completion("x"), coded),
            lambda: scorer.submit_batch("may-run-code", [(Completion("x"), plain), (Completion("x"), coded)]),
        ):
            with pytest.raises(MissingDependencyError, match="no safe sandbox"):
                attempt()
    with Scorer(workers=1, plugins=[HOSTILE, plugin], sandbox="test-box") as scorer:
        verdict = scorer.submit("may-run-code", Completion("x"), coded, {"limit": 5}).result(30)
        assert (verdict.detail, verdict.parts["limit"]) == ("the sandbox test-box", 5)
        assert scorer.submit("may-run-code", Completion("x"), plain).result(30).detail == "no sandbox"


def sandboxes(**ready: bool | None) -> Registry:
    """Safe sandboxes by name: True runs here, False does not, None never says."""

    def obstacle(name: str) -> Callable[[object], None]:
        def refuse(settings: object) -> None:
            raise MissingDependencyError(f"no {name}", f"install {name}")

        return refuse

    found = {
        name: SandboxSpec(
            name,
            lambda: None,
            ready=None if runs is None else (lambda settings: None) if runs else obstacle(name),  # type: ignore
        )
        for name, runs in ready.items()
    }
    return Registry(sandboxes={"unsafe": SandboxSpec("unsafe", lambda: None, safe=False), **found})  # type: ignore


def test_the_first_safe_sandbox_that_runs_here_is_taken(capsys: pytest.CaptureFixture[str]) -> None:

    def chosen(known: Registry, name: str = "") -> str:
        return scoring.ready_sandbox(known, name, {}, "runs-code")

    assert chosen(sandboxes(best=True, second=True)) == "best"
    assert capsys.readouterr().err == ""
    assert chosen(sandboxes(best=False, second=True)) == "second"
    assert "code runs in the sandbox `second`" in (said := capsys.readouterr().err)
    assert "no best; install best" in said  # a weaker one is never taken in silence
    assert chosen(sandboxes(best=False, plugin=None)) == "plugin"
    assert chosen(sandboxes(best=True), "unsafe") == "unsafe"
    assert "warning: `unsafe` does not hold untrusted code" in capsys.readouterr().err
    with pytest.raises(MissingDependencyError, match="no best"):
        chosen(sandboxes(best=False, second=True), "best")
    with pytest.raises(MissingDependencyError, match="`runs-code` runs code, and there is no safe sandbox") as refused:
        chosen(sandboxes(best=False))
    assert "no best" in refused.value.message
    assert refused.value.hint == "install best"
    with pytest.raises(ConfigError, match="there are several safe sandboxes: `b`, `c`"):
        chosen(sandboxes(b=None, c=None))


@pytest.mark.parametrize(
    ("result", "status", "score"),
    [
        (np.True_, "passed", 1.0),
        (np.False_, "failed", 0.0),
        (np.float32(0.5), "failed", 0.5),
        (np.array(True), "passed", 1.0),
    ],
)
def test_a_numpy_scalar_is_the_value_it_holds(result: Any, status: str, score: float) -> None:
    verdict = as_verdict(result)
    assert (verdict.status, verdict.score) == (status, score)


@pytest.mark.parametrize(("text", "on"), [("", False), ("0", False), ("false", False), ("1", True), ("yes", True)])
def test_what_turns_debugging_on(text: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_DEBUG", text)
    assert debugging() is on


# The scorer's own life


def test_close_settles_everything(no_leaks: None) -> None:
    scorer = Scorer(workers=2, plugins=[HOSTILE])
    assert ask(scorer, "fine", "yes").result(30).passed
    futures = [ask(scorer, "sleeps") for _ in range(5)]
    time.sleep(0.1)
    start = time.monotonic()
    scorer.close()
    assert time.monotonic() - start < 2
    assert {future.result(0).detail for future in futures} == {"the scorer was closed before this was verified"}
    assert {future.result(0).status for future in futures} == {Status.ERROR}
    assert scorer.pending == 0
    scorer.close()
    with pytest.raises(UsageError, match="the scorer is closed"):
        ask(scorer, "fine")


def test_close_at_once(no_leaks: None) -> None:
    for _ in range(3):
        Scorer(workers=2, plugins=[HOSTILE]).close()


def test_a_callback_may_submit_and_close(no_leaks: None) -> None:
    scorer = Scorer(workers=1, plugins=[HOSTILE])
    more: list[concurrent.futures.Future[Verdict]] = []
    ask(scorer, "fine").add_done_callback(lambda _: more.append(ask(scorer, "fine", "yes")))
    assert until(lambda: more and more[0].done())
    assert more[0].result(0).passed
    ask(scorer, "fine").add_done_callback(lambda _: scorer.close())
    assert until(lambda: scorer.outdated)
    scorer.close()


def test_a_cancelled_future_is_left_out(scorer: Scorer) -> None:
    futures = [ask(scorer, "sleeps", "0.2") for _ in range(6)]
    assert futures[-1].cancel()
    assert all(future.result(30).passed for future in futures[:-1])
    assert ask(scorer, "fine", "yes").result(30).passed
    assert until(lambda: scorer.pending == 0)


def test_many_threads(scorer: Scorer) -> None:
    def work(index: int) -> bool:
        return all(ask(scorer, "fine", "yes" if n % 2 else "no").result(30).passed == n % 2 for n in range(40))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_patient_scorer_takes_on_workers_under_backlog(no_leaks: None) -> None:
    with Scorer(workers=3, plugins=[HOSTILE], eager=False) as scorer:
        assert ask(scorer, "fine", "yes").result(30).passed
        assert workers() == 1
        for _ in range(3):
            ask(scorer, "sleeps")
        assert until(lambda: workers() == 3)


def test_a_long_mixed_run_leaves_nothing_behind(tmp_path: Path, no_leaks: None) -> None:
    """One in twenty misbehaves; everyone else is served, and nothing is left of it."""
    bad = [
        ("sleeps", "", "timeout"),
        ("exits", "1", "error"),
        ("raises", "value", "error"),
        ("score", "nan", "error"),
        ("spawns", f"die {tmp_path / 'pids'}", "error"),
        ("eats-memory", "", "error"),
        ("forges", "garbage", "error"),
        ("abstains", "", "abstained"),
    ]
    with Scorer(workers=2, memory_mb=128, timeout=5, plugins=[HOSTILE]) as scorer:
        expected, futures = [], []
        for number in range(800):
            verifier, text, status = bad[number // 20 % len(bad)] if number % 20 == 0 else ("fine", "yes", "passed")
            expected.append(status)
            futures.append(ask(scorer, verifier, text, timeout=0.3 if verifier == "sleeps" else None))
        assert [future.result(60).status for future in futures] == expected
        assert until(lambda: settled(scorer))
        held = len(descriptors())
        for future in [ask(scorer, "exits") for _ in range(4)]:
            future.result(30)
        assert until(lambda: settled(scorer))
        assert len(descriptors()) == held, "descriptors do not grow with replaced workers"
        assert workers() == 2


def test_workers_vanish_with_a_killed_parent(tmp_path: Path) -> None:
    source = f"""
import sys, time
from rlvr import Completion, Sample, Scorer
scorer = Scorer(workers=3, plugins=[{HOSTILE!r}])
scorer.submit("spawns", Completion("sleep {tmp_path / "pids"}"), Sample("s"), timeout=100)
scorer.submit("holds-the-lock", Completion(""), Sample("s"), timeout=100)
print(scorer.submit("echo", Completion(""), Sample("s")).result().parts["pid"], flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        idle = int(parent.stdout.readline())
        assert until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().count(" ") == 3)
        family = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        family += [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert idle in family
        assert len(set(family)) >= 3 * 2 + 3
        parent.send_signal(signal.SIGKILL)
    assert until(lambda: all(map(gone, family)))


def test_an_interrupt_in_the_terminal_spares_the_workers() -> None:
    source = f"""
import os, signal
from rlvr import Completion, Sample, Scorer
with Scorer(workers=1, plugins=[{HOSTILE!r}]) as scorer:
    future = scorer.submit("sleeps", Completion("0.5"), Sample("s"))
    scorer.submit("fine", Completion("x"), Sample("s"))
    try:
        os.killpg(0, signal.SIGINT)  # what a terminal sends on Ctrl-C
        future.result()
    except KeyboardInterrupt:
        print(future.result().status)
"""
    ran = script(source, start_new_session=True)
    assert (ran.stdout, ran.stderr) == ("passed\n", "")


def test_an_abandoned_scorer_ends_with_its_program() -> None:
    source = f"""
from rlvr import Completion, Sample, Scorer
scorer = Scorer(workers=1, plugins=[{HOSTILE!r}])
print(scorer.submit("fine", Completion("x"), Sample("s", answer="x")).result().status)
scorer.submit("sleeps", Completion(""), Sample("s"))
"""
    ran = script(source)
    assert (ran.stdout, ran.stderr, ran.returncode) == ("passed\n", "", 0)


def test_a_forked_child_neither_uses_nor_keeps_the_workers(tmp_path: Path) -> None:
    source = f"""
import os, sys, time, warnings
from rlvr import Completion, Sample, Scorer, UsageError
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
scorer = Scorer(workers=1, plugins=[{HOSTILE!r}])
worker = scorer.submit("echo", Completion(""), Sample("s")).result().parts["pid"]
told, tell = os.pipe()
child = os.fork()
if child == 0:
    try:
        scorer.submit("fine", Completion(""), Sample("s"))
    except UsageError as error:
        os.write(1, (str(error) + chr(10)).encode())  # at once: another process writes to the same file
    scorer.close()
    os.write(tell, b"!")
    time.sleep(100)
status = scorer.submit("fine", Completion("x"), Sample("s", answer="x")).result().status
os.write(1, (" ".join([str(worker), str(child), status]) + chr(10)).encode())
os.read(told, 1)
os._exit(0)  # no close: only the descriptors tell
"""
    output = tmp_path / "output"
    with output.open("w") as file:
        subprocess.run([sys.executable, "-c", source], stdout=file, stderr=file, timeout=60, check=True)
    lines = sorted(output.read_text().splitlines())
    worker, child, status = lines[0].split()
    try:
        assert lines[1:] == ["the scorer belongs to the parent of this process"]
        assert status == "passed"
        assert until(lambda: gone(int(worker)))
        assert not gone(int(child))
    finally:
        os.kill(int(child), signal.SIGKILL)
