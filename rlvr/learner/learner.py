"""The learner: policy, optimiser, and one `update` that turns the rows of a step into a better policy."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlvr.advantage import credits
from rlvr.config import LearnerConfig
from rlvr.errors import Diverged
from rlvr.learner.batch import Batch, Cost, Pack, Tokens, into_bins, lay_out, make_packs, micro_batches
from rlvr.learner.correction import Level, Mismatch, correction, resolve_correction
from rlvr.learner.loss import kl_estimate, policy_loss, token_weight, value_loss
from rlvr.learner.modules import (
    Critic,
    PolicyModule,
    base_model,
    fingerprint,
    frozen,
    learning_mode,
    logprobs_of,
    recompute_layers,
)
from rlvr.learner.parallel import largest, last_one_syncs, spread, total, totals
from rlvr.learner.policy import named_weights, whole
from rlvr.learner.returns import KLController, deviation, gae, whiten
from rlvr.rollout import Row

__all__ = ["Learner", "logprobs_of"]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the tokens of a step before its updates; None is not needed.

    Attributes:
        advantages_T: Advantage of each token [T].
        old_T: log π_old by the learner, for the rows that need it [T].
        reference_T: log π_ref [T].
        values_T: V by the value model [T].
        returns_T: What V should be [T].
    """

    advantages_T: Tensor
    old_T: Tensor | None = None
    reference_T: Tensor | None = None
    values_T: Tensor | None = None
    returns_T: Tensor | None = None


class Learner:
    """Owns the policy's optimiser and schedule, and with PPO the value model's.

    Every process of a run has one, is given the same rows, and computes its share of them; the update is the same for
    any number of processes, micro-batches and packs, up to the order of sums.

    Args:
        model: The policy, shared with the sampler; with adapters (PEFT) only these are trained.
        config: Algorithm, learning rate, clipping, KL and the rest.
        total_updates: Optimiser updates of the whole run, for the schedule.
        accelerator: Places the model; decides the compute type.
        reference: The reference policy, which is frozen; needed where `config.kl_coef` is above 0, unless the policy
            has adapters: then it is the policy without them.
        correct: How the difference between sampler and learner is corrected; by default as `config.correction` says,
            `auto` being off.
        critic: The value model; needed exactly when `config.advantage` is `gae`.
        max_tokens: The longest that a completion may get, for `config.aggregate` `constant`.
        seed: Of the order of the groups from the second epoch of a step on.
        shard: Whether several processes have a copy of the weights each or a part.
    """

    def __init__(
        self,
        model: Any,
        config: LearnerConfig,
        total_updates: int,
        accelerator: Accelerator,
        reference: Any | None = None,
        correct: Level | None = None,
        critic: Critic | None = None,
        max_tokens: int = 1,
        seed: int = 0,
        shard: Literal["ddp", "fsdp"] = "ddp",
    ) -> None:
        self.config = config
        self.correct = correct or resolve_correction(config, engine=False)
        self.accelerator = accelerator
        self.max_tokens, self.seed = max_tokens, seed
        self.sharded = shard == "fsdp" and accelerator.num_processes > 1
        self.model = self.policy = model
        self.adapted = hasattr(model, "disable_adapter")
        for module in (model, critic.trunk if critic else None):
            if module is not None and config.recompute:
                recompute_layers(module)
        self.module = spread(PolicyModule(model), accelerator, shard)
        if not self.sharded:  # so that sampling computes in the same type
            self.model = accelerator.prepare_model(model, evaluation_mode=True)
        self.critic = spread(critic, accelerator, shard) if critic is not None else None
        self.reference = None
        if reference is not None:
            module = PolicyModule(frozen(reference))
            self.reference = spread(module, accelerator, shard) if self.sharded else module.to(accelerator.device)
        self.needs_reference = reference is not None or (config.kl_coef > 0 and self.adapted)
        rates = {"policy": config.lr, "critic": config.value_lr or config.lr}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in module.parameters() if p.requires_grad], "name": name, "lr": rates[name]}
                for name, module in self.modules.items()
            ],
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=accelerator.device.type in ("cuda", "cpu"),
        )
        self.scheduler = LambdaLR(
            self.optimizer, lambda update: lr_factor(update, config.warmup_steps, total_updates, config.schedule)
        )
        self.kl = KLController(config.kl_coef, config.kl_target, config.kl_horizon)
        self.steps = 0
        self._shares_prompts: bool | None = None  # not tried yet

    @property
    def modules(self) -> dict[str, Any]:
        """What has weights that are trained, by name."""
        return {"policy": self.module} | ({"critic": self.critic} if self.critic is not None else {})

    # ------------------------------------------------------------------------------------------------ one step

    def update(self, groups: Sequence[Sequence[Row]], temperature: float) -> dict[str, float]:
        """Learns from the groups of one step, in `epochs` times `updates_per_step` optimiser updates.

        Args:
            groups: Valid rows only, by group; rows of a missing verdict must not be here.
            temperature: The softmax temperature they were sampled at.

        Returns:
            Means over the updates of the step: loss, grad_norm, lr; and over the tokens that had a gradient, where
            there were any: entropy (nats), clip_fraction, old_kl (nats, to the policy that sampled), and what
            `Mismatch.metrics` says of sampler and learner, measured with the weights that the step began with: without
            a correction it leaves out the tokens of later updates. With a reference kl (nats by token) and kl_sequence
            (by completion, before the updates), kl_target where there is one, and reference_fingerprint, which does not
            change (not with FSDP); with a value model value_loss, value_grad_norm, value_error (of the
            returns' variance, what V does not explain) and return.

        Raises:
            Diverged: A gradient is not finite.
        """
        config = self.config
        for module in self.modules.values():
            learning_mode(module, config.recompute)
        tokens = Tokens(groups, self.accelerator.device)
        if tokens.rows:
            self._try(tokens, temperature)
        parts = [self._split(tokens, epoch) for epoch in range(config.epochs)]
        plans = [[number for group in part for number in group] for epoch in parts for part in epoch]
        plans = [plan for plan in plans if plan]
        known, metrics = self._look(tokens, plans, temperature)
        active = self._active(tokens, known)
        first = next((i for i, plan in enumerate(plans) if active.intersection(plan)), 0)  # that moves the weights
        mismatch = Mismatch()
        stats = []
        for i, plan in enumerate(plans):
            stats.append(self._update(tokens, plan, active, known, temperature, mismatch, moved=i > first))
        self.steps += 1
        if "kl_sequence" in metrics:
            self.kl.update(metrics["kl_sequence"], sum(tokens.counts))
        means = {
            name: statistics.fmean(s[name] for s in stats if name in s)
            for name in dict.fromkeys(n for s in stats for n in s)
        }
        mismatch.sums = totals(mismatch.sums, self.accelerator.device)
        mismatch.largest = largest(mismatch.largest, self.accelerator.device)
        return means | metrics | mismatch.metrics(self.correct != "off")

    def _split(self, tokens: Tokens, epoch: int) -> list[list[list[int]]]:
        """The groups of each update of an epoch; in the first one in the order in which they came."""
        groups = [group for group in tokens.groups if group or not epoch]
        if epoch:
            random.Random(f"{self.seed}/{self.steps}/{epoch}").shuffle(groups)
        return [list(part) for part in split(groups, self.config.updates_per_step)]

    def _active(self, tokens: Tokens, known: Known) -> set[int]:
        """Rows that have a gradient: without KL, entropy bonus and value model not those of advantage 0."""
        if self.config.entropy_coef or self.needs_reference or self.critic is not None:
            return set(range(len(tokens.rows)))
        return set(tokens.row_T[known.advantages_T != 0].tolist())

    def _look(
        self, tokens: Tokens, plans: Sequence[Sequence[int]], temperature: float
    ) -> tuple[Known, dict[str, float]]:
        """What has to be known before the first update, computed only where something needs it."""
        config, every = self.config, range(len(tokens.rows))
        metrics: dict[str, float] = {}
        reference_T = values_T = old_T = returns_T = None
        if self.needs_reference:
            reference_T = self._sweep(tokens, every, lambda batch: self._reference(batch, temperature))
            kl_T = kl_estimate(tokens.sampled_T, reference_T, config.kl_estimator)
            sampled = torch.tensor(tokens.counts, device=kl_T.device)
            metrics["kl_sequence"] = float((tokens.row_sums(kl_T) * sampled).sum() / sampled.sum().clamp(min=1))
            metrics["kl_coef"] = self.kl.coef
            if config.kl_target:
                metrics["kl_target"] = config.kl_target
            if not self.sharded:
                metrics["reference_fingerprint"] = fingerprint(self.reference or self.module)
        if self.critic is not None:
            critic = self.critic
            values_T = self._sweep(tokens, every, critic)
        if self.correct != "off" and len(plans) > 1:  # the first update has them from its own forward pass
            later = {number for plan in plans[1:] for number in plan}
            old_T = self._sweep(tokens, sorted(later), lambda batch: self.module(batch, temperature)[0])
        in_reward_T = None
        if reference_T is not None and config.kl_in == "reward":
            in_reward_T = self.kl.coef * kl_estimate(tokens.sampled_T, reference_T, config.kl_estimator)
        advantages_T, returns_T = self._advantages(tokens, values_T, in_reward_T)
        if values_T is not None and returns_T is not None:
            counts_T = tokens.counts_T
            mean = (returns_T * counts_T).sum() / counts_T.sum().clamp(min=1)
            spread_T = ((returns_T - mean).square() * counts_T).sum().clamp(min=1e-8)
            metrics["return"] = float(mean)
            metrics["value_error"] = float(((returns_T - values_T).square() * counts_T).sum() / spread_T)
        return Known(advantages_T, old_T, reference_T, values_T, returns_T), metrics

    def _advantages(
        self, tokens: Tokens, values_T: Tensor | None, penalty_T: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Advantages of all tokens and, with a value model, returns.

        Args:
            tokens: The step.
            values_T: V of each token [T].
            penalty_T: What each token loses of its reward for the KL [T].
        """
        config, device = self.config, self.accelerator.device
        divide = config.scale == "std"
        if config.advantage in ("group", "rloo"):
            if penalty_T is None:
                return tokens.advantages_T, None
            taken = tokens.row_sums(penalty_T).tolist()
            found = [0.0] * len(tokens.rows)
            for group in tokens.groups:  # each row as often as it was sampled, as the baseline is over all of them
                copies = [number for number in group for _ in range(tokens.counts[number])]
                rewards = [tokens.rows[number].reward - taken[number] for number in copies]
                for number, advantage in zip(copies, credits(rewards, config.advantage, config.scale), strict=True):
                    found[number] = advantage or 0.0
            return tokens.per_token(found), None
        own = tokens.counts_T > 0
        if not own.any():
            return torch.zeros(len(tokens), device=device), None
        written = [row.written for row in tokens.rows]
        ends = torch.tensor(written, dtype=torch.long).cumsum(0) - 1
        rewards_T = torch.zeros(int(own.sum()), device=device)  # from here on T are the tokens that the policy wrote
        spoke = torch.tensor([n for n, length in enumerate(written) if length], dtype=torch.long)
        last = torch.tensor([tokens.rows[n].advantage for n in spoke.tolist()], device=device)
        rewards_T[ends[spoke].to(device)] = last
        if penalty_T is not None:
            rewards_T = rewards_T - penalty_T[own]
        counts = tokens.counts_T[own]
        if config.advantage == "gae":
            assert values_T is not None
            if config.whiten_rewards:
                scores = torch.zeros(len(tokens.rows), device=device).index_add(0, tokens.row_T[own], rewards_T)
                rewards_T = rewards_T / deviation(scores, torch.tensor(tokens.counts, device=device))
            advantages, returns = gae(rewards_T, values_T[own], written, config.gamma, config.gae_lambda)
        else:
            advantages, returns = gae(rewards_T, torch.zeros_like(rewards_T), written, config.gamma, 1.0)
        full = torch.zeros(len(tokens), device=device)
        advantages_T = full.masked_scatter(own, whiten(advantages, counts, divide=divide))
        return advantages_T, full.masked_scatter(own, returns) if values_T is not None else None

    def _update(
        self,
        tokens: Tokens,
        plan: Sequence[int],
        active: set[int],
        known: Known,
        temperature: float,
        mismatch: Mismatch,
        moved: bool,
    ) -> dict[str, float]:
        """One optimiser update.

        Args:
            tokens: The step.
            plan: Numbers of the rows of this update; they make up its denominator, whether active or not.
            active: Numbers of the rows of the step that have a gradient.
            known: What is known of the tokens.
            temperature: The softmax temperature of the log-probabilities.
            mismatch: Where sampler and learner are compared, as far as π_old is known.
            moved: Whether the weights are no longer those that the step began with.
        """
        config = self.config
        weights_T = self._weights(tokens, plan)
        processes = self.accelerator.num_processes
        sums = dict.fromkeys(("loss", "tokens", "entropy", "clip_fraction", "old_kl", "kl", "value_loss"), 0.0)
        micros = self._micros(tokens, [number for number in plan if number in active])
        for number, bins in enumerate(micros):
            batch, final = self._lay_out(tokens, bins), number == len(micros) - 1
            with last_one_syncs(self.module, self.accelerator, final):
                loss = self._policy_loss(batch, tokens, weights_T, known, temperature, mismatch, moved, sums)
                (loss * processes).backward()
            if self.critic is not None:
                with last_one_syncs(self.critic, self.accelerator, final):
                    loss = self._value_loss(batch, weights_T, known, sums)
                    (loss * processes).backward()
        sums = dict(zip(sums, totals(list(sums.values()), self.accelerator.device), strict=True))
        norms = {name: self._clip(module) for name, module in self.modules.items()}
        if not all(map(math.isfinite, norms.values())):
            self.optimizer.zero_grad()
            worst = next(norm for norm in norms.values() if not math.isfinite(norm))
            raise Diverged(f"the gradient norm is {worst}", "lower `learner.lr`, or use `--learner.dtype float32`")
        lr = float(self.optimizer.param_groups[0]["lr"])
        if self.critic is not None and self.steps < config.value_warmup:  # the policy's gradients are thrown away
            for parameter in self.module.parameters():
                parameter.grad = None
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        count = sums.pop("tokens")
        stats = {"loss": sums.pop("loss")}
        if self.critic is None:
            sums.pop("value_loss")
        else:
            stats |= {"value_loss": sums.pop("value_loss"), "value_grad_norm": norms["critic"]}
        if not self.needs_reference:
            sums.pop("kl")
        per_token = {name: value / count for name, value in sums.items()} if count else {}
        return stats | per_token | {"grad_norm": norms["policy"], "lr": lr}

    def _policy_loss(
        self,
        batch: Batch,
        tokens: Tokens,
        weights_T: Tensor,
        known: Known,
        temperature: float,
        mismatch: Mismatch,
        moved: bool,
        sums: dict[str, float],
    ) -> Tensor:
        """A micro-batch's share of the policy's loss; counts it into `sums` and `mismatch`."""
        config, which = self.config, batch.tokens_N
        logprobs_N, entropy_N = self.module(batch, temperature, config.entropy_coef > 0)
        counts_N, sampled_N = tokens.counts_T[which], tokens.sampled_T[which]
        old_N = None if moved else logprobs_N.detach()
        if moved and known.old_T is not None:
            old_N = known.old_T[which]
        start_N, factor_N, cut_N = sampled_N, None, None
        if old_N is not None:
            if self.correct != "off":
                cap, mask = config.correction_cap, config.correction_mask
                factor_N, cut_N = correction(old_N, sampled_N, batch.completions_N, self.correct, cap, mask)
                start_N = old_N
            mismatch.add(old_N, sampled_N, counts_N, cut_N, tokens.fresh_T[which])
        weights_N = weights_T[which]
        result = policy_loss(
            logprobs_N,
            start_N,
            known.advantages_T[which],
            weights_N,
            batch.completions_N,
            config.loss,
            config.clip_low,
            config.clip_high,
            config.dual_clip,
            factor_N,
        )
        loss = result.loss
        if known.reference_T is not None:
            kl_N = kl_estimate(logprobs_N, known.reference_T[which], config.kl_estimator)
            sums["kl"] += float((kl_N.detach() * counts_N).sum())
            if config.kl_in == "loss":
                corrected_N = kl_N if factor_N is None else kl_N * factor_N
                loss = loss + self.kl.coef * (corrected_N * weights_N).sum()
        if config.entropy_coef:
            loss = loss - config.entropy_coef * (entropy_N * weights_N).sum()
        sums["tokens"] += float(counts_N.sum())
        sums["loss"] += float(loss.detach())
        sums["entropy"] += float((entropy_N.detach() * counts_N).sum())
        sums["clip_fraction"] += float((result.clipped_N * counts_N).sum())
        sums["old_kl"] += float(((sampled_N - logprobs_N.detach()) * counts_N).sum())
        return loss

    def _value_loss(self, batch: Batch, weights_T: Tensor, known: Known, sums: dict[str, float]) -> Tensor:
        """A micro-batch's share of the value model's loss."""
        assert self.critic is not None
        assert known.values_T is not None
        assert known.returns_T is not None
        which = batch.tokens_N
        old_N, returns_N = known.values_T[which], known.returns_T[which]
        loss = value_loss(self.critic(batch), old_N, returns_N, weights_T[which], self.config.value_clip)
        sums["value_loss"] += float(loss.detach())
        return loss

    def _weights(self, tokens: Tokens, plan: Sequence[int]) -> Tensor:
        """The weight in the loss of each token, times how often it was sampled [T]; 0 outside of the update."""
        aggregate, rows = self.config.aggregate, tokens.rows
        completions = sum(tokens.counts[number] for number in plan)
        denominator = {
            "token": sum(tokens.counts[number] * rows[number].written for number in plan),
            "sequence": completions,
            "constant": completions * self.max_tokens,
        }[aggregate]
        weights = [0.0] * len(rows)
        for number in plan:
            if rows[number].written:
                weights[number] = token_weight(rows[number].written, aggregate, denominator)
        return tokens.per_token(weights) * tokens.counts_T

    def _clip(self, module: Any) -> float:
        """Clips the gradients of a module; returns their norm before."""
        limit = self.config.grad_clip or float("inf")
        return float(whole(clip_grad_norm_(module.parameters(), limit)))

    # ----------------------------------------------------------------------------------------- forward passes

    def _micros(self, tokens: Tokens, rows: Sequence[int]) -> list[list[list[Pack]]]:
        """This process's share of the micro-batches that the rows make, as packs by sequence; every process has the
        same number. They are laid out one by one, as all masks of a step would take more memory than any of them."""
        wanted = set(rows)
        by_prompt = [[number for number in group if number in wanted] for group in tokens.groups]
        cost, limit = self._cost, self.config.micro_batch_tokens
        packs: list[Pack] = []
        for group in by_prompt:
            if group and self._shares_prompts:
                packs += make_packs(tokens, group, limit, cost)
            else:
                packs += [(number,) for number in group]
        micros = micro_batches(tokens, packs, limit, self.accelerator.num_processes)
        own = micros[self.accelerator.process_index :: self.accelerator.num_processes]
        one_row = self._backend == "flex_attention" or "flash" in self._backend
        return [into_bins(tokens, packs, cost, one_row) for packs in own]

    def _lay_out(self, tokens: Tokens, bins: Sequence[Sequence[Pack]]) -> Batch:
        return lay_out(tokens, bins, self._backend, self.accelerator.device)

    @torch.no_grad()
    def _sweep(self, tokens: Tokens, rows: Sequence[int], compute: Any) -> Tensor:
        """What a forward pass says of each token of some rows [T], 0 elsewhere; all processes get all of it."""
        found_T = torch.zeros(len(tokens), device=self.accelerator.device)
        for bins in self._micros(tokens, rows):
            batch = self._lay_out(tokens, bins)
            found_T[batch.tokens_N] = compute(batch)
        return total(found_T)

    def _reference(self, batch: Batch, temperature: float) -> Tensor:
        """log π_ref of the targets [N]."""
        if self.reference is None:
            return self.module(batch, temperature, without_adapter=True)[0]
        with self.accelerator.autocast():
            return self.reference(batch, temperature)[0]

    def logprobs_of(self, ids: Sequence[int], temperature: float = 1.0) -> list[float]:
        """log π(ids[i]) given what precedes it, for i from 1 on, computed as for an update. With FSDP all processes
        must ask."""
        if len(ids) < 2:
            return []
        self.module.eval()
        row = Row((ids[0],), tuple(ids[1:]), (0.0,) * (len(ids) - 1), 0.0)
        device = self.accelerator.device
        with torch.no_grad():
            batch = lay_out(Tokens([[row]], device), [[(0,)]], self._backend, device)
            found: list[float] = self._bare(batch, temperature)[0].tolist()
        return found

    @property
    def _bare(self) -> Any:
        """The policy's module without DDP, whose forward pass waits for the other processes."""
        return getattr(self.module, "module", self.module)

    @property
    def _backend(self) -> str:
        return str(base_model(self.policy).config._attn_implementation)

    @cached_property
    def _cost(self) -> Cost:
        """Of a sequence, in multiplications; embeddings are looked up, and the head is paid for by target."""
        base = base_model(self.policy)
        config = base.config.get_text_config()
        size = sum(p.numel() for p in base.parameters()) - base.get_input_embeddings().weight.numel()
        return Cost(size, 2 * config.hidden_size * config.num_hidden_layers)

    @torch.no_grad()
    def _try(self, tokens: Tokens, temperature: float) -> None:
        """Finds out once, on real rows, whether this model takes our masks.

        Sliding windows, linear attention and some backends have no use for them. A window can be wider than these rows
        and narrower than those to come, so that models with one are not tried at all.
        """
        pair = next((group[:2] for group in tokens.groups if len(group) > 1), None)
        if self._shares_prompts is not None or pair is None:
            return
        device, backend = self.accelerator.device, self._backend
        layers = DynamicCache(config=base_model(self.policy).config).layers
        if any(type(layer) is not DynamicLayer for layer in layers) or backend not in ("sdpa", "flex_attention"):
            self._shares_prompts = False
            return

        def computed(*bins: list[Pack]) -> Tensor:
            batch = lay_out(tokens, bins, backend, device)
            found = torch.zeros(len(tokens), device=device)
            found[batch.tokens_N] = self.module(batch, temperature)[0]
            return found

        apart = sum((computed([(number,)]) for number in pair), torch.zeros(len(tokens), device=device))
        wrong = (computed([tuple(pair)]) - apart).abs()
        if self.accelerator.mixed_precision == "bf16":  # where single tokens may be far off, and are not on average
            right = float(wrong.sum() / (apart != 0).sum().clamp(min=1)) < 0.05
        else:
            right = float(wrong.max()) < 1e-3
        self._shares_prompts = not largest(float(not right), device)  # all processes have to agree

    # ------------------------------------------------------------------------------------------- what is kept

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's tensors as a Hugging Face checkpoint names them, one by one; see `named_weights`. With FSDP
        each is put together from all processes, which must all ask for it."""
        return ((name, whole(tensor)) for name, tensor in named_weights(self.policy))

    def state(self) -> dict[str, Any]:
        """What is to be kept beside weights and moments, as JSON values."""
        return {
            "updates": self.scheduler.last_epoch,
            "steps": self.steps,
            "kl_coef": self.kl.coef,
            "shares_prompts": self._shares_prompts,  # tried on other rows the answer might be another
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over progress; rates and decays stay those of the config, which a flag may have changed."""
        config = self.config
        self.steps, self._shares_prompts = state["steps"], state["shares_prompts"]
        if config.kl_target:
            self.kl.coef = state["kl_coef"]
        updates = state["updates"]
        self.scheduler.last_epoch = updates
        self.scheduler._step_count = updates + 1
        rates = {"policy": config.lr, "critic": config.value_lr or config.lr}
        own = {"betas": (config.beta1, config.beta2), "weight_decay": config.weight_decay}
        self.scheduler.base_lrs = [rates[group["name"]] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            peak = rates[group["name"]]
            group.update(own, initial_lr=peak, lr=peak * self.scheduler.lr_lambdas[0](updates))
        self.scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def lr_factor(update: int, warmup: int, total: int, schedule: Literal["constant", "linear", "cosine"]) -> float:
    """Learning rate of an update, as a share of the peak.

    It rises linearly over the first `warmup` updates, from 1 / warmup since an update at rate 0 would be wasted, then
    stays, or falls towards 0 at `total`.
    """
    if update < warmup:
        return (update + 1) / warmup
    done = min(1.0, (update - warmup) / max(1, total - warmup))
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def split(groups: Sequence[Item], parts: int) -> Iterator[Sequence[Item]]:
    """Divides groups into `parts` runs of nearly equal number."""
    for part in range(parts):
        yield groups[part * len(groups) // parts : (part + 1) * len(groups) // parts]
