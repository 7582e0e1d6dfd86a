"""The history of asv's benchmarks: one line a benchmark point, with a sparkline over commits."""

from __future__ import annotations

from typing import Any

import polars as pl
from markupsafe import Markup

from harness.report.tables.text import split_constants, to_html

_WIDTH, _HEIGHT, _MARGIN = 120, 24, 4
_NAMES = {
    "seconds_per_iteration": "training iteration",
    "seconds_per_log_determinant": "log-determinants of new weights",
    "seconds_per_sampling": "100 samples",
}
_COLUMNS = ["benchmark", "method", "D", "L", "cpu", "commits", "newest", "ms", "times the commit before", "changes"]


def series_table(history: pl.DataFrame) -> tuple[Markup, str]:
    """Return a table with one line for every series of benchmark points, and as a text what all lines have in common.

    Series that got slower stand first.
    """
    groups = history.group_by(["metric", "method", "D", "L", "cpu", "env"], maintain_order=True)
    ordered = sorted((group for _, group in groups), key=lambda group: -(group["change"] == "slower").sum())
    lines = []
    for group in ordered:
        last = group.row(-1, named=True)
        changes = [
            f"{change} at {commit[:8]} ({ratio:.2f} times)"
            for change, commit, ratio in group.drop_nulls("change").select("change", "commit", "ratio").rows()
        ]
        names = (_NAMES.get(last["metric"], last["metric"]), last["method"], last["D"], last["L"], last["cpu"])
        newest = (last["commit"][:8], 1e3 * last["value"], last["ratio"])
        lines.append((*names, group.height, *newest, "; ".join(changes) or None))
    frame, settings = split_constants(pl.DataFrame(lines, _COLUMNS, orient="row", infer_schema_length=None))
    return to_html(frame, {"history": [_sparkline(group) for group in ordered]}), settings


def _sparkline(group: pl.DataFrame) -> Markup:
    """Draw medians from 0 on, commit after commit; a triangle marks a commit that is slower (up) or faster (down)."""
    values = group["value"].to_list()
    top = max(values) or 1.0
    step = (_WIDTH - 2 * _MARGIN) / max(len(values) - 1, 1)
    points = [
        (_MARGIN + index * step, _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * value / top)
        for index, value in enumerate(values)
    ]
    marks = Markup("").join(_mark(x, y, row) for (x, y), row in zip(points, group.iter_rows(named=True), strict=True))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{} commits"><polyline points="{}"/>{}</svg>'
    ).format(_WIDTH, _HEIGHT, len(values), path, marks)


def _mark(x: float, y: float, row: dict[str, Any]) -> Markup:
    ratio = "" if row["ratio"] is None else f", {row['ratio']:.2f} times the commit before"
    title = f"{row['commit'][:8]}, {row['date']:%Y-%m-%d}: {1e3 * row['value']:.4g} ms{ratio}"
    if not row["change"]:
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5"><title>{}</title></circle>').format(x, y, title)
    tip = -5 if row["change"] == "slower" else 5
    shape = f"{x:.1f},{y + tip:.1f} {x - 4:.1f},{y - tip / 2:.1f} {x + 4:.1f},{y - tip / 2:.1f}"
    return Markup('<polygon class="{}" points="{}"><title>{}</title></polygon>').format(row["change"], shape, title)
