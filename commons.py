"""Small functions the whole network shares: masks, paths, segments, initialisation."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def init_weights(module: nn.Module, mean: float = 0.0, std: float = 0.01) -> None:
    """Draw a convolution's weight from N(mean, std); for `Module.apply`, before weight norm is put on."""
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
        module.weight.data.normal_(mean, std)


def get_padding(kernel_size: int, dilation: int = 1) -> int:
    """Zeros on either side that let an odd kernel keep the length."""
    return (kernel_size * dilation - dilation) // 2


def rounded_up(n: int, multiple: int) -> int:
    """The least multiple that is no less than `n`: lengths that are padded so take few values."""
    return -(-n // multiple) * multiple


def at_least_fp32(x: Tensor) -> Tensor:
    """The tensor in fp32 if it came in half precision: densities and splines are not computed in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A place where autocast leaves the precision of tensors on `x`'s device as it is."""
    # a context that changes nothing would still be in the way of an export
    kind = x.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if enabled else nullcontext()


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """`x` `[b, c, t]` where the mask `[b, 1, t]` is one, and zero elsewhere, in the type of `x`."""
    return x * mask.to(x.dtype)


def intersperse(lst: list, item) -> list:
    """`[a, b]` becomes `[item, a, item, b, item]`: blanks between symbols, as VITS trains with `add_blank`."""
    result = [item] * (len(lst) * 2 + 1)
    result[1::2] = lst
    return result


def sequence_mask(length: Tensor, max_length: int | None = None) -> Tensor:
    """Lengths `[b]` to a boolean mask `[b, max_length]`, true on the first `length` places.

    Leaving `max_length` out reads the longest length back from the device.
    """
    if max_length is None:
        max_length = int(length.max())
    places = torch.arange(max_length, device=length.device)
    return places.unsqueeze(0) < length.unsqueeze(1)


def subsequent_mask(length: int, device: torch.device | str | None = None) -> Tensor:
    """Causal attention mask `[1, 1, length, length]`: a place sees itself and what came before."""
    return torch.ones(1, 1, length, length, device=device).tril()


def generate_path(duration: Tensor, mask: Tensor) -> Tensor:
    """The monotonic path that spends `duration` frames on each token.

    Args:
        duration: `[b, 1, t_s]`, whole frames.
        mask: `[b, 1, t_t, t_s]`, one where frame and token are valid.

    Returns:
        `[b, 1, t_t, t_s]` in the mask's type: one where the token speaks in that frame.
    """
    end = duration.squeeze(1).cumsum(-1).unsqueeze(1)  # [b, 1, t_s], first frame after each token
    start = end - duration
    frame = torch.arange(mask.size(2), device=mask.device).view(1, -1, 1)
    path = (frame >= start) & (frame < end)  # [b, t_t, t_s]
    return path.unsqueeze(1).to(mask.dtype) * mask


def tokens_of_frames(durations: Tensor, t_t: int | None = None) -> tuple[Tensor, Tensor]:
    """Which token speaks in each frame, counted from whole durations `[b, t_s]` without a matrix of both.

    Returns:
        Indices of tokens `[b, t_t]` and which frames are spoken, boolean `[b, t_t]`; at least one is. Leaving `t_t`
        out reads the longest sum of durations back from the device; no less may be given.
    """
    ends = durations.cumsum(1).long()  # first frame after each token
    frames = ends[:, -1:].clamp_min(1)
    frame = torch.arange(frames.max() if t_t is None else t_t, device=ends.device).unsqueeze(0)
    # the token of a frame is the number of tokens that have ended by then; the last column is no frame
    counts = torch.zeros_like(torch.cat([frame, frame[:, -1:]], 1).expand(ends.size(0), -1))
    token = counts.scatter_add(1, ends, torch.ones_like(ends)).cumsum(1)[:, :-1]
    return token.clamp_max(ends.size(1) - 1), frame < frames


def slice_segments(x: Tensor, ids_str: Tensor, segment_size: int = 4) -> Tensor:
    """Cut from each item of `x` `[b, c, t]` the `segment_size` places that begin at `ids_str` `[b]`.

    Returns:
        `[b, c, min(segment_size, t)]`. Gathered on the device, without a look at the values.
    """
    width = min(segment_size, x.size(2))
    index = ids_str.unsqueeze(1) + torch.arange(width, device=x.device)
    return x.gather(2, index.unsqueeze(1).expand(-1, x.size(1), -1))


def rand_slice_segments(x: Tensor, x_lengths: Tensor | None = None, segment_size: int = 4) -> tuple[Tensor, Tensor]:
    """Cut a random segment from each item of `x` `[b, c, t]`, inside its length `[b]` where that is long enough.

    An item shorter than the segment gives its whole length and the padding after it.

    Returns:
        Segments `[b, c, min(segment_size, t)]` and their starts `[b]`.
    """
    width = min(segment_size, x.size(2))
    if x_lengths is None:
        x_lengths = torch.full((x.size(0),), x.size(2), device=x.device)
    starts = (x_lengths - width + 1).clamp(min=1)
    draw = torch.rand(x.size(0), device=x.device)
    ids_str = (draw * starts).long().clamp(max=x.size(2) - width)
    return slice_segments(x, ids_str, segment_size), ids_str


def fused_add_tanh_sigmoid_multiply(input_a: Tensor, input_b: Tensor | float, n_channels: int | Tensor) -> Tensor:
    """WaveNet's gate: `tanh` of the first `n_channels` of `a + b` `[b, 2c, t]`, times `sigmoid` of the rest."""
    both = input_a + input_b
    n = int(n_channels)
    return torch.tanh(both[:, :n]) * torch.sigmoid(both[:, n:])


def clip_grad_value_(parameters, clip_value: float | None, norm_type: float = 2) -> float:
    """Clamp every gradient to ±`clip_value` (None: leave them) and return their total norm as it was before."""
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(grads, norm_type)) if grads else 0.0
    if clip_value is not None:
        for grad in grads:
            grad.clamp_(-clip_value, clip_value)
    return norm
