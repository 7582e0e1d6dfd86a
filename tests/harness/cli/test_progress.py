"""Progress: what a log file hears, and how much time is left, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.cells import LikelihoodCell, RuntimeCell
from harness.cli import progress
from harness.methods import Problem
from harness.results import Row
from harness.training.configuration import TrainingConfig

CELL = RuntimeCell(
    experiment="some-experiment", profile="custom", methods=("ebflow-dsm",), problem=Problem(shape=(4,)), repeats=1
)
NAME = "some-experiment: fc, D = 4, L = 2"


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What a log has been told, the bars' last state aside."""

    def logged() -> list[str]:
        printed = capsys.readouterr()
        assert printed.out == ""
        return [line.rstrip() for line in printed.err.splitlines() if "━" not in line]

    return logged


def test_a_log_hears_of_every_cell_and_of_a_long_one_now_and_then(clock: Clock, logged: Any, make_row: Any) -> None:
    with progress.Bars([CELL, CELL, CELL]) as bars:
        advance = bars.start(CELL, False)
        clock.now += 10
        advance(1, 30, "best validation 13.5")
        clock.now += 30
        advance(3, 30, "best validation 12.5")
        bars.end(CELL, [make_row()])
        bars.start(CELL, True)
        bars.end(CELL, [make_row()])
        bars.start(CELL, False)
        bars.end(CELL, [make_row()])
    assert logged() == [
        NAME,
        "  3 of 30, best validation 12.5, about 7 min left, 22 min in all",
        f"{NAME}: already there",
        NAME,
    ]


def test_what_has_no_number_is_not_told_of_as_measured(logged: Any, make_row: Callable[..., Row]) -> None:
    gone = make_row(status="unavailable", value=None, reason="no_such_library is not installed")
    wild = make_row(status="diverged", value=None, reason="the loss is not finite at step 3")
    with progress.Bars([CELL, CELL, CELL]) as bars:
        bars.start(CELL, False)
        bars.end(CELL, [gone, gone])
        bars.start(CELL, False)(1, 2, "")
        bars.end(CELL, [wild])
        bars.start(CELL, False)
        bars.end(CELL, [make_row(), gone])  # one method of several
    assert logged() == [
        f"{NAME}: unavailable: no_such_library is not installed",
        NAME,
        f"{NAME}: diverged: the loss is not finite at step 3",
        NAME,
    ]


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str], make_row: Callable[..., Row]) -> None:
    with progress.Bars([CELL], quiet=True) as bars:
        bars.start(CELL, False)(1, 2, "")
        bars.end(CELL, [make_row()])
    assert capsys.readouterr() == ("", "")


def test_the_time_left_follows_the_estimates_and_then_the_pace(clock: Clock, make_row: Callable[..., Row]) -> None:
    bars = progress.Bars([CELL] * 4, [10.0, None, 20.0, 40.0], quiet=True)
    advance = bars.start(CELL, False)
    assert bars.seconds_left() == (10.0, 70.0)
    clock.now += 10
    advance(1, 2, "")  # twice as slow as estimated
    assert bars.seconds_left() == (10.0, 70.0)
    clock.now += 10
    bars.end(CELL, [make_row()])
    bars.start(CELL, True)
    bars.end(CELL, [make_row()])
    assert bars.seconds_left()[1] == 120.0  # the pace of the first
    bars.start(CELL, False)
    assert bars.seconds_left() == (40.0, 120.0)
    bars.end(CELL, [make_row(status="unavailable", value=None, reason="gone")])
    assert bars.seconds_left()[1] == 80.0  # no time was spent on it, and nothing is learnt


def test_a_training_that_goes_on_is_as_fast_as_before(clock: Clock) -> None:
    bars = progress.Bars([CELL], quiet=True)
    advance = bars.start(CELL, False)
    clock.now += 20  # the rest of its 41st epoch, the others of an earlier run
    advance(41, 100, "")
    clock.now += 30
    advance(42, 100, "")
    assert bars.seconds_left()[0] == pytest.approx(58 * 30)


def test_without_estimates_sizes_and_the_first_cell_tell(clock: Clock, make_row: Callable[..., Row]) -> None:
    small, large = (
        RuntimeCell(
            experiment="runtime", profile="custom", methods=("ebflow-dsm",), problem=Problem(shape=(size,)), repeats=1
        )
        for size in (200, 600)
    )
    bars = progress.Bars([small, large], quiet=True)
    advance = bars.start(small, False)
    assert bars.seconds_left() == (None, None)
    clock.now += 2
    advance(1, 2, "")
    assert bars.seconds_left() == (2.0, 2.0 + 16.0)  # four times the products
    clock.now += 2
    bars.end(CELL, [make_row()])
    bars.start(large, False)
    assert bars.seconds_left() == (16.0, 16.0)


def test_a_budget_bounds_the_time_left(clock: Clock) -> None:
    config = TrainingConfig(epochs=10_000, max_seconds=60)
    cell = LikelihoodCell(
        experiment="train",
        profile="custom",
        method="ebflow-dsm",
        problem=Problem(shape=(1, 8, 8)),
        dataset="digits",
        config=config,
        draws=1,
    )
    bars = progress.Bars([cell], quiet=True)
    advance = bars.start(cell, False)
    assert bars.seconds_left()[0] == 60.0
    clock.now += 20
    advance(1, 10_000, "")
    assert bars.seconds_left()[0] == 40.0
    clock.now += 50  # scoring
    assert bars.seconds_left()[0] == 0.0


def test_cells_side_by_side_are_told_of_as_they_end(logged: Any, make_row: Callable[..., Row]) -> None:
    other = RuntimeCell(
        experiment="other-experiment", profile="custom", methods=("ebflow-dsm",), problem=Problem(shape=(5,)), repeats=1
    )
    with progress.BarsOfMany(2) as bars:
        bars.start(CELL, False)(1, 2, "")
        bars.start(other, False)(1, 3, "")
        bars.end(other, [make_row(status="failed", value=None, reason="its process was killed by SIGSEGV")])
        bars.end(CELL, [make_row()])
    assert logged() == ["other-experiment: fc, D = 5, L = 2: failed: its process was killed by SIGSEGV", NAME]
