"""What to pay for a verdict: pure functions from a valid verdict and its completion to a reward.

A verdict says what is true; a shaper says what it is worth. Missing verdicts (error, timeout, abstained) have
no reward: calling a shaper on one is a ValueError.
"""

from __future__ import annotations

from rlvr.hookspecs import hookimpl
from rlvr.registry import ShaperSpec, shaper
from rlvr.types import Completion, Verdict


@shaper("binary")
def binary(verdict: Verdict, completion: Completion) -> float:
    """1 for a passed verdict, 0 for a failed one."""
    return float(verdict.passed)


@shaper("partial")
def partial(verdict: Verdict, completion: Completion) -> float:
    """The verdict's score in [0, 1]: partial credit where the verifier gives it."""
    return verdict.score


def soft_overlong(length: int, limit: int, buffer: int) -> float:
    """The penalty of a long completion, to be added to its reward (DAPO, arXiv:2503.14476, equation 13).

        0                                    length <= limit - buffer
        ((limit - buffer) - length) / buffer    up to the limit
        -1                                   beyond

    Args:
        length: Tokens of the completion.
        limit: Tokens at which a completion is cut (`sampler.max_tokens`, L_max in the paper).
        buffer: The last tokens, over which the penalty grows (L_cache in the paper); 0 punishes only what is
            beyond the limit.

    Returns:
        A number in [-1, 0].

    Raises:
        ValueError: If a number is negative, or the buffer larger than the limit.
    """
    if length < 0 or not 0 <= buffer <= limit:
        raise ValueError(
            f"soft_overlong needs 0 <= buffer <= limit and length >= 0, not {length=}, {limit=}, {buffer=}"
        )
    if length <= limit - buffer:
        return 0.0
    if length > limit:
        return -1.0
    return (limit - buffer - length) / buffer


@hookimpl
def rlvr_shapers() -> list[ShaperSpec]:
    return [binary, partial]
