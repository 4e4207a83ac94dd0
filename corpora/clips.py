"""From the entries of a layout to clips: recordings are looked up, segments are cut, unusable entries are reported."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from audio import read_header, save_audio
from corpora.filelist import Clip
from corpora.layouts import Layout
from corpora.recordings import Files

MAX_NAMED = 5  # clips listed in a message
MAX_SPEAKERS = 20  # speakers listed in a message
MAX_HEADERS = 1000  # recordings whose rates are read
PARTS = {"train", "dev", "test", "val", "valid", "validation", "eval"}  # folders that are no speakers
# Folders that hold the recordings of one speaker and are not named after the speaker.
AUDIO_FOLDERS = {"wav", "wavs", "wave", "audio", "audios", "clips", "flac", "ogg", "mp3", "opus", "recordings", "sound"}


def clips_of(layout: Layout, segments: Path, counts: Counter[str]) -> list[Clip]:
    """Return the clips of a corpus, print what is left out, and add the number for each reason to `counts`.

    Segments of recordings are written to the folder `segments`; recordings are never changed. Raises ValueError as
    `Layout.entries`, and if no clip has both a text and a recording.
    """
    files, left_out = layout.files, layout.left_out
    clips: dict[Path, Clip] = {}
    cuts: dict[Path, list[tuple[Path, float, float]]] = {}
    used = set()
    for entry in layout.entries():
        recording = entry.recording
        name = recording.name if isinstance(recording, Path) else recording
        found = recording if isinstance(recording, Path) else files.find(name, entry.base, entry.where)
        path = found
        if found and entry.segment:
            times = "_".join(f"{1000 * seconds:09.0f}" for seconds in entry.segment)
            path = segments / f"{found.parent.name}_{found.stem}_{times}.flac"
        text, speaker = one_line(entry.text), None if entry.speaker is None else one_line(entry.speaker)
        used.add(found)
        if found is None or path is None:
            reason = "no recording"
        elif not text:
            reason = "no text"
        elif speaker == "":
            reason = "no speaker"
        elif path in clips:  # it might be in both training and validation
            reason = "recording of an earlier line"
        elif not is_listable(str(path)):
            reason = "path with | or a line break, with a space at its ends, or not in UTF-8"
        else:
            clips[path] = Clip(str(path), speaker, text.lower() if layout.caseless and text.isupper() else text)
            if entry.segment:
                cuts.setdefault(found, []).append((path, *entry.segment))
            continue
        left_out.setdefault(reason, []).append(name)
    known = {name for names in left_out.values() for name in names}
    if without_text := [p.name for p in files.recordings if p not in used and p.name not in known]:
        left_out.setdefault("no text", []).extend(without_text)
    for path in _cut(cuts):
        left_out.setdefault("segment not within the recording", []).append(clips.pop(path).path)
    report_left_out(left_out, counts)
    return list(clips.values())


def one_line(text: str) -> str:
    """Return the text as one line without the column separator."""
    return " ".join(text.replace("|", " ").split())


def is_listable(path: str) -> bool:
    """Return whether a filelist can contain a path: `corpora.filelist.read_filelist` must return the same path."""
    decoded = not any("\ud800" <= character <= "\udfff" for character in path)  # names that are not UTF-8
    return decoded and path == path.strip() and not set(path) & set("|\n\r")


def report_left_out(left_out: Mapping[str, Sequence[str]], counts: Counter[str]) -> None:
    """Print the reasons with the number of clips and the first of them, and add the numbers to `counts`."""
    for reason, names in left_out.items():
        if names:
            counts[reason] += len(names)
            more = ", ..." if len(names) > MAX_NAMED else ""
            shown = ", ".join(names[:MAX_NAMED]).encode(errors="replace").decode()
            print(f"Left out, {reason}: {len(names)} clips ({shown}{more})")


def report_unread(files: Files, counts: Counter[str]) -> None:
    """Print the number of recordings in formats that are not read, and add them to `counts`."""
    for suffix, count in files.unread.items():
        counts[f"{suffix} is not read"] += count
        print(f"Not read: {count} {suffix} files: convert them, as in: ffmpeg -i NAME{suffix} NAME.flac")


def report_speakers(clips: Sequence[Clip]) -> None:
    """Print the speakers with their numbers of clips."""
    counts = Counter(clip.speaker for clip in clips if clip.speaker is not None)
    if counts:
        shown = ", ".join(f"{name}: {count}" for name, count in counts.most_common(MAX_SPEAKERS))
        more = f", and {len(counts) - MAX_SPEAKERS} more" if len(counts) > MAX_SPEAKERS else ""
        print(f"{len(counts)} speakers, with clips: {shown}{more}")
        if len(counts) == 1:
            print("Only one speaker was found: the voice will be a single one")


def with_speakers_of_folders(clips: Sequence[Clip], root: Path, level: int | None = None) -> list[Clip]:
    """Return the clips with the names of folders as speakers.

    The folder is the one at `level`, counted from 1 below `root`. Without `level` it is the innermost folder that is
    not called wavs, audio or similarly and whose name is not the same for all clips. Raises ValueError if a recording
    lies in no such folder, or if each of these names occurs below several folders, which may be the speakers.
    """
    paths = [Path(clip.path).relative_to(root).parts[:-1] for clip in clips]
    if level is not None:
        named = [parts[level - 1 : level] for parts in paths]
    else:
        named = [tuple(part for part in parts if part.lower() not in AUDIO_FOLDERS) for parts in paths]
        while all(len(parts) > 1 for parts in named) and len({parts[-1] for parts in named}) == 1:
            named = [parts[:-1] for parts in named]
    for clip, parts in zip(clips, named):
        if not parts:
            where = "no speaker's folder" if level is None else f"no folder at level {level}"
            raise ValueError(f"{clip.path} lies in {where} below {root}: expected {root}/SPEAKER/NAME")
    outer: dict[str, set[str]] = {}
    for parts in named:
        outer.setdefault(parts[-1], set()).update(parts[-2:-1])
    above = set().union(*outer.values()) - PARTS
    if level is None and above and all(len(folders - PARTS) > 1 for folders in outer.values()):
        several, names = (", ".join(sorted(each)[:MAX_NAMED]) for each in (above, outer))
        raise ValueError(
            f"{root}: the speakers may be the folders {several} or the folders in them, {names}: give --speaker-level"
        )
    return [clip._replace(speaker=parts[-1]) for clip, parts in zip(clips, named)]


def common_rate(paths: Sequence[str]) -> int | None:
    """Return the most frequent sampling rate in Hz, and print the rates if there are several.

    At most `MAX_HEADERS` recordings are read, at equal distances. Returns None if none can be read.
    """
    chosen = paths[:: -(-len(paths) // MAX_HEADERS) or 1]
    with ThreadPoolExecutor() as pool:
        rates = Counter(rate for rate in pool.map(_rate, chosen) if rate)
    if len(rates) > 1:
        print(f"Sampling rates: {', '.join(f'{rate} Hz: {count}' for rate, count in rates.most_common())} recordings")
    return rates.most_common(1)[0][0] if rates else None


def _rate(path: str) -> int | None:
    try:
        return read_header(path)[1]
    except ValueError:  # the check of the corpus names the file
        return None


def _cut(cuts: Mapping[Path, Sequence[tuple[Path, float, float]]]) -> Iterator[Path]:
    """Write segments, given by path, start and end for each recording. Yield the paths of those that do not exist."""
    for source, parts in cuts.items():
        try:
            with soundfile.SoundFile(source) as file:
                for path, start, end in parts:
                    first, last = round(start * file.samplerate), round(end * file.samplerate)
                    if not 0 <= first < min(last, file.frames):
                        yield path
                    elif not path.exists():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        file.seek(first)
                        samples = file.read(last - first, dtype="float32", always_2d=True).mean(axis=1)
                        save_audio(path, samples, file.samplerate)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{source}: {error.error_string}") from None
