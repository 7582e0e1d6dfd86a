"""What several tables need of their rows."""

from __future__ import annotations

import polars as pl

from harness.report.tables.text import text_of
from harness.results import DRIFT_METRIC, NOISY
from harness.results.statistics import NOISY_DRIFT

STAR = " *"
"""The end of the name of a column that says which numbers of another column have a star where the table is shown."""


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
    return (pl.col("status") == "ok") & pl.col("reason").str.starts_with(NOISY).fill_null(False)


def ok_or_status() -> pl.Expr:
    """Return `status` for a timing, of which a star tells that it is noisy: that is no gap, and not said again."""
    caveat = pl.col("reason").str.replace(f"^{NOISY}(; )?", "").replace("", None)
    return pl.concat_str("status", caveat, separator=": ", ignore_nulls=True).alias("status")


def is_disturbed() -> pl.Expr:
    """Return whether the seconds of a training mean little: the machine drifted meanwhile, or nobody watched it."""
    drift = pl.col("value").filter(pl.col("metric") == DRIFT_METRIC).max().over("cell")
    return drift.is_null() | (drift > NOISY_DRIFT)


def with_stars(table: pl.DataFrame) -> pl.DataFrame:
    """Write numbers of a table with a star where a column of the same name and `STAR` says so, and drop that column."""
    for name in [column.removesuffix(STAR) for column in table.columns if column.endswith(STAR)]:
        text = pl.col(name).map_elements(text_of, return_dtype=pl.String)
        star = pl.when(pl.col(name + STAR)).then(pl.lit("*")).otherwise(pl.lit(""))
        table = table.with_columns(pl.concat_str(text, star).alias(name)).drop(name + STAR)
    return table


def disturbances(rows: pl.DataFrame) -> list[str]:
    """Return the sentence that stands below tables of trainings of which some seconds have a star."""
    trained = rows.filter(kind="likelihood", status="ok").filter(
        (pl.col("metric") == "training_seconds").any().over("cell")
    )
    if trained.filter(is_disturbed()).is_empty():
        return []
    drifts = trained.filter(pl.col("metric") == DRIFT_METRIC, pl.col("value") > NOISY_DRIFT)["value"]
    unwatched = trained.filter((pl.col("metric") != DRIFT_METRIC).all().over("cell"))
    why = [f"the machine's reference product drifted up to {max(drifts):.2f}-fold"] if len(drifts) else []
    why += ["nobody watched the machine"] if unwatched.height else []
    return [
        f"A star marks seconds of training that mean little: {' or '.join(why)} meanwhile; "
        "for seconds to trust, train again with --fresh on an idle machine"
    ]
