"""The sandboxes that come with rlvr: none yet.

A verifier that asks for a sandbox is refused until a plugin registers one. Running model-written code in an
ordinary child process holds nothing, so that is not offered as a substitute.
"""

from __future__ import annotations

from typing import Any

from rlvr import hookimpl


@hookimpl
def rlvr_sandboxes() -> list[Any]:
    return []
