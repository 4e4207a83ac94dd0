"""The VITS2 generator: text and speech meet in a latent space, and a vocoder turns the latent into sound.

The letters are the papers': x text, y spectrogram, z latent of the posterior, z_p the same after the flow, where the
prior N(m_p, exp(logs_p)) lives; m_q, logs_q the posterior's statistics; w durations in frames, logw their logarithm,
logw_ the logarithm that the alignment gives; g the speaker's embedding. Shapes are `[b, c, t]`, with t_s text tokens
and t_t spectrogram frames; masks are `[b, 1, t]`.
"""

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import attentions
import commons
import modules
from config import Config, refuse_unknown
from convolutions import Conv1d, ConvTranspose1d
from discriminators import (
    AVAILABLE_DURATION_DISCRIMINATOR_TYPES,
    DiscriminatorP,
    DiscriminatorS,
    DurationDiscriminatorV1,
    DurationDiscriminatorV2,
    MultiPeriodDiscriminator,
)
from durations import DurationPredictor, StochasticDurationPredictor
from flows import AVAILABLE_FLOW_TYPES, FLOWS, Flow
from monotonic_align import maximum_path

__all__ = [
    "AVAILABLE_DURATION_DISCRIMINATOR_TYPES",
    "AVAILABLE_FLOW_TYPES",
    "DiscriminatorP",
    "DiscriminatorS",
    "DurationDiscriminatorV1",
    "DurationDiscriminatorV2",
    "DurationPredictor",
    "Generator",
    "MultiPeriodDiscriminator",
    "PosteriorEncoder",
    "StochasticDurationPredictor",
    "SynthesizerTrn",
    "TextEncoder",
]


class Latents(NamedTuple):
    """Latents and statistics, each `[b, inter, t_t]`; the prior's are those of the token that speaks in the frame."""

    z: Tensor
    z_p: Tensor
    m_p: Tensor
    logs_p: Tensor
    m_q: Tensor
    logs_q: Tensor


class Durations(NamedTuple):
    """What the duration discriminator sees: text state `[b, h, t_s]`, predicted and true log durations `[b, 1, t_s]`.

    `logw` is None where the stochastic predictor was not asked for a draw.
    """

    x: Tensor
    logw: Tensor | None
    logw_: Tensor


class TrainingOutput(NamedTuple):
    """What `SynthesizerTrn.forward` returns; unpacks as VITS's tuple does.

    o `[b, 1, segment]` audio, l_length `[b]` duration losses, attn `[b, 1, t_t, t_s]`, ids_slice `[b]` first frame of
    the decoded segments, masks `[b, 1, t_s]` and `[b, 1, t_t]`.
    """

    o: Tensor
    l_length: Tensor
    attn: Tensor
    ids_slice: Tensor
    x_mask: Tensor
    y_mask: Tensor
    latents: Latents
    durations: Durations


class Plan(NamedTuple):
    """What the text decides: m_p, logs_p `[b, inter, t_s]`, whole frames of each token `[b, t_s]`, g, and x_mask."""

    m_p: Tensor
    logs_p: Tensor
    durations: Tensor
    g: Tensor | None
    x_mask: Tensor


class TextEncoder(nn.Module):
    """Tokens to text state and prior statistics; the speaker conditions it where `gin_channels` is given."""

    def __init__(
        self,
        n_vocab: int,
        out_channels: int,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        gin_channels: int = 0,
    ):
        super().__init__()
        self.hidden_channels = hidden_channels
        self.emb = nn.Embedding(n_vocab, hidden_channels)
        nn.init.normal_(self.emb.weight, 0.0, hidden_channels**-0.5)
        self.encoder = attentions.Encoder(
            hidden_channels,
            filter_channels,
            n_heads,
            n_layers,
            kernel_size,
            p_dropout,
            gin_channels=gin_channels,
        )
        self.proj = Conv1d(hidden_channels, 2 * out_channels, 1)

    def forward(self, x: Tensor, x_lengths: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Args: x `[b, t_s]`, token ids; x_lengths `[b]`; g `[b, gin, 1]` or None.

        Returns text state `[b, h, t_s]`, m and logs `[b, inter, t_s]` in fp32, x_mask `[b, 1, t_s]`.
        """
        x = self.emb(x).transpose(1, 2) * math.sqrt(self.hidden_channels)
        x_mask = commons.sequence_mask(x_lengths, x.size(2)).unsqueeze(1).to(x.dtype)
        x = self.encoder(x, x_mask, g)
        m, logs = commons.at_least_fp32(self.proj(x, mask=x_mask)).chunk(2, 1)
        return x, m, logs, x_mask


class PosteriorEncoder(nn.Module):
    """Spectrogram to a sample of the latent; a WaveNet of `n_layers`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        kernel_size: int,
        dilation_rate: int,
        n_layers: int,
        gin_channels: int = 0,
    ):
        super().__init__()
        self.pre = Conv1d(in_channels, hidden_channels, 1)
        self.enc = modules.WN(hidden_channels, kernel_size, dilation_rate, n_layers, gin_channels)
        self.proj = Conv1d(hidden_channels, 2 * out_channels, 1)

    def forward(self, y: Tensor, y_lengths: Tensor, g: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Args: y `[b, spec, t_t]`; y_lengths `[b]`; g `[b, gin, 1]` or None.

        Returns z, m, logs `[b, inter, t_t]` in fp32 and y_mask `[b, 1, t_t]`.
        """
        y_mask = commons.sequence_mask(y_lengths, y.size(2)).unsqueeze(1).to(y.dtype)
        h = self.enc(self.pre(y, mask=y_mask), y_mask, g)
        m, logs = commons.at_least_fp32(self.proj(h, mask=y_mask)).chunk(2, 1)
        # drawn frame by frame, however m lies in memory: a seed is a seed with every kernel
        noise = torch.randn(m.transpose(1, 2).shape, dtype=m.dtype, device=m.device).transpose(1, 2)
        z = (m + noise * logs.exp()) * y_mask
        return z, m, logs, y_mask


class Generator(modules.Forgetful):
    """HiFi-GAN's generator: upsampling, and after each the mean of residual blocks with different kernels."""

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
    ):
        super().__init__()
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
        self.conv_post = Conv1d(channels, 1, 7, padding=3, bias=False)
        if gin_channels:
            self.cond = Conv1d(gin_channels, upsample_initial_channel, 1)

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, inter, t]`; g `[b, gin, 1]` or None. Returns `[b, 1, t * hop]` in [-1, 1]."""
        x = self.conv_pre(x)
        if g is not None:
            x = x + self.cond(g)
        for i in range(len(self.ups)):
            x = self.forgetting(self._upsampled, x, i)
        x = F.leaky_relu(x).to(self.conv_post.weight.dtype)
        with commons.without_autocast(x):  # half precision is too coarse for sound
            return torch.tanh(self.conv_post(x))

    def _upsampled(self, x: Tensor, i: int) -> Tensor:
        """Stage `i`: `[b, c, t]` to `[b, c / 2, t * rate]`."""
        x, y = self.ups[i].before_and_after(F.leaky_relu(x, modules.LRELU_SLOPE), modules.LRELU_SLOPE)
        first, *others = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
        return sum((block(x, y) for block in others), first(x, y)) / self.num_kernels

    @property
    def context(self) -> int:
        """Latent frames on either side that the audio of a frame depends on."""
        reach = modules.reach(self.conv_post)
        for i in reversed(range(len(self.ups))):
            blocks = self.resblocks[i * self.num_kernels : (i + 1) * self.num_kernels]
            up = self.ups[i]
            reach += max(map(modules.reach, blocks))  # in samples after this upsampling, then before it
            reach = (reach + up.padding[0] - 1) // up.stride[0] + 1
        return reach + modules.reach(self.conv_pre)

    def remove_weight_norm(self) -> None:
        """Fold the weight norms into plain weights, for inference."""
        modules.remove_weight_norm(self)


class SynthesizerTrn(nn.Module):
    """The whole generator. The arguments are the keys of a config's `model` section and mean what they mean there.

    `spec_channels` is the posterior encoder's input (80 mel bands for VITS2, n_fft / 2 + 1 for VITS), `segment_size`
    counts latent frames. Keys that say nothing about this network (`n_layers_q`, `use_spectral_norm`,
    `use_duration_discriminator`, `duration_discriminator_type`, `use_mel_posterior_encoder`,
    `discriminator_channels`) are taken and not used, because `model` is passed here whole.

    Raises:
        ValueError: a key that no config has, with the nearest that one has, or a value that cannot be built.
    """

    def __init__(
        self,
        n_vocab: int,
        spec_channels: int,
        segment_size: int,
        inter_channels: int,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        resblock: str,
        resblock_kernel_sizes: list[int],
        resblock_dilation_sizes: list[list[int]],
        upsample_rates: list[int],
        upsample_initial_channel: int,
        upsample_kernel_sizes: list[int],
        n_speakers: int = 0,
        gin_channels: int = 0,
        use_sdp: bool = True,
        use_transformer_flows: bool = False,
        transformer_flow_type: str = "pre_conv",
        use_spk_conditioned_encoder: bool = False,
        use_noise_scaled_mas: bool = False,
        mas_noise_scale_initial: float = 0.01,
        noise_scale_delta: float = 2e-6,
        use_duration_noise: bool = False,
        n_layers_q: int = 3,
        use_spectral_norm: bool = False,
        use_duration_discriminator: bool = False,
        duration_discriminator_type: str = "dur_disc_1",
        use_mel_posterior_encoder: bool = False,
        discriminator_channels: int = 1024,
        **unknown,
    ):
        super().__init__()
        refuse_unknown(unknown, SynthesizerTrn.__init__.__annotations__, "SynthesizerTrn")
        flow_type = transformer_flow_type if use_transformer_flows else None
        if flow_type not in FLOWS:
            raise ValueError(f"transformer_flow_type is {flow_type!r}; it may be one of {AVAILABLE_FLOW_TYPES}")
        if str(resblock) not in modules.RESBLOCKS:
            raise ValueError(f"resblock is {resblock!r}; it may be one of {list(modules.RESBLOCKS)}")
        if n_speakers and not gin_channels:
            raise ValueError(f"{n_speakers} speakers need gin_channels above 0, the width of their embedding")
        gin_channels = gin_channels if n_speakers else 0

        self.n_speakers = n_speakers
        self.segment_size = segment_size
        self.use_sdp = use_sdp
        self.draw_logw = True
        self.mas_noise_scale_initial = mas_noise_scale_initial if use_noise_scaled_mas else 0.0
        self.noise_scale_delta = noise_scale_delta
        # on the device, where a captured training step reads it anew
        self.register_buffer("mas_noise", torch.zeros(()), persistent=False)
        self.current_mas_noise_scale = self.mas_noise_scale_initial

        self.enc_p = TextEncoder(
            n_vocab,
            inter_channels,
            hidden_channels,
            filter_channels,
            n_heads,
            n_layers,
            kernel_size,
            p_dropout,
            gin_channels if use_spk_conditioned_encoder else 0,
        )
        self.dec = Generator(
            inter_channels,
            resblock,
            resblock_kernel_sizes,
            resblock_dilation_sizes,
            upsample_rates,
            upsample_initial_channel,
            upsample_kernel_sizes,
            gin_channels,
        )
        self.enc_q = PosteriorEncoder(
            spec_channels, inter_channels, hidden_channels, 5, 1, n_layers=16, gin_channels=gin_channels
        )
        self.flow = Flow(inter_channels, hidden_channels, gin_channels, flow_type)
        if use_sdp:
            self.dp = StochasticDurationPredictor(hidden_channels, hidden_channels, 3, 0.5, 4, gin_channels)
        else:
            self.dp = DurationPredictor(hidden_channels, 256, 3, 0.5, gin_channels, use_duration_noise)
        if n_speakers:
            self.emb_g = nn.Embedding(n_speakers, gin_channels)
        self.conditions_text = bool(gin_channels and use_spk_conditioned_encoder)

    @classmethod
    def from_config(cls, config: Config, n_vocab: int) -> "SynthesizerTrn":
        """The generator that a config describes, for a table of `n_vocab` symbols."""
        model = dataclasses.asdict(config.model)
        speakers = config.data.n_speakers
        return cls(n_vocab, config.spec_channels, config.segment_frames, n_speakers=speakers, **model)

    @property
    def current_mas_noise_scale(self) -> float:
        """The alignment noise of the next training step, in standard deviations of the alignment's scores."""
        return self._mas_noise_scale

    @current_mas_noise_scale.setter
    def current_mas_noise_scale(self, scale: float) -> None:
        self._mas_noise_scale = scale
        self.mas_noise.fill_(scale)

    def anneal_mas_noise(self, step: int) -> None:
        """Set the alignment noise for a training step: from 0.01 down by 2e-6 a step to none (VITS2, section 2.2)."""
        self.current_mas_noise_scale = max(self.mas_noise_scale_initial - self.noise_scale_delta * step, 0.0)

    def forward(
        self, x: Tensor, x_lengths: Tensor, y: Tensor, y_lengths: Tensor, sid: Tensor | None = None
    ) -> TrainingOutput:
        """One training pass, decoding a random segment of each utterance.

        Args: x `[b, t_s]`, token ids; y `[b, spec, t_t]`; lengths `[b]`; sid `[b]` or None.
        """
        g = self.speaker(sid)
        x, m_p, logs_p, x_mask = self.enc_p(x, x_lengths, self._text_condition(g))
        z, m_q, logs_q, y_mask = self.enc_q(y, y_lengths, g)
        z_p = self.flow(z, y_mask, g)

        attn = self.align(z_p, m_p, logs_p, x_mask, y_mask)
        w = attn.sum(2)
        l_length, durations = self._duration_loss(x, x_mask, w, g)

        token = attn.squeeze(1).argmax(2)  # [b, t_t]
        m_p, logs_p = pick_tokens(m_p, token) * y_mask, pick_tokens(logs_p, token) * y_mask
        z_slice, ids_slice = commons.rand_slice_segments(z, y_lengths, self.segment_size)
        o = self.dec(z_slice, g)
        latents = Latents(z, z_p, m_p, logs_p, m_q, logs_q)
        return TrainingOutput(o, l_length, attn, ids_slice, x_mask, y_mask, latents, durations)

    def infer(
        self,
        x: Tensor,
        x_lengths: Tensor,
        sid: Tensor | None = None,
        noise_scale: float = 1,
        length_scale: float = 1,
        noise_scale_w: float = 1.0,
        max_len: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Speak. Args: x `[b, t_s]`, token ids; x_lengths `[b]`; sid `[b]` or None; max_len in frames.

        Returns audio `[b, 1, t_t * hop]`, attn `[b, 1, t_t, t_s]`, y_mask `[b, 1, t_t]`, (z, z_p, m_p, logs_p).
        """
        return self.speak(self.plan(x, x_lengths, sid, length_scale, noise_scale_w), noise_scale, max_len)

    def speak(
        self, planned: Plan, noise_scale: float = 1, max_len: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """What `infer` does once all tokens are timed; returns what it returns."""
        z, z_p, m_p, logs_p, y_mask = self.latent(planned, noise_scale)
        attn_mask = planned.x_mask.unsqueeze(2) * y_mask.unsqueeze(3)
        attn = commons.generate_path(planned.durations.unsqueeze(1), attn_mask)
        o = self.dec(z[:, :, :max_len], planned.g)
        return o, attn, y_mask, (z, z_p, m_p, logs_p)

    def plan(
        self,
        x: Tensor,
        x_lengths: Tensor,
        sid: Tensor | None = None,
        length_scale: float | Tensor = 1.0,
        noise_scale_w: float | Tensor = 1.0,
    ) -> Plan:
        """First step of synthesis: read the tokens `[b, t_s]` and time them."""
        g = self.speaker(sid)
        x, m_p, logs_p, x_mask = self.enc_p(x, x_lengths, self._text_condition(g))
        logw = self.predict_durations(x, x_mask, g, noise_scale_w)
        durations = torch.ceil(torch.exp(commons.at_least_fp32(logw)) * x_mask * length_scale).squeeze(1)
        return Plan(m_p, logs_p, durations, g, x_mask)

    def latent(
        self, planned: Plan, noise_scale: float | Tensor = 1.0, t_t: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Second step of synthesis: draw from the prior and undo the flow. The third is the decoder.

        Returns z, z_p, m_p, logs_p `[b, inter, t_t]` and y_mask `[b, 1, t_t]`; leaving `t_t` out makes it as long as
        the longest item. Beyond each item's last frame all but z_p, which is noise there, is zero.
        """
        token, y_mask = commons.tokens_of_frames(planned.durations, t_t)
        y_mask = y_mask.unsqueeze(1).to(planned.m_p.dtype)
        m_p, logs_p = (pick_tokens(x, token) * y_mask for x in (planned.m_p, planned.logs_p))
        z_p = m_p + torch.randn_like(m_p) * torch.exp(logs_p) * noise_scale
        z = self.flow(z_p, y_mask, planned.g, reverse=True) * y_mask
        return z, z_p, m_p, logs_p, y_mask

    def voice_conversion(
        self, y: Tensor, y_lengths: Tensor, sid_src: Tensor, sid_tgt: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Say what `sid_src` says in `y` `[b, spec, t_t]` with the voice of `sid_tgt` (VITS, section 4.4).

        Returns audio `[b, 1, t_t * hop]`, y_mask `[b, 1, t_t]` and (z, z_p, z_hat).
        """
        if not self.n_speakers:
            raise ValueError("voice conversion needs a model of many speakers, and this one has a single voice")
        g_src, g_tgt = self.speaker(sid_src), self.speaker(sid_tgt)
        z, _, _, y_mask = self.enc_q(y, y_lengths, g_src)
        z_p = self.flow(z, y_mask, g_src)
        z_hat = self.flow(z_p, y_mask, g_tgt, reverse=True)
        return self.dec(z_hat * y_mask, g_tgt), y_mask, (z, z_p, z_hat)

    def speaker(self, sid: Tensor | None) -> Tensor | None:
        """Speaker ids `[b]` to g `[b, gin, 1]`; None for a model of one voice.

        Raises:
            ValueError: a model of many speakers without `sid`.
        """
        if not self.n_speakers:
            return None
        if sid is None:
            raise ValueError(f"this model has {self.n_speakers} speakers: give sid, one id for each utterance")
        return self.emb_g(sid).unsqueeze(-1)

    @torch.no_grad()
    def align(self, z_p: Tensor, m_p: Tensor, logs_p: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
        """Monotonic alignment search, noise-scaled while the noise lasts (VITS2, section 2.2), in fp32.

        Args:
            z_p: `[b, inter, t_t]`.
            m_p, logs_p: `[b, inter, t_s]`.

        Returns:
            The best path `[b, 1, t_t, t_s]`.
        """
        attn_mask = x_mask * y_mask.transpose(1, 2)  # [b, t_t, t_s]
        with commons.without_autocast(z_p):
            neg_cent = log_density(z_p, m_p, logs_p)
        if self.training and self.current_mas_noise_scale > 0:
            noise = torch.randn_like(neg_cent) * self.mas_noise
            neg_cent = neg_cent + masked_std(neg_cent, attn_mask) * noise
        # a recording or a weight gone wrong shows in the losses, which leave the update out: the search goes on
        neg_cent = torch.nan_to_num(neg_cent, 0.0, 0.0, 0.0)
        return maximum_path(neg_cent, attn_mask).unsqueeze(1)

    def _text_condition(self, g: Tensor | None) -> Tensor | None:
        return g if self.conditions_text else None

    def predict_durations(self, x: Tensor, x_mask: Tensor, g: Tensor | None, noise_scale: float) -> Tensor:
        """Log durations `[b, 1, t_s]` from whichever predictor there is."""
        if self.use_sdp:
            return self.dp(x, x_mask, g=g, reverse=True, noise_scale=noise_scale)
        return self.dp(x, x_mask, g=g, noise_scale=noise_scale)

    def _duration_loss(self, x: Tensor, x_mask: Tensor, w: Tensor, g: Tensor | None) -> tuple[Tensor, Durations]:
        """Each item's share `[b]` of the duration loss per token, and what the duration discriminator sees."""
        logw_ = torch.log(w + 1e-6) * x_mask
        if self.use_sdp:
            l_length = self.dp(x, x_mask, w, g=g) / x_mask.sum()
            logw = self.predict_durations(x, x_mask, g, 1.0) if self.draw_logw else None
        else:
            logw = self.predict_durations(x, x_mask, g, 1.0)
            l_length = self.dp.loss(logw, logw_, x_mask)
        return l_length, Durations(x, logw, logw_)


def log_density(z_p: Tensor, m_p: Tensor, logs_p: Tensor) -> Tensor:
    """Log-density of every frame's latent under every token's prior, summed over channels.

    Args: z_p `[b, d, t_t]`; m_p, logs_p `[b, d, t_s]`. Returns `[b, t_t, t_s]`.
    """
    precision = torch.exp(-2 * logs_p)
    constant = (-0.5 * math.log(2 * math.pi) - logs_p - 0.5 * m_p.square() * precision).sum(1, keepdim=True)
    frames = z_p.transpose(1, 2)
    return constant + (-0.5 * frames.square()) @ precision + frames @ (m_p * precision)


def masked_std(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of each item's valid cells; values, mask `[b, t_t, t_s]`, returns `[b, 1, 1]`."""
    n = mask.sum((1, 2), keepdim=True)
    mean = (values * mask).sum((1, 2), keepdim=True) / n
    return (((values - mean) * mask).square().sum((1, 2), keepdim=True) / n).sqrt()


def pick_tokens(x: Tensor, token: Tensor) -> Tensor:
    """Each frame's share of what tokens have: x `[b, d, t_s]`, token `[b, t_t]`, indices; returns `[b, d, t_t]`."""
    return x.transpose(1, 2).gather(1, token.unsqueeze(2).expand(-1, -1, x.size(1))).transpose(1, 2)
