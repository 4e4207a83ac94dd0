"""Functions that all parts of the network use: masks, alignment paths, segments, initialization."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from text import intersperse as intersperse  # VITS keeps it here

Nest = TypeVar("Nest")


def init_weights(module: nn.Module, mean: float = 0.0, std: float = 0.01) -> None:
    """Initialise the weight of a convolution from N(mean, std). Pass it to `Module.apply`, before weight norm."""
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
        module.weight.data.normal_(mean, std)


def get_padding(kernel_size: int, dilation: int = 1) -> int:
    """Return the padding on each side with which a convolution of odd kernel size keeps the length."""
    return (kernel_size * dilation - dilation) // 2


def rounded_up(n: int, multiple: int) -> int:
    """Round `n` up to a multiple, so that padded lengths take few distinct values."""
    return -(-n // multiple) * multiple


def at_least_fp32(x: Tensor) -> Tensor:
    """Convert half precision to fp32, which densities and splines need; other types stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Return a context in which autocast is off for the device of `x`."""
    # an autocast context prevents ONNX export even if it changes nothing
    kind = x.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if enabled else nullcontext()


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """Multiply x `[b, c, t]` by a mask `[b, 1, t]`, in the type of x."""
    return x * mask.to(x.dtype)


def sequence_mask(length: Tensor, max_length: int | None = None) -> Tensor:
    """Return the boolean mask `[b, max_length]` that is true at the first `length` `[b]` positions.

    Without `max_length`, the longest length is used, which requires a host synchronization.
    """
    positions = torch.arange(int(length.max()) if max_length is None else max_length, device=length.device)
    return positions < length.unsqueeze(1)


def subsequent_mask(length: int, device: torch.device | str | None = None) -> Tensor:
    """Return the causal attention mask `[1, 1, length, length]`: ones for a position itself and earlier ones."""
    return torch.ones(1, 1, length, length, device=device).tril()


def generate_path(duration: Tensor, mask: Tensor) -> Tensor:
    """Convert durations to the monotonic alignment path: one where the frame belongs to the token, otherwise zero.

    Args: duration `[b, 1, t_s]`, integers, in frames; mask `[b, 1, t_t, t_s]`, one where frame and token are valid.
    Returns `[b, 1, t_t, t_s]` in the type of the mask.
    """
    end = duration.squeeze(1).cumsum(-1).unsqueeze(1)  # [b, 1, t_s], first frame after each token
    start = end - duration
    frame = torch.arange(mask.size(2), device=mask.device).view(1, -1, 1)
    path = (frame >= start) & (frame < end)  # [b, t_t, t_s]
    return path.unsqueeze(1).to(mask.dtype) * mask


def tokens_of_frames(durations: Tensor, t_t: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the token of each frame, as `generate_path` does but without a matrix of frames and tokens.

    Args: durations `[b, t_s]`, integers, in frames; t_t: number of frames of the result, at least the largest sum of
    durations. None selects that sum, which requires a host synchronization.

    Returns token indices `[b, t_t]` and the boolean mask `[b, t_t]` of valid frames, at least one for each item.
    """
    ends = durations.cumsum(1).long()  # first frame after each token
    frames = ends[:, -1:].clamp_min(1)
    n_frames: Any = frames.max() if t_t is None else t_t  # stays a tensor for the ONNX exporter, which traces it
    frame = torch.arange(n_frames, device=ends.device).unsqueeze(0)
    # the token of a frame is the number of tokens that end before it; the last column collects ends beyond all frames
    counts = torch.zeros_like(torch.cat([frame, frame[:, -1:]], 1).expand(ends.size(0), -1))
    token = counts.scatter_add(1, ends, torch.ones_like(ends)).cumsum(1)[:, :-1]
    return token.clamp_max(ends.size(1) - 1), frame < frames


def slice_segments(x: Tensor, ids_str: Tensor, segment_size: int = 4) -> Tensor:
    """Cut a segment from each item of x `[b, c, t]`, beginning at the index `ids_str` `[b]`, on the device.

    Returns `[b, c, min(segment_size, t)]`.
    """
    index = ids_str.unsqueeze(1) + torch.arange(min(segment_size, x.size(2)), device=x.device)
    return x.gather(2, index.unsqueeze(1).expand(-1, x.size(1), -1))


def rand_slice_segments(x: Tensor, x_lengths: Tensor | None = None, segment_size: int = 4) -> tuple[Tensor, Tensor]:
    """Cut a random segment from each item of x `[b, c, t]`, within its length `[b]`.

    From an item shorter than the segment, the whole item and the padding after it are cut. Returns segments
    `[b, c, min(segment_size, t)]` and their first indices `[b]`.
    """
    width = min(segment_size, x.size(2))
    if x_lengths is None:
        x_lengths = torch.full((x.size(0),), x.size(2), device=x.device)
    starts = (x_lengths - width + 1).clamp(min=1)
    ids_str = (torch.rand(x.size(0), device=x.device) * starts).long().clamp(max=x.size(2) - width)
    return slice_segments(x, ids_str, segment_size), ids_str


def fused_add_tanh_sigmoid_multiply(input_a: Tensor, input_b: Tensor | float, n_channels: int | Tensor) -> Tensor:
    """Apply WaveNet's gate to `a + b` `[b, 2c, t]`: tanh of the first `n_channels` times sigmoid of the others."""
    both = input_a + input_b
    n = int(n_channels)
    return torch.tanh(both[:, :n]) * torch.sigmoid(both[:, n:])


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float | None, norm_type: float = 2) -> float:
    """Clamp gradients to [-clip_value, clip_value], unless it is None, and return their total norm before that."""
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(grads, norm_type)) if grads else 0.0
    if clip_value is not None:
        for grad in grads:
            grad.clamp_(-clip_value, clip_value)
    return norm


def map_tensors(function: Callable[[Tensor], Tensor], nest: Nest) -> Nest:
    """Apply a function to every tensor in nested tuples, NamedTuples, lists and dicts; other values stay."""
    return tree_map_only(Tensor, function, nest)


def tensors_in(nest: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, NamedTuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(nest) if isinstance(leaf, Tensor)]
