"""What a task's implementation of its tools defines: a function for each tool, and the state that calls change.

State is all that the body binds but imports and functions: variables, classes (for what their attributes hold), and
functions that keep something (a default that is no constant, an attribute). It is looked at through `STATE`, which runs
behind the implementation in the sandbox and tells what objects of its own classes hold as well:

    accounts = {"ann": 5}                      {"ann": 5}
    shop = Shop()                              {"class": "Shop", "items": ["pen"]}
    def log(line, seen=[]): ...                {"class": "function", "defaults": [["a line"]]}
    lock = threading.Lock()                    "lock"    its text has an address, so that the type is all that counts
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .tools import BadTask, Tool, Toolset

STATE = """

def __state(value, within=()):
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str):
        return value
    if id(value) in within or len(within) > 40:
        return "..."
    inner = (*within, id(value))
    def members(pairs):
        return {key if type(key) is str else repr(__state(key, inner)): __state(item, inner) for key, item in pairs}
    if isinstance(value, dict):
        return members(dict.items(value))
    if hasattr(kind, "__next__"):
        return kind.__name__
    if isinstance(value, (list, tuple)) or kind.__name__ == "deque":
        return [__state(item, inner) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(__state(item, inner)) for item in value)
    own = getattr(value, "__module__", None) == __name__
    if own and isinstance(value, type):
        return {"class": "type", **members((k, v) for k, v in vars(value).items() if k[:2] != "__" and not callable(v))}
    if own and kind is type(__state):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        kept = {"defaults": value.__defaults__, "others": value.__kwdefaults__, "closure": cells, **vars(value)}
        return {"class": "function", **members((key, item) for key, item in kept.items() if item)}
    if own and isinstance(kind, type) and kind.__module__ == __name__:
        slots = [name for base in kind.__mro__ for name in vars(base).get("__slots__", ()) if hasattr(value, name)]
        return {"class": kind.__name__, **members([*getattr(value, "__dict__", {}).items(),
                                                    *((name, getattr(value, name)) for name in slots)])}
    said = repr(value)
    return kind.__name__ if " at 0x" in said else said
"""
"""Python that tells a value as plain data, without addresses; see above."""

_WORD = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Implementation:
    """The source of the tools.

    Attributes:
        source: Python.
        functions: The function of each tool.
        state: The names that hold what calls may change.
    """

    source: str
    functions: Mapping[str, str]
    state: tuple[str, ...]


def implementation(source: Any, tools: Toolset) -> Implementation:
    """The functions and the state that a source defines.

    Raises:
        BadTask: It is no Python, or a tool has no function in it that takes its parameters.
    """
    if not isinstance(source, str):
        raise BadTask("`implementation` must be Python source")
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTask(f"`implementation` is not Python: {error}") from None
    defined: dict[str, ast.stmt] = {}
    state: list[str] = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined[node.name] = node
            if isinstance(node, ast.ClassDef) or _keeps(node):
                state.append(node.name)
            state += [name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined.update({(alias.asname or alias.name).partition(".")[0]: node for alias in node.names})
        else:
            stored = {n.id: node for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            defined |= stored
            state += [name for name in stored if not name.startswith("__")]
    # Attributes that are set, of functions too: `f.calls = 0`.
    for n in (n for node in body for n in ast.walk(node)):
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and isinstance(n.ctx, ast.Store):
            state += [n.value.id] if isinstance(defined.get(n.value.id), ast.FunctionDef) else []
    functions = {name: name.replace(".", "_") for name in tools}
    for name, function in functions.items():
        if function not in defined:
            raise BadTask(f"the `implementation` defines no function `{function}` for the tool `{name}`")
        _check_parameters(defined[function], tools[name])
    return Implementation(source, functions, tuple(dict.fromkeys(state)))


def _keeps(function: ast.FunctionDef) -> bool:
    """Whether a function has a default that calls may change."""
    defaults = [*function.args.defaults, *function.args.kw_defaults]
    return any(isinstance(one, (ast.List, ast.Dict, ast.Set, ast.Call, ast.Name)) for one in defaults)


def _check_parameters(node: ast.stmt, tool: Tool) -> None:
    """Raises where a function cannot be called as its tool is declared."""
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return
    given = node.args
    named = [arg.arg for arg in (*given.args, *given.kwonlyargs)]
    for key in tool.properties:
        if key not in named and not given.kwarg:
            raise BadTask(f"the function `{node.name}` of the `implementation` takes no `{key}`, which the tool has")
    required = given.args[: max(0, len(given.args) - len(given.defaults))]
    required += [arg for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    for arg in required:
        if arg.arg not in tool.properties and tool.schema.get("additionalProperties") is False:
            raise BadTask(f"the function `{node.name}` of the `implementation` needs `{arg.arg}`, which the tool lacks")


def check_expression(expression: Any, source: str) -> None:
    """Looks at an expression of an `end_state`.

    Raises:
        BadTask: It is no Python expression, or names what the implementation never mentions.
    """
    try:
        tree = ast.parse(str(expression), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTask(f"`{expression}` of `end_state` is no Python expression: {error}") from None
    known = {*dir(builtins), *_WORD.findall(source), *_bound(tree)}
    unknown = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id not in known]
    if unknown and "*" not in source:
        raise BadTask(f"`{expression}` of `end_state` names `{unknown[0]}`, which the `implementation` never mentions")


def _bound(tree: ast.AST) -> Iterator[str]:
    """The names that an expression binds itself."""
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            yield n.id
        elif isinstance(n, ast.arg):
            yield n.arg
