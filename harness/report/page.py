"""Puts the report's page together: values are prepared here, and the template escapes them."""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.errors import InputError
from harness.paper.experiments import EXPERIMENTS
from harness.report import publish
from harness.report.appendix import cells, links
from harness.report.claims import CLAIMS, VERDICT_RULE, Claim, Outcome, Verdict, telling
from harness.report.figures import drawings
from harness.report.series import series_table
from harness.report.tables.text import to_html
from harness.results import Store
from harness.results.whole_file import put
from harness.timing import asv_results

_SVG = "http://www.w3.org/2000/svg"
_HALF = 420  # points, up to which two figures stand side by side


def write(store: Store, asv_dir: Path, output: Path) -> list[str]:
    """Write the page of a store and of a folder of asv's results; return a line for every file that cannot be read.

    Raises:
        InputError: if there are no results, or the page cannot be written.
    """
    rows, damaged = store.frame()
    rows, notes = publish.with_asv(rows, asv_dir)
    damaged += notes
    if rows.is_empty():
        raise InputError(f"no results in {store.folder} or {asv_dir} yet: run `harness reproduce` or `asv run` first")
    text = build(rows, store, asv_results.history(asv_dir), damaged)
    try:
        put(output, text.encode())
    except OSError as error:
        complaint = f"the report {output} cannot be written ({error.strerror}); choose another --output"
        raise InputError(complaint) from error
    return damaged


def build(rows: pl.DataFrame, store: Store, history: pl.DataFrame, damaged: Sequence[str] = ()) -> str:
    """Return the page of one row or more with the columns of `harness.results.derived`; a store has their arrays.

    The history is that of `harness.timing.asv_results.history`; every file that could not be read has a line in
    ``damaged``.
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
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        counts=Counter(rows["status"].to_list()),
        rows=rows.height,
        cell_count=rows["cell"].n_unique(),
        span=(rows["started_at"].min(), rows["started_at"].max()),
        machines=rows.select(pl.coalesce("gpu", "cpu")).to_series().unique(maintain_order=True).to_list(),
        judged=[_judged(claim, rows) for claim in CLAIMS],
        verdicts=list(Verdict),
        verdict_rule=VERDICT_RULE,
        figures=drawings(rows, store),
        inlined=_inlined,
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


def _judged(claim: Claim, rows: pl.DataFrame) -> dict[str, Any]:
    """Return a claim with what the rows say of it; the first comparison of each outcome tells it at a glance."""
    verdict, evidence = claim.weigh(rows)
    still_open = [one for one in evidence if one.outcome is Outcome.OPEN]
    decided = [one for one in evidence if one.outcome is not Outcome.OPEN]
    return {"claim": claim, "verdict": verdict, "decided": decided, "open": still_open, "told": telling(evidence)}


def _inlined(svg: str) -> Markup:
    """Return a drawing as it may stand inside a page: with its own width as the largest one, and no global styles."""
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}style":
                parent.remove(child)
    width = root.attrib.pop("width")
    root.set("style", f"--width: {width}")
    if float(width.removesuffix("pt")) > _HALF:
        root.set("data-wide", "")
    del root.attrib["height"]
    return Markup(ET.tostring(root, encoding="unicode"))


def _experiments(rows: pl.DataFrame) -> list[tuple[str, list[tuple[publish.Page, Markup]]]]:
    """Return tables by experiment and profile: what is no experiment first, the others in the paper's order."""
    order = {experiment.name: index for index, experiment in enumerate(EXPERIMENTS)}
    rows = rows.sort(pl.col("experiment").replace_strict(order, default=-1, return_dtype=pl.Int64), maintain_order=True)
    grouped: dict[str, list[tuple[publish.Page, Markup]]] = {}
    for page in publish.pages(rows):
        table = to_html(page.frame, {"rows in": list(map(links, page.cells))})
        grouped.setdefault(page.experiment, []).append((page, table))
    return list(grouped.items())


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
