"""A model in this process that answers questions as an endpoint does: it judges, completes, criticises and revises.

Asked to choose between words it is not sampled: the answer is the word that it finds likelier as the next token. That
is an answer to every question, and the same one each time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rlvr.errors import ConfigError
from rlvr.judge.answers import Answer, Missing
from rlvr.learner.policy import choose_device, load_policy, model_path
from rlvr.sampler.prompts import encode_chat
from rlvr.sampler.transformers import TransformersSampler, pad_left
from rlvr.types import SamplingParams

GATHER_SECONDS = 0.01
"""How long to wait for more questions, so that they are answered together."""

LEAST_MASS = 0.05
"""Probability of all words together below which a model has not understood that it is to choose."""

SAMPLED_PIECE = 2**20


class LocalModel:
    """A model in this process.

    Args:
        name: A folder, `starter`, or a hub name.
        device: Where it runs; empty takes the best there is.
        batch_size: Questions answered together at most.

    Raises:
        RlvrError: As `load_policy`.
    """

    def __init__(self, name: str, device: str, batch_size: int) -> None:
        self.name, self.slots = name, batch_size
        self.model, self.tokenizer = load_policy(name, choose_device(device))
        self.identity = f"local {fingerprint(model_path(name))}"
        self.sampler = TransformersSampler(self.model, self.tokenizer, batch_size)
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self._waiting: list[tuple[Mapping[str, Any], asyncio.Future[Answer]]] = []
        self._work: asyncio.Task[None] | None = None

    async def answer(self, body: Mapping[str, Any], key: str) -> Answer:
        """See `Model.answer`. Questions that come together are answered together."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._serve())
        return await future

    async def _serve(self) -> None:
        while True:
            await asyncio.sleep(GATHER_SECONDS)
            if not self._waiting:
                return
            first = kind(self._waiting[0][0])
            batch = [one for one in self._waiting if kind(one[0]) == first][: self.slots]
            taken = {id(future) for _, future in batch}
            self._waiting = [one for one in self._waiting if id(one[1]) not in taken]
            try:
                found = await asyncio.to_thread(self.answers, [body for body, _ in batch])
            except Exception as error:
                found = [error] * len(batch)
            for (_, future), one in zip(batch, found, strict=True):
                if future.done():
                    continue
                if isinstance(one, Answer):
                    future.set_result(one)
                else:
                    future.set_exception(one)

    def answers(self, bodies: Sequence[Mapping[str, Any]]) -> list[Answer | Exception]:
        """Answers to questions of one kind; for one that is too long, why there is none."""
        prompts = [self.encoded(body["messages"]) for body in bodies]
        found: list[Answer | Exception] = [Missing("the question is longer than the model's context")] * len(bodies)
        fits = [i for i, ids in enumerate(prompts) if not self.context or len(ids) + room(bodies[i]) <= self.context]
        if fits:
            own, asked = [prompts[i] for i in fits], [bodies[i] for i in fits]
            made = self.chosen(own, asked[0]["choose"]) if "choose" in asked[0] else self.sampled(own, asked)
            for index, answer in zip(fits, made, strict=True):
                found[index] = answer
        return found

    def encoded(self, chat: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a question; where the chat template has no system role, its text goes before the user's."""
        try:
            return encode_chat(self.tokenizer, chat, "a question")
        except ConfigError:
            if chat[0]["role"] != "system" or len(chat) < 2:
                raise
            joined = {"role": chat[1]["role"], "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
            return encode_chat(self.tokenizer, [joined, *chat[2:]], "a question")

    def sampled(self, prompts: Sequence[Sequence[int]], bodies: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Answers token by token, each by its own seed."""
        params = SamplingParams(
            max(map(room, bodies)),
            bodies[0]["temperature"],
            bodies[0].get("top_p", 1.0),
            rooms=tuple(map(room, bodies)),
            seeds=tuple(body.get("seed", 0) for body in bodies),
        )
        found: dict[int, Answer] = {}
        for index, completion in self.sampler.sample(prompts, 1, params):
            found[index] = Answer(
                completion.text,
                completion.finish_reason,
                read=len(prompts[index]),
                written=len(completion.token_ids),
            )
        return [found[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def chosen(self, prompts: Sequence[Sequence[int]], words: Sequence[str]) -> list[Answer]:
        """The likeliest of some words as the next token, with the log-probabilities of all of them.

        Raises:
            ConfigError: Two words begin with the same token.
        """
        ids = [self.tokenizer.encode(word, add_special_tokens=False)[0] for word in words]
        if len(set(ids)) < len(ids):
            raise ConfigError(f"`{self.name}` has one token for {' and '.join(words)}", "judge with `--reasoning`")
        ids_RT, mask_RT = pad_left(prompts, self.model.device)
        positions_RT = (mask_RT.cumsum(dim=1) - 1).clamp(min=0)
        output = self.model(input_ids=ids_RT, attention_mask=mask_RT, position_ids=positions_RT, logits_to_keep=1)
        logprobs_RW = output.logits[:, -1].float().log_softmax(dim=-1)[:, ids]
        found = []
        for prompt, row in zip(prompts, logprobs_RW.tolist(), strict=True):
            known = dict(zip(words, row, strict=True))
            best = max(known, key=lambda word: known[word])
            if sum(value == known[best] for value in row) > 1:
                best = "TIE"
            understood = logprobs_mass(row) >= LEAST_MASS
            found.append(Answer(best if understood else "?", read=len(prompt), written=1, logprobs=known))
        return found

    async def close(self) -> None:
        """Ends what is under way."""
        if self._work is not None:
            self._work.cancel()


def kind(body: Mapping[str, Any]) -> tuple[Any, ...]:
    """Questions of one kind are answered together."""
    return "choose" in body, body.get("temperature"), body.get("top_p")


def room(body: Mapping[str, Any]) -> int:
    """Tokens of an answer at most."""
    return int(body.get("max_tokens", 1))


def logprobs_mass(logprobs: Sequence[float]) -> float:
    """The probability of several tokens together."""
    return float(torch.tensor(logprobs).exp().sum())


def fingerprint(path: str) -> str:
    """What tells a model from all others: of a folder, a hash of its small files and of both ends of its large ones; of
    a hub name, the name."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".safetensors", ".jinja", ".bin", ".model"):
            size = file.stat().st_size
            with file.open("rb") as handle:
                digest.update(f"{file.name} {size}\n".encode() + handle.read(SAMPLED_PIECE))
                handle.seek(max(0, size - SAMPLED_PIECE))
                digest.update(handle.read(SAMPLED_PIECE))
    return digest.hexdigest()[:32]
