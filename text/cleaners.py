"""Cleaners turn written text into what a model reads. `data.text_cleaners` of a config names them, in order.

- `basic_cleaners`: lower case, spaces collapsed.
- `transliteration_cleaners`: the same in ASCII, for any language that Unidecode romanises.
- `english_cleaners`: American phonemes without stress and punctuation.
- `english_cleaners2`, `english_cleaners3`: American phonemes with both. The VITS2 code made 3 for speed; the
  output is the same.
- `english_characters`: written English with numbers and abbreviations spelled out, and no symbol without an
  id, for models trained on normalised text instead of phonemes, which VITS2 does as well.
- `phonemes_LANGUAGE`: phonemes with stress and punctuation in any language of espeak-ng, by its code there:
  `phonemes_de`, `phonemes_pt-br`, `phonemes_en-gb`.

The English ones expand abbreviations as the Tacotron cleaners of Keith Ito do, "misess" included: models that
were trained on it know it.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Callable

from unidecode import unidecode

from text.espeak import phonemize
from text.numbers import spell_numbers

_ABBREVIATIONS = {
    "mrs": "misess",
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}
_ABBREVIATION = re.compile(rf"\b({'|'.join(_ABBREVIATIONS)})\.")
_SPACES = re.compile(r"\s{2,}|[^\S ]")  # single spaces stay as they are, and most are single
_WITHOUT_SOUND = re.compile(r"[(){}\[\]-]")  # brackets, and the hyphen by which espeak joins French words
_SPOKEN_SIGNS = {
    " -- ": ", ",
    "--": ", ",
    "&": " and ",
    "@": " at ",
    "%": " percent ",
    "+": " plus ",
    "=": " equals ",
}
_NOT_A_CHARACTER = re.compile(r"[^a-z;:,.!?\"' ]")

# Marks that neither espeak's reading nor the symbol table knows, as the ones that both know.
_MARKS_OF_OTHER_SCRIPTS = str.maketrans(
    {
        **dict.fromkeys("，、،", ", "),
        **dict.fromkeys("。｡।", ". "),
        **dict.fromkeys("？؟", "? "),
        **dict.fromkeys("；؛", "; "),
        "！": "! ",
        "：": ": ",
        "„": "“",
        "’": "'",
        "–": "—",
        "‹": "«",
        "›": "»",
    }
)


def basic_cleaners(text: str) -> str:
    return collapse_whitespace(text.lower())


def transliteration_cleaners(text: str) -> str:
    return collapse_whitespace(unidecode(text).lower())


def english_cleaners(text: str) -> str:
    return collapse_whitespace(phonemize(_plain_english(text), "en-us", stress=False, punctuation=False))


def english_cleaners2(text: str) -> str:
    return collapse_whitespace(phonemize(_plain_english(text), "en-us"))


def english_characters(text: str) -> str:
    # Numbers twice: "£" and "€" are lost in ASCII, "½" and "²" become numbers there.
    text = spell_numbers(unidecode(spell_numbers(text.lower())).lower())
    text = _expand_abbreviations(re.sub(r"\bmrs\.", "missus", text))
    for sign, words in _SPOKEN_SIGNS.items():
        text = text.replace(sign, words)
    text = collapse_whitespace(_NOT_A_CHARACTER.sub(" ", text)).strip()
    return re.sub(r" (?=[;:,.!?])", "", text)


def phonemes(text: str, language: str) -> str:
    """Returns the phonemes of `text` in espeak-ng's `language`. Raises EspeakError if there is none."""
    text = unicodedata.normalize("NFC", text).translate(_MARKS_OF_OTHER_SCRIPTS)
    return collapse_whitespace(_WITHOUT_SOUND.sub("", phonemize(text, language))).strip()


CLEANERS: dict[str, Callable[[str], str]] = {
    "basic_cleaners": basic_cleaners,
    "transliteration_cleaners": transliteration_cleaners,
    "english_cleaners": english_cleaners,
    "english_cleaners2": english_cleaners2,
    "english_cleaners3": english_cleaners2,
    "english_characters": english_characters,
}


def get_cleaner(name: str) -> Callable[[str], str]:
    """Returns the cleaner of that name. Raises ValueError with the nearest name and all of them."""
    if name in CLEANERS:
        return CLEANERS[name]
    prefix, _, language = name.partition("_")
    if prefix == "phonemes" and language:
        return functools.partial(phonemes, language=language)
    known = [*CLEANERS, f"phonemes_{language}"] if language else CLEANERS
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    raise ValueError(
        f"there is no text cleaner {name!r}; nearest: {nearest}; all: {', '.join(CLEANERS)}, "
        "phonemes_LANGUAGE (phonemes_de, phonemes_fr-fr, ...)"
    )


def collapse_whitespace(text: str) -> str:
    return _SPACES.sub(" ", text)


def _plain_english(text: str) -> str:
    return _expand_abbreviations(unidecode(text).lower())


def _expand_abbreviations(text: str) -> str:
    return _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[1]], text)
