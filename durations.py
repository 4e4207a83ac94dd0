"""How long each token speaks: VITS's deterministic and stochastic predictors and VITS2's with a noise input."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modules
from attentions import LayerNorm
from commons import at_least_fp32
from convolutions import Conv1d, Dropout

LOG_2PI = math.log(2 * math.pi)


class DurationPredictor(nn.Module):
    """Convolutions from the text state to log durations (VITS, appendix B.1).

    With `use_noise` it is the generator of VITS2's section 2.1: Gaussian noise z_d enters beside the text state,
    so that one text has many rhythms. The text state and the speaker are inputs only: no gradient flows back.
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
        """Args: x `[b, h, t_s]`; x_mask `[b, 1, t_s]`; g `[b, gin, 1]` or None. Returns log durations `[b, 1, t_s]`."""
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        if self.noise is not None:
            x = x + self.noise(torch.randn_like(x) * noise_scale)
        x = self.drop(self.norm_1(torch.relu(self.conv_1(x * x_mask))))
        x = self.drop(self.norm_2(torch.relu(self.conv_2(x * x_mask))))
        return self.proj(x * x_mask) * x_mask

    def loss(self, logw: Tensor, logw_: Tensor, x_mask: Tensor) -> Tensor:
        """Squared error of log durations `[b, 1, t_s]`, each item's share `[b]` of the mean over all valid tokens."""
        return (at_least_fp32(logw) - logw_).square().sum((1, 2)) / x_mask.sum()


class StochasticDurationPredictor(nn.Module):
    """A flow over durations, with variational dequantisation and data augmentation (VITS, section 2.2.2)."""

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
            flows = [modules.ElementwiseAffine(2)]
            for _ in range(n_flows):
                flows += [modules.ConvFlow(2, filter_channels, kernel_size, n_layers=3), modules.Flip()]
            return nn.ModuleList(flows)

        self.log_flow = modules.Log()
        self.flows = spline_flows()
        self.post_pre = Conv1d(1, filter_channels, 1)
        self.post_proj = Conv1d(filter_channels, filter_channels, 1)
        self.post_convs = modules.DDSConv(filter_channels, kernel_size, n_layers=3, p_dropout=p_dropout)
        self.post_flows = spline_flows()
        self.pre = Conv1d(in_channels, filter_channels, 1)
        self.proj = Conv1d(filter_channels, filter_channels, 1)
        self.convs = modules.DDSConv(filter_channels, kernel_size, n_layers=3, p_dropout=p_dropout)
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
        """Args: x `[b, h, t_s]`; x_mask `[b, 1, t_s]`; w `[b, 1, t_s]`, frames of each token; g `[b, gin, 1]` or None.

        Returns the bound on the negative log-likelihood `[b]` or, with `reverse`, drawn log durations `[b, 1, t_s]`.
        """
        x = self.pre(x.detach())
        if g is not None:
            x = x + self.cond(g.detach())
        x = self.proj(self.convs(x, x_mask)) * x_mask
        return self._sample(x, x_mask, noise_scale) if reverse else self._bound(x, x_mask, w)

    def _bound(self, x: Tensor, x_mask: Tensor, w: Tensor) -> Tensor:
        """VITS, equation 7: draw u and nu from the posterior, and weigh (w - u, nu) under the flow."""
        h_w = self.post_proj(self.post_convs(self.post_pre(w), x_mask)) * x_mask
        e_q = torch.randn(w.size(0), 2, w.size(2), device=w.device, dtype=w.dtype) * x_mask
        z_q, logdet_q = e_q, 0.0
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
        nll = 0.5 * ((LOG_2PI + z.square()) * x_mask).sum((1, 2)) - logdet_p
        return nll + logq

    def _sample(self, x: Tensor, x_mask: Tensor, noise_scale: float) -> Tensor:
        """Undo the flow on Gaussian noise. Its first spline only moves nu, which nobody asks for, and is left out."""
        z = torch.randn(x.size(0), 2, x.size(2), device=x.device, dtype=x_mask.dtype) * noise_scale
        affine, _, *splines = self.flows
        for flow in [*reversed(splines), affine]:
            z, _ = flow(z, x_mask, g=x, reverse=True)
        return z[:, :1]
