"""Puts the report's page together: values are prepared here, and the template escapes them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import InputError
from harness.paper.experiments import EXPERIMENTS, titled
from harness.report import publish
from harness.report.appendix import cells, links
from harness.report.claims import CLAIMS, QUESTIONS, VERDICT_RULE, Claim, Outcome, Verdict, telling
from harness.report.figures import drawings
from harness.report.figures.chart import Chart, Drawing, Pictures, as_png, not_made
from harness.report.figures.profiles import profile_figures
from harness.report.series import series_table
from harness.report.tables import leaderboard
from harness.report.tables.text import no_table, to_html
from harness.results import SCHEMA, Store
from harness.results.whole_file import put
from harness.timing import asv_results

_NEEDLES = 1000  # units of the side of a panel of needles
_NOT_IN_CSV = ("config", "versions")
"""Columns of JSON that would make the CSV ten times as large; the Parquet file has them, and so has every cell."""


def write(store: Store, asv_dir: Path, output: Path) -> list[str]:
    """Write the page of a store and of a folder of asv's results, and all rows beside it as Parquet and as CSV.

    Returns:
        A line for every file that cannot be read.

    Raises:
        InputError: if there are no results, or the page cannot be written.
    """
    rows, damaged = store.frame()
    rows, notes = publish.with_asv(rows, asv_dir)
    damaged += notes
    if rows.is_empty():
        reasons = "".join(f"; {note}" for note in damaged[:1])
        raise InputError(
            f"no results in {store.folder} or {asv_dir} yet: run `harness reproduce` or `asv run` first{reasons}"
        )
    shown = rows.select(*SCHEMA, "command")
    parquet = io.BytesIO()
    shown.write_parquet(parquet)
    data = {".parquet": parquet.getvalue(), ".csv": shown.drop(_NOT_IN_CSV).write_csv().encode()}
    beside = {output.with_suffix(suffix): content for suffix, content in data.items()}
    text = build(rows, store, asv_results.history(asv_dir), damaged, [path.name for path in beside])
    try:
        for path, content in {output: text.encode(), **beside}.items():
            put(path, content)
    except OSError as error:
        complaint = f"the report {output} cannot be written ({error.strerror}); choose another --output"
        raise InputError(complaint) from error
    return damaged


def build(
    rows: pl.DataFrame, store: Store, history: pl.DataFrame, damaged: Sequence[str] = (), beside: Sequence[str] = ()
) -> str:
    """Return the page of one row or more.

    Args:
        rows: Rows with the columns of `harness.results.derived`.
        store: The store that has the arrays of the rows.
        history: What `harness.timing.asv_results.history` returns.
        damaged: A line for every file that could not be read.
        beside: Names of the files with all rows, which lie beside the page.
    """
    loader = PackageLoader("harness.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (files("harness.report").joinpath(name).read_text() for name in ("style.css", "script.js"))
    missing = {
        "Methods without a number": _without_numbers(rows),
        "Trainings that ended before the length of their recipe": _cut_short(rows),
        "Experiments without rows of the paper profile": _unmeasured(rows),
    }
    figures = {figure.name: _checked(figure) for figure in drawings(rows, store)}
    judged = [_judged(claim, rows, figures) for claim in CLAIMS]
    answering = {one["figure"].name for one in judged if one["figure"]}
    boards, families, profiles = _leaderboard(rows)
    others = [figure for figure in figures.values() if figure.name not in answering]
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        counts=Counter(rows["status"].to_list()),
        rows=rows.height,
        cell_count=rows["cell"].n_unique(),
        span=(rows["started_at"].min(), rows["started_at"].max()),
        machines=rows.select(pl.coalesce("gpu", "cpu")).to_series().unique(maintain_order=True).to_list(),
        questions=_by_question(judged),
        verdicts=list(Verdict),
        verdict_rule=VERDICT_RULE,
        leaderboard=boards,
        families=families,
        profiles=profiles,
        leaderboard_notes=leaderboard.NOTES,
        figures=_by_experiment(others),
        figure_count=len(others),
        plain=_plain,
        panels=_panels,
        beside=beside,
        titled=titled,
        experiments=_experiments(rows),
        provenance=_table(_provenance(rows)),
        missing=[(title, _table(frame)) for title, frame in missing.items() if not frame.is_empty()],
        damaged=damaged,
        series=series_table(history) if not history.is_empty() else None,
        commits=history["commit"].n_unique(),
        slower=history.filter(change="slower").height,
        factor=asv_results.INTERVALS_APART,
        cells=cells(rows),
        links=links,
    )


def _judged(claim: Claim, rows: pl.DataFrame, figures: dict[str, Drawing]) -> dict[str, Any]:
    """Return a claim with what the rows say of it: the first comparison that is decided tells it, and one figure."""
    verdict, evidence = claim.weigh(rows)
    still_open = [one for one in evidence if one.outcome is Outcome.OPEN]
    decided = [one for one in evidence if one.outcome is not Outcome.OPEN]
    fitting = [figure for name, figure in sorted(figures.items()) if fnmatch(name, claim.figure)]
    return {
        "claim": claim,
        "verdict": verdict,
        "decided": decided,
        "open": still_open,
        "told": telling(evidence),
        "figure": next(iter(fitting), None),
    }


def _by_question(judged: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the claims by what a reader asks, those with a figure first; of two with one figure the later has a link.

    The link is the entry ``see``.
    """
    shown: set[str] = set()
    found = []
    for question in QUESTIONS:
        own = [one for one in judged if one["claim"].question == question]
        own.sort(key=lambda one: one["figure"] is None)
        for one in own:
            figure = one["figure"]
            one["see"] = figure if figure and figure.name in shown else None
            one["figure"] = None if one["see"] else figure
            shown.update([figure.name] if figure else [])
        found.append((question, own))
    return found


def _leaderboard(rows: pl.DataFrame) -> tuple[list[tuple[str, Markup]], list[str], list[Drawing]]:
    """Return the tables of the leaderboard with their titles, the families in it, and its figures."""
    try:
        board = leaderboard.entries(rows)
        tables = [(title, to_html(frame, caption=title)) for title, frame in leaderboard.tables(board)]
        return tables, board["family"].unique().sort().to_list(), list(map(_checked, profile_figures(rows)))
    except Exception as error:  # one odd row may surprise in any place, and must not take the page along
        return [("Leaderboard", to_html(no_table(error)))], [], []


def _checked(figure: Drawing) -> Drawing:
    """Return a figure as it is, or with the reason in its place if the script of the page could not read it."""
    try:
        json.dumps(_plain(figure), allow_nan=False)
    except (ValueError, OverflowError) as error:
        return replace(figure, content=not_made(error))
    return figure


def _plain(figure: Drawing) -> dict[str, Any] | None:
    """Return a chart for the script of the page; None for pictures, which need none."""
    return figure.content.plain() if isinstance(figure.content, Chart) else None


def _panels(pictures: Pictures) -> list[tuple[str, str, Markup]]:
    """Return title, note and markup of every panel: a PNG inside the page, or a path of needles."""
    found = []
    for panel in pictures.panels:
        markup = Markup("")
        if panel.pixels is not None:
            markup = Markup('<img src="{}" alt="{}">').format(as_png(panel.pixels), panel.title)
        elif panel.needles is not None:
            corners = np.rint(panel.needles * [_NEEDLES, -_NEEDLES] + [0, _NEEDLES]).astype(int)
            first, *steps = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
            numbers = np.concatenate([first, *steps], axis=1).tolist()
            path = "".join(f"M{a} {b}l{c} {d} {e} {f}z" for a, b, c, d, e, f in numbers)
            template = '<svg viewBox="0 0 {0} {0}" role="img" aria-label="{1}"><path d="{2}"/></svg>'
            markup = Markup(template).format(_NEEDLES, panel.title, path)
        found.append((panel.title, panel.note, markup))
    return found


def _ordered(experiments: pl.Series) -> list[str]:
    """Return the names of experiments: what is no experiment first, the others in the order of their declarations."""
    order = {experiment.name: index for index, experiment in enumerate(EXPERIMENTS)}
    return sorted(experiments.unique(maintain_order=True), key=lambda name: order.get(name, -1))


def _by_experiment(figures: Sequence[Drawing]) -> list[tuple[str, list[Drawing]]]:
    """Return figures by the name of their experiment."""
    names = _ordered(pl.Series([figure.experiment for figure in figures], dtype=pl.String))
    return [(name, [figure for figure in figures if figure.experiment == name]) for name in names]


def _experiments(rows: pl.DataFrame) -> list[tuple[str, str, list[tuple[publish.Page, Markup]]]]:
    """Return name, profile and tables of every experiment."""
    names = _ordered(rows["experiment"])
    rows = rows.sort(pl.col("experiment").replace_strict(names, range(len(names))), maintain_order=True)
    grouped: dict[tuple[str, str], list[tuple[publish.Page, Markup]]] = {}
    for (experiment, profile), group in rows.group_by(["experiment", "profile"], maintain_order=True):
        for page in publish.pages(group):
            table = to_html(page.frame, {"rows in": list(map(links, page.cells))})
            grouped.setdefault((str(experiment), str(profile)), []).append((page, table))
    return [(*key, pages) for key, pages in grouped.items()]


def _without_numbers(rows: pl.DataFrame) -> pl.DataFrame:
    """Return methods that are unavailable, failed or diverged, with the reason, and the cells that say so."""
    columns = ["status", "experiment", "profile", "method", "reason"]
    return _sourced(rows.filter(pl.col("status") != "ok"), columns, ["status", "experiment", "profile", "method"])


def _cut_short(rows: pl.DataFrame) -> pl.DataFrame:
    """Return trainings of other profiles than quick that ended before the length of their recipe, and their cells."""
    columns = ["experiment", "profile", "method", "dataset", "recipe"]
    short = rows.filter(pl.col("profile") != "quick", pl.col("shortened"))
    return _sourced(short, columns, ["experiment", "method", "recipe"])


def _unmeasured(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the experiments that have no rows at all, or rows of the quick profile alone, and how to get them."""
    lines = []
    for experiment in EXPERIMENTS:
        profiles = rows.filter(experiment=experiment.name)["profile"].unique().to_list()
        command = f"harness reproduce {experiment.name}"
        if not profiles:
            lines.append((experiment.name, experiment.title, "no rows", command))
        elif profiles == ["quick"]:
            why = f"the quick profile alone: {experiment.plan.shortened()}"
            lines.append((experiment.name, experiment.title, why, f"{command} --profile paper"))
    return pl.DataFrame(lines, schema=["experiment", "question", "what there is", "command"], orient="row")


def _sourced(rows: pl.DataFrame, columns: list[str], order: list[str]) -> pl.DataFrame:
    """Return a line for every combination of some columns, with the keys of the cells that it comes from."""
    keys = pl.col("cell").unique(maintain_order=True).alias("keys")
    return rows.group_by(columns, maintain_order=True).agg(keys).sort(order)


def _provenance(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a table of the seeds, commits, machines and versions of every experiment, and the cells of its lines."""
    joined = {
        "seeds": pl.col("seed").cast(pl.String),
        "commits": pl.col("commit").fill_null("unknown").str.slice(0, 8),
        "machines": pl.coalesce("gpu", "cpu"),
        "threads": pl.col("threads").cast(pl.String),
        "torch": pl.col("torch").fill_null("unknown"),
    }
    day = pl.col("started_at").str.slice(0, 10)
    table = rows.group_by(["experiment", "profile"], maintain_order=True).agg(
        pl.col("cell").n_unique().cast(pl.Int64).alias("cells"),
        *(value.unique().sort().str.join(", ").alias(name) for name, value in joined.items()),
        day.min().alias("from"),
        day.max().alias("to"),
        pl.col("cell").unique(maintain_order=True).alias("keys"),
    )
    return table.sort("experiment", "profile")


def _table(frame: pl.DataFrame) -> Markup:
    """Return a table where the keys of the cells of a line are links to them."""
    sources = {"rows in": [links(keys) for keys in frame["keys"].to_list()]} if "keys" in frame.columns else None
    return to_html(frame.drop("keys", strict=False), sources)
