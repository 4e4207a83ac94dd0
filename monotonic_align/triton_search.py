"""The alignment search on a GPU: one kernel launch per batch, one Triton program per utterance.

A program keeps the scores of one frame in registers, in parallel over tokens, and loops over the frames. It reads the
score of the previous token by a gather, which is a register shuffle within one warp. Rows are loaded four frames before
their use to hide the memory latency. Backtracking follows the stored first frame of each token, so it needs one
dependent load per token instead of one per frame.
"""

import torch
import triton
import triton.language as tl

# Four tokens per lane. With more, the additional instructions cost more than the barrier of a second warp.
TOKENS_PER_WARP = 128

if hasattr(tl, "gather"):

    @triton.jit
    def _before(best, token):
        """Return the score of the previous token; undefined for token 0."""
        return tl.gather(best, tl.maximum(token - 1, 0), 0)

else:  # Triton 3.2, which comes with PyTorch 2.6

    @triton.jit
    def _last_two(last_a, previous_a, single_a, last_b, previous_b, single_b):
        """Combine two adjacent ranges of a row, each represented by its last two elements."""
        return last_b, tl.where(single_b != 0, last_a, previous_b), single_a & 0

    @triton.jit
    def _before(best, token):
        """Return the score of the previous token; undefined for token 0."""
        _, before, _ = tl.associative_scan((best, best, token * 0 + 1), 0, _last_two)
        return before


@triton.jit
def _load_row(values, t, frames, token, tokens, t_s):
    return tl.load(values + t * t_s + token, mask=token < tl.where(t < frames, tokens, 0), other=0.0).to(tl.float32)


@triton.jit
def _advance(best, start, row, t, frames, token, tokens, starts, t_s):
    """Process one frame: a path enters each token from the previous one or stays. Returns new `best` and `start`."""
    enter = tl.where(token == 0, tl.where(t == 0, 0.0, float("-inf")), _before(best, token))
    # Token t cannot begin before frame t. This condition keeps every start in [token, t] for any values.
    entered = (enter > best) | (token == t)
    best = tl.where(entered, enter, best) + row
    start = tl.where(entered, t, start)
    tl.store(starts + t * t_s + token, start, mask=token < tl.where(t < frames, tokens, 0))
    return best, start


@triton.jit
def _count(mask, stride, position, size):
    return tl.sum((tl.load(mask + position * stride, mask=position < size, other=0) != 0).to(tl.int32), 0)


@triton.jit(do_not_specialize=["t_t", "t_s", "mask_b", "mask_t", "mask_s"])
def _search(values, mask, starts, path, t_t, t_s, mask_b, mask_t, mask_s, BLOCK: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    values += item * t_t * t_s
    starts += item * t_t * t_s
    path += item * t_t * t_s
    mask += item * mask_b
    token = tl.arange(0, BLOCK)

    tokens = _count(mask, mask_s, token, t_s)
    frames = 0
    for first in range(0, t_t, BLOCK):
        frames += _count(mask, mask_t, first + token, t_t)
    possible = (tokens > 0) & (tokens <= frames)
    frames = tl.where(possible, frames, 0)
    tokens = tl.where(possible, tokens, 0)

    best = tl.full([BLOCK], float("-inf"), tl.float32)
    start = tl.zeros([BLOCK], tl.int32)
    row0 = _load_row(values, 0, frames, token, tokens, t_s)
    row1 = _load_row(values, 1, frames, token, tokens, t_s)
    row2 = _load_row(values, 2, frames, token, tokens, t_s)
    row3 = _load_row(values, 3, frames, token, tokens, t_s)
    for t in range(0, frames, 4):
        next0 = _load_row(values, t + 4, frames, token, tokens, t_s)
        next1 = _load_row(values, t + 5, frames, token, tokens, t_s)
        next2 = _load_row(values, t + 6, frames, token, tokens, t_s)
        next3 = _load_row(values, t + 7, frames, token, tokens, t_s)
        best, start = _advance(best, start, row0, t, frames, token, tokens, starts, t_s)
        best, start = _advance(best, start, row1, t + 1, frames, token, tokens, starts, t_s)
        best, start = _advance(best, start, row2, t + 2, frames, token, tokens, starts, t_s)
        best, start = _advance(best, start, row3, t + 3, frames, token, tokens, starts, t_s)
        row0, row1, row2, row3 = next0, next1, next2, next3
    tl.debug_barrier()  # starts stored by other threads are read below

    begin = tl.zeros([BLOCK], tl.int32)
    end = tl.zeros([BLOCK], tl.int32)
    edge = frames
    for back in range(0, tokens):
        s = tokens - 1 - back
        end = tl.where(token == s, edge, end)
        edge = tl.load(starts + (edge - 1) * t_s + s)
        begin = tl.where(token == s, edge, begin)

    for t in range(0, t_t):
        on = tl.where((t >= begin) & (t < end), 1.0, 0.0)
        tl.store(path + t * t_s + token, on.to(path.dtype.element_ty), mask=token < t_s)


def search(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Find the best monotonic paths on the GPU. There is no host synchronization, so CUDA graphs can capture it.

    The data are not checked, because that would require a synchronization. An utterance without tokens, or with more
    tokens than frames, gets a path of zeros. One with NaN gets an arbitrary path that covers its tokens in order. No
    memory access is out of bounds.

    Args: values `[b, t_t, t_s]` in any float dtype, of which the computation is in float32; mask `[b, t_t, t_s]` in any
    dtype, with any strides. Returns the path `[b, t_t, t_s]` in the dtype of `values`.
    """
    values = values.contiguous()
    mask = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
    b, t_t, t_s = values.shape
    path = torch.empty_like(values)
    starts = torch.empty(values.shape, dtype=torch.int32, device=values.device)
    block = max(64, triton.next_power_of_2(t_s))
    warps = min(16, max(1, block // TOKENS_PER_WARP))
    with torch.cuda.device_of(values):
        _search[(b,)](values, mask, starts, path, t_t, t_s, *mask.stride(), BLOCK=block, num_warps=warps)
    return path
