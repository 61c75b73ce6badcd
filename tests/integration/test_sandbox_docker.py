"""The sandboxes that isolate, for real: what a program can do in them, what it leaves, and verdicts end to end."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from rlvr_sandboxes import docker as docker_module
from rlvr_sandboxes import pool
from rlvr_sandboxes.bubblewrap import Bubblewrap, check_ready
from rlvr_sandboxes.docker import Docker
from rlvr_sandboxes.engine import client
from rlvr_sandboxes.forkserver import OUTPUT_LIMIT, ForkServerSandbox
from rlvr_sandboxes.places import places

import rlvr
from rlvr import Call, Completion, RlvrError, Sample, Status, Verdict


def by_streams() -> Docker:
    """The sandbox as it is with a remote engine: it talks over the container's standard streams."""
    made = Docker()
    made.by_streams = True
    return made


MAKERS: dict[str, Callable[[], ForkServerSandbox]] = {
    "docker": Docker,
    "streams": by_streams,
    "bubblewrap": Bubblewrap,
}


@pytest.fixture(scope="module", params=MAKERS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each of the sandboxes that isolate."""
    if request.param == "bubblewrap":
        if shutil.which("bwrap") is None:
            pytest.skip("there is no bubblewrap")
        check_ready()
    else:
        request.getfixturevalue("needs_docker")
    with closing(MAKERS[request.param]()) as made:
        yield made


@pytest.fixture
def container(needs_docker: None) -> Iterator[Docker]:
    """A container that no other test uses."""
    with closing(Docker()) as made:
        yield made


def said(sandbox: Any, code: str, **options: Any) -> Any:
    """What a program prints, as the value that it is the JSON of."""
    run = sandbox.run(code, **options)
    assert run.exit_code == 0, run
    return json.loads(run.stdout)


# --------------------------------------------------------------------------------------------------- isolation

FACTS = """
import json, os, resource, socket

def status(name):
    return [line.split()[1] for line in open('/proc/self/status') if line.startswith(name)][0]

def writable(folder):
    try:
        open(os.path.join(folder, 'probe'), 'w').close()
        return True
    except OSError:
        return False

def reaches(address):
    try:
        socket.create_connection(address, 1).close()
        return True
    except OSError:
        return False

def alive():
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            os.kill(int(pid), 0)
            found.append(int(pid))
        except OSError:
            pass
    return found

print(json.dumps({
    'users': os.getresuid() + os.getresgid(),
    'groups': os.getgroups(),
    'capabilities': [int(status(name), 16) for name in ('CapEff', 'CapPrm', 'CapAmb')],
    'no_new_privs': status('NoNewPrivs'),
    'seccomp': status('Seccomp'),
    'interfaces': [line.split(':')[0].strip() for line in list(open('/proc/net/dev'))[2:]],
    'reaches': [reaches(a) for a in (('192.0.2.1', 53), ('172.17.0.1', 22), ('1.1.1.1', 443))],
    'writable': [f for f in ('/', '/usr', '/etc', '/lib', '/bin', '/opt', '/root', '/home', '/rlvr') if writable(f)],
    'home': writable('.') and writable(os.path.expanduser('~')),
    'may signal': alive() == [os.getpid()],
    'leader': os.getsid(0) == os.getpid(),
    'descriptors': sorted(map(int, os.listdir('/proc/self/fd')))[:-1],
    'files': resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    'size': resource.getrlimit(resource.RLIMIT_FSIZE)[1],
    'cores': resource.getrlimit(resource.RLIMIT_CORE)[1],
    'socket': os.path.exists('/var/run/docker.sock'),
}))
"""


def test_what_a_program_finds(sandbox: Any) -> None:
    facts = said(sandbox, FACTS)
    users = set(facts.pop("users"))
    assert len(users) == 1
    assert users.pop() >= 20_000
    assert facts == {
        "groups": [],
        "capabilities": [0, 0, 0],
        "no_new_privs": "1",
        "seccomp": "2",
        "interfaces": ["lo"],
        "reaches": [False, False, False],
        "writable": [],
        "home": True,
        "may signal": True,
        "leader": True,
        "descriptors": [0, 1, 2],
        "files": 256,
        "size": 32 << 20,
        "cores": 0,
        "socket": False,
    }


def test_every_execution_has_a_user_of_its_own(sandbox: Any) -> None:
    code = "import os\nassert len({*os.getresuid(), *os.getresgid()}) == 1\nprint(os.getuid())"
    users = [said(sandbox, code) for _ in range(6)]
    users += [sandbox.call("import os", [Call("os.getuid()")]).returned[0].value for _ in range(3)]
    assert len(set(users)) == len(users)
    assert all(user >= 20_000 for user in users)


def test_the_judge_and_the_solution_have_different_users(sandbox: Any) -> None:
    tests = "import os\nmine = os.getuid()\nassert mine >= 20_000\nassert user() >= 20_000\nassert user() != mine\n"
    tests += "assert pid() != os.getpid()\nassert not can_read(os.getpid())\n"
    code = (
        "import os\ndef user(): return os.getuid()\ndef pid(): return os.getpid()\n"
        "def can_read(pid):\n    try: return bool(open('/proc/%d/environ' % pid, 'rb').read(1))\n"
        "    except OSError: return False\n"
    )
    judged = sandbox.judge(code, tests, names=["user", "pid", "can_read"])
    assert judged.complete, judged
    assert [check.passed for check in judged.checks] == [True] * 5, judged


def test_the_host_is_not_to_be_seen(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="rlvr-bait-", dir=tempfile.gettempdir()) as bait:
        bait.write("SECRET-OF-THE-HOST")
        bait.flush()
        code = (
            f"import json, os\nprint(json.dumps([os.path.exists({bait.name!r}), 'PYTEST_CURRENT_TEST' in os.environ]))"
        )
        assert said(sandbox, code) == [False, False]


# ------------------------------------------------------------------------------------------ one after the other

LITTER = """
import os, socket, subprocess, sys, time
for folder in ('/tmp', '/dev/shm', '.'):
    deep = folder
    for part in range(30):
        deep = os.path.join(deep, 'left%d' % part)
        os.mkdir(deep)
        open(os.path.join(deep, 'file'), 'w').write('left')
    os.symlink('/etc', os.path.join(folder, 'left-link'))
    open(os.path.join(folder, '-rf left\\n'), 'w').close()
    os.mkdir(os.path.join(folder, 'left-shut'))
    open(os.path.join(folder, 'left-shut', 'file'), 'w').close()
    os.chmod(os.path.join(folder, 'left-shut'), 0)
    os.mkfifo(os.path.join(folder, 'left-pipe'))
server = socket.socket(socket.AF_UNIX)
server.bind('/tmp/left-socket')
abstract = socket.socket(socket.AF_UNIX)
abstract.bind('\\0left')
abstract.listen()
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
print('done', flush=True)
"""

LOOK = """
import json, os, socket
found = []
for folder in ('/tmp', '/dev/shm', '/var/tmp', '/run', '.'):
    try:
        found += [folder + '/' + name for name in os.listdir(folder) if not name.startswith('run-')]
    except OSError:
        pass
processes = [int(pid) for pid in os.listdir('/proc') if pid.isdigit()]
try:
    socket.socket(socket.AF_UNIX).connect('\\0left')
    found.append('socket')
except OSError:
    pass
print(json.dumps([found, sorted(processes) == [1, os.getpid()] or processes, len(os.listdir('/tmp'))]))
"""


def test_nothing_is_left_behind(sandbox: Any) -> None:
    before = said(sandbox, LOOK)
    assert before == [[], True, 1]
    recycled = sandbox.recycled
    run = sandbox.run(LITTER)
    assert run.stdout == "done\n", run
    assert said(sandbox, LOOK) == before
    assert sandbox.recycled == recycled, "it was cleaned, not thrown away"


POISON = """
import builtins, heapq, json, os, random, sys
# SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42SECRET42
for module in (builtins, heapq, json, random):
    module.left = 1
json.dumps = heapq.heappush = len
builtins.sorted = print
sys.setrecursionlimit(200)
os.environ['LEFT'] = '1'
sys.path.insert(0, '/tmp')
open('/tmp/heapq.py', 'w').write('left = 1')
held = [('SECRET' + str(42)) * 100 for _ in range(1000)]
print(held)
def f():
    return held
"""

SCAN = """
import builtins, ctypes, heapq, json, os, random, sys
seen = [module.__name__ for module in (builtins, heapq, json, random) if hasattr(module, 'left')]
if 'LEFT' in os.environ or '/tmp' in sys.path or sys.getrecursionlimit() < 900 or sorted([2, 1]) != [1, 2]:
    seen.append('settings')
needle = bytes(reversed(b'24TERCES'))
for line in open('/proc/self/maps'):
    span, mode = line.split()[:2]
    if mode.startswith('rw') and '[v' not in line:
        first, last = (int(part, 16) for part in span.split('-'))
        if ctypes.string_at(first, last - first).count(needle) > 5:
            seen.append(line)
print(json.dumps(seen))
"""


def test_two_executions_in_a_row_do_not_see_each_other(sandbox: Any) -> None:
    found = sandbox.run(POISON + SCAN.replace("json.dumps", "repr"))
    assert " rw-p " in found.stdout, "the scan finds what is there"
    assert said(sandbox, SCAN) == []
    sandbox.call(POISON, [Call("f()")])
    assert said(sandbox, SCAN) == []
    sandbox.judge(POISON, "assert len(f()) == 1000", names=["f"])
    assert said(sandbox, SCAN) == []


# -------------------------------------------------------------------------------------------------------- limits


def test_output_that_is_cut_is_marked(sandbox: Any) -> None:
    run = sandbox.run("while True: print('x' * 10_000)", timeout=10)
    assert (run.killed_by, run.cut, run.exit_code) == ("output", True, None)
    assert OUTPUT_LIMIT - 300_000 < len(run.stdout) <= OUTPUT_LIMIT + 300_000
    whole = sandbox.run("import sys\nsys.stdout.buffer.write(b'\\xff' * 1_000_000)")
    assert (whole.stdout, whole.cut, whole.exit_code) == ("\udcff" * 1_000_000, False, 0)


def test_clocks(sandbox: Any) -> None:
    for code in ("while True: pass", "import time\ntime.sleep(60)", "import signal\nsignal.pause()"):
        start = time.monotonic()
        run = sandbox.run(code, timeout=0.5)
        assert time.monotonic() - start < 5
        assert run.killed_by in ("timeout", "starved")
        assert run.exit_code is None


def test_address_space_is_limited(sandbox: Any) -> None:
    run = sandbox.run("x = b'x' * (300 << 20)", memory_mb=200)
    assert (run.exit_code, run.killed_by) == (1, None)
    assert "MemoryError" in run.stderr


def test_memory_of_a_container_that_is_used_up_is_memory(container: Docker) -> None:
    run = container.run("x = b'x' * (1200 << 20)", timeout=20, memory_mb=2_000)
    assert (run.killed_by, run.exit_code) == ("memory", None), run
    assert container.run("print(1)").stdout == "1\n"
    family = "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        x = b'x' * (400 << 20)\n"
    family += "        time.sleep(2)\n        os._exit(0)\nprint([os.wait()[1] for _ in range(3)])"
    run = container.run(family, timeout=20)
    assert run.killed_by == "memory" or "9" in run.stdout, "together they may have no more than one alone"
    assert container.run("print(1)").stdout == "1\n"
    assert container.recycled == 0


def test_processes_are_limited(container: Docker) -> None:
    code = (
        "import os, time\nn = 0\ntry:\n    while n < 500:\n        if os.fork() == 0:\n            time.sleep(9)\n"
        "            os._exit(0)\n        n += 1\nexcept OSError:\n    pass\nprint(n)"
    )
    assert 5 < said(container, code) < 96
    assert container.run("print(1)").stdout == "1\n"


def test_a_limit_that_is_missing_is_an_error_unless_it_is_allowed(
    needs_docker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Docker.create

    def lax(self: Docker, *args: Any, **options: Any) -> str:
        """A container with a capability more than the check knows of."""
        with monkeypatch.context() as patch:
            patch.setattr(docker_module, "CAPABILITIES", {"SETUID": 7, "SETGID": 6, "KILL": 5, "CHOWN": 0})
            return create(self, *args, **options)

    monkeypatch.setattr(Docker, "create", lax)
    with closing(Docker()) as sandbox, pytest.raises(RlvrError, match="lacks limits") as caught:
        sandbox.run("print(1)")
    assert "`capabilities`" in caught.value.message
    assert "--sandbox.allow capabilities" in caught.value.hint
    with closing(Docker(allow=["capabilities"])) as sandbox:
        assert sandbox.run("print(1)").stdout == "1\n"
        assert sandbox.isolation["missing"] == ["capabilities"]
        assert said(sandbox, FACTS)["capabilities"] == [0, 0, 0], "executions have none all the same"


def test_an_image_that_is_missing_is_an_error_that_says_so(needs_docker: None) -> None:
    with closing(Docker("rlvr-there-is-none:9")) as sandbox:
        sandbox.retry_seconds = 0.3
        with pytest.raises(RlvrError, match="there is no image `rlvr-there-is-none:9`"):
            sandbox.run("print(1)")


def test_a_container_ends_with_its_sandbox(needs_docker: None) -> None:
    with closing(client()) as engine:
        sandbox = Docker()
        sandbox.run("")
        identifier = sandbox.container
        assert identifier
        assert engine.api.inspect_container(identifier)["State"]["Running"]
        sandbox.close()
        assert gone(engine, identifier)


def gone(engine: Any, identifier: str) -> bool:
    """Whether a container has ended, or does within some seconds."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        if not any(row["Id"] == identifier for row in engine.api.containers(all=True)):
            return True
        time.sleep(0.1)
    return False


def test_one_that_is_used_up_is_replaced(container: Docker) -> None:
    container.uses = 2
    names = []
    for _ in range(4):
        names.append(container.container)
        assert container.run("print(1)").stdout == "1\n"
    assert container.recycled == 2


# ---------------------------------------------------------------------------------------------------- end to end

DOUBLE = "def double(x):\n    return x + x\n"
CHECKER = "def check(stdin, expected, actual):\n    return sorted(actual.split()) == sorted(expected.split())\n"
PYTEST = "import pytest\nfrom solution import double\n\n"
PYTEST += "@pytest.mark.parametrize('x', [1, 'a'])\ndef test_it(x):\n    assert double(x) == 2 * x\n"
LINES = [{"stdin": "3\n", "stdout": "6\n"}, {"stdin": "-1\n", "stdout": "-2\n"}]

KINDS: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("asserts", DOUBLE, "return x + x + x", {"tests": "assert double(2) == 4\nassert double('a') == 'aa'"}, "host"),
    ("list", DOUBLE, "return x", {"tests": ["assert double(2) == 4", "assert double([]) == []"]}, "host"),
    (
        "judged",
        DOUBLE,
        "return x",
        {"tests": "seen = []\nfor x in (1, 'a'):\n    seen.append(double(x))\nassert seen == [2, 'aa']"},
        "judge",
    ),
    (
        "humaneval",
        DOUBLE,
        "return 4",
        {
            "tests": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 6\n",
            "entry_point": "double",
        },
        "host",
    ),
    (
        "calls",
        DOUBLE,
        "return 4",
        {"tests": [{"call": "double(2)", "expected": 4}, {"function": "double", "args": [1.5], "expected": 3.0}]},
        "host",
    ),
    ("stdio", "print(2 * int(input()))", "print(6)", {"tests": LINES}, "host"),
    (
        "checker",
        "print(*reversed(range(int(input()))))",
        "print(0)",
        {"tests": [{"stdin": "3\n", "stdout": "0 1 2\n"}], "checker": CHECKER},
        "host",
    ),
    ("pytest", DOUBLE, "return 2", {"tests": PYTEST}, "judge"),
]


@pytest.fixture(scope="module")
def verify(needs_docker: None) -> Iterator[Callable[..., Verdict]]:
    """`rlvr.verify`, in containers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLVR_SCORER_SANDBOX", "docker")
        patch.setenv("RLVR_SCORER_WORKERS", "1")
        patch.setattr("rlvr.api._shared", None)
        yield rlvr.verify
        shared = rlvr.api._shared
        if shared is not None:
            shared.close()


@pytest.mark.parametrize(("kind", "right", "wrong", "given", "compared"), KINDS, ids=[kind[0] for kind in KINDS])
def test_verdicts(
    verify: Callable[..., Verdict], kind: str, right: str, wrong: str, given: dict[str, Any], compared: str
) -> None:
    passed = verify("code", f"Here it is:\n```python\n{right}\n```\n", timeout=30, **given)
    assert (passed.status, passed.score) == (Status.PASSED, 1.0), passed
    body = wrong if "return" not in wrong else f"def double(x):\n    {wrong}\n"
    failed = verify("code", body, timeout=30, **given)
    assert (failed.status, failed.score) == (Status.FAILED, 0.0), failed
    for verdict in (passed, failed):
        assert verdict.parts["compared"] == compared, verdict
        isolation = verdict.parts["isolation"]
        assert isolation["backend"] == "docker"
        assert isolation["image"] == "rlvr-sandbox:1"
        assert isolation["network"] == "none"
        assert {"memory_mb", "pids", "cpus", "seccomp", "runtime", "python"} <= set(isolation)
        assert "flags" not in verdict.parts
    assert "first_failed" in failed.parts


@pytest.mark.parametrize(
    ("completion", "flag"),
    [
        ("import os\nos._exit(0)", "left-early"),
        ("import sys\ndef double(x):\n    import os\n    os._exit(0)", "left-early"),
        ("class A:\n    def __eq__(self, o): return True\ndef double(x): return A()", "lying-object"),
        ("print('PASSED')\nprint('OK')\ndef double(x): return 0", "printed-marker"),
        (
            "import os\nfor fd in range(3, 9):\n    try:\n        "
            'os.write(fd, b\'{"value":4,"used":0}\\n{"end":true}\\n\')\n'
            "    except OSError: pass\nos._exit(0)",
            "",
        ),
    ],
    ids=["load", "call", "liar", "marker", "record"],
)
def test_attempts_to_forge_fail_and_are_flagged(verify: Callable[..., Verdict], completion: str, flag: str) -> None:
    verdict = verify("code", completion, tests="assert double(2) == 5\nassert double(3) == 7")
    assert verdict.status is Status.FAILED, verdict
    assert not flag or flag in verdict.parts["flags"]


def test_limits_are_failures_that_name_the_limit(verify: Callable[..., Verdict]) -> None:
    for body, limit in (
        ("while True: pass", "timeout"),
        ("while True: print('x' * 10_000)", "output"),
        ("import os\n    b'x' * (900 << 20)", "memory"),
    ):
        options = {"memory_mb": 2_000} if limit == "memory" else {}
        timeout = 1 if limit == "timeout" else 20
        code = f"def double(x):\n    {body}"
        verdict = verify("code", code, tests="assert double(2) == 4", timeout=timeout, **options)
        assert (verdict.status, verdict.parts.get("limit")) == (Status.FAILED, limit), verdict


KINDS_HELD = [kind for kind in KINDS if kind[0] != "pytest"]


@pytest.mark.parametrize(("kind", "right", "wrong", "given", "compared"), KINDS_HELD, ids=[k[0] for k in KINDS_HELD])
def test_all_that_isolate_agree(
    sandbox: Any, kind: str, right: str, wrong: str, given: dict[str, Any], compared: str
) -> None:
    spec = rlvr.registry.registry().verifier("code")
    body = wrong if "return" not in wrong else f"def double(x):\n    {wrong}\n"
    for completion, status in ((right, Status.PASSED), (body, Status.FAILED)):
        options = {key: value for key, value in given.items() if key in spec.options}
        meta = {key: value for key, value in given.items() if key not in spec.options}
        verdict = spec.fn(Completion(completion), Sample("x", meta=meta), sandbox, **options)
        assert isinstance(verdict, Verdict)
        assert verdict.status is status, verdict
        assert verdict.parts["compared"] == compared
        assert verdict.parts["isolation"] == sandbox.isolation
        assert verdict.parts["isolation"]["backend"] == sandbox.name


def test_values_arrive_alike(sandbox: Any) -> None:
    code = (
        "from fractions import Fraction\ndef f(): return [1, 'a', {2: (3,)}, Fraction(1, 3), float('nan'), 10**400]\n"
    )
    calls = sandbox.call(code, [Call("f()"), Call("f().x"), Call("f().__iter__()")])
    assert calls.returned[0].value[:4] == [1, "a", {2: (3,)}, __import__("fractions").Fraction(1, 3)]
    assert calls.returned[0].value[5] == 10**400
    assert (calls.returned[1].raised or "").startswith("AttributeError")
    assert calls.returned[2].value.type == "list_iterator"
    assert calls.flags == ()


def test_much_goes_over_the_channel(sandbox: Any) -> None:
    text = "0123456789\n" * 200_000
    run = sandbox.run("import sys\nsys.stdout.write(sys.stdin.read())", stdin=text)
    assert run.stdout == text
    code = "def f():\n    return 1\n" + "# a long comment\n" * 100_000
    assert sandbox.call(code, [Call("f()")] * 500).returned[-1].value == 1


# ---------------------------------------------------------------------------------------------------------- pool


@pytest.fixture
def own_pool(needs_docker: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pool of this test's own, so that nobody else's is ended."""
    with tempfile.TemporaryDirectory(prefix="rlvr-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        mark = f"pool-of-{folder.rpartition('/')[2]}"
        monkeypatch.setattr(docker_module, "POOL", mark)
        monkeypatch.setattr(pool, "POOL", mark)
        yield
        with contextlib.suppress(Exception):
            pool.down()


def rows(kind: str = "pool") -> list[pool.Row]:
    return [row for row in pool.status() if row.kind == kind]


def test_the_pool_comes_up_is_used_and_goes_down(own_pool: None) -> None:
    assert [row.state for row in pool.up(2, Docker()) if row.kind == "pool"] == ["idle", "idle"]
    started = {row.container for row in rows()}
    pool.up(2, Docker())
    assert {row.container for row in rows()} == started, "two are enough"
    for _ in range(2):
        with closing(Docker()) as one, closing(Docker()) as two, closing(Docker()) as third:
            users = {said(sandbox, "import os\nprint(os.getuid())") for sandbox in (one, two)}
            assert len(users) == 2
            assert {one.place is not None, two.place is not None} == {True}
            assert [row.state for row in rows()] == ["busy", "busy"]
            assert third.run("print(1)").stdout == "1\n"
            assert third.place is None
            assert third.container[:12] not in started, "both are taken, so it starts one of its own"
            assert one.isolation == third.isolation
        assert [row.state for row in rows()] == ["idle", "idle"]
    with closing(Docker(memory_mb=512)) as other:
        other.run("")
        assert other.place is None, "those of the pool are not what it wants"
    with closing(Docker()) as again:
        again.run(LITTER)
        assert said(again, LOOK) == [[], True, 1]
    with closing(client()) as engine:
        assert pool.down() == 2
        assert all(gone(engine, row) for row in started)
    assert rows() == []
    assert places() == []
    with closing(Docker()) as alone:
        assert alone.run("print(1)").stdout == "1\n"
        assert alone.place is None


def test_a_container_of_the_pool_that_has_ended_is_passed_over(own_pool: None) -> None:
    pool.up(1, Docker())
    (row,) = rows()
    with closing(client()) as engine:
        engine.api.kill(row.container)
    with closing(Docker()) as sandbox:
        assert sandbox.run("print(1)").stdout == "1\n"
        assert sandbox.place is None
    assert places() == []


def test_one_of_another_version_is_stale(own_pool: None) -> None:
    pool.up(1, Docker())
    (place,) = places()
    facts = dict(place.facts, wants={**place.facts["wants"], "version": "of yesterday"})
    (place.folder / "facts.json").write_text(json.dumps(facts))
    assert [row.state for row in rows()] == ["stale"]
