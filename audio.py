"""Reading and writing recordings: every format of libsndfile in, mono float32 at one rate out."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from files import replacing

FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}
WRITE_BLOCK = 1 << 16  # samples; libsndfile's Vorbis encoder overflows the stack on minutes of audio in one call


class Header(NamedTuple):
    """What a file says about itself: `frames` samples per channel at `rate` samples a second."""

    frames: int
    rate: int


def resampled_frames(frames: int, rate: int, sampling_rate: int) -> int:
    """Samples that `load_audio` returns for `frames` samples at `rate`: the ratio, halves rounded up."""
    return (2 * frames * sampling_rate + rate) // (2 * rate)


def read_header(path: str | Path) -> Header:
    """Read the length and the rate of a recording without decoding it.

    Raises ValueError naming the file if it is missing, is no audio, or does not state its length.
    """
    with _named(path), soundfile.SoundFile(path) as file:
        return _header(file)


def audio_length(path: str | Path, sampling_rate: int, resample: bool = True) -> int:
    """Samples that `load_audio` will return, from the header alone; raises what it raises, damaged data apart."""
    with _named(path), soundfile.SoundFile(path) as file:
        return resampled_frames(*_header(file, sampling_rate, resample), sampling_rate)


def load_audio(path: str | Path, sampling_rate: int, resample: bool = True) -> np.ndarray:
    """Decode a recording of any bit depth and number of channels to mono.

    Returns float32 `[samples]` in -1..1 at `sampling_rate`, exactly `audio_length` samples; channels are averaged and
    other rates resampled (soxr HQ).
    Raises ValueError naming the file if it cannot be decoded whole, or, with `resample` false, has another rate.
    """
    with _named(path), soundfile.SoundFile(path) as file:
        frames, rate = _header(file, sampling_rate, resample)
        samples = file.read(dtype="float32", always_2d=True)
        if len(samples) < frames:
            raise ValueError(f"truncated: {len(samples)} of {frames} samples could be decoded")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate == sampling_rate:
        return mono
    resampled = soxr.resample(mono, rate, sampling_rate, quality="HQ")
    expected = resampled_frames(frames, rate, sampling_rate)
    return np.pad(resampled, (0, max(0, expected - len(resampled))))[:expected]


def to_pcm(samples: np.ndarray) -> np.ndarray:
    """Float samples in -1..1 as 16-bit integers; louder ones are clipped, never wrapped."""
    # 32768 is the scale that reading uses, so a 16-bit file that is read and written again stays the same
    return np.clip(np.round(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)


def save_audio(path: str | Path, samples, sampling_rate: int) -> None:
    """Write mono float `samples` (array or tensor, `[samples]` or `[1, samples]`, -1..1) as 16-bit audio.

    The suffix chooses WAV, FLAC or Ogg Vorbis. Louder values are clipped, never wrapped; the file appears whole.
    Raises ValueError for another suffix, another shape, or samples that are not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: cannot write {path.suffix or 'a file without suffix'}: use {', '.join(FORMATS)}")
    samples = np.asarray(samples)
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"{path}: expected mono float samples, got {samples.dtype} of shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: the samples hold NaN or infinity")
    pcm = to_pcm(samples)
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


@contextmanager
def _named(path: str | Path):
    """Turn whatever goes wrong while reading `path` into a ValueError that begins with its name."""
    try:
        if not os.path.isfile(path):
            raise ValueError("no such file")
        yield
    except (soundfile.LibsndfileError, ValueError) as error:
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else error
        raise ValueError(f"{path}: {reason}") from error


def _header(file: soundfile.SoundFile, sampling_rate: int = 0, resample: bool = True) -> Header:
    if file.frames > 1 << 48:  # libsndfile's "unknown", as in FLAC that was encoded from a pipe
        raise ValueError("the header does not state the length: encode the file again, from a file and not a pipe")
    if file.samplerate != sampling_rate and not resample:
        raise ValueError(
            f"sampled at {file.samplerate} Hz, the configuration says {sampling_rate} Hz: "
            "convert the file, or set data.resample to true"
        )
    return Header(file.frames, file.samplerate)
