"""Writes tables and figures of a frame of rows: Markdown and LaTeX, SVG and PNG, and says what was shortened."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from harness import asv_results
from harness.paper.experiments import EXPERIMENTS
from harness.results import to_frame
from harness.tables import TABLES, render

__all__ = ["build_all", "statements", "with_asv", "write"]


def build_all(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Return title and frame of every table that rows of `harness.results.SCHEMA` fill."""
    built = [(table.title, table.build(rows)) for table in TABLES]
    return [(title, frame) for title, frame in built if not frame.is_empty()]


def statements(rows: pl.DataFrame) -> list[str]:
    """Say in plain words how each experiment among the rows differs from the publication."""
    present = set(rows.select("experiment", "profile").unique().iter_rows())
    lines = []
    for experiment in EXPERIMENTS:
        for profile in ("quick", "paper"):
            if (experiment.name, profile) not in present:
                continue
            parts = [experiment.shortened if profile == "quick" else "", experiment.differs]
            if any(parts):
                lines.append(f"{experiment.name}, {profile}: {'; '.join(filter(None, parts))}")
    return lines


def with_asv(rows: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, list[str]]:
    """Add the newest results of ``asv run`` in a folder, and return one line for every file that cannot be read."""
    found, damaged = asv_results.read(folder)
    return pl.concat([rows, to_frame(found)]), damaged


def write(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Write every table and figure that the rows fill, below a folder; return the files."""
    from harness.figures import runtime_figures

    written = []
    notes = statements(rows)
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        frame = table.build(rows)
        if frame.is_empty():
            continue
        markdown = [f"# {table.title}", "", render(frame, "github"), ""]
        if notes:
            markdown += ["What differs from the publication:", "", *(f"- {line}" for line in notes), ""]
        for suffix, text in ((".md", "\n".join(markdown)), (".tex", render(frame, "latex_booktabs") + "\n")):
            path = tables / f"{table.name}{suffix}"
            path.write_text(text)
            written.append(path)
    return written + runtime_figures(rows, folder / "figures")
