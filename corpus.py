"""Check the recordings and texts of a voice for what would stop or spoil training.

Without -c, the text of filelists that do not end in .cleaned is cleaned here, as preprocess.py does.

Examples:
  python corpus.py filelists/my_audio_text_train_filelist.txt.cleaned
  python corpus.py -c configs/vits2_ljs_nosdp.json --cache corpus.json --report report.html
"""

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

import cli
import config
from audio import MAX_PEAK, OffScale, load_audio, read_header, resampled_frames
from config import data_setting as setting
from corpora.filelist import Clip, read_filelist
from corpora.report import Finding, Measured, format_of, write_report
from files import write_text
from text.tokens import cleaned, symbol_table, token_ids

SILENT = 1e-3  # peak (-60 dBFS) below which a recording counts as silent
QUIET = -35  # dBFS of the whole recording, below which it is reported
PAUSE = 0.5  # seconds of silence at either end, above which it is reported
PAUSE_DEPTH = 0.01  # windows 40 dB below the loudest one count as silence
WINDOW = 0.02  # seconds
OFFSET = 0.02  # mean of the samples, from which it is reported
FULL_SCALE = 32766 / 32768
CLIPPED = 10  # samples at full scale, from which a recording is reported
OUTLIER = 4  # robust standard deviations of log characters per second
MIN_PACES = 10  # recordings, below which a standard deviation says little
UNKNOWN_SHARE = 0.1  # of all symbols, above which the text was written for another symbol table
MAX_NAMED = 20  # speakers and errors listed in a message
MAX_WARNINGS = 5  # recordings listed for each warning
UNKNOWN_SIZE = 0x7FFFFFFF  # RIFF and AIFF sizes from here on come from pipes
OGG_TAIL = 1 << 16  # bytes, more than the largest Ogg page


def speaker_table(lists: Sequence[Sequence[Clip]], n_speakers: int) -> dict[str, int]:
    """Number the speakers of the training list, `lists[0]`, for this list and the other lists.

    Numbers keep their value. Names are sorted and numbered from 0. The table is empty if `n_speakers` is 0. Raises
    ValueError if numbers and names are mixed, an id is not below `n_speakers`, another list has a speaker that the
    training list lacks, or `n_speakers` does not fit the speaker column.
    """
    first_clips = [{clip.speaker: clip for clip in reversed(clips)} for clips in lists]
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
    for clip in clips:
        if not table.get(str(clip.speaker), data.n_speakers) < data.n_speakers:
            known = ", ".join(itertools.islice(table, MAX_NAMED))
            missing = f"speaker {clip.speaker!r} has no id below {data.n_speakers}"
            raise ValueError(f"{clip.where}: {missing}; data.speakers has {known}")
    return [table[str(clip.speaker)] for clip in clips]


@dataclass
class Report:
    """The result of a check. `errors` and `warnings` map a reason to the recordings concerned, the worst first."""

    clips: int
    seconds: float
    frames: list[int]  # of each clip's spectrogram; 0 if it cannot be read
    measured: list[Measured] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # the worst first
    symbols: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)  # symbols without an id
    errors: dict[str, list[str]] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.clips} recordings, {self.seconds / 60:.1f} minutes:"]
        for kind, reasons, most in (("error", self.errors, MAX_NAMED), ("warning", self.warnings, MAX_WARNINGS)):
            for reason, names in reasons.items():
                rest = f", and {len(names) - most} more" if len(names) > most else ""
                lines.append(f"{kind}: {reason} ({len(names)}): {', '.join(names[:most])}{rest}")
        return "\n".join(lines) if self.errors or self.warnings else f"{lines[0]} nothing to report"

    def stop_on_errors(self) -> None:
        """Raise ValueError if there are errors; the report names the recordings."""
        if self.errors:
            raise ValueError("repair the recordings that the errors above name, or remove them from the filelist")


class Sound(NamedTuple):
    """Measurements of a decoded recording; `problem` and `detail` say why it cannot be used, if so."""

    frames: int = 0  # samples
    rate: int = 0  # Hz
    level: float = 0.0  # dBFS
    leading: float = 0.0  # seconds of silence
    trailing: float = 0.0
    clipped: int = 0  # samples at full scale
    offset: float = 0.0  # mean of the samples
    digest: str = ""  # of the samples
    problem: str | None = None
    detail: str = ""


def check_corpus(
    clips: Sequence[Clip], data: Any, cache: str | Path | None = None, longest: int | None = None
) -> Report:
    """Decode every recording and read every text.

    Errors are recordings that are missing, empty, truncated, silent, constant, not finite, in the scale of integers or,
    without `data.resample`, at another sampling rate; texts that are empty, in a foreign alphabet, or have more tokens
    than spectrogram frames. Warnings are silence at the ends, unusual pace, clipping, an offset, a very low level, the
    same recording twice, clips that training leaves out, and symbols without an id.

    Args: `data` is the section of that name of a config; `cache` is a JSON file that keeps the measurements, so that
    unchanged recordings are not decoded again; `longest` is the last of `train.bucket_boundaries`, in frames.
    """
    sounds = _measured([clip.path for clip in clips], cache)
    findings: list[Finding] = []
    paces: list[tuple[Clip, float]] = []
    unknown: Counter[str] = Counter()
    measured: list[Measured] = []
    symbols: Counter[str] = Counter()
    frames = []
    for clip, sound in zip(clips, sounds):
        samples = 0 if sound.problem else resampled_frames(sound.frames, sound.rate, data.sampling_rate)
        frames.append(samples // data.hop_length)
        written = cleaned(clip.text, data)
        tokens = len(token_ids(written, data, warn=False))
        symbols.update(symbol_table(data).split(written))
        seconds = 0 if sound.problem else sound.frames / sound.rate
        measured.append(Measured(clip, seconds, tokens, sound.level, sound.leading, sound.trailing))
        unknown += symbol_table(data).unknown(written)
        findings += _findings(clip, sound, len(written), tokens, frames[-1], data)
        if longest is not None and frames[-1] > longest:
            left_out = f"more than {longest} frames, which training leaves out"
            findings.append(Finding(clip, "warnings", left_out, frames[-1], f"{frames[-1]} frames"))
        if written and not sound.problem:
            speech = sound.frames / sound.rate - sound.leading - sound.trailing
            paces.append((clip, len(written) / max(speech, WINDOW)))
    findings += [*_unusual(paces), *_repeated(clips, sounds)]
    findings.sort(key=lambda finding: -finding.severity)
    seconds = sum(sound.frames / sound.rate for sound in sounds if sound.rate)
    report = Report(len(clips), seconds, frames, measured, findings, symbols, unknown)
    for clip, kind, reason, _, detail in findings:
        getattr(report, kind).setdefault(reason, []).append(f"{clip.path}: {detail}" if detail else clip.path)
    if unknown:
        foreign = unknown.total() > UNKNOWN_SHARE * symbols.total()
        (report.errors if foreign else report.warnings)["symbols without an id, which are left out"] = [
            f"{symbol!r} (U+{ord(symbol):04X}) x {count}" for symbol, count in unknown.most_common()
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
    """Yield clips whose samples are those of an earlier clip."""
    first: dict[str, Clip] = {}
    for clip, sound in zip(clips, sounds):
        if sound.digest in first:
            earlier = first[sound.digest]
            same = " ".join(earlier.text.split()) == " ".join(clip.text.split())
            reason = "same recording and text as another clip" if same else "two texts for the same recording"
            yield Finding(clip, "warnings", reason, 0, f"the other is {earlier.path}")
        elif sound.digest:
            first[sound.digest] = clip


def measure(path: str) -> Sound:
    """Decode one recording and measure it at its own rate."""
    if not os.path.isfile(path):
        return Sound(problem="no such file")
    try:
        if os.path.getsize(path) == 0:
            return Sound(problem="empty file")
        frames, rate = read_header(path)
        missing = _cut_off(path)
        samples = load_audio(path, rate)
    except OffScale as error:
        return Sound(
            frames, rate, problem="float samples in the scale of integers", detail=str(error).removeprefix(f"{path}: ")
        )
    except ValueError as error:
        return Sound(problem="cannot be decoded", detail=str(error).removeprefix(f"{path}: "))
    if missing:
        return Sound(frames, rate, problem="truncated", detail=missing)
    if not len(samples):
        return Sound(frames, rate, problem="no samples")
    if not np.isfinite(samples).all():
        return Sound(frames, rate, problem="NaN or infinite samples")
    if np.abs(samples).max() < SILENT:
        return Sound(frames, rate, problem="silent")
    offset = float(samples.mean(dtype=np.float64))
    if np.abs(samples - offset).max() < SILENT:
        return Sound(frames, rate, problem="constant level", detail=f"mean {offset:.3f}")
    digest = hashlib.blake2b(samples.tobytes() + str(rate).encode(), digest_size=8).hexdigest()
    clipped = np.count_nonzero(np.abs(samples) >= FULL_SCALE)
    level = 10 * np.log10(np.mean(np.square(samples)))
    window = max(1, min(len(samples), round(WINDOW * rate)))
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    loudness = np.sqrt(np.mean(np.square(whole), axis=1))
    loud = np.flatnonzero(loudness > PAUSE_DEPTH * loudness.max())
    seconds = window / rate
    trailing = (len(loudness) - 1 - loud[-1]) * seconds
    leading = float(loud[0] * seconds)
    return Sound(frames, rate, float(level), leading, float(trailing), int(clipped), offset, digest)


def _cut_off(path: str) -> str:
    """Return what is missing at the end of a file that libsndfile reads without an error; empty if nothing is.

    RIFF and AIFF declare a size, and the last page of Ogg has a flag.
    """
    info = soundfile.info(path, verbose=True)
    short = re.search(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", info.extra_info, re.MULTILINE)
    if short and int(short[1]) < UNKNOWN_SIZE and int(short[1]) > int(short[2]):
        return f"{short[2]} of {short[1]} bytes"
    if info.format == "OGG":
        tail = Path(path).read_bytes()[-OGG_TAIL:]
        page = tail.rfind(b"OggS")
        if page < 0 or len(tail) < page + 6 or not tail[page + 5] & 4:
            return "the last Ogg page is missing"
    return ""


def _measured(paths: Sequence[str], cache: str | Path | None) -> list[Sound]:
    """Measure recordings, except those that the cache holds with the same size and modification time."""
    settings = [SILENT, PAUSE_DEPTH, WINDOW, FULL_SCALE, MAX_PEAK, *Sound._fields]
    kept: dict[str, list[Any]] = {}
    if cache and os.path.isfile(cache):
        with suppress(ValueError, KeyError, TypeError):  # not a cache of this program: replace it
            stored = json.loads(Path(cache).read_text("utf-8"))
            kept = stored["files"] if stored["settings"] == settings else {}
    keys: dict[str, list[int]] = {}
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)
            keys[path] = [status.st_size, status.st_mtime_ns]
    fresh = [path for path in dict.fromkeys(paths) if path not in keys or kept.get(path, [None])[0] != keys[path]]
    with ThreadPoolExecutor() as pool:
        done = tqdm(pool.map(measure, fresh), "checking recordings", len(fresh), disable=None, leave=False)
        sounds = dict(zip(fresh, done, strict=True))
    sounds |= {path: Sound(*kept[path][1]) for path in keys if path not in sounds}
    if cache and fresh:
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        files = {path: [keys[path], sound] for path, sound in sounds.items() if path in keys}
        write_text(cache, json.dumps({"settings": settings, "files": kept | files}))
    return [sounds[path] for path in paths]


def _check_speakers(lists: Sequence[Sequence[Clip]], data: Any) -> None:
    """Raise ValueError if speakers do not fit the config. Print a warning if it has other numbers than the lists."""
    for clips in lists if data.speakers else ():
        speaker_ids(clips, data)
    if not data.speakers:
        speaker_table(lists, data.n_speakers)
    trained = len({clip.speaker for clip in lists[0]})
    if data.n_speakers > trained:
        print(f"warning: data.n_speakers is {data.n_speakers}, and the training list has {trained} speakers")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report of a config's corpus or of filelists. The exit code is 2 if there are errors."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("filelists", nargs="*", help="files of lines path|text or path|speaker|text")
    add("-c", "--config", metavar="JSON", help="check the filelists of this config")
    add("--cache", metavar="JSON", help="file that keeps measurements")
    add("--report", metavar="FILE", help="also write a report, as .html with players or as .md")
    add("--sampling-rate", type=int, default=22050, metavar="HZ", help="rate of training in Hz, without -c")
    add("--hop-length", type=int, default=256, metavar="N", help="hop in samples, without -c")
    cleaners = "names of text/cleaners.py, without -c"
    add("--text-cleaners", nargs="+", default=["english_cleaners2"], metavar="CLEANER", help=cleaners)
    args = parser.parse_args(arguments)
    if bool(args.config) == bool(args.filelists):
        parser.error("give either -c CONFIG or filelists")
    for option, value in (("--sampling-rate", args.sampling_rate), ("--hop-length", args.hop_length)):
        if value < 1:
            parser.error(f"{option} is {value}, and should be 1 or more")
    reports = []
    with cli.errors_in_one_line("corpus"):
        if args.report:
            format_of(args.report)  # checked before recordings are read
        longest = config.TrainConfig().bucket_boundaries[-1]
        if args.config:
            settings_of_run = config.load(args.config)
            data, longest = settings_of_run.data, settings_of_run.train.bucket_boundaries[-1]
            lists = [read_filelist(path) for path in (data.training_files, data.validation_files)]
            _check_speakers(lists, data)
            reports.append(check_corpus([*itertools.chain(*lists)], data, args.cache, longest))
        for path in args.filelists:
            settings = SimpleNamespace(**vars(args), cleaned_text=path.endswith(".cleaned"), add_blank=False)
            reports.append(check_corpus(read_filelist(path), settings, args.cache, longest))
        print(*reports, sep="\n")
        if args.report:
            measured, findings = (
                [*itertools.chain(*lists)] for lists in zip(*((r.measured, r.findings) for r in reports))
            )
            symbols, unknown = Counter[str](), Counter[str]()
            for report in reports:
                symbols.update(report.symbols)
                unknown.update(report.unknown)
            write_report(args.report, measured, findings, symbols, unknown)
            print(f"{args.report} is written")
    raise SystemExit(2 if any(report.errors for report in reports) else 0)


if __name__ == "__main__":
    main()
