"""What was followed through training: NLL against steps and seconds, and the gradient's norm."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.report.figures.chart import Axis, Chart, Curve, Drawing, Point, drawing, tell
from harness.report.figures.groups import MACHINE, TRAININGS, groups, labelled, title_of
from harness.report.figures.style import looks
from harness.report.tables.columns import is_disturbed

# Seconds are compared: what they depend on is the same, the commit aside, for a long experiment spans several.
_REST = ["dtype", *(column for column in MACHINE if column != "commit")]
# By metric: the label of its axis, the end of the figure's name, and the unit of a value.
_METRICS = {
    "validation_curve": ("validation NLL, nats", "nll", " nats"),
    "validation_loss": ("own validation loss", "loss", ""),
    "gradient_norm": ("gradient norm", "gradient", ""),
}
_CAPTIONS = {
    "validation_curve": "NLL of the validation set in nats a sample, in the data's own space, of the weights that "
    "would be kept.",
    "validation_loss": "What the objective minimises, on the validation set, of the weights that would be kept.",
    "gradient_norm": "Norm of the last batch's gradient before clipping, at every validation.",
}
_AXES = (Axis("training steps"), Axis("seconds of training, the start included"))


def curve_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw what was followed in every training, one figure for every dataset, architecture and metric.

    A loss has a figure where two trainings of one objective have it, a gradient's norm where MaP is compared.
    """
    rows = rows.with_columns(disturbed=is_disturbed()).drop_nulls(["iteration", "seconds"])
    rows = rows.filter(pl.col("status") == "ok", pl.col("value").is_finite())
    for metric in _METRICS:
        curves = rows.filter(metric=metric).filter(pl.len().over("cell") > 1)
        loss = metric == "validation_loss"
        compared = "cell" if loss else "MaP" if metric == "gradient_norm" else None
        for name, group in groups(curves, {**TRAININGS, "objective": "{}"} if loss else TRAININGS, _REST):
            if compared is None or group[compared].n_unique() > 1:
                yield _draw(name, labelled(group), metric)


def _draw(name: str, group: pl.DataFrame, metric: str) -> Drawing:
    label, short, unit = _METRICS[metric]
    styles = looks(group)
    curves = []
    for (_, text), curve in group.group_by(["cell", "label"], maintain_order=True):
        points = curve.sort("iteration").select("iteration", "seconds", "value").rows()
        family, look = styles[str(text)]
        seen = tuple(Point((step, seconds), value) for step, seconds, value in points)
        curves.append(Curve(str(text), str(curve["method"][0]), family, look, seen))
    shown = tell(curves, [curve.points[-1].y for curve in curves])
    logarithmic = metric == "gradient_norm"
    top = None if logarithmic else _top([curve for curve in shown if curve.told])
    cut = top is not None and max(point.y for curve in shown if curve.told for point in curve.points) > top
    y = Axis(label, logarithmic, limits=(None, top))
    return drawing(
        group,
        f"{name}-{short}",
        f"{title_of(group)}: {label.partition(',')[0]} through training",
        Chart(_AXES, y, shown, f"{{label}}: {{y}}{unit} at step {{x}}, {{x2}} s"),
        _CAPTIONS[metric],
        _disturbed(group),
        f"At first the axis ends at {top:,.4g}, so that the ends of the curves can be read." if cut else "",
    )


def _disturbed(curves: pl.DataFrame) -> str:
    """Say which curves' seconds mean little; nothing if all can be trusted."""
    labels = curves.filter("disturbed")["label"].unique(maintain_order=True).to_list()
    if not labels:
        return ""
    all_of_them = len(labels) == curves["label"].n_unique()
    whose = "" if all_of_them else f" of {', '.join(labels)}"
    return f"Seconds{whose} mean little: the machine drifted during the training, or nobody watched it."


def _top(curves: list[Curve]) -> float | None:
    """Return up to where curves are shown at first: where they end decides, for they may start very far above."""
    ends = [curve.points[-1].y for curve in curves]
    low = min(point.y for curve in curves for point in curve.points)
    return low + 2 * (max(ends) - low) if len(ends) > 1 and max(ends) > low else None
