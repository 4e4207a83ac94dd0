"""Triton kernels behind `fused`. Each makes one pass over memory and computes in fp32.

The kernels see contiguous rows of channels, `[..., c]`, and work on tiles of `R` rows and `C` columns; `inside` masks
the elements that exist. Sums over rows (gradients of biases and gains) need no atomic operations, so that results are
reproducible: every program stores a partial sum, and `column_sums` adds them up. The autograd functions launch the
kernels. Their tensors are `[b, c, ...]` in channels-last layout.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

TILE = 4096  # elements of a tile
WARPS = 4  # for each program
SUM_COLUMNS = 16  # columns that one program of `column_sums` adds up
MIN_TILES = 4  # least number of tiles that one program of a backward pass sums over
MAX_PROGRAMS = 528  # most programs of a backward pass: 4 for each multiprocessor of an H100
MAX_COLUMNS = 64  # of a tile
# Triton would compile a kernel anew for some values of an integer argument (1, multiples of 16). It does not for these:
BATCH_SIZES = ["rows", "blocks", "tiles"]  # arguments that depend on the batch
LAYER_SIZES = ["inner", "channels", "taps"]  # arguments of the weight kernels that depend on the layer


def tiling(x: Tensor, elements: int = TILE, whole_rows: bool = False) -> tuple[tuple[int, int], ...]:
    """Divide the matrix of the rows and channels of x `[..., c]` into tiles.

    Returns its size, the rows and columns of a tile, and the number of tiles in each column and in each row. The
    columns of a tile are all channels with `whole_rows`, else the largest power of two up to `MAX_COLUMNS` that divides
    the channels, so that none is idle.
    """
    rows, channels = x.flatten(0, -2).shape
    width = triton.next_power_of_2(channels) if whole_rows else min(channels & -channels, MAX_COLUMNS)
    height = max(elements // width, 1)
    return (rows, channels), (height, width), (triton.cdiv(rows, height), triton.cdiv(channels, width))


def summing(grad: Tensor, sums: int, elements: int, whole_rows: bool = False) -> tuple[Any, ...]:
    """Plan a backward pass over `grad` `[..., c]` that computes `sums` sums over the rows for each channel.

    Returns the memory `[programs, sums * c]` of partial sums, the numbers of rows and channels, the tiles for each
    program, the rows and columns of a tile of `elements`, and the grid.
    """
    size, tile, (row_tiles, column_tiles) = tiling(grad, elements, whole_rows)
    each = max(MIN_TILES, triton.cdiv(row_tiles, MAX_PROGRAMS))
    partial = grad.new_empty(triton.cdiv(row_tiles, each), sums * size[1], dtype=torch.float32)
    return partial, size, each, tile, (len(partial), column_tiles)


def _rows(x: Tensor) -> Tensor:
    """View `[b, c, ...]` as contiguous `[b, ..., c]`; a copy only if x is not in channels-last layout."""
    return x.movedim(1, -1).contiguous()


def _channels(rows: Tensor) -> Tensor:
    """View `[b, ..., c]` as `[b, c, ...]`, the inverse of `_rows`."""
    return rows.movedim(-1, 1)


def _values_of_rows(mask: Tensor, x: Tensor) -> Tensor:
    """Expand a mask `[b or 1, 1, t]` to one value for each row of x `[b, c, t]`."""
    return mask.expand(x.size(0), 1, x.size(2)).contiguous()


@triton.jit
def _tile(rows, channels, block, R: tl.constexpr, C: tl.constexpr):
    """Return the offsets `[R, C]` of a tile of a matrix, the mask of its rows `[R, 1]`, and its columns `[C]`."""
    r = block.to(tl.int64) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    return r[:, None] * channels + c[None, :], (r < rows)[:, None], c


@triton.jit
def _row_mask(mask, rows, block, R: tl.constexpr):
    """Load the mask of a tile's rows, `[R, 1]`."""
    r = block.to(tl.int64) * R + tl.arange(0, R)
    return tl.load(mask + r, r < rows, 0.0).to(tl.float32)[:, None]


@triton.jit(do_not_specialize=BATCH_SIZES)
def _column_sums(partial, out, rows, channels, R: tl.constexpr, C: tl.constexpr):
    c = tl.program_id(0) * C + tl.arange(0, C)
    total = tl.zeros([R, C], tl.float32)
    for start in range(0, rows, R):
        r = start + tl.arange(0, R)
        inside = (r < rows)[:, None] & (c < channels)[None, :]
        total += tl.load(partial + r[:, None] * channels + c[None, :], inside, 0.0)
    tl.store(out + c, tl.sum(total, 0), c < channels)


def column_sums(partial: Tensor) -> Tensor:
    """Sum `[n, c]` over its rows. Returns `[c]`."""
    out = partial.new_empty(partial.size(1))
    grid = (triton.cdiv(partial.size(1), SUM_COLUMNS),)
    _column_sums[grid](partial, out, *partial.shape, TILE // SUM_COLUMNS, SUM_COLUMNS, num_warps=WARPS)
    return out


@triton.jit(do_not_specialize=BATCH_SIZES)
def _bias_act(
    x, y, bias, mask, before, out, rows, channels, slope, ADD: tl.constexpr, BOTH: tl.constexpr, MASK: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    offsets, inside, c = _tile(rows, channels, tl.program_id(0), R, C)
    value = tl.load(y + offsets, inside, 0.0).to(tl.float32) + tl.load(bias + c).to(tl.float32)[None, :]
    if ADD:
        value += tl.load(x + offsets, inside, 0.0).to(tl.float32)
    if BOTH:
        tl.store(before + offsets, value.to(before.dtype.element_ty), inside)
    value = tl.where(value > 0, value, value * slope)
    if MASK:
        value *= _row_mask(mask, rows, tl.program_id(0), R)
    tl.store(out + offsets, value.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=BATCH_SIZES)
def _bias_act_backward(
    grad_before, grad, out, mask, grad_y, partial, rows, channels, slope, tiles, BOTH: tl.constexpr,
    ACT: tl.constexpr, MASK: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([R, C], tl.float32)
    for i in range(tiles):
        block = tl.program_id(0) * tiles + i
        offsets, inside, c = _tile(rows, channels, block, R, C)
        g = tl.load(grad + offsets, inside, 0.0).to(tl.float32)
        if MASK:
            g *= _row_mask(mask, rows, block, R)
        if ACT:
            g = tl.where(tl.load(out + offsets, inside, 0.0).to(tl.float32) > 0, g, g * slope)
        if BOTH:
            g += tl.load(grad_before + offsets, inside, 0.0).to(tl.float32)
        if ACT or BOTH or MASK:
            tl.store(grad_y + offsets, g.to(grad_y.dtype.element_ty), inside)
        total += g
    c = tl.program_id(1) * C + tl.arange(0, C)
    tl.store(partial + tl.program_id(0) * channels + c, tl.sum(total, 0))


class BiasAct(Function):
    """Compute `leaky_relu(plus + y + bias, slope) * mask`; with `both`, return the value before the activation too.

    Args: plus `[b, c, ...]` or None; y `[b, c, ...]`; bias `[c]`; mask `[b or 1, 1, t]` or None.
    """

    @staticmethod
    def forward(
        ctx: Any, plus: Tensor | None, y: Tensor, bias: Tensor, mask: Tensor | None, slope: float, both: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        mask = None if mask is None else _values_of_rows(mask, y)
        x, y = None if plus is None else _rows(plus), _rows(y)
        before, out = torch.empty_like(y) if both else None, torch.empty_like(y)
        size, tile, grid = tiling(y)
        adds, masks = x is not None, mask is not None
        _bias_act[grid](x, y, bias, mask, before, out, *size, slope, adds, both, masks, *tile, num_warps=WARPS)
        ctx.slope = slope
        ctx.save_for_backward(out if slope != 1.0 else None, mask)
        return _channels(out) if before is None else (_channels(before), _channels(out))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *before_act, grad = map(_rows, grads)
        before, grad_y, grad_bias = before_act[0] if before_act else None, grad, None
        out, mask = ctx.saved_tensors
        plus_learns, _, bias_learns, *_ = ctx.needs_input_grad
        both, act, masks = before is not None, out is not None, mask is not None
        if bias_learns or both or act or masks:
            grad_y = torch.empty_like(grad) if both or act or masks else grad
            partial, size, tiles, tile, grid = summing(grad, 1, TILE)
            _bias_act_backward[grid](
                before, grad, out, mask, grad_y, partial, *size, ctx.slope, tiles, both, act, masks, *tile,
                num_warps=WARPS,
            )  # fmt: skip
            grad_bias = column_sums(partial) if bias_learns else None
        grad_y = _channels(grad_y)
        return grad_y if plus_learns else None, grad_y, grad_bias, None, None, None


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit(do_not_specialize=BATCH_SIZES)
def _gate(a, b, out, rows, channels, blocks, b_stride, R: tl.constexpr, C: tl.constexpr):
    item = (tl.program_id(0) // blocks).to(tl.int64)
    offsets, inside, c = _tile(rows, 2 * channels, tl.program_id(0) % blocks, R, C)
    u = tl.load(a + item * rows * 2 * channels + offsets, inside, 0.0).to(tl.float32)
    v = tl.load(a + item * rows * 2 * channels + channels + offsets, inside, 0.0).to(tl.float32)
    u += tl.load(b + item * b_stride + c)[None, :]
    v += tl.load(b + item * b_stride + channels + c)[None, :]
    offsets, inside, c = _tile(rows, channels, tl.program_id(0) % blocks, R, C)
    tl.store(out + item * rows * channels + offsets, (_tanh(u) * tl.sigmoid(v)).to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=BATCH_SIZES)
def _gate_backward(
    grad, a, b, grad_a, partial, rows, channels, blocks, b_stride, tiles, R: tl.constexpr, C: tl.constexpr
):
    item = (tl.program_id(0) // blocks).to(tl.int64)
    grad += item * rows * channels
    a += item * rows * 2 * channels
    grad_a += item * rows * 2 * channels
    c = tl.program_id(1) * C + tl.arange(0, C)
    b_u = tl.load(b + item * b_stride + c)[None, :]
    b_v = tl.load(b + item * b_stride + channels + c)[None, :]
    total_u = tl.zeros([R, C], tl.float32)
    total_v = tl.zeros([R, C], tl.float32)
    for i in range(tiles):
        block = tl.program_id(0) % blocks * tiles + i
        offsets, inside, _ = _tile(rows, channels, block, R, C)
        g = tl.load(grad + offsets, inside, 0.0).to(tl.float32)
        offsets, inside, _ = _tile(rows, 2 * channels, block, R, C)
        t = _tanh(tl.load(a + offsets, inside, 0.0).to(tl.float32) + b_u)
        s = tl.sigmoid(tl.load(a + channels + offsets, inside, 0.0).to(tl.float32) + b_v)
        g_u = g * s * (1 - t * t)
        g_v = g * t * s * (1 - s)
        tl.store(grad_a + offsets, g_u.to(grad_a.dtype.element_ty), inside)
        tl.store(grad_a + channels + offsets, g_v.to(grad_a.dtype.element_ty), inside)
        total_u += g_u
        total_v += g_v
    partial += tl.program_id(0) * 2 * channels
    tl.store(partial + c, tl.sum(total_u, 0))
    tl.store(partial + channels + c, tl.sum(total_v, 0))


class Gate(Function):
    """Compute WaveNet's gate of `y + b`. Args: y `[n, 2h, t]`; b `[n or 1, 2h, 1]`. Returns `[n, h, t]`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, b: Tensor) -> Tensor:
        a, b = _rows(y), b.squeeze(2).float().contiguous()
        out = a.new_empty(len(a), a.size(1), a.size(2) // 2)
        size, tile, (blocks, column_tiles) = tiling(out[0])
        ctx.b_stride = b.size(1) if b.size(0) > 1 else 0  # 0 if all items share one row
        _gate[len(a) * blocks, column_tiles](a, b, out, *size, blocks, ctx.b_stride, *tile, num_warps=WARPS)
        ctx.save_for_backward(a, b)
        return _channels(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        grad, (a, b) = _rows(grad), ctx.saved_tensors
        size, tile, (row_tiles, column_tiles) = tiling(grad[0], TILE // 2)
        blocks = triton.cdiv(row_tiles, MIN_TILES)
        grad_a, partial = torch.empty_like(a), a.new_empty(len(a), blocks, a.size(2), dtype=torch.float32)
        _gate_backward[len(a) * blocks, column_tiles](
            grad, a, b, grad_a, partial, *size, blocks, ctx.b_stride, MIN_TILES, *tile, num_warps=WARPS
        )
        grad_b = partial.sum(1) if len(b) == len(a) else column_sums(partial.flatten(0, 1)).unsqueeze(0)
        return _channels(grad_a), grad_b.unsqueeze(2)


@triton.jit(do_not_specialize=BATCH_SIZES)
def _residual_and_skip(
    x, skips, y, bias, mask, x_out, skips_out, rows, channels, SKIPS: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    offsets, inside, c = _tile(rows, channels, tl.program_id(0), R, C)
    offsets_y, _, _ = _tile(rows, 2 * channels, tl.program_id(0), R, C)
    valid = _row_mask(mask, rows, tl.program_id(0), R)
    residual = tl.load(y + offsets_y, inside, 0.0).to(tl.float32) + tl.load(bias + c).to(tl.float32)[None, :]
    value = (tl.load(x + offsets, inside, 0.0).to(tl.float32) + residual) * valid
    tl.store(x_out + offsets, value.to(x_out.dtype.element_ty), inside)
    skip = tl.load(y + channels + offsets_y, inside, 0.0).to(tl.float32)
    skip += tl.load(bias + channels + c).to(tl.float32)[None, :]
    if SKIPS:
        skip += tl.load(skips + offsets, inside, 0.0)
    tl.store(skips_out + offsets, skip, inside)


@triton.jit(do_not_specialize=BATCH_SIZES)
def _residual_and_skip_backward(
    grad_x, grad_skips, mask, grad_x_in, grad_y, partial, rows, channels, tiles, R: tl.constexpr, C: tl.constexpr
):
    total = tl.zeros([R, C], tl.float32)
    total_skip = tl.zeros([R, C], tl.float32)
    for i in range(tiles):
        block = tl.program_id(0) * tiles + i
        offsets, inside, _ = _tile(rows, channels, block, R, C)
        offsets_y, _, _ = _tile(rows, 2 * channels, block, R, C)
        g = tl.load(grad_x + offsets, inside, 0.0).to(tl.float32) * _row_mask(mask, rows, block, R)
        skip = tl.load(grad_skips + offsets, inside, 0.0).to(tl.float32)
        tl.store(grad_x_in + offsets, g.to(grad_x_in.dtype.element_ty), inside)
        tl.store(grad_y + offsets_y, g.to(grad_y.dtype.element_ty), inside)
        tl.store(grad_y + channels + offsets_y, skip.to(grad_y.dtype.element_ty), inside)
        total += g
        total_skip += skip
    c = tl.program_id(1) * C + tl.arange(0, C)
    partial += tl.program_id(0) * 2 * channels
    tl.store(partial + c, tl.sum(total, 0))
    tl.store(partial + channels + c, tl.sum(total_skip, 0))


class ResidualAndSkip(Function):
    """Compute `(x + r) * mask` and, in fp32, `skips + s`, where r and s are the halves of `y + bias`.

    Args: x `[b, h, t]`; skips `[b, h, t]` in fp32 or None; y `[b, 2h, t]`; bias `[2h]`; mask `[b or 1, 1, t]`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, skips: Tensor | None, y: Tensor, bias: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        mask, x, y = _values_of_rows(mask, y), _rows(x), _rows(y)
        skips = None if skips is None else _rows(skips)
        x_out, skips_out = torch.empty_like(x), torch.empty_like(x, dtype=torch.float32)
        size, tile, grid = tiling(x)
        adds = skips is not None
        _residual_and_skip[grid](x, skips, y, bias, mask, x_out, skips_out, *size, adds, *tile, num_warps=WARPS)
        ctx.save_for_backward(mask)
        ctx.dtype = y.dtype
        return _channels(x_out), _channels(skips_out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_skips = map(_rows, grads)
        (mask,) = ctx.saved_tensors
        partial, size, tiles, tile, grid = summing(grad_x, 2, TILE // 2)
        grad_x_in = torch.empty_like(grad_x)
        grad_y = grad_x.new_empty(*grad_x.shape[:-1], partial.size(1), dtype=ctx.dtype)
        _residual_and_skip_backward[grid](
            grad_x, grad_skips, mask, grad_x_in, grad_y, partial, *size, tiles, *tile, num_warps=WARPS
        )
        grad_skips_in = grads[1] if ctx.needs_input_grad[1] else None
        return _channels(grad_x_in), grad_skips_in, _channels(grad_y), column_sums(partial), None


@triton.jit(do_not_specialize=BATCH_SIZES)
def _add_norm(
    x, y, gamma, beta, total, out, mean_out, rstd_out, rows, channels, eps, ADD: tl.constexpr, R: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    c = tl.arange(0, C)
    offsets = r[:, None] * channels + c[None, :]
    inside = (r < rows)[:, None] & (c < channels)[None, :]
    value = tl.load(y + offsets, inside, 0.0).to(tl.float32)
    if ADD:
        value += tl.load(x + offsets, inside, 0.0).to(tl.float32)
    tl.store(total + offsets, value.to(total.dtype.element_ty), inside)
    mean = tl.sum(value, 1) / channels
    centered = tl.where((c < channels)[None, :], value - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centered * centered, 1) / channels + eps)
    gain = tl.load(gamma + c, c < channels, 0.0)[None, :]
    shift = tl.load(beta + c, c < channels, 0.0)[None, :]
    tl.store(out + offsets, (centered * rstd[:, None] * gain + shift).to(out.dtype.element_ty), inside)
    tl.store(mean_out + r, mean, r < rows)
    tl.store(rstd_out + r, rstd, r < rows)


@triton.jit(do_not_specialize=BATCH_SIZES)
def _add_norm_backward(
    grad, total, gamma, mean, rstd, grad_in, partial, rows, channels, tiles, R: tl.constexpr, C: tl.constexpr
):
    c = tl.arange(0, C)
    gain = tl.load(gamma + c, c < channels, 0.0)[None, :]
    gain_total = tl.zeros([R, C], tl.float32)
    shift_total = tl.zeros([R, C], tl.float32)
    for i in range(tiles):
        r = (tl.program_id(0) * tiles + i).to(tl.int64) * R + tl.arange(0, R)
        offsets = r[:, None] * channels + c[None, :]
        inside = (r < rows)[:, None] & (c < channels)[None, :]
        g = tl.load(grad + offsets, inside, 0.0).to(tl.float32)
        scale = tl.load(rstd + r, r < rows, 0.0)[:, None]
        centered = tl.load(total + offsets, inside, 0.0).to(tl.float32) - tl.load(mean + r, r < rows, 0.0)[:, None]
        normed = tl.where(inside, centered * scale, 0.0)
        gain_total += g * normed
        shift_total += g
        g = g * gain
        mean_gx = tl.sum(g * normed, 1)[:, None] / channels
        mean_g = tl.sum(g, 1)[:, None] / channels
        tl.store(grad_in + offsets, ((g - mean_g - normed * mean_gx) * scale).to(grad_in.dtype.element_ty), inside)
    partial += tl.program_id(0) * 2 * channels
    tl.store(partial + c, tl.sum(gain_total, 0), c < channels)
    tl.store(partial + channels + c, tl.sum(shift_total, 0), c < channels)


class AddNorm(Function):
    """Compute the layer norm of `x + y` over the channels. Args: x, y `[b, c, t]`, x or None; gamma, beta `[c]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, y: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        x, y = None if x is None else _rows(x), _rows(y)
        size, tile, grid = tiling(y, TILE // 2, whole_rows=True)
        total, out = torch.empty_like(y), torch.empty_like(y)
        mean, rstd = (y.new_empty(size[0], dtype=torch.float32) for _ in range(2))  # rstd is 1 / standard deviation
        _add_norm[grid](x, y, gamma, beta, total, out, mean, rstd, *size, eps, x is not None, *tile, num_warps=WARPS)
        ctx.save_for_backward(total, gamma, mean, rstd)
        return _channels(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = _rows(grad)
        grad_in = torch.empty_like(grad)
        partial, size, tiles, tile, grid = summing(grad, 2, TILE // 2, whole_rows=True)
        _add_norm_backward[grid](grad, *ctx.saved_tensors, grad_in, partial, *size, tiles, *tile, num_warps=WARPS)
        grad_in = _channels(grad_in)
        return grad_in if ctx.needs_input_grad[0] else None, grad_in, *column_sums(partial).chunk(2), None


@triton.jit(do_not_specialize=BATCH_SIZES)
def _l1(a, b, partial, rows, TILES: tl.constexpr, TILE: tl.constexpr):
    total = tl.zeros([TILE], tl.float32)
    for i in range(TILES):
        offsets = (tl.program_id(0) * TILES + i).to(tl.int64) * TILE + tl.arange(0, TILE)
        inside = offsets < rows
        real = tl.load(a + offsets, inside, 0.0).to(tl.float32)
        total += tl.abs(real - tl.load(b + offsets, inside, 0.0).to(tl.float32))
    tl.store(partial + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=BATCH_SIZES)
def _l1_backward(grad, a, b, grad_b, rows, TILE: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = offsets < rows
    difference = tl.load(b + offsets, inside, 0.0).to(tl.float32) - tl.load(a + offsets, inside, 0.0).to(tl.float32)
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    tl.store(grad_b + offsets, (sign * (tl.load(grad) / rows)).to(grad_b.dtype.element_ty), inside)


class L1Mean(Function):
    """Compute the mean absolute difference of two tensors, a scalar in fp32. Only the second gets a gradient."""

    @staticmethod
    def forward(ctx: Any, real: Tensor, generated: Tensor) -> Tensor:
        a, b = _rows(real), _rows(generated)
        partial = a.new_empty(triton.cdiv(a.numel(), TILE * MIN_TILES), dtype=torch.float32)
        _l1[(len(partial),)](a, b, partial, a.numel(), MIN_TILES, TILE, num_warps=WARPS)
        ctx.save_for_backward(a, b)
        return partial.sum() / a.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        a, b = ctx.saved_tensors
        grad, grad_b = grad.float().contiguous(), torch.empty_like(b)
        _l1_backward[(triton.cdiv(b.numel(), TILE),)](grad, a, b, grad_b, b.numel(), TILE, num_warps=WARPS)
        return None, _channels(grad_b)


@triton.jit(do_not_specialize=LAYER_SIZES)
def _weight(v, g, w, norm, inner, channels, taps, NORM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    inside = offsets < inner
    value = tl.load(v + row * inner + offsets % channels * taps + offsets // channels, inside, 0.0).to(tl.float32)
    if NORM:
        length = tl.sqrt(tl.sum(value * value, 0))
        tl.store(norm + row, length)
        value *= tl.load(g + row) / length
    tl.store(w + row * inner + offsets, value.to(w.dtype.element_ty), inside)


@triton.jit(do_not_specialize=LAYER_SIZES)
def _weight_backward(grad, v, g, norm, grad_v, grad_g, inner, channels, taps, NORM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, BLOCK)
    inside = offsets < inner
    value = tl.load(grad + row * inner + offsets % taps * channels + offsets // taps, inside, 0.0).to(tl.float32)
    if NORM:
        length = tl.load(norm + row)
        direction = tl.load(v + row * inner + offsets, inside, 0.0) / length
        projection = tl.sum(value * direction, 0)
        tl.store(grad_g + row, projection)
        value = (value - projection * direction) * (tl.load(g + row) / length)
    tl.store(grad_v + row * inner + offsets, value, inside)


class Weight(Function):
    """Compute `g * v / |v|`, or v if g is None, in `dtype` and a layout whose channels are last.

    Args: v `[n, c, ...]` and g `[n, ...]`, in fp32; the norms `|v|` `[n]` are over all but the first dimension.
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, g: Tensor | None, dtype: torch.dtype) -> Tensor:
        v = v.contiguous()
        n, channels, taps = v.flatten(2).shape
        w, norm = v.new_empty(n, taps, channels, dtype=dtype), None if g is None else v.new_empty(n)
        inner = channels * taps
        block = 1024 if inner <= 1024 else max(8192, triton.next_power_of_2(inner))  # few sizes: each is compiled
        ctx.sizes = inner, channels, taps, g is not None, block
        _weight[(n,)](v, g, w, norm, *ctx.sizes, num_warps=2 * WARPS)
        ctx.save_for_backward(v, g, norm)
        return w.transpose(1, 2).view(v.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, g, norm = ctx.saved_tensors
        grad = grad.flatten(2).transpose(1, 2).contiguous()
        grad_v, grad_g = torch.empty_like(v), None if g is None else torch.empty_like(g)
        _weight_backward[(len(v),)](grad, v, g, norm, grad_v, grad_g, *ctx.sizes, num_warps=2 * WARPS)
        return grad_v, grad_g, None
