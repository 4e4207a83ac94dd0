"""Writes the filelists of a corpus: which clips train, validate and test, and who speaks.

    python make_filelists.py ljspeech /path/LJSpeech-1.1    the splits of VITS: 12,500, 100 and 500 clips
    python make_filelists.py vctk /path/VCTK-Corpus         the splits and speaker numbers of VITS: 43,470, 100, 500
    python make_filelists.py folder /path/of/your/corpus    a split by chance that is the same every time

With `--clean english_cleaners2` the phonemised copies for training are written, too. A folder of one's own holds
either metadata.csv, with the columns id|text or id|text|normalised or what `--columns` says, or a .txt file for
each recording; with `--speaker_folders` each sub-folder is a speaker. A text names its recording by file name or, where
several folders have one of that name, by its path from the corpus, with or without suffix.
"""

import argparse
import json
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess import clean_filelist, report_unknown, write_lines
from text.cleaners import get_cleaner

FACTS = Path(__file__).parent / "filelists"
SPLITS = ("train", "val", "test")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
# Where copies of VCTK keep their audio; the first is what VITS asks users to make at 22,050 Hz.
VCTK_AUDIO_FOLDERS = ("downsampled_wavs", "wav48", "wav48_silence_trimmed")


class Clip(NamedTuple):
    """One line of a filelist; `speaker` is empty where all clips have one voice."""

    path: str
    speaker: str
    text: str


def ljspeech(corpus: Path) -> dict[str, list[Clip]]:
    """Returns the clips of each split of LJ Speech, in VITS's split, with paths through DUMMY1.

    Raises ValueError if `corpus` is not laid out like LJSpeech-1.1.
    """
    facts = json.loads((FACTS / "ljspeech_splits.json").read_text())
    splits = _empty_splits()
    without_audio = []
    for number, columns in _read_metadata(corpus / "metadata.csv"):
        if len(columns) != 3:
            raise ValueError(f"{corpus}/metadata.csv:{number}: {len(columns)} columns, LJ Speech has id|text|text")
        name, written, normalised = columns
        if not (corpus / "wavs" / f"{name}.wav").is_file():
            without_audio.append(name)
            continue
        split = _split_of(*name.partition("-")[::2], facts)
        splits[split].append(Clip(f"DUMMY1/{name}.wav", "", _one_line(normalised or written)))
    _report_left_out("no recording", without_audio)
    _report_counts(splits, facts["expected"])
    return splits


def vctk(corpus: Path) -> dict[str, list[Clip]]:
    """Returns the clips of each split of VCTK, in VITS's split and speaker numbers, with paths through DUMMY2.

    Reads release 0.80 (wav48/p225/p225_001.wav), 0.92 (wav48_silence_trimmed/p225/p225_001_mic1.flac, of which the
    first microphone is taken) and resampled copies in downsampled_wavs. Speakers whom VITS does not number are left
    out. Raises ValueError if `corpus` has no txt folder or no audio folder.
    """
    facts = json.loads((FACTS / "vctk_splits.json").read_text())
    numbers = {name: str(i) for i, name in enumerate(" ".join(facts["speakers"]).split())}
    audio = vctk_audio(corpus)
    if not audio.is_dir() or not (corpus / "txt").is_dir():
        raise ValueError(f"{corpus} is not VCTK: it needs a folder txt and one of {', '.join(VCTK_AUDIO_FOLDERS)}")
    recordings = {path.stem.removesuffix("_mic1"): path for path in _find_audio(audio)}
    splits = _empty_splits()
    without_audio, without_number = [], []
    for transcript in sorted((corpus / "txt").glob("*/*.txt")):
        name = transcript.stem
        speaker, _, utterance = name.partition("_")
        if speaker not in numbers:
            without_number.append(name)
        elif name not in recordings:
            without_audio.append(name)
        else:
            path = f"DUMMY2/{recordings[name].relative_to(audio).as_posix()}"
            clip = Clip(path, numbers[speaker], _one_line(_read_text(transcript)))
            splits[_split_of(speaker, utterance, facts)].append(clip)
    _report_left_out("speaker has no number in VITS", without_number)
    _report_left_out("no recording", without_audio)
    _report_counts(splits, facts["expected"])
    return splits


def vctk_audio(corpus: Path) -> Path:
    """Returns the folder of VCTK's recordings; one that is not there if there is none."""
    folders = [corpus / name for name in VCTK_AUDIO_FOLDERS]
    return next((path for path in folders if path.is_dir()), folders[0])


def folder(
    corpus: Path,
    columns: Sequence[str] = (),
    speaker_folders: bool = False,
    val: int | None = None,
    test: int | None = None,
    seed: int = 1234,
) -> dict[str, list[Clip]]:
    """Returns the clips of a plain folder, split by chance.

    The texts come from metadata.csv, whose columns are named by `columns` ("id", "speaker", "text" or, preferred,
    "normalised"; others are passed over), or else from a .txt file beside each recording or of its name in another
    folder. `val` and `test` are numbers of clips, by default one in twenty, at most 100. Raises ValueError naming
    what is missing or ambiguous.
    """
    for split, size in (("val", val), ("test", test)):
        if size is not None and size < 0:
            raise ValueError(f"{size} {split} clips were asked for; there may be 0 or more")
    found = _find_audio(corpus)
    if not found:
        raise ValueError(f"{corpus} has no recordings ({', '.join(AUDIO_SUFFIXES)})")
    metadata = corpus / "metadata.csv"
    clips = _clips_of_metadata(metadata, found, columns) if metadata.is_file() else _clips_of_texts(corpus, found)
    if speaker_folders:
        clips = [clip._replace(speaker=Path(clip.path).parent.name) for clip in clips]
    share = max(1, min(100, len(clips) // 20))
    val, test = (share if size is None else size for size in (val, test))
    if len(clips) <= val + test:
        raise ValueError(f"{corpus}: {len(clips)} clips do not suffice for {val} val and {test} test clips")
    random.Random(seed).shuffle(clips)
    splits = {"val": clips[:val], "test": clips[val : val + test], "train": clips[val + test :]}
    return {name: sorted(splits[name]) for name in SPLITS}


def write_filelists(splits: dict[str, list[Clip]], prefix: str, out: Path) -> list[Path]:
    """Writes `OUT/PREFIX_audio[_sid]_text_SPLIT_filelist.txt` for every split that has clips; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    many = any(clip.speaker for clips in splits.values() for clip in clips)
    paths = []
    for split, clips in splits.items():
        if clips:
            path = out / f"{prefix}_audio_{'sid_' if many else ''}text_{split}_filelist.txt"
            write_lines(path, ["|".join(clip if many else (clip.path, clip.text)) for clip in clips])
            print(f"{path}: {len(clips)} clips")
            paths.append(path)
    return paths


def link(target: Path, name: Path) -> None:
    """Makes the link through which filelists of VITS reach a corpus, unless there is one already."""
    if name.exists():
        other = "" if name.samefile(target) else f", although it is not {target}: remove it if it should be"
        print(f"{name} is there already and stays{other}")
        return
    try:
        name.unlink(missing_ok=True)  # a link that leads nowhere
        name.symlink_to(target.resolve(), target_is_directory=True)
        print(f"{name} now leads to {target}")
    except OSError as error:  # Windows allows links to administrators only
        print(f"{name} could not be made ({error}): copy {target} to it")


def _clips_of_metadata(metadata: Path, found: list[Path], columns: Sequence[str]) -> list[Clip]:
    rows = _read_metadata(metadata)
    width = Counter(len(row) for _, row in rows).most_common(1)[0][0]
    if not columns:
        _refuse_speakers_as_text(metadata, rows)
    columns = columns or {2: ("id", "text"), 3: ("id", "text", "normalised")}.get(width, ())
    if width == 1:
        raise ValueError(f"{metadata} has one column: id and text are separated by |")
    if len(columns) != width or "id" not in columns or not {"text", "normalised"} & set(columns):
        raise ValueError(
            f"{metadata} has {width} columns: name them, as in --columns id,speaker,text; "
            "id and text (or normalised) are needed"
        )
    recordings = _Recordings(metadata.parent, found)
    clips, without_audio, again, taken = [], [], [], set()
    for number, row in rows:
        if len(row) != width:
            raise ValueError(f"{metadata}:{number}: {len(row)} columns, where most lines have {width}")
        values = dict(zip(columns, row))
        name = values["id"]
        text = _one_line(values.get("normalised") or values.get("text", ""))
        if not text:
            raise ValueError(f"{metadata}:{number}: {name} has no text")
        path = recordings.find(name, f"{metadata}:{number}")
        if path is None:
            without_audio.append(name)
        elif path in taken:  # it would train and validate
            again.append(name)
        else:
            taken.add(path)
            clips.append(Clip(str(path), values.get("speaker", ""), text))
    _report_left_out("no recording", without_audio)
    _report_left_out("recording of an earlier line", again)
    return clips


def _refuse_speakers_as_text(metadata: Path, rows: list[tuple[int, list[str]]]) -> None:
    """Raise ValueError where the second of three columns can hardly be the text that the third repeats."""
    second, third = ([row[i] for _, row in rows if len(row) == 3] for i in (1, 2))
    if not any(" " in text for text in second) and sum(" " in text for text in third) > len(third) / 2:
        names = ", ".join(list(dict.fromkeys(second))[:3])
        raise ValueError(
            f"{metadata}: the second column ({names}, ...) looks like speakers, not like text: say "
            "--columns id,speaker,text or, if it is text, --columns id,text,normalised"
        )


class _Recordings:
    """The recordings of a corpus, by what texts call them."""

    def __init__(self, corpus: Path, found: list[Path]):
        self.corpus = corpus
        self.by_name: dict[str, list[Path]] = {}
        for path in found:
            for name in {_composed(path.name), _composed(path.stem)}:
                self.by_name.setdefault(name, []).append(path)

    def find(self, name: str, where: str) -> Path | None:
        """The recording of that file name or path, None if there is none.

        Raises ValueError if it may be one of several.
        """
        called = Path(_composed(name.replace("\\", "/")))
        candidates = self.by_name.get(called.name, [])
        if len(candidates) > 1:
            exact = [path for path in candidates if called in self._paths(path)]
            partly = [path for path in candidates if any(_overlap(p, called) for p in self._paths(path))]
            candidates = exact or partly or candidates
        if len(candidates) > 1:
            several = " or ".join(str(path) for path in candidates[:3])
            raise ValueError(f"{where}: {name} may be {several}: name it by its path from {self.corpus}")
        return candidates[0] if candidates else None

    def _paths(self, path: Path) -> tuple[Path, Path]:
        relative = Path(_composed(str(path.relative_to(self.corpus))))
        return relative, relative.with_suffix("")


def _composed(name: str) -> str:
    """The name with its accents in the letters: macOS writes them as characters of their own."""
    return unicodedata.normalize("NFC", name)


def _overlap(path: Path, other: Path) -> bool:
    """Whether the shorter of two paths is the end of the longer."""
    shared = min(len(path.parts), len(other.parts))
    return path.parts[-shared:] == other.parts[-shared:]


def _clips_of_texts(corpus: Path, found: list[Path]) -> list[Clip]:
    texts: dict[str, list[Path]] = {}
    for path in sorted(corpus.rglob("*.txt")):
        texts.setdefault(_composed(path.stem), []).append(path)
    clips, without_text = [], []
    for path in found:
        source = _text_of(path, texts.get(_composed(path.stem), []))
        text = _one_line(_read_text(source)) if source else ""
        if text:
            clips.append(Clip(str(path), "", text))
        else:
            without_text.append(path.name)
    _report_left_out("no text", without_text)
    return clips


def _text_of(recording: Path, texts: list[Path]) -> Path | None:
    """The file with a recording's text: the one beside it, or the only one of its name, or that in a sister folder.

    Raises ValueError if it may be one of several.
    """
    beside = recording.with_suffix(".txt")
    if beside in texts or len(texts) < 2:
        return beside if beside in texts else next(iter(texts), None)
    sisters = [text for text in texts if text.parent.parent == recording.parent.parent]
    if len(sisters) != 1:
        several = " or ".join(str(path) for path in texts[:3])
        raise ValueError(f"the text of {recording} may be {several}: put it beside the recording")
    return sisters[0]


def _read_metadata(path: Path) -> list[tuple[int, list[str]]]:
    """Returns (line number, columns) of every line that is not blank; quotes are text and not syntax."""
    lines = _read_text(path).split("\n")
    rows = [(i, [c.strip() for c in line.split("|")]) for i, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no lines")
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not there or not in UTF-8: {error}") from error


def _one_line(text: str) -> str:
    """One line without the column separator."""
    return " ".join(text.replace("|", " ").split())


def _find_audio(root: Path) -> list[Path]:
    """Returns every recording below `root`, sorted. One walk of the tree: VCTK has 44,000."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(AUDIO_SUFFIXES)
    )


def _split_of(group: str, number: str, facts: dict) -> str:
    """Returns the split of one clip: the facts list val and test by chapter or speaker, all others train."""
    return next((split for split in ("val", "test") if number in facts[split].get(group, "").split()), "train")


def _empty_splits() -> dict[str, list[Clip]]:
    return {split: [] for split in SPLITS}


def _report_left_out(reason: str, names: Iterable[str]) -> None:
    names = list(names)
    if names:
        more = ", ..." if len(names) > 5 else ""
        print(f"Left out, {reason}: {len(names)} clips ({', '.join(names[:5])}{more})")


def _report_counts(splits: dict[str, list[Clip]], expected: dict[str, int]) -> None:
    if not any(splits.values()):
        raise ValueError("no clip has both a text and a recording: is this the corpus's own folder?")
    for split, clips in splits.items():
        if len(clips) != expected[split]:
            print(f"{split}: {len(clips)} clips, where the corpus of VITS has {expected[split]}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("ljspeech", "vctk", "folder"):
        options = kinds.add_parser(kind)
        options.add_argument("corpus", type=Path)
        options.add_argument("--out", type=Path, default=Path("filelists"))
        options.add_argument("--clean", nargs="+", metavar="CLEANER", help="also write the .cleaned copies")
    options.add_argument("--name", help="start of the files' names (default: the folder's name)")
    options.add_argument("--columns", type=lambda names: names.split(","), default=(), help="of metadata.csv")
    options.add_argument("--speaker_folders", action="store_true", help="each sub-folder is a speaker")
    options.add_argument("--val", type=int, help="clips to validate on")
    options.add_argument("--test", type=int, help="clips to test on")
    options.add_argument("--seed", type=int, default=1234)
    given = parser.parse_args(arguments)
    try:
        for cleaner in given.clean or ():
            get_cleaner(cleaner)  # before anything is written: there may be none of that name
        if given.kind == "ljspeech":
            prefix, splits = "ljs", ljspeech(given.corpus)
            link(given.corpus / "wavs", Path("DUMMY1"))
        elif given.kind == "vctk":
            prefix, splits = "vctk", vctk(given.corpus)
            link(vctk_audio(given.corpus), Path("DUMMY2"))
        else:
            prefix = given.name or given.corpus.resolve().name
            splits = folder(given.corpus, given.columns, given.speaker_folders, given.val, given.test, given.seed)
        paths = write_filelists(splits, prefix, given.out)
        if given.clean:
            _clean(paths, given.clean)
        else:
            _report_old_copies(paths)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


def _report_old_copies(paths: list[Path]) -> None:
    for path in paths:
        if Path(f"{path}.cleaned").exists():
            print(f"{path}.cleaned is that of an earlier list: --clean or preprocess.py makes it anew")


def _clean(paths: list[Path], cleaner_names: list[str]) -> None:
    unknown = Counter()
    for path in paths:
        text_index = 2 if "_sid_text_" in path.name else 1
        unknown.update(clean_filelist(path, text_index, cleaner_names, jobs=os.cpu_count() or 1))
    report_unknown(unknown)


if __name__ == "__main__":
    main()
