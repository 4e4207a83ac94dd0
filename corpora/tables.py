"""Tables of corpora: lines with columns, with or without a header, and JSON lines."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from corpora.filelist import Row, check_widths, read_rows, read_text

HEADER_BYTES = 4096  # enough for the first line of a table
ROLES = {  # columns of tables with a header
    **dict.fromkeys(
        ("file_name", "audio_file", "path", "file", "filename", "audio", "wav", "wav_filename", "id"), "id"
    ),
    **dict.fromkeys(("speaker", "speaker_id", "speaker_name", "client_id"), "speaker"),
    **dict.fromkeys(("text", "sentence", "transcription", "transcript", "raw_text"), "text"),
    **dict.fromkeys(("normalised", "normalized", "normalized_text", "normalised_text"), "normalised"),
}


def read_metadata(path: Path, columns: int = 0) -> tuple[list[Row], int]:
    """Return the rows of a table without white space around columns, and their width. Quotes are ordinary.

    Columns are separated by | or, if the first line has none, by tabs. If it has none of them either, and the number of
    `columns` is known, they are separated by commas or semicolons, and quotes may enclose them.
    """
    line = first_line(path)
    separator = next((mark for mark in "|\t" if mark in line), _separator(line) if columns > 1 else "|")
    if separator in ",;":
        reader = csv.reader(io.StringIO(read_text(path)), delimiter=separator)
        read: list[Row] = [(reader.line_num, row) for row in reader if row]
    else:
        read = read_rows(path, separator)
    rows = [(number, [column.strip() for column in row]) for number, row in read]
    return rows, check_widths(rows, path)


def refuse_speakers_as_text(metadata: Path, rows: Sequence[Row]) -> None:
    """Raise ValueError if the second or the third of three columns looks like speakers, and the other one like text."""
    second, third = ([row[i] for _, row in rows if len(row) == 3] for i in (1, 2))
    for which, names, texts, order in (
        ("second", second, third, "speaker,text"),
        ("third", third, second, "text,speaker"),
    ):
        words = sum(" " in text for text in texts) > len(texts) / 2
        repeated = 2 * len(set(names)) <= len(names) and len(set(texts)) > len(set(names))
        if words and (repeated or not any(" " in name for name in names)):
            shown = ", ".join(list(dict.fromkeys(names))[:3])
            choices = f"--columns id,{order} or, if it is text, --columns id,text,normalised"
            looks = f"the {which} column ({shown}, ...) looks like speakers, not like text"
            raise ValueError(f"{metadata}: {looks}: give {choices}")


def pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, first word and rest of the lines of a file."""
    for number, (line,) in read_rows(path, "\n"):
        name, *rest = line.strip().split(maxsplit=1)
        yield number, name, rest[0] if rest else ""


def first_line(path: Path) -> str:
    """Return the first line of a file, of which only the start is read. Raises ValueError as `read_text`."""
    start = b"\0"
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(HEADER_BYTES)
    if b"\0" in start:
        read_text(path)  # raises with the reason
    return start.decode("utf-8-sig", errors="replace").strip("\r\n").splitlines()[0] if start.strip() else ""


def roles_of(path: Path) -> list[str | None]:
    """Return the role of each column of a table with header, or of each key of its first JSON object."""
    line = first_line(path)
    if path.suffix.lower() == ".jsonl":
        try:
            names = list(json.loads(line))
        except (ValueError, TypeError):
            return []
    else:
        names = line.split(_separator(line))
    return [ROLES.get(name.strip().strip('"').lower()) for name in names]


def _separator(line: str) -> str:
    return max("|\t;,", key=line.count)


def read_table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and values by role. Raises ValueError with file and line for a malformed row."""
    text = read_text(path)
    rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _csv_rows(path, text)
    for number, row in rows:
        values: dict[str, str] = {}
        for name, value in sorted(row.items(), key=lambda item: item[0] == "id"):  # a file name is preferred to an id
            if role := ROLES.get(str(name).strip().lower()):
                values.setdefault(role, "" if value is None else str(value).strip())
        if "id" not in values or not {"text", "normalised"} & set(values):
            known = ", ".join(ROLES)
            raise ValueError(f"{path}, line {number}: columns for recording and text are needed; known: {known}")
        yield number, values


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not valid JSON: {error.msg}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected a JSON object")
            yield number, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    separator = _separator(text.partition("\n")[0])
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if separator in ",;" else csv.QUOTE_NONE
    reader = csv.DictReader(io.StringIO(text), delimiter=separator, quoting=quoting)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {reader.line_num}: not as many columns as the header has")
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
