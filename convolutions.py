"""Convolutions in the layout that a GPU is fast in: two-dimensional, of height 1 if need be, channels last in memory.

cuDNN's fastest kernels read channels that lie side by side. PyTorch keeps that layout for two dimensions only: the
input of an `nn.Conv1d` is laid out anew before each call, and its output after it. What is computed is the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` in the faster layout of the device: `[b, c_in, t]` to `[b, c_out, t']`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not input.is_cuda:
            return super()._conv_forward(input, weight, bias)
        return _flat(
            F.conv2d(
                _tall(input),
                weight.unsqueeze(2),
                bias,
                (1, *self.stride),
                (0, *self.padding),
                (1, *self.dilation),
                self.groups,
            )
        )


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` in the faster layout of the device: `[b, c_in, t]` to `[b, c_out, t']`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not input.is_cuda or output_size is not None:
            return super().forward(input, output_size)
        return _flat(
            F.conv_transpose2d(
                _tall(input),
                self.weight.unsqueeze(2),
                self.bias,
                (1, *self.stride),
                (0, *self.padding),
                (0, *self.output_padding),
                self.groups,
                (1, *self.dilation),
            )
        )


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` in the faster layout of the device: `[b, c_in, n, p]` to `[b, c_out, n', p']`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.is_cuda:
            input = input.contiguous(memory_format=torch.channels_last)
        return super()._conv_forward(input, weight, bias)


def _tall(x: Tensor) -> Tensor:
    """`[b, c, t]` to `[b, c, 1, t]`, channels last; a copy only where it is not so already."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _flat(x: Tensor) -> Tensor:
    return x.squeeze(2)
