"""An OpenAI-compatible endpoint: one request, sent again where that may help, under clocks."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

from rlvr.judge.answers import Answer, Missing
from rlvr.judge.config import Place, api_key
from rlvr.sampler.vllm_http import LOOPBACK, impossible, said

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses after which the same request may be answered."""

HOPELESS = {401, 403, 404}
"""Statuses that say of the first request that no other will be answered."""

LONGEST_WAIT = 60.0
LONGEST_ORDERED_WAIT = 300.0
"""Seconds that a `Retry-After` is followed for at most."""

LARGEST = 16 * 2**20
"""Bytes of an answer."""

MOST_TOKENS = 2**40
"""A count above this is none."""

LEAST_SECRET = 8
"""Characters of a key below which it is no secret but a word such as `EMPTY`, which an answer may well have."""


class Failed(Exception):
    """An attempt that failed.

    Args:
        reason: In words.
        again: Whether another one may do better.
        hopeless: Whether no request will.
        wait: Seconds to wait before the next, where the server says so.
        denied: Whether the key is not taken.
    """

    def __init__(
        self, reason: str, again: bool, hopeless: bool = False, wait: float | None = None, denied: bool = False
    ) -> None:
        super().__init__(reason)
        self.again, self.hopeless, self.wait, self.denied = again, hopeless, wait, denied


class Endpoint:
    """A model at an endpoint. Redirects are not followed, so that a key goes nowhere else.

    Args:
        place: Where; its key is read from the environment; `***` stands for it in reasons and answers.
        slots: Requests under way at once.
        timeout: Seconds of wall clock for one attempt.
        retries: Attempts after the first.
        backoff: Seconds before the second attempt; they double.
    """

    def __init__(self, place: Place, slots: int, timeout: float, retries: int, backoff: float) -> None:
        self.name, self.identity, self.slots = place.model, place.url, slots
        self.timeout, self.retries, self.backoff = timeout, retries, backoff
        self._held_until = 0.0  # by a `Retry-After`, for all requests
        self._key = key = api_key(place)
        self.client = httpx.AsyncClient(
            verify=place.url.startswith("https:"),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=slots, max_keepalive_connections=slots, keepalive_expiry=2.0),
            timeout=httpx.Timeout(timeout, connect=min(10.0, timeout), pool=None),
            mounts={f"all://{host}": None for host in LOOPBACK},
        )

    async def answer(self, body: Mapping[str, Any], key: str) -> Answer:
        """See `Model.answer`. Every attempt carries the same `Idempotency-Key`, the question's hash."""
        attempt = 0
        while True:
            await asyncio.sleep(max(0.0, self._held_until - time.monotonic()))
            try:
                return await self._attempt(body, key)
            except Failed as failure:
                if not failure.again or attempt >= self.retries:
                    raise Missing(
                        self._hidden(f"{self.identity}: {failure}"), failure.hopeless, failure.denied
                    ) from None
                wait = min(LONGEST_WAIT, self.backoff * 2**attempt) * random.uniform(0.75, 1.25)
                if failure.wait is not None:
                    self._held_until = max(self._held_until, time.monotonic() + failure.wait)
            attempt += 1
            await asyncio.sleep(wait)

    async def _attempt(self, body: Mapping[str, Any], key: str) -> Answer:
        content = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        received = bytearray()
        try:
            async with asyncio.timeout(self.timeout):
                url = f"{self.identity}/chat/completions"
                async with self.client.stream("POST", url, content=content, headers=headers) as response:
                    async for part in response.aiter_bytes():
                        received += part
                        if len(received) > LARGEST:
                            raise Failed(f"the answer is larger than {LARGEST} bytes", again=False)
        except (TimeoutError, httpx.TimeoutException):
            raise Failed(f"no answer in {self.timeout:g} s", again=True) from None
        except (httpx.RequestError, httpx.InvalidURL, OSError, ValueError, OverflowError, ExceptionGroup) as error:
            cause = str(error) or type(error).__name__
            connecting = isinstance(error, httpx.ConnectError)
            again = isinstance(error, (httpx.RequestError, OSError)) and not impossible(error)
            raise Failed(f"connection: {cause}", again, hopeless=connecting) from None
        status = response.status_code
        value: Any
        try:
            value = json.loads(received)
            if self._key:
                value = json.loads(self._hidden(json.dumps(value), answer=status == 200))
            words = said(value) if status != 200 else ""
        except (ValueError, RecursionError):
            value = self._hidden(received.decode(errors="replace"))
            words = said(value)
        if status == 200:
            return parsed(value)
        wait = seconds(response.headers.get("Retry-After"))
        raise Failed(f"status {status}: {words}", status in AGAIN, status in HOPELESS, wait, denied=status == 401)

    def _hidden(self, text: str, answer: bool = False) -> str:
        """A text, or JSON, without the key."""
        if not self._key or (answer and len(self._key) < LEAST_SECRET):
            return text
        return text.replace(json.dumps(self._key)[1:-1], "***").replace(self._key, "***")

    async def close(self) -> None:
        await self.client.aclose()


def parsed(value: Any) -> Answer:
    """The answer in a response.

    Raises:
        Failed: It has no answer of the form that the protocol has.
    """
    try:
        choice = value["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        usage = value.get("usage") or {}
        read, written = (counted(usage.get(f"{part}_tokens")) for part in ("prompt", "completion"))
        if not isinstance(text, (str, type(None))) or not isinstance(finish, (str, type(None))):
            raise TypeError
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Failed("the response is not that of a chat completion", again=True) from None
    refused = bool(refusal) or finish == "content_filter"
    return Answer(text or "", finish or "stop", refused, read, written)


def counted(value: Any) -> int:
    """A number of tokens; 0 for what cannot be one."""
    try:
        found = int(value or 0)
    except (TypeError, ValueError, OverflowError):
        return 0
    return found if 0 <= found <= MOST_TOKENS else 0


def seconds(header: str | None) -> float | None:
    """What a `Retry-After` orders, in seconds: a number or a date; None for none."""
    if header is None:
        return None
    try:
        wait = float(header)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(LONGEST_ORDERED_WAIT, max(0.0, wait)) if wait == wait else None
