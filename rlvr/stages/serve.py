"""The process that serves a reward model: JSON lines in and out over a unix socket, scored in batches.

`rlvr.modelserver` starts it, one for a scorer and a model, and the verifier `reward-model` asks it:

    {"prompt": ..., "completion": "..."}          what to score; the prompt is text, or a chat
    {"score": 1.25, "raw": 3.5}                   raw is as the model says, score has mean 0 and deviation 1
    {"abstained": "..."} or {"error": "..."}      no score, and why

Nothing that arrives is trusted: it is JSON and never a pickle, a line has a limit, and completions are encoded as plain
text, so that what looks like a special token of the chat template is not one, and ends no turn.

The socket lies in a directory of ours that nobody else may enter. The process ends with the one that started it: by the
end of a pipe, and on Linux by the kernel's word.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import json
import math
import os
import queue
import signal
import socket
import struct
import threading
import traceback
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlvr.errors import RlvrError
from rlvr.learner.policy import bars, choose_device
from rlvr.modelserver import read_facts
from rlvr.sampler.prompts import encode_chat
from rlvr.types import Message

LINE_LIMIT = 1 << 22
"""Bytes of a request at most."""

SEND_SECONDS = 5.0
"""How long a client may take to read its answer."""

BATCH_TOKENS = 16_384
"""Tokens of one forward pass at most, padding included."""

REMEMBERED = 20_000
"""Scores that are kept, so that the same completion gets the same one whatever it is batched with."""

PR_SET_PDEATHSIG = 1

LOST: Any = getattr(torch, "AcceleratorError", ())
"""What torch raises when a process can no longer use its GPU; nothing before torch 2.8."""

Ids = tuple[int, ...]


def scored_ids(tokenizer: Any, prompt: str | Sequence[Message], completion: str, where: str = "the prompt") -> Ids:
    """The tokens that a reward model reads: the prompt through the chat template, the completion as plain text, the end
    token.

    A special token that is spelled out in the completion is encoded as the characters that it is made of.

    Raises:
        ConfigError: The chat template refuses the prompt.
    """
    chat: Sequence[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = completion.encode("utf-8", "replace").decode()  # no tokenizer takes halves of surrogate pairs
    written = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return (*encode_chat(tokenizer, chat, where), *written, tokenizer.eos_token_id)


def padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """Right-padded ids [N, L] and their attention mask [N, L]."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def raw_scores(model: Any, rows: Sequence[Sequence[int]], limit: int = BATCH_TOKENS) -> list[float]:
    """The raw score of each row [N], in batches of at most `limit` tokens; rows of about one length go together."""
    device = next(model.parameters()).device
    pad = model.config.get_text_config().pad_token_id
    found: dict[int, float] = {}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    while order:
        size = 1
        while size < len(order) and (size + 1) * len(rows[order[size]]) <= limit:
            size += 1
        taken, order = order[:size], order[size:]
        logits = model(**padded([rows[i] for i in taken], pad, device), use_cache=False).logits
        found |= dict(zip(taken, logits[:, 0].float().tolist(), strict=True))
    return [found[i] for i in range(len(rows))]


class RewardModel:
    """A reward model ready to score.

    Args:
        folder: Where `rlvr reward` wrote it.
        device: Where it runs; empty takes the best there is.

    Raises:
        RlvrError: It is no reward model, or cannot be loaded.
    """

    def __init__(self, folder: str, device: str = "") -> None:
        where = choose_device(device)
        if where.type == "cuda" and where.index is None:
            where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        self.facts = read_facts(folder)
        with bars(False):
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            dtype = torch.bfloat16 if where.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
            loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
        self.model = loaded.to(where).eval()
        self.limit = int(self.facts["max_length"])
        self._known: collections.OrderedDict[bytes, float] = collections.OrderedDict()

    def answers(self, requests: Sequence[Any]) -> list[dict[str, Any]]:
        """One answer for each request, whatever is in it."""
        found: list[dict[str, Any]] = [{} for _ in requests]
        rows: dict[int, Ids] = {}
        for i, request in enumerate(requests):
            try:
                rows[i] = scored_ids(self.tokenizer, *checked(request))
            except RlvrError as error:
                found[i] = {"error": f"{error.message} ({error.hint})"}
                continue
            except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
                found[i] = {"error": f"it cannot be encoded: {type(error).__name__}: {error}"[:500]}
                continue
            if len(rows[i]) > self.limit:
                over = f"prompt and completion have {len(rows[i]):,} tokens; the reward model reads {self.limit:,}"
                found[i] = {"abstained": over}
                del rows[i]
        keys = {i: hashlib.sha256(array("q", row)).digest() for i, row in rows.items()}
        self._score({key: rows[i] for i, key in keys.items()})
        for i, key in keys.items():
            raw = self._known[key]
            score = (raw - self.facts["mean"]) / self.facts["deviation"]
            found[i] = {"score": score, "raw": raw} if math.isfinite(score) else {"error": "its score is not finite"}
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _score(self, rows: Mapping[bytes, Ids]) -> None:
        new = [key for key in rows if key not in self._known]
        self._known |= zip(new, raw_scores(self.model, [rows[key] for key in new]), strict=True)
        for key in rows:
            self._known.move_to_end(key)


def checked(request: Any) -> tuple[str | list[dict[str, str]], str]:
    """Prompt and completion of a request.

    Raises:
        TypeError, KeyError: It is none.
    """
    prompt, completion = request["prompt"], request["completion"]
    if not isinstance(completion, str):
        raise TypeError("the completion is no text")
    if isinstance(prompt, str):
        return prompt, completion
    chat = [{"role": str(message["role"]), "content": message["content"]} for message in prompt]
    if not chat or not all(isinstance(message["content"], str) for message in chat):
        raise TypeError("the prompt is neither text nor a chat")
    return chat, completion


# ------------------------------------------------------------------------------------------------ connections


class Server:
    """Answers connections; what has come in together is scored together.

    Args:
        path: Of the socket.
        model: What answers.
    """

    def __init__(self, path: str, model: RewardModel) -> None:
        self.model = model
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(128)
        self.waiting: queue.SimpleQueue[tuple[socket.socket, Any]] = queue.SimpleQueue()

    def run(self) -> NoReturn:
        """Answers for ever."""
        threading.Thread(target=self._accept, daemon=True).start()
        while True:
            taken = [self.waiting.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self.waiting.get_nowait())
            for (link, _), answer in zip(taken, self._answers([request for _, request in taken]), strict=True):
                with contextlib.suppress(OSError):  # it has hung up, or does not read
                    link.sendall(json.dumps(answer).encode() + b"\n")

    def _answers(self, requests: Sequence[Any]) -> list[dict[str, Any]]:
        """The model's answers. Where they cannot be had together, such as for want of memory, each is asked for by
        itself, and the request that fails has an error; a GPU that is lost to the process ends it instead."""
        try:
            return self.model.answers(requests)
        except LOST:
            raise
        except Exception as error:
            traceback.print_exc()
            failed = {"error": f"it cannot be scored: {type(error).__name__}: {error}"[:500]}
        if torch.cuda.is_available():  # what the failed pass held is let go of by now
            torch.cuda.empty_cache()
        return [failed] if len(requests) == 1 else [self._answers([request])[0] for request in requests]

    def _accept(self) -> None:
        while True:
            link, _ = self.listener.accept()
            threading.Thread(target=self._listen, args=(link,), daemon=True).start()

    def _listen(self, link: socket.socket) -> None:
        """Takes the requests of one connection until it hangs up or sends what is none."""
        reader = link.makefile("rb")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_SECONDS))
        with contextlib.suppress(OSError, ValueError, RecursionError), link, reader:
            while (line := reader.readline(LINE_LIMIT)).endswith(b"\n"):
                self.waiting.put((link, json.loads(line)))


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def main(path: str, folder: str, device: str, parent: int, lifeline: int) -> NoReturn:
    """Serves the model in `folder` at the socket `path`, until the pipe `lifeline` ends.

    The only line on stdout says that it is ready, or what is wrong; what libraries print there goes to stderr.
    """
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started it

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    try:
        server = Server(path, RewardModel(folder, device))
    except Exception as error:
        what = [error.message, error.hint] if isinstance(error, RlvrError) else [f"{type(error).__name__}: {error}", ""]
        traceback.print_exc()
        with told:
            told.write(json.dumps({"failed": what}) + "\n")
        os._exit(1)
    with told:
        told.write(json.dumps({"ready": os.getpid()}) + "\n")
    server.run()
