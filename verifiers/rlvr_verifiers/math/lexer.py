r"""Cuts an answer, in LaTeX or plain text, into tokens; one pass, linear, nothing is evaluated.

Spacing, `\left`, fonts, colours and `$` are dropped; a run of letters becomes known names (`8pi` is 8 and pi,
`xsqrt2` is x, sqrt and 2), a word, or one symbol per letter.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .tree import MAX_TOKENS, ParseError, words
from .units import WORDS


class Token(NamedTuple):
    """`kind` is num, sym, const, func, word, sep, cur, scale, env, raw or op; `text`: it came from `\\text{}`."""

    kind: str
    value: str
    text: bool = False


FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth arsinh arcosh artanh cis log ln lg exp "
    "cbrt abs floor ceil min max"
)
GREEK = words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot", "arctg": "arctan"}
_ALIASES |= {"arcsinh": "arsinh", "arccosh": "arcosh", "arctanh": "artanh", "asinh": "arsinh"}
_NAMES: dict[str, tuple[str, str]] = {
    **{name: ("func", name) for name in FUNCTIONS},
    **{alias: ("func", name) for alias, name in _ALIASES.items()},
    **{name: ("sym", name) for name in GREEK - {"xi", "nu", "mu", "chi", "eta", "rho", "psi", "phi", "tau"}},
    "theta": ("sym", "theta"),
    "sqrt": ("raw", "sqrt"),
    "pi": ("const", "pi"),
    "infinity": ("const", "inf"),
    "infty": ("const", "inf"),
}
_LONGEST = max(map(len, _NAMES))
_WORDS: dict[str, tuple[str, str]] = {
    "and": ("sep", "and"),
    "or": ("sep", "or"),
    "percent": ("op", "%"),
    "percentage": ("op", "%"),
    "pct": ("op", "%"),
    "degree": ("op", "°"),
    "degrees": ("op", "°"),
    **dict.fromkeys(("oo", "inf", "infinity"), ("const", "inf")),
    **{word: ("scale", word) for word in ("dozen", "hundred", "thousand", "million", "billion", "trillion")},
    **dict.fromkeys(("usd", "dollars", "dollar"), ("cur", "$")), "eur": ("cur", "€"), "gbp": ("cur", "£"),
    **dict.fromkeys(("rs", "inr"), ("cur", "₹")),
    "to": ("op", ":"),
}  # fmt: skip
_CHINESE = {
    **dict.fromkeys(("或", "或者"), Token("sep", "or")), **dict.fromkeys(("和", "与", "且", "及"), Token("sep", "and")),
    "度": Token("op", "°"),
}  # fmt: skip
_CONSTANTS = {"e": "e", "i": "i"}

_OPAQUE = words("sqrt overline bar vec hat tilde angle triangle widehat mathbb over choose forall pmod bmod")
_COMMANDS: dict[str, tuple[str, str]] = {
    **{name: ("func", name) for name in FUNCTIONS},
    **{name: ("sym", name) for name in GREEK},
    **dict.fromkeys(("cdot", "times", "ast"), ("op", "*")),
    **dict.fromkeys(("div", "slash"), ("op", "/")),
    **dict.fromkeys(("le", "leq", "leqslant"), ("op", "<=")),
    **dict.fromkeys(("ge", "geq", "geqslant"), ("op", ">=")),
    **dict.fromkeys(("ne", "neq"), ("op", "!=")),
    **dict.fromkeys(("approx", "simeq", "thickapprox"), ("op", "~")),
    **dict.fromkeys(("mid", "vert", "lvert", "rvert", "|"), ("op", "|")),
    **dict.fromkeys(("cup", "bigcup"), ("op", "union")), **dict.fromkeys(("cap", "bigcap"), ("op", "inter")),
    **dict.fromkeys(("setminus", "backslash"), ("op", "minus")),
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac", "flatfrac"), ("raw", "frac")),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), ("raw", "binom")),
    **dict.fromkeys(("ldots", "cdots", "dots", "dotsc", "dotsb"), ("raw", "dots")),
    **dict.fromkeys(("emptyset", "varnothing"), ("raw", "empty")),
    **dict.fromkeys(("quad", "qquad", "\\"), ("sep", "\\\\")),
    **{name: ("raw", name) for name in _OPAQUE},
    "overrightarrow": ("raw", "vec"), "mod": ("raw", "bmod"), "equiv": ("op", "≡"), "notin": ("op", "notin"),
    "arctg": ("func", "arctan"), "tg": ("func", "tan"), "ctg": ("func", "cot"), "pi": ("const", "pi"),
    "infty": ("const", "inf"), "lt": ("op", "<"), "gt": ("op", ">"), "in": ("op", "in"), "pm": ("op", "pm"),
    "mp": ("op", "mp"), "colon": ("op", ":"),
    "{": ("op", "\\{"), "}": ("op", "\\}"), "lbrace": ("op", "\\{"), "rbrace": ("op", "\\}"),
    "langle": ("op", "⟨"), "rangle": ("op", "⟩"), "lfloor": ("op", "⌊"), "rfloor": ("op", "⌋"),
    "lceil": ("op", "⌈"), "rceil": ("op", "⌉"), "%": ("op", "%"), "degree": ("op", "°"), "circ": ("op", "°"),
    "lbrack": ("op", "["), "rbrack": ("op", "]"), "prime": ("op", "'"), "$": ("cur", "$"), "pounds": ("cur", "£"),
    **dict.fromkeys(("&", "land", "wedge"), ("sep", "and")), **dict.fromkeys(("lor", "vee"), ("sep", "or")),
    "textdegree": ("op", "°"),
}  # fmt: skip
_SILENT = words(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle scriptstyle limits nolimits mathbf "
    "boldsymbol bm pmb mathcal mathit mathnormal bf it boxed fbox underline ensuremath mathop mathbin mathrel "
    "mathord mathstrut strut tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge thinspace "
    "medspace thickspace enspace negthinspace nobreak hfill noindent therefore , ! ; : > / ( ) [ ]"
) | {" "}
_TEXT = words(
    "text textbf textit textrm textnormal textsf texttt textup textmd textsc mbox hbox mathrm mathsf mathtt "
    "operatorname emph rm sf tt"
)
_DROPPED = words("color textcolor colorbox hspace vspace phantom hphantom vphantom tag label overset underset stackrel")
"""Commands that take what stands in braces after them away; what a second pair of braces holds stays."""
_ARGUMENT = re.compile(r"\*?\s*(?:\[[^\[\]{}]*\])?\s*(?=\{)")

_TOKEN = re.compile(
    r"(?P<skip>[\s~$\u200b]+|\*\*(?=\s*$))"
    r"|(?P<env>\\(?:begin|end)\s*\{[A-Za-z]+\*?\}(?:\{[clr|\s]*\})?)"
    r"|(?P<cmd>\\(?:[A-Za-z]+|.)\s*)"
    r"|(?P<base>[0-9][0-9A-F]*_(?:\{\s*\d{1,2}\s*\}|\d{1,2}))"
    r"|(?P<num>(?:\d+(?:\.\d+|\.(?=\s*\\overline))?|\.\d+|\.(?=\s*\\overline))(?:[eE][+-]?\d+(?![\d.A-Za-z]))?)"
    r"|(?P<dots>\.\.\.)"
    r"|(?P<word>[A-Za-z]+|[\u3400-\u9fff]+)"
    r"|(?P<op>\*\*|<=|>=|!=|[-+*/^_!'%|()\[\]{},;:=<>&°])"
    r"|(?P<cur>[€£¥₹¢])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_GROUPED = re.compile(r"(?<!\d)[1-9]\d{0,2}(?:,\d{3}){1,12}(?![\d,])(?:\.\d+)?")
_NOUN = re.compile(r"\s+(?!and\b|or\b)[a-z]{2}")
_ROMAN = re.compile(r"[IVX]{2,4}")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_TEXT_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")


def tokenise(text: str, *, thousands: bool = True) -> list[Token]:
    """The tokens of a normalised text.

    Args:
        text: What `normalise` returned.
        thousands: Whether `1,234` outside brackets is one number.

    Raises:
        ParseError: If there are too many tokens, or one that the grammar has no use for.
    """
    out: list[Token] = []
    brackets = 0  # depth in (), [] and \{\}, where a comma separates
    depth = 0
    text_depth: list[int] = []  # brace depths at which a \text{...} ends
    awaiting_text = False
    at = 0
    size = len(text)
    while at < size:
        match = _TOKEN.match(text, at)
        if match is None or len(out) > MAX_TOKENS:
            raise ParseError(f"it has more than {MAX_TOKENS} tokens")
        kind, value = match.lastgroup, match.group()
        start, at = at, match.end()
        if kind == "skip":
            continue
        if kind == "num":
            grouped = _GROUPED.match(text, start) if thousands and not brackets and value.isdigit() else None
            if grouped:
                value, at = grouped.group().replace(",", ""), grouped.end()
            out.append(Token("num", value))
        elif kind == "op":
            if value == "{":
                depth += 1
                if awaiting_text:
                    text_depth.append(depth)
                    awaiting_text = False
                    continue
            elif value == "}":
                depth -= 1
                if text_depth and text_depth[-1] == depth + 1:
                    text_depth.pop()
                    continue
            elif value in "([":
                brackets += 1
            elif value in ")]":
                brackets -= 1
            if value in ",;":
                out.append(Token("sep", ","))
            else:
                out.append(Token("op", "^" if value == "**" else value))
        elif kind == "word":
            if not value.isascii():
                out.append(_CHINESE.get(value, Token("word", value)))
            elif text_depth:
                at = _text_word(text, start, out)
            else:
                _letters(value, out)
        elif kind == "cmd":
            name = value[1:].rstrip() or " "
            if name in _TEXT:
                awaiting_text = text.startswith("{", at)
            elif name in _COMMANDS:
                found = _COMMANDS[name]
                brackets += (found[1] == "\\{") - (found[1] == "\\}")
                out.append(Token(*found))
            elif name in _DROPPED:
                argument = _ARGUMENT.match(text, at)
                at = _after_group(text, argument.end()) if argument else at
            elif name not in _SILENT:
                raise ParseError(f"`\\{name}` is not understood")
        elif kind == "env":
            verb, name = re.split(r"\s*\{", value[1:].rstrip("}"), maxsplit=1)
            out.append(Token("env", f"{verb} {name.partition('}')[0]}"))
        elif kind == "base":
            digits, _, base = value.partition("_")
            if not digits.isdigit() and not _is_number(digits, int(base.strip("{} "))):
                digits = re.split("[A-F]", digits, maxsplit=1)[0]  # `3A_1` is 3 times A_1
                at = start + len(digits)
                out.append(Token("num", digits))
            else:
                out.append(Token("raw", f"base {digits} {base.strip('{} ')}"))
        elif kind == "cur":
            out.append(Token("cur", value))
        elif kind == "dots":
            out.append(Token("raw", "dots"))
        elif not (text_depth and value in '."'):
            raise ParseError(f"`{value}` is not understood")
    return out


def _after_group(text: str, at: int) -> int:
    """Where the group that opens at `at` has ended."""
    depth = 0
    for brace in _BRACES.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return brace.end()
    raise ParseError("a brace is never closed")


def _is_number(digits: str, base: int) -> bool:
    return 2 <= base <= 16 and all(int(digit, 16) < base for digit in digits)


def _text_word(text: str, start: int, out: list[Token]) -> int:
    r"""Adds a word inside `\text{}`; returns where it ends."""
    match = _TEXT_WORD.match(text, start)
    assert match is not None
    word = match.group()
    if word.lower() in _WORDS:
        out.append(Token(*_WORDS[word.lower()], text=True))
    elif word in _NAMES and _NAMES[word][0] != "sym":
        out.append(Token(*_NAMES[word], text=True))
    elif word == "a" and _NOUN.match(text, match.end()):
        out.append(Token("word", word, True))  # an article
    elif len(word) == 1:
        const = _CONSTANTS.get(word)
        out.append(Token("const", const, True) if const else Token("sym", word, True))
    else:
        out.append(Token("word", word, True))
    return match.end()


def _letters(run: str, out: list[Token]) -> None:
    """Adds the tokens of a run of letters outside `\\text{}`."""
    if run.lower() in _WORDS:
        out.append(Token(*_WORDS[run.lower()]))
        return
    if run in WORDS or _ROMAN.fullmatch(run):
        out.append(Token("word", run))
        return
    pieces: list[Token] = []
    at = singles = 0
    while at < len(run):
        for size in range(min(_LONGEST, len(run) - at), 1, -1):
            name = _NAMES.get(run[at : at + size])
            if name:
                pieces.append(Token(*name))
                at += size
                break
        else:
            const = _CONSTANTS.get(run[at])
            pieces.append(Token("const", const) if const else Token("sym", run[at]))
            at += 1
            singles += 1
    if singles >= 4 or (singles >= 3 and run[0].isupper() and run[1:].islower()):
        out.append(Token("word", run))
    else:
        out.extend(pieces)
