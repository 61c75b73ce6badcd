"""Measures a policy on the held-out split of a task, as `rlvr eval` does and as a run does before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from rlvr.accuracy import Evaluation, summarize
from rlvr.assembly import (
    check_prompts,
    check_sampler,
    choose_backend,
    derive_seed,
    engine_sampler,
    held_out,
    make_scorer,
)
from rlvr.config import Resolved, TrainConfig, flatten
from rlvr.flow import Closed, open_flow
from rlvr.interrupt import Interrupt
from rlvr.learner.learner import logprobs_of
from rlvr.learner.policy import choose_device, load_policy, named_weights
from rlvr.registry import registry
from rlvr.sampler.prompts import encode_prompt
from rlvr.sampler.transformers import TransformersSampler
from rlvr.scoring import Scorer
from rlvr.settings import resolve_run
from rlvr.types import Sample, Sampler, SamplingParams, Task


def evaluate(resolved: Resolved | None = None, **settings: Any) -> Evaluation:
    """Accuracy of a model on the held-out split of a task.

    Args:
        resolved: A resolved config, as `rlvr eval` makes it; made from `settings` when not given.
        settings: Values by name, as for `rlvr.train`: `task="math", model="starter", eval={"limit": 100}`.

    Raises:
        RlvrError: An unknown name, bad data, a missing device or model, or no valid verdict at all.
    """
    config = (resolved or resolve_run(flatten(settings))).config
    task = registry().task(config.task, config.data)
    samples = held_out(task, config.eval.limit)
    with make_scorer(config.scorer, config.sandbox) as scorer:
        scorer.check(task.verifier, task.verifier_options, samples, task.turns)
        device = choose_device(config.device)
        backend = choose_backend(config.sampler, device)
        model, tokenizer = load_policy(config.model, device)
        longest = check_prompts(tokenizer, model, task, samples, config.sampler.max_tokens)
        prompt = encode_prompt(tokenizer, samples[0], task)
        sampler: Sampler
        if backend == "transformers":
            sampler = batch = TransformersSampler(model, tokenizer, config.sampler.batch_size)
            check_sampler(batch, prompt)
        else:
            weights, known = partial(named_weights, model), partial(logprobs_of, model)
            sampler = engine_sampler(config, backend, model, tokenizer, weights, known, prompt, longest, None)
        with contextlib.closing(sampler):
            sampler.sync(0)
            return measure(config, task, samples, tokenizer, sampler, scorer)


def measure(
    config: TrainConfig,
    task: Task,
    samples: Sequence[Sample],
    tokenizer: Any,
    sampler: Sampler,
    scorer: Scorer,
    interrupt: Interrupt | None = None,
) -> Evaluation:
    """Samples `config.eval.samples` completions of each sample and verifies them while sampling goes on."""
    params = SamplingParams(config.sampler.max_tokens, config.eval.temperature, config.sampler.top_p)
    groups: list[Closed] = []
    tools = (task, tokenizer, sampler, scorer)
    flow = open_flow(
        *tools, config.eval.samples, params, lambda _: derive_seed(config.seed), len(samples), interrupt=interrupt
    )
    with contextlib.closing(flow):
        flow.ask(samples, 0)
        while flow.open:
            groups += flow.closed()
    groups.sort(key=lambda group: group.number)
    return summarize([group.verdicts for group in groups], config.eval.samples)
