"""Tests with a real vLLM engine, in an environment that has one: `make test-vllm`.

Nothing here stands for vLLM, and where CI is set nothing may be skipped. Whatever process a session starts has to be
gone when it ends; one that is left fails the session.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import os
import platform
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

MARK = "TESTS_VLLM_SESSION"  # in the environment of all that a session starts, with a value of its own
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false", "no", "off")
LINGER = 15.0  # seconds that processes have to end in after the last test
KEPT_BY_PYTHON = "multiprocessing.resource_tracker"  # ends with the process that it belongs to

ENVIRONMENT = {
    MARK: uuid.uuid4().hex,
    "SPT_NOENV": "1",  # vLLM's processes rename themselves, and would overwrite what tells us that they are ours
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines that are bound to the same cores wait for each other
    "OMP_NUM_THREADS": "1",  # the starter's matrices are tiny
}

THEIRS = [  # warnings that vLLM and torch cause between themselves; all others are errors, as in every test
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",
    # A connection to a server that is killed is cancelled half-made, which httpx leaves to the garbage collector; and
    # vLLM's own sockets end with its processes.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
]


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("vllm") is None:
        raise pytest.UsageError("tests/vllm needs vLLM: run `make test-vllm`")
    os.environ.update(ENVIRONMENT)
    for warning in THEIRS:
        config.addinivalue_line("filterwarnings", warning)


def pytest_report_header() -> list[str]:
    """Says what the tests ran with; importing vLLM shows that it loads."""
    import torch
    import vllm
    from vllm.platforms import current_platform

    distribution = importlib.metadata.packages_distributions()["vllm"][0]
    return [
        f"real vLLM engine: {distribution} {vllm.__version__} on {current_platform.device_type}, torch "
        f"{torch.__version__}, transformers {importlib.metadata.version('transformers')}",
        f"machine: {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.machine()}; "
        + ("CI is set: nothing may be skipped" if IN_CI else "CI is not set"),
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may be: {report.longrepr}"
    return report


def ours() -> list[psutil.Process]:
    """Processes that these tests started, and that are still there; however deep, and whoever is their parent now."""
    found = []
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            is_ours = process.pid in children or process.environ().get(MARK) == ENVIRONMENT[MARK]
            if is_ours and KEPT_BY_PYTHON not in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails a session that leaves a process, of vLLM or of ours, and ends it."""
    yield
    deadline = time.monotonic() + LINGER
    while (left := ours()) and time.monotonic() < deadline:
        time.sleep(0.2)
    names = [f"{process.pid} {' '.join(process.cmdline())[:100]}" for process in left]
    for process in left:
        process.kill()
    assert not left, f"processes that outlive their tests: {names}"


@pytest.fixture(autouse=True)
def sockets_end_with_their_test() -> Iterator[None]:
    """Collects what a test leaves while the filters above hold, which after the last test they do not."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def starter() -> str:
    """Folder of the starter model."""
    from rlvr.learner.policy import model_path

    return model_path("starter")
