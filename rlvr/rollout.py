"""What a step is made of: groups of verified completions, the state between two steps, and their records."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rlvr.advantage import informative
from rlvr.types import Completion, Sample, Turn, Verdict

OPENER = 5  # first tokens of a completion that are compared with those of others

Evidence = tuple[float, float]
"""Completions of a prompt that passed, and that failed; older ones count for less."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion as the learner sees it. Token ids and log-probabilities are the sampler's, unchanged; `foreign`
    are the runs of `completion_ids` that the policy did not write, as `(start, stop)`; `age` is how many updates the
    weights have seen since those that it was begun with."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    advantage: float
    foreign: tuple[tuple[int, int], ...] = ()
    age: int = 0
    reward: float = 0.0

    @property
    def written(self) -> int:
        """How many tokens the policy wrote."""
        return len(self.completion_ids) - sum(stop - start for start, stop in self.foreign)


@dataclass(frozen=True, slots=True)
class Group:
    """The G completions of one prompt, with what became of each; the tuples run in parallel. `number` is the prompt's
    place in the stream of training problems, `task` the name of its task."""

    sample: Sample
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...]
    outcomes: tuple[float | None, ...]
    rewards: tuple[float | None, ...]
    advantages: tuple[float | None, ...]
    number: int = 0
    task: str = ""

    @property
    def key(self) -> str:
        """What the prompt goes by in a run: samples of two tasks may have the same id."""
        return f"{self.task}/{self.sample.id}"

    @property
    def version(self) -> int:
        """Updates that the weights had seen which its oldest completion was begun with."""
        return min(completion.version for completion in self.completions)

    @property
    def informative(self) -> bool:
        """Whether the outcomes vary. The length term is left out: a group that only differs in length would have
        the policy learn brevity where it should learn the task."""
        return informative(self.outcomes)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Group:
        return cls(
            Sample(**values["sample"]),
            tuple(values["prompt_ids"]),
            tuple(map(completion_from_json, values["completions"])),
            tuple(Verdict(**verdict) for verdict in values["verdicts"]),
            tuple(values["outcomes"]),
            tuple(values["rewards"]),
            tuple(values["advantages"]),
            values["number"],
            values["task"],
        )

    def rows(self, step: int = 0) -> list[Row]:
        """The valid rows, for a learner that has done `step` updates."""
        return [
            Row(
                self.prompt_ids,
                completion.token_ids,
                completion.logprobs,
                advantage,
                completion.foreign,
                step - completion.version,
                reward or 0.0,
            )
            for completion, advantage, reward in zip(self.completions, self.advantages, self.rewards, strict=True)
            if advantage is not None
        ]


def completion_from_json(values: Mapping[str, Any]) -> Completion:
    """A completion from what `dataclasses.asdict` made of it, once it has been JSON."""
    return Completion(
        values["text"],
        tuple(values["token_ids"]),
        tuple(values["logprobs"]),
        values["finish_reason"],
        tuple(Turn(**turn) for turn in values["turns"]),
        tuple((start, stop) for start, stop in values["foreign"]),
        values["version"],
    )


def flags_of(verdict: Verdict) -> set[str]:
    """The attempts to forge that a verifier noticed; it lists them in `parts` as `flags`."""
    flags = verdict.parts.get("flags")
    return {flag for flag in flags if isinstance(flag, str)} if isinstance(flags, (list, tuple)) else set()


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands between two steps; with model and optimiser this is all a checkpoint holds.

    Attributes:
        step: Steps done.
        position: Places of the stream of training problems that were drawn from or passed over so far.
        surplus: Groups already sampled and left over for the next step.
        evidence: How often prompts were solved, by their keys; kept where there is a curriculum.
    """

    step: int = 0
    position: int = 0
    surplus: tuple[Group, ...] = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` brings back an equal state."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> State:
        surplus = tuple(Group.from_json(group) for group in values["surplus"])
        evidence = {key: (passed, failed) for key, (passed, failed) in values["evidence"].items()}
        return cls(values["step"], values["position"], surplus, evidence)


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What `collect` brings home: the groups to learn from, all that were sampled, and where the run then stands.

    `dropped` are groups that were left over, and would be too old in the next step. `skipped` is the share of the
    stream that the curriculum passed over, None without one. `tasks` are the names of all tasks of the run. `relative`
    says whether rewards are held against their group.
    """

    groups: tuple[Group, ...]
    sampled: tuple[Group, ...]
    next_state: State
    rounds: int
    timing: Mapping[str, float]
    dropped: int = 0
    skipped: float | None = None
    tasks: tuple[str, ...] = ()
    relative: bool = True

    def records(self) -> Iterator[dict[str, Any]]:
        """One record per completion sampled in this step, for `rollouts.jsonl`."""
        step = self.next_state.step - 1
        learned_in = {id(group): step for group in self.groups} | {id(g): step + 1 for g in self.next_state.surplus}
        for number, group in enumerate(self.sampled):
            rows = zip(group.completions, group.verdicts, group.rewards, group.advantages, strict=True)
            for completion, verdict, value, advantage in rows:
                yield {
                    "step": step,
                    "learned_in": None if advantage is None else learned_in.get(id(group)),
                    "group": number,
                    **({"task": group.task} if len(self.tasks) > 1 else {}),
                    "sample": group.sample.id,
                    "prompt": group.sample.prompt,
                    "completion": completion.text,
                    **({"turns": [asdict(turn) for turn in completion.turns]} if completion.turns else {}),
                    "prompt_tokens": len(group.prompt_ids),
                    "completion_tokens": completion.written,
                    "finish_reason": completion.finish_reason,
                    "version": completion.version,
                    "verdict": {
                        "status": str(verdict.status),
                        "score": verdict.score,
                        "detail": verdict.detail,
                        "parts": dict(verdict.parts),
                        "duration": verdict.duration,
                    },
                    "reward": value,
                    "advantage": advantage,
                }

    def age(self) -> float:
        """How many updates the weights that learn have seen since those that wrote the groups, on average."""
        step = self.next_state.step - 1
        return sum(step - group.version for group in self.groups) / max(len(self.groups), 1)

    def metrics(self) -> dict[str, Any]:
        """Means over everything sampled in this step; shares are in [0, 1], times in seconds. Where there are several
        tasks, the means of each are there too: `math/reward`."""
        verdicts = [v for group in self.sampled for v in group.verdicts]
        flags = [flags_of(v) for v in verdicts]
        flagged = Counter(flag for found in flags for flag in found)
        count = max(len(verdicts), 1)
        return {
            "step": self.next_state.step - 1,
            **means(self.sampled),
            **variety(self.sampled),
            **(baseline_error(self.groups) if self.relative else {}),
            "flagged": sum(map(bool, flags)) / count,
            **{f"flagged/{flag}": flagged[flag] / count for flag in sorted(flagged)},
            "completions": len(verdicts),
            "groups": len(self.groups),
            "groups_sampled": len(self.sampled),
            "groups_carried": len(self.next_state.surplus),
            "groups_dropped": self.dropped,
            **({} if self.skipped is None else {"skipped": self.skipped}),
            "age": self.age(),
            "rounds": self.rounds,
            **self.timing,
            "time/verify_busy": sum(v.duration for v in verdicts),
            **(self.by_task() if len(self.tasks) > 1 else {}),
        }

    def by_task(self) -> dict[str, float]:
        """What was sampled and is learned from of each task; no means of one that was not sampled."""
        found: dict[str, float] = {}
        for task in self.tasks:
            sampled = [group for group in self.sampled if group.task == task]
            groups = sum(group.task == task for group in self.groups)
            own = (means(sampled) if sampled else {}) | {"groups": groups, "groups_sampled": len(sampled)}
            found |= {f"{task}/{name}": value for name, value in own.items()}
        return found


def means(groups: Sequence[Group]) -> dict[str, float]:
    """Means over all completions of groups."""
    completions = [c for group in groups for c in group.completions]
    verdicts = [v for group in groups for v in group.verdicts]
    rewards = [r for group in groups for r in group.rewards if r is not None]
    valid = [v for v in verdicts if v.valid]
    statuses = Counter(v.status for v in verdicts)
    count = max(len(verdicts), 1)
    several = any(completion.turns for completion in completions)
    return {
        "reward": sum(rewards) / max(len(rewards), 1),
        "pass_rate": sum(v.passed for v in valid) / max(len(valid), 1),
        "length": sum(c.written for c in completions) / count,
        **({"turns": sum(len(c.turns) // 2 + 1 for c in completions) / count} if several else {}),
        "truncated": sum(c.truncated for c in completions) / count,
        "missing": (len(verdicts) - len(valid)) / count,
        **{f"missing/{s}": statuses[s] / count for s in statuses if not s.valid},
    }


def variety(groups: Sequence[Group]) -> dict[str, float]:
    """How alike what was sampled is: the deviation of rewards; the mean of -log π over the tokens that the policy wrote
    (nats), which estimates its entropy; the share of completions that begin with the commonest first tokens."""
    completions = [c for group in groups for c in group.completions]
    rewards = [r for group in groups for r in group.rewards if r is not None]
    openers = Counter(c.token_ids[:OPENER] for c in completions)
    written = sum(c.written for c in completions)
    return {
        "reward_std": statistics.pstdev(rewards) if rewards else 0.0,
        **({"surprisal": -math.fsum(sum(c.logprobs) for c in completions) / written} if written else {}),
        **({"opener": max(openers.values()) / len(completions)} if completions else {}),
    }


def baseline_error(groups: Sequence[Group]) -> dict[str, float]:
    """The standard error of a group's mean reward over the deviation of all rewards; nothing where none vary.

    Only groups that teach count. With n valid rewards each it is near 1/√n, more where prompts hardly differ.
    """
    found = [[r for r in group.rewards if r is not None] for group in groups if group.informative]
    varying = [rewards for rewards in found if len(rewards) > 1]
    spread = statistics.pstdev([r for rewards in varying for r in rewards]) if varying else 0.0
    if spread < 1e-9:
        return {}
    squares = statistics.fmean(statistics.variance(rewards) / len(rewards) for rewards in varying)
    return {"baseline_error": math.sqrt(squares) / spread}
