"""Calls written as Python: `[f(a=1), g(b="x")]`, or one call, or one on each line.

    f(a=1)                    [f(a=1), g(b=[1, 2])]            f(a=1), g()            shop.cart.add(item="x")
    f(a=-1.5, b=None)         f(a={"k": (1, 2)})               []  (no call)          f()

The text is parsed with `ast` and never evaluated. `ast` can bring the interpreter down with text that nests deeply, so
a look at the tokens comes before it: what follows what, how deep brackets go, how long everything is.

Refused: operators (also between calls: `f() or g()`), f-strings and bytes, comprehensions, names other than True,
False and None (`true` and `null` are no Python), calls as arguments, sets, keys that are no strings, duplicate keys and
keywords, `*` and `**`, numbers beyond a double. Arguments are keywords, as a schema has no order of parameters; one
that stands alone is understood where the tool has one parameter.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..jsontext import LARGEST, MOST_DIGITS
from .calls import LIMITS, Malformed, ToolCall
from .tools import Tool

MOST_TOKENS = 20_000
MOST_DOTS = 16

_BEGINS = re.compile(r"\[?\s*([^\W\d][\w.]*)\s*\(")
_TOKEN = re.compile(
    r"""
      (?P<string>[rRuU]?+(?:\"{3}(?:[^"\\]++|\\.|"(?!""))*+\"{3} | '{3}(?:[^'\\]++|\\.|'(?!''))*+'{3}
                         |"(?:[^"\\\r\n]++|\\.)*+" | '(?:[^'\\\r\n]++|\\.)*+' ))
    | (?P<number>-?+(?:0[xXoObB][0-9a-fA-F_]++ | (?:[0-9][0-9_]*+(?:\.[0-9_]*+)?+ | \.[0-9][0-9_]*+)
                 (?:[eE][+-]?+[0-9_]++)?+))
    | (?P<name>[^\W\d]\w*+)
    | (?P<sign>[\[\](){}.,:=;])
    | (?P<line>[\r\n]) | (?P<space>[^\S\r\n]++|\#[^\r\n]*+)
    """,
    re.VERBOSE | re.DOTALL,
)


_STRING = r"""(?:"(?:[^"\\\r\n]++|\\.)*+"|'(?:[^'\\\r\n]++|\\.)*+')"""
_SCALAR = rf"(?:{_STRING}|-?[0-9]{{1,300}}+(?:\.[0-9]{{1,300}}+)?+|True|False|None)"
_VALUE = rf"(?:{_SCALAR}|\[(?:{_SCALAR}(?:,\ *+{_SCALAR})*+)?+\])"
_KEYWORD = rf"[a-zA-Z_]\w*+\ ?=\ ?{_VALUE}"
_FLAT_CALL = rf"[a-zA-Z_]\w*+(?:\.[a-zA-Z_]\w*+){{0,8}}+\((?:{_KEYWORD}(?:,\ *+{_KEYWORD})*+)?+\)"
_is_flat = re.compile(rf"\[?{_FLAT_CALL}(?:,\s*+{_FLAT_CALL})*+\]?", re.ASCII | re.DOTALL).fullmatch
"""Most calls: nothing in their values but lists of scalars, so that no look at the tokens is needed."""

_RESERVED = re.compile(rf"\b(?:{'|'.join(keyword.kwlist)})\ ?=")
_FLAT_LIMIT = 10_000
_NONE: dict[str, str] = {}


def python_calls(text: str, tools: Mapping[str, Tool]) -> list[ToolCall] | None:
    """The calls that a text is; None when it is something else, such as prose.

    Raises:
        Malformed: It begins as a call of one of the tools does, and breaks a rule.
    """
    if text == "[]":
        return []
    begins = _BEGINS.match(text)
    if begins is None:
        return None
    try:
        return _calls(text, tools)
    except Malformed:
        if begins[1] in tools:
            raise
        return None


def _calls(text: str, tools: Mapping[str, Tool]) -> list[ToolCall]:
    flat = len(text) <= _FLAT_LIMIT and _is_flat(text) and not _RESERVED.search(text)
    source, renamed = (text, _NONE) if flat else _checked(text)
    try:
        body = _parsed(source)
    except (SyntaxError, ValueError) as error:
        problem = error.msg if isinstance(error, SyntaxError) else str(error)
        raise Malformed(f"it is not Python: {problem}") from None
    except (RecursionError, MemoryError):
        raise Malformed("it is nested too deeply") from None
    nodes: list[ast.expr] = []
    for statement in body:
        if not isinstance(statement, ast.Expr):
            raise Malformed("it holds a statement that is no call")
        nodes.append(statement.value)
    if len(nodes) == 1 and isinstance(nodes[0], (ast.List, ast.Tuple)):
        nodes = nodes[0].elts
    return [_call(node, tools, renamed) for node in nodes]


def _parsed(source: str) -> list[ast.stmt]:
    if "\\" not in source:
        return ast.parse(source).body
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        return ast.parse(source).body


def _checked(text: str) -> tuple[str, dict[str, str]]:
    """The text with other names for keywords that Python keeps for itself (`from=`), and what those stand for.

    Raises:
        Malformed: Something in it can be no part of a call, or is more than is read.
    """
    if len(text) > LIMITS.characters:
        raise Malformed(f"it is {len(text):,} characters long; the limit is {LIMITS.characters:,}")
    depth = dots = tokens = end = 0
    before, token = "", ""
    span = 0, 0
    reserved: list[tuple[int, int]] = []
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        kind = match.lastgroup or ""
        if kind == "space":
            continue
        if kind == "line":
            if not depth:
                before = ""
            continue
        if kind == "number" and end - match.start() > MOST_DIGITS + 1:
            raise Malformed(f"a number of {end - match.start():,} digits is beyond double precision")
        tokens += 1
        last, token = token, match[0]
        now = token if kind == "sign" else kind
        if (before, now) in _NEVER:
            raise Malformed(f"`{token[:20]}` cannot stand behind `{last[:20]}`")
        if before == "keyword":
            if now != "=":
                raise Malformed(f"`{last}` can be no part of a call with literal arguments")
            reserved.append(span)
        if kind == "sign":
            if token in "([{":
                depth += 1
                if depth > LIMITS.depth:
                    raise Malformed(f"brackets are more than {LIMITS.depth} deep")
            elif token in ")]}":
                depth -= 1
            dots = dots + 1 if token == "." else 0
            if dots > MOST_DOTS:
                raise Malformed(f"a name has more than {MOST_DOTS} dots")
        elif kind == "name":
            if not token.isascii() and unicodedata.normalize("NFKC", token) != token:
                raise Malformed("a name is written with characters that Python replaces by others")
            if keyword.iskeyword(token) and token not in _LITERALS:
                now, span = "keyword", match.span()
        before = now
    if end < len(text):
        raise Malformed(f"`{text[end : end + 20]}` can be no part of a call with literal arguments")
    if tokens > MOST_TOKENS:
        raise Malformed(f"it has more than {MOST_TOKENS:,} parts")
    return _renamed(text, reserved) if reserved else (text, {})


_LITERALS = {"True", "False", "None"}
_ENDS = ("string", "number", "name", ")", "]", "}")
_STARTS = ("string", "number", "name", "(", "[", "{", ".")
_NEVER = {(end, start) for end in _ENDS for start in _STARTS} - {("name", "("), ("name", "."), ("string", "string")}
_NEVER |= {(".", kind) for kind in (*_ENDS, *_STARTS, ",", ":", "=", ";") if kind != "name"}
"""What stands behind what only in an operation, a call of a call, a subscript or an attribute of a value."""


def _renamed(text: str, reserved: Sequence[tuple[int, int]]) -> tuple[str, dict[str, str]]:
    """The text with a name in the place of each of these keywords, and what the names stand for."""
    names: dict[str, str] = {}
    pieces, at = [], 0
    for start, end in reserved:
        name = f"keyword{len(names)}_"
        if name in text:
            raise Malformed(f"`{text[start:end]}` cannot be a keyword")
        names[name] = text[start:end]
        pieces += [text[at:start], name]
        at = end
    return "".join([*pieces, text[at:]]), names


def _call(node: ast.expr, tools: Mapping[str, Tool], renamed: Mapping[str, str]) -> ToolCall:
    if not isinstance(node, ast.Call):
        raise Malformed("it holds a value that is no call")
    name = _dotted(node.func)
    arguments: dict[str, Any] = {}
    for given in node.keywords:
        if given.arg is None:
            raise Malformed(f"`**` in the call of `{name[:60]}`")
        key = renamed.get(given.arg, given.arg)
        if key in arguments:
            raise Malformed(f"`{key[:60]}` is given twice to `{name[:60]}`")
        arguments[key] = _literal(given.value)
    if node.args:
        tool = tools.get(name)
        if len(node.args) > 1 or arguments or tool is None or len(tool.properties) != 1:
            raise Malformed(f"an argument of `{name[:60]}` is given without its name")
        arguments[next(iter(tool.properties))] = _literal(node.args[0])
    return ToolCall(name, arguments)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise Malformed("what is called is no name")


def _literal(node: ast.expr) -> Any:
    """The JSON value that a literal is.

    Raises:
        Malformed: It is none.
    """
    match node:
        case ast.Constant(value=bool() | None as value):
            return value
        case ast.Constant(value=str() as value):
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise Malformed("a string has half of a surrogate pair") from None
            return value
        case ast.Constant(value=int() | float() as value):
            return _number(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if value is not True:
            return -_number(value)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            made: dict[str, Any] = {}
            for key, item in zip(keys, values, strict=True):
                if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                    raise Malformed("a key of a dict is no string")
                name = _literal(key)
                if name in made:
                    raise Malformed(f"the key `{name[:60]}` occurs twice in one dict")
                made[name] = _literal(item)
            return made
        case ast.Name(id=name):
            raise Malformed(f"`{name[:60]}` is a name, not a value")
    raise Malformed(f"an argument is no literal ({type(node).__name__})")


def _number(value: float) -> float:
    if value > LARGEST if isinstance(value, int) else math.isinf(value):
        raise Malformed("a number is beyond double precision")
    return value
