"""Near duplicates: recordings of the same speech in another encoding, at another level, or cut in another way.

A fingerprint has one word of bits for each step of time. A bit is the sign of a difference between neighboring bands
and steps, as in Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (2002), so that level, encoding and
silence at the ends hardly change it. Recordings that share a word are compared at the offset at which they share it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import soxr

MIN_RATE = 2600  # Hz; recordings at twice this rate or more are brought to a lower one
HOP = 0.0512  # seconds, of a step
FRAME = 3 * HOP  # seconds of a spectrum
SMOOTHING = np.hanning(10)[1:-1].astype(np.float32)  # over steps, so that other cuts of a recording have the same words
EDGES = np.geomspace(200, 1100, 26)  # Hz, of one band more than bits
BITS = len(EDGES) - 2
METHOD = 2  # changes with the words of a recording
LONGEST = 60  # seconds that a fingerprint covers
MAX_SHARING = 20  # steps that share a word; words of more of them do not distinguish
NEIGHBORS = (-8, -4, -2, 2, 4, 8)  # steps beside a shared word that are compared first
MIN_STEPS = 8  # of recordings that are compared
SHARED = 0.8  # of the shorter recording, which must be in the other one
MAX_ERRORS = 0.25  # share of different bits; at most 0.13 for the same speech, and above 0.36 for other speech
PARTS, MAX_PART_ERRORS = 4, 0.3  # equal parts, and the share in each, because other speech may begin equally


class Pair(NamedTuple):
    """Positions of two recordings of the same speech, `first` below `second`."""

    first: int
    second: int
    contained: bool  # one of them is longer than the other


def fingerprint(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the words of samples float32 `[n]` at `rate` Hz, uint32 `[steps]`."""
    import scipy.fft  # takes time, and most programs that import this module measure nothing

    low, low_rate = _decimated(samples[: LONGEST * rate], rate)
    size, step = round(FRAME * low_rate), HOP * low_rate
    starts = np.round(np.arange(int(len(low) / step)) * step).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(low, (size // 2, size)), size)[starts]
    frames *= np.hanning(size).astype(np.float32)
    padded = scipy.fft.next_fast_len(size, real=True)
    edges = np.round(EDGES * padded / low_rate).astype(int)
    spectrum = scipy.fft.rfft(frames, padded)[:, edges[0] : edges[-1]]
    squares = np.square(spectrum.view(np.float32))  # of real and imaginary parts in turn
    bands = np.add.reduceat(squares, 2 * (edges[:-1] - edges[0]), axis=1)
    around = np.pad(bands, ((len(SMOOTHING) // 2,) * 2, (0, 0)))
    energy = sum(weight * around[i : i + len(bands)] for i, weight in enumerate(SMOOTHING))
    changes = np.diff(np.diff(np.log(energy + 1e-10), axis=1), axis=0)
    return (changes > 0) @ (1 << np.arange(BITS, dtype=np.uint32))


def _decimated(samples: np.ndarray, rate: float) -> tuple[np.ndarray, float]:
    """Halve the rate while it is at least twice `MIN_RATE`, with the filter 1, 3, 3, 1. Return samples and rate.

    Its stop band is weak, but aliases are far below the speech in the bands, and the filter is fast. Lower rates become
    `MIN_RATE`.
    """
    if rate < MIN_RATE:
        return soxr.resample(samples, rate, MIN_RATE, quality="LQ"), MIN_RATE
    while rate >= 2 * MIN_RATE and len(samples) >= 4:
        samples = samples[: len(samples) // 2 * 2]
        even, odd = samples[::2], samples[1::2]
        samples = even[1:] + odd[:-1]
        samples *= 3
        samples += even[:-1]
        samples += odd[1:]
        rate /= 2
    return samples, rate


def near_duplicates(fingerprints: Sequence[np.ndarray]) -> list[Pair]:
    """Return the pairs of recordings of the same speech, sorted. Time and memory grow linearly with the recordings."""
    lengths = np.array([len(words) for words in fingerprints])
    starts = np.cumsum(lengths) - lengths
    owners = np.repeat(np.arange(len(lengths)), lengths)
    words = np.concatenate([np.zeros(0, np.uint32), *fingerprints])
    found: dict[tuple[int, int], bool] = {}
    for x, y in _sharing(words, owners):
        near = [_errors(words, owners, x, y, offset) for offset in NEIGHBORS]
        compared = np.sum([valid for _, valid in near], axis=0)
        likely = np.sum([errors for errors, _ in near], axis=0) <= MAX_ERRORS * BITS * compared
        offsets = x - starts[owners[x]] - y + starts[owners[y]]
        candidates = np.stack([owners[x], owners[y], offsets], axis=1)[likely]
        for a, b, offset in np.unique(candidates, axis=0).tolist():
            first, second = fingerprints[a][max(offset, 0) :], fingerprints[b][max(-offset, 0) :]
            shared, shorter = min(len(first), len(second)), min(lengths[a], lengths[b])
            if shorter < MIN_STEPS or shared < SHARED * shorter:
                continue
            errors = _bits(first[:shared] ^ second[:shared]) / BITS
            parts = np.array_split(errors, PARTS)
            if errors.mean() <= MAX_ERRORS and max(part.mean() for part in parts) <= MAX_PART_ERRORS:
                found[min(a, b), max(a, b)] = bool(shorter < SHARED * max(lengths[a], lengths[b]))
    return [Pair(*pair, contained) for pair, contained in sorted(found.items())]


def _sharing(words: np.ndarray, owners: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions `[n]`, `[n]` of equal words of different recordings, without frequent words and silence, 0."""
    _, inverse, counts = np.unique(words, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    sharing = counts[inverse[order]]
    order = order[(sharing > 1) & (sharing <= MAX_SHARING) & (words[order] > 0)]
    for distance in range(1, MAX_SHARING):
        x, y = order[:-distance], order[distance:]
        same = (words[x] == words[y]) & (owners[x] != owners[y])
        if not same.any():
            return
        yield x[same], y[same]


def _errors(
    words: np.ndarray, owners: np.ndarray, x: np.ndarray, y: np.ndarray, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the different bits beside positions `[n]`, and whether both recordings have words there."""
    i, j = (np.clip(position + offset, 0, len(words) - 1) for position in (x, y))
    valid = (owners[i] == owners[x]) & (owners[j] == owners[y])
    return _bits(words[i] ^ words[j]) * valid, valid


def _bits(words: np.ndarray) -> np.ndarray:
    """Count the bits that are set in words `[n]`."""
    return np.unpackbits(words.view(np.uint8)).reshape(-1, 32).sum(axis=1)
