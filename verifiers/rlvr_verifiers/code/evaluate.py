"""Evaluates what a test computes from values of the program: a walk over its syntax tree, never `eval`.

The tree is that of an expression in which the subjects, what the program has to compute, are replaced by `Root` and
`Access` nodes. All else is pure and bounded (`pure`). Whatever the host cannot decide exactly raises `NeedsJudge`.
"""

from __future__ import annotations

import ast
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlvr import Opaque, Returned

from . import methods, pure
from .nodes import (
    SIMPLE,
    Access,
    CallMissing,
    CallRaised,
    Faulty,
    FaultyTest,
    NeedsJudge,
    Pretender,
    Root,
    Unset,
    opaque_in,
)
from .pure import Excess, Unsupported

SECONDS = 2.0
"""Processor time that the checks of one test list may take here; what takes longer is judged in the sandbox."""

NODES = 400_000
"""Nodes that are evaluated for one check."""


_SINGLETONS = (type(None), bool, type(Ellipsis), type)

Scope = Mapping[str, Any]


class Evaluator:
    """Evaluates trees over the values that calls returned.

    Args:
        returned: What each call gave, by its number.
        variables: Values of the test's own variables.
    """

    def __init__(self, returned: Mapping[int, Returned], variables: Mapping[str, Any]) -> None:
        self.returned = returned
        self.variables = variables
        self.left = NODES
        self.until = time.process_time() + SECONDS
        self.pretends = any(type(v) not in SIMPLE and opaque_in(v) for v in variables.values())

    def evaluate(self, tree: ast.expr) -> Any:
        """The value of a tree.

        Raises:
            NeedsJudge: The host cannot tell.
            FaultyTest: The test itself raises.
            CallRaised, CallMissing: The program raised an exception, or ended before.
            Pretender: The program returned an object that pretends to be text.
            Exception: What the test raises over the values of the program.
        """
        try:
            return self.value(tree, {})
        except (Excess, Unsupported) as limit:
            raise NeedsJudge(str(limit)) from None
        except (RecursionError, MemoryError):
            raise NeedsJudge("a value that is nested or too large") from None
        except (TypeError, AttributeError, ValueError):
            if self.pretends:
                raise NeedsJudge("an object of the program's own") from None
            raise

    def spend(self) -> None:
        """Counts a step. A step is quick by itself; how long many of them take, the program's values decide."""
        self.left -= 1
        if self.left < 0 or (self.left % 64 == 0 and time.process_time() > self.until):
            raise Excess("too many steps")

    def truth(self, value: Any) -> bool:
        """Whether a value counts as true."""
        if type(value) is Opaque:
            raise NeedsJudge("the truth of an object")
        return bool(value)

    def value(self, node: ast.expr, scope: Scope) -> Any:
        """The value of a node."""
        self.spend()
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise Unsupported(f"`{type(node).__name__}`")
        return handler(self, node, scope)

    # ---------------------------------------------------------------------------------- what the program computed

    def root(self, node: Root, scope: Scope) -> Any:
        return self.result(node.call, 0, None)

    def access(self, node: Access, scope: Scope) -> Any:
        got = self.got(node.call)
        if got.used >= node.depth or got.raised is not None:
            return self.result(node.call, node.depth, got)
        if node.node is None:
            raise NeedsJudge("an accessor that the host cannot apply")
        return self.value(node.node, scope)

    def got(self, call: int) -> Returned:
        try:
            return self.returned[call]
        except KeyError:
            raise CallMissing(call) from None

    def result(self, call: int, depth: int, got: Returned | None) -> Any:
        got = got or self.got(call)
        if got.raised is not None:
            raise CallRaised(call, got.raised)
        if got.used != depth:
            raise NeedsJudge("accessors that were applied to another value")
        if not self.pretends and type(got.value) not in SIMPLE and opaque_in(got.value):
            self.pretends = True
        return got.value

    def faulty(self, node: Faulty, scope: Scope) -> Any:
        raise FaultyTest(node.text)

    # ------------------------------------------------------------------------------------------------ expressions

    def constant(self, node: ast.Constant, scope: Scope) -> Any:
        return node.value

    def name(self, node: ast.Name, scope: Scope) -> Any:
        if node.id in scope:
            return scope[node.id]
        if node.id in self.variables:
            return self.variables[node.id]
        if node.id in pure.NAMED_TYPES:
            return pure.NAMED_TYPES[node.id]
        if node.id in pure.FUNCTIONS:
            return pure.FUNCTIONS[node.id]
        if "@" in node.id:
            raise Unset
        raise Unsupported(f"the name `{node.id}`")

    def many(self, nodes: Sequence[ast.expr], scope: Scope) -> list[Any]:
        found: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                found.extend(self.walk(self.value(node.value, scope)))
            else:
                found.append(self.value(node, scope))
        return found

    def walk(self, value: Any) -> Any:
        """What may be iterated over."""
        if type(value) is Opaque:
            raise NeedsJudge("the items of an object")
        return pure.items(value)

    def sequence(self, node: Any, scope: Scope) -> Any:
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(self.many(node.elts, scope))

    def dictionary(self, node: ast.Dict, scope: Scope) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found.update(self.value(value, scope))
            else:
                found[self.value(key, scope)] = self.value(value, scope)
        return found

    def unary(self, node: ast.UnaryOp, scope: Scope) -> Any:
        value = self.value(node.operand, scope)
        if isinstance(node.op, ast.Not):
            return not self.truth(value)
        return pure.UNARY[type(node.op)](value)

    def binary(self, node: ast.BinOp, scope: Scope) -> Any:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if self.pretends and (opaque_in(left) or opaque_in(right)):
            raise NeedsJudge("an operation on an object")
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            if not isinstance(node.left, ast.Constant) or not pure.format_ok(left, braces=False):
                raise Unsupported("formatting")
            return left % right
        if isinstance(node.op, (ast.Add, ast.Sub)) and pure.bits(left) + pure.bits(right) > 4 * pure.BITS:
            raise Excess("numbers that are too long")
        operation = pure.BINARY.get(type(node.op))
        if operation is None:
            raise Unsupported("an operator")
        return operation(left, right)

    def boolean(self, node: ast.BoolOp, scope: Scope) -> Any:
        stop = isinstance(node.op, ast.Or)
        value: Any = None
        for operand in node.values:
            value = self.value(operand, scope)
            if self.truth(value) is stop:
                break
        return value

    def conditional(self, node: ast.IfExp, scope: Scope) -> Any:
        return self.value(node.body if self.truth(self.value(node.test, scope)) else node.orelse, scope)

    def compare(self, node: ast.Compare, scope: Scope) -> Any:
        left: Any = self.value(node.left, scope)
        held: Any = True
        last = len(node.ops) - 1
        for i, (op, comparator) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self.value(comparator, scope)
            held = self.relation(op, left, right)
            if i < last and not self.truth(held):
                return held
            left = right
        return held

    def relation(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        """One comparison. An object equals nothing; what two of them are to each other is for the judge."""
        if self.pretends:
            odd = opaque_in(left) + opaque_in(right)
            if odd == 2 or (odd and type(op) in pure.ORDER):
                raise NeedsJudge("a comparison of objects")
        match op:
            case ast.Eq() | ast.NotEq():
                equal = _equal(left, right)
                return equal if isinstance(op, ast.Eq) else not equal
            case ast.Is() | ast.IsNot():
                if not isinstance(left, _SINGLETONS) and not isinstance(right, _SINGLETONS):
                    raise NeedsJudge("the identity of values")
                return (left is right) == isinstance(op, ast.Is)
            case ast.In() | ast.NotIn():
                if type(right) is Opaque:
                    raise NeedsJudge("what an object contains")
                if not (isinstance(right, range) and isinstance(left, int)):
                    right = pure.items(right)
                return (left in right) == isinstance(op, ast.In)
        return pure.ORDER[type(op)](left, right)

    def subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        value = self.value(node.value, scope)
        if type(value) is Opaque:
            raise NeedsJudge("an item of an object")
        if isinstance(value, type):
            raise Unsupported("a generic type")
        return value[self.index(node.slice, scope)]

    def index(self, node: ast.expr, scope: Scope) -> Any:
        if isinstance(node, ast.Slice):
            parts = (node.lower, node.upper, node.step)
            return slice(*(None if part is None else self.value(part, scope) for part in parts))
        return self.value(node, scope)

    def attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        value = self.value(node.value, scope)
        if type(value) is Opaque:
            if node.attr in methods.ONLY_TEXT:
                raise Pretender(node.attr)
            raise NeedsJudge("an attribute of an object")
        if isinstance(value, type) and node.attr != "__name__":
            if node.attr in methods.METHODS.get(value, ()):
                return functools.partial(self.method, node.attr)
            raise Unsupported(f"`.{node.attr}`")
        kind = type(value) if not isinstance(value, type) else type
        if node.attr not in methods.METHODS.get(kind, ()):
            if value is None or isinstance(value, bool):
                raise AttributeError(f"'{kind.__name__}' object has no attribute '{node.attr}'")
            raise NeedsJudge(f"`.{node.attr}` of a `{kind.__name__}`")  # its class may have it, its base class has not
        if callable(found := getattr(value, node.attr)):
            return functools.partial(self.method, node.attr, value)
        return found

    def method(self, name: str, value: Any, /, *args: Any, **keywords: Any) -> Any:
        """Calls a method of a plain value."""
        if name not in methods.METHODS.get(type(value), ()):
            raise NeedsJudge(f"`.{name}` of a `{type(value).__name__}`")
        if self.pretends and opaque_in([value, args, list(keywords.values())]):
            raise NeedsJudge("a method of what holds an object")
        if name == "format" and not pure.format_ok(value, braces=True):
            raise Unsupported("formatting")
        bounded = methods.BOUNDED.get(name)
        return bounded(value, *args, **keywords) if bounded else getattr(value, name)(*args, **keywords)

    def call(self, node: ast.Call, scope: Scope) -> Any:
        match node.func:
            case ast.Attribute(attr="format", value=receiver) if not isinstance(receiver, ast.Constant):
                raise Unsupported("formatting")
        function = self.value(node.func, scope)
        args = self.many(node.args, scope)
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                keywords.update(self.value(keyword.value, scope))
            else:
                keywords[keyword.arg] = self.value(keyword.value, scope)
        if self.pretends and opaque_in([args, list(keywords.values())]):
            raise NeedsJudge("a function of an object")
        if function is type and len(args) != 1:
            raise Unsupported("a class that is made")
        if function in (map, filter) and args:
            args[0] = pure.bounded(args[0])
        if "key" in keywords:
            keywords["key"] = pure.bounded(keywords["key"])
        function = pure.bounded(function)
        if not callable(function):
            raise TypeError(f"'{type(function).__name__}' object is not callable")
        return function(*args, **keywords)

    def lambda_(self, node: ast.Lambda, scope: Scope) -> Any:
        arguments = node.args
        if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
            raise Unsupported("a lambda with such parameters")
        names = [argument.arg for argument in arguments.args]
        defaults = self.many(arguments.defaults, scope)

        def closure(*args: Any) -> Any:
            given = [*args, *defaults[len(defaults) - (len(names) - len(args)) :]] if len(args) < len(names) else args
            if len(given) != len(names):
                raise TypeError(f"<lambda>() takes {len(names)} positional arguments but {len(args)} were given")
            return self.value(node.body, {**scope, **dict(zip(names, given, strict=True))})

        return closure

    def comprehension(self, node: Any, scope: Scope) -> Any:
        def rows() -> Any:
            yield from self.rows(node.generators, 0, scope, first)

        first = self.walk(self.value(node.generators[0].iter, scope))
        match node:
            case ast.ListComp():
                return [self.value(node.elt, row) for row in rows()]
            case ast.SetComp():
                return {self.value(node.elt, row) for row in rows()}
            case ast.DictComp():
                return {self.value(node.key, row): self.value(node.value, row) for row in rows()}
        return (self.value(node.elt, row) for row in rows())

    def rows(self, generators: list[ast.comprehension], i: int, scope: Scope, first: Any = None) -> Any:
        """The scopes that the `for` and `if` of a comprehension go through."""
        if i == len(generators):
            yield scope
            return
        generator = generators[i]
        for item in first if first is not None else self.walk(self.value(generator.iter, scope)):
            self.spend()
            inner = {**scope, **self.unpacked(generator.target, item)}
            if all(self.truth(self.value(test, inner)) for test in generator.ifs):
                yield from self.rows(generators, i + 1, inner)

    def unpacked(self, target: ast.expr, item: Any) -> dict[str, Any]:
        if isinstance(target, ast.Name):
            return {target.id: item}
        if not isinstance(target, (ast.Tuple, ast.List)) or any(isinstance(t, ast.Starred) for t in target.elts):
            raise Unsupported("a target")
        parts = list(self.walk(item))
        if len(parts) != len(target.elts):
            raise ValueError(f"{len(parts)} values to unpack, {len(target.elts)} expected")
        found: dict[str, Any] = {}
        for inner, part in zip(target.elts, parts, strict=True):
            found.update(self.unpacked(inner, part))
        return found

    def text(self, node: ast.JoinedStr, scope: Scope) -> str:
        return "".join(
            self.field(part, scope) if isinstance(part, ast.FormattedValue) else str(self.value(part, scope))
            for part in node.values
        )

    def field(self, node: ast.FormattedValue, scope: Scope) -> str:
        value = self.value(node.value, scope)
        if self.pretends and opaque_in(value):
            raise NeedsJudge("an object as text")
        spec = self.value(node.format_spec, scope) if node.format_spec is not None else ""
        if not pure.FORMAT.fullmatch(spec):
            raise Unsupported("formatting")
        convert: dict[int, Callable[[Any], Any]] = {115: str, 114: repr, 97: ascii}
        return format(convert[node.conversion](value) if node.conversion in convert else value, spec)


def _equal(left: Any, right: Any) -> Any:
    try:
        return left == right
    except RecursionError:
        raise Excess("values that are nested too deeply") from None


_HANDLERS: dict[type[ast.expr], Callable[[Evaluator, Any, Scope], Any]] = {
    Root: Evaluator.root,
    Access: Evaluator.access,
    Faulty: Evaluator.faulty,
    ast.Constant: Evaluator.constant,
    ast.Name: Evaluator.name,
    ast.List: Evaluator.sequence,
    ast.Tuple: Evaluator.sequence,
    ast.Set: Evaluator.sequence,
    ast.Dict: Evaluator.dictionary,
    ast.UnaryOp: Evaluator.unary,
    ast.BinOp: Evaluator.binary,
    ast.BoolOp: Evaluator.boolean,
    ast.IfExp: Evaluator.conditional,
    ast.Compare: Evaluator.compare,
    ast.Subscript: Evaluator.subscript,
    ast.Attribute: Evaluator.attribute,
    ast.Call: Evaluator.call,
    ast.Lambda: Evaluator.lambda_,
    ast.ListComp: Evaluator.comprehension,
    ast.SetComp: Evaluator.comprehension,
    ast.DictComp: Evaluator.comprehension,
    ast.GeneratorExp: Evaluator.comprehension,
    ast.JoinedStr: Evaluator.text,
}
SUPPORTED = frozenset(_HANDLERS)
