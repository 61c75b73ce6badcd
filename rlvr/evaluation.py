"""Measures a policy on the held-out splits of tasks, as `rlvr eval` does and as a run does before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rlvr.accuracy import Evaluation, summarize
from rlvr.assembly import (
    check_prompts,
    check_sampler,
    choose_backend,
    engine_sampler,
    held_out,
    make_scorer,
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
    tasks = [task for task, _ in load_mix(registry(), config.task, config.data)]
    tests = [held_out(task, config.eval.limit) for task in tasks]
    problems = number(tasks, tests)
    with make_scorer(config.scorer, config.sandbox) as scorer:
        for task, samples in zip(tasks, tests, strict=True):
            scorer.check(task.verifier, task.verifier_options, samples, task.turns)
        device = choose_device(config.device)
        backend = choose_backend(config.sampler, device)
        model, tokenizer = load_policy(config.model, device)
        longest = check_prompts(tokenizer, model, problems, config.sampler.max_tokens)
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
            return measure(config, problems, tokenizer, sampler, scorer)


def measure(
    config: TrainConfig,
    problems: Sequence[Problem],
    tokenizer: Any,
    sampler: Sampler,
    scorer: Scorer,
    interrupt: Interrupt | None = None,
    exchange: Exchange | None = None,
) -> Evaluation:
    """Samples `config.eval.samples` completions of each problem and verifies them while sampling goes on."""
    own, seed = config.sampler, derive_seed(config.seed)
    params = SamplingParams(own.max_tokens, config.eval.temperature, own.top_p, seed)
    groups: list[Closed] = []
    tools, count = (tokenizer, sampler, scorer), config.eval.samples
    flow = open_flow(*tools, count, params, len(problems), interrupt=interrupt, exchange=exchange)
    with contextlib.closing(flow):
        flow.ask(problems)
        while flow.open:
            groups += flow.closed()
    groups.sort(key=lambda group: group.problem.number)
    by_task: dict[str, list[Sequence[Verdict]]] = {}
    for group in groups:
        by_task.setdefault(group.problem.task.name, []).append(group.verdicts)
    whole = summarize([group.verdicts for group in groups], count)
    if len(by_task) == 1:
        return whole
    return replace(whole, tasks={name: summarize(verdicts, count) for name, verdicts in by_task.items()})
