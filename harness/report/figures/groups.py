"""Which rows may stand in one figure, what its files are called, and what its footer says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from harness.report.tables.columns import COMPILED, EMA, MAP, TORCH

MACHINE = ("device", "cpu", "gpu", "threads", "torch", "commit")
"""What must be the same for seconds to be comparable, beside what is computed."""


def prepared(rows: pl.DataFrame) -> pl.DataFrame:
    """Add what the rows say in JSON, or inside another column, and figures are grouped by."""
    return rows.with_columns(
        torch=TORCH, channels=pl.col("shape").str.extract(r"^(\d+)x"), compiled=COMPILED, MaP=MAP, EMA=EMA
    )


def groups(rows: pl.DataFrame, named: Mapping[str, str], rest: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Split rows into those that may stand in one figure, each with the beginning of its name.

    Args:
        rows: Those that have a place in some figure, as `prepared` returns them.
        named: Columns whose values are always in the name, with the format of each.
        rest: Columns that must be the same too; in the name where figures differ in nothing else.
    """
    for names, own in rows.group_by(list(named), maintain_order=True):
        shared = [form.format(name) for form, name in zip(named.values(), names, strict=True)]
        differing = [column for column in rest if own[column].n_unique() > 1]
        for _, group in own.group_by(list(rest), maintain_order=True):
            yield "-".join([*shared, *(_suffix(column, group[column][0]) for column in differing)]), group


def provenance(group: pl.DataFrame, most: int | None = None) -> str:
    """Say what rows were measured with: batch, dtype, machine, threads, torch, commits.

    Args:
        group: Of one figure.
        most: How many commits are named rather than counted; all if not given.
    """
    batch = _all(group, "B", "B = {}")
    machine = _all(group, "gpu", "{}") or _all(group, "cpu", "{}")
    commits = sorted({_short(commit) for commit in group["commit"]})
    return ", ".join(
        part
        for part in (
            batch,
            _all(group, "dtype", "{}"),
            machine,
            _all(group, "threads", "{} thread" + "s" * (group["threads"].max() != 1)),
            _all(group.filter(pl.col("device") != "cpu"), "device", "{}"),
            _all(group, "torch", "torch {}"),
            f"commit {', '.join(commits)}" if len(commits) <= (most or len(commits)) else f"{len(commits)} commits",
        )
        if part
    )


def footer(group: pl.DataFrame) -> str:
    """Return the provenance short enough for a line at the foot of a figure."""
    return provenance(group, most=2)


def labelled(group: pl.DataFrame) -> pl.DataFrame:
    """Add a label to every training: its method, its recipe where they differ, and what its method has several of."""
    parts = [pl.col("method")]
    if group["recipe"].n_unique() > 1:
        parts.append(pl.col("recipe"))
    for column in ("B", "L", "seed", "EMA", "MaP"):
        if group.group_by("method").agg(pl.col(column).n_unique())[column].max() == 1:
            continue
        flag = pl.when(column).then(pl.lit(column)).otherwise(pl.lit(f"no {column}"))
        parts.append(flag if column in ("EMA", "MaP") else pl.format(f"{column} {{}}", column))
    return group.with_columns(label=pl.concat_str(parts, separator=", ")).sort("label", maintain_order=True)


def title_of(group: pl.DataFrame) -> str:
    """Name experiment, profile, dataset and architecture."""
    first = group.row(0, named=True)
    return f"{first['experiment']} ({first['profile']}), {first['dataset']}, {first['architecture']}"


def cells_of(*groups: pl.DataFrame) -> tuple[str, ...]:
    """Return the keys of the cells that rows come from."""
    return tuple(sorted({cell for group in groups for cell in group["cell"]}))


def _all(group: pl.DataFrame, column: str, text: str) -> str:
    values = group[column].drop_nulls().unique().sort().to_list()
    return text.format(" and ".join(map(str, values))) if values else ""


def _suffix(column: str, value: object) -> str:
    if column == "commit":
        return _short(value if isinstance(value, str) else None).replace("+", "-changed")
    text = {"B": "B{}", "threads": "{}-threads", "torch": "torch-{}", "channels": "{}-channels"}.get(column, "{}")
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.format("no" if value is None else value)).strip("-")


def _short(commit: str | None) -> str:
    return "unknown" if commit is None else commit[:8] + ("+" if commit.endswith("+") else "")
