"""Where the rows of a table come from."""

from __future__ import annotations

import polars as pl

from harness.report.tables.comparison import with_setting

_NAMES = ["method", "linear", "recipe", "dataset", "architecture", "shape", "D", "L", "B"]
_NAMES += ["dtype", "device", "threads", "seed", "cpu", "gpu", "torch", "commit", "EMA", "MaP"]


def sources(table: pl.DataFrame, rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """Return for each line of a table the keys of the cells that agree with it in all that the table says of them.

    Args:
        table: A table of this package as it was built, with its constant columns.
        rows: The rows that the table was built from.
    """
    shared = [name for name in _NAMES if name in table.columns]
    keys = with_setting(rows).group_by(shared, maintain_order=True).agg(pl.col("cell").unique(maintain_order=True))
    joined = table.select(shared).join(keys, on=shared, how="left", nulls_equal=True, maintain_order="left")
    return [tuple(cells or ()) for cells in joined["cell"].to_list()]
