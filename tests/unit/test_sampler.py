"""The sampler against the model itself: `generate`, a forward pass, and what it promises about order and number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr import Completion, ConfigError, DataError, Sample, SamplingParams, Task
from rlvr.sampler.prompts import encode_prompt
from rlvr.sampler.transformers import TransformersSampler, branch, chances, draw, end_tokens, pad_left

CPU = torch.device("cpu")

PROMPTS = ["1+2=?", "7", "a b c d e 3-1=?", "09"]
FAMILIES = ["qwen2", "mistral", "gpt2"]  # full attention, a sliding window of 6 tokens, learned positions


def sample(
    model: Any, tokenizer: Any, group_size: int, params: SamplingParams, batch_size: int = 512
) -> list[tuple[int, Completion]]:
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    return list(TransformersSampler(model, tokenizer, batch_size).sample(prompts, group_size, params))


def one_by_one(model: Any, tokenizer: Any, index: int, completion: Completion, temperature: float) -> torch.Tensor:
    """Log-probabilities of a completion from one forward pass over it alone, without padding or cache."""
    prompt = tokenizer.encode(PROMPTS[index])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *completion.token_ids]])).logits[0, len(prompt) - 1 : -1]
    ids = torch.tensor(completion.token_ids)
    return (logits / temperature).log_softmax(dim=-1).gather(1, ids[:, None])[:, 0]


# ------------------------------------------------------------------------------------------ against the model itself


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_log_probabilities_are_the_models_own(
    fresh_model: Callable[..., Any], tokenizer: Any, family: str, top_p: float
) -> None:
    """Through left padding, groups, the cache and rows that leave the batch."""
    model = fresh_model(family)
    found = sample(model, tokenizer, 6, SamplingParams(20, 0.8, top_p, seed=3))
    assert len({len(completion.token_ids) for _, completion in found}) > 1
    for index, completion in found:
        expected = one_by_one(model, tokenizer, index, completion, 0.8)
        assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_what_generate_does(fresh_model: Callable[..., Any], tokenizer: Any, family: str) -> None:
    ends = set()
    for seed in range(6):
        model = fresh_model(family, seed)
        found = dict(sample(model, tokenizer, 1, SamplingParams(16, temperature=0)))
        for index, prompt in enumerate(PROMPTS):
            ids = torch.tensor([tokenizer.encode(prompt)])
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16)
            completion = found[index]
            assert completion.token_ids == tuple(whole[0, ids.shape[1] :].tolist())
            ends.add(completion.finish_reason)
            expected = one_by_one(model, tokenizer, index, completion, 1.0)
            assert torch.allclose(torch.tensor(completion.logprobs), expected, atol=1e-4)
    assert ends == {"stop", "length"}


def test_sampling_draws_from_the_models_distribution(model: Any, tokenizer: Any) -> None:
    drawn = Counter(c.token_ids[0] for i, c in sample(model, tokenizer, 4000, SamplingParams(1, 0.9)) if i == 0)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokenizer.encode(PROMPTS[0])])).logits[0, -1]
    for token, probability in enumerate((logits / 0.9).softmax(dim=-1).tolist()):
        spread = (probability * (1 - probability) / 4000) ** 0.5
        assert abs(drawn[token] / 4000 - probability) < 5 * spread + 1e-3


# ------------------------------------------------------------------------------------------------- what it promises


@pytest.mark.parametrize(("group_size", "batch_size"), [(1, 1), (3, 2), (7, 3), (5, 5), (2, 7), (4, 512), (9, 4)])
def test_every_prompt_gets_its_group_whatever_the_batch(
    model: Any, tokenizer: Any, group_size: int, batch_size: int
) -> None:
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda *a: sizes.append(len(a[-1]["input_ids"])), with_kwargs=True)
    found = sample(model, tokenizer, group_size, SamplingParams(5), batch_size)
    handle.remove()
    assert Counter(index for index, _ in found) == dict.fromkeys(range(len(PROMPTS)), group_size)
    assert max(sizes) <= batch_size


def test_no_prompts_give_no_completions(model: Any, tokenizer: Any) -> None:
    assert list(TransformersSampler(model, tokenizer).sample([], 4, SamplingParams(5))) == []


def test_a_completion_stops_at_its_first_end_token_or_at_the_limit(model: Any, tokenizer: Any) -> None:
    found = [completion for _, completion in sample(model, tokenizer, 16, SamplingParams(12))]
    for completion in found:
        assert 1 <= len(completion.token_ids) <= 12
        assert len(completion.logprobs) == len(completion.token_ids)
        assert tokenizer.eos_token_id not in completion.token_ids[:-1]
        ended = completion.token_ids[-1] == tokenizer.eos_token_id
        assert completion.finish_reason == ("stop" if ended else "length")
        assert ended or len(completion.token_ids) == 12
        assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
    assert {completion.truncated for completion in found} == {True, False}


def test_one_token_is_a_completion(model: Any, tokenizer: Any) -> None:
    found = sample(model, tokenizer, 8, SamplingParams(1))
    assert {len(completion.token_ids) for _, completion in found} == {1}


def test_a_completion_comes_the_moment_it_ends(model: Any, tokenizer: Any) -> None:
    """Short ones come first, and nothing is computed ahead of the one that is asked for."""
    passes: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: passes.append(1))
    prompts = [tokenizer.encode(prompt) for prompt in PROMPTS]
    lengths = []
    for _, completion in TransformersSampler(model, tokenizer).sample(prompts, 16, SamplingParams(20, seed=1)):
        lengths.append(len(completion.token_ids))
        assert len(passes) == lengths[-1]  # one for the prompt, and one for each token but the last
    handle.remove()
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_what_is_computed_is_a_tree_of_prefixes(model: Any, tokenizer: Any) -> None:
    """Each prompt once, then one row for completions that agree so far, and few for those that have ended."""
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(lambda *a: sizes.append(len(a[-1]["input_ids"])), with_kwargs=True)
    found = sample(model, tokenizer, 16, SamplingParams(20, seed=1))
    handle.remove()
    assert sizes[0] == len(PROMPTS)
    for t, size in enumerate(sizes[1:], start=1):
        alive = {(index, c.token_ids[:t]) for index, c in found if len(c.token_ids) > t}
        assert len(alive) <= size <= len(alive) / 0.875 + 1


def test_the_seed_decides(model: Any, tokenizer: Any) -> None:
    def drawn(seed: int) -> list[tuple[int, Completion]]:
        return sample(model, tokenizer, 4, SamplingParams(12, seed=seed))

    first = drawn(1)
    torch.rand(7)  # the process's own random state has no part in it
    assert drawn(1) == first
    assert drawn(2) != first


def test_sampling_leaves_the_random_state_of_the_process_alone(model: Any, tokenizer: Any) -> None:
    before = torch.get_rng_state()
    sample(model, tokenizer, 2, SamplingParams(4))
    assert torch.equal(torch.get_rng_state(), before)


# --------------------------------------------------------------------------------------------------- the model's mode


def test_the_model_samples_without_dropout_and_gets_its_mode_back(
    fresh_model: Callable[..., Any], tokenizer: Any
) -> None:
    model = fresh_model("gpt2").train()
    assert sample(model, tokenizer, 4, SamplingParams(8, seed=1)) == sample(
        fresh_model("gpt2"), tokenizer, 4, SamplingParams(8, seed=1)
    )
    assert model.training


def test_a_caller_that_stops_early_gets_the_mode_back_too(fresh_model: Callable[..., Any], tokenizer: Any) -> None:
    model = fresh_model("gpt2").train()
    completions = TransformersSampler(model, tokenizer).sample([[3, 4]], 8, SamplingParams(8))
    next(completions)
    assert not model.training
    assert torch.is_grad_enabled()
    completions.close()  # type: ignore[attr-defined]
    assert model.training


# ---------------------------------------------------------------------------------------------------- one token


def test_top_p_keeps_the_fewest_tokens_that_have_the_mass() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()

    def drawn(top_p: float) -> set[int]:
        ids, _ = draw(
            logits,
            torch.zeros(2000, dtype=torch.long),
            SamplingParams(1, 1.0, top_p),
            chances([0], [2000], 1, CPU)[:, 0],
        )
        return set(ids.tolist())

    assert drawn(1.0) == {0, 1, 2, 3}
    assert drawn(0.9) == {0, 1, 2}
    assert drawn(0.7) == {0, 1}
    assert drawn(0.4) == drawn(1e-6) == {0}


def test_each_completion_draws_from_the_row_it_stands_at() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf], [0.0, -math.inf, -math.inf], [-math.inf, -math.inf, 0.0]])
    row = torch.tensor([2, 0, 0, 1])
    for temperature in (0, 1.0):
        ids, logprobs = draw(logits, row, SamplingParams(1, temperature), chances([0], [4], 1, CPU)[:, 0])
        assert ids.tolist() == [2, 1, 1, 0]
        assert logprobs.tolist() == [0, 0, 0, 0]


def test_log_probabilities_are_of_the_whole_distribution_at_the_sampling_temperature() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    ids, logprobs = draw(logits, torch.tensor([0]), SamplingParams(1, 0.5, 0.1), torch.tensor([0.5]))
    assert ids.tolist() == [0]
    assert logprobs.item() == pytest.approx((logits / 0.5).log_softmax(dim=-1)[0, 0].item())


def test_rare_tokens_of_a_large_vocabulary_can_be_drawn() -> None:
    """Half of the mass lies on the last 150,000 tokens, a few millionths on each."""
    logits = torch.cat([torch.tensor([0.0]), torch.full((150_000,), -math.log(150_000))])[None]
    ids, _ = draw(logits, torch.zeros(64, dtype=torch.long), SamplingParams(1), chances([0], [64], 1, CPU)[:, 0])
    rare = [i for i in ids.tolist() if i]
    assert 16 < len(rare) < 48
    assert len(set(rare)) == len(rare)


@given(
    st.integers(1, 8).flatmap(
        lambda rows: st.tuples(
            st.just(rows),
            st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, 2)), min_size=1, max_size=12),
        )
    )
)
def test_completions_share_a_row_while_they_have_drawn_the_same(case: tuple[int, list[tuple[int, int]]]) -> None:
    rows, standing = case
    row_L, tokens_L = torch.tensor(standing).T
    new_row_L, parent_R, tokens_R = branch(row_L, tokens_L, rows, 3)
    for (row, token), new in zip(standing, new_row_L.tolist(), strict=True):
        assert tokens_R[new] == token
        assert (new if parent_R is None else parent_R[new]) == row
    assert len(set(new_row_L.tolist())) == len(set(standing))
    if parent_R is None:
        assert len(tokens_R) == rows
        assert len(set(standing)) > 0.875 * rows
    else:
        assert len(tokens_R) == len(set(standing))


def test_padding_goes_to_the_left_and_is_masked() -> None:
    ids, mask = pad_left([[5], [6, 7, 8]], torch.device("cpu"))
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_end_tokens_are_the_tokenizers_and_the_models(fresh_model: Callable[..., Any], tokenizer: Any) -> None:
    model = fresh_model()
    model.generation_config.eos_token_id = [1, 7]
    assert end_tokens(model, tokenizer) == {1, 7}
    model.generation_config.eos_token_id = 9
    assert end_tokens(model, tokenizer) == {1, 9}
    found = [c for _, c in sample(model, tokenizer, 16, SamplingParams(12))]
    assert {c.token_ids[-1] for c in found if c.finish_reason == "stop"} == {1, 9}


def test_a_prompt_that_does_not_fit_the_context_is_refused(fresh_model: Callable[..., Any], tokenizer: Any) -> None:
    sampler = TransformersSampler(fresh_model("gpt2"), tokenizer)  # 64 learned positions
    assert len(list(sampler.sample([[3] * 54], 1, SamplingParams(10, 0)))) == 1
    with pytest.raises(ConfigError, match="do not fit the model's context of 64 tokens"):
        list(sampler.sample([[3] * 55], 1, SamplingParams(10)))


# ------------------------------------------------------------------------------------------------------- prompts

TASK = Task("t", "math", lambda split: [])
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' and no_system is not defined %}s {{ m['content'] }}"
    "{% elif m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% else %}{{ m['content'] }}={% endif %}{% endfor %}{% if add_generation_prompt %}?{% endif %}"
)


@pytest.fixture
def chatty(tokenizer: Any) -> Any:
    """The tokenizer with a chat template."""
    import copy

    clone = copy.deepcopy(tokenizer)
    clone.chat_template = TEMPLATE
    return clone


def test_a_chat_template_is_applied_where_there_is_one(tokenizer: Any, chatty: Any) -> None:
    sample = Sample("1", "1+2")
    assert tokenizer.decode(encode_prompt(tokenizer, sample, TASK)) == "1+2"
    assert chatty.decode(encode_prompt(chatty, sample, TASK)) == "1+2=?"


def test_the_tasks_system_message_comes_first_and_whole_chats_are_kept(chatty: Any) -> None:
    task = Task("t", "math", lambda split: [], system="abc")
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    assert chatty.decode(encode_prompt(chatty, Sample("1", "7"), task)) == "s abc7=?".replace("s", "<unk>", 1)
    assert chatty.decode(encode_prompt(chatty, Sample("1", chat), TASK)) == "1=2=3=?"


def test_a_prompt_without_tokens_is_an_error_that_names_its_sample(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="sample `s-7` is empty"):
        encode_prompt(tokenizer, Sample("s-7", ""), TASK)


def test_a_template_that_refuses_a_prompt_is_an_error_that_names_its_sample(chatty: Any) -> None:
    chatty.chat_template = "{% set no_system = true %}" + TEMPLATE
    task = Task("t", "math", lambda split: [], system="abc")
    with pytest.raises(ConfigError, match=r"sample `s-7`: System role not supported"):
        encode_prompt(chatty, Sample("s-7", "1"), task)


def test_what_is_sampled_for_a_prompt_does_not_depend_on_the_others(model: Any, tokenizer: Any) -> None:
    """So that a run samples the same however its prompts are spread over batches and processes."""
    sampler = TransformersSampler(model, tokenizer)
    prompts = [tokenizer.encode(text) for text in ("1+2=?", "7", "a b c d 3-1=?")]
    together = drawn(sampler, prompts, SamplingParams(12, seeds=(5, 6, 7)))
    apart = [
        drawn(sampler, [p], SamplingParams(12, seeds=(seed,)))[0] for p, seed in zip(prompts, (5, 6, 7), strict=True)
    ]
    assert together == apart
    assert drawn(sampler, prompts, SamplingParams(12, seeds=(5, 6, 8)))[:2] == together[:2]
    assert drawn(sampler, prompts, SamplingParams(12, seeds=(5, 6, 8)))[2] != together[2]


def drawn(sampler: TransformersSampler, prompts: Any, params: SamplingParams) -> list[list[tuple[int, ...]]]:
    found: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    for index, completion in sampler.sample(prompts, 4, params):
        found[index].append(completion.token_ids)
    return found
