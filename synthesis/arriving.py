"""Splitting of text that is still being written."""

import re
from collections.abc import Iterable, Iterator

from synthesis.sentences import CLOSERS, Piece, split

# A mark at the end of a line ends a sentence, so that the last one does not wait for a next word.
_ENDED = re.compile(rf"[.!?…‽。｡！？．؟۔।॥።။៕։][{CLOSERS}]*[^\S\n]*\n\s*$|\n\s*\n\s*$")


def pieces(texts: Iterable[str]) -> Iterator[Piece]:
    """Yield the pieces of a text that comes in parts, cut anywhere, each as soon as it is complete.

    The pieces are those of `sentences.split`, except that a long sentence is cut before its end is known.
    """
    rest = ""
    for text in texts:
        rest += text
        found = split(rest)
        if _ENDED.search(rest):
            yield from found
            rest = ""
        elif len(found) > 1:
            *complete, last = found
            yield from complete
            rest = last.text + rest[len(rest.rstrip()) :]
    yield from split(rest)
