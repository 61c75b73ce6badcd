r"""Brings the many spellings of an answer to one before it is cut into tokens: characters, LaTeX dialects, numbers.

    145°C, 1 − 12i, x²                    145 celsius, 1 - 12i, x^{2}
    \left.\frac12\right., $\frac12$       \frac12
    0.8\dot3, 0.(63), 0.8333...           0.8\overline{3}, 0.\overline{63}, 0.8\overline{3}
    2130_{\text{five}}, (2130)_5          2130_{5}
    {}_9C_4, 4.2 x 10^5, 50 per cent      \binom{9}{4}, 4.2\times 10^5, 50 percent

Every step is one pass of a regular expression or a table, linear in the text.
"""

from __future__ import annotations

import re
import unicodedata

from .tree import MAX_CHARS, ParseError

_EDGES = ' \t\r\n"`'
_STOPS = " .,;:\t\r\n"

_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi"
)  # fmt: skip
_LOOK_ALIKES = str.maketrans(
    {
        **dict.fromkeys("−–—‒﹣－", "-"), **dict.fromkeys("×✕", "\\times "), **dict.fromkeys("∙·⋅∗", "\\cdot "),
        "÷": "/", "⁄": "/", "∕": "/", "：": ":", "，": ",", "；": ";", "（": "(", "）": ")",
        "π": "\\pi ", "√": "\\sqrt ", "∞": "\\infty ", "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=",
        "≈": "\\approx ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∖": "\\setminus ", "±": "\\pm ",
        "∓": "\\mp ", "º": "°", "∘": "°", "˚": "°", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"',
        "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}",
        "ℂ": "\\mathbb{C}", "…": "\\ldots ", "⋯": "\\ldots ", "⟨": "\\langle ", "⟩": "\\rangle ", "∠": "\\angle ",
        "△": "\\triangle ", "≡": "\\equiv ", "∀": "\\forall ", "∧": "\\land ", "∨": "\\lor ",
        "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "\u2061": "",
        "\u2062": "*", "\u2063": ",", "\u2064": "+",
        **{chr(0x3B1 + k): f"\\{name} " for k, name in enumerate(_GREEK)},
        "ρ": "\\rho ", "σ": "\\sigma ", "τ": "\\tau ", "φ": "\\phi ", "χ": "\\chi ", "ψ": "\\psi ",
        "ω": "\\omega ", "Δ": "\\Delta ", "Ω": "\\Omega ", "Θ": "\\Theta ",
    }
)  # fmt: skip
_VULGAR = re.compile("(\\d?)([¼½¾⅐-⅞])")

_QUOTED = re.compile(r"`+([^`']*)'+")
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z])")
_PRIME = re.compile(r"\^\s*(?:\{\s*\\prime\s*\}|\\prime)")
_DELIMITER = re.compile(r"\\(left|right)\s*(\\?.)", re.DOTALL)
_NULL = re.compile(r"\\(?:left|right|[bB]igg?[lr]?)\s*\.")
_ROW_GAP = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]|\\cr(?![a-zA-Z])")
_ROW_STOP = re.compile(r"\.\s*(?=\\end\s*\{)")
_ALIGNED = re.compile(r"\\begin\s*\{(?:align(?:ed|\*)?|split|gather(?:ed|\*)?)\}")
_TABLE = re.compile(r"\\begin\s*\{(?:\w*matrix|array|\w*cases)\}")
_AMPERSAND = re.compile(r"(?<!\\)&")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\{,\\!\}|,\s*\\!|\\[,!; ]|~)\s*(?=\d{3}(?!\d))")
_MIXED_THOUSANDS = re.compile(r"(?<![\d.,}])\d{1,3}(?:(?:,|\{,\})\d{3})+(?![\d,{])")
_SPACED = re.compile(r"([-+]?\\?\$?)(\d{1,3}(?: \d{3})+(?:\.\d+)?)")
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_DEGREE = re.compile(r"(?<=[\d})])\s*\^\s*(?:\{\s*o\s*\}|o(?![a-zA-Z]))|\\textdegree(?![a-zA-Z])")
_SCALES = "(C|F|[Cc]elsius|[Ff]ahrenheit)"
_TEMPERATURE = re.compile(
    r"(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degree|\\textdegree|\bdegrees?)\s*"
    rf"(?:\\(?:text|mathrm|rm)\s*\{{\s*{_SCALES}\s*\}}|\{{\s*\\rm\s*{_SCALES}\s*\}}|{_SCALES}(?![A-Za-z]))"
)
_NEGATIVE = re.compile(r"(?:\\text\s*\{\s*)?\b(?:[Nn]egative|[Mm]inus)\s*\}?\s*(?=\$?\\?(?:[\d.]|[dt]?frac))")
_PER_CENT = re.compile(r"\bper[\s-]cent\b", re.IGNORECASE)
_RUPEES = re.compile(r"\bRs\.")
_ORDINAL = re.compile(r"(?<=\d)\s*\^\s*\{?\s*(?:\\(?:text|mathrm|rm)\s*\{?\s*)?(st|nd|rd|th)\b\s*\}{0,2}")
_MPH = re.compile(r"\bm\.p\.h\b\.?")

_DOTTED = re.compile(r"(\d*\.\d*)\\dot\s*\{?\s*(\d)\s*\}?(?:(\d*)\\dot\s*\{?\s*(\d)\s*\}?)?(?![\d\\])")
_BARRED = re.compile(r"(\d*\.\d*)\\bar\s*(?:\{\s*(\d+)\s*\}|(\d))")
_BRACKETED = re.compile(r"(?<![\w.)}])(-?\d*\.\d*)\((\d{1,50})\)(?![\d(\\])")
_TRAILING = re.compile(r"(?<!\d)(\d{0,50}\.)(\d{3,100})\\[lc]?dots(?!\s*\d)")

_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_BASES = {name: str(value) for value, name in enumerate(_NUMERALS.split())}
_BASE = r"(?:base[\s~-]*)?(?:\}\s*)?(\d{1,2}|[a-z]{3,8})"
_TEXT = r"\\(?:text|mathrm|textrm|rm)\s*\{\s*"
_BASE_SUBSCRIPT = re.compile(
    r"(?:\(\s*([0-9A-F]+)\s*\)|(?<![\w.])([0-9A-F]+))\s*_\s*"
    rf"(?:(\d{{1,2}})|\{{\s*(?:{_TEXT})?\(?\s*{_BASE}\s*\)?\s*\}}?\s*\}}|{_TEXT}\(?\s*{_BASE}\s*\)?\s*\}})"
)
_IN_BASE = re.compile(
    r"([0-9A-F]+)[\s~]*(?:\\text\s*\{)?\s*,?\s*(?:in\s+)?\(?base[\s~-]*(?:\}\s*)?(\d{1,2}|[a-z]{3,8})\)?\}?", re.ASCII
)
_CHOOSE = re.compile(
    r"(?:\{\s*\}|(?<![\w)}\]]))\s*[_^]\s*\{?\s*(\d+|[a-z])\s*\}?\s*"
    r"(?:\\(?:mathrm|text|rm)\s*\{\s*)?C\s*\}?\s*_\s*\{?\s*(\d+|[a-z])\s*\}?"
)
_CHOOSE_ABOVE = re.compile(r"(?<![A-Za-z\\])C_\s*(?:\{\s*(\d+)\s*\}|(\d))\s*\^\s*(?:\{\s*(\d+)\s*\}|(\d))")
_LENGTH, _TIME = "km|cm|mm|m|mi|miles|ft|in|yd|L|l|mL|ml|gal|kg|mg|g", "hr|h|hour|sec|s|min|day|cm|m|mL|ml|L|l"
_QUOTIENT_UNIT = re.compile(rf"([-+]?[\d.,]*\d)\s*((?:{_LENGTH})\s*/\s*(?:{_TIME})(?:\^\{{?\d\}}?|\d)?)")
_UNION = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_ANGLED = re.compile(r"<([^<>=]*,[^<>=]*)>")
_NESTED = re.compile(r"\[\s*\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])+\s*\]")
_OHMS = re.compile(r"(?<=\d)(?:\\[,; ]|~|\s)+\\Omega$")
_INCHES = re.compile(r"(?<=\d)\s*in(?:\.|$|(?=\s*\^))")


_COMMA_DECIMAL = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+|\d+)(?:(?:,|\{,\})(\d+))?(?![\d.,]*\d)")


_DELIMITED = re.compile(r"\s*(?:\$\$([^$]+)\$\$|\$([^$]+)\$|\\\((.+)\\\)|\\\[(.+)\\\])\s*\.?\s*", re.DOTALL)
_ONE_ROW = re.compile(
    r"\s*\\begin\s*\{(equation|align|aligned|gather|gathered|displaymath|math)\*?\}(.*)\\end\s*\{\1\*?\}\s*", re.DOTALL
)


def undelimited(text: str) -> str:
    r"""The text without the `$...$`, `\[...\]` or one-row environment around all of it."""
    if "$" in text or "\\(" in text or "\\[" in text:
        match = _DELIMITED.fullmatch(text)
        inner = next(group for group in match.groups() if group) if match else ""
        if inner and not inner.endswith("\\") and not re.search(r"\\[()\[\]]", inner):
            text = inner.strip()
    if "\\begin" in text:
        row = _ONE_ROW.fullmatch(text)
        if row and "\\\\" not in row[2] and "\\begin" not in row[2]:
            text = _AMPERSAND.sub("", row[2]).strip()
    return text


def decimal_commas(text: str) -> str:
    """The text with `1.234,5` written `1234.5`."""
    return _COMMA_DECIMAL.sub(lambda m: m[1].replace(".", "") + (f".{m[2]}" if m[2] else ""), text)


def normalise(text: str) -> str:
    """One spelling for characters, LaTeX dialects and numbers; outer marks gone.

    Raises:
        ParseError: If the text is longer than `MAX_CHARS`.
    """
    if len(text) > MAX_CHARS:
        raise ParseError(f"it is longer than {MAX_CHARS} characters")
    if "`" in text:
        text = _QUOTED.sub(r"\1", text)
    text = text.strip(_EDGES)
    if text.startswith("**") or text.endswith("**"):
        text = text.removeprefix("**").removesuffix("**").strip(_EDGES)
    if not text.isascii():
        text = _ascii(text)
    if "..." in text:
        text = text.replace("...", "\\ldots ")  # not three full stops
    text = text.rstrip(_STOPS).strip(_EDGES).rstrip(_STOPS)
    if text.isalnum():
        return text
    if len(text) > 2 and text[0] == text[-1] == "'":
        text = text[1:-1]
    if "\\" in text:
        text = _latex(text)
    if text[:1] in "[<(":
        text = _brackets(text)
    if text.count("$") == 1 and "\\$" not in text:
        text = text.replace("$", "\\$")  # half a pair of delimiters is a currency
    return _numbers(text)


def _ascii(text: str) -> str:
    text = _VULGAR.sub(lambda m: f"{m[1]} {unicodedata.normalize('NFKC', m[2])}", text)
    text = _raised(text.translate(_LOOK_ALIKES))
    text = unicodedata.normalize("NFKC", text).translate(_LOOK_ALIKES)
    return "".join(c for c in text if unicodedata.category(c) != "Cf").strip()


def _raised(text: str) -> str:
    """Superscript and subscript characters, whatever they are, as `^{...}` and `_{...}`."""
    out: list[str] = []
    open_mark = ""
    for char in text:
        mark, _, plain = unicodedata.decomposition(char).partition(" ") if char > "\x7f" else ("", "", "")
        mark = {"<super>": "^", "<sub>": "_"}.get(mark, "")
        if open_mark and mark != open_mark:
            out.append("}")
        if mark and mark != open_mark:
            out.append(mark + "{")
        out.append("".join(chr(int(code, 16)) for code in plain.split()) if mark else char)
        open_mark = mark
    return "".join(out) + ("}" if open_mark else "")


def _latex(text: str) -> str:
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1]  # half of a spacing command such as `\,`
    if "\\prime" in text:
        text = _PRIME.sub("'", text)
    if "\\right" in text:
        text = _NULL.sub("", _one_sided(text) if "." in text else text)
    if "\\begin" in text:
        text = _ROW_GAP.sub(r"\\\\ ", text)
        text = _ROW_STOP.sub("", text)
        if _ALIGNED.search(text) and not _TABLE.search(text):
            text = _AMPERSAND.sub("", text)
    elif "\\\\" in text:
        text = _DOUBLED.sub(r"\\", text)
    return text


def _brackets(text: str) -> str:
    """Unions, vectors and matrices as they are written in plain text."""
    text = _UNION.sub("\\\\cup ", text)
    angled = _ANGLED.fullmatch(text)
    if angled:
        return f"\\langle {angled[1]}\\rangle "
    if _NESTED.fullmatch(text):
        rows = [row.strip(" []").replace(",", "&") for row in text[1:-1].split("]")[:-1]]
        return "\\begin{pmatrix}" + "\\\\ ".join(row.lstrip("&[ ") for row in rows) + "\\end{pmatrix}"
    return text


def _one_sided(text: str) -> str:
    """Without the brace of a system, which opens with `\\left\\{` and closes with `\\right.`."""
    opened: list[re.Match[str]] = []
    drop: list[re.Match[str]] = []
    for mark in _DELIMITER.finditer(text):
        if mark[1] == "left":
            opened.append(mark)
        elif opened:
            left = opened.pop()
            if mark[2] == "." and left[2] == "\\{":
                drop += [left, mark]
    for mark in sorted(drop, key=lambda mark: mark.start(), reverse=True):
        text = text[: mark.start()] + text[mark.end() :]
    return text


def _numbers(text: str) -> str:
    if "C" in text or "F" in text or "elsius" in text or "ahrenheit" in text:
        text = _TEMPERATURE.sub(_temperature, text)
        text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
        text = _CHOOSE_ABOVE.sub(lambda m: f"\\binom{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}", text)
    if "o" in text:
        text = _DEGREE.sub("^\\\\circ ", text)
    if "cent" in text:
        text = _PER_CENT.sub("percent", text)
    if "th" in text or "st" in text or "nd" in text or "rd" in text:
        text = _ORDINAL.sub(r"\\text{\1}", text)
    if "egative" in text or "inus" in text:
        text = _NEGATIVE.sub("-", text)
    if "Rs" in text:
        text = _RUPEES.sub("Rs ", text)
    if "m.p" in text:
        text = _MPH.sub("mph", text)
    if "in" in text:
        text = _INCHES.sub(" inches", text)
    if text.endswith("\\Omega"):
        text = _OHMS.sub(" ohms", text)
    if "." in text:
        text = _repeating(text)
    if "_" in text or "base" in text:
        text = _bases(text)
    if "10" in text:
        text = _TIMES_TEN.sub("\\\\times ", text)
    if "{" in text:
        text = _MIXED_THOUSANDS.sub(_mixed_thousands, text).replace("{:}", ":")
    text = _THOUSANDS.sub("", text)
    spaced = _SPACED.fullmatch(text)
    if spaced:
        return spaced[1] + spaced[2].replace(" ", "")
    measure = _QUOTIENT_UNIT.fullmatch(text)
    return f"{measure[1]}\\text{{ {measure[2]}}}" if measure else text


def _mixed_thousands(match: re.Match[str]) -> str:
    return match[0].replace("{,}", "").replace(",", "") if "{" in match[0] else match[0]


def _temperature(match: re.Match[str]) -> str:
    scale = match[1] or match[2] or match[3]
    return " celsius" if scale[0] in "Cc" else " fahrenheit"


def _repeating(text: str) -> str:
    if "\\dot" in text:
        text = _DOTTED.sub(lambda m: f"{m[1]}\\overline{{{m[2]}{m[3] or ''}{m[4] or ''}}}", text)
    if "\\bar" in text:
        text = _BARRED.sub(lambda m: f"{m[1]}\\overline{{{m[2] or m[3]}}}", text)
    if ")" in text:
        text = _BRACKETED.sub(r"\1\\overline{\2}", text)
    if "dots" in text:
        text = _TRAILING.sub(_trailing, text)
    return text


GOOD_DIGITS = 10
"""A decimal that goes on (`1.4142135623...`) is a number from this many digits on."""


def _trailing(match: re.Match[str]) -> str:
    """`0.1666...` with a bar, when its end repeats a block twice (a single digit three times); else as it is."""
    whole, digits = match[1], match[2]
    for size in range(1, len(digits) // 2 + 1):
        run = len(digits)
        while run > size and digits[run - 1] == digits[run - 1 - size]:
            run -= 1
        start = run - size  # from here on the digits repeat with this period
        if len(digits) - start >= (3 if size == 1 else 2 * size):
            return f"{whole}{digits[:start]}\\overline{{{digits[start : start + size]}}}"
    return whole + digits if len(digits) >= GOOD_DIGITS else match[0]


def _bases(text: str) -> str:
    in_words = _IN_BASE.fullmatch(text) if "base" in text else None
    if in_words:
        base = _base(in_words[2])
        return f"{in_words[1]}_{{{base}}}" if base else text
    return _BASE_SUBSCRIPT.sub(_base_subscript, text)


def _base_subscript(match: re.Match[str]) -> str:
    base = match[3] or _base(match[4] or match[5])
    return f"{match[1] or match[2]}_{{{base}}}" if base and (match[1] or match[2]).strip("ABCDEF") else match[0]


def _base(name: str) -> str:
    return name if name.isdigit() else _BASES.get(name, "")
