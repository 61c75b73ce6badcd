"""Units in one spelling, so that `5 centimetres` and `5 cm` agree and `5 km` does not."""

from __future__ import annotations

_SPELLINGS = {
    "cm": "centimeter centimetre",
    "mm": "millimeter millimetre",
    "km": "kilometer kilometre",
    "m": "meter metre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "kg": "kilogram kilo",
    "g": "gram gm",
    "mg": "milligram",
    "lb": "pound lbs",
    "oz": "ounce",
    "s": "second sec secs",
    "min": "minute mins",
    "h": "hour hr hrs",
    "day": "days",
    "l": "liter litre L",
    "ml": "milliliter millilitre mL",
    "gal": "gallon",
    "mi/h": "mph",
    "km/h": "kph kmh",
    "dollar": "usd $",
    "cent": "¢",
    "euro": "eur €",
    "rupee": "rs ₹",
    "yen": "¥",
    "sterling": "gbp £",
    "degree": "deg °",
    "radian": "rad",
    "ohm": "Ω",
    "cup": "cups",
    "way": "ways",
    "pie": "pies",
    "car": "cars",
    "egg": "eggs",
    "pen": "pens",
    "man": "men",
    "per": "",
}
_CANONICAL = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_CANONICAL |= {unit: unit for unit in _SPELLINGS}
_CANONICAL |= {spelling + "s": unit for spelling, unit in list(_CANONICAL.items()) if len(spelling) > 2}

WORDS = frozenset(word for word in _CANONICAL if len(word) > 1 and word.isalpha()) - {"min", "sec", "in", "deg"}
"""Unit names that a run of letters is read as, instead of as a product of symbols."""

_EMPTY = frozenset({"unit", "units", "of", "a", "the", "in", "total", "each", "only", "exactly"})


def canonical(words: list[str]) -> str:
    """One spelling for a unit given as words and signs; "" for `units`, which says nothing.

    `["square", "feet"]` and `["ft", "^", "2"]` both give `ft^2`; `["miles", "per", "hour"]` gives `mi/h`.
    """
    out: list[str] = []
    power = ""
    for word in words:
        plain = word if word in _CANONICAL else word.lower().rstrip(".")
        if plain in ("square", "sq", "squared"):
            power = "^2"
        elif plain in ("cubic", "cu", "cubed"):
            power = "^3"
        elif plain in ("per", "/"):
            out.append("/")
        elif plain in ("^", "*") or plain.lstrip("-").isdigit():
            out.append(plain)
        elif plain not in _EMPTY and plain.strip():
            out.append(_CANONICAL.get(plain) or _singular(plain))
            if power:
                out[-1] += power
                power = ""
        if plain in ("squared", "cubed") and out:
            out[-1], power = out[-1] + power, ""
    text = ""
    for i, word in enumerate(out):
        if i and word == out[i - 1] and word not in "/^*":
            continue  # `$5 dollars`
        tight = not text or word[0] in "/^*" or text[-1] in "/^*"
        text += word if tight else " " + word
    return text


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
