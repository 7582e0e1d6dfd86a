"""Where the rows of a table come from."""

from __future__ import annotations

import polars as pl

from harness.report.tables.columns import EMA, MAP
from harness.report.tables.comparison import with_setting

_NAMES = ["method", "linear", "recipe", "dataset", "architecture", "shape", "D", "L", "B"]
_NAMES += ["dtype", "device", "threads", "seed", "cpu", "gpu", "torch", "commit", "EMA", "MaP"]


def sources(table: pl.DataFrame, rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """Return for each row of a table the keys of the cells that agree with it in all that the table says of them.

    Args:
        table: Of this package, as it was built: constant columns still in it.
        rows: Of `harness.results.SCHEMA`, what the table was built from.
    """
    told = with_setting(rows).with_columns(EMA=EMA, MaP=MAP)
    shared = [name for name in _NAMES if name in table.columns]
    cells = told.group_by(shared, maintain_order=True).agg(pl.col("cell").unique(maintain_order=True))
    found = table.select(shared).join(cells, on=shared, how="left", nulls_equal=True, maintain_order="left")
    return [tuple(keys or ()) for keys in found["cell"].to_list()]
