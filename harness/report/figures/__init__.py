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
    from harness.report.figures import curves, likelihood, pictures, runtime

    yield from runtime.headline(rows)
    yield from runtime.runtime_figures(rows)
    yield from likelihood.likelihood_figures(rows)
    yield from curves.curve_figures(rows)
    yield from pictures.picture_figures(rows, store)
