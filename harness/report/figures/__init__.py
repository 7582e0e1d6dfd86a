"""Figures, made from frames of rows and from the arrays that lie beside them: data that matplotlib or a page draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from harness.report.figures.chart import Drawing
    from harness.results import Store


def drawings(rows: pl.DataFrame, store: Store) -> Iterator[Drawing]:
    """Draw every figure of rows with the columns of `harness.results.derived` and of their arrays in a store."""
    yield from headline(rows)
    yield from figures_of_experiments(rows, store)


def headline(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw the one figure that is chosen among all experiments, if there is one."""
    from harness.report.figures import runtime

    yield from runtime.headline(rows)


def figures_of_experiments(rows: pl.DataFrame, store: Store) -> Iterator[Drawing]:
    """Draw the figures of each experiment, which depend on the rows of no other."""
    from harness.report.figures import curves, likelihood, pictures, runtime

    yield from runtime.runtime_figures(rows)
    yield from likelihood.likelihood_figures(rows)
    yield from curves.curve_figures(rows)
    yield from pictures.picture_figures(rows, store)
