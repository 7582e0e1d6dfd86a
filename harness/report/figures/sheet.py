"""Figures as SVG files: matplotlib draws what `chart.py` describes."""

from __future__ import annotations

import base64
import io
import math
import re
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Scale
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from harness.report.figures.chart import Axis, Chart, Curve, Drawing, Picture, Pictures, as_png, not_made
from harness.report.figures.style import COLOURS, DASHES, FULL_WIDTH, INK, WIDTH, styled, text_colour

_FOOTER = 0.3  # inches
_LINE = 10.5  # points between the baselines of two labels
_LABELLED, _SHORT = 12, 34  # curves are named at their ends; more, or longer names, stand in a legend
_TICK = 0.135  # of the axis, at least, between two numbers
_ROW = 0.19  # inches a name on an axis
_PANEL = 1.16  # inches a row of panels, and a line of their titles
_TITLE = 0.12
_LETTERS = 15  # of an inch of a panel's title
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LONG = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is enough
ET.register_namespace("", _SVG)
ET.register_namespace("xlink", _XLINK)


def to_svg(drawing: Drawing) -> str:
    """Write a figure as SVG: text stays text, every marker has a `<title>`, no other drawing has its ids.

    The same rows and the same matplotlib give the same bytes. A figure that matplotlib cannot draw says why.
    """
    try:
        with np.errstate(all="ignore"):
            return _svg(drawing)
    except Exception as error:  # numbers near the largest there is fail in many places of matplotlib
        return _svg(replace(drawing, content=not_made(error)))


def _svg(drawing: Drawing) -> str:
    sheet = sheet_of(drawing)
    file = io.StringIO()
    undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled(), rc_context({"svg.fonttype": "none", "svg.hashsalt": drawing.name}):
        sheet.savefig(file, format="svg", metadata=undated)
    root = ET.fromstring(file.getvalue())
    for group in root.iter(f"{{{_SVG}}}g"):
        markers = group.findall(f"{{{_SVG}}}use")
        if len(styles := {marker.get("style") for marker in markers}) == 1:
            group.set("style", styles.pop() or "")  # once, not at every marker
            for marker in markers:
                marker.attrib.pop("style", None)
        texts = sheet.said.get(group.attrib.pop("id", ""), [])
        for marker, text in zip(group.iter(f"{{{_SVG}}}use"), texts, strict=False):
            ET.SubElement(marker, f"{{{_SVG}}}title").text = text
    for image in root.iter(f"{{{_SVG}}}image"):
        link = f"{{{_XLINK}}}href"
        four_channels = base64.b64decode(image.attrib[link].partition(",")[2])
        image.set(link, as_png(np.asarray(Image.open(io.BytesIO(four_channels)).convert("RGB"))))
    for element in root.iter():
        for name in {"d", "x", "y"}.intersection(element.keys()):
            element.set(name, _LONG.sub(r"\1", element.attrib[name]))
    root.set("role", "img")
    root.set("aria-label", drawing.title)
    return ET.tostring(root, encoding="unicode") + "\n"


def sheet_of(drawing: Drawing) -> Sheet:
    """Draw a figure: of a chart the curves that are told, each on every horizontal axis."""
    with styled():
        if isinstance(drawing.content, Chart):
            sheet = _with_chart(drawing, drawing.content)
        else:
            sheet = _with_pictures(drawing, drawing.content)
        sheet.settle()
    return sheet


def _with_chart(drawing: Drawing, chart: Chart) -> Sheet:
    plain = 5.0 if len(chart.xs) > 1 else 3.6
    sheet = Sheet(drawing, 1.2 + _ROW * len(chart.y.names) if chart.y.names else plain)
    panels = sheet.subplots(len(chart.xs), 1, sharey=True, squeeze=False)[:, 0]
    for place, (panel, axis) in enumerate(zip(panels, chart.xs, strict=True)):
        for curve in chart.told:
            _draw(sheet, panel, chart, curve, place)
        _mark(panel, chart)  # first, because a scale fixes its limits
        _scale(panel, "x", axis)
        _scale(panel, "y", chart.y)
    lines = [curve for curve in chart.told if curve.kind == "line"]
    if chart.y.names:
        pass
    elif len(lines) <= _LABELLED and all(len(curve.label) <= _SHORT for curve in lines):
        # Over seconds curves end anywhere, and names would lie on other curves.
        sheet.label_ends(panels[0])
    else:
        sheet.legend_below(panels[0])
    return sheet


def _draw(sheet: Sheet, panel: Axes, chart: Chart, curve: Curve, place: int) -> None:
    """Draw one curve on one of the horizontal axes."""
    x, y = [point.x[place] for point in curve.points], [point.y for point in curve.points]
    shade = COLOURS[curve.look.colour]
    if curve.kind == "pale":
        panel.plot(x, y, color=shade, alpha=0.35, linewidth=2.5, zorder=1)
        return
    texts = [chart.read(curve, point) for point in curve.points]
    look: dict[str, Any] = {"color": shade, "marker": curve.look.marker, "linestyle": "none", "label": curve.label}
    if curve.kind == "open":
        look |= {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.8}
    elif curve.kind == "line":
        look |= {"linestyle": DASHES[curve.look.dash], "markersize": 3 if len(chart.xs) > 1 else 4.5}
    ends = [
        (left, point.y, point.low, point.high)
        for left, point in zip(x, curve.points, strict=True)
        if point.low is not None and point.high is not None
    ]
    if curve.kind == "dot":
        for _, height, low, high in ends:
            panel.plot([low, high], [height, height], color=shade, linewidth=2, alpha=0.4)
    elif ends:
        at, _, lows, highs = zip(*ends, strict=True)
        panel.fill_between(at, lows, highs, color=shade, alpha=0.15, linewidth=0)
    sheet.curve(panel, x, y, texts, **look)
    if curve.ring is not None:
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.9}
        panel.plot(curve.ring, dict(zip(x, y, strict=True))[curve.ring], "o", markersize=9, **ring)


def _mark(panel: Axes, chart: Chart) -> None:
    """Draw what is pointed out beside the curves."""
    if chart.rule:
        value, text = chart.rule
        line: dict[str, Any] = {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 2))}
        if chart.y.names:
            panel.axvline(value, **line)
            above = ("data", "axes fraction")
            low, high = panel.get_xlim()
            side = ("left", 3) if value < (low + high) / 2 else ("right", -3)  # the text ends inside the panel
            label = f"{text}, {value:,.1f}"
            note(panel, label, (value, 1.0), (side[1], 2), xycoords=above, fontsize=7.5, ha=side[0])
        else:
            panel.axhline(value, **line)
    if chart.gap:
        x, low, high, text = chart.gap
        arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 3, "shrinkB": 3}
        panel.annotate("", (x, low), (x, high), arrowprops=arrow)
        look = {"va": "center", "fontweight": "bold"}
        note(panel, text, (0, 1), (6, -10), xycoords="axes fraction", **look)
    if any(curve.ring is not None for curve in chart.told):
        text = "○ faster than every exact ML\nfrom here on"
        panel.text(0.99, 0.03, text, ha="right", fontsize=7, transform=panel.transAxes)


def _scale(panel: Axes, side: str, axis: Axis) -> None:
    """Put label, limits and numbers of an axis, x or y, onto a panel."""
    scale = {"x": panel.xaxis, "y": panel.yaxis}[side]
    scale.set_label_text(axis.label)
    if axis.names:
        scale.set_ticks(range(len(axis.names)), list(axis.names), fontsize=7.5)
        panel.set(**{f"{side}lim": (-0.7, len(axis.names) - 0.3)})
        return
    panel.set(**{f"{side}scale": "log" if axis.log else "linear", f"{side}lim": axis.limits})
    if axis.ticks:
        ticks = list(axis.ticks)
        numbered = [ticks[-1]]
        for size in ticks[-2::-1]:  # a number stands where it does not touch that of the next larger size
            if math.log(numbered[-1] / size) > _TICK * math.log(ticks[-1] / ticks[0]) or size == ticks[0]:
                numbered.append(size)
        scale.set_ticks(ticks, [f"{size:g}" if size in numbered else "" for size in ticks])
        scale.set_minor_locator(NullLocator())
    elif axis.log:
        plain_log(scale)


def _with_pictures(drawing: Drawing, content: Pictures) -> Sheet:
    """Lay out panels in rows, with titles that are broken into lines."""
    columns = min(content.columns, len(content.panels))
    lines = -(-len(content.panels) // columns)
    letters = int(_LETTERS * WIDTH / max(columns, 3))
    titles = [
        "\n".join(textwrap.fill(text, letters) for text in filter(None, (panel.title, panel.note)))
        for panel in content.panels
    ]
    rows = [titles[start : start + columns] for start in range(0, len(titles), columns)]
    height = sum(_TITLE * max(title.count("\n") + 1 for title in row) for row in rows)
    sheet = Sheet(drawing, 0.4 + height + (0.55 if columns == 1 else _PANEL * 4 / max(columns, 3)) * lines)
    panels = list(sheet.subplots(lines, columns, squeeze=False).flat)
    for panel, title, shown in zip(panels, titles, content.panels, strict=False):
        panel.set_title(title, fontsize=6.5)
        _show(panel, shown)
    for empty in panels[len(titles) :]:
        empty.set_visible(False)
    return sheet


def _show(panel: Axes, picture: Picture) -> None:
    if picture.pixels is not None:
        panel.imshow(picture.pixels)
    elif picture.needles is not None:
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO] * len(picture.needles)
        panel.add_patch(PathPatch(Path(picture.needles.reshape(-1, 2), codes), facecolor=COLOURS["blue"], linewidth=0))
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panel.set(xticks=[], yticks=[])
    panel.grid(False)
    panel.spines[:].set(visible=True, color="#cccccc", linewidth=0.4)


class Sheet(Figure):
    """A figure with a title above, a footer below, and points that say what they are.

    The height is in inches, without title and legend.
    """

    def __init__(self, drawing: Drawing, height: float) -> None:
        self._constrained = ConstrainedLayoutEngine()
        width = FULL_WIDTH if drawing.wide else WIDTH
        title = textwrap.fill(drawing.title, int(12.5 * width))
        height += 0.16 * (title.count("\n") + 1)
        super().__init__(figsize=(width, height), layout=self._constrained)
        self.said: dict[str, list[str]] = {}
        self._ends: dict[Axes, list[tuple[float, float, str, Any]]] = {}
        self.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        footer = f"{drawing.facts}\n{drawing.footer}"
        look: dict[str, Any] = {"fontsize": 6.5, "color": "#666666", "in_layout": False}
        self.text(0.05, 0.05, footer, transform=self.dpi_scale_trans, **look)
        self._reserve(_FOOTER)

    def curve(self, panel: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str], **look: Any) -> None:
        """Plot markers and lines as `Axes.plot` does; a browser shows the text of a marker under the pointer."""
        (line,) = panel.plot(x, y, **look)
        name = f"points-{len(self.said)}"
        line.set_gid(name)
        self.said[name] = list(texts)
        self._ends.setdefault(panel, []).append((x[-1], y[-1], str(line.get_label()), line.get_color()))

    def legend_below(self, panel: Axes, columns: int = 2) -> None:
        """Name the curves of a panel below all panels, in fewer columns if they are too wide; the sheet grows by it."""
        place = self.get_figwidth() / 2, _FOOTER
        handles, labels = panel.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))  # one line in the legend for curves of one name
        anchor: dict[str, Any] = {"bbox_to_anchor": place, "bbox_transform": self.dpi_scale_trans}
        legend = self.legend(list(named.values()), list(named), loc="lower center", ncols=columns, **anchor)
        if columns > 1 and legend.get_window_extent().width > self.get_figwidth() * self.dpi:
            legend.remove()
            self.legend_below(panel, columns - 1)
            return
        height = legend.get_window_extent().height / self.dpi
        self.set_figheight(self.get_figheight() + height)
        self._reserve(_FOOTER + height)

    def label_ends(self, panel: Axes) -> None:
        """Name the curves of a panel with its final limits where they end; names that would touch are moved apart."""
        self.draw_without_rendering()
        scale = 72 / self.dpi
        ends = sorted(self._ends[panel], key=lambda end: end[1])
        heights = [float(panel.transData.transform((x, y))[1]) * scale for x, y, _, _ in ends]
        places = _apart(heights, panel.bbox.y0 * scale, panel.bbox.y1 * scale)
        line = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4, "relpos": (0, 0.5)}
        look = {"va": "center", "fontsize": 8, "annotation_clip": False}
        for (x, y, name, colour), height, place in zip(ends, heights, places, strict=True):
            arrow = {"color": colour, **line}
            note(panel, name, (x, y), (14, place - height), color=text_colour(colour), arrowprops=arrow, **look)

    def settle(self) -> None:
        """Lay the page out for good: every drawing would move what is on it a little further."""
        for _ in range(2):
            self.draw_without_rendering()
        self.set_layout_engine("none")
        for panel in self.axes:  # the last digits that the solver finds differ from run to run
            left, bottom, width, height = (round(edge, 6) for edge in panel.get_position(original=True).bounds)
            panel.set_position((left, bottom, width, height))

    def _reserve(self, below: float) -> None:
        """Keep the panels above so many inches."""
        share = below / self.get_figheight()
        self._constrained.set(rect=(0, share, 1, 1 - share))


def note(panel: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **look: Any) -> None:
    """Write a text so many points to the right of and above a place of a panel."""
    panel.annotate(text, place, offset, textcoords="offset points", **look)


def plain_log(axis: Scale) -> None:
    """Put plain numbers on a log axis with its final limits: powers of ten, or 1, 2, 5 where it spans few of them."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _apart(heights: Sequence[float], bottom: float, top: float) -> list[float]:
    """Move sorted heights as little as it takes for them to lie a line apart: clusters keep their middle."""
    clusters: list[list[float]] = []  # sum of the wanted places of the first label, and how many labels
    for height in heights:
        clusters.append([height, 1])
        while len(clusters) > 1:
            (below, many), (above, more) = clusters[-2:]
            if below / many + many * _LINE <= above / more:
                break
            clusters[-2:] = [[below + above - more * many * _LINE, many + more]]
    places = [total / many + index * _LINE for total, many in clusters for index in range(int(many))]
    lift = max(bottom - places[0], 0) if places else 0
    drop = max((places[-1] if places else 0) + lift - top, 0)
    return [place + lift - drop for place in places]
