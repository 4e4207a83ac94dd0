"""A line of a filelist, or a text to speak, to the token ids that the network reads.

`data` is the config's section of that name. Its table of symbols is `symbols` and `extra_symbols`; `add_blank`,
`blank_symbol`, `begin_symbol` and `end_symbol` place marks between and around the symbols of a text.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from config import data_setting
from text import clean_text, intersperse, warn_of_unknown
from text.cleaners import NORMALIZERS, in_language, language_of
from text.symbols import PAD
from text.table import Symbols, SymbolTable

T = TypeVar("T")


def cleaned(text: str, data: Any) -> str:
    """Return the symbols of a clip's text. Text of a cleaned filelist is returned unchanged."""
    return text if data.cleaned_text else clean(text, data)


def clean(text: str, data: Any, language: str = "") -> str:
    """Return the symbols of a text, by the cleaners and the dictionary of `data`.

    `language`, a code of espeak-ng, selects another language, to which the dictionary does not apply.
    """
    return clean_text(text, cleaners(data, language), None if language else data_setting(data, "dictionary"))


def cleaners(data: Any, language: str = "") -> list[str]:
    """Return the names of the cleaners, with that of `normalize` before them, in the voice's language or another.

    Raises ValueError as `text.cleaners.in_language`.
    """
    names = in_language(data.text_cleaners, language) if language else list(data.text_cleaners)
    spoken = language_of(names)
    normalized = data_setting(data, "normalize") and (not language or spoken.partition("-")[0] in NORMALIZERS)
    return [f"normalize_{spoken}", *names] if normalized else names


def symbol_table(data: Any) -> SymbolTable:
    """Return the table of symbols. Raises ValueError if it contradicts itself."""
    given = data_setting(data, "symbols")
    pairs = isinstance(given, Mapping)
    key = tuple((s, i if isinstance(i, int) else tuple(i)) for s, i in given.items()) if pairs else tuple(given)
    return _table(key, pairs, data_setting(data, "extra_symbols"), data_setting(data, "unicode_form"))


@functools.cache
def _table(key: tuple[Any, ...], pairs: bool, extra: str, form: str) -> SymbolTable:
    symbols: Symbols = dict(key) if pairs else key
    return SymbolTable(symbols, extra, form)


def vocabulary(data: Any) -> int:
    """Return the number of rows of the text embedding."""
    return data_setting(data, "n_vocab") or len(symbol_table(data).names)


def token_ids(symbols: str, data: Any, warn: bool = True) -> list[int]:
    """Return the ids of the symbols that `cleaned` returns, with the marks of `data`; none if no symbol has an id.

    Symbols without an id are left out, with a warning if `warn`.
    """
    table = symbol_table(data)
    split = table.split(symbols)
    if warn:
        warn_of_unknown(dict.fromkeys(table.unknown(symbols)))
    ids = [table.ids[symbol] for symbol in split if symbol in table.ids]
    return [i for group in _marked(ids, data, *mark_ids(data)) for i in group]


def token_counter(data: Any) -> Callable[[str], tuple[int, list[str]]]:
    """Return a function that counts what `token_ids` returns for symbols, in a small part of its time.

    It also returns the characters that are in no symbol.
    """
    table, add_blank = symbol_table(data), data.add_blank
    blank, begin, end = map(len, mark_ids(data))

    def count(symbols: str) -> tuple[int, list[str]]:
        known, ids, unknown = table.count(symbols)
        return begin + ids + (known + 1) * blank * add_blank + end if known else 0, unknown

    return count


def token_names(symbols: str, data: Any) -> list[str]:
    """Return the symbol of each of `token_ids`: "_" for marks, and "" for all ids of a symbol but the first."""
    table = symbol_table(data)
    marks = ([PAD] * len(ids) for ids in mark_ids(data))
    groups = [[symbol] + [""] * (len(table.ids[symbol]) - 1) for symbol in table.split(symbols) if symbol in table.ids]
    return [name for group in _marked(groups, data, *marks) for name in group]


def mark_ids(data: Any) -> tuple[tuple[int, ...], ...]:
    """Return the ids of the blank, of the mark before a text and of the mark after it; empty for a mark without ids."""
    names = (data_setting(data, f"{mark}_symbol") for mark in ("blank", "begin", "end"))
    blank, begin, end = (symbol_table(data).ids[name] if name else () for name in names)
    return blank or (0,), begin, end


def _marked(groups: list[T], data: Any, blank: T, begin: T, end: T) -> list[T]:
    """Return the groups, with a blank between them and at both ends if `add_blank`, between begin and end."""
    return [begin, *(intersperse(groups, blank) if data.add_blank else groups), end] if groups else []
