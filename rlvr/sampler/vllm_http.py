"""Talking to servers over HTTP: connections, and answers sorted by whether it is any use to ask again."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from rlvr.errors import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
WRAPPED = re.compile(
    r"Call to \w+ method failed: (?:Worker failed with error '(?P<inner>.*)', please check .*|(.*))", re.S
)


class Down(Exception):
    """A server cannot be reached, does not answer, or is about to end."""


class Silent(Down):
    """A server has not answered in time."""


class Impossible(Down):
    """No server that could answer can be there: there is no such host, or it does not speak HTTP."""


class Refused(Exception):
    """A server that is well answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def addresses(urls: Sequence[str]) -> list[str]:
    """The addresses of servers, without what people write after them.

    Raises:
        ConfigError: There is none, one is no URL, or given twice.
    """
    found: list[str] = []
    for url in urls:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"`{url}` is no address of a server", "`--sampler.url http://host:8000`")
        plain = url.rstrip("/").removesuffix("/v1").rstrip("/")
        if plain in found:
            raise ConfigError(f"the server `{plain}` is given twice", "each `--sampler.url` is a server of its own")
        found.append(plain)
    if not found:
        raise ConfigError("there is no vLLM server to sample from", "`--sampler.url http://host:8000`")
    return found


def client(url: str, connections: int, timeout: float | None) -> httpx.AsyncClient:
    """Connections to a server. Those to this machine never go over a proxy."""
    key = os.environ.get("VLLM_API_KEY")
    return httpx.AsyncClient(
        base_url=url,
        verify=url.startswith("https:"),  # to read certificates that nobody needs takes a while
        headers={"Authorization": f"Bearer {key}"} if key else {},
        # A server closes what is idle for 5 s; what it is just about to close must not be used.
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=2.0),
        timeout=httpx.Timeout(timeout, connect=10.0, pool=None),
        mounts={f"all://{host}": None for host in LOOPBACK},
    )


async def call(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None, timeout: float | None = None
) -> Any:
    """What a server answers: JSON, or text where it is none.

    Args:
        client: Its connections.
        method: `GET` or `POST`.
        path: With its query.
        body: Sent as JSON; bytes are JSON already.
        timeout: Seconds without a sign of life; by default the client's.

    Raises:
        Down: No answer, or one that says that it should be asked again later.
        Refused: An answer that is an error.
    """
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if content else {}
    limits = {} if timeout is None else {"timeout": httpx.Timeout(timeout, connect=10.0, pool=None)}
    try:
        response = await client.request(method, path, content=content, headers=headers, **limits)  # type: ignore[arg-type]
    except httpx.RequestError as error:
        if isinstance(error, httpx.TimeoutException):
            raise Silent(f"`{path.partition('?')[0]}` timed out") from error
        kind = Impossible if impossible(error) else Down
        raise kind(str(error) or type(error).__name__) from error
    try:
        answer = response.json()
    except ValueError:
        answer = response.text
    if response.is_success:
        return answer
    if response.status_code in (502, 504):  # a proxy, and nothing behind it
        raise Down(f"it answers {response.status_code}")
    raise Refused(response.status_code, said(answer))


def impossible(error: BaseException) -> bool:
    """Whether waiting cannot help: no such host, or it does not speak HTTP."""
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
        return "closed" not in str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (socket.gaierror, ssl.SSLError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def said(answer: Any) -> str:
    """The message in an error that a server answers, on one line."""
    for key in ("error", "message", "detail"):
        if isinstance(answer, dict) and key in answer:
            answer = answer[key]
    text = " ".join(str(answer).split())
    if text[:1] == "<":
        return "a web page"
    if found := WRAPPED.fullmatch(text):
        text = found["inner"] or found[2] or text
    return text[:300] or "without a word"
