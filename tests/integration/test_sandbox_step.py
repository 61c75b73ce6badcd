"""Verifications while containers are killed, the engine restarts, or is gone: a right program never gets `failed`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from rlvr_sandboxes.docker import LABEL, OWNER, Docker
from rlvr_sandboxes.engine import client
from rlvr_sandboxes.image import IMAGE

import rlvr
from rlvr import Completion, MissingDependencyError, RlvrError, Sample, Scorer, Verdict
from rlvr.sampler.transformers import TransformersSampler

pytestmark = pytest.mark.usefixtures("needs_docker")

TABLE = "assert twice(2) == 4\nassert twice('ab') == 'abab'\nassert twice([]) == []\n"
JUDGED = "seen = []\nfor value in (1, 'a'):\n    seen.append(twice(value))\nassert seen == [2, 'aa']\n"
PROGRAM = [{"stdin": "3\n", "stdout": "6\n"}, {"stdin": "-1\n", "stdout": "-2\n"}]
FUNCTION = "import time\ntime.sleep({pause})\ndef twice(x):\n    return x + x\n"
SCRIPT = "import time\ntime.sleep({pause})\nprint(2 * int(input()))\n"

TASK = f"""
from rlvr import Sample, Task, hookimpl

def load(split):
    first = range(10, 50) if split == "train" else range(50, 60)
    return [Sample(f"{{n}}", f"What is {{n}} + {{n}}?", meta={{"tests": {TABLE!r}}}) for n in first]

@hookimpl
def rlvr_tasks():
    return [Task("twice", "code", load)]
"""


def pairs(count: int, pause: float = 0.02) -> list[tuple[Completion, Sample]]:
    """Right programs for each way to judge, which take some time."""
    kinds = ((FUNCTION, TABLE), (FUNCTION, TABLE), (FUNCTION, JUDGED), (SCRIPT, PROGRAM))
    made = []
    for number in range(count):
        source, tests = kinds[number % len(kinds)]
        completion = Completion(f"```python\n{source.format(pause=pause)}```")
        made.append((completion, Sample(f"p{number}", "", meta={"tests": tests})))
    return made


def containers(engine: Any) -> list[Any]:
    """The sandboxes of this test's own workers, of which another process on this machine may have more."""
    below = {str(child.pid) for child in psutil.Process().children(recursive=True)}
    rows = engine.api.containers(filters={"label": LABEL})
    return [row["Id"] for row in rows if row["Labels"].get(OWNER, "").split(":")[-2:][0] in below]


@contextlib.contextmanager
def disturbed(act: Callable[[], None], first: float = 0.3, every: float = 0.7, times: int = 3) -> Iterator[list[int]]:
    """Calls `act` some times while the body runs; how often it did is in the list."""
    done: list[int] = []
    over = threading.Event()

    def run() -> None:
        pause = first
        while len(done) < times and not over.wait(pause):
            act()
            done.append(1)
            pause = every

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def check(verdicts: list[Verdict], missing: int) -> None:
    """No right program has failed, and at most `missing` have no verdict."""
    wrong = [verdict for verdict in verdicts if not verdict.passed]
    assert not [verdict for verdict in wrong if verdict.valid], wrong
    assert len(wrong) <= missing, wrong


# ------------------------------------------------------------------------------------------- a container is killed


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_containers_that_are_ended_from_outside_cost_no_verdict(how: str) -> None:
    with contextlib.closing(client()) as engine, Scorer(workers=2, sandbox="docker") as scorer:
        scorer.submit_batch("code", pairs(4)).result()

        def end_all() -> None:
            for name in containers(engine):
                with contextlib.suppress(Exception):  # it may have ended
                    engine.api.kill(name) if how == "kill" else engine.api.stop(name, timeout=1)

        with disturbed(end_all) as done:
            verdicts = scorer.submit_batch("code", pairs(200)).result(timeout=120)
    assert done
    # An execution is tried on two containers; both may have been hit.
    check(verdicts, missing=2)


def test_a_container_of_the_pool_that_is_killed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="rlvr-") as folder, contextlib.closing(client()) as engine:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        maker = Docker()
        place = maker.add_to_pool()
        maker.close()
        pooled = json.loads((place.folder / "facts.json").read_text())["container"]
        with Scorer(workers=1, sandbox="docker") as scorer:
            scorer.submit_batch("code", pairs(4)).result()
            assert not containers(engine), "the pool's container serves"
            with disturbed(lambda: engine.api.kill(pooled), times=1) as done:
                verdicts = scorer.submit_batch("code", pairs(60)).result(timeout=60)
            assert done
    check(verdicts, missing=0)


def test_a_worker_that_is_killed_takes_its_container_along(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="rlvr-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with contextlib.closing(client()) as engine, Scorer(workers=1, sandbox="docker") as scorer:
        scorer.submit_batch("code", pairs(2)).result()
        [name] = containers(engine)
        owner = engine.api.inspect_container(name)["Config"]["Labels"][OWNER]
        waiting = scorer.submit("code", *pairs(1, pause=20.0)[0])
        time.sleep(0.5)
        os.kill(int(owner.split(":")[-2]), signal.SIGKILL)
        assert waiting.result(timeout=20).status == "error"
        assert gone(engine, name, 10.0)
        check(scorer.submit_batch("code", pairs(8)).result(timeout=60), missing=0)
    assert not [path for path in folder.rglob("*") if path.is_socket() or path.name.startswith("c-")]
    shutil.rmtree(folder)


def gone(engine: Any, name: str, seconds: float) -> bool:
    """Whether nothing is left of a container within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not engine.api.containers(all=True, filters={"id": name}):
            return True
        time.sleep(0.1)
    return False


# ------------------------------------------------------------------------------------- the engine restarts, or is gone


class Engine:
    """A Docker engine of this test's own, which nobody minds being restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "d.sock"
        self.url = f"unix://{self.socket}"
        address = str(folder / "c.sock")
        self.log = (folder / "log").open("wb")
        words = ["containerd", "--root", str(folder / "c"), "--state", str(folder / "s"), "--address", address]
        self.containerd = subprocess.Popen(words, stdout=self.log, stderr=self.log)
        self.command = [
            *("unshare", "--net"),  # it would take the bridge of the machine's own engine away
            "dockerd",
            *("--data-root", str(folder / "d"), "--exec-root", str(folder / "x"), "--pidfile", str(folder / "pid")),
            *("--host", self.url, "--containerd", address, "--cgroup-parent", "rlvr-test"),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--shutdown-timeout", "3"),
        ]
        self.dockerd: subprocess.Popen[bytes] | None = None
        end = time.monotonic() + 20
        while not (folder / "c.sock").exists():
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def start(self) -> None:
        self.dockerd = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 40
        while subprocess.run(["docker", "-H", self.url, "version"], capture_output=True, check=False).returncode:
            assert time.monotonic() < end, self.said()
            assert self.dockerd.poll() is None, self.said()
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.dockerd is not None
        self.dockerd.send_signal(number)
        self.dockerd.wait(60)

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def close(self) -> None:
        if self.dockerd is not None and self.dockerd.poll() is None:
            self.stop()
        self.containerd.terminate()
        self.containerd.wait(20)
        self.log.close()
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for path in sorted((line.split()[1] for line in mounts), reverse=True):
            if path.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", path], check=False)


@pytest.fixture(scope="module")
def loaded() -> Iterator[Engine]:
    """An engine with our image."""
    missing = [name for name in ("dockerd", "containerd", "docker", "unshare") if shutil.which(name) is None]
    if os.getuid() != 0 or missing:
        why = f"a test engine needs {', '.join(missing)}" if missing else "a test engine needs root"
        if os.environ.get("CI", "").lower() in ("", "0", "false", "no", "off"):
            pytest.skip(why)
        pytest.fail(why)
    folder = Path(tempfile.mkdtemp(prefix="rlvr-engine-"))
    engine = Engine(folder)
    try:
        engine.start()
        save = ["docker", "save", "--output", str(folder / "image.tar"), IMAGE]
        subprocess.run(save, check=True)
        subprocess.run(["docker", "-H", engine.url, "load", "--input", str(folder / "image.tar")], check=True)
        yield engine
    finally:
        engine.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_engine(loaded: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine that everything in the test uses, running."""
    if loaded.dockerd is None or loaded.dockerd.poll() is not None:
        loaded.start()
    monkeypatch.setenv("DOCKER_HOST", loaded.url)
    return loaded


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "crashed"])
def test_an_engine_that_restarts_costs_no_verdict(own_engine: Engine, number: int) -> None:
    def restart() -> None:
        own_engine.stop(number)
        own_engine.start()

    with Scorer(workers=2, sandbox="docker") as scorer:
        scorer.submit_batch("code", pairs(4)).result()
        verdicts: list[Verdict] = []
        with disturbed(restart, times=1) as done:
            while not done or len(verdicts) < 200:
                verdicts += scorer.submit_batch("code", pairs(40)).result(timeout=120)
            verdicts += scorer.submit_batch("code", pairs(40)).result(timeout=120)
        check(verdicts, missing=0)
    with contextlib.closing(client()) as engine:
        end = time.monotonic() + 10
        while rows := engine.api.containers(all=True):
            assert time.monotonic() < end, rows
            time.sleep(0.2)


def test_an_engine_that_is_gone_is_an_error_within_a_bound(own_engine: Engine) -> None:
    with Scorer(workers=2, sandbox="docker") as scorer:
        scorer.submit_batch("code", pairs(4)).result()
        own_engine.stop()
        start = time.monotonic()
        verdicts = scorer.submit_batch("code", pairs(64)).result(timeout=120)
        taken = time.monotonic() - start
    late = [verdict for verdict in verdicts if not verdict.passed]
    assert late
    assert {verdict.status for verdict in late} == {"error"}
    assert all("does not answer" in verdict.detail or "docker" in verdict.detail for verdict in late), late[0]
    assert taken < 60, "the wait is once per worker, not once per completion"


def test_a_missing_image_is_refused_before_anything_is_verified() -> None:
    with Scorer(workers=1, sandbox="docker", sandbox_options={"image": "rlvr-there-is-none:1"}) as scorer:
        with pytest.raises(MissingDependencyError, match="there is no image `rlvr-there-is-none:1`") as refused:
            scorer.submit_batch("code", pairs(8))
        assert "rlvr sandbox build" in refused.value.hint


def test_an_image_that_goes_missing_is_an_error_that_says_how_to_build_it() -> None:
    start = time.monotonic()
    sandbox = Docker(image="rlvr-there-is-none:1")
    with closing(sandbox), pytest.raises(RlvrError, match="there is no image `rlvr-there-is-none:1`") as refused:
        sandbox.run("print(1)")
    assert "rlvr sandbox build" in refused.value.hint
    assert time.monotonic() - start < 10


# --------------------------------------------------------------------------------------------------- a training step


class Written:
    """What the sampler wrote: the right programs, and whether there are some hundred of both kinds."""

    def __init__(self) -> None:
        self.right: set[str] = set()
        self.many = threading.Event()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    """Has the sampler write right programs and wrong ones in turn."""
    right, wrong = FUNCTION.format(pause=0.02), FUNCTION.format(pause=0.02).replace("x + x", "x")
    genuine = TransformersSampler.sample
    seen = Written()

    def sample(self: TransformersSampler, *arguments: Any) -> Iterator[tuple[int, Completion]]:
        for number, (index, completion) in enumerate(genuine(self, *arguments)):
            text = f"```python\n# {number}\n{wrong if number % 2 else right}```"
            seen.right.update(() if number % 2 else (text,))
            if number == 100:
                seen.many.set()
            yield index, replace(completion, text=text)

    monkeypatch.setattr(TransformersSampler, "sample", sample)
    return seen


def test_steps_during_which_containers_are_killed_and_the_engine_restarts(
    own_engine: Engine, tmp_path: Path, written: Written
) -> None:
    (tmp_path / "twice.py").write_text(TASK)

    def trouble() -> None:
        written.many.wait(60)
        with contextlib.closing(client()) as engine:
            for name in containers(engine):
                engine.api.kill(name)
        own_engine.stop()
        own_engine.start()

    with disturbed(trouble, first=0.0, times=1) as done:
        run = rlvr.train(
            task="twice",
            plugin=[str(tmp_path / "twice.py")],
            model="starter",
            device="cpu",
            steps=4,
            out=str(tmp_path / "run"),
            sampler={"group_size": 16, "prompts_per_step": 8, "max_tokens": 4, "dynamic": False},
            scorer={"workers": 2, "sandbox": "docker"},
            eval={"limit": 8},
        )
    rows = run.rollouts()
    assert done
    assert len(rows) == 4 * 16 * 8
    for row in rows:
        expected = "passed" if row["completion"] in written.right else "failed"
        assert row["verdict"]["status"] in (expected, "error"), row
    assert sum(step["missing"] for step in run.metrics()) <= 2
