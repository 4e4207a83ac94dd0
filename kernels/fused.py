"""What stands between convolutions, in one pass over memory each: bias and activation, gates, residuals, norms.

Each function says what it computes in PyTorch's own operations: that is what the CPU runs, and the oracle. On a GPU
with Triton it is one kernel forwards and one backwards, which also sums the gradients of biases; half-precision input
is computed in fp32 and rounded once. `enable(False)` leaves the GPU to PyTorch's own operations too.

Tensors are `[b, c, ...]`, and on a GPU their channels lie side by side, as `convolutions` leaves them. A `conv` is one
of those: `conv.convolve(x)` is the convolution without its bias.
"""

import functools
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrize import is_parametrized

import commons
from monotonic_align import triton_runs

_enabled = True


def enable(on: bool) -> None:
    """Whether this process uses kernels of its own on GPUs."""
    global _enabled
    _enabled = on


def takes(x: Tensor) -> bool:
    """Whether a kernel of this module will do the work on a tensor."""
    return _enabled and x.dtype != torch.float64 and _runs(x.device.type)


@functools.cache
def _runs(device: str) -> bool:
    """Whether Triton runs on a kind of device: on GPUs and, with TRITON_INTERPRET=1, slowly on the CPU."""

    def attempt() -> None:
        _kernels().bias_act(None, torch.zeros(1, 16, device=device), torch.zeros(16, device=device), 0.0, False)

    asked = device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return asked and triton_runs(attempt, "PyTorch's own operations take the place of our kernels")


def _kernels():
    import fused_kernels  # here, because not every machine has Triton

    return fused_kernels


def _rows(x: Tensor | None) -> Tensor | None:
    """`[b, c, ...]` as `[b, ..., c]`, contiguous: a view of what a GPU's convolutions return."""
    return None if x is None else x.movedim(1, -1).contiguous()


def _channels(rows: Tensor) -> Tensor:
    """The way back: `[b, ..., c]` as `[b, c, ...]`."""
    return rows.movedim(-1, 1)


def _row_mask(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """A mask `[b or 1, 1, t]` with one number for each row of x `[b, c, t]`."""
    return None if mask is None else mask.expand(x.size(0), 1, x.size(2)).contiguous()


def activate(x: Tensor, slope: float) -> Tensor:
    """Leaky ReLU; a slope of 1 leaves `x` as it is, and 0 is ReLU."""
    if slope == 1.0:
        return x
    return F.leaky_relu(x, slope) if slope else torch.relu(x)


def weight(conv: nn.Module, x: Tensor) -> Tensor:
    """`conv.weight`, for a convolution of x; on a GPU in the type that is computed in and, if cast, as cuDNN reads it.

    Weight norm, cast and layout would each pass over memory, forwards and backwards: a kernel does all three at once,
    PyTorch the last two.
    """
    ours = takes(x)
    if not (ours or x.is_cuda):
        return conv.weight
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if not ours:
        return cast_channels_last(conv.weight, dtype)
    if is_parametrized(conv, "weight"):
        parts = conv.parametrizations.weight
        return _Weight.apply(parts.original1, parts.original0, dtype)
    return conv.weight if conv.weight.dtype == dtype else _Weight.apply(conv.weight, None, dtype)


def cast_channels_last(w: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight `[n, c, ...]` in another type and, if that is a copy, with its channels side by side."""
    return _channels(w.movedim(1, -1).to(dtype, memory_format=torch.contiguous_format))


class _Weight(Function):
    @staticmethod
    def forward(ctx, v, g, dtype):
        v = v.contiguous()
        w, norm = _kernels().weight(v.flatten(2), g, dtype)
        ctx.save_for_backward(v, g, norm)
        return w.transpose(1, 2).view(v.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        v, g, norm = ctx.saved_tensors
        grad = grad.flatten(2).transpose(1, 2).contiguous()
        grad_v, grad_g = _kernels().weight_backward(grad, v.flatten(2), g, norm)
        return grad_v.view(v.shape), grad_g, None


def conv_act(
    conv: nn.Module, x: Tensor, slope: float, plus: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """`activate(plus + conv(x), slope) * mask`, in the type of the convolution; mask `[b, 1, t]`."""
    if conv.bias is not None and takes(x):
        return _BiasAct.apply(plus, conv.convolve(x), conv.bias, mask, slope, False)
    y = conv.convolve(x, conv.bias)
    y = activate(y if plus is None else plus + y, slope)
    return y if mask is None else commons.masked(y, mask)


def conv_before_and_after_act(conv: nn.Module, x: Tensor, slope: float, plus: Tensor | None) -> tuple[Tensor, Tensor]:
    """`plus + conv(x)`, and the activation of it."""
    if conv.bias is not None and takes(x):
        return _BiasAct.apply(plus, conv.convolve(x), conv.bias, None, slope, True)
    y = conv_act(conv, x, 1.0, plus)
    return y, activate(y, slope)


class _BiasAct(Function):
    """The value after the activation; with `both`, the value before it too, and first."""

    @staticmethod
    def forward(ctx, plus, y, bias, mask, slope, both):
        mask = _row_mask(mask, y)
        before, out = _kernels().bias_act(_rows(plus), _rows(y), bias, slope, both, mask)
        ctx.slope, ctx.adds = slope, plus is not None
        ctx.save_for_backward(out if slope != 1.0 else None, mask)
        return (_channels(before), _channels(out)) if both else _channels(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        *before, grad = map(_rows, grads)
        before = before[0] if before else None
        bias = None
        out, mask = ctx.saved_tensors
        learns = ctx.needs_input_grad[2]
        if learns or before is not None or out is not None or mask is not None:
            grad, bias = _kernels().bias_act_backward(before, grad, out, ctx.slope, learns, mask)
        grad = _channels(grad)
        return grad if ctx.adds else None, grad, bias, None, None, None


def gate(conv: nn.Module, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """WaveNet's gate: `tanh` of the first half of the channels of `conv(x) + condition`, times `sigmoid` of the rest.

    Args: x `[b, h, t]`; condition `[b, 2h, 1]` or None. Returns `[b, h, t]`.
    """
    if takes(x):
        bias = conv.bias.view(1, -1, 1)
        return _Gate.apply(conv.convolve(x), bias if condition is None else bias + condition)
    y = conv(x)
    return commons.fused_add_tanh_sigmoid_multiply(y, 0.0 if condition is None else condition, y.size(1) // 2)


class _Gate(Function):
    @staticmethod
    def forward(ctx, y, b):
        y, b = _rows(y), b.squeeze(2).float().contiguous()
        ctx.save_for_backward(y, b)
        return _channels(_kernels().gate(y, b))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, b = _kernels().gate_backward(_rows(grad), *ctx.saved_tensors)
        return _channels(y), b.unsqueeze(2)


def residual_and_skip(
    conv: nn.Module, acts: Tensor, x: Tensor, skips: Tensor | None, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The end of a WaveNet layer: `x + r`, masked, and `skips + s`, where r and s are the halves of `conv(acts)`.

    Args: acts, x `[b, h, t]`; skips `[b, h, t]`, None for zero; mask `[b, 1, t]`. A kernel adds the skips up in fp32.
    """
    if takes(x):
        return _ResidualAndSkip.apply(x, skips, conv.convolve(acts), conv.bias, mask)
    residual, skip = conv(acts).chunk(2, 1)
    return commons.masked(x + residual, mask), skip if skips is None else skips + skip


class _ResidualAndSkip(Function):
    @staticmethod
    def forward(ctx, x, skips, y, bias, mask):
        mask = _row_mask(mask, y)
        ctx.save_for_backward(mask)
        ctx.dtype, ctx.first = y.dtype, skips is None
        x, skips = _kernels().residual_and_skip(_rows(x), _rows(skips), _rows(y), bias, mask)
        return _channels(x), _channels(skips)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_x, grad_skips):
        x, y, bias = _kernels().residual_and_skip_backward(
            _rows(grad_x), _rows(grad_skips), *ctx.saved_tensors, ctx.dtype
        )
        return _channels(x), None if ctx.first else grad_skips, _channels(y), bias, None


def add_norm(x: Tensor | None, y: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Layer norm over the channels of `x + y` `[b, c, t]`; gamma, beta `[c]`. A kernel returns y's type."""
    if takes(y):
        return _AddNorm.apply(x, y, gamma, beta, eps)
    y = y if x is None else x + y
    return F.layer_norm(y.transpose(1, 2), gamma.shape, gamma, beta, eps).transpose(1, 2)


class _AddNorm(Function):
    @staticmethod
    def forward(ctx, x, y, gamma, beta, eps):
        out, total, mean, rstd = _kernels().add_norm(_rows(x), _rows(y), gamma, beta, eps)
        ctx.save_for_backward(total, gamma, mean, rstd)
        ctx.adds = x is not None
        return _channels(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        grad, gamma, beta = _kernels().add_norm_backward(_rows(grad), *ctx.saved_tensors)
        grad = _channels(grad)
        return grad if ctx.adds else None, grad, gamma, beta, None


def l1_mean(real: Tensor, generated: Tensor) -> Tensor:
    """Mean absolute difference of two tensors `[b, c, ...]` in fp32; only the second one learns from it."""
    if takes(generated) and real.dtype == generated.dtype:
        return _L1Mean.apply(real, generated)
    return (real.detach().float() - generated.float()).abs().mean()


class _L1Mean(Function):
    @staticmethod
    def forward(ctx, real, generated):
        real, generated = _rows(real), _rows(generated)
        ctx.save_for_backward(real, generated)
        return _kernels().l1_mean(real, generated)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return None, _channels(_kernels().l1_mean_backward(grad.float().contiguous(), *ctx.saved_tensors))
