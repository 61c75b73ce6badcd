"""Seeds that follow from a run's own and from where in the run they are used."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int) -> int:
    """A seed in [0, 2**63) that depends on all of `parts`, the same in every process and version."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
