"""Where runs keep their files, and writing files so that nobody ever sees half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNS = Path("logs")  # of training, each in a folder of its name


def run_folder(name: str) -> Path:
    """A run's folder, by its name or by the folder itself.

    Raises:
        ValueError: an empty name, or one with `..`.
    """
    given = Path(name)
    inside = given.relative_to(RUNS) if given.is_relative_to(RUNS) else given
    if not inside.parts or ".." in inside.parts:
        raise ValueError(f"{name!r} names no run: its name is that of its folder in {RUNS}, as in -m my_voice")
    return RUNS / inside


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give the block a file name to write to; if it succeeds, that file takes the place of `path` in one step."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file with the line ends of the text, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
