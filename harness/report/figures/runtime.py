"""Milliseconds an iteration: the one figure that answers the question, all sweeps over D and L, and the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from harness.paper import published
from harness.paper.recipes import PUBLISHED_LAYERS
from harness.report.figures.groups import MACHINE, groups
from harness.report.figures.sheet import Drawing, Sheet, note, plain_log
from harness.report.figures.style import FULL_WIDTH, INK, colour, curve_styles, styled
from harness.report.tables.comparison import comparisons, newest
from harness.results.statistics import crossing, log_slope

_OURS = "ebflow-dsm"
_AMORTISED = "ebflow-aml"
_BESIDE = ("ebflow-ssm", "ebflow-fdssm", _AMORTISED, "relative-gradient-ml")
_HEIGHT = 3.6
_TICK = 0.135  # of the axis, at least, between two numbers
_LABELLED = 12  # curves are named at their ends; more have a legend
_AXES = {"D": "dimension D", "L": "linear layers L"}


@dataclass(frozen=True)
class _Sweep:
    """Timings of some methods along one axis, D or L, all else equal: rows of all metrics, as `newest` returns them."""

    name: str  # the beginning of the names of its figures
    axis: str
    at: str  # the size that is held, such as L = 2
    rows: pl.DataFrame

    @property
    def times(self) -> pl.DataFrame:
        """The rows of the seconds an iteration."""
        return self.rows.filter(metric="seconds_per_iteration").sort("method", self.axis)

    @property
    def title(self) -> str:
        """Experiment, profile, architecture, and the size that is held."""
        first = self.rows.row(0, named=True)
        return f"{first['experiment']} ({first['profile']}), {first['architecture']}, {self.at}"

    def curve(self, method: str) -> dict[int, float]:
        """Return the seconds of a method by size."""
        return dict(self.times.filter(method=method).select(self.axis, "value").rows())

    @property
    def rival(self) -> dict[int, float]:
        """The smallest seconds that any maximum likelihood with dense matrices takes, by size."""
        dense = self.times.filter(objective="ml", linear="dense")
        return dict(dense.group_by(self.axis).agg(pl.col("value").min()).rows())

    @cached_property
    def compared(self) -> pl.DataFrame:
        """Every method against the fastest maximum likelihood with dense matrices, size by size."""
        return comparisons(self.rows).filter(against="exact ML")

    def overtakes(self, method: str) -> int | None:
        """Return the D from which on a method is called faster than maximum likelihood with dense matrices."""
        own = self.compared.filter(method=method)
        return crossing(dict(own.select("D", pl.col("verdict") == "faster").rows()))


def _sweeps(rows: pl.DataFrame, axis: str) -> Iterator[_Sweep]:
    """Yield every set of timings that differ in one size, D or L, and in nothing else that makes them comparable."""
    other = "L" if axis == "D" else "D"
    named = {"experiment": "{}", "profile": "{}", "architecture": "{}", other: f"{other}{{}}"}
    rest = ["channels", "B", "dtype", *MACHINE]
    # Compiled, every method would have a second curve close to its first; the tables have them.
    rows = rows.filter(pl.col("status") == "ok", ~pl.col("compiled"))
    rows = rows.with_columns(channels=pl.col("shape").str.extract(r"^(\d+)x"))
    sizes = pl.col(axis).filter(metric="seconds_per_iteration")
    rows = rows.filter(sizes.n_unique().over(*named, *rest, "method") > 1)
    for name, group in groups(rows, named, rest):
        yield _Sweep(name, axis, f"{other} = {group[other][0]:,}", newest(group))


def headline(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw the widest sweep over D of fc that holds DSM and maximum likelihood with dense matrices, if there is one."""
    fc = [sweep for sweep in _sweeps(rows, "D") if sweep.rows["architecture"][0] == "fc"]
    answering = [sweep for sweep in fc if sweep.curve(_OURS) and sweep.rival]
    if answering:
        yield _headline(max(answering, key=lambda sweep: (max(sweep.rows["D"]), sweep.rows["D"].n_unique())))


@styled()
def _headline(sweep: _Sweep) -> Drawing:
    title = "Time of a training step as the dimension grows: score matching beside maximum likelihood"
    sheet = Sheet(sweep.times, title, 4.3, FULL_WIDTH)
    panel = sheet.subplots()
    _draw_times(sheet, panel, sweep, _answering(sweep), labelled=True)
    ours, rival = sweep.curve(_OURS), sweep.rival
    size = max(ours.keys() & rival.keys())
    low, high = 1e3 * ours[size], 1e3 * rival[size]
    arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 3, "shrinkB": 3}
    panel.annotate("", (size, low), (size, high), arrowprops=arrow)
    look = {"va": "center", "fontweight": "bold", "annotation_clip": False}
    note(panel, f"{high / low:.1f} times less", (size, low**0.35 * high**0.65), (7, 0), **look)
    crossing = sweep.overtakes(_OURS)
    amortised = sweep.curve(_AMORTISED).get(size)
    also = f"; {_AMORTISED} takes {rival[size] / amortised:.1f} times less" if amortised else ""
    return sheet.drawing(
        "headline",
        title,
        f"Median milliseconds of a whole training iteration of the fc network, {sweep.at}; bands are 95 % intervals, "
        f"slopes log-log regressions. At D = {size:,} {_OURS} takes {high / low:.1f} times less than the fastest "
        f"maximum likelihood on dense matrices with every determinant{also}.",
        "" if crossing is None else f"A ring marks the D from which on a method is faster: {crossing:,} for {_OURS}.",
    )


def _answering(sweep: _Sweep) -> list[str]:
    """Return score matching, and the fastest maximum likelihood of each kind at the largest D."""
    times = sweep.times
    largest = times.filter(pl.col("D") == pl.col("D").max(), objective="ml").sort("value")
    own = largest.filter(pl.col("method").str.starts_with("ebflow-"), linear="dense")
    peers = largest.filter(~pl.col("method").str.starts_with("ebflow-"), linear="dense")
    restricted = largest.filter(~pl.col("linear").is_in(["dense", "none"]))
    fastest = pl.concat([kind.head(1) for kind in (own, peers, restricted)])["method"].to_list()
    present = set(times["method"])
    return [method for method in (_OURS, *_BESIDE, *fastest) if method in present]


def runtime_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw seconds against D and against L, and the fraction that the bound is, one figure for every sweep."""
    for axis in ("D", "L"):
        for sweep in _sweeps(rows, axis):
            yield _seconds(sweep)
            if axis == "D" and sweep.rows.filter(metric="iteration_bound").height:
                yield _bound(sweep)


@styled()
def _seconds(sweep: _Sweep) -> Drawing:
    methods = sweep.times["method"].unique().to_list()
    sheet = Sheet(sweep.times, sweep.title, _HEIGHT)
    panel = sheet.subplots()
    with_paper = _draw_paper(panel, sweep)
    ringed = _draw_times(sheet, panel, sweep, methods, labelled=len(methods) <= _LABELLED)
    level = 99 if sweep.rows["experiment"][0] == "asv" else 95
    return sheet.drawing(
        f"{sweep.name}-seconds-over-{sweep.axis}",
        f"{sweep.title}: time of an iteration against {sweep.axis}",
        "Median of one iteration: noise, loss, backward, optimiser, averaged weights. "
        f"Bands are {level} % intervals; slopes are log-log regressions over every {sweep.axis} shown.",
        "A ring marks the D from which on a method is faster than every dense maximum likelihood." if ringed else "",
        "Pale lines are the paper's, on its authors' GPU." if with_paper else "",
    )


def _draw_times(sheet: Sheet, panel: Axes, sweep: _Sweep, methods: list[str], labelled: bool) -> bool:
    """Draw the curves of these methods, slowest first; return whether a crossing is marked.

    Curves are named at their ends if ``labelled`` is true, or else in a legend below.
    """
    times = sweep.times.filter(pl.col("method").is_in(methods))
    times = times.with_columns(pl.col("value", "ci_low", "ci_high") * 1e3, label="method")
    slowest_first = times.group_by("method", maintain_order=True).last().sort("value", descending=True)["method"]
    styles = curve_styles(times)
    ringed = False
    for method in slowest_first:
        own = times.filter(method=method)
        points = dict(own.select(sweep.axis, "value").rows())
        sizes, milliseconds = list(points), list(points.values())
        label = f"{method}, slope {log_slope(sizes, milliseconds).value:.2f}"
        texts = [f"{method}, {sweep.axis} = {size:,}, {sweep.at}: {_in_words(ms)}" for size, ms in points.items()]
        sheet.curve(panel, sizes, milliseconds, texts, label=label, **styles[method])
        band = own.select(sweep.axis, "ci_low", "ci_high").drop_nulls()
        look = {"color": styles[method]["color"], "alpha": 0.2 if labelled else 0.07, "linewidth": 0}
        panel.fill_between(*band, **look)
        if own["objective"][0] != "ml" and sweep.axis == "D" and (size := sweep.overtakes(method)) is not None:
            ringed = True
            ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.9}
            panel.plot(size, points[size], "o", markersize=9, **ring)
    panel.set(xscale="log", yscale="log", ylabel="milliseconds an iteration")
    plain_log(panel.yaxis)
    if ringed:
        text = "○ faster than every exact ML\nfrom here on"
        panel.text(0.99, 0.03, text, ha="right", fontsize=7, transform=panel.transAxes)
    _finish(sheet, panel, sweep.axis, times[sweep.axis], labelled)
    return ringed


def _draw_paper(panel: Axes, sweep: _Sweep) -> bool:
    """Draw the published curves behind, pale: those of this architecture and its number of channels."""
    first = sweep.rows.row(0, named=True)
    if sweep.axis != "D" or first["B"] != 100 or first["L"] != PUBLISHED_LAYERS.get(first["architecture"]):
        return False
    own = published.runtime().filter(architecture=first["architecture"])
    own = own.filter(pl.col("shape").str.starts_with(f"{first['channels'] or 1}x"))
    starts = []
    for (objective,), curve in own.group_by(["objective"], maintain_order=True):
        sizes = curve["D"].to_list()
        milliseconds = [1e3 * value for value in curve["published_seconds"]]
        panel.plot(sizes, milliseconds, color=colour(str(objective), "dense"), alpha=0.35, linewidth=2.5, zorder=1)
        starts.append((milliseconds[0], sizes[0]))
    if starts:
        slowest, size = max(starts)
        box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}
        note(panel, "the paper's, on a GPU", (size, slowest), (0, 5), fontsize=7, color="#777777", bbox=box)
    return bool(starts)


@styled()
def _bound(sweep: _Sweep) -> Drawing:
    bounds = sweep.rows.filter(metric="iteration_bound").select("method", "D", bound="value")
    times = sweep.times.join(bounds, on=["method", "D"]).sort("method", "D")
    times = times.with_columns(fraction=100 * pl.col("bound") / pl.col("value"), label="method")
    methods = times.group_by("method", maintain_order=True).last().sort("fraction", descending=True)["method"]
    sheet = Sheet(times, sweep.title, _HEIGHT)
    panel = sheet.subplots()
    styles = curve_styles(times)
    for method in methods:
        points = times.filter(method=method).select("D", "fraction").rows()
        sizes, percents = zip(*points, strict=True)
        texts = [f"{method}, D = {size:,}, {sweep.at}: {percent:.0f} % of the bound" for size, percent in points]
        sheet.curve(panel, sizes, percents, texts, label=method, **styles[method])
    panel.axhline(100, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    panel.set(xscale="log", ylim=(0, None), ylabel="bound / measured time, %")
    _finish(sheet, panel, "D", times["D"], labelled=len(methods) <= _LABELLED)
    return sheet.drawing(
        f"{sweep.name}-bound",
        f"{sweep.title}: how near an iteration comes to its bound",
        "The bound is the shortest possible time of an iteration: its matrix products at the speed measured in the "
        "same run, plus one pass of optimiser and averaging at memory speed. 100 % is the bound.",
    )


def _finish(sheet: Sheet, panel: Axes, axis: str, sizes: pl.Series, labelled: bool) -> None:
    """Put the measured sizes on the axis, and name the curves at their ends or in a legend."""
    ticks = sizes.unique().sort().to_list()
    numbered = [ticks[-1]]
    for size in ticks[-2::-1]:  # a number stands where it does not touch that of the next larger size
        if math.log(numbered[-1] / size) > _TICK * math.log(ticks[-1] / ticks[0]) or size == ticks[0]:
            numbered.append(size)
    panel.set_xticks(ticks, [str(size) if size in numbered else "" for size in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel(_AXES[axis])
    if labelled:
        sheet.label_ends(panel)
    else:
        sheet.legend_below(panel)


def _in_words(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:,.0f} ms"
