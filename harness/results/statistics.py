"""Intervals, paired comparisons, slopes and crossing points; every interval is a 95 % one.

Two methods are called different by one rule. Their numbers are paired (times repetition by repetition of one
interleaved run, likelihoods seed by seed, or draw by draw of the same noise), so that what both share cancels; the
t-interval of the paired ratios leaves out 1, or that of the paired differences 0; and it does so still when the
p-values of all comparisons made at once are corrected by Holm's method, which holds the chance of any false call among
them to 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # which imports scipy.stats where that is first used: it takes half a second, and tables need none of it

LEVEL = 0.95

NOISY_DRIFT = 1.25
"""The drift of a machine's reference from which on all that was timed meanwhile is marked as noisy."""

_FEWEST_APART = 5  # of fewer repetitions the bootstrap's interval is too short to tell anything apart by
_WINDOW = 5  # samples whose median counts


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; low and high are None where too few values were given for one."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """A ratio or difference of paired numbers, and the p-value of there being none; None where n is below two."""

    estimate: Estimate
    p: float | None


def median_interval(values: Sequence[float]) -> Estimate:
    """Median with a percentile bootstrap interval (2,000 resamples, fixed seed); needs three values for it.

    Few repetitions make it short: it holds the median of normal values in 75 % of all cases of three of them, in 87 to
    94 % from four on. It shows how much the repetitions spread; what is faster is decided by `paired_ratio`.
    """
    median = float(np.median(values))
    if len(values) < 3:
        return Estimate(median, None, None, len(values))
    if len(set(values)) == 1:
        return Estimate(median, median, median, len(values))
    found = scipy.stats.bootstrap(
        (np.asarray(values),), np.median, n_resamples=2000, confidence_level=LEVEL, method="percentile", rng=0
    ).confidence_interval
    return Estimate(median, float(found.low), float(found.high), len(values))


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean with Student's t-interval, as the paper's tables have it; needs two values for the interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    half = _quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Estimate(mean, mean - half, mean + half, len(values))


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Mean of values minus reference, pair by pair, with its t-interval and the p-value of the paired t-test.

    Args:
        values: One of each pair,
        reference: and the other, in the same order.
    """
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    estimate = mean_interval(differences)
    if estimate.n < 2:
        return Comparison(estimate, None)
    error = float(np.std(differences, ddof=1)) / estimate.n**0.5
    if error == 0:
        return Comparison(estimate, float(estimate.value == 0))
    return Comparison(estimate, 2 * float(scipy.special.stdtr(estimate.n - 1, -abs(estimate.value) / error)))


def paired_ratio(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Geometric mean of values over reference, pair by pair, with the t-interval of its logarithm and its p-value.

    A repetition that was interrupted lengthens the interval, in the cautious direction; a slower clock moves both of a
    pair and cancels.

    Args:
        values: One of each pair, above zero,
        reference: and the other, in the same order.
    """
    found = paired_difference([math.log(value) for value in values], [math.log(value) for value in reference])
    low, high = (None if end is None else math.exp(end) for end in (found.estimate.low, found.estimate.high))
    return Comparison(Estimate(math.exp(found.estimate.value), low, high, found.estimate.n), found.p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of comparisons made at once, for the chance of any false call among them (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def apart(one: Estimate, other: Estimate) -> bool:
    """Whether two numbers that are not paired differ: their intervals do not overlap, from five repetitions each."""
    if min(one.n, other.n) < _FEWEST_APART or None in (one.low, one.high, other.low, other.high):
        return False
    return bool(one.high < other.low or other.high < one.low)


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
    return float(scipy.special.stdtrit(freedom, 0.5 + LEVEL / 2))


def crossing(faster: Mapping[int, bool]) -> int | None:
    """Return the smallest measured size from which on a method is faster at every larger one, or None.

    Args:
        faster: Of every size at which it was compared, whether it is.
    """
    found = None
    for size in sorted(faster, reverse=True):
        if not faster[size]:
            break
        found = size
    return found


def drift(samples: Sequence[float]) -> float | None:
    """Largest over smallest of the rolling medians of five samples, at least 1; None of fewer than ten samples.

    One interrupted sample moves no median; a machine that was slower for a while does.

    Args:
        samples: A quantity that should be constant, in the order of time, above zero.
    """
    if len(samples) < 2 * _WINDOW:
        return None
    medians = [float(np.median(samples[start : start + _WINDOW])) for start in range(len(samples) - _WINDOW + 1)]
    return max(medians) / min(medians)
