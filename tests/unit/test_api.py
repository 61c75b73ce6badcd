"""`rlvr.verify` and `rlvr.verify_batch`: how a call becomes a sample, and from where it may be made."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rlvr
from rlvr import Completion, Registry, Status, UnknownNameError, UsageError, api, verify, verify_batch

HOSTILE = str(Path(__file__).parents[1] / "plugins" / "hostile.py")


@pytest.fixture(autouse=True, scope="module")
def hostile() -> Iterator[None]:
    """The test verifiers in this process's registry, which is as it was afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlvr.registry._current", Registry.load([HOSTILE]))
        yield
        if api._shared is not None:
            api._shared.close()


def run(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script file with warnings as errors."""
    file = folder / "script.py"
    file.write_text(source)
    command = [sys.executable, "-W", "error", "-X", "dev", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_math() -> None:
    assert verify("math", r"so it is \boxed{1/2}", answer="0.5").passed
    verdict = verify("math", r"so it is \boxed{1/3}", answer="0.5")
    assert verdict.status is Status.FAILED
    assert verdict.score == 0
    assert verdict.detail


def test_keywords_find_their_place() -> None:
    parts = verify("echo", "hi", answer="a", prompt="p", loud=True, level=3, name="n", completion="c").parts
    assert (parts["text"], parts["answer"], parts["prompt"], parts["loud"]) == ("hi", "a", "p", True)
    assert parts["meta"] == {"level": 3, "name": "n", "completion": "c"}
    assert parts["id"] == "verify"


def test_a_reference_that_is_also_an_option_belongs_to_the_sample() -> None:
    assert verify("may-run-code", "x", limit=7).parts == {"limit": 7}
    with pytest.raises(UsageError, match="needs `limit`"):
        verify("may-run-code", "x")


def test_a_whole_completion() -> None:
    parts = verify("echo", Completion("hi", (1, 2), (-1.0, -2.0), "length"), answer=None).parts
    assert (parts["text"], parts["tokens"], parts["truncated"]) == ("hi", [1, 2], True)


def test_a_batch_keeps_its_order() -> None:
    pairs = [(str(n), {"answer": str(n if n % 3 else -n)}) for n in range(300)]
    pairs[7] = ("", {"answer": "7"})
    assert [v.passed for v in verify_batch("fine", pairs)] == [text == reference["answer"] for text, reference in pairs]
    assert verify_batch("fine", iter(())) == []


def test_faults_are_verdicts() -> None:
    pairs: list[tuple[str, dict[str, Any]]] = [("1", {}), ("nan", {}), ("x", {})]
    assert [verdict.status for verdict in verify_batch("score", pairs)] == ["passed", "error", "error"]
    assert verify("exits", "3").status is Status.ERROR
    assert verify("quick", "").status is Status.TIMEOUT


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="`echo` needs `answer`") as caught:
        verify("echo", "hi", anwser="42")
    assert "answer=..." in caught.value.hint
    with pytest.raises(UsageError, match="pair 1: the verifier `echo` needs `answer`"):
        verify_batch("echo", [("hi", {"answer": "42"}), ("hi", {})])


@pytest.mark.parametrize("completion", [None, 42, b"bytes", ["list"]])
def test_a_completion_is_text(completion: Any) -> None:
    with pytest.raises(UsageError, match=f"not a `{type(completion).__name__}`"):
        verify("fine", completion)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (7, "pair 0 is a `int`"),
        (("only",), "pair 0 is a `tuple`"),
        (("text", "reference"), "the reference of pair 0 is a `str`"),
        ((None, {}), "pair 0: a completion is text"),
    ],
)
def test_a_batch_is_pairs(pair: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        verify_batch("fine", [pair])


def test_unknown_verifiers_and_what_is_not_json() -> None:
    with pytest.raises(UnknownNameError, match="no verifier named `maths`"):
        verify("maths", "1", answer="1")
    with pytest.raises(UsageError, match="not JSON serializable"):
        verify("fine", "1", answer={1, 2})


def test_from_many_threads() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda n: verify("fine", str(n), answer="3"), range(100)))
    assert [n for n, verdict in enumerate(verdicts) if verdict.passed] == [3]


def test_the_first_call_may_come_from_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_shared", None)
    gate = threading.Barrier(6)

    def call(_: int) -> Any:
        gate.wait()
        return verify("fine", "a", answer="a").passed, api._shared

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = set(pool.map(call, range(6)))
    assert len(results) == 1
    passed, scorer = results.pop()
    assert passed
    scorer.close()


def test_under_asyncio() -> None:
    async def main() -> list[rlvr.Verdict]:
        return await asyncio.gather(
            *(asyncio.to_thread(verify, "fine", str(n), answer="3") for n in range(5)),
            asyncio.to_thread(verify_batch, "fine", []),  # type: ignore[arg-type]
        )

    assert [verdict.passed for verdict in asyncio.run(main())[:5]] == [False, False, False, True, False]
    asyncio.run(_blocking())


async def _blocking() -> None:
    assert verify("fine", "a", answer="a").passed


def test_a_closed_or_outdated_scorer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    verify("fine", "a")
    first = api._shared
    assert first is not None
    first.close()
    assert verify("fine", "a", answer="a").passed
    second = api._shared
    assert second is not None
    assert second is not first
    monkeypatch.setattr("rlvr.registry._current", Registry.load([HOSTILE]))  # as `load_plugin` does
    assert verify("fine", "a", answer="a").passed
    assert api._shared is not second
    assert second.outdated, "it had nothing left to do, so it is closed"


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    ran = run(
        f"""
import asyncio, threading
import rlvr

rlvr.load_plugin({HOSTILE!r})
print("top level", rlvr.verify("fine", "a", answer="a").passed)
thread = threading.Thread(target=lambda: print("thread", rlvr.verify("fine", "a", answer="a").passed))
thread.start()
thread.join()

async def main():
    print("asyncio", rlvr.verify("fine", "a", answer="a").passed)

asyncio.run(main())
""",
        tmp_path,
    )
    assert ran.stderr == ""
    assert ran.stdout == "top level True\nthread True\nasyncio True\n"


def test_a_forked_child_has_its_own_scorer(tmp_path: Path) -> None:
    ran = run(
        f"""
import os, sys, warnings
import rlvr

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
rlvr.load_plugin({HOSTILE!r})
mine = rlvr.verify("echo", "", answer=1).parts["pid"]
child = os.fork()
if child == 0:
    theirs = rlvr.verify("echo", "", answer=1).parts["pid"]
    print("child", theirs != mine, flush=True)
    sys.exit()
os.waitpid(child, 0)
print("parent", rlvr.verify("echo", "", answer=1).parts["pid"] == mine)
""",
        tmp_path,
    )
    assert ran.stderr == ""
    assert ran.stdout == "child True\nparent True\n"


def test_the_import_path_is_the_callers(tmp_path: Path) -> None:
    """A plugin finds in the worker what it finds here, and a stray module in the folder shadows nothing."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("def check(text):\n    return text == 'a'\n")
    (tmp_path / "resource.py").write_text("raise SystemExit('this is not the standard library')\n")
    (tmp_path / "plugin.py").write_text(
        "import helper\n"
        "import rlvr\n"
        "@rlvr.verifier('helped')\n"
        "def helped(completion, sample):\n"
        "    return helper.check(completion.text)\n"
        "@rlvr.hookimpl\n"
        "def rlvr_verifiers():\n"
        "    return [helped]\n"
    )
    source = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r}); import rlvr; rlvr.load_plugin('plugin.py'); "
        "print(rlvr.verify('helped', 'a').status)"
    )
    command = [sys.executable, "-P", "-W", "error", "-c", source]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("passed\n", "")
