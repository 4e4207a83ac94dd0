"""Monotonic alignment search: which text token each spectrogram frame belongs to.

Glow-TTS (Kim et al. 2020, arXiv 2005.11129), section 3.1 and algorithm 1, as VITS and VITS2 use it.
"""

import functools
import importlib.util
import logging
from collections.abc import Callable

import torch

from monotonic_align import extension, numpy_search

logger = logging.getLogger(__name__)


@torch.no_grad()
def maximum_path(neg_cent: torch.Tensor, mask: torch.Tensor, backend: str | None = None) -> torch.Tensor:
    """The best monotonic path that covers every token.

    neg_cent: [b, t_t, t_s], log-density of each of t_t spectrogram frames under each of t_s text tokens.
    mask: [b, t_t, t_s], outer product of the two length masks, any dtype.
    backend: a key of BACKENDS; None takes the fastest that runs here for the tensors' device.
    Returns the path [b, t_t, t_s], 1 on it and 0 elsewhere, in dtype and on device of `neg_cent`, without
    gradient. Where staying in a token and entering it score the same, the path stays.

    Raises ValueError for shapes that differ, an unknown backend and, on every backend but "triton", for an
    utterance without tokens or frames, with more tokens than frames, or with a value that is not finite. "triton"
    does not look at the data, since that would stall the GPU: there the corpus must have been checked beforehand,
    and `triton_search.search` says what comes out if it was not.
    """
    if neg_cent.dim() != 3 or neg_cent.shape != mask.shape:
        raise ValueError(
            "maximum_path: neg_cent and mask must both be [batch, frames, tokens], "
            f"got {list(neg_cent.shape)} and {list(mask.shape)}"
        )
    if backend is None:
        backend = fastest(neg_cent.device.type)
    if backend not in BACKENDS:
        raise ValueError(f"maximum_path: backend must be one of {', '.join(BACKENDS)} or None, got {backend!r}")
    return BACKENDS[backend](neg_cent, mask)


def _triton(neg_cent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    from monotonic_align import triton_search  # here, because not every machine has Triton

    return triton_search.search(neg_cent, mask)


def _cython(neg_cent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    core = extension.load()
    if core is None:
        raise RuntimeError(f"maximum_path: backend 'cython' is not built; {extension.ADVICE}")
    values, frames, tokens = _checked(neg_cent, mask)
    path = core.search(values.numpy(), frames.numpy(), tokens.numpy(), torch.get_num_threads())
    return torch.from_numpy(path).to(neg_cent)


def _numpy(neg_cent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    values, frames, tokens = _checked(neg_cent, mask)
    return torch.from_numpy(numpy_search.search(values.numpy(), frames.numpy(), tokens.numpy())).to(neg_cent)


BACKENDS = {"triton": _triton, "cython": _cython, "numpy": _numpy}


@functools.cache
def fastest(device: str) -> str:
    """The name of the backend that tensors of a kind of device ("cuda", "cpu") are searched by."""

    def attempt() -> None:
        one = torch.ones(1, 1, 1, device=device)
        _triton(one, one)

    if device == "cuda" and triton_runs(attempt, "alignments are searched on the CPU"):
        return "triton"
    return "numpy" if extension.load() is None else "cython"


def triton_runs(attempt: Callable[[], object], otherwise: str) -> bool:
    """Whether Triton is there and `attempt` gets through; if it does not, a warning says what happens `otherwise`."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        attempt()
    except Exception as error:  # Triton compiles on the machine; what it raises where it cannot is not one type
        reason = (str(error).splitlines() or [repr(error)])[0]
        logger.warning("Triton does not run here, %s: %s", otherwise, reason)
        return False
    return True


def _checked(neg_cent: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values [b, t_t, t_s] float32, frames and tokens [b] int32: on the CPU, and safe to index by."""
    values = neg_cent.to("cpu", torch.float32).contiguous()
    valid = mask.to("cpu") != 0
    frames = valid[:, :, :1].sum((1, 2), dtype=torch.int32)
    tokens = valid[:, :1, :].sum((1, 2), dtype=torch.int32)
    for item in torch.nonzero((tokens == 0) | (frames == 0) | (tokens > frames)).flatten().tolist():
        raise ValueError(
            f"maximum_path: item {item} of the batch has {tokens[item]} tokens and {frames[item]} frames; "
            "it needs at least one token, and a frame for each token"
        )
    if not values.sum().isfinite():  # a quick look first: only then is each cell worth a visit
        for item in torch.nonzero((~values.isfinite() & valid).any(2).any(1)).flatten().tolist():
            raise ValueError(
                f"maximum_path: item {item} of the batch ({tokens[item]} tokens, {frames[item]} frames) "
                "holds values that are not finite"
            )
    return values, frames, tokens
