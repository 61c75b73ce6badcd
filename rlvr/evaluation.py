"""Measures a policy on the held-out split of a task, as `rlvr eval` does and as a run does before and after."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from rlvr.accuracy import Evaluation, summarize
from rlvr.assembly import check_prompts, check_sampler, derive_seed, held_out, make_scorer
from rlvr.config import Resolved, TrainConfig, flatten
from rlvr.interrupt import Interrupt
from rlvr.learner.policy import choose_device, load_policy
from rlvr.registry import registry
from rlvr.sampler.prompts import encode_prompt
from rlvr.sampler.transformers import TransformersSampler
from rlvr.scoring import Scorer
from rlvr.settings import resolve_run
from rlvr.transcripts import sample_and_submit
from rlvr.types import Sample, Sampler, SamplingParams, Task, Verdict


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
        model, tokenizer = load_policy(config.model, choose_device(config.device))
        check_prompts(tokenizer, model, task, samples, config.sampler.max_tokens)
        sampler = TransformersSampler(model, tokenizer, config.sampler.batch_size)
        check_sampler(sampler, encode_prompt(tokenizer, samples[0], task))
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
    params = SamplingParams(
        config.sampler.max_tokens, config.eval.temperature, config.sampler.top_p, derive_seed(config.seed)
    )
    prompts = [encode_prompt(tokenizer, sample, task) for sample in samples]
    pending: list[list[Future[Verdict]]] = [[] for _ in samples]
    parts = (params, tokenizer, sampler, scorer)
    for index, _, future in sample_and_submit(task, samples, prompts, config.eval.samples, *parts):
        pending[index].append(future)
        if interrupt:
            interrupt.check()
    return summarize([[future.result() for future in futures] for futures in pending], config.eval.samples)
