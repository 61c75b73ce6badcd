"""Measures a policy on the held-out splits of tasks, as `rlvr eval` does and as a run does before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rlvr.accuracy import Evaluation, summarize
from rlvr.assembly import (
    answer_limit,
    check_lengths,
    check_sampler,
    check_verifiers,
    choose_backend,
    engine_sampler,
    held_out,
    make_scorer,
    measured_also,
)
from rlvr.config import Resolved, TrainConfig, flatten
from rlvr.exchange import Exchange
from rlvr.flow import Closed, open_flow
from rlvr.interrupt import Interrupt
from rlvr.learner.learner import logprobs_of
from rlvr.learner.policy import choose_device, load_policy, named_weights
from rlvr.mixture import Problem, load_mix, number
from rlvr.registry import registry
from rlvr.sampler.prompts import encode_prompt
from rlvr.sampler.transformers import TransformersSampler
from rlvr.scoring import Scorer
from rlvr.seeds import derive_seed
from rlvr.settings import resolve_run
from rlvr.types import Sampler, SamplingParams, Verdict


def evaluate(resolved: Resolved | None = None, **settings: Any) -> Evaluation:
    """Accuracy of a model on the held-out split of a task, or of several.

    Args:
        resolved: A resolved config, as `rlvr eval` makes it; made from `settings` when not given.
        settings: Values by name, as for `rlvr.train`: `task="math", model="starter", eval={"limit": 100}`.

    Raises:
        RlvrError: An unknown name, bad data, a missing device or model, or no valid verdict at all.
    """
    config = (resolved or resolve_run(flatten(settings))).config
    return evaluate_model(config)


def evaluate_model(config: TrainConfig, model: Any = None, tokenizer: Any = None) -> Evaluation:
    """Accuracy of a model that is loaded already, by transformers; or of the one that the config names.

    Args:
        config: Whose task, `eval` and `sampler` say what is measured and how.
        model: A causal language model in evaluation mode; None loads `config.model`.
        tokenizer: Its tokenizer.

    Raises:
        RlvrError: As `evaluate`.
    """
    tasks = [task for task, _ in load_mix(registry(), config.task, config.data)]
    problems = number(tasks, [held_out(task, config.eval.limit) for task in tasks])
    also = measured_also(config, tasks)
    with make_scorer(config.scorer, config.sandbox, config.device) as scorer:
        check_verifiers(scorer, [*problems, *also])
        backend = "transformers"
        if model is None:
            device = choose_device(config.device)
            backend = choose_backend(config.sampler, device)
            model, tokenizer = load_policy(config.model, device)
        longest = check_lengths(tokenizer, model, config.sampler.max_tokens, problems, also)
        prompt = encode_prompt(tokenizer, problems[0].sample, problems[0].task)
        sampler: Sampler
        if backend == "transformers":
            sampler = batch = TransformersSampler(model, tokenizer, config.sampler.batch_size)
            check_sampler(batch, prompt)
        else:
            weights, known = partial(named_weights, model), partial(logprobs_of, model)
            sampler = engine_sampler(config, backend, model, tokenizer, weights, known, prompt, longest, None)
        with contextlib.closing(sampler):
            sampler.sync(0)
            return measure(config, problems, tokenizer, sampler, scorer, also=also)


def measure(
    config: TrainConfig,
    problems: Sequence[Problem],
    tokenizer: Any,
    sampler: Sampler,
    scorer: Scorer,
    interrupt: Interrupt | None = None,
    exchange: Exchange | None = None,
    also: Sequence[Problem] = (),
) -> Evaluation:
    """Samples `config.eval.samples` completions of each problem and verifies them while sampling goes on; `also` are
    problems of tasks that are reported by themselves only."""
    own, count = config.sampler, config.eval.samples

    def judged(some: Sequence[Problem], limit: int) -> dict[str, list[Sequence[Verdict]]]:
        params = SamplingParams(limit, config.eval.temperature, own.top_p, derive_seed(config.seed))
        tools = (tokenizer, sampler, scorer, count, params, len(some))
        groups: list[Closed] = []
        with contextlib.closing(open_flow(*tools, interrupt=interrupt, exchange=exchange)) as flow:
            flow.ask(some)
            while flow.open:
                groups += flow.closed()
        found: dict[str, list[Sequence[Verdict]]] = {}
        for group in sorted(groups, key=lambda group: group.problem.number):
            found.setdefault(group.problem.task.name, []).append(group.verdicts)
        return found

    by_task = judged(problems, own.max_tokens)
    whole = summarize([verdicts for found in by_task.values() for verdicts in found], count)
    if len(by_task) > 1:
        whole = replace(whole, tasks={name: summarize(verdicts, count) for name, verdicts in by_task.items()})
    for task in {problem.task.name: problem.task for problem in also}.values():
        mine = [problem for problem in also if problem.task.name == task.name]
        found = judged(mine, answer_limit(task, own.max_tokens))[task.name]
        whole = replace(whole, also={**whole.also, task.name: summarize(found, count)})
    return whole
