"""Building blocks: WaveNet layers, the residual blocks of HiFi-GAN, and the flows of the stochastic duration predictor.

A flow maps `(x, x_mask, g, reverse)` to `(y, logdet)`: x and y `[b, c, t]`, x_mask `[b, 1, t]`, and the log-determinant
`[b]` of the Jacobian dy/dx over the valid positions. `reverse` selects the inverse.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations
from torch.utils.checkpoint import checkpoint

import commons
from attentions import LayerNorm
from kernels import fused
from kernels.convolutions import Conv1d, Dropout
from transforms import piecewise_rational_quadratic_transform

LRELU_SLOPE = 0.1  # of leaky ReLU in HiFi-GAN's generator and discriminators
LOG_FLOOR = 1e-5  # smallest value that the flow `Log` takes the logarithm of
FlowOutput = tuple[Tensor, Tensor]  # y and the log-determinant


def remove_weight_norm(network: nn.Module) -> nn.Module:
    """Fold every weight norm of the network into plain weights, for inference, in place. Returns the network."""
    for module in network.modules():
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
    return network


def receptive_radius(block: nn.Module) -> int:
    """Return how many positions on either side an output of a chain of convolutions depends on."""
    convs = (module for module in block.modules() if isinstance(module, nn.Conv1d))
    return sum(commons.get_padding(conv.kernel_size[0], conv.dilation[0]) for conv in convs)


class Recomputable(nn.Module):
    """A network that can discard activations and compute them again in the backward pass (activation checkpointing).

    This takes less memory and more time in training. The recomputed functions must not draw random numbers.
    """

    recompute = False

    def recomputable(self, function: Callable[..., Tensor], *inputs: object) -> Tensor:
        """Return `function(*inputs)`. With `recompute`, training keeps the inputs only and computes the rest again."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return function(*inputs)
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def set_recompute(network: nn.Module, on: bool) -> None:
    """Switch activation checkpointing on or off in all `Recomputable` parts of a network: WaveNets and decoder."""
    for module in network.modules():
        if isinstance(module, Recomputable):
            module.recompute = on


class WN(Recomputable):
    """Non-causal WaveNet: gated residual layers with skip connections (VITS, section 2.5.1).

    Layer i has dilation `dilation_rate ** i`. With `gin_channels`, a condition is added before every gate.
    """

    def __init__(
        self, hidden_channels: int, kernel_size: int, dilation_rate: int, n_layers: int, gin_channels: int = 0
    ):
        super().__init__()
        self.n_layers = n_layers
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        for i in range(n_layers):
            in_layer = _same_conv(hidden_channels, 2 * hidden_channels, kernel_size, dilation_rate**i)
            self.in_layers.append(weight_norm(in_layer))
            # the last layer has only a skip connection
            outputs = 2 * hidden_channels if i < n_layers - 1 else hidden_channels
            self.res_skip_layers.append(weight_norm(Conv1d(hidden_channels, outputs, 1)))
        if gin_channels:
            self.cond_layer = weight_norm(Conv1d(gin_channels, 2 * hidden_channels * n_layers, 1))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, h, t]`; x_mask `[b, 1, t]`; g `[b, gin, 1]` or None. Returns the sum of skips `[b, h, t]`."""
        return self.recomputable(self._skips, x, x_mask, g)

    def _skips(self, x: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        conditions = self.cond_layer(g).chunk(self.n_layers, 1) if g is not None else [None] * self.n_layers
        skips = None
        layers = zip(self.in_layers, self.res_skip_layers, conditions)
        *others, last = cast("Iterable[tuple[Conv1d, Conv1d, Tensor | None]]", layers)
        for in_layer, res_skip, condition in others:
            x, skips = fused.residual_and_skip(res_skip, fused.gate(in_layer, x, condition), x, skips, x_mask)
        in_layer, res_skip, condition = last
        return res_skip(fused.gate(in_layer, x, condition), plus=skips, mask=x_mask)


def _same_conv(in_channels: int, out_channels: int, kernel_size: int, dilation: int, groups: int = 1) -> Conv1d:
    """Return a convolution that keeps the length of its input."""
    padding = commons.get_padding(kernel_size, dilation)
    return Conv1d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups)


def _residual_conv(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    conv = _same_conv(channels, channels, kernel_size, dilation)
    commons.init_weights(conv)
    return weight_norm(conv)


class ResBlock1(nn.Module):
    """HiFi-GAN's residual block "1" (section 2.2): each dilated convolution is followed by an undilated one."""

    def __init__(self, channels: int, kernel_size: int = 3, dilation: Sequence[int] = (1, 3, 5)):
        super().__init__()
        self.convs1 = nn.ModuleList(_residual_conv(channels, kernel_size, d) for d in dilation)
        self.convs2 = nn.ModuleList(_residual_conv(channels, kernel_size, 1) for _ in dilation)

    def forward(self, x: Tensor, activated: Tensor | None = None) -> Tensor:
        """Args: x `[b, c, t]`; activated: `leaky_relu(x)`, None to compute it here. Returns `[b, c, t]`."""
        y = F.leaky_relu(x, LRELU_SLOPE) if activated is None else activated
        *pairs, (last_1, last_2) = cast("Iterable[tuple[Conv1d, Conv1d]]", zip(self.convs1, self.convs2))
        for conv_1, conv_2 in pairs:
            x, y = conv_2.before_and_after(conv_1(y, LRELU_SLOPE), LRELU_SLOPE, plus=x)
        return last_2(last_1(y, LRELU_SLOPE), plus=x)


class ResBlock2(nn.Module):
    """HiFi-GAN's smaller residual block "2": the dilated convolutions alone."""

    def __init__(self, channels: int, kernel_size: int = 3, dilation: Sequence[int] = (1, 3)):
        super().__init__()
        self.convs = nn.ModuleList(_residual_conv(channels, kernel_size, d) for d in dilation)

    def forward(self, x: Tensor, activated: Tensor | None = None) -> Tensor:
        """Args: x `[b, c, t]`; activated: `leaky_relu(x)`, None to compute it here. Returns `[b, c, t]`."""
        y = F.leaky_relu(x, LRELU_SLOPE) if activated is None else activated
        *convs, last = cast("Iterable[Conv1d]", self.convs)
        for conv in convs:
            x, y = conv.before_and_after(y, LRELU_SLOPE, plus=x)
        return last(y, plus=x)


RESBLOCKS: dict[str, type[ResBlock1] | type[ResBlock2]] = {"1": ResBlock1, "2": ResBlock2}


class DDSConv(nn.Module):
    """Dilated and depth-separable convolutions (VITS, appendix B.3). Layer i has dilation `kernel_size ** i`."""

    def __init__(self, channels: int, kernel_size: int, n_layers: int, p_dropout: float = 0.0):
        super().__init__()
        self.drop = Dropout(p_dropout)
        dilations = [kernel_size**i for i in range(n_layers)]
        self.convs_sep = nn.ModuleList(_same_conv(channels, channels, kernel_size, d, channels) for d in dilations)
        self.convs_1x1 = nn.ModuleList(Conv1d(channels, channels, 1) for _ in dilations)
        self.norms_1 = nn.ModuleList(LayerNorm(channels) for _ in dilations)
        self.norms_2 = nn.ModuleList(LayerNorm(channels) for _ in dilations)

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`; g: added to x, `[b, c, t]` or None. Returns `[b, c, t]`, masked."""
        if g is not None:
            x = x + g
        for separable, norm_1, pointwise, norm_2 in zip(self.convs_sep, self.norms_1, self.convs_1x1, self.norms_2):
            y = F.gelu(norm_1(separable(x * x_mask)))
            y = F.gelu(norm_2(pointwise(y)))
            x = x + self.drop(y)
        return x * x_mask


class Flip(nn.Module):
    """A flow that reverses the order of the channels, so that the next coupling changes the other half."""

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> FlowOutput:
        """Args: x `[b, c, t]`; the rest is not used. Returns `[b, c, t]` and the log-determinant `[b]`, zero."""
        return x.flip(1), x.new_zeros(x.size(0))


class Log(nn.Module):
    """A flow that takes the logarithm; its inverse takes the exponential."""

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> FlowOutput:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`. Returns `[b, c, t]` and the log-determinant `[b]`."""
        if reverse:
            return x.exp() * x_mask, (x * x_mask).sum((1, 2))
        y = x.clamp_min(LOG_FLOOR).log() * x_mask
        return y, -y.sum((1, 2))


class ElementwiseAffine(nn.Module):
    """A flow with one shift and one scale for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.m, self.logs = (nn.Parameter(torch.zeros(channels, 1)) for _ in range(2))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> FlowOutput:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`. Returns `[b, c, t]` and the log-determinant `[b]`."""
        logdet = (self.logs * x_mask).sum((1, 2))
        if reverse:
            return (x - self.m) * torch.exp(-self.logs) * x_mask, -logdet
        return (self.m + torch.exp(self.logs) * x) * x_mask, logdet


class ConvFlow(nn.Module):
    """A spline coupling: the first half of the channels sets the splines of the second half (VITS, appendix B.3).

    The splines have `num_bins` bins on [-tail_bound, tail_bound] and are the identity outside.
    """

    num_bins = 10
    tail_bound = 5.0

    def __init__(self, in_channels: int, filter_channels: int, kernel_size: int, n_layers: int):
        super().__init__()
        self.filter_channels = filter_channels
        half = in_channels // 2
        self.pre = Conv1d(half, filter_channels, 1)
        self.convs = DDSConv(filter_channels, kernel_size, n_layers)
        # widths and heights of the bins, and the slopes at the knots between them
        self.proj = zero_conv(filter_channels, half * (3 * self.num_bins - 1))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> FlowOutput:
        """Args: x `[b, c, t]`; x_mask `[b, 1, t]`; g `[b, filter, t]`. Returns `[b, c, t]` and the log-determinant."""
        x0, x1 = x.chunk(2, 1)
        h = commons.at_least_fp32(self.proj(self.convs(self.pre(x0), x_mask, g)) * x_mask)
        h = h.view(x0.size(0), x0.size(1), -1, x0.size(2)).transpose(2, 3)  # [b, c / 2, t, 3 bins - 1]
        scale = math.sqrt(self.filter_channels)
        widths, heights, slopes = h.split([self.num_bins, self.num_bins, self.num_bins - 1], -1)
        x1, logabsdet = piecewise_rational_quadratic_transform(
            x1, widths / scale, heights / scale, slopes, inverse=reverse, tails="linear", tail_bound=self.tail_bound
        )
        return torch.cat([x0, x1], 1) * x_mask, (logabsdet * x_mask).sum((1, 2))


def zero_conv(in_channels: int, out_channels: int) -> Conv1d:
    """Return a pointwise convolution with zero weights and bias; a flow that ends in it starts as the identity."""
    conv = Conv1d(in_channels, out_channels, 1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
