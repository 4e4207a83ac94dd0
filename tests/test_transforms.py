"""The spline: monotonicity, continuity, inverse, log-determinant, and finite gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import piecewise_rational_quadratic_transform as spline

BOUND = 5.0
TAILS = st.sampled_from([None, "linear"])


def knots(bins, tails, scale=1.0, seed=0, shape=()):
    """Return random unnormalised widths, heights and slopes."""
    draws = torch.Generator().manual_seed(seed)
    slopes = bins - 1 if tails else bins + 1
    sizes = (bins, bins, slopes)
    return [scale * torch.randn(*shape, n, generator=draws, dtype=torch.float64) for n in sizes]


def spread(parameters, x):
    return [p.expand(*x.shape, -1) for p in parameters]


@settings(max_examples=40, deadline=None)
@given(
    bins=st.integers(1, 12), seed=st.integers(0, 1000), scale=st.floats(0.1, 4), tails=st.sampled_from([None, "linear"])
)
def test_spline_is_monotonic_onto_its_interval_and_invertible(bins, seed, scale, tails):
    low, high = (-BOUND, BOUND) if tails else (0.0, 1.0)
    settings = {"tails": tails, "tail_bound": BOUND}
    x = torch.linspace(low, high, 301, dtype=torch.float64)
    parameters = spread(knots(bins, tails, scale, seed), x)
    y, logdet = spline(x, *parameters, **settings)
    assert (y.diff() > 0).all()
    assert y[0].item() == pytest.approx(low, abs=1e-9) and y[-1].item() == pytest.approx(high, abs=1e-9)
    back, inverse_logdet = spline(y.clamp(low, high), *parameters, inverse=True, **settings)
    assert torch.allclose(back, x, atol=1e-6)
    assert torch.allclose(inverse_logdet, -logdet, atol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("tails", [None, "linear"])
def test_log_determinant_equals_that_of_autograd(tails, inverse):
    low, high = (-1.2 * BOUND, 1.2 * BOUND) if tails else (0.001, 0.999)
    x = torch.linspace(low, high, 97, dtype=torch.float64, requires_grad=True)
    y, logdet = spline(x, *spread(knots(10, tails), x), inverse=inverse, tails=tails, tail_bound=BOUND)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope.log(), logdet, atol=1e-8)


@pytest.mark.parametrize("inverse", [False, True])
def test_values_and_slopes_are_continuous_at_the_bounds(inverse):
    for bound in (-BOUND, BOUND):
        x = torch.tensor([bound - 1e-9, bound, bound + 1e-9], dtype=torch.float64, requires_grad=True)
        y, logdet = spline(x, *spread(knots(10, True), x), inverse=inverse, tails="linear", tail_bound=BOUND)
        assert torch.allclose(y, x, atol=1e-8)
        assert torch.allclose(logdet, torch.zeros_like(x), atol=1e-6)


def test_spline_is_the_identity_outside_the_bounds():
    x = torch.tensor([-1e30, -5.001, 5.001, 1e30])
    y, logdet = spline(x, *(p.float() for p in spread(knots(10, True), x)), tails="linear", tail_bound=BOUND)
    assert torch.equal(y, x) and torch.equal(logdet, torch.zeros(4))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 300.0])
def test_gradients_are_finite_for_extreme_values(scale, inverse):
    edges = torch.tensor([0.0, 1e-30, 1e-6, 1.0, 4.999999, 5.0, 5.000001, 80.0, 1e8, 1e30])
    x = torch.cat([edges, -edges]).requires_grad_()
    for seed in range(5):
        parameters = [p.float().requires_grad_() for p in knots(10, True, scale, seed, x.shape)]
        y, logdet = spline(x, *parameters, inverse=inverse, tails="linear", tail_bound=BOUND)
        assert y.isfinite().all() and logdet.isfinite().all()
        for gradient in torch.autograd.grad(y.clamp(-10, 10).sum() + logdet.sum(), [x, *parameters]):
            assert gradient.isfinite().all()


def test_half_precision_is_computed_in_fp32():
    x = torch.linspace(-4, 4, 33)
    parameters = [p.bfloat16() for p in spread(knots(10, True), x)]
    y, _ = spline(x.bfloat16(), *parameters, tails="linear", tail_bound=BOUND)
    exact, _ = spline(x.bfloat16().float(), *(p.float() for p in parameters), tails="linear", tail_bound=BOUND)
    assert y.dtype == torch.float32 and torch.equal(y, exact)


def test_impossible_arguments_are_rejected():
    x = torch.tensor([0.5])
    with pytest.raises(ValueError, match="tails is 'circular'; it may be None or 'linear'"):
        spline(x, *knots(4, None, shape=(1,)), tails="circular")
    with pytest.raises(ValueError, match=r"4 bins of at least 0\.5 do not fit"):
        spline(x, *knots(4, None, shape=(1,)), min_bin_width=0.5)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        spline(x + 1, *knots(4, None, shape=(1,)))
