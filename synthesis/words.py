"""Which written word each spoken word belongs to."""

from collections import Counter
from collections.abc import Callable
from difflib import SequenceMatcher


def written_words(text: str, spoken: list[str], clean: Callable[[str], str]) -> list[str]:
    """Return the written words behind each word of the symbols, joined by spaces.

    Cleaners write out numbers and abbreviations, and espeak-ng joins words: "1999" is three spoken words, and "of the"
    may be one. If the numbers of words differ, each written word is cleaned alone, and the symbols are compared.

    Args: `spoken` are the words of `clean(text)`, between spaces; `clean` applies the cleaners.
    """
    written = text.split()
    if len(written) == len(spoken) or not written:
        return written or [""] * len(spoken)
    alone = [clean(word).strip() for word in written]
    owners = [i for i, symbols in enumerate(alone) for _ in f"{symbols} "]
    places = [i for i, symbols in enumerate(spoken) for _ in f"{symbols} "]
    votes: list[Counter[int]] = [Counter() for _ in spoken]
    matcher = SequenceMatcher(None, "".join(f"{s} " for s in alone), "".join(f"{s} " for s in spoken), autojunk=False)
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            votes[places[block.b + k]][owners[block.a + k]] += 1
    words, last = [], -1
    for found in votes:
        whole = {i for i, count in found.items() if count > len(alone[i]) / 2 and i >= last}
        chosen = whole or {max(found, key=lambda i: found[i], default=max(last, 0))}
        begin = min(*chosen, last + 1)  # words between, of which little is heard, belong to the next one
        last = max(chosen)
        words.append(" ".join(written[begin : last + 1]))
    return words
