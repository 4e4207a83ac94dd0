"""Scripts that espeak-ng cannot read in a language. It spells their letters: "Chinese letter", "gamma", "epsilon"."""

import re
import unicodedata

# Languages of espeak-ng that read a script besides the Latin one, which all of them read
_LANGUAGES = {
    "ARABIC": "ar fa ur ug sd",
    "ARMENIAN": "hy hyw",
    "BENGALI": "as bn bpy",
    "CHEROKEE": "chr",
    "CJK": "cmn yue hak",
    "CYRILLIC": "ru uk be bg mk sr kk ky tt ba cv nog",
    "DEVANAGARI": "hi mr ne kok",
    "ETHIOPIC": "am ti",
    "GEORGIAN": "ka",
    "GREEK": "el grc",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KANNADA": "kn",
    "KATAKANA": "ja",
    "MALAYALAM": "ml",
    "MYANMAR": "my shn",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
}
_READERS = {script: frozenset(languages.split()) for script, languages in _LANGUAGES.items()}
_OTHER_WORD = re.compile(r"[^\W\d_\u0000-\u036f]\w*|\w*[^\W\d_\u0000-\u036f]")  # has a letter that may not be Latin
_ONE_LETTER_WORDS = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA")  # other single letters are symbols, such as π


def words_in_other_scripts(text: str, language: str) -> list[str]:
    """Return the words of a text in a script that espeak-ng does not read in a language, given by its code."""
    family = language.partition("-")[0]
    words = []
    for word in _OTHER_WORD.findall(text) if not text.isascii() else ():
        scripts = [unicodedata.name(letter, "").partition(" ")[0] for letter in word]
        foreign = [script for script in scripts if family not in _READERS.get(script, (family,))]
        if len(foreign) > 1 or set(foreign) & set(_ONE_LETTER_WORDS):
            words.append(word)
    return words
