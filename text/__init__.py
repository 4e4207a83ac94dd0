"""Text to token ids and back: cleaners normalize the text, and a symbol table maps each symbol to its id.

The functions here are those of VITS, for its table of 178 symbols. The argument `extra_symbols` extends the table: a
string of further characters, which take the ids from 178 on. Examples are the tilde of French nasal vowels, and an
alphabet for a model that reads Russian characters. `text.tokens` serves the tables that a config describes.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from text.cleaners import get_cleaner
from text.markup import PHONEMES, respelled
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
    return Counter(vits_table(extra_symbols).unknown(cleaned_text))


def warn_of_unknown(unknown: Iterable[str]) -> None:
    """Issue a UserWarning for each symbol without an id."""
    # Python shows equal warnings once, so there is one warning per symbol for a whole corpus
    for symbol in unknown:
        warnings.warn(f"symbol {symbol!r} (U+{ord(symbol):04X}) is not in the table and is left out", stacklevel=3)


def clean_text(text: str, cleaner_names: Iterable[str], dictionary: Mapping[str, str] | None = None) -> str:
    """Apply the named cleaners in order, after the words of a dictionary (see `text.markup`) are replaced.

    Phonemes in double brackets, `[[həlˈoʊ]]`, remain as they are. Raises ValueError for an unknown name.
    """
    cleaners = [get_cleaner(name) for name in ([cleaner_names] if isinstance(cleaner_names, str) else cleaner_names)]
    if dictionary:
        parts = PHONEMES.split(text)
        parts[::2] = [respelled(part, dictionary) for part in parts[::2]]
        text = "".join(f"[[{part}]]" if i % 2 else part for i, part in enumerate(parts))
    if "[[" not in text:
        return _cleaned(text, cleaners)
    parts = PHONEMES.split(text)  # the odd ones are phonemes
    for i in range(0, len(parts), 2):
        part = parts[i]
        before, after = (" " if i and part[:1].isspace() else ""), (" " if part[-1:].isspace() else "")
        parts[i] = f"{before}{_cleaned(part, cleaners).strip()}{after}" if part.strip() else before or after
    return " ".join("".join(parts).split())


def _cleaned(text: str, cleaners: Sequence[Callable[[str], str]]) -> str:
    for cleaner in cleaners:
        text = cleaner(text)
    return text


_clean_text = clean_text  # the name in VITS, which its preprocess.py calls


def table_of_symbols(extra_symbols: str = "") -> tuple[str, ...]:
    """Return the symbols in the order of their ids. Raises ValueError if an extra symbol already has an id."""
    return vits_table(extra_symbols).names
