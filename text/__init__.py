"""Text to the ids that the networks read, and back: clean the text, then look every symbol up in a table.

The table is `text.symbols.symbols`, 178 entries in VITS's order. Languages that need more add theirs with
`extra_symbols`, a string of characters that take the ids from 178 on: the tilde of French nasal vowels, or an
alphabet for a model that is trained on Russian characters.
"""

import functools
import warnings
from collections import Counter
from collections.abc import Iterable

from text.cleaners import get_cleaner
from text.symbols import symbols as vits_symbols


def text_to_sequence(text: str, cleaner_names: Iterable[str], extra_symbols: str = "") -> list[int]:
    """Cleans `text` and returns its ids. Raises ValueError for a cleaner that does not exist."""
    return cleaned_text_to_sequence(clean_text(text, cleaner_names), extra_symbols)


def cleaned_text_to_sequence(cleaned_text: str, extra_symbols: str = "", warn: bool = True) -> list[int]:
    """Returns the ids of text that is clean already.

    A symbol outside the table has no id. It is left out, as in the VITS2 code, but with one warning for each
    such symbol: speech goes on, and nobody has to guess. Who counts them with `unknown_symbols` turns `warn` off.
    """
    ids = _symbol_ids(extra_symbols)
    sequence = []
    for symbol in cleaned_text:
        if symbol in ids:
            sequence.append(ids[symbol])
        elif warn:
            # Python shows equal warnings once, so a whole corpus warns once for each symbol.
            warnings.warn(f"symbol {symbol!r} (U+{ord(symbol):04X}) is not in the table and is left out", stacklevel=2)
    return sequence


def sequence_to_text(sequence: Iterable[int], extra_symbols: str = "") -> str:
    """Returns the symbols of `sequence`, a list or tensor of ids, as one string."""
    table = table_of_symbols(extra_symbols)
    return "".join(table[int(i)] for i in sequence)


def unknown_symbols(cleaned_text: str, extra_symbols: str = "") -> Counter:
    """Counts the symbols of `cleaned_text` that have no id."""
    ids = _symbol_ids(extra_symbols)
    return Counter(symbol for symbol in cleaned_text if symbol not in ids)


def clean_text(text: str, cleaner_names: Iterable[str]) -> str:
    """Applies the named cleaners one after the other. Raises ValueError for a name that does not exist."""
    names = [cleaner_names] if isinstance(cleaner_names, str) else cleaner_names
    for name in names:
        text = get_cleaner(name)(text)
    return text


def repeated_symbols(extra_symbols: str) -> list[str]:
    """Which of the extra symbols have an id already, from VITS's table or from an earlier place among them."""
    return [s for i, s in enumerate(extra_symbols) if s in vits_symbols or s in extra_symbols[:i]]


@functools.cache
def table_of_symbols(extra_symbols: str = "") -> tuple[str, ...]:
    """Returns the symbols in the order of their ids. Raises ValueError if an extra symbol has one already."""
    known = repeated_symbols(extra_symbols)
    if known:
        raise ValueError(f"extra_symbols {extra_symbols!r} repeats {known}: name only symbols without an id")
    return (*vits_symbols, *extra_symbols)


@functools.cache
def _symbol_ids(extra_symbols: str) -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(table_of_symbols(extra_symbols))}
