"""What is checked of rows that somebody else measured, before they stand beside ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness import __version__
from harness.methods.registry import registry
from harness.results.store import Store

SEEDS = 3
"""Seeds from which on the interval of a training says how another seed would end."""

_ROUNDING = 1e-9  # of the size of a value: the mean of equal numbers may lie so far outside their interval


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Args:
        level: ``error`` for what keeps rows out, ``note`` for what to know about them.
        place: The results folder, or the cell in it.
        text: What was noticed, and what to do about it.
    """

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
    for level, noticed, text in _checks(folder, rows):
        for row in rows.filter(noticed).unique("cell", keep="first", maintain_order=True).iter_rows(named=True):
            findings.append(Finding(level, f"{folder}: cell {row['cell']}", text.format(**row)))
    trained = rows.filter(kind="likelihood", metric="nll", status="ok")
    seeds = trained.group_by("method", "dataset", "recipe", maintain_order=True).agg(pl.col("seed").n_unique())
    for method, dataset, recipe, count in seeds.filter(pl.col("seed") < SEEDS).rows():
        text = f"{method} on {dataset}, {recipe}: {count} of {SEEDS} seeds; train it with --seed 0, 1 and 2"
        findings.append(Finding("note", str(folder), text))
    return findings


def _checks(folder: Path, rows: pl.DataFrame) -> list[tuple[str, pl.Expr, str]]:
    """Return each check as its level, what it notices in a row, and what is told of the row by its columns."""
    low, high, value = pl.col("ci_low"), pl.col("ci_high"), pl.col("value")
    slack = _ROUNDING * value.abs()
    projects = rows["project"].drop_nulls().unique().to_list()
    known = [project for project in projects if _version(project) and _version(project) <= _version(__version__)]
    code = "".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.py")))
    names = rows["method"].unique().to_list()
    declared = [
        "machine",
        *registry().methods,
        *(name for name in names if re.search(rf"['\"]{re.escape(name)}['\"]", code)),
    ]
    trained = (pl.col("kind") == "likelihood") & (pl.col("metric") == "nll") & (pl.col("status") == "ok")
    validated = (pl.col("metric") == "validation_nll").any().over("cell")
    return [
        (
            "error",
            pl.col("commit").is_null() | pl.col("commit").str.ends_with("+"),
            "its commit is {commit}; commit your changes in a clone, and measure again with --fresh",
        ),
        (
            "error",
            ~pl.col("project").is_in(known).fill_null(False),
            f"it is of version {{project}} of this project, which version {__version__} does not know",
        ),
        (
            "note",
            pl.col("project").is_in([project for project in known if project != __version__]),
            f"it is of version {{project}}, and is not compared with rows of version {__version__}",
        ),
        (
            "error",
            pl.col("torch").fill_null("unknown") == "unknown",
            "its versions name no torch; measure again in an environment with torch's package metadata",
        ),
        (
            "error",
            (low.is_null() != high.is_null()) | (low > value + slack) | (value > high + slack),
            "the {metric} of {method}, {value}, is not inside its interval [{ci_low}, {ci_high}]",
        ),
        (
            "error",
            low.is_not_null() & (pl.col("n").fill_null(0) < 2),
            "the {metric} of {method} has an interval from n = {n} values; an interval needs two",
        ),
        (
            "error",
            (pl.col("status") != "ok") & (pl.col("reason").fill_null("").str.strip_chars() == ""),
            "the {metric} of {method} is {status} without a reason",
        ),
        ("error", trained & ~validated, "{method} has a test NLL and no validation NLL, which chooses the recipe"),
        (
            "error",
            ~pl.col("method").is_in(declared),
            "no adapter declares {method}; put its file beside cells/, or into baselines/",
        ),
    ]


def _version(project: str) -> tuple[int, ...]:
    """Return a version of this project as numbers; empty if it is none."""
    return tuple(map(int, project.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", project) else ()
