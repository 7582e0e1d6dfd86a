"""Live progress on standard error: one bar for all cells, one for the running one, both with the time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
        self._started = 0
        self._last_line = time.monotonic()
        self._running = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._progress.update(self._all, completed=self._started)
        self._progress.update(self._running, visible=False)
        self._progress.stop()

    def start(self, cell: Cell, finished: bool) -> Callback:
        """Show a cell; say so in a line of its own where no bar can be drawn, and when it is already there."""
        self._progress.update(self._all, completed=self._started)
        self._started += 1
        self._progress.reset(self._running, total=None, description=cell.title, visible=True)
        if finished:
            self._progress.console.print(f"{cell.experiment}: {cell.title}: already there")
        elif not self._progress.console.is_terminal:
            self._progress.console.print(f"{cell.experiment}: {cell.title}")

        def advance(done: int, total: int, note: str) -> None:
            self._progress.update(
                self._running, completed=done, total=total, description=f"{cell.title} {note}".strip()
            )
            if not self._progress.console.is_terminal and time.monotonic() > self._last_line + _SECONDS_A_LINE:
                self._last_line = time.monotonic()
                self._progress.console.print(f"  {done} of {total} {note}".rstrip())

        return advance
