"""The losses of VITS and VITS2, all in fp32 whatever the network's precision is."""

import torch
import torch.nn.functional as F
from torch import Tensor

import fused


def feature_loss(fmap_r: list[list[Tensor]], fmap_g: list[list[Tensor]]) -> Tensor:
    """Twice the summed L1 distance of all feature maps (HiFi-GAN, section 2.3); real ones carry no gradient."""
    loss = 0.0
    for maps_r, maps_g in zip(fmap_r, fmap_g, strict=True):
        for real, generated in zip(maps_r, maps_g, strict=True):
            loss = loss + fused.l1_mean(real, generated)
    return 2 * loss


def discriminator_loss(
    disc_real_outputs: list[Tensor], disc_generated_outputs: list[Tensor], mask: Tensor | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Least squares: real scores to 1, generated scores to 0 (VITS, equation 9; VITS2, equation 1).

    Args:
        disc_real_outputs, disc_generated_outputs: lists of scores of any shape.
        mask: which scores count, in the scores' shape; None counts all.

    Returns:
        The loss, and for each discriminator its real and its generated part, 0-dimensional tensors.
    """
    real = [_mean((1 - score.float()).square(), mask) for score in disc_real_outputs]
    generated = [_mean(score.float().square(), mask) for score in disc_generated_outputs]
    return torch.stack(real + generated).sum(), real, generated


def generator_loss(disc_outputs: list[Tensor], mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """Least squares: generated scores to 1 (VITS, equation 10; VITS2, equation 2). Returns the loss and its parts."""
    parts = [_mean((1 - score.float()).square(), mask) for score in disc_outputs]
    return torch.stack(parts).sum(), parts


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, z_mask: Tensor) -> Tensor:
    """KL divergence of posterior and prior at the sampled `z` (VITS, equation 4), per valid frame.

    Args:
        z_p, logs_q, m_p, logs_p: `[b, inter, t]`.
        z_mask: `[b, 1, t]`.
    """
    z_p, logs_q, m_p, logs_p, z_mask = (t.float() for t in (z_p, logs_q, m_p, logs_p, z_mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2.0 * logs_p)
    return (kl * z_mask).sum() / z_mask.sum()


def mel_loss(mel: Tensor, mel_hat: Tensor) -> Tensor:
    """Mean L1 distance of two log-mel spectrograms `[b, bands, t]` (VITS, equation 2, before its weight)."""
    return F.l1_loss(mel_hat.float(), mel.float())


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean()
    mask = mask.float()
    return (values * mask).sum() / mask.sum()
