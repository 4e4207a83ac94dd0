"""Convolutions in the layout that a GPU is fast in: two-dimensional, of height 1 if need be, channels last in memory.

cuDNN's fastest kernels read channels that lie side by side. PyTorch keeps that layout for two dimensions only: the
input of an `nn.Conv1d` is laid out anew before each call, and its output after it. What is computed is the same.

All take what follows in the same pass over memory: `conv(x, slope)` is `leaky_relu(conv(x), slope)`, with ReLU for a
slope of 0, `conv(x, plus=y)` is `y + conv(x)`, `conv(x, mask=m)` is `conv(x) * m`, and
`conv.before_and_after(x, slope)` is both sides of an activation.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fused
from commons import at_least_fp32

WIDE, SHORT = 50, 512  # places that a dilated kernel spans at least, and of its input at most, for it to be folded


class _WithActivation:
    """What `Conv1d`, `Conv2d` and `ConvTranspose1d` share: the choice of layout, and what follows in the same pass."""

    def forward(self, x: Tensor, slope: float = 1.0, plus: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        return fused.conv_act(self, x, slope, plus, mask)

    def before_and_after(self, x: Tensor, slope: float, plus: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`conv(x, plus=y)` before its activation and after it."""
        return fused.conv_before_and_after_act(self, x, slope, plus)

    def convolve(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution alone, with this bias or none."""
        weight = fused.weight(self, x)
        return self._channels_last(x, weight, bias) if x.is_cuda else self._conv_forward(x, weight, bias)


class Conv1d(_WithActivation, nn.Conv1d):
    """`nn.Conv1d` in the faster layout of the device: `[b, c_in, t]` to `[b, c_out, t']`."""

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (k,), (s,), (p,), (d,) = self.kernel_size, self.stride, self.padding, self.dilation
        if k == s == self.groups == 1 and p == 0 and weight.dtype.itemsize == 2:
            # a matrix product, for which no library tries its kernels anew at every length
            return F.linear(x.movedim(1, -1), weight.squeeze(2), bias).movedim(-1, 1)
        if self.in_channels == d == 1 and weight.dtype.itemsize == 2:
            return _as_product(x, weight, bias, s, p)
        if self.groups > 1 and s > 1 and d == 1 and self.out_channels // self.groups >= 16:
            return _flat(F.conv2d(*self._unstrided(x, weight), bias, groups=self.groups))
        if d * (k - 1) >= WIDE and x.size(2) <= SHORT and self.groups == s == k % 2 == 1 and 2 * p == d * (k - 1):
            return self._folded(x, weight, bias)
        return _flat(F.conv2d(_tall(x), weight.unsqueeze(2), bias, (1, s), (0, p), (1, d), self.groups))

    def _unstrided(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Input and kernel of an equal convolution without stride: the phases of the stride become channels.

        cuDNN's kernels for groups with a stride are many times slower.
        """
        (s,), (k,), (p,) = self.stride, self.kernel_size, self.padding
        taps = -(-k // s)
        length = (x.size(2) + 2 * p - k) // s + taps  # in strides
        x = F.pad(x, (p, length * s - p - x.size(2))).unflatten(2, (length, s))
        kernel = F.pad(weight, (0, taps * s - k)).unflatten(2, (taps, s))
        return _tall(x.transpose(2, 3).flatten(1, 2)), kernel.transpose(2, 3).flatten(1, 2).unsqueeze(2)

    def _folded(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with the dilation's phases side by side, in columns where the kernel has no gaps.

        cuDNN's weight gradient of a wide dilated kernel takes twenty times as long.
        """
        t, d = x.size(2), self.dilation[0]
        rows = F.pad(x.movedim(1, -1), (0, 0, 0, -t % d)).unflatten(1, (-1, d))
        y = F.conv2d(rows.movedim(-1, 1), weight.unsqueeze(3), bias, padding=(self.kernel_size[0] // 2, 0))
        return y.flatten(2)[:, :, :t]


class ProductConv1d(Conv1d):
    """A `Conv1d` that is a matrix product on a GPU: for small layers in fp32.

    Trying its algorithms for these, cuDNN takes tens of gigabytes for a moment, anew at each length.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _as_product(x, weight, bias, 1, self.padding[0])


class ConvTranspose1d(_WithActivation, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` in the faster layout of the device: `[b, c_in, t]` to `[b, c_out, t']`."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride, padding, output_padding, dilation = self.stride, self.padding, self.output_padding, self.dilation
        return F.conv_transpose1d(x, weight, bias, stride, padding, output_padding, self.groups, dilation)

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (s,), (p,), (more,), (d,) = self.stride, self.padding, self.output_padding, self.dilation
        x, weight = _tall(x), weight.unsqueeze(2)
        return _flat(F.conv_transpose2d(x, weight, bias, (1, s), (0, p), (0, more), self.groups, (1, d)))


class Conv2d(_WithActivation, nn.Conv2d):
    """`nn.Conv2d` in the faster layout of the device: `[b, c_in, n, p]` to `[b, c_out, n', p']`."""

    def _channels_last(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (_, k), (s, s_2), (p, p_2) = self.kernel_size, self.stride, self.padding
        if self.in_channels == k == s_2 == 1 and p_2 == 0 and self.dilation == (1, 1) and weight.dtype.itemsize == 2:
            return _as_product(x, weight, bias, s, p)
        return self._conv_forward(x.contiguous(memory_format=torch.channels_last), weight, bias)


def lay_out(network: nn.Module) -> nn.Module:
    """Put the plain weights of a network's convolutions as a GPU reads them, in place. Returns the network."""
    for module in network.modules():
        if isinstance(module, (Conv1d, ConvTranspose1d)):
            module.weight.data = module.weight.data.transpose(1, 2).contiguous().transpose(1, 2)
    return network


class Dropout(nn.Dropout):
    """`nn.Dropout` of `[b, c, t]`, whose gradient keeps the layout; that of PyTorch is laid out anew on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return super().forward(x)
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def cat_channels(*parts: Tensor) -> Tensor:
    """`torch.cat(parts, 1)` of `[b, c, t]`, in the layout of the device."""
    if not parts[0].is_cuda:
        return torch.cat(parts, 1)
    return torch.cat([part.movedim(1, -1) for part in parts], -1).movedim(-1, 1)


def _as_product(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """A convolution along the first dimension of `[b, c, n]` or `[b, c, n, p]` as one matrix product.

    Each place's neighbours are copied side by side, as many as products are fast with.
    """
    k = weight.size(2)
    more = -k % (8 // math.gcd(8, x.size(1)))
    x = F.pad(at_least_fp32(x).movedim(1, -1), (0, 0) * (x.dim() - 2) + (padding, padding + more))
    neighbours = x.unfold(1, k + more, stride).to(weight.dtype, memory_format=torch.contiguous_format).flatten(-2)
    weight = F.pad(weight.flatten(2), (0, more)).flatten(1)
    # contiguous, because it would be a product for each place otherwise
    return F.linear(neighbours.contiguous(), weight, bias).movedim(-1, 1)


def _tall(x: Tensor) -> Tensor:
    """`[b, c, t]` to `[b, c, 1, t]`, channels last; a copy only where it is not so already."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _flat(x: Tensor) -> Tensor:
    return x.squeeze(2)
