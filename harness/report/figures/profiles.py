"""Performance profiles: on which share of the datasets a method is within a gap of the best, or a factor in time."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.report.figures.chart import Axis, Chart, Curve, Drawing, Point, tell
from harness.report.figures.style import looks
from harness.report.tables.leaderboard import FACTORS, GAPS, entries, profile

_PROFILES = (
    ("gap", GAPS, "gap to the best test NLL, nats a dimension"),
    ("time_factor", FACTORS, "multiple of the shortest time to 1 % of the best NLL"),
)


def profile_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw the two performance profiles of the leaderboard, if two methods have a number on one dataset."""
    board = entries(rows)
    for column, limits, label in _PROFILES:
        table = profile(board, column, limits)
        if table.height < 2:
            continue
        shown = board.filter(pl.col("method").is_in(table["method"].to_list()))
        styles = looks(shown.with_columns(label="method"))
        curves = []
        for line in table.iter_rows(named=True):
            points = tuple(Point((limit,), line[f"{limit:g}"]) for limit in limits)
            family, look = styles[line["method"]]
            name = f"{line['method']} ({line['datasets']})"
            curves.append(Curve(name, line["method"], family, look, points))
        told = tell(curves, list(range(len(curves))))  # from the best one on
        cells = sorted({key for keys in shown["cells"].to_list() for key in keys})
        yield Drawing(
            name=f"leaderboard-{column.replace('_', '-')}",
            title=f"Share of a method's datasets within a {label.partition(',')[0]}",
            facts=f"{shown['dataset'].n_unique()} datasets, profile {' and '.join(shown['length'].unique().sort())}",
            caption="In brackets stands the number of datasets that a method has. A training that failed is within no "
            "limit; a dataset that a method was not trained on does not count.",
            footer="",
            experiment="leaderboard",
            cells=tuple(cells),
            content=Chart(
                (Axis(label, log=True, ticks=limits),),
                Axis("share of its datasets, %", limits=(-4.0, 104.0)),
                told,
                "{label}: {y} % within {x}",
            ),
        )
