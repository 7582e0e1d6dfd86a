"""What several tables need of their rows."""

from __future__ import annotations

import polars as pl

from harness.results import NOISY


def of_ebflow(numbers: pl.DataFrame) -> pl.DataFrame:
    """Give published numbers by objective to ebflow's method of that objective: a peer's is another program."""
    return numbers.with_columns(method=pl.concat_str(pl.lit("ebflow-"), pl.col("objective"))).drop("objective")


def status() -> pl.Expr:
    """Return the status of a row, followed by the reason where there is one."""
    return pl.concat_str("status", "reason", separator=": ", ignore_nulls=True).alias("status")


def half_width() -> pl.Expr:
    """Return half of the width of an interval of a mean, which is symmetric."""
    return (pl.col("high") - pl.col("low")) / 2


def is_noisy() -> pl.Expr:
    """Return whether the machine drifted while a row was measured."""
    return (pl.col("status") == "ok") & (pl.col("reason") == NOISY).fill_null(False)
