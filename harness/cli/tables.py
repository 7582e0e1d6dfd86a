"""`harness tables`: everything that is there, as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import OUTPUT, RESULTS, AsJson, DataDir, Device, Quiet, ResultsDir, Seed, Threads, existing
from harness.errors import InputError


def tables(
    asv_dir: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Results of `asv run`, shown too where there are any.", rich_help_panel=OUTPUT
        ),
    ] = RESULTS / "asv",
    across: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING",
            help="Compare timings that differ in this setting too: commit, cpu, gpu, threads, device, dtype or B; "
            "may be given more than once.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    results_dir: ResultsDir = RESULTS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show every table of the results that are there, and write them as Markdown.

    In a terminal the main table of each experiment is shown; what is piped on is every table, in Markdown.

    Examples:
      harness tables
      harness tables | less
      harness tables --across threads
      harness tables --results-dir results/reference --json
    """
    from harness.cli import screen
    from harness.methods.process_settings import check
    from harness.report import publish
    from harness.results import SCHEMA, Store

    check(device, threads)
    existing(data_dir)
    rows, damaged = Store(results_dir).frame()
    rows, notes = publish.with_asv(rows, asv_dir)
    for line in (*damaged, *notes):
        screen.say(line)
    if rows.is_empty():
        raise InputError(f"no results in {results_dir} or {asv_dir} yet: run `harness reproduce` or `asv run` first")
    if as_json:
        for row in rows.select(*SCHEMA).iter_rows(named=True):
            print(json.dumps(row))
        return
    pages = list(publish.pages(rows, across or ()))
    screen.show_pages(pages, results_dir)
    files = publish.write_tables(pages, results_dir)
    if not quiet:
        screen.say(f"written: {len(files)} files in {results_dir / 'tables'}")
