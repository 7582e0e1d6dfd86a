"""Test likelihoods and divergences, over seeds."""

from __future__ import annotations

import json
import math

import polars as pl

from harness.paper import published
from harness.statistics import mean_interval
from harness.tables.columns import of_ebflow, status

__all__ = ["ablation", "curves", "likelihood", "points", "time_to_level"]

_STRUCTURE = [
    *("method", "recipe", "dataset", "architecture", "shape", "D", "L", "B", "dtype", "device", "threads"),
    *("EMA", "MaP", "settings"),
]
"""What tells two trainings apart, seeds aside."""


def likelihood(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats and bits/dim, over seeds, the published value beside it; empty where another table says it."""
    rows = _with_settings(rows)
    rows = rows.filter(~_has_divergence(rows), ~_is_crossed())
    table = _over_seeds(rows, "nll")
    for metric, name in [
        ("bits_per_dim", "bits/dim"),
        ("training_iterations", "steps"),
        ("training_seconds", "training s"),
    ]:
        extra = _over_seeds(rows, metric).select(*_STRUCTURE, pl.col("value").alias(name))
        table = table.join(extra, on=_STRUCTURE, how="left")
    return (
        table.join(of_ebflow(published.likelihood()), on=["dataset", "architecture", "method"], how="left")
        .pipe(_with_priors)
        .sort("dataset", "architecture", pl.coalesce("value", "prior"), nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "EMA",
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
            pl.coalesce("published_nll", "prior").alias("published NLL"),
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
    table = _over_seeds(rows, "kl")
    nll = _over_seeds(rows, "nll").select(*_STRUCTURE, pl.col("value").alias("NLL nats"))
    fisher = _over_seeds(rows, "fisher").select(*_STRUCTURE, pl.col("value").alias("Fisher"))
    failures = _over_seeds(rows.filter(pl.col("status") != "ok"), "nll")
    return (
        pl.concat([table, failures])
        .join(nll, on=_STRUCTURE, how="left")
        .join(fisher, on=_STRUCTURE, how="left")
        .sort("dataset", "value", nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
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
    """Test NLL in nats with and without averaged weights (EMA) and matching after preprocessing (MaP).

    The gradient norm is the median over all validations of the last batch's, before clipping.
    """
    rows = _with_settings(rows)
    rows = rows.filter(~_has_divergence(rows), _is_crossed())
    norms = (
        rows.filter(metric="gradient_norm")
        .group_by(_STRUCTURE)
        .agg(pl.col("value").median().alias("gradient norm"), pl.col("value").quantile(0.9).alias("its 90 % quantile"))
    )
    steps = _over_seeds(rows, "training_iterations").select(*_STRUCTURE, pl.col("value").alias("steps"))
    return (
        _over_seeds(rows, "nll")
        .join(norms, on=_STRUCTURE, how="left")
        .join(steps, on=_STRUCTURE, how="left")
        .join(of_ebflow(published.ablation()), on=["dataset", "architecture", "method", "EMA", "MaP"], how="left")
        .sort("dataset", "architecture", "method", "recipe", "MaP", "EMA")
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "EMA",
            "MaP",
            pl.col("value").alias("NLL nats"),
            "low",
            "high",
            "seeds",
            pl.col("published_nll").alias("published NLL"),
            "gradient norm",
            "its 90 % quantile",
            pl.col("steps").round().cast(pl.Int64),
            "status",
        )
    )


def time_to_level(rows: pl.DataFrame) -> pl.DataFrame:
    """Steps and seconds of training until the validation bits/dim that the paper's figure 2(b) is read at.

    Without a published level, as for tuned recipes and peers, the row has its own numbers alone.
    """
    rows = _with_settings(rows).filter(pl.col("MaP"))
    published_levels = of_ebflow(published.time_to_level())
    levels = published_levels.select("dataset", "architecture", "level").unique()
    curve = (
        rows.filter(metric="validation_curve")
        .join(levels, on=["dataset", "architecture"])
        .with_columns(bits=pl.col("value") / (pl.col("D") * math.log(2)))
        .sort("iteration")
    )
    keys = [*_STRUCTURE, "seed", "level"]
    reached = curve.filter(pl.col("bits") <= pl.col("level")).group_by(keys).agg(pl.first("iteration", "seconds"))
    return (
        curve.group_by(keys)
        .agg(pl.col("bits").min().alias("best bits/dim"), pl.col("iteration").max().alias("steps in all"))
        .join(reached, on=keys, how="left")
        .join(published_levels, on=["dataset", "architecture", "method", "level"], how="left")
        .sort("dataset", "architecture", "recipe", "method", "seed")
        .select(
            "dataset",
            "architecture",
            "method",
            "recipe",
            "seed",
            pl.col("level").alias("bits/dim"),
            pl.col("iteration").alias("steps to it"),
            pl.col("seconds").alias("seconds to it"),
            pl.col("published_steps").alias("published steps (10 %)"),
            (3600 * pl.col("published_hours")).alias("published seconds (GPU)"),
            "best bits/dim",
            "steps in all",
        )
    )


def curves(rows: pl.DataFrame) -> pl.DataFrame:
    """Validation NLL in nats where training started to be watched, at its best, and at its end: whether it rises."""
    rows = _with_settings(rows).filter(metric="validation_curve").sort("iteration")
    first, last = pl.col("value").first(), pl.col("value").last()
    at_best = pl.col("iteration").sort_by("value").first()
    return (
        rows.group_by([*_STRUCTURE, "seed"])
        .agg(
            pl.col("iteration").first().alias("from step"),
            first.alias("NLL there"),
            pl.col("value").min().alias("best"),
            at_best.alias("at step"),
            last.alias("last"),
            pl.col("iteration").last().alias("last step"),
        )
        .filter(pl.col("from step") < pl.col("last step"))
        .sort("dataset", "architecture", "method", "recipe", "MaP", "EMA", "seed")
        .drop("shape", "D", "L", "B", "dtype", "device", "threads", "settings")
    )


def _with_priors(table: pl.DataFrame) -> pl.DataFrame:
    """Add other people's published numbers for the networks of the table, in a column of their own."""
    shown = table.select("dataset", "architecture").unique()
    priors = (
        published.priors().join(shown, on=["dataset", "architecture"], how="semi").rename({"published_nll": "prior"})
    )
    return pl.concat([table, priors.with_columns(recipe=pl.lit("published"))], how="diagonal")


def _is_crossed() -> pl.Expr:
    """Whether a row's method was trained without MaP too: `ablation` shows those, `likelihood` all others."""
    return (~pl.col("MaP")).any().over("method", "dataset", "architecture")


def _has_divergence(rows: pl.DataFrame) -> pl.Expr:
    """Whether a row is of a set whose exact density is known: `points` shows those, and no other table does."""
    return pl.col("dataset").is_in(rows.filter(metric="kl")["dataset"].unique().to_list())


def _with_settings(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of trainings, with what their configuration says of EMA and MaP, and all of it but the seed."""
    return rows.filter(pl.col("config").str.json_path_match("$.kind") == "LikelihoodCell").with_columns(
        EMA=pl.col("config").str.json_path_match("$.config.ema_decay").is_not_null(),
        MaP=pl.col("config").str.json_path_match("$.preprocess") == "true",
        settings=pl.col("config").map_elements(_without_seed, return_dtype=pl.String),
    )


def _without_seed(config: str) -> str:
    content = json.loads(config)
    content["problem"].pop("seed")
    return json.dumps(content)


def _over_seeds(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Average one metric over seeds, with a t-interval from two seeds on; one seed keeps its own interval."""
    keys = _STRUCTURE
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
