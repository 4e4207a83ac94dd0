"""A line of a filelist, or a text to speak, to the token ids that the network reads.

`data` is the config's section of that name.
"""

from typing import Any

from config import data_setting
from text import clean_text, cleaned_text_to_sequence, intersperse


def cleaned(text: str, data: Any) -> str:
    """Return the symbols of a clip's text. Text of a cleaned filelist is returned unchanged."""
    return text if data.cleaned_text else clean_text(text, data.text_cleaners)


def token_ids(symbols: str, data: Any, warn: bool = True) -> list[int]:
    """Return the ids of the symbols that `cleaned` returns, with blanks between them if `data.add_blank`.

    Symbols without an id are left out, with a warning if `warn`.
    """
    ids = cleaned_text_to_sequence(symbols, data_setting(data, "extra_symbols"), warn)
    return intersperse(ids, 0) if data.add_blank else ids
