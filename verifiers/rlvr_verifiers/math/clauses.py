r"""Rewrites what an answer says in words or shorthand into the list form that the parser reads.

    y=x^2 \text{ for all real } x       y=x^2, x\in\mathbb{R}
    \frac{\pi}{4}+k\pi\ (k\in\mathbb{Z})   \frac{\pi}{4}+k\pi, k\in\mathbb{Z}
    n\equiv 1 \pmod 3                   n=1+(3)k_{mod}, k_{mod}\in\mathbb{Z}
    ]-\infty;3]                         (-\infty;3]

It also takes answers to several parts apart, `(a) 3, (b) 5`, and a value from a label that cannot be parsed,
`P(A|B)=\frac13`. Everything is a bounded search on text of limited length; what is not recognised stays as it is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

MAX_CLAUSE = 600
"""Longest answer that is looked at."""

_SYMBOLS = str.maketrans(
    {"∈": r"\in ", "≡": r"\equiv ", "∀": r"\forall ", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℝ": r"\mathbb{R}",
     "≥": r"\ge ", "≤": r"\le ", "≠": r"\ne ", "，": ",", "；": ";"}
)  # fmt: skip
_TRIGGER = re.compile(
    r"\\equiv|[∈≡∀]|mod\b|\\forall|\\in(?![a-z])|\\notin|[\[\])}]\s*$|^\s*(?:\\left)?\s*\]"
    r"|\b(?:for|where|with|such|given|provided|even|odd|except|all|All)\b|\\begin"
)
_SIZES = re.compile(r"\\(?:left|right|bigg?[lr]?|Bigg?[lr]?)(?![a-z])\s*")
_TEXT = re.compile(r"\\(?:text|textrm|mathrm|mbox|operatorname|rm)\s*\{([^{}]*)\}")
_GAP = r"(?:[\s,;~]|\\q?quad(?![a-z])|\\[,;:! ])*"
_GAPS = re.compile(r"(?:[\s,;~]|\\q?quad(?![a-z])|\\[,;:! ]|\\(?=\s*$))+$")


_CROSS = re.compile(r"\\(?:vec|overrightarrow|hat)\s*(?:\{[^{}]*\}|[a-z])\s*\\times")


def is_cross_product(text: str) -> bool:
    """Whether vectors are multiplied with a cross, which the tree cannot tell from a dot."""
    return "\\times" in text and bool(_CROSS.search(text))


def rewrite(text: str) -> str:
    """The text with its conditions as items of a list, congruences as families and brackets the usual way round."""
    if len(text) > MAX_CLAUSE or not _TRIGGER.search(text):
        return text
    text = text.translate(_SYMBOLS) if not text.isascii() else text
    if "]" in text or "[" in text:
        text = _brackets(text)
    if "\\begin" in text:
        text = _SYSTEM.sub(r"\\begin{cases}\2\\end{cases}", text)
    if "equiv" in text or "mod" in text:
        text = _congruences(text)
    if "notin" in text:
        text = _NOT_IN.sub(r"\1 \\in \\mathbb{R} \\setminus \2", text)
    if "even" in text or "odd" in text:
        text = _ODD_SYMBOL.sub(_parity, _ALL_ODD.sub(_parity, text))
    if every := _EVERY_ONE.fullmatch(text):
        text = every[2] + (rf", {every[2].strip()[0]}\in\mathbb{{Z}}" if every[1] else "")
    if "except" in text:
        text = _EXCEPT.sub(r"\\mathbb{R} \\setminus \\{\1\\}", text)
    return _parenthesised(_quantified(text))


_SYSTEM = re.compile(
    r"(?:\\left\s*)?\\\{\s*\\begin\s*\{(array|aligned|matrix|gathered)\}(?:\s*\{[lcr|\s]*\})?(.*?)[.,;\s]*"
    r"\\end\s*\{\1\}\s*(?:\\right\s*\.)?",
    re.DOTALL,
)
_ALL_ODD = re.compile(
    r"\\text\s*\{\s*(?:if |for |when )?\s*(?:all |All )?(?P<parity>even|odd)\s*(?:integers |numbers )?\s*\}\s*"
    r"(?P<name>[a-z])(?![a-z])"
)
_ODD_SYMBOL = re.compile(r"(?<![A-Za-z\\])(?P<name>[a-z])\s*\\text\s*\{\s*(?:is )?(?:an )?(?P<parity>even|odd)\s*\}")
_EVERY_ONE = re.compile(
    r"\\text\s*\{\s*[Aa]ll(?: real)?(?: (integers)| numbers| values of)?\s*\}\s*([a-z]\s*(?:\\[gln]e|[<>]).*)",
    re.DOTALL,
)
_EXCEPT = re.compile(
    r"^(?:\\text\s*\{)?\s*(?:\\mathbb\s*\{?\s*R\s*\}?|[Aa]ll real (?:numbers|values)|[Aa]ll reals)"
    r"(?:\\text\s*\{|[\s,}])*except(?: for| when| at)?[\s}]*(?:[a-z]\s*=)?\s*([-\w\\{},/]+)\s*\}?$"
)


def _parity(match: re.Match[str]) -> str:
    return f"{match['name']}\\in\\mathbb{{{match['parity'].title()}}}"


_NOT_IN = re.compile(r"([A-Za-z])\s*\\notin\s*(\\\{[^{}]*\\\})")


# -- brackets

_REVERSED = re.compile(r"([\[\]])([^\[\](){}]*[,;][^\[\](){}]*)([\[\]])")


def _brackets(text: str) -> str:
    r"""`]a,b[` as `(a,b)`, in answers that open with `]` or close with `[`."""
    bare = _SIZES.sub("", text).strip(" $.")
    if not (bare.startswith("]") or bare.endswith("[")):
        return text
    return _REVERSED.sub(lambda m: ("[" if m[1] == "[" else "(") + m[2] + ("]" if m[3] == "]" else ")"), bare)


# -- congruences

# all on text without blanks
_MODULUS = re.compile(
    r"(?:\\[,;:!])*(?:\\pmod(?:\{([^{}]{1,20})\}|(\d|[a-z]))|\\?b?mod\{?(\d{1,20}|[a-z])\}?"
    r"|\(\\?b?mod\{?(\d{1,20}|[a-z])\}?\))"
)
_VALUE = r"(?:\\pm)?-?(?:\d{1,20}|[a-z])"
_RESIDUE = re.compile(rf"(?:([A-Za-z](?:_\d)?)\\equiv)?({_VALUE}(?:(?:,|or){_VALUE}){{0,9}})")
_JOINT = re.compile(rf"{_GAP}(?:or|and)?{_GAP}")


def _congruences(text: str) -> str:
    r"""`n \equiv 1, 2 \pmod 3` as `n=1+(3)k_{mod}, n=2+(3)k_{mod}, k_{mod}\in\mathbb{Z}`."""
    spoken = "".join(_TEXT.sub(r"\1", _SIZES.sub("", text)).replace("\\ ", "").split())
    if "mod" not in spoken:
        return text.replace("\\equiv", "=")
    clauses: list[str] = []
    at = 0
    for found in _MODULUS.finditer(spoken):
        residues = _RESIDUE.fullmatch(_after_joint(spoken[at : found.start()]))
        if residues is None:
            return text
        name = f"{residues[1]}=" if residues[1] else ""
        modulus = next(group for group in found.groups() if group)
        values = re.split(",|or", residues[2])
        clauses += [f"{name}{value}+({modulus})k_{{mod}}" for value in values]
        at = found.end()
    if not clauses or spoken[at:].strip(".$"):
        return text
    return ", ".join(clauses) + r", k_{mod}\in\mathbb{Z}"


def _after_joint(text: str) -> str:
    joint = _JOINT.match(text)
    return text[joint.end() :] if joint else text


# -- conditions in words, and in parentheses

_KEYWORD = re.compile(
    r"\\forall(?![a-z])"
    r"|\b(?:for(?:\s+(?:all|any|every|each|some))?|where|with|such that|given that|provided(?: that)?)\b"
)
_OPENED = re.compile(r"\\(?:text|textrm|mathrm|mbox|rm)\s*\{[\s,;(]*$")
_LETTERS = r"(?:[A-Za-z]|\\[a-z]{2,7})(?:_\{?\w{1,2}\}?)?"
_NAMES = rf"({_LETTERS}(?:\s*(?:,|and)\s*{_LETTERS}){{0,4}})"
_KIND = (
    r"((?:(?:arbitrary|real|positive|non-?negative|natural|fixed|nonzero)\s+)*)"
    r"(integers?|constants?|reals?|numbers?|naturals?|values?(?: of)?|parameters?)"
)
_EVERY = re.compile(rf"(?:(?:an?|the|any|all|every|some)\s+)?(?:{_KIND}\s+|(real)\s+)?{_NAMES}\s*(.*)", re.DOTALL)
_BEING = re.compile(rf"{_NAMES}\s*(?:is|are|be|being)\s+(?:(?:an?|any|all|some)\s+)*{_KIND}\s*()")
_RELATION = re.compile(r"\\in(?![a-z])|\\n?eq?(?![a-z])|\\[gl]e(?:q|qslant)?(?![a-z])|<|>")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")


def _quantified(text: str) -> str:
    r"""`n+1 \text{ for all } n` as `n+1, n\in\mathbb{A}`: what the words say about a symbol, as a relation."""
    for found in _KEYWORD.finditer(text):
        before = text[: found.start()]
        opened = _OPENED.search(before)
        head = before[: opened.start()] if opened else before
        if head.count("{") == head.count("}"):
            tail = _TEXT.sub(r" \1 ", text[len(head) :].replace(found[0], " ", 1)).strip(" \t\n.,;")
            head = _trimmed(head)
            if head.endswith("(") or tail.startswith("("):
                head, tail = _trimmed(head.removesuffix("(")), tail.removeprefix("(").removesuffix(")").strip()
            conditions = _conditions(tail)
            return f"{head}, {conditions}" if head and conditions else text
    return text


def _trimmed(head: str) -> str:
    """The text without separators and spacing at its end."""
    gap = _GAPS.search(head)
    return head[: gap.start()] if gap else head


def _conditions(tail: str) -> str:
    """Conditions such as "positive integers n" or `k \\ne 0`, as a list of relations; empty when not understood."""
    being = _BEING.fullmatch(tail)
    if being:
        return _members(being[1], being[2], being[3])
    if _RELATION.search(tail) and not _WORD.search(_COMMANDS.sub("", tail)):
        return tail
    every = _EVERY.fullmatch(tail)
    if every is None:
        return ""
    adjectives, noun, real, names, rest = every.groups()
    if rest:
        relation = _RELATION.match(rest)
        return "" if relation is None or _WORD.search(_COMMANDS.sub("", rest)) else f"{names} {rest}"
    return _members(names, adjectives or real or "", noun or "")


_COMMANDS = re.compile(r"\\[a-zA-Z]+")


def _members(names: str, adjectives: str, noun: str) -> str:
    kinds = set(adjectives.replace("-", "").split())
    if noun.startswith(("integer", "natural")) or "natural" in kinds:
        positive = kinds & {"positive"} or noun.startswith("natural") or "natural" in kinds
        field = r"\mathbb{Z}^+" if positive else r"\mathbb{Z}_{>=0}" if "nonnegative" in kinds else r"\mathbb{Z}"
    elif "real" in kinds or noun.startswith("real"):
        field = r"\mathbb{R}^+" if "positive" in kinds else r"\mathbb{R}"
    else:
        field = r"\mathbb{R}^+" if "positive" in kinds else r"\mathbb{A}"
    return ", ".join(f"{name.strip()}\\in{field}" for name in re.split(r",|\band\b", names))


_OR_ELSE = re.compile(r"(.*\S)\s*\(\s*(?:\\text\s*\{\s*)?or\s*(?:\}|\s)\s*([^()]*)\)")


def _parenthesised(text: str) -> str:
    r"""`y=x^2\ (x \ge 0)` as `y=x^2, x \ge 0`; `\frac58\ (\text{or } 0.625)` without its parentheses."""
    bare = _SIZES.sub("", text).rstrip(" .$")
    if again := _OR_ELSE.fullmatch(bare):
        return f"{_trimmed(again[1])} \\text{{ or }} {again[2]}"
    if not bare.endswith(")") or not _RELATION.search(bare):
        return text
    depth = 0
    for at in range(len(bare) - 1, 0, -1):
        depth += (bare[at] == ")") - (bare[at] == "(")
        if not depth:
            break
    head, inside = bare[:at], bare[at + 1 : -1]
    called = re.search(r"(?:[A-Za-z]|\\[A-Za-z]+\s*|[-+*/^=(<>_|])$", head)
    if not head.strip() or called or "=" in inside.replace("<=", "").replace(">=", ""):
        return text
    if not _RELATION.search(inside) or _WORD.search(_COMMANDS.sub("", inside)) or head.count("{") != head.count("}"):
        return text
    return f"{_trimmed(head)}, {inside}"


# -- parts

_PART = re.compile(
    r"(?:\\(?:text|textbf|mathrm)\s*\{\s*)?(?:\(\s*(\d|[a-e]|i{1,3}|I{1,3}|[A-E])\s*\)|[Pp]art\s*\(?(\d|[a-eA-E])\)?)\s*[:.]?\s*\}?"
)
_ORDINALS = {name: k for names in ("12345", "abcde", "ABCDE", ("i", "ii", "iii")) for k, name in enumerate(names)}
_EXTREME = re.compile(
    rf"{_GAP}(?:\\(?:text|mathrm)\s*\{{)?\s*(?:the\s+)?\\?(max|min)(?:imum)?(?:\s+value)?(?:\s+is)?\s*(?:[:=]\s*)?"
    r"\}?\s*[:=]?\s*([^,;=]+)",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"(?:[\s,;~]|\\q?quad(?![a-z])|\\[,;:! ]|\\text\s*\{[\s,;]*and\s*\}|\\text\s*\{\s*$|\band\b)+$")


def labelled(text: str) -> list[tuple[str, str]]:
    """Label and text of every part of `(a) 3, (b) 5` or `max: 5, min: -3`; empty when it has no such labels."""
    if len(text) > MAX_CLAUSE:
        return []
    marks = [m for m in _PART.finditer(text) if text[: m.start()].count("{") == text[: m.start()].count("}")]
    if len(marks) > 1 and not text[: marks[0].start()].strip(" $"):
        order = [_ORDINALS.get(m[1] or m[2], -1) for m in marks]
        if order == list(range(len(marks))):
            ends = [*(m.start() for m in marks[1:]), len(text)]
            values = [_SEPARATOR.sub("", text[m.end() : end]) for m, end in zip(marks, ends, strict=True)]
            return [(f"part {k}", value) for k, value in enumerate(values)] if all(values) else []
    if "max" in text.lower() and "min" in text.lower():
        extremes = [_EXTREME.fullmatch(part) for part in re.split(r"[,;]|\\q?quad", text)]
        if len(extremes) == 2 and all(extremes):
            return [(m[1].lower(), m[2].strip()) for m in extremes if m]
    return []


# -- labels

_HEDGE = re.compile(r"\b(?:not|or|approx\w*|about|neither|either)\b|\\(?:ne|neq|approx|not)(?![a-z])", re.IGNORECASE)
_DRESS = re.compile(
    r"\\(?:text|textbf|mathrm|operatorname|overset|frown|overarc|widehat|overline|left|right|mathbb)(?![a-z])|[{}\s\\$]"
)


def split_label(text: str) -> tuple[str, str] | None:
    r"""Label, left side and value of `P(X=2)=\frac14`, split at the first `=` outside brackets; else None."""
    if len(text) > MAX_CLAUSE or "=" not in text:
        return None
    at = next(_outside(text, "="), -1)
    if at < 1:
        return None
    left = text[:at].strip()
    if not (left[:1].isalpha() or left[:1] in "\\|[#") or _HEDGE.search(left):
        return None
    if any(left.count(a) != left.count(b) for a, b in ("()", "[]", "{}")):
        return None
    related = any(True for _ in _outside(left, "<>,;")) or _RELATION.search(_unbraced(left))
    return None if related else (left, text[at + 1 :])


def items(text: str) -> list[str]:
    """The items of a list of equations, cut at the commas outside brackets; empty when one is no equation."""
    if len(text) > MAX_CLAUSE:
        return []
    cuts = [-1, *_outside(text, ",;"), len(text)]
    found = [text[a + 1 : b].strip() for a, b in itertools.pairwise(cuts)]
    return found if len(found) > 1 and all("=" in item for item in found) else []


def label_key(left: str) -> str:
    """The label without spacing, braces and fonts."""
    return _DRESS.sub("", left)


def _outside(text: str, characters: str) -> Iterator[int]:
    """Where one of the characters stands outside all brackets."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if not depth and character in characters and text[at - 1 : at] not in ("\\", "<", ">", "!"):
            yield at


def _unbraced(text: str) -> str:
    depth, kept = 0, []
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if not depth:
            kept.append(character)
    return "".join(kept)
