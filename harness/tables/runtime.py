"""Seconds an iteration: medians, slopes, and how near they come to what they must cost."""

from __future__ import annotations

import polars as pl

from harness.paper import published
from harness.statistics import crossing, log_slope
from harness.tables.columns import of_ebflow, status
from harness.tables.text import text_of

__all__ = ["bounds", "newest", "runtime", "slopes", "timings", "with_compiled"]

_PROBLEM = ["architecture", "shape", "D", "L", "B", "dtype", "device", "threads", "cpu", "gpu"]


def newest(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of timings, each once: of several runs of a method on a problem and machine the newest counts.

    What was compiled is another method, and named so.
    """
    key = ["experiment", "profile", "method", "metric", *_PROBLEM]
    return with_compiled(rows).sort("started_at").unique(key, keep="last", maintain_order=True)


def with_compiled(rows: pl.DataFrame) -> pl.DataFrame:
    """Name compiled methods so."""
    compiled = pl.col("config").str.json_path_match("$.config.compile") == "true"
    return rows.with_columns(
        method=pl.when(compiled).then(pl.col("method") + " (compiled)").otherwise("method"),
    )


def runtime(rows: pl.DataFrame) -> pl.DataFrame:
    """Median milliseconds an iteration, one column for every D, and why a method has a gap.

    In brackets the fraction of them that the bound is, where there is one.
    """
    rows = newest(rows)
    timings = rows.filter(metric="seconds_per_iteration")
    sizes = timings["D"].unique().sort().to_list()
    index = ["method", "linear", "architecture", "L", "B", "dtype", "device", "threads", "cpu", "gpu"]
    statuses = timings.group_by(index, maintain_order=True).agg(status().unique(maintain_order=True).str.join("; "))
    order = pl.col("value").filter(D=sizes[-1]).first() if sizes else pl.col("value").first()
    statuses = statuses.join(timings.group_by(index).agg(order.alias("order")), on=index, nulls_equal=True)
    bounds = rows.filter(metric="iteration_bound").select("method", *_PROBLEM, bound="value")
    return (
        timings.join(bounds, on=["method", *_PROBLEM], how="left", nulls_equal=True)
        .with_columns(value=pl.struct("value", "bound").map_elements(_with_fraction, return_dtype=pl.String))
        .pivot("D", index=index, values="value", aggregate_function="first")
        .join(statuses, on=index, how="left", nulls_equal=True)
        .sort("architecture", "L", "B", "order", nulls_last=True)
        .select(*index, *(pl.col(str(size)).alias(f"D = {size}") for size in sizes), "status")
    )


def bounds(rows: pl.DataFrame) -> pl.DataFrame:
    """What the cost model says, and what was measured: times in milliseconds, memory in copies of all weights."""
    rows = newest(rows).filter(status="ok")
    known = rows.filter(metric="gradient_bound")
    wide = known.select("method", "linear", "parameters", *_PROBLEM)
    metrics = ["seconds_per_gradient", "gradient_bound", "seconds_per_iteration", "iteration_bound", "flops"]
    for metric in [*metrics, "peak_memory", "optimizer_bytes"]:
        found = rows.filter(metric=metric).select("method", *_PROBLEM, pl.col("value").alias(metric))
        wide = wide.join(found, on=["method", *_PROBLEM], how="left", nulls_equal=True)
    item = pl.when(pl.col("dtype") == "float64").then(8).otherwise(4)
    return wide.sort("architecture", "D", "L", "B", "seconds_per_iteration").select(
        "method",
        "linear",
        *(name for name in _PROBLEM if name != "shape"),
        (pl.col("seconds_per_gradient") * 1e3).alias("loss and backward ms"),
        (pl.col("gradient_bound") * 1e3).alias("bound ms"),
        (pl.col("seconds_per_gradient") / pl.col("gradient_bound")).alias("times the bound"),
        (pl.col("seconds_per_iteration") * 1e3).alias("iteration ms"),
        (pl.col("iteration_bound") * 1e3).alias("its bound ms"),
        (pl.col("seconds_per_iteration") / pl.col("iteration_bound")).alias("times its bound"),
        (pl.col("peak_memory") / (pl.col("parameters") * item)).alias("peak memory, weight copies"),
        (pl.col("flops") / 1e9).alias("GFLOP"),
        (pl.col("optimizer_bytes") / 1e9).alias("GB moved"),
        # The rates behind the two bounds, those of the method's own run and heights of product.
        (pl.col("flops") / pl.col("gradient_bound") / 1e9).alias("GFLOP/s of the bound"),
        (pl.col("optimizer_bytes") / (pl.col("iteration_bound") - pl.col("gradient_bound")) / 1e9).alias("GB/s"),
    )


def timings(rows: pl.DataFrame) -> pl.DataFrame:
    """Every timing in milliseconds, with its interval and the published time of the same image size beside it."""
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
            "cpu",
            "gpu",
            (pl.col("value") * 1e3).alias("ms"),
            (pl.col("ci_low") * 1e3).alias("low"),
            (pl.col("ci_high") * 1e3).alias("high"),
            "n",
            (pl.col("published_seconds") * 1e3).alias("published ms (GPU)"),
            status(),
        )
    )


def slopes(rows: pl.DataFrame) -> pl.DataFrame:
    """How a method's time grows: log-log slopes in D and in L, and the D from which on it beats maximum likelihood.

    The rivals are the fastest ML method with any dense matrix, and the fastest ML method at all, whose matrices may
    be restricted (LU factors). A crossing is the smallest measured D from which on the method is faster at every
    larger one.
    """
    found = []
    fine = newest(rows).filter(pl.col("metric") == "seconds_per_iteration", pl.col("status") == "ok")
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


def _by(curve: pl.DataFrame, column: str) -> dict[int, float]:
    medians = curve.group_by(column).agg(pl.col("value").median()).sort(column)
    return dict(zip(medians[column].to_list(), medians["value"].to_list(), strict=True))


def _fastest(rivals: pl.DataFrame) -> dict[int, float]:
    fastest = rivals.group_by("D").agg(pl.col("value").min()).sort("D")
    return dict(zip(fastest["D"].to_list(), fastest["value"].to_list(), strict=True))


def _slope(times: dict[int, float]) -> tuple[float, float | None, float | None]:
    estimate = log_slope(list(times), list(times.values()))
    return estimate.value, estimate.low, estimate.high


def _with_fraction(cell: dict[str, float | None]) -> str | None:
    if cell["value"] is None:
        return None
    milliseconds = text_of(cell["value"] * 1e3)
    return milliseconds if cell["bound"] is None else f"{milliseconds} ({cell['bound'] / cell['value']:.0%})"
