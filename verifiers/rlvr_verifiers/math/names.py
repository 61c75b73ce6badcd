r"""What may stand left of `=` only to say what is meant: `x`, `f(x)`, `AB`, `|\vec a|`, `A \cap B`, `m+n`.

Such a name can be left out. An equation in an unknown, as `2x=19` or `|x|=2`, is not a name and its value: the left
side of a name has no numbers in it, and it is about two symbols or more, or one that is no unknown.
"""

from __future__ import annotations

import re

from .tree import Node, integer, symbols, walk, words

_WIDE = words("sym app add neg mul div ratio union inter minus func const tuple")
_COMPLEX = frozenset("zw")
_CALLED = frozenset("PQRSpq")
_MINUS_ONE = Node("neg", (integer(1),))
_INDEXED = re.compile(r"([A-Za-z])_\d{1,2}")


def is_name(node: Node) -> bool:
    """Whether it names any value at all: a symbol, a call, a tuple of symbols, a segment."""
    if node.op == "tuple" or (node.op == "func" and node.value in ("sin", "cos", "tan")):
        return all(arg.op == "sym" for arg in node.args)
    if node.op == "mul":  # a segment such as AB
        return all(arg.op == "sym" and arg.value.isupper() for arg in node.args)
    return node.op in ("sym", "app") or _is_derivative(node)


def is_quantity(node: Node) -> bool:
    """Whether it names a number, set or matrix that is then written out: `a+b`, `|AB|`, `x:y`, `A^{-1}`."""
    if node.op == "pow":
        return node.args[0].op == "sym" and node.args[0].value.isupper() and node.args[1] == _MINUS_ONE
    if node.op == "pow":
        return node.args[0].op == "sym" and node.args[0].value.isupper() and node.args[1] == _MINUS_ONE
    if node.op == "mul" and len(node.args) == 2 and node.args[0].value in _CALLED and node.args[1].op == "num":
        return True  # P(2)
    if node.op in ("neg", "tuple") or any(n.op not in _WIDE or n.value == "inf" for n in walk(node)):
        return False
    bars = [n for n in walk(node) if n.op == "func"]
    if any(n.value != "abs" for n in bars):
        return False
    if len(symbols(node)) > 1 or any(n.op == "app" for n in walk(node)):
        return True
    names = symbols(node)
    return node.op == "func" and all(not name.islower() or ":" in name or name in _COMPLEX for name in names)


def label(node: Node) -> str:
    """A key that is the same for two spellings of one name (`AB`, `\\overline{BA}`)."""
    if node.op == "sym":
        kind, _, rest = node.value.rpartition(":")
        if kind in ("overline", "bar", "widehat") or (kind == "angle" and len(rest) == 1):
            return "".join(sorted(rest)) if rest.isupper() else node.value
        return min(node.value, f"angle:{rest[::-1]}") if kind == "angle" else node.value
    if node.op == "mul" and is_name(node):
        return "".join(sorted(arg.value for arg in node.args))
    parts = [label(arg) for arg in node.args]
    if node.op == "func" and node.value == "abs" and parts[0].isupper() and len(parts[0]) > 1:
        return parts[0]  # the length of a segment
    if node.op in ("add", "mul", "union", "inter"):
        parts.sort()
    return f"{node.op}{node.value}({','.join(parts)})" if node.op != "num" else str(node.number)


def by_name(node: Node) -> dict[str, Node] | None:
    """The values of `(x,y)=(1,2)` or of a list of assignments to different names, by name; else None."""
    if node.op == "assign":
        value, name = node.args
        if name.op == value.op == "tuple" and len(name.args) == len(value.args):
            found = {label(part): item for part, item in zip(name.args, value.args, strict=True)}
            return found if len(found) == len(name.args) else None
        return None
    if node.op not in ("list", "set", "tuple") or any(arg.op != "assign" for arg in node.args):
        return None
    found = {arg.value: arg.args[0] for arg in node.args}
    return found if len(found) == len(node.args) else None


def are_indexed(names: dict[str, Node]) -> bool:
    """Whether they only number the values of one unknown: `x_1`, `x_2`."""
    matches = [_INDEXED.fullmatch(name) for name in names]
    return all(matches) and len({match[1] for match in matches if match}) == 1


def _is_derivative(node: Node) -> bool:
    r"""`\frac{dy}{dx}`"""
    return node.op == "div" and all(
        arg.op == "mul" and len(arg.args) == 2 and arg.args[0] == Node("sym", value="d") and arg.args[1].op == "sym"
        for arg in node.args
    )


def is_joint(node: Node) -> bool:
    """Whether its elements only make an answer together: a tuple, values of several unknowns, choices (`A`, `III`)."""
    names = by_name(node)
    if node.op == "tuple" or (names and not are_indexed(names)):
        return True
    return all(n.op in ("sym", "mul", "text") and all(name.isupper() for name in symbols(n)) for n in node.args)
