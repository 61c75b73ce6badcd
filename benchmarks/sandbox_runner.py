"""The `code` verifier as a plain function, for scripts that measure how any runner of code holds what it runs.

    run(solution, tests, timeout_s) -> {"status", "passed", "detail", ...}

`status` is one of pass, fail, error, timeout, memory, output, and infra for a verdict that is missing.
"""

from __future__ import annotations

import json
from typing import Any

import rlvr

LIMITS = {"timeout", "memory", "output"}


def run(solution: str, tests: str, timeout_s: float) -> dict[str, Any]:
    """Verifies a solution against tests: Python text, or a JSON list of stdin and stdout."""
    given = json.loads(tests) if tests.lstrip().startswith("[{") else tests
    verdict = rlvr.verify("code", solution, tests=given, timeout=timeout_s)
    limit = verdict.parts.get("limit")
    status = "pass" if verdict.passed else "fail" if verdict.valid else "infra"
    return {
        "status": str(limit) if limit in LIMITS else status,
        "passed": verdict.passed,
        "detail": verdict.detail,
        "flags": verdict.parts.get("flags", []),
        "compared": verdict.parts.get("compared"),
    }
