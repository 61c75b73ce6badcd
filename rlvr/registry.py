"""Who provides what: verifiers, tasks, shapers and sandboxes, ours and those of plugins, by name.

A plugin is a module with hook implementations (`rlvr.hookspecs`). It comes from one of three places, and all
go through the same hooks and checks:

    built-in      the modules in BUILTINS
    installed     a distribution with an entry point in the group `rlvr`
    file          a Python file given with `--plugin` or to `load_plugin`

An installed plugin that fails (its import, a hook that raises or returns something else than a list of its
kind) is isolated: it is listed in `Registry.broken`, and only using its name is an error. What can only be a
mistake of its author, an unknown hook or a name that is taken, is an error at once and says who. A plugin
file was asked for, so that whatever is wrong with it is an error at once.

`RLVR_DISABLE_PLUGINS=1` leaves out all installed plugins; a comma list leaves out those entry points or
distributions.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from rlvr import hookspecs
from rlvr.errors import ConfigError, PluginError, RlvrError, UnknownNameError, nearest
from rlvr.taskfile import NAME, load_toml
from rlvr.types import Completion, Kit, Sample, Sandbox, Task, Verdict

BUILTINS = ("rlvr.shaping", "rlvr_sandboxes", "rlvr_tasks", "rlvr_verifiers")
GROUP = "rlvr"
DISABLE = "RLVR_DISABLE_PLUGINS"

_NOT_OPTIONS = {"name", "prompt", "answer"}  # `rlvr.verify` has its own use for these keywords
_FLAGS = {"debug", "help", "json", "plugin", "sandbox", "timeout", "version"}
"""Flags of `rlvr verify`, which could not pass references or options on under these names.

An option may be called `timeout`: the flag goes to the verifier then.
"""


# What the decorators make


@dataclass(frozen=True, eq=False)
class VerifierSpec:
    """A verifier and what is known of it. Calling it calls the function.

    Attributes:
        name: How tasks and the command line call it.
        fn: The function, called with `(completion, sample)` and perhaps a sandbox and options.
        doc: Its whole docstring.
        summary: The docstring's first line.
        timeout: Seconds of wall clock that it wants; None takes the scorer's.
        reference: What the caller must give, such as `("answer",)`.
        optional: What the caller may give besides.
        wants_sandbox: Whether it takes a sandbox as its third argument.
        options: Its keyword-only parameters with their defaults.
        origin: Who registered it.
        gold: What a perfect completion for a sample looks like; None takes the answer as it stands.
        spoil: What a nearly perfect one that is wrong looks like, or None for a sample that it cannot spoil.
        kit: What `rlvr verifiers check` holds it to.
        reply: What the environment says to a completion, called like `fn`; None when there is nothing more to say.
        needs_sandbox: Which samples need a sandbox; None for all of them, where it takes one at all.
        learned: Whether it checks nothing, but asks a reward model that the scorer serves: the folder in its option
            `model`, in whose place it gets the server's address.
    """

    name: str
    fn: Callable[..., Verdict | bool | float]
    doc: str = ""
    summary: str = ""
    timeout: float | None = None
    reference: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    wants_sandbox: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    gold: Callable[[Sample], str] | None = None
    spoil: Callable[[Sample], str | None] | None = None
    kit: Callable[[], Kit] | None = None
    reply: Callable[..., str | None] | None = None
    needs_sandbox: Callable[[Sample], bool] | None = None
    learned: bool = False

    def runs_code(self, sample: Sample) -> bool:
        """Whether a sandbox is needed for this sample."""
        return self.wants_sandbox and (self.needs_sandbox is None or self.needs_sandbox(sample))

    def __call__(self, completion: Completion, sample: Sample, *args: Any, **options: Any) -> Verdict | bool | float:
        return self.fn(completion, sample, *args, **options)


@dataclass(frozen=True, eq=False)
class ShaperSpec:
    """A shaper: what to pay for a verdict.

    Attributes:
        name: How settings call it.
        fn: The function, called with `(verdict, completion)` and options.
        summary: One line for listings.
        options: Its keyword-only parameters with their defaults.
        outcome: What it pays for a verdict whatever the length; None where it pays by nothing else.
        origin: Who registered it.
    """

    name: str
    fn: Callable[..., float]
    summary: str = ""
    origin: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    outcome: Callable[[Verdict], float] | None = None

    def __call__(self, verdict: Verdict, completion: Completion, **options: Any) -> float:
        """The reward, a finite number.

        Raises:
            ValueError: If the verdict is missing data, which has no reward, or the reward is not finite.
        """
        if not verdict.valid:
            raise ValueError(f"the verdict is {verdict.status}: missing data has no reward")
        reward = float(self.fn(verdict, completion, **{**self.options, **options}))
        if not math.isfinite(reward):
            raise ValueError(f"the shaper `{self.name}` returned {reward}")
        return reward

    def with_options(self, given: Mapping[str, Any]) -> ShaperSpec:
        """This shaper with other defaults.

        Raises:
            ConfigError: It has no such option, or the value is not of the kind of the default.
        """
        for option, value in given.items():
            if option not in self.options:
                near = nearest(option, self.options)
                known = ", ".join(f"`{name}`" for name in self.options) or "none"
                hint = f"did you mean `{near}`? Known: {known}" if near else f"known: {known}"
                raise ConfigError(f"the shaper `{self.name}` has no option `{option}`", hint)
            default = self.options[option]
            kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
            fits = type(value) is type(default) or (type(default) is float and type(value) is int)
            if not fits or (isinstance(value, (int, float)) and not abs(value) < 1e300):
                wanted = kinds.get(type(default), f"a `{type(default).__name__}`")
                raise ConfigError(
                    f"the option `{option}` of the shaper `{self.name}` is `{value}`, but must be {wanted}",
                    f"its default is `{default}`",
                )
        return replace(self, options={**self.options, **given})


@dataclass(frozen=True, eq=False)
class SandboxSpec:
    """A factory of sandboxes.

    Attributes:
        name: How settings call it.
        fn: The factory.
        summary: One line for listings.
        safe: Whether untrusted code may run in what it makes.
        ready: Given the settings, raises `MissingDependencyError` when this machine cannot run it; None when it always
            can.
        options: The factory's keyword-only parameters and their defaults.
        origin: Who registered it.
    """

    name: str
    fn: Callable[..., Sandbox]
    summary: str = ""
    safe: bool = True
    ready: Callable[[Mapping[str, Any]], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    def __call__(self, settings: Mapping[str, Any] | None = None) -> Sandbox:
        """A new sandbox; the caller closes it.

        Args:
            settings: Options of sandboxes by name; those that the factory does not take are left out.

        Raises:
            PluginError: If the factory returned something that is not a sandbox.
        """
        made = self.fn(**{name: value for name, value in (settings or {}).items() if name in self.options})
        if not isinstance(made, Sandbox):
            raise PluginError(
                f"the sandbox `{self.name}` ({self.origin}) made a `{type(made).__name__}`, not a sandbox",
                "a sandbox has a `name`, `run` and `close`; see `rlvr.Sandbox`",
            )
        return made


def verifier(
    name: str,
    *,
    timeout: float | None = None,
    reference: Sequence[str] = (),
    optional: Sequence[str] = (),
    gold: Callable[[Sample], str] | None = None,
    spoil: Callable[[Sample], str | None] | None = None,
    kit: Callable[[], Kit] | None = None,
    reply: Callable[..., str | None] | None = None,
    needs_sandbox: Callable[[Sample], bool] | None = None,
    learned: bool = False,
) -> Callable[[Callable[..., Verdict | bool | float]], VerifierSpec]:
    """Makes a verifier of a function `(completion, sample)` or `(completion, sample, sandbox)`.

    Keyword-only parameters are options, which a task or a caller may set; each needs a default. An option may have the
    name of a reference: a task gives there what holds for all its samples, and what a sample has of its own wins.

    Args:
        name: Lower-case words joined by hyphens.
        timeout: Seconds of wall clock for one verification, where the scorer's default does not suit.
        reference: Names that `rlvr.verify` must be given, such as `("answer",)`.
        optional: Names that it may be given besides, for the documentation and against misspelt ones.
        gold: Writes a perfect completion for a sample, for `rlvr tasks check`; without it, the sample's answer
            as text is one.
        spoil: Writes a completion that is nearly perfect and wrong, which must fail in `rlvr tasks check`; None where
            it knows none for a sample.
        kit: Makes the labelled cases, hacks and laws that `rlvr verifiers check` holds it to.
        reply: Answers a completion for the environment, in tasks of several turns. It has the parameters of the
            verifier, and returns the text that the policy reads next, or None when the last turn was its last.
        needs_sandbox: Says of a sample whether it needs the sandbox; for the others, None comes in its place.
        learned: It asks a reward model. The scorer serves the one in the folder that the option `model` names, and
            hands the verifier the address in place of the folder.

    Raises:
        PluginError: If the name, an argument or the function's parameters do not fit.
    """
    _check_name("verifier", name)
    for what, keys in (("reference", reference), ("optional", optional)):
        if not isinstance(keys, (list, tuple)) or not all(str(key).isidentifier() for key in keys):
            raise PluginError(f"verifier `{name}`: `{what}` must be a list of names", f'write `{what}=["answer"]`')
    for key in (*reference, *optional):
        if key in _FLAGS:
            raise PluginError(f"verifier `{name}`: the reference `{key}` is a flag of `rlvr verify`", "rename it")
    if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout < math.inf):
        raise PluginError(f"verifier `{name}`: `timeout` is `{timeout!r}`", "give seconds above 0, or leave it out")
    if gold is not None and not callable(gold):
        raise PluginError(f"verifier `{name}`: `gold` is `{gold!r}`", "give a function `(sample) -> str`")
    if spoil is not None and not callable(spoil):
        raise PluginError(f"verifier `{name}`: `spoil` is `{spoil!r}`", "give a function `(sample) -> str`")
    for what, given in (("kit", kit), ("reply", reply), ("needs_sandbox", needs_sandbox)):
        if given is not None and not callable(given):
            raise PluginError(f"verifier `{name}`: `{what}` is `{given!r}`", "give a function")

    def decorate(fn: Callable[..., Verdict | bool | float]) -> VerifierSpec:
        positional, options = _parameters("verifier", name, fn)
        if len(positional) not in (2, 3) or positional[2:] not in ([], ["sandbox"]):
            raise PluginError(
                f"verifier `{name}`: it takes ({', '.join(positional)})",
                "take `(completion, sample)`, and `sandbox` third if it runs code; options are keyword-only",
            )
        for option in options:
            if option in _FLAGS - {"timeout"}:
                raise PluginError(f"verifier `{name}`: the option `{option}` is a flag of `rlvr verify`", "rename it")
            if option in _NOT_OPTIONS:
                raise PluginError(
                    f"verifier `{name}`: the option `{option}` has the name of a reference",
                    "rename it; references come in `sample`",
                )
        if reply is not None and _parameters("verifier", name, reply) != (positional, options):
            raise PluginError(f"verifier `{name}`: `reply` has other parameters than the verifier", "take the same")
        if needs_sandbox is not None and len(positional) != 3:
            raise PluginError(f"verifier `{name}`: `needs_sandbox` without a sandbox", "take `sandbox` third")
        if learned and not isinstance(options.get("model"), str):
            raise PluginError(f"verifier `{name}`: learned without an option `model`", 'take `*, model: str = ""`')
        doc = inspect.getdoc(fn) or ""
        return VerifierSpec(
            name,
            fn,
            doc,
            _first_line(doc),
            timeout,
            tuple(reference),
            tuple(optional),
            wants_sandbox=len(positional) == 3,
            options=options,
            gold=gold,
            spoil=spoil,
            kit=kit,
            reply=reply,
            needs_sandbox=needs_sandbox,
            learned=learned,
        )

    return decorate


def shaper(
    name: str, *, outcome: Callable[[Verdict], float] | None = None
) -> Callable[[Callable[..., float]], ShaperSpec]:
    """Makes a shaper of a pure function `(verdict, completion) -> float`.

    Keyword-only parameters are options, which `reward.options` sets; each needs a default. One that is called `limit`
    and not set is the run's `sampler.max_tokens`.

    Args:
        name: Lower-case words joined by hyphens.
        outcome: For a shaper that pays by length as well: what it pays for the verdict alone. A group whose outcomes
            are all the same has nothing to learn from, however long its completions are.

    Raises:
        PluginError: If the name or the function's parameters do not fit.
    """
    _check_name("shaper", name)

    if outcome is not None and not callable(outcome):
        raise PluginError(f"shaper `{name}`: `outcome` is `{outcome!r}`", "give a function `(verdict) -> float`")

    def decorate(fn: Callable[..., float]) -> ShaperSpec:
        positional, options = _parameters("shaper", name, fn)
        if len(positional) != 2:
            raise PluginError(
                f"shaper `{name}`: its parameters do not fit", "take `(verdict, completion)`; options are keyword-only"
            )
        return ShaperSpec(name, fn, _first_line(inspect.getdoc(fn) or ""), options=options, outcome=outcome)

    return decorate


def sandbox(
    name: str, *, safe: bool = True, ready: Callable[[Mapping[str, Any]], None] | None = None
) -> Callable[[Callable[..., Sandbox]], SandboxSpec]:
    """Makes a sandbox of a function (or class) that returns one.

    Its parameters are options: keyword-only, each with a default. It is given those of the settings `sandbox.*` whose
    names it has.

    Args:
        name: Lower-case words joined by hyphens.
        safe: Whether it holds untrusted code. One that is not safe is only used when asked for by name.
        ready: Called with the settings `sandbox.*` before it is chosen; raises `MissingDependencyError` when this
            machine cannot run it.

    Raises:
        PluginError: If the name or the factory's parameters do not fit.
    """
    _check_name("sandbox", name)

    def decorate(fn: Callable[..., Sandbox]) -> SandboxSpec:
        positional, options = _parameters("sandbox", name, fn)
        if positional:
            raise PluginError(
                f"sandbox `{name}`: its factory takes ({', '.join(positional)})", "take keyword-only options or nothing"
            )
        return SandboxSpec(name, fn, _first_line(inspect.getdoc(fn) or ""), safe, ready, options)

    return decorate


def _check_name(kind: str, name: Any) -> None:
    if callable(name):
        raise PluginError(f"`@{kind}` needs a name", f'write `@{kind}("my-{kind}")`')
    if not isinstance(name, str) or not NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-0123456789") or f"my-{kind}"
        raise PluginError(
            f"`{name}` cannot name a {kind}", f"use lower-case words joined by hyphens, such as `{better}`"
        )


def _parameters(kind: str, name: str, fn: Any) -> tuple[list[str], dict[str, Any]]:
    """The names of the positional parameters, and the keyword-only ones with their defaults."""
    if not callable(fn):
        raise PluginError(f"{kind} `{name}`: a `{type(fn).__name__}` cannot be called", "decorate a function")
    if inspect.iscoroutinefunction(fn):
        raise PluginError(f"{kind} `{name}`: it is `async`", "write a plain function")
    positional: list[str] = []
    options: dict[str, Any] = {}
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise PluginError(f"{kind} `{name}`: it takes `{parameter}`", "write the parameters out")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(parameter.name)
        elif parameter.default is parameter.empty:
            raise PluginError(f"{kind} `{name}`: the option `{parameter.name}` has no default", "give it one")
        else:
            options[parameter.name] = parameter.default
    return positional, options


def _first_line(doc: str) -> str:
    return doc.strip().partition("\n")[0]


# The registry


@dataclass(frozen=True)
class BrokenPlugin:
    """An installed plugin that could not be used.

    Attributes:
        name: Its entry point.
        distribution: Name and version of what was installed, such as `rlvr-example 0.1`.
        cause: One line: the error, with file and line where known.
        traceback: The whole traceback, as text.
    """

    name: str
    distribution: str
    cause: str
    traceback: str

    def __str__(self) -> str:
        return f"the plugin `{self.name}` of {self.distribution} is broken: {self.cause}"


Spec = VerifierSpec | ShaperSpec | SandboxSpec
Entry = TypeVar("Entry", VerifierSpec, ShaperSpec, SandboxSpec, Task)


@dataclass(frozen=True, eq=False)
class Registry:
    """Everything that can be named, made by `Registry.load`.

    Attributes:
        verifiers, tasks, shapers, sandboxes: What there is, by name.
        broken: Installed plugins that were isolated.
        plugin_files: The plugin files, as absolute paths; a worker process loads the same ones.
    """

    verifiers: dict[str, VerifierSpec] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    shapers: dict[str, ShaperSpec] = field(default_factory=dict)
    sandboxes: dict[str, SandboxSpec] = field(default_factory=dict)
    broken: tuple[BrokenPlugin, ...] = ()
    plugin_files: tuple[str, ...] = ()

    @classmethod
    def load(cls, plugin_files: Iterable[str | os.PathLike[str]] = ()) -> Registry:
        """Built-ins, installed plugins, then these files.

        Raises:
            PluginError: A plugin file that fails, an unknown hook, a name that is taken.
        """
        files = tuple(dict.fromkeys(_absolute(path) for path in plugin_files))
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        registry = cls(plugin_files=files)
        broken = []
        for source in [*_builtins(), *_installed(os.environ.get(DISABLE, "")), *map(_file, files)]:
            try:
                plugin = source.load()
            except (Exception, SystemExit) as error:
                broken.append(source.failed(error))
                continue
            _register(manager, plugin, source)
            try:
                found = list(_contributions(manager, plugin, source))
            except (Exception, SystemExit) as error:
                broken.append(source.failed(error))
                continue
            for kind, item in found:
                registry._add(kind, item)
        return replace(registry, broken=tuple(broken))

    def verifier(self, name: str) -> VerifierSpec:
        """The verifier of that name.

        Raises:
            UnknownNameError: There is none.
            PluginError: It is the name of a broken plugin.
        """
        return self._find("verifier", self.verifiers, name)

    def task(self, name_or_path: str | os.PathLike[str], data: str | os.PathLike[str] = "") -> Task:
        """The task of that name, or the one in that TOML file; over a local copy of its data where `data` is given.

        Raises:
            UnknownNameError: There is none of that name.
            PluginError: It is the name of a broken plugin.
            ConfigError: The TOML file does not exist or cannot be used, or the task takes no data.
        """
        name = os.fspath(name_or_path)
        task = load_toml(name) if name.endswith(".toml") else self._find("task", self.tasks, name)
        if not os.fspath(data):
            return task
        if task.with_data is None:
            raise ConfigError(f"the task `{name}` makes its own data, so `--data {data}` means nothing", "leave it out")
        return task.with_data(data)

    def shaper(self, name: str) -> ShaperSpec:
        """The shaper of that name. Raises like `verifier`."""
        return self._find("shaper", self.shapers, name)

    def sandbox(self, name: str) -> SandboxSpec:
        """The sandbox of that name. Raises like `verifier`."""
        return self._find("sandbox", self.sandboxes, name)

    def _find(self, kind: str, table: dict[str, Entry], name: str) -> Entry:
        if name in table:
            return table[name]
        for plugin in self.broken:
            if name in (plugin.name, plugin.distribution.split()[0]):
                error = PluginError(str(plugin), f"mend or uninstall `{plugin.distribution.split()[0]}`")
                error.add_note(plugin.traceback)
                raise error
        unknown = UnknownNameError(kind, name, table)
        if kind == "task" and Path(name).is_file():
            unknown.hint += "; a task file ends in `.toml`"
        for plugin in self.broken:
            unknown.hint += f"; {plugin}"
        raise unknown

    def _add(self, kind: str, item: Any) -> None:
        table: dict[str, Any] = getattr(self, _HOOKS[kind].table)
        if item.name in table:
            first, second = _owner(table[item.name]), _owner(item)
            raise PluginError(
                f"the {_HOOKS[kind].what} `{item.name}` is registered twice: {first}, {second}",
                "rename one" + _way_out(second),
            )
        table[item.name] = item


@dataclass(frozen=True)
class _Hook:
    what: str  # what one item of the hook's list is called
    kind: type[Any]
    table: str  # the attribute of Registry that holds them


_HOOKS = {
    "rlvr_verifiers": _Hook("verifier", VerifierSpec, "verifiers"),
    "rlvr_tasks": _Hook("task", Task, "tasks"),
    "rlvr_shapers": _Hook("shaper", ShaperSpec, "shapers"),
    "rlvr_sandboxes": _Hook("sandbox", SandboxSpec, "sandboxes"),
}


def _owner(item: Spec | Task) -> str:
    return item.source if isinstance(item, Task) else item.origin


def _way_out(owner: str) -> str:
    found = re.search(r"\(entry point (.+)\)$", owner)
    return f"; `{DISABLE}={found[1]}` leaves that plugin out" if found else ""


# Where plugins come from


@dataclass(frozen=True)
class _Source:
    """One plugin before it is imported. `entry` is set for installed plugins, `path` for files."""

    origin: str
    load: Callable[[], Any]
    entry: importlib.metadata.EntryPoint | None = None
    path: str | None = None

    def failed(self, error: BaseException) -> BrokenPlugin:
        """The record of a broken plugin.

        Raises:
            PluginError: If this plugin is not one that may be isolated.
        """
        cause = _cause(error, self.path)
        if self.entry is None:
            hint = error.hint if isinstance(error, RlvrError) else "`--debug` shows the traceback"
            what = self.origin if self.path else "what comes with rlvr"
            raise PluginError(f"cannot load {what}: {cause}", hint) from error
        return BrokenPlugin(
            self.entry.name, _distribution(self.entry), cause, "".join(traceback.format_exception(error))
        )


def _builtins() -> Iterator[_Source]:
    for module in BUILTINS:
        yield _Source("built-in", functools.partial(importlib.import_module, module))


def _installed(disabled: str) -> Iterator[_Source]:
    """The entry points of the group, by name, less those that `RLVR_DISABLE_PLUGINS` names."""
    switch = disabled.strip().lower()
    if switch in ("1", "all", "true", "yes"):
        return
    left_out = set() if switch in ("0", "false", "no") else {_normal(name) for name in switch.split(",")}
    entries = importlib.metadata.entry_points(group=GROUP)
    for entry in sorted(entries, key=lambda entry: (entry.name, _distribution(entry))):
        if not left_out & {_normal(entry.name), _normal(_distribution(entry).split()[0])}:
            yield _Source(f"plugin {_distribution(entry)} (entry point {entry.name})", entry.load, entry=entry)


def _file(path: str) -> _Source:
    shown = os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
    return _Source(f"file {shown}", functools.partial(_import_file, path), path=path)


def _import_file(path: str) -> Any:
    """The module made from a plugin file.

    Its name in `sys.modules` depends on path and content alone: loading the file again gives the same module,
    an edited file gives a new one, and worker processes agree on the name.
    """
    if not path.endswith(".py"):
        raise PluginError("it is not a Python file", "give the path of a `.py` file")
    try:
        source = Path(path).read_bytes()
    except OSError as error:
        raise PluginError(f"{error.strerror}", "give the path of a `.py` file") from None
    digest = hashlib.sha256(path.encode() + b"\0" + source).hexdigest()[:12]
    name = f"rlvr_plugin_{Path(path).stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # there is one for every `.py`
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown-distribution"


def _normal(name: str) -> str:
    """Distribution names compare without case and with `-`, `_` and `.` alike."""
    return re.sub(r"[-_.]+", "-", name.strip().lower())


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(Path(path).expanduser().resolve())


def _cause(error: BaseException, path: str | None) -> str:
    """One line: the error's type and message, and the last line of the plugin that led to it."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    if not isinstance(error, RlvrError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    machinery = (__file__, os.path.dirname(importlib.__file__), "<frozen ")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    own = [f for f in frames if f.filename == path] or frames
    return f"{text} ({own[-1].filename}:{own[-1].lineno})" if own else text


# From a plugin to what it provides


def _register(manager: pluggy.PluginManager, plugin: Any, source: _Source) -> None:
    """Hands the plugin to pluggy.

    Raises:
        PluginError: A hook that does not exist, takes arguments, or lacks its decorator.
    """
    help = "`rlvr.hookspecs` has the hooks" + _way_out(source.origin)
    if manager.is_registered(plugin):
        raise PluginError(f"{source.origin} is the same module as {manager.get_name(plugin)}", help)
    try:
        manager.register(plugin, name=source.origin if source.origin != "built-in" else plugin.__name__)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"a hook of {source.origin} does not fit: {' '.join(str(error).split())}", help) from None
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        optional = all(impl.optionalhook for impl in caller.get_hookimpls() if impl.plugin is plugin)
        if not caller.has_spec() and not optional:
            near = nearest(caller.name, _HOOKS) or nearest(f"rlvr_{caller.name}", _HOOKS)
            raise PluginError(
                f"{source.origin} implements the hook `{caller.name}`, which does not exist",
                f"did you mean `{near}`? {help}" if near else help,
            )
    implemented = {caller.name for caller in callers}
    for hook in _HOOKS:
        if hook not in implemented and inspect.isroutine(getattr(plugin, hook, None)):
            raise PluginError(
                f"{source.origin} has a function `{hook}` that is no hook", "decorate it with `@hookimpl`"
            )


def _contributions(manager: pluggy.PluginManager, plugin: Any, source: _Source) -> Iterator[tuple[str, Spec | Task]]:
    """`(hook, item)` for everything the plugin's hooks return, checked, each item knowing its origin."""
    for caller in manager.get_hookcallers(plugin) or []:
        for impl in caller.get_hookimpls():
            if impl.plugin is plugin and caller.has_spec():
                items = impl.function()
                if not isinstance(items, (list, tuple)):
                    raise PluginError(f"`{caller.name}` returned `{_short(items)}`", "return a list")
                for item in items:
                    yield caller.name, _checked(_HOOKS[caller.name], item, plugin, source)


def _checked(hook: _Hook, item: Any, plugin: Any, source: _Source) -> Spec | Task:
    """The item with its origin filled in. The path of a TOML task starts where the plugin's file lies."""
    if hook.kind is Task and isinstance(item, (str, os.PathLike)):
        return load_toml(Path(getattr(plugin, "__file__", None) or ".").parent / item, source=source.origin)
    if not isinstance(item, hook.kind):
        made = "`rlvr.Task` objects or paths" if hook.kind is Task else f'what `@{hook.what}("name")` makes'
        raise PluginError(f"`rlvr_{hook.table}` lists `{_short(item)}`, which is no {hook.what}", f"list {made}")
    if isinstance(item, Task):
        _check_name("task", item.name)
        return replace(item, source=source.origin)
    return replace(item, origin=source.origin)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


# The registry of this process

_lock = threading.RLock()
_current: Registry | None = None


def registry() -> Registry:
    """The registry of this process, loaded on first use. Safe from any thread.

    Raises:
        PluginError: As `Registry.load` does.
    """
    global _current
    with _lock:
        if _current is None:
            _current = Registry.load()
        return _current


def load_plugin(path: str | os.PathLike[str]) -> None:
    """Adds a plugin file to the registry of this process; a file that is already there changes nothing.

    Raises:
        PluginError: If the file fails. The registry stays as it was.
    """
    global _current
    with _lock:
        files = registry().plugin_files
        if _absolute(path) not in files:
            _current = Registry.load([*files, path])
