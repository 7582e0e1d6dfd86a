"""One look for all figures: sizes that can be read at half a page's width, and a colour for every kind of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import matplotlib.style
import polars as pl

WIDTH = 4.8  # inches, printed at 3.3
FULL_WIDTH = 7.2
INK = "#333333"

# Okabe and Ito's colours, told apart by readers with any colour vision; the marker says whose code it is.
BLUE, _SKY, _GREEN, VERMILION = "#0072B2", "#56B4E9", "#009E73", "#D55E00"
_ORANGE, _PURPLE, _BLACK = "#E69F00", "#CC79A7", "#000000"
_SCORE_MATCHING = {"dsm": BLUE, "ssm": _SKY, "tssm": _SKY, "fdssm": _GREEN}
_MARKERS = {"ebflow": "o", "nflows": "s", "normflows": "D", "zuko": "^"}
_OTHER_MARKERS = "vPX*<>"
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 2)), (0, (2, 2)), (0, (6, 1, 1, 1, 1, 1)))

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
    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def colour(objective: str, linear: str) -> str:
    """Return the colour of a kind of training: an objective of score matching, or maximum likelihood by its matrices.

    Vermilion is maximum likelihood with dense matrices, orange with restricted ones, purple without any; black is what
    replaces or estimates the likelihood's gradient in some other way.
    """
    if objective in ("ml", "sml"):
        return {"dense": VERMILION, "none": _PURPLE}.get(linear, _ORANGE)
    return _SCORE_MATCHING.get(objective, _BLACK)


def marker(method: str) -> str:
    """Return the marker of the library or author that a method's name begins with."""
    library = method.split("-")[0]
    return _MARKERS.get(library) or _OTHER_MARKERS[crc32(library.encode()) % len(_OTHER_MARKERS)]


def curve_styles(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Give every label of the rows its line: colour and marker are its method's, dashes tell apart what shares them."""
    seen: dict[tuple[str, str], int] = {}
    styles = {}
    curves = rows.select("label", "method", "objective", "linear").unique(maintain_order=True)
    for label, method, objective, linear in curves.iter_rows():
        look = colour(objective, linear), marker(method)
        seen[look] = seen.get(look, -1) + 1
        dashes = _DASHES[seen[look] % len(_DASHES)]
        styles[label] = {"color": look[0], "marker": look[1], "linestyle": dashes}
    return styles


def text_colour(name: str) -> tuple[float, float, float]:
    """Return a colour dark enough for text on white."""
    red, green, blue = matplotlib.colors.to_rgb(name)
    return 0.65 * red, 0.65 * green, 0.65 * blue
