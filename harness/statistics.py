"""Intervals, slopes and crossing points; every interval is a 95 % one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # which imports scipy.stats where that is first used: it takes half a second, and tables need none of it

__all__ = ["Estimate", "crossing", "log_slope", "mean_interval", "median_interval"]

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; low and high are None where too few values were given for one."""

    value: float
    low: float | None
    high: float | None
    n: int


def median_interval(values: Sequence[float]) -> Estimate:
    """Median with a percentile bootstrap interval (2,000 resamples, fixed seed); needs three values for it."""
    median = float(np.median(values))
    if len(values) < 3:
        return Estimate(median, None, None, len(values))
    if len(set(values)) == 1:
        return Estimate(median, median, median, len(values))
    found = scipy.stats.bootstrap(
        (np.asarray(values),), np.median, n_resamples=2000, confidence_level=_LEVEL, method="percentile", rng=0
    ).confidence_interval
    return Estimate(median, float(found.low), float(found.high), len(values))


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean with Student's t-interval, as the paper's tables have it; needs two values for the interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    half = _quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Estimate(mean, mean - half, mean + half, len(values))


def log_slope(sizes: Sequence[float], seconds: Sequence[float]) -> Estimate:
    """Slope of log seconds over log size by least squares, with its t-interval; needs three sizes for the interval.

    Raises:
        ValueError: Fewer than two different sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError("a slope needs at least two different sizes")
    x, y = np.log(sizes), np.log(seconds)
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    if len(sizes) < 3:
        return Estimate(slope, None, None, len(sizes))
    rest = y - slope * x
    half = _quantile(len(sizes) - 2) * float(np.sqrt(rest @ rest / (len(sizes) - 2) / (x @ x)))
    return Estimate(slope, slope - half, slope + half, len(sizes))


def _quantile(freedom: int) -> float:
    """Return Student's t that 95 % of its distribution lie within."""
    return float(scipy.special.stdtrit(freedom, 0.5 + _LEVEL / 2))


def crossing(candidate: Mapping[int, float], rival: Mapping[int, float]) -> float | None:
    """Return the smallest measured size from which on the candidate is faster at every larger common size, or None."""
    common = sorted(candidate.keys() & rival.keys())
    found: float | None = None
    for size in reversed(common):
        if not candidate[size] < rival[size]:  # a NaN is never faster
            break
        found = size
    return found
