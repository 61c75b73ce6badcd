"""The learner: model, optimiser and one `update` that turns rows with advantages into a better policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import get_scheduler

from rlvr.config import LearnerConfig
from rlvr.errors import RunStopped
from rlvr.learner.loss import logprobs_and_entropy, policy_loss, token_weights
from rlvr.rollout import Row

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch of R rows: prompts padded left to P columns, completions right to T columns."""

    ids_RL: Tensor  # L = P + T
    attention_RL: Tensor
    old_logprobs_RT: Tensor
    mask_RT: Tensor
    advantages_R: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> Batch:
        prompt = max(len(row.prompt_ids) for row in rows)
        length = max(len(row.completion_ids) for row in rows)
        ids, attention, old, mask = [], [], [], []
        for row in rows:
            before, after = prompt - len(row.prompt_ids), length - len(row.completion_ids)
            ids.append([0] * before + list(row.prompt_ids) + list(row.completion_ids) + [0] * after)
            attention.append([0] * before + [1] * (prompt - before + length - after) + [0] * after)
            old.append(list(row.old_logprobs) + [0.0] * after)
            mask.append([1.0] * (length - after) + [0.0] * after)
        return cls(
            torch.tensor(ids, device=device),
            torch.tensor(attention, device=device),
            torch.tensor(old, device=device),
            torch.tensor(mask, device=device),
            torch.tensor([row.advantage for row in rows], device=device),
        )


class Learner:
    """Owns the policy's optimiser and schedule.

    Args:
        model: The policy, shared with the sampler.
        config: Learning rate, clipping, KL and the rest.
        total_updates: Optimiser updates of the whole run, for the schedule.
        accelerator: Places the model and runs backward; decides the compute type.
        reference: The frozen reference policy; needed exactly when `config.kl_coef` is above 0.
    """

    def __init__(
        self,
        model: Any,
        config: LearnerConfig,
        total_updates: int,
        accelerator: Accelerator,
        reference: Any | None = None,
    ) -> None:
        self.config = config
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
        self.scheduler = get_scheduler(
            SCHEDULES[config.schedule],
            self.optimizer,
            num_warmup_steps=config.warmup_steps,
            num_training_steps=max(total_updates, config.warmup_steps + 1),
        )

    def update(self, groups: Sequence[Sequence[Row]], temperature: float) -> dict[str, float]:
        """Learns from the groups of one step, in `updates_per_step` optimiser updates.

        Args:
            groups: Valid rows only, by group; rows of a missing verdict must not be here.
            temperature: The softmax temperature they were sampled at.

        Returns:
            Means over the step: loss, entropy (nats a token), grad_norm, clip_fraction, kl (nats a token, to the
            reference), old_kl (to the policy that sampled), lr.

        Raises:
            RunStopped: The gradient is not finite.
        """
        self.model.eval()  # dropout would make the ratio to the policy that sampled a matter of chance
        updates = [part for part in split(groups, self.config.updates_per_step) if any(part)]
        stats = [self._update([row for group in part for row in group], temperature) for part in updates]
        return {name: sum(s[name] for s in stats) / len(stats) for name in stats[0]} if stats else {}

    def _update(self, rows: Sequence[Row], temperature: float) -> dict[str, float]:
        config = self.config
        denominator = sum(len(row.completion_ids) for row in rows) if config.aggregate == "token" else len(rows)
        # A row of advantage 0 has no gradient; it counts in the denominator but needs no forward pass.
        active = [row for row in rows if row.advantage != 0 or self.reference is not None]
        totals = dict.fromkeys(("loss", "entropy", "clip_fraction", "kl", "old_kl"), 0.0)
        tokens = 0
        for micro in micro_batches(active, config.micro_batch_tokens):
            batch = Batch.of(micro, self.accelerator.device)
            logprobs_RT, entropy_RT = self.logprobs(self.model, batch, temperature)
            reference_RT = None
            if self.reference is not None:
                with torch.no_grad(), self.accelerator.autocast():
                    reference_RT, _ = self.logprobs(self.reference, batch, temperature)
            weights_RT = token_weights(batch.mask_RT, config.aggregate, denominator)
            result = policy_loss(
                logprobs_RT,
                batch.old_logprobs_RT,
                batch.advantages_R,
                weights_RT,
                config.clip_low,
                config.clip_high,
                reference_RT,
                config.kl_coef,
            )
            self.accelerator.backward(result.loss)
            tokens += int(batch.mask_RT.sum())
            totals["loss"] += float(result.loss.detach())
            totals["entropy"] += float((entropy_RT * batch.mask_RT).sum())
            totals["clip_fraction"] += float(result.clipped)
            totals["kl"] += float(result.kl)
            totals["old_kl"] += float(((batch.old_logprobs_RT - logprobs_RT.detach()) * batch.mask_RT).sum())
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), config.grad_clip or float("inf")))
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            raise RunStopped(f"the gradient norm is {norm}", "lower `learner.lr`, or use `--learner.dtype float32`")
        lr = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        per_token = {name: total / max(tokens, 1) for name, total in totals.items() if name != "loss"}
        return {"loss": totals["loss"], **per_token, "grad_norm": norm, "lr": lr}

    @staticmethod
    def logprobs(model: Any, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the completion tokens, both [R, T]."""
        length = batch.mask_RT.shape[1]
        output = model(
            input_ids=batch.ids_RL,
            attention_mask=batch.attention_RL,
            position_ids=(batch.attention_RL.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=length + 1,
            use_cache=False,
        )
        return logprobs_and_entropy(output.logits[:, :-1], batch.ids_RL[:, -length:], temperature)

    @property
    def policy(self) -> Any:
        """The model itself, as the user knows it."""
        return self.accelerator.unwrap_model(self.model)

    def state(self) -> dict[str, Any]:
        """Optimiser and schedule, for a checkpoint."""
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def split(groups: Sequence[Sequence[Row]], parts: int) -> Iterator[Sequence[Sequence[Row]]]:
    """Divides groups into `parts` runs of nearly equal number."""
    for part in range(parts):
        yield groups[part * len(groups) // parts : (part + 1) * len(groups) // parts]


def micro_batches(rows: Sequence[Row], max_tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length together, each batch within `max_tokens` padded tokens (one row may exceed it)."""
    batch: list[Row] = []
    prompt = completion = 0
    for row in sorted(rows, key=lambda row: (len(row.completion_ids), len(row.prompt_ids))):
        wider = max(prompt, len(row.prompt_ids)), max(completion, len(row.completion_ids))
        if batch and sum(wider) * (len(batch) + 1) > max_tokens:
            yield batch
            batch, wider = [], (len(row.prompt_ids), len(row.completion_ids))
        batch.append(row)
        prompt, completion = wider
    if batch:
        yield batch
