"""The folder of runs, encodings, and writing files atomically."""

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNS = Path("logs")  # one folder per run
PRETRAINED = Path(__file__).with_name("pretrained")  # folder of the pretrained voice
# The two files of a voice in a folder of its own, in fp16 without optimizers: what speaks, and beside it the rest, with
# the weights of the generator that only training uses as `model`, and those of the discriminators by their learners
VOICE, REST = "G.pth", "training.pth"


def run_folder(name: str) -> Path:
    """Return the folder of a run, given by its name or by itself. Raises ValueError for an empty name or `..` in it."""
    given = Path(name)
    inside = given.relative_to(RUNS) if given.is_relative_to(RUNS) else given
    if not inside.parts or ".." in inside.parts:
        raise ValueError(f"{name!r} names no run: give the name of a folder in {RUNS}, as in -m my_voice")
    return RUNS / inside


def pretrained_voice() -> Path:
    """Return the file of the pretrained voice. Raises ValueError if it is missing."""
    file = PRETRAINED / VOICE
    if not file.is_file():
        whole = "it belongs to a complete clone or package. Name another voice, or train one"
        raise ValueError(f"there is no {file}, the voice that comes with the code; {whole}")
    return file


@contextmanager
def replacing(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to. If the block succeeds, that file replaces `path` in one step.

    With `durable`, the file is on the disk before it replaces the old one, and its new name is when the block ends, so
    that a loss of power leaves one of the two.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        if durable:
            _to_disk(unfinished)
        os.replace(unfinished, path)
        if durable and os.name == "posix":  # other systems do not open folders
            _to_disk(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def probable_encoding(content: bytes) -> str:
    """Return the probable encoding of a text that is not UTF-8."""
    if b"\0" not in content:
        return "CP1252 or Latin-1"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    return "UTF-16BE" if content.find(b"\0") % 2 == 0 else "UTF-16LE"


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically, without changing line ends."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
