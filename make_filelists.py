"""Write the filelists of a corpus: the clips for training, validation and test, and their speakers.

ljspeech and vctk use the splits and the speaker numbers of VITS. merge joins the lists of single speakers to those of a
voice with several speakers, numbered in the order of the options. folder reads a corpus of any of these layouts, which
it recognizes, and splits it at random, always in the same way:

%LAYOUTS%

With `--clean english_cleaners2` the phonemized copies for training and a config for them are written as well, ready
for `python train.py -c filelists/NAME_config.json`. An id in a table is the file name of a recording or, if several
folders have a file of that name, its path from the table, with or without suffix.

Examples:
  python make_filelists.py ljspeech /path/LJSpeech-1.1 --clean english_cleaners2
  python make_filelists.py vctk /path/VCTK-Corpus
  python make_filelists.py folder my_corpus --name my --clean phonemes_de
  python make_filelists.py folder my_corpus --name my --voice pretrained      (to train on from that voice)
  python make_filelists.py folder my_corpus --layout texts --speaker-folders
  python make_filelists.py merge --name two --speaker anna=filelists/anna --speaker ben=filelists/ben --repeat ben=3
  python make_filelists.py folder --help
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import argparse
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import config
from conditions import Speaker
from corpora import clips as reading
from corpora.filelist import Clip, ListRecord, read_text, write_record
from corpora.layouts import LAYOUTS, VCTK_AUDIO_FOLDERS, Options, recognize, seen, vctk_audio
from corpora.merging import merge
from corpora.recordings import Files
from corpora.tables import read_metadata
from files import write_text
from preprocess import clean_texts, report_unknown
from text import unknown_symbols
from text.cleaners import get_cleaner
from text.markup import read_dictionary

FACTS = Path(__file__).parent / "filelists"
VCTK_SPEAKERS = 109  # size of the speaker embedding of VITS, one more than the numbers that it gives
MAX_SHARE = 100  # clips for validation and for test, if their numbers are not given
CONFIGS = Path(__file__).parent / "configs"
ONE_VOICE, MANY_VOICES = "vits2_ljs_nosdp.json", "vits2_vctk_base.json"  # the configs to start from
DEFAULT_RATE = 22050  # Hz, of VITS
RATE_OF_RECORDINGS = "that of most recordings or the next lower one"
RATE_OF = {"ljspeech": DEFAULT_RATE, "vctk": DEFAULT_RATE}  # of the config; other kinds choose by the recordings
SEED = 1234  # of random splits, as in VITS
SPEAKER_CHANNELS = 256  # model.gin_channels for many speakers, as in VITS

Splits = dict[str, list[Clip]]


def ljspeech(corpus: Path, counts: Counter[str] | None = None) -> Splits:
    """Return the clips of LJSpeech-1.1 in VITS's split, below the link DUMMY1.

    The numbers of clips that are left out are printed and added to `counts`, by reason.

    The corpus may be partial, in any audio format, and lack the third column. Without a clip of VITS's validation set,
    the split is drawn at random. Raises ValueError for another layout.
    """
    counts = Counter() if counts is None else counts
    facts = json.loads((FACTS / "ljspeech_splits.json").read_text())
    found: list[tuple[str, str, Clip]] = []
    left_out: dict[str, list[str]] = {"no recording": [], "no text": []}
    rows, width = read_metadata(corpus / "metadata.csv")
    if width not in (2, 3):
        raise ValueError(f"{corpus}/metadata.csv has {width} columns; LJ Speech has id|text|text")
    files = Files(corpus / "wavs") if (corpus / "wavs").is_dir() else Files(corpus)
    reading.report_unread(files, counts)
    for number, (name, written, *normalised) in rows:
        path = files.find(name, corpus, f"{corpus}/metadata.csv, line {number}")
        text = reading.one_line(next(filter(None, normalised), written))
        if path and text:
            chapter, _, number_of_clip = path.stem.partition("-")
            inside = path.relative_to(files.root).as_posix()
            found.append((chapter, number_of_clip, Clip(f"DUMMY1/{inside}", None, text)))
        else:
            left_out["no text" if path else "no recording"].append(name)
    reading.report_left_out(left_out, counts)
    return _split_as_vits(found, facts)


def vctk(corpus: Path, counts: Counter[str] | None = None) -> Splits:
    """Return the clips of VCTK in the split and with the speaker numbers of VITS, with paths through the link DUMMY2.

    The numbers of clips that are left out are printed and added to `counts`, by reason.
    Reads release 0.80 (wav48/p225/p225_001.wav), the first microphone of release 0.92
    (wav48_silence_trimmed/p225/p225_001_mic1.flac), and resampled copies in downsampled_wavs. Speakers without a number
    in VITS are left out. Raises ValueError if `corpus` has no txt folder or no audio folder.
    """
    counts = Counter() if counts is None else counts
    facts = json.loads((FACTS / "vctk_splits.json").read_text())
    numbers = {name: str(i) for i, name in enumerate(" ".join(facts["speakers"]).split())}
    audio = vctk_audio(corpus)
    if not audio.is_dir() or not (corpus / "txt").is_dir():
        raise ValueError(f"{corpus} is not VCTK: it needs a folder txt and one of {', '.join(VCTK_AUDIO_FOLDERS)}")
    files = Files(audio)
    reading.report_unread(files, counts)
    recordings = {path.stem.removesuffix("_mic1"): path for path in files.recordings}
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
            found.append((speaker, utterance, Clip(path, numbers[speaker], reading.one_line(read_text(transcript)))))
    reading.report_left_out({"speaker has no number in VITS": without_number, "no recording": without_audio}, counts)
    return _split_as_vits(found, facts)


def folder(
    corpus: Path,
    columns: Sequence[str] = (),
    speaker_folders: bool = False,
    val: int | None = None,
    test: int | None = None,
    seed: int = SEED,
    layout: str | None = None,
    metadata: str | None = None,
    speaker_level: int | None = None,
    segments: Path = Path("filelists/segments"),
    counts: Counter[str] | None = None,
) -> Splits:
    """Return the clips of a folder, split at random by `seed`. Raises ValueError if something is missing or ambiguous.

    `layout` is a name in `corpora.layouts.LAYOUTS`; None recognizes it. `columns` names the columns of a table without
    header: "id", "speaker", "text" and "normalised", which is preferred to "text"; other columns are ignored.
    `metadata` is the name of the table. With `speaker_folders` or `speaker_level`, the name of a folder is the speaker
    (see `corpora.clips.with_speakers_of_folders`). `val` and `test` are numbers of clips; None is one in twenty, at
    most 100. Segments that are cut from recordings are written to the folder `segments`.
    The numbers of clips that are left out are printed and added to `counts`, by reason.
    """
    counts = Counter() if counts is None else counts
    for split, size in (("val", val), ("test", test)):
        if size is not None and size < 0:
            raise ValueError(f"{size} {split} clips were requested; the number must be 0 or more")
    files = Files(corpus)
    reading.report_unread(files, counts)
    options = Options(columns, metadata)
    if layout is None:
        layout, reader = recognize(files, options)
    elif layout in LAYOUTS:
        reader = LAYOUTS[layout](files, options)
    else:
        raise ValueError(f"there is no layout {layout!r}{cli.did_you_mean(layout, LAYOUTS)}; all: {', '.join(LAYOUTS)}")
    print(f"{corpus}: layout {layout} ({reader.title})")
    clips = reading.clips_of(reader, segments, counts)
    if not clips:
        nothing = f"no clip has both a text and a recording in the layout {layout}, which needs {reader.looked_for}"
        raise ValueError(f"{corpus}: {nothing}. {seen(files)}")
    if speaker_folders or speaker_level is not None:
        clips = reading.with_speakers_of_folders(clips, corpus, speaker_level)
    reading.report_speakers(clips)
    share = max(1, min(MAX_SHARE, len(clips) // 20))
    val, test = (share if size is None else size for size in (val, test))
    if len(clips) <= val + test:
        raise ValueError(f"{corpus}: {len(clips)} clips are too few for {val} val and {test} test clips")
    return _split_at_random(clips, val, test, seed)


def write_filelists(splits: Splits, prefix: str, out: Path) -> list[Path]:
    """Write `OUT/PREFIX_audio[_sid]_text_SPLIT_filelist.txt` for every split that has clips. Return the paths.

    Lists of an earlier run for a split without clips are removed, because their clips may be in another split now.
    """
    out.mkdir(parents=True, exist_ok=True)
    many = _has_speakers(splits)
    paths = []
    for split, clips in splits.items():
        path = _list_path(out, prefix, split, many)
        if clips:
            write_text(path, "".join(clip.row(many) + "\n" for clip in clips))
            print(f"{path}: {len(clips)} clips")
            paths.append(path)
        for old in _earlier_lists(out, prefix, split, many, empty=not clips):
            if clips:
                print(f"{old} belongs to an earlier list of other columns: remove it")
            else:
                old.unlink()
                print(f"{old} of an earlier run is removed, because there are no {split} clips")
    return paths


def write_cleaned(
    splits: Splits,
    prefix: str,
    out: Path,
    cleaners: Sequence[str],
    speakers: dict[str, int] | None = None,
    counts: Counter[str] | None = None,
    sampling_rate: int | None = None,
    dictionary: Mapping[str, str] | None = None,
    voice: Path | None = None,
) -> list[Path]:
    """Write the lists, their copies with cleaned text, records of how they were made, and a config. Return the paths.

    `speakers` are the ids of speakers; None numbers those of the lists. Clips of whose text the cleaners keep nothing
    are left out of both lists. `counts` are the clips that are left out already, by reason, for the records.
    `sampling_rate` of the voice in Hz is a key of `config.RATES`; None chooses by the recordings. `dictionary` has
    words that are replaced before the cleaners run; None takes those of an existing config. `voice` is the config to
    start from.
    """
    counts = Counter() if counts is None else counts
    unknown: Counter[str] = Counter()
    kept, cleaned = {}, {}
    existing = out / f"{prefix}_config.json"
    words = dictionary or {}
    if dictionary is None and (voice or existing).exists():  # `load` reads the file that a config names
        words = cast(dict[str, str], config.load(voice or existing).data.dictionary)
    for split, clips in splits.items():
        given = (clip.text for clip in clips)
        texts = list(clean_texts(given, cleaners, os.cpu_count() or 1, split, len(clips), words))
        pairs = [(clip, clip._replace(text=text)) for clip, text in zip(clips, texts) if text.strip()]
        emptied = [clip.path for clip, text in zip(clips, texts) if not text.strip()]
        reading.report_left_out({f"{', '.join(cleaners)} leave nothing of the text": emptied}, counts)
        kept[split], cleaned[split] = [clip for clip, _ in pairs], [clip for _, clip in pairs]
        for _, clip in pairs:
            unknown.update(unknown_symbols(clip.text))
    if not kept["train"]:
        raise ValueError(f"{', '.join(cleaners)} leave nothing of the texts: no training clip is left")
    many = _has_speakers(splits)
    paths = write_filelists(kept, prefix, out)
    rate = reading.common_rate([clip.path for clip in kept["train"]])
    for path, clips in zip(paths, filter(None, cleaned.values())):
        copy = Path(f"{path}.cleaned")
        write_text(copy, "".join(clip.row(many) + "\n" for clip in clips))
        write_record(copy, ListRecord(tuple(cleaners), rate, counts, words))
    report_unknown(unknown)
    if kept["val"]:
        write_config(kept, prefix, out, cleaners, rate, speakers, sampling_rate, dictionary, voice)
    else:
        stale = f"; {existing} of an earlier run does not fit the lists" if existing.exists() else ""
        print(f"No config is written, because training needs a validation list and there are no val clips{stale}")
    return paths


def write_config(
    splits: Splits,
    prefix: str,
    out: Path,
    cleaners: Sequence[str],
    recorded: int | None,
    speakers: dict[str, int] | None = None,
    sampling_rate: int | None = None,
    dictionary: Mapping[str, str] | None = None,
    voice: Path | None = None,
) -> Path:
    """Write `OUT/PREFIX_config.json` for the cleaned lists and return its path.

    An existing config keeps its other settings; if its rate changes, it gets those of `config.RATES`. `recorded` is the
    sampling rate of most recordings in Hz, and `sampling_rate` that of the voice, by default the one of `config.RATES`
    that is next below. `dictionary` is that of the voice; None leaves that of an existing config. `voice` is the config
    of a voice to train on from, in place of an existing one; the first of the new speakers becomes the default. Raises
    ValueError if the config to start from is invalid.
    """
    speakers = _speaker_ids(splits) if speakers is None else speakers
    many = len(speakers) > 1
    path = out / f"{prefix}_config.json"
    start = voice if voice else path if path.exists() else CONFIGS / (MANY_VOICES if many else ONE_VOICE)
    earlier = config.load(start)
    given = json.loads(read_text(start))  # without defaults
    given.pop("$schema", None)
    lists = {split: f"{_list_path(out, prefix, split, _has_speakers(splits)).as_posix()}.cleaned" for split in splits}
    lower = [rate for rate in config.RATES if rate <= (recorded or DEFAULT_RATE)]
    sampling_rate = sampling_rate or max(lower, default=min(config.RATES))
    if sampling_rate != earlier.data.sampling_rate:
        for section, settings in config.RATES[sampling_rate].items():
            given[section] |= settings
    given["data"] |= {
        "training_files": lists["train"],
        "validation_files": lists["val"],
        "text_cleaners": list(cleaners),
        "sampling_rate": sampling_rate,
        "n_speakers": len(speakers) if many else 0,
        "speakers": speakers if many and any(str(i) != name for name, i in speakers.items()) else {},
        "cleaned_text": True,
    }
    if dictionary is not None:
        given["data"]["dictionary"] = dict(dictionary)
    if many and not earlier.model.gin_channels:
        given["model"]["gin_channels"] = SPEAKER_CHANNELS
    if voice and many:
        new = [name for name in speakers if name not in Speaker().names(earlier.data)]
        given["data"]["default_speaker"] = (new or [earlier.data.default_speaker])[0]
    config.from_dict(given, str(path))
    write_text(path, json.dumps(given, indent=2, ensure_ascii=False) + "\n")
    resampled = (
        f", to which the recordings at {recorded} Hz are resampled" if recorded not in (None, sampling_rate) else ""
    )
    voices = f"{len(speakers)} speakers" if many else "one voice"
    command = f"python train.py -c {path} -m {prefix}{f' --init-from {voice.parent}' if voice else ''}"
    print(f"{path}: config for {voices} at {sampling_rate} Hz{resampled}: {command}")
    return path


def with_speakers_of(voice: config.DataConfig, splits: Splits, name: str) -> tuple[Splits, dict[str, int] | None]:
    """Return the clips for a voice to train on from, and its speakers, to which those of the clips are added.

    Clips without a speaker get `name`. For a voice of a single speaker, the clips are as they were, and None.
    """
    if not voice.n_speakers:
        return splits, None
    named = {split: [clip._replace(speaker=clip.speaker or name) for clip in clips] for split, clips in splits.items()}
    names = [*Speaker().names(voice), *_speaker_ids(named)]
    return named, {name: i for i, name in enumerate(dict.fromkeys(names))}


def config_of(run: str) -> Path:
    """Return the path of the config of a run or voice. Raises ValueError if there is none."""
    from synthesis import find_checkpoint  # imports PyTorch

    path = find_checkpoint(run).with_name("config.json")
    if not path.is_file():
        raise ValueError(f"{run} has no config.json beside its checkpoint")
    return path


def _speaker_ids(splits: Splits) -> dict[str, int]:
    """Number the speakers from 0, those that are numbers first and in their order."""
    labels = {clip.speaker for clips in splits.values() for clip in clips if clip.speaker is not None}
    numbers = sorted((label for label in labels if label.isdecimal()), key=lambda label: (int(label), label))
    return {label: i for i, label in enumerate([*numbers, *sorted(labels - set(numbers))])}


def _has_speakers(splits: Splits) -> bool:
    return any(clip.speaker for clips in splits.values() for clip in clips)


def _list_path(out: Path, prefix: str, split: str, many: bool) -> Path:
    return out / f"{prefix}_audio_{'sid_' if many else ''}text_{split}_filelist.txt"


def _earlier_lists(out: Path, prefix: str, split: str, many: bool, empty: bool) -> list[Path]:
    """Return lists of an earlier run: of other columns and, for an empty split, of the same columns."""
    paths = [_list_path(out, prefix, split, columns) for columns in ((True, False) if empty else (not many,))]
    return [
        old for path in paths for old in (path, Path(f"{path}.cleaned"), Path(f"{path}.cleaned.json")) if old.exists()
    ]


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


def _split_at_random(clips: Sequence[Clip], val: int, test: int, seed: int) -> Splits:
    """Return splits of these sizes. Every speaker has a training clip, if that is possible."""
    shuffled = list(clips)
    random.Random(seed).shuffle(shuffled)
    remaining = Counter(clip.speaker for clip in shuffled)
    drawn: dict[str, Clip] = {}
    for spare in (1, 0):  # clips of a speaker that must remain
        for clip in shuffled:
            if len(drawn) < val + test and clip.path not in drawn and remaining[clip.speaker] > spare:
                drawn[clip.path] = clip
                remaining[clip.speaker] -= 1
    held_out = list(drawn.values())
    train = [clip for clip in shuffled if clip.path not in drawn]
    return {"train": sorted(train), "val": sorted(held_out[:val]), "test": sorted(held_out[val:])}


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
    if not splits["val"] and len(found) > 2:
        share = max(1, min(MAX_SHARE, len(found) // 20))
        print(f"None of the clips is in VITS's validation set: {share} val and {share} test clips are drawn at random")
        return _split_at_random([clip for *_, clip in found], share, share, SEED)
    return splits


def add_merge_options(add: Callable[..., argparse.Action]) -> None:
    """Add the options of merge: the speakers, and how often their clips occur."""

    def pair(kind: Callable[[str], Any], value: str) -> tuple[str, Any]:
        name, equals, rest = value.partition("=")
        if not name or not equals or not rest or "|" in name:
            raise argparse.ArgumentTypeError(f"{value!r} is not NAME=VALUE")
        return name, kind(rest)

    lists = "a speaker, with the start of the names of their lists, or a folder with train.txt, val.txt and test.txt"
    add("--speaker", action="append", required=True, type=partial(pair, Path), metavar="NAME=LISTS", help=lists)
    often = "how often the training clips of a speaker with little speech occur (default: once)"
    add("--repeat", action="append", default=[], type=partial(pair, int), metavar="NAME=N", help=often)
    add("--name", required=True, help="start of the files' names")


def _layouts() -> str:
    """Return the names of the layouts and what they are recognized by, for the help."""
    return "\n".join(f"  {name:<12} {kind.title}: {kind.looked_for}" for name, kind in LAYOUTS.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser((__doc__ or "").replace("%LAYOUTS%", _layouts()))
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="ljspeech | vctk | merge | folder")
    for kind in ("ljspeech", "vctk", "merge", "folder"):
        add = kinds.add_parser(kind).add_argument
        if kind == "merge":
            add_merge_options(add)
        else:
            add("corpus", type=Path, help="folder of the corpus")
        add("--out", type=Path, default=Path("filelists"), metavar="FOLDER", help="folder for the filelists")
        add("--clean", nargs="+", metavar="CLEANER", help="also write the .cleaned copies and a config")
        add("--dictionary", metavar="FILE", help=f"{cli.DICTIONARY}; replaced before cleaning, and kept in the config")
        known = f"{', '.join(map(str, config.RATES))} (default: {RATE_OF.get(kind, RATE_OF_RECORDINGS)})"
        add(
            "--sampling-rate",
            type=int,
            choices=config.RATES,
            metavar="HZ",
            help=f"sampling rate of the config: {known}",
        )
    # options of the last kind, folder
    add("--name", help="start of the files' names (default: the folder's name)")
    of_voice = (
        "write the config of this voice, a run or pretrained, with the new speakers; --clean is then as it has it"
    )
    add("--voice", metavar="RUN", help=of_voice)
    add("--layout", choices=LAYOUTS, metavar="NAME", help=f"one of {', '.join(LAYOUTS)} (default: recognized)")
    add("--metadata", metavar="FILE", help="name of the tables with the texts (default: that of the layout)")
    columns = "names of the columns of a table without header, such as id,speaker,text (default: by the layout)"
    add("--columns", type=lambda names: names.split(","), default=(), help=columns)
    add("--speaker-folders", action="store_true", help="the innermost folder not named wavs or similarly is a speaker")
    level = "folders at this level are speakers, counted from 1 below the corpus"
    add("--speaker-level", type=int, metavar="N", help=level)
    share = f"(default: one in twenty, at most {MAX_SHARE})"
    add("--val", type=int, metavar="CLIPS", help=f"number of validation clips {share}")
    add("--test", type=int, metavar="CLIPS", help=f"number of test clips {share}")
    add("--seed", type=int, default=SEED, metavar="N", help="seed of the random split")
    args = parser.parse_args(arguments)
    speakers: dict[str, int] | None = None
    counts: Counter[str] = Counter()
    voice = getattr(args, "voice", None)
    if args.sampling_rate and not (args.clean or voice):
        parser.error("--sampling-rate has no effect without --clean, which writes the config")
    if args.dictionary and not (args.clean or voice):
        parser.error("--dictionary has no effect without --clean, which replaces the words")
    with cli.errors_in_one_line("make_filelists"):
        words = read_dictionary(args.dictionary) if args.dictionary else None
        start = config_of(voice) if voice else None
        earlier = config.load(start).data if start else None
        if earlier:
            args.clean = args.clean or earlier.text_cleaners
            args.sampling_rate = args.sampling_rate or earlier.sampling_rate
        for cleaner in args.clean or ():
            get_cleaner(cleaner)  # checked before anything is written
        if args.kind == "ljspeech":
            prefix, splits = "ljs", ljspeech(args.corpus, counts)
            audio = args.corpus / "wavs"
            link(audio if audio.is_dir() else args.corpus, Path("DUMMY1"))
        elif args.kind == "merge":
            corpora, repeats = dict(args.speaker), dict(args.repeat)
            if len(corpora) < len(args.speaker):
                raise ValueError("two of the speakers have one name")
            prefix, splits = args.name, merge(corpora, repeats)
            speakers = {name: i for i, name in enumerate(corpora)}
        elif args.kind == "vctk":
            prefix, splits = "vctk", vctk(args.corpus, counts)
            link(vctk_audio(args.corpus), Path("DUMMY2"))
            speakers = {str(number): number for number in range(VCTK_SPEAKERS)}  # also those without clips
        else:
            prefix = args.corpus.resolve().name if args.name is None else args.name
            if not prefix or set(prefix) & set("/\\") or prefix in (".", ".."):
                raise ValueError(f"--name {prefix!r} is no start of a file name: use --out for the folder of the lists")
            if args.speaker_level is not None and args.speaker_level < 1:
                raise ValueError(f"--speaker-level is {args.speaker_level}, and should be 1 or more")
            splits = folder(
                args.corpus,
                args.columns,
                args.speaker_folders,
                args.val,
                args.test,
                args.seed,
                args.layout,
                args.metadata,
                args.speaker_level,
                args.out / f"{prefix}_segments",
                counts,
            )
        if earlier:
            splits, speakers = with_speakers_of(earlier, splits, prefix)
        if args.clean:
            rate = args.sampling_rate or RATE_OF.get(args.kind)
            write_cleaned(splits, prefix, args.out, args.clean, speakers, counts, rate, words, start)
            return
        for path in write_filelists(splits, prefix, args.out):
            if Path(f"{path}.cleaned").exists():
                print(f"{path}.cleaned belongs to an earlier list: write it again with --clean or preprocess.py")


if __name__ == "__main__":
    main()
