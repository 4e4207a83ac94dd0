"""Spectrograms: linear magnitude and log-mel (Slaney), of single waveforms and of padded batches, on any device.

The fundamental frequency of spectrograms and the inverse short-time Fourier transform of spectra with phases are here
too.

As in HiFi-GAN and VITS: reflect padding of (n_fft - hop) / 2 samples at both ends, periodic Hann window, magnitude
sqrt(re^2 + im^2 + 1e-6), mel magnitudes clamped to at least 1e-5. The result has `samples // hop_size` frames. The
computation is in float32 (float64 stays float64), also under autocast and for half-precision input.
"""

import math
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from commons import without_autocast

FFT_SIZES = (512, 1024, 2048)  # of losses and discriminators that use several spectrograms, in samples
F0_RANGE = (65.0, 500.0)  # Hz, of speech
VOICED, OCTAVE_COST = 0.6, 0.05  # of the fundamental frequency: autocorrelation, and its part taken for each octave
# of the filter bank: coefficients for each band, the cutoff in bandwidths, and the shape of the Kaiser window
BAND_TAPS, BAND_CUTOFF, BAND_BETA = 16, 0.566, 9.0


def spectrogram_torch(
    y: Tensor, n_fft: int, sampling_rate: int, hop_size: int, win_size: int, center: bool = False
) -> Tensor:
    """Compute linear magnitude spectrograms of waveforms of equal length.

    Waveforms shorter than the padding are reflected repeatedly. `center` pads by another n_fft / 2 samples, as
    `torch.stft` does. `sampling_rate` is not used; VITS code passes it.

    Args: y `[b, samples]`, in [-1, 1]; n_fft, hop_size, win_size in samples.
    Returns `[b, n_fft // 2 + 1, samples // hop_size]`; more frames with `center`.
    """
    y = _full_precision(y)
    left, right = _reflection(n_fft, hop_size)
    if y.size(1) > right:
        padded = F.pad(y.unsqueeze(1), (left, right), mode="reflect").squeeze(1)
    else:
        padded = _reflect_at(y, y.new_full((y.size(0),), y.size(1), dtype=torch.long), left, right)
    return _magnitude(padded, n_fft, hop_size, win_size, center)


def spectrogram_of_batch(
    y: Tensor, y_lengths: Tensor, n_fft: int, hop_size: int, win_size: int
) -> tuple[Tensor, Tensor]:
    """Compute linear magnitude spectrograms of padded utterances, each equal to that of the utterance alone.

    Each utterance is reflected at its own end. There is no host synchronization.

    Args: y `[b, samples]`, with any values after each end; y_lengths `[b]`; lengths and sizes are in samples.
    Returns spectrograms `[b, n_fft // 2 + 1, samples // hop_size]`, zero after each end, and numbers of frames `[b]`.
    """
    y, y_lengths = _full_precision(y), y_lengths.long()
    left, right = _reflection(n_fft, hop_size)
    spec = _magnitude(_reflect_at(y, y_lengths, left, right), n_fft, hop_size, win_size, center=False)
    spec_lengths = y_lengths // hop_size
    inside = torch.arange(spec.size(2), device=y.device) < spec_lengths[:, None, None]
    return torch.where(inside, spec, 0.0), spec_lengths


def spec_to_mel_torch(
    spec: Tensor, n_fft: int, num_mels: int, sampling_rate: int, fmin: float, fmax: float | None
) -> Tensor:
    """Convert magnitude spectrograms `[b, n_fft // 2 + 1, t]` to log-mel spectrograms `[b, num_mels, t]`.

    The logarithm is natural. `sampling_rate`, `fmin` and `fmax` are in Hz; `fmax` None is half the sampling rate.
    """
    with without_autocast(spec):
        spec = _full_precision(spec)
        settings = {"sr": sampling_rate, "n_fft": n_fft, "n_mels": num_mels, "fmin": fmin, "fmax": fmax}
        basis = _mel_basis(spec.dtype, spec.device, **settings)
        return torch.log(torch.clamp(torch.matmul(basis, spec), min=1e-5))


def mel_spectrogram_torch(
    y: Tensor,
    n_fft: int,
    num_mels: int,
    sampling_rate: int,
    hop_size: int,
    win_size: int,
    fmin: float,
    fmax: float | None,
    center: bool = False,
) -> Tensor:
    """Compute log-mel spectrograms `[b, num_mels, samples // hop_size]` of waveforms `[b, samples]`.

    The arguments are those of `spectrogram_torch` and `spec_to_mel_torch`.
    """
    spec = spectrogram_torch(y, n_fft, sampling_rate, hop_size, win_size, center)
    return spec_to_mel_torch(spec, n_fft, num_mels, sampling_rate, fmin, fmax)


def log_mel(wav: Tensor, data: Any) -> Tensor:
    """Compute log-mel spectrograms `[b, bands, t]` of `wav` `[b, samples]` with the settings of a config's `data`."""
    n_fft, rate = data.filter_length, data.sampling_rate
    spec = spectrogram_torch(wav, n_fft, rate, data.hop_length, data.win_length)
    return spec_to_mel_torch(spec, n_fft, data.n_mel_channels, rate, data.mel_fmin, data.mel_fmax)


def fundamental_frequency(spec: Tensor, sampling_rate: int) -> Tensor:
    """Estimate the fundamental frequency of each frame of magnitude spectrograms `[b, n_fft // 2 + 1, t]`.

    The period is the lag of the highest peak of the autocorrelation, divided by that of the Hann window, with a small
    preference for short lags (Boersma 1993, without the search for a path). Frames are independent. A frame is voiced
    if this peak is at least `VOICED`. `sampling_rate` is in Hz; the FFT should hold three periods of the lowest voice.

    Returns `[b, 1, t]` in Hz, 0 where unvoiced.
    """
    spec = _full_precision(spec)
    n_fft = 2 * (spec.size(1) - 1)
    lowest, highest = F0_RANGE
    first, last = max(int(sampling_rate / highest), 2), min(int(sampling_rate / lowest) + 1, n_fft // 2 - 1)
    with without_autocast(spec):
        window = torch.fft.irfft(torch.fft.rfft(_hann_window(n_fft, spec.dtype, spec.device)).abs().square())
        r = torch.fft.irfft(spec.square().transpose(1, 2), n_fft)[:, :, : last + 2]
        r = r / (r[:, :, :1] * (window / window[0])[: last + 2]).clamp_min(1e-9)
        before, at, after = r[:, :, first - 1 : last], r[:, :, first : last + 1], r[:, :, first + 1 :]
        lag = torch.arange(first, last + 1, device=spec.device)
        # the vertex of the parabola through three points
        shift = ((before - after) / (2 * (before - 2 * at + after)).clamp_max(-1e-9)).clamp(-0.5, 0.5)
        height = at - (before - after) * shift / 4
        peak = (at >= before) & (at > after)
        score = torch.where(peak, height - OCTAVE_COST * torch.log2(lag * (lowest / sampling_rate)), -torch.inf)
        best = score.argmax(2, keepdim=True)
        f0 = sampling_rate / (lag[best] + shift.gather(2, best))
        voiced = peak.gather(2, best) & (height.gather(2, best) > VOICED)
        return torch.where(voiced, f0, 0.0).transpose(1, 2)


def inverse_stft(real: Tensor, imaginary: Tensor, hop_size: int) -> Tensor:
    """Compute the waveforms whose short-time Fourier transforms are nearest to spectra, as `torch.istft` does.

    Frame i is centered on samples `i * hop_size` to `(i + 1) * hop_size`, as in `spectrogram_torch`. The window is a
    periodic Hann window of the FFT size n_fft, a multiple of `hop_size`.

    The first and the last frequency of a real signal have no imaginary part, so theirs is not used. cuFFT would add it
    to the signal, and PyTorch's gradient would not show that.

    Args: real, imaginary `[b, n_fft // 2 + 1, t]`, fp32 or fp64. Returns `[b, t * hop_size]`.
    """
    spectrum = torch.complex(real, F.pad(imaginary[:, 1:-1], (0, 0, 1, 1))).transpose(1, 2)
    return overlap_add(torch.fft.irfft(spectrum, 2 * (real.size(1) - 1)), hop_size)


def overlap_add(frames: Tensor, hop_size: int) -> Tensor:
    """Window and add frames `[b, t, n_fft]`, and divide by the sum of the squared windows. Returns `[b, t * hop_size]`.

    Raises ValueError if n_fft is not a multiple of `hop_size`, or is less than two of them: samples without a window.
    """
    n_fft = frames.size(2)
    if n_fft % hop_size or n_fft < 2 * hop_size:
        raise ValueError(f"the FFT size ({n_fft}) must be a multiple of the hop ({hop_size}) and at least two of them")
    window = _hann_window(n_fft, dtype=frames.dtype, device=frames.device)
    squares = torch.ones_like(frames[:1, :, :1]) * window.square()
    return _added(frames * window, hop_size) / _added(squares, hop_size)


def _added(frames: Tensor, hop_size: int) -> Tensor:
    """Add frames `[b, t, n_fft]` at intervals of `hop_size`; returns the middle `[b, t * hop_size]` of the sum."""
    n_fft = frames.size(2)
    hops = n_fft // hop_size
    parts = frames.unflatten(2, (hops, hop_size)).unbind(2)
    total = sum(F.pad(part, (0, 0, i, hops - 1 - i)) for i, part in enumerate(parts))
    left, right = _reflection(n_fft, hop_size)
    return cast(Tensor, total).flatten(1)[:, left:-right]


def inverse_dft_bases(n_fft: int) -> tuple[Tensor, Tensor]:
    """Return the matrices `[n_fft // 2 + 1, n_fft // 2 + 1]` of the inverse Fourier transform of real signals.

    Products of rows of real and imaginary parts with them are the even and the odd part of the first half of a frame.
    """
    n = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle = torch.outer(n, n) % n_fft * (2 * math.pi / n_fft)  # the remainder keeps small angles exact
    weight = torch.full_like(n, 2.0)  # of frequencies that stand for a negative one too
    weight[[0, -1]] = 1.0
    scale = (weight / n_fft).unsqueeze(1)
    return (scale * angle.cos()).float(), (-scale * angle.sin()).float()


def band_filters(bands: int) -> tuple[Tensor, Tensor]:
    """Return the analysis and the synthesis filters, `[bands, taps]` each in fp64, of a filter bank of equal bands.

    The filters are a Kaiser-windowed lowpass, modulated to the middle of each band (pseudo-QMF, Nguyen 1994). Analysis
    keeps every `bands`-th sample. Synthesis restores the signal, `taps - 1` samples late, with an error of -62 dB.
    Raises ValueError if there are less than two bands.
    """
    if bands < 2:
        raise ValueError(f"a filter bank needs two or more bands, not {bands}")
    length = BAND_TAPS * bands
    n = torch.arange(length + 1, dtype=torch.float64) - length / 2
    cutoff = BAND_CUTOFF / bands
    lowpass = cutoff * torch.sinc(cutoff * n) * torch.kaiser_window(len(n), False, BAND_BETA, dtype=torch.float64)
    band = torch.arange(bands, dtype=torch.float64).unsqueeze(1)
    angle = (2 * band + 1) * (math.pi / (2 * bands)) * n
    shift = (1 - 2 * (band % 2)) * (math.pi / 4)  # with alternating signs, the aliases of adjacent bands cancel
    return 2 * lowpass * torch.cos(angle + shift), 2 * bands * lowpass * torch.cos(angle - shift)


def band_synthesis(bands: int, n_fft: int, hop_size: int) -> Tensor:
    """Return the kernel of a transposed convolution with stride `bands * hop_size` from spectra of bands to samples.

    It is the inverse STFT of each band (see `inverse_stft`), followed by the synthesis filters. Its input channels are
    the real parts of all frequencies of the first band, then of the others, and the imaginary parts in the same order.

    Returns `[bands * (n_fft + 2), 1, length]` in fp32.
    """
    bins, around = n_fft // 2 + 1, n_fft // hop_size - 1  # frames on either side that overlap a frame
    unit = F.pad(torch.eye(2 * bins, dtype=torch.float64).unsqueeze(2), (around, around))
    start = around * hop_size - _reflection(n_fft, hop_size)[0]  # of the frame, whose window begins with a zero
    responses = inverse_stft(unit[:, :bins], unit[:, bins:], hop_size)[:, start + 1 : start + n_fft]
    kernel = F.conv_transpose1d(responses.unsqueeze(1), band_filters(bands)[1].unsqueeze(0), stride=bands)
    return kernel.unflatten(0, (2, bins)).transpose(1, 2).flatten(0, 2).unsqueeze(1).float()


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _reflection(n_fft: int, hop_size: int) -> tuple[int, int]:
    """Return the samples of padding before and after, for `samples // hop_size` frames even if n_fft - hop is odd."""
    left = (n_fft - hop_size) // 2
    return left, n_fft - hop_size - left


def _reflect_at(y: Tensor, y_lengths: Tensor, left: int, right: int) -> Tensor:
    """Reflect each row of y `[b, samples]` at its own ends; returns `[b, left + samples + right]`.

    Rows shorter than the padding are reflected repeatedly, so every index is within its row.
    """
    position = torch.arange(-left, y.size(1) + right, device=y.device)
    period = (2 * (y_lengths - 1)).clamp(min=1)[:, None]
    phase = position % period
    return torch.gather(y, 1, torch.minimum(phase, period - phase))


def _magnitude(y: Tensor, n_fft: int, hop_size: int, win_size: int, center: bool) -> Tensor:
    """Compute the magnitude `[b, n_fft // 2 + 1, t]` of the short-time Fourier transform of y `[b, samples]`."""
    window = _hann_window(win_size, dtype=y.dtype, device=y.device)
    with without_autocast(y):
        spec = torch.stft(y, n_fft, hop_size, win_size, window, center=center, return_complex=True)
        return torch.sqrt(spec.abs().square() + 1e-6)


# The tables below are cached for each combination of settings, dtype and device. They are made outside inference mode,
# because a tensor made in it cannot take part in training later.


@cache
def _hann_window(win_size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the periodic Hann window `[win_size]`."""
    with torch.inference_mode(False):
        return torch.hann_window(win_size, dtype=dtype, device="cpu").to(device)


@cache
def _mel_basis(dtype: torch.dtype, device: torch.device, **settings: Any) -> Tensor:
    """Return the triangular filters of equal area on Slaney's mel scale, `[num_mels, n_fft // 2 + 1]`."""
    from librosa.filters import mel  # imported late because librosa takes a second to import

    with torch.inference_mode(False):
        return torch.from_numpy(mel(**settings)).to(device, dtype)
