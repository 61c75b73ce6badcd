"""The TOML file of a task."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr import config
from rlvr.errors import ConfigError
from rlvr.taskfile.form import Form, Template, Zipped
from rlvr.taskfile.sources import Data, Sources, local_sources, sources_of
from rlvr.taskfile.table import Table
from rlvr.taskfile.verifier import verifier_of
from rlvr.types import Task

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""What tasks and everything else in the registry may be called: lower-case words joined by hyphens."""


def load_toml(path: str | os.PathLike[str], source: str | None = None) -> Task:
    """The task in a TOML file. Its data is read when samples are first asked for.

    Args:
        path: The file.
        source: What `Task.source` shall say; the path unless given.

    Raises:
        ConfigError: There is no such file, it is not TOML, or a key is missing, unknown or of the wrong type.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"there is no task file `{path}`", "`rlvr tasks` lists the tasks that have a name") from None
    except OSError as error:
        raise ConfigError(f"the task file `{path}` cannot be read: {error.strerror}", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` is not TOML: {error}", "`docs/guide/` shows a whole task file") from None

    top = Table(document, str(path))
    name = top.text("name")
    if not NAME.fullmatch(name):
        raise top.refuse("name", f"is `{name}`", "use lower-case words joined by hyphens")
    verifier, options = verifier_of(top)
    prompt = Template(top.text("prompt"), top, "prompt")
    system = top.text("system", None)
    if system is not None and "{{" in system:
        raise top.refuse("system", "has `{{`, but takes no columns", "put columns in `prompt`")
    version = top.take("version", int, "a whole number", 1)
    turns = top.take("turns", int, "a whole number", 1)
    if turns < 1:
        raise top.refuse("turns", f"is `{turns}`", "give at least 1")
    show_tools = top.take("show_tools", bool, "`true` or `false`", False)
    gold = Template(top.text("gold"), top, "gold") if "gold" in top.values else None
    description = top.text("description", "")
    defaults = _defaults(top)
    data = top.table("data")
    top.done()
    answer, after = _answer(data)
    form = Form(prompt, answer, after, data.text("id", None), _meta(data), gold)
    locate, splits = sources_of(data, file.parent)
    data.done()

    def over(locate: Callable[[], Sources]) -> Task:
        rows = Data(form, locate)
        return Task(
            name=name,
            verifier=verifier,
            load=rows.load,
            description=description,
            version=version,
            verifier_options=options,
            system=system,
            turns=turns,
            show_tools=show_tools,
            gold=rows.gold if gold else None,
            defaults=defaults,
            with_data=with_data,
            source=str(path) if source is None else source,
        )

    def with_data(copy: str | os.PathLike[str]) -> Task:
        sources = local_sources(Path(copy).expanduser(), splits)
        return over(lambda: sources)

    return over(locate)


def _defaults(top: Table) -> dict[str, Any]:
    values = config.flatten(top.take("defaults", dict, "a table of config values", {}))
    try:
        config.resolve([], values)
    except ConfigError as error:
        raise ConfigError(f"`{top.file}`: `defaults`: {error.message}", error.hint) from None
    return values


def _answer(data: Table) -> tuple[str | Template | None, str | None]:
    """The answer's column or template, and the marker that stands before it."""
    if isinstance(data.values.get("answer"), dict):
        table = data.table("answer")
        column, after = table.text("column"), table.text("after", None)
        table.done()
        return column, after
    text = data.text("answer", None)
    if text is None or "{{" not in text:
        return text, None
    return Template(text, data, "answer"), None


def _meta(data: Table) -> dict[str, Template | Zipped] | None:
    """What the verifier gets besides the answer; None where it gets every column."""
    if "meta" not in data.values:
        return None
    meta = data.table("meta")
    made: dict[str, Template | Zipped] = {}
    for name in list(meta.values):
        if isinstance(meta.values[name], dict):
            table = meta.table(name)
            if not table.values:
                raise meta.refuse(name, "is empty", 'write `{ field = "{{column}}" }`')
            fields = {field: Template(table.text(field), table, field) for field in list(table.values)}
            for field, template in fields.items():
                if template.column is None:
                    raise table.refuse(field, "must be one column", "write `{{column}}` and nothing else")
            made[name] = Zipped(fields)
        else:
            made[name] = Template(meta.text(name), meta, name)
    return made
