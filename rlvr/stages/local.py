"""A model in this process that answers questions as an endpoint does: it judges, completes, criticises and revises.

Asked to choose between words it is not sampled: the answer is the word that it finds likelier as the next token. That
is an answer to every question, and the same one each time.

What a question shows is text, also where it spells out a special token such as `<|end|>`: the control tokens of an
encoded question are those of the chat template with harmless text in it, or there is no answer.
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

UNASSIGNED = "\U000e0fff"
"""A character that no vocabulary has."""


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
        self._special, self._texts = control_tokens(self.tokenizer)
        rare = self.tokenizer.encode(UNASSIGNED, add_special_tokens=False)
        self._unknown = {self.tokenizer.unk_token_id} & set(rare)  # stands for text too, unless a token is a byte
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
        """Answers to questions of one kind; for one that is too long or cannot be encoded, why there is none."""
        found: list[Answer | Exception] = [Missing("the question is longer than the model's context")] * len(bodies)
        prompts: dict[int, list[int]] = {}
        for index, body in enumerate(bodies):
            try:
                ids = self.encoded(body["messages"])
            except Missing as missing:
                found[index] = missing
            else:
                if not self.context or len(ids) + room(body) <= self.context:
                    prompts[index] = ids
        if prompts:
            fits, own = list(prompts), list(prompts.values())
            asked = [bodies[index] for index in fits]
            made = self.chosen(own, asked[0]["choose"]) if "choose" in asked[0] else self.sampled(own, asked)
            for index, answer in zip(fits, made, strict=True):
                found[index] = answer
        return found

    def encoded(self, chat: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a question, with no control token but the template's own.

        Where the question spells one out, a space breaks it up: `< |end|>`.

        Raises:
            Missing: It has text that is not Unicode, or spells one out in a way that this does not break up.
        """
        try:
            for message in chat:
                message["content"].encode()
        except UnicodeEncodeError:
            raise Missing("the question has half a surrogate pair, which is no text") from None
        blank = self._templated([{**one, "content": "x" if one["content"].strip() else ""} for one in chat])
        control = self._special | (self._texts.keys() & set(blank))
        spelled = sorted((self._texts[token] for token in control), key=len, reverse=True)
        ids = self._templated([{**one, "content": broken_up(one["content"], spelled)} for one in chat])
        seen = control - self._unknown
        if [token for token in ids if token in seen] == [token for token in blank if token in seen]:
            return ids
        raise Missing("the question spells out a control token of the model")

    def _templated(self, chat: Sequence[Mapping[str, str]]) -> list[int]:
        """A chat by the template; where that has no system role, its text goes before the user's."""
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


def control_tokens(tokenizer: Any) -> tuple[set[int], dict[int, str]]:
    """The ids that never stand for text: special tokens, and added ones that the chat template names; and the text of
    every such and every added token. Words and white space are left out, which some tokenizers add tokens for."""
    added = {
        number: token
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or (len(token.content.strip()) > 1 and not token.content.isalnum())
    }
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    template = str(tokenizer.chat_template or "")
    control = {number for number, token in added.items() if token.special or token.content in template} | set(special)
    return control, {number: token.content for number, token in added.items()} | special


def broken_up(text: str, tokens: Sequence[str]) -> str:
    """A text with each spelled-out token broken up: a space stands behind its first character."""
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


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
