"""Tar shards in the style of WebDataset. An utterance is a recording KEY.flac (or .wav, ...) and KEY.txt or KEY.json.

A recording in a shard has the path SHARD.tar/START+SIZE/NAME, with its position and size in bytes, so that it is read
without a search. Filelists contain such paths like those of files, and all programs read them. A line of a filelist
that consists of the path of a shard stands for all utterances of that shard.

This program writes shards from filelists, and a filelist of their members, into the first folder of --out.

Examples:
  python -m corpora.shards filelists/my_audio_text_train_filelist.txt.cleaned --out shards
  python -m corpora.shards filelists/my_audio_text_train_filelist.txt.cleaned --out /disk1/shards /disk2/shards
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import cli
from corpora.recordings import READ_SUFFIXES
from files import replacing

if TYPE_CHECKING:
    from corpora.filelist import Clip

SUFFIX = ".tar"
MEGABYTES, MEGABYTE = 1000, 10**6  # size of a shard, in megabytes, and a megabyte
_INSIDE = f"{SUFFIX}/"
_MEMBER = re.compile(rf"(.+{re.escape(SUFFIX)})/(\d+)\+(\d+)/[^/]+")


class Member(NamedTuple):
    """The place of a recording in a shard, in bytes."""

    shard: str
    start: int
    size: int


def member(path: str | Path) -> Member | None:
    """Return where a path in a shard leads, or None if the path is that of a file."""
    path = os.fspath(path)
    found = _MEMBER.fullmatch(path)
    return Member(found[1], int(found[2]), int(found[3])) if found else None


def file_of(path: str | Path) -> str:
    """Return the file on the disk that contains a recording: the shard or the recording itself."""
    path = os.fspath(path)
    place = member(path) if _INSIDE in path else None  # for speed
    return place.shard if place else path


@contextmanager
def opened(path: str | Path) -> Iterator[str | BinaryIO]:
    """Yield what libsndfile can open: the path of a recording or, in a shard, its bytes.

    Raises ValueError if the shard ends before the recording.
    """
    place = member(path)
    if place is None:
        yield os.fspath(path)
        return
    if os.path.getsize(place.shard) < place.start + place.size:
        raise ValueError("the shard ends before the recording: it is truncated, or another one than was listed")
    info = tarfile.TarInfo()
    info.offset_data, info.size = place.start, place.size
    with tarfile.open(place.shard, "r:") as tar, cast(BinaryIO, tar.extractfile(info)) as file:
        yield file


def content(path: str | Path) -> bytes:
    """Return the bytes of a recording. Raises ValueError as `opened`."""
    with opened(path) as source:
        return Path(source).read_bytes() if isinstance(source, str) else source.read()


def utterances(shard: str | Path) -> Iterator[list[str]]:
    """Yield path and text, or path, speaker and text, of every utterance in a shard, in their order.

    The text is that of KEY.txt or the value of "text" in KEY.json, whose value of "speaker" is the speaker. Raises
    ValueError if the shard cannot be read, is compressed, or an utterance has no recording or no text.
    """
    try:
        with tarfile.open(shard, "r:") as tar:
            for key, members in groupby(_files(tar), lambda info: _key_and_suffix(info)[0]):
                files = {_key_and_suffix(info)[1]: info for info in members}
                audio = next((info for suffix, info in files.items() if suffix in READ_SUFFIXES), None)
                described = json.loads(_content(tar, files[".json"])) if ".json" in files else {}
                text = _content(tar, files[".txt"]) if ".txt" in files else described.get("text")
                if audio is None or text is None:
                    missing = "recording" if audio is None else "text: there is no .txt, and no .json with the key text"
                    raise ValueError(f"{shard}: {key} has no {missing}")
                speaker = [str(described["speaker"])] if "speaker" in described else []
                path = f"{shard}/{audio.offset_data}+{audio.size}/{Path(audio.name).name}"
                yield [path, *speaker, " ".join(text.replace("|", " ").split())]
    except (tarfile.TarError, OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{shard}: not a tar file without compression that can be read: {error}") from None


def write_shards(clips: Iterable["Clip"], name: str, folders: Sequence[Path], size: int) -> Iterator[list[str]]:
    """Write shards `NAME-NUMBER.tar` of at least `size` bytes, in turn into each folder. Yield columns as `utterances`.

    Recordings are copied as they are. A shard is complete when the first utterance after it is yielded, or when the
    iteration ends.
    """
    numbers, current, tar = count(), Path(), None
    with ExitStack() as stack:
        for i, clip in enumerate(clips):
            if tar is None or tar.offset >= size:
                stack.close()
                number = next(numbers)
                current = folders[number % len(folders)] / f"{name}-{number:06d}{SUFFIX}"
                tar = stack.enter_context(tarfile.open(stack.enter_context(replacing(current)), "w"))
            source = Path(clip.path)
            key = f"{i:08d}_{source.stem.replace('.', '_')}"
            audio = content(clip.path)
            recording = f"{key}{source.suffix.lower()}"
            place = f"{_add(tar, recording, audio)}+{len(audio)}"
            _add(tar, f"{key}.txt", clip.text.encode())
            if clip.speaker is not None:
                _add(tar, f"{key}.json", json.dumps({"text": clip.text, "speaker": clip.speaker}).encode())
            speaker = [] if clip.speaker is None else [clip.speaker]
            yield [f"{current}/{place}/{recording}", *speaker, clip.text]


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of files. They are not kept, so that memory does not grow."""
    while info := tar.next():
        tar.members = []  # type: ignore[attr-defined]
        if info.isreg() and not Path(info.name).name.startswith("._"):
            yield info


def _key_and_suffix(info: tarfile.TarInfo) -> tuple[str, str]:
    """Split a name at the first dot after the folders, as WebDataset does."""
    folder, name = os.path.split(info.name)
    key, _, suffix = name.partition(".")
    return f"{folder}/{key}" if folder else key, f".{suffix.lower()}"


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> str:
    return cast(BinaryIO, tar.extractfile(info)).read().decode("utf-8-sig")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a file to a shard. Returns where its bytes start."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    return tar.offset - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    from corpora.filelist import Filelist, read_record, write_record  # which imports this module

    parser = cli.Parser(__doc__, prog="shards.py")
    parser.add_argument("filelists", nargs="+", metavar="FILELIST", help="files of path|text or path|speaker|text")
    parser.add_argument("--out", nargs="+", required=True, type=Path, metavar="FOLDER", help="folders, used in turn")
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, metavar="N", help="size of a shard, in megabytes")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("shards"):
        for folder in args.out:
            folder.mkdir(parents=True, exist_ok=True)
        for path in map(Path, args.filelists):
            written = args.out[0] / path.name
            if written.exists() and written.samefile(path):
                raise ValueError(f"{path} is in the folder --out: the list of the shards would replace it")
            rows = write_shards(Filelist(path), path.stem, args.out, args.megabytes * MEGABYTE)
            with replacing(written) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
                for recording, *others in rows:
                    inside = Path(recording).is_relative_to(args.out[0]) and len(args.out) == 1
                    place = Path(recording).relative_to(args.out[0]).as_posix() if inside else recording
                    file.write("|".join([place, *others]) + "\n")
            if record := read_record(path):
                write_record(written, record)
            print(f"{written} is written")


if __name__ == "__main__":
    main()
