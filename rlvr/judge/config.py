"""The settings of `rlvr pairs`: a frozen dataclass, resolved as those of `rlvr train` are, without torch.

Precedence, highest first: flag, environment (`RLVR_STAGE_PAIRS_SAMPLES`), `--config` files (the last one wins), the
model that the task names, the defaults below.
"""

from __future__ import annotations

import json
import math
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rlvr.config import STAGE_PREFIX, Layer, fold, from_environment, from_toml, setting, to_toml
from rlvr.errors import ConfigError
from rlvr.registry import load_plugin, registry
from rlvr.runlog import Run
from rlvr.settings import absolute, in_place

COMMAND = "rlvr pairs"
LOCAL = "local"
"""The address of a judge that is a folder here, where others have one of a server."""

FREE = {
    "device",
    "plugin",
    "cache",
    "concurrency",
    "batch_size",
    "timeout",
    "retries",
    "backoff",
    "missing_limit",
    "unclear_limit",
    "price",
    "policy_key",
    "critic_key",
    "judge_key",
}
"""Settings that may be changed when a run is resumed: none of them is part of a question."""

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
KEY = re.compile(r"[!-~]+")
"""What a key is made of: printable ASCII without spaces, as a header takes it."""


@dataclass(frozen=True)
class PairsConfig:
    """`rlvr pairs`."""

    task: str = setting("", "A task whose train split gives the prompts, and whose verifier the judge is held against.")
    data: str = setting(
        "",
        "Prompts: a file with a column `prompt`, and perhaps `completions`, or `chosen` and `rejected` to be judged "
        "anew; or a run's directory, whose completions are judged.",
    )
    policy: str = setting("", "What writes completions: a model's name at `policy_url`, or a folder, or `starter`.")
    policy_url: str = setting("", "An OpenAI-compatible endpoint of the policy, such as `http://host:8000/v1`.")
    policy_key: str = setting("", "The NAME of the environment variable with the policy's API key.")
    samples: int = setting(2, "Completions of each prompt, where none are given.", low=2)
    compare: int = setting(1, "Pairs of completions compared for each prompt, drawn by the seed; 0 is all.", low=0)
    max_tokens: int = setting(512, "Tokens after which a completion is cut.", low=1)
    temperature: float = setting(1.0, "Softmax temperature of completions.", low=0)
    top_p: float = setting(1.0, "Nucleus mass kept; 1 keeps all.", low=1e-6, high=1)
    policy_options: tuple[str, ...] = setting((), "A further parameter of the policy's requests, as NAME=VALUE.")
    judge: tuple[str, ...] = setting((), "A judge: a model's name at its `judge_url`, or a folder.")
    judge_url: tuple[str, ...] = setting(
        (), "The endpoint of the judge at the same place, or one for all; `local` for a folder."
    )
    judge_key: tuple[str, ...] = setting(
        (), "The NAME of the environment variable with the judge's API key; one for all, or one each."
    )
    judge_max_tokens: int = setting(0, "Tokens of an answer; 0 is 16, or 1024 with `reasoning`.", low=0)
    judge_options: tuple[str, ...] = setting(
        (), "A further parameter of the judges' requests, as NAME=VALUE; `null` takes one out."
    )
    reasoning: bool = setting(False, "Have judges give their reasons before they answer, which takes more tokens.")
    agree: Literal["all", "majority"] = setting(
        "all", "Of several judges, all must prefer the same completion, or more than half of them."
    )
    principles: str = setting(
        "", "A file with what is good: one a line or paragraph, or TOML with a list `principles`; empty takes ours."
    )
    by: Literal["one", "all"] = setting(
        "one", "What a comparison goes by: one principle, drawn by the seed, or the whole list at once."
    )
    revise: int = setting(
        0, "Rounds of critique and revision; the pair is then the revision over the response it began with.", low=0
    )
    critic: str = setting("", "What criticises and revises, as `policy`; empty is the policy.")
    critic_url: str = setting("", "An OpenAI-compatible endpoint of the critic.")
    critic_key: str = setting("", "The NAME of the environment variable with the critic's API key.")
    verify: bool = setting(True, "Hold the judge against the task's verifier, where the prompts are a task's.")
    limit: int = setting(0, "Prompts used at most, the first ones; 0 takes all.", low=0)
    seed: int = setting(0, "Seed of sampling, of the principles and of what is compared.", low=0, high=2**32 - 1)
    out: str = setting("", "The run's directory; empty makes one under `runs/`.")
    cache: str = setting("", "A file of answers that runs share: what is in it is not asked again.")
    concurrency: int = setting(8, "Requests under way at once at most, to each model.", low=1)
    batch_size: int = setting(32, "Requests that a local model answers together at most.", low=1)
    timeout: float = setting(120.0, "Seconds of wall clock for one request.", low=0.001)
    retries: int = setting(5, "Times that a request is sent again, when it fails in a way that may pass.", low=0)
    backoff: float = setting(1.0, "Seconds before the first of these; they double, up to a minute.", low=0)
    missing_limit: float = setting(0.2, "Share of requests without an answer above which the run stops.", low=0, high=1)
    unclear_limit: float = setting(
        0.5, "Share of a judge's answers that cannot be read above which the run stops.", low=0, high=1
    )
    price: tuple[str, ...] = setting(
        (), "What a model costs per million tokens, as NAME=IN,OUT, such as `gpt-4o-mini=0.15,0.6`."
    )
    bad_rows: Literal["refuse", "skip"] = setting(
        "refuse", "What to do with rows that cannot be used: stop and name them, or leave them out and count them."
    )
    device: str = setting("", "Of local models: `cpu`, `cuda`, `mps`; empty takes the best there is.")
    plugin: tuple[str, ...] = setting((), "Plugin files to load.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is asked.

    Attributes:
        model: Its name at the endpoint, or a folder or starter.
        url: The endpoint; empty for a local model.
        key: The name of the environment variable with the API key; empty for none.
    """

    model: str
    url: str = ""
    key: str = ""


@dataclass(frozen=True)
class ResolvedPairs:
    """The config of a run and, for each name, where its value came from."""

    config: PairsConfig
    origins: Mapping[str, str]

    def toml(self) -> str:
        """The whole config as TOML, with the origin of each value."""
        return to_toml(self.config, self.origins)


def resolve_pairs(
    flags: Layer,
    config_files: Sequence[str | os.PathLike[str]] = (),
    resume: str | os.PathLike[str] | None = None,
) -> ResolvedPairs:
    """The config of `rlvr pairs` from all its layers.

    Args:
        flags: The strongest layer, from the command line or from keywords.
        config_files: `--config` files, the last one wins.
        resume: A run to go on with; its config takes the place of all weaker layers.

    Raises:
        ConfigError: An unknown setting, a value that cannot be used, or one that a resumed run keeps.
        UnknownNameError: There is no such task.
        DataError: `resume` is not a run of `rlvr pairs`.
    """
    if resume is not None:
        if fixed := sorted(set(flags) - FREE):
            raise ConfigError(
                f"a resumed run keeps its `{fixed[0]}`",
                "its answers are to the questions that it began with; start a new run to change it",
            )
        layers: list[tuple[str, Layer]] = [("resumed run", from_toml(Run(resume, COMMAND).path / "config.toml"))]
    else:
        environment = from_environment(os.environ, PairsConfig, f"{STAGE_PREFIX}PAIRS_", COMMAND)
        layers = [*((f"config {path}", from_toml(path)) for path in config_files), ("environment", environment)]
    config, origins = fold(PairsConfig, [*layers, ("flag", flags)], COMMAND)
    for plugin in config.plugin:
        load_plugin(plugin)
    if config.task and not (config.policy or config.policy_url):
        task = registry().task(config.task)
        if model := task.defaults.get("model"):
            config, origins = replace(config, policy=str(model)), {**origins, "policy": f"task {task.name}"}
    check(config)
    return ResolvedPairs(with_absolute_paths(config), origins)


def check(config: PairsConfig) -> None:
    """Refuses what cannot work, before anything is asked.

    Raises:
        ConfigError: Says which setting.
    """
    if bool(config.task) == bool(config.data):
        both = "both `task` and `data` are given" if config.task else "neither `task` nor `data` is given"
        raise ConfigError(f"{both}", "prompts come from one of them: `--task math`, or `--data FILE.jsonl`")
    if not config.judge:
        raise ConfigError("no judge is named", "`--judge NAME --judge-url http://host:8000/v1`, or `--judge FOLDER`")
    if config.policy_url and not config.policy:
        raise ConfigError("`policy_url` has no `policy`", "give the model's name there: `--policy NAME`")
    if config.critic_url and not config.critic:
        raise ConfigError("`critic_url` has no `critic`", "give the model's name there: `--critic NAME`")
    if config.temperature == 0 and not config.revise and (config.task or not config.data):
        raise ConfigError(
            "`temperature` is 0, which makes all completions of a prompt the same", "set it above 0; 1 is usual"
        )
    for place in (*judges(config), policy(config), critic(config)):
        if place is not None:
            check_place(place)
    parameters(config.policy_options, "policy_options")
    parameters(config.judge_options, "judge_options")
    prices(config.price)


def check_place(place: Place) -> None:
    """Refuses an address that is none, and a key where only a name belongs; neither is ever printed.

    Raises:
        ConfigError: Says what to give.
    """
    if place.key and not VARIABLE.fullmatch(place.key):
        raise ConfigError(
            "a key setting is not the name of an environment variable",
            "keys are never given as flags: `export JUDGE_KEY=...`, then `--judge-key JUDGE_KEY`",
        )
    key = api_key(place)
    if place.key and not key:
        raise ConfigError(f"the environment variable `{place.key}` is not set", f"export {place.key}=...")
    if key and not KEY.fullmatch(key):
        raise ConfigError(
            f"the key in the environment variable `{place.key}` has characters that no key has",
            "only printable ASCII without spaces goes into a header; copy the key anew",
        )
    if not place.url:
        return
    parts = split(place.url)
    if parts.username or parts.password:
        raise ConfigError(
            f"the address of `{place.model}` has a name or password in it",
            "keys come from the environment: `--judge-key NAME`",
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            f"the address of `{place.model}` has more than a path in it", "further parameters go with `--judge-options`"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"`{place.url}` is no address of a server", "give one such as `http://host:8000/v1`")


def judges(config: PairsConfig) -> list[Place]:
    """Where each judge is asked.

    Raises:
        ConfigError: There are not as many addresses or keys as judges, or a judge is named twice.
    """
    names, urls, keys = config.judge, config.judge_url or (LOCAL,), config.judge_key or ("",)
    for what, given in (("judge_url", urls), ("judge_key", keys)):
        if len(given) not in (1, len(names)):
            raise ConfigError(
                f"there are {len(names)} judges and {len(given)} of `{what}`", "give one for all, or one for each"
            )
    urls, keys = (given * len(names) if len(given) == 1 else given for given in (urls, keys))
    found = [
        Place(name) if url == LOCAL else Place(name, address(url), key)
        for name, url, key in zip(names, urls, keys, strict=True)
    ]
    if len({(place.model, place.url) for place in found}) < len(found):
        raise ConfigError(f"the judge `{found[0].model}` is given twice", "it would only agree with itself")
    return found


def api_key(place: Place) -> str:
    """The key of a place, without the space around it; empty for none."""
    return os.environ.get(place.key, "").strip() if place.key else ""


def address(url: str) -> str:
    """An endpoint's address as requests begin with it: `/v1` is understood where there is no path.

    Raises:
        ConfigError: It is no address.
    """
    plain = url.rstrip("/")
    return f"{plain}/v1" if plain and not split(plain).path else plain


def split(url: str) -> urllib.parse.SplitResult:
    """The parts of an address.

    Raises:
        ConfigError: It is none, or its port is no number from 0 to 65535.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018
    except ValueError:
        shown = "an address" if "@" in url or "?" in url else f"`{url}`"  # what may be a password is not printed
        raise ConfigError(
            f"{shown} is no address of a server", "give one such as `http://host:8000/v1`, its port at most 65535"
        ) from None
    return parts


def policy(config: PairsConfig) -> Place | None:
    """Where completions are asked for, if anywhere."""
    return Place(config.policy, address(config.policy_url), config.policy_key) if config.policy else None


def critic(config: PairsConfig) -> Place | None:
    """Where critiques and revisions are asked for, if anywhere."""
    if config.critic:
        return Place(config.critic, address(config.critic_url), config.critic_key)
    return policy(config)


def parameters(options: Sequence[str], setting: str) -> dict[str, Any]:
    """NAME=VALUE settings as parameters of a request; values are JSON where they can be, else text.

    Raises:
        ConfigError: One is not NAME=VALUE.
    """
    found: dict[str, Any] = {}
    for option in options:
        name, sign, text = option.partition("=")
        if not sign or not name.strip().isidentifier():
            raise ConfigError(f"`{setting}` has `{option}`, which is not NAME=VALUE", "such as `reasoning_effort=low`")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


def prices(given: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What a million tokens cost by model: those read, and those written.

    Raises:
        ConfigError: One is not NAME=IN,OUT with two numbers of at least 0.
    """
    found = {}
    for price in given:
        name, _, numbers = price.rpartition("=")
        try:
            read, written = (float(number) for number in numbers.split(","))
        except ValueError:
            read = written = math.nan
        if not name or not (0 <= read < math.inf and 0 <= written < math.inf):
            raise ConfigError(f"`price` has `{price}`, which is not NAME=IN,OUT", "such as `gpt-4o-mini=0.15,0.6`")
        found[name] = read, written
    return found


def with_absolute_paths(config: PairsConfig) -> PairsConfig:
    """The same with its files named so that the run can go on from any folder."""

    def model(name: str, url: str) -> str:
        return absolute(name) if not url and Path(name).expanduser().is_dir() else name

    named = zip(config.judge, judges(config), strict=True)
    return replace(
        config,
        task=in_place(config.task),
        data=absolute(config.data) if config.data and not config.data.startswith("hub:") else config.data,
        policy=model(config.policy, config.policy_url) if config.policy else "",
        critic=model(config.critic, config.critic_url) if config.critic else "",
        judge=tuple(model(name, place.url) for name, place in named),
        principles=absolute(config.principles) if config.principles else "",
        cache=absolute(config.cache) if config.cache else "",
        plugin=tuple(map(absolute, config.plugin)),
    )
