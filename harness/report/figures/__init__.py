"""Figures, made from frames of rows and from the arrays that lie beside them: data that matplotlib or a page draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
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

    yield from _attempted("headline", runtime.headline, rows)


def figures_of_experiments(rows: pl.DataFrame, store: Store) -> Iterator[Drawing]:
    """Draw the figures of each experiment, which depend on the rows of no other."""
    from harness.report.figures import curves, groups, likelihood, pictures, runtime

    kinds: dict[str, Callable[[pl.DataFrame], Iterator[Drawing]]] = {
        "runtime": runtime.runtime_figures,
        "likelihood": likelihood.likelihood_figures,
        "curves": curves.curve_figures,
        "pictures": partial(pictures.picture_figures, store=store),
    }
    for kind, draw in kinds.items():
        for names, own in rows.group_by(list(groups.TRAININGS), maintain_order=True):
            yield from _attempted("-".join([*map(str, names), kind]), draw, own)


def _attempted(name: str, draw: Callable[[pl.DataFrame], Iterator[Drawing]], rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw figures of some rows; where one cannot be made, a figure of this name says why, and ends them."""
    from harness.report.figures.chart import drawing, not_made
    from harness.report.figures.groups import title_of

    try:
        yield from draw(rows)
    except Exception as error:  # one odd row may surprise in any place, and must not take the other figures along
        yield drawing(rows, name, f"{title_of(rows)}: a figure is missing", not_made(error))
