"""Which tests become call tables, what the program's process gets to see of them, and what is left to the judge."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from rlvr_verifiers.code import BadTests, coverage, read_tests
from rlvr_verifiers.code.table import Piece, Table, compiled, names_in
from rlvr_verifiers.code.verifier import code

from rlvr import Call, Sample

MBPP = Path(__file__).parents[3] / "shared" / "data" / "tasks" / "mbpp.jsonl"


def table(text: str, entry_point: str = "") -> Table | str:
    return compiled((Piece(text, 0),), entry_point, True)


def calls(text: str) -> list[str]:
    found = table(text)
    assert isinstance(found, Table), found
    return [call.source + "".join(call.trail) for call in found.calls]


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("assert f(1) == 2", ["f(1)"]),
        ("assert f(1, k=[2]) == f(2) == 3", ["f(1, k=[2])", "f(2)"]),
        ("assert sorted(f([3, 1])) == [1, 3], f'message {f(1)}'", ["f([3, 1])"]),
        ("assert f(g(1)) == 2 and g(2)", ["f(g(1))", "g(2)"]),
        ("assert f(lambda x: x + 1, [1]) == 2", ["f(lambda x: x + 1, [1])"]),
        ("assert f(sorted([2, 1])) == 1", ["f(sorted([2, 1]))"]),
        ("import math\nassert f(math.pi) > math.sqrt(2)", ["f(__import__('math').pi)"]),
        ("from math import pi as p, isclose\nassert isclose(f(p), 1.0)", ["f(__import__('math').pi)"]),
        ("import os.path\nassert f(os.path.sep) == 1", ["f(__import__('os').path.sep)"]),
        ("assert math.isclose(f(1), 2.0)", ["f(1)"]),
        ("assert f('aab') == Counter('aab')", ["f('aab')"]),
        ("x = f(3)\nassert x == 5\nassert x > 4", ["f(3)"]),
        ("x, y = [1, 2], 'a'\nassert f(x, y) == y", ["f([1, 2], 'a')"]),
        ("n = 5\nassert f(n) == n + 1\nassert f(-n) == n", ["f(5)", "f(-5)"]),
        ("x = [1]\nassert f(x) == 1\nx = [2]\nassert f(x) == 2", ["f([1])", "f([2])"]),
        ("want = [1, 2]\nassert f(1) == want\nassert f(2) == want", ["f(1)", "f(2)"]),
        ("def check(candidate):\n    '''doc'''\n    assert candidate(1) == 2\ncheck(f)", ["f(1)"]),
        ("METADATA = {'author': 'x'}\ndef check(c):\n    assert c(1) == 2\n\n\ncheck(f)", ["f(1)"]),
        ("def test():\n    x = f(1)\n    assert x == 2\ntest()", ["f(1)"]),
        ("def norm(v):\n    return sorted(map(list, v))\nassert norm(f(1)) == [[1]]", ["f(1)"]),
        ("close = lambda a, b: abs(a - b) < 1e-6\nassert close(f(1), 2)", ["f(1)"]),
        ("for x, y in [(1, 2), (2, 3)]:\n    assert f(x) == y", ["f(1)", "f(2)"]),
        ("cases = [([1], 2), ([2], 3)]\nfor x, y in cases:\n    assert f(x) == y", ["f([1])", "f([2])"]),
        ("for i in range(3):\n    assert f(i) == i", ["f(0)", "f(1)", "f(2)"]),
        ("for i, (a, b) in enumerate(zip([1, 2], 'ab')): pass\nassert f(1)", None),
        ("for k, v in {1: 2}.items(): assert f(k) == v", ["f(1)"]),
        ("if __name__ == '__main__':\n    assert f(1) == 2\n    print('all tests passed')", ["f(1)"]),
        ("assert f(1)[0].x.pop() == 1; assert f(2)(3) == 4", ["f(1)[0].x.pop()", "f(2)(3)"]),
        ("assert Solution().twoSum([2, 7], 9) == [0, 1]", ["Solution().twoSum([2, 7], 9)"]),
        ("assert Text('a').upper() == 'A'", ["Text('a').upper()"]),
        ("assert make().startswith('secret')", ["make()"]),
        ("assert LIMIT == 3", ["LIMIT"]),
        ("def cb(x): return x\nassert f(cb) == 1", ["f(lambda x: x)"]),
        ("assert all(v > 0 for v in f(3))", ["f(3)"]),
        ("assert len(set(f(3))) == 3 and isinstance(f(1), list)", ["f(3)", "f(1)"]),
        ("from solution import f\nassert f(1) == 2", ["f(1)"]),
        ("from __future__ import annotations\nfrom typing import *\n", None),
        ("from typing import List\nx: List[int] = [1]\nassert f(x) == 1", ["f([1])"]),
        ("assert (f(1) == 2)", ["f(1)"]),
        ("assert f({1, 2}) is None", ["f({1, 2})"]),
        ("assert sum(10, 15) == 6\nassert sum(4, 6) == 3", ["sum(10, 15)", "sum(4, 6)"]),
    ],
)
def test_tables(text: str, sources: list[str] | None) -> None:
    if sources is None:
        with contextlib.suppress(BadTests):
            assert isinstance(table(text), str)
    else:
        assert calls(text) == sources


@pytest.mark.parametrize(
    "text",
    [
        "m = [[1, 2]]\nrotate(m)\nassert m == [[2, 1]]",
        "a = [1]\nassert f(a) == 1\nassert a == [1]",
        "a = [1]\nassert f(a) == g(a)",
        "a = {}\nassert f(a, a)",
        "s = Stack()\ns.push(1)\nassert s.pop() == 1",
        "x = f(1)\nassert g(x) == 2",
        "x = f(1)\nassert x.size() == 2",
        "x = f(1)\nassert h == 1",
        "try:\n    f(1)\n    assert False\nexcept ValueError: pass",
        "with ctx():\n    assert f(1)",
        "i = 0\nwhile i < 3:\n    assert f(i)\n    i += 1",
        "for i in items():\n    assert f(i)",
        "def cb(x):\n    y = x\n    return y\nassert f(cb) == 1",
        "class N: pass\nassert f(N()) == 1",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1), 2)\nunittest.main()",
        "import numpy as np\nassert np.allclose(f(1), 2)",
        "import re\nassert re.match('a+b', f(1))",
        "import copy\nassert copy.copy(f(1)) == 1",
        "assert f(1) == 2 or f(2) == 3",
        "assert not (f(1) and f(2))",
        "assert 1 if f(1) else f(2)",
        "assert all(f(i) == i for i in [1, 2])",
        "assert list(map(f, [1, 2])) == [1, 2]",
        "assert isinstance(f(1), Node)",
        "assert f(1).__class__.__name__ == 'A'",
        "assert (y := f(1)) == 2",
        "assert f(eval('1')) == 1",
        "assert f(x=open('a')) == 1",
        "import sys\nassert f((1, 2)) == sys.getsizeof((1, 2))",
        "assert hash(f(1)) == 1",
        "from helpers import g\nassert f(1) == g(1)",
        "import solution\nassert solution.f(1) == 2",
        "assert f(1) == 10 ** (10 ** 9)",
        "assert f(1) == 'a' * 10 ** 10",
        "global z\nassert f(1)",
        "print(f(1))\nassert f(1)",
        "del q\nassert f(1)",
        "f.cache = 1\nassert f(1)",
        "async def t(): assert await f(1)\nimport asyncio\nasyncio.run(t())",
    ],
)
def test_what_is_left_to_the_judge(text: str) -> None:
    found = table(text)
    assert isinstance(found, str)
    assert found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("assert True", "uses a name of the program"),
        ("assert 1 == 1 and len([1]) == 1", "uses a name of the program"),
        ("import math\nassert math.sqrt(4) == 2", "uses a name of the program"),
        ("f = 3\nassert f == 3", "uses a name of the program"),
        ("assert (f(1) == 2, 'a message in brackets')", "no assert depends"),
        ("f(", "not Python"),
        ("assert f(1)\0", "cannot be read|not Python"),
    ],
)
def test_tests_that_check_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadTests, match=message):
        table(text)


def test_expected_values_never_reach_the_program() -> None:
    text = "SECRET = 918273\nassert f(1) == SECRET\nassert f(2) == 'hidden'\nassert f(3).startswith('hidden')\n"
    text += (
        "assert f(4) in ['hidden'] and f(5) < SECRET\nassert abs(f(6) - SECRET) < 1\nassert close(f(7), 7) == 918273"
    )
    assert not any("hidden" in source or "918273" in source for source in calls(text))


def test_names() -> None:
    def taken(text: str, entry_point: str = "") -> tuple[str, ...]:
        return names_in((Piece(text, 0),), entry_point).solution

    assert taken("assert f(1) == g(len([x for x in h()]))") == ("f", "g", "h")
    assert taken("import math\nassert math.floor(f(1)) == 1") == ("f",)
    assert taken("assert math.floor(f(1)) == 1") == ("f",)
    assert taken("assert queue(1) == 2") == ("queue",)
    assert taken("assert gcd(1, 2) == 1") == ("gcd",)
    assert taken("assert isclose(1, 2) == 1") == ("isclose",)
    assert taken("assert isclose(f(1), 2)") == ("f",)
    assert taken("assert sum(1, 2) == 3") == ("sum",)
    assert taken("assert sum([f(1)]) == 3") == ("f",)
    assert taken("assert sum([f(1)]) == 3", "sum") == ("sum", "f")
    assert names_in((Piece("assert f(1) == np.int64(math.pi)", 0),)).prelude == (
        "import numpy as np\nimport math as math"
    )


def test_values_expected_of_calls() -> None:
    found = compiled((Piece("f(1)", 0, True, "[1]"), Piece("sorted(g(2))", 1, True, "3")))
    assert isinstance(found, Table)
    assert found.calls == (Call("f(1)"), Call("g(2)"))
    assert [step.expected for step in found.steps] == [[1], 3]


def test_the_coverage_of_data_can_be_asked_for() -> None:
    lists: list[Any] = [
        ["assert f(1) == 2"],
        "s = S()\ns.add(1)\nassert s.n == 1",
        [{"stdin": "", "stdout": "1"}],
        "f(",
    ]
    lists.append({"tests": "def check(candidate):\n    assert candidate(1)\n", "entry_point": "f"})
    assert coverage(lists) == ["table", "judge", "stdio", "error", "table"]


@pytest.mark.skipif(not MBPP.exists(), reason="the data is not here")
def test_nearly_all_of_mbpp_is_call_tables() -> None:
    rows = [json.loads(line) for line in MBPP.read_text(encoding="utf-8").splitlines()]
    metas = [{"tests": row["test_list"], "setup": row["test_setup_code"]} for row in rows]
    found = coverage(metas)
    print(f"{found.count('table')} of {len(rows)} problems of MBPP are call tables")
    assert found.count("table") >= 969
    assert set(found) == {"table", "judge"}
    for row, meta in zip(rows, metas, strict=True):
        assert read_tests(meta).tests
        sample = Sample("x", answer=row["code"], meta=meta)
        assert code.gold is not None
        assert row["code"] in code.gold(sample)
