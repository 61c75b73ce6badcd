"""The loop: sample, verify, shape, advantage, update, sync, log. Start reading here.

One step, for P prompts with a group of G completions each:

    1. sample      the policy writes G completions y of every prompt x, token by token
    2. verify      each y goes to the verifier the moment it ends, while the others are still being written;
                   it comes back as a verdict: passed, failed, or missing (error, timeout, abstained). In a task of
                   several turns it is answered first, and sampled on (`rlvr.transcripts`)
    3. shape       a verdict becomes a reward r: 1 or 0, partial credit, a penalty for running over the limit or in
                   circles
    4. advantage   A_i = (r_i - mean r) / std r over the *valid* rows of a group; missing rows get none
    5. update      maximise  sum_t w_t min(ρ_t A, clip(ρ_t, 1 - ε_low, 1 + ε_high) A),  ρ_t = π(y_t) / π_old(y_t)
    6. sync        the sampler takes the new weights, and proves that it has them
    7. log         every completion with its verdict and reason, and the step's metrics, which the guards look at
                   (`rlvr.guards`): reward up while held-out accuracy is not, KL, entropy, openers, lengths

This is GRPO (Shao et al. 2024, arXiv:2402.03300) without its KL term unless asked for, and with DAPO's parts (Yu et
al. 2025, arXiv:2503.14476) by default: clip-higher, a token-level loss, dynamic sampling and soft overlong
punishment. 4 and 5 are what `--algorithm` changes (`rlvr.algorithms`): with PPO a value model takes the place of the
group's mean, and 5 is several updates. π_old is the sampler's own log-probability, so no forward pass is spent on it.
The reward is checked, unless `--reward reward-model` asks for a learned one; held-out accuracy is checked always.

Several processes run this loop side by side. Each does 1 and 2 for its share of the prompts, they exchange what came of
it, and from there on all of them hold the same step (`rlvr.exchange`); 5 is divided among them again.

Everything random in a step follows from its seed, so a resumed run samples what the unbroken one would. With vLLM that
holds for each completion, up to rounding; how many prompts dynamic sampling asks for depends on what ends first. With
`--staleness N`, 1 to 4 are done for up to N steps to come while one is learned from (`rlvr.ahead`).
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlvr.accuracy import Evaluation
from rlvr.advantage import credits
from rlvr.ahead import Ahead
from rlvr.assembly import Parts, assemble, processes
from rlvr.config import GROUP_RELATIVE, Resolved, TrainConfig, flatten, warnings
from rlvr.curriculum import observe
from rlvr.errors import RunStopped
from rlvr.evaluation import measure
from rlvr.exchange import together
from rlvr.flow import Closed, Flow, open_flow
from rlvr.guards import BEFORE, Alarm, Watch
from rlvr.interrupt import Interrupt, Interrupted
from rlvr.progress import Progress
from rlvr.registry import ShaperSpec
from rlvr.rollout import Group, State, StepBatch
from rlvr.runlog import Run, RunLog, new_path
from rlvr.seeds import derive_seed
from rlvr.settings import all_learned, disagreements, learned_warnings, resolve_run, rewarding, title
from rlvr.shaping import by_difficulty, outcome, pass_rate, reward
from rlvr.types import SamplingParams

IDLE_STEPS = 10  # steps in a row with nothing to learn from after which a run stops


def train(config: Resolved | None = None, *, resume: str | Path | None = None, **settings: Any) -> Run:
    """Trains a policy and returns its run.

    Args:
        config: A resolved config, as `rlvr train` makes it; made from `settings` when not given.
        resume: The directory of an interrupted run to go on with.
        settings: Values by name: `task="math", steps=100, learner={"lr": 1e-3}`.

    Raises:
        RlvrError: Bad settings, data or model, or a run that stopped itself.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint has been written.
    """
    resolved = config or resolve_run(flatten(settings), resume=resume)
    exchange = processes(resolved.config)
    first = exchange.process == 0
    path = Path(exchange.share(str(resume or resolved.config.out or new_path(title(resolved.config.task))))[0])
    engine_log = path / ("vllm.log" if first else f"vllm-{exchange.process}.log")
    with (
        together(exchange, lambda: RunLog(path, resuming=resume is not None, writes=first)) as log,
        assemble(resolved.config, engine_log, exchange) as parts,
    ):
        state = parts.restore(path) if resume else State()
        log.begin(
            resolved.toml(),
            state.step,
            device=str(parts.learner.accelerator.device),
            processes=exchange.processes,
            plugins=list(parts.scorer.registry.plugin_files),
        )
        learned = all(map(all_learned, rewarding(resolved.config)))
        with Progress(path, resolved.config.steps, not first, learned) as progress, Interrupt() as interrupt:
            progress.warn([*warnings(resolved.config), *learned_warnings(resolved.config), *disagreements(resolved)])
            run_steps(parts, state, log, progress, interrupt)
    return Run(path)


def run_steps(parts: Parts, state: State, log: RunLog, progress: Progress, interrupt: Interrupt) -> None:
    """Every step from `state` to the last, with the evaluations before and after."""
    config = parts.config

    def save() -> None:
        log.checkpoint(state.step, parts.checkpoint_writer(state), config.keep_checkpoints, config.keep_best)

    whole = False  # whether weights and `state` agree, and are worth a checkpoint
    try:
        sync(parts, state.step)
        whole = True
        before = Run(log.path).before or measure_now(parts, interrupt)
        log.result(before=before)
        progress.begin(state.step, before)
        watch = Watch(config.guards)
        watch.recall([{"step": BEFORE, **before.metrics()}, *Run(log.path).metrics()])
        idle = 0
        with Ahead(partial(collect, parts), config.sampler.staleness, config.steps, interrupt) as ahead:
            while state.step < config.steps:
                began = time.monotonic()
                batch = ahead.take(state)
                log.rollouts(batch.records())
                check_missing(batch.sampled, config.scorer.missing_limit)
                idle = check_idle(batch, idle)

                collected = time.monotonic()
                parts.sampler.rest()
                whole = False
                rows = [group.rows(state.step) for group in batch.groups]
                learned = parts.learner.update(rows, config.sampler.temperature)
                ended, state, whole = time.monotonic(), batch.next_state, True

                metrics = batch.metrics() | learned | {"time/update": ended - collected}
                try:
                    metrics |= sync(parts, state.step)
                    metrics["time/step"] = time.monotonic() - began
                    if config.eval.every and state.step % config.eval.every == 0:
                        metrics |= measure_now(parts, interrupt).metrics()
                finally:
                    log.metrics(metrics)
                progress.step(metrics)
                check_guards(watch, metrics, parts, log, progress)
                if config.save_every and state.step % config.save_every == 0 and state.step < config.steps:
                    save()
        save()
        log.folder("final", parts.save_model)
        after = measure_now(parts, interrupt)
    except Exception as stop:
        # Of several processes, all have come here by these two; by anything else perhaps only this one.
        whole = whole and (parts.exchange.processes == 1 or isinstance(stop, (RunStopped, Interrupted)))
        if whole:
            save()
        progress.stopped(state.step, whole)
        if isinstance(stop, Interrupted):
            raise KeyboardInterrupt from None
        raise
    log.result(before=before, after=after)
    say_guards(watch, {"step": state.step - 1, **after.metrics()}, parts, log, progress)
    progress.finish(before, after, log.alarms())


def sync(parts: Parts, step: int) -> dict[str, float]:
    """Hands the weights to the sampler of each process; returns metrics."""
    return dict(together(parts.exchange, lambda: parts.sampler.sync(step)))


def measure_now(parts: Parts, interrupt: Interrupt | None = None) -> Evaluation:
    """Accuracy of the policy as it is on the held-out problems."""
    tools = (parts.tokenizer, parts.sampler, parts.scorer, interrupt, parts.exchange)
    return measure(parts.config, parts.test, *tools, also=parts.also)


def say_guards(watch: Watch, row: Mapping[str, Any], parts: Parts, log: RunLog, progress: Progress) -> list[Alarm]:
    """What guards newly find in a row of metrics, said and logged. All processes go by what the first one finds."""
    found = json.dumps([alarm.to_json() for alarm in watch.look(row)])
    alarms = [Alarm(**values) for values in json.loads(parts.exchange.share(found)[0])]
    for alarm in alarms:
        log.fired(alarm.to_json())
        progress.fired(alarm)
    return alarms


def check_guards(watch: Watch, row: Mapping[str, Any], parts: Parts, log: RunLog, progress: Progress) -> None:
    """Stops a run of which a guard newly finds that it goes wrong, where `guards.action` says so.

    Raises:
        RunStopped: The first such guard.
    """
    alarms = say_guards(watch, row, parts, log, progress)
    if alarms and parts.config.guards.action == "stop":
        raise RunStopped(f"the guard `{alarms[0].guard}` fired: {alarms[0].message}", alarms[0].hint)


# One step, from sampling to advantages


def collect(parts: Parts, state: State, interrupt: Interrupt) -> StepBatch:
    """Samples and verifies until there are enough groups to learn from, or the step's prompts are used up.

    With dynamic sampling a group counts only when its valid rewards vary; missing groups are made up for with
    fresh prompts, and groups beyond the step's number are carried to the next one.
    """
    config = parts.config
    wanted, dynamic = config.sampler.prompts_per_step, config.sampler.dynamic
    kept = state.surplus
    found: list[Group] = []
    sampled: list[Group] = []
    position = state.position
    with contextlib.closing(step_flow(parts, state.step, interrupt)) as flow:
        while True:
            missing = wanted - len(kept) - len(found)
            if ask := refill(missing, sampled, flow.open, wanted, flow.room()):
                asked = parts.problems(position, ask, state.evidence)
                flow.ask(asked)
                position = asked[-1].number + 1
            if not flow.open:
                break
            for closed in flow.closed():
                group = reward_group(config, parts.shaper, closed)
                sampled.append(group)
                if group.informative or not dynamic:
                    found.append(group)
    groups = [*kept, *sorted(found, key=lambda group: group.number)]  # whichever closed first
    left = groups[wanted : 2 * wanted]
    young = [group for group in left if state.step + 1 - group.version <= max(config.sampler.staleness, 1)]
    sampled.sort(key=lambda group: group.number)
    evidence, skipped = state.evidence, None
    if config.curriculum.skip:
        evidence = observe(evidence, sampled, config.curriculum.memory)
        skipped = 1 - len(sampled) / (position - state.position) if sampled else 0.0
    next_state = State(state.step + 1, position, tuple(young), evidence)
    rounds = math.ceil(len(sampled) / wanted)
    timing, dropped = flow.meter.timing(), len(left) - len(young)
    tasks = tuple(task.name for task in parts.stream.tasks)
    relative = config.learner.advantage in GROUP_RELATIVE
    counts = (rounds, timing, dropped, skipped, tasks, relative)
    return StepBatch(tuple(groups[:wanted]), tuple(sampled), next_state, *counts)


def step_flow(parts: Parts, step: int, interrupt: Interrupt) -> Flow:
    """Nothing under way yet; how to sample is the config's, seeds are the step's."""
    config, sampler = parts.config, parts.config.sampler
    return open_flow(
        parts.tokenizer,
        parts.sampler,
        parts.scorer,
        sampler.group_size,
        SamplingParams(sampler.max_tokens, sampler.temperature, sampler.top_p, derive_seed(config.seed, step)),
        wanted=sampler.prompts_per_step,
        rounds=sampler.max_rounds if sampler.dynamic else 1,
        interrupt=interrupt,
        exchange=parts.rounds,
    )


def refill(missing: int, sampled: Sequence[Group], under_way: int, wanted: int, room: int) -> int:
    """How many prompts to ask for, so that about `missing` more groups teach something.

    The share of groups that do is the step's own. While groups are under way, few have closed and that share says
    little, so it counts beside a step's worth of groups that all did; at the end it counts alone.
    """
    believed = wanted if under_way else 0
    seen = len(sampled) + believed
    share = (sum(group.informative for group in sampled) + believed) / seen if seen else 1.0
    short = missing - share * under_way
    return max(0, min(wanted, room, math.ceil(short / max(share, 0.25) - 1e-9)))


def reward_group(config: TrainConfig, shaper: ShaperSpec, closed: Closed) -> Group:
    """Verdicts become outcomes, rewards and advantages."""
    limit = config.sampler.max_tokens
    pairs = list(zip(closed.verdicts, closed.completions, strict=True))
    outcomes = [outcome(verdict, completion, shaper, config.reward) for verdict, completion in pairs]
    rewards = [
        None if value is None else reward(verdict, completion, shaper, config.reward, limit)
        for value, (verdict, completion) in zip(outcomes, pairs, strict=True)
    ]
    advantages = credits(rewards, config.learner.advantage, config.learner.scale)
    advantages = by_difficulty(advantages, pass_rate(closed.verdicts, rewards), config.reward.difficulty)
    columns = (closed.completions, closed.verdicts, tuple(outcomes), tuple(rewards), tuple(advantages))
    problem = closed.problem
    return Group(problem.sample, closed.prompt, *columns, number=problem.number, task=problem.task.name)


def check_missing(groups: Sequence[Group], limit: float) -> None:
    """Stops a run whose verifier mostly fails to give a verdict.

    Raises:
        RunStopped: With the three commonest reasons.
    """
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    reasons = Counter(f"{v.status}: {v.detail.splitlines()[0][:200]}" for v in verdicts if not v.valid)
    share = reasons.total() / max(len(verdicts), 1)
    if share > limit:
        worst = "\n".join(f"  {count:5d}  {reason}" for reason, count in reasons.most_common(3))
        raise RunStopped(
            f"{share:.0%} of the step's verdicts are missing, the limit is {limit:.0%}; most often\n{worst}",
            "mend the verifier or its data, or raise `--scorer.missing-limit`",
        )


def check_idle(batch: StepBatch, idle: int) -> int:
    """How many steps in a row had nothing to learn from, this one included.

    Where rewards are not held against their group, a step teaches that has one.

    Raises:
        RunStopped: `IDLE_STEPS` of them.
    """
    if any(group.informative or (not batch.relative and any(group.rows())) for group in batch.groups):
        return 0
    if idle + 1 == IDLE_STEPS:
        raise RunStopped(
            f"in {IDLE_STEPS} steps in a row no group had rewards that vary",
            "the task is too easy or too hard for this model: see `rollouts.jsonl`",
        )
    return idle + 1
