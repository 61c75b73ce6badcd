"""Compiles tests into a table: calls that the program's process evaluates, and checks of what they return.

    assert sorted(solve([3, 1])) == [1, 3]      the program computes   solve([3, 1])
                                                the host               sorted(_) == [1, 3]

The program's process gets calls and never sees what is expected of them. A list of tests is a table only where that
is exact: the host evaluates pure expressions over plain values, each call is evaluated once, in order, and nothing that
it may change is looked at again. Everything else is `NotATable`, and a judge process runs the tests.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr import Call

from . import methods, pure
from .chains import Chains
from .evaluate import SUPPORTED
from .folding import folded
from .linear import Assert, Assign, NotATable, Straightener
from .names import Names, names_of
from .nodes import Access, Root
from .tests import BadTests, parse

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))


@dataclass(frozen=True, slots=True)
class Piece:
    """One test as text.

    Attributes:
        text: Statements; with `expects`, an expression.
        unit: Its number among the tests; None for what stands before them all.
        expects: Whether the expression should be `expected`, which is JSON text.
    """

    text: str
    unit: int | None
    expects: bool = False
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the host does.

    Attributes:
        tree: What to evaluate.
        calls: The first call that it needs, and the one behind the last.
        variable: The variable that gets the value, if it is no check.
        unit: The test that the check belongs to.
        source: The check as written.
        expects: Whether the value should be `expected` and not just true.
    """

    tree: ast.expr
    calls: tuple[int, int]
    variable: str = ""
    unit: int = 0
    source: str = ""
    expects: bool = False
    expected: Any = None


@dataclass(frozen=True, slots=True)
class Table:
    """Tests that the host can check.

    Attributes:
        calls: What the program has to compute, in order.
        steps: What to do with it, in order.
        units: How many tests there are.
        names: What the tests take from the program.
    """

    calls: tuple[Call, ...]
    steps: tuple[Step, ...]
    units: int
    names: Names


@functools.lru_cache(maxsize=256)
def names_in(pieces: tuple[Piece, ...], entry_point: str = "") -> Names:
    """What the tests take from the program.

    Raises:
        BadTests: They cannot be read, or take nothing.
    """
    text = "\n".join(piece.text for piece in pieces)
    tree = parse(text)
    try:
        names = names_of(text, tree, entry_point)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTests(f"the tests cannot be read: {error}") from None
    if not names.solution:
        raise BadTests("no test uses a name of the program, so that nothing of it is checked")
    return names


@functools.lru_cache(maxsize=256)
def compiled(pieces: tuple[Piece, ...], entry_point: str = "", split: bool = False) -> Table | str:
    """The table of a list of tests, or why there is none.

    Args:
        pieces: The tests.
        entry_point: The name under test, where that is known.
        split: Whether every assert counts as a test.

    Raises:
        BadTests: They cannot be read, or check nothing of the program.
    """
    names = names_in(pieces, entry_point)
    try:
        return _Compiler(names).table(pieces, split)
    except NotATable as reason:
        return str(reason)
    except (RecursionError, MemoryError, ValueError):
        return "tests that are nested too deeply"


class _Compiler:
    def __init__(self, names: Names) -> None:
        self.names = names
        self.solution = frozenset(names.solution)
        self.calls: list[Call] = []
        self.steps: list[Step] = []
        self.program = Chains(names.solution)
        self.held: dict[str, bool] = {}  # the host's variables, and whether they depend on the program

    def table(self, pieces: Sequence[Piece], split: bool) -> Table:
        members = {name: (module, name) for name, module in self.names.members}
        straight = Straightener(self.solution, dict(self.names.modules), members)
        for piece in pieces:
            if piece.expects:
                tree = parse(piece.text)
                if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
                    raise BadTests(f"`{piece.text[:80]}` is not an expression")
                test = straight.meant(tree.body[0].value, straight.scope)
                expected = json.loads(piece.expected)
                straight.lines.append(Assert(test, piece.text, piece.unit or 0, True, expected))
            else:
                body = parse(piece.text).body
                straight.statements(body, piece.text, unit=piece.unit or 0, split=split and piece.unit is not None)
        self.straight = straight
        for line in straight.lines:
            self.program.count(line.value if isinstance(line, Assign) else line.test, False)
        checks = 0
        for line in straight.lines:
            if isinstance(line, Assign):
                self.assign(line)
            else:
                checks += self.check(line)
        if not checks:
            if not any(isinstance(line, Assert) for line in straight.lines):
                raise NotATable("no assert")
            raise BadTests("no assert depends on the program, so that nothing of it is checked")
        units = straight.unit if split else 1 + max((p.unit for p in pieces if p.unit is not None), default=0)
        return Table(tuple(self.calls), tuple(self.steps), units, self.names)

    # --------------------------------------------------------------------------------------------------- statements

    def assign(self, line: Assign) -> None:
        """Decides where a variable lives: in place of its uses, with the host, or nowhere."""
        total = self.program.uses[line.name] + self.straight.unrolled[line.name]
        if not total:
            if self.program.within(line.value):
                raise NotATable("a call whose value is not looked at")
            return
        remote = self.program.remote_uses[line.name] + self.straight.unrolled[line.name]
        if self.program.within(line.value):
            if remote:
                raise NotATable("a value of the program that is given back to it")
            tree, calls = self.compile(line.value, positive=False)
            self.steps.append(Step(tree, calls, variable=line.name))
            self.held[line.name] = True
            return
        if remote == 0:
            tree, calls = self.compile(line.value, positive=False)
            depends = any(isinstance(n, ast.Name) and self.held.get(n.id) for n in ast.walk(tree))
            if isinstance(tree, ast.Constant) and isinstance(tree.value, _IMMUTABLE):
                self.program.inlined[line.name] = tree
            else:
                self.steps.append(Step(tree, calls, variable=line.name))
                self.held[line.name] = depends
            return
        if total > 1 and not self.immutable(line.value):
            raise NotATable("a value that the program may change, and that is used again")
        self.program.inlined[line.name] = line.value

    def immutable(self, node: ast.expr) -> bool:
        """Whether an expression is built from numbers, text and tuples of them."""
        allowed = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop, ast.expr_context)
        return all(
            isinstance(n, allowed) or (isinstance(n, ast.Name) and self.immutable_name(n.id)) for n in ast.walk(node)
        )

    def immutable_name(self, name: str) -> bool:
        return name in self.program.inlined and self.immutable(self.program.inlined[name])

    def check(self, line: Assert) -> bool:
        """Adds a check, and says whether it depends on the program."""
        tree, calls = self.compile(line.test, positive=not line.expects)
        self.steps.append(Step(tree, calls, "", line.unit, line.source, line.expects, line.expected))
        depends = calls[0] < calls[1] or any(isinstance(n, ast.Name) and self.held.get(n.id) for n in ast.walk(tree))
        return depends and not (isinstance(tree, ast.Tuple) and bool(tree.elts) and not line.expects)

    def compile(self, node: ast.expr, positive: bool) -> tuple[ast.expr, tuple[int, int]]:
        start = len(self.calls)
        tree = folded(self.host(node, frozenset(), True, positive), self.held)
        return tree, (start, len(self.calls))

    # ------------------------------------------------------------------------------------------ the host's own part

    def host(self, node: ast.expr, bound: frozenset[str], eager: bool, positive: bool = False) -> ast.expr:
        """The tree that the host evaluates.

        Args:
            node: The expression.
            bound: Names that lambdas and comprehensions around it bind.
            eager: Whether it is evaluated exactly once, so that it may hold calls of the program.
            positive: Whether the check fails as soon as it is false: what follows an `and` counts as evaluated then.
        """
        if chain := self.program.chain(node):
            if not eager:
                raise NotATable("a call of the program that is made sometimes, or many times")
            return self.rooted(chain)
        match node:
            case ast.Name():
                return self.host_name(node, bound)
            case ast.BoolOp(op=op, values=values):
                both = positive and isinstance(op, ast.And)
                made = [self.host(v, bound, eager and (both or i == 0), both) for i, v in enumerate(values)]
                return ast.BoolOp(op, made)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                first = self.host(left, bound, eager)
                rest = [self.host(c, bound, eager and (positive or i == 0)) for i, c in enumerate(comparators)]
                return ast.Compare(first, ops, rest)
            case ast.Dict(keys=keys, values=values):
                pairs = [
                    (k and self.host(k, bound, eager), self.host(v, bound, eager))
                    for k, v in zip(keys, values, strict=True)
                ]
                return ast.Dict([key for key, _ in pairs], [value for _, value in pairs])
            case ast.IfExp(test=test, body=body, orelse=orelse):
                branches = (self.host(body, bound, False), self.host(orelse, bound, False))
                return ast.IfExp(self.host(test, bound, eager), *branches)
            case ast.Lambda(args=args, body=body):
                if args.vararg or args.kwarg or args.kwonlyargs or args.posonlyargs:
                    raise NotATable("a lambda with such parameters")
                inside = bound | {a.arg for a in args.args}
                made_args = ast.arguments(**dict(ast.iter_fields(args)))
                made_args.defaults = [self.host(d, bound, eager) for d in args.defaults]
                return ast.Lambda(made_args, self.host(body, inside, False))
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self.host_comprehension(node, bound, eager)
            case ast.Attribute(value=value, attr=attr):
                return self.host_attribute(value, attr, bound, eager)
            case ast.Call(func=func, args=args, keywords=keywords):
                if (
                    isinstance(func, ast.Attribute)
                    and func.attr == "format"
                    and not isinstance(func.value, ast.Constant)
                ):
                    raise NotATable("formatting")
                if any(isinstance(a, ast.Name) and a.id in self.solution for a in args):
                    raise NotATable("a function of the program that is called by another")
                function = self.host(func, bound, eager)
                given = [self.host(a, bound, eager) for a in args]
                return ast.Call(
                    function, given, [ast.keyword(k.arg, self.host(k.value, bound, eager)) for k in keywords]
                )
        if type(node) not in SUPPORTED and not isinstance(node, (ast.Starred, ast.Slice, ast.FormattedValue)):
            raise NotATable(f"`{type(node).__name__}` in a check")
        parts: dict[str, Any] = {}
        for field, part in ast.iter_fields(node):
            if isinstance(part, ast.expr):
                parts[field] = self.host(part, bound, eager)
            elif isinstance(part, list):
                parts[field] = [self.host(v, bound, eager) if isinstance(v, ast.expr) else v for v in part]
            else:
                parts[field] = part
        return type(node)(**parts)

    def host_name(self, node: ast.Name, bound: frozenset[str]) -> ast.expr:
        if node.id in bound or node.id in self.held:
            return node
        if node.id in self.program.inlined:
            return self.host(self.program.inlined[node.id], frozenset(), False)
        if node.id.endswith("@") or not (node.id in pure.FUNCTIONS or node.id in pure.NAMED_TYPES):
            raise NotATable(f"`{node.id.rstrip('@')}` in a check")
        return node

    def host_attribute(self, value: ast.expr, attr: str, bound: frozenset[str], eager: bool) -> ast.expr:
        if isinstance(value, ast.Name) and value.id.endswith("@"):
            member = pure.MODULES.get(value.id[:-1], {}).get(attr)
            if member is None:
                raise NotATable(f"`{value.id[:-1]}.{attr}` in a check")
            return ast.Constant(member)
        if attr not in methods.ANY_METHOD:
            raise NotATable(f"`.{attr}` in a check")
        return ast.Attribute(self.host(value, bound, eager), attr, ast.Load())

    def host_comprehension(self, node: Any, bound: frozenset[str], eager: bool) -> ast.expr:
        stored = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        inside = bound | stored
        if stored & self.solution or any(g.is_async for g in node.generators):
            raise NotATable("a comprehension over names of the program")
        generators = [
            ast.comprehension(
                g.target,
                self.host(g.iter, inside if i else bound, eager and i == 0),
                [self.host(test, inside, False) for test in g.ifs],
                0,
            )
            for i, g in enumerate(node.generators)
        ]
        if isinstance(node, ast.DictComp):
            return ast.DictComp(self.host(node.key, inside, False), self.host(node.value, inside, False), generators)
        return type(node)(self.host(node.elt, inside, False), generators)

    def rooted(self, chain: list[ast.expr]) -> ast.expr:
        """Adds a call, and gives the tree of the whole chain over it."""
        mine, sources = self.program.subject(chain)
        if (
            len(chain) == 1
            and isinstance(chain[0], ast.Name)
            and chain[0].id[:1].isupper()
            and not chain[0].id.isupper()
        ):
            raise NotATable(f"the class `{chain[0].id}`")
        call = len(self.calls)
        self.calls.append(Call(sources[0], tuple(sources[1:])))
        tree: ast.expr = Root(call)
        for depth, node in enumerate(mine[1:], 1):
            try:
                applied: ast.expr | None = self.accessed(node, tree)
            except NotATable:
                applied = None
            tree = Access(call, depth, tree, applied)
        for node in chain[len(mine) :]:
            tree = self.accessed(node, tree, eager=True)
        return tree

    def accessed(self, node: ast.expr, inner: ast.expr, eager: bool = False) -> ast.expr:
        """The accessor `node` as the host applies it."""
        match node:
            case ast.Call(func=func, args=args, keywords=keywords):
                called = self.accessed(func, inner) if isinstance(func, ast.Attribute) else inner
                if not isinstance(func, ast.Attribute):
                    raise NotATable("a call of what a call returned")
                made = [self.host(a, frozenset(), eager) for a in args]
                return ast.Call(
                    called, made, [ast.keyword(k.arg, self.host(k.value, frozenset(), eager)) for k in keywords]
                )
            case ast.Attribute(attr=attr):
                if attr not in methods.ANY_METHOD or attr == "format":
                    raise NotATable(f"`.{attr}` in a check")
                return ast.Attribute(inner, attr, ast.Load())
            case ast.Subscript(slice=index):
                return ast.Subscript(inner, self.host(index, frozenset(), eager), ast.Load())
        raise NotATable("an accessor")
