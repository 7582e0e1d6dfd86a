"""What runtime, train and reproduce have in common: cells are run, told of and shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from harness.cells.plan import costs, plan
from harness.cells.sweep import run_cells
from harness.cli import screen
from harness.cli.progress import Bars, BarsOfMany
from harness.report import publish
from harness.results import to_frame
from harness.results.derived import derived

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.cells.own_process import Limits
    from harness.cells.workers import Crew
    from harness.results import Row, Store


def run_and_show(
    cells: Sequence[Cell],
    store: Store,
    *,
    fresh: bool,
    as_json: bool,
    quiet: bool,
    planned: bool = False,
    crew: Crew | None = None,
    limits: Limits | None = None,
) -> None:
    """Run cells under a progress bar, print their tables, and write the tables and figures of the whole store.

    Args:
        cells: In the order to run.
        store: Where finished ones lie.
        fresh: Whether those are measured anew.
        as_json: Whether to print rows and nothing else.
        quiet: Whether to tell neither plan nor progress.
        planned: Whether to tell first how long it will take, which tries every method and takes a while.
        crew: Who runs the cells, if not this process.
        limits: Of every cell.

    Raises:
        InputError: A cell cannot be run as it is asked for, or the results folder cannot be written.
        SystemExit: 1 if no row of any cell is good, 130 after Ctrl-C.
    """
    for cell in cells:
        cell.check()
    store.prepare()
    estimated = None
    if planned and not quiet and not (crew and crew.remote):  # here nothing is known of other machines
        estimated = costs(cells, store, fresh)
        if not as_json:
            screen.show_plan(plan(cells, estimated))
    if crew is not None and crew.note and not quiet:
        screen.say(crew.note)
    together = crew is not None and crew.executor is not None
    bars = BarsOfMany(len(cells), quiet) if together else Bars(cells, estimated, quiet=quiet)
    out = sys.stdout

    def on_end(cell: Cell, rows: list[Row]) -> None:
        bars.end(cell, rows)
        if as_json:
            screen.print_json(rows, out)

    try:
        # What a competitor prints must not lie among the rows.
        with bars, redirect_stdout(sys.stderr):
            rows = run_cells(cells, store, bars.start, on_end, fresh, crew, limits)
    except KeyboardInterrupt as stop:
        running = f"{stop}; " if str(stop) else ""
        screen.say(f"stopped: {running}finished cells are in {store.folder}, and the same command goes on from there")
        sys.exit(getattr(stop, "status", 130))
    if not as_json:
        screen.show_pages(list(publish.pages(derived(to_frame(rows)))), store.folder)
        files = publish.render(store, store.folder)
        if not quiet:
            screen.say(f"written: {len(files)} files in {store.folder / 'tables'} and {store.folder / 'figures'}")
    for line in store.notes:
        screen.say(line)
    if all(row.status != "ok" for row in rows):
        sys.exit(1)
