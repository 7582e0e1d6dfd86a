"""What several tables need of their rows."""

from __future__ import annotations

import polars as pl

from harness.results import NOISY


def of_ebflow(numbers: pl.DataFrame) -> pl.DataFrame:
    """Published numbers belong to ebflow's methods alone: a peer's ML is another program."""
    return numbers.with_columns(method=pl.concat_str(pl.lit("ebflow-"), pl.col("objective"))).drop("objective")


def status() -> pl.Expr:
    """The status, and the reason where there is one."""
    return pl.concat_str("status", "reason", separator=": ", ignore_nulls=True).alias("status")


def is_noisy() -> pl.Expr:
    """Whether a row was measured on a machine that drifted meanwhile."""
    return (pl.col("status") == "ok") & (pl.col("reason") == NOISY).fill_null(False)
