"""One look for all figures: sizes that can be read at half a page's width, and a colour for every kind of training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import matplotlib.colors
import matplotlib.style
import polars as pl

from harness.methods.families import CLOSED, EXACT, FREE, MATCHED, OTHER, REGRESSED, RESTRICTED, family
from harness.report.figures.chart import Look

WIDTH = 4.8  # inches, printed at 3.3
FULL_WIDTH = 7.2
INK = "#333333"

COLOURS = {
    "blue": "#0066a8",
    "sky": "#3794d6",
    "green": "#00875f",
    "vermilion": "#c84f00",
    "orange": "#b37700",
    "purple": "#7d3c98",
    "pink": "#c2478f",
    "plum": "#9b1b5a",
    "rose": "#e07bb4",
    "brown": "#7a5230",
    "grey": "#66707a",
    "ink": INK,
}
"""Close to Okabe and Ito's colours, told apart by readers with any colour vision, dark enough for lines on white.

The page has the same names in `style.css`, with lighter ones for a dark page.
"""
_SCORE_MATCHING = {"dsm": "blue", "ssm": "sky", "tssm": "sky", "lcss": "sky", "fdssm": "green"}
_FREE = {"aml": "purple", "relative-gradient": "pink", "self-normalizing": "plum"}
_FAMILIES = {EXACT: "vermilion", RESTRICTED: "orange", OTHER: "brown", REGRESSED: "rose", CLOSED: "grey"}
_MARKERS = {"ebflow": "o", "nflows": "s", "normflows": "D", "zuko": "^"}
_OTHER_MARKERS = "vPX*<>"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (2, 2)), (0, (6, 1, 1, 1, 1, 1)))

_SETTINGS: dict[str, Any] = {
    "figure.dpi": 200,  # laid out as it is printed
    "text.hinting": "no_hinting",
    "text.parse_math": False,  # a name with a dollar is no formula
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.labelcolor": INK,
    "axes.edgecolor": "#777777",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "image.interpolation": "none",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, whatever the user's matplotlibrc says: a context, or a decorator of what draws."""
    with warnings.catch_warnings(), matplotlib.style.context(["default", _SETTINGS]):
        # Text stays text in an SVG file: who reads it may have the letters that are missing here.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def colour(objective: str, linear: str) -> str:
    """Return the colour of a family, or of the objective in score matching and in what needs no determinant."""
    kind = family(objective, linear)
    if kind == MATCHED:
        return _SCORE_MATCHING.get(objective, "green")
    return _FREE.get(objective, "rose") if kind == FREE else _FAMILIES[kind]


def marker(method: str) -> str:
    """Return the marker of the library or author that a method's name begins with."""
    library = method.split("-")[0]
    return _MARKERS.get(library) or _OTHER_MARKERS[crc32(library.encode()) % len(_OTHER_MARKERS)]


def looks(rows: pl.DataFrame) -> dict[str, tuple[str, Look]]:
    """Give every label of the rows its family and look.

    Colour and marker are those of its method, dashes tell apart what shares them.
    """
    seen: dict[tuple[str, str], int] = {}
    found = {}
    curves = rows.select("label", "method", "objective", "linear").unique(maintain_order=True)
    for label, method, objective, linear in curves.iter_rows():
        look = colour(objective, linear), marker(method)
        seen[look] = seen.get(look, -1) + 1
        found[label] = (family(objective, linear), Look(*look, seen[look] % len(DASHES)))
    return found


def text_colour(shade: str) -> tuple[float, float, float]:
    """Return a colour of matplotlib dark enough for text on white."""
    red, green, blue = matplotlib.colors.to_rgb(shade)
    return 0.75 * red, 0.75 * green, 0.75 * blue
