"""The trainers of the preference methods, and how they are validated.

    dpo, ipo    TRL's DPOTrainer     pairs     a frozen reference
    kto         TRL's KTOTrainer     labels    a frozen reference
    simpo, orpo transformers.Trainer with a loss of ours (`rlvr.stages.losses`), pairs, no reference

Rows come as token ids, encoded as a sampler would, so that what is learned is what is sampled: TRL's own tokenization
is skipped. Validation is ours and the same for all: what the loss compares, the log-probabilities themselves, and the
KL to the reference.

Shape suffixes: N completions, T tokens of completions, V vocabulary.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import Trainer
from trl import DPOTrainer, KTOTrainer
from trl.trainer.utils import add_fused_lm_head

from rlvr.learner.modules import fingerprint
from rlvr.stages.losses import log_odds
from rlvr.stages.run import Encoded

BATCH_LOGITS = 2**26  # of one batch of a validation: 256 MiB in float32

Ids = tuple[list[int], list[int]]
"""Token ids of a prompt and of a completion."""


# Validation


@dataclass(frozen=True)
class Judged:
    """What a model and its reference say of completions [N]; without a reference its columns are zero.

    Attributes:
        logprob: log π of the whole completion, in nats.
        reference: The same of the reference.
        tokens: Tokens of the completion, its end included.
        kl: KL(π || reference) of the next token, summed over the completion's places, in nats.
    """

    logprob: Tensor
    reference: Tensor
    tokens: Tensor
    kl: Tensor

    def __getitem__(self, where: Tensor) -> Judged:
        return Judged(self.logprob[where], self.reference[where], self.tokens[where], self.kl[where])


class Reference:
    """The frozen reference: a model of its own, or the policy below its adapters; or none.

    Args:
        policy: What is trained.
        model: The reference where it is a model of its own.
        exists: Whether the method has one.

    Attributes:
        before: Its fingerprint when it was made; None where there is none.
    """

    def __init__(self, policy: Any, model: Any = None, exists: bool = True) -> None:
        self.policy, self.model, self.exists = policy, model, exists
        if model is not None:
            model.requires_grad_(False).eval()
        self.before = self.now()

    def now(self) -> int | None:
        """Its fingerprint as it is."""
        return fingerprint(self.policy if self.model is None else self.model) if self.exists else None

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """The reference, to compute with."""
        if self.model is not None:
            yield self.model
        else:
            with self.policy.disable_adapter():
                yield self.policy


@torch.no_grad()
def judge(
    policy: Any, reference: Reference, rows: Sequence[Ids], pad: int, cast: Callable[[], AbstractContextManager[Any]]
) -> Judged:
    """Runs the policy and its reference over completions, the longest first.

    Args:
        policy: In evaluation mode.
        reference: Of the method.
        rows: Prompts and completions as token ids.
        pad: Id that short rows are filled with.
        cast: Makes what both compute under, such as autocast.
    """
    order = sorted(range(len(rows)), key=lambda n: -sum(map(len, rows[n])))
    vocabulary = policy.config.get_text_config().vocab_size
    found = torch.zeros(4, len(rows))
    start = 0
    while start < len(rows):
        longest = sum(map(len, rows[order[start]]))
        batch = order[start : start + max(1, BATCH_LOGITS // (longest * vocabulary))]
        start += len(batch)
        ids, mask, written = padded([rows[n] for n in batch], pad, policy.device)
        with cast():
            ours = policy(input_ids=ids, attention_mask=mask, use_cache=False).logits
            theirs = None
            if reference.exists:
                with reference.open() as model:
                    theirs = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found[:, batch] = tally(ours, theirs, ids, written).cpu()
    return Judged(*found)


def tally(ours: Tensor, theirs: Tensor | None, ids: Tensor, written: Tensor) -> Tensor:
    """The columns of `Judged` [4, N] from logits [N, L, V]; `written` [N, L] marks the completions' tokens."""
    mask = written[:, 1:]
    targets = ids[:, 1:][mask].unsqueeze(-1)
    logp_TV = ours[:, :-1][mask].float().log_softmax(dim=-1)
    columns_4T = torch.zeros(4, len(targets), device=ids.device)
    columns_4T[0] = logp_TV.gather(-1, targets).squeeze(-1)
    columns_4T[2] = 1
    if theirs is not None:
        other_TV = theirs[:, :-1][mask].float().log_softmax(dim=-1)
        columns_4T[1] = other_TV.gather(-1, targets).squeeze(-1)
        columns_4T[3] = (logp_TV.exp() * (logp_TV - other_TV)).sum(dim=-1)
    row_T = torch.arange(len(ids), device=ids.device).unsqueeze(-1).expand_as(mask)[mask]
    return torch.zeros(4, len(ids), device=ids.device).index_add_(1, row_T, columns_4T)


def padded(rows: Sequence[Ids], pad: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids of prompt and completion, filled on the right; and what of it is text, and what the completion."""
    length = max(sum(map(len, row)) for row in rows)
    ids = torch.full((len(rows), length), pad)
    mask, written = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for n, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        ids[n, :end] = torch.tensor([*prompt, *completion])
        mask[n, :end] = True
        written[n, len(prompt) : end] = True
    return ids.to(device), mask.to(device), written.to(device)


def score(method: str, beta: float, judged: Judged) -> Tensor:
    """What the method's loss compares, of each completion [N].

    dpo, kto    β log π/ref of the completion: the implicit reward
    ipo         the same per token, as TRL's loss has it
    simpo       β times the mean log-probability of a token
    orpo        the log odds of that mean
    """
    ratio = judged.logprob - judged.reference
    if method in ("dpo", "kto"):
        return beta * ratio
    if method == "ipo":
        return beta * ratio / judged.tokens
    return beta * judged.logprob / judged.tokens if method == "simpo" else log_odds(judged.logprob / judged.tokens)


def measure_pairs(method: str, beta: float, chosen: Judged, rejected: Judged) -> dict[str, float]:
    """Metrics of pairs; `accuracy` is the share whose chosen completion scores higher, of equals half."""
    apart = score(method, beta, chosen) - score(method, beta, rejected)
    accuracy = ((apart > 0).float() + 0.5 * (apart == 0).float()).mean()
    return {"accuracy": float(accuracy), "margin": float(apart.mean()), **levels(chosen, rejected)}


def measure_labels(method: str, beta: float, good: Judged, bad: Judged) -> dict[str, float]:
    """Metrics of labels; `accuracy` is the share of all couples of a good and a bad completion in which the good one
    scores higher, of equals half: the area under the ROC curve."""
    high, low = score(method, beta, good), score(method, beta, bad)
    below, upto = (torch.searchsorted(low.sort().values, high, right=right) for right in (False, True))
    accuracy = (below + upto).float().mean() / (2 * len(low))
    return {"accuracy": float(accuracy), "margin": float(high.mean() - low.mean()), **levels(good, bad)}


def levels(chosen: Judged, rejected: Judged) -> dict[str, float]:
    """Log-probabilities and the KL of a token, as means."""
    kl = (chosen.kl.sum() + rejected.kl.sum()) / (chosen.tokens.sum() + rejected.tokens.sum())
    return {
        "logprob_chosen": float(chosen.logprob.mean()),
        "logprob_rejected": float(rejected.logprob.mean()),
        "kl": float(kl),
    }


# Trainers


class Validated(Encoded):
    """Put in front of a trainer: what it validates with its loss is measured besides.

    Attributes:
        validate: Told of the validation loss, it measures and logs the rest.
    """

    validate: Callable[[float | None], None]

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        found: dict[str, float] = super().evaluate(*args, **options)  # type: ignore[misc]
        self.validate(found["eval_loss"])
        return found


class Referenced(Validated):
    """Put in front of a trainer of TRL that has a reference. With adapters that is the policy below them, and not TRL's
    copy of them, which would say the same."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        model: Any = self.model  # type: ignore[attr-defined]
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        with warnings.catch_warnings():  # TRL asks by a name that transformers has given up
            warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
            return super().compute_loss(*args, **options)  # type: ignore[misc]


class PairTrainer(Referenced, DPOTrainer):
    """DPO and IPO."""


class LabelTrainer(Referenced, KTOTrainer):
    """KTO."""


class LossTrainer(Validated, Trainer):
    """A loss of ours over mean log-probabilities of a token.

    Args:
        loss: The loss of each pair [B], of those of the chosen and of the rejected completions [B].
        options: Those of `transformers.Trainer`.
    """

    loss_is_scaled_for_ga = False  # it is the mean of a micro-batch

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.loss = loss
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        for module in base.modules():
            if isinstance(module, nn.Dropout):  # TRL's trainers do without as well
                module.p = 0.0
        add_fused_lm_head(base)
        self._seen: dict[str, list[float]] = defaultdict(list)

    def compute_loss(self, model: Any, inputs: Mapping[str, Tensor], *_: Any, **__: Any) -> Tensor:
        ids, written = inputs["input_ids"], inputs["completion_mask"]
        labels = ids.masked_fill(written == 0, -100)
        found = model(input_ids=ids, attention_mask=inputs["attention_mask"], labels=labels, fused_lm_head=True)
        sums = found.log_probs.sum(dim=1)
        means = sums / written[:, 1:].sum(dim=1)
        chosen, rejected = means.chunk(2)
        if self.model.training:
            seen = {"rewards/accuracies": (chosen > rejected).float(), "rewards/margins": chosen - rejected}
            seen |= dict(zip(("logps/chosen", "logps/rejected"), sums.chunk(2), strict=True))
            for name, values in seen.items():
                self._seen[name].append(float(values.detach().mean()))
        return self.loss(chosen, rejected).mean()

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._seen.items()}
            self._seen.clear()
        super().log(logs, *args, **options)

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, None, None]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs), None, None


def pair_rows(rows: Sequence[tuple[list[int], list[int], list[int]]]) -> Dataset:
    """Rows of prompt, chosen and rejected as token ids, as TRL's collator takes them."""
    return Dataset.from_list([{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in rows])


def label_rows(rows: Sequence[tuple[list[int], list[int], bool]], batch: int) -> Dataset:
    """Rows of prompt, completion and label, as TRL's collator takes them. For the KL term of KTO each prompt also gets
    the completion of the row before it in its micro-batch, which is why their order must stay.

    Args:
        rows: As token ids, shuffled.
        batch: Rows in a micro-batch.
    """
    found = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        others = [part[-1], *part[:-1]]
        found += [
            {"prompt_ids": prompt, "completion_ids": completion, "KL_completion_ids": other, "label": good}
            for (prompt, completion, good), (_, other, _) in zip(part, others, strict=True)
        ]
    return Dataset.from_list(found)
