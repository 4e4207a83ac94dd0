"""Vocos and MB-iSTFT: spectra, inverse STFT, filter bank, precision, learning.

Streams and exports of all decoders are tested elsewhere.
"""

import numpy as np
import onnx
import pytest
import tiny
import tiny_voices
import torch
from torch import nn

import config as configs
import export_onnx
import mel_processing
from decoders import DECODERS, MAX_MAGNITUDE, ConvNeXtBlock, HarmonicVocos, MultiBand, Vocos
from models import SynthesizerTrn
from synthesis import Voice
from trainer import Trainer

SMALL = tiny.ROOT / "configs/vits2_small.json"
SMALL_IN_BANDS = tiny.ROOT / "configs/vits2_small_mb.json"
SETTINGS = [(256, 64), (96, 32), (64, 32), (30, 6), (36, 12)]  # FFT size and hop


def draws(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


def vocos(n_fft=256, hop=64, gin_channels=0, channels=16, seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Vocos(8, channels, 3, n_fft, hop, gin_channels)


def harmonic_vocos(n_fft=256, hop=64, gin_channels=0, channels=16, seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return HarmonicVocos(8, channels, 3, n_fft, hop, gin_channels)


def excited(dec, z):
    """Return latents with the extra channels of a decoder, for a voice that glides from 220 Hz at 22,050 Hz."""
    f0 = torch.linspace(0.01, 0.015, z.size(2)).expand(len(z), 1, -1)
    return dec.excite(z, torch.ones_like(f0), f0=f0)


def mb_istft(subbands=4, n_fft=16, hop=4, gin_channels=0, channels=16, rates=(4, 2), seed=0):
    trunk = {
        "initial_channel": 8,
        "resblock": "2",
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "upsample_rates": list(rates),
        "upsample_initial_channel": channels,
        "upsample_kernel_sizes": [2 * rate for rate in rates],
        "gin_channels": gin_channels,
    }
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return MultiBand(subbands, n_fft, hop, **trunk)


BUILDERS = {"vocos": vocos, "harmonic_vocos": harmonic_vocos, "mb_istft": mb_istft}


def summed(spectrum, hop):
    """Return the inverse STFT of `[bins, t]` by NumPy, frame by frame."""
    n_fft, t = 2 * (len(spectrum) - 1), spectrum.shape[1]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    total, squares = np.zeros((2, (t - 1) * hop + n_fft))
    for i, frame in enumerate(np.fft.irfft(spectrum.T, n_fft)):
        total[i * hop : i * hop + n_fft] += frame * window
        squares[i * hop : i * hop + n_fft] += window**2
    start = (n_fft - hop) // 2
    return total[start : start + t * hop] / squares[start : start + t * hop]


@pytest.mark.parametrize(("n_fft", "hop"), SETTINGS)
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_the_inverse_stft_equals_sums_of_frames(n_fft, hop, frames):
    real, imaginary = draws(2, 2, n_fft // 2 + 1, frames, dtype=torch.double)
    audio = mel_processing.inverse_stft(real, imaginary, hop)
    assert audio.shape == (2, frames * hop)
    for row, spectrum in zip(audio, torch.complex(real, imaginary)):
        np.testing.assert_allclose(row, summed(spectrum.numpy(), hop), atol=1e-12)


@pytest.mark.parametrize(("n_fft", "hop"), SETTINGS)
def test_the_inverse_stft_equals_that_of_torch(n_fft, hop):
    """`torch.istft` returns the samples from the middle of the first window to the middle of the last one."""
    real, imaginary = draws(2, 2, n_fft // 2 + 1, 9, dtype=torch.double)
    window = torch.hann_window(n_fft, dtype=torch.double)
    expected = torch.istft(torch.complex(real, imaginary), n_fft, hop, window=window)
    start = n_fft // 2 - (n_fft - hop) // 2
    audio = mel_processing.inverse_stft(real, imaginary, hop)
    torch.testing.assert_close(audio[:, start : start + expected.size(1)], expected)


def packed_irfft(spectrum, n):
    """Compute `irfft` by a complex transform of half the length, as cuFFT does, which mixes in what others ignore."""
    half = n // 2
    mirrored = spectrum[..., 1 : half + 1].flip(-1).conj()
    turn = 1j * torch.exp(2j * torch.pi * torch.arange(half) / n)
    both = spectrum[..., :half] + mirrored + turn * (spectrum[..., :half] - mirrored)
    return torch.view_as_real(torch.fft.ifft(both) / 2).flatten(-2)


def test_the_inverse_stft_ignores_imaginary_parts_that_real_signals_do_not_have(monkeypatch):
    real, imaginary = draws(2, 2, 33, 9, dtype=torch.double)
    expected = mel_processing.inverse_stft(real, imaginary, 16)
    wrong = packed_irfft(torch.complex(real, imaginary).transpose(1, 2), 64)
    assert (wrong - torch.fft.irfft(torch.complex(real, imaginary).transpose(1, 2), 64)).abs().max() > 0.01
    monkeypatch.setattr("torch.fft.irfft", packed_irfft)
    torch.testing.assert_close(mel_processing.inverse_stft(real, imaginary, 16), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_audio_on_the_gpu_equals_that_on_the_cpu(decoder):
    model = tiny.config(model=tiny.DECODERS[decoder]).model
    dec = DECODERS[decoder].from_config(model, 0).eval()
    z = excited(dec, draws(2, model.inter_channels, 40))
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = dec(z)
        audio = dec.cuda()(z.cuda()).cpu()
    torch.testing.assert_close(audio, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop"), SETTINGS)
def test_the_inverse_stft_inverts_the_stft(n_fft, hop):
    wav, pad = draws(2, 20 * hop, dtype=torch.double), (n_fft - hop) // 2
    padded = nn.functional.pad(wav, (pad, n_fft - hop - pad), "reflect")
    window = torch.hann_window(n_fft, dtype=torch.double)
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    torch.testing.assert_close(mel_processing.inverse_stft(spectrum.real, spectrum.imag, hop), wav)


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 64), (100, 64), (160, 64)])
def test_windows_that_leave_gaps_are_refused(n_fft, hop):
    with pytest.raises(ValueError, match=rf"the FFT size \({n_fft}\) must be a multiple of the hop \({hop}\)"):
        mel_processing.overlap_add(torch.zeros(1, 3, n_fft), hop)


@pytest.mark.parametrize("gin", [0, 6])
@pytest.mark.parametrize(("n_fft", "hop"), SETTINGS)
def test_audio_is_the_inverse_stft_of_magnitude_and_phase(n_fft, hop, gin):
    dec, outputs = vocos(n_fft, hop, gin), []
    dec.conv_post.weight.data *= 3
    dec.conv_post.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    audio = dec(draws(2, 8, 13), draws(2, gin, 1) if gin else None)
    assert audio.shape == (2, 1, 13 * hop)
    log_magnitude, phase = outputs[0].detach().double().chunk(2, 1)
    spectrum = log_magnitude.exp().clamp_max(MAX_MAGNITUDE) * torch.exp(1j * phase)
    expected = np.stack([summed(row.numpy(), hop) for row in spectrum])
    assert np.abs(expected).max() > 1  # some samples are clipped
    np.testing.assert_allclose(audio.detach()[:, 0], expected.clip(-1, 1), atol=1e-5)


def split(wav, bands):
    """Return the signals of the bands of `[b, n * bands]` by the analysis filters: `[b, bands, n + ...]`."""
    filters = mel_processing.band_filters(bands)[0]
    return torch.conv1d(wav.unsqueeze(1), filters.flip(1).unsqueeze(1), stride=bands, padding=filters.size(1) - 1)


@pytest.mark.parametrize("bands", [2, 3, 4, 5, 8])
def test_the_filter_bank_restores_noise(bands):
    wav = draws(1, 2000 * bands, dtype=torch.double)
    synthesis = mel_processing.band_filters(bands)[1]
    back = torch.conv_transpose1d(split(wav, bands), synthesis.unsqueeze(1), stride=bands)[:, 0]
    delay = synthesis.size(1) - 1
    error = back[:, delay : delay + wav.size(1)] - wav
    assert 10 * (wav.square().sum() / error.square().sum()).log10() > 62


@pytest.mark.parametrize("bands", [2, 4, 8])
def test_each_band_has_its_range_of_frequencies(bands):
    for band in range(bands):
        tone = torch.sin((band + 0.5) * torch.pi / bands * torch.arange(400 * bands, dtype=torch.double)).unsqueeze(0)
        power = split(tone, bands)[0, :, 50:-50].square().mean(1)
        assert power[band] == pytest.approx(0.5, rel=0.02) and power.sum() - power[band] < 1e-6


def test_a_filter_bank_has_two_or_more_bands():
    with pytest.raises(ValueError, match="needs two or more bands, not 1"):
        mel_processing.band_filters(1)


@pytest.mark.parametrize("gin", [0, 6])
@pytest.mark.parametrize(("bands", "n_fft", "hop"), [(4, 16, 4), (4, 16, 8), (2, 30, 6), (3, 12, 4)])
def test_audio_is_the_sum_of_bands_of_inverse_stfts(bands, n_fft, hop, gin):
    dec, outputs = mb_istft(bands, n_fft, hop, gin), []
    dec.conv_post.weight.data *= 30
    dec.conv_post.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    audio = dec(draws(2, 8, 13), draws(2, gin, 1) if gin else None)
    assert audio.shape == (2, 1, 13 * dec.hop) and dec.hop == 8 * bands * hop
    log_magnitude, phase = outputs[0].detach().double().chunk(2, 1)
    magnitude = log_magnitude.exp().clamp_max(MAX_MAGNITUDE)
    real, imaginary = (
        (magnitude * part).unflatten(1, (bands, -1)).flatten(0, 1) for part in (phase.cos(), phase.sin())
    )
    signals = mel_processing.inverse_stft(real, imaginary, hop).unflatten(0, (2, bands))
    filters = mel_processing.band_filters(bands)[1]
    expected = torch.conv_transpose1d(signals, filters.unsqueeze(1), stride=bands)
    expected = expected[:, :, (filters.size(1) + 1) // 2 :][:, :, : audio.size(2)]
    inner = slice(bands * n_fft, -bands * n_fft)  # at the ends, the sum of the windows is incomplete
    assert expected[:, :, inner].abs().max() > 1  # some samples are clipped
    torch.testing.assert_close(audio[:, :, inner].double(), expected[:, :, inner].clamp(-1, 1), atol=3e-5, rtol=0)


@pytest.mark.parametrize("decoder", [vocos, harmonic_vocos])
@pytest.mark.parametrize("n_fft", [30, 256, 1024])
def test_the_form_for_onnx_equals_the_decoder(n_fft, decoder):
    dec = decoder(n_fft, n_fft // 2).eval()
    with torch.no_grad():
        for frames in (1, 2, 30):
            z = excited(dec, draws(2, 8, frames))
            torch.testing.assert_close(dec.onnx_form()(z), dec(z), atol=1e-6, rtol=0)
    assert not [name for name in dec.state_dict() if "sine" in name]


def test_fixed_kernels_are_not_in_checkpoints():
    assert not [name for name in mb_istft().state_dict() if "synthesis" in name]


def harmonics_alone(dec):
    """Let a decoder have equal harmonics without shift, and no free part."""
    with torch.no_grad():
        dec.conv_post.weight.zero_()
        bins = dec.n_fft // 2 + 1
        dec.conv_post.bias.copy_(torch.tensor([-1.0, 0.0, -100.0, 0.0]).repeat_interleave(bins))


@pytest.mark.parametrize("f0", [0.0035, 0.008, 0.021])
def test_harmonics_are_cosines_of_the_fundamental_frequency(f0):
    dec = harmonic_vocos(1024, 256)
    harmonics_alone(dec)
    frames, track = 60, torch.full((1, 1, 60), f0)
    with torch.no_grad():
        audio = dec(dec.excite(torch.zeros(1, 8, frames), torch.ones_like(track), f0=track))[0, 0].double()
    # the middle of the first frame is sample 128, after half a hop of cycles
    n = torch.arange(len(audio), dtype=torch.double) - 128
    numbers = torch.arange(1, int(0.5 / f0), dtype=torch.double).unsqueeze(1)
    expected = torch.cos(2 * torch.pi * numbers * (f0 * n + f0 * 128)).sum(0)
    inner = slice(2048, -2048)
    similarity = torch.cosine_similarity(audio[inner], expected[inner], 0)
    assert similarity > 0.97
    silent = dec(dec.excite(torch.zeros(1, 8, frames), torch.ones_like(track), f0=0 * track))
    assert silent.abs().max() < 1e-4  # no harmonics in unvoiced frames


def test_phases_are_those_of_the_whole_utterance():
    dec = harmonic_vocos(gin_channels=4).eval()
    with torch.no_grad():
        dec.pitch.proj.bias[1] = 5.0  # voiced
        z, g = draws(1, 8, 90), draws(1, 4, 1)
        latent = dec.excite(z, torch.ones(1, 1, 90), g)
        assert (latent[:, 8] > 0).all() and ((latent[:, 9] >= 0) & (latent[:, 9] < 1)).all()
        whole, start, end = dec(latent, g), 40, 60
        part = dec(latent[:, :, start - dec.context : end + dec.context], g)
        hop, inside = dec.hop, slice(dec.context * dec.hop, (dec.context + end - start) * dec.hop)
        torch.testing.assert_close(part[:, :, inside], whole[:, :, start * hop : end * hop], atol=1e-5, rtol=0)
        padded = dec.excite(torch.cat([z, draws(1, 8, 30)], 2), torch.arange(120).lt(90).float().expand(1, 1, -1), g)
        torch.testing.assert_close(padded[:, :, :90], latent)


def test_the_pitch_loss_trains_the_predictor_and_the_latent():
    dec, z = harmonic_vocos(), draws(2, 8, 20).requires_grad_()
    f0, mask = torch.full((2, 1, 20), 0.01), torch.ones(2, 1, 20)
    f0[:, :, 10:], mask[1, :, 15:] = 0, 0
    log_f0, voicing = dec.pitch(z, mask)
    voiced = (log_f0 - torch.tensor(0.01).log()).abs()[:, :, :10].mean()
    entropy = nn.functional.softplus(torch.where(f0 > 0, -voicing, voicing))[mask.bool()].mean()
    loss = dec.pitch_loss(z, mask, None, f0)
    torch.testing.assert_close(loss, voiced + entropy)
    loss.backward()
    assert z.grad[0].any() and not z.grad[1, :, 15:].any()
    assert all(weight.grad.any() for weight in dec.pitch.parameters())


@pytest.mark.parametrize("decoder", BUILDERS)
def test_gradients_are_finite_where_the_magnitude_is_limited(decoder):
    dec = BUILDERS[decoder]()
    with torch.no_grad():
        dec.conv_post.bias[:3] = 200  # their exponential is infinite
    z = draws(1, 8, 5).requires_grad_()
    audio = dec(excited(dec, z))
    assert audio.isfinite().all()
    audio.square().sum().backward()
    gradients = [z.grad, *(weight.grad for name, weight in dec.named_parameters() if not name.startswith("pitch."))]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not dec.conv_post.bias.grad[:3].any()


@pytest.mark.parametrize("path", [SMALL, SMALL_IN_BANDS], ids=lambda path: path.stem)
def test_the_first_audio_is_neither_silent_nor_clipped(path):
    config = configs.load(path)
    torch.manual_seed(0)
    dec = SynthesizerTrn.from_config(config, 178).dec
    audio = dec(excited(dec, draws(4, config.model.inter_channels, 100)))
    assert 0.005 < audio.std() < 0.1 and audio.abs().max() < 0.5


def test_the_block_equals_its_formula():
    torch.manual_seed(0)
    block, x = ConvNeXtBlock(4, 0.5), draws(2, 4, 9)
    y = torch.conv1d(x, block.depthwise.weight, block.depthwise.bias, padding=3, groups=4)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    y = torch.einsum("oi,bit->bot", block.expand.weight[:, :, 0], y) + block.expand.bias[:, None]
    y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
    y = torch.einsum("oi,bit->bot", block.contract.weight[:, :, 0], y) + block.contract.bias[:, None]
    torch.testing.assert_close(block(x), x + 0.5 * y, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decoder", BUILDERS)
def test_spectrum_and_audio_are_fp32_in_half_precision(decoder, dtype):
    dec, seen = BUILDERS[decoder](channels=64), {}
    for name in ("conv_pre", "conv_post"):
        dec.get_submodule(name).register_forward_hook(lambda _, inputs, out, name=name: seen.update({name: out.dtype}))
    z = excited(dec, draws(2, 8, 12))
    with torch.autocast("cpu", dtype):
        audio = dec(z)
    assert seen == {"conv_pre": dtype, "conv_post": torch.float32}
    assert audio.dtype == torch.float32
    assert 0 < (audio - dec(z)).abs().max() < 0.05 * dec(z).abs().max()
    audio.square().sum().backward()
    weights = (weight for name, weight in dec.named_parameters() if not name.startswith("pitch."))
    assert all(weight.grad.isfinite().all() for weight in weights)


CONVNEXT_LAYERS = "conv_pre", "blocks.1.expand", "blocks.2.contract"
LAYERS = {"vocos": CONVNEXT_LAYERS, "harmonic_vocos": CONVNEXT_LAYERS, "mb_istft": ("conv_pre", "ups.1", "ups.0")}


@pytest.mark.parametrize("decoder", BUILDERS)
def test_the_half_copy_overflows_to_audio_that_is_not_finite(decoder):
    dec = BUILDERS[decoder]().eval()
    dec.remove_weight_norm()
    z = excited(dec, draws(1, 8, 12))
    with torch.no_grad():
        expected, spoken = dec(z), dec.half_copy()(z)
        assert spoken.dtype == torch.float32
        assert 0 < (spoken - expected).abs().max() < 5e-3 * expected.abs().max()
        louder = torch.cat([100 * z[:, :8], z[:, 8:]], 1)
        for layer in map(dec.get_submodule, LAYERS[decoder]):
            weight = layer.weight.clone()
            layer.weight *= 6e4 / weight.abs().max()
            assert all(parameter.isfinite().all() for parameter in dec.half_copy().parameters())
            assert dec(z).isfinite().all() and not dec.half_copy()(louder).isfinite().all()
            layer.weight.copy_(weight)


@pytest.mark.parametrize("decoder", BUILDERS)
def test_recomputation_gives_the_same_gradients(decoder):
    dec = BUILDERS[decoder](gin_channels=4)
    z, gradients = excited(dec, draws(2, 8, 12)), []
    for recompute in (False, True):
        dec.recompute = recompute
        dec.zero_grad()
        dec(z, draws(2, 4, 1)).square().sum().backward()
        gradients.append([weight.grad.clone() for weight in dec.parameters() if weight.grad is not None])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", BUILDERS)
def test_it_learns_an_utterance_inside_the_network(decoder):
    config = tiny.config(
        train={"learning_rate": 2e-3, "segment_size": 40 * tiny.HOP},
        model={**tiny.DECODERS[decoder], "convnext_channels": 32},
    )
    run, data = Trainer(config, torch.device("cpu")), tiny.batch(config, (40,), (6,))
    data.wav.copy_(torch.from_numpy(tiny.speech(40 * tiny.HOP / tiny.RATE)))
    errors = []
    for _ in range(60):
        errors.append(run.step(data)["loss/g/mel"].item())
        run.position.step += 1
    assert np.mean(errors[-5:]) < 0.5 * np.mean(errors[:5])


@pytest.mark.parametrize("decoder", ["harmonic_vocos", "mb_istft"])
def test_sizes_of_the_small_configs(decoder):
    config = configs.load({"harmonic_vocos": SMALL, "mb_istft": SMALL_IN_BANDS}[decoder])
    run = Trainer(config, torch.device("cpu"))
    count = {name: sum(p.numel() for p in learner.network.parameters()) for name, learner in run.learners.items()}
    posterior = sum(p.numel() for p in run.generator.network.enc_q.parameters())
    assert config.model.decoder == decoder
    assert 4e6 < count["generator"] - posterior <= 7e6
    assert 2 * sum(count.values()) <= 32 * 2**20  # bytes in fp16


def test_the_posterior_encoder_has_the_size_of_its_keys():
    net = SynthesizerTrn.from_config(tiny.config(model={"posterior_channels": 12, "posterior_layers": 3}), 178)
    assert len(net.enc_q.enc.in_layers) == 3 and net.enc_q.pre.out_channels == 12
    net = SynthesizerTrn.from_config(tiny.config(model={"n_layers_q": 3}), 178)
    assert len(net.enc_q.enc.in_layers) == 16 and net.enc_q.pre.out_channels == 8


def test_the_export_of_the_small_config_has_few_more_numbers_than_its_weights(tmp_path):
    conf = configs.load(SMALL)
    voice = Voice(tiny_voices.network(conf), conf)
    export_onnx.export(voice, tmp_path / "v.onnx")
    stored = sum(int(np.prod(t.dims)) for t in onnx.load(tmp_path / "v.onnx").graph.initializer)
    weights = sum(p.numel() for name, p in voice.net.named_parameters() if not name.startswith("enc_q"))
    assert weights < stored < weights + 2 * 513**2 + 10_000
