"""Gets images into the engine and out of it: pulls, imports and removes them, under clocks that the SDK lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from rlvr import MissingDependencyError
from rlvr_sandboxes.commands import Say
from rlvr_sandboxes.engine import reason

if TYPE_CHECKING:
    from docker import DockerClient

SILENCE_S = 20.0
"""Seconds without a word from the registry after which a pull is given up."""
BUILD_S = 900.0
"""The same for a step of a build, and for an import."""


def pull(engine: DockerClient, base: str, say: Say) -> None:
    """Pulls an image; given up after `SILENCE_S` seconds without a word.

    Raises:
        MissingDependencyError: It cannot be had.
    """
    from docker import auth

    registry, _ = auth.resolve_repository_name(base)
    credentials = auth.get_config_header(engine.api, registry)
    say(f"pulling {base}")
    try:
        for _ in create(
            engine,
            {"fromImage": base if ":" in base.rpartition("/")[2] else f"{base}:latest"},
            headers={"X-Registry-Auth": credentials} if credentials else {},
            silence=SILENCE_S,
        ):
            pass
    except OSError as error:
        hint = "connect to a registry, or name an image that is here by `--base`"
        raise MissingDependencyError(f"`{base}` cannot be pulled: {told(error)}", hint) from error


def load(engine: DockerClient, data: IO[bytes], tag: str, changes: Sequence[str]) -> None:
    """Makes an image of a tar file.

    Args:
        engine: The container engine.
        data: The root filesystem.
        tag: What to call the image.
        changes: Lines of a Dockerfile that need no build: its environment, user, labels.

    Raises:
        MissingDependencyError: The engine refuses it.
    """
    from docker.utils import parse_repository_tag

    repository, version = parse_repository_tag(tag)
    where = {"fromSrc": "-", "repo": repository, "tag": version or "latest", "changes": changes}
    try:
        for _ in create(engine, where, {"Content-Type": "application/x-tar"}, BUILD_S, data):
            pass
    except OSError as error:
        raise MissingDependencyError(
            f"`{tag}` cannot be imported: {told(error)}", "look at the engine's log"
        ) from error


def create(
    engine: DockerClient, where: Mapping[str, Any], headers: Mapping[str, str], silence: float, data: Any = None
) -> Iterator[dict[str, Any]]:
    """Pulls or imports an image, and yields the engine's progress. Unlike the SDK's way, with a clock.

    Raises:
        OSError: It refuses, or says nothing for `silence` seconds.
    """
    api = engine.api
    url = f"{api.base_url}/v{api.api_version}/images/create"
    with api.post(url, params=where, headers=headers, data=data, stream=True, timeout=silence) as answer:
        if not answer.ok:
            raise OSError(said_in(answer.content))
        for line in answer.iter_lines():
            event = json.loads(line)
            if "error" in event:
                raise OSError(event["error"])
            yield event


def said_in(body: bytes) -> str:
    """The message in a refusal of the engine."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")


def told(error: Exception) -> str:
    """An error of the engine or of the way to it, on one line."""
    text = (
        "no word in time" if "timed out" in str(error).lower() else getattr(error, "explanation", "") or reason(error)
    )
    return " ".join(str(text).split())


def drop(engine: DockerClient, image: str) -> None:
    """Removes the name or the whole of an image, unless it is in use or not there."""
    from docker.errors import APIError

    with suppress(APIError):
        engine.images.remove(image)
