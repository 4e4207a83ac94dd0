"""Full stops that belong to a word: abbreviations, initials and ordinal numbers.

`synthesis.sentences` does not end a sentence there, and the cleaners `phonemes_LANGUAGE` do not make a pause of them.
"""

import re

from text.german import ENDINGS, MONTHS

LONGEST = 20  # characters of a word before an ordinal number that are looked at
IN_WORD = "\ue000"  # stands for a full stop that belongs to a word

DOTTED = re.compile(r"[^\W\d_]+(\.[^\W\d_]+)+")  # U.S, z.B, e.g
# English, German and its neighbours, Romance, Slavic
_ABBREVIATIONS = """
    mr mrs ms messrs dr prof rev hon st sr jr gen col capt lt sgt maj gov sen rep
    vs etc no nos vol vols ed eds pp fig figs cf al approx dept est inc ltd co corp
    jan feb mar apr jun jul aug sep sept oct nov dec
    bzw ca usw nr abs bd hr fr str tel evtl ggf inkl exkl zzgl vgl sog geb gest jh mio mrd dhr mevr blz bijv kl ev
    mme mlle mm av bd env sra srta ud uds dña avda núm pág págs exmo exma dott sig art
    ul tzn np tzw godz inż hab tj tzv např ул г гг им проф стр руб тыс млн млрд см рис напр вул
"""
KNOWN = frozenset(_ABBREVIATIONS.split())
# Abbreviations before a word in capitals, such as a name. After others, a capital letter may begin a sentence.
_TITLES = """
    mr mrs ms messrs dr prof rev hon st gen col capt lt sgt maj gov sen rep vs
    bzw ca nr hr fr evtl ggf inkl exkl zzgl vgl sog geb dhr mevr bijv
    mme mlle mm sra srta dña avda exmo exma dott sig ul inż ул им проф
"""
_BEFORE_NAMES = frozenset(_TITLES.split())
_TIMES_OF_DAY = ("a.m", "p.m")
# Languages of espeak-ng that write "3." for "third"
_WITH_ORDINAL_STOPS = "da nb nn no is fi et lv cs sk sl hr bs sr hu pl de lb eu tr az"
_ORDINAL_STOPS = frozenset(_WITH_ORDINAL_STOPS.split())
# A word of letters or digits with stops inside, its last stop, and what follows in the text
_STOP = re.compile(r"(?<![^\s(\[\"'„“”«»‘’-])([^\W_]+(?:\.[^\W_]+)*)\.(?=([,;:]|\s+)\s*(?:[^\w\s]*(\w+))?)")
_INSIDE = re.compile(r"(?<![^\W_])[^\W\d_]{1,3}(?:\.[^\W\d_]{1,3})+(?![^\W_])")


def mark_stops(text: str, language: str) -> str:
    """Return `text` with `IN_WORD` for each full stop that belongs to a word; `language` is a code of espeak-ng.

    The last full stop of a text ends its sentence.
    """
    if "." not in text:
        return text
    family, cased = language.partition("-")[0], any(character.isupper() for character in text)

    def marked(match: re.Match) -> str:
        word, after, following = match[1], match[2], match[3] or ""
        before = text[max(0, match.start() - LONGEST) : match.start()].split()[-1:]
        if following and _belongs(word, after, following, before, family, cased):
            return f"{match[1]}{IN_WORD}"
        return match[0]

    return _INSIDE.sub(lambda match: match[0].replace(".", IN_WORD), _STOP.sub(marked, text))


def _belongs(word: str, after: str, following: str, before: list[str], family: str, cased: bool) -> bool:
    """Return whether the full stop after a word belongs to it.

    `after` is the white space or the mark after it, `following` the next word, `before` the word before, if any.
    """
    capital, folded = following[0].isupper(), word.casefold()
    if word.isdigit():
        if capital:  # a noun in German, and elsewhere the begin of a sentence
            ordinal = following in MONTHS or not before or before[0].lower() in ENDINGS
            return family == "de" and len(word) <= 2 and ordinal
        return family in _ORDINAL_STOPS and following[0].isalpha()
    if DOTTED.fullmatch(word):
        return not (folded in _TIMES_OF_DAY and capital)
    if len(word) == 1 and word.isalpha():
        return word != "I" or not capital  # an initial, but not the English pronoun
    if folded not in KNOWN:
        return False
    if capital or not cased:
        return folded in _BEFORE_NAMES or following[0].isdigit() or not after.isspace()
    return True
