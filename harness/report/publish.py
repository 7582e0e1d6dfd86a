"""Tables as pages of Markdown and figures as SVG: made from a frame of rows, and written to a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.paper import published
from harness.paper.experiments import statement
from harness.report.figures import drawings, figures_of_experiments, headline
from harness.report.tables import leaderboard
from harness.report.tables.columns import with_stars
from harness.report.tables.comparison import compare_across, with_setting
from harness.report.tables.index import TABLES
from harness.report.tables.text import file_stem, no_table, split_constants, to_markdown
from harness.results import Store, to_frame
from harness.results.derived import derived
from harness.results.provenance import code_digest
from harness.results.whole_file import put
from harness.timing import asv_results

if TYPE_CHECKING:
    from harness.report.figures.chart import Drawing

_ROW_COLUMNS = ["method", "linear", "recipe", "dataset", "architecture", "shape", "D", "L", "B"]
_ROW_COLUMNS += ["dtype", "device", "threads", "seed", "cpu", "gpu", "torch", "commit", "EMA", "MaP"]
_MADE = {"tables": (".md", ".tex"), "figures": (".svg", ".png")}
"""Suffixes of the files that this version or an older one wrote, by their folder."""
_INDEX = "rendered.json"
_OPTIONAL = ("low", "high", "published NLL", "published +-")
"""Columns that a table does without where all of their cells are empty."""


@dataclass(frozen=True)
class Page:
    """One table of one experiment, ready to be written.

    Args:
        experiment: The experiment's name, and the profile.
        name: The name of the page's file, without its suffix.
        title: Experiment, profile, what is shown and in which unit.
        frame: The table.
        settings: What all rows of the table have in common, in one line.
        limits: What methods in the table declare that they cannot do, a sentence each.
        differs: How the experiment differs from the publication; empty where it does not answer one.
        caveats: What to know before comparing numbers in the table with each other or with published ones.
        cells: Keys of the cells that each row of the table comes from; empty for a published number.
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
        return "\n\n".join([f"## {self.title}", to_markdown(self.frame), *self.notes]) + "\n"


def pages(rows: pl.DataFrame, across: Collection[str] = ()) -> Iterator[Page]:
    """Yield every table that the rows fill, experiment by experiment.

    Args:
        rows: Rows with the columns of `harness.results.derived`.
        across: Settings of `harness.report.tables.comparison.ACROSS` in which compared timings may differ.

    Raises:
        InputError: if ``across`` names a setting that is not among `ACROSS`.
    """
    rows = compare_across(rows, across)
    for (experiment, profile), group in rows.group_by(["experiment", "profile"], maintain_order=True):
        limited = group.filter(pl.col("limits").is_not_null()).select("method", "limits").unique()
        limits = [f"{method} declares: {text}." for method, text in limited.sort(limited.columns).rows()]
        differs = statement(str(experiment), str(profile))
        for table in TABLES:
            try:
                frame, caveats = table.build(group), table.caveats(group)
            except Exception as error:  # one odd row may surprise in any place, and must not take other tables along
                frame, caveats = no_table(error), []
            if frame.is_empty():
                continue
            frame = frame.select(column for column in frame if column.name not in _OPTIONAL or column.count())
            shown, settings = split_constants(with_stars(frame))
            yield Page(
                experiment=f"{experiment} ({profile})",
                name=file_stem(str(experiment), str(profile), table.name),
                title=f"{experiment} ({profile}): {table.title}",
                frame=shown,
                settings=settings,
                limits=limits,
                differs=differs,
                caveats=_caveats(frame) + caveats,
                cells=_sources(frame, group),
            )


def _sources(table: pl.DataFrame, rows: pl.DataFrame) -> list[tuple[str, ...]]:
    """Return for each line of a table the keys of the cells that agree with it in all that the table says of them."""
    shared = [name for name in _ROW_COLUMNS if name in table.columns]
    if not shared:
        return [tuple(rows["cell"].unique(maintain_order=True))] * table.height
    keys = with_setting(rows).group_by(shared, maintain_order=True).agg(pl.col("cell").unique(maintain_order=True))
    joined = table.select(shared).join(keys, on=shared, how="left", nulls_equal=True, maintain_order="left")
    return [tuple(cells or ()) for cells in joined["cell"].to_list()]


def _caveats(frame: pl.DataFrame) -> list[str]:
    if "published NLL" not in frame.columns:
        return []
    networks = frame.select("dataset", "architecture").unique().sort("dataset", "architecture").rows()
    return list(dict.fromkeys(text for network in networks for text in published.caveats(*network)))


def with_asv(rows: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, list[str]]:
    """Add the newest results of ``asv run`` in a folder, and return one line for every file that cannot be read."""
    newest, damaged = asv_results.read(folder)
    return pl.concat([rows, derived(to_frame(newest))]), damaged


def render(store: Store, folder: Path) -> list[Path]:
    """Write every table and figure of a store and of asv's results in it into a folder; return the files written.

    The same rows give the same bytes.
    """
    return [path for part in _parts(store) for path in part.write(store, folder)]


def refresh(store: Store) -> list[Path]:
    """Bring the tables and figures in a store's own folder up to date; return all that its rows give.

    What was made from the same rows by the same code, and not touched since, is not made again. A file in the folder
    keeps what each experiment was made from.
    """
    place, folder = store.folder / _INDEX, store.folder
    try:
        made = json.loads(place.read_text(encoding="utf-8"))
        known = made["parts"] if made["code"] == code_digest() else {}
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    parts = {}
    for part in _parts(store):
        entry = known.get(part.name)
        if entry is None or entry["rows"] != part.digest or entry["files"] != _contents(folder, entry["files"]):
            names = [path.relative_to(folder).as_posix() for path in part.write(store, folder)]
            entry = {"rows": part.digest, "files": _contents(folder, names)}
        parts[part.name] = entry
    put(place, json.dumps({"code": code_digest(), "parts": parts}).encode())
    return [folder / name for entry in parts.values() for name in entry["files"]]


@dataclass(frozen=True)
class _Part:
    """Rows whose tables and figures depend on no others: of an experiment, or of all for headline and leaderboard."""

    name: str  # of the experiment; empty for the headline, and "leaderboard"
    rows: pl.DataFrame

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.rows.write_csv().encode()).hexdigest()

    def write(self, store: Store, folder: Path) -> list[Path]:
        if not self.name:
            return write_drawings(headline(self.rows), folder)
        if self.name == "leaderboard":
            return write_leaderboard(self.rows, folder)
        tables = write_tables(pages(self.rows), folder)
        # What asv timed has tables alone.
        drawn = [] if self.name == "asv" else write_drawings(figures_of_experiments(self.rows, store), folder)
        return [*tables, *drawn]


def _parts(store: Store) -> list[_Part]:
    rows, _ = store.frame()
    with_all, _ = with_asv(rows, store.folder / "asv")
    experiments = with_all.group_by("experiment", maintain_order=True)
    shared = [_Part("", rows.filter(kind="runtime")), _Part("leaderboard", rows.filter(kind="likelihood"))]
    return [*shared, *(_Part(str(name), own) for (name,), own in experiments)]


def _contents(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digests of files in a folder by name, empty for one that is not there."""
    paths = {name: folder / name for name in names}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for name, path in paths.items()
    }


def remove_others(folder: Path, written: Collection[Path]) -> list[Path]:
    """Remove the tables and figures below a folder that are not among the files written; return those removed."""
    removed = []
    for part, suffixes in _MADE.items():
        for path in sorted((folder / part).glob("*")):
            if path.suffix in suffixes and path not in written:
                path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def write_figures(rows: pl.DataFrame, store: Store, folder: Path) -> list[Path]:
    """Write every figure that rows and their arrays in a store fill, as SVG in ``figures`` of a folder."""
    return write_drawings(drawings(rows, store), folder)


def write_drawings(drawn: Iterable[Drawing], folder: Path) -> list[Path]:
    """Write drawings as SVG in ``figures`` of a folder; return the files."""
    from harness.report.figures.sheet import to_svg

    return _write(((f"{file_stem(one.name)}.svg", to_svg(one)) for one in drawn), folder / "figures")


def write_tables(pages: Iterable[Page], folder: Path) -> list[Path]:
    """Write pages as Markdown in ``tables`` of a folder; return the files."""
    return _write(((f"{page.name}.md", page.text()) for page in pages), folder / "tables")


def write_leaderboard(rows: pl.DataFrame, folder: Path) -> list[Path]:
    """Write the leaderboard of rows as Markdown in ``tables`` of a folder; return the file, if any row fills it."""
    try:
        text = leaderboard.text(rows)
    except Exception as error:  # one odd row may surprise in any place, and must not take the tables along
        text = f"## Leaderboard\n\n{to_markdown(no_table(error))}\n"
    return _write([("leaderboard.md", text)] if text else [], folder / "tables")


def _write(texts: Iterable[tuple[str, str]], folder: Path) -> list[Path]:
    written = []
    for name, text in texts:
        folder.mkdir(parents=True, exist_ok=True)
        written.append(folder / name)
        written[-1].write_text(text, encoding="utf-8")
    return written
