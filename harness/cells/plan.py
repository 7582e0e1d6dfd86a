"""What a sweep has to do, and how long that will take on this machine, told before it starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import polars as pl

from harness.cells.base import Cell, finished_rows
from harness.cells.runtime import RuntimeCell
from harness.results import Store


def costs(cells: Sequence[Cell], store: Store, fresh: bool) -> list[float | None]:
    """Estimate the seconds of every cell; None for a cell that the store has already and that is not run afresh."""
    return [cell.cost() if fresh or not finished_rows(cell, store) else None for cell in cells]


def plan(cells: Sequence[Cell], costs: Sequence[float | None]) -> pl.DataFrame:
    """Tell what is there, what is left, and how long that will take: one row an experiment, and one for all.

    Among the cells that are left, *alone* counts those that need the machine to themselves; *about* is the time of all
    of them, one after another, and *longest* that of the longest one, which no number of workers shortens.
    """
    rows = []
    costed = list(zip(cells, costs, strict=True))
    for experiment in dict.fromkeys(cell.experiment for cell in cells):
        rows.append((experiment, *_summed([entry for entry in costed if entry[0].experiment == experiment])))
    if len(rows) > 1:
        rows.append(("all", *_summed(costed)))
    return pl.DataFrame(rows, schema=["experiment", "cells", "to do", "alone", "about", "longest"], orient="row")


def _summed(costed: Sequence[tuple[Cell, float | None]]) -> tuple[int, int, int, str, str]:
    left = [(cell, cost) for cell, cost in costed if cost is not None]
    seconds = [cost for _, cost in left]
    alone = sum(cell.exclusive for cell, _ in left)
    return len(costed), len(left), alone, in_words(sum(seconds)), in_words(max(seconds, default=0))


def telling_first(cells: Sequence[Cell]) -> list[Cell]:
    """Return cells in the order in which a limited time tells most.

    Timings come before trainings. The curves advance side by side, those of plain steps and of replayed ones apart,
    each from its ends to ever finer steps between them.
    All trainings of a seed come before those of the next one.
    """
    timings = [cell for cell in cells if isinstance(cell, RuntimeCell)]
    curves = [
        _coarse_to_fine([cell for cell in timings if (cell.experiment, cell.config.cuda_graphs) == curve])
        for curve in dict.fromkeys((cell.experiment, cell.config.cuda_graphs) for cell in timings)
    ]
    in_turn = [cell for ones in itertools.zip_longest(*curves) for cell in ones if cell is not None]
    others = [cell for cell in cells if not isinstance(cell, RuntimeCell)]
    return [*in_turn, *sorted(others, key=lambda cell: cell.problem.seed)]


def _coarse_to_fine(cells: Sequence[Cell]) -> list[Cell]:
    """Return cells of rising size: the last, the first, the one in the middle between them, and so on."""
    if len(cells) < 3:
        return list(reversed(cells))
    order, gaps = [len(cells) - 1, 0], [(0, len(cells) - 1)]
    while gaps:
        low, high = gaps.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(middle, high), (low, middle)]
    return [cells[number] for number in order]


def in_words(total: float) -> str:
    """Write a number of seconds as people say it: 90 s, 3 min, 5 h, 12 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if total >= 2 * size:
            return f"{total / size:.0f} {unit}"
    return f"{total:.0f} s"
