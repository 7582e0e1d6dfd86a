"""What several tables need of their rows."""

from __future__ import annotations

import polars as pl

from harness.results import NOISY

EMA = pl.col("config").str.json_path_match("$.config.ema_decay").is_not_null()
"""Whether averaged weights were scored."""

MAP = pl.col("config").str.json_path_match("$.preprocess") == "true"
"""Whether matching came after preprocessing; null where nothing was trained."""

SMOOTH_NOISE = pl.col("config").str.json_path_match("$.smooth_noise")
"""Scale of smooth dequantisation noise; null where the noise is uniform."""

COMPILED = (pl.col("config").str.json_path_match("$.config.compile") == "true").fill_null(False)
"""Whether the loss went through `torch.compile`."""

TORCH = pl.col("versions").str.json_path_match("$.torch")
"""Version of torch."""


def is_of_kind(cell: str) -> pl.Expr:
    """Whether rows are of cells of a class, given by its name."""
    return pl.col("config").str.json_path_match("$.kind") == cell


def of_ebflow(numbers: pl.DataFrame) -> pl.DataFrame:
    """Published numbers belong to ebflow's methods alone: a peer's ML is another program."""
    return numbers.with_columns(method=pl.concat_str(pl.lit("ebflow-"), pl.col("objective"))).drop("objective")


def status() -> pl.Expr:
    """The status, and the reason where there is one."""
    return pl.concat_str("status", "reason", separator=": ", ignore_nulls=True).alias("status")


def is_noisy() -> pl.Expr:
    """Whether a row was measured on a machine that drifted meanwhile."""
    return (pl.col("status") == "ok") & (pl.col("reason") == NOISY).fill_null(False)
