"""Whether a value is what a data set expects of a call, where that is written as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DEPTH = 200


def matches(expected: Any, value: Any, tolerance: float = 1e-6, depth: int = 0) -> bool:
    """Whether a value is a JSON value.

    JSON has one kind of list and text as keys only, so a tuple is a list, and a key counts as its text. A float may be
    off by the tolerance, relative or absolute; integers, text and truth values are exact.
    """
    if depth > DEPTH:
        return False
    if isinstance(expected, bool) or expected is None:
        return value is expected
    if isinstance(expected, str):
        return isinstance(value, str) and value == expected
    if isinstance(expected, int):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == expected
    if isinstance(expected, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _near(expected, value, tolerance)
    if isinstance(expected, list):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(matches(e, v, tolerance, depth + 1) for e, v in zip(expected, value, strict=True))
        )
    if isinstance(expected, Mapping):
        return _same_mapping(expected, value, tolerance, depth)
    return False


def _near(expected: float, value: float, tolerance: float) -> bool:
    if math.isnan(expected):
        return isinstance(value, float) and math.isnan(value)
    try:
        return value == expected or abs(value - expected) <= tolerance * max(1.0, abs(expected))
    except OverflowError:
        return False


def _same_mapping(expected: Mapping[str, Any], value: Any, tolerance: float, depth: int) -> bool:
    if not isinstance(value, Mapping) or len(value) != len(expected):
        return False
    named: dict[str, Any] = {}
    for key, item in value.items():
        if key is None or isinstance(key, bool):
            named[{None: "null", True: "true", False: "false"}[key]] = item
        elif isinstance(key, str) or (isinstance(key, (int, float)) and abs(key) < 1e300):
            named[str(key)] = item
        else:
            return False
    return len(named) == len(expected) and all(
        key in named and matches(item, named[key], tolerance, depth + 1) for key, item in expected.items()
    )


SOURCE = """
def __expects(value, expected, tolerance):
    if isinstance(expected, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value == expected or abs(value - expected) <= tolerance * max(1.0, abs(expected))
    if isinstance(expected, list):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(__expects(v, e, tolerance) for v, e in zip(value, expected))
        )
    if isinstance(expected, dict):
        named = {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}
        return len(named) == len(expected) and all(
            key in named and __expects(named[key], item, tolerance) for key, item in expected.items()
        )
    return type(value) is type(expected) and value == expected or (
        isinstance(value, float) and isinstance(expected, int) and not isinstance(expected, bool) and value == expected
    )
"""
"""The same for the judge, as the source of `__expects(value, expected, tolerance)`."""
