"""What is checked of rows that somebody else measured, before they stand beside ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import polars as pl

from harness import __version__
from harness.methods.registry import registry
from harness.results.store import Store

SEEDS = 3
"""Seeds from which on the interval of a training says how another seed would end."""

_ROUNDING = 1e-9  # of the size of a value: the mean of equal numbers may lie so far outside their interval


class Finding(NamedTuple):
    """One thing that was noticed: an error, which keeps rows out, or a note; the folder or cell; and what it is."""

    level: str
    place: str
    text: str


def verify(folder: Path) -> list[Finding]:
    """Check a results folder of other people's rows. Nothing in it is changed, and no code in it is run.

    The store checks damage, schema, keys, finite values and statuses when it reads a file. This checks beside them
    commits, versions, intervals, reasons, methods, and the number of seeds.
    """
    store = Store(folder)
    store.verify(only_read=True)
    rows, notes = store.frame()
    findings = [Finding("error", str(folder), line) for line in notes]
    if rows.is_empty():
        findings.append(Finding("error", str(folder), "no row can be read; give a folder that a run has written"))
    for noticed, text in _checks(folder, rows):
        for row in rows.filter(noticed).unique("cell", keep="first", maintain_order=True).iter_rows(named=True):
            findings.append(Finding("error", f"{folder}: cell {row['cell']}", text.format(**row)))
    for project in sorted(set(rows["project"].drop_nulls()) - {__version__}):
        text = f"its rows of version {project} are not compared with those of version {__version__}"
        findings.append(Finding("note", str(folder), text))
    trained = rows.filter(kind="likelihood", metric="nll", status="ok")
    seeds = trained.group_by("method", "dataset", "recipe").agg(pl.col("seed").n_unique())
    for method, dataset, recipe, count in seeds.filter(pl.col("seed") < SEEDS).sort(pl.all()).rows():
        text = f"{method} on {dataset}, {recipe}: {count} of {SEEDS} seeds; train it with --seed 0, 1 and 2"
        findings.append(Finding("note", str(folder), text))
    return findings


def _checks(folder: Path, rows: pl.DataFrame) -> list[tuple[pl.Expr, str]]:
    """Return for each check which rows are wrong, and what is told of one by its columns."""
    low, high, value = pl.col("ci_low"), pl.col("ci_high"), pl.col("value")
    slack = _ROUNDING * value.abs()
    projects = rows["project"].drop_nulls().unique().to_list()
    known = [project for project in projects if _version(project) and _version(project) <= _version(__version__)]
    code = "".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.py")))
    named = [name for name in rows["method"].unique() if f'"{name}"' in code]
    trained = (pl.col("kind") == "likelihood") & (pl.col("metric") == "nll") & (pl.col("status") == "ok")
    validated = (pl.col("metric") == "validation_nll").any().over("cell")
    uncommitted = pl.col("commit").is_null() | pl.col("commit").str.ends_with("+")
    outside = (low.is_null() != high.is_null()) | (low > value + slack) | (value > high + slack)
    reason = pl.col("reason").fill_null("").str.strip_chars()
    return [
        (uncommitted, "its commit is {commit}; commit your changes in a clone, and measure again with --fresh"),
        (~pl.col("project").is_in(known).fill_null(False), f"version {{project}} is unknown to version {__version__}"),
        (pl.col("torch").fill_null("unknown") == "unknown", "its versions name no torch; measure it again"),
        (outside, "the {metric} of {method}, {value}, is not inside its interval [{ci_low}, {ci_high}]"),
        (low.is_not_null() & (pl.col("n").fill_null(0) < 2), "the {metric} of {method} has an interval from n = {n}"),
        ((pl.col("status") != "ok") & (reason == ""), "the {metric} of {method} is {status} without a reason"),
        (trained & ~validated, "{method} has a test NLL and no validation NLL, which chooses the recipe"),
        (
            ~pl.col("method").is_in(["machine", *registry().methods, *named]),
            "no adapter declares {method}; put its file beside cells/, or into baselines/",
        ),
    ]


def _version(project: str) -> tuple[int, ...]:
    """Return a version of this project as numbers; empty if it is none."""
    return tuple(map(int, project.split("."))) if re.fullmatch(r"\d{1,6}\.\d{1,6}\.\d{1,6}", project) else ()
