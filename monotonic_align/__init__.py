"""Monotonic alignment search: the assignment of spectrogram frames to text tokens.

Glow-TTS (Kim et al. 2020, arXiv 2005.11129), section 3.1 and algorithm 1, as used in VITS and VITS2.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kernels import triton_runs
from monotonic_align import extension


@torch.no_grad()
def maximum_path(neg_cent: Tensor, mask: Tensor, backend: str | None = None) -> Tensor:
    """Find the monotonic path with the highest sum of log-densities that covers every token.

    If staying in a token and entering it from the previous one have equal scores, the path stays.

    Args:
        neg_cent: log-density of each of t_t spectrogram frames under each of t_s text tokens, `[b, t_t, t_s]`.
        mask: outer product of the masks of frames and tokens, `[b, t_t, t_s]` in any dtype.
        backend: a key of `BACKENDS`; None selects the fastest one that runs on the tensors' device.

    Returns the path `[b, t_t, t_s]` with ones on it and zeros elsewhere, in the dtype of `neg_cent`, without gradient.

    Raises ValueError if the shapes differ or the backend is unknown. All backends except "triton" also reject an
    utterance without tokens or frames, with more tokens than frames, or with values that are not finite. "triton" does
    not inspect the data because that would synchronize with the GPU; see `triton_search.search` for its output then.
    """
    if neg_cent.dim() != 3 or neg_cent.shape != mask.shape:
        shapes = f"{list(neg_cent.shape)} and {list(mask.shape)}"
        raise ValueError(f"maximum_path: neg_cent and mask must both be [batch, frames, tokens], got {shapes}")
    if backend is None:
        backend = fastest(neg_cent.device.type)
    if backend not in BACKENDS:
        raise ValueError(f"maximum_path: backend must be one of {', '.join(BACKENDS)} or None, got {backend!r}")
    return BACKENDS[backend](neg_cent, mask)


def _triton(neg_cent: Tensor, mask: Tensor) -> Tensor:
    from monotonic_align import triton_search  # imported late because Triton is not available on every machine

    return triton_search.search(neg_cent, mask)


def _cython(neg_cent: Tensor, mask: Tensor) -> Tensor:
    core = extension.load()
    if core is None:
        raise RuntimeError(f"maximum_path: backend 'cython' is not built; {extension.ADVICE}")
    return torch.from_numpy(core.search(*_checked(neg_cent, mask), torch.get_num_threads())).to(neg_cent)


def _numpy(neg_cent: Tensor, mask: Tensor) -> Tensor:
    """Search in NumPy, vectorized over utterances and tokens: the reference form of the algorithm, and the fallback."""
    values, frames, tokens = _checked(neg_cent, mask)
    b, t_t, t_s = values.shape
    # best[:, s + 1] is the score of the best path that ends in token s; column 0 is the state before token 0, from
    # which a path can come at the first frame only
    best = np.full((b, t_s + 1), -np.inf, dtype=np.float32)
    best[:, 0] = 0.0
    # starts[:, t, s] is the frame at which the best path that is in token s at frame t entered s
    starts = np.empty((b, t_t, t_s), dtype=np.int32)
    start = np.zeros((b, t_s), dtype=np.int32)
    with np.errstate(invalid="ignore", over="ignore"):  # padding may hold any values; they do not affect valid cells
        for t in range(t_t):
            stay, enter = best[:, 1:], best[:, :-1]
            entered = enter > stay
            entered[:, t : t + 1] = True  # token t cannot begin before frame t
            start[entered] = t
            starts[:, t] = start
            best[:, 1:] = np.where(entered, enter, stay) + values[:, t]
            best[:, 0] = -np.inf

    begins = np.repeat(frames[:, None], t_s + 1, axis=1)
    for s in range(t_s - 1, -1, -1):
        start = starts[np.arange(b), begins[:, s + 1] - 1, s]
        begins[:, s] = np.where(s < tokens, start, frames)
    frame = np.arange(t_t)[:, None]
    return torch.from_numpy((begins[:, None, :-1] <= frame) & (frame < begins[:, None, 1:])).to(neg_cent)


BACKENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"triton": _triton, "cython": _cython, "numpy": _numpy}


@functools.cache
def fastest(device: str) -> str:
    """Return the fastest backend that runs on a type of device, "cuda" or "cpu"."""
    attempt = functools.partial(_triton, *torch.ones(2, 1, 1, 1, device=device))
    if device == "cuda" and triton_runs(attempt, "alignments are searched on the CPU"):
        return "triton"
    return "numpy" if extension.load() is None else "cython"


def _checked(neg_cent: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values `[b, t_t, t_s]` in float32 and the numbers of frames and tokens `[b]` in int32.

    Raises ValueError as `maximum_path`. The backends index by these numbers without further checks.
    """
    values = neg_cent.to("cpu", torch.float32).contiguous()
    valid = mask.to("cpu") != 0
    frames = valid[:, :, :1].sum((1, 2), dtype=torch.int32)
    tokens = valid[:, :1, :].sum((1, 2), dtype=torch.int32)
    for item in torch.nonzero((tokens == 0) | (frames == 0) | (tokens > frames)).flatten().tolist():
        has = f"{tokens[item]} tokens and {frames[item]} frames"
        needs = "it needs at least one token, and a frame for each token"
        raise ValueError(f"maximum_path: item {item} of the batch has {has}; {needs}")
    if not values.sum().isfinite():  # a fast test that finds most batches valid
        for item in torch.nonzero((~values.isfinite() & valid).any(2).any(1)).flatten().tolist():
            size = f"{tokens[item]} tokens, {frames[item]} frames"
            raise ValueError(f"maximum_path: item {item} of the batch ({size}) holds values that are not finite")
    return values.numpy(), frames.numpy(), tokens.numpy()
