"""What was followed through training: NLL against steps and seconds, and the gradient's norm."""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from harness.report.figures.drawing import Drawing
from harness.report.figures.groups import MACHINE, cells_of, footer, groups, labelled, prepared, provenance, title_of
from harness.report.figures.sheet import Sheet, label_ends, plain_log
from harness.report.figures.style import WIDTH, curve_styles, styled

_NAMED = {"experiment": "{}", "profile": "{}", "dataset": "{}", "architecture": "{}"}
# Seconds are compared: what they depend on is the same, the commit aside, for a long experiment spans several.
_REST = ["dtype", *(column for column in MACHINE if column != "commit")]
_METRICS = {
    "validation_curve": ("validation NLL, nats", "nll"),
    "validation_loss": ("own validation loss", "loss"),
    "gradient_norm": ("gradient norm", "gradient"),
}
_AXES = {"iteration": "training steps", "seconds": "seconds of training, the start included"}
# More curves, or longer names, stand in a legend.
_LABELLED, _SHORT = 7, 30


def training_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw what was followed in every training, one figure for every dataset, architecture and metric.

    Losses of two objectives are not comparable, and have a figure each.
    """
    rows = prepared(rows).drop_nulls(["iteration", "seconds"]).filter(status="ok")
    for metric in _METRICS:
        curves = rows.filter(metric=metric).filter(pl.len().over("cell") > 1)
        named = {**_NAMED, "objective": "{}"} if metric == "validation_loss" else _NAMED
        for name, group in groups(curves, named, _REST):
            yield _draw(name, labelled(group), metric)


@styled()
def _draw(name: str, group: pl.DataFrame, metric: str) -> Drawing:
    label, short = _METRICS[metric]
    top = math.inf if metric == "gradient_norm" else _top(group)
    curves = group.filter(pl.col("value") <= top)
    what = title_of(group)
    sheet = Sheet(WIDTH, 5.0, what, footer(group))
    panels = sheet.subplots(2, 1, sharey=True)
    styles = curve_styles(curves.select("label", "method", "objective", "linear").unique(maintain_order=True).rows())
    ends = []
    for (_, text), curve in curves.group_by(["cell", "label"], maintain_order=True):
        curve = curve.sort("iteration")
        said = [
            f"{text}: {value:,.1f} nats at step {step:,}, {seconds:,.0f} s"
            if metric == "validation_curve"
            else f"{text}: {value:.3g} at step {step:,}, {seconds:,.0f} s"
            for value, step, seconds in curve.select("value", "iteration", "seconds").rows()
        ]
        for panel, axis in zip(panels, _AXES, strict=True):
            (line,) = panel.plot(
                curve[axis].to_list(), curve["value"].to_list(), label=text, markersize=3, **styles[text]
            )
            sheet.say(line, said)
        ends.append((text, curve))
    for panel, axis in zip(panels, _AXES, strict=True):
        panel.set_xlabel(_AXES[axis])
        panel.set_ylabel(label)
    if metric == "gradient_norm":
        panels[0].set_yscale("log")
        plain_log(panels[0].yaxis)
    if len(ends) <= _LABELLED and all(len(text) <= _SHORT for text, _ in ends):
        # Below, curves end anywhere, and names would lie on others.
        last = [(curve["iteration"][-1], curve["value"][-1], text, styles[text]["color"]) for text, curve in ends]
        label_ends(panels[0], last)
    else:
        sheet.legend_below(panels[0])
    caption = {
        "validation_curve": "NLL of the validation set in nats a sample, in the data's own space, of the weights that "
        "would be kept.",
        "validation_loss": "What the objective minimises, on the validation set, of the same weights.",
        "gradient_norm": "Norm of the last batch's gradient before clipping, at every validation.",
    }[metric]
    shown = f"{top:,.0f}" if metric == "validation_curve" else f"{top:.3g}"
    cut = "" if curves.height == group.height else f" Points above {shown} are left out."
    title = f"{what}: {label} through training"
    return Drawing(f"{name}-{short}", title, f"{caption}{cut} {provenance(group)}.", sheet, cells_of(group))


def _top(group: pl.DataFrame) -> float:
    """Return up to where a curve is shown: where curves end decides, for they may start very far above."""
    ends = group.sort("iteration").group_by("cell").last()["value"]
    low = group["value"].min()
    return low + 2 * (ends.max() - low) if len(ends) > 1 else math.inf
