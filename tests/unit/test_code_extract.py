"""Where the `code` verifier finds the program in a completion."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.code import extract
from rlvr_verifiers.code.extract import parses

F = "def f(x):\n    return x"
TRICKY = "def f():\n    '''Example:\n\n```\nf()\n```\n    '''\n    return 1"


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        (F, F),
        ("\ufeff" + F, F),
        (F.replace("\n", "\r\n"), F.replace("\n", "\r\n")),
        (f"Here:\n```python\n{F}\n```\nDone.", F + "\n"),
        (f"```Python\n{F}\n```", F + "\n"),
        (f'```py title="a.py"\n{F}\n```', F + "\n"),
        (f"```{{.python}}\n{F}\n```", F + "\n"),
        (f"~~~python3\n{F}\n~~~", F + "\n"),
        (f"````python\n{F}\n````", F + "\n"),
        (f"```\n{F}\n```", F + "\n"),
        (f"```python\n{F}", F),
        (f"```python\nx = 1\n```\nBetter:\n```python\n{F}\n```", F + "\n"),
        (f"```python\n{F}\n```\nRun it:\n```bash\npython a.py\n```\nOutput:\n```\n3\n```", F + "\n"),
        (f"```js\nlet a\n```\n```\n{F}\n```", F + "\n"),
        (f"<think>```python\nwrong = 1\n```</think>\n```python\n{F}\n```", F + "\n"),
        (f"<think>{F}</think>\n{F}", "\n" + F),
        (f"<think>\n```python\n{F}\n```\n</think>", F + "\n"),
        (f"```python\n{TRICKY}\n```\nwith ```\n3\n``` printed", TRICKY + "\n"),
        (TRICKY, TRICKY),
        ("1. First:\n   ```python\n   def f(x):\n       return x\n   ```", "def f(x):\n    return x\n"),
        (f"```python\nx = 1\n\n```python\n{F}\n```", F + "\n"),
        (f"```python\r\n{F}\r\n```\r\n", F + "\r\n"),
        ("```python\ndef f(:\n```\n", "def f(:\n"),
        (f"```python\n{F}\n```<|im_end|>\n<|im_start|>user\n```python\nno\n```", F + "\n"),
        ("", ""),
        ("  \n ", ""),
        ("```python\n\n```", ""),
        ("I do not know.", "I do not know."),
        ("    return x + 1\n", "    return x + 1\n"),
    ],
)
def test_what_is_taken(completion: str, code: str) -> None:
    assert extract(completion).rstrip() == code.rstrip()
    assert extract(completion)[:8] == code[:8]  # indentation matters at the start


@given(st.text(alphabet="`~\npython \"'x=#<>/thik", max_size=60))
def test_no_text_makes_it_raise(text: str) -> None:
    assert isinstance(extract(text), str)


@given(st.sampled_from([F, TRICKY, "print('```')", "s = '''\n```\n'''"]), st.text(alphabet="abc.,:\n", max_size=30))
def test_a_block_after_prose_is_found_whole(code: str, prose: str) -> None:
    assert extract(f"{prose}\n```python\n{code}\n```\n").rstrip() == code


@pytest.mark.parametrize(
    "text",
    [
        "```\n" * 100_000,
        "```python\n" * 50_000,
        "```python\n```\n" * 30_000,
        "```python\nx='''\n```\n" * 10_000,
        "``` " + " " * 200_000 + "`",
        "~~~\n```\n" * 30_000,
        "`" * 300_000,
        "(" * 150_000,
        "-" * 150_000 + "1",
        "a" + ".a" * 90_000,
        "a\0b",
        "x = " + "[" * 5_000 + "]" * 5_000,
    ],
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    start = time.process_time()
    extract(text)
    assert time.process_time() - start < 15


def test_parsing_never_raises() -> None:
    assert parses("x = 1")
    for text in ("def", "\0", "(" * 10_000, "x" * 300_000, "if x:\n\t\tpass\n        pass"):
        assert not parses(text)
