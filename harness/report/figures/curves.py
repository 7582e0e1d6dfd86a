"""What was followed through training: NLL against steps and seconds, and the gradient's norm."""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from harness.report.figures.groups import MACHINE, TRAININGS, groups, labelled, title_of
from harness.report.figures.sheet import Drawing, Sheet, plain_log
from harness.report.figures.style import curve_styles, styled
from harness.report.tables.columns import is_disturbed

# Seconds are compared: what they depend on is the same, the commit aside, for a long experiment spans several.
_REST = ["dtype", *(column for column in MACHINE if column != "commit")]
# By metric: the label of its axis, the end of the figure's name, and how a value is written.
_METRICS = {
    "validation_curve": ("validation NLL, nats", "nll", "{:,.1f} nats"),
    "validation_loss": ("own validation loss", "loss", "{:.3g}"),
    "gradient_norm": ("gradient norm", "gradient", "{:.3g}"),
}
_CAPTIONS = {
    "validation_curve": "NLL of the validation set in nats a sample, in the data's own space, of the weights that "
    "would be kept.",
    "validation_loss": "What the objective minimises, on the validation set, of the weights that would be kept.",
    "gradient_norm": "Norm of the last batch's gradient before clipping, at every validation.",
}
_AXES = {"iteration": "training steps", "seconds": "seconds of training, the start included"}
# More curves, or longer names, stand in a legend.
_LABELLED, _SHORT = 7, 30


def curve_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw what was followed in every training, one figure for every dataset, architecture and metric.

    Losses of two objectives are not comparable, and have a figure each.
    """
    rows = rows.with_columns(disturbed=is_disturbed()).drop_nulls(["iteration", "seconds"]).filter(status="ok")
    for metric in _METRICS:
        curves = rows.filter(metric=metric).filter(pl.len().over("cell") > 1)
        named = {**TRAININGS, "objective": "{}"} if metric == "validation_loss" else TRAININGS
        for name, group in groups(curves, named, _REST):
            yield _draw(name, labelled(group), metric)


@styled()
def _draw(name: str, group: pl.DataFrame, metric: str) -> Drawing:
    label, short, form = _METRICS[metric]
    top = math.inf if metric == "gradient_norm" else _top(group)
    curves = group.filter(pl.col("value") <= top)
    what = title_of(group)
    sheet = Sheet(group, what, 5.0)
    panels = sheet.subplots(2, 1, sharey=True)
    styles = curve_styles(curves)
    for (_, text), curve in curves.group_by(["cell", "label"], maintain_order=True):
        curve = curve.sort("iteration")
        points = curve.select("value", "iteration", "seconds").rows()
        star = "*" if curve["disturbed"].any() else ""
        texts = [
            f"{text}: {form.format(value)} at step {step:,}, {seconds:,.0f} s{star}" for value, step, seconds in points
        ]
        for panel, axis in zip(panels, _AXES, strict=True):
            look = styles[str(text)]
            sheet.curve(panel, curve[axis].to_list(), curve["value"].to_list(), texts, label=text, markersize=3, **look)
    for panel, name_of_axis in zip(panels, _AXES.values(), strict=True):
        panel.set(xlabel=name_of_axis, ylabel=label)
    if metric == "gradient_norm":
        panels[0].set_yscale("log")
        plain_log(panels[0].yaxis)
    if curves["cell"].n_unique() <= _LABELLED and all(len(text) <= _SHORT for text in styles):
        # Over seconds curves end anywhere, and names would lie on other curves.
        sheet.label_ends(panels[0])
    else:
        sheet.legend_below(panels[0])
    highest = f"{top:,.0f}" if metric == "validation_curve" else f"{top:.3g}"
    cut = "" if curves.height == group.height else f"Points above {highest} are left out."
    return sheet.drawing(
        f"{name}-{short}", f"{what}: {label} through training", _CAPTIONS[metric], cut, _disturbed(curves)
    )


def _disturbed(curves: pl.DataFrame) -> str:
    """Say which curves' seconds mean little; nothing if all can be trusted."""
    labels = curves.filter("disturbed")["label"].unique(maintain_order=True).to_list()
    if not labels:
        return ""
    all_of_them = len(labels) == curves["label"].n_unique()
    whose = "" if all_of_them else f" of {', '.join(labels)}"
    return f"Seconds{whose} mean little: the machine drifted during the training, or nobody watched it."


def _top(group: pl.DataFrame) -> float:
    """Return up to where a curve is shown: where curves end decides, for they may start very far above."""
    ends = group.sort("iteration").group_by("cell").last()["value"]
    low = min(group["value"])
    return float(low + 2 * (max(ends) - low)) if len(ends) > 1 else math.inf
