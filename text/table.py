"""Symbol tables: the ids that a network has for the symbols of a text.

The table of VITS is the default. Tables of other systems are lists of symbols in the order of their ids, as in VITS and
its forks, or map symbols to ids, as in Piper and Hugging Face.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text.symbols import symbols as vits_symbols

Symbols = Sequence[str] | Mapping[str, Sequence[int] | int]
MAX_SYMBOLS = 1 << 15  # more than a table of any language has
PIPER_CHARACTERS = ("espeak", "text")  # values of Piper's phoneme_type that make single code points


class SymbolTable:
    """Symbols and their ids.

    Args: `symbols`, in the order of their ids, where an empty one leaves its id without a symbol and a symbol that
    occurs twice has the last id, as in VITS; or the id or the ids of each symbol; by default VITS's table; `extra`,
    characters that take the ids after the table; `form`, the Unicode normalization form of texts before they are looked
    up, or "" for none. Raises ValueError for a table that contradicts itself.
    """

    def __init__(self, symbols: Symbols = (), extra: str = "", form: str = ""):
        given = symbols or vits_symbols
        if isinstance(given, Mapping):
            self.ids = {symbol: (ids,) if isinstance(ids, int) else tuple(ids) for symbol, ids in given.items()}
        else:
            self.ids = {symbol: (i,) for i, symbol in enumerate(given) if symbol}
        for symbol, ids in self.ids.items():
            if not symbol or not ids or not all(0 <= i < MAX_SYMBOLS for i in ids):
                raise ValueError(f"the ids of {symbol!r} are {list(ids)}; a symbol has ids from 0 to {MAX_SYMBOLS - 1}")
        if repeated := sorted({s for i, s in enumerate(extra) if s in self.ids or s in extra[:i]}):
            named = ", ".join(map(repr, repeated))
            raise ValueError(f"extra_symbols names {named} which the table has already: name only others")
        if isinstance(given, Mapping):
            names = [""] * (1 + max(i for ids in self.ids.values() for i in ids))
            for symbol, (first, *_) in self.ids.items():
                names[first] = names[first] or symbol
        else:
            names = list(given)
        self.ids |= {symbol: (i,) for i, symbol in enumerate(extra, len(names))}
        self.names = (*names, *extra)  # the symbol of each id, empty if it has none
        self.form = form
        longest_first = sorted(self.ids, key=len, reverse=True)
        long = len(longest_first[0]) > 1
        self._symbol = re.compile("|".join(map(re.escape, longest_first)) + "|.", re.DOTALL) if long else None
        single = not long and not form and all(len(ids) == 1 for ids in self.ids.values())
        # finds the characters that are in no symbol, much faster than a search for each character
        self._others = re.compile(f"[^{re.escape(''.join(self.ids))}]") if single else None

    def split(self, text: str) -> list[str]:
        """Return the symbols of a text, the longest at each place; a character without a symbol stands alone."""
        if self.form:
            text = unicodedata.normalize(self.form, text)  # type: ignore[arg-type]
        return self._symbol.findall(text) if self._symbol else list(text)

    def unknown(self, text: str) -> list[str]:
        """Return the characters of a text that are in no symbol, in their order."""
        if self._others is not None:
            return self._others.findall(text)
        return [symbol for symbol in self.split(text) if symbol not in self.ids]

    def count(self, text: str) -> tuple[int, int, list[str]]:
        """Return how many symbols of a text have ids, how many ids they have, and what `unknown` returns."""
        unknown = self.unknown(text)
        if self._others is not None:
            known = len(text) - len(unknown)
            return known, known, unknown
        found = [len(self.ids[symbol]) for symbol in self.split(text) if symbol in self.ids]
        return len(found), sum(found), unknown


@functools.cache
def vits_table(extra: str = "") -> SymbolTable:
    """Return VITS's table with extra characters. Raises ValueError if one of them has an id already."""
    return SymbolTable(extra=extra)


def read_symbols(path: Path) -> list[str] | dict[str, list[int] | int]:
    """Read a table from a JSON file: a list of symbols, a map of ids, or a config of Piper or of VITS's forks.

    Those configs have the table as `phoneme_id_map` and `symbols`. Symbols of several characters in a map of Piper are
    left out if Piper does not use them, which makes them only for the pairs in `vowel_clusters`. Raises ValueError if
    the file cannot be read or holds no table.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot read the table of symbols {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the table of symbols {path} is not JSON in UTF-8: {error}") from None
    found: Any = content
    if isinstance(content, dict):
        found = content.get("phoneme_id_map", content.get("symbols", content))
        if "phoneme_id_map" in content and content.get("phoneme_type", "espeak") in PIPER_CHARACTERS:
            joined = {"".join(cluster) for cluster in content.get("vowel_clusters") or ()}
            found = {symbol: ids for symbol, ids in found.items() if len(symbol) == 1 or symbol in joined}
    if found and isinstance(found, list) and all(isinstance(symbol, str) for symbol in found):
        return found
    if found and isinstance(found, dict) and all(isinstance(i, int) for ids in found.values() for i in _listed(ids)):
        return found
    raise ValueError(f"{path} holds no table of symbols: a list of symbols, or an object of symbols and their ids")


def _listed(ids: object) -> list[object]:
    return ids if isinstance(ids, list) else [ids]
