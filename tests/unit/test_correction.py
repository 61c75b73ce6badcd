"""Importance weights against values worked out by hand, the learner that uses them against a plain loop over rows, and
what it hands to an engine against what it saves."""

from __future__ import annotations

import copy
import doctest
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from rlvr import ConfigError, SamplingParams
from rlvr.config import LearnerConfig
from rlvr.learner.correction import Mismatch, correction, resolve_correction
from rlvr.learner.learner import Learner
from rlvr.learner.loss import policy_loss
from rlvr.learner.policy import load_policy, named_weights
from rlvr.rollout import Row
from rlvr.sampler.transformers import TransformersSampler

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "off-policy.md"
TEMPERATURE = 0.8
CONFIG = LearnerConfig(lr=1e-2, grad_clip=0.0, clip_low=0.2, clip_high=0.28, correction_cap=1.3)
CLIP: Any = {"clip_low": 0.2, "clip_high": 0.28}

Level = Literal["token", "sequence"]
LEVELS: tuple[Level, ...] = ("token", "sequence")


def logs(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


def simple(ratios: Sequence[float], level: Level, cap: float, mask: bool = False) -> tuple[list[float], list[bool]]:
    """Weights of one completion with these ratios, and which of them are cut."""
    one = torch.ones(len(ratios))
    found = correction(logs(*ratios) - 3, -3 * one, 0 * one.long(), level, cap, mask)
    return found.weights_N.tolist(), found.cut_N.tolist()


# The weights


def test_each_token_has_its_own_ratio() -> None:
    weights, cut = simple([0.5, 1.0, 1.9, 2.1, 8.0], "token", 2.0)
    assert weights == pytest.approx([0.5, 1.0, 1.9, 2.0, 2.0])
    assert cut == [False, False, False, True, True]


def test_what_is_above_the_cap_is_left_out_when_masked() -> None:
    weights, cut = simple([0.5, 1.0, 1.9, 2.1, 8.0], "token", 2.0, mask=True)
    assert weights == pytest.approx([0.5, 1.0, 1.9, 0.0, 0.0])
    assert cut == [False, False, False, True, True]


def test_a_whole_completion_has_the_product_of_its_ratios() -> None:
    assert simple([0.5, 2.0, 1.5], "sequence", 2.0) == (pytest.approx([1.5] * 3), [False] * 3)
    assert simple([1.5, 1.0, 1.5], "sequence", 2.0) == (pytest.approx([2.0] * 3), [True] * 3)
    assert simple([1.5, 1.0, 1.5], "sequence", 2.0, mask=True) == ([0.0] * 3, [True] * 3)


def test_completions_are_summed_apart() -> None:
    """Ratios 3 and 0.25 of one completion, none of a second, 1.5 and 1.2 of a third, whose tokens lie apart."""
    completions = torch.tensor([2, 0, 0, 2])
    found = correction(logs(1.5, 3.0, 0.25, 1.2), torch.zeros(4), completions, "sequence", cap=1.6)
    assert found.weights_N.tolist() == pytest.approx([1.6, 0.75, 0.75, 1.6])
    assert found.cut_N.tolist() == [True, False, False, True]


@pytest.mark.parametrize("level", LEVELS)
def test_no_token_has_no_weight(level: Level) -> None:
    found = correction(logs(), logs(), torch.zeros(0, dtype=torch.long), level, 2.0)
    assert found.weights_N.shape == found.cut_N.shape == (0,)


def test_a_ratio_beyond_all_numbers_is_the_cap() -> None:
    assert simple([1e300, 1e300], "sequence", 2.0)[0] == [2.0, 2.0]


def test_below_the_cap_a_mean_over_the_sampler_becomes_one_over_the_policy() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, sampler = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    values = torch.randn(7, generator=generator, dtype=torch.float64)
    weights = correction(policy, sampler, torch.arange(7), "token", cap=1e9).weights_N
    assert (sampler.exp() * weights * values).sum().item() == pytest.approx((policy.exp() * values).sum().item())


@given(
    st.lists(st.tuples(st.floats(-60, 0), st.floats(-60, 0), st.integers(0, 2)), max_size=9),
    st.sampled_from(LEVELS),
    st.floats(1, 10),
    st.booleans(),
)
def test_weights_lie_between_zero_and_the_cap(
    cells: list[tuple[float, float, int]], level: Level, cap: float, mask: bool
) -> None:
    old, sampler = (torch.tensor([cell[i] for cell in cells], dtype=torch.float64) for i in range(2))
    completions = torch.tensor([cell[2] for cell in cells], dtype=torch.long)
    weights, cut = correction(old, sampler, completions, level, cap, mask)
    assert (weights >= 0).all()
    assert (weights <= cap).all()
    assert (weights[cut] == (0.0 if mask else cap)).all()
    if level == "sequence":
        assert all(len(set(weights[completions == c].tolist())) <= 1 for c in range(3))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("kind", ["clip", "gspo", "cispo"])
def test_the_gradient_of_the_loss_takes_the_weights_for_constants(level: Level, mask: bool, kind: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    old, now, sampler = -2 * torch.rand(3, 16, generator=generator, dtype=torch.float64)
    now = old + 0.2 * (now + 1)
    completions = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3])
    weights = torch.tensor([1, 1, 1, 2, 2, 0, 1, 1, 0, 1, 3, 3, 3, 3, 3, 3]) / 10.0
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)[completions]
    old.requires_grad_()
    found = correction(old, sampler, completions, level, 1.5, mask)
    assert not found.weights_N.requires_grad
    assert found.cut_N.any()
    assert not found.cut_N.all()

    def gradient(factor: Tensor | None) -> Tensor:
        x = now.clone().requires_grad_()
        policy_loss(
            x, old.detach(), advantages, weights, completions, kind, **CLIP, correction_N=factor
        ).loss.backward()
        assert x.grad is not None
        return x.grad

    corrected = gradient(found.weights_N)
    assert (corrected[weights == 0] == 0).all()
    if kind == "gspo" and level == "token":  # a completion's ratio is of all its tokens, so that they share the weights
        assert not torch.allclose(corrected, gradient(None) * found.weights_N)
    else:
        torch.testing.assert_close(corrected, gradient(None) * found.weights_N)


@pytest.mark.parametrize("engine", [False, True])
def test_auto_corrects_engines_token_by_token(engine: bool) -> None:
    assert resolve_correction(LearnerConfig(), engine) == ("token" if engine else "off")
    for level in ("off", "token", "sequence"):
        assert resolve_correction(LearnerConfig(correction=level), engine) == level


def test_the_examples_of_the_page_run_as_they_stand() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.failed == 0
    assert found.attempted >= 7


# The numbers that are reported


def test_mismatch_by_hand() -> None:
    """Ratios 2, 1 and 0.5, the last sampled twice; in two micro-batches, and one that is empty."""
    mismatch = Mismatch()
    mismatch.add(logs(2, 1) - 1, -torch.ones(2).double(), torch.ones(2), torch.tensor([True, False]))
    mismatch.add(logs(), logs(), torch.zeros(0), None)
    mismatch.add(logs(0.5) - 1, -torch.ones(1).double(), torch.tensor([2.0]), torch.tensor([False]))
    assert mismatch.metrics(corrects=True) == pytest.approx(
        {
            "mismatch": 3 * math.log(2) / 4,
            "mismatch_max": math.log(2),
            "mismatch_kl": ((2 - 1 - math.log(2)) + 2 * (0.5 - 1 + math.log(2))) / 4,
            "corrected": 0.25,
        }
    )
    assert set(mismatch.metrics(corrects=False)) == {"mismatch", "mismatch_max", "mismatch_kl"}
    assert Mismatch().metrics(corrects=True) == {}


def test_what_older_weights_sampled_is_told_apart() -> None:
    mismatch = Mismatch()
    mismatch.add(logs(2, 8), logs(1, 1), torch.tensor([1.0, 3.0]), None, torch.tensor([1.0, 0.0]))
    assert mismatch.metrics(corrects=False) == pytest.approx(
        {
            "mismatch": math.log(2),
            "mismatch_max": math.log(2),
            "mismatch_kl": 1 - math.log(2),
            "off_policy": math.log(8),
        }
    )


def test_the_kl_is_that_of_the_sampler_to_the_learner() -> None:
    """Every token as often as the sampler draws it."""
    sampler, learner = torch.tensor([[0.2, 0.3, 0.5], [0.3, 0.6, 0.1]]).double()
    mismatch = Mismatch()
    mismatch.add(learner.log(), sampler.log(), 10 * sampler, None)
    expected = (sampler * (sampler / learner).log()).sum().item()
    assert mismatch.metrics(corrects=False)["mismatch_kl"] == pytest.approx(expected)


# The learner


@pytest.fixture(scope="module")
def groups(model: Any, tokenizer: Any) -> list[list[Row]]:
    """Four groups of four rows, some of them twice, one in part by the environment; the sampler is a little off."""
    prompts = [tokenizer.encode(prompt) for prompt in ["1+2=?", "7", "a b c d 3-1=?", "09"]]
    noise = torch.Generator().manual_seed(0)
    rows: list[list[Row]] = [[] for _ in prompts]
    drawn = TransformersSampler(model, tokenizer).sample(prompts, 3, SamplingParams(12, TEMPERATURE, seed=1))
    for index, completion in drawn:
        shift = 0.3 * torch.randn(len(completion.token_ids), generator=noise)
        sampler = tuple((torch.tensor(completion.logprobs) + shift).tolist())
        advantage = [1.5, -0.5, -1.0][len(rows[index])]
        rows[index].append(Row(tuple(prompts[index]), completion.token_ids, sampler, advantage))
    told = max(rows[2], key=lambda row: row.written)
    assert told.written > 5
    rows[2][rows[2].index(told)] = replace(told, foreign=((2, 4),))
    return [[*group, group[0]] for group in rows]


class Recorder:
    """A learner that keeps the gradient of each of its updates."""

    def __init__(self, model: Any, config: LearnerConfig, accelerator: Any, reference: Any = None) -> None:
        self.model = model
        self.gradients: list[list[Tensor]] = []
        self.learner = Learner(model, config, 10, accelerator, reference)
        self.learner.optimizer.register_step_pre_hook(self._keep)

    def _keep(self, *_: Any) -> None:
        self.gradients.append([zeros_for_none(p) for p in self.model.parameters()])

    def update(self, groups: Sequence[Sequence[Row]]) -> dict[str, float]:
        return self.learner.update(groups, TEMPERATURE)


def zeros_for_none(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> bool:
    return all((a - b).abs().max() <= tolerance for a, b in zip(ours, theirs, strict=True))


def single(model: Any, row: Row) -> Tensor:
    """Log-probabilities of what the policy wrote of one row."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1] / TEMPERATURE
    return logits.log_softmax(dim=-1).gather(1, torch.tensor(row.completion_ids)[:, None])[written(row), 0]


def written(row: Row) -> list[int]:
    return [i for i in range(len(row.completion_ids)) if not any(a <= i < b for a, b in row.foreign)]


def log_ratio(old: Any, row: Row) -> Tensor:
    """log π_old - log π_sampler of what the policy wrote of one row."""
    return single(old, row).detach() - torch.tensor(row.old_logprobs)[written(row)]


def by_hand(
    model: Any, old: Any, groups: Sequence[Sequence[Row]], config: LearnerConfig, reference: Any = None
) -> tuple[float, list[Tensor], float]:
    """Loss, gradient and corrected share of an update as the formula has it, one row at a time."""
    model.zero_grad()
    rows = [row for group in groups for row in group]
    loss, cut, total = torch.zeros(()), 0, sum(row.written for row in rows)
    for row in rows:
        logratio = log_ratio(old, row)
        weight = logratio.exp() if config.correction == "token" else logratio.sum().exp().expand(row.written)
        above = weight > config.correction_cap
        cut += int(above.sum())
        weight = torch.where(above, 0.0 if config.correction_mask else config.correction_cap, weight)
        new = single(model, row)
        ratio = (new - single(old, row).detach()).exp()
        clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        terms = -torch.minimum(ratio * row.advantage, clipped * row.advantage)
        if reference is not None:
            difference = single(reference, row).detach() - new
            terms = terms + config.kl_coef * (difference.exp() - difference - 1)
        terms = terms * weight
        loss = loss + (terms.sum() / total if config.aggregate == "token" else terms.mean() / len(rows))
    loss.backward()
    gradient = [zeros_for_none(parameter) for parameter in model.parameters()]
    model.zero_grad()
    return loss.item(), gradient, cut / total


def check(recorder: Recorder, groups: Sequence[Sequence[Row]], config: LearnerConfig, reference: Any = None) -> None:
    """The first update is as by hand; one update moves nothing before its gradient is taken, so that π_old is π."""
    loss, gradient, cut = by_hand(recorder.model, recorder.model, groups, config, reference)
    stats = recorder.update(groups)
    assert stats["loss"] == pytest.approx(loss, abs=1e-5)
    assert stats["corrected"] == pytest.approx(cut)
    assert 0 < cut < 1
    assert same(recorder.gradients[0], gradient, 1e-5 * stats["grad_norm"])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("aggregate", ["token", "sequence"])
@pytest.mark.parametrize("micro_batch_tokens", [1, 60, 16384])
def test_the_gradient_is_that_of_the_formula_whatever_the_micro_batches(
    fresh_model: Callable[..., Any],
    groups: list[list[Row]],
    accelerator: Any,
    level: Level,
    mask: bool,
    aggregate: Any,
    micro_batch_tokens: int,
) -> None:
    config = replace(
        CONFIG, correction=level, correction_mask=mask, aggregate=aggregate, micro_batch_tokens=micro_batch_tokens
    )
    check(Recorder(fresh_model(), config, accelerator), groups, config)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("handicap", "sequences"), [(0.0, 5), (1e9, 12)])
def test_the_gradient_does_not_depend_on_which_rows_share_their_prompt(
    fresh_model: Callable[..., Any],
    groups: list[list[Row]],
    accelerator: Any,
    level: Level,
    handicap: float,
    sequences: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlvr.learner.batch.MASK_HANDICAP", handicap)
    monkeypatch.setattr("rlvr.learner.learner.into_bins", lambda tokens, packs, *_: [[pack] for pack in packs])
    config = replace(CONFIG, correction=level)
    recorder = Recorder(fresh_model(), config, accelerator)
    seen: list[int] = []
    decoder = recorder.model.get_decoder()
    decoder.register_forward_pre_hook(lambda *a: seen.append(len(a[-1]["input_ids"])), with_kwargs=True)
    recorder.update(groups)
    assert seen[-1] == sequences
    check(Recorder(fresh_model(), config, accelerator), groups, config)


@pytest.mark.parametrize("level", LEVELS)
def test_the_kl_term_is_weighed_as_well(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, level: Level
) -> None:
    config = replace(CONFIG, correction=level, correction_mask=True, kl_coef=0.3)
    reference = fresh_model(seed=1)
    check(Recorder(fresh_model(), config, accelerator, reference), groups, config, reference)


def test_the_default_is_to_weigh_nothing(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    learner = Learner(fresh_model(), CONFIG, 10, accelerator)
    assert learner.correct == "off"
    assert "corrected" not in learner.update(groups, TEMPERATURE)
    assert Learner(fresh_model(), CONFIG, 10, accelerator, correct="token").correct == "token"
    assert Learner(fresh_model(), replace(CONFIG, correction="sequence"), 10, accelerator).correct == "sequence"


@pytest.mark.parametrize("level", LEVELS)
def test_where_the_sampler_is_the_policy_a_correction_changes_nothing(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, level: Level
) -> None:
    model = fresh_model()
    exact = []
    for row in (row for group in groups for row in group):
        logprobs = torch.zeros(len(row.completion_ids))
        logprobs[written(row)] = single(model, row).detach()
        exact.append([replace(row, old_logprobs=tuple(logprobs.tolist()))])
    off, on = (Recorder(fresh_model(), replace(CONFIG, correction=c), accelerator) for c in ("off", level))
    plain, corrected = off.update(exact), on.update(exact)
    assert same(on.gradients[0], off.gradients[0], 1e-5 * plain["grad_norm"])
    assert corrected["corrected"] == 0
    assert corrected["mismatch_max"] == plain["mismatch_max"] < 1e-5


def test_masked_tokens_have_no_gradient(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    """All of them masked, that is none at all."""
    config = replace(CONFIG, correction="token", correction_mask=True, correction_cap=1.0)
    unlikely = [[replace(row, old_logprobs=(-50.0,) * len(row.old_logprobs)) for row in group] for group in groups]
    stats = Recorder(fresh_model(), config, accelerator).update(unlikely)
    assert stats["grad_norm"] == 0
    assert stats["corrected"] == 1


@pytest.mark.parametrize("level", LEVELS)
def test_later_updates_of_a_step_use_the_policy_that_it_began_with(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, level: Level
) -> None:
    config = replace(CONFIG, correction=level)
    both = Recorder(fresh_model(), replace(config, updates_per_step=2), accelerator)
    passes: list[bool] = []
    both.model.get_decoder().register_forward_pre_hook(lambda *a: passes.append(torch.is_grad_enabled()))
    stats = both.update(groups)
    assert passes[-3:] == [False, True, True]

    start, moved = fresh_model(), Recorder(fresh_model(), config, accelerator)
    moved.update(groups[:2])
    loss, gradient, _ = by_hand(moved.model, start, groups[2:], config)
    assert same(both.gradients[1], gradient, 1e-4 * stats["grad_norm"])
    wrong = by_hand(moved.model, moved.model, groups[2:], config)[1]
    assert not same(both.gradients[1], wrong, 1e-2 * stats["grad_norm"])
    first = by_hand(fresh_model(), start, groups[:2], config)[0]
    assert stats["loss"] == pytest.approx((first + loss) / 2, abs=1e-5)


def test_one_update_needs_no_further_forward_pass(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    recorder = Recorder(fresh_model(), replace(CONFIG, correction="token"), accelerator)
    recorder.update(groups)  # the first one tries how to compute
    passes: list[bool] = []
    recorder.model.get_decoder().register_forward_pre_hook(lambda *a: passes.append(torch.is_grad_enabled()))
    recorder.update(groups)
    assert passes == [True]


@pytest.mark.parametrize("level", ["off", *LEVELS])
@pytest.mark.parametrize("updates", [1, 2])
def test_mismatch_is_measured_with_the_weights_that_the_step_began_with(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, level: Any, updates: int
) -> None:
    model = fresh_model()
    measured = groups[:2] if level == "off" and updates == 2 else groups
    apart = torch.cat([log_ratio(model, row) for group in measured for row in group])
    stats = Recorder(model, replace(CONFIG, correction=level, updates_per_step=updates), accelerator).update(groups)
    assert stats["mismatch"] == pytest.approx(apart.abs().mean().item(), rel=1e-4)
    assert stats["mismatch_max"] == pytest.approx(apart.abs().max().item(), rel=1e-4)
    assert stats["mismatch_kl"] == pytest.approx((apart.exp() - 1 - apart).mean().item(), rel=1e-3)


def test_an_update_without_a_gradient_moves_nothing_so_the_next_one_is_measured(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    idle = [replace(row, advantage=0.0) for row in groups[0]]
    both = Recorder(fresh_model(), replace(CONFIG, updates_per_step=2), accelerator)
    alone = Recorder(fresh_model(), CONFIG, accelerator)
    assert both.update([idle, groups[1]])["mismatch"] == alone.update([groups[1]])["mismatch"] > 0
    assert "mismatch" not in both.update([idle])


# What the learner says of one sequence


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_a_sequence(
    fresh_model: Callable[..., Any], accelerator: Any, family: str, temperature: float
) -> None:
    model, ids = fresh_model(family).train(), [5, 9, 3, 4, 11, 20, 7, 8, 21]
    learner = Learner(model, CONFIG, 10, accelerator)
    found = learner.logprobs_of(ids, temperature)
    assert temperature != 1 or learner.logprobs_of(ids) == found
    logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, :-1] / temperature
    expected = logits.log_softmax(dim=-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_sequence_of_one_has_none(fresh_model: Callable[..., Any], accelerator: Any) -> None:
    learner = Learner(fresh_model(), CONFIG, 10, accelerator)
    assert learner.logprobs_of([]) == learner.logprobs_of([5]) == []


def test_they_are_computed_in_the_type_of_training(fresh_model: Callable[..., Any]) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    found = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)
        learner = Learner(fresh_model(), CONFIG, 10, Accelerator(cpu=True, mixed_precision=precision))
        found[precision] = learner.logprobs_of([5, 9, 3, 4, 11])
    AcceleratorState._reset_state(reset_partial_state=True)
    assert found["bf16"] == pytest.approx(found["no"], abs=0.2)
    assert found["bf16"] != pytest.approx(found["no"], abs=1e-5)


# What the learner hands to an engine


def tiny(family: str, **settings: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    if family == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    if family == "mixtral":
        sizes |= {"num_local_experts": 3, "num_experts_per_tok": 2}
    config = AutoConfig.for_model(
        family, vocab_size=28, bos_token_id=None, eos_token_id=1, pad_token_id=0, **(sizes | settings)
    )
    return AutoModelForCausalLM.from_config(config).float().eval()


def as_saved(model: Any, folder: Path) -> dict[str, Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


MODELS: dict[str, Callable[[], Any]] = {
    "starter": lambda: load_policy("starter", torch.device("cpu"))[0],
    "llama, tied": lambda: tiny("llama", tie_word_embeddings=True),
    "llama, not tied": lambda: tiny("llama", tie_word_embeddings=False),
    "gpt2": lambda: tiny("gpt2"),
    "mixtral": lambda: tiny("mixtral"),  # its experts lie together in memory and apart in a checkpoint
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loaded", [False, True])
def test_weights_are_what_would_be_saved(name: str, loaded: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = MODELS[name]()
    saved = as_saved(model, tmp_path)
    if loaded:
        model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    pairs = list(named_weights(model))
    assert len(pairs) == len(dict(pairs))
    assert equal(dict(pairs), saved)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for _, tensor in pairs)
    assert ("lm_head.weight" in saved) == (not model.config.tie_word_embeddings)
    if name != "mixtral":
        assert {tensor.data_ptr() for _, tensor in pairs} <= {p.data_ptr() for p in model.parameters()}  # no copies


def test_weights_are_those_of_the_last_update(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, tmp_path: Path
) -> None:
    learner = Learner(fresh_model(), CONFIG, 10, accelerator)
    before = {name: tensor.clone() for name, tensor in learner.weights()}
    learner.update(groups, TEMPERATURE)
    assert equal(dict(learner.weights()), as_saved(learner.policy, tmp_path))
    assert not equal(dict(learner.weights()), before)


ADAPTED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama, tied", {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "llama, embeddings and head": ("llama, not tied", {"target_modules": ["embed_tokens", "lm_head", "o_proj"]}),
    "llama, head trained as a whole": (
        "llama, not tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ),
    "llama, magnitudes": ("llama, not tied", {"target_modules": ["k_proj"], "use_dora": True}),
    "gpt2": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
}


# PEFT asks transformers for something by its old name.
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def with_adapter(name: str) -> Any:
    """A model with an adapter that does something."""
    import peft

    family, options = ADAPTED[name]
    model = peft.get_peft_model(MODELS[family](), peft.LoraConfig(r=2, lora_alpha=3, **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.rand(parameter.shape, generator=generator)
    return model.eval()


@peft_warns
@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapter_is_merged_into_what_is_handed_over_and_the_model_stays_as_it_was(name: str) -> None:
    model = with_adapter(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = dict(named_weights(model))
    assert equal(model.state_dict(), before)
    assert equal(found, dict(named_weights(copy.deepcopy(model).merge_and_unload())))

    def computes_as(model: Any) -> bool:
        """Whether a plain model with the weights handed over computes what this one does."""
        ids, plain = torch.tensor([[5, 9, 3, 4, 11]]), MODELS[ADAPTED[name][0]]()
        handed, own = dict(named_weights(model)), dict(named_weights(plain))
        assert handed.keys() == own.keys()
        plain.load_state_dict(handed, strict=False)  # a tied head is not in them
        return torch.allclose(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)

    assert computes_as(model)
    with model.disable_adapter():
        assert computes_as(model)
        assert not equal(dict(named_weights(model)), found)


@peft_warns
def test_the_merged_weight_is_the_base_and_the_scaled_product() -> None:
    model = with_adapter("llama")
    layer = model.base_model.model.model.layers[1].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    found = dict(named_weights(model))["model.layers.1.self_attn.q_proj.weight"]
    assert torch.allclose(found, layer.base_layer.weight + 3 / 2 * b @ a, atol=1e-6)
    assert found.data_ptr() != layer.base_layer.weight.data_ptr()


@peft_warns
def test_an_adapter_that_cannot_be_merged_is_named() -> None:
    import peft

    options = {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3]}}
    model = peft.get_peft_model(MODELS["llama, not tied"](), peft.LoraConfig(r=2, **options))
    with pytest.raises(ConfigError, match="embed_tokens` cannot be merged"):
        list(named_weights(model))


@peft_warns
def test_a_model_with_an_adapter_is_learned_and_handed_over(groups: list[list[Row]], accelerator: Any) -> None:
    model = with_adapter("llama")
    learner = Learner(model, CONFIG, 10, accelerator)
    before = {name: tensor.clone() for name, tensor in learner.weights()}
    learner.update(groups, TEMPERATURE)
    after = dict(learner.weights())
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if any(part in name for part in ("q_proj", "v_proj", "down_proj"))}
