"""Writes tables and figures of a frame of rows: Markdown and LaTeX, SVG and PNG, and says what was shortened."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.paper import published
from harness.paper.experiments import statement
from harness.report.figures import drawings
from harness.report.tables import TABLES, compare_across, file_stem, noise, render, sources, split_constants
from harness.results import Store, to_frame
from harness.results.derived import derived
from harness.timing import asv_results


@dataclass(frozen=True)
class Page:
    """One table of one experiment, ready to be written.

    Args:
        experiment: What it is of, and the profile.
        name: Of its files.
        title: Experiment, profile, what is shown and in which unit.
        frame: The table.
        settings: What all of its rows have in common, in one line.
        limits: What methods in the table declare that they cannot do, a sentence each.
        differs: How the experiment differs from the publication; empty where it does not answer one.
        caveats: What to know before comparing numbers in the table with each other or with published ones.
        cells: Keys of the cells that each row of the table comes from; none for a published number.
    """

    experiment: str
    name: str
    title: str
    frame: pl.DataFrame
    settings: str
    limits: list[str]
    differs: str
    caveats: list[str]
    cells: list[tuple[str, ...]]

    @property
    def notes(self) -> list[str]:
        """What stands below the table, a sentence or line each."""
        caveats = [f"{text}." for text in self.caveats]
        return [note for note in (self.settings, *self.limits, self.differs, *caveats) if note]

    def text(self) -> str:
        """Write the page in Markdown."""
        return "\n\n".join([f"## {self.title}", render(self.frame, "github"), *self.notes]) + "\n"


def pages(rows: pl.DataFrame, across: Collection[str] = ()) -> Iterator[Page]:
    """Yield every table that rows of `harness.results.SCHEMA` fill, experiment by experiment.

    Args:
        rows: What was measured.
        across: Settings that timings may be compared across all the same, of `harness.report.tables.ACROSS`.

    Raises:
        InputError: One of them is no such setting.
    """
    rows = compare_across(rows, across)
    for (experiment, profile), group in rows.group_by(["experiment", "profile"], maintain_order=True):
        metrics = set(group["metric"])
        for table in TABLES:
            if table.metrics and metrics.isdisjoint(table.metrics):
                continue
            frame = table.build(group)
            if frame.is_empty():
                continue
            caveats = _caveats(frame) + (noise(group) if table.timed else [])
            cells = sources(frame, group)
            frame, settings = split_constants(frame)
            of = f"{experiment} ({profile})"
            name = file_stem(experiment, profile, table.name)
            title = f"{of}: {table.title}"
            differs = statement(experiment, profile)
            yield Page(of, name, title, frame, settings, _limits(group), differs, caveats, cells)


def _limits(rows: pl.DataFrame) -> list[str]:
    limited = rows.filter(pl.col("limits").is_not_null()).select("method", "limits").unique().sort("method", "limits")
    return [f"{method} declares: {limits}." for method, limits in limited.rows()]


def _caveats(frame: pl.DataFrame) -> list[str]:
    if "published NLL" not in frame.columns:
        return []
    shown = frame.select("dataset", "architecture").unique().sort("dataset", "architecture").rows()
    return list(
        dict.fromkeys(text for dataset, architecture in shown for text in published.caveats(dataset, architecture))
    )


def with_asv(rows: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, list[str]]:
    """Add the newest results of ``asv run`` in a folder, and return one line for every file that cannot be read."""
    found, damaged = asv_results.read(folder)
    return pl.concat([rows, derived(to_frame(found))]), damaged


def write(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Write every table and figure that the rows fill, below the folder of their store; return the files."""
    return write_tables(pages(rows), folder) + write_figures(rows, folder)


def write_figures(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Write every figure that the rows and the arrays of their cells fill, as SVG and PNG; return the files."""
    return [path for drawing in drawings(rows, Store(folder)) for path in drawing.write(folder / "figures")]


def write_tables(pages: Iterable[Page], folder: Path) -> list[Path]:
    """Write tables as Markdown and LaTeX, below a folder; return the files."""
    written = []
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for page in pages:
        for suffix, text in ((".md", page.text()), (".tex", render(page.frame, "latex_booktabs") + "\n")):
            path = tables / f"{page.name}{suffix}"
            path.write_text(text)
            written.append(path)
    return written
