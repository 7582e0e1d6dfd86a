"""Intervals, comparisons and slopes against closed forms, and against how often they hold the truth."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.results.statistics import (
    LEVEL,
    Comparison,
    Estimate,
    apart,
    crossing,
    drift,
    holm,
    log_slope,
    mean_interval,
    median_interval,
    paired_difference,
    paired_ratio,
)

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
    assert median_interval([1.0, 2.0, math.inf]) == Estimate(2.0, None, None, 3)
    unknown = median_interval([1.0, math.nan, 2.0])
    assert math.isnan(unknown.value)
    assert (unknown.low, unknown.high) == (None, None)
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


def test_paired_ratio_by_hand() -> None:
    # Logarithms of the ratios 1, 2 and 4 in units of log 2: mean 1, standard deviation 1; t(0.975, 2) = 4.30265.
    found = paired_ratio([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    half = 4.30265 / math.sqrt(3)
    assert found.estimate.value == pytest.approx(2.0)
    assert found.estimate.low == pytest.approx(2 ** (1 - half), abs=1e-4)
    assert found.estimate.high == pytest.approx(2 ** (1 + half), abs=1e-4)
    assert found.estimate.n == 3
    # Of t = sqrt(3) with two degrees of freedom both tails hold 1 - sqrt(3 / 5).
    assert found.p == pytest.approx(1 - math.sqrt(3 / 5))
    assert paired_ratio([3.0], [2.0]) == Comparison(Estimate(pytest.approx(1.5), None, None, 1), None)


@given(
    pairs=st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=3, max_size=30),
    sizes=st.lists(st.integers(2, 10_000), min_size=3, max_size=8, unique=True),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_intervals_and_p_values_are_those_of_scipy(pairs: list[tuple[float, float]], sizes: list[int]) -> None:
    values, reference = (np.array(side) for side in zip(*pairs, strict=True))
    differences = values - reference
    assume(np.ptp(differences) > 1e-3)
    ours = paired_difference(values.tolist(), reference.tolist())
    theirs = scipy.stats.ttest_rel(values, reference)
    interval = theirs.confidence_interval(LEVEL)
    close = partial(pytest.approx, rel=1e-12, abs=1e-12)
    assert ours.p == close(theirs.pvalue)
    assert (ours.estimate.low, ours.estimate.high) == close((interval.low, interval.high))
    mean = mean_interval(differences.tolist())
    error = scipy.stats.sem(differences)
    assert (mean.low, mean.high) == close(scipy.stats.t.interval(LEVEL, len(pairs) - 1, differences.mean(), error))
    seconds = np.resize(values, len(sizes))
    assume(np.ptp(seconds) > 1e-3)
    slope = log_slope(sizes, seconds.tolist())
    line = scipy.stats.linregress(np.log(sizes), np.log(seconds))
    half = line.stderr * scipy.stats.t.ppf((1 + LEVEL) / 2, len(sizes) - 2)
    # Close sizes make a steep line, whose last digits depend on the order of the sums.
    scale = 1 + abs(line.slope) + half
    assert slope.value / scale == pytest.approx(line.slope / scale, abs=1e-9)
    assert slope.low / scale == pytest.approx((line.slope - half) / scale, abs=1e-7)
    assert slope.high / scale == pytest.approx((line.slope + half) / scale, abs=1e-7)


def test_numbers_near_the_largest_end_in_no_error() -> None:
    assert paired_ratio([1e200, 1e200], [1e-200, 1e-200]).estimate.value == math.inf
    far = mean_interval([1e308, -1e308])
    assert (far.value, far.low, far.high) == (0.0, -math.inf, math.inf)
    assert paired_difference([1e308, 1e308], [-1e308, -1e308]).estimate.value == math.inf


def test_what_a_pair_shares_cancels() -> None:
    drifting = [1.0, 3.0, 0.5, 9.0, 2.0]
    slower = [1.1 * value for value in drifting]
    ratio = paired_ratio(slower, drifting)
    assert ratio.estimate.low == pytest.approx(1.1)
    assert ratio.p < 1e-9
    # Seen apart they are the same.
    assert not apart(median_interval(slower), median_interval(drifting))
    assert paired_difference([5.0, 6.0, 8.0], [5.0, 6.0, 8.0]).p == 1


def test_a_paired_interval_leaves_out_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    trials = 2000
    for n in (3, 5, 15):
        called = covered = 0
        for _ in range(trials):
            common, own, other = np.exp(generator.normal(0, [[1.0], [0.1], [0.1]], (3, n)))
            found = paired_ratio((common * own).tolist(), (common * other).tolist())
            called += found.p < 0.05
            covered += found.estimate.low <= 1 <= found.estimate.high
        # The interval and the p-value are one rule.
        assert called == trials - covered
        assert abs(called / trials - 0.05) < 3 * math.sqrt(0.05 * 0.95 / trials)


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    # One that is not a number leaves the others in their order, and counts as made.
    assert holm([math.nan, 0.04, 0.01]) == pytest.approx([1.0, 0.08, 0.03])
    assert holm([0.04, math.nan, 0.01]) == pytest.approx([0.08, 1.0, 0.03])
    assert holm([]) == []


def test_holm_calls_none_of_ten_equal_methods_different_in_nineteen_tables_of_twenty() -> None:
    generator = np.random.default_rng(0)
    trials = 500
    false = alone = 0
    for _ in range(trials):
        noise = np.exp(generator.normal(0, 0.1, (11, 15)))
        p_values = [paired_ratio(times.tolist(), noise[0].tolist()).p for times in noise[1:]]
        false += min(holm(p_values)) < 0.05
        alone += min(p_values) < 0.05
    assert false / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert alone / trials > 0.2  # why there is a correction


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Estimate(1.0, 0.9, 1.1, 5), Estimate(2.0, 1.9, 2.1, 5), True),
        (Estimate(2.0, 1.9, 2.1, 5), Estimate(1.0, 0.9, 1.1, 5), True),
        (Estimate(1.0, 0.9, 1.5, 5), Estimate(2.0, 1.4, 2.1, 5), False),
        # Too few to say.
        (Estimate(1.0, 0.9, 1.1, 4), Estimate(2.0, 1.9, 2.1, 5), False),
        (Estimate(1.0, None, None, 9), Estimate(2.0, 1.9, 2.1, 9), False),
    ],
)
def test_unpaired_numbers_differ_where_their_intervals_do_not_overlap(
    one: Estimate, other: Estimate, expected: bool
) -> None:
    assert apart(one, other) == expected


def test_drift_is_of_the_machine_and_not_of_single_samples() -> None:
    assert drift([2.0] * 9) is None
    assert drift([2.0] * 10) == 1
    assert drift([2.0] * 10 + [50.0] + [2.0] * 4 + [0.01] + [2.0] * 10) == 1
    assert drift([2.0] * 10 + [3.0] * 10) == 1.5
    assert drift([3.0] * 10 + [2.0] * 10) == 1.5


@pytest.mark.parametrize(
    ("faster", "expected"),
    [
        ({16: False, 64: True, 256: True}, 64),
        ({16: True, 64: True}, 16),
        ({16: False, 64: False}, None),
        # Faster at 64, but not from there on.
        ({16: False, 64: True, 256: False}, None),
        ({256: True, 16: True, 64: False}, 256),
        ({}, None),
    ],
)
def test_crossing(faster: dict[int, bool], expected: int | None) -> None:
    assert crossing(faster) == expected
