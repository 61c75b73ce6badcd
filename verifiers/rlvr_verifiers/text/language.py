"""Which language a text is in.

1.  The script of most letters decides what it can: a text in another script than the language is written in is not in
    it, and a script that only one language of the table has (Greek, Thai, Korean, ...) is that language.
2.  Between languages of one script py3langid decides, over the languages of the table with that script (a naive Bayes
    classifier over byte n-grams; deterministic, and without state that calls change). The text is read in passages of
    about 300 characters, 40 at most, evenly taken from the whole; it is in the language when three of four passages
    are. Code blocks, inline code and links are left out.
3.  A text with fewer than 20 letters in a script that several languages share is too short to tell: undecided, not
    wrong. A text with no letter is in no language.

Languages that no statistics can tell apart on short texts count as one: Bosnian, Croatian, Serbian; Indonesian, Malay;
Danish, Norwegian. A code is ISO 639-1; a region (`pt-BR`) is not looked at.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import Any

from rlvr import MissingDependencyError

from .seen import fold, unmasked

SHORT = 20
"""Letters below which languages that share a script are not told apart."""

PASSAGE, PASSAGES = 300, 40
SHARE = 0.75

_LANGUAGES = {
    "latin": "af az bs ca cs cy da de en eo es et eu fi fr ga gl hr ht hu id is it jv la lb lt lv mg ms mt nl no pl pt "
    "ro rw sk sl so sq sv sw tl tr uz vi xh zu",
    "cyrillic": "be bg kk ky mk mn ru sr tg uk",
    "arabic": "ar fa ku ps ug ur",
    "devanagari": "hi mr ne sa",
    "bengali": "bn as",
    "hebrew": "he",
    "greek": "el",
    "armenian": "hy",
    "georgian": "ka",
    "ethiopic": "am",
    "thai": "th",
    "lao": "lo",
    "khmer": "km",
    "myanmar": "my",
    "sinhala": "si",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "gujarati": "gu",
    "gurmukhi": "pa",
    "oriya": "or",
    "hangul": "ko",
    "kana": "ja",
    "han": "zh",
}
SCRIPTS: dict[str, set[str]] = {}
"""The scripts that a language is written in."""
for _script, _codes in _LANGUAGES.items():
    for _code in _codes.split():
        SCRIPTS.setdefault(_code, set()).add(_script)

_ALIASES = {
    "nb": "no",
    "nn": "no",
    "iw": "he",
    "in": "id",
    "fil": "tl",
    "zh-cn": "zh",
    "zh-tw": "zh",
    "cn": "zh",
    "jp": "ja",
}
_ALIKE = [{"bs", "hr", "sr"}, {"id", "ms"}, {"da", "no"}]
_OF_NAME = {
    **{name.upper(): name for name in _LANGUAGES if name not in ("kana", "han")},
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "CJK": "han",
}
_SKIPPED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|<[^<>\n]{0,200}>", re.DOTALL)


def known(code: Any) -> str:
    """The language that a code means.

    Raises:
        ValueError: The table has none of that code.
    """
    if isinstance(code, str):
        name = code.strip().casefold().replace("_", "-")
        name = _ALIASES.get(name, name)
        name = _ALIASES.get(name.partition("-")[0], name.partition("-")[0])
        if name in SCRIPTS:
            return name
    raise ValueError(f"the language `{code}` is not known; known: {' '.join(sorted(SCRIPTS))}")


def spoken(text: str, wanted: str) -> tuple[bool | None, str]:
    """Whether a text is in a language, None where it is too short to tell; and what was seen.

    Args:
        text: The text as a reader sees it.
        wanted: A language as `known` gives it.

    Raises:
        MissingDependencyError: Languages of one script must be told apart, and the extra `text` is not installed.
    """
    passages = _passages(_SKIPPED.sub(" ", text) if any(mark in text for mark in "`<:") else text)
    scripts = _scripts("".join(passages))
    if not scripts:
        return False, "there are no letters in it"
    script, letters = max(scripts.items(), key=lambda item: item[1])
    if "kana" in scripts and script == "han" and scripts["kana"] * 10 >= letters:
        script = "kana"
    if script == "han" and wanted == "ja" and letters < SHORT:
        return None, f"{letters} Chinese characters without kana are too few to tell the language"
    if script not in SCRIPTS[wanted]:
        return False, f"most letters are {script}, in which {wanted} is not written"
    if scripts[script] < SHARE * sum(scripts.values()) and script not in ("kana", "han"):
        return False, f"only {scripts[script] / sum(scripts.values()):.0%} of the letters are {script}"
    others = [code for code, written in SCRIPTS.items() if script in written]
    if len(others) == 1:
        return True, f"the letters are {script}, which is {wanted}"
    if letters < SHORT:
        return None, f"{letters} letters are too few to tell the language"
    guesses = Counter(_guess(passage, script) for passage in passages if any(map(str.isalpha, passage)))
    alike = next((group for group in _ALIKE if wanted in group), {wanted})
    right = sum(count for guess, count in guesses.items() if guess in alike)
    total = sum(guesses.values())
    if right >= SHARE * total:
        return True, f"it is in {wanted}"
    first = guesses.most_common(1)[0][0]
    return (
        False,
        f"it is in {first}" if total == 1 else f"{total - right} of {total} passages are not in {wanted}, but {first}",
    )


def _passages(text: str) -> list[str]:
    """The text in passages, evenly taken where there are many. The last one is never a scrap."""
    text = " ".join(text.split()) if len(text) < 2 * PASSAGE * PASSAGES else text
    count = max(1, len(text) // PASSAGE)
    cuts = [round(i * len(text) / count) for i in range(count + 1)]
    pieces = list(pairwise(cuts))
    if count > PASSAGES:
        pieces = [pieces[i * count // PASSAGES] for i in range(PASSAGES)]
    return [" ".join(text[start:end].split()) for start, end in pieces]


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script there are."""
    found: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            name = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
            found[_OF_NAME.get(name, "unknown" if name not in ("FULLWIDTH", "HALFWIDTH") else "latin")] += count
    return found


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid import langid
    except ImportError:
        raise MissingDependencyError.extra("telling languages of one script apart", "text") from None
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)


def _guess(passage: str, script: str) -> str:
    """The likeliest language of a script."""
    if script == "latin":
        passage = unmasked(passage)
    if passage.isupper():
        passage = passage.lower()
    for code, _ in _identifier().rank(fold(passage, case=True)):
        code = _ALIASES.get(code, code)
        if code == "yue" or code == "wuu":
            code = "zh"
        if script in SCRIPTS.get(code, ()):
            return str(code)
    return "unknown"
