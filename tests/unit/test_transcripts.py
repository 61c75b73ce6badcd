"""Completions of several turns: how they are sampled, what the verifier sees, and what the learner learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

import rlvr
import rlvr.flow
from rlvr import Completion, Sample, SamplingParams, Scorer, Status, Task, Turn, UsageError, Verdict
from rlvr.config import LearnerConfig
from rlvr.flow import open_flow
from rlvr.learner.batch import Tokens, lay_out
from rlvr.learner.learner import Learner
from rlvr.learner.modules import PolicyModule
from rlvr.mixture import number
from rlvr.rollout import Group, Row, State
from rlvr.sampler.prompts import encode_reply
from rlvr.sampler.transformers import TransformersSampler
from rlvr.scoring_worker import as_reply
from rlvr.transcripts import sample_and_submit

PLUGIN = Path(__file__).parents[1] / "plugins" / "talkative.py"
PROMPTS = ["12+", "7-", "ab"]


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(workers=1, plugins=[PLUGIN]) as scorer:
        yield scorer


Found = list[tuple[int, Completion, Verdict]]


@pytest.fixture
def talk(model: Any, tokenizer: Any, scorer: Scorer) -> Callable[..., Found]:
    """Samples groups of `count` for the prompts, with verdicts."""
    samples = [Sample(str(i), text) for i, text in enumerate(PROMPTS)]
    ids = [tokenizer.encode(text) for text in PROMPTS]

    def run(turns: int, max_tokens: int = 60, count: int = 8, verifier: str = "parrot", **options: Any) -> Found:
        task = Task("talk", verifier, lambda split: samples, turns=turns, verifier_options=options)
        sampler = TransformersSampler(model, tokenizer)
        params = SamplingParams(max_tokens, seed=5)
        problems = number([task], [samples])
        ended = sample_and_submit(problems, ids, count, params, tokenizer, sampler, scorer)
        return [(index, completion, verdict.result()) for index, completion, verdict in ended]

    return run


def test_a_single_turn_is_what_the_sampler_wrote(talk: Callable[..., Found], model: Any, tokenizer: Any) -> None:
    ids = [tokenizer.encode(text) for text in PROMPTS]
    plain = list(TransformersSampler(model, tokenizer).sample(ids, 8, SamplingParams(60, seed=5)))
    assert [(index, completion) for index, completion, _ in talk(turns=1)] == plain
    assert all(not completion.turns and not completion.foreign for _, completion in plain)


def test_a_transcript_alternates_and_keeps_to_its_limits(talk: Callable[..., Found], tokenizer: Any) -> None:
    found = talk(turns=3)
    assert sorted(index for index, _, _ in found) == sorted(list(range(len(PROMPTS))) * 8)
    assert {len(completion.turns) for _, completion, _ in found} >= {0, 3, 5}  # some end at once, some go on
    for _, completion, verdict in found:
        assert len(completion.token_ids) == len(completion.logprobs) <= 60
        roles = [turn.role for turn in completion.turns]
        assert roles == ["policy", "environment", "policy", "environment", "policy"][: len(roles)]
        assert len(roles) <= 5
        assert verdict.parts["turns"] == [[turn.role, turn.text] for turn in completion.turns]
        assert completion.written + sum(b - a for a, b in completion.foreign) == len(completion.token_ids)
        replies = [turn.text for turn in completion.turns if turn.role == "environment"]
        assert len(replies) == len(completion.foreign)
        for (start, stop), reply in zip(completion.foreign, replies, strict=True):
            assert tokenizer.decode(completion.token_ids[start:stop]).replace("<unk>", "") == reply
            assert completion.logprobs[start:stop] == (0.0,) * (stop - start)


def test_the_last_policy_turn_ends_where_nothing_more_is_said(talk: Callable[..., Found]) -> None:
    for _, completion, _ in talk(turns=2, until="0123456789+-=?abcdefghij "):
        assert completion.turns == ()


def test_log_probabilities_are_those_of_the_whole_transcript(
    talk: Callable[..., Found], model: Any, tokenizer: Any
) -> None:
    long = [(index, c) for index, c, _ in talk(turns=3) if len(c.turns) >= 3]
    assert long
    for index, completion in long:
        row = Row(
            tuple(tokenizer.encode(PROMPTS[index])), completion.token_ids, completion.logprobs, 1.0, completion.foreign
        )
        tokens = Tokens([[row]], model.device)
        batch = lay_out(tokens, [[(0,)]], "sdpa", model.device)
        with torch.no_grad():
            logprobs_N, _ = PolicyModule(model)(batch, 1.0)
        assert len(logprobs_N) == completion.written == row.written
        torch.testing.assert_close(logprobs_N, tokens.sampled_T[batch.tokens_N], atol=1e-4, rtol=0)


def test_no_gradient_comes_from_what_the_environment_wrote(fresh_model: Callable[..., Any], accelerator: Any) -> None:
    """The gradient of a masked row is that of the loss summed by hand over the policy's tokens."""
    row = Row((3, 4), (5, 6, 7, 8, 1), (-1.0, -2.0, 0.0, 0.0, -1.5), 1.0, ((2, 4),))
    model = fresh_model()
    config = LearnerConfig(lr=0.0, grad_clip=0.0, clip_low=1.0, clip_high=100.0)
    learner = Learner(model, config, 1, accelerator)
    gradients: list[torch.Tensor] = []
    learner.optimizer.register_step_pre_hook(
        lambda *_: gradients.extend(p.grad.detach().clone() for p in learner.policy.parameters())
    )
    learner.update([[row]], 1.0)

    by_hand = fresh_model()
    logits = by_hand(input_ids=torch.tensor([[3, 4, 5, 6, 7, 8]])).logits[0, 1:].log_softmax(-1)
    picked = logits[range(5), row.completion_ids]
    ratio = (picked - torch.tensor(row.old_logprobs)).exp()
    (-ratio[[0, 1, 4]].sum() / 3).backward()
    expected = [p.grad for p in by_hand.parameters()]
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_reply_that_fails_is_missing_data(talk: Callable[..., Found]) -> None:
    found = talk(turns=2, verifier="moody")
    for _, completion, verdict in found:
        if "3" in completion.text and not completion.truncated:
            assert verdict.status is Status.ERROR
            assert "the environment is gone" in verdict.detail
        elif "4" in completion.text and not completion.truncated:
            assert verdict.status is Status.TIMEOUT
        else:
            assert verdict.passed
    assert {verdict.status for _, _, verdict in found} == {Status.ERROR, Status.TIMEOUT, Status.PASSED}


def test_a_reply_without_room_for_a_turn_ends_the_completion_as_cut(talk: Callable[..., Found]) -> None:
    found = [completion for _, completion, _ in talk(turns=3, max_tokens=6, count=16)]
    cut = [c for c in found if c.truncated and len(c.token_ids) < 6]
    assert cut
    for completion in cut:
        assert completion.turns == () or completion.turns[-1].role == "policy"


def test_several_turns_need_a_verifier_that_replies(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match="answers for the environment"):
        scorer.submit_reply("math", Completion("1"), Sample("a", answer="1"))
    with pytest.raises(UsageError, match="answers for the environment"):
        scorer.check("math", turns=2)
    scorer.check("parrot", turns=2)


def test_an_evaluation_asks_for_the_reply_before_it_loads_a_model(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a\n1,2\n2,3\n")
    (tmp_path / "t.toml").write_text(
        'name = "t"\nprompt = "{{q}}"\nverifier = "math"\nturns = 2\n[data]\npath = "rows.csv"\nanswer = "a"\n'
    )
    with pytest.raises(UsageError, match="answers for the environment"):
        rlvr.evaluate(task=str(tmp_path / "t.toml"), model=str(tmp_path / "no-model"))


def test_a_reply_is_text_that_a_tokenizer_takes(tokenizer: Any) -> None:
    reply = as_reply("a \ud800 b").parts["reply"]
    assert reply == "a ? b"
    assert encode_reply(tokenizer, reply, Completion("x"))


def test_a_group_is_the_same_in_whatever_order_its_completions_ended(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sample("s", "12+")
    task = Task("talk", "parrot", lambda split: [sample], turns=2)
    passed: Future[Verdict] = Future()
    passed.set_result(Verdict.of(True, "yes"))
    ended = [(0, Completion(text, tuple(tokenizer.encode(text))), passed) for text in ("b", "a", "c")]
    nothing: Any = None

    def texts(order: Sequence[Any]) -> list[str]:
        monkeypatch.setattr(rlvr.flow, "sample_and_submit", lambda *_: iter(order))
        flow = open_flow(tokenizer, nothing, nothing, 3, SamplingParams(8), wanted=1)
        flow.ask(number([task], [[sample]]))
        (group,) = flow.closed()
        return [completion.text for completion in group.completions]

    assert texts(ended) == texts(ended[::-1])


def test_a_state_with_transcripts_comes_back_equal() -> None:
    completion = Completion(
        "b", (5, 6, 7), (-1.0, 0.0, -1.0), "stop", (Turn("policy", "a"), Turn("environment", "="), Turn("policy", "b")),
        ((1, 2),),
    )  # fmt: skip
    group = Group(Sample("s", "p"), (3,), (completion,), (Verdict.of(True, "yes"),), (1.0,), (1.0,), (0.5,))
    state = State(1, 2, (group,))
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert group.rows() == [Row((3,), (5, 6, 7), (-1.0, 0.0, -1.0), 0.5, ((1, 2),), reward=1.0)]


def test_rooms_are_limits_of_single_prompts(model: Any, tokenizer: Any) -> None:
    ids: Sequence[Sequence[int]] = [tokenizer.encode(text) for text in PROMPTS]
    params = SamplingParams(20, seed=1, rooms=(1, 3, 20))
    found = list(TransformersSampler(model, tokenizer).sample(ids, 16, params))
    for index, completion in found:
        assert len(completion.token_ids) <= params.rooms[index]
        assert completion.truncated == (completion.token_ids[-1] != tokenizer.eos_token_id)
    assert max(len(c.token_ids) for i, c in found if i == 2) > 3
