"""Test NLL of every method beside the Gaussian and the published values; gradients with and without MaP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from harness.methods.families import family
from harness.report.figures.chart import Axis, Chart, Curve, Drawing, Look, Point, drawing, tell
from harness.report.figures.groups import TRAININGS, facts_of, groups, title_of
from harness.report.figures.style import colour, marker
from harness.report.tables.trainings import likelihood

_MAP = {True: ("with MaP", "blue", 0), False: ("without MaP", "vermilion", 1)}
_ELSEWHERE = "other people's"


def likelihood_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw final NLLs of every dataset and architecture, and the gradient norms where MaP was left out too."""
    scored = rows.filter((pl.col("metric") == "nll").any().over("cell"), status="ok")
    for name, group in groups(scored, TRAININGS, ["dtype"]):
        table = likelihood(group)
        if table["NLL nats"].count() > 1:
            yield _dots(name, group.filter(metric="nll"), table)
    norms = rows.filter(metric="gradient_norm", status="ok")
    for name, group in groups(norms, TRAININGS, ["dtype"]):
        group = group.filter(pl.col("MaP").n_unique().over("method") > 1)
        if not group.is_empty():
            yield _gradients(name, group)


def _dots(name: str, group: pl.DataFrame, table: pl.DataFrame) -> Drawing:
    gaussian = table.filter(method="gaussian")["NLL nats"]
    shown = pl.coalesce("NLL nats", "published NLL")
    own = table.filter(pl.col("method") != "gaussian", shown.is_not_null()).sort(shown, descending=True)
    own = own.with_columns(label=_label(table))
    kinds = {method: kind for method, *kind in group.select("method", "objective", "linear").unique().rows()}
    curves = []
    for place, row in enumerate(own.to_dicts()):
        kind = kinds.get(row["method"])
        named = family(*kind) if kind else _ELSEWHERE
        look = Look(colour(*kind) if kind else "ink", marker(row["method"]), 0)
        shared = (row["label"], row["method"], named)
        if (nll := row["NLL nats"]) is not None:
            point = Point((nll,), place, row["low"], row["high"])
            curves.append(Curve(*shared, look, (point,), "dot"))
        if (nll := row["published NLL"]) is not None:
            curves.append(Curve(*shared, Look("ink", "d", 0), (Point((nll,), place),), "open"))
    values = [curve.points[0].x[0] for curve in curves]
    axis = Axis("test NLL, nats a sample (lower is better)", log=max(values) > 3 * min(values) > 0)
    published = own["published NLL"].count() > 0
    rule = next(((value, "one Gaussian") for value in gaussian), None)
    return drawing(
        group,
        f"{name}-likelihood",
        f"{title_of(group)}: where each method ends",
        facts_of(group),
        Chart((axis,), Axis("", names=tuple(own["label"])), tuple(curves), "{label}: {x} nats", rule),
        "Test NLL in the data's own space; lines are 95 % intervals over seeds, or over draws of the dequantisation "
        "noise where there is one seed.",
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


def _gradients(name: str, group: pl.DataFrame) -> Drawing:
    curves = []
    for (method, objective, linear, preprocessed, _), curve in group.group_by(
        ["method", "objective", "linear", "MaP", "cell"], maintain_order=True
    ):
        what, shade, dash = _MAP[bool(preprocessed)]
        points = curve.sort("iteration").select("iteration", "value").rows()
        seen = tuple(Point((step,), norm) for step, norm in points)
        look = Look(shade, marker(str(method)), dash)
        curves.append(Curve(f"{method}, {what}", str(method), family(str(objective), str(linear)), look, seen))
    shown = tell(curves, [curve.points[-1].y for curve in curves])
    pairs = {curve.method for curve in shown if curve.told}
    shown = tuple(replace(curve, told=curve.method in pairs) for curve in shown)
    axes = (Axis("training steps"),), Axis("gradient norm", log=True)
    return drawing(
        group,
        f"{name}-gradient-by-map",
        f"{title_of(group)}: gradient norm with and without MaP",
        facts_of(group),
        Chart(*axes, shown, "{label}: {y} at step {x}"),
        "Norm of the last batch's gradient before clipping, with preprocessing before matching (MaP) and inside the "
        "model, one curve a training.",
    )
