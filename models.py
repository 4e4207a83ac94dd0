"""The VITS2 generator: text and speech meet in a latent space, and a decoder turns latents into audio.

Figure 1 of VITS2 (Kong et al. 2023, arXiv 2307.16430): `TextEncoder` gives the prior's statistics of each token,
`PosteriorEncoder` a latent of each spectrogram frame, `Flow` maps that latent to the prior, the alignment search finds
the token of each frame, a duration predictor learns the alignment, and a `Decoder` synthesizes the waveform.

The names are the papers': x text, y spectrogram, z latent of the posterior, z_p the same after the flow, where the
prior N(m_p, exp(logs_p)) is defined; m_q, logs_q statistics of the posterior; w durations in frames, logw their
logarithm, logw_ the logarithm of the alignment's durations; g the embedding of the conditions (the speaker). Shapes are
`[b, c, t]`, with t_s text tokens and t_t spectrogram frames; masks are `[b, 1, t]`.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import attentions
import commons
import conditions
import modules
from conditions import CONDITIONS, Bundle
from config import Config, ModelConfig, field_names, refuse_unknown
from decoders import DECODERS, Generator
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
from kernels.convolutions import Conv1d
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

POSTERIOR_KERNEL, POSTERIOR_DILATION_RATE = 5, 1  # of the posterior encoder's WaveNet
DURATION_KERNEL = 3  # of both duration predictors
DURATION_CHANNELS = 256  # of the deterministic one
SDP_FLOWS = 4  # spline flows of the stochastic one, and as many of its posterior


class Latents(NamedTuple):
    """Latents and statistics, each `[b, inter, t_t]`; the prior's are those of the token aligned with the frame."""

    z: Tensor
    z_p: Tensor
    m_p: Tensor
    logs_p: Tensor
    m_q: Tensor
    logs_q: Tensor


class Durations(NamedTuple):
    """Input of the duration discriminator: text state `[b, h, t_s]`, predicted and true log durations `[b, 1, t_s]`.

    `logw` is None for the stochastic predictor unless `SynthesizerTrn.draw_logw` is set.
    """

    x: Tensor
    logw: Tensor | None
    logw_: Tensor


class TrainingOutput(NamedTuple):
    """Output of `SynthesizerTrn.forward`, in the order of VITS's tuple.

    o `[b, 1, segment]` audio; l_length `[b]` duration losses; attn `[b, 1, t_t, t_s]`; ids_slice `[b]` first frame of
    each decoded segment; masks `[b, 1, t_s]` and `[b, 1, t_t]`.
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
    """Everything that follows from the text: prior statistics and the duration of each token.

    m_p, logs_p `[b, inter, t_s]`; durations `[b, t_s]` in whole frames; g `[b, gin, 1]` or None; x_mask `[b, 1, t_s]`.
    """

    m_p: Tensor
    logs_p: Tensor
    durations: Tensor
    g: Tensor | None
    x_mask: Tensor


class TextEncoder(nn.Module):
    """Map tokens to the text state and the prior's statistics, conditioned on g if `gin_channels` is given."""

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
            hidden_channels, filter_channels, n_heads, n_layers, kernel_size, p_dropout, gin_channels=gin_channels
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
    """Map a spectrogram to a sample of the posterior, by a WaveNet of `n_layers` (VITS, section 2.1.3)."""

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
        # drawn frame by frame whatever the memory layout of m, so that a seed gives the same noise with every kernel
        noise = torch.randn(m.transpose(1, 2).shape, dtype=m.dtype, device=m.device).transpose(1, 2)
        z = (m + noise * logs.exp()) * y_mask
        return z, m, logs, y_mask


class SynthesizerTrn(nn.Module):
    """The whole generator. The arguments are the keys of a config's `model` section (`config.ModelConfig`).

    `spec_channels` is the number of channels of the posterior encoder's input: 80 mel bands for VITS2, n_fft / 2 + 1
    for VITS. `segment_size` counts latent frames. `condition_sizes` gives sizes of conditions other than the speaker.
    Keys that do not concern this network, such as `use_spectral_norm`, are accepted and not used. Raises ValueError for
    a key that no config has, with the nearest known one, and for a value that cannot be built.
    """

    mas_noise: Tensor

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
        condition_sizes: dict[str, int] | None = None,
        **vits2_keys: Any,
    ):
        arguments = locals()
        super().__init__()
        keys = field_names(ModelConfig)
        refuse_unknown(vits2_keys, keys, "SynthesizerTrn")
        model = ModelConfig(**{key: arguments[key] for key in keys if key in arguments}, **vits2_keys)
        flow_type = model.transformer_flow_type if model.use_transformer_flows else None
        _refuse_other("transformer_flow_type", flow_type, FLOWS)
        _refuse_other("decoder", model.decoder, DECODERS)
        _refuse_other("resblock", str(resblock), modules.RESBLOCKS)
        self.conditions = _used_conditions({"sid": n_speakers, **(condition_sizes or {})}, gin_channels)
        gin_channels = gin_channels if self.conditions else 0

        self.n_speakers = n_speakers
        self.segment_size = segment_size
        self.use_sdp = use_sdp
        self.draw_logw = True
        self.use_noise_scaled_mas = model.use_noise_scaled_mas  # read by training loops of vits2_pytorch
        self.mas_noise_scale_initial = model.mas_noise_scale_initial if model.use_noise_scaled_mas else 0.0
        self.noise_scale_delta = model.noise_scale_delta
        # on the device, because a captured training step reads it there
        self.register_buffer("mas_noise", torch.zeros(()), persistent=False)
        self.current_mas_noise_scale = self.mas_noise_scale_initial

        self.conditions_text = bool(gin_channels and model.use_spk_conditioned_encoder)
        gin = gin_channels if self.conditions_text else 0
        self.enc_p = TextEncoder(
            n_vocab, inter_channels, hidden_channels, filter_channels, n_heads, n_layers, kernel_size, p_dropout, gin
        )
        self.dec = DECODERS[model.decoder].from_config(model, gin_channels)
        wavenet = POSTERIOR_KERNEL, POSTERIOR_DILATION_RATE, model.posterior_layers
        posterior_channels = model.posterior_channels or hidden_channels
        self.enc_q = PosteriorEncoder(spec_channels, inter_channels, posterior_channels, *wavenet, gin_channels)
        self.flow = Flow(inter_channels, hidden_channels, gin_channels, flow_type)
        self.dp = _duration_predictor(model, gin_channels)
        for name, size in self.conditions.items():
            self.add_module(CONDITIONS[name].module, CONDITIONS[name].embedding(size, gin_channels))

    @classmethod
    def from_config(cls, config: Config, n_vocab: int) -> "SynthesizerTrn":
        """Build the generator that a config describes, for a table of `n_vocab` symbols."""
        sizes = conditions.sizes(config.data)
        speakers = sizes.pop("sid", 0)
        model = dataclasses.asdict(config.model)
        net = cls(
            n_vocab, config.spec_channels, config.segment_frames, n_speakers=speakers, condition_sizes=sizes, **model
        )
        hop = config.data.hop_length
        if net.dec.hop != hop:
            raise ValueError(f"data.hop_length is {hop}, but the decoder makes {net.dec.hop} samples a frame")
        return net

    @property
    def current_mas_noise_scale(self) -> float:
        """Alignment noise of the next training step, in standard deviations of the alignment's scores."""
        return self._mas_noise_scale

    @current_mas_noise_scale.setter
    def current_mas_noise_scale(self, scale: float) -> None:
        self._mas_noise_scale = scale
        self.mas_noise.fill_(scale)

    def anneal_mas_noise(self, step: int) -> None:
        """Set the alignment noise of a training step: it falls linearly from its initial scale to 0 (section 2.2)."""
        self.current_mas_noise_scale = max(self.mas_noise_scale_initial - self.noise_scale_delta * step, 0.0)

    def forward(
        self,
        x: Tensor,
        x_lengths: Tensor,
        y: Tensor,
        y_lengths: Tensor,
        sid: Tensor | Bundle | None = None,
        f0: Tensor | None = None,
    ) -> TrainingOutput:
        """Compute one training pass, in which a random segment of each utterance is decoded.

        Args: x `[b, t_s]`, token ids; y `[b, spec, t_t]`; lengths `[b]`; sid: see `condition`; f0 `[b, 1, t_t]`:
        measured fundamental frequency for decoders that use it, see `HarmonicVocos.excite`.
        """
        g = self.condition(sid)
        x, m_p, logs_p, x_mask = self.enc_p(x, x_lengths, g if self.conditions_text else None)
        z, m_q, logs_q, y_mask = self.enc_q(y, y_lengths, g)
        z_p = self.flow(z, y_mask, g)

        attn = self.align(z_p, m_p, logs_p, x_mask, y_mask)
        l_length, durations = self._duration_loss(x, x_mask, attn.sum(2), g)

        token = attn.squeeze(1).argmax(2)  # [b, t_t]
        m_p, logs_p = pick_tokens(m_p, token) * y_mask, pick_tokens(logs_p, token) * y_mask
        z_slice, ids_slice = commons.rand_slice_segments(z, y_lengths, self.segment_size)
        f0_slice = None if f0 is None else commons.slice_segments(f0, ids_slice, self.segment_size)
        o = self.dec(self.dec.excite(z_slice, torch.ones_like(z_slice[:, :1]), g, f0_slice), g)
        latents = Latents(z, z_p, m_p, logs_p, m_q, logs_q)
        return TrainingOutput(o, l_length, attn, ids_slice, x_mask, y_mask, latents, durations)

    def infer(
        self,
        x: Tensor,
        x_lengths: Tensor,
        sid: Tensor | Bundle | None = None,
        noise_scale: float = 1,
        length_scale: float = 1,
        noise_scale_w: float = 1.0,
        max_len: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Synthesize. Args: x `[b, t_s]`, token ids; x_lengths `[b]`; sid: see `condition`; max_len in frames.

        Returns audio `[b, 1, t_t * hop]`, attn `[b, 1, t_t, t_s]`, y_mask `[b, 1, t_t]`, (z, z_p, m_p, logs_p).
        """
        return self.speak(self.plan(x, x_lengths, sid, length_scale, noise_scale_w), noise_scale, max_len)

    def speak(
        self, planned: Plan, noise_scale: float = 1, max_len: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Synthesize from a plan; returns what `infer` returns."""
        z, z_p, m_p, logs_p, y_mask = self.latent(planned, noise_scale)
        attn_mask = planned.x_mask.unsqueeze(2) * y_mask.unsqueeze(3)
        attn = commons.generate_path(planned.durations.unsqueeze(1), attn_mask)
        o = self.dec(z[:, :, :max_len], planned.g)
        return o, attn, y_mask, (z[:, : z_p.size(1)], z_p, m_p, logs_p)

    def plan(
        self,
        x: Tensor,
        x_lengths: Tensor,
        sid: Tensor | Bundle | None = None,
        length_scale: float | Tensor = 1.0,
        noise_scale_w: float | Tensor = 1.0,
    ) -> Plan:
        """Encode tokens `[b, t_s]` and predict their durations, the first of three steps of synthesis."""
        g = self.condition(sid)
        x, m_p, logs_p, x_mask = self.enc_p(x, x_lengths, g if self.conditions_text else None)
        logw = self.predict_durations(x, x_mask, g, noise_scale_w)
        durations = torch.ceil(torch.exp(commons.at_least_fp32(logw)) * x_mask * length_scale).squeeze(1)
        return Plan(m_p, logs_p, durations, g, x_mask)

    def latent(
        self, planned: Plan, noise_scale: float | Tensor = 1.0, t_t: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Sample the prior and invert the flow, the second step of synthesis. The third is the decoder.

        Args: t_t: frames to compute; None is the longest item, which reads a number back from the device.

        Returns the decoder's input z `[b, inter + extra, t_t]`, z_p, m_p, logs_p `[b, inter, t_t]` and y_mask
        `[b, 1, t_t]`. All but z_p, which is noise there, are zero beyond the last frame of each item.
        """
        token, spoken = commons.tokens_of_frames(planned.durations, t_t)
        y_mask = spoken.unsqueeze(1).to(planned.m_p.dtype)
        m_p, logs_p = (pick_tokens(x, token) * y_mask for x in (planned.m_p, planned.logs_p))
        z_p = m_p + torch.randn_like(m_p) * torch.exp(logs_p) * noise_scale
        z = self.flow(z_p, y_mask, planned.g, reverse=True) * y_mask
        z = self.dec.excite(z, y_mask, planned.g) * y_mask
        return z, z_p, m_p, logs_p, y_mask

    def voice_conversion(
        self, y: Tensor, y_lengths: Tensor, sid_src: Tensor | Bundle, sid_tgt: Tensor | Bundle
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Convert speech `y` `[b, spec, t_t]` of speaker `sid_src` to the voice of `sid_tgt` (VITS, section 4.4).

        Returns audio `[b, 1, t_t * hop]`, y_mask `[b, 1, t_t]` and (z, z_p, z_hat). Raises ValueError for a model of a
        single speaker.
        """
        if not self.n_speakers:
            raise ValueError("voice conversion needs a model of several speakers, and this model has a single voice")
        g_src, g_tgt = self.condition(sid_src), self.condition(sid_tgt)
        z, _, _, y_mask = self.enc_q(y, y_lengths, g_src)
        z_p = self.flow(z, y_mask, g_src)
        z_hat = self.flow(z_p, y_mask, g_tgt, reverse=True)
        return self.dec(self.dec.excite(z_hat * y_mask, y_mask, g_tgt), g_tgt), y_mask, (z, z_p, z_hat)

    def condition(self, sid: Tensor | Bundle | None) -> Tensor | None:
        """Embed the conditions of a batch as g `[b, gin, 1]`; None for a model without conditions.

        `sid` is a bundle (see `conditions`), or the speaker ids alone, `[b]`, as in VITS. Raises ValueError if a
        condition of this model is missing.
        """
        given = {"sid": sid} if isinstance(sid, Tensor) else sid or {}
        parts = []
        for name, size in self.conditions.items():
            if name not in given:
                what = f"this model has {size} speakers" if name == "sid" else f"this model has the condition {name!r}"
                raise ValueError(f"{what}: give {name}, one value for each utterance")
            parts.append(self.get_submodule(CONDITIONS[name].module)(given[name]))
        return sum(parts[1:], parts[0]).unsqueeze(-1) if parts else None

    @torch.no_grad()
    def align(self, z_p: Tensor, m_p: Tensor, logs_p: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
        """Search the monotonic alignment in fp32, with Gaussian noise early in training (VITS2, section 2.2).

        Args: z_p `[b, inter, t_t]`; m_p, logs_p `[b, inter, t_s]`; x_mask `[b, 1, t_s]`; y_mask `[b, 1, t_t]`.
        Returns the best path `[b, 1, t_t, t_s]`.
        """
        attn_mask = x_mask * y_mask.transpose(1, 2)  # [b, t_t, t_s]
        with commons.without_autocast(z_p):
            neg_cent = log_density(z_p, m_p, logs_p)
        if self.training and self.current_mas_noise_scale > 0:
            noise = torch.randn_like(neg_cent) * self.mas_noise
            neg_cent = neg_cent + masked_std(neg_cent, attn_mask) * noise
        # the losses report values that are not finite and the step is skipped; the search itself needs numbers
        neg_cent = torch.nan_to_num(neg_cent, 0.0, 0.0, 0.0)
        return maximum_path(neg_cent, attn_mask).unsqueeze(1)

    def predict_durations(self, x: Tensor, x_mask: Tensor, g: Tensor | None, noise_scale: float | Tensor) -> Tensor:
        """Predict log durations `[b, 1, t_s]` from the text state `[b, h, t_s]` with either predictor."""
        if isinstance(self.dp, StochasticDurationPredictor):
            return self.dp(x, x_mask, g=g, reverse=True, noise_scale=noise_scale)
        return self.dp(x, x_mask, g=g, noise_scale=noise_scale)

    def _duration_loss(self, x: Tensor, x_mask: Tensor, w: Tensor, g: Tensor | None) -> tuple[Tensor, Durations]:
        """Return each item's share `[b]` of the duration loss per token, and the duration discriminator's input."""
        logw_ = torch.log(w + 1e-6) * x_mask
        if isinstance(self.dp, StochasticDurationPredictor):
            l_length = self.dp(x, x_mask, w, g=g) / x_mask.sum()
            logw = self.predict_durations(x, x_mask, g, 1.0) if self.draw_logw else None
        else:
            logw = self.predict_durations(x, x_mask, g, 1.0)
            l_length = self.dp.loss(logw, logw_, x_mask)
        return l_length, Durations(x, logw, logw_)


def _refuse_other(key: str, value: str | None, choices: Iterable[str | None]) -> None:
    """Raise ValueError for a value that no registry has."""
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; choices: {', '.join(repr(c) for c in choices if c is not None)}")


def _used_conditions(sizes: dict[str, int], gin_channels: int) -> dict[str, int]:
    used = {name: size for name, size in sizes.items() if size}
    if used and not gin_channels:
        what = f"{used['sid']} speakers" if "sid" in used else f"the condition {next(iter(used))!r}"
        raise ValueError(f"{what} need gin_channels above 0, the width of the embedding")
    return used


def _duration_predictor(model: ModelConfig, gin_channels: int) -> StochasticDurationPredictor | DurationPredictor:
    h, dropout = model.hidden_channels, model.duration_p_dropout
    if model.use_sdp:
        return StochasticDurationPredictor(h, h, DURATION_KERNEL, dropout, SDP_FLOWS, gin_channels)
    return DurationPredictor(h, DURATION_CHANNELS, DURATION_KERNEL, dropout, gin_channels, model.use_duration_noise)


def log_density(z_p: Tensor, m_p: Tensor, logs_p: Tensor) -> Tensor:
    """Return the log-density of every frame's latent under every token's prior, summed over channels.

    Args: z_p `[b, d, t_t]`; m_p, logs_p `[b, d, t_s]`. Returns `[b, t_t, t_s]`.
    """
    precision = torch.exp(-2 * logs_p)
    constant = (-0.5 * math.log(2 * math.pi) - logs_p - 0.5 * m_p.square() * precision).sum(1, keepdim=True)
    frames = z_p.transpose(1, 2)
    return constant + (-0.5 * frames.square()) @ precision + frames @ (m_p * precision)


def masked_std(values: Tensor, mask: Tensor) -> Tensor:
    """Return the standard deviation of each item's valid cells; values, mask `[b, t_t, t_s]`, result `[b, 1, 1]`."""
    n = mask.sum((1, 2), keepdim=True)
    mean = (values * mask).sum((1, 2), keepdim=True) / n
    return (((values - mean) * mask).square().sum((1, 2), keepdim=True) / n).sqrt()


def pick_tokens(x: Tensor, token: Tensor) -> Tensor:
    """Expand values of tokens to frames: x `[b, d, t_s]`, token `[b, t_t]`, indices; returns `[b, d, t_t]`."""
    return x.transpose(1, 2).gather(1, token.unsqueeze(2).expand(-1, -1, x.size(1))).transpose(1, 2)
