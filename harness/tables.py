"""Frames of rows become the tables that people read; every table is one function from frame to frame.

Each function takes the rows of one experiment and one profile, in `harness.results.SCHEMA`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
from tabulate import tabulate

from harness.paper import published
from harness.statistics import crossing, log_slope, mean_interval

__all__ = ["TABLES", "Table", "render", "split_constants"]

_STRUCTURE = ["method", "dataset", "architecture", "shape", "D", "L", "B", "dtype", "device", "threads", "recipe"]
"""What tells two trainings apart, seeds aside."""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Args:
        name: Of its files.
        title: With units.
        build: From the rows of one experiment to the table; empty where no row is for it.
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
    bar = "\\|" if style == "github" else "|"
    rows = [["" if value is None else _text(value).replace("|", bar) for value in row] for row in frame.rows()]
    alignment = ["right" if kind.is_numeric() else "left" for kind in frame.dtypes]
    return tabulate(rows, headers=frame.columns, tablefmt=style, disable_numparse=True, colalign=alignment)


def split_constants(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Take the settings that are the same in every row out of a table, and say them in one line instead."""
    settings = ["dataset", "architecture", "L", "B", "dtype", "device", "threads", "seeds"]
    same = [name for name in settings if name in frame.columns and frame[name].n_unique() == 1]
    said = ", ".join(f"{name} = {_text(frame[name][0])}" for name in same if frame[name][0] is not None)
    return frame.drop(same), said


def runtime(rows: pl.DataFrame) -> pl.DataFrame:
    """Median milliseconds an iteration, one column for every D, and why a method has a gap."""
    timings = rows.filter(metric="seconds_per_iteration")
    sizes = timings["D"].unique().sort().to_list()
    index = ["method", "linear", "architecture", "L", "B", "dtype", "device", "threads"]
    statuses = timings.group_by(index, maintain_order=True).agg(_status().unique(maintain_order=True).str.join("; "))
    return (
        timings.with_columns(pl.col("value") * 1e3)
        .pivot("D", index=index, values="value", aggregate_function="median")
        .join(statuses, on=index, how="left")
        .select(*index, *(pl.col(str(size)).alias(f"D = {size}") for size in sizes), "status")
        .sort("architecture", "L", "B", f"D = {sizes[-1]}" if sizes else "method", nulls_last=True)
    )


def timings(rows: pl.DataFrame) -> pl.DataFrame:
    """Every timing in milliseconds, with its interval and the published time of the same image size beside it."""
    names = {
        "seconds_per_iteration": "iteration",
        "seconds_per_log_determinant": "log-determinants of new weights",
        "seconds_per_sampling": "100 samples",
    }
    return (
        rows.filter(pl.col("metric").is_in(list(names)))
        .join(_of_ebflow(published.runtime()), on=["architecture", "method", "shape"], how="left")
        .with_columns(pl.col("metric").replace_strict(names).alias("what"))
        .sort("what", "architecture", "D", "L", "B", "value", nulls_last=True)
        .select(
            "what",
            "method",
            "linear",
            "architecture",
            "shape",
            "D",
            "L",
            "B",
            "parameters",
            "dtype",
            "device",
            "threads",
            (pl.col("value") * 1e3).alias("ms"),
            (pl.col("ci_low") * 1e3).alias("low"),
            (pl.col("ci_high") * 1e3).alias("high"),
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
    found = []
    fine = rows.filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok")
    for (architecture, *_), group in fine.group_by(
        ["architecture", "B", "dtype", "device", "threads", "cpu"], maintain_order=True
    ):
        for method, own in group.group_by("method", maintain_order=True):
            for (layers,), curve in own.group_by(["L"], maintain_order=True):
                times = _by(curve, "D")
                if len(times) < 2:
                    continue
                rivals = group.filter(pl.col("L") == layers, pl.col("objective") == "ml", pl.col("method") != method[0])
                crossings = [
                    crossing(times, _fastest(some)) if some.height else None
                    for some in (rivals.filter(linear="dense"), rivals)
                ]
                found.append((architecture, method[0], "D", f"L = {layers}", *_slope(times), *crossings))
            for (dimension,), curve in own.group_by(["D"], maintain_order=True):
                times = _by(curve, "L")
                if len(times) >= 2:
                    found.append((architecture, method[0], "L", f"D = {dimension}", *_slope(times), None, None))
    schema = {
        "architecture": pl.String,
        "method": pl.String,
        "in": pl.String,
        "at": pl.String,
        "slope": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "faster than dense ML from D": pl.Int64,
        "faster than any ML from D": pl.Int64,
    }
    return pl.DataFrame(found, schema=schema, orient="row").sort("architecture", "in", "at", "slope")


def likelihood(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats and bits/dim, over seeds, the published value beside it; empty where another table says it."""
    rows = _with_settings(rows)
    if (~pl.Series(rows["EMA"] & rows["MaP"])).any():
        return pl.DataFrame()
    rows = rows.filter(~pl.col("dataset").is_in(rows.filter(metric="kl")["dataset"].unique().to_list()))
    table = _over_seeds(rows, "nll", [])
    for metric, name in [
        ("bits_per_dim", "bits/dim"),
        ("training_iterations", "steps"),
        ("training_seconds", "training s"),
    ]:
        extra = _over_seeds(rows, metric, []).select(*_STRUCTURE, pl.col("value").alias(name))
        table = table.join(extra, on=_STRUCTURE, how="left")
    return (
        table.join(_of_ebflow(published.likelihood()), on=["dataset", "architecture", "method"], how="left")
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
    """KL and Fisher divergence (nats) of the 2-D sets, from their exact density."""
    rows = _with_settings(rows)
    rows = rows.filter(pl.col("dataset").is_in(rows.filter(metric="kl")["dataset"].unique().to_list()))
    table = _over_seeds(rows, "kl", [])
    fisher = _over_seeds(rows, "fisher", []).select(*_STRUCTURE, pl.col("value").alias("Fisher"))
    failures = _over_seeds(rows.filter(pl.col("status") != "ok"), "nll", [])
    return (
        pl.concat([table, failures])
        .join(fisher, on=_STRUCTURE, how="left")
        .sort("dataset", "value", nulls_last=True)
        .select(
            "dataset",
            "architecture",
            "method",
            "L",
            "B",
            pl.col("value").alias("KL nats"),
            "Fisher",
            "seeds",
            "status",
        )
    )


def ablation(rows: pl.DataFrame) -> pl.DataFrame:
    """Test NLL in nats with and without averaged weights (EMA) and matching after preprocessing (MaP)."""
    rows = _with_settings(rows)
    if bool((rows["EMA"] & rows["MaP"]).all()):
        return pl.DataFrame()
    settings = ["EMA", "MaP"]
    return (
        _over_seeds(rows, "nll", settings)
        .join(_of_ebflow(published.ablation()), on=["dataset", "architecture", "method", *settings], how="left")
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


TABLES: tuple[Table, ...] = (
    Table("runtime", "median milliseconds an iteration (noise, loss, backward, optimiser, averaging)", runtime),
    Table("slopes", "log-log slopes of the runtime, and where a method overtakes maximum likelihood", slopes),
    Table("timings", "every timing, milliseconds with 95 % interval (99 % in asv's results)", timings),
    Table("likelihood", "test negative log-likelihood, nats a sample in the data's own space", likelihood),
    Table("points", "divergence from the exact density, nats", points),
    Table("ablation", "EMA and MaP, test negative log-likelihood, nats", ablation),
)


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


def _of_ebflow(numbers: pl.DataFrame) -> pl.DataFrame:
    """Published numbers belong to ebflow's methods alone: a peer's ML is another program."""
    return numbers.with_columns(method=pl.concat_str(pl.lit("ebflow-"), pl.col("objective"))).drop("objective")


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
        status = "; ".join(dict.fromkeys(group.select(_status())["status"].to_list()))
        groups.append((*key, value, low, high, len(values), group["parameters"].max(), status))
    schema = {name: rows.schema[name] for name in keys} | {
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


def _slope(times: dict[int, float]) -> tuple[float, float | None, float | None]:
    estimate = log_slope(list(times), list(times.values()))
    return estimate.value, estimate.low, estimate.high


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())
