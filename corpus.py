"""A voice's recordings and texts: reading filelists, numbering speakers, and finding what would spoil training.

python corpus.py -c CONFIG       check the training and validation files of a config
python corpus.py FILELIST ...    check filelists by themselves (.cleaned: phonemes; others are cleaned here)
"""

import argparse
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm import tqdm

from audio import load_audio, read_header, resampled_frames
from commons import intersperse
from files import write_text
from text import clean_text, cleaned_text_to_sequence, unknown_symbols

# Settings that configs of VITS and VITS2 do not hold.
DEFAULTS = {
    "use_mel_posterior_encoder": False,
    "min_text_len": 1,
    "max_text_len": 190,
    "resample": True,
    "speakers": {},
    "extra_symbols": "",
}

SILENT = 1e-3  # a recording that never exceeds -60 dBFS holds no speech
QUIET = -35  # dBFS over the whole recording, below which one is reported
PAUSE = 0.5  # seconds of silence at either end, above which they are reported
PAUSE_DEPTH = 0.01  # silence is 40 dB below the loudest window
WINDOW = 0.02  # seconds
FULL_SCALE = 32766 / 32768
CLIPPED = 10  # samples at full scale, from which a recording is reported
OUTLIER = 4  # robust standard deviations of log characters per second
UNKNOWN_SHARE = 0.1  # of all symbols, above which the text cannot be meant for this symbol table


class Clip(NamedTuple):
    """One line of a filelist; `speaker` is None where the list has no such column, `line` counts from 1."""

    path: str
    speaker: str | None
    text: str
    line: int


def setting(data, name: str):
    """An attribute of a config's data section, or its default where an older config lacks it."""
    return getattr(data, name, DEFAULTS[name])


def read_filelist(path: str | Path) -> list[Clip]:
    """Read lines `path|text` or `path|speaker|text`, one kind in a file.

    UTF-8, with or without byte-order mark; any line ends; blank lines and spaces around columns do not count.
    A recording that is not found from the working directory is looked for beside the filelist.
    Raises ValueError with file and line for another number of columns, a `|` in a text, or an empty path.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            numbered = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    except OSError as error:
        raise ValueError(f"cannot read the filelist {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): convert it") from None
    if not numbered:
        raise ValueError(f"{path}: the filelist has no lines")
    rows = [(number, [column.strip() for column in line.split("|")]) for number, line in numbered]
    width = Counter(len(columns) for _, columns in rows).most_common(1)[0][0]
    clips = []
    for number, columns in rows:
        where = f"{path}, line {number}"
        if len(columns) not in (2, 3):
            raise ValueError(
                f"{where}: {len(columns)} columns; expected path|text or path|speaker|text, no | in the text"
            )
        if len(columns) != width:
            raise ValueError(
                f"{where}: {len(columns)} columns where most lines have {width}; a text must not contain |"
            )
        if not columns[0]:
            raise ValueError(f"{where}: the path is empty")
        speaker = columns[1] if width == 3 else None
        clips.append(Clip(_found(columns[0], path), speaker, columns[-1], number))
    return clips


def speaker_table(lists: Sequence[Sequence[Clip]], n_speakers: int) -> dict[str, int]:
    """Number the speakers of the training list, `lists[0]`, for it and the lists beside it.

    Whole numbers keep their value; names are sorted and numbered from 0. With `n_speakers` 0 the table is empty.
    Raises ValueError if numbers and names are mixed, if an id does not lie below `n_speakers`, if a later list
    has a speaker whom the training list lacks, and if `n_speakers` and the column do not fit together.
    """
    training, *others = [{clip.speaker: clip for clip in reversed(clips)} for clips in lists]
    for clips in (training, *others):
        if None in clips and n_speakers:
            raise ValueError(
                f"data.n_speakers is {n_speakers}, but {clips[None].path} has no speaker: "
                "the filelists need lines path|speaker|text"
            )
        if not n_speakers and len(clips) > 1:
            raise ValueError(f"the filelist has {len(clips)} speakers: set data.n_speakers to their number")
    if not n_speakers:
        return {}
    numbers = {label for label in training if label.isdecimal()}
    names = sorted(set(training) - numbers)
    if numbers and names:
        clip = training[names[0]]
        raise ValueError(
            f"line {clip.line} ({clip.path}): speaker {names[0]!r} is a name, while {min(numbers)!r} is a number: "
            "use one kind of label"
        )
    table = {label: int(label) for label in sorted(numbers, key=int)} or {n: i for i, n in enumerate(names)}
    if max(table.values()) >= n_speakers:
        label = max(table, key=table.get)
        raise ValueError(
            f"line {training[label].line} ({training[label].path}): speaker {label!r} has id {table[label]}: "
            f"data.n_speakers, now {n_speakers}, must be {table[label] + 1} or more"
        )
    for clips in others:
        for label in sorted(set(clips) - set(table)):
            clip = clips[label]
            raise ValueError(f"line {clip.line} ({clip.path}): speaker {label!r} is not in the training list")
    return table


def speaker_ids(clips: Sequence[Clip], data) -> list[int] | None:
    """The id of each clip's speaker by `data.speakers`, or by itself if that is empty; None for one voice.

    Raises ValueError naming line and file for a label that is unknown or not below `data.n_speakers`.
    """
    table = setting(data, "speakers") or speaker_table([clips], data.n_speakers)
    if not data.n_speakers:
        return None
    if not setting(data, "speakers") and not all(label.isdecimal() for label in table):
        raise ValueError(
            f"speakers are names, such as {next(iter(table))!r}, and data.speakers is empty: "
            "fill it with corpus.speaker_table of the training list"
        )
    for clip in clips:
        if not table.get(clip.speaker, data.n_speakers) < data.n_speakers:
            raise ValueError(
                f"line {clip.line} ({clip.path}): speaker {clip.speaker!r} has no id below {data.n_speakers}; "
                f"data.speakers knows {', '.join(itertools.islice(table, 20))}"
            )
    return [table[clip.speaker] for clip in clips]


def cleaned(text: str, data) -> str:
    """The symbols of a clip's text: the text itself from a cleaned filelist, else what the cleaners make of it."""
    return text if data.cleaned_text else clean_text(text, data.text_cleaners)


def token_ids(symbols: str, data, warn: bool = True) -> list[int]:
    """What the network reads for the symbols that `cleaned` returns: their ids, with blanks between if `add_blank`.

    Symbols without an id are left out, with a warning if `warn`.
    """
    ids = cleaned_text_to_sequence(symbols, setting(data, "extra_symbols"), warn)
    return intersperse(ids, 0) if data.add_blank else ids


@dataclass
class Report:
    """What a check found: names and details by reason, the worst first, and what each clip measures."""

    clips: int
    seconds: float
    frames: list[int]  # of each clip's spectrogram; 0 where it cannot be read
    errors: dict[str, list[str]] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        found = [_summary("error", reason, names, 20) for reason, names in self.errors.items()]
        found += [_summary("warning", reason, names, 5) for reason, names in self.warnings.items()]
        size = f"{self.clips} recordings, {self.seconds / 60:.1f} minutes"
        return "\n".join([f"{size}: {'nothing to report' if not found else ''}".rstrip(), *found])

    def stop_on_errors(self) -> None:
        """Raise SystemExit if there are errors; the report itself says which."""
        if self.errors:
            raise SystemExit("Repair the recordings that the errors name, or take them out of the filelist.")


class Sound(NamedTuple):
    """What decoding told about a recording; `problem` and `detail` say why it cannot be used, if so."""

    frames: int = 0
    rate: int = 0
    level: float = 0.0  # dBFS
    leading: float = 0.0  # seconds of silence
    trailing: float = 0.0
    clipped: int = 0  # samples at full scale
    problem: str | None = None
    detail: str = ""


def check_corpus(clips: Sequence[Clip], data, cache: str | Path | None = None) -> Report:
    """Decode every recording and read every text before training does.

    Errors are what would stop or spoil training: recordings that are missing, empty, truncated, silent, not
    finite or, without `data.resample`, at another rate; texts that are empty, in a foreign alphabet, or with more
    tokens than spectrogram frames. Warnings are silence at the ends, unusual pace, clipping, a very low level,
    and symbols without an id. `data` is the config's section of that name; `cache` names a JSON file that keeps
    what was measured, so that unchanged recordings are not decoded again.
    """
    sounds = _measured([clip.path for clip in clips], cache)
    frames = [
        0 if sound.problem else resampled_frames(sound.frames, sound.rate, data.sampling_rate) // data.hop_length
        for sound in sounds
    ]
    findings, paces, unknown, symbols = [], [], Counter(), 0
    for clip, sound, length in zip(clips, sounds, frames):
        written = cleaned(clip.text, data)
        tokens = len(token_ids(written, data, warn=False))
        symbols += len(written)
        unknown += unknown_symbols(written, setting(data, "extra_symbols"))
        findings += ((clip, *finding) for finding in _findings(sound, len(written), tokens, length, data))
        if written and not sound.problem:
            speech = sound.frames / sound.rate - sound.leading - sound.trailing
            paces.append((clip, len(written) / max(speech, WINDOW)))
    findings += _unusual(paces)

    report = Report(len(clips), sum(sound.frames / sound.rate for sound in sounds if sound.rate), frames)
    for clip, kind, reason, _, detail in sorted(findings, key=lambda finding: -finding[3]):
        name = f"{clip.path}: {detail}" if detail else clip.path
        getattr(report, kind).setdefault(reason, []).append(name)
    if unknown:
        foreign = unknown.total() > UNKNOWN_SHARE * symbols
        (report.errors if foreign else report.warnings)["symbols without an id, which are left out"] = [
            f"{symbol!r} (U+{ord(symbol):04X}) x {count}" for symbol, count in unknown.most_common()
        ]
    return report


def _findings(sound: Sound, symbols: int, tokens: int, frames: int, data) -> Iterable[tuple]:
    """What is wrong or odd about one clip: field of the report, reason, severity, detail."""
    if not symbols:
        yield "errors", "no text", 0, ""
    if sound.problem:
        yield "errors", sound.problem, 0, sound.detail
        return
    if sound.rate != data.sampling_rate and not setting(data, "resample"):
        detail = f"{sound.rate} Hz instead of {data.sampling_rate} Hz"
        yield "errors", "other sampling rate, with data.resample false", 0, detail
    if tokens > frames:
        yield "errors", "more tokens than frames", tokens - frames, f"{tokens} tokens, {frames} frames"
    for end, pause in (("leading", sound.leading), ("trailing", sound.trailing)):
        if pause > PAUSE:
            yield "warnings", f"{end} silence above {PAUSE} s", pause, f"{pause:.2f} s"
    if sound.clipped >= CLIPPED:
        yield "warnings", "clipping", sound.clipped, f"{sound.clipped} samples at full scale"
    if sound.level < QUIET:
        yield "warnings", f"level below {QUIET} dBFS", -sound.level, f"{sound.level:.0f} dBFS"


def _unusual(paces: list[tuple[Clip, float]]) -> Iterable[tuple]:
    """Findings about clips whose characters per second lie far from the median: often another clip's text."""
    if len(paces) < 10:
        return
    logs = np.log([pace for _, pace in paces])
    spread = max(1.4826 * np.median(np.abs(logs - np.median(logs))), 0.05)
    for (clip, pace), deviation in zip(paces, np.abs(logs - np.median(logs)) / spread):
        if deviation > OUTLIER:
            yield clip, "warnings", "unusual characters per second", deviation, f"{pace:.1f} per second"


def measure(path: str) -> Sound:
    """Decode one recording and measure it at its own rate."""
    if not os.path.isfile(path):
        return Sound(problem="no such file")
    try:
        if os.path.getsize(path) == 0:
            return Sound(problem="empty file")
        header = read_header(path)
        missing = _cut_off(path)
        samples = load_audio(path, header.rate)
    except ValueError as error:
        return Sound(problem="cannot be decoded", detail=str(error).removeprefix(f"{path}: "))
    if missing:
        return Sound(*header, problem="truncated", detail=missing)
    if not len(samples):
        return Sound(*header, problem="no samples")
    if not np.isfinite(samples).all():
        return Sound(*header, problem="NaN or infinite samples")
    if np.abs(samples).max() < SILENT:
        return Sound(*header, problem="silent")
    clipped = np.count_nonzero(np.abs(samples) >= FULL_SCALE)
    level = 10 * np.log10(np.mean(np.square(samples)))
    window = max(1, min(len(samples), round(WINDOW * header.rate)))
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    loudness = np.sqrt(np.mean(np.square(whole), axis=1))
    loud = np.flatnonzero(loudness > PAUSE_DEPTH * loudness.max())
    seconds = window / header.rate
    trailing = (len(loudness) - 1 - loud[-1]) * seconds
    return Sound(*header, float(level), float(loud[0] * seconds), float(trailing), int(clipped))


def _found(recording: str, filelist: str | Path) -> str:
    beside = Path(filelist).parent / recording
    return str(beside) if not os.path.exists(recording) and beside.exists() else recording


def _summary(kind: str, reason: str, names: list[str], most: int) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return f"{kind}: {reason} ({len(names)}): {', '.join(names[:most])}{rest}"


def _cut_off(path: str) -> str:
    """How a file that libsndfile reads without complaint shows that its end is missing; empty if it is whole.

    RIFF and AIFF declare a size (of which 0xFFFFFFFF means a pipe); the last page of Ogg carries a flag.
    """
    info = soundfile.info(path, verbose=True)
    short = re.search(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", info.extra_info, re.MULTILINE)
    if short and int(short[1]) < 0x7FFFFFFF and int(short[1]) > int(short[2]):
        return f"{short[2]} of {short[1]} bytes"
    if info.format == "OGG":
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - (1 << 16)))  # a page is smaller than this
            tail = file.read()
        page = tail.rfind(b"OggS")
        if page < 0 or len(tail) < page + 6 or not tail[page + 5] & 4:
            return "the last Ogg page is missing"
    return ""


def _measured(paths: Sequence[str], cache: str | Path | None) -> list[Sound]:
    """`measure` each path, or take what `cache` keeps for the same path, size and time of change."""
    settings = [SILENT, PAUSE_DEPTH, WINDOW, FULL_SCALE, *Sound._fields]
    kept = {}
    if cache and os.path.isfile(cache):
        try:
            stored = json.loads(Path(cache).read_text("utf-8"))
            kept = stored["files"] if stored["settings"] == settings else {}
        except (ValueError, KeyError, TypeError):
            kept = {}  # what is not this program's cache is measured anew and replaced
    keys = {path: _key(path) for path in paths}
    fresh = [path for path, key in keys.items() if key is None or kept.get(path, [None])[0] != key]
    with ThreadPoolExecutor() as pool:
        done = tqdm(pool.map(measure, fresh), "checking recordings", len(fresh), disable=None, leave=False)
        sounds = dict(zip(fresh, done, strict=True))
    sounds |= {path: Sound(*kept[path][1]) for path in keys if path not in sounds}
    if cache and fresh:
        Path(cache).parent.mkdir(parents=True, exist_ok=True)
        files = {path: [keys[path], sound] for path, sound in sounds.items() if keys[path]}
        write_text(cache, json.dumps({"settings": settings, "files": kept | files}))
    return [sounds[path] for path in paths]


def _key(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report of a config's corpus or of filelists; the exit status is 1 if there are errors."""
    parser = argparse.ArgumentParser(description="Check the recordings and texts of a corpus before training.")
    parser.add_argument("filelists", nargs="*", help="path|text or path|speaker|text, one clip a line")
    parser.add_argument("-c", "--config", help="check the filelists of this config, by its settings")
    parser.add_argument("--cache", help="JSON file that keeps what was measured")
    parser.add_argument("--sampling_rate", type=int, default=22050, help="of training, without a config")
    parser.add_argument("--hop_length", type=int, default=256)
    parser.add_argument("--text_cleaners", nargs="+", default=["english_cleaners2"])
    args = parser.parse_args(arguments)
    if bool(args.config) == bool(args.filelists):
        parser.error("give either -c CONFIG or filelists")
    try:
        if args.config:
            import config

            data = config.load(args.config).data
            lists = [read_filelist(path) for path in (data.training_files, data.validation_files)]
            speaker_table(lists, data.n_speakers)
            reports = [check_corpus([*itertools.chain(*lists)], data, args.cache)]
        else:
            reports = []
            for path in args.filelists:
                clean = str(path).endswith(".cleaned")
                data = SimpleNamespace(**vars(args), cleaned_text=clean, add_blank=False)
                reports.append(check_corpus(read_filelist(path), data, args.cache))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(*reports, sep="\n")
    raise SystemExit(1 if any(report.errors for report in reports) else 0)


if __name__ == "__main__":
    main()
