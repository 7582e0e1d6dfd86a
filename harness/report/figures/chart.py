"""What a figure shows, as data: `sheet.py` draws it into an SVG file, the script of the page draws it there."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from harness.errors import one_line
from harness.methods.families import EXACT, FREE, OTHER, REGRESSED, RESTRICTED
from harness.report.figures.groups import cells_of, facts_of, provenance
from harness.report.tables.text import text_of

_FEW = 9
"""So many curves can be told apart; of more, only the telling ones are shown before a reader asks for others."""
_TOLD = ("ebflow-dsm", "ebflow-ml", "ebflow-aml")
"""Methods that are shown first wherever they are."""
_FAMILIES = {
    EXACT: "maximum likelihood, dense layers, every determinant",
    FREE: "maximum likelihood, dense layers, no determinant at every step",
    RESTRICTED: "maximum likelihood, restricted matrices",
    OTHER: "maximum likelihood, other flows",
    REGRESSED: "regression of a velocity, or of pairs of points",
}
"""What a reader is told of a family whose name alone is too short."""


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Args:
        label: What is on the axis, with its unit.
        log: Whether the axis is logarithmic before the reader changes it.
        ticks: The numbers that stand on the axis; chosen by the one who draws if empty.
        limits: The lower and upper limit of what is shown at first; None where the data decide.
        names: For an axis of names, what stands at 0, 1, 2 and so on.
    """

    label: str
    log: bool = False
    ticks: tuple[float, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    names: tuple[str, ...] = ()


class Look(NamedTuple):
    """How a curve looks: a colour of `style.COLOURS`, a marker of matplotlib, and the number of its dashes."""

    colour: str
    marker: str
    dash: int


class Point(NamedTuple):
    """One value: its place on every horizontal axis of the chart, its height, and the ends of its interval."""

    x: tuple[float, ...]
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Values that belong together.

    Args:
        label: The name of the curve.
        method: The method that was measured.
        family: The family of the method.
        look: Colour, marker and dashes.
        points: The values from left to right.
        kind: ``line`` (markers on a line), ``dot`` (markers alone), ``open`` (an open marker, for a published value)
            or ``pale`` (a wide, pale line behind the others, for published values).
        told: Whether the curve is shown before the reader asks for it.
        ring: The place on the first horizontal axis that is marked by a ring.
    """

    label: str
    method: str
    family: str
    look: Look
    points: tuple[Point, ...]
    kind: str = "line"
    told: bool = True
    ring: float | None = None


class Gap(NamedTuple):
    """The distance between two heights at one place, and what it says."""

    x: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves on axes.

    Args:
        xs: The horizontal axes that the same values can be shown on.
        y: The vertical axis. If it is one of names, intervals lie along the horizontal axis.
        curves: All curves, the first one drawn first.
        reading: How a point is read aloud, with ``{label}``, ``{y}``, ``{x}`` and, for a second axis, ``{x2}``.
        rule: A value marked by a dashed line, and what it is; it stands on the axis of the measured values.
        gap: A distance to point out.
    """

    xs: tuple[Axis, ...]
    y: Axis
    curves: tuple[Curve, ...]
    reading: str
    rule: tuple[float, str] | None = None
    gap: Gap | None = None

    @property
    def told(self) -> tuple[Curve, ...]:
        """The curves that are shown before a reader asks for others."""
        return tuple(curve for curve in self.curves if curve.told)

    def read(self, curve: Curve, point: Point) -> str:
        """Return a point in words."""
        places = dict(zip(("x", "x2"), map(_number, point.x), strict=False))
        return self.reading.format(label=curve.label, y=_number(point.y), **places)

    def plain(self) -> dict[str, Any]:
        """Return the chart as JSON can hold it, for the script of the page."""
        curves = [
            {
                **{name: getattr(curve, name) for name in ("label", "method", "kind", "told", "ring")},
                **curve.look._asdict(),
                "family": _FAMILIES.get(curve.family, curve.family),
                "points": [[[_short(x) for x in point.x], *map(_short, point[1:])] for point in curve.points],
            }
            for curve in self.curves
        ]
        axes = {"xs": [vars(axis) for axis in self.xs], "y": vars(self.y)}
        return {**axes, "curves": curves, "reading": self.reading, "rule": self.rule, "gap": self.gap}


@dataclass(frozen=True)
class Picture:
    """One panel that shows what a model has learned.

    Args:
        title: Whose it is.
        note: The numbers that belong to it, and whether it is saturated.
        pixels: Red, green and blue of shape (H, W, 3), uint8, the uppermost row first; None if there are needles, or
            nothing can be shown.
        needles: Triangles of shape (N, 3, 2) in a square from 0 to 1 whose second coordinate points up; None if there
            are pixels, or nothing can be shown.
    """

    title: str
    note: str
    pixels: np.ndarray | None = None
    needles: np.ndarray | None = None


def as_png(pixels: np.ndarray) -> str:
    """Write pixels of shape (H, W, 3), uint8, as a link that holds a PNG: one channel if all of them are grey."""
    file = io.BytesIO()
    grey = (pixels == pixels[..., :1]).all()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class Pictures:
    """Panels beside each other, in so many columns at most."""

    panels: tuple[Picture, ...]
    columns: int = 4


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Args:
        name: The name of the figure's file, without its suffix.
        title: What is shown, in a line.
        facts: The dataset, the network and the profile, in a line.
        caption: What to know to read the figure, with machine and commit, in sentences.
        footer: What the rows were measured with, in few words.
        experiment: The name of the experiment.
        cells: Keys of the cells whose rows or arrays the figure shows.
        content: What is drawn.
        wide: Whether the figure takes the whole width of a page.
    """

    name: str
    title: str
    facts: str
    caption: str
    footer: str
    experiment: str
    cells: tuple[str, ...]
    content: Chart | Pictures
    wide: bool = False


def not_made(error: Exception) -> Pictures:
    """Return what stands in the place of a figure that cannot be made: the reason, in words."""
    return Pictures((Picture("", textwrap.shorten(f"cannot be drawn from these rows: {one_line(error)}", 300)),), 1)


def drawing(
    group: pl.DataFrame,
    name: str,
    title: str,
    content: Chart | Pictures,
    *sentences: str,
    at: str = "",
    wide: bool = False,
) -> Drawing:
    """Put a figure of these rows together: its caption is the sentences that are not empty, and its provenance.

    What is held beside dataset, network and profile, such as L = 2, is ``at``.
    """
    hidden = 0 if isinstance(content, Pictures) else len(content.curves) - len(content.told)
    more = f"{hidden} more curves can be switched on in the report." if hidden else ""
    caption = " ".join([*filter(None, sentences), *filter(None, [more]), f"{provenance(group)}."])
    experiment, footer = str(group["experiment"][0]), provenance(group, 2)
    return Drawing(name, title, facts_of(group, at), caption, footer, experiment, cells_of(group), content, wide)


def tell(curves: Sequence[Curve], best: Sequence[float]) -> tuple[Curve, ...]:
    """Choose what is shown first where curves are many: the best of every family, the smallest value, and ours."""
    if len(curves) <= _FEW:
        return tuple(curves)
    order = sorted(range(len(curves)), key=best.__getitem__)
    telling = {curves[index].family: index for index in reversed(order)}.values()
    first = {curves[index].method: index for index in reversed(order)}
    chosen = {*telling, *(first[method] for method in _TOLD if method in first)}
    return tuple(replace(curve, told=index in chosen) for index, curve in enumerate(curves))


def _number(value: float) -> str:
    return text_of(int(value) if float(value).is_integer() else value)


def _short(value: float | None) -> float | None:
    """Return a number in the five digits that a chart can show."""
    return value if value is None or float(value).is_integer() else float(f"{value:.5g}")
