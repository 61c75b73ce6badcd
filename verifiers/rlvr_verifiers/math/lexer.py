r"""Cuts an answer, in LaTeX or plain text, into tokens; one pass, linear, nothing is evaluated.

Spacing, `\left`, fonts and `$` are dropped; look-alike characters become the usual ones; a run of letters becomes
known names (`8pi` is 8 and pi, `xsqrt2` is x, sqrt and 2), a word, or one symbol per letter.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from .tree import MAX_CHARS, MAX_TOKENS, ParseError, words
from .units import WORDS


class Token(NamedTuple):
    """`kind` is num, sym, const, func, word, sep, cur, scale, env, raw or op; `text`: it came from `\\text{}`."""

    kind: str
    value: str
    text: bool = False


FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp cbrt abs floor ceil min max"
)
GREEK = words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot", "arctg": "arctan"}
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
    **{word: ("scale", word) for word in ("hundred", "thousand", "million", "billion", "trillion")},
}
_CONSTANTS = {"e": "e", "i": "i"}

_OPAQUE = words("sqrt overline bar vec overrightarrow hat tilde angle triangle widehat mathbb")
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
    **dict.fromkeys(("setminus", "backslash"), ("op", "minus")),
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), ("raw", "frac")),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), ("raw", "binom")),
    **dict.fromkeys(("ldots", "cdots", "dots", "dotsc"), ("raw", "dots")),
    **dict.fromkeys(("emptyset", "varnothing"), ("raw", "empty")),
    **dict.fromkeys(("quad", "qquad", "\\"), ("sep", "\\\\")),
    **{name: ("raw", name) for name in _OPAQUE},
    "arctg": ("func", "arctan"), "tg": ("func", "tan"), "ctg": ("func", "cot"), "pi": ("const", "pi"),
    "infty": ("const", "inf"), "lt": ("op", "<"), "gt": ("op", ">"), "in": ("op", "in"), "pm": ("op", "pm"),
    "mp": ("op", "mp"), "cup": ("op", "union"), "cap": ("op", "inter"), "colon": ("op", ":"),
    "{": ("op", "\\{"), "}": ("op", "\\}"), "lbrace": ("op", "\\{"), "rbrace": ("op", "\\}"),
    "langle": ("op", "⟨"), "rangle": ("op", "⟩"), "lfloor": ("op", "⌊"), "rfloor": ("op", "⌋"),
    "lceil": ("op", "⌈"), "rceil": ("op", "⌉"), "%": ("op", "%"), "degree": ("op", "°"), "circ": ("op", "°"),
    "lbrack": ("op", "["), "rbrack": ("op", "]"), "prime": ("op", "'"), "$": ("cur", "$"), "pounds": ("cur", "£"),
    "&": ("sep", "and"), "land": ("sep", "and"), "lor": ("sep", "or"),
}  # fmt: skip
_SILENT = words(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits nolimits mathbf boldsymbol bm "
    "mathcal mathit bf rm it boxed fbox , ! ; : > / ( ) [ ]"
) | {" "}
_TEXT = words("text textbf textit textrm textnormal textsf mbox hbox mathrm mathsf operatorname emph")

_TOKEN = re.compile(
    r"(?P<skip>[\s~$\u200b]+|\*\*(?=\s*$))"
    r"|(?P<env>\\(?:begin|end)\s*\{[A-Za-z]+\*?\}(?:\{[clr|\s]*\})?)"
    r"|(?P<cmd>\\(?:[A-Za-z]+|.)\s*)"
    r"|(?P<base>[0-9][0-9A-F]*_(?:\{\s*\d{1,2}\s*\}|\d{1,2}))"
    r"|(?P<num>(?:\d+(?:\.\d+|\.(?=\s*\\overline))?|\.\d+)(?:[eE][+-]?\d+(?![\d.A-Za-z]))?)"
    r"|(?P<dots>\.\.\.)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<op>\*\*|<=|>=|!=|[-+*/^_!'%|()\[\]{},;:=<>&°])"
    r"|(?P<cur>[€£¥₹¢])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3}){1,12}(?![\d,])(?:\.\d+)?")
_TEXT_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\{,\\!\}|,\s*\\!|\\[,!; ])\s*(?=\d{3}(?!\d))")
_SPACED = re.compile(r"([-+]?\\?\$?)(\d{1,3}(?: \d{3})+(?:\.\d+)?)")
_EDGES = ' \t\r\n"`*'
_STOPS = " .,;:\t\r\n"
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")

_GREEK_IN_ORDER = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"
)  # fmt: skip
_LOOK_ALIKES = str.maketrans(
    {
        **dict.fromkeys("−–—‒﹣－", "-"), **dict.fromkeys("×∙·⋅∗", "*"), "÷": "/", "⁄": "/", "∕": "/", "：": ":",
        "π": "\\pi ", "√": "\\sqrt ", "∞": "\\infty ", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=",
        "≈": "\\approx ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∖": "\\setminus ", "±": "\\pm ",
        "∓": "\\mp ", "º": "°", "∘": "°", "˚": "°", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"',
        "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "…": "\\ldots ", "⟨": "\\langle ",
        "⟩": "\\rangle ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "\u2061": "",
        **{chr(0x3B1 + k): f"\\{name} " for k, name in enumerate(_GREEK_IN_ORDER)},
        "ρ": "\\rho ", "σ": "\\sigma ", "τ": "\\tau ", "φ": "\\phi ", "χ": "\\chi ", "ψ": "\\psi ",
        "ω": "\\omega ", "Δ": "\\Delta ", "Ω": "\\Omega ", "Θ": "\\Theta ",
    }
)  # fmt: skip
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUPERS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")
_SUBS = re.compile("[₀₁₂₃₄₅₆₇₈₉ₙ]+")
_VULGAR = re.compile("(\\d?)([¼½¾⅐-⅞])")


def normalise(text: str) -> str:
    """One spelling for look-alike characters, thousands separators and doubled backslashes; outer marks gone.

    Raises:
        ParseError: If the text is longer than `MAX_CHARS`.
    """
    text = text.strip(_EDGES)
    if len(text) > MAX_CHARS:
        raise ParseError(f"it is longer than {MAX_CHARS} characters")
    if not text.isascii():
        text = _VULGAR.sub(lambda m: f"{m[1]} {unicodedata.normalize('NFKC', m[2])}", text)
        text = _SUPERS.sub(lambda m: "^{" + m[0].translate(_SUPER) + "}", text).translate(_LOOK_ALIKES)
        text = _SUBS.sub(lambda m: "_{" + m[0].translate(_SUB) + "}", text)
        text = unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKES)
        text = "".join(c for c in text if unicodedata.category(c) != "Cf").strip()
    text = text.rstrip(_STOPS).strip(_EDGES).rstrip(_STOPS)
    if len(text) > 2 and text[0] == text[-1] == "'":
        text = text[1:-1]
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1]  # half of a spacing command such as `\,`
    if text.count("$") == 1 and "\\$" not in text:
        text = text.replace("$", "\\$")  # half a pair of delimiters is a currency
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _THOUSANDS.sub("", text)
    spaced = _SPACED.fullmatch(text)
    return spaced[1] + spaced[2].replace(" ", "") if spaced else text


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
            if text_depth:
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
        elif not (text_depth and value in '."?'):
            raise ParseError(f"`{value}` is not understood")
    return out


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
    if run in WORDS:
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
