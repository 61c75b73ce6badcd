"""The `code` verifier: does the program pass its tests?

`extract` finds the program, `tests` reads the tests, `table` compiles them into calls that a sandbox evaluates and
checks that the host makes (`evaluate`), and `running` brings both together. No text of a completion or a test is ever
run in this process, and no expected value ever enters the process of the program where that can be helped.
"""

from __future__ import annotations

from .extract import extract
from .tests import BadTests, read_tests
from .verifier import code, coverage

__all__ = ["BadTests", "code", "coverage", "extract", "read_tests"]
