"""Spectrograms against golden values and librosa, and batches against single utterances."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mel_processing as mp

N_FFT, HOP, WIN, RATE, BANDS = 1024, 256, 1024, 22050, 80
GOLDEN = np.load(Path(__file__).parent / "golden" / "mel.npz")
STFT = (N_FFT, RATE, HOP, WIN)


def assert_near(actual, expected, tolerance=1e-5):
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_golden_spectrograms():
    wav = torch.from_numpy(GOLDEN["wav"])
    assert_near(mp.spectrogram_torch(wav, *STFT), GOLDEN["spec"])
    assert_near(
        mp.spec_to_mel_torch(torch.from_numpy(GOLDEN["spec"]), N_FFT, BANDS, RATE, 0.0, None), GOLDEN["mel_from_spec"]
    )


@pytest.mark.parametrize(("name", "fmin", "fmax"), [("mel", 0.0, None), ("mel_20_7600", 20, 7600)])
def test_golden_log_mels(name, fmin, fmax):
    """Magnitudes agree to 1e-5; the logarithm amplifies the rounding errors of the smallest ones."""
    mel = mp.mel_spectrogram_torch(torch.from_numpy(GOLDEN["wav"]), N_FFT, BANDS, *STFT[1:], fmin, fmax)
    assert_near(mel.exp(), np.exp(GOLDEN[name]))
    assert_near(mel, GOLDEN[name], 1e-4)


@pytest.mark.parametrize(
    "n_fft, hop, win, rate, bands, fmin, fmax",
    [(1024, 256, 1024, 22050, 80, 0.0, None), (2048, 512, 1200, 44100, 128, 55.0, 16000.0)],
)
def test_spectrograms_equal_those_of_librosa(n_fft, hop, win, rate, bands, fmin, fmax):
    wav = noise(1, 20 * hop)
    padded = np.pad(wav[0].numpy(), (n_fft - hop) // 2, mode="reflect")
    magnitude = np.abs(librosa.stft(padded, n_fft=n_fft, hop_length=hop, win_length=win, center=False))
    magnitude = np.sqrt(magnitude**2 + 1e-6)
    basis = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=fmin, fmax=fmax)
    mel = np.log(np.clip(basis @ magnitude, 1e-5, None))
    assert_near(mp.spectrogram_torch(wav, n_fft, rate, hop, win)[0], magnitude)
    assert_near(mp.mel_spectrogram_torch(wav, n_fft, bands, rate, hop, win, fmin, fmax)[0], mel)


def test_cached_tables_depend_on_every_setting():
    settings_of_basis = [
        (N_FFT, BANDS, RATE, 0.0, None),
        (512, BANDS, RATE, 0.0, None),
        (N_FFT, 100, RATE, 0.0, None),
        (N_FFT, BANDS, 16000, 0.0, None),
        (N_FFT, BANDS, RATE, 30.0, None),
        (N_FFT, BANDS, RATE, 0.0, 8000.0),
    ]
    for _ in range(2):
        for n_fft, bands, rate, fmin, fmax in settings_of_basis:
            for dtype in (torch.float32, torch.float64):
                mel = mp.spec_to_mel_torch(torch.eye(n_fft // 2 + 1, dtype=dtype)[None], n_fft, bands, rate, fmin, fmax)
                basis = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=fmin, fmax=fmax, dtype=np.float64)
                assert mel.dtype == dtype
                assert_near(mel[0], torch.from_numpy(np.log(np.clip(basis, 1e-5, None))).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_and_autocast_compute_in_float32(dtype):
    wav = noise(2, 4096).to(dtype)
    expected = mp.mel_spectrogram_torch(wav.float(), N_FFT, BANDS, *STFT[1:], 0.0, None)
    with torch.autocast("cpu", torch.bfloat16):
        mel = mp.mel_spectrogram_torch(wav, N_FFT, BANDS, *STFT[1:], 0.0, None)
        spec, _ = mp.spectrogram_of_batch(wav, torch.tensor([4096, 2048]), N_FFT, HOP, WIN)
    assert mel.dtype == spec.dtype == torch.float32
    assert_near(mel, expected, 0)


def test_tables_made_in_inference_mode_work_in_training():
    with torch.inference_mode():
        mp.mel_spectrogram_torch(noise(1, 4000), 400, 33, 8000, 100, 400, 0.0, None)
    wav = noise(1, 4000).requires_grad_()
    mp.mel_spectrogram_torch(wav, 400, 33, 8000, 100, 400, 0.0, None).mean().backward()
    assert wav.grad.isfinite().all() and wav.grad.abs().sum() > 0


def test_digital_silence_has_finite_gradients():
    wav = torch.zeros(1, 4096, requires_grad=True)
    mp.mel_spectrogram_torch(wav, N_FFT, BANDS, *STFT[1:], 0.0, None).sum().backward()
    assert wav.grad.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    odd=st.integers(0, 15),
    stft=st.sampled_from([(64, 16, 64), (64, 16, 40), (64, 63, 64), (32, 32, 32), (63, 16, 63)]),
    seed=st.integers(0, 99),
)
def test_batch_and_single_utterances_have_equal_spectrograms(lengths, odd, stft, seed):
    n_fft, hop, win = stft
    lengths = torch.tensor([hop * n + odd for n in lengths])
    wav = noise(
        len(lengths), int(lengths.max()) + odd, seed=seed
    )  # samples after the end of an utterance must have no effect
    spec, frames = mp.spectrogram_of_batch(wav, lengths, n_fft, hop, win)
    assert spec.shape == (len(lengths), n_fft // 2 + 1, wav.size(1) // hop)
    assert frames.tolist() == (lengths // hop).tolist()
    for item, n_samples, n_frames, samples in zip(spec, lengths, frames, wav):
        alone = mp.spectrogram_torch(samples[None, :n_samples], n_fft, RATE, hop, win)[0]
        assert alone.size(1) == n_frames
        torch.testing.assert_close(item[:, :n_frames], alone, rtol=1e-4, atol=1e-4)
        assert (item[:, n_frames:] == 0).all()


@pytest.mark.parametrize("samples", [1, 2, HOP, 384, 385, 386, 1000])
def test_reflection_of_short_waveforms_equals_that_of_numpy(samples):
    wav = noise(1, samples)
    padded = torch.from_numpy(np.pad(wav.numpy(), ((0, 0), (384, 384)), mode="reflect"))
    index = mp._reflect_at(wav, torch.tensor([samples]), 384, 384)
    assert_near(index, padded, 0)
    if samples >= HOP:
        expected = mp._magnitude(padded, N_FFT, HOP, WIN, False)
        assert_near(mp.spectrogram_torch(wav, *STFT), expected, 1e-6)


def voice(f0, seconds=1.0):
    """Return a sum of harmonics that fall by 6 dB an octave, with some noise."""
    t = torch.arange(int(seconds * RATE)) / RATE
    numbers = torch.arange(1, int(5000 / f0)).unsqueeze(1)
    wav = (torch.sin(2 * torch.pi * f0 * numbers * t + numbers) / numbers).sum(0)
    return 0.1 * wav + 0.01 * noise(len(wav))


@pytest.mark.parametrize("f0", [70, 110, 210, 333, 480])
def test_the_fundamental_frequency_of_a_voice(f0):
    spec = mp.spectrogram_torch(torch.stack([voice(f0), 0.01 * voice(f0)]), *STFT)
    measured = mp.fundamental_frequency(spec, RATE)
    assert measured.shape == (2, 1, spec.size(2))
    assert ((measured[:, :, 4:-4] / f0).log2().abs() < 0.01).all()


def test_noise_and_silence_are_unvoiced():
    spec = mp.spectrogram_torch(torch.stack([noise(RATE), torch.zeros(RATE)]), *STFT)
    unvoiced = mp.fundamental_frequency(spec, RATE)[:, 0, 4:-4] == 0
    assert unvoiced[0].float().mean() > 0.98 and unvoiced[1].all()
