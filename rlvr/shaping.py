"""What to pay for a verdict: pure functions from a valid verdict and its completion to a reward.

A verdict says what is true; a shaper says what it is worth. Missing verdicts (error, timeout, abstained) have
no reward: calling a shaper on one is a ValueError.

    shapers                binary, partial, cosine,      one of them turns a verdict into a reward
                           learned
    terms of the reward    soft_overlong, repetition     added, whatever the verdict
    weight of advantages   by_difficulty                 after the group's mean and deviation were taken

Lengths are counts of the tokens that the policy wrote; what an environment answered in between is not its doing.
`docs/concepts/rewards.md` has what each does to a group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rlvr.config import RewardConfig
from rlvr.errors import ConfigError
from rlvr.hookspecs import hookimpl
from rlvr.registry import ShaperSpec, shaper
from rlvr.types import Completion, Verdict

NGRAM = 20
"""Tokens in a row that count as repeated when they occurred before: a loop shows within a sentence or two, while
formulas and calls may look alike."""

EASY, HARD, TURN, STEEP = 0.4, 1.5, 0.75, 10.0
"""The logistic weight of GRPO-LEAD: its ends, the pass rate where it turns, and how steeply."""


# Shapers


@shaper("binary")
def binary(verdict: Verdict, completion: Completion) -> float:
    """1 for a passed verdict, 0 for a failed one."""
    return float(verdict.passed)


@shaper("partial")
def partial(verdict: Verdict, completion: Completion) -> float:
    """The verdict's score in [0, 1]: partial credit where the verifier gives it."""
    return verdict.score


@shaper("cosine", outcome=lambda verdict: float(verdict.passed))
def cosine(
    verdict: Verdict,
    completion: Completion,
    *,
    correct_short: float = 1.0,
    correct_long: float = 0.5,
    wrong_short: float = -0.5,
    wrong_long: float = 0.0,
    cut: float = -0.5,
    limit: int = 0,
) -> float:
    """Pays right completions more when they are short, and wrong ones more when they are long.

    The cosine reward of Yeo et al. 2025 (Demystifying Long Chain-of-Thought Reasoning, arXiv:2502.03373): over the
    length t in [0, T], with one pair of ends for right completions and one for wrong ones,

        long + (short - long) (1 + cos(pi t / T)) / 2

    and a value of its own for a completion that was cut or is longer than T. The shape is theirs; our ends are on the
    scale of `binary`, where theirs are 2, 1, -10, 0 and -10.

    Args:
        verdict: A valid verdict.
        completion: Its `written` is t.
        correct_short: For a right completion of length 0.
        correct_long: For a right one at the limit.
        wrong_short: For a wrong one of length 0.
        wrong_long: For a wrong one at the limit.
        cut: For one that was cut, right or wrong.
        limit: T; in a run, `sampler.max_tokens` unless it is set.

    Raises:
        ValueError: The limit is not above 0.
    """
    if limit <= 0:
        raise ValueError(f"cosine needs a `limit` above 0, not {limit}")
    if completion.truncated or completion.written > limit:
        return cut
    short, long = (correct_short, correct_long) if verdict.passed else (wrong_short, wrong_long)
    return long + (short - long) * (1 + math.cos(math.pi * completion.written / limit)) / 2


@shaper("learned")
def learned(verdict: Verdict, completion: Completion) -> float:
    """The raw score of a reward model, in deviations from its mean: any number, not only one in [0, 1].

    Raises:
        ValueError: The verdict has no `parts["raw"]`: it is not a reward model's.
    """
    raw = verdict.parts.get("raw")
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise ValueError("the shaper `learned` pays what a reward model says, and this verdict has no `raw` score")
    return float(raw)


# Terms of the reward


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


def repetition(completion: Completion, n: int = NGRAM) -> float:
    """The share of the policy's tokens that lie in an n-gram which occurred before.

    Yeo et al. 2025 (arXiv:2502.03373) mark the same tokens and penalise each of them; here their share is taken off
    the reward of the whole completion. What the environment wrote neither counts nor joins what stands around it.

    Args:
        completion: Its token ids are looked at.
        n: Tokens of an n-gram.

    Returns:
        A number in [0, 1): 0 without any repetition.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least one token, not {n}")
    seen: set[tuple[int, ...]] = set()
    repeated = 0
    for run in _policy_runs(completion):
        covered = 0  # up to where tokens of this run are known to be repeated
        for start in range(len(run) - n + 1):
            gram = run[start : start + n]
            if gram in seen:
                repeated += start + n - max(start, covered)
                covered = start + n
            else:
                seen.add(gram)
    return repeated / completion.written if repeated else 0.0


def _policy_runs(completion: Completion) -> Iterator[tuple[int, ...]]:
    """What the policy wrote, cut where the environment did."""
    start = 0
    for begin, end in sorted(completion.foreign):
        yield completion.token_ids[start:begin]
        start = end
    yield completion.token_ids[start:]


# Weights of advantages


def by_difficulty(advantages: Sequence[float | None], pass_rate: float, strength: float) -> list[float | None]:
    """Advantages of one group, weighed by how hard its prompt is to the policy.

    GRPO-LEAD (Zhang and Zuo 2025, arXiv:2504.09696), with the pass rate p of the group:

        w(p) = 0.4 + 1.1 / (1 + exp(10 (p - 0.75)))          1.5 for hard prompts, 0.4 for easy ones
        A w(p) for A > 0,  A w(1 - p) for A <= 0

    A rare right completion counts more than one of many, and so does a rare wrong one. The weight is on the advantage,
    as dividing by the group's deviation would cancel a factor on its rewards.

    Args:
        advantages: Of one group [G]; None stays None.
        pass_rate: The share of its valid completions that passed.
        strength: In [0, 1]; the weight is 1 + strength (w - 1), so 0 changes nothing.

    Returns:
        One per completion [G], with the sign it had.
    """
    up, down = (1 + strength * (_difficulty_weight(p) - 1) for p in (pass_rate, 1 - pass_rate))
    return [None if a is None else a * (up if a > 0 else down) for a in advantages]


def pass_rate(verdicts: Sequence[Verdict], rewards: Sequence[float | None]) -> float:
    """The share of a group's completions that passed, of those that have a reward."""
    passed = [verdict.passed for verdict, paid in zip(verdicts, rewards, strict=True) if paid is not None]
    return sum(passed) / max(len(passed), 1)


def _difficulty_weight(pass_rate: float) -> float:
    return EASY + (HARD - EASY) / (1 + math.exp(STEEP * (pass_rate - TURN)))


# From a run's settings


def outcome(verdict: Verdict, completion: Completion, shaper: ShaperSpec, config: RewardConfig) -> float | None:
    """What the shaper pays for the verdict; None where there is no valid one or the row is filtered out.

    No term is in it that could differ between two completions that are right, so that it says whether a group has
    anything to learn about the task.
    """
    if not verdict.valid or (completion.truncated and config.overlong == "filter"):
        return None
    return shaper(verdict, completion) if shaper.outcome is None else float(shaper.outcome(verdict))


def reward(
    verdict: Verdict, completion: Completion, shaper: ShaperSpec, config: RewardConfig, max_tokens: int
) -> float:
    """What the shaper pays for a valid verdict and its completion, and the terms that are added to it."""
    paid = shaper(verdict, completion)
    if config.overlong == "soft":
        paid += soft_overlong(completion.written, max_tokens, config.overlong_buffer or max(1, max_tokens // 5))
    if config.repetition:
        paid -= config.repetition * repetition(completion)
    return paid


def configured(shaper: ShaperSpec, config: RewardConfig, max_tokens: int) -> ShaperSpec:
    """The shaper with the options that a run's settings give it.

    Raises:
        ConfigError: An option that is not written as `NAME=VALUE`, is unknown or of the wrong kind.
    """
    given: dict[str, Any] = {}
    for option in config.options:
        name, equals, text = option.partition("=")
        if not equals:
            raise ConfigError(f"`reward.options` has `{option}`", "write `NAME=VALUE`, such as `correct_long=0.8`")
        name = name.strip()
        given[name] = text if isinstance(shaper.options.get(name), str) else _value(text)
    unset = {"limit": max_tokens} if "limit" in shaper.options and "limit" not in given else {}
    shaper = shaper.with_options(given)
    return replace(shaper, options={**shaper.options, **unset})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@hookimpl
def rlvr_shapers() -> list[ShaperSpec]:
    return [binary, partial, cosine, learned]
