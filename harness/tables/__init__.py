"""Frames of rows become the tables that people read; every table is one function from frame to frame.

Each function takes the rows of one experiment and one profile, in `harness.results.SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from harness.tables.likelihood import ablation, curves, likelihood, points, time_to_level
from harness.tables.runtime import bounds, runtime, slopes, timings
from harness.tables.sampling import imputation, normalizer
from harness.tables.text import render, split_constants

__all__ = ["TABLES", "Table", "render", "split_constants"]


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Args:
        name: Of its files.
        title: With units.
        build: From the rows of one experiment to the table; empty where no row is for it.
        metrics: Where no row has one of these, it is empty, and need not be built to know it; none: it may hold any.
    """

    name: str
    title: str
    build: Callable[[pl.DataFrame], pl.DataFrame]
    metrics: tuple[str, ...] = ()


TABLES: tuple[Table, ...] = (
    Table(
        "runtime",
        "median milliseconds an iteration (noise, loss, backward, optimiser, averaging), and how much of them its "
        "matrix products and one pass of the optimiser take at the machine's own rates",
        runtime,
        ("seconds_per_iteration",),
    ),
    Table(
        "slopes",
        "log-log slopes of the runtime, and where a method overtakes maximum likelihood",
        slopes,
        ("seconds_per_iteration",),
    ),
    Table(
        "bounds",
        "loss and backward, and the whole iteration, beside what they cost at the machine's rates",
        bounds,
        ("gradient_bound",),
    ),
    Table("timings", "every timing, milliseconds with 95 % interval (99 % in asv's results)", timings),
    Table("likelihood", "test negative log-likelihood, nats a sample in the data's own space", likelihood, ("nll",)),
    Table("points", "divergence from the exact density, nats", points, ("kl",)),
    Table("ablation", "EMA and MaP, test negative log-likelihood, nats, and gradient norm", ablation, ("nll",)),
    Table("imputation", "PSNR of the missing pixels, dB (gain: posterior mean over mean image)", imputation),
    Table("log-z", "absolute error of estimates of log Z, nats, and their effective samples", normalizer),
    Table("curves", "validation NLL through training, nats", curves, ("validation_curve",)),
    Table("time-to-level", "training until a level of validation bits/dim", time_to_level, ("validation_curve",)),
)
