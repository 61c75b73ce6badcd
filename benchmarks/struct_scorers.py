"""`json-schema` and `tool-call` as plain functions, for scripts that score a corpus of labelled outputs.

    check(output, schema, mode)                        whether the output is JSON that the schema allows
    check_row(output, gold, tools, format, ordered)    whether it makes the calls that are expected, and no other

Both go through `rlvr.verify`. A verdict that is neither passed nor failed is raised, so that no row counts as refused
that was never looked at. `format` counts in schemas: a corpus whose schemas have it means it.
"""

from __future__ import annotations

from typing import Any

import rlvr


def check(output: str, schema: Any, mode: str) -> bool:
    """Whether `json-schema` passes an output."""
    return _passed(rlvr.verify("json-schema", output, schema=schema, mode=mode, formats=True))


def check_row(output: str, gold: list[dict[str, Any]], tools: list[Any], format: str, ordered: bool) -> bool:
    """Whether `tool-call` passes an output."""
    return _passed(rlvr.verify("tool-call", output, calls=gold, tools=tools, format=format, ordered=ordered))


def _passed(verdict: rlvr.Verdict) -> bool:
    if not verdict.valid:
        raise RuntimeError(verdict.detail)
    return verdict.passed
