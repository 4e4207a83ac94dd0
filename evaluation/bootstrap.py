"""Estimates with bootstrap intervals, for quantities that are functions of sums over sentences."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ROUNDS, SEED = 2000, 1
COVERAGE = 95  # percent
OfSums = Callable[[np.ndarray], np.ndarray]  # from sums [..., k] to values [...]


class Value(NamedTuple):
    """An estimate and its interval."""

    value: float
    low: float
    high: float


def estimate(rows: np.ndarray, of_sums: OfSums) -> Value:
    """Return a quantity of all sentences, with a percentile bootstrap interval of 95 % (Efron, 1979).

    The ends of the interval are NaN for fewer than two sentences.

    Args:
        rows: terms of each sentence `[sentences, k]`; each bootstrap sample draws sentences with replacement. Rows of
            NaN, of sentences without terms, are left out.
        of_sums: the quantity, from the sums of the terms over sentences.
    """
    rows = np.asarray(rows, np.float64)
    rows = rows[~np.isnan(rows).all(1)]
    n = len(rows)
    counts = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), ROUNDS)
    with np.errstate(divide="ignore", invalid="ignore"):  # a sample may have no valid term, such as no voiced frame
        value, samples = of_sums(rows.sum(0)), of_sums(counts @ rows)
    tail = (100 - COVERAGE) / 2
    known = n > 1 and np.isfinite(samples).any()
    low, high = np.nanpercentile(samples, [tail, 100 - tail]) if known else (np.nan, np.nan)
    return Value(float(value), float(low), float(high))


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return the first sum divided by the second: a mean, if the second counts."""
    return sums[..., 0] / sums[..., 1]


def root_of_ratio(sums: np.ndarray) -> np.ndarray:
    """Return the square root of `ratio`: the root mean square of squares and their count."""
    return np.sqrt(ratio(sums))


def ratio_of_ratios(sums: np.ndarray) -> np.ndarray:
    """Return (first / second) / (third / fourth)."""
    return ratio(sums) / ratio(sums[..., 2:])


def ratio_of_stds(sums: np.ndarray) -> np.ndarray:
    """Return the standard deviation of x divided by that of y, from the sums of n, x, x^2, y, y^2."""
    n, x, xx, y, yy = np.moveaxis(sums, -1, 0)
    return np.sqrt((xx / n - (x / n) ** 2) / (yy / n - (y / n) ** 2))
