"""Duration predictors: the deterministic and the stochastic one of VITS and the one of VITS2, which takes noise.

All predict the logarithm of the number of frames of each token from the hidden states of the text encoder. The hidden
states and the condition are detached: no gradient flows back to the encoder (VITS, section 2.2.2).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modules
from attentions import LayerNorm
from commons import at_least_fp32
from kernels.convolutions import Conv1d, Dropout

LOG_2PI = math.log(2 * math.pi)
DDS_LAYERS = 3  # of each `DDSConv` of the stochastic predictor


def dequantize(logw_: Tensor, x_mask: Tensor) -> Tensor:
    """Replace each integer duration w by a real number, uniform above w - 1 and up to w. Synthesis rounds it up to w.

    A token of one frame gets 0.5 to 1, because the logarithm has no bound at 0. Args and result: log durations
    `[b, 1, t_s]`.
    """
    w = logw_.exp().round()
    width = torch.where(w > 1, 1.0, 0.5)
    return torch.log(w - width * torch.rand_like(w)) * x_mask


class DurationPredictor(nn.Module):
    """The deterministic predictor of Glow-TTS (VITS, section 2.2.2): two convolutions and a projection.

    With `use_noise` it is the generator of VITS2 (section 2.1): a projection of Gaussian noise z_d is added to the
    hidden states, so that the same text gets different rhythms.
    """

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        p_dropout: float,
        gin_channels: int = 0,
        use_noise: bool = False,
    ):
        super().__init__()
        self.drop = Dropout(p_dropout)
        self.conv_1 = Conv1d(in_channels, filter_channels, kernel_size, padding=kernel_size // 2)
        self.norm_1 = LayerNorm(filter_channels)
        self.conv_2 = Conv1d(filter_channels, filter_channels, kernel_size, padding=kernel_size // 2)
        self.norm_2 = LayerNorm(filter_channels)
        self.proj = Conv1d(filter_channels, 1, 1)
        if gin_channels:
            self.cond = Conv1d(gin_channels, in_channels, 1)
        self.noise = Conv1d(in_channels, in_channels, 1) if use_noise else None

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, noise_scale: float = 1.0) -> Tensor:
        """Args: x `[b, h, t_s]`; x_mask `[b, 1, t_s]`; g `[b, gin, 1]` or None; noise_scale: std of z_d.

        Returns log durations `[b, 1, t_s]`, masked.
        """
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        if self.noise is not None:
            x = x + self.noise(torch.randn_like(x) * noise_scale)
        x = self.drop(self.norm_1(torch.relu(self.conv_1(x * x_mask))))
        x = self.drop(self.norm_2(torch.relu(self.conv_2(x * x_mask))))
        return self.proj(x * x_mask) * x_mask

    def loss(self, logw: Tensor, logw_: Tensor, x_mask: Tensor) -> Tensor:
        """Return terms `[b]` whose sum is the mean squared error of log durations `[b, 1, t_s]` over valid tokens."""
        return (at_least_fp32(logw) - logw_).square().sum((1, 2)) / x_mask.sum()


class StochasticDurationPredictor(nn.Module):
    """A flow over durations with variational dequantization and data augmentation (VITS, section 2.2.2, appendix B.3).

    Raises ValueError if `filter_channels` differs from `in_channels`; VITS has both arguments and uses one width.
    """

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        p_dropout: float,
        n_flows: int = 4,
        gin_channels: int = 0,
    ):
        super().__init__()
        if filter_channels != in_channels:
            raise ValueError(f"filter_channels ({filter_channels}) must equal in_channels ({in_channels})")

        def spline_flows() -> nn.ModuleList:
            flows = nn.ModuleList([modules.ElementwiseAffine(2)])
            for _ in range(n_flows):
                flows.extend([modules.ConvFlow(2, filter_channels, kernel_size, DDS_LAYERS), modules.Flip()])
            return flows

        self.log_flow = modules.Log()
        self.flows = spline_flows()
        self.post_pre = Conv1d(1, filter_channels, 1)
        self.post_proj = Conv1d(filter_channels, filter_channels, 1)
        self.post_convs = modules.DDSConv(filter_channels, kernel_size, DDS_LAYERS, p_dropout)
        self.post_flows = spline_flows()
        self.pre = Conv1d(in_channels, filter_channels, 1)
        self.proj = Conv1d(filter_channels, filter_channels, 1)
        self.convs = modules.DDSConv(filter_channels, kernel_size, DDS_LAYERS, p_dropout)
        if gin_channels:
            self.cond = Conv1d(gin_channels, filter_channels, 1)

    def forward(
        self,
        x: Tensor,
        x_mask: Tensor,
        w: Tensor | None = None,
        g: Tensor | None = None,
        reverse: bool = False,
        noise_scale: float = 1.0,
    ) -> Tensor:
        """Args: x `[b, h, t_s]`; x_mask `[b, 1, t_s]`; w: durations in frames `[b, 1, t_s]`; g `[b, gin, 1]` or None.

        Returns an upper bound `[b]` of the negative log-likelihood of w or, with `reverse`, a sample of log durations
        `[b, 1, t_s]`, from noise of standard deviation `noise_scale`. Raises ValueError if w is needed and missing.
        """
        x = self.pre(x.detach())
        if g is not None:
            x = x + self.cond(g.detach())
        x = self.proj(self.convs(x, x_mask)) * x_mask
        if reverse:
            return self._sample(x, x_mask, noise_scale)
        if w is None:
            raise ValueError("StochasticDurationPredictor: the loss needs the durations w")
        return self._bound(x, x_mask, w)

    def _bound(self, x: Tensor, x_mask: Tensor, w: Tensor) -> Tensor:
        """Return the bound of VITS, equation 7: draw u, nu from the posterior and score (w - u, nu) under the flow."""
        h_w = self.post_proj(self.post_convs(self.post_pre(w), x_mask)) * x_mask
        e_q = torch.randn(w.size(0), 2, w.size(2), device=w.device, dtype=w.dtype) * x_mask
        z_q, logdet_q = e_q, w.new_zeros(w.size(0))
        for flow in self.post_flows:
            z_q, logdet = flow(z_q, x_mask, g=x + h_w)
            logdet_q = logdet_q + logdet
        z_u, nu = z_q.chunk(2, 1)
        u = torch.sigmoid(z_u) * x_mask
        logdet_q = logdet_q + ((F.logsigmoid(z_u) + F.logsigmoid(-z_u)) * x_mask).sum((1, 2))
        logq = -0.5 * ((LOG_2PI + e_q.square()) * x_mask).sum((1, 2)) - logdet_q
        log_w, logdet_p = self.log_flow((w - u) * x_mask, x_mask)
        z = torch.cat([log_w, nu], 1)
        for flow in self.flows:
            z, logdet = flow(z, x_mask, g=x)
            logdet_p = logdet_p + logdet
        return 0.5 * ((LOG_2PI + z.square()) * x_mask).sum((1, 2)) - logdet_p + logq

    def _sample(self, x: Tensor, x_mask: Tensor, noise_scale: float) -> Tensor:
        """Apply the inverse flow to Gaussian noise. The first spline is skipped, because it only changes nu."""
        z = torch.randn(x.size(0), 2, x.size(2), device=x.device, dtype=x_mask.dtype) * noise_scale
        affine, _, *splines = self.flows
        for flow in [*reversed(splines), affine]:
            z, _ = flow(z, x_mask, g=x, reverse=True)
        return z[:, :1]
