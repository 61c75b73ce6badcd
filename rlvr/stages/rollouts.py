"""Completions of a task's own prompts, sampled and verified before a stage learns from them.

They go to the run's `rollouts.jsonl` as those of `rlvr train` do, a batch of groups at a time. Their step is -1: they
come before the first update.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from rlvr.assembly import check_prompts, check_sampler, make_scorer, processes, to_train_on
from rlvr.errors import ConfigError
from rlvr.exchange import together
from rlvr.flow import open_flow
from rlvr.loop import check_missing, reward_group
from rlvr.mixture import Stream, load_mix
from rlvr.registry import registry
from rlvr.rollout import State, StepBatch, means
from rlvr.sampler.prompts import encode_prompt
from rlvr.sampler.transformers import TransformersSampler
from rlvr.seeds import derive_seed
from rlvr.shaping import configured
from rlvr.stages.run import Stage
from rlvr.types import SamplingParams, Task

BEFORE = -1  # the step of these rollouts


def sample_task(stage: Stage, model: Any, tokenizer: Any, samples: int, temperature: float) -> Path:
    """Samples completions of the train prompts of the stage's task, and verifies each the moment it ends.

    The prompts are those that `rlvr train` would draw first with the same seed: `limit` of them, or as many as the
    task has. What is sampled follows from the seed alone. A resumed run goes on behind the last batch that was written
    whole, and samples nothing where all is there.

    Args:
        stage: Whose task, seed, limit and directory.
        model: What samples: a causal language model in this process.
        tokenizer: Its tokenizer.
        samples: Completions of each prompt.
        temperature: Softmax temperature.

    Returns:
        The run's `rollouts.jsonl`.

    Raises:
        ConfigError: The task has several turns or shows tools, or the run has rollouts in groups of another size.
        RunStopped: Too many verdicts of a batch are missing.
        RlvrError: Bad data, a model that cannot be sampled in groups, and the like.
    """
    path = stage.path / "rollouts.jsonl"
    config = stage.task_config(stage.config.task)
    mix = load_mix(registry(), config.task, config.data)
    for task, _ in mix:
        check_turns(task)
    splits = [to_train_on(task) for task, _ in mix]
    total = sum(map(len, splits))
    count = min(stage.config.limit or total, total)
    stream = Stream([(task, weight, own) for (task, weight), own in zip(mix, splits, strict=True)], config.seed)
    problems = [stream[place] for place in range(count)]
    shaper = configured(registry().shaper(config.reward.shaper), config.reward, config.sampler.max_tokens)
    batch = max(1, config.sampler.batch_size // samples)  # groups that are decoded together
    exchange = processes(config)
    first = exchange.process == 0
    known = together(exchange, lambda: whole_groups(path, samples, batch, count) if first else 0)
    done = int(exchange.share(str(known))[0])
    if done == count:
        return path
    with make_scorer(config.scorer, config.sandbox, config.device) as scorer:
        for (task, _), own in zip(mix, splits, strict=True):
            scorer.check(task.verifier, task.verifier_options, own, task.turns)
        check_prompts(tokenizer, model, problems, config.sampler.max_tokens)
        sampler = TransformersSampler(model, tokenizer, config.sampler.batch_size)
        check_sampler(sampler, encode_prompt(tokenizer, problems[0].sample, problems[0].task))
        own_settings = config.sampler.max_tokens, temperature, config.sampler.top_p, derive_seed(config.seed, BEFORE)
        for start in range(done, count, batch):
            asked = problems[start : start + batch]
            tools = (tokenizer, sampler, scorer, samples, SamplingParams(*own_settings), len(asked))
            with contextlib.closing(open_flow(*tools, exchange=exchange)) as flow:
                flow.ask(asked)
                closed = []
                while flow.open:
                    closed += flow.closed()
            closed.sort(key=lambda group: group.problem.number)
            groups = tuple(reward_group(config, shaper, group) for group in closed)
            record = StepBatch((), groups, State(BEFORE + 1), 1, {}, tasks=tuple(task.name for task, _ in mix))
            stage.log.rollouts({**row, "group": start + row["group"]} for row in record.records())
            found = means(groups)
            stage.say(
                f"sampled {start + len(asked)} of {count} prompts  passed {found['pass_rate']:.1%}  "
                f"length {found['length']:.1f}  missing {found['missing']:.1%}"
            )
            check_missing(groups, config.scorer.missing_limit)
    exchange.share("written")  # by the first process, which the others are to read
    return path


def check_turns(task: Task) -> None:
    """Refuses a task whose rollouts are more than an answer to a chat.

    Raises:
        ConfigError: It has several turns, or shows tools to the model.
    """
    if task.turns > 1 or task.show_tools:
        what = "has several turns" if task.turns > 1 else "shows tools to the model"
        raise ConfigError(
            f"the task `{task.name}` {what}, and a stage learns from single answers to plain chats",
            "`rlvr train` learns from such a task",
        )


def whole_groups(path: Path, samples: int, batch: int, count: int) -> int:
    """How many groups a run's rollouts hold in whole batches; what a crash left behind them is cut off.

    Args:
        path: The file; it need not be there.
        samples: Completions in a group.
        batch: Groups in a batch; the last one may be smaller.
        count: Groups in all.

    Raises:
        ConfigError: The groups are of another size.
    """
    sizes: Counter[int] = Counter()
    ends = [0]  # where each line ends, in bytes
    with contextlib.suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            sizes[json.loads(line)["group"]] += 1
            ends.append(ends[-1] + len(line))
    if any(size > samples for size in sizes.values()) or any(sizes[n] < samples for n in range(len(sizes) - 1)):
        raise ConfigError(
            f"`{path}` has groups of {max(sizes.values())} completions, and `samples` is {samples}",
            f"go on with `--samples {max(sizes.values())}`, or start a new run",
        )
    groups = min((len(ends) - 1) // samples, count)
    if groups < count:
        groups -= groups % batch
    if ends[-1]:
        os.truncate(path, ends[groups * samples])
    return groups
