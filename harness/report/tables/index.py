"""Every table of the report, in the order in which they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from harness.report.tables import extrapolation, trainings
from harness.report.tables.columns import disturbances
from harness.report.tables.comparison import noise, ratios
from harness.report.tables.runtime import bounds, refreshes, runtime, slopes, timings
from harness.report.tables.sampling import imputation, normalizer
from harness.report.tables.trainings import ablation, curves, differences, likelihood, points, time_to_level


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Args:
        name: The table's part of its files' names.
        title: What the table shows, with units.
        build: From the rows of one experiment to the table, which is empty where no row fills it.
        caveats: From the rows of the experiment to what has to be known about the table's times, a sentence each.
    """

    name: str
    title: str
    build: Callable[[pl.DataFrame], pl.DataFrame]
    caveats: Callable[[pl.DataFrame], list[str]] = lambda rows: []


TABLES: tuple[Table, ...] = (
    Table(
        "runtime",
        "median milliseconds an iteration (noise, loss, backward, optimiser, averaging), and in brackets the share "
        "that its matrix products and one pass of the optimiser take at the machine's own rates",
        runtime,
        caveats=noise,
    ),
    Table(
        "slopes",
        "log-log slopes of the time of an iteration, and the D from which a method overtakes maximum likelihood",
        slopes,
        caveats=noise,
    ),
    Table(
        "refreshes",
        "milliseconds of a step that keeps the gradient of log Z, of one that refreshes it, and of their mean",
        refreshes,
        caveats=noise,
    ),
    Table(
        "ratios",
        "seconds an iteration divided by those of the reference, paired repetition by repetition, with 95 % interval; "
        "a method is called faster or slower at p < 0.05, corrected by Holm's method for all pairs of a problem",
        ratios,
        caveats=noise,
    ),
    Table(
        "bounds",
        "time of loss and backward, and of the whole iteration, beside the bound of each at the machine's rates",
        bounds,
        caveats=noise,
    ),
    Table(
        "timings", "every timing in milliseconds, with 95 % interval (99 % in asv's results)", timings, caveats=noise
    ),
    Table(
        "likelihood",
        "test negative log-likelihood, nats a sample in the data's own space",
        likelihood,
        caveats=disturbances,
    ),
    Table(
        "differences",
        "test negative log-likelihood minus that of the best method, paired, nats with 95 % interval; a method is "
        "called higher at p < 0.05, corrected by Holm's method for all pairs",
        differences,
    ),
    Table(
        "amortised",
        "how often trainings refreshed log Z, the relative error of its kept gradient, and the cosine of the whole one",
        trainings.refreshes,
        caveats=disturbances,
    ),
    Table("points", "divergence from the exact density, nats", points),
    Table("ablation", "test negative log-likelihood in nats and gradient norm, with and without EMA and MaP", ablation),
    Table("imputation", "PSNR of the missing pixels, dB (gain: posterior mean over mean image)", imputation),
    Table("log-z", "absolute error of estimates of log Z in nats, and their effective sample sizes (ESS)", normalizer),
    Table("curves", "validation NLL through training, nats", curves),
    Table("time-to-level", "training until a level of validation bits/dim", time_to_level, caveats=disturbances),
    Table(
        "extrapolation",
        "test NLL that shortened trainings would reach after the epochs of their recipe, nats, extrapolated from their "
        "validation NLL",
        extrapolation.extrapolation,
        caveats=extrapolation.caveats,
    ),
)
