"""Triton kernels behind `fused`. Each makes one pass over memory and computes in fp32.

Tensors are contiguous rows of channels, `[..., c]`. Kernels work on tiles of `R` rows and `C` columns; `inside` masks
the elements that exist. Sums over rows (gradients of biases and gains) need no atomic operations, so that results are
reproducible: every program stores a partial sum, and `column_sums` adds them up.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # elements of a tile
WARPS = 4  # for each program
SUM_COLUMNS = 16  # columns that one program of `column_sums` adds up
MIN_TILES = 4  # least number of tiles that one program of a backward pass sums over
MAX_PROGRAMS = 528  # most programs of a backward pass: 4 for each multiprocessor of an H100
MAX_COLUMNS = 64  # of a tile
# Triton would compile a kernel anew for some values of an integer argument (1, multiples of 16). It does not for these:
BATCH_SIZES = ["rows", "blocks", "tiles"]  # arguments that depend on the batch
LAYER_SIZES = ["inner", "channels", "taps"]  # arguments of the weight kernels that depend on the layer


def tiling(
    rows: int, channels: int, elements: int = TILE, whole_rows: bool = False
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of a tile, and the number of tiles in each column and in each row of the matrix.

    The columns are all channels with `whole_rows`, else the largest power of two up to `MAX_COLUMNS` that divides the
    channels, so that none is idle.
    """
    width = triton.next_power_of_2(channels) if whole_rows else min(channels & -channels, MAX_COLUMNS)
    height = max(elements // width, 1)
    return (height, width), (triton.cdiv(rows, height), triton.cdiv(channels, width))


def partial_sums(grad: Tensor, tiles: int, columns: int) -> tuple[int, Tensor]:
    """Return the tiles for each program of a backward pass, and the memory `[programs, columns]` of its sums."""
    each = max(MIN_TILES, triton.cdiv(tiles, MAX_PROGRAMS))
    return each, grad.new_empty(triton.cdiv(tiles, each), columns, dtype=torch.float32)


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


def bias_act(
    x: Tensor | None, y: Tensor, bias: Tensor, slope: float, both: bool, mask: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Return `x + y + bias`, None unless `both`, and `leaky_relu(x + y + bias, slope) * mask`.

    Args: x, y `[..., c]`; bias `[c]`; mask: contiguous, one value for each row.
    """
    before, out = torch.empty_like(y) if both else None, torch.empty_like(y)
    rows, channels = y.flatten(0, -2).shape
    tile, grid = tiling(rows, channels)
    adds, masks = x is not None, mask is not None
    _bias_act[grid](x, y, bias, mask, before, out, rows, channels, slope, adds, both, masks, *tile, num_warps=WARPS)
    return before, out


def bias_act_backward(
    grad_before: Tensor | None, grad: Tensor, out: Tensor | None, slope: float, bias_learns: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of y, which is also that of x, and the gradient of the bias, None unless `bias_learns`.

    Args: grad_before, grad: gradients before and after the activation; out: the output of the activation.
    """
    rows, channels = grad.flatten(0, -2).shape
    tile, (row_tiles, column_tiles) = tiling(rows, channels)
    tiles, partial = partial_sums(grad, row_tiles, channels)
    act, both, masks = slope != 1.0, grad_before is not None, mask is not None
    grad_y = torch.empty_like(grad) if act or both or masks else grad
    _bias_act_backward[len(partial), column_tiles](
        grad_before, grad, out, mask, grad_y, partial, rows, channels, slope, tiles, both, act, masks, *tile,
        num_warps=WARPS,
    )  # fmt: skip
    return grad_y, column_sums(partial) if bias_learns else None


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


def gate(a: Tensor, b: Tensor) -> Tensor:
    """Compute WaveNet's gate of `a + b`. Args: a `[n, t, 2h]`; b `[n or 1, 2h]` in fp32. Returns `[n, t, h]`."""
    n, t, channels = a.size(0), a.size(1), a.size(2) // 2
    out = a.new_empty(n, t, channels)
    tile, (blocks, column_tiles) = tiling(t, channels)
    b_stride = b.size(1) if b.size(0) > 1 else 0  # 0 if all items share one row
    _gate[n * blocks, column_tiles](a, b, out, t, channels, blocks, b_stride, *tile, num_warps=WARPS)
    return out


def gate_backward(grad: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a and b."""
    n, t, channels = a.size(0), a.size(1), a.size(2) // 2
    grad_a = torch.empty_like(a)
    tile, (row_tiles, column_tiles) = tiling(t, channels, TILE // 2)
    blocks = triton.cdiv(row_tiles, MIN_TILES)
    partial = a.new_empty(n, blocks, 2 * channels, dtype=torch.float32)
    b_stride = b.size(1) if b.size(0) > 1 else 0
    _gate_backward[n * blocks, column_tiles](
        grad, a, b, grad_a, partial, t, channels, blocks, b_stride, MIN_TILES, *tile, num_warps=WARPS
    )
    return grad_a, partial.sum(1) if b.size(0) == n else column_sums(partial.flatten(0, 1)).unsqueeze(0)


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


def residual_and_skip(x: Tensor, skips: Tensor | None, y: Tensor, bias: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return `(x + r) * mask` and, in fp32, `skips + s`, where r and s are the halves of `y + bias`.

    Args: x `[n, t, h]`; skips `[n, t, h]` in fp32 or None; y `[n, t, 2h]`; bias `[2h]`; mask `[n, t]`.
    """
    rows, channels = x.flatten(0, -2).shape
    x_out, skips_out = torch.empty_like(x), torch.empty_like(x, dtype=torch.float32)
    tile, grid = tiling(rows, channels)
    _residual_and_skip[grid](
        x, skips, y, bias, mask, x_out, skips_out, rows, channels, skips is not None, *tile, num_warps=WARPS
    )
    return x_out, skips_out


def residual_and_skip_backward(
    grad_x: Tensor, grad_skips: Tensor, mask: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, of y in `dtype`, and of the bias. The gradient of the skips is `grad_skips`."""
    rows, channels = grad_x.flatten(0, -2).shape
    grad_x_in = torch.empty_like(grad_x)
    grad_y = grad_x.new_empty(*grad_x.shape[:-1], 2 * channels, dtype=dtype)
    tile, (row_tiles, column_tiles) = tiling(rows, channels, TILE // 2)
    tiles, partial = partial_sums(grad_x, row_tiles, 2 * channels)
    _residual_and_skip_backward[len(partial), column_tiles](
        grad_x, grad_skips, mask, grad_x_in, grad_y, partial, rows, channels, tiles, *tile, num_warps=WARPS
    )
    return grad_x_in, grad_y, column_sums(partial)


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


def add_norm(
    x: Tensor | None, y: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the layer norm of `x + y` `[..., c]`, the sum, and the mean and 1 / standard deviation of each row."""
    rows, channels = y.flatten(0, -2).shape
    total, out = torch.empty_like(y), torch.empty_like(y)
    mean, rstd = (y.new_empty(rows, dtype=torch.float32) for _ in range(2))
    tile, grid = tiling(rows, channels, TILE // 2, whole_rows=True)
    adds = x is not None
    _add_norm[grid](x, y, gamma, beta, total, out, mean, rstd, rows, channels, eps, adds, *tile, num_warps=WARPS)
    return out, total, mean, rstd


def add_norm_backward(grad: Tensor, total: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of the sum, gamma and beta."""
    rows, channels = grad.flatten(0, -2).shape
    grad_in = torch.empty_like(grad)
    tile, (row_tiles, _) = tiling(rows, channels, TILE // 2, whole_rows=True)
    tiles, partial = partial_sums(grad, row_tiles, 2 * channels)
    _add_norm_backward[(len(partial),)](
        grad, total, gamma, mean, rstd, grad_in, partial, rows, channels, tiles, *tile, num_warps=WARPS
    )
    return grad_in, *column_sums(partial).chunk(2)


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


def l1_mean(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of two tensors of one memory layout, a scalar in fp32."""
    partial = a.new_empty(triton.cdiv(a.numel(), TILE * MIN_TILES), dtype=torch.float32)
    _l1[(len(partial),)](a, b, partial, a.numel(), MIN_TILES, TILE, num_warps=WARPS)
    return partial.sum() / a.numel()


def l1_mean_backward(grad: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the gradient of b; grad is a scalar in fp32."""
    grad_b = torch.empty_like(b)
    _l1_backward[(triton.cdiv(b.numel(), TILE),)](grad, a, b, grad_b, b.numel(), TILE, num_warps=WARPS)
    return grad_b


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


def weight(v: Tensor, g: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return `g * v / |v|`, or v if g is None, as `[n, k, c]` in `dtype`, and the norms `|v|` `[n]` over c and k.

    Args: v `[n, c, k]` and g `[n, ...]`, contiguous in fp32.
    """
    n, channels, taps = v.shape
    w, norm = v.new_empty(n, taps, channels, dtype=dtype), None if g is None else v.new_empty(n)
    inner, block = channels * taps, _weight_block(channels * taps)
    _weight[(n,)](v, g, w, norm, inner, channels, taps, g is not None, block, num_warps=2 * WARPS)
    return w, norm


def weight_backward(grad: Tensor, v: Tensor, g: Tensor | None, norm: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of v and g; grad `[n, k, c]`."""
    n, channels, taps = v.shape
    grad_v, grad_g = torch.empty_like(v), None if g is None else torch.empty_like(g)
    inner, block = channels * taps, _weight_block(channels * taps)
    _weight_backward[(n,)](
        grad, v, g, norm, grad_v, grad_g, inner, channels, taps, g is not None, block, num_warps=2 * WARPS
    )
    return grad_v, grad_g


def _weight_block(inner: int) -> int:
    """Return the block for rows of `inner` elements: one of few sizes, because each is compiled."""
    return 1024 if inner <= 1024 else max(8192, triton.next_power_of_2(inner))
