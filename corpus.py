"""Check the recordings and texts of a voice for what would stop or spoil training.

Without -c, the text of filelists that do not end in .cleaned is cleaned here, as preprocess.py does.

Examples:
  python corpus.py filelists/my_audio_text_train_filelist.txt.cleaned
  python corpus.py -c configs/vits2_ljs_nosdp.json --cache corpus.json --report report.html
  python corpus.py -c filelists/my_config.json --recognize --report report.html
  python corpus.py -c filelists/my_config.json --trim --loudness -23 --out my_trimmed
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import argparse
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

import config
from audio import resampled_frames
from conditions import MAX_NAMED
from config import data_setting as setting
from corpora import copies
from corpora.duplicates import near_duplicates
from corpora.filelist import Clip, Filelist, read_filelist, read_record, read_text
from corpora.parts import parse
from corpora.report import Finding, Measured, Report, format_of, write_report
from corpora.sounds import WINDOW, Sound, measured
from files import write_text
from text import cleaners as cleaners_module
from text.cleaners import get_cleaner, same_cleaners, unreadable
from text.espeak import EspeakError, UnknownLanguage
from text.tokens import cleaned, cleaners, symbol_table, token_counter

if TYPE_CHECKING:
    from evaluation.transcripts import Comparison

QUIET = -35  # dBFS of the whole recording, below which it is reported
PAUSE = 0.5  # seconds of silence at either end, above which it is reported
OFFSET = 0.02  # mean of the samples, from which it is reported
CLIPPED = 10  # samples at full scale, from which a recording is reported
OUTLIER = 4  # robust standard deviations of log characters per second
MIN_PACES = 10  # recordings, below which a standard deviation says little
UNKNOWN_SHARE = 0.1  # of all symbols, above which the text was written for another symbol table
MISMATCH = 0.3  # character error rate of recognized speech, from which a clip is reported


def speaker_table(lists: Sequence[Sequence[Clip]], n_speakers: int) -> dict[str, int]:
    """Number the speakers of the training list, `lists[0]`, for this list and the other lists.

    Numbers keep their value. Names are sorted and numbered from 0. The table is empty if `n_speakers` is 0. Raises
    ValueError if numbers and names are mixed, an id is not below `n_speakers`, another list has a speaker that the
    training list lacks, or `n_speakers` does not fit the speaker column.
    """
    first_clips = [
        clips.speakers if isinstance(clips, Filelist) else {clip.speaker: clip for clip in reversed(clips)}
        for clips in lists
    ]
    for clips in first_clips:
        if None in clips and n_speakers:
            missing = f"data.n_speakers is {n_speakers}, but {clips[None].path} has no speaker"
            raise ValueError(f"{missing}: the filelists need lines path|speaker|text")
        if not n_speakers and len(clips) > 1:
            raise ValueError(f"the filelist has {len(clips)} speakers: set data.n_speakers to their number")
    if not n_speakers:
        return {}
    training, *others = [{str(label): clip for label, clip in clips.items()} for clips in first_clips]
    numbers = {label for label in training if label.isdecimal()}
    names = sorted(set(training) - numbers)
    if numbers and names:
        mixed = f"speaker {names[0]!r} is a name, while {min(numbers)!r} is a number"
        raise ValueError(f"{training[names[0]].where}: {mixed}: use one kind of label")
    table = {label: int(label) for label in sorted(numbers, key=int)} or {name: i for i, name in enumerate(names)}
    label = max(table, key=table.__getitem__)
    if table[label] >= n_speakers:
        needed = f"data.n_speakers, now {n_speakers}, must be {table[label] + 1} or more"
        raise ValueError(f"{training[label].where}: speaker {label!r} has id {table[label]}: {needed}")
    for named in others:
        for label in sorted(set(named) - set(table)):
            raise ValueError(f"{named[label].where}: speaker {label!r} is not in the training list")
    return table


def speaker_ids(clips: Sequence[Clip], data: Any) -> list[int] | None:
    """Return the speaker id of each clip, or None for a single-speaker voice.

    The ids come from `data.speakers` or, if it is empty, from the labels, which must be numbers. Raises ValueError
    with line and file for a label that is unknown or not below `data.n_speakers`.
    """
    table = setting(data, "speakers") or speaker_table([clips], data.n_speakers)
    if not data.n_speakers:
        return None
    if not setting(data, "speakers") and not all(label.isdecimal() for label in table):
        unnumbered = f"speakers are names, such as {next(iter(table))!r}, and data.speakers is empty"
        raise ValueError(f"{unnumbered}: fill it with corpus.speaker_table of the training list")
    for clip in clips.speakers.values() if isinstance(clips, Filelist) else clips:
        if not table.get(str(clip.speaker), data.n_speakers) < data.n_speakers:
            known = ", ".join(itertools.islice(table, MAX_NAMED))
            missing = f"speaker {clip.speaker!r} has no id below {data.n_speakers}"
            raise ValueError(f"{clip.where}: {missing}; data.speakers has {known}")
    return [table[str(clip.speaker)] for clip in clips]


def check_records(data: Any) -> None:
    """Compare the lists of a config with the records beside them (see `corpora.filelist.ListRecord`).

    Raises ValueError if a list was cleaned with other cleaners than `data.text_cleaners` or with another dictionary
    than `data.dictionary`, if a cleaned list would be cleaned again, or if the list without `.cleaned` is named where
    that with it is needed. Lists without a record pass.
    """
    for key in ("training_files", "validation_files"):
        path = getattr(data, key)
        if record := read_record(path):
            names = cleaners(data)  # with that of data.normalize
            made_with, named = ", ".join(record.text_cleaners), ", ".join(names)
            if not data.cleaned_text:
                raise ValueError(f"{path} is cleaned already (with {made_with}): set data.cleaned_text to true")
            if not same_cleaners(record.text_cleaners, names):
                fix = f"set data.text_cleaners to {json.dumps(list(record.text_cleaners))}"
                key = "data.text_cleaners"
                if setting(data, "normalize"):
                    fix, key = f"{fix} and data.normalize to false", f"{key} with data.normalize"
                raise ValueError(
                    f"{path} was cleaned with {made_with}, and {key} is {named}, with which the voice would speak: "
                    f"{fix}, or clean the list again"
                )
            words = setting(data, "dictionary")
            if record.dictionary is not None and record.dictionary != words:
                changed = sorted(word for word, _ in record.dictionary.items() ^ words.items())
                named = ", ".join(map(repr, itertools.islice(dict.fromkeys(changed), MAX_NAMED)))
                raise ValueError(
                    f"{path} was cleaned with another dictionary than data.dictionary, with which the voice would "
                    f"speak (different words: {named}): clean the list again with --dictionary, or set "
                    f"data.dictionary to that in {path}.json"
                )
        elif data.cleaned_text and read_record(f"{path}.cleaned"):
            raise ValueError(f"{path} is not cleaned, and data.cleaned_text is true: set data.{key} to {path}.cleaned")


def check_config(settings: config.Config, cache: str | Path | None = None) -> Report:
    """Check the lists of a config, and everything in them as `check_corpus`.

    Raises ValueError if the lists or their records do not fit the config.
    """
    data = settings.data
    check_records(data)
    paths = (data.training_files, data.validation_files)
    lists = [read_filelist(path) for path in paths]
    unused_speakers = _unused_speakers(lists, data)
    report = check_lists(lists, data, cache, settings.train.bucket_boundaries[-1])
    report.warnings |= unused_speakers
    for path in paths:
        record = read_record(path)
        if record and record.sampling_rate and record.sampling_rate < data.sampling_rate:
            above = f"data.sampling_rate is {data.sampling_rate}, and most recordings have a lower rate"
            report.warnings.setdefault(above, []).append(f"{path}: {record.sampling_rate} Hz")
        report.left_out |= record.left_out if record else {}
    for name in data.text_cleaners:
        try:
            get_cleaner(name)("a")
        except UnknownLanguage as error:
            raise ValueError(f"data.text_cleaners: {error}") from None
        except EspeakError:  # not installed: training on cleaned lists needs none
            continue
        except ValueError as error:  # cleaned filelists train without the cleaner, as those of other VITS code do
            report.warnings["the voice will accept phonemes, but no text"] = [f"data.text_cleaners: {error}"]
    return report


def check_lists(
    lists: Sequence[Sequence[Clip]], data: Any, cache: str | Path | None = None, longest: int | None = None
) -> Report:
    """Check the clips of several lists together, as `check_corpus`, and warn of recordings in more than one of them."""
    report = check_corpus([*itertools.chain(*lists)], data, cache, longest)
    earlier: set[str] = set()
    for clips in lists:
        repeated = "in two filelists, so that validation is too optimistic"
        report.add([Finding(clip, "warnings", repeated, 0) for clip in clips if clip.path in earlier])
        earlier |= {clip.path for clip in clips}
    return report


def check_corpus(
    clips: Sequence[Clip], data: Any, cache: str | Path | None = None, longest: int | None = None
) -> Report:
    """Decode every recording and read every text.

    Errors are recordings that are missing, empty, truncated, silent, constant, not finite, in the scale of integers or,
    without `data.resample`, at another sampling rate; texts that are empty, in a foreign alphabet, or have more tokens
    than spectrogram frames. Warnings are silence at the ends, unusual pace, clipping, an offset, a very low level, the
    same recording or the same speech twice, clips that training leaves out, and symbols without an id.

    Args: `data` is the section of that name of a config; `cache` is a JSON file that keeps the measurements, so that
    unchanged recordings are not decoded again; `longest` is the last of `train.bucket_boundaries`, in frames.
    """
    report = Report()
    sounds = measured([clip.path for clip in clips], cache)
    findings: list[Finding] = []
    paces: list[tuple[Clip, float]] = []
    table, count = symbol_table(data), token_counter(data)
    for clip, sound in zip(clips, sounds):
        samples = 0 if sound.problem else resampled_frames(sound.frames, sound.rate, data.sampling_rate)
        frames = samples // data.hop_length
        written = cleaned(clip.text, data)
        tokens, unknown = count(written)
        seconds = 0 if sound.problem else sound.frames / sound.rate
        report.frames.append(frames)
        report.measured.append(Measured(clip, seconds, tokens, sound.level, sound.leading, sound.trailing))
        report.symbols.update(table.split(written))
        report.unknown.update(unknown)
        if not data.cleaned_text and (words := unreadable(clip.text, cleaners(data))):
            spelled = "words in a script that the cleaner spells letter by letter"
            findings.append(Finding(clip, "warnings", spelled, len(words), ", ".join(map(repr, words))))
        findings += _findings(clip, sound, len(written), tokens, frames, data)
        if longest is not None and frames > longest:
            left_out = f"more than {longest} frames, which training leaves out"
            findings.append(Finding(clip, "warnings", left_out, frames, f"{frames} frames"))
        if written and not sound.problem:
            paces.append((clip, len(written) / max(seconds - sound.leading - sound.trailing, WINDOW)))
    report.add([*findings, *_unusual(paces), *_repeated(clips, sounds)])
    texts = Counter({clip.path: clip.text for clip in clips}.values())
    if texts.total() >= MIN_PACES and 2 * len(texts) <= texts.total():
        report.warnings["few different texts, so that this may be another column"] = [
            f"{text!r} x {count}" for text, count in texts.most_common()
        ]
    content = [(Path(clip.path).name, clip.speaker, clip.text, sound.digest) for clip, sound in zip(clips, sounds)]
    report.checksum = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    if report.unknown:
        foreign = report.unknown.total() > UNKNOWN_SHARE * report.symbols.total()
        (report.errors if foreign else report.warnings)["symbols without an id, which are left out"] = [
            f"{symbol!r} (U+{ord(symbol):04X}) x {count}" for symbol, count in report.unknown.most_common()
        ]
    return report


def _findings(clip: Clip, sound: Sound, symbols: int, tokens: int, frames: int, data: Any) -> Iterator[Finding]:
    if not symbols:
        yield Finding(clip, "errors", "no text", 0)
    elif not (shortest := setting(data, "min_text_len")) <= symbols <= (most := setting(data, "max_text_len")):
        left_out = f"text not of {shortest} to {most} symbols, which training leaves out"
        yield Finding(clip, "warnings", left_out, symbols, f"{symbols} symbols")
    if sound.problem:
        yield Finding(clip, "errors", sound.problem, 0, sound.detail)
        return
    if sound.rate != data.sampling_rate and not setting(data, "resample"):
        detail = f"{sound.rate} Hz instead of {data.sampling_rate} Hz"
        yield Finding(clip, "errors", "other sampling rate, with data.resample false", 0, detail)
    if tokens > frames:
        detail = f"{tokens} tokens, {frames} frames"
        yield Finding(clip, "errors", "more tokens than frames", tokens - frames, detail)
    for end, pause in (("leading", sound.leading), ("trailing", sound.trailing)):
        if pause > PAUSE:
            yield Finding(clip, "warnings", f"{end} silence above {PAUSE} s", pause, f"{pause:.2f} s")
    if sound.clipped >= CLIPPED:
        yield Finding(clip, "warnings", "clipping", sound.clipped, f"{sound.clipped} samples at full scale")
    if sound.level < QUIET:
        yield Finding(clip, "warnings", f"level below {QUIET} dBFS", -sound.level, f"{sound.level:.0f} dBFS")
    if abs(sound.offset) > OFFSET:
        yield Finding(clip, "warnings", f"offset above {OFFSET}", abs(sound.offset), f"mean {sound.offset:.3f}")


def _unusual(paces: Sequence[tuple[Clip, float]]) -> Iterator[Finding]:
    """Yield clips whose characters per second are far from the median, often because the text is of another clip."""
    if len(paces) < MIN_PACES:
        return
    logs = np.log([pace for _, pace in paces])
    spread = max(1.4826 * np.median(np.abs(logs - np.median(logs))), 0.05)
    for (clip, pace), deviation in zip(paces, np.abs(logs - np.median(logs)) / spread):
        if deviation > OUTLIER:
            yield Finding(clip, "warnings", "unusual characters per second", float(deviation), f"{pace:.1f} per second")


def _repeated(clips: Sequence[Clip], sounds: Sequence[Sound]) -> Iterator[Finding]:
    """Yield clips whose samples are those of an earlier clip, and clips with nearly the same speech."""
    first: dict[str, Clip] = {}
    for clip, sound in zip(clips, sounds):
        if sound.digest in first:
            earlier = first[sound.digest]
            if clip[:3] == earlier[:3]:
                continue  # the same line, as `make_filelists.py merge --repeat` writes it
            reason = "same recording and text as another clip"
            reason = reason if _same_text(clip, earlier) else "two texts for the same recording"
            yield Finding(clip, "warnings", reason, 0, f"the other is {earlier.path}")
        elif sound.digest:
            first[sound.digest] = clip
    for i, j, contained in near_duplicates([sound.words for sound in sounds]):
        earlier, clip = clips[i], clips[j]
        if sounds[i].digest != sounds[j].digest:
            if contained:
                reason = "speech that another clip contains, or the reverse"
            elif _same_text(clip, earlier):
                reason = "same speech and text as another clip, in another encoding, level or cut"
            else:
                reason = "two texts for the same speech"
            yield Finding(clip, "warnings", reason, 0, f"the other is {earlier.path}")


def _same_text(clip: Clip, other: Clip) -> bool:
    return clip.text.split() == other.text.split()


def _unused_speakers(lists: Sequence[Sequence[Clip]], data: Any) -> dict[str, list[str]]:
    """Return a warning, with the speakers that were found, if the config has more of them than the training list.

    Raises ValueError if speakers do not fit the config.
    """
    for clips in lists if data.speakers else ():
        speaker_ids(clips, data)
    if not data.speakers:
        speaker_table(lists, data.n_speakers)
    trained = sorted({str(clip.speaker) for clip in lists[0]})
    count = f"{len(trained)} speaker{'s' * (len(trained) != 1)}"
    unused = f"data.n_speakers is {data.n_speakers}, and the training list has {count}"
    return {unused: trained} if data.n_speakers > len(trained) else {}


def recognize(report: Report, comparison: "Comparison", cache: str | None) -> None:
    """Add what the recognizer heard in recordings without errors to a report, with warnings for large differences."""
    faulty = _with_errors(report)
    clips = [each.clip for each in report.measured if each.clip.path not in faulty]
    report.heard = comparison.rank(clips, Path(cache).with_suffix(".heard.json") if cache else None)
    reason = f"recognized speech differs from the text by {MISMATCH:.0%} or more"
    differing = [heard for heard in report.heard if heard.cer >= MISMATCH]
    report.add([Finding(clip, "warnings", reason, cer, f"{cer:.2f}, heard: {said}") for clip, said, cer in differing])


def copy(report: Report, paths: Sequence[str], settings: str | None, out: Path, changes: copies.Changes) -> None:
    """Write copies of the recordings without errors, and lists and, if `settings` is a config, one that names them."""
    faulty = _with_errors(report)
    lists = {
        path: [clip for clip in clips if clip.path not in faulty] for path, clips in _with_plain_lists(paths).items()
    }
    if empty := [path for path, clips in lists.items() if not clips]:
        raise ValueError(f"{empty[0]}: no recording is without errors")
    written = copies.write_copies(lists, out, changes)
    print(*(f"{path}: {len(clips)} clips" for path, clips in zip(written.values(), lists.values())), sep="\n")
    if faulty:
        print(f"{len(faulty)} recordings with errors are in no list")
    if settings:
        sections = json.loads(read_text(settings))
        sections.pop("$schema", None)
        sections["data"] |= dict(zip(("training_files", "validation_files"), (written[path] for path in paths)))
        config_of_copies = out / Path(settings).name
        write_text(config_of_copies, json.dumps(sections, indent=2, ensure_ascii=False) + "\n")
        print(f"{config_of_copies}: config with these lists")


def _with_plain_lists(paths: Sequence[str]) -> dict[str, list[Clip]]:
    """Read lists and, beside cleaned ones, those before cleaning, by path."""
    plain = [path.removesuffix(".cleaned") for path in paths]
    return {path: read_filelist(path) for path in dict.fromkeys([*paths, *filter(os.path.isfile, plain)])}


def _with_errors(report: Report) -> set[str]:
    return {finding.clip.path for finding in report.findings if finding.kind == "errors"}


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("filelists", nargs="*", help="files of lines path|text or path|speaker|text")
    add("-c", "--config", metavar="JSON", help="check the filelists of this config")
    add("--cache", metavar="JSON", help="file that keeps measurements")
    add(
        "--shard",
        type=parse,
        metavar="I/N",
        help="only measure part I of N, into a part of --cache (default: check all)",
    )
    add("--report", metavar="FILE", help="also write a report, as .html with players or as .md")
    add("--sampling-rate", type=int, default=22050, metavar="HZ", help="rate of training in Hz, without -c")
    add("--hop-length", type=int, default=256, metavar="N", help="hop in samples, without -c")
    cleaners = "names of text/cleaners.py, without -c"
    add("--text-cleaners", nargs="+", default=["english_cleaners2"], metavar="CLEANER", help=cleaners)
    recognizer = "rank clips by the difference between text and recognized speech (needs make evaluate-setup)"
    add("--recognize", action="store_true", help=recognizer)
    add("--whisper", metavar="FOLDER", help="another Whisper model in CTranslate2's format (default: tiny.en)")
    add(
        "--language",
        metavar="CODE",
        help="language of the speech, for --whisper (default: of phonemes_LANGUAGE, or en)",
    )
    add("--out", type=Path, metavar="FOLDER", help="write copies of the recordings, and lists of them, to this folder")
    add("--trim", action="store_true", help=f"of copies: leave {copies.MARGIN} s of silence at each end")
    loudness = "of copies: integrated loudness (ITU-R BS.1770), with peaks of at most -1 dBFS; speech often has -23"
    add("--loudness", type=float, metavar="LUFS", help=loudness)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report of a config's corpus or of filelists. The exit code is 2 if there are errors."""
    parser = _parser()
    args = parser.parse_args(arguments)
    _check_options(parser, args)
    report = Report()
    with cli.errors_in_one_line("corpus"):
        settings = config.load(args.config) if args.config else None
        lists, names = args.filelists, args.text_cleaners
        if settings:
            lists, names = [settings.data.training_files, settings.data.validation_files], settings.data.text_cleaners
        # everything that may be refused comes before recordings are read
        changes = copies.Changes(args.trim, args.loudness)
        if args.report:
            format_of(args.report)
        if args.out:
            copies.check_folder(_with_plain_lists(lists), args.out, changes)
        if args.recognize:
            from evaluation.transcripts import Comparison

            comparison = Comparison(lists, args.whisper, args.language or language_of(names))
        if args.shard:
            clips = [clip for path in lists for clip in read_filelist(path)]
            paths = [clip.path for clip in clips[args.shard.of(len(clips))]]
            measured(paths, args.shard.file(args.cache))
            print(f"{len(paths)} recordings are measured: {args.shard.file(args.cache)}")
            return
        if settings:
            report = check_config(settings, args.cache)
        for cleaned_text in (True, False):
            paths = [path for path in args.filelists if path.endswith(".cleaned") == cleaned_text]
            data = SimpleNamespace(**vars(args), cleaned_text=cleaned_text, add_blank=False)
            if paths:
                longest = config.TrainConfig().bucket_boundaries[-1]
                report.extend(check_lists([read_filelist(path) for path in paths], data, args.cache, longest))
        if args.recognize:
            recognize(report, comparison, args.cache)
        print(report)
        if args.report:
            write_report(args.report, report)
            print(f"{args.report} is written")
        if args.out:
            copy(report, lists, args.config, args.out, changes)
            raise SystemExit(0)  # the lists of the copies have no clip with errors
    raise SystemExit(2 if report.errors else 0)


def language_of(cleaner_names: Sequence[str]) -> str:
    """Return the language code of the cleaners without its region, or en if they serve any language."""
    return cleaners_module.language_of(cleaner_names).partition("-")[0] or "en"


def _check_options(parser: cli.Parser, args: argparse.Namespace) -> None:
    if bool(args.config) == bool(args.filelists):
        parser.error("give either -c CONFIG or filelists")
    for option, value in (("--sampling-rate", args.sampling_rate), ("--hop-length", args.hop_length)):
        if value < 1:
            parser.error(f"{option} is {value}, and should be 1 or more")
    if args.shard and not args.cache:
        parser.error("--shard needs --cache, which keeps the measurements for the check of all parts")
    if bool(args.out) != (args.trim or args.loudness is not None):
        parser.error("--out needs --trim, --loudness or both, and these need --out")
    if (args.whisper or args.language) and not args.recognize:
        parser.error("--whisper and --language have no effect without --recognize")


if __name__ == "__main__":
    main()
