"""What the commands that measure have in common: cells are run, and their results are shown and written."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import FrameType

from harness.cells import Cell
from harness.cells.own_process import Limits
from harness.cells.plan import costs, plan
from harness.cells.sweep import run_cells
from harness.cells.workers import Crew
from harness.cli import screen
from harness.cli.options import command
from harness.cli.progress import SweepProgress
from harness.errors import printable
from harness.report import publish
from harness.report.page import write
from harness.report.summary import summary
from harness.results import Row, Store, to_frame
from harness.results.derived import derived
from harness.training.signals import Stopped

End = Callable[[list[Row], Store, bool], None]
"""A function that shows rows and writes what people read into the folder of a store; told whether to be quiet."""


def run_and_show(
    cells: Sequence[Cell],
    store: Store,
    *,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    crew: Crew | None = None,
    limits: Limits | None = None,
    end: End | None = None,
    beside: Sequence[Cell] = (),
    minutes: float | None = None,
) -> list[Row]:
    """Run cells under a progress bar, and show and write their results by `end`, or else by `show_tables`.

    With `as_json` rows are printed instead, and nothing else is printed or written. With a crew, which runs the cells
    of a sweep, the plan of the sweep is printed first, unless plan and progress are left out by `quiet`. The cells in
    `beside` are run after the others for comparison, and no failure of theirs counts. After so many `minutes` the
    running cell is stopped, a training with its state saved, and the results so far are shown.

    Returns:
        The rows of all cells that have ended.

    Raises:
        InputError: if a cell cannot be run as it is asked for, or the results folder cannot be written.
        SystemExit: with status 1 if no cell has a number, 130 after Ctrl-C.
    """
    cells = [*cells, *beside]
    for cell in cells:
        cell.check()
    store.prepare()
    estimated = None
    if crew is not None and not quiet:
        if not crew.remote:  # the speed of other machines is unknown here
            estimated = costs(cells, store, fresh)
            if not as_json:
                screen.show_table(screen.PLAN, plan(cells, estimated), stderr=True)
        if crew.note:
            screen.say(crew.note)
    progress = SweepProgress(cells, estimated, quiet)
    out, ended, over = sys.stdout, list[Row](), threading.Event()

    def on_end(cell: Cell, rows: list[Row]) -> None:
        ended.extend(rows)
        progress.end(cell, rows)
        if as_json:
            screen.print_json(rows, out)

    try:
        # What a competitor prints must not lie among the rows.
        with _time_limit(minutes, over), progress, redirect_stdout(sys.stderr):
            rows = run_cells(cells, store, progress.start, on_end, fresh, crew, limits)
    except KeyboardInterrupt as stop:
        why = f"{minutes:g} minutes are over" if over.is_set() else "stopped"
        running = f"{stop}; " if str(stop) else ""
        again = "the same command without --fresh" if fresh else "the same command"
        screen.say(f"{why}: {running}finished cells are in {store.folder}, and {again} goes on from there")
        if not over.is_set():
            sys.exit(getattr(stop, "status", 130))
        rows = ended
        if not rows:
            return rows
    if not as_json:
        (end or show_tables)(rows, store, quiet)
    screen.say(*store.notes)
    _tell_failures(rows, cells, beside)
    return rows


def _tell_failures(rows: list[Row], cells: Sequence[Cell], beside: Sequence[Cell]) -> None:
    """Print what could not be measured, and end with status 1 if no cell, leaving those beside out, has a number."""
    # A metric that stands for a cell is told of by the progress and in the tables.
    main = {cell.main_metric[0] for cell in cells}
    lost = [row for row in rows if row.status != "ok" and row.metric not in main]
    lines = [f"warning: {row.method} on {row.dataset}: {row.metric} {row.status}: {row.reason}" for row in lost]
    screen.say(*dict.fromkeys(lines))
    compared = {cell.key() for cell in beside}
    own = [row for row in rows if row.cell not in compared]
    if all(row.status != "ok" for row in own if row.metric in main):
        sys.exit(1)


@contextmanager
def _time_limit(minutes: float | None, over: threading.Event) -> Iterator[None]:
    """Stop what runs after so many minutes as SIGTERM does, and set the event before; None for no such limit.

    Where nobody waits to save anything, the signal interrupts as Ctrl-C does.
    """
    if minutes is None:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Stopped("", number)

    def ring() -> None:
        over.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(60 * minutes, ring)
    timer.daemon = True
    before = signal.signal(signal.SIGTERM, interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def show_tables(rows: list[Row], store: Store, quiet: bool) -> None:
    """Print the tables of rows, and write the tables and figures of the whole store."""
    more = f"in {store.folder / 'tables'}, or by: {command(['tables'], store.folder)} | less"
    screen.show_pages(list(publish.pages(derived(to_frame(rows)))), more)
    files = publish.refresh(store)
    if not quiet:
        screen.say(f"up to date: {len(files)} files in {store.folder / 'tables'} and {store.folder / 'figures'}")


def show_summary(rows: list[Row], store: Store, quiet: bool) -> None:
    """Write the tables, figures and the page of the whole store, and print on one screen what they say."""
    if not quiet:
        screen.say(f"drawing tables, figures and the page of {store.folder}")
    page, asv = store.folder / "report.html", store.folder / "asv"
    files = publish.refresh(store)
    unreadable = write(store, asv, page)
    screen.say(*(line for line in unreadable if line not in store.notes))
    known, _ = publish.with_asv(store.frame()[0], asv)
    for line in summary(known, to_frame(rows), files, page):
        print(printable(line))
