"""Layouts of corpora: where the recordings, the texts and the speakers of each clip are.

`LAYOUTS` lists the layouts in the order in which they are tried. `recognize` returns the first that fits.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from corpora.filelist import read_text
from corpora.recordings import Files, by_name
from corpora.tables import first_line, pairs, read_metadata, read_table, refuse_speakers_as_text, roles_of

# Folders of recordings in copies of VCTK. VITS asks its users to create the first, at 22,050 Hz.
VCTK_AUDIO_FOLDERS = ("downsampled_wavs", "wav48", "wav48_silence_trimmed")
MAX_NAMED = 5  # files listed in a message
NOT_READ = (".json", ".xlsx", ".xml", ".textgrid", ".srt", ".vtt")  # files that may have texts, and are not tables

ROLE_NAMES = ("id", "speaker", "text", "normalised")  # of the columns of tables without header


class Entry(NamedTuple):
    """A clip as a layout states it."""

    recording: Path | str  # a file, or its name or path as a table gives it
    text: str
    where: str  # file and line, for messages
    base: Path  # folder at which paths in the table begin
    speaker: str | None = None
    segment: tuple[float, float] | None = None  # start and end in the recording, in seconds


class Options(NamedTuple):
    """Options of the user that describe a corpus."""

    columns: Sequence[str] = ()  # names of the columns of a table without header
    metadata: str | None = None  # name of the tables, instead of those of the layout


NOTHING_KNOWN = Options()


class Layout:
    """Base of all layouts, for the files of one corpus.

    `title` names corpora of the layout and `looked_for` the files by which it is recognized; `marks` are patterns of
    their names. `caseless` texts have no lower-case letters of their own. `left_out` maps a reason to clips.
    """

    title = ""
    looked_for = ""
    marks: tuple[str, ...] = ()
    caseless = False

    def __init__(self, files: Files, options: Options = NOTHING_KNOWN) -> None:
        self.files = files
        self.options = options
        self.left_out: dict[str, list[str]] = {}

    def found(self) -> bool:
        """Return whether the corpus has this layout."""
        return bool(self.files.named(*self.marks))

    def entries(self) -> Iterator[Entry]:
        """Yield the clips. Raises ValueError if a file cannot be read or is ambiguous."""
        raise NotImplementedError

    def tables(self) -> list[Path]:
        """Return the tables: those that the user names, or those of this layout."""
        name = self.options.metadata
        if not name:
            return self.files.named(*self.marks)
        parts = Path(name).parts
        tables = [path for path in self.files.others if path.parts[-len(parts) :] == parts]
        if not tables:
            raise ValueError(f"{self.files.root} has no file {name}")
        return tables


class Kaldi(Layout):
    """A data folder of Kaldi: wav.scp, text, and utt2spk and segments if present."""

    title, looked_for, marks = "Kaldi data folders", "wav.scp and text", ("wav.scp",)
    caseless = True

    def found(self) -> bool:
        """Return whether there is a wav.scp with a text beside it."""
        return any((path.parent / "text").is_file() for path in self.tables())

    def entries(self) -> Iterator[Entry]:
        """Yield the utterances of every folder with wav.scp and text."""
        for scp in self.tables():
            if not (scp.parent / "text").is_file():
                raise ValueError(f"{scp.parent} has wav.scp without the file text, which holds lines UTTERANCE TEXT")
            recordings = {name: self._recording(name, source) for _, name, source in pairs(scp)}
            speakers, segments = self._speakers(scp.parent), self._segments(scp.parent)
            for number, name, text in pairs(scp.parent / "text"):
                source, segment = segments.get(name, (name, None))
                if segments and segment is None:
                    self.left_out.setdefault("not in segments", []).append(name)
                elif source not in recordings:
                    self.left_out.setdefault("not in wav.scp", []).append(name)
                elif recording := recordings[source]:
                    where = f"{scp.parent / 'text'}, line {number}"
                    yield Entry(
                        recording, text, where, scp.parent, speakers.get(name, "") if speakers else None, segment
                    )

    def _recording(self, name: str, source: str) -> Path | str | None:
        """Return the file of a line of wav.scp, also of the command that decodes FLAC; None for other commands."""
        if source.endswith("|"):
            words = shlex.split(source[:-1])
            files = [word for word in words if word.lower().endswith(".flac")]
            if not words or Path(words[0]).name != "flac" or len(files) != 1:
                self.left_out.setdefault("wav.scp has a command instead of a file", []).append(name)
                return None
            source = files[0]
        path, root = Path(source), self.files.root
        if not path.is_file():
            return source
        whole, top = path.resolve(), root.resolve()
        return root / whole.relative_to(top) if top in whole.parents else path

    def _speakers(self, folder: Path) -> dict[str, str]:
        """Return the speakers of utterances; empty if they are unknown, which Kaldi writes as one for each."""
        path = folder / "utt2spk"
        speakers = {name: speaker for _, name, speaker in pairs(path)} if path.is_file() else {}
        return {} if all(name == speaker for name, speaker in speakers.items()) else speakers

    def _segments(self, folder: Path) -> dict[str, tuple[str, tuple[float, float]]]:
        path, segments = folder / "segments", {}
        for number, name, value in pairs(path) if path.is_file() else ():
            try:
                recording, start, end = value.split()
                segments[name] = (recording, (float(start), float(end)))
            except ValueError:
                expected = "expected UTTERANCE RECORDING START END, with times in seconds"
                raise ValueError(f"{path}, line {number}: {expected}") from None
        return segments


class Table(Layout):
    """A table with a header, separated by commas, tabs, semicolons or bars, or JSON lines."""

    def found(self) -> bool:
        """Return whether there is a table with columns for recordings and texts."""
        return bool(self.tables())

    def tables(self) -> list[Path]:
        """Return the tables whose header has columns for recordings and texts."""
        roles = {path: set(roles_of(path)) for path in super().tables()}
        return [path for path, known in roles.items() if "id" in known and known & {"text", "normalised"}]

    def entries(self) -> Iterator[Entry]:
        """Yield the rows of the tables."""
        for path in self.tables():
            for number, values in read_table(path):
                text = values.get("normalised") or values.get("text", "")
                yield Entry(values["id"], text, f"{path}, line {number}", path.parent, values.get("speaker"))


class CommonVoice(Table):
    """Common Voice: validated.tsv, with clips/. Speakers are the first characters of client_id."""

    title, looked_for = "Common Voice", "validated.tsv, or train.tsv, dev.tsv and test.tsv"
    marks = ("validated.tsv", "train.tsv", "dev.tsv", "test.tsv")
    shortest = 8  # characters of a speaker's name

    def tables(self) -> list[Path]:
        """Return validated.tsv, which contains the other tables. Raises ValueError for several languages."""
        tables = super().tables()
        if len(folders := {path.parent for path in tables}) > 1:
            several = ", ".join(map(str, sorted(folders)[:MAX_NAMED]))
            raise ValueError(f"{self.files.root} has several corpora ({several}): give the folder of one language")
        return [path for path in tables if path.name.lower() == "validated.tsv"] or tables

    def entries(self) -> Iterator[Entry]:
        """Yield the rows of the tables with short names of speakers."""
        entries = list(super().entries())
        names = {entry.speaker for entry in entries if entry.speaker}
        length = self.shortest
        while len({name[:length] for name in names}) < len(names):
            length += 1
        yield from (entry._replace(speaker=(entry.speaker or "")[:length]) for entry in entries)


class AudioFolder(Table):
    """audiofolder of Hugging Face: metadata.csv or metadata.jsonl with a column file_name."""

    title, looked_for = "Hugging Face audiofolder", "metadata.csv with a header, or metadata.jsonl, with file_name"
    marks = ("metadata.csv", "metadata.jsonl")

    def tables(self) -> list[Path]:
        """Return the tables with a header that are not separated by bars, which are those of Coqui."""
        return [path for path in super().tables() if "|" not in first_line(path)]


class Coqui(Table):
    """Tables of Coqui: a header such as audio_file|text|speaker_name."""

    title, looked_for, marks = "Coqui", "metadata*.csv with a header such as audio_file|text", ("metadata*.csv",)


class AISHELL3(Layout):
    """AISHELL-3: content.txt, whose lines alternate characters and pinyin. Speakers begin the names of recordings."""

    title, looked_for, marks = "AISHELL-3", "content.txt with lines NAME.wav CHARACTER PINYIN ...", ("content.txt",)
    speaker_length = 7  # characters, as in SSB0005

    def entries(self) -> Iterator[Entry]:
        """Yield the lines of each content.txt, with the characters as text."""
        for path in self.tables():
            for number, name, value in pairs(path):
                text = "".join(value.split()[::2])
                yield Entry(name, text, f"{path}, line {number}", path.parent, name[: self.speaker_length])


class Metadata(Layout):
    """Lines id|text or id|text|normalized, without header: LJ Speech, Piper, Coqui and many others."""

    title, looked_for, marks = "LJ Speech; Piper, one voice", "metadata.csv with lines id|text", ("metadata.csv",)
    columns: dict[int, tuple[str, ...]] = {2: ("id", "text"), 3: ("id", "text", "normalised")}
    guarded = True  # three columns may hold a speaker

    def found(self) -> bool:
        """Return whether there is a table at the top, or one below and no text for each recording."""
        tables = self.tables()
        at_top = any(path.parent == self.files.root for path in tables)
        return at_top or (len(tables) == 1 and (bool(self.options.metadata) or not Texts(self.files).found()))

    def entries(self) -> Iterator[Entry]:
        """Yield the lines of the table at the top or, if there is none, of the only one."""
        tables = self.tables()
        tables = [path for path in tables if path.parent == self.files.root] or tables
        for path in tables:
            yield from self.entries_of(path)

    def entries_of(self, path: Path, speaker: str | None = None) -> Iterator[Entry]:
        """Yield the lines of a table. Raises ValueError if the meaning of its columns is unknown or doubtful."""
        rows, width = read_metadata(path, len(self.options.columns))
        columns = self.options.columns or self.columns.get(width, ())
        if self.guarded and not self.options.columns:
            refuse_speakers_as_text(path, rows)
        if width == 1:
            other = "or, in a table with commas, name the columns, as in --columns id,text"
            raise ValueError(f"{path} has one column, as in {rows[0][1][0]!r}: separate id and text by | {other}")
        if len(columns) != width or "id" not in columns or not {"text", "normalised"} & set(columns):
            needed = "name them, as in --columns id,speaker,text; id and text (or normalised) are needed"
            raise ValueError(f"{path} has {width} columns, as in {'|'.join(rows[0][1])!r}: {needed}")
        if ignored := [name for name in columns if name not in ROLE_NAMES]:
            print(f"{path}: ignored columns: {', '.join(ignored)}; those that are read are {', '.join(ROLE_NAMES)}")
        for number, row in rows:
            values = dict(zip(columns, row))
            text = values.get("normalised") or values.get("text", "")
            named = values.get("speaker", speaker)
            yield Entry(values["id"], text, f"{path}, line {number}", path.parent, named)


class Piper(Metadata):
    """Lines id|speaker|text or id|text, without header: Piper with several speakers."""

    title, looked_for = "Piper, several speakers", "metadata.csv with lines id|speaker|text"
    columns = {2: ("id", "text"), 3: ("id", "speaker", "text")}
    guarded = False

    def found(self) -> bool:
        """Return False: a second column of speakers cannot be told from one of texts with certainty."""
        return False


class MAILABS(Metadata):
    """M-AILABS: SPEAKER/BOOK/metadata.csv, with metadata_mls.json beside it."""

    title, looked_for = "M-AILABS", "SPEAKER/BOOK/metadata.csv with metadata_mls.json beside it"
    guarded = False

    def found(self) -> bool:
        """Return whether a table is that of a book."""
        return any((path.parent / "metadata_mls.json").is_file() for path in self.tables())

    def entries(self) -> Iterator[Entry]:
        """Yield the lines of every book. The folder above a book names its speaker."""
        for path in self.tables():
            yield from self.entries_of(path, path.resolve().parent.parent.name)


class SpeakerMetadata(Metadata):
    """One metadata.csv in the folder of each speaker."""

    title, looked_for = "one table for each speaker", "SPEAKER/metadata.csv with lines id|text"

    def found(self) -> bool:
        """Return whether there are several tables, none of them at the top, and no text for each recording."""
        return len(self.tables()) > 1 and not super().found() and not Texts(self.files).found()

    def entries(self) -> Iterator[Entry]:
        """Yield the lines of every table. Its folder names the speaker."""
        for path in self.tables():
            yield from self.entries_of(path, path.resolve().parent.name)


class LibriTTS(Layout):
    """LibriTTS and LibriTTS-R: SPEAKER/CHAPTER/NAME.wav with NAME.normalized.txt beside it."""

    title, looked_for, marks = "LibriTTS, LibriTTS-R", "*.normalized.txt beside recordings", ("*.normalized.txt",)

    def entries(self) -> Iterator[Entry]:
        """Yield the recordings with the normalized text or, if that is missing, the original one."""
        known = set(self.files.others)
        for path in self.files.recordings:
            texts = (path.with_name(f"{path.stem}.{kind}.txt") for kind in ("normalized", "original"))
            if source := next((text for text in texts if text in known), None):
                yield Entry(path, read_text(source), str(source), path.parent, path.stem.split("_")[0])


class LibriSpeech(Layout):
    """LibriSpeech: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with lines NAME TEXT."""

    title, looked_for, marks = "LibriSpeech", "*.trans.txt beside recordings", ("*.trans.txt",)
    caseless = True

    def entries(self) -> Iterator[Entry]:
        """Yield the lines of every transcript. Names begin with the speaker."""
        for path in self.tables():
            for number, name, text in pairs(path):
                yield Entry(name, text, f"{path}, line {number}", path.parent, name.split("-")[0])


class VCTK(Layout):
    """VCTK, releases 0.80 and 0.92: txt/SPEAKER/NAME.txt and a folder of recordings."""

    title, looked_for = "VCTK", f"a folder txt, and {', '.join(VCTK_AUDIO_FOLDERS[:-1])} or {VCTK_AUDIO_FOLDERS[-1]}"

    def found(self) -> bool:
        """Return whether there are folders of texts and of recordings."""
        return (self.files.root / "txt").is_dir() and vctk_audio(self.files.root).is_dir()

    def entries(self) -> Iterator[Entry]:
        """Yield the texts with the recordings of the first microphone."""
        audio = vctk_audio(self.files.root)
        recordings = {}
        for path in self.files.recordings:
            if audio not in path.parents:
                continue
            if path.stem.endswith("_mic2"):
                self.left_out.setdefault("second microphone", []).append(path.name)
            else:
                recordings[path.stem.removesuffix("_mic1")] = path
        for source in sorted((self.files.root / "txt").glob("*/*.txt")):
            recording = recordings.get(source.stem, source.stem)
            yield Entry(recording, read_text(source), str(source), audio, source.parent.name)


class Texts(Layout):
    """A file of the same name for each recording: .txt or .lab."""

    title = "a text file for each recording"
    looked_for, marks = "NAME.txt or NAME.lab for recordings NAME.*", ("*.txt", "*.lab")
    timed = re.compile(r"\s*\d+(\.\d+)?\s+\d+(\.\d+)?\s+\S+\s*")  # start, end and label

    def found(self) -> bool:
        """Return whether a recording has a text."""
        texts = {normalize("NFC", path.stem) for path in self.files.named(*self.marks)}
        return any(normalize("NFC", path.stem) in texts for path in self.files.recordings)

    def entries(self) -> Iterator[Entry]:
        """Yield the recordings that have a text beside them, in a sister folder, or in any other folder."""
        texts = by_name(self.files.named(*self.marks))
        for path in self.files.recordings:
            if source := self._text_of(path, texts.get(normalize("NFC", path.stem), [])):
                text = read_text(source)
                if source.suffix.lower() == ".lab" and self.timed.fullmatch(text.partition("\n")[0]):
                    self.left_out.setdefault("label file with times instead of a text", []).append(path.name)
                else:
                    yield Entry(path, text, str(source), path.parent)

    def _text_of(self, recording: Path, texts: list[Path]) -> Path | None:
        """Return the text of a recording. Raises ValueError if many fit."""
        nearer = (
            texts if len(texts) < 2 else [],
            [text for text in texts if text.parent == recording.parent and text.suffix.lower() == ".txt"],
            [text for text in texts if text.parent == recording.parent],
            [text for text in texts if text.parent.parent == recording.parent.parent],
        )
        if not texts:
            return None
        if chosen := next((found for found in nearer if len(found) == 1), None):
            return chosen[0]
        several = " or ".join(str(path) for path in texts[:3])
        raise ValueError(f"the text of {recording} may be in {several}: put the file beside the recording")


LAYOUTS: dict[str, type[Layout]] = {
    "kaldi": Kaldi,
    "commonvoice": CommonVoice,
    "mailabs": MAILABS,
    "audiofolder": AudioFolder,
    "coqui": Coqui,
    "ljspeech": Metadata,
    "piper": Piper,
    "speakers": SpeakerMetadata,
    "aishell3": AISHELL3,
    "libritts": LibriTTS,
    "librispeech": LibriSpeech,
    "vctk": VCTK,
    "texts": Texts,
}
WITH_METADATA = ("audiofolder", "coqui", "ljspeech", "speakers")  # layouts of tables that the user names
WITH_COLUMNS = ("ljspeech", "speakers")  # layouts of tables whose columns the user names


def recognize(files: Files, options: Options = NOTHING_KNOWN) -> tuple[str, Layout]:
    """Return the name and the layout of a corpus. Raises ValueError with what was looked for and what was seen."""
    names = WITH_COLUMNS if options.columns else WITH_METADATA if options.metadata else tuple(LAYOUTS)
    for name in names:
        layout = LAYOUTS[name](files, options)
        if layout.found():
            return name, layout
    if not files.recordings:
        raise ValueError(f"{files.root} has no recordings that can be read{_unread(files)}")
    looked_for = "; ".join(f"{name}: {LAYOUTS[name].looked_for}" for name in names)
    raise ValueError(
        f"{files.root}: {len(files.recordings)} recordings, but no texts in a known layout. {seen(files)} Looked for: "
        f"{looked_for}"
    )


def seen(files: Files) -> str:
    """Return a sentence about the files that probably contain the texts, and the option that reads each."""
    suffixes = (".csv", ".tsv", ".jsonl", ".txt", ".scp", ".lab", *NOT_READ)
    tables = files.named(*(f"*{suffix}" for suffix in suffixes))
    shown = []
    for path in tables[:MAX_NAMED]:
        named = [name for name, kind in LAYOUTS.items() if name != "texts" and path in files.named(*kind.marks)]
        fitting = [name for name in named if LAYOUTS[name](files).found()] or named
        option = f"--layout {fitting[0]}" if fitting else f"--metadata {path.name}"
        option = "not read" if path.suffix.lower() in NOT_READ else option
        shown.append(f"{path.relative_to(files.root)} ({option})")
    more = ", ..." if len(tables) > MAX_NAMED else ""
    return f"Seen: {', '.join(shown)}{more}." if shown else "Seen: no file that may contain texts."


def vctk_audio(corpus: Path) -> Path:
    """Return the folder of VCTK's recordings, or the path of the first choice if there is none."""
    folders = [corpus / name for name in VCTK_AUDIO_FOLDERS]
    return next((path for path in folders if path.is_dir()), folders[0])


def _unread(files: Files) -> str:
    counts = ", ".join(f"{count} {suffix}" for suffix, count in files.unread.items())
    return f"; it has {counts}, which are not read" if counts else ""
