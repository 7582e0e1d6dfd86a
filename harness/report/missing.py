"""What the results lack, and why: rows without a number, trainings cut short, experiments without rows."""

from __future__ import annotations

import polars as pl

from harness.paper.experiments import EXPERIMENTS


def without_numbers(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, ...]]]:
    """Return methods that are unavailable, failed or diverged, with the reason, and the cells that say so."""
    found = (
        rows.filter(pl.col("status") != "ok")
        .group_by(["status", "experiment", "profile", "method", "reason"], maintain_order=True)
        .agg(pl.col("cell").unique(maintain_order=True))
        .sort("status", "experiment", "profile", "method")
    )
    return found.drop("cell"), [tuple(keys) for keys in found["cell"].to_list()]


def cut_short(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[str, ...]]]:
    """Return trainings of the paper profile that ended before the length of their recipe, and their cells."""
    found = (
        rows.filter(pl.col("recipe").str.contains(r"\d of [\d,]+ epochs"))
        .group_by(["experiment", "profile", "method", "dataset", "recipe"], maintain_order=True)
        .agg(pl.col("cell").unique(maintain_order=True))
        .sort("experiment", "method", "recipe")
    )
    return found.drop("cell"), [tuple(keys) for keys in found["cell"].to_list()]


def unmeasured(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the experiments that have no rows at all, or rows of the quick profile alone, and how to get them."""
    found = []
    for experiment in EXPERIMENTS:
        profiles = rows.filter(experiment=experiment.name)["profile"].unique().to_list()
        if not profiles:
            found.append((experiment.name, experiment.title, "no rows", f"harness reproduce {experiment.name}"))
        elif profiles == ["quick"]:
            why = f"the quick profile alone: {experiment.shortened}"
            found.append(
                (experiment.name, experiment.title, why, f"harness reproduce {experiment.name} --profile paper")
            )
    return pl.DataFrame(found, schema=["experiment", "question", "what there is", "command"], orient="row")
