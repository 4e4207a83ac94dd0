"""Cleaners: from written text to the symbols that a model reads. `data.text_cleaners` of a config names them, in order.

- `basic_cleaners`: lower case, whitespace collapsed.
- `transliteration_cleaners`: the same in ASCII, for any language that Unidecode romanises.
- `english_cleaners`: American English phonemes without stress and punctuation.
- `english_cleaners2`, `english_cleaners3`: American English phonemes with stress and punctuation. Both are the same
  here; in vits2_pytorch, the second was the faster one.
- `english_characters`: English text in lower case with numbers and abbreviations spelled out. Every character has an
  id. For models trained on normalised text instead of phonemes, which VITS2 evaluates as well.
- `phonemes_LANGUAGE`: phonemes with stress and punctuation in any language of espeak-ng, named by its espeak-ng code:
  `phonemes_de`, `phonemes_pt-br`, `phonemes_en-gb`.

The English cleaners expand abbreviations as the Tacotron cleaners of Keith Ito do. Their misspelling "misess" is kept,
because published models were trained on it.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable

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
_SPACES = re.compile(r"\s{2,}|[^\S ]")  # does not match a single space, the most frequent case, for speed
_WITHOUT_SOUND = re.compile(r"[(){}\[\]-]")  # brackets, and the hyphen with which espeak joins French words
_SPOKEN_SIGNS = {" -- ": ", ", "--": ", ", "&": " and ", "@": " at ", "%": " percent ", "+": " plus ", "=": " equals "}
_NOT_A_CHARACTER = re.compile(r"[^a-z;:,.!?\"' ]")

# Punctuation marks outside the symbol table and their equivalents inside it, which come first in the six strings below.
_MARKS_OF_OTHER_SCRIPTS = str.maketrans("„’–‹›", "“'—«»") | str.maketrans(
    {mark: f"{marks[0]} " for marks in (",，、،", ".。｡।", "?？؟", ";；؛", "!！", ":：") for mark in marks[1:]}
)


def basic_cleaners(text: str) -> str:
    """Return lower-case text with whitespace collapsed."""
    return collapse_whitespace(text.lower())


def transliteration_cleaners(text: str) -> str:
    """Return lower-case ASCII text with whitespace collapsed."""
    return collapse_whitespace(unidecode(text).lower())


def english_cleaners(text: str) -> str:
    """Return American English phonemes without stress and punctuation."""
    return collapse_whitespace(phonemize(_plain_english(text), "en-us", stress=False, punctuation=False))


def english_cleaners2(text: str) -> str:
    """Return American English phonemes with stress and punctuation."""
    return collapse_whitespace(phonemize(_plain_english(text), "en-us"))


def english_characters(text: str) -> str:
    """Return normalised English text: words in lower case and punctuation, no digits."""
    # numbers before and after unidecode, which changes "£" and "€" and turns "½" and "²" into digits
    text = spell_numbers(unidecode(spell_numbers(text.lower())).lower())
    text = _expand_abbreviations(re.sub(r"\bmrs\.", "missus", text))
    for sign, words in _SPOKEN_SIGNS.items():
        text = text.replace(sign, words)
    text = collapse_whitespace(_NOT_A_CHARACTER.sub(" ", text)).strip()
    return re.sub(r" (?=[;:,.!?])", "", text)


def phonemes(text: str, language: str) -> str:
    """Return the phonemes of `text` in a language of espeak-ng. Raises EspeakError for an unknown language."""
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
    """Return the cleaner with this name. Raises ValueError, with the nearest name and all names, if there is none."""
    if name in CLEANERS:
        return CLEANERS[name]
    prefix, _, language = name.partition("_")
    if prefix == "phonemes" and language:
        return functools.partial(phonemes, language=language)
    known = [*CLEANERS, f"phonemes_{language}"] if language else CLEANERS
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    every = f"{', '.join(CLEANERS)}, phonemes_LANGUAGE (phonemes_de, phonemes_fr-fr, ...)"
    raise ValueError(f"there is no text cleaner {name!r}; nearest: {nearest}; all: {every}")


def same_cleaners(names: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether two lists name the same cleaners. Names may differ, as english_cleaners2 and 3 do."""
    first, second = ([CLEANERS.get(name, name) for name in each] for each in (names, others))
    return first == second


def collapse_whitespace(text: str) -> str:
    """Replace each run of whitespace by one space."""
    return _SPACES.sub(" ", text)


def _plain_english(text: str) -> str:
    return _expand_abbreviations(unidecode(text).lower())


def _expand_abbreviations(text: str) -> str:
    return _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[1]], text)
