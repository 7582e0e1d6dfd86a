"""Progress in a log file: a line a cell, and one now and then while it runs."""

from __future__ import annotations

import pytest

from harness import progress
from harness.cells import RuntimeCell
from harness.problem import Problem

CELL = RuntimeCell("some-experiment", "custom", ("ebflow-dsm",), Problem(shape=(4,)), repeats=1)


def lines(capsys: pytest.CaptureFixture[str], seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(progress, "_SECONDS_A_LINE", seconds)
    with progress.Bars(2) as bars:
        advance = bars.start(CELL, False)
        advance(3, 30, "best validation 12.5")
        bars.end(CELL)
        bars.start(CELL, True)
        bars.end(CELL)
    printed = capsys.readouterr()
    assert printed.out == ""
    return [line.strip() for line in printed.err.splitlines() if "━" not in line]


def test_a_log_hears_from_a_long_cell(capsys, monkeypatch) -> None:
    started, heard, again = lines(capsys, -1.0, monkeypatch)
    assert started == "some-experiment: fc, D = 4, L = 2"
    assert heard == "3 of 30 best validation 12.5"
    assert again == "some-experiment: fc, D = 4, L = 2: already there"


def test_but_not_at_every_step(capsys, monkeypatch) -> None:
    assert len(lines(capsys, 1e6, monkeypatch)) == 2
