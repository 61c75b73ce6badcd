"""The learner: model, optimiser and one `update` that turns rows with advantages into a better policy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlvr.config import LearnerConfig
from rlvr.errors import Diverged
from rlvr.learner.batch import Batch, Pack, make_packs, merge, micro_batches
from rlvr.learner.correction import Level, Mismatch, correction, resolve_correction
from rlvr.learner.loss import logprobs_and_entropy, policy_loss, token_weight
from rlvr.learner.policy import named_weights
from rlvr.rollout import Row


@dataclass(frozen=True, slots=True)
class Plan:
    """One optimiser update: its micro-batches, and what its loss is a mean over."""

    micros: Sequence[Sequence[Pack]]
    denominator: int


class Learner:
    """Owns the policy's optimiser and schedule.

    Args:
        model: The policy, shared with the sampler.
        config: Learning rate, clipping, KL and the rest.
        total_updates: Optimiser updates of the whole run, for the schedule.
        accelerator: Places the model and runs backward; decides the compute type.
        reference: The frozen reference policy; needed exactly when `config.kl_coef` is above 0.
        correct: How the difference between sampler and learner is corrected; by default as `config.correction` says,
            `auto` being off.
    """

    def __init__(
        self,
        model: Any,
        config: LearnerConfig,
        total_updates: int,
        accelerator: Accelerator,
        reference: Any | None = None,
        correct: Level | None = None,
    ) -> None:
        self.config = config
        self.correct = correct or resolve_correction(config, engine=False)
        self.accelerator = accelerator
        self.reference = reference.eval().requires_grad_(False) if reference is not None else None
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=accelerator.device.type in ("cuda", "cpu"),
        )
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self._shares_prompts: bool | None = None  # not tried yet
        self.scheduler = LambdaLR(
            optimizer, lambda update: lr_factor(update, config.warmup_steps, total_updates, config.schedule)
        )

    def update(self, groups: Sequence[Sequence[Row]], temperature: float) -> dict[str, float]:
        """Learns from the groups of one step, in `updates_per_step` optimiser updates.

        Args:
            groups: Valid rows only, by group; rows of a missing verdict must not be here.
            temperature: The softmax temperature they were sampled at.

        Returns:
            Means over the updates of the step: loss, grad_norm, lr; and over the tokens that had a gradient, where
            there were any: entropy (nats), clip_fraction, kl (nats, to the reference), old_kl (nats, to the policy
            that sampled), and what `Mismatch.metrics` says of sampler and learner. That is measured with the weights
            that the step began with: without a correction it leaves out the tokens of later updates.

        Raises:
            Diverged: The gradient is not finite.
        """
        self.model.eval()  # dropout would make the ratio to the policy that sampled a matter of chance
        plans = [self._plan(part, temperature) for part in split(groups, self.config.updates_per_step) if any(part)]
        first = next((i for i, plan in enumerate(plans) if plan.micros), 0)  # the first that moves the weights
        old = {}
        if self.correct != "off":
            old = {i: self._old(plan, temperature) for i, plan in enumerate(plans) if i > first}
        mismatch = Mismatch()
        stats = []
        for i, plan in enumerate(plans):
            stats.append(self._update(plan, temperature, mismatch, i > first, old.pop(i, None)))
        means = {
            name: statistics.fmean(s[name] for s in stats if name in s)
            for name in dict.fromkeys(n for s in stats for n in s)
        }
        return means | mismatch.metrics(self.correct != "off")

    def _plan(self, groups: Sequence[Sequence[Row]], temperature: float) -> Plan:
        lengths = [row.written for group in groups for row in group]
        denominator = sum(lengths) if self.config.aggregate == "token" else len(lengths)
        # A row of advantage 0 has no gradient; it counts in the denominator but needs no forward pass.
        active = [[row for row in group if row.advantage != 0 or self.reference is not None] for group in groups]
        packs = [pack for group in active if group for pack in self._packs(merge(group), temperature)]
        return Plan(list(micro_batches(packs, self.config.micro_batch_tokens)), denominator)

    def _batch(self, micro: Sequence[Pack], plan: Plan) -> Batch:
        def weight(row: Row) -> float:
            return token_weight(row.written, self.config.aggregate, plan.denominator)

        return Batch.of(micro, weight, self.accelerator.device)

    @torch.no_grad()
    def _old(self, plan: Plan, temperature: float) -> list[Tensor]:
        """Log-probabilities of the targets under the weights as they are, one [S, K] per micro-batch."""
        return [self.logprobs(self.model, self._batch(micro, plan), temperature)[0] for micro in plan.micros]

    def _update(
        self, plan: Plan, temperature: float, mismatch: Mismatch, moved: bool, old: Sequence[Tensor] | None
    ) -> dict[str, float]:
        """One optimiser update.

        Args:
            plan: What to learn from.
            temperature: The softmax temperature of the log-probabilities.
            mismatch: Where sampler and learner are compared, as far as π_old is known.
            moved: Whether the weights are no longer those that the step began with.
            old: log π_old of the targets, one [S, K] per micro-batch; needed for a correction once they have moved.
        """
        config = self.config
        names = ("loss", "entropy", "clip_fraction", "old_kl", *(["kl"] if self.reference is not None else []))
        totals = dict.fromkeys(names, 0.0)
        tokens = 0
        for number, micro in enumerate(plan.micros):
            batch = self._batch(micro, plan)
            logprobs_SK, entropy_SK = self.logprobs(self.model, batch, temperature)
            reference_SK = None
            if self.reference is not None:
                with torch.no_grad(), self.accelerator.autocast():
                    reference_SK, _ = self.logprobs(self.reference, batch, temperature)
            old_SK = None if moved else logprobs_SK.detach()
            if old is not None:
                old_SK = old[number]
            start_SK, factor_SK, cut_SK = batch.old_logprobs_SK, None, None
            if old_SK is not None:
                if self.correct != "off":
                    own_SK = batch.counts_SK > 0
                    cap, mask = config.correction_cap, config.correction_mask
                    factor_SK, cut_SK = correction(
                        old_SK, batch.old_logprobs_SK, batch.completions_SK, own_SK, self.correct, cap, mask
                    )
                    start_SK = old_SK
                mismatch.add(old_SK, batch.old_logprobs_SK, batch.counts_SK, cut_SK, batch.fresh_SK)
            result = policy_loss(
                logprobs_SK,
                start_SK,
                batch.advantages_SK,
                batch.weights_SK,
                config.clip_low,
                config.clip_high,
                reference_SK,
                config.kl_coef,
                factor_SK,
            )
            self.accelerator.backward(result.loss)
            tokens += int(batch.counts_SK.sum())
            totals["loss"] += float(result.loss.detach())
            totals["entropy"] += float((entropy_SK * batch.counts_SK).sum())
            totals["clip_fraction"] += float((result.clipped_RT * batch.counts_SK).sum())
            if self.reference is not None:
                totals["kl"] += float((result.kl_RT * batch.counts_SK).sum())
            totals["old_kl"] += float(((batch.old_logprobs_SK - logprobs_SK.detach()) * batch.counts_SK).sum())
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), config.grad_clip or float("inf")))
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            raise Diverged(f"the gradient norm is {norm}", "lower `learner.lr`, or use `--learner.dtype float32`")
        lr = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        loss = totals.pop("loss")
        per_token = {name: total / tokens for name, total in totals.items()} if tokens else {}
        return {"loss": loss, **per_token, "grad_norm": norm, "lr": lr}

    @staticmethod
    def logprobs(model: Any, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the targets, both [S, K]."""
        output = model(
            input_ids=batch.ids_SL,
            attention_mask=batch.attention,
            position_ids=batch.positions_SL,
            logits_to_keep=batch.targets_SK.shape[1],
            use_cache=False,
        )
        return logprobs_and_entropy(output.logits, batch.targets_SK, temperature)

    def logprobs_of(self, ids: Sequence[int], temperature: float = 1.0) -> list[float]:
        """log π(ids[i]) given what precedes it, for i from 1 on, computed as for an update."""
        return logprobs_of(self.model, ids, temperature)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's tensors as a Hugging Face checkpoint names them; see `named_weights`."""
        return named_weights(self.policy)

    def _packs(self, rows: Pack, temperature: float) -> Iterator[Pack]:
        """How to compute the completions of one prompt: together where that is cheaper and this model can."""
        if self._shares_prompts is None and len(rows) > 1:
            self._shares_prompts = self._can_share_prompts(rows[:2], temperature)
        if not self._shares_prompts:
            return iter([row] for row in rows)
        config = self.policy.config.get_text_config()
        token_cost = sum(p.numel() for p in self.policy.parameters())
        pair_cost = 2 * config.hidden_size * config.num_hidden_layers
        return make_packs(rows, self.config.micro_batch_tokens, token_cost, pair_cost)

    @torch.no_grad()
    def _can_share_prompts(self, rows: Pack, temperature: float) -> bool:
        """Whether this model gives a packed completion the log-probabilities it gives it alone.

        Not all do: sliding windows, linear attention and some attention backends have no use for our mask. So it
        is tried, on real rows, before it is relied on. A window can be wider than these rows and narrower than
        those to come, so that models with one are not tried at all.
        """
        layers = DynamicCache(config=self.policy.config).layers
        if self.policy.config._attn_implementation != "sdpa" or any(
            type(layer) is not DynamicLayer for layer in layers
        ):
            return False
        device = self.accelerator.device
        together, _ = self.logprobs(self.model, Batch.of([rows], lambda row: 1.0, device), temperature)
        apart = [self.logprobs(self.model, Batch.of([[row]], lambda row: 1.0, device), temperature)[0] for row in rows]
        tolerance = 0.1 if self.accelerator.mixed_precision == "bf16" else 1e-3
        return torch.allclose(together, torch.cat(apart, dim=1), atol=tolerance)

    @property
    def policy(self) -> Any:
        """The model itself, as the user knows it."""
        return self.accelerator.unwrap_model(self.model)

    def state(self) -> dict[str, Any]:
        """Optimiser and schedule, for a checkpoint."""
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over moments and progress; rates and decays stay those of the config, which a flag may have changed."""
        config = self.config
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scheduler.base_lrs = [config.lr] * len(self.scheduler.base_lrs)
        lr = config.lr * self.scheduler.lr_lambdas[0](self.scheduler.last_epoch)
        own = {"lr": lr, "initial_lr": config.lr, "betas": (config.beta1, config.beta2)}
        for group in self.optimizer.param_groups:
            group.update(own, weight_decay=config.weight_decay)


@torch.no_grad()
def logprobs_of(model: Any, ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """log π(ids[i]) given what precedes it, for i from 1 on, under the softmax at `temperature`."""
    if len(ids) < 2:
        return []
    model.eval()
    row = Row((ids[0],), tuple(ids[1:]), (0.0,) * (len(ids) - 1), 0.0)
    batch = Batch.of([[(row, 1)]], lambda row: 1.0, next(model.parameters()).device)
    found: list[float] = Learner.logprobs(model, batch, temperature)[0][0].tolist()
    return found


def lr_factor(update: int, warmup: int, total: int, schedule: Literal["constant", "linear", "cosine"]) -> float:
    """Learning rate of an update, as a share of the peak.

    It rises linearly over the first `warmup` updates, from 1 / warmup since an update at rate 0 would be wasted, then
    stays, or falls towards 0 at `total`.
    """
    if update < warmup:
        return (update + 1) / warmup
    done = min(1.0, (update - warmup) / max(1, total - warmup))
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def split(groups: Sequence[Sequence[Row]], parts: int) -> Iterator[Sequence[Sequence[Row]]]:
    """Divides groups into `parts` runs of nearly equal number."""
    for part in range(parts):
        yield groups[part * len(groups) // parts : (part + 1) * len(groups) // parts]
