"""What Langevin dynamics fills in, and how far Monte Carlo estimates of log Z are off."""

from __future__ import annotations

import polars as pl

from harness.report.tables.columns import is_of_kind, status
from harness.report.tables.comparison import SETTING, newest


def imputation(rows: pl.DataFrame) -> pl.DataFrame:
    """PSNR in dB of the missing pixels, means over n images, one row a method."""
    wide = _wide(rows, "ImputationCell", ["dataset", "architecture", "method", "recipe", "L", "seed", status()])
    columns = {
        "value_validation_nll": "validation NLL nats",
        "value_psnr_mean_image": "mean image dB",
        "value_psnr_gaussian": "Gaussian's mean dB",
        "value_psnr_last_iterate": "last iterate dB",
        "value_psnr_posterior_mean": "posterior mean dB",
        "half_psnr_posterior_mean": "posterior mean +-",
        "value_psnr_gain": "gain dB",
        "half_psnr_gain": "gain +-",
        "n_psnr_gain": "n",
        "value_accepted": "accepted",
        "value_sampling_seconds": "sampling s",
    }
    present = [pl.col(metric).alias(name) for metric, name in columns.items() if metric in wide.columns]
    if wide.is_empty():
        return wide
    return wide.sort("dataset", "architecture", "method", maintain_order=True).select(
        "dataset", "architecture", "method", "recipe", "L", "seed", *present, *SETTING, "status"
    )


def normalizer(rows: pl.DataFrame) -> pl.DataFrame:
    """Mean absolute error in nats of each estimator over n repetitions, with its effective sample size."""
    wide = _wide(rows, "NormalizerCell", ["method", "L", "D", "seed", status()])
    if wide.is_empty():
        return wide
    errors = [name.removeprefix("value_") for name in wide.columns if name.startswith("value_log_z_error")]
    effective = [name for name in wide.columns if name.startswith("value_ess")]
    columns = [
        *(
            pl.col(f"{part}_{name}").alias(name.replace("log_z_error_", "error nats, ") + mark)
            for name in errors
            for part, mark in (("value", ""), ("half", " +-"))
        ),
        *(pl.col(name).alias(name.replace("value_ess_", "ESS, ")) for name in effective),
        pl.max_horizontal(pl.col(f"n_{name}") for name in errors).alias("n"),
    ]
    return wide.sort("method", "D", maintain_order=True).select(
        "method", "L", "D", "seed", *columns, *SETTING, "status"
    )


def _wide(rows: pl.DataFrame, kind: str, index: list[str | pl.Expr]) -> pl.DataFrame:
    """One row a cell of this kind, the newest in its setting; of every metric the value, half its interval, and n."""
    own = newest(rows, "dataset", "recipe", "seed").filter(is_of_kind(kind))
    if own.is_empty():
        return pl.DataFrame()
    half = ((pl.col("ci_high") - pl.col("ci_low")) / 2).alias("half")
    own = own.select(*index, *SETTING, "metric", "value", half, "n")
    return own.pivot("metric", index=own.columns[: len(index) + len(SETTING)], values=["value", "half", "n"])
