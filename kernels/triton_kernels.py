"""Triton kernels behind `fused`: each makes one pass over memory, channels last, and sums in fp32.

Tensors come as rows of channels, `[..., c]` contiguous. What sums over rows (gradients of biases and gains) leaves one
partial sum for each program, and `added_up` ends the sum: the result is the same at every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # elements that a program holds at a time
WARPS = 4
FEW = 16  # columns of a program that adds up partial sums
LOOPS, PROGRAMS = 4, 528  # tiles that a program of a backward pass sums over at least, and programs at most
ROWS = ["rows", "blocks", "loops"]  # sizes that change from batch to batch, which Triton must not compile anew for
WEIGHT = ["inner", "channels", "taps"]  # and those that change from layer to layer


def size(x: Tensor) -> tuple[int, int]:
    """Rows and channels of `[..., c]`."""
    return x.numel() // x.size(-1), x.size(-1)


def tiling(channels: int, elements: int = TILE) -> tuple[int, int, int]:
    """Rows and columns of a tile, and how many tiles stand side by side.

    The columns are the largest power of two up to 64 that divides the channels, so that none is idle.
    """
    width = min(channels & -channels, 64)
    return elements // width, width, channels // width


def sharing(tiles: int) -> tuple[int, int]:
    """Tiles for each program of a backward pass, and programs."""
    loops = max(LOOPS, triton.cdiv(tiles, PROGRAMS))
    return loops, triton.cdiv(tiles, loops)


@triton.jit
def _tile(rows, channels, block, R: tl.constexpr, C: tl.constexpr):
    """Offsets `[R, C]` of a tile of a matrix of rows, where it holds rows, and its columns."""
    r = block.to(tl.int64) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    return r[:, None] * channels + c[None, :], (r < rows)[:, None], c


@triton.jit
def _valid(mask, rows, block, R: tl.constexpr):
    """The mask of a tile's rows `[R, 1]`."""
    r = block.to(tl.int64) * R + tl.arange(0, R)
    return tl.load(mask + r, r < rows, 0.0).to(tl.float32)[:, None]


@triton.jit(do_not_specialize=ROWS)
def _added_up(partial, out, rows, channels, R: tl.constexpr, C: tl.constexpr):
    c = tl.program_id(0) * C + tl.arange(0, C)
    total = tl.zeros([R, C], tl.float32)
    for start in range(0, rows, R):
        r = start + tl.arange(0, R)
        inside = (r < rows)[:, None] & (c < channels)[None, :]
        total += tl.load(partial + r[:, None] * channels + c[None, :], inside, 0.0)
    tl.store(out + c, tl.sum(total, 0), c < channels)


def added_up(partial: Tensor) -> Tensor:
    """The sum of `[n, c]` over its rows, `[c]`; each program takes `FEW` columns."""
    n, channels = partial.shape
    out = partial.new_empty(channels)
    _added_up[(triton.cdiv(channels, FEW),)](partial, out, n, channels, TILE // FEW, FEW, num_warps=WARPS)
    return out


@triton.jit(do_not_specialize=ROWS)
def _bias_act(
    x, y, bias, mask, before, out, rows, channels, slope, ADD: tl.constexpr, BOTH: tl.constexpr, MASK: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    at, inside, c = _tile(rows, channels, tl.program_id(0), R, C)
    value = tl.load(y + at, inside, 0.0).to(tl.float32) + tl.load(bias + c).to(tl.float32)[None, :]
    if ADD:
        value += tl.load(x + at, inside, 0.0).to(tl.float32)
    if BOTH:
        tl.store(before + at, value.to(before.dtype.element_ty), inside)
    value = tl.where(value > 0, value, value * slope)
    if MASK:
        value *= _valid(mask, rows, tl.program_id(0), R)
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=ROWS)
def _bias_act_backward(
    grad_before, grad, out, mask, grad_y, partial, rows, channels, slope, loops, BOTH: tl.constexpr,
    ACT: tl.constexpr, MASK: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    total = tl.zeros([R, C], tl.float32)
    for i in range(loops):
        block = tl.program_id(0) * loops + i
        at, inside, c = _tile(rows, channels, block, R, C)
        g = tl.load(grad + at, inside, 0.0).to(tl.float32)
        if MASK:
            g *= _valid(mask, rows, block, R)
        if ACT:
            g = tl.where(tl.load(out + at, inside, 0.0).to(tl.float32) > 0, g, g * slope)
        if BOTH:
            g += tl.load(grad_before + at, inside, 0.0).to(tl.float32)
        if ACT or BOTH or MASK:
            tl.store(grad_y + at, g.to(grad_y.dtype.element_ty), inside)
        total += g
    c = tl.program_id(1) * C + tl.arange(0, C)
    tl.store(partial + tl.program_id(0) * channels + c, tl.sum(total, 0))


def bias_act(
    x: Tensor | None, y: Tensor, bias: Tensor, slope: float, both: bool, mask: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """`x + y + bias`, None unless both are asked for, and `leaky_relu` of it, masked.

    Args: x, y `[..., c]`, bias `[c]`, mask contiguous, one number for each row.
    """
    before, out = torch.empty_like(y) if both else None, torch.empty_like(y)
    rows, channels = size(y)
    r, c, side = tiling(channels)
    grid = triton.cdiv(rows, r), side
    adds, masks = x is not None, mask is not None
    _bias_act[grid](x, y, bias, mask, before, out, rows, channels, slope, adds, both, masks, r, c, num_warps=WARPS)
    return before, out


def bias_act_backward(
    grad_before: Tensor | None, grad: Tensor, out: Tensor | None, slope: float, learns: bool, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of y (and x) and, if it learns, of the bias, from those of both sides of the activation."""
    rows, channels = size(grad)
    r, c, side = tiling(channels)
    loops, programs = sharing(triton.cdiv(rows, r))
    act, both, masks = slope != 1.0, grad_before is not None, mask is not None
    grad_y = torch.empty_like(grad) if act or both or masks else grad
    partial = torch.empty(programs, channels, dtype=torch.float32, device=grad.device)
    _bias_act_backward[programs, side](
        grad_before, grad, out, mask, grad_y, partial, rows, channels, slope, loops, both, act, masks, r, c,
        num_warps=WARPS,
    )  # fmt: skip
    return grad_y, added_up(partial) if learns else None


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit(do_not_specialize=ROWS)
def _gate(a, b, out, rows, channels, blocks, b_stride, R: tl.constexpr, C: tl.constexpr):
    item = (tl.program_id(0) // blocks).to(tl.int64)
    at, inside, c = _tile(rows, 2 * channels, tl.program_id(0) % blocks, R, C)
    u = tl.load(a + item * rows * 2 * channels + at, inside, 0.0).to(tl.float32)
    v = tl.load(a + item * rows * 2 * channels + channels + at, inside, 0.0).to(tl.float32)
    u += tl.load(b + item * b_stride + c)[None, :]
    v += tl.load(b + item * b_stride + channels + c)[None, :]
    at, inside, c = _tile(rows, channels, tl.program_id(0) % blocks, R, C)
    tl.store(out + item * rows * channels + at, (_tanh(u) * tl.sigmoid(v)).to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=ROWS)
def _gate_backward(
    grad, a, b, grad_a, partial, rows, channels, blocks, b_stride, loops, R: tl.constexpr, C: tl.constexpr
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
    for i in range(loops):
        block = tl.program_id(0) % blocks * loops + i
        at, inside, _ = _tile(rows, channels, block, R, C)
        g = tl.load(grad + at, inside, 0.0).to(tl.float32)
        at, inside, _ = _tile(rows, 2 * channels, block, R, C)
        t = _tanh(tl.load(a + at, inside, 0.0).to(tl.float32) + b_u)
        s = tl.sigmoid(tl.load(a + channels + at, inside, 0.0).to(tl.float32) + b_v)
        g_u = g * s * (1 - t * t)
        g_v = g * t * s * (1 - s)
        tl.store(grad_a + at, g_u.to(grad_a.dtype.element_ty), inside)
        tl.store(grad_a + channels + at, g_v.to(grad_a.dtype.element_ty), inside)
        total_u += g_u
        total_v += g_v
    partial += tl.program_id(0) * 2 * channels
    tl.store(partial + c, tl.sum(total_u, 0))
    tl.store(partial + channels + c, tl.sum(total_v, 0))


def gate(a: Tensor, b: Tensor) -> Tensor:
    """WaveNet's gate of a `[n, t, 2h]` and b `[n or 1, 2h]` in fp32: `[n, t, h]`."""
    n, t, channels = a.size(0), a.size(1), a.size(2) // 2
    out = a.new_empty(n, t, channels)
    r, c, side = tiling(channels)
    blocks = triton.cdiv(t, r)
    _gate[n * blocks, side](a, b, out, t, channels, blocks, _step(b), r, c, num_warps=WARPS)
    return out


def gate_backward(grad: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a and b."""
    n, t, channels = a.size(0), a.size(1), a.size(2) // 2
    grad_a = torch.empty_like(a)
    r, c, side = tiling(channels, TILE // 2)
    blocks = triton.cdiv(t, r * LOOPS)
    partial = torch.empty(n, blocks, 2 * channels, dtype=torch.float32, device=a.device)
    _gate_backward[n * blocks, side](
        grad, a, b, grad_a, partial, t, channels, blocks, _step(b), LOOPS, r, c, num_warps=WARPS
    )
    return grad_a, partial.sum(1) if b.size(0) == n else added_up(partial.flatten(0, 1)).unsqueeze(0)


def _step(b: Tensor) -> int:
    """From one item's row of b to the next one's."""
    return b.size(1) if b.size(0) > 1 else 0


@triton.jit(do_not_specialize=ROWS)
def _residual_and_skip(
    x, skips, y, bias, mask, x_out, skips_out, rows, channels, SKIPS: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    at, inside, c = _tile(rows, channels, tl.program_id(0), R, C)
    at_y, _, _ = _tile(rows, 2 * channels, tl.program_id(0), R, C)
    on = _valid(mask, rows, tl.program_id(0), R)
    residual = tl.load(y + at_y, inside, 0.0).to(tl.float32) + tl.load(bias + c).to(tl.float32)[None, :]
    value = (tl.load(x + at, inside, 0.0).to(tl.float32) + residual) * on
    tl.store(x_out + at, value.to(x_out.dtype.element_ty), inside)
    skip = tl.load(y + channels + at_y, inside, 0.0).to(tl.float32)
    skip += tl.load(bias + channels + c).to(tl.float32)[None, :]
    if SKIPS:
        skip += tl.load(skips + at, inside, 0.0)
    tl.store(skips_out + at, skip, inside)


@triton.jit(do_not_specialize=ROWS)
def _residual_and_skip_backward(
    grad_x, grad_skips, mask, grad_x_in, grad_y, partial, rows, channels, loops, R: tl.constexpr, C: tl.constexpr
):
    total = tl.zeros([R, C], tl.float32)
    total_skip = tl.zeros([R, C], tl.float32)
    for i in range(loops):
        block = tl.program_id(0) * loops + i
        at, inside, _ = _tile(rows, channels, block, R, C)
        at_y, _, _ = _tile(rows, 2 * channels, block, R, C)
        g = tl.load(grad_x + at, inside, 0.0).to(tl.float32) * _valid(mask, rows, block, R)
        skip = tl.load(grad_skips + at, inside, 0.0).to(tl.float32)
        tl.store(grad_x_in + at, g.to(grad_x_in.dtype.element_ty), inside)
        tl.store(grad_y + at_y, g.to(grad_y.dtype.element_ty), inside)
        tl.store(grad_y + channels + at_y, skip.to(grad_y.dtype.element_ty), inside)
        total += g
        total_skip += skip
    c = tl.program_id(1) * C + tl.arange(0, C)
    partial += tl.program_id(0) * 2 * channels
    tl.store(partial + c, tl.sum(total, 0))
    tl.store(partial + channels + c, tl.sum(total_skip, 0))


def residual_and_skip(x: Tensor, skips: Tensor | None, y: Tensor, bias: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`(x + first half of y + bias) * mask` and, in fp32, `skips + second half`.

    Args: x `[n, t, h]`; skips `[n, t, h]` in fp32 or None; y `[n, t, 2h]`; bias `[2h]`; mask `[n, t]`.
    """
    rows, channels = size(x)
    x_out = torch.empty_like(x)
    skips_out = torch.empty_like(x, dtype=torch.float32)
    r, c, side = tiling(channels)
    grid = triton.cdiv(rows, r), side
    _residual_and_skip[grid](
        x, skips, y, bias, mask, x_out, skips_out, rows, channels, skips is not None, r, c, num_warps=WARPS
    )
    return x_out, skips_out


def residual_and_skip_backward(
    grad_x: Tensor, grad_skips: Tensor, mask: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, of y in `dtype`, and of the bias; that of the skips is `grad_skips` itself."""
    rows, channels = size(grad_x)
    grad_x_in = torch.empty_like(grad_x)
    grad_y = grad_x.new_empty(*grad_x.shape[:-1], 2 * channels, dtype=dtype)
    r, c, side = tiling(channels, TILE // 2)
    loops, programs = sharing(triton.cdiv(rows, r))
    partial = torch.empty(programs, 2 * channels, dtype=torch.float32, device=grad_x.device)
    _residual_and_skip_backward[programs, side](
        grad_x, grad_skips, mask, grad_x_in, grad_y, partial, rows, channels, loops, r, c, num_warps=WARPS
    )
    return grad_x_in, grad_y, added_up(partial)


@triton.jit(do_not_specialize=ROWS)
def _add_norm(
    x, y, gamma, beta, total, out, mean_out, rstd_out, rows, channels, eps, ADD: tl.constexpr, R: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    c = tl.arange(0, C)
    at = r[:, None] * channels + c[None, :]
    inside = (r < rows)[:, None] & (c < channels)[None, :]
    value = tl.load(y + at, inside, 0.0).to(tl.float32)
    if ADD:
        value += tl.load(x + at, inside, 0.0).to(tl.float32)
    tl.store(total + at, value.to(total.dtype.element_ty), inside)
    mean = tl.sum(value, 1) / channels
    centred = tl.where((c < channels)[None, :], value - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centred * centred, 1) / channels + eps)
    gain = tl.load(gamma + c, c < channels, 0.0)[None, :]
    shift = tl.load(beta + c, c < channels, 0.0)[None, :]
    tl.store(out + at, (centred * rstd[:, None] * gain + shift).to(out.dtype.element_ty), inside)
    tl.store(mean_out + r, mean, r < rows)
    tl.store(rstd_out + r, rstd, r < rows)


@triton.jit(do_not_specialize=ROWS)
def _add_norm_backward(
    grad, total, gamma, mean, rstd, grad_in, partial, rows, channels, loops, R: tl.constexpr, C: tl.constexpr
):
    c = tl.arange(0, C)
    gain = tl.load(gamma + c, c < channels, 0.0)[None, :]
    gain_total = tl.zeros([R, C], tl.float32)
    shift_total = tl.zeros([R, C], tl.float32)
    for i in range(loops):
        r = (tl.program_id(0) * loops + i).to(tl.int64) * R + tl.arange(0, R)
        at = r[:, None] * channels + c[None, :]
        inside = (r < rows)[:, None] & (c < channels)[None, :]
        g = tl.load(grad + at, inside, 0.0).to(tl.float32)
        scale = tl.load(rstd + r, r < rows, 0.0)[:, None]
        normal = (tl.load(total + at, inside, 0.0).to(tl.float32) - tl.load(mean + r, r < rows, 0.0)[:, None]) * scale
        normal = tl.where(inside, normal, 0.0)
        gain_total += g * normal
        shift_total += g
        g = g * gain
        along = tl.sum(g * normal, 1)[:, None] / channels
        level = tl.sum(g, 1)[:, None] / channels
        tl.store(grad_in + at, ((g - level - normal * along) * scale).to(grad_in.dtype.element_ty), inside)
    partial += tl.program_id(0) * 2 * channels
    tl.store(partial + c, tl.sum(gain_total, 0), c < channels)
    tl.store(partial + channels + c, tl.sum(shift_total, 0), c < channels)


def add_norm(
    x: Tensor | None, y: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Layer norm of `x + y` `[..., c]` in y's type; also the sum, and each row's mean and 1 / standard deviation."""
    rows, channels = size(y)
    total, out = torch.empty_like(y), torch.empty_like(y)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=y.device) for _ in range(2))
    r, c = _whole_rows(channels)
    grid = (triton.cdiv(rows, r),)
    adds = x is not None
    _add_norm[grid](x, y, gamma, beta, total, out, mean, rstd, rows, channels, eps, adds, r, c, num_warps=WARPS)
    return out, total, mean, rstd


def add_norm_backward(
    grad: Tensor, total: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sum, gamma and beta."""
    rows, channels = size(grad)
    grad_in = torch.empty_like(grad)
    r, c = _whole_rows(channels)
    loops, programs = sharing(triton.cdiv(rows, r))
    partial = torch.empty(programs, 2, channels, dtype=torch.float32, device=grad.device)
    _add_norm_backward[(programs,)](
        grad, total, gamma, mean, rstd, grad_in, partial, rows, channels, loops, r, c, num_warps=WARPS
    )
    return grad_in, *added_up(partial.flatten(1)).view(2, channels).unbind()


def _whole_rows(channels: int) -> tuple[int, int]:
    """Rows and columns of a tile that holds all channels."""
    width = triton.next_power_of_2(channels)
    return max(TILE // 2 // width, 1), width


@triton.jit(do_not_specialize=ROWS)
def _l1(a, b, partial, rows, LOOPS: tl.constexpr, TILE: tl.constexpr):
    total = tl.zeros([TILE], tl.float32)
    for i in range(LOOPS):
        at = (tl.program_id(0) * LOOPS + i).to(tl.int64) * TILE + tl.arange(0, TILE)
        inside = at < rows
        total += tl.abs(tl.load(a + at, inside, 0.0).to(tl.float32) - tl.load(b + at, inside, 0.0).to(tl.float32))
    tl.store(partial + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=ROWS)
def _l1_backward(grad, a, b, grad_b, rows, TILE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < rows
    difference = tl.load(b + at, inside, 0.0).to(tl.float32) - tl.load(a + at, inside, 0.0).to(tl.float32)
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    tl.store(grad_b + at, (sign * (tl.load(grad) / rows)).to(grad_b.dtype.element_ty), inside)


def l1_mean(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of two tensors laid out alike, a scalar in fp32."""
    programs = triton.cdiv(a.numel(), TILE * LOOPS)
    partial = torch.empty(programs, dtype=torch.float32, device=a.device)
    _l1[(programs,)](a, b, partial, a.numel(), LOOPS, TILE, num_warps=WARPS)
    return partial.sum() / a.numel()


def l1_mean_backward(grad: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Gradient of b; grad is a scalar in fp32."""
    grad_b = torch.empty_like(b)
    _l1_backward[(triton.cdiv(b.numel(), TILE),)](grad, a, b, grad_b, b.numel(), TILE, num_warps=WARPS)
    return grad_b


@triton.jit(do_not_specialize=WEIGHT)
def _weight(v, g, w, norm, inner, channels, taps, NORM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < inner
    value = tl.load(v + row * inner + at % channels * taps + at // channels, inside, 0.0).to(tl.float32)
    if NORM:
        length = tl.sqrt(tl.sum(value * value, 0))
        tl.store(norm + row, length)
        value *= tl.load(g + row) / length
    tl.store(w + row * inner + at, value.to(w.dtype.element_ty), inside)


@triton.jit(do_not_specialize=WEIGHT)
def _weight_backward(grad, v, g, norm, grad_v, grad_g, inner, channels, taps, NORM: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < inner
    value = tl.load(grad + row * inner + at % taps * channels + at // taps, inside, 0.0).to(tl.float32)
    if NORM:
        length = tl.load(norm + row)
        direction = tl.load(v + row * inner + at, inside, 0.0) / length
        along = tl.sum(value * direction, 0)
        tl.store(grad_g + row, along)
        value = (value - along * direction) * (tl.load(g + row) / length)
    tl.store(grad_v + row * inner + at, value, inside)


def weight(v: Tensor, g: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """`g * v / |v|`, or v where g is None, in `dtype` with its last two dimensions exchanged, and the norms `|v|`.

    Args: v `[n, c, k]` and g `[n, ...]`, contiguous in fp32; the norm is over c and k. Returns `[n, k, c]` and `[n]`.
    """
    n, channels, taps = v.shape
    w = torch.empty(n, taps, channels, dtype=dtype, device=v.device)
    norm = None if g is None else torch.empty(n, device=v.device)
    inner = channels * taps
    _weight[(n,)](v, g, w, norm, inner, channels, taps, g is not None, _row_block(inner), num_warps=2 * WARPS)
    return w, norm


def weight_backward(grad: Tensor, v: Tensor, g: Tensor | None, norm: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Gradients of v and g; grad `[n, k, c]`."""
    n, channels, taps = v.shape
    grad_v = torch.empty_like(v)
    grad_g = None if g is None else torch.empty_like(g)
    inner = channels * taps
    _weight_backward[(n,)](
        grad, v, g, norm, grad_v, grad_g, inner, channels, taps, g is not None, _row_block(inner), num_warps=2 * WARPS
    )
    return grad_v, grad_g


def _row_block(inner: int) -> int:
    """One of few sizes, since each is compiled."""
    return 1024 if inner <= 1024 else max(8192, triton.next_power_of_2(inner))
