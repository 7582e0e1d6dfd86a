"""Live progress on standard error, with the time left: bars in a terminal, now and then a line in a log file."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from harness.cells import Cell
from harness.cells import Progress as Callback
from harness.cells.base import main_rows
from harness.cells.plan import in_words
from harness.results import Row

_SECONDS_A_LINE = 30  # in a log file, where no bar can move
_TRUST = 5.0  # seconds of cells that have run, which count as much as the estimates


class SweepProgress:
    """The progress of a sweep: a bar for all cells, and one for each cell that runs.

    Use it as a context, and call `start` and `end` for every cell.

    Args:
        cells: The cells of the sweep.
        costs: Estimated seconds of each cell, None for a cell that is already there. What cells have taken, those of
            the same kind first, corrects the estimates of the others. Without costs, the sizes of the problems are
            compared, and the pace of the first cell tells how long the others will take.
        quiet: Whether to show nothing at all.
    """

    def __init__(self, cells: Sequence[Cell], costs: Sequence[float | None] | None = None, quiet: bool = False) -> None:
        self._waiting = {id(cell): cost or 0.0 for cell, cost in zip(cells, costs or map(_size, cells), strict=True)}
        self._running: dict[int, _RunningCell] = {}
        self._estimated = costs is not None
        self._kinds = {id(cell): cell.kind for cell in cells}
        self._paid: dict[str, tuple[float, float]] = {}  # by kind, the seconds and the costs of the cells that have run
        self._last_line = time.monotonic()
        self._console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            _NameColumn(),
            BarColumn(20),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(Column(no_wrap=True)),
            _LeftColumn(Column(no_wrap=True)),
            console=self._console,
        )
        several = len(cells) > 1
        self._all = self._bars.add_task("cells", total=len(cells), visible=several, left=self.sweep_seconds_left)

    def __enter__(self) -> SweepProgress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        for cell in self._running.values():
            self._bars.update(cell.task, visible=False)
        self._bars.stop()

    def start(self, cell: Cell, finished: bool) -> Callback:
        """Show a cell that starts, or whose result is already there, and return the function that shows how far it is.

        Both functions may be called in any thread.
        """
        task = self._bars.add_task(cell.title, total=None, left=lambda: self.cell_seconds_left(cell))
        closing = cell.closing_cost() if self._estimated and not finished else 0.0
        cost = self._waiting.pop(id(cell), 0.0)
        running = self._running[id(cell)] = _RunningCell(cell, finished, task, cost, closing)
        if finished:
            self._say(cell, "already there")

        def advance(done: int, total: int, note: str) -> None:
            running.advance(done / total)
            self._bars.update(task, completed=done, total=total, description=f"{cell.title} {note}".strip())
            if not self._console.is_terminal and time.monotonic() > self._last_line + _SECONDS_A_LINE:
                self._last_line = time.monotonic()
                self._say(cell, ", ".join(filter(None, [f"{done} of {total}", note, *self._left_in_words(cell)])))

        return advance

    def end(self, cell: Cell, rows: Sequence[Row]) -> None:
        """Take the bar of a cell away, learn from the time that it took, and say why if no row has a number."""
        ended = self._running.pop(id(cell))
        if ended.fraction > 0 and ended.cost > 0:  # otherwise it was already there, or is unavailable
            spent, paid = self._paid.get(cell.kind, (0.0, 0.0))
            self._paid[cell.kind] = spent + time.monotonic() - ended.started, paid + ended.cost
        self._bars.remove_task(ended.task)
        self._bars.advance(self._all)
        bad = [row for row in rows if row.status != "ok"]
        unmeasured = bad and all(row.status != "ok" for row in main_rows(cell, rows))
        failures = [f"{row.status}: {row.reason}" for row in bad] if unmeasured else []
        if failures or not (ended.finished or self._console.is_terminal):
            self._say(cell, "; ".join(dict.fromkeys(failures)))

    def cell_seconds_left(self, cell: Cell) -> float | None:
        """Return the seconds that a running cell still takes, or None if nothing is known yet."""
        running = self._running.get(id(cell))
        return None if running is None else running.seconds_left(self._pace(cell.kind))

    def sweep_seconds_left(self) -> float | None:
        """Return the seconds that all cells together still take, or None if nothing is known yet."""
        running = list(self._running.values())
        known = [(cell, left) for cell in running if (left := cell.seconds_left(self._pace(cell.kind))) is not None]
        now = None  # the pace of the running cells, where no other is known
        if (costs := sum(cell.cost for cell, _ in known)) > 0:
            now = sum(left + time.monotonic() - cell.started for cell, left in known) / costs
        seconds = [left for _, left in known]
        together = sum(seconds)
        for cell, cost in list(self._waiting.items()):
            if (pace := self._pace(self._kinds[cell]) or now) is None:
                return None
            together += pace * cost
        return max([together / max(len(running), 1), *seconds])

    def _pace(self, kind: str) -> float | None:
        """Return the seconds that a unit of cost takes, by the cells of a kind that have run, or else by all."""
        known = [self._paid[kind]] if kind in self._paid else list(self._paid.values())
        spent, paid = sum(seconds for seconds, _ in known), sum(cost for _, cost in known)
        if self._estimated:  # an estimate is worth some seconds of experience
            return (spent + _TRUST) / (paid + _TRUST)
        return spent / paid if paid else None

    def _left_in_words(self, cell: Cell) -> list[str]:
        seconds, in_all = self.cell_seconds_left(cell), self.sweep_seconds_left()
        words = [] if seconds is None else [f"about {in_words(seconds)} left"]
        if in_all is not None and (seconds is None or in_words(in_all) != in_words(seconds)):
            words.append(f"{in_words(in_all)} in all")
        return words

    def _say(self, cell: Cell, what: str) -> None:
        line = ": ".join(filter(None, [cell.experiment, cell.title, what]))
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _RunningCell:
    """A running cell: whether it is already there, its bar, its cost, and how much of it is done.

    The last part of the cost, `closing`, comes after all is done that the cell tells about.
    """

    def __init__(self, cell: Cell, finished: bool, task: TaskID, cost: float, closing: float) -> None:
        self.kind, self.finished, self.task, self.cost, self.closing = cell.kind, finished, task, cost, closing
        self.budget = 0.0 if finished else cell.budget or math.inf
        self.started = self._last = time.monotonic()
        self.fraction = 0.0
        self._first: tuple[float, float] | None = None  # time and fraction of the first report

    def advance(self, fraction: float) -> None:
        """Note how much of the cell is done."""
        self.fraction, self._last = fraction, time.monotonic()
        if self._first is None:
            self._first = time.monotonic(), fraction

    def seconds_left(self, pace: float | None) -> float | None:
        """Return the seconds that the cell still takes, or None; the pace is seconds for a unit of cost, if known."""
        now = time.monotonic()
        spent, closing = now - self.started, self.closing * (pace or 1.0)
        # Validations are no part of the budget, and are part of the cost.
        whole = max(self.budget + closing, self.cost * (pace or 0.0))
        if self.fraction == 1:
            return max(closing - (now - self._last), 0.0)
        if self._first is not None and self.fraction > self._first[1]:
            # What was done at the first report may be of an earlier run, and the time until then was set-up too.
            since, done = self._first
            left = (now - since) * (1 - self.fraction) / (self.fraction - done) + closing
        elif self.fraction > 0:
            left = spent * (1 - self.fraction) / self.fraction + closing
        elif pace is not None and self.cost > 0:
            left = max(self.cost * pace - spent, 0.0)
        else:
            return max(self.budget - spent, 0.0) if self.budget < math.inf else None
        return min(left, max(whole - spent, 0.0))


def _size(cell: Cell) -> float:
    """Return a cell's cost in a unit of its own: matrix products, and what small problems cost beside them."""
    return float(cell.problem.layers * (cell.problem.dimension + 200) ** 2)


class _NameColumn(ProgressColumn):
    """The name of a cell, cut to what the other columns leave of the line."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _LeftColumn(ProgressColumn):
    """The time left, of the sweep or of one cell."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.fields["left"]()
        return Text("" if left is None else f"about {in_words(left)} left", style="progress.remaining")
