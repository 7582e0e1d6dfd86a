"""Milliseconds an iteration against D and against L, and how near they come to the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from harness.paper import published
from harness.paper.configurations import PUBLISHED_LAYERS
from harness.report.figures.drawing import Drawing
from harness.report.figures.groups import MACHINE, cells_of, footer, groups, prepared, provenance
from harness.report.figures.sheet import Sheet, label_ends, plain_log
from harness.report.figures.style import INK, WIDTH, colour, curve_styles, styled
from harness.report.tables.comparison import comparisons, newest
from harness.results.statistics import crossing, log_slope

_HEIGHT = 3.6
_TICK = 0.135  # of the axis, at least, between two numbers
_LABELLED = 12
"""Curves that can be named at their ends; more have a legend."""
_ITERATION = "Median of one iteration: noise, loss, backward, optimiser, averaged weights."


@dataclass(frozen=True)
class Sweep:
    """Timings of some methods along one axis, all else equal.

    Args:
        name: Of the files, up to what is drawn.
        axis: D or L.
        at: The other one, such as ``L = 2``.
        rows: Of `prepared`, all metrics.
    """

    name: str
    axis: str
    at: str
    rows: pl.DataFrame

    @property
    def times(self) -> pl.DataFrame:
        """The seconds an iteration."""
        return self.rows.filter(metric="seconds_per_iteration").sort("method", self.axis)

    @property
    def title(self) -> str:
        """Experiment, architecture, and what is held."""
        first = self.rows.row(0, named=True)
        return f"{first['experiment']} ({first['profile']}), {first['architecture']}, {self.at}"

    def curve(self, method: str) -> dict[int, float]:
        """Seconds by size."""
        own = self.times.filter(method=method)
        return dict(zip(own[self.axis].to_list(), own["value"].to_list(), strict=True))

    def fastest(self, methods: pl.DataFrame) -> dict[int, float]:
        """The smallest seconds that any of these methods takes, by size."""
        best = methods.group_by(self.axis).agg(pl.col("value").min()).sort(self.axis)
        return dict(zip(best[self.axis].to_list(), best["value"].to_list(), strict=True))

    @cached_property
    def compared(self) -> pl.DataFrame:
        """Every method against the fastest maximum likelihood with dense matrices, size by size."""
        return comparisons(self.rows).filter(against="dense ML")

    def overtakes(self, method: str) -> int | None:
        """The D from which on a method is called faster than maximum likelihood with dense matrices."""
        own = self.compared.filter(method=method)
        return crossing(dict(zip(own["D"].to_list(), (own["verdict"] == "faster").to_list(), strict=True)))

    @property
    def dense_ml(self) -> pl.DataFrame:
        """The timings of maximum likelihood with dense matrices: the rival."""
        return self.times.filter(objective="ml", linear="dense")


def sweeps(rows: pl.DataFrame, axis: str) -> Iterator[Sweep]:
    """Yield every set of timings that differ in one size and in nothing else that makes them comparable.

    Args:
        rows: A frame of `harness.results.SCHEMA`.
        axis: D or L.
    """
    other = "L" if axis == "D" else "D"
    named = {"experiment": "{}", "profile": "{}", "architecture": "{}", other: f"{other}{{}}"}
    rest = ["channels", "B", "dtype", *MACHINE]
    # Compiled, every method would have a second curve close to its first; the tables have them.
    rows = prepared(rows).filter(pl.col("status") == "ok", ~pl.col("compiled").fill_null(False))
    keys = [*named, *rest, "method"]
    sizes = pl.col(axis).filter(metric="seconds_per_iteration")
    rows = rows.filter(sizes.n_unique().over(keys) > 1)
    for name, group in groups(rows, named, rest):
        yield Sweep(name, axis, f"{other} = {group[other][0]:,}", newest(group))


def runtime_figures(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw seconds against D and against L, and the fraction that the bound is, one figure for every sweep."""
    for axis in ("D", "L"):
        for sweep in sweeps(rows, axis):
            yield _seconds(sweep)
            if axis == "D" and sweep.rows.filter(metric="iteration_bound").height:
                yield _bound(sweep)


@styled()
def _seconds(sweep: Sweep) -> Drawing:
    methods = sweep.times["method"].unique().to_list()
    labelled = len(methods) <= _LABELLED
    sheet = Sheet(WIDTH, _HEIGHT, sweep.title, footer(sweep.rows))
    panel = sheet.subplots()
    paper = _draw_paper(panel, sweep)
    ringed = draw_times(sheet, panel, sweep, methods, labelled)
    caption = [
        f"{_ITERATION} Bands are {'99' if sweep.rows['experiment'][0] == 'asv' else '95'} % intervals;",
        f"slopes are log-log regressions over every {sweep.axis} shown.",
        "A ring marks the D from which on a method is faster than every dense maximum likelihood." if ringed else "",
        "Pale lines are the paper's, on its authors' GPU." if paper else "",
        f"{provenance(sweep.rows)}.",
    ]
    name = f"{sweep.name}-seconds-over-{sweep.axis}"
    title = f"{sweep.title}: time of an iteration against {sweep.axis}"
    return Drawing(name, title, " ".join(filter(None, caption)), sheet, cells_of(sweep.times))


def draw_times(sheet: Sheet, panel: Axes, sweep: Sweep, methods: list[str], labelled: bool) -> bool:
    """Draw the curves of these methods, slowest first; return whether a crossing is marked.

    Args:
        sheet: Takes what the points say.
        panel: Where to draw.
        sweep: The timings.
        methods: Names.
        labelled: Whether curves are named at their ends, or in a legend below.
    """
    times = sweep.times.filter(pl.col("method").is_in(methods))
    slowest_first = times.group_by("method", maintain_order=True).last().sort("value", descending=True)["method"]
    styles = curve_styles(_kinds(times))
    ringed, ends = False, []
    for method in slowest_first:
        own = times.filter(method=method)
        sizes, milliseconds = own[sweep.axis].to_list(), [1e3 * value for value in own["value"]]
        slope = log_slope(sizes, milliseconds).value
        label = f"{method}, slope {slope:.2f}"
        (line,) = panel.plot(sizes, milliseconds, label=label, **styles[method])
        held = sweep.at
        sheet.say(
            line,
            [
                f"{method}, {sweep.axis} = {size:,}, {held}: {_said(ms)}"
                for size, ms in zip(sizes, milliseconds, strict=True)
            ],
        )
        bounds = own.drop_nulls(["ci_low", "ci_high"])
        panel.fill_between(
            bounds[sweep.axis].to_list(),
            [1e3 * value for value in bounds["ci_low"]],
            [1e3 * value for value in bounds["ci_high"]],
            color=styles[method]["color"],
            alpha=0.2 if labelled else 0.07,
            linewidth=0,
        )
        if own["objective"][0] != "ml" and sweep.axis == "D":
            found = sweep.overtakes(method)
            if found is not None:
                ringed = True
                panel.plot(
                    found,
                    1e3 * sweep.curve(method)[found],
                    "o",
                    markersize=9,
                    markerfacecolor="none",
                    markeredgecolor=INK,
                    markeredgewidth=0.9,
                )
        ends.append((sizes[-1], milliseconds[-1], label, styles[method]["color"]))
    panel.set_xscale("log")
    panel.set_yscale("log")
    plain_log(panel.yaxis)
    _ticks(panel, times[sweep.axis].unique().sort().to_list())
    panel.set_xlabel("dimension D" if sweep.axis == "D" else "linear layers L")
    panel.set_ylabel("milliseconds an iteration")
    if ringed:
        panel.text(
            0.99, 0.03, "○ faster than every dense ML\nfrom here on", ha="right", fontsize=7, transform=panel.transAxes
        )
    if labelled:
        label_ends(panel, ends)
    else:
        sheet.legend_below(panel)
    return ringed


def _draw_paper(panel: Axes, sweep: Sweep) -> bool:
    """Draw the published curves behind, pale: those of this architecture and its number of channels."""
    first = sweep.rows.row(0, named=True)
    shown = published.runtime().filter(
        pl.col("architecture") == first["architecture"], pl.col("shape").str.starts_with(f"{first['channels'] or 1}x")
    )
    if sweep.axis != "D" or first["B"] != 100 or first["L"] != PUBLISHED_LAYERS.get(first["architecture"]):
        return False
    starts = []
    for (objective,), curve in shown.group_by(["objective"], maintain_order=True):
        sizes = [math.prod(map(int, shape.split("x"))) for shape in curve["shape"]]
        milliseconds = [1e3 * value for value in curve["published_seconds"]]
        panel.plot(sizes, milliseconds, color=colour(str(objective), "dense"), alpha=0.35, linewidth=2.5, zorder=1)
        starts.append((milliseconds[0], sizes[0]))
    if starts:
        panel.annotate(
            "the paper's, on a GPU",
            max(starts)[::-1],
            (0, 5),
            textcoords="offset points",
            fontsize=7,
            color="#777777",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
        )
    return bool(starts)


@styled()
def _bound(sweep: Sweep) -> Drawing:
    bounds = sweep.rows.filter(metric="iteration_bound").select("method", "D", bound="value")
    times = (
        sweep.times.join(bounds, on=["method", "D"])
        .sort("method", "D")
        .with_columns(fraction=100 * pl.col("bound") / pl.col("value"))
    )
    methods = times.group_by("method", maintain_order=True).last().sort("fraction", descending=True)["method"].to_list()
    labelled = len(methods) <= _LABELLED
    sheet = Sheet(WIDTH, _HEIGHT, sweep.title, footer(sweep.rows))
    panel = sheet.subplots()
    styles = curve_styles(_kinds(times))
    ends = []
    for method in methods:
        own = times.filter(method=method)
        sizes, percent = own["D"].to_list(), own["fraction"].to_list()
        (line,) = panel.plot(sizes, percent, label=method, **styles[method])
        sheet.say(
            line,
            [
                f"{method}, D = {size:,}, {sweep.at}: {value:.0f} % of the bound"
                for size, value in zip(sizes, percent, strict=True)
            ],
        )
        ends.append((sizes[-1], percent[-1], method, styles[method]["color"]))
    panel.axhline(100, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    panel.set_xscale("log")
    _ticks(panel, times["D"].unique().sort().to_list())
    panel.set_ylim(bottom=0)
    panel.set_xlabel("dimension D")
    panel.set_ylabel("bound / measured time, %")
    if labelled:
        label_ends(panel, ends)
    else:
        sheet.legend_below(panel)
    caption = (
        "The part of an iteration that its matrix products, at the machine's own rate, and one pass of optimiser and "
        f"average, at the rate of a copy, must take; 100 % is the bound. {provenance(sweep.rows)}."
    )
    return Drawing(
        f"{sweep.name}-bound",
        f"{sweep.title}: how near an iteration comes to its bound",
        caption,
        sheet,
        cells_of(times),
    )


def _kinds(times: pl.DataFrame) -> list[tuple[str, str, str, str]]:
    names = pl.col("method").alias("label")
    return times.select(names, "method", "objective", "linear").unique().sort("method").rows()


def _ticks(panel: Axes, sizes: list[int]) -> None:
    shown = [sizes[-1]]
    for size in sizes[-2::-1]:  # what would touch the next larger one has a tick and no number
        if math.log(shown[-1] / size) > _TICK * math.log(sizes[-1] / sizes[0]) or size == sizes[0]:
            shown.append(size)
    panel.set_xticks(sizes, [str(size) if size in shown else "" for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())


def _said(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds:,.0f} ms"
