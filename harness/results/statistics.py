"""Intervals, paired comparisons, slopes and crossing points; every interval is a 95 % one.

Two methods are called different by one rule. Their numbers are paired (times repetition by repetition of one
interleaved run, likelihoods seed by seed, or draw by draw of the same noise), so that what both share cancels. The
difference counts if the t-interval of the paired ratios leaves out 1, or that of the paired differences leaves out 0,
and if it still does so once the p-values of all comparisons made at once are corrected by Holm's method, which holds
the chance of any false call among them to 5 %. Where the numbers themselves choose the reference, such as the best
method of a table, all pairs count as made, since any of them might have been shown.

The t-intervals are those of `scipy.stats` (a test compares them), computed from `scipy.special`: `harness tables` needs
nothing else of SciPy, and importing `scipy.stats` would cost it half a second.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import scipy  # which imports its parts where they are first used

LEVEL = 0.95

NOISY_DRIFT = 1.25
"""The drift of a machine's reference speed from which on everything that was timed meanwhile is marked as noisy."""

_FEWEST_APART = 5  # repetitions; from fewer, the bootstrap's interval is too short to tell anything apart
_WINDOW = 5  # samples in a rolling median


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; low and high are None where too few values were given for one."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """A ratio or difference of paired numbers, and its p-value, which is None where there are fewer than two pairs."""

    estimate: Estimate
    p: float | None


def median_interval(values: Sequence[float]) -> Estimate:
    """Return the median with a percentile bootstrap interval (2,000 resamples, fixed seed) if there are three values.

    Values of which one is not finite have no interval. That of few values is too short: the interval of three normal
    values holds their median in 75 % of all cases, that of four or more in 87 to 94 %. It shows how much repetitions
    spread; `paired_ratio` decides what is faster.
    """
    median = float(np.median(values))
    if len(values) < 3 or not np.isfinite(values).all():
        return Estimate(median, None, None, len(values))
    if len(set(values)) == 1:
        return Estimate(median, median, median, len(values))
    interval = scipy.stats.bootstrap(
        (np.asarray(values),), np.median, n_resamples=2000, confidence_level=LEVEL, method="percentile", rng=0
    ).confidence_interval
    return Estimate(median, float(interval.low), float(interval.high), len(values))


@np.errstate(all="ignore")  # numbers near the largest there is have an infinite interval, or none that is a number
def mean_interval(values: Sequence[float]) -> Estimate:
    """Return the mean with Student's t-interval, as in the paper's tables, if there are two values."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told by the number itself
        mean = float(np.mean(values))
        if len(values) < 2:
            return Estimate(mean, None, None, len(values))
        half = _quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Estimate(mean, mean - half, mean + half, len(values))


@np.errstate(all="ignore")
def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Return the mean of values minus reference, with its t-interval and the p-value of the paired t-test.

    Args:
        values: The first number of every pair.
        reference: The second number of every pair, in the same order.
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
    """Return the geometric mean of values over reference, with the t-interval and p-value of its logarithm.

    An interrupted repetition makes the interval longer, which is the cautious direction; a slower clock moves both
    numbers of a pair and cancels.

    Args:
        values: The first number of every pair, above zero.
        reference: The second number of every pair, above zero, in the same order.
    """
    logs = paired_difference([math.log(value) for value in values], [math.log(value) for value in reference])
    low, high = (None if end is None else _exp(end) for end in (logs.estimate.low, logs.estimate.high))
    return Comparison(Estimate(_exp(logs.estimate.value), low, high, logs.estimate.n), logs.p)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of comparisons made at once for the chance of any false call among them (Holm 1979).

    A comparison whose p-value is not a number counts as made and as not different.
    """
    p_values = [1.0 if math.isnan(p) else p for p in p_values]
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def apart(one: Estimate, other: Estimate) -> bool:
    """Whether two numbers that are not paired differ: both have five repetitions, and their intervals are apart."""
    if min(one.n, other.n) < _FEWEST_APART or one.low is None or one.high is None:
        return False
    return other.low is not None and other.high is not None and (one.high < other.low or other.high < one.low)


@np.errstate(all="ignore")
def log_slope(sizes: Sequence[float], seconds: Sequence[float]) -> Estimate:
    """Return the least-squares slope of log seconds over log size, with its t-interval if there are three sizes.

    Raises:
        ValueError: if there are fewer than two different sizes.
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
    """Return the t within which 95 % of Student's distribution with these degrees of freedom lie."""
    return float(scipy.special.stdtrit(freedom, 0.5 + LEVEL / 2))


def crossing(faster: Mapping[int, bool]) -> int | None:
    """Return the smallest measured size from which on a method is faster at every larger one, or None.

    Args:
        faster: Whether the method is faster, for every size at which it was compared.
    """
    return min(takewhile(faster.__getitem__, sorted(faster, reverse=True)), default=None)


def drift(samples: Sequence[float]) -> float | None:
    """Return the largest over the smallest rolling median of five samples, or None if there are fewer than ten samples.

    One interrupted sample moves no median; a machine that was slower for a while does.

    Args:
        samples: Values above zero, in the order of time, of a quantity that should be constant.
    """
    if len(samples) < 2 * _WINDOW:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(samples, _WINDOW), axis=1)
    return float(medians.max() / medians.min())
