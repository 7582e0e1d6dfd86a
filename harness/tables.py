"""Frames of rows become the tables that people read; every table is one function from frame to frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
from tabulate import tabulate

from harness.paper import published
from harness.statistics import crossing, log_slope, mean_interval

__all__ = ["TABLES", "Table", "render"]

_CELL = [
    "experiment",
    "profile",
    "method",
    "objective",
    "linear",
    "architecture",
    "shape",
    "D",
    "L",
    "B",
    "dtype",
    "device",
    "threads",
]


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Args:
        name: Of its files.
        title: With units.
        build: From a frame of `harness.results.SCHEMA` to the table; empty where no row is for it.
    """

    name: str
    title: str
    build: Callable[[pl.DataFrame], pl.DataFrame]


def render(frame: pl.DataFrame, style: str) -> str:
    """Write a frame as text.

    Args:
        frame: Any table of this module.
        style: As tabulate names it: github (Markdown), latex_booktabs, html.
    """
    rows = [["" if value is None else _text(value) for value in row] for row in frame.rows()]
    return tabulate(rows, headers=frame.columns, tablefmt=style, disable_numparse=True, colalign=_alignment(frame))


def runtime(rows: pl.DataFrame) -> pl.DataFrame:
    """Milliseconds an iteration with its interval, the published seconds of the same image size beside it."""
    timings = rows.filter(metric="seconds_per_iteration")
    return (
        timings.join(published.runtime(), on=["architecture", "objective", "shape"], how="left")
        .sort("experiment", "profile", "architecture", "D", "L", "B", "value", nulls_last=True)
        .select(
            "experiment",
            "method",
            "linear",
            "shape",
            "D",
            "L",
            "B",
            "parameters",
            "dtype",
            "device",
            "threads",
            (pl.col("value") * 1e3).alias("ms"),
            (pl.col("ci_low") * 1e3).alias("ms low"),
            (pl.col("ci_high") * 1e3).alias("ms high"),
            "n",
            (pl.col("published_seconds") * 1e3).alias("published ms (GPU)"),
            _status(),
        )
    )


def slopes(rows: pl.DataFrame) -> pl.DataFrame:
    """How a method's time grows: log-log slopes in D and in L, and the D from which on it beats maximum likelihood.

    The rivals are the fastest ML method with any dense matrix, and the fastest ML method at all, whose matrices may
    be restricted (LU factors). A crossing is the smallest measured D from which on the method is faster at every
    larger one.
    """
    fine = rows.filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok")
    fixed = ["experiment", "profile", "architecture", "B", "dtype", "device", "threads", "cpu"]
    found = []
    for (experiment, _, architecture, *_), group in fine.group_by(fixed, maintain_order=True):
        for method, own in group.group_by("method", maintain_order=True):
            for (layers,), curve in own.group_by(["L"], maintain_order=True):
                if curve["D"].n_unique() < 2:
                    continue
                at_depth = group.filter(
                    pl.col("L") == layers, pl.col("objective") == "ml", pl.col("method") != method[0]
                )
                times = _by(curve, "D")
                slope = log_slope(list(times), list(times.values()))
                against = [
                    crossing(times, _fastest(rivals)) if rivals.height else None
                    for rivals in (at_depth.filter(linear="dense"), at_depth)
                ]
                found.append(
                    (
                        experiment,
                        architecture,
                        method[0],
                        "D",
                        f"L = {layers}",
                        slope.value,
                        slope.low,
                        slope.high,
                        *against,
                    )
                )
            for (dimension,), curve in own.group_by(["D"], maintain_order=True):
                if curve["L"].n_unique() < 2:
                    continue
                times = _by(curve, "L")
                slope = log_slope(list(times), list(times.values()))
                found.append(
                    (
                        experiment,
                        architecture,
                        method[0],
                        "L",
                        f"D = {dimension}",
                        slope.value,
                        slope.low,
                        slope.high,
                        None,
                        None,
                    )
                )
    schema = {
        "experiment": pl.String,
        "architecture": pl.String,
        "method": pl.String,
        "in": pl.String,
        "at": pl.String,
        "slope": pl.Float64,
        "slope low": pl.Float64,
        "slope high": pl.Float64,
        "faster than dense ML from D": pl.Int64,
        "faster than any ML from D": pl.Int64,
    }
    return pl.DataFrame(found, schema=schema, orient="row").sort("experiment", "in", "at", "slope")


def likelihood(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats and bits/dim, over seeds, the published value beside it."""
    rows = rows.filter(~pl.col("experiment").str.starts_with("table4"), ~pl.col("experiment").str.starts_with("table1"))
    table = _over_seeds(rows, "nll", ["dataset"])
    pinned = (
        published.likelihood()
        .with_columns(method=pl.concat_str(pl.lit("ebflow-"), pl.col("objective")))
        .drop("objective")
    )
    extras = [
        _over_seeds(rows, metric, ["dataset"]).select(*_key(["dataset"]), pl.col("value").alias(name))
        for metric, name in _EXTRAS
    ]
    for extra in extras:
        table = table.join(extra, on=_key(["dataset"]), how="left", nulls_equal=True)
    return (
        table.join(pinned, on=["dataset", "architecture", "method"], how="left")
        .sort("dataset", "architecture", "value", nulls_last=True)
        .select(
            "experiment",
            "profile",
            "dataset",
            "architecture",
            "method",
            pl.col("value").alias("NLL nats"),
            pl.col("low").alias("low"),
            pl.col("high").alias("high"),
            "seeds",
            "bits/dim",
            pl.col("published_nll").alias("published NLL"),
            pl.col("published_ci").alias("published +-"),
            "steps",
            "train s",
            "parameters",
            "status",
        )
    )


_EXTRAS = [("bits_per_dim", "bits/dim"), ("training_iterations", "steps"), ("training_seconds", "train s")]


def points(rows: pl.DataFrame) -> pl.DataFrame:
    """KL and Fisher divergence (nats) of the 2-D sets, from their exact density."""
    rows = rows.filter(pl.col("experiment").str.starts_with("table1"))
    keys = _key(["dataset"])
    table = _over_seeds(rows, "kl", ["dataset"])
    fisher = _over_seeds(rows, "fisher", ["dataset"]).select(*keys, pl.col("value").alias("Fisher"))
    failures = _over_seeds(rows.filter(pl.col("status") != "ok"), "nll", ["dataset"])
    return (
        pl.concat([table, failures])
        .join(fisher, on=keys, how="left", nulls_equal=True)
        .sort("dataset", "value", nulls_last=True)
        .select(
            "experiment",
            "profile",
            "dataset",
            "method",
            pl.col("value").alias("KL nats"),
            "low",
            "high",
            "seeds",
            "Fisher",
            "status",
        )
    )


def ablation(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats with and without averaged weights (EMA) and matching after preprocessing (MaP)."""
    rows = rows.filter(pl.col("experiment").str.starts_with("table4")).with_columns(
        EMA=pl.col("config").str.json_path_match("$.config.ema_decay").is_not_null(),
        MaP=pl.col("config").str.json_path_match("$.preprocess") == "true",
    )
    table = _over_seeds(rows, "nll", ["dataset", "EMA", "MaP"])
    pinned = (
        published.ablation()
        .with_columns(method=pl.concat_str(pl.lit("ebflow-"), pl.col("objective")))
        .drop("objective")
    )
    return (
        table.join(pinned, on=["dataset", "architecture", "method", "EMA", "MaP"], how="left")
        .sort("dataset", "architecture", "method", "MaP", "EMA")
        .select(
            "experiment",
            "profile",
            "dataset",
            "architecture",
            "method",
            "EMA",
            "MaP",
            pl.col("value").alias("NLL nats"),
            "low",
            "high",
            "seeds",
            pl.col("published_nll").alias("published NLL"),
            "status",
        )
    )


TABLES: tuple[Table, ...] = (
    Table("runtime", "Runtime: milliseconds an iteration (noise, loss, backward, optimiser, averaging)", runtime),
    Table("slopes", "Growth of the runtime: log-log slopes, and where a method overtakes maximum likelihood", slopes),
    Table("likelihood", "Test negative log-likelihood, nats a sample in the data's own space", likelihood),
    Table("points", "2-D densities: divergence from the exact density", points),
    Table("ablation", "EMA and MaP: test negative log-likelihood, nats", ablation),
)


def _key(extra: list[str]) -> list[str]:
    return [*(name for name in _CELL if name not in ("objective", "linear")), *extra]


def _over_seeds(rows: pl.DataFrame, metric: str, extra: list[str]) -> pl.DataFrame:
    """Average one metric over seeds, with a t-interval from two seeds on; one seed keeps its own interval."""
    keys = _key(extra)
    groups = []
    for key, group in rows.filter(metric=metric).group_by(keys, maintain_order=True):
        good = group.filter(status="ok")
        values = good["value"].to_list()
        estimate = mean_interval(values) if values else None
        low, high = (estimate.low, estimate.high) if estimate else (None, None)
        if len(values) == 1:
            low, high = good["ci_low"][0], good["ci_high"][0]
        status = "; ".join(dict.fromkeys(group.select(_status())["status"].to_list()))
        parameters = group["parameters"].drop_nulls()
        groups.append(
            (
                *key,
                estimate.value if estimate else None,
                low,
                high,
                len(values),
                parameters[0] if len(parameters) else None,
                status,
            )
        )
    types = {name: rows.schema[name] for name in keys}
    schema = {
        **types,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "seeds": pl.Int64,
        "parameters": pl.Int64,
        "status": pl.String,
    }
    return pl.DataFrame(groups, schema=schema, orient="row")


def _status() -> pl.Expr:
    return pl.concat_str("status", "reason", separator=": ", ignore_nulls=True).alias("status")


def _by(curve: pl.DataFrame, column: str) -> dict[int, float]:
    medians = curve.group_by(column).agg(pl.col("value").median()).sort(column)
    return dict(zip(medians[column].to_list(), medians["value"].to_list(), strict=True))


def _fastest(rivals: pl.DataFrame) -> dict[int, float]:
    fastest = rivals.group_by("D").agg(pl.col("value").min()).sort("D")
    return dict(zip(fastest["D"].to_list(), fastest["value"].to_list(), strict=True))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _alignment(frame: pl.DataFrame) -> list[str]:
    return ["right" if kind.is_numeric() else "left" for kind in frame.dtypes]
