"""What Langevin dynamics fills in, and how far Monte Carlo estimates of log Z are off."""

from __future__ import annotations

import polars as pl

from harness.report.tables.columns import half_width, status
from harness.report.tables.comparison import SETTING, newest

_IMPUTATION = {
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


def imputation(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the PSNR in dB of the missing pixels, means over n images, one line a method."""
    index = ["dataset", "architecture", "method", "recipe", "L", "seed"]
    wide = _wide(rows, "imputation", index).sort(index[:3], maintain_order=True)
    numbers = [pl.col(metric).alias(name) for metric, name in _IMPUTATION.items() if metric in wide.columns]
    return wide.select(*index, *numbers, *SETTING, "status")


def normalizer(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the mean absolute error in nats of each estimator over n repetitions, with its effective sample size."""
    index = ["method", "L", "D", "seed"]
    wide = _wide(rows, "normalizer", index).sort("method", "D", maintain_order=True)
    numbers = []
    for name in wide.columns:
        if name.startswith("value_log_z_error_"):
            estimator = name.removeprefix("value_log_z_error_")
            half = pl.col(f"half_log_z_error_{estimator}")
            numbers += [pl.col(name).alias(f"error nats, {estimator}"), half.alias(f"error nats, {estimator} +-")]
    numbers += [pl.col(name).name.replace("^value_ess_", "ESS, ") for name in wide.columns if "value_ess_" in name]
    numbers += [pl.max_horizontal("^n_log_z_error_.*$").alias("n")] if numbers else []
    return wide.select(*index, *numbers, *SETTING, "status")


def _wide(rows: pl.DataFrame, kind: str, index: list[str]) -> pl.DataFrame:
    """Return one line a cell of this kind, the newest in its setting: of every metric the value, half its interval, n.

    The columns of a metric are ``value_METRIC``, ``half_METRIC`` and ``n_METRIC``.
    """
    own = newest(rows, "dataset", "recipe", "seed").filter(kind=kind).rename({"ci_low": "low", "ci_high": "high"})
    own = own.select(*index, status(), *SETTING, "metric", "value", half_width().alias("half"), "n")
    places = [*index, "status", *SETTING]
    return own.pivot("metric", index=places, values=["value", "half", "n"], aggregate_function="first")
