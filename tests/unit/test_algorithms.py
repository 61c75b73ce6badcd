"""Every algorithm against a plain learner that takes one row at a time, with all logits, nothing packed or skipped."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlvr import Completion, Sample, SamplingParams, Verdict
from rlvr.advantage import credits
from rlvr.algorithms import ALGORITHMS
from rlvr.config import LearnerConfig, LoraConfig
from rlvr.learner.adapters import add_adapters
from rlvr.learner.batch import into_bins
from rlvr.learner.learner import Learner
from rlvr.learner.modules import Critic, logprobs_of
from rlvr.rollout import Group, Row
from rlvr.sampler.transformers import TransformersSampler

TEMPERATURE = 0.8
MAX_TOKENS = 12
PROMPTS = ["1+2=?", "7", "a b c d 3-1=?", "09"]
REWARDS = [[1.0, 0.0, 0.5], [0.0, 0.0, 1.0], [0.2, 1.0, 0.0], [1.0, 1.0, 1.0]]
BASE = LearnerConfig(lr=1e-2, grad_clip=0.0)
# Large enough for AdamW to be smooth: what is rounding in a gradient would else be a full step.
ADAM_EPSILON = 1e-3

# PEFT asks transformers for something by its old name.
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def recipe(name: str, **settings: Any) -> LearnerConfig:
    own = {key.removeprefix("learner."): value for key, value in ALGORITHMS[name].settings.items() if "learner." in key}
    return replace(BASE, **own | settings)


KL: dict[str, Any] = {"kl_coef": 0.3}
IN_REWARD: dict[str, Any] = {"kl_coef": 0.3, "kl_in": "reward"}

CONFIGS: dict[str, LearnerConfig] = {name: recipe(name) for name in ALGORITHMS} | {
    "reinforce++-baseline": recipe("reinforce++", advantage="reinforce++-baseline"),
    "reinforce++, discounted": recipe("reinforce++", gamma=0.9, scale="none"),
    "ppo, discounted": recipe("ppo", gamma=0.9, gae_lambda=0.5, value_clip=0.0, value_lr=3e-3),
    "k1": recipe("grpo", **KL, kl_estimator="k1"),
    "k2": recipe("dr-grpo", **KL, kl_estimator="k2"),
    "k3": recipe("dapo", **KL, kl_estimator="k3"),
    "gspo, k3": recipe("gspo", **KL),
    "grpo, in reward": recipe("grpo", **IN_REWARD),
    "rloo, in reward": recipe("rloo", **IN_REWARD, kl_estimator="k1"),
    "reinforce++, in reward": recipe("reinforce++", **IN_REWARD, kl_estimator="k2"),
    "ppo, in reward": recipe("ppo", **IN_REWARD, kl_estimator="k1"),
    "entropy": recipe("dapo", entropy_coef=0.1),
    "dual clip": recipe("grpo", dual_clip=1.1),
    "token": recipe("dapo", correction="token", correction_cap=1.2),
    "sequence": recipe("grpo", correction="sequence", correction_cap=1.5, **KL),
    "masked": recipe("cispo", correction="token", correction_mask=True, correction_cap=1.2),
    "gspo, token": recipe("gspo", correction="token", correction_cap=1.2),
    "later updates": recipe("dapo", epochs=2, updates_per_step=2),
    "later updates, corrected": recipe("dapo", epochs=2, updates_per_step=3, correction="token", correction_cap=1.2),
    "gspo, later updates": recipe("gspo", clip_low=0.1, clip_high=0.1, updates_per_step=2, correction="sequence"),
}


@pytest.fixture(scope="module")
def groups(model: Any, tokenizer: Any) -> list[list[Row]]:
    """Four groups of four rows, of which one is there twice; one row is in part by the environment; the sampler is a
    little off, so that some ratios are clipped. What a row is credited with is not filled in."""
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    noise = torch.Generator().manual_seed(0)
    rows: list[list[Row]] = [[] for _ in prompts]
    drawn = TransformersSampler(model, tokenizer).sample(prompts, 3, SamplingParams(MAX_TOKENS, TEMPERATURE, seed=1))
    for index, completion in drawn:
        shift = 0.3 * torch.randn(len(completion.token_ids), generator=noise)
        old = tuple((torch.tensor(completion.logprobs) + shift).tolist())
        reward = REWARDS[index][len(rows[index])]
        rows[index].append(Row(tuple(prompts[index]), completion.token_ids, old, math.nan, reward=reward))
    told = max(rows[2], key=lambda row: row.written)
    assert told.written > 5
    rows[2][rows[2].index(told)] = replace(told, foreign=((2, 4),))
    return [[*group, group[0]] for group in rows]


def credited(groups: Sequence[Sequence[Row]], config: LearnerConfig) -> list[list[Row]]:
    """As the loop hands them to the learner."""
    found = []
    for group in groups:
        values = credits([row.reward for row in group], config.advantage, config.scale)
        found.append([replace(row, advantage=a or 0.0) for row, a in zip(group, values, strict=True)])
    return found


# ------------------------------------------------------------------------------------------------ a plain learner


def written(row: Row) -> list[int]:
    return [t for t in range(len(row.completion_ids)) if not any(a <= t < b for a, b in row.foreign)]


def single(model: Any, row: Row) -> tuple[Tensor, Tensor]:
    """Log-probabilities of what the policy wrote of one row, and entropies."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1] / TEMPERATURE
    logp = logits.log_softmax(dim=-1)[written(row)]
    targets = torch.tensor(row.completion_ids)[written(row)]
    return logp.gather(1, targets[:, None])[:, 0], -(logp.exp() * logp).sum(dim=-1)


def single_values(critic: Critic, row: Row) -> Tensor:
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    hidden = critic.trunk(input_ids=ids).last_hidden_state[0, len(row.prompt_ids) - 1 : -1]
    return critic.head(hidden)[written(row), 0]


def estimate(new: Tensor, reference: Tensor, estimator: str) -> Tensor:
    d = reference - new
    return {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - 1 - d}[estimator]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))


@dataclass
class Update:
    """What one optimiser update came from."""

    loss: float
    gradient: list[Tensor]
    value_loss: float = 0.0


@dataclass
class Plain:
    """Does what `Learner.update` says, the long way."""

    model: Any
    config: LearnerConfig
    reference: Any = None
    critic: Any = None
    level: str = "off"
    steps: int = 0
    optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        parts = [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": config.lr}]
        if self.critic is not None:
            parts.append({"params": list(self.critic.parameters()), "lr": config.value_lr or config.lr})
        self.optimizer = torch.optim.AdamW(
            parts, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay, eps=ADAM_EPSILON
        )

    def trained(self) -> list[Tensor]:
        return [p for part in self.optimizer.param_groups for p in part["params"]]

    def update(self, groups: Sequence[Sequence[Row]]) -> list[Update]:
        """One step of groups as they were sampled, what is there twice being there twice."""
        config = self.config
        rows = [row for group in groups for row in group]
        with torch.no_grad():
            start = {row: single(self.model, row)[0] for row in rows}
            reference = {row: single(self.reference, row)[0] for row in rows} if self.reference else {}
            values = {row: single_values(self.critic, row) for row in rows} if self.critic else {}
        penalty = {row: torch.zeros(row.written) for row in rows}
        if reference and config.kl_in == "reward":
            for row in rows:
                old = torch.tensor(row.old_logprobs)[written(row)]
                penalty[row] = config.kl_coef * estimate(old, reference[row], config.kl_estimator)
        advantages, returns = self.advantages(groups, penalty, values)
        updates = []
        for epoch in range(config.epochs):
            order = [group for group in groups if group]
            if epoch:
                random.Random(f"0/{self.steps}/{epoch}").shuffle(order)
            edges = [part * len(order) // config.updates_per_step for part in range(config.updates_per_step + 1)]
            for a, b in itertools.pairwise(edges):
                if a < b:
                    part = [row for group in order[a:b] for row in group]
                    updates.append(self.one(part, start, reference, values, advantages, returns))
        self.steps += 1
        return updates

    def advantages(
        self, groups: Sequence[Sequence[Row]], penalty: dict[Row, Tensor], values: dict[Row, Tensor]
    ) -> tuple[dict[Row, Tensor], dict[Row, Tensor]]:
        """Advantages and returns of the tokens that the policy wrote, by row."""
        config, found = self.config, {}
        rows = [row for group in groups for row in group]
        if config.advantage in ("group", "rloo"):
            for group in groups:
                rewards = [row.reward - penalty[row].sum().item() for row in group]
                mean, deviation = mean_and_deviation(rewards)
                for i, row in enumerate(group):
                    if config.advantage == "group":
                        a = (rewards[i] - mean) / (deviation + 1e-4 if config.scale == "std" else 1)
                    else:
                        a = rewards[i] - (sum(rewards) - rewards[i]) / (len(group) - 1)
                    found[row] = torch.full((row.written,), a)
            return found, {}
        rewards_of = {}
        for group in groups:
            mean = mean_and_deviation([row.reward for row in group])[0]
            for row in group:
                rewards_of[row] = -penalty[row]
                rewards_of[row][-1] += row.reward - (mean if config.advantage == "reinforce++-baseline" else 0)
        if config.whiten_rewards:
            deviation = mean_and_deviation([sum(rewards_of[row].tolist()) for row in rows])[1]
            rewards_of = {row: rewards / deviation for row, rewards in rewards_of.items()}
        returns = {}
        for row in rows:
            v = [*(values[row].tolist() if values else [0.0] * row.written), 0.0]
            decay = config.gamma * (config.gae_lambda if values else 1.0)
            deltas = [r + config.gamma * v[t + 1] - v[t] for t, r in enumerate(rewards_of[row].tolist())]
            sums = torch.tensor([sum(decay**k * d for k, d in enumerate(deltas[t:])) for t in range(row.written)])
            found[row], returns[row] = sums, sums + torch.tensor(v[:-1])
        mean, deviation = mean_and_deviation([a for row in rows for a in found[row].tolist()])
        return {row: (a - mean) / (deviation if config.scale == "std" else 1) for row, a in found.items()}, returns

    def one(
        self,
        rows: Sequence[Row],
        start: dict[Row, Tensor],
        reference: dict[Row, Tensor],
        values: dict[Row, Tensor],
        advantages: dict[Row, Tensor],
        returns: dict[Row, Tensor],
    ) -> Update:
        """One optimiser update."""
        config = self.config
        total = sum(row.written for row in rows)
        loss, v_loss = torch.zeros(()), torch.zeros(())
        for row in rows:
            new, entropy = single(self.model, row)
            sampled, weight = torch.tensor(row.old_logprobs)[written(row)], torch.ones(row.written)
            old = sampled
            if self.level != "off":
                weight = (start[row] - sampled).exp()
                if self.level == "sequence":
                    weight = (start[row] - sampled).sum().exp().expand(row.written)
                above = weight > config.correction_cap
                weight = torch.where(above, 0.0 if config.correction_mask else config.correction_cap, weight)
                old = start[row]
            terms = self.terms(new, old, advantages[row]) * weight
            if reference and config.kl_in == "loss":
                terms = terms + config.kl_coef * weight * estimate(new, reference[row], config.kl_estimator)
            terms = terms - config.entropy_coef * entropy
            share = {
                "token": 1 / total,
                "sequence": 1 / (row.written * len(rows)),
                "constant": 1 / (len(rows) * MAX_TOKENS),
            }[config.aggregate]
            loss = loss + share * terms.sum()
            if values:
                v = single_values(self.critic, row)
                errors = (v - returns[row]) ** 2
                if config.value_clip:
                    near = values[row] + (v - values[row]).clamp(-config.value_clip, config.value_clip)
                    errors = torch.maximum(errors, (near - returns[row]) ** 2)
                v_loss = v_loss + share * errors.sum() / 2
        (loss + v_loss).backward()
        gradient = [zeros_for_none(p) for p in self.trained()]
        if any(part.any() for part in gradient):  # momentum alone moves nothing
            self.optimizer.step()
        self.optimizer.zero_grad()
        return Update(loss.item(), gradient, v_loss.item())

    def terms(self, new: Tensor, old: Tensor, a: Tensor) -> Tensor:
        """The loss of each token."""
        config, log_ratio = self.config, new - old
        low, high = 1 - config.clip_low, 1 + config.clip_high
        if config.loss == "cispo":
            return -log_ratio.exp().clamp(low, high).detach() * a * new
        ratio = (log_ratio.mean().expand_as(log_ratio) if config.loss == "gspo" else log_ratio).exp()
        gain = torch.minimum(ratio * a, ratio.clamp(low, high) * a)
        if config.dual_clip:
            gain = torch.where(a < 0, torch.maximum(gain, config.dual_clip * a), gain)
        return -gain


def zeros_for_none(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach().clone()


class Recorder:
    """A learner that keeps the gradient of each of its updates."""

    def __init__(self, model: Any, config: LearnerConfig, accelerator: Any, reference: Any = None, critic: Any = None):
        self.learner = Learner(model, config, 10, accelerator, reference, critic=critic, max_tokens=MAX_TOKENS)
        self.gradients: list[list[Tensor]] = []
        self.norms: list[float] = []
        for part in self.learner.optimizer.param_groups:
            part["eps"] = ADAM_EPSILON
        self.learner.optimizer.register_step_pre_hook(self._keep)

    def trained(self) -> list[Tensor]:
        return [p for part in self.learner.optimizer.param_groups for p in part["params"]]

    def _keep(self, *_: Any) -> None:
        self.gradients.append([zeros_for_none(p) for p in self.trained()])

    def update(self, groups: Sequence[Sequence[Row]]) -> dict[str, float]:
        return self.learner.update(credited(groups, self.learner.config), TEMPERATURE)


def norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(t.square().sum().item() for t in tensors))


def apart(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest difference of two lists of tensors."""
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def check(recorder: Recorder, plain: Plain, groups: Sequence[Sequence[Row]], steps: int = 1) -> None:
    """Losses, gradients and weights are those of the plain learner."""
    for _ in range(steps):
        recorder.gradients.clear()
        stats, updates = recorder.update(groups), plain.update(groups)
        compare(stats, recorder, updates, plain.trained())


def compare(stats: dict[str, float], recorder: Recorder, updates: Sequence[Update], weights: Sequence[Tensor]) -> None:
    assert len(recorder.gradients) == len(updates)
    assert stats["loss"] == pytest.approx(sum(u.loss for u in updates) / len(updates), abs=1e-5, rel=1e-4)
    if "value_loss" in stats:
        assert stats["value_loss"] == pytest.approx(sum(u.value_loss for u in updates) / len(updates), rel=1e-4)
    for ours, update in zip(recorder.gradients, updates, strict=True):
        assert apart(ours, update.gradient) < 3e-5 * max(norm(update.gradient), 0.1)
    assert apart(recorder.trained(), weights) < 1e-5


# ---------------------------------------------------------------------------------------------- every algorithm

LAYOUTS: dict[str, tuple[int, float, Any]] = {
    "one by one": (1, 2.0, into_bins),
    "60 tokens": (60, 2.0, into_bins),
    "one micro-batch": (16384, 2.0, into_bins),
    "prompts shared": (16384, 0.0, lambda tokens, packs, *_: [[pack] for pack in packs]),
    "nothing shared": (100, 1e9, lambda tokens, packs, *_: [[pack] for pack in packs]),
    "in one row": (60, 0.0, lambda tokens, packs, cost, one_row: into_bins(tokens, packs, cost, True)),
}


@pytest.fixture(scope="module")
def expected(fresh_model: Callable[..., Any], groups: list[list[Row]]) -> Callable[[str], tuple[list[Update], Plain]]:
    """What a plain learner makes of a config, once for all layouts."""

    @cache
    def found(name: str) -> tuple[list[Update], Plain]:
        config = CONFIGS[name]
        plain = Plain(
            fresh_model(),
            config,
            fresh_model(seed=1) if config.kl_coef else None,
            critic_of(fresh_model) if config.advantage == "gae" else None,
            level="off" if config.correction == "auto" else config.correction,
        )
        return plain.update(groups), plain

    return found


def critic_of(fresh_model: Callable[..., Any]) -> Critic:
    """A value model that does not begin with 0 everywhere."""
    critic = Critic(fresh_model(seed=3))
    with torch.no_grad():
        critic.head.weight.copy_(0.2 * torch.randn(16, generator=torch.Generator().manual_seed(0)))
        critic.head.bias.fill_(0.3)
    return critic


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_an_update_is_that_of_the_plain_learner(
    fresh_model: Callable[..., Any],
    groups: list[list[Row]],
    expected: Callable[[str], tuple[list[Update], Plain]],
    accelerator: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    layout: str,
) -> None:
    tokens, handicap, bins = LAYOUTS[layout]
    monkeypatch.setattr("rlvr.learner.batch.MASK_HANDICAP", handicap)
    monkeypatch.setattr("rlvr.learner.learner.into_bins", bins)
    config = replace(CONFIGS[name], micro_batch_tokens=tokens)
    reference = fresh_model(seed=1) if config.kl_coef else None
    critic = critic_of(fresh_model) if config.advantage == "gae" else None
    recorder = Recorder(fresh_model(), config, accelerator, reference, critic)
    stats = recorder.update(groups)
    updates, plain = expected(name)
    compare(stats, recorder, updates, plain.trained())


def test_the_algorithms_differ(expected: Callable[[str], tuple[list[Update], Plain]]) -> None:
    """Else the comparisons with the plain learner would say little."""
    gradients = {name: expected(name)[0][0].gradient for name in CONFIGS if CONFIGS[name].advantage != "gae"}
    same = {
        (a, b)
        for a, b in itertools.combinations(gradients, 2)
        if apart(gradients[a], gradients[b]) < 1e-3 * norm(gradients[a])
    }
    assert same == set()


@pytest.mark.parametrize("name", ["ppo", "ppo, in reward"])
def test_steps_of_ppo_are_those_of_the_plain_learner(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, name: str
) -> None:
    """Values move, so that those of a step are clipped around where it began."""
    config = CONFIGS[name]
    reference = fresh_model(seed=1) if config.kl_coef else None
    recorder = Recorder(
        fresh_model(), replace(config, micro_batch_tokens=60), accelerator, reference, critic_of(fresh_model)
    )
    check(recorder, Plain(fresh_model(), config, reference, critic_of(fresh_model)), groups, steps=2)


def test_a_new_value_model_says_zero_and_learns(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    config = recipe("ppo", whiten_rewards=False, value_lr=1e-2)
    learner = Learner(fresh_model(), config, 10, accelerator, critic=Critic(fresh_model(seed=3)))
    rows = credited(groups, config)
    stats = [learner.update(rows, TEMPERATURE) for _ in range(8)]
    tokens = [row.reward for group in rows for row in group for _ in range(row.written)]
    assert stats[0]["return"] == pytest.approx(
        # V is 0, so that returns are advantages: the reward, decayed
        sum(row.reward * sum(0.95**k for k in range(row.written)) for group in rows for row in group) / len(tokens),
        rel=1e-5,
    )
    assert stats[-1]["value_error"] < 0.7 * stats[0]["value_error"]


def test_while_the_value_model_warms_up_the_policy_stays(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    config = recipe("ppo", value_warmup=1)
    recorder = Recorder(fresh_model(), config, accelerator, critic=critic_of(fresh_model))
    before = {name: [p.detach().clone() for p in m.parameters()] for name, m in recorder.learner.modules.items()}
    for step in range(2):
        recorder.update(groups)
        moved = {
            name: apart([p.detach() for p in module.parameters()], before[name]) > 0
            for name, module in recorder.learner.modules.items()
        }
        assert moved == {"policy": step == 1, "critic": True}


@pytest.mark.parametrize("name", [*ALGORITHMS, "reinforce++-baseline"])
def test_a_missing_verdict_moves_nothing(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, name: str
) -> None:
    config = CONFIGS[name]

    def update(rewards: Sequence[float | None], rows: Sequence[Row]) -> list[list[Tensor]]:
        group = Group(
            Sample("1"),
            rows[0].prompt_ids,
            tuple(Completion("", row.completion_ids, row.old_logprobs) for row in rows),
            tuple(Verdict.error("crashed") if r is None else Verdict.of(r > 0, "seen") for r in rewards),
            tuple(rewards),
            tuple(rewards),
            tuple(credits(rewards, config.advantage, config.scale)),
        )
        critic = critic_of(fresh_model) if config.advantage == "gae" else None
        recorder = Recorder(fresh_model(), config, accelerator, critic=critic)
        recorder.learner.update([group.rows()], TEMPERATURE)
        return recorder.gradients

    first, second, third, _ = groups[0]
    missing = update([1.0, None, 0.0], [first, second, third])
    removed = update([1.0, 0.0], [first, third])
    bad = update([1.0, 0.0, 0.0], [first, second, third])
    assert len(missing) == len(removed) == len(bad) > 0
    assert all(apart(a, b) == 0 for a, b in zip(missing, removed, strict=True))
    assert apart(missing[0], bad[0]) > 0


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr-grpo", "rloo", "gspo"])
def test_rows_without_advantage_are_not_computed_but_count(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, name: str
) -> None:
    """A group that is solved by all halves the loss of another, at no cost."""
    config = CONFIGS[name]
    equal = [replace(groups[0][0], completion_ids=row.completion_ids, reward=1.0) for row in groups[0]]
    passes: list[list[int]] = []
    gradients = []
    for given in ([groups[0]], [groups[0], equal]):
        recorder = Recorder(fresh_model(), config, accelerator)
        columns: list[int] = []
        recorder.learner.policy.get_decoder().register_forward_pre_hook(
            lambda *a, to=columns: to.append(a[-1]["input_ids"].numel()), with_kwargs=True
        )
        recorder.update(given)
        passes.append(columns)
        gradients.append(recorder.gradients[0])
    assert passes[0] == passes[1] != []
    assert apart([g / 2 for g in gradients[0]], gradients[1]) < 1e-6 * norm(gradients[0])


# ---------------------------------------------------------------------------------------------- KL and adapters


def test_the_weight_of_the_kl_that_is_reported_is_the_one_that_was_used_and_then_it_adapts(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    config = recipe("dapo", kl_coef=0.3, kl_target=1e-3, kl_horizon=100)
    recorder = Recorder(fresh_model(), config, accelerator, fresh_model(seed=1))
    plain = Plain(fresh_model(), config, fresh_model(seed=1))
    for step in range(2):
        recorder.gradients.clear()
        stats = recorder.update(groups)
        coef = 0.3 * (1 + 0.2 * 16 / 100) ** step
        assert stats["kl_coef"] == pytest.approx(coef)
        plain.config = replace(config, kl_coef=coef)
        compare(stats, recorder, plain.update(groups), plain.trained())


def test_the_reference_stays_bit_by_bit(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    reference, before = fresh_model(seed=1), fresh_model(seed=1)
    recorder = Recorder(fresh_model(), recipe("ppo", **KL), accelerator, reference, critic_of(fresh_model))
    for _ in range(2):
        recorder.update(groups)
    assert apart(list(reference.parameters()), list(before.parameters())) == 0
    assert all(p.grad is None and not p.requires_grad for p in reference.parameters())
    trained = {id(p) for p in recorder.trained()}
    assert not trained & {id(p) for p in reference.parameters()}


def adapted(fresh_model: Callable[..., Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return add_adapters(fresh_model(), LoraConfig(rank=2))


@peft_warns
@pytest.mark.parametrize("kl_in", ["loss", "reward"])
@pytest.mark.parametrize("micro_batch_tokens", [1, 16384])
def test_with_adapters_the_reference_is_the_policy_without_them(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, kl_in: Any, micro_batch_tokens: int
) -> None:
    config = recipe("grpo", **KL, kl_in=kl_in, micro_batch_tokens=micro_batch_tokens)
    model = adapted(fresh_model)
    base = {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" not in name}
    start = [p.detach().clone() for name, p in model.named_parameters() if "lora_" in name]
    recorder = Recorder(model, config, accelerator)
    assert recorder.learner.reference is None
    plain = Plain(adapted(fresh_model), config, fresh_model())
    stats = recorder.update(groups)
    compare(stats, recorder, plain.update(groups), plain.trained())
    assert stats["kl"] == pytest.approx(0, abs=1e-6)
    recorder.gradients.clear()
    stats = recorder.update(groups)
    compare(stats, recorder, plain.update(groups), plain.trained())
    assert stats["kl"] > 1e-3
    for name, parameter in model.named_parameters():
        if name in base:
            assert torch.equal(parameter, base[name])
            assert parameter.grad is None
    moved = [p for name, p in model.named_parameters() if "lora_" in name]
    assert all(not torch.equal(a, b) for a, b in zip(moved, start, strict=True))
    assert len(recorder.trained()) == len(moved)


@peft_warns
def test_adapters_with_a_value_model(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    config = recipe("ppo", micro_batch_tokens=60)
    recorder = Recorder(adapted(fresh_model), config, accelerator, critic=critic_of(fresh_model))
    check(recorder, Plain(adapted(fresh_model), config, critic=critic_of(fresh_model)), groups, steps=2)


# ------------------------------------------------------------------------------------------ ways to compute it


@pytest.mark.parametrize("name", ["dapo", "ppo"])
def test_recomputing_activations_changes_nothing_but_the_work(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, name: str
) -> None:
    found = {}
    for recompute in (False, True):
        critic = critic_of(fresh_model) if name == "ppo" else None
        recorder = Recorder(fresh_model(), replace(CONFIGS[name], recompute=recompute), accelerator, critic=critic)
        calls: list[int] = []
        trunks = [recorder.learner.policy.get_decoder(), *([critic.trunk] if critic else [])]
        for number, trunk in enumerate(trunks):
            trunk.layers[0].mlp.register_forward_pre_hook(lambda *_, to=calls, n=number: to.append(n))
        recorder.update(groups)
        calls.clear()
        stats = recorder.update(groups)
        found[recompute] = stats, recorder.gradients, [calls.count(number) for number in range(len(trunks))]
    updates = CONFIGS[name].epochs * CONFIGS[name].updates_per_step
    assert [b - a for a, b in zip(found[False][2], found[True][2], strict=True)] == [updates] * len(found[True][2])
    for ours, theirs in zip(found[True][1], found[False][1], strict=True):
        assert apart(ours, theirs) < 1e-6 * norm(theirs)
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-4, abs=1e-6)


def test_recomputing_does_not_turn_dropout_on(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    model = fresh_model("gpt2").train()
    recorder = Recorder(model, replace(CONFIGS["dapo"], recompute=True), accelerator)
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    check(recorder, Plain(fresh_model("gpt2"), CONFIGS["dapo"]), groups)


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("micro_batch_tokens", [60, 16384])
def test_attention_backends(
    fresh_model: Callable[..., Any],
    groups: list[list[Row]],
    accelerator: Any,
    family: str,
    backend: str,
    micro_batch_tokens: int,
) -> None:
    """Mistral's has a sliding window of 6, narrower than the rows."""
    model = fresh_model(family)
    model.set_attn_implementation(backend)
    config = replace(CONFIGS["dapo"], micro_batch_tokens=micro_batch_tokens)
    recorder = Recorder(model, config, accelerator)
    check(recorder, Plain(fresh_model(family), config), groups)
    assert recorder.learner._shares_prompts == (family == "qwen2" and backend == "sdpa")


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.4,
}
PECULIAR: dict[str, dict[str, Any]] = {
    "gemma2": SIZES | {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 6},
    "granite": SIZES | {"logits_scaling": 3.0},
    "cohere": SIZES | {"logit_scale": 0.5},
}


def peculiar(tokenizer: Any, family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=1, pad_token_id=0, **PECULIAR[family]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).float().eval()


@pytest.mark.parametrize("family", PECULIAR)
@pytest.mark.parametrize("name", ["dapo", "entropy", "k3"])
def test_models_whose_logits_are_more_than_a_linear_layer(
    tokenizer: Any, groups: list[list[Row]], accelerator: Any, family: str, name: str
) -> None:
    config = CONFIGS[name]
    references = [peculiar(tokenizer, family) if config.kl_coef else None for _ in range(2)]
    recorder = Recorder(peculiar(tokenizer, family), config, accelerator, references[0])
    check(recorder, Plain(peculiar(tokenizer, family), config, references[1]), groups, steps=2)
    assert not recorder.learner.module.chunked


@pytest.mark.parametrize("family", PECULIAR)
def test_that_is_known_before_the_first_rows(tokenizer: Any, accelerator: Any, family: str) -> None:
    """Rows that the model is sure of would not tell; and vLLM is probed before there are any."""
    model = peculiar(tokenizer, family)
    learner = Learner(model, CONFIGS["dapo"], 10, accelerator)
    assert not learner.module.chunked
    assert learner.logprobs_of([5, 6, 7, 8]) == pytest.approx(logprobs_of(model, [5, 6, 7, 8]), abs=1e-4)


def test_a_reference_is_computed_in_its_own_way(
    fresh_model: Callable[..., Any], tokenizer: Any, accelerator: Any
) -> None:
    learner = Learner(fresh_model(), CONFIGS["k3"], 10, accelerator, peculiar(tokenizer, "granite"))
    assert (learner.module.chunked, learner.reference.chunked) == (True, False)


def test_an_ordinary_model_is_computed_in_chunks(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlvr.learner.logprobs.CHUNK_LOGITS", 100)
    recorder = Recorder(fresh_model(), CONFIGS["entropy"], accelerator)
    check(recorder, Plain(fresh_model(), CONFIGS["entropy"]), groups)
    assert recorder.learner.module.chunked
