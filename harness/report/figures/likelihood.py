"""Where every method ends: test NLL beside the Gaussian and the published values, with MaP and EMA or not, and KL."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.methods.families import family
from harness.report.figures.chart import Axis, Chart, Curve, Drawing, Look, Point, drawing
from harness.report.figures.groups import TRAININGS, groups, title_of
from harness.report.figures.style import colour, marker
from harness.report.tables.trainings import ablation, likelihood, points

_ELSEWHERE = "other people's"
_SPACE = (
    "Test NLL in the data's own space; lines are 95 % intervals over seeds, or over draws of the dequantisation noise "
    "where there is one seed."
)
_SWITCHES = pl.concat_str(
    "method",
    *(pl.when(flag).then(pl.lit(f"with {flag}")).otherwise(pl.lit(f"no {flag}")) for flag in ("MaP", "EMA")),
    separator=", ",
)


def likelihood_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw final NLLs of every dataset and architecture, with and without MaP and EMA, and the KL where it is known."""
    scored = rows.filter((pl.col("metric") == "nll").any().over("cell"), status="ok")
    for name, group in groups(scored, TRAININGS, ["dtype"]):
        own = group.filter(metric="nll")
        table = likelihood(group)
        if table["NLL nats"].count() > 1:
            yield from _dots(f"{name}-likelihood", own, table.with_columns(label=_label(table)), "test NLL", _SPACE)
        table = ablation(group)
        if table["NLL nats"].count() > 1:
            table = table.with_columns(label=_SWITCHES)
            yield from _dots(f"{name}-ablation", own, table, "test NLL with and without MaP and EMA", _SPACE)
        table = points(group)
        if table["KL nats"].count() > 1:
            table = table.select("method", pl.col("KL nats").alias("NLL nats"), label="method")
            yield from _dots(f"{name}-divergence", own, table, "KL divergence from the truth", "KL over the test set.")


def _dots(name: str, group: pl.DataFrame, table: pl.DataFrame, what: str, sentence: str) -> Iterator[Drawing]:
    """Draw a table with the columns method, label and NLL nats, and low, high and published NLL if any.

    Nothing is drawn where one Gaussian alone has a number.
    """
    missing = [name for name in ("low", "high", "published NLL") if name not in table.columns]
    table = table.with_columns(pl.lit(None, pl.Float64).alias(name) for name in missing)
    gaussian = table.filter(method="gaussian")["NLL nats"].drop_nulls()
    shown = pl.coalesce("NLL nats", "published NLL")
    own = table.filter(pl.col("method") != "gaussian", shown.is_finite()).sort(shown, descending=True)
    kinds = {method: kind for method, *kind in group.select("method", "objective", "linear").unique().rows()}
    curves = []
    for place, row in enumerate(own.to_dicts()):
        kind = kinds.get(row["method"])
        named = family(*kind) if kind else _ELSEWHERE
        look = Look(colour(*kind) if kind else "ink", marker(row["method"]), 0)
        shared = (row["label"], row["method"], named)
        if (value := row["NLL nats"]) is not None:
            curves.append(Curve(*shared, look, (Point((value,), place, row["low"], row["high"]),), "dot"))
        if (value := row["published NLL"]) is not None:
            curves.append(Curve(*shared, Look("ink", "d", 0), (Point((value,), place),), "open"))
    if not own["NLL nats"].count():
        return
    values = [curve.points[0].x[0] for curve in curves]
    axis = Axis(f"{what.partition(' with')[0]}, nats (lower is better)", log=max(values) > 3 * min(values) > 0)
    published = own["published NLL"].count() > 0
    rule = next(((value, "one Gaussian") for value in gaussian), None)
    yield drawing(
        group,
        name,
        f"{title_of(group)}: {what}",
        Chart((axis,), Axis("", names=tuple(own["label"])), tuple(curves), "{label}: {x} nats", rule),
        sentence,
        "Open diamonds are published values, the paper's and those of other systems." if published else "",
        "The dashed line is one full-covariance Gaussian in closed form." if len(gaussian) else "",
    )


def _label(table: pl.DataFrame) -> pl.Expr:
    """Name a line of the table: its method, and its recipe and EMA where they differ; other people's by its system."""
    parts = [pl.col("method")]
    if table.filter(pl.col("NLL nats").is_not_null())["recipe"].n_unique() > 1:
        parts.append(pl.col("recipe"))
    if table["EMA"].drop_nulls().n_unique() > 1:
        parts.append(pl.when("EMA").then(pl.lit("EMA")).otherwise(pl.lit("no EMA")))
    elsewhere = pl.col("method").str.split(" (").list.first() + ", elsewhere"
    return pl.when(pl.col("NLL nats").is_null()).then(elsewhere).otherwise(pl.concat_str(parts, separator=", "))
