"""Samples completions, of one turn or of several, and hands each to the verifier the moment it ends.

In a task of several turns, one that ends goes to the verifier's `reply` in the scorer's workers, while others are still
being written. Those that are answered go on as prompts of the next round of sampling, their task's `turns` at most:

    round 1     prompt            -> turn 1 -> reply          a completion ends when there is no reply,
    round 2     prompt turn reply -> turn 2 -> reply          at the last round, or at `max_tokens`
    ...

`max_tokens` bounds the whole completion, the environment's tokens included, so that it always fits the context that was
checked before the run. Log-probabilities and ids of the policy's tokens are the sampler's own, never tokenised again.
"""

from __future__ import annotations

import collections
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from rlvr.mixture import Problem
from rlvr.sampler.prompts import encode_reply
from rlvr.scoring import Scorer
from rlvr.seeds import derive_seed
from rlvr.types import Completion, Sampler, SamplingParams, Turn, Verdict

Ended = tuple[int, Completion, Future[Verdict]]
Asked = tuple["Draft", Future[Verdict]]
Answered = tuple["Draft", str]


def sample_and_submit(
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    group_size: int,
    params: SamplingParams,
    tokenizer: Any,
    sampler: Sampler,
    scorer: Scorer,
    watch: Callable[[Future[Verdict]], object] = lambda verdict: None,
) -> Iterator[Ended]:
    """Yields a completion of a problem the moment it ends, and the verdict on its way.

    Args:
        problems: Their tasks say how many turns there are at most, and which verifier looks at them.
        prompts: Their token ids.
        group_size: Completions of each.
        params: How to sample; `max_tokens` is for all turns together.
        tokenizer: Encodes what the environment says.
        sampler: Writes the policy's turns.
        scorer: Runs the verifiers.
        watch: Told of every verification, replies included, as it begins.

    Yields:
        The index into `problems`, which comes `group_size` times, the completion, and its verdict. Where a reply
        failed, that is the verdict: missing data.
    """

    def verify(draft: Draft) -> Ended:
        task, sample = problems[draft.index].task, problems[draft.index].sample
        verdict = scorer.submit(task.verifier, draft.so_far, sample, task.verifier_options)
        watch(verdict)
        return draft.index, draft.so_far, verdict

    def hear(asked: collections.deque[Asked], answered: list[Answered], wait: bool) -> Iterator[Ended]:
        """Takes in the replies that are there, or all of them. A completion that gets none has ended."""
        while asked and (wait or asked[0][1].done()):
            draft, future = asked.popleft()
            verdict = future.result()
            if not verdict.valid:
                yield draft.index, draft.so_far, future
            elif (reply := verdict.parts["reply"]) is None:
                yield verify(draft)
            else:
                answered.append((draft, reply))

    drafts = [Draft(index, Completion("")) for index in range(len(prompts))]
    for turn in range(max(problem.task.turns for problem in problems)):
        rooms = tuple(params.max_tokens - len(draft.so_far.token_ids) for draft in drafts)
        seeds = params.seeds
        if turn and seeds:  # those of one problem in a row, in the order in which they are there
            among: Counter[int] = Counter()
            seeds = ()
            for draft in drafts:
                seeds += (derive_seed(params.seeds[draft.index], turn, among[draft.index]),)
                among[draft.index] += 1
        written = sampler.sample(
            [[*prompts[draft.index], *draft.so_far.token_ids] for draft in drafts],
            group_size if turn == 0 else 1,
            params if turn == 0 else replace(params, seed=derive_seed(params.seed, turn), rooms=rooms, seeds=seeds),
        )
        asked: collections.deque[Asked] = collections.deque()
        answered: list[Answered] = []
        for number, completion in written:
            draft = drafts[number].followed_by(completion)
            task, sample = problems[draft.index].task, problems[draft.index].sample
            if turn + 1 == task.turns or completion.truncated:
                yield verify(draft)
                continue
            reply = scorer.submit_reply(task.verifier, draft.so_far, sample, task.verifier_options)
            watch(reply)
            asked.append((draft, reply))
            yield from hear(asked, answered, wait=False)
        yield from hear(asked, answered, wait=True)
        drafts = []
        for draft, text in answered:
            told = draft.told(text, encode_reply(tokenizer, text, draft.so_far))
            if len(told.so_far.token_ids) < params.max_tokens:
                drafts.append(told)
            else:
                yield verify(draft.cut())
        if not drafts:
            return


@dataclass(frozen=True, slots=True)
class Draft:
    """A completion that may go on; `index` is the caller's, as the number of its problem."""

    index: int
    so_far: Completion

    def followed_by(self, turn: Completion) -> Draft:
        """With the policy's next turn. A completion of one turn stays as the sampler made it."""
        before = self.so_far
        if not before.turns:
            return Draft(self.index, turn)
        return Draft(
            self.index,
            Completion(
                turn.text,
                before.token_ids + turn.token_ids,
                before.logprobs + turn.logprobs,
                turn.finish_reason,
                (*before.turns, Turn("policy", turn.text)),
                before.foreign,
                before.version,
            ),
        )

    def told(self, reply: str, ids: Sequence[int]) -> Draft:
        """With what the environment said, whose tokens are `ids`."""
        before = self.so_far
        start = len(before.token_ids)
        return Draft(
            self.index,
            Completion(
                before.text,
                (*before.token_ids, *ids),
                before.logprobs + (0.0,) * len(ids),
                before.finish_reason,
                (*(before.turns or (Turn("policy", before.text),)), Turn("environment", reply)),
                (*before.foreign, (start, start + len(ids))),
                before.version,
            ),
        )

    def cut(self) -> Draft:
        """Ended for want of room, although the environment would have gone on."""
        return Draft(self.index, replace(self.so_far, finish_reason="length"))
