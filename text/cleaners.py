"""Cleaners: from written text to the symbols that a model reads. `data.text_cleaners` of a config names them, in order.

- `basic_cleaners`: lower case, whitespace collapsed.
- `transliteration_cleaners`: the same in ASCII, for any language that Unidecode romanises.
- `english_cleaners`: American English phonemes without stress and punctuation.
- `english_cleaners2`, `english_cleaners3`: American English phonemes with stress and punctuation. Both are the same
  here; in vits2_pytorch, the second was the faster one.
- `english_characters`: English text in lower case with numbers and abbreviations spelled out. Every character has an
  id. For models trained on normalised text instead of phonemes, which VITS2 evaluates as well.
- `phonemes_LANGUAGE`: phonemes with stress and punctuation in any language of espeak-ng, named by its espeak-ng code:
  `phonemes_de`, `phonemes_pt-br`, `phonemes_en-gb`. A full stop after an abbreviation or an ordinal number, as in the
  Danish "3. oktober", is part of the word.
- `english_gruut`: American English phonemes with stress and punctuation by gruut, without espeak-ng. It needs the
  package gruut.
- `normalize_LANGUAGE`: numbers, dates, times, amounts and units in words, for a cleaner of phonemes after it. The
  setting `data.normalize` puts it first. There are rules for English and German: `normalize_en`, `normalize_de`.

The English cleaners expand abbreviations as the Tacotron cleaners of Keith Ito do. Their misspelling "misess" is kept,
because published models were trained on it.
"""

import difflib
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from unidecode import unidecode

from text.abbreviations import mark_stops
from text.espeak import load, phonemize
from text.german import spell_german
from text.markup import PHONEMES
from text.numbers import spell_numbers
from text.scripts import words_in_other_scripts

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
ESPEAK_ENGLISH = ("english_cleaners", "english_cleaners2", "english_cleaners3")
_TIE = "\u0361"  # of gruut's affricates, which have two symbols in the table
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
    text = _spell_signs(text)
    text = collapse_whitespace(_NOT_A_CHARACTER.sub(" ", text)).strip()
    return re.sub(r" (?=[;:,.!?])", "", text)


def _spell_signs(text: str) -> str:
    for sign, words in _SPOKEN_SIGNS.items():
        text = text.replace(sign, words)
    return text


def english_gruut(text: str) -> str:
    """Return American English phonemes by gruut. Raises ValueError if gruut is not installed."""
    from cli import extra

    spoken = []
    for sentence in extra("gruut").sentences(_spell_signs(spell_numbers(text)), lang="en-us"):
        for word in sentence:
            is_word = word.phonemes and not (word.is_major_break or word.is_minor_break)
            spoken.append("".join(word.phonemes).replace(_TIE, "") if is_word else word.text)
            spoken.append(word.trailing_ws)
    return collapse_whitespace("".join(spoken)).strip()


def phonemes(text: str, language: str) -> str:
    """Return the phonemes of `text` in a language of espeak-ng. Raises EspeakError for an unknown language."""
    text = mark_stops(unicodedata.normalize("NFC", text).translate(_MARKS_OF_OTHER_SCRIPTS), language)
    return collapse_whitespace(_WITHOUT_SOUND.sub("", phonemize(text, language))).strip()


CLEANERS: dict[str, Callable[[str], str]] = {
    "basic_cleaners": basic_cleaners,
    "transliteration_cleaners": transliteration_cleaners,
    "english_cleaners": english_cleaners,
    "english_cleaners2": english_cleaners2,
    "english_cleaners3": english_cleaners2,
    "english_characters": english_characters,
    "english_gruut": english_gruut,
}
NORMALIZERS: dict[str, Callable[[str], str]] = {"de": spell_german, "en": spell_numbers}  # by language family


def get_cleaner(name: str) -> Callable[[str], str]:
    """Return the cleaner with this name. Raises ValueError, with the nearest name and all names, if there is none."""
    if name in CLEANERS:
        return CLEANERS[name]
    prefix, _, language = name.partition("_")
    if prefix == "phonemes" and language:
        return functools.partial(phonemes, language=language)
    if prefix == "normalize" and language:
        if (normalizer := NORMALIZERS.get(language.partition("-")[0])) is None:
            raise ValueError(f"there are no rules for numbers in {language!r}; languages: {', '.join(NORMALIZERS)}")
        return lambda text: collapse_whitespace(normalizer(text))
    known = [*CLEANERS, f"phonemes_{language}"] if language else CLEANERS
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    every = f"{', '.join(CLEANERS)}, phonemes_LANGUAGE (phonemes_de, phonemes_fr-fr, ...), normalize_en, normalize_de"
    raise ValueError(f"there is no text cleaner {name!r}; nearest: {nearest}; all: {every}")


def same_cleaners(names: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether two lists name the same cleaners. Names may differ, as english_cleaners2 and 3 do."""
    first, second = ([CLEANERS.get(name, name) for name in each] for each in (names, others))
    return first == second


def language_of(cleaner_names: Iterable[str]) -> str:
    """Return the espeak-ng code of the cleaners' language, empty if they serve any language."""
    for name in cleaner_names:
        if name.startswith("phonemes_"):
            return name.removeprefix("phonemes_")
        if name.startswith("english_"):
            return "en-us"
    return ""


def in_language(cleaner_names: Sequence[str], language: str) -> list[str]:
    """Return the cleaners of phonemes that correspond to others in a language of espeak-ng.

    A code with a region that espeak-ng does not have, such as de-de, is that of the language. Raises ValueError if the
    cleaners do not make phonemes by espeak-ng, and EspeakError for an unknown language.
    """
    if not any(name.startswith("phonemes_") or name in ESPEAK_ENGLISH for name in cleaner_names):
        made = ", ".join(cleaner_names)
        raise ValueError(f"this voice reads one language: its cleaners, {made}, do not make phonemes by espeak-ng")
    if language not in load().languages and language.partition("-")[0] in load().languages:
        language = language.partition("-")[0]
    load().voice_of(language)
    return [f"phonemes_{language}"]


def unreadable(text: str, cleaner_names: Iterable[str]) -> list[str]:
    """Return the words of a text that espeak-ng spells letter by letter, because it does not know their script."""
    languages = [name.removeprefix("phonemes_") for name in cleaner_names if name.startswith("phonemes_")]
    return words_in_other_scripts(PHONEMES.sub(" ", text), languages[0]) if languages else []


def collapse_whitespace(text: str) -> str:
    """Replace each run of whitespace by one space."""
    return _SPACES.sub(" ", text)


def _plain_english(text: str) -> str:
    return _expand_abbreviations(unidecode(text).lower())


def _expand_abbreviations(text: str) -> str:
    return _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[1]], text)
