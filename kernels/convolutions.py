"""Convolutions with the interface of `torch.nn` and the memory layout that GPUs are fast with.

cuDNN's fastest kernels need channels-last memory. PyTorch supports that format for two spatial dimensions only, so an
`nn.Conv1d` copies its input before each call and its output afterwards. On a GPU the layers here compute
one-dimensional convolutions as two-dimensional ones of height 1. All layers fuse the operations that follow into the
same pass over memory (see `fused`). The results are the same.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commons import at_least_fp32
from kernels import fused

# A dilated kernel is folded if it spans at least MIN_FOLDED_SPAN positions and its input at most MAX_FOLDED_LENGTH.
MIN_FOLDED_SPAN, MAX_FOLDED_LENGTH = 50, 512
MIN_GROUP_CHANNELS = 16  # output channels for each group from which strided groups are computed without stride
PRODUCT_MULTIPLE = 8  # matrix products are fast if their inner dimension is a multiple of this


class Convolution(nn.modules.conv._ConvNd):
    """Base of `Conv1d`, `Conv2d` and `ConvTranspose1d`: the choice of memory layout and the fused operations.

    `use_kernels` selects the Triton kernels where they run; `fused.enable` sets it for a whole network.
    """

    use_kernels = True
    padding: tuple[int, ...]  # never a string, as nn.Conv1d would allow

    def forward(self, x: Tensor, slope: float = 1.0, plus: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Compute `leaky_relu(plus + conv(x), slope) * mask` (ReLU for 0); x `[b, c_in, ...]`, mask `[b, 1, t]`."""
        return fused.conv_act(self, x, slope, plus, mask)

    def before_and_after(self, x: Tensor, slope: float, plus: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `plus + conv(x)` and its leaky ReLU."""
        return fused.conv_act(self, x, slope, plus, both=True)

    def convolve(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute the convolution alone, with the given bias or none."""
        weight = fused.weight(self, x)
        return self._channels_last(x, weight, bias) if x.is_cuda else self._conv_forward(x, weight, bias)

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError


class Conv1d(Convolution, nn.Conv1d):
    """`nn.Conv1d` in the fast layout of the device: `[b, c_in, t]` to `[b, c_out, t']`."""

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (k,), (s,), (p,), (d,) = self.kernel_size, self.stride, self.padding, self.dilation
        half_precision = weight.dtype.itemsize == 2
        if k == s == self.groups == 1 and p == 0 and half_precision:
            # a matrix product, for which no library benchmarks its kernels anew at every length
            return F.linear(x.movedim(1, -1), weight.squeeze(2), bias).movedim(-1, 1)
        if self.in_channels == d == 1 and half_precision:
            return _as_product(x, weight, bias, s, p)
        if self.groups > 1 and s > 1 and d == 1 and self.out_channels // self.groups >= MIN_GROUP_CHANNELS:
            return F.conv2d(*self._unstrided(x, weight), bias, groups=self.groups).squeeze(2)
        span = d * (k - 1)
        keeps_length = self.groups == s == k % 2 == 1 and 2 * p == span
        if span >= MIN_FOLDED_SPAN and x.size(2) <= MAX_FOLDED_LENGTH and keeps_length:
            return self._folded(x, weight, bias)
        return F.conv2d(_tall(x), weight.unsqueeze(2), bias, (1, s), (0, p), (1, d), self.groups).squeeze(2)

    def _unstrided(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return input and kernel of an equal convolution without stride: the phases of the stride become channels.

        cuDNN's kernels for strided groups are many times slower.
        """
        (s,), (k,), (p,) = self.stride, self.kernel_size, self.padding
        taps = -(-k // s)
        length = (x.size(2) + 2 * p - k) // s + taps  # in strides
        x = F.pad(x, (p, length * s - p - x.size(2))).unflatten(2, (length, s))
        kernel = F.pad(weight, (0, taps * s - k)).unflatten(2, (taps, s))
        return _tall(x.transpose(2, 3).flatten(1, 2)), kernel.transpose(2, 3).flatten(1, 2).unsqueeze(2)

    def _folded(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the convolution with the phases of the dilation in columns, where the kernel has no gaps.

        cuDNN's weight gradient of a wide dilated kernel takes twenty times as long.
        """
        t, d = x.size(2), self.dilation[0]
        rows = F.pad(x.movedim(1, -1), (0, 0, 0, -t % d)).unflatten(1, (-1, d))
        y = F.conv2d(rows.movedim(-1, 1), weight.unsqueeze(3), bias, padding=(self.kernel_size[0] // 2, 0))
        return y.flatten(2)[:, :, :t]


class ProductConv1d(Conv1d):
    """A `Conv1d` that is a matrix product on a GPU, for small layers in fp32.

    When cuDNN benchmarks its algorithms for these layers, it allocates tens of gigabytes, anew for each length.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _as_product(x, weight, bias, 1, self.padding[0])


class ConvTranspose1d(Convolution, nn.ConvTranspose1d):  # type: ignore[misc]  # other arguments of forward
    """`nn.ConvTranspose1d` in the fast layout of the device: `[b, c_in, t]` to `[b, c_out, t']`."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, output_padding, dilation = self.stride, self.padding, self.output_padding, self.dilation
        return F.conv_transpose1d(x, weight, bias, stride, padding, output_padding, self.groups, dilation)

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (s,), (p,), (extra,), (d,) = self.stride, self.padding, self.output_padding, self.dilation
        x, weight = _tall(x), weight.unsqueeze(2)
        return F.conv_transpose2d(x, weight, bias, (1, s), (0, p), (0, extra), self.groups, (1, d)).squeeze(2)


class Conv2d(Convolution, nn.Conv2d):
    """`nn.Conv2d` in the fast layout of the device: `[b, c_in, n, p]` to `[b, c_out, n', p']`."""

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (_, k), (s, s_2), (p, p_2) = self.kernel_size, self.stride, self.padding
        if self.in_channels == k == s_2 == 1 and p_2 == 0 and self.dilation == (1, 1) and weight.dtype.itemsize == 2:
            return _as_product(x, weight, bias, s, p)
        return self._conv_forward(x.contiguous(memory_format=torch.channels_last), weight, bias)


def lay_out(network: nn.Module) -> nn.Module:
    """Store the plain weights of a network's convolutions in the layout that a GPU reads. Returns the network."""
    for module in network.modules():
        if isinstance(module, (Conv1d, ConvTranspose1d)):
            module.weight.data = module.weight.data.transpose(1, 2).contiguous().transpose(1, 2)
    return network


class Dropout(nn.Dropout):
    """`nn.Dropout` for `[b, c, t]` whose gradient keeps the channels-last layout on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to `[b, c, t]`."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1) if x.is_cuda else super().forward(x)


def cat_channels(*parts: Tensor) -> Tensor:
    """Concatenate `[b, c, t]` tensors along the channels, in the fast layout of the device."""
    if not parts[0].is_cuda:
        return torch.cat(parts, 1)
    return torch.cat([part.movedim(1, -1) for part in parts], -1).movedim(-1, 1)


def _as_product(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Compute a convolution along the first dimension of `[b, c, n]` or `[b, c, n, p]` as one matrix product.

    The receptive field of each position is copied into one row, padded to a length that products are fast with.
    """
    k = weight.size(2)
    extra = -k % (PRODUCT_MULTIPLE // math.gcd(PRODUCT_MULTIPLE, x.size(1)))
    x = F.pad(at_least_fp32(x).movedim(1, -1), (0, 0) * (x.dim() - 2) + (padding, padding + extra))
    fields = x.unfold(1, k + extra, stride).to(weight.dtype, memory_format=torch.contiguous_format).flatten(-2)
    weight = F.pad(weight.flatten(2), (0, extra)).flatten(1)
    # contiguous, because PyTorch would compute one product for each position otherwise
    return F.linear(fields.contiguous(), weight, bias).movedim(-1, 1)


def _tall(x: Tensor) -> Tensor:
    """View `[b, c, t]` as `[b, c, 1, t]` in channels-last layout; a copy only if it is in another layout."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
