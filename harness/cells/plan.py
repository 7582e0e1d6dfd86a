"""What a sweep has to do, and how long that will take on this machine, told before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from harness.cells.base import Cell, finished_rows
from harness.results import Store


def costs(cells: Sequence[Cell], store: Store, fresh: bool) -> list[float | None]:
    """Estimate what every cell of a sweep will take, in seconds; None for one that is there already.

    Args:
        cells: Of a sweep.
        store: Where finished ones lie.
        fresh: Whether those are measured anew.
    """
    return [cell.cost() if fresh or not finished_rows(cell, store) else None for cell in cells]


def plan(cells: Sequence[Cell], costs: Sequence[float | None]) -> pl.DataFrame:
    """Tell what is there, what is left, and how long that will take: one row an experiment, and one for all.

    Of what is left, *alone* counts the cells that need the machine to themselves; *about* is the time of all, one after
    another, and *longest* that of one, below which no number of workers takes it.

    Args:
        cells: Of a sweep.
        costs: As the function of that name has them.
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


def in_words(total: float) -> str:
    """Write a number of seconds as one would say it: 90 s, 3 min, 5 h, 12 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if total >= 2 * size:
            return f"{total / size:.0f} {unit}"
    return f"{total:.0f} s"
