"""Cleans the text column of filelists: `F` is read, `F.cleaned` written, so that training needs no espeak.

python preprocess.py --text_index 1 --filelists filelists/ljs_audio_text_val_filelist.txt
"""

import argparse
import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from files import replacing
from text import clean_text, unknown_symbols
from text.cleaners import get_cleaner

LINES_A_PROCESS = 5000  # fewer take less time than a process takes to start
LINES_A_TASK = 500


def clean_filelist(
    path: str | Path,
    text_index: int,
    cleaner_names: Sequence[str],
    out_extension: str = "cleaned",
    jobs: int = 1,
) -> Counter:
    """Writes `PATH.OUT_EXTENSION`, in which column `text_index` (from 0) of every line is cleaned.

    Lines are cleaned one by one, whatever the number of processes, so the result does not depend on it. Returns how
    often each symbol without an id occurs. Raises ValueError naming file and line if a line has more or fewer
    columns than most, or a text is empty or has nothing that the cleaners keep; no file is written then.
    """
    for name in cleaner_names:
        get_cleaner(name)
    rows = read_columns(path, text_index)
    texts = [columns[text_index] for _, columns in rows]
    clean = functools.partial(_clean, cleaner_names=tuple(cleaner_names))
    unknown = Counter()
    lines = []
    for (number, columns), cleaned in zip(rows, tqdm(_map(clean, texts, jobs), str(path), len(texts), disable=None)):
        if not cleaned.strip():
            raise ValueError(
                f"{path}:{number}: {', '.join(cleaner_names)} leave nothing of {columns[text_index]!r}; "
                "take the line out or write its text in letters"
            )
        unknown.update(unknown_symbols(cleaned))
        lines.append("|".join([*columns[:text_index], cleaned, *columns[text_index + 1 :]]))
    write_lines(f"{path}.{out_extension}", lines)
    return unknown


def read_columns(path: str | Path, text_index: int) -> list[tuple[int, list[str]]]:
    """Returns (line number, columns) of every line that is not blank. Raises ValueError as `clean_filelist`."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no filelist in UTF-8: {error}") from error
    rows = [(number, line.rstrip("\r").split("|")) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no lines")
    usual = Counter(len(columns) for _, columns in rows).most_common(1)[0][0]
    for number, columns in rows:
        if len(columns) != usual:
            raise ValueError(
                f'{path}:{number}: {len(columns)} columns, where most lines have {usual}; "|" separates columns '
                f"and cannot stand in a text: {'|'.join(columns)!r}"
            )
        if not 0 <= text_index < usual:
            raise ValueError(f"{path}:{number}: no column {text_index}, the text index, among {usual} from 0 on")
        if not columns[text_index].strip():
            raise ValueError(f"{path}:{number}: the text, column {text_index}, is empty")
    return rows


def write_lines(path: str | Path, lines: Sequence[str]) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as unfinished:
        Path(unfinished).write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")


def report_unknown(unknown: Counter) -> None:
    if unknown:
        counts = ", ".join(f"{s!r} (U+{ord(s):04X}) {n} times" for s, n in unknown.most_common())
        print(f"Symbols without an id, left out unless data.extra_symbols of the config names them: {counts}")


def _clean(text: str, cleaner_names: tuple[str, ...]) -> str:
    # A cleaner that keeps "|" must not make a column of it.
    return clean_text(text, cleaner_names).replace("|", " ")


def _map(function, texts: list[str], jobs: int):
    """Maps in order, over as many processes as the work is worth."""
    jobs = min(jobs, len(texts) // LINES_A_PROCESS)
    if jobs < 2:
        yield from map(function, texts)
        return
    # Spawned, not forked: the caller may have threads, and macOS and Windows know no other way.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(function, texts, chunksize=LINES_A_TASK)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filelists", nargs="+", required=True, help="files of path|text or path|speaker|text")
    parser.add_argument("--text_index", type=int, default=1, help="column of the text, from 0 (default: 1)")
    parser.add_argument(
        "--text_cleaners", nargs="+", default=["english_cleaners2"], help="see text/cleaners.py for the names"
    )
    parser.add_argument("--out_extension", default="cleaned")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    unknown = Counter()
    try:
        for filelist in options.filelists:
            unknown += clean_filelist(
                filelist, options.text_index, options.text_cleaners, options.out_extension, options.jobs
            )
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
    report_unknown(unknown)


if __name__ == "__main__":
    main()
