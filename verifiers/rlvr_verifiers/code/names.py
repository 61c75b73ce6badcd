"""Which names test text takes from the program, and which from the standard library."""

from __future__ import annotations

import ast
import builtins
import symtable
import sys
import warnings
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}

_KNOWN = {  # names that tests use although only the program imports them
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "math": "inf isclose isnan nan pi",
    "typing": "Any Callable Dict Iterable Iterator List Optional Sequence Set Tuple Union",
    "datetime": "timedelta",
}
KNOWN = {name: module for module, names in _KNOWN.items() for name in names.split()}
_ALIASES = {"np": "numpy", "pd": "pandas", "dt": "datetime"}


@dataclass(frozen=True, slots=True)
class Names:
    """What test text refers to and does not bind.

    Attributes:
        solution: Names that it takes from the program, in the order of their first use.
        modules: Alias and module of the modules that it uses without importing them.
        members: Name and module of what it uses of the standard library without importing it.
        builtins: Those of `solution` that are also builtins; the program has to bind them itself.
    """

    solution: tuple[str, ...]
    modules: tuple[tuple[str, str], ...] = ()
    members: tuple[tuple[str, str], ...] = ()
    builtins: tuple[str, ...] = ()

    @property
    def prelude(self) -> str:
        """The imports that the text lacks."""
        lines = [f"import {module} as {alias}" for alias, module in self.modules]
        lines += [f"from {module} import {name}" for name, module in self.members]
        return "\n".join(lines)


def names_of(text: str, tree: ast.Module, entry_point: str = "") -> Names:
    """What the test text takes from elsewhere.

    Args:
        text: The tests.
        tree: The same, parsed.
        entry_point: A name that is the program's even if it is a builtin or a module.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: It cannot be analysed.
    """
    free = _free(text, tree)
    imported = _bound_to_solution(tree)
    bases = _attribute_bases(tree)
    modules, members, solution = [], [], []
    for name in free:
        if name == entry_point:
            solution.append(name)
        elif name in BUILTINS:
            continue
        elif name in bases and (name in sys.stdlib_module_names or name in _ALIASES):
            modules.append((name, _ALIASES.get(name, name)))
        elif name in KNOWN:
            members.append((name, KNOWN[name]))
        else:
            solution.append(name)
    solution += [name for name in dict.fromkeys(imported) if name not in solution]
    taken: tuple[str, ...] = (entry_point,) if entry_point in BUILTINS and entry_point in solution else ()
    if not solution and members:
        solution, members = [name for name, _ in members], []
    if not solution:
        taken = _tested_builtins(tree)
        solution = list(taken)
    return Names(tuple(solution), tuple(modules), tuple(members), taken)


def _free(text: str, tree: ast.Module) -> list[str]:
    """Names that are looked up among the globals and that the text does not bind there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = symtable.symtable(text, "tests", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    found: dict[str, None] = {}
    tables = [top]
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if symbol.is_declared_global() and symbol.is_assigned():
                bound.add(name)
            if symbol.is_referenced() and (table is top or symbol.is_global()):
                found[name] = None
    order = {node.id: None for node in _loads(tree)}
    return [name for name in order if name in found and name not in bound]


def _loads(tree: ast.Module) -> list[ast.Name]:
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return sorted(loads, key=lambda node: (node.lineno, node.col_offset))


def _bound_to_solution(tree: ast.Module) -> list[str]:
    """What the tests take from a module `solution`."""
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "solution"
    }
    members = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases
    ]
    return members + [
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "solution" and not node.level
        for alias in node.names
        if alias.name != "*"
    ]


def _attribute_bases(tree: ast.Module) -> set[str]:
    """Names that stand in front of a dot wherever they stand."""
    bases: set[str] = set()
    others: set[str] = set()
    attributes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in _loads(tree):
        (bases if id(node) in attributes else others).add(node.id)
    return bases - others


def _tested_builtins(tree: ast.Module) -> tuple[str, ...]:
    """The builtin that every assert calls first, where the tests use no other name: the program's own `sum`, say.

    It may also be handed to a function of the tests, as in `check(sum)`.
    """
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    handed = [
        argument
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if isinstance(node.value.func, ast.Name) and node.value.func.id in own
        for argument in node.value.args
    ]
    called = {argument.id for argument in handed if isinstance(argument, ast.Name) and argument.id in BUILTINS}
    parameters = {argument.arg for node in ast.walk(tree) if isinstance(node, ast.arguments) for argument in node.args}
    for test in tests:
        left = test.left if isinstance(test, ast.Compare) else test
        if not (isinstance(left, ast.Call) and isinstance(left.func, ast.Name)):
            return ()
        if left.func.id in BUILTINS:
            called.add(left.func.id)
        elif not (handed and left.func.id in parameters):
            return ()
    return tuple(called) if len(called) == 1 else ()


def binds(tree: ast.Module, name: str) -> bool:
    """Whether a program binds the name at its top level."""
    for node in _top_level(tree.body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if node.name == name:
                    return True
            case ast.Import() | ast.ImportFrom():
                if any((alias.asname or alias.name.split(".")[0]) == name for alias in node.names):
                    return True
            case ast.Name(id=found, ctx=ast.Store()) if found == name:
                return True
    return False


def _top_level(body: list[ast.stmt]) -> list[ast.AST]:
    """All nodes below that are not inside of a function or class."""
    found: list[ast.AST] = []
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))
    return found
