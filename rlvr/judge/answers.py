"""Every answer is kept before it is used: in the run's `answers.jsonl`, by the hash of the whole question.

    key = sha256(who was asked, every parameter of the request)

A question that has an answer is never asked again: not when a killed run goes on, not twice in one run, and not in
another run that shares a `--cache`. One that got none is missing: it is not kept, and a resumed run asks it again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from rlvr.errors import ConfigError, RunStopped

Role = Literal["policy", "critic", "judge"]

ENOUGH = 20
"""Requests before which the share of missing ones says too little to stop a run."""


class Missing(Exception):
    """A question that got no answer. Nothing follows from it.

    Args:
        reason: In words.
        hopeless: Whether no question will get one, if none has: no such server, no such model.
        denied: Whether none will, whatever was before: the key is not taken.
    """

    def __init__(self, reason: str, hopeless: bool = False, denied: bool = False) -> None:
        super().__init__(reason)
        self.hopeless, self.denied = hopeless, denied


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: The text.
        finish: `stop`, `length`, or what else the endpoint says of the end.
        refused: Whether it declined, by its own word or its provider's filter.
        read: Tokens of the question, 0 where the endpoint does not say.
        written: Tokens of the answer.
        logprobs: Of the words that it could choose from, where it was asked to choose and is a local model.
    """

    text: str
    finish: str = "stop"
    refused: bool = False
    read: int = 0
    written: int = 0
    logprobs: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Question:
    """A request: who is asked in what role, and the body. `draw` tells apart completions that are asked for with the
    same body, by an endpoint that takes no seed."""

    role: Role
    model: str
    identity: str
    body: Mapping[str, Any]
    draw: int = 0

    @property
    def key(self) -> str:
        """Hash of everything that the answer depends on."""
        whole = json.dumps([self.identity, self.body, self.draw], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(whole.encode()).hexdigest()


class Model(Protocol):
    """Something that answers.

    Attributes:
        name: The model's, as settings call it.
        identity: What tells it from all others: an address, or a hash of its weights.
        slots: Requests that it takes at once.
    """

    name: str
    identity: str
    slots: int

    async def answer(self, body: Mapping[str, Any], key: str) -> Answer:
        """One answer.

        Raises:
            Missing: There is none, after all that could be tried.
        """

    async def close(self) -> None:
        """Releases what it holds."""


class Answers:
    """The answers of a run, and those of the cache that it shares.

    Args:
        path: The run's file. It is locked, so that two processes cannot ask the same questions.
        shared: A file that other runs may write to at the same time; None for none.

    Raises:
        ConfigError: Another process has the run open.
    """

    def __init__(self, path: Path, shared: Path | None = None) -> None:
        self.path = path
        self.file: IO[bytes] = path.open("a+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise ConfigError(f"`{path.parent}` is in use by another process", "let it end, or end it") from None
        self.known: dict[str, dict[str, Any]] = {}
        for line, end in whole_lines(self.file):
            self.known[line["key"]] = line
            self._end = end
        if not self.known:
            self._end = 0
        os.ftruncate(self.file.fileno(), self._end)  # a line that a crash left unfinished
        self.shared: IO[bytes] | None = None
        self.others: dict[str, dict[str, Any]] = {}
        if shared is not None:
            shared.parent.mkdir(parents=True, exist_ok=True)
            self.shared = shared.open("a+b")
            self.others = {line["key"]: line for line, _ in whole_lines(self.shared)}

    def find(self, question: Question) -> Answer | None:
        """The answer to a question, if there is one; one from the shared file becomes one of this run."""
        key = question.key
        if key not in self.known and key in self.others:
            self._add({**self.others[key], "role": question.role, "shared": True})
        return Answer(**self.known[key]["answer"]) if key in self.known else None

    def keep(self, question: Question, answer: Answer) -> None:
        """Writes an answer; when this returns it is on the disk."""
        row = {"key": question.key, "role": question.role, "model": question.model, "answer": vars(answer)}
        self._add({**row, "shared": False})
        if self.shared is not None:
            line = dumped(row)
            fcntl.flock(self.shared, fcntl.LOCK_EX)
            try:
                if (size := os.fstat(self.shared.fileno()).st_size) and os.pread(
                    self.shared.fileno(), 1, size - 1
                ) != b"\n":
                    line = b"\n" + line  # another run was killed in the middle of its own
                self.shared.write(line)
                self.shared.flush()
                os.fsync(self.shared.fileno())
            finally:
                fcntl.flock(self.shared, fcntl.LOCK_UN)

    def _add(self, row: dict[str, Any]) -> None:
        self.file.write(dumped(row))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.known[row["key"]] = row

    def close(self) -> None:
        self.file.close()
        if self.shared is not None:
            self.shared.close()


def dumped(row: Mapping[str, Any]) -> bytes:
    """A row as a line. ASCII, as a model may write half a surrogate pair."""
    return json.dumps(row, ensure_ascii=True).encode() + b"\n"


def whole_lines(file: IO[bytes]) -> list[tuple[dict[str, Any], int]]:
    """The rows of a file of answers and where each ends; what is no such row is passed over."""
    found = []
    file.seek(0)
    end = 0
    for line in file:
        end += len(line)
        try:
            row = json.loads(line)
            Answer(**row["answer"])
            if line.endswith(b"\n") and isinstance(row["key"], str):
                found.append((row, end))
        except (ValueError, TypeError, KeyError):
            continue
    return found


class Desk:
    """Where questions are put: answers that are known, those under way, and the models.

    Args:
        answers: Those that are known.
        missing_limit: Share of questions without an answer above which the run stops.
    """

    def __init__(self, answers: Answers, missing_limit: float) -> None:
        self.answers = answers
        self.missing_limit = missing_limit
        self.missing: Counter[str] = Counter()  # by reason
        self._answered: set[str] = set()  # keys of questions with an answer, whenever it came
        self._heard: set[str] = set()  # models that have answered
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    @property
    def answered(self) -> int:
        """Questions with an answer, those included that were kept by a process before this one."""
        return len(self._answered)

    async def ask(self, model: Model, role: Role, body: Mapping[str, Any], draw: int = 0) -> Answer:
        """The answer to a question, which is asked at most once.

        Raises:
            Missing: There is none.
            RunStopped: There are too many without.
        """
        question = Question(role, model.name, model.identity, body, draw)
        found = self.answers.find(question)
        key = question.key
        if found is not None:
            self._answered.add(key)
            return found
        if key not in self._under_way:  # one that is missing stays here, and is not asked again in this run
            self._under_way[key] = asyncio.create_task(self._fetch(model, question))
        return await self._under_way[key]

    async def _fetch(self, model: Model, question: Question) -> Answer:
        slots = self._slots.setdefault(model.identity, asyncio.Semaphore(model.slots))
        try:
            async with slots:
                answer = await model.answer(question.body, question.key)
        except Missing as missing:
            self.missing[str(missing)] += 1
            self.check(hopeless=missing.denied or (missing.hopeless and model.identity not in self._heard))
            raise
        self._heard.add(model.identity)
        self.answers.keep(question, answer)
        self._answered.add(question.key)
        del self._under_way[question.key]
        return answer

    def check(self, hopeless: bool = False, enough: int = ENOUGH) -> None:
        """Stops the run where too many questions got no answer.

        Args:
            hopeless: Whether it is plain that none will.
            enough: Questions before which nothing is said otherwise.

        Raises:
            RunStopped: Says how many, and the commonest reason.
        """
        missing = sum(self.missing.values())
        total = missing + self.answered
        if not missing or (not hopeless and (total < enough or missing / total <= self.missing_limit)):
            return
        reason = self.missing.most_common(1)[0][0]
        raise RunStopped(
            f"{missing} of {total} requests got no answer, for one: {reason}",
            "see to the endpoint, then `--resume` this run: answers are kept, and only these are asked again",
        )
