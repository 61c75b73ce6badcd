r"""A recursive-descent parser for answers, from tokens to an expression tree. Nothing is evaluated.

    answer   := item (sep item)*                   sep: `,` `;` `and` `or` `\quad` `\\`
    item     := operand (relation operand)*        relation: = < <= > >= != ~ in
    operand  := sum ((union | inter | minus) sum)* unit?
    sum      := sign? product ((+ | - | ± | ∓) product)*     `a:b` binds like a relation
    product  := factor ((* | / | nothing) factor)*
    factor   := sign* postfix (^ factor)?
    postfix  := atom (! | % | ° | ')*
    atom     := number | symbol | constant | function argument | ( ) | [ ] | { } | | | | matrix | words

The whole text must be an answer: anything left over is a `ParseError`. So are sums, integrals, limits and other
commands that restate a problem.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from .build import MINUS_ONE, SET_MARKS, both_signs, builder, called, in_base, named_point, number, number_set, proper
from .lexer import Token, tokenise
from .spelling import normalise
from .tree import MAX_DEPTH, MAX_ITEMS, MAX_MARKS, Node, ParseError, integer, words
from .units import canonical
from .wording import plain_words

_RELATIONS = frozenset({"=", "<", "<=", ">", ">=", "!=", "~", "in"})
_SETS = frozenset({"union", "inter", "minus"})
_CLOSING = {"(": ")]", "[": ")]", "{": ("}",), "\\{": ("\\}",), "⟨": "⟩"}
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_INFIX = frozenset({"over", "choose"})
_UNREAD = frozenset({"over", "choose", "forall", "pmod", "bmod"})
_FILLER = words("only exactly just is are the a an answer answers final equals total if when for where whenever")
_CONNECTIVES = words("so thus hence therefore then finally")
_LEADS = frozenset({"is", "are", "was", "be", "equals", "equal"})
_HEDGES = words(
    "not no never neither nor about around roughly approximately nearly almost least most more less fewer greater over "
    "under than between up half third quarter double twice triple percent square cube root multiple factor if unless "
    "except maybe possibly perhaps probably either or sometimes negative minus times plus"
)
_CONDITIONS = words("if when for where whenever otherwise else")
_ATOM_KINDS = frozenset({"num", "sym", "const", "func"})
_ATOM_OPS = frozenset({"(", "[", "{", "\\{", "⟨", "⌊", "⌈"})
_FUNCTION_LETTERS = frozenset("fghFG")
_MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"})
_SYSTEMS = frozenset({"cases", "dcases", "rcases", "aligned", "align", "align*", "gathered", "gather", "split"})
_END = Token("end", "")


def parse(text: str) -> tuple[Node, ...]:
    """The readings of an answer: one, or two where `70,110` may be a number or a list.

    Raises:
        ParseError: If the text is no answer of the grammar, or over a limit.
    """
    text = normalise(text)
    tokens = tokenise(text)
    readings = [tokens]
    if "," in text:
        apart = tokenise(text, thousands=False)
        if apart != tokens and not any(len(t.value) > 1 and t.value[0] == "0" and t.value.isdigit() for t in apart):
            readings.append(apart)
    return tuple(_Parser(reading).answer() for reading in readings)


def _leads_in(label: list[str]) -> bool:
    """Whether words may stand before a value without changing it: "the area is", "there are", "a total of"."""
    if not _HEDGES.isdisjoint(label):
        return False
    return _FILLER.issuperset(label) or label[-1] in _LEADS or label[-2:] == ["total", "of"]


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0  # open |...| or \{...| whose bar would close it, at this bracket level

    # -- tokens

    @property
    def next(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else _END

    def peek(self, ahead: int) -> Token:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else _END

    def take(self) -> Token:
        token = self.next
        self.at += 1
        return token

    def is_op(self, *values: str) -> bool:
        token = self.next
        return token.kind == "op" and token.value in values

    def accept(self, *values: str) -> str:
        return self.take().value if self.is_op(*values) else ""

    def expect(self, value: str) -> None:
        if not self.accept(value):
            raise ParseError(f"`{value}` is missing before `{self.next.value or 'the end'}`")

    def nested(self, rule: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ParseError(f"it is nested deeper than {MAX_DEPTH} levels")
        bars, self.bars = self.bars, 0
        node = rule()
        self.bars = bars
        self.depth -= 1
        return node

    # -- answer, item, operand

    def answer(self) -> Node:
        node = self.items(soft=True)
        if self.next is not _END:
            raise ParseError(f"`{self.next.value}` is left over")
        return node

    def items(self, *, soft: bool = False, expand: bool = True) -> Node:
        """Items up to a closing token: the single one, or a list; ± is written out into both signs."""
        found: list[Node] = []
        joints: set[str] = set()
        while soft and self.next.kind == "sep" and self.next.value == "\\\\":
            self.at += 1
        while True:
            item = self.item()
            found.extend(both_signs(item) if expand else [item])
            if len(found) > MAX_ITEMS:
                raise ParseError(f"it has more than {MAX_ITEMS} elements")
            if self.next.kind != "sep":
                break
            while self.next.kind == "sep":
                joints.add(self.take().value)
            if self.next is _END:
                break
        if len(found) == 1:
            return found[0]
        return Node("list", tuple(found), "and" if "and" in joints else "or" if "or" in joints else ",")

    def item(self) -> Node:
        label: list[str] = []
        while self.next.kind == "word" or (label and self.next.kind == "sym" and self.next.text):
            label.append(self.take().value)
        if label and self.next == ("sep", ",", False) and set(map(str.lower, label)) <= _CONNECTIVES:
            self.at += 1  # "Thus, 6"
        elif label:
            if self.next.kind in ("end", "sep", "env") or self.is_op(")", "\\}", "}", "]", "&"):
                return Node("text", value=plain_words(" ".join(label)))
            spoken = [word.lower() for word in label]
            indexed = self.is_op("[") and spoken[-1] not in _LEADS
            if indexed or (not (_HEDGES.isdisjoint(spoken) and self.is_op("=", ":")) and not _leads_in(spoken)):
                raise ParseError(f"`{' '.join(label)}` stands before a formula")
            self.accept("=", ":")
        operands = [self.operand()]
        if operands[0].op == "mul" and not self.is_op(*_RELATIONS):
            operands[0] = named_point(operands[0])
        relations: list[str] = []
        while self.is_op(*_RELATIONS):
            relations.append(self.take().value)
            operands.append(self.operand())
        return Node("rel", tuple(operands), " ".join(relations)) if relations else operands[0]

    def operand(self) -> Node:
        currency = self.next if self.next.kind == "cur" else self.peek(1) if self.is_op("-", "+") else _END
        node = self.ratio()
        count = 0
        while self.is_op(*_SETS):
            count += 1
            if count > MAX_DEPTH:
                raise ParseError(f"it has more than {MAX_DEPTH} set operations")
            op = self.take().value
            right = self.ratio()
            flat = node.args if node.op == op and op != "minus" else (node,)
            node = Node(op, (*flat, right))
        return self.with_unit(node, [currency.value] if currency.kind == "cur" else [])

    def with_unit(self, node: Node, names: list[str]) -> Node:
        while True:
            token = self.next
            if token.value in _CONDITIONS:
                break
            if token.kind in ("word", "cur") or (token.kind == "sym" and (token.text or names[-1:] == ["/"])):
                names.append(self.take().value)
            elif self.is_op("/") or (self.is_op("*") and self.is_unit(1)) or (names and self.is_op("^")):
                names.append(self.take().value)
                if names[-1] == "^":
                    braces = self.accept("{")
                    names.append(self.accept("-") + self.take().value)
                    if braces:
                        self.expect("}")
            elif token.kind == "raw" and token.value == "frac" and self.is_unit(2):
                self.at += 1
                names += [*self.unit_group(), "/", *self.unit_group()]
            elif token.kind == "func" and token.value in ("min", "sec") and not names:
                names.append(self.take().value)  # only reached when no argument follows
            else:
                break
        unit = canonical(names) if names else ""
        if not unit:
            return node
        return Node("unit", (node,), unit)

    def unit_group(self) -> list[str]:
        """The unit in the next pair of braces."""
        self.expect("{")
        names: list[str] = []
        while not self.accept("}"):
            if self.next is _END or len(names) > MAX_MARKS + 2:
                raise ParseError("a unit is never closed")
            names.append(self.take().value)
        return [name for name in names if name not in "{}"]

    def ratio(self) -> Node:
        parts = [self.sum()]
        if self.next.kind == "raw" and self.next.value in _INFIX:
            over = self.take().value == "over"
            below = self.sum()
            return Node("div", (parts[0], below)) if over else Node("func", (parts[0], below), "binom")
        while not self.bars and self.is_op(":") and len(parts) < MAX_ITEMS:
            self.at += 1
            parts.append(self.sum())
        if len(parts) == 1:
            return parts[0]
        return Node("div", tuple(parts)) if len(parts) == 2 else Node("ratio", tuple(parts))

    # -- arithmetic

    def sum(self) -> Node:
        terms: list[Node] = []
        sign = self.accept("+", "-", "pm", "mp")
        while True:
            term = self.product()
            if sign in ("-", "pm", "mp"):
                term = Node({"-": "neg"}.get(sign, sign), (term,))
            terms.append(term)
            sign = self.accept("+", "-", "pm", "mp")
            if not sign:
                return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        above, below = [self.factor()], []
        while True:
            if self.is_op("*") and not self.is_unit(1):
                self.at += 1
                above.append(self.factor())
            elif self.is_op("/") and self.peek(1).kind != "word":
                self.at += 1
                below.append(self.factor())
            elif self.starts_atom():
                if self.next.kind == "num" and above[-1].op == "pct":
                    raise ParseError("a number follows `%`")
                if self.next.kind == "num" and above[-1].op == "deg" and self.peek(1).value == "'":
                    above[-1] = self.minutes(above[-1])
                elif self.next.kind == "num" and above[-1].op == "num":
                    above[-1] = self.mixed(above[-1])
                elif self.is_fraction() and above[-1].op == "num" and not below:
                    above[-1:] = self.after_number(above[-1])
                else:
                    above.append(self.factor())
            elif self.next.kind == "scale":
                above.append(integer(_SCALES[self.take().value]))
            else:
                break
        top = above[0] if len(above) == 1 else Node("mul", tuple(above))
        if not below:
            return top
        return Node("div", (top, below[0] if len(below) == 1 else Node("mul", tuple(below))))

    def minutes(self, degrees: Node) -> Node:
        """`22^\\circ 30'`, the minutes of an arc."""
        value, at = number(self.take().value), self.at
        self.at = at + 1
        sixtieth = Node("div", (value, integer(60)))
        return Node("deg", (Node("add", (degrees.args[0], sixtieth)),))

    def is_fraction(self) -> bool:
        """Whether a `\\frac` is next, perhaps in braces of its own."""
        braces = int(self.is_op("{"))
        return self.peek(braces).kind == "raw" and self.peek(braces).value == "frac"

    def after_number(self, whole: Node) -> list[Node]:
        """A number and the `\\frac` right after it: one mixed number with what marks it, or two factors."""
        start = self.at
        part = proper(self.atom())
        if part is None or whole.places >= 0 or whole.number.denominator > 1:
            self.at = start
            return [whole, self.factor()]
        node = self.marked(Node("num", number=whole.number + part))
        return [self.power(node) if self.accept("^") else node]

    def is_unit(self, ahead: int) -> bool:
        """Whether the token stands for a unit: a word, or a letter in `\\text{}`."""
        token = self.peek(ahead)
        return token.kind == "word" or (token.kind == "sym" and token.text)

    def mixed(self, whole: Node) -> Node:
        """`1 1/2` in plain text; any other two numbers side by side are no answer."""
        top, slash, bottom = self.take(), self.take(), self.take()
        if (slash.value, bottom.kind) == ("/", "num") and top.value.isdigit() and bottom.value.isdigit():
            part = proper(Node("div", (number(top.value), number(bottom.value))))
            if part and whole.places < 0:
                return Node("num", number=whole.number + part)
        raise ParseError("two numbers stand side by side")

    def factor(self) -> Node:
        negative = False
        while sign := self.accept("-", "+"):
            negative ^= sign == "-"
        node = self.postfix()
        if self.accept("^"):
            node = self.power(node)
        return Node("neg", (node,)) if negative else node

    def power(self, base: Node) -> Node:
        if self.accept("°"):
            return Node("deg", (base,))
        if base.op == "matrix" and self.next.value in ("T", "top"):
            self.at += 1
            rows = tuple(Node("list", column) for column in zip(*(row.args for row in base.args), strict=True))
            return Node("matrix", rows)
        if self.is_op("{") and self.peek(1).value in ("°", "'") and self.peek(2).value == "}":
            mark = self.peek(1).value
            self.at += 3
            return Node("deg", (base,)) if mark == "°" else self.primed(base)
        exponent = self.nested(self.factor)
        if base.op == "sym" and base.value in _FUNCTION_LETTERS and exponent == MINUS_ONE and self.is_op("("):
            return self.applied(base._replace(value=base.value + "^-1"))
        return self.marked(Node("pow", (base, exponent)))

    def postfix(self) -> Node:
        return self.marked(self.atom())

    def marked(self, node: Node) -> Node:
        for _ in range(MAX_MARKS):
            if not self.is_op("!", "%", "°", "'"):
                return node
            node = self.mark(node, self.take().value)
        if self.is_op("!", "%", "°", "'"):
            raise ParseError(f"more than {MAX_MARKS} marks follow a value")
        return node

    def mark(self, node: Node, mark: str) -> Node:
        if mark == "'" and node.op == "num" and self.accept("'"):
            return Node("unit", (node,), "in")
        if mark == "'":
            return self.primed(node)
        if mark == "!":
            if self.accept("!"):
                mark = "!!"
            if self.is_op("!"):
                raise ParseError("`!!!` is not understood")
            return Node("fact", (node,), mark)
        if mark == "°" and node.op == "sym" and self.starts_atom():
            raise ParseError("a composition of functions")
        return Node("pct" if mark == "%" else "deg", (node,))

    def primed(self, node: Node) -> Node:
        if node.op != "sym":
            raise ParseError("a prime stands after something that is not a symbol")
        node = node._replace(value=node.value + "'")
        return self.applied(node) if node.value[0] in _FUNCTION_LETTERS and self.is_op("(") else node

    # -- atoms

    def starts_atom(self) -> bool:
        kind, value, _ = self.next
        if kind == "func" and value in ("min", "sec") and self.peek(1).kind in ("end", "sep"):
            return False  # minutes and seconds
        if kind == "sym" and self.next.text:
            return False  # a unit such as \text{m}
        if kind == "op":
            return value in _ATOM_OPS or (value == "|" and not self.bars)
        if kind == "raw":
            return value not in _INFIX and not (value == "frac" and self.peek(1).value == "{" and self.is_unit(2))
        return kind in _ATOM_KINDS or (kind == "env" and value.startswith("begin"))

    def atom(self) -> Node:
        kind, value, _ = token = self.take()
        if kind == "num":
            return self.repeating(number(value)) if self.next.value == "overline" else number(value)
        if kind == "const":
            return Node("const", value=value)
        if kind == "sym":
            return self.symbol(value)
        if kind == "func":
            return self.nested(lambda: self.function(value))
        if kind == "raw":
            return self.nested(lambda: self.special(value))
        if kind == "env" and value.startswith("begin "):
            return self.nested(lambda: self.matrix(value[6:]))
        if kind == "cur":
            return self.nested(self.factor)  # its unit was noted where the operand began
        if kind == "op" and value in _CLOSING:
            return self.nested(lambda: self.group(value))
        if kind == "op" and value == "|":
            return self.nested(lambda: self.bar("|", "abs"))
        if kind == "op" and value in "⌊⌈":
            return self.nested(lambda: self.bar("⌋" if value == "⌊" else "⌉", "floor" if value == "⌊" else "ceil"))
        raise ParseError(f"`{token.value}` stands where a value should" if value else "a value is missing")

    def symbol(self, name: str) -> Node:
        if self.accept("_"):
            name += "_" + self.subscript()
        node = Node("sym", value=name)
        if name[0] in _FUNCTION_LETTERS and self.is_op("("):
            return self.applied(node)
        if name == "P" and self.is_op("(") and self.peek(1).kind == "sym" and self.peek(1).value.isupper():
            return self.applied(node)  # the probability of an event
        ahead = [self.peek(k).value for k in range(4)]
        if ahead[:3] == ["(", "0", ")"]:
            return self.applied(node)  # nobody multiplies by (0)
        defined = ahead[0] == "(" and ahead[2:] == [")", "="] and self.peek(1).kind == "sym"  # x(t) = ...
        return self.applied(node) if defined and not self.depth else node

    def applied(self, name: Node) -> Node:
        self.at += 1
        arguments = self.nested(lambda: self.items(expand=False))
        self.expect(")")
        return Node("app", arguments.args if arguments.op == "list" else (arguments,), name.value)

    def subscript(self) -> str:
        if not self.accept("{"):
            return self.take().value
        parts: list[str] = []
        depth = 1
        while self.next is not _END:
            token = self.take()
            depth += (token.value == "{") - (token.value == "}")
            if not depth:
                return "".join(parts)
            parts.append(token.value)
        raise ParseError("a subscript is never closed")

    def function(self, name: str) -> Node:
        base = index = None
        if self.accept("_"):
            base = self.argument()
        if self.accept("^"):
            index = self.argument()
        inner = self.atom() if self.is_op("(", "[", "{", "|", "⌊", "⌈") else self.bare_argument()
        if name in ("min", "max"):
            if inner.op not in ("tuple", "set", "list"):
                raise ParseError(f"`{name}` needs several arguments")
            node = Node("func", inner.args, name)
        elif inner.op in ("tuple", "set", "list", "interval"):
            raise ParseError(f"`{name}` takes one argument")
        elif base is not None:
            if name != "log":
                raise ParseError(f"`{name}` takes no subscript")
            node = Node("div", (Node("func", (inner,), "ln"), Node("func", (base,), "ln")))
        else:
            node = called(name, inner)
        if index is None:
            return node
        if index == Node("neg", (integer(1),)) and name in ("sin", "cos", "tan"):
            return Node("func", (inner,), "arc" + name)
        return Node("pow", (node, index))

    def bare_argument(self) -> Node:
        """The argument of `sin 2x`: factors side by side, up to a sign, `*`, `/` or another function."""
        factors = [self.factor()]
        while self.starts_atom() and self.next.kind != "func" and not self.is_op("(", "[", "|"):
            factors.append(self.factor())
        return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def argument(self) -> Node:
        """What `\\frac` and `_` take: a group, a number's single digit, or one atom."""
        if self.is_op("{"):
            return self.atom()
        if self.is_op("-"):
            self.at += 1
            return Node("neg", (self.argument(),))
        return self.atom()

    def digit(self) -> Node:
        """As `argument`, but of a digit string only the first digit: `\\frac12` is a half."""
        token = self.next
        if token.kind == "num" and len(token.value) > 1 and token.value.isdigit():
            self.tokens[self.at] = Token("num", token.value[1:])
            return number(token.value[0])
        return self.argument()

    def special(self, name: str) -> Node:
        if name in _UNREAD:
            raise ParseError(f"`\\{name}` is not understood")
        if name == "frac":
            top = self.digit()
            return Node("div", (top, self.digit()))
        if name == "binom":
            return Node("func", (self.digit(), self.digit()), "binom")
        if name == "sqrt":
            index = integer(2)
            if self.accept("["):
                index = self.sum()
                self.expect("]")
            return Node("root", (self.argument(), index))
        if name == "dots":
            return Node("dots")
        if name == "empty":
            return Node("set")
        if name == "mathbb":
            return number_set(self.subscript_like(), self.set_mark())
        if name.startswith("base "):
            return in_base(*name.split()[1:])
        return Node("sym", value=f"{name}:{self.subscript_like()}")  # \overline{AB} and the like, as they stand

    def subscript_like(self) -> str:
        if self.is_op("{"):
            return self.subscript()
        parts: list[str] = []
        while self.next.kind in ("sym", "const"):
            parts.append(self.take().value)
        return "".join(parts)

    def set_mark(self) -> str:
        """The mark of `\\mathbb{Z}^+` or `\\mathbb{R}_{>0}`; nothing is taken where none follows."""
        start = self.at
        if not self.accept("^", "_"):
            return ""
        mark = self.subscript() if self.is_op("{") else self.take().value
        if mark not in SET_MARKS:
            self.at, mark = start, ""
        return mark

    def repeating(self, head: Node) -> Node:
        """`0.1\\overline{6}`; the decimals before the bar are in `head`."""
        self.at += 1
        digits = self.subscript() if self.is_op("{") else self.take().value
        if not digits.isdigit() or len(digits) > 50:
            raise ParseError("`\\overline` stands over something that is not digits")
        places = max(head.places, 0)
        return Node("num", number=head.number + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places))

    def matrix(self, name: str) -> Node:
        if name not in _MATRICES and name not in _SYSTEMS:
            raise ParseError(f"`\\begin{{{name}}}` is not understood")
        aligned = name in _SYSTEMS and "cases" not in name
        rows: list[tuple[Node, ...]] = []
        row: list[Node] = []
        while self.next.kind != "env" or self.next.value.startswith("begin"):
            if aligned:
                self.accept("&")
            if row and self.next.value in _CONDITIONS and self.peek(1).kind not in ("env", "sep"):
                self.at += 1  # the condition itself follows
            row.append(self.item())
            comma = name in _SYSTEMS and self.next == ("sep", ",", False)
            self.at += comma
            goes_on = self.accept("&") or comma or self.next.value in _CONDITIONS
            if goes_on and self.next != ("sep", "\\\\", False) and self.next.kind != "env":
                continue
            rows.append(tuple(row))
            row = []
            if self.next == ("sep", "\\\\", False):
                self.at += 1
            elif self.next.kind != "env":
                raise ParseError(f"`{self.next.value}` stands in a matrix")
        if self.take().value != f"end {name}" or not rows or row:
            raise ParseError("a matrix is not closed as it was opened")
        if len({len(r) for r in rows}) > 1 or sum(map(len, rows)) > 4 * MAX_ITEMS:
            raise ParseError("the rows of a matrix differ in length, or it is too large")
        if all(len(r) == 1 and r[0].op == "rel" for r in rows):
            return Node("list", tuple(r[0] for r in rows), "and")  # a system
        return Node("matrix", tuple(Node("list", r) for r in rows), "cases" if "cases" in name else "")

    def bar(self, closing: str, name: str) -> Node:
        self.bars = closing == "|"
        inner = self.sum()
        self.bars = 0
        self.expect(closing)
        return Node("func", (inner,), name)

    def group(self, opening: str) -> Node:
        closings = _CLOSING[opening]
        if self.is_op(*closings):
            if opening == "\\{":
                self.at += 1
                return Node("set")
            raise ParseError("there is nothing between brackets")
        self.bars = opening == "\\{"
        inner = self.items(expand=opening == "\\{")
        if self.bars and self.accept("|", ":"):
            inner = builder(inner, self.items())
        closing = self.accept(*closings)
        if not closing:
            raise ParseError(f"`{opening}` is never closed")
        if inner.op == "rel" or (inner.op == "list" and any(arg.op == "rel" for arg in inner.args)):
            return inner
        if opening == "\\{" or (opening == "{" and inner.op == "list"):
            return Node("set", inner.args if inner.op == "list" else (inner,))
        if inner.op == "list":
            if len(inner.args) == 2 and opening + closing != "()" and opening != "⟨":
                return Node("interval", inner.args, opening + closing)
            if opening + closing in ("(]", "[)"):
                raise ParseError(f"`{opening}` is closed by `{closing}`")
            return Node("tuple", inner.args)
        if opening + closing in ("(]", "[)"):
            raise ParseError(f"`{opening}` is closed by `{closing}`")
        return inner
