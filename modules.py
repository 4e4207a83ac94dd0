"""Building blocks: WaveNet layers, HiFi-GAN's residual blocks, and the small flows of the duration predictor."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations
from torch.utils.checkpoint import checkpoint

import commons
import fused
from attentions import LayerNorm
from convolutions import Conv1d, Dropout
from transforms import piecewise_rational_quadratic_transform

LRELU_SLOPE = 0.1


def remove_weight_norm(network: nn.Module) -> nn.Module:
    """Fold every weight norm of the network into plain weights, for inference, in place. Returns the network."""
    for module in network.modules():
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
    return network


def reach(block: nn.Module) -> int:
    """Places on either side that an output of a chain of convolutions, with shortcuts or not, depends on."""
    convs = (module for module in block.modules() if isinstance(module, nn.Conv1d))
    return sum(commons.get_padding(conv.kernel_size[0], conv.dilation[0]) for conv in convs)


class Forgetful(nn.Module):
    """A network that can forget what it computed on the way, and compute it again when gradients ask for it.

    That takes less memory and more time in training. What is computed twice must draw nothing at random.
    """

    recompute = False

    def forgetting(self, function: Callable[..., Tensor], *inputs) -> Tensor:
        """`function(*inputs)`. Where `recompute` is set and the network learns, only the inputs are kept for that."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return function(*inputs)
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def set_recompute(network: nn.Module, on: bool) -> None:
    """Whether all that can forget in a network, its WaveNets and its decoder, does."""
    for module in network.modules():
        if isinstance(module, Forgetful):
            module.recompute = on


class WN(Forgetful):
    """WaveNet's gated residual layers, not causal; layer i is dilated by `dilation_rate ** i`."""

    def __init__(
        self, hidden_channels: int, kernel_size: int, dilation_rate: int, n_layers: int, gin_channels: int = 0
    ):
        super().__init__()
        self.n_layers = n_layers
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        for i in range(n_layers):
            dilation = dilation_rate**i
            padding = commons.get_padding(kernel_size, dilation)
            self.in_layers.append(
                weight_norm(
                    Conv1d(hidden_channels, 2 * hidden_channels, kernel_size, dilation=dilation, padding=padding)
                )
            )
            # the last layer has no successor, so it gives no residual
            outputs = 2 * hidden_channels if i < n_layers - 1 else hidden_channels
            self.res_skip_layers.append(weight_norm(Conv1d(hidden_channels, outputs, 1)))
        if gin_channels:
            self.cond_layer = weight_norm(Conv1d(gin_channels, 2 * hidden_channels * n_layers, 1))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, h, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns the sum of skips `[b, h, t]`."""
        return self.forgetting(self._skips, x, x_mask, g)

    def _skips(self, x: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        conditions = self.cond_layer(g).chunk(self.n_layers, 1) if g is not None else [None] * self.n_layers
        skips = None
        *layers, last = zip(self.in_layers, self.res_skip_layers, conditions)
        for in_layer, res_skip, condition in layers:
            x, skips = fused.residual_and_skip(res_skip, fused.gate(in_layer, x, condition), x, skips, x_mask)
        in_layer, res_skip, condition = last
        return res_skip(fused.gate(in_layer, x, condition), plus=skips, mask=x_mask)


def _residual_conv(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    conv = Conv1d(
        channels, channels, kernel_size, dilation=dilation, padding=commons.get_padding(kernel_size, dilation)
    )
    commons.init_weights(conv)
    return weight_norm(conv)


class ResBlock1(nn.Module):
    """HiFi-GAN's residual block "1": each dilated convolution is followed by a plain one."""

    def __init__(self, channels: int, kernel_size: int = 3, dilation: tuple[int, ...] = (1, 3, 5)):
        super().__init__()
        self.convs1 = nn.ModuleList(_residual_conv(channels, kernel_size, d) for d in dilation)
        self.convs2 = nn.ModuleList(_residual_conv(channels, kernel_size, 1) for _ in dilation)

    def forward(self, x: Tensor, activated: Tensor | None = None) -> Tensor:
        """`[b, c, t]` to `[b, c, t]`; `activated` is `leaky_relu(x)`, where it is there already."""
        y = F.leaky_relu(x, LRELU_SLOPE) if activated is None else activated
        *pairs, (last_1, last_2) = zip(self.convs1, self.convs2)
        for conv_1, conv_2 in pairs:
            x, y = conv_2.before_and_after(conv_1(y, LRELU_SLOPE), LRELU_SLOPE, plus=x)
        return last_2(last_1(y, LRELU_SLOPE), plus=x)


class ResBlock2(nn.Module):
    """HiFi-GAN's residual block "2", with half the convolutions."""

    def __init__(self, channels: int, kernel_size: int = 3, dilation: tuple[int, ...] = (1, 3)):
        super().__init__()
        self.convs = nn.ModuleList(_residual_conv(channels, kernel_size, d) for d in dilation)

    def forward(self, x: Tensor, activated: Tensor | None = None) -> Tensor:
        """`[b, c, t]` to `[b, c, t]`; `activated` is `leaky_relu(x)`, where it is there already."""
        y = F.leaky_relu(x, LRELU_SLOPE) if activated is None else activated
        *convs, last = self.convs
        for conv in convs:
            x, y = conv.before_and_after(y, LRELU_SLOPE, plus=x)
        return last(y, plus=x)


RESBLOCKS = {"1": ResBlock1, "2": ResBlock2}


class DDSConv(nn.Module):
    """Dilated and depth-separable convolutions (VITS, appendix B.1): dilation `kernel_size ** i`."""

    def __init__(self, channels: int, kernel_size: int, n_layers: int, p_dropout: float = 0.0):
        super().__init__()
        self.drop = Dropout(p_dropout)
        dilations = [kernel_size**i for i in range(n_layers)]
        self.convs_sep = nn.ModuleList(
            Conv1d(
                channels,
                channels,
                kernel_size,
                groups=channels,
                dilation=d,
                padding=commons.get_padding(kernel_size, d),
            )
            for d in dilations
        )
        self.convs_1x1 = nn.ModuleList(Conv1d(channels, channels, 1) for _ in dilations)
        self.norms_1 = nn.ModuleList(LayerNorm(channels) for _ in dilations)
        self.norms_2 = nn.ModuleList(LayerNorm(channels) for _ in dilations)

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`; g added to x, `[b, c, t]`. Returns `[b, c, t]`, masked."""
        if g is not None:
            x = x + g
        for separable, norm_1, pointwise, norm_2 in zip(self.convs_sep, self.norms_1, self.convs_1x1, self.norms_2):
            y = F.gelu(norm_1(separable(x * x_mask)))
            y = F.gelu(norm_2(pointwise(y)))
            x = x + self.drop(y)
        return x * x_mask


class Flip(nn.Module):
    """Reverse the order of the channels, so that the next flow changes the half this one left alone."""

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """`[b, c, t]` to `[b, c, t]` and its log-determinant, zero, `[b]`."""
        return x.flip(1), x.new_zeros(x.size(0))


class Log(nn.Module):
    """Logarithm on the way in, exponential on the way back."""

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """`[b, c, t]` to `[b, c, t]` and the log-determinant `[b]`."""
        if reverse:
            return x.exp() * x_mask, (x * x_mask).sum((1, 2))
        y = x.clamp_min(1e-5).log() * x_mask
        return y, -y.sum((1, 2))


class ElementwiseAffine(nn.Module):
    """One shift and one scale for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.m = nn.Parameter(torch.zeros(channels, 1))
        self.logs = nn.Parameter(torch.zeros(channels, 1))

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """`[b, c, t]` to `[b, c, t]` and the log-determinant `[b]`."""
        logdet = (self.logs * x_mask).sum((1, 2))
        if reverse:
            return (x - self.m) * torch.exp(-self.logs) * x_mask, -logdet
        return (self.m + torch.exp(self.logs) * x) * x_mask, logdet


class ConvFlow(nn.Module):
    """A spline coupling: half of the channels sets the knots of the other half's spline (VITS, appendix B.1)."""

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        n_layers: int,
        num_bins: int = 10,
        tail_bound: float = 5.0,
    ):
        super().__init__()
        self.filter_channels = filter_channels
        self.num_bins = num_bins
        self.tail_bound = tail_bound
        half = in_channels // 2
        self.pre = Conv1d(half, filter_channels, 1)
        self.convs = DDSConv(filter_channels, kernel_size, n_layers)
        self.proj = Conv1d(filter_channels, half * (3 * num_bins - 1), 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`; g `[b, filter, t]`. Returns `[b, c, t]` and the log-determinant."""
        x0, x1 = x.chunk(2, 1)
        h = self.proj(self.convs(self.pre(x0), x_mask, g)) * x_mask
        h = (
            commons.at_least_fp32(h).view(x0.size(0), x0.size(1), -1, x0.size(2)).transpose(2, 3)
        )  # [b, c / 2, t, 3 bins - 1]
        scale = math.sqrt(self.filter_channels)
        widths, heights, derivatives = h.split([self.num_bins, self.num_bins, self.num_bins - 1], -1)
        x1, logabsdet = piecewise_rational_quadratic_transform(
            x1, widths / scale, heights / scale, derivatives, reverse, "linear", self.tail_bound
        )
        return torch.cat([x0, x1], 1) * x_mask, (logabsdet * x_mask).sum((1, 2))
