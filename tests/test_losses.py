"""The losses against their formulas, and their precision."""

import pytest
import torch

import losses
import mel_processing


def test_adversarial_losses():
    real, generated = [torch.tensor([1.0, 0.5])], [torch.tensor([0.0, 0.5])]
    loss, parts_r, parts_g = losses.discriminator_loss(real, generated)
    assert loss.item() == pytest.approx(0.125 + 0.125)
    assert [p.item() for p in parts_r] == [0.125] and [p.item() for p in parts_g] == [0.125]
    loss, parts = losses.generator_loss(generated * 2)
    assert loss.item() == pytest.approx(2 * (1 + 0.25) / 2) and len(parts) == 2


def test_masked_losses_are_means_over_valid_scores():
    scores = torch.tensor([[0.2, 0.4, 9.0], [0.6, 9.0, 9.0]]).unsqueeze(2)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).unsqueeze(2)
    loss, _ = losses.generator_loss([scores], mask)
    assert loss.item() == pytest.approx((0.8**2 + 0.6**2 + 0.4**2) / 3)
    twice, _ = losses.generator_loss([scores.repeat(2, 1, 1)], mask.repeat(2, 1, 1))
    assert twice.item() == pytest.approx(loss.item())
    both, _, _ = losses.discriminator_loss([scores], [scores], mask)
    assert both.item() == pytest.approx(loss.item() + (0.2**2 + 0.4**2 + 0.6**2) / 3)


def test_feature_loss_is_twice_the_distance_and_has_no_gradient_for_real_maps():
    real = [[torch.ones(2, 3, requires_grad=True)], [torch.zeros(4, requires_grad=True)]]
    generated = [[torch.zeros(2, 3, requires_grad=True)], [torch.full((4,), 3.0, requires_grad=True)]]
    loss = losses.feature_loss(real, generated)
    assert loss.item() == 2 * (1 + 3)
    loss.backward()
    assert real[0][0].grad is None and generated[0][0].grad is not None
    with pytest.raises(ValueError):
        losses.feature_loss(real, generated[:1])


def test_feature_loss_passes_the_choice_of_kernels_on(monkeypatch):
    choices = []
    monkeypatch.setattr(losses.fused, "l1_mean", lambda real, generated, kernels: choices.append(kernels) or real)
    for arguments in ((), (True,), (False,)):
        losses.feature_loss([[torch.zeros(())]], [[torch.zeros(())]], *arguments)
    assert choices == [True, True, False]


def test_kl_loss_equals_the_divergence_of_normal_distributions():
    torch.manual_seed(0)
    b, d, t = 400, 3, 50
    m_q, m_p, logs_q, logs_p = (0.5 * torch.randn(1, d, 1) for _ in range(4))
    z = m_q + torch.randn(b, d, t) * logs_q.exp()
    expand = [x.expand(b, d, t) for x in (logs_q, m_p, logs_p)]
    q, p = torch.distributions.Normal(m_q, logs_q.exp()), torch.distributions.Normal(m_p, logs_p.exp())
    exact = torch.distributions.kl_divergence(q, p).sum()
    assert losses.kl_loss(z, *expand, torch.ones(b, 1, t)).item() == pytest.approx(exact.item(), abs=0.03)


def test_kl_loss_is_the_mean_over_valid_frames():
    draws = [torch.randn(2, 4, 6) for _ in range(4)]
    mask = torch.ones(2, 1, 6)
    loss = losses.kl_loss(*draws, mask)
    padded = [torch.nn.functional.pad(x, (0, 3), value=7.0) for x in draws]
    assert losses.kl_loss(*padded, torch.nn.functional.pad(mask, (0, 3))).item() == pytest.approx(loss.item())
    assert losses.kl_loss(*(x.repeat(3, 1, 1) for x in (*draws, mask))).item() == pytest.approx(loss.item())


def test_stft_loss_equals_its_formula():
    y, y_hat = torch.randn(2, 2, 4096, generator=torch.Generator().manual_seed(1))
    expected = []
    for n_fft in mel_processing.FFT_SIZES:
        pad, window = 3 * n_fft // 8, torch.hann_window(n_fft)
        real, generated = (
            (torch.stft(padded, n_fft, n_fft // 4, window=window, center=False, return_complex=True).abs() ** 2 + 1e-6)
            ** 0.5
            for padded in (torch.nn.functional.pad(wav, (pad, pad), "reflect") for wav in (y, y_hat))
        )
        expected.append((real - generated).square().sum().sqrt() / real.square().sum().sqrt())
        expected.append((real.log() - generated.log()).abs().mean())
    torch.testing.assert_close(losses.stft_loss(y, y_hat), sum(expected) / 3)
    assert losses.stft_loss(y, y) == 0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_losses_are_computed_in_fp32(kind):
    def half(*shape):
        return (300 * torch.rand(*shape)).to(kind)

    scores, maps, zero = [half(2, 5)], [[half(2, 5)]], half(2, 3, 5) * 0
    values = [
        losses.discriminator_loss(scores, scores)[0],
        losses.generator_loss(scores)[0],
        losses.feature_loss(maps, [[half(2, 5)]]),
        losses.mel_loss(half(2, 5), half(2, 5)),
        losses.stft_loss(half(2, 5000) / 300, half(2, 5000) / 300),
        losses.kl_loss(half(2, 3, 5), zero, half(2, 3, 5), zero, torch.ones(2, 1, 5).to(kind)),
    ]
    assert all(value.dtype == torch.float32 and value.isfinite() for value in values)
