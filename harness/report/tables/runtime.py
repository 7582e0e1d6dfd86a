"""Seconds an iteration: medians, slopes, and how near they come to what they must cost."""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from harness.paper import published
from harness.report.tables.columns import is_noisy, of_ebflow, ok_or_status, status
from harness.report.tables.comparison import PLACE, SETTING, comparisons, newest
from harness.report.tables.text import text_of
from harness.results.statistics import crossing, log_slope


def runtime(rows: pl.DataFrame) -> pl.DataFrame:
    """Return median milliseconds an iteration, one column for every D, and why a method has a gap.

    In brackets stands the fraction of them that the bound is, where there is one; a star marks a noisy machine. What
    was not timed in the same setting stands in a line of its own.
    """
    rows = newest(rows)
    timings = rows.filter(metric="seconds_per_iteration")
    sizes = timings["D"].unique().sort().to_list()
    index = ["method", "linear", "architecture", "L", *SETTING]
    statuses = timings.group_by(index, maintain_order=True).agg(
        ok_or_status().unique(maintain_order=True).str.join("; ").alias("status"),
        pl.col("value").filter(D=max(sizes, default=0)).first().alias("order"),
    )
    bounds = rows.filter(metric="iteration_bound").select("method", *PLACE, bound="value")
    return (
        timings.with_columns(noisy=is_noisy())
        .join(bounds, on=["method", *PLACE], how="left", nulls_equal=True)
        .with_columns(value=pl.struct("value", "bound", "noisy").map_elements(_with_fraction, return_dtype=pl.String))
        .pivot("D", index=index, values="value", aggregate_function="first")
        .join(statuses, on=index, how="left", nulls_equal=True)
        .sort("architecture", "L", *SETTING, "order", nulls_last=True)
        .select(*index, *(pl.col(str(size)).alias(f"D = {size}") for size in sizes), "status")
    )


def bounds(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what the cost model says and what was measured: times in milliseconds, memory in copies of all weights."""
    rows = newest(rows).filter(status="ok")
    # The column of the dtype is empty where a user compares across dtypes.
    dtype = "number_dtype" if "number_dtype" in rows.columns else "dtype"
    item = pl.when(pl.col(dtype) == "float64").then(8).otherwise(4)
    wide = rows.filter(metric="gradient_bound").select("method", "linear", "parameters", *PLACE, item=item)
    metrics = ["seconds_per_gradient", "gradient_bound", "seconds_per_iteration", "iteration_bound", "flops"]
    for metric in [*metrics, "peak_memory", "optimizer_bytes"]:
        values = rows.filter(metric=metric).select("method", *PLACE, pl.col("value").alias(metric))
        wide = wide.join(values, on=["method", *PLACE], how="left", nulls_equal=True)
    return wide.sort("architecture", "D", "L", *SETTING, "seconds_per_iteration").select(
        *("method", "linear", *(name for name in PLACE if name != "shape")),
        (pl.col("seconds_per_gradient") * 1e3).alias("loss and backward ms"),
        (pl.col("gradient_bound") * 1e3).alias("bound ms"),
        (pl.col("seconds_per_gradient") / pl.col("gradient_bound")).alias("times the bound"),
        (pl.col("seconds_per_iteration") * 1e3).alias("iteration ms"),
        (pl.col("iteration_bound") * 1e3).alias("its bound ms"),
        (pl.col("seconds_per_iteration") / pl.col("iteration_bound")).alias("times its bound"),
        (pl.col("peak_memory") / (pl.col("parameters") * pl.col("item"))).alias("peak memory, weight copies"),
        (pl.col("flops") / 1e9).alias("GFLOP"),
        (pl.col("optimizer_bytes") / 1e9).alias("GB moved"),
        # The rates behind the two bounds, those of the method's own run and heights of product.
        (pl.col("flops") / pl.col("gradient_bound") / 1e9).alias("GFLOP/s of the bound"),
        (pl.col("optimizer_bytes") / (pl.col("iteration_bound") - pl.col("gradient_bound")) / 1e9).alias("GB/s"),
    )


def refreshes(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the milliseconds of a cheap step, a dear one and the mean, for methods whose steps are not alike."""
    rows = newest(rows).filter(status="ok")
    wide = rows.filter(metric="seconds_per_iteration").select("method", *PLACE, mean="value")
    for metric, name in {"steps_per_refresh": "steps a refresh", "seconds_of_refresh_step": "dear"}.items():
        values = rows.filter(metric=metric, kind="runtime").select("method", *PLACE, pl.col("value").alias(name))
        wide = wide.join(values, on=["method", *PLACE], how="inner", nulls_equal=True)
    period, mean, dear = pl.col("steps a refresh"), pl.col("mean"), pl.col("dear")
    return wide.sort("architecture", "D", "L", *SETTING, "mean").select(
        "method",
        *(name for name in PLACE if name != "shape"),
        period.cast(pl.Int64),
        ((period * mean - dear) / (period - 1) * 1e3).alias("cheap step ms"),
        (dear * 1e3).alias("step with refresh ms"),
        (mean * 1e3).alias("mean ms"),
    )


def timings(rows: pl.DataFrame) -> pl.DataFrame:
    """Return every timing in milliseconds, with its interval and the published time of the same image size."""
    names = {
        "seconds_per_iteration": "iteration",
        "seconds_per_gradient": "loss and backward",
        "seconds_of_first_iteration": "first iteration, compilation included",
        "seconds_per_log_determinant": "log-determinants of new weights",
        "seconds_per_sampling": "100 samples",
    }
    return (
        newest(rows)
        .filter(pl.col("metric").is_in(list(names)))
        .join(of_ebflow(published.runtime()), on=["architecture", "method", "shape"], how="left")
        .with_columns(pl.col("metric").replace_strict(names).alias("what"))
        .sort("what", "architecture", "D", "L", *SETTING, "value", nulls_last=True)
        .select(
            *("what", "method", "linear", "architecture", "shape", "D", "L", "parameters", *SETTING),
            (pl.col("value") * 1e3).alias("ms"),
            (pl.col("ci_low") * 1e3).alias("low"),
            (pl.col("ci_high") * 1e3).alias("high"),
            "n",
            (pl.col("published_seconds") * 1e3).alias("published ms (GPU)"),
            status(),
        )
    )


def slopes(rows: pl.DataFrame) -> pl.DataFrame:
    """Return log-log slopes of a method's time in D and in L, and the D from which on it beats maximum likelihood.

    The rivals are the fastest exact ML of dense matrices, and the fastest ML method at all, which may do without a
    determinant at every step or restrict its matrices. Compiled methods are compared with compiled ones. A crossing is
    the smallest measured D from which on the method is called faster (`harness.results.statistics`) at every larger.
    """
    rows = newest(rows)
    fine = rows.filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok")
    faster = _faster(comparisons(rows))
    lines = []
    for (method, architecture, *setting), own in fine.group_by("method", "architecture", *SETTING, maintain_order=True):
        for axis, other in (("D", "L"), ("L", "D")):
            for (size,), curve in own.group_by(other, maintain_order=True):
                times = curve.group_by(axis).agg(pl.col("value").median()).sort(axis)
                if times.height < 2:
                    continue
                slope = log_slope(times[axis].to_list(), times["value"].to_list())
                crossings = [
                    crossing(faster.get((method, architecture, size, *setting, against), {})) if axis == "D" else None
                    for against in ("exact ML", "any ML")
                ]
                at = f"{other} = {size}"
                lines.append((architecture, method, axis, at, *dataclasses.astuple(slope), *crossings, *setting))
    schema: dict[str, pl.DataType] = dict.fromkeys(("architecture", "method", "in", "at"), pl.String())
    schema |= dict.fromkeys(("slope", "low", "high"), pl.Float64())
    schema |= dict.fromkeys(("n", "faster than exact ML from D", "faster than any ML from D"), pl.Int64())
    schema |= {name: rows.schema[name] for name in SETTING}
    return pl.DataFrame(lines, schema=schema, orient="row").sort("architecture", *SETTING, "in", "at", "slope")


def _faster(compared: pl.DataFrame) -> dict[tuple[Any, ...], dict[int, bool]]:
    """Return by method, place without D, and rival, at which D the method is called faster."""
    faster: dict[tuple[Any, ...], dict[int, bool]] = {}
    keys = ["method", "architecture", "L", *SETTING, "against"]
    for *key, dimension, verdict in compared.select(*keys, "D", "verdict").iter_rows():
        faster.setdefault(tuple(key), {})[dimension] = verdict == "faster"
    return faster


def _with_fraction(cell: dict[str, Any]) -> str | None:
    if cell["value"] is None:
        return None
    fraction = "" if cell["bound"] is None else f" ({cell['bound'] / cell['value']:.0%})"
    return f"{text_of(cell['value'] * 1e3)}{fraction}{'*' if cell['noisy'] else ''}"
