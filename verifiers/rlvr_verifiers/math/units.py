r"""Units in one spelling, so that `5 centimetres` and `5 cm` agree and `5 km` does not.

A unit is a product of names with exponents: `m/s`, `\text{m}\cdot\text{s}^{-1}` and `metres per second` are all
`m s^-1`. Words that are no unit we know (`apples`) are names too.
"""

from __future__ import annotations

from collections.abc import Sequence

from .tree import ParseError, words

_SPELLINGS = {
    "cm": "centimeter centimetre 厘米",
    "mm": "millimeter millimetre",
    "km": "kilometer kilometre kms 千米 公里",
    "m": "meter metre 米",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "kg": "kilogram kilogramme kilo kgs 千克 公斤",
    "g": "gram gramme gm 克",
    "mg": "milligram",
    "lb": "pound lbs",
    "oz": "ounce",
    "s": "second sec secs 秒",
    "min": "minute mins 分钟",
    "h": "hour hr hrs 小时",
    "day": "days 天",
    "wk": "week",
    "yr": "year yrs",
    "l": "liter litre L",
    "ml": "milliliter millilitre mL",
    "gal": "gallon",
    "dollar": "usd $ buck",
    "cent": "¢",
    "euro": "eur €",
    "rupee": "rs inr ₹",
    "yen": "jpy ¥",
    "sterling": "gbp £ quid",
    "degree": "deg °",
    "radian": "rad",
    "°C": "celsius centigrade",
    "°F": "fahrenheit",
    "ohm": "Ω",
    "cup": "cups",
    "way": "ways",
    "pie": "pies",
    "car": "cars",
    "egg": "eggs",
    "pen": "pens",
    "man": "men",
    "woman": "women",
    "person": "people persons",
    "child": "children",
}
_CANONICAL = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_CANONICAL |= {unit: unit for unit in _SPELLINGS}
_CANONICAL |= {spelling + "s": unit for spelling, unit in list(_CANONICAL.items()) if len(spelling) > 2}
_COMPOUND = {
    "mph": (("mi", 1), ("h", -1)),
    "kph": (("km", 1), ("h", -1)),
    "kmh": (("km", 1), ("h", -1)),
    "kmph": (("km", 1), ("h", -1)),
    "fps": (("ft", 1), ("s", -1)),
    "mps": (("m", 1), ("s", -1)),
}

WORDS = (
    frozenset(word for word in [*_CANONICAL, *_COMPOUND] if len(word) > 1 and word.isalpha())
    | words("unit units sq square cubic per")
) - words("min sec in deg")
"""Unit names that a run of letters is read as, instead of as a product of symbols."""

_CAPITALS = {"KM": "km", "Km": "km", "CM": "cm", "Cm": "cm", "KG": "kg", "Kg": "kg", "ML": "ml", "Hr": "h", "FT": "ft"}
_EMPTY = words("unit units of a an the in total each only exactly altogether")
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_NO_UNITS = words(
    "squared cubed factorial prime plus minus modulo mod percent is was are be equals not no never nor wrong "
    "incorrect false untrue 不 不是 非 不对 错 nor neither either close near between within if might may could cannot "
    "maybe perhaps possibly ish approximately about nearly almost roughly around least most less "
    "fewer greater over under than or to and but unless except x half halves third thirds quarter quarters fourths "
    "fifths sixths sevenths eighths ninths tenths hundredths thousandths lakh lakhs crore crores googol zero one two "
    "three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million"
)


def canonical(names: Sequence[str]) -> str:
    """One spelling for a unit given as words and signs; "" for `units`, which says nothing.

    `["square", "feet"]` and `["ft", "^", "2"]` both give `ft^2`; `["miles", "per", "hour"]` gives `h^-1 mi`.

    Raises:
        ParseError: If words that change a value stand where a unit should: `6 squared`.
    """
    exponents: dict[str, int] = {}
    order: list[str] = []
    sign, power, at = 1, 0, 0
    while at < len(names):
        word = names[at]
        plain = word.rstrip(".")
        if plain not in _CANONICAL and len(plain) > 2:
            plain = plain.lower()  # `Miles`; but `mW` is not `MW`
        plain = _CAPITALS.get(word, plain)
        after = names[at + 1] if at + 1 < len(names) else ""
        at += 1
        if plain == "in" and after in ("", "^", "/", "per", "squared", "cubed"):
            plain = "inch"
        if plain in _POWERS and (not plain.endswith("ed") or not order):
            power = _POWERS[plain]
            if plain.endswith("ed") and not after:
                raise ParseError(f"`{word}` follows a value")
        elif plain in _POWERS:
            exponents[order[-1]] *= _POWERS[plain]
        elif plain in ("per", "/"):
            sign = -1
        elif plain == "^":
            digits = after.lstrip("-")
            if order and digits.isdigit() and len(digits) < 3:
                exponents[order[-1]] *= int(after)
            at += 1
        elif plain in _NO_UNITS:
            raise ParseError(f"`{word}` follows a value")
        elif plain not in _EMPTY and plain != "*" and plain.strip():
            for name, exponent in _COMPOUND.get(plain, ((_CANONICAL.get(plain) or _singular(plain), 1),)):
                if name not in exponents:
                    order.append(name)
                elif name in ("dollar", "euro", "sterling", "rupee", "yen"):
                    continue  # `$5 dollars`
                exponents[name] = exponents.get(name, 0) + sign * exponent * (power or 1)
            power = 0
            if sign < 0:
                sign = 1
    return " ".join(n if e == 1 else f"{n}^{e}" for n, e in sorted(exponents.items()) if e)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
