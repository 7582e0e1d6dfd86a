"""Which rows may stand in one figure, what its file is called, and what its title, caption and footer say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from harness.paper.experiments import titled

MACHINE = ("device", "cpu", "gpu", "threads", "torch", "commit")
"""What must be the same for seconds to be comparable, beside what is computed."""

TRAININGS = dict.fromkeys(("experiment", "profile", "dataset", "architecture"), "{}")
"""What the name of a figure of trainings begins with, in the form that `groups` takes."""


def groups(rows: pl.DataFrame, named: Mapping[str, str], rest: Sequence[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Split rows into those that may stand in one figure, each with the beginning of its name.

    The values of the columns in ``named`` are always in the name, each in its format. Those of the columns in ``rest``
    must be the same too; they are in the name where figures differ in nothing else.
    """
    for names, own in rows.group_by(list(named), maintain_order=True):
        shared = [form.format(name) for form, name in zip(named.values(), names, strict=True)]
        differing = [column for column in rest if own[column].n_unique() > 1]
        for _, group in own.group_by(list(rest), maintain_order=True):
            yield "-".join([*shared, *(_suffix(column, group[column][0]) for column in differing)]), group


def provenance(group: pl.DataFrame, most: int | None = None) -> str:
    """Say what the rows of one figure were measured with: batch, dtype, machine, threads, torch, commits.

    More commits than ``most`` are counted rather than named.
    """
    commits = sorted({_short(commit) for commit in group["commit"]})
    parts = [
        _all(group, "B", "B = {}"),
        _all(group, "dtype", "{}"),
        _all(group, "gpu", "{}") or _all(group, "cpu", "{}"),
        _all(group, "threads", "{} thread" if set(group["threads"]) == {1} else "{} threads"),
        _all(group.filter(pl.col("device") != "cpu"), "device", "{}"),
        _all(group, "torch", "torch {}"),
        f"commit {', '.join(commits)}" if len(commits) <= (most or len(commits)) else f"{len(commits)} commits",
    ]
    return ", ".join(filter(None, parts))


def labelled(group: pl.DataFrame) -> pl.DataFrame:
    """Add a label to every training: its method, its recipe where they differ, and what its method has several of."""
    parts = [pl.col("method")]
    if group["recipe"].n_unique() > 1:
        parts.append(pl.col("recipe"))
    texts = {column: pl.format(f"{column} {{}}", column) for column in ("B", "L", "seed")}
    texts |= {flag: pl.when(flag).then(pl.lit(flag)).otherwise(pl.lit(f"no {flag}")) for flag in ("EMA", "MaP")}
    for column, text in texts.items():
        if group.group_by("method").agg(pl.col(column).n_unique())[column].max() != 1:
            parts.append(text)
    return group.with_columns(label=pl.concat_str(parts, separator=", ")).sort("label", maintain_order=True)


def title_of(group: pl.DataFrame) -> str:
    """Say in words what the experiment of the rows of one figure is about."""
    return titled(group["experiment"][0])


def facts_of(group: pl.DataFrame, *more: str) -> str:
    """Name the dataset, architecture, profile and whatever else the rows of one figure have in common."""
    first = group.row(0, named=True)
    network = f"{first['architecture']} network"
    return ", ".join(filter(None, [first["dataset"], network, *more, f"profile {first['profile']}"]))


def cells_of(group: pl.DataFrame) -> tuple[str, ...]:
    """Return the keys of the cells that rows come from, sorted."""
    return tuple(sorted(set(group["cell"])))


def _all(group: pl.DataFrame, column: str, text: str) -> str:
    values = group[column].drop_nulls().unique().sort().to_list()
    return text.format(" and ".join(map(str, values))) if values else ""


def _suffix(column: str, value: object) -> str:
    if column == "commit":
        return _short(value if isinstance(value, str) else None).replace("+", "-changed")
    text = {"B": "B{}", "threads": "{}-threads", "torch": "torch-{}", "channels": "{}-channels"}.get(column, "{}")
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.format("no" if value is None else value)).strip("-")


def _short(commit: str | None) -> str:
    if commit is None:
        return "unknown"
    return commit[:8] + "+" if commit.endswith("+") else commit[:8]
