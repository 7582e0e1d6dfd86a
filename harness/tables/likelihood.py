"""Test likelihoods and divergences, over seeds."""

from __future__ import annotations

import json

import polars as pl

from harness.paper import published
from harness.statistics import mean_interval
from harness.tables.columns import of_ebflow, status

__all__ = ["ablation", "likelihood", "points"]

_STRUCTURE = ["method", "dataset", "architecture", "shape", "D", "L", "B", "dtype", "device", "threads", "recipe"]
"""What tells two trainings apart, seeds aside."""


def likelihood(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats and bits/dim, over seeds, the published value beside it; empty where another table says it."""
    rows = _with_settings(rows)
    rows = rows.filter(~_has_divergence(rows))
    if (~pl.Series(rows["EMA"] & rows["MaP"])).any():
        return pl.DataFrame()
    table = _over_seeds(rows, "nll", [])
    for metric, name in [
        ("bits_per_dim", "bits/dim"),
        ("training_iterations", "steps"),
        ("training_seconds", "training s"),
    ]:
        extra = _over_seeds(rows, metric, []).select(*_STRUCTURE, pl.col("value").alias(name))
        table = table.join(extra, on=_STRUCTURE, how="left")
    return (
        table.join(of_ebflow(published.likelihood()), on=["dataset", "architecture", "method"], how="left")
        .sort("dataset", "architecture", "value", nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "L",
            "B",
            "dtype",
            "device",
            "parameters",
            pl.col("value").alias("NLL nats"),
            "low",
            "high",
            "seeds",
            "bits/dim",
            pl.col("published_nll").alias("published NLL"),
            pl.col("published_ci").alias("published +-"),
            pl.col("steps").round().cast(pl.Int64),
            "training s",
            "status",
        )
    )


def points(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL, KL and Fisher divergence (nats) of the synthetic sets, from their exact density."""
    rows = _with_settings(rows)
    rows = rows.filter(_has_divergence(rows))
    table = _over_seeds(rows, "kl", [])
    nll = _over_seeds(rows, "nll", []).select(*_STRUCTURE, pl.col("value").alias("NLL nats"))
    fisher = _over_seeds(rows, "fisher", []).select(*_STRUCTURE, pl.col("value").alias("Fisher"))
    failures = _over_seeds(rows.filter(pl.col("status") != "ok"), "nll", [])
    return (
        pl.concat([table, failures])
        .join(nll, on=_STRUCTURE, how="left")
        .join(fisher, on=_STRUCTURE, how="left")
        .sort("dataset", "value", nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "L",
            "B",
            "NLL nats",
            pl.col("value").alias("KL nats"),
            "Fisher",
            "seeds",
            "status",
        )
    )


def ablation(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats with and without averaged weights (EMA) and matching after preprocessing (MaP)."""
    rows = _with_settings(rows)
    rows = rows.filter(~_has_divergence(rows))
    if bool((rows["EMA"] & rows["MaP"]).all()):
        return pl.DataFrame()
    settings = ["EMA", "MaP"]
    return (
        _over_seeds(rows, "nll", settings)
        .join(of_ebflow(published.ablation()), on=["dataset", "architecture", "method", *settings], how="left")
        .sort("dataset", "architecture", "method", "MaP", "EMA")
        .select(
            "dataset",
            "architecture",
            "method",
            *settings,
            pl.col("value").alias("NLL nats"),
            "low",
            "high",
            "seeds",
            pl.col("published_nll").alias("published NLL"),
            "status",
        )
    )


def _has_divergence(rows: pl.DataFrame) -> pl.Expr:
    """Whether a row is of a set whose exact density is known: `points` shows those, and no other table does."""
    return pl.col("dataset").is_in(rows.filter(metric="kl")["dataset"].unique().to_list())


def _with_settings(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of trainings, with what their configuration says of EMA and MaP, and all of it but the seed."""
    return rows.filter(pl.col("config").str.json_path_match("$.kind") == "LikelihoodCell").with_columns(
        EMA=pl.col("config").str.json_path_match("$.config.ema_decay").is_not_null(),
        MaP=pl.col("config").str.json_path_match("$.preprocess") == "true",
        recipe=pl.col("config").map_elements(_without_seed, return_dtype=pl.String),
    )


def _without_seed(config: str) -> str:
    content = json.loads(config)
    content["problem"].pop("seed")
    return json.dumps(content)


def _over_seeds(rows: pl.DataFrame, metric: str, settings: list[str]) -> pl.DataFrame:
    """Average one metric over seeds, with a t-interval from two seeds on; one seed keeps its own interval."""
    keys = [*_STRUCTURE, *settings]
    groups = []
    for key, group in rows.filter(metric=metric).group_by(keys, maintain_order=True):
        good = group.filter(status="ok")
        values = good["value"].to_list()
        value = low = high = None
        if len(values) == 1:
            value, low, high = values[0], good["ci_low"][0], good["ci_high"][0]
        elif values:
            estimate = mean_interval(values)
            value, low, high = estimate.value, estimate.low, estimate.high
        statuses = "; ".join(dict.fromkeys(group.select(status())["status"].to_list()))
        groups.append((*key, value, low, high, len(values), group["parameters"].max(), statuses))
    schema = {name: rows.schema[name] for name in keys} | {
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "seeds": pl.Int64,
        "parameters": pl.Int64,
        "status": pl.String,
    }
    return pl.DataFrame(groups, schema=schema, orient="row")
