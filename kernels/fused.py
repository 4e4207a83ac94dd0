"""Fused elementwise operations: bias and activation, gates, residuals and norms, each in one pass over memory.

Each function contains its plain PyTorch form, which runs on the CPU and is the oracle of the tests. On a GPU with
Triton it is one kernel forward and one backward, which also sums the gradients of biases. Half-precision input is
computed in fp32 and rounded once. A convolution or a norm whose `use_kernels` is False takes the plain form.

Tensors are `[b, c, ...]` in channels-last memory layout on a GPU, as the layers of `convolutions` return them. A `conv`
is one of those layers; `conv.convolve(x)` is the convolution without its bias.
"""

import functools
import os
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from commons import fused_add_tanh_sigmoid_multiply, masked
from kernels import triton_runs

if TYPE_CHECKING:
    from kernels.convolutions import Convolution


def enable(network: nn.Module, on: bool) -> None:
    """Select Triton kernels or plain PyTorch operations for every layer of a network."""
    for module in network.modules():
        if hasattr(module, "use_kernels"):
            module.use_kernels = on  # type: ignore[assignment]  # a class attribute of these layers


def supports(x: Tensor) -> bool:
    """Return whether the Triton kernels handle this tensor."""
    return x.dtype != torch.float64 and _runs(x.device.type)


@functools.cache
def _runs(device: str) -> bool:
    """Return whether Triton runs on a type of device: on GPUs and, with TRITON_INTERPRET=1, slowly on the CPU."""
    requested = device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return requested and triton_runs(
        lambda: _kernels().column_sums(torch.zeros(1, 16, device=device)),
        "plain PyTorch operations replace the fused kernels",
    )


def _kernels() -> ModuleType:
    from kernels import triton_kernels  # imported late because Triton is not available on every machine

    return triton_kernels


def weight(conv: "Convolution", x: Tensor) -> Tensor:
    """Return `conv.weight` for a convolution of x. On a GPU it has the compute type and, if cast, cuDNN's layout.

    A Triton kernel computes weight norm, cast and layout change in one pass; the plain path fuses the last two.
    """
    kernel = conv.use_kernels and supports(x)
    if not (kernel or x.is_cuda):
        return conv.weight
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if not kernel:
        return conv.weight.movedim(1, -1).to(dtype, memory_format=torch.contiguous_format).movedim(-1, 1)
    if is_parametrized(conv, "weight"):
        parts = cast(Any, conv.parametrizations).weight
        return _kernels().Weight.apply(parts.original1, parts.original0, dtype)
    return conv.weight if conv.weight.dtype == dtype else _kernels().Weight.apply(conv.weight, None, dtype)


def conv_act(
    conv: "Convolution", x: Tensor, slope: float, plus: Tensor | None, mask: Tensor | None = None, both: bool = False
) -> Any:
    """Compute `leaky_relu(plus + conv(x), slope) * mask` in the type of the convolution; mask `[b, 1, t]`.

    A slope of 1 is the identity and a slope of 0 is ReLU. With `both`, returns `plus + conv(x)` before the result.
    """
    if conv.bias is not None and conv.use_kernels and supports(x):
        return _kernels().BiasAct.apply(plus, conv.convolve(x), conv.bias, mask, slope, both)
    y = conv.convolve(x, conv.bias)
    y = y if plus is None else plus + y
    out = y if slope == 1.0 else F.leaky_relu(y, slope) if slope else torch.relu(y)
    out = out if mask is None else masked(out, mask)
    return (y, out) if both else out


def gate(conv: "Convolution", x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Compute WaveNet's gate of `conv(x) + condition`: tanh of the first channels times sigmoid of the second half.

    Args: x `[b, h, t]`; condition `[b, 2h, 1]` or None. Returns `[b, h, t]`.
    """
    if conv.use_kernels and supports(x):
        bias = cast(Tensor, conv.bias).view(1, -1, 1)
        return _kernels().Gate.apply(conv.convolve(x), bias if condition is None else bias + condition)
    y = conv(x)
    return fused_add_tanh_sigmoid_multiply(y, 0.0 if condition is None else condition, y.size(1) // 2)


def residual_and_skip(
    conv: "Convolution", acts: Tensor, x: Tensor, skips: Tensor | None, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """End a WaveNet layer: return `(x + r) * mask` and `skips + s`, where r and s are the halves of `conv(acts)`.

    Args: acts, x `[b, h, t]`; skips `[b, h, t]`, None for zero; mask `[b, 1, t]`. The kernel sums the skips in fp32.
    """
    if conv.use_kernels and supports(x):
        return _kernels().ResidualAndSkip.apply(x, skips, conv.convolve(acts), conv.bias, mask)
    residual, skip = conv(acts).chunk(2, 1)
    return masked(x + residual, mask), skip if skips is None else skips + skip


def add_norm(x: Tensor | None, y: Tensor, gamma: Tensor, beta: Tensor, eps: float, use_kernels: bool = True) -> Tensor:
    """Compute layer norm over the channels of `x + y` `[b, c, t]`; gamma, beta `[c]`. The kernel returns y's type."""
    if use_kernels and supports(y):
        return _kernels().AddNorm.apply(x, y, gamma, beta, eps)
    y = y if x is None else x + y
    return F.layer_norm(y.transpose(1, 2), gamma.shape, gamma, beta, eps).transpose(1, 2)


def l1_mean(real: Tensor, generated: Tensor, use_kernels: bool = True) -> Tensor:
    """Compute the mean absolute difference of two tensors `[b, c, ...]` in fp32; only `generated` gets a gradient."""
    if use_kernels and supports(generated) and real.dtype == generated.dtype:
        return _kernels().L1Mean.apply(real, generated)
    return (real.detach().float() - generated.float()).abs().mean()
