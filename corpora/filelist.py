"""Filelists: one utterance per line, with `|` between columns."""

import json
import mmap
import os
import tempfile
from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from corpora import shards
from files import probable_encoding, write_text

MAX_SHOWN = 200  # characters of a line in an error message
MAX_PATH = 4096  # bytes of a path that Linux opens
BLOCK = 1 << 22  # bytes of a filelist that are read at once
LINES = 1 << 10  # of a filelist that are decoded at once


class ListRecord(NamedTuple):
    """How a cleaned filelist was made. It is stored beside the list, as `LIST.json`."""

    text_cleaners: tuple[str, ...]
    sampling_rate: int | None  # the most frequent one of the recordings, in Hz; None if it is not known
    left_out: Mapping[str, int] = {}  # clips of the corpus that are in no list, by reason
    dictionary: Mapping[str, str] | None = None  # words that were replaced; None if they are not known


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
    encoding = probable_encoding(content)
    named = encoding.partition(" ")[0]
    raise ValueError(f"{path}: not UTF-8 but probably {encoding}: convert it, as in: iconv -f {named} -t UTF-8")


def iterate_rows(path: str | Path, separator: str = "|") -> Iterator[Row]:
    """Yield the columns of all lines but blank ones. Raises ValueError as `read_text`, and if there are none."""
    empty = True
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    read_text(path)  # raises
                if line.strip():
                    empty = False
                    yield number, line.rstrip("\n").split(separator)
    except (OSError, UnicodeDecodeError):
        read_text(path)  # raises
        raise
    if empty:
        raise ValueError(f"{path} has no lines")


def read_rows(path: str | Path, separator: str = "|") -> list[Row]:
    """Read the columns of all lines but blank ones. Raises ValueError as `read_text`, and if there are none."""
    return list(iterate_rows(path, separator))


def check_widths(rows: Iterable[Row], path: str | Path) -> int:
    """Return the number of columns. Raises ValueError with file and line unless it is the same in all rows."""
    counts: Counter[int] = Counter()
    first: dict[int, Row] = {}
    for row in rows:
        counts[len(row[1])] += 1
        first.setdefault(len(row[1]), row)
    width = counts.most_common(1)[0][0]
    if others := [row for count, row in first.items() if count != width]:
        number, columns = min(others)
        found = f"{len(columns)} columns where most lines have {width}"
        reason = "a text must not contain |" if len(columns) > width else "a column or its separator is missing"
        raise ValueError(f"{path}, line {number}: {found}; {reason}: {'|'.join(columns)[:MAX_SHOWN]!r}")
    return width


T = TypeVar("T")


class Computed(Sequence[T]):
    """A sequence of the items `function(source[i])`, which are not stored but computed at every access."""

    def __init__(self, function: Callable[[Any], T], source: Any) -> None:
        self.function, self.source = function, source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Any:
        """Return an item, or for a slice the sequence of its items."""
        source = self.source[index]
        return Computed(self.function, source) if isinstance(index, slice) else self.function(source)


class Filelist(Computed[Clip]):
    """The clips of a filelist. A clip is parsed at every access, so that lists of millions of lines need little memory.

    The clips are those of `read_filelist`, as the file was when it was opened: a temporary file holds a copy. `convert`
    is applied to every text. `speakers` is the first clip of each speaker. Raises ValueError as `read_filelist`.
    """

    def __init__(self, path: str | Path, convert: Callable[[str], str] | None = None) -> None:
        self.folder = Path(path).parent
        self.speakers: dict[str | None, Clip] = {}
        with tempfile.TemporaryFile() as copy:
            self.plain = not convert and self._copy(path, copy)  # a copy of the file itself
            if not self.plain:
                self._clear(copy)
                self.width = check_widths(self._converted(path, copy, convert), path)
            copy.flush()
            self.lines: mmap.mmap | bytes = mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_READ)
        super().__init__(self._clip, range(len(self.ends)))
        self.speakers = {speaker: self[i] for speaker, i in self.first.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied to processes that are started and not forked."""
        return self.__dict__ | {"lines": self.lines[:]}

    def _clear(self, copy: IO[bytes]) -> None:
        """Forget all lines."""
        copy.seek(0)
        copy.truncate()
        self.width = 0  # columns
        self.ends = array("q")  # of each line in the copy
        self.numbers = array("i")  # of each line in the file, from 1
        self.first: dict[str | None, int] = {}  # line of each speaker

    def __iter__(self) -> Iterator[Clip]:
        """Yield all clips, in less time than one by one."""
        if not self.plain:
            yield from super().__iter__()
            return
        for first in range(0, len(self), LINES):
            text = self._text(first, min(first + LINES, len(self)))
            lines = [line for line in text.split("\n") if "|" in line]  # without blank ones
            yield from map(self._parsed, lines, self.numbers[first : first + LINES])

    def _clip(self, i: int) -> Clip:
        return self._parsed(self._text(i, i + 1), self.numbers[i])

    def _text(self, first: int, last: int) -> str:
        return self.lines[self.ends[first - 1] if first else 0 : self.ends[last - 1]].decode()

    def _parsed(self, line: str, number: int) -> Clip:
        columns = line.split("|", self.width - 1)
        if self.plain:
            columns = list(map(str.strip, columns))  # also blank lines before
        recording = _found(columns[0], self.folder)
        return Clip(recording, columns[1] if self.width > 2 else None, columns[-1], number)

    def _copy(self, path: str | Path, copy: IO[bytes]) -> bool:
        """Copy a filelist in blocks without parsing each line. Return whether all lines are as usual."""
        self._clear(copy)
        end = lines = 0
        try:
            with open(path, "rb") as file:
                if file.read(len(BOM_UTF8)) != BOM_UTF8:
                    file.seek(0)
                while block := file.read(BLOCK) + file.readline():
                    block += b"" if block.endswith(b"\n") else b"\n"
                    found = self._usual_lines(block)
                    if found is None:
                        return False
                    ends, numbers = found
                    self.ends.frombytes((end + ends).astype(np.int64).tobytes())
                    self.numbers.frombytes((lines + numbers).astype(np.intc).tobytes())
                    end += copy.write(block)
                    lines += block.count(b"\n")
        except (OSError, UnicodeDecodeError):
            return False
        return len(self.ends) > 0

    def _usual_lines(self, block: bytes) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the ends and the numbers, from 1, of lines that are not blank, and note the first of each speaker.

        Returns None if a line has another number of columns, an empty or a too long path, or ends in another way.
        """
        if b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
            return None
        block.decode()  # raises
        content = np.frombuffer(block, np.uint8)
        ends, bars = np.flatnonzero(content == ord("\n")), np.flatnonzero(content == ord("|"))
        starts = np.concatenate([[0], ends[:-1] + 1])
        bars_before = np.searchsorted(bars, ends)
        widths = np.diff(bars_before, prepend=0) + 1
        self.width = self.width or int(widths.max())
        usual = widths == self.width
        if not 2 <= self.width <= 3 or any(block[starts[i] : ends[i]].strip() for i in np.flatnonzero(~usual)):
            return None
        starts, bars = starts[usual], bars.reshape(-1, self.width - 1)
        if (bars[:, 0] - starts > MAX_PATH).any():
            return None
        # spaces, and the first byte of others in UTF-8; a path that begins with a letter is not empty
        begins = content[starts]
        unsure = np.flatnonzero((begins <= ord(" ")) | (begins == ord("|")) | (begins > 127))
        if any(not block[starts[i] : bars[i, 0]].decode().strip() for i in unsure):
            return None
        known = len(self.ends)
        if self.width == 2:
            self.first.setdefault(None, 0)
        else:
            labels: dict[bytes, int] = {}
            for i, (start, end) in enumerate(zip((bars[:, 0] + 1).tolist(), bars[:, 1].tolist())):
                labels.setdefault(block[start:end], i)
            for label, i in labels.items():
                self.first.setdefault(label.decode().strip(), known + i)
        return ends[usual] + 1, np.flatnonzero(usual) + 1

    def _converted(self, path: str | Path, copy: IO[bytes], convert: Callable[[str], str] | None) -> Iterator[Row]:
        """Yield the rows of a filelist, and write their columns to `copy`."""
        end = 0
        for number, row in iterate_utterances(path):
            columns = [column.strip() for column in row]
            if len(columns) not in (2, 3):
                expected = "expected path|text or path|speaker|text, no | in the text"
                raise ValueError(f"{path}, line {number}: {len(columns)} columns; {expected}")
            if not columns[0]:
                raise ValueError(f"{path}, line {number}: the path is empty")
            if (size := len(columns[0].encode())) > MAX_PATH:
                raise ValueError(f"{path}, line {number}: the path has {size} bytes; the most is {MAX_PATH}")
            yield number, columns
            if convert:
                columns[-1] = convert(columns[-1])
            self.first.setdefault(columns[1] if len(columns) > 2 else None, len(self.ends))
            end += copy.write("|".join(columns).encode())
            self.ends.append(end)
            self.numbers.append(number)


def iterate_utterances(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a filelist, and for the name of a shard those of its utterances. Raises as `iterate_rows`."""
    folder = Path(path).parent
    for number, columns in iterate_rows(path):
        if len(columns) == 1 and (shard := columns[0].strip()).endswith(shards.SUFFIX):
            yield from ((number, utterance) for utterance in shards.utterances(_found(shard, folder)))
        else:
            yield number, columns


def _found(recording: str, folder: Path) -> str:
    """Return the path of a file or of a recording in a shard: in a folder if it exists only there, else unchanged."""
    if recording[:1] == os.sep or os.path.exists(shards.file_of(recording)):
        return recording
    beside = str(folder / recording)
    return beside if os.path.exists(shards.file_of(beside)) else recording


def read_filelist(path: str | Path) -> list[Clip]:
    """Read a filelist of lines `path|text` or `path|speaker|text`, one kind per file.

    White space around columns is removed. A recording that is not found from the working directory is looked for
    beside the filelist. Raises ValueError as `read_rows` and, with file and line, for another number of columns, a `|`
    in a text, or an empty or too long path.
    """
    return list(Filelist(path))


def write_record(filelist: str | Path, record: ListRecord) -> None:
    """Store how a filelist was made."""
    write_text(f"{filelist}.json", json.dumps(record._asdict(), indent=2, ensure_ascii=False) + "\n")


def read_record(filelist: str | Path) -> ListRecord | None:
    """Return how a filelist was made, or None if there is no record. Raises ValueError if the record is malformed."""
    path = Path(f"{filelist}.json")
    if not path.is_file():
        return None
    try:
        values = json.loads(read_text(path))
        words = values.get("dictionary")
        return ListRecord(
            tuple(values["text_cleaners"]),
            values["sampling_rate"],
            dict(values.get("left_out", {})),
            None if words is None else dict(words),
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(f"{path} is not a record of a filelist: write the list again with --clean") from None
