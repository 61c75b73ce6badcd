"""Preference pairs from a judge: completions, comparisons in both orders, critique and revision.

For every prompt:

    1. complete    the policy writes N completions, unless they are given
    2. compare     a judge is shown two of them and a principle, and says which is better: RLAIF (Lee et al. 2023,
                   arXiv:2309.00267). It is asked twice, with the two in either order
       or revise   the policy criticises its own response by a principle and writes it anew, as in Constitutional AI
                   (Bai et al. 2022, arXiv:2212.08073); the judge compares the two in both orders
    3. decide      a pair is made where every answer prefers the same completion; the rest is dropped and counted

Lee et al. average the judge's two answers. Here a comparison in which they differ is dropped: where a judge goes by the
order, half of what it says is noise, and it is cheaper to leave it out than to train on it.

Questions and answers are in `rlvr.judge.answers`: each is kept on the disk before it is used. All else follows from
them and from the seed, so a run that was killed ends as the unbroken one would.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console

from rlvr.config import from_environment, resolve
from rlvr.errors import ConfigError, MissingDependencyError, RunStopped
from rlvr.examples.reading import squeezed
from rlvr.examples.rows import Pair, Report
from rlvr.judge.answers import ENOUGH, Answer, Answers, Desk, Missing, Model
from rlvr.judge.asking import (
    ANSWER_TOKENS,
    REASONING_TOKENS,
    critique_chat,
    judge_chat,
    read_choice,
    revision_chat,
)
from rlvr.judge.config import (
    PairsConfig,
    Place,
    ResolvedPairs,
    critic,
    judges,
    parameters,
    policy,
    prices,
    resolve_pairs,
)
from rlvr.judge.principles import read_principles
from rlvr.judge.report import written_report
from rlvr.judge.sources import Item, read_items, shown
from rlvr.judge.verdicts import UNREAD, Comparison, Ruling, agreement, cost
from rlvr.registry import registry
from rlvr.runlog import Run, environment, finite, new_path, write_atomically
from rlvr.scoring import Scorer
from rlvr.seeds import derive_seed
from rlvr.settings import title
from rlvr.types import Completion, Message, Task

SAY_SECONDS = 10.0
"""How often progress is said."""


def make_pairs(resolved: ResolvedPairs | None = None, *, resume: str | Path | None = None, **settings: Any) -> Run:
    """Makes preference pairs and returns their run: `pairs.jsonl`, `dropped.jsonl`, `answers.jsonl`, `result.json`,
    `report.md`.

    Args:
        resolved: A resolved config, as `rlvr pairs` makes it; made from `settings` when not given.
        resume: The directory of an interrupted run to go on with.
        settings: Values by name: `task="math", judge=["judge"], judge_url=["http://host:8000/v1"]`.

    Raises:
        RlvrError: Bad settings or data, a run that stopped itself, or no pair at all.
        KeyboardInterrupt: After Ctrl-C; every answer so far is kept.
    """
    resolved = resolved or resolve_pairs(settings, resume=resume)
    config = resolved.config
    principles = read_principles(config.principles)
    items, report, task = read_items(config)
    needs(config, items)
    path = Path(resume or config.out or new_path(f"pairs-{title(config.task) if config.task else source(config)}"))
    if resume is None and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(
            f"`{path}` is there already and not empty",
            f"`--resume {path}` goes on with that run; another `--out` starts afresh",
        )
    models = open_models(config)
    path.mkdir(parents=True, exist_ok=True)
    answers = Answers(path / "answers.jsonl", Path(config.cache) if config.cache else None)
    console = Console(stderr=True)
    desk = Desk(answers, config.missing_limit)
    maker = Maker(config, principles, desk, models, console)
    try:
        begin(path, resolved)
        comparisons = run_to_end(maker.run(items))
        desk.check(enough=1)
        if task is not None and config.verify:
            verify(comparisons, task)
        write(path, config, comparisons, maker, report)
    except (KeyboardInterrupt, RunStopped):
        tell(console, f"stopped with {len(answers.known)} answers; go on with: rlvr pairs --resume {path}")
        raise
    finally:
        answers.close()
    kept = sum(one.better is not None for one in comparisons)
    if not kept:
        why = Counter(dropped_counts(comparisons)) + maker.without
        reasons = ", ".join(f"{count} {reason}" for reason, count in why.most_common())
        raise RunStopped(
            f"no pair is left of {len(comparisons)} comparisons ({reasons})", f"`{path / 'report.md'}` says more"
        )
    tell(console, f"{kept} pairs of {len(comparisons)} comparisons in {path}")
    return Run(path)


def run_to_end(work: Coroutine[Any, Any, list[Comparison]]) -> list[Comparison]:
    """What a coroutine returns; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def held() -> list[Comparison]:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(asyncio.run, held())
        try:
            return future.result()
        except KeyboardInterrupt:
            for loop, task in begun:
                if task is not None and not future.done():
                    loop.call_soon_threadsafe(task.cancel)
            raise


def needs(config: PairsConfig, items: Sequence[Item]) -> None:
    """Refuses to begin what cannot be done for want of a model.

    Raises:
        ConfigError: There are prompts without completions and no policy, or nothing that could revise.
    """
    empty = next((item.where for item in items if not item.completions), "")
    if empty and policy(config) is None:
        raise ConfigError(
            f"{empty} has no completions, and there is no policy to write them",
            "`--policy NAME --policy-url http://host:8000/v1`, or `--policy FOLDER`",
        )
    if config.revise and critic(config) is None:
        raise ConfigError("there is nothing that could revise", "give `--critic` or `--policy`")


def tell(console: Console, line: str) -> None:
    """A line for the reader."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def source(config: PairsConfig) -> str:
    """What a run is called by its data."""
    return Path(config.data.removeprefix("hub:")).stem


def begin(path: Path, resolved: ResolvedPairs) -> None:
    """Writes what was asked and where it runs."""
    write_atomically(path / "config.toml", resolved.toml())
    file = path / "environment.json"
    starts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    starts.append(environment() | {"stage": "pairs", "plugins": list(resolved.config.plugin)})
    write_atomically(file, json.dumps(starts, indent=2) + "\n")


def open_models(config: PairsConfig) -> dict[Place, Model]:
    """Every model that is asked, once, however many roles it has.

    Raises:
        MissingDependencyError: A package is missing, or a local model.
    """
    found: dict[Place, Model] = {}
    for place in (policy(config), critic(config) if config.revise else None, *judges(config)):
        if place is None or place in found:
            continue
        try:
            found[place] = open_model(place, config)
        except ImportError as error:
            raise MissingDependencyError.extra(f"`{place.model}`: {error}, and it", "train") from error
    return found


def open_model(place: Place, config: PairsConfig) -> Model:
    """An endpoint, or a model in this process: only that needs torch."""
    if place.url:
        from rlvr.judge.endpoint import Endpoint

        return Endpoint(place, config.concurrency, config.timeout, config.retries, config.backoff)
    from rlvr.stages.local import LocalModel

    return LocalModel(place.model, config.device, config.batch_size)


class Maker:
    """Makes comparisons of items.

    Args:
        config: The settings.
        principles: The whole list.
        desk: Where questions are put.
        models: What answers, by place.
        console: Where progress is said.
    """

    def __init__(
        self,
        config: PairsConfig,
        principles: Sequence[str],
        desk: Desk,
        models: Mapping[Place, Model],
        console: Console,
    ) -> None:
        self.config, self.principles, self.desk, self.models = config, principles, desk, models
        self.console = console
        self.prompts = 0
        self.without: Counter[str] = Counter()  # prompts without a comparison, by reason
        self._read: Counter[tuple[str, bool]] = Counter()  # answers of each judge, by whether they could be read
        places = judges(config)
        twice = {name for name, count in Counter(place.model for place in places).items() if count > 1}
        self.judges = {f"{p.model} at {p.url}" if p.model in twice else p.model: p for p in places}

    async def run(self, items: Sequence[Item]) -> list[Comparison]:
        """The comparisons of all items, in their order, whichever is done first.

        Raises:
            RunStopped: Too many requests got no answer, or too many answers cannot be read.
        """
        self.prompts = len(items)
        found: list[list[Comparison]] = [[] for _ in items]
        left = iter(enumerate(items))
        done, said = 0, time.monotonic()

        async def work() -> None:
            nonlocal done, said
            for index, item in left:
                found[index] = await self.comparisons(item)
                done += 1
                if time.monotonic() - said > SAY_SECONDS:
                    said = time.monotonic()
                    self.say(done, len(items))

        width = 2 * max(model.slots for model in self.models.values())
        workers = [asyncio.create_task(work()) for _ in range(min(width, len(items)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            for model in self.models.values():
                await model.close()
        return [one for group in found for one in group]

    def say(self, done: int, total: int) -> None:
        """A line on how far the run is."""
        missing = sum(self.desk.missing.values())
        line = f"{done} of {total} prompts, {self.desk.answered} answers" + (f", {missing} missing" if missing else "")
        tell(self.console, line)

    async def comparisons(self, item: Item) -> list[Comparison]:
        """What is compared of one prompt, and what came of it."""
        seed = self.seed(item.prompt)
        if self.config.revise:
            one_or_none = await self.revised(item, seed)
            made = [] if one_or_none is None else [one_or_none]
        else:
            texts = await self.chosen(item, seed)
            made = [
                Comparison(item, two, self.drawn(derive_seed(seed, 1, number)), statuses=known(item, two))
                for number, two in enumerate(texts)
            ]
        await asyncio.gather(*(self.judged(one) for one in made if not one.reason))
        return made

    def seed(self, prompt: Sequence[Message]) -> int:
        """The seed of all that is drawn for a prompt, wherever it stands in the data."""
        text = json.dumps(shown(prompt))
        return derive_seed(self.config.seed, int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))

    def drawn(self, seed: int) -> list[str]:
        """The principles that a comparison goes by."""
        return list(self.principles) if self.config.by == "all" else [random.Random(seed).choice(self.principles)]

    # Completions

    async def chosen(self, item: Item, seed: int) -> list[tuple[str, str]]:
        """The pairs of completions to compare: no text with itself, none that is empty or cut, as many as asked for."""
        answers = await self.begun(item, seed, self.config.samples)
        sound = [one.text for one in answers if not unfit(one)]
        distinct = list({squeezed(text): text for text in reversed(sound)}.values())[::-1]
        if len(distinct) < 2:
            reasons = [reason for reason in map(unfit, answers) if reason]
            self.without["missing" if len(answers) < 2 else reasons[0] if len(sound) < 2 else "same-text"] += 1
            return []
        every = list(combinations(distinct, 2))
        if item.better is not None or not self.config.compare or len(every) <= self.config.compare:
            return every
        return random.Random(derive_seed(seed, 2)).sample(every, self.config.compare)

    async def begun(self, item: Item, seed: int, count: int) -> list[Answer]:
        """The completions of a prompt: those that are given, else those of the policy."""
        return [Answer(text) for text in item.completions] or await self.written(item.prompt, seed, count)

    async def written(self, prompt: Sequence[Message], seed: int, count: int) -> list[Answer]:
        """Completions by the policy, without those that it gave no answer for."""
        place = policy(self.config)
        assert place is not None
        bodies = [self.body(place, shown(prompt), derive_seed(seed, 3, number)) for number in range(count)]
        asked = [self.desk.ask(self.models[place], "policy", body, draw) for draw, body in enumerate(bodies)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, Missing):
                raise one
        return [one for one in found if isinstance(one, Answer) and not one.refused]

    def body(self, place: Place, chat: Sequence[Mapping[str, str]], seed: int) -> dict[str, Any]:
        """A request for a completion."""
        config = self.config
        body: dict[str, Any] = {"model": place.model, "messages": list(chat), "max_tokens": config.max_tokens}
        body |= {"temperature": config.temperature, "seed": seed % 2**31}
        if config.top_p < 1:
            body["top_p"] = config.top_p
        return with_options(body, config.policy_options)

    async def revised(self, item: Item, seed: int) -> Comparison | None:
        """A response, criticised and revised as often as asked for, beside the first one."""
        place = critic(self.config)
        assert place is not None
        answers = await self.begun(item, seed, 1)
        if reason := unfit(answers[0]) if answers else "missing":
            self.without[reason] += 1
            return None
        last, principles, rounds = answers[0], [], []
        response = last.text
        for number in range(self.config.revise):
            principle = random.Random(derive_seed(seed, 4, number)).choice(self.principles)
            try:
                chat = critique_chat(item.prompt, last.text, principle, self.config.seed)
                critique = await self.critical(place, chat, derive_seed(seed, 5, number))
                remarks = critique.text.encode(errors="replace").decode()
                chat = revision_chat(item.prompt, last.text, remarks, principle, self.config.seed)
                last = await self.critical(place, chat, derive_seed(seed, 6, number))
            except Missing:
                self.without["missing"] += 1
                return None
            principles.append(principle)
            rounds.append({"principle": principle, "critique": remarks})
            if unfit(last) == "not-utf8":
                break
        judged_by = list(self.principles) if self.config.by == "all" else list(dict.fromkeys(principles))
        made = Comparison(item, (last.text, response), judged_by, revised=True, notes={"rounds": rounds})
        if reason := "empty-completion" if last.refused and not unfit(last) else unfit(last):
            made.reason = "revision-cut" if reason == "cut" else reason
        elif squeezed(last.text) == squeezed(response):
            made.reason = "same-text"
        return made

    async def critical(self, place: Place, chat: Sequence[Mapping[str, str]], seed: int) -> Answer:
        """What the critic says."""
        return await self.desk.ask(self.models[place], "critic", self.body(place, chat, seed))

    # Judging

    async def judged(self, comparison: Comparison) -> None:
        """Asks every judge in both orders, and decides."""
        names = list(self.judges)
        rulings = await asyncio.gather(*(self.ruling(name, comparison) for name in names))
        comparison.rulings = dict(zip(names, rulings, strict=True))
        comparison.decide(self.config.agree)

    async def ruling(self, judge: str, comparison: Comparison) -> Ruling:
        """What one judge says of a comparison."""
        first, second = comparison.texts
        (forth, p_forth), (back, p_back) = await asyncio.gather(
            self.choice(judge, comparison, first, second), self.choice(judge, comparison, second, first)
        )
        confidence = None if p_forth is None or p_back is None else round((p_forth + 1 - p_back) / 2, 6)
        if confidence is not None and forth == "B":
            confidence = round(1 - confidence, 6)
        return Ruling(forth, back, confidence)

    async def choice(self, judge: str, comparison: Comparison, first: str, second: str) -> tuple[str, float | None]:
        """A judge's answer with `first` as A; and the chance that it gives to A, where it is a local model.

        Raises:
            RunStopped: Too many of its answers cannot be read.
        """
        config, place = self.config, self.judges[judge]
        chat, code = judge_chat(
            comparison.item.prompt, first, second, comparison.principles, config.seed, config.reasoning
        )
        body: dict[str, Any] = {"model": place.model, "messages": chat, "temperature": 0}
        if place.url or config.reasoning:
            body["max_tokens"] = config.judge_max_tokens or (REASONING_TOKENS if config.reasoning else ANSWER_TOKENS)
            body = with_options(body, config.judge_options if place.url else ())
        else:
            body["choose"] = ["A", "B"]
        try:
            answer = await self.desk.ask(self.models[place], "judge", body)
        except Missing:
            return "missing", None
        found = read_choice(vars(answer), code, config.reasoning)
        self._read[judge, found not in UNREAD] += 1
        unread, total = self._read[judge, False], self._read[judge, False] + self._read[judge, True]
        if total >= ENOUGH and unread / total > config.unclear_limit:
            raise RunStopped(
                f"{unread} of {total} answers of the judge `{judge}` cannot be read; the last one is "
                f"`{' '.join(answer.text.split())[:80]}`",
                "it may need `--reasoning`, more `--judge-max-tokens`, or to be another model",
            )
        return found, None if answer.logprobs is None else chance_of_first(answer.logprobs)


def unfit(completion: Answer) -> str:
    """Why a completion is not compared, empty for none: training on one that is cut would teach to end there."""
    if completion.finish == "length":
        return "cut"
    if not completion.text.isascii():
        try:
            completion.text.encode()
        except UnicodeEncodeError:
            return "not-utf8"
    return "" if completion.text.strip() else "empty-completion"


def known(item: Item, texts: tuple[str, str]) -> tuple[str, str] | None:
    """What a verifier has said of two completions, where they come from a run."""
    statuses = dict(zip(item.completions, item.statuses, strict=False))
    first, second = (statuses.get(text) for text in texts)
    return (first, second) if first and second else None


def chance_of_first(logprobs: Mapping[str, float]) -> float:
    """The chance of A, given that it is A or B."""
    return 1 / (1 + math.exp(min(700.0, logprobs["B"] - logprobs["A"])))


def with_options(body: dict[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """A request with further parameters; those that are null are taken out."""
    merged = body | parameters(options, "options")
    return {name: value for name, value in merged.items() if value is not None}


def verify(comparisons: Sequence[Comparison], task: Task) -> None:
    """Fills in what the task's verifier says of the completions, where both verdicts are valid."""
    known = {"scorer", "sandbox"}
    settings = from_environment(os.environ)
    own = {name: text for name, text in settings.items() if name.partition(".")[0] in known}
    config = resolve([("environment", own)]).config
    jobs = [(Completion(text), one.item.sample) for one in comparisons for text in one.texts]
    pairs = [(completion, sample) for completion, sample in jobs if sample is not None]
    if not pairs:
        return
    with Scorer(
        workers=config.scorer.workers,
        timeout=config.scorer.timeout,
        memory_mb=config.scorer.memory_mb,
        plugins=registry().plugin_files,
        sandbox=config.scorer.sandbox,
        sandbox_options=asdict(config.sandbox),
    ) as scorer:
        verdicts = scorer.submit_batch(task.verifier, pairs, task.verifier_options).result()
    for one, first, second in zip(comparisons, verdicts[::2], verdicts[1::2], strict=True):
        if first.valid and second.valid:
            one.statuses = str(first.status), str(second.status)


# What is written


def write(path: Path, config: PairsConfig, comparisons: Sequence[Comparison], maker: Maker, report: Report) -> None:
    """Writes the pairs, what was dropped and why, the numbers, and a page that says them in words."""
    kept = [pair_of(one) for one in comparisons if one.better is not None]
    free = {place.model: (0.0, 0.0) for place in maker.models if not place.url}
    write_rows(path / "pairs.jsonl", [pair.to_json() for pair in kept])
    write_rows(path / "dropped.jsonl", [dropped(one) for one in comparisons if one.better is None])
    result = {
        "prompts": maker.prompts,
        "pairs": len(kept),
        "comparisons": len(comparisons),
        "dropped": dropped_counts(comparisons),
        "prompts_without_comparison": dict(sorted(maker.without.items())),
        "agreement": agreement(comparisons),
        "cost": cost(list(maker.desk.answers.known.values()), free | prices(config.price)),
        "data": report.to_json(),
    }
    write_atomically(path / "result.json", json.dumps(finite(result), indent=2, ensure_ascii=True) + "\n")
    page = written_report(config, list(maker.judges), maker.principles, result)
    write_atomically(path / "report.md", page.encode("utf-8", "backslashreplace").decode())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSONL file, whole or not at all. A model may write half a surrogate pair; JSON has an escape for it."""
    lines = "".join(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    write_atomically(path, lines.encode("utf-8", "backslashreplace").decode())


def dropped_counts(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How many comparisons made no pair, by reason, the commonest first."""
    return dict(Counter(one.reason for one in comparisons if one.better is None).most_common())


def columns(comparison: Comparison) -> dict[str, Any]:
    """What is told of a comparison beside its texts."""
    confidences = {judge: r.confidence for judge, r in comparison.rulings.items() if r.confidence is not None}
    return {
        "id": comparison.item.where,
        "principles": list(comparison.principles),
        "answers": comparison.answers(),
        **({"confidence": confidences} if confidences else {}),
        **({"revised": True} if comparison.revised else {}),
        **comparison.notes,
    }


def pair_of(comparison: Comparison) -> Pair:
    """The pair that a comparison makes."""
    better = comparison.better
    assert better is not None
    extra = {**columns(comparison), "votes": comparison.votes()}
    if comparison.statuses:
        extra["check"] = {"chosen": comparison.statuses[better], "rejected": comparison.statuses[1 - better]}
    return Pair(comparison.item.prompt, comparison.texts[better], comparison.texts[1 - better], extra=extra)


def dropped(comparison: Comparison) -> dict[str, Any]:
    """A row of `dropped.jsonl`; its answers are to the first text as A, then to the second as A."""
    first, second = comparison.texts
    return {
        **columns(comparison),
        "reason": comparison.reason,
        "prompt": shown(comparison.item.prompt),
        "first": first,
        "second": second,
    }
