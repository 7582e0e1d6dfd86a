"""`harness tables`: the results as tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from harness.cli.options import OUTPUT, RESULTS, AsJson, Output, Quiet, ResultsDir, Write, destination, option
from harness.errors import InputError


def tables(
    asv_dir: Annotated[
        Path, option(OUTPUT, "FOLDER", "Results of `asv run`, which are shown with the others.")
    ] = RESULTS / "asv",
    across: Annotated[
        list[str] | None,
        option(
            OUTPUT,
            "SETTING",
            "Setting across which timings are compared: commit, cpu, gpu, threads, device, dtype or B; the option may "
            "be given more than once.",
        ),
    ] = None,
    results_dir: ResultsDir = RESULTS,
    write: Write = False,
    output: Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show every table of the results, and with --write or --output write them into tables/ of that folder.

    A terminal shows the main table of each experiment; a pipe or a file gets every table, in Markdown.

    Examples:
      harness tables
      harness tables | less
      harness tables --across threads
      harness tables --results-dir results/reference --json
    """
    from harness.cli import screen
    from harness.report import publish
    from harness.results import Store

    folder = destination(results_dir, write, output)
    rows, damaged = Store(results_dir).frame()
    rows, notes = publish.with_asv(rows, asv_dir)
    for line in (*damaged, *notes):
        screen.say(line)
    if rows.is_empty():
        raise InputError(f"no results in {results_dir} or {asv_dir} yet: run `harness reproduce` or `asv run` first")
    if as_json:
        for row in rows.iter_rows(named=True):
            print(json.dumps(row))
        if folder is None:
            return
    pages = list(publish.pages(rows, across or ()))
    if not as_json:
        screen.show_pages(pages, "by: harness tables | less")
    if folder is not None:
        files = publish.write_tables(pages, folder)
        if not quiet:
            screen.say(f"written: {len(files)} files in {folder / 'tables'}")
