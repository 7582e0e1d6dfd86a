"""The page that a figure is drawn on: its title, its footer, what its points say, and names at the ends of curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness.report.figures.style import text_colour

_FOOTER = 0.2  # inches
_LINE = 10.5  # points between the baselines of two labels


class Sheet(Figure):
    """A figure with a title above, a footer below, and points that say what they are.

    Args:
        width: Inches.
        height: Inches.
        title: What is shown.
        footer: Machine and commit.
    """

    def __init__(self, width: float, height: float, title: str, footer: str) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        self.said: dict[str, list[str]] = {}
        self.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
        inches = self.dpi_scale_trans
        self.text(0.05, 0.04, footer, transform=inches, fontsize=6.5, color="#666666", in_layout=False)
        self._reserve(_FOOTER)

    def legend_below(self, panel: Axes, columns: int = 2) -> None:
        """Name the curves of a panel below all panels, in fewer columns if they are too wide; the sheet grows by it."""
        place = self.get_figwidth() / 2, _FOOTER
        handles, labels = panel.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))  # one line in the legend for curves of one name
        legend = self.legend(
            list(named.values()),
            list(named),
            loc="lower center",
            ncols=columns,
            bbox_to_anchor=place,
            bbox_transform=self.dpi_scale_trans,
        )
        if columns > 1 and legend.get_window_extent().width > self.get_figwidth() * self.dpi:
            legend.remove()
            self.legend_below(panel, columns - 1)
            return
        height = legend.get_window_extent().height / self.dpi
        self.set_figheight(self.get_figheight() + height)
        self._reserve(_FOOTER + height)

    def settle(self) -> None:
        """Lay the page out for good: every drawing would move what is on it a little further."""
        for _ in range(2):
            self.draw_without_rendering()
        self.set_layout_engine("none")

    def _reserve(self, below: float) -> None:
        """Keep the panels above so many inches."""
        share = below / self.get_figheight()
        self.get_layout_engine().set(rect=(0, share, 1, 1 - share))

    def say(self, points: Artist, texts: Sequence[str]) -> None:
        """Give every marker of an artist the text that a browser shows when the pointer rests on it."""
        name = f"points-{len(self.said)}"
        points.set_gid(name)
        self.said[name] = list(texts)


def plain_log(axis: Axis) -> None:
    """Put plain numbers on a log axis with its final limits: powers of ten, or 1, 2, 5 where it spans few of them."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def label_ends(panel: Axes, ends: Sequence[tuple[float, float, str, Any]]) -> None:
    """Write names to the right of where curves end, moved apart where they would touch.

    Call it last: it needs the limits of the axes.

    Args:
        panel: With its final limits.
        ends: Coordinates, name and colour of each.
    """
    panel.figure.draw_without_rendering()
    scale = 72 / panel.figure.dpi
    ends = sorted(ends, key=lambda end: end[1])
    heights = [float(panel.transData.transform((x, y))[1]) * scale for x, y, _, _ in ends]
    bottom, top = (edge * scale for edge in (panel.bbox.y0, panel.bbox.y1))
    for (x, y, name, colour), height, place in zip(ends, heights, _apart(heights, bottom, top), strict=True):
        panel.annotate(
            name,
            (x, y),
            (14, place - height),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=text_colour(colour),
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


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
