"""The one figure that answers the question: how long an iteration takes as D grows, and who overtakes whom."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.report.figures.runtime import Sweep, draw_times, sweeps
from harness.report.figures.sheet import Drawing, Sheet, note
from harness.report.figures.style import FULL_WIDTH, INK, styled

_OURS = "ebflow-dsm"
_BESIDE = ("ebflow-ssm", "ebflow-fdssm")


def headline(rows: pl.DataFrame) -> Iterator[Drawing]:
    """Draw the widest sweep over D of fc that holds DSM and maximum likelihood with dense matrices, if there is one."""
    fc = [sweep for sweep in sweeps(rows, "D") if sweep.rows["architecture"][0] == "fc"]
    answering = [sweep for sweep in fc if sweep.curve(_OURS) and sweep.rival]
    if answering:
        yield _draw(max(answering, key=lambda sweep: (max(sweep.rows["D"]), sweep.rows["D"].n_unique())))


@styled()
def _draw(sweep: Sweep) -> Drawing:
    title = "Time of a training step as the dimension grows: score matching beside maximum likelihood"
    sheet = Sheet(sweep.times, title, 4.3, FULL_WIDTH)
    panel = sheet.subplots()
    draw_times(sheet, panel, sweep, _answering(sweep), labelled=True)
    ours, rival = sweep.curve(_OURS), sweep.rival
    size = max(ours.keys() & rival.keys())
    low, high = 1e3 * ours[size], 1e3 * rival[size]
    arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 3, "shrinkB": 3}
    panel.annotate("", (size, low), (size, high), arrowprops=arrow)
    look = {"va": "center", "fontweight": "bold", "annotation_clip": False}
    note(panel, f"{high / low:.1f} times less", (size, low**0.35 * high**0.65), (7, 0), **look)
    crossing = sweep.overtakes(_OURS)
    return sheet.drawing(
        "headline",
        title,
        f"Median milliseconds of a whole training iteration of the fc network, {sweep.at}; bands are 95 % intervals, "
        f"slopes log-log regressions. At D = {size:,} {_OURS} takes {high / low:.1f} times less than the fastest "
        "maximum likelihood on dense matrices.",
        "" if crossing is None else f"A ring marks the D from which on a method is faster: {crossing:,} for {_OURS}.",
    )


def _answering(sweep: Sweep) -> list[str]:
    """Return the objectives of score matching, and the fastest maximum likelihood at the largest D of every kind."""
    times = sweep.times
    largest = times.filter(pl.col("D") == pl.col("D").max(), objective="ml").sort("value")
    own = largest.filter(pl.col("method").str.starts_with("ebflow-"), linear="dense")
    peers = largest.filter(~pl.col("method").str.starts_with("ebflow-"), linear="dense")
    restricted = largest.filter(~pl.col("linear").is_in(["dense", "none"]))
    fastest = pl.concat([kind.head(1) for kind in (own, peers, restricted)])["method"].to_list()
    present = set(times["method"])
    return [method for method in (_OURS, *_BESIDE, *fastest) if method in present]
