"""Intervals, slopes and crossing points; every interval is a 95 % one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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
    found = stats.bootstrap(
        (np.asarray(values),), np.median, n_resamples=2000, confidence_level=_LEVEL, method="percentile", rng=0
    ).confidence_interval
    return Estimate(median, float(found.low), float(found.high), len(values))


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean with Student's t-interval, as the paper's tables have it; needs two values for the interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, len(values) - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half, len(values))


def log_slope(sizes: Sequence[float], seconds: Sequence[float]) -> Estimate:
    """Slope of log seconds over log size by least squares, with its t-interval; needs three sizes for the interval.

    Raises:
        ValueError: Fewer than two different sizes.
    """
    if len(set(sizes)) < 2:
        raise ValueError("a slope needs at least two different sizes")
    fit = stats.linregress(np.log(sizes), np.log(seconds))
    if len(sizes) < 3:
        return Estimate(float(fit.slope), None, None, len(sizes))
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, len(sizes) - 2) * fit.stderr)
    return Estimate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, len(sizes))


def crossing(candidate: Mapping[int, float], rival: Mapping[int, float]) -> float | None:
    """Return the smallest measured size from which on the candidate is faster at every larger common size, or None."""
    common = sorted(candidate.keys() & rival.keys())
    found: float | None = None
    for size in reversed(common):
        if not candidate[size] < rival[size]:  # a NaN is never faster
            break
        found = size
    return found
