"""Text to token ids and back: cleaners normalize the text, and a symbol table maps each symbol to its id.

The functions here are those of VITS, for its table of 178 symbols. The argument `extra_symbols` extends the table: a
string of further characters, which take the ids from 178 on. Examples are the tilde of French nasal vowels, and an
alphabet for a model that reads Russian characters. `text.tokens` serves the tables that a config describes.
"""

import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

from text.cleaners import get_cleaner
from text.table import vits_table


def text_to_sequence(text: str, cleaner_names: Iterable[str], extra_symbols: str = "") -> list[int]:
    """Clean `text` and return its ids. Raises ValueError for an unknown cleaner."""
    return cleaned_text_to_sequence(clean_text(text, cleaner_names), extra_symbols)


def cleaned_text_to_sequence(cleaned_text: str, extra_symbols: str = "", warn: bool = True) -> list[int]:
    """Return the ids of text that is already clean.

    Symbols outside the table are skipped, as in vits2_pytorch. `warn` issues a UserWarning for each such symbol;
    callers that report them themselves, with `unknown_symbols`, turn it off.
    """
    if warn:
        warn_of_unknown(unknown_symbols(cleaned_text, extra_symbols))
    ids = vits_table(extra_symbols).ids
    return [ids[symbol][0] for symbol in cleaned_text if symbol in ids]


def sequence_to_text(sequence: Iterable[int], extra_symbols: str = "") -> str:
    """Return the symbols of `sequence`, a list or tensor of ids, as one string."""
    table = table_of_symbols(extra_symbols)
    return "".join(table[int(i)] for i in sequence)


def intersperse(lst: list[Any], item: Any) -> list[Any]:
    """Return `[item, a, item, b, item]` for `[a, b]`: VITS's blanks between symbols (`add_blank`)."""
    result = [item] * (len(lst) * 2 + 1)
    result[1::2] = lst
    return result


def unknown_symbols(cleaned_text: str, extra_symbols: str = "") -> Counter[str]:
    """Count the symbols of `cleaned_text` that have no id."""
    return vits_table(extra_symbols).unknown(cleaned_text)


def warn_of_unknown(unknown: Iterable[str]) -> None:
    """Issue a UserWarning for each symbol without an id."""
    # Python shows equal warnings once, so there is one warning per symbol for a whole corpus
    for symbol in unknown:
        warnings.warn(f"symbol {symbol!r} (U+{ord(symbol):04X}) is not in the table and is left out", stacklevel=3)


def clean_text(text: str, cleaner_names: Iterable[str]) -> str:
    """Apply the named cleaners in order. Raises ValueError for an unknown name."""
    for name in [cleaner_names] if isinstance(cleaner_names, str) else cleaner_names:
        text = get_cleaner(name)(text)
    return text


_clean_text = clean_text  # the name in VITS, which its preprocess.py calls


def table_of_symbols(extra_symbols: str = "") -> tuple[str, ...]:
    """Return the symbols in the order of their ids. Raises ValueError if an extra symbol already has an id."""
    return vits_table(extra_symbols).names
