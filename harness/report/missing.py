"""What the results lack, and why: rows without a number, trainings cut short, experiments without rows."""

from __future__ import annotations

import polars as pl

from harness.paper.experiments import EXPERIMENTS


def without_numbers(rows: pl.DataFrame) -> pl.DataFrame:
    """Return methods that are unavailable, failed or diverged, with the reason, and the cells that say so."""
    columns = ["status", "experiment", "profile", "method", "reason"]
    return _sourced(rows.filter(pl.col("status") != "ok"), columns, ["status", "experiment", "profile", "method"])


def cut_short(rows: pl.DataFrame) -> pl.DataFrame:
    """Return trainings of other profiles than quick that ended before the length of their recipe, and their cells."""
    columns = ["experiment", "profile", "method", "dataset", "recipe"]
    short = rows.filter(pl.col("profile") != "quick", pl.col("shortened"))
    return _sourced(short, columns, ["experiment", "method", "recipe"])


def unmeasured(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the experiments that have no rows at all, or rows of the quick profile alone, and how to get them."""
    lines = []
    for experiment in EXPERIMENTS:
        profiles = rows.filter(experiment=experiment.name)["profile"].unique().to_list()
        command = f"harness reproduce {experiment.name}"
        if not profiles:
            lines.append((experiment.name, experiment.title, "no rows", command))
        elif profiles == ["quick"]:
            why = f"the quick profile alone: {experiment.shortened}"
            lines.append((experiment.name, experiment.title, why, f"{command} --profile paper"))
    return pl.DataFrame(lines, schema=["experiment", "question", "what there is", "command"], orient="row")


def _sourced(rows: pl.DataFrame, columns: list[str], order: list[str]) -> pl.DataFrame:
    """Return a line for every combination of some columns, with the keys of the cells that it comes from."""
    keys = pl.col("cell").unique(maintain_order=True).alias("keys")
    return rows.group_by(columns, maintain_order=True).agg(keys).sort(order)
