"""Test NLL of every method beside the Gaussian and the published values; gradients with and without MaP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from matplotlib.axes import Axes

from harness.report.figures.groups import TRAININGS, groups, title_of
from harness.report.figures.sheet import Drawing, Sheet, note, plain_log
from harness.report.figures.style import BLUE, INK, VERMILION, colour, marker, styled
from harness.report.tables.trainings import likelihood

_ROW = 0.19  # inches
_LOOKS = {True: {"color": BLUE, "marker": "o"}, False: {"color": VERMILION, "marker": "s"}}  # with and without MaP


def likelihood_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw final NLLs of every dataset and architecture, and the gradient norms where MaP was left out too."""
    scored = rows.filter((pl.col("metric") == "nll").any().over("cell"), status="ok")
    for name, group in groups(scored, TRAININGS, ["dtype"]):
        table = likelihood(group)
        if table["NLL nats"].count() > 1 and table.filter(pl.col("method") != "gaussian")["NLL nats"].count():
            yield _dots(name, group.filter(metric="nll"), table)
    norms = rows.filter(metric="gradient_norm", status="ok")
    for name, group in groups(norms, TRAININGS, ["dtype"]):
        group = group.filter(pl.col("MaP").n_unique().over("method") > 1)
        if not group.is_empty():
            yield _gradients(name, group)


@styled()
def _dots(name: str, group: pl.DataFrame, table: pl.DataFrame) -> Drawing:
    gaussian = table.filter(method="gaussian")["NLL nats"]
    shown = pl.coalesce("NLL nats", "published NLL")
    own = table.filter(pl.col("method") != "gaussian", shown.is_not_null()).sort(shown, descending=True)
    own = own.with_columns(label=_label(table))
    what = title_of(group)
    sheet = Sheet(group, what, 1.2 + _ROW * own.height)
    panel = sheet.subplots()
    kinds = {method: kind for method, *kind in group.select("method", "objective", "linear").unique().rows()}
    for place, row in enumerate(own.to_dicts()):
        _dot(sheet, panel, place, row, kinds.get(row["method"], []))
    for value in gaussian[:1]:
        panel.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        above = ("data", "axes fraction")
        note(panel, f"one Gaussian, {value:,.1f}", (value, 1.0), (3, 2), xycoords=above, fontsize=7.5)
    panel.set_yticks(range(own.height), own["label"].to_list(), fontsize=7.5)
    panel.set(ylim=(-0.7, own.height - 0.3), xlabel="test NLL, nats a sample (lower is better)")
    values = [*own["NLL nats"].drop_nulls(), *own["published NLL"].drop_nulls()]
    if max(values) > 3 * min(values) > 0:
        panel.set_xscale("log")
        plain_log(panel.xaxis)
    published = own["published NLL"].count() > 0
    return sheet.drawing(
        f"{name}-likelihood",
        f"{what}: test NLL",
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


def _dot(sheet: Sheet, panel: Axes, place: int, row: dict[str, Any], kind: list[str]) -> None:
    """Draw one line of the table: its NLL with the interval, and the published one."""
    label, nll, published = row["label"], row["NLL nats"], row["published NLL"]
    if nll is not None:
        shade = colour(*kind)
        if row["low"] is not None:
            panel.plot([row["low"], row["high"]], [place, place], color=shade, linewidth=2, alpha=0.4)
        sheet.curve(panel, [nll], [place], [f"{label}: {nll:,.1f} nats"], marker(row["method"]), color=shade)
    if published is not None:
        open_diamond = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.8}
        sheet.curve(panel, [published], [place], [f"{label}, published: {published:,.1f} nats"], "d", **open_diamond)


@styled()
def _gradients(name: str, group: pl.DataFrame) -> Drawing:
    methods = group["method"].unique().sort().to_list()
    what = title_of(group)
    lines = -(-len(methods) // 2)
    sheet = Sheet(group, what, 0.7 + 1.5 * lines)
    panels = sheet.subplots(lines, min(2, len(methods)), sharex=True, sharey=True, squeeze=False)
    for panel, method in zip(panels.flat, methods, strict=False):
        for (preprocessed, _), curve in group.filter(method=method).group_by(["MaP", "cell"], maintain_order=True):
            label = "with MaP" if preprocessed else "without MaP"
            points = curve.sort("iteration").select("iteration", "value").rows()
            texts = [f"{method}, {label}: {value:.3g} at step {step:,}" for step, value in points]
            steps, norms = zip(*points, strict=True)
            sheet.curve(panel, steps, norms, texts, markersize=3, label=label, **_LOOKS[bool(preprocessed)])
        panel.set_title(method, fontsize=8)
        panel.set_yscale("log")
        plain_log(panel.yaxis)
    for empty in list(panels.flat)[len(methods) :]:
        empty.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("training steps")
    for panel in panels[:, 0]:
        panel.set_ylabel("gradient norm")
    sheet.legend_below(panels[0, 0])
    return sheet.drawing(
        f"{name}-gradient-by-map",
        f"{what}: gradient norm with and without MaP",
        "Norm of the last batch's gradient before clipping, with preprocessing before matching (MaP) and inside the "
        "model, one curve a training.",
    )
