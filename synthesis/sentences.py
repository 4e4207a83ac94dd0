"""Splitting of long text, in any language, into pieces of the length that voices are trained on.

A wrong cut is audible, but two sentences in one piece are not. Text is therefore not cut after a full stop that may
belong to an abbreviation, an initial or an ordinal number.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from text.abbreviations import DOTTED, KNOWN

MAX_CHARACTERS = 200  # VITS trains on at most 190 symbols

MAX_ENDING = 20  # characters after which a mark is not looked for at the end of a text
CLOSERS = "\"'”’»›)\\]}」』）"
# Marks of the first kind also occur inside words and numbers; those of the second kind always end a sentence.
# A run of marks is matched from its first one only, so that a long run takes linear time.
_END = re.compile(rf"(?P<mark>(?<![.!?…‽])[.!?…‽]+)[{CLOSERS}]*\s+|[。｡！？．؟۔।॥።။៕։]+[{CLOSERS}]*\s*")
_PARAGRAPH = re.compile(r"\n\s*\n")
_LEADING = re.compile(r"^[^\w]+")
_WORD = re.compile(r"\w")
# Where to cut a piece that is too long, the best place first; the cut follows the match.
_CLAUSE_ENDS = [re.compile(end) for end in (r"(?<![.!?…])[.!?…]+\s", r"[;:—–]\s|[；：؛]", r"[,]\s|[，、،]", r"\s")]


class Piece(NamedTuple):
    """Text that is synthesized at once."""

    text: str
    ends: bool  # a sentence ends with this piece, not only a clause


def split(text: str, max_characters: int = MAX_CHARACTERS) -> list[Piece]:
    """Split text into sentences, and longer sentences into parts of at most `max_characters`.

    A single line break counts as a space; an empty line ends a sentence. Phonemes have no capital letters, so there
    every mark ends a sentence except a full stop after a possible initial. Only white space is removed.
    """
    cased = any(character.isupper() for character in text)
    pieces = []
    for paragraph in _PARAGRAPH.split(text):
        for sentence in _sentences(" ".join(paragraph.split()), cased):
            *begin, last = _cut(sentence, max_characters)
            pieces += [Piece(part, False) for part in begin] + [Piece(last, True)]
    return pieces


def ends_sentence(text: str) -> bool:
    """Return whether a text ends with a mark that ends a sentence."""
    return bool(re.search(rf"[.!?…‽。｡！？．؟۔।॥።။៕։][{CLOSERS}]*\s*$", text[-MAX_ENDING:]))


def _sentences(text: str, cased: bool) -> Iterator[str]:
    """Yield the sentences of a paragraph without double spaces; `cased` says whether the text has capital letters."""
    start = word = 0
    for end in _END.finditer(text):
        if word < end.end():  # searched only from here on, because the rest may have no word
            found = _WORD.search(text, end.end())
            word = found.start() if found else len(text)
        continues = cased and text[word : word + 1].islower()
        if not end["mark"] or (not continues and _breaks(_last_word(text, start, end.start()), end["mark"])):
            yield text[start : end.end()].strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def _last_word(text: str, start: int, end: int) -> str:
    """Return the last word between two places, empty if there is none."""
    while end > start and text[end - 1] == " ":
        end -= 1
    return text[max(start, text.rfind(" ", start, end) + 1) : end]


def _breaks(last: str, mark: str) -> bool:
    """Return whether a sentence ends with a mark after its last word, if what follows may begin a sentence."""
    if mark != "." or not last:
        return True
    word = _LEADING.sub("", last)
    initial = len(word) == 1 and word.isalpha()
    ordinal = word.isdigit() and len(word) <= 2
    return not (initial or ordinal or DOTTED.fullmatch(word) or word.casefold() in KNOWN)


def _cut(text: str, max_characters: int) -> list[str]:
    """Cut text into parts of at most `max_characters`, of similar lengths where the punctuation allows it."""
    parts = []
    while len(text) > max_characters:
        target = len(text) / math.ceil(len(text) / max_characters)
        cut = max_characters
        for marks in _CLAUSE_ENDS:
            ends = [match.end() for match in marks.finditer(text, 0, max_characters + 1)]
            ends = [end for end in ends if end > max_characters // 3]  # no very short parts
            if ends:
                cut = min(ends, key=lambda end: abs(end - target))
                break
        parts.append(text[:cut].strip())
        text = text[cut:].strip()
    return [part for part in [*parts, text] if part]
