"""Live progress on standard error: one bar for all cells, one for each that runs, all with the time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.cells import Cell
from harness.cells import Progress as Callback

__all__ = ["Bars"]

_SECONDS_A_LINE = 30  # in a log file, where no bar can move


class Bars:
    """The progress of a sweep; use as a context.

    Args:
        cells: Number of cells in all.
    """

    def __init__(self, cells: int) -> None:
        # No markup: names may hold brackets.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False),
        )
        self._all = self._progress.add_task("cells", total=cells)
        self._last_line = time.monotonic()
        self._running: dict[int, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running.values():
            self._progress.update(task, visible=False)
        self._progress.stop()

    def start(self, cell: Cell, finished: bool) -> Callback:
        """Show a cell; say so in a line of its own where no bar can be drawn, and when it is already there."""
        task = self._progress.add_task(cell.title, total=None)
        self._running[id(cell)] = task
        if finished:
            self._progress.console.print(f"{cell.experiment}: {cell.title}: already there")
        elif not self._progress.console.is_terminal:
            self._progress.console.print(f"{cell.experiment}: {cell.title}")

        def advance(done: int, total: int, note: str) -> None:
            self._progress.update(task, completed=done, total=total, description=f"{cell.title} {note}".strip())
            if not self._progress.console.is_terminal and time.monotonic() > self._last_line + _SECONDS_A_LINE:
                self._last_line = time.monotonic()
                among = f"{cell.title}: " if len(self._running) > 1 else ""
                self._progress.console.print(f"  {among}{done} of {total} {note}".rstrip())

        return advance

    def end(self, cell: Cell) -> None:
        """Count a cell as done, and show it no more."""
        self._progress.remove_task(self._running.pop(id(cell)))
        self._progress.advance(self._all)
