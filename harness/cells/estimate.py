"""How long a sweep will take on this machine, told before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import polars as pl

from harness import datasets
from harness.cells import Cell, ImputationCell, LikelihoodCell, RuntimeCell, finished_rows
from harness.methods import Problem
from harness.methods.calls import guarded
from harness.methods.registry import registry, why_unavailable
from harness.results import Store
from harness.timing.interleaved import time_block, trainer_on_noise
from harness.training.configuration import TrainingConfig


def costs(cells: Sequence[Cell], store: Store, fresh: bool) -> list[float | None]:
    """Estimate what every cell of a sweep will take, in seconds; None for one that is there already.

    Args:
        cells: Of a sweep.
        store: Where finished ones lie.
        fresh: Whether those are measured anew.
    """
    return [seconds(cell) if fresh or not finished_rows(cell, store) else None for cell in cells]


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


def seconds(cell: Cell) -> float:
    """Estimate what a cell takes on this machine, from its budget or from two steps; 0 if it cannot run.

    Validation, scoring and sampling are not counted, nor are downloads.
    """
    if isinstance(cell, RuntimeCell):
        # Every repetition times the whole iteration and its gradient.
        steps = 2 * cell.repeats + 5
        return sum(steps * _step(name, cell.problem, cell.config) for name in cell.methods)
    if not isinstance(cell, LikelihoodCell | ImputationCell) or not registry().find(cell.method).iterative:
        return 0.0
    budget = math.inf if cell.config.max_seconds is None else cell.config.max_seconds
    samples = datasets.training_samples(cell.dataset, cell.data_dir)
    if not samples:
        return 0.0
    # The probe's batch is too small to whiten, and the start changes no shape.
    step = _step(cell.method, cell.problem.replace(start="published"), cell.config)
    return min(budget, cell.config.epochs * math.ceil(samples / cell.problem.batch) * step)


@cache
def _step(name: str, problem: Problem, config: TrainingConfig) -> float:
    method = registry().find(name)
    if why_unavailable(method) is not None:
        return 0.0
    try:
        trainer, batch = trainer_on_noise(method, problem.replace(seed=0), config)
        with guarded("a training step"):
            trainer.step(batch)
            return time_block(lambda: trainer.step(batch), 1, problem.device)
    except Exception:  # a competitor may fail in any way; its row will say how
        return 0.0


def in_words(total: float) -> str:
    """Write a number of seconds as one would say it: 90 s, 3 min, 5 h, 12 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if total >= 2 * size:
            return f"{total / size:.0f} {unit}"
    return f"{total:.0f} s"
