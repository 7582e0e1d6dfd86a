"""Intervals, slopes and crossings against closed forms, and against how often an interval covers the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.statistics import Estimate, crossing, log_slope, mean_interval, median_interval

SIZES = [16, 64, 256, 1024]


@pytest.mark.parametrize("power", [-1.0, 0.5, 1.5, 3.0])
def test_slope_of_an_exact_power_law(power: float) -> None:
    slope = log_slope(SIZES, [2e-7 * size**power for size in SIZES])
    assert slope.value == pytest.approx(power, abs=1e-12)
    assert slope.low == pytest.approx(power, abs=1e-6)
    assert slope.high == pytest.approx(power, abs=1e-6)
    assert slope.n == 4


def test_slope_interval_is_student_s() -> None:
    # By hand for x = log 1, log e, log e^2 and y = 0, 1, 3: slope 3/2, residuals 1/6, -1/3, 1/6, so their mean square
    # is 1/6 and the standard error sqrt(1/12); t has one degree of freedom, 12.7062.
    slope = log_slope([1.0, math.e, math.e**2], [1.0, math.e, math.e**3])
    assert slope.value == pytest.approx(1.5)
    assert slope.low == pytest.approx(1.5 - 12.7062 * math.sqrt(1 / 12), abs=1e-4)
    assert slope.high == pytest.approx(1.5 + 12.7062 * math.sqrt(1 / 12), abs=1e-4)


def test_two_sizes_have_a_slope_and_no_interval() -> None:
    assert log_slope([10, 100], [1.0, 100.0]) == Estimate(pytest.approx(2.0), None, None, 2)


def test_one_size_has_no_slope() -> None:
    with pytest.raises(ValueError, match="at least two different sizes"):
        log_slope([16, 16], [1.0, 2.0])


def test_mean_interval_by_hand() -> None:
    # Mean 3, standard deviation 1, so 3 +- t(0.975, 2) / sqrt(3) with t = 4.30265.
    found = mean_interval([2.0, 3.0, 4.0])
    assert found.value == 3.0
    assert found.low == pytest.approx(3 - 4.30265 / math.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(3 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert found.n == 3
    assert mean_interval([5.0]) == Estimate(5.0, None, None, 1)


def test_median_interval() -> None:
    found = median_interval([3.0, 1.0, 2.0, 100.0])
    assert found.value == 2.5
    assert found.n == 4
    assert 1.0 <= found.low <= 2.5 <= found.high <= 100.0
    # The resampling is seeded: the same numbers, the same interval.
    assert median_interval([3.0, 1.0, 2.0, 100.0]) == found
    assert median_interval([1.0, 2.0]) == Estimate(1.5, None, None, 2)
    assert median_interval([2.0] * 5) == Estimate(2.0, 2.0, 2.0, 5)


@pytest.mark.parametrize(("interval", "trials"), [(mean_interval, 400), (median_interval, 100)])
def test_intervals_cover_the_truth_as_often_as_they_say(interval: object, trials: int) -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(trials):
        found = interval(generator.normal(7.0, 2.0, 25).tolist())
        hits += found.low <= 7.0 <= found.high
    # 95 % with three standard errors to either side.
    assert abs(hits / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials)


@pytest.mark.parametrize(
    ("candidate", "rival", "expected"),
    [
        ({16: 2.0, 64: 2.0, 256: 2.0}, {16: 1.0, 64: 3.0, 256: 9.0}, 64),
        ({16: 1.0, 64: 1.0}, {16: 2.0, 64: 2.0}, 16),
        ({16: 2.0, 64: 2.0}, {16: 1.0, 64: 1.0}, None),
        # Faster at 64, but not from there on.
        ({16: 2.0, 64: 2.0, 256: 9.0}, {16: 1.0, 64: 3.0, 256: 5.0}, None),
        ({16: 1.0, 64: 9.0, 256: 1.0}, {16: 2.0, 64: 3.0, 256: 5.0}, 256),
        # A tie is not faster.
        ({16: 1.0}, {16: 1.0}, None),
        # Only sizes that both were measured at count.
        ({16: 1.0, 64: 1.0, 1024: 9.0}, {64: 3.0, 256: 0.1}, 64),
        ({16: 1.0}, {64: 3.0}, None),
        ({16: float("nan"), 64: 1.0}, {16: 2.0, 64: 3.0}, 64),
        ({16: 1.0, 64: 1.0}, {16: float("nan"), 64: 3.0}, 64),
        ({}, {}, None),
    ],
)
def test_crossing(candidate: dict[int, float], rival: dict[int, float], expected: int | None) -> None:
    assert crossing(candidate, rival) == expected
