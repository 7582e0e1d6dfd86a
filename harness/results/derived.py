"""What rows say inside their JSON, as polars expressions: every table, figure and claim reads it the same way."""

from __future__ import annotations

import polars as pl

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
