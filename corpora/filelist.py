"""Filelists: one utterance per line, with `|` between columns."""

import codecs
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from files import write_text

MAX_SHOWN = 200  # characters of a line in an error message


class ListRecord(NamedTuple):
    """How a cleaned filelist was made. It is stored beside the list, as `LIST.json`."""

    text_cleaners: tuple[str, ...]
    sampling_rate: int | None  # the most frequent one of the recordings, in Hz; None if it is not known


class Clip(NamedTuple):
    """One utterance: a recording and its text."""

    path: str
    speaker: str | None  # None if the filelist has no such column
    text: str
    line: int = 0  # in its file, from 1

    @property
    def where(self) -> str:
        """Line and path of the clip, for messages."""
        return f"line {self.line} ({self.path})"

    def row(self, with_speaker: bool) -> str:
        """Return the line of a filelist."""
        return "|".join([self.path, self.speaker or "", self.text] if with_speaker else [self.path, self.text])


UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Row = tuple[int, list[str]]  # line number from 1, and columns


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file with or without byte-order mark and with any line ends.

    Raises ValueError if the file cannot be read or has another encoding, which the message names.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if b"\0" not in content:
        with suppress(UnicodeDecodeError):
            return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    wide = "UTF-16" if content[:2] in UTF_16 else "UTF-16BE" if content.find(b"\0") % 2 == 0 else "UTF-16LE"
    encoding = wide if b"\0" in content else "CP1252"
    guess = "" if b"\0" in content else " or Latin-1"
    raise ValueError(
        f"{path}: not UTF-8 but probably {encoding}{guess}: convert it, as in: iconv -f {encoding} -t UTF-8"
    )


def read_rows(path: str | Path, separator: str = "|") -> list[Row]:
    """Read the columns of all lines but blank ones. Raises ValueError as `read_text`, and if there are none."""
    lines = enumerate(read_text(path).split("\n"), 1)
    rows = [(number, line.split(separator)) for number, line in lines if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no lines")
    return rows


def check_widths(rows: Sequence[Row], path: str | Path) -> int:
    """Return the number of columns. Raises ValueError with file and line unless it is the same in all rows."""
    width = Counter(len(columns) for _, columns in rows).most_common(1)[0][0]
    for number, columns in rows:
        if len(columns) != width:
            found = f"{len(columns)} columns where most lines have {width}"
            line = "|".join(columns)[:MAX_SHOWN]
            raise ValueError(f"{path}, line {number}: {found}; a text must not contain |: {line!r}")
    return width


def read_filelist(path: str | Path) -> list[Clip]:
    """Read a filelist of lines `path|text` or `path|speaker|text`, one kind per file.

    White space around columns is removed. A recording that is not found from the working directory is looked for
    beside the filelist. Raises ValueError as `read_rows` and, with file and line, for another number of columns, a `|`
    in a text, or an empty path.
    """
    rows = [(number, [column.strip() for column in columns]) for number, columns in read_rows(path)]
    for number, columns in rows:
        if len(columns) not in (2, 3):
            expected = "expected path|text or path|speaker|text, no | in the text"
            raise ValueError(f"{path}, line {number}: {len(columns)} columns; {expected}")
        if not columns[0]:
            raise ValueError(f"{path}, line {number}: the path is empty")
    check_widths(rows, path)
    clips = []
    for number, (recording, *speaker, text) in rows:
        beside = Path(path).parent / recording
        found = str(beside) if not os.path.exists(recording) and os.path.exists(beside) else recording
        clips.append(Clip(found, speaker[0] if speaker else None, text, number))
    return clips


def write_record(filelist: str | Path, record: ListRecord) -> None:
    """Store how a filelist was made."""
    write_text(f"{filelist}.json", json.dumps(record._asdict(), indent=2) + "\n")


def read_record(filelist: str | Path) -> ListRecord | None:
    """Return how a filelist was made, or None if there is no record. Raises ValueError if the record is malformed."""
    path = Path(f"{filelist}.json")
    if not path.is_file():
        return None
    try:
        values = json.loads(read_text(path))
        return ListRecord(tuple(values["text_cleaners"]), values["sampling_rate"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} is not a record of a filelist: write the list again with --clean") from None
