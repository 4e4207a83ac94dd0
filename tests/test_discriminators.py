"""Spectrogram discriminators: their input, their gradients, and their part in the training step."""

import pytest
import tiny
import torch

from discriminators import FFT_SIZES, DiscriminatorSTFT, MultiPeriodDiscriminator
from trainer import STFT_WEIGHT, Trainer

STFT = {"model": {"stft_discriminator_channels": 4}}
CPU = torch.device("cpu")


@pytest.mark.parametrize("n_fft", FFT_SIZES)
def test_the_input_is_the_magnitude_over_time_and_frequency(n_fft):
    net, seen = DiscriminatorSTFT(n_fft, 4), []
    net.convs[0].register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    x = torch.randn(2, 1, 8192)
    scores, maps = net(x)
    pad = 3 * n_fft // 8
    padded = torch.nn.functional.pad(x, (pad, pad), "reflect").squeeze(1)
    spectrum = torch.stft(padded, n_fft, n_fft // 4, window=torch.hann_window(n_fft), center=False, return_complex=True)
    torch.testing.assert_close(seen[0], spectrum.abs().transpose(1, 2).unsqueeze(1), atol=2e-3, rtol=1e-4)
    frames = 8192 // (n_fft // 4)
    assert [fmap.shape[2] for fmap in maps] == [frames] * 6 and maps[-1].shape == (2, 1, frames, n_fft // 16 + 1)
    assert scores.shape == (2, frames * (n_fft // 16 + 1))


@pytest.mark.parametrize("spectral", [False, True])
def test_every_weight_and_the_waveform_get_gradients(spectral):
    net = MultiPeriodDiscriminator(spectral, 64, stft_channels=4)
    audio = torch.randn(2, 1, 4096).requires_grad_()
    scores, _ = net.discriminate(audio)
    assert len(scores) == net.n_waveform + len(FFT_SIZES) == len(net.discriminators)
    for score in scores[net.n_waveform :]:
        (gradient,) = torch.autograd.grad(score.sum(), audio, retain_graph=True)
        assert gradient.isfinite().all() and gradient.any()
    sum(score.square().sum() for score in scores).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


def test_they_have_losses_of_their_own_with_a_weight():
    config = tiny.config(STFT)
    run, data = Trainer(config, CPU), tiny.batch(config)
    spectra, out = run.generate(data)
    plain = run.adversarial_losses(run.learners["discriminator"], data, out)
    terms = run.generator_losses(data, spectra, out)
    assert set(plain) == {"gen", "fm", "gen_stft", "fm_stft"}
    for name, loss in plain.items():
        weight = STFT_WEIGHT if name.endswith("_stft") else 1
        torch.testing.assert_close(terms[name], weight * loss)
    before = [p.clone() for p in run.learners["discriminator"].network.discriminators[-1].parameters()]
    assert all(value.isfinite() for value in run.step(data).values())
    after = run.learners["discriminator"].network.discriminators[-1].parameters()
    assert all(not torch.equal(old, new) for old, new in zip(before, after))


def test_they_are_off_by_default():
    config = tiny.config()
    run = Trainer(config, CPU)
    assert not any(isinstance(m, DiscriminatorSTFT) for m in run.learners["discriminator"].network.modules())
    assert not [name for name in run.step(tiny.batch(config)) if name.endswith("_stft")]
