"""Measurements of recordings, which are kept in a file so that each recording is decoded once."""

import base64
import functools
import hashlib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import soundfile

from audio import MAX_PEAK, OffScale, decoded, open_audio
from corpora import duplicates, shards
from corpora.cache import computed

SILENT = 1e-3  # peak (-60 dBFS) below which a recording counts as silent
PAUSE_DEPTH = 0.01  # windows 40 dB below the loudest one count as silence
WINDOW = 0.02  # seconds
FULL_SCALE = 32766 / 32768
UNKNOWN_SIZE = 0x7FFFFFFF  # RIFF and AIFF sizes from here on come from pipes
OGG_TAIL = 1 << 16  # bytes, more than the largest Ogg page


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
    fingerprint: str = ""  # of the speech, in base64

    @property
    def words(self) -> np.ndarray:
        """The fingerprint as `corpora.duplicates` uses it."""
        return np.frombuffer(base64.b64decode(self.fingerprint), np.uint32)


def measured(paths: Sequence[str], cache: str | Path | None) -> list[Sound]:
    """Measure recordings, except those that the file `cache` holds with the same size and modification time."""
    settings = ["sha1", SILENT, PAUSE_DEPTH, WINDOW, FULL_SCALE, MAX_PEAK, duplicates.METHOD, *Sound._fields]
    return [Sound(*values) for values in computed(paths, measure, cache, settings, "checking recordings", _is_sound)]


def _is_sound(values: Any) -> bool:
    """Return whether values of a file are those of a Sound."""
    kinds = _kinds()
    return isinstance(values, list) and len(values) == len(kinds) and all(map(isinstance, values, kinds))


@functools.cache
def _kinds() -> tuple[Any, ...]:
    return tuple(get_type_hints(Sound).values())


def measure(path: str) -> Sound:
    """Decode one recording and measure it at its own rate."""
    file = shards.file_of(path)
    if not os.path.isfile(file):
        return Sound(problem="no such file")
    frames = rate = 0
    try:
        if os.path.getsize(file) == 0:
            return Sound(problem="empty file")
        with open_audio(path) as opened:
            frames, rate = opened.frames, opened.samplerate
            missing = _cut_off(path, opened)
            samples = decoded(opened)
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
    lowest, highest = float(samples.min()), float(samples.max())  # NaN if a sample is
    if not math.isfinite(highest - lowest):
        return Sound(frames, rate, problem="NaN or infinite samples")
    peak = max(-lowest, highest)
    if peak < SILENT:
        return Sound(frames, rate, problem="silent")
    offset = float(samples.mean())
    if max(offset - lowest, highest - offset) < SILENT:
        return Sound(frames, rate, problem="constant level", detail=f"mean {offset:.3f}")
    # SHA-1 is the fastest hash, because most processors have instructions for it
    digest = f"{hashlib.sha1(samples.data, usedforsecurity=False).hexdigest()[:16]} {rate}"
    clipped = np.count_nonzero(np.abs(samples) >= FULL_SCALE) if peak >= FULL_SCALE else 0
    level = 10 * np.log10(np.dot(samples, samples) / len(samples))
    words = base64.b64encode(duplicates.fingerprint(samples, rate).tobytes()).decode()
    pauses = silence(samples, rate)
    return Sound(frames, rate, float(level), *pauses, int(clipped), offset, digest, fingerprint=words)


def silence(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """Return the seconds of silence at the start and at the end of samples `[n]`, which are not all 0."""
    window = max(1, min(len(samples), round(WINDOW * rate)))
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    energy = np.einsum("ij,ij->i", whole, whole)
    loud = np.flatnonzero(energy > PAUSE_DEPTH**2 * energy.max())
    seconds = window / rate
    return float(loud[0] * seconds), float((len(energy) - 1 - loud[-1]) * seconds)


def _cut_off(path: str, file: soundfile.SoundFile) -> str:
    """Describe what is missing at the end of a file that libsndfile reads without an error; "" for a complete file.

    RIFF and AIFF declare a size, and the last page of Ogg has a flag.
    """
    short = re.search(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if short and int(short[1]) < UNKNOWN_SIZE and int(short[1]) > int(short[2]):
        return f"{short[2]} of {short[1]} bytes"
    if file.format == "OGG":
        tail = shards.content(path)[-OGG_TAIL:]
        page = tail.rfind(b"OggS")
        if page < 0 or len(tail) < page + 6 or not tail[page + 5] & 4:
            return "the last Ogg page is missing"
    return ""
