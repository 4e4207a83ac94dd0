"""The losses of VITS and VITS2, computed in fp32 for inputs of any precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import fused
from mel_processing import FFT_SIZES, spectrogram_torch


def feature_loss(fmap_r: list[list[Tensor]], fmap_g: list[list[Tensor]], use_kernels: bool = True) -> Tensor:
    """Compute the feature matching loss: twice the sum of L1 distances of all feature maps (HiFi-GAN, section 2.4).

    Args: fmap_r, fmap_g: feature maps `[b, c, ...]` of real and generated waveforms, a list for each discriminator;
    use_kernels: use a Triton kernel if it handles the tensors. Only the generated maps get a gradient.
    Raises ValueError if the lists differ in length.
    """
    first, *others = [
        fused.l1_mean(real, generated, use_kernels)
        for maps_r, maps_g in zip(fmap_r, fmap_g, strict=True)
        for real, generated in zip(maps_r, maps_g, strict=True)
    ]
    return 2 * sum(others, first)


def discriminator_loss(
    disc_real_outputs: list[Tensor], disc_generated_outputs: list[Tensor], mask: Tensor | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Compute the least-squares loss of discriminators, with targets 1 for real and 0 for generated scores.

    Source: VITS, equation 8; VITS2, equation 1. Args: scores of each discriminator, of any shape; mask of that shape,
    one for scores to include and zero for the others; None includes all. Returns the loss, and for each discriminator
    its term for real and its term for generated scores, each 0-dimensional.
    """
    real = [_mean((1 - score.float()).square(), mask) for score in disc_real_outputs]
    generated = [_mean(score.float().square(), mask) for score in disc_generated_outputs]
    return torch.stack(real + generated).sum(), real, generated


def generator_loss(disc_outputs: list[Tensor], mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Compute the least-squares adversarial loss of the generator, with target 1 (VITS, equation 9; VITS2, equation 2).

    Args: as `discriminator_loss`. Returns the loss and its term for each discriminator, each 0-dimensional.
    """
    parts = [_mean((1 - score.float()).square(), mask) for score in disc_outputs]
    return torch.stack(parts).sum(), parts


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, z_mask: Tensor) -> Tensor:
    """Estimate the KL divergence of posterior and prior from the sampled latent (VITS, equation 3), per valid frame.

    Args: the latent sample after the flow, log standard deviations of the posterior, means and log standard deviations
    of the prior, each `[b, inter, t]`; z_mask `[b, 1, t]`.
    """
    z_p, logs_q, m_p, logs_p, z_mask = (t.float() for t in (z_p, logs_q, m_p, logs_p, z_mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2.0 * logs_p)
    return (kl * z_mask).sum() / z_mask.sum()


def mel_loss(mel: Tensor, mel_hat: Tensor) -> Tensor:
    """Compute the mean L1 distance of two log-mel spectrograms `[b, bands, t]` (VITS, equation 2, without weight)."""
    return F.l1_loss(mel_hat.float(), mel.float())


def stft_loss(y: Tensor, y_hat: Tensor) -> Tensor:
    """Compute the distance of the magnitude spectrograms of waveforms, mean over FFT sizes (Yamamoto et al. 2020).

    For each of `FFT_SIZES` it is the spectral convergence plus the L1 distance of log magnitudes (Parallel WaveGAN,
    equations 4 to 6). Args: recordings and generated waveforms `[b, samples]`.
    """
    terms = []
    for n_fft in FFT_SIZES:
        real, generated = (spectrogram_torch(wav, n_fft, 0, n_fft // 4, n_fft) for wav in (y, y_hat))
        terms += [(real - generated).norm() / real.norm(), F.l1_loss(generated.log(), real.log())]
    return torch.stack(terms).sum() / len(FFT_SIZES)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of the values where the mask is one."""
    if mask is None:
        return values.mean()
    mask = mask.float()
    return (values * mask).sum() / mask.sum()
