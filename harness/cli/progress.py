"""Live progress on standard error, with the time left: bars in a terminal, now and then a line in a log file."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from harness.cells import Cell
from harness.cells import Progress as Callback
from harness.cells.plan import in_words
from harness.results import Row

_SECONDS_A_LINE = 30  # in a log file, where no bar can move


class Bars:
    """The progress of a sweep; use as a context, tell it of every cell's start and end.

    Args:
        cells: All, in the order in which they are started.
        costs: What each one takes, in seconds, and None for one that is there already. If not given, it is guessed from
            the sizes: the first cell's own pace then says how long the others will take.
        quiet: Whether to say nothing at all.
    """

    def __init__(self, cells: Sequence[Cell], costs: Sequence[float | None] | None = None, quiet: bool = False) -> None:
        # Of matrix products, and of what small problems cost beside them.
        sizes = [float(cell.problem.layers * (cell.problem.dimension + 200) ** 2) for cell in cells]
        self._left = _TimeLeft([cost or 0.0 for cost in costs] if costs else sizes, known=costs is not None)
        self._progress = Progress(
            _NameColumn(),
            BarColumn(20),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(Column(no_wrap=True)),
            _LeftColumn(self._left),
            console=Console(stderr=True, quiet=quiet),
        )
        self._all = self._progress.add_task("cells", total=len(cells), visible=len(cells) > 1)
        self._running = self._progress.add_task("", total=None, visible=False)
        self._ended = 0
        self._last_line = 0.0
        self._name = ""
        self._named = False

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.update(self._running, visible=False)
        self._progress.stop()

    def start(self, cell: Cell, finished: bool) -> Callback:
        """Show a cell; return what is told of its progress."""
        self._name, self._named = f"{cell.experiment}: {cell.title}", False
        self._last_line = time.monotonic()
        self._left.start(0.0 if finished else cell.budget or math.inf)
        self._progress.reset(self._running, total=None, description=cell.title, visible=True)
        if finished:
            self._say("already there")

        def advance(done: int, total: int, note: str) -> None:
            self._left.advance(done / total)
            description = f"{cell.title} {note}".strip()
            self._progress.update(self._running, completed=done, total=total, description=description)
            if self._progress.console.is_terminal:
                return
            if not self._named:  # not before it is certain that something is measured
                self._say()
            if time.monotonic() > self._last_line + _SECONDS_A_LINE:
                self._last_line = time.monotonic()
                self._print(f"  {', '.join(filter(None, [f'{done} of {total}', note, *self._left_in_words()]))}")

        return advance

    def end(self, cell: Cell, rows: Sequence[Row]) -> None:
        """Tell that a cell has ended, and why there is no number where there is none."""
        self._ended += 1
        self._left.finish()
        self._progress.update(self._all, completed=self._ended)
        if reasons := _reasons(rows):
            self._say(reasons)
        elif not self._named and not self._progress.console.is_terminal:
            self._say()

    def seconds_left(self) -> tuple[float | None, float | None]:
        """Return the seconds that the running cell and that all of them still take; None as long as none are known."""
        return self._left.cell(), self._left.sweep()

    def _left_in_words(self) -> list[str]:
        cell, sweep = self.seconds_left()
        said = [] if cell is None else [f"about {in_words(cell)} left"]
        return said if sweep in (None, cell) else [*said, f"{in_words(sweep)} in all"]

    def _say(self, how: str = "") -> None:
        """Print the name of the cell, as it is in the log, and how it ended."""
        self._named = True
        self._print(": ".join(filter(None, [self._name, how])))

    def _print(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


class BarsOfMany:
    """The progress of cells that run side by side: a bar for all of them, and one for each that is told of.

    Args:
        cells: How many in all.
        quiet: Whether to say nothing at all.
    """

    def __init__(self, cells: int, quiet: bool = False) -> None:
        self._progress = Progress(
            _NameColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=quiet),
        )
        self._all = self._progress.add_task("cells", total=cells)
        self._running: dict[int, TaskID] = {}

    def __enter__(self) -> BarsOfMany:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running.values():
            self._progress.update(task, visible=False)
        self._progress.stop()

    def start(self, cell: Cell, finished: bool) -> Callback:
        """Show a cell; return what is told of its progress. Any thread may call both."""
        task = self._running[id(cell)] = self._progress.add_task(cell.title, total=None)

        def advance(done: int, total: int, note: str) -> None:
            self._progress.update(task, completed=done, total=total, description=f"{cell.title} {note}".strip())

        return advance

    def end(self, cell: Cell, rows: Sequence[Row]) -> None:
        """Tell that a cell has ended, and why there is no number where there is none."""
        self._progress.remove_task(self._running.pop(id(cell)))
        self._progress.advance(self._all)
        line = ": ".join(filter(None, [cell.experiment, cell.title, _reasons(rows)]))
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _reasons(rows: Sequence[Row]) -> str:
    """Say why no row has a number, or nothing if one has."""
    if any(row.status == "ok" for row in rows):
        return ""
    return "; ".join(dict.fromkeys(f"{row.status}: {row.reason}" for row in rows))


class _TimeLeft:
    """How long the running cell and all of them will still take, from costs and from the pace so far.

    Args:
        costs: Of the cells, in their order; in seconds if known, else in any unit.
        known: Whether they are in seconds.
    """

    def __init__(self, costs: Sequence[float], known: bool) -> None:
        self._waiting = list(costs)
        self._cost = self._fraction = self._spent = self._paid = 0.0
        self._budget = math.inf
        self._pace = 1.0 if known else None  # seconds that a unit of cost takes
        self._started = time.monotonic()
        self._first: tuple[float, float] | None = None  # when a cell first told how much of it is done, and how much

    def start(self, budget: float) -> None:
        """Begin with the next cell, which ends after its budget of seconds at the latest."""
        self._cost = self._waiting.pop(0)
        self._budget, self._fraction, self._started, self._first = budget, 0.0, time.monotonic(), None

    def advance(self, fraction: float) -> None:
        """Note how much of the running cell is done."""
        self._fraction = fraction
        if self._first is None:
            self._first = time.monotonic(), fraction

    def finish(self) -> None:
        """Learn from the time that the cell took; one that took none was there already, or is unavailable."""
        took = time.monotonic() - self._started
        if self._fraction > 0 and self._cost > 0:
            self._spent += took
            self._paid += self._cost
            self._pace = self._spent / self._paid
        self._cost = self._fraction = 0.0
        self._budget = 0.0

    def cell(self) -> float | None:
        """Return the seconds that the running cell still takes, or None as long as nothing is known."""
        now = time.monotonic()
        spent = now - self._started
        if self._first is not None and self._fraction > self._first[1]:
            # What was there at the first word may be of an earlier run, and the time until then was set-up too.
            since, done = self._first
            left = (now - since) * (1 - self._fraction) / (self._fraction - done)
        elif self._fraction > 0:
            left = spent * (1 - self._fraction) / self._fraction
        elif self._pace is not None and self._cost > 0:
            left = max(self._cost * self._pace - spent, 0.0)
        else:
            return max(self._budget - spent, 0.0) if self._budget < math.inf else None
        return min(left, max(self._budget - spent, 0.0))

    def sweep(self) -> float | None:
        """Return the seconds that all cells still take, or None as long as nothing is known."""
        cell = self.cell()
        pace = self._pace
        if pace is None and cell is not None and self._cost > 0:
            pace = (cell + time.monotonic() - self._started) / self._cost
        if pace is None:
            return None
        return (cell or 0.0) + pace * sum(self._waiting)


class _NameColumn(ProgressColumn):
    """What is running, in what the other columns leave of the line."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _LeftColumn(ProgressColumn):
    """The time left of the sweep beside the bar of all cells, and of the running cell beside its own."""

    max_refresh = 0.5

    def __init__(self, left: _TimeLeft) -> None:
        super().__init__(Column(no_wrap=True))
        self._left = left

    def render(self, task: Task) -> Text:
        left = self._left.sweep() if task.id == 0 else self._left.cell()
        return Text("" if left is None else f"about {in_words(left)} left", style="progress.remaining")
