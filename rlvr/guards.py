"""Guards: what watches a run for the failures that practitioners know by name.

Each is a pure function from the metrics of a run so far to what it found, or nothing. So they can be tried on any run:

    watch = Watch(GuardConfig())
    alarms = [alarm for row in Run("runs/math").metrics() for alarm in watch.look(row)]

A guard never stops at a setting: it fires on what was measured. What it lacks the metrics for it does not judge, and a
value that is not finite counts as not measured. All thresholds are in `guards`; `docs/guide/guards.md` lists them.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlvr.config import GuardConfig

START = 3  # first rows that are taken for how a run began
RECENT = 5  # latest rows whose median is taken for how it stands
COMPARED = 51  # latest evaluations that are compared with each other
YOUNG = 10  # rows in which what begins at 0 grows by large factors
REARM = 10  # rows without a finding after which a guard may fire again
Z = 1.96  # standard errors beyond which a single difference is no noise
BEFORE = -1  # the step of the accuracy that was measured before the first


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a guard found.

    Attributes:
        guard: Its name.
        step: Of the row of metrics that it was found in.
        message: What was measured, in words and numbers.
        hint: What to do.
        value: What was measured.
        limit: From where on it is an alarm.
    """

    guard: str
    step: int
    message: str
    hint: str
    value: float
    limit: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"guard {self.guard}: {self.message}\nhint: {self.hint}"


@dataclass(frozen=True, slots=True)
class Found:
    """A failure, measured: what in words, and the value beside the limit that it is past."""

    message: str
    value: float
    limit: float


class History:
    """The metrics of a run so far, by name: what was measured in which step.

    Args:
        rows: Of `metrics.jsonl`, oldest first.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.step = BEFORE
        self._steps: dict[str, list[int]] = defaultdict(list)
        self._values: dict[str, list[float]] = defaultdict(list)
        self._scores: dict[str, list[Score]] = defaultdict(list)
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes one more row; only finite numbers count."""
        self.step = int(row["step"])
        known = {name: float(value) for name, value in row.items() if measured(value)}
        for name, value in known.items():
            self._steps[name].append(self.step)
            self._values[name].append(value)
            if name.endswith("accuracy") and {f"{name}_low", f"{name}_high"} <= known.keys():
                self._scores[name].append(Score(self.step, value, known[f"{name}_low"], known[f"{name}_high"]))

    @property
    def names(self) -> list[str]:
        """The metrics that were measured at least once."""
        return list(self._values)

    def first(self, name: str, count: int = 1) -> list[float]:
        """A metric's first values."""
        return self._values[name][:count] if name in self._values else []

    def latest(self, name: str, count: int = 1) -> list[float]:
        """A metric's latest values, oldest first."""
        return self._values[name][-count:] if name in self._values else []

    def until(self, name: str, step: int, count: int) -> list[float]:
        """A metric's values in the rows that led to a step; the first value where there are none."""
        if name not in self._values:
            return []
        end = max(bisect_right(self._steps[name], step), 1)
        return self._values[name][max(end - count, 0) : end]

    def since(self, name: str, step: int) -> list[float]:
        """A metric's values after a step."""
        return self._values[name][bisect_right(self._steps[name], step) :] if name in self._values else []

    def best(self, name: str, choose: Callable[[Iterable[float]], float]) -> tuple[int, float]:
        """The step and the value that `choose`, `max` or `min`, takes of a metric that was measured."""
        value = choose(self._values[name])
        return self._steps[name][self._values[name].index(value)], value

    def scores(self, name: str = "accuracy") -> list[Score]:
        """The evaluations of an accuracy that came with their interval, oldest first."""
        return self._scores.get(name, [])

    def start(self, name: str) -> float | None:
        """The mean of a metric's first rows; None until there are later ones to hold against them."""
        own = self.first(name, START + RECENT)
        return statistics.fmean(own[:START]) if len(own) == START + RECENT else None

    def now(self, name: str) -> float | None:
        """The median of a metric's latest rows; None while there are too few."""
        own = self.latest(name, RECENT)
        return statistics.median(own) if len(own) == RECENT else None

    def rightness(self) -> float | None:
        """How often the policy is right: the latest pass rate, or the held-out accuracy since the start if that is
        lower, since what training pays for may not be what was asked for."""
        known = [self.now("pass_rate"), *(score.value for score in self.scores()[-1:] if score.step > BEFORE)]
        found = [value for value in known if value is not None]
        return min(found) if found else None

    def improved(self) -> bool:
        """Whether the policy is better than it was at the start, beyond a standard error of the difference: in held-out
        accuracy where that was measured again, else in pass rate, over prompts."""
        scores = self.scores()
        if len(scores) > 1:
            gain, noise = difference(scores[0], scores[-1])
            return gain > noise
        start, now = self.start("pass_rate"), self.now("pass_rate")
        if start is None or now is None:
            return False
        prompts = statistics.fmean(self.latest("groups_sampled", RECENT) or [1.0])
        noise = math.sqrt((start * (1 - start) / START + now * (1 - now) / RECENT) / max(prompts, 1.0))
        return now - start > noise


def measured(value: Any) -> bool:
    """Whether a value of a row is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Score:
    """An accuracy on held-out problems: when it was measured, and the bounds of its 95% interval."""

    step: int
    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Its standard error."""
        return (self.high - self.low) / (2 * Z)

    @property
    def deviation(self) -> float:
        """Of a single problem's outcome, the largest that the interval allows: where none was solved, some may be."""
        share = min(max(0.5, self.low), self.high)
        return math.sqrt(share * (1 - share))


def difference(then: Score, now: Score) -> tuple[float, float]:
    """What was gained, and its standard error. Both are of the same problems, so that the true error is smaller."""
    return now.value - then.value, math.hypot(then.error, now.error)


def beyond(comparisons: int) -> float:
    """Standard errors beyond which one of so many differences is no noise: `Z` for one, 3.02 for 20 (Bonferroni)."""
    return statistics.NormalDist().inv_cdf(1 - (1 - statistics.NormalDist().cdf(Z)) / max(comparisons, 1))


@dataclass(frozen=True, slots=True)
class Guard:
    """A failure that is watched for.

    Attributes:
        name: What practitioners call it.
        summary: What is measured, in a line.
        hint: What to do when it fires.
        setting: The limit that can be moved, in `guards`; empty where there is none.
        check: Finds it in a history, or not.
    """

    name: str
    summary: str
    hint: str
    setting: str
    check: Callable[[History, GuardConfig], Found | None]

    def look(self, history: History, config: GuardConfig) -> Alarm | None:
        """The alarm at the latest row, if there is one."""
        found = self.check(history, config)
        if found is None:
            return None
        return Alarm(self.name, history.step, found.message, self.hint, found.value, found.limit)


# ------------------------------------------------------------------------------------------------------- the checks


def reward_hacking(history: History, config: GuardConfig) -> Found | None:
    """The training reward rose, and held-out accuracy did not follow.

    The latest evaluation is held against the first one and the 50 before it, where the mean reward rose since by
    `reward_rise` of its deviation (over completions, at the start or now, whichever is larger). It is an alarm when
    accuracy fell beyond noise, or when its gain is at best, at the upper end of its interval, less than half of what
    the reward promises: as many deviations of its own, as far as there was room up to 1. So few problems never prove
    that accuracy is flat, and a reward that goes from 93% to 98% promises nothing. The more evaluations there were, the
    more must a difference be (`beyond`).

    Gao et al. 2022 (arXiv:2210.10760) measured how a learned reward and the true one part. It sees what evaluations
    see: without `eval.every` there are only two. Where held-out problems are judged by the very verifier that is
    exploited, nothing parts.
    """
    scores = [*history.scores()[:1], *history.scores()[1:][-COMPARED:]]
    if len(scores) < 2 or not history.latest("reward") or not history.latest("reward_std"):
        return None
    latest = scores[-1]
    spreads = history.first("reward_std", START), history.until("reward_std", latest.step, START)
    deviation = max(map(statistics.fmean, spreads))
    if deviation < 1e-6:
        return None
    paid = [statistics.fmean(history.until("reward", score.step, START)) for score in scores]
    z = beyond(len(history.scores()) - 1)
    worst: tuple[float, Score, float, float] | None = None
    for then, paid_then in zip(scores[:-1], paid[:-1], strict=True):
        rise = (paid[-1] - paid_then) / deviation
        if rise < config.reward_rise:
            continue
        gain, error = difference(then, latest)
        promised = min(rise * then.deviation, 1 - then.value)
        flat = gain + z * error < promised / 2
        if (flat or gain + z * error < 0) and (worst is None or gain < worst[2]):
            worst = rise, then, gain, z * error
    if worst is None:
        return None
    rise, then, gain, noise = worst
    since = said(then.step).removeprefix("after ")
    return Found(
        f"since {since} the reward rose by {rise:.1f} of its deviation, to {paid[-1]:.3f}, and held-out accuracy went "
        f"from {then.value:.1%} to {latest.value:.1%} ({gain:+.1%} ± {noise:.1%})",
        rise,
        config.reward_rise,
    )


def kl_spike(history: History, config: GuardConfig) -> Found | None:
    """The KL to the reference left its target behind, or jumped.

    With `learner.kl_target` the KL of a completion counts against that; the weight adapts slowly (Ziegler et al. 2019,
    arXiv:1909.08593), so that some overshoot is usual. Without one it counts against the median of the rows before; but
    not in the first ten, nor below 1 nat, as the KL begins at 0. Without a reference
    (`learner.kl_coef` 0) there is no KL to watch.
    """
    known = history.latest("kl_sequence", YOUNG + 1)
    if not history.since("kl_sequence", history.step - 1):
        return None
    now, target = known[-1], history.latest("kl_target")
    if target and target[0] > 0:
        limit = config.kl_factor * target[0]
        against = f"{now / target[0]:.1f} times its target of {target[0]:g}"
    else:
        if len(known) <= YOUNG:
            return None
        usual = statistics.median(known[-RECENT - 1 : -1])
        limit = max(config.kl_factor * usual, 1.0)
        against = f"where the {RECENT} steps before had {usual:.3g}"
    return Found(f"the KL of a completion is {now:.3g} nats, {against}", now, limit) if now > limit else None


def entropy_collapse(history: History, config: GuardConfig) -> Found | None:
    """The policy became certain without being right.

    Certain: the mean of -log π over all sampled tokens, which estimates the entropy of what is sampled, fell below
    `entropy_share` of what it was at the start. Right: the pass rate, or the held-out accuracy if that is lower, is at
    least a half. Once a policy that fails is certain, groups do not vary any more and there is nothing to learn from
    (Cui et al. 2025, arXiv:2505.22617: reward is bought with entropy, and when that is gone it stops). A policy that
    was certain from the start has no fall to show.
    """
    start, now, right = history.start("surprisal"), history.now("surprisal"), history.rightness()
    if start is None or now is None or right is None or start <= 0:
        return None
    share = now / start
    if share >= config.entropy_share or right >= 0.5:
        return None
    return Found(
        f"entropy is {now:.4f} nats a token, {share:.1%} of the {start:.4f} at the start, and {right:.1%} is right",
        share,
        config.entropy_share,
    )


def mode_collapse(history: History, config: GuardConfig) -> Found | None:
    """Answers to whatever prompt begin alike, as they did not at the start, and are no better for it.

    Measured as the share of a step's completions that begin with the commonest first tokens (`opener`); it rose by
    `opener_rise`. A task whose answers all begin alike has that share from the start, and a policy that learns such a
    form gets better by it: both are silent. So is a collapse behind an opener that was common from the start.
    """
    start, now = history.start("opener"), history.now("opener")
    if start is None or now is None or now - start <= config.opener_rise or history.improved():
        return None
    return Found(
        f"{now:.0%} of all completions begin alike, {start:.0%} did at the start; no gain in accuracy with it",
        now - start,
        config.opener_rise,
    )


def length_drift(history: History, config: GuardConfig) -> Found | None:
    """Completions grew or shrank by `length_factor` against the start, and are no better for it.

    A policy that learns to think longer gains by it and is silent. Growth without gain is what a length bias of the
    reward makes (Singhal et al. 2023, arXiv:2310.03716), or of the loss (Liu et al. 2025, arXiv:2503.20783).
    """
    start, now = history.start("length"), history.now("length")
    if start is None or now is None or start <= 0 or history.improved():
        return None
    factor = now / start if now >= start else start / max(now, 1e-9)
    if factor <= config.length_factor:
        return None
    return Found(
        f"completions have {now:.1f} tokens, {start:.1f} at the start; no gain in accuracy with it",
        factor,
        config.length_factor,
    )


def small_group(history: History, config: GuardConfig) -> Found | None:
    """The mean that a reward is held against is itself too uncertain.

    Measured as the standard error of the baseline, over the groups that are learned from, in deviations of the reward
    (`baseline_error`); with n valid rewards in a group it is near 1/√n. So it counts what verdicts that are missing and
    completions that are filtered took away, which the setting `sampler.group_size` does not say. Only where rewards
    are held against their group.
    """
    now = history.now("baseline_error")
    if now is None or now <= config.baseline_error:
        return None
    return Found(
        f"the standard error of a group's mean is {now:.2f} of the deviation of rewards", now, config.baseline_error
    )


def reference_not_frozen(history: History, config: GuardConfig) -> Found | None:
    """The weights that KL is measured to, or that a preference is held against, are not what they were.

    `reference_fingerprint` is a number over a sample of every tensor (`rlvr.learner.modules.fingerprint`); it is
    compared with the first one of the run. A run that is resumed with other weights in the reference's folder shows
    too. Changes to elements outside of the sample do not; an optimiser's step changes nearly all.
    """
    first, last = history.first("reference_fingerprint"), history.latest("reference_fingerprint")
    if first == last:
        return None
    return Found(
        f"the reference's weights have the fingerprint {last[0]:.0f}, at the start {first[0]:.0f}", last[0], first[0]
    )


def reward_model_overfitting(history: History, config: GuardConfig) -> Found | None:
    """A reward model gets better on the pairs it learns from and worse on those it does not.

    Since the best validation, accuracy on training pairs did not fall, while on validation pairs accuracy fell beyond
    the noise of so many pairs, or the loss is up by `loss_rise` of its lowest, twice in a row and by more than 0.05
    nats: a model that is only more sure of the same mistakes. Accuracy is what a reward model is for, and what training
    stops by; a rising loss says that its scores are too far apart.
    """
    found = _worse_pairs(history) or _worse_loss(history, config)
    if found is None:
        return None
    best, message, value, limit = found
    then = history.until("train/accuracy", best, START)
    now = history.since("train/accuracy", best)[-START:]
    if not then or not now or statistics.fmean(now) < statistics.fmean(then):
        return None
    return Found(
        f"{message} since step {best}, on training pairs accuracy went from {statistics.fmean(then):.1%} to "
        f"{statistics.fmean(now):.1%}",
        value,
        limit,
    )


def _worse_pairs(history: History) -> tuple[int, str, float, float] | None:
    """Step of the best validation accuracy, what was found, the fall, and its noise."""
    own, pairs = history.latest("validation/accuracy", 2), history.latest("validation/pairs")
    if len(own) < 2 or not pairs or pairs[0] < 1:
        return None
    (best, top), last = history.best("validation/accuracy", max), own[-1]
    noise = Z * math.sqrt((top * (1 - top) + last * (1 - last)) / pairs[0])
    if top - last <= noise:
        return None
    return best, f"pairwise accuracy fell from {top:.1%} to {last:.1%} on validation pairs", top - last, noise


def _worse_loss(history: History, config: GuardConfig) -> tuple[int, str, float, float] | None:
    """Step of the lowest validation loss, what was found, the rise as a share of it, and the limit."""
    own = history.latest("validation/loss", 3)
    if len(own) < 3:
        return None
    (best, low), now = history.best("validation/loss", min), min(own[-2:])
    if low <= 0 or now - low <= max(config.loss_rise * low, 0.05):
        return None
    return best, f"validation loss rose from {low:.3f} to {own[-1]:.3f}", (now - low) / low, config.loss_rise


def alignment_tax(history: History, config: GuardConfig) -> Found | None:
    """A capability on another task was lost while this one was trained.

    Looks at the accuracy of every task by itself: those in `eval.also`, and those of a mixture. The latest is held
    against the first, from before training. It is an alarm when it fell by more than `tax`, and by more than the noise
    of both, which counts the more the more evaluations and tasks there were (`beyond`). The name is of Askell et al.
    2021 (arXiv:2112.00861).
    """
    split = [name.rpartition("/") for name in history.names]
    tasks = [task for task, _, metric in split if metric == "accuracy" and task not in ("", "train", "validation")]
    compared = {task: scores for task in tasks if len(scores := history.scores(f"{task}/accuracy")) > 1}
    z = beyond(sum(len(scores) - 1 for scores in compared.values()))
    worst: Found | None = None
    for task, scores in compared.items():
        gain, error = difference(scores[0], scores[-1])
        limit = max(config.tax, z * error)
        if -gain > limit and (worst is None or -gain > worst.value):
            fell = f"from {scores[0].value:.1%} {said(scores[0].step)} to {scores[-1].value:.1%}"
            worst = Found(f"accuracy on `{task}` fell {fell} ({gain:+.1%} ± {z * error:.1%})", -gain, limit)
    return worst


def said(step: int) -> str:
    """When an evaluation was."""
    return "before training" if step == BEFORE else f"after step {step + 1}"


ALL = (
    Guard(
        "reward-hacking",
        "training reward up while held-out accuracy is flat or falls",
        "read the best paid rows of `rollouts.jsonl`, mend what pays for them; anchor with `learner.kl_coef`",
        "reward_rise",
        reward_hacking,
    ),
    Guard(
        "kl-spike",
        "KL to the reference past its target, or a jump of it",
        "lower `learner.lr` or `learner.updates_per_step`, raise `learner.kl_coef`; go back to an earlier checkpoint",
        "kl_factor",
        kl_spike,
    ),
    Guard(
        "entropy-collapse",
        "entropy gone while most answers are wrong",
        "go back to an earlier checkpoint; raise `learner.clip_high` or `learner.entropy_coef`, or lower `learner.lr`",
        "entropy_share",
        entropy_collapse,
    ),
    Guard(
        "mode-collapse",
        "completions begin alike whatever the prompt, more than at the start, and are no better for it",
        "look at `rollouts.jsonl` for what pays for that opener; anchor with `learner.kl_coef`, or lower `learner.lr`",
        "opener_rise",
        mode_collapse,
    ),
    Guard(
        "length-drift",
        "mean length moved by a factor without a gain in accuracy",
        "see what pays for length in `rollouts.jsonl`; `reward.overlong=soft`, or `learner.aggregate=constant`",
        "length_factor",
        length_drift,
    ),
    Guard(
        "small-group",
        "standard error of the group's baseline against the deviation of rewards",
        "raise `sampler.group_size`, mend verdicts that are missing, or take an algorithm without groups: `ppo`",
        "baseline_error",
        small_group,
    ),
    Guard(
        "reference-not-frozen",
        "fingerprint of the reference's weights against the first one",
        "nothing may train or overwrite the reference: keep it in a folder of its own, and start again",
        "",
        reference_not_frozen,
    ),
    Guard(
        "reward-model-overfitting",
        "pairwise accuracy on training pairs up while validation accuracy falls or validation loss rises",
        "take an earlier checkpoint: fewer `epochs`, less `patience`, a lower `lr`, or more pairs",
        "loss_rise",
        reward_model_overfitting,
    ),
    Guard(
        "alignment-tax",
        "accuracy on another task below what it was before training",
        "mix that task in, as in `--task this:0.7,other:0.3`; anchor with `learner.kl_coef`, or train adapters",
        "tax",
        alignment_tax,
    ),
)

GUARDS: Mapping[str, Guard] = {guard.name: guard for guard in ALL}
"""Every guard by its name."""


class Watch:
    """Looks at the metrics of a run as they come. A guard that fired is silent until it has found nothing for a while.

    Args:
        config: The run's settings for guards.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self._history = History()
        self._quiet: dict[str, int] = {}  # guards that fired, and the rows since they last found something

    @property
    def step(self) -> int:
        """Of the latest row; `BEFORE` where there is none."""
        return self._history.step

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes the rows of a run that is gone on with; what fired then does not fire again."""
        for row in rows:
            self.look(row)

    def look(self, row: Mapping[str, Any]) -> list[Alarm]:
        """Adds a row of metrics; returns the alarms that are new."""
        self._history.add(row)
        if self.config.action == "off":
            return []
        new = []
        for guard in ALL:
            alarm = guard.look(self._history, self.config)
            if alarm is None:
                if guard.name in self._quiet:
                    self._quiet[guard.name] += 1
                continue
            if self._quiet.get(guard.name, REARM) >= REARM:
                new.append(alarm)
            self._quiet[guard.name] = 0
        return new
