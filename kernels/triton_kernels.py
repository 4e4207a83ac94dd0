"""Triton kernels behind `fused`. Each makes one pass over memory and computes in fp32.

Tensors are contiguous rows of channels, `[..., c]`. Sums over rows (gradients of biases and gains) are computed in two
steps without atomic operations, so that results are reproducible: every program stores a partial sum, and `column_sums`
adds them up.

Kernels work on tiles of `R` rows and `C` columns. In kernels, `inside` masks the elements of a tile that exist.
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


def rows_and_channels(x: Tensor) -> tuple[int, int]:
    """Return the number of rows and of channels of `[..., c]`."""
    return x.numel() // x.size(-1), x.size(-1)


def tiling(channels: int, elements: int = TILE) -> tuple[int, int, int]:
    """Return the rows and columns of a tile, and the number of tiles in one row of the matrix.

    The columns are the largest power of two up to `MAX_COLUMNS` that divides the channels, so that none is idle.
    """
    width = min(channels & -channels, MAX_COLUMNS)
    return elements // width, width, channels // width


def split_tiles(tiles: int) -> tuple[int, int]:
    """Return the tiles for each program of a backward pass, and the number of programs."""
    each = max(MIN_TILES, triton.cdiv(tiles, MAX_PROGRAMS))
    return each, triton.cdiv(tiles, each)


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
    n, channels = partial.shape
    out = partial.new_empty(channels)
    r, c = TILE // SUM_COLUMNS, SUM_COLUMNS
    _column_sums[(triton.cdiv(channels, c),)](partial, out, n, channels, r, c, num_warps=WARPS)
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
    rows, channels = rows_and_channels(y)
    r, c, column_tiles = tiling(channels)
    grid = triton.cdiv(rows, r), column_tiles
    adds, masks = x is not None, mask is not None
    _bias_act[grid](x, y, bias, mask, before, out, rows, channels, slope, adds, both, masks, r, c, num_warps=WARPS)
    return before, out


def bias_act_backward(
    grad_before: Tensor | None, grad: Tensor, out: Tensor | None, slope: float, bias_learns: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of y, which is also that of x, and the gradient of the bias, None unless `bias_learns`.

    Args: grad_before, grad: gradients before and after the activation; out: the output of the activation.
    """
    rows, channels = rows_and_channels(grad)
    r, c, column_tiles = tiling(channels)
    tiles, programs = split_tiles(triton.cdiv(rows, r))
    act, both, masks = slope != 1.0, grad_before is not None, mask is not None
    grad_y = torch.empty_like(grad) if act or both or masks else grad
    partial = torch.empty(programs, channels, dtype=torch.float32, device=grad.device)
    _bias_act_backward[programs, column_tiles](
        grad_before, grad, out, mask, grad_y, partial, rows, channels, slope, tiles, both, act, masks, r, c,
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
    r, c, column_tiles = tiling(channels)
    blocks = triton.cdiv(t, r)
    _gate[n * blocks, column_tiles](a, b, out, t, channels, blocks, _batch_stride(b), r, c, num_warps=WARPS)
    return out


def gate_backward(grad: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a and b."""
    n, t, channels = a.size(0), a.size(1), a.size(2) // 2
    grad_a = torch.empty_like(a)
    r, c, column_tiles = tiling(channels, TILE // 2)
    blocks = triton.cdiv(t, r * MIN_TILES)
    partial = torch.empty(n, blocks, 2 * channels, dtype=torch.float32, device=a.device)
    _gate_backward[n * blocks, column_tiles](
        grad, a, b, grad_a, partial, t, channels, blocks, _batch_stride(b), MIN_TILES, r, c, num_warps=WARPS
    )
    return grad_a, partial.sum(1) if b.size(0) == n else column_sums(partial.flatten(0, 1)).unsqueeze(0)


def _batch_stride(b: Tensor) -> int:
    """Return the distance between the rows of b for two items of the batch, 0 if all share one row."""
    return b.size(1) if b.size(0) > 1 else 0


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
    rows, channels = rows_and_channels(x)
    x_out = torch.empty_like(x)
    skips_out = torch.empty_like(x, dtype=torch.float32)
    r, c, column_tiles = tiling(channels)
    grid = triton.cdiv(rows, r), column_tiles
    _residual_and_skip[grid](
        x, skips, y, bias, mask, x_out, skips_out, rows, channels, skips is not None, r, c, num_warps=WARPS
    )
    return x_out, skips_out


def residual_and_skip_backward(
    grad_x: Tensor, grad_skips: Tensor, mask: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, of y in `dtype`, and of the bias. The gradient of the skips is `grad_skips`."""
    rows, channels = rows_and_channels(grad_x)
    grad_x_in = torch.empty_like(grad_x)
    grad_y = grad_x.new_empty(*grad_x.shape[:-1], 2 * channels, dtype=dtype)
    r, c, column_tiles = tiling(channels, TILE // 2)
    tiles, programs = split_tiles(triton.cdiv(rows, r))
    partial = torch.empty(programs, 2 * channels, dtype=torch.float32, device=grad_x.device)
    _residual_and_skip_backward[programs, column_tiles](
        grad_x, grad_skips, mask, grad_x_in, grad_y, partial, rows, channels, tiles, r, c, num_warps=WARPS
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
    rows, channels = rows_and_channels(y)
    total, out = torch.empty_like(y), torch.empty_like(y)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=y.device) for _ in range(2))
    r, c = _row_tiling(channels)
    grid = (triton.cdiv(rows, r),)
    adds = x is not None
    _add_norm[grid](x, y, gamma, beta, total, out, mean, rstd, rows, channels, eps, adds, r, c, num_warps=WARPS)
    return out, total, mean, rstd


def add_norm_backward(
    grad: Tensor, total: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the sum, gamma and beta."""
    rows, channels = rows_and_channels(grad)
    grad_in = torch.empty_like(grad)
    r, c = _row_tiling(channels)
    tiles, programs = split_tiles(triton.cdiv(rows, r))
    partial = torch.empty(programs, 2, channels, dtype=torch.float32, device=grad.device)
    _add_norm_backward[(programs,)](
        grad, total, gamma, mean, rstd, grad_in, partial, rows, channels, tiles, r, c, num_warps=WARPS
    )
    grad_gamma, grad_beta = column_sums(partial.flatten(1)).view(2, channels).unbind()
    return grad_in, grad_gamma, grad_beta


def _row_tiling(channels: int) -> tuple[int, int]:
    """Return the rows and columns of a tile that holds all channels."""
    width = triton.next_power_of_2(channels)
    return max(TILE // 2 // width, 1), width


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
    programs = triton.cdiv(a.numel(), TILE * MIN_TILES)
    partial = torch.empty(programs, dtype=torch.float32, device=a.device)
    _l1[(programs,)](a, b, partial, a.numel(), MIN_TILES, TILE, num_warps=WARPS)
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
    w = torch.empty(n, taps, channels, dtype=dtype, device=v.device)
    norm = None if g is None else torch.empty(n, device=v.device)
    inner = channels * taps
    _weight[(n,)](v, g, w, norm, inner, channels, taps, g is not None, _weight_block(inner), num_warps=2 * WARPS)
    return w, norm


def weight_backward(grad: Tensor, v: Tensor, g: Tensor | None, norm: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of v and g; grad `[n, k, c]`."""
    n, channels, taps = v.shape
    grad_v = torch.empty_like(v)
    grad_g = None if g is None else torch.empty_like(g)
    inner = channels * taps
    _weight_backward[(n,)](
        grad, v, g, norm, grad_v, grad_g, inner, channels, taps, g is not None, _weight_block(inner),
        num_warps=2 * WARPS,
    )  # fmt: skip
    return grad_v, grad_g


def _weight_block(inner: int) -> int:
    """Return the block for rows of `inner` elements: one of few sizes, because each is compiled."""
    small, large = 1024, 8192
    return small if inner <= small else max(large, triton.next_power_of_2(inner))
