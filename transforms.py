"""Piecewise rational-quadratic splines (Durkan et al. 2019, "Neural Spline Flows", arXiv 1906.04032).

With linear tails, the spline is evaluated for every element and replaced by the identity outside the interval. Shapes
therefore do not depend on the data, and there is no host synchronization.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from commons import at_least_fp32


def piecewise_rational_quadratic_transform(
    inputs: Tensor,
    unnormalized_widths: Tensor,
    unnormalized_heights: Tensor,
    unnormalized_derivatives: Tensor,
    inverse: bool = False,
    tails: str | None = None,
    tail_bound: float = 1.0,
    min_bin_width: float = 1e-3,
    min_bin_height: float = 1e-3,
    min_derivative: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Apply a monotonic spline of `k` bins to every element. The computation is in fp32 or, for float64, in float64.

    Args:
        inputs: `[...]`.
        unnormalized_widths, unnormalized_heights: logits of the sizes of the bins, `[..., k]`.
        unnormalized_derivatives: slopes at the knots before softplus, `[..., k - 1]` with tails, else `[..., k + 1]`.
        inverse: apply the inverse of the spline.
        tails: with "linear", the spline maps [-tail_bound, tail_bound] onto itself and is the identity elsewhere; with
            None, it maps [0, 1] onto itself.
        min_bin_width, min_bin_height, min_derivative: minimum sizes of a bin, as fractions of the interval, and slope.

    Returns outputs and the logarithm of the absolute derivative, both `[...]`. Raises ValueError for unknown `tails`,
    for more bins than the minimum size allows and, without tails, for inputs outside [0, 1].
    """
    if tails not in (None, "linear"):
        raise ValueError(f"tails is {tails!r}; it may be None or 'linear'")
    k = unnormalized_widths.shape[-1]
    if max(min_bin_width, min_bin_height) * k > 1.0:
        raise ValueError(f"{k} bins of at least {max(min_bin_width, min_bin_height)} do not fit into an interval of 1")

    inputs = x = at_least_fp32(inputs)
    slopes = at_least_fp32(unnormalized_derivatives)
    low, high = (-tail_bound, tail_bound) if tails else (0.0, 1.0)
    if tails:
        # min_derivative + softplus(this constant) = 1, the slope of the tails
        slopes = F.pad(slopes, (1, 1), value=math.log(math.expm1(1 - min_derivative)))
        inside = (x >= low) & (x <= high)
        x = torch.where(inside, x, torch.zeros_like(x))
    elif x.numel() and (x.min() < low or x.max() > high):
        raise ValueError("inputs lie outside [0, 1]; a spline without tails is defined on [0, 1] only")

    widths, x_knots = _knots(at_least_fp32(unnormalized_widths), min_bin_width, low, high)
    heights, y_knots = _knots(at_least_fp32(unnormalized_heights), min_bin_height, low, high)
    slopes = min_derivative + F.softplus(slopes)
    bin_index = (x.unsqueeze(-1) >= (y_knots if inverse else x_knots)[..., 1:-1]).sum(-1, keepdim=True)
    tables = (x_knots, widths, y_knots, heights, slopes, slopes[..., 1:])
    outputs, logabsdet = _in_bin(inverse, x, *(table.gather(-1, bin_index).squeeze(-1) for table in tables))
    if tails:
        outputs = torch.where(inside, outputs, inputs)
        logabsdet = torch.where(inside, logabsdet, torch.zeros_like(logabsdet))
    return outputs, logabsdet


def _in_bin(
    inverse: bool, x: Tensor, x_k: Tensor, w: Tensor, y_k: Tensor, h: Tensor, d_k: Tensor, d_next: Tensor
) -> tuple[Tensor, Tensor]:
    """Evaluate the spline in bins of width w and height h from (x_k, y_k), with slopes d_k and d_next; all `[...]`."""
    s = h / w  # slope of the chord
    curvature = d_k + d_next - 2 * s
    if inverse:
        # Durkan et al., equations 6 to 8: the root in [0, 1] of a theta^2 + b theta + c
        rise = x - y_k
        a = rise * curvature + h * (s - d_k)
        b = h * d_k - rise * curvature
        c = -s * rise
        discriminant = (b.square() - 4 * a * c).clamp(min=0)
        theta = (2 * c / (-b - discriminant.sqrt())).clamp(0, 1)
        outputs = theta * w + x_k
    else:
        theta = (x - x_k) / w
        outputs = y_k + h * (s * theta.square() + d_k * theta * (1 - theta)) / (s + curvature * theta * (1 - theta))
    mixed = theta * (1 - theta)
    derivative = s.square() * (d_next * theta.square() + 2 * s * mixed + d_k * (1 - theta).square())
    logabsdet = derivative.log() - 2 * (s + curvature * mixed).log()
    return outputs, -logabsdet if inverse else logabsdet


def _knots(unnormalized: Tensor, minimum: float, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the bin sizes `[..., k]`, which sum to `high - low`, and the knots `[..., k + 1]`."""
    sizes = minimum + (1 - minimum * unnormalized.shape[-1]) * unnormalized.softmax(-1)
    inner = (high - low) * sizes.cumsum(-1)[..., :-1] + low
    knots = F.pad(F.pad(inner, (1, 0), value=low), (0, 1), value=high)
    return knots[..., 1:] - knots[..., :-1], knots
