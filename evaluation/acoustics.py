"""Distances between the audio of a sentence and its recording: mel-cepstral distortion, log F0 and voicing.

WORLD (Morise et al., 2016) analyzes both at 16 kHz, every 5 ms: F0 by DIO and StoneMask, the spectral envelope by
CheapTrick. Frames more than 40 dB below the loudest are left out. Mel-cepstra of order 24 have the frequency axis of an
all-pass filter with alpha 0.42 (Tokuda et al., 1994). Dynamic time warping on coefficients 1 to 24 pairs the frames.
The distortion of a pair is 10 / ln 10 * sqrt(2 * sum of squared differences), in dB (Kubichek, 1993), without
coefficient 0, which is the level.
"""

import functools
from typing import NamedTuple

import numpy as np

from evaluation import RATE, needed

PERIOD = 5.0  # ms between frames
ORDER, ALPHA = 24, 0.42
POINTS = 2048  # of the warped frequency axis
SILENCE = 40  # dB below the loudest frame
TO_DB = 10 * np.sqrt(2) / np.log(10)


class Frames(NamedTuple):
    """F0 in Hz, 0 where there is none, `[frames]`, and mel-cepstra without coefficient 0 `[frames, ORDER]`."""

    f0: np.ndarray
    cepstra: np.ndarray


class Distance(NamedTuple):
    """Sums over the pairs of frames that time warping finds."""

    pairs: int
    distortion: float  # dB
    voiced_pairs: int  # both frames have a pitch
    squared_log_f0: float  # over voiced pairs
    voicing_errors: int  # one of both frames has a pitch


def analyze(samples: np.ndarray) -> Frames:
    """Analyze samples `[n]` at `RATE`, without silent frames. Raises ValueError if pyworld is missing."""
    world = needed("pyworld")
    samples = np.ascontiguousarray(samples, np.float64)
    f0, times = world.dio(samples, RATE, frame_period=PERIOD)
    f0 = world.stonemask(samples, f0, times, RATE)
    envelope = world.cheaptrick(samples, f0, times, RATE)  # power spectrum [frames, bins]
    level = 10 * np.log10(envelope.mean(1))
    speech = level > level.max() - SILENCE
    return Frames(f0[speech], np.log(envelope[speech]) @ mel_cepstrum(envelope.shape[1]))


@functools.cache
def mel_cepstrum(bins: int) -> np.ndarray:
    """Return the matrix `[bins, ORDER]` from a log power spectrum to mel-cepstral coefficients 1 to `ORDER`.

    They are the cosine transform of the spectrum over the frequency that the all-pass filter warps.
    """
    warped = (np.arange(POINTS) + 0.5) * np.pi / POINTS
    frequency = warped - 2 * np.arctan2(ALPHA * np.sin(warped), 1 + ALPHA * np.cos(warped))
    position = frequency / np.pi * (bins - 1)
    interpolation = np.maximum(0, 1 - np.abs(position - np.arange(bins)[:, None]))  # linear, [bins, POINTS]
    return interpolation @ np.cos(np.outer(warped, np.arange(1, ORDER + 1))) / POINTS


def compare(spoken: Frames, recorded: Frames) -> Distance:
    """Pair the frames of two signals by dynamic time warping and return the sums of their distances."""
    import librosa  # takes seconds
    from scipy.spatial.distance import cdist

    distances = cdist(spoken.cepstra, recorded.cepstra)
    path = librosa.sequence.dtw(C=distances)[1]
    a, b = spoken.f0[path[:, 0]], recorded.f0[path[:, 1]]
    both = (a > 0) & (b > 0)
    squared = np.log(a[both] / b[both]) ** 2
    distortion = float(TO_DB * distances[path[:, 0], path[:, 1]].sum())
    return Distance(len(path), distortion, int(both.sum()), float(squared.sum()), int(((a > 0) != (b > 0)).sum()))
