"""Clean the text column of filelists: read FILELIST and write FILELIST.cleaned, so that training needs no espeak-ng.

On several machines, --shard 2/8 cleans the second of eight parts of every list. When all parts are done, --merge joins
them.

Examples:
  python preprocess.py --filelists filelists/ljs_audio_text_train_filelist.txt filelists/ljs_audio_text_val_filelist.txt
  python preprocess.py --text_index 2 --filelists train_ms.txt --text_cleaners phonemes_de
  python preprocess.py --filelists train.txt --shard 2/8
  python preprocess.py --filelists train.txt --merge
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from corpora.filelist import ListRecord, Row, check_widths, iterate_utterances, read_record, write_record
from corpora.parts import WHOLE, Part, parse, stored
from files import replacing
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
    part: Part = WHOLE,
    dictionary: Mapping[str, str] | None = None,
) -> Counter[str]:
    """Write `PATH.OUT_EXTENSION`, with column `text_index` (from 0; None: the last one) of every line cleaned.

    Cleaners and dictionary are recorded beside the file (see `corpora.filelist.ListRecord`). The result does not depend
    on `jobs`, the number of processes. A part of the lines is written to `PATH.OUT_EXTENSION.I-of-N`. Returns the count
    of each symbol without an id. Raises ValueError with file and line, and writes nothing, for an unknown cleaner, a
    line with another number of columns than most, an empty text, or a text of which the cleaners keep nothing.
    """
    for name in cleaner_names:
        get_cleaner(name)
    if not out_extension or set(out_extension) & set("/\\"):
        raise ValueError(f"the output extension is {out_extension!r}; it is appended to file names, as in cleaned")
    if record := read_record(path):
        made_with = ", ".join(record.text_cleaners)
        raise ValueError(f"{path} is cleaned already, with {made_with}: give the list from which it was made")
    width = check_widths(iterate_utterances(path), path)
    if width < 2:
        raise ValueError(f"{path} has one column; expected path|text or path|speaker|text")
    text_index = width - 1 if text_index is None else text_index
    if not 1 <= text_index < width:
        allowed = f"it may be from 1, because column 0 has the paths, to {width - 1}, the last column"
        raise ValueError(f"{path}: the text index is {text_index}; {allowed}")
    if (text_index, width) == (1, 3):
        raise ValueError(f"{path}: column 1 of 3 is the speaker; the text is column 2, the default")
    length = 0
    for number, columns in iterate_utterances(path):
        length += 1
        if not columns[text_index].strip():
            raise ValueError(f"{path}, line {number}: the text, column {text_index}, is empty")

    lines = part.of(length)

    def rows() -> Iterator[Row]:
        return islice(iterate_utterances(path), lines.start, lines.stop)

    unknown: Counter[str] = Counter()
    out = f"{path}.{out_extension}"
    texts = (columns[text_index] for _, columns in rows())
    cleaned_texts = clean_texts(texts, cleaner_names, jobs, str(path), lines.stop - lines.start, dictionary)
    with replacing(part.file(out)) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        for cleaned, (number, columns) in zip(cleaned_texts, rows(), strict=True):
            if not cleaned.strip():
                emptied = f"{', '.join(cleaner_names)} leave nothing of {columns[text_index]!r}"
                raise ValueError(f"{path}, line {number}: {emptied}; remove the line or write its text in letters")
            unknown.update(unknown_symbols(cleaned))
            file.write("|".join([*columns[:text_index], cleaned, *columns[text_index + 1 :]]) + "\n")
    earlier = read_record(out) or ListRecord((), None)  # of make_filelists.py, which knows the recordings
    made = earlier._replace(text_cleaners=tuple(cleaner_names), dictionary=dictionary or {})
    write_record(part.file(out), made)
    return unknown


def merge_parts(path: str | Path, out_extension: str = "cleaned") -> None:
    """Join the parts of `PATH.OUT_EXTENSION` that several calls of `clean_filelist` wrote, and remove them.

    Raises ValueError if parts are missing, were cleaned in different ways or do not have the lines of the list.
    """
    out = f"{path}.{out_extension}"
    files = stored(out)
    total = max((part.total for part in files), default=1)
    missing = [str(number) for number in range(1, total + 1) if Part(number, total) not in files]
    if missing or len(files) != total:
        found = ", ".join(file.name for file in files.values()) or "none"
        raise ValueError(f"{out}: parts {', '.join(missing) or 'of one number N'} are missing; found: {found}")
    records = [read_record(file) for file in files.values()]
    if any(record != records[0] for record in records):
        raise ValueError(f"{out}: its parts were cleaned with different cleaners or dictionaries: clean them again")
    lines = 0
    with replacing(out) as unfinished, unfinished.open("wb") as joined:
        for file in files.values():
            with file.open("rb") as content:
                for line in content:
                    joined.write(line)
                    lines += 1
        expected = sum(1 for _ in iterate_utterances(path))
        if lines != expected:
            raise ValueError(f"{out}: its parts have {lines} lines, and {path} has {expected}: clean the parts again")
    write_record(out, records[0] or ListRecord((), None))
    for file in files.values():
        file.unlink()
        Path(f"{file}.json").unlink(missing_ok=True)


def clean_texts(
    texts: Iterable[str],
    cleaner_names: Sequence[str],
    jobs: int,
    title: str,
    length: int,
    dictionary: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield the cleaned texts in order, computed by at most `jobs` processes. `title` names the progress bar.

    `length` is the number of texts, which are read as they are needed. Prints which of them have words in a script that
    the cleaners cannot read. Raises ValueError if `jobs` is below 1.
    """
    if jobs < 1:
        raise ValueError(f"{jobs} jobs were requested; the number of processes must be 1 or more")
    foreign: dict[int, str] = {}

    def watched() -> Iterator[str]:
        for i, text in enumerate(texts, 1):
            if words := unreadable(text, cleaner_names):
                foreign[i] = words[0]
            yield text

    clean = functools.partial(_clean, cleaner_names=tuple(cleaner_names), dictionary=dictionary)
    yield from tqdm(_map(clean, watched(), min(jobs, length // LINES_PER_PROCESS)), title, length, disable=None)
    if foreign:
        named = ", ".join(f"text {i} ({word!r})" for i, word in islice(foreign.items(), MAX_NAMED))
        spelled = f"{len(foreign)} texts have words in a script that {', '.join(cleaner_names)} would spell"
        print(f"{title}: {spelled} letter by letter: {named}")


def report_unknown(unknown: Counter[str]) -> None:
    """Print how often each symbol without an id occurs."""
    if unknown:
        counts = ", ".join(f"{s!r} (U+{ord(s):04X}) {n} times" for s, n in unknown.most_common())
        print(f"Symbols without an id, left out unless data.extra_symbols of the config names them: {counts}")


def _clean(text: str, cleaner_names: tuple[str, ...], dictionary: Mapping[str, str] | None) -> str:
    written = clean_text(text, cleaner_names, dictionary)
    return written.replace("|", " ")  # a cleaner that keeps "|" must not add a column


def _map(function: Callable[[str], str], texts: Iterable[str], jobs: int) -> Iterator[str]:
    """Map in order, in `jobs` processes, or in this one if they are fewer than two."""
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
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--shard", type=parse, default=WHOLE, metavar="I/N", help="clean part I of N (default: all)")
    form.add_argument("--merge", action="store_true", help="join the parts that --shard has written")
    args = parser.parse_args(arguments)
    unknown: Counter[str] = Counter()
    with cli.errors_in_one_line("preprocess"):
        dictionary = read_dictionary(args.dictionary) if args.dictionary else None
        for filelist in args.filelists:
            if args.merge:
                merge_parts(filelist, args.out_extension)
                continue
            options = (args.text_index, args.text_cleaners, args.out_extension, args.jobs, args.shard, dictionary)
            unknown += clean_filelist(filelist, *options)
        report_unknown(unknown)


if __name__ == "__main__":
    main()
