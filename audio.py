"""Read recordings in any format of libsndfile as mono float32, and write 16-bit audio files.

A recording is a file or lies in a shard, with a path as in `corpora.shards`.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from corpora import shards
from files import replacing

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
WRITE_BLOCK = 1 << 16  # samples per call; libsndfile's Vorbis encoder overflows the stack on minutes of audio
MAX_FRAMES = 1 << 48  # libsndfile reports more if the length is unknown, as in FLAC that was encoded from a pipe
MAX_PEAK = 16.0  # a recording above it is not on the scale of -1..1
READ_BLOCK = 1 << 20  # samples of all channels that are decoded at once
MIN_RATE = 1000  # Hz, below which a few kilobytes are hours, and resampling needs gigabytes
MAX_RATE, MAX_CHANNELS = 96_000, 2  # of recordings whose duration is limited
FULL_SCALE = 32768  # the scale of reading, so that 16-bit audio that is read and written again stays the same


class OffScale(ValueError):
    """Samples of a recording are far outside -1 to 1."""


def resampled_frames(frames: int, rate: int, sampling_rate: int) -> int:
    """Return the number of samples that `load_audio` returns for `frames` samples at `rate` Hz (halves round up)."""
    return (2 * frames * sampling_rate + rate) // (2 * rate)


def read_header(path: str | Path) -> tuple[int, int]:
    """Return the samples per channel of a recording and its rate in Hz, without decoding it.

    Raises ValueError if the file is missing, is not audio, does not state its length, or has a rate below `MIN_RATE`.
    """
    with open_audio(path) as file:
        return file.frames, file.samplerate


def refuse_long(path: str | Path, seconds: float) -> None:
    """Raise ValueError if decoding would take more time or memory than a recording of `seconds` needs.

    A few kilobytes of FLAC may hold minutes of silence in many channels or at a high sampling rate.
    """
    with open_audio(path) as file:
        if file.frames > seconds * file.samplerate:
            raise ValueError(f"the recording is longer than {seconds:g} seconds")
        if file.frames * file.channels > seconds * MAX_RATE * MAX_CHANNELS:
            raise ValueError(
                f"{file.channels} channels at {file.samplerate} Hz are too much to decode; "
                f"convert the recording to at most {MAX_CHANNELS} channels and {MAX_RATE} Hz"
            )


def audio_length(path: str | Path, sampling_rate: int, resample: bool = True) -> int:
    """Return the number of samples that `load_audio` returns, from the header. Raises as `read_header`."""
    with open_audio(path, None if resample else sampling_rate) as file:
        return resampled_frames(file.frames, file.samplerate, sampling_rate)


def load_audio(path: str | Path, sampling_rate: int, resample: bool = True) -> np.ndarray:
    """Decode a recording of any bit depth and number of channels to mono at `sampling_rate` Hz.

    Channels are averaged, and other sampling rates are resampled (soxr, quality HQ). Returns float32
    `[audio_length(...)]` in -1..1. Raises ValueError if the file cannot be decoded completely or, with `resample`
    false, has another rate, and OffScale if its samples are not on this scale, as in a float file of 16-bit integers.
    """
    with open_audio(path, None if resample else sampling_rate) as file:
        frames, rate = file.frames, file.samplerate
        mono = decoded(file)
    if rate == sampling_rate:
        return mono
    resampled = soxr.resample(mono, rate, sampling_rate, quality="HQ")
    expected = resampled_frames(frames, rate, sampling_rate)
    return np.pad(resampled, (0, max(0, expected - len(resampled))))[:expected]


def decoded(file: soundfile.SoundFile) -> np.ndarray:
    """Decode an opened recording to mono, float32 `[file.frames]`. Raises ValueError and OffScale as `load_audio`."""
    blocks = list(_mono_blocks(file))
    mono = blocks[0] if len(blocks) == 1 else np.concatenate([np.zeros(0, np.float32), *blocks])
    if len(mono) < file.frames:
        raise ValueError(f"truncated: {len(mono)} of {file.frames} samples could be decoded")
    peak = max(float(mono.max(initial=0)), -float(mono.min(initial=0)))  # without a copy of all samples
    if MAX_PEAK < peak < math.inf:
        raise OffScale(f"samples reach {peak:.4g}, but full scale is 1: scale the recording to -1..1")
    return mono


def to_pcm(samples: np.ndarray) -> np.ndarray:
    """Convert float samples in -1..1 to 16-bit integers. Louder samples are clipped."""
    return np.clip(np.round(samples.astype(np.float64) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def save_audio(path: str | Path, samples: ArrayLike, sampling_rate: int) -> None:
    """Write mono samples atomically as 16-bit audio: WAV, FLAC or Ogg Vorbis, by the suffix.

    Args: `samples` float `[samples]` or `[1, samples]` in -1..1, an array or a tensor, of which louder samples are
    clipped; `sampling_rate` in Hz. Raises ValueError for another suffix or shape, or samples that are not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: cannot write {path.suffix or 'a file without suffix'}; use {', '.join(FORMATS)}")
    mono = np.asarray(samples)
    if mono.ndim == 2 and mono.shape[0] == 1:
        mono = mono[0]
    if mono.ndim != 1 or not np.issubdtype(mono.dtype, np.floating):
        raise ValueError(f"{path}: expected mono float samples, got {mono.dtype} of shape {mono.shape}")
    if not np.isfinite(mono).all():
        raise ValueError(f"{path}: the samples contain NaN or infinity")
    pcm = to_pcm(mono)
    kind, subtype = FORMATS[path.suffix.lower()]
    try:
        with (
            replacing(path) as unfinished,
            soundfile.SoundFile(unfinished, "w", sampling_rate, 1, subtype, format=kind) as file,
        ):
            for start in range(0, len(pcm), WRITE_BLOCK):
                file.write(pcm[start : start + WRITE_BLOCK])
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be written: {error.error_string}") from None


def _mono_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Decode a recording in blocks, float32 `[samples]`. Only one block has all channels at a time."""
    size = max(1, READ_BLOCK // file.channels)
    left = file.frames
    while left > 0:
        samples = file.read(min(size, left), dtype="float32", always_2d=True)
        if not len(samples):
            return
        left -= len(samples)
        yield samples[:, 0] if file.channels == 1 else samples.mean(axis=1)


@contextmanager
def open_audio(path: str | Path, required_rate: int | None = None) -> Iterator[soundfile.SoundFile]:
    """Open a recording for reading.

    Errors until it is closed become ValueErrors, or OffScale, that begin with the path. They are raised for a file that
    is missing, is not audio, does not state its length, or has a rate below `MIN_RATE` or another one than
    `required_rate`, in Hz.
    """
    try:
        if not os.path.isfile(shards.file_of(path)):
            raise ValueError("no such file")
        if Path(path).suffix.lower() == ".raw":  # libsndfile would need the rate, the channels and the encoding
            raise ValueError("raw samples have no header: convert the file to WAV or FLAC")
        with shards.opened(path) as source, soundfile.SoundFile(source) as file:
            if file.frames > MAX_FRAMES:
                raise ValueError("the header does not state the length: encode the recording again, not through a pipe")
            if file.samplerate < MIN_RATE:
                raise ValueError(f"{file.samplerate} Hz are no sampling rate of speech; the least is {MIN_RATE}")
            if required_rate not in (None, file.samplerate):
                rates = f"sampled at {file.samplerate} Hz, the configuration says {required_rate} Hz"
                raise ValueError(f"{rates}: convert the file, or set data.resample to true")
            yield file
    except (soundfile.LibsndfileError, ValueError) as error:
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise (OffScale if isinstance(error, OffScale) else ValueError)(f"{path}: {reason}") from error
