"""What Langevin dynamics fills in, and how far Monte Carlo estimates of log Z are off."""

from __future__ import annotations

import polars as pl

from harness.tables.columns import status
from harness.tables.comparison import newest

__all__ = ["imputation", "normalizer"]


def imputation(rows: pl.DataFrame) -> pl.DataFrame:
    """PSNR in dB of the missing pixels, one row a method."""
    wide = _wide(rows, "ImputationCell", ["dataset", "architecture", "method", "recipe", "L", "seed", status()])
    columns = {
        "validation_nll": "validation NLL nats",
        "psnr_mean_image": "mean image dB",
        "psnr_gaussian": "Gaussian's mean dB",
        "psnr_last_iterate": "last iterate dB",
        "psnr_posterior_mean": "posterior mean dB",
        "psnr_gain": "gain dB",
        "accepted": "accepted",
        "sampling_seconds": "sampling s",
    }
    present = [pl.col(metric).alias(name) for metric, name in columns.items() if metric in wide.columns]
    if wide.is_empty():
        return wide
    return wide.sort("dataset", "architecture", "method").select(
        "dataset", "architecture", "method", "recipe", "L", "seed", *present, "status"
    )


def normalizer(rows: pl.DataFrame) -> pl.DataFrame:
    """Mean absolute error in nats of each estimator, with its effective sample size, one row a dimension."""
    wide = _wide(rows, "NormalizerCell", ["method", "L", "D", "seed", status()])
    if wide.is_empty():
        return wide
    measured = [name for name in wide.columns if name.startswith(("log_z_error", "ess"))]
    names = {name: name.replace("log_z_error_", "error nats, ").replace("ess_", "ESS, ") for name in measured}
    return wide.sort("method", "D").select("method", "L", "D", "seed", *measured, "status").rename(names)


def _wide(rows: pl.DataFrame, kind: str, index: list[str | pl.Expr]) -> pl.DataFrame:
    """One row a cell of this kind, one column a metric; of several runs the newest."""
    own = newest(rows, "dataset", "recipe", "seed").filter(pl.col("config").str.json_path_match("$.kind") == kind)
    if own.is_empty():
        return pl.DataFrame()
    return own.select(*index, "metric", "value").pivot("metric", index=own.select(*index).columns, values="value")
