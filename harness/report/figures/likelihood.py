"""Test NLL of every method beside the Gaussian and the published values; gradients with and without MaP."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.report.figures.drawing import Drawing
from harness.report.figures.groups import cells_of, footer, groups, prepared, provenance, title_of
from harness.report.figures.sheet import Sheet, plain_log
from harness.report.figures.style import INK, WIDTH, colour, marker, styled
from harness.report.tables.likelihood import likelihood

_NAMED = {"experiment": "{}", "profile": "{}", "dataset": "{}", "architecture": "{}"}
_ROW = 0.19  # inches
_WITH, _WITHOUT = "#0072B2", "#D55E00"


def likelihood_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw final NLLs of every dataset and architecture, and the gradient norms where MaP was left out too."""
    rows = prepared(rows)
    scored = rows.filter((pl.col("metric") == "nll").any().over("cell"), status="ok")
    for name, group in groups(scored, _NAMED, ["dtype"]):
        table = likelihood(group.select(pl.exclude("EMA", "MaP")))
        if table["NLL nats"].count() > 1:
            yield _dots(name, group.filter(metric="nll"), table)
    norms = rows.filter(metric="gradient_norm", status="ok")
    for name, group in groups(norms, _NAMED, ["dtype"]):
        group = group.filter(pl.col("MaP").n_unique().over("method") > 1)
        if not group.is_empty():
            yield _gradients(name, group)


@styled()
def _dots(name: str, group: pl.DataFrame, table: pl.DataFrame) -> Drawing:
    kinds = {method: kind for method, *kind in group.select("method", "objective", "linear").unique().rows()}
    recipes = table.filter(pl.col("NLL nats").is_not_null())["recipe"].n_unique() > 1
    averages = table["EMA"].drop_nulls().n_unique() > 1
    gaussian = table.filter(method="gaussian")["NLL nats"]
    shown = pl.coalesce("NLL nats", "published NLL")
    own = table.filter(pl.col("method") != "gaussian", shown.is_not_null()).sort(shown, descending=True)
    what = title_of(group)
    sheet = Sheet(WIDTH, 1.2 + _ROW * own.height, what, footer(group))
    panel = sheet.subplots()
    labels = []
    for place, row in enumerate(own.to_dicts()):
        if row["NLL nats"] is None:
            label = row["method"].split(" (")[0] + ", elsewhere"
        else:
            label = row["method"] + f", {row['recipe']}" * recipes + (", EMA" if row["EMA"] else ", no EMA") * averages
            shade = colour(*kinds[row["method"]])
            if row["low"] is not None:
                panel.plot([row["low"], row["high"]], [place, place], color=shade, linewidth=2, alpha=0.4)
            (point,) = panel.plot(row["NLL nats"], place, marker(row["method"]), color=shade)
            sheet.say(point, [f"{label}: {row['NLL nats']:,.1f} nats"])
        labels.append(label)
        if row["published NLL"] is not None:
            (paper,) = panel.plot(
                row["published NLL"], place, "d", markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.8
            )
            sheet.say(paper, [f"{label}, published: {row['published NLL']:,.1f} nats"])
    for value in gaussian[:1]:
        panel.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        panel.annotate(
            f"one Gaussian, {value:,.1f}",
            (value, 1.0),
            (3, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7.5,
        )
    panel.set_yticks(range(len(labels)), labels, fontsize=7.5)
    panel.set_ylim(-0.7, len(labels) - 0.3)
    values = pl.concat([own["NLL nats"], own["published NLL"]])
    if values.max() > 3 * values.min() > 0:
        panel.set_xscale("log")
        plain_log(panel.xaxis)
    panel.set_xlabel("test NLL, nats a sample (lower is better)")
    published = own["published NLL"].count() > 0
    caption = [
        "Test NLL in the data's own space; lines are 95 % intervals over seeds, or over draws of the dequantisation "
        "noise where there is one seed.",
        "Open diamonds are published values, the paper's and those of other systems." if published else "",
        "The dashed line is one full-covariance Gaussian in closed form." if len(gaussian) else "",
        f"{provenance(group)}.",
    ]
    return Drawing(f"{name}-likelihood", f"{what}: test NLL", " ".join(filter(None, caption)), sheet, cells_of(group))


@styled()
def _gradients(name: str, group: pl.DataFrame) -> Drawing:
    methods = group["method"].unique().sort().to_list()
    what = title_of(group)
    sheet = Sheet(WIDTH, 0.7 + 1.5 * -(-len(methods) // 2), what, footer(group))
    panels = sheet.subplots(-(-len(methods) // 2), min(2, len(methods)), sharex=True, sharey=True, squeeze=False)
    for panel, method in zip(panels.flat, methods, strict=False):
        for (preprocessed, _), curve in group.filter(method=method).group_by(["MaP", "cell"], maintain_order=True):
            curve = curve.sort("iteration")
            label = "with MaP" if preprocessed else "without MaP"
            look = {"color": _WITH, "marker": "o"} if preprocessed else {"color": _WITHOUT, "marker": "s"}
            (line,) = panel.plot(
                curve["iteration"].to_list(), curve["value"].to_list(), markersize=3, label=label, **look
            )
            steps = curve.select("value", "iteration").rows()
            sheet.say(line, [f"{method}, {label}: {value:.3g} at step {step:,}" for value, step in steps])
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
    caption = (
        "Norm of the last batch's gradient before clipping, with preprocessing before matching (MaP) and inside the "
        f"model, one curve a training. {provenance(group)}."
    )
    return Drawing(
        f"{name}-gradient-by-map", f"{what}: gradient norm with and without MaP", caption, sheet, cells_of(group)
    )
