"""The learner against a plain loop over single rows, and what an update must and must not move."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Completion, RunStopped, Sample, SamplingParams, Verdict
from rlvr.advantage import group_advantages
from rlvr.config import LearnerConfig
from rlvr.learner import checkpoint
from rlvr.learner.batch import Cost, Pack, Tokens, into_bins, make_packs, micro_batches
from rlvr.learner.learner import Learner, split
from rlvr.rollout import Group, Row, State
from rlvr.sampler.transformers import TransformersSampler

TEMPERATURE = 0.8
PROMPTS = ["1+2=?", "7", "a b c d 3-1=?", "09"]
CONFIG = LearnerConfig(lr=1e-2, grad_clip=0.0, clip_low=0.2, clip_high=0.28)


@pytest.fixture(scope="module")
def groups(model: Any, tokenizer: Any) -> list[list[Row]]:
    """Four groups of four rows of 1 to 12 tokens; the old policy is a little off, so that some ratios are clipped."""
    sampler = TransformersSampler(model, tokenizer)
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    noise = torch.Generator().manual_seed(0)
    rows: list[list[Row]] = [[] for _ in prompts]
    for index, completion in sampler.sample(prompts, 4, SamplingParams(12, TEMPERATURE, seed=1)):
        shift = 0.3 * torch.randn(len(completion.token_ids), generator=noise)
        old = tuple((torch.tensor(completion.logprobs) + shift).tolist())
        advantage = [1.5, -0.5, 0.0, -1.0][len(rows[index])]
        rows[index].append(Row(tuple(prompts[index]), completion.token_ids, old, advantage))
    return rows


class Recorder:
    """A learner that keeps the gradient of each of its updates."""

    def __init__(self, model: Any, config: LearnerConfig, accelerator: Any, reference: Any = None, total: int = 10):
        self.model = model
        self.gradients: list[list[torch.Tensor]] = []
        self.learner = Learner(model, config, total, accelerator, reference)
        self.learner.optimizer.register_step_pre_hook(self._keep)

    def _keep(self, *_: Any) -> None:
        self.gradients.append([zeros_for_none(p) for p in self.model.parameters()])

    def update(self, groups: Sequence[Sequence[Row]]) -> dict[str, float]:
        return self.learner.update(groups, TEMPERATURE)


def zeros_for_none(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()


def weights(model: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], tolerance: float = 0.0) -> bool:
    return all((a - b).abs().max() <= tolerance for a, b in zip(ours, theirs, strict=True))


def by_hand(
    model: Any, groups: Sequence[Sequence[Row]], config: LearnerConfig, reference: Any = None
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradient of an update as the formula has it: one row at a time, nothing padded, nothing skipped."""
    model.zero_grad()
    rows = [row for group in groups for row in group]
    loss = torch.zeros(())
    total = sum(len(row.completion_ids) for row in rows)
    for row in rows:
        new, old = single(model, row), torch.tensor(row.old_logprobs)
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        terms = -torch.minimum(ratio * row.advantage, clipped * row.advantage)
        if reference is not None:
            difference = single(reference, row).detach() - new
            terms = terms + config.kl_coef * (difference.exp() - difference - 1)
        loss = loss + (terms.sum() / total if config.aggregate == "token" else terms.mean() / len(rows))
    loss.backward()
    gradient = [zeros_for_none(parameter) for parameter in model.parameters()]
    model.zero_grad()
    return loss.item(), gradient


def single(model: Any, row: Row) -> torch.Tensor:
    """Log-probabilities of one row's completion."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    logits = model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1] / TEMPERATURE
    return logits.log_softmax(dim=-1).gather(1, torch.tensor(row.completion_ids)[:, None])[:, 0]


# ------------------------------------------------------------------------------------------------- the gradient


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gpt2"])
@pytest.mark.parametrize("aggregate", ["token", "sequence"])
@pytest.mark.parametrize("micro_batch_tokens", [1, 60, 16384])
def test_the_gradient_is_that_of_the_formula_whatever_the_micro_batches(
    fresh_model: Callable[..., Any],
    groups: list[list[Row]],
    accelerator: Any,
    family: str,
    aggregate: Any,
    micro_batch_tokens: int,
) -> None:
    config = replace(CONFIG, aggregate=aggregate, micro_batch_tokens=micro_batch_tokens)
    recorder = Recorder(fresh_model(family), config, accelerator)
    check_gradient(recorder, groups, config)


@pytest.mark.parametrize("handicap", [0.0, 2.0, 1e9])
def test_the_gradient_does_not_depend_on_which_rows_share_their_prompt(
    fresh_model: Callable[..., Any],
    groups: list[list[Row]],
    accelerator: Any,
    handicap: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dearer attention is, the fewer completions are packed behind one prompt: all, two, or one."""
    monkeypatch.setattr("rlvr.learner.batch.MASK_HANDICAP", handicap)
    monkeypatch.setattr("rlvr.learner.learner.into_bins", lambda tokens, packs, *_: [[pack] for pack in packs])
    model = fresh_model()
    seen: list[int] = []
    decoder = model.get_decoder()
    decoder.register_forward_pre_hook(lambda *a: seen.append(len(a[-1]["input_ids"])), with_kwargs=True)
    recorder = Recorder(model, CONFIG, accelerator)
    recorder.update(groups)
    sequences = seen[-1]  # in one micro-batch, 12 rows of 4 prompts, of which one has nothing to share
    assert {0.0: sequences == 6, 2.0: 6 < sequences < 12, 1e9: sequences == 12}[handicap]
    seen.clear()
    check_gradient(Recorder(fresh_model(), CONFIG, accelerator), groups, CONFIG)


def test_a_sliding_window_is_kept_to_by_rows_longer_than_those_it_was_tried_on(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    short = [replace(row, completion_ids=(5, 6), old_logprobs=(-1.0, -2.0)) for row in groups[1]]
    check_gradient(Recorder(fresh_model("mistral"), CONFIG, accelerator), [short, *groups], CONFIG)


def check_gradient(recorder: Recorder, groups: Sequence[Sequence[Row]], config: LearnerConfig) -> None:
    loss, gradient = by_hand(recorder.model, groups, config)
    stats = recorder.update(groups)
    assert stats["loss"] == pytest.approx(loss, abs=1e-5)
    assert stats["grad_norm"] == pytest.approx(math.sqrt(sum(g.square().sum().item() for g in gradient)), rel=1e-4)
    assert same(recorder.gradients[-1], gradient, 1e-5 * stats["grad_norm"])


def test_a_completion_that_was_sampled_three_times_counts_three_times(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    repeated = [[group[0], *group, group[0]] for group in groups]
    recorder = Recorder(fresh_model(), CONFIG, accelerator)
    check_gradient(recorder, repeated, CONFIG)


def test_with_a_reference_the_gradient_has_the_kl_term(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    config = replace(CONFIG, kl_coef=0.3)
    model, reference = fresh_model(), fresh_model(seed=1)
    _, gradient = by_hand(model, groups, config, reference)
    recorder = Recorder(model, config, accelerator, reference)
    stats = recorder.update(groups)
    assert same(recorder.gradients[0], gradient, 1e-5 * stats["grad_norm"])
    assert stats["kl"] > 0.1


def test_rows_without_advantage_cost_no_forward_pass_but_count(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    """That they count, the comparisons with the formula show: one row of each group has advantage 0."""
    model = fresh_model()
    seen: list[int] = []
    learner = Learner(model, CONFIG, 10, accelerator)
    learner.update([groups[0]], TEMPERATURE)
    model.get_decoder().register_forward_pre_hook(lambda *a: seen.append(1))
    idle = [replace(row, advantage=0.0) for row in groups[0]]
    learner.update([idle], TEMPERATURE)
    assert seen == []


def test_a_missing_row_is_as_if_it_had_not_been_sampled(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    def update(rewards: list[float | None], rows: list[Row]) -> list[torch.Tensor]:
        group = Group(
            Sample("1"),
            rows[0].prompt_ids,
            tuple(Completion("", row.completion_ids, row.old_logprobs) for row in rows),
            tuple(Verdict.error("crashed") if r is None else Verdict.of(r > 0, "seen") for r in rewards),
            tuple(rewards),
            tuple(rewards),
            tuple(group_advantages(rewards)),
        )
        recorder = Recorder(fresh_model(), CONFIG, accelerator)
        recorder.update([group.rows()])
        return weights(recorder.model)

    rows = groups[0]
    assert same(update([1.0, None, 0.0, 0.0], rows), update([1.0, 0.0, 0.0], [rows[0], *rows[2:]]))
    assert not same(update([1.0, None, 0.0, 0.0], rows), update([1.0, 0.0, 0.0, 0.0], rows))


@pytest.mark.parametrize("kind", ["no group", "all missing", "all equal"])
def test_nothing_to_learn_from_moves_nothing(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, kind: str
) -> None:
    model = fresh_model()
    learner = Learner(model, CONFIG, 10, accelerator)
    learner.update(groups, TEMPERATURE)  # so that the optimiser has momentum
    before = weights(model)
    equal = [[replace(row, advantage=0.0) for row in group] for group in groups]
    nothing: dict[str, list[list[Row]]] = {"no group": [], "all missing": [[], []], "all equal": equal}
    learner.update(nothing[kind], TEMPERATURE)
    assert same(weights(model), before)


def test_each_update_of_a_step_takes_its_own_groups(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    recorder = Recorder(fresh_model(), replace(CONFIG, updates_per_step=2), accelerator)
    first = by_hand(recorder.model, groups[:2], CONFIG)[1]
    recorder.update(groups)
    assert len(recorder.gradients) == 2
    assert same(recorder.gradients[0], first, 1e-5)
    assert not same(recorder.gradients[1], first, 1e-3)


def test_on_policy_the_ratio_is_one_even_for_a_model_with_dropout(
    fresh_model: Callable[..., Any], tokenizer: Any, accelerator: Any
) -> None:
    """Trained with dropout, the policy would differ from the one that sampled, by chance and at every token."""
    model = fresh_model("gpt2").train()
    assert model.config.resid_pdrop > 0
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    params = SamplingParams(8, TEMPERATURE, seed=2)
    rows = [
        Row(tuple(prompts[index]), completion.token_ids, completion.logprobs, 1.0 - index)
        for index, completion in TransformersSampler(model, tokenizer).sample(prompts, 2, params)
    ]
    stats = Learner(model, CONFIG, 10, accelerator).update([rows], TEMPERATURE)
    assert stats["clip_fraction"] == 0
    assert stats["old_kl"] == pytest.approx(0, abs=1e-5)


def test_the_probability_of_what_is_rewarded_rises(
    fresh_model: Callable[..., Any], tokenizer: Any, accelerator: Any
) -> None:
    model = fresh_model()
    sampler, learner = TransformersSampler(model, tokenizer), Learner(model, CONFIG, 20, accelerator)
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    shares = []
    for step in range(20):
        groups: list[list[Completion]] = [[] for _ in prompts]
        for index, completion in sampler.sample(prompts, 16, SamplingParams(1, seed=step)):
            groups[index].append(completion)
        rewards = [[float(c.text.isdigit()) for c in group] for group in groups]
        shares.append(sum(map(sum, rewards)) / 64)
        learner.update(
            [
                [
                    Row(tuple(prompt), c.token_ids, c.logprobs, a or 0.0)
                    for c, a in zip(group, group_advantages(r), strict=True)
                ]
                for prompt, group, r in zip(prompts, groups, rewards, strict=True)
            ],
            1.0,
        )
    assert shares[0] < 0.6
    assert shares[-1] > 0.95


# ------------------------------------------------------------------------------------------------ the reference


def test_without_a_kl_coefficient_there_is_no_reference(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    learner = Learner(fresh_model(), CONFIG, 10, accelerator)
    assert learner.reference is None
    assert "kl" not in learner.update(groups, TEMPERATURE)


def test_the_reference_stays_while_the_policy_leaves_it(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    reference = fresh_model().train()
    learner = Learner(fresh_model(), replace(CONFIG, kl_coef=0.05), 10, accelerator, reference)
    before = weights(reference)
    kl = [learner.update(groups, TEMPERATURE)["kl"] for _ in range(3)]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[2] > 1e-3
    assert same(weights(reference), before)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in reference.parameters())


def test_policy_and_reference_compute_in_the_same_type(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    half = Accelerator(cpu=True, mixed_precision="bf16")
    learner = Learner(fresh_model(), replace(CONFIG, kl_coef=0.05), 10, half, fresh_model())
    stats = learner.update(groups, TEMPERATURE)
    assert stats["kl"] == pytest.approx(0, abs=1e-6)
    assert learner.policy.dtype == torch.float32


# ------------------------------------------------------------------------------------------------ the optimiser


def rates(fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, **settings: Any) -> list[float]:
    learner = Learner(fresh_model(), replace(CONFIG, lr=1.0e-3, **settings), 6, accelerator)
    return [learner.update(groups[:1], TEMPERATURE)["lr"] for _ in range(6)]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", [1.0] * 6),
        ("linear", [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [(1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)]),
    ],
)
def test_schedules(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, schedule: Any, shares: list[float]
) -> None:
    found = rates(fresh_model, groups, accelerator, schedule=schedule)
    assert found == pytest.approx([1e-3 * share for share in shares], abs=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_rises_in_equal_steps_to_the_peak(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, schedule: Any
) -> None:
    found = rates(fresh_model, groups, accelerator, schedule=schedule, warmup_steps=3)
    assert found[3] == pytest.approx(1e-3)
    assert found[1] - found[0] == pytest.approx(found[2] - found[1]) == pytest.approx(1e-3 / 3)
    assert max(found) == found[3]


def test_a_schedule_shorter_than_its_warm_up_is_no_crash(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    found = rates(fresh_model, groups, accelerator, schedule="linear", warmup_steps=20)
    assert found == sorted(found)


def test_the_gradient_is_clipped_by_its_global_norm(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    whole, clipped = (Recorder(fresh_model(), replace(CONFIG, grad_clip=limit), accelerator) for limit in (0.0, 0.01))
    norm = whole.update(groups)["grad_norm"]
    assert norm > 0.1
    assert clipped.update(groups)["grad_norm"] == pytest.approx(norm)  # what is reported is the norm before
    scaled = [g * 0.01 / norm for g in whole.gradients[0]]
    assert same(clipped.gradients[0], scaled, 1e-6)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_stops_the_run_before_it_does_harm(
    fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any, value: float
) -> None:
    model = fresh_model()
    learner = Learner(model, CONFIG, 10, accelerator)
    before = weights(model)
    with pytest.raises(RunStopped, match="the gradient norm is"):
        learner.update([[replace(groups[0][0], advantage=value)]], TEMPERATURE)
    assert same(weights(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    learner.update(groups, TEMPERATURE)
    assert not same(weights(model), before)


# --------------------------------------------------------------------------------------------------- micro-batches


CPU = torch.device("cpu")


def row(prompt: int, completion: int, name: int = 0) -> Row:
    return Row((0,) * prompt, (name,) * completion, (0.0,) * completion, 1.0)


def table(*groups: tuple[int, list[int]]) -> Tokens:
    """Groups of a prompt of so many tokens and completions of so many each."""
    return Tokens([[row(prompt, n, i) for i, n in enumerate(lengths)] for prompt, lengths in groups], CPU)


GROUPS = st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=3)), max_size=8)


@given(GROUPS, st.integers(1, 80), st.integers(1, 4))
def test_micro_batches_take_every_pack_once_and_keep_to_the_limit(
    lengths: list[Any], limit: int, multiple: int
) -> None:
    tokens = table(*lengths)
    packs: list[Pack] = [tuple(group) for group in tokens.groups]
    found = micro_batches(tokens, packs, limit, multiple)
    assert sorted(pack for batch in found for pack in batch) == sorted(packs)
    assert len(found) % multiple == 0
    for batch in found:
        assert len(batch) <= 1 or sum(map(tokens.length, batch)) <= limit


def test_micro_batches_are_balanced_by_tokens() -> None:
    """Filled up one after the other, the last would have what is left."""
    tokens = table(*((1, [10]) for _ in range(12)))
    packs = [tuple(group) for group in tokens.groups]
    assert list(map(len, micro_batches(tokens, packs, 110))) == [6, 6]
    assert list(map(len, micro_batches(tokens, packs, 1000, multiple=4))) == [3, 3, 3, 3]


@given(st.integers(1, 30), st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 100), st.floats(0, 10))
def test_packs_take_every_row_once_and_keep_to_the_limit(
    prompt: int, completions: list[int], limit: int, attention: float
) -> None:
    tokens = table((prompt, completions))
    packs = list(make_packs(tokens, tokens.groups[0], limit, Cost(1.0, attention)))
    assert [number for pack in packs for number in pack] == tokens.groups[0]
    assert all(len(pack) == 1 or tokens.length(pack) <= limit for pack in packs)


def test_the_longer_the_prompt_the_more_completions_share_it() -> None:
    def size(prompt: int) -> int:
        tokens = table((prompt, [10] * 16))
        return len(next(make_packs(tokens, tokens.groups[0], 10**6, Cost(1e6, 1e3))))

    sizes = [size(prompt) for prompt in (1, 10, 100, 1000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@given(GROUPS.filter(bool), st.booleans(), st.floats(0, 100))
def test_bins_take_every_pack_once_and_are_no_wider_than_the_widest(
    lengths: list[Any], one_row: bool, attention: float
) -> None:
    tokens = table(*lengths)
    packs: list[Pack] = [tuple(group) for group in tokens.groups]
    bins = into_bins(tokens, packs, Cost(1.0, attention), one_row)
    assert sorted(pack for packs in bins for pack in packs) == sorted(packs)
    widths = [sum(map(tokens.length, packs)) for packs in bins]
    assert (len(bins) == 1) if one_row else (max(widths) <= max(map(tokens.length, packs)))


def test_ragged_packs_fill_their_sequences() -> None:
    """Padded to the longest they would take four times as many columns."""
    generator = random.Random(0)
    tokens = table(*((1, [generator.choice([5, 10, 20, 400])]) for _ in range(200)))
    packs = [tuple(group) for group in tokens.groups]
    bins = into_bins(tokens, packs, Cost(1e9, 1.0))
    columns = len(bins) * max(map(tokens.length, packs))
    assert columns < 1.1 * sum(map(tokens.length, packs))


def test_no_position_is_beyond_the_context_however_wide_packs_are(
    fresh_model: Callable[..., Any], accelerator: Any
) -> None:
    """A pack of several completions is wider than any of them, and what pads the others must not count on."""
    model = fresh_model("gpt2")
    context = model.config.n_positions
    lengths = [(context // 2, 8, context // 8), (context // 3, 6, context // 10), (10, 8, context // 8)]
    groups = [
        [Row((5,) * prompt, (6 + i,) * n, (-2.0,) * n, (-1.0) ** i) for i in range(count)]
        for prompt, count, n in lengths
    ]
    seen: list[torch.Tensor] = []
    learner = Learner(model, CONFIG, 10, accelerator)
    decoder = model.get_decoder()
    decoder.register_forward_pre_hook(lambda *a: seen.append(a[-1]["position_ids"]), with_kwargs=True)
    learner.update(groups, 1.0)
    assert max(ids.shape[1] for ids in seen) > context  # or it shows nothing
    assert max(int(ids.max()) for ids in seen) < context


def test_only_rows_that_are_the_same_in_everything_are_merged() -> None:
    first = Row((3,), (4, 5), (-1.0, -2.0), 0.5)
    others = [
        replace(first, completion_ids=(4, 6)),
        replace(first, advantage=-0.5),
        replace(first, old_logprobs=(-1.0, -2.5)),
        replace(first, reward=1.0),
    ]
    tokens = Tokens([[first, *others, first, first]], CPU)
    assert tokens.rows == [first, *others]
    assert tokens.counts == [3, 1, 1, 1, 1]


@given(st.integers(0, 20), st.integers(1, 6))
def test_split_keeps_every_group_in_order_and_parts_nearly_equal(count: int, parts: int) -> None:
    groups: list[list[Row]] = [[Row((), (i,), (0.0,), 0.0)] for i in range(count)]
    found = list(split(groups, parts))
    assert [group for part in found for group in part] == groups
    sizes = [len(part) for part in found]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


# ---------------------------------------------------------------------------------------------------- checkpoints

SCHEDULED = replace(CONFIG, schedule="cosine", warmup_steps=2)
GROUP = Group(
    Sample("s", [{"role": "user", "content": "1+1"}], "2", {"level": 1}),
    (3, 4),
    (Completion("2", (5, 1), (-0.5, -0.25)),),
    (Verdict.of(True, "right", parts={"answer": "2"}).took(0.5),),
    (1.0,),
    (0.75,),
    (None,),
)


@pytest.fixture
def saved(
    fresh_model: Callable[..., Any], groups: list[list[Row]], tokenizer: Any, accelerator: Any, tmp_path: Path
) -> tuple[Path, Learner]:
    """A checkpoint after two updates, and the learner that wrote it."""
    learner = Learner(fresh_model(), SCHEDULED, 10, accelerator)
    for _ in range(2):
        learner.update(groups, TEMPERATURE)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    checkpoint.write(folder, learner, tokenizer, State(2, 8, (GROUP,)))
    return folder, learner


def test_a_restored_learner_goes_on_as_if_nothing_had_happened(
    saved: tuple[Path, Learner], fresh_model: Callable[..., Any], groups: list[list[Row]], accelerator: Any
) -> None:
    folder, learner = saved
    drawn = torch.rand(3)
    other = Learner(fresh_model(seed=5), SCHEDULED, 10, accelerator)
    assert checkpoint.read(folder, other) == State(2, 8, (GROUP,))
    assert torch.equal(torch.rand(3), drawn)
    for _ in range(2):
        assert other.update(groups, TEMPERATURE) == learner.update(groups, TEMPERATURE)
    assert same(weights(other.policy), weights(learner.policy))
