"""The losses of the preference methods, ours and TRL's, and how a policy is validated: against formulas and by hand."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlvr.learner.modules import logprobs_of
from rlvr.stages.losses import log_odds, orpo_loss, simpo_loss
from rlvr.stages.preference import (
    Judged,
    LabelTrainer,
    PairTrainer,
    Reference,
    judge,
    label_rows,
    measure_labels,
    measure_pairs,
    pair_rows,
    score,
)

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "simpo": lambda c, r: simpo_loss(c, r, beta=2.0, margin=0.5),
    "orpo": lambda c, r: orpo_loss(c, r, weight=0.1),
}
ROWS = [([3, 4, 5], [6, 7, 1], [8, 1]), ([9], [10, 11, 12, 1], [13, 14, 1]), ([4, 4], [5, 1], [6, 6, 6, 6, 1])]


def means(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Our losses


def test_simpo_has_the_value_of_its_formula() -> None:
    """Worked out by hand: -log σ(2 (-1 + 2 - 0.5)) = log(1 + e^-1)."""
    assert simpo_loss(means(-1), means(-2), beta=2.0, margin=0.5).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_orpo_has_the_value_of_its_formula() -> None:
    """Worked out by hand: p = 1/2 has odds 1, p = 1/4 has odds 1/3, so the ratio is 3 and σ(log 3) = 3/4."""
    found = orpo_loss(means(math.log(0.5)), means(math.log(0.25)), weight=0.1)
    assert found.item() == pytest.approx(math.log(2) - 0.1 * math.log(0.75))


@pytest.mark.parametrize("method", LOSSES)
def test_the_gradient_is_that_of_finite_differences(method: str) -> None:
    values = [means(-0.3, -2.0, -0.7, -1.0).requires_grad_(), means(-1.5, -0.4, -0.69, -1.0).requires_grad_()]
    assert torch.autograd.gradcheck(LOSSES[method], values)


@pytest.mark.parametrize("method", LOSSES)
def test_the_loss_falls_as_the_chosen_one_gets_likelier_and_the_rejected_one_less_so(method: str) -> None:
    """The sign, by itself: this fails if chosen and rejected change places."""
    chosen, rejected = means(-1.0).requires_grad_(), means(-1.0).requires_grad_()
    LOSSES[method](chosen, rejected).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() < 0 < rejected.grad.item()


@pytest.mark.parametrize("method", LOSSES)
@pytest.mark.parametrize(("chosen", "rejected"), [(-1e4, -1e-8), (-1e-8, -1e4), (0.0, 0.0), (-1e4, -1e4), (0.0, -80.0)])
def test_extreme_log_probabilities_give_no_nan(method: str, chosen: float, rejected: float) -> None:
    """In float32, where 1 - exp(-1e-8) is 0 and exp(-1e4) too."""
    c, r = torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True)
    loss = LOSSES[method](c, r)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert c.grad is not None
    assert r.grad is not None
    assert c.grad.isfinite().all()
    assert r.grad.isfinite().all()


def test_simpo_sees_nothing_but_how_far_the_means_are_apart() -> None:
    """So that length and the level of both make no difference."""
    near, far = simpo_loss(means(-1), means(-2), 2.0, 0.5), simpo_loss(means(-7), means(-8), 2.0, 0.5)
    assert near.item() == pytest.approx(far.item())


def test_simpos_margin_is_what_the_means_must_be_apart() -> None:
    """At the margin the loss is that of a coin."""
    assert simpo_loss(means(-1), means(-1.7), 2.0, 0.7).item() == pytest.approx(math.log(2))


def test_orpos_odds_ratio_does_not_change_when_odds_are_multiplied() -> None:
    """Both odds times four: what is left of the loss besides imitation is the same."""

    def by_odds(odds: float) -> Tensor:
        return means(math.log(odds / (1 + odds)))

    def beyond_imitation(a: Tensor, b: Tensor) -> float:
        return float(orpo_loss(a, b, 0.1) + a)

    assert beyond_imitation(by_odds(2), by_odds(0.5)) == pytest.approx(beyond_imitation(by_odds(8), by_odds(2)))


@pytest.mark.parametrize("p", [1e-30, 1e-3, 0.3, 0.4999, 0.5001, 0.9, 1 - 1e-9])
def test_log_odds_on_both_sides_of_one_half(p: float) -> None:
    assert log_odds(means(math.log(p))).item() == pytest.approx(math.log(p) - math.log1p(-p), rel=1e-6)


def test_our_losses_are_those_of_trl() -> None:
    """TRL has them as experiments: the terms of its SimPO and its odds ratio are ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that they are experiments
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
        from trl.experimental.orpo.orpo_trainer import ORPOTrainer
    torch.manual_seed(0)
    chosen, rejected = -2 * torch.rand(2, 5)

    class Settings:
        beta, loss_type, label_smoothing, simpo_gamma, alpha = 2.0, "simpo", 0.0, 1.0, 0.0
        accelerator = type("Accelerator", (), {"device": torch.device("cpu")})

    theirs = CPOTrainer.cpo_loss(Settings, chosen, rejected)[0]
    torch.testing.assert_close(simpo_loss(chosen, rejected, beta=2.0, margin=0.5), theirs)
    odds = ORPOTrainer.odds_ratio_loss(Settings, chosen, rejected)[0]
    torch.testing.assert_close(orpo_loss(chosen, rejected, weight=2.0), -chosen - odds)


# TRL's losses, through our trainers


def trainer_of(loss: str, policy: Any, tokenizer: Any, folder: Path) -> Any:
    """TRL's trainer over `ROWS`, with a copy of the policy for the reference, and the policy moved a little since."""
    from trl import DPOConfig, KTOConfig

    reference = Reference(policy, copy.deepcopy(policy))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    settings: dict[str, Any] = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "max_length": None}
    settings |= {"report_to": [], "beta": 0.3, "per_device_train_batch_size": 6, "activation_checkpointing": False}
    options = {"model": policy, "ref_model": reference.model, "processing_class": tokenizer}
    if loss == "kto":
        rows = label_rows([(p, done, good) for p, c, r in ROWS for done, good in ((c, True), (r, False))], 6)
        return LabelTrainer(
            args=KTOConfig(train_sampling_strategy="sequential", **settings), train_dataset=rows, **options
        ), reference
    args = DPOConfig(loss_type=[loss], **settings)
    return PairTrainer(args=args, train_dataset=pair_rows(ROWS), **options), reference


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "kto"])
def test_trls_loss_is_that_of_the_paper(loss: str, fresh_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """On the token ids that we give it, by log-probabilities from a plain pass. So a TRL that has another sign or
    another tokenization fails here."""
    policy = fresh_model()
    trainer, reference = trainer_of(loss, policy, tokenizer, tmp_path)

    def ratio(prompt: list[int], completion: list[int]) -> float:
        ids = [*prompt, *completion]
        ours, theirs = (sum(logprobs_of(m, ids)[len(prompt) - 1 :]) for m in (policy, reference.model))
        return float(ours - theirs)

    expected = []
    if loss == "kto":
        mixed = label_rows([(p, done, good) for p, c, r in ROWS for done, good in ((c, True), (r, False))], 6)
        z = max(0.0, sum(ratio(row["prompt_ids"], row["KL_completion_ids"]) for row in mixed) / 6)
        for row in mixed:
            sign = 1 if row["label"] else -1
            own = sign * (ratio(row["prompt_ids"], row["completion_ids"]) - z)
            expected.append(1 - 1 / (1 + math.exp(-0.3 * own)))
    for prompt, chosen, rejected in ROWS if loss != "kto" else ():
        apart = ratio(prompt, chosen) - ratio(prompt, rejected)
        if loss == "sigmoid":
            expected.append(-float(logsigmoid(torch.tensor(0.3 * apart))))
        else:
            per_token = ratio(prompt, chosen) / len(chosen) - ratio(prompt, rejected) / len(rejected)
            expected.append((per_token - 1 / (2 * 0.3)) ** 2)
    (batch,) = trainer.get_train_dataloader()
    found = trainer.compute_loss(policy, batch)
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert found.requires_grad


# Validation


def test_what_is_judged_is_what_a_plain_pass_says(fresh_model: Any, tokenizer: Any) -> None:
    """Log-probabilities, token counts and the KL of every place, over rows of unlike length in one batch."""
    policy, other = fresh_model(), fresh_model(seed=1)
    rows = [(p, c) for p, c, _ in ROWS]
    found = judge(policy, Reference(policy, other), rows, tokenizer.pad_token_id, contextlib.nullcontext)
    for n, (prompt, completion) in enumerate(rows):
        ids, start = [*prompt, *completion], len(prompt) - 1
        assert found.logprob[n].item() == pytest.approx(sum(logprobs_of(policy, ids)[start:]), rel=1e-4)
        assert found.reference[n].item() == pytest.approx(sum(logprobs_of(other, ids)[start:]), rel=1e-4)
        assert found.tokens[n] == len(completion)
        with torch.no_grad():
            p, q = (m(torch.tensor([ids])).logits[0, start:-1].log_softmax(-1) for m in (policy, other))
        assert found.kl[n].item() == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)


def judged(logprob: list[float], reference: list[float], tokens: list[float]) -> Judged:
    return Judged(*torch.tensor([logprob, reference, tokens, [0.0] * len(tokens)]))


def test_each_method_scores_what_its_loss_compares() -> None:
    one = judged([-2.0], [-3.0], [4.0])
    found = {method: float(score(method, 0.5, one)) for method in ("dpo", "kto", "ipo", "simpo", "orpo")}
    odds = -0.5 - math.log1p(-math.exp(-0.5))
    assert found == pytest.approx({"dpo": 0.5, "kto": 0.5, "ipo": 0.125, "simpo": -0.25, "orpo": odds})


def test_accuracy_of_pairs_counts_equals_half() -> None:
    chosen, rejected = judged([-1, -2, -3], [-2, -2, -2], [1, 1, 1]), judged([-2, -2, -2], [-2, -2, -2], [1, 1, 1])
    found = measure_pairs("dpo", 1.0, chosen, rejected)
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["margin"] == pytest.approx(0.0)
    assert (found["logprob_chosen"], found["logprob_rejected"]) == (-2, -2)


def test_accuracy_of_labels_is_the_share_of_couples_in_the_right_order() -> None:
    """Of six couples three are in the right order, two are equal and one is in the wrong order."""
    good, bad = judged([3, 1, 0], [0, 0, 0], [1, 1, 1]), judged([1, 0], [0, 0], [1, 1])
    # 3 > 1, 3 > 0, 1 = 1, 1 > 0, 0 < 1, 0 = 0
    assert measure_labels("kto", 1.0, good, bad)["accuracy"] == pytest.approx((3 + 2 * 0.5) / 6)
    assert measure_labels("kto", 1.0, bad, good)["accuracy"] == pytest.approx((1 + 2 * 0.5) / 6)


def test_a_prompts_kl_completion_is_the_one_before_it_in_its_micro_batch() -> None:
    rows = label_rows([([n], [10 + n], n % 2 == 0) for n in range(5)], 3)
    assert rows["KL_completion_ids"] == [[12], [10], [11], [14], [13]]
    assert rows["label"] == [True, False, True, False, True]
