"""Calls of the program in the expressions of a test: where they are, and how the program's process evaluates them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable

from .linear import NotATable, renamed
from .methods import ONLY_TEXT, words
from .names import BUILTINS

_NOT_REMOTE = words(
    """__import__ breakpoint classmethod compile delattr dir eval exec exit globals hash help id input license locals
    open print quit setattr vars __name__ __file__ __doc__"""
)


class Chains:
    """Finds calls of the program, with the accessors behind them.

    Args:
        solution: Names that are the program's.

    Attributes:
        inlined: Variables of the tests that stand in place of their value.
        uses: How often variables are used, as `count` was told.
        remote_uses: How often of these the program's process sees them.
    """

    def __init__(self, solution: Iterable[str]) -> None:
        self.solution = frozenset(solution)
        self.inlined: dict[str, ast.expr] = {}
        self.uses: Counter[str] = Counter()
        self.remote_uses: Counter[str] = Counter()

    def chain(self, node: ast.expr) -> list[ast.expr] | None:
        """The nodes from a call of the program outward to this one; None if it does not start with one."""
        found: list[ast.expr] = []
        while True:
            match node:
                case ast.Call(func=ast.Attribute(value=inner)):
                    found.append(node)
                    node = inner
                case ast.Call(func=ast.Name(id=name)) if name in self.solution:
                    return [node, *reversed(found)]
                case ast.Name(id=name) if name in self.solution:
                    return [node, *reversed(found)]
                case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
                    found.append(node)
                    node = inner
                case _:
                    return None

    def within(self, node: ast.expr) -> bool:
        """Whether an expression uses a name of the program."""
        return any(isinstance(n, ast.Name) and n.id in self.solution for n in ast.walk(node))

    def subject(self, chain: list[ast.expr]) -> tuple[list[ast.expr], list[str]]:
        """The part of a chain that the program's process gets, and the source of each of its parts."""
        sources = [ast.unparse(self.remote(chain[0]))]
        if any(self.binds_solution(node) for node in chain):
            raise NotATable("a name of the program that means something else inside of an expression")
        for i, node in enumerate(chain[1:], 1):
            attribute = node.func if isinstance(node, ast.Call) else node
            if isinstance(attribute, ast.Attribute):
                made = i == 1 and isinstance(chain[0], ast.Call) and ast.unparse(chain[0].func)[:1].isupper()
                if attribute.attr.startswith("__") or (attribute.attr in ONLY_TEXT and not made):
                    break
            try:
                source = ast.unparse(self.remote(self.over(node, ast.Name("_", ast.Load()))))
            except NotATable:
                break
            sources.append(source[1:])
        return chain[: len(sources)], sources

    def over(self, node: ast.expr, inner: ast.expr) -> ast.expr:
        """The accessor `node`, over another value."""
        match node:
            case ast.Call(func=ast.Attribute(attr=attr), args=args, keywords=keywords):
                return ast.Call(ast.Attribute(inner, attr, ast.Load()), args, keywords)
            case ast.Call(args=args, keywords=keywords):
                return ast.Call(inner, args, keywords)
            case ast.Subscript(slice=index):
                return ast.Subscript(inner, index, ast.Load())
            case ast.Attribute(attr=attr):
                return ast.Attribute(inner, attr, ast.Load())
        raise NotATable("an accessor")

    def binds_solution(self, node: ast.expr) -> bool:
        stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return bool((stored | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}) & self.solution)

    def remote(self, node: ast.expr) -> ast.expr:
        """The expression as the program's process evaluates it.

        Raises:
            NotATable: It needs something that is not there.
        """
        for n in ast.walk(node):
            if isinstance(n, ast.Attribute) and n.attr.startswith("__"):
                raise NotATable(f"`.{n.attr}` in an argument")

        def meaning(name: ast.Name) -> ast.expr:
            if name.id in self.inlined:
                return self.remote(self.inlined[name.id])
            if name.id.endswith("@"):
                return _imported(name.id[:-1])
            if name.id in self.solution or name.id == "_" or (name.id in BUILTINS and name.id not in _NOT_REMOTE):
                return name
            raise NotATable(f"`{name.id.partition('@')[0]}` in an argument")

        return renamed(node, meaning)

    def count(self, node: ast.expr, remote: bool) -> None:
        """Counts the uses of variables, and those that the program's process sees."""
        if isinstance(node, ast.Name):
            self.uses[node.id] += 1
            self.remote_uses[node.id] += remote
        chain = None if remote else self.chain(node)
        if not chain:
            for child in ast.iter_child_nodes(node):
                self.count_part(child, remote)
            return
        for i, part in enumerate(chain):
            seen = i == 0 or not (
                isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in ONLY_TEXT
            )
            for field, value in ast.iter_fields(part):
                if field in ("args", "keywords", "slice"):
                    for child in value if isinstance(value, list) else [value]:
                        self.count_part(child, seen)

    def count_part(self, node: ast.AST, remote: bool) -> None:
        if isinstance(node, ast.expr):
            self.count(node, remote)
        else:
            for child in ast.iter_child_nodes(node):
                self.count_part(child, remote)


def _imported(module: str) -> ast.expr:
    """`__import__` of a module, for an argument that uses it."""
    args: list[ast.expr] = [ast.Constant(module)]
    if "." in module:
        args += [ast.Constant(None), ast.Constant(None), ast.List([ast.Constant("_")], ast.Load())]
    return ast.Call(ast.Name("__import__", ast.Load()), args, [])
