"""Spectrograms: linear magnitude, Slaney mel, and batches of padded utterances, on any device.

As in HiFi-GAN and VITS: reflection of (n_fft - hop) / 2 samples at both ends, periodic Hann window,
magnitude sqrt(re^2 + im^2 + 1e-6), log mel clamped at 1e-5. `samples // hop_size` frames come out.
All of it is computed in float32 (float64 stays float64), also under autocast and for half-precision input.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from commons import without_autocast


def spectrogram_torch(
    y: Tensor, n_fft: int, sampling_rate: int, hop_size: int, win_size: int, center: bool = False
) -> Tensor:
    """Linear magnitude spectrogram of waveforms of one length.

    y: `[b, samples]`, -1..1; returns `[b, n_fft // 2 + 1, samples // hop_size]`. `sampling_rate` changes nothing;
    VITS code passes it. Waveforms shorter than the reflection are reflected repeatedly.
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
    """Linear magnitude spectrograms of padded utterances, each as if it were computed alone.

    y: `[b, samples]`, zero or anything beyond each utterance's end; y_lengths: `[b]`, in samples.
    Returns `[b, n_fft // 2 + 1, samples // hop_size]`, 0 beyond each end, and the frame counts
    `y_lengths // hop_size`. Each utterance is reflected at its own end; nothing waits for the device.
    """
    y = _full_precision(y)
    y_lengths = y_lengths.long()
    left, right = _reflection(n_fft, hop_size)
    spec = _magnitude(_reflect_at(y, y_lengths, left, right), n_fft, hop_size, win_size, center=False)
    spec_lengths = y_lengths // hop_size
    inside = torch.arange(spec.size(2), device=y.device) < spec_lengths[:, None, None]
    return torch.where(inside, spec, 0.0), spec_lengths


def spec_to_mel_torch(
    spec: Tensor, n_fft: int, num_mels: int, sampling_rate: int, fmin: float, fmax: float | None
) -> Tensor:
    """Natural log of the Slaney mel spectrum. spec: `[b, n_fft // 2 + 1, t]`; returns `[b, num_mels, t]`."""
    with without_autocast(spec):
        spec = _full_precision(spec)
        basis = _mel_basis(n_fft, num_mels, sampling_rate, fmin, fmax, dtype=spec.dtype, device=spec.device)
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
    """Log mel spectrogram of waveforms. y: `[b, samples]`; returns `[b, num_mels, samples // hop_size]`."""
    spec = spectrogram_torch(y, n_fft, sampling_rate, hop_size, win_size, center)
    return spec_to_mel_torch(spec, n_fft, num_mels, sampling_rate, fmin, fmax)


def log_mel(wav: Tensor, data) -> Tensor:
    """Log-mel spectrogram `[b, bands, t]` of `wav` `[b, samples]` by a config's data section."""
    return mel_spectrogram_torch(
        wav,
        data.filter_length,
        data.n_mel_channels,
        data.sampling_rate,
        data.hop_length,
        data.win_length,
        data.mel_fmin,
        data.mel_fmax,
    )


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _reflection(n_fft: int, hop_size: int) -> tuple[int, int]:
    """Samples to add before and after: `samples // hop_size` frames fit even if n_fft - hop_size is odd."""
    left = (n_fft - hop_size) // 2
    return left, n_fft - hop_size - left


def _reflect_at(y: Tensor, y_lengths: Tensor, left: int, right: int) -> Tensor:
    """Reflect each row of `y` `[b, samples]` at both of its own ends; returns `[b, left + samples + right]`.

    Positions bounce between the two ends as often as needed, so no index leaves a row however short it is.
    """
    position = torch.arange(-left, y.size(1) + right, device=y.device)
    period = (2 * (y_lengths - 1)).clamp(min=1)[:, None]
    phase = position % period
    return torch.gather(y, 1, torch.minimum(phase, period - phase))


def _magnitude(y: Tensor, n_fft: int, hop_size: int, win_size: int, center: bool) -> Tensor:
    """Magnitude of the short-time spectrum of `[b, samples]`: `[b, n_fft // 2 + 1, t]`."""
    window = _hann_window(win_size, dtype=y.dtype, device=y.device)
    with without_autocast(y):
        spec = torch.stft(y, n_fft, hop_size, win_size, window, center=center, return_complex=True)
        return torch.sqrt(spec.abs().square() + 1e-6)


def _table(build):
    """Keep every table that `build` makes, keyed by its settings, dtype and device.

    Kept tables are built outside inference mode: a tensor made inside cannot take part in training later.
    A graph under torch.compile builds its own, since a tensor of one graph must not outlive it.
    """

    @cache
    def kept(*settings, dtype, device):
        with torch.inference_mode(False):
            return build(*settings, dtype, torch.device("cpu")).to(device)

    def table(*settings, dtype, device):
        return (build if torch.compiler.is_compiling() else kept)(*settings, dtype=dtype, device=device)

    return table


@_table
def _hann_window(win_size, dtype, device):
    """Periodic Hann window `[win_size]`."""
    return torch.hann_window(win_size, dtype=dtype, device=device)


def _mel_basis(*settings, dtype, device):
    """Triangles of equal area on Slaney's mel scale, `[num_mels, n_fft // 2 + 1]`."""
    if torch.compiler.is_compiling():  # librosa is no code to compile
        return torch.compiler.disable(_kept_mel_basis)(*settings, dtype=dtype, device=device)
    return _kept_mel_basis(*settings, dtype=dtype, device=device)


@cache
def _kept_mel_basis(n_fft, num_mels, sampling_rate, fmin, fmax, dtype, device):
    from librosa.filters import mel  # here, because librosa takes a second to import

    basis = mel(sr=sampling_rate, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax)
    with torch.inference_mode(False):
        return torch.from_numpy(basis).to(device, dtype)
