"""Straightens test text: a list of assignments and asserts without functions, loops or names assigned twice.

`def check(candidate)` and the like are put in place of their call, loops over literals are unrolled, and every
assignment makes a variable of its own (`x@1`, `x@2`). Whatever does more than that is no table.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

STATEMENTS = 5_000
"""Statements that one list of tests may be straightened to."""


class NotATable(Exception):
    """The tests are more than asserts over calls and plain values; a judge process has to run them."""


@dataclass(slots=True)
class Assign:
    """A variable of the test's own, and what it stands for."""

    name: str
    value: ast.expr


@dataclass(slots=True)
class Assert:
    """One assert, or an expression with the value it should have.

    Attributes:
        test: The expression.
        source: As it was written.
        unit: The test that it belongs to.
        expects: Whether `expected` is what the expression should be.
    """

    test: ast.expr
    source: str
    unit: int
    expects: bool = False
    expected: object = None


@dataclass
class Scope:
    """What names mean at some point of the tests.

    Attributes:
        names: Variables and parameters: the variable's own name, or an expression that stands for it.
        functions: Functions of the tests.
        modules: Alias and module.
        members: Alias, and the module and name that it was imported from.
    """

    names: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    members: dict[str, tuple[str, str]] = field(default_factory=dict)

    def inner(self) -> Scope:
        """A scope inside of this one."""
        return Scope(dict(self.names), dict(self.functions), dict(self.modules), dict(self.members))


def renamed(node: ast.expr, meaning: Callable[[ast.Name], ast.expr]) -> ast.expr:
    """The expression with every name that it does not bind itself replaced by its meaning.

    Raises:
        NotATable: It assigns, awaits or yields.
    """
    return _Renamer(meaning).expression(node, frozenset())


class _Renamer:
    def __init__(self, meaning: Callable[[ast.Name], ast.expr]) -> None:
        self.meaning = meaning

    def expression(self, node: ast.expr, bound: frozenset[str]) -> ast.expr:
        match node:
            case ast.Name():
                return node if node.id in bound else self.meaning(node)
            case ast.NamedExpr() | ast.Await() | ast.Yield() | ast.YieldFrom():
                raise NotATable(f"`{type(node).__name__}` in an expression")
            case ast.Lambda():
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments += [a for a in (node.args.vararg, node.args.kwarg) if a]
                inside = bound | {a.arg for a in arguments}
                args = ast.arguments(**dict(ast.iter_fields(node.args)))
                args.defaults = [self.expression(d, bound) for d in node.args.defaults]
                args.kw_defaults = [d and self.expression(d, bound) for d in node.args.kw_defaults]
                return ast.Lambda(args, self.expression(node.body, inside))
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self.comprehension(node, bound)
        return self.rebuilt(node, bound)

    def rebuilt(self, node: ast.AST, bound: frozenset[str]) -> ast.expr:
        """A copy with all expressions below renamed."""
        values: dict[str, object] = {}
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                values[name] = self.expression(value, bound)
            elif isinstance(value, list):
                values[name] = [self.part(item, bound) for item in value]
            else:
                values[name] = value
        return type(node)(**values)  # type: ignore[return-value]

    def part(self, item: object, bound: frozenset[str]) -> object:
        if isinstance(item, ast.expr):
            return self.expression(item, bound)
        return self.rebuilt(item, bound) if isinstance(item, ast.keyword) else item

    def comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, bound: frozenset[str]
    ) -> ast.expr:
        targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        inside = bound | targets
        generators = [
            ast.comprehension(
                g.target,
                self.expression(g.iter, inside if i else bound),
                [self.expression(test, inside) for test in g.ifs],
                g.is_async,
            )
            for i, g in enumerate(node.generators)
        ]
        if isinstance(node, ast.DictComp):
            return ast.DictComp(self.expression(node.key, inside), self.expression(node.value, inside), generators)
        return type(node)(self.expression(node.elt, inside), generators)


class Straightener:
    """Turns statements into a straight list.

    Args:
        solution: Names that are the program's.
        modules, members: What the tests use without importing it, as in `Names`.
    """

    def __init__(
        self, solution: Iterable[str], modules: Mapping[str, str], members: Mapping[str, tuple[str, str]]
    ) -> None:
        self.solution = frozenset(solution)
        self.scope = Scope(modules=dict(modules), members=dict(members))
        self.lines: list[Assign | Assert] = []
        self.values: dict[str, ast.expr] = {}
        self.unrolled: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.depth = 0
        self.unit = 0
        self.split = False

    def statements(self, body: Sequence[ast.stmt], source: str, *, unit: int, split: bool = False) -> None:
        """Adds statements.

        Args:
            body: They.
            source: The text that they were parsed from.
            unit: The test that their asserts belong to; with `split`, every assert is a test, from this one on.
        """
        self.unit, self.split = unit, split
        self.body(body, source, self.scope)

    def body(self, body: Sequence[ast.stmt], source: str, scope: Scope) -> None:
        for statement in body:
            if len(self.lines) > STATEMENTS:
                raise NotATable("too many statements")
            self.statement(statement, source, scope)

    def statement(self, node: ast.stmt, source: str, scope: Scope) -> None:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Import() | ast.ImportFrom():
                self.imports(node, scope)
            case ast.FunctionDef():
                scope.names.pop(node.name, None)
                scope.functions[node.name] = node
            case ast.Assign(targets=[target], value=value):
                self.assign(target, self.meant(value, scope), scope)
            case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
                self.assign(target, self.meant(value, scope), scope)
            case ast.Assert():
                text = ast.get_source_segment(source, node.test) or ast.unparse(node.test)
                self.lines.append(Assert(self.meant(node.test, scope), text, self.unit))
                self.unit += self.split
            case ast.Expr(value=ast.Call(func=ast.Name(id=name)) as call) if name in scope.functions:
                self.inline(call, scope.functions[name], source, scope)
            case ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=args, keywords=[])):
                if any(isinstance(n, (ast.Call, ast.Name, ast.NamedExpr)) for a in args for n in ast.walk(a)):
                    raise NotATable("`print` of what the tests compute")
            case ast.If(test=test, body=inside) if _is_main(test):
                self.body(inside, source, scope)
            case ast.For(orelse=[]):
                self.loop(node, source, scope)
            case _:
                raise NotATable(f"`{type(node).__name__}` statement")

    def imports(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "solution":
                    raise NotATable("the program as a module")
                if "." in alias.name and not alias.asname:
                    scope.modules[alias.name.split(".")[0]] = alias.name.split(".")[0]
                else:
                    scope.modules[alias.asname or alias.name] = alias.name
                _known(alias.name)
        elif node.module == "__future__":
            return
        elif node.level or not node.module or any(alias.name == "*" for alias in node.names):
            raise NotATable("a relative import or one of `*`")
        elif node.module == "solution":
            if any(alias.asname and alias.asname != alias.name for alias in node.names):
                raise NotATable("an alias of a name of the program")
        else:
            _known(node.module)
            for alias in node.names:
                scope.members[alias.asname or alias.name] = (node.module, alias.name)

    def meant(self, node: ast.expr, scope: Scope) -> ast.expr:
        """The expression over variables that are assigned once, imports and names of the program."""

        def meaning(name: ast.Name) -> ast.expr:
            if name.id in scope.names:
                return scope.names[name.id]
            if name.id in scope.functions:
                return self.helper(scope.functions[name.id], scope)
            if name.id in scope.members:
                module, member = scope.members[name.id]
                return ast.Attribute(ast.Name(f"{module}@", ast.Load()), member, ast.Load())
            if name.id in scope.modules:
                return ast.Name(f"{scope.modules[name.id]}@", ast.Load())
            return name

        return renamed(node, meaning)

    def helper(self, function: ast.FunctionDef, scope: Scope) -> ast.expr:
        """A function that only returns an expression, as a lambda."""
        body = [s for s in function.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None or function.decorator_list:
            raise NotATable(f"the function `{function.name}` of the tests")
        self.depth += 1
        if self.depth > 5:
            raise NotATable(f"the function `{function.name}` calls itself")
        args = ast.arguments(**dict(ast.iter_fields(function.args)))
        args.args = [ast.arg(a.arg) for a in args.args]
        made = self.meant(ast.Lambda(args, body[0].value), scope)
        self.depth -= 1
        return made

    def assign(self, target: ast.expr, value: ast.expr, scope: Scope) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            if not isinstance(value, (ast.Tuple, ast.List)) or len(value.elts) != len(target.elts):
                raise NotATable("an assignment to several names")
            for inner, part in zip(target.elts, value.elts, strict=True):
                self.assign(inner, part, scope)
            return
        if not isinstance(target, ast.Name) or target.id in self.solution:
            raise NotATable("an assignment to something else than a name of the tests")
        scope.functions.pop(target.id, None)
        if isinstance(value, ast.Lambda) or (isinstance(value, ast.Name) and value.id in self.solution):
            scope.names[target.id] = value
            return
        self.versions[target.id] += 1
        name = f"{target.id}@{self.versions[target.id]}"
        self.lines.append(Assign(name, value))
        self.values[name] = value
        scope.names[target.id] = ast.Name(name, ast.Load())

    def inline(self, call: ast.Call, function: ast.FunctionDef, source: str, scope: Scope) -> None:
        """Puts the body of a function of the tests in place of its call."""
        parameters = function.args
        plain = not (parameters.vararg or parameters.kwarg or parameters.kwonlyargs or parameters.posonlyargs)
        if not plain or parameters.defaults or call.keywords or function.decorator_list or self.depth > 5:
            raise NotATable(f"the call of `{function.name}`")
        if len(parameters.args) != len(call.args) or any(isinstance(arg, ast.Starred) for arg in call.args):
            raise NotATable(f"the arguments of `{function.name}`")
        inner = scope.inner()
        for parameter, arg in zip(parameters.args, call.args, strict=True):
            self.assign_parameter(parameter.arg, self.meant(arg, scope), inner)
        body = function.body
        if body and isinstance(body[-1], ast.Return) and isinstance(body[-1].value, (ast.Constant, type(None))):
            body = body[:-1]
        self.depth += 1
        self.body(body, source, inner)
        self.depth -= 1

    def assign_parameter(self, name: str, value: ast.expr, scope: Scope) -> None:
        if isinstance(value, ast.Name) and value.id in self.solution:
            scope.functions.pop(name, None)
            scope.names[name] = value
        else:
            self.assign(ast.Name(name, ast.Store()), value, scope)

    def loop(self, node: ast.For, source: str, scope: Scope) -> None:
        rows = self.elements(self.meant(node.iter, scope))
        if rows is None or any(isinstance(n, (ast.Break, ast.Continue)) for n in ast.walk(node)):
            raise NotATable("a loop")
        for row in rows:
            self.assign(node.target, row, scope)
            self.body(node.body, source, scope)

    def elements(self, node: ast.expr) -> list[ast.expr] | None:
        """What a loop goes over, where that is written out."""
        match node:
            case ast.List(elts=elts) | ast.Tuple(elts=elts):
                return None if any(isinstance(e, ast.Starred) for e in elts) else elts
            case ast.Name(id=name) if name in self.values:
                self.unrolled[name] += 1
                return self.elements(self.values[name])
            case ast.Call(func=ast.Name(id="range"), args=[*args], keywords=[]):
                bounds = [a.value for a in args if isinstance(a, ast.Constant) and isinstance(a.value, int)]
                if bounds and len(bounds) == len(args) and len(args) < 4 and bounds[2:] != [0]:
                    numbers = range(*bounds)
                    return [ast.Constant(i) for i in numbers] if len(numbers) <= STATEMENTS else None
            case ast.Call(func=ast.Name(id="enumerate"), args=[inner], keywords=[]):
                rows = self.elements(inner)
                return rows and [ast.Tuple([ast.Constant(i), row], ast.Load()) for i, row in enumerate(rows)]
            case ast.Call(func=ast.Name(id="zip"), args=[*inners], keywords=[]) if inners:
                columns = [self.elements(inner) for inner in inners]
                if None not in columns:
                    return [ast.Tuple(list(row), ast.Load()) for row in zip(*(c or [] for c in columns), strict=False)]
            case ast.Call(func=ast.Attribute(value=ast.Dict() as table, attr="items"), args=[], keywords=[]) if (
                None not in table.keys
            ):
                pairs = zip(table.keys, table.values, strict=True)
                return [ast.Tuple([key, value], ast.Load()) for key, value in pairs if key is not None]
        return None


def _known(module: str) -> None:
    """Refuses the import of what is not in the standard library: whether it succeeds is for the judge to see."""
    if module.split(".")[0] not in sys.stdlib_module_names:
        raise NotATable(f"the module `{module}`")


def _is_main(test: ast.expr) -> bool:
    return ast.unparse(test).replace('"', "'") in ("__name__ == '__main__'", "'__main__' == __name__")
