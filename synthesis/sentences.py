"""Long text into pieces of the length that voices are trained on, in any language, by its punctuation.

A cut in the wrong place is heard, two sentences in one piece hardly are: where a full stop may belong to an
abbreviation, an initial or an ordinal number, the text stays together.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

LONGEST = 200  # characters; VITS trains on at most 190 symbols

CLOSERS = "\"'”’»›)\\]}」』）"
_SPACED = re.compile(rf"(?P<mark>[.!?…‽]+)[{CLOSERS}]*\s+")  # marks that also stand inside words and numbers
_UNSPACED = re.compile(rf"[。｡！？．؟۔।॥።။៕։]+[{CLOSERS}]*\s*")  # marks that always end a sentence
_END = re.compile(f"{_SPACED.pattern}|{_UNSPACED.pattern}")
_PARAGRAPH = re.compile(r"\n\s*\n")
_LEADING = re.compile(r"^[^\w]+")
_DOTTED = re.compile(r"[^\W\d_]+(\.[^\W\d_]+)+")  # U.S, z.B, e.g
# Where a piece that is too long is cut, the best place first; the cut follows the match.
_WEAKER_ENDS = [
    re.compile(r"[.!?…]+\s"),
    re.compile(r"[;:—–]\s|[；：؛]"),
    re.compile(r"[,]\s|[，、،]"),
    re.compile(r"\s"),
]
# English, German and its neighbours, Romance, Slavic
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        """
    mr mrs ms messrs dr prof rev hon st sr jr gen col capt lt sgt maj gov sen rep
    vs etc no nos vol vols ed eds pp fig figs cf al approx dept est inc ltd co corp
    jan feb mar apr jun jul aug sep sept oct nov dec
    bzw ca usw nr abs bd hr fr str tel evtl ggf inkl exkl zzgl vgl sog geb gest jh mio mrd dhr mevr blz bijv kl ev
    mme mlle mm av bd env sra srta ud uds dña avda núm pág págs exmo exma dott sig art
    ul tzn np tzw godz inż hab tj tzv např ул г гг им проф стр руб тыс млн млрд см рис напр вул
        """,
    )
)


class Piece(NamedTuple):
    """Text to be spoken in one breath; `ends` where a sentence ends with it, and not only a clause."""

    text: str
    ends: bool


def split(text: str, longest: int = LONGEST) -> list[Piece]:
    """Split text into sentences, and sentences of more than `longest` characters at the best places inside.

    Single line ends count as spaces, empty lines end a sentence. Works on phonemes as well, which have no capital
    letters to tell the next sentence by: marks end theirs, but after what may be an initial. White space at both ends
    of the pieces is removed; nothing else is.
    """
    cased = any(character.isupper() for character in text)
    pieces = []
    for paragraph in _PARAGRAPH.split(text):
        for sentence in _sentences(" ".join(paragraph.split()), cased):
            *begin, last = _cut(sentence, longest)
            pieces += [Piece(part, False) for part in begin] + [Piece(last, True)]
    return pieces


def _sentences(text: str, cased: bool) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        if not end["mark"] or _breaks(text[start : end.start()], end["mark"], text[end.end() :], cased):
            yield text[start : end.end()].strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def _breaks(before: str, mark: str, after: str, cased: bool) -> bool:
    """Whether a sentence ends between `before`, its mark, and `after`."""
    if cased and _LEADING.sub("", after)[:1].islower():
        return False
    if mark != "." or not before.split():
        return True
    word = _LEADING.sub("", before.split()[-1])
    initial = len(word) == 1 and word.isalpha()
    ordinal = word.isdigit() and len(word) <= 2
    return not (initial or ordinal or _DOTTED.fullmatch(word) or word.casefold() in _ABBREVIATIONS)


def _cut(text: str, longest: int) -> list[str]:
    """Parts of at most `longest` characters, of similar lengths where the punctuation allows it."""
    parts = []
    while len(text) > longest:
        aim = len(text) / math.ceil(len(text) / longest)
        place = longest
        for marks in _WEAKER_ENDS:
            places = [match.end() for match in marks.finditer(text, 0, longest + 1) if match.end() > longest // 3]
            if places:
                place = min(places, key=lambda end: abs(end - aim))
                break
        parts.append(text[:place].strip())
        text = text[place:].strip()
    return [part for part in [*parts, text] if part]
