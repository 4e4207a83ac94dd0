"""Discriminators of waveforms and spectrograms (HiFi-GAN, UnivNet; VITS, B.2) and of durations (VITS2, section 2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm

from attentions import LayerNorm
from commons import get_padding, map_tensors, without_autocast
from kernels.convolutions import Conv1d, Conv2d, Dropout, ProductConv1d
from mel_processing import FFT_SIZES, spectrogram_torch
from modules import LRELU_SLOPE

PERIODS = (2, 3, 5, 7, 11)  # prime, so that the folded waveforms overlap little
WIDTH = 1024  # channels of the widest layers; the other layers have fractions of it


class DiscriminatorP(nn.Module):
    """HiFi-GAN's period discriminator. It folds the waveform to `period` columns and convolves along each column."""

    def __init__(
        self, period: int, kernel_size: int = 5, stride: int = 3, use_spectral_norm: bool = False, channels: int = WIDTH
    ):
        super().__init__()
        norm = _spectral_norm if use_spectral_norm else weight_norm
        self.period = period
        widths = (1, channels // 32, channels // 8, channels // 2, channels, channels)
        strides = (stride, stride, stride, stride, 1)
        padding = (get_padding(kernel_size), 0)
        self.convs = nn.ModuleList(
            norm(Conv2d(c_in, c_out, (kernel_size, 1), (s, 1), padding))
            for c_in, c_out, s in zip(widths, widths[1:], strides)
        )
        self.conv_post = norm(Conv2d(channels, 1, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Args: x `[b, 1, samples]`. Returns scores `[b, n]` and feature maps `[b, c, n, period]`."""
        x = F.pad(x, (0, -x.size(2) % self.period), "reflect").unflatten(2, (-1, self.period))
        return _scores_and_maps(self.convs, self.conv_post, x)


class DiscriminatorS(nn.Module):
    """HiFi-GAN's scale discriminator, applied to the waveform at its full rate."""

    def __init__(self, use_spectral_norm: bool = False, channels: int = WIDTH):
        super().__init__()
        norm, c = _spectral_norm if use_spectral_norm else weight_norm, channels
        table = (  # in channels, out channels, kernel size, stride, groups
            (1, c // 64, 15, 1, 1),
            (c // 64, c // 16, 41, 4, max(c // 256, 1)),
            (c // 16, c // 4, 41, 4, max(c // 64, 1)),
            (c // 4, c, 41, 4, max(c // 16, 1)),
            (c, c, 41, 4, max(c // 4, 1)),
            (c, c, 5, 1, 1),
        )
        self.convs = nn.ModuleList(
            norm(Conv1d(c_in, c_out, k, s, get_padding(k), groups=groups)) for c_in, c_out, k, s, groups in table
        )
        self.conv_post = norm(Conv1d(c, 1, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Args: x `[b, 1, samples]`. Returns scores `[b, n]` and feature maps `[b, c, n]`."""
        return _scores_and_maps(self.convs, self.conv_post, x)


def _spectral_norm(conv: nn.Module) -> nn.Module:
    """Apply PyTorch's spectral norm without autocast, because it needs its vectors and weights in full precision."""
    conv = spectral_norm(conv)
    ((key, normalize),) = conv._forward_pre_hooks.items()

    def in_full_precision(module: nn.Module, inputs: tuple) -> None:
        with without_autocast(module.get_parameter("weight_orig")):
            normalize(module, inputs)

    conv._forward_pre_hooks[key] = in_full_precision
    return conv


def _scores_and_maps(convs: nn.ModuleList, conv_post: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    feature_maps = []
    for conv in convs:
        x = conv(x, LRELU_SLOPE)
        feature_maps.append(x)
    x = conv_post(x)
    return x.flatten(1), [*feature_maps, x]


class DiscriminatorSTFT(nn.Module):
    """UnivNet's spectrogram discriminator (Jang et al. 2021, arXiv 2106.07889) for one FFT size.

    It convolves the linear magnitude spectrogram along time and frequency. The hop is a quarter of the FFT size.
    """

    def __init__(self, n_fft: int, channels: int, use_spectral_norm: bool = False):
        super().__init__()
        norm = _spectral_norm if use_spectral_norm else weight_norm
        self.n_fft = n_fft
        table = (  # in channels, kernel size and stride along the frequency
            (1, 9, 1),
            (channels, 9, 2),
            (channels, 9, 2),
            (channels, 9, 2),
            (channels, 3, 1),
        )
        self.convs = nn.ModuleList(
            norm(Conv2d(c_in, channels, (3, k), (1, s), (1, get_padding(k)))) for c_in, k, s in table
        )
        self.conv_post = norm(Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Args: x `[b, 1, samples]`. Returns scores `[b, n]` and feature maps `[b, c, t, frequencies]`."""
        magnitude = spectrogram_torch(x.squeeze(1), self.n_fft, 0, self.n_fft // 4, self.n_fft)
        return _scores_and_maps(self.convs, self.conv_post, magnitude.transpose(1, 2).unsqueeze(1))


class MultiPeriodDiscriminator(nn.Module):
    """One scale discriminator and one period discriminator for each of `PERIODS` (VITS, appendix B.2).

    With `stft_channels`, one spectrogram discriminator for each of `FFT_SIZES` follows these `n_waveform` ones.
    """

    def __init__(self, use_spectral_norm: bool = False, channels: int = WIDTH, stft_channels: int = 0):
        super().__init__()
        self.discriminators = nn.ModuleList([DiscriminatorS(use_spectral_norm, channels)])
        for period in PERIODS:
            self.discriminators.append(DiscriminatorP(period, use_spectral_norm=use_spectral_norm, channels=channels))
        self.n_waveform = len(self.discriminators)
        for n_fft in FFT_SIZES if stft_channels else ():
            self.discriminators.append(DiscriminatorSTFT(n_fft, stft_channels, use_spectral_norm))

    def discriminate(self, y: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return scores `[b, n]` and feature maps of waveforms `[b, 1, samples]`, one entry for each discriminator."""
        scores, feature_maps = zip(*(discriminator(y) for discriminator in self.discriminators))
        return list(scores), list(feature_maps)

    def forward(
        self, y: Tensor, y_hat: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]], list[list[Tensor]]]:
        """Discriminate real waveforms y and generated ones y_hat, `[b, 1, samples]` each, in one pass.

        Returns the scores of y and of y_hat and the feature maps of y and of y_hat, one entry for each discriminator.
        """
        outputs = self.discriminate(torch.cat([y, y_hat]))
        scores_r, maps_r = map_tensors(lambda x: x.chunk(2)[0], outputs)
        scores_g, maps_g = map_tensors(lambda x: x.chunk(2)[1], outputs)
        return scores_r, scores_g, maps_r, maps_g


class DurationDiscriminatorV1(nn.Module):
    """The duration discriminator: it scores the log duration of every token given the hidden states of the encoder.

    This version has no nonlinearity before the last sigmoid, as in the published DUR checkpoints. Train it in fp32: its
    gradients are the difference of two passes that nearly cancel.
    """

    nonlinear = False
    bounded = True  # scores pass a sigmoid
    dequantizes = False  # whether training gives it durations of the alignment as real numbers

    def __init__(
        self, in_channels: int, filter_channels: int, kernel_size: int, p_dropout: float, gin_channels: int = 0
    ):
        super().__init__()
        padding = kernel_size // 2
        norm = LayerNorm if self.nonlinear else nn.Identity
        self.activation = nn.ReLU() if self.nonlinear else nn.Identity()
        self.drop = Dropout(p_dropout) if self.nonlinear else nn.Identity()
        self.conv_1 = ProductConv1d(in_channels, filter_channels, kernel_size, padding)
        self.norm_1 = norm(filter_channels)
        self.conv_2 = ProductConv1d(filter_channels, filter_channels, kernel_size, padding)
        self.norm_2 = norm(filter_channels)
        self.dur_proj = ProductConv1d(1, filter_channels, 1)
        self.pre_out_conv_1 = ProductConv1d(2 * filter_channels, filter_channels, kernel_size, padding)
        self.pre_out_norm_1 = norm(filter_channels)
        self.pre_out_conv_2 = ProductConv1d(filter_channels, filter_channels, kernel_size, padding)
        self.pre_out_norm_2 = norm(filter_channels)
        score = nn.Linear(filter_channels, 1)
        self.output_layer = nn.Sequential(score, nn.Sigmoid()) if self.bounded else score
        if gin_channels:
            self.cond = ProductConv1d(gin_channels, in_channels, 1)

    def text_features(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, h, t_s]`; x_mask `[b, 1, t_s]`; g `[b, gin, 1]`. Returns `[b, f, t_s]`. Detaches x and g."""
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        x = self.drop(self.norm_1(self.activation(self.conv_1(x * x_mask))))
        return self.drop(self.norm_2(self.activation(self.conv_2(x * x_mask))))

    def score(self, features: Tensor, x_mask: Tensor, dur: Tensor) -> Tensor:
        """Args: features `[b, f, t_s]`; x_mask, log durations dur `[b, 1, t_s]`. Returns scores `[b, t_s, 1]`."""
        x = torch.cat([features, self.dur_proj(dur)], 1)
        x = self.drop(self.pre_out_norm_1(self.activation(self.pre_out_conv_1(x * x_mask))))
        x = self.drop(self.pre_out_norm_2(self.activation(self.pre_out_conv_2(x * x_mask)))) * x_mask
        return self.output_layer(x.transpose(1, 2))

    def forward(
        self, x: Tensor, x_mask: Tensor, dur_r: Tensor, dur_hat: Tensor, g: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Args: x `[b, h, t_s]`; x_mask `[b, 1, t_s]`; dur_r, dur_hat: log durations `[b, 1, t_s]`; g `[b, gin, 1]`.

        Returns the scores of the real and of the predicted durations, each a list with one tensor `[b, t_s, 1]`.
        """
        features = self.text_features(x, x_mask, g)
        return [self.score(features, x_mask, dur_r)], [self.score(features, x_mask, dur_hat)]


class DurationDiscriminatorV2(DurationDiscriminatorV1):
    """`DurationDiscriminatorV1` with ReLU, LayerNorm and dropout after the convolutions of width `kernel_size`."""

    nonlinear = True


class DurationDiscriminatorV3(DurationDiscriminatorV2):
    """`DurationDiscriminatorV2` without sigmoid, for dequantized durations.

    Durations of the alignment are whole frames and predicted ones are not, so V2 can recognize predictions by that
    alone. Its sigmoid then leaves the predictor almost no gradient. This version scores any real number, as LSGAN does
    (Mao et al., 2017), and training adds uniform noise to the durations of the alignment (`durations.dequantize`).
    """

    bounded = False
    dequantizes = True


DURATION_DISCRIMINATORS = {
    "dur_disc_1": DurationDiscriminatorV1,
    "dur_disc_2": DurationDiscriminatorV2,
    "dur_disc_3": DurationDiscriminatorV3,
}
AVAILABLE_DURATION_DISCRIMINATOR_TYPES = list(DURATION_DISCRIMINATORS)
