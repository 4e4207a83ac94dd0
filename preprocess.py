"""Clean the text column of filelists: read FILELIST and write FILELIST.cleaned, so that training needs no espeak-ng.

Examples:
  python preprocess.py --filelists filelists/ljs_audio_text_train_filelist.txt filelists/ljs_audio_text_val_filelist.txt
  python preprocess.py --text_index 2 --filelists train_ms.txt --text_cleaners phonemes_de
"""

import functools
import itertools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

import cli
from corpora.filelist import ListRecord, check_widths, read_rows, write_record
from files import write_text
from text import clean_text, unknown_symbols
from text.cleaners import get_cleaner, unreadable
from text.markup import read_dictionary

LINES_PER_PROCESS = 5000  # fewer take less time than starting a process
LINES_PER_TASK = 500
MAX_NAMED = 5  # texts in a message


def clean_filelist(
    path: str | Path,
    text_index: int | None,
    cleaner_names: Sequence[str],
    out_extension: str = "cleaned",
    jobs: int = 1,
    dictionary: Mapping[str, str] | None = None,
) -> Counter[str]:
    """Write `PATH.OUT_EXTENSION`, with column `text_index` (from 0; None: the last one) of every line cleaned.

    The cleaners are recorded beside the file (see `corpora.filelist.ListRecord`). The result does not depend on
    `jobs`, the number of processes. Returns the count of each symbol without an id. Raises ValueError with file and
    line, and writes nothing, for an unknown cleaner, a line with another number of columns than most, an empty text,
    or a text of which the cleaners keep nothing.
    """
    for name in cleaner_names:
        get_cleaner(name)
    if not out_extension or set(out_extension) & set("/\\"):
        raise ValueError(f"the output extension is {out_extension!r}; it is appended to file names, as in cleaned")
    rows = read_rows(path)
    width = check_widths(rows, path)
    if width < 2:
        raise ValueError(f"{path} has one column; expected path|text or path|speaker|text")
    text_index = width - 1 if text_index is None else text_index
    if not 1 <= text_index < width:
        allowed = f"it may be from 1, because column 0 has the paths, to {width - 1}, the last column"
        raise ValueError(f"{path}: the text index is {text_index}; {allowed}")
    texts = [columns[text_index] for _, columns in rows]
    for (number, _), text in zip(rows, texts):
        if not text.strip():
            raise ValueError(f"{path}, line {number}: the text, column {text_index}, is empty")
    unknown: Counter[str] = Counter()
    lines = []
    for (number, columns), cleaned in zip(rows, clean_texts(texts, cleaner_names, jobs, str(path), dictionary)):
        if not cleaned.strip():
            emptied = f"{', '.join(cleaner_names)} leave nothing of {columns[text_index]!r}"
            raise ValueError(f"{path}, line {number}: {emptied}; remove the line or write its text in letters")
        unknown.update(unknown_symbols(cleaned))
        lines.append("|".join([*columns[:text_index], cleaned, *columns[text_index + 1 :]]) + "\n")
    write_text(f"{path}.{out_extension}", "".join(lines))
    write_record(f"{path}.{out_extension}", ListRecord(tuple(cleaner_names), None))
    return unknown


def clean_texts(
    texts: Sequence[str],
    cleaner_names: Sequence[str],
    jobs: int,
    title: str,
    dictionary: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield the cleaned texts in order, computed by at most `jobs` processes. `title` names the progress bar.

    Warns of texts in a script that the cleaners cannot read. Raises ValueError if `jobs` is below 1.
    """
    foreign = {i: words for i, text in enumerate(texts, 1) if (words := unreadable(text, cleaner_names))}
    if foreign:
        named = ", ".join(f"text {i} ({words[0]!r})" for i, words in itertools.islice(foreign.items(), MAX_NAMED))
        spelled = f"{len(foreign)} texts have words in a script that {', '.join(cleaner_names)} would spell"
        print(f"{title}: {spelled} letter by letter: {named}")
    if jobs < 1:
        raise ValueError(f"{jobs} jobs were requested; the number of processes must be 1 or more")
    clean = functools.partial(_clean, cleaner_names=tuple(cleaner_names), dictionary=dictionary)
    return iter(tqdm(_map(clean, texts, jobs), title, len(texts), disable=None))


def report_unknown(unknown: Counter[str]) -> None:
    """Print how often each symbol without an id occurs."""
    if unknown:
        counts = ", ".join(f"{s!r} (U+{ord(s):04X}) {n} times" for s, n in unknown.most_common())
        print(f"Symbols without an id, left out unless data.extra_symbols of the config names them: {counts}")


def _clean(text: str, cleaner_names: tuple[str, ...], dictionary: Mapping[str, str] | None) -> str:
    return clean_text(text, cleaner_names, dictionary).replace(
        "|", " "
    )  # a cleaner that keeps "|" must not add a column


def _map(function: Callable[[str], str], texts: Sequence[str], jobs: int) -> Iterator[str]:
    """Map in order, with at most `jobs` processes."""
    jobs = min(jobs, len(texts) // LINES_PER_PROCESS)
    if jobs < 2:
        yield from map(function, texts)
        return
    # spawned: forking is unsafe if the caller has threads, and Windows does not have it
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(function, texts, chunksize=LINES_PER_TASK)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--filelists", nargs="+", required=True, metavar="FILELIST", help="files of path|text or path|speaker|text")
    add("--text-index", type=int, metavar="N", help="column of the text, counted from 0 (default: the last column)")
    add("--text-cleaners", nargs="+", default=["english_cleaners2"], metavar="CLEANER", help="see text/cleaners.py")
    add("--dictionary", metavar="FILE", help=cli.DICTIONARY)
    add("--out-extension", default="cleaned", metavar="SUFFIX", help="appended to the names of the files")
    add("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes (default: one per core)")
    args = parser.parse_args(arguments)
    unknown: Counter[str] = Counter()
    with cli.errors_in_one_line("preprocess"):
        dictionary = read_dictionary(args.dictionary) if args.dictionary else None
        for filelist in args.filelists:
            how = (args.text_index, args.text_cleaners, args.out_extension, args.jobs, dictionary)
            unknown += clean_filelist(filelist, *how)
        report_unknown(unknown)


if __name__ == "__main__":
    main()
