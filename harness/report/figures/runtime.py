"""Milliseconds an iteration: the one figure that answers the question, all sweeps over D and L, and the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from harness.paper import published
from harness.paper.recipes import PUBLISHED_LAYERS
from harness.report.claims.speed import LARGE, POINTS
from harness.report.figures.chart import Axis, Chart, Curve, Drawing, Gap, Look, Point, drawing, tell
from harness.report.figures.groups import MACHINE, groups, title_of
from harness.report.figures.style import colour, looks
from harness.report.tables.comparison import comparisons, newest
from harness.results.statistics import crossing, log_slope

_OURS = "ebflow-dsm"
_AMORTISED = "ebflow-aml"
_BESIDE = ("ebflow-ssm", "ebflow-fdssm", _AMORTISED, "relative-gradient-ml")
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

    @property
    def places(self) -> Axis:
        """The horizontal axis, with the sizes that were measured."""
        return Axis(_AXES[self.axis], log=True, ticks=tuple(self.times[self.axis].unique().sort()))

    def curves(self, values: pl.DataFrame, name: Callable[[str, tuple[Point, ...]], str]) -> tuple[Curve, ...]:
        """Return the curve of every method of some rows, slowest at the end of the sweep first."""
        styles = looks(values.with_columns(label="method"))
        found = []
        for (method,), own in values.group_by(["method"], maintain_order=True):
            points = own.sort(self.axis).select(self.axis, "value", "ci_low", "ci_high").rows()
            curve = tuple(Point((size,), *numbers) for size, *numbers in points)
            family, look = styles[str(method)]
            found.append(Curve(name(str(method), curve), str(method), family, look, curve))
        return tuple(sorted(found, key=lambda curve: -curve.points[-1].y))


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


def _headline(sweep: _Sweep) -> Drawing:
    ours, rival = sweep.curve(_OURS), sweep.rival
    size = max(ours.keys() & rival.keys())
    low, high = 1e3 * ours[size], 1e3 * rival[size]
    crossing = sweep.overtakes(_OURS)
    amortised = sweep.curve(_AMORTISED).get(size)
    also = f"; {_AMORTISED} takes {rival[size] / amortised:.1f} times less" if amortised else ""
    chart = _times(sweep, sweep.times.filter(pl.col("method").is_in(_answering(sweep))), _named_with_slope)
    gap = Gap(size, low, high, f"D = {size:,}: {high / low:.1f} times less")
    chart = replace(chart, gap=gap)
    return drawing(
        sweep.times,
        "headline",
        "Time of a training step as the dimension grows: score matching beside maximum likelihood",
        chart,
        f"Median milliseconds of a whole training iteration of the fc network, {sweep.at}; bands are 95 % intervals, "
        f"slopes log-log regressions. At D = {size:,} {_OURS} takes {high / low:.1f} times less than the fastest "
        f"maximum likelihood on dense matrices with every determinant{also}.",
        "" if crossing is None else f"A ring marks the D from which on a method is faster: {crossing:,} for {_OURS}.",
        at=sweep.at,
        wide=True,
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


def _seconds(sweep: _Sweep) -> Drawing:
    chart = _times(sweep, sweep.times, _named_with_slope)
    paper = _paper(sweep)
    level = 99 if sweep.rows["experiment"][0] == "asv" else 95
    on_cpu = ", which computed the determinants of convolutions on the CPU" if _convolutional(sweep) else ""
    ringed = any(curve.ring is not None for curve in chart.curves)
    return drawing(
        sweep.times,
        f"{sweep.name}-seconds-over-{sweep.axis}",
        f"{title_of(sweep.rows)}: against {_AXES[sweep.axis]}",
        replace(chart, curves=(*paper, *chart.curves)),
        "Median of one iteration: noise, loss, backward, optimiser, averaged weights. "
        f"Bands are {level} % intervals; slopes are log-log regressions over every {sweep.axis} shown.",
        "A ring marks the D from which on a method is faster than every dense maximum likelihood." if ringed else "",
        f"Pale lines are the paper's, on its authors' GPU{on_cpu}." if paper else "",
        at=sweep.at,
    )


def _named_with_slope(method: str, points: tuple[Point, ...]) -> str:
    """Name a method with its slope: over large D alone, where there are enough of them, as in the verdicts."""
    large = tuple(point for point in points if point.x[0] >= LARGE)
    points = large if len(large) >= POINTS else points
    if len({point.x for point in points}) < 2:
        return method
    slope = log_slope([point.x[0] for point in points], [point.y for point in points]).value
    return f"{method}, slope {slope:.2f}"


def _times(sweep: _Sweep, times: pl.DataFrame, name: Callable[[str, tuple[Point, ...]], str]) -> Chart:
    """Return the chart of some methods' milliseconds, with a ring where one overtakes maximum likelihood."""
    objectives = dict(times.select("method", "objective").rows())
    curves = sweep.curves(times.with_columns(pl.col("value", "ci_low", "ci_high") * 1e3), name)
    if sweep.axis == "D":
        rings = {one: sweep.overtakes(one) for one, objective in objectives.items() if objective != "ml"}
        curves = tuple(replace(curve, ring=rings.get(curve.method)) for curve in curves)
    curves = tell(curves, [curve.points[-1].y for curve in curves])
    reading = f"{{label}}: {sweep.axis} = {{x}}, {sweep.at}: {{y}} ms"
    return Chart((sweep.places,), Axis("milliseconds an iteration", log=True), curves, reading)


def _convolutional(sweep: _Sweep) -> bool:
    return bool(sweep.rows["architecture"][0] != "fc")


def _paper(sweep: _Sweep) -> list[Curve]:
    """Return the published curves of this architecture and its number of channels."""
    first = sweep.rows.row(0, named=True)
    if sweep.axis != "D" or first["B"] != 100 or first["L"] != PUBLISHED_LAYERS.get(first["architecture"]):
        return []
    own = published.runtime().filter(architecture=first["architecture"])
    own = own.filter(pl.col("shape").str.starts_with(f"{first['channels'] or 1}x"))
    where = "its determinants on a CPU" if _convolutional(sweep) else "on a GPU"
    curves = []
    for (objective,), curve in own.group_by(["objective"], maintain_order=True):
        points = tuple(Point((size,), 1e3 * value) for size, value in curve.select("D", "published_seconds").rows())
        look = Look(colour(str(objective), "dense"), "o", 0)
        family = looks(curve.with_columns(label="objective", method="objective", linear=pl.lit("dense")))
        label = f"the paper's {str(objective).upper()}" + (f", {where}" if objective == "ml" else ", on a GPU")
        curves.append(Curve(label, "the paper's", family[str(objective)][0], look, points, "pale"))
    return curves


def _bound(sweep: _Sweep) -> Drawing:
    bounds = sweep.rows.filter(metric="iteration_bound").select("method", "D", bound="value")
    times = sweep.times.join(bounds, on=["method", "D"]).sort("method", "D")
    nothing = pl.lit(None, pl.Float64)
    times = times.with_columns(value=100 * pl.col("bound") / pl.col("value"), ci_low=nothing, ci_high=nothing)
    curves = sweep.curves(times, lambda method, _: method)
    curves = tell(curves, [-curve.points[-1].y for curve in curves])
    y = Axis("bound / measured time, %", limits=(0, None))
    reading = f"{{label}}: D = {{x}}, {sweep.at}: {{y}} % of the bound"
    return drawing(
        times,
        f"{sweep.name}-bound",
        f"{title_of(sweep.rows)}: how near it comes to its bound",
        Chart((sweep.places,), y, curves, reading, (100, "the bound")),
        "The bound is the shortest possible time of an iteration: its matrix products at the speed measured in the "
        "same run, plus one pass of optimiser and averaging at memory speed. 100 % is the bound.",
        at=sweep.at,
    )
