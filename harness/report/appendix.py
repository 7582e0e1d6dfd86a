"""The appendix: every cell with its rows in full, and the links that lead there."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

_SHOWN = 8  # links of a list of cells; the rest is only counted


_SERIES = pl.col("iteration").is_not_null() & (pl.col("status") == "ok") & pl.col("n").eq_missing(1)
"""Rows that differ in their step and value alone, such as those of a curve, which are shown as a table."""


def cells(rows: pl.DataFrame) -> Iterator[dict[str, str]]:
    """Yield the cells of rows with the columns of `harness.results.derived`, in order of experiment and key.

    A cell has a key (the name of its file below ``cells/EXPERIMENT/``), a summary (experiment, profile, and what was
    measured), the command that measures it again (empty if none is known), a line on where it was made (commit,
    machine, version of torch and time), and as a text every row in full precision (curves as CSV, a line a step), the
    configuration and all versions.
    """
    names = ["experiment", "cell"]
    for (experiment, key), group in rows.sort(names, maintain_order=True).group_by(names, maintain_order=True):
        first = group.row(0, named=True)
        methods = group.filter(pl.col("method") != "machine")["method"].unique(maintain_order=True).to_list()
        named = methods[0] if len(methods) == 1 else f"{len(methods)} methods"
        sizes = [f"{name} = {'|'.join(map(str, group[name].unique().sort()))}" for name in ("D", "L")]
        what = ", ".join([first["dataset"], first["architecture"], named, *sizes])
        made = [f"commit {first['commit'] or 'unknown'}", first["gpu"] or first["cpu"], f"threads = {first['threads']}"]
        made += [f"torch {first['torch'] or 'unknown'}", f"from {min(group['started_at'])}"]
        settings = ("recipe", "seed", "shape", "B", "parameters", "dtype", "device")
        lines = [
            ", ".join(f"{name} = {first[name]}" for name in settings if first[name] is not None),
            *map(_line, group.filter(~_SERIES).iter_rows(named=True)),
            *_tables(group.filter(_SERIES)),
            first["config"],
        ]
        if first["versions"] not in first["config"]:
            lines.append(first["versions"])
        yield {
            "key": str(key),
            "summary": f"{experiment} ({first['profile']}): {what}",
            "command": first["command"] or "",
            "made": ", ".join(made),
            # Quotes mean nothing between tags, and there are many.
            "text": Markup(html.escape("\n".join(lines), quote=False)),
        }


def links(keys: Sequence[str]) -> Markup:
    """Return links to cells of the appendix."""
    if not keys:
        return Markup("published")
    anchors = [Markup('<a href="#cell-{}">{}</a>').format(key, key[:8]) for key in keys[:_SHOWN]]
    listed = Markup(" ").join(anchors)
    if len(keys) > _SHOWN:
        listed += Markup(" and {} more").format(len(keys) - _SHOWN)
    if len(keys) == 1:
        return listed
    return Markup("<details><summary>{} cells</summary>{}</details>").format(len(keys), listed)


def _tables(series: pl.DataFrame) -> Iterator[str]:
    """Yield rows as CSV with one column a metric: those of a time of training, and those of a draw or repetition."""
    name = pl.format("{} {} ({})", "method", "metric", "unit")
    for _, own in series.with_columns(name=name).group_by(pl.col("seconds").is_null(), maintain_order=True):
        wide = own.pivot("name", index=["iteration", "seconds"], values="value", maintain_order=True)
        yield (wide.drop("seconds") if wide["seconds"].is_null().all() else wide).write_csv()


def _line(row: dict[str, Any]) -> str:
    words = [row["method"], row["metric"]]
    if row["iteration"] is not None:
        words.append(f"at step {row['iteration']}" + ("" if row["seconds"] is None else f" ({row['seconds']} s)"))
    if row["value"] is None:
        return " ".join([*words, row["status"], row["reason"] or ""])
    words += ["=", repr(row["value"]), row["unit"]]
    if row["ci_low"] is not None and row["ci_high"] is not None:
        words.append(f"[{row['ci_low']!r}, {row['ci_high']!r}]")
    return " ".join([*words, *([f"n = {row['n']}"] if row["n"] is not None else [])])
