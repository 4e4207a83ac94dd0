"""Decoders: from the latent of a frame to its samples.

`DECODERS` maps the values of `model.decoder` in a config to classes. A new decoder is one subclass of `Decoder`, one
line there, and its name in `config.DecoderType`.
"""

import copy
import math
from dataclasses import fields
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import commons
import modules
from attentions import LayerNorm
from config import ModelConfig
from kernels.convolutions import Conv1d, ConvTranspose1d
from mel_processing import band_synthesis, inverse_dft_bases, inverse_stft, overlap_add

CONVNEXT_KERNEL, CONVNEXT_EXPANSION = 7, 3  # kernel size; hidden channels in times the channels of a ConvNeXt block
MAX_MAGNITUDE = 100.0  # of the spectra that are inverted


class Decoder(modules.Recomputable):
    """The interface of all decoders, which training, streaming synthesis and export rely on.

    - **Input and output.** `forward(z, g)` maps latents z `[b, inter + extra_channels, t]` and the condition g
      `[b, gin, 1]`, or None, to audio `[b, 1, t * hop]` in [-1, 1]. Frame i yields the samples from `i * hop` on. It
      draws no random numbers.
    - **Extra channels.** `excite` appends to the latent of a whole utterance what depends on more than its neighboring
      frames, such as the phase of the voice. Most decoders need nothing.
    - **Streaming.** The samples of a frame depend on at most `context` latent frames on either side, so a long latent
      may be decoded in overlapping parts.
    - **Half precision.** `half_copy` returns a decoder for inference in fp16, with the parts named in `full_precision`
      in fp32. It takes and returns fp32. Where fp16 overflows, its output is not finite, and the caller decodes again
      in fp32.
    - **ONNX.** `onnx_form` returns the module that the exporter traces. With `flatten_convolutions`, the exporter
      rewrites its convolutions as two-dimensional ones of height 1, which ONNX Runtime computes faster. The operators
      between them must then accept tensors of four dimensions.
    """

    hop: int  # samples for each latent frame; equals data.hop_length of the config
    context: int  # latent frames on either side that the audio of a frame depends on
    flatten_convolutions = True
    extra_channels = 0  # that `excite` appends to the latent
    full_precision: tuple[str, ...] = ()  # modules and buffers that `half_copy` leaves in fp32
    noted_settings: tuple[str, ...] = ()  # keys of whole numbers that the weights do not show, for ONNX metadata

    @classmethod
    def from_config(cls, model: ModelConfig, gin_channels: int) -> "Decoder":
        """Build the decoder that a config describes; `gin_channels` is 0 without conditions."""
        raise NotImplementedError

    def excite(self, z: Tensor, z_mask: Tensor, g: Tensor | None = None, f0: Tensor | None = None) -> Tensor:
        """Append `extra_channels` to latents: z `[b, inter, t]` becomes the input of `forward`.

        Args: z_mask `[b, 1, t]`; g `[b, gin, 1]` or None; f0: see `HarmonicVocos.excite`.
        """
        return z

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: z `[b, inter + extra_channels, t]`; g `[b, gin, 1]` or None. Returns `[b, 1, t * hop]` in [-1, 1]."""
        raise NotImplementedError

    def half_copy(self) -> "HalfDecoder":
        """Return a copy that computes in fp16, except for the parts named in `full_precision`."""
        half = copy.deepcopy(self).half()
        for name in self.full_precision:
            setattr(half, name, copy.deepcopy(getattr(self, name)))
        return HalfDecoder(half)

    def onnx_form(self) -> nn.Module:
        """Return the module that the ONNX exporter traces, with the same `forward`."""
        return self

    def remove_weight_norm(self) -> None:
        """Fold the weight norms into plain weights, for inference."""
        modules.remove_weight_norm(self)


class HalfDecoder(nn.Module):
    """A decoder in fp16 that takes and returns fp32; made by `Decoder.half_copy`."""

    def __init__(self, dec: Decoder):
        super().__init__()
        self.dec = dec

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """As `Decoder.forward`. Where fp16 overflows, the audio is not finite."""
        z = z if self.dec.extra_channels else z.half()  # half precision is too coarse for phases
        return self.dec(z, None if g is None else g.half()).float()


class UpsamplingDecoder(Decoder):
    """The trunk of HiFi-GAN's generator (Kong et al. 2020): upsampling stages, each with the mean of residual blocks.

    A subclass converts the output of the last convolution, `conv_post`, to audio. It has `outputs` channels at the rate
    of the last stage. The audio of one position of this rate depends on `reach` more positions on either side.
    """

    def __init__(
        self,
        initial_channel: int,
        resblock: str,
        resblock_kernel_sizes: list[int],
        resblock_dilation_sizes: list[list[int]],
        upsample_rates: list[int],
        upsample_initial_channel: int,
        upsample_kernel_sizes: list[int],
        gin_channels: int = 0,
        outputs: int = 1,
        bias: bool = False,
        reach: int = 0,
    ):
        super().__init__()
        self.hop = math.prod(upsample_rates)
        self.num_kernels = len(resblock_kernel_sizes)
        self.conv_pre = Conv1d(initial_channel, upsample_initial_channel, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = upsample_initial_channel
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes):
            up = ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            commons.init_weights(up)
            self.ups.append(weight_norm(up))
            channels //= 2
            for kernel_size, dilation in zip(resblock_kernel_sizes, resblock_dilation_sizes):
                self.resblocks.append(modules.RESBLOCKS[str(resblock)](channels, kernel_size, dilation))
        self.conv_post = Conv1d(channels, outputs, 7, padding=3, bias=bias)
        if gin_channels:
            self.cond = Conv1d(gin_channels, upsample_initial_channel, 1)
        self.context = self._receptive_radius(reach)

    @staticmethod
    def trunk_settings(model: ModelConfig, gin_channels: int) -> dict[str, Any]:
        """Return the arguments of the trunk, from the keys `resblock*` and `upsample_*` of a config."""
        keys = [declared.name for declared in fields(model) if declared.name.startswith(("resblock", "upsample_"))]
        sizes = {key: getattr(model, key) for key in keys}
        return {"initial_channel": model.inter_channels, "gin_channels": gin_channels, **sizes}

    def features(self, z: Tensor, g: Tensor | None) -> Tensor:
        """Return the input of `conv_post`, `[b, c, t * rates]` in the type of its weight. Args: as `forward`."""
        x = self.conv_pre(z)
        if g is not None:
            x = x + self.cond(g)
        for up, blocks in self._stages():
            x = self.recomputable(self._upsampled, x, up, blocks)
        return F.leaky_relu(x).to(self.conv_post.weight.dtype)

    def _stages(self) -> list[tuple[ConvTranspose1d, nn.ModuleList]]:
        n = self.num_kernels
        return [(cast(ConvTranspose1d, up), self.resblocks[i * n : (i + 1) * n]) for i, up in enumerate(self.ups)]

    def _upsampled(self, x: Tensor, up: ConvTranspose1d, blocks: nn.ModuleList) -> Tensor:
        """Compute one stage: `[b, c, t]` to `[b, c / 2, t * rate]`."""
        x, y = up.before_and_after(F.leaky_relu(x, modules.LRELU_SLOPE), modules.LRELU_SLOPE)
        first, *others = blocks
        return sum((block(x, y) for block in others), first(x, y)) / self.num_kernels

    def _receptive_radius(self, reach: int) -> int:
        """Return the receptive radius in latent frames; `reach` is that of the audio after the last convolution."""
        radius = reach + modules.receptive_radius(self.conv_post)
        for up, blocks in reversed(self._stages()):
            radius += max(map(modules.receptive_radius, blocks))  # in samples after this upsampling
            radius = (radius + up.padding[0] - 1) // up.stride[0] + 1  # in samples before it
        return radius + modules.receptive_radius(self.conv_pre)


class Generator(UpsamplingDecoder):
    """HiFi-GAN's generator: the last convolution yields the samples."""

    full_precision = ("conv_post",)

    @classmethod
    def from_config(cls, model: ModelConfig, gin_channels: int) -> "Generator":
        """Build HiFi-GAN from the keys `resblock*` and `upsample_*` of a config."""
        return cls(**cls.trunk_settings(model, gin_channels))

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: z `[b, inter, t]`; g `[b, gin, 1]` or None. Returns `[b, 1, t * hop]` in [-1, 1]."""
        x = self.features(z, g)
        with commons.without_autocast(x):  # half precision is too coarse for samples
            return torch.tanh(self.conv_post(x))

    def half_copy(self) -> HalfDecoder:
        """As `Decoder.half_copy`; an infinite sum becomes NaN, which tanh cannot turn into an ordinary sample."""
        half = super().half_copy()
        half.get_submodule("dec.conv_post").register_forward_hook(lambda module, inputs, output: output + 0 * output)
        return half


class MultiBand(UpsamplingDecoder):
    """The decoder of MB-iSTFT-VITS (Kawamura et al. 2022, arXiv 2210.15975): an inverse STFT in each of several bands.

    The last convolution gives the log-magnitude and the phase of the `n_fft / 2 + 1` frequencies of each band. The
    inverse STFT and the filter bank that adds the bands are linear, so together they are one transposed convolution.
    Its kernel `synthesis` is fixed and not in checkpoints. The audio is clipped to [-1, 1].
    """

    full_precision = ("conv_post", "synthesis")
    noted_settings = ("subbands", "istft_hop_length")

    def __init__(self, subbands: int, n_fft: int, hop: int, **trunk: Any):
        kernel, stride = band_synthesis(subbands, n_fft, hop), subbands * hop
        outputs, _, length = kernel.shape
        padding = -(-(length - stride) // 2)
        reach = max(length - 1 - padding, padding + stride - 1) // stride
        super().__init__(**trunk, outputs=outputs, bias=True, reach=reach)
        self.hop *= stride
        self.synthesis = nn.Buffer(kernel, persistent=False)
        self.placement = stride, padding, 2 * padding + stride - length  # the last is the padding of the output

    @classmethod
    def from_config(cls, model: ModelConfig, gin_channels: int) -> "MultiBand":
        """Build the decoder from the keys `resblock*`, `upsample_*`, `istft_*` and `subbands` of a config."""
        bands = model.subbands, model.istft_n_fft, model.istft_hop_length
        return cls(*bands, **cls.trunk_settings(model, gin_channels))

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: z `[b, inter, t]`; g `[b, gin, 1]` or None. Returns `[b, 1, t * hop]` in [-1, 1]."""
        x = self.features(z, g)
        with commons.without_autocast(x):  # half precision is too coarse for phases
            spectra = torch.cat(from_polar(self.conv_post(x)), 1)
            return F.conv_transpose1d(spectra, self.synthesis, None, *self.placement).clamp(-1, 1)

    def onnx_form(self) -> "MultiBand":
        """Return a copy whose kernel is in the state, from which the exporter takes the kernels of convolutions."""
        form = copy.deepcopy(self)
        form.synthesis = nn.Buffer(self.synthesis)
        return form


class ConvNeXtBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, arXiv 2201.03545) in one dimension, as in Vocos.

    `scale` is the initial value of the factors `gamma` on the residual.
    """

    def __init__(self, channels: int, scale: float):
        super().__init__()
        padding = commons.get_padding(CONVNEXT_KERNEL)
        self.depthwise = Conv1d(channels, channels, CONVNEXT_KERNEL, padding=padding, groups=channels)
        self.norm = LayerNorm(channels)
        self.expand = Conv1d(channels, CONVNEXT_EXPANSION * channels, 1)
        self.contract = Conv1d(CONVNEXT_EXPANSION * channels, channels, 1)
        self.gamma = nn.Parameter(torch.full((channels, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t]` to `[b, c, t]`."""
        return x + self.gamma * self.contract(F.gelu(self.expand(self.norm(self.depthwise(x)))))


class Vocos(Decoder):
    """Vocos (Siuzdak 2023, arXiv 2306.00814): ConvNeXt blocks at the rate of the frames, and an inverse STFT.

    The last convolution gives the log-magnitude and the phase of each frame's `n_fft / 2 + 1` frequencies. A condition
    is added to the input of the blocks. The audio is clipped to [-1, 1].
    """

    flatten_convolutions = False  # layer norm needs three dimensions
    full_precision = ("conv_post",)

    def __init__(self, initial_channel: int, channels: int, n_layers: int, n_fft: int, hop: int, gin_channels: int = 0):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.conv_pre = Conv1d(initial_channel, channels, CONVNEXT_KERNEL, padding=commons.get_padding(CONVNEXT_KERNEL))
        if gin_channels:
            self.cond = Conv1d(gin_channels, channels, 1)
        self.norm_pre = LayerNorm(channels)
        self.blocks = nn.ModuleList(ConvNeXtBlock(channels, 1 / n_layers) for _ in range(n_layers))
        self.norm_post = LayerNorm(channels)
        self.conv_post = Conv1d(channels, n_fft + 2, 1)
        reach = -(-(n_fft - hop) // (2 * hop))  # frames on either side whose windows overlap the hop of a frame
        self.context = modules.receptive_radius(self) + reach

    @classmethod
    def from_config(cls, model: ModelConfig, gin_channels: int) -> "Vocos":
        """Build Vocos from the keys `convnext_*` and `istft_*` of a config."""
        blocks, stft = (model.convnext_channels, model.convnext_layers), (model.istft_n_fft, model.istft_hop_length)
        return cls(model.inter_channels, *blocks, *stft, gin_channels)

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: z `[b, inter, t]`; g `[b, gin, 1]` or None. Returns `[b, 1, t * hop]` in [-1, 1]."""
        return inverse_stft(*self.spectrum(z, g), self.hop).clamp(-1, 1).unsqueeze(1)

    def spectrum(self, z: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the real and the imaginary part of the spectrum, `[b, n_fft / 2 + 1, t]` each, in fp32.

        Args: as `forward`.
        """
        x = self.features(z, g)
        with commons.without_autocast(x):  # half precision is too coarse for phases
            return from_polar(self.conv_post(x))

    def features(self, z: Tensor, g: Tensor | None) -> Tensor:
        """Return the input of `conv_post`, `[b, channels, t]` in the type of its weight. Args: as `forward`."""
        x = self.conv_pre(z)
        if g is not None:
            x = x + self.cond(g)
        x = self.norm_pre(x)
        for block in self.blocks:
            x = self.recomputable(block, x)
        return self.norm_post(x).to(self.conv_post.weight.dtype)

    def onnx_form(self) -> "VocosGraph":
        """Return the module that the ONNX exporter traces, which has real numbers only."""
        return VocosGraph(self)


class VocosGraph(nn.Module):
    """A `Vocos` for ONNX, which has no inverse STFT: matrix products replace the Fourier transform of the frames."""

    def __init__(self, dec: Vocos):
        super().__init__()
        self.dec = dec
        self.cosine, self.sine = (nn.Buffer(basis) for basis in inverse_dft_bases(dec.n_fft))

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """As `Vocos.forward`."""
        real, imaginary = self.dec.spectrum(z, g)
        even, odd = real.transpose(1, 2) @ self.cosine, imaginary.transpose(1, 2) @ self.sine
        frames = torch.cat([even + odd, (even - odd)[:, :, 1:-1].flip(2)], 2)  # a frame is the sum of both symmetries
        return overlap_add(frames, self.dec.hop).clamp(-1, 1).unsqueeze(1)


class PitchPredictor(nn.Module):
    """Predict the fundamental frequency of each frame from the latent, and whether the frame is voiced."""

    n_layers, kernel_size = 3, 5
    typical = math.log(0.01)  # log frequency to which the output is relative: 220 Hz at 22,050 samples a second

    def __init__(self, channels: int, gin_channels: int = 0):
        super().__init__()
        padding = commons.get_padding(self.kernel_size)
        self.convs = nn.ModuleList(
            Conv1d(channels, channels, self.kernel_size, padding=padding) for _ in range(self.n_layers)
        )
        self.norms = nn.ModuleList(LayerNorm(channels) for _ in range(self.n_layers))
        self.proj = Conv1d(channels, 2, 1)
        if gin_channels:
            self.cond = Conv1d(gin_channels, channels, 1)

    def forward(self, z: Tensor, z_mask: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Args: z `[b, inter, t]`; z_mask `[b, 1, t]`; g `[b, gin, 1]` or None.

        Returns the logarithm of the frequency in cycles a sample, and a score that is above 0 for voiced frames,
        `[b, 1, t]` each.
        """
        x = z if g is None else z + self.cond(g)
        for conv, norm in zip(self.convs, self.norms):
            x = F.gelu(norm(conv(x * z_mask)))
        with commons.without_autocast(x):
            log_f0, voicing = self.proj(x.to(self.proj.weight.dtype)).chunk(2, 1)
        return log_f0 + self.typical, voicing


class HarmonicVocos(Vocos):
    """`Vocos` whose spectra are the sum of the harmonics of a fundamental frequency and of a free part.

    A network at the rate of the frames learns the phases of harmonics slowly, because they follow from the frequencies
    of all frames before. Here they are computed: the phase of harmonic h is h times the integral of the fundamental
    frequency. `pitch` predicts this frequency from the latent, and training gives that of the recording.

    In the spectrum of a frame, a harmonic is the transform of the Hann window around its frequency, four bins wide. The
    last convolution gives its log-magnitude and a shift of its phase for every bin, and log-magnitude and phase of the
    free part, which has noise and all unvoiced sounds. The model is that of Stylianou (2001) with a neural envelope.
    """

    extra_channels = 2  # fundamental frequency in cycles a sample, 0 if unvoiced, and its phase in cycles

    def __init__(self, initial_channel: int, channels: int, n_layers: int, n_fft: int, hop: int, gin_channels: int = 0):
        super().__init__(initial_channel, channels, n_layers, n_fft, hop, gin_channels)
        self.conv_post = Conv1d(channels, 2 * (n_fft + 2), 1)
        self.pitch = PitchPredictor(initial_channel, gin_channels)
        self.bins = nn.Buffer(torch.arange(n_fft // 2 + 1.0).unsqueeze(1), persistent=False)

    def excite(self, z: Tensor, z_mask: Tensor, g: Tensor | None = None, f0: Tensor | None = None) -> Tensor:
        """Append the fundamental frequency and its phase to latents, `[b, inter + 2, t]`.

        Args: z `[b, inter, t]`; z_mask `[b, 1, t]`; g `[b, gin, 1]` or None; f0: fundamental frequency in cycles a
        sample, 0 where unvoiced, `[b, 1, t]`; None predicts it.
        """
        if f0 is None:
            log_f0, voicing = self.pitch(z, z_mask, g)
            f0 = torch.where(voicing > 0, log_f0.exp(), 0.0) * z_mask
        with commons.without_autocast(z):
            cycles = f0 * self.hop  # in a hop; the phase is that of the middle of the frame
            advance = (cycles + F.pad(cycles[:, :, :-1], (1, 0))) / 2
            phase = advance.double().cumsum(2)  # fp32 has too few digits for the harmonics of long utterances
            return torch.cat([z.to(f0.dtype), f0, (phase - phase.floor()).to(f0.dtype)], 1)

    def pitch_loss(self, z: Tensor, z_mask: Tensor, g: Tensor | None, f0: Tensor) -> Tensor:
        """Return the mean error of predicted log frequencies plus the cross-entropy of the voicing.

        Args: as `excite`, with the measured f0 `[b, 1, t]`.
        """
        log_f0, voicing = (x.float() for x in self.pitch(z, z_mask, g))
        voiced = (f0 > 0).float() * z_mask
        error = (log_f0 - torch.where(f0 > 0, f0, 1.0).log()).abs()
        entropy = F.binary_cross_entropy_with_logits(voicing, voiced, reduction="none")
        return (error * voiced).sum() / voiced.sum().clamp_min(1.0) + (entropy * z_mask).sum() / z_mask.sum()

    def spectrum(self, z: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `Vocos.spectrum`, for latents with the channels of `excite`."""
        z, f0, phase = z.split([z.size(1) - 2, 1, 1], 1)
        x = self.features(z.to(self.conv_pre.weight.dtype), g)
        with commons.without_autocast(x):
            harmonics, free = self.conv_post(x).chunk(2, 1)
            spacing = (f0 * self.n_fft).clamp_min(1.0)  # of harmonics, in bins
            number = torch.round(self.bins / spacing)  # of the harmonic nearest to each bin
            distance = (self.bins - number * spacing).clamp(-2, 2)  # in bins, within the main lobe of the window
            # a squared cosine is within 1 % of the transform of the window; the signs move its center to the middle
            signs = 1 - 2 * (self.bins % 2)
            lobe = signs * (f0 > 0) * (number > 0) * torch.cos(distance * (math.pi / 4)).square()
            log_magnitude, shift = harmonics.chunk(2, 1)
            turns = number * phase
            angle = 2 * math.pi * (turns - turns.floor()) + shift
            real, imaginary = from_polar(torch.cat([log_magnitude, angle], 1))
            free_real, free_imaginary = from_polar(free)
            return free_real + lobe * real, free_imaginary + lobe * imaginary


def from_polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Convert log-magnitudes, in the first half of the channels, and phases to real and imaginary parts.

    Args: x `[b, 2 n, t]` in fp32. Returns `[b, n, t]` each. Magnitudes are at most `MAX_MAGNITUDE`.
    """
    log_magnitude, phase = x.chunk(2, 1)
    # limited before the exponential, whose gradient would be NaN where it overflows
    magnitude = log_magnitude.clamp_max(math.log(MAX_MAGNITUDE)).exp()
    return magnitude * phase.cos(), magnitude * phase.sin()


DECODERS: dict[str, type[Decoder]] = {
    "hifigan": Generator,
    "vocos": Vocos,
    "harmonic_vocos": HarmonicVocos,
    "mb_istft": MultiBand,
}
