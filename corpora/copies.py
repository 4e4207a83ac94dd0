"""Copies of recordings without silence at the ends and at one loudness, with lists that name them.

The sources are only read. Copies are mono FLAC files of 16 bits at the rate of their source. A copy has the
modification time of its source, so that a program that is started again skips the copies that exist.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import cli
from audio import load_audio, read_header, save_audio
from corpora.clips import is_listable
from corpora.filelist import Clip, read_record, write_record
from corpora.sounds import silence
from files import write_text

RECORDINGS, SETTINGS = "recordings", "settings.json"  # in the folder of the copies
MARGIN = 0.1  # seconds of silence that remain at each end
PEAK = 10 ** (-1 / 20)  # -1 dBFS, which no copy exceeds
BLOCK = 0.4  # seconds of a block of BS.1770; shorter recordings are measured as repeated to this length
LOUDNESS = (-70.0, 0.0)  # LUFS, the possible values


class Changes(NamedTuple):
    """Changes that are made to the copies."""

    trim: bool  # cut silence at the ends, except for `MARGIN`
    loudness: float | None  # integrated loudness in LUFS (ITU-R BS.1770), or None


class Copy(NamedTuple):
    """The result for one recording."""

    cut: float = 0.0  # seconds of silence
    limited: bool = False  # quieter than asked, because its peak would exceed `PEAK`


def write_copies(lists: Mapping[str, Sequence[Clip]], out: Path, changes: Changes) -> dict[str, str]:
    """Write copies of the recordings of lists, given by path, and lists of the same names. Return the new paths.

    The folder `out` is one that `check_folder` accepts.
    """
    sources = list(dict.fromkeys(clip.path for clips in lists.values() for clip in clips))
    targets = _targets(sources, out / RECORDINGS)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SETTINGS, json.dumps(changes._asdict()) + "\n")
    with ThreadPoolExecutor() as pool:
        work = pool.map(partial(_copy, changes=changes), sources, targets.values())
        copies = list(tqdm(work, "writing copies", len(sources), disable=None, leave=False))
    written = [copy for copy in copies if copy]
    print(f"{out / RECORDINGS}: {len(written)} copies, and {len(copies) - len(written)} of an earlier start")
    if changes.trim and written:
        print(f"{sum(copy.cut for copy in written):.1f} s of silence are cut off")
    if limited := sum(copy.limited for copy in written):
        print(f"{limited} copies are quieter than {changes.loudness:g} LUFS, because of their peaks")
    for path, clips in lists.items():
        many = any(clip.speaker is not None for clip in clips)
        rows = (clip._replace(path=targets[clip.path].as_posix()).row(many) for clip in clips)
        write_text(out / Path(path).name, "".join(f"{row}\n" for row in rows))
        if record := read_record(path):
            write_record(out / Path(path).name, record)
    return {path: (out / Path(path).name).as_posix() for path in lists}


def check_folder(lists: Mapping[str, Sequence[Clip]], out: Path, changes: Changes) -> None:
    """Raise ValueError if the folder has copies with other changes or the sources, or if values cannot be used."""
    low, high = LOUDNESS
    if changes.loudness is not None and not low < changes.loudness <= high:
        raise ValueError(f"a loudness of {changes.loudness:g} LUFS is not between {low:g} and {high:g}")
    if changes.loudness is not None:
        cli.extra("pyloudnorm")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the copies")
    if not is_listable(str(out)):
        raise ValueError(f"{out}: a path in a filelist has no |, line break, or space at its ends")
    earlier = out / SETTINGS
    if earlier.exists() and earlier.read_text("utf-8") != json.dumps(changes._asdict()) + "\n":
        raise ValueError(f"{out} has copies with other changes, which {earlier} names: choose another folder")
    if len({Path(path).name for path in lists}) < len(lists):
        raise ValueError(f"lists of the same name cannot both be written to {out}")
    for path, clips in lists.items():
        inside = [clip.path for clip in clips if (out / RECORDINGS).resolve() in Path(clip.path).resolve().parents]
        if Path(path).resolve() == (out / Path(path).name).resolve() or inside:
            raise ValueError(f"{(inside or [path])[0]} lies in {out}: choose another folder for the copies")


def _targets(sources: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return the path of each copy, as the sources lie below the folder that they have in common."""
    whole = {source: Path(os.path.abspath(source)) for source in sources}
    common = Path(os.path.commonpath([path.parent for path in whole.values()])) if whole else Path()
    taken: set[Path] = set()
    targets = {}
    for source, path in whole.items():
        inside = folder / path.relative_to(common)
        target = inside.with_suffix(".flac")
        if target in taken:  # a.wav and a.mp3
            target = inside.with_name(f"{inside.name}.flac")
        taken.add(target)
        targets[source] = target
    return targets


def _copy(source: str, target: Path, changes: Changes) -> Copy | None:
    """Write the copy of a recording; return None if it exists."""
    changed = os.stat(source).st_mtime_ns
    if target.exists() and target.stat().st_mtime_ns == changed:
        return None
    rate = read_header(source)[1]
    samples = load_audio(source, rate)
    cut, limited = 0.0, False
    if changes.trim:
        whole = len(samples)
        first, last = (max(0, round((pause - MARGIN) * rate)) for pause in silence(samples, rate))
        samples = samples[first : whole - last]
        cut = (first + last) / rate
    if changes.loudness is not None:
        gain = 10 ** ((changes.loudness - loudness(samples, rate)) / 20)
        highest = PEAK / max(float(np.abs(samples).max()), 1e-9)
        samples, limited = samples * min(gain, highest), gain > highest
    target.parent.mkdir(parents=True, exist_ok=True)
    save_audio(target, samples, rate)
    os.utime(target, ns=(changed, changed))
    return Copy(cut, limited)


def loudness(samples: np.ndarray, rate: int) -> float:
    """Return the integrated loudness of samples `[n]` in LUFS (ITU-R BS.1770); minus infinity for silence."""
    repeats = -(-round(BLOCK * rate) // len(samples))
    return float(cli.extra("pyloudnorm").Meter(rate).integrated_loudness(np.tile(samples, repeats)))
