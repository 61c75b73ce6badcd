"""Evaluates the parts of a check that do not depend on the program, once for all completions."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping

from . import pure
from .evaluate import Evaluator
from .linear import NotATable
from .nodes import Access, Faulty, NeedsJudge, Root


def folded(node: ast.expr, held: Mapping[str, bool]) -> ast.expr:
    """The tree with everything evaluated that does not depend on the program.

    Args:
        node: The tree; it may be changed.
        held: Variables whose values are known later.

    Raises:
        NotATable: Some of it takes the host too long.
    """
    if isinstance(node, (ast.Constant, ast.Name, ast.Lambda, Root)):
        return node
    if not isinstance(node, (ast.Starred, ast.Slice, ast.FormattedValue)) and _constant(node, held):
        try:
            value = Evaluator({}, {}).evaluate(node)
        except NeedsJudge as reason:
            raise NotATable(str(reason)) from None
        except Exception as error:
            return Faulty(f"{type(error).__name__}: {str(error)[:200]}")
        if not pure.is_iterator(value) and not isinstance(value, functools.partial):
            return ast.Constant(value)
        return node
    if isinstance(node, Access):
        node.inner = folded(node.inner, held)
        if node.node is not None:
            node.node = folded(node.node, held)
        return node
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.expr):
            setattr(node, field, folded(value, held))
        elif isinstance(value, list):
            setattr(node, field, [folded(v, held) if isinstance(v, ast.expr) else v for v in value])
    for part in [*getattr(node, "keywords", ()), *getattr(node, "generators", ())]:
        if isinstance(part, ast.keyword):
            part.value = folded(part.value, held)
        else:
            part.iter = folded(part.iter, held)
    return node


def _constant(node: ast.expr, held: Mapping[str, bool]) -> bool:
    """Whether an expression depends on nothing but builtins and what it binds itself."""
    mine: set[str] = set()
    for n in ast.walk(node):
        if isinstance(n, (Root, Access)) or (isinstance(n, ast.Name) and n.id in held):
            return False
        if isinstance(n, ast.comprehension):
            mine |= {t.id for t in ast.walk(n.target) if isinstance(t, ast.Name)}
        elif isinstance(n, ast.Lambda):
            mine |= {a.arg for a in n.args.args}
    used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return all(n in mine or n in pure.FUNCTIONS or n in pure.NAMED_TYPES for n in used)
