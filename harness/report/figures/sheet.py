"""The page that a figure is drawn on, and the drawing that it becomes: all that a report needs of a figure."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.report.figures.groups import cells_of, provenance
from harness.report.figures.style import WIDTH, styled, text_colour

_FOOTER = 0.2  # inches
_LINE = 10.5  # points between the baselines of two labels
_MOST_COMMITS = 2  # that a footer names
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_LONG = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is enough
ET.register_namespace("", _SVG)
ET.register_namespace("xlink", _XLINK)


@dataclass(frozen=True)
class Drawing:
    """One figure, ready to be written or put into a page.

    The same rows and the same matplotlib give the same bytes.

    Args:
        name: The name of the figure's file, without its suffix.
        title: What is shown, in a line.
        caption: What to know to read the figure, with machine and commit, in sentences.
        figure: The drawn figure.
        cells: Keys of the cells whose rows or arrays the figure shows.
    """

    name: str
    title: str
    caption: str
    figure: Sheet
    cells: tuple[str, ...]

    def __post_init__(self) -> None:
        self.figure.settle()

    def svg(self) -> str:
        """Write the figure as SVG: text stays text, every marker has a `<title>`, no other drawing has its ids."""
        file = io.StringIO()
        undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with styled(), rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(file, format="svg", metadata=undated)
        root = ET.fromstring(file.getvalue())
        for group in root.iter(f"{{{_SVG}}}g"):
            markers = group.findall(f"{{{_SVG}}}use")
            if len(styles := {marker.get("style") for marker in markers}) == 1:
                group.set("style", styles.pop() or "")  # once, not at every marker
                for marker in markers:
                    marker.attrib.pop("style", None)
            texts = self.figure.said.get(group.attrib.pop("id", ""), [])
            for marker, text in zip(group.iter(f"{{{_SVG}}}use"), texts, strict=False):
                ET.SubElement(marker, f"{{{_SVG}}}title").text = text
        for element in root.iter():
            for name in {"d", "x", "y"}.intersection(element.keys()):
                element.set(name, _LONG.sub(r"\1", element.attrib[name]))
        root.set("role", "img")
        root.set("aria-label", self.title)
        return ET.tostring(root, encoding="unicode") + "\n"


class Sheet(Figure):
    """A figure with a title above, a footer below, and points that say what they are.

    The footer says what the rows of the figure were measured with. Height and width are in inches, without a legend.
    """

    def __init__(self, group: pl.DataFrame, title: str, height: float, width: float = WIDTH) -> None:
        self._constrained = ConstrainedLayoutEngine()
        super().__init__(figsize=(width, height), layout=self._constrained)
        self.group = group
        self.said: dict[str, list[str]] = {}
        self._ends: dict[Axes, list[tuple[float, float, str, Any]]] = {}
        self.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        footer = provenance(group, _MOST_COMMITS)
        self.text(0.05, 0.04, footer, transform=self.dpi_scale_trans, fontsize=6.5, color="#666666", in_layout=False)
        self._reserve(_FOOTER)

    def curve(
        self, panel: Axes, x: Sequence[float], y: Sequence[float], texts: Sequence[str], *form: str, **look: Any
    ) -> None:
        """Plot markers and lines as `Axes.plot` does; a browser shows the text of a marker under the pointer."""
        (line,) = panel.plot(x, y, *form, **look)
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

    def drawing(self, name: str, title: str, *sentences: str) -> Drawing:
        """Finish the figure: its caption is the sentences that are not empty, and what its rows were measured with."""
        caption = " ".join([*filter(None, sentences), f"{provenance(self.group)}."])
        return Drawing(name, title, caption, self, cells_of(self.group))

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


def plain_log(axis: Axis) -> None:
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
