"""Progress: what a log file hears, and how much time is left, by a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cells import LikelihoodCell, RuntimeCell
from harness.cli import progress
from harness.methods import Problem
from harness.results import Row
from harness.training.configuration import TrainingConfig

CELL, SECOND, THIRD, FOURTH = (
    RuntimeCell(
        experiment="some-experiment", profile="custom", methods=("ebflow-dsm",), problem=Problem(shape=(4,)), repeats=1
    )
    for _ in range(4)
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
    with progress.SweepProgress([CELL, SECOND, THIRD]) as sweep:
        advance = sweep.start(CELL, False)
        clock.now += 10
        advance(1, 30, "best validation 13.5")
        clock.now += 30
        advance(3, 30, "best validation 12.5")
        sweep.end(CELL, [make_row()])
        sweep.start(SECOND, True)
        sweep.end(SECOND, [make_row()])
        sweep.start(THIRD, False)
        sweep.end(THIRD, [make_row()])
    assert logged() == [
        f"{NAME}: 3 of 30, best validation 12.5, about 7 min left, 22 min in all",
        NAME,
        f"{NAME}: already there",
        NAME,
    ]


def test_what_has_no_number_is_not_told_of_as_measured(logged: Any, make_row: Callable[..., Row]) -> None:
    gone = make_row(status="unavailable", value=None, reason="no_such_library is not installed")
    wild = make_row(status="diverged", value=None, reason="the loss is not finite at step 3")
    with progress.SweepProgress([CELL, SECOND, THIRD]) as sweep:
        sweep.start(CELL, False)
        sweep.end(CELL, [gone, gone])
        sweep.start(SECOND, False)(1, 2, "")
        sweep.end(SECOND, [wild])
        sweep.start(THIRD, False)
        sweep.end(THIRD, [make_row(), gone])  # one method of several
    assert logged() == [
        f"{NAME}: unavailable: no_such_library is not installed",
        f"{NAME}: diverged: the loss is not finite at step 3",
        NAME,
    ]


def test_a_terminal_is_told_of_failures_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make_row: Callable[..., Row]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # and rich takes it for a terminal
    with progress.SweepProgress([CELL, SECOND]) as sweep:
        sweep.start(CELL, False)(1, 2, "")
        sweep.end(CELL, [make_row()])
        sweep.start(SECOND, False)
        sweep.end(SECOND, [make_row(status="failed", value=None, reason="no kernel")])
    shown = capsys.readouterr().err
    assert shown.count("some-experiment") == 1
    assert f"{NAME}: failed: no kernel" in shown
    assert "2/2" in shown


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str], make_row: Callable[..., Row]) -> None:
    with progress.SweepProgress([CELL], quiet=True) as sweep:
        sweep.start(CELL, False)(1, 2, "")
        sweep.end(CELL, [make_row()])
    assert capsys.readouterr() == ("", "")


def left(sweep: progress.SweepProgress, cell: RuntimeCell | LikelihoodCell) -> tuple[float | None, float | None]:
    return sweep.cell_seconds_left(cell), sweep.sweep_seconds_left()


def test_the_time_left_follows_the_estimates_and_then_the_pace(clock: Clock, make_row: Callable[..., Row]) -> None:
    sweep = progress.SweepProgress([CELL, SECOND, THIRD, FOURTH], [10.0, None, 20.0, 40.0], quiet=True)
    advance = sweep.start(CELL, False)
    assert left(sweep, CELL) == (10.0, 70.0)
    clock.now += 10
    advance(1, 2, "")  # twice as slow as estimated
    assert left(sweep, CELL) == (10.0, 70.0)
    clock.now += 10
    sweep.end(CELL, [make_row()])
    sweep.start(SECOND, True)
    sweep.end(SECOND, [make_row()])
    # The first took 20 seconds instead of 10, and five count for the estimate.
    assert sweep.sweep_seconds_left() == pytest.approx(60 * 25 / 15)
    sweep.start(THIRD, False)
    assert left(sweep, THIRD) == pytest.approx((20 * 25 / 15, 60 * 25 / 15))
    sweep.end(THIRD, [make_row(status="unavailable", value=None, reason="gone")])
    # No time was spent on it, and nothing is learnt.
    assert sweep.sweep_seconds_left() == pytest.approx(40 * 25 / 15)


def test_a_training_that_goes_on_is_as_fast_as_before(clock: Clock) -> None:
    sweep = progress.SweepProgress([CELL], quiet=True)
    advance = sweep.start(CELL, False)
    clock.now += 20  # the rest of its 41st epoch, the others of an earlier run
    advance(41, 100, "")
    clock.now += 30
    advance(42, 100, "")
    assert sweep.cell_seconds_left(CELL) == pytest.approx(58 * 30)


def test_without_estimates_sizes_and_the_first_cell_tell(clock: Clock, make_row: Callable[..., Row]) -> None:
    small, large = (
        RuntimeCell(
            experiment="runtime", profile="custom", methods=("ebflow-dsm",), problem=Problem(shape=(size,)), repeats=1
        )
        for size in (200, 600)
    )
    sweep = progress.SweepProgress([small, large], quiet=True)
    advance = sweep.start(small, False)
    assert left(sweep, small) == (None, None)
    clock.now += 2
    advance(1, 2, "")
    assert left(sweep, small) == (2.0, 2.0 + 16.0)  # four times the products
    clock.now += 2
    sweep.end(small, [make_row()])
    sweep.start(large, False)
    assert left(sweep, large) == (16.0, 16.0)


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
    sweep = progress.SweepProgress([cell], quiet=True)
    advance = sweep.start(cell, False)
    assert sweep.cell_seconds_left(cell) == 60.0
    clock.now += 20
    advance(1, 10_000, "")
    assert sweep.cell_seconds_left(cell) == 40.0
    clock.now += 50  # scoring
    assert sweep.cell_seconds_left(cell) == 0.0


def replayed(clock: Clock, load: float) -> Iterator[tuple[float, float, float]]:
    """Replay cells of the quick profile on a machine that takes so many times as long; yield what was told when.

    The file holds, for each cell, experiment, kind, budget, estimated cost and its part after the last progress, start,
    end, and some of the progress that was told, in seconds of one idle core: a run with gaussian, ebflow-dsm, ebflow-ml
    and nflows-lu-ml.

    Yields:
        The part of the time that has gone by, the seconds that are left in truth, and those that were told.
    """
    names = ("experiment", "kind", "budget", "cost", "closing", "start", "end", "events")
    run = [
        dict(zip(names, cell, strict=True))
        for cell in json.loads((Path(__file__).parent / "quick_run.json").read_text())
    ]
    cells: list[Any] = [SimpleNamespace(title="", closing_cost=lambda own=own: own["closing"], **own) for own in run]
    sweep = progress.SweepProgress(cells, [cell.cost for cell in cells], quiet=True)
    began, whole = clock.now, load * cells[-1].end

    def now() -> tuple[float, float, float]:
        gone, told = clock.now - began, sweep.sweep_seconds_left()
        assert told is not None
        return gone / whole, whole - gone, told

    for cell in cells:
        clock.now = began + load * cell.start
        advance = sweep.start(cell, False)
        yield now()
        for second, done, total in cell.events:
            clock.now = began + load * second
            advance(done, total, "")
            yield now()
        clock.now = began + load * cell.end
        sweep.end(cell, [SimpleNamespace(status="ok", reason=None)])


@pytest.mark.parametrize("load", [0.5, 1.0, 2.0])
def test_from_the_first_tenth_on_the_time_left_is_right_within_a_factor_of_two(clock: Clock, load: float) -> None:
    told = [(left, said, left / (1 - gone)) for gone, left, said in replayed(clock, load) if 0.1 <= gone < 1]
    assert len(told) > 100
    for left, said, whole in told:
        if left > 0.05 * whole:
            assert left / 2 <= said <= 2 * left
        else:  # the last seconds
            assert abs(said - left) < 0.05 * whole


def test_cells_side_by_side_share_the_time_left(clock: Clock, make_row: Callable[..., Row]) -> None:
    sweep = progress.SweepProgress([CELL, SECOND, THIRD], [10.0, 30.0, 20.0], quiet=True)
    sweep.start(CELL, False)
    sweep.start(SECOND, False)
    assert sweep.sweep_seconds_left() == 30.0  # two at a time, 60 seconds of work
    clock.now += 10
    assert left(sweep, SECOND) == (20.0, 20.0)
    sweep.end(CELL, [make_row()])
    assert sweep.sweep_seconds_left() == 40.0  # until the next one starts beside it
    sweep.start(THIRD, False)
    assert sweep.sweep_seconds_left() == 20.0


def test_cells_side_by_side_are_told_of_as_they_end(logged: Any, make_row: Callable[..., Row]) -> None:
    other, there = (
        RuntimeCell(
            experiment="other-experiment",
            profile="custom",
            methods=("ebflow-dsm",),
            problem=Problem(shape=(size,)),
            repeats=1,
        )
        for size in (5, 6)
    )
    with progress.SweepProgress([CELL, other, there]) as sweep:
        sweep.start(there, True)
        sweep.end(there, [make_row()])
        sweep.start(CELL, False)(1, 2, "")
        sweep.start(other, False)(1, 3, "")
        sweep.end(other, [make_row(status="failed", value=None, reason="its process was killed by SIGSEGV")])
        sweep.end(CELL, [make_row()])
    assert logged() == [
        "other-experiment: fc, D = 6, L = 2: already there",
        "other-experiment: fc, D = 5, L = 2: failed: its process was killed by SIGSEGV",
        NAME,
    ]
