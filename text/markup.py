"""Marks that a text to speak may contain: phonemes, pauses, languages, and the words of a user dictionary.

- `[[həlˈoʊ]]`: phonemes, as the cleaners return them.
- `<break time="300ms"/>`: a pause, in ms or s. It replaces the pause between two sentences.
- `<lang xml:lang="de">Guten Tag.</lang>`: text in another language, spoken as a separate sentence.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

MAX_PAUSE = 60  # seconds
PHONEMES = re.compile(r"\[\[([^\[\]]+)\]\]")
_TAG = re.compile(r"</?(?:break|lang)\b[^<>]*>?")
_BREAK = re.compile(r"<break\s+time\s*=\s*([\"'])(\d+(?:\.\d+)?)\s?(ms|s)\1\s*/?>")
_LANGUAGE = re.compile(r"<lang\s+xml:lang\s*=\s*([\"'])([\w-]+)\1\s*>")
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_HIDDEN = "\ue001"  # stands for phonemes while a text is split


class Span(NamedTuple):
    """Text between two tags."""

    text: str
    language: str  # a code of espeak-ng; empty: the voice's own
    pause: float | None  # seconds of silence after it; None if no break follows


def spans(text: str) -> list[Span]:
    """Split a text at its tags. Raises ValueError for a tag that cannot be read."""
    found: list[Span] = []
    language, start, opened = "", 0, ""
    for tag in _TAG.finditer(text):
        found.append(Span(text[start : tag.start()], language, None))
        start = tag.end()
        if pause := _BREAK.fullmatch(tag[0]):
            seconds = float(pause[2]) / (1000 if pause[3] == "ms" else 1)
            if seconds > MAX_PAUSE:
                raise ValueError(f"the break {tag[0]} is longer than {MAX_PAUSE} seconds")
            found[-1] = found[-1]._replace(pause=seconds)
        elif (begin := _LANGUAGE.fullmatch(tag[0])) and not opened:
            language, opened = begin[2].lower(), tag[0]
        elif tag[0] == "</lang>" and opened:
            language = opened = ""
        else:
            forms = 'a pause is <break time="300ms"/>, and a text in another language <lang xml:lang="de">...</lang>'
            raise ValueError(f"cannot read {tag[0]!r}: {forms}")
    if opened:
        raise ValueError(f"{opened} is not closed by </lang>")
    return [*found, Span(text[start:], language, None)]


def is_open(text: str) -> bool:
    """Return whether a text ends within another language, before `</lang>`."""
    return text.rfind("<lang") > text.rfind("</lang>")


def hidden(text: str) -> tuple[str, list[str]]:
    """Return a text with one character in place of each `[[phonemes]]`, and these, for `shown`."""
    text = text.replace(_HIDDEN, "")
    return PHONEMES.sub(_HIDDEN, text), [match[0] for match in PHONEMES.finditer(text)]


def shown(pieces: list[str], phonemes: list[str]) -> list[str]:
    """Put the phonemes that `hidden` returned back into the successive pieces of its text."""
    left = iter(phonemes)
    return [re.sub(_HIDDEN, lambda _: next(left), piece) for piece in pieces]


def respelled(text: str, dictionary: Mapping[str, str]) -> str:
    """Replace the words of a dictionary. An entry in lower case serves the word in any case."""
    return _WORD.sub(lambda w: dictionary.get(w[0]) or dictionary.get(w[0].lower()) or w[0], text)


def read_dictionary(path: str | Path) -> dict[str, str]:
    """Read a dictionary: a JSON object, or a text file with a word, white space and what replaces it in each line.

    The replacement is `[[phonemes]]` or a respelling. Blank lines and lines that begin with "#" are skipped. Raises
    ValueError, with file and line, for a line without a replacement.
    """
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
        if Path(path).suffix == ".json":
            entries = json.loads(content)
        else:
            lines = [line.split(maxsplit=1) for line in content.splitlines()]
            for number, line in enumerate(lines, 1):
                if len(line) == 1 and not line[0].startswith("#"):
                    raise ValueError(f"{path}, line {number}: {line[0]!r} has no replacement")
            entries = {line[0]: line[1].strip() for line in lines if line and not line[0].startswith("#")}
    except OSError as error:
        raise ValueError(f"cannot read the dictionary {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"the dictionary {path} cannot be read: {error}") from None
    check_dictionary(entries, str(path))
    return entries


def check_dictionary(entries: object, where: str) -> None:
    """Raise ValueError if an entry is not one word and what replaces it."""
    if not isinstance(entries, dict):
        raise ValueError(f"{where}: a dictionary is an object of words and what replaces them")
    for word, replacement in entries.items():
        if not _WORD.fullmatch(word) or not isinstance(replacement, str) or not replacement.strip():
            raise ValueError(f"{where}: {word!r}: {replacement!r} is not one word and what replaces it")
