"""Frames of rows become the tables that people read; every table is one function from frame to frame.

Each function takes the rows of one experiment and one profile, in `harness.results.SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from harness.report.tables.comparison import ACROSS, compare_across, noise, ratios
from harness.report.tables.likelihood import ablation, curves, differences, likelihood, points, time_to_level
from harness.report.tables.runtime import bounds, runtime, slopes, timings
from harness.report.tables.sampling import imputation, normalizer
from harness.report.tables.sources import sources
from harness.report.tables.text import file_stem, render, split_constants, to_html

__all__ = [
    "ACROSS",
    "TABLES",
    "Table",
    "compare_across",
    "file_stem",
    "noise",
    "render",
    "sources",
    "split_constants",
    "to_html",
]


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Args:
        name: Of its files.
        title: With units.
        build: From the rows of one experiment to the table; empty where no row is for it.
        metrics: Where no row has one of these, it is empty, and need not be built to know it; none: it may hold any.
        timed: Whether it shows times, which a noisy machine taints.
    """

    name: str
    title: str
    build: Callable[[pl.DataFrame], pl.DataFrame]
    metrics: tuple[str, ...] = ()
    timed: bool = False


TABLES: tuple[Table, ...] = (
    Table(
        "runtime",
        "median milliseconds an iteration (noise, loss, backward, optimiser, averaging), and how much of them its "
        "matrix products and one pass of the optimiser take at the machine's own rates",
        runtime,
        ("seconds_per_iteration",),
        timed=True,
    ),
    Table(
        "slopes",
        "log-log slopes of the runtime, and where a method overtakes maximum likelihood",
        slopes,
        ("seconds_per_iteration",),
        timed=True,
    ),
    Table(
        "ratios",
        "seconds an iteration over those of the reference, paired repetition by repetition, with 95 % interval; called "
        "faster or slower at p < 0.05, corrected by Holm's method for all comparisons of one problem",
        ratios,
        ("seconds_of_repetition",),
        timed=True,
    ),
    Table(
        "bounds",
        "loss and backward, and the whole iteration, beside what they cost at the machine's rates",
        bounds,
        ("gradient_bound",),
        timed=True,
    ),
    Table("timings", "every timing, milliseconds with 95 % interval (99 % in asv's results)", timings, timed=True),
    Table("likelihood", "test negative log-likelihood, nats a sample in the data's own space", likelihood, ("nll",)),
    Table(
        "differences",
        "test negative log-likelihood minus that of the best method, paired, nats with 95 % interval; called higher at "
        "p < 0.05, corrected by Holm's method",
        differences,
        ("nll",),
    ),
    Table("points", "divergence from the exact density, nats", points, ("kl",)),
    Table("ablation", "EMA and MaP, test negative log-likelihood, nats, and gradient norm", ablation, ("nll",)),
    Table("imputation", "PSNR of the missing pixels, dB (gain: posterior mean over mean image)", imputation),
    Table("log-z", "absolute error of estimates of log Z, nats, and their effective samples", normalizer),
    Table("curves", "validation NLL through training, nats", curves, ("validation_curve",)),
    Table("time-to-level", "training until a level of validation bits/dim", time_to_level, ("validation_curve",)),
)
