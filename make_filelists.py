"""Write the filelists of a corpus: the clips for training, validation and test, and their speakers.

ljspeech and vctk use the splits and the speaker numbers of VITS. folder splits recordings of your own at random,
always in the same way.

With `--clean english_cleaners2` the phonemized copies for training are written as well. A folder holds metadata.csv,
with the columns id|text or id|text|normalised or those of `--columns`, or a .txt file for each recording. With
`--speaker_folders` each sub-folder is a speaker. An id is the file name of a recording or, if several folders have
a file of that name, its path from the corpus, with or without suffix.

Examples:
  python make_filelists.py ljspeech /path/LJSpeech-1.1 --clean english_cleaners2
  python make_filelists.py vctk /path/VCTK-Corpus
  python make_filelists.py folder my_corpus --name my --clean phonemes_de
  python make_filelists.py folder --help
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import cli
from corpora.filelist import Clip, Row, check_widths, read_rows, read_text
from files import write_text
from preprocess import clean_filelist, report_unknown
from text.cleaners import get_cleaner

FACTS = Path(__file__).parent / "filelists"
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
# Folders of recordings in copies of VCTK. VITS asks its users to create the first, at 22,050 Hz.
VCTK_AUDIO_FOLDERS = ("downsampled_wavs", "wav48", "wav48_silence_trimmed")
MAX_NAMED = 5  # clips listed in a message
MAX_SHARE = 100  # clips for validation and for test, if their numbers are not given

Splits = dict[str, list[Clip]]


def ljspeech(corpus: Path) -> Splits:
    """Return the clips of LJSpeech-1.1 in VITS's split, below the link DUMMY1. Raises ValueError for another layout."""
    facts = json.loads((FACTS / "ljspeech_splits.json").read_text())
    found: list[tuple[str, str, Clip]] = []
    without_audio = []
    rows, width = _read_metadata(corpus / "metadata.csv")
    if width != 3:
        raise ValueError(f"{corpus}/metadata.csv has {width} columns; LJ Speech has id|text|text")
    for _, (name, written, normalised) in rows:
        if (corpus / "wavs" / f"{name}.wav").is_file():
            chapter, _, number = name.partition("-")
            found.append((chapter, number, Clip(f"DUMMY1/{name}.wav", None, _one_line(normalised or written))))
        else:
            without_audio.append(name)
    _report_left_out("no recording", without_audio)
    return _split_as_vits(found, facts)


def vctk(corpus: Path) -> Splits:
    """Return the clips of VCTK in the split and with the speaker numbers of VITS, with paths through the link DUMMY2.

    Reads release 0.80 (wav48/p225/p225_001.wav), the first microphone of release 0.92
    (wav48_silence_trimmed/p225/p225_001_mic1.flac), and resampled copies in downsampled_wavs. Speakers without a number
    in VITS are left out. Raises ValueError if `corpus` has no txt folder or no audio folder.
    """
    facts = json.loads((FACTS / "vctk_splits.json").read_text())
    numbers = {name: str(i) for i, name in enumerate(" ".join(facts["speakers"]).split())}
    audio = vctk_audio(corpus)
    if not audio.is_dir() or not (corpus / "txt").is_dir():
        raise ValueError(f"{corpus} is not VCTK: it needs a folder txt and one of {', '.join(VCTK_AUDIO_FOLDERS)}")
    recordings = {path.stem.removesuffix("_mic1"): path for path in _find_audio(audio)}
    found: list[tuple[str, str, Clip]] = []
    without_audio, without_number = [], []
    for transcript in sorted((corpus / "txt").glob("*/*.txt")):
        speaker, _, utterance = transcript.stem.partition("_")
        if speaker not in numbers:
            without_number.append(transcript.stem)
        elif transcript.stem not in recordings:
            without_audio.append(transcript.stem)
        else:
            path = f"DUMMY2/{recordings[transcript.stem].relative_to(audio).as_posix()}"
            found.append((speaker, utterance, Clip(path, numbers[speaker], _one_line(read_text(transcript)))))
    _report_left_out("speaker has no number in VITS", without_number)
    _report_left_out("no recording", without_audio)
    return _split_as_vits(found, facts)


def vctk_audio(corpus: Path) -> Path:
    """Return the folder of VCTK's recordings, or the path of the first choice if there is none."""
    folders = [corpus / name for name in VCTK_AUDIO_FOLDERS]
    return next((path for path in folders if path.is_dir()), folders[0])


def folder(
    corpus: Path,
    columns: Sequence[str] = (),
    speaker_folders: bool = False,
    val: int | None = None,
    test: int | None = None,
    seed: int = 1234,
) -> Splits:
    """Return the clips of a folder, split at random by `seed`. Raises ValueError if something is missing or ambiguous.

    The texts are in metadata.csv or, without that file, in .txt files, beside the recordings or with their names in
    another folder. `columns` names the columns of metadata.csv: "id", "speaker", "text" and "normalised", which is
    preferred to "text"; other columns are ignored. With `speaker_folders`, the name of a recording's folder is its
    speaker. `val` and `test` are numbers of clips; None is one in twenty, at most 100.
    """
    for split, size in (("val", val), ("test", test)):
        if size is not None and size < 0:
            raise ValueError(f"{size} {split} clips were requested; the number must be 0 or more")
    found = _find_audio(corpus)
    if not found:
        raise ValueError(f"{corpus} has no recordings ({', '.join(AUDIO_SUFFIXES)})")
    metadata = corpus / "metadata.csv"
    clips = _clips_of_metadata(metadata, found, columns) if metadata.is_file() else _clips_of_texts(corpus, found)
    if speaker_folders:
        clips = [clip._replace(speaker=Path(clip.path).parent.name) for clip in clips]
    share = max(1, min(MAX_SHARE, len(clips) // 20))
    val, test = (share if size is None else size for size in (val, test))
    if len(clips) <= val + test:
        raise ValueError(f"{corpus}: {len(clips)} clips are too few for {val} val and {test} test clips")
    random.Random(seed).shuffle(clips)
    return {"train": sorted(clips[val + test :]), "val": sorted(clips[:val]), "test": sorted(clips[val : val + test])}


def write_filelists(splits: Splits, prefix: str, out: Path) -> list[Path]:
    """Write `OUT/PREFIX_audio[_sid]_text_SPLIT_filelist.txt` for every split that has clips. Return the paths."""
    out.mkdir(parents=True, exist_ok=True)
    many = any(clip.speaker for clips in splits.values() for clip in clips)
    paths = []
    for split, clips in splits.items():
        if clips:
            path = out / f"{prefix}_audio_{'sid_' if many else ''}text_{split}_filelist.txt"
            write_text(path, "".join(clip.row(many) + "\n" for clip in clips))
            print(f"{path}: {len(clips)} clips")
            paths.append(path)
    return paths


def link(target: Path, name: Path) -> None:
    """Create the link through which the filelists of VITS refer to a corpus, unless something has its name."""
    if name.exists():
        other = "" if name.samefile(target) else f", although it is not {target}: remove it to link that folder"
        print(f"{name} exists and is kept{other}")
        return
    try:
        name.unlink(missing_ok=True)  # a broken link
        name.symlink_to(target.resolve(), target_is_directory=True)
        print(f"{name} is now a link to {target}")
    except OSError as error:  # on Windows only administrators may create links
        print(f"the link {name} could not be created ({error}): copy {target} to {name}")


def _clips_of_metadata(metadata: Path, found: list[Path], columns: Sequence[str]) -> list[Clip]:
    rows, width = _read_metadata(metadata)
    if not columns:
        _refuse_speakers_as_text(metadata, rows)
    columns = columns or {2: ("id", "text"), 3: ("id", "text", "normalised")}.get(width, ())
    if width == 1:
        raise ValueError(f"{metadata} has one column: separate id and text by |")
    if len(columns) != width or "id" not in columns or not {"text", "normalised"} & set(columns):
        needed = "name them, as in --columns id,speaker,text; id and text (or normalised) are needed"
        raise ValueError(f"{metadata} has {width} columns: {needed}")
    recordings = _by_name(found)
    clips: dict[Path, Clip] = {}
    without_audio, again = [], []
    for number, row in rows:
        values = dict(zip(columns, row))
        name, where = values["id"], f"{metadata}, line {number}"
        text = _one_line(values.get("normalised") or values.get("text", ""))
        if not text:
            raise ValueError(f"{where}: {name} has no text")
        path = _find_recording(name, recordings, metadata.parent, where)
        if path is None:
            without_audio.append(name)
        elif path in clips:  # it might be in both training and validation
            again.append(name)
        else:
            clips[path] = Clip(str(path), values.get("speaker"), text, number)
    _report_left_out("no recording", without_audio)
    _report_left_out("recording of an earlier line", again)
    return list(clips.values())


def _refuse_speakers_as_text(metadata: Path, rows: Sequence[Row]) -> None:
    """Raise ValueError if the second of three columns looks like speakers, not like the text before normalization."""
    second, third = ([row[i] for _, row in rows if len(row) == 3] for i in (1, 2))
    if not any(" " in text for text in second) and sum(" " in text for text in third) > len(third) / 2:
        names = ", ".join(list(dict.fromkeys(second))[:3])
        choices = "--columns id,speaker,text or, if it is text, --columns id,text,normalised"
        looks = f"the second column ({names}, ...) looks like speakers, not like text"
        raise ValueError(f"{metadata}: {looks}: give {choices}")


def _by_name(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Map names in Unicode form NFC, with and without suffix, to files. macOS stores accents as separate characters."""
    found: dict[str, list[Path]] = {}
    for path in files:
        for name in (path.name, path.stem):
            found.setdefault(normalize("NFC", name), []).append(path)
    return found


def _find_recording(name: str, recordings: dict[str, list[Path]], corpus: Path, where: str) -> Path | None:
    """Return the recording of a file name or path, or None. Raises ValueError if several recordings fit."""
    called = Path(normalize("NFC", name.replace("\\", "/")))
    candidates = recordings.get(called.name, [])
    if len(candidates) > 1:
        paths = {path: Path(normalize("NFC", str(path.relative_to(corpus)))) for path in candidates}
        exact = [path for path, inside in paths.items() if called in (inside, inside.with_suffix(""))]
        candidates = exact or [path for path, inside in paths.items() if _overlap(inside, called)] or candidates
    if len(candidates) > 1:
        several = " or ".join(str(path) for path in candidates[:3])
        raise ValueError(f"{where}: {name} may be {several}: give its path from {corpus}")
    return candidates[0] if candidates else None


def _overlap(path: Path, called: Path) -> bool:
    """Return whether the shorter of two paths is the end of the longer, with or without the suffix of `path`."""
    shared = min(len(path.parts), len(called.parts))
    return called.parts[-shared:] in (path.parts[-shared:], path.with_suffix("").parts[-shared:])


def _clips_of_texts(corpus: Path, found: list[Path]) -> list[Clip]:
    texts = _by_name(sorted(corpus.rglob("*.txt")))
    clips, without_text = [], []
    for path in found:
        source = _text_of(path, texts.get(normalize("NFC", f"{path.stem}.txt"), []))
        text = _one_line(read_text(source)) if source else ""
        if text:
            clips.append(Clip(str(path), None, text))
        else:
            without_text.append(path.name)
    _report_left_out("no text", without_text)
    return clips


def _text_of(recording: Path, texts: list[Path]) -> Path | None:
    """Return a recording's text file: beside it, the only one, or in a sister folder. Raises ValueError if many fit."""
    beside = recording.with_suffix(".txt")
    if beside in texts or len(texts) < 2:
        return beside if beside in texts else next(iter(texts), None)
    sisters = [text for text in texts if text.parent.parent == recording.parent.parent]
    if len(sisters) != 1:
        several = " or ".join(str(path) for path in texts[:3])
        raise ValueError(f"the text of {recording} may be in {several}: put the file beside the recording")
    return sisters[0]


def _read_metadata(path: Path) -> tuple[list[Row], int]:
    """Return the rows of a metadata.csv without white space around columns, and their width. Quotes are ordinary."""
    rows = [(number, [column.strip() for column in columns]) for number, columns in read_rows(path)]
    return rows, check_widths(rows, path)


def _one_line(text: str) -> str:
    """Return the text as one line without the column separator."""
    return " ".join(text.replace("|", " ").split())


def _find_audio(root: Path) -> list[Path]:
    """Return every recording below `root`, sorted. Walks the tree only once, because VCTK has 44,000 recordings."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(AUDIO_SUFFIXES)
    )


def _report_left_out(reason: str, names: Sequence[str]) -> None:
    if names:
        more = ", ..." if len(names) > MAX_NAMED else ""
        print(f"Left out, {reason}: {len(names)} clips ({', '.join(names[:MAX_NAMED])}{more})")


def _split_as_vits(found: Sequence[tuple[str, str, Clip]], facts: dict[str, Any]) -> Splits:
    """Return the splits of clips with their chapters or speakers and numbers, and print where their sizes differ.

    The facts list val and test by chapter or speaker; all others are for training. Raises ValueError for no clips.
    """
    if not found:
        raise ValueError("no clip has both a text and a recording: give the folder that the corpus's archive contains")
    splits: Splits = {"train": [], "val": [], "test": []}
    for group, number, clip in found:
        split = next((split for split in ("val", "test") if number in facts[split].get(group, "").split()), "train")
        splits[split].append(clip)
    for split, clips in splits.items():
        if len(clips) != facts["expected"][split]:
            print(f"{split}: {len(clips)} clips, where the corpus of VITS has {facts['expected'][split]}")
    return splits


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="ljspeech | vctk | folder")
    for kind in ("ljspeech", "vctk", "folder"):
        add = kinds.add_parser(kind).add_argument
        add("corpus", type=Path, help="folder of the corpus")
        add("--out", type=Path, default=Path("filelists"), metavar="FOLDER", help="folder for the filelists")
        add("--clean", nargs="+", metavar="CLEANER", help="also write the .cleaned copies")
    # options of the last kind, folder
    add("--name", help="start of the files' names (default: the folder's name)")
    columns = "names of metadata.csv's columns, such as id,speaker,text (default: id,text or id,text,normalised)"
    add("--columns", type=lambda names: names.split(","), default=(), help=columns)
    add("--speaker-folders", action="store_true", help="each sub-folder is a speaker")
    share = f"(default: one in twenty, at most {MAX_SHARE})"
    add("--val", type=int, metavar="CLIPS", help=f"number of validation clips {share}")
    add("--test", type=int, metavar="CLIPS", help=f"number of test clips {share}")
    add("--seed", type=int, default=1234, metavar="N", help="seed of the random split")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("make_filelists"):
        for cleaner in args.clean or ():
            get_cleaner(cleaner)  # checked before anything is written
        if args.kind == "ljspeech":
            prefix, splits = "ljs", ljspeech(args.corpus)
            link(args.corpus / "wavs", Path("DUMMY1"))
        elif args.kind == "vctk":
            prefix, splits = "vctk", vctk(args.corpus)
            link(vctk_audio(args.corpus), Path("DUMMY2"))
        else:
            prefix = args.name or args.corpus.resolve().name
            splits = folder(args.corpus, args.columns, args.speaker_folders, args.val, args.test, args.seed)
        paths = write_filelists(splits, prefix, args.out)
        unknown: Counter[str] = Counter()
        for path in paths:
            if args.clean:
                text_index = 2 if "_sid_text_" in path.name else 1
                unknown.update(clean_filelist(path, text_index, args.clean, jobs=os.cpu_count() or 1))
            elif Path(f"{path}.cleaned").exists():
                print(f"{path}.cleaned belongs to an earlier list: write it again with --clean or preprocess.py")
        report_unknown(unknown)


if __name__ == "__main__":
    main()
